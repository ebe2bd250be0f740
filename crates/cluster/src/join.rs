//! Joining: the joiner's side, step by step, and what all operations have in common.
//!
//! ```text
//!   Wait -> Dial -> [Weigh ->] Asked -> Copy -> Archive -> Tell -> Swap -> Connect
//! ```
//! A join that discovery began weighs its target once more, on the connection on which it asks: a
//! target that changes its cluster closes that, so the answer still holds when it welcomes us.
//!
//! Everything up to Swap leaves the old cluster state as it is; Swap is one batch on disk. The old
//! cluster is told last, when the copy is complete, so that a target that fails costs nothing. Two
//! nodes joining each other are ordered by site id: the lower one joins, the higher one serves.

use std::collections::BTreeMap;

use rand::RngExt;

use crate::backlog::Backlog;
use crate::clock::Now;
use crate::connect::Flow;
use crate::errand::{dial_error, shake_error};
use crate::error::{AbortCause, DialError, OperationError};
use crate::identity::SiteId;
use crate::input::{ConnId, Effect, JoinStep, Operation, Write};
use crate::link::{HandshakeError, Hello};
use crate::membership::{Member, Membership, member_key, members_of};
use crate::name::NodeName;
use crate::node::Cluster;
use crate::peer::{Conn, Goal, Neighbour, Stage};
use crate::restore;
use crate::stand::{Standing, Swap, Telling};
use crate::sync::put;
use crate::table::merged::{Applied, MEMBERS, Merged, Row, TableId};
use crate::wire::{Message, Refusal, WireRow};

/// How long an operation waits for others to end before it gives up, milliseconds.
const BUSY_MAX_MS: u64 = 15_000;

/// Shortest and longest pause before asking a busy target again, milliseconds.
const BUSY_PAUSE_MS: (u64, u64) = (50, 250);

/// How often a join dials again when the target hangs up before it answered: it may be changing its
/// own cluster, which takes as long as its disk. With the pauses, about a second.
const HUNG_UP_MAX: u32 = 6;

/// After how many rows a copy that is under way tells how far it is: often enough to watch on a
/// terminal, rarely enough that a million rows are twenty lines.
const COPIED_ROWS: u64 = 50_000;

/// How long a new member waits for its first contact with the others before the join is reported,
/// milliseconds; it is a member all the same.
const CONNECT_MAX_MS: u64 = 2_000;

/// What is going on that an operator asked for, or that a removal caused.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    user: Option<User>,
    pub(crate) standing: Option<Standing>,
    pub(crate) swap: Option<Swap>,
    /// The connection whose bytes are being handled; `None` once it was closed meanwhile.
    pub(crate) current: Option<ConnId>,
    /// Since when this node is in its cluster, in this process; wall clock.
    pub(crate) since: u64,
}

#[derive(Debug)]
struct User {
    asker: Asker,
    kind: Kind,
}

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// The driver, with its number.
    Driver(u64),
    /// Discovery.
    Discovery,
    /// Another node, which invited us on this connection.
    Inviter(ConnId),
}

#[derive(Debug)]
enum Kind {
    Join(Box<Join>),
    /// The work is in `Operations::standing`.
    Leave,
    /// Waits for its write to be durable.
    ForceLeave(u64),
}

#[derive(Debug)]
struct Join {
    target: NodeName,
    give_up_ms: u64,
    hung_up: u32,
    conn: Option<ConnId>,
    hello: Option<Hello>,
    staged: BTreeMap<TableId, Merged>,
    copied_rows: u64,
    /// Since when rows come, mono ms.
    copying_ms: u64,
    backlog: Backlog,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Wait { retry_ms: u64 },
    Dial,
    Weigh,
    Asked,
    Copy,
    Archive { token: u64 },
    Tell(Telling),
    Swap,
    Connect { deadline_ms: u64 },
}

