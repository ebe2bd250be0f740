//! Discovery: nodes that find each other, whatever the order they come in, and those that must not.

use dunlin_cluster::{
    Cluster, Cookie, Discovered, DiscoveryError, DiscoveryState, Input, K8sAddress, K8sError,
    K8sRule, K8sService, Lookup, NodeName, Operation, OperationError, READY_MAX_MS, Record,
    Service, Strategy,
};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::net::{Net, RETAINED, USERS};

/// How long nodes that start at once may take to be one cluster, milliseconds.
const TOGETHER_MS: u64 = 10_000;

fn name(index: usize) -> String {
    format!("emqx{index}@10.0.0.{index}")
}

fn seeds(names: &[&str]) -> Strategy {
    let parse = |name: &&str| NodeName::parse(name).expect("valid");
    Strategy::Static {
        seeds: names.iter().map(parse).collect(),
    }
}

/// `count` nodes that have each other as seeds; none runs.
fn listed(seed: u64, count: usize) -> Net {
    let mut net = Net::new(seed);
    let names: Vec<_> = (1..=count).map(name).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for name in &names {
        let node = net.add(name);
        net.nodes[node].config.strategy = seeds(&names);
    }
    net
}

fn are_ready(net: &Net) -> bool {
    let mut running = net.nodes.iter().filter_map(|node| node.core.as_ref());
    running.all(Cluster::is_ready)
}

fn together(net: &mut Net) -> u64 {
    net.until(TOGETHER_MS, "one whole cluster", Net::is_whole)
}

/// Each node once it is ready to serve makes its first user, as the broker does.
fn first_users(net: &mut Net) {
    for node in 0..net.nodes.len() {
        let ready = net.nodes[node].core.as_ref().is_some_and(Cluster::is_ready);
        if ready && net.get(node, USERS, "admin").is_none() {
            net.put(node, USERS, "admin", Some("public"));
        }
    }
}

#[test]
fn nodes_that_start_at_once_are_one_cluster_before_they_serve() {
    for count in 2..=5 {
        for seed in 0..40 {
            let mut net = listed(seed, count);
            net.delay_ms = 1 + seed % 20;
            for node in 0..count {
                net.start(node);
            }
            net.until(READY_MAX_MS, "all serve", are_ready);
            let cluster = |node| net.core(node).status().cluster;
            assert!(
                (0..count).all(|node| cluster(node) == cluster(0)),
                "seed {seed}: {count} nodes serve apart\n{}",
                net.describe()
            );
            together(&mut net);
            net.check_disks();
        }
    }
}

/// Real starts are some milliseconds apart, and whoever is first is refused by all others.
#[test]
fn nodes_that_start_nearly_at_once_are_one_cluster_soon() {
    for seed in 0..60 {
        let mut net = listed(seed, 4);
        // Clocks that disagree about who is the eldest.
        for node in 0..4 {
            net.nodes[node].skew_ms = (seed as i64 * 7 + node as i64 * 13) % 40 * 50 - 1_000;
        }
        for (step, node) in [2, 0, 3, 1].into_iter().enumerate() {
            net.start(node);
            net.run((seed * 3 + step as u64 * 11) % 50);
            first_users(&mut net);
        }
        for _ in 0..10 {
            net.run(500);
            first_users(&mut net);
        }
        assert!(are_ready(&net), "seed {seed}");
        together(&mut net);
        net.check_disks();
    }
}

#[test]
fn nodes_that_start_one_after_the_other_join_without_disturbing_anybody() {
    let mut net = listed(1, 4);
    net.start(0);
    net.until(100, "it serves alone at once", are_ready);
    net.put(0, RETAINED, "t", Some("v"));
    for node in 1..4 {
        net.run(700);
        net.start(node);
        net.until(1_000, "joined before it serves", are_ready);
        assert_eq!(net.shown(node).0.len(), node + 1);
        assert_eq!(net.get(node, RETAINED, "t").as_deref(), Some(&b"v"[..]));
    }
    together(&mut net);
    assert_eq!((net.nodes[0].resets, net.nodes[0].archives), (0, 0));
    let resets: Vec<_> = net.nodes.iter().map(|node| node.resets).collect();
    assert_eq!(resets, [0, 1, 1, 1]);
    assert!(net.nodes.iter().all(|node| node.downs.is_empty()));
    net.check_disks();
}

