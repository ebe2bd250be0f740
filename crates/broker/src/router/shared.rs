//! Which member of a shared group receives a message: the seven strategies.
//!
//! The publishing node picks. Members of another node count by their number, and a pick of that
//! node means "one of yours": it picks again among its own with the same rule. A hash means the
//! same member wherever the message is published. The state of the
//! picks (turns, sticky choices, random numbers) is the caller's [`Picker`], one for each shard, so
//! that no publisher waits for another. Must never pick a node that cannot be reached.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use smallvec::SmallVec;

use super::groups::Group;
use super::matches::GroupRef;
use super::subscriber::{NodeIndex, Subscriber, SubscriberKey};
use super::{hash_numbers, hash_text};

/// Turns and sticky choices remembered by one picker; past it they are forgotten and begin anew,
/// which a client cannot tell from a member that left. At 40 bytes each, 2.6 MB.
const REMEMBERED_MAX: usize = 65_536;

/// Bits of a hash that choose the node; those above choose the member there.
const MEMBER_BITS: u32 = 24;

/// How a member is chosen. The names are EMQX's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Any member.
    Random,
    /// In turn. The turn is kept by each shard for each group, from a random start.
    #[default]
    RoundRobin,
    /// In turn, with one turn for all publishers of the node.
    RoundRobinPerGroup,
    /// The same member for one publisher until that member is gone.
    Sticky,
    /// Any member of this node, of the others only if there is none.
    Local,
    /// By the topic.
    HashTopic,
    /// By the publisher's client identifier.
    HashClientid,
}

impl Strategy {
    /// All strategies with their names in configuration.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("random", Self::Random),
        ("round_robin", Self::RoundRobin),
        ("round_robin_per_group", Self::RoundRobinPerGroup),
        ("sticky", Self::Sticky),
        ("local", Self::Local),
        ("hash_topic", Self::HashTopic),
        ("hash_clientid", Self::HashClientid),
    ];

    /// The strategy of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, strategy)| *strategy)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, s)| *s == self)
            .map_or("", |(name, _)| name)
    }
}

/// The two settings of a pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedRule {
    /// `mqtt.shared_subscription_strategy`.
    pub strategy: Strategy,
    /// `mqtt.shared_subscription_initial_sticky_pick`: how a sticky publisher chooses first.
    pub initial_sticky_pick: Strategy,
}

impl Default for SharedRule {
    fn default() -> Self {
        Self {
            strategy: Strategy::RoundRobin,
            initial_sticky_pick: Strategy::Random,
        }
    }
}

/// Who publishes what, as far as a pick depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Publisher<'a> {
    /// Different for each publisher at one time: its connection.
    pub id: u64,
    /// Its client identifier.
    pub clientid: &'a str,
    /// The topic of the message.
    pub topic: &'a str,
}

/// The chosen receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// A session of this node.
    Local(Subscriber),
    /// Another node, which picks one of its members.
    Remote(NodeIndex),
}

/// Among whom a pick is made.
struct Candidates<'a, R> {
    group: &'a Group,
    reachable: R,
    exclude: Option<SubscriberKey>,
    total: u32,
}

impl<'a, R: Fn(NodeIndex) -> bool> Candidates<'a, R> {
    fn new(group: &'a Group, reachable: R, exclude: Option<SubscriberKey>) -> Self {
        let remote: u32 = group
            .remote()
            .iter()
            .filter(|(node, _)| reachable(*node))
            .map(|r| r.1)
            .sum();
        let total = group.local().len() as u32 + remote;
        Self {
            group,
            reachable,
            exclude,
            total,
        }
    }

    /// The `n`-th candidate (modulo their number); the next one if that is excluded.
    fn at(&self, n: u64) -> Option<Pick> {
        let n = n.checked_rem(u64::from(self.total))? as u32;
        let pick = self.nth(n)?;
        if !self.is_excluded(pick) {
            return Some(pick);
        }
        let next = self.nth((n + 1) % self.total)?;
        (!self.is_excluded(next)).then_some(next)
    }

