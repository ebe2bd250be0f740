//! MQTT 5 properties as ONE table: identifier, name, type, value range, the packets that may
//! carry it and those in which it may repeat. Decoding, checking and encoding read the table;
//! there is no other list of properties.
//!
//! [`Properties`] owns the properties of the rarer packets; [`PublishProperties`] views those of
//! a PUBLISH in place, because there nothing may be allocated.

mod list;
mod view;

use std::fmt;

pub use list::{Properties, Value};
pub(crate) use view::check_publish;
pub use view::{PublishProperties, PublishPropertyIter};

use crate::error::DecodeError;
use crate::packet::PacketType;
use crate::topic::check_name;
use crate::wire::Reader;

/// The data type of a property (§2.2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One byte.
    Byte,
    /// Two byte integer.
    U16,
    /// Four byte integer.
    U32,
    /// Variable byte integer.
    Varint,
    /// UTF-8 encoded string.
    Str,
    /// Binary data.
    Binary,
    /// UTF-8 string pair.
    Pair,
}

/// Which values of its type a property may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Any,
    /// 0 or 1.
    Bit,
    NotZero,
    /// A topic name.
    Name,
}

/// A set of packets; bit 0 stands for the will of a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u16);

impl Place {
    pub(crate) const WILL: Self = Self(1);

    pub(crate) const fn of(packet: PacketType) -> Self {
        Self(1 << packet as u16)
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn packet(self) -> PacketType {
        PacketType::ALL
            .into_iter()
            .find(|packet| Self::of(*packet) == self)
            .unwrap_or(PacketType::Connect)
    }
}

const NONE: Place = Place(0);
const CONNECT: Place = Place::of(PacketType::Connect);
const CONNACK: Place = Place::of(PacketType::Connack);
const PUBLISH: Place = Place::of(PacketType::Publish);
const SUBSCRIBE: Place = Place::of(PacketType::Subscribe);
const DISCONNECT: Place = Place::of(PacketType::Disconnect);
const AUTH: Place = Place::of(PacketType::Auth);
const MESSAGE: Place = PUBLISH.and(Place::WILL);
const OPENING: Place = CONNECT.and(CONNACK);
const AUTHENTICATION: Place = OPENING.and(AUTH);
const ACKS: Place = Place::of(PacketType::Puback)
    .and(Place::of(PacketType::Pubrec))
    .and(Place::of(PacketType::Pubrel))
    .and(Place::of(PacketType::Pubcomp))
    .and(Place::of(PacketType::Suback))
    .and(Place::of(PacketType::Unsuback));
const ANSWERS: Place = ACKS.and(CONNACK).and(DISCONNECT).and(AUTH);
const ANYWHERE: Place = ANSWERS
    .and(CONNECT)
    .and(MESSAGE)
    .and(SUBSCRIBE)
    .and(Place::of(PacketType::Unsubscribe));

/// What the specification says about one property.
#[derive(Debug, Clone, Copy)]
pub struct PropertyRow {
    /// The identifier.
    pub id: PropertyId,
    /// Its name in snake case.
    pub name: &'static str,
    /// Its data type.
    pub kind: Kind,
    range: Range,
    allowed: Place,
    repeats: Place,
}

macro_rules! properties {
    ($($id:ident = $code:literal, $name:literal, $kind:ident, $range:ident, $allowed:expr,
        $repeats:expr;)*) => {
        /// The identifier of a property.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum PropertyId {
            $(
                #[doc = concat!("`", stringify!($code), "`: ", $name, ".")]
                $id = $code,
            )*
        }

        impl PropertyId {
            /// All properties in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$id),*];

            /// The property with this identifier, if the specification defines one.
            #[inline]
            pub const fn from_u8(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$id),)*
                    _ => None,
                }
            }

            /// The row of the table.
            #[inline]
            pub const fn row(self) -> PropertyRow {
                match self {
                    $(Self::$id => PropertyRow {
                        id: Self::$id,
                        name: $name,
                        kind: Kind::$kind,
                        range: Range::$range,
                        allowed: $allowed,
                        repeats: $repeats,
                    },)*
                }
            }
        }
    };
}