#[test]
fn dead_seeds_do_not_block() {
    let mut net = listed(2, 4);
    // The third is a host that says nothing, the fourth a host without the program.
    net.cut(0, 2);
    net.cut(1, 2);
    net.start(0);
    net.start(1);
    let ready_ms = net.until(READY_MAX_MS, "both serve", are_ready);
    assert!(ready_ms < 2_500, "{ready_ms} ms");
    together(&mut net);
    assert!(net.shows(0, &[0, 1], &[]));
}

#[test]
fn a_late_seed_is_found_by_whoever_is_alone() {
    // Only the first knows of the second.
    let mut net = listed(3, 2);
    net.nodes[1].config.strategy = Strategy::Manual;
    net.start(0);
    net.run(7_000);
    net.start(1);
    net.put(1, RETAINED, "t", Some("data"));
    together(&mut net);
    assert_eq!(net.nodes[1].resets, 0);
}

#[test]
fn one_list_is_enough_for_two_nodes() {
    for seed in 0..10 {
        for strategy in [Strategy::Manual, seeds(&["emqx9@10.0.0.9"])] {
            let mut net = listed(seed, 2);
            net.nodes[1].config.strategy = strategy;
            net.start(1);
            net.start(0);
            together(&mut net);
        }
    }
}

#[test]
fn a_node_with_data_does_not_give_it_up_for_one_that_will_not_come() {
    let mut net = listed(5, 2);
    net.nodes[1].config.strategy = Strategy::Manual;
    net.start(0);
    net.put(0, RETAINED, "t", Some("kept"));
    net.run(100);
    net.start(1);
    net.run(60_000);
    assert!(net.shows(0, &[0], &[]));
    assert_eq!(net.get(0, RETAINED, "t").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn nobody_follows_a_node_that_left() {
    let mut net = listed(16, 3);
    for node in 0..3 {
        net.start(node);
    }
    together(&mut net);
    assert_eq!(net.run_operation(1, Operation::Leave), Ok(()));
    net.put(1, USERS, "alluring", Some("data"));
    net.run(90_000);
    assert!(net.shows(1, &[1], &[]) && net.shows(0, &[0, 2], &[]));
}

/// Simulator seed 400142: a candidate that could not be reached held the decision up, and what the
/// other one had said before it left was taken for true when it had left.
#[test]
fn nobody_follows_a_node_that_left_after_it_was_met() {
    let mut net = listed(16, 3);
    net.start(0);
    net.start(1);
    together(&mut net);
    net.cut(2, 1);
    net.start(2);
    net.run(500);
    assert_eq!(net.run_operation(0, Operation::Leave), Ok(()));
    net.run(30_000);
    assert!(net.shows(0, &[0], &[]) && net.shows(2, &[2], &[]));
    net.heal(2, 1);
    net.run(30_000);
    assert!(net.shows(0, &[0], &[]) && net.shows(1, &[1, 2], &[]));
}

#[test]
fn a_node_that_moved_to_a_higher_cluster_after_it_was_met_is_followed_at_once() {
    let mut net = listed(17, 3);
    let large = net.add(&name(4));
    net.start(large);
    net.start(0);
    net.put(0, USERS, "alluring", Some("data"));
    net.run(100);
    net.cut(2, 1);
    net.start(2);
    net.run(500);
    assert!(net.shows(2, &[2], &[]), "it waits for an answer");
    assert_eq!(net.join(0, large), Ok(()));
    net.until(1_200, "in the same round", |net| {
        net.shows(2, &[0, 2, large], &[])
    });
}

#[test]
fn seeds_that_do_not_name_the_node_itself_are_fine() {
    let mut net = listed(4, 2);
    net.nodes[0].config.strategy = seeds(&[&name(2)]);
    net.nodes[1].config.strategy = seeds(&[&name(1)]);
    net.start(0);
    net.start(1);
    together(&mut net);
}

#[test]
fn a_fresh_node_joins_the_one_with_data_whatever_their_ages() {
    for with_data in [0, 1] {
        let mut net = listed(5, 2);
        for node in 0..2 {
            net.nodes[node].config.strategy = Strategy::Manual;
        }
        net.start(1 - with_data);
        net.run(3_000);
        net.start(with_data);
        net.put(with_data, RETAINED, "t", Some("kept"));
        net.run(10);
        for node in 0..2 {
            net.kill(node);
            net.nodes[node].config.strategy = seeds(&[&name(1), &name(2)]);
            net.start(node);
        }
        together(&mut net);
        assert_eq!(net.get(0, RETAINED, "t").as_deref(), Some(&b"kept"[..]));
        let resets: Vec<_> = net.nodes.iter().map(|node| node.resets).collect();
        assert_eq!(resets[with_data], 0, "{resets:?}");
    }
}

#[test]
fn different_cluster_names_never_merge() {
    let mut net = listed(6, 4);
    for node in [1, 3] {
        net.nodes[node].config.cluster_name = "other".into();
    }
    for node in 0..4 {
        net.start(node);
    }
    net.run(60_000);
    for (node, members) in [(0, [0, 2]), (1, [1, 3]), (2, [0, 2]), (3, [1, 3])] {
        assert!(net.shows(node, &members, &[]), "{}", net.describe());
    }
}

#[test]
fn another_cookie_is_not_joined() {
    let mut net = listed(7, 2);
    net.nodes[1].config.cookie = Cookie::new("other");
    net.start(0);
    net.start(1);
    net.until(1_000, "both serve", are_ready);
    net.run(20_000);
    assert!(net.shows(0, &[0], &[]) && net.shows(1, &[1], &[]));
}

#[test]
fn a_node_that_left_stays_out_until_it_is_told_to_look_again() {
    let mut net = listed(8, 3);
    for node in 0..3 {
        net.start(node);
    }
    together(&mut net);
    assert_eq!(net.core(1).status().discovery, DiscoveryState::On);
    assert_eq!(net.run_operation(1, Operation::Leave), Ok(()));
    assert_eq!(net.core(1).status().discovery, DiscoveryState::Off);
    net.run(60_000);
    assert!(net.shows(1, &[1], &[]) && net.shows(0, &[0, 2], &[]));
    assert_eq!(net.run_operation(1, Operation::EnableDiscovery), Ok(()));
    assert_eq!(net.core(1).status().discovery, DiscoveryState::On);
    together(&mut net);
}

#[test]
fn a_node_that_is_led_back_by_hand_looks_for_others_again() {
    // The lowest site looks on behalf of all, so whichever of the two that is must be on.
    for left in [0, 1] {
        let stayed = 1 - left;
        let mut net = listed(8, 3);
        net.start(0);
        net.start(1);
        together_of(&mut net, &[0, 1]);
        assert_eq!(net.run_operation(left, Operation::Leave), Ok(()));
        let target = net.nodes[stayed].name.clone();
        assert_eq!(net.run_operation(left, Operation::Join { target }), Ok(()));
        assert_eq!(net.core(left).status().discovery, DiscoveryState::On);
        net.cut(0, 2);
        net.cut(1, 2);
        net.start(2);
        net.put(2, RETAINED, "t", Some("it stands higher, so the two come"));
        net.run(10_000);
        net.heal(0, 2);
        net.heal(1, 2);
        together(&mut net);
    }
}

#[test]
fn a_node_that_left_looks_for_others_again_once_somebody_joins_it() {
    let mut net = listed(8, 2);
    net.start(0);
    net.start(1);
    together(&mut net);
    assert_eq!(net.run_operation(0, Operation::Leave), Ok(()));
    let target = net.nodes[0].name.clone();
    assert_eq!(net.run_operation(1, Operation::Join { target }), Ok(()));
    together(&mut net);
    assert_eq!(net.core(0).status().discovery, DiscoveryState::On);
}

#[test]
fn a_restart_switches_discovery_on_again() {
    let mut net = listed(9, 2);
    net.start(0);
    net.start(1);
    together(&mut net);
    assert_eq!(net.run_operation(0, Operation::Leave), Ok(()));
    net.run(30_000);
    assert!(net.shows(0, &[0], &[]));
    net.kill(0);
    net.start(0);
    together(&mut net);
}

#[test]
fn a_node_that_is_sent_away_while_it_runs_stays_away() {
    let mut net = listed(10, 3);
    for node in 0..3 {
        net.start(node);
    }
    together(&mut net);
    let node = net.nodes[2].name.clone();
    assert_eq!(net.run_operation(0, Operation::ForceLeave { node }), Ok(()));
    net.run(60_000);
    assert!(net.shows(2, &[2], &[]) && net.shows(0, &[0, 1], &[]));
}

#[test]
fn a_node_removed_while_it_was_down_comes_back_by_its_strategy() {
    let mut net = listed(11, 3);
    for node in 0..3 {
        net.start(node);
    }
    together(&mut net);
    net.kill(2);
    let node = net.nodes[2].name.clone();
    assert_eq!(net.run_operation(0, Operation::ForceLeave { node }), Ok(()));
    net.run(10_000);
    net.start(2);
    together(&mut net);
    net.check_disks();
}

#[test]
fn a_whole_restart_changes_nothing() {
    let mut net = listed(12, 3);
    for node in 0..3 {
        net.start(node);
    }
    together(&mut net);
    net.put(0, RETAINED, "t", Some("v"));
    net.run(100);
    let cluster = net.core(0).status().cluster;
    for node in 0..3 {
        net.kill(node);
    }
    for node in [1, 2, 0] {
        net.nodes[node].resets = 0;
        net.start(node);
        assert!(net.core(node).is_ready(), "a member waits for nobody");
    }
    together(&mut net);
    net.run(60_000);
    for node in 0..3 {
        assert_eq!(net.core(node).status().cluster, cluster);
        assert_eq!(net.nodes[node].resets, 0);
        assert_eq!(net.get(node, RETAINED, "t").as_deref(), Some(&b"v"[..]));
    }
}

#[test]
fn clusters_that_formed_apart_become_one_and_the_larger_stays() {
    let mut net = listed(13, 5);
    let (small, large) = ([0, 1], [2, 3, 4]);
    for a in small {
        for b in large {
            net.cut(a, b);
        }
    }
    for node in 0..5 {
        net.start(node);
    }
    net.run(20_000);
    assert!(net.shows(0, &small, &[]) && net.shows(2, &large, &[]));
    net.put(0, RETAINED, "t", Some("small"));
    net.put(2, RETAINED, "t", Some("large"));
    for a in small {
        for b in large {
            net.heal(a, b);
        }
    }
    net.until(60_000, "one cluster", Net::is_whole);
    assert_eq!(net.get(0, RETAINED, "t").as_deref(), Some(&b"large"[..]));
    assert!(large.iter().all(|node| net.nodes[*node].archives <= 1));
    net.check_disks();
}

#[test]
fn what_an_operator_wants_goes_before_what_discovery_found() {
    let mut net = listed(14, 3);
    net.nodes[2].config.cluster_name = "other".into();
    net.nodes[0].config.strategy = Strategy::Manual;
    net.start(0);
    net.put(0, RETAINED, "t", Some("v"));
    net.start(1);
    net.until(1_000, "it is about to join", |net| net.dials > 1);
    let target = net.nodes[0].name.clone();
    assert_eq!(net.run_operation(1, Operation::Join { target }), Ok(()));
    together_of(&mut net, &[0, 1]);
}

fn together_of(net: &mut Net, nodes: &[usize]) {
    net.until(TOGETHER_MS, "all shown", |net| {
        nodes.iter().all(|node| net.shows(*node, nodes, &[]))
    });
}

#[test]
fn a_node_that_never_clusters_is_passed_over() {
    let mut net = listed(15, 3);
    net.nodes[2].config.strategy = Strategy::Manual;
    net.nodes[2].config.singleton = true;
    net.start(2);
    net.put(2, RETAINED, "t", Some("alluring"));
    net.start(0);
    net.start(1);
    net.until(READY_MAX_MS + 100, "they serve", are_ready);
    net.run(40_000);
    assert!(net.shows(2, &[2], &[]));
    assert!(net.shows(0, &[0, 1], &[]), "{}", net.describe());
}

// --- dns ---

fn dns(record: Record) -> Strategy {
    Strategy::LookUp(Lookup::Dns {
        name: "nodes.test".into(),
        record,
    })
}

fn in_dns(seed: u64, count: usize, record: Record) -> Net {
    let mut net = Net::new(seed);
    let mut hosts = Vec::new();
    for index in 1..=count {
        let host = match record {
            Record::A => format!("10.0.0.{index}"),
            Record::Aaaa => format!("fd00::{index}"),
            Record::Srv => format!("s{index}.test"),
        };
        let node = net.add(&format!("emqx@{host}"));
        net.nodes[node].config.strategy = dns(record);
        hosts.push(host);
    }
    net.answers.insert("nodes.test".into(), Ok(hosts));
    net
}

/// The members of the node's cluster.
fn count_of(net: &Net, node: usize) -> usize {
    net.core(node).status().members.len()
}

#[test]
fn hosts_of_a_dns_name_are_nodes_with_the_own_short_name() {
    for record in [Record::A, Record::Aaaa, Record::Srv] {
        let mut net = in_dns(20, 3, record);
        for node in 0..3 {
            net.start(node);
        }
        net.until(READY_MAX_MS, "they serve", are_ready);
        assert!((0..3).all(|node| count_of(&net, node) == 3));
        let asked = Lookup::Dns {
            name: "nodes.test".into(),
            record,
        };
        assert!(net.lookups.iter().all(|(_, lookup)| *lookup == asked));
    }
}

#[test]
fn a_dns_that_is_down_keeps_a_node_from_serving_for_five_seconds_only() {
    let down = DiscoveryError::TimedOut {
        of: Service::Dns,
        ms: 3_000,
    };
    for answer in [None, Some(Err(down))] {
        let mut net = in_dns(21, 2, Record::A);
        let hosts = net.answers.remove("nodes.test").expect("set");
        net.answers
            .extend(answer.map(|answer| ("nodes.test".into(), answer)));
        net.start(0);
        net.start(1);
        let ready_ms = net.until(READY_MAX_MS, "they serve", are_ready);
        assert!(ready_ms >= READY_MAX_MS - 100, "{ready_ms} ms");
        net.run(10_000);
        assert_eq!((count_of(&net, 0), count_of(&net, 1)), (1, 1));
        net.answers.insert("nodes.test".into(), hosts);
        net.until(TOGETHER_MS, "both are one", |net| {
            count_of(net, 0) == 2 && count_of(net, 1) == 2
        });
    }
}

#[test]
fn a_dns_answer_that_shrinks_removes_nobody() {
    let mut net = in_dns(22, 3, Record::A);
    for node in 0..3 {
        net.start(node);
    }
    net.until(READY_MAX_MS, "they serve", are_ready);
    for answer in [vec!["10.0.0.1".to_owned()], vec![]] {
        net.answers.insert("nodes.test".into(), Ok(answer));
        net.run(60_000);
        assert!((0..3).all(|node| count_of(&net, node) == 3));
        assert!(net.nodes.iter().all(|node| node.downs.is_empty()));
    }
}

#[test]
fn hosts_that_cannot_be_part_of_a_name_and_too_many_are_passed_over() {
    let mut net = in_dns(23, 2, Record::Srv);
    let mut hosts = vec!["two words".into(), String::new(), "s2.test.".into()];
    hosts.extend((0..500).map(|n| format!("s2{n}.test")));
    net.answers.insert("nodes.test".into(), Ok(hosts));
    net.start(0);
    net.start(1);
    net.until(TOGETHER_MS, "both are one", |net| count_of(net, 0) == 2);
    assert!(net.dials < 500, "{} dials", net.dials);
}

// --- etcd ---

/// Nodes of these cluster names that share one etcd; none runs.
fn in_etcd(seed: u64, prefix: &str, clusters: &[&str]) -> Net {
    let mut net = Net::new(seed);
    for (index, cluster) in clusters.iter().enumerate() {
        let node = net.add(&format!("emqx@s{index}.test"));
        let config = &mut net.nodes[node].config;
        (*cluster).clone_into(&mut config.cluster_name);
        config.strategy = Strategy::LookUp(Lookup::etcd(prefix, cluster));
    }
    net
}

#[test]
fn keys_in_etcd_are_whole_names_below_the_name_of_the_cluster() {
    let mut net = in_etcd(25, "emqxcl", &["mine", "mine", "other"]);
    for node in 0..3 {
        net.start(node);
    }
    net.until(READY_MAX_MS, "they serve", are_ready);
    together_of(&mut net, &[0, 1]);
    assert!(net.shows(2, &[2], &[]));
    let keys: Vec<_> = net.keys.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "/emqxcl/mine/nodes/emqx@s0.test",
            "/emqxcl/mine/nodes/emqx@s1.test",
            "/emqxcl/other/nodes/emqx@s2.test"
        ]
    );
}

