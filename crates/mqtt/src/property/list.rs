//! The owned properties of every packet but PUBLISH. Empty ones allocate nothing.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Place, PropertyId, Seen, ValueRef, check_one};
use crate::error::DecodeError;
use crate::wire::{self, Reader};

/// The value of a property, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One byte.
    Byte(u8),
    /// Two byte integer.
    U16(u16),
    /// Four byte integer.
    U32(u32),
    /// Variable byte integer, at most 268,435,455.
    Varint(u32),
    /// UTF-8 encoded string, at most 65,535 bytes.
    Str(Box<str>),
    /// Binary data, at most 65,535 bytes.
    Binary(Bytes),
    /// UTF-8 string pair: name and value.
    Pair(Box<str>, Box<str>),
}

impl Value {
    /// A view of the value.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Byte(n) => ValueRef::Byte(*n),
            Self::U16(n) => ValueRef::U16(*n),
            Self::U32(n) => ValueRef::U32(*n),
            Self::Varint(n) => ValueRef::Varint(*n),
            Self::Str(text) => ValueRef::Str(text),
            Self::Binary(bytes) => ValueRef::Binary(bytes),
            Self::Pair(name, value) => ValueRef::Pair(name, value),
        }
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Byte(n) => Self::Byte(n),
            ValueRef::U16(n) => Self::U16(n),
            ValueRef::U32(n) => Self::U32(n),
            ValueRef::Varint(n) => Self::Varint(n),
            ValueRef::Str(text) => Self::Str(text.into()),
            ValueRef::Binary(bytes) => Self::Binary(Bytes::copy_from_slice(bytes)),
            ValueRef::Pair(name, value) => Self::Pair(name.into(), value.into()),
        }
    }
}

/// A list of properties in the order of the wire.
///
/// A value always has the type its identifier demands: the typed setters see to it, and
/// [`Properties::push`] refuses any other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties(Vec<(PropertyId, Value)>);

macro_rules! accessors {
    (number $($get:ident, $set:ident: $id:ident, $kind:ident($type:ty), $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub fn $get(&self) -> Option<$type> {
                match self.get(PropertyId::$id) {
                    Some(Value::$kind(n)) => Some(*n),
                    _ => None,
                }
            }

            #[doc = concat!("Sets `", stringify!($get), "`, replacing an earlier value.")]
            pub fn $set(&mut self, value: $type) -> &mut Self {
                self.set(PropertyId::$id, Value::$kind(value))
            }
        )*
    };
    (flag $($get:ident, $set:ident: $id:ident, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub fn $get(&self) -> Option<bool> {
                match self.get(PropertyId::$id) {
                    Some(Value::Byte(n)) => Some(*n != 0),
                    _ => None,
                }
            }

            #[doc = concat!("Sets `", stringify!($get), "`, replacing an earlier value.")]
            pub fn $set(&mut self, value: bool) -> &mut Self {
                self.set(PropertyId::$id, Value::Byte(u8::from(value)))
            }
        )*
    };
    (text $($get:ident, $set:ident: $id:ident, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub fn $get(&self) -> Option<&str> {
                match self.get(PropertyId::$id) {
                    Some(Value::Str(text)) => Some(text),
                    _ => None,
                }
            }

            #[doc = concat!("Sets `", stringify!($get), "`, replacing an earlier value.")]
            pub fn $set(&mut self, value: &str) -> &mut Self {
                self.set(PropertyId::$id, Value::Str(value.into()))
            }
        )*
    };
    (binary $($get:ident, $set:ident: $id:ident, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub fn $get(&self) -> Option<&Bytes> {
                match self.get(PropertyId::$id) {
                    Some(Value::Binary(bytes)) => Some(bytes),
                    _ => None,
                }
            }

            #[doc = concat!("Sets `", stringify!($get), "`, replacing an earlier value.")]
            pub fn $set(&mut self, value: Bytes) -> &mut Self {
                self.set(PropertyId::$id, Value::Binary(value))
            }
        )*
    };
}

