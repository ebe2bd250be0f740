//! `cluster.autoheal = false`: the sides of a split stay apart until `cluster heal`.

use dunlin_cluster::Operation;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::net::{Net, RETAINED, USERS};

/// Longer than any suspicion: both sides have given each other up.
const SPLIT_MS: u64 = 8_000;

/// Long enough for every link to be tried many times.
const WHILE_MS: u64 = 20_000;

/// `count` nodes in one cluster that does not heal by itself.
fn cluster(seed: u64, count: usize) -> Net {
    let mut net = Net::new(seed);
    for index in 1..=count {
        let node = net.add(&format!("emqx{index}@10.0.0.{index}"));
        net.nodes[node].config.autoheal = false;
        net.start(node);
    }
    net.run(10);
    for node in 1..count {
        net.join(node, 0).expect("joins");
    }
    net.until_whole();
    net
}

fn cut(net: &mut Net, left: &[usize], right: &[usize]) {
    for (a, b) in pairs(left, right) {
        net.cut(a, b);
    }
}

fn uncut(net: &mut Net, left: &[usize], right: &[usize]) {
    for (a, b) in pairs(left, right) {
        net.heal(a, b);
    }
}

fn pairs(left: &[usize], right: &[usize]) -> Vec<(usize, usize)> {
    let pair = |a: &usize| right.iter().map(|b| (*a, *b)).collect::<Vec<_>>();
    left.iter().flat_map(pair).collect()
}

fn split(net: &mut Net, left: &[usize], right: &[usize]) {
    cut(net, left, right);
    net.run(SPLIT_MS);
    uncut(net, left, right);
}

/// Names shown as held apart, without their hosts.
fn held(net: &Net, node: usize) -> Vec<String> {
    let status = net.core(node).status();
    let names = status.held_apart().map(|name| name.short().to_owned());
    names.collect()
}

fn heal(net: &mut Net, node: usize) {
    assert_eq!(net.run_operation(node, Operation::Heal), Ok(()));
}

#[test]
fn p09_two_sides_stay_apart_until_heal_is_run() {
    for healer in [0, 1] {
        let mut net = cluster(1, 2);
        cut(&mut net, &[0], &[1]);
        net.run(SPLIT_MS);
        assert!(net.shows(0, &[0], &[1]) && held(&net, 0).is_empty());
        net.put(0, USERS, "left", Some("1"));
        net.put(1, USERS, "right", Some("2"));
        net.own(1, "route", Some(""));
        uncut(&mut net, &[0], &[1]);
        net.until(3_000, "both say so", |net| {
            held(net, 0) == ["emqx2"] && held(net, 1) == ["emqx1"]
        });
        net.run(WHILE_MS);
        assert!(net.shows(0, &[0], &[1]) && net.shows(1, &[1], &[0]));
        assert_eq!(net.get(0, USERS, "right"), None);
        assert_eq!(net.get(1, USERS, "left"), None);
        heal(&mut net, healer);
        let took_ms = net.until_whole();
        assert!(took_ms <= 2_000, "{took_ms}");
        assert!(net.get(0, USERS, "right").is_some() && net.get(1, USERS, "left").is_some());
        assert!(held(&net, 0).is_empty() && held(&net, 1).is_empty());
        net.check_disks();
    }
}

#[test]
fn p01_a_blip_resumes_as_ever() {
    let mut net = cluster(2, 2);
    for _ in 0..5 {
        net.cut(0, 1);
        net.run(1_000);
        net.put(0, RETAINED, "t", Some("v"));
        net.heal(0, 1);
        net.until_whole();
        net.run(3_000);
    }
    assert!(net.nodes[0].downs.is_empty() && held(&net, 0).is_empty());
}

#[test]
fn a_killed_member_that_starts_again_is_no_split() {
    let mut net = cluster(3, 3);
    net.kill(2);
    net.run(SPLIT_MS);
    net.start(2);
    net.until_whole();
    // One that vanished without a word comes back as a new process, too.
    cut(&mut net, &[0, 1], &[2]);
    net.run(SPLIT_MS);
    net.kill(2);
    net.start(2);
    uncut(&mut net, &[0, 1], &[2]);
    net.until_whole();
}