#[test]
fn a_key_of_a_leaver_goes_and_comes_back_when_it_looks_again() {
    let mut net = in_etcd(26, "emqxcl", &["mine"; 3]);
    for node in 0..3 {
        net.start(node);
    }
    together(&mut net);
    assert_eq!(net.run_operation(1, Operation::Leave), Ok(()));
    assert_eq!(net.keys.len(), 2);
    net.run(60_000);
    assert!(net.shows(1, &[1], &[]) && net.shows(0, &[0, 2], &[]));
    assert_eq!(net.run_operation(1, Operation::EnableDiscovery), Ok(()));
    assert_eq!(net.keys.len(), 3);
    together(&mut net);
}

#[test]
fn a_node_that_appears_is_met_at_once() {
    let mut net = in_etcd(27, "emqxcl", &["mine"; 2]);
    net.start(0);
    net.start(1);
    net.cut(0, 1);
    net.run(20_000);
    assert!(net.shows(0, &[0], &[]) && net.shows(1, &[1], &[]));
    // Both have just looked in vain; the next round is seconds away.
    net.heal(0, 1);
    let found = vec![net.nodes[1].name.as_str().to_owned()];
    net.input(0, Input::Discovered(Discovered::Sighted { found }));
    net.until(1_000, "one cluster", Net::is_whole);
}

