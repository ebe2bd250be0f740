//! What was acknowledged is there after a power cut.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::Node;
use dunlin_tests::node::{cluster, together};

const MESSAGES: usize = 200;

#[test]
fn x12_retained_members_and_users_survive_kill_9_of_all() -> Result<()> {
    let nodes = cluster(2)?;
    nodes[0]
        .ctl(&["admins", "add", "alice", "alice-1234"])?
        .ok()?;
    let mut publishers = [nodes[0].connect("p0")?, nodes[1].connect("p1")?];
    for number in 0..MESSAGES {
        let topic = format!("kept/{number:03}");
        publishers[number % 2].publish(&topic, "value", 1, true)?;
    }
    for node in &nodes {
        node.kill9()?;
    }
    for node in &nodes {
        node.start()?;
    }
    together(&nodes)?;
    let expected: String = (0..MESSAGES)
        .flat_map(|n| ["kept/".to_owned(), format!("{n:03}\n")])
        .collect();
    for node in &nodes {
        let what = format!("retained topics on {}", node.name);
        let observe = || Ok(node.ctl(&["retainer", "topics"])?.ok()?.stdout);
        dunlin_tests::until_eq(Duration::from_secs(2), &what, &expected, observe)?;
        node.api()
            .login("alice", "alice-1234")
            .with_context(|| format!("on {}", node.name))?;
    }
    Ok(())
}

#[test]
fn retained_message_is_on_disk_when_puback_arrives() -> Result<()> {
    let node = Node::started()?;
    for round in 0..10 {
        let topic = format!("kept/{round}");
        let mut client = node.connect("p")?;
        client.publish(&topic, "value", 1, true)?;
        node.kill9()?;
        node.start()?;
        let mut reader = node.connect("r")?;
        reader.subscribe(&topic, 1)?;
        ensure!(
            reader
                .receive()
                .with_context(|| format!("round {round}"))?
                .retain,
            "acknowledged, so kept"
        );
    }
    Ok(())
}

#[test]
fn retained_message_reaches_the_other_disk_too() -> Result<()> {
    let nodes = cluster(2)?;
    nodes[0].connect("p")?.publish("kept/x", "value", 1, true)?;
    let observe = || Ok(nodes[1].ctl(&["retainer", "topics"])?.ok()?.stdout);
    let expected = "kept/x\n".to_owned();
    dunlin_tests::until_eq(Duration::from_secs(2), "replicated", &expected, observe)?;
    // Stopped in order, so that what it knows is on its disk.
    nodes[1].stop()?;
    nodes[0].kill9()?;
    nodes[1].start()?;
    let mut reader = nodes[1].connect("r")?;
    reader.subscribe("kept/#", 1)?;
    ensure!(
        reader.receive_payload()? == "value",
        "the copy serves alone"
    );
    Ok(())
}

#[test]
fn node_identity_survives_and_names_the_same_member() -> Result<()> {
    let nodes = cluster(2)?;
    for _ in 0..3 {
        nodes[1].kill9()?;
        nodes[1].start()?;
        together(&nodes).context("one member, not a second one of the same name")?;
    }
    Ok(())
}
