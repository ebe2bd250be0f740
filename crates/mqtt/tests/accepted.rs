//! Packets every decoder must take: the examples of the OASIS text, the short forms, and what
//! clients in the field send. Each is decoded, looked at and, where its form is ours, written
//! again to the same bytes.

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};
use dunlin_mqtt::{
    AckKind, Limits, Packet, QoS, Reason, RetainHandling, SubscriptionOptions, Version, decode,
};

const V31: Version = Version::V3_1;
const V311: Version = Version::V3_1_1;
const V5: Version = Version::V5;

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

fn read(version: Version, hex: &str) -> Packet {
    let mut buf = bytes(hex);
    let packet = decode(&mut buf, version, &Limits::default())
        .unwrap_or_else(|error| panic!("{hex}: {error}"))
        .unwrap_or_else(|| panic!("{hex}: incomplete"));
    assert!(buf.is_empty(), "{hex}: bytes are left");
    packet
}

/// The packet, which must be written again as it was read.
fn same(version: Version, hex: &str) -> Packet {
    let packet = read(version, hex);
    let mut out = BytesMut::new();
    packet.encode(version, &mut out);
    assert_eq!(out, bytes(hex), "{hex} is written otherwise");
    packet
}

fn id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).expect("a packet identifier of a test is not 0")
}

#[test]
fn connect_of_the_3_1_1_text() {
    // §3.1.2.3: user name, password, will QoS 1, clean session, keep alive 10 s.
    let packet = same(
        V311,
        "10 1f 0004 4d515454 04 ce 000a 0003 616263 0003 772f74 0002 6869 0001 75 0002 7077",
    );
    let Packet::Connect(connect) = packet else {
        panic!("a CONNECT")
    };
    assert_eq!(
        (connect.version, connect.keepalive, connect.clean_start),
        (V311, 10, true)
    );
    assert_eq!(&*connect.client_id, "abc");
    assert_eq!(connect.username.as_deref(), Some("u"));
    assert_eq!(connect.password.as_deref(), Some(&b"pw"[..]));
    let will = connect.will.as_ref().expect("it has a will");
    assert_eq!(
        (will.topic.as_str(), &will.payload[..]),
        ("w/t", &b"hi"[..])
    );
    assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, false));
    assert!(
        !format!("{connect:?}").contains("pw"),
        "the password is in a log"
    );
}

#[test]
fn connect_of_the_5_text() {
    // §3.1.2.11 example flags with properties: session expiry 10, receive maximum 5, will delay 7.
    let packet = same(
        V5,
        "10 2f 0004 4d515454 05 ee 003c 08 11 0000000a 21 0005 0001 61 \
         0c 18 00000007 26 0001 6b 0001 76 0001 77 0001 78 0001 75 0001 70",
    );
    let Packet::Connect(connect) = packet else {
        panic!("a CONNECT")
    };
    assert_eq!(connect.properties.session_expiry_interval(), Some(10));
    assert_eq!(connect.properties.receive_maximum(), Some(5));
    let will = connect.will.as_ref().expect("it has a will");
    assert_eq!(will.properties.will_delay_interval(), Some(7));
    assert_eq!(
        will.properties.user_properties().collect::<Vec<_>>(),
        [("k", "v")]
    );
    assert_eq!(
        &will.properties.raw_forwardable()[..],
        &bytes("26 0001 6b 0001 76")[..]
    );
    assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
}

