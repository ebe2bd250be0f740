//! Filters to receivers: subscribers of this node, shared groups, and other nodes, in one table.
//!
//! A message is matched once, on the node it arrives at; one walk names everybody. Filters without
//! wildcards are found by one hash of the topic, the others by a walk of the level trie. Every
//! filter is one record whoever has it, so what this node owns, what others own and what both own
//! cost the same.
//!
//! The router is shared by all shards behind a `RwLock` that is almost always only read. It must
//! never: block, call out, allocate during a match with warm scratch, or let the order of a hash
//! table reach its answers.

mod arena;
mod filters;
mod groups;
mod matches;
pub(crate) mod name;
mod pages;
pub mod shared;
mod subscriber;
mod table;
mod trie;

use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use filters::{Filters, text};
use name::Name;
use pages::{PAGE_FILTERS, Pages};
use table::{Links, Targets};
use trie::Trie;

pub use groups::{Group, GroupKey};
pub use matches::{GroupRef, Matches};
pub use shared::{Pick, Picker, Publisher, SharedRule, Strategy};
pub use subscriber::{NodeIndex, SUB_ID_MAX, SessionKey, SubOptions, Subscriber, SubscriberKey};

/// A filter of the router by number. It stays valid as long as the router has the filter, so a
/// session that keeps its own subscriptions can hold this instead of a second copy of the string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterId(pub(crate) u32);

/// What [`Router::subscribe`] changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The filter's number.
    pub filter: FilterId,
    /// It is this node's first subscription (or first member of the group): tell the others.
    pub first_local: bool,
    /// The session's former subscription to the same filter.
    pub replaced: Option<Subscriber>,
}

/// What [`Router::unsubscribe`] changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsubscribed {
    /// The subscription that is gone; `None` if there was none.
    pub removed: Option<Subscriber>,
    /// It was this node's last (or the group's last member here): tell the others.
    pub last_local: bool,
}

/// One row of `topics list`: a filter and a node that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route<'a> {
    /// The filter, without a `$share/group/` prefix.
    pub filter: &'a str,
    /// The shared group, or `None` for plain subscriptions.
    pub group: Option<&'a str>,
    /// The other node, or `None` for this one.
    pub node: Option<NodeIndex>,
}

/// What the router holds, for gauges and for tests that nothing leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Distinct filters.
    pub filters: usize,
    /// Those with wildcards.
    pub wildcard_filters: usize,
    /// Trie nodes.
    pub trie_nodes: usize,
    /// Distinct level strings of the trie.
    pub trie_levels: usize,
    /// Plain subscriptions of this node.
    pub subscriptions: usize,
    /// Shared subscriptions of this node.
    pub shared_subscriptions: usize,
    /// Shared groups.
    pub groups: usize,
    /// (filter, node) pairs, this node included, shared groups not.
    pub routes: usize,
    /// Records for filters with several subscribers, nodes or groups.
    pub large_records: usize,
}

/// The table. See the module.
#[derive(Debug)]
pub struct Router {
    hasher: FixedState,
    filters: Filters,
    /// Filters by name, wildcards included.
    names: HashTable<u32>,
    trie: Trie,
    targets: Targets,
    groups: groups::Groups,
    version: u64,
    subscriptions: usize,
    own_filters: usize,
    pages: Pages,
    remote_routes: usize,
}

