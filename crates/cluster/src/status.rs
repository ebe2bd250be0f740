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
    /// Since when it can be reached and is held apart all the same, because `cluster.autoheal` is
    /// false; by this node's clock.
    pub apart_since_wall_ms: Option<u64>,
    /// How far its wall clock is ahead of ours, milliseconds, as last heard; negative if behind.
    pub clock_ahead_ms: Option<i64>,
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
    /// Rows refused because their stamp shows a time that no clock shows.
    pub skew_refused: u64,
    /// Writes that this node saw overwritten by one whose writer had not seen them.
    pub conflicts: u64,
    /// Whether this node looks for others by itself.
    pub discovery: DiscoveryState,
    /// Why its last look-up failed; `None` if it did not.
    pub discovery_failure: Option<String>,
}

impl Status {
    /// Names of the running members, sorted.
    pub fn running(&self) -> impl Iterator<Item = &NodeName> {
        let running = |m: &&MemberStatus| m.state != MemberState::Stopped;
        self.members.iter().filter(running).map(|m| &m.name)
    }

    /// Names of the members that can be reached and are held apart until `cluster heal`, sorted.
    pub fn held_apart(&self) -> impl Iterator<Item = &NodeName> {
        let apart = |m: &&MemberStatus| m.apart_since_wall_ms.is_some();
        self.members.iter().filter(apart).map(|m| &m.name)
    }

    /// Names of the stopped members, sorted.
    pub fn stopped(&self) -> impl Iterator<Item = &NodeName> {
        let stopped = |m: &&MemberStatus| m.state == MemberState::Stopped;
        self.members.iter().filter(stopped).map(|m| &m.name)
    }
}
