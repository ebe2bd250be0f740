//! How nodes find, trust, watch and agree with each other.
//!
//! This crate knows no MQTT: table rows, calls and casts are opaque bytes. It owns membership, the
//! control links, node-state streams and cluster-state tables. It is a pure state machine: no
//! socket, clock, thread, file or random source of its own. Start reading at [`Cluster`].

#![warn(missing_docs)]

mod apart;
mod autoclean;
mod backlog;
mod call;
pub mod clock;
#[cfg(test)]
mod compat;
pub mod config;
mod conflict;
mod connect;
mod discovery;
mod errand;
pub mod error;
mod failure;
pub mod identity;
pub mod input;
mod join;
pub mod link;
mod liveness;
pub mod membership;
mod multicast;
pub mod name;
mod node;
mod owned_streams;
mod peer;
mod restore;
mod serve;
mod skew;
mod stand;
pub mod status;
mod sync;
pub mod table;
mod tls;
mod view;
mod wire;

pub use clock::{Clock, Hlc, Now, SKEW_REPORT_MS, Skew, Stamp};
pub use config::{Config, META_TABLE, Quorum, Restored};
pub use discovery::{
    Discover, Discovered, DiscoveryState, K8sAddress, K8sEndpoint, K8sError, K8sRule, K8sService,
    Lookup, READY_MAX_MS, Record, Service, Strategy,
};
pub use errand::JOIN_SKEW_MS;
pub use error::{
    AbortCause, CallError, DialError, DiscoveryError, DownReason, OperationError, RestoreError,
};
pub use identity::{BootId, ClusterId, Cookie, Identity, Peer, SiteId};
pub use input::{
    Check, ConnId, Effect, InCall, Input, JoinStep, Operation, PAYLOAD_BYTES_MAX, SNAPSHOT_CHUNK,
    SnapshotId, Write,
};
pub use link::{
    Handshake, HandshakeError, Hello, LinkError, Purpose, Receiver, Sender, WindowFull,
    is_plain_handshake, plain_refusal,
};
pub use membership::{Member, Membership};
pub use name::{NameError, NodeName};
pub use node::Cluster;
pub use status::{LinkState, MemberState, MemberStatus, Status};
pub use table::merged::{
    Applied, MEMBERS, Merged, MergedRead, Row, RowRef, TOMBSTONE_KEEP_MS, TableId, TableSpec,
    Value, Wins,
};
pub use tls::{CertificateFault, TlsFault};
pub use view::{StreamStatus, TableStatus};
