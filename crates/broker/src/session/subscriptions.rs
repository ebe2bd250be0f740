//! The subscriptions of one session: a list, with an index once it is long.
//!
//! Almost every client has a handful, and some have a million. What the router knows (the filter's
//! text) is not kept twice.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::router::{FilterId, GroupKey, SubOptions, hash_numbers};

/// Lists longer than this find a subscription through an index; below, a scan is cheaper.
const INDEXED_FROM: usize = 32;

/// One subscription.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    /// The filter in the router, mountpoint included, `$share/group/` not.
    pub(crate) filter: FilterId,
    pub(crate) options: SubOptions,
    pub(crate) retain_handling: u8,
    /// The shared group.
    pub(crate) group: Option<Arc<GroupKey>>,
}

impl Subscription {
    fn is(&self, filter: FilterId, group: Option<&str>) -> bool {
        self.filter == filter && self.group.as_ref().map(|key| key.group()) == group
    }
}

/// The list. A session is in a filter once, and once in each of its groups.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    list: Vec<Subscription>,
    /// Places in `list` by filter. Filters are few to a hash: groups of one filter share it.
    index: Option<Box<HashTable<u32>>>,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.list.iter()
    }

    /// Whether there is a subscription to a filter of the router, in a group or not.
    pub(crate) fn contains(&self, filter: FilterId, group: Option<&str>) -> bool {
        self.find(filter, group).is_some()
    }

    /// Adds a subscription or replaces the one to the same filter and group.
    pub(crate) fn put(&mut self, subscription: Subscription) {
        let group = subscription.group.as_ref().map(|key| key.group());
        if let Some(at) = self.find(subscription.filter, group) {
            self.list[at] = subscription;
            return;
        }
        if self.list.is_empty() {
            // Most clients have one: no room for three more.
            self.list.reserve_exact(1);
        }
        let at = self.list.len() as u32;
        let hash = hash(subscription.filter);
        self.list.push(subscription);
        if let Some(index) = &mut self.index {
            let list = &self.list;
            index.insert_unique(hash, at, |at| hash_at(list, *at));
        } else if self.list.len() > INDEXED_FROM {
            self.build_index();
        }
    }

    /// Takes a subscription out; false if there is none.
    pub(crate) fn remove(&mut self, filter: FilterId, group: Option<&str>) -> bool {
        let Some(at) = self.find(filter, group) else {
            return false;
        };
        let last = self.list.len() - 1;
        if let Some(index) = &mut self.index {
            if let Ok(found) = index.find_entry(hash(filter), |place| *place as usize == at) {
                found.remove();
            }
            let moved = hash(self.list[last].filter);
            if at != last
                && let Some(place) = index.find_mut(moved, |place| *place as usize == last)
            {
                *place = at as u32;
            }
        }
        self.list.swap_remove(at);
        if self.list.len() <= INDEXED_FROM / 2 {
            self.index = None;
        }
        if self.list.capacity() > 4 * self.list.len().max(4) {
            self.list.shrink_to(2 * self.list.len());
        }
        true
    }

    fn find(&self, filter: FilterId, group: Option<&str>) -> Option<usize> {
        match &self.index {
            None => self.list.iter().position(|sub| sub.is(filter, group)),
            Some(index) => index
                .find(hash(filter), |at| self.list[*at as usize].is(filter, group))
                .map(|at| *at as usize),
        }
    }

    fn build_index(&mut self) {
        let list = &self.list;
        let mut index = HashTable::with_capacity(2 * list.len());
        for at in 0..list.len() as u32 {
            index.insert_unique(hash_at(list, at), at, |at| hash_at(list, *at));
        }
        self.index = Some(Box::new(index));
    }
}

fn hash(filter: FilterId) -> u64 {
    hash_numbers(u64::from(filter.0), 0)
}

fn hash_at(list: &[Subscription], at: u32) -> u64 {
    hash(list[at as usize].filter)
}

#[cfg(test)]
mod tests {
    use dunlin_mqtt::QoS;

    use super::*;

    fn make(filter: u32, group: Option<&str>) -> Subscription {
        Subscription {
            filter: FilterId(filter),
            options: SubOptions::new(QoS::AtMostOnce),
            retain_handling: 0,
            group: group.map(|group| Arc::new(GroupKey::new(group, "f"))),
        }
    }

    #[test]
    fn a_long_list_finds_replaces_and_removes() {
        let mut subs = Subscriptions::default();
        let group = |n: u32| n.is_multiple_of(3).then_some("g");
        for n in 0..1_000 {
            subs.put(make(n / 2, group(n)));
            subs.put(make(n / 2, group(n)));
        }
        let mut left: std::collections::BTreeSet<(u32, bool)> =
            (0..1_000).map(|n| (n / 2, group(n).is_some())).collect();
        assert_eq!(subs.len(), left.len());
        for n in (0..1_000).rev().step_by(2).chain(0..1_000) {
            let known = left.remove(&(n / 2, group(n).is_some()));
            assert_eq!(subs.contains(FilterId(n / 2), group(n)), known);
            assert_eq!(subs.remove(FilterId(n / 2), group(n)), known);
            assert_eq!(subs.len(), left.len());
        }
        assert!(subs.is_empty() && subs.index.is_none());
    }

    #[test]
    fn one_subscription_takes_the_room_of_one() {
        let mut subs = Subscriptions::default();
        subs.put(make(1, None));
        assert_eq!((subs.list.capacity(), size_of::<Subscription>()), (1, 24));
    }
}
