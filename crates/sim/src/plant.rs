//! Bugs planted on purpose, between a node and its machine: proof that the invariants bite.
//!
//! Nothing of this is in the product. A plant tampers with what a node sends, receives and writes,
//! or with what it is configured with, so that the outside looks as if the node had the bug.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use dunlin_broker::effects::CloseReason;
use dunlin_broker::node::{NodeInput, SocketId};
use dunlin_broker::router::NodeIndex;
use dunlin_cluster::link::frame::{self, FrameKind};
use dunlin_mqtt::{
    Ack, AckKind, Limits, Packet, Properties, Publish, QoS, Reason, Version, decode,
};
use dunlin_storage::{Batch, Op};

use crate::host::Host;

/// Packet identifiers from here on are the plants' own; a node counts from 1 and gets never here.
const FORGED_PID: u16 = 65_000;
/// Every so many-th message is tampered with.
const EVERY: u64 = 5;
/// Postcard's number of a control message with rows of a merged table.
const ROWS: u8 = 1;
/// A control message that changes nothing: `OwnAck { number: 0 }`.
const NOTHING: [u8; 2] = [11, 0];
/// Postcard's numbers of changes and rows of node state.
const OWN_CHANGES: u8 = 7;
const OWN_ROWS: u8 = 9;
/// That of a letter without answer, and of the one about published wills in it, after its length.
const CAST: u8 = 17;
const WILLS_SPENT: u8 = 1;
/// How a will's topic begins; its last level is a number, that of a filter is none.
const WILL_TOPIC: &[u8] = b"w/";
/// The table of retained messages.
const RETAINED: u8 = 16;

/// Which bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A message forwarded to another node is acknowledged there and lost.
    LoseForward,
    /// A message is taken off a session as if its client had acknowledged it, but never sent.
    LoseDelivery,
    /// A node's rows of retained messages never reach the others, however often they ask.
    SwallowRows,
    /// A `QoS` 2 message is sent again after its exchange was over.
    TwiceQos2,
    /// Two messages to one subscriber change places.
    Reorder,
    /// Batches with retained messages are confirmed and never written.
    ForgetRetained,
    /// Batches with membership are confirmed and never written.
    ForgetMembers,
    /// A route to a node that is no member any more stays.
    KeepRoute,
    /// A message to a shared group goes to a second member as well.
    TwoReceivers,
    /// The older connection of a client identifier is not closed.
    KeepChannel,
    /// The queue of a session has no bound.
    GrowQueue,
    /// A batch that switches tables is written by half.
    TornSwap,
    /// Acknowledgements have another packet identifier than what they are for.
    WrongPid,
    /// Publishers get no PUBACK and no PUBREC.
    Mute,
    /// No look-up names any node.
    HideNodes,
    /// A disk that fails is taken for one that works.
    HideDisk,
    /// The sides of a split merge by themselves although they must not.
    HealAnyway,
    /// The will of a CONNECT is not seen.
    LoseWill,
    /// Nor is its delay.
    HurryWill,
    /// A client's goodbye is not heard, only that its connection is closed.
    DeafToGoodbye,
    /// What a node tells the others of its clients' wills is of no use to them.
    LoseLegacy,
    /// Whoever publishes a dead node's wills does not tell the others.
    TellNobody,
    /// Something is written to a connection between nodes that is still being dialed.
    WriteEarly,
    /// Something depends on how many worlds this process has seen.
    Unseeded,
}