#[test]
fn one_heal_anywhere_merges_all_of_five() {
    for healer in [0, 4] {
        let mut net = cluster(4, 5);
        split(&mut net, &[0, 1], &[2, 3, 4]);
        net.put(0, USERS, "left", Some("1"));
        net.put(4, USERS, "right", Some("2"));
        net.run(WHILE_MS);
        assert!(net.shows(1, &[0, 1], &[2, 3, 4]), "{}", net.describe());
        assert!(net.shows(2, &[2, 3, 4], &[0, 1]), "{}", net.describe());
        assert!(net.get(1, USERS, "left").is_some() && net.get(1, USERS, "right").is_none());
        heal(&mut net, healer);
        net.until_whole();
    }
}

#[test]
fn a_member_that_restarts_belongs_to_one_side_and_bridges_nothing() {
    let mut net = cluster(5, 3);
    split(&mut net, &[0], &[1, 2]);
    net.put(0, USERS, "left", Some("1"));
    net.put(1, USERS, "right", Some("2"));
    net.kill(2);
    net.run(100);
    net.start(2);
    net.run(WHILE_MS);
    let (left, right) = (net.get(2, USERS, "left"), net.get(2, USERS, "right"));
    assert!(left.is_none() || right.is_none(), "{}", net.describe());
    assert_eq!(held(&net, 2).len(), 1, "{}", net.describe());
    assert_eq!(net.get(0, USERS, "right"), None);
    assert_eq!(net.get(1, USERS, "left"), None);
    heal(&mut net, 1);
    net.until_whole();
}

#[test]
fn a_restart_of_one_side_merges_it_as_in_emqx() {
    let mut net = cluster(6, 2);
    split(&mut net, &[0], &[1]);
    net.put(1, USERS, "right", Some("2"));
    net.run(WHILE_MS);
    net.kill(1);
    net.start(1);
    net.until_whole();
    assert!(net.get(0, USERS, "right").is_some());
}

#[test]
fn a_heal_run_during_the_cut_holds_for_its_end() {
    let mut net = cluster(7, 2);
    cut(&mut net, &[0], &[1]);
    net.run(SPLIT_MS);
    heal(&mut net, 1);
    uncut(&mut net, &[0], &[1]);
    net.until_whole();
    // And for no later split.
    split(&mut net, &[0], &[1]);
    net.run(WHILE_MS);
    assert_eq!(held(&net, 0), ["emqx2"]);
}

#[test]
fn clocks_that_differ_do_not_make_a_heal_older_than_the_split() {
    for skew_ms in [-20_000, 20_000] {
        let mut net = Net::new(8);
        for index in 1..=2 {
            let node = net.add(&format!("emqx{index}@10.0.0.{index}"));
            net.nodes[node].config.autoheal = false;
        }
        net.nodes[1].skew_ms = skew_ms;
        (0..2).for_each(|node| net.start(node));
        net.run(10);
        net.join(1, 0).expect("joins");
        net.until_whole();
        split(&mut net, &[0], &[1]);
        net.until(3_000, "held apart", |net| !held(net, 0).is_empty());
        heal(&mut net, 1);
        net.until_whole();
    }
}

/// Seed 23971: what its clock had shown as it heard the other side last was later than the heal.
#[test]
fn a_clock_that_was_set_back_does_not_make_a_heal_older_than_the_split() {
    let mut net = cluster(27, 2);
    net.nodes[0].skew_ms = 3_600_000;
    net.run(1_000);
    cut(&mut net, &[0], &[1]);
    // What was on the way has arrived.
    net.run(500);
    net.nodes[0].skew_ms = 0;
    net.run(SPLIT_MS);
    uncut(&mut net, &[0], &[1]);
    net.until(3_000, "held apart", |net| !held(net, 0).is_empty());
    heal(&mut net, 0);
    net.until_whole();
}

#[test]
fn a_member_that_was_stopped_and_goes_on_is_held_apart() {
    let mut net = cluster(9, 3);
    net.nodes[2].frozen = true;
    net.run(SPLIT_MS);
    net.nodes[2].frozen = false;
    net.until(5_000, "all say so", |net| {
        held(net, 2) == ["emqx1", "emqx2"] && held(net, 0) == ["emqx3"] && held(net, 1) == ["emqx3"]
    });
    net.run(WHILE_MS);
    assert!(net.shows(0, &[0, 1], &[2]) && net.shows(2, &[2], &[0, 1]));
    heal(&mut net, 2);
    net.until_whole();
}

