//! A client identifier has one session: how a new connection gets it from wherever it is.
//!
//! ```text
//!  same shard    the session stays, the connection is exchanged
//!  other shard   Take: the old shard points the router at the heir in one write, waits until every
//!                shard's earlier letters have arrived (fence), then hands the session over
//!  other node    Begin: the old node copies the session and keeps collecting; the new node enters
//!                the subscriptions, waits until all nodes route here (settled) and until what they
//!                had sent to the old node only has arrived there (fence), then Finish brings the
//!                rest
//! ```
//! While a session is on its way its messages are collected on both sides and joined at the end, so
//! nothing is lost and nothing comes twice. The newest connection wins; a loser gets 0x8E.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_cluster::{Hlc, Now};
use dunlin_mqtt::{Reason, RetainHandling};

use crate::channel::connect::{Welcome, new_session};
use crate::channel::qos2::AwaitingRel;
use crate::channel::subscribe::Wanted;
use crate::channel::{Paused, Phase};
use crate::effects::{
    CloseReason, Conn, ReplyTo, ShardEffects, TakeoverRequest, TakeoverResult, TakeoverStep,
    ToControl, ToShard,
};
use crate::metrics::Metric;
use crate::registry::{Place, Previous};
use crate::router::{NodeIndex, SessionKey, SubscriberKey};
use crate::session::{Arriving, Heir, Leaving, MovedSubscription, SessionState, join_collected};
use crate::shard::deliver::count_dropped;
use crate::shard::{Shard, Timer};

/// How long another node may take to answer, ms: what EMQX allows per step.
pub(crate) const TAKEOVER_TIMEOUT_MS: u64 = 15_000;

/// How long a session that was copied to another node collects before it is given up, ms: the new
/// owner finishes within a second, or within [`FINISH_MAX_MS`] when a link hangs, unless it died.
pub(crate) const LEAVING_MAX_MS: u64 = 30_000;

/// How long copies of messages that the old node has handed over are expected, ms. They come late
/// over a link that hangs: after as long as that takes, which is not known.
const HANDED_MS: u64 = 60_000;

/// How long `Finish` waits for other nodes' routes and for what is on their links, ms: longer than
/// a data connection that hangs goes unnoticed (3 s) and is dialed again, also if a cut that nobody
/// may notice (1.5 s) comes on top. Only what follows the CONNACK waits, and only when something
/// hangs: members that cannot be reached are left out.
pub(crate) const FINISH_MAX_MS: u64 = 6_000;

/// A takeover this shard asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingTakeover {
    key: SessionKey,
    step: TakeoverStep,
    /// The other node; `None`: another shard.
    node: Option<NodeIndex>,
    /// What the session was asked for with; that of its present connection may be newer.
    stamp: Hlc,
}

impl Shard {
    /// Finds or makes the session of an accepted CONNECT.
    pub(crate) fn claim_session(
        &mut self,
        now: Now,
        conn: Conn,
        welcome: Welcome,
        fx: &mut ShardEffects,
    ) {
        let clientid = welcome.origin.clientid.clone();
        let clean_start = welcome.clean_start;
        if let Some(key) = self.sessions.find(&clientid)
            && self
                .sessions
                .get(key)
                .is_some_and(|session| session.leaving.is_none())
        {
            if !clean_start && !self.is_superseded(key, &clientid) {
                self.resume_here(now, conn, key, welcome, fx);
                return;
            }
            self.metrics.count(Metric::SessionDiscarded);
            self.end_session(now, key, CloseReason::Discarded, fx);
        }
        let mut session = new_session(now, welcome);
        session.conn = Some(conn);
        let key = self.sessions.insert(session);
        self.channels[conn.0 as usize].session = key;
        let previous = self.claim(now, key, &clientid, fx);
        let step = if clean_start {
            TakeoverStep::Discard
        } else {
            TakeoverStep::Take
        };
        match previous {
            Previous::Local { shard, .. } if shard != self.id => {
                self.ask_shard(conn, key, step, shard, fx);
            }
            Previous::Remote { node, .. } if self.shared.reachable(node) => {
                let step = if clean_start {
                    step
                } else {
                    TakeoverStep::Begin
                };
                self.ask_node(now, Some(conn), key, (step, node), fx);
            }
            _ => self.open(now, conn, false, fx),
        }
    }

