//! What outlives a connection: subscriptions, the messages on their way to the client, what the
//! client may still release, the will. And the form in which a session moves to another shard or
//! node.
//!
//! Must never be in two places at once: a session that moves is taken out here before it is entered
//! there, and what arrives meanwhile is collected, not delivered.

mod offer;
mod subscriptions;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_cluster::Hlc;
use dunlin_mqtt::topic::QUEUE_GROUP;
use dunlin_mqtt::{QoS, Version};
use serde::{Deserialize, Serialize};

use crate::access::Identity;
use crate::channel::qos2::AwaitingRel;
use crate::effects::{Conn, PeerCert, ReplyTo, ShardId, TakeoverRequest, TakeoverResult};
use crate::inflight::{Exchange, Inflight};
use crate::message::{Head, Message, Origin, Parts};
use crate::queue::{Queue, Queued};
use crate::router::{GroupKey, NodeIndex, SubOptions};
use crate::settings::{ListenerSettings, Mqtt};
use crate::will::Will;
pub use offer::SessionOffer;
pub(crate) use subscriptions::{Subscription, Subscriptions};

/// Version of the encoded form of a moving session; a node reads its own and older ones.
const STATE_VERSION: u8 = 1;

/// Bytes of queued messages that travel with a session between nodes. What one call carries is
/// bounded; the rest of it is for subscriptions and what is in flight.
const QUEUE_BYTES_MAX: usize = dunlin_cluster::PAYLOAD_BYTES_MAX / 4 * 3;

/// What a queued message takes beside topic, properties and payload: names and numbers.
const QUEUED_OVERHEAD_BYTES: usize = 200;

/// Messages a session that moves again and again expects copies of, beside those it brings along:
/// what it moved with some moves ago is forgotten beyond it.
const COPIES_MAX: usize = 10_000;

/// Session expiry interval that never ends.
pub(crate) const NEVER: u32 = u32::MAX;

/// The group an exclusive subscription is kept in: one that can have one member only. A share name
/// has no slash, so no client can name it.
pub(crate) const EXCLUSIVE_GROUP: &str = "$exclusive/";

/// What a client said and showed when it connected last.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    pub(crate) listener: Arc<ListenerSettings>,
    pub(crate) cert: Option<Box<PeerCert>>,
    /// Prefix of all its topics and filters in the router.
    pub(crate) mountpoint: Option<Box<str>>,
    pub(crate) mqtt: Arc<Mqtt>,
    pub(crate) connected_at_wall_ms: u64,
    pub(crate) disconnected_at_wall_ms: Option<u64>,
    pub(crate) version: Version,
    pub(crate) keepalive_s: u16,
    pub(crate) clean_start: bool,
    pub(crate) bridge: bool,
    /// The server chose its identifier.
    pub(crate) assigned: bool,
    /// Authorization does not concern it.
    pub(crate) superuser: bool,
}

impl Client {
    /// The topic of a message as the client knows it.
    #[inline]
    pub(crate) fn topic_of<'a>(&self, message: &'a Message) -> &'a [u8] {
        let topic = message.topic_bytes();
        match &self.mountpoint {
            Some(mountpoint) => topic.strip_prefix(mountpoint.as_bytes()).unwrap_or(topic),
            None => topic,
        }
    }

    /// A topic or filter of the router as the client knows it.
    pub(crate) fn unmounted<'a>(&self, topic: &'a str) -> &'a str {
        match &self.mountpoint {
            Some(mountpoint) => topic.strip_prefix(&**mountpoint).unwrap_or(topic),
            None => topic,
        }
    }
}

impl Subscription {
    /// The filter as the client wrote it.
    pub(crate) fn written_as(&self, filter: &str) -> String {
        match self.group.as_ref().map(|key| key.group()) {
            None => filter.to_owned(),
            Some(EXCLUSIVE_GROUP) => format!("{EXCLUSIVE_GROUP}{filter}"),
            Some(QUEUE_GROUP) => format!("{QUEUE_GROUP}/{filter}"),
            Some(group) => format!("$share/{group}/{filter}"),
        }
    }
}

