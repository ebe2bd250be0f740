//! The MQTT language: packets, properties, reason codes and topics of MQTT 3.1, 3.1.1 and 5,
//! with one strict codec for all three and for both directions.
//!
//! It exists so that nothing above it ever looks at wire bytes: whoever holds a [`Packet`] holds
//! one the specification allows. It must never read a clock, open a socket or keep state between
//! packets, and decoding a PUBLISH must never allocate.
//!
//! ```
//! use bytes::BytesMut;
//! use dunlin_mqtt::{Limits, Packet, Publish, QoS, Version, decode};
//!
//! let mut wire = BytesMut::new();
//! Publish::new("room/1/temperature", b"21.5", QoS::AtMostOnce, false)
//!     .encode(Version::V5, &mut wire);
//! let packet = decode(&mut wire, Version::V5, &Limits::default());
//! let Ok(Some(Packet::Publish(publish))) = packet else { panic!("a whole valid packet") };
//! assert_eq!(publish.topic(), "room/1/temperature");
//! assert_eq!(publish.payload(), b"21.5");
//! ```
#![warn(missing_docs)]

mod codec;
mod error;
mod packet;
mod property;
mod reason;
pub mod topic;
mod version;
mod wire;

pub use codec::{Limits, MAX_PACKET_SIZE_BYTES, connect_version, decode};
pub use error::DecodeError;
pub use packet::ack::{Ack, AckKind};
pub use packet::auth::Auth;
pub use packet::connect::{Connack, Connect, Will};
pub use packet::disconnect::Disconnect;
pub use packet::publish::{Outgoing, Publish, encode_publish, encode_publish_head, publish_len};
pub use packet::subscribe::{
    RetainHandling, Suback, Subscribe, SubscriptionOptions, Unsuback, Unsubscribe,
};
pub use packet::{Packet, PacketType};
pub use property::{
    Kind, Properties, PropertyId, PropertyRow, PublishProperties, PublishPropertyIter, Value,
    ValueRef,
};
pub use reason::Reason;
pub use topic::{FilterError, FilterFault, TopicError, TopicFilter, TopicName};
pub use version::{QoS, Version};
