//! Two and three nodes: forwarding, acknowledgements that wait, blips, takeover between nodes.

use std::collections::VecDeque;

use dunlin_cluster::Hlc;
use dunlin_mqtt::{AckKind, Packet, QoS, Reason, SubscriptionOptions, Version};

use super::net::{C, Letter, Net, message, persistent, settings};
use crate::effects::ToShard;
use crate::metrics::Metric;
use crate::settings::{Mqtt, Rpc, RpcMode, Settings};

fn two() -> Net {
    Net::with(2, 1, Settings::default())
}

/// Everybody on all shards of all nodes.
fn net_of(nodes: usize, shards: u16) -> Net {
    Net::with(nodes, shards, Settings::default())
}

fn id_of(net: &mut Net, c: C) -> u16 {
    match net.one(c) {
        Packet::Publish(p) => p.packet_id.expect("above QoS 0").get(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_reach_every_node_once() {
    for shards in 1..=2 {
        let mut net = net_of(3, shards);
        let p = net.client(Version::V5, "p");
        let mut subscribers = Vec::new();
        for node in 0..3 {
            for shard in 0..usize::from(shards) {
                for n in 0..2 {
                    let name = format!("s{node}{shard}{n}");
                    let c = net.client_at_shard(node, shard, Version::V5, &name);
                    net.subscribe(c, if n == 0 { "a/+" } else { "#" }, QoS::ExactlyOnce);
                    subscribers.push(c);
                }
            }
        }
        for n in 0..6 {
            net.publish_acked(p, "a/b", &n.to_string(), n % 3);
        }
        let expected: Vec<String> = (0..6).map(|n| n.to_string()).collect();
        for c in subscribers {
            assert_eq!(net.payloads(c), expected);
        }
        assert_eq!(net.metric(Metric::MessagesForward), 12, "one copy per node");
        assert_eq!(net.metric(Metric::MessagesDropped), 0);
    }
}

#[test]
fn a_forward_is_never_forwarded_again() {
    let mut net = net_of(3, 1);
    let p = net.client(Version::V5, "p");
    for node in 1..3 {
        let c = net.client_at_shard(node, 0, Version::V5, &format!("s{node}"));
        net.subscribe(c, "t", QoS::AtMostOnce);
    }
    net.publish(p, "t", "x");
    assert_eq!(net.metric(Metric::MessagesForward), 2);
    assert_eq!(net.metric(Metric::MessagesSent), 2);
}

#[test]
fn an_acknowledgement_waits_for_the_other_node() {
    for (qos, kind) in [(1, AckKind::Puback), (2, AckKind::Pubrec)] {
        let mut net = two();
        let p = net.client(Version::V5, "p");
        let s = net.client_at_shard(1, 0, Version::V5, "s");
        net.subscribe(s, "t", QoS::ExactlyOnce);
        let local = net.client(Version::V5, "local");
        net.subscribe(local, "here", QoS::ExactlyOnce);
        let bytes = net.encode(p, message("t", "x", qos, 1));
        net.push(p, &bytes);
        let bytes = net.encode(p, message("here", "y", qos, 2));
        net.push(p, &bytes);
        assert_eq!(net.payloads(local), ["y"], "only the acknowledgement waits");
        let first = net.take(p);
        assert!(first.is_empty() || first.len() == 2, "in order: {first:?}");
        net.run();
        assert_eq!(net.payloads(s), ["x"]);
        let mut ids: Vec<u16> = Vec::new();
        for packet in first.into_iter().chain(net.take(p)) {
            let Packet::Ack(ack) = packet else {
                panic!("{packet:?}")
            };
            assert_eq!((ack.kind, ack.reason), (kind, Reason::Success));
            ids.push(ack.packet_id.get());
        }
        assert_eq!(ids, [1, 2]);
    }
}

#[test]
fn async_does_not_wait() {
    let settings = Settings {
        rpc: Rpc {
            mode: RpcMode::Async,
        },
        ..Settings::default()
    };
    let mut net = Net::with(2, 1, settings);
    let p = net.client(Version::V5, "p");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::AtLeastOnce);
    let bytes = net.encode(p, message("t", "x", 1, 1));
    net.push(p, &bytes);
    assert_eq!(net.ack(p, AckKind::Puback, 1), Reason::Success);
    net.run();
    assert_eq!(net.payloads(s), ["x"]);
}

#[test]
fn a_blip_neither_loses_nor_repeats() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::ExactlyOnce);
    net.publish_acked(p, "t", "0", 1);
    net.cut_links();
    for n in 1..=3_u16 {
        net.send(p, message("t", &n.to_string(), 1, n));
    }
    net.nothing(p);
    net.cut = false;
    net.pass(2_000);
    assert_eq!(net.payloads(s), ["0", "1", "2", "3"]);
    assert_eq!(net.take(p).len(), 3, "acknowledged now");
}