impl Bug {
    /// All of them with their names and the invariant that has to find them.
    pub const ALL: [(Self, &'static str, &'static str); 24] = [
        (Self::LoseForward, "lose-forward", "loss"),
        (Self::LoseDelivery, "lose-delivery", "loss"),
        (Self::SwallowRows, "swallow-rows", "retained"),
        (Self::TwiceQos2, "twice-qos2", "qos2"),
        (Self::Reorder, "reorder", "order"),
        (Self::ForgetRetained, "forget-retained", "durable"),
        (Self::ForgetMembers, "forget-members", "membership"),
        (Self::KeepRoute, "keep-route", "routes"),
        (Self::TwoReceivers, "two-receivers", "groups"),
        (Self::KeepChannel, "keep-channel", "channels"),
        (Self::GrowQueue, "grow-queue", "bounds"),
        (Self::TornSwap, "torn-swap", "membership"),
        (Self::WrongPid, "wrong-pid", "protocol"),
        (Self::Mute, "mute", "liveness"),
        (Self::HideNodes, "hide-nodes", "discovery"),
        (Self::HideDisk, "hide-disk", "durable"),
        (Self::HealAnyway, "heal-anyway", "apart"),
        (Self::LoseWill, "lose-will", "wills"),
        (Self::HurryWill, "hurry-will", "wills"),
        (Self::DeafToGoodbye, "deaf-to-goodbye", "wills"),
        (Self::LoseLegacy, "lose-legacy", "wills"),
        (Self::TellNobody, "tell-nobody", "wills"),
        (Self::WriteEarly, "write-early", "links"),
        (Self::Unseeded, "unseeded", "trace"),
    ];

    /// The bug of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, own, _)| *own == name)
            .map(|(bug, _, _)| *bug)
    }
}

/// What becomes of a batch.
#[derive(Debug)]
pub enum Persisting {
    /// Written.
    Write(Batch),
    /// Confirmed only.
    Forget,
}

/// One node's connection and the client at its other end.
pub type At = (usize, SocketId, usize);

#[derive(Debug, Default)]
struct Stream {
    client: usize,
    unread: BytesMut,
    held: Option<Publish>,
    exactly: BTreeMap<u16, Publish>,
}

/// A bug at work, or none.
#[derive(Debug, Default)]
pub struct Plant {
    bug: Option<Bug>,
    count: u64,
    streams: BTreeMap<(usize, SocketId), Stream>,
    forged: Vec<(usize, NodeInput)>,
    sneaked: Vec<(usize, SocketId, Bytes)>,
    /// Nodes once seen in a host's router.
    seen: BTreeMap<(usize, NodeIndex), String>,
    members: usize,
}

static WORLDS: AtomicU64 = AtomicU64::new(0);

impl Plant {
    /// A plant of a bug; `group_members` are the numbers of clients from which on they are in
    /// groups.
    pub fn new(bug: Option<Bug>, group_members: usize) -> Self {
        Self {
            bug,
            members: group_members,
            ..Self::default()
        }
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn turn(&mut self) -> bool {
        self.count += 1;
        self.count.is_multiple_of(EVERY)
    }

    /// What is added to the time of a commit.
    pub fn delay_ms(&self) -> u64 {
        if self.is(Bug::Unseeded) {
            WORLDS.fetch_add(1, Ordering::Relaxed) % 2
        } else {
            0
        }
    }

    /// The bound of queues the nodes get.
    pub fn mqueue_len_max(&self, wanted: u32) -> Option<u32> {
        (!self.is(Bug::GrowQueue)).then_some(wanted)
    }

    /// Whether sides of a split merge by themselves.
    pub fn autoheal(&self, wanted: bool) -> bool {
        wanted || self.is(Bug::HealAnyway)
    }

    /// Whether a disk that fails is not noticed.
    pub fn hides_disk(&self) -> bool {
        self.is(Bug::HideDisk)
    }

    /// Whether look-ups name nobody.
    pub fn hides_nodes(&self) -> bool {
        self.is(Bug::HideNodes)
    }

    /// Whether a connection stays open that the node wants closed.
    pub fn keeps_open(&self, why: CloseReason) -> bool {
        let older = matches!(why, CloseReason::TakenOver | CloseReason::Discarded);
        self.is(Bug::KeepChannel) && older
    }

    /// What is written to a connection between nodes as soon as it is dialed.
    pub fn early_write(&mut self) -> Option<Bytes> {
        let early = self.is(Bug::WriteEarly) && self.turn();
        early.then(|| Bytes::from_static(&NOTHING))
    }

    /// A host's process is gone.
    pub fn stopped(&mut self, host: usize) {
        self.streams.retain(|(at, _), _| *at != host);
        self.seen.retain(|(at, _), _| *at != host);
        self.forged.retain(|(at, _)| *at != host);
    }

    /// Inputs a host's node gets that nobody sent.
    pub fn forged(&mut self, host: usize) -> Vec<NodeInput> {
        let (own, others) = std::mem::take(&mut self.forged)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at == host);
        self.forged = others;
        own.into_iter().map(|(_, input)| input).collect()
    }

