//! Messages of a session that wait: its client is away, or has as many unacknowledged as it may.
//!
//! EMQX calls it mqueue. It is bounded for each priority; a full one drops its oldest, because the
//! newest reading of a sensor is worth more than the one of an hour ago. Order is kept within a
//! priority. Most sessions have nothing waiting, so an empty queue is one null pointer.

use std::collections::VecDeque;
use std::sync::Arc;

use dunlin_mqtt::QoS;

use crate::message::Message;
use crate::router::GroupKey;
use crate::settings::{Mqtt, QueuePriority};

/// A message on its way to one subscription.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The message.
    pub message: Message,
    /// The shared group it was picked for: if the session ends before the acknowledgement, another
    /// member gets it.
    pub group: Option<Arc<GroupKey>>,
    /// Subscription identifier; 0 none.
    pub sub_id: u32,
    /// QoS to deliver with.
    pub qos: QoS,
    /// Retain flag to deliver with.
    pub retain: bool,
}

impl Queued {
    /// The identifier of a message that other nodes may have copies of. A group's message is given
    /// to one node.
    pub(crate) fn copied_id(&self) -> Option<u64> {
        self.message.id().filter(|_| self.group.is_none())
    }
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The queue was full (`delivery.dropped.queue_full`).
    QueueFull,
    /// QoS 0 is not queued here (`delivery.dropped.qos0_msg`).
    Qos0,
}

/// Priority of `mqueue_default_priority = highest`: above the 255 that can be given.
const HIGHEST: u16 = 256;

#[derive(Debug)]
struct Lane {
    priority: u16,
    messages: VecDeque<Queued>,
}

/// The lanes that have messages, highest priority first.
#[derive(Debug, Default)]
struct Lanes(Vec<Lane>);

/// The queue. See the module.
#[derive(Debug, Default)]
pub struct Queue {
    /// `None` when there is no message.
    lanes: Option<Box<Lanes>>,
}

impl Queue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { lanes: None }
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.lanes().iter().map(|lane| lane.messages.len()).sum()
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_none()
    }

    /// Appends a message. Returns the one that was dropped for it: the oldest of a full queue, or
    /// itself if it may not be queued.
    pub fn push(&mut self, queued: Queued, rule: &Mqtt) -> Option<(Queued, DropReason)> {
        if queued.qos == QoS::AtMostOnce && !rule.mqueue_store_qos0 {
            return Some((queued, DropReason::Qos0));
        }
        let messages = self.lane(priority_of(&queued, rule));
        let full = rule
            .max_mqueue_len
            .is_some_and(|max| messages.len() >= max.max(1) as usize);
        let oldest = if full { messages.pop_front() } else { None };
        messages.push_back(queued);
        oldest.map(|oldest| (oldest, DropReason::QueueFull))
    }

    /// Puts a message back to the front that was taken and could not be sent. Never drops.
    pub fn push_front(&mut self, queued: Queued, rule: &Mqtt) {
        self.lane(priority_of(&queued, rule)).push_front(queued);
    }

    /// Takes the next message: the oldest of the highest priority. Those whose time is over go to
    /// `expired` instead.
    pub fn pop(&mut self, wall_ms: u64, mut expired: impl FnMut(Queued)) -> Option<Queued> {
        loop {
            let queued = self.pop_any()?;
            if !queued.message.is_expired(wall_ms) {
                return Some(queued);
            }
            expired(queued);
        }
    }

    /// All messages in the order they would be taken.
    pub fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.lanes().iter().flat_map(|lane| lane.messages.iter())
    }

    /// Takes all messages, in order.
    pub fn take(&mut self) -> impl Iterator<Item = Queued> + use<> {
        let lanes = self.lanes.take().map_or_else(Vec::new, |lanes| lanes.0);
        lanes.into_iter().flat_map(|lane| lane.messages)
    }

    fn pop_any(&mut self) -> Option<Queued> {
        let lanes = &mut self.lanes.as_mut()?.0;
        let first = lanes.first_mut()?;
        let queued = first.messages.pop_front();
        if first.messages.is_empty() {
            lanes.remove(0);
            if lanes.is_empty() {
                self.lanes = None;
            }
        }
        queued
    }

    fn lanes(&self) -> &[Lane] {
        self.lanes.as_ref().map_or(&[], |lanes| &lanes.0)
    }

    fn lane(&mut self, priority: u16) -> &mut VecDeque<Queued> {
        let lanes = &mut self.lanes.get_or_insert_default().0;
        let at = lanes.partition_point(|lane| lane.priority > priority);
        if lanes.get(at).is_none_or(|lane| lane.priority != priority) {
            lanes.insert(
                at,
                Lane {
                    priority,
                    messages: VecDeque::new(),
                },
            );
        }
        &mut lanes[at].messages
    }
}

