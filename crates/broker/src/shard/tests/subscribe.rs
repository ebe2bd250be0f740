//! SUBSCRIBE and UNSUBSCRIBE: judgements, options, limits, exclusive subscriptions.

use dunlin_mqtt::{
    Packet, Properties, QoS, Reason, Subscribe, SubscriptionOptions, TopicFilter, Version,
};

use super::net::{Net, VERSIONS, id, retained};
use crate::metrics::Metric;
use crate::settings::Mqtt;

#[track_caller]
fn check(mqtt: Mqtt, filter: &str, expected: Reason) {
    let mut net = Net::mqtt(mqtt);
    let c = net.client(Version::V5, "c");
    let reasons = net.try_subscribe(c, filter, SubscriptionOptions::default(), 0);
    assert_eq!(reasons, [expected], "{filter}");
    let three = net.client(Version::V3_1_1, "three");
    let reasons = net.try_subscribe(three, filter, SubscriptionOptions::default(), 0);
    let expected_v3 = if expected.is_error() {
        Reason::UnspecifiedError
    } else {
        expected
    };
    if filter != "$exclusive/t" {
        assert_eq!(reasons, [expected_v3], "{filter}");
    }
}

#[test]
fn filters_are_judged() {
    let ok = Reason::Success;
    for (filter, expected) in [
        ("a/b", ok),
        ("#", ok),
        ("+/b/#", ok),
        ("/", ok),
        ("$SYS/#", ok),
        ("a#", Reason::TopicFilterInvalid),
        ("a/#/b", Reason::TopicFilterInvalid),
        ("a+/b", Reason::TopicFilterInvalid),
        ("", Reason::TopicFilterInvalid),
        ("$share/g/t", ok),
        ("$share//t", Reason::TopicFilterInvalid),
        ("$share/+/t", Reason::TopicFilterInvalid),
        ("$share/g", Reason::TopicFilterInvalid),
        ("$share/g/", Reason::TopicFilterInvalid),
        ("$share/$queue/t", ok),
        ("$share/g/$queue/t", Reason::TopicFilterInvalid),
        ("$queue/t", ok),
        ("$exclusive/t", Reason::TopicFilterInvalid),
    ] {
        check(Mqtt::default(), filter, expected);
    }
}

#[test]
fn settings_limit_filters() {
    let levels = || Mqtt {
        max_topic_levels: 2,
        ..Mqtt::default()
    };
    check(levels(), "a/b", Reason::Success);
    check(levels(), "a/b/c", Reason::TopicFilterInvalid);
    let plain = || Mqtt {
        wildcard_subscription: false,
        ..Mqtt::default()
    };
    check(plain(), "a/+", Reason::WildcardSubscriptionsNotSupported);
    check(plain(), "a", Reason::Success);
    let single = || Mqtt {
        shared_subscription: false,
        ..Mqtt::default()
    };
    check(
        single(),
        "$share/g/a",
        Reason::SharedSubscriptionsNotSupported,
    );
    check(
        single(),
        "$queue/a",
        Reason::SharedSubscriptionsNotSupported,
    );
}

#[test]
fn the_granted_qos_is_capped() {
    let mut net = Net::mqtt(Mqtt {
        max_qos_allowed: 1,
        ..Mqtt::default()
    });
    let c = net.client(Version::V5, "c");
    let options = SubscriptionOptions::with_qos(QoS::ExactlyOnce);
    assert_eq!(net.try_subscribe(c, "t", options, 0), [Reason::GrantedQos1]);
}

#[test]
fn one_subscribe_may_be_granted_in_part() {
    for version in VERSIONS {
        let mut net = Net::new();
        let c = net.client(version, "c");
        let filters = [("a", 0), ("b#", 0), ("c", 2)].map(|(f, q)| {
            (
                TopicFilter::new(f),
                SubscriptionOptions::with_qos(super::net::qos(q)),
            )
        });
        let packet = Subscribe {
            packet_id: id(3),
            properties: Properties::new(),
            filters: filters.to_vec(),
        };
        net.send(c, Packet::Subscribe(packet));
        let Packet::Suback(suback) = net.one(c) else {
            panic!("a SUBACK")
        };
        let invalid = if version.is_v5() {
            Reason::TopicFilterInvalid
        } else {
            Reason::UnspecifiedError
        };
        assert_eq!(
            suback.reasons,
            [Reason::Success, invalid, Reason::GrantedQos2]
        );
        assert_eq!(suback.packet_id, id(3));
        assert_eq!(net.metric(Metric::PacketsSubscribeError), 1);
        assert_eq!(net.metric(Metric::ClientSubscribe), 3);
        assert_eq!(net.nodes[0].shared.router().read().usage().subscriptions, 2);
    }
}

