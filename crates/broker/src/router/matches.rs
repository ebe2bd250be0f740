//! What one topic matched: scratch that a shard keeps and reuses, so that a match allocates nothing
//! once the buffers have grown.

use super::subscriber::{NodeIndex, Subscriber};
use super::trie::Walk;

/// A shared group of the router. Valid under the guard it was matched with, no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupRef(pub(super) u32);

/// The receivers of one topic.
#[derive(Debug, Default)]
pub struct Matches {
    /// Subscriptions of this node, one entry per matching subscription: a session with overlapping
    /// filters appears once for each, as with EMQX.
    pub local: Vec<Subscriber>,
    /// Other nodes with a subscription, each once.
    pub nodes: Vec<NodeIndex>,
    /// Shared groups; one member of each is to be picked.
    pub groups: Vec<GroupRef>,
    pub(super) filters: Vec<u32>,
    pub(super) walk: Walk,
    /// One bit for each node in `nodes`.
    seen: Vec<u64>,
}

impl Matches {
    /// Scratch without any buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nobody receives the message.
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.nodes.is_empty() && self.groups.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.local.clear();
        self.groups.clear();
        self.filters.clear();
        for node in self.nodes.drain(..) {
            self.seen[usize::from(node.0) / 64] = 0;
        }
    }

    pub(super) fn add_node(&mut self, node: NodeIndex) {
        let (word, bit) = (usize::from(node.0) / 64, 1 << (node.0 % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.nodes.push(node);
        }
    }
}
