//! Links and liveness: kills, silence, blips, restarts, duplicate connections, calls.

use bytes::Bytes;
use dunlin_cluster::{
    BootId, CallError, ClusterId, ConnId, Cookie, DownReason, Handshake, Identity, Input, Purpose,
    SiteId,
};

use crate::net::Net;

#[test]
fn a_killed_node_is_shown_stopped_within_a_second() {
    let mut net = Net::clustered(1, 3);
    let site = net.site(2);
    net.run(5_000);
    net.kill(2);
    let took = net.until(1_000, "shown stopped", |net| {
        net.shows(0, &[0, 1], &[2]) && net.shows(1, &[0, 1], &[2])
    });
    assert!(took < 200, "{took} ms");
    assert_eq!(net.nodes[0].downs, [(site, DownReason::Refused)]);
}

#[test]
fn a_restarted_node_is_up_again_everywhere() {
    let mut net = Net::clustered(2, 3);
    net.own(2, "old", Some(""));
    net.until_whole();
    // Of connections made by both ends at once, one is left.
    net.run(500);
    net.kill(2);
    net.until(1_000, "stopped", |net| net.shows(0, &[0, 1], &[2]));
    net.start(2);
    net.own(2, "new", Some(""));
    let took = net.until_whole();
    assert!(took < 1_500, "{took} ms");
}

#[test]
fn a_restart_faster_than_any_detection_is_noticed() {
    let mut net = Net::clustered(3, 2);
    let (site, boot) = (net.site(1), net.nodes[0].up[&net.site(1)].boot);
    net.own(1, "old", Some(""));
    net.until_whole();
    net.kill(1);
    net.start(1);
    net.until_whole();
    assert_ne!(net.nodes[0].up[&site].boot, boot);
    let (down, reason) = net.nodes[0].downs[0];
    assert_eq!(down, site);
    assert!(matches!(
        reason,
        DownReason::Restarted | DownReason::Refused
    ));
}

/// Seed 73767: a greeting of the dead process came when its successor was linked already.
#[test]
fn what_a_dead_process_said_last_does_not_unseat_the_next() {
    for dies_after_ms in (0..1_200).step_by(20) {
        let mut net = Net::clustered(19, 2);
        net.run(2_000);
        net.delay_ms = 100;
        net.reset_links(0, 1);
        net.run(dies_after_ms);
        net.kill(1);
        net.delay_ms = 2;
        net.start(1);
        net.until_whole();
        let downs = net.nodes[0].downs.len();
        net.run(2_000);
        let late = &net.nodes[0].downs[downs..];
        assert!(late.is_empty(), "killed after {dies_after_ms} ms: {late:?}");
    }
}

/// Seed 111149: as above, but to a node that had just started and knew neither process.
#[test]
fn what_a_dead_process_said_last_does_not_keep_the_next_from_a_new_process() {
    for dies_after_ms in (0..1_200).step_by(20) {
        let mut net = Net::clustered(20, 2);
        net.run(2_000);
        net.kill(0);
        net.run(dies_after_ms % 100);
        net.delay_ms = 100;
        net.start(0);
        net.run(dies_after_ms);
        net.kill(1);
        net.delay_ms = 2;
        net.start(1);
        net.until_whole();
        let downs = net.nodes[0].downs.len();
        net.run(2_000);
        net.until_whole();
        let late = &net.nodes[0].downs[downs..];
        assert!(late.is_empty(), "killed after {dies_after_ms} ms: {late:?}");
    }
}

/// Seed 52508: the other side says of each that it is down, as the sides meet.
#[test]
fn members_of_one_side_of_a_split_stay_up_for_each_other_when_it_ends() {
    for seed in 30..40 {
        let mut net = Net::clustered(seed, 5);
        let sides: [&[usize]; 2] = [&[0, 1], &[2, 3, 4]];
        let across = || {
            sides[0]
                .iter()
                .flat_map(|a| sides[1].iter().map(|b| (*a, *b)))
        };
        across().for_each(|(a, b)| net.cut(a, b));
        net.until(6_000, "split", |net| {
            net.shows(0, sides[0], sides[1]) && net.shows(2, sides[1], sides[0])
        });
        // The news of it is on its way round for a while yet; the way between two comes first.
        net.heal(1, 2);
        net.run(1_000);
        across().for_each(|(a, b)| net.heal(a, b));
        net.until_whole();
        net.run(2_000);
        for side in sides {
            for (a, b) in side.iter().flat_map(|a| side.iter().map(|b| (*a, *b))) {
                let other = net.site(b);
                let downs = net.nodes[a].downs.iter().filter(|down| down.0 == other);
                assert_eq!(downs.count(), 0, "seed {seed}: {a} of {b}");
            }
        }
    }
}

#[test]
fn nodes_of_a_cluster_find_each_other_in_every_start_order() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut net = Net::clustered(4, 3);
        for node in 0..3 {
            net.kill(node);
        }
        net.run(60_000);
        for node in order {
            net.start(node);
            net.run(3_000);
        }
        net.until_whole();
    }
}

