//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (§3.8 to §3.11).
//!
//! A filter that breaks the rules is kept as [`FilterError`]: it is answered with 0x8F beside the
//! good ones. Bytes that are not text at all are a malformed packet.

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};

use super::PacketType;
use super::ack::read_reason;
use crate::error::DecodeError;
use crate::property::{Place, Properties};
use crate::reason::Reason;
use crate::topic::{FilterError, TopicFilter};
use crate::version::{QoS, Version};
use crate::wire::{self, Reader};

/// Which retained messages a new subscription is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// All that match.
    #[default]
    Send = 0,
    /// All that match, unless the subscription exists already.
    SendIfNew = 1,
    /// None.
    DoNotSend = 2,
}

impl RetainHandling {
    /// The value with this number; `None` above 2.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Send),
            1 => Some(Self::SendIfNew),
            2 => Some(Self::DoNotSend),
            _ => None,
        }
    }
}

/// How one filter is subscribed to. All but `qos` are of MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SubscriptionOptions {
    /// The highest `QoS` wanted.
    pub qos: QoS,
    /// The client's own messages do not come back.
    pub no_local: bool,
    /// Messages keep their retain flag.
    pub retain_as_published: bool,
    /// Which retained messages are sent at once.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    /// What a subscription of 3.1.1 has: only a `QoS`.
    pub const fn with_qos(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    /// The options byte of SUBSCRIBE in MQTT 5.
    pub const fn as_u8(self) -> u8 {
        self.qos.as_u8()
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }

    fn decode(byte: u8, version: Version, strict: bool) -> Result<Self, DecodeError> {
        let reserved = match version {
            // 3.1 does not use the upper bits and does not fix them either.
            Version::V3_1 => 0,
            Version::V3_1_1 => 0xFC,
            Version::V5 => 0xC0,
        };
        if strict && byte & reserved != 0 {
            return Err(DecodeError::SubscriptionReserved(byte));
        }
        let qos = QoS::from_u8(byte & 3).ok_or(DecodeError::SubscriptionOptions(byte))?;
        if !version.is_v5() {
            return Ok(Self::with_qos(qos));
        }
        let retain_handling =
            RetainHandling::from_u8(byte >> 4 & 3).ok_or(DecodeError::SubscriptionOptions(byte))?;
        Ok(Self {
            qos,
            no_local: byte & 0x04 != 0,
            retain_as_published: byte & 0x08 != 0,
            retain_handling,
        })
    }
}

/// A client asks for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Comes back in the SUBACK.
    pub packet_id: NonZeroU16,
    /// Subscription identifier and user properties, MQTT 5 only.
    pub properties: Properties,
    /// The filters in order, at least one; each with its options.
    pub filters: Vec<(Result<TopicFilter, FilterError>, SubscriptionOptions)>,
}

/// A server's answer to SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suback {
    /// The packet identifier of the SUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// One reason code for each filter, in order.
    pub reasons: Vec<Reason>,
    /// Reason string and user properties, MQTT 5 only.
    pub properties: Properties,
}

/// A client wants no more messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Comes back in the UNSUBACK.
    pub packet_id: NonZeroU16,
    /// User properties, MQTT 5 only.
    pub properties: Properties,
    /// The filters in order, at least one.
    pub filters: Vec<Result<TopicFilter, FilterError>>,
}

/// A server's answer to UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsuback {
    /// The packet identifier of the UNSUBSCRIBE.
    pub packet_id: NonZeroU16,
    /// One reason code for each filter, in order; before MQTT 5 there are none.
    pub reasons: Vec<Reason>,
    /// Reason string and user properties, MQTT 5 only.
    pub properties: Properties,
}

/// Packet identifier and properties: how all four begin.
fn read_head(
    reader: &mut Reader<'_>,
    version: Version,
    packet: PacketType,
) -> Result<(NonZeroU16, Properties), DecodeError> {
    let packet_id = reader.packet_id()?;
    if !version.is_v5() {
        return Ok((packet_id, Properties::new()));
    }
    Ok((packet_id, Properties::decode(reader, Place::of(packet))?))
}

fn put_head(
    out: &mut BytesMut,
    version: Version,
    packet: PacketType,
    (packet_id, properties): (NonZeroU16, &Properties),
) {
    out.put_u16(packet_id.get());
    if version.is_v5() {
        properties.encode(Place::of(packet), out);
    }
}