/// Seed 22212: the handshake was written to the connection while it was being dialed, and lost.
#[test]
fn what_is_sent_while_a_link_is_dialed_waits_until_it_stands() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::AtLeastOnce);
    net.hold_dials = true;
    net.cut_links();
    net.cut = false;
    net.pass(50);
    net.send(p, message("t", "x", 1, 1));
    net.nothing(p);
    net.release_dials();
    assert_eq!(net.payloads(s), ["x"]);
    assert_eq!(net.ack(p, AckKind::Puback, 1), Reason::Success);
}

/// As one that has left dials its former members while its own control cannot say so yet.
#[test]
fn a_node_that_hangs_up_on_every_link_is_dialed_once_a_second() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::AtLeastOnce);
    net.disowned = true;
    net.cut_links();
    net.cut = false;
    let before = net.dials;
    net.pass(10_000);
    let dials = net.dials - before;
    assert!(dials <= 2 * 15, "{dials} dials of two nodes in 10 s");
    net.disowned = false;
    net.pass(1_000);
    net.publish_acked(p, "t", "x", 1);
    assert_eq!(net.payloads(s), ["x"]);
    // Taken again, it is as if nothing had been.
    net.cut_links();
    net.cut = false;
    net.pass(50);
    net.publish_acked(p, "t", "y", 1);
    assert_eq!(net.payloads(s), ["y"]);
}

#[test]
fn frames_that_arrived_before_the_cut_come_once() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::ExactlyOnce);
    // The frame arrives, its acknowledgement does not.
    let bytes = net.encode(p, message("t", "x", 2, 1));
    net.push(p, &bytes);
    net.carry_to_acceptors();
    net.cut_links();
    net.nothing(p);
    net.cut = false;
    net.pass(2_000);
    assert_eq!(net.payloads(s), ["x"]);
    assert_eq!(net.ack(p, AckKind::Pubrec, 1), Reason::Success);
}

#[test]
fn a_node_that_is_down_holds_nobody() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::AtLeastOnce);
    net.cut_links();
    net.send(p, message("t", "waiting", 1, 1));
    net.nothing(p);
    net.peer_down(0, 1);
    assert_eq!(net.ack(p, AckKind::Puback, 1), Reason::Success);
    net.send(p, message("t", "while down", 1, 2));
    assert_eq!(net.ack(p, AckKind::Puback, 2), Reason::Success);
    net.publish(p, "t", "qos 0 while down");
    assert_eq!(net.metric(Metric::MessagesDropped), 1);
    // It was only away: what was acknowledged reaches it.
    net.cut = false;
    net.peer_up(0, 1);
    net.pass(2_000);
    assert_eq!(net.payloads(s), ["waiting", "while down"]);
}

#[test]
fn a_full_window_pauses_qos_1_and_drops_qos_0() {
    let mut net = two();
    let p = net.client(Version::V3_1_1, "p");
    let zero = net.client(Version::V3_1_1, "zero");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::AtMostOnce);
    net.cut_links();
    let big = "x".repeat(900_000);
    for _ in 0..29 {
        net.publish(zero, "t", &big);
    }
    net.send(p, message("t", "first", 1, 1));
    assert!(net.clients[p.0].paused, "the window is three quarters full");
    net.send(p, message("t", "second", 1, 2));
    net.nothing(p);
    for _ in 0..26 {
        net.publish(zero, "t", &big);
    }
    assert!(net.metric(Metric::MessagesDropped) > 10, "QoS 0 is dropped");
    assert!(!net.clients[zero.0].paused);
    net.cut = false;
    net.pass(2_000);
    assert!(!net.clients[p.0].paused);
    assert_eq!(net.take(p).len(), 2);
    let got = net.payloads(s);
    let small: Vec<&str> = got
        .iter()
        .map(String::as_str)
        .filter(|text| text.len() < 100)
        .collect();
    assert_eq!(small, ["first", "second"]);
}

#[test]
fn shared_groups_span_nodes() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let members: Vec<C> = (0..4)
        .map(|n| {
            let c = net.client_at_shard(n % 2, 0, Version::V5, &format!("m{n}"));
            net.subscribe(c, "$share/g/t/#", QoS::AtLeastOnce);
            c
        })
        .collect();
    let plain = net.client_at_shard(1, 0, Version::V5, "plain");
    net.subscribe(plain, "t/x", QoS::AtLeastOnce);
    for n in 0..12 {
        net.publish_acked(p, "t/x", &n.to_string(), 1);
    }
    let got: Vec<usize> = members.iter().map(|c| net.payloads(*c).len()).collect();
    assert_eq!(got.iter().sum::<usize>(), 12);
    assert!(got.iter().all(|n| *n > 0), "{got:?}");
    assert_eq!(net.payloads(plain).len(), 12);
    // Members of a node that cannot be reached are not picked.
    net.cut_links();
    net.peer_down(0, 1);
    for n in 0..6 {
        net.publish_acked(p, "t/x", &n.to_string(), 1);
    }
    assert_eq!(
        net.payloads(members[0]).len() + net.payloads(members[2]).len(),
        6
    );
}