    /// What becomes of a batch.
    pub fn persist(&mut self, mut batch: Batch) -> Persisting {
        let touches = |names: &[&str]| {
            batch.ops.iter().any(|op| match op {
                Op::Put { table, .. } | Op::Delete { table, .. } => names.contains(&table.as_str()),
                Op::Clear { .. } | Op::Rename { .. } => false,
            })
        };
        let forget = match self.bug {
            Some(Bug::ForgetRetained) => touches(&["retained"]),
            Some(Bug::ForgetMembers) => touches(&["members", "staging/members"]) && self.turn(),
            _ => false,
        };
        if forget {
            return Persisting::Forget;
        }
        let swaps = batch.ops.iter().any(|op| matches!(op, Op::Rename { .. }));
        if self.is(Bug::TornSwap) && swaps {
            batch.ops.truncate(batch.ops.len() / 2);
        }
        Persisting::Write(batch)
    }

    /// What becomes of bytes to a client: what is sent, and on which connections.
    pub fn client_send(
        &mut self,
        (host, socket, client): At,
        version: Version,
        bytes: Bytes,
    ) -> Vec<(SocketId, Bytes)> {
        let acknowledges = matches!(bytes.first(), Some(0x40 | 0x50)) && bytes.len() >= 4;
        if acknowledges && self.is(Bug::Mute) {
            return Vec::new();
        }
        if acknowledges && self.is(Bug::WrongPid) && self.turn() {
            let mut bytes = bytes.to_vec();
            // The identifier follows the fixed header; clients never use so high a one.
            bytes[2] |= 0x40;
            return vec![(socket, bytes.into())];
        }
        let wanted = [
            Bug::LoseDelivery,
            Bug::TwiceQos2,
            Bug::Reorder,
            Bug::TwoReceivers,
        ];
        if self.bug.is_none_or(|bug| !wanted.contains(&bug)) {
            return vec![(socket, bytes)];
        }
        let stream = self.streams.entry((host, socket)).or_default();
        stream.client = client;
        stream.unread.extend_from_slice(&bytes);
        let mut out = Vec::new();
        loop {
            let Some(stream) = self.streams.get_mut(&(host, socket)) else {
                return out;
            };
            let Ok(Some(packet)) = decode(&mut stream.unread, version, &Limits::default()) else {
                return out;
            };
            self.packet_to_client((host, socket, client), version, packet, &mut out);
        }
    }

    fn packet_to_client(
        &mut self,
        (host, socket, client): At,
        version: Version,
        packet: Packet,
        out: &mut Vec<(SocketId, Bytes)>,
    ) {
        let Packet::Publish(publish) = packet else {
            out.push((socket, encoded(&packet, version)));
            return;
        };
        let turn = self.turn();
        match self.bug {
            Some(Bug::LoseDelivery) if turn && publish.qos == QoS::AtLeastOnce => {
                if let Some(pid) = publish.packet_id {
                    let ack = Packet::Ack(Ack::new(AckKind::Puback, pid, Reason::Success));
                    let bytes = encoded(&ack, version);
                    self.forged
                        .push((host, NodeInput::ClientReceived { socket, bytes }));
                }
                return;
            }
            Some(Bug::TwiceQos2) => self.remember((host, socket), &publish),
            Some(Bug::Reorder) => return self.reorder((host, socket), version, publish, out),
            Some(Bug::TwoReceivers) if client >= self.members => {
                let second = self.streams.iter().find(|((at, _), stream)| {
                    *at == host && stream.client != client && stream.client >= self.members
                });
                if let Some(((_, second), _)) = second {
                    let (topic, payload) = (publish.topic(), publish.payload());
                    let copy = Publish::new(topic, payload, QoS::AtMostOnce, false);
                    // Both members must speak one version for this; most runs have such a pair.
                    out.push((*second, encoded(&Packet::Publish(copy), version)));
                }
            }
            _ => {}
        }
        out.push((socket, encoded(&Packet::Publish(publish), version)));
    }

