//! Where each client identifier is connected: on this node, or on another one.
//!
//! A CONNECT claims its identifier here; what the claim replaces is what has to be taken over.
//! Other nodes' clients come in as their node state. During a split, and until the newest
//! connection has won after it, one identifier may be in several places: all are kept, newest
//! first.
//!
//! Shared by all shards, so split into parts with a lock each; every method is one short lock (a
//! listing takes one after the other). Must never hold an identifier that is nowhere.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_cluster::{Clock, Hlc, Now};
use smallvec::SmallVec;

use crate::effects::ShardId;
use crate::router::NodeIndex;
use crate::router::name::Name;

/// Parts of the table. More than the cores that may connect clients at one time.
const PARTS: usize = 16;

/// Where a client identifier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A session of this node.
    Local {
        /// Its shard.
        shard: ShardId,
        /// Its slot there.
        slot: u32,
        /// When it connected.
        hlc: Hlc,
    },
    /// Another node.
    Remote {
        /// Which.
        node: NodeIndex,
        /// When it connected there.
        hlc: Hlc,
    },
}

impl Place {
    /// When it connected.
    pub fn hlc(&self) -> Hlc {
        match *self {
            Self::Local { hlc, .. } | Self::Remote { hlc, .. } => hlc,
        }
    }

    fn is_local(self) -> bool {
        matches!(self, Self::Local { .. })
    }

    fn is_at(self, at: NodeIndex) -> bool {
        matches!(self, Self::Remote { node, .. } if node == at)
    }
}

/// What a claim replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// The identifier was nowhere.
    None,
    /// A session of this node.
    Local {
        /// Its shard.
        shard: ShardId,
        /// Its slot there.
        slot: u32,
        /// When it connected.
        hlc: Hlc,
    },
    /// A session of another node.
    Remote {
        /// Which.
        node: NodeIndex,
        /// When it connected there.
        hlc: Hlc,
        /// The shard of an older session here, which the claim replaces as well.
        here: Option<ShardId>,
    },
}

/// One identifier's places: at most one local, at most one per node, newest first, and of equally
/// old ones ours.
type Places = SmallVec<[Place; 1]>;
type Part = BTreeMap<Name, Places>;

