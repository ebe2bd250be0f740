//! What is written is read back, for every packet and version, whole or in pieces; and whatever
//! is done to its bytes, decoding answers and never panics.

use std::num::NonZeroU16;

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_mqtt::{
    Ack, AckKind, Auth, Connack, Connect, Disconnect, Kind, Limits, Outgoing, Packet, PacketType,
    Properties, PropertyId, Publish, QoS, Reason, RetainHandling, Suback, Subscribe,
    SubscriptionOptions, TopicFilter, TopicName, Unsuback, Unsubscribe, Value, Version, Will,
    decode, encode_publish, encode_publish_head, publish_len,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// The longest field the tests make up, in bytes; framing beyond 128 bytes is reached with it.
const FIELD_LEN_MAX: usize = 200;

fn text() -> impl Strategy<Value = String> {
    vec(
        any::<char>().prop_filter("U+0000 is refused", |c| *c != '\0'),
        0..20,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

fn topic() -> impl Strategy<Value = String> {
    (text(), "[a-z/$ ]{1,40}").prop_map(|(odd, plain)| (plain + &odd).replace(['+', '#'], "_"))
}

fn blob() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..FIELD_LEN_MAX).prop_map(Bytes::from)
}

fn packet_id() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|id| NonZeroU16::new(id).expect("the range begins at 1"))
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn version() -> impl Strategy<Value = Version> {
    select(&Version::ALL[..])
}

/// A value the property can have: numbers are 1, which every one of them allows, or random where
/// all are.
fn value(id: PropertyId) -> BoxedStrategy<Value> {
    let text = if id == PropertyId::ResponseTopic {
        topic().boxed()
    } else {
        text().boxed()
    };
    match id.row().kind {
        Kind::Byte => (0..=1u8).prop_map(Value::Byte).boxed(),
        Kind::U16 => (1..=u16::MAX).prop_map(Value::U16).boxed(),
        Kind::U32 => (1..=u32::MAX).prop_map(Value::U32).boxed(),
        Kind::Varint => (1..=268_435_455u32).prop_map(Value::Varint).boxed(),
        Kind::Str => text.prop_map(|t| Value::Str(t.into())).boxed(),
        Kind::Binary => blob().prop_map(Value::Binary).boxed(),
        Kind::Pair => (text, self::text())
            .prop_map(|(name, value)| Value::Pair(name.into(), value.into()))
            .boxed(),
    }
}

/// Any selection of the allowed properties in any order, user properties also twice.
fn some_of(allowed: impl Fn(PropertyId) -> bool) -> BoxedStrategy<Properties> {
    let mut ids: Vec<_> = PropertyId::ALL
        .iter()
        .copied()
        .filter(|id| allowed(*id))
        .collect();
    ids.push(PropertyId::UserProperty);
    let each: Vec<_> = ids
        .into_iter()
        .map(|id| (Just(id), option::of(value(id))))
        .collect();
    (each, any::<prop::sample::Index>())
        .prop_map(|(mut each, at)| {
            let middle = at.index(each.len());
            each.rotate_left(middle);
            let mut properties = Properties::new();
            for (id, value) in each {
                if let Some(value) = value {
                    properties.push(id, value);
                }
            }
            if properties.authentication_data().is_some() {
                properties.set_authentication_method("method");
            }
            properties
        })
        .boxed()
}

fn properties(packet: PacketType, version: Version) -> BoxedStrategy<Properties> {
    if version == Version::V5 {
        some_of(move |id| id.allowed_in(packet))
    } else {
        Just(Properties::new()).boxed()
    }
}

fn reason(packet: PacketType) -> impl Strategy<Value = Reason> {
    let allowed: Vec<_> = Reason::ALL
        .iter()
        .copied()
        .filter(|r| r.allowed_in(packet))
        .collect();
    select(allowed)
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    let properties = if version == Version::V5 {
        some_of(PropertyId::allowed_in_will)
    } else {
        Just(Properties::new()).boxed()
    };
    (topic(), blob(), qos(), any::<bool>(), properties).prop_map(
        |(topic, payload, qos, retain, properties)| Will {
            topic: TopicName::new(&topic).expect("the strategy makes topic names"),
            payload,
            qos,
            retain,
            properties,
        },
    )
}

