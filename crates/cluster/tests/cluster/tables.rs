//! Both kinds of replicated state through blips, splits and restarts.

use bytes::Bytes;
use dunlin_cluster::{Applied, Input, MEMBERS, Stamp};

use crate::net::{Net, RETAINED, USERS};

#[test]
fn a_write_reaches_every_member_at_once() {
    let mut net = Net::clustered(1, 3);
    net.put(1, RETAINED, "t", Some("v"));
    let took = net.until(1_000, "everywhere", |net| {
        (0..3).all(|n| net.get(n, RETAINED, "t").is_some())
    });
    assert!(took <= 20, "{took} ms");
    net.put(2, RETAINED, "t", None);
    net.until(1_000, "gone everywhere", |net| {
        (0..3).all(|n| net.get(n, RETAINED, "t").is_none())
    });
    net.until_whole();
    net.check_disks();
}

#[test]
fn a_write_of_another_thread_is_persisted_and_replicated() {
    let mut net = Net::clustered(2, 2);
    let (now, site) = (net.now(0), net.site(0));
    let table = net.core(0).table(RETAINED);
    let hlc = dunlin_cluster::Clock::new().tick(now);
    let stamp = Stamp { hlc, site };
    let applied = table.put(b"t", Some(Bytes::from_static(b"v")), stamp);
    assert_eq!(applied, Applied::Won);
    net.input(
        0,
        Input::Wrote {
            table: RETAINED,
            key: Bytes::from_static(b"t"),
            stamp,
        },
    );
    net.until(100, "replicated", |net| net.get(1, RETAINED, "t").is_some());
    net.check_disks();
}

#[test]
fn both_sides_of_a_split_write_and_then_agree() {
    for seed in 3..13 {
        let mut net = Net::clustered(seed, 3);
        for row in 0..300 {
            net.put(row % 3, RETAINED, &format!("before/{row}"), Some("v"));
        }
        net.until_whole();
        net.cut(0, 1);
        net.cut(0, 2);
        net.until(6_000, "split", |net| net.shows(0, &[0], &[1, 2]));
        for row in 0..300 {
            net.put(row % 3, RETAINED, &format!("during/{row}"), Some("v"));
            net.put(
                row % 3,
                RETAINED,
                &format!("both/{}", row % 50),
                Some(&format!("{row}")),
            );
            if row % 5 == 0 {
                net.put(row % 3, RETAINED, &format!("before/{row}"), None);
            }
            net.run(7);
        }
        net.heal(0, 1);
        net.heal(0, 2);
        let took = net.until_whole();
        assert!(took < 3_000, "{took} ms");
        assert_eq!(net.core(0).table(RETAINED).len(), 300 - 60 + 300 + 50);
        // The latest write of each key won on every side.
        for key in 0..50 {
            let last = Bytes::from(format!("{}", 250 + key));
            assert_eq!(net.get(0, RETAINED, &format!("both/{key}")), Some(last));
        }
        assert!(
            net.nodes.iter().all(|n| n.resets <= 1),
            "nobody is wiped to heal"
        );
        net.check_disks();
    }
}

#[test]
fn a_member_that_was_off_catches_up() {
    let mut net = Net::clustered(20, 3);
    for row in 0..200 {
        net.put(0, RETAINED, &format!("t/{row}"), Some("old"));
    }
    net.until_whole();
    net.kill(2);
    for row in 0..100 {
        let value = (row % 2 == 0).then_some("new");
        net.put(row % 2, RETAINED, &format!("t/{row}"), value);
    }
    net.run(5_000);
    net.start(2);
    let took = net.until_whole();
    assert!(took < 2_000, "{took} ms");
    assert_eq!(net.core(2).table(RETAINED).len(), 150);
    net.check_disks();
}

