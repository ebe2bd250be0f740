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

/// Three nodes with one member and one publisher each.
fn three(shared: SharedRule) -> (Net, Vec<C>, Vec<C>) {
    let mqtt = Mqtt {
        shared,
        ..Mqtt::default()
    };
    let mut net = Net::with(3, 1, super::net::settings(mqtt));
    let mut members = Vec::new();
    let mut publishers = Vec::new();
    for node in 0..3 {
        let member = net.client_at_shard(node, 0, Version::V5, &format!("m{node}"));
        net.subscribe(member, "$share/g/t/#", QoS::ExactlyOnce);
        members.push(member);
        publishers.push(net.client_at_shard(node, 0, Version::V5, &format!("p{node}")));
    }
    (net, members, publishers)
}

fn received(net: &mut Net, members: &[C]) -> Vec<Vec<String>> {
    members.iter().map(|c| net.payloads(*c)).collect()
}

#[test]
fn every_strategy_works_across_nodes() {
    for (name, strategy) in Strategy::NAMES {
        let rule = SharedRule {
            strategy,
            ..SharedRule::default()
        };
        let (mut net, members, publishers) = three(rule);
        let mut expected = Vec::new();
        for n in 0..18 {
            for (node, publisher) in publishers.iter().enumerate() {
                let payload = format!("{node}-{n}");
                net.publish_acked(*publisher, "t/x", &payload, 1 + n % 2);
                expected.push(payload);
            }
        }
        let got = received(&mut net, &members);
        let mut all: Vec<String> = got.concat();
        all.sort();
        expected.sort();
        assert_eq!(all, expected, "{name}: each message once");
        let shares: Vec<usize> = got.iter().map(Vec::len).collect();
        match strategy {
            Strategy::Local => {
                for (node, own) in got.iter().enumerate() {
                    let of_it = |p: &String| p.starts_with(&format!("{node}-"));
                    assert!(own.iter().all(of_it), "{name}: {own:?}");
                }
            }
            Strategy::HashTopic => assert!(shares.contains(&54), "{name}: {shares:?}"),
            Strategy::HashClientid | Strategy::Sticky => {
                let of = |node: usize| move |p: &&String| p.starts_with(&format!("{node}-"));
                for node in 0..3 {
                    let spread = got.iter().filter(|own| own.iter().any(|p| of(node)(&p)));
                    assert_eq!(spread.count(), 1, "{name}: one member for a publisher");
                }
            }
            _ => assert!(shares.iter().all(|n| *n > 5), "{name}: {shares:?}"),
        }
    }
}

