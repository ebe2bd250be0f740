//! Why bytes are not a packet, and which reason code the peer is told for it: one table.

use crate::packet::PacketType;
use crate::property::PropertyId;
use crate::reason::Reason;
use crate::topic::TopicError;

/// A packet the specification does not allow. The connection it came from cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The packet type is 0, or AUTH before MQTT 5.
    #[error("packet type {0} does not exist in this version")]
    UnknownPacketType(u8),
    /// The flags of the fixed header are not the ones this packet must have.
    #[error("{packet:?} with fixed header flags {flags:#06b}")]
    FixedHeaderFlags {
        /// The packet.
        packet: PacketType,
        /// The low four bits of its first byte.
        flags: u8,
    },
    /// A length takes more than four bytes.
    #[error("variable byte integer of more than 4 bytes")]
    VarintTooLong,
    /// A length takes more bytes than it needs [MQTT-1.5.5-1].
    #[error("variable byte integer not in its shortest form")]
    VarintNotMinimal,
    /// The packet is larger than [`crate::Limits::max_packet_size`].
    #[error("packet of {size} bytes, more than {limit}")]
    TooLarge {
        /// Its size in bytes, fixed header included.
        size: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// A field runs past the end of its packet or property block.
    #[error("a field runs past the end of the packet")]
    Truncated,
    /// The packet goes on behind its last field.
    #[error("{count} bytes behind the last field")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A string is not UTF-8 or encodes a surrogate [MQTT-1.5.4-1].
    #[error("string is not UTF-8")]
    Utf8,
    /// A string contains U+0000 [MQTT-1.5.4-2].
    #[error("string contains U+0000")]
    NulCharacter,
    /// `QoS` 3 in a PUBLISH or a will [MQTT-3.3.1-4].
    #[error("QoS 3")]
    Qos3,
    /// DUP on a message of `QoS` 0 [MQTT-3.3.1-2].
    #[error("DUP on QoS 0")]
    DupOnQos0,
    /// Packet identifier 0 [MQTT-2.2.1-3].
    #[error("packet identifier 0")]
    PacketIdZero,
    /// The topic of a PUBLISH or a will, or a response topic, is not a topic name.
    #[error(transparent)]
    Topic(TopicError),
    /// A PUBLISH without topic and without topic alias.
    #[error("neither topic nor topic alias")]
    NoTopic,
    /// Topic alias 0 [MQTT-3.3.2-8].
    #[error("topic alias 0")]
    TopicAliasZero,
    /// CONNECT of a protocol that is not spoken here.
    #[error("protocol level {level} is not supported")]
    UnsupportedVersion {
        /// The level it names; 0 if the protocol name is not one of MQTT's.
        level: u8,
    },
    /// Bit 0 of the CONNECT flags [MQTT-3.1.2-3].
    #[error("reserved CONNECT flag")]
    ConnectReserved,
    /// Will `QoS` or will retain without will flag [MQTT-3.1.2-11], [MQTT-3.1.2-13].
    #[error("will QoS or will retain without will flag")]
    WillFlags,
    /// A password without user name before MQTT 5 [MQTT-3.1.2-22].
    #[error("password without user name")]
    PasswordWithoutUserName,
    /// Authentication data without, or AUTH without, authentication method [MQTT-4.12.0-1].
    #[error("no authentication method")]
    NoAuthenticationMethod,
    /// Reserved CONNACK flags, or session present with an error [MQTT-3.2.2-6].
    #[error("CONNACK flags {0:#04x}")]
    ConnackFlags(u8),
    /// A reason or return code this packet cannot have.
    #[error("{packet:?} with reason code {code:#04x}")]
    ReasonCode {
        /// The packet.
        packet: PacketType,
        /// The code.
        code: u8,
    },
    /// SUBSCRIBE, UNSUBSCRIBE, SUBACK or UNSUBACK without an entry [MQTT-3.8.3-2].
    #[error("{0:?} without an entry")]
    NoEntries(PacketType),
    /// Reserved bits of the subscription options [MQTT-3.8.3-5].
    #[error("reserved bits in subscription options {0:#04x}")]
    SubscriptionReserved(u8),
    /// `QoS` 3 or retain handling 3 in the subscription options.
    #[error("subscription options {0:#04x}")]
    SubscriptionOptions(u8),
    /// No Local on a shared subscription [MQTT-3.8.3-4].
    #[error("No Local on a shared subscription")]
    NoLocalOnShared,
    /// A property identifier the specification does not define.
    #[error("property {0:#04x} does not exist")]
    UnknownProperty(u32),
    /// A property in a packet it does not belong to.
    #[error("property {id} in {packet:?}")]
    PropertyNotAllowed {
        /// The property.
        id: PropertyId,
        /// The packet; CONNECT for a will's properties.
        packet: PacketType,
    },
    /// A property twice that may be there once.
    #[error("property {0} twice")]
    DuplicateProperty(PropertyId),
    /// A property with a value it cannot have.
    #[error("property {0} with a value it cannot have")]
    PropertyValue(PropertyId),
}

impl DecodeError {
    /// The reason code for the DISCONNECT or CONNACK that answers.
    pub fn reason(&self) -> Reason {
        match self {
            Self::UnknownPacketType(_)
            | Self::FixedHeaderFlags { .. }
            | Self::VarintTooLong
            | Self::VarintNotMinimal
            | Self::Truncated
            | Self::TrailingBytes { .. }
            | Self::Utf8
            | Self::NulCharacter
            | Self::Qos3
            | Self::ConnectReserved
            | Self::WillFlags
            | Self::ConnackFlags(_)
            | Self::SubscriptionReserved(_)
            | Self::UnknownProperty(_)
            | Self::PropertyNotAllowed { .. } => Reason::MalformedPacket,
            Self::DupOnQos0
            | Self::PacketIdZero
            | Self::NoTopic
            | Self::PasswordWithoutUserName
            | Self::NoAuthenticationMethod
            | Self::ReasonCode { .. }
            | Self::NoEntries(_)
            | Self::SubscriptionOptions(_)
            | Self::NoLocalOnShared
            | Self::DuplicateProperty(_)
            | Self::PropertyValue(_) => Reason::ProtocolError,
            Self::TooLarge { .. } => Reason::PacketTooLarge,
            Self::UnsupportedVersion { .. } => Reason::UnsupportedProtocolVersion,
            Self::Topic(_) => Reason::TopicNameInvalid,
            Self::TopicAliasZero => Reason::TopicAliasInvalid,
        }
    }
}
