//! What operators see and do.

use dunlin_mqtt::{Connect, QoS, SubscriptionOptions, Version};

use super::net::{Net, message, retained, settings};
use crate::effects::{Answer, Ask, ClientEvent, ToShard};
use crate::message::{Head, Message, Parts};
use crate::settings::Mqtt;

#[test]
fn a_client_row_has_what_rest_shows() {
    let mut net = Net::new();
    let c = net.accept(Version::V3_1_1);
    let mut connect = Connect::new(Version::V3_1_1, "c");
    connect.username = Some("user".into());
    connect.keepalive = 60;
    connect.clean_start = false;
    net.connect(c, connect);
    net.subscribe(c, "t", QoS::AtLeastOnce);
    net.publish_acked(c, "t", "x", 1);
    let Answer::Client(Some(row)) = net.ask(0, 0, Ask::Client("c".to_owned())) else {
        panic!("found");
    };
    assert_eq!(
        (row.clientid.as_str(), row.username.as_deref()),
        ("c", Some("user"))
    );
    assert_eq!((row.proto_name, row.proto_ver), ("MQTT", 4));
    assert_eq!((row.keepalive, row.expiry_interval), (60, 7_200));
    assert!(row.connected && !row.clean_start && !row.is_bridge);
    assert_eq!((row.subscriptions_cnt, row.subscriptions_max), (1, None));
    assert_eq!((row.inflight_cnt, row.inflight_max), (1, 32));
    assert_eq!((row.mqueue_len, row.mqueue_max), (0, 1_000));
    assert_eq!((row.awaiting_rel_cnt, row.awaiting_rel_max), (0, 100));
    assert_eq!(row.listener, "tcp:default");
    assert_eq!((row.traffic.recv_pkt, row.traffic.recv_msg), (3, 1));
    assert_eq!((row.traffic.send_pkt, row.traffic.send_msg), (4, 1));
    assert_eq!(row.connected_at, net.now.wall_ms);
    assert!(matches!(
        &net.nodes[0].events[..],
        [ClientEvent::Connected(_)]
    ));
    net.pass(1_000);
    net.drop_client(c);
    let Answer::Client(Some(row)) = net.ask(0, 0, Ask::Client("c".to_owned())) else {
        panic!("found");
    };
    assert!(!row.connected);
    assert_eq!(row.disconnected_at, Some(net.now.wall_ms));
    assert_eq!(
        net.ask(0, 0, Ask::Client("nobody".to_owned())),
        Answer::Client(None)
    );
}

#[test]
fn listings_come_in_order_page_by_page() {
    let mut net = Net::new();
    for n in 0..25 {
        let c = net.client(Version::V5, &format!("c{n:02}"));
        for filter in ["z", "a/+", "$share/g/m"] {
            net.subscribe(c, filter, QoS::AtLeastOnce);
        }
    }
    let mut clients = Vec::new();
    loop {
        let after = clients.last().cloned();
        let Answer::Clients(page) = net.ask(0, 0, Ask::Clients { after, limit: 10 }) else {
            panic!("clients");
        };
        if page.is_empty() {
            break;
        }
        clients.extend(page.into_iter().map(|row| row.clientid));
    }
    assert_eq!(clients.len(), 25);
    assert!(clients.is_sorted());
    let mut rows: Vec<(String, String)> = Vec::new();
    loop {
        let after = rows.last().cloned();
        let ask = Ask::Subscriptions { after, limit: 7 };
        let Answer::Subscriptions(page) = net.ask(0, 0, ask) else {
            panic!("rows")
        };
        if page.is_empty() {
            break;
        }
        rows.extend(page.into_iter().map(|row| (row.clientid, row.topic)));
    }
    assert_eq!(rows.len(), 75);
    assert!(rows.is_sorted());
    assert_eq!(rows[0].1, "$share/g/m");
}

#[test]
fn subscription_rows_show_the_options() {
    let mut net = Net::new();
    let c = net.client(Version::V5, "c");
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: dunlin_mqtt::RetainHandling::DoNotSend,
    };
    net.try_subscribe(c, "t", options, 0);
    net.subscribe(c, "$queue/q", QoS::AtMostOnce);
    let ask = Ask::SubscriptionsOf("c".to_owned());
    let Answer::Subscriptions(rows) = net.ask(0, 0, ask) else {
        panic!("rows")
    };
    assert_eq!(rows[0].topic, "$queue/q");
    let row = &rows[1];
    assert_eq!(
        (row.topic.as_str(), row.qos, row.nl, row.rap, row.rh),
        ("t", 2, 1, 1, 2)
    );
}