/// A session that is on its way to this shard.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    /// What came for it meanwhile.
    pub(crate) collected: Queue,
    /// Others that want it when it is here.
    pub(crate) wanted: Vec<(TakeoverRequest, ReplyTo)>,
    /// Owners that have not answered yet.
    pub(crate) outstanding: u16,
    /// One of them had the session.
    pub(crate) present: bool,
    /// The node that had it and still collects for it, and what it was asked with.
    pub(crate) copied: Option<(NodeIndex, Hlc)>,
    /// CONNACK need not wait any more: only what the former node still collects is missing.
    pub(crate) installed: bool,
    /// Nobody has connected for it: another node gives it away.
    pub(crate) adopted: bool,
    /// The will that waits there for its delay, and when it is due, wall ms.
    pub(crate) will: Option<(Arc<Will>, u64)>,
}

/// What a former node has handed over, while another copy of it may still come over a slower link:
/// how many copies by message.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) copies: BTreeMap<u64, u16>,
    /// Mono ms.
    pub(crate) until_ms: u64,
}

/// A session that is leaving this shard.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// Who is told.
    pub(crate) reply: ReplyTo,
    pub(crate) heir: Heir,
    /// Shards that may still have deliveries on the way here. Between nodes they are asked when the
    /// new owner says that routes have moved.
    pub(crate) fences_left: ShardId,
    /// What the full queue dropped meanwhile, by message: the new owner gets copies of it.
    dropped: BTreeMap<u64, u16>,
}

impl Leaving {
    pub(crate) fn new(reply: ReplyTo, heir: Heir, fences_left: ShardId) -> Self {
        Self {
            reply,
            heir,
            fences_left,
            dropped: BTreeMap::new(),
        }
    }

    /// A message fell out of the queue.
    pub(crate) fn note_dropped(&mut self, queued: &Queued) {
        let Some(id) = queued.copied_id() else {
            return;
        };
        add_copies(&mut self.dropped, id, 1);
        if self.dropped.len() > COPIES_MAX {
            // A shard numbers upwards, so mostly this is the oldest.
            self.dropped.pop_first();
        }
    }

    /// Adds what was dropped to what the new owner knows as handed over: its turn is over.
    pub(crate) fn tell_dropped(self, state: &mut SessionState) {
        for (id, dropped) in self.dropped {
            add_copies(&mut state.handed, id, dropped);
        }
    }
}

/// Where a session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heir {
    /// To another shard, whole.
    Shard,
    /// To another node, which has a copy; the rest follows. With the stamp it was asked for with.
    Node(Hlc),
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) origin: Arc<Origin>,
    pub(crate) client: Box<Client>,
    pub(crate) conn: Option<Conn>,
    /// When its connection was accepted: the newest owner of a client identifier wins.
    pub(crate) stamp: Hlc,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) inflight: Inflight,
    pub(crate) queue: Queue,
    pub(crate) awaiting_rel: Option<Box<AwaitingRel>>,
    pub(crate) will: Option<Arc<Will>>,
    pub(crate) arriving: Option<Box<Arriving>>,
    pub(crate) leaving: Option<Box<Leaving>>,
    pub(crate) handed: Option<Box<Handed>>,
    pub(crate) created_at_wall_ms: u64,
    /// Mono ms; meaningful without a connection.
    pub(crate) expires_ms: u64,
    /// Mono ms; meaningful while a will waits.
    pub(crate) will_ms: u64,
    pub(crate) expiry_s: u32,
    pub(crate) dropped: u32,
    /// How many messages the client takes unacknowledged.
    pub(crate) window: u16,
    /// Another node has said that it has a newer session of the client; this one only waits to be
    /// asked for.
    pub(crate) superseded: bool,
}

