//! What a shard is told by the rest of its node and what it wants done.
//!
//! Everything here is plain data: the threads of the server and the simulator carry it between the
//! same cores. A mailbox between two shards, and between a shard and control, keeps order; nothing
//! else is assumed of it. This module must never hold behaviour of the protocol.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use dunlin_cluster::{BootId, DownReason, Hlc, NodeName, Peer, SiteId, Stamp};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::access::{Authentication, Proof};
use crate::message::Message;
use crate::redirect::Redirect;
use crate::router::{GroupKey, NodeIndex, SessionKey, SubOptions};
use crate::session::{SessionOffer, SessionState};
use crate::settings::ListenerSettings;

/// A shard of a node: the index of its thread.
pub type ShardId = u16;

/// A client connection within its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn(pub u32);

/// A data connection to or from another node, within its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerConn(pub u32);

/// A fresh connection, as the listener saw it.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The listener it came through.
    pub listener: Arc<ListenerSettings>,
    /// The client's address (after PROXY protocol, where that is on).
    pub peer: SocketAddr,
    /// Our address.
    pub local: SocketAddr,
    /// Subject and names of a verified client certificate.
    pub peer_cert: Option<Box<PeerCert>>,
    /// Whether the bytes travel in WebSocket frames.
    pub ws: bool,
}

/// What a verified client certificate says about its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCert {
    /// Common name.
    pub cn: String,
    /// Whole subject, `CN=..,O=..`.
    pub dn: String,
    /// The certificate, DER.
    pub der: Bytes,
}

/// Why a client connection ended. Names are those EMQX shows in `$SYS`, REST and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CloseReason {
    /// The client said DISCONNECT.
    Normal,
    /// The peer closed the byte stream.
    TcpClosed,
    /// The byte stream failed (reset, timeout of the socket).
    TcpError,
    /// TLS failed after the handshake.
    TlsError,
    /// No CONNECT within `idle_timeout`.
    IdleTimeout,
    /// Silence longer than keepalive times its multiplier.
    KeepaliveTimeout,
    /// Bytes that are no MQTT.
    FrameError,
    /// A packet larger than `max_packet_size`.
    FrameTooLarge,
    /// A packet that is not allowed there.
    ProtocolError,
    /// CONNECT was refused.
    ConnectRefused,
    /// Authorization said no and `deny_action = disconnect`; or credentials expired.
    NotAuthorized,
    /// An operator kicked the client.
    Kicked,
    /// A newer connection with clean start took the client identifier.
    Discarded,
    /// A newer connection took the session over.
    TakenOver,
    /// The session expired while connected (its credentials or its time ran out).
    Expired,
    /// The node is stopping.
    Shutdown,
    /// The client reads too slowly and its output passed the hard bound.
    OutputFull,
    /// The node gives its clients away to others.
    Evicted,
}

impl CloseReason {
    /// The name EMQX prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::TcpClosed => "tcp_closed",
            Self::TcpError => "tcp_error",
            Self::TlsError => "ssl_error",
            Self::IdleTimeout => "idle_timeout",
            Self::KeepaliveTimeout => "keepalive_timeout",
            Self::FrameError => "frame_error",
            Self::FrameTooLarge => "frame_too_large",
            Self::ProtocolError => "protocol_error",
            Self::ConnectRefused => "connect_refused",
            Self::NotAuthorized => "not_authorized",
            Self::Kicked => "kicked",
            Self::Discarded => "discarded",
            Self::TakenOver => "takenover",
            Self::Expired => "expired",
            Self::Shutdown => "shutdown",
            Self::OutputFull => "output_full",
            Self::Evicted => "use_another_server",
        }
    }
}

