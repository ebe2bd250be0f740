//! DISCONNECT: the last packet one side sends (§3.14). Before MQTT 5 only clients send it and it
//! says nothing.

use bytes::{BufMut, BytesMut};

use super::PacketType;
use super::ack::read_reason;
use crate::error::DecodeError;
use crate::property::{Place, Properties};
use crate::reason::Reason;
use crate::version::Version;
use crate::wire::{self, Reader};

/// The end of a connection, announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Why; before MQTT 5 always success.
    pub reason: Reason,
    /// Session expiry interval, reason string, server reference, user properties.
    pub properties: Properties,
}

impl Disconnect {
    /// A DISCONNECT without properties.
    pub const fn new(reason: Reason) -> Self {
        Self {
            reason,
            properties: Properties::new(),
        }
    }

    /// Appends the packet in the shortest form `version` has for it. Before MQTT 5 that is the
    /// client's empty DISCONNECT; a server of 3.1 or 3.1.1 has none and closes instead.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let long = version.is_v5() && !self.properties.is_empty();
        let reasoned = version.is_v5() && self.reason != Reason::Success;
        wire::put_packet(out, PacketType::Disconnect.first_byte(), |out| {
            if long || reasoned {
                out.put_u8(self.reason.as_u8());
            }
            if long {
                self.properties
                    .encode(Place::of(PacketType::Disconnect), out);
            }
        });
    }

    pub(crate) fn decode(version: Version, mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let mut packet = Self::new(Reason::Success);
        if version.is_v5() && !reader.is_empty() {
            packet.reason = read_reason(&mut reader, PacketType::Disconnect)?;
            // §3.14.2.2.1: a length below 2 means no properties.
            if !reader.is_empty() {
                packet.properties =
                    Properties::decode(&mut reader, Place::of(PacketType::Disconnect))?;
            }
        }
        reader.end()?;
        Ok(packet)
    }
}
