//! A blocking MQTT 3.1.1 connection: just enough to set a scenario up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use dunlin_mqtt::{Connect, QoS, Version};

use crate::wire::{self, CONNACK, DISCONNECT, Frame, SUBACK};

/// No broker worth measuring takes longer for an answer; a longer silence is a failure.
const ANSWER: Duration = Duration::from_secs(30);

/// A CONNECT with a clean session and no keepalive.
pub(crate) fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut connect = Connect::new(Version::V3_1_1, client_id);
    connect.clean_start = true;
    connect.keepalive = 0;
    let mut out = BytesMut::new();
    connect.encode(Version::V3_1_1, &mut out);
    out.to_vec()
}

/// Connects and waits for CONNACK.
pub(crate) fn connect(address: SocketAddr, client_id: &str) -> anyhow::Result<TcpStream> {
    let mut stream =
        TcpStream::connect_timeout(&address, ANSWER).with_context(|| format!("{address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&connect_packet(client_id))?;
    let answer = receive(&mut stream, CONNACK)?;
    match answer.as_slice() {
        [_, 0] => Ok(stream),
        other => bail!("{address} refused CONNECT: {other:?}"),
    }
}

/// Subscribes and waits for SUBACK.
pub(crate) fn subscribe(
    stream: &mut TcpStream,
    filters: &[String],
    qos: QoS,
) -> anyhow::Result<()> {
    let mut out = Vec::new();
    for chunk in filters.chunks(wire::SUBSCRIBE_FILTERS) {
        out.clear();
        wire::subscribe(1, chunk, qos, &mut out);
        stream.write_all(&out)?;
        let answer = receive(stream, SUBACK)?;
        let refused = answer.iter().skip(2).filter(|&&code| code > 2).count();
        ensure!(refused == 0, "{refused} of {} filters refused", chunk.len());
    }
    Ok(())
}

/// Reads one packet of this type; answers its body. Reads byte by byte, so that nothing that
/// follows is taken from whoever reads next.
pub(crate) fn receive(stream: &mut TcpStream, kind: u8) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(frame) = Frame::first(&bytes)? {
            let found = frame.kind();
            ensure!(found == kind, "packet {found:#x} instead of {kind:#x}");
            return Ok(frame.body().to_vec());
        }
        let mut byte = [0];
        let count = stream.read(&mut byte).context("waiting for an answer")?;
        ensure!(count == 1, "the broker closed the connection");
        bytes.push(byte[0]);
    }
}

/// Says good-bye and waits until the broker has closed: what it has to clean up is then under way
/// and falls on nobody else's measurement, and the port is free at once for the next connection.
pub(crate) fn disconnect(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nonblocking(false)?;
    stream.write_all(&[DISCONNECT, 0])?;
    let mut sink = [0; 4096];
    while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
    Ok(())
}