#[test]
fn one_node_that_does_not_heal_by_itself_is_enough() {
    let mut net = cluster(10, 2);
    net.kill(1);
    net.nodes[1].config.autoheal = true;
    net.start(1);
    net.until_whole();
    split(&mut net, &[0], &[1]);
    net.run(WHILE_MS);
    assert!(net.shows(0, &[0], &[1]) && net.shows(1, &[1], &[0]));
    heal(&mut net, 1);
    net.until_whole();
}

#[test]
fn a_member_held_apart_may_be_removed_and_hears_it() {
    let mut net = cluster(11, 2);
    split(&mut net, &[0], &[1]);
    net.until(3_000, "held apart", |net| !held(net, 0).is_empty());
    let node = net.nodes[1].name.clone();
    let removed = net.run_operation(0, Operation::ForceLeave { node });
    assert_eq!(removed, Ok(()));
    net.until(3_000, "it stands alone", |net| net.shows(1, &[1], &[]));
    assert!(net.shows(0, &[0], &[]));
}

/// Every node shows its own side as running and the other one as stopped.
fn assert_apart(net: &Net, seed: u64, left: &[usize], right: &[usize]) {
    for (own, others) in [(left, right), (right, left)] {
        for node in own {
            let shows = net.shows(*node, own, others);
            assert!(shows, "seed {seed}, node {node}\n{}", net.describe());
        }
    }
}

/// Restarts a node that has a way only to `mates`, until it has met them.
fn restart_among(net: &mut Net, node: usize, mates: &[usize], others: &[usize]) {
    net.kill(node);
    cut(net, &[node], others);
    net.run(100);
    net.start(node);
    net.until(3_000, "it meets its mates", |net| {
        net.shown(node).0.len() > mates.len()
    });
}

#[test]
fn who_was_only_told_of_a_split_tells_it() {
    for seed in 0..10 {
        let mut net = cluster(seed, 3);
        net.nodes[2].frozen = true;
        net.run(SPLIT_MS);
        net.nodes[2].frozen = false;
        net.until(5_000, "held apart", |net| held(net, 2).len() == 2);
        // A new process that belongs to one side hears of it from the other one.
        restart_among(&mut net, 1, &[0], &[2]);
        uncut(&mut net, &[1], &[2]);
        net.run(WHILE_MS);
        assert_apart(&net, seed, &[0, 1], &[2]);
        heal(&mut net, 2);
        net.until_whole();
    }
}

#[test]
fn who_was_stopped_as_a_split_began_tells_it() {
    for seed in 0..40 {
        let mut net = cluster(seed, 4);
        cut(&mut net, &[0, 1], &[2, 3]);
        // When it goes on, its mate has given the other side up, and its links to it still stand.
        net.run(1_400);
        net.nodes[2].frozen = true;
        net.run(2_000 + seed % 4 * 400);
        net.nodes[2].frozen = false;
        net.run(SPLIT_MS);
        restart_among(&mut net, 1, &[0], &[2, 3]);
        uncut(&mut net, &[1], &[2]);
        net.run(WHILE_MS);
        let shows = net.shows(1, &[0, 1], &[2, 3]);
        assert!(shows, "seed {seed}\n{}", net.describe());
        assert_eq!(held(&net, 1), ["emqx3"], "seed {seed}");
        uncut(&mut net, &[0, 1], &[2, 3]);
        heal(&mut net, 0);
        net.until_whole();
    }
}

#[test]
fn who_let_a_node_in_and_was_split_off_since_is_not_its_side() {
    for seed in 0..10 {
        // All were let in by the first.
        let mut net = cluster(seed, 4);
        cut(&mut net, &[0], &[1, 2, 3]);
        net.run(SPLIT_MS);
        restart_among(&mut net, 3, &[1], &[2]);
        uncut(&mut net, &[0], &[1, 2, 3]);
        net.until(5_000, "on one side", |net| held(net, 3) == ["emqx1"]);
        // It tells the third whom it holds apart.
        uncut(&mut net, &[3], &[2]);
        net.run(WHILE_MS);
        assert_apart(&net, seed, &[1, 2, 3], &[0]);
        heal(&mut net, 3);
        net.until_whole();
    }
}

