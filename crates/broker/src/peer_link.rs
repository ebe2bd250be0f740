//! This shard's data links: one outgoing stream to each other node, and the streams other nodes'
//! shards send here.
//!
//! A stream outlives its connections: it is attached again after a redial and continues where the
//! receiver stands, so a blip neither loses nor repeats a message. A node that is down keeps its
//! stream (bounded by the window of [`Sender`]) until it is no member any more or comes back as
//! another boot. This module knows frames, not messages.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Bytes, BytesMut};
use dunlin_cluster::link::stream::{WINDOW_BYTES, WINDOW_FRAMES};
use dunlin_cluster::{
    BootId, Cookie, Handshake, HandshakeError, Hello, Identity, LinkError, Now, Peer, Purpose,
    Receiver, Sender, SiteId,
};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::channel::acks::Wait;
use crate::dispatch::Giver;
use crate::effects::{Conn, PeerConn, ShardEffects};
use crate::router::NodeIndex;

/// First pause between two dials of a data link, ms.
const REDIAL_MIN_MS: u64 = 50;
/// Longest pause between two dials, ms: "whole again within two seconds" leaves room for one.
const REDIAL_MAX_MS: u64 = 1_000;
/// How often links that wait for their peer are looked at, ms.
pub(crate) const LOOK_MS: u64 = 500;
/// Looks in a row without a byte from the peer at which a connection is given up. So it had 2.5 s
/// at least, while this node ran: more than a busy peer needs, and less than a session that moves
/// gives it. A connection that hangs while control is well would hold acknowledgements for ever.
const STALLED_LOOKS: u8 = 6;
/// How often it is said that a frame is still coming in, ms: a large one over a slow way is no
/// stall.
const COMING_MS: u64 = 500;
/// Share of the window that stays free for messages already read when publishers are paused:
/// frames and bytes above this are "full" for QoS 1 and 2.
const HIGH_FRAMES: usize = WINDOW_FRAMES / 4 * 3;
/// The same in bytes.
const HIGH_BYTES: usize = WINDOW_BYTES / 4 * 3;

/// What this node proves itself with to others.
#[derive(Clone, Debug)]
pub struct Peering {
    /// Name, ids; changes with join and leave.
    pub identity: Arc<RwLock<Identity>>,
    /// The shared secret.
    pub cookie: Cookie,
}

/// The outgoing stream to one node.
#[derive(Debug)]
pub(crate) struct OutLink {
    peer: Peer,
    host: String,
    port: u16,
    /// Control can reach the node.
    up: bool,
    sender: Sender,
    epoch: u32,
    conn: Option<PeerConn>,
    /// Until the present connection has proven itself.
    handshake: Option<Box<Handshake>>,
    /// Connections in a row on which the peer did not take the stream.
    failures: u32,
    /// Looks in a row at which the peer was waited for and nothing had come.
    silent_looks: u8,
    /// The driver will ask for output anyway.
    woken: bool,
    /// Connections that wait for room.
    blocked: Vec<Conn>,
}

/// What one connection is.
#[derive(Debug)]
enum PeerSocket {
    Out(NodeIndex),
    In(StreamKey),
}

type StreamKey = (SiteId, BootId, u16);

/// An incoming stream and the connection it is attached to.
#[derive(Debug, Default)]
struct InLink {
    receiver: Receiver,
    conn: Option<PeerConn>,
    /// Since when a frame comes in that is not whole, or when that was said last, mono ms.
    coming_ms: Option<u64>,
}

/// What came of sending a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// Queued; an acknowledgement may wait for it.
    Sent(Wait),
    /// Queued for a node that is down: nobody waits.
    Kept,
    /// Dropped: the window is full, or QoS 0 to a node that is down, or no such node.
    Dropped,
}

/// What received bytes meant.
#[derive(Debug, Default)]
pub(crate) struct PeerReceived {
    /// Payloads of an incoming stream, in order.
    pub(crate) payloads: Vec<Bytes>,
    /// Whose stream.
    pub(crate) from: Option<Giver>,
    /// Acknowledgements moved.
    pub(crate) acked: bool,
    /// Connections that waited for room and may go on.
    pub(crate) unblocked: Vec<Conn>,
    /// The connection is useless: the node to dial again and after how many ms.
    pub(crate) redial: Option<(NodeIndex, u64)>,
}

