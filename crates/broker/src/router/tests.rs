use std::collections::{BTreeMap, BTreeSet};

use dunlin_mqtt::QoS;
use dunlin_mqtt::topic::matches;
use proptest::prelude::*;
use proptest::strategy::Strategy;

use super::*;

fn key(n: u8) -> SubscriberKey {
    SubscriberKey {
        session: SessionKey {
            slot: u32::from(n / 2),
            generation: 1,
        },
        shard: u16::from(n % 2),
    }
}

fn subscriber(n: u8, sub_id: u32) -> Subscriber {
    let key = key(n);
    let options = SubOptions::new(QoS::AtLeastOnce).with_sub_id(sub_id);
    Subscriber {
        session: key.session,
        shard: key.shard,
        options,
    }
}

fn local_of(router: &Router, topic: &str) -> Vec<Subscriber> {
    let mut found = Matches::new();
    router.match_topic(topic, &mut found);
    found.local.sort_by_key(|s| (s.key(), s.options.sub_id()));
    found.local
}

#[track_caller]
fn check(filter: &str, topic: &str, expected: bool) {
    let mut router = Router::new(0);
    router.subscribe(filter, subscriber(0, 0));
    assert_eq!(
        !local_of(&router, topic).is_empty(),
        expected,
        "{filter} {topic}"
    );
}

#[test]
fn filters_match_as_the_specification_says() {
    for (filter, topic) in [
        ("a/b", "a/b"),
        ("a/+", "a/b"),
        ("+/b", "a/b"),
        ("+/+", "a/b"),
        ("+/+", "/"),
        ("/+", "/finance"),
        ("+/+", "/finance"),
        ("#", "a"),
        ("#", "a/b/c"),
        ("#", "/"),
        ("a/#", "a"),
        ("a/#", "a/"),
        ("a/#", "a/b/c"),
        ("a/+/#", "a/b"),
        ("a/+/#", "a/b/c"),
        ("a/+/c/#", "a/b/c"),
        ("+", "a"),
        ("a//b", "a//b"),
        ("a/+/b", "a//b"),
        ("$SYS/#", "$SYS/brokers"),
        ("$SYS/+", "$SYS/brokers"),
        ("a/$b/#", "a/$b"),
        ("+/$b", "a/$b"),
    ] {
        check(filter, topic, true);
    }
    for (filter, topic) in [
        ("a/b", "a/c"),
        ("a/b", "a/b/c"),
        ("a/+", "a"),
        ("a/+", "a/b/c"),
        ("+", "/finance"),
        ("+", "a/b"),
        ("a/#", "b"),
        ("a/#", "ab"),
        ("a/+/#", "a"),
        ("#", "$SYS"),
        ("+", "$SYS"),
        ("#", "$SYS/x"),
        ("+/#", "$SYS/x"),
        ("+/x", "$SYS/x"),
        ("A/#", "a"),
        ("/a", "a"),
    ] {
        check(filter, topic, false);
    }
}

#[test]
fn a_session_gets_one_copy_for_each_matching_subscription() {
    let mut router = Router::new(0);
    for (id, filter) in ["a/b", "a/+", "#"].into_iter().enumerate() {
        router.subscribe(filter, subscriber(1, id as u32 + 1));
    }
    let ids: Vec<_> = local_of(&router, "a/b")
        .iter()
        .map(|s| s.options.sub_id())
        .collect();
    assert_eq!(ids, [Some(1), Some(2), Some(3)]);
}

