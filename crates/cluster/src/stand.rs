//! Standing alone: leaving, being removed, and the swap of all tables that a join shares with them.
//!
//! ```text
//!   leave:    Archive -> Tell -> Swap        removed by others:    Archive -> Swap
//! ```
//! The swap is one batch on disk; memory follows when it is durable. Until then the old cluster
//! state stands, afterwards the new one; a crash finds one of them.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use crate::failure::{Failure, SwimId};
use crate::identity::{BootId, ClusterId, SiteId};
use crate::input::{ConnId, Effect, Write};
use crate::membership::{Member, Membership, member_key};
use crate::node::Cluster;
use crate::restore;
use crate::sync::put;
use crate::table::merged::{MEMBERS, Merged, Row, TableId};
use crate::wire::{Message, WireRow};

/// How long the members may take to hear that this node leaves, milliseconds; one that does not
/// hears it from the others, or from this node's other cluster id.
const TELL_MAX_MS: u64 = 1_000;

/// This node is becoming a cluster of its own.
#[derive(Debug)]
pub(crate) struct Standing {
    phase: Phase,
    /// Whether others removed us: they know already.
    expelled: bool,
}

#[derive(Debug)]
enum Phase {
    Archive { token: u64 },
    Tell(Telling),
    Swap,
}

impl Standing {
    pub(crate) fn is_departing(&self) -> bool {
        self.expelled || !matches!(self.phase, Phase::Archive { .. })
    }
}

/// The members that still have to hear that this node leaves.
#[derive(Debug)]
pub(crate) struct Telling {
    sites: BTreeSet<SiteId>,
    pub(crate) deadline_ms: u64,
}

/// All tables are being replaced.
#[derive(Debug)]
pub(crate) struct Swap {
    token: u64,
    cluster: ClusterId,
    tables: BTreeMap<TableId, Merged>,
}

impl Cluster {
    /// Begins to leave.
    pub(crate) fn stand_alone(&mut self) {
        let token = self.archive();
        let phase = Phase::Archive { token };
        self.operations.standing = Some(Standing {
            phase,
            expelled: false,
        });
    }

    /// The member table says that this node was removed.
    pub(crate) fn expelled(&mut self) {
        let busy = self.operations.standing.is_some() || self.operations.is_swapping();
        if busy || self.operations.is_joining() {
            return;
        }
        tracing::warn!("removed_from_cluster: this node was force-left and stands alone");
        self.tell_removed(self.own.site);
        // A node that was sent away while the others had it stays away. One that comes back and
        // hears that it was removed meanwhile follows its strategy.
        if self.neighbours.values().any(|n| n.up) {
            self.discovery.switch_off();
        }
        let token = self.archive();
        let phase = Phase::Archive { token };
        self.operations.standing = Some(Standing {
            phase,
            expelled: true,
        });
        let sites: Vec<_> = self.neighbours.keys().copied().collect();
        for site in sites {
            self.remove_neighbour(site);
        }
    }

    pub(crate) fn stand_archived(&mut self, token: u64, result: Result<String, String>) {
        let Some(standing) = &self.operations.standing else {
            return;
        };
        if !matches!(standing.phase, Phase::Archive { token: waited } if waited == token) {
            return;
        }
        let expelled = standing.expelled;
        match result {
            Ok(path) => tracing::info!(path, "cluster_state_archived"),
            // A removed node cannot stay; its rows are still on the other members.
            Err(error) if expelled => tracing::error!(error, "archive_failed"),
            Err(error) => {
                self.operations.standing = None;
                self.leave_failed(error);
                return;
            }
        }
        if expelled {
            self.stand_swap();
        } else {
            let telling = self.tell_leaving();
            self.stand_phase(Phase::Tell(telling));
        }
    }

    fn stand_phase(&mut self, phase: Phase) {
        if let Some(standing) = &mut self.operations.standing {
            standing.phase = phase;
        }
    }

    /// Tells every member that this node is going; its own tables do not say so, for until the swap
    /// it is still what it was.
    pub(crate) fn tell_leaving(&mut self) -> Telling {
        let version = self.member(self.own.site).map_or(1, |own| own.version) + 1;
        let gone = Member {
            name: self.own.name.clone(),
            state: Membership::Gone,
            version,
        };
        let row = Row::new(self.stamp(), Some(gone.encode()));
        let rows = vec![WireRow {
            key: member_key(self.own.site),
            row,
        }];
        let message = Message::Rows {
            table: MEMBERS,
            rows,
        };
        let linked = self.neighbours.iter().filter(|(_, n)| n.conn.is_some());
        let sites: BTreeSet<_> = linked.map(|(site, _)| *site).collect();
        for site in &sites {
            self.send(*site, &message);
        }
        Telling {
            sites,
            deadline_ms: self.now.mono_ms + TELL_MAX_MS,
        }
    }

    /// Whether everybody told has taken it (or hung up, which is the same), or time is over.
    pub(crate) fn is_told(&self, telling: &Telling) -> bool {
        let waits = |site: &SiteId| {
            let neighbour = self.neighbours.get(site);
            neighbour.is_some_and(|n| n.conn.is_some() && n.link.sender.unacked() > 0)
        };
        telling.deadline_ms <= self.now.mono_ms || !telling.sites.iter().any(waits)
    }

