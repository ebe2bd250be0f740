//! PUBLISH: routing within a shard, limits, aliases, expiry, properties, order, denials.

use std::sync::Arc;

use dunlin_mqtt::{
    AckKind, Connect, Packet, Properties, PropertyId, Publish, QoS, Reason, SubscriptionOptions,
    Value, Version,
};

use super::net::{C, Net, VERSIONS, id, message, qos};
use crate::access::{Access, Action, Authorizer, DenyAction, Identity, Verdict};
use crate::effects::{CloseReason, ToShard};
use crate::metrics::Metric;
use crate::settings::{ListenerSettings, Mqtt};

fn with_properties(topic: &str, payload: &str, set: impl FnOnce(&mut Properties)) -> Packet {
    let mut properties = Properties::new();
    set(&mut properties);
    let publish = Publish::new(topic, payload.as_bytes(), QoS::AtMostOnce, false);
    Packet::Publish(publish.with_properties(&properties))
}

fn with_alias(topic: &str, payload: &str, alias: u16) -> Packet {
    with_properties(topic, payload, |p| {
        p.set(PropertyId::TopicAlias, Value::U16(alias));
    })
}

#[track_caller]
fn publish_of(packet: Packet) -> Publish {
    match packet {
        Packet::Publish(publish) => publish,
        other => panic!("not a publish: {other:?}"),
    }
}

#[test]
fn every_version_and_qos_reaches_every_other() {
    for from in VERSIONS {
        for to in VERSIONS {
            for published in 0..=2 {
                for subscribed in 0..=2 {
                    let mut net = Net::new();
                    let (p, s) = (net.client(from, "p"), net.client(to, "s"));
                    net.subscribe(s, "a/+", qos(subscribed));
                    net.publish_acked(p, "a/b", "x", published);
                    let expected = published.min(subscribed);
                    assert_eq!(
                        net.messages(s),
                        [("a/b".to_owned(), "x".to_owned(), expected)]
                    );
                    assert_eq!(net.metric(Metric::MessagesReceived), 1);
                    assert_eq!(net.metric(Metric::MessagesSent), 1);
                    assert_eq!(net.metric(Metric::MessagesDropped), 0);
                }
            }
        }
    }
}

#[test]
fn upgrade_qos_takes_the_greater() {
    let mut net = Net::mqtt(Mqtt {
        upgrade_qos: true,
        ..Mqtt::default()
    });
    let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
    net.subscribe(s, "t", QoS::ExactlyOnce);
    net.publish(p, "t", "x");
    assert_eq!(net.messages(s)[0].2, 2);
}

#[test]
fn no_subscriber_is_told_to_v5_and_counted() {
    for version in VERSIONS {
        let mut net = Net::new();
        let p = net.client(version, "p");
        let expected = if version.is_v5() {
            Reason::NoMatchingSubscribers
        } else {
            Reason::Success
        };
        net.send(p, message("t", "x", 1, 5));
        assert_eq!(net.ack(p, AckKind::Puback, 5), expected);
        net.send(p, message("t", "x", 2, 6));
        assert_eq!(net.ack(p, AckKind::Pubrec, 6), expected);
        net.publish(p, "t", "x");
        assert_eq!(net.metric(Metric::MessagesDroppedNoSubscribers), 3);
        assert_eq!(net.metric(Metric::MessagesDropped), 3);
        assert_eq!(net.metric(Metric::MessagesPublish), 3);
    }
}

#[test]
fn order_is_kept_and_a_batch_reaches_many() {
    let mut net = Net::new();
    let p = net.client(Version::V3_1_1, "p");
    let subscribers: Vec<C> = (0..20)
        .map(|n| net.client(VERSIONS[n % 3], &format!("s{n}")))
        .collect();
    for (n, s) in subscribers.iter().enumerate() {
        net.subscribe(*s, if n % 2 == 0 { "t/+" } else { "#" }, qos((n % 3) as u8));
    }
    let mut bytes = Vec::new();
    for n in 0..25_u16 {
        let topic = if n % 4 == 0 { "t/other" } else { "t/same" };
        let packet = message(topic, &n.to_string(), (n % 3) as u8, n + 1);
        bytes.extend_from_slice(&net.encode(p, packet));
    }
    net.bytes(p, &bytes);
    let expected: Vec<String> = (0..25).map(|n| n.to_string()).collect();
    for s in subscribers {
        assert_eq!(net.payloads(s), expected);
    }
}