/// All data links of a shard.
#[derive(Debug)]
pub(crate) struct Links {
    index: u16,
    peering: Option<Peering>,
    out: Vec<Option<Box<OutLink>>>,
    streams: BTreeMap<StreamKey, InLink>,
    sockets: BTreeMap<PeerConn, PeerSocket>,
    next_conn: u32,
    next_epoch: u32,
}

impl Links {
    pub(crate) fn new(index: u16) -> Self {
        Self {
            index,
            peering: None,
            out: Vec::new(),
            streams: BTreeMap::new(),
            sockets: BTreeMap::new(),
            next_conn: 0,
            next_epoch: 0,
        }
    }

    pub(crate) fn set_peering(&mut self, peering: Peering) {
        self.peering = Some(peering);
    }

    /// Whether a QoS 1 or 2 message to the node should wait for room.
    pub(crate) fn is_full(&self, node: NodeIndex) -> bool {
        self.get(node).is_some_and(|link| link.up && link.is_high())
    }

    /// Whether every node that can be reached has everything sent to it.
    pub(crate) fn is_idle(&self) -> bool {
        let links = self.out.iter().flatten();
        links
            .filter(|link| link.up)
            .all(|link| link.sender.unacked() == 0)
    }

    /// Remembers a connection to resume when the node's window has room.
    pub(crate) fn block(&mut self, node: NodeIndex, conn: Conn) {
        if let Some(link) = self.get_mut(node)
            && !link.blocked.contains(&conn)
        {
            link.blocked.push(conn);
        }
    }

    /// Whether control can reach a node.
    pub(crate) fn is_up(&self, node: NodeIndex) -> bool {
        self.get(node).is_some_and(|link| link.up)
    }

    /// Which life of a node its stream is for.
    pub(crate) fn boot(&self, node: NodeIndex) -> Option<BootId> {
        self.get(node).map(|link| link.peer.boot)
    }

    /// Queues a forward.
    pub(crate) fn forward(
        &mut self,
        node: NodeIndex,
        qos: u8,
        parts: &[&[u8]],
        fx: &mut ShardEffects,
    ) -> Forwarded {
        let Some(link) = self.get_mut(node) else {
            return Forwarded::Dropped;
        };
        // QoS 0 goes first: what is left of the window is for messages that were promised.
        if qos == 0 && (!link.up || link.is_high()) {
            return Forwarded::Dropped;
        }
        if link.sender.unacked() == 0 {
            link.silent_looks = 0;
        }
        let Ok(number) = link.sender.send(parts) else {
            return Forwarded::Dropped;
        };
        link.wake(fx);
        if link.up {
            Forwarded::Sent(Wait::Peer {
                node,
                epoch: link.epoch,
                number,
            })
        } else {
            Forwarded::Kept
        }
    }

    /// Whether an acknowledgement need not wait for this any more.
    pub(crate) fn is_over(&self, wait: &Wait) -> bool {
        match *wait {
            Wait::Store(_) => false,
            Wait::Peer {
                node,
                epoch,
                number,
            } => self.get(node).is_none_or(|link| {
                !link.up || link.epoch != epoch || link.sender.acked_number() >= number
            }),
        }
    }

    /// What everything sent to a node so far waits for; `None` if there is no link to it.
    pub(crate) fn last_sent(&self, node: NodeIndex) -> Option<Wait> {
        let link = self.get(node)?;
        Some(Wait::Peer {
            node,
            epoch: link.epoch,
            number: link.sender.acked_number() + link.sender.unacked() as u64,
        })
    }

    /// A member is reachable.
    pub(crate) fn peer_up(
        &mut self,
        now: Now,
        (node, peer): (NodeIndex, Peer),
        (host, port): (String, u16),
        rng: &mut SmallRng,
        fx: &mut ShardEffects,
    ) {
        let at = usize::from(node.0);
        if at >= self.out.len() {
            self.out.resize_with(at + 1, || None);
        }
        let known = self.out[at].as_ref().is_some_and(|link| link.peer == peer);
        if !known {
            self.drop_streams_of(peer.site, Some(peer.boot), fx);
            self.drop_out(node, fx);
            self.next_epoch += 1;
            self.out[at] = Some(Box::new(OutLink {
                peer,
                host: String::new(),
                port: 0,
                up: false,
                sender: Sender::new(rng.random()),
                epoch: self.next_epoch,
                conn: None,
                handshake: None,
                failures: 0,
                silent_looks: 0,
                woken: false,
                blocked: Vec::new(),
            }));
        }
        if let Some(link) = self.get_mut(node) {
            link.host = host;
            link.port = port;
            link.up = true;
            link.failures = 0;
        }
        self.dial(now, node, rng, fx);
    }

