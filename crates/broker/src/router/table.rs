//! The record of one filter and the links from it.
//!
//! A million filters with one subscriber each are the case to be small in: the record is 32 bytes,
//! its subscriber 16. A single remote node is kept in the record itself; several nodes, or shared
//! groups, move to an `Extra`.

use smallvec::SmallVec;

use super::arena::Arena;
use super::name::Name;
use super::subscriber::{NodeIndex, Subscriber, SubscriberList};

/// Set in a link that points to the larger form.
const LARGE: u32 = 1 << 31;

/// A filter and where its receivers are.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) name: Name,
    /// 0 none; `LARGE | list`; else single + 1.
    local: u32,
    /// 0 none; `LARGE | extra`; else node + 1.
    remote: u32,
}

/// Receivers beyond subscribers of this node and one other node.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Sorted.
    pub(super) nodes: SmallVec<[NodeIndex; 4]>,
    /// Indices of groups, in the order they came.
    pub(super) groups: SmallVec<[u32; 2]>,
}

impl Filter {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: Name::new(name),
            local: 0,
            remote: 0,
        }
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.local == 0 && self.remote == 0
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
    pub(super) fn local<'a>(&'a self, filter: &Filter) -> &'a [Subscriber] {
        match filter.local {
            0 => &[],
            list if list & LARGE != 0 => self.lists[list & !LARGE].as_slice(),
            single => std::slice::from_ref(&self.singles[single - 1]),
        }
    }

    pub(super) fn put_local(
        &mut self,
        filter: &mut Filter,
        subscriber: Subscriber,
    ) -> Option<Subscriber> {
        if filter.local == 0 {
            filter.local = self.singles.insert(subscriber) + 1;
            return None;
        }
        if filter.local & LARGE != 0 {
            return self.lists[filter.local & !LARGE].put(subscriber);
        }
        let single = &mut self.singles[filter.local - 1];
        if single.key() == subscriber.key() {
            return Some(std::mem::replace(single, subscriber));
        }
        let mut list = SubscriberList::default();
        list.put(self.singles.remove(filter.local - 1));
        list.put(subscriber);
        filter.local = LARGE | self.lists.insert(list);
        None
    }

    pub(super) fn remove_local(
        &mut self,
        filter: &mut Filter,
        key: super::SubscriberKey,
    ) -> Option<Subscriber> {
        if filter.local == 0 {
            return None;
        }
        if filter.local & LARGE == 0 {
            if self.singles[filter.local - 1].key() != key {
                return None;
            }
            let removed = self.singles.remove(filter.local - 1);
            filter.local = 0;
            return Some(removed);
        }
        let place = filter.local & !LARGE;
        let removed = self.lists[place].remove(key)?;
        if let &[last] = self.lists[place].as_slice() {
            self.lists.remove(place);
            filter.local = self.singles.insert(last) + 1;
        }
        Some(removed)
    }

    /// Calls `f` for each remote node of the filter, in order.
    #[inline]
    pub(super) fn nodes(&self, filter: &Filter, mut f: impl FnMut(NodeIndex)) {
        match self.extra(filter) {
            Some(extra) => extra.nodes.iter().for_each(|&n| f(n)),
            None if filter.remote != 0 => f(NodeIndex((filter.remote - 1) as u16)),
            None => {}
        }
    }

    pub(super) fn has_node(&self, filter: &Filter, node: NodeIndex) -> bool {
        match self.extra(filter) {
            Some(extra) => extra.nodes.binary_search(&node).is_ok(),
            None => filter.remote == u32::from(node.0) + 1,
        }
    }

    #[inline]
    pub(super) fn groups<'a>(&'a self, filter: &Filter) -> &'a [u32] {
        self.extra(filter).map_or(&[], |extra| &extra.groups)
    }

    #[inline]
    fn extra(&self, filter: &Filter) -> Option<&Extra> {
        (filter.remote & LARGE != 0).then(|| &self.extras[filter.remote & !LARGE])
    }

    pub(super) fn add_node(&mut self, filter: &mut Filter, node: NodeIndex) -> bool {
        if filter.remote == 0 {
            filter.remote = u32::from(node.0) + 1;
            return true;
        }
        if self.has_node(filter, node) {
            return false;
        }
        let nodes = &mut self.extra_or_make(filter).nodes;
        let at = nodes.binary_search(&node).unwrap_or_else(|at| at);
        nodes.insert(at, node);
        true
    }

    pub(super) fn remove_node(&mut self, filter: &mut Filter, node: NodeIndex) -> bool {
        if !self.has_node(filter, node) {
            return false;
        }
        if filter.remote & LARGE == 0 {
            filter.remote = 0;
        } else {
            self.extras[filter.remote & !LARGE]
                .nodes
                .retain(|n| *n != node);
            self.shrink_extra(filter);
        }
        true
    }

    pub(super) fn add_group(&mut self, filter: &mut Filter, group: u32) {
        self.extra_or_make(filter).groups.push(group);
    }

    pub(super) fn remove_group(&mut self, filter: &mut Filter, group: u32) {
        if filter.remote & LARGE != 0 {
            self.extras[filter.remote & !LARGE]
                .groups
                .retain(|g| *g != group);
            self.shrink_extra(filter);
        }
    }

    fn extra_or_make(&mut self, filter: &mut Filter) -> &mut Extra {
        if filter.remote & LARGE == 0 {
            let mut extra = Extra::default();
            if filter.remote != 0 {
                extra.nodes.push(NodeIndex((filter.remote - 1) as u16));
            }
            filter.remote = LARGE | self.extras.insert(extra);
        }
        &mut self.extras[filter.remote & !LARGE]
    }

    fn shrink_extra(&mut self, filter: &mut Filter) {
        let place = filter.remote & !LARGE;
        let extra = &self.extras[place];
        if extra.groups.is_empty() && extra.nodes.len() <= 1 {
            let node = extra.nodes.first().copied();
            self.extras.remove(place);
            filter.remote = node.map_or(0, |n| u32::from(n.0) + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_a_filter_is_32_bytes() {
        assert_eq!(size_of::<Filter>(), 32);
    }
}
