//! From a message to the bytes of a receiver: straight into its output when it may be sent, into
//! its session's queue when it may not.
//!
//! What many receivers get alike is encoded once and copied; a large payload is not even copied but
//! shared. Nothing is allocated for a message that goes straight out at QoS 0.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use dunlin_cluster::Now;
use dunlin_mqtt::{Outgoing, QoS, Reason, encode_publish, encode_publish_head, publish_len};

use crate::channel::Channel;
use crate::channel::alias::Alias;
use crate::channel::publish::put_ack;
use crate::effects::{Conn, ShardEffects};
use crate::inflight::{AckFault, Resend};
use crate::message::Message;
use crate::metrics::{Metric, Metrics};
use crate::queue::{DropReason, Queued};
use crate::router::{GroupKey, SessionKey, SubOptions};
use crate::session::{Client, Session};
use crate::shard::wheel::Wheel;
use crate::shard::{OUTPUT_HIGH_BYTES, Shard, Timer, open_output};

/// Payloads from this size on are shared by all receivers' outputs instead of copied into each:
/// above it a vectored write is cheaper than the copy.
const SHARED_PAYLOAD_BYTES: usize = 2_048;

/// A PUBLISH encoded once for several receivers.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    /// More than one receiver is expected: keeping the encoding is worth it.
    several: bool,
    /// What `bytes` is for: v5, QoS, retain.
    key: Option<(bool, QoS, bool)>,
    bytes: BytesMut,
    /// Where the packet identifier is.
    id_at: usize,
    /// The message in a buffer of its own, once somebody keeps it.
    kept: Option<Message>,
}

impl Encoded {
    /// The next message comes, for about so many receivers.
    pub(crate) fn begin(&mut self, receivers: u32) {
        self.several = receivers > 1;
        self.key = None;
        self.kept = None;
    }

    /// The message for somebody who keeps it; compacted once for all of them.
    fn keep(&mut self, message: &Message) -> Message {
        if !self.several {
            return message.kept();
        }
        self.kept.get_or_insert_with(|| message.kept()).clone()
    }
}

/// A PUBLISH for one receiver.
#[derive(Clone, Copy)]
struct Sending<'a> {
    message: &'a Message,
    qos: QoS,
    retain: bool,
    sub_id: u32,
    packet_id: Option<NonZeroU16>,
    dup: bool,
}

impl Shard {
    /// Gives a message to one subscription.
    #[allow(clippy::too_many_arguments)] // one place calls it for each way a message comes
    pub(crate) fn deliver(
        &mut self,
        now: Now,
        key: SessionKey,
        options: SubOptions,
        group: Option<&Arc<GroupKey>>,
        message: &Message,
        encoded: &mut Encoded,
        fx: &mut ShardEffects,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let client = &session.client;
        if (options.no_local() || client.mqtt.ignore_loop_deliver || client.bridge)
            && is_own(session, message)
            && loops_dropped(session, options)
        {
            self.metrics.count(Metric::DeliveryDropped);
            self.metrics.count(Metric::DeliveryDroppedNoLocal);
            return;
        }
        // A group's message has no copies: it comes again when nobody else acknowledged it.
        if session.handed.is_some() && group.is_none() && session.was_handed(message, now.mono_ms) {
            return;
        }
        let client = &session.client;
        let published = message.qos();
        let qos = if client.mqtt.upgrade_qos {
            published.max(options.qos())
        } else {
            published.min(options.qos())
        };
        let retain = message.retain() && (options.retain_as_published() || client.bridge);
        let sending = Sending {
            message,
            qos,
            retain,
            sub_id: options.sub_id().unwrap_or(0),
            packet_id: None,
            dup: false,
        };
        self.send_or_queue(now, key, sending, group, encoded, fx);
    }

    fn send_or_queue(
        &mut self,
        now: Now,
        key: SessionKey,
        sending: Sending<'_>,
        group: Option<&Arc<GroupKey>>,
        encoded: &mut Encoded,
        fx: &mut ShardEffects,
    ) {
        if let Some(mut receiver) = self.receiver(key)
            && receiver.has_room()
            && !receiver.session.collects()
        {
            let free = receiver.session.queue.is_empty();
            if sending.qos == QoS::AtMostOnce {
                // Behind a full window QoS 0 is queued too, so that its order is kept; without
                // such a queue it goes out at once.
                if free || !receiver.session.client.mqtt.mqueue_store_qos0 {
                    receiver.send_now(now, sending, encoded, fx);
                    return;
                }
            } else if free && !receiver.is_full() {
                let queued = queued(encoded, &sending, group);
                receiver.send_inflight(now, queued, encoded, fx);
                return;
            }
        }
        if let Some(session) = self.sessions.get_mut(key) {
            enqueue(&self.metrics, session, queued(encoded, &sending, group));
        }
    }

