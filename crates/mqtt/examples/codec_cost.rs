//! Nanoseconds to decode and to encode a 64-byte `QoS` 0 PUBLISH, the packet a busy broker sees
//! most. Run in release: `cargo run --release -p dunlin-mqtt --example codec_cost`.
#![allow(clippy::print_stdout)]
// An example is not the core: it may look at the clock.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use dunlin_mqtt::{Limits, Outgoing, Packet, QoS, Version, decode, encode_publish};

/// Size of the payload in bytes.
const PAYLOAD_LEN: usize = 64;
/// Packets in one buffer, as after one read of a busy socket.
const BATCH: usize = 64;
/// Buffers in one measurement.
const ROUNDS: usize = 20_000;
/// Measurements; the best counts, because everything that disturbs one makes it longer.
const MEASUREMENTS: usize = 7;

fn best_ns(mut round: impl FnMut() -> f64) -> f64 {
    (0..MEASUREMENTS)
        .map(|_| round())
        .fold(f64::INFINITY, f64::min)
}

fn per_packet(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e9 / (ROUNDS * BATCH) as f64
}

fn encode_ns(version: Version, outgoing: &Outgoing<'_>) -> f64 {
    let mut out = BytesMut::with_capacity(BATCH * 256);
    best_ns(|| {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            out.clear();
            for _ in 0..BATCH {
                encode_publish(version, black_box(outgoing), &mut out);
            }
            black_box(&out);
        }
        per_packet(started)
    })
}

/// Decoding, looking at topic and payload, and dropping, with the receive buffer refilled between
/// batches; the cost of refilling is measured alone and taken off.
fn decode_ns(version: Version, wire: &[u8]) -> f64 {
    let limits = Limits::default();
    let mut buf = BytesMut::with_capacity(wire.len());
    let refill = best_ns(|| {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            buf.clear();
            buf.extend_from_slice(black_box(wire));
            black_box(&buf);
        }
        per_packet(started)
    });
    let whole = best_ns(|| {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            buf.clear();
            buf.extend_from_slice(black_box(wire));
            while let Ok(Some(packet)) = decode(&mut buf, version, &limits) {
                if let Packet::Publish(publish) = &packet {
                    black_box((publish.topic().len(), publish.payload().len()));
                }
            }
        }
        per_packet(started)
    });
    println!("  refilling the buffer {refill:6.1} ns");
    whole - refill
}

fn main() {
    let payload = [b'x'; PAYLOAD_LEN];
    let mut properties = dunlin_mqtt::Properties::new();
    properties
        .set_content_type("text/plain")
        .push_user_property("site", "north");
    let raw = properties.raw_forwardable();
    for (name, version, forwarded) in [
        ("3.1.1", Version::V3_1_1, &[][..]),
        ("5", Version::V5, &[][..]),
        ("5, two properties", Version::V5, &raw[..]),
    ] {
        let outgoing = Outgoing {
            topic: b"site/12/line/3/temperature",
            payload: &payload,
            qos: QoS::AtMostOnce,
            retain: false,
            dup: false,
            packet_id: None,
            topic_alias: None,
            subscription_ids: &[],
            message_expiry_interval: None,
            forwarded,
        };
        let mut wire = BytesMut::new();
        for _ in 0..BATCH {
            encode_publish(version, &outgoing, &mut wire);
        }
        println!("MQTT {name}: packets of {} bytes", wire.len() / BATCH);
        println!("  decode {:6.1} ns", decode_ns(version, &wire));
        println!("  encode {:6.1} ns", encode_ns(version, &outgoing));
    }
}
