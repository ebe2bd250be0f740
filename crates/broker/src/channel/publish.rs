//! PUBLISH from a client and the acknowledgements of both directions.
//!
//! A publish is checked here, in the order of the specification's sections, and handed to the
//! batch; what it matches is found for the whole batch at once (`shard::route`).

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use dunlin_cluster::Now;
use dunlin_mqtt::{Ack, Publish, QoS, Reason};
use smallvec::SmallVec;

use crate::access::{Action, DenyAction, Verdict};
use crate::channel::acks::{AckKind, PendingAck, Waits};
use crate::channel::alias::AliasError;
use crate::channel::{Channel, HeldPublish, Paused};
use crate::effects::{CloseReason, Conn, ShardEffects, ToControl};
use crate::message::{Message, Received};
use crate::metrics::Metric;
use crate::router::SessionKey;
use crate::session::Session;
use crate::shard::{Shard, Timer};

/// Acknowledgements of one v3 client that may wait before it is not read any more. (A v5 client is
/// held by our Receive Maximum.)
const ACKS_WAITING_MAX: usize = 1_024;

/// Why a publish is not routed.
enum Refusal {
    /// The connection ends.
    Violation(Reason),
    /// Only this message; QoS 1 and 2 are acknowledged with the reason.
    Denied(Reason),
}

impl Shard {
    pub(crate) fn on_publish(
        &mut self,
        now: Now,
        conn: Conn,
        publish: Publish,
        fx: &mut ShardEffects,
    ) {
        let qos = publish.qos;
        self.metrics.count(Metric::PacketsPublishReceived);
        self.metrics.count(Metric::MessagesReceived);
        self.metrics.count(Metric::received_at(qos.as_u8()));
        let channel = &mut self.channels[conn.0 as usize];
        channel.traffic.recv_msg += 1;
        let ack = ack_of(&publish);
        let key = channel.session;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let made = check_caps(channel, &publish)
            .and_then(|()| check_window(channel, session, &publish))
            .and_then(|()| make_message(now, channel, session, publish, self.batch.buffer_bytes));
        let checked = made.and_then(|message| {
            self.authorize_publish(conn, key, &message, qos)?;
            Ok(message)
        });
        match checked {
            Ok(message) => self.admit(now, (conn, key), HeldPublish { message, ack }, fx),
            Err(Refusal::Violation(reason)) => {
                self.metrics.count(Metric::PacketsPublishError);
                self.flush(now, fx);
                self.violation(now, conn, reason, fx);
            }
            Err(Refusal::Denied(reason)) => self.deny_publish(now, conn, ack, reason, fx),
        }
    }

    /// Takes a checked publish in: QoS 2 ids are remembered, the message joins the batch.
    fn admit(
        &mut self,
        now: Now,
        (conn, key): (Conn, SessionKey),
        publish: HeldPublish,
        fx: &mut ShardEffects,
    ) {
        if let Some((AckKind::Pubrec, id)) = publish.ack {
            let Some(session) = self.sessions.get_mut(key) else {
                return;
            };
            let waiting = session.awaiting_rel.get_or_insert_default();
            if waiting.contains(id) {
                self.repeated(now, conn, id, &publish.message, fx);
                return;
            }
            waiting.insert(id, (now.mono_ms / 1_000) as u32);
            let timeout_ms = session.client.mqtt.await_rel_timeout_ms;
            if let Some(timeout_ms) = timeout_ms.filter(|_| !waiting.armed) {
                waiting.armed = true;
                self.wheel
                    .arm(now.mono_ms.saturating_add(timeout_ms), Timer::AwaitRel(key));
            }
        }
        self.metrics.count(Metric::MessagesPublish);
        let id = self.message_id();
        self.batch.push(conn, id, publish);
    }

    /// The same QoS 2 id again before its PUBREL. A retransmission is answered as the first time
    /// and not routed again; another message under the id is refused.
    fn repeated(
        &mut self,
        now: Now,
        conn: Conn,
        id: u16,
        message: &Message,
        fx: &mut ShardEffects,
    ) {
        self.metrics.count(Metric::PacketsPublishInuse);
        self.flush(now, fx);
        let channel = &self.channels[conn.0 as usize];
        if channel
            .acks
            .as_ref()
            .is_some_and(|acks| acks.has_pubrec(id))
        {
            // Its first PUBREC is still to come.
            return;
        }
        let mut waits = Waits::new();
        let reason = if message.dup() {
            self.retained_again(conn, message, &mut waits, fx);
            Reason::Success
        } else {
            Reason::PacketIdentifierInUse
        };
        self.acknowledge(conn, (AckKind::Pubrec, id), reason, waits, fx);
    }