#[test]
fn large_payloads_are_shared_and_whole() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let subscribers: Vec<C> = (0..3)
        .map(|n| net.client(VERSIONS[n], &format!("s{n}")))
        .collect();
    for s in &subscribers {
        net.subscribe(*s, "big", QoS::AtLeastOnce);
    }
    let payload = "0123456789".repeat(2_000);
    for published in 0..=1 {
        net.publish_acked(p, "big", &payload, published);
        net.publish_acked(p, "big", "small", published);
        for s in &subscribers {
            assert_eq!(net.payloads(*s), [payload.as_str(), "small"]);
        }
    }
}

#[test]
fn what_connack_forbids_ends_the_connection() {
    let mqtt = || Mqtt {
        max_qos_allowed: 1,
        retain_available: false,
        max_topic_levels: 3,
        ..Mqtt::default()
    };
    let check = |packet: Packet, reason| {
        let mut net = Net::mqtt(mqtt());
        let c = net.client(Version::V5, "c");
        net.send(c, packet.clone());
        net.check_disconnected(c, reason);
        let c = net.client(Version::V3_1_1, "c");
        net.send(c, packet);
        net.nothing(c);
        net.check_closed(c, CloseReason::ProtocolError);
    };
    check(message("t", "x", 2, 1), Reason::QosNotSupported);
    check(super::net::retained("t", "x"), Reason::RetainNotSupported);
    check(message("1/2/3/4", "x", 0, 0), Reason::TopicNameInvalid);
    let mut net = Net::mqtt(mqtt());
    let c = net.client(Version::V5, "c");
    net.send(c, message("1/2/3", "x", 0, 0));
    assert!(net.is_open(c));
}

#[test]
fn topics_with_wildcards_are_refused() {
    for topic in ["a/+", "#", "a#"] {
        let mut net = Net::new();
        let c = net.client(Version::V5, "c");
        net.publish(c, topic, "x");
        net.check_disconnected(c, Reason::TopicNameInvalid);
    }
}

#[test]
fn dollar_topics_are_not_matched_by_leading_wildcards() {
    let mut net = Net::new();
    let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
    net.subscribe(s, "#", QoS::AtMostOnce);
    net.subscribe(s, "+/x", QoS::AtMostOnce);
    net.publish(p, "$here/x", "x");
    net.nothing(s);
    net.subscribe(s, "$here/#", QoS::AtMostOnce);
    net.publish(p, "$here/x", "x");
    assert_eq!(net.messages(s).len(), 1);
}

#[test]
fn aliases_of_the_client() {
    let mut net = Net::new();
    let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
    net.subscribe(s, "#", QoS::AtMostOnce);
    net.send(p, with_alias("a", "1", 7));
    net.send(p, with_alias("", "2", 7));
    net.send(p, with_alias("b", "3", 7));
    net.send(p, with_alias("", "4", 7));
    let topics: Vec<_> = net.messages(s).into_iter().map(|m| m.0 + &m.1).collect();
    assert_eq!(topics, ["a1", "a2", "b3", "b4"]);
    net.send(p, with_alias("", "x", 8));
    net.check_disconnected(p, Reason::ProtocolError);
    let p = net.client(Version::V5, "p");
    net.send(p, with_alias("", "x", 7));
    net.check_disconnected(p, Reason::ProtocolError);
}

#[test]
fn aliases_out_of_bounds() {
    let mut net = Net::mqtt(Mqtt {
        max_topic_alias: 5,
        ..Mqtt::default()
    });
    let p = net.client(Version::V5, "p");
    net.send(p, with_alias("a", "1", 5));
    assert!(net.is_open(p));
    net.send(p, with_alias("a", "1", 6));
    net.check_disconnected(p, Reason::TopicAliasInvalid);
    let p = net.client(Version::V5, "p");
    net.bytes(p, &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 0]);
    net.check_disconnected(p, Reason::TopicAliasInvalid);
}