#[test]
fn a_suback_waits_for_routes_but_not_for_long() {
    let mut net = two();
    let c = net.client(Version::V5, "c");
    net.hold_control = true;
    net.send(
        c,
        super::net::subscribe(1, "t", SubscriptionOptions::default(), 0),
    );
    net.nothing(c);
    net.send(c, Packet::Pingreq);
    assert_eq!(net.one(c), Packet::Pingresp);
    net.pass(150);
    net.nothing(c);
    net.pass(100);
    assert!(matches!(net.one(c), Packet::Suback(_)));
    net.hold_control = false;
    net.send(
        c,
        super::net::subscribe(1, "u", SubscriptionOptions::default(), 0),
    );
    assert!(matches!(net.one(c), Packet::Suback(_)));
    // A filter the node has already changes no route.
    net.hold_control = true;
    net.send(
        c,
        super::net::subscribe(1, "u", SubscriptionOptions::default(), 0),
    );
    assert!(matches!(net.one(c), Packet::Suback(_)));
}

#[test]
fn subscribe_here_publish_there_at_once() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::AtMostOnce);
    net.publish(p, "t", "x");
    assert_eq!(net.payloads(s), ["x"]);
    net.unsubscribe(s, "t");
    net.publish(p, "t", "x");
    assert_eq!(net.metric(Metric::MessagesForward), 1);
}

#[test]
fn expiry_and_properties_cross_nodes() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::AtMostOnce);
    let mut properties = dunlin_mqtt::Properties::new();
    properties
        .set_message_expiry_interval(50)
        .set_content_type("c");
    let publish = dunlin_mqtt::Publish::new("t", b"x", QoS::AtMostOnce, false);
    net.send(p, Packet::Publish(publish.with_properties(&properties)));
    let Packet::Publish(got) = net.one(s) else {
        panic!("a publish")
    };
    assert_eq!(got.properties().message_expiry_interval(), Some(50));
    assert_eq!(got.properties().content_type(), Some("c"));
}

#[test]
fn no_local_holds_across_nodes() {
    let mut net = two();
    // The same identifier publishes on a node that does not know of the other connection.
    net.hold_control = true;
    let (c, _) = net.persistent_at(1, 0, Version::V5, "c");
    net.hold_control = false;
    let options = SubscriptionOptions {
        no_local: true,
        ..SubscriptionOptions::default()
    };
    net.try_subscribe(c, "t", options, 0);
    let twin = net.accept_at(0, 0, Version::V5);
    net.send(
        twin,
        Packet::Connect(Box::new(persistent(Version::V5, "c"))),
    );
    net.publish(twin, "t", "own");
    net.nothing(c);
    assert_eq!(net.metric(Metric::DeliveryDroppedNoLocal), 1);
}

#[test]
fn a_session_moves_to_another_node() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
    net.subscribe(old, "t/+", QoS::ExactlyOnce);
    net.subscribe(old, "$share/g/s", QoS::AtLeastOnce);
    for n in 0..40 {
        net.publish_acked(p, "t/x", &n.to_string(), 1 + n % 2);
    }
    net.take(old);
    let (new, present) = net.persistent_at(1, 0, Version::V5, "c");
    assert!(present);
    net.check_disconnected(old, Reason::SessionTakenOver);
    let expected: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!(net.payloads(new), expected);
    net.publish_acked(p, "t/x", "after", 2);
    net.publish_acked(p, "s", "shared", 1);
    net.pass(100);
    assert_eq!(net.payloads(new), ["after", "shared"]);
    assert_eq!(
        net.nodes[0].shards[0].counts().sessions,
        1,
        "the publisher's"
    );
    assert_eq!(net.nodes[0].shared.registry().local_shard("c"), None);
    assert_eq!(net.nodes[0].shared.router().read().usage().subscriptions, 0);
    // And back, offline.
    net.drop_client(new);
    net.publish_acked(p, "t/x", "offline", 1);
    let (back, present) = net.persistent_at(0, 0, Version::V5, "c");
    assert!(present);
    net.pass(100);
    assert_eq!(net.payloads(back), ["offline"]);
    assert_eq!(net.nodes[1].shared.router().read().usage().subscriptions, 0);
}

#[test]
fn the_newer_session_of_a_split_is_resumed_and_not_the_one_at_hand() {
    let mut net = two();
    split(&mut net);
    let p = net.client_at_shard(1, 0, Version::V5, "p");
    net.publish_acked(p, "new", "x", 1);
    let (back, present) = net.persistent_at(0, 0, Version::V5, "c");
    assert!(present);
    net.pass(100);
    assert_eq!(net.payloads(back), ["x"]);
}

