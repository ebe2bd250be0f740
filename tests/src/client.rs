//! A minimal MQTT 3.1.1 client on a plain socket, for what the ready-made clients cannot show: the
//! exact moment of an acknowledgement, and what follows at once.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Nothing awaited may take longer.
const LIMIT: Duration = Duration::from_secs(10);

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBACK: u8 = 9;
const PINGRESP: u8 = 13;

/// A message that was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Topic name.
    pub topic: String,
    /// Payload as text.
    pub payload: String,
    /// QoS it was delivered at.
    pub qos: u8,
    /// Whether it was replayed as a retained message.
    pub retain: bool,
    /// Whether it was sent before.
    pub dup: bool,
}

/// A connected client. Dropping it breaks the connection without DISCONNECT.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: VecDeque<Message>,
    next_id: u16,
    /// What CONNACK said.
    pub session_present: bool,
}

struct Packet {
    kind: u8,
    flags: u8,
    body: Vec<u8>,
}

impl Client {
    /// Connects; `clean` asks for a new session.
    pub fn connect(address: SocketAddr, clientid: &str, clean: bool) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            received: VecDeque::new(),
            next_id: 0,
            session_present: false,
        };
        // Protocol level 4 (MQTT 3.1.1), keep alive 60 s.
        let mut body = text("MQTT");
        body.extend([4, u8::from(clean) << 1, 0, 60]);
        body.extend(text(clientid));
        client.send(1 << 4, &body)?;
        let connack = client.read()?;
        ensure!(
            connack.kind == CONNACK,
            "CONNACK expected, got type {}",
            connack.kind
        );
        ensure!(
            connack.body[1] == 0,
            "connection refused, return code {}",
            connack.body[1]
        );
        client.session_present = connack.body[0] & 1 == 1;
        Ok(client)
    }

    /// Subscribes and waits for SUBACK.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let id = self.id();
        let mut body = id.to_be_bytes().to_vec();
        body.extend(text(filter));
        body.push(qos);
        self.send(0x82, &body)?;
        let suback = self.wait(SUBACK, id)?;
        ensure!(
            suback.body[2] == qos,
            "QoS {qos} granted: {}",
            suback.body[2]
        );
        Ok(())
    }

    /// Subscribes to many filters with one packet and waits for SUBACK.
    pub fn subscribe_all(&mut self, filters: &[String], qos: u8) -> Result<()> {
        let id = self.id();
        let mut body = id.to_be_bytes().to_vec();
        for filter in filters {
            body.extend(text(filter));
            body.push(qos);
        }
        self.send(0x82, &body)?;
        let suback = self.wait(SUBACK, id)?;
        let granted = suback.body[2..].iter().filter(|code| **code == qos);
        ensure!(granted.count() == filters.len(), "QoS {qos} granted to all");
        Ok(())
    }

    /// Publishes and, for QoS 1 and 2, waits until the broker has taken the message.
    pub fn publish(&mut self, topic: &str, payload: &str, qos: u8, retain: bool) -> Result<()> {
        let id = self.send_publish(topic, payload, qos, retain)?;
        match qos {
            0 => Ok(()),
            1 => self.wait(PUBACK, id).map(drop),
            _ => {
                self.wait(PUBREC, id)?;
                self.send(0x62, &id.to_be_bytes())?;
                self.wait(PUBCOMP, id).map(drop)
            }
        }
    }

    /// Sends a PUBLISH and waits for nothing.
    pub fn send_publish(
        &mut self,
        topic: &str,
        payload: &str,
        qos: u8,
        retain: bool,
    ) -> Result<u16> {
        let id = if qos > 0 { self.id() } else { 0 };
        let mut body = text(topic);
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        body.extend(payload.as_bytes());
        self.send(0x30 | qos << 1 | u8::from(retain), &body)?;
        Ok(id)
    }

    /// The next message; acknowledged at once.
    pub fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = self.received.pop_front() {
                return Ok(message);
            }
            let packet = self.read().context("waiting for a message")?;
            self.take(&packet)?;
        }
    }

    /// The payload of the next message.
    pub fn receive_payload(&mut self) -> Result<String> {
        Ok(self.receive()?.payload)
    }

    /// Nothing was delivered before an answer to this PINGREQ, and the connection is alive.
    pub fn ping(&mut self) -> Result<()> {
        self.send(0xC0, &[])?;
        self.wait(PINGRESP, 0).map(drop)
    }

    /// Messages delivered and not yet taken by [`Client::receive`].
    pub fn pending(&self) -> usize {
        self.received.len()
    }

    /// Waits until the broker closes the connection.
    pub fn closed(&mut self) -> Result<()> {
        loop {
            match self.read() {
                Ok(packet) => self.take(&packet)?,
                Err(error) => {
                    let timed_out = error.downcast_ref::<std::io::Error>().is_some_and(|error| {
                        matches!(
                            error.kind(),
                            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        )
                    });
                    ensure!(!timed_out, "the broker did not close the connection");
                    return Ok(());
                }
            }
        }
    }

    /// DISCONNECT.
    pub fn disconnect(mut self) -> Result<()> {
        self.send(0xE0, &[])
    }

    fn id(&mut self) -> u16 {
        self.next_id = self.next_id % u16::MAX + 1;
        self.next_id
    }

    /// Reads until a packet of this type with this packet id; keeps messages that come before.
    fn wait(&mut self, kind: u8, id: u16) -> Result<Packet> {
        loop {
            let packet = self
                .read()
                .with_context(|| format!("waiting for packet type {kind}"))?;
            let has_id = kind != PINGRESP;
            if packet.kind == kind && (!has_id || packet.body.starts_with(&id.to_be_bytes())) {
                return Ok(packet);
            }
            self.take(&packet)?;
        }
    }

    fn take(&mut self, packet: &Packet) -> Result<()> {
        match packet.kind {
            PUBLISH => self.take_publish(packet),
            PUBREL => self.send(PUBCOMP << 4, &packet.body[..2]),
            // Of a PUBLISH that was sent without waiting.
            PUBACK => Ok(()),
            other => bail!("packet of type {other} at a moment when none was expected"),
        }
    }

    fn take_publish(&mut self, packet: &Packet) -> Result<()> {
        let qos = packet.flags >> 1 & 3;
        let (topic, rest) = split_text(&packet.body)?;
        let (id, payload) = if qos > 0 {
            rest.split_at(2)
        } else {
            (&[][..], rest)
        };
        let message = Message {
            topic,
            payload: String::from_utf8_lossy(payload).into_owned(),
            qos,
            retain: packet.flags & 1 == 1,
            dup: packet.flags & 8 == 8,
        };
        self.received.push_back(message);
        match qos {
            0 => Ok(()),
            1 => self.send(PUBACK << 4, id),
            _ => self.send(PUBREC << 4, id),
        }
    }

    fn send(&mut self, first: u8, body: &[u8]) -> Result<()> {
        let mut packet = vec![first];
        let mut length = body.len();
        loop {
            let more = length >= 128;
            packet.push((length % 128) as u8 | u8::from(more) << 7);
            length /= 128;
            if !more {
                break;
            }
        }
        packet.extend(body);
        Ok(self.stream.write_all(&packet)?)
    }

    fn read(&mut self) -> Result<Packet> {
        let first = self.byte()?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.byte()?;
            length |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                break;
            }
            ensure!(shift < 28, "remaining length of more than four bytes");
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Packet {
            kind: first >> 4,
            flags: first & 15,
            body,
        })
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn split_text(body: &[u8]) -> Result<(String, &[u8])> {
    let (length, rest) = body.split_at_checked(2).context("a string has a length")?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let (text, rest) = rest
        .split_at_checked(length)
        .context("a string is as long as it says")?;
    Ok((String::from_utf8(text.to_vec())?, rest))
}