#[test]
fn aliases_towards_the_client() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let s = net.accept(Version::V5);
    let mut connect = Connect::new(Version::V5, "s");
    connect.properties.set_topic_alias_maximum(1);
    net.connect(s, connect);
    net.subscribe(s, "#", QoS::AtMostOnce);
    for topic in ["a", "b", "a"] {
        net.publish(p, topic, "x");
    }
    let seen: Vec<_> = net
        .take(s)
        .into_iter()
        .map(publish_of)
        .map(|p| (p.topic().to_owned(), p.properties().topic_alias()))
        .collect();
    let expected = [("a", Some(1)), ("b", None), ("", Some(1))];
    assert_eq!(seen, expected.map(|(t, a)| (t.to_owned(), a)));
}

#[test]
fn properties_are_forwarded_untouched_to_v5_only() {
    let mut net = Net::new();
    let (p, five) = (
        net.client(Version::V5, "p"),
        net.client(Version::V5, "five"),
    );
    let three = net.client(Version::V3_1_1, "three");
    net.subscribe(five, "t", QoS::AtMostOnce);
    net.subscribe(three, "t", QoS::AtMostOnce);
    net.send(
        p,
        with_properties("t", "x", |p| {
            p.set_payload_format_indicator(1)
                .set_content_type("text/plain")
                .set_response_topic("answer")
                .set_correlation_data(bytes::Bytes::from_static(b"\x00\x01"))
                .push_user_property("a", "1")
                .push_user_property("a", "2");
        }),
    );
    let got = publish_of(net.one(five));
    let properties = got.properties();
    assert_eq!(properties.payload_format_indicator(), Some(1));
    assert_eq!(properties.content_type(), Some("text/plain"));
    assert_eq!(properties.response_topic(), Some("answer"));
    assert_eq!(properties.correlation_data(), Some(&[0, 1][..]));
    let user: Vec<_> = properties.user_properties().collect();
    assert_eq!(user, [("a", "1"), ("a", "2")]);
    assert_eq!(publish_of(net.one(three)).payload(), b"x");
}

#[test]
fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let mut net = Net::new();
    let c = net.client(Version::V5, "c");
    net.bytes(c, &[0x30, 6, 0, 1, b'a', 2, 0x0B, 1]);
    net.check_disconnected(c, Reason::ProtocolError);
}

#[test]
fn expiry_counts_down_while_a_message_waits() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let (s, _) = net.persistent(Version::V5, "s");
    net.subscribe(s, "t", QoS::AtLeastOnce);
    net.drop_client(s);
    for (text, seconds) in [("short", 10), ("long", 100)] {
        let mut properties = Properties::new();
        properties.set_message_expiry_interval(seconds);
        let publish = Publish::new("t", text.as_bytes(), QoS::AtLeastOnce, false);
        let publish = publish.with_packet_id(id(1)).with_properties(&properties);
        net.send(p, Packet::Publish(publish));
        net.ack(p, AckKind::Puback, 1);
    }
    net.pass(30_500);
    let (s, present) = net.persistent(Version::V5, "s");
    assert!(present);
    let got = publish_of(net.one(s));
    assert_eq!(got.payload(), b"long");
    assert_eq!(got.properties().message_expiry_interval(), Some(70));
    assert_eq!(net.metric(Metric::DeliveryDroppedExpired), 1);
    assert_eq!(net.metric(Metric::DeliveryDropped), 1);
}

#[test]
fn messages_without_expiry_get_the_settings() {
    let mut net = Net::mqtt(Mqtt {
        message_expiry_interval_ms: Some(20_000),
        ..Mqtt::default()
    });
    let (p, s) = (
        net.client(Version::V3_1_1, "p"),
        net.client(Version::V5, "s"),
    );
    net.subscribe(s, "t", QoS::AtMostOnce);
    net.publish(p, "t", "x");
    assert_eq!(
        publish_of(net.one(s))
            .properties()
            .message_expiry_interval(),
        Some(20)
    );
}

#[test]
fn messages_larger_than_the_client_takes_are_dropped() {
    for count in [1, 2] {
        let mut net = Net::new();
        let p = net.client(Version::V5, "p");
        let subscribers: Vec<C> = (0..count)
            .map(|n| {
                let s = net.accept(Version::V5);
                let mut connect = Connect::new(Version::V5, &format!("s{n}"));
                connect.properties.set_maximum_packet_size(60);
                net.connect(s, connect);
                net.subscribe(s, "t", QoS::AtLeastOnce);
                s
            })
            .collect();
        for published in 0..=1 {
            net.publish_acked(p, "t", &"x".repeat(60), published);
            net.publish_acked(p, "t", "fits", published);
        }
        for s in subscribers {
            assert_eq!(net.payloads(s), ["fits", "fits"]);
        }
        assert_eq!(net.metric(Metric::DeliveryDroppedTooLarge), 2 * count);
    }
}