/// A session of "c" on node 0, shard 0, and a newer one with a subscription on node 1.
fn split(net: &mut Net) {
    let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
    net.subscribe(old, "old", QoS::AtLeastOnce);
    net.drop_client(old);
    net.peer_down(0, 1);
    net.peer_down(1, 0);
    let (new, present) = net.persistent_at(1, 0, Version::V5, "c");
    assert!(!present, "the other node was not asked");
    net.subscribe(new, "new", QoS::AtLeastOnce);
    net.drop_client(new);
    net.peer_up(0, 1);
    net.peer_up(1, 0);
    net.run();
}

#[test]
fn the_newer_session_of_a_split_is_resumed_when_another_shard_has_it() {
    let mut net = net_of(2, 2);
    split(&mut net);
    let (third, present) = net.persistent_at(0, 1, Version::V5, "c");
    assert!(present);
    net.pass(100);
    net.drop_client(third);
    let p = net.client_at_shard(0, 1, Version::V5, "p");
    net.publish_acked(p, "new", "x", 1);
    let (back, present) = net.persistent_at(0, 0, Version::V5, "c");
    assert!(present);
    net.pass(100);
    assert_eq!(net.payloads(back), ["x"]);
}

#[test]
fn a_client_that_moves_on_does_not_put_off_the_end_of_its_older_session() {
    let mut net = two();
    split(&mut net);
    for _ in 0..3 {
        net.pass(7_000);
        net.persistent_at(1, 0, Version::V5, "c");
    }
    assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
}

/// A CONNECT of "c" whose consequences have not gone anywhere yet.
fn begin_connect(net: &mut Net, node: usize, shard: usize) -> C {
    let c = net.accept_at(node, shard, Version::V5);
    let connect = persistent(Version::V5, "c");
    let bytes = net.encode(c, Packet::Connect(Box::new(connect)));
    net.push(c, &bytes);
    c
}

fn stamp_of(net: &Net, node: usize) -> Option<Hlc> {
    net.nodes[node].shared.registry().local_stamp("c")
}

#[test]
fn of_two_connections_in_one_instant_one_stays() {
    for nodes in [[0, 1], [1, 0]] {
        let mut net = two();
        let racers = nodes.map(|node| begin_connect(&mut net, node, 0));
        assert_eq!(stamp_of(&net, 0), stamp_of(&net, 1), "in one instant");
        net.run();
        let open = racers.map(|c| net.is_open(c));
        assert_eq!(open.iter().filter(|open| **open).count(), 1);
        net.pass(20_000);
        assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
        assert_eq!(net.nodes[1].shards[0].counts().sessions, 1);
    }
}

#[test]
fn a_session_moved_without_its_client_is_as_old_as_it_was_and_stays() {
    for node in [0, 1] {
        let mut net = two();
        let (c, _) = net.persistent_at(node, 0, Version::V5, "c");
        net.drop_client(c);
        let newer = stamp_of(&net, node).expect("its session waits");
        let clientid = "c".to_owned();
        net.tell(node, 0, ToShard::Elsewhere { clientid, newer });
        net.pass(20_000);
        assert_eq!(net.nodes[node].shards[0].counts().sessions, 1);
    }
}

/// The news of the other node's connection is here, but the shard has not heard of it.
#[test]
fn a_connection_elsewhere_does_not_hide_the_older_one_of_another_shard() {
    for (clean, later) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
        let mut net = net_of(2, 2);
        let (old, _) = net.persistent_at(1, 0, Version::V5, "c");
        let stamp = stamp_of(&net, 1).expect("connected");
        let (there, other) = (Hlc(stamp.0 + later), net.index(1, 0));
        net.nodes[1].shared.registry().remote_put("c", other, there);
        let new = if clean {
            net.client_at_shard(1, 1, Version::V5, "c")
        } else {
            let (new, present) = net.persistent_at(1, 1, Version::V5, "c");
            assert_eq!(present, later == 0);
            new
        };
        net.check_disconnected(old, Reason::SessionTakenOver);
        net.pass(20_000);
        assert_eq!(net.nodes[1].shards[0].counts().sessions, 0);
        assert!(net.is_open(new));
    }
}

#[test]
fn a_clean_start_discards_on_another_node() {
    let mut net = two();
    let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
    net.subscribe(old, "t", QoS::AtLeastOnce);
    let new = net.client_at_shard(1, 0, Version::V5, "c");
    net.check_disconnected(old, Reason::SessionTakenOver);
    net.publish(new, "t", "x");
    net.nothing(new);
    assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
}

