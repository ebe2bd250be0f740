//! Joining: what it does, every reason it is refused for, and every moment it can be killed at.

use dunlin_cluster::{Cookie, JoinStep, NodeName, Operation, OperationError, RestoreError, Write};

use crate::net::{Net, RETAINED, USERS};

#[test]
fn a_joiner_gets_the_cluster_state_and_all_show_both() {
    let mut net = Net::with(1, 2);
    net.put(0, RETAINED, "t", Some("of the cluster"));
    net.put(0, USERS, "admin", Some("of the cluster"));
    net.put(1, RETAINED, "mine", Some("of the joiner"));
    net.put(1, USERS, "admin", Some("of the joiner"));
    net.run(10);
    assert_eq!(net.join(1, 0), Ok(()));
    assert!(net.shows(0, &[0, 1], &[]) && net.shows(1, &[0, 1], &[]));
    net.until_whole();
    assert_eq!(
        net.get(1, RETAINED, "t").as_deref(),
        Some(&b"of the cluster"[..])
    );
    assert_eq!(
        net.get(1, USERS, "admin").as_deref(),
        Some(&b"of the cluster"[..])
    );
    assert_eq!(net.get(1, RETAINED, "mine"), None);
    assert_eq!(
        (
            net.nodes[1].resets,
            net.nodes[1].archives,
            net.nodes[0].resets
        ),
        (1, 1, 0)
    );
    net.check_disks();
}

#[test]
fn a_third_node_may_join_through_any_member() {
    for target in [0, 1] {
        let mut net = Net::clustered(2, 2);
        net.add("emqx3@10.0.0.3");
        net.start(2);
        assert_eq!(net.join(2, target), Ok(()));
        net.until_whole();
        net.check_disks();
        assert!(net.nodes[0].downs.is_empty() && net.nodes[1].downs.is_empty());
    }
}

#[test]
fn a_large_cluster_state_is_copied_whole() {
    let mut net = Net::with(3, 2);
    for row in 0..5_000 {
        net.put(0, RETAINED, &format!("topic/{row}"), Some(&"x".repeat(200)));
    }
    net.put(0, RETAINED, "topic/7", None);
    assert_eq!(net.join(1, 0), Ok(()));
    net.until_whole();
    assert_eq!(net.core(1).table(RETAINED).len(), 4_999);
    net.check_disks();
}

/// 48 MB come from a target to a disk that answers after two seconds.
#[test]
fn a_joiner_takes_no_more_than_its_disk_can_follow() {
    let mut net = Net::with(3, 2);
    for row in 0..600 {
        net.put(0, RETAINED, &format!("{row}"), Some(&"x".repeat(80_000)));
    }
    net.nodes[1].disk_ms = 2_000;
    assert_eq!(net.join(1, 0), Ok(()));
    net.until_whole();
    assert_eq!(net.core(1).table(RETAINED).len(), 600);
    net.run(2_000);
    net.check_disks();
    let most = net.nodes[1].most_unwritten;
    assert!((30_000_000..36_000_000).contains(&most), "{most} bytes");
}

/// While a member is copied, rows come, change and go before and behind the place the copy is at,
/// and routes with them.
#[test]
fn what_changes_on_the_member_during_a_copy_is_on_the_joiner_too() {
    let mut net = Net::with(12, 2);
    for row in 0..20_000 {
        net.put(0, RETAINED, &format!("t/{row:05}"), Some(&"x".repeat(300)));
    }
    for route in 0..100 {
        net.own(0, &format!("r/{route:03}"), Some(""));
    }
    let target = net.nodes[0].name.clone();
    let id = net.operate(1, Operation::Join { target });
    let mut changes = 0;
    for round in 0..10_000 {
        if net.nodes[1].done.contains_key(&id) {
            break;
        }
        if net.nodes[1].disk.is_staging() {
            let at = round * 977 % 20_000;
            net.put(0, RETAINED, &format!("t/{at:05}"), Some("new"));
            net.put(0, RETAINED, &format!("t/{:05}", 19_999 - at), None);
            net.put(0, RETAINED, &format!("t/{at:05}/more"), Some("new"));
            net.own(0, &format!("r/{:03}", round % 100), None);
            net.own(0, &format!("s/{round}"), Some(""));
            changes += 1;
        }
        net.run(1);
    }
    assert_eq!(net.nodes[1].done.get(&id), Some(&Ok(())));
    assert!(changes > 10, "only {changes} fell into the copy");
    net.until_whole();
    net.check_disks();
}

