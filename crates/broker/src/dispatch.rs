//! Messages of shared groups that were given to members on other nodes, until those are done with
//! them: what a node takes with it when it dies is given to somebody else.
//!
//! ```text
//!  publisher's shard                             member's node
//!    | -- forward, dispatch number -----------------> |   the member's session has it
//!    | <- receipts: numbers ------------------------- |   acknowledged, expired or dropped there
//!  the node dies: what has no receipt goes to another member
//! ```
//! A receipt is written when the last owner of a message lets go of it, so no way a message can end
//! is forgotten. Must never hold up a publisher: what is kept is bounded, the oldest goes first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_cluster::{BootId, SiteId};
use smallvec::SmallVec;

use crate::message::Message;
use crate::router::{GroupKey, NodeIndex};

/// How often receipts are sent while there may be some, ms. Long enough to gather many in one
/// notice; a node that dies within it has what it had done delivered once more.
pub(crate) const RECEIPTS_MS: u64 = 20;

/// Messages kept for one node, and their bytes; more than the windows of a thousand busy members.
/// Beyond it the oldest are forgotten, as if their node had done them.
const KEPT_MAX: usize = 65_536;
const KEPT_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// What a kept message takes beside its bytes.
const KEPT_OVERHEAD_BYTES: usize = 200;

/// Who gave a message, and which one it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Giver {
    pub(crate) site: SiteId,
    pub(crate) boot: BootId,
    pub(crate) shard: u16,
}

/// The groups one message was given to on one node.
pub(crate) type Groups = SmallVec<[Arc<GroupKey>; 1]>;

#[derive(Debug)]
struct Kept {
    message: Message,
    groups: Groups,
}

impl Kept {
    fn bytes(&self) -> usize {
        let message = &self.message;
        let parts = [message.properties().len(), message.payload().len()];
        KEPT_OVERHEAD_BYTES + message.topic().len() + parts.iter().sum::<usize>()
    }
}

#[derive(Debug)]
struct Node {
    boot: BootId,
    kept: BTreeMap<u64, Kept>,
    bytes: usize,
    /// Some were forgotten, and it was said.
    overflowed: bool,
}

/// What this shard has given away and has no receipt for.
#[derive(Debug, Default)]
pub(crate) struct Dispatched {
    nodes: BTreeMap<NodeIndex, Node>,
    last: u64,
}

impl Dispatched {
    /// Keeps a message given to a life of a node; its number.
    pub(crate) fn keep(
        &mut self,
        (node, boot): (NodeIndex, BootId),
        message: Message,
        groups: Groups,
    ) -> u64 {
        self.last += 1;
        let kept = Kept { message, groups };
        let of = self.nodes.entry(node).or_insert_with(|| Node {
            boot,
            kept: BTreeMap::new(),
            bytes: 0,
            overflowed: false,
        });
        debug_assert!(of.boot == boot || of.kept.is_empty());
        of.boot = boot;
        of.bytes += kept.bytes();
        of.kept.insert(self.last, kept);
        while of.kept.len() > KEPT_MAX || of.bytes > KEPT_BYTES_MAX {
            let Some((_, oldest)) = of.kept.pop_first() else {
                break;
            };
            of.bytes -= oldest.bytes();
            if !std::mem::replace(&mut of.overflowed, true) {
                tracing::warn!(node = node.0, "shared_messages_of_node_not_watched");
            }
        }
        self.last
    }

    /// A node is done with these.
    pub(crate) fn over(&mut self, node: NodeIndex, numbers: &[u64]) {
        let Some(of) = self.nodes.get_mut(&node) else {
            return;
        };
        for number in numbers {
            if let Some(kept) = of.kept.remove(number) {
                of.bytes -= kept.bytes();
            }
        }
    }

