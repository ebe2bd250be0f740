//! One node of the broker as synchronous state machines.
//!
//! A `Shard` owns the client connections and sessions of one thread, [`shared::Shared`] is what
//! the shards of a node have in common (router, registry, retained messages, metrics). Inputs and
//! `now` come in as values, effects go out as values.
//!
//! No socket, clock, thread, file or global random source may appear in this crate: the same code
//! runs under the server and under the simulator.

#![warn(missing_docs)]

pub mod inflight;
pub mod message;
pub mod metrics;
pub mod queue;
pub mod registry;
pub mod retained;
pub mod router;
pub mod settings;
pub mod shared;
