//! PUBLISH packets to and from bytes.

use std::hint::black_box;
use std::num::NonZeroU16;

use bytes::BytesMut;
use dunlin_mqtt::{Limits, Outgoing, Packet, Properties, QoS, Version, decode, encode_publish};

use crate::measured;

/// Packets in one buffer, as after one read of a busy socket.
const BATCH: usize = 64;
const ROUNDS: usize = 50;
const TOPIC: &str = "site/12/line/3/temperature";
const PAYLOAD: &[u8] = &[b'x'; 64];

pub(crate) fn decode_v3() {
    decode_batches(Version::V3_1_1, &[]);
}

pub(crate) fn decode_v5() {
    decode_batches(Version::V5, &properties());
}

pub(crate) fn encode_v3() {
    encode_batches(Version::V3_1_1, &[]);
}

pub(crate) fn encode_v5() {
    encode_batches(Version::V5, &properties());
}

fn properties() -> Vec<u8> {
    let mut properties = Properties::new();
    properties
        .set_content_type("text/plain")
        .push_user_property("site", "north");
    properties.raw_forwardable().to_vec()
}

fn outgoing(forwarded: &[u8], packet_id: u16) -> Outgoing<'_> {
    Outgoing {
        topic: TOPIC.as_bytes(),
        payload: PAYLOAD,
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: NonZeroU16::new(packet_id),
        topic_alias: None,
        subscription_ids: &[],
        message_expiry_interval: None,
        forwarded,
    }
}

fn fill(version: Version, forwarded: &[u8], out: &mut BytesMut) {
    for id in 1..=BATCH {
        encode_publish(version, black_box(&outgoing(forwarded, id as u16)), out);
    }
}

fn encode_batches(version: Version, forwarded: &[u8]) {
    let mut out = BytesMut::with_capacity(BATCH * 256);
    measured(|| {
        for _ in 0..ROUNDS {
            out.clear();
            fill(version, forwarded, &mut out);
            black_box(&out);
        }
    });
}

fn decode_batches(version: Version, forwarded: &[u8]) {
    let limits = Limits::default();
    let mut wire = BytesMut::new();
    fill(version, forwarded, &mut wire);
    let mut decoded = 0;
    measured(|| {
        for _ in 0..ROUNDS {
            let mut buf = BytesMut::from(&wire[..]);
            while let Ok(Some(packet)) = decode(&mut buf, version, &limits) {
                if let Packet::Publish(publish) = &packet {
                    black_box((publish.topic().len(), publish.payload().len()));
                    decoded += 1;
                }
            }
        }
    });
    assert_eq!(decoded, BATCH * ROUNDS, "every packet is read");
}
