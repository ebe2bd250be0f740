//! Packets as bytes: encoded once before a run, patched and copied while it runs.
//!
//! What goes out is a [`Template`]; what comes in is split into [`Frame`]s and looked at only as
//! far as a scenario needs. A general decoder here would be measured as if it were the broker's.

use std::num::NonZeroU16;

use bytes::BytesMut;
use dunlin_mqtt::{Outgoing, QoS, Version, encode_publish};

/// Packet types with the flags that MQTT fixes for them.
pub(crate) const CONNECT: u8 = 0x10;
pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const SUBSCRIBE: u8 = 0x82;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const UNSUBSCRIBE: u8 = 0xA2;
pub(crate) const UNSUBACK: u8 = 0xB0;
pub(crate) const PINGREQ: u8 = 0xC0;
pub(crate) const PINGRESP: u8 = 0xD0;
pub(crate) const DISCONNECT: u8 = 0xE0;

/// The least payload: every message carries a [`Stamp`].
pub(crate) const STAMP_BYTES: usize = 20;

/// The head of every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) publisher: u32,
    /// Counts from 0 for each publisher.
    pub(crate) sequence: u64,
    /// When the message had to be sent, nanoseconds since the run began.
    pub(crate) due_ns: u64,
}

impl Stamp {
    fn write(self, to: &mut [u8]) {
        to[..4].copy_from_slice(&self.publisher.to_be_bytes());
        to[4..12].copy_from_slice(&self.sequence.to_be_bytes());
        to[12..STAMP_BYTES].copy_from_slice(&self.due_ns.to_be_bytes());
    }

    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (publisher, rest) = payload.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        Some(Self {
            publisher: u32::from_be_bytes(*publisher),
            sequence: u64::from_be_bytes(*sequence),
            due_ns: u64::from_be_bytes(*rest.first_chunk()?),
        })
    }
}

/// A PUBLISH in bytes; packet id and stamp are filled in per message.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    packet_id_at: Option<usize>,
    stamp_at: usize,
}

impl Template {
    /// A payload shorter than a stamp is lengthened to one.
    pub(crate) fn new(
        version: Version,
        (topic, retain): (&str, bool),
        qos: QoS,
        payload_bytes: usize,
    ) -> Self {
        let payload = vec![b'x'; payload_bytes.max(STAMP_BYTES)];
        let packet_id = (qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN);
        let outgoing = Outgoing {
            topic: topic.as_bytes(),
            payload: &payload,
            qos,
            retain,
            dup: false,
            packet_id,
            topic_alias: None,
            subscription_ids: &[],
            message_expiry_interval: None,
            forwarded: &[],
        };
        let mut bytes = BytesMut::new();
        encode_publish(version, &outgoing, &mut bytes);
        let stamp_at = bytes.len() - payload.len();
        // Between packet id and payload MQTT 5 has the length of its properties: none.
        let id_end = stamp_at - usize::from(version == Version::V5);
        Self {
            packet_id_at: packet_id.map(|_| id_end - 2),
            stamp_at,
            bytes: bytes.to_vec(),
        }
    }

    /// The packet id of a publisher's message.
    pub(crate) fn packet_id(sequence: u64) -> u16 {
        (sequence % 65_535 + 1) as u16
    }

    /// Appends one message. The packet id follows from the sequence number: ids meet again only
    /// after 65,535 messages, far more than any scenario has under way.
    pub(crate) fn append(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let packet = &mut out[start..];
        if let Some(at) = self.packet_id_at {
            let id = Self::packet_id(stamp.sequence);
            packet[at..at + 2].copy_from_slice(&id.to_be_bytes());
        }
        stamp.write(&mut packet[self.stamp_at..]);
    }
}

/// Filters per SUBSCRIBE packet: enough that the packet's own cost does not count.
pub(crate) const SUBSCRIBE_FILTERS: usize = 100;

/// Codes of a SUBACK above are refusals.
pub(crate) const GRANTED_MAX: u8 = 2;

/// Appends a SUBSCRIBE.
pub(crate) fn subscribe(
    (packet_id, version): (u16, Version),
    filters: &[String],
    qos: QoS,
    out: &mut Vec<u8>,
) {
    let is_v5 = version == Version::V5;
    let len = 2 + usize::from(is_v5) + filters.iter().map(|filter| filter.len() + 3).sum::<usize>();
    out.push(SUBSCRIBE);
    put_remaining_len(len, out);
    out.extend_from_slice(&packet_id.to_be_bytes());
    if is_v5 {
        out.push(NO_PROPERTIES);
    }
    for filter in filters {
        out.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        out.extend_from_slice(filter.as_bytes());
        out.push(qos.as_u8());
    }
}