    pub(crate) fn standing_next_tick(&self) -> u64 {
        match &self.operations.standing {
            Some(Standing {
                phase: Phase::Tell(telling),
                ..
            }) => telling.deadline_ms,
            _ => u64::MAX,
        }
    }

    pub(crate) fn standing_tick(&mut self) {
        if let Some(Standing {
            phase: Phase::Tell(telling),
            ..
        }) = &self.operations.standing
            && self.is_told(telling)
        {
            self.stand_swap();
        }
    }

    /// A cluster of one: credentials and the like stay, everything else goes.
    fn stand_swap(&mut self) {
        self.stand_phase(Phase::Swap);
        let version = self.member(self.own.site).map_or(1, |own| own.version) + 1;
        let own = Member {
            name: self.own.name.clone(),
            state: Membership::Member,
            version,
        };
        let row = Row::new(self.stamp(), Some(own.encode()));
        let key = member_key(self.own.site);
        let (mut tables, mut writes) = (BTreeMap::new(), Vec::new());
        for table in self
            .tables
            .values()
            .filter(|table| !table.spec().keep_on_leave)
        {
            tables.insert(table.spec().id, Merged::new(*table.spec()));
            writes.push(Write::Clear {
                table: table.spec().name.to_owned(),
            });
        }
        if let Some(members) = tables.get(&MEMBERS) {
            members.restore(&key, &row);
            writes.push(put(members, key, &row));
        }
        let cluster = ClusterId(self.rng.random());
        self.begin_swap(cluster, tables, writes, None);
    }

    /// Replaces tables and cluster id on disk. All connections end, except `keep`. Fresh rows are
    /// part of what the tables are replaced by.
    pub(crate) fn begin_swap(
        &mut self,
        cluster: ClusterId,
        tables: BTreeMap<TableId, Merged>,
        writes: Vec<Write>,
        keep: Option<ConnId>,
    ) {
        let conns: Vec<_> = self
            .conns
            .keys()
            .copied()
            .filter(|id| Some(*id) != keep)
            .collect();
        for conn in conns {
            self.close(conn);
        }
        for neighbour in self.neighbours.values_mut() {
            neighbour.conn = None;
            neighbour.unlinked_ms = self.now.mono_ms;
            neighbour.dialing = None;
            neighbour.link.sender.detach();
        }
        self.writes.extend(writes);
        for (id, WireRow { key, row }) in self.take_fresh() {
            if let Some(table) = tables.get(&id).filter(|_| id != MEMBERS) {
                table.restore(&key, &row);
                self.writes
                    .extend(table.row(&key).map(|row| put(table, key, &row)));
            }
        }
        self.writes.push(restore::write_cluster(cluster));
        let down: Vec<_> = std::mem::take(&mut self.down_since).into_keys().collect();
        self.writes
            .extend(down.into_iter().map(restore::delete_down));
        let token = self.persist_now();
        self.operations.swap = Some(Swap {
            token,
            cluster,
            tables,
        });
    }

    pub(crate) fn persisted(&mut self, token: u64, error: Option<String>) {
        if let Some(error) = &error {
            tracing::error!(error, "cluster_state_not_persisted");
        }
        if let Some(conn) = self.operations.copy_persisted(token) {
            self.work_off(conn);
        }
        self.force_leave_persisted(token, error.clone());
        let Some(swap) = self.operations.swap.take_if(|swap| swap.token == token) else {
            return;
        };
        if let Some(error) = error {
            self.operations.standing = None;
            let members = self
                .take_fresh()
                .into_iter()
                .filter(|(id, _)| *id == MEMBERS);
            for (id, WireRow { key, row }) in members {
                self.persist_row(&self.table(id), &key, &row);
            }
            self.swap_failed(error);
            return;
        }
        self.finish_swap(swap);
    }

    /// The swap is durable: memory follows, and to everybody this node is a new one.
    fn finish_swap(&mut self, swap: Swap) {
        let sites: Vec<_> = self.neighbours.keys().copied().collect();
        for site in sites {
            self.fail_calls_to(site);
            self.neighbours.remove(&site);
            let left = false;
            self.out.push(Effect::Gone { site, left });
        }
        let mut fresh = self.take_fresh();
        for (id, table) in swap.tables {
            self.table(id).replace(table);
        }
        fresh.retain(|(id, _)| *id != MEMBERS);
        self.put_fresh(fresh);
        self.deltas.clear();
        self.own.cluster = swap.cluster;
        self.own.boot = BootId(self.rng.random());
        self.publish_identity();
        let swim = SwimId {
            site: self.own.site,
            epoch: self.clock.tick(self.now).0,
        };
        self.failure = Failure::new(swim, &self.config, self.rng.random());
        self.operations.standing = None;
        self.operations.since = self.now.wall_ms;
        self.members_changed = true;
        self.out.push(Effect::Reset);
        tracing::info!(cluster = %self.own.cluster, "cluster_changed");
        self.join_swapped();
    }
}