    /// A node is dead, or lives again as this process: what it had not done, in order.
    pub(crate) fn take(
        &mut self,
        node: NodeIndex,
        alive: Option<BootId>,
    ) -> impl Iterator<Item = (Message, Groups)> + use<> {
        let same = |of: &Node| Some(of.boot) == alive;
        let taken = match self.nodes.get(&node) {
            Some(of) if !same(of) => self.nodes.remove(&node),
            _ => None,
        };
        let kept = taken.map(|of| of.kept).unwrap_or_default();
        kept.into_values().map(|kept| (kept.message, kept.groups))
    }
}

/// The receipts of this node that are written and not sent.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    written: Mutex<BTreeMap<Giver, Vec<u64>>>,
    /// Messages whose owners have not let go of them.
    awaited: AtomicUsize,
}

impl Receipts {
    /// Of a message that came with a number.
    pub(crate) fn receipt(self: &Arc<Self>, giver: Giver, number: u64) -> Arc<Receipt> {
        self.awaited.fetch_add(1, Ordering::Relaxed);
        Arc::new(Receipt {
            giver,
            number,
            book: Arc::clone(self),
        })
    }

    /// Those written since.
    pub(crate) fn take(&self) -> BTreeMap<Giver, Vec<u64>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut written)
    }

    /// Whether more may be written.
    pub(crate) fn are_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) > 0
    }
}

/// Writes itself when the last owner of its message lets go.
#[derive(Debug)]
pub(crate) struct Receipt {
    giver: Giver,
    number: u64,
    book: Arc<Receipts>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let written = self.book.written.lock();
        let mut written = written.unwrap_or_else(PoisonError::into_inner);
        written.entry(self.giver).or_default().push(self.number);
        self.book.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Head, Parts};

    const NODE: NodeIndex = NodeIndex(3);
    const BOOT: BootId = BootId(7);

    fn message(payload: &str) -> Message {
        let parts = Parts {
            topic: "t",
            payload: payload.as_bytes(),
            ..Parts::default()
        };
        Message::new(parts, Head::default())
    }

    fn groups() -> Groups {
        SmallVec::from_iter([Arc::new(GroupKey::new("g", "t"))])
    }

    fn texts(of: impl Iterator<Item = (Message, Groups)>) -> Vec<String> {
        of.map(|(m, _)| String::from_utf8_lossy(m.payload()).into_owned())
            .collect()
    }

    #[test]
    fn what_has_no_receipt_is_given_again_in_order() {
        let mut dispatched = Dispatched::default();
        for n in 1..=4 {
            let number = dispatched.keep((NODE, BOOT), message(&n.to_string()), groups());
            assert_eq!(number, n);
        }
        dispatched.over(NODE, &[2, 9]);
        assert_eq!(
            texts(dispatched.take(NODE, Some(BOOT))),
            [""; 0],
            "it lives"
        );
        assert_eq!(texts(dispatched.take(NODE, None)), ["1", "3", "4"]);
        assert_eq!(texts(dispatched.take(NODE, None)), [""; 0], "once");
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes() {
        let mut dispatched = Dispatched::default();
        for n in 0..=KEPT_MAX {
            dispatched.keep((NODE, BOOT), message(&n.to_string()), groups());
        }
        let kept = texts(dispatched.take(NODE, Some(BootId(8))));
        assert_eq!((kept.len(), kept[0].as_str()), (KEPT_MAX, "1"));
        let large = "x".repeat(KEPT_BYTES_MAX / 2);
        for _ in 0..3 {
            dispatched.keep((NODE, BOOT), message(&large), groups());
        }
        assert_eq!(dispatched.take(NODE, None).count(), 1);
    }

    #[test]
    fn a_receipt_is_written_when_the_last_owner_lets_go() {
        let book = Arc::new(Receipts::default());
        let giver = Giver {
            site: SiteId([1; 16]),
            boot: BOOT,
            shard: 2,
        };
        let receipt = book.receipt(giver, 5);
        let other = Arc::clone(&receipt);
        drop(receipt);
        assert!(book.take().is_empty() && book.are_awaited());
        drop(other);
        assert_eq!(book.take(), BTreeMap::from([(giver, vec![5])]));
        assert!(book.take().is_empty() && !book.are_awaited());
    }
}
