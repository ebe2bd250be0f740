//! Packets no decoder may take, each with the reason code its sender is told.

use bytes::BytesMut;
use dunlin_mqtt::{DecodeError, Limits, Reason, Version, decode};

const V31: Version = Version::V3_1;
const V311: Version = Version::V3_1_1;
const V5: Version = Version::V5;

const MALFORMED: Reason = Reason::MalformedPacket;
const PROTOCOL: Reason = Reason::ProtocolError;
const TOPIC: Reason = Reason::TopicNameInvalid;
const ALIAS: Reason = Reason::TopicAliasInvalid;
const LARGE: Reason = Reason::PacketTooLarge;
const VERSION: Reason = Reason::UnsupportedProtocolVersion;

fn bytes(hex: &str) -> BytesMut {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hexadecimal digits are ASCII");
            u8::from_str_radix(pair, 16).expect("hexadecimal digits come in pairs")
        })
        .collect()
}

fn refused(version: Version, hex: &str) -> DecodeError {
    let mut buf = bytes(hex);
    let before = buf.clone();
    let answer = decode(&mut buf, version, &Limits::default());
    assert_eq!(buf, before, "{hex}: a refused packet is left in the buffer");
    match answer {
        Err(error) => error,
        Ok(packet) => panic!("{hex} in {version:?} is taken: {packet:?}"),
    }
}

type Vector = (Version, &'static str, Reason, &'static str);

fn check(vectors: &[Vector]) {
    for (version, hex, reason, why) in vectors {
        let error = refused(*version, hex);
        assert_eq!(error.reason(), *reason, "{why}: {hex} gives {error}");
    }
}

#[rustfmt::skip]
const FIXED_HEADER: &[Vector] = &[
    (V311, "00", MALFORMED, "type 0"),
    (V311, "f0 00", MALFORMED, "AUTH before MQTT 5"),
    (V31, "f0", MALFORMED, "AUTH before MQTT 5, by its first byte"),
    (V5, "11", MALFORMED, "CONNECT with flags, by its first byte"),
    (V5, "21", MALFORMED, "CONNACK with flags"),
    (V5, "42", MALFORMED, "PUBACK with flags"),
    (V5, "52", MALFORMED, "PUBREC with flags"),
    (V5, "60", MALFORMED, "PUBREL without its flags"),
    (V311, "6a 02 0001", MALFORMED, "PUBREL with DUP"),
    (V5, "72", MALFORMED, "PUBCOMP with flags"),
    (V5, "80", MALFORMED, "SUBSCRIBE without its flags"),
    (V311, "8a", MALFORMED, "SUBSCRIBE with DUP"),
    (V5, "92", MALFORMED, "SUBACK with flags"),
    (V5, "a0", MALFORMED, "UNSUBSCRIBE without its flags"),
    (V5, "b2", MALFORMED, "UNSUBACK with flags"),
    (V5, "c1", MALFORMED, "PINGREQ with flags"),
    (V5, "d8", MALFORMED, "PINGRESP with flags"),
    (V5, "e1", MALFORMED, "DISCONNECT with flags"),
    (V5, "f8", MALFORMED, "AUTH with flags"),
    (V311, "36", MALFORMED, "PUBLISH with QoS 3, by its first byte"),
    (V5, "3f", MALFORMED, "PUBLISH with QoS 3 and DUP"),
    (V311, "38", PROTOCOL, "DUP on QoS 0"),
    (V5, "39 04 0001 61 00", PROTOCOL, "DUP on retained QoS 0"),
    (V311, "c0 80 00", MALFORMED, "length not minimal"),
    (V311, "30 83 80 00 0001 61", MALFORMED, "length not minimal in 3 bytes"),
    (V311, "30 ff ff ff ff", MALFORMED, "length of more than 4 bytes"),
    (V311, "30 80 80 80 80 01", MALFORMED, "length of 5 bytes"),
    (V311, "30 ff ff ff 7f", LARGE, "256 MB announced"),
    (V311, "30 fe ff 3f", LARGE, "one byte above the limit with its header"),
    (V311, "c0 01 00", MALFORMED, "PINGREQ with payload"),
    (V5, "c0 01", MALFORMED, "PINGREQ with payload, before it arrives"),
    (V5, "d0 05", MALFORMED, "PINGRESP with payload, before it arrives"),
    (V311, "e0 01 00", MALFORMED, "DISCONNECT with payload before MQTT 5"),
];

#[test]
fn fixed_header() {
    check(FIXED_HEADER);
}

