//! One thread's part of a node: its client channels, its sessions, its data links to other nodes.
//!
//! A shard is a synchronous state machine. The driver (a thread of the server, or the simulator)
//! feeds it bytes, letters and time, and carries out what it puts into [`ShardEffects`]. It shares
//! nothing but [`Shared`] with the other shards and must never hold a lock of that while it
//! encodes, nor wait for anything.

mod ask;
mod deliver;
mod evict;
mod peers;
mod replay;
mod route;
mod session_end;
pub(crate) mod sessions;
pub(crate) mod takeover;
#[cfg(test)]
mod tests;
mod wheel;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use dunlin_cluster::{Hlc, Now};
use dunlin_mqtt::{Limits, Packet};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use slab::Slab;

use crate::access::Access;
use crate::channel::acks::Wait;
use crate::channel::connect::Proving;
use crate::channel::{Channel, Paused, Phase};
use crate::dispatch::Dispatched;
use crate::effects::{Accepted, CloseReason, Conn, Output, ShardEffects, ShardId, ToShard};
use crate::metrics::{Metric, Metrics};
use crate::peer_link::{Links, Peering};
use crate::redirect::Redirect;
use crate::router::{NodeIndex, Picker, SessionKey};
use crate::settings::Settings;
use crate::shared::Shared;
use route::Batch;
use sessions::Sessions;
use takeover::PendingTakeover;
use wheel::Wheel;

/// Spare output buffers kept for connections that have something to say, and the largest kept:
/// busy connections share them, idle ones hold none.
const SPARES_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// Output of one connection above which its queue is not drained further, bytes. A slow reader
/// keeps its messages in its bounded queue instead.
pub(crate) const OUTPUT_HIGH_BYTES: usize = 256 * 1024;

/// Output of one connection above which its socket is not read any more, bytes: a client that sends
/// requests and never reads the answers.
const OUTPUT_STOP_BYTES: usize = 1024 * 1024;

/// A deadline of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// No CONNECT yet.
    Idle(Conn, u32),
    /// Look whether the client was heard.
    Keepalive(Conn, u32),
    /// A held SUBACK goes out whatever the others say.
    Suback(Conn, u32, u64),
    /// Credentials end.
    AuthExpiry(Conn, u32),
    /// Inflight messages are sent again.
    Retry(Conn, u32),
    /// PUBRELs did not come.
    AwaitRel(SessionKey),
    /// A session without connection ends.
    Expiry(SessionKey),
    /// A will's delay is over.
    Will(SessionKey),
    /// A takeover got no answer.
    Takeover(u64),
    /// Routes have had their time: the rest of a session is asked for.
    Finish(u64),
    /// Dial a node again.
    Redial(NodeIndex),
    /// Look for data links that hang.
    Stalled,
    /// Send receipts to other nodes.
    Receipts,
    /// Close the next clients of a stopping node.
    Drain,
    /// Look whether the others have its last news.
    Drained,
}