    /// Whether the topic's row is durable was known to the connection of the first PUBREC, if
    /// anybody got that: it is written once more.
    fn retained_again(
        &mut self,
        conn: Conn,
        message: &Message,
        waits: &mut Waits,
        fx: &mut ShardEffects,
    ) {
        if !message.retain() {
            return;
        }
        let key = Bytes::copy_from_slice(message.topic().as_bytes());
        if let Some(row) = self.shared.retained().table().row(&key) {
            let (stamp, wait) = (row.stamp, Some(self.await_store(conn, waits)));
            fx.tell(ToControl::Retained { key, stamp, wait });
        }
    }

    fn authorize_publish(
        &mut self,
        conn: Conn,
        key: SessionKey,
        message: &Message,
        qos: QoS,
    ) -> Result<(), Refusal> {
        let Some(authorizer) = &self.access.authorizer else {
            return Ok(());
        };
        let channel = &self.channels[conn.0 as usize];
        if channel.superuser {
            self.metrics.count(Metric::AuthorizationSuperuser);
            return Ok(());
        }
        let Some(session) = self.sessions.get(key) else {
            return Ok(());
        };
        let action = Action::Publish {
            qos: qos.as_u8(),
            retain: message.retain(),
        };
        let topic = session.client.unmounted(message.topic());
        self.metrics.count(Metric::ClientAuthorize);
        match authorizer.authorize(&session.identity(), action, topic) {
            Verdict::Allow => {
                self.metrics.count(Metric::AuthorizationAllow);
                Ok(())
            }
            Verdict::Deny => {
                self.metrics.count(Metric::AuthorizationDeny);
                Err(Refusal::Denied(Reason::NotAuthorized))
            }
        }
    }

    fn deny_publish(
        &mut self,
        now: Now,
        conn: Conn,
        ack: Option<(AckKind, u16)>,
        reason: Reason,
        fx: &mut ShardEffects,
    ) {
        self.metrics.count(Metric::PacketsPublishAuthError);
        self.metrics.count(Metric::MessagesDropped);
        self.flush(now, fx);
        if self.access.deny_action == DenyAction::Disconnect {
            self.hang_up(now, conn, CloseReason::NotAuthorized, Some(reason), fx);
        } else if let Some(ack) = ack {
            self.acknowledge(conn, ack, reason, SmallVec::new(), fx);
        }
    }

    /// Sends an acknowledgement, or queues it behind what it waits for.
    pub(crate) fn acknowledge(
        &mut self,
        conn: Conn,
        (kind, packet_id): (AckKind, u16),
        reason: Reason,
        waits: Waits,
        fx: &mut ShardEffects,
    ) {
        let Some(channel) = self
            .channels
            .get_mut(conn.0 as usize)
            .filter(|c| c.is_open())
        else {
            return;
        };
        let waiting = channel.acks_waiting();
        if waiting == 0 && waits.is_empty() {
            self.write_ack(conn, kind, packet_id, reason, fx);
            return;
        }
        let acks = channel.acks.get_or_insert_default();
        acks.push(PendingAck {
            kind,
            packet_id,
            reason,
            waits,
        });
        if waiting == 0 {
            self.acks_waiting.push(conn);
        }
        if waiting + 1 >= ACKS_WAITING_MAX && channel.paused.set(Paused::ACKS) {
            fx.pause.push(conn);
        }
    }

    fn write_ack(
        &mut self,
        conn: Conn,
        kind: AckKind,
        packet_id: u16,
        reason: Reason,
        fx: &mut ShardEffects,
    ) {
        let (first, metric) = match kind {
            AckKind::Puback => (0x40, Metric::PacketsPubackSent),
            AckKind::Pubrec => (0x50, Metric::PacketsPubrecSent),
        };
        // A refused QoS 2 message is over with its PUBREC [MQTT-4.3.3-4].
        if kind == AckKind::Pubrec && reason.is_error() && reason != Reason::PacketIdentifierInUse {
            self.forget_rel(conn, packet_id);
        }
        let v5 = self.channels[conn.0 as usize].version.is_v5();
        let Some(out) = self.write(conn, fx) else {
            return;
        };
        let bytes = put_ack(out, first, packet_id, reason, v5);
        self.count_sent(conn, metric, bytes);
    }

    fn forget_rel(&mut self, conn: Conn, packet_id: u16) {
        let key = self.channels[conn.0 as usize].session;
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(waiting) = &mut session.awaiting_rel
        {
            waiting.remove(packet_id);
        }
    }

    /// Sends what waits no longer, on all connections that have something waiting.
    pub(crate) fn release_acks(&mut self, fx: &mut ShardEffects) {
        let mut waiting = std::mem::take(&mut self.acks_waiting);
        waiting.retain(|conn| self.release_acks_of(*conn, fx));
        waiting.append(&mut self.acks_waiting);
        self.acks_waiting = waiting;
        self.release_fences(fx);
    }