#[test]
fn no_local_and_loops() {
    let mut net = Net::new();
    let c = net.client(Version::V5, "c");
    let options = SubscriptionOptions {
        no_local: true,
        ..SubscriptionOptions::default()
    };
    net.try_subscribe(c, "t", options, 0);
    net.publish(c, "t", "own");
    net.nothing(c);
    let other = net.client(Version::V5, "d");
    net.publish(other, "t", "x");
    assert_eq!(net.payloads(c), ["x"]);
    assert_eq!(net.metric(Metric::DeliveryDroppedNoLocal), 1);
    let mut net = Net::mqtt(Mqtt {
        ignore_loop_deliver: true,
        ..Mqtt::default()
    });
    let three = net.client(Version::V3_1_1, "three");
    let five = net.client(Version::V5, "five");
    for c in [three, five] {
        net.subscribe(c, "t", QoS::AtMostOnce);
        net.publish(c, "t", "x");
    }
    assert_eq!(net.payloads(three), ["x"], "the other's only");
    assert_eq!(net.payloads(five), ["x"]);
}

#[test]
fn bridges_keep_retain_flags_and_get_nothing_back() {
    let mut net = Net::new();
    let b = net.accept(Version::V3_1_1);
    let mut connect = Connect::new(Version::V3_1_1, "b");
    connect.bridge = true;
    net.connect(b, connect);
    net.subscribe(b, "#", QoS::AtMostOnce);
    net.publish(b, "t", "own");
    net.nothing(b);
    let p = net.client(Version::V3_1_1, "p");
    net.send(p, super::net::retained("t", "x"));
    assert!(publish_of(net.one(b)).retain);
}

#[test]
fn overlapping_subscriptions_get_a_copy_each() {
    let mut net = Net::new();
    let (p, s) = (net.client(Version::V5, "p"), net.client(Version::V5, "s"));
    for (filter, level, sub_id) in [("a/b", 0, 1), ("a/+", 1, 2), ("#", 2, 3)] {
        net.try_subscribe(s, filter, SubscriptionOptions::with_qos(qos(level)), sub_id);
    }
    net.publish_acked(p, "a/b", "x", 2);
    let mut seen: Vec<_> = net
        .take(s)
        .into_iter()
        .map(publish_of)
        .map(|p| {
            (
                p.qos.as_u8(),
                p.properties().subscription_ids().collect::<Vec<_>>(),
            )
        })
        .collect();
    seen.sort();
    assert_eq!(seen, [(0, vec![1]), (1, vec![2]), (2, vec![3])]);
}

#[test]
fn mountpoints_are_put_before_and_taken_off() {
    let mut net = Net::new();
    let mounted = ListenerSettings {
        mountpoint: "m/${clientid}/".to_owned(),
        ..ListenerSettings::default()
    };
    let c = net.accept_via(0, 0, Version::V5, mounted);
    net.connect(c, Connect::new(Version::V5, "c"));
    let outside = net.client(Version::V5, "outside");
    net.subscribe(outside, "#", QoS::AtMostOnce);
    net.subscribe(c, "a/#", QoS::AtMostOnce);
    net.publish(c, "a/b", "x");
    assert_eq!(net.messages(c)[0].0, "a/b");
    assert_eq!(net.messages(outside)[0].0, "m/c/a/b");
    net.publish(outside, "m/c/a/d", "y");
    assert_eq!(net.messages(c)[0].0, "a/d");
    net.take(outside);
    assert_eq!(net.unsubscribe(c, "a/#"), [Reason::Success]);
    net.publish(outside, "m/c/a/d", "y");
    net.nothing(c);
}

struct Rules;