#[test]
fn an_etcd_that_fails_lets_serve_and_removes_nobody() {
    let mut net = in_etcd(28, "emqxcl", &["mine"; 3]);
    let down = || {
        Err(DiscoveryError::TimedOut {
            of: Service::Etcd,
            ms: 3_000,
        })
    };
    let directory = "/emqxcl/mine/nodes/".to_owned();
    net.answers.insert(directory.clone(), down());
    // Nobody's key can be written either.
    net.start(0);
    net.keys.clear();
    net.start(1);
    net.keys.clear();
    net.until(READY_MAX_MS, "they serve", are_ready);
    net.run(10_000);
    assert!(net.shows(0, &[0], &[]) && net.shows(1, &[1], &[]));
    net.answers.clear();
    net.keys
        .extend((0..2).map(|n| (format!("{directory}emqx@s{n}.test"), n)));
    net.until(TOGETHER_MS, "both are one", |net| {
        net.shows(0, &[0, 1], &[])
    });
    net.answers.insert(directory, down());
    net.run(60_000);
    assert!(net.shows(0, &[0, 1], &[]) && net.shows(1, &[0, 1], &[]));
    assert!(net.nodes.iter().all(|node| node.downs.is_empty()));
}

#[test]
fn a_prefix_may_have_slashes_around_it() {
    for prefix in ["a/b", "/a/b", "a/b/", "/a/b/"] {
        let directory = "/a/b/emqxcl/nodes/".to_owned();
        assert_eq!(Lookup::etcd(prefix, "emqxcl"), Lookup::Etcd { directory });
    }
}

