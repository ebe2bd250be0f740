//! Connections: dialing members, handshakes, greetings, and the link each member is reached by.
//!
//! Both ends of every pair dial, so two connections may stand at once; the one dialed by the lower
//! site id stays, and the link moves to it without losing or repeating a frame. Nothing is taken
//! from a connection before its handshake is proven, and no state from another cluster.

use bytes::Bytes;
use rand::RngExt;

use crate::apart::Side;
use crate::error::{AbortCause, DialError};
use crate::failure::SwimId;
use crate::identity::SiteId;
use crate::input::{ConnId, Effect};
use crate::link::frame::{self, FrameKind};
use crate::link::{Handshake, HandshakeError, Hello, Purpose, Sender};
use crate::node::Cluster;
use crate::peer::{Conn, Goal, Got, Link, Stage, Stranger};
use crate::table::merged::MEMBERS;
use crate::wire::{Message, Read, WireRow};

/// How long dialing a member may take, milliseconds. Short, because a dial that started while the
/// network was cut must not delay the one that works after it healed.
const DIAL_TIMEOUT_MS: u64 = 1_000;

/// How long dialing the target of a join may take, milliseconds.
pub(crate) const JOIN_DIAL_TIMEOUT_MS: u64 = 5_000;

/// How long a connection may take from its first byte to its greeting, milliseconds.
const SHAKE_TIMEOUT_MS: u64 = 3_000;

/// First and longest pause between dials, milliseconds: a healed network is noticed within the
/// longest, and a dead member costs one packet per second.
const RETRY_FIRST_MS: u64 = 50;
const RETRY_MAX_MS: u64 = 1_000;

/// How often something is sent on a link at least, milliseconds.
const HEARTBEAT_MS: u64 = 500;

/// Silence after which a connection counts as lost, milliseconds; four heartbeats.
const SILENT_MS: u64 = 2_000;

/// Silence after which a connection between clusters counts as lost, milliseconds: the other end
/// may be busy with its disk.
const STRANGER_SILENT_MS: u64 = 5_000;

/// How long a joiner may take from its welcome until it is a member, milliseconds; its disk has to
/// take the whole cluster state meanwhile.
const WELCOME_MAX_MS: u64 = 600_000;

/// Two connections made within this time are the two ends dialing at once, milliseconds; a later
/// one means that the other end lost the first.
const DUPLICATE_WINDOW_MS: u64 = 1_500;

/// Most connections before their greeting, so that strangers cannot exhaust memory.
const UNPROVEN_MAX: usize = 256;

/// What becomes of a connection after a step.
pub(crate) enum Flow {
    /// There may be more in its buffer.
    Again,
    /// More bytes are needed.
    Wait,
    /// It is useless.
    Close,
    /// It is not ours any more.
    Forget,
}

/// Things of later releases that are remembered, so that each is said once.
const LATER_MAX: usize = 1_024;

/// Something a member has and this release has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Later {
    /// A control message, by its tag.
    Message(u32),
    /// A table of cluster state, by its id. Its rows come again when this node has it.
    Table(u8),
}

impl Cluster {
    pub(crate) fn accepted(&mut self, id: ConnId, from: &str) {
        let unproven = self
            .conns
            .values()
            .filter(|c| !matches!(c.stage, Stage::Member(_)))
            .count();
        if unproven >= UNPROVEN_MAX || self.operations.is_swapping() {
            tracing::debug!(from, "peer_connection_refused");
            self.out.push(Effect::Close { conn: id });
            return;
        }
        let nonce = self.rng.random();
        let shake = Handshake::accept(&self.own, &self.config.cookie, nonce, self.now);
        let stage = Stage::Shaking(Box::new(shake), None);
        self.conns
            .insert(id, Conn::new(id, stage, self.now.mono_ms));
    }

    pub(crate) fn connected(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let Stage::Dialing(goal) = conn.stage else {
            return;
        };
        let expected = match goal {
            Goal::Member(site) => self.neighbours.get(&site).map(|n| n.name.clone()),
            Goal::Join => self.join_target(),
            Goal::Meet => self.candidate(id),
            Goal::Errand => self.errand_target(id),
        };
        if goal == Goal::Errand {
            self.errand_dialed(id);
        }
        let nonce = self.rng.random();
        let purpose = Purpose::Control;
        let shake = Handshake::dial(
            &self.own,
            &self.config.cookie,
            purpose,
            nonce,
            self.now,
            expected,
        );
        let mut conn = Conn::new(
            id,
            Stage::Shaking(Box::new(shake), Some(goal)),
            self.now.mono_ms,
        );
        self.flush_shake(&mut conn);
        self.conns.insert(id, conn);
    }

