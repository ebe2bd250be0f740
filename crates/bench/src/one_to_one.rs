//! One publisher to one subscriber, closed loop: at most [`WINDOW`] messages are under way, so that
//! no broker's queue overflows and nothing is dropped.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::BytesMut;
use dunlin_mqtt::{Ack, AckKind, Outgoing, Properties, QoS, Reason, Version, encode_publish};

use crate::{Plan, Target, client, process};

/// Messages under way; EMQX and Mosquitto queue at most 1,000 for a subscriber.
const WINDOW: u64 = 500;
/// Messages written per system call, when the window has room for them.
const BURST: u64 = 50;
const TOPIC: &str = "bench/one-to-one";

/// One measurement of one target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    /// Processor time of the broker, when its process is known.
    pub(crate) cpu: Option<Duration>,
}

/// Runs every target in every round; the results are per target, in rounds.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Vec<Vec<Sample>>> {
    let mut results = vec![Vec::new(); plan.targets.len()];
    for round in 0..plan.rounds {
        for (target, samples) in plan.targets.iter().zip(&mut results) {
            eprintln!("round {}/{}: {}", round + 1, plan.rounds, target.name);
            let sample = measure(plan, target).with_context(|| target.name.clone())?;
            samples.push(sample);
        }
    }
    Ok(results)
}

fn measure(plan: &Plan, target: &Target) -> anyhow::Result<Sample> {
    let qos = if plan.qos == 0 {
        QoS::AtMostOnce
    } else {
        QoS::AtLeastOnce
    };
    let mut subscriber = client::connect(target.address, "bench-subscriber")?;
    client::subscribe(&mut subscriber, TOPIC, qos)?;
    let publisher = client::connect(target.address, "bench-publisher")?;
    let payload = vec![b'x'; plan.payload_bytes];
    let packet_bytes = packet(qos, 1, &payload).len();

    let received = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let cpu_before = target.pid.map(process::cpu).transpose()?;
    let started = Instant::now();
    let counter = received.clone();
    let reader = thread::spawn(move || read(subscriber, qos, packet_bytes, &counter));
    let acks = publisher.try_clone()?;
    let drain = thread::spawn(move || discard(acks));
    let writer = {
        let (received, stop) = (received.clone(), stop.clone());
        thread::spawn(move || write(publisher, qos, &payload, &received, &stop))
    };
    thread::sleep(plan.duration);
    let messages = received.load(Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let cpu_after = target.pid.map(process::cpu).transpose()?;
    stop.store(true, Ordering::Relaxed);
    let sent = writer.join().expect("the writer does not panic")?;
    let total = reader.join().expect("the reader does not panic")?;
    drain.join().expect("the drain does not panic");
    ensure!(total <= sent, "{total} received of {sent} sent: duplicates");
    let cpu = cpu_after
        .zip(cpu_before)
        .map(|(after, before)| after.saturating_sub(before));
    Ok(Sample {
        messages,
        seconds,
        cpu,
    })
}

fn packet(qos: QoS, packet_id: u16, payload: &[u8]) -> BytesMut {
    let outgoing = Outgoing {
        topic: TOPIC,
        payload,
        qos,
        retain: false,
        dup: false,
        packet_id: if qos == QoS::AtMostOnce {
            None
        } else {
            NonZeroU16::new(packet_id)
        },
        topic_alias: None,
        subscription_ids: &[],
        message_expiry_interval: None,
        forwarded: &[],
    };
    let mut out = BytesMut::new();
    encode_publish(Version::V3_1_1, &outgoing, &mut out);
    out
}

/// Publishes as fast as the window allows; answers how many messages were sent.
fn write(
    mut stream: TcpStream,
    qos: QoS,
    payload: &[u8],
    received: &AtomicU64,
    stop: &AtomicBool,
) -> anyhow::Result<u64> {
    let mut sent = 0;
    let mut burst = BytesMut::new();
    while !stop.load(Ordering::Relaxed) {
        let under_way = sent - received.load(Ordering::Relaxed);
        let room = (WINDOW - under_way.min(WINDOW)).min(BURST);
        if room < BURST {
            thread::yield_now();
            continue;
        }
        burst.clear();
        for index in 0..room {
            // Ids of one window never meet again: the window is far smaller than 65,535.
            let packet_id = ((sent + index) % 65_535 + 1) as u16;
            burst.extend_from_slice(&packet(qos, packet_id, payload));
        }
        stream.write_all(&burst).context("publishing")?;
        sent += room;
    }
    stream.shutdown(std::net::Shutdown::Both)?;
    Ok(sent)
}

/// Counts messages by bytes (all have the same length) and acknowledges them.
fn read(
    mut stream: TcpStream,
    qos: QoS,
    packet_bytes: usize,
    received: &AtomicU64,
) -> anyhow::Result<u64> {
    // The last message of a run is followed by silence.
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = vec![0; 256 * 1024];
    let mut held = 0;
    let mut total = 0;
    let mut acks = BytesMut::new();
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer[held..]) else {
            return Ok(total);
        };
        let whole = (held + count) / packet_bytes;
        if qos != QoS::AtMostOnce {
            acknowledge(&buffer[..whole * packet_bytes], packet_bytes, &mut acks);
            stream.write_all(&acks)?;
        }
        total += whole as u64;
        received.store(total, Ordering::Relaxed);
        buffer.copy_within(whole * packet_bytes..held + count, 0);
        held = held + count - whole * packet_bytes;
    }
}

/// One PUBACK for each PUBLISH, with its packet id, which follows the topic.
fn acknowledge(packets: &[u8], packet_bytes: usize, acks: &mut BytesMut) {
    acks.clear();
    let head = 1 + remaining_length_bytes(packet_bytes) + 2 + TOPIC.len();
    for packet in packets.chunks_exact(packet_bytes) {
        let id = u16::from_be_bytes([packet[head], packet[head + 1]]);
        let packet_id = NonZeroU16::new(id).unwrap_or(NonZeroU16::MIN);
        let properties = Properties::default();
        let ack = Ack {
            kind: AckKind::Puback,
            packet_id,
            reason: Reason::Success,
            properties,
        };
        ack.encode(Version::V3_1_1, acks);
    }
}

fn remaining_length_bytes(packet_bytes: usize) -> usize {
    match packet_bytes {
        0..=129 => 1,
        130..=16_386 => 2,
        _ => 3,
    }
}

/// Reads the broker's acknowledgements away.
fn discard(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(None);
    let mut buffer = [0; 64 * 1024];
    while let Ok(1..) = stream.read(&mut buffer) {}
}
