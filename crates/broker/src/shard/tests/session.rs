//! Sessions over connections: clean start, expiry, offline queues, DISCONNECT.

use dunlin_mqtt::{Connect, Disconnect, Packet, QoS, Reason, Version};

use std::sync::Arc;

use super::net::{Net, VERSIONS, drain, persistent};
use crate::effects::{ClientEvent, CloseReason, ToShard};
use crate::metrics::Metric;
use crate::redirect::Redirect;
use crate::settings::Mqtt;

#[test]
fn a_persistent_session_keeps_subscriptions_and_messages() {
    for version in VERSIONS {
        let mut net = Net::new();
        let p = net.client(Version::V5, "p");
        let (s, present) = net.persistent(version, "s");
        assert!(!present);
        net.subscribe(s, "t", QoS::AtLeastOnce);
        net.drop_client(s);
        for n in 0..5 {
            net.publish_acked(p, "t", &n.to_string(), n % 3);
        }
        let (s, present) = net.persistent(version, "s");
        assert_eq!(present, version != Version::V3_1);
        assert_eq!(net.payloads(s), ["0", "1", "2", "3", "4"]);
        assert_eq!(net.metric(Metric::SessionResumed), 1);
    }
}

#[test]
fn clean_start_forgets() {
    for version in VERSIONS {
        let mut net = Net::new();
        let p = net.client(Version::V5, "p");
        let (s, _) = net.persistent(version, "s");
        net.subscribe(s, "t", QoS::AtLeastOnce);
        net.drop_client(s);
        net.publish_acked(p, "t", "x", 1);
        let s = net.client(version, "s");
        net.nothing(s);
        net.publish(p, "t", "x");
        net.nothing(s);
        assert_eq!(net.metric(Metric::SessionDiscarded), 1);
    }
}

#[test]
fn sessions_without_expiry_end_with_their_connection() {
    for version in VERSIONS {
        let mut net = Net::new();
        let s = net.client(version, "s");
        net.subscribe(s, "t", QoS::AtLeastOnce);
        net.drop_client(s);
        assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
        assert_eq!(net.nodes[0].shared.router().read().usage().filters, 0);
        assert_eq!(net.nodes[0].shared.registry().counts(), (0, 0));
        assert_eq!(net.metric(Metric::SessionTerminated), 1);
    }
}

#[test]
fn sessions_expire_at_their_time() {
    for (version, seconds) in [(Version::V5, 1_000), (Version::V3_1_1, 7_200)] {
        let mut net = Net::new();
        let (s, _) = net.persistent(version, "s");
        net.drop_client(s);
        net.pass((seconds - 1) * 1_000);
        assert_eq!(net.nodes[0].shards[0].counts().sessions, 1);
        net.pass(2_000);
        assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
    }
}

#[test]
fn coming_back_stops_the_clock() {
    let mut net = Net::new();
    let (s, _) = net.persistent(Version::V5, "s");
    net.drop_client(s);
    net.pass(900_000);
    let (s, present) = net.persistent(Version::V5, "s");
    assert!(present);
    net.pass(3_600_000);
    assert!(net.is_open(s));
    net.drop_client(s);
    net.pass(900_000);
    assert!(net.persistent(Version::V5, "s").1);
}

#[test]
fn the_longest_expiry_never_ends() {
    let mut net = Net::new();
    let s = net.accept(Version::V5);
    let mut connect = persistent(Version::V5, "s");
    connect.properties.set_session_expiry_interval(u32::MAX);
    net.connect(s, connect);
    net.drop_client(s);
    net.pass(1_000_000_000);
    assert!(net.persistent(Version::V5, "s").1);
}

#[test]
fn disconnect_may_change_the_expiry() {
    let with_expiry = |seconds| {
        let mut packet = Disconnect::new(Reason::Success);
        packet.properties.set_session_expiry_interval(seconds);
        Packet::Disconnect(packet)
    };
    let mut net = Net::new();
    let (s, _) = net.persistent(Version::V5, "s");
    net.send(s, with_expiry(0));
    assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
    let (s, _) = net.persistent(Version::V5, "s");
    net.send(s, with_expiry(5));
    net.pass(6_000);
    assert_eq!(net.nodes[0].shards[0].counts().sessions, 0);
    let s = net.client(Version::V5, "s");
    net.send(s, with_expiry(5));
    net.check_disconnected(s, Reason::ProtocolError);
}