/// The table. See the module.
#[derive(Debug)]
pub struct Registry {
    parts: [Mutex<Part>; PARTS],
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// Without any client.
    pub fn new() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::new(Part::new())),
        }
    }

    /// Claims an identifier for a session of this node and says what that replaces: the newest
    /// one known. Our own may be older than another node's while that node is still fetching the
    /// rest of it. The claim gets a stamp later than every place known, so that the newest
    /// connection wins everywhere.
    ///
    /// Places on other nodes stay until those nodes take them back.
    pub fn claim(
        &self,
        now: Now,
        clock: &Clock,
        clientid: &str,
        (shard, slot): (ShardId, u32),
    ) -> (Hlc, Previous) {
        let mut part = self.part(clientid);
        let places = part.entry(Name::new(clientid)).or_default();
        for place in places.iter() {
            // Beyond the limit of skew there is nothing to be done: that clock is plainly wrong.
            _ = clock.observe(now, place.hlc());
        }
        let hlc = clock.tick(now);
        let newest = places.first().copied();
        let here = places.iter().find_map(|place| match *place {
            Place::Local { shard, .. } => Some(shard),
            Place::Remote { .. } => None,
        });
        places.retain(|place| !place.is_local());
        let previous = match newest {
            None => Previous::None,
            Some(Place::Local { shard, slot, hlc }) => Previous::Local { shard, slot, hlc },
            Some(Place::Remote { node, hlc }) => Previous::Remote { node, hlc, here },
        };
        enter(places, Place::Local { shard, slot, hlc });
        (hlc, previous)
    }

    /// Claims an identifier for a session that another node gives away. Nobody has connected for
    /// it, so it keeps the stamp of its last connection: whoever connects meanwhile, anywhere, is
    /// newer. False if that node's is not the newest session known, or one is here.
    pub fn claim_moved(
        &self,
        clientid: &str,
        (shard, slot): (ShardId, u32),
        from: NodeIndex,
        hlc: Hlc,
    ) -> bool {
        let mut part = self.part(clientid);
        let Some(places) = part.get_mut(clientid.as_bytes()) else {
            return false;
        };
        let theirs = Place::Remote { node: from, hlc };
        let newest = places.first() == Some(&theirs);
        if !newest || places.iter().any(|place| place.is_local()) {
            return false;
        }
        enter(places, Place::Local { shard, slot, hlc });
        true
    }

    /// Gives an identifier back, if the claim with this stamp still holds.
    pub fn release(&self, clientid: &str, claimed: Hlc) -> bool {
        self.remove_if(clientid, |place| place.is_local() && place.hlc() == claimed)
    }

    /// Another node says the client is connected there.
    pub fn remote_put(&self, clientid: &str, node: NodeIndex, hlc: Hlc) {
        let mut part = self.part(clientid);
        let places = part.entry(Name::new(clientid)).or_default();
        places.retain(|place| !place.is_at(node));
        enter(places, Place::Remote { node, hlc });
    }

    /// Another node asks for the client on behalf of a connection there.
    pub(crate) fn remote_asks(&self, clientid: &str, node: NodeIndex, hlc: Hlc) {
        let known = self.find(clientid, |place| place.is_at(node));
        if known.is_none_or(|place| place.hlc() < hlc) {
            self.remote_put(clientid, node, hlc);
        }
    }

    /// Another node says the client is gone.
    pub fn remote_remove(&self, clientid: &str, node: NodeIndex) {
        self.remove_if(clientid, |place| place.is_at(node));
    }

    /// After a snapshot of a node's clients: drops those that `keep` does not know.
    pub fn sweep_remote(&self, node: NodeIndex, keep: impl Fn(&str) -> bool) {
        for part in &self.parts {
            lock(part).retain(|clientid, places| {
                if places.iter().any(|place| place.is_at(node)) && !keep(clientid.as_str()) {
                    places.retain(|place| !place.is_at(node));
                }
                !places.is_empty()
            });
        }
    }

    /// Drops all clients of a node that is no member any more.
    pub fn remove_node(&self, node: NodeIndex) {
        self.sweep_remote(node, |_| false);
    }

    /// The newest place of an identifier.
    pub fn lookup(&self, clientid: &str) -> Option<Place> {
        self.find(clientid, |_| true)
    }

    /// The shard that has the client, if it is on this node.
    pub fn local_shard(&self, clientid: &str) -> Option<ShardId> {
        match self.find(clientid, Place::is_local)? {
            Place::Local { shard, .. } => Some(shard),
            Place::Remote { .. } => None,
        }
    }

    /// When the client connected to this node, if it is here.
    pub fn local_stamp(&self, clientid: &str) -> Option<Hlc> {
        self.find(clientid, Place::is_local)
            .map(|place| place.hlc())
    }

    /// The node where it connected last, this one not counted.
    pub fn remote_node(&self, clientid: &str) -> Option<NodeIndex> {
        match self.find(clientid, |place| !place.is_local())? {
            Place::Remote { node, .. } => Some(node),
            Place::Local { .. } => None,
        }
    }

    /// Clients of this node and when they connected, in key order from a bound on, at most `limit`:
    /// rows of a snapshot or a listing.
    pub fn own_clients(&self, from: Bound<&str>, limit: usize) -> Vec<(String, Hlc)> {
        let from = from.map(str::as_bytes);
        let mut rows = Vec::new();
        for part in &self.parts {
            let part = lock(part);
            let own = part
                .range::<[u8], _>((from, Bound::Unbounded))
                .filter_map(|(id, places)| {
                    let place = places.iter().find(|place| place.is_local())?;
                    Some((id.as_str().to_owned(), place.hlc()))
                });
            rows.extend(own.take(limit));
        }
        rows.sort_unstable();
        rows.truncate(limit);
        rows
    }

    /// Clients of another node and when they connected there, in key order from a bound on, at most
    /// `limit`: rows of a listing.
    pub fn clients_of(
        &self,
        node: NodeIndex,
        from: Bound<&str>,
        limit: usize,
    ) -> Vec<(String, Hlc)> {
        let from = from.map(str::as_bytes);
        let mut rows = Vec::new();
        for part in &self.parts {
            let part = lock(part);
            let there =
                part.range::<[u8], _>((from, Bound::Unbounded))
                    .filter_map(|(id, places)| {
                        let place = places.iter().find(|place| place.is_at(node))?;
                        Some((id.as_str().to_owned(), place.hlc()))
                    });
            rows.extend(there.take(limit));
        }
        rows.sort_unstable();
        rows.truncate(limit);
        rows
    }

    /// (identifiers of this node, identifiers known in the whole cluster).
    pub fn counts(&self) -> (usize, usize) {
        let mut local = 0;
        let mut all = 0;
        for part in &self.parts {
            let part = lock(part);
            all += part.len();
            local += part
                .values()
                .filter(|places| places.iter().any(|p| p.is_local()))
                .count();
        }
        (local, all)
    }

    fn find(&self, clientid: &str, wanted: impl Fn(Place) -> bool) -> Option<Place> {
        let part = self.part(clientid);
        part.get(clientid.as_bytes())?
            .iter()
            .copied()
            .find(|place| wanted(*place))
    }

    fn remove_if(&self, clientid: &str, gone: impl Fn(Place) -> bool) -> bool {
        let mut part = self.part(clientid);
        let Some(places) = part.get_mut(clientid.as_bytes()) else {
            return false;
        };
        let before = places.len();
        places.retain(|place| !gone(*place));
        let removed = places.len() < before;
        if places.is_empty() {
            part.remove(clientid.as_bytes());
        }
        removed
    }

    fn part(&self, clientid: &str) -> MutexGuard<'_, Part> {
        // Any even spread will do; identifiers that collide here only share a lock.
        let sum = clientid
            .bytes()
            .fold(0_usize, |sum, b| sum.wrapping_mul(31) + usize::from(b));
        lock(&self.parts[(sum ^ (sum >> 4)) % PARTS])
    }
}

