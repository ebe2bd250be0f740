//! CONNECT with its will, and CONNACK (§3.1, §3.2).

use bytes::{BufMut, Bytes, BytesMut};

use super::PacketType;
use super::ack::read_reason;
use crate::error::DecodeError;
use crate::property::{Place, Properties};
use crate::reason::Reason;
use crate::topic::TopicName;
use crate::version::{QoS, Version};
use crate::wire::{self, Reader};

/// Set in the protocol level by bridges that want their own publishes not sent back; an agreement
/// between brokers from the time of 3.1, not part of the specification.
const BRIDGE: u8 = 0x80;

mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_QOS: u8 = 0x18;
    pub(super) const WILL_QOS_SHIFT: u8 = 3;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USER_NAME: u8 = 0x80;
}

/// What a client opens a connection with.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// The version the connection will speak.
    pub version: Version,
    /// Whether an earlier session is forgotten (clean session before MQTT 5).
    pub clean_start: bool,
    /// Longest silence between two packets of the client, in seconds; 0 is no limit.
    pub keepalive: u16,
    /// The client identifier; empty asks the server to choose one.
    pub client_id: Box<str>,
    /// What is published when the connection ends without DISCONNECT.
    pub will: Option<Box<Will>>,
    /// User name.
    pub username: Option<Box<str>>,
    /// Password: any bytes.
    pub password: Option<Bytes>,
    /// Properties of the connection, MQTT 5 only.
    pub properties: Properties,
    /// Whether the client says it is a bridge (0x80 in the protocol level).
    pub bridge: bool,
}

/// A message kept for the day the connection breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Where to publish.
    pub topic: TopicName,
    /// What to publish.
    pub payload: Bytes,
    /// How often it may arrive.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Will delay and the properties of the message, MQTT 5 only.
    pub properties: Properties,
}

/// A server's answer to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connack {
    /// Whether the server had a session; only with success.
    pub session_present: bool,
    /// How it went.
    pub reason: Reason,
    /// What the server offers, MQTT 5 only.
    pub properties: Properties,
}

/// The password stays out of logs.
impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keepalive", &self.keepalive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("properties", &self.properties)
            .field("bridge", &self.bridge)
            .finish()
    }
}

impl Connect {
    /// A CONNECT with clean start and nothing else: no keep alive, will, credentials, properties.
    pub fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            clean_start: true,
            keepalive: 0,
            client_id: client_id.into(),
            will: None,
            username: None,
            password: None,
            properties: Properties::new(),
            bridge: false,
        }
    }

    /// Appends the packet as `version` writes it, whatever [`Connect::version`] says.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        wire::put_packet(out, PacketType::Connect.first_byte(), |out| {
            wire::put_str(out, version.proto_name());
            out.put_u8(version.level() | if self.bridge { BRIDGE } else { 0 });
            out.put_u8(self.flags());
            out.put_u16(self.keepalive);
            if version.is_v5() {
                self.properties.encode(Place::of(PacketType::Connect), out);
            }
            wire::put_str(out, &self.client_id);
            if let Some(will) = &self.will {
                will.encode(version, out);
            }
            if let Some(username) = &self.username {
                wire::put_str(out, username);
            }
            if let Some(password) = &self.password {
                wire::put_binary(out, password);
            }
        });
    }

    fn flags(&self) -> u8 {
        let mut flags = if self.clean_start { flag::CLEAN } else { 0 };
        if let Some(will) = &self.will {
            flags |= flag::WILL | will.qos.as_u8() << flag::WILL_QOS_SHIFT;
            flags |= if will.retain { flag::WILL_RETAIN } else { 0 };
        }
        flags |= if self.username.is_some() {
            flag::USER_NAME
        } else {
            0
        };
        flags
            | if self.password.is_some() {
                flag::PASSWORD
            } else {
                0
            }
    }

    pub(crate) fn decode(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let (version, bridge) = read_version(&mut reader)?;
        let flags = reader.u8()?;
        check_flags(flags, version, reader.strict)?;
        let keepalive = reader.u16()?;
        let properties = if version.is_v5() {
            Properties::decode(&mut reader, Place::of(PacketType::Connect))?
        } else {
            Properties::new()
        };
        let client_id = reader.str()?.into();
        let will = if flags & flag::WILL == 0 {
            None
        } else {
            Some(Box::new(Will::decode(flags, version, &mut reader)?))
        };
        let username = if flags & flag::USER_NAME == 0 {
            None
        } else {
            Some(reader.str()?.into())
        };
        let password = if flags & flag::PASSWORD == 0 {
            None
        } else {
            Some(Bytes::copy_from_slice(reader.binary()?))
        };
        reader.end()?;
        Ok(Self {
            version,
            clean_start: flags & flag::CLEAN != 0,
            keepalive,
            client_id,
            will,
            username,
            password,
            properties,
            bridge,
        })
    }
}