/// What a shard wants done. The driver drains every field after each call and keeps the buffers.
///
/// Order that matters: `wake` before `close` (a connection is closed once its output is flushed).
#[derive(Debug, Default)]
pub struct ShardEffects {
    /// Connections that have output to write. May repeat.
    pub wake: Vec<Conn>,
    /// Connections to close after their output is flushed. The shard has forgotten them, except
    /// for their [`Output`], which lives until the driver calls `Shard::closed`.
    pub close: Vec<(Conn, CloseReason)>,
    /// Connections whose socket must not be read for now.
    pub pause: Vec<Conn>,
    /// Connections to read again. The driver first calls `Shard::receive` with the bytes it still
    /// holds, then reads.
    pub resume: Vec<Conn>,
    /// Checks of credentials to be made on other threads; answer with [`ToShard::Proven`].
    pub prove: Vec<(u64, Proof)>,
    /// Letters to other shards, indexed by [`ShardId`]; sent in one batch each.
    pub to_shard: Vec<Vec<ToShard>>,
    /// Letters to control.
    pub to_control: Vec<ToControl>,
    /// Data connections to dial. Answer: `peer_connected` or `peer_dial_failed`.
    pub peer_dial: Vec<(PeerConn, String, u16)>,
    /// Data connections that stand and have output.
    pub peer_wake: Vec<PeerConn>,
    /// Data connections to close now. The shard has forgotten them.
    pub peer_close: Vec<PeerConn>,
}

impl ShardEffects {
    /// Effects with a mailbox for each of `shards` shards.
    pub fn new(shards: u16) -> Self {
        let mut to_shard = Vec::new();
        to_shard.resize_with(usize::from(shards), Vec::new);
        Self {
            to_shard,
            ..Self::default()
        }
    }

    /// Adds a letter to another shard.
    pub fn send(&mut self, shard: ShardId, letter: ToShard) {
        let at = usize::from(shard);
        if at >= self.to_shard.len() {
            self.to_shard.resize_with(at + 1, Vec::new);
        }
        self.to_shard[at].push(letter);
    }

    /// Adds a letter to control.
    pub fn tell(&mut self, letter: ToControl) {
        self.to_control.push(letter);
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.wake.is_empty()
            && self.close.is_empty()
            && self.pause.is_empty()
            && self.resume.is_empty()
            && self.prove.is_empty()
            && self.to_shard.iter().all(Vec::is_empty)
            && self.to_control.is_empty()
            && self.peer_dial.is_empty()
            && self.peer_wake.is_empty()
            && self.peer_close.is_empty()
    }
}

/// Where the answer to a takeover goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// Another shard of this node ([`ToShard::TakenOver`]).
    Shard {
        /// The asking shard.
        shard: ShardId,
        /// Its token.
        token: u64,
    },
    /// Another node, through control ([`ToControl::TakeoverReply`]).
    Call(u64),
}

/// A step of taking a client identifier over from where it lives. Travels between nodes as it is
/// (`encode`/`decode` in [`crate::session`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverRequest {
    /// The client identifier.
    pub clientid: String,
    /// When the new connection was accepted; the older owner yields.
    pub stamp: Hlc,
    /// What is wanted.
    pub step: TakeoverStep,
    /// The shard and session the new owner has set aside, when it is on the same node: the router's
    /// entries are pointed at it in one write, so that nothing falls between.
    pub heir: Option<(ShardId, SessionKey)>,
}

/// The steps of a takeover. Within a node one `Take` does all; between nodes `Begin` copies the
/// session while the old one keeps collecting, and `Finish` ends it once routes have moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TakeoverStep {
    /// Clean start: disconnect the old client and destroy the session.
    Discard,
    /// Move the session (same node).
    Take,
    /// Disconnect the old client, copy the session, keep collecting messages.
    Begin,
    /// Hand over what was collected since `Begin` and destroy the session.
    Finish,
}

/// The answer to a [`TakeoverRequest`].
#[derive(Clone, Debug)]
pub enum TakeoverResult {
    /// No such session there (any more), or it was discarded.
    None,
    /// The session, or (after `Finish`) what it collected since `Begin`.
    Session(Box<SessionState>),
    /// The owner did not answer.
    Failed,
}

/// One message for sessions of another shard.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The receiving subscriptions.
    pub to: SmallVec<[Target; 2]>,
}

/// One receiving subscription.
#[derive(Clone, Debug)]
pub struct Target {
    /// The session.
    pub session: SessionKey,
    /// What the subscription asked for.
    pub options: SubOptions,
    /// The shared group that picked it.
    pub group: Option<Arc<GroupKey>>,
}

