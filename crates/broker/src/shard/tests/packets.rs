//! The packets and connections that scenarios are written with.

use dunlin_mqtt::{
    Ack, AckKind, Connect, Packet, Properties, Publish, QoS, Reason, Subscribe,
    SubscriptionOptions, TopicFilter, Version,
};

pub(super) fn id(value: u16) -> std::num::NonZeroU16 {
    value.try_into().expect("not zero")
}

pub(super) fn qos(value: u8) -> QoS {
    QoS::from_u8(value).expect("0..=2")
}

pub(super) fn persistent(version: Version, client_id: &str) -> Connect {
    let mut connect = Connect::new(version, client_id);
    connect.clean_start = false;
    if version.is_v5() {
        connect.properties.set_session_expiry_interval(1_000);
    }
    connect
}

pub(super) fn message(topic: &str, payload: &str, qos_value: u8, packet_id: u16) -> Packet {
    let publish = Publish::new(topic, payload.as_bytes(), qos(qos_value), false);
    Packet::Publish(if qos_value > 0 {
        publish.with_packet_id(id(packet_id))
    } else {
        publish
    })
}

pub(super) fn retained(topic: &str, payload: &str) -> Packet {
    Packet::Publish(Publish::new(
        topic,
        payload.as_bytes(),
        QoS::AtMostOnce,
        true,
    ))
}

pub(super) fn subscribe(
    packet_id: u16,
    filter: &str,
    options: SubscriptionOptions,
    sub_id: u32,
) -> Packet {
    let mut properties = Properties::new();
    if sub_id > 0 {
        properties.set_subscription_identifier(sub_id);
    }
    let filters = vec![(TopicFilter::new(filter), options)];
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        properties,
        filters,
    })
}

pub(super) fn pubrel(packet_id: u16) -> Packet {
    Packet::Ack(Ack::new(AckKind::Pubrel, id(packet_id), Reason::Success))
}

pub(super) fn puback(packet_id: u16) -> Packet {
    Packet::Ack(Ack::new(AckKind::Puback, id(packet_id), Reason::Success))
}

/// All protocol versions.
pub(super) const VERSIONS: [Version; 3] = Version::ALL;