fn connect(version: Version) -> impl Strategy<Value = Packet> {
    (
        any::<(bool, u16, bool)>(),
        text(),
        option::of(will(version)),
        option::of(text()),
        option::of(blob()),
        properties(PacketType::Connect, version),
    )
        .prop_map(
            move |((clean_start, keepalive, bridge), id, will, user, pass, properties)| {
                let password = pass.filter(|_| user.is_some() || version == Version::V5);
                Packet::Connect(Box::new(Connect {
                    version,
                    clean_start,
                    keepalive,
                    client_id: id.into(),
                    will: will.map(Box::new),
                    username: user.map(Into::into),
                    password,
                    properties,
                    bridge,
                }))
            },
        )
}

fn connack(version: Version) -> impl Strategy<Value = Packet> {
    let properties = properties(PacketType::Connack, version);
    (any::<bool>(), reason(PacketType::Connack), properties).prop_map(
        move |(present, reason, properties)| {
            let reason = if version == Version::V5 {
                reason
            } else {
                Reason::from_connack_v3(reason.connack_v3()).expect("it is a code of 3.1.1")
            };
            let session_present = present && !reason.is_error() && version != Version::V3_1;
            Packet::Connack(Connack {
                session_present,
                reason,
                properties,
            })
        },
    )
}

fn publish(version: Version) -> impl Strategy<Value = Packet> {
    let properties = properties(PacketType::Publish, version);
    (
        topic(),
        blob(),
        qos(),
        any::<(bool, bool)>(),
        packet_id(),
        properties,
    )
        .prop_map(|(topic, payload, qos, (retain, dup), id, properties)| {
            let mut publish =
                Publish::new(&topic, &payload, qos, retain).with_properties(&properties);
            if qos != QoS::AtMostOnce {
                publish = publish.with_packet_id(id);
                publish.dup = dup;
            }
            Packet::Publish(publish)
        })
}

fn ack(version: Version) -> impl Strategy<Value = Packet> {
    select(&AckKind::ALL[..]).prop_flat_map(move |kind| {
        let packet = kind.packet_type();
        (packet_id(), reason(packet), properties(packet, version)).prop_map(
            move |(packet_id, reason, properties)| {
                let reason = if version == Version::V5 {
                    reason
                } else {
                    Reason::Success
                };
                Packet::Ack(Ack {
                    kind,
                    packet_id,
                    reason,
                    properties,
                })
            },
        )
    })
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof!["[a-z]{0,5}", Just("+".to_owned()), Just("a#".to_owned())];
    let prefix = select(&["", "", "$share/g/", "$queue/", "$exclusive/", "$share/"][..]);
    (prefix, vec(level, 0..4), any::<bool>()).prop_map(|(prefix, levels, all)| {
        format!(
            "{prefix}{}{}",
            levels.join("/"),
            if all { "/#" } else { "" }
        )
    })
}

fn options(version: Version) -> impl Strategy<Value = SubscriptionOptions> {
    (qos(), any::<bool>(), 0..3u8).prop_map(move |(qos, retain_as_published, handling)| {
        if version != Version::V5 {
            return SubscriptionOptions::with_qos(qos);
        }
        let retain_handling = RetainHandling::from_u8(handling).expect("it is below 3");
        SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published,
            retain_handling,
        }
    })
}