#[test]
fn changes_say_what_others_have_to_know() {
    let mut router = Router::new(0);
    let first = router.subscribe("a/+", subscriber(1, 0));
    assert!(first.first_local && first.replaced.is_none());
    assert_eq!(router.filter(first.filter), "a/+");
    assert_eq!(router.filter_id("a/+"), Some(first.filter));
    let again = router.subscribe("a/+", subscriber(1, 7));
    assert_eq!(
        (again.first_local, again.replaced),
        (false, Some(subscriber(1, 0)))
    );
    assert!(!router.subscribe("a/+", subscriber(2, 0)).first_local);
    assert!(router.add_remote("a/+", NodeIndex(3)) && !router.add_remote("a/+", NodeIndex(3)));
    assert_eq!(router.unsubscribe("a/+", key(9)), Unsubscribed::default());
    assert_eq!(router.unsubscribe("b", key(1)), Unsubscribed::default());
    let gone = router.unsubscribe("a/+", key(1));
    assert_eq!(
        (gone.removed, gone.last_local),
        (Some(subscriber(1, 7)), false)
    );
    assert!(router.has_local("a/+"));
    assert!(router.unsubscribe("a/+", key(2)).last_local);
    assert!(!router.has_local("a/+") && router.has_remote("a/+", NodeIndex(3)));
    let version = router.version();
    assert!(router.remove_remote("a/+", NodeIndex(3)) && router.version() > version);
    assert_eq!(router.filter(first.filter), "");
    assert_eq!(router.usage(), Usage::default());
}

#[test]
fn a_remote_node_appears_once_and_groups_by_themselves() {
    let mut router = Router::new(0);
    for filter in ["a/b", "a/+", "a/#", "x"] {
        for node in [5, 70, 2, 9, 4_000] {
            router.add_remote(filter, NodeIndex(node));
        }
    }
    router.add_member("g1", "a/#", subscriber(1, 0));
    router.set_remote_group("g2", "a/b", NodeIndex(70), 3);
    let mut found = Matches::new();
    for _ in 0..2 {
        router.match_topic("a/b", &mut found);
        found.nodes.sort_unstable();
        assert_eq!(found.nodes, [2, 5, 9, 70, 4_000].map(NodeIndex));
        let mut groups: Vec<&str> = found
            .groups
            .iter()
            .map(|g| router.group(*g).key().group())
            .collect();
        groups.sort_unstable();
        assert_eq!(groups, ["g1", "g2"]);
        assert!(found.local.is_empty() && !found.is_empty());
    }
    router.match_topic("nothing", &mut found);
    assert!(found.is_empty());
    router.remove_node(NodeIndex(70));
    router.match_topic("a/b", &mut found);
    assert_eq!((found.nodes.len(), found.groups.len()), (4, 1));
}

#[test]
fn a_reassigned_subscription_keeps_its_options() {
    let mut router = Router::new(0);
    router.subscribe("a", subscriber(1, 5));
    assert!(router.reassign("a", key(1), key(2)));
    assert!(!router.reassign("a", key(1), key(2)));
    assert_eq!(local_of(&router, "a"), [subscriber(2, 5)]);
    router.subscribe("a", subscriber(1, 6));
    assert!(
        !router.reassign("a", key(1), key(2)),
        "the heir has its own"
    );
    router.add_member("g", "a", subscriber(1, 9));
    assert!(router.reassign_member("g", "a", key(1), key(3)));
    assert!(!router.reassign_member("g", "a", key(1), key(3)));
    let group = router.find_group_ref("g", "a").expect("it has a member");
    assert_eq!(router.group(group).local(), [subscriber(3, 9)]);
}

#[test]
fn what_a_snapshot_did_not_bring_is_swept_though_numbers_are_used_again() {
    let mut router = Router::new(0);
    let node = NodeIndex(1);
    for filter in ["old/1", "old/2", "own"] {
        router.add_remote(filter, node);
    }
    router.subscribe("own", subscriber(1, 0));
    let mut brought = Brought::default();
    assert!(!router.bring_remote("old/1", node, &mut brought));
    assert!(router.bring_remote("new/1", node, &mut brought));
    assert!(router.bring_remote("new/2", node, &mut brought));
    let number = router.filter_id("new/2");
    assert!(router.withdraw_remote("new/2", node, &mut brought));
    assert!(!router.withdraw_remote("new/2", node, &mut brought));
    router.add_remote("new/3", node);
    assert_eq!(router.filter_id("new/3"), number, "else this tests nothing");
    assert_eq!(router.sweep_remote(node, &brought), 3);
    let there = |filter| router.has_remote(filter, node);
    assert!(there("old/1") && there("new/1") && router.has_local("own"));
    assert_eq!((router.usage().routes, router.usage().filters), (3, 3));
}