fn priority_of(queued: &Queued, rule: &Mqtt) -> u16 {
    if rule.mqueue_priorities.is_empty() {
        return 0;
    }
    match (
        rule.mqueue_priorities.get(queued.message.topic()),
        rule.mqueue_default_priority,
    ) {
        (Some(&priority), _) => u16::from(priority),
        (None, QueuePriority::Lowest) => 0,
        (None, QueuePriority::Highest) => HIGHEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Head, Parts};

    fn message(topic: &str, payload: &str, expires_wall_ms: Option<u64>) -> Message {
        let parts = Parts {
            topic,
            payload: payload.as_bytes(),
            ..Parts::default()
        };
        Message::new(
            parts,
            Head {
                expires_wall_ms,
                ..Head::default()
            },
        )
    }

    fn queued(topic: &str, payload: &str) -> Queued {
        let message = message(topic, payload, None);
        Queued {
            message,
            group: None,
            sub_id: 0,
            qos: QoS::AtLeastOnce,
            retain: false,
        }
    }

    fn payload(queued: &Queued) -> String {
        String::from_utf8_lossy(queued.message.payload()).into_owned()
    }

    #[track_caller]
    fn check_order(queue: &mut Queue, expected: &[&str]) {
        let waiting: Vec<String> = queue.iter().map(payload).collect();
        assert_eq!(waiting, expected);
        assert_eq!(queue.len(), expected.len());
        for payload_expected in expected {
            let next = queue.pop(0, |_| ()).expect("one more");
            assert_eq!(payload(&next), *payload_expected);
        }
        assert!(queue.is_empty() && queue.pop(0, |_| ()).is_none());
    }

    #[test]
    fn an_empty_queue_is_small() {
        assert!(size_of::<Queue>() <= 16);
        assert!(size_of::<Queued>() <= 96);
    }

    #[test]
    fn a_full_queue_drops_its_oldest() {
        let rule = Mqtt {
            max_mqueue_len: Some(2),
            ..Mqtt::default()
        };
        let mut queue = Queue::new();
        assert!(queue.push(queued("t", "1"), &rule).is_none());
        assert!(queue.push(queued("t", "2"), &rule).is_none());
        let (dropped, reason) = queue.push(queued("t", "3"), &rule).expect("one too many");
        assert_eq!(
            (payload(&dropped).as_str(), reason),
            ("1", DropReason::QueueFull)
        );
        check_order(&mut queue, &["2", "3"]);
        let endless = Mqtt {
            max_mqueue_len: None,
            ..Mqtt::default()
        };
        assert!((0..5_000).all(|_| queue.push(queued("t", "x"), &endless).is_none()));
        assert_eq!(queue.take().count(), 5_000);
        assert!(queue.is_empty());
    }

    #[test]
    fn qos0_is_queued_unless_forbidden() {
        let mut queue = Queue::new();
        let zero = Queued {
            qos: QoS::AtMostOnce,
            ..queued("t", "0")
        };
        assert!(queue.push(zero.clone(), &Mqtt::default()).is_none());
        let rule = Mqtt {
            mqueue_store_qos0: false,
            ..Mqtt::default()
        };
        let dropped = queue.push(zero, &rule);
        assert_eq!(dropped.map(|(_, reason)| reason), Some(DropReason::Qos0));
        check_order(&mut queue, &["0"]);
    }

    #[test]
    fn priorities_come_first_and_have_their_own_bound() {
        let priorities = [("low".to_owned(), 1), ("high".to_owned(), 255)];
        let mut rule = Mqtt {
            mqueue_priorities: priorities.into(),
            max_mqueue_len: Some(2),
            ..Mqtt::default()
        };
        let fill = |queue: &mut Queue, rule: &Mqtt| {
            for (topic, text) in [
                ("other", "o1"),
                ("low", "l1"),
                ("high", "h1"),
                ("low", "l2"),
                ("high", "h2"),
            ] {
                assert!(queue.push(queued(topic, text), rule).is_none());
            }
        };
        let mut queue = Queue::new();
        fill(&mut queue, &rule);
        let (dropped, _) = queue.push(queued("low", "l3"), &rule).expect("low is full");
        assert_eq!(payload(&dropped), "l1");
        check_order(&mut queue, &["h1", "h2", "l2", "l3", "o1"]);
        rule.mqueue_default_priority = QueuePriority::Highest;
        fill(&mut queue, &rule);
        check_order(&mut queue, &["o1", "h1", "h2", "l1", "l2"]);
    }

    #[test]
    fn what_expired_is_told_and_what_was_taken_goes_back() {
        let rule = Mqtt::default();
        let mut queue = Queue::new();
        for (text, expires) in [("1", Some(100)), ("2", None), ("3", Some(300))] {
            let message = message("t", text, expires);
            queue.push(
                Queued {
                    message,
                    ..queued("t", text)
                },
                &rule,
            );
        }
        let mut expired = Vec::new();
        let next = queue
            .pop(200, |queued| expired.push(payload(&queued)))
            .expect("2 is left");
        assert_eq!(expired, ["1"]);
        assert_eq!(payload(&next), "2");
        queue.push_front(next, &rule);
        check_order(&mut queue, &["2", "3"]);
    }
}