fn enter(places: &mut Places, place: Place) {
    let rank = |place: &Place| (place.hlc(), place.is_local());
    let at = places
        .iter()
        .position(|p| rank(p) <= rank(&place))
        .unwrap_or(places.len());
    places.insert(at, place);
}

/// No method leaves a part half changed, so a poisoned lock protects a sound table.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeIndex = NodeIndex(1);
    const B: NodeIndex = NodeIndex(2);

    fn at(wall_ms: u64) -> Now {
        Now {
            mono_ms: 0,
            wall_ms,
        }
    }

    fn hlc(wall_ms: u64) -> Hlc {
        Hlc(wall_ms << 16)
    }

    #[test]
    fn the_newest_claim_holds_and_an_old_release_does_nothing() {
        let (registry, clock) = (Registry::new(), Clock::new());
        let (first, previous) = registry.claim(at(10), &clock, "c", (0, 7));
        assert_eq!(previous, Previous::None);
        let (second, previous) = registry.claim(at(10), &clock, "c", (1, 3));
        assert_eq!(
            previous,
            Previous::Local {
                shard: 0,
                slot: 7,
                hlc: first
            }
        );
        assert!(second > first);
        assert!(!registry.release("c", first));
        assert_eq!(registry.local_shard("c"), Some(1));
        assert_eq!(registry.local_stamp("c"), Some(second));
        assert!(registry.release("c", second));
        assert_eq!(registry.lookup("c"), None);
        assert_eq!(registry.counts(), (0, 0));
    }

    #[test]
    fn a_claim_is_newer_than_a_remote_one_whatever_the_clock_says() {
        let (registry, clock) = (Registry::new(), Clock::new());
        registry.remote_put("c", A, hlc(500));
        let (ours, previous) = registry.claim(at(100), &clock, "c", (0, 0));
        assert_eq!(
            previous,
            Previous::Remote {
                node: A,
                hlc: hlc(500),
                here: None,
            }
        );
        assert!(ours > hlc(500));
        assert_eq!(registry.lookup("c").map(|p| p.hlc()), Some(ours));
        assert_eq!(
            registry.remote_node("c"),
            Some(A),
            "until that node takes it back"
        );
        registry.remote_remove("c", A);
        assert_eq!(registry.remote_node("c"), None);
        assert_eq!(registry.local_stamp("c"), Some(ours));
    }

    #[test]
    fn a_claim_replaces_a_newer_remote_place_rather_than_our_own() {
        let (registry, clock) = (Registry::new(), Clock::new());
        let (left, _) = registry.claim(at(100), &clock, "c", (0, 0));
        let there = Hlc(left.0 + 1);
        registry.remote_put("c", A, there);
        let (back, previous) = registry.claim(at(100), &clock, "c", (0, 1));
        assert_eq!(
            previous,
            Previous::Remote {
                node: A,
                hlc: there,
                here: Some(0),
            }
        );
        assert_eq!(registry.local_stamp("c"), Some(back));
        assert!(!registry.release("c", left), "it was replaced");
    }

    #[test]
    fn after_a_split_all_places_are_known_newest_first() {
        let (registry, clock) = (Registry::new(), Clock::new());
        let (ours, _) = registry.claim(at(100), &clock, "c", (0, 0));
        registry.remote_put("c", A, hlc(300));
        registry.remote_put("c", B, hlc(200));
        registry.remote_put("c", A, hlc(310));
        assert_eq!(
            registry.lookup("c"),
            Some(Place::Remote {
                node: A,
                hlc: hlc(310)
            })
        );
        assert_eq!(registry.remote_node("c"), Some(A));
        registry.remove_node(A);
        assert_eq!(
            registry.lookup("c"),
            Some(Place::Remote {
                node: B,
                hlc: hlc(200)
            })
        );
        assert_eq!(registry.counts(), (1, 1));
        registry.sweep_remote(B, |id| id == "other");
        assert_eq!(registry.lookup("c").map(|p| p.hlc()), Some(ours));
    }

    #[test]
    fn own_clients_come_in_key_order_page_by_page() {
        let (registry, clock) = (Registry::new(), Clock::new());
        let mut expected: Vec<String> = (0..500).map(|n| format!("client-{n}")).collect();
        for id in &expected {
            registry.claim(at(1), &clock, id, (0, 0));
            registry.remote_put(&format!("{id}-far"), A, hlc(1));
        }
        expected.sort_unstable();
        let mut seen: Vec<String> = Vec::new();
        loop {
            let from = seen
                .last()
                .map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str()));
            let page = registry.own_clients(from, 37);
            if page.is_empty() {
                break;
            }
            seen.extend(page.into_iter().map(|(id, _)| id));
        }
        assert_eq!(seen, expected);
        assert_eq!(registry.counts(), (500, 1000));
    }
}
