//! Scenario tests of shards through their public face: real packets in, real packets out.
//!
//! [`net::Net`] is a few nodes of a few shards each, carried by hand: letters, takeovers and data
//! links arrive when `run` is called, in the order they were sent.

mod connect;
mod evict;
mod faults;
mod net;
mod nodes;
mod operators;
mod packets;
mod properties;
mod publish;
mod qos;
mod rebalance;
mod retained;
mod session;
mod shared;
mod size;
mod subscribe;
mod takeover;
mod will;
