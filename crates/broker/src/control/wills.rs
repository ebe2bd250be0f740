//! The wills of other nodes' clients, and who publishes them when their node is dead.
//!
//! Every member keeps every other member's wills as rows of node state. What a node that went down
//! leaves behind are *orphans*, each with the time it is due:
//!
//! | what is known of the node | due |
//! |---|---|
//! | its process is gone, its port refuses | its will delay after that |
//! | it runs again as another process | the same, once that has told all ([`HEIR_MAX_MS`]) |
//! | silent: its host is dead, or only cut off | a minute ([`SILENT_GRACE_MS`]) later than that |
//! | others still reach it, or it left | never: it is alive |
//!
//! When one is due the member with the lowest site publishes it and tells the others, who forget
//! it; each next one would do so [`RANK_STEP_MS`] later. A client that has connected anywhere since
//! cancels its will. When the link to the same process returns, nothing was published or the node
//! is told what was, and does not publish that again.
//!
//! So a will is published once by each part of a cluster whose part with the client's node is gone
//! for good or for long, and never because of a shorter split. It is a pure table: control asks it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dunlin_cluster::{BootId, DownReason, Hlc, Input, Now, Peer, SiteId};
use serde::{Deserialize, Serialize};

use super::{Control, ControlEffects};
use crate::access::{Access, Action, Identity, Verdict};
use crate::effects::{ShardId, ToShard};
use crate::registry::Place;
use crate::shared::Shared;
use crate::wills::WillRow;

/// How long a silent node may be merely cut off, ms. A minute is what MQTT clients commonly give
/// themselves as keepalive, so a will comes no later than if its client had fallen silent itself.
pub(super) const SILENT_GRACE_MS: u64 = 60_000;

/// How much later the next member publishes what nobody has said was published, ms: more than a
/// round trip with a busy node in it.
const RANK_STEP_MS: u64 = 2_000;

/// How long a node that runs as another process may take to say which clients it has, ms: one that
/// left and came back has kept its own. A link to it is there by then; it is many times what the
/// rows of 100,000 clients take.
const HEIR_MAX_MS: u64 = 5_000;

/// How long it may be open whether a session that another node was getting has arrived there with
/// its will, ms: above what a takeover may take (15 s).
const MOVING_MAX_MS: u64 = 20_000;

/// Wills published in one step, and the pause between two steps, ms: a node with 100,000 clients
/// may die, and its wills must not hold up the survivors' clients.
const STEP: usize = 500;
const STEP_PAUSE_MS: u64 = 50;

/// Published wills remembered for one node that may come back, and told to it then. Past it the
/// oldest are forgotten: they may be published twice.
const SPENT_MAX: usize = 100_000;
/// Published wills told in one notice: at some 60 bytes each, far below what one may carry.
const NOTICE_MAX: usize = 1_000;

/// A will that was published in place of its node, or that its node has taken along as it left.
/// Travels between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spent {
    /// The node it was left with.
    site: SiteId,
    /// Which life of it.
    boot: BootId,
    clientid: String,
    /// When the client connected there.
    stamp: u64,
}

impl Spent {
    fn of((site, clientid): OrphanKey, boot: BootId, stamp: Hlc) -> Self {
        Self {
            site,
            boot,
            clientid,
            stamp: stamp.0,
        }
    }

    #[cfg(test)]
    pub(super) fn sample() -> Self {
        Self {
            site: SiteId([0xab; 16]),
            boot: BootId(300),
            clientid: "client".to_owned(),
            stamp: 0x0123_4567,
        }
    }
}

/// A will that is to be published now.
#[derive(Debug)]
pub(super) struct Due {
    spent: Spent,
    row: WillRow,
}

#[derive(Debug)]
struct NodeWills {
    boot: BootId,
    /// The snapshot of this life is complete.
    whole: bool,
    rows: BTreeMap<String, Bytes>,
}

