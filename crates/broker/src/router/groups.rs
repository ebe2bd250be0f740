//! Shared groups: the members of a group on one filter, here and on other nodes.
//!
//! Members of this node are subscribers; of another node only their number is known, because that
//! node picks among its own. Must never hold a group without members.

use std::cmp::Ordering as CmpOrdering;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::dispatch::Receipt;

use super::arena::Arena;
use super::matches::GroupRef;
use super::subscriber::{NodeIndex, Subscriber, SubscriberKey, SubscriberList};
use super::{FilterId, Router, Subscribed, Unsubscribed, hash_numbers, hash_text};

/// The two names of a group; shared, so that a message can carry the group it was picked for.
///
/// One that came from another node carries the receipt for its message, which is no part of the
/// name.
#[derive(Clone, Debug)]
pub struct GroupKey {
    group: Box<str>,
    filter: Box<str>,
    receipt: Option<Arc<Receipt>>,
}

impl PartialEq for GroupKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for GroupKey {}

impl PartialOrd for GroupKey {
    fn partial_cmp(&self, other: &Self) -> Option<CmpOrdering> {
        Some(self.cmp(other))
    }
}

impl Ord for GroupKey {
    fn cmp(&self, other: &Self) -> CmpOrdering {
        (&self.group, &self.filter).cmp(&(&other.group, &other.filter))
    }
}

impl GroupKey {
    /// A key of `$share/<group>/<filter>`.
    pub fn new(group: &str, filter: &str) -> Self {
        Self {
            group: group.into(),
            filter: filter.into(),
            receipt: None,
        }
    }

    /// The same group for a message with a receipt.
    pub(crate) fn with_receipt(&self, receipt: &Arc<Receipt>) -> Self {
        Self {
            receipt: Some(Arc::clone(receipt)),
            ..self.clone()
        }
    }

    /// Whether its message has a receipt.
    pub(crate) fn has_receipt(&self) -> bool {
        self.receipt.is_some()
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The filter, without the `$share/group/` prefix.
    pub fn filter(&self) -> &str {
        &self.filter
    }
}

/// A shared group on one filter.
#[derive(Debug)]
pub struct Group {
    key: Arc<GroupKey>,
    filter: u32,
    local: SubscriberList,
    /// Sorted by node; counts above zero.
    remote: Vec<(NodeIndex, u32)>,
    /// The turn of `round_robin_per_group`, common to all publishers of this node.
    turn: AtomicU32,
}

impl Group {
    /// Its names.
    pub fn key(&self) -> &Arc<GroupKey> {
        &self.key
    }

    /// Members of this node.
    pub fn local(&self) -> &[Subscriber] {
        self.local.as_slice()
    }

    /// Other nodes with members, and how many.
    pub fn remote(&self) -> &[(NodeIndex, u32)] {
        &self.remote
    }

    pub(super) fn find_local(&self, key: SubscriberKey) -> Option<&Subscriber> {
        self.local.find(key).map(|at| &self.local.as_slice()[at])
    }

    pub(super) fn remote_count(&self, node: NodeIndex) -> u32 {
        self.remote
            .binary_search_by_key(&node, |r| r.0)
            .map_or(0, |at| self.remote[at].1)
    }

