//! One node's part in a cluster as a state machine: inputs and `now` in, effects out.
//!
//! This is the public face and the dispatch; the parts are in the sibling modules, each an
//! `impl Cluster`. Within one call all happens at one instant; its durable writes leave as one
//! batch at its end. It must never wait for another node in order to serve.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::call::Calls;
use crate::clock::{Clock, Hlc, Now, Stamp};
use crate::config::{Config, Restored};
use crate::discovery::Discovery;
use crate::errand::Errand;
use crate::error::RestoreError;
use crate::failure::{Failure, SwimId};
use crate::identity::{BootId, Identity, SiteId};
use crate::input::{ConnId, Effect, Input, SnapshotId, Write};
use crate::join::Operations;
use crate::membership::{Membership, members_of};
use crate::peer::{Conn, Neighbour};
use crate::restore;
use crate::status::{LinkState, MemberState, MemberStatus, Status};
use crate::sync::SWEEP_PERIOD_MS;
use crate::table::merged::{MEMBERS, Merged, TableId};
use crate::table::owned::OwnLog;
use crate::wire::{OwnChange, WireRow};

/// How late a call must be to show that this node did not run, milliseconds; far above a busy
/// host's scheduling, far below any suspicion.
const STALL_MS: u64 = 500;

/// One node's part in a cluster.
pub struct Cluster {
    pub(crate) config: Config,
    pub(crate) clock: Arc<Clock>,
    pub(crate) rng: SmallRng,
    pub(crate) identity: Arc<RwLock<Identity>>,
    pub(crate) own: Identity,
    pub(crate) tables: BTreeMap<TableId, Arc<Merged>>,
    /// The instant of the call being handled.
    pub(crate) now: Now,
    pub(crate) out: Vec<Effect>,
    pub(crate) writes: Vec<Write>,
    last_token: u64,
    last_conn: u64,
    last_snapshot: u64,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) neighbours: BTreeMap<SiteId, Neighbour>,
    /// The member table changed in this call.
    pub(crate) members_changed: bool,
    /// Rows to be sent to the peers at the end of this call.
    pub(crate) deltas: BTreeMap<TableId, Vec<WireRow>>,
    pub(crate) failure: Failure,
    pub(crate) own_log: OwnLog,
    /// Own changes were noted and not yet spread: the next call does it, and is wanted at once. So
    /// a burst of them costs one round instead of one each.
    own_waits: bool,
    pub(crate) settled: u64,
    pub(crate) calls: Calls,
    pub(crate) errands: BTreeMap<ConnId, Errand>,
    pub(crate) operations: Operations,
    pub(crate) discovery: Discovery,
    /// Since when members are down, as persisted.
    pub(crate) down_since: BTreeMap<SiteId, u64>,
    pub(crate) next_sync_ms: u64,
    pub(crate) next_sweep_ms: u64,
    pub(crate) last_synced: Option<SiteId>,
    /// Rows refused because their stamp shows a time that no clock shows.
    pub(crate) skew_refused: u64,
    /// Keys written here since the old cluster state was archived: their rows go along to wherever
    /// this node goes. No member has them, nor the archive.
    pub(crate) fresh: BTreeSet<(TableId, Bytes)>,
    /// Writes that were overwritten by one whose writer had not seen them.
    pub(crate) conflicts: u64,
    /// When this node last went on after a time in which it did not run, mono ms.
    pub(crate) stalled_ms: u64,
    /// The latest `cluster heal`.
    pub(crate) healed: Hlc,
    /// The member, and its process, that let this node into the cluster: its side is ours.
    pub(crate) joined_by: Option<(SiteId, BootId)>,
    /// What members have and this release has not, as far as it was said.
    pub(crate) later: BTreeSet<(SiteId, crate::connect::Later)>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts from what storage held. The effects returned are to be carried out like any others,
    /// before anything else.
    ///
    /// `seed` must differ for every start of every node: ids are drawn from it.
    pub fn new(
        now: Now,
        config: Config,
        restored: Restored,
        clock: Arc<Clock>,
        seed: u64,
    ) -> Result<(Self, Vec<Effect>), RestoreError> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let start = restore::read(&config, restored, &clock, &mut rng)?;
        let swim = SwimId {
            site: start.own.site,
            epoch: clock.tick(now).0,
        };
        let failure = Failure::new(swim, &config, rng.random());
        let live = members_of(&start.tables[&MEMBERS]).into_values();
        let members = live.filter(|member| member.state == Membership::Member);
        let discovery = Discovery::new(&config.strategy, now.mono_ms, members.count() > 1);
        let mut cluster = Self {
            identity: Arc::new(RwLock::new(start.own.clone())),
            own: start.own,
            tables: start.tables,
            calls: Calls::new(rng.random()),
            errands: BTreeMap::new(),
            config,
            clock,
            rng,
            now,
            out: Vec::new(),
            writes: start.writes,
            last_token: 0,
            last_conn: 0,
            last_snapshot: 0,
            conns: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            members_changed: true,
            deltas: BTreeMap::new(),
            failure,
            own_log: OwnLog::default(),
            own_waits: false,
            settled: 0,
            operations: Operations::new(now),
            discovery,
            down_since: start.down_since,
            next_sync_ms: now.mono_ms,
            next_sweep_ms: now.mono_ms + SWEEP_PERIOD_MS,
            last_synced: None,
            skew_refused: 0,
            fresh: BTreeSet::new(),
            conflicts: 0,
            stalled_ms: 0,
            healed: Hlc::default(),
            joined_by: None,
            later: BTreeSet::new(),
        };
        cluster.write_own_member();
        let mut out = Vec::new();
        cluster.handle(now, Input::Tick, &mut out);
        Ok((cluster, out))
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        if let Input::Own { table, key, value } = input {
            self.now = now;
            self.own_log.push(OwnChange { table, key, value });
            self.own_waits = true;
            return;
        }
        let late_ms = now.mono_ms.saturating_sub(self.next_tick());
        let before = std::mem::replace(&mut self.now, now);
        self.watch_clock(before);
        if late_ms > STALL_MS {
            self.stalled(late_ms);
        }
        match input {
            // A change of the own node state was noted above.
            Input::Tick | Input::Own { .. } => {}
            Input::Accepted { conn, from } => self.accepted(conn, &from),
            Input::Connected { conn } => self.connected(conn),
            Input::DialFailed { conn, error } => self.dial_failed(conn, error),
            Input::Received { conn, bytes } => self.received(conn, &bytes),
            Input::Closed { conn } => self.closed(conn),
            Input::SnapshotRows { want, rows, done } => self.snapshot_rows(want, rows, done),
            Input::Put { table, key, value } => self.put(table, key, value),
            Input::Wrote { table, key, stamp } => self.wrote(table, key, stamp),
            Input::Call {
                id,
                to,
                payload,
                timeout_ms,
            } => self.call(id, to, payload, timeout_ms),
            Input::Reply { call, payload } => self.reply(call, payload),
            Input::Cast { to, payload } => self.cast(to, payload),
            Input::Operation { id, op } => self.operation(id, op),
            Input::Discovered(discovered) => self.discovered(discovered),
            Input::Persisted { token } => self.persisted(token, None),
            Input::PersistFailed { token, error } => self.persisted(token, Some(error)),
            Input::Archived { token, result } => self.archived(token, result),
        }
        self.tick();
        self.finish();
        out.append(&mut self.out);
    }

    /// Everything that is due by now.
    fn tick(&mut self) {
        self.failure.tick(self.now.mono_ms);
        self.calls_tick();
        self.conns_tick();
        self.dial_members();
        self.sync_tick();
        self.recheck_tick();
        self.sweep_tick();
        self.operations_tick();
        self.errands_tick();
    }

    /// Ends a call: what it changed is spread, written and sent.
    fn finish(&mut self) {
        // Verdicts may end calls and operations, and changed members change the neighbours; both
        // settle after few rounds, as each consumes its cause.
        self.refresh_members();
        self.take_verdicts();
        self.refresh_members();
        // After the verdicts, which decide who searches on behalf of the cluster.
        self.discovery_tick();
        self.dial_members();
        self.spread_deltas();
        self.own_waits = false;
        self.pump_owned();
        self.pump_comparisons();
        self.pump_strangers();
        self.settle();
        self.send_datagrams();
        self.flush_links();
        if !self.writes.is_empty() {
            self.persist_now();
        }
    }

    /// Emits the writes gathered so far as one batch and returns its token.
    pub(crate) fn persist_now(&mut self) -> u64 {
        self.last_token += 1;
        let (token, writes) = (self.last_token, std::mem::take(&mut self.writes));
        self.operations.persisting(token);
        self.out.push(Effect::Persist { token, writes });
        token
    }

    /// Asks for an archive of the cluster-state tables: what is written from here on is not in it.
    pub(crate) fn archive(&mut self) -> u64 {
        self.fresh.clear();
        self.last_token += 1;
        self.out.push(Effect::Archive {
            token: self.last_token,
        });
        self.last_token
    }

    /// A fresh id for a connection we dial.
    pub(crate) fn new_conn(&mut self) -> ConnId {
        self.last_conn += 2;
        ConnId(self.last_conn)
    }

    pub(crate) fn new_snapshot(&mut self) -> SnapshotId {
        self.last_snapshot += 1;
        SnapshotId(self.last_snapshot)
    }

    /// A fresh stamp for a row written here.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            hlc: self.clock.tick(self.now),
            site: self.own.site,
        }
    }

    /// Shows the changed identity to the handshakes of the data links.
    pub(crate) fn publish_identity(&mut self) {
        let mut shared = self
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *shared = self.own.clone();
    }

    /// When to call with [`Input::Tick`] at the latest, in `Now::mono_ms`.
    pub fn next_tick(&self) -> u64 {
        if self.own_waits {
            return self.now.mono_ms;
        }
        [
            self.failure.next_tick(),
            self.calls.next_tick(),
            self.conns_next_tick(),
            self.next_sync_ms,
            self.recheck_next_tick(),
            self.next_sweep_ms,
            self.operations_next_tick(),
            self.errands_next_tick(),
            self.discovery_next_tick(),
        ]
        .into_iter()
        .min()
        .unwrap_or(u64::MAX)
    }

    /// A merged table named in the configuration (or [`crate::MEMBERS`]).
    ///
    /// # Panics
    /// When the table was not configured, which is a fault of the caller's code.
    pub fn table(&self, id: TableId) -> Arc<Merged> {
        self.tables
            .get(&id)
            .expect("only configured tables are asked for")
            .clone()
    }

    /// The cluster as this node sees it.
    pub fn status(&self) -> Status {
        let mut members: Vec<_> = self
            .members()
            .into_iter()
            .filter(|(_, member)| member.state == Membership::Member)
            .map(|(site, member)| self.member_status(site, member.name))
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name).then(a.site.cmp(&b.site)));
        Status {
            cluster_name: self.own.cluster_name.clone(),
            cluster: self.own.cluster,
            own: self.own.name.clone(),
            members,
            skew_refused: self.skew_refused,
            conflicts: self.conflicts,
            discovery: self.discovery_state(),
            discovery_failure: self.discovery.failure().map(str::to_owned),
        }
    }

    fn member_status(&self, site: SiteId, name: crate::name::NodeName) -> MemberStatus {
        let Some(neighbour) = self.neighbours.get(&site) else {
            let (state, link) = (MemberState::Running, LinkState::Own);
            return MemberStatus {
                site,
                name,
                state,
                since_wall_ms: self.operations.since,
                apart_since_wall_ms: None,
                clock_ahead_ms: None,
                link,
            };
        };
        let state = match neighbour.alive {
            true if self.failure.is_suspect(site) => MemberState::Suspect,
            true => MemberState::Running,
            false => MemberState::Stopped,
        };
        // The noted time survives restarts of this node.
        let noted = self.down_since.get(&site).filter(|_| !neighbour.alive);
        let since_wall_ms = noted.copied().unwrap_or(neighbour.since_wall_ms);
        let connected = neighbour.conn.is_some();
        let link = if connected {
            LinkState::Connected
        } else {
            LinkState::Connecting
        };
        MemberStatus {
            site,
            name,
            state,
            since_wall_ms,
            apart_since_wall_ms: neighbour.apart.map(|apart| apart.since_wall_ms),
            clock_ahead_ms: neighbour.skew.ahead_ms(),
            link,
        }
    }

    /// The identity shown in handshakes; data links read it, joining and leaving change it.
    pub fn identity(&self) -> Arc<RwLock<Identity>> {
        self.identity.clone()
    }

    /// The number of the latest change of the own node state.
    pub fn own_number(&self) -> u64 {
        self.own_log.number()
    }
}
