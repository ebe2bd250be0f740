//! Who gives, who gets, how much and when, without a network: see `shard::tests::rebalance` for
//! whole nodes.

use super::*;

fn load(connected: u64, sessions: u64) -> Load {
    Load {
        connected,
        sessions,
    }
}

fn loads(all: &[(&str, Load)]) -> BTreeMap<String, Load> {
    let row = |(node, load): &(&str, Load)| ((*node).to_owned(), *load);
    all.iter().map(row).collect()
}

fn heard(all: &[(&str, Load)]) -> BTreeMap<String, Heard> {
    let row = |(node, load): (String, Load)| (node, Heard::Load(load));
    loads(all).into_iter().map(row).collect()
}

fn options(absolute: u64, relative: f64) -> RebalanceOptions {
    let threshold = Threshold { absolute, relative };
    RebalanceOptions {
        wait_health_check_s: 2,
        conn_evict_rate: 10,
        conn_threshold: threshold,
        wait_takeover_s: 3,
        sess_evict_rate: 4,
        sess_threshold: threshold,
        nodes: Vec::new(),
    }
}

fn start(options: RebalanceOptions, all: &[(&str, Load)]) -> Rebalance {
    Rebalance::start("a".to_owned(), options, &loads(all), 0).expect("it is uneven")
}

fn shares(step: &Step) -> Vec<(&str, u64, u64)> {
    let Step::Orders(orders) = step else {
        panic!("no orders: {step:?}");
    };
    let share = |(node, order): (&String, &Order)| -> (&str, u64, u64) {
        // The node's name lives as long as the step.
        let name: &str = orders.get_key_value(node).expect("it is there").0;
        (name, order.share.connections, order.share.sessions)
    };
    orders.iter().map(share).collect()
}

#[test]
fn defaults_are_emqx_s() {
    let defaults = RebalanceOptions::default();
    let threshold = Threshold {
        absolute: 1_000,
        relative: 1.1,
    };
    assert_eq!(defaults.conn_threshold, threshold);
    assert_eq!(defaults.sess_threshold, threshold);
    assert_eq!(
        (defaults.conn_evict_rate, defaults.sess_evict_rate),
        (500, 500)
    );
    assert_eq!(
        (defaults.wait_health_check_s, defaults.wait_takeover_s),
        (60, 60)
    );
}

