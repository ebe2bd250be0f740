//! Giving clients away: the connected ones are sent to another server, the sessions of the others
//! are taken over by nodes that no client has connected to.

use std::sync::Arc;

use dunlin_cluster::DownReason;
use dunlin_mqtt::{Connect, Packet, QoS, Reason, Version};

use super::net::{C, Letter, Net, persistent};
use super::will::with_will;
use crate::effects::{Answer, Ask, CloseReason, Evict, Evicted, ToShard};
use crate::redirect::Redirect;
use crate::router::NodeIndex;
use crate::session::SessionOffer;
use crate::settings::Settings;
use crate::shard::Shard;

impl Net {
    /// A node's control carries an offer to another node, whose control picks a shard.
    pub(super) fn offer(&mut self, node: usize, to: NodeIndex, offer: Box<SessionOffer>) {
        let site = self.nodes[node].shared.peer_site(to).expect("known");
        let to = (0..self.nodes.len()).find(|at| self.nodes[*at].shared.site() == site);
        let to = to.expect("it exists");
        let from = self.index(node, to);
        let shard = offer.shard_of(self.nodes[to].shared.shards());
        let letter = ToShard::Adopt { from, offer };
        self.letters
            .push_back(Letter::Shard(to, usize::from(shard), letter));
    }
}

fn net_of(nodes: usize, shards: u16) -> Net {
    Net::with(nodes, shards, Settings::default())
}

/// Asks a shard of node 0 to give away what it has to node 1.
fn evict(net: &mut Net, shard: usize, connections: usize, sessions: usize) -> Evicted {
    let to = vec![net.index(1, 0)];
    let wanted = Evict {
        connections,
        sessions,
        to,
    };
    match net.ask(0, shard, Ask::Evict(wanted)) {
        Answer::Evicted(evicted) => evicted,
        other => panic!("{other:?}"),
    }
}

fn refuse(net: &mut Net, reference: Option<&str>) {
    let redirect = reference.map(|to| Arc::new(Redirect::everyone(to.to_owned())));
    net.ask(0, 0, Ask::Refuse(redirect));
}

fn offline(net: &mut Net, shard: usize, id: &str, filter: &str) -> C {
    let (c, _) = net.persistent_at(0, shard, Version::V5, id);
    net.subscribe(c, filter, QoS::ExactlyOnce);
    net.drop_client(c);
    c
}

#[test]
fn new_clients_are_told_where_to_go_until_they_may_come_again() {
    let mut net = Net::new();
    refuse(&mut net, Some("b:1883 c:1883"));
    for version in [Version::V5, Version::V3_1_1] {
        let c = net.accept(version);
        net.send(c, Packet::Connect(Box::new(Connect::new(version, "c"))));
        let connack = net.connack(c);
        if version == Version::V5 {
            assert_eq!(connack.reason, Reason::UseAnotherServer);
            let reference = connack.properties.server_reference();
            assert_eq!(reference, Some("b:1883 c:1883"));
        } else {
            assert_eq!(connack.reason, Reason::ServerUnavailable);
        }
        net.check_closed(c, CloseReason::ConnectRefused);
    }
    refuse(&mut net, None);
    net.client(Version::V5, "c");
}

#[test]
fn so_many_clients_are_sent_away_and_no_more() {
    let mut net = net_of(2, 1);
    refuse(&mut net, Some("b:1883"));
    refuse(&mut net, None);
    let five = net.client(Version::V5, "five");
    refuse(&mut net, Some("b:1883"));
    let evicted = evict(&mut net, 0, 0, 0);
    assert_eq!((evicted.connections, evicted.connected), (0, 1));
    let evicted = evict(&mut net, 0, 1, 0);
    assert_eq!((evicted.connections, evicted.connected), (1, 0));
    let packets = net.take(five);
    let Some(Packet::Disconnect(last)) = packets.last() else {
        panic!("no DISCONNECT: {packets:?}");
    };
    assert_eq!(last.reason, Reason::UseAnotherServer);
    assert_eq!(last.properties.server_reference(), Some("b:1883"));
    net.check_closed(five, CloseReason::Evicted);
}

