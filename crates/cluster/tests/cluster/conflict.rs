//! Writes of both sides of a split to one key: who wins, and who hears of it.

use crate::net::{Net, RETAINED, USERS};

/// Splits two nodes (or one from two), lets `write` write, and heals.
fn split(net: &mut Net, write: impl FnOnce(&mut Net)) {
    let others: Vec<_> = (1..net.nodes.len()).collect();
    for other in others.clone() {
        net.cut(0, other);
    }
    net.run(8_000);
    write(net);
    net.run(1_000);
    for other in others {
        net.heal(0, other);
    }
    let took_ms = net.until_whole();
    assert!(took_ms < 2_000, "{took_ms}");
    net.check_disks();
}

fn conflicts(net: &Net) -> Vec<u64> {
    let nodes = 0..net.nodes.len();
    nodes.map(|n| net.core(n).status().conflicts).collect()
}

#[test]
fn p08_the_later_of_two_edits_wins_and_the_other_is_reported_where_it_was_made() {
    let mut net = Net::clustered(1, 3);
    net.put(0, USERS, "admin", Some("old"));
    net.until_whole();
    split(&mut net, |net| {
        net.put(0, USERS, "admin", Some("left"));
        net.run(100);
        net.put(1, USERS, "admin", Some("right"));
    });
    assert_eq!(net.get(0, USERS, "admin").as_deref(), Some(&b"right"[..]));
    assert_eq!(conflicts(&net), [1, 0, 0], "{}", net.describe());
}

#[test]
fn p08_a_deleted_credential_stays_deleted_whatever_the_other_side_did_to_it() {
    for (deletes, edits) in [(0, 1), (1, 0)] {
        for delete_first in [true, false] {
            let mut net = Net::clustered(2, 3);
            net.put(0, USERS, "mallory", Some("old"));
            net.until_whole();
            split(&mut net, |net| {
                if delete_first {
                    net.put(deletes, USERS, "mallory", None);
                    net.run(100);
                }
                net.put(edits, USERS, "mallory", Some("new password"));
                net.run(100);
                net.put(edits, USERS, "mallory", Some("newer password"));
                if !delete_first {
                    net.run(100);
                    net.put(deletes, USERS, "mallory", None);
                }
            });
            for node in 0..3 {
                assert_eq!(net.get(node, USERS, "mallory"), None);
            }
            let told: u64 = conflicts(&net).iter().sum();
            assert!(told > 0, "{}", net.describe());
            // Who makes it anew, having seen that, is not stopped.
            net.put(edits, USERS, "mallory", Some("welcome back"));
            net.until_whole();
            assert!(net.get(deletes, USERS, "mallory").is_some());
        }
    }
}

#[test]
fn writes_of_one_side_alone_and_blips_are_no_conflicts() {
    let mut net = Net::clustered(3, 3);
    net.put(0, USERS, "a", Some("1"));
    net.put(0, RETAINED, "t", Some("1"));
    net.until_whole();
    split(&mut net, |net| {
        net.put(1, USERS, "a", Some("2"));
        net.run(50);
        net.put(2, USERS, "a", Some("3"));
        net.put(0, RETAINED, "t", Some("2"));
    });
    for round in 0..20 {
        net.cut(0, 1);
        net.put(round % 3, USERS, "a", Some(&format!("{round}")));
        net.run(700);
        net.heal(0, 1);
        net.until_whole();
        net.run(2_500);
    }
    for node in [1, 2] {
        net.kill(node);
        net.run(500);
        net.put(0, USERS, "a", Some("while it was away"));
        net.start(node);
        net.until_whole();
        net.run(1_000);
        net.put(node, USERS, "a", Some("back"));
        net.until_whole();
    }
    assert_eq!(conflicts(&net), [0, 0, 0]);
}

#[test]
fn equal_edits_are_no_loss() {
    let mut net = Net::clustered(4, 2);
    split(&mut net, |net| {
        net.put(0, RETAINED, "t", Some("same"));
        net.put(1, RETAINED, "t", Some("same"));
    });
    assert_eq!(conflicts(&net), [0, 0]);
}