    fn flush_shake(&mut self, conn: &mut Conn) {
        if let Stage::Shaking(shake, _) = &mut conn.stage
            && let Some(bytes) = shake.take_output()
        {
            self.out.push(Effect::Send {
                conn: conn.id,
                bytes,
            });
        }
    }

    pub(crate) fn dial_failed(&mut self, id: ConnId, error: DialError) {
        let Some(conn) = self.conns.remove(&id) else {
            return;
        };
        match conn.stage {
            Stage::Dialing(Goal::Member(site)) => {
                let refused = matches!(error, DialError::Refused(_));
                let lost = self
                    .neighbours
                    .get(&site)
                    .is_some_and(|n| n.reset && n.alive);
                if refused && lost {
                    self.process_gone(site);
                }
                let node = self.neighbours.get(&site);
                // Repeated every second while it lasts: said loudly once.
                if let (DialError::Tls(fault), Some(neighbour)) = (&error, node)
                    && neighbour.attempts <= 1
                {
                    tracing::warn!(node = %neighbour.name, error = %fault, "peer_tls_failed");
                }
                self.ended(&conn);
            }
            Stage::Dialing(Goal::Join) => self.join_dial_failed(error),
            Stage::Dialing(Goal::Meet) => self.candidate_out(id, error.to_string()),
            Stage::Dialing(Goal::Errand) => self.errand_dial_failed(id, error),
            _ => self.ended(&conn),
        }
    }

    pub(crate) fn closed(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.remove(&id) {
            self.ended(&conn);
        }
    }

    /// Closes a connection; its end has no other consequence.
    pub(crate) fn close(&mut self, id: ConnId) {
        self.conns.remove(&id);
        self.out.push(Effect::Close { conn: id });
        if self.operations.current == Some(id) {
            self.operations.current = None;
        }
    }

    /// Closes a connection as if it had ended by itself.
    fn lose(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.remove(&id) {
            self.out.push(Effect::Close { conn: id });
            self.ended(&conn);
        }
    }

    /// The consequences of a connection's end.
    fn ended(&mut self, conn: &Conn) {
        let unlinked = self
            .neighbours
            .iter()
            .find(|(_, n)| n.conn == Some(conn.id));
        if let Some(site) = unlinked.map(|(site, _)| *site) {
            self.unlink(site);
        }
        let dialing = self
            .neighbours
            .iter_mut()
            .find(|(_, n)| n.dialing == Some(conn.id));
        if let Some((site, neighbour)) = dialing {
            neighbour.dialing = None;
            if matches!(conn.stage, Stage::Dialing(_)) {
                // It cannot be reached any more, so it is just down.
                neighbour.apart = None;
            }
            let site = *site;
            self.dial_later(site);
        }
        let silent = self.now.mono_ms >= conn.heard_ms + STRANGER_SILENT_MS;
        let cause = if silent {
            AbortCause::Silent
        } else {
            AbortCause::Closed
        };
        self.errand_conn_ended(conn, cause.clone());
        self.join_conn_ended(conn, cause);
        self.candidate_ended(conn);
    }

    /// Sets the pause before a member is dialed again.
    fn dial_later(&mut self, site: SiteId) {
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        let pause = (RETRY_FIRST_MS << neighbour.attempts.min(8)).min(RETRY_MAX_MS);
        // Up to a fifth less, so that two nodes do not keep dialing in step.
        let pause = pause - self.rng.random_range(0..=pause / 5);
        neighbour.attempts = neighbour.attempts.saturating_add(1);
        neighbour.retry_ms = self.now.mono_ms + pause;
    }