impl Authorizer for Rules {
    fn authorize(&self, who: &Identity<'_>, action: Action, topic: &str) -> Verdict {
        let secret = topic.starts_with("secret");
        let may = who.clientid == "boss" || !secret;
        let retained = matches!(action, Action::Publish { retain: true, .. });
        if may && !(retained && topic == "plain") {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }
}

fn guarded(deny_action: DenyAction) -> Net {
    let mut net = Net::new();
    let authorizer = Some(Arc::new(Rules) as Arc<dyn Authorizer>);
    net.nodes[0].shared.set_access(Access {
        authorizer,
        deny_action,
        ..Access::default()
    });
    net.tell(0, 0, ToShard::AccessChanged);
    net
}

#[test]
fn denied_publishes_are_acknowledged_and_dropped() {
    for version in VERSIONS {
        let mut net = guarded(DenyAction::Ignore);
        let (p, s) = (net.client(version, "p"), net.client(version, "boss"));
        net.subscribe(s, "#", QoS::ExactlyOnce);
        let denied = if version.is_v5() {
            Reason::NotAuthorized
        } else {
            Reason::Success
        };
        net.publish(p, "secret/x", "x");
        net.nothing(p);
        net.send(p, message("secret/x", "x", 1, 3));
        assert_eq!(net.ack(p, AckKind::Puback, 3), denied);
        net.send(p, message("secret/x", "x", 2, 4));
        assert_eq!(net.ack(p, AckKind::Pubrec, 4), denied);
        net.send(p, super::net::retained("plain", "x"));
        net.nothing(s);
        net.publish(s, "secret/x", "mine");
        assert_eq!(net.payloads(s), ["mine"]);
        assert_eq!(net.metric(Metric::AuthorizationDeny), 4);
        assert_eq!(net.metric(Metric::PacketsPublishAuthError), 4);
        assert!(net.is_open(p));
    }
}

#[test]
fn a_denial_may_disconnect() {
    let mut net = guarded(DenyAction::Disconnect);
    let p = net.client(Version::V5, "p");
    net.publish(p, "secret/x", "x");
    net.check_disconnected(p, Reason::NotAuthorized);
    net.check_closed(p, CloseReason::NotAuthorized);
}

#[test]
fn denied_filters_are_refused_one_by_one() {
    for version in VERSIONS {
        let mut net = guarded(DenyAction::Ignore);
        let c = net.client(version, "c");
        let options = SubscriptionOptions::default();
        let reasons = net.try_subscribe(c, "secret/#", options, 0);
        let denied = if version.is_v5() {
            Reason::NotAuthorized
        } else {
            Reason::UnspecifiedError
        };
        assert_eq!(reasons, [denied]);
        let shared = net.try_subscribe(c, "$share/g/secret/#", options, 0);
        assert_eq!(shared, [denied]);
        assert_eq!(net.try_subscribe(c, "open", options, 0), [Reason::Success]);
        assert_eq!(net.metric(Metric::PacketsSubscribeAuthError), 2);
    }
}

#[test]
fn a_slow_reader_keeps_its_messages_in_its_bounded_queue() {
    let mut net = Net::mqtt(Mqtt {
        max_mqueue_len: Some(100),
        ..Mqtt::default()
    });
    let p = net.client(Version::V5, "p");
    let (slow, fast) = (
        net.client(Version::V5, "slow"),
        net.client(Version::V5, "fast"),
    );
    for s in [slow, fast] {
        net.subscribe(s, "t", QoS::AtMostOnce);
    }
    net.clients[slow.0].stalled = true;
    let payload = "x".repeat(1_000);
    for n in 0..1_000 {
        net.publish(p, "t", &format!("{n:04}{payload}"));
    }
    assert_eq!(
        net.payloads(fast).len(),
        1_000,
        "a neighbour does not notice"
    );
    let dropped = net.metric(Metric::DeliveryDroppedQueueFull);
    assert!(dropped > 500, "{dropped}");
    net.unstall(slow);
    let got = net.payloads(slow);
    assert_eq!(got.len() as u64 + dropped, 1_000);
    assert!(got.is_sorted());
    assert!(
        got.last().is_some_and(|last| last.starts_with("0999")),
        "the newest are kept"
    );
    assert!(net.is_open(slow));
}

#[test]
fn a_client_that_never_reads_its_answers_is_not_read_any_more() {
    let mut net = Net::new();
    let c = net.client(Version::V5, "c");
    net.clients[c.0].stalled = true;
    let pings = [0xC0, 0].repeat(100_000);
    for _ in 0..10 {
        net.bytes(c, &pings);
    }
    assert!(net.clients[c.0].paused);
    net.unstall(c);
    assert!(!net.clients[c.0].paused);
    assert_eq!(net.take(c).len(), 1_000_000);
}