#[test]
fn a_session_moves_without_its_client_and_loses_nothing() {
    for shards in [1, 2] {
        let mut net = net_of(3, shards);
        let p = net.client_at_shard(2, 0, Version::V5, "p");
        offline(&mut net, usize::from(shards) - 1, "c", "t/+");
        for n in 0..40 {
            net.publish_acked(p, "t/x", &n.to_string(), 1 + n % 2);
        }
        let evicted = evict(&mut net, usize::from(shards) - 1, 9, 9);
        assert_eq!((evicted.sessions, evicted.disconnected), (1, 1));
        net.publish_acked(p, "t/x", "after", 2);
        net.pass(4_000);
        let left = evict(&mut net, usize::from(shards) - 1, 0, 0);
        assert_eq!(left.disconnected, 0);
        assert!(net.nodes[1].shared.registry().local_shard("c").is_some());
        assert_eq!(net.nodes[0].shared.registry().local_shard("c"), None);
        assert_eq!(net.nodes[0].shared.router().read().usage().subscriptions, 0);
        net.publish_acked(p, "t/x", "later", 1);
        let (back, present) = net.persistent_at(2, 0, Version::V5, "c");
        assert!(present);
        net.pass(100);
        let mut expected: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        expected.extend(["after".to_owned(), "later".to_owned()]);
        assert_eq!(net.payloads(back), expected);
        assert!(
            net.nodes
                .iter()
                .all(|n| n.shards.iter().all(Shard::idle_tables))
        );
    }
}

#[test]
fn sessions_are_spread_over_those_who_get_them() {
    for batch in 1..=3 {
        let mut net = net_of(3, 1);
        for n in 0..12 {
            offline(&mut net, 0, &format!("c{n}"), "t");
        }
        let wanted = Evict {
            connections: 0,
            sessions: batch,
            to: vec![net.index(1, 0), net.index(2, 0)],
        };
        for _ in 0..12 / batch {
            net.ask(0, 0, Ask::Evict(wanted.clone()));
            net.pass(1_000);
        }
        let sessions = [1, 2].map(|node| net.nodes[node].shards[0].counts().sessions);
        assert_eq!(sessions, [6, 6], "{batch} at a time");
    }
}

#[test]
fn who_comes_back_while_the_session_moves_gets_it() {
    for at in 1..=2 {
        let mut net = net_of(3, 1);
        let p = net.client_at_shard(2, 0, Version::V5, "p");
        offline(&mut net, 0, "c", "t");
        net.publish_acked(p, "t", "x", 1);
        net.lazy = true;
        let wanted = Evict {
            connections: 0,
            sessions: 1,
            to: vec![net.index(1, 0)],
        };
        net.on_shard(0, 0, |shard, now, fx| shard.evict(now, &wanted, fx));
        let back = net.accept_at(at, 0, Version::V5);
        net.send(
            back,
            Packet::Connect(Box::new(persistent(Version::V5, "c"))),
        );
        net.lazy = false;
        net.pass(20_000);
        assert!(net.connack(back).session_present, "at node {at}");
        assert_eq!(net.payloads(back), ["x"], "at node {at}");
        let places = net
            .nodes
            .iter()
            .filter(|n| n.shared.registry().local_shard("c").is_some());
        assert_eq!(places.count(), 1);
    }
}

#[test]
fn an_offer_that_is_lost_or_refused_is_made_again() {
    let mut net = net_of(2, 1);
    offline(&mut net, 0, "c", "t");
    let (twin, _) = net.persistent_at(1, 0, Version::V5, "other");
    net.drop_client(twin);
    // The other node sends its own clients away.
    let redirect = Some(Arc::default());
    net.ask(1, 0, Ask::Refuse(redirect));
    assert_eq!(evict(&mut net, 0, 0, 9).sessions, 1);
    assert_eq!(net.nodes[0].shared.registry().local_shard("c"), Some(0));
    assert_eq!(evict(&mut net, 0, 0, 9).sessions, 0, "it may be on its way");
    net.ask(1, 0, Ask::Refuse(None));
    net.pass(20_000);
    assert_eq!(evict(&mut net, 0, 0, 9).sessions, 1);
    net.pass(4_000);
    assert_eq!(net.nodes[1].shared.registry().local_shard("c"), Some(0));
}