fn refused(net: &mut Net, node: usize, target: &str) -> OperationError {
    let before = net.nodes[node].disk.clone();
    let target = NodeName::parse(target).expect("valid");
    let error = net
        .run_operation(node, Operation::Join { target })
        .expect_err("refused");
    net.run(10);
    let mut after = net.nodes[node].disk.clone();
    after
        .tables
        .retain(|name, rows| !name.starts_with("staging/") || !rows.is_empty());
    assert_eq!(after, before, "{error}");
    assert_eq!((net.nodes[node].resets, net.nodes[node].archives), (0, 0));
    assert!(error.to_string().contains(';'), "a cure in: {error}");
    error
}

#[test]
fn unreachable_targets_are_told_apart() {
    let mut net = Net::with(4, 2);
    let own = net.nodes[1].name.to_string();
    assert!(matches!(
        refused(&mut net, 1, &own),
        OperationError::SelfNode { .. }
    ));
    let error = refused(&mut net, 1, "emqx@nowhere");
    assert!(matches!(error, OperationError::Unresolvable { ref host, .. } if host == "nowhere"));
    net.cut(0, 1);
    let error = refused(&mut net, 1, "emqx1@10.0.0.1");
    assert!(
        matches!(error, OperationError::TimedOut { ms: 5_000, .. }),
        "{error}"
    );
    net.heal(0, 1);
    net.kill(0);
    let error = refused(&mut net, 1, "emqx1@10.0.0.1");
    assert!(matches!(error, OperationError::Refused { ref addr, .. } if addr == "10.0.0.1:4371"));
}

#[test]
fn settings_that_do_not_fit_are_told_apart() {
    let joined = |change: fn(&mut Net)| {
        let mut net = Net::new(5);
        net.add("emqx1@10.0.0.1");
        net.add("emqx2@10.0.0.2");
        change(&mut net);
        net.start(0);
        net.start(1);
        net.put(0, RETAINED, "t", Some("v"));
        net.run(10);
        refused(&mut net, 1, "emqx1@10.0.0.1")
    };
    let error = joined(|net| net.nodes[1].config.cookie = Cookie::new("other"));
    assert!(matches!(error, OperationError::CookieMismatch { .. }));
    let error = joined(|net| net.nodes[1].config.cluster_name = "other".into());
    assert!(
        matches!(error, OperationError::ClusterNameMismatch { ref theirs, .. }
        if theirs == "emqxcl")
    );
    let error = joined(|net| net.nodes[1].skew_ms = 40_000);
    assert!(matches!(
        error,
        OperationError::ClockSkew {
            ms: 39_000..=41_000,
            ..
        }
    ));
    let error = joined(|net| net.nodes[1].config.singleton = true);
    assert!(matches!(error, OperationError::Singleton { node } if node.short() == "emqx2"));
    let error = joined(|net| net.nodes[0].config.singleton = true);
    assert!(matches!(error, OperationError::Singleton { node } if node.short() == "emqx1"));
    let error = joined(|net| net.nodes[1].config.tables[0].rows_max = 0);
    assert!(matches!(
        error,
        OperationError::Aborted { .. } | OperationError::TooLarge { .. }
    ));
}

/// Two nodes of one name exist when a host name resolves differently on different hosts.
#[test]
fn a_name_of_a_running_member_is_taken() {
    let mut net = Net::clustered(6, 2);
    let twin = net.add("emqx2@10.0.0.2");
    net.start(twin);
    net.run(10);
    let error = refused(&mut net, twin, "emqx1@10.0.0.1");
    assert!(
        matches!(error, OperationError::NameTaken { by, .. } if by == net.site(1)),
        "{error}"
    );
}

