//! Errands: a look at another node, or an invitation, on a connection of its own.
//!
//! A look goes as far as a join does before it changes anything, with the same checks, and then
//! hangs up: that is what makes `diagnose` tell the truth about `join`. An invitation asks the
//! other node to join us, which it then does as if told to by its own operator. Neither is in the
//! way of an operation, and neither waits without a limit.

use crate::connect::{Flow, JOIN_DIAL_TIMEOUT_MS};
use crate::error::{AbortCause, DialError, OperationError};
use crate::input::{Check, ConnId, Effect, JoinStep, Operation};
use crate::join::send_stranger;
use crate::link::{HandshakeError, Hello};
use crate::name::NodeName;
use crate::node::Cluster;
use crate::peer::{Conn, Goal, Stage};
use crate::wire::{Message, Refusal};

/// Errands at once; each is an operator's request that somebody waits for.
const ERRANDS_MAX: usize = 64;

/// How long a node may take from its hello to its answer, milliseconds.
const ANSWER_MAX_MS: u64 = 3_000;

/// How far the clocks of a joiner and its target may differ, milliseconds. Members that drift apart
/// later stay members; but to begin like that is a fault that is easily cured before.
pub const JOIN_SKEW_MS: u64 = 30_000;

/// One errand.
#[derive(Debug)]
pub(crate) struct Errand {
    id: u64,
    target: NodeName,
    /// For an invitation: until when it may take effect.
    invite_ms: Option<u64>,
    /// Whether the invitation was given: from then on only membership counts.
    given: bool,
    /// When the present step ends.
    deadline_ms: u64,
}

impl Cluster {
    pub(crate) fn start_errand(&mut self, id: u64, op: Operation) {
        let (target, invite_ms) = match op {
            Operation::Look { target } => (target, None),
            Operation::Invite { node, timeout_ms } => (node, Some(self.now.mono_ms + timeout_ms)),
            _ => return,
        };
        if let Some(error) = self.errand_refused(&target, invite_ms.is_some()) {
            let result = Err(error);
            self.out.push(Effect::Done { id, result });
            return;
        }
        let conn = self.new_conn();
        let (host, port) = (target.host().to_owned(), target.port());
        let stage = Stage::Dialing(Goal::Errand);
        self.conns
            .insert(conn, Conn::new(conn, stage, self.now.mono_ms));
        self.out.push(Effect::Dial { conn, host, port });
        let errand = Errand {
            id,
            target,
            invite_ms,
            given: false,
            // The dial and the handshake have limits of their own.
            deadline_ms: u64::MAX,
        };
        self.errands.insert(conn, errand);
    }

    fn errand_refused(&self, target: &NodeName, invites: bool) -> Option<OperationError> {
        let node = target.clone();
        if *target == self.own.name {
            Some(OperationError::SelfNode { node })
        } else if self.errands.len() >= ERRANDS_MAX {
            let node = self.own.name.clone();
            Some(OperationError::Busy { node })
        } else if invites && self.config.singleton {
            let node = self.own.name.clone();
            Some(OperationError::Singleton { node })
        } else if invites && self.member_named(target).is_some() {
            Some(OperationError::AlreadyInCluster { node })
        } else {
            None
        }
    }

    /// The name expected at the other end.
    pub(crate) fn errand_target(&self, conn: ConnId) -> Option<NodeName> {
        self.errands.get(&conn).map(|errand| errand.target.clone())
    }

    pub(crate) fn errand_dialed(&mut self, conn: ConnId) {
        if let Some(errand) = self.errands.get(&conn) {
            let (id, check) = (errand.id, Check::Dialed);
            self.out.push(Effect::Checked { id, check });
        }
    }

    fn errand_done(&mut self, conn: ConnId, result: Result<(), OperationError>) {
        if let Some(Errand { id, .. }) = self.errands.remove(&conn) {
            self.out.push(Effect::Done { id, result });
        }
    }

    pub(crate) fn errand_dial_failed(&mut self, conn: ConnId, error: DialError) {
        if let Some(target) = self.errand_target(conn) {
            self.errand_done(conn, Err(dial_error(target, error)));
        }
    }

    pub(crate) fn errand_shake_failed(&mut self, conn: ConnId, error: &HandshakeError) {
        if let Some(target) = self.errand_target(conn) {
            self.errand_done(conn, Err(shake_error(target, error)));
        }
    }