    /// Whether a node within reach has a newer session of the client, or another shard has taken it
    /// over from there. After a split, or when this node has joined the other's cluster, the older
    /// one stays for a while.
    fn is_superseded(&self, key: SessionKey, clientid: &str) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        match self.shared.registry().lookup(clientid) {
            Some(Place::Remote { node, hlc }) => {
                session.arriving.is_none() && hlc > session.stamp && self.shared.reachable(node)
            }
            // Without that mark the other shard's question may still be on its way here.
            Some(Place::Local { shard, hlc, .. }) => {
                session.superseded && shard != self.id && hlc > session.stamp
            }
            None => false,
        }
    }

    fn claim(
        &mut self,
        now: Now,
        key: SessionKey,
        clientid: &str,
        fx: &mut ShardEffects,
    ) -> Previous {
        let (stamp, previous) = self.shared.claim(now, clientid, (self.id, key.slot));
        if let Some(session) = self.sessions.get_mut(key) {
            session.stamp = stamp;
            session.superseded = false;
        }
        // Nobody asks that shard for anything: the newer session is wanted.
        if let Previous::Remote {
            here: Some(shard), ..
        } = previous
            && shard != self.id
        {
            let clientid = clientid.to_owned();
            let newer = stamp;
            fx.send(shard, ToShard::Elsewhere { clientid, newer });
        }
        self.tell_client(clientid, fx);
        previous
    }

    /// This node's claim on a client identifier has changed.
    pub(crate) fn tell_client(&self, clientid: &str, fx: &mut ShardEffects) {
        if self.shared.is_followed() {
            fx.tell(ToControl::ClientChanged {
                clientid: clientid.to_owned(),
            });
        }
    }

    /// The session is in this shard: only the connection is exchanged.
    fn resume_here(
        &mut self,
        now: Now,
        conn: Conn,
        key: SessionKey,
        welcome: Welcome,
        fx: &mut ShardEffects,
    ) {
        self.disconnect(now, key, CloseReason::TakenOver, fx);
        // One that waits is cancelled by the return of its client [MQTT-3.1.3-9].
        self.drop_will(key, fx);
        let clientid = welcome.origin.clientid.clone();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.origin = welcome.origin;
        *session.client = welcome.client;
        session.will = welcome.will;
        session.expiry_s = welcome.expiry_s;
        session.window = welcome.receive_maximum;
        session.conn = Some(conn);
        let arriving = session.arriving.as_ref().map(|arriving| arriving.installed);
        self.channels[conn.0 as usize].session = key;
        let previous = self.claim(now, key, &clientid, fx);
        let elsewhere = match previous {
            Previous::Local { shard, .. } if shard != self.id => Some(shard),
            _ => None,
        };
        match (arriving, elsewhere) {
            (Some(false), Some(shard)) => {
                // The session was on its way here and another shard was faster: ask there.
                self.ask_shard(conn, key, TakeoverStep::Take, shard, fx);
                self.refuse_older(key, fx);
            }
            (Some(false), None) => self.hold_connect(conn, fx),
            (_, Some(shard)) => {
                // That shard's claim was faster than its letter: it has nothing of the session.
                let older_than = self.sessions.get(key).map(|session| session.stamp);
                let reason = CloseReason::TakenOver;
                let clientid = clientid.into_string();
                fx.send(
                    shard,
                    ToShard::Kick {
                        clientid,
                        reason,
                        older_than,
                    },
                );
                self.open(now, conn, true, fx);
            }
            (_, None) => self.open(now, conn, true, fx),
        }
    }

    /// Whoever wanted a session that is on its way before its present connection is told that there
    /// is none. It would hear the same in the end, but may be the one we wait for.
    fn refuse_older(&mut self, key: SessionKey, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let stamp = session.stamp;
        let Some(arriving) = &mut session.arriving else {
            return;
        };
        let older = |(request, _): &(TakeoverRequest, ReplyTo)| request.stamp <= stamp;
        let wanted = std::mem::take(&mut arriving.wanted);
        let (refused, wanted) = wanted.into_iter().partition::<Vec<_>, _>(older);
        arriving.wanted = wanted;
        for (_, reply) in refused {
            send_reply(reply, TakeoverResult::None, fx);
        }
    }

    fn ask_shard(
        &mut self,
        conn: Conn,
        key: SessionKey,
        step: TakeoverStep,
        shard: u16,
        fx: &mut ShardEffects,
    ) {
        let token = self.await_session(Some(conn), key, step, None, fx);
        let request = self.request(key, step, true);
        let reply = ReplyTo::Shard {
            shard: self.id,
            token,
        };
        fx.send(shard, ToShard::Takeover { request, reply });
    }

    /// Closes a session's connection for its successor.
    pub(crate) fn disconnect(
        &mut self,
        now: Now,
        key: SessionKey,
        why: CloseReason,
        fx: &mut ShardEffects,
    ) {
        let Some(old) = self.sessions.get(key).and_then(|session| session.conn) else {
            return;
        };
        let reason = match why {
            CloseReason::Kicked => Reason::AdministrativeAction,
            _ => Reason::SessionTakenOver,
        };
        if why == CloseReason::TakenOver {
            self.metrics.count(Metric::SessionTakenover);
        }
        self.hang_up(now, old, why, Some(reason), fx);
    }

    fn request(&self, key: SessionKey, step: TakeoverStep, here: bool) -> TakeoverRequest {
        let session = self
            .sessions
            .get(key)
            .expect("the session was just claimed for");
        TakeoverRequest {
            clientid: session.clientid().to_owned(),
            stamp: session.stamp,
            step,
            heir: here.then_some((self.id, key)),
        }
    }

    fn hold_connect(&mut self, conn: Conn, fx: &mut ShardEffects) {
        let channel = &mut self.channels[conn.0 as usize];
        channel.phase = Phase::Held;
        if channel.paused.set(Paused::HELD) {
            fx.pause.push(conn);
        }
    }

    /// From here on the session collects and CONNACK waits.
    fn await_session(
        &mut self,
        conn: Option<Conn>,
        key: SessionKey,
        step: TakeoverStep,
        node: Option<NodeIndex>,
        fx: &mut ShardEffects,
    ) -> u64 {
        let mut stamp = Hlc::default();
        if let Some(session) = self.sessions.get_mut(key) {
            let arriving = session
                .arriving
                .get_or_insert_with(Box::<Arriving>::default);
            arriving.outstanding += 1;
            stamp = session.stamp;
        }
        if let Some(conn) = conn {
            self.hold_connect(conn, fx);
        }
        let token = self.token();
        let pending = PendingTakeover {
            key,
            step,
            node,
            stamp,
        };
        self.takeovers.insert(token, pending);
        token
    }

    pub(crate) fn ask_node(
        &mut self,
        now: Now,
        conn: Option<Conn>,
        key: SessionKey,
        (step, node): (TakeoverStep, NodeIndex),
        fx: &mut ShardEffects,
    ) {
        let token = self.await_session(conn, key, step, Some(node), fx);
        let request = self.request(key, step, false);
        fx.tell(ToControl::Takeover {
            shard: self.id,
            token,
            node,
            request,
        });
        self.wheel
            .arm(now.mono_ms + TAKEOVER_TIMEOUT_MS, Timer::Takeover(token));
    }

    /// The client left while its session was on the way here.
    pub(crate) fn abandon(&mut self, now: Now, key: SessionKey, conn: Conn, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.conn != Some(conn) {
            return;
        }
        session.conn = None;
        // No CONNACK was sent, so there never was a connection that could end badly.
        session.will = None;
        if session.arriving.is_none() {
            self.keep_or_end(now, key, fx);
        }
    }

    /// Another shard or node wants a session of this shard.
    pub(crate) fn on_takeover(
        &mut self,
        now: Now,
        request: TakeoverRequest,
        reply: ReplyTo,
        fx: &mut ShardEffects,
    ) {
        if request.step == TakeoverStep::Finish {
            return self.finish_leaving(now, request, reply, fx);
        }
        let key = self.sessions.find(&request.clientid);
        let Some((key, session)) = key.and_then(|key| Some((key, self.sessions.get(key)?))) else {
            return send_reply(reply, TakeoverResult::None, fx);
        };
        // Who takes what this node has offered has no newer connection: the session keeps its age.
        let yields = session.stamp < request.stamp
            || session.stamp == request.stamp && session.conn.is_none();
        if !yields || session.leaving.is_some() {
            return send_reply(reply, TakeoverResult::None, fx);
        }
        if request.step == TakeoverStep::Discard {
            self.metrics.count(Metric::SessionDiscarded);
            self.end_session(now, key, CloseReason::Discarded, fx);
            return send_reply(reply, TakeoverResult::None, fx);
        }
        let arriving = session.arriving.is_some();
        self.disconnect(now, key, CloseReason::TakenOver, fx);
        // The session goes on, so a will that waits is cancelled [MQTT-3.1.3-9].
        self.drop_will(key, fx);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        match &mut session.arriving {
            Some(on_its_way) if arriving => on_its_way.wanted.push((request, reply)),
            _ => match request.heir {
                Some(heir) => self.leave_to_shard(now, key, heir, reply, fx),
                None => self.leave_to_node(now, key, request.stamp, reply, fx),
            },
        }
    }

    fn leave_to_shard(
        &mut self,
        now: Now,
        key: SessionKey,
        (shard, session): (u16, SessionKey),
        reply: ReplyTo,
        fx: &mut ShardEffects,
    ) {
        let from = SubscriberKey {
            session: key,
            shard: self.id,
        };
        let to = SubscriberKey { session, shard };
        let moved = self.moved_subscriptions(key);
        let mut router = self.shared.router().write();
        for sub in &moved {
            match &sub.group {
                None => router.reassign(&sub.filter, from, to),
                Some(group) => router.reassign_member(group, &sub.filter, from, to),
            };
        }
        drop(router);
        let others = self.shared.shards().saturating_sub(1);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.leaving = Some(Box::new(Leaving::new(reply, Heir::Shard, others)));
        self.fence_shards(now, key, fx);
    }

    /// Waits until the other shards' earlier letters for a leaving session are here.
    fn fence_shards(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let others = self.shared.shards().saturating_sub(1);
        if others == 0 {
            return self.hand_over(now, key, fx);
        }
        let token = self.token();
        self.fences.insert(token, key);
        for other in (0..=others).filter(|other| *other != self.id) {
            fx.send(
                other,
                ToShard::Fence {
                    from: self.id,
                    token,
                },
            );
        }
    }

    fn hand_over(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let leaving = self.sessions.get(key).and_then(|s| s.leaving.as_ref());
        match leaving.map(|leaving| leaving.heir) {
            Some(Heir::Shard) => self.hand_out(key, fx),
            Some(Heir::Node(_)) => self.hand_rest(now, key, fx),
            None => {}
        }
    }

    /// A shard's earlier letters are here.
    pub(crate) fn on_fenced(&mut self, now: Now, token: u64, fx: &mut ShardEffects) {
        let Some(&key) = self.fences.get(&token) else {
            return;
        };
        let session = self.sessions.get_mut(key);
        let Some(leaving) = session.and_then(|session| session.leaving.as_mut()) else {
            self.fences.remove(&token);
            return;
        };
        leaving.fences_left = leaving.fences_left.saturating_sub(1);
        if leaving.fences_left == 0 {
            self.fences.remove(&token);
            self.hand_over(now, key, fx);
        }
    }

    /// Takes a leaving session out of this shard and sends it to its heir.
    fn hand_out(&mut self, key: SessionKey, fx: &mut ShardEffects) {
        let subscriptions = self.moved_subscriptions(key);
        let Some(mut session) = self.sessions.remove(key) else {
            return;
        };
        let Some(leaving) = session.leaving.take() else {
            return;
        };
        let state = take_state(&mut session, subscriptions);
        send_reply(leaving.reply, TakeoverResult::Session(Box::new(state)), fx);
    }

    /// Copies a session for another node and goes on collecting for it.
    fn leave_to_node(
        &mut self,
        now: Now,
        key: SessionKey,
        stamp: Hlc,
        reply: ReplyTo,
        fx: &mut ShardEffects,
    ) {
        let subscriptions = self.moved_subscriptions(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let state = take_state(session, subscriptions);
        session.leaving = Some(Box::new(Leaving::new(reply, Heir::Node(stamp), 0)));
        self.leaving.insert((session.clientid().into(), stamp), key);
        session.expires_ms = now.mono_ms + LEAVING_MAX_MS;
        self.wheel.arm(session.expires_ms, Timer::Expiry(key));
        send_reply(reply, TakeoverResult::Session(Box::new(state)), fx);
    }

    /// Routes have moved: the rest goes over and the session ends here, once what other shards of
    /// this node had for it is in it.
    fn finish_leaving(
        &mut self,
        now: Now,
        request: TakeoverRequest,
        reply: ReplyTo,
        fx: &mut ShardEffects,
    ) {
        let others = self.shared.shards().saturating_sub(1);
        let asked = (request.clientid.into_boxed_str(), request.stamp);
        let key = self.leaving.remove(&asked);
        let session = key.and_then(|key| Some((key, self.sessions.get_mut(key)?)));
        let leaving = session.and_then(|(key, session)| Some((key, session.leaving.as_mut()?)));
        let Some((key, leaving)) = leaving else {
            return send_reply(reply, TakeoverResult::None, fx);
        };
        leaving.reply = reply;
        leaving.fences_left = others;
        self.fence_shards(now, key, fx);
    }

    fn hand_rest(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(leaving) = session.leaving.take() else {
            return;
        };
        let mut rest = take_state(session, Vec::new());
        let reply = leaving.reply;
        leaving.tell_dropped(&mut rest);
        self.forget_session(now, key, fx);
        send_reply(reply, TakeoverResult::Session(Box::new(rest)), fx);
    }

    /// The subscriptions of a session by name.
    pub(crate) fn moved_subscriptions(&self, key: SessionKey) -> Vec<MovedSubscription> {
        let Some(session) = self.sessions.get(key) else {
            return Vec::new();
        };
        let router = self.shared.router().read();
        let moved = |sub: &crate::session::Subscription| MovedSubscription {
            filter: router.filter(sub.filter).to_owned(),
            group: sub.group.as_ref().map(|key| key.group().to_owned()),
            options: sub.options,
            retain_handling: sub.retain_handling,
        };
        session.subscriptions.iter().map(moved).collect()
    }

    /// The answer to a takeover of this shard.
    pub(crate) fn on_taken_over(
        &mut self,
        now: Now,
        token: u64,
        result: TakeoverResult,
        fx: &mut ShardEffects,
    ) {
        let Some(pending) = self.takeovers.remove(&token) else {
            return;
        };
        self.asked_for_rest.remove(&token);
        let key = pending.key;
        if self.sessions.get(key).is_none() {
            // It ended meanwhile (a newer clean start): what came for it is not wanted.
            if let TakeoverResult::Session(state) = result {
                for sub in state.subscriptions {
                    self.leave_router(key, &sub.filter, sub.group.as_deref(), fx);
                }
            }
            return;
        }
        let state = match result {
            TakeoverResult::Session(state) => Some(state),
            TakeoverResult::None => None,
            TakeoverResult::Failed => {
                tracing::warn!(step = ?pending.step, "takeover_failed");
                None
            }
        };
        if pending.step == TakeoverStep::Finish {
            self.join_rest(now, key, state);
            self.settled_down(now, key, fx);
            return;
        }
        let copied = pending.step == TakeoverStep::Begin && state.is_some();
        let found = state.is_some();
        if let Some(state) = state {
            self.install(now, key, *state, copied, fx);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(arriving) = &mut session.arriving else {
            return;
        };
        arriving.present |= found;
        if copied {
            arriving.copied = pending.node.map(|node| (node, pending.stamp));
        }
        arriving.outstanding = arriving.outstanding.saturating_sub(1);
        let (left, present) = (arriving.outstanding, arriving.present);
        if left > 0 {
            return;
        }
        match arriving.copied.take() {
            Some(from) => {
                arriving.installed = true;
                self.take_waiting_will(now, key, fx);
                self.wait_for_routes(now, key, from, fx);
                self.open_held(now, key, true, fx);
            }
            None => self.arrived(now, key, present, fx),
        }
    }

    pub(crate) fn on_takeover_timeout(&mut self, now: Now, token: u64, fx: &mut ShardEffects) {
        if self.takeovers.contains_key(&token) {
            self.on_taken_over(now, token, TakeoverResult::Failed, fx);
        }
    }

    /// Enters a session that came from elsewhere.
    fn install(
        &mut self,
        now: Now,
        key: SessionKey,
        state: SessionState,
        copied: bool,
        fx: &mut ShardEffects,
    ) {
        for sub in &state.subscriptions {
            if copied {
                self.enter_subscription(key, &wanted(sub), fx);
            } else {
                self.adopt_subscription(key, sub);
            }
        }
        let copies = if copied { state.copies() } else { state.handed };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.created_at_wall_ms = state.created_at_wall_ms;
        session.dropped = session.dropped.saturating_add(state.dropped);
        session.expect_copies(copies, now.mono_ms + HANDED_MS);
        for exchange in state.inflight {
            session.inflight.restore(exchange, now.mono_ms);
        }
        let rule = Arc::clone(&session.client.mqtt);
        for queued in state.queue {
            session.queue.push(queued, &rule);
        }
        if !state.awaiting_rel.is_empty() {
            let since_s = (now.mono_ms / 1_000) as u32;
            let ids = state.awaiting_rel.into_iter();
            let mut waiting = AwaitingRel::from_ids(ids, since_s);
            if let Some(timeout_ms) = rule.await_rel_timeout_ms {
                waiting.armed = true;
                self.wheel
                    .arm(now.mono_ms + timeout_ms, Timer::AwaitRel(key));
            }
            session.awaiting_rel = Some(Box::new(waiting));
        }
    }

    /// A subscription that the former owner has pointed at this session in the router already.
    fn adopt_subscription(&mut self, key: SessionKey, sub: &MovedSubscription) {
        let router = self.shared.router().read();
        let Some(filter) = router.filter_id(&sub.filter) else {
            return;
        };
        let group = sub.group.as_deref().and_then(|group| {
            let at = router.find_group_ref(group, &sub.filter)?;
            Some(Arc::clone(router.group(at).key()))
        });
        drop(router);
        if let Some(session) = self.sessions.get_mut(key) {
            session.subscriptions.put(crate::session::Subscription {
                filter,
                options: sub.options,
                retain_handling: sub.retain_handling,
                group,
            });
        }
    }

    /// `Finish` follows when every node routes here and nothing is on the way to the old node.
    fn wait_for_routes(
        &mut self,
        now: Now,
        key: SessionKey,
        (node, stamp): (NodeIndex, Hlc),
        fx: &mut ShardEffects,
    ) {
        let token = self.token();
        let pending = PendingTakeover {
            key,
            step: TakeoverStep::Finish,
            node: Some(node),
            stamp,
        };
        self.takeovers.insert(token, pending);
        fx.tell(ToControl::Settle {
            shard: self.id,
            token,
        });
        self.wheel
            .arm(now.mono_ms + FINISH_MAX_MS, Timer::Finish(token));
    }

    /// Routes have settled: what was sent by the old ones is waited for. False if the token is for
    /// another wait.
    pub(crate) fn routes_settled(&mut self, token: u64, fx: &mut ShardEffects) -> bool {
        let Some(pending) = self.takeovers.get(&token) else {
            return false;
        };
        if let Some(towards) = pending.node {
            fx.tell(ToControl::FenceLinks {
                shard: self.id,
                token,
                towards,
            });
        }
        true
    }

    /// Asks for the rest of a session, once.
    pub(crate) fn ask_for_rest(&mut self, now: Now, token: u64, fx: &mut ShardEffects) {
        let Some(pending) = self.takeovers.get(&token).copied() else {
            return;
        };
        let (Some(node), true) = (pending.node, self.sessions.get(pending.key).is_some()) else {
            self.takeovers.remove(&token);
            return;
        };
        if !self.asked_for_rest.insert(token) {
            return;
        }
        let request = TakeoverRequest {
            stamp: pending.stamp,
            ..self.request(pending.key, TakeoverStep::Finish, false)
        };
        fx.tell(ToControl::Takeover {
            shard: self.id,
            token,
            node,
            request,
        });
        self.wheel
            .arm(now.mono_ms + TAKEOVER_TIMEOUT_MS, Timer::Takeover(token));
    }

    /// What the former node collected, what this one did, each message once.
    fn join_rest(&mut self, now: Now, key: SessionKey, rest: Option<Box<SessionState>>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(arriving) = &mut session.arriving else {
            return;
        };
        let ours: Vec<_> = arriving.collected.take().collect();
        let rest = rest.unwrap_or_default();
        let rule = Arc::clone(&session.client.mqtt);
        let (joined, unmet) = join_collected(rest.queue, rest.handed, ours);
        session.dropped = session.dropped.saturating_add(rest.dropped);
        for queued in joined {
            if let Some((_, reason)) = session.queue.push(queued, &rule) {
                count_dropped(&self.metrics, session, reason);
            }
        }
        session.expect_copies(unmet, now.mono_ms + HANDED_MS);
    }

    /// A session is here: what was collected follows what came with it.
    fn arrived(&mut self, now: Now, key: SessionKey, present: bool, fx: &mut ShardEffects) {
        if !present && self.sessions.get(key).is_some_and(|s| s.conn.is_none()) {
            return self.give_up(now, key, fx);
        }
        self.join_rest(now, key, None);
        if let Some(session) = self.sessions.get_mut(key)
            && session
                .arriving
                .as_ref()
                .is_some_and(|a| a.wanted.is_empty())
        {
            session.arriving = None;
        }
        self.open_held(now, key, present, fx);
        self.settled_down(now, key, fx);
    }

    /// Nothing came, and no CONNACK has told anybody of this session: there is none here. Kept or
    /// handed on, it would be taken for the one that its client knows, without what that has.
    fn give_up(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let session = self.sessions.get_mut(key);
        let arriving = session.and_then(|session| session.arriving.take());
        for (_, reply) in arriving.map_or_else(Vec::new, |arriving| arriving.wanted) {
            send_reply(reply, TakeoverResult::None, fx);
        }
        self.forget_session(now, key, fx);
    }

    fn open_held(&mut self, now: Now, key: SessionKey, present: bool, fx: &mut ShardEffects) {
        match self.sessions.get(key).and_then(|session| session.conn) {
            Some(conn) if self.channels[conn.0 as usize].phase == Phase::Held => {
                self.open(now, conn, present, fx);
            }
            _ => {}
        }
    }

    /// The takeover is over: the session delivers, stays without a connection, or goes on to the
    /// next who wants it.
    fn settled_down(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let wanted = session
            .arriving
            .take()
            .map_or_else(Vec::new, |arriving| arriving.wanted);
        let connected = session.conn.is_some();
        if !wanted.is_empty() {
            for (request, reply) in wanted {
                self.on_takeover(now, request, reply, fx);
            }
        } else if connected {
            self.pump(now, key, fx);
        } else {
            self.keep_or_end(now, key, fx);
        }
    }
}

pub(crate) fn send_reply(reply: ReplyTo, result: TakeoverResult, fx: &mut ShardEffects) {
    match reply {
        ReplyTo::Shard { shard, token } => {
            fx.send(shard, ToShard::TakenOver { token, result });
        }
        ReplyTo::Call(call) => fx.tell(ToControl::TakeoverReply { call, result }),
    }
}

fn wanted(sub: &MovedSubscription) -> Wanted<'_> {
    Wanted {
        filter: &sub.filter,
        group: sub.group.as_deref(),
        options: sub.options,
        retain_handling: RetainHandling::from_u8(sub.retain_handling).unwrap_or_default(),
    }
}

fn take_state(
    session: &mut crate::session::Session,
    subscriptions: Vec<MovedSubscription>,
) -> SessionState {
    let awaiting = session.awaiting_rel.take();
    SessionState {
        created_at_wall_ms: session.created_at_wall_ms,
        subscriptions,
        inflight: session.inflight.take().collect(),
        queue: session.queue.take().collect(),
        awaiting_rel: awaiting.map_or_else(Vec::new, |waiting| waiting.ids().collect()),
        // Of the rest only what is dropped from here on.
        dropped: std::mem::take(&mut session.dropped),
        // The former owner still knows them: it collects until the end.
        handed: session
            .handed
            .as_ref()
            .map_or_else(BTreeMap::new, |handed| handed.copies.clone()),
    }
}
