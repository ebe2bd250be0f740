//! Where the receivers of one filter are.
//!
//! A million filters with one subscriber each are the case to be small in: the links of a filter
//! are 8 bytes, its subscriber 16. A single remote node is kept in the links themselves; several
//! nodes, or shared groups, move to an `Extra`.

use smallvec::SmallVec;

use super::arena::Arena;
use super::subscriber::{NodeIndex, Subscriber, SubscriberList};

/// Set in a link that points to the larger form.
const LARGE: u32 = 1 << 31;

/// The receivers of a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    /// 0 none; `LARGE | list`; else single + 1.
    pub(super) local: u32,
    /// 0 none; `LARGE | extra`; else node + 1.
    pub(super) remote: u32,
}

/// Receivers beyond subscribers of this node and one other node.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Sorted.
    pub(super) nodes: SmallVec<[NodeIndex; 4]>,
    /// Indices of groups, in the order they came.
    pub(super) groups: SmallVec<[u32; 2]>,
}

impl Links {
    pub(super) fn is_vacant(self) -> bool {
        self == Self::default()
    }
}

/// Storage of what filters link to.
#[derive(Debug, Default)]
pub(super) struct Targets {
    pub(super) singles: Arena<Subscriber>,
    pub(super) lists: Arena<SubscriberList>,
    pub(super) extras: Arena<Extra>,
}

impl Targets {
    #[inline]
    pub(super) fn local(&self, links: Links) -> &[Subscriber] {
        match links.local {
            0 => &[],
            list if list & LARGE != 0 => self.lists[list & !LARGE].as_slice(),
            single => std::slice::from_ref(&self.singles[single - 1]),
        }
    }

    pub(super) fn put_local(
        &mut self,
        links: &mut Links,
        subscriber: Subscriber,
    ) -> Option<Subscriber> {
        if links.local == 0 {
            links.local = self.singles.insert(subscriber) + 1;
            return None;
        }
        if links.local & LARGE != 0 {
            return self.lists[links.local & !LARGE].put(subscriber);
        }
        let single = &mut self.singles[links.local - 1];
        if single.key() == subscriber.key() {
            return Some(std::mem::replace(single, subscriber));
        }
        let mut list = SubscriberList::default();
        list.put(self.singles.remove(links.local - 1));
        list.put(subscriber);
        links.local = LARGE | self.lists.insert(list);
        None
    }

    pub(super) fn remove_local(
        &mut self,
        links: &mut Links,
        key: super::SubscriberKey,
    ) -> Option<Subscriber> {
        if links.local == 0 {
            return None;
        }
        if links.local & LARGE == 0 {
            if self.singles[links.local - 1].key() != key {
                return None;
            }
            let removed = self.singles.remove(links.local - 1);
            links.local = 0;
            return Some(removed);
        }
        let place = links.local & !LARGE;
        let removed = self.lists[place].remove(key)?;
        if let &[last] = self.lists[place].as_slice() {
            self.lists.remove(place);
            links.local = self.singles.insert(last) + 1;
        }
        Some(removed)
    }

    /// Calls `f` for each remote node of the filter, in order.
    #[inline]
    pub(super) fn nodes(&self, links: Links, mut f: impl FnMut(NodeIndex)) {
        match self.extra(links) {
            Some(extra) => extra.nodes.iter().for_each(|&n| f(n)),
            None if links.remote != 0 => f(NodeIndex((links.remote - 1) as u16)),
            None => {}
        }
    }

    pub(super) fn has_node(&self, links: Links, node: NodeIndex) -> bool {
        match self.extra(links) {
            Some(extra) => extra.nodes.binary_search(&node).is_ok(),
            None => links.remote == u32::from(node.0) + 1,
        }
    }

    #[inline]
    pub(super) fn groups(&self, links: Links) -> &[u32] {
        self.extra(links).map_or(&[], |extra| &extra.groups)
    }

    #[inline]
    fn extra(&self, links: Links) -> Option<&Extra> {
        (links.remote & LARGE != 0).then(|| &self.extras[links.remote & !LARGE])
    }

    pub(super) fn add_node(&mut self, links: &mut Links, node: NodeIndex) -> bool {
        if links.remote == 0 {
            links.remote = u32::from(node.0) + 1;
            return true;
        }
        if self.has_node(*links, node) {
            return false;
        }
        let nodes = &mut self.extra_or_make(links).nodes;
        let at = nodes.binary_search(&node).unwrap_or_else(|at| at);
        nodes.insert(at, node);
        true
    }

    pub(super) fn remove_node(&mut self, links: &mut Links, node: NodeIndex) -> bool {
        if !self.has_node(*links, node) {
            return false;
        }
        if links.remote & LARGE == 0 {
            links.remote = 0;
        } else {
            self.extras[links.remote & !LARGE]
                .nodes
                .retain(|n| *n != node);
            self.shrink_extra(links);
        }
        true
    }

    pub(super) fn add_group(&mut self, links: &mut Links, group: u32) {
        self.extra_or_make(links).groups.push(group);
    }

    pub(super) fn remove_group(&mut self, links: &mut Links, group: u32) {
        if links.remote & LARGE != 0 {
            self.extras[links.remote & !LARGE]
                .groups
                .retain(|g| *g != group);
            self.shrink_extra(links);
        }
    }

    fn extra_or_make(&mut self, links: &mut Links) -> &mut Extra {
        if links.remote & LARGE == 0 {
            let mut extra = Extra::default();
            if links.remote != 0 {
                extra.nodes.push(NodeIndex((links.remote - 1) as u16));
            }
            links.remote = LARGE | self.extras.insert(extra);
        }
        &mut self.extras[links.remote & !LARGE]
    }

    fn shrink_extra(&mut self, links: &mut Links) {
        let place = links.remote & !LARGE;
        let extra = &self.extras[place];
        if extra.groups.is_empty() && extra.nodes.len() <= 1 {
            let node = extra.nodes.first().copied();
            self.extras.remove(place);
            links.remote = node.map_or(0, |n| u32::from(n.0) + 1);
        }
    }
}