properties! {
    PayloadFormatIndicator = 0x01, "payload_format_indicator", Byte, Bit, MESSAGE, NONE;
    MessageExpiryInterval = 0x02, "message_expiry_interval", U32, Any, MESSAGE, NONE;
    ContentType = 0x03, "content_type", Str, Any, MESSAGE, NONE;
    ResponseTopic = 0x08, "response_topic", Str, Name, MESSAGE, NONE;
    CorrelationData = 0x09, "correlation_data", Binary, Any, MESSAGE, NONE;
    SubscriptionIdentifier = 0x0B, "subscription_identifier", Varint, NotZero,
        PUBLISH.and(SUBSCRIBE), PUBLISH;
    SessionExpiryInterval = 0x11, "session_expiry_interval", U32, Any,
        OPENING.and(DISCONNECT), NONE;
    AssignedClientIdentifier = 0x12, "assigned_client_identifier", Str, Any, CONNACK, NONE;
    ServerKeepAlive = 0x13, "server_keep_alive", U16, Any, CONNACK, NONE;
    AuthenticationMethod = 0x15, "authentication_method", Str, Any, AUTHENTICATION, NONE;
    AuthenticationData = 0x16, "authentication_data", Binary, Any, AUTHENTICATION, NONE;
    RequestProblemInformation = 0x17, "request_problem_information", Byte, Bit, CONNECT, NONE;
    WillDelayInterval = 0x18, "will_delay_interval", U32, Any, Place::WILL, NONE;
    RequestResponseInformation = 0x19, "request_response_information", Byte, Bit, CONNECT, NONE;
    ResponseInformation = 0x1A, "response_information", Str, Any, CONNACK, NONE;
    ServerReference = 0x1C, "server_reference", Str, Any, CONNACK.and(DISCONNECT), NONE;
    ReasonString = 0x1F, "reason_string", Str, Any, ANSWERS, NONE;
    ReceiveMaximum = 0x21, "receive_maximum", U16, NotZero, OPENING, NONE;
    TopicAliasMaximum = 0x22, "topic_alias_maximum", U16, Any, OPENING, NONE;
    TopicAlias = 0x23, "topic_alias", U16, NotZero, PUBLISH, NONE;
    MaximumQos = 0x24, "maximum_qos", Byte, Bit, CONNACK, NONE;
    RetainAvailable = 0x25, "retain_available", Byte, Bit, CONNACK, NONE;
    UserProperty = 0x26, "user_property", Pair, Any, ANYWHERE, ANYWHERE;
    MaximumPacketSize = 0x27, "maximum_packet_size", U32, NotZero, OPENING, NONE;
    WildcardSubscriptionAvailable = 0x28, "wildcard_subscription_available", Byte, Bit, CONNACK,
        NONE;
    SubscriptionIdentifierAvailable = 0x29, "subscription_identifier_available", Byte, Bit,
        CONNACK, NONE;
    SharedSubscriptionAvailable = 0x2A, "shared_subscription_available", Byte, Bit, CONNACK, NONE;
}

impl PropertyId {
    /// The identifier on the wire.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether `packet` may carry it, in either direction; a will's properties are not CONNECT's.
    pub const fn allowed_in(self, packet: PacketType) -> bool {
        self.row().allowed.has(Place::of(packet))
    }

    /// Whether a will may carry it.
    pub const fn allowed_in_will(self) -> bool {
        self.row().allowed.has(Place::WILL)
    }

    /// Whether the server passes it on unchanged with the message [MQTT-3.3.2-4],
    /// [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-20].
    #[inline]
    pub const fn is_forwarded(self) -> bool {
        matches!(
            self,
            Self::PayloadFormatIndicator
                | Self::ContentType
                | Self::ResponseTopic
                | Self::CorrelationData
                | Self::UserProperty
        )
    }
}

impl fmt::Display for PropertyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

