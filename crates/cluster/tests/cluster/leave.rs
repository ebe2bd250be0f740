//! Leaving, being removed, coming back.

use dunlin_cluster::{Operation, OperationError, Quorum};

use crate::net::{Net, RETAINED, USERS};

fn force_leave(net: &mut Net, node: usize, target: usize) -> Result<(), OperationError> {
    let target = net.nodes[target].name.clone();
    net.run_operation(node, Operation::ForceLeave { node: target })
}

#[test]
fn a_leaver_stands_alone_with_its_credentials() {
    let mut net = Net::clustered(1, 3);
    net.put(0, USERS, "admin", Some("hash"));
    net.put(0, RETAINED, "t", Some("v"));
    net.until_whole();
    let boot = net.core(2).identity().read().expect("readable").boot;
    assert_eq!(net.run_operation(2, Operation::Leave), Ok(()));
    let alone = net.core(2).identity().read().expect("readable").clone();
    assert!(alone.boot != boot && alone.cluster != net.core(0).status().cluster);
    assert!(net.shows(2, &[2], &[]));
    assert!(
        net.shows(0, &[0, 1], &[]) && net.shows(1, &[0, 1], &[]),
        "{}",
        net.describe()
    );
    assert!(net.get(2, USERS, "admin").is_some());
    assert_eq!(net.get(2, RETAINED, "t"), None);
    assert_eq!(net.nodes[2].archives, net.nodes[2].resets);
    assert!(net.nodes[0].gone.contains(&net.site(2)));
    net.run(15_000);
    assert!(net.shows(0, &[0, 1], &[]) && net.shows(2, &[2], &[]));
    net.check_disks();
    assert_eq!(net.join(2, 0), Ok(()));
    net.until_whole();
}

/// A node of three whose disk takes a tenth of a second leaves, and is written to while its state
/// is archived, while the others are told, and while its tables are replaced.
fn written_to_while_it_leaves(net: &mut Net) -> u64 {
    net.nodes[2].disk_ms = 100;
    net.put(2, RETAINED, "before", Some("v"));
    let leave = net.operate(2, Operation::Leave);
    for (key, ms) in [("archive", 2), ("tell", 28), ("swap", 30)] {
        for table in [RETAINED, USERS] {
            let before = net.nodes[2].unwritten;
            net.put(2, table, key, Some("v"));
            let unwritten = net.nodes[2].unwritten;
            assert!(unwritten > before, "{key}: its batch leaves at once");
        }
        assert!(!net.nodes[2].done.contains_key(&leave), "{key}");
        net.run(ms);
    }
    leave
}

#[test]
fn what_is_written_while_a_node_leaves_goes_with_it() {
    let mut net = Net::clustered(13, 3);
    let leave = written_to_while_it_leaves(&mut net);
    net.run(1_000);
    assert_eq!(net.nodes[2].done[&leave], Ok(()));
    assert_eq!(net.get(2, RETAINED, "before"), None);
    for key in ["archive", "tell", "swap"] {
        for table in [RETAINED, USERS] {
            assert!(net.get(2, table, key).is_some(), "{key} {table:?}");
        }
    }
    assert!(net.shows(2, &[2], &[]) && net.shows(0, &[0, 1], &[]));
    net.check_disks();
}

/// It dies as soon as the disk has taken the last of these writes.
#[test]
fn what_is_durable_while_a_node_leaves_survives_its_death() {
    let mut net = Net::clustered(14, 3);
    let leave = written_to_while_it_leaves(&mut net);
    net.run(75);
    assert!(net.nodes[2].done.contains_key(&leave));
    net.kill(2);
    net.start(2);
    for key in ["archive", "tell", "swap"] {
        for table in [RETAINED, USERS] {
            assert!(net.get(2, table, key).is_some(), "{key} {table:?}");
        }
    }
}