/// A thread's part of a node. See the module.
pub struct Shard {
    pub(crate) id: ShardId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access: Arc<Access>,
    /// Taken up anew when they change; what concerns one connection is its own from its start.
    pub(crate) settings: Arc<Settings>,
    pub(crate) random: SmallRng,
    pub(crate) picker: Picker,
    /// Boxed: a slab of whole channels would hold up to twice what is in use while it grows.
    pub(crate) channels: Slab<Box<Channel>>,
    pub(crate) sessions: Sessions,
    pub(crate) wheel: Wheel<Timer>,
    pub(crate) links: Links,
    pub(crate) batch: Batch,
    /// What members of groups on other nodes have and may not be done with.
    pub(crate) dispatched: Dispatched,
    pub(crate) receipts_armed: bool,
    /// Whether a look at the data links is due.
    pub(crate) links_watched: bool,
    pub(crate) takeovers: BTreeMap<u64, PendingTakeover>,
    /// CONNECTs whose credentials are being checked.
    pub(crate) proving: BTreeMap<u64, Proving>,
    /// Sessions that leave for another shard once all fences are back.
    pub(crate) fences: BTreeMap<u64, SessionKey>,
    /// Sessions that other nodes have a copy of, by client identifier and that node's stamp: the
    /// client may have a newer one here before the rest is asked for.
    pub(crate) leaving: BTreeMap<(Box<str>, Hlc), SessionKey>,
    /// Takeovers whose last step was asked for.
    pub(crate) asked_for_rest: BTreeSet<u64>,
    /// Which connection waits for routes to settle, or for the store.
    pub(crate) tokens: BTreeMap<u64, (Conn, u32)>,
    /// What other nodes want to know of this shard's data links: control's number, and for what.
    pub(crate) fenced_links: Vec<(u64, Wait)>,
    /// Connections whose acknowledgements wait for something.
    pub(crate) acks_waiting: Vec<Conn>,
    pub(crate) draining: bool,
    /// New clients are sent away.
    pub(crate) refusing: bool,
    /// Sessions offered to other nodes, and until when that may be on its way, mono ms.
    pub(crate) offered: BTreeMap<SessionKey, u64>,
    /// Counts offers, so that all who get sessions get as many.
    pub(crate) next_offer: usize,
    /// Where clients go when this shard sends them away.
    pub(crate) redirect: Arc<Redirect>,
    /// Its clients are gone, and the others may not know it all yet.
    pub(crate) emptied: Option<session_end::Emptied>,
    next_token: u64,
    next_message: u64,
    generation: u32,
    spares: Vec<BytesMut>,
}

impl Shard {
    /// A shard without clients. `seed` drives assigned client identifiers, hashes and picks.
    pub fn new(id: ShardId, shared: Arc<Shared>, seed: u64) -> Self {
        let metrics = Arc::clone(shared.metrics(id));
        let access = Arc::new(shared.access());
        let mut random = SmallRng::seed_from_u64(seed);
        Self {
            id,
            metrics,
            access,
            settings: shared.settings(),
            next_message: random.random(),
            random,
            picker: Picker::new(seed ^ 0x5bd1_e995),
            channels: Slab::new(),
            sessions: Sessions::new(seed),
            wheel: Wheel::new(),
            links: Links::new(id),
            batch: Batch::default(),
            dispatched: Dispatched::default(),
            receipts_armed: false,
            links_watched: false,
            takeovers: BTreeMap::new(),
            proving: BTreeMap::new(),
            fences: BTreeMap::new(),
            leaving: BTreeMap::new(),
            asked_for_rest: BTreeSet::new(),
            tokens: BTreeMap::new(),
            fenced_links: Vec::new(),
            acks_waiting: Vec::new(),
            draining: false,
            refusing: false,
            offered: BTreeMap::new(),
            next_offer: 0,
            redirect: Arc::default(),
            emptied: None,
            // Tokens of different shards meet in control: the shard is in the upper bits.
            next_token: u64::from(id) << 48,
            generation: 0,
            spares: Vec::new(),
            shared,
        }
    }

    /// What this shard proves itself with when it dials other nodes; without it there are no
    /// outgoing data links.
    pub fn set_peering(&mut self, peering: Peering) {
        self.links.set_peering(peering);
    }

    /// A client connected. It has `mqtt.idle_timeout` to say CONNECT.
    pub fn accept(&mut self, now: Now, info: Accepted) -> Conn {
        self.generation = self.generation.wrapping_add(1);
        let mqtt = Arc::clone(self.settings.zone(&info.listener.zone));
        let idle_ms = mqtt.idle_timeout_ms;
        let channel = Channel::new(self.generation, info, mqtt, now.mono_ms);
        let conn = Conn(self.channels.insert(Box::new(channel)) as u32);
        if let Some(idle_ms) = idle_ms {
            self.wheel
                .arm(now.mono_ms + idle_ms, Timer::Idle(conn, self.generation));
        }
        conn
    }

    /// Bytes of a client. Takes all complete packets off `buf` and leaves the rest; takes none
    /// while the connection is paused.
    pub fn receive(&mut self, now: Now, conn: Conn, buf: &mut BytesMut, fx: &mut ShardEffects) {
        let before = buf.len();
        self.batch.buffer_bytes = buf.capacity();
        if !self.retry_held(now, conn, fx) {
            return;
        }
        let mut packets = 0;
        while let Some(packet) = self.next_packet(now, conn, buf, fx) {
            packets += 1;
            self.packet(now, conn, packet, fx);
        }
        self.flush(now, fx);
        self.count_received(now, conn, packets, before.saturating_sub(buf.len()));
        self.check_output(conn, fx);
    }

