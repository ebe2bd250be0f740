//! The control packets, one file per family. Each knows how its body is written and read in every
//! version; framing is in `codec`, data types are in `wire`.

pub(crate) mod ack;
pub(crate) mod auth;
pub(crate) mod connect;
pub(crate) mod disconnect;
pub(crate) mod ping;
pub(crate) mod publish;
pub(crate) mod subscribe;

use bytes::BytesMut;

use crate::version::Version;
use ack::{Ack, AckKind};
use auth::Auth;
use connect::{Connack, Connect};
use disconnect::Disconnect;
use publish::Publish;
use subscribe::{Suback, Subscribe, Unsuback, Unsubscribe};

/// The type of a control packet, with its number in the fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Client asks for a connection.
    Connect = 1,
    /// Server answers.
    Connack = 2,
    /// A message.
    Publish = 3,
    /// Answer to a `QoS` 1 message.
    Puback = 4,
    /// `QoS` 2, first answer.
    Pubrec = 5,
    /// `QoS` 2, release.
    Pubrel = 6,
    /// `QoS` 2, end.
    Pubcomp = 7,
    /// Client subscribes.
    Subscribe = 8,
    /// Server answers.
    Suback = 9,
    /// Client unsubscribes.
    Unsubscribe = 10,
    /// Server answers.
    Unsuback = 11,
    /// Client asks whether the server is there.
    Pingreq = 12,
    /// It is.
    Pingresp = 13,
    /// One side leaves.
    Disconnect = 14,
    /// Authentication exchange, MQTT 5 only.
    Auth = 15,
}

impl PacketType {
    /// All types in numeric order.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Connack,
        Self::Publish,
        Self::Puback,
        Self::Pubrec,
        Self::Pubrel,
        Self::Pubcomp,
        Self::Subscribe,
        Self::Suback,
        Self::Unsubscribe,
        Self::Unsuback,
        Self::Pingreq,
        Self::Pingresp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The type with this number, 1..=15.
    #[inline]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1..=15 => Some(Self::ALL[value as usize - 1]),
            _ => None,
        }
    }

    /// The first byte of a packet of this type other than PUBLISH.
    pub(crate) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }

    /// The flags the fixed header must have [MQTT-2.1.3-1]; a PUBLISH has its own.
    pub(crate) const fn flags(self) -> u8 {
        match self {
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// Whether `flags` are right; 3.1 also has a DUP flag where later versions fix the flags.
    pub(crate) const fn allows_flags(self, flags: u8, version: Version) -> bool {
        const DUP: u8 = 0b1000;
        flags == self.flags()
            || matches!(version, Version::V3_1) && self.flags() != 0 && flags == self.flags() | DUP
    }
}

/// A control packet of any version, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Client asks for a connection.
    Connect(Box<Connect>),
    /// Server answers.
    Connack(Connack),
    /// A message.
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Ack),
    /// Client subscribes.
    Subscribe(Subscribe),
    /// Server answers.
    Suback(Suback),
    /// Client unsubscribes.
    Unsubscribe(Unsubscribe),
    /// Server answers.
    Unsuback(Unsuback),
    /// Client asks whether the server is there.
    Pingreq,
    /// It is.
    Pingresp,
    /// One side leaves.
    Disconnect(Disconnect),
    /// Authentication exchange, MQTT 5 only.
    Auth(Auth),
}

impl Packet {
    /// Appends the packet as `version` writes it. What a version cannot say is left out: reason
    /// codes and properties before MQTT 5, and AUTH altogether. CONNECT goes by its own version.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        match self {
            Self::Connect(packet) => packet.encode(packet.version, out),
            Self::Connack(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::Ack(packet) => packet.encode(version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::Suback(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::Unsuback(packet) => packet.encode(version, out),
            Self::Pingreq => ping::encode_pingreq(out),
            Self::Pingresp => ping::encode_pingresp(out),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(version, out),
        }
    }

    /// Which packet it is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Ack(ack) => match ack.kind {
                AckKind::Puback => PacketType::Puback,
                AckKind::Pubrec => PacketType::Pubrec,
                AckKind::Pubrel => PacketType::Pubrel,
                AckKind::Pubcomp => PacketType::Pubcomp,
            },
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Suback(_) => PacketType::Suback,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::Unsuback(_) => PacketType::Unsuback,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}
