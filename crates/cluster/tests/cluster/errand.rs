//! Looks at other nodes and invitations.

use std::mem::discriminant;

use dunlin_cluster::{Check, Cookie, Operation, OperationError};

use crate::net::Net;

fn look(net: &mut Net, node: usize, target: usize) -> Result<(), OperationError> {
    let target = net.nodes[target].name.clone();
    net.run_operation(node, Operation::Look { target })
}

fn invite(net: &mut Net, node: usize, target: usize) -> Result<(), OperationError> {
    let node_name = net.nodes[target].name.clone();
    let timeout_ms = 15_000;
    let op = Operation::Invite {
        node: node_name,
        timeout_ms,
    };
    net.run_operation(node, op)
}

/// The names of the checks of a node's looks.
fn checks(net: &Net, node: usize) -> Vec<&'static str> {
    let name = |check: &Check| match check {
        Check::Dialed => "dialed",
        Check::Proven { same_cluster, .. } if *same_cluster => "proven, ours",
        Check::Proven { .. } => "proven",
        Check::Admitted => "admitted",
    };
    net.nodes[node].checks.iter().map(name).collect()
}

#[test]
fn a_look_finds_what_a_join_would_and_changes_nothing() {
    let mut net = Net::with(1, 2);
    assert_eq!(look(&mut net, 0, 1), Ok(()));
    assert_eq!(checks(&net, 0), ["dialed", "proven", "admitted"]);
    net.run(10_000);
    assert!(net.shows(0, &[0], &[]) && net.shows(1, &[1], &[]));
    assert_eq!((net.nodes[0].resets, net.nodes[1].resets), (0, 0));
    assert_eq!(net.join(0, 1), Ok(()));
}

#[test]
fn a_look_at_a_member_leaves_its_link_alone() {
    let mut net = Net::clustered(2, 2);
    let downs = net.nodes[0].downs.len() + net.nodes[1].downs.len();
    assert_eq!(look(&mut net, 0, 1), Ok(()));
    assert_eq!(checks(&net, 0), ["dialed", "proven, ours"]);
    net.run(10_000);
    net.until_whole();
    assert_eq!(net.nodes[0].downs.len() + net.nodes[1].downs.len(), downs);
}

#[test]
fn every_fault_is_the_error_a_join_would_end_with() {
    let fault = |change: fn(&mut Net)| {
        let mut net = Net::new(3);
        net.add("emqx1@10.0.0.1");
        net.add("emqx2@10.0.0.2");
        change(&mut net);
        net.start(0);
        net.start(1);
        let looked = look(&mut net, 0, 1).expect_err("it is at fault");
        let joined = net.join(0, 1).expect_err("it is at fault");
        // The milliseconds of a skew may differ by a few.
        assert_eq!(discriminant(&looked), discriminant(&joined));
        looked
    };
    let error = fault(|net| net.nodes[1].config.cookie = Cookie::new("other"));
    assert!(matches!(error, OperationError::CookieMismatch { .. }));
    let error = fault(|net| net.nodes[1].config.cluster_name = "other".into());
    assert!(matches!(error, OperationError::ClusterNameMismatch { .. }));
    let error = fault(|net| net.nodes[1].config.singleton = true);
    assert!(matches!(error, OperationError::Singleton { .. }));
    let error = fault(|net| net.nodes[1].skew_ms = 3_600_000);
    assert!(matches!(error, OperationError::ClockSkew { .. }));
}

#[test]
fn a_look_at_a_silent_host_ends() {
    let mut net = Net::with(4, 2);
    net.cut(0, 1);
    let error = look(&mut net, 0, 1).expect_err("it is cut off");
    assert!(matches!(error, OperationError::TimedOut { .. }), "{error}");
    net.nodes[1].frozen = true;
    net.heal(0, 1);
    let error = look(&mut net, 0, 1).expect_err("it says nothing");
    assert!(matches!(error, OperationError::Aborted { .. }), "{error}");
}

#[test]
fn an_invited_node_joins() {
    let mut net = Net::with(5, 2);
    assert_eq!(invite(&mut net, 0, 1), Ok(()));
    net.until_whole();
    assert!(net.shows(0, &[0, 1], &[]));
    let again = invite(&mut net, 0, 1);
    assert!(matches!(
        again,
        Err(OperationError::AlreadyInCluster { .. })
    ));
    let own = invite(&mut net, 0, 0);
    assert!(matches!(own, Err(OperationError::SelfNode { .. })));
}

#[test]
fn an_invited_member_of_another_cluster_leaves_it() {
    let mut net = Net::clustered(6, 2);
    let third = net.add("emqx3@10.0.0.3");
    net.start(third);
    assert_eq!(invite(&mut net, third, 1), Ok(()));
    net.until(5_000, "it has moved", |net| {
        net.shows(0, &[0], &[]) && net.shows(2, &[1, 2], &[])
    });
}

#[test]
fn who_does_not_want_to_be_invited_says_why() {
    let mut net = Net::new(7);
    net.add("emqx1@10.0.0.1");
    net.add("emqx2@10.0.0.2");
    net.nodes[1].config.singleton = true;
    net.start(0);
    net.start(1);
    let error = invite(&mut net, 0, 1).expect_err("it never clusters");
    let OperationError::InviteFailed { why, .. } = &error else {
        panic!("{error}");
    };
    assert!(why.contains("singleton"), "{why}");
    net.run(5_000);
    assert!(net.shows(0, &[0], &[]) && net.shows(1, &[1], &[]));
}