    /// The next packet, unless the connection is paused, closing, or has sent nonsense.
    fn next_packet(
        &mut self,
        now: Now,
        conn: Conn,
        buf: &mut BytesMut,
        fx: &mut ShardEffects,
    ) -> Option<Packet> {
        let channel = self.channels.get(conn.0 as usize)?;
        if channel.phase == Phase::Closing {
            buf.clear();
            return None;
        }
        if channel.paused.any() || buf.is_empty() {
            return None;
        }
        let limits = Limits {
            max_packet_size: u32::try_from(channel.mqtt.max_packet_bytes).unwrap_or(u32::MAX),
            strict: channel.mqtt.strict_mode,
        };
        match dunlin_mqtt::decode(buf, channel.version, &limits) {
            Ok(packet) => packet,
            Err(error) => {
                self.flush(now, fx);
                self.malformed(now, conn, buf, error, fx);
                buf.clear();
                None
            }
        }
    }

    fn packet(&mut self, now: Now, conn: Conn, packet: Packet, fx: &mut ShardEffects) {
        let phase = self.channels[conn.0 as usize].phase;
        let open = phase == Phase::Open;
        match packet {
            Packet::Publish(publish) if open => self.on_publish(now, conn, publish, fx),
            Packet::Ack(ack) if open => self.on_ack(now, conn, &ack, fx),
            Packet::Connect(connect) if phase == Phase::New => {
                self.on_connect(now, conn, connect, fx);
            }
            Packet::Pingreq if open => self.on_ping(conn, fx),
            Packet::Subscribe(packet) if open => {
                self.flush(now, fx);
                self.on_subscribe(now, conn, packet, fx);
            }
            Packet::Unsubscribe(packet) if open => {
                self.flush(now, fx);
                self.on_unsubscribe(conn, &packet, fx);
            }
            Packet::Disconnect(packet) if open => {
                self.flush(now, fx);
                self.on_disconnect(now, conn, &packet, fx);
            }
            Packet::Auth(packet) if open => {
                self.flush(now, fx);
                self.on_auth(now, conn, &packet, fx);
            }
            // Before CONNECT nothing else may come; after it no second one, and nothing that only
            // servers send [MQTT-3.1.0-1, 3.1.0-2].
            _ => {
                self.flush(now, fx);
                self.out_of_place(now, conn, fx);
            }
        }
    }

    /// What is to be written to a client; lives until [`Shard::closed`].
    pub fn output(&mut self, conn: Conn) -> Option<&mut Output> {
        let channel = self.channels.get_mut(conn.0 as usize)?;
        channel.woken = false;
        Some(&mut channel.output)
    }

    /// The socket took everything: what waited for room may go on.
    pub fn writable_drained(&mut self, now: Now, conn: Conn, fx: &mut ShardEffects) {
        let Some(channel) = self.channels.get_mut(conn.0 as usize) else {
            return;
        };
        channel.woken = false;
        if channel.output.has_spare() {
            let spare = channel.output.take_spare();
            if self.spares.len() < SPARES_MAX && spare.capacity() <= SPARE_BYTES_MAX {
                self.spares.push(spare);
            }
        }
        if !channel.is_open() {
            return;
        }
        if channel.paused.clear(Paused::OUTPUT) {
            fx.resume.push(conn);
        }
        let session = channel.session;
        self.pump(now, session, fx);
        self.replay(now, conn, fx);
    }

    /// A client's connection ended, by itself or because [`ShardEffects::close`] said so.
    pub fn closed(&mut self, now: Now, conn: Conn, why: CloseReason, fx: &mut ShardEffects) {
        if !self.channels.contains(conn.0 as usize) {
            return;
        }
        self.hang_up(now, conn, why, None, fx);
        // `hang_up` asks for the close of a connection that is closed already.
        fx.close.retain(|(closing, _)| *closing != conn);
        self.channels.remove(conn.0 as usize);
    }