#[test]
fn a_member_that_only_others_reach_is_on_our_side() {
    for seed in 0..10 {
        let mut net = cluster(seed, 4);
        cut(&mut net, &[0, 1, 3], &[2]);
        net.run(SPLIT_MS);
        // The other side knows none of them but the first, and that one has no link to the second.
        restart_among(&mut net, 1, &[0, 3], &[2]);
        restart_among(&mut net, 3, &[0, 1], &[2]);
        cut(&mut net, &[0], &[1]);
        net.run(3_000);
        uncut(&mut net, &[1], &[2]);
        net.run(WHILE_MS);
        assert_apart(&net, seed, &[0, 1, 3], &[2]);
        uncut(&mut net, &[0, 1, 3], &[0, 1, 2, 3]);
        net.run(5_000);
        heal(&mut net, 1);
        net.until_whole();
    }
}

#[test]
fn a_joiner_of_one_side_keeps_off_the_other() {
    let mut net = cluster(12, 2);
    split(&mut net, &[0], &[1]);
    net.put(1, USERS, "right", Some("2"));
    let joiner = net.add("emqx3@10.0.0.3");
    net.nodes[joiner].config.autoheal = false;
    net.start(joiner);
    net.run(10);
    assert_eq!(net.join(joiner, 0), Ok(()));
    net.run(WHILE_MS);
    assert!(net.shows(joiner, &[0, 2], &[1]), "{}", net.describe());
    assert_eq!(net.get(joiner, USERS, "right"), None);
    heal(&mut net, joiner);
    net.until_whole();
}

#[test]
fn autoclean_removes_nobody_who_is_held_apart() {
    let mut net = cluster(13, 2);
    for node in [0, 1] {
        net.kill(node);
        net.nodes[node].config.autoclean_ms = Some(15_000);
        net.start(node);
    }
    net.until_whole();
    split(&mut net, &[0], &[1]);
    net.run(60_000);
    assert!(net.shows(0, &[0], &[1]) && net.shows(1, &[1], &[0]));
    heal(&mut net, 0);
    net.until_whole();
}

#[test]
fn one_heal_is_enough_for_members_who_believed_each_other_dead() {
    for seed in 0..40 {
        let mut net = cluster(seed, 3);
        net.delay_ms = seed % 4 * 10;
        cut(&mut net, &[0, 1], &[2]);
        net.run(SPLIT_MS);
        // Its new process knows nothing of the split.
        if seed % 2 == 0 {
            net.kill(1);
            net.start(1);
            net.run(2_000);
        }
        uncut(&mut net, &[0, 1], &[2]);
        net.run(WHILE_MS);
        heal(&mut net, (seed % 3) as usize);
        net.run(WHILE_MS);
        net.until_whole();
        let apart = (0..3).flat_map(|node| held(&net, node));
        assert_eq!(apart.collect::<Vec<_>>(), [""; 0], "seed {seed}");
    }
}

/// A split of 3 to 5 nodes whose links return one after the other, and one heal in between.
fn healed_while_links_return(seed: u64) -> Net {
    let mut rng = SmallRng::seed_from_u64(seed);
    let count = rng.random_range(3..=5);
    let mut net = cluster(seed, count);
    net.delay_ms = rng.random_range(0..=60);
    let left: Vec<usize> = (0..rng.random_range(1..count)).collect();
    let right: Vec<usize> = (left.len()..count).collect();
    cut(&mut net, &left, &right);
    // Some have given the other side up by then, or all, or nobody.
    net.run(rng.random_range(2_000..SPLIT_MS));
    let mut steps: Vec<(u64, Option<(usize, usize)>)> = Vec::new();
    for pair in pairs(&left, &right) {
        steps.push((rng.random_range(0..4_000), Some(pair)));
    }
    steps.push((rng.random_range(0..5_000), None));
    steps.sort_unstable();
    let healer = rng.random_range(0..count);
    let restarts = rng.random_bool(0.2).then(|| rng.random_range(0..count));
    let mut now = 0;
    for (at, pair) in steps {
        net.run(at - now);
        now = at;
        match pair {
            Some((a, b)) => net.heal(a, b),
            None => heal(&mut net, healer),
        }
        if let Some(node) = restarts.filter(|_| rng.random_bool(0.2)) {
            net.kill(node);
            net.start(node);
        }
    }
    net
}

#[test]
fn a_heal_lasts_whatever_is_on_the_way_when_links_return() {
    for seed in 0..60 {
        let mut net = healed_while_links_return(seed);
        net.run(WHILE_MS);
        let apart: Vec<_> = (0..net.nodes.len())
            .flat_map(|node| held(&net, node))
            .collect();
        assert_eq!(apart, [""; 0], "seed {seed}\n{}", net.describe());
        net.until_whole();
    }
}
