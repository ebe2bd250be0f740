//! SUBSCRIBE and UNSUBSCRIBE: every filter is judged for itself, then session and router are
//! changed in one step and the others are told.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dunlin_cluster::Now;
use dunlin_mqtt::{
    Packet, QoS, Reason, RetainHandling, Suback, Subscribe, SubscriptionOptions, TopicFilter,
    Unsuback, Unsubscribe,
};

use crate::access::{Action, Verdict};
use crate::effects::{Conn, ShardEffects, ToControl};
use crate::metrics::Metric;
use crate::router::{SessionKey, SubOptions, Subscribed, Subscriber, SubscriberKey};
use crate::session::{EXCLUSIVE_GROUP, Session, Subscription};
use crate::settings::Mqtt;
use crate::shard::{Shard, Timer};

/// How long a SUBACK waits until other nodes have the route, ms. Longer than any healthy node
/// takes; a client must not wait for a sick one.
const SUBACK_HOLD_MS: u64 = 200;

/// SUBACKs of one connection that may be held at once; more go out at once.
const SUBACKS_HELD_MAX: usize = 1_024;

/// Retained messages that match a new subscription and are not sent yet.
#[derive(Debug)]
pub(crate) struct Replay {
    /// The filter in the router, mountpoint included.
    pub(crate) filter: Box<str>,
    pub(crate) options: SubOptions,
    /// The topic sent last.
    pub(crate) after: Option<String>,
}

/// One filter as it is entered.
pub(crate) struct Wanted<'a> {
    pub(crate) filter: &'a str,
    pub(crate) group: Option<&'a str>,
    pub(crate) options: SubOptions,
    pub(crate) retain_handling: RetainHandling,
}

impl Shard {
    pub(crate) fn on_subscribe(
        &mut self,
        now: Now,
        conn: Conn,
        packet: Subscribe,
        fx: &mut ShardEffects,
    ) {
        self.metrics.count(Metric::PacketsSubscribeReceived);
        let Some(channel) = self.channels.get(conn.0 as usize).filter(|c| c.is_open()) else {
            return;
        };
        let key = channel.session;
        let sub_id = packet.properties.subscription_identifier().unwrap_or(0);
        let mut routes_changed = false;
        let mut reasons = Vec::with_capacity(packet.filters.len());
        for (filter, options) in packet.filters {
            self.metrics.count(Metric::ClientSubscribe);
            let outcome = match &filter {
                Ok(filter) => self.subscribe(key, filter, options, sub_id, fx),
                Err(_) => Err(Reason::TopicFilterInvalid),
            };
            match outcome {
                Ok(changed) => {
                    routes_changed |= changed;
                    reasons.push(Reason::granted(self.granted(key, options)));
                }
                Err(reason) => {
                    let not_allowed = reason == Reason::NotAuthorized;
                    let (auth, other) = (
                        Metric::PacketsSubscribeAuthError,
                        Metric::PacketsSubscribeError,
                    );
                    self.metrics.count(if not_allowed { auth } else { other });
                    reasons.push(reason);
                }
            }
        }
        let suback = Suback {
            packet_id: packet.packet_id,
            reasons,
            properties: dunlin_mqtt::Properties::new(),
        };
        self.answer_subscribe(now, conn, suback, routes_changed, fx);
        self.replay(now, conn, fx);
    }

    fn granted(&self, key: SessionKey, options: SubscriptionOptions) -> QoS {
        let mqtt = self.sessions.get(key).map(|session| &session.client.mqtt);
        mqtt.map_or(options.qos, |mqtt| capped(options.qos, mqtt))
    }

    /// Sends the SUBACK, or holds it until other nodes have the new routes.
    fn answer_subscribe(
        &mut self,
        now: Now,
        conn: Conn,
        suback: Suback,
        routes_changed: bool,
        fx: &mut ShardEffects,
    ) {
        let held = self.channels[conn.0 as usize]
            .rare
            .as_ref()
            .map_or(0, |r| r.subacks.len());
        if !routes_changed || self.shared.live_peers() == 0 || held >= SUBACKS_HELD_MAX {
            self.send(conn, &Packet::Suback(suback), Metric::PacketsSubackSent, fx);
            return;
        }
        let token = self.token();
        let channel = &mut self.channels[conn.0 as usize];
        let mut encoded = BytesMut::new();
        suback.encode(channel.version, &mut encoded);
        channel.rare().subacks.push((token, encoded.freeze()));
        let generation = channel.generation;
        self.tokens.insert(token, (conn, generation));
        fx.tell(ToControl::Settle {
            shard: self.id,
            token,
        });
        self.wheel.arm(
            now.mono_ms + SUBACK_HOLD_MS,
            Timer::Suback(conn, generation, token),
        );
    }

    /// Every live member has the routes of a held SUBACK, or it has waited long enough.
    pub(crate) fn release_suback(&mut self, conn: Conn, token: u64, fx: &mut ShardEffects) {
        self.tokens.remove(&token);
        let Some(channel) = self.channels.get_mut(conn.0 as usize) else {
            return;
        };
        let Some(rare) = &mut channel.rare else {
            return;
        };
        let Some(at) = rare.subacks.iter().position(|(held, _)| *held == token) else {
            return;
        };
        let (_, encoded) = rare.subacks.remove(at);
        if let Some(out) = self.write(conn, fx) {
            out.extend_from_slice(&encoded);
            self.count_sent(conn, Metric::PacketsSubackSent, encoded.len());
        }
    }