    /// A letter from control or another shard.
    pub fn message(&mut self, now: Now, letter: ToShard, fx: &mut ShardEffects) {
        match letter {
            ToShard::Deliver(deliveries) => self.on_deliveries(now, deliveries, fx),
            ToShard::Takeover { request, reply } => self.on_takeover(now, request, reply, fx),
            ToShard::TakenOver { token, result } => self.on_taken_over(now, token, result, fx),
            ToShard::Fence { from, token } => fx.send(from, ToShard::Fenced { token }),
            ToShard::Fenced { token } => self.on_fenced(now, token, fx),
            ToShard::FenceLink { node, number } => self.on_fence_link(node, number, fx),
            ToShard::LinksFenced { token } => self.ask_for_rest(now, token, fx),
            ToShard::Kick {
                clientid,
                reason,
                older_than,
            } => {
                _ = self.on_kick(now, &clientid, reason, older_than, fx);
            }
            ToShard::Elsewhere { clientid, newer } => self.on_elsewhere(now, &clientid, newer, fx),
            ToShard::WillSpent { clientid, stamp } => self.on_will_spent(&clientid, stamp, fx),
            ToShard::Settled { token } => self.on_settled(now, token, fx),
            ToShard::Proven { token, answer } => self.on_proven(now, token, answer, fx),
            ToShard::Persisted { token } => self.on_persisted(token, fx),
            ToShard::PeerUp {
                peer,
                node,
                host,
                port,
            } => {
                self.on_peer_up(now, (node, peer), (host, port), fx);
            }
            ToShard::PeerDown { node, reason } => self.on_peer_down(now, node, reason, fx),
            ToShard::Receipts { node, numbers } => self.on_receipts(node, &numbers),
            ToShard::PeerGone { site, node } => self.on_peer_gone(now, site, node, fx),
            ToShard::Publish { message, ask } => self.on_publish_here(now, message, ask, fx),
            ToShard::Drain { redirect } => self.on_drain(now, redirect, fx),
            ToShard::Ask { ask, what } => self.on_ask(now, ask, what, fx),
            ToShard::AccessChanged => self.access = Arc::new(self.shared.access()),
            ToShard::Adopt { from, offer } => self.adopt(now, from, &offer, fx),
            ToShard::SettingsChanged => self.settings = self.shared.settings(),
        }
    }

    /// When [`Shard::tick`] is wanted next, mono ms; `u64::MAX` for never.
    pub fn next_tick(&self) -> u64 {
        self.wheel.next_ms()
    }

    /// Time has passed: everything due is done.
    pub fn tick(&mut self, now: Now, fx: &mut ShardEffects) {
        while let Some(due) = self.wheel.pop_due(now.mono_ms) {
            for timer in due {
                self.timer(now, timer, fx);
            }
        }
    }

    fn timer(&mut self, now: Now, timer: Timer, fx: &mut ShardEffects) {
        match timer {
            Timer::Idle(conn, generation) => self.on_idle(now, conn, generation, fx),
            Timer::Keepalive(conn, generation) => self.on_keepalive(now, conn, generation, fx),
            Timer::Suback(conn, generation, token) => {
                self.tokens.remove(&token);
                if self.is_current(conn, generation) {
                    self.release_suback(conn, token, fx);
                }
            }
            Timer::AuthExpiry(conn, generation) => self.on_auth_expiry(now, conn, generation, fx),
            Timer::Retry(conn, generation) => self.on_retry(now, conn, generation, fx),
            Timer::AwaitRel(session) => self.on_await_rel(now, session),
            Timer::Expiry(session) => self.on_expiry(now, session, fx),
            Timer::Will(session) => self.on_will_due(now, session, fx),
            Timer::Takeover(token) => self.on_takeover_timeout(now, token, fx),
            Timer::Finish(token) => self.ask_for_rest(now, token, fx),
            Timer::Redial(node) => self.dial_node(now, node, fx),
            Timer::Stalled => self.on_stalled(now, fx),
            Timer::Receipts => self.send_receipts(now, fx),
            Timer::Drain => self.drain_some(now, fx),
            Timer::Drained => self.look_drained(now, fx),
        }
    }