    fn nth(&self, n: u32) -> Option<Pick> {
        let local = self.group.local();
        if let Some(subscriber) = local.get(n as usize) {
            return Some(Pick::Local(*subscriber));
        }
        let mut left = n - local.len() as u32;
        for &(node, count) in self.group.remote().iter().filter(|r| (self.reachable)(r.0)) {
            if left < count {
                return Some(Pick::Remote(node));
            }
            left -= count;
        }
        None
    }

    /// The member that a hash means. The nodes stand in the common order, each as often as it has
    /// members; which of its own it is, a node finds out with other bits of the hash.
    fn hashed(&self, hash: u64, order: &impl Fn(Option<NodeIndex>) -> u64) -> Option<Pick> {
        let local = self.group.local();
        let mut left = hash.checked_rem(u64::from(self.total))?;
        let mut nodes: SmallVec<[(u64, Option<NodeIndex>, u32); 8]> = SmallVec::new();
        nodes.push((order(None), None, local.len() as u32));
        let remote = self.group.remote().iter().filter(|r| (self.reachable)(r.0));
        nodes.extend(remote.map(|&(node, count)| (order(Some(node)), Some(node), count)));
        nodes.sort_unstable();
        let chosen = nodes.iter().find(|(_, _, count)| {
            let here = left < u64::from(*count);
            left = left.saturating_sub(u64::from(*count));
            here
        });
        let pick = if let Some(node) = chosen?.1 {
            Pick::Remote(node)
        } else {
            let at = (hash >> MEMBER_BITS).checked_rem(local.len() as u64)?;
            Pick::Local(local[at as usize])
        };
        if self.is_excluded(pick) {
            return self.at(hash);
        }
        Some(pick)
    }

    fn is_excluded(&self, pick: Pick) -> bool {
        matches!(pick, Pick::Local(s) if Some(s.key()) == self.exclude)
    }

    /// The same choice as it stands today, if it still may be chosen.
    fn again(&self, choice: Choice) -> Option<Pick> {
        let pick = match choice {
            Choice::Local(key) => Pick::Local(*self.group.find_local(key)?),
            Choice::Remote(node) => {
                let there = self.group.remote_count(node) > 0 && (self.reachable)(node);
                there.then_some(Pick::Remote(node))?
            }
        };
        (!self.is_excluded(pick)).then_some(pick)
    }
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    Local(SubscriberKey),
    Remote(NodeIndex),
}

/// Turns, sticky choices and random numbers of one shard.
#[derive(Debug)]
pub struct Picker {
    random: SmallRng,
    hasher: FixedState,
    turns: HashMap<GroupRef, u32, FixedState>,
    sticky: HashMap<(u64, GroupRef), Choice, FixedState>,
}

impl Picker {
    /// A picker with its own random numbers.
    pub fn new(seed: u64) -> Self {
        // Hash strategies have to agree on every node and every start, so that hasher has no seed.
        let hasher = FixedState::with_seed(0);
        Self {
            random: SmallRng::seed_from_u64(seed),
            turns: HashMap::with_hasher(hasher.clone()),
            sticky: HashMap::with_hasher(hasher.clone()),
            hasher,
        }
    }

    /// Picks a member of the group for one message. `exclude` is a member of this node that had
    /// its chance (its session ended with the message unacknowledged). `None` if nobody is left.
    /// `reachable` tells which nodes are, `order` the place of each (`None`: this one) in an order
    /// that all nodes agree on.
    pub fn pick(
        &mut self,
        (at, group): (GroupRef, &Group),
        rule: SharedRule,
        from: Publisher<'_>,
        (reachable, order): (
            impl Fn(NodeIndex) -> bool,
            impl Fn(Option<NodeIndex>) -> u64,
        ),
        exclude: Option<SubscriberKey>,
    ) -> Option<Pick> {
        let candidates = Candidates::new(group, reachable, exclude);
        let order = &order;
        match rule.strategy {
            Strategy::Sticky => {
                let first = rule.initial_sticky_pick;
                self.pick_sticky(at, &candidates, first, from, order)
            }
            strategy => self.pick_simple(at, &candidates, strategy, from, order),
        }
    }