impl Session {
    pub(crate) fn new(origin: Arc<Origin>, client: Client, wall_ms: u64, window: u16) -> Self {
        Self {
            origin,
            client: Box::new(client),
            conn: None,
            stamp: Hlc::default(),
            subscriptions: Subscriptions::default(),
            inflight: Inflight::new(),
            queue: Queue::new(),
            awaiting_rel: None,
            will: None,
            arriving: None,
            leaving: None,
            handed: None,
            created_at_wall_ms: wall_ms,
            expires_ms: 0,
            will_ms: 0,
            expiry_s: 0,
            dropped: 0,
            window,
            superseded: false,
        }
    }

    pub(crate) fn clientid(&self) -> &str {
        &self.origin.clientid
    }

    pub(crate) fn identity(&self) -> Identity<'_> {
        Identity {
            clientid: &self.origin.clientid,
            username: self.origin.username.as_deref(),
            peer: self.client.peer,
            listener: &self.client.listener.id,
            cert: self.client.cert.as_deref(),
        }
    }

    /// Copies of messages that the session has already may come until a time, mono ms.
    pub(crate) fn expect_copies(&mut self, copies: BTreeMap<u64, u16>, until_ms: u64) {
        if copies.is_empty() {
            return;
        }
        match &mut self.handed {
            Some(handed) => {
                handed.copies.extend(copies);
                handed.until_ms = until_ms;
            }
            None => self.handed = Some(Box::new(Handed { copies, until_ms })),
        }
    }

    /// Whether a message is one the former node has handed over already.
    pub(crate) fn was_handed(&mut self, message: &Message, now_ms: u64) -> bool {
        let Some(handed) = &mut self.handed else {
            return false;
        };
        let is_over = handed.until_ms <= now_ms;
        let known = message
            .id()
            .filter(|id| !is_over && handed.copies.contains_key(id));
        if let Some(id) = known {
            take_copy(&mut handed.copies, id);
        }
        if is_over || handed.copies.is_empty() {
            self.handed = None;
        }
        known.is_some()
    }

    /// Whether what is queued may not be sent: its place is behind what is still to come, or it is
    /// another owner's.
    pub(crate) fn is_away(&self) -> bool {
        self.leaving.is_some() || self.arriving.as_ref().is_some_and(|a| !a.installed)
    }

    /// Whether the session collects instead of delivering.
    pub(crate) fn collects(&self) -> bool {
        self.arriving.is_some() || self.leaving.is_some()
    }
}

/// A session between two owners. Within a node its messages are shared, between nodes it travels as
/// [`encode_result`] writes it.
#[derive(Clone, Debug, Default)]
pub struct SessionState {
    pub(crate) created_at_wall_ms: u64,
    pub(crate) subscriptions: Vec<MovedSubscription>,
    pub(crate) inflight: Vec<Exchange>,
    pub(crate) queue: Vec<Queued>,
    pub(crate) awaiting_rel: Vec<u16>,
    pub(crate) dropped: u32,
    /// Copies that may still come of what the session has had: to a node it was on and may come
    /// back to, or to its new node, of what the queue dropped while it collected for that one.
    pub(crate) handed: BTreeMap<u64, u16>,
}

impl SessionState {
    /// What may still come to a node that the session moves to, as a copy for somebody else there,
    /// of messages that it brings along.
    pub(crate) fn copies(&self) -> BTreeMap<u64, u16> {
        let unacknowledged = self.inflight.iter().filter_map(|exchange| match exchange {
            Exchange::Sent(_, queued) => Some(queued),
            Exchange::Released(_) => None,
        });
        let all = unacknowledged.chain(&self.queue);
        let mut copies = count_copies(all.filter_map(Queued::copied_id));
        if self.handed.len() <= COPIES_MAX {
            for (id, handed) in &self.handed {
                let known = copies.entry(*id).or_default();
                *known = (*known).max(*handed);
            }
        }
        copies
    }
}