#[test]
fn a_silent_host_is_down_within_five_seconds() {
    for (seed, count) in [(5, 2), (6, 3), (7, 5)] {
        let mut net = Net::clustered(seed, count);
        net.run(3_000);
        let others: Vec<_> = (1..count).collect();
        for other in &others {
            net.cut(0, *other);
        }
        net.until(5_000, "down", |net| {
            others.iter().all(|n| net.shows(*n, &others, &[0]))
        });
        for other in &others {
            net.heal(0, *other);
        }
        let took = net.until_whole();
        assert!(took < 2_000, "healed after {took} ms");
    }
}

#[test]
fn a_stopped_process_is_down_within_five_seconds_and_comes_back() {
    let mut net = Net::clustered(8, 3);
    net.run(1_000);
    net.nodes[1].frozen = true;
    net.until(5_000, "down", |net| {
        net.shows(0, &[0, 2], &[1]) && net.shows(2, &[0, 2], &[1])
    });
    net.run(30_000);
    net.nodes[1].frozen = false;
    let took = net.until_whole();
    assert!(took < 2_000, "{took} ms");
    assert_eq!(
        net.nodes[1].downs,
        [],
        "it does not take its own pause for theirs"
    );
}

#[test]
fn a_node_restarted_with_its_clock_set_back_is_up_again() {
    let mut net = Net::clustered(16, 3);
    net.run(60_000);
    for node in [0, 1] {
        net.kill(node);
        net.run(3_000);
        net.nodes[node].skew_ms = -30_000;
        net.start(node);
        let took = net.until_whole();
        assert!(took < 2_000, "{took} ms");
    }
}

#[test]
fn a_member_that_does_not_take_us_is_not_dialed_in_a_hurry() {
    let mut net = Net::clustered(17, 2);
    net.kill(1);
    net.run(1_000);
    // The node was restored from a backup of before its join, with a clock of then.
    let other = Net::with(18, 2);
    let joined = net.nodes[1].disk.clone();
    net.nodes[1].disk = other.nodes[1].disk.clone();
    let (meta, restored) = (&joined.tables["meta"], &mut net.nodes[1].disk.tables);
    let site = meta[&Bytes::from_static(b"site")].clone();
    restored.remove("members");
    restored
        .entry("meta".into())
        .or_default()
        .insert("site".into(), site);
    net.nodes[1].skew_ms = -3_600_000;
    net.start(1);
    let dials = net.dials;
    net.run(10_000);
    assert!(net.dials - dials < 25, "{} dials", net.dials - dials);
}

#[test]
fn a_blip_of_a_second_changes_nothing_visible() {
    let mut net = Net::clustered(9, 3);
    net.own(1, "route", Some(""));
    net.until_whole();
    net.run(100);
    let before: Vec<_> = net
        .nodes
        .iter()
        .map(|n| (n.up.clone(), n.snapshots))
        .collect();
    for round in 0..10 {
        net.cut(0, 1);
        net.run(500);
        net.own(1, &format!("during {round}"), Some(""));
        net.run(500);
        net.heal(0, 1);
        net.run(1_500);
    }
    net.until_whole();
    let after: Vec<_> = net
        .nodes
        .iter()
        .map(|n| (n.up.clone(), n.snapshots))
        .collect();
    assert_eq!(before, after);
    assert!(net.nodes.iter().all(|n| n.downs.is_empty()));
}

#[test]
fn reset_connections_change_nothing_visible() {
    let mut net = Net::clustered(10, 2);
    net.own(1, "route", Some(""));
    net.until_whole();
    // Of connections made by both ends at once, one is left.
    net.run(500);
    let (snapshots, site) = (net.nodes[0].snapshots, net.site(1));
    for round in 0..20 {
        net.own(1, &format!("before {round}"), Some(""));
        net.input(
            0,
            Input::Call {
                id: 100 + round,
                to: site,
                payload: Bytes::from_static(b"?"),
                timeout_ms: 5_000,
            },
        );
        net.run(round % 7);
        net.reset_links(0, 1);
        net.own(1, &format!("after {round}"), Some(""));
        net.run(round * 13 % 170);
    }
    net.until_whole();
    net.run(1_000);
    assert_eq!(net.nodes[0].snapshots, snapshots);
    assert!(net.nodes[0].downs.is_empty() && net.nodes[1].downs.is_empty());
    assert!(net.nodes[0].called.values().all(Result::is_ok));
    assert_eq!(net.nodes[1].calls_in.len(), 20);
}

