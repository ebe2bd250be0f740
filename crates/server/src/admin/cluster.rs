//! Cluster membership and the nodes as an operator sees them.

use std::time::Duration;

use dunlin_broker::control::NodeInfo;
use dunlin_cluster::{DiscoveryState, MemberState, NodeName, Operation, OperationError, Status};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::{Admin, AdminError};
use crate::control_thread::Request;
use crate::host::Host;
use crate::time::wall_ms;

/// How long `cluster heal` waits for those held apart, and how often it looks.
const HEAL_WAIT: Duration = Duration::from_secs(3);
const HEAL_LOOK: Duration = Duration::from_millis(50);

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
    /// Members that can be reached again after a split and are not merged, because
    /// `cluster.autoheal` is false; sorted.
    pub held_apart: Vec<String>,
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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

/// How this node finds others by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryStatus {
    /// The word of `cluster.discovery_strategy`.
    pub strategy: &'static str,
    /// Whether it looks.
    pub state: DiscoveryState,
    /// Why the last look-up failed; `None` if it did not.
    pub failure: Option<String>,
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
    pub async fn cluster_status(&self) -> Result<ClusterStatus, AdminError> {
        let status = self.inner.request(Request::Status).await?;
        Ok(cluster_status(&status))
    }

    /// Whether this node finds others by itself, and what is in the way.
    pub async fn discovery_status(&self) -> Result<DiscoveryStatus, AdminError> {
        let status = self.inner.request(Request::Status).await?;
        Ok(DiscoveryStatus {
            strategy: self.inner.loaded.settings.cluster.strategy.as_str(),
            state: status.discovery,
            failure: status.discovery_failure,
        })
    }

    /// Joins the cluster of `target` (`name@host`, or `name` on this host).
    pub async fn join(&self, target: &str, progress: Progress) -> Result<JoinOutcome, AdminError> {
        let target = self.complete(target)?;
        match self.operation(Operation::Join { target }, progress).await {
            Ok(()) => Ok(JoinOutcome::Joined),
            Err(AdminError::Cluster(OperationError::SelfNode { .. })) => Ok(JoinOutcome::Ignored),
            Err(error) => Err(error),
        }
    }

    /// Leaves the cluster and stands alone.
    pub async fn leave(&self, progress: Progress) -> Result<LeaveOutcome, AdminError> {
        self.operation(Operation::Leave, progress).await?;
        let status = self.inner.request(Request::Status).await?;
        let discovery_disabled = status.discovery == DiscoveryState::Off;
        Ok(LeaveOutcome::Left { discovery_disabled })
    }

    /// Removes another node from the cluster.
    pub async fn force_leave(&self, node: &str) -> Result<LeaveOutcome, AdminError> {
        let node = self.complete(node)?;
        match self
            .operation(Operation::ForceLeave { node }, Progress::ignored())
            .await
        {
            Ok(()) => Ok(LeaveOutcome::Left {
                discovery_disabled: false,
            }),
            Err(AdminError::Cluster(OperationError::SelfNode { .. })) => Ok(LeaveOutcome::Ignored),
            Err(error) => Err(error),
        }
    }

    /// Has another node join this node's cluster, within `timeout_ms`. It does so as if told to by
    /// its own operator: one that is a member elsewhere leaves there.
    pub async fn invite(&self, node: &str, timeout_ms: u64) -> Result<JoinOutcome, AdminError> {
        let node = self.complete(node)?;
        let op = Operation::Invite { node, timeout_ms };
        self.operation(op, Progress::ignored()).await?;
        Ok(JoinOutcome::Joined)
    }

    /// Merges the sides of a split that `cluster.autoheal = false` keeps apart; returns whom this
    /// node held apart. Waits for them a little: they merge as they are reached.
    pub async fn heal(&self) -> Result<Vec<String>, AdminError> {
        let held = self.cluster_status().await?.held_apart;
        self.operation(Operation::Heal, Progress::ignored()).await?;
        let deadline = Instant::now() + HEAL_WAIT;
        while !held.is_empty() && Instant::now() < deadline {
            let running = self.cluster_status().await?.running;
            if held.iter().all(|node| running.contains(node)) {
                break;
            }
            sleep(HEAL_LOOK).await;
        }
        Ok(held)
    }

    /// Switches discovery on again and runs it now, if a strategy is configured.
    pub async fn enable_discovery(&self) -> Result<(), AdminError> {
        self.operation(Operation::EnableDiscovery, Progress::ignored())
            .await
    }

    /// All members: running ones with figures, stopped ones with their name; sorted by name.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, AdminError> {
        let nodes = self.inner.request(Request::Nodes).await?;
        let sessions = nodes
            .iter()
            .filter_map(|(_, _, info)| Some(info.as_ref()?.connections))
            .sum();
        let host = Host::read();
        let row = |(name, running, info): &(NodeName, bool, Option<NodeInfo>)| {
            let mut row = node_row(name, *running, info.as_ref(), sessions);
            if *name == self.inner.node {
                row.load = host.load;
                row.memory_process_bytes = host.memory_process_bytes;
                row.threads = host.threads;
            }
            row
        };
        Ok(nodes.iter().map(row).collect())
    }

    /// One running member; [`AdminError::NodeNotFound`] if it is none.
    pub async fn node(&self, node: &str) -> Result<NodeRow, AdminError> {
        let node = self.complete(node)?;
        let rows = self.nodes().await?;
        let found = rows.into_iter().find(|row| row.node == node.as_str());
        found
            .filter(|row| row.node_status == "running")
            .ok_or_else(|| AdminError::NodeNotFound {
                node: node.to_string(),
            })
    }

    pub(crate) fn complete(&self, node: &str) -> Result<NodeName, AdminError> {
        NodeName::complete(node, &self.inner.node).map_err(|error| AdminError::NodeName {
            name: node.to_owned(),
            reason: error.to_string(),
        })
    }

    /// No limit of ours: the core bounds each of its steps, and a join of a large cluster takes as
    /// long as its state takes to copy.
    async fn operation(&self, op: Operation, progress: Progress) -> Result<(), AdminError> {
        let (done, result) = oneshot::channel();
        self.inner.send(Request::Operation { op, progress, done });
        result
            .await
            .map_err(|_| AdminError::Stopping)?
            .map_err(AdminError::Cluster)
    }
}