/// Publishes between any two steps of a takeover between nodes.
#[test]
fn nothing_is_lost_or_doubled_while_a_session_changes_nodes() {
    for publisher_node in 0..3 {
        let mut net = net_of(3, 1);
        let p = net.client_at_shard(publisher_node, 0, Version::V3_1_1, "p");
        let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
        net.subscribe(old, "t", QoS::ExactlyOnce);
        let new = net.accept_at(1, 0, Version::V5);
        let connect = net.encode(new, Packet::Connect(Box::new(persistent(Version::V5, "c"))));
        net.push(new, &connect);
        let mut sent = Vec::new();
        for n in 0..20_u16 {
            let bytes = net.encode(p, message("t", &n.to_string(), 1, n + 1));
            net.push(p, &bytes);
            sent.push(n.to_string());
            net.step();
        }
        net.run();
        net.pass(500);
        let mut got = Vec::new();
        for packet in net.take(old) {
            if let Packet::Publish(p) = packet {
                got.push(String::from_utf8_lossy(p.payload()).into_owned());
            }
        }
        let packets = net.take(new);
        assert!(matches!(&packets[0], Packet::Connack(c) if c.session_present));
        for packet in &packets {
            if let Packet::Publish(p) = packet
                && !p.dup
            {
                got.push(String::from_utf8_lossy(p.payload()).into_owned());
            }
            net.answer(new, packet);
        }
        got.extend(net.payloads(new));
        assert_eq!(got, sent, "publisher on {publisher_node}");
    }
}

/// A persistent session of "c" on node 1 with a subscription to "t", a publisher on node 0.
fn moving(shards: u16) -> (Net, C) {
    let mut net = net_of(3, shards);
    let p = net.client_at_shard(0, 0, Version::V5, "p");
    let (old, _) = net.persistent_at(1, 0, Version::V5, "c");
    net.subscribe(old, "t", QoS::ExactlyOnce);
    (net, p)
}

/// Seeds 38632 and 31137: the session had left when the forward got to its old node.
#[test]
fn a_session_that_moves_waits_for_what_is_on_the_way_to_its_old_node() {
    for (shards, to) in [(1, 2), (2, 2), (1, 0), (2, 0)] {
        let (mut net, p) = moving(shards);
        net.hold_wires(0, 1, true);
        net.send(p, message("t", "late", 2, 1));
        let (new, present) = net.persistent_at(to, 0, Version::V5, "c");
        assert!(present);
        net.send(p, message("t", "after", 2, 2));
        net.pass(1_000);
        assert_eq!(
            net.payloads(new),
            Vec::<String>::new(),
            "their order is kept"
        );
        net.hold_wires(0, 1, false);
        assert_eq!(
            net.payloads(new),
            ["late", "after"],
            "{shards} shards, to {to}"
        );
        assert_eq!(net.ack(p, AckKind::Pubrec, 1), Reason::Success);
    }
}

/// Nothing else hangs, and what is on that connection comes over the next one: the session is still
/// on its old node then.
#[test]
fn a_session_that_moves_while_a_data_connection_hangs_loses_nothing() {
    for (shards, to) in [(1, 2), (2, 2), (1, 0), (2, 0)] {
        let (mut net, p) = moving(shards);
        net.hang_wires(0, 1, true);
        net.send(p, message("t", "late", 2, 1));
        let (new, present) = net.persistent_at(to, 0, Version::V5, "c");
        assert!(present);
        net.send(p, message("t", "after", 2, 2));
        net.pass(4_000);
        assert_eq!(
            net.payloads(new),
            ["late", "after"],
            "{shards} shards, to {to}"
        );
        assert_eq!(net.ack(p, AckKind::Pubrec, 1), Reason::Success);
    }
}

#[test]
fn a_session_that_moves_does_not_wait_for_ever() {
    let (mut net, p) = moving(1);
    net.hold_wires(0, 1, true);
    net.send(p, message("t", "stuck", 1, 1));
    let (new, _) = net.persistent_at(2, 0, Version::V5, "c");
    net.send(p, message("t", "x", 1, 2));
    net.pass(5_900);
    net.nothing(new);
    net.pass(200);
    assert_eq!(net.payloads(new), ["x"]);
    net.nothing(p);
}

/// Seed 109947: what was acknowledged while its node was away is not lost, although what followed
/// was faster by the way of another node. Nobody knows it there unless the session is back.
#[test]
fn what_a_link_held_comes_late_to_a_session_that_is_back() {
    for is_back in [true, false] {
        let (mut net, p) = moving(1);
        net.hang_wires(0, 1, true);
        net.send(p, message("t", "held", 2, 1));
        let (mut c, present) = net.persistent_at(2, 0, Version::V5, "c");
        assert!(present);
        net.nothing(p);
        net.peer_down(0, 1);
        assert_eq!(net.ack(p, AckKind::Pubrec, 1), Reason::Success);
        net.send(p, message("t", "after", 2, 2));
        assert_eq!(net.payloads(c), ["after"]);
        if is_back {
            (c, _) = net.persistent_at(1, 0, Version::V5, "c");
        }
        net.peer_up(0, 1);
        net.pass(2_000);
        let late: &[&str] = if is_back { &["held"] } else { &[] };
        assert_eq!(net.payloads(c), late, "back: {is_back}");
    }
}