#[rustfmt::skip]
const CONNECT: &[Vector] = &[
    (V311, "10 00", MALFORMED, "empty"),
    (V311, "10 0d 0004 4d515454 06 02 003c 0001 61", VERSION, "level 6"),
    (V311, "10 0d 0004 4d515454 03 02 003c 0001 61", VERSION, "level 3 under MQTT"),
    (V311, "10 0d 0004 6d717474 04 02 003c 0001 61", VERSION, "mqtt in small letters"),
    (V311, "10 0f 0006 4d5149736470 04 02 003c 0001 61", VERSION, "level 4 under MQIsdp"),
    (V311, "10 0d 0004 4d515454 00 02 003c 0001 61", VERSION, "level 0"),
    (V311, "10 0d 0004 4d515454 04 03 003c 0001 61", MALFORMED, "reserved flag"),
    (V311, "10 0d 0004 4d515454 04 0a 003c 0001 61", MALFORMED, "will QoS without will"),
    (V311, "10 0d 0004 4d515454 04 22 003c 0001 61", MALFORMED, "will retain without will"),
    (V5, "10 0e 0004 4d515454 05 2a 003c 00 0001 61", MALFORMED, "both without will"),
    (V311, "10 13 0004 4d515454 04 1e 003c 0001 61 0001 77 0001 78", MALFORMED, "will QoS 3"),
    (V311, "10 10 0004 4d515454 04 42 003c 0001 61 0001 70", PROTOCOL, "lone password"),
    (V31, "10 12 0006 4d5149736470 03 42 003c 0001 61 0001 70", PROTOCOL, "lone password"),
    (V311, "10 0e 0004 4d515454 04 02 003c 0001 61 00", MALFORMED, "trailing byte"),
    (V311, "10 0d 0004 4d515454 04 02 003c 0002 61", MALFORMED, "client id too long"),
    (V311, "10 0d 0004 4d515454 04 82 003c 0001 61", MALFORMED, "user name missing"),
    (V311, "10 0d 0004 4d515454 04 06 003c 0001 61", MALFORMED, "will missing"),
    (V311, "10 0d 0004 4d515454 04 02 003c 0001 00", MALFORMED, "U+0000 in client id"),
    (V311, "10 0d 0004 4d515454 04 02 003c 0001 ff", MALFORMED, "client id not UTF-8"),
    (V311, "10 0f 0004 4d515454 04 02 003c 0003 eda080", MALFORMED, "surrogate"),
    (V311, "10 0e 0004 4d515454 04 02 003c 0002 c080", MALFORMED, "overlong U+0000"),
    (V311, "10 10 0004 4d515454 04 02 003c 0004 f4908080", MALFORMED, "above U+10FFFF"),
    (V311, "10 13 0004 4d515454 04 06 003c 0001 61 0001 23 0001 78", TOPIC, "will to #"),
    (V311, "10 12 0004 4d515454 04 06 003c 0001 61 0000 0001 78", TOPIC, "will to nowhere"),
    (V5, "10 11 0004 4d515454 05 02 003c 03 21 0000 0001 61", PROTOCOL, "receive maximum 0"),
    (V5, "10 13 0004 4d515454 05 02 003c 05 27 00000000 0001 61", PROTOCOL, "size 0"),
    (V5, "10 10 0004 4d515454 05 02 003c 02 17 02 0001 61", PROTOCOL, "problem info 2"),
    (V5, "10 10 0004 4d515454 05 02 003c 02 19 02 0001 61", PROTOCOL, "response info 2"),
    (V5, "10 14 0004 4d515454 05 02 003c 06 21 0001 21 0001 0001 61", PROTOCOL,
        "receive maximum twice"),
    (V5, "10 12 0004 4d515454 05 02 003c 04 16 0001 61 0001 61", PROTOCOL, "data, no method"),
    (V5, "10 11 0004 4d515454 05 02 003c 03 23 0001 0001 61", MALFORMED, "topic alias"),
    (V5, "10 13 0004 4d515454 05 02 003c 05 18 00000001 0001 61", MALFORMED, "will delay"),
    (V5, "10 10 0004 4d515454 05 02 003c 02 7f 00 0001 61", MALFORMED, "unknown property"),
    (V5, "10 10 0004 4d515454 05 02 003c 02 80 01 0001 61", MALFORMED, "unknown property 128"),
    (V5, "10 10 0004 4d515454 05 02 003c 80 00 0001 61 00", MALFORMED, "length not minimal"),
    (V5, "10 0e 0004 4d515454 05 02 003c 7f 0001 61", MALFORMED, "properties past the end"),
    (V5, "10 10 0004 4d515454 05 02 003c 02 21 00 0001 61", MALFORMED, "property cut short"),
    (V5, "10 17 0004 4d515454 05 06 003c 00 0001 61 03 21 0001 0001 77 0001 78", MALFORMED,
        "receive maximum in a will"),
];

