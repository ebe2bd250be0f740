//! Node state: what this node tells the others about itself (routes, shared groups, clients,
//! figures), and what they tell.
//!
//! Nothing is kept twice: rows are read from the router and the registry when a peer wants them,
//! and a peer's rows go straight into the same structures. A row is never merged: only its node
//! writes it.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_cluster::{
    BootId, DownReason, Hlc, Input, Now, Peer, SNAPSHOT_CHUNK, SiteId, SnapshotId,
};

use super::{Control, ControlEffects, info};
use crate::effects::ToShard;
use crate::router::{Brought, NodeIndex, Router};

/// Key: filter. Value: empty.
pub(super) const ROUTES: u8 = 0;
/// Key: group, 0, filter. Value: members on that node, u32 big endian.
pub(super) const GROUPS: u8 = 1;
/// Key: client identifier. Value: hybrid clock of its connect, u64 big endian.
pub(super) const CLIENTS: u8 = 2;
/// Key: `node`. Value: [`super::NodeInfo`].
pub(super) const INFO: u8 = 3;
/// Key: client identifier. Value: [`crate::wills::WillRow`].
pub(super) const WILLS: u8 = 4;

/// What a full snapshot has brought so far; what it did not bring is gone afterwards.
#[derive(Debug)]
pub(super) struct Snapshot {
    boot: BootId,
    routes: Brought,
    groups: BTreeSet<Bytes>,
    clients: BTreeSet<Bytes>,
    wills: BTreeSet<Bytes>,
}

impl Snapshot {
    fn of(boot: BootId) -> Self {
        Self {
            boot,
            routes: Brought::default(),
            groups: BTreeSet::new(),
            clients: BTreeSet::new(),
            wills: BTreeSet::new(),
        }
    }
}

impl Control {
    /// Looks at the router and tells the members what it says about a filter.
    pub(super) fn route_changed(&mut self, now: Now, filter: Bytes, fx: &mut ControlEffects) {
        let Ok(text) = std::str::from_utf8(&filter) else {
            return;
        };
        let value = self.shared.router().read().has_local(text).then(Bytes::new);
        self.cluster(
            now,
            Input::Own {
                table: ROUTES,
                key: filter,
                value,
            },
            fx,
        );
    }

    /// Looks at the router and tells the members how many of a group are here.
    pub(super) fn group_changed(
        &mut self,
        now: Now,
        group: &Bytes,
        filter: &Bytes,
        fx: &mut ControlEffects,
    ) {
        let (Ok(name), Ok(text)) = (std::str::from_utf8(group), std::str::from_utf8(filter)) else {
            return;
        };
        let count = self.shared.router().read().local_group_count(name, text);
        let value = (count > 0).then(|| Bytes::copy_from_slice(&(count as u32).to_be_bytes()));
        let key = group_key(name, text);
        self.cluster(
            now,
            Input::Own {
                table: GROUPS,
                key,
                value,
            },
            fx,
        );
    }

    /// Looks at the registry and tells the members whether the client is here.
    pub(super) fn client_changed(&mut self, now: Now, clientid: &str, fx: &mut ControlEffects) {
        let stamp = self.shared.registry().local_stamp(clientid);
        let value = stamp.map(|hlc| Bytes::copy_from_slice(&hlc.0.to_be_bytes()));
        let key = Bytes::copy_from_slice(clientid.as_bytes());
        self.cluster(
            now,
            Input::Own {
                table: CLIENTS,
                key,
                value,
            },
            fx,
        );
    }

    /// Looks at the wills and tells the members about the client's.
    pub(super) fn will_changed(&mut self, now: Now, clientid: &str, fx: &mut ControlEffects) {
        let value = self.shared.wills().row(clientid);
        let key = Bytes::copy_from_slice(clientid.as_bytes());
        let table = WILLS;
        self.cluster(now, Input::Own { table, key, value }, fx);
    }

    /// Reads the next rows of our own state for a peer that needs all of it.
    pub(super) fn snapshot(
        &mut self,
        now: Now,
        want: SnapshotId,
        cursor: Option<(u8, Bytes)>,
        fx: &mut ControlEffects,
    ) {
        // Before the rows are read: what changes from here on is told.
        self.shared.follow();
        let rows = self.rows_after(cursor);
        let done = rows.len() < SNAPSHOT_CHUNK;
        self.cluster(now, Input::SnapshotRows { want, rows, done }, fx);
    }

