//! PUBACK, PUBREC, PUBREL and PUBCOMP: one family, because only their number and the reason codes
//! they may carry differ (§3.4 to §3.7).

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};

use super::PacketType;
use crate::error::DecodeError;
use crate::property::{Place, Properties};
use crate::reason::Reason;
use crate::version::Version;
use crate::wire::{self, Reader};

/// Which of the four acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AckKind {
    /// Answer to a `QoS` 1 message.
    Puback,
    /// `QoS` 2, first answer.
    Pubrec,
    /// `QoS` 2, release.
    Pubrel,
    /// `QoS` 2, end.
    Pubcomp,
}

impl AckKind {
    /// All four, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Puback, Self::Pubrec, Self::Pubrel, Self::Pubcomp];

    /// Which of the four a packet type is, if it is one.
    #[inline]
    pub const fn of(packet: PacketType) -> Option<Self> {
        match packet {
            PacketType::Puback => Some(Self::Puback),
            PacketType::Pubrec => Some(Self::Pubrec),
            PacketType::Pubrel => Some(Self::Pubrel),
            PacketType::Pubcomp => Some(Self::Pubcomp),
            _ => None,
        }
    }

    /// The packet type.
    pub const fn packet_type(self) -> PacketType {
        match self {
            Self::Puback => PacketType::Puback,
            Self::Pubrec => PacketType::Pubrec,
            Self::Pubrel => PacketType::Pubrel,
            Self::Pubcomp => PacketType::Pubcomp,
        }
    }
}

/// An acknowledgement of a message, or of an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Which of the four.
    pub kind: AckKind,
    /// The packet identifier of the message.
    pub packet_id: NonZeroU16,
    /// How it went; before MQTT 5 always success.
    pub reason: Reason,
    /// Reason string and user properties.
    pub properties: Properties,
}

impl Ack {
    /// An acknowledgement without properties; allocates nothing.
    pub const fn new(kind: AckKind, packet_id: NonZeroU16, reason: Reason) -> Self {
        Self {
            kind,
            packet_id,
            reason,
            properties: Properties::new(),
        }
    }

    /// Appends the packet in the shortest form `version` has for it.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let packet = self.kind.packet_type();
        let long = version.is_v5() && !self.properties.is_empty();
        let reasoned = version.is_v5() && self.reason != Reason::Success;
        if !long && !reasoned {
            let id = self.packet_id.get().to_be_bytes();
            out.put_slice(&[packet.first_byte(), 2, id[0], id[1]]);
            return;
        }
        wire::put_packet(out, packet.first_byte(), |out| {
            out.put_u16(self.packet_id.get());
            out.put_u8(self.reason.as_u8());
            if long {
                self.properties.encode(Place::of(packet), out);
            }
        });
    }

    #[inline]
    pub(crate) fn decode(
        kind: AckKind,
        version: Version,
        mut reader: Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let packet = kind.packet_type();
        let mut ack = Self::new(kind, reader.packet_id()?, Reason::Success);
        if version.is_v5() && !reader.is_empty() {
            ack.reason = read_reason(&mut reader, packet)?;
            if !reader.is_empty() {
                ack.properties = Properties::decode(&mut reader, Place::of(packet))?;
            }
        }
        reader.end()?;
        Ok(ack)
    }
}

/// Reads a reason code this packet may carry.
pub(crate) fn read_reason(
    reader: &mut Reader<'_>,
    packet: PacketType,
) -> Result<Reason, DecodeError> {
    let code = reader.u8()?;
    Reason::from_u8(code)
        .filter(|reason| reason.allowed_in(packet))
        .ok_or(DecodeError::ReasonCode { packet, code })
}