    /// A member's connection is gone; the link waits for the next one. It is dialed at once, unless
    /// the member never took the link: then it does not want us, or not yet.
    fn unlink(&mut self, site: SiteId) {
        self.note_diverging(site);
        let now_ms = self.now.mono_ms;
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        let taken = neighbour.greeted.take().is_none();
        neighbour.conn = None;
        neighbour.link.sender.detach();
        // A member that was up and now refuses connections is gone, taken or not: it may have died
        // while of two connections made at once one was being given up.
        neighbour.reset = taken || neighbour.alive;
        neighbour.unlinked_ms = now_ms;
        neighbour.jobs.clear();
        neighbour.owned_out.reconnected();
        if taken {
            neighbour.attempts = 0;
            neighbour.retry_ms = now_ms;
        } else {
            self.dial_later(site);
        }
        self.no_longer_heard(site);
    }

    /// Dials every member that is neither linked nor being dialed and whose pause is over.
    pub(crate) fn dial_members(&mut self) {
        if self.operations.is_departing() {
            return;
        }
        let now_ms = self.now.mono_ms;
        let idle = self
            .neighbours
            .iter()
            .filter(|(_, n)| n.conn.is_none() && n.dialing.is_none() && n.retry_ms <= now_ms);
        let sites: Vec<_> = idle.map(|(site, _)| *site).collect();
        for site in sites {
            let conn = self.new_conn();
            let Some(neighbour) = self.neighbours.get_mut(&site) else {
                continue;
            };
            neighbour.dialing = Some(conn);
            let (host, port) = (neighbour.name.host().to_owned(), neighbour.name.port());
            let stage = Stage::Dialing(Goal::Member(site));
            self.conns.insert(conn, Conn::new(conn, stage, now_ms));
            self.out.push(Effect::Dial { conn, host, port });
        }
    }

    /// Dials a member that runs and was just removed, once. Its link closes with what is queued on
    /// it, which is lost if that node removes this one at the same moment; greetings tell both.
    pub(crate) fn show_removed(&mut self, site: SiteId) {
        let Some(neighbour) = self.neighbours.get(&site).filter(|n| n.up) else {
            return;
        };
        let (host, port) = (neighbour.name.host().to_owned(), neighbour.name.port());
        let conn = self.new_conn();
        let stage = Stage::Dialing(Goal::Member(site));
        self.conns
            .insert(conn, Conn::new(conn, stage, self.now.mono_ms));
        self.out.push(Effect::Dial { conn, host, port });
    }