fn subscription(version: Version) -> BoxedStrategy<Packet> {
    let properties = |packet| properties(packet, version);
    let reasons = |packet| vec(reason(packet), 1..5);
    let is_v5 = version == Version::V5;
    prop_oneof![
        (
            packet_id(),
            properties(PacketType::Subscribe),
            vec((filter(), options(version)), 1..5)
        )
            .prop_map(|(packet_id, properties, filters)| {
                let filters = filters
                    .into_iter()
                    .map(|(f, o)| (TopicFilter::new(&f), o))
                    .collect();
                Packet::Subscribe(Subscribe {
                    packet_id,
                    properties,
                    filters,
                })
            }),
        (
            packet_id(),
            properties(PacketType::Unsubscribe),
            vec(filter(), 1..5)
        )
            .prop_map(|(packet_id, properties, filters)| {
                let filters = filters.iter().map(|f| TopicFilter::new(f)).collect();
                Packet::Unsubscribe(Unsubscribe {
                    packet_id,
                    properties,
                    filters,
                })
            }),
        (
            packet_id(),
            properties(PacketType::Suback),
            reasons(PacketType::Suback)
        )
            .prop_map(move |(packet_id, properties, mut reasons)| {
                if !is_v5 {
                    for reason in &mut reasons {
                        *reason = Reason::from_u8(reason.suback_v3()).expect("it exists");
                    }
                }
                Packet::Suback(Suback {
                    packet_id,
                    reasons,
                    properties,
                })
            }),
        (
            packet_id(),
            properties(PacketType::Unsuback),
            reasons(PacketType::Unsuback)
        )
            .prop_map(move |(packet_id, properties, reasons)| {
                let reasons = if is_v5 { reasons } else { Vec::new() };
                Packet::Unsuback(Unsuback {
                    packet_id,
                    reasons,
                    properties,
                })
            }),
    ]
    .boxed()
}

fn ending(version: Version) -> BoxedStrategy<Packet> {
    let disconnect = (
        reason(PacketType::Disconnect),
        properties(PacketType::Disconnect, version),
    )
        .prop_map(move |(reason, properties)| {
            let reason = if version == Version::V5 {
                reason
            } else {
                Reason::Success
            };
            Packet::Disconnect(Disconnect { reason, properties })
        });
    if version != Version::V5 {
        return disconnect.boxed();
    }
    let auth = (
        reason(PacketType::Auth),
        properties(PacketType::Auth, version),
    )
        .prop_map(|(reason, mut properties)| {
            properties.set_authentication_method("method");
            Packet::Auth(Auth { reason, properties })
        });
    prop_oneof![disconnect, auth].boxed()
}

fn packet(version: Version) -> BoxedStrategy<Packet> {
    prop_oneof![
        3 => publish(version),
        2 => connect(version),
        1 => connack(version),
        2 => ack(version),
        2 => subscription(version),
        1 => ending(version),
        1 => select(&[Packet::Pingreq, Packet::Pingresp][..]),
    ]
    .boxed()
}

fn any_packet() -> impl Strategy<Value = (Version, Packet)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

