//! What becomes of a session without its connection: kept for its time, ended, its will published,
//! its shared messages given to others.

use std::sync::Arc;

use dunlin_cluster::{Hlc, Now};
use dunlin_mqtt::{Disconnect, Packet, Reason};

use crate::access::{Action, Verdict};
use crate::banned::Suspect;
use crate::channel::Phase;
use crate::effects::{ClientEvent, CloseReason, Conn, ShardEffects, ToControl};
use crate::inflight::Exchange;
use crate::message::{Head, Message, Parts};
use crate::metrics::Metric;
use crate::queue::Queued;
use crate::redirect::Redirect;
use crate::router::{SessionKey, SubscriberKey};
use crate::session::{Heir, NEVER, Session};
use crate::shard::takeover::TAKEOVER_TIMEOUT_MS;
use crate::shard::{Shard, Timer};
use crate::will::{Fate, Will, fate};
use crate::wills::Listed;

/// Connections a draining shard closes per step, and the pause between two steps, ms: ten thousand
/// clients that come back to the other nodes in one instant would be a storm.
const DRAIN_STEP: usize = 500;
const DRAIN_PAUSE_MS: u64 = 50;

/// How long a node that stops waits for the others to have its last news, ms, and how often it
/// looks. They answer within a round trip, unless their links hang.
const HANDED_OVER_MAX_MS: u64 = 1_000;
const HANDED_OVER_LOOK_MS: u64 = 20;

impl Shard {
    /// A session lost its connection.
    pub(crate) fn detach(
        &mut self,
        now: Now,
        key: SessionKey,
        conn: Conn,
        why: CloseReason,
        fx: &mut ShardEffects,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.conn != Some(conn) {
            return;
        }
        session.conn = None;
        session.client.disconnected_at_wall_ms = Some(now.wall_ms);
        let event = ClientEvent::Disconnected {
            clientid: session.clientid().to_owned(),
            username: session.origin.username.as_deref().map(str::to_owned),
            reason: why,
            at_wall_ms: now.wall_ms,
        };
        self.settle_will(now, key, why, fx);
        fx.tell(ToControl::Client(Box::new(event)));
        match why {
            // Whoever closed it goes on with the session.
            CloseReason::TakenOver | CloseReason::Discarded | CloseReason::Kicked => {}
            _ => self.keep_or_end(now, key, fx),
        }
    }

    fn settle_will(&mut self, now: Now, key: SessionKey, why: CloseReason, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let Some(will) = session.will.as_ref() else {
            return;
        };
        // The others keep the will of a node that stops, and its client may come back to them.
        let ended = match why {
            CloseReason::Shutdown if self.shared.live_peers() > 0 => CloseReason::TcpClosed,
            why => why,
        };
        // A DISCONNECT that takes the will back has removed it.
        match fate(ended, true, will.delay_s, session.expiry_s) {
            Fate::Drop => self.drop_will(key, fx),
            Fate::Now => {
                if let Some(will) = self.take_will(key, fx) {
                    self.publish_will(now, key, &will, fx);
                }
            }
            Fate::After { delay_s } => self.delay_will(now, key, delay_s, fx),
        }
    }

    /// The will waits.
    fn delay_will(&mut self, now: Now, key: SessionKey, delay_s: u32, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let delay_ms = u64::from(delay_s) * 1_000;
        session.will_ms = now.mono_ms + delay_ms;
        self.wheel.arm(session.will_ms, Timer::Will(key));
        self.list_will(key, Some(now.wall_ms + delay_ms), fx);
    }

