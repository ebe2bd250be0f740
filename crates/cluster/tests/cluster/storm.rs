//! Everything at once, from a seed: kills, cuts, freezes, resets, writes, joins, leaves, removals.
//! Afterwards the faults end, and what remains must be whole clusters that agree with themselves.
//! One kind of storm sets wall clocks by hours, one has no autoheal and needs `cluster heal`.

use dunlin_cluster::{MEMBERS, Operation};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::net::{Net, RETAINED, USERS};

const NODES: usize = 4;

fn pair(rng: &mut SmallRng) -> (usize, usize) {
    let a = rng.random_range(0..NODES);
    (a, (a + rng.random_range(1..NODES)) % NODES)
}

fn step(net: &mut Net, rng: &mut SmallRng) {
    let (a, b) = pair(rng);
    let runs = net.nodes[a].core.is_some();
    let target = net.nodes[b].name.clone();
    match rng.random_range(0..24) {
        0 | 1 if runs => net.kill(a),
        2..=4 if !runs => net.start(a),
        5 => net.cut(a, b),
        6..=8 => net.heal(a, b),
        9 => net.nodes[a].frozen = runs,
        10 | 11 => net.nodes[a].frozen = false,
        _ if net.nodes[a].frozen => {}
        12 => net.reset_links(a, b),
        13 | 14 if runs => drop(net.operate(a, Operation::Join { target })),
        15 if runs => drop(net.operate(a, Operation::Leave)),
        16 if runs => drop(net.operate(a, Operation::ForceLeave { node: target })),
        17..=19 => {
            let key = format!("t/{}", rng.random_range(0..30));
            let value = rng
                .random::<bool>()
                .then(|| rng.random::<u32>().to_string());
            let table = if rng.random() { RETAINED } else { USERS };
            net.put(a, table, &key, value.as_deref());
        }
        20..=22 if runs => {
            let key = format!("f/{}", rng.random_range(0..30));
            net.own(a, &key, rng.random::<bool>().then_some(""));
        }
        23 if runs => net.nodes[a].dies_after = Some(rng.random_range(0..5)),
        _ => {}
    }
    let pause = [0, 1, 10, 300, 2_500][rng.random_range(0..5)];
    net.run(pause);
}

fn calm(net: &mut Net) {
    for a in 0..NODES {
        net.nodes[a].frozen = false;
        net.nodes[a].dies_after = None;
        for b in 0..a {
            net.heal(a, b);
        }
    }
    for node in 0..NODES {
        if net.nodes[node].core.is_none() {
            net.start(node);
        }
    }
    net.run(40_000);
}

fn check(net: &mut Net, seed: u64) {
    for a in 0..NODES {
        let (running, stopped) = net.shown(a);
        assert!(
            stopped.is_empty(),
            "seed {seed}: {a} shows a ghost\n{}",
            net.describe()
        );
        for b in 0..NODES {
            if a == b || !running.contains(&net.nodes[b].name.short().to_owned()) {
                continue;
            }
            assert_eq!(
                net.shown(b).0,
                running,
                "seed {seed}: {a}, {b}\n{}",
                net.describe()
            );
            for table in [MEMBERS, RETAINED, USERS] {
                let digests = |n: usize| net.core(n).table(table).digests();
                assert_eq!(digests(a), digests(b), "seed {seed}: {table:?} of {a}, {b}");
            }
            let seen = net.nodes[a]
                .seen
                .get(&net.site(b))
                .cloned()
                .unwrap_or_default();
            assert_eq!(
                seen, net.nodes[b].own,
                "seed {seed}: node state of {b} at {a}"
            );
            assert!(
                net.nodes[a].up.contains_key(&net.site(b)),
                "seed {seed}: {b} up at {a}"
            );
        }
        let known = net.nodes[a].seen.len();
        assert!(
            known < running.len(),
            "seed {seed}: {a} keeps node state of strangers"
        );
    }
    net.check_disks();
}

#[test]
fn after_any_storm_clusters_agree_with_themselves() {
    let seeds: u64 = option_env!("DUNLIN_STORM_SEEDS")
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    let first: u64 = option_env!("DUNLIN_STORM_FIRST")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    for seed in first..first + seeds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut net = Net::with(seed, NODES);
        storm(&mut net, &mut rng, |_, _| {});
        calm(&mut net);
        check(&mut net, seed);
    }
}

fn storm(net: &mut Net, rng: &mut SmallRng, also: impl Fn(&mut Net, &mut SmallRng)) {
    net.delay_ms = rng.random_range(0..30);
    for _ in 0..rng.random_range(10..80) {
        step(net, rng);
        also(net, rng);
    }
}

#[test]
fn clocks_that_are_set_in_a_storm_change_nothing() {
    const HOURS_MS: i64 = 10 * 3_600_000;
    for seed in 1_000..1_040 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut net = Net::with(seed, NODES);
        storm(&mut net, &mut rng, |net, rng| {
            if rng.random_range(0..6) == 0 {
                let node = rng.random_range(0..NODES);
                net.nodes[node].skew_ms = rng.random_range(-HOURS_MS..=HOURS_MS);
            }
        });
        calm(&mut net);
        check(&mut net, seed);
    }
}

#[test]
fn without_autoheal_a_heal_after_the_storm_makes_it_whole() {
    let mut held_apart = 0;
    for seed in 2_000..2_060 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut net = Net::new(seed);
        for index in 1..=NODES {
            let node = net.add(&format!("emqx{index}@10.0.0.{index}"));
            // Where not everybody is configured alike, the cluster does not heal by itself.
            net.nodes[node].config.autoheal = rng.random_range(0..8) == 0;
            net.start(node);
        }
        net.run(10);
        for node in 1..NODES {
            net.operate(
                node,
                Operation::Join {
                    target: net.nodes[0].name.clone(),
                },
            );
            net.run(500);
        }
        storm(&mut net, &mut rng, |_, _| {});
        calm(&mut net);
        // Each cluster there is (some have left) may be held apart in itself.
        for node in 0..NODES {
            let held = net.core(node).status().held_apart().count();
            if held > 0 {
                held_apart += 1;
                net.operate(node, Operation::Heal);
                net.run(10_000);
            }
        }
        net.run(20_000);
        check(&mut net, seed);
    }
    assert!(held_apart > 0, "storms do split clusters");
}