    /// The other end is proven, and of our own cluster or of another one.
    pub(crate) fn errand_shaken(&mut self, conn: &mut Conn, hello: &Hello) -> Flow {
        let Some(errand) = self.errands.get_mut(&conn.id) else {
            return Flow::Close;
        };
        errand.deadline_ms = self.now.mono_ms + ANSWER_MAX_MS;
        let (id, target, invites) = (errand.id, errand.target.clone(), errand.invite_ms.is_some());
        let same_cluster = hello.cluster == self.own.cluster;
        let proven = Check::Proven {
            hello: Box::new(hello.clone()),
            same_cluster,
            own_cluster_name: self.own.cluster_name.clone(),
            own_wall_ms: self.now.wall_ms,
        };
        self.out.push(Effect::Checked { id, check: proven });
        if let Err(error) = self.preflight(&target, hello) {
            self.errand_done(conn.id, Err(error));
            return Flow::Close;
        }
        if same_cluster {
            let already = OperationError::AlreadyInCluster { node: target };
            let result = if invites { Err(already) } else { Ok(()) };
            self.errand_done(conn.id, result);
            return Flow::Close;
        }
        let singleton = self.config.singleton;
        let message = if invites {
            Message::Invite
        } else {
            Message::JoinMay { singleton }
        };
        send_stranger(conn, &message);
        Flow::Again
    }

    /// What a join requires of its target, and an invitation of the invited.
    pub(crate) fn preflight(&self, target: &NodeName, hello: &Hello) -> Result<(), OperationError> {
        let node = target.clone();
        if hello.cluster_name != self.own.cluster_name {
            let (ours, theirs) = (self.own.cluster_name.clone(), hello.cluster_name.clone());
            return Err(OperationError::ClusterNameMismatch { node, ours, theirs });
        }
        let ms = hello.wall_ms.abs_diff(self.now.wall_ms);
        if ms > JOIN_SKEW_MS {
            return Err(OperationError::ClockSkew { node, ms });
        }
        Ok(())
    }

    /// A message of the node an errand went to.
    pub(crate) fn errand_message(&mut self, conn: &Conn, message: Message) -> Flow {
        let Some(errand) = self.errands.get_mut(&conn.id) else {
            return Flow::Close;
        };
        let (id, target) = (errand.id, errand.target.clone());
        match (message, errand.invite_ms) {
            (Message::InviteTaken, Some(until_ms)) => {
                errand.given = true;
                errand.deadline_ms = until_ms;
                return Flow::Again;
            }
            (Message::InviteFailed { why }, Some(_)) => {
                let error = OperationError::InviteFailed { node: target, why };
                self.errand_done(conn.id, Err(error));
            }
            (Message::JoinMayBe, None) => {
                let check = Check::Admitted;
                self.out.push(Effect::Checked { id, check });
                self.errand_done(conn.id, Ok(()));
            }
            (Message::JoinRefused { why }, _) => {
                let error = self.refusal_error(target, why);
                self.errand_done(conn.id, Err(error));
            }
            _ => {
                let error = aborted(target, AbortCause::Malformed);
                self.errand_done(conn.id, Err(error));
            }
        }
        Flow::Close
    }

    /// A node's no in the words of the one who asked.
    pub(crate) fn refusal_error(&self, node: NodeName, why: Refusal) -> OperationError {
        match why {
            Refusal::Busy => OperationError::Busy { node },
            Refusal::NameTaken(by) => {
                let node = self.own.name.clone();
                OperationError::NameTaken { node, by }
            }
            Refusal::ClusterName(theirs) => {
                let ours = self.own.cluster_name.clone();
                OperationError::ClusterNameMismatch { node, ours, theirs }
            }
            Refusal::Singleton => OperationError::Singleton { node },
            Refusal::Full => OperationError::TooLarge { node },
        }
    }

    /// A connection ended; an invitation that was given goes on without it, as the invited node
    /// closes everything when it changes its cluster.
    pub(crate) fn errand_conn_ended(&mut self, conn: &Conn, cause: AbortCause) {
        let Some(errand) = self.errands.get(&conn.id).filter(|errand| !errand.given) else {
            return;
        };
        let target = errand.target.clone();
        self.errand_done(conn.id, Err(aborted(target, cause)));
    }

    pub(crate) fn errands_next_tick(&self) -> u64 {
        let deadlines = self.errands.values().map(|errand| errand.deadline_ms);
        deadlines.min().unwrap_or(u64::MAX)
    }