#[test]
fn connects_of_all_kinds() {
    for (hex, version, bridge) in [
        ("10 0e 0006 4d5149736470 03 02 003c 0000", V31, false),
        ("10 0f 0006 4d5149736470 03 02 003c 0001 61", V31, false),
        ("10 0f 0006 4d5149736470 83 02 003c 0001 61", V31, true),
        ("10 0d 0004 4d515454 04 02 003c 0001 61", V311, false),
        ("10 0d 0004 4d515454 84 02 003c 0001 61", V311, true),
        ("10 0c 0004 4d515454 04 02 0000 0000", V311, false),
        ("10 0e 0004 4d515454 04 00 003c 0002 c3a4", V311, false),
        (
            "10 10 0004 4d515454 04 82 003c 0001 61 0001 62",
            V311,
            false,
        ),
        ("10 0e 0004 4d515454 05 02 003c 00 0001 61", V5, false),
        // MQTT 5 lets a password stand alone, e.g. a token.
        (
            "10 11 0004 4d515454 05 42 003c 00 0001 61 0001 70",
            V5,
            false,
        ),
        // Authentication method alone and with data.
        (
            "10 12 0004 4d515454 05 02 003c 04 15 0001 6d 0001 61",
            V5,
            false,
        ),
        (
            "10 16 0004 4d515454 05 02 003c 08 15 0001 6d 16 0001 ff 0001 61",
            V5,
            false,
        ),
        // An empty user name and an empty will payload are values.
        ("10 0f 0004 4d515454 04 82 003c 0001 61 0000", V311, false),
        (
            "10 12 0004 4d515454 04 06 003c 0001 61 0001 77 0000",
            V311,
            false,
        ),
    ] {
        // The version argument does not matter to a CONNECT.
        for argument in Version::ALL {
            let packet = same(argument, hex);
            let Packet::Connect(connect) = packet else {
                panic!("{hex} is a CONNECT")
            };
            assert_eq!(
                (connect.version, connect.bridge),
                (version, bridge),
                "{hex}"
            );
        }
        assert_eq!(
            dunlin_mqtt::connect_version(&bytes(hex)),
            Some(version),
            "{hex}"
        );
    }
}

#[test]
fn connacks() {
    for (version, hex, present, reason) in [
        (V31, "20 02 00 05", false, Reason::NotAuthorized),
        (V311, "20 02 00 00", false, Reason::Success),
        (V311, "20 02 01 00", true, Reason::Success),
        (
            V311,
            "20 02 00 01",
            false,
            Reason::UnsupportedProtocolVersion,
        ),
        (V311, "20 02 00 02", false, Reason::ClientIdentifierNotValid),
        (V311, "20 02 00 03", false, Reason::ServerUnavailable),
        (V311, "20 02 00 04", false, Reason::BadUserNameOrPassword),
        (V5, "20 03 01 00 00", true, Reason::Success),
        (V5, "20 03 00 87 00", false, Reason::NotAuthorized),
        (
            V5,
            "20 0a 00 00 07 24 01 12 0002 6162",
            false,
            Reason::Success,
        ),
    ] {
        let Packet::Connack(connack) = same(version, hex) else {
            panic!("{hex} is a CONNACK")
        };
        assert_eq!(
            (connack.session_present, connack.reason),
            (present, reason),
            "{hex}"
        );
    }
}

/// Found by the fuzz target: 3.1 has no session present flag, only an unused byte.
#[test]
fn connack_of_3_1_has_no_session_flag() {
    let Packet::Connack(connack) = read(V31, "20 02 01 00") else {
        panic!("a CONNACK")
    };
    assert!(!connack.session_present);
}

