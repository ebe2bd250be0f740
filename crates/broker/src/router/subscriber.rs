//! Who a message goes to: the records a match copies out of the router.
//!
//! They are plain numbers, so that a match of ten thousand subscribers is ten thousand copies of
//! 16 bytes and no reference count.

use dunlin_mqtt::QoS;
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::router::hash_numbers;

/// Another node, by its place in this node's table of peers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct NodeIndex(pub u16);

/// A session within its shard. The generation tells a reused slot from the one meant.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct SessionKey {
    /// Place in the shard's table of sessions.
    pub slot: u32,
    /// Raised each time the slot is given to another session.
    pub generation: u32,
}

/// What a subscription asked for, in four bytes: QoS, No Local, Retain As Published and the
/// subscription identifier (at most 28 bits by the protocol). Retain Handling matters at SUBSCRIBE
/// only and stays with the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubOptions(u32);

const NO_LOCAL: u32 = 1 << 30;
const RETAIN_AS_PUBLISHED: u32 = 1 << 31;

/// Largest subscription identifier of MQTT 5, the largest variable byte integer.
pub const SUB_ID_MAX: u32 = 268_435_455;

impl SubOptions {
    /// Options with the given maximum QoS and nothing else.
    pub const fn new(qos: QoS) -> Self {
        Self((qos.as_u8() as u32) << 28)
    }

    /// With No Local: a client does not receive its own messages.
    #[must_use]
    pub const fn with_no_local(self, on: bool) -> Self {
        Self(if on {
            self.0 | NO_LOCAL
        } else {
            self.0 & !NO_LOCAL
        })
    }

    /// With Retain As Published: forwarded messages keep their retain flag.
    #[must_use]
    pub const fn with_retain_as_published(self, on: bool) -> Self {
        Self(if on {
            self.0 | RETAIN_AS_PUBLISHED
        } else {
            self.0 & !RETAIN_AS_PUBLISHED
        })
    }

    /// With a subscription identifier, 1..=[`SUB_ID_MAX`]; 0 is none.
    #[must_use]
    pub const fn with_sub_id(self, id: u32) -> Self {
        let id = if id > SUB_ID_MAX { SUB_ID_MAX } else { id };
        Self((self.0 & !SUB_ID_MAX) | id)
    }

    /// Maximum QoS.
    pub const fn qos(self) -> QoS {
        match (self.0 >> 28) & 3 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    /// Whether No Local is set.
    pub const fn no_local(self) -> bool {
        self.0 & NO_LOCAL != 0
    }

    /// Whether Retain As Published is set.
    pub const fn retain_as_published(self) -> bool {
        self.0 & RETAIN_AS_PUBLISHED != 0
    }

    /// The subscription identifier, if there is one.
    pub const fn sub_id(self) -> Option<u32> {
        let id = self.0 & SUB_ID_MAX;
        if id == 0 { None } else { Some(id) }
    }
}

/// A session of this node: its shard and its key there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberKey {
    /// The session within the shard.
    pub session: SessionKey,
    /// The shard.
    pub shard: u16,
}

/// One subscription of a session of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subscriber {
    /// The session within its shard.
    pub session: SessionKey,
    /// What it asked for.
    pub options: SubOptions,
    /// The shard.
    pub shard: u16,
}

impl Subscriber {
    /// Whose subscription it is.
    pub const fn key(&self) -> SubscriberKey {
        SubscriberKey {
            session: self.session,
            shard: self.shard,
        }
    }
}

/// Lists longer than this find a member through an index; below, a scan is cheaper than a hash.
const INDEXED_FROM: usize = 32;

/// The subscribers of one filter, each session once, with constant-time change at any length.
#[derive(Debug, Default)]
pub(super) struct SubscriberList {
    subscribers: Vec<Subscriber>,
    /// Places in `subscribers`; built once the list is long, dropped when it is short again.
    index: Option<HashTable<u32>>,
}

impl SubscriberList {
    pub(super) fn as_slice(&self) -> &[Subscriber] {
        &self.subscribers
    }

    pub(super) fn len(&self) -> usize {
        self.subscribers.len()
    }

    pub(super) fn find(&self, key: SubscriberKey) -> Option<usize> {
        match &self.index {
            None => self.subscribers.iter().position(|s| s.key() == key),
            Some(index) => index
                .find(hash_key(key), |&at| {
                    self.subscribers[at as usize].key() == key
                })
                .map(|&at| at as usize),
        }
    }

