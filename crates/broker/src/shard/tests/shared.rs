//! Shared subscriptions in one shard.

use dunlin_mqtt::{QoS, Version};

use super::net::{C, Net};
use crate::settings::{Mqtt, SharedRule, Strategy};

fn group(net: &mut Net, filter: &str, members: usize) -> Vec<C> {
    (0..members)
        .map(|n| {
            let c = net.client(Version::V5, &format!("m{n}"));
            net.subscribe(c, filter, QoS::AtLeastOnce);
            c
        })
        .collect()
}

#[test]
fn each_message_reaches_one_member_in_turn() {
    for filter in ["$share/g/t/+", "$queue/t/+"] {
        let mut net = Net::new();
        let p = net.client(Version::V5, "p");
        let members = group(&mut net, filter, 3);
        for n in 0..9 {
            net.publish_acked(p, "t/x", &n.to_string(), n % 3);
        }
        let got: Vec<Vec<String>> = members.iter().map(|c| net.payloads(*c)).collect();
        assert!(got.iter().all(|g| g.len() == 3), "{got:?}");
    }
}

#[test]
fn groups_and_plain_subscriptions_do_not_mix() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let plain = net.client(Version::V5, "plain");
    net.subscribe(plain, "t", QoS::AtMostOnce);
    let (a, b) = (net.client(Version::V5, "a"), net.client(Version::V5, "b"));
    net.subscribe(a, "$share/one/t", QoS::AtMostOnce);
    net.subscribe(b, "$share/two/t", QoS::AtMostOnce);
    net.publish(p, "t", "x");
    for c in [plain, a, b] {
        assert_eq!(net.payloads(c), ["x"]);
    }
}

#[test]
fn offline_members_still_have_their_turn() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let (away, _) = net.persistent(Version::V5, "away");
    net.subscribe(away, "$share/g/t", QoS::AtLeastOnce);
    net.drop_client(away);
    let here = group(&mut net, "$share/g/t", 1);
    for n in 0..4 {
        net.publish_acked(p, "t", &n.to_string(), 1);
    }
    assert_eq!(net.payloads(here[0]).len(), 2);
    let (away, _) = net.persistent(Version::V5, "away");
    assert_eq!(net.payloads(away).len(), 2);
}

#[test]
fn what_a_dying_member_did_not_acknowledge_goes_to_another() {
    for qos in 0..=2 {
        let mut net = Net::new();
        let p = net.client(Version::V5, "p");
        let a = net.client(Version::V5, "a");
        net.subscribe(a, "$share/g/t", QoS::ExactlyOnce);
        for n in 0..40 {
            net.publish_acked(p, "t", &n.to_string(), qos);
        }
        let b = net.client(Version::V5, "b");
        net.subscribe(b, "$share/g/t", QoS::ExactlyOnce);
        net.drop_client(a);
        let got = net.payloads(b);
        if qos == 0 {
            assert!(got.is_empty(), "QoS 0 is gone");
        } else {
            let expected: Vec<String> = (0..40).map(|n| n.to_string()).collect();
            assert_eq!(got, expected, "in flight and queued, in order");
        }
    }
}

#[test]
fn without_another_member_nothing_is_left_behind() {
    let mut net = Net::new();
    let p = net.client(Version::V5, "p");
    let a = net.client(Version::V5, "a");
    net.subscribe(a, "$share/g/t", QoS::AtLeastOnce);
    net.publish_acked(p, "t", "x", 1);
    net.drop_client(a);
    let usage = net.nodes[0].shared.router().read().usage();
    assert_eq!((usage.groups, usage.filters), (0, 0));
}

#[test]
fn every_strategy_delivers_each_message_once() {
    for (name, strategy) in Strategy::NAMES {
        let shared = SharedRule {
            strategy,
            ..SharedRule::default()
        };
        let mut net = Net::mqtt(Mqtt {
            shared,
            ..Mqtt::default()
        });
        let p = net.client(Version::V5, "p");
        let members = group(&mut net, "$share/g/t", 3);
        for n in 0..10 {
            net.publish_acked(p, "t", &n.to_string(), 1);
        }
        let got: Vec<usize> = members.iter().map(|c| net.payloads(*c).len()).collect();
        assert_eq!(got.iter().sum::<usize>(), 10, "{name}: {got:?}");
        if matches!(
            strategy,
            Strategy::Sticky | Strategy::HashTopic | Strategy::HashClientid
        ) {
            assert!(got.contains(&10), "{name}: {got:?}");
        }
    }
}