#[test]
fn a_broken_route_between_two_is_the_same_status_everywhere() {
    let mut net = Net::clustered(11, 3);
    net.cut(0, 2);
    for _ in 0..20 {
        net.run(1_000);
        assert!(
            (0..3).all(|n| net.shows(n, &[0, 1, 2], &[])),
            "{}",
            net.describe()
        );
    }
    // But nobody waits for whom it cannot reach.
    assert!(!net.nodes[0].up.contains_key(&net.site(2)));
    assert_eq!(net.nodes[0].downs, [(net.site(2), DownReason::Unlinked)]);
    assert!(net.nodes[1].downs.is_empty());
    net.heal(0, 2);
    let took = net.until_whole();
    assert!(took < 2_000, "{took} ms");
}

#[test]
fn calls_are_answered_time_out_or_end_with_the_node() {
    let mut net = Net::clustered(12, 2);
    let site = net.site(1);
    let call = |id, to, timeout_ms| Input::Call {
        id,
        to,
        payload: Bytes::from_static(b"ping"),
        timeout_ms,
    };
    net.input(0, call(1, site, 1_000));
    let own = net.site(0);
    net.input(0, call(2, own, 1_000));
    net.input(0, call(3, SiteId([9; 16]), 1_000));
    net.run(100);
    assert_eq!(net.nodes[0].called[&1], Ok(Bytes::from_static(b"ping")));
    assert_eq!(net.nodes[0].called[&2], Ok(Bytes::from_static(b"ping")));
    assert_eq!(net.nodes[0].called[&3], Err(CallError::Unreachable));
    net.nodes[1].answers = false;
    net.input(0, call(4, site, 300));
    net.input(0, call(5, site, 60_000));
    net.run(400);
    assert_eq!(net.nodes[0].called[&4], Err(CallError::TimedOut));
    net.kill(1);
    net.run(500);
    assert_eq!(net.nodes[0].called[&5], Err(CallError::Unreachable));
    net.input(0, call(6, site, 1_000));
    assert_eq!(net.nodes[0].called[&6], Err(CallError::Unreachable));
}

#[test]
fn casts_arrive_once() {
    let mut net = Net::clustered(13, 2);
    let to = net.site(1);
    for _ in 0..3 {
        net.input(
            0,
            Input::Cast {
                to,
                payload: Bytes::from_static(b"hello"),
            },
        );
        net.reset_links(0, 1);
        net.run(100);
    }
    assert_eq!(net.nodes[1].casts.len(), 3);
}

#[test]
fn flapping_links_keep_memory_bounded_and_end_whole() {
    let mut net = Net::clustered(14, 3);
    for round in 0..100 {
        net.own(
            0,
            &format!("route {}", round % 10),
            (round % 3 != 0).then_some(""),
        );
        net.cut(0, 1);
        net.run(900 + round * 37 % 6_000);
        net.heal(0, 1);
        net.run(round * 91 % 2_500);
    }
    net.until_whole();
    assert!((0..3).all(|n| net.shows(n, &[0, 1, 2], &[])));
}

fn dial_data(net: &mut Net, cluster: ClusterId, site: SiteId, cookie: &str) {
    let own = net.nodes[1].name.clone();
    let identity = Identity {
        name: own,
        site,
        boot: BootId(1),
        cluster,
        cluster_name: "emqxcl".into(),
        listen_port: 1,
    };
    let now = net.now(1);
    let purpose = Purpose::Data { index: 2 };
    let mut shake = Handshake::dial(&identity, &Cookie::new(cookie), purpose, [7; 32], now, None);
    let conn = ConnId(99_001);
    net.input(
        0,
        Input::Accepted {
            conn,
            from: "test".into(),
        },
    );
    // The answers go nowhere in this net, so they are taken from the core's own effects.
    let mut buf = bytes::BytesMut::new();
    for _ in 0..3 {
        let Some(bytes) = shake.take_output() else {
            return;
        };
        let mut effects = Vec::new();
        let now = net.now(0);
        let core = net.nodes[0].core.as_mut().expect("runs");
        core.handle(now, Input::Received { conn, bytes }, &mut effects);
        for effect in effects {
            match effect {
                dunlin_cluster::Effect::Send { conn: to, bytes } if to == conn => {
                    buf.extend_from_slice(&bytes);
                }
                dunlin_cluster::Effect::HandOff {
                    conn,
                    hello,
                    unread,
                } => {
                    assert_eq!(hello.purpose, Purpose::Data { index: 2 });
                    net.nodes[0].handed.push((conn, unread));
                }
                _ => {}
            }
        }
        drop(shake.receive(&mut buf));
    }
}

#[test]
fn data_links_of_members_are_handed_off_and_of_nobody_else() {
    let mut net = Net::clustered(15, 2);
    let cluster = net.core(0).status().cluster;
    let member = net.site(1);
    dial_data(&mut net, cluster, SiteId([5; 16]), "secret");
    dial_data(&mut net, ClusterId([5; 16]), member, "secret");
    dial_data(&mut net, cluster, member, "wrong");
    assert_eq!(net.nodes[0].handed, []);
    dial_data(&mut net, cluster, member, "secret");
    assert_eq!(net.nodes[0].handed.len(), 1);
}
