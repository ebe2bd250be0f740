//! What the node is and what it has counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Admin, AdminError, Scope};

/// Whether this node serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `name@host`.
    pub node: String,
    /// The release.
    pub version: String,
    /// False until all listeners are open, and from the beginning of a stop on.
    pub started: bool,
}

/// `emqx ctl broker`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerDescription {
    /// What the software is.
    pub sysdescr: String,
    /// The release.
    pub version: String,
    /// Milliseconds since the epoch.
    pub datetime_ms: u64,
    /// Since start, in milliseconds.
    pub uptime_ms: u64,
}

/// Stats or metrics of one node by EMQX's names (`connections.count`, `messages.received`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The node.
    pub node: String,
    /// Name and value, sorted by name.
    pub values: BTreeMap<String, u64>,
}

impl Admin {
    /// Whether this node serves.
    pub fn status(&self) -> NodeStatus;

    /// What this node is.
    pub fn broker(&self) -> BrokerDescription;

    /// Gauges with their high-water marks (`broker stats`), one entry per node of the scope.
    pub async fn stats(&self, scope: Scope) -> Result<Vec<Figures>, AdminError>;

    /// Counters (`broker metrics`), one entry per node of the scope.
    pub async fn metrics(&self, scope: Scope) -> Result<Vec<Figures>, AdminError>;
}
