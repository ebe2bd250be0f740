//! A blocking MQTT 3.1.1 connection: just enough to set a scenario up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use dunlin_mqtt::{
    Connect, Limits, Packet, Properties, QoS, Reason, Subscribe, SubscriptionOptions, TopicFilter,
    Version, decode,
};

/// No broker worth measuring takes longer for an answer; a longer silence is a failure.
const ANSWER: Duration = Duration::from_secs(10);

/// Connects and waits for CONNACK.
pub(crate) fn connect(address: SocketAddr, client_id: &str) -> anyhow::Result<TcpStream> {
    let mut stream =
        TcpStream::connect_timeout(&address, ANSWER).with_context(|| format!("{address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut connect = Connect::new(Version::V3_1_1, client_id);
    connect.clean_start = true;
    connect.keepalive = 0;
    send(&mut stream, &Packet::Connect(Box::new(connect)))?;
    match receive(&mut stream)? {
        Packet::Connack(connack) => {
            ensure!(
                connack.reason == Reason::Success,
                "{address} refused: {:?}",
                connack.reason
            );
            Ok(stream)
        }
        other => bail!("{address} answered CONNECT with {other:?}"),
    }
}

/// Subscribes and waits for SUBACK.
pub(crate) fn subscribe(stream: &mut TcpStream, filter: &str, qos: QoS) -> anyhow::Result<()> {
    let filter = TopicFilter::new(filter).context("the bench's own filter")?;
    let options = SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    };
    let packet_id = NonZeroU16::MIN;
    let filters = vec![(Ok(filter), options)];
    let subscribe = Subscribe {
        packet_id,
        properties: Properties::default(),
        filters,
    };
    send(stream, &Packet::Subscribe(subscribe))?;
    match receive(stream)? {
        Packet::Suback(_) => Ok(()),
        other => bail!("SUBSCRIBE was answered with {other:?}"),
    }
}

fn send(stream: &mut TcpStream, packet: &Packet) -> anyhow::Result<()> {
    let mut out = BytesMut::new();
    packet.encode(Version::V3_1_1, &mut out);
    stream.write_all(&out).context("writing")
}

fn receive(stream: &mut TcpStream) -> anyhow::Result<Packet> {
    let mut buffer = BytesMut::new();
    loop {
        if let Some(packet) = decode(&mut buffer, Version::V3_1_1, &Limits::default())? {
            return Ok(packet);
        }
        let mut byte = [0];
        ensure!(
            stream.read(&mut byte).context("waiting for an answer")? == 1,
            "closed"
        );
        buffer.extend_from_slice(&byte);
    }
}