impl Join {
    fn step(&self) -> JoinStep {
        match self.phase {
            Phase::Wait { .. } | Phase::Dial | Phase::Weigh | Phase::Asked => JoinStep::Preflight,
            Phase::Copy => JoinStep::Copy,
            Phase::Archive { .. } => JoinStep::Archive,
            Phase::Tell(_) => JoinStep::LeaveOld,
            Phase::Swap => JoinStep::Swap,
            Phase::Connect { .. } => JoinStep::Connect,
        }
    }
}

impl Operations {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            since: now.wall_ms,
            ..Self::default()
        }
    }

    /// Whether nothing is going on.
    pub(crate) fn is_idle(&self) -> bool {
        self.user.is_none() && self.standing.is_none() && self.swap.is_none()
    }

    /// The target of a join that discovery began.
    fn automatic(&self) -> Option<&NodeName> {
        let automatic = self.user.as_ref()?.asker == Asker::Discovery;
        self.join().filter(|_| automatic).map(|join| &join.target)
    }

    /// Whether the tables are being replaced on disk.
    pub(crate) fn is_swapping(&self) -> bool {
        self.swap.is_some()
    }

    /// Whether the old cluster state is archived, or about to be, and the next one does not stand.
    pub(crate) fn is_moving(&self) -> bool {
        let late = |join: &Join| {
            matches!(
                join.phase,
                Phase::Archive { .. } | Phase::Tell(_) | Phase::Swap
            )
        };
        self.standing.is_some() || self.join().is_some_and(late)
    }

    /// Whether this node is on its way out of its cluster, so that it should not call on members.
    pub(crate) fn is_departing(&self) -> bool {
        let telling = self
            .join()
            .is_some_and(|join| matches!(join.phase, Phase::Tell(_)));
        telling || self.is_swapping() || self.standing.as_ref().is_some_and(Standing::is_departing)
    }

    fn join(&self) -> Option<&Join> {
        match &self.user.as_ref()?.kind {
            Kind::Join(join) => Some(join),
            _ => None,
        }
    }

    fn join_mut(&mut self) -> Option<&mut Join> {
        match &mut self.user.as_mut()?.kind {
            Kind::Join(join) => Some(join),
            _ => None,
        }
    }

    /// Writes of a copy left as a batch.
    pub(crate) fn persisting(&mut self, token: u64) {
        if let Some(join) = self.join_mut() {
            join.backlog.persisting(token);
        }
    }

    /// A batch is done with; the connection of a copy that may go on because of it.
    pub(crate) fn copy_persisted(&mut self, token: u64) -> Option<ConnId> {
        let join = self.join_mut()?;
        let goes_on = join.backlog.persisted(token);
        join.conn.filter(|_| goes_on)
    }

    /// Whether what a connection brings has to wait for the disk.
    pub(crate) fn is_behind(&self, conn: ConnId) -> bool {
        self.join()
            .is_some_and(|join| join.conn == Some(conn) && join.backlog.is_full())
    }

    /// Whether a join has come so far that this node will not stay in its cluster anyway.
    pub(crate) fn is_joining(&self) -> bool {
        let early = |join: &Join| matches!(join.step(), JoinStep::Preflight | JoinStep::Connect);
        self.join().is_some_and(|join| !early(join))
    }
}

impl Cluster {
    pub(crate) fn operation(&mut self, id: u64, op: Operation) {
        let own = self.own.name.clone();
        if matches!(op, Operation::Look { .. } | Operation::Invite { .. }) {
            return self.start_errand(id, op);
        }
        if matches!(op, Operation::EnableDiscovery | Operation::Heal) {
            if op == Operation::Heal {
                self.heal();
            } else {
                self.enable_discovery();
            }
            let result = Ok(());
            self.out.push(Effect::Done { id, result });
            return;
        }
        self.make_way();
        let refused = if self.operations.user.is_some() {
            Some(OperationError::Busy { node: own })
        } else {
            match &op {
                Operation::Join { target: node } | Operation::ForceLeave { node }
                    if *node == own =>
                {
                    Some(OperationError::SelfNode { node: own })
                }
                Operation::Join { .. } if self.config.singleton => {
                    Some(OperationError::Singleton { node: own })
                }
                Operation::Leave if self.is_serving() || self.operations.standing.is_some() => {
                    Some(OperationError::Busy { node: own })
                }
                Operation::Leave if !self.has_others() => {
                    Some(OperationError::NotInCluster { node: None })
                }
                _ => None,
            }
        };
        if let Some(error) = refused {
            self.out.push(Effect::Done {
                id,
                result: Err(error),
            });
            return;
        }
        match op {
            Operation::Join { target } => self.start_join(Asker::Driver(id), target),
            Operation::Leave => {
                self.operations.user = Some(User {
                    asker: Asker::Driver(id),
                    kind: Kind::Leave,
                });
                self.stand_alone();
            }
            Operation::ForceLeave { node } => self.force_leave(id, node),
            Operation::EnableDiscovery
            | Operation::Heal
            | Operation::Look { .. }
            | Operation::Invite { .. } => {}
        }
    }

