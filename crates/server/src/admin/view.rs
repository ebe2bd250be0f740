//! `cluster status --verbose`: what every node sees of the cluster, side by side.
//!
//! Each node is asked for its own view; the asker adds how long the answer took over the control
//! link and how far the clocks are apart. What does not answer is shown as silent, never waited
//! for.

use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_broker::control::Control;
use dunlin_cluster::{DiscoveryState, LinkState, MemberStatus, TableStatus};
use serde::{Deserialize, Serialize};

use super::remote::{Answered, Question, REMOTE_TIMEOUT_MS};
use super::{Admin, AdminError, Scope};
use crate::control_thread::Request;
use crate::time::wall_ms;

/// What one node sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// `name@host`.
    pub node: String,
    /// The release.
    pub version: String,
    /// Its clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// `cluster.name`.
    pub cluster_name: String,
    /// The cluster's id, in hexadecimal.
    pub cluster_id: String,
    /// The number of its latest change of node state.
    pub own_number: u64,
    /// Everybody, itself included.
    pub sees: Vec<SeenRow>,
    /// Its cluster-state tables.
    pub tables: Vec<TableRow>,
    /// Whether it looks for others by itself.
    pub discovery: DiscoveryRow,
    /// Active alarms.
    pub alarms: u64,
}

/// A member as a node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRow {
    /// The member.
    pub node: String,
    /// `running`, `suspect` or `stopped`.
    pub state: String,
    /// Since when, milliseconds since 1970 by that node's clock.
    pub since_ms: u64,
    /// `self`, `connected` or `connecting`.
    pub link: String,
    /// The last change of the member's node state that has arrived; none before its snapshot has.
    pub has: Option<u64>,
    /// Frames on the way to it that are not acknowledged.
    pub unacked_frames: u64,
    /// Their bytes.
    pub unacked_bytes: u64,
}

/// A cluster-state table on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// Its name.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// Equal digests are equal tables; in hexadecimal.
    pub digest: String,
}

/// How a node looks for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryRow {
    /// `cluster.discovery_strategy`.
    pub strategy: String,
    /// `unconfigured`, `on` or `off`.
    pub state: String,
    /// What was last wrong, and is not over.
    pub error: Option<String>,
}

/// A member and its view, if it answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// The member.
    pub node: String,
    /// How long its answer took over the control link, microseconds; none for this node itself and
    /// for who did not answer.
    pub round_trip_us: Option<u64>,
    /// Its clock minus ours, milliseconds, give or take half the round trip.
    pub clock_offset_ms: Option<i64>,
    /// Why there is no view.
    pub silent: Option<String>,
    /// What it sees.
    pub view: Option<NodeView>,
}

/// The cluster as all nodes see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The node that was asked.
    pub self_node: String,
    /// Every member; sorted by name.
    pub members: Vec<MemberView>,
}

impl NodeView {
    /// As far as control knows it.
    pub(crate) fn of(control: &Control) -> Self {
        let (status, core) = (control.status(), control.core());
        let streams = core.streams();
        let seen = |member: &MemberStatus| {
            let stream = streams.iter().find(|stream| stream.site == member.site);
            SeenRow {
                node: member.name.to_string(),
                state: super::cluster::state_name(member.state).to_owned(),
                since_ms: member.since_wall_ms,
                link: link_name(member.link).to_owned(),
                has: stream.and_then(|stream| stream.has),
                unacked_frames: stream.map_or(0, |stream| stream.unacked_frames as u64),
                unacked_bytes: stream.map_or(0, |stream| stream.unacked_bytes as u64),
            }
        };
        let tables = core.table_statuses().into_iter();
        let table = |table: TableStatus| TableRow {
            name: table.name.to_owned(),
            rows: table.rows as u64,
            digest: format!("{:016x}", table.digest),
        };
        Self {
            node: status.own.to_string(),
            cluster_name: status.cluster_name.clone(),
            cluster_id: status.cluster.to_string(),
            own_number: core.own_number(),
            sees: status.members.iter().map(seen).collect(),
            tables: tables.map(table).collect(),
            discovery: DiscoveryRow {
                strategy: String::new(),
                state: discovery_name(status.discovery).to_owned(),
                error: status.discovery_failure.clone(),
            },
            ..Self::default()
        }
    }
}

fn link_name(link: LinkState) -> &'static str {
    match link {
        LinkState::Own => "self",
        LinkState::Connected => "connected",
        LinkState::Connecting => "connecting",
    }
}

fn discovery_name(state: DiscoveryState) -> &'static str {
    match state {
        DiscoveryState::Unconfigured => "unconfigured",
        DiscoveryState::On => "on",
        DiscoveryState::Off => "off",
    }
}

impl Admin {
    /// Who sees whom, and how far everything is in step.
    pub async fn cluster_view(&self) -> Result<ClusterView, AdminError> {
        let own = self.own_view().await?;
        let answers = self
            .ask_others::<NodeView>(&Scope::Cluster, &Question::View)
            .await;
        let mut members: BTreeMap<String, MemberView> = own
            .sees
            .iter()
            .map(|seen| (seen.node.clone(), silent(&seen.node, "it is not reachable")))
            .collect();
        for answer in answers {
            members.insert(answer.node.to_string(), member_view(answer));
        }
        let self_node = own.node.clone();
        let row = MemberView {
            view: Some(own),
            ..silent(&self_node, "")
        };
        let row = MemberView {
            silent: None,
            ..row
        };
        members.insert(self_node.clone(), row);
        Ok(ClusterView {
            self_node,
            members: members.into_values().collect(),
        })
    }

    /// What this node sees.
    pub(crate) async fn own_view(&self) -> Result<NodeView, AdminError> {
        let mut view = self.inner.request(Request::View).await?;
        crate::VERSION.clone_into(&mut view.version);
        view.wall_ms = wall_ms();
        view.alarms = self.inner.alarms.list(true).len() as u64;
        let strategy = self.inner.loaded.settings.cluster.strategy.as_str();
        strategy.clone_into(&mut view.discovery.strategy);
        Ok(view)
    }
}

fn silent(node: &str, why: &str) -> MemberView {
    MemberView {
        node: node.to_owned(),
        round_trip_us: None,
        clock_offset_ms: None,
        silent: Some(why.to_owned()),
        view: None,
    }
}

fn member_view(answered: Answered<NodeView>) -> MemberView {
    let node = answered.node.to_string();
    match answered.answer {
        Ok(view) => MemberView {
            round_trip_us: Some(answered.took.as_micros() as u64),
            clock_offset_ms: Some(offset_ms(view.wall_ms, wall_ms(), answered.took)),
            silent: None,
            view: Some(view),
            node,
        },
        Err(error) => silent(&node, &format!("{error} ({REMOTE_TIMEOUT_MS} ms)")),
    }
}

/// Their clock minus ours. Their reading is taken to be from the middle of the round trip.
fn offset_ms(theirs_ms: u64, ours_ms: u64, took: Duration) -> i64 {
    let middle_ms = ours_ms.saturating_sub(took.as_millis() as u64 / 2);
    theirs_ms as i64 - middle_ms as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_at_the_middle_of_the_round_trip() {
        let took = Duration::from_millis(100);
        assert_eq!(offset_ms(10_000, 10_050, took), 0);
        assert_eq!(offset_ms(10_500, 10_050, took), 500);
        assert_eq!(offset_ms(9_000, 10_050, took), -1_000);
    }
}