#[test]
fn offline_queues_have_the_same_bound() {
    let mut net = Net::mqtt(Mqtt {
        max_mqueue_len: Some(3),
        ..Mqtt::default()
    });
    let p = net.client(Version::V5, "p");
    let (s, _) = net.persistent(Version::V5, "s");
    net.subscribe(s, "t", QoS::AtLeastOnce);
    net.drop_client(s);
    for n in 0..6 {
        net.publish_acked(p, "t", &n.to_string(), 1);
    }
    assert_eq!(net.metric(Metric::DeliveryDroppedQueueFull), 3);
    let (s, _) = net.persistent(Version::V5, "s");
    assert_eq!(net.payloads(s), ["3", "4", "5"]);
}

#[test]
fn qos0_may_be_kept_out_of_queues() {
    let mut net = Net::mqtt(Mqtt {
        mqueue_store_qos0: false,
        ..Mqtt::default()
    });
    let p = net.client(Version::V5, "p");
    let (s, _) = net.persistent(Version::V5, "s");
    net.subscribe(s, "t", QoS::AtLeastOnce);
    net.drop_client(s);
    net.publish(p, "t", "0");
    net.publish_acked(p, "t", "1", 1);
    assert_eq!(net.metric(Metric::DeliveryDroppedQos0Msg), 1);
    let (s, _) = net.persistent(Version::V5, "s");
    assert_eq!(net.payloads(s), ["1"]);
}

#[test]
fn how_a_connection_ended_is_told() {
    let mut net = Net::new();
    let reasons = |net: &mut Net| -> Vec<CloseReason> {
        let events = std::mem::take(&mut net.nodes[0].events);
        let reason = |event| match event {
            ClientEvent::Disconnected { reason, .. } => Some(reason),
            ClientEvent::Connected(_) => None,
        };
        events.into_iter().filter_map(reason).collect()
    };
    let c = net.client(Version::V5, "c");
    net.disconnect(c, Reason::Success);
    let c = net.client(Version::V3_1_1, "c");
    net.drop_client(c);
    let c = net.client(Version::V3_1_1, "c");
    net.lose(c, CloseReason::TcpError);
    assert_eq!(
        reasons(&mut net),
        [
            CloseReason::Normal,
            CloseReason::TcpClosed,
            CloseReason::TcpError
        ]
    );
    assert_eq!(net.metric(Metric::ClientDisconnected), 3);
}

#[test]
fn a_draining_shard_says_where_to_go_if_it_knows() {
    let mut net = Net::new();
    let five = net.client(Version::V5, "five");
    let three = net.client(Version::V3_1_1, "three");
    let mut redirect = Redirect::default();
    redirect.add("tcp:default", "other:1883".to_owned());
    let redirect = Arc::new(redirect);
    net.tell(0, 0, ToShard::Drain { redirect });
    let packets = net.take(five);
    let Some(Packet::Disconnect(last)) = packets.last() else {
        panic!("no DISCONNECT: {packets:?}");
    };
    assert_eq!(last.reason, Reason::UseAnotherServer);
    assert_eq!(last.properties.server_reference(), Some("other:1883"));
    net.nothing(three);
    net.check_closed(three, CloseReason::Shutdown);
}

#[test]
fn a_draining_shard_says_why_and_keeps_what_may_be_kept() {
    let mut net = Net::new();
    let five = net.client(Version::V5, "five");
    let three = net.client(Version::V3_1_1, "three");
    let (kept, _) = net.persistent(Version::V5, "kept");
    let new = net.accept(Version::V5);
    net.tell(0, 0, drain());
    net.check_disconnected(five, Reason::ServerShuttingDown);
    net.check_disconnected(kept, Reason::ServerShuttingDown);
    net.nothing(three);
    for c in [five, three, kept, new] {
        net.check_closed(c, CloseReason::Shutdown);
    }
    assert_eq!(net.nodes[0].shards[0].counts().sessions, 1);
    assert_eq!(net.nodes[0].drained, 1);
    let late = net.accept(Version::V5);
    net.send(
        late,
        Packet::Connect(Box::new(Connect::new(Version::V5, "late"))),
    );
    assert_eq!(net.connack(late).reason, Reason::ServerUnavailable);
}

#[test]
fn a_large_drain_goes_in_steps() {
    let mut net = Net::new();
    for n in 0..1_200 {
        net.client(Version::V5, &format!("c{n}"));
    }
    net.tell(0, 0, drain());
    assert_eq!(net.nodes[0].shards[0].counts().live_connections, 700);
    net.pass(200);
    assert_eq!(net.nodes[0].shards[0].counts().live_connections, 0);
    assert_eq!(net.nodes[0].drained, 1);
}
