//! The message: what is routed, once it is out of its packet.
//!
//! A message is a slice of the buffer it was received in (or of a buffer of its own) and the places
//! of its parts there, so passing it on copies 80 bytes and counts a reference. Whoever keeps one
//! beyond the wake-up it came in calls [`Message::compact`], so that ten bytes waiting in a queue
//! do not hold a 64 KiB receive buffer.
//!
//! Must never change once routed: what differs from receiver to receiver (QoS, retain flag,
//! subscription identifier) is the delivery's, not the message's.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use dunlin_cluster::Now;
use dunlin_mqtt::{Publish, QoS};

/// A kept message may hold a buffer this many times its own size before it is copied out.
const BUFFER_SHARE_MAX: usize = 2;

/// Who published. One for each connection, shared by its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Client identifier.
    pub clientid: Box<str>,
    /// User name.
    pub username: Option<Box<str>>,
}

const QOS_MASK: u8 = 0b11;
const RETAIN: u8 = 1 << 2;
const DUP: u8 = 1 << 3;

/// A message. See the module.
#[derive(Clone)]
pub struct Message {
    /// `topic … properties … payload … clientid`, in this order; gaps are ignored.
    body: Bytes,
    /// A topic that is not in `body`: from an alias, rewritten, or under a mountpoint.
    topic: Option<Arc<Box<str>>>,
    origin: Option<Arc<Origin>>,
    /// 0: none.
    id: u64,
    /// 0: never.
    expires_wall_ms: u64,
    properties_at: u32,
    payload_at: u32,
    payload_end: u32,
    topic_bytes: u16,
    flags: u8,
    /// Size of the buffer behind `body` as a power of two; 0: it is `body`'s own.
    buffer_log2: u8,
}

/// Everything about a message that is not bytes of its body.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// As published.
    pub qos: QoS,
    /// As published.
    pub retain: bool,
    /// Whether the publisher sent it again.
    pub dup: bool,
    /// The publisher; `None` if the body names it, or for messages of the node itself.
    pub origin: Option<Arc<Origin>>,
    /// What all its copies on all nodes have in common; 0 before it is routed.
    pub id: u64,
    /// When nobody wants it any more, wall clock ms; `None` never.
    pub expires_wall_ms: Option<u64>,
}

/// What a received PUBLISH does not say itself.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The publisher.
    pub origin: &'a Arc<Origin>,
    /// When it came in.
    pub now: Now,
    /// Expiry of messages without their own (`mqtt.message_expiry_interval`); `None` never.
    pub default_expiry_ms: Option<u64>,
    /// Size of the buffer it was received in.
    pub buffer_bytes: usize,
}

impl Received<'_> {
    /// The deadline for a Message Expiry Interval in seconds.
    pub fn expires_wall_ms(&self, interval_s: Option<u32>) -> Option<u64> {
        let own = interval_s.map(|s| u64::from(s) * 1_000);
        let interval_ms = own.or(self.default_expiry_ms)?;
        // An interval of 0 is over at once; a deadline of 0 would mean never.
        Some(self.now.wall_ms.saturating_add(interval_ms).max(1))
    }
}

/// The parts of a message that is not in one buffer yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// Topic name; at most 65,535 bytes.
    pub topic: &'a str,
    /// Encoded MQTT 5 properties that are forwarded, without the length in front.
    pub properties: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// Publisher's client identifier, where there is no [`Origin`].
    pub clientid: &'a str,
}

/// Where the parts are in a received buffer that begins with the topic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Length of the topic at the beginning; 0 if it is elsewhere.
    pub topic_bytes: u16,
    /// Begin of the properties, which end where the payload begins.
    pub properties_at: u32,
    /// Begin of the payload.
    pub payload_at: u32,
    /// End of the payload; behind it, to the end, the publisher's client identifier.
    pub payload_end: u32,
}

