//! Drivers and peers that misbehave: nothing may panic, nothing may leak.

use bytes::BytesMut;
use dunlin_cluster::{BootId, DialError, Hello, NodeName, Peer, Purpose, SiteId};
use dunlin_mqtt::{QoS, Version};

use super::net::{C, Net, message};
use crate::effects::{
    CloseReason, Conn, Delivery, PeerConn, ShardEffects, TakeoverResult, Target, ToShard,
};
use crate::message::{Head, Message, Parts};
use crate::router::{NodeIndex, SessionKey, SubOptions};

#[test]
fn unknown_connections_and_tokens_are_ignored() {
    let mut net = Net::new();
    let now = net.now;
    let shard = &mut net.nodes[0].shards[0];
    let mut fx = ShardEffects::new(1);
    let (conn, peer) = (Conn(77), PeerConn(77));
    let mut buf = BytesMut::from(&b"\xC0\x00"[..]);
    shard.receive(now, conn, &mut buf, &mut fx);
    assert!(shard.output(conn).is_none());
    shard.writable_drained(now, conn, &mut fx);
    shard.closed(now, conn, CloseReason::TcpClosed, &mut fx);
    shard.peer_connected(now, peer, &mut fx);
    shard.peer_dial_failed(now, peer, &DialError::TimedOut, &mut fx);
    shard.peer_received(now, peer, &mut buf, &mut fx);
    shard.peer_closed(now, peer, &mut fx);
    shard.peer_output(peer, &mut Vec::new());
    for letter in [
        ToShard::Settled { token: 5 },
        ToShard::Persisted { token: 5 },
        ToShard::Fenced { token: 5 },
        ToShard::TakenOver {
            token: 5,
            result: TakeoverResult::None,
        },
        ToShard::PeerDown {
            node: NodeIndex(9),
            reason: dunlin_cluster::DownReason::Silent,
        },
        ToShard::PeerGone {
            site: SiteId([9; 16]),
            node: NodeIndex(9),
        },
    ] {
        shard.message(now, letter, &mut fx);
    }
    assert_eq!(fx.peer_close, [peer]);
}

#[test]
fn a_delivery_to_a_session_that_ended_finds_nobody() {
    let mut net = Net::new();
    let old = net.client(Version::V5, "old");
    net.drop_client(old);
    // The slot is used again under another generation.
    let new = net.client(Version::V5, "new");
    let message = Message::new(
        Parts {
            topic: "t",
            ..Parts::default()
        },
        Head::default(),
    );
    for generation in 0..2 {
        let session = SessionKey {
            slot: 0,
            generation,
        };
        let options = SubOptions::new(QoS::AtMostOnce);
        let target = Target {
            session,
            options,
            group: None,
        };
        let to = std::iter::once(target).collect();
        let delivery = Delivery {
            message: message.clone(),
            to,
        };
        net.tell(0, 0, ToShard::Deliver(vec![delivery]));
        net.nothing(new);
    }
}

#[test]
fn nonsense_on_a_data_link_closes_it() {
    let mut net = Net::with(2, 1, crate::settings::Settings::default());
    let now = net.now;
    let hello = Hello {
        peer: Peer {
            site: SiteId([9; 16]),
            boot: BootId(1),
            name: NodeName::parse("x@127.0.0.1").expect("valid"),
        },
        cluster: dunlin_cluster::ClusterId([1; 16]),
        cluster_name: "emqxcl".to_owned(),
        purpose: Purpose::Data { index: 0 },
        wall_ms: 0,
        versions: (1, 1),
        listen_port: 1,
    };
    let shard = &mut net.nodes[0].shards[0];
    let mut fx = ShardEffects::new(1);
    shard.peer_accepted(now, PeerConn(1_001), &hello, &mut fx);
    let mut buf = BytesMut::from(&[0xFF; 64][..]);
    shard.peer_received(now, PeerConn(1_001), &mut buf, &mut fx);
    assert_eq!(fx.peer_close, [PeerConn(1_001)]);
    let control = Hello {
        purpose: Purpose::Control,
        ..hello
    };
    shard.peer_accepted(now, PeerConn(1_003), &control, &mut fx);
    assert_eq!(fx.peer_close, [PeerConn(1_001), PeerConn(1_003)]);
}