    /// Adds a subscriber or replaces the one of the same session, which is returned.
    pub(super) fn put(&mut self, subscriber: Subscriber) -> Option<Subscriber> {
        if let Some(at) = self.find(subscriber.key()) {
            return Some(std::mem::replace(&mut self.subscribers[at], subscriber));
        }
        let at = self.subscribers.len() as u32;
        self.subscribers.push(subscriber);
        if let Some(index) = &mut self.index {
            let subscribers = &self.subscribers;
            index.insert_unique(hash_key(subscriber.key()), at, |&at| {
                hash_key(subscribers[at as usize].key())
            });
        } else if self.subscribers.len() > INDEXED_FROM {
            self.build_index();
        }
        None
    }

    pub(super) fn remove(&mut self, key: SubscriberKey) -> Option<Subscriber> {
        let at = self.find(key)?;
        let last = self.subscribers.len() - 1;
        if let Some(index) = &mut self.index {
            if let Ok(found) = index.find_entry(hash_key(key), |&i| i as usize == at) {
                found.remove();
            }
            let moved = hash_key(self.subscribers[last].key());
            if at != last
                && let Some(place) = index.find_mut(moved, |&i| i as usize == last)
            {
                *place = at as u32;
            }
        }
        let removed = self.subscribers.swap_remove(at);
        if self.subscribers.len() <= INDEXED_FROM / 2 {
            self.index = None;
        }
        if self.subscribers.capacity() > 4 * self.subscribers.len().max(4) {
            self.subscribers.shrink_to(2 * self.subscribers.len());
        }
        Some(removed)
    }

    fn build_index(&mut self) {
        let subscribers = &self.subscribers;
        let hash_at = |at: &u32| hash_key(subscribers[*at as usize].key());
        let mut index = HashTable::with_capacity(2 * subscribers.len());
        for at in 0..subscribers.len() as u32 {
            index.insert_unique(hash_at(&at), at, hash_at);
        }
        self.index = Some(index);
    }
}

fn hash_key(key: SubscriberKey) -> u64 {
    let low = u64::from(key.session.slot) | u64::from(key.session.generation) << 32;
    hash_numbers(low, u64::from(key.shard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_fit_four_bytes_and_a_subscriber_sixteen() {
        assert_eq!(size_of::<Subscriber>(), 16);
        let options = SubOptions::new(QoS::AtLeastOnce)
            .with_no_local(true)
            .with_sub_id(SUB_ID_MAX);
        assert_eq!(options.qos(), QoS::AtLeastOnce);
        assert!(options.no_local() && !options.retain_as_published());
        assert_eq!(options.sub_id(), Some(SUB_ID_MAX));
        let options = options
            .with_retain_as_published(true)
            .with_no_local(false)
            .with_sub_id(0);
        assert!(!options.no_local() && options.retain_as_published());
        assert_eq!((options.qos(), options.sub_id()), (QoS::AtLeastOnce, None));
    }

    #[test]
    fn a_long_list_keeps_its_index_right() {
        let key = |n: u32| SubscriberKey {
            session: SessionKey {
                slot: n / 2,
                generation: n % 2,
            },
            shard: (n % 3) as u16,
        };
        let make = |n: u32, id| Subscriber {
            session: key(n).session,
            shard: key(n).shard,
            options: SubOptions::default().with_sub_id(id),
        };
        let mut list = SubscriberList::default();
        for n in 0..1000 {
            assert_eq!(list.put(make(n, 0)), None);
        }
        assert_eq!(list.put(make(500, 1)), Some(make(500, 0)));
        for n in (0..1000).step_by(3).chain((0..1000).skip(1).step_by(3)) {
            assert!(list.remove(key(n)).is_some(), "{n}");
            assert!(list.remove(key(n)).is_none(), "{n}");
        }
        let left: Vec<u32> = (0..1000).filter(|n| n % 3 == 2).collect();
        assert_eq!(list.len(), left.len());
        for n in left {
            let at = list.find(key(n)).expect("still there");
            assert_eq!(list.as_slice()[at].key(), key(n));
            list.remove(key(n));
        }
        assert_eq!(list.len(), 0);
        assert!(list.index.is_none());
    }
}
