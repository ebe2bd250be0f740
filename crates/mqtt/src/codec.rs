//! Framing: where a packet begins and ends, and that nothing bad waits for its end.
//!
//! A packet whose first bytes are already wrong, or say that it is too large, is refused before
//! the rest has arrived. Decoding must never panic, whatever the bytes.

use bytes::{Buf, BytesMut};

use crate::error::DecodeError;
use crate::packet::ack::{Ack, AckKind};
use crate::packet::auth::Auth;
use crate::packet::connect::{self, Connack, Connect};
use crate::packet::disconnect::Disconnect;
use crate::packet::publish::{self, Publish};
use crate::packet::subscribe::{Suback, Subscribe, Unsuback, Unsubscribe};
use crate::packet::{Packet, PacketType};
use crate::version::Version;
use crate::wire::{self, Reader};

/// The largest packet taken by default, in bytes, fixed header included (EMQX's default).
pub const MAX_PACKET_SIZE_BYTES: u32 = 1_048_576;

/// What a decoder lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest packet, in bytes, fixed header included.
    pub max_packet_size: u32,
    /// Whether every rule is kept. Without, these pass: reserved flags and bits, DUP on `QoS` 0,
    /// U+0000 in strings that are not topic names, a response topic that is not a topic name, and
    /// before MQTT 5 a password without user name.
    pub strict: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet_size: MAX_PACKET_SIZE_BYTES,
            strict: true,
        }
    }
}

/// The fixed header.
struct Header {
    packet: PacketType,
    /// Its own length in bytes, 2..=5.
    len: usize,
    /// Length of the whole packet in bytes.
    total: usize,
}

/// Takes one packet off the front of `buf`.
///
/// `Ok(None)` means that the packet has not arrived completely; `buf` is untouched then, and also
/// when the answer is an error. Otherwise exactly the packet's bytes are taken off. CONNECT says
/// itself which version it is of; for all others `version` does.
#[inline]
pub fn decode(
    buf: &mut BytesMut,
    version: Version,
    limits: &Limits,
) -> Result<Option<Packet>, DecodeError> {
    let Some(header) = read_header(buf, version, *limits)? else {
        return Ok(None);
    };
    if buf.len() < header.total {
        return Ok(None);
    }
    if header.packet == PacketType::Publish {
        let at = (header.len, header.total);
        return Publish::decode(buf, at, version, limits.strict).map(|p| Some(Packet::Publish(p)));
    }
    let reader = Reader::new(&buf[header.len..header.total], limits.strict);
    // As many acknowledgements come as messages: they do not go through the long match.
    let packet = match AckKind::of(header.packet) {
        Some(kind) => Packet::Ack(Ack::decode(kind, version, reader)?),
        None => read_body(header.packet, version, reader)?,
    };
    buf.advance(header.total);
    Ok(Some(packet))
}

/// The version of a CONNECT at the front of `buf`, as soon as its first bytes are there. It lets
/// a CONNECT that is refused by [`decode`] be answered in the words of its version.
pub fn connect_version(buf: &[u8]) -> Option<Version> {
    if buf.first()? >> 4 != PacketType::Connect as u8 {
        return None;
    }
    let (_, len) = wire::read_varint(&buf[1..]).ok()??;
    let mut reader = Reader::new(&buf[1 + len..], false);
    connect::read_version(&mut reader)
        .ok()
        .map(|(version, _)| version)
}

#[inline]
fn read_header(
    buf: &[u8],
    version: Version,
    limits: Limits,
) -> Result<Option<Header>, DecodeError> {
    let Some((first, rest)) = buf.split_first() else {
        return Ok(None);
    };
    let packet = check_first(*first, version, limits.strict)?;
    let Some((remaining, count)) = wire::read_varint(rest)? else {
        return Ok(None);
    };
    let len = 1 + count;
    let size = remaining + len as u32;
    if size > limits.max_packet_size {
        return Err(DecodeError::TooLarge {
            size,
            limit: limits.max_packet_size,
        });
    }
    let least = least_remaining(packet, version);
    if remaining < least {
        return Err(DecodeError::Truncated);
    }
    // A packet that is always of one length need not be waited for when it is of another.
    if remaining > least && has_one_length(packet, version) {
        return Err(DecodeError::TrailingBytes {
            count: (remaining - least) as usize,
        });
    }
    Ok(Some(Header {
        packet,
        len,
        total: size as usize,
    }))
}

#[inline]
fn check_first(first: u8, version: Version, strict: bool) -> Result<PacketType, DecodeError> {
    let packet =
        PacketType::from_u8(first >> 4).ok_or(DecodeError::UnknownPacketType(first >> 4))?;
    if packet == PacketType::Publish {
        publish::read_flags(first, strict)?;
        return Ok(packet);
    }
    if packet == PacketType::Auth && !version.is_v5() {
        return Err(DecodeError::UnknownPacketType(packet as u8));
    }
    let flags = first & 0x0F;
    if strict && !packet.allows_flags(flags, version) {
        return Err(DecodeError::FixedHeaderFlags { packet, flags });
    }
    Ok(packet)
}

/// The least number of bytes behind the fixed header.
#[inline]
fn least_remaining(packet: PacketType, version: Version) -> u32 {
    match packet {
        // Protocol name, level, flags, keep alive and client identifier of the shortest kind.
        PacketType::Connect => 12,
        PacketType::Connack if version.is_v5() => 3,
        PacketType::Connack
        | PacketType::Publish
        | PacketType::Puback
        | PacketType::Pubrec
        | PacketType::Pubrel
        | PacketType::Pubcomp
        | PacketType::Subscribe
        | PacketType::Suback
        | PacketType::Unsubscribe
        | PacketType::Unsuback => 2,
        PacketType::Pingreq | PacketType::Pingresp | PacketType::Disconnect | PacketType::Auth => 0,
    }
}

#[inline]
fn has_one_length(packet: PacketType, version: Version) -> bool {
    match packet {
        PacketType::Pingreq | PacketType::Pingresp => true,
        PacketType::Connack
        | PacketType::Puback
        | PacketType::Pubrec
        | PacketType::Pubrel
        | PacketType::Pubcomp
        | PacketType::Unsuback
        | PacketType::Disconnect => !version.is_v5(),
        _ => false,
    }
}

fn read_body(
    packet: PacketType,
    version: Version,
    reader: Reader<'_>,
) -> Result<Packet, DecodeError> {
    match packet {
        PacketType::Connect => Connect::decode(reader).map(|p| Packet::Connect(Box::new(p))),
        PacketType::Connack => Connack::decode(version, reader).map(Packet::Connack),
        PacketType::Publish
        | PacketType::Puback
        | PacketType::Pubrec
        | PacketType::Pubrel
        | PacketType::Pubcomp => unreachable!("decode takes them off itself"),
        PacketType::Subscribe => Subscribe::decode(version, reader).map(Packet::Subscribe),
        PacketType::Suback => Suback::decode(version, reader).map(Packet::Suback),
        PacketType::Unsubscribe => Unsubscribe::decode(version, reader).map(Packet::Unsubscribe),
        PacketType::Unsuback => Unsuback::decode(version, reader).map(Packet::Unsuback),
        PacketType::Pingreq => reader.end().map(|()| Packet::Pingreq),
        PacketType::Pingresp => reader.end().map(|()| Packet::Pingresp),
        PacketType::Disconnect => Disconnect::decode(version, reader).map(Packet::Disconnect),
        PacketType::Auth => Auth::decode(reader).map(Packet::Auth),
    }
}