    pub(crate) fn received(&mut self, id: ConnId, bytes: &Bytes) {
        let now_ms = self.now.mono_ms;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.buf.extend_from_slice(bytes);
            conn.heard_ms = now_ms;
            if let Stage::Member(site) = conn.stage {
                self.note_heard(site, id);
            }
            self.work_off(id);
        }
    }

    /// Takes what a connection has brought, as far as it is whole and may be taken.
    pub(crate) fn work_off(&mut self, id: ConnId) {
        // Taken out while it is worked on, so that its handlers may use the whole node.
        let Some(mut conn) = self.conns.remove(&id) else {
            return;
        };
        self.operations.current = Some(id);
        let flow = loop {
            match self.advance(&mut conn) {
                Flow::Again if self.operations.current.is_some() => {}
                flow => break flow,
            }
        };
        let kept = self.operations.current.take().is_some();
        match flow {
            Flow::Forget => {}
            Flow::Wait | Flow::Again if kept => {
                self.conns.insert(id, conn);
            }
            Flow::Close if kept => {
                self.out.push(Effect::Close { conn: id });
                self.ended(&conn);
            }
            _ => self.ended(&conn),
        }
    }

    /// One step: at most one handshake, frame or greeting.
    fn advance(&mut self, conn: &mut Conn) -> Flow {
        match &mut conn.stage {
            Stage::Dialing(_) => Flow::Close,
            Stage::Shaking(shake, goal) => {
                let goal = *goal;
                let result = shake.receive(&mut conn.buf);
                self.flush_shake(conn);
                match result {
                    Ok(None) => Flow::Wait,
                    Ok(Some(hello)) => self.shaken(conn, hello, goal),
                    Err(error) => self.shake_failed(conn.id, goal, &error),
                }
            }
            Stage::Greeting(..) => self.greeted(conn),
            Stage::Member(site) => {
                let site = *site;
                self.member_frame(site, conn)
            }
            Stage::Stranger(_) => self.stranger_frame(conn),
        }
    }

    fn shake_failed(&mut self, id: ConnId, goal: Option<Goal>, error: &HandshakeError) -> Flow {
        match goal {
            Some(Goal::Join) => self.join_shake_failed(error),
            Some(Goal::Meet) => self.candidate_out(id, error.to_string()),
            Some(Goal::Errand) => self.errand_shake_failed(id, error),
            Some(Goal::Member(site)) => {
                let node = self.neighbours.get(&site);
                // Repeated every second while it lasts: said loudly once.
                if let Some(neighbour) = node.filter(|n| n.attempts <= 1) {
                    tracing::warn!(node = %neighbour.name, %error, "peer_handshake_failed");
                }
            }
            None => tracing::warn!(%error, "peer_handshake_refused"),
        }
        Flow::Close
    }

    fn shaken(&mut self, conn: &mut Conn, hello: Hello, goal: Option<Goal>) -> Flow {
        if self.is_former(&hello, conn.since_ms) {
            return Flow::Close;
        }
        let same_cluster = hello.cluster == self.own.cluster;
        if let Purpose::Data { .. } = hello.purpose {
            let wanted = goal.is_none() && same_cluster;
            return self.hand_off(conn, hello, wanted);
        }
        if same_cluster {
            if goal == Some(Goal::Meet) {
                // It is a member or just becoming one, which the links between members settle.
                return Flow::Close;
            }
            if goal == Some(Goal::Errand) {
                return self.errand_shaken(conn, &hello);
            }
            if goal == Some(Goal::Join) {
                self.join_met_own_cluster();
            }
            if let Some(side) = self.side() {
                let side = frame::encode(FrameKind::Data, 0, &[&Message::Side(side).encode()]);
                self.out.push(Effect::Send {
                    conn: conn.id,
                    bytes: side,
                });
            }
            let greeting = Message::Greeting {
                swim: self.failure.own(),
                members: self.all_rows(MEMBERS),
            };
            let bytes = frame::encode(FrameKind::Data, 0, &[&greeting.encode()]);
            self.out.push(Effect::Send {
                conn: conn.id,
                bytes,
            });
            conn.stage = Stage::Greeting(Box::new(hello), Side::default());
            return Flow::Again;
        }
        self.note_other_cluster(&hello, conn.since_ms);
        if matches!(goal, Some(Goal::Member(_))) {
            return Flow::Close;
        }
        let mut link = Link::new(self.rng.random());
        link.connected();
        let stranger = Stranger {
            hello: hello.clone(),
            link,
            serve: None,
            welcomed: false,
            inviting: false,
        };
        conn.stage = Stage::Stranger(Box::new(stranger));
        match goal {
            Some(Goal::Join) => self.join_shaken(conn, &hello),
            Some(Goal::Meet) => self.candidate_shaken(conn, &hello),
            Some(Goal::Errand) => self.errand_shaken(conn, &hello),
            _ => Flow::Again,
        }
    }

    /// A data connection is the shards' if it is a member's.
    fn hand_off(&mut self, conn: &mut Conn, hello: Hello, wanted: bool) -> Flow {
        let site = hello.peer.site;
        let neighbour = self.neighbours.get(&site);
        let apart = neighbour.is_some_and(|n| n.apart.is_some());
        if !wanted || !self.is_member(site) || apart {
            return Flow::Close;
        }
        let unread = conn.buf.split().freeze();
        self.out.push(Effect::HandOff {
            conn: conn.id,
            hello,
            unread,
        });
        Flow::Forget
    }

    /// The first payload of a node of our cluster: the member tables are merged before anything
    /// else, so that both ends judge alike whether they are fellow members.
    fn greeted(&mut self, conn: &mut Conn) -> Flow {
        let Stage::Greeting(hello, side) = &mut conn.stage else {
            return Flow::Close;
        };
        let (hello, theirs) = (hello.clone(), side.clone());
        let (swim, members) = match frame::decode(&mut conn.buf) {
            Ok(None) => return Flow::Wait,
            Ok(Some(frame)) if frame.number == 0 => match Message::decode(&frame.payload) {
                Some(Message::Greeting { swim, members }) => (swim, members),
                Some(Message::Side(told)) => {
                    *side = told;
                    return Flow::Again;
                }
                _ => return Flow::Close,
            },
            _ => return Flow::Close,
        };
        if self.is_former(&hello, conn.since_ms) {
            return Flow::Close;
        }
        let cluster = self.own.cluster;
        self.merge_rows(hello.peer.site, MEMBERS, members, true);
        self.refresh_members();
        let departing = self.operations.is_departing() || self.own.cluster != cluster;
        if departing || !self.is_member(self.own.site) || !self.is_member(hello.peer.site) {
            return Flow::Close;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&hello.peer.site) {
            neighbour.ran_ms = neighbour.ran_ms.max(conn.since_ms);
        }
        self.on_side(&theirs);
        if self.hold_apart(&hello, &theirs) {
            return Flow::Close;
        }
        self.attach(conn, &hello, swim)
    }

    /// Whether a process is speaking that another one has followed: what it said last may be on the
    /// way for long, and would take the link from its successor. A process runs when a connection
    /// to it begins, as it answers our nonce of then, so the lives of a member follow each other
    /// as the connections do.
    fn is_former(&self, hello: &Hello, since_ms: u64) -> bool {
        let neighbour = self.neighbours.get(&hello.peer.site);
        neighbour.is_some_and(|n| {
            let is_other = n.boot.is_some_and(|boot| boot != hello.peer.boot);
            is_other && since_ms <= n.ran_ms
        })
    }

    /// The connection becomes the one the member's link is on, unless there is a better one.
    fn attach(&mut self, conn: &mut Conn, hello: &Hello, swim: SwimId) -> Flow {
        let site = hello.peer.site;
        let now_ms = self.now.mono_ms;
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return Flow::Close;
        };
        if neighbour.dialing == Some(conn.id) {
            neighbour.dialing = None;
        }
        if neighbour.boot != Some(hello.peer.boot) {
            self.new_boot(hello);
        } else if let Some(current) = neighbour.conn {
            let lower_dialed = conn.is_dialed() == (self.own.site < site);
            let both_dialed = (current.0 ^ conn.id.0) & 1 == 1;
            let at_once = now_ms < neighbour.conn_since_ms + DUPLICATE_WINDOW_MS;
            if both_dialed && at_once && !lower_dialed {
                return Flow::Close;
            }
            self.close(current);
        }
        conn.stage = Stage::Member(site);
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return Flow::Close;
        };
        neighbour.conn = Some(conn.id);
        neighbour.conn_since_ms = now_ms;
        neighbour.reset = false;
        neighbour.jobs.clear();
        neighbour.owned_out.reconnected();
        neighbour.link.connected();
        tracing::info!(node = %neighbour.name, "peer_linked");
        neighbour.greeted = Some(swim);
        self.note_wall(site, hello.wall_ms);
        self.note_heard(site, conn.id);
        Flow::Again
    }

    /// The member took our link: it is up, and both kinds of state are brought up to date. Not
    /// before, as of two connections made at once only one is taken.
    fn taken(&mut self, site: SiteId, swim: SwimId) {
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        if let Some(boot) = neighbour.boot {
            let number = neighbour.owned_in.connected(boot);
            self.send(site, &Message::OwnHave { number });
        }
        self.note_merged(site);
        self.learn_life(site, swim);
        if self.own.site < site {
            self.send_digests(site);
            self.recheck_later(site);
        }
    }

    /// The member at the other end is another process than before, or the first we meet.
    pub(crate) fn new_boot(&mut self, hello: &Hello) {
        let site = hello.peer.site;
        self.restarted(site);
        let stream = self.rng.random();
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        neighbour.boot = Some(hello.peer.boot);
        neighbour.split = None;
        neighbour.link = Link::new(stream);
        neighbour.owned_out = crate::table::owned::OwnedOut::new();
        if let Some(old) = neighbour.conn.take() {
            self.close(old);
        }
    }

    fn member_frame(&mut self, site: SiteId, conn: &mut Conn) -> Flow {
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return Flow::Close;
        };
        if neighbour.conn != Some(conn.id) {
            return Flow::Close;
        }
        let payload = match neighbour.link.receive(&mut conn.buf) {
            Ok(Got::Nothing) => return Flow::Wait,
            Ok(Got::Answer) => {
                let taken = neighbour.link.sender.is_attached();
                if let Some(swim) = neighbour.greeted.take_if(|_| taken) {
                    self.taken(site, swim);
                }
                return Flow::Again;
            }
            Ok(Got::Payload(payload)) => payload,
            Err(error) => {
                tracing::warn!(node = %neighbour.name, %error, "peer_link_broken");
                return Flow::Close;
            }
        };
        match Message::read(&payload) {
            Read::Message(message) => self.message(site, message),
            Read::Later(tag) => self.note_later(site, Later::Message(tag)),
            Read::Malformed => {
                tracing::warn!(node = %neighbour.name, "peer_message_malformed");
                return Flow::Close;
            }
        }
        Flow::Again
    }

    /// A member has something that this release has not: it is passed over, and said once.
    pub(crate) fn note_later(&mut self, site: SiteId, later: Later) {
        if self.later.len() < LATER_MAX && self.later.insert((site, later)) {
            tracing::warn!(%site, ?later, "from_a_later_release_passed_over");
        }
    }

    /// One message of a fellow member.
    fn message(&mut self, site: SiteId, message: Message) {
        match message {
            Message::Rows { table, rows } => self.merge_rows(site, table, rows, false),
            Message::Digest {
                table,
                wall_ms,
                buckets,
            } => {
                self.on_digest(site, table, wall_ms, &buckets);
            }
            Message::InSync { table, wall_ms } => self.on_in_sync(site, table, wall_ms),
            Message::Stamps {
                table,
                buckets,
                after,
                until,
                stamps,
            } => {
                self.on_stamps(site, table, buckets, (after, until), stamps);
            }
            Message::Want { table, keys } => self.on_want(site, table, keys),
            Message::OwnHave { .. }
            | Message::OwnChanges { .. }
            | Message::OwnBegin { .. }
            | Message::OwnRows { .. }
            | Message::OwnEnd { .. }
            | Message::OwnAck { .. } => self.on_owned(site, message),
            Message::Swim { data } => self.failure.received(self.now.mono_ms, &data),
            Message::SwimIs { id } if id.site == site => self.learn_life(site, id),
            Message::Side(side) => self.on_side(&side),
            Message::SwimDown { id } => self.failure.renew(self.now.mono_ms, id),
            Message::Call { number, payload } => {
                let call = crate::input::InCall { from: site, number };
                self.out.push(Effect::CallIn {
                    call,
                    from: site,
                    payload,
                });
            }
            Message::Reply { number, payload } => self.call_done(number, site, Ok(payload)),
            Message::Cast { payload } => self.out.push(Effect::CastIn {
                from: site,
                payload,
            }),
            Message::Greeting { .. }
            | Message::SwimIs { .. }
            | Message::JoinAsk { .. }
            | Message::JoinRefused { .. }
            | Message::JoinWelcome
            | Message::JoinRows { .. }
            | Message::JoinEnd
            | Message::MeetAsk { .. }
            | Message::MeetIs { .. }
            | Message::JoinMay { .. }
            | Message::JoinMayBe
            | Message::Invite
            | Message::InviteTaken
            | Message::InviteFailed { .. } => tracing::warn!(%site, "peer_message_out_of_place"),
        }
    }

    /// Queues a message for a member's link; `false` when there is no link or it is full.
    pub(crate) fn send(&mut self, site: SiteId, message: &Message) -> bool {
        self.send_encoded(site, &message.encode())
    }

    pub(crate) fn send_encoded(&mut self, site: SiteId, payload: &[u8]) -> bool {
        let stream = self.rng.random();
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return false;
        };
        if neighbour.link.sender.send(&[payload]).is_ok() {
            return true;
        }
        // The peer has not taken anything for long. What was queued is given up: a new connection
        // compares tables and streams anew, so nothing but calls is lost.
        tracing::warn!(node = %neighbour.name, "peer_link_overflow");
        neighbour.link.sender = Sender::new(stream);
        if let Some(conn) = neighbour.conn {
            self.close(conn);
            self.unlink(site);
        }
        false
    }

    /// Hands the failure detector's datagrams to the links.
    pub(crate) fn send_datagrams(&mut self) {
        for (site, data) in self.failure.take_datagrams() {
            if let Some(neighbour) = self.neighbours.get_mut(&site) {
                neighbour
                    .link
                    .sender
                    .datagram(&[&Message::Swim { data }.encode()]);
            }
        }
    }

    /// Writes everything queued on all links.
    pub(crate) fn flush_links(&mut self) {
        let now_ms = self.now.mono_ms;
        for neighbour in self.neighbours.values_mut() {
            let Some(id) = neighbour.conn else { continue };
            if neighbour.link.flush(id, &mut self.out)
                && let Some(conn) = self.conns.get_mut(&id)
            {
                conn.sent_ms = now_ms;
            }
        }
        for conn in self.conns.values_mut() {
            if let Stage::Stranger(stranger) = &mut conn.stage
                && stranger.link.flush(conn.id, &mut self.out)
            {
                conn.sent_ms = now_ms;
            }
        }
    }

    /// When a connection counts as lost if nothing is heard on it.
    fn conn_deadline(conn: &Conn) -> u64 {
        match &conn.stage {
            Stage::Dialing(Goal::Member(_) | Goal::Meet) => conn.since_ms + DIAL_TIMEOUT_MS,
            Stage::Dialing(Goal::Join | Goal::Errand) => conn.since_ms + JOIN_DIAL_TIMEOUT_MS,
            Stage::Shaking(..) | Stage::Greeting(..) => conn.since_ms + SHAKE_TIMEOUT_MS,
            Stage::Member(_) => conn.heard_ms + SILENT_MS,
            Stage::Stranger(stranger) => {
                let expected = conn.is_dialed() || stranger.welcomed || stranger.inviting;
                let whole = if expected {
                    WELCOME_MAX_MS
                } else {
                    SHAKE_TIMEOUT_MS
                };
                (conn.since_ms + whole).min(conn.heard_ms + STRANGER_SILENT_MS)
            }
        }
    }

    fn heartbeat_ms(conn: &Conn) -> u64 {
        match conn.stage {
            Stage::Member(_) | Stage::Stranger(_) => conn.sent_ms + HEARTBEAT_MS,
            _ => u64::MAX,
        }
    }

    pub(crate) fn conns_next_tick(&self) -> u64 {
        let deadlines = self
            .conns
            .values()
            .map(|c| Self::conn_deadline(c).min(Self::heartbeat_ms(c)));
        let departing = self.operations.is_departing();
        let dials = self
            .neighbours
            .values()
            .filter(|n| !departing && n.conn.is_none() && n.dialing.is_none());
        deadlines
            .chain(dials.map(|n| n.retry_ms))
            .chain(self.unlinked_next_tick())
            .min()
            .unwrap_or(u64::MAX)
    }

    pub(crate) fn conns_tick(&mut self) {
        let now_ms = self.now.mono_ms;
        let late = self
            .conns
            .values()
            .filter(|c| Self::conn_deadline(c) <= now_ms);
        let late: Vec<_> = late.map(|c| c.id).collect();
        for id in late {
            let dialing = self.conns.get(&id).map(|conn| &conn.stage);
            if matches!(dialing, Some(Stage::Dialing(Goal::Join))) {
                self.close(id);
                self.join_dial_failed(DialError::TimedOut);
            } else if matches!(dialing, Some(Stage::Dialing(Goal::Errand))) {
                self.close(id);
                self.errand_dial_failed(id, DialError::TimedOut);
            } else {
                self.lose(id);
            }
        }
        for conn in self.conns.values_mut() {
            if Self::heartbeat_ms(conn) > now_ms {
                continue;
            }
            conn.sent_ms = now_ms;
            match &mut conn.stage {
                Stage::Member(site) => {
                    if let Some(neighbour) = self.neighbours.get_mut(site) {
                        neighbour.link.receiver.heartbeat();
                    }
                }
                Stage::Stranger(stranger) => stranger.link.receiver.heartbeat(),
                _ => {}
            }
        }
        self.unlinked_tick();
    }

    /// This node itself did not run for a while: that others were silent meanwhile says nothing.
    pub(crate) fn stalled(&mut self, late_ms: u64) {
        tracing::warn!(ms = late_ms, "node_stalled");
        self.stalled_ms = self.now.mono_ms;
        self.failure.postpone(late_ms);
        for conn in self.conns.values_mut() {
            conn.heard_ms += late_ms;
            conn.since_ms += late_ms;
        }
        for neighbour in self.neighbours.values_mut() {
            neighbour.ran_ms += late_ms;
        }
    }

    /// All rows of a small table, tombstones included.
    fn all_rows(&self, table: crate::table::merged::TableId) -> Vec<WireRow> {
        let table = self.table(table);
        let read = table.read();
        let rows = read.rows(std::ops::Bound::Unbounded);
        rows.map(|(key, row)| WireRow {
            key: Bytes::copy_from_slice(key),
            row: row.to_row(),
        })
        .collect()
    }
}