/// The length of properties that are not there.
pub(crate) const NO_PROPERTIES: u8 = 0;

/// What follows the properties, which MQTT 5 has and earlier versions have not.
pub(crate) fn behind_properties(bytes: &[u8], version: Version) -> Result<&[u8], Malformed> {
    if version != Version::V5 {
        return Ok(bytes);
    }
    if let [NO_PROPERTIES, rest @ ..] = bytes {
        return Ok(rest);
    }
    let (start, len) = variable_length(bytes)?.ok_or(Malformed)?;
    bytes.get(start + len..).ok_or(Malformed)
}

/// The codes in the body of a SUBACK.
pub(crate) fn codes(body: &[u8], version: Version) -> Result<&[u8], Malformed> {
    behind_properties(body.get(2..).ok_or(Malformed)?, version)
}

/// Appends a remaining length.
pub(crate) fn put_remaining_len(mut len: usize, out: &mut Vec<u8>) {
    loop {
        let byte = (len & 0x7F) as u8;
        len >>= 7;
        if len == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

/// A retained message's end: the same topic with no payload.
pub(crate) fn clear_retained(version: Version, topic: &str, out: &mut Vec<u8>) {
    let mut bytes = BytesMut::new();
    dunlin_mqtt::Publish::new(topic, b"", QoS::AtMostOnce, true).encode(version, &mut bytes);
    out.extend_from_slice(&bytes);
}

/// Where a packet's fixed header ends and how many bytes follow it; `None` until it is whole.
#[inline]
pub(crate) fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some((_, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    Ok(variable_length(rest)?.map(|(end, len)| (1 + end, len)))
}

/// Where a length of up to four bytes ends, and the length; `None` until it is whole.
#[inline]
fn variable_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut len = 0_usize;
    for index in 0..4 {
        let Some(&byte) = bytes.get(index) else {
            return Ok(None);
        };
        len |= ((byte & 0x7F) as usize) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((1 + index, len)));
        }
    }
    Err(Malformed)
}

/// One packet of a byte stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// All of it.
    pub(crate) bytes: &'a [u8],
    /// Where the fixed header ends.
    pub(crate) body_at: usize,
}

/// The peer sent what cannot be MQTT.
#[derive(Debug, thiserror::Error)]
#[error("a packet with a remaining length of more than four bytes, or too short for its type")]
pub(crate) struct Malformed;

impl<'a> Frame<'a> {
    /// The first packet of `bytes`; `None` until it is whole.
    pub(crate) fn first(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some((body_at, len)) = header(bytes)? else {
            return Ok(None);
        };
        let whole = bytes.get(..body_at + len);
        Ok(whole.map(|bytes| Self { bytes, body_at }))
    }

    /// Packet type and flags.
    pub(crate) fn kind(&self) -> u8 {
        self.bytes[0]
    }

    pub(crate) fn body(&self) -> &'a [u8] {
        &self.bytes[self.body_at..]
    }

    pub(crate) fn is_publish(&self) -> bool {
        self.bytes[0] >> 4 == 3
    }

    /// The id of an acknowledgement or a SUBSCRIBE, which stands first in the body.
    pub(crate) fn packet_id(&self) -> Result<u16, Malformed> {
        let id = self.body().first_chunk().ok_or(Malformed)?;
        Ok(u16::from_be_bytes(*id))
    }

    /// The reason of an acknowledgement that is a refusal; MQTT 5.
    pub(crate) fn refusal(&self) -> Option<u8> {
        let reason = self.body().get(2).copied();
        reason.filter(|reason| *reason >= 0x80)
    }

    /// The parts of a PUBLISH.
    pub(crate) fn publish(&self, version: Version) -> Result<PublishView<'a>, Malformed> {
        let body = self.body();
        let (len, rest) = body.split_first_chunk().ok_or(Malformed)?;
        let len = u16::from_be_bytes(*len) as usize;
        let (topic, rest) = rest.split_at_checked(len).ok_or(Malformed)?;
        let qos = (self.bytes[0] >> 1) & 3;
        if qos == 0 {
            return Ok(PublishView {
                topic,
                packet_id: None,
                payload: behind_properties(rest, version)?,
            });
        }
        let (id, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let packet_id = Some(u16::from_be_bytes(*id));
        let payload = behind_properties(rest, version)?;
        Ok(PublishView {
            topic,
            packet_id,
            payload,
        })
    }
}

/// A PUBLISH, its parts in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublishView<'a> {
    pub(crate) topic: &'a [u8],
    /// Above `QoS` 0.
    pub(crate) packet_id: Option<u16>,
    pub(crate) payload: &'a [u8],
}