    /// What an operator wants goes before what discovery found, unless that has begun to copy.
    fn make_way(&mut self) {
        if self.operations.automatic().is_none() {
            return;
        }
        let node = self.own.name.clone();
        match self.operations.join().map(Join::step) {
            Some(JoinStep::Preflight) => self.join_failed(OperationError::Busy { node }),
            // It is a member; only the first contact with the others is awaited.
            Some(JoinStep::Connect) => self.done(Ok(())),
            _ => {}
        }
    }

    fn force_leave(&mut self, id: u64, node: NodeName) {
        let Some(site) = self.member_named(&node) else {
            let error = OperationError::NotInCluster { node: Some(node) };
            self.out.push(Effect::Done {
                id,
                result: Err(error),
            });
            return;
        };
        self.write_gone(site);
        self.show_removed(site);
        let token = self.persist_now();
        self.operations.user = Some(User {
            asker: Asker::Driver(id),
            kind: Kind::ForceLeave(token),
        });
    }

    /// Begins to join the cluster of a node that invited us on this connection.
    pub(crate) fn begin_invited(
        &mut self,
        conn: ConnId,
        target: NodeName,
    ) -> Result<(), OperationError> {
        self.make_way();
        if !self.operations.is_idle() {
            let node = self.own.name.clone();
            return Err(OperationError::Busy { node });
        }
        self.start_join(Asker::Inviter(conn), target);
        Ok(())
    }

    /// Joins the cluster that discovery found.
    pub(crate) fn join_automatically(&mut self, target: NodeName) {
        self.start_join(Asker::Discovery, target);
        self.join_try();
    }

    fn start_join(&mut self, asker: Asker, target: NodeName) {
        let join = Join {
            target,
            give_up_ms: self.now.mono_ms + BUSY_MAX_MS,
            hung_up: 0,
            conn: None,
            hello: None,
            staged: BTreeMap::new(),
            copied_rows: 0,
            copying_ms: 0,
            backlog: Backlog::default(),
            phase: Phase::Wait {
                retry_ms: self.now.mono_ms,
            },
        };
        self.operations.user = Some(User {
            asker,
            kind: Kind::Join(Box::new(join)),
        });
        self.progress(JoinStep::Preflight);
    }

    fn progress(&mut self, step: JoinStep) {
        if let Some(Asker::Driver(id)) = self.operations.user.as_ref().map(|user| user.asker) {
            self.out.push(Effect::Progress { id, step });
        }
    }

    /// The present operation ends.
    pub(crate) fn done(&mut self, result: Result<(), OperationError>) {
        let automatic = self.operations.automatic().cloned();
        let Some(user) = self.operations.user.take() else {
            return;
        };
        if let Some(node) = automatic {
            self.joined_automatically(&node, &result);
        }
        if let (Err(error), true) = (&result, user.asker != Asker::Discovery) {
            tracing::warn!(%error, "cluster_operation_failed");
        }
        match (user.asker, result) {
            (Asker::Driver(id), result) => self.out.push(Effect::Done { id, result }),
            (Asker::Inviter(conn), Err(error)) => self.invitation_failed(conn, &error),
            _ => {}
        }
    }

