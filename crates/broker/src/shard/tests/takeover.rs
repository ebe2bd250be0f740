//! One client identifier, several connections: in a shard and between two shards of a node.

use dunlin_mqtt::{AckKind, Packet, Publish, QoS, Reason, Version};

use super::net::{C, Net, VERSIONS, id, persistent, pubrel};
use crate::effects::{Ask, CloseReason, ToShard};
use crate::metrics::Metric;
use crate::settings::{Mqtt, Settings};

/// The shard of the first and of the second connection.
const PLACES: [(usize, usize); 3] = [(0, 0), (0, 1), (1, 0)];

fn two_shards() -> Net {
    Net::with(1, 2, Settings::default())
}

#[track_caller]
fn check_one_owner(net: &Net, clientid: &str) {
    let rows: Vec<_> = net.nodes[0]
        .shards
        .iter()
        .enumerate()
        .flat_map(|(at, shard)| {
            shard
                .client_rows(None, 1_000)
                .into_iter()
                .map(move |r| (at, r))
        })
        .filter(|(_, row)| row.clientid == clientid)
        .map(|(at, row)| (at, row.peer, row.connected))
        .collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
}

#[test]
fn a_second_connection_takes_the_session() {
    for version in VERSIONS {
        for (from, to) in PLACES {
            let mut net = two_shards();
            let p = net.client(Version::V5, "p");
            let (old, _) = net.persistent_at(0, from, version, "c");
            net.subscribe(old, "t/+", QoS::ExactlyOnce);
            net.subscribe(old, "$share/g/s", QoS::AtLeastOnce);
            net.publish_acked(p, "t/1", "in flight", 1);
            net.take(old);
            let (new, present) = net.persistent_at(0, to, version, "c");
            assert_eq!(present, version != Version::V3_1);
            net.check_closed(old, CloseReason::TakenOver);
            if version.is_v5() {
                net.check_disconnected(old, Reason::SessionTakenOver);
            } else {
                net.nothing(old);
            }
            assert_eq!(net.payloads(new), ["in flight"]);
            net.publish_acked(p, "t/2", "new", 2);
            net.publish_acked(p, "s", "shared", 1);
            assert_eq!(net.payloads(new), ["new", "shared"]);
            check_one_owner(&net, "c");
            assert_eq!(net.metric(Metric::SessionTakenover), 1);
            assert_eq!(
                net.nodes[0].shared.registry().local_shard("c"),
                Some(to as u16)
            );
            net.unsubscribe(new, "t/+");
            net.unsubscribe(new, "$share/g/s");
            assert_eq!(net.nodes[0].shared.router().read().usage().filters, 0);
        }
    }
}

#[test]
fn a_clean_start_discards_the_session() {
    for (from, to) in PLACES {
        let mut net = two_shards();
        let p = net.client(Version::V5, "p");
        let (old, _) = net.persistent_at(0, from, Version::V5, "c");
        net.subscribe(old, "t", QoS::AtLeastOnce);
        let new = net.client_at_shard(0, to, Version::V5, "c");
        net.check_closed(old, CloseReason::Discarded);
        net.check_disconnected(old, Reason::SessionTakenOver);
        net.publish(p, "t", "x");
        net.nothing(new);
        check_one_owner(&net, "c");
        assert_eq!(net.nodes[0].shared.router().read().usage().filters, 0);
        assert_eq!(net.metric(Metric::SessionDiscarded), 1);
    }
}

#[test]
fn an_offline_session_moves_with_everything() {
    for (from, to) in PLACES {
        let mut net = two_shards();
        let p = net.client(Version::V5, "p");
        let (old, _) = net.persistent_at(0, from, Version::V5, "c");
        net.subscribe(old, "t", QoS::ExactlyOnce);
        net.send(old, super::net::message("x", "half", 2, 9));
        net.take(old);
        for n in 0..50 {
            net.publish_acked(p, "t", &n.to_string(), 1 + n % 2);
        }
        net.take(old);
        net.drop_client(old);
        for n in 50..60 {
            net.publish_acked(p, "t", &n.to_string(), 1);
        }
        let (new, present) = net.persistent_at(0, to, Version::V5, "c");
        assert!(present);
        let expected: Vec<String> = (0..60).map(|n| n.to_string()).collect();
        assert_eq!(net.payloads(new), expected);
        // Its half-done QoS 2 publish goes on.
        let again = Publish::new("x", b"half", QoS::ExactlyOnce, false);
        net.send(new, Packet::Publish(again.with_packet_id(id(9)).with_dup()));
        assert_eq!(net.ack(new, AckKind::Pubrec, 9), Reason::Success);
        net.send(new, pubrel(9));
        assert_eq!(net.ack(new, AckKind::Pubcomp, 9), Reason::Success);
        assert_eq!(net.metric(Metric::MessagesDroppedNoSubscribers), 1);
    }
}