fn cluster_status(status: &Status) -> ClusterStatus {
    let member = |member: &dunlin_cluster::MemberStatus| MemberRow {
        node: member.name.to_string(),
        site: member.site.to_string(),
        state: state_name(member.state).to_owned(),
        since_ms: member.since_wall_ms,
    };
    ClusterStatus {
        name: status.cluster_name.clone(),
        id: status.cluster.to_string(),
        self_node: status.own.to_string(),
        running: status.running().map(NodeName::to_string).collect(),
        stopped: status.stopped().map(NodeName::to_string).collect(),
        held_apart: status.held_apart().map(NodeName::to_string).collect(),
        members: status.members.iter().map(member).collect(),
    }
}

fn node_row(name: &NodeName, running: bool, info: Option<&NodeInfo>, sessions: u64) -> NodeRow {
    let node_status = if running { "running" } else { "stopped" };
    let mut row = NodeRow {
        node: name.to_string(),
        node_status: node_status.to_owned(),
        ..NodeRow::default()
    };
    let (true, Some(info)) = (running, info) else {
        return row;
    };
    row.version.clone_from(&info.version);
    row.uptime_ms = wall_ms().saturating_sub(info.started_wall_ms);
    row.connections = info.connections;
    row.live_connections = info.live_connections;
    row.cluster_sessions = sessions;
    row.load = info.load;
    row.max_fds = info.max_fds;
    row.memory_total_bytes = info.memory_total;
    row.memory_used_bytes = info.memory_used;
    row.log_path = Some(info.log_path.clone()).filter(|path| !path.is_empty());
    row.sys_path.clone_from(&info.sys_path);
    row
}

/// The word for a member's state.
pub(crate) fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Running => "running",
        MemberState::Suspect => "suspect",
        MemberState::Stopped => "stopped",
    }
}