/// Letters to a shard.
#[derive(Debug)]
pub enum ToShard {
    /// Messages for sessions of this shard, from another shard.
    Deliver(Vec<Delivery>),
    /// A newer connection wants this client identifier.
    Takeover {
        /// What is wanted.
        request: TakeoverRequest,
        /// Where the answer goes.
        reply: ReplyTo,
    },
    /// The answer to this shard's takeover.
    TakenOver {
        /// The token of the request.
        token: u64,
        /// The answer.
        result: TakeoverResult,
    },
    /// Everything sent before this letter has arrived: answer with `Fenced`.
    Fence {
        /// The asking shard.
        from: ShardId,
        /// Its token.
        token: u64,
    },
    /// The answer to `Fence`.
    Fenced {
        /// The token of the question.
        token: u64,
    },
    /// Answer with [`ToControl::LinkFenced`] once everything this shard has sent to a node so far
    /// has arrived there.
    FenceLink {
        /// The node.
        node: NodeIndex,
        /// Control's number of the question.
        number: u64,
    },
    /// Everything sent to the node asked about has arrived there, or has had its time.
    LinksFenced {
        /// From [`ToControl::FenceLinks`].
        token: u64,
    },
    /// A shard of this node has a newer connection of this client and needs nothing of the old
    /// session, or an operator kicks it. With a stamp, only an older connection goes.
    Kick {
        /// The client.
        clientid: String,
        /// [`CloseReason::Kicked`], [`CloseReason::TakenOver`] or [`CloseReason::Discarded`].
        reason: CloseReason,
        /// Only if connected before this.
        older_than: Option<Hlc>,
    },
    /// Another node or shard has a newer connection of this client. Another node may be about to
    /// ask for the session.
    Elsewhere {
        /// The client.
        clientid: String,
        /// When it connected there; a connection here goes that is not newer.
        newer: Hlc,
    },
    /// Another node has published the will of this connection, because it could not reach this
    /// node for long: it must not be published again.
    WillSpent {
        /// The client.
        clientid: String,
        /// When it connected.
        stamp: Hlc,
    },
    /// Every live member has the routes asked for with this token.
    Settled {
        /// From [`ToControl::Settle`].
        token: u64,
    },
    /// A check of credentials is made.
    Proven {
        /// From [`ShardEffects::prove`].
        token: u64,
        /// Its answer.
        answer: Authentication,
    },
    /// A cluster-state write is durable.
    Persisted {
        /// From [`ToControl::Retained`].
        token: u64,
    },
    /// A member is reachable: dial its data port.
    PeerUp {
        /// Who.
        peer: Peer,
        /// Its index in this node's router.
        node: NodeIndex,
        /// Where to dial.
        host: String,
        /// Its inter-node port.
        port: u16,
    },
    /// A member is not reachable: release what waits for it, keep its stream.
    PeerDown {
        /// Its index.
        node: NodeIndex,
        /// Why; some reasons mean that its process is dead.
        reason: DownReason,
    },
    /// A node is done with messages that this shard gave to members of groups there.
    Receipts {
        /// Its index.
        node: NodeIndex,
        /// Their numbers.
        numbers: Vec<u64>,
    },
    /// A site is no member any more: forget its stream.
    PeerGone {
        /// Which site.
        site: SiteId,
        /// Its index.
        node: NodeIndex,
    },
    /// A message of the node itself (REST publish, `$SYS`, rules): route it.
    Publish {
        /// The message.
        message: Message,
        /// Answered with [`Answer::Published`] when given.
        ask: Option<u64>,
    },
    /// Stop serving. Every client of v5 is told where to go (DISCONNECT 0x9C) if that is known, or
    /// that the server shuts down (0x8B); sessions are kept where they may be.
    Drain {
        /// Where to.
        redirect: Arc<Redirect>,
    },
    /// An operator's question.
    Ask {
        /// Repeated in the answer.
        ask: u64,
        /// The question.
        what: Ask,
    },
    /// Decisions may have changed (access rules, bans): drop cached verdicts.
    AccessChanged,
    /// Another node gives a session away whose client is not connected.
    Adopt {
        /// The node that has it.
        from: NodeIndex,
        /// Whose it is.
        offer: Box<SessionOffer>,
    },
    /// Settings have changed: connections made from now on have them, and what concerns no single
    /// connection is so at once.
    SettingsChanged,
}