    /// Enters one filter. Says whether the node's routes changed.
    pub(crate) fn subscribe(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter,
        options: SubscriptionOptions,
        sub_id: u32,
        fx: &mut ShardEffects,
    ) -> Result<bool, Reason> {
        let session = self.sessions.get(key).ok_or(Reason::UnspecifiedError)?;
        let mqtt = Arc::clone(&session.client.mqtt);
        check_filter(filter, &mqtt)?;
        self.authorize_subscribe(key, filter, options)?;
        let session = self.sessions.get(key).ok_or(Reason::UnspecifiedError)?;
        let mounted = mounted(session, filter.filter());
        let qos = capped(options.qos, &mqtt);
        let wanted = Wanted {
            filter: &mounted,
            group: group_of(filter),
            options: SubOptions::new(qos)
                .with_no_local(options.no_local)
                .with_retain_as_published(options.retain_as_published)
                .with_sub_id(sub_id),
            retain_handling: options.retain_handling,
        };
        let max = mqtt
            .max_subscriptions
            .map_or(usize::MAX, |max| max as usize);
        if session.subscriptions.len() >= max && !self.has_subscription(key, &wanted) {
            return Err(Reason::QuotaExceeded);
        }
        if filter.is_exclusive() && self.is_taken(key, &wanted) {
            return Err(Reason::QuotaExceeded);
        }
        let done = self.enter_subscription(key, &wanted, fx);
        self.plan_replay(key, &wanted, done.replaced.is_none(), &mqtt);
        Ok(done.first_local || wanted.group.is_some())
    }

    fn has_subscription(&self, key: SessionKey, wanted: &Wanted<'_>) -> bool {
        let Some(filter) = self.shared.router().read().filter_id(wanted.filter) else {
            return false;
        };
        self.sessions
            .get(key)
            .is_some_and(|s| s.subscriptions.contains(filter, wanted.group))
    }

    /// Whether somebody else, here or on another node, has the exclusive subscription.
    fn is_taken(&self, key: SessionKey, wanted: &Wanted<'_>) -> bool {
        let router = self.shared.router().read();
        let at = router.find_group_ref(EXCLUSIVE_GROUP, wanted.filter);
        let own = SubscriberKey {
            session: key,
            shard: self.id,
        };
        at.is_some_and(|at| {
            let group = router.group(at);
            !group.remote().is_empty() || group.local().iter().any(|member| member.key() != own)
        })
    }

    /// Changes router and session, and tells control.
    pub(crate) fn enter_subscription(
        &mut self,
        key: SessionKey,
        wanted: &Wanted<'_>,
        fx: &mut ShardEffects,
    ) -> Subscribed {
        let subscriber = Subscriber {
            session: key,
            options: wanted.options,
            shard: self.id,
        };
        let mut router = self.shared.router().write();
        let (done, group) = match wanted.group {
            None => (router.subscribe(wanted.filter, subscriber), None),
            Some(group) => {
                let done = router.add_member(group, wanted.filter, subscriber);
                let at = router.find_group_ref(group, wanted.filter);
                (done, at.map(|at| Arc::clone(router.group(at).key())))
            }
        };
        drop(router);
        if self.shared.is_followed() {
            tell_routes(wanted.filter, wanted.group, done.first_local, fx);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return done;
        };
        let subscription = Subscription {
            filter: done.filter,
            options: wanted.options,
            retain_handling: wanted.retain_handling as u8,
            group,
        };
        session.subscriptions.put(subscription);
        done
    }