#[test]
fn too_many_subscriptions() {
    let mut net = Net::mqtt(Mqtt {
        max_subscriptions: Some(2),
        ..Mqtt::default()
    });
    let c = net.client(Version::V5, "c");
    let options = SubscriptionOptions::default();
    for filter in ["a", "b", "a"] {
        assert_eq!(net.try_subscribe(c, filter, options, 0), [Reason::Success]);
    }
    assert_eq!(
        net.try_subscribe(c, "c", options, 0),
        [Reason::QuotaExceeded]
    );
    net.unsubscribe(c, "a");
    assert_eq!(net.try_subscribe(c, "c", options, 0), [Reason::Success]);
}

#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut net = Net::new();
    let c = net.client(Version::V5, "c");
    let options = SubscriptionOptions {
        no_local: true,
        ..SubscriptionOptions::default()
    };
    net.send(c, super::net::subscribe(1, "$share/g/t", options, 0));
    net.check_disconnected(c, Reason::ProtocolError);
}

#[test]
fn subscribing_again_replaces_the_options() {
    let mut net = Net::new();
    let (p, c) = (net.client(Version::V5, "p"), net.client(Version::V5, "c"));
    net.subscribe(c, "t", QoS::ExactlyOnce);
    net.try_subscribe(c, "t", SubscriptionOptions::default(), 5);
    net.publish_acked(p, "t", "x", 1);
    let Packet::Publish(publish) = net.one(c) else {
        panic!("a publish")
    };
    assert_eq!(publish.qos, QoS::AtMostOnce);
    assert_eq!(
        publish.properties().subscription_ids().collect::<Vec<_>>(),
        [5]
    );
    assert_eq!(net.nodes[0].shards[0].counts().subscriptions, 1);
}

#[test]
fn unsubscribing() {
    for version in VERSIONS {
        let mut net = Net::new();
        let (p, c) = (net.client(version, "p"), net.client(version, "c"));
        net.subscribe(c, "t", QoS::AtMostOnce);
        net.subscribe(c, "$share/g/t", QoS::AtMostOnce);
        let reasons = |reason| {
            if version.is_v5() {
                vec![reason]
            } else {
                vec![]
            }
        };
        assert_eq!(net.unsubscribe(c, "t"), reasons(Reason::Success));
        assert_eq!(
            net.unsubscribe(c, "t"),
            reasons(Reason::NoSubscriptionExisted)
        );
        net.publish(p, "t", "x");
        assert_eq!(
            net.payloads(c),
            ["x"],
            "the shared one is another subscription"
        );
        assert_eq!(net.unsubscribe(c, "$share/g/t"), reasons(Reason::Success));
        net.publish(p, "t", "x");
        net.nothing(c);
        let usage = net.nodes[0].shared.router().read().usage();
        assert_eq!((usage.filters, usage.groups), (0, 0));
    }
}

#[test]
fn retain_as_published() {
    let mut net = Net::new();
    let (p, c) = (net.client(Version::V5, "p"), net.client(Version::V5, "c"));
    for (rap, expected) in [(false, false), (true, true)] {
        let options = SubscriptionOptions {
            retain_as_published: rap,
            ..SubscriptionOptions::default()
        };
        net.try_subscribe(c, "t", options, 0);
        net.take(c);
        net.send(p, retained("t", "x"));
        let Packet::Publish(publish) = net.one(c) else {
            panic!("a publish")
        };
        assert_eq!(publish.retain, expected);
    }
}

#[test]
fn an_exclusive_subscription_has_one_holder() {
    let mut net = Net::mqtt(Mqtt {
        exclusive_subscription: true,
        ..Mqtt::default()
    });
    let options = SubscriptionOptions::default();
    let (a, b) = (net.client(Version::V5, "a"), net.client(Version::V5, "b"));
    let plain = net.client(Version::V5, "plain");
    for _ in 0..2 {
        assert_eq!(
            net.try_subscribe(a, "$exclusive/t", options, 0),
            [Reason::Success]
        );
    }
    assert_eq!(
        net.try_subscribe(b, "$exclusive/t", options, 0),
        [Reason::QuotaExceeded]
    );
    net.subscribe(plain, "t", QoS::AtMostOnce);
    net.publish(b, "t", "x");
    assert_eq!(
        (net.payloads(a), net.payloads(plain)),
        (vec!["x".into()], vec!["x".into()])
    );
    net.drop_client(a);
    assert_eq!(
        net.try_subscribe(b, "$exclusive/t", options, 0),
        [Reason::Success]
    );
    assert_eq!(net.unsubscribe(b, "$exclusive/t"), [Reason::Success]);
}
