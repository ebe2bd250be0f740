//! PUBLISH (§3.3), the hot path: decoding keeps one slice of the receive buffer and a few
//! offsets, encoding writes straight into the output buffer. Neither allocates.

use std::num::NonZeroU16;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::PacketType;
use crate::error::DecodeError;
use crate::property::{Properties, PropertyId, PublishProperties, check_publish};
use crate::topic::{TopicError, check_name};
use crate::version::{QoS, Version};
use crate::wire::{self, Reader};

const RETAIN: u8 = 0x01;
const QOS_SHIFT: u8 = 1;
const DUP: u8 = 0x08;

/// A message on its way.
///
/// Topic, properties and payload lie in one [`Bytes`], the frame; cloning the packet or keeping
/// parts of it costs one reference count.
#[derive(Clone)]
pub struct Publish {
    frame: Bytes,
    properties_at: u32,
    payload_at: u32,
    topic_len: u16,
    topic_at: u8,
    /// How often it may arrive.
    pub qos: QoS,
    /// Whether it is, or is to be, retained.
    pub retain: bool,
    /// Whether it may have been sent before.
    pub dup: bool,
    /// The packet identifier, above `QoS` 0.
    pub packet_id: Option<NonZeroU16>,
}

impl Publish {
    /// A message of our own, without packet identifier and properties. The topic is not checked:
    /// that is for whoever decodes the packet, or for [`crate::TopicName`] before.
    pub fn new(topic: &str, payload: &[u8], qos: QoS, retain: bool) -> Self {
        Self::build((topic, &[], payload), qos, retain)
    }

    fn build((topic, raw, payload): (&str, &[u8], &[u8]), qos: QoS, retain: bool) -> Self {
        let topic = wire::fit_str(topic);
        let mut frame = BytesMut::with_capacity(topic.len() + raw.len() + payload.len());
        frame.put_slice(topic);
        frame.put_slice(raw);
        frame.put_slice(payload);
        Self {
            frame: frame.freeze(),
            properties_at: topic.len() as u32,
            payload_at: (topic.len() + raw.len()) as u32,
            topic_len: topic.len() as u16,
            topic_at: 0,
            qos,
            retain,
            dup: false,
            packet_id: None,
        }
    }

    /// The same message with these properties instead of its own; copies it.
    #[must_use]
    pub fn with_properties(self, properties: &Properties) -> Self {
        let mut raw = BytesMut::new();
        properties.put_all(&mut raw);
        let parts = (self.topic(), &raw[..], self.payload());
        let mut built = Self::build(parts, self.qos, self.retain);
        built.dup = self.dup;
        built.packet_id = self.packet_id;
        built
    }

    /// The same message with this packet identifier.
    #[must_use]
    pub fn with_packet_id(mut self, packet_id: NonZeroU16) -> Self {
        self.packet_id = Some(packet_id);
        self
    }

    /// The same message, marked as possibly sent before.
    #[must_use]
    pub fn with_dup(mut self) -> Self {
        self.dup = true;
        self
    }