#[derive(Debug)]
struct Orphan {
    boot: BootId,
    due_ms: u64,
    /// Its turn has been put off for the members before this one.
    ranked: bool,
    /// It has been put off because another node was getting the session.
    moving: bool,
    /// Its node is only silent, so it may be alive.
    silent: bool,
    /// Until when its node's next process is awaited to say whether it has the client, mono ms; 0
    /// if there is none.
    heir_by_ms: u64,
    /// It has been put off until then.
    held: bool,
    row: Bytes,
}

/// What is known of a node that went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Nothing for certain.
    Silent,
    /// Its process is gone.
    Certain,
    /// Its process is gone or has changed its cluster, and another life of it is there.
    Succeeded,
}

type OrphanKey = (SiteId, String);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PeerWills {
    nodes: BTreeMap<SiteId, NodeWills>,
    orphans: BTreeMap<OrphanKey, Orphan>,
    /// The same by time.
    due: BTreeSet<(u64, OrphanKey)>,
    spent: BTreeMap<SiteId, Vec<Spent>>,
    /// Not before this time, mono ms.
    pause_until_ms: u64,
}

impl PeerWills {
    /// A snapshot of a node's rows begins. Those of another life of it are a dead process's.
    pub(super) fn begins(&mut self, now: Now, site: SiteId, boot: BootId) {
        let fresh = NodeWills {
            boot,
            whole: false,
            rows: BTreeMap::new(),
        };
        match self.nodes.get_mut(&site) {
            Some(known) if known.boot == boot => known.whole = false,
            _ => {
                if let Some(dead) = self.nodes.insert(site, fresh) {
                    self.spent.remove(&site);
                    for (clientid, row) in dead.rows {
                        self.orphan(now, (site, clientid), dead.boot, row, Death::Succeeded);
                    }
                }
            }
        }
    }

    /// A row of a node.
    pub(super) fn row(&mut self, site: SiteId, clientid: &str, value: Option<&[u8]>) {
        let Some(node) = self.nodes.get_mut(&site) else {
            return;
        };
        // A copy, because the row would hold the whole frame it came in.
        match value.map(Bytes::copy_from_slice) {
            Some(row) => _ = node.rows.insert(clientid.to_owned(), row),
            None => _ = node.rows.remove(clientid),
        }
    }

    /// A snapshot has brought everything there is.
    pub(super) fn ends(&mut self, now: Now, site: SiteId, keep: impl Fn(&str) -> bool) {
        if let Some(node) = self.nodes.get_mut(&site) {
            node.rows.retain(|clientid, _| keep(clientid));
            node.whole = true;
        }
        self.heard_heir(now, site);
    }

    /// The next process of a node may have said everything: who waited for that is decided on.
    fn heard_heir(&mut self, now: Now, site: SiteId) {
        let of_it = self.orphans.range((site, String::new())..);
        let of_it = of_it.take_while(|((of, _), _)| *of == site);
        let held = of_it.filter(|(_, orphan)| orphan.held);
        let held: Vec<_> = held.map(|(key, _)| key.clone()).collect();
        for key in held {
            if let Some(orphan) = self.forget(&key) {
                let held = false;
                self.put_off(key, now.mono_ms, Orphan { held, ..orphan });
            }
        }
    }

    /// The next process of a node is gone as well: nobody waits for what it has to say.
    fn lost_heir(&mut self, now: Now, site: SiteId) {
        let of_it = self.orphans.range_mut((site, String::new())..);
        let of_it = of_it.take_while(|((of, _), _)| *of == site);
        for (_, orphan) in of_it {
            orphan.heir_by_ms = 0;
        }
        self.heard_heir(now, site);
    }

    /// A node cannot be reached.
    pub(super) fn down(&mut self, now: Now, site: SiteId, reason: DownReason) {
        let death = match reason {
            DownReason::Refused => Death::Certain,
            DownReason::Restarted => Death::Succeeded,
            DownReason::Silent => Death::Silent,
            // It runs, and so may its clients.
            DownReason::Unlinked | DownReason::HeldApart => return,
        };
        if death == Death::Certain {
            self.lost_heir(now, site);
        }
        let Some(node) = self.nodes.get(&site) else {
            return;
        };
        let boot = node.boot;
        let rows: Vec<_> = node
            .rows
            .iter()
            .map(|(clientid, row)| (clientid.clone(), row.clone()))
            .collect();
        for (clientid, row) in rows {
            self.orphan(now, (site, clientid), boot, row, death);
        }
    }