#[test]
fn a_reinstalled_node_takes_the_place_of_its_dead_self() {
    let mut net = Net::clustered(7, 2);
    net.kill(1);
    net.until(1_000, "stopped", |net| net.shows(0, &[0], &[1]));
    net.nodes[1].disk = crate::net::Disk::default();
    net.start(1);
    assert_eq!(net.join(1, 0), Ok(()));
    net.until_whole();
    assert!(net.shows(0, &[0, 1], &[]));
}

#[test]
fn members_of_one_cluster_are_told_so_in_either_direction() {
    let mut net = Net::clustered(8, 3);
    for (node, target) in [(0, 1), (1, 0), (2, 1)] {
        let error = net.join(node, target).expect_err("refused");
        assert!(matches!(error, OperationError::AlreadyInCluster { .. }));
    }
}

#[test]
fn one_operation_at_a_time() {
    let mut net = Net::with(9, 2);
    let target = net.nodes[0].name.clone();
    let first = net.operate(
        1,
        Operation::Join {
            target: target.clone(),
        },
    );
    let second = net.operate(1, Operation::Join { target });
    net.until_whole();
    net.run(3_000);
    assert_eq!(net.nodes[1].done[&first], Ok(()));
    assert!(matches!(
        net.nodes[1].done[&second],
        Err(OperationError::Busy { .. })
    ));
}

#[test]
fn joining_another_cluster_leaves_the_old_one() {
    let mut net = Net::clustered(10, 3);
    net.add("emqx4@10.0.0.4");
    net.start(3);
    net.put(3, RETAINED, "t", Some("of the other cluster"));
    assert_eq!(net.join(2, 3), Ok(()));
    assert!(
        net.shows(2, &[2, 3], &[]) && net.shows(3, &[2, 3], &[]),
        "{}",
        net.describe()
    );
    assert!(
        net.shows(0, &[0, 1], &[]) && net.shows(1, &[0, 1], &[]),
        "{}",
        net.describe()
    );
    assert_eq!(
        net.get(2, RETAINED, "t").as_deref(),
        Some(&b"of the other cluster"[..])
    );
    net.check_disks();
}

#[test]
fn an_old_member_that_was_away_learns_of_the_departure_later() {
    let mut net = Net::clustered(11, 2);
    net.add("emqx3@10.0.0.3");
    net.start(2);
    net.kill(0);
    net.until(1_000, "down", |net| net.shows(1, &[1], &[0]));
    assert_eq!(net.join(1, 2), Ok(()));
    net.start(0);
    net.until(3_000, "the old cluster is without it", |net| {
        net.shows(0, &[0], &[])
    });
    assert!(net.shows(1, &[1, 2], &[]));
    net.check_disks();
}

#[test]
fn nodes_joining_each_other_end_together() {
    for seed in 0..40 {
        let mut net = Net::with(seed, 2);
        net.delay_ms = seed % 7;
        let names = [net.nodes[0].name.clone(), net.nodes[1].name.clone()];
        let first = net.operate(
            0,
            Operation::Join {
                target: names[1].clone(),
            },
        );
        net.run(seed % 23);
        let second = net.operate(
            1,
            Operation::Join {
                target: names[0].clone(),
            },
        );
        net.until(20_000, "both end", |net| {
            net.nodes[0].done.contains_key(&first) && net.nodes[1].done.contains_key(&second)
        });
        net.until_whole();
        let outcomes = [&net.nodes[0].done[&first], &net.nodes[1].done[&second]];
        assert!(
            outcomes.iter().any(|outcome| outcome.is_ok()),
            "seed {seed}: {outcomes:?}"
        );
        for outcome in outcomes {
            let fine = matches!(
                outcome,
                Ok(()) | Err(OperationError::AlreadyInCluster { .. })
            );
            assert!(fine, "seed {seed}: {outcome:?}");
        }
        net.check_disks();
    }
}