    pub(crate) fn join_target(&self) -> Option<NodeName> {
        self.operations.join().map(|join| join.target.clone())
    }

    /// Ends a join that cannot go on, and undoes its staging; the old state was never touched.
    fn join_failed(&mut self, error: OperationError) {
        let Some(join) = self.operations.join_mut() else {
            return;
        };
        let staged = !matches!(join.step(), JoinStep::Preflight | JoinStep::Connect);
        let conn = join.conn.take();
        if let Some(conn) = conn {
            self.close(conn);
        }
        if staged {
            let names = self
                .tables
                .values()
                .map(|table| restore::staging(table.spec().name));
            let clears: Vec<_> = names.map(|table| Write::Clear { table }).collect();
            self.writes.extend(clears);
            self.writes.push(restore::delete_joining());
        }
        self.done(Err(error));
        // A removal that was ignored for the join's sake counts again.
        self.members_changed = true;
    }

    fn join_aborted(&mut self, cause: AbortCause) {
        let Some(join) = self.operations.join() else {
            return;
        };
        let (step, node) = (join.step(), join.target.clone());
        self.join_failed(OperationError::Aborted { step, node, cause });
    }

    /// The target cannot serve us now: ask again a little later.
    fn join_later(&mut self) {
        let pause = self.rng.random_range(BUSY_PAUSE_MS.0..=BUSY_PAUSE_MS.1);
        let retry_ms = self.now.mono_ms + pause;
        let Some(join) = self.operations.join_mut() else {
            return;
        };
        join.phase = Phase::Wait { retry_ms };
        if let Some(conn) = join.conn.take() {
            self.close(conn);
        }
    }

    pub(crate) fn join_dial_failed(&mut self, error: DialError) {
        let Some(join) = self.operations.join_mut() else {
            return;
        };
        join.conn = None;
        let node = join.target.clone();
        self.join_failed(dial_error(node, error));
    }

    pub(crate) fn join_shake_failed(&mut self, error: &HandshakeError) {
        let Some(join) = self.operations.join_mut() else {
            return;
        };
        join.conn = None;
        let node = join.target.clone();
        self.join_failed(shake_error(node, error));
    }

    /// The target is of our own cluster. The greetings that follow show whether that is still so;
    /// then the join looks again.
    pub(crate) fn join_met_own_cluster(&mut self) {
        if let Some(join) = self.operations.join_mut() {
            // The connection is an ordinary one between members from here on.
            join.conn = None;
        }
        self.join_later();
    }

    /// The target is proven: is it one we may join?
    pub(crate) fn join_shaken(&mut self, conn: &mut Conn, hello: &Hello) -> Flow {
        let Some(node) = self.join_target() else {
            return Flow::Close;
        };
        if let Err(error) = self.preflight(&node, hello) {
            self.join_failed(error);
            return Flow::Close;
        }
        let automatic = self.operations.automatic().is_some();
        let Some(join) = self.operations.join_mut() else {
            return Flow::Close;
        };
        join.hello = Some(hello.clone());
        if automatic {
            join.phase = Phase::Weigh;
            self.ask_standing(conn);
        } else {
            self.join_ask(conn);
        }
        Flow::Again
    }

    fn join_ask(&mut self, conn: &mut Conn) {
        if let Some(join) = self.operations.join_mut() {
            join.phase = Phase::Asked;
        }
        let ask = Message::JoinAsk {
            singleton: self.config.singleton,
        };
        send_stranger(conn, &ask);
    }

