//! PUBACKs and PUBRECs that may not go out yet.
//!
//! An acknowledgement promises that every reachable destination has the message. Those of one
//! connection leave in the order of their publishes [MQTT-4.6.0-2, 4.6.0-3], so one that waits
//! holds those behind it. Waiting costs nothing per message beyond its entry here: a peer says up
//! to which number it has accepted, and the head of the queue is looked at again.

use std::collections::VecDeque;

use dunlin_mqtt::Reason;
use smallvec::SmallVec;

use crate::router::NodeIndex;

/// Which acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckKind {
    /// For QoS 1.
    Puback,
    /// For QoS 2.
    Pubrec,
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The node has accepted this shard's forward of that number.
    Peer {
        /// The node.
        node: NodeIndex,
        /// Which life of the link: numbers start again when the peer does.
        epoch: u32,
        /// The forward.
        number: u64,
    },
    /// The retained message is durable.
    Store(u64),
}

/// What one publish waits for: mostly nothing, or one or two other nodes.
pub(crate) type Waits = SmallVec<[Wait; 1]>;

/// An acknowledgement in its connection's queue.
#[derive(Debug)]
pub(crate) struct PendingAck {
    pub(crate) kind: AckKind,
    pub(crate) packet_id: u16,
    pub(crate) reason: Reason,
    pub(crate) waits: Waits,
}

/// Acknowledgements of one connection, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    queue: VecDeque<PendingAck>,
}

impl Acks {
    pub(crate) fn push(&mut self, ack: PendingAck) {
        self.queue.push_back(ack);
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes the head once `done` says that each of its waits is over.
    pub(crate) fn pop_ready(&mut self, mut done: impl FnMut(&Wait) -> bool) -> Option<PendingAck> {
        let head = self.queue.front_mut()?;
        head.waits.retain(|wait| !done(wait));
        if head.waits.is_empty() {
            self.queue.pop_front()
        } else {
            None
        }
    }

    /// Whether a QoS 2 publish with this id waits here for its PUBREC.
    pub(crate) fn has_pubrec(&self, packet_id: u16) -> bool {
        self.queue
            .iter()
            .any(|a| a.kind == AckKind::Pubrec && a.packet_id == packet_id)
    }

    /// How many of them are for QoS 1; the ids of the others are counted with the session's.
    pub(crate) fn len_qos1(&self) -> usize {
        self.queue
            .iter()
            .filter(|ack| ack.kind == AckKind::Puback)
            .count()
    }

    /// The store has made `token` durable.
    pub(crate) fn stored(&mut self, token: u64) {
        for ack in &mut self.queue {
            ack.waits.retain(|wait| *wait != Wait::Store(token));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(packet_id: u16, waits: &[Wait]) -> PendingAck {
        PendingAck {
            kind: AckKind::Puback,
            packet_id,
            reason: Reason::Success,
            waits: waits.iter().copied().collect(),
        }
    }

    #[test]
    fn a_waiting_head_holds_those_behind_it() {
        let peer = |number| Wait::Peer {
            node: NodeIndex(1),
            epoch: 0,
            number,
        };
        let mut acks = Acks::default();
        acks.push(ack(1, &[peer(5), Wait::Store(9)]));
        acks.push(ack(2, &[]));
        let upto = |n: u64| move |w: &Wait| matches!(w, Wait::Peer { number, .. } if *number <= n);
        assert!(acks.pop_ready(upto(4)).is_none());
        assert!(acks.pop_ready(upto(5)).is_none());
        acks.stored(9);
        assert_eq!(acks.pop_ready(upto(0)).map(|a| a.packet_id), Some(1));
        assert_eq!(acks.pop_ready(upto(0)).map(|a| a.packet_id), Some(2));
        assert_eq!(acks.len(), 0);
    }
}
