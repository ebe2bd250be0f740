//! QoS 1 and 2 in both directions, windows, retransmission.

use dunlin_mqtt::{Ack, AckKind, Connect, Packet, Publish, QoS, Reason, Version};

use super::net::{Net, VERSIONS, id, message, persistent, puback, pubrel};
use crate::metrics::Metric;
use crate::settings::Mqtt;

fn ack(kind: AckKind, packet_id: u16, reason: Reason) -> Packet {
    Packet::Ack(Ack::new(kind, id(packet_id), reason))
}

#[track_caller]
fn publish_of(packet: &Packet) -> &Publish {
    match packet {
        Packet::Publish(publish) => publish,
        other => panic!("not a publish: {other:?}"),
    }
}

#[test]
fn qos2_is_routed_once_however_often_it_is_sent() {
    for version in VERSIONS {
        let mut net = Net::new();
        let (p, s) = (net.client(version, "p"), net.client(version, "s"));
        net.subscribe(s, "t", QoS::AtMostOnce);
        net.send(p, message("t", "x", 2, 9));
        assert_eq!(net.ack(p, AckKind::Pubrec, 9), Reason::Success);
        let again = Publish::new("t", b"x", QoS::ExactlyOnce, false);
        let again = again.with_packet_id(id(9)).with_dup();
        net.send(p, Packet::Publish(again));
        assert_eq!(net.ack(p, AckKind::Pubrec, 9), Reason::Success);
        net.send(p, message("t", "another", 2, 9));
        let in_use = if version.is_v5() {
            Reason::PacketIdentifierInUse
        } else {
            Reason::Success
        };
        assert_eq!(net.ack(p, AckKind::Pubrec, 9), in_use);
        net.send(p, pubrel(9));
        assert_eq!(net.ack(p, AckKind::Pubcomp, 9), Reason::Success);
        assert_eq!(net.payloads(s), ["x"]);
        net.send(p, message("t", "next", 2, 9));
        assert_eq!(net.ack(p, AckKind::Pubrec, 9), Reason::Success);
        assert_eq!(net.payloads(s), ["next"]);
        assert_eq!(net.metric(Metric::PacketsPublishInuse), 2);
    }
}

#[test]
fn an_unknown_pubrel_is_answered() {
    for version in VERSIONS {
        let mut net = Net::new();
        let c = net.client(version, "c");
        net.send(c, pubrel(4));
        let missing = if version.is_v5() {
            Reason::PacketIdentifierNotFound
        } else {
            Reason::Success
        };
        assert_eq!(net.ack(c, AckKind::Pubcomp, 4), missing);
        assert_eq!(net.metric(Metric::PacketsPubrelMissed), 1);
    }
}

#[test]
fn qos2_ids_survive_a_reconnect() {
    for version in VERSIONS {
        let mut net = Net::new();
        let s = net.client(version, "s");
        net.subscribe(s, "t", QoS::AtMostOnce);
        let (p, _) = net.persistent(version, "p");
        net.send(p, message("t", "x", 2, 9));
        net.drop_client(p);
        let (p, present) = net.persistent(version, "p");
        assert_eq!(present, version != Version::V3_1);
        let again = Publish::new("t", b"x", QoS::ExactlyOnce, false);
        net.send(p, Packet::Publish(again.with_packet_id(id(9)).with_dup()));
        assert_eq!(net.ack(p, AckKind::Pubrec, 9), Reason::Success);
        net.send(p, pubrel(9));
        assert_eq!(net.ack(p, AckKind::Pubcomp, 9), Reason::Success);
        assert_eq!(net.payloads(s), ["x"]);
    }
}

#[test]
fn too_many_unreleased_ids_end_the_connection() {
    let mut net = Net::mqtt(Mqtt {
        max_awaiting_rel: Some(3),
        ..Mqtt::default()
    });
    for (version, limit) in [(Version::V3_1_1, 3), (Version::V5, 3)] {
        let c = net.client(version, "c");
        for n in 1..=limit {
            net.send(c, message("t", "x", 2, n));
            net.take(c);
        }
        assert!(net.is_open(c));
        net.send(c, message("t", "x", 2, limit + 1));
        assert!(!net.is_open(c));
        if version.is_v5() {
            net.check_disconnected(c, Reason::ReceiveMaximumExceeded);
        }
    }
}