#[test]
fn publishes() {
    // §3.3.2.3: topic a/b, packet identifier 10.
    let Packet::Publish(publish) = same(V311, "32 09 0003 612f62 000a 6869") else {
        panic!("a PUBLISH")
    };
    assert_eq!((publish.topic(), publish.payload()), ("a/b", &b"hi"[..]));
    assert_eq!(
        (publish.qos, publish.packet_id),
        (QoS::AtLeastOnce, Some(id(10)))
    );

    let hex = "3d 19 0003 612f62 000a 10 01 01 02 00000009 26 0001 6b 0001 76 \
               0b 01 ff";
    let Packet::Publish(publish) = same(V5, hex) else {
        panic!("a PUBLISH")
    };
    assert_eq!(
        (publish.qos, publish.retain, publish.dup),
        (QoS::ExactlyOnce, true, true)
    );
    let properties = publish.properties();
    assert_eq!(properties.payload_format_indicator(), Some(1));
    assert_eq!(properties.message_expiry_interval(), Some(9));
    assert_eq!(properties.subscription_ids().collect::<Vec<_>>(), [1]);
    assert_eq!(publish.payload(), b"\xff");

    for (version, hex, topic, payload) in [
        (V31, "30 03 0001 61", "a", &b""[..]),
        (V311, "30 05 0001 61 0000", "a", b"\0\0"),
        (V311, "3a 05 0001 61 0001", "a", b""),
        (V5, "30 04 0001 61 00", "a", b""),
        (V5, "30 06 0000 03 23 0001", "", b""),
        (V5, "30 07 0001 61 03 23 ffff", "a", b""),
        (V5, "30 08 0001 61 04 0b 05 0b 06", "a", b""),
        (V5, "30 08 0001 61 04 08 0001 72", "a", b""),
        (V311, "30 05 0003 e282ac", "\u{20ac}", b""),
        // §1.5.4.3: U+FEFF is a character like others. U+10FFFF is the last one.
        (V311, "30 05 0003 efbbbf", "\u{feff}", b""),
        (V311, "30 06 0004 f48fbfbf", "\u{10ffff}", b""),
    ] {
        let Packet::Publish(publish) = same(version, hex) else {
            panic!("{hex}: a PUBLISH")
        };
        assert_eq!(
            (publish.topic(), publish.payload()),
            (topic, payload),
            "{hex}"
        );
    }
}

#[test]
fn acknowledgements() {
    for (version, hex, kind, reason) in [
        (V31, "40 02 0001", AckKind::Puback, Reason::Success),
        (V311, "50 02 0001", AckKind::Pubrec, Reason::Success),
        (V311, "62 02 0001", AckKind::Pubrel, Reason::Success),
        (V311, "70 02 0001", AckKind::Pubcomp, Reason::Success),
        (V5, "40 02 0001", AckKind::Puback, Reason::Success),
        (
            V5,
            "40 03 0001 10",
            AckKind::Puback,
            Reason::NoMatchingSubscribers,
        ),
        (V5, "50 03 0001 97", AckKind::Pubrec, Reason::QuotaExceeded),
        (
            V5,
            "62 03 0001 92",
            AckKind::Pubrel,
            Reason::PacketIdentifierNotFound,
        ),
        (
            V5,
            "70 08 0001 92 04 1f 0001 78",
            AckKind::Pubcomp,
            Reason::PacketIdentifierNotFound,
        ),
        (
            V5,
            "40 08 0001 00 04 1f 0001 78",
            AckKind::Puback,
            Reason::Success,
        ),
    ] {
        let Packet::Ack(ack) = same(version, hex) else {
            panic!("{hex}: an acknowledgement")
        };
        assert_eq!(
            (ack.kind, ack.packet_id, ack.reason),
            (kind, id(1), reason),
            "{hex}"
        );
    }
    // Longer than need be, but allowed: a reason of success, an empty property block.
    for hex in ["40 03 0001 00", "40 04 0001 00 00", "62 04 0001 00 00"] {
        let Packet::Ack(ack) = read(V5, hex) else {
            panic!("{hex}: an acknowledgement")
        };
        assert_eq!(ack.reason, Reason::Success, "{hex}");
    }
    // MQTT 3.1 repeats PUBREL, SUBSCRIBE and UNSUBSCRIBE with DUP.
    for hex in ["6a 02 0001", "8a 06 0001 0001 61 00", "aa 05 0001 0001 61"] {
        read(V31, hex);
    }
}

#[test]
fn subscribes() {
    // §3.8.3: a/b at QoS 1, c/d at QoS 2.
    let hex = "82 0e 000a 0003 612f62 01 0003 632f64 02";
    let Packet::Subscribe(subscribe) = same(V311, hex) else {
        panic!("a SUBSCRIBE")
    };
    let read_back: Vec<_> = subscribe
        .filters
        .iter()
        .map(|(filter, options)| (filter.as_ref().expect("valid").as_str(), options.qos))
        .collect();
    assert_eq!(
        read_back,
        [("a/b", QoS::AtLeastOnce), ("c/d", QoS::ExactlyOnce)]
    );

    let Packet::Subscribe(subscribe) = same(V5, "82 09 0001 02 0b 07 0001 2b 2e") else {
        panic!("a SUBSCRIBE")
    };
    assert_eq!(subscribe.properties.subscription_identifier(), Some(7));
    let expected = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    assert_eq!(subscribe.filters[0].1, expected);
}