    fn orphan(&mut self, now: Now, key: OrphanKey, boot: BootId, row: Bytes, death: Death) {
        let Some(will) = WillRow::decode(&row) else {
            tracing::warn!(clientid = %key.1, "will_of_dead_node_unreadable");
            return;
        };
        let (grace_ms, mut heir_by_ms) = match death {
            Death::Silent => (SILENT_GRACE_MS, 0),
            Death::Certain => (0, 0),
            Death::Succeeded => (0, now.mono_ms + HEIR_MAX_MS),
        };
        let mut due_ms = now.mono_ms + grace_ms + will.delay_ms(now);
        let mut silent = death == Death::Silent;
        if let Some(known) = self.orphans.get(&key).filter(|known| known.boot == boot) {
            // What is known of its node only gets more certain.
            due_ms = due_ms.min(known.due_ms);
            silent &= known.silent;
            if known.heir_by_ms > 0 {
                heir_by_ms = heir_by_ms.min(known.heir_by_ms);
            }
        }
        self.forget(&key);
        self.due.insert((due_ms, key.clone()));
        let (ranked, moving, held) = (false, false, false);
        let orphan = Orphan {
            boot,
            due_ms,
            ranked,
            moving,
            silent,
            heir_by_ms,
            held,
            row,
        };
        self.orphans.insert(key, orphan);
    }

    fn forget(&mut self, key: &OrphanKey) -> Option<Orphan> {
        let orphan = self.orphans.remove(key)?;
        self.due.remove(&(orphan.due_ms, key.clone()));
        Some(orphan)
    }

    /// A node can be reached. If it is the same process, it was never dead: its wills are its own
    /// again, but for those returned here, which it must not publish.
    pub(super) fn up(&mut self, now: Now, peer: &Peer) -> Vec<Spent> {
        self.heard_heir(now, peer.site);
        let of_it = |key: &&OrphanKey| key.0 == peer.site;
        let orphans = self.orphans.iter();
        let alive: Vec<_> = orphans
            .filter(|(_, orphan)| orphan.boot == peer.boot)
            .map(|(key, _)| key)
            .filter(of_it)
            .cloned()
            .collect();
        for key in alive {
            self.forget(&key);
        }
        let spent = self.spent.remove(&peer.site).unwrap_or_default();
        spent.into_iter().filter(|s| s.boot == peer.boot).collect()
    }

    /// A site has left by itself, so it was alive when it was silent, and its clients are with it.
    /// Returns what nobody is to publish therefore.
    pub(super) fn left(&mut self, site: SiteId) -> Vec<Spent> {
        let orphans = self.orphans.iter();
        let presumed = orphans.filter(|((of, _), orphan)| *of == site && orphan.silent);
        let alive: Vec<_> = presumed.map(|(key, _)| key.clone()).collect();
        let orphans = alive.into_iter().filter_map(|key| {
            let orphan = self.forget(&key)?;
            let stamp = WillRow::decode(&orphan.row)?.stamp();
            Some(Spent::of(key, orphan.boot, stamp))
        });
        orphans.collect()
    }

    /// A site is no member any more. If it could be reached until now, it has left, and its clients
    /// are still there; what it left behind earlier stays due.
    pub(super) fn gone(&mut self, site: SiteId) {
        self.nodes.remove(&site);
        self.spent.remove(&site);
    }

    /// This node has changed its cluster.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Another member has published a will, or knows that its node has taken it along.
    pub(super) fn published(&mut self, spent: &Spent) {
        let key = (spent.site, spent.clientid.clone());
        let same = |orphan: &Orphan| orphan.boot == spent.boot;
        if self.orphans.get(&key).is_some_and(same) {
            self.forget(&key);
        }
        self.strike(&key, spent.boot, Hlc(spent.stamp));
    }