/// The client is back on its old node before that one has handed the rest over; what only the old
/// node got meanwhile is in the session all the same.
#[test]
fn a_client_that_comes_back_at_once_has_what_its_leaving_session_collected() {
    for (shards, shard) in [(1, 0), (2, 0), (2, 1)] {
        let mut net = net_of(2, shards);
        let p = net.client_at_shard(0, 0, Version::V5, "p");
        let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
        net.subscribe(old, "t", QoS::ExactlyOnce);
        net.hold_control = true;
        let (moved, present) = net.persistent_at(1, 0, Version::V5, "c");
        assert!(present);
        net.drop_client(moved);
        net.publish_acked(p, "t", "x", 1);
        let back = net.accept_at(0, shard, Version::V5);
        net.send(
            back,
            Packet::Connect(Box::new(persistent(Version::V5, "c"))),
        );
        net.hold_control = false;
        net.pass(6_200);
        assert!(
            net.connack(back).session_present,
            "{shards} shards, at {shard}"
        );
        assert_eq!(net.payloads(back), ["x"], "{shards} shards, at {shard}");
        net.publish_acked(p, "t", "y", 1);
        assert_eq!(net.payloads(back), ["y"]);
        let sessions = net.nodes.iter().flat_map(|node| &node.shards);
        let sessions: u64 = sessions.map(|shard| shard.counts().sessions).sum();
        assert_eq!(sessions, 2, "the publisher's and the client's");
    }
}

/// As [`moving`], and the session has just moved to node 2 with a message whose copy for node 2 is
/// still on its way there.
fn moved_before_its_copy() -> (Net, C, C) {
    let (mut net, p) = moving(1);
    net.hold_control = true;
    let new = net.accept_at(2, 0, Version::V5);
    net.send(new, Packet::Connect(Box::new(persistent(Version::V5, "c"))));
    // Node 0 learns of both places before the rest is asked for.
    let index = net.index(2, 0);
    let router = net.nodes[0].shared.router();
    router.write().add_remote("t", index);
    net.hold_wires(0, 2, true);
    net.send(p, message("t", "on", 2, 1));
    net.hold_control = false;
    net.pass(6_100);
    assert_eq!(
        net.payloads(new),
        ["on"],
        "as the old node has handed it over"
    );
    (net, p, new)
}

/// Seed 21187: the copy for the new node came long after the old one had handed the message over.
#[test]
fn a_copy_that_comes_late_is_known_and_another_message_like_it_is_not_taken_for_it() {
    let (mut net, p, new) = moved_before_its_copy();
    net.send(p, message("t", "on", 2, 2));
    net.hold_wires(0, 2, false);
    net.pass(2_000);
    assert_eq!(
        net.payloads(new),
        ["on"],
        "the second, and no copy of the first"
    );
}

#[test]
fn a_copy_is_known_when_its_session_has_gone_and_come_back() {
    let (mut net, _, _) = moved_before_its_copy();
    net.persistent_at(1, 0, Version::V5, "c");
    net.pass(6_100);
    let (back, present) = net.persistent_at(2, 0, Version::V5, "c");
    assert!(present);
    net.pass(6_100);
    net.hold_wires(0, 2, false);
    net.pass(2_000);
    assert_eq!(net.payloads(back), Vec::<String>::new());
}

/// Seed 59783: a copy for another subscriber got to the new node after the session had come there
/// with the message, be it queued or in flight.
#[test]
fn a_copy_of_what_came_with_the_session_is_known() {
    for queued in [true, false] {
        let mut net = net_of(3, 1);
        let p = net.client_at_shard(0, 0, Version::V5, "p");
        let (old, _) = net.persistent_at(1, 0, Version::V5, "c");
        net.subscribe(old, "t", QoS::ExactlyOnce);
        let other = net.client_at_shard(2, 0, Version::V5, "other");
        net.subscribe(other, "t", QoS::AtMostOnce);
        if queued {
            net.drop_client(old);
        }
        net.hold_wires(0, 2, true);
        net.send(p, message("t", "on", 2, 1));
        let (new, present) = net.persistent_at(2, 0, Version::V5, "c");
        assert!(present);
        net.pass(6_100);
        assert_eq!(net.payloads(new), ["on"]);
        net.hold_wires(0, 2, false);
        net.pass(100);
        assert_eq!(net.payloads(other), ["on"]);
        assert_eq!(net.payloads(new), [""; 0], "queued: {queued}");
    }
}