    /// A message of the target.
    pub(crate) fn join_message(&mut self, conn: &mut Conn, message: Message) -> Flow {
        let Some(join) = self
            .operations
            .join()
            .filter(|join| join.conn == Some(conn.id))
        else {
            return Flow::Close;
        };
        let cluster = join.hello.as_ref().map(|hello| hello.cluster);
        match (message, &join.phase) {
            // Who has left its cluster since discovery met it is not followed.
            (Message::MeetIs { standing }, Phase::Weigh) => {
                if cluster.is_some_and(|cluster| self.is_above(standing, cluster)) {
                    self.join_ask(conn);
                } else {
                    self.join_aborted(AbortCause::Changed);
                }
            }
            (Message::JoinRefused { why }, Phase::Asked) => self.join_refused(why),
            (Message::JoinWelcome, Phase::Asked) => self.join_copy(),
            (Message::JoinRows { table, rows }, Phase::Copy) => self.join_rows(table, rows),
            (Message::JoinEnd, Phase::Copy) => {
                let token = self.archive();
                self.join_step(Phase::Archive { token });
            }
            _ => self.join_aborted(AbortCause::Malformed),
        }
        Flow::Again
    }

    fn join_step(&mut self, phase: Phase) {
        let Some(join) = self.operations.join_mut() else {
            return;
        };
        join.phase = phase;
        let step = join.step();
        self.progress(step);
    }

    fn join_refused(&mut self, why: Refusal) {
        let Some(node) = self.join_target() else {
            return;
        };
        if why == Refusal::Busy {
            return self.join_later();
        }
        let error = self.refusal_error(node, why);
        self.join_failed(error);
    }

    fn join_copy(&mut self) {
        let specs: Vec<_> = self.tables.values().map(|table| *table.spec()).collect();
        self.writes.push(restore::write_joining());
        for spec in &specs {
            self.writes.push(Write::Clear {
                table: restore::staging(spec.name),
            });
        }
        let now_ms = self.now.mono_ms;
        if let Some(join) = self.operations.join_mut() {
            join.copying_ms = now_ms;
            join.staged = specs
                .into_iter()
                .map(|spec| (spec.id, Merged::new(spec)))
                .collect();
        }
        self.join_step(Phase::Copy);
    }

    fn join_rows(&mut self, id: TableId, rows: Vec<WireRow>) {
        let mut failed = None;
        let now = self.now;
        let Some(join) = self.operations.join_mut() else {
            return;
        };
        let node = join.target.clone();
        // A table this release does not have is a later release's.
        let Some(table) = join.staged.get(&id) else {
            return;
        };
        let mut writes = Vec::with_capacity(rows.len());
        let before = join.copied_rows;
        join.copied_rows += rows.len() as u64;
        let rows_so_far = join.copied_rows;
        let took_ms = now.mono_ms.saturating_sub(join.copying_ms).max(1);
        let staging = restore::staging(table.spec().name);
        for WireRow { key, row } in rows {
            if let Err(skew) = self.clock.observe(now, row.stamp.hlc) {
                let ms = skew.ahead_ms;
                failed = Some(OperationError::ClockSkew { node, ms });
                break;
            }
            let value = row.encode();
            match table.merge(&key, &row) {
                Applied::Won | Applied::Lost => {}
                Applied::Full | Applied::TooLarge => {
                    failed = Some(OperationError::TooLarge { node });
                    break;
                }
            }
            join.backlog.gather(key.len() + value.len());
            let table = staging.clone();
            writes.push(Write::Put { table, key, value });
        }
        self.writes.extend(writes);
        if let Some(error) = failed {
            self.join_failed(error);
        } else if before / COPIED_ROWS != rows_so_far / COPIED_ROWS {
            self.progress(JoinStep::Copied {
                rows: rows_so_far,
                per_s: rows_so_far * 1_000 / took_ms,
            });
        }
    }

    pub(crate) fn archived(&mut self, token: u64, result: Result<String, String>) {
        let waits = |join: &Join| matches!(join.phase, Phase::Archive { token: t } if t == token);
        if !self.operations.join().is_some_and(waits) {
            return self.stand_archived(token, result);
        }
        match result {
            Ok(path) => {
                tracing::info!(path, "cluster_state_archived");
                if self.has_others() {
                    let telling = self.tell_leaving();
                    self.join_step(Phase::Tell(telling));
                } else {
                    self.join_swap();
                }
            }
            Err(error) => {
                let step = JoinStep::Archive;
                self.join_failed(OperationError::Storage { step, error });
            }
        }
    }