    /// Nobody is to publish this will any more, also not when its node runs again as another
    /// process, which makes orphans of the rows that the dead one left.
    fn strike(&mut self, (site, clientid): &OrphanKey, boot: BootId, stamp: Hlc) {
        let Some(node) = self.nodes.get_mut(site).filter(|node| node.boot == boot) else {
            return;
        };
        let row = node.rows.get(clientid).and_then(|row| WillRow::decode(row));
        if row.is_some_and(|row| row.stamp() <= stamp) {
            node.rows.remove(clientid);
        }
    }

    /// When something is due, mono ms; `u64::MAX` never.
    pub(super) fn next_tick(&self) -> u64 {
        let next = self.due.first();
        next.map_or(u64::MAX, |(due, _)| (*due).max(self.pause_until_ms))
    }

    /// What this node has to publish now.
    pub(super) fn due(&mut self, now: Now, shared: &Shared) -> Vec<Due> {
        let mut due = Vec::new();
        if now.mono_ms < self.pause_until_ms {
            return due;
        }
        for _ in 0..STEP {
            let Some((at, key)) = self.due.first().cloned() else {
                break;
            };
            if at > now.mono_ms {
                break;
            }
            due.extend(self.settle(now, key, shared));
        }
        self.pause_until_ms = now.mono_ms + STEP_PAUSE_MS;
        due
    }

    /// Decides about one orphan whose time has come.
    fn settle(&mut self, now: Now, key: OrphanKey, shared: &Shared) -> Option<Due> {
        let orphan = self.forget(&key)?;
        let row = WillRow::decode(&orphan.row)?;
        if orphan.heir_by_ms > now.mono_ms && !self.has_heir_spoken(key.0, orphan.boot, shared) {
            let held = true;
            self.put_off(key, orphan.heir_by_ms, Orphan { held, ..orphan });
            return None;
        }
        let has_moved = has_moved(&key, row.stamp(), shared);
        if has_moved && !orphan.moving {
            let moving = true;
            let due_ms = now.mono_ms + MOVING_MAX_MS;
            self.put_off(key, due_ms, Orphan { moving, ..orphan });
            return None;
        }
        if has_moved || self.is_alive(&key, &orphan, row.stamp(), shared) {
            self.strike(&key, orphan.boot, row.stamp());
            return None;
        }
        let rank = rank(key.0, shared);
        if rank > 0 && !orphan.ranked {
            let ranked = true;
            let due_ms = now.mono_ms + rank * RANK_STEP_MS;
            self.put_off(key, due_ms, Orphan { ranked, ..orphan });
            return None;
        }
        self.strike(&key, orphan.boot, row.stamp());
        let spent = Spent::of(key, orphan.boot, row.stamp());
        let remembered = self.spent.entry(spent.site).or_default();
        if remembered.len() >= SPENT_MAX {
            remembered.remove(0);
        }
        remembered.push(spent.clone());
        Some(Due { spent, row })
    }

    fn put_off(&mut self, key: OrphanKey, due_ms: u64, orphan: Orphan) {
        self.due.insert((due_ms, key.clone()));
        self.orphans.insert(key, Orphan { due_ms, ..orphan });
    }

    /// Whether a node that was another process has told everything as the one that it is now.
    fn has_heir_spoken(&self, site: SiteId, dead: BootId, shared: &Shared) -> bool {
        let known = self.nodes.get(&site);
        let told = known.is_some_and(|known| known.whole && known.boot != dead);
        let index = shared.peer_index(site);
        told && index.is_some_and(|node| shared.reachable(node))
    }

    /// Whether the client has connected since, or its connection has outlived what looked like the
    /// death of its node: a process that joined a cluster anew keeps its clients.
    fn is_alive(&self, key: &OrphanKey, orphan: &Orphan, stamp: Hlc, shared: &Shared) -> bool {
        let Some(place) = shared.registry().lookup(&key.1) else {
            return false;
        };
        let Place::Remote { node, hlc } = place else {
            return place.hlc() > stamp;
        };
        let outlived = || {
            let there = shared.peer_index(key.0) == Some(node);
            there && self.has_heir_spoken(key.0, orphan.boot, shared)
        };
        hlc > stamp || hlc == stamp && outlived()
    }
}

