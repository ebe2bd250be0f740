//! Nodes that find each other over TCP.

use std::sync::Arc;

use dunlin_server::admin::{
    AdminError, JoinOutcome, LeaveOutcome, OperationError, Progress, Scope,
};

use super::client::{Client, publish, tcp};
use super::harness::{Node, eventually, free_name};

#[tokio::test]
async fn two_nodes_join_forward_and_leave() {
    let (one, two) = (Node::start("").await, Node::start("").await);
    let mut there = Client::connect(tcp(one.port("tcp:default")).await, "there").await;
    there.subscribe("t/#").await;
    let (progress, mut steps) = Progress::channel();
    let joined = two
        .admin
        .join(&one.name, progress)
        .await
        .expect("the other node runs");
    assert_eq!(joined, JoinOutcome::Joined);
    assert!(steps.recv().await.is_some(), "steps are told");
    for node in [&one, &two] {
        let status = node.admin.cluster_status().await.expect("an answer");
        assert_eq!(status.running.len(), 2, "{status:?}");
    }

    let mut here = Client::connect(tcp(two.port("tcp:default")).await, "here").await;
    here.subscribe("t/here").await;
    let routed = || async {
        let topics = two.admin.topics().await.expect("an answer");
        topics
            .iter()
            .any(|row| row.topic == "t/#" && row.node == one.name)
            .then_some(())
    };
    eventually(routed).await;
    for n in 0..200u8 {
        here.send(&publish("t/here", &[n])).await;
    }
    for n in 0..200u8 {
        assert_eq!(there.packet().await.1.last(), Some(&n));
        assert_eq!(here.packet().await.1.last(), Some(&n));
    }
    let seen = || async {
        let row = one.admin.client(Scope::Cluster, "here").await.ok()?;
        (row.node == two.name).then_some(())
    };
    eventually(seen).await;

    let again = two.admin.join(&one.name, Progress::ignored()).await;
    let again = again.expect_err("they are one cluster already");
    assert!(
        matches!(
            again,
            AdminError::Cluster(OperationError::AlreadyInCluster { .. })
        ),
        "{again:?}"
    );
    let left = two
        .admin
        .leave(Progress::ignored())
        .await
        .expect("it is in a cluster");
    assert_eq!(
        left,
        LeaveOutcome::Left {
            discovery_disabled: false
        }
    );
    let alone = || async {
        let status = one.admin.cluster_status().await.expect("an answer");
        (status.running.len() == 1 && status.stopped.is_empty()).then_some(())
    };
    eventually(alone).await;
    one.stop().await.expect("it started");
    two.stop().await.expect("it started");
}

#[tokio::test]
async fn seeds_find_each_other_before_they_serve_and_stay_out_after_leaving() {
    let names = [free_name(), free_name(), free_name()];
    let text = format!(
        "cluster {{ discovery_strategy = static, static.seeds = \"{}\" }}",
        names.join(",")
    );
    let start = |name: &str| {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let (name, text) = (name.to_owned(), text.clone());
        async move { Node::start_in(dir, &name, &text).await }
    };
    let started = tokio::join!(start(&names[0]), start(&names[1]), start(&names[2]));
    let started: [Result<Node, _>; 3] = started.into();
    let nodes = started.map(|node| node.unwrap_or_else(|exit| panic!("{exit:?}")));
    let running = |node: &Node| {
        let admin = node.admin.clone();
        async move {
            let status = admin.cluster_status().await.expect("an answer");
            status.running.len()
        }
    };
    for node in &nodes {
        eventually(|| async { (running(node).await == 3).then_some(()) }).await;
    }
    let left = nodes[1].admin.leave(Progress::ignored()).await;
    let left = left.expect("it is in a cluster");
    let discovery_disabled = true;
    assert_eq!(left, LeaveOutcome::Left { discovery_disabled });
    eventually(|| async { (running(&nodes[0]).await == 2).then_some(()) }).await;
    assert_eq!(running(&nodes[1]).await, 1);
    let enabled = nodes[1].admin.enable_discovery().await;
    enabled.expect("a strategy is configured");
    eventually(|| async { (running(&nodes[1]).await == 3).then_some(()) }).await;
    for node in nodes {
        node.stop().await.expect("it started");
    }
}

#[tokio::test]
async fn a_join_that_cannot_be_says_why() {
    let node = Node::start("").await;
    let own = node
        .admin
        .join(&node.name, Progress::ignored())
        .await
        .expect("nothing to do");
    assert_eq!(own, JoinOutcome::Ignored);
    let silent = node.admin.join(&free_name(), Progress::ignored()).await;
    let silent = silent.expect_err("nobody is there");
    assert!(
        matches!(silent, AdminError::Cluster(OperationError::Refused { .. })),
        "{silent:?}"
    );
    let unknown = node
        .admin
        .join("x@no-such-host.invalid", Progress::ignored())
        .await;
    let unknown = unknown.expect_err("no such host");
    assert!(
        matches!(
            unknown,
            AdminError::Cluster(OperationError::Unresolvable { .. })
        ),
        "{unknown:?}"
    );
    let nonsense = node.admin.join("a@b@c", Progress::ignored()).await;
    assert!(
        matches!(nonsense, Err(AdminError::NodeName { .. })),
        "{nonsense:?}"
    );
    node.stop().await.expect("it started");
}