    fn remember(&mut self, at: (usize, SocketId), publish: &Publish) {
        let pid = publish.packet_id.map_or(0, NonZeroU16::get);
        if let (QoS::ExactlyOnce, Some(stream)) = (publish.qos, self.streams.get_mut(&at)) {
            stream.exactly.insert(pid, publish.clone());
        }
    }

    fn reorder(
        &mut self,
        at: (usize, SocketId),
        version: Version,
        publish: Publish,
        out: &mut Vec<(SocketId, Bytes)>,
    ) {
        let Some(stream) = self.streams.get_mut(&at) else {
            return;
        };
        match stream.held.take() {
            Some(held) => {
                out.push((at.1, encoded(&Packet::Publish(publish), version)));
                out.push((at.1, encoded(&Packet::Publish(held), version)));
            }
            None => stream.held = Some(publish),
        }
    }

    /// What becomes of bytes from a client.
    pub fn client_received(
        &mut self,
        (host, socket, _): At,
        version: Version,
        bytes: Bytes,
    ) -> Option<Bytes> {
        match self.bug {
            Some(Bug::LoseWill | Bug::HurryWill | Bug::DeafToGoodbye) => {
                return self.without_will(version, bytes);
            }
            Some(Bug::TwiceQos2) => {}
            _ => return Some(bytes),
        }
        // Clients acknowledge in packets of their own, which a split makes unreadable here: then
        // nothing is tampered with.
        let packet = decode(&mut BytesMut::from(&bytes[..]), version, &Limits::default());
        let Ok(Some(Packet::Ack(ack))) = packet else {
            return Some(bytes);
        };
        let pid = ack.packet_id.get();
        if pid >= FORGED_PID {
            if ack.kind == AckKind::Pubrec {
                let pubrel = Ack::new(AckKind::Pubrel, ack.packet_id, Reason::Success);
                self.sneak(host, socket, encoded(&Packet::Ack(pubrel), version));
            }
            return None;
        }
        if ack.kind == AckKind::Pubcomp
            && let Some(stream) = self.streams.get_mut(&(host, socket))
            && let Some(publish) = stream.exactly.remove(&pid)
            && let Some(pid) = NonZeroU16::new(FORGED_PID + pid % 500)
        {
            let again = Packet::Publish(publish.with_packet_id(pid));
            self.sneak(host, socket, encoded(&again, version));
        }
        Some(bytes)
    }

    /// What is left of a packet when something about wills is overlooked; one in pieces passes.
    fn without_will(&self, version: Version, bytes: Bytes) -> Option<Bytes> {
        let packet = decode(&mut BytesMut::from(&bytes[..]), version, &Limits::default());
        match packet {
            Ok(Some(Packet::Disconnect(_))) if self.is(Bug::DeafToGoodbye) => None,
            Ok(Some(Packet::Connect(mut connect))) if !self.is(Bug::DeafToGoodbye) => {
                match &mut connect.will {
                    Some(will) if self.is(Bug::HurryWill) => will.properties = Properties::new(),
                    will => *will = None,
                }
                Some(encoded(&Packet::Connect(connect), version))
            }
            _ => Some(bytes),
        }
    }

    fn sneak(&mut self, host: usize, socket: SocketId, bytes: Bytes) {
        self.sneaked.push((host, socket, bytes));
    }

    /// Bytes to clients that their nodes do not know of: host, connection, bytes.
    pub fn sneaked(&mut self) -> Vec<(usize, SocketId, Bytes)> {
        std::mem::take(&mut self.sneaked)
    }