    /// A member cannot be reached; its stream is kept. Returns the connections that waited.
    pub(crate) fn peer_down(&mut self, node: NodeIndex, fx: &mut ShardEffects) -> Vec<Conn> {
        self.hang_up(node, fx);
        match self.get_mut(node) {
            Some(link) => {
                link.up = false;
                std::mem::take(&mut link.blocked)
            }
            None => Vec::new(),
        }
    }

    /// A site is no member any more.
    pub(crate) fn peer_gone(
        &mut self,
        site: SiteId,
        node: NodeIndex,
        fx: &mut ShardEffects,
    ) -> Vec<Conn> {
        let blocked = self.peer_down(node, fx);
        if self.get(node).is_some_and(|link| link.peer.site == site) {
            self.drop_out(node, fx);
        }
        self.drop_streams_of(site, None, fx);
        blocked
    }

    /// A dialed connection stands: the handshake's first bytes are ready.
    pub(crate) fn connected(&mut self, conn: PeerConn, fx: &mut ShardEffects) {
        match self.sockets.get(&conn) {
            Some(PeerSocket::Out(_)) => fx.peer_wake.push(conn),
            _ => fx.peer_close.push(conn),
        }
    }

    /// An accepted connection whose handshake control has done.
    pub(crate) fn accepted(&mut self, conn: PeerConn, hello: &Hello, fx: &mut ShardEffects) {
        let Purpose::Data { index } = hello.purpose else {
            fx.peer_close.push(conn);
            return;
        };
        let site = hello.peer.site;
        self.drop_streams_of(site, Some(hello.peer.boot), fx);
        let key = (site, hello.peer.boot, index);
        let stream = self.streams.entry(key).or_default();
        if let Some(old) = stream.conn.replace(conn) {
            self.sockets.remove(&old);
            fx.peer_close.push(old);
        }
        stream.receiver.connected();
        stream.coming_ms = None;
        self.sockets.insert(conn, PeerSocket::In(key));
    }

    /// Bytes of a data connection.
    pub(crate) fn received(
        &mut self,
        now: Now,
        conn: PeerConn,
        buf: &mut BytesMut,
        fx: &mut ShardEffects,
    ) -> PeerReceived {
        let mut got = PeerReceived::default();
        let failed = match self.sockets.get(&conn) {
            None => {
                buf.clear();
                return got;
            }
            Some(&PeerSocket::In(key)) => {
                let at = (key, conn);
                self.received_in(now, at, buf, &mut got, fx).is_err()
            }
            Some(&PeerSocket::Out(node)) => self.received_out(node, buf, &mut got, fx),
        };
        if failed {
            buf.clear();
            fx.peer_close.push(conn);
            got.redial = self.closed(conn);
        }
        got
    }

    fn received_in(
        &mut self,
        now: Now,
        (key, conn): (StreamKey, PeerConn),
        buf: &mut BytesMut,
        got: &mut PeerReceived,
        fx: &mut ShardEffects,
    ) -> Result<(), LinkError> {
        let Some(stream) = self.streams.get_mut(&key) else {
            return Ok(());
        };
        let result = stream
            .receiver
            .receive(buf, |_, payload| got.payloads.push(payload));
        if let Err(error) = result {
            tracing::warn!(site = %key.0, %error, "peer_data_link_failed");
            return Err(error);
        }
        stream.note_coming(now, !got.payloads.is_empty() || buf.is_empty());
        got.from = Some(Giver {
            site: key.0,
            boot: key.1,
            shard: key.2,
        });
        fx.peer_wake.push(conn);
        Ok(())
    }

