//! A seed is a run: the same one again, to the byte; and the first seeds hold.

use dunlin_sim::plant::Bug;
use dunlin_sim::{Order, run};

fn hash(seed: u64, bug: Option<Bug>) -> u64 {
    run(&Order {
        seed,
        bug,
        ..Order::default()
    })
    .hash
}

#[test]
fn two_runs_of_a_seed_are_one() {
    for seed in [0, 1, 2, 7, 11] {
        assert_eq!(hash(seed, None), hash(seed, None), "seed {seed}");
    }
    assert_ne!(hash(0, None), hash(1, None));
}

#[test]
fn what_is_not_from_the_seed_shows_in_the_trace() {
    let runs: Vec<u64> = (0..2).map(|_| hash(5, Some(Bug::Unseeded))).collect();
    assert_ne!(runs[0], runs[1]);
}

#[test]
fn the_first_seeds_hold() {
    for seed in 0..40 {
        let report = run(&Order {
            seed,
            ..Order::default()
        });
        assert_eq!(
            report.violation, None,
            "replay: dunlin-sim --seed {seed} --verbose"
        );
    }
}