    /// Own rows after a cursor, in (table, key) order, at most one chunk.
    fn rows_after(&self, cursor: Option<(u8, Bytes)>) -> Vec<(u8, Bytes, Bytes)> {
        let mut rows = Vec::new();
        let (from, after) = cursor.map_or((ROUTES, None), |(table, key)| (table, Some(key)));
        for table in from..=WILLS {
            let after = if table == from {
                after.as_deref()
            } else {
                None
            };
            let left = SNAPSHOT_CHUNK - rows.len();
            match table {
                ROUTES => rows.extend(self.own_routes(after, left)),
                GROUPS => rows.extend(self.own_groups(after, left)),
                CLIENTS => rows.extend(self.own_clients(after, left)),
                INFO if after.is_none() && left > 0 => rows.push(self.info_row()),
                WILLS => rows.extend(self.own_wills(after, left)),
                _ => {}
            }
            if rows.len() == SNAPSHOT_CHUNK {
                break;
            }
        }
        rows
    }

    fn own_routes(&self, after: Option<&[u8]>, limit: usize) -> Vec<(u8, Bytes, Bytes)> {
        let after = after.and_then(|key| std::str::from_utf8(key).ok());
        let routes = self.shared.router().read().own_routes(after, limit);
        let row = |filter: String| (ROUTES, Bytes::from(filter.into_bytes()), Bytes::new());
        routes.into_iter().map(row).collect()
    }

    fn own_groups(&self, after: Option<&[u8]>, limit: usize) -> Vec<(u8, Bytes, Bytes)> {
        let after = after.and_then(group_of_key);
        let groups = self.shared.router().read().own_groups(after, limit);
        let row = |(group, filter, count): (String, String, usize)| {
            let value = Bytes::copy_from_slice(&(count as u32).to_be_bytes());
            (GROUPS, group_key(&group, &filter), value)
        };
        groups.into_iter().map(row).collect()
    }

    fn own_clients(&self, after: Option<&[u8]>, limit: usize) -> Vec<(u8, Bytes, Bytes)> {
        let after = after.and_then(|key| std::str::from_utf8(key).ok());
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let clients = self.shared.registry().own_clients(from, limit);
        let row = |(clientid, hlc): (String, Hlc)| {
            let value = Bytes::copy_from_slice(&hlc.0.to_be_bytes());
            (CLIENTS, Bytes::from(clientid.into_bytes()), value)
        };
        clients.into_iter().map(row).collect()
    }

    fn own_wills(&self, after: Option<&[u8]>, limit: usize) -> Vec<(u8, Bytes, Bytes)> {
        let after = after.and_then(|key| std::str::from_utf8(key).ok());
        let rows = self.shared.wills().rows(after, limit).into_iter();
        rows.map(|(id, row)| (WILLS, Bytes::from(id.into_bytes()), row))
            .collect()
    }

    /// A member can be reached.
    pub(super) fn peer_up(&mut self, now: Now, peer: &Peer, fx: &mut ControlEffects) {
        tracing::info!(node = %peer.name, "peer_up");
        let node = self.shared.peer_up(peer);
        let (host, port) = (peer.name.host().to_owned(), peer.name.port());
        self.all_shards(fx, || ToShard::PeerUp {
            peer: peer.clone(),
            node,
            host: host.clone(),
            port,
        });
        let spent = self.wills.up(now, peer);
        self.tell_spent(now, peer.site, &spent, fx);
    }

    /// A member cannot be reached: what it said stays known, but nobody waits for it.
    pub(super) fn peer_down(
        &mut self,
        now: Now,
        site: SiteId,
        reason: DownReason,
        fx: &mut ControlEffects,
    ) {
        self.wills.down(now, site, reason);
        let Some(node) = self.shared.peer_down(site) else {
            return;
        };
        tracing::warn!(%site, ?reason, "peer_down");
        self.all_shards(fx, || ToShard::PeerDown { node, reason });
        if self.shared.live_peers() == 0 {
            self.settled(self.cluster.own_number(), fx);
        }
    }

    /// A site is no member any more: everything it said goes.
    pub(super) fn peer_gone(&mut self, site: SiteId, fx: &mut ControlEffects) {
        self.infos.remove(&site);
        self.snapshots.remove(&site);
        self.wills.gone(site);
        let Some(node) = self.shared.peer_index(site) else {
            return;
        };
        tracing::info!(%site, "peer_gone");
        self.shared.router().write().remove_node(node);
        self.shared.registry().remove_node(node);
        self.shared.peer_gone(site);
        self.all_shards(fx, || ToShard::PeerGone { site, node });
    }

    pub(super) fn snapshot_begins(&mut self, now: Now, site: SiteId, boot: BootId) {
        self.wills.begins(now, site, boot);
        self.snapshots.insert(site, Snapshot::of(boot));
    }

    /// The number of a member. Its rows may arrive before it counts as up (it has restarted, and
    /// the others have not said yet that it lives): they come once, so they are taken.
    fn member_index(&self, site: SiteId) -> Option<NodeIndex> {
        let known = self.shared.peer_index(site);
        known.or_else(|| {
            let members = self.cluster.status().members;
            let member = members.into_iter().find(|member| member.site == site)?;
            // Its life is told with `Up`.
            let boot = BootId(0);
            let name = member.name;
            self.shared.peer_known(&Peer { site, boot, name })
        })
    }