    /// Returns whether the connection is to be closed.
    fn received_out(
        &mut self,
        node: NodeIndex,
        buf: &mut BytesMut,
        got: &mut PeerReceived,
        fx: &mut ShardEffects,
    ) -> bool {
        let Some(link) = self.get_mut(node) else {
            return true;
        };
        link.silent_looks = 0;
        if let Err(error) = link.proven(buf) {
            tracing::warn!(node = %link.peer.name, %error, "peer_data_handshake_failed");
            return true;
        }
        if link.handshake.is_some() {
            link.wake(fx);
            return false;
        }
        let before = link.sender.acked_number();
        if let Err(error) = link.sender.receive(buf) {
            tracing::warn!(node = %link.peer.name, %error, "peer_data_link_failed");
            return true;
        }
        if link.sender.acked_number() != before {
            got.acked = true;
        }
        // Only now does the node take what this shard sends. One that no longer counts us as a
        // member proves itself all the same, and hangs up.
        if link.sender.is_attached() {
            link.failures = 0;
        }
        if link.sender.has_output() {
            link.wake(fx);
        }
        if !link.blocked.is_empty() && !link.is_high() {
            got.unblocked = std::mem::take(&mut link.blocked);
        }
        false
    }

    /// A connection ended. Returns the node to dial again and after how many ms.
    pub(crate) fn closed(&mut self, conn: PeerConn) -> Option<(NodeIndex, u64)> {
        match self.sockets.remove(&conn)? {
            PeerSocket::In(key) => {
                if let Some(stream) = self.streams.get_mut(&key)
                    && stream.conn == Some(conn)
                {
                    stream.conn = None;
                }
                None
            }
            PeerSocket::Out(node) => {
                let link = self.get_mut(node)?;
                if link.conn != Some(conn) {
                    return None;
                }
                self.forget_conn(node);
                let link = self.get_mut(node)?;
                link.failures += 1;
                let pause = REDIAL_MIN_MS << link.failures.saturating_sub(1).min(10);
                link.up.then_some((node, pause.min(REDIAL_MAX_MS)))
            }
        }
    }

    /// Dials a node that is up and has no connection.
    pub(crate) fn dial(
        &mut self,
        now: Now,
        node: NodeIndex,
        rng: &mut SmallRng,
        fx: &mut ShardEffects,
    ) {
        let Some(peering) = self.peering.clone() else {
            return;
        };
        let purpose = Purpose::Data { index: self.index };
        let conn = PeerConn(self.next_conn);
        let Some(link) = self.get_mut(node).filter(|l| l.up && l.conn.is_none()) else {
            return;
        };
        let identity = peering
            .identity
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut nonce = [0; 32];
        rng.fill(&mut nonce);
        let name = Some(link.peer.name.clone());
        link.handshake = Some(Box::new(Handshake::dial(
            &identity,
            &peering.cookie,
            purpose,
            nonce,
            now,
            name,
        )));
        link.conn = Some(conn);
        link.silent_looks = 0;
        // There is nothing to write to before it stands, which wakes it.
        link.woken = true;
        fx.peer_dial.push((conn, link.host.clone(), link.port));
        self.sockets.insert(conn, PeerSocket::Out(node));
        // Accepted connections are the driver's odd numbers.
        self.next_conn = self.next_conn.wrapping_add(2);
    }

    /// Looks at the connections whose peers are waited for, and gives up those that hang; returns
    /// the nodes to dial again. To be called every [`LOOK_MS`]: looks are counted and not time,
    /// because in a time in which this node did not run nobody can have been heard.
    pub(crate) fn drop_stalled(&mut self, fx: &mut ShardEffects) -> Vec<NodeIndex> {
        let mut nodes = Vec::new();
        for (at, link) in self.out.iter_mut().enumerate() {
            let Some(link) = link.as_deref_mut().filter(|link| link.waits()) else {
                continue;
            };
            link.silent_looks += 1;
            if link.silent_looks >= STALLED_LOOKS {
                link.failures += u32::from(!link.sender.is_attached());
                nodes.push(NodeIndex(at as u16));
            }
        }
        for node in &nodes {
            self.hang_up(*node, fx);
        }
        nodes
    }

    /// Whether any connection's peer is waited for: there is something to look at.
    pub(crate) fn any_waits(&self) -> bool {
        self.out.iter().flatten().any(|link| link.waits())
    }