    pub(crate) fn errands_tick(&mut self) {
        let now_ms = self.now.mono_ms;
        let mut ended = Vec::new();
        for (conn, errand) in &self.errands {
            let member = self.member_named(&errand.target);
            let joined = member.and_then(|site| self.neighbours.get(&site));
            if errand.given && joined.is_some_and(|neighbour| neighbour.up) {
                ended.push((*conn, Ok(())));
            } else if errand.deadline_ms <= now_ms {
                let node = errand.target.clone();
                let error = if errand.given {
                    OperationError::InviteUnfinished { node }
                } else {
                    aborted(node, AbortCause::Silent)
                };
                ended.push((*conn, Err(error)));
            }
        }
        for (conn, result) in ended {
            if self.conns.contains_key(&conn) {
                self.close(conn);
            }
            self.errand_done(conn, result);
        }
    }

    // --- the other end ---

    /// A node of another cluster asks whether it might join.
    pub(crate) fn may_join(&self, conn: &mut Conn, singleton: bool) -> Flow {
        let Stage::Stranger(stranger) = &conn.stage else {
            return Flow::Close;
        };
        let hello = stranger.hello.clone();
        let answer = match self.lasting_refusal(&hello, singleton) {
            Some(why) => Message::JoinRefused { why },
            None => Message::JoinMayBe,
        };
        send_stranger(conn, &answer);
        Flow::Again
    }

    /// A node of another cluster wants us to join it.
    pub(crate) fn invited(&mut self, conn: &mut Conn) -> Flow {
        let Stage::Stranger(stranger) = &mut conn.stage else {
            return Flow::Close;
        };
        let inviter = stranger.hello.peer.name.clone();
        stranger.inviting = true;
        let own = self.own.name.clone();
        let refused = if self.config.singleton {
            Some(OperationError::Singleton { node: own })
        } else {
            self.begin_invited(conn.id, inviter.clone()).err()
        };
        let answer = match refused {
            None => {
                tracing::info!(node = %inviter, "invited_to_join");
                Message::InviteTaken
            }
            Some(error) => {
                let why = error.to_string();
                tracing::warn!(node = %inviter, why, "invitation_refused");
                Message::InviteFailed { why }
            }
        };
        send_stranger(conn, &answer);
        Flow::Again
    }

    /// Tells the inviter that its invitation came to nothing.
    pub(crate) fn invitation_failed(&mut self, conn: ConnId, error: &OperationError) {
        let why = error.to_string();
        if let Some(conn) = self.conns.get_mut(&conn) {
            send_stranger(conn, &Message::InviteFailed { why });
        }
    }
}

fn aborted(node: NodeName, cause: AbortCause) -> OperationError {
    let step = JoinStep::Preflight;
    OperationError::Aborted { step, node, cause }
}

/// Why a node could not be dialed.
pub(crate) fn dial_error(node: NodeName, error: DialError) -> OperationError {
    let host = node.host().to_owned();
    let addr = format!("{host}:{}", node.port());
    match error {
        DialError::Resolve(error) => OperationError::Unresolvable { node, host, error },
        DialError::Refused(at) => {
            let addr = at.map_or(addr, |at| at.to_string());
            OperationError::Refused { node, addr }
        }
        DialError::TimedOut => OperationError::TimedOut {
            node,
            addr,
            ms: JOIN_DIAL_TIMEOUT_MS,
        },
        DialError::Tls(fault) => OperationError::Tls { node, fault },
        DialError::Unreachable(error) | DialError::Io(error) => {
            OperationError::Unreachable { node, addr, error }
        }
    }
}

/// Why a node that was dialed could not be trusted.
pub(crate) fn shake_error(node: NodeName, error: &HandshakeError) -> OperationError {
    match error.clone() {
        HandshakeError::CookieMismatch => OperationError::CookieMismatch { node },
        HandshakeError::VersionMismatch { ours, theirs } => {
            OperationError::VersionMismatch { node, ours, theirs }
        }
        HandshakeError::NameMismatch { expected, found } => {
            OperationError::NameMismatch { expected, found }
        }
        HandshakeError::SameNode => OperationError::SelfNode { node },
        error @ HandshakeError::TlsMismatch { .. } => OperationError::TlsMismatch { node, error },
        HandshakeError::Malformed => aborted(node, AbortCause::Handshake(error.clone())),
    }
}