/// Appends a packet that is nothing but a packet id.
pub(crate) fn acknowledge(kind: u8, packet_id: u16, out: &mut Vec<u8>) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[kind, 2, high, low]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, qos: QoS, payload_bytes: usize) {
        let template = Template::new(version, ("a/b", false), qos, payload_bytes);
        let stamp = Stamp {
            publisher: 7,
            sequence: 65_536,
            due_ns: 12_345_678_901,
        };
        let mut out = vec![0xFF];
        template.append(stamp, &mut out);
        let frame = Frame::first(&out[1..])
            .expect("well formed")
            .expect("whole");
        assert_eq!(frame.bytes.len(), template.bytes.len());
        assert!(frame.is_publish());
        let publish = frame.publish(version).expect("a PUBLISH");
        assert_eq!(publish.topic, b"a/b");
        assert_eq!(publish.payload.len(), payload_bytes.max(STAMP_BYTES));
        assert_eq!(Stamp::read(publish.payload), Some(stamp));
        let expected = (qos != QoS::AtMostOnce).then_some(2);
        assert_eq!(publish.packet_id, expected);
    }

    #[test]
    fn a_template_becomes_the_packet_it_stands_for() {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for payload_bytes in [0, 64, 16_384, 300_000] {
                check(Version::V3_1_1, qos, payload_bytes);
                check(Version::V5, qos, payload_bytes);
            }
        }
    }

    #[test]
    fn the_codec_reads_what_a_template_writes() {
        for version in [Version::V3_1_1, Version::V5] {
            the_codec_reads_a_template(version);
        }
    }

    fn the_codec_reads_a_template(version: Version) {
        let template = Template::new(version, ("a/b", true), QoS::AtLeastOnce, 64);
        let mut out = Vec::new();
        let stamp = Stamp {
            publisher: 0,
            sequence: 4,
            due_ns: 0,
        };
        template.append(stamp, &mut out);
        let mut bytes = BytesMut::from(out.as_slice());
        let limits = dunlin_mqtt::Limits::default();
        let packet = dunlin_mqtt::decode(&mut bytes, version, &limits);
        let Ok(Some(dunlin_mqtt::Packet::Publish(publish))) = packet else {
            panic!("a whole valid PUBLISH, not {packet:?}");
        };
        assert_eq!(publish.topic(), "a/b");
        assert!(publish.retain);
    }

    #[test]
    fn the_codec_reads_a_subscribe() {
        for version in [Version::V3_1_1, Version::V5] {
            the_codec_reads_a_subscribe_of(version);
        }
    }

    fn the_codec_reads_a_subscribe_of(version: Version) {
        let filters: Vec<String> = (0..200).map(|index| format!("a/+/{index}")).collect();
        let mut out = Vec::new();
        subscribe((9, version), &filters, QoS::AtLeastOnce, &mut out);
        let mut bytes = BytesMut::from(out.as_slice());
        let limits = dunlin_mqtt::Limits::default();
        let packet = dunlin_mqtt::decode(&mut bytes, version, &limits);
        let Ok(Some(dunlin_mqtt::Packet::Subscribe(subscribe))) = packet else {
            panic!("a whole valid SUBSCRIBE, not {packet:?}");
        };
        assert_eq!(subscribe.packet_id.get(), 9);
        assert_eq!(subscribe.filters.len(), 200);
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_frame_is_whole_or_not_there() {
        let mut out = Vec::new();
        acknowledge(PUBACK, 258, &mut out);
        for len in 0..out.len() {
            assert!(Frame::first(&out[..len]).expect("well formed").is_none());
        }
        let frame = Frame::first(&out).expect("well formed").expect("whole");
        assert_eq!(
            (frame.kind(), frame.packet_id().expect("an id")),
            (PUBACK, 258)
        );
        Frame::first(&[0x30, 0x80, 0x80, 0x80, 0x80]).expect_err("five bytes of length");
    }

    #[test]
    fn properties_are_passed_over() {
        let body = [0, 9, 3, 0x1F, 0, 0, 2, 0x80];
        assert_eq!(codes(&body, Version::V5).expect("codes"), [2, 0x80]);
        codes(&body[..4], Version::V5).expect_err("properties that are cut off");
        let frame = Frame::first(&[PUBACK, 3, 0, 1, 0x97])
            .expect("framed")
            .expect("whole");
        assert_eq!(frame.refusal(), Some(0x97));
    }

    #[test]
    fn a_short_publish_is_refused() {
        let frame = Frame::first(&[0x32, 3, 0, 5, b'a'])
            .expect("framed")
            .expect("whole");
        frame
            .publish(Version::V3_1_1)
            .expect_err("a topic longer than its packet");
    }
}