impl Router {
    /// An empty router. `seed` keys the hashes, so that nobody can prepare topics that collide.
    pub fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            filters: Filters::default(),
            names: HashTable::new(),
            trie: Trie::new(hasher.clone()),
            targets: Targets::default(),
            groups: groups::Groups::new(hasher.clone()),
            version: 0,
            subscriptions: 0,
            own_filters: 0,
            pages: Pages::default(),
            remote_routes: 0,
            hasher,
        }
    }

    /// Raised with every change: a match result stays true as long as this does.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Enters or replaces a subscription of a session of this node.
    pub fn subscribe(&mut self, filter: &str, subscriber: Subscriber) -> Subscribed {
        self.version += 1;
        let id = self.find_or_add(filter);
        let mut links = self.filters.links(id);
        let first_local = self.targets.local(links).is_empty();
        let replaced = self.targets.put_local(&mut links, subscriber);
        self.filters.set_links(id, links);
        self.subscriptions += usize::from(replaced.is_none());
        if first_local {
            self.own_filters += 1;
            self.pages.note(filter);
        }
        Subscribed {
            filter: FilterId(id),
            first_local,
            replaced,
        }
    }

    /// Ends a subscription of a session of this node.
    pub fn unsubscribe(&mut self, filter: &str, key: SubscriberKey) -> Unsubscribed {
        let Some(id) = self.find(filter) else {
            return Unsubscribed::default();
        };
        let mut links = self.filters.links(id);
        let removed = self.targets.remove_local(&mut links, key);
        if removed.is_none() {
            return Unsubscribed::default();
        }
        self.filters.set_links(id, links);
        self.version += 1;
        self.subscriptions -= 1;
        let last_local = self.targets.local(links).is_empty();
        self.own_filters -= usize::from(last_local);
        self.remove_if_vacant(id);
        Unsubscribed {
            removed,
            last_local,
        }
    }

    /// Points a session's subscription at the session that takes its place, in one step, so that no
    /// message falls between. False if there is none, or the heir has its own already.
    pub fn reassign(&mut self, filter: &str, from: SubscriberKey, to: SubscriberKey) -> bool {
        let Some(id) = self.find(filter) else {
            return false;
        };
        let mut links = self.filters.links(id);
        if from == to || self.targets.local(links).iter().any(|s| s.key() == to) {
            return false;
        }
        let Some(old) = self.targets.remove_local(&mut links, from) else {
            return false;
        };
        self.version += 1;
        let heir = Subscriber {
            session: to.session,
            shard: to.shard,
            options: old.options,
        };
        self.targets.put_local(&mut links, heir);
        self.filters.set_links(id, links);
        true
    }

    /// Another node has the filter. True if that is new.
    pub fn add_remote(&mut self, filter: &str, node: NodeIndex) -> bool {
        let id = self.find_or_add(filter);
        self.add_remote_at(id, node)
    }

    /// As [`Router::add_remote`]; notes that a snapshot of the node's rows has brought it.
    pub fn bring_remote(&mut self, filter: &str, node: NodeIndex, brought: &mut Brought) -> bool {
        let id = self.find_or_add(filter);
        brought.set(id);
        self.add_remote_at(id, node)
    }

    /// As [`Router::remove_remote`], while a snapshot of the node's rows is on its way.
    pub fn withdraw_remote(
        &mut self,
        filter: &str,
        node: NodeIndex,
        brought: &mut Brought,
    ) -> bool {
        self.find(filter).is_some_and(|id| {
            brought.unset(id);
            self.remove_remote_at(id, node)
        })
    }

    fn add_remote_at(&mut self, id: u32, node: NodeIndex) -> bool {
        let mut links = self.filters.links(id);
        let added = self.targets.add_node(&mut links, node);
        self.filters.set_links(id, links);
        self.version += u64::from(added);
        self.remote_routes += usize::from(added);
        added
    }

    /// Another node has the filter no more. True if it had.
    pub fn remove_remote(&mut self, filter: &str, node: NodeIndex) -> bool {
        self.find(filter)
            .is_some_and(|id| self.remove_remote_at(id, node))
    }

    /// After a snapshot of a node's rows: drops its filters that it has not brought. Returns how
    /// many went.
    pub fn sweep_remote(&mut self, node: NodeIndex, brought: &Brought) -> usize {
        let mut gone = Vec::new();
        for id in self.filters.ids() {
            let has = |(links, _)| self.targets.has_node(links, node);
            if self.filters.get(id).is_some_and(has) && !brought.has(id) {
                gone.push(id);
            }
        }
        for &id in &gone {
            self.remove_remote_at(id, node);
        }
        gone.len()
    }

    /// Drops all filters and group members of a node that is no member any more.
    pub fn remove_node(&mut self, node: NodeIndex) {
        self.sweep_remote(node, &Brought::default());
        self.sweep_remote_groups(node, |_, _| false);
    }

    /// Whether a session of this node has the filter as a plain subscription.
    pub fn has_local(&self, filter: &str) -> bool {
        self.find(filter)
            .is_some_and(|id| !self.targets.local(self.filters.links(id)).is_empty())
    }

    /// Whether the node is known to have the filter as a plain subscription.
    pub fn has_remote(&self, filter: &str, node: NodeIndex) -> bool {
        self.find(filter)
            .is_some_and(|id| self.targets.has_node(self.filters.links(id), node))
    }

    /// The filter's number.
    pub fn filter_id(&self, filter: &str) -> Option<FilterId> {
        self.find(filter).map(FilterId)
    }

    /// The filter of a number; empty if the router has it no more.
    pub fn filter(&self, id: FilterId) -> &str {
        self.filters.get(id.0).map_or("", |(_, name)| text(name))
    }

    /// Puts everybody who receives `topic` into `out`, which is cleared first.
    pub fn match_topic(&self, topic: &str, out: &mut Matches) {
        out.clear();
        if let Some((exact, links)) = self.find_links(topic) {
            out.filters.push(exact);
            self.receivers(links, out);
        }
        let wildcards = out.filters.len();
        self.trie.matching(topic, &mut out.walk, &mut out.filters);
        for at in wildcards..out.filters.len() {
            self.receivers(self.filters.links(out.filters[at]), out);
        }
    }

    #[inline]
    fn receivers(&self, links: Links, out: &mut Matches) {
        out.local.extend_from_slice(self.targets.local(links));
        self.targets.nodes(links, |node| out.add_node(node));
        let groups = self.targets.groups(links);
        out.groups
            .extend(groups.iter().map(|&group| GroupRef(group)));
    }

    /// This node's plain filters in key order after `after`, at most `limit`: rows of a snapshot.
    /// Fewer than `limit` means that there are no more.
    pub fn own_routes(&self, after: Option<&str>, limit: usize) -> Vec<String> {
        let own = |name: &Name| {
            let found = self.find(name.as_bytes());
            found.is_some_and(|id| !self.targets.local(self.filters.links(id)).is_empty())
        };
        self.pages
            .rows(after, limit, own, |after| self.read_page(after))
    }

    /// The first own filters behind `after`, in key order: one look at every filter.
    fn read_page(&self, after: Option<&[u8]>) -> Vec<Name> {
        let mut page: BinaryHeap<&[u8]> = BinaryHeap::with_capacity(PAGE_FILTERS + 1);
        for id in self.filters.ids() {
            let Some((links, name)) = self.filters.get(id) else {
                continue;
            };
            let full = page.len() >= PAGE_FILTERS;
            if after.is_some_and(|after| name <= after)
                || (full && page.peek().is_some_and(|largest| name >= *largest))
                || self.targets.local(links).is_empty()
            {
                continue;
            }
            page.push(name);
            if full {
                page.pop();
            }
        }
        let names = page.into_sorted_vec().into_iter();
        names.map(|name| Name::new(text(name))).collect()
    }

    /// Every (filter, node) pair and every (group, filter, node), in no useful order.
    pub fn for_each_route<'a>(&'a self, mut f: impl FnMut(Route<'a>)) {
        for id in self.filters.ids() {
            self.routes_at(id, &mut f);
        }
    }

    /// The rows of one filter.
    pub fn for_each_route_of<'a>(&'a self, filter: &str, mut f: impl FnMut(Route<'a>)) {
        if let Some(id) = self.find(filter) {
            self.routes_at(id, &mut f);
        }
    }

    /// What the router holds.
    pub fn usage(&self) -> Usage {
        let (trie_nodes, trie_levels) = self.trie.usage();
        debug_assert_eq!(self.names.len(), self.filters.len());
        Usage {
            filters: self.filters.len(),
            wildcard_filters: self.trie.len(),
            trie_nodes,
            trie_levels,
            subscriptions: self.subscriptions,
            shared_subscriptions: self.groups.members(),
            groups: self.groups.len(),
            routes: self.own_filters + self.remote_routes,
            large_records: self.targets.lists.len() + self.targets.extras.len(),
        }
    }

    fn routes_at<'a>(&'a self, id: u32, f: &mut impl FnMut(Route<'a>)) {
        let Some((links, name)) = self.filters.get(id) else {
            return;
        };
        let filter = text(name);
        if !self.targets.local(links).is_empty() {
            f(Route {
                filter,
                group: None,
                node: None,
            });
        }
        self.targets.nodes(links, |node| {
            f(Route {
                filter,
                group: None,
                node: Some(node),
            });
        });
        for &group in self.targets.groups(links) {
            let group = self.groups.get(group);
            let name = Some(group.key().group());
            if !group.local().is_empty() {
                f(Route {
                    filter,
                    group: name,
                    node: None,
                });
            }
            for &(node, _) in group.remote() {
                f(Route {
                    filter,
                    group: name,
                    node: Some(node),
                });
            }
        }
    }

    #[inline]
    fn find(&self, filter: impl AsRef<[u8]>) -> Option<u32> {
        self.find_links(filter).map(|(id, _)| id)
    }

    /// A filter and its links, with one look at its record.
    #[inline]
    fn find_links(&self, filter: impl AsRef<[u8]>) -> Option<(u32, Links)> {
        let filter = filter.as_ref();
        let hash = hash_text(&self.hasher, filter);
        let mut links = Links::default();
        let same = |&id: &u32| {
            let (found, name) = self.filters.links_and_name(id);
            links = found;
            name == filter
        };
        let id = *self.names.find(hash, same)?;
        Some((id, links))
    }

    fn find_or_add(&mut self, filter: &str) -> u32 {
        let (filters, hasher) = (&self.filters, &self.hasher);
        let entry = self.names.entry(
            hash_text(hasher, filter),
            |&id| filters.name(id) == filter.as_bytes(),
            |&id| hash_text(hasher, filters.name(id)),
        );
        match entry {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(place) => {
                let id = self.filters.insert(filter);
                place.insert(id);
                if is_wildcard(filter) {
                    self.trie.insert(filter, id);
                }
                id
            }
        }
    }

    fn remove_remote_at(&mut self, id: u32, node: NodeIndex) -> bool {
        let mut links = self.filters.links(id);
        let removed = self.targets.remove_node(&mut links, node);
        if removed {
            self.filters.set_links(id, links);
            self.version += 1;
            self.remote_routes -= 1;
            self.remove_if_vacant(id);
        }
        removed
    }

    fn remove_if_vacant(&mut self, id: u32) {
        if !self.filters.links(id).is_vacant() {
            return;
        }
        let name = text(self.filters.name(id));
        let hash = hash_text(&self.hasher, name);
        if let Ok(entry) = self.names.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        if is_wildcard(name) {
            self.trie.remove(name);
        }
        self.filters.remove(id);
        if self.names.is_empty() {
            self.names = HashTable::new();
        }
    }
}

