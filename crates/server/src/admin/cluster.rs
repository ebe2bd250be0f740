//! Cluster membership and the nodes as an operator sees them.

use serde::{Deserialize, Serialize};

use super::{Admin, AdminError};

/// The cluster as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// `cluster.name`.
    pub name: String,
    /// The random id all members share, in hexadecimal.
    pub id: String,
    /// This node.
    pub self_node: String,
    /// Members that serve, this node among them; sorted.
    pub running: Vec<String>,
    /// Members that do not; sorted.
    pub stopped: Vec<String>,
    /// All members with details; sorted by name.
    pub members: Vec<MemberRow>,
}

/// A row of the membership table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// `name@host`.
    pub node: String,
    /// The installation's random id, in hexadecimal.
    pub site: String,
    /// `running`, `suspect` or `stopped`.
    pub state: String,
    /// Since when, in milliseconds since the epoch.
    pub since_ms: u64,
}

/// One node's figures, as `GET /nodes` shows them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    /// `name@host`.
    pub node: String,
    /// `running` or `stopped`; all following fields are zero or empty for a stopped node.
    pub node_status: String,
    /// The release.
    pub version: String,
    /// Since start, in milliseconds.
    pub uptime_ms: u64,
    /// Sessions, the disconnected ones included.
    pub connections: u64,
    /// Open client connections.
    pub live_connections: u64,
    /// Sessions in the whole cluster.
    pub cluster_sessions: u64,
    /// Load averages of the host over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Limit on open files.
    pub max_fds: u64,
    /// Memory of the host, in bytes.
    pub memory_total_bytes: u64,
    /// Memory in use on the host, in bytes.
    pub memory_used_bytes: u64,
    /// Resident memory of this process, in bytes.
    pub memory_process_bytes: u64,
    /// Threads of this process.
    pub threads: u64,
    /// The log file, if logging to one.
    pub log_path: Option<String>,
    /// Installation root.
    pub sys_path: String,
}

/// How a join ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// This node is a member of the target's cluster.
    Joined,
    /// The target is this node itself; nothing was done.
    Ignored,
}

/// How a leave or force-leave ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveOutcome {
    /// The node is out. `discovery_disabled`: a discovery strategy is configured and was switched
    /// off on this node until `cluster discovery enable` or a restart.
    Left {
        /// See above.
        discovery_disabled: bool,
    },
    /// Force-leave of this node itself; nothing was done.
    Ignored,
}

/// Receives the steps of a long operation, one short sentence each. Steps are dropped when nobody
/// reads them.
#[derive(Clone, Default)]
pub struct Progress(Option<tokio::sync::mpsc::Sender<String>>);

/// Steps kept for a slow reader of [`Progress`]; a join has fewer.
const PROGRESS_STEPS: usize = 64;

impl Progress {
    /// For callers that do not want to see steps.
    pub fn ignored() -> Self {
        Self(None)
    }

    /// A progress and where its steps can be read; the reader ends when the operation ends.
    pub fn channel() -> (Self, tokio::sync::mpsc::Receiver<String>) {
        let (sender, receiver) = tokio::sync::mpsc::channel(PROGRESS_STEPS);
        (Self(Some(sender)), receiver)
    }

    pub(crate) fn step(&self, text: String) {
        if let Some(sender) = &self.0 {
            // A reader that is gone or that far behind does without.
            let _ = sender.try_send(text);
        }
    }
}

impl Admin {
    /// Membership and liveness as this node knows them.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, AdminError>;

    /// Joins the cluster of `target` (`name@host`, or `name` on this host).
    pub async fn join(&self, target: &str, progress: Progress) -> Result<JoinOutcome, AdminError>;

    /// Leaves the cluster and stands alone.
    pub async fn leave(&self, progress: Progress) -> Result<LeaveOutcome, AdminError>;

    /// Removes another node from the cluster.
    pub async fn force_leave(&self, node: &str) -> Result<LeaveOutcome, AdminError>;

    /// Makes another, standalone node join this node's cluster.
    pub async fn invite(&self, node: &str) -> Result<JoinOutcome, AdminError>;

    /// Switches discovery on again and runs it now, if a strategy is configured.
    pub async fn enable_discovery(&self) -> Result<(), AdminError>;

    /// All members: running ones with figures, stopped ones with their name; sorted by name.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, AdminError>;

    /// One running member; [`AdminError::NodeNotFound`] if it is none.
    pub async fn node(&self, node: &str) -> Result<NodeRow, AdminError>;
}