    /// The topic name; empty only in MQTT 5, when a topic alias stands for it.
    #[inline]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.frame[self.topic_range()]).expect("it was checked when decoded")
    }

    /// The application's bytes.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.frame[self.payload_at as usize..]
    }

    /// The properties, read where they lie.
    #[inline]
    pub fn properties(&self) -> PublishProperties<'_> {
        PublishProperties::new(self.raw_properties())
    }

    /// The encoded property block without its length; empty before MQTT 5.
    #[inline]
    pub fn raw_properties(&self) -> &[u8] {
        &self.frame[self.properties_range()]
    }

    /// The buffer that holds topic, properties and payload. What lies between them is not to be
    /// relied on: a decoded packet has its fixed header there, one of our own has not.
    #[inline]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// [`Publish::frame`] itself, for whoever keeps the message and not the packet.
    #[inline]
    pub fn into_frame(self) -> Bytes {
        self.frame
    }

    /// Where the topic lies in the frame.
    #[inline]
    pub fn topic_range(&self) -> Range<usize> {
        let at = usize::from(self.topic_at);
        at..at + usize::from(self.topic_len)
    }

    /// Where the property block lies in the frame, without its length.
    #[inline]
    pub fn properties_range(&self) -> Range<usize> {
        self.properties_at as usize..self.payload_at as usize
    }

    /// Where the payload lies in the frame.
    #[inline]
    pub fn payload_range(&self) -> Range<usize> {
        self.payload_at as usize..self.frame.len()
    }

    /// Appends the packet, all its properties included.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let outgoing = Outgoing {
            topic: &self.frame[self.topic_range()],
            payload: self.payload(),
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
            packet_id: self.packet_id,
            topic_alias: None,
            subscription_ids: &[],
            message_expiry_interval: None,
            forwarded: self.raw_properties(),
        };
        encode_publish(version, &outgoing, out);
    }

    /// Takes a whole PUBLISH of `total` bytes off the front of `buf`.
    #[inline]
    pub(crate) fn decode(
        buf: &mut BytesMut,
        (header_len, total): (usize, usize),
        version: Version,
        strict: bool,
    ) -> Result<Self, DecodeError> {
        let first = buf[0];
        let (qos, dup) = read_flags(first, strict)?;
        let mut reader = Reader::new(&buf[header_len..total], strict);
        let topic = reader.binary()?;
        let topic_len = topic.len() as u16;
        let packet_id = if qos == QoS::AtMostOnce {
            None
        } else {
            Some(reader.packet_id()?)
        };
        let mut alias = false;
        let mut properties_len = 0;
        if version.is_v5() {
            properties_len = reader.varint()? as usize;
            if properties_len > 0 {
                alias = check_publish(reader.take(properties_len)?, strict)?;
            }
        }
        check_topic(topic, alias)?;
        let payload_at = total - reader.len();
        Ok(Self {
            frame: buf.split_to(total).freeze(),
            properties_at: (payload_at - properties_len) as u32,
            payload_at: payload_at as u32,
            topic_len,
            topic_at: header_len as u8 + 2,
            qos,
            retain: first & RETAIN != 0,
            dup,
            packet_id,
        })
    }
}

impl std::fmt::Debug for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("dup", &self.dup)
            .field("packet_id", &self.packet_id)
            .field("properties", &self.raw_properties())
            .finish_non_exhaustive()
    }
}

/// Equal as messages, however the buffers are laid out.
impl PartialEq for Publish {
    fn eq(&self, other: &Self) -> bool {
        self.topic() == other.topic()
            && self.payload() == other.payload()
            && self.raw_properties() == other.raw_properties()
            && (self.qos, self.retain, self.dup, self.packet_id)
                == (other.qos, other.retain, other.dup, other.packet_id)
    }
}

impl Eq for Publish {}

/// Checks the flags of a PUBLISH, for which its first byte is enough: `QoS` and DUP.
#[inline]
pub(crate) fn read_flags(first: u8, strict: bool) -> Result<(QoS, bool), DecodeError> {
    let qos = QoS::from_u8(first >> QOS_SHIFT & 3).ok_or(DecodeError::Qos3)?;
    let dup = first & DUP != 0;
    if strict && dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::DupOnQos0);
    }
    Ok((qos, dup))
}

/// Checks the topic of a PUBLISH. One pass over the bytes without branches settles the usual
/// case, ASCII without wildcards; everything else is looked at again.
#[inline]
fn check_topic(topic: &[u8], alias: bool) -> Result<(), DecodeError> {
    let mut special = false;
    let mut high = 0;
    for byte in topic {
        special |= matches!(byte, b'+' | b'#' | 0);
        high |= byte;
    }
    if !special && high < 0x80 && !topic.is_empty() {
        return Ok(());
    }
    check_odd_topic(topic, alias)
}

#[cold]
fn check_odd_topic(topic: &[u8], alias: bool) -> Result<(), DecodeError> {
    let topic = wire::check_str(topic, false)?;
    match check_name(topic) {
        Err(TopicError::Empty) if alias => Ok(()),
        Err(TopicError::Empty) => Err(DecodeError::NoTopic),
        Err(TopicError::Nul) => Err(DecodeError::NulCharacter),
        Err(error) => Err(DecodeError::Topic(error)),
        Ok(()) => Ok(()),
    }
}

/// A PUBLISH to be written: everything borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The topic name, which is UTF-8 text; empty when the receiver knows the alias. Bytes, because
    /// who forwards a message has checked them already.
    pub topic: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
    /// How often it may arrive.
    pub qos: QoS,
    /// Whether it comes from the retained messages.
    pub retain: bool,
    /// Whether it may have been sent before.
    pub dup: bool,
    /// The packet identifier, above `QoS` 0.
    pub packet_id: Option<NonZeroU16>,
    /// The number that stands for the topic, 1..=65,535. MQTT 5 only, as all below.
    pub topic_alias: Option<u16>,
    /// The identifiers of the subscriptions that matched, 1..=268,435,455.
    pub subscription_ids: &'a [u32],
    /// How long the message stays wanted from now on, in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Encoded properties that go out unchanged: payload format, response topic, correlation
    /// data, content type, user properties; see [`PublishProperties::forwardable`].
    pub forwarded: &'a [u8],
}