#[test]
fn our_receive_maximum_is_kept() {
    let mut net = Net::mqtt(Mqtt {
        max_inflight: 5,
        ..Mqtt::default()
    });
    let c = net.client(Version::V5, "c");
    for n in 1..=5 {
        net.send(c, message("t", "x", 2, n));
    }
    net.take(c);
    net.send(c, message("t", "qos 0 does not count", 0, 0));
    assert!(net.is_open(c));
    net.send(c, message("t", "x", 1, 6));
    net.check_disconnected(c, Reason::ReceiveMaximumExceeded);
}

#[test]
fn unreleased_ids_are_forgotten_in_time() {
    let mut net = Net::new();
    let c = net.client(Version::V3_1_1, "c");
    net.send(c, message("t", "x", 2, 1));
    net.take(c);
    net.pass(299_000);
    net.send(c, message("t", "x", 2, 2));
    net.take(c);
    net.pass(4_000);
    assert_eq!(net.metric(Metric::MessagesDroppedAwaitPubrelTimeout), 1);
    net.pass(300_000);
    assert_eq!(net.metric(Metric::MessagesDroppedAwaitPubrelTimeout), 2);
}

#[test]
fn the_window_fills_and_moves() {
    for version in VERSIONS {
        let mut net = Net::mqtt(Mqtt {
            max_inflight: 3,
            ..Mqtt::default()
        });
        let (p, s) = (net.client(Version::V3_1_1, "p"), net.client(version, "s"));
        net.subscribe(s, "t", QoS::ExactlyOnce);
        for n in 0..8_u8 {
            net.publish_acked(p, "t", &n.to_string(), 1 + n % 2);
        }
        let first = net.take(s);
        assert_eq!(first.len(), 3);
        assert_eq!(net.metric(Metric::MessagesSent), 3);
        let first_id = publish_of(&first[0]).packet_id.expect("QoS 1").get();
        net.send(s, puback(first_id));
        assert_eq!(publish_of(&net.one(s)).payload(), b"3");
        // A QoS 2 exchange frees its place with PUBCOMP only.
        let second_id = publish_of(&first[1]).packet_id.expect("QoS 2").get();
        net.send(s, ack(AckKind::Pubrec, second_id, Reason::Success));
        assert_eq!(net.ack(s, AckKind::Pubrel, second_id), Reason::Success);
        net.send(s, ack(AckKind::Pubcomp, second_id, Reason::Success));
        assert_eq!(publish_of(&net.one(s)).payload(), b"4");
    }
}

#[test]
fn exchanges_the_client_has_forgotten_do_not_fill_its_window() {
    let mut net = Net::mqtt(Mqtt {
        max_inflight: 2,
        ..Mqtt::default()
    });
    let (c, _) = net.persistent(Version::V5, "c");
    for n in 1..=2 {
        net.send(c, message("t", "x", 2, n));
    }
    net.drop_client(c);
    let (back, present) = net.persistent(Version::V5, "c");
    assert!(present);
    for n in 11..=12 {
        net.send(back, message("t", "x", 2, n));
    }
    net.take(back);
    assert!(net.is_open(back));
    net.send(back, message("t", "x", 2, 13));
    net.check_disconnected(back, Reason::ReceiveMaximumExceeded);
}

#[test]
fn the_clients_receive_maximum_is_kept() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let s = net.accept(Version::V5);
    let mut connect = Connect::new(Version::V5, "s");
    connect.properties.set_receive_maximum(2);
    net.connect(s, connect);
    net.subscribe(s, "t", QoS::AtLeastOnce);
    for n in 0..5 {
        net.publish_acked(p, "t", &n.to_string(), 1);
    }
    assert_eq!(net.take(s).len(), 2);
}