/// The filters that a snapshot of a node's rows has brought so far, a bit each. A filter that has
/// its bit is that node's, so its number is not given to another before it is withdrawn.
#[derive(Debug, Default)]
pub struct Brought(Vec<u64>);

impl Brought {
    fn set(&mut self, id: u32) {
        let at = (id / u64::BITS) as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (id % u64::BITS);
    }

    fn unset(&mut self, id: u32) {
        if let Some(bits) = self.0.get_mut((id / u64::BITS) as usize) {
            *bits &= !(1 << (id % u64::BITS));
        }
    }

    fn has(&self, id: u32) -> bool {
        let bits = self.0.get((id / u64::BITS) as usize);
        bits.is_some_and(|bits| bits >> (id % u64::BITS) & 1 == 1)
    }
}

/// Whether a filter has a wildcard. `+` and `#` may stand in a filter as wildcards only, and the
/// codec has refused every other.
fn is_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}

#[inline]
fn hash_text(hasher: &FixedState, text: impl AsRef<[u8]>) -> u64 {
    hasher.hash_one(text.as_ref())
}

/// A hash of two small numbers: one wide multiplication, folded so that both ends are mixed.
#[inline]
pub(crate) fn hash_numbers(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
    let folded = (product >> 64) as u64 ^ product as u64;
    folded.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(32)
}

#[cfg(test)]
mod tests;