impl Outgoing<'_> {
    fn properties_len(&self) -> usize {
        let mut len = self.forwarded.len();
        len += if self.topic_alias.is_some() { 3 } else { 0 };
        len += if self.message_expiry_interval.is_some() {
            5
        } else {
            0
        };
        for id in self.subscription_ids {
            len += 1 + wire::varint_len(*id);
        }
        len
    }

    fn put_properties(&self, out: &mut BytesMut) {
        if let Some(alias) = self.topic_alias {
            out.put_u8(PropertyId::TopicAlias.as_u8());
            out.put_u16(alias);
        }
        if let Some(seconds) = self.message_expiry_interval {
            out.put_u8(PropertyId::MessageExpiryInterval.as_u8());
            out.put_u32(seconds);
        }
        for id in self.subscription_ids {
            out.put_u8(PropertyId::SubscriptionIdentifier.as_u8());
            wire::put_varint(out, *id);
        }
        out.put_slice(self.forwarded);
    }

    fn first_byte(&self) -> u8 {
        (PacketType::Publish as u8) << 4
            | (self.dup as u8) << 3
            | self.qos.as_u8() << QOS_SHIFT
            | self.retain as u8
    }
}

/// The lengths of a PUBLISH, worked out once.
struct Lengths {
    properties: usize,
    /// Everything behind the fixed header.
    remaining: usize,
}

#[inline]
fn lengths(version: Version, p: &Outgoing<'_>) -> Lengths {
    let topic = wire::fit(p.topic).len();
    let id = if p.qos == QoS::AtMostOnce { 0 } else { 2 };
    let mut remaining = 2 + topic + id + p.payload.len();
    let mut properties = 0;
    if version.is_v5() {
        properties = p.properties_len();
        remaining += wire::varint_len(properties as u32) + properties;
    }
    Lengths {
        properties,
        remaining,
    }
}

/// How many bytes [`encode_publish`] appends: what a client's maximum packet size is held against.
#[inline]
pub fn publish_len(version: Version, p: &Outgoing<'_>) -> usize {
    let remaining = lengths(version, p).remaining;
    1 + wire::varint_len(remaining as u32) + remaining
}

/// Appends a PUBLISH.
///
/// Above `QoS` 0 it must have a packet identifier; without one it would go out with 0, which the
/// receiver refuses.
#[inline]
pub fn encode_publish(version: Version, p: &Outgoing<'_>, out: &mut BytesMut) {
    let lengths = lengths(version, p);
    out.reserve(5 + lengths.remaining);
    put_head(version, p, &lengths, out);
    out.put_slice(p.payload);
}

/// Appends everything of a PUBLISH but its payload, for writers that send the payload from where
/// it lies.
#[inline]
pub fn encode_publish_head(version: Version, p: &Outgoing<'_>, out: &mut BytesMut) {
    let lengths = lengths(version, p);
    out.reserve(5 + lengths.remaining - p.payload.len());
    put_head(version, p, &lengths, out);
}

#[inline]
fn put_head(version: Version, p: &Outgoing<'_>, lengths: &Lengths, out: &mut BytesMut) {
    let topic = wire::fit(p.topic);
    // One write for the fixed header and the topic's length: fewer capacity checks.
    let (varint, count) = wire::varint_bytes(lengths.remaining as u32);
    let mut head = [0; 7];
    head[0] = p.first_byte();
    head[1..5].copy_from_slice(&varint);
    head[1 + count..3 + count].copy_from_slice(&(topic.len() as u16).to_be_bytes());
    out.put_slice(&head[..3 + count]);
    out.put_slice(topic);
    if p.qos != QoS::AtMostOnce {
        debug_assert!(
            p.packet_id.is_some(),
            "a PUBLISH above QoS 0 without packet identifier"
        );
        out.put_u16(p.packet_id.map_or(0, NonZeroU16::get));
    }
    if version.is_v5() {
        wire::put_varint(out, lengths.properties as u32);
        if lengths.properties > 0 {
            p.put_properties(out);
        }
    }
}