/// Whether another node has, or is just getting, the session without its client: with the stamp of
/// its connection it takes the will along. The dead node may not have had the time to say so.
fn has_moved(key: &OrphanKey, stamp: Hlc, shared: &Shared) -> bool {
    match shared.registry().lookup(&key.1) {
        Some(Place::Local { hlc, .. }) => hlc == stamp,
        Some(Place::Remote { node, hlc }) => {
            let other = shared.peer_index(key.0) != Some(node);
            hlc == stamp && other && shared.reachable(node)
        }
        None => false,
    }
}

/// How many members that can be reached come before this one in taking over a node's wills.
fn rank(owner: SiteId, shared: &Shared) -> u64 {
    let own = shared.site();
    let before = |site: SiteId| site != owner && site < own;
    let peers = shared.peers();
    let before = peers
        .iter()
        .filter(|(_, peer, up)| *up && before(peer.site));
    before.count() as u64
}

impl Control {
    /// Publishes the wills of dead nodes that are due here, and tells the others.
    pub(super) fn publish_wills(&mut self, now: Now, fx: &mut ControlEffects) {
        let due = self.wills.due(now, &self.shared);
        if due.is_empty() {
            return;
        }
        let wills = due.len();
        tracing::info!(wills, "wills_of_dead_nodes_published");
        let access = self.shared.access();
        let shards = u64::from(self.shared.shards().max(1));
        let mut told = Vec::with_capacity(wills);
        for (n, Due { spent, row }) in due.into_iter().enumerate() {
            let clientid = &spent.clientid;
            let allowed = row.superuser || may_publish(now, &access, clientid, &row);
            if allowed {
                let shard = (n as u64 % shards) as ShardId;
                let message = row.message(now, clientid);
                let ask = None;
                let letter = ToShard::Publish { message, ask };
                fx.to_shard.push((shard, letter));
            } else {
                tracing::warn!(%clientid, "will_of_dead_node_not_authorized");
            }
            told.push(spent);
        }
        self.tell_all_spent(now, &told, fx);
    }

    /// A member has left by itself.
    pub(super) fn wills_left(&mut self, now: Now, site: SiteId, fx: &mut ControlEffects) {
        let taken_along = self.wills.left(site);
        self.tell_all_spent(now, &taken_along, fx);
    }

    fn tell_all_spent(&mut self, now: Now, spent: &[Spent], fx: &mut ControlEffects) {
        let peers = self.shared.peers().into_iter();
        let reachable = peers.filter(|(_, _, up)| *up).map(|(_, peer, _)| peer.site);
        for site in reachable {
            self.tell_spent(now, site, spent, fx);
        }
    }

    pub(super) fn tell_spent(
        &mut self,
        now: Now,
        to: SiteId,
        spent: &[Spent],
        fx: &mut ControlEffects,
    ) {
        for some in spent.chunks(NOTICE_MAX) {
            let payload = super::calls::wills_notice(some);
            self.cluster(now, Input::Cast { to, payload }, fx);
        }
    }

    /// Another member says which wills it has published.
    pub(super) fn wills_spent(&mut self, spent: Vec<Spent>, fx: &mut ControlEffects) {
        for spent in spent {
            if spent.site != self.shared.site() {
                self.wills.published(&spent);
            } else if let Some(shard) = self.shared.registry().local_shard(&spent.clientid) {
                let letter = ToShard::WillSpent {
                    clientid: spent.clientid,
                    stamp: Hlc(spent.stamp),
                };
                fx.to_shard.push((shard, letter));
            }
        }
    }
}

fn may_publish(now: Now, access: &Access, clientid: &str, row: &WillRow) -> bool {
    let Some(authorizer) = &access.authorizer else {
        return true;
    };
    let who = Identity {
        clientid,
        username: row.username(),
        peer: row.peer,
        listener: &row.listener,
        cert: None,
    };
    let message = row.message(now, clientid);
    let action = Action::Publish {
        qos: message.qos().as_u8(),
        retain: message.retain(),
    };
    authorizer.authorize(&who, action, row.unmounted_topic()) == Verdict::Allow
}

#[cfg(test)]
mod tests;