/// A publisher on node 0, a subscriber to "t" on node 1.
fn linked() -> (Net, C, C) {
    let mut net = Net::with(2, 1, crate::settings::Settings::default());
    let p = net.client(Version::V5, "p");
    let s = net.client_at_shard(1, 0, Version::V5, "s");
    net.subscribe(s, "t", QoS::AtLeastOnce);
    (net, p, s)
}

#[test]
fn a_data_link_that_hangs_is_dialed_again() {
    let (mut net, p, s) = linked();
    let dials = net.dials;
    net.hang_wires(0, 1, true);
    net.send(p, message("t", "x", 1, 1));
    net.pass(2_400);
    net.nothing(p);
    assert_eq!(net.dials, dials, "a peer may be busy for so long");
    net.pass(700);
    assert_eq!(net.payloads(s), ["x"]);
    assert_eq!(net.take(p).len(), 1);
    assert_eq!(net.dials, dials + 1);
}

#[test]
fn a_peer_that_was_stopped_for_two_seconds_keeps_its_data_link() {
    let (mut net, p, s) = linked();
    let dials = net.dials;
    for n in 1..=5 {
        net.hang_wires(0, 1, true);
        net.send(p, message("t", &n.to_string(), 1, n));
        net.pass(2_000);
        net.hang_wires(0, 1, false);
        net.pass(100);
    }
    assert_eq!(net.payloads(s), ["1", "2", "3", "4", "5"]);
    assert_eq!(net.dials, dials);
}

#[test]
fn a_node_that_was_stopped_itself_does_not_blame_its_peers() {
    let (mut net, p, s) = linked();
    let dials = net.dials;
    net.hang_wires(0, 1, true);
    net.send(p, message("t", "x", 1, 1));
    net.now.mono_ms += 20_000;
    // Deadlines come before what has arrived meanwhile is read.
    net.pass(1_000);
    net.hang_wires(0, 1, false);
    assert_eq!(net.payloads(s), ["x"]);
    assert_eq!(net.dials, dials);
}

#[test]
fn a_large_message_over_a_slow_way_is_no_hang() {
    let (mut net, p, s) = linked();
    let dials = net.dials;
    net.hang_wires(0, 1, true);
    let big = "x".repeat(900_000);
    net.send(p, message("t", &big, 1, 1));
    for _ in 0..10 {
        net.pass(1_000);
        net.carry_some(0, 1, 100_000);
    }
    assert_eq!(net.payloads(s), [big]);
    assert_eq!(net.take(p).len(), 1);
    assert_eq!(net.dials, dials);
}

#[test]
fn nobody_looks_at_links_on_which_nothing_is_due() {
    let mut net = Net::with(2, 1, crate::settings::Settings::default());
    net.pass(1_000);
    for node in &net.nodes {
        assert_eq!(node.shards[0].next_tick(), u64::MAX);
    }
}

/// What cannot be proven is dialed anew as well, and control hears of it.
#[test]
fn links_that_hang_while_they_are_proven_count_as_failed() {
    let (mut net, p, s) = linked();
    net.hold_wires(0, 1, true);
    net.send(p, message("t", "x", 1, 1));
    net.pass(14_000);
    assert_eq!(net.unreachable, []);
    net.pass(7_000);
    assert_eq!(net.unreachable, [(0, 5)]);
    net.hold_wires(0, 1, false);
    net.pass(100);
    assert_eq!(net.payloads(s), ["x"]);
}

#[test]
fn resources_go_with_their_clients() {
    let mut net = Net::with(1, 2, crate::settings::Settings::default());
    for round in 0..50 {
        for shard in 0..2 {
            let c = net.client_at_shard(0, shard, Version::V5, &format!("c{}", round % 7));
            net.subscribe(c, "a/+/b", QoS::AtLeastOnce);
            net.subscribe(c, "$share/g/x", QoS::AtLeastOnce);
            net.publish_acked(c, "x", "y", 1);
            net.drop_client(c);
        }
    }
    net.pass(60_000);
    for shard in &net.nodes[0].shards {
        assert_eq!(shard.counts(), crate::effects::Counts::default());
        assert!(shard.idle_tables(), "tokens, takeovers and fences are gone");
        assert_eq!(shard.next_tick(), u64::MAX, "no deadline is left");
    }
    assert_eq!(net.nodes[0].shared.router().read().usage().filters, 0);
    assert_eq!(net.nodes[0].shared.registry().counts(), (0, 0));
}
