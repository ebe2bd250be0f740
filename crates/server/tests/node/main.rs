//! Whole nodes on real sockets, with clients that write their bytes by hand.

mod access;
mod client;
mod harness;
mod lifecycle;
mod peers;
mod transports;