/// Letters to control.
#[derive(Debug)]
pub enum ToControl {
    /// Look at the router: this node's route for the filter appeared or went.
    RouteChanged {
        /// The filter.
        filter: Bytes,
    },
    /// Look at the router: this node's member count of the group changed.
    GroupChanged {
        /// The group.
        group: Bytes,
        /// Its filter, without `$share/group/`.
        filter: Bytes,
    },
    /// Look at the registry: this node's claim on the client identifier changed.
    ClientChanged {
        /// The client.
        clientid: String,
    },
    /// Look at the wills: what the others have to know of this client's changed.
    WillChanged {
        /// The client.
        clientid: String,
    },
    /// This node is done with messages that a shard of another one gave to members of groups here.
    Receipts {
        /// The giving node.
        site: SiteId,
        /// Which life of it.
        boot: BootId,
        /// The giving shard.
        shard: ShardId,
        /// Their numbers.
        numbers: Vec<u64>,
    },
    /// Answer with [`ToShard::Settled`] once every live member has all changes told before.
    Settle {
        /// The asking shard.
        shard: ShardId,
        /// Its token.
        token: u64,
    },
    /// Answer with [`ToShard::LinksFenced`] once everything that all live members have sent to
    /// `towards` so far has arrived there.
    FenceLinks {
        /// The asking shard.
        shard: ShardId,
        /// Its token.
        token: u64,
        /// The node.
        towards: NodeIndex,
    },
    /// The answer to [`ToShard::FenceLink`].
    LinkFenced {
        /// The number of the question.
        number: u64,
    },
    /// This shard has put a retained message into the shared table (or deleted it there), or has to
    /// know that it is durable: persist and replicate the row.
    Retained {
        /// The row's key.
        key: Bytes,
        /// The stamp it was put with.
        stamp: Stamp,
        /// Answer with [`ToShard::Persisted`] when durable.
        wait: Option<(ShardId, u64)>,
    },
    /// Carry a takeover to another node; answer with [`ToShard::TakenOver`] within 15 s.
    Takeover {
        /// The asking shard.
        shard: ShardId,
        /// Its token.
        token: u64,
        /// The node that has the client.
        node: NodeIndex,
        /// What is wanted.
        request: TakeoverRequest,
    },
    /// The answer to a takeover that came in a call.
    TakeoverReply {
        /// From [`ReplyTo::Call`].
        call: u64,
        /// The answer.
        result: TakeoverResult,
    },
    /// Offer a session without a connection to another node.
    Offer {
        /// Which node.
        node: NodeIndex,
        /// Whose session.
        offer: Box<SessionOffer>,
    },
    /// The answer to [`ToShard::Ask`] or [`ToShard::Publish`].
    Answered {
        /// The answering shard.
        shard: ShardId,
        /// From the question.
        ask: u64,
        /// The answer.
        answer: Answer,
    },
    /// A client came or went: for `$SYS`, alarms and logs.
    Client(Box<ClientEvent>),
    /// All client connections of a draining shard are closed.
    Drained {
        /// The shard.
        shard: ShardId,
    },
    /// This shard cannot reach the data port of a node that is up.
    PeerUnreachable {
        /// The node.
        node: NodeIndex,
        /// Its name.
        name: NodeName,
        /// Dials failed in a row.
        failures: u32,
    },
}

/// A client connected, disconnected, subscribed or unsubscribed.
#[allow(clippy::large_enum_variant)] // it travels in a box of its own
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// CONNACK success was sent.
    Connected(ClientRow),
    /// The connection ended.
    Disconnected {
        /// The client.
        clientid: String,
        /// Its user name.
        username: Option<String>,
        /// Why.
        reason: CloseReason,
        /// When, milliseconds of the wall clock.
        at_wall_ms: u64,
    },
}

