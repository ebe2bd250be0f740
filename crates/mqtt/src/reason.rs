//! Reason codes as ONE table: number, name, text and the packets that may carry it. The 3.1.1
//! return codes of CONNACK and SUBACK are derived from it, never written by hand elsewhere.

use crate::packet::PacketType;

/// Bit of a packet type in a set.
const fn bit(packet: PacketType) -> u16 {
    1 << packet as u16
}

const CONNACK: u16 = bit(PacketType::Connack);
const PUBACK: u16 = bit(PacketType::Puback);
const PUBREC: u16 = bit(PacketType::Pubrec);
const PUBREL: u16 = bit(PacketType::Pubrel);
const PUBCOMP: u16 = bit(PacketType::Pubcomp);
const SUBACK: u16 = bit(PacketType::Suback);
const UNSUBACK: u16 = bit(PacketType::Unsuback);
const DISCONNECT: u16 = bit(PacketType::Disconnect);
const AUTH: u16 = bit(PacketType::Auth);
/// PUBACK and PUBREC answer a PUBLISH and share their codes.
const PUBLISHED: u16 = PUBACK | PUBREC;
/// PUBREL and PUBCOMP share theirs.
const RELEASED: u16 = PUBREL | PUBCOMP;

macro_rules! reasons {
    ($($name:ident = $code:literal, $text:literal, $packets:expr;)*) => {
        /// A reason code of MQTT 5 (§2.4).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(
                #[doc = concat!("`", stringify!($code), "`: ", $text, ".")]
                $name = $code,
            )*
        }

        impl Reason {
            /// All reason codes in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The reason with this code, if the specification defines one.
            pub const fn from_u8(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The words of the specification, in lower case.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            const fn packets(self) -> u16 {
                match self { $(Self::$name => $packets,)* }
            }
        }
    };
}

reasons! {
    Success = 0x00, "success",
        CONNACK | PUBLISHED | RELEASED | SUBACK | UNSUBACK | DISCONNECT | AUTH;
    GrantedQos1 = 0x01, "granted QoS 1", SUBACK;
    GrantedQos2 = 0x02, "granted QoS 2", SUBACK;
    DisconnectWithWill = 0x04, "disconnect with will message", DISCONNECT;
    NoMatchingSubscribers = 0x10, "no matching subscribers", PUBLISHED;
    NoSubscriptionExisted = 0x11, "no subscription existed", UNSUBACK;
    ContinueAuthentication = 0x18, "continue authentication", AUTH;
    ReAuthenticate = 0x19, "re-authenticate", AUTH;
    UnspecifiedError = 0x80, "unspecified error",
        CONNACK | PUBLISHED | SUBACK | UNSUBACK | DISCONNECT;
    MalformedPacket = 0x81, "malformed packet", CONNACK | DISCONNECT;
    ProtocolError = 0x82, "protocol error", CONNACK | DISCONNECT;
    ImplementationSpecificError = 0x83, "implementation specific error",
        CONNACK | PUBLISHED | SUBACK | UNSUBACK | DISCONNECT;
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version", CONNACK;
    ClientIdentifierNotValid = 0x85, "client identifier not valid", CONNACK;
    BadUserNameOrPassword = 0x86, "bad user name or password", CONNACK;
    NotAuthorized = 0x87, "not authorized", CONNACK | PUBLISHED | SUBACK | UNSUBACK | DISCONNECT;
    ServerUnavailable = 0x88, "server unavailable", CONNACK;
    ServerBusy = 0x89, "server busy", CONNACK | DISCONNECT;
    Banned = 0x8A, "banned", CONNACK;
    ServerShuttingDown = 0x8B, "server shutting down", DISCONNECT;
    BadAuthenticationMethod = 0x8C, "bad authentication method", CONNACK | DISCONNECT;
    KeepAliveTimeout = 0x8D, "keep alive timeout", DISCONNECT;
    SessionTakenOver = 0x8E, "session taken over", DISCONNECT;
    TopicFilterInvalid = 0x8F, "topic filter invalid", SUBACK | UNSUBACK | DISCONNECT;
    TopicNameInvalid = 0x90, "topic name invalid", CONNACK | PUBLISHED | DISCONNECT;
    PacketIdentifierInUse = 0x91, "packet identifier in use", PUBLISHED | SUBACK | UNSUBACK;
    PacketIdentifierNotFound = 0x92, "packet identifier not found", RELEASED;
    ReceiveMaximumExceeded = 0x93, "receive maximum exceeded", DISCONNECT;
    TopicAliasInvalid = 0x94, "topic alias invalid", DISCONNECT;
    PacketTooLarge = 0x95, "packet too large", CONNACK | DISCONNECT;
    MessageRateTooHigh = 0x96, "message rate too high", DISCONNECT;
    QuotaExceeded = 0x97, "quota exceeded", CONNACK | PUBLISHED | SUBACK | DISCONNECT;
    AdministrativeAction = 0x98, "administrative action", DISCONNECT;
    PayloadFormatInvalid = 0x99, "payload format invalid", CONNACK | PUBLISHED | DISCONNECT;
    RetainNotSupported = 0x9A, "retain not supported", CONNACK | DISCONNECT;
    QosNotSupported = 0x9B, "QoS not supported", CONNACK | DISCONNECT;
    UseAnotherServer = 0x9C, "use another server", CONNACK | DISCONNECT;
    ServerMoved = 0x9D, "server moved", CONNACK | DISCONNECT;
    SharedSubscriptionsNotSupported = 0x9E, "shared subscriptions not supported",
        SUBACK | DISCONNECT;
    ConnectionRateExceeded = 0x9F, "connection rate exceeded", CONNACK | DISCONNECT;
    MaximumConnectTime = 0xA0, "maximum connect time", DISCONNECT;
    SubscriptionIdentifiersNotSupported = 0xA1, "subscription identifiers not supported",
        SUBACK | DISCONNECT;
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard subscriptions not supported",
        SUBACK | DISCONNECT;
}