    fn plan_replay(&mut self, key: SessionKey, wanted: &Wanted<'_>, new: bool, mqtt: &Mqtt) {
        // Retained messages are never sent to a shared subscription.
        let asked = match wanted.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => new,
            RetainHandling::DoNotSend => false,
        };
        let shared = wanted.group.is_some_and(|group| group != EXCLUSIVE_GROUP);
        if !asked || shared || !mqtt.retain_available {
            return;
        }
        if self.shared.retained().is_empty() {
            return;
        }
        let Some(conn) = self.sessions.get(key).and_then(|session| session.conn) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(conn.0 as usize) else {
            return;
        };
        let replay = Replay {
            filter: wanted.filter.into(),
            options: wanted.options,
            after: None,
        };
        channel.rare().replays.push_back(replay);
    }

    fn authorize_subscribe(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter,
        options: SubscriptionOptions,
    ) -> Result<(), Reason> {
        let Some(authorizer) = &self.access.authorizer else {
            return Ok(());
        };
        let Some(session) = self.sessions.get(key) else {
            return Ok(());
        };
        if session
            .conn
            .is_some_and(|c| self.channels[c.0 as usize].superuser)
        {
            self.metrics.count(Metric::AuthorizationSuperuser);
            return Ok(());
        }
        let action = Action::Subscribe {
            qos: options.qos.as_u8(),
        };
        self.metrics.count(Metric::ClientAuthorize);
        match authorizer.authorize(&session.identity(), action, filter.filter()) {
            Verdict::Allow => {
                self.metrics.count(Metric::AuthorizationAllow);
                Ok(())
            }
            Verdict::Deny => {
                self.metrics.count(Metric::AuthorizationDeny);
                Err(Reason::NotAuthorized)
            }
        }
    }

    pub(crate) fn on_unsubscribe(
        &mut self,
        conn: Conn,
        packet: &Unsubscribe,
        fx: &mut ShardEffects,
    ) {
        self.metrics.count(Metric::PacketsUnsubscribeReceived);
        let Some(channel) = self.channels.get(conn.0 as usize).filter(|c| c.is_open()) else {
            return;
        };
        let key = channel.session;
        let mut reasons = Vec::with_capacity(packet.filters.len());
        for filter in &packet.filters {
            self.metrics.count(Metric::ClientUnsubscribe);
            reasons.push(match filter {
                Ok(filter) if self.unsubscribe(key, filter, fx) => Reason::Success,
                Ok(_) => Reason::NoSubscriptionExisted,
                Err(_) => {
                    self.metrics.count(Metric::PacketsUnsubscribeError);
                    Reason::TopicFilterInvalid
                }
            });
        }
        let unsuback = Unsuback {
            packet_id: packet.packet_id,
            reasons,
            properties: dunlin_mqtt::Properties::new(),
        };
        self.send(
            conn,
            &Packet::Unsuback(unsuback),
            Metric::PacketsUnsubackSent,
            fx,
        );
    }

    /// Ends one subscription; false if there was none.
    pub(crate) fn unsubscribe(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter,
        fx: &mut ShardEffects,
    ) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let mounted = mounted(session, filter.filter());
        let Some(id) = self.shared.router().read().filter_id(&mounted) else {
            return false;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        if !session.subscriptions.remove(id, group_of(filter)) {
            return false;
        }
        let conn = session.conn;
        self.leave_router(key, &mounted, group_of(filter), fx);
        if let Some(rare) =
            conn.and_then(|conn| self.channels.get_mut(conn.0 as usize)?.rare.as_mut())
        {
            rare.replays.retain(|replay| *replay.filter != *mounted);
        }
        true
    }

    /// Takes a subscription out of the router and tells control.
    pub(crate) fn leave_router(
        &self,
        key: SessionKey,
        filter: &str,
        group: Option<&str>,
        fx: &mut ShardEffects,
    ) {
        let subscriber = SubscriberKey {
            session: key,
            shard: self.id,
        };
        let mut router = self.shared.router().write();
        let gone = match group {
            None => router.unsubscribe(filter, subscriber),
            Some(group) => router.remove_member(group, filter, subscriber),
        };
        drop(router);
        if gone.removed.is_some() && self.shared.is_followed() {
            tell_routes(filter, group, gone.last_local, fx);
        }
    }
}

/// The QoS a subscription gets.
fn capped(qos: QoS, mqtt: &Mqtt) -> QoS {
    qos.min(QoS::from_u8(mqtt.max_qos_allowed).unwrap_or(QoS::ExactlyOnce))
}

/// A change of the routes this node has. The count of a group's members counts too.
fn tell_routes(filter: &str, group: Option<&str>, changed: bool, fx: &mut ShardEffects) {
    let filter_bytes = || Bytes::copy_from_slice(filter.as_bytes());
    match group {
        None if changed => {
            fx.tell(ToControl::RouteChanged {
                filter: filter_bytes(),
            });
        }
        None => {}
        Some(group) => {
            let group = Bytes::copy_from_slice(group.as_bytes());
            fx.tell(ToControl::GroupChanged {
                group,
                filter: filter_bytes(),
            });
        }
    }
}

/// What the settings allow.
fn check_filter(filter: &TopicFilter, mqtt: &Mqtt) -> Result<(), Reason> {
    if filter.levels().count() > mqtt.max_topic_levels as usize {
        return Err(Reason::TopicFilterInvalid);
    }
    if filter.has_wildcard() && !mqtt.wildcard_subscription {
        return Err(Reason::WildcardSubscriptionsNotSupported);
    }
    if filter.is_shared() && !mqtt.shared_subscription {
        return Err(Reason::SharedSubscriptionsNotSupported);
    }
    if filter.is_exclusive() && !mqtt.exclusive_subscription {
        return Err(Reason::TopicFilterInvalid);
    }
    Ok(())
}

/// The group a filter is entered in; an exclusive one has a group of its own.
fn group_of(filter: &TopicFilter) -> Option<&str> {
    if filter.is_exclusive() {
        Some(EXCLUSIVE_GROUP)
    } else {
        filter.share()
    }
}

/// The filter in the router: under the client's mountpoint.
fn mounted<'a>(session: &Session, filter: &'a str) -> std::borrow::Cow<'a, str> {
    match &session.client.mountpoint {
        Some(mountpoint) => format!("{mountpoint}{filter}").into(),
        None => filter.into(),
    }
}