/// Publishes between every step of a takeover between shards.
#[test]
fn nothing_is_lost_or_doubled_while_a_session_moves() {
    for publisher_shard in 0..3 {
        let mut net = Net::with(1, 3, Settings::default());
        let p = net.client_at_shard(0, publisher_shard, Version::V5, "p");
        let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
        net.subscribe(old, "t", QoS::ExactlyOnce);
        let new = net.accept_at(0, 1, Version::V5);
        let connect = net.encode(new, Packet::Connect(Box::new(persistent(Version::V5, "c"))));
        let mut sent = Vec::new();
        let publish = |net: &mut Net, sent: &mut Vec<String>| {
            let text = sent.len().to_string();
            let packet = super::net::message("t", &text, 2, sent.len() as u16 + 1);
            let bytes = net.encode(p, packet);
            net.push(p, &bytes);
            sent.push(text);
        };
        publish(&mut net, &mut sent);
        net.push(new, &connect);
        // Letters arrive one by one; a publish goes out between any two.
        for _ in 0..30 {
            publish(&mut net, &mut sent);
            net.step();
        }
        net.run();
        let packets = net.take(new);
        assert!(matches!(&packets[0], Packet::Connack(c) if c.session_present));
        let old_got = net.take(old);
        let mut got: Vec<String> = old_got
            .iter()
            .chain(&packets)
            .filter_map(|packet| match packet {
                Packet::Publish(p) if !p.dup => {
                    Some(String::from_utf8_lossy(p.payload()).into_owned())
                }
                _ => None,
            })
            .collect();
        // What the window held back comes as the client acknowledges.
        for packet in &packets {
            net.answer(new, packet);
        }
        got.extend(net.payloads(new));
        let position = |text: &String| sent.iter().position(|s| s == text);
        assert!(got.is_sorted_by_key(position), "{got:?}");
        assert_eq!(got, sent);
    }
}

#[test]
fn three_connections_at_once_leave_one() {
    for clean in [false, true] {
        let mut net = Net::with(1, 3, Settings::default());
        let p = net.client(Version::V5, "p");
        let (first, _) = net.persistent_at(0, 0, Version::V5, "c");
        net.subscribe(first, "t", QoS::AtLeastOnce);
        net.drop_client(first);
        net.publish_acked(p, "t", "x", 1);
        let mut connect = persistent(Version::V5, "c");
        connect.clean_start = clean;
        let racers: Vec<C> = (0..6)
            .map(|n| {
                let c = net.accept_at(0, n % 3, Version::V5);
                let bytes = net.encode(c, Packet::Connect(Box::new(connect.clone())));
                net.push(c, &bytes);
                c
            })
            .collect();
        net.run();
        check_one_owner(&net, "c");
        let open: Vec<C> = racers.iter().copied().filter(|c| net.is_open(*c)).collect();
        assert_eq!(open.len(), 1, "the newest");
        assert_eq!(open[0], racers[5]);
        let packets = net.take(open[0]);
        let Packet::Connack(connack) = &packets[0] else {
            panic!("{packets:?}")
        };
        assert_eq!(connack.session_present, !clean);
        assert_eq!(packets.len(), if clean { 1 } else { 2 });
        net.publish(p, "t", "after");
        assert_eq!(net.take(open[0]).len(), usize::from(!clean));
        let usage = net.nodes[0].shared.router().read().usage();
        assert_eq!(usage.subscriptions, usize::from(!clean));
    }
}

#[test]
fn a_client_that_leaves_while_its_session_comes_keeps_it() {
    let mut net = two_shards();
    let p = net.client(Version::V5, "p");
    let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
    net.subscribe(old, "t", QoS::AtLeastOnce);
    let new = net.accept_at(0, 1, Version::V5);
    let connect = net.encode(new, Packet::Connect(Box::new(persistent(Version::V5, "c"))));
    net.push(new, &connect);
    net.drop_client(new);
    net.run();
    net.publish_acked(p, "t", "x", 1);
    let (back, present) = net.persistent_at(0, 0, Version::V5, "c");
    assert!(present);
    assert_eq!(net.payloads(back), ["x"]);
    check_one_owner(&net, "c");
}