/// The value of a property, in the buffer it was received in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueRef<'a> {
    /// One byte.
    Byte(u8),
    /// Two byte integer.
    U16(u16),
    /// Four byte integer.
    U32(u32),
    /// Variable byte integer, at most 268,435,455.
    Varint(u32),
    /// UTF-8 encoded string.
    Str(&'a str),
    /// Binary data.
    Binary(&'a [u8]),
    /// UTF-8 string pair: name and value.
    Pair(&'a str, &'a str),
}

/// Reads one property without judging where it stands or what its value is.
#[inline]
fn read_one<'a>(reader: &mut Reader<'a>) -> Result<(PropertyId, ValueRef<'a>), DecodeError> {
    let code = reader.varint()?;
    let id = u8::try_from(code)
        .ok()
        .and_then(PropertyId::from_u8)
        .ok_or(DecodeError::UnknownProperty(code))?;
    let value = match id.row().kind {
        Kind::Byte => ValueRef::Byte(reader.u8()?),
        Kind::U16 => ValueRef::U16(reader.u16()?),
        Kind::U32 => ValueRef::U32(reader.u32()?),
        Kind::Varint => ValueRef::Varint(reader.varint()?),
        Kind::Str => ValueRef::Str(reader.str()?),
        Kind::Binary => ValueRef::Binary(reader.binary()?),
        Kind::Pair => ValueRef::Pair(reader.str()?, reader.str()?),
    };
    Ok((id, value))
}

/// Steps over one property of a block that was checked before, looking at no more than its
/// lengths.
fn skip_one(reader: &mut Reader<'_>) -> Result<PropertyId, DecodeError> {
    let code = reader.u8()?;
    let id =
        PropertyId::from_u8(code).ok_or_else(|| DecodeError::UnknownProperty(u32::from(code)))?;
    match id.row().kind {
        Kind::Byte => _ = reader.u8()?,
        Kind::U16 => _ = reader.u16()?,
        Kind::U32 => _ = reader.u32()?,
        Kind::Varint => _ = reader.varint()?,
        Kind::Str | Kind::Binary => _ = reader.binary()?,
        Kind::Pair => _ = (reader.binary()?, reader.binary()?),
    }
    Ok(id)
}

/// Which properties a block has had so far; the identifiers are below 64.
#[derive(Debug, Clone, Copy, Default)]
struct Seen(u64);

impl Seen {
    fn has(self, id: PropertyId) -> bool {
        self.0 & (1 << id as u8) != 0
    }

    fn add(&mut self, id: PropertyId) {
        self.0 |= 1 << id as u8;
    }
}

/// Reads one property and holds it against its row of the table.
// Left to itself, fat LTO makes a call of it: 5 % of decoding a PUBLISH with properties.
#[allow(clippy::inline_always)]
#[inline(always)]
fn check_one<'a>(
    reader: &mut Reader<'a>,
    place: Place,
    seen: &mut Seen,
) -> Result<(PropertyId, ValueRef<'a>), DecodeError> {
    let (id, value) = read_one(reader)?;
    let row = id.row();
    if !row.allowed.has(place) {
        return Err(DecodeError::PropertyNotAllowed {
            id,
            packet: place.packet(),
        });
    }
    if seen.has(id) && !row.repeats.has(place) {
        return Err(DecodeError::DuplicateProperty(id));
    }
    seen.add(id);
    check_range(row, value, reader.strict)?;
    Ok((id, value))
}

#[inline]
fn check_range(row: PropertyRow, value: ValueRef<'_>, strict: bool) -> Result<(), DecodeError> {
    let number = match value {
        ValueRef::Byte(n) => u32::from(n),
        ValueRef::U16(n) => u32::from(n),
        ValueRef::U32(n) | ValueRef::Varint(n) => n,
        ValueRef::Str(text) if row.range == Range::Name && strict => {
            // [MQTT-3.3.2-14]: a response topic has no wildcards.
            return check_name(text).map_err(DecodeError::Topic);
        }
        ValueRef::Str(_) | ValueRef::Binary(_) | ValueRef::Pair(..) => return Ok(()),
    };
    match row.range {
        Range::NotZero if number == 0 && row.id == PropertyId::TopicAlias => {
            Err(DecodeError::TopicAliasZero)
        }
        Range::NotZero if number == 0 => Err(DecodeError::PropertyValue(row.id)),
        Range::Bit if number > 1 => Err(DecodeError::PropertyValue(row.id)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
