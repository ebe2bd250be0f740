//! AUTH: one step of an authentication exchange (§3.15). It exists from MQTT 5 on.

use bytes::{BufMut, BytesMut};

use super::PacketType;
use super::ack::read_reason;
use crate::error::DecodeError;
use crate::property::{Place, Properties};
use crate::reason::Reason;
use crate::version::Version;
use crate::wire::{self, Reader};

/// One step of an authentication exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Success, continue authentication or re-authenticate.
    pub reason: Reason,
    /// Authentication method and data, reason string, user properties.
    pub properties: Properties,
}

impl Auth {
    /// Appends the packet; nothing before MQTT 5, which has no AUTH.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        if !version.is_v5() {
            return;
        }
        wire::put_packet(out, PacketType::Auth.first_byte(), |out| {
            // §3.15.2.1: both may be left out together.
            if self.reason != Reason::Success || !self.properties.is_empty() {
                out.put_u8(self.reason.as_u8());
                self.properties.encode(Place::of(PacketType::Auth), out);
            }
        });
    }

    pub(crate) fn decode(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        if reader.is_empty() {
            return Ok(Self {
                reason: Reason::Success,
                properties: Properties::new(),
            });
        }
        let reason = read_reason(&mut reader, PacketType::Auth)?;
        let properties = Properties::decode(&mut reader, Place::of(PacketType::Auth))?;
        reader.end()?;
        // §3.15.2.2.2: leaving out the method is a protocol error.
        if properties.authentication_method().is_none() {
            return Err(DecodeError::NoAuthenticationMethod);
        }
        Ok(Self { reason, properties })
    }
}
