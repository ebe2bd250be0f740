//! What the shards of one node and its control have in common.
//!
//! Everything here is shared by `Arc` and guarded by short locks: the router (read for every batch
//! of messages, written by SUBSCRIBE and by other nodes' routes), the registry of clients, the
//! retained messages, the table of other nodes, the settings. A shard's own state is not here.
//! Must never hold two of these locks at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dunlin_cluster::{BootId, Clock, Hlc, Merged, NodeName, Now, Peer, SiteId};

use crate::access::Access;
use crate::banned::Banned;
use crate::dispatch::Receipts;
use crate::effects::ShardId;
use crate::metrics::Metrics;
use crate::registry::{Previous, Registry};
use crate::retained::Retained;
use crate::router::{NodeIndex, Router};
use crate::settings::Settings;
use crate::wills::Wills;

/// Other nodes a node can tell apart at one time, members and those it waits for to go.
pub const NODES_MAX: usize = 4_096;

/// A read-write lock whose value is sound whenever nobody holds it: a panic of a holder does not
/// make it useless for the others.
#[derive(Debug)]
pub struct Lock<T>(RwLock<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    /// A guard to read with; any number at a time.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guard to write with.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another node as this one numbers it.
#[derive(Clone, Debug)]
struct Known {
    index: NodeIndex,
    peer: Peer,
    reachable: bool,
    /// Which life of it has told whom it has.
    told: Option<BootId>,
}

#[derive(Debug, Default)]
struct Peers {
    by_site: BTreeMap<SiteId, Known>,
    by_index: BTreeMap<NodeIndex, SiteId>,
    /// The next index to try: an index rests as long as possible before it is used again, so that
    /// letters about its former node have long arrived.
    next: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Shared {
    site: SiteId,
    clock: Arc<Clock>,
    settings: Lock<Arc<Settings>>,
    access: Lock<Access>,
    router: Lock<Router>,
    registry: Registry,
    retained: Retained,
    wills: Wills,
    banned: Banned,
    receipts: Arc<Receipts>,
    metrics: Box<[Arc<Metrics>]>,
    peers: Lock<Peers>,
    /// One bit for each node that can be reached.
    reachable: Box<[AtomicU64]>,
    /// One bit for each node of which only a former life has told whom it has.
    stale: Box<[AtomicU64]>,
    live_peers: AtomicUsize,
    /// Another node has asked for this one's node state, or may have.
    followed: AtomicBool,
    /// The place of each node in an order that all nodes agree on.
    orders: Box<[AtomicU64]>,
}

impl Shared {
    /// The common state of a node with `shards` shards (and one set of counters more, for
    /// control). `tables` are the cluster's of retained messages and of bans, `seed` keys hashes.
    pub fn new(
        settings: Settings,
        shards: u16,
        clock: Arc<Clock>,
        tables: (Arc<Merged>, Arc<Merged>),
        site: SiteId,
        seed: u64,
    ) -> Self {
        Self {
            site,
            clock,
            settings: Lock::new(Arc::new(settings)),
            access: Lock::new(Access::default()),
            router: Lock::new(Router::new(seed)),
            registry: Registry::new(),
            retained: Retained::new(tables.0),
            wills: Wills::default(),
            banned: Banned::new(tables.1),
            receipts: Arc::default(),
            metrics: (0..=shards).map(|_| Arc::new(Metrics::new())).collect(),
            peers: Lock::new(Peers::default()),
            reachable: (0..NODES_MAX / 64).map(|_| AtomicU64::new(0)).collect(),
            stale: (0..NODES_MAX / 64).map(|_| AtomicU64::new(0)).collect(),
            live_peers: AtomicUsize::new(0),
            followed: AtomicBool::new(false),
            orders: (0..NODES_MAX).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// This installation.
    pub fn site(&self) -> SiteId {
        self.site
    }

    /// How many shards the node has.
    pub fn shards(&self) -> ShardId {
        (self.metrics.len() - 1) as ShardId
    }

    /// The hybrid clock.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Filters to receivers.
    pub fn router(&self) -> &Lock<Router> {
        &self.router
    }

    /// Client identifiers to places.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// [`Registry::claim`] with this node's clock.
    pub fn claim(&self, now: Now, clientid: &str, at: (ShardId, u32)) -> (Hlc, Previous) {
        self.registry.claim(now, &self.clock, clientid, at)
    }

    /// A client is connected to another node since then. The shard that has an older connection of
    /// it, if one has. Of two in one instant (nobody knew of the other yet) all nodes take the same
    /// one for the older.
    pub(crate) fn client_elsewhere(
        &self,
        clientid: &str,
        (node, site): (NodeIndex, SiteId),
        hlc: Hlc,
    ) -> Option<ShardId> {
        self.registry.remote_put(clientid, node, hlc);
        let own = self.registry.local_stamp(clientid)?;
        let older = (own, self.site) < (hlc, site);
        older.then(|| self.registry.local_shard(clientid)).flatten()
    }

    /// Retained messages.
    pub fn retained(&self) -> &Retained {
        &self.retained
    }

    /// Wills of this node's clients, as the others have to know them.
    pub(crate) fn wills(&self) -> &Wills {
        &self.wills
    }

    /// Who may not connect.
    pub fn banned(&self) -> &Banned {
        &self.banned
    }

    /// Receipts for what other nodes gave to members of groups here.
    pub(crate) fn receipts(&self) -> &Arc<Receipts> {
        &self.receipts
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Puts other settings in force; tell the shards (`ToShard::SettingsChanged`).
    pub fn set_settings(&self, settings: Settings) {
        *self.settings.write() = Arc::new(settings);
    }

    /// The decisions in force.
    pub fn access(&self) -> Access {
        self.access.read().clone()
    }

    /// Puts other decisions in force; tell the shards (`ToShard::AccessChanged`).
    pub fn set_access(&self, access: Access) {
        *self.access.write() = access;
    }

    /// The counters of a shard, which alone may write them. Of control: `shards()`.
    pub fn metrics(&self, shard: ShardId) -> &Arc<Metrics> {
        &self.metrics[usize::from(shard)]
    }

    /// All counters, for [`crate::metrics::sum`].
    pub fn all_metrics(&self) -> &[Arc<Metrics>] {
        &self.metrics
    }

    /// A node can be reached: numbers it if it is new. `None` if [`NODES_MAX`] are known.
    pub fn try_peer_up(&self, peer: &Peer) -> Option<NodeIndex> {
        self.follow();
        let mut peers = self.peers.write();
        let index = match peers.by_site.get_mut(&peer.site) {
            Some(known) => {
                known.peer = peer.clone();
                let was = std::mem::replace(&mut known.reachable, true);
                let index = known.index;
                self.note_stale(known);
                if was {
                    return Some(index);
                }
                index
            }
            None => self.enter(&mut peers, peer, true)?,
        };
        self.reachable[usize::from(index.0) / 64].fetch_or(bit(index), Ordering::Relaxed);
        self.live_peers.fetch_add(1, Ordering::Relaxed);
        Some(index)
    }

    /// [`Shared::try_peer_up`] for a caller whose cluster is bounded well below [`NODES_MAX`].
    pub fn peer_up(&self, peer: &Peer) -> NodeIndex {
        self.try_peer_up(peer)
            .expect("the member table is smaller than NODES_MAX")
    }

    /// A node is a member, whether it can be reached or not: numbers it if it is new. `None` if
    /// [`NODES_MAX`] are known.
    pub fn peer_known(&self, peer: &Peer) -> Option<NodeIndex> {
        self.follow();
        let mut peers = self.peers.write();
        match peers.by_site.get(&peer.site) {
            Some(known) => Some(known.index),
            None => self.enter(&mut peers, peer, false),
        }
    }

    /// A life of a node has told whom it has.
    pub fn peer_told(&self, site: SiteId, boot: BootId) {
        if let Some(known) = self.peers.write().by_site.get_mut(&site) {
            known.told = Some(boot);
            self.note_stale(known);
        }
    }

    fn note_stale(&self, known: &Known) {
        let word = &self.stale[usize::from(known.index.0) / 64];
        if known.told.is_some_and(|told| told != known.peer.boot) {
            word.fetch_or(bit(known.index), Ordering::Relaxed);
        } else {
            word.fetch_and(!bit(known.index), Ordering::Relaxed);
        }
    }

    /// A node cannot be reached; it keeps its number. `None` if it is not known.
    pub fn peer_down(&self, site: SiteId) -> Option<NodeIndex> {
        let mut peers = self.peers.write();
        let known = peers.by_site.get_mut(&site)?;
        let index = known.index;
        if std::mem::replace(&mut known.reachable, false) {
            self.unreachable(index);
        }
        Some(index)
    }

    /// A site is no member any more: its number is given back. Its routes have to be gone.
    pub fn peer_gone(&self, site: SiteId) {
        let mut peers = self.peers.write();
        let Some(known) = peers.by_site.remove(&site) else {
            return;
        };
        peers.by_index.remove(&known.index);
        if known.reachable {
            self.unreachable(known.index);
        }
    }

    fn enter(&self, peers: &mut Peers, peer: &Peer, reachable: bool) -> Option<NodeIndex> {
        let index = peers.enter(peer, reachable)?;
        self.orders[usize::from(index.0)].store(order(peer.site), Ordering::Relaxed);
        self.stale[usize::from(index.0) / 64].fetch_and(!bit(index), Ordering::Relaxed);
        Some(index)
    }

    /// The place of a node, or of this one, in an order that all nodes agree on. One atomic load.
    #[inline]
    pub fn order(&self, node: Option<NodeIndex>) -> u64 {
        match node {
            None => order(self.site),
            Some(node) => self.orders[usize::from(node.0) % NODES_MAX].load(Ordering::Relaxed),
        }
    }

    fn unreachable(&self, index: NodeIndex) {
        self.reachable[usize::from(index.0) / 64].fetch_and(!bit(index), Ordering::Relaxed);
        self.live_peers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the node can be reached. One atomic load.
    #[inline]
    pub fn reachable(&self, node: NodeIndex) -> bool {
        let word = self.reachable.get(usize::from(node.0) / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & bit(node) != 0)
    }

    /// Whether what is known of the node is of a former life of it: whom it had then it may have
    /// lost. One atomic load.
    #[inline]
    pub fn is_stale(&self, node: NodeIndex) -> bool {
        let word = self.stale.get(usize::from(node.0) / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & bit(node) != 0)
    }

    /// How many other nodes can be reached.
    #[inline]
    pub fn live_peers(&self) -> usize {
        self.live_peers.load(Ordering::Relaxed)
    }

    /// From here on changes of routes, groups and clients are told to control. Called before any of
    /// them is read for another node.
    pub fn follow(&self) {
        self.followed.store(true, Ordering::Relaxed);
    }

    /// Whether changes have to be told to control. A node that never met another one spares itself
    /// the letters. To be asked *after* the change was made: whoever then reads the router or the
    /// registry for another node has either seen the change, or called [`Shared::follow`] before,
    /// which the lock of what was changed makes visible here.
    #[inline]
    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    /// The number of a site.
    pub fn peer_index(&self, site: SiteId) -> Option<NodeIndex> {
        self.peers
            .read()
            .by_site
            .get(&site)
            .map(|known| known.index)
    }

    /// The site of a number.
    pub fn peer_site(&self, node: NodeIndex) -> Option<SiteId> {
        self.peers.read().by_index.get(&node).copied()
    }

    /// The node of a number.
    pub fn peer(&self, node: NodeIndex) -> Option<Peer> {
        let peers = self.peers.read();
        let site = peers.by_index.get(&node)?;
        peers.by_site.get(site).map(|known| known.peer.clone())
    }

    /// The name of a number.
    pub fn peer_name(&self, node: NodeIndex) -> Option<NodeName> {
        self.peer(node).map(|peer| peer.name)
    }

    /// All nodes known, with whether they can be reached, in the order of their sites.
    pub fn peers(&self) -> Vec<(NodeIndex, Peer, bool)> {
        let peers = self.peers.read();
        let row = |known: &Known| (known.index, known.peer.clone(), known.reachable);
        peers.by_site.values().map(row).collect()
    }
}

impl Peers {
    fn enter(&mut self, peer: &Peer, reachable: bool) -> Option<NodeIndex> {
        let index = (0..NODES_MAX)
            .map(|step| NodeIndex(((self.next + step) % NODES_MAX) as u16))
            .find(|index| !self.by_index.contains_key(index))?;
        self.next = usize::from(index.0) + 1;
        self.by_index.insert(index, peer.site);
        let known = Known {
            index,
            peer: peer.clone(),
            reachable,
            told: None,
        };
        self.by_site.insert(peer.site, known);
        Some(index)
    }
}

/// Sites are random, so their beginnings differ.
fn order(site: SiteId) -> u64 {
    u64::from_be_bytes(*site.0.first_chunk().expect("16 bytes"))
}

fn bit(node: NodeIndex) -> u64 {
    1 << (node.0 % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retained::RETAINED;

    fn shared() -> Shared {
        let table = || Arc::new(Merged::new(RETAINED));
        let clock = Arc::new(Clock::new());
        let tables = (table(), table());
        Shared::new(Settings::default(), 2, clock, tables, SiteId([0; 16]), 1)
    }

    fn peer(n: u8) -> Peer {
        let name = NodeName::parse(&format!("n{n}@127.0.0.1")).expect("a valid name");
        Peer {
            site: SiteId([n; 16]),
            boot: BootId(1),
            name,
        }
    }

    #[test]
    fn a_node_keeps_its_number_while_it_is_known() {
        let shared = shared();
        let a = shared.peer_up(&peer(1));
        let b = shared.peer_up(&peer(2));
        assert_ne!(a, b);
        assert_eq!(shared.live_peers(), 2);
        assert_eq!(shared.peer_down(peer(1).site), Some(a));
        assert_eq!(shared.peer_down(peer(1).site), Some(a));
        assert_eq!((shared.live_peers(), shared.reachable(a)), (1, false));
        assert!(shared.reachable(b));
        assert_eq!(shared.peer_up(&peer(1)), a);
        assert_eq!(shared.peer_up(&peer(1)), a);
        assert_eq!((shared.live_peers(), shared.reachable(a)), (2, true));
        assert_eq!(shared.peer_site(a), Some(peer(1).site));
        assert_eq!(shared.peer_name(b), Some(peer(2).name));
        assert_eq!(shared.peers().len(), 2);
    }

    #[test]
    fn a_member_that_was_never_reached_has_a_number_and_nobody_waits_for_it() {
        let shared = shared();
        let a = shared.peer_known(&peer(1)).expect("there is room");
        assert_eq!((shared.live_peers(), shared.reachable(a)), (0, false));
        assert_eq!(shared.peer_known(&peer(1)), Some(a));
        assert_eq!(shared.peer_up(&peer(1)), a);
        assert_eq!((shared.live_peers(), shared.reachable(a)), (1, true));
        assert_eq!(shared.peer_known(&peer(1)), Some(a));
        assert!(shared.reachable(a), "knowing it changes nothing");
    }

    #[test]
    fn a_number_is_given_back_and_rests() {
        let shared = shared();
        let a = shared.peer_up(&peer(1));
        shared.peer_gone(peer(1).site);
        assert_eq!((shared.live_peers(), shared.reachable(a)), (0, false));
        assert_eq!(shared.peer_index(peer(1).site), None);
        assert_eq!(shared.peer_down(peer(1).site), None);
        assert_ne!(shared.peer_up(&peer(1)), a);
    }

    #[test]
    fn the_table_of_nodes_is_bounded() {
        let shared = shared();
        for n in 0..NODES_MAX {
            let mut site = [0; 16];
            site[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let known = Peer {
                site: SiteId(site),
                ..peer(1)
            };
            assert!(shared.try_peer_up(&known).is_some());
        }
        assert_eq!(
            shared.try_peer_up(&Peer {
                site: SiteId([255; 16]),
                ..peer(1)
            }),
            None
        );
        assert_eq!(shared.live_peers(), NODES_MAX);
    }

    #[test]
    fn shards_and_control_have_counters() {
        let shared = shared();
        assert_eq!(shared.shards(), 2);
        assert_eq!(shared.all_metrics().len(), 3);
    }
}