#[test]
fn connect() {
    check(CONNECT);
}

#[rustfmt::skip]
const CONNACK: &[Vector] = &[
    (V311, "20 02 02 00", MALFORMED, "reserved flags"),
    (V311, "20 02 01 05", MALFORMED, "session present with an error"),
    (V5, "20 03 01 87 00", MALFORMED, "session present with an error"),
    (V311, "20 02 00 06", PROTOCOL, "return code 6"),
    (V5, "20 03 00 8e 00", PROTOCOL, "reason of another packet"),
    (V311, "20 03 00 00 00", MALFORMED, "trailing byte"),
    (V5, "20 02 00 00", MALFORMED, "no properties"),
    (V5, "20 05 00 00 02 24 02", PROTOCOL, "maximum QoS 2"),
    (V5, "20 07 00 00 04 16 0001 00", PROTOCOL, "authentication data without method"),
];

#[test]
fn connack() {
    check(CONNACK);
}

#[rustfmt::skip]
const PUBLISH: &[Vector] = &[
    (V311, "30 02 0000", PROTOCOL, "no topic"),
    (V5, "30 03 0000 00", PROTOCOL, "neither topic nor alias"),
    (V311, "30 05 0003 612f2b", TOPIC, "+ in topic"),
    (V5, "30 06 0003 612f23 00", TOPIC, "# in topic"),
    (V311, "30 03 0001 00", MALFORMED, "U+0000 in topic"),
    (V311, "30 05 0003 eda080", MALFORMED, "surrogate in topic"),
    (V311, "30 03 0001 ff", MALFORMED, "topic not UTF-8"),
    (V311, "30 02 0001", MALFORMED, "topic cut short"),
    (V311, "30 01 00", MALFORMED, "shorter than a length"),
    (V311, "32 03 0001 61", MALFORMED, "no packet identifier"),
    (V311, "32 05 0001 61 0000", PROTOCOL, "packet identifier 0"),
    (V5, "34 06 0001 61 0000 00", PROTOCOL, "packet identifier 0 at QoS 2"),
    (V5, "30 03 0001 61", MALFORMED, "no properties"),
    (V5, "30 07 0001 61 03 23 0000", ALIAS, "alias 0"),
    (V5, "30 0a 0001 61 06 23 0001 23 0002", PROTOCOL, "alias twice"),
    (V5, "30 06 0001 61 02 01 02", PROTOCOL, "payload format 2"),
    (V5, "30 06 0001 61 02 0b 00", PROTOCOL, "subscription identifier 0"),
    (V5, "30 08 0001 61 04 08 0001 23", TOPIC, "# in response topic"),
    (V5, "30 08 0001 61 04 08 0001 2b", TOPIC, "+ in response topic"),
    (V5, "30 07 0001 61 03 08 0000", TOPIC, "empty response topic"),
    (V5, "30 08 0001 61 04 03 0001 ff", MALFORMED, "content type not UTF-8"),
    (V5, "30 0b 0001 61 07 26 0001 00 0001 61", MALFORMED, "U+0000 in user property"),
    (V5, "30 07 0001 61 03 21 0001", MALFORMED, "receive maximum"),
    (V5, "30 07 0001 61 03 0b 80 00", MALFORMED, "identifier not minimal"),
    (V5, "30 07 0001 61 03 a3 00 01", MALFORMED, "property identifier not minimal"),
    (V5, "30 08 0001 61 04 02 000001", MALFORMED, "expiry cut short"),
];

#[test]
fn publish() {
    check(PUBLISH);
}

#[rustfmt::skip]
const ACKNOWLEDGEMENTS: &[Vector] = &[
    (V311, "40 02 0000", PROTOCOL, "packet identifier 0"),
    (V5, "62 02 0000", PROTOCOL, "packet identifier 0"),
    (V311, "40 03 0001 00", MALFORMED, "reason before MQTT 5"),
    (V311, "40 01 00", MALFORMED, "cut short"),
    (V5, "40 03 0001 92", PROTOCOL, "reason of PUBREL"),
    (V5, "62 03 0001 10", PROTOCOL, "reason of PUBACK"),
    (V5, "70 03 0001 ff", PROTOCOL, "reason that does not exist"),
    (V5, "50 05 0001 00 00 00", MALFORMED, "trailing byte"),
    (V5, "40 07 0001 00 03 23 0001", MALFORMED, "topic alias"),
    (V5, "40 0c 0001 00 08 1f 0001 61 1f 0001 62", PROTOCOL, "reason string twice"),
];