    /// A session that has a connection, with all that sending to it touches.
    fn receiver(&mut self, key: SessionKey) -> Option<Receiver<'_>> {
        let session = self.sessions.get_mut(key)?;
        let conn = session.conn?;
        Some(Receiver {
            conn,
            session,
            channel: self.channels.get_mut(conn.0 as usize)?,
            metrics: &self.metrics,
            wheel: &mut self.wheel,
            spares: &mut self.spares,
        })
    }

    /// Sends what waits in a session's queue, as far as window and output allow.
    pub(crate) fn pump(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let waits = self.sessions.get(key).map(|s| !s.queue.is_empty());
        if waits != Some(true) {
            return;
        }
        let Some(mut receiver) = self.receiver(key) else {
            return;
        };
        if receiver.session.is_away() {
            return;
        }
        // Each message has this receiver alone.
        let mut encoded = Encoded::default();
        while let Some(queued) = receiver.next_queued(now) {
            if queued.qos == QoS::AtMostOnce {
                receiver.put(now, sending_of(&queued), &mut encoded, fx);
            } else {
                receiver.send_inflight(now, queued, &mut encoded, fx);
            }
        }
    }

    /// A session has a connection again: everything in flight is sent again, in order
    /// [MQTT-4.4.0-1].
    pub(crate) fn resend(&mut self, now: Now, key: SessionKey, fx: &mut ShardEffects) {
        let Some(conn) = self.sessions.get(key).and_then(|session| session.conn) else {
            return;
        };
        if self
            .sessions
            .get(key)
            .is_none_or(|session| session.inflight.is_empty())
        {
            return;
        }
        _ = self.write(conn, fx);
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let channel = &mut self.channels[conn.0 as usize];
        for again in session.inflight.resend() {
            put_again(now, channel, &session.client, again, &self.metrics);
        }
        if let Some(retry_ms) = session.client.mqtt.retry_interval_ms {
            arm_retry(&mut self.wheel, channel, conn, now.mono_ms + retry_ms);
        }
    }

    /// `retry_interval` is over for something in flight.
    pub(crate) fn on_retry(
        &mut self,
        now: Now,
        conn: Conn,
        generation: u32,
        fx: &mut ShardEffects,
    ) {
        if !self.is_current(conn, generation) {
            return;
        }
        self.channels[conn.0 as usize].retry_armed = false;
        if !self.channels[conn.0 as usize].is_open() {
            return;
        }
        _ = self.write(conn, fx);
        let channel = &mut self.channels[conn.0 as usize];
        let Some(session) = self.sessions.get_mut(channel.session) else {
            return;
        };
        let Some(interval_ms) = session.client.mqtt.retry_interval_ms else {
            return;
        };
        let (client, metrics) = (&session.client, &self.metrics);
        let next = session.inflight.retry(now.mono_ms, interval_ms, |again| {
            put_again(now, channel, client, again, metrics);
        });
        if let Some(next) = next {
            arm_retry(&mut self.wheel, channel, conn, next);
        }
    }

    pub(crate) fn on_puback(
        &mut self,
        now: Now,
        conn: Conn,
        id: NonZeroU16,
        fx: &mut ShardEffects,
    ) {
        self.metrics.count(Metric::PacketsPubackReceived);
        let key = self.channels[conn.0 as usize].session;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        match session.inflight.puback(id.get()) {
            Ok(_) => self.metrics.count(Metric::MessagesAcked),
            Err(AckFault::Missed) => self.metrics.count(Metric::PacketsPubackMissed),
            Err(AckFault::InUse) => self.metrics.count(Metric::PacketsPubackInuse),
        }
        self.go_on(now, key, conn, fx);
    }

    pub(crate) fn on_pubrec(
        &mut self,
        now: Now,
        conn: Conn,
        id: NonZeroU16,
        reason: Reason,
        fx: &mut ShardEffects,
    ) {
        self.metrics.count(Metric::PacketsPubrecReceived);
        let channel = &self.channels[conn.0 as usize];
        let (key, v5) = (channel.session, channel.version.is_v5());
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if reason.is_error() {
            // The receiver wants none of it; the identifier is free [MQTT-4.3.3-4].
            session.inflight.abandon(id.get());
            self.go_on(now, key, conn, fx);
            return;
        }
        let answer = match session.inflight.pubrec(id.get(), now.mono_ms) {
            Ok(_) => {
                self.metrics.count(Metric::MessagesAcked);
                Reason::Success
            }
            Err(AckFault::InUse) => {
                self.metrics.count(Metric::PacketsPubrecInuse);
                Reason::Success
            }
            Err(AckFault::Missed) => {
                self.metrics.count(Metric::PacketsPubrecMissed);
                Reason::PacketIdentifierNotFound
            }
        };
        let Some(out) = self.write(conn, fx) else {
            return;
        };
        let bytes = put_ack(out, 0x62, id.get(), answer, v5);
        self.count_sent(conn, Metric::PacketsPubrelSent, bytes);
    }

    pub(crate) fn on_pubcomp(
        &mut self,
        now: Now,
        conn: Conn,
        id: NonZeroU16,
        fx: &mut ShardEffects,
    ) {
        self.metrics.count(Metric::PacketsPubcompReceived);
        let key = self.channels[conn.0 as usize].session;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        match session.inflight.pubcomp(id.get()) {
            Ok(()) => {}
            Err(AckFault::Missed) => self.metrics.count(Metric::PacketsPubcompMissed),
            Err(AckFault::InUse) => self.metrics.count(Metric::PacketsPubcompInuse),
        }
        self.go_on(now, key, conn, fx);
    }

    /// The window has moved.
    fn go_on(&mut self, now: Now, key: SessionKey, conn: Conn, fx: &mut ShardEffects) {
        self.pump(now, key, fx);
        if self
            .channels
            .get(conn.0 as usize)
            .is_some_and(|channel| channel.has_replay())
        {
            self.replay(now, conn, fx);
        }
    }

    /// Sends a retained message to a new subscription.
    pub(crate) fn deliver_retained(
        &mut self,
        now: Now,
        key: SessionKey,
        options: SubOptions,
        message: &Message,
        fx: &mut ShardEffects,
    ) {
        let mut encoded = std::mem::take(&mut self.batch.encoded);
        encoded.begin(1);
        let qos = message.qos().min(options.qos());
        let sending = Sending {
            message,
            qos,
            retain: true,
            sub_id: options.sub_id().unwrap_or(0),
            packet_id: None,
            dup: false,
        };
        self.send_or_queue(now, key, sending, None, &mut encoded, fx);
        self.batch.encoded = encoded;
    }
}