/// Each join leaves the cluster the one before made, so what remains may be two clusters; but never
/// a member that does not know it is one.
#[test]
fn nodes_joining_in_a_circle_end_in_agreement() {
    for seed in 0..20 {
        let mut net = Net::with(seed, 3);
        let names: Vec<_> = net.nodes.iter().map(|n| n.name.clone()).collect();
        for node in 0..3 {
            net.operate(
                node,
                Operation::Join {
                    target: names[(node + 1) % 3].clone(),
                },
            );
        }
        net.until(30_000, "all end", |net| {
            net.nodes.iter().all(|n| !n.done.is_empty())
        });
        net.run(3_000);
        for node in 0..3 {
            let (running, stopped) = net.shown(node);
            assert!(stopped.is_empty(), "seed {seed}\n{}", net.describe());
            let mates = (0..3).filter(|n| running.contains(&names[*n].short().to_owned()));
            for mate in mates {
                assert_eq!(
                    net.shown(mate).0,
                    running,
                    "seed {seed}\n{}",
                    net.describe()
                );
            }
        }
        net.check_disks();
    }
}

#[test]
fn many_nodes_joining_one_at_once_form_one_cluster() {
    let mut net = Net::with(12, 5);
    let target = net.nodes[0].name.clone();
    for node in 1..5 {
        net.operate(
            node,
            Operation::Join {
                target: target.clone(),
            },
        );
    }
    let took = net.until_whole();
    assert!(took < 3_000, "{took} ms");
    net.run(3_000);
    assert!(
        (1..5).all(|n| net.nodes[n].done.values().all(Result::is_ok)),
        "{}",
        net.describe()
    );
    net.check_disks();
}

/// A joiner killed after any durable batch is afterwards in the old state or in the new one.
#[test]
fn a_joiner_may_die_at_every_step() {
    let mut finished = 0;
    for step in 0..60 {
        let mut net = Net::clustered(13, 2);
        net.add("emqx3@10.0.0.3");
        net.start(2);
        net.put(2, RETAINED, "mine", Some("old"));
        for row in 0..40 {
            net.put(0, RETAINED, &format!("t/{row}"), Some(&"x".repeat(20_000)));
        }
        net.run(50);
        net.nodes[2].dies_after = Some(step);
        let target = net.nodes[0].name.clone();
        let id = net.operate(2, Operation::Join { target });
        net.run(4_000);
        if net.nodes[2].core.is_some() {
            assert_eq!(net.nodes[2].done[&id], Ok(()));
            finished += 1;
        } else {
            net.start(2);
            net.run(4_000);
        }
        let rows = net.core(2).table(RETAINED).len();
        if net.get(2, RETAINED, "mine").is_some() {
            assert_eq!(rows, 1, "step {step}: old and whole");
            assert!(net.shows(2, &[2], &[]), "step {step}");
            assert!(net.shows(0, &[0, 1], &[]), "step {step}");
        } else {
            assert_eq!(rows, 40, "step {step}: new and whole");
            assert!(net.is_whole(), "step {step}\n{}", net.describe());
        }
        net.check_disks();
        if finished > 0 {
            assert!(step >= 3, "there were steps to die at: {step}");
            return;
        }
    }
    panic!("the join never finished");
}

#[test]
fn a_target_that_dies_on_the_way_costs_nothing() {
    let mut aborted = 0;
    for after_ms in 0..40 {
        let mut net = Net::clustered(14, 2);
        net.add("emqx3@10.0.0.3");
        net.add("emqx4@10.0.0.4");
        net.start(2);
        net.start(3);
        net.join(3, 2).expect("joins");
        net.put(2, RETAINED, "mine", Some("old"));
        for row in 0..40 {
            net.put(0, RETAINED, &format!("t/{row}"), Some(&"x".repeat(20_000)));
        }
        net.until(10_000, "copied", |net| {
            net.core(1).table(RETAINED).len() == 40
        });
        let target = net.nodes[0].name.clone();
        let id = net.operate(2, Operation::Join { target });
        net.run(after_ms);
        net.kill(0);
        net.run(8_000);
        match net.nodes[2].done.get(&id).expect("ends") {
            Ok(()) => assert!(net.shows(2, &[1, 2], &[0]), "{}", net.describe()),
            Err(OperationError::Aborted { .. } | OperationError::Refused { .. }) => {
                aborted += 1;
                assert!(
                    net.shows(2, &[2, 3], &[]),
                    "after {after_ms}\n{}",
                    net.describe()
                );
                assert!(
                    net.shows(3, &[2, 3], &[]),
                    "after {after_ms}\n{}",
                    net.describe()
                );
                assert!(net.get(2, RETAINED, "mine").is_some());
            }
            Err(other) => panic!("after {after_ms} ms: {other}"),
        }
        net.check_disks();
    }
    assert!(aborted > 0);
}