impl Reason {
    /// The code on the wire.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether the code says that something failed (0x80 and above).
    #[inline]
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// Whether the specification lets `packet` carry this code, in either direction.
    pub const fn allowed_in(self, packet: PacketType) -> bool {
        self.packets() & bit(packet) != 0
    }

    /// The success code of a SUBACK that grants `qos`.
    pub const fn granted(qos: crate::QoS) -> Self {
        match qos {
            crate::QoS::AtMostOnce => Self::Success,
            crate::QoS::AtLeastOnce => Self::GrantedQos1,
            crate::QoS::ExactlyOnce => Self::GrantedQos2,
        }
    }

    /// The CONNACK return code, 0..=5, a client of 3.1 or 3.1.1 is told. Codes without an
    /// equivalent become 3, "server unavailable".
    pub const fn connack_v3(self) -> u8 {
        match self as u8 {
            0x00..0x80 => 0,
            0x80..=0x84 => 1,
            0x85 => 2,
            0x86 => 4,
            0x87 | 0x8A | 0x8C => 5,
            _ => 3,
        }
    }

    /// What a 3.1 or 3.1.1 CONNACK return code means; `None` above 5.
    pub const fn from_connack_v3(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    /// The SUBACK return code for a client of 3.1 or 3.1.1: the granted `QoS`, or 0x80.
    pub const fn suback_v3(self) -> u8 {
        if self.is_error() { 0x80 } else { self as u8 }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (0x{:02X})", self.text(), self.as_u8())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_number() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_u8(reason.as_u8()), Some(*reason));
        }
        assert_eq!(Reason::ALL.len(), 43);
        assert_eq!(Reason::from_u8(0x03), None);
        assert_eq!(Reason::from_u8(0xA3), None);
    }

    #[test]
    fn connack_codes_of_3_1_1() {
        let expected: [(u8, &[u8]); 6] = [
            (0, &[0x00]),
            (1, &[0x80, 0x81, 0x82, 0x83, 0x84]),
            (2, &[0x85]),
            (3, &[0x88, 0x89, 0x8B, 0x90, 0x97, 0x9C, 0x9D, 0x9F]),
            (4, &[0x86]),
            (5, &[0x87, 0x8A, 0x8C]),
        ];
        for (v3, codes) in expected {
            for code in codes {
                let reason = Reason::from_u8(*code).expect("the code exists");
                assert_eq!(reason.connack_v3(), v3, "{reason}");
            }
            let back = Reason::from_connack_v3(v3).expect("the code exists");
            assert_eq!(back.connack_v3(), v3);
        }
        assert_eq!(Reason::from_connack_v3(6), None);
    }
}