#[test]
fn qos0_behind_a_full_window_keeps_its_place() {
    for store in [true, false] {
        let mqtt = Mqtt {
            max_inflight: 1,
            mqueue_store_qos0: store,
            ..Mqtt::default()
        };
        let mut net = Net::mqtt(mqtt);
        let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
        net.subscribe(s, "t", QoS::AtLeastOnce);
        net.publish_acked(p, "t", "1", 1);
        net.publish_acked(p, "t", "2", 1);
        net.publish(p, "t", "3");
        let expected: &[&str] = if store {
            &["1", "2", "3"]
        } else {
            &["1", "3", "2"]
        };
        assert_eq!(net.payloads(s), expected);
    }
}

#[test]
fn a_full_queue_drops_its_oldest() {
    let mqtt = Mqtt {
        max_inflight: 1,
        max_mqueue_len: Some(2),
        ..Mqtt::default()
    };
    let mut net = Net::mqtt(mqtt);
    let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
    net.subscribe(s, "t", QoS::AtLeastOnce);
    for n in 0..5 {
        net.publish_acked(p, "t", &n.to_string(), 1);
    }
    assert_eq!(net.payloads(s), ["0", "3", "4"]);
    assert_eq!(net.metric(Metric::DeliveryDroppedQueueFull), 2);
    assert_eq!(net.metric(Metric::DeliveryDropped), 2);
}

#[test]
fn wrong_acknowledgements_are_counted_and_harmless() {
    for version in VERSIONS {
        let mut net = Net::new();
        let (p, s) = (net.client(version, "p"), net.client(version, "s"));
        net.subscribe(s, "t", QoS::ExactlyOnce);
        net.send(s, puback(9));
        net.send(s, ack(AckKind::Pubcomp, 9, Reason::Success));
        net.nothing(s);
        net.send(s, ack(AckKind::Pubrec, 9, Reason::Success));
        let missing = if version.is_v5() {
            Reason::PacketIdentifierNotFound
        } else {
            Reason::Success
        };
        assert_eq!(net.ack(s, AckKind::Pubrel, 9), missing);
        net.publish_acked(p, "t", "x", 2);
        let sent = net.one(s);
        let packet_id = publish_of(&sent).packet_id.expect("QoS 2").get();
        net.send(s, puback(packet_id));
        net.send(s, ack(AckKind::Pubcomp, packet_id, Reason::Success));
        for _ in 0..2 {
            net.send(s, ack(AckKind::Pubrec, packet_id, Reason::Success));
            assert_eq!(net.ack(s, AckKind::Pubrel, packet_id), Reason::Success);
        }
        net.send(s, ack(AckKind::Pubcomp, packet_id, Reason::Success));
        assert_eq!(net.metric(Metric::PacketsPubackMissed), 1);
        assert_eq!(net.metric(Metric::PacketsPubackInuse), 1);
        assert_eq!(net.metric(Metric::PacketsPubrecMissed), 1);
        assert_eq!(net.metric(Metric::PacketsPubrecInuse), 1);
        assert_eq!(net.metric(Metric::PacketsPubcompMissed), 1);
        assert_eq!(net.metric(Metric::PacketsPubcompInuse), 1);
        assert!(net.is_open(s));
    }
}

#[test]
fn a_pubrec_with_an_error_ends_the_exchange() {
    let mut net = Net::mqtt(Mqtt {
        max_inflight: 1,
        ..Mqtt::default()
    });
    let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
    net.subscribe(s, "t", QoS::ExactlyOnce);
    net.publish_acked(p, "t", "1", 2);
    net.publish_acked(p, "t", "2", 2);
    let first = net.one(s);
    let packet_id = publish_of(&first).packet_id.expect("QoS 2").get();
    net.send(s, ack(AckKind::Pubrec, packet_id, Reason::QuotaExceeded));
    assert_eq!(publish_of(&net.one(s)).payload(), b"2");
}