/// Operators' questions to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Clients in client identifier order after `after`, at most `limit`.
    Clients {
        /// Exclusive lower bound.
        after: Option<String>,
        /// How many at most (capped by [`ASK_ROWS_MAX`]).
        limit: usize,
    },
    /// One client.
    Client(String),
    /// Subscriptions in (client identifier, filter) order after `after`, at most `limit` rows.
    Subscriptions {
        /// Exclusive lower bound.
        after: Option<(String, String)>,
        /// How many at most (capped by [`ASK_ROWS_MAX`]).
        limit: usize,
    },
    /// Subscriptions of one client.
    SubscriptionsOf(String),
    /// Subscribe a client (answer `Done(false)`: no such client, or refused).
    Subscribe {
        /// The client.
        clientid: String,
        /// The filter, `$share/..` allowed.
        filter: String,
        /// Maximum QoS 0..=2.
        qos: u8,
    },
    /// Unsubscribe a client.
    Unsubscribe {
        /// The client.
        clientid: String,
        /// The filter as subscribed.
        filter: String,
    },
    /// Kick a client: DISCONNECT 0x98, session destroyed.
    Kick(String),
    /// Counts for stats.
    Counts,
    /// Refuse new clients from here on and send them there; `None` lets them in again.
    Refuse(Option<Arc<Redirect>>),
    /// Give some clients and sessions away.
    Evict(Evict),
}

/// What a shard is to give away of its clients now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evict {
    /// Clients to disconnect, at most.
    pub connections: usize,
    /// Sessions without a connection to offer, at most.
    pub sessions: usize,
    /// To whom, in turn.
    pub to: Vec<NodeIndex>,
}

/// What came of an [`Evict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Clients disconnected.
    pub connections: usize,
    /// Sessions offered.
    pub sessions: usize,
    /// Clients still connected.
    pub connected: usize,
    /// Sessions here without a connection, those on their way away among them.
    pub disconnected: usize,
    /// Of these, those that have been offered and may be on their way.
    pub offered: usize,
}

/// Rows in one answer; a listing is read in pages so that no answer stalls a shard.
pub const ASK_ROWS_MAX: usize = 1_000;

/// Answers to [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A page of clients.
    Clients(Vec<ClientRow>),
    /// One client.
    Client(Option<Box<ClientRow>>),
    /// A page of subscriptions.
    Subscriptions(Vec<SubscriptionRow>),
    /// Whether it was done.
    Done(bool),
    /// Counts.
    Counts(Counts),
    /// What was given away and what is left.
    Evicted(Evicted),
    /// Whether a publish found a subscriber.
    Published {
        /// At least one subscriber here or on another node.
        matched: bool,
    },
}

/// Gauges of one shard; sum over shards for the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open client connections (also those before CONNECT).
    pub live_connections: u64,
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Sessions with at least one subscription.
    pub subscribers: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Shared subscriptions among them.
    pub shared_subscriptions: u64,
    /// Messages in queues.
    pub queued: u64,
    /// Messages sent and not acknowledged.
    pub inflight: u64,
}

/// A row of `clients list` and `GET /clients`, with that interface's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// Client identifier.
    pub clientid: String,
    /// User name.
    pub username: Option<String>,
    /// Address of the client; of the last connection when disconnected.
    pub peer: SocketAddr,
    /// Listener id, `tcp:default`.
    pub listener: String,
    /// `MQTT` or `MQIsdp`.
    pub proto_name: &'static str,
    /// 3, 4 or 5.
    pub proto_ver: u8,
    /// Whether a connection is open.
    pub connected: bool,
    /// Wall clock, ms.
    pub connected_at: u64,
    /// Wall clock, ms.
    pub disconnected_at: Option<u64>,
    /// Wall clock, ms, of the session.
    pub created_at: u64,
    /// Clean start / clean session.
    pub clean_start: bool,
    /// Seconds in force.
    pub keepalive: u16,
    /// Seconds; `u32::MAX` never.
    pub expiry_interval: u32,
    /// Bridge bit of a v3 protocol level.
    pub is_bridge: bool,
    /// Mountpoint, rendered.
    pub mountpoint: Option<String>,
    /// Subscriptions.
    pub subscriptions_cnt: u64,
    /// Limit, `None` infinity.
    pub subscriptions_max: Option<u64>,
    /// Sent, not acknowledged.
    pub inflight_cnt: u64,
    /// Window.
    pub inflight_max: u64,
    /// Queued.
    pub mqueue_len: u64,
    /// Limit, 0 infinity.
    pub mqueue_max: u64,
    /// Dropped from or before the queue.
    pub mqueue_dropped: u64,
    /// QoS 2 waiting for PUBREL.
    pub awaiting_rel_cnt: u64,
    /// Limit, 0 infinity.
    pub awaiting_rel_max: u64,
    /// Traffic of the present connection.
    pub traffic: Traffic,
}