#[test]
fn everything_survives_a_restart_of_all() {
    let mut net = Net::clustered(21, 3);
    net.put(0, USERS, "admin", Some("hash"));
    net.until_whole();
    net.run(10);
    let digests = net.core(0).table(USERS).digests();
    for node in 0..3 {
        net.kill(node);
    }
    net.start(1);
    net.run(100);
    // One node alone serves at once, with everything.
    assert!(net.get(1, USERS, "admin").is_some() && net.shows(1, &[1], &[0, 2]));
    net.start(0);
    net.start(2);
    net.until_whole();
    assert_eq!(net.core(2).table(USERS).digests(), digests);
    assert_eq!(net.core(2).table(MEMBERS).len(), 3);
}

#[test]
fn node_state_reaches_all_and_is_resumed_by_number() {
    let mut net = Net::clustered(23, 3);
    for row in 0..1_000 {
        net.own(0, &format!("filter/{row}"), Some(""));
    }
    net.until_whole();
    let snapshots: Vec<_> = net.nodes.iter().map(|n| n.snapshots).collect();
    net.cut(0, 1);
    net.run(10_000);
    for row in 0..1_000 {
        net.own(0, &format!("filter/{row}"), (row % 2 == 0).then_some("x"));
    }
    net.heal(0, 1);
    net.until_whole();
    let after: Vec<_> = net.nodes.iter().map(|n| n.snapshots).collect();
    assert_eq!(snapshots, after, "resumed, not copied");
}

#[test]
fn a_peer_too_far_behind_gets_a_snapshot() {
    let mut net = Net::clustered(24, 2);
    net.own(0, "first", Some(""));
    net.until_whole();
    let snapshots = net.nodes[1].snapshots;
    net.cut(0, 1);
    net.run(6_000);
    // More changes than the log keeps.
    for row in 0..70_000 {
        net.own(0, &format!("filter/{}", row % 100), Some(&row.to_string()));
    }
    net.own(0, "first", None);
    net.heal(0, 1);
    net.until_whole();
    assert_eq!(net.nodes[1].snapshots, snapshots + 1);
}

#[test]
fn a_snapshot_cut_short_comes_again_whole() {
    for after_ms in 0..60 {
        let mut net = Net::with(25, 2);
        for row in 0..100 {
            net.own(0, &format!("filter/{row}"), Some(""));
        }
        let target = net.nodes[0].name.clone();
        net.operate(1, dunlin_cluster::Operation::Join { target });
        net.run(after_ms);
        net.reset_links(0, 1);
        net.run(20);
        net.own(0, "late", Some(""));
        net.run(3_000);
        if !net.shows(1, &[0, 1], &[]) {
            net.join(1, 0).expect("joins");
        }
        net.until_whole();
    }
}

#[test]
fn settled_means_that_every_live_member_has_it() {
    let mut net = Net::with(26, 1);
    net.own(0, "alone", Some(""));
    net.run(1);
    assert_eq!(net.nodes[0].settled, 1, "alone it is settled at once");
    let mut net = Net::clustered(27, 3);
    net.own(0, "route", Some(""));
    let number = net.core(0).own_number();
    assert!(net.nodes[0].settled < number);
    let took = net.until(1_000, "settled", |net| net.nodes[0].settled >= number);
    assert!(took <= 20, "{took} ms");
    let key = (0, Bytes::from_static(b"route"));
    assert!((1..3).all(|n| net.nodes[n].seen[&net.site(0)].contains_key(&key)));
    // A silent member holds it up until it is down, and no longer.
    net.cut(0, 2);
    net.cut(1, 2);
    net.own(0, "more", Some(""));
    let number = net.core(0).own_number();
    net.run(300);
    assert!(net.nodes[0].settled < number);
    net.until(5_000, "settled without it", |net| {
        net.nodes[0].settled >= number
    });
}

#[test]
fn a_burst_of_own_changes_is_a_few_messages() {
    let mut net = Net::clustered(28, 2);
    net.run(100);
    let site = net.site(0);
    for row in 0..20_000 {
        net.own(0, &format!("filter/{row}"), Some(""));
    }
    let took = net.until_whole();
    assert!(took < 200, "{took} ms");
    assert_eq!(net.nodes[1].seen[&site].len(), 20_000);
}