#[test]
fn long_topics_and_wide_nodes() {
    let mut router = Router::new(0);
    let deep = "x/".repeat(20_000);
    router.subscribe(&format!("{deep}#"), subscriber(1, 1));
    router.subscribe(&format!("{}#", "+/".repeat(20_000)), subscriber(1, 2));
    for n in 0..20_000 {
        router.subscribe(&format!("wide/{n}/+"), subscriber(1, 3));
    }
    assert_eq!(local_of(&router, &format!("{deep}y")).len(), 2);
    assert_eq!(local_of(&router, "wide/19999/x").len(), 1);
    assert_eq!(local_of(&router, "wide/20000/x").len(), 0);
    let filters = router.own_routes(None, usize::MAX);
    assert_eq!(filters.len(), 20_002);
    for filter in filters {
        router.unsubscribe(&filter, key(1));
    }
    assert_eq!(router.usage(), Usage::default());
}

#[test]
fn own_rows_come_in_key_order_page_by_page() {
    let mut router = Router::new(0);
    let mut expected = Vec::new();
    let mut groups = Vec::new();
    for n in 0..300 {
        let filter = format!("f/{}/{}", n % 7, n);
        router.subscribe(&filter, subscriber(1, 0));
        router.add_remote(&format!("{filter}/far"), NodeIndex(1));
        router.add_member(&format!("g{}", n % 5), &filter, subscriber(2, 0));
        router.set_remote_group("far", &filter, NodeIndex(1), 2);
        groups.push((format!("g{}", n % 5), filter.clone(), 1));
        expected.push(filter);
    }
    expected.sort_unstable();
    groups.sort_unstable();
    let mut seen: Vec<String> = Vec::new();
    let mut seen_groups: Vec<(String, String, usize)> = Vec::new();
    for _ in 0..20 {
        seen.extend(router.own_routes(seen.last().cloned().as_deref(), 17));
        let after = seen_groups.last().cloned();
        let after = after
            .as_ref()
            .map(|(group, filter, _)| (&**group, &**filter));
        seen_groups.extend(router.own_groups(after, 17));
    }
    assert_eq!(seen, expected);
    assert_eq!(seen_groups, groups);
    assert_eq!(router.own_routes(None, 0), Vec::<String>::new());
    let mut routes = Vec::new();
    router.for_each_route(|route| routes.push(route));
    assert_eq!(routes.len(), 4 * 300);
    let mut of_one = Vec::new();
    router.for_each_route_of(&expected[0], |route| of_one.push((route.group, route.node)));
    assert_eq!(of_one.len(), 3);
    assert_eq!(of_one[0], (None, None));
}

#[test]
fn pages_of_a_large_table_are_complete_while_it_changes() {
    let mut router = Router::new(0);
    let count = 2 * PAGE_FILTERS + 100;
    let filter = |n: usize| format!("f/{n:06}");
    for n in (0..count).rev() {
        router.subscribe(&filter(n), subscriber(1, 0));
    }
    let mut seen: Vec<String> = Vec::new();
    let mut other: Vec<String> = Vec::new();
    loop {
        let page = router.own_routes(seen.last().cloned().as_deref(), 1_000);
        let done = page.len() < 1_000;
        seen.extend(page);
        if done {
            break;
        }
        // Behind the reader, before it, and right in front of it.
        let n = seen.len();
        router.subscribe(&format!("{}/new", filter(n + 500)), subscriber(1, 0));
        router.subscribe(&format!("{}/new", filter(n / 2)), subscriber(1, 0));
        router.unsubscribe(&filter(n + 600), key(1));
        router.unsubscribe(&filter(n / 2), key(1));
        // A second reader at its own pace.
        let page = router.own_routes(other.last().cloned().as_deref(), 300);
        other.extend(page);
    }
    assert!(seen.is_sorted() && other.is_sorted());
    let seen: BTreeSet<String> = seen.into_iter().collect();
    for own in router.own_routes(None, usize::MAX) {
        assert!(
            seen.contains(&own) || own.ends_with("/new"),
            "{own} was there all the time"
        );
    }
    let new = seen.iter().filter(|own| own.ends_with("/new")).count();
    assert!(
        new >= count / 1_000 - 2,
        "{new} of the new filters before the reader were seen"
    );
    let gone = seen.iter().filter(|own| !router.has_local(own)).count();
    assert!(
        gone <= count / 1_000,
        "only those behind the reader went after they were read"
    );
}