    /// One row of a peer's state.
    pub(super) fn peer_row(
        &mut self,
        site: SiteId,
        table: u8,
        (key, value): (Bytes, Option<&[u8]>),
        fx: &mut ControlEffects,
    ) {
        let Some(node) = self.member_index(site) else {
            return;
        };
        let snapshot = self.snapshots.get_mut(&site);
        match table {
            ROUTES => {
                let brought = snapshot.map(|snapshot| &mut snapshot.routes);
                let mut router = self.shared.router().write();
                return peer_route(&mut router, node, &key, value.is_some(), brought);
            }
            GROUPS => self.peer_group(node, &key, value),
            CLIENTS => self.peer_client((node, site), &key, value, fx),
            WILLS => self.peer_will(site, &key, value),
            INFO => match value.and_then(info::decode) {
                Some(info) => _ = self.infos.insert(site, info),
                None => _ = self.infos.remove(&site),
            },
            // A newer release has a table more; what it is for, this release does not do.
            _ => return self.note_later(site, "table of node state", u32::from(table)),
        }
        let Some(snapshot) = self.snapshots.get_mut(&site) else {
            return;
        };
        let seen = match table {
            GROUPS => &mut snapshot.groups,
            CLIENTS => &mut snapshot.clients,
            WILLS => &mut snapshot.wills,
            _ => return,
        };
        if value.is_some() {
            seen.insert(key);
        } else {
            seen.remove(&key);
        }
    }

    fn peer_will(&mut self, site: SiteId, key: &[u8], value: Option<&[u8]>) {
        if let Ok(clientid) = std::str::from_utf8(key) {
            self.wills.row(site, clientid, value);
        }
    }

    fn peer_group(&self, node: NodeIndex, key: &[u8], value: Option<&[u8]>) {
        let Some((group, filter)) = group_of_key(key) else {
            return;
        };
        let count = value
            .and_then(|v| v.try_into().ok())
            .map_or(0, u32::from_be_bytes);
        self.shared
            .router()
            .write()
            .set_remote_group(group, filter, node, count);
    }

    /// A client is connected to a peer: if an older connection of it is here, that one goes.
    fn peer_client(
        &self,
        (node, site): (NodeIndex, SiteId),
        key: &[u8],
        value: Option<&[u8]>,
        fx: &mut ControlEffects,
    ) {
        let Ok(clientid) = std::str::from_utf8(key) else {
            return;
        };
        let Some(hlc) = value
            .and_then(|v| v.try_into().ok())
            .map(u64::from_be_bytes)
            .map(Hlc)
        else {
            return self.shared.registry().remote_remove(clientid, node);
        };
        if let Some(shard) = self.shared.client_elsewhere(clientid, (node, site), hlc) {
            let letter = ToShard::Elsewhere {
                clientid: clientid.to_owned(),
                newer: hlc,
            };
            fx.to_shard.push((shard, letter));
        }
    }

    pub(super) fn snapshot_ends(&mut self, now: Now, site: SiteId) {
        let Some(snapshot) = self.snapshots.remove(&site) else {
            return;
        };
        let keep = |clientid: &str| snapshot.wills.contains(clientid.as_bytes());
        self.wills.ends(now, site, keep);
        let Some(node) = self.shared.peer_index(site) else {
            return;
        };
        let mut router = self.shared.router().write();
        router.sweep_remote(node, &snapshot.routes);
        router.sweep_remote_groups(node, |group, filter| {
            snapshot.groups.contains(&group_key(group, filter))
        });
        drop(router);
        let keep = |clientid: &str| snapshot.clients.contains(clientid.as_bytes());
        self.shared.registry().sweep_remote(node, keep);
        self.shared.peer_told(site, snapshot.boot);
    }
}

fn peer_route(
    router: &mut Router,
    node: NodeIndex,
    key: &[u8],
    there: bool,
    brought: Option<&mut Brought>,
) {
    let Ok(filter) = std::str::from_utf8(key) else {
        return;
    };
    _ = match (there, brought) {
        (true, None) => router.add_remote(filter, node),
        (true, Some(brought)) => router.bring_remote(filter, node, brought),
        (false, None) => router.remove_remote(filter, node),
        (false, Some(brought)) => router.withdraw_remote(filter, node, brought),
    };
}

/// `group`, 0, `filter`: neither may contain the character U+0000.
fn group_key(group: &str, filter: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(group.len() + 1 + filter.len());
    key.put_slice(group.as_bytes());
    key.put_u8(0);
    key.put_slice(filter.as_bytes());
    key.freeze()
}

fn group_of_key(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('\0')
}
