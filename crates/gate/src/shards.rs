//! The path of a PUBLISH through a shard, and a session that moves: what the server does with a
//! shard, without the sockets.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::BytesMut;
use dunlin_broker::effects::{ReplyTo, TakeoverRequest, TakeoverResult, TakeoverStep};
use dunlin_broker::retained::RETAINED;
use dunlin_broker::session::{decode_result, encode_result};
use dunlin_broker::settings::{ListenerSettings, Settings};
use dunlin_broker::shared::Shared;
use dunlin_broker::{Accepted, Conn, Shard, ShardEffects, ToControl, ToShard};
use dunlin_cluster::{Clock, Merged, Now, SiteId};
use dunlin_mqtt::{
    Connect, Packet, Properties, Publish, QoS, Subscribe, SubscriptionOptions, TopicFilter, Version,
};

use crate::measured;

/// PUBLISH packets in one read of the publisher's socket; within the window of `QoS` 1.
const BATCH: u16 = 20;
const VERSION: Version = Version::V3_1_1;
/// What a session that moves has with it.
const HANDOVER_FILTERS: usize = 10;
const HANDOVER_MESSAGES: u16 = 200;
const HANDOVERS: usize = 10;

pub(crate) fn publish_1_qos0() {
    publish(1, QoS::AtMostOnce, 100);
}

pub(crate) fn publish_1_qos1() {
    publish(1, QoS::AtLeastOnce, 100);
}

pub(crate) fn publish_1_qos2() {
    publish(1, QoS::ExactlyOnce, 100);
}

pub(crate) fn publish_10_qos1() {
    publish(10, QoS::AtLeastOnce, 20);
}

pub(crate) fn publish_1000_qos0() {
    publish(1_000, QoS::AtMostOnce, 2);
}

/// A node whose letters and wake-ups are carried out at once.
struct Node {
    now: Now,
    shards: Vec<Shard>,
    fx: ShardEffects,
    /// Connections with output not looked at yet.
    awake: Vec<(usize, Conn)>,
    closed: usize,
    /// The session that another node asked for.
    handed_over: Option<TakeoverResult>,
}

impl Node {
    fn new(shards: u16) -> Self {
        let now = Now {
            mono_ms: 1_000_000,
            wall_ms: 1_700_000_000_000,
        };
        // No message of these scenarios is retained, and nobody is banned.
        let table = || Arc::new(Merged::new(RETAINED));
        let shared = Arc::new(Shared::new(
            Settings::default(),
            shards,
            Arc::new(Clock::new()),
            (table(), table()),
            SiteId([1; 16]),
            7,
        ));
        Self {
            now,
            shards: (0..shards)
                .map(|id| Shard::new(id, Arc::clone(&shared), u64::from(id)))
                .collect(),
            fx: ShardEffects::new(shards),
            awake: Vec::new(),
            closed: 0,
            handed_over: None,
        }
    }

    /// Lets a shard do something, then carries out what it wants of this node.
    fn on<T>(
        &mut self,
        shard: usize,
        act: impl FnOnce(&mut Shard, Now, &mut ShardEffects) -> T,
    ) -> T {
        let result = act(&mut self.shards[shard], self.now, &mut self.fx);
        self.carry(shard);
        result
    }

    fn carry(&mut self, shard: usize) {
        self.awake
            .extend(self.fx.wake.drain(..).map(|conn| (shard, conn)));
        let closing: Vec<_> = self.fx.close.drain(..).collect();
        let control: Vec<_> = self.fx.to_control.drain(..).collect();
        let letters: Vec<_> = self
            .fx
            .to_shard
            .iter_mut()
            .enumerate()
            .flat_map(|(to, letters)| letters.drain(..).map(move |letter| (to, letter)))
            .collect();
        for (conn, why) in closing {
            self.closed += 1;
            self.awake.retain(|&awake| awake != (shard, conn));
            self.on(shard, |shard, now, fx| shard.closed(now, conn, why, fx));
        }
        for (to, letter) in letters {
            self.on(to, |shard, now, fx| shard.message(now, letter, fx));
        }
        for letter in control {
            match letter {
                ToControl::Settle { shard, token } => {
                    let letter = ToShard::Settled { token };
                    self.on(usize::from(shard), |it, now, fx| {
                        it.message(now, letter, fx);
                    });
                }
                ToControl::TakeoverReply { result, .. } => self.handed_over = Some(result),
                _ => {}
            }
        }
    }