/// Reads protocol name and level: the version, and whether the bridge bit is set.
pub(crate) fn read_version(reader: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    let name = reader.binary()?;
    if Version::ALL
        .iter()
        .all(|version| version.proto_name().as_bytes() != name)
    {
        return Err(DecodeError::UnsupportedVersion { level: 0 });
    }
    let level = reader.u8()?;
    let version =
        Version::from_wire(name, level & !BRIDGE).ok_or(DecodeError::UnsupportedVersion {
            level: level & !BRIDGE,
        })?;
    Ok((version, level & BRIDGE != 0))
}

fn check_flags(flags: u8, version: Version, strict: bool) -> Result<(), DecodeError> {
    if strict && flags & flag::RESERVED != 0 {
        return Err(DecodeError::ConnectReserved);
    }
    if flags & flag::WILL == 0 && flags & (flag::WILL_QOS | flag::WILL_RETAIN) != 0 {
        return Err(DecodeError::WillFlags);
    }
    let lone_password = flags & flag::PASSWORD != 0 && flags & flag::USER_NAME == 0;
    if strict && lone_password && !version.is_v5() {
        return Err(DecodeError::PasswordWithoutUserName);
    }
    Ok(())
}

impl Will {
    fn encode(&self, version: Version, out: &mut BytesMut) {
        if version.is_v5() {
            self.properties.encode(Place::WILL, out);
        }
        wire::put_str(out, self.topic.as_str());
        wire::put_binary(out, &self.payload);
    }

    fn decode(flags: u8, version: Version, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let qos = QoS::from_u8((flags & flag::WILL_QOS) >> flag::WILL_QOS_SHIFT)
            .ok_or(DecodeError::Qos3)?;
        let properties = if version.is_v5() {
            Properties::decode(reader, Place::WILL)?
        } else {
            Properties::new()
        };
        let topic = TopicName::new(reader.str()?).map_err(DecodeError::Topic)?;
        let payload = Bytes::copy_from_slice(reader.binary()?);
        Ok(Self {
            topic,
            payload,
            qos,
            retain: flags & flag::WILL_RETAIN != 0,
            properties,
        })
    }
}

impl Connack {
    /// Appends the packet; before MQTT 5 with the return code [`Reason::connack_v3`] gives.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        // [MQTT-3.2.2-6]: no session is present when the answer is no; 3.1 has no such flag.
        let present = self.session_present && !self.reason.is_error() && version != Version::V3_1;
        wire::put_packet(out, PacketType::Connack.first_byte(), |out| {
            out.put_u8(u8::from(present));
            if version.is_v5() {
                out.put_u8(self.reason.as_u8());
                self.properties.encode(Place::of(PacketType::Connack), out);
            } else {
                out.put_u8(self.reason.connack_v3());
            }
        });
    }

    pub(crate) fn decode(version: Version, mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        const PACKET: PacketType = PacketType::Connack;
        let mut flags = reader.u8()?;
        // 3.1 does not use this byte and does not fix it either.
        if version == Version::V3_1 {
            flags = 0;
        }
        let (reason, properties) = if version.is_v5() {
            let reason = read_reason(&mut reader, PACKET)?;
            (reason, Properties::decode(&mut reader, Place::of(PACKET))?)
        } else {
            let code = reader.u8()?;
            let reason = Reason::from_connack_v3(code).ok_or(DecodeError::ReasonCode {
                packet: PACKET,
                code,
            })?;
            (reason, Properties::new())
        };
        reader.end()?;
        if reader.strict && (flags > 1 || flags == 1 && reason.is_error()) {
            return Err(DecodeError::ConnackFlags(flags));
        }
        Ok(Self {
            session_present: flags & 1 != 0,
            reason,
            properties,
        })
    }
}