impl Properties {
    accessors! { number
        message_expiry_interval, set_message_expiry_interval:
            MessageExpiryInterval, U32(u32), "How long the message stays wanted, in seconds.";
        subscription_identifier, set_subscription_identifier:
            SubscriptionIdentifier, Varint(u32), "The subscription identifier, 1..=268,435,455.";
        session_expiry_interval, set_session_expiry_interval:
            SessionExpiryInterval, U32(u32),
            "How long the session outlives its connection, in seconds; `u32::MAX` is forever.";
        server_keep_alive, set_server_keep_alive:
            ServerKeepAlive, U16(u16), "The keep alive the client must use, in seconds.";
        will_delay_interval, set_will_delay_interval:
            WillDelayInterval, U32(u32), "How long the will waits, in seconds.";
        receive_maximum, set_receive_maximum:
            ReceiveMaximum, U16(u16), "How many unacknowledged publishes the sender takes.";
        topic_alias_maximum, set_topic_alias_maximum:
            TopicAliasMaximum, U16(u16), "The highest topic alias the sender takes.";
        maximum_qos, set_maximum_qos:
            MaximumQos, Byte(u8), "The highest `QoS` the server takes: 0 or 1.";
        maximum_packet_size, set_maximum_packet_size:
            MaximumPacketSize, U32(u32), "The largest packet the sender takes, in bytes.";
        payload_format_indicator, set_payload_format_indicator:
            PayloadFormatIndicator, Byte(u8), "0: bytes, 1: the payload is UTF-8.";
    }

    accessors! { flag
        request_problem_information, set_request_problem_information:
            RequestProblemInformation, "Whether the client wants reason strings; absent is yes.";
        request_response_information, set_request_response_information:
            RequestResponseInformation, "Whether the client wants response information.";
        retain_available, set_retain_available:
            RetainAvailable, "Whether the server keeps retained messages; absent is yes.";
        wildcard_subscription_available, set_wildcard_subscription_available:
            WildcardSubscriptionAvailable, "Whether filters may have wildcards; absent is yes.";
        subscription_identifier_available, set_subscription_identifier_available:
            SubscriptionIdentifierAvailable,
            "Whether subscriptions may have identifiers; absent is yes.";
        shared_subscription_available, set_shared_subscription_available:
            SharedSubscriptionAvailable,
            "Whether subscriptions may be shared; absent is yes.";
    }

    accessors! { text
        content_type, set_content_type: ContentType, "What the payload is.";
        response_topic, set_response_topic: ResponseTopic, "Where an answer is expected.";
        assigned_client_identifier, set_assigned_client_identifier:
            AssignedClientIdentifier, "The client identifier the server chose.";
        authentication_method, set_authentication_method:
            AuthenticationMethod, "The name of the authentication method.";
        response_information, set_response_information:
            ResponseInformation, "The base of response topics.";
        server_reference, set_server_reference: ServerReference, "Another server to use.";
        reason_string, set_reason_string: ReasonString, "The reason in words, for people.";
    }

    accessors! { binary
        correlation_data, set_correlation_data:
            CorrelationData, "What lets the requester recognise the answer.";
        authentication_data, set_authentication_data:
            AuthenticationData, "What the authentication method exchanges.";
    }