    pub(super) fn next_turn(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// All groups.
#[derive(Debug)]
pub(super) struct Groups {
    hasher: FixedState,
    records: Arena<Option<Box<Group>>>,
    /// Groups by (name, filter).
    index: HashTable<u32>,
    members: usize,
}

impl Groups {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self {
            hasher,
            records: Arena::default(),
            index: HashTable::new(),
            members: 0,
        }
    }

    pub(super) fn get(&self, at: u32) -> &Group {
        self.records[at]
            .as_ref()
            .expect("filters link to live groups only")
    }

    fn get_mut(&mut self, at: u32) -> &mut Group {
        self.records[at]
            .as_mut()
            .expect("filters link to live groups only")
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Members of this node in all groups.
    pub(super) fn members(&self) -> usize {
        self.members
    }

    fn hash(&self, group: &str, filter: u32) -> u64 {
        hash_numbers(hash_text(&self.hasher, group), u64::from(filter))
    }

    fn find(&self, group: &str, filter: u32) -> Option<u32> {
        let same = |&at: &u32| {
            let found = self.get(at);
            found.filter == filter && found.key.group() == group
        };
        self.index.find(self.hash(group, filter), same).copied()
    }

    fn add(&mut self, key: GroupKey, filter: u32) -> u32 {
        let hash = self.hash(key.group(), filter);
        let at = self.records.insert(Some(Box::new(Group {
            key: Arc::new(key),
            filter,
            local: SubscriberList::default(),
            remote: Vec::new(),
            turn: AtomicU32::new(0),
        })));
        let (groups, hasher) = (&self.records, &self.hasher);
        self.index.insert_unique(hash, at, |&at| {
            let group = groups[at]
                .as_ref()
                .expect("the index names live groups only");
            hash_numbers(
                hash_text(hasher, group.key.group()),
                u64::from(group.filter),
            )
        });
        at
    }

    fn remove(&mut self, at: u32) {
        let hash = self.hash(self.get(at).key.group(), self.get(at).filter);
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == at) {
            entry.remove();
        }
        self.records.remove(at);
        if self.index.is_empty() {
            self.index = HashTable::new();
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &Group)> {
        (0..self.records.end()).filter_map(|at| Some((at, self.records[at].as_deref()?)))
    }
}

/// Shared subscriptions.
impl Router {
    /// Enters or replaces a session of this node as a member of a group. `first_local` speaks of
    /// members of the group here; the count changed if nothing was replaced.
    pub fn add_member(&mut self, group: &str, filter: &str, member: Subscriber) -> Subscribed {
        self.version += 1;
        let at = self.find_or_add_group(group, filter);
        let members = &mut self.groups.get_mut(at).local;
        let first_local = members.len() == 0;
        let replaced = members.put(member);
        self.groups.members += usize::from(replaced.is_none());
        Subscribed {
            filter: FilterId(self.groups.get(at).filter),
            first_local,
            replaced,
        }
    }

    /// Takes a session of this node out of a group.
    pub fn remove_member(&mut self, group: &str, filter: &str, key: SubscriberKey) -> Unsubscribed {
        let Some(at) = self.find_group(group, filter) else {
            return Unsubscribed::default();
        };
        let members = &mut self.groups.get_mut(at).local;
        let removed = members.remove(key);
        if removed.is_none() {
            return Unsubscribed::default();
        }
        let last_local = members.len() == 0;
        self.version += 1;
        self.groups.members -= 1;
        self.remove_group_if_empty(at);
        Unsubscribed {
            removed,
            last_local,
        }
    }

    /// As [`Router::reassign`], for a member of a group.
    pub fn reassign_member(
        &mut self,
        group: &str,
        filter: &str,
        from: SubscriberKey,
        to: SubscriberKey,
    ) -> bool {
        let Some(at) = self.find_group(group, filter) else {
            return false;
        };
        let members = &mut self.groups.get_mut(at).local;
        if from == to || members.find(to).is_some() {
            return false;
        }
        let Some(old) = members.remove(from) else {
            return false;
        };
        members.put(Subscriber {
            session: to.session,
            shard: to.shard,
            options: old.options,
        });
        self.version += 1;
        true
    }

    /// Another node has `count` members in a group; 0 takes it out. True if that is a change.
    pub fn set_remote_group(
        &mut self,
        group: &str,
        filter: &str,
        node: NodeIndex,
        count: u32,
    ) -> bool {
        let at = match (self.find_group(group, filter), count) {
            (Some(at), _) => at,
            (None, 0) => return false,
            (None, _) => self.find_or_add_group(group, filter),
        };
        let remote = &mut self.groups.get_mut(at).remote;
        match (remote.binary_search_by_key(&node, |r| r.0), count) {
            (Err(_), 0) => return false,
            (Ok(place), _) if remote[place].1 == count => return false,
            (Ok(place), 0) => {
                remote.remove(place);
            }
            (Ok(place), _) => remote[place].1 = count,
            (Err(place), _) => remote.insert(place, (node, count)),
        }
        self.version += 1;
        self.remove_group_if_empty(at);
        true
    }

    /// After a snapshot of a node's rows: drops its members from the groups that `keep(group,
    /// filter)` does not know. Returns how many groups it left.
    pub fn sweep_remote_groups(
        &mut self,
        node: NodeIndex,
        keep: impl Fn(&str, &str) -> bool,
    ) -> usize {
        let gone: Vec<Arc<GroupKey>> = self
            .groups
            .iter()
            .filter(|(_, group)| group.remote_count(node) > 0)
            .filter(|(_, group)| !keep(group.key.group(), group.key.filter()))
            .map(|(_, group)| Arc::clone(&group.key))
            .collect();
        for key in &gone {
            self.set_remote_group(key.group(), key.filter(), node, 0);
        }
        gone.len()
    }

    /// The group a match named. Valid under the guard of that match.
    pub fn group(&self, group: GroupRef) -> &Group {
        self.groups.get(group.0)
    }

    /// The group of these names.
    pub fn find_group_ref(&self, group: &str, filter: &str) -> Option<GroupRef> {
        self.find_group(group, filter).map(GroupRef)
    }

    /// Members of this node in a group.
    pub fn local_group_count(&self, group: &str, filter: &str) -> usize {
        self.find_group(group, filter)
            .map_or(0, |at| self.groups.get(at).local.len())
    }

    /// Groups with members of this node as (group, filter, members) in key order after `after`, at
    /// most `limit`: rows of a snapshot.
    pub fn own_groups(
        &self,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Vec<(String, String, usize)> {
        let mut rows: Vec<(&GroupKey, usize)> = self
            .groups
            .iter()
            .filter(|(_, group)| group.local.len() > 0)
            .filter(|(_, g)| after.is_none_or(|a| (g.key.group(), g.key.filter()) > a))
            .map(|(_, group)| (&*group.key, group.local.len()))
            .collect();
        rows.sort_unstable();
        rows.truncate(limit);
        let row = |(key, n): (&GroupKey, usize)| (key.group().into(), key.filter().into(), n);
        rows.into_iter().map(row).collect()
    }

    fn find_group(&self, group: &str, filter: &str) -> Option<u32> {
        self.groups.find(group, self.find(filter)?)
    }

    fn find_or_add_group(&mut self, group: &str, filter: &str) -> u32 {
        let id = self.find_or_add(filter);
        if let Some(at) = self.groups.find(group, id) {
            return at;
        }
        let at = self.groups.add(GroupKey::new(group, filter), id);
        let mut links = self.filters.links(id);
        self.targets.add_group(&mut links, at);
        self.filters.set_links(id, links);
        at
    }

    fn remove_group_if_empty(&mut self, at: u32) {
        let group = self.groups.get(at);
        if group.local.len() > 0 || !group.remote.is_empty() {
            return;
        }
        let filter = group.filter;
        self.groups.remove(at);
        let mut links = self.filters.links(filter);
        self.targets.remove_group(&mut links, at);
        self.filters.set_links(filter, links);
        self.remove_if_vacant(filter);
    }
}