/// A subscription of a moving session, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MovedSubscription {
    pub(crate) filter: String,
    pub(crate) group: Option<String>,
    pub(crate) options: SubOptions,
    pub(crate) retain_handling: u8,
}

/// The wire form of a [`SessionState`]. Fields are only ever added at the end.
#[derive(Serialize, Deserialize)]
struct WireState {
    created_at_wall_ms: u64,
    subscriptions: Vec<MovedSubscription>,
    inflight: Vec<WireExchange>,
    queue: Vec<WireQueued>,
    awaiting_rel: Vec<u16>,
    dropped: u32,
    handed: BTreeMap<u64, u16>,
}

#[derive(Serialize, Deserialize)]
struct WireExchange {
    packet_id: u16,
    /// `None`: PUBREL was sent.
    queued: Option<WireQueued>,
}

#[derive(Serialize, Deserialize)]
struct WireQueued {
    topic: String,
    properties: Vec<u8>,
    payload: Vec<u8>,
    clientid: String,
    username: Option<String>,
    /// QoS as published, retain, DUP.
    published: (u8, bool, bool),
    expires_wall_ms: Option<u64>,
    group: Option<(String, String)>,
    sub_id: u32,
    qos: u8,
    retain: bool,
    /// The message's; 0 none.
    id: u64,
}

#[derive(Serialize, Deserialize)]
enum WireResult {
    None,
    Session(Box<WireState>),
    Failed,
}

/// The bytes a takeover's answer travels as.
pub fn encode_result(result: &TakeoverResult) -> Bytes {
    let wire = match result {
        TakeoverResult::None => WireResult::None,
        TakeoverResult::Failed => WireResult::Failed,
        TakeoverResult::Session(state) => WireResult::Session(Box::new(to_wire(state))),
    };
    let mut out = vec![STATE_VERSION];
    out = postcard::to_extend(&wire, out).expect("plain values always encode");
    out.into()
}

/// Reads what [`encode_result`] wrote; `None` for bytes that are no answer or of a newer version.
pub fn decode_result(bytes: &[u8]) -> Option<TakeoverResult> {
    let (version, rest) = bytes.split_first()?;
    if *version != STATE_VERSION {
        return None;
    }
    Some(match postcard::from_bytes(rest).ok()? {
        WireResult::None => TakeoverResult::None,
        WireResult::Failed => TakeoverResult::Failed,
        WireResult::Session(wire) => TakeoverResult::Session(Box::new(from_wire(*wire))),
    })
}

fn to_wire(state: &SessionState) -> WireState {
    let kept = newest_within(&state.queue, QUEUE_BYTES_MAX);
    let cut = &state.queue[..state.queue.len() - kept.len()];
    let left_behind = cut.len() as u32;
    if left_behind > 0 {
        tracing::warn!(messages = left_behind, "takeover_queue_cut");
    }
    let mut handed = state.handed.clone();
    for queued in cut.iter().rev().take(COPIES_MAX) {
        if let Some(id) = queued.copied_id() {
            add_copies(&mut handed, id, 1);
        }
    }
    WireState {
        created_at_wall_ms: state.created_at_wall_ms,
        subscriptions: state.subscriptions.clone(),
        inflight: state.inflight.iter().map(exchange_to_wire).collect(),
        queue: kept.iter().map(queued_to_wire).collect(),
        awaiting_rel: state.awaiting_rel.clone(),
        dropped: state.dropped.saturating_add(left_behind),
        handed,
    }
}

/// The newest messages that fit: as with a full queue, the oldest are dropped.
fn newest_within(queue: &[Queued], bytes_max: usize) -> &[Queued] {
    let mut left = bytes_max;
    let mut from = queue.len();
    for queued in queue.iter().rev() {
        let message = &queued.message;
        let bytes = QUEUED_OVERHEAD_BYTES
            + message.topic().len()
            + message.properties().len()
            + message.payload().len();
        if bytes > left {
            break;
        }
        left -= bytes;
        from -= 1;
    }
    &queue[from..]
}