impl Message {
    /// A message with a buffer of its own.
    pub fn new(parts: Parts<'_>, head: Head) -> Self {
        let topic_bytes = parts.topic.len().min(usize::from(u16::MAX));
        let properties_at = topic_bytes;
        let payload_at = properties_at + parts.properties.len();
        let payload_end = payload_at + parts.payload.len();
        let mut body = Vec::with_capacity(payload_end + parts.clientid.len());
        body.extend_from_slice(&parts.topic.as_bytes()[..topic_bytes]);
        body.extend_from_slice(parts.properties);
        body.extend_from_slice(parts.payload);
        body.extend_from_slice(parts.clientid.as_bytes());
        let layout = Layout {
            topic_bytes: topic_bytes as u16,
            properties_at: properties_at as u32,
            payload_at: payload_at as u32,
            payload_end: payload_end as u32,
        };
        Self::build(Bytes::from(body), layout, head, 0)
    }

    /// A message in a received buffer of `buffer_bytes` that others may share; nothing is copied.
    /// Places that do not fit the body are cut to it.
    pub fn in_place(body: Bytes, layout: Layout, head: Head, buffer_bytes: usize) -> Self {
        let end = body.len() as u32;
        let payload_end = layout.payload_end.min(end);
        let payload_at = layout.payload_at.min(payload_end);
        let properties_at = layout.properties_at.min(payload_at);
        let topic_bytes = u32::from(layout.topic_bytes).min(properties_at) as u16;
        let layout = Layout {
            topic_bytes,
            properties_at,
            payload_at,
            payload_end,
        };
        let buffer_log2 = buffer_bytes.max(body.len()).max(2).ilog2() as u8;
        Self::build(body, layout, head, buffer_log2)
    }

    /// The message of a received PUBLISH; nothing is copied unless some of its properties must not
    /// go on while others must. An empty topic (an alias stands for it) is for the caller to fill
    /// in with [`Message::with_topic`].
    #[inline]
    pub fn from_publish(publish: Publish, received: &Received<'_>) -> Self {
        let mut head = Head {
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            origin: Some(Arc::clone(received.origin)),
            id: 0,
            expires_wall_ms: received.expires_wall_ms(None),
        };
        let topic = publish.topic_range();
        let (begin, topic_bytes) = (topic.start, topic.len() as u16);
        let payload_at = publish.payload_range().start - begin;
        let mut properties_at = payload_at;
        if !publish.raw_properties().is_empty() {
            let properties = publish.properties();
            head.expires_wall_ms = received.expires_wall_ms(properties.message_expiry_interval());
            match properties.forwardable() {
                Cow::Borrowed(_) => properties_at = publish.properties_range().start - begin,
                Cow::Owned(kept) if kept.is_empty() => {}
                Cow::Owned(kept) => {
                    let parts = Parts {
                        topic: publish.topic(),
                        properties: &kept,
                        payload: publish.payload(),
                        clientid: "",
                    };
                    return Self::new(parts, head);
                }
            }
        }
        let mut body = publish.into_frame();
        body.advance(begin);
        let layout = Layout {
            topic_bytes,
            properties_at: properties_at as u32,
            payload_at: payload_at as u32,
            payload_end: body.len() as u32,
        };
        let buffer_log2 = received.buffer_bytes.max(body.len()).max(2).ilog2() as u8;
        Self::build(body, layout, head, buffer_log2)
    }

    fn build(body: Bytes, layout: Layout, head: Head, buffer_log2: u8) -> Self {
        let mut flags = head.qos.as_u8();
        if head.retain {
            flags |= RETAIN;
        }
        if head.dup {
            flags |= DUP;
        }
        Self {
            body,
            topic: None,
            origin: head.origin,
            id: head.id,
            expires_wall_ms: head.expires_wall_ms.unwrap_or(0),
            properties_at: layout.properties_at,
            payload_at: layout.payload_at,
            payload_end: layout.payload_end,
            topic_bytes: layout.topic_bytes,
            flags,
            buffer_log2,
        }
    }

    /// The same message under another topic.
    #[must_use]
    pub fn with_topic(mut self, topic: Arc<Box<str>>) -> Self {
        self.topic = Some(topic);
        self
    }