    /// Routes asked about have settled: a SUBACK goes out, or the rest of a session is asked for.
    fn on_settled(&mut self, now: Now, token: u64, fx: &mut ShardEffects) {
        if self.routes_settled(token, fx) {
            return;
        }
        self.drain_settled(now, token, fx);
        let Some((conn, generation)) = self.tokens.get(&token).copied() else {
            return;
        };
        if self.is_current(conn, generation) {
            self.release_suback(conn, token, fx);
        } else {
            self.tokens.remove(&token);
        }
    }

    /// Whether nothing waits for an answer.
    #[cfg(test)]
    pub(crate) fn idle_tables(&self) -> bool {
        self.tokens.is_empty()
            && self.takeovers.is_empty()
            && self.fences.is_empty()
            && self.asked_for_rest.is_empty()
            && self.acks_waiting.is_empty()
    }

    pub(crate) fn is_current(&self, conn: Conn, generation: u32) -> bool {
        self.channels
            .get(conn.0 as usize)
            .is_some_and(|c| c.generation == generation)
    }

    pub(crate) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// An identifier for a message that is routed here first. Each shard of each boot counts from a
    /// random number, so no two messages that could meet in a session have the same.
    pub(crate) fn message_id(&mut self) -> u64 {
        self.next_message = self.next_message.wrapping_add(1).max(1);
        self.next_message
    }

    /// The buffer to encode small packets for a connection into; wakes it.
    pub(crate) fn write(&mut self, conn: Conn, fx: &mut ShardEffects) -> Option<&mut BytesMut> {
        let channel = self.channels.get_mut(conn.0 as usize)?;
        open_output(channel, conn, &mut self.spares, fx);
        Some(channel.output.buffer())
    }

    /// Encodes a small packet for a connection and counts it.
    pub(crate) fn send(
        &mut self,
        conn: Conn,
        packet: &Packet,
        metric: Metric,
        fx: &mut ShardEffects,
    ) {
        let Some(version) = self.channels.get(conn.0 as usize).map(|c| c.version) else {
            return;
        };
        let Some(out) = self.write(conn, fx) else {
            return;
        };
        let before = out.len();
        packet.encode(version, out);
        let bytes = out.len() - before;
        self.count_sent(conn, metric, bytes);
    }

    pub(crate) fn count_sent(&mut self, conn: Conn, metric: Metric, bytes: usize) {
        self.metrics.count(metric);
        self.metrics.count(Metric::PacketsSent);
        self.metrics.add(Metric::BytesSent, bytes as u64);
        if let Some(channel) = self.channels.get_mut(conn.0 as usize) {
            channel.traffic.send_pkt += 1;
            channel.traffic.send_oct += bytes as u64;
        }
    }

    fn count_received(&mut self, now: Now, conn: Conn, packets: u64, bytes: usize) {
        self.metrics.add(Metric::PacketsReceived, packets);
        self.metrics.add(Metric::BytesReceived, bytes as u64);
        if let Some(channel) = self.channels.get_mut(conn.0 as usize) {
            if packets > 0 {
                channel.heard_ms = now.mono_ms;
            }
            channel.traffic.recv_pkt += packets;
            channel.traffic.recv_oct += bytes as u64;
        }
    }

    /// Stops reading a client that does not read its answers.
    fn check_output(&mut self, conn: Conn, fx: &mut ShardEffects) {
        if let Some(channel) = self.channels.get_mut(conn.0 as usize)
            && channel.output.len() > OUTPUT_STOP_BYTES
            && channel.paused.set(Paused::OUTPUT)
        {
            fx.pause.push(conn);
        }
    }
}

/// Has a connection's output written, and lends it a buffer if it has none.
#[inline]
pub(crate) fn open_output(
    channel: &mut Channel,
    conn: Conn,
    spares: &mut Vec<BytesMut>,
    fx: &mut ShardEffects,
) {
    if !channel.woken {
        channel.woken = true;
        fx.wake.push(conn);
    }
    if channel.output.wants_buffer()
        && let Some(spare) = spares.pop()
    {
        channel.output.lend(spare);
    }
}
