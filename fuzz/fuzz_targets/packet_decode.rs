//! Packet decoding on arbitrary bytes: it answers, it leaves what it does not take, what it takes
//! in strict mode is written again and read back the same.
#![no_main]

use bytes::BytesMut;
use dunlin_mqtt::{Limits, Packet, Version, decode};
use libfuzzer_sys::fuzz_target;

/// Largest packet in bytes; libFuzzer's inputs are far shorter.
const MAX_PACKET_SIZE_BYTES: u32 = 1 << 20;

fn read_back(version: Version, packet: Packet, limits: &Limits) {
    let mut wire = BytesMut::new();
    packet.encode(version, &mut wire);
    let read = decode(&mut wire, version, limits);
    assert_eq!(read, Ok(Some(packet)));
    assert!(wire.is_empty());
}

fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let version = Version::ALL[usize::from(first >> 1) % Version::ALL.len()];
    let limits = Limits {
        max_packet_size: MAX_PACKET_SIZE_BYTES,
        strict: first & 1 == 0,
    };
    let mut buf = BytesMut::from(bytes);
    loop {
        let before = buf.len();
        match decode(&mut buf, version, &limits) {
            Ok(Some(packet)) => {
                assert!(buf.len() < before);
                if let Packet::Publish(publish) = &packet {
                    assert!(publish.properties().forwardable().len() <= bytes.len());
                }
                if limits.strict {
                    read_back(version, packet, &limits);
                }
            }
            Ok(None) | Err(_) => {
                assert_eq!(buf.len(), before);
                return;
            }
        }
    }
});