#[test]
fn acknowledgements() {
    check(ACKNOWLEDGEMENTS);
}

#[rustfmt::skip]
const SUBSCRIBE: &[Vector] = &[
    (V311, "82 02 0001", PROTOCOL, "no filter"),
    (V5, "82 03 0001 00", PROTOCOL, "no filter"),
    (V311, "82 06 0000 0001 61 00", PROTOCOL, "packet identifier 0"),
    (V311, "82 05 0001 0001 61", MALFORMED, "no options"),
    (V311, "82 06 0001 0001 61 03", PROTOCOL, "QoS 3"),
    (V311, "82 06 0001 0001 61 04", MALFORMED, "upper bits before MQTT 5"),
    (V311, "82 06 0001 0001 61 80", MALFORMED, "upper bits before MQTT 5"),
    (V5, "82 07 0001 00 0001 61 40", MALFORMED, "reserved bits"),
    (V5, "82 07 0001 00 0001 61 30", PROTOCOL, "retain handling 3"),
    (V5, "82 07 0001 00 0001 61 03", PROTOCOL, "QoS 3"),
    (V5, "82 10 0001 00 000a 2473686172652f672f61 04", PROTOCOL, "No Local, $share"),
    (V5, "82 0e 0001 00 0008 2471756575652f61 04", PROTOCOL, "No Local, $queue"),
    (V5, "82 09 0001 02 0b 00 0001 61 00", PROTOCOL, "subscription identifier 0"),
    (V5, "82 0b 0001 04 0b 01 0b 02 0001 61 00", PROTOCOL, "two identifiers"),
    (V311, "82 06 0001 0001 ff 00", MALFORMED, "filter not UTF-8"),
    (V311, "82 06 0001 0001 00 00", MALFORMED, "U+0000 in filter"),
    (V311, "a2 02 0001", PROTOCOL, "UNSUBSCRIBE without filter"),
    (V5, "a2 03 0001 00", PROTOCOL, "UNSUBSCRIBE without filter"),
    (V311, "a2 05 0000 0001 61", PROTOCOL, "UNSUBSCRIBE with packet identifier 0"),
    (V311, "a2 04 0001 0001", MALFORMED, "UNSUBSCRIBE cut short"),
    (V5, "a2 08 0001 02 0b 01 0001 61", MALFORMED, "UNSUBSCRIBE with an identifier"),
    (V311, "90 02 0001", PROTOCOL, "SUBACK without code"),
    (V311, "90 03 0001 03", PROTOCOL, "SUBACK with code 3"),
    (V311, "90 03 0001 87", PROTOCOL, "SUBACK with a code of MQTT 5"),
    (V5, "90 04 0001 00 11", PROTOCOL, "SUBACK with a code of UNSUBACK"),
    (V311, "b0 03 0001 00", MALFORMED, "UNSUBACK with a code before MQTT 5"),
    (V5, "b0 03 0001 00", PROTOCOL, "UNSUBACK without code"),
];

#[test]
fn subscribe() {
    check(SUBSCRIBE);
}

#[rustfmt::skip]
const DISCONNECT_AND_AUTH: &[Vector] = &[
    (V5, "e0 01 01", PROTOCOL, "reason of SUBACK"),
    (V5, "e0 03 00 00 00", MALFORMED, "trailing byte"),
    (V5, "e0 05 00 03 21 0001", MALFORMED, "receive maximum"),
    (V5, "f0 01 18", MALFORMED, "AUTH without properties"),
    (V5, "f0 02 18 00", PROTOCOL, "AUTH without method"),
    (V5, "f0 06 18 04 16 0001 61", PROTOCOL, "AUTH with data only"),
    (V5, "f0 06 04 04 15 0001 6d", PROTOCOL, "AUTH with a reason of DISCONNECT"),
    (V5, "f0 07 18 04 15 0001 6d 00", MALFORMED, "trailing byte"),
];

#[test]
fn disconnect_and_auth() {
    check(DISCONNECT_AND_AUTH);
}

#[test]
fn the_limit_counts_the_whole_packet() {
    let limits = Limits {
        max_packet_size: 7,
        strict: true,
    };
    let hex = "30 05 0001 61 6869";
    assert!(matches!(
        decode(&mut bytes(hex), V311, &limits),
        Ok(Some(_))
    ));
    let limits = Limits {
        max_packet_size: 6,
        strict: true,
    };
    let error = decode(&mut bytes("30 05"), V311, &limits).expect_err("it is too large");
    assert_eq!(error, DecodeError::TooLarge { size: 7, limit: 6 });
}
