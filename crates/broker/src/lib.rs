//! One node of the broker as synchronous state machines.
//!
//! A [`Shard`] owns the client connections and sessions of one thread, [`shared::Shared`] is what
//! the shards of a node have in common (router, registry, retained messages, metrics). Inputs and
//! `now` come in as values, [`effects::ShardEffects`] go out as values.
//!
//! No socket, clock, thread, file or global random source may appear in this crate: the same code
//! runs under the server and under the simulator.

#![warn(missing_docs)]

pub mod access;
pub mod alarm;
pub mod banned;
mod channel;
#[cfg(test)]
mod compat;
pub mod control;
mod dispatch;
pub mod effects;
pub mod evacuation;
mod forward;
pub mod inflight;
pub mod message;
pub mod metrics;
pub mod node;
mod peer_link;
pub mod queue;
pub mod rebalance;
pub mod redirect;
pub mod registry;
pub mod retained;
pub mod router;
pub mod session;
pub mod settings;
pub mod shard;
pub mod shared;
mod will;
mod wills;

pub use control::{
    API_KEYS, CONFIGURATION, Control, ControlConfig, ControlEffects, ControlError, ControlInput,
    LinkEffect, MQTT_USERS, NodeInfo, RETAINED, USERS,
};
pub use effects::{
    Accepted, Answer, Ask, ClientEvent, ClientRow, CloseReason, Conn, Counts, Delivery, Evict,
    Evicted, Output, PeerConn, ShardEffects, ShardId, SubscriptionRow, Target, ToControl, ToShard,
};
pub use node::{Node, NodeEffect, NodeInput, SocketId};
pub use peer_link::Peering;
pub use shard::Shard;