/// Counters of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received.
    pub recv_oct: u64,
    /// Packets received.
    pub recv_pkt: u64,
    /// Messages received.
    pub recv_msg: u64,
    /// Bytes sent.
    pub send_oct: u64,
    /// Packets sent.
    pub send_pkt: u64,
    /// Messages sent.
    pub send_msg: u64,
}

/// A row of `subscriptions list` and `GET /subscriptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Client identifier.
    pub clientid: String,
    /// The filter as subscribed, with its `$share/..` prefix.
    pub topic: String,
    /// Maximum QoS.
    pub qos: u8,
    /// No Local.
    pub nl: u8,
    /// Retain As Published.
    pub rap: u8,
    /// Retain Handling.
    pub rh: u8,
}

/// What is to be written to one connection: small packets encoded one after another into one
/// buffer, and big shared ones (a payload that many receive) as chunks between.
///
/// An idle connection holds no buffer: the shard takes it back when the socket took everything.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    chunk_bytes: usize,
}

impl Output {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.chunk_bytes == 0 && self.tail.is_empty()
    }

    /// Fills `out` with the waiting bytes in order for one vectored write; returns how many slices
    /// were set. More may wait than fit.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for chunk in self.chunks.iter().map(|c| &c[..]).chain([&self.tail[..]]) {
            if n == out.len() {
                break;
            }
            if !chunk.is_empty() {
                out[n] = IoSlice::new(chunk);
                n += 1;
            }
        }
        n
    }

    /// Everything that waits, where it lies in one piece, as it mostly does.
    #[inline]
    pub fn whole(&self) -> Option<&[u8]> {
        self.chunks.is_empty().then_some(&self.tail[..])
    }

    /// Moves everything into `out`, for drivers that keep their own queue (TLS, WebSocket, tests).
    pub fn take(&mut self, out: &mut Vec<Bytes>) {
        out.extend(self.chunks.drain(..));
        self.chunk_bytes = 0;
        if !self.tail.is_empty() {
            out.push(self.tail.split().freeze());
        }
    }

    /// The socket took `n` bytes of what [`Output::slices`] gave.
    pub fn wrote(&mut self, mut n: usize) {
        while n > 0 {
            let Some(chunk) = self.chunks.front_mut() else {
                break;
            };
            if chunk.len() > n {
                chunk.advance(n);
                self.chunk_bytes -= n;
                return;
            }
            n -= chunk.len();
            self.chunk_bytes -= chunk.len();
            self.chunks.pop_front();
        }
        let n = n.min(self.tail.len());
        self.tail.advance(n);
    }

    /// The buffer small packets are encoded into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends bytes that other connections share.
    pub fn share(&mut self, bytes: Bytes) {
        if !self.tail.is_empty() {
            let before = self.tail.split().freeze();
            self.chunk_bytes += before.len();
            self.chunks.push_back(before);
        }
        self.chunk_bytes += bytes.len();
        self.chunks.push_back(bytes);
    }

    /// Whether a buffer is held that could serve another connection.
    pub(crate) fn has_spare(&self) -> bool {
        self.is_empty() && self.tail.capacity() > 0
    }

    /// Gives the empty buffer back.
    pub(crate) fn take_spare(&mut self) -> BytesMut {
        debug_assert!(self.is_empty());
        if self.chunks.capacity() > 0 {
            self.chunks = VecDeque::new();
        }
        std::mem::take(&mut self.tail)
    }

    /// Lends an empty buffer.
    pub(crate) fn lend(&mut self, spare: BytesMut) {
        debug_assert!(self.tail.capacity() == 0);
        self.tail = spare;
    }

    /// Whether no buffer is held.
    pub(crate) fn wants_buffer(&self) -> bool {
        self.tail.capacity() == 0
    }
}