#[test]
fn a_leave_that_its_disk_refuses_changes_nothing() {
    let mut net = Net::clustered(15, 3);
    net.until_whole();
    net.nodes[2].disk_ms = 100;
    let leave = net.operate(2, Operation::Leave);
    net.run(50);
    net.put(2, RETAINED, "swap", Some("v"));
    net.nodes[2].disk_fails = true;
    net.run(60);
    assert!(net.nodes[2].done[&leave].is_err());
    net.nodes[2].disk_fails = false;
    net.run(45);
    assert!(net.get(2, RETAINED, "swap").is_some());
    assert!(net.nodes[2].disk.tables["retained"].contains_key(&b"swap"[..]));
}

#[test]
fn alone_there_is_nothing_to_leave() {
    let mut net = Net::with(2, 1);
    let outcome = net.run_operation(0, Operation::Leave);
    assert_eq!(outcome, Err(OperationError::NotInCluster { node: None }));
}

#[test]
fn a_member_that_was_away_while_the_other_left_learns_it() {
    let mut net = Net::clustered(3, 2);
    net.kill(1);
    net.until(1_000, "down", |net| net.shows(0, &[0], &[1]));
    assert_eq!(net.run_operation(0, Operation::Leave), Ok(()));
    net.start(1);
    net.until(3_000, "it learns", |net| net.shows(1, &[1], &[]));
    assert!(net.shows(0, &[0], &[]));
    assert_eq!(net.join(1, 0), Ok(()));
    net.until_whole();
}

#[test]
fn two_that_remove_each_other_at_once_both_stand_alone() {
    for seed in 0..20 {
        let mut net = Net::clustered(seed, 2);
        let old = net.core(0).status().cluster;
        for (node, target) in [(0, 1), (1, 0)] {
            let node_name = net.nodes[target].name.clone();
            net.operate(node, Operation::ForceLeave { node: node_name });
        }
        net.until(3_000, "both alone", |net| {
            let alone = |node: usize| {
                net.shows(node, &[node], &[]) && net.core(node).status().cluster != old
            };
            alone(0) && alone(1)
        });
        assert_ne!(net.core(0).status().cluster, net.core(1).status().cluster);
        assert_eq!(net.join(1, 0), Ok(()));
        net.until_whole();
    }
}

#[test]
fn force_leave_refuses_what_makes_no_sense() {
    let mut net = Net::clustered(4, 2);
    let own = force_leave(&mut net, 0, 0);
    assert!(matches!(own, Err(OperationError::SelfNode { .. })));
    net.add("emqx9@10.0.0.9");
    let unknown = force_leave(&mut net, 0, 2);
    assert!(matches!(
        unknown,
        Err(OperationError::NotInCluster { node: Some(_) })
    ));
}

#[test]
fn a_running_member_removed_by_another_leaves_and_may_join_again_at_once() {
    let mut net = Net::clustered(5, 3);
    net.put(0, USERS, "admin", Some("hash"));
    net.until_whole();
    let resets = net.nodes[2].resets;
    assert_eq!(force_leave(&mut net, 0, 2), Ok(()));
    assert!(net.shows(0, &[0, 1], &[]));
    net.until(1_000, "it stands alone", |net| net.nodes[2].resets > resets);
    assert!(
        net.shows(2, &[2], &[]) && net.shows(1, &[0, 1], &[]),
        "{}",
        net.describe()
    );
    assert!(net.get(2, USERS, "admin").is_some());
    assert_eq!(net.join(2, 1), Ok(()));
    net.until_whole();
    net.check_disks();
}

#[test]
fn a_join_right_after_the_removal_works() {
    let mut net = Net::clustered(6, 2);
    let target = net.nodes[1].name.clone();
    net.operate(0, Operation::ForceLeave { node: target });
    net.run(6);
    let outcome = net.join(1, 0);
    let early = matches!(outcome, Err(OperationError::AlreadyInCluster { .. }));
    assert!(outcome.is_ok() || early, "{outcome:?}");
    net.run(1_000);
    if early {
        assert_eq!(net.join(1, 0), Ok(()));
    }
    net.until_whole();
}

