use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::router::{Router, SessionKey, SubOptions};

const FILTER: &str = "t/#";
const A: NodeIndex = NodeIndex(1);
const B: NodeIndex = NodeIndex(2);

fn member(slot: u32) -> Subscriber {
    let session = SessionKey {
        slot,
        generation: 0,
    };
    Subscriber {
        session,
        options: SubOptions::default(),
        shard: 0,
    }
}

/// A group with members 0..local here and so many on A and B.
fn router(local: u32, a: u32, b: u32) -> (Router, GroupRef) {
    let mut router = Router::new(1);
    for slot in 0..local {
        router.add_member("g", FILTER, member(slot));
    }
    router.set_remote_group("g", FILTER, A, a);
    router.set_remote_group("g", FILTER, B, b);
    let group = router.find_group_ref("g", FILTER).expect("it has members");
    (router, group)
}

fn rule(strategy: Strategy) -> SharedRule {
    SharedRule {
        strategy,
        ..SharedRule::default()
    }
}

/// The nodes in an order of their own, this one in the middle.
fn order(node: Option<NodeIndex>) -> u64 {
    match node {
        Some(A) => 9,
        None => 5,
        Some(_) => 1,
    }
}

fn publisher(id: u64) -> Publisher<'static> {
    Publisher {
        id,
        clientid: "me",
        topic: "t/1",
    }
}

/// Who was picked: a slot of this node, or 1000 + node.
fn name(pick: Option<Pick>) -> Option<u32> {
    pick.map(|pick| match pick {
        Pick::Local(subscriber) => subscriber.session.slot,
        Pick::Remote(node) => 1_000 + u32::from(node.0),
    })
}

fn picks(
    (router, group): &(Router, GroupRef),
    picker: &mut Picker,
    strategy: Strategy,
    times: usize,
) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let group = (*group, router.group(*group));
        let pick = picker.pick(group, rule(strategy), publisher(1), (|_| true, order), None);
        *counts
            .entry(name(pick).expect("there are members"))
            .or_default() += 1;
    }
    counts
}

#[test]
fn names_are_emqx_s() {
    for (name, strategy) in Strategy::NAMES {
        assert_eq!(Strategy::from_name(name), Some(strategy));
        assert_eq!(strategy.name(), name);
    }
    assert_eq!(Strategy::from_name("round-robin"), None);
    assert_eq!(Strategy::default().name(), "round_robin");
}

#[test]
fn turns_are_fair_across_nodes_by_members() {
    let group = router(2, 3, 1);
    let expected = BTreeMap::from([(0, 10), (1, 10), (1_001, 30), (1_002, 10)]);
    for strategy in [Strategy::RoundRobin, Strategy::RoundRobinPerGroup] {
        assert_eq!(picks(&group, &mut Picker::new(1), strategy, 60), expected);
    }
}

#[test]
fn the_turn_of_a_group_is_common_to_all_pickers() {
    let group = router(2, 0, 0);
    let mut seen = Vec::new();
    for seed in 0..4 {
        let one = picks(
            &group,
            &mut Picker::new(seed),
            Strategy::RoundRobinPerGroup,
            1,
        );
        seen.extend(one.into_keys());
    }
    assert_eq!(seen, [0, 1, 0, 1]);
}

#[test]
fn random_reaches_everybody_and_follows_its_seed() {
    let group = router(2, 2, 1);
    let first = picks(&group, &mut Picker::new(7), Strategy::Random, 500);
    assert_eq!(
        first.keys().copied().collect::<Vec<_>>(),
        [0, 1, 1_001, 1_002]
    );
    assert!(first.values().all(|count| *count > 50));
    assert_eq!(
        picks(&group, &mut Picker::new(7), Strategy::Random, 500),
        first
    );
}