#[test]
fn a_silent_target_aborts_the_join() {
    let mut net = Net::with(15, 2);
    for row in 0..200 {
        net.put(0, RETAINED, &format!("t/{row}"), Some(&"x".repeat(50_000)));
    }
    let target = net.nodes[0].name.clone();
    let id = net.operate(1, Operation::Join { target });
    net.run(30);
    net.nodes[0].frozen = true;
    let took = net.until(20_000, "ends", |net| net.nodes[1].done.contains_key(&id));
    assert!(took < 10_000, "{took} ms");
    let outcome = net.nodes[1].done[&id].clone();
    assert!(matches!(
        outcome,
        Err(OperationError::Aborted {
            step: JoinStep::Copy,
            ..
        })
    ));
    net.nodes[0].frozen = false;
    net.run(100);
    assert_eq!(net.join(1, 0), Ok(()));
    net.until_whole();
    net.check_disks();
}

#[test]
fn a_disk_or_archive_that_fails_leaves_the_old_state() {
    let mut net = Net::with(16, 2);
    net.put(1, RETAINED, "mine", Some("old"));
    net.run(10);
    net.nodes[1].archive_fails = true;
    let error = net.join(1, 0).expect_err("fails");
    assert!(
        matches!(
            error,
            OperationError::Storage {
                step: JoinStep::Archive,
                ..
            }
        ),
        "{error}"
    );
    net.nodes[1].archive_fails = false;
    net.nodes[1].disk_fails = true;
    let error = net.join(1, 0).expect_err("fails");
    assert!(
        matches!(
            error,
            OperationError::Storage {
                step: JoinStep::Swap,
                ..
            }
        ),
        "{error}"
    );
    net.nodes[1].disk_fails = false;
    assert!(net.get(1, RETAINED, "mine").is_some() && net.shows(1, &[1], &[]));
    assert_eq!(net.join(1, 0), Ok(()));
    net.until_whole();
    net.check_disks();
}

#[test]
fn a_data_directory_is_bound_to_its_name() {
    let mut net = Net::clustered(17, 2);
    net.kill(1);
    let renamed = NodeName::parse("other@10.0.0.2").expect("valid");
    net.nodes[1].config.name = renamed.clone();
    match net.try_start(1) {
        Err(RestoreError::OtherName {
            found,
            configured,
            cure,
        }) => {
            assert_eq!((found.short(), configured), ("emqx2", renamed));
            assert!(cure.contains("emqx2@10.0.0.2"));
        }
        other => panic!("{other:?}"),
    }
    let damaged = Write::Put {
        table: "retained".into(),
        key: "k".into(),
        value: "not a row".into(),
    };
    let Write::Put { table, key, value } = damaged else {
        return;
    };
    net.nodes[0]
        .disk
        .tables
        .entry(table)
        .or_default()
        .insert(key, value);
    net.kill(0);
    assert!(matches!(
        net.try_start(0),
        Err(RestoreError::Damaged { .. })
    ));
}

#[test]
fn equal_seeds_give_equal_effects() {
    let life = |seed| {
        let mut net = Net::clustered(seed, 3);
        net.put(0, RETAINED, "t", Some("v"));
        net.own(1, "route", Some(""));
        net.reset_links(0, 1);
        net.run(1_000);
        net.kill(2);
        net.run(5_000);
        net.start(2);
        net.until_whole();
        std::hash::Hasher::finish(&net.trace)
    };
    assert_eq!(life(18), life(18));
    assert_ne!(life(18), life(19));
}