#[test]
fn a_bad_filter_stands_beside_good_ones() {
    let hex = "82 0d 0001 0003 612f23 00 0002 6123 01";
    let Packet::Subscribe(subscribe) = same(V311, hex) else {
        panic!("a SUBSCRIBE")
    };
    assert!(subscribe.filters[0].0.is_ok());
    let error = subscribe.filters[1]
        .0
        .as_ref()
        .expect_err("a# is no filter");
    assert_eq!(&*error.filter, "a#");

    let hex = "a2 08 0001 00 0000 0001 61";
    let Packet::Unsubscribe(unsubscribe) = same(V5, hex) else {
        panic!("an UNSUBSCRIBE")
    };
    assert!(unsubscribe.filters[0].is_err() && unsubscribe.filters[1].is_ok());
}

#[test]
fn the_other_packets() {
    let Packet::Suback(suback) = same(V311, "90 05 000a 00 02 80") else {
        panic!("a SUBACK")
    };
    let expected = [
        Reason::Success,
        Reason::GrantedQos2,
        Reason::UnspecifiedError,
    ];
    assert_eq!(suback.reasons, expected);
    same(V5, "90 05 000a 00 01 8f");
    same(V311, "a2 0c 000a 0003 612f62 0003 632f64");
    same(V311, "b0 02 000a");
    same(V5, "b0 05 000a 00 00 11");
    for version in Version::ALL {
        assert_eq!(same(version, "c0 00"), Packet::Pingreq);
        assert_eq!(same(version, "d0 00"), Packet::Pingresp);
        same(version, "e0 00");
    }
    same(V5, "e0 01 04");
    same(V5, "e0 07 00 05 11 00000000");
    read(V5, "e0 01 00");
    read(V5, "e0 02 8e 00");
    same(V5, "f0 00");
    same(V5, "f0 06 18 04 15 0001 6d");
    same(V5, "f0 0a 19 08 15 0001 6d 16 0001 00");
}

#[test]
fn packets_behind_each_other_and_in_pieces() {
    let one = bytes("c0 00 30 05 0001 61 6869 40 02 0001");
    let mut buf = one.clone();
    let limits = Limits::default();
    let mut next = || decode(&mut buf, V311, &limits).expect("valid");
    assert!(matches!(next(), Some(Packet::Pingreq)));
    assert!(matches!(next(), Some(Packet::Publish(p)) if p.payload() == b"hi"));
    assert!(matches!(next(), Some(Packet::Ack(_))));
    assert_eq!(next(), None);

    let mut buf = BytesMut::new();
    let mut count = 0;
    for byte in one {
        buf.put_u8(byte);
        let before = buf.clone();
        match decode(&mut buf, V311, &limits).expect("valid") {
            Some(_) => count += 1,
            None => assert_eq!(buf, before, "an incomplete packet is left alone"),
        }
    }
    assert_eq!((count, buf.len()), (3, 0));
}

#[test]
fn what_is_loosened() {
    let loose = Limits {
        strict: false,
        ..Limits::default()
    };
    for (version, hex) in [
        (V311, "c1 00"),
        (V311, "38 03 0001 61"),
        (V311, "80 06 0001 0001 61 00"),
        (V311, "82 06 0001 0001 61 fc"),
        (V311, "10 0d 0004 4d515454 04 03 003c 0001 61"),
        (V311, "10 10 0004 4d515454 04 42 003c 0001 61 0001 70"),
        (V311, "10 0d 0004 4d515454 04 02 003c 0001 00"),
        (V5, "30 08 0001 61 04 08 0001 23"),
    ] {
        let strict = decode(&mut bytes(hex), version, &Limits::default());
        assert!(strict.is_err(), "{hex} passes when strict");
        let loosened = decode(&mut bytes(hex), version, &loose);
        assert!(matches!(loosened, Ok(Some(_))), "{hex}: {loosened:?}");
    }
}
