use super::*;

/// The table of §2.2.2.2 once more, written from the text of the specification: the letters are
/// C connect, W will, A connack, P publish, S subscribe, U unsubscribe, k the four acks,
/// s suback, u unsuback, D disconnect, H auth.
const SPECIFICATION: &[(u8, Kind, &str)] = &[
    (1, Kind::Byte, "PW"),
    (2, Kind::U32, "PW"),
    (3, Kind::Str, "PW"),
    (8, Kind::Str, "PW"),
    (9, Kind::Binary, "PW"),
    (11, Kind::Varint, "PS"),
    (17, Kind::U32, "CAD"),
    (18, Kind::Str, "A"),
    (19, Kind::U16, "A"),
    (21, Kind::Str, "CAH"),
    (22, Kind::Binary, "CAH"),
    (23, Kind::Byte, "C"),
    (24, Kind::U32, "W"),
    (25, Kind::Byte, "C"),
    (26, Kind::Str, "A"),
    (28, Kind::Str, "AD"),
    (31, Kind::Str, "AksuDH"),
    (33, Kind::U16, "CA"),
    (34, Kind::U16, "CA"),
    (35, Kind::U16, "P"),
    (36, Kind::Byte, "A"),
    (37, Kind::Byte, "A"),
    (38, Kind::Pair, "CAPWksuSUDH"),
    (39, Kind::U32, "CA"),
    (40, Kind::Byte, "A"),
    (41, Kind::Byte, "A"),
    (42, Kind::Byte, "A"),
];

fn letter(packet: PacketType) -> char {
    match packet {
        PacketType::Connect => 'C',
        PacketType::Connack => 'A',
        PacketType::Publish => 'P',
        PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => 'k',
        PacketType::Subscribe => 'S',
        PacketType::Suback => 's',
        PacketType::Unsubscribe => 'U',
        PacketType::Unsuback => 'u',
        PacketType::Pingreq | PacketType::Pingresp => '-',
        PacketType::Disconnect => 'D',
        PacketType::Auth => 'H',
    }
}

#[test]
fn the_table_is_the_specification() {
    assert_eq!(PropertyId::ALL.len(), SPECIFICATION.len());
    for (code, kind, packets) in SPECIFICATION {
        let id = PropertyId::from_u8(*code).expect("the property exists");
        assert_eq!(id.row().kind, *kind, "{id}");
        assert_eq!(
            id.allowed_in_will(),
            packets.contains('W'),
            "{id} in a will"
        );
        for packet in PacketType::ALL {
            let allowed = packets.contains(letter(packet));
            assert_eq!(id.allowed_in(packet), allowed, "{id} in {packet:?}");
        }
    }
}

#[test]
fn forwardable_borrows_or_filters() {
    let mut properties = Properties::new();
    properties
        .set_content_type("text/plain")
        .push_user_property("a", "1");
    let kept = properties.raw_forwardable();
    assert!(matches!(
        PublishProperties::new(&kept).forwardable(),
        std::borrow::Cow::Borrowed(raw) if raw == &kept[..]
    ));

    let mut mixed = Properties::new();
    mixed
        .set_message_expiry_interval(9)
        .set_content_type("text/plain");
    mixed
        .set(PropertyId::TopicAlias, Value::U16(3))
        .push_user_property("a", "1");
    mixed.push(PropertyId::SubscriptionIdentifier, Value::Varint(300));
    let mut raw = bytes::BytesMut::new();
    mixed.put_all(&mut raw);
    let view = PublishProperties::new(&raw);
    assert_eq!(view.forwardable(), &kept[..]);
    assert_eq!(view.message_expiry_interval(), Some(9));
    assert_eq!(view.topic_alias(), Some(3));
    assert_eq!(view.subscription_ids().collect::<Vec<_>>(), [300]);
    assert_eq!(view.content_type(), Some("text/plain"));
    assert_eq!(view.user_properties().collect::<Vec<_>>(), [("a", "1")]);
    assert_eq!(view.response_topic(), None);
}

#[test]
#[should_panic(expected = "has another type")]
fn a_value_of_another_type_is_refused() {
    Properties::new().push(PropertyId::ReceiveMaximum, Value::U32(1));
}