    /// The copy becomes the cluster state: one batch on disk.
    fn join_swap(&mut self) {
        let Some(join) = self.operations.join_mut() else {
            return;
        };
        let (staged, keep) = (std::mem::take(&mut join.staged), join.conn);
        let Some(hello) = &join.hello else {
            return;
        };
        let cluster = hello.cluster;
        self.joined_by = Some((hello.peer.site, hello.peer.boot));
        let mut writes = Vec::new();
        for table in staged.values() {
            let to = table.spec().name.to_owned();
            let from = restore::staging(&to);
            writes.push(Write::Rename { from, to });
        }
        if let Some(members) = staged.get(&MEMBERS) {
            writes.extend(self.write_membership(members));
        }
        writes.push(restore::delete_joining());
        self.join_step(Phase::Swap);
        self.begin_swap(cluster, staged, writes, keep);
    }

    /// Makes this node a member in the copied member table, in the place of an earlier installation
    /// of its name: the target would not have welcomed us if that one still answered.
    fn write_membership(&self, members: &Merged) -> Vec<Write> {
        let (own_site, own_name) = (self.own.site, self.own.name.clone());
        let known = members_of(members);
        let version = known.get(&own_site).map_or(1, |own| own.version + 1);
        let mut rows = BTreeMap::new();
        for (site, mut member) in known {
            if member.name == own_name && member.state == Membership::Member {
                member.state = Membership::Gone;
                member.version += 1;
                rows.insert(site, member);
            }
        }
        let own = Member {
            name: own_name,
            state: Membership::Member,
            version,
        };
        rows.insert(own_site, own);
        let mut writes = Vec::new();
        for (site, member) in rows {
            let row = Row::new(self.stamp(), Some(member.encode()));
            let key = member_key(site);
            members.restore(&key, &row);
            writes.push(put(members, key, &row));
        }
        writes
    }

    /// The swap of the present operation is durable and done in memory.
    pub(crate) fn join_swapped(&mut self) {
        let deadline_ms = self.now.mono_ms + CONNECT_MAX_MS;
        if let Some(join) = self.operations.join_mut() {
            if let Some(conn) = join.conn.take() {
                self.close(conn);
            }
            self.join_step(Phase::Connect { deadline_ms });
        } else if self
            .operations
            .user
            .as_ref()
            .is_some_and(|u| matches!(u.kind, Kind::Leave))
        {
            self.discovery.switch_off();
            self.done(Ok(()));
        }
    }

    /// The swap of the present operation failed on disk; the old state stands.
    pub(crate) fn swap_failed(&mut self, error: String) {
        let step = JoinStep::Swap;
        if self.operations.join().is_some() {
            self.join_failed(OperationError::Storage { step, error });
        } else {
            self.done(Err(OperationError::Storage { step, error }));
        }
    }

    /// A leave could not archive.
    pub(crate) fn leave_failed(&mut self, error: String) {
        if self
            .operations
            .user
            .as_ref()
            .is_some_and(|u| matches!(u.kind, Kind::Leave))
        {
            self.done(Err(OperationError::Storage {
                step: JoinStep::Archive,
                error,
            }));
        }
    }

    pub(crate) fn force_leave_persisted(&mut self, token: u64, error: Option<String>) {
        let waits = |user: &User| matches!(user.kind, Kind::ForceLeave(t) if t == token);
        if self.operations.user.as_ref().is_some_and(waits) {
            let step = JoinStep::LeaveOld;
            let result = error.map_or(Ok(()), |error| Err(OperationError::Storage { step, error }));
            self.done(result);
        }
    }

    /// A connection ended; if it was the one to the target, the join may have failed with it.
    pub(crate) fn join_conn_ended(&mut self, conn: &Conn, cause: AbortCause) {
        let Some(join) = self.operations.join_mut() else {
            return;
        };
        if join.conn != Some(conn.id) {
            return;
        }
        join.conn = None;
        match join.phase {
            // The copy is complete and the old cluster is being told: going on is the safe way.
            Phase::Tell(_) | Phase::Swap | Phase::Connect { .. } | Phase::Wait { .. } => {}
            Phase::Dial | Phase::Weigh | Phase::Asked
                if cause == AbortCause::Closed && join.hung_up < HUNG_UP_MAX =>
            {
                join.hung_up += 1;
                self.join_later();
            }
            _ => self.join_aborted(cause),
        }
    }