/// Seed 86743: the old node's full queue had dropped the oldest message, whose copy got to the new
/// node, be it before or after the rest was handed over.
#[test]
fn what_a_session_dropped_while_it_moved_does_not_come_behind_what_followed() {
    for late in [false, true] {
        let mqtt = Mqtt {
            max_mqueue_len: Some(2),
            ..Mqtt::default()
        };
        let mut net = Net::with(3, 1, settings(mqtt));
        let p = net.client_at_shard(0, 0, Version::V5, "p");
        let q = net.client_at_shard(2, 0, Version::V5, "q");
        let (old, _) = net.persistent_at(1, 0, Version::V5, "c");
        net.subscribe(old, "t", QoS::AtLeastOnce);
        net.hold_control = true;
        let (new, present) = net.persistent_at(2, 0, Version::V5, "c");
        assert!(present);
        let index = net.index(2, 0);
        net.nodes[0].shared.router().write().add_remote("t", index);
        net.hold_wires(0, 2, true);
        net.send(p, message("t", "1", 1, 1));
        net.send(p, message("t", "2", 1, 2));
        net.send(q, message("t", "other", 1, 1));
        if !late {
            net.hold_wires(0, 2, false);
        }
        net.hold_control = false;
        net.pass(6_100);
        assert_eq!(net.payloads(new), ["2", "other"], "late: {late}");
        net.hold_wires(0, 2, false);
        net.pass(2_000);
        assert_eq!(net.payloads(new), [""; 0], "late: {late}");
        let rows = net.nodes[2].shards[0].client_rows(None, 1_000);
        let dropped = rows.iter().find(|row| row.clientid == "c");
        let dropped = dropped.map(|row| row.mqueue_dropped);
        // In time, the copies collected here had not enough room either.
        assert_eq!(dropped, Some(if late { 1 } else { 2 }));
    }
}

#[test]
fn a_node_that_does_not_answer_leaves_a_new_session() {
    let mut net = two();
    net.persistent_at(0, 0, Version::V5, "c");
    net.lose_calls = true;
    let new = net.accept_at(1, 0, Version::V5);
    net.send(new, Packet::Connect(Box::new(persistent(Version::V5, "c"))));
    net.nothing(new);
    net.pass(15_100);
    assert!(!net.connack(new).session_present);
    assert!(net.is_open(new));
}

/// A session of "c" on node 0, and a CONNECT of it to node 1 that cannot reach that one and whose
/// client is gone before it hears anything.
fn given_up() -> Net {
    let mut net = net_of(3, 1);
    let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
    net.subscribe(old, "t", QoS::AtLeastOnce);
    net.lose_calls = true;
    let second = begin_connect(&mut net, 1, 0);
    net.run();
    net.drop_client(second);
    net.lose_calls = false;
    net
}

#[test]
fn a_session_that_never_came_is_not_handed_on() {
    let mut net = given_up();
    net.pass(100);
    let third = begin_connect(&mut net, 2, 0);
    net.run();
    net.nothing(third);
    net.pass(15_000);
    assert!(
        !net.connack(third).session_present,
        "it has no subscription"
    );
    net.pass(15_000);
    let sessions = [0, 1, 2].map(|node| net.nodes[node].shards[0].counts().sessions);
    assert_eq!(sessions, [0, 0, 1]);
}

#[test]
fn a_session_that_never_came_is_not_kept_for_a_client_that_never_heard_of_it() {
    for node in [1, 2] {
        let mut net = given_up();
        net.pass(15_100);
        assert_eq!(net.nodes[1].shards[0].counts().sessions, 0);
        assert_eq!(stamp_of(&net, 1), None);
        let (_, present) = net.persistent_at(node, 0, Version::V5, "c");
        assert!(!present, "there is none");
    }
}

/// Seed 3190: the shards of a node waited for each other, and every CONNECT for them, for ever.
#[test]
fn a_client_that_comes_back_by_other_shards_while_its_session_is_on_the_way_is_answered() {
    let ways: [&[usize]; 4] = [&[0, 1, 0], &[0, 1, 2, 0], &[0, 1, 0, 1], &[2, 1, 0, 2, 1]];
    for way in ways {
        let mut net = net_of(2, 3);
        net.persistent_at(0, 0, Version::V5, "c");
        net.lose_calls = true;
        let mut last = None;
        for shard in way {
            last = Some(begin_connect(&mut net, 1, *shard));
            net.run();
        }
        net.pass(15_000);
        let last = last.expect("somebody connected");
        assert!(!net.connack(last).session_present, "{way:?}");
        let shards = net.nodes[1].shards.iter();
        let sessions: u64 = shards.map(|shard| shard.counts().sessions).sum();
        assert_eq!(sessions, 1, "{way:?}");
        for shard in 0..3 {
            let (_, present) = net.persistent_at(1, shard, Version::V5, "c");
            assert!(present, "{way:?}, then {shard}");
        }
    }
}