#[test]
fn a_dead_member_removed_meanwhile_stands_alone_when_it_returns() {
    for meet in [0, 1] {
        let mut net = Net::clustered(7, 3);
        net.kill(2);
        net.until(1_000, "down", |net| net.shows(0, &[0, 1], &[2]));
        assert_eq!(force_leave(&mut net, 0, 2), Ok(()));
        net.until(1_000, "removed", |net| net.shows(1, &[0, 1], &[]));
        // Only one of the others is there to tell it.
        net.kill(1 - meet);
        net.start(2);
        net.until(3_000, "it stands alone", |net| net.shows(2, &[2], &[]));
        assert_eq!(net.nodes[2].archives, net.nodes[2].resets);
        assert_eq!(net.join(2, meet), Ok(()));
        net.start(1 - meet);
        net.until_whole();
        assert!(net.shows(0, &[0, 1, 2], &[]));
        net.check_disks();
    }
}

#[test]
fn a_removal_in_a_split_reaches_the_member_when_the_split_ends() {
    let mut net = Net::clustered(8, 3);
    net.cut(0, 2);
    net.cut(1, 2);
    net.until(6_000, "split", |net| net.shows(0, &[0, 1], &[2]));
    assert_eq!(force_leave(&mut net, 0, 2), Ok(()));
    net.put(2, USERS, "late", Some("v"));
    net.run(1_000);
    net.heal(0, 2);
    net.heal(1, 2);
    net.until(5_000, "it stands alone", |net| net.shows(2, &[2], &[]));
    assert!(net.get(2, USERS, "late").is_some());
    assert_eq!(net.join(2, 0), Ok(()));
    net.until_whole();
}

/// With another one that it can tell, and alone.
#[test]
fn who_could_not_hear_a_member_leave_learns_that_it_left_by_itself() {
    for hears in [true, false] {
        let mut net = Net::clustered(8, 3);
        net.cut(0, 2);
        if hears {
            net.cut(0, 1);
        } else {
            net.cut(1, 2);
        }
        net.until(6_000, "split", |net| !net.shows(0, &[0, 1, 2], &[]));
        net.run(5_000);
        assert_eq!(net.run_operation(2, Operation::Leave), Ok(()));
        net.heal(0, 1);
        net.heal(0, 2);
        net.heal(1, 2);
        net.until(9_000, "it learns", |net| net.shows(0, &[0, 1], &[]));
        assert!(net.nodes[0].gone.contains(&net.site(2)));
        let left = [0, 1].map(|node| net.nodes[node].left.contains(&net.site(2)));
        if hears {
            assert_eq!(left, [true, true]);
        } else {
            assert!(left.contains(&true), "one of them has met it");
        }
        // A member that another one removes has not left.
        assert_eq!(force_leave(&mut net, 0, 1), Ok(()));
        net.until(9_000, "it is gone", |net| net.shows(0, &[0], &[]));
        assert!(!net.nodes[0].left.contains(&net.site(1)));
    }
}

#[test]
fn a_joiner_meets_its_target_wherever_that_is_going() {
    for offset in 0..25 {
        let mut net = Net::clustered(12, 3);
        net.add("emqx4@10.0.0.4");
        net.start(3);
        net.run(100);
        let leave = net.operate(2, Operation::Leave);
        net.run(offset);
        assert_eq!(net.join(3, 2), Ok(()), "after {offset} ms");
        net.run(3_000);
        let together = net.shows(3, &[2, 3], &[]) && net.shows(2, &[2, 3], &[]);
        let left = net.nodes[2].done[&leave].is_ok();
        assert!(left && together, "after {offset} ms\n{}", net.describe());
        assert!(
            net.shows(0, &[0, 1], &[]),
            "after {offset} ms\n{}",
            net.describe()
        );
        net.check_disks();
    }
}

#[test]
fn a_leaver_killed_at_every_step_ends_in_or_out() {
    for step in 0..6 {
        let mut net = Net::clustered(9, 3);
        net.nodes[2].dies_after = Some(step);
        net.operate(2, Operation::Leave);
        net.run(3_000);
        if net.nodes[2].core.is_none() {
            net.start(2);
        }
        net.nodes[2].dies_after = None;
        net.run(3_000);
        let out = net.shows(2, &[2], &[]) && net.shows(0, &[0, 1], &[]);
        assert!(out || net.is_whole(), "step {step}\n{}", net.describe());
        net.check_disks();
    }
}