#[test]
fn everything_in_flight_is_sent_again_with_dup_in_order() {
    for version in VERSIONS {
        let mut net = Net::new();
        let p = net.client(Version::V5, "p");
        let (s, _) = net.persistent(version, "s");
        net.subscribe(s, "t", QoS::ExactlyOnce);
        for (n, published) in [1, 2, 2, 1].into_iter().enumerate() {
            net.publish_acked(p, "t", &n.to_string(), published);
        }
        let first = net.take(s);
        let ids: Vec<u16> = first
            .iter()
            .map(|p| publish_of(p).packet_id.expect("above 0").get())
            .collect();
        net.send(s, ack(AckKind::Pubrec, ids[1], Reason::Success));
        net.take(s);
        net.drop_client(s);
        net.publish_acked(p, "t", "4", 1);
        let (s, present) = net.persistent(version, "s");
        assert_eq!(present, version != Version::V3_1);
        let again = net.take(s);
        assert_eq!(again.len(), 5);
        for (at, packet) in again.iter().enumerate() {
            if at == 1 {
                let Packet::Ack(pubrel) = packet else {
                    panic!("{packet:?}")
                };
                assert_eq!(
                    (pubrel.kind, pubrel.packet_id.get()),
                    (AckKind::Pubrel, ids[1])
                );
                continue;
            }
            let publish = publish_of(packet);
            assert_eq!(publish.payload(), at.to_string().as_bytes());
            assert_eq!(publish.dup, at < 4);
            if at < 4 {
                assert_eq!(publish.packet_id.map(u16::from), Some(ids[at]));
            }
        }
    }
}

#[test]
fn nothing_is_sent_again_on_a_live_connection_unless_asked_for() {
    for interval in [None, Some(10_000)] {
        let mut net = Net::mqtt(Mqtt {
            retry_interval_ms: interval,
            ..Mqtt::default()
        });
        let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
        net.subscribe(s, "t", QoS::AtLeastOnce);
        net.publish_acked(p, "t", "x", 1);
        net.take(s);
        net.pass(35_000);
        let again = net.take(s);
        assert_eq!(again.len(), if interval.is_some() { 3 } else { 0 });
        assert!(again.iter().all(|packet| publish_of(packet).dup));
    }
}

/// One deadline for each client, not one for each time its exchanges are all over.
#[test]
fn a_busy_client_does_not_pile_up_deadlines() {
    let mut net = Net::mqtt(Mqtt {
        retry_interval_ms: Some(30_000),
        ..Mqtt::default()
    });
    let (p, s) = (
        net.client(Version::V3_1_1, "p"),
        net.client(Version::V3_1_1, "s"),
    );
    net.subscribe(s, "t", QoS::AtLeastOnce);
    let before = net.nodes[0].shards[0].wheel.len();
    for _ in 0..100 {
        net.publish_acked(p, "t", "x", 2);
        let packets = net.take(s);
        let id = publish_of(&packets[0]).packet_id.expect("QoS 1").get();
        net.send(s, puback(id));
        net.pass(100);
    }
    let armed = net.nodes[0].shards[0].wheel.len();
    assert!(armed <= before + 2, "{before} deadlines became {armed}");
    net.pass(400_000);
    let left = net.nodes[0].shards[0].wheel.len();
    assert!(left <= before, "{before} deadlines became {left}");
}

#[test]
fn a_smaller_window_after_resume_is_kept() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let (s, _) = net.persistent(Version::V5, "s");
    net.subscribe(s, "t", QoS::AtLeastOnce);
    net.drop_client(s);
    for n in 0..10 {
        net.publish_acked(p, "t", &n.to_string(), 1);
    }
    let s = net.accept(Version::V5);
    let mut connect = persistent(Version::V5, "s");
    connect.properties.set_receive_maximum(4);
    net.send(s, Packet::Connect(Box::new(connect)));
    let packets = net.take(s);
    assert!(matches!(packets[0], Packet::Connack(_)));
    assert_eq!(packets.len(), 5);
    let ids: Vec<u16> = packets[1..]
        .iter()
        .map(|p| publish_of(p).packet_id.expect("QoS 1").get())
        .collect();
    for packet_id in ids {
        net.send(s, puback(packet_id));
    }
    assert_eq!(net.payloads(s).len(), 6);
}