fn written(version: Version, packet: &Packet) -> BytesMut {
    let mut out = BytesMut::new();
    packet.encode(version, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn written_is_read_back((version, packet) in any_packet()) {
        let mut wire = written(version, &packet);
        let copy = wire.clone();
        wire.put_slice(b"\xc0\x00");
        let read = decode(&mut wire, version, &Limits::default());
        prop_assert_eq!(read.as_ref(), Ok(&Some(packet)));
        prop_assert_eq!(&wire[..], b"\xc0\x00", "the next packet is left alone");
        if let Ok(Some(read)) = read {
            prop_assert_eq!(written(version, &read), copy);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), version in version()) {
        for strict in [true, false] {
            let mut buf = BytesMut::from(&bytes[..]);
            let limits = Limits { max_packet_size: 1024, strict };
            while let Ok(Some(packet)) = decode(&mut buf, version, &limits) {
                read_all_of(&packet);
            }
        }
    }

    #[test]
    fn random_properties_never_panic(bytes in vec(any::<u8>(), 0..100)) {
        let view = dunlin_mqtt::PublishProperties::new(&bytes);
        prop_assert!(view.forwardable().len() <= bytes.len());
        prop_assert!(view.iter().count() <= bytes.len());
    }

    #[test]
    fn an_outgoing_publish_has_the_length_it_says(
        version in version(),
        topic in topic(),
        payload in blob(),
        (qos, id) in (qos(), packet_id()),
        alias in option::of(1..=u16::MAX),
        expiry in option::of(any::<u32>()),
        ids in vec(1..=268_435_455u32, 0..4),
        user in option::of(text()),
    ) {
        let mut forwarded = Properties::new();
        if let Some(user) = &user {
            forwarded.push_user_property("name", user);
        }
        let forwarded = forwarded.raw_forwardable();
        let outgoing = Outgoing {
            topic: topic.as_bytes(),
            payload: &payload,
            qos,
            retain: true,
            dup: false,
            packet_id: (qos != QoS::AtMostOnce).then_some(id),
            topic_alias: alias,
            subscription_ids: &ids,
            message_expiry_interval: expiry,
            forwarded: &forwarded,
        };
        let mut wire = BytesMut::new();
        encode_publish(version, &outgoing, &mut wire);
        prop_assert_eq!(wire.len(), publish_len(version, &outgoing));
        let mut head = BytesMut::new();
        encode_publish_head(version, &outgoing, &mut head);
        head.put_slice(&payload);
        prop_assert_eq!(&head, &wire);

        let read = decode(&mut wire, version, &Limits::default());
        let Ok(Some(Packet::Publish(publish))) = read else { panic!("{read:?}") };
        prop_assert_eq!(publish.topic(), topic.as_str());
        prop_assert_eq!(publish.payload(), &payload[..]);
        prop_assert_eq!((publish.qos, publish.packet_id), (qos, outgoing.packet_id));
        let properties = publish.properties();
        if version == Version::V5 {
            prop_assert_eq!(properties.topic_alias(), alias);
            prop_assert_eq!(properties.message_expiry_interval(), expiry);
            prop_assert_eq!(properties.subscription_ids().collect::<Vec<_>>(), ids);
            prop_assert_eq!(&properties.forwardable()[..], &forwarded[..]);
        } else {
            prop_assert!(properties.is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn in_pieces_as_in_one((version, packet) in any_packet()) {
        let wire = written(version, &packet);
        for at in 0..wire.len() {
            let mut buf = BytesMut::from(&wire[..at]);
            prop_assert_eq!(decode(&mut buf, version, &Limits::default()), Ok(None));
            prop_assert_eq!(&buf[..], &wire[..at]);
            buf.put_slice(&wire[at..]);
            let read = decode(&mut buf, version, &Limits::default());
            prop_assert_eq!(read.as_ref(), Ok(&Some(packet.clone())));
            prop_assert!(buf.is_empty());
        }
    }

    /// Every byte of a valid packet changed in several ways, and the packet cut at every length
    /// with the header telling the truth about it.
    #[test]
    fn damaged_packets_never_panic((version, packet) in any_packet()) {
        let wire = written(version, &packet);
        let limits = [true, false].map(|strict| Limits { max_packet_size: 1 << 20, strict });
        for at in 0..wire.len() {
            for change in [0x01, 0x02, 0x10, 0x40, 0x80, 0xFF] {
                let mut damaged = wire.clone();
                damaged[at] ^= change;
                for limits in &limits {
                    if let Ok(Some(packet)) = decode(&mut damaged.clone(), version, limits) {
                        read_all_of(&packet);
                    }
                }
            }
        }
        for len in 0..wire.len().min(128) {
            let mut cut = BytesMut::from(&[wire[0], len as u8][..]);
            cut.put_slice(&wire[2..(2 + len).min(wire.len())]);
            for limits in &limits {
                if let Ok(Some(packet)) = decode(&mut cut.clone(), version, limits) {
                    read_all_of(&packet);
                }
            }
        }
    }
}

/// Looks at everything a packet offers: what decode let through, accessors must stand; and what
/// can be read can be written.
fn read_all_of(packet: &Packet) {
    assert!(!format!("{packet:?}").is_empty());
    if let Packet::Publish(publish) = packet {
        let properties = publish.properties();
        let encoded: usize = properties.iter().count();
        assert!(encoded <= publish.raw_properties().len());
        assert!(properties.forwardable().len() <= publish.raw_properties().len());
        assert!(publish.topic().len() + publish.payload().len() <= publish.frame().len());
    }
    for version in Version::ALL {
        assert!(!written(version, packet).is_empty() || matches!(packet, Packet::Auth(_)));
    }
}