// --- kubernetes ---

/// Three pods called `emqx@10.0.0.N`, whose service names nobody yet.
fn in_kubernetes(seed: u64) -> Net {
    let mut net = Net::new(seed);
    let service = K8sService {
        apiserver: "https://kubernetes.default.svc:443".into(),
        namespace: "mq".into(),
        service_name: "pods".into(),
        address_type: K8sAddress::Ip,
        suffix: String::new(),
    };
    for index in 1..=3 {
        let node = net.add(&format!("emqx@10.0.0.{index}"));
        net.nodes[node].config.strategy = Strategy::LookUp(Lookup::K8s {
            service: service.clone(),
            short: Some("emqx".into()),
        });
    }
    net
}

#[test]
fn end_points_of_both_families_are_each_pod_once() {
    let mut net = in_kubernetes(26);
    let both = (1..=3).flat_map(|n| [format!("10.0.0.{n}"), format!("fd00::{n}")]);
    net.answers.insert("pods".into(), Ok(both.collect()));
    (0..3).for_each(|node| net.start(node));
    net.until(READY_MAX_MS, "they serve", are_ready);
    assert!((0..3).all(|node| count_of(&net, node) == 3));
    assert!(net.dials < 60, "{} dials", net.dials);
}

#[test]
fn what_is_in_the_way_of_a_look_up_is_shown_until_it_is_gone() {
    let mut net = in_kubernetes(28);
    let forbidden = K8sError::Forbidden {
        message: "emqx cannot list".into(),
        namespace: "mq".into(),
        rule: K8sRule::EndpointSlices,
    };
    net.answers
        .insert("pods".into(), Err(forbidden.clone().into()));
    net.start(0);
    net.until(READY_MAX_MS, "it serves", are_ready);
    let shown = net.core(0).status().discovery_failure;
    assert_eq!(shown, Some(forbidden.to_string()));
    net.answers
        .insert("pods".into(), Ok(vec!["10.0.0.1".into()]));
    net.run(10_000);
    assert_eq!(net.core(0).status().discovery_failure, None);
}