/// A session and its connection, looked up once for all that a delivery does with them.
struct Receiver<'a> {
    conn: Conn,
    session: &'a mut Session,
    channel: &'a mut Channel,
    metrics: &'a Metrics,
    wheel: &'a mut Wheel<Timer>,
    spares: &'a mut Vec<BytesMut>,
}

impl Receiver<'_> {
    /// Whether its connection takes more.
    fn has_room(&self) -> bool {
        self.channel.is_open() && self.channel.output.len() < OUTPUT_HIGH_BYTES
    }

    /// Whether its window takes no more.
    fn is_full(&self) -> bool {
        self.session.inflight.is_full(self.session.window)
    }

    /// Writes a QoS 0 message.
    fn send_now(
        &mut self,
        now: Now,
        sending: Sending<'_>,
        encoded: &mut Encoded,
        fx: &mut ShardEffects,
    ) {
        if sending.message.is_expired(now.wall_ms) {
            count_expired(self.metrics);
            return;
        }
        self.put(now, sending, encoded, fx);
    }

    /// Gives a message a packet identifier and writes it.
    fn send_inflight(
        &mut self,
        now: Now,
        queued: Queued,
        encoded: &mut Encoded,
        fx: &mut ShardEffects,
    ) {
        if queued.message.is_expired(now.wall_ms) {
            count_expired(self.metrics);
            return;
        }
        let mut sending = sending_of(&queued);
        // The window is at most as large as there are identifiers.
        let Some(packet_id) = self.session.inflight.next_id() else {
            return;
        };
        sending.packet_id = Some(packet_id);
        if !self.put(now, sending, encoded, fx) {
            return;
        }
        self.session.inflight.send(packet_id, queued, now.mono_ms);
        if let Some(retry_ms) = self.session.client.mqtt.retry_interval_ms {
            arm_retry(self.wheel, self.channel, self.conn, now.mono_ms + retry_ms);
        }
    }

    /// Encodes a PUBLISH into the output and counts it. False, and it is counted as dropped, if the
    /// client's Maximum Packet Size forbids it [MQTT-3.1.2-25].
    fn put(
        &mut self,
        now: Now,
        sending: Sending<'_>,
        encoded: &mut Encoded,
        fx: &mut ShardEffects,
    ) -> bool {
        open_output(self.channel, self.conn, self.spares, fx);
        let (channel, client, metrics) = (&mut *self.channel, &self.session.client, self.metrics);
        let before = channel.output.len();
        if encoded.several && is_common(channel, client, &sending) {
            put_common(now, channel, client, &sending, encoded);
        } else if !put_own(now, channel, client, &sending) {
            metrics.count(Metric::DeliveryDropped);
            metrics.count(Metric::DeliveryDroppedTooLarge);
            return false;
        }
        let bytes = (channel.output.len() - before) as u64;
        channel.traffic.send_pkt += 1;
        channel.traffic.send_msg += 1;
        channel.traffic.send_oct += bytes;
        metrics.count(Metric::PacketsSent);
        metrics.count(Metric::PacketsPublishSent);
        metrics.count(Metric::MessagesSent);
        metrics.count(Metric::MessagesDelivered);
        metrics.count(Metric::sent_at(sending.qos.as_u8()));
        metrics.add(Metric::BytesSent, bytes);
        true
    }

    /// The next queued message that may be sent now.
    fn next_queued(&mut self, now: Now) -> Option<Queued> {
        if !self.has_room() {
            return None;
        }
        let full = self.is_full();
        let queue = &mut self.session.queue;
        if full
            && queue
                .iter()
                .next()
                .is_none_or(|next| next.qos != QoS::AtMostOnce)
        {
            return None;
        }
        let metrics = self.metrics;
        let queued = queue.pop(now.wall_ms, |_| count_expired(metrics))?;
        // Behind messages that expired there may be one the window has no room for.
        if full && queued.qos != QoS::AtMostOnce {
            queue.push_front(queued, &self.session.client.mqtt);
            return None;
        }
        Some(queued)
    }
}