#[test]
fn those_with_at_least_the_average_give() {
    let all = [
        ("a", load(90, 0)),
        ("b", load(40, 0)),
        ("c", load(50, 0)),
        ("d", load(20, 0)),
    ];
    let rebalance = start(options(10, 1.1), &all);
    assert_eq!(rebalance.donors().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(rebalance.recipients().collect::<Vec<_>>(), ["b", "d"]);
}

#[test]
fn one_threshold_is_enough_for_both_kinds() {
    let check = |options: RebalanceOptions, a: Load, b: Load, expected: bool| {
        let all = loads(&[("a", a), ("b", b)]);
        let started = Rebalance::start("a".to_owned(), options.clone(), &all, 0);
        assert_eq!(started.is_ok(), expected, "{a:?} {b:?} {options:?}");
    };
    check(options(10, 1.1), load(10, 0), load(0, 0), false);
    check(options(10, 1.1), load(11, 0), load(0, 0), true);
    check(options(10, 1.5), load(150, 0), load(100, 0), false);
    check(options(10, 1.5), load(151, 0), load(100, 0), true);
    // Equal ones have nobody to give to.
    check(options(1, 1.1), load(10, 50), load(10, 0), false);
    // As many clients, about, and many sessions.
    check(options(10, 1.1), load(11, 50), load(10, 0), true);
    let none = BTreeMap::new();
    let started = Rebalance::start("a".to_owned(), options(1, 1.1), &none, 0);
    assert_eq!(started.err(), Some(NothingToBalance));
}

#[test]
fn every_stage_has_its_time() {
    let (mut a, mut b) = (load(40, 0), load(0, 0));
    let mut rebalance = start(options(3, 1.1), &[("a", a), ("b", b)]);
    let mut seen = vec![(0, rebalance.stage())];
    let mut step = rebalance.step(0, &heard(&[]));
    for now_ms in (1_000..30_000).step_by(1_000) {
        let (connections, sessions) = match &step {
            Step::Orders(orders) => (orders["a"].share.connections, orders["a"].share.sessions),
            _ => break,
        };
        // Half of those sent away come back, at the other node.
        a.connected -= connections;
        b.connected += connections / 2;
        a.sessions += connections - connections / 2;
        a.sessions -= sessions;
        b.sessions += sessions;
        step = rebalance.step(now_ms, &heard(&[("a", a), ("b", b)]));
        if seen.last().map(|(_, stage)| *stage) != Some(rebalance.stage()) {
            seen.push((now_ms, rebalance.stage()));
        }
    }
    assert_eq!(step, Step::Done);
    let expected = [
        (0, Stage::WaitHealthCheck),
        (2_000, Stage::EvictingConns),
        // 20 clients at 10 a second.
        (4_000, Stage::WaitTakeover),
        (7_000, Stage::EvictingSessions),
    ];
    assert_eq!(seen, expected);
    // 10 sessions: 6 and 4 are within 3 of each other.
    assert_eq!((a, b), (load(20, 6), load(10, 4)));
}

#[test]
fn nobody_falls_below_an_even_load_for_clients_that_are_on_their_way() {
    let mut rebalance = start(options(1, 1.1), &[("a", load(40, 0)), ("b", load(0, 0))]);
    let away = |connected| heard(&[("a", load(connected, 0)), ("b", load(0, 0))]);
    assert_eq!(shares(&rebalance.step(2_000, &away(40))), [("a", 10, 0)]);
    assert_eq!(shares(&rebalance.step(3_000, &away(30))), [("a", 10, 0)]);
    assert_eq!(shares(&rebalance.step(4_000, &away(20))), [("a", 0, 0)]);
    assert_eq!(rebalance.stage(), Stage::WaitTakeover);
}

#[test]
fn a_donor_below_the_recipients_keeps_its_clients() {
    let all = [("a", load(100, 0)), ("b", load(52, 0)), ("c", load(0, 0))];
    let mut rebalance = start(options(1, 1.1), &all);
    // The average of all is 51, and b is about even already.
    assert_eq!(
        shares(&rebalance.step(2_000, &heard(&all))),
        [("a", 10, 0), ("b", 1, 0)]
    );
}

#[test]
fn whoever_is_lost_ends_it() {
    let all = [("a", load(40, 0)), ("b", load(0, 0))];
    let mut rebalance = start(options(1, 1.1), &all);
    let mut gone = heard(&all);
    gone.insert("b".to_owned(), Heard::Gone);
    assert_eq!(rebalance.step(1_000, &gone), Step::Lost("b".to_owned()));

    let mut rebalance = start(options(1, 1.1), &all);
    let silent = BTreeMap::from([
        ("a".to_owned(), Heard::Load(load(40, 0))),
        ("b".to_owned(), Heard::Nothing),
    ]);
    for now_ms in (1_000..=SILENCE_MAX_MS).step_by(1_000) {
        let step = rebalance.step(now_ms, &silent);
        assert!(matches!(step, Step::Orders(_)), "at {now_ms}: {step:?}");
    }
    assert_eq!(rebalance.step(6_000, &silent), Step::Lost("b".to_owned()));
}

fn order(coordinator: &str) -> Order {
    Order {
        coordinator: coordinator.to_owned(),
        stage: Stage::EvictingConns,
        recipients: vec!["b".to_owned()],
        share: Share::default(),
        rates: Share::default(),
        goals: Averages::default(),
    }
}

#[test]
fn a_donor_obeys_one_coordinator_as_long_as_it_is_heard_of() {
    let mut donor = None;
    assert_eq!(Donor::obey(&mut donor, order("a"), 0), Ok(()));
    assert_eq!(
        Donor::obey(&mut donor, order("c"), 4_000),
        Err("a".to_owned())
    );
    assert_eq!(Donor::obey(&mut donor, order("a"), 4_000), Ok(()));
    let obeys =
        |donor: &Option<Donor>, now_ms| donor.as_ref().is_some_and(|d| !d.is_abandoned(now_ms));
    assert!(obeys(&donor, 9_000));
    assert!(!obeys(&donor, 9_001));
    assert_eq!(Donor::obey(&mut donor, order("c"), 9_001), Ok(()));
}