    fn send(&mut self, shard: usize, conn: Conn, bytes: &mut BytesMut) {
        self.on(shard, |it, now, fx| it.receive(now, conn, bytes, fx));
        assert!(bytes.is_empty(), "every packet is taken");
    }

    /// Takes what was written to each connection, as a socket would.
    fn write(&mut self, mut seen: impl FnMut((usize, Conn), &[u8])) {
        let (mut chunks, mut bytes) = (Vec::new(), Vec::new());
        for (shard, conn) in std::mem::take(&mut self.awake) {
            let Some(output) = self.shards[shard].output(conn) else {
                continue;
            };
            output.take(&mut chunks);
            bytes.clear();
            chunks
                .drain(..)
                .for_each(|chunk| bytes.extend_from_slice(&chunk));
            seen((shard, conn), &bytes);
            self.on(shard, |it, now, fx| it.writable_drained(now, conn, fx));
        }
    }

    fn connect(&mut self, shard: usize, id: &str, clean_start: bool) -> Conn {
        let info = Accepted {
            listener: Arc::new(ListenerSettings::default()),
            peer: ([127, 0, 0, 1], 40_000).into(),
            local: ([127, 0, 0, 1], 1883).into(),
            peer_cert: None,
            ws: false,
        };
        let conn = self.on(shard, |it, now, _| it.accept(now, info));
        let mut connect = Connect::new(VERSION, id);
        connect.clean_start = clean_start;
        self.send(
            shard,
            conn,
            &mut encode(&Packet::Connect(Box::new(connect))),
        );
        conn
    }

    fn subscribe(&mut self, shard: usize, conn: Conn, filter: &str, qos: QoS) {
        let subscribe = Subscribe {
            packet_id: NonZeroU16::MIN,
            properties: Properties::new(),
            filters: vec![(TopicFilter::new(filter), SubscriptionOptions::with_qos(qos))],
        };
        self.send(shard, conn, &mut encode(&Packet::Subscribe(subscribe)));
    }
}

fn encode(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    packet.encode(VERSION, &mut bytes);
    bytes
}

fn messages(topic: &str, qos: QoS, first: u16, count: u16) -> BytesMut {
    let mut bytes = BytesMut::new();
    for id in first..first + count {
        let mut publish = Publish::new(topic, &[b'x'; 64], qos, false);
        if qos != QoS::AtMostOnce {
            publish.packet_id = NonZeroU16::new(id);
        }
        publish.encode(VERSION, &mut bytes);
    }
    bytes
}

fn publish(subscribers: usize, qos: QoS, rounds: usize) {
    let mut node = Node::new(1);
    for index in 0..subscribers {
        let conn = node.connect(0, &format!("subscriber-{index}"), true);
        node.subscribe(0, conn, "site/12/line/3/temperature", qos);
    }
    let publisher = node.connect(0, "publisher", true);
    node.write(|_, _| {});
    let burst = messages("site/12/line/3/temperature", qos, 1, BATCH);
    // Once before, so that tables and buffers have their size.
    let arrived = exchange(&mut node, publisher, &burst, 1);
    assert_eq!(arrived, subscribers * usize::from(BATCH));
    let arrived = measured(|| exchange(&mut node, publisher, &burst, rounds));
    assert_eq!(arrived, rounds * subscribers * usize::from(BATCH));
}

/// Publishes the burst so many times, each time until every acknowledgement is through; answers
/// how many messages subscribers received.
fn exchange(node: &mut Node, publisher: Conn, burst: &BytesMut, rounds: usize) -> usize {
    let mut arrived = 0;
    let mut answers: Vec<((usize, Conn), BytesMut)> = Vec::new();
    for _ in 0..rounds {
        node.send(0, publisher, &mut BytesMut::from(&burst[..]));
        while !node.awake.is_empty() {
            node.write(|to, bytes| {
                let mut answer = BytesMut::new();
                arrived += acknowledge(bytes, &mut answer);
                if !answer.is_empty() {
                    answers.push((to, answer));
                }
            });
            for ((shard, conn), mut bytes) in answers.drain(..) {
                node.send(shard, conn, &mut bytes);
            }
        }
    }
    arrived
}