// --- multicast ---

/// Nodes in one network; none runs.
fn in_network(seed: u64, count: usize) -> Net {
    let mut net = Net::new(seed);
    for index in 1..=count {
        let node = net.add(&name(index));
        net.nodes[node].config.strategy = Strategy::Multicast;
    }
    net
}

#[test]
fn nodes_that_hear_each_other_are_one_cluster_before_they_serve() {
    for count in 2..=5 {
        for seed in 0..20 {
            let mut net = in_network(seed, count);
            net.delay_ms = 1 + seed % 20;
            for node in 0..count {
                net.start(node);
                net.run(seed % 3);
            }
            net.until(READY_MAX_MS, "all serve", are_ready);
            together(&mut net);
            net.check_disks();
        }
    }
}

#[test]
fn who_is_not_of_the_cluster_is_not_heard() {
    let mut net = in_network(31, 4);
    net.nodes[2].config.cluster_name = "other".into();
    net.nodes[3].config.cookie = Cookie::new("other");
    for node in 0..4 {
        net.start(node);
    }
    net.run(30_000);
    assert!(net.shows(0, &[0, 1], &[]), "{}", net.describe());
    assert!(net.shows(2, &[2], &[]) && net.shows(3, &[3], &[]));
    // Nobody dials whom it did not hear.
    let dials = net.dials;
    net.run(60_000);
    assert_eq!(net.dials, dials);
}