fn from_wire(wire: WireState) -> SessionState {
    SessionState {
        created_at_wall_ms: wire.created_at_wall_ms,
        subscriptions: wire.subscriptions,
        inflight: wire.inflight.into_iter().map(exchange_from_wire).collect(),
        queue: wire.queue.into_iter().map(queued_from_wire).collect(),
        awaiting_rel: wire.awaiting_rel,
        dropped: wire.dropped,
        handed: wire.handed,
    }
}

fn exchange_to_wire(exchange: &Exchange) -> WireExchange {
    match exchange {
        Exchange::Sent(packet_id, queued) => WireExchange {
            packet_id: *packet_id,
            queued: Some(queued_to_wire(queued)),
        },
        Exchange::Released(packet_id) => WireExchange {
            packet_id: *packet_id,
            queued: None,
        },
    }
}

fn exchange_from_wire(wire: WireExchange) -> Exchange {
    match wire.queued {
        Some(queued) => Exchange::Sent(wire.packet_id, queued_from_wire(queued)),
        None => Exchange::Released(wire.packet_id),
    }
}

fn queued_to_wire(queued: &Queued) -> WireQueued {
    let message = &queued.message;
    WireQueued {
        topic: message.topic().to_owned(),
        properties: message.properties().to_vec(),
        payload: message.payload().to_vec(),
        clientid: message.clientid().to_owned(),
        username: message.username().map(str::to_owned),
        published: (message.qos().as_u8(), message.retain(), message.dup()),
        expires_wall_ms: message.expires_wall_ms(),
        group: queued
            .group
            .as_ref()
            .map(|g| (g.group().to_owned(), g.filter().to_owned())),
        sub_id: queued.sub_id,
        qos: queued.qos.as_u8(),
        retain: queued.retain,
        id: message.id().unwrap_or(0),
    }
}

fn queued_from_wire(wire: WireQueued) -> Queued {
    let (qos, retain, dup) = wire.published;
    let origin = Origin {
        clientid: wire.clientid.into(),
        username: wire.username.map(Into::into),
    };
    let parts = Parts {
        topic: &wire.topic,
        properties: &wire.properties,
        payload: &wire.payload,
        clientid: "",
    };
    let head = Head {
        qos: QoS::from_u8(qos).unwrap_or_default(),
        retain,
        dup,
        origin: Some(Arc::new(origin)),
        id: wire.id,
        expires_wall_ms: wire.expires_wall_ms,
    };
    Queued {
        message: Message::new(parts, head),
        group: wire
            .group
            .map(|(group, filter)| Arc::new(GroupKey::new(&group, &filter))),
        sub_id: wire.sub_id,
        qos: QoS::from_u8(wire.qos).unwrap_or_default(),
        retain: wire.retain,
    }
}

/// Joins what the old owner collected with what the new one did meanwhile. Both saw a stretch of
/// the same publishers' streams: what is at the end of the first and the beginning of the second
/// came twice. Copies are told by the message's identifier; a session with overlapping
/// subscriptions may have several on either side. What the old owner had and dropped (`over`) does
/// not come again behind what followed it.
///
/// Returns all of it, and how many copies of the old owner's were not met again: they may still
/// come.
pub(crate) fn join_collected(
    old: Vec<Queued>,
    over: BTreeMap<u64, u16>,
    new: Vec<Queued>,
) -> (Vec<Queued>, BTreeMap<u64, u16>) {
    let mut unmet = over;
    for id in old.iter().filter_map(|queued| queued.message.id()) {
        add_copies(&mut unmet, id, 1);
    }
    let mut joined = old;
    for queued in new {
        let twin = queued.message.id().filter(|id| unmet.contains_key(id));
        match twin {
            Some(id) => take_copy(&mut unmet, id),
            None => joined.push(queued),
        }
    }
    (joined, unmet)
}