/// Answers packets as a good client does, without a codec of its own: fixed headers of two bytes
/// are enough for what is sent here. Returns the number of messages.
fn acknowledge(bytes: &[u8], answer: &mut BytesMut) -> usize {
    const PUBACK: u8 = 0x40;
    const PUBREC: u8 = 0x50;
    const PUBREL: u8 = 0x62;
    const PUBCOMP: u8 = 0x70;
    let (mut at, mut messages) = (0, 0);
    while at < bytes.len() {
        let (kind, len) = (bytes[at], usize::from(bytes[at + 1]));
        let body = &bytes[at + 2..at + 2 + len];
        let topic_len = || usize::from(body[0]) << 8 | usize::from(body[1]);
        let reply = match (kind >> 4, kind >> 1 & 3) {
            (3, 1) => Some((PUBACK, 2 + topic_len())),
            (3, 2) => Some((PUBREC, 2 + topic_len())),
            (5, _) => Some((PUBREL, 0)),
            (6, _) => Some((PUBCOMP, 0)),
            _ => None,
        };
        if let Some((kind, id)) = reply {
            answer.extend_from_slice(&[kind, 2, body[id], body[id + 1]]);
        }
        messages += usize::from(kind >> 4 == 3);
        at += 2 + len;
    }
    messages
}

/// A node with one session that is away and has messages waiting.
fn with_session(shards: u16) -> Node {
    let mut node = Node::new(shards);
    let conn = node.connect(0, "mover", false);
    for index in 0..HANDOVER_FILTERS {
        node.subscribe(0, conn, &format!("move/{index}/#"), QoS::AtLeastOnce);
    }
    node.write(|_, _| {});
    node.on(0, |it, now, fx| {
        it.closed(now, conn, dunlin_broker::CloseReason::TcpClosed, fx);
    });
    let publisher = node.connect(0, "publisher", true);
    for first in (1..=HANDOVER_MESSAGES).step_by(usize::from(BATCH)) {
        let mut burst = messages("move/3/x", QoS::AtLeastOnce, first, BATCH);
        node.send(0, publisher, &mut burst);
        node.write(|_, _| {});
    }
    node
}

/// The client comes back on the other shard, again and again, and never acknowledges.
pub(crate) fn handover_shard() {
    let mut node = with_session(2);
    let mut received = 0;
    measured(|| {
        for turn in 0..HANDOVERS {
            let shard = (turn + 1) % 2;
            node.connect(shard, "mover", false);
            received = 0;
            node.write(|_, bytes| {
                received += acknowledge(bytes, &mut BytesMut::new());
            });
        }
    });
    assert!(received > 0, "the session came along with its messages");
    assert_eq!(
        node.closed,
        HANDOVERS - 1,
        "each connection ended the one before"
    );
}

/// Another node asks for the session: copied, encoded, decoded.
pub(crate) fn handover_node() {
    let mut node = with_session(1);
    let request = TakeoverRequest {
        clientid: "mover".to_owned(),
        stamp: dunlin_cluster::Hlc(u64::MAX),
        step: TakeoverStep::Begin,
        heir: None,
    };
    let reply = ReplyTo::Call(1);
    let (wire, moved) = measured(|| {
        let letter = ToShard::Takeover { request, reply };
        node.on(0, |it, now, fx| it.message(now, letter, fx));
        let result = node.handed_over.take().expect("the shard answers at once");
        let wire = encode_result(&result);
        let moved = decode_result(&wire);
        (wire, moved)
    });
    assert!(
        matches!(moved, Some(TakeoverResult::Session(_))),
        "it travels"
    );
    let payloads = usize::from(HANDOVER_MESSAGES) * 64;
    assert!(wire.len() > payloads, "the messages travel with it");
}