/// A level that is often shared and sometimes odd.
fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(str::to_owned),
        1 => prop_oneof![Just(""), Just("$a"), Just("é"), Just("a-")].prop_map(str::to_owned),
        1 => Just("a-level-that-is-longer-than-is-kept-in-place".to_owned()),
    ]
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has a character", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if multi {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
        .prop_filter("a filter has a character", |filter| !filter.is_empty())
}

#[derive(Clone, Debug)]
enum Op {
    Subscribe(String, u8, u32),
    Unsubscribe(String, u8),
    Reassign(String, u8, u8),
    AddRemote(String, u16),
    RemoveRemote(String, u16),
    Join(u8, String, u8),
    Part(u8, String, u8),
    RemoteGroup(u8, String, u16, u32),
    Sweep(u16, String),
    RemoveNode(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let (n, node, group) = (0..40_u8, 0..6_u16, 0..3_u8);
    prop_oneof![
        6 => (filter(), n.clone(), 0..9_u32).prop_map(|(f, n, id)| Op::Subscribe(f, n, id)),
        4 => (filter(), n.clone()).prop_map(|(f, n)| Op::Unsubscribe(f, n)),
        1 => (filter(), n.clone(), n.clone()).prop_map(|(f, a, b)| Op::Reassign(f, a, b)),
        3 => (filter(), node.clone()).prop_map(|(f, node)| Op::AddRemote(f, node)),
        2 => (filter(), node.clone()).prop_map(|(f, node)| Op::RemoveRemote(f, node)),
        2 => (group.clone(), filter(), n.clone()).prop_map(|(g, f, n)| Op::Join(g, f, n)),
        1 => (group.clone(), filter(), n).prop_map(|(g, f, n)| Op::Part(g, f, n)),
        1 => (group, filter(), node.clone(), 0..3_u32)
            .prop_map(|(g, f, node, count)| Op::RemoteGroup(g, f, node, count)),
        1 => (node.clone(), filter()).prop_map(|(node, f)| Op::Sweep(node, f)),
        1 => node.prop_map(Op::RemoveNode),
    ]
}

/// The router as sets: what it must be equal to.
#[derive(Debug, Default)]
struct Model {
    local: BTreeMap<(String, SubscriberKey), Subscriber>,
    remote: BTreeSet<(String, NodeIndex)>,
    members: BTreeMap<(String, String, SubscriberKey), Subscriber>,
    remote_members: BTreeMap<(String, String, NodeIndex), u32>,
}

fn group_name(n: u8) -> String {
    format!("g{n}")
}

impl Model {
    fn has_local(&self, filter: &str) -> bool {
        self.local.keys().any(|(f, _)| f == filter)
    }

