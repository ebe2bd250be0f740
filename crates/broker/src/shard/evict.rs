//! Giving clients away while the node runs: connected ones are sent to another server, sessions
//! without a connection are offered to other nodes, which take them over as if the client had
//! connected there.
//!
//! An offer is only a letter. Until another node asks for the session nothing of it has changed
//! here, so one that is lost, or refused there, is made again.

use dunlin_cluster::Now;
use dunlin_mqtt::Reason;

use crate::channel::Phase;
use crate::effects::{CloseReason, Conn, Evict, Evicted, ShardEffects, TakeoverStep, ToControl};
use crate::router::{NodeIndex, SessionKey};
use crate::session::{Arriving, Session, SessionOffer};
use crate::shard::{Shard, Timer};

/// How long an offered session is left alone before it is offered again, ms: above what a takeover
/// may take.
const OFFER_AGAIN_MS: u64 = 20_000;

impl Shard {
    /// Disconnects some clients, offers some sessions, and counts what is left.
    pub(crate) fn evict(&mut self, now: Now, wanted: &Evict, fx: &mut ShardEffects) -> Evicted {
        self.offered.retain(|_, until_ms| *until_ms > now.mono_ms);
        let (mut conns, mut keys) = (Vec::new(), Vec::new());
        let mut left = Evicted::default();
        let offers = if wanted.to.is_empty() {
            0
        } else {
            wanted.sessions
        };
        for (key, session) in self.sessions.iter() {
            match session.conn {
                Some(conn) if conns.len() < wanted.connections && self.is_open(conn) => {
                    conns.push(conn);
                }
                Some(_) => left.connected += 1,
                None => {
                    left.disconnected += 1;
                    left.offered += usize::from(self.offered.contains_key(&key));
                    if keys.len() < offers && self.may_be_offered(now, key, session) {
                        keys.push(key);
                    }
                }
            }
        }
        left.connections = conns.len();
        left.sessions = keys.len();
        left.offered += keys.len();
        let why = (CloseReason::Evicted, Reason::UseAnotherServer);
        for conn in conns {
            self.send_away(now, conn, why, fx);
        }
        for key in keys {
            // Not the same one first each time, or few sessions would all go to it.
            self.next_offer = self.next_offer.wrapping_add(1);
            let to = wanted.to[self.next_offer % wanted.to.len()];
            self.offer_session(now, key, to, fx);
        }
        left
    }

    fn is_open(&self, conn: Conn) -> bool {
        let channel = self.channels.get(conn.0 as usize);
        channel.is_some_and(|channel| channel.phase == Phase::Open)
    }

    fn may_be_offered(&self, now: Now, key: SessionKey, session: &Session) -> bool {
        // A will that may come due on the way would come from both nodes.
        let will_is_near =
            session.will.is_some() && session.will_ms <= now.mono_ms + OFFER_AGAIN_MS;
        let is_free = !session.collects() && !session.superseded && !will_is_near;
        is_free && !self.offered.contains_key(&key)
    }

    fn offer_session(&mut self, now: Now, key: SessionKey, node: NodeIndex, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        self.offered.insert(key, now.mono_ms + OFFER_AGAIN_MS);
        let row = match &session.will {
            None => None,
            Some(_) => match self.shared.wills().row(session.clientid()) {
                // Too large to travel: it is published here, and the session goes then.
                None => return,
                Some(row) => Some(row.to_vec()),
            },
        };
        let offer = Box::new(SessionOffer::of(session, now, row));
        fx.tell(ToControl::Offer { node, offer });
    }

    /// Takes over a session that another node gives away, unless there is a newer one anywhere.
    pub(crate) fn adopt(
        &mut self,
        now: Now,
        from: NodeIndex,
        offer: &SessionOffer,
        fx: &mut ShardEffects,
    ) {
        let wanted = !self.draining && !self.refusing && self.shared.reachable(from);
        if !wanted || self.sessions.find(&offer.clientid).is_some() {
            tracing::debug!(clientid = %offer.clientid, "offered_session_not_taken");
            return;
        }
        let mut session = offer.session(&self.shared.settings());
        session.arriving = Some(Box::new(Arriving {
            adopted: true,
            will: offer.will(now),
            ..Arriving::default()
        }));
        let key = self.sessions.insert(session);
        let at = (self.id, key.slot);
        let registry = self.shared.registry();
        if !registry.claim_moved(&offer.clientid, at, from, offer.stamp) {
            self.sessions.remove(key);
            return;
        }
        self.tell_client(&offer.clientid, fx);
        self.ask_node(now, None, key, (TakeoverStep::Begin, from), fx);
    }

    /// The will that waited on the former node waits here.
    pub(crate) fn take_waiting_will(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.arriving.as_ref().is_some_and(|a| a.adopted) {
            tracing::debug!(clientid = session.clientid(), "session_adopted");
        }
        let arriving = session.arriving.as_mut();
        let waiting = arriving.and_then(|arriving| arriving.will.take());
        // Who has connected meanwhile has cancelled it [MQTT-3.1.3-9].
        let Some((will, due_wall_ms)) = waiting.filter(|_| session.conn.is_none()) else {
            return;
        };
        session.will = Some(will);
        session.will_ms = now.mono_ms + due_wall_ms.saturating_sub(now.wall_ms);
        self.wheel.arm(session.will_ms, Timer::Will(key));
        self.list_will(key, Some(due_wall_ms), fx);
    }
}
