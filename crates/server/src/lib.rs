//! The shell around the cores: sockets, threads, files, clocks.
//!
//! [`run`] makes a node of a configuration: shard threads with their listeners, the control thread
//! with links to other nodes, the store thread, the log. [`admin::Admin`] is every operation an
//! operator can do. No decision about MQTT or about the cluster is made here; those belong to
//! `broker` and `cluster`, which know no socket.

pub mod admin;
pub mod ctl;
pub mod http;
pub mod lifecycle;
pub mod listener;
pub mod log;
pub mod time;
pub mod tls;

mod access;
mod alarm;
mod broker_settings;
mod configuration;
mod connection;
mod console;
mod control_thread;
mod discovery;
mod driver;
mod host;
mod inbox;
mod listeners;
mod peer;
mod proving;
mod shard_thread;
mod statsd;
mod store;
mod stream;

pub use access::AccessError;
pub use lifecycle::{ExitReason, Hooks, Paths, StartError, run};
pub use peer::PeerTlsError;

/// The release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the software calls itself.
pub const PRODUCT: &str = "Dunlin";