    /// Tells the others about a session's will, if it has one: it is theirs if this node dies.
    /// `due_wall_ms`: when it is published if the client does not come back; `None` while it is
    /// connected.
    pub(crate) fn list_will(
        &self,
        key: SessionKey,
        due_wall_ms: Option<u64>,
        fx: &mut ShardEffects,
    ) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let Some(will) = &session.will else { return };
        let client = &session.client;
        let listed = Listed {
            stamp: session.stamp,
            delay_s: will.delay_s.min(session.expiry_s),
            will: Arc::clone(will),
            due_wall_ms,
            peer: client.peer,
            listener: Arc::clone(&client.listener),
            mounted: client.mountpoint.as_ref().map_or(0, |m| m.len() as u16),
            superuser: client.superuser,
        };
        self.shared.wills().list(session.clientid(), listed);
        fx.tell(ToControl::WillChanged {
            clientid: session.clientid().to_owned(),
        });
    }

    /// Takes a will out of its session: it is published, or nobody's any more.
    pub(crate) fn take_will(
        &mut self,
        key: SessionKey,
        fx: &mut ShardEffects,
    ) -> Option<Arc<Will>> {
        let session = self.sessions.get_mut(key)?;
        let will = session.will.take()?;
        let clientid = session.clientid();
        if self.shared.wills().unlist(clientid, session.stamp) {
            fx.tell(ToControl::WillChanged {
                clientid: clientid.to_owned(),
            });
        }
        Some(will)
    }

    /// Takes a will back.
    pub(crate) fn drop_will(&mut self, key: SessionKey, fx: &mut ShardEffects) {
        _ = self.take_will(key, fx);
    }

    /// Another node has published the will of a client it could not reach.
    pub(crate) fn on_will_spent(&mut self, clientid: &str, stamp: Hlc, fx: &mut ShardEffects) {
        let Some(key) = self.sessions.find(clientid) else {
            return;
        };
        if self.sessions.get(key).is_some_and(|s| s.stamp == stamp) {
            self.drop_will(key, fx);
        }
    }

    pub(crate) fn on_will_due(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        // A client that came back has cancelled it, or brought another.
        if session.conn.is_some() || session.will_ms > now.mono_ms {
            return;
        }
        if let Some(will) = self.take_will(key, fx) {
            self.publish_will(now, key, &will, fx);
        }
    }

    fn publish_will(&mut self, now: Now, key: SessionKey, will: &Will, fx: &mut ShardEffects) {
        let allowed = self
            .sessions
            .get(key)
            .is_none_or(|s| self.may_publish_will(now, s, will));
        if !allowed {
            self.metrics.count(Metric::AuthorizationDeny);
            self.metrics.count(Metric::MessagesDropped);
            return;
        }
        self.publish(now, dated(now, will), fx);
    }

    fn may_publish_will(&self, now: Now, session: &Session, will: &Will) -> bool {
        let identity = session.identity();
        let suspect = Suspect {
            clientid: identity.clientid,
            username: identity.username,
            address: identity.peer.ip(),
        };
        if self.shared.banned().is_banned(now, &suspect) {
            return false;
        }
        let Some(authorizer) = &self.access.authorizer else {
            return true;
        };
        if session.client.superuser {
            return true;
        }
        let message = &will.message;
        let action = Action::Publish {
            qos: message.qos().as_u8(),
            retain: message.retain(),
        };
        let topic = session.client.unmounted(message.topic());
        authorizer.authorize(&identity, action, topic) == Verdict::Allow
    }

    /// A session without connection lives as long as its expiry interval says.
    pub(crate) fn keep_or_end(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        match session.expiry_s {
            0 => self.end_session(now, key, CloseReason::Expired, fx),
            NEVER => session.expires_ms = u64::MAX,
            seconds => {
                // From the end of the connection on, which another node may have seen.
                let ended = session.client.disconnected_at_wall_ms;
                let gone_ms = ended.map_or(0, |ended| now.wall_ms.saturating_sub(ended));
                let left_ms = (u64::from(seconds) * 1_000).saturating_sub(gone_ms);
                session.expires_ms = now.mono_ms + left_ms;
                self.wheel.arm(session.expires_ms, Timer::Expiry(key));
            }
        }
    }

    pub(crate) fn on_expiry(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.conn.is_some() || session.expires_ms > now.mono_ms {
            return;
        }
        if session.leaving.is_some() {
            // Its new owner has had the session for half a minute and never asked for the rest.
            // What a shared group picked it for meanwhile is another member's; the will is not.
            self.drop_will(key, fx);
            self.end_session(now, key, CloseReason::Expired, fx);
        } else if session.arriving.is_none() {
            self.end_session(now, key, CloseReason::Expired, fx);
        }
    }

    /// Ends a session: connection, will, subscriptions, claim; what a shared group picked it for
    /// goes to another member.
    pub(crate) fn end_session(
        &mut self,
        now: Now,
        key: SessionKey,
        why: CloseReason,
        fx: &mut ShardEffects,
    ) {
        self.disconnect(now, key, why, fx);
        if let Some(will) = self.take_will(key, fx) {
            self.publish_will(now, key, &will, fx);
        }
        let Some(mut session) = self.forget_session(now, key, fx) else {
            return;
        };
        self.metrics.count(Metric::SessionTerminated);
        let exclude = SubscriberKey {
            session: key,
            shard: self.id,
        };
        let sent = session
            .inflight
            .take()
            .filter_map(|exchange| match exchange {
                Exchange::Sent(_, queued) => Some(queued),
                Exchange::Released(_) => None,
            });
        let left: Vec<Queued> = sent.chain(session.queue.take()).collect();
        for Queued {
            message,
            group,
            qos,
            ..
        } in left
        {
            if let Some(group) = group.filter(|_| qos.as_u8() > 0) {
                self.redispatch(message, group, Some(exclude));
            }
        }
        self.flush(now, fx);
    }

    /// Takes a session out of everything, without a word to anybody but control.
    pub(crate) fn forget_session(
        &mut self,
        _: Now,
        key: SessionKey,
        fx: &mut ShardEffects,
    ) -> Option<Box<Session>> {
        for sub in self.moved_subscriptions(key) {
            self.leave_router(key, &sub.filter, sub.group.as_deref(), fx);
        }
        let session = self.sessions.remove(key)?;
        if let Some(arriving) = &session.arriving {
            debug_assert!(arriving.wanted.is_empty() || session.conn.is_none());
        }
        let clientid = session.clientid();
        if let Some(Heir::Node(stamp)) = session.leaving.as_ref().map(|leaving| leaving.heir) {
            self.leaving.remove(&(clientid.into(), stamp));
        }
        if self.shared.registry().release(clientid, session.stamp) {
            self.tell_client(clientid, fx);
        }
        Some(session)
    }

    /// A duplicate that lost, or an operator's wish.
    pub(crate) fn on_kick(
        &mut self,
        now: Now,
        clientid: &str,
        reason: CloseReason,
        older_than: Option<Hlc>,
        fx: &mut ShardEffects,
    ) -> bool {
        let Some(key) = self.sessions.find(clientid) else {
            return false;
        };
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        if older_than.is_some_and(|limit| session.stamp >= limit) {
            return false;
        }
        self.end_session(now, key, reason, fx);
        true
    }

    /// The client has a newer connection on another node, or on another shard that asks another
    /// node for its session. The news of it may be faster than that node's question for the
    /// session, so only the connection goes at once. If nobody asks (each side of a split had a
    /// session of its own), the session ends a little later.
    pub(crate) fn on_elsewhere(
        &mut self,
        now: Now,
        clientid: &str,
        newer: Hlc,
        fx: &mut ShardEffects,
    ) {
        let Some(key) = self.sessions.find(clientid) else {
            return;
        };
        // As old, and without a connection: it moves to that node, or has come from there.
        let goes = |s: &Session| s.stamp < newer || s.stamp == newer && s.conn.is_some();
        if !self.sessions.get(key).is_some_and(goes) {
            return;
        }
        // Whether a delayed will is published depends on what that node asks for.
        let session = self.sessions.get_mut(key);
        let will = session.and_then(|s| s.will.take_if(|will| will.delay_s > 0));
        self.disconnect(now, key, CloseReason::TakenOver, fx);
        if let Some(will) = will {
            let delay_s = will.delay_s;
            if let Some(session) = self.sessions.get_mut(key) {
                session.will = Some(will);
            }
            self.delay_will(now, key, delay_s, fx);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        // One that was asked for already has a deadline of its own, and news that the client has
        // moved on to a third node does not put off the first one.
        let known = std::mem::replace(&mut session.superseded, true);
        if session.leaving.is_none() && !known {
            session.expires_ms = now.mono_ms + TAKEOVER_TIMEOUT_MS;
            self.wheel.arm(session.expires_ms, Timer::Expiry(key));
        }
    }

    pub(crate) fn on_drain(&mut self, now: Now, to: Arc<Redirect>, fx: &mut ShardEffects) {
        self.draining = true;
        self.redirect = to;
        self.drain_some(now, fx);
    }

    /// Closes a connection, and tells the client where to go instead if that is known, or else the
    /// reason.
    pub(crate) fn send_away(
        &mut self,
        now: Now,
        conn: Conn,
        (why, reason): (CloseReason, Reason),
        fx: &mut ShardEffects,
    ) {
        let reason = match self.other_server(conn) {
            None => Some(reason),
            Some(address) => {
                let mut packet = Disconnect::new(Reason::UseAnotherServer);
                packet.properties.set_server_reference(&address);
                let packet = Packet::Disconnect(packet);
                self.send(conn, &packet, Metric::PacketsDisconnectSent, fx);
                None
            }
        };
        self.hang_up(now, conn, why, reason, fx);
    }

    /// Another server for an open client of v5.
    fn other_server(&self, conn: Conn) -> Option<String> {
        let channel = self.channels.get(conn.0 as usize)?;
        if channel.phase != Phase::Open || !channel.version.is_v5() {
            return None;
        }
        let session = self.sessions.get(channel.session)?;
        let listener = &session.client.listener.id;
        let address = self.redirect.of(listener, conn.0 as usize)?;
        Some(address.to_owned())
    }

    /// Closes the next clients of a stopping node.
    pub(crate) fn drain_some(&mut self, now: Now, fx: &mut ShardEffects) {
        let open = |phase: Phase| phase != Phase::Closing;
        let next: Vec<Conn> = self
            .channels
            .iter()
            .filter(|(_, channel)| open(channel.phase))
            .map(|(at, _)| Conn(at as u32))
            .take(DRAIN_STEP + 1)
            .collect();
        for conn in next.iter().take(DRAIN_STEP) {
            let why = (CloseReason::Shutdown, Reason::ServerShuttingDown);
            self.send_away(now, *conn, why, fx);
        }
        if next.len() > DRAIN_STEP {
            self.wheel.arm(now.mono_ms + DRAIN_PAUSE_MS, Timer::Drain);
        } else {
            let token = self.token();
            let shard = self.id;
            fx.tell(ToControl::Settle { shard, token });
            self.emptied = Some(Emptied {
                token,
                settled: false,
                until_ms: now.mono_ms + HANDED_OVER_MAX_MS,
            });
            self.look_drained(now, fx);
        }
    }

    /// The others know what became of this node's clients and wills.
    pub(crate) fn drain_settled(&mut self, now: Now, token: u64, fx: &mut ShardEffects) {
        if let Some(emptied) = self.emptied.as_mut().filter(|e| e.token == token) {
            emptied.settled = true;
            self.look_drained(now, fx);
        }
    }

    /// All clients are gone. The node may end when the others have what concerns them: a will that
    /// was published here must not be theirs, and it must have reached them.
    pub(crate) fn look_drained(&mut self, now: Now, fx: &mut ShardEffects) {
        let Some(emptied) = &self.emptied else { return };
        let handed_over = emptied.settled && self.links.is_idle();
        if handed_over || now.mono_ms >= emptied.until_ms {
            self.emptied = None;
            fx.tell(ToControl::Drained { shard: self.id });
        } else {
            let next = now.mono_ms + HANDED_OVER_LOOK_MS;
            self.wheel.arm(next, Timer::Drained);
        }
    }
}

/// A draining shard without clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Emptied {
    /// Of its question whether the others know everything.
    token: u64,
    settled: bool,
    /// When it does not wait any longer, mono ms.
    until_ms: u64,
}

/// The will as it is published now: its expiry interval counts from here [MQTT-3.3.2-5].
fn dated(now: Now, will: &Will) -> Message {
    let message = &will.message;
    let parts = Parts {
        topic: message.topic(),
        properties: message.properties(),
        payload: message.payload(),
        clientid: "",
    };
    let head = Head {
        qos: message.qos(),
        retain: message.retain(),
        dup: false,
        origin: message.origin().map(Arc::clone),
        id: 0,
        expires_wall_ms: will
            .expiry_s
            .map(|seconds| now.wall_ms.saturating_add(u64::from(seconds) * 1_000)),
    };
    Message::new(parts, head)
}
