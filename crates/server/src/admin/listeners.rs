//! Listeners as an operator sees them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Admin, AdminError};

/// One configured listener of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRow {
    /// `tcp:default`; the dashboard's are `http:dashboard` and `https:dashboard`.
    pub id: String,
    /// `tcp`, `ssl`, `ws`, `wss`.
    pub kind: String,
    /// The part after the colon.
    pub name: String,
    /// Where it listens, as configured: `0.0.0.0:1883` or `:1883`.
    pub bind: String,
    /// As configured (has no meaning here: every core accepts).
    pub acceptors: u32,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether it starts with the node.
    pub enable: bool,
    /// Whether it is open.
    pub running: bool,
    /// Connections it has now.
    pub current_connections: u64,
    /// Limit; `None` is infinity.
    pub max_connections: Option<u64>,
    /// Ended connections by reason, since it was opened.
    pub shutdown_count: BTreeMap<String, u64>,
}

impl Admin {
    /// The listeners of this node, in order of id.
    pub fn listeners(&self) -> Vec<ListenerRow>;

    /// One of them.
    pub fn listener(&self, id: &str) -> Result<ListenerRow, AdminError>;

    /// Opens a listener that is not running.
    pub async fn start_listener(&self, id: &str) -> Result<(), AdminError>;

    /// Closes a listener and its connections.
    pub async fn stop_listener(&self, id: &str) -> Result<(), AdminError>;

    /// Closes a listener and its connections, if it runs, and opens it again.
    pub async fn restart_listener(&self, id: &str) -> Result<(), AdminError>;
}