    /// Does the operation to both and compares what is said about it.
    fn apply(&mut self, router: &mut Router, op: &Op) {
        match op {
            Op::Subscribe(f, n, id) => {
                let first = !self.has_local(f);
                let replaced = self.local.insert((f.clone(), key(*n)), subscriber(*n, *id));
                let change = router.subscribe(f, subscriber(*n, *id));
                assert_eq!((change.first_local, change.replaced), (first, replaced));
                assert_eq!(router.filter(change.filter), f);
            }
            Op::Unsubscribe(f, n) => {
                let removed = self.local.remove(&(f.clone(), key(*n)));
                let last_local = removed.is_some() && !self.has_local(f);
                let change = router.unsubscribe(f, key(*n));
                assert_eq!(
                    change,
                    Unsubscribed {
                        removed,
                        last_local
                    }
                );
            }
            Op::Reassign(f, a, b) => self.reassign(router, f, *a, *b),
            Op::AddRemote(f, node) => {
                let added = self.remote.insert((f.clone(), NodeIndex(*node)));
                assert_eq!(router.add_remote(f, NodeIndex(*node)), added);
            }
            Op::RemoveRemote(f, node) => {
                let removed = self.remote.remove(&(f.clone(), NodeIndex(*node)));
                assert_eq!(router.remove_remote(f, NodeIndex(*node)), removed);
            }
            Op::Join(g, f, n) => {
                let at = (group_name(*g), f.clone(), key(*n));
                let replaced = self.members.insert(at, subscriber(*n, 0));
                let change = router.add_member(&group_name(*g), f, subscriber(*n, 0));
                assert_eq!(change.replaced, replaced);
            }
            Op::Part(g, f, n) => {
                let removed = self.members.remove(&(group_name(*g), f.clone(), key(*n)));
                let change = router.remove_member(&group_name(*g), f, key(*n));
                assert_eq!(change.removed, removed);
            }
            Op::RemoteGroup(g, f, node, count) => {
                let at = (group_name(*g), f.clone(), NodeIndex(*node));
                self.remote_members.insert(at.clone(), *count);
                if *count == 0 {
                    self.remote_members.remove(&at);
                }
                router.set_remote_group(&at.0, f, at.2, *count);
            }
            Op::Sweep(node, kept) => {
                let node = NodeIndex(*node);
                self.remote.retain(|(f, n)| *n != node || f == kept);
                let mut brought = Brought::default();
                self.remote.insert((kept.clone(), node));
                router.bring_remote(kept, node, &mut brought);
                router.sweep_remote(node, &brought);
                self.remote_members
                    .retain(|(_, f, n), _| *n != node || f == kept);
                router.sweep_remote_groups(node, |_, f| f == kept);
            }
            Op::RemoveNode(node) => {
                let node = NodeIndex(*node);
                self.remote.retain(|(_, n)| *n != node);
                self.remote_members.retain(|(_, _, n), _| *n != node);
                router.remove_node(node);
            }
        }
    }

    fn reassign(&mut self, router: &mut Router, f: &str, a: u8, b: u8) {
        let free = !self.local.contains_key(&(f.to_owned(), key(b)));
        let moved = free
            .then(|| self.local.remove(&(f.to_owned(), key(a))))
            .flatten();
        if let Some(old) = moved {
            let heir = Subscriber {
                options: old.options,
                ..subscriber(b, 0)
            };
            self.local.insert((f.to_owned(), key(b)), heir);
        }
        assert_eq!(router.reassign(f, key(a), key(b)), moved.is_some());
    }

    fn check_topic(&self, router: &Router, topic: &str, found: &mut Matches) {
        router.match_topic(topic, found);
        let order = |s: &Subscriber| (s.key(), s.options.sub_id());
        found.local.sort_by_key(order);
        let hits = self.local.iter().filter(|((f, _), _)| matches(f, topic));
        let mut local: Vec<Subscriber> = hits.map(|(_, s)| *s).collect();
        local.sort_by_key(order);
        assert_eq!(found.local, local, "{topic}");
        let nodes: BTreeSet<NodeIndex> = self
            .remote
            .iter()
            .filter(|(f, _)| matches(f, topic))
            .map(|(_, n)| *n)
            .collect();
        found.nodes.sort_unstable();
        assert_eq!(
            found.nodes,
            nodes.into_iter().collect::<Vec<_>>(),
            "{topic}"
        );
        let here = self.members.keys().map(|(g, f, _)| (g, f));
        let there = self.remote_members.keys().map(|(g, f, _)| (g, f));
        let groups: BTreeSet<(&str, &str)> = here
            .chain(there)
            .filter(|(_, f)| matches(f, topic))
            .map(|(g, f)| (g.as_str(), f.as_str()))
            .collect();
        let keys = found.groups.iter().map(|g| router.group(*g).key());
        let mut got: Vec<(&str, &str)> = keys.map(|k| (k.group(), k.filter())).collect();
        got.sort_unstable();
        assert_eq!(got, groups.into_iter().collect::<Vec<_>>(), "{topic}");
    }