fn count_copies(ids: impl Iterator<Item = u64>) -> BTreeMap<u64, u16> {
    let mut copies = BTreeMap::new();
    for id in ids {
        add_copies(&mut copies, id, 1);
    }
    copies
}

fn add_copies(copies: &mut BTreeMap<u64, u16>, id: u64, count: u16) {
    let known = copies.entry(id).or_default();
    *known = known.saturating_add(count);
}

fn take_copy(copies: &mut BTreeMap<u64, u16>, id: u64) {
    if let Some(left) = copies.get_mut(&id) {
        *left -= 1;
        if *left == 0 {
            copies.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(payload: &str) -> Queued {
        numbered(9, payload)
    }

    fn numbered(id: u64, payload: &str) -> Queued {
        let parts = Parts {
            topic: "a/b",
            properties: &[1, 1],
            payload: payload.as_bytes(),
            clientid: "publisher",
        };
        let head = Head {
            qos: QoS::ExactlyOnce,
            retain: true,
            id,
            expires_wall_ms: Some(5),
            ..Head::default()
        };
        Queued {
            message: Message::new(parts, head),
            group: Some(Arc::new(GroupKey::new("g", "a/#"))),
            sub_id: 7,
            qos: QoS::AtLeastOnce,
            retain: false,
        }
    }

    #[test]
    fn a_session_survives_the_wire() {
        let state = SessionState {
            created_at_wall_ms: 9,
            subscriptions: vec![MovedSubscription {
                filter: "a/#".to_owned(),
                group: Some("g".to_owned()),
                options: SubOptions::new(QoS::AtLeastOnce)
                    .with_no_local(true)
                    .with_sub_id(7),
                retain_handling: 2,
            }],
            inflight: vec![Exchange::Sent(3, queued("one")), Exchange::Released(4)],
            queue: vec![queued("two")],
            awaiting_rel: vec![8, 9],
            dropped: 2,
            handed: [(5, 1)].into(),
        };
        let bytes = encode_result(&TakeoverResult::Session(Box::new(state)));
        let Some(TakeoverResult::Session(back)) = decode_result(&bytes) else {
            panic!("a session comes back");
        };
        assert_eq!(back.subscriptions[0].filter, "a/#");
        assert_eq!(back.subscriptions[0].options.sub_id(), Some(7));
        assert_eq!(back.awaiting_rel, [8, 9]);
        assert_eq!(back.handed.into_iter().collect::<Vec<_>>(), [(5, 1)]);
        let Exchange::Sent(3, first) = &back.inflight[0] else {
            panic!("sent")
        };
        assert_eq!(
            (first.message.id(), first.message.payload()),
            (Some(9), &b"one"[..])
        );
        assert_eq!(first.group.as_ref().map(|g| g.filter()), Some("a/#"));
        assert_eq!(first.message.expires_wall_ms(), Some(5));
        assert!(matches!(back.inflight[1], Exchange::Released(4)));
        assert_eq!(back.queue[0].message.payload(), b"two");
    }

    #[test]
    fn copies_may_come_of_all_that_moves_along_but_what_groups_were_given() {
        let plain = |id| Queued {
            group: None,
            ..numbered(id, "on")
        };
        let state = SessionState {
            inflight: vec![Exchange::Sent(3, plain(1)), Exchange::Released(4)],
            queue: vec![plain(2), plain(2), numbered(7, "given"), plain(0)],
            handed: [(2, 1), (5, 1)].into(),
            ..SessionState::default()
        };
        let copies: Vec<_> = state.copies().into_iter().collect();
        assert_eq!(copies, [(1, 1), (2, 2), (5, 1)]);
    }

    #[test]
    fn a_queue_too_large_for_a_call_loses_its_oldest() {
        let queue: Vec<Queued> = (0..20)
            .map(|n| queued(&n.to_string().repeat(1_000)))
            .collect();
        let one = 1_000 + QUEUED_OVERHEAD_BYTES + 5;
        let kept = newest_within(&queue[..10], 3 * one);
        assert_eq!(kept.len(), 3);
        assert_eq!(kept[2].message.payload(), queue[9].message.payload());
        assert_eq!(newest_within(&queue[..10], usize::MAX).len(), 10);
        let big = SessionState {
            queue: vec![queue[0].clone(); 20_000],
            ..Default::default()
        };
        let bytes = encode_result(&TakeoverResult::Session(Box::new(big)));
        assert!(bytes.len() < dunlin_cluster::PAYLOAD_BYTES_MAX);
    }

    #[test]
    fn what_a_cut_leaves_behind_is_over() {
        let large = |id| Queued {
            group: None,
            ..numbered(id, &"x".repeat(QUEUE_BYTES_MAX / 2))
        };
        let state = SessionState {
            queue: vec![large(1), large(2), large(3)],
            handed: [(1, 1)].into(),
            ..Default::default()
        };
        let bytes = encode_result(&TakeoverResult::Session(Box::new(state)));
        let Some(TakeoverResult::Session(back)) = decode_result(&bytes) else {
            panic!("a session comes back");
        };
        let kept: Vec<_> = back.queue.iter().map(|q| q.message.id()).collect();
        assert_eq!(kept, [Some(3)]);
        assert_eq!(
            back.handed.into_iter().collect::<Vec<_>>(),
            [(1, 2), (2, 1)]
        );
    }

    #[test]
    fn garbage_and_newer_versions_are_no_answer() {
        assert!(decode_result(&[]).is_none());
        assert!(decode_result(&[9, 0]).is_none());
        assert!(decode_result(&[1, 77, 1, 2]).is_none());
        let none = encode_result(&TakeoverResult::None);
        assert!(matches!(decode_result(&none), Some(TakeoverResult::None)));
    }

    #[track_caller]
    fn check_joined(old: &[u64], new: &[u64], joined: &[u64], unmet: &[(u64, u16)]) {
        check_joined_over(old, &[], new, joined, unmet);
    }

    #[track_caller]
    fn check_joined_over(
        old: &[u64],
        over: &[(u64, u16)],
        new: &[u64],
        joined: &[u64],
        unmet: &[(u64, u16)],
    ) {
        let list = |ids: &[u64]| ids.iter().map(|id| numbered(*id, "on")).collect::<Vec<_>>();
        let over = over.iter().copied().collect();
        let (all, still) = join_collected(list(old), over, list(new));
        let ids = all.iter().map(|queued| queued.message.id().unwrap_or(0));
        assert_eq!(ids.collect::<Vec<_>>(), joined);
        assert_eq!(still.into_iter().collect::<Vec<_>>(), unmet);
    }

    #[test]
    fn what_both_owners_collected_is_kept_once() {
        check_joined(&[3, 4, 5], &[4, 5, 6], &[3, 4, 5, 6], &[(3, 1)]);
        // Overlapping subscriptions give several copies, on both sides.
        check_joined(&[1, 1], &[1], &[1, 1], &[(1, 1)]);
        check_joined(&[], &[1, 1], &[1, 1], &[]);
        // What was never routed (a retained message of a new subscription) has no twin.
        check_joined(&[0], &[0], &[0, 0], &[]);
    }

    #[test]
    fn what_the_old_owner_dropped_does_not_come_behind_what_followed() {
        check_joined_over(
            &[5, 6],
            &[(3, 1), (4, 1)],
            &[4, 5, 7],
            &[5, 6, 7],
            &[(3, 1), (6, 1)],
        );
        // One of two copies was dropped.
        check_joined_over(&[4], &[(4, 1)], &[4, 4], &[4], &[]);
    }
}
