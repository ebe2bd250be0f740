//! Retained messages: stored, replayed, deleted; retain handling; pace.

use dunlin_mqtt::{
    AckKind, Packet, Properties, Publish, QoS, Reason, RetainHandling, SubscriptionOptions, Version,
};

use super::net::{Net, VERSIONS, id, retained};
use crate::effects::ToControl;
use crate::settings::{Mqtt, Retainer, Settings};

fn options(retain_handling: RetainHandling) -> SubscriptionOptions {
    SubscriptionOptions {
        retain_handling,
        ..SubscriptionOptions::default()
    }
}

#[test]
fn the_last_retained_message_is_replayed_with_its_flag() {
    for version in VERSIONS {
        let mut net = Net::new();
        let p = net.client(version, "p");
        net.send(p, retained("a/b", "1"));
        net.send(p, retained("a/b", "2"));
        net.send(p, retained("a/c", "3"));
        let s = net.client(version, "s");
        net.subscribe(s, "a/+", QoS::AtMostOnce);
        let packets = net.take(s);
        let seen: Vec<_> = packets
            .iter()
            .map(|packet| match packet {
                Packet::Publish(p) => (p.topic(), p.payload(), p.retain),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seen, [("a/b", &b"2"[..], true), ("a/c", b"3", true)]);
    }
}

#[test]
fn live_subscribers_get_it_without_the_flag_and_an_empty_one_deletes() {
    let mut net = Net::new();
    let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
    net.subscribe(s, "t", QoS::AtMostOnce);
    net.send(p, retained("t", "x"));
    net.send(p, retained("t", ""));
    let packets = net.take(s);
    assert_eq!(packets.len(), 2);
    assert!(
        packets
            .iter()
            .all(|p| matches!(p, Packet::Publish(p) if !p.retain))
    );
    let late = net.client(Version::V5, "late");
    net.subscribe(late, "t", QoS::AtMostOnce);
    net.nothing(late);
}

#[test]
fn the_retain_handling_matrix() {
    for (handling, first, again) in [
        (RetainHandling::Send, 1, 1),
        (RetainHandling::SendIfNew, 1, 0),
        (RetainHandling::DoNotSend, 0, 0),
    ] {
        let mut net = Net::new();
        let c = net.client(Version::V5, "c");
        net.send(c, retained("t", "x"));
        for expected in [first, again] {
            net.try_subscribe(c, "t", options(handling), 0);
            assert_eq!(net.take(c).len(), expected, "{handling:?}");
        }
        net.unsubscribe(c, "t");
        net.try_subscribe(c, "t", options(handling), 0);
        assert_eq!(net.take(c).len(), first, "new again");
    }
}

#[test]
fn shared_subscriptions_get_no_replay() {
    let mut net = Net::new();
    let c = net.client(Version::V5, "c");
    net.send(c, retained("t", "x"));
    for filter in ["$share/g/t", "$queue/t"] {
        net.try_subscribe(c, filter, options(RetainHandling::Send), 0);
        net.nothing(c);
    }
}

#[test]
fn replay_has_qos_identifier_and_what_is_left_of_the_time() {
    let mut net = Net::new();
    let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
    let mut properties = Properties::new();
    properties
        .set_message_expiry_interval(60)
        .set_content_type("c");
    let publish = Publish::new("t", b"x", QoS::ExactlyOnce, true);
    let publish = publish.with_packet_id(id(1)).with_properties(&properties);
    net.send(p, Packet::Publish(publish));
    assert_eq!(
        net.ack(p, AckKind::Pubrec, 1),
        Reason::NoMatchingSubscribers
    );
    net.pass(20_000);
    net.try_subscribe(s, "t", SubscriptionOptions::with_qos(QoS::AtLeastOnce), 9);
    let Packet::Publish(got) = net.one(s) else {
        panic!("a publish")
    };
    assert_eq!((got.qos, got.retain), (QoS::AtLeastOnce, true));
    assert_eq!(got.properties().message_expiry_interval(), Some(40));
    assert_eq!(got.properties().content_type(), Some("c"));
    assert_eq!(got.properties().subscription_ids().collect::<Vec<_>>(), [9]);
    net.pass(50_000);
    let late = net.client(Version::V5, "late");
    net.subscribe(late, "t", QoS::AtMostOnce);
    net.nothing(late);
}

#[test]
fn an_acknowledgement_waits_until_the_store_has_it() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    net.hold_store = true;
    let publish = Publish::new("t", b"x", QoS::AtLeastOnce, true).with_packet_id(id(1));
    net.send(p, Packet::Publish(publish));
    net.send(p, super::net::message("u", "x", 1, 2));
    net.nothing(p);
    net.release_store();
    let ids: Vec<u16> = net
        .take(p)
        .iter()
        .map(|packet| match packet {
            Packet::Ack(ack) => ack.packet_id.get(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [1, 2], "in the order of the publishes");
}

/// The connection of the first PUBREC is gone, and so is what that waited for.
#[test]
fn a_message_sent_again_on_another_connection_waits_for_the_store_too() {
    for shard in 0..2 {
        let mut net = Net::with(1, 2, Settings::default());
        let publish = |dup: bool| {
            let publish = Publish::new("t", b"x", QoS::ExactlyOnce, true).with_packet_id(id(1));
            Packet::Publish(if dup { publish.with_dup() } else { publish })
        };
        let (p, _) = net.persistent_at(0, 0, Version::V5, "p");
        net.hold_store = true;
        net.send(p, publish(false));
        net.nothing(p);
        net.drop_client(p);
        let (p, present) = net.persistent_at(0, shard, Version::V5, "p");
        assert!(present);
        net.send(p, publish(true));
        net.send(p, publish(true));
        net.nothing(p);
        net.release_store();
        assert_eq!(net.ack(p, AckKind::Pubrec, 1), Reason::Success);
        net.nothing(p);
    }
}

#[test]
fn control_is_told_of_every_change() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let bytes = net.encode(p, retained("t", "x"));
    let mut fx = crate::effects::ShardEffects::new(1);
    let mut buf = bytes::BytesMut::from(&bytes[..]);
    let conn = net.clients[p.0].conn;
    let now = net.now;
    net.nodes[0].shards[0].receive(now, conn, &mut buf, &mut fx);
    assert!(matches!(
        &fx.to_control[..],
        [ToControl::Retained { key, wait: None, .. }] if &key[..] == b"t"
    ));
}

#[test]
fn deleting_may_be_kept_from_subscribers() {
    let settings = Settings {
        retainer: Retainer {
            stop_publish_clear_msg: true,
            ..Retainer::default()
        },
        ..Settings::default()
    };
    let mut net = Net::with(1, 1, settings);
    let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
    net.subscribe(s, "t", QoS::AtMostOnce);
    net.send(p, retained("t", "x"));
    net.send(p, retained("t", ""));
    assert_eq!(net.payloads(s), ["x"]);
}

#[test]
fn fifty_thousand_are_paced_by_the_reader() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let mut bytes = Vec::new();
    for n in 0..50_000 {
        bytes.extend_from_slice(&net.encode(p, retained(&format!("r/{n:05}"), "payload")));
    }
    net.bytes(p, &bytes);
    let s = net.client(Version::V5, "s");
    net.clients[s.0].stalled = true;
    net.send(
        s,
        super::net::subscribe(1, "#", SubscriptionOptions::default(), 0),
    );
    let conn = net.clients[s.0].conn;
    let waiting = net.nodes[0].shards[0].output(conn).expect("open").len();
    assert!((200_000..400_000).contains(&waiting), "{waiting}");
    net.publish(p, "live", "now");
    net.unstall(s);
    let packets = net.take(s);
    let topics: Vec<_> = packets
        .iter()
        .filter_map(|packet| match packet {
            Packet::Publish(p) if p.retain => Some(p.topic().to_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(topics.len(), 50_000);
    assert!(topics.is_sorted());
    assert_eq!(packets.len(), 50_002, "SUBACK and the live one too");
}

#[test]
fn a_replay_at_qos_1_waits_for_acknowledgements_and_drops_nothing() {
    let mut net = Net::mqtt(Mqtt {
        max_mqueue_len: Some(10),
        ..Mqtt::default()
    });
    let p = net.client(Version::V5, "p");
    for n in 0..1_000 {
        let publish = Publish::new(&format!("r/{n:04}"), b"x", QoS::AtLeastOnce, true);
        net.send(p, Packet::Publish(publish.with_packet_id(id(1))));
    }
    net.take(p);
    let s = net.client(Version::V5, "s");
    net.subscribe(s, "#", QoS::AtLeastOnce);
    assert_eq!(net.payloads(s).len(), 1_000);
}

#[test]
fn unsubscribing_ends_a_replay() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    for n in 0..20_000 {
        net.send(p, retained(&format!("r/{n:05}"), "payload"));
    }
    let s = net.client(Version::V5, "s");
    net.clients[s.0].stalled = true;
    net.send(
        s,
        super::net::subscribe(1, "#", SubscriptionOptions::default(), 0),
    );
    let packet = dunlin_mqtt::Unsubscribe {
        packet_id: id(2),
        properties: Properties::new(),
        filters: vec![dunlin_mqtt::TopicFilter::new("#")],
    };
    net.send(s, Packet::Unsubscribe(packet));
    net.unstall(s);
    assert!(net.take(s).len() < 15_000);
}