#[test]
fn packets_behind_a_held_connect_wait_for_the_session() {
    let mut net = two_shards();
    let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
    net.subscribe(old, "t", QoS::AtLeastOnce);
    let new = net.accept_at(0, 1, Version::V5);
    let mut bytes = net
        .encode(new, Packet::Connect(Box::new(persistent(Version::V5, "c"))))
        .to_vec();
    bytes.extend_from_slice(&net.encode(new, super::net::message("t", "mine", 1, 1)));
    bytes.extend_from_slice(&net.encode(new, Packet::Pingreq));
    net.push(new, &bytes);
    assert!(net.clients[new.0].paused);
    net.nothing(new);
    net.run();
    let packets = net.take(new);
    assert!(matches!(packets[0], Packet::Connack(_)));
    assert_eq!(packets.len(), 4, "{packets:?}");
}

#[test]
fn kicks_and_late_losers() {
    let mut net = two_shards();
    let (c, _) = net.persistent_at(0, 1, Version::V5, "c");
    let stamp = net.nodes[0]
        .shared
        .registry()
        .local_stamp("c")
        .expect("claimed");
    let kick = |older_than| ToShard::Kick {
        clientid: "c".to_owned(),
        reason: CloseReason::TakenOver,
        older_than,
    };
    net.tell(0, 1, kick(Some(stamp)));
    assert!(net.is_open(c), "it is not older than itself");
    net.tell(0, 1, kick(Some(dunlin_cluster::Hlc(stamp.0 + 1))));
    net.check_disconnected(c, Reason::SessionTakenOver);
    assert_eq!(net.nodes[0].shards[1].counts().sessions, 0);
    let (c, _) = net.persistent_at(0, 1, Version::V5, "c");
    net.ask(0, 1, Ask::Kick("c".to_owned()));
    net.check_disconnected(c, Reason::AdministrativeAction);
    net.check_closed(c, CloseReason::Kicked);
}

#[test]
fn deliveries_cross_shards_in_order() {
    let mut net = Net::with(1, 3, Settings::default());
    let p = net.client_at_shard(0, 0, Version::V5, "p");
    let subscribers: Vec<C> = (0..9)
        .map(|n| {
            let c = net.client_at_shard(0, n % 3, VERSIONS[n / 3], &format!("s{n}"));
            net.subscribe(c, "t/#", QoS::ExactlyOnce);
            c
        })
        .collect();
    let mut bytes = Vec::new();
    for n in 0..30_u16 {
        let packet = super::net::message("t/x", &n.to_string(), (n % 2) as u8, n + 1);
        bytes.extend_from_slice(&net.encode(p, packet));
    }
    net.bytes(p, &bytes);
    let expected: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    for c in subscribers {
        assert_eq!(net.payloads(c), expected);
    }
}

#[test]
fn shared_members_of_other_shards_are_picked_too() {
    let mut net = Net::with(1, 2, super::net::settings(Mqtt::default()));
    let p = net.client_at_shard(0, 0, Version::V5, "p");
    let members: Vec<C> = (0..4)
        .map(|n| {
            let c = net.client_at_shard(0, n % 2, Version::V5, &format!("m{n}"));
            net.subscribe(c, "$share/g/t", QoS::AtLeastOnce);
            c
        })
        .collect();
    for n in 0..8 {
        net.publish_acked(p, "t", &n.to_string(), 1);
    }
    let got: Vec<usize> = members.iter().map(|c| net.payloads(*c).len()).collect();
    assert_eq!(got, [2, 2, 2, 2]);
    // What one leaves behind another gets, whatever their shards.
    for n in 0..8 {
        net.publish_acked(p, "t", &n.to_string(), 1);
    }
    for member in &members[..3] {
        net.take(*member);
        net.drop_client(*member);
    }
    assert_eq!(net.payloads(members[3]).len(), 8);
}

#[test]
fn a_third_connection_overtakes_the_letter_of_the_second() {
    let mut net = two_shards();
    net.persistent_at(0, 1, Version::V3_1_1, "c");
    let connect = |net: &mut Net, shard| {
        let c = net.accept_at(0, shard, Version::V3_1_1);
        let packet = Packet::Connect(Box::new(persistent(Version::V3_1_1, "c")));
        let bytes = net.encode(c, packet);
        net.push(c, &bytes);
        c
    };
    let second = connect(&mut net, 0);
    let third = connect(&mut net, 1);
    net.run();
    check_one_owner(&net, "c");
    assert!(!net.is_open(second));
    assert!(net.is_open(third));
    assert!(net.connack(third).session_present);
    net.client_at_shard(0, 0, Version::V3_1_1, "other");
    check_one_owner(&net, "c");
}