    /// No properties; allocates nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are, repeated ones counted each.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (PropertyId, &Value)> {
        self.0.iter().map(|(id, value)| (*id, value))
    }

    /// The first value of `id`.
    pub fn get(&self, id: PropertyId) -> Option<&Value> {
        self.0
            .iter()
            .find(|(have, _)| *have == id)
            .map(|(_, value)| value)
    }

    /// Replaces all values of `id` by one.
    ///
    /// # Panics
    /// If the value is not of the property's type: that is a fault of the caller's text.
    pub fn set(&mut self, id: PropertyId, value: Value) -> &mut Self {
        self.remove(id);
        self.push(id, value)
    }

    /// Appends a value, keeping earlier ones: for properties that may repeat.
    ///
    /// # Panics
    /// If the value is not of the property's type: that is a fault of the caller's text.
    pub fn push(&mut self, id: PropertyId, value: Value) -> &mut Self {
        assert_eq!(
            kind_of(value.as_ref()),
            id.row().kind,
            "{id} has another type"
        );
        self.0.push((id, value));
        self
    }

    /// Appends a user property.
    pub fn push_user_property(&mut self, name: &str, value: &str) -> &mut Self {
        self.push(
            PropertyId::UserProperty,
            Value::Pair(name.into(), value.into()),
        )
    }

    /// Removes all values of `id`.
    pub fn remove(&mut self, id: PropertyId) {
        self.0.retain(|(have, _)| *have != id);
    }

    /// The user properties in order: name and value.
    pub fn user_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(_, value)| match value {
            Value::Pair(name, value) => Some((&**name, &**value)),
            _ => None,
        })
    }

    /// A will's properties that go out with the message, encoded as [`crate::Outgoing::forwarded`]
    /// wants them.
    pub fn raw_forwardable(&self) -> Bytes {
        let mut out = BytesMut::new();
        for (id, value) in self.iter().filter(|(id, _)| id.is_forwarded()) {
            put_one(&mut out, id, value.as_ref());
        }
        out.freeze()
    }

    /// All properties, encoded without the length in front.
    pub(crate) fn put_all(&self, out: &mut BytesMut) {
        for (id, value) in self.iter() {
            put_one(out, id, value.as_ref());
        }
    }

    pub(crate) fn encode(&self, place: Place, out: &mut BytesMut) {
        debug_assert!(
            self.0.iter().all(|(id, _)| id.row().allowed.has(place)),
            "a property of ours is in the wrong packet"
        );
        if self.is_empty() {
            out.put_u8(0);
        } else {
            wire::put_sized(out, |out| self.put_all(out));
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, place: Place) -> Result<Self, DecodeError> {
        let len = reader.varint()?;
        let mut block = Reader::new(reader.take(len as usize)?, reader.strict);
        let mut list = Vec::new();
        let mut seen = Seen::default();
        while !block.is_empty() {
            let (id, value) = check_one(&mut block, place, &mut seen)?;
            list.push((id, value.into()));
        }
        // [MQTT-4.12.0-1]: authentication data belongs to a method.
        if seen.has(PropertyId::AuthenticationData) && !seen.has(PropertyId::AuthenticationMethod) {
            return Err(DecodeError::NoAuthenticationMethod);
        }
        Ok(Self(list))
    }
}

fn kind_of(value: ValueRef<'_>) -> super::Kind {
    use super::Kind;
    match value {
        ValueRef::Byte(_) => Kind::Byte,
        ValueRef::U16(_) => Kind::U16,
        ValueRef::U32(_) => Kind::U32,
        ValueRef::Varint(_) => Kind::Varint,
        ValueRef::Str(_) => Kind::Str,
        ValueRef::Binary(_) => Kind::Binary,
        ValueRef::Pair(..) => Kind::Pair,
    }
}

/// Appends one property. Identifiers are below 128 and so are their own variable byte integer.
fn put_one(out: &mut BytesMut, id: PropertyId, value: ValueRef<'_>) {
    out.put_u8(id.as_u8());
    match value {
        ValueRef::Byte(n) => out.put_u8(n),
        ValueRef::U16(n) => out.put_u16(n),
        ValueRef::U32(n) => out.put_u32(n),
        ValueRef::Varint(n) => wire::put_varint(out, n),
        ValueRef::Str(text) => wire::put_str(out, text),
        ValueRef::Binary(bytes) => wire::put_binary(out, bytes),
        ValueRef::Pair(name, value) => {
            wire::put_str(out, name);
            wire::put_str(out, value);
        }
    }
}