/// Has [`Shard::on_retry`] look at a connection's window, unless it will anyhow: one deadline runs
/// for each connection, however often its window empties and fills.
fn arm_retry(wheel: &mut Wheel<Timer>, channel: &mut Channel, conn: Conn, at_ms: u64) {
    if !std::mem::replace(&mut channel.retry_armed, true) {
        wheel.arm(at_ms, Timer::Retry(conn, channel.generation));
    }
}

/// Whether a message is the client's own.
fn is_own(session: &Session, message: &Message) -> bool {
    match message.origin() {
        Some(origin) if Arc::ptr_eq(origin, &session.origin) => true,
        _ => message.clientid() == session.clientid(),
    }
}

/// Whether a client's own messages are kept from this subscription.
fn loops_dropped(session: &Session, options: SubOptions) -> bool {
    let client = &session.client;
    let v3 = !client.version.is_v5();
    options.no_local() || v3 && (client.mqtt.ignore_loop_deliver || client.bridge)
}

fn queued(encoded: &mut Encoded, sending: &Sending<'_>, group: Option<&Arc<GroupKey>>) -> Queued {
    Queued {
        message: encoded.keep(sending.message),
        group: group.cloned(),
        sub_id: sending.sub_id,
        qos: sending.qos,
        retain: sending.retain,
    }
}

fn sending_of(queued: &Queued) -> Sending<'_> {
    Sending {
        message: &queued.message,
        qos: queued.qos,
        retain: queued.retain,
        sub_id: queued.sub_id,
        packet_id: None,
        dup: false,
    }
}

/// Puts a message into a session's queue; what falls out is counted.
pub(crate) fn enqueue(metrics: &Metrics, session: &mut Session, queued: Queued) {
    let queue = match &mut session.arriving {
        Some(arriving) => &mut arriving.collected,
        None => &mut session.queue,
    };
    let Some((dropped, reason)) = queue.push(queued, &session.client.mqtt) else {
        return;
    };
    if let Some(leaving) = &mut session.leaving {
        leaving.note_dropped(&dropped);
    }
    count_dropped(metrics, session, reason);
}

pub(crate) fn count_dropped(metrics: &Metrics, session: &mut Session, reason: DropReason) {
    session.dropped = session.dropped.saturating_add(1);
    metrics.count(Metric::DeliveryDropped);
    metrics.count(match reason {
        DropReason::QueueFull => Metric::DeliveryDroppedQueueFull,
        DropReason::Qos0 => Metric::DeliveryDroppedQos0Msg,
    });
}

fn count_expired(metrics: &Metrics) {
    metrics.count(Metric::DeliveryDropped);
    metrics.count(Metric::DeliveryDroppedExpired);
}