#[test]
fn a_long_dead_member_is_removed_by_itself_and_may_rejoin() {
    let mut net = Net::new(10);
    for name in ["emqx1@10.0.0.1", "emqx2@10.0.0.2", "emqx3@10.0.0.3"] {
        let node = net.add(name);
        net.nodes[node].config.autoclean_ms = Some(60_000);
        net.start(node);
    }
    net.join(1, 0).expect("joins");
    net.join(2, 0).expect("joins");
    net.until_whole();
    net.kill(2);
    net.run(30_000);
    // The observers restart; the time the member is down goes on counting.
    for node in [0, 1] {
        net.kill(node);
        net.run(100);
        net.start(node);
    }
    assert!(net.shows(0, &[0, 1], &[2]) || net.shows(0, &[0], &[1, 2]));
    net.run(40_000);
    assert!(
        net.shows(0, &[0, 1], &[]) && net.shows(1, &[0, 1], &[]),
        "{}",
        net.describe()
    );
    net.start(2);
    net.until(3_000, "it stands alone", |net| net.shows(2, &[2], &[]));
    assert_eq!(net.join(2, 0), Ok(()));
    net.until_whole();
}

#[test]
fn a_minority_removes_nobody() {
    let mut net = Net::new(11);
    for name in ["emqx1@10.0.0.1", "emqx2@10.0.0.2", "emqx3@10.0.0.3"] {
        let node = net.add(name);
        net.nodes[node].config.autoclean_ms = Some(20_000);
        net.start(node);
    }
    net.join(1, 0).expect("joins");
    net.join(2, 0).expect("joins");
    net.until_whole();
    net.kill(1);
    net.kill(2);
    net.run(60_000);
    assert!(net.shows(0, &[0], &[1, 2]));
}

/// A cluster whose last `dead` members die, after a minute under this configuration.
fn cleaned(count: usize, dead: usize, quorum: Quorum) -> Net {
    let mut net = Net::new(12);
    for index in 1..=count {
        let node = net.add(&format!("emqx{index}@10.0.0.{index}"));
        net.nodes[node].config.autoclean_ms = Some(20_000);
        net.nodes[node].config.autoclean_quorum = quorum;
        net.start(node);
    }
    for node in 1..count {
        net.join(node, 0).expect("joins");
    }
    net.until_whole();
    (count - dead..count).for_each(|node| net.kill(node));
    net.run(60_000);
    net
}

#[test]
fn l19_autoclean_waits_for_the_quorum_that_is_configured() {
    let removed = |count, dead, quorum| {
        let net = cleaned(count, dead, quorum);
        net.shown(0).1.is_empty()
    };
    assert!(removed(2, 1, Quorum::Auto), "one of two removes the other");
    assert!(!removed(2, 1, Quorum::Majority));
    assert!(removed(2, 1, Quorum::None));
    assert!(removed(3, 1, Quorum::Auto) && removed(3, 1, Quorum::Majority));
    assert!(!removed(3, 2, Quorum::Auto) && !removed(3, 2, Quorum::Majority));
    assert!(removed(3, 2, Quorum::None));
    assert!(!removed(4, 2, Quorum::Auto), "half is no majority");
}

#[test]
fn l20_a_member_removed_meanwhile_boots_alone_and_may_join_again() {
    let mut net = cleaned(3, 1, Quorum::Auto);
    assert!(net.shows(0, &[0, 1], &[]) && net.shows(1, &[0, 1], &[]));
    net.start(2);
    net.until(3_000, "it stands alone", |net| net.shows(2, &[2], &[]));
    assert!(net.nodes[2].archives > 0, "its old state is kept");
    assert_eq!(net.join(2, 1), Ok(()));
    net.until_whole();
    net.run(60_000);
    assert!(net.shows(0, &[0, 1, 2], &[]), "and it is not removed again");
}