    /// Returns whether something still waits.
    fn release_acks_of(&mut self, conn: Conn, fx: &mut ShardEffects) -> bool {
        loop {
            let links = &self.links;
            let Some(channel) = self.channels.get_mut(conn.0 as usize) else {
                return false;
            };
            let Some(acks) = &mut channel.acks else {
                return false;
            };
            if let Some(ack) = acks.pop_ready(|wait| links.is_over(wait)) {
                self.write_ack(conn, ack.kind, ack.packet_id, ack.reason, fx);
                continue;
            }
            let left = acks.len();
            if left == 0 {
                channel.acks = None;
            }
            if left < ACKS_WAITING_MAX / 2 && channel.paused.clear(Paused::ACKS) {
                fx.resume.push(conn);
            }
            return left > 0;
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP from the client.
    pub(crate) fn on_ack(&mut self, now: Now, conn: Conn, ack: &Ack, fx: &mut ShardEffects) {
        let id = ack.packet_id;
        match ack.kind {
            dunlin_mqtt::AckKind::Puback => self.on_puback(now, conn, id, fx),
            dunlin_mqtt::AckKind::Pubrec => self.on_pubrec(now, conn, id, ack.reason, fx),
            dunlin_mqtt::AckKind::Pubrel => self.on_pubrel(now, conn, id, fx),
            dunlin_mqtt::AckKind::Pubcomp => self.on_pubcomp(now, conn, id, fx),
        }
    }

    fn on_pubrel(&mut self, now: Now, conn: Conn, id: NonZeroU16, fx: &mut ShardEffects) {
        self.metrics.count(Metric::PacketsPubrelReceived);
        // The PUBREC of this id may still be in the batch.
        self.flush(now, fx);
        let Some(channel) = self.channels.get(conn.0 as usize).filter(|c| c.is_open()) else {
            return;
        };
        let (key, v5) = (channel.session, channel.version.is_v5());
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let waiting = session.awaiting_rel.as_mut();
        let waited = waiting.is_some_and(|waiting| waiting.remove(id.get()));
        // While its deadline runs an empty set stays, so that a busy client does not arm one after
        // another.
        session
            .awaiting_rel
            .take_if(|waiting| waiting.is_empty() && !waiting.armed);
        let reason = if waited {
            Reason::Success
        } else {
            Reason::PacketIdentifierNotFound
        };
        if !waited {
            self.metrics.count(Metric::PacketsPubrelMissed);
        }
        let Some(out) = self.write(conn, fx) else {
            return;
        };
        let bytes = put_ack(out, 0x70, id.get(), reason, v5);
        self.count_sent(conn, Metric::PacketsPubcompSent, bytes);
    }

    pub(crate) fn on_await_rel(&mut self, now: Now, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(waiting) = &mut session.awaiting_rel else {
            return;
        };
        waiting.armed = false;
        let Some(timeout_ms) = session.client.mqtt.await_rel_timeout_ms else {
            return;
        };
        let Some(limit_ms) = now.mono_ms.checked_sub(timeout_ms) else {
            return;
        };
        let expired = waiting.expire((limit_ms / 1_000) as u32) as u64;
        if let Some(oldest_s) = waiting.oldest_s() {
            waiting.armed = true;
            let at = u64::from(oldest_s + 1) * 1_000 + timeout_ms;
            self.wheel.arm(at, Timer::AwaitRel(key));
        } else {
            session.awaiting_rel = None;
        }
        self.metrics.add(Metric::MessagesDropped, expired);
        self.metrics
            .add(Metric::MessagesDroppedAwaitPubrelTimeout, expired);
    }

    /// Publishes that waited for room on a link go first. False if they still wait.
    pub(crate) fn retry_held(&mut self, now: Now, conn: Conn, fx: &mut ShardEffects) -> bool {
        let Some(channel) = self.channels.get_mut(conn.0 as usize) else {
            return true;
        };
        let Some(rare) = channel.rare.as_mut().filter(|rare| !rare.held.is_empty()) else {
            return true;
        };
        let held = std::mem::take(&mut rare.held);
        for publish in held {
            let id = self.message_id();
            self.batch.push(conn, id, publish);
        }
        self.flush(now, fx);
        let channel = self.channels.get(conn.0 as usize);
        channel.is_none_or(|channel| !channel.paused.any())
    }

    pub(crate) fn on_persisted(&mut self, token: u64, fx: &mut ShardEffects) {
        let Some((conn, generation)) = self.tokens.remove(&token) else {
            return;
        };
        if !self.is_current(conn, generation) {
            return;
        }
        if let Some(acks) = &mut self.channels[conn.0 as usize].acks {
            acks.stored(token);
        }
        self.release_acks(fx);
    }
}

fn ack_of(publish: &Publish) -> Option<(AckKind, u16)> {
    let id = publish.packet_id?.get();
    match publish.qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce => Some((AckKind::Puback, id)),
        QoS::ExactlyOnce => Some((AckKind::Pubrec, id)),
    }
}

/// What the server said in CONNACK that it does not take.
fn check_caps(channel: &Channel, publish: &Publish) -> Result<(), Refusal> {
    let mqtt = &channel.mqtt;
    if publish.qos.as_u8() > mqtt.max_qos_allowed {
        return Err(Refusal::Violation(Reason::QosNotSupported));
    }
    if publish.retain && !mqtt.retain_available {
        return Err(Refusal::Violation(Reason::RetainNotSupported));
    }
    // Only a topic longer than the limit can have more levels than it.
    let levels_max = mqtt.max_topic_levels as usize;
    if publish.topic_range().len() >= levels_max
        && dunlin_mqtt::topic::level_count(publish.topic()) > levels_max
    {
        return Err(Refusal::Violation(Reason::TopicNameInvalid));
    }
    Ok(())
}

/// How many unacknowledged publishes the client may have with us.
fn check_window(channel: &Channel, session: &Session, publish: &Publish) -> Result<(), Refusal> {
    let Some(id) = publish.packet_id else {
        return Ok(());
    };
    let awaiting = session
        .awaiting_rel
        .as_ref()
        .map_or(0, |waiting| waiting.len());
    if channel.acks.is_some() || awaiting > 0 {
        let known = session
            .awaiting_rel
            .as_ref()
            .is_some_and(|w| w.contains(id.get()));
        // Before MQTT 5 there is no such window, and counting is not free.
        let held = || channel.acks.as_ref().map_or(0, |acks| acks.len_qos1()) + awaiting;
        let max = channel.receive_maximum;
        if !known && max < u16::MAX && held() >= usize::from(max) {
            return Err(Refusal::Violation(Reason::ReceiveMaximumExceeded));
        }
        let max = session.client.mqtt.max_awaiting_rel;
        let full = max.is_some_and(|max| max > 0 && awaiting >= max as usize);
        if publish.qos == QoS::ExactlyOnce && !known && full {
            return Err(Refusal::Violation(Reason::ReceiveMaximumExceeded));
        }
    }
    Ok(())
}

/// The message of a publish, under the topic that its alias and the client's mountpoint make.
fn make_message(
    now: Now,
    channel: &mut Channel,
    session: &Session,
    publish: Publish,
    buffer_bytes: usize,
) -> Result<Message, Refusal> {
    let mut topic = None;
    let properties = publish.properties();
    if !properties.is_empty() {
        if properties.subscription_ids().next().is_some() {
            // [MQTT-3.3.4-6]: only servers send them.
            return Err(Refusal::Violation(Reason::ProtocolError));
        }
        if let Some(alias) = properties.topic_alias() {
            topic = resolve(channel, alias, publish.topic())?;
        }
    }
    if let Some(mountpoint) = &session.client.mountpoint {
        let name = match &topic {
            Some(topic) => topic,
            None => publish.topic(),
        };
        topic = Some(Arc::new(format!("{mountpoint}{name}").into()));
    }
    let received = Received {
        origin: &session.origin,
        now,
        default_expiry_ms: session.client.mqtt.message_expiry_interval_ms,
        buffer_bytes,
    };
    let message = Message::from_publish(publish, &received);
    Ok(match topic {
        Some(topic) => message.with_topic(topic),
        None => message,
    })
}

fn resolve(
    channel: &mut Channel,
    alias: u16,
    topic: &str,
) -> Result<Option<Arc<Box<str>>>, Refusal> {
    let max = channel.mqtt.max_topic_alias;
    channel
        .rare()
        .aliases_in
        .resolve(alias, max, topic)
        .map_err(|error| {
            Refusal::Violation(match error {
                AliasError::Invalid => Reason::TopicAliasInvalid,
                AliasError::Unknown => Reason::ProtocolError,
            })
        })
}

/// Writes one of the four acknowledgements in its shortest form; returns its length.
pub(crate) fn put_ack(
    out: &mut bytes::BytesMut,
    first: u8,
    packet_id: u16,
    reason: Reason,
    v5: bool,
) -> usize {
    let [high, low] = packet_id.to_be_bytes();
    if v5 && reason != Reason::Success {
        out.put_slice(&[first, 3, high, low, reason.as_u8()]);
        5
    } else {
        out.put_slice(&[first, 2, high, low]);
        4
    }
}