/// The packet for one receiver, topic unmounted. `sub_ids` is the place of the one identifier.
fn outgoing<'a>(
    now: Now,
    client: &Client,
    sending: &Sending<'a>,
    sub_ids: &'a [u32; 1],
) -> Outgoing<'a> {
    Outgoing {
        topic: client.topic_of(sending.message),
        payload: sending.message.payload(),
        qos: sending.qos,
        retain: sending.retain,
        dup: sending.dup,
        packet_id: sending.packet_id,
        topic_alias: None,
        subscription_ids: if sending.sub_id == 0 { &[] } else { sub_ids },
        message_expiry_interval: sending.message.expiry_left_s(now.wall_ms),
        forwarded: sending.message.properties(),
    }
}

/// Whether a receiver gets what every other of its version and QoS gets.
fn is_common(channel: &Channel, client: &Client, sending: &Sending<'_>) -> bool {
    sending.sub_id == 0
        && !sending.dup
        && client.mountpoint.is_none()
        && channel.packet_bytes_max == u32::MAX
        && channel
            .rare
            .as_ref()
            .is_none_or(|rare| rare.aliases_out.is_none())
}

/// Copies the common encoding, made on first use, and sets the packet identifier.
fn put_common(
    now: Now,
    channel: &mut Channel,
    client: &Client,
    sending: &Sending<'_>,
    encoded: &mut Encoded,
) {
    let v5 = channel.version.is_v5();
    let key = (v5, sending.qos, sending.retain);
    let shared = sending.message.payload().len() >= SHARED_PAYLOAD_BYTES;
    if encoded.key != Some(key) {
        encoded.key = Some(key);
        encoded.bytes.clear();
        let packet = outgoing(now, client, sending, &[0]);
        if shared {
            encode_publish_head(channel.version, &packet, &mut encoded.bytes);
        } else {
            encode_publish(channel.version, &packet, &mut encoded.bytes);
        }
        // Behind the fixed header and the topic with its length.
        let remaining = encoded.bytes[1..].iter().position(|byte| byte & 0x80 == 0);
        encoded.id_at = 1 + remaining.unwrap_or(0) + 1 + 2 + packet.topic.len();
    }
    let out = channel.output.buffer();
    let at = out.len();
    out.put_slice(&encoded.bytes);
    if let Some(id) = sending.packet_id {
        let at = at + encoded.id_at;
        out[at..at + 2].copy_from_slice(&id.get().to_be_bytes());
    }
    if shared {
        channel.output.share(sending.message.payload_bytes());
    }
}

/// Encodes for this receiver alone. False if its Maximum Packet Size forbids it.
fn put_own(now: Now, channel: &mut Channel, client: &Client, sending: &Sending<'_>) -> bool {
    let sub_ids = [sending.sub_id];
    let mut packet = outgoing(now, client, sending, &sub_ids);
    if channel.packet_bytes_max != u32::MAX
        && publish_len(channel.version, &packet) > channel.packet_bytes_max as usize
    {
        return false;
    }
    let aliases = channel
        .rare
        .as_mut()
        .and_then(|rare| rare.aliases_out.as_mut());
    if let Some(aliases) = aliases {
        match aliases.pick(packet.topic) {
            Alias::None => {}
            Alias::Set(alias) => packet.topic_alias = Some(alias),
            Alias::Use(alias) => {
                packet.topic_alias = Some(alias);
                packet.topic = b"";
            }
        }
    }
    if packet.payload.len() >= SHARED_PAYLOAD_BYTES {
        encode_publish_head(channel.version, &packet, channel.output.buffer());
        channel.output.share(sending.message.payload_bytes());
    } else {
        encode_publish(channel.version, &packet, channel.output.buffer());
    }
    true
}

/// Sends something in flight again.
fn put_again(
    now: Now,
    channel: &mut Channel,
    client: &Client,
    again: Resend<'_>,
    metrics: &Metrics,
) {
    let before = channel.output.len();
    let metric = match again {
        Resend::Publish(id, queued) => {
            let mut sending = sending_of(queued);
            sending.packet_id = NonZeroU16::new(id);
            sending.dup = true;
            put_own(now, channel, client, &sending);
            Metric::PacketsPublishSent
        }
        Resend::Pubrel(id) => {
            put_ack(channel.output.buffer(), 0x62, id, Reason::Success, false);
            Metric::PacketsPubrelSent
        }
    };
    let bytes = (channel.output.len() - before) as u64;
    channel.traffic.send_pkt += 1;
    channel.traffic.send_oct += bytes;
    metrics.count(Metric::PacketsSent);
    metrics.count(metric);
    metrics.add(Metric::BytesSent, bytes);
}
