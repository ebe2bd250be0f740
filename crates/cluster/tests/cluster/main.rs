//! Whole clusters of the real core in virtual time: what operators and clients are promised.

mod apart;
mod clock;
mod conflict;
mod discovery;
mod errand;
mod join;
mod leave;
mod links;
mod net;
mod storm;
mod tables;