    /// A joiner asks us. While we ask somebody ourselves, the lower site goes first.
    pub(crate) fn yields_to(&mut self, joiner: SiteId) -> bool {
        let own_site = self.own.site;
        let Some(join) = self.operations.join() else {
            return true;
        };
        match join.phase {
            Phase::Wait { .. } | Phase::Connect { .. } => true,
            Phase::Dial | Phase::Weigh | Phase::Asked if joiner < own_site => {
                self.join_later();
                true
            }
            _ => false,
        }
    }

    pub(crate) fn operations_next_tick(&self) -> u64 {
        let join = self
            .operations
            .join()
            .map_or(u64::MAX, |join| match &join.phase {
                Phase::Wait { retry_ms } => *retry_ms,
                Phase::Tell(telling) => telling.deadline_ms,
                Phase::Connect { deadline_ms } => *deadline_ms,
                _ => u64::MAX,
            });
        join.min(self.standing_next_tick())
    }

    pub(crate) fn operations_tick(&mut self) {
        self.standing_tick();
        let now_ms = self.now.mono_ms;
        let Some(join) = self.operations.join() else {
            return;
        };
        match &join.phase {
            Phase::Wait { retry_ms } if *retry_ms <= now_ms => self.join_try(),
            Phase::Tell(telling) if self.is_told(telling) => self.join_swap(),
            Phase::Connect { deadline_ms } => {
                // The neighbours follow the swapped member table at the end of its call. A member
                // sends numbered frames once we took its link, and from then on shows us running.
                // When each has the other's node state, messages find their way at once.
                let met = |n: &Neighbour| {
                    let exchanged = n.owned_out.is_known() && n.owned_in.is_known();
                    n.up && n.link.receiver.has() > 0 && exchanged
                };
                let all_up = !self.members_changed && self.neighbours.values().all(met);
                if all_up || *deadline_ms <= now_ms {
                    self.done(Ok(()));
                }
            }
            _ => {}
        }
    }

    fn join_try(&mut self) {
        let Some(join) = self.operations.join() else {
            return;
        };
        let (node, give_up_ms) = (join.target.clone(), join.give_up_ms);
        if self.operations.automatic().is_some() && !self.still_joins() {
            // Others joined us while the target was busy: the next round looks again.
            return self.join_failed(OperationError::Busy { node });
        }
        if self.operations.standing.is_some() || self.is_serving() {
            if give_up_ms <= self.now.mono_ms {
                return self.join_failed(OperationError::Busy {
                    node: self.own.name.clone(),
                });
            }
            return self.join_later();
        }
        if self.member_named(&node).is_some() {
            return self.join_failed(OperationError::AlreadyInCluster { node });
        }
        if give_up_ms <= self.now.mono_ms {
            return self.join_failed(OperationError::Busy { node });
        }
        let conn = self.new_conn();
        let (host, port) = (node.host().to_owned(), node.port());
        self.conns.insert(
            conn,
            Conn::new(conn, Stage::Dialing(Goal::Join), self.now.mono_ms),
        );
        self.out.push(Effect::Dial { conn, host, port });
        if let Some(join) = self.operations.join_mut() {
            join.conn = Some(conn);
            join.phase = Phase::Dial;
        }
    }
}

/// Queues a message on a connection between clusters.
pub(crate) fn send_stranger(conn: &mut Conn, message: &Message) {
    if let Stage::Stranger(stranger) = &mut conn.stage {
        // The window cannot be full: bulk waits for room, the rest is a handful of messages.
        let queued = stranger.link.sender.send(&[&message.encode()]);
        debug_assert!(queued.is_ok(), "bulk waits for room");
    }
}