    /// What is to be written to a connection.
    pub(crate) fn output(&mut self, conn: PeerConn, out: &mut Vec<Bytes>) {
        match self.sockets.get(&conn) {
            None => {}
            Some(&PeerSocket::In(key)) => {
                if let Some(stream) = self.streams.get_mut(&key) {
                    stream.receiver.take_output(out);
                }
            }
            Some(&PeerSocket::Out(node)) => {
                if let Some(link) = self.get_mut(node) {
                    link.woken = false;
                    match &mut link.handshake {
                        Some(handshake) => out.extend(handshake.take_output()),
                        None => link.sender.take_output(out),
                    }
                }
            }
        }
    }

    /// A node's name and how often dialing it failed in a row.
    pub(crate) fn failures(&self, node: NodeIndex) -> Option<(&Peer, u32)> {
        self.get(node).map(|link| (&link.peer, link.failures))
    }

    fn get(&self, node: NodeIndex) -> Option<&OutLink> {
        self.out.get(usize::from(node.0))?.as_deref()
    }

    fn get_mut(&mut self, node: NodeIndex) -> Option<&mut OutLink> {
        self.out.get_mut(usize::from(node.0))?.as_deref_mut()
    }

    fn hang_up(&mut self, node: NodeIndex, fx: &mut ShardEffects) {
        if let Some(conn) = self.forget_conn(node) {
            fx.peer_close.push(conn);
        }
    }

    fn forget_conn(&mut self, node: NodeIndex) -> Option<PeerConn> {
        let link = self.get_mut(node)?;
        link.sender.detach();
        link.handshake = None;
        link.woken = false;
        let conn = link.conn.take()?;
        self.sockets.remove(&conn);
        Some(conn)
    }

    fn drop_out(&mut self, node: NodeIndex, fx: &mut ShardEffects) {
        self.hang_up(node, fx);
        if let Some(place) = self.out.get_mut(usize::from(node.0)) {
            *place = None;
        }
    }

    /// Forgets incoming streams of a site, except those of the boot `keep`.
    fn drop_streams_of(&mut self, site: SiteId, keep: Option<BootId>, fx: &mut ShardEffects) {
        let gone: Vec<StreamKey> = self
            .streams
            .keys()
            .filter(|key| key.0 == site && Some(key.1) != keep)
            .copied()
            .collect();
        for key in gone {
            if let Some(conn) = self.streams.remove(&key).and_then(|stream| stream.conn) {
                self.sockets.remove(&conn);
                fx.peer_close.push(conn);
            }
        }
    }
}

impl InLink {
    /// Bytes have come; `whole` if they ended a frame, or nothing is left of them. That a frame is
    /// on its way is said by acknowledging again what was before it.
    fn note_coming(&mut self, now: Now, whole: bool) {
        if whole {
            self.coming_ms = None;
            return;
        }
        let since = *self.coming_ms.get_or_insert(now.mono_ms);
        if now.mono_ms >= since + COMING_MS {
            self.receiver.heartbeat();
            self.coming_ms = Some(now.mono_ms);
        }
    }
}

impl OutLink {
    /// Whether something is due from the peer on the present connection.
    fn waits(&self) -> bool {
        let due = self.sender.unacked() > 0 || self.handshake.is_some();
        self.up && self.conn.is_some() && due
    }

    fn is_high(&self) -> bool {
        self.sender.unacked() >= HIGH_FRAMES || self.sender.unacked_bytes() >= HIGH_BYTES
    }

    fn wake(&mut self, fx: &mut ShardEffects) {
        if let Some(conn) = self.conn
            && !self.woken
        {
            self.woken = true;
            fx.peer_wake.push(conn);
        }
    }

    /// Moves the handshake on; once it is done the stream opens on this connection.
    fn proven(&mut self, buf: &mut BytesMut) -> Result<(), HandshakeError> {
        let Some(handshake) = &mut self.handshake else {
            return Ok(());
        };
        let Some(hello) = handshake.receive(buf)? else {
            return Ok(());
        };
        if hello.peer != self.peer {
            // Another boot under the same name: control will say so with its new ids.
            return Err(HandshakeError::NameMismatch {
                expected: self.peer.name.clone(),
                found: hello.peer.name,
            });
        }
        self.handshake = None;
        self.sender.connected();
        Ok(())
    }
}
