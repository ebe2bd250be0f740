//! A blocking MQTT connection: just enough to set a scenario up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use dunlin_mqtt::{Connect, Limits, Packet, QoS};

use crate::access::Access;
use crate::stream::Stream;
use crate::target::Endpoint;
use crate::wire::{self, CONNACK, DISCONNECT, Frame, GRANTED_MAX, SUBACK};

/// No broker worth measuring takes longer for an answer; a longer silence is a failure.
const ANSWER: Duration = Duration::from_secs(30);

/// A session that is kept is kept so long, seconds; MQTT 5 wants to know.
const SESSION_EXPIRY: u32 = 3_600;

/// What becomes of the session when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Session,
}

/// A CONNECT. Nobody sends pings: a keepalive has to be longer than the run.
pub(crate) fn connect_packet(client_id: &str, access: &Access, keep: Keep) -> Vec<u8> {
    let version = access.version();
    let mut connect = Connect::new(version, client_id);
    connect.clean_start = keep == Keep::Nothing;
    connect.keepalive = access.keepalive;
    connect.username = access.username.as_deref().map(Into::into);
    connect.password = access.password.clone().map(Into::into);
    if access.is_v5 && keep == Keep::Session {
        let properties = &mut connect.properties;
        properties.set_session_expiry_interval(SESSION_EXPIRY);
    }
    let mut out = BytesMut::new();
    connect.encode(version, &mut out);
    out.to_vec()
}

/// Connects with a clean session and waits for CONNACK.
pub(crate) fn connect(endpoint: &Endpoint, client_id: &str) -> anyhow::Result<Stream> {
    connect_and(endpoint, client_id, Keep::Nothing)
}

/// Connects and waits for CONNACK.
pub(crate) fn connect_and(
    endpoint: &Endpoint,
    client_id: &str,
    keep: Keep,
) -> anyhow::Result<Stream> {
    let mut stream = open(endpoint)?;
    stream.write_all(&connect_packet(client_id, &endpoint.access, keep))?;
    welcome(&mut stream, endpoint)?;
    Ok(stream)
}

/// A connection that has said nothing of MQTT.
pub(crate) fn open(endpoint: &Endpoint) -> anyhow::Result<Stream> {
    let address = endpoint.address;
    let tcp = TcpStream::connect_timeout(&address, ANSWER).with_context(|| {
        format!("{address}: is the broker running? Name another one behind the scenario")
    })?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(ANSWER))?;
    Stream::new(tcp, endpoint)
}

/// Waits for CONNACK.
pub(crate) fn welcome(stream: &mut Stream, endpoint: &Endpoint) -> anyhow::Result<()> {
    let address = endpoint.address;
    let answer = next(stream).with_context(|| address.to_string())?;
    match &answer[..answer.len().min(4)] {
        [CONNACK, _, _, 0] => {}
        // Bad user name or password, not authorized; by MQTT 3.1.1 and 5.
        [CONNACK, _, _, 4 | 5 | 0x86 | 0x87] => {
            bail!("{address} refused CONNECT: not authorized. Use --username and --password")
        }
        _ => bail!("{address} refused CONNECT: {answer:?}"),
    }
    stream.receive_max = receive_max(&answer, &endpoint.access)?;
    Ok(())
}

/// How many messages a broker takes before it has acknowledged one.
pub(crate) fn receive_max(connack: &[u8], access: &Access) -> anyhow::Result<u16> {
    if !access.is_v5 {
        return Ok(u16::MAX);
    }
    let packet = dunlin_mqtt::decode(
        &mut BytesMut::from(connack),
        access.version(),
        &Limits::default(),
    )?;
    let Some(Packet::Connack(connack)) = packet else {
        bail!("CONNECT was answered by {packet:?}");
    };
    Ok(connack.properties.receive_maximum().unwrap_or(u16::MAX))
}

/// Subscribes and waits for SUBACK.
pub(crate) fn subscribe(
    stream: &mut Stream,
    access: &Access,
    filters: &[String],
    qos: QoS,
) -> anyhow::Result<()> {
    let version = access.version();
    let mut out = Vec::new();
    for chunk in filters.chunks(wire::SUBSCRIBE_FILTERS) {
        out.clear();
        wire::subscribe((1, version), chunk, qos, &mut out);
        stream.write_all(&out)?;
        let answer = receive(stream, SUBACK)?;
        let codes = wire::codes(&answer, version)?;
        let refused = codes.iter().filter(|&&code| code > GRANTED_MAX).count();
        ensure!(refused == 0, "{refused} of {} filters refused", chunk.len());
    }
    Ok(())
}

/// Reads one packet of this type; answers its body.
pub(crate) fn receive(stream: &mut Stream, kind: u8) -> anyhow::Result<Vec<u8>> {
    let packet = next(stream)?;
    let found = packet[0];
    ensure!(found == kind, "packet {found:#x} instead of {kind:#x}");
    let frame = Frame::first(&packet)?.context("a whole packet")?;
    Ok(frame.body().to_vec())
}

/// Reads one packet, and nothing beyond it that belongs to whoever reads next: its header byte by
/// byte, then the rest at once.
pub(crate) fn next(stream: &mut Stream) -> anyhow::Result<Vec<u8>> {
    let mut packet = Vec::new();
    let mut left = loop {
        if let Some((_, len)) = wire::header(&packet)? {
            break len;
        }
        let mut byte = [0];
        let count = stream.read(&mut byte).context("waiting for an answer")?;
        ensure!(count == 1, "the broker closed the connection");
        packet.push(byte[0]);
    };
    while left > 0 {
        let at = packet.len();
        packet.resize(at + left, 0);
        let count = stream
            .read(&mut packet[at..])
            .context("waiting for an answer")?;
        ensure!(count > 0, "the broker closed the connection");
        packet.truncate(at + count);
        left -= count;
    }
    Ok(packet)
}

/// Says good-bye and waits until the broker has closed: what it has to clean up is then under way
/// and falls on nobody else's measurement, and the port is free at once for the next connection.
pub(crate) fn disconnect(mut stream: Stream) -> anyhow::Result<()> {
    stream.tcp().set_nonblocking(false)?;
    stream.write_all(&[DISCONNECT, 0])?;
    stream.flush()?;
    let mut sink = [0; 4096];
    while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
    Ok(())
}