#[test]
fn operators_subscribe_for_clients() {
    let mut net = Net::new();
    let (p, c) = (net.client(Version::V5, "p"), net.client(Version::V5, "c"));
    let subscribe = |filter: &str, qos| Ask::Subscribe {
        clientid: "c".to_owned(),
        filter: filter.to_owned(),
        qos,
    };
    assert_eq!(net.ask(0, 0, subscribe("t", 1)), Answer::Done(true));
    assert_eq!(net.ask(0, 0, subscribe("t#", 1)), Answer::Done(false));
    assert_eq!(net.ask(0, 0, subscribe("t", 3)), Answer::Done(false));
    net.send(p, message("t", "x", 1, 1));
    assert_eq!(net.payloads(c), ["x"]);
    let unsubscribe = || Ask::Unsubscribe {
        clientid: "c".to_owned(),
        filter: "t".to_owned(),
    };
    assert_eq!(net.ask(0, 0, unsubscribe()), Answer::Done(true));
    assert_eq!(net.ask(0, 0, unsubscribe()), Answer::Done(false));
    assert_eq!(
        net.ask(0, 0, Ask::Kick("nobody".to_owned())),
        Answer::Done(false)
    );
}

#[test]
fn the_nodes_own_messages_are_routed_and_answered() {
    let mut net = Net::new();
    let c = net.client(Version::V5, "c");
    net.subscribe(c, "t", QoS::AtMostOnce);
    for (topic, matched) in [("t", true), ("u", false)] {
        let parts = Parts {
            topic,
            payload: b"x",
            ..Parts::default()
        };
        let message = Message::new(parts, Head::default());
        let letter = ToShard::Publish {
            message,
            ask: Some(1_000),
        };
        net.tell(0, 0, letter);
        assert_eq!(net.take_answer(1_000), Answer::Published { matched });
    }
    assert_eq!(net.payloads(c), ["x"]);
}

#[test]
fn counts() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let (c, _) = net.persistent(Version::V5, "c");
    net.subscribe(c, "t", QoS::AtLeastOnce);
    net.subscribe(c, "$share/g/t", QoS::AtLeastOnce);
    net.publish_acked(p, "t", "x", 1);
    let Answer::Counts(counts) = net.ask(0, 0, Ask::Counts) else {
        panic!("counts")
    };
    assert_eq!((counts.live_connections, counts.sessions), (2, 2));
    assert_eq!((counts.subscribers, counts.subscriptions), (1, 2));
    assert_eq!((counts.shared_subscriptions, counts.inflight), (1, 2));
    net.drop_client(c);
    net.publish_acked(p, "t", "x", 1);
    let Answer::Counts(counts) = net.ask(0, 0, Ask::Counts) else {
        panic!("counts")
    };
    assert_eq!(
        (counts.live_connections, counts.sessions, counts.queued),
        (1, 2, 2)
    );
}

#[test]
fn changed_settings_are_in_force_at_once_or_for_new_connections() {
    let mut net = Net::new();
    let old = net.client(Version::V5, "old");
    let mut settings = settings(Mqtt {
        max_inflight: 3,
        max_qos_allowed: 0,
        ..Mqtt::default()
    });
    settings.retainer.max_payload_bytes = Some(2);
    net.nodes[0].shared.set_settings(settings);
    for shard in 0..net.nodes[0].shards.len() {
        net.tell(0, shard, ToShard::SettingsChanged);
    }
    net.publish_acked(old, "t", "x", 1);
    let kept = |net: &Net| net.nodes[0].shared.retained().len();
    net.send(old, retained("kept", "ab"));
    net.send(old, retained("too/large", "abc"));
    assert_eq!(kept(&net), 1);
    let new = net.accept(Version::V5);
    net.connect(new, Connect::new(Version::V5, "new"));
    let Answer::Client(Some(row)) = net.ask(0, 0, Ask::Client("new".to_owned())) else {
        panic!("found");
    };
    assert_eq!(row.inflight_max, 3);
    let Answer::Client(Some(row)) = net.ask(0, 0, Ask::Client("old".to_owned())) else {
        panic!("found");
    };
    assert_eq!(row.inflight_max, 32);
}