#[test]
fn what_a_member_left_unacknowledged_goes_to_another_node_if_need_be() {
    for (name, strategy) in Strategy::NAMES {
        let rule = SharedRule {
            strategy,
            ..SharedRule::default()
        };
        let (mut net, members, publishers) = three(rule);
        for n in 0..12 {
            net.publish_acked(publishers[0], "t/x", &n.to_string(), 1 + n % 2);
        }
        // Nobody has acknowledged anything; two of the three leave, one way and the other.
        net.drop_client(members[0]);
        net.ask(1, 0, crate::effects::Ask::Kick("m1".to_owned()));
        let mut got = net.payloads(members[2]);
        got.sort_by_key(|p| p.parse::<usize>().expect("a number"));
        got.dedup();
        let expected: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn members_of_a_node_that_is_away_are_not_picked() {
    for (name, strategy) in Strategy::NAMES {
        let rule = SharedRule {
            strategy,
            ..SharedRule::default()
        };
        let (mut net, members, publishers) = three(rule);
        net.peer_down(0, 1);
        for n in 0..12 {
            net.publish_acked(publishers[0], "t/x", &n.to_string(), 1);
        }
        let got = received(&mut net, &members);
        assert_eq!((got[1].len(), got.concat().len()), (0, 12), "{name}");
    }
}

#[test]
fn what_a_dead_node_had_not_done_goes_to_members_elsewhere() {
    let (mut net, members, publishers) = three(SharedRule::default());
    for n in 0..12 {
        net.publish_acked(publishers[0], "t/x", &n.to_string(), 1 + n % 2);
    }
    // The member on node 1 has acknowledged what it got until then; the later ones it has not.
    let done = net.payloads(members[1]);
    net.pass(200);
    for n in 12..24 {
        net.publish_acked(publishers[0], "t/x", &n.to_string(), 1 + n % 2);
    }
    net.peer_down(0, 1);
    net.pass(1_000);
    let before: usize = [0, 2]
        .map(|at| net.payloads(members[at]).len())
        .iter()
        .sum();
    assert_eq!(
        before + done.len(),
        24 - 4,
        "it is only silent and may serve them"
    );
    net.peer_down_for(0, 1, dunlin_cluster::DownReason::Refused);
    let after: Vec<String> = [0, 2].map(|at| net.payloads(members[at])).concat();
    assert_eq!(after.len(), 4, "what it had not acknowledged: {after:?}");
    assert!(
        after
            .iter()
            .all(|p| p.parse::<usize>().is_ok_and(|n| n >= 12))
    );
}

#[test]
fn a_member_node_that_restarts_gives_back_what_it_forgot() {
    let (mut net, members, publishers) = three(SharedRule::default());
    net.peer_told(0, 1);
    for n in 0..12 {
        net.publish_acked(publishers[0], "t/x", &n.to_string(), 1);
    }
    net.peer_down(0, 1);
    // The same process again: nothing happens.
    net.peer_up(0, 1);
    net.run();
    let got: usize = [0, 2]
        .map(|at| net.payloads(members[at]).len())
        .iter()
        .sum();
    assert_eq!(got, 8);
    let elsewhere = |net: &mut Net| -> usize {
        let members = [0, 2].map(|at| net.payloads(members[at]).len());
        members.iter().sum()
    };
    let node = net.index(1, 0);
    net.reborn(1);
    net.peer_up(0, 1);
    net.run();
    let here = net.nodes[0].shared.router().read();
    assert!(here.find_group_ref("g", "t/#").is_some() && node == net.index(1, 0));
    drop(here);
    // What is known of its group here is of its former life, and is not relied on.
    assert_eq!(elsewhere(&mut net), 4, "what was given to the former one");
    for n in 12..24 {
        net.publish_acked(publishers[0], "t/x", &n.to_string(), 1);
    }
    assert_eq!(elsewhere(&mut net), 12);
    net.peer_told(0, 1);
    for n in 24..36 {
        net.publish_acked(publishers[0], "t/x", &n.to_string(), 1);
    }
    assert_eq!(elsewhere(&mut net), 8, "it has a member again");
}

#[test]
fn a_group_that_only_a_node_has_which_runs_anew_is_still_served() {
    let (mut net, members, publishers) = three(SharedRule::default());
    net.peer_told(0, 1);
    for at in [0, 2] {
        net.drop_client(members[at]);
    }
    net.run();
    net.peer_down(0, 1);
    net.reborn(1);
    net.peer_up(0, 1);
    net.run();
    // A process that has left its cluster and come back has its clients still.
    for n in 0..12 {
        net.publish_acked(publishers[0], "t/x", &n.to_string(), 1);
    }
    assert_eq!(net.payloads(members[1]).len(), 12);
}

#[test]
fn a_message_for_a_group_whose_last_member_here_just_left_goes_on() {
    let (mut net, members, publishers) = three(SharedRule::default());
    net.hold_control = true;
    net.drop_client(members[1]);
    for n in 0..12 {
        net.publish_acked(publishers[0], "t/x", &n.to_string(), 1);
    }
    let got: Vec<String> = [0, 2].map(|at| net.payloads(members[at])).concat();
    assert_eq!(got.len(), 12, "node 0 did not know yet: {got:?}");
}