#[test]
fn a_session_that_is_not_handed_over_is_nobody_s_there() {
    let mut net = net_of(2, 1);
    offline(&mut net, 0, "c", "t");
    net.lose_calls = true;
    evict(&mut net, 0, 0, 9);
    net.pass(16_000);
    assert_eq!(net.nodes[1].shared.registry().local_shard("c"), None);
    assert_eq!(net.nodes[1].shards[0].counts().sessions, 0);
}

#[test]
fn its_expiry_goes_on_from_the_end_of_the_connection() {
    let mut net = net_of(2, 1);
    let c = net.accept_at(0, 0, Version::V5);
    let mut connect = Connect::new(Version::V5, "c");
    connect.properties.set_session_expiry_interval(60);
    net.connect(c, connect);
    net.drop_client(c);
    net.pass(50_000);
    evict(&mut net, 0, 0, 9);
    net.pass(8_000);
    assert_eq!(net.nodes[1].shards[0].counts().sessions, 1);
    net.pass(3_000);
    assert_eq!(net.nodes[1].shards[0].counts().sessions, 0);
}

/// A client of node 0 whose will waits for a minute, and one of node 2 that watches for it.
fn with_waiting_will() -> (Net, C) {
    with_waiting_will_of(net_of(3, 1))
}

fn with_waiting_will_of(mut net: Net) -> (Net, C) {
    let watcher = net.client_at_shard(2, 0, Version::V5, "watcher");
    net.subscribe(watcher, "will", QoS::AtLeastOnce);
    let c = net.accept_at(0, 0, Version::V5);
    net.connect(c, with_will(persistent(Version::V5, "c"), 60));
    net.drop_client(c);
    (net, watcher)
}

#[test]
fn a_will_that_waits_moves_along_and_is_published_once() {
    let (mut net, watcher) = with_waiting_will();
    net.pass(20_000);
    evict(&mut net, 0, 0, 9);
    net.pass(35_000);
    assert_eq!(net.nodes[1].shards[0].counts().sessions, 1);
    net.nothing(watcher);
    net.pass(6_000);
    assert_eq!(net.payloads(watcher), ["gone"]);
    net.pass(70_000);
    net.nothing(watcher);
}

/// Simulator seed 76040: it came from the old node while the offer was on its way, and from the new
/// one.
#[test]
fn a_session_whose_will_is_due_soon_goes_when_that_is_published() {
    let (mut net, watcher) = with_waiting_will();
    net.pass(59_000);
    assert_eq!(evict(&mut net, 0, 0, 9).sessions, 0);
    net.pass(2_000);
    assert_eq!(net.payloads(watcher), ["gone"]);
    assert_eq!(evict(&mut net, 0, 0, 9).sessions, 1);
    assert_eq!(net.nodes[1].shards[0].counts().sessions, 1);
    net.pass(70_000);
    net.nothing(watcher);
}

/// Simulator seed 52122: it came as much later as the clock of the new node was behind.
#[test]
fn a_will_that_moved_waits_as_long_whatever_the_clocks_say() {
    for (old, new) in [(30_000, 0), (0, 30_000)] {
        let mut net = net_of(3, 1);
        net.nodes[0].ahead_ms = old;
        net.nodes[1].ahead_ms = new;
        let (mut net, watcher) = with_waiting_will_of(net);
        net.pass(20_000);
        evict(&mut net, 0, 0, 9);
        assert_eq!(net.nodes[1].shards[0].counts().sessions, 1);
        net.pass(35_000);
        net.nothing(watcher);
        net.pass(6_000);
        assert_eq!(net.payloads(watcher), ["gone"], "{old} {new}");
    }
}

