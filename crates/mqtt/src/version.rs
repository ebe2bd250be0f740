//! The protocol versions and the delivery grades. The one place that says how a version is named
//! on the wire; what differs in a packet is said in that packet's file, by asking [`Version`].

/// A protocol version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1 (`MQIsdp`, level 3).
    V3_1,
    /// MQTT 3.1.1 (`MQTT`, level 4).
    V3_1_1,
    /// MQTT 5 (`MQTT`, level 5).
    V5,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: [Self; 3] = [Self::V3_1, Self::V3_1_1, Self::V5];

    /// The protocol level byte of CONNECT: 3, 4 or 5.
    pub const fn level(self) -> u8 {
        match self {
            Self::V3_1 => 3,
            Self::V3_1_1 => 4,
            Self::V5 => 5,
        }
    }

    /// The protocol name of CONNECT.
    pub const fn proto_name(self) -> &'static str {
        match self {
            Self::V3_1 => "MQIsdp",
            Self::V3_1_1 | Self::V5 => "MQTT",
        }
    }

    /// The version a CONNECT with this protocol name and level speaks.
    pub fn from_wire(name: &[u8], level: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|v| v.level() == level && v.proto_name().as_bytes() == name)
    }

    /// Whether packets carry properties and acknowledgements reason codes.
    #[inline]
    pub const fn is_v5(self) -> bool {
        matches!(self, Self::V5)
    }
}

/// Quality of service: how often a message may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// `QoS` 0: once or not at all.
    #[default]
    AtMostOnce = 0,
    /// `QoS` 1: once or more.
    AtLeastOnce = 1,
    /// `QoS` 2: exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The grade with this number; `None` above 2.
    #[inline]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// The number on the wire, 0..=2.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
}