#[test]
fn local_prefers_this_node() {
    let mut picker = Picker::new(1);
    let here = picks(&router(2, 5, 5), &mut picker, Strategy::Local, 100);
    assert_eq!(here.keys().copied().collect::<Vec<_>>(), [0, 1]);
    let away = picks(&router(0, 5, 5), &mut picker, Strategy::Local, 100);
    assert_eq!(away.keys().copied().collect::<Vec<_>>(), [1_001, 1_002]);
}

#[test]
fn hashes_depend_on_their_key_only() {
    let (router, at) = router(4, 0, 4);
    let mut by_topic = BTreeSet::new();
    let mut by_client = BTreeSet::new();
    for n in 0..100 {
        let (topic, clientid) = (format!("t/{n}"), format!("c{n}"));
        let pick = |strategy, topic: &str, clientid: &str, seed| {
            let from = Publisher {
                id: seed,
                clientid,
                topic,
            };
            let group = (at, router.group(at));
            name(Picker::new(seed).pick(group, rule(strategy), from, (|_| true, order), None))
        };
        let one = pick(Strategy::HashTopic, &topic, "x", 1);
        assert_eq!(one, pick(Strategy::HashTopic, &topic, "y", 2));
        by_topic.insert(one);
        let one = pick(Strategy::HashClientid, "t/x", &clientid, 1);
        assert_eq!(one, pick(Strategy::HashClientid, "t/y", &clientid, 2));
        by_client.insert(one);
    }
    assert_eq!((by_topic.len(), by_client.len()), (5, 5), "all are reached");
}

#[test]
fn sticky_stays_until_its_member_is_gone() {
    let (mut router, at) = router(3, 0, 0);
    let mut picker = Picker::new(3);
    let sticky = rule(Strategy::Sticky);
    let mut pick = |router: &Router, id| {
        name(picker.pick(
            (at, router.group(at)),
            sticky,
            publisher(id),
            (|_| true, order),
            None,
        ))
    };
    let first = pick(&router, 1).expect("a member");
    assert!((0..20).all(|_| pick(&router, 1) == Some(first)));
    let others: BTreeSet<_> = (2..40).map(|id| pick(&router, id)).collect();
    assert_eq!(others.len(), 3, "publishers choose for themselves");
    router.add_member("g", FILTER, member(9));
    assert_eq!(
        pick(&router, 1),
        Some(first),
        "a new member changes nothing"
    );
    router.remove_member("g", FILTER, member(first).key());
    let second = pick(&router, 1);
    assert_ne!(second, Some(first));
    assert!((0..20).all(|_| pick(&router, 1) == second));
}

#[test]
fn the_first_sticky_pick_has_its_own_rule() {
    let (router, at) = router(2, 50, 0);
    let sticky = SharedRule {
        strategy: Strategy::Sticky,
        initial_sticky_pick: Strategy::Local,
    };
    let mut picker = Picker::new(3);
    for id in 0..50 {
        let pick = picker.pick(
            (at, router.group(at)),
            sticky,
            publisher(id),
            (|_| true, order),
            None,
        );
        assert!(matches!(pick, Some(Pick::Local(_))));
    }
}

#[test]
fn nobody_unreachable_or_excluded_is_picked() {
    let (router, at) = router(2, 3, 3);
    for (_, strategy) in Strategy::NAMES {
        let mut picker = Picker::new(5);
        for n in 0..40 {
            let group = (at, router.group(at));
            let from = Publisher {
                id: n,
                ..publisher(1)
            };
            let reachable = |node| node == B;
            let exclude = Some(member(0).key());
            let pick = name(picker.pick(group, rule(strategy), from, (reachable, order), exclude));
            assert!(matches!(pick, Some(1 | 1_002)), "{strategy:?} {pick:?}");
            let local = picker.pick_local(group, rule(strategy), from, exclude);
            assert_eq!(local.map(|s| s.session.slot), Some(1), "{strategy:?}");
        }
    }
}