#[test]
fn a_leaver_neither_asks_nor_answers() {
    let mut net = in_network(32, 3);
    for node in 0..3 {
        net.start(node);
    }
    together(&mut net);
    assert_eq!(net.run_operation(1, Operation::Leave), Ok(()));
    net.run(60_000);
    assert!(net.shows(1, &[1], &[]) && net.shows(0, &[0, 2], &[]));
    assert_eq!(net.run_operation(1, Operation::EnableDiscovery), Ok(()));
    together(&mut net);
}

#[test]
fn without_a_strategy_nothing_is_looked_for() {
    let mut net = Net::with(24, 2);
    assert!(are_ready(&net));
    assert_eq!(net.run_operation(0, Operation::EnableDiscovery), Ok(()));
    net.run(60_000);
    assert_eq!((net.dials, net.lookups.len()), (0, 0));
    let state = net.core(0).status().discovery;
    assert_eq!(state, DiscoveryState::Unconfigured);
    let left = net.run_operation(0, Operation::Leave);
    assert_eq!(left, Err(OperationError::NotInCluster { node: None }));
}

// --- everything at once ---

#[test]
fn after_any_storm_seeds_are_one_cluster() {
    const NODES: usize = 4;
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut net = listed(seed, NODES);
        net.delay_ms = rng.random_range(1..30);
        for _ in 0..rng.random_range(10..60) {
            let a = rng.random_range(0..NODES);
            let b = (a + rng.random_range(1..NODES)) % NODES;
            let runs = net.nodes[a].core.is_some();
            match rng.random_range(0..12) {
                0 if runs => net.kill(a),
                1..=4 if !runs => net.start(a),
                5 => net.cut(a, b),
                6 | 7 => net.heal(a, b),
                8 => net.nodes[a].frozen = runs,
                9 => net.nodes[a].frozen = false,
                10 => net.reset_links(a, b),
                11 if runs && !net.nodes[a].frozen => {
                    let key = rng.random_range(0..30).to_string();
                    net.put(a, RETAINED, &key, Some("v"));
                }
                _ => {}
            }
            let pause = [0, 1, 10, 300, 2_500, 6_000][rng.random_range(0..6)];
            net.run(pause);
        }
        for a in 0..NODES {
            net.nodes[a].frozen = false;
            for b in 0..a {
                net.heal(a, b);
            }
            if net.nodes[a].core.is_none() {
                net.start(a);
            }
        }
        net.until(120_000, &format!("one cluster, seed {seed}"), Net::is_whole);
        net.check_disks();
    }
}
