//! What `cluster status` shows: membership and liveness side by side.

use crate::discovery::DiscoveryState;
use crate::identity::{ClusterId, SiteId};
use crate::name::NodeName;

/// Whether a member runs, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It answers, directly or through another member.
    Running,
    /// It has not answered for a moment; shown as running until the suspicion time is over.
    Suspect,
    /// It is down.
    Stopped,
}

/// Whether there is a control connection to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// This node itself.
    Own,
    /// Connected.
    Connected,
    /// Being dialed or waited for.
    Connecting,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its installation.
    pub site: SiteId,
    /// Its name.
    pub name: NodeName,
    /// Whether it runs.
    pub state: MemberState,
    /// Since when, milliseconds since 1970 by this node's clock.
    pub since_wall_ms: u64,
    /// The control connection to it.
    pub link: LinkState,
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `cluster.name`.
    pub cluster_name: String,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// This node.
    pub own: NodeName,
    /// All members, this node included, sorted by name.
    pub members: Vec<MemberStatus>,
    /// Rows refused because their stamp was too far in the future.
    pub skew_refused: u64,
    /// Whether this node looks for others by itself.
    pub discovery: DiscoveryState,
}

impl Status {
    /// Names of the running members, sorted.
    pub fn running(&self) -> impl Iterator<Item = &NodeName> {
        let running = |m: &&MemberStatus| m.state != MemberState::Stopped;
        self.members.iter().filter(running).map(|m| &m.name)
    }

    /// Names of the stopped members, sorted.
    pub fn stopped(&self) -> impl Iterator<Item = &NodeName> {
        let stopped = |m: &&MemberStatus| m.state == MemberState::Stopped;
        self.members.iter().filter(stopped).map(|m| &m.name)
    }
}