    /// Picks among the members of this node only: another node has chosen this one.
    pub fn pick_local(
        &mut self,
        group: (GroupRef, &Group),
        rule: SharedRule,
        from: Publisher<'_>,
        exclude: Option<SubscriberKey>,
    ) -> Option<Subscriber> {
        match self.pick(group, rule, from, (|_| false, |_| 0), exclude)? {
            Pick::Local(subscriber) => Some(subscriber),
            Pick::Remote(_) => None,
        }
    }

    fn pick_simple<R: Fn(NodeIndex) -> bool>(
        &mut self,
        at: GroupRef,
        candidates: &Candidates<'_, R>,
        strategy: Strategy,
        from: Publisher<'_>,
        order: &impl Fn(Option<NodeIndex>) -> u64,
    ) -> Option<Pick> {
        let n = match strategy {
            Strategy::RoundRobin => u64::from(self.next_turn(at)),
            Strategy::RoundRobinPerGroup => u64::from(candidates.group.next_turn()),
            Strategy::HashTopic => return candidates.hashed(self.spread(from.topic), order),
            Strategy::HashClientid => {
                return candidates.hashed(self.spread(from.clientid), order);
            }
            Strategy::Local => return self.pick_here_first(candidates),
            Strategy::Random | Strategy::Sticky => u64::from(self.random.next_u32()),
        };
        candidates.at(n)
    }

    fn pick_here_first<R: Fn(NodeIndex) -> bool>(
        &mut self,
        candidates: &Candidates<'_, R>,
    ) -> Option<Pick> {
        let n = u64::from(self.random.next_u32());
        let here = Candidates::new(candidates.group, |_| false, candidates.exclude);
        here.at(n).or_else(|| {
            // Whoever is left on this node is excluded, so start behind its members.
            let local = u64::from(here.total);
            let remote = u64::from(candidates.total) - local;
            candidates.at(local + n.checked_rem(remote)?)
        })
    }

    fn pick_sticky<R: Fn(NodeIndex) -> bool>(
        &mut self,
        at: GroupRef,
        candidates: &Candidates<'_, R>,
        first: Strategy,
        from: Publisher<'_>,
        order: &impl Fn(Option<NodeIndex>) -> u64,
    ) -> Option<Pick> {
        let known = self
            .sticky
            .get(&(from.id, at))
            .and_then(|c| candidates.again(*c));
        if known.is_some() {
            return known;
        }
        let pick = self.pick_simple(at, candidates, first, from, order)?;
        let choice = match pick {
            Pick::Local(subscriber) => Choice::Local(subscriber.key()),
            Pick::Remote(node) => Choice::Remote(node),
        };
        if self.sticky.len() >= REMEMBERED_MAX {
            self.sticky.clear();
        }
        self.sticky.insert((from.id, at), choice);
        Some(pick)
    }

    fn next_turn(&mut self, at: GroupRef) -> u32 {
        if self.turns.len() >= REMEMBERED_MAX && !self.turns.contains_key(&at) {
            self.turns.clear();
        }
        let random = &mut self.random;
        let turn = self.turns.entry(at).or_insert_with(|| random.next_u32());
        let n = *turn;
        *turn = turn.wrapping_add(1);
        n
    }

    fn spread(&self, text: &str) -> u64 {
        hash_numbers(hash_text(&self.hasher, text), self.hasher.hash_one(0_u8)) >> 8
    }
}

#[cfg(test)]
mod tests;
