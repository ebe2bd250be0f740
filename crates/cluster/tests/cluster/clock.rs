//! Wall clocks that are set while a cluster runs: nothing but a report comes of it.

use dunlin_cluster::{Operation, SKEW_REPORT_MS};

use crate::net::{Net, RETAINED, USERS};

const HOUR_MS: i64 = 3_600_000;

/// Sets a node's wall clock, which it notices with its next input.
fn set_clock(net: &mut Net, node: usize, skew_ms: i64) {
    net.nodes[node].skew_ms = skew_ms;
}

fn write_on_all(net: &mut Net, text: &str) {
    for node in 0..net.nodes.len() {
        net.put(node, RETAINED, &format!("{text}/{node}"), Some(text));
        net.put(node, USERS, "shared", Some(&format!("{text}/{node}")));
    }
}

#[test]
fn a_clock_set_by_hours_and_back_keeps_tables_equal() {
    for by_ms in [5 * HOUR_MS, -5 * HOUR_MS, 24 * 365 * 20 * HOUR_MS] {
        let mut net = Net::clustered(1, 3);
        for (round, skew_ms) in [by_ms, 0, by_ms, 0].into_iter().enumerate() {
            set_clock(&mut net, 1, skew_ms);
            write_on_all(&mut net, &format!("round {round}"));
            let took_ms = net.until_whole();
            assert!(took_ms < 1_000, "{took_ms}");
            net.run(15_000);
        }
        // The last write is the one that stands, whoever made it.
        net.put(0, USERS, "shared", Some("last"));
        net.until_whole();
        assert_eq!(net.get(1, USERS, "shared").as_deref(), Some(&b"last"[..]));
        assert!(net.nodes.iter().all(|node| node.downs.is_empty()));
        assert_eq!(net.core(0).status().skew_refused, 0);
        net.check_disks();
    }
}

#[test]
fn a_clock_set_in_a_split_does_not_break_the_merge() {
    for by_ms in [3 * HOUR_MS, -3 * HOUR_MS] {
        let mut net = Net::clustered(2, 2);
        net.cut(0, 1);
        net.run(8_000);
        set_clock(&mut net, 1, by_ms);
        write_on_all(&mut net, "split");
        net.run(8_000);
        net.heal(0, 1);
        let took_ms = net.until_whole();
        assert!(took_ms < 2_000, "{took_ms}");
        set_clock(&mut net, 1, 0);
        write_on_all(&mut net, "healed");
        net.until_whole();
        net.check_disks();
    }
}

#[test]
fn a_cluster_whose_clock_was_ahead_takes_joiners_and_restarts() {
    let mut net = Net::clustered(3, 2);
    set_clock(&mut net, 1, 10 * HOUR_MS);
    write_on_all(&mut net, "ahead");
    net.until_whole();
    set_clock(&mut net, 1, 0);
    let joiner = net.add("emqx3@10.0.0.3");
    net.start(joiner);
    net.run(10);
    assert_eq!(net.join(joiner, 1), Ok(()));
    net.until_whole();
    (0..3).for_each(|node| net.kill(node));
    (0..3).for_each(|node| net.start(node));
    net.until_whole();
    write_on_all(&mut net, "after");
    net.until_whole();
}

#[test]
fn a_clock_set_forward_removes_nobody() {
    let mut net = Net::clustered(4, 3);
    net.kill(2);
    net.run(60_000);
    for node in [0, 1] {
        set_clock(&mut net, node, 48 * HOUR_MS);
    }
    net.run(60_000);
    assert!(net.shows(0, &[0, 1], &[2]) && net.shows(1, &[0, 1], &[2]));
    // And what is on disk moved along.
    for node in [0, 1] {
        net.kill(node);
        net.start(node);
    }
    net.run(60_000);
    assert!(net.shows(0, &[0, 1], &[2]), "{}", net.describe());
}

#[test]
fn a_member_that_left_unheard_is_dropped_whatever_the_clocks_show() {
    for by_ms in [10 * HOUR_MS, -10 * HOUR_MS] {
        let mut net = Net::clustered(5, 2);
        set_clock(&mut net, 0, by_ms);
        write_on_all(&mut net, "ahead");
        net.until_whole();
        set_clock(&mut net, 0, 0);
        net.kill(1);
        net.until(1_000, "down", |net| net.shows(0, &[0], &[1]));
        assert_eq!(net.run_operation(0, Operation::Leave), Ok(()));
        net.start(1);
        net.until(3_000, "it learns", |net| net.shows(1, &[1], &[]));
        assert_eq!(net.join(1, 0), Ok(()));
        net.until_whole();
    }
}

#[test]
fn clocks_that_differ_are_reported_until_they_do_not() {
    let mut net = Net::clustered(6, 2);
    let ahead = |net: &Net, node: usize| -> i64 {
        let status = net.core(node).status();
        let known = status
            .members
            .iter()
            .find_map(|member| member.clock_ahead_ms);
        known.expect("told when linked")
    };
    assert!(ahead(&net, 0).unsigned_abs() < SKEW_REPORT_MS);
    set_clock(&mut net, 1, 2 * HOUR_MS);
    net.until(25_000, "both know", |net| {
        ahead(net, 0) > HOUR_MS && ahead(net, 1) < -HOUR_MS
    });
    set_clock(&mut net, 1, 0);
    net.until(25_000, "both are content", |net| {
        let content = |node| ahead(net, node).unsigned_abs() < SKEW_REPORT_MS;
        content(0) && content(1)
    });
}

#[test]
fn a_pause_is_not_taken_for_a_clock_that_differs() {
    let mut net = Net::clustered(7, 2);
    net.nodes[1].frozen = true;
    net.run(60_000);
    net.nodes[1].frozen = false;
    for _ in 0..300 {
        net.run(100);
        let status = net.core(1).status();
        let known = status
            .members
            .iter()
            .find_map(|member| member.clock_ahead_ms);
        assert!(
            known.is_none_or(|ms| ms.unsigned_abs() <= SKEW_REPORT_MS),
            "{known:?}"
        );
    }
}