    fn check_rows(&self, router: &Router) {
        let own: BTreeSet<&String> = self.local.keys().map(|(f, _)| f).collect();
        let own: Vec<String> = own.into_iter().cloned().collect();
        assert_eq!(router.own_routes(None, usize::MAX), own);
        let mut counts: BTreeMap<(&String, &String), usize> = BTreeMap::new();
        for (g, f, _) in self.members.keys() {
            *counts.entry((g, f)).or_default() += 1;
        }
        let row = |((g, f), n): ((&String, &String), usize)| (g.clone(), f.clone(), n);
        let groups: Vec<_> = counts.into_iter().map(row).collect();
        assert_eq!(router.own_groups(None, usize::MAX), groups);
        let usage = router.usage();
        assert_eq!(usage.subscriptions, self.local.len());
        assert_eq!(usage.shared_subscriptions, self.members.len());
        assert_eq!(usage.routes, own.len() + self.remote.len());
    }

    /// Takes everything out again; nothing may be left behind.
    fn empty(&mut self, router: &mut Router) {
        for (f, key) in std::mem::take(&mut self.local).into_keys() {
            router.unsubscribe(&f, key);
        }
        for (f, node) in std::mem::take(&mut self.remote) {
            router.remove_remote(&f, node);
        }
        for (g, f, key) in std::mem::take(&mut self.members).into_keys() {
            router.remove_member(&g, &f, key);
        }
        for (g, f, node) in std::mem::take(&mut self.remote_members).into_keys() {
            router.set_remote_group(&g, &f, node, 0);
        }
        assert_eq!(router.usage(), Usage::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_trie_matches_as_the_naive_matcher(
        filters in prop::collection::btree_set(filter(), 1..40),
        topics in prop::collection::vec(topic(), 1..20),
        seed: u64,
    ) {
        let mut router = Router::new(seed);
        for (id, filter) in filters.iter().enumerate() {
            router.subscribe(filter, subscriber(0, id as u32 + 1));
        }
        for topic in &topics {
            let hit = |(_, f): &(usize, &String)| matches(f, topic);
            let expected: Vec<_> =
                filters.iter().enumerate().filter(hit).map(|(id, _)| Some(id as u32 + 1)).collect();
            let found: Vec<_> =
                local_of(&router, topic).iter().map(|s| s.options.sub_id()).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_router_is_its_model(
        ops in prop::collection::vec(op(), 1..120),
        topics in prop::collection::vec(topic(), 1..6),
        seed: u64,
    ) {
        let mut router = Router::new(seed);
        let mut model = Model::default();
        let mut found = Matches::new();
        for op in &ops {
            model.apply(&mut router, op);
            for topic in &topics {
                model.check_topic(&router, topic, &mut found);
            }
        }
        model.check_rows(&router);
        model.empty(&mut router);
    }

    #[test]
    fn many_subscribers_of_one_filter_keep_their_places(
        ops in prop::collection::vec((0..120_u8, any::<bool>()), 1..400),
    ) {
        let mut router = Router::new(1);
        let mut model = Model::default();
        for (n, add) in ops {
            let op = if add {
                Op::Subscribe("a".to_owned(), n, 1)
            } else {
                Op::Unsubscribe("a".to_owned(), n)
            };
            model.apply(&mut router, &op);
        }
        model.check_topic(&router, "a", &mut Matches::new());
        model.empty(&mut router);
    }
}