#[test]
fn sticky_leaves_a_node_that_cannot_be_reached() {
    let (router, at) = router(0, 1, 1);
    let mut picker = Picker::new(5);
    let group = (at, router.group(at));
    let sticky = rule(Strategy::Sticky);
    let first = picker.pick(group, sticky, publisher(1), (|_| true, order), None);
    let Some(Pick::Remote(down)) = first else {
        panic!("only remote members")
    };
    let second = picker.pick(
        group,
        sticky,
        publisher(1),
        (|node| node != down, order),
        None,
    );
    assert!(second.is_some() && second != first);
}

#[test]
fn an_empty_choice_is_none() {
    let (router, at) = router(1, 1, 0);
    for (_, strategy) in Strategy::NAMES {
        let mut picker = Picker::new(5);
        let group = (at, router.group(at));
        let only = Some(member(0).key());
        assert_eq!(
            picker.pick(
                group,
                rule(strategy),
                publisher(1),
                (|_| false, order),
                only
            ),
            None
        );
        let remote = picker.pick(group, rule(strategy), publisher(1), (|_| true, order), only);
        assert_eq!(remote, Some(Pick::Remote(A)), "{strategy:?}");
    }
}

/// A group as a node sees it: members here, then how many the others have.
fn view(own: u32, others: &[(NodeIndex, u32)]) -> (Router, GroupRef) {
    let mut router = Router::new(1);
    for slot in 0..own {
        router.add_member("g", FILTER, member(slot));
    }
    for (node, count) in others {
        router.set_remote_group("g", FILTER, *node, *count);
    }
    let group = router.find_group_ref("g", FILTER).expect("it has members");
    (router, group)
}

#[test]
fn a_hash_means_the_same_member_on_every_node() {
    // Three nodes with 2, 1 and 3 members, whose sites are in this order; each numbers the others
    // in its own way.
    let counts = [2, 1, 3];
    let seen_by = |own: usize| {
        let others: Vec<usize> = (0..3).filter(|other| *other != own).collect();
        // The node that is numbered 1 is the later one.
        let numbered = [(A, others[1]), (B, others[0])];
        let remote: Vec<_> = numbered
            .iter()
            .map(|(node, of)| (*node, counts[*of]))
            .collect();
        let order = move |node: Option<NodeIndex>| {
            let of = numbered.iter().find(|(index, _)| Some(*index) == node);
            of.map_or(own, |(_, of)| *of) as u64
        };
        (view(counts[own], &remote), order, numbered)
    };
    for strategy in [Strategy::HashTopic, Strategy::HashClientid] {
        let mut got: BTreeMap<(usize, u32), usize> = BTreeMap::new();
        for n in 0..600 {
            let text = format!("text-{n}");
            let from = Publisher {
                id: n,
                clientid: &text,
                topic: &text,
            };
            let mut chosen = BTreeSet::new();
            for own in 0..3 {
                let ((router, group), order, numbered) = seen_by(own);
                let at = (group, router.group(group));
                let nodes = (|_| true, order);
                let pick = Picker::new(n).pick(at, rule(strategy), from, nodes, None);
                let owner = match pick.expect("there are members") {
                    Pick::Local(member) => {
                        chosen.insert((own, member.session.slot));
                        continue;
                    }
                    Pick::Remote(node) => numbered.iter().find(|(index, _)| *index == node),
                };
                let owner = owner.expect("it is known").1;
                let ((router, group), _, _) = seen_by(owner);
                let at = (group, router.group(group));
                let member = Picker::new(0).pick_local(at, rule(strategy), from, None);
                chosen.insert((owner, member.expect("it has members").session.slot));
            }
            assert_eq!(chosen.len(), 1, "{strategy:?} {text}: {chosen:?}");
            *got.entry(chosen.pop_first().expect("one")).or_default() += 1;
        }
        assert_eq!(got.len(), 6, "every member has its part: {got:?}");
        assert!(got.values().all(|n| (50..200).contains(n)), "{got:?}");
    }
}
