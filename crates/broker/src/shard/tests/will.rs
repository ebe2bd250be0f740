//! Wills: when they are published, when not, and as what.

use dunlin_mqtt::{Connect, Packet, Properties, QoS, Reason, TopicName, Version, Will};

use super::net::{C, Net, VERSIONS, drain, persistent, pubrel};
use crate::effects::{Ask, CloseReason, ToShard};

pub(super) fn with_will(mut connect: Connect, delay_s: u32) -> Connect {
    let mut properties = Properties::new();
    if connect.version.is_v5() {
        properties.set_will_delay_interval(delay_s);
    }
    connect.will = Some(Box::new(Will {
        topic: TopicName::new("will").expect("valid"),
        payload: bytes::Bytes::from_static(b"gone"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties,
    }));
    connect
}

fn watched(version: Version, delay_s: u32, stays: bool) -> (Net, C, C) {
    let mut net = Net::new();
    let watcher = net.client(Version::V5, "watcher");
    net.subscribe(watcher, "will", QoS::AtLeastOnce);
    let c = net.accept(version);
    let connect = if stays {
        persistent(version, "c")
    } else {
        Connect::new(version, "c")
    };
    net.connect(c, with_will(connect, delay_s));
    (net, watcher, c)
}

#[track_caller]
fn check_published(net: &mut Net, watcher: C, times: usize) {
    assert_eq!(net.payloads(watcher), vec!["gone"; times]);
}

#[test]
fn a_lost_connection_publishes() {
    for version in VERSIONS {
        for why in [
            CloseReason::TcpClosed,
            CloseReason::TcpError,
            CloseReason::TlsError,
        ] {
            for stays in [false, true] {
                let (mut net, watcher, c) = watched(version, 0, stays);
                net.lose(c, why);
                check_published(&mut net, watcher, 1);
                net.pass(2_000_000);
                check_published(&mut net, watcher, 0);
            }
        }
    }
}

#[test]
fn disconnect_takes_it_back_unless_it_says_otherwise() {
    for version in VERSIONS {
        let (mut net, watcher, c) = watched(version, 0, true);
        net.disconnect(c, Reason::Success);
        net.pass(2_000_000);
        check_published(&mut net, watcher, 0);
    }
    for reason in [Reason::DisconnectWithWill, Reason::UnspecifiedError] {
        let (mut net, watcher, c) = watched(Version::V5, 0, true);
        net.disconnect(c, reason);
        check_published(&mut net, watcher, 1);
    }
}

#[test]
fn violations_and_silence_publish() {
    for version in VERSIONS {
        let (mut net, watcher, c) = watched(version, 0, false);
        net.send(c, Packet::Connect(Box::new(Connect::new(version, "c"))));
        check_published(&mut net, watcher, 1);
        let c = net.accept(version);
        let mut connect = with_will(Connect::new(version, "c"), 0);
        connect.keepalive = 10;
        net.connect(c, connect);
        net.pass(15_100);
        check_published(&mut net, watcher, 1);
    }
}

#[test]
fn the_delay_is_kept_and_ends_with_the_session() {
    let (mut net, watcher, c) = watched(Version::V5, 10, true);
    net.drop_client(c);
    net.pass(9_900);
    check_published(&mut net, watcher, 0);
    net.pass(200);
    check_published(&mut net, watcher, 1);
    // The session (1,000 s) ends before the delay does.
    let (mut net, watcher, c) = watched(Version::V5, 5_000, true);
    net.drop_client(c);
    net.pass(999_000);
    check_published(&mut net, watcher, 0);
    net.pass(2_000);
    check_published(&mut net, watcher, 1);
    // Without a session to wait in there is no delay.
    let (mut net, watcher, c) = watched(Version::V5, 10, false);
    net.drop_client(c);
    check_published(&mut net, watcher, 1);
}

#[test]
fn coming_back_in_time_cancels_a_delayed_will() {
    let (mut net, watcher, c) = watched(Version::V5, 10, true);
    net.drop_client(c);
    net.pass(5_000);
    let (back, present) = net.persistent(Version::V5, "c");
    assert!(present);
    net.pass(60_000);
    check_published(&mut net, watcher, 0);
    net.drop_client(back);
    net.pass(60_000);
    check_published(&mut net, watcher, 0);
}

#[test]
fn a_clean_start_ends_the_old_session_and_publishes() {
    let (mut net, watcher, c) = watched(Version::V5, 10, true);
    net.drop_client(c);
    net.client(Version::V5, "c");
    check_published(&mut net, watcher, 1);
    let (mut net, watcher, _) = watched(Version::V5, 10, true);
    net.client(Version::V5, "c");
    check_published(&mut net, watcher, 1);
}

#[test]
fn a_takeover_publishes_only_without_delay() {
    for (delay_s, times) in [(0, 1), (10, 0)] {
        let (mut net, watcher, _) = watched(Version::V5, delay_s, true);
        net.persistent(Version::V5, "c");
        net.pass(60_000);
        check_published(&mut net, watcher, times);
    }
    for version in [Version::V3_1, Version::V3_1_1] {
        let (mut net, watcher, _) = watched(version, 0, true);
        net.persistent(version, "c");
        check_published(&mut net, watcher, 1);
    }
}

#[test]
fn kick_and_drain_publish_at_once() {
    let (mut net, watcher, _) = watched(Version::V5, 10, true);
    net.ask(0, 0, Ask::Kick("c".to_owned()));
    check_published(&mut net, watcher, 1);
    let (mut net, watcher, c) = watched(Version::V5, 10, true);
    net.drop_client(watcher);
    let (watcher, _) = net.persistent(Version::V5, "watcher");
    net.subscribe(watcher, "will", QoS::AtLeastOnce);
    net.tell(0, 0, drain());
    net.check_closed(c, CloseReason::Shutdown);
    let Some(session) = net.nodes[0].shards[0]
        .client_rows(None, 10)
        .into_iter()
        .find(|row| row.clientid == "watcher")
    else {
        panic!("the watcher's session stays");
    };
    assert_eq!(session.mqueue_len + session.inflight_cnt, 1);
}

#[test]
fn a_will_has_its_properties_and_its_expiry_counts_from_the_publish() {
    let mut net = Net::new();
    let watcher = net.client(Version::V5, "watcher");
    net.subscribe(watcher, "will", QoS::AtMostOnce);
    let c = net.accept(Version::V5);
    let mut connect = with_will(persistent(Version::V5, "c"), 10);
    let will = connect.will.as_mut().expect("set");
    will.properties
        .set_message_expiry_interval(60)
        .set_content_type("text/plain");
    will.properties.push_user_property("a", "b");
    will.retain = true;
    net.connect(c, connect);
    net.pass(30_000);
    net.drop_client(c);
    net.pass(11_000);
    let Packet::Publish(got) = net.one(watcher) else {
        panic!("a publish")
    };
    assert_eq!(got.properties().message_expiry_interval(), Some(60));
    assert_eq!(got.properties().content_type(), Some("text/plain"));
    assert_eq!(
        got.properties().user_properties().collect::<Vec<_>>(),
        [("a", "b")]
    );
    let late = net.client(Version::V5, "late");
    net.subscribe(late, "will", QoS::AtMostOnce);
    let Packet::Publish(kept) = net.one(late) else {
        panic!("the retained will")
    };
    assert!(kept.retain);
}

#[test]
fn a_connection_that_never_opened_has_no_will() {
    let mut net = Net::new();
    let watcher = net.client(Version::V5, "watcher");
    net.subscribe(watcher, "will", QoS::AtMostOnce);
    let c = net.accept(Version::V5);
    let mut connect = with_will(Connect::new(Version::V5, ""), 0);
    connect.clean_start = false;
    net.send(c, Packet::Connect(Box::new(connect)));
    net.send(c, pubrel(1));
    net.nothing(watcher);
}

#[test]
fn a_delayed_will_follows_what_another_node_does_with_the_session() {
    for (clean, times) in [(true, 1), (false, 0)] {
        let mut net = Net::with(2, 1, crate::settings::Settings::default());
        let watcher = net.client(Version::V5, "watcher");
        net.subscribe(watcher, "will", QoS::AtLeastOnce);
        let c = net.accept(Version::V5);
        net.connect(c, with_will(persistent(Version::V5, "c"), 60));
        let mut connect = persistent(Version::V5, "c");
        connect.clean_start = clean;
        let new = net.accept_at(1, 0, Version::V5);
        assert_eq!(net.connect(new, connect), !clean);
        net.pass(100_000);
        check_published(&mut net, watcher, times);
    }
}

/// Whether the other nodes are told of the client's will.
fn is_listed(net: &Net, node: usize) -> bool {
    net.nodes[node].shared.wills().row("c").is_some()
}

#[test]
fn the_others_know_a_will_exactly_as_long_as_it_may_be_published() {
    for delay_s in [0, 10] {
        let (mut net, watcher, c) = watched(Version::V5, delay_s, true);
        assert!(is_listed(&net, 0), "connected");
        net.drop_client(c);
        check_published(&mut net, watcher, usize::from(delay_s == 0));
        assert_eq!(is_listed(&net, 0), delay_s > 0, "its delay runs");
        net.pass(10_100);
        assert!(!is_listed(&net, 0), "published");
        let (mut net, _, c) = watched(Version::V5, delay_s, true);
        net.disconnect(c, Reason::Success);
        assert!(!is_listed(&net, 0), "taken back");
        let (mut net, _, c) = watched(Version::V5, delay_s, true);
        net.drop_client(c);
        net.persistent(Version::V5, "c");
        assert!(!is_listed(&net, 0), "the client is back and has none");
        let (mut net, _, _) = watched(Version::V5, delay_s, true);
        net.ask(0, 0, Ask::Kick("c".to_owned()));
        assert!(!is_listed(&net, 0), "kicked");
    }
}

#[test]
fn a_will_moves_to_the_node_its_client_moves_to() {
    for shards in 1..=2 {
        let mut net = Net::with(2, shards, crate::settings::Settings::default());
        let c = net.accept(Version::V5);
        net.connect(c, with_will(persistent(Version::V5, "c"), 60));
        assert_eq!((is_listed(&net, 0), is_listed(&net, 1)), (true, false));
        let new = net.accept_at(1, 0, Version::V5);
        net.connect(new, with_will(persistent(Version::V5, "c"), 60));
        net.pass(30_000);
        assert_eq!((is_listed(&net, 0), is_listed(&net, 1)), (false, true));
        if shards > 1 {
            let newer = net.accept_at(1, 1, Version::V5);
            net.connect(newer, with_will(persistent(Version::V5, "c"), 60));
            assert!(is_listed(&net, 1), "its other shard has it");
        }
    }
}

#[test]
fn a_node_that_stops_leaves_delayed_wills_to_the_others() {
    for (delay_s, here) in [(0, 1), (60, 0)] {
        let mut net = Net::with(2, 1, crate::settings::Settings::default());
        let watcher = net.client_at_shard(1, 0, Version::V5, "watcher");
        net.subscribe(watcher, "will", QoS::AtLeastOnce);
        let c = net.accept(Version::V5);
        net.connect(c, with_will(persistent(Version::V5, "c"), delay_s));
        net.tell(0, 0, drain());
        check_published(&mut net, watcher, here);
        assert_eq!(is_listed(&net, 0), delay_s > 0);
        net.pass(100);
        assert_eq!(net.nodes[0].drained, 1, "the others have everything");
    }
}

#[test]
fn a_stopping_node_waits_until_the_others_have_its_news_but_not_for_ever() {
    let mut net = Net::with(2, 1, crate::settings::Settings::default());
    net.client(Version::V5, "c");
    net.hold_control = true;
    net.tell(0, 0, drain());
    net.pass(900);
    assert_eq!(net.nodes[0].drained, 0);
    net.pass(200);
    assert_eq!(net.nodes[0].drained, 1);
    net.pass(5_000);
    assert_eq!(net.nodes[0].drained, 1, "said once");
}

#[test]
fn a_will_that_another_node_has_published_is_not_published_again() {
    let (mut net, watcher, c) = watched(Version::V5, 0, true);
    let stamp = net.nodes[0].shared.registry().local_stamp("c");
    let stamp = stamp.expect("connected");
    let clientid = || "c".to_owned();
    let older = dunlin_cluster::Hlc(stamp.0 - 1);
    net.tell(
        0,
        0,
        ToShard::WillSpent {
            clientid: clientid(),
            stamp: older,
        },
    );
    assert!(is_listed(&net, 0), "that was an earlier connection's");
    net.tell(
        0,
        0,
        ToShard::WillSpent {
            clientid: clientid(),
            stamp,
        },
    );
    assert!(!is_listed(&net, 0));
    net.drop_client(c);
    check_published(&mut net, watcher, 0);
}