    /// What becomes of bytes to another node.
    pub fn peer_send(&mut self, host: usize, bytes: Bytes) -> Bytes {
        let on = match self.bug {
            Some(Bug::LoseForward | Bug::LoseLegacy | Bug::TellNobody) => true,
            Some(Bug::SwallowRows) => host == 0,
            _ => false,
        };
        if !on {
            return bytes;
        }
        let mut rest = BytesMut::from(&bytes[..]);
        let mut out = BytesMut::new();
        // What is no frame is the handshake: it passes.
        loop {
            let mut ahead = rest.clone();
            let Ok(Some(frame)) = frame::decode(&mut ahead) else {
                break;
            };
            rest = ahead;
            let payload = self.payload(&frame.payload, frame.kind);
            out.extend_from_slice(&frame::encode(frame.kind, frame.number, &[&payload]));
        }
        out.extend_from_slice(&rest);
        out.freeze()
    }

    fn payload(&mut self, payload: &Bytes, kind: FrameKind) -> Bytes {
        if kind != FrameKind::Data {
            return payload.clone();
        }
        if self.is(Bug::SwallowRows) {
            let rows = payload.starts_with(&[ROWS, RETAINED]);
            return if rows {
                Bytes::from_static(&NOTHING)
            } else {
                payload.clone()
            };
        }
        if self.is(Bug::TellNobody) {
            return if letter(payload, WILLS_SPENT).is_some() {
                Bytes::from_static(&NOTHING)
            } else {
                payload.clone()
            };
        }
        if self.is(Bug::LoseLegacy) {
            return without_topics(payload);
        }
        let topic = b"b/x/";
        let at = payload
            .windows(topic.len())
            .position(|window| window == topic);
        let message = payload
            .windows(2)
            .any(|w| w[0] == b'm' && w[1].is_ascii_digit());
        match at {
            Some(at) if message && self.turn() => {
                let mut payload = payload.to_vec();
                payload[at] = b'z';
                payload.into()
            }
            _ => payload.clone(),
        }
    }

    /// Reaches into the nodes themselves.
    pub fn meddle(&mut self, hosts: &[Host]) {
        if !self.is(Bug::KeepRoute) {
            return;
        }
        for host in hosts {
            let Some(node) = host.node() else { continue };
            for (index, peer, _) in node.shared().peers() {
                self.seen.insert((host.index, index), peer.name.to_string());
            }
            let own = self.seen.keys().filter(|(at, _)| *at == host.index);
            let gone = own.filter(|(_, index)| node.shared().peer_site(*index).is_none());
            for (_, index) in gone {
                node.shared().router().write().add_remote("a/0", *index);
            }
        }
    }
}

/// The letter of a kind that a payload is, without what tells its kind.
fn letter(payload: &[u8], kind: u8) -> Option<&[u8]> {
    let rest = payload.strip_prefix(&[CAST])?;
    let (_, rest) = number(rest)?;
    rest.strip_prefix(&[kind])
}

/// A number as postcard writes it, and what follows.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let last = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let (digits, rest) = bytes.split_at(last + 1);
    let digits = digits.iter().rev();
    let value = digits.fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, rest))
}

/// Rows of node state in which no will has its topic.
fn without_topics(payload: &Bytes) -> Bytes {
    let mut payload = payload.to_vec();
    if matches!(payload.first(), Some(&(OWN_CHANGES | OWN_ROWS))) {
        for at in 0..payload.len().saturating_sub(WILL_TOPIC.len()) {
            let is_topic = payload[at..].starts_with(WILL_TOPIC);
            if is_topic && payload[at + WILL_TOPIC.len()].is_ascii_digit() {
                payload[at] = b'z';
            }
        }
    }
    payload.into()
}

fn encoded(packet: &Packet, version: Version) -> Bytes {
    let mut out = BytesMut::new();
    packet.encode(version, &mut out);
    out.freeze()
}