#[test]
fn who_comes_back_cancels_the_will_that_moved() {
    let (mut net, watcher) = with_waiting_will();
    evict(&mut net, 0, 0, 9);
    net.pass(10_000);
    net.persistent_at(1, 0, Version::V5, "c");
    net.pass(70_000);
    net.nothing(watcher);
}

/// A node is dead, and the others know it.
fn dies(net: &mut Net, node: usize) {
    for other in (0..net.nodes.len()).filter(|other| *other != node) {
        net.peer_down_for(other, node, DownReason::Refused);
    }
}

/// A session on node 0 with a message that waits in it, and one of node 2 that publishes.
fn with_a_message() -> (Net, C) {
    let mut net = net_of(3, 1);
    let p = net.client_at_shard(2, 0, Version::V5, "p");
    offline(&mut net, 0, "c", "t");
    net.publish_acked(p, "t", "before", 1);
    (net, p)
}

#[test]
fn a_node_that_dies_when_it_has_handed_a_session_over_takes_nothing_along() {
    let (mut net, p) = with_a_message();
    // The rest is not asked for before the routes have settled.
    net.hold_control = true;
    assert_eq!(evict(&mut net, 0, 0, 9).sessions, 1);
    net.hold_control = false;
    net.lose_calls = true;
    dies(&mut net, 0);
    net.pass(22_000);
    let at = net.client_at_shard(1, 0, Version::V5, "p1");
    net.publish_acked(at, "t", "after", 1);
    let (back, present) = net.persistent_at(1, 0, Version::V5, "c");
    assert!(present);
    assert_eq!(net.payloads(back), ["before", "after"]);
    assert!(net.nodes[1].shards.iter().all(Shard::idle_tables));
    assert!(net.is_open(p));
}

#[test]
fn the_only_node_that_gets_sessions_dies_and_they_wait_for_another() {
    let (mut net, p) = with_a_message();
    net.lazy = true;
    let wanted = Evict {
        connections: 0,
        sessions: 9,
        to: vec![net.index(1, 0)],
    };
    net.on_shard(0, 0, |shard, now, fx| shard.evict(now, &wanted, fx));
    // The offer is on its way to a node that is dead.
    net.letters.clear();
    net.lazy = false;
    dies(&mut net, 1);
    // With nobody to get them they are not offered, and miss nothing.
    let nobody = Evict {
        to: Vec::new(),
        ..wanted.clone()
    };
    net.pass(20_000);
    let Answer::Evicted(left) = net.ask(0, 0, Ask::Evict(nobody)) else {
        panic!("another answer");
    };
    assert_eq!((left.sessions, left.disconnected, left.offered), (0, 1, 0));
    net.publish_acked(p, "t", "meanwhile", 1);
    let another = Evict {
        to: vec![net.index(2, 0)],
        ..wanted
    };
    net.ask(0, 0, Ask::Evict(another));
    net.pass(4_000);
    assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
    let (back, present) = net.persistent_at(2, 0, Version::V5, "c");
    assert!(present);
    net.pass(100);
    assert_eq!(net.payloads(back), ["before", "meanwhile"]);
}

#[test]
fn a_node_that_dies_while_it_gets_a_session_ends_it_as_if_it_had_it() {
    let (mut net, p) = with_a_message();
    net.hold_control = true;
    assert_eq!(evict(&mut net, 0, 0, 9).sessions, 1);
    net.hold_control = false;
    net.lose_calls = true;
    dies(&mut net, 1);
    net.pass(31_000);
    assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
    assert_eq!(net.nodes[0].shared.router().read().usage().filters, 0);
    assert!(net.nodes[0].shards.iter().all(Shard::idle_tables));
    // Its client gets a new one, at once.
    net.lose_calls = false;
    let (_, present) = net.persistent_at(2, 0, Version::V5, "c");
    assert!(!present);
    net.publish_acked(p, "t", "after", 1);
}