    /// The same message with its retain flag set or cleared.
    #[must_use]
    pub fn with_retain(mut self, retain: bool) -> Self {
        self.flags = if retain {
            self.flags | RETAIN
        } else {
            self.flags & !RETAIN
        };
        self
    }

    /// The topic name.
    #[inline]
    pub fn topic(&self) -> &str {
        match &self.topic {
            Some(topic) => topic,
            None => text(&self.body[..usize::from(self.topic_bytes)]),
        }
    }

    /// The bytes of [`Message::topic`], for whoever does not need to know that they are text.
    #[inline]
    pub fn topic_bytes(&self) -> &[u8] {
        match &self.topic {
            Some(topic) => topic.as_bytes(),
            None => &self.body[..usize::from(self.topic_bytes)],
        }
    }

    /// The encoded MQTT 5 properties that are forwarded, without the length in front.
    #[inline]
    pub fn properties(&self) -> &[u8] {
        &self.body[self.properties_at as usize..self.payload_at as usize]
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.body[self.payload_at as usize..self.payload_end as usize]
    }

    /// The payload, sharing the buffer.
    pub fn payload_bytes(&self) -> Bytes {
        self.body
            .slice(self.payload_at as usize..self.payload_end as usize)
    }

    /// QoS as published.
    #[inline]
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.flags & QOS_MASK).unwrap_or_default()
    }

    /// Retain flag as published.
    #[inline]
    pub fn retain(&self) -> bool {
        self.flags & RETAIN != 0
    }

    /// Whether the publisher sent it again.
    pub fn dup(&self) -> bool {
        self.flags & DUP != 0
    }

    /// The publisher's client identifier; empty for messages of the node itself.
    pub fn clientid(&self) -> &str {
        match &self.origin {
            Some(origin) => &origin.clientid,
            None => text(&self.body[self.payload_end as usize..]),
        }
    }

    /// The publisher's user name, where it is known.
    pub fn username(&self) -> Option<&str> {
        self.origin.as_ref()?.username.as_deref()
    }

    /// The publisher, if it is a client of this node.
    pub fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    /// What all its copies on all nodes have in common, once it is routed.
    pub fn id(&self) -> Option<u64> {
        (self.id > 0).then_some(self.id)
    }

    /// The same message with its identifier, given where it is routed first.
    #[must_use]
    pub fn with_id(mut self, id: u64) -> Self {
        self.id = id;
        self
    }

    /// When nobody wants it any more, wall clock ms.
    pub fn expires_wall_ms(&self) -> Option<u64> {
        (self.expires_wall_ms > 0).then_some(self.expires_wall_ms)
    }

    /// Whether its time is over.
    #[inline]
    pub fn is_expired(&self, wall_ms: u64) -> bool {
        self.expires_wall_ms > 0 && self.expires_wall_ms <= wall_ms
    }

    /// The Message Expiry Interval to send: what is left in seconds, at least 1, or `None`.
    pub fn expiry_left_s(&self, wall_ms: u64) -> Option<u32> {
        let left_ms = self.expires_wall_ms()?.saturating_sub(wall_ms);
        Some(
            u32::try_from(left_ms.div_ceil(1_000))
                .unwrap_or(u32::MAX)
                .max(1),
        )
    }

    /// The message in a buffer of its own if it now sits in a much larger one. For everything that
    /// is kept: queued, in flight, retained.
    #[must_use]
    #[inline]
    pub fn compact(self) -> Self {
        if self.sits_alone() {
            return self;
        }
        self.copied()
    }

    /// [`Message::compact`] of a message that goes on to others.
    #[must_use]
    #[inline]
    pub fn kept(&self) -> Self {
        if self.sits_alone() {
            return self.clone();
        }
        self.copied()
    }

    /// Whether the buffer behind the body is not much larger than the body.
    #[inline]
    fn sits_alone(&self) -> bool {
        let own = self.body.len().max(1) * BUFFER_SHARE_MAX;
        self.buffer_log2 == 0 || 1_usize << self.buffer_log2.min(62) <= own
    }

    fn copied(&self) -> Self {
        let topic = &self.body[..usize::from(self.topic_bytes)];
        let rest = &self.body[self.properties_at as usize..];
        let mut body = Vec::with_capacity(topic.len() + rest.len());
        body.extend_from_slice(topic);
        body.extend_from_slice(rest);
        let gap = self.properties_at - u32::from(self.topic_bytes);
        Self {
            body: Bytes::from(body),
            topic: self.topic.clone(),
            origin: self.origin.clone(),
            properties_at: self.properties_at - gap,
            payload_at: self.payload_at - gap,
            payload_end: self.payload_end - gap,
            buffer_log2: 0,
            ..*self
        }
    }

    /// Whether two messages are one: they lie at the same place.
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const self.body[..], &raw const other.body[..])
    }
}