fn put_filter(out: &mut BytesMut, filter: &Result<TopicFilter, FilterError>) {
    match filter {
        Ok(filter) => wire::put_str(out, filter.as_str()),
        Err(error) => wire::put_str(out, &error.filter),
    }
}

impl Subscribe {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        const PACKET: PacketType = PacketType::Subscribe;
        wire::put_packet(out, PACKET.first_byte(), |out| {
            put_head(out, version, PACKET, (self.packet_id, &self.properties));
            for (filter, options) in &self.filters {
                put_filter(out, filter);
                out.put_u8(if version.is_v5() {
                    options.as_u8()
                } else {
                    options.qos.as_u8()
                });
            }
        });
    }

    pub(crate) fn decode(version: Version, mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        const PACKET: PacketType = PacketType::Subscribe;
        let (packet_id, properties) = read_head(&mut reader, version, PACKET)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let filter = TopicFilter::new(reader.str()?);
            let options = SubscriptionOptions::decode(reader.u8()?, version, reader.strict)?;
            if options.no_local && filter.as_ref().is_ok_and(TopicFilter::is_shared) {
                return Err(DecodeError::NoLocalOnShared);
            }
            filters.push((filter, options));
        }
        if filters.is_empty() {
            return Err(DecodeError::NoEntries(PACKET));
        }
        Ok(Self {
            packet_id,
            properties,
            filters,
        })
    }
}

impl Suback {
    /// Appends the packet; before MQTT 5 with the return codes [`Reason::suback_v3`] gives.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        const PACKET: PacketType = PacketType::Suback;
        wire::put_packet(out, PACKET.first_byte(), |out| {
            put_head(out, version, PACKET, (self.packet_id, &self.properties));
            for reason in &self.reasons {
                out.put_u8(if version.is_v5() {
                    reason.as_u8()
                } else {
                    reason.suback_v3()
                });
            }
        });
    }

    pub(crate) fn decode(version: Version, mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        const PACKET: PacketType = PacketType::Suback;
        let (packet_id, properties) = read_head(&mut reader, version, PACKET)?;
        let mut reasons = Vec::with_capacity(reader.len());
        while !reader.is_empty() {
            let reason = read_reason(&mut reader, PACKET)?;
            if !version.is_v5() && reason.suback_v3() != reason.as_u8() {
                return Err(DecodeError::ReasonCode {
                    packet: PACKET,
                    code: reason.as_u8(),
                });
            }
            reasons.push(reason);
        }
        if reasons.is_empty() {
            return Err(DecodeError::NoEntries(PACKET));
        }
        Ok(Self {
            packet_id,
            reasons,
            properties,
        })
    }
}

impl Unsubscribe {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        const PACKET: PacketType = PacketType::Unsubscribe;
        wire::put_packet(out, PACKET.first_byte(), |out| {
            put_head(out, version, PACKET, (self.packet_id, &self.properties));
            for filter in &self.filters {
                put_filter(out, filter);
            }
        });
    }

    pub(crate) fn decode(version: Version, mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        const PACKET: PacketType = PacketType::Unsubscribe;
        let (packet_id, properties) = read_head(&mut reader, version, PACKET)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            filters.push(TopicFilter::new(reader.str()?));
        }
        if filters.is_empty() {
            return Err(DecodeError::NoEntries(PACKET));
        }
        Ok(Self {
            packet_id,
            properties,
            filters,
        })
    }
}

impl Unsuback {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        const PACKET: PacketType = PacketType::Unsuback;
        wire::put_packet(out, PACKET.first_byte(), |out| {
            put_head(out, version, PACKET, (self.packet_id, &self.properties));
            if version.is_v5() {
                self.reasons
                    .iter()
                    .for_each(|reason| out.put_u8(reason.as_u8()));
            }
        });
    }

    pub(crate) fn decode(version: Version, mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        const PACKET: PacketType = PacketType::Unsuback;
        let (packet_id, properties) = read_head(&mut reader, version, PACKET)?;
        let mut reasons = Vec::with_capacity(reader.len());
        if version.is_v5() {
            while !reader.is_empty() {
                reasons.push(read_reason(&mut reader, PACKET)?);
            }
            if reasons.is_empty() {
                return Err(DecodeError::NoEntries(PACKET));
            }
        }
        reader.end()?;
        Ok(Self {
            packet_id,
            reasons,
            properties,
        })
    }
}