/// Letters that are on their way for longer than others.
fn delayed(net: &mut Net, wanted: impl Fn(&Letter) -> bool) -> VecDeque<Letter> {
    let letters = std::mem::take(&mut net.letters);
    let (late, others) = letters.into_iter().partition(wanted);
    net.letters = others;
    late
}

#[test]
fn a_session_that_moves_is_over_there_although_another_shard_here_answers_last() {
    let mut net = net_of(2, 2);
    let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
    net.subscribe(old, "t", QoS::AtLeastOnce);
    begin_connect(&mut net, 1, 0);
    let asked = delayed(&mut net, |letter| matches!(letter, Letter::Control(..)));
    begin_connect(&mut net, 1, 1);
    net.run();
    let last = begin_connect(&mut net, 1, 0);
    let slow = delayed(&mut net, |letter| matches!(letter, Letter::Shard(1, 1, _)));
    net.letters.extend(asked);
    net.run();
    net.letters.extend(slow);
    net.run();
    assert!(net.connack(last).session_present);
    net.pass(4_000);
    assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
    net.publish_acked(last, "t", "x", 1);
    assert_eq!(net.payloads(last), ["x"]);
}

#[test]
fn a_node_that_is_down_is_not_asked() {
    let mut net = two();
    net.persistent_at(0, 0, Version::V5, "c");
    net.peer_down(1, 0);
    let (_, present) = net.persistent_at(1, 0, Version::V5, "c");
    assert!(!present);
}

#[test]
fn a_copied_session_that_nobody_finishes_ends() {
    let mut net = two();
    let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
    net.subscribe(old, "t", QoS::AtLeastOnce);
    let new = net.accept_at(1, 0, Version::V5);
    net.hold_control = true;
    net.send(new, Packet::Connect(Box::new(persistent(Version::V5, "c"))));
    net.lose_calls = true;
    net.pass(31_000);
    assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
    assert_eq!(net.nodes[0].shared.router().read().usage().filters, 0);
    net.take(new);
    let p = net.client_at_shard(1, 0, Version::V5, "p");
    net.publish_acked(p, "t", "x", 1);
    assert_eq!(
        net.payloads(new),
        ["x"],
        "its new owner has it all the same"
    );
}

#[test]
fn what_a_copied_session_was_picked_for_goes_to_another_member() {
    let mut net = two();
    let (old, _) = net.persistent_at(0, 0, Version::V5, "c");
    net.subscribe(old, "$share/g/t", QoS::AtLeastOnce);
    let new = net.accept_at(1, 0, Version::V5);
    net.hold_control = true;
    net.send(new, Packet::Connect(Box::new(persistent(Version::V5, "c"))));
    net.lose_calls = true;
    let p = net.client(Version::V5, "p");
    net.publish_acked(p, "t", "x", 1);
    net.hold_control = false;
    let other = net.client(Version::V5, "other");
    net.subscribe(other, "$share/g/t", QoS::AtLeastOnce);
    net.pass(31_000);
    assert_eq!(net.payloads(other), ["x"]);
}

#[test]
fn exclusive_subscriptions_are_exclusive_in_the_cluster() {
    let mqtt = Mqtt {
        exclusive_subscription: true,
        ..Mqtt::default()
    };
    let mut net = Net::with(2, 1, settings(mqtt));
    let a = net.client_at_shard(0, 0, Version::V5, "a");
    let b = net.client_at_shard(1, 0, Version::V5, "b");
    let options = SubscriptionOptions::default();
    assert_eq!(
        net.try_subscribe(a, "$exclusive/t", options, 0),
        [Reason::Success]
    );
    assert_eq!(
        net.try_subscribe(b, "$exclusive/t", options, 0),
        [Reason::QuotaExceeded]
    );
    net.publish(b, "t", "x");
    assert_eq!(net.payloads(a), ["x"]);
    net.drop_client(a);
    assert_eq!(
        net.try_subscribe(b, "$exclusive/t", options, 0),
        [Reason::Success]
    );
}

#[test]
fn redispatch_reaches_another_node() {
    let mut net = two();
    let p = net.client(Version::V5, "p");
    let a = net.client(Version::V5, "a");
    net.subscribe(a, "$share/g/t", QoS::AtLeastOnce);
    net.publish_acked(p, "t", "x", 1);
    assert!(id_of(&mut net, a) > 0);
    let b = net.client_at_shard(1, 0, Version::V5, "b");
    net.subscribe(b, "$share/g/t", QoS::AtLeastOnce);
    net.drop_client(a);
    assert_eq!(net.payloads(b), ["x"]);
}