/// Topics and identifiers are checked when they come in; a slice that is no text all the same
/// (places given wrongly) is an empty one.
#[inline]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("qos", &self.qos())
            .field("retain", &self.retain())
            .field("clientid", &self.clientid())
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use bytes::BytesMut;
    use dunlin_mqtt::{Limits, Packet, Properties, PropertyId, Value, Version};

    use super::*;

    fn sample() -> Message {
        let parts = Parts {
            topic: "a/b",
            properties: &[1, 1],
            payload: b"hello",
            clientid: "me",
        };
        let head = Head {
            qos: QoS::AtLeastOnce,
            retain: true,
            ..Head::default()
        };
        Message::new(parts, head)
    }

    #[track_caller]
    fn same(a: &Message, b: &Message) {
        assert_eq!(a.topic(), b.topic());
        assert_eq!(a.properties(), b.properties());
        assert_eq!(a.payload(), b.payload());
        assert_eq!(a.clientid(), b.clientid());
        assert_eq!(
            (a.qos(), a.retain(), a.dup()),
            (b.qos(), b.retain(), b.dup())
        );
        assert_eq!(a.expires_wall_ms(), b.expires_wall_ms());
    }

    #[test]
    fn it_is_80_bytes_and_a_clone_shares_the_body() {
        assert!(size_of::<Message>() <= 80, "{}", size_of::<Message>());
        let message = sample();
        let clone = message.clone();
        assert_eq!(message.payload().as_ptr(), clone.payload().as_ptr());
        same(&message, &clone);
    }

    #[test]
    fn parts_come_back() {
        let message = sample();
        assert_eq!(message.topic(), "a/b");
        assert_eq!(message.properties(), [1, 1]);
        assert_eq!(message.payload(), b"hello");
        assert_eq!(&message.payload_bytes()[..], b"hello");
        assert_eq!(message.clientid(), "me");
        assert_eq!(message.username(), None);
        assert!(message.retain() && !message.dup());
        assert!(!message.with_retain(false).retain());
    }

    fn decoded(properties: &Properties) -> Publish {
        let mut wire = BytesMut::new();
        Publish::new("a/b", b"hello", QoS::AtLeastOnce, true)
            .with_packet_id(NonZeroU16::MIN)
            .with_properties(properties)
            .encode(Version::V5, &mut wire);
        match dunlin_mqtt::decode(&mut wire, Version::V5, &Limits::default()) {
            Ok(Some(Packet::Publish(publish))) => publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_received_publish_is_not_copied_and_keeps_what_goes_on() {
        let origin = Arc::new(Origin {
            clientid: "c1".into(),
            username: None,
        });
        let now = Now {
            mono_ms: 7,
            wall_ms: 1_000,
        };
        let received = Received {
            origin: &origin,
            now,
            default_expiry_ms: Some(9),
            buffer_bytes: 4_096,
        };
        let mut properties = Properties::new();
        let publish = decoded(&properties);
        let message = Message::from_publish(publish.clone(), &received);
        assert_eq!(message.payload().as_ptr(), publish.payload().as_ptr());
        assert_eq!((message.topic(), message.payload()), ("a/b", &b"hello"[..]));
        assert_eq!((message.clientid(), message.properties()), ("c1", &[][..]));
        assert_eq!(message.expires_wall_ms(), Some(1_009));
        assert_eq!(message.id(), None);
        assert_eq!(message.with_id(7).compact().id(), Some(7));

        properties.push(PropertyId::ContentType, Value::Str("x".into()));
        let publish = decoded(&properties);
        let message = Message::from_publish(publish.clone(), &received);
        assert_eq!(message.payload().as_ptr(), publish.payload().as_ptr());
        assert_eq!(message.properties(), publish.raw_properties());
        same(&message, &message.clone().compact());

        properties.push(PropertyId::MessageExpiryInterval, Value::U32(2));
        let publish = decoded(&properties);
        let mixed = Message::from_publish(publish, &received);
        assert_eq!(
            mixed.properties(),
            message.properties(),
            "without the expiry"
        );
        assert_eq!(mixed.expires_wall_ms(), Some(3_000));
        assert_eq!((mixed.topic(), mixed.payload()), ("a/b", &b"hello"[..]));
    }

    #[test]
    fn a_kept_message_leaves_a_large_buffer_and_stays_in_a_fitting_one() {
        let mut buffer = b"a/b\0\x07propspayloadtail".to_vec();
        buffer.resize(4096, 0);
        let body = Bytes::from(buffer).slice(..17);
        let layout = Layout {
            topic_bytes: 3,
            properties_at: 5,
            payload_at: 10,
            payload_end: 17,
        };
        let origin = Arc::new(Origin {
            clientid: "c".into(),
            username: Some("u".into()),
        });
        let head = Head {
            origin: Some(origin),
            expires_wall_ms: Some(9),
            dup: true,
            ..Head::default()
        };
        let message = Message::in_place(body.clone(), layout, head.clone(), 4096);
        assert_eq!(
            (message.topic(), message.payload()),
            ("a/b", &b"payload"[..])
        );
        let kept = message.clone().compact();
        same(&message, &kept);
        assert_ne!(message.payload().as_ptr(), kept.payload().as_ptr());
        assert_eq!(kept.username(), Some("u"));
        let again = kept.clone().compact();
        assert_eq!(again.payload().as_ptr(), kept.payload().as_ptr());
        let fitting = Message::in_place(body, layout, head, 20);
        let place = fitting.payload().as_ptr();
        assert_eq!(fitting.compact().payload().as_ptr(), place);
    }

    #[test]
    fn another_topic_survives_compaction() {
        let topic = Arc::new(Box::from("mount/a/b"));
        let layout = Layout {
            topic_bytes: 0,
            properties_at: 0,
            payload_at: 0,
            payload_end: 1,
        };
        let message = Message::in_place(Bytes::from_static(b"x"), layout, Head::default(), 1 << 16)
            .with_topic(topic);
        assert_eq!(message.topic(), "mount/a/b");
        let kept = message.compact();
        assert_eq!((kept.topic(), kept.payload()), ("mount/a/b", &b"x"[..]));
    }

    #[test]
    fn places_outside_the_body_are_cut() {
        let layout = Layout {
            topic_bytes: 9,
            properties_at: 50,
            payload_at: 7,
            payload_end: 99,
        };
        let message = Message::in_place(Bytes::from_static(b"abc"), layout, Head::default(), 3);
        assert_eq!((message.topic(), message.payload()), ("abc", &b""[..]));
    }

    #[test]
    fn expiry_counts_down_in_whole_seconds() {
        let head = Head {
            expires_wall_ms: Some(10_500),
            ..Head::default()
        };
        let message = Message::new(Parts::default(), head);
        assert_eq!(message.expiry_left_s(10_000), Some(1));
        assert_eq!(message.expiry_left_s(9_000), Some(2));
        assert!(!message.is_expired(10_499) && message.is_expired(10_500));
        assert_eq!(sample().expiry_left_s(0), None);
        assert!(!sample().is_expired(u64::MAX));
    }
}
