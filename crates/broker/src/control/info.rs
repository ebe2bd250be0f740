//! Load figures of nodes: each node publishes its own as node state, so that a page about all
//! nodes never waits for any of them.

use bytes::Bytes;
use dunlin_cluster::{MemberState, NodeName, Now};
use serde::{Deserialize, Serialize};

use super::node_state::INFO;
use super::{Control, ControlEffects};
use dunlin_cluster::Input;

/// The only key of the table: one row of figures per node.
const KEY: &[u8] = b"node";

/// What a node tells the others about itself, every few seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Release.
    pub version: String,
    /// When it started, milliseconds since 1970.
    pub started_wall_ms: u64,
    /// Sessions, connected or not.
    pub connections: u64,
    /// Open client connections.
    pub live_connections: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Messages received since start.
    pub messages_received: u64,
    /// Messages sent since start.
    pub messages_sent: u64,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Limit of open files.
    pub max_fds: u64,
    /// Memory of the machine, bytes.
    pub memory_total: u64,
    /// Memory in use on the machine, bytes.
    pub memory_used: u64,
    /// Where it logs to.
    pub log_path: String,
    /// Where it is installed.
    pub sys_path: String,
    /// Its open listeners for clients: id and port.
    pub listeners: Vec<(String, u16)>,
}

impl Control {
    /// Takes this node's figures and tells the other members.
    pub(super) fn publish_info(&mut self, now: Now, info: NodeInfo, fx: &mut ControlEffects) {
        let value = encode(&info);
        self.own_info = info;
        let input = Input::Own {
            table: INFO,
            key: Bytes::from_static(KEY),
            value: Some(value),
        };
        self.cluster(now, input, fx);
    }

    /// The own row of figures, for a snapshot.
    pub(super) fn info_row(&self) -> (u8, Bytes, Bytes) {
        (INFO, Bytes::from_static(KEY), encode(&self.own_info))
    }

    /// Every member with whether it runs and what it said last about itself.
    pub fn nodes(&self) -> Vec<(NodeName, bool, Option<NodeInfo>)> {
        let status = self.status();
        let own = status.own.clone();
        let row = |member: dunlin_cluster::MemberStatus| {
            let info = if member.name == own {
                Some(self.own_info.clone())
            } else {
                self.infos.get(&member.site).cloned()
            };
            (member.name, member.state != MemberState::Stopped, info)
        };
        status.members.into_iter().map(row).collect()
    }
}

fn encode(info: &NodeInfo) -> Bytes {
    postcard::to_stdvec(info)
        .expect("figures always encode")
        .into()
}

/// Reads a peer's figures; a newer release may append fields, which postcard ignores.
pub(super) fn decode(value: &[u8]) -> Option<NodeInfo> {
    postcard::take_from_bytes(value).ok().map(|(info, _)| info)
}

#[cfg(test)]
pub(crate) fn info_bytes() -> Bytes {
    encode(&NodeInfo {
        version: "1.2.3".to_owned(),
        started_wall_ms: 1_700_000_000_000,
        load: [0.5, 1.0, 2.0],
        log_path: "/log".to_owned(),
        ..NodeInfo::default()
    })
}

#[cfg(test)]
pub(crate) fn is_info(bytes: &[u8]) -> bool {
    decode(bytes).is_some()
}
