//! A member that dies or restarts, and a cluster that starts: nobody waits for anybody.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_tests::Node;
use dunlin_tests::node::{cluster, together};
use dunlin_tests::until_eq;

/// A start with members absent may take this long; EMQX waits without end.
const START: Duration = Duration::from_secs(3);

#[test]
fn l12_kill_9_of_one_is_seen_within_a_second_and_its_restart_heals_within_two() -> Result<()> {
    let nodes = cluster(2)?;
    let (a, b) = (&nodes[0], &nodes[1]);
    let mut on_a = a.connect("on-a")?;
    on_a.subscribe("from/a/#", 1)?;
    on_a.publish("kept/before", "1", 1, true)?;
    b.kill9()?;
    a.sees(&[a], &[b], Duration::from_secs(1))?;
    // A keeps serving, and what happens meanwhile reaches B when it is back.
    on_a.subscribe("meanwhile/#", 1)?;
    on_a.publish("kept/meanwhile", "2", 1, true)?;
    let restarted = Instant::now();
    b.start()?;
    for node in &nodes {
        node.sees(&[a, b], &[], Duration::from_secs(2))?;
    }
    for command in [["topics", "list"], ["retainer", "topics"]] {
        let expected = a.ctl(&command)?.ok()?.stdout;
        let observe = || Ok(b.ctl(&command)?.ok()?.stdout);
        until_eq(
            Duration::from_secs(2),
            &format!("{command:?} equal"),
            &expected,
            observe,
        )?;
    }
    let whole = restarted.elapsed();
    ensure!(whole < Duration::from_secs(3), "whole again in {whole:?}");
    b.connect("on-b")?
        .publish("meanwhile/x", "hello", 1, false)?;
    let payload = on_a.receive_payload()?;
    ensure!(payload == "hello", "A's client never noticed: {payload}");
    Ok(())
}

#[test]
fn routes_of_a_dead_node_are_gone_when_it_returns_without_its_clients() -> Result<()> {
    let nodes = cluster(2)?;
    let mut client = nodes[1].connect("c")?;
    client.subscribe("stale/#", 1)?;
    nodes[1].kill9()?;
    nodes[1].start()?;
    together(&nodes)?;
    let observe = || Ok(nodes[0].ctl(&["topics", "list"])?.ok()?.stdout);
    let none = "No topics.\n".to_owned();
    until_eq(Duration::from_secs(2), "no stale route", &none, observe).map(drop)
}

/// Starts the nodes in this order; each must come up and serve though the next are absent.
fn start_in_order(nodes: &[Node], order: &[usize]) -> Result<()> {
    for &index in order {
        let start = Instant::now();
        nodes[index]
            .start()
            .with_context(|| format!("node {index} of order {order:?}"))?;
        let took = start.elapsed();
        ensure!(
            took < START,
            "node {index} of order {order:?} took {took:?}"
        );
        let mut client = nodes[index].connect("probe")?;
        client.subscribe("kept/#", 1)?;
        ensure!(
            client.receive_payload()? == "value",
            "retained served at once"
        );
    }
    together(nodes).with_context(|| format!("order {order:?}"))
}

#[test]
fn l15_two_nodes_stopped_start_in_every_order() -> Result<()> {
    let nodes = cluster(2)?;
    nodes[0].connect("p")?.publish("kept/x", "value", 1, true)?;
    for stop_order in [[0, 1], [1, 0]] {
        for order in [[0, 1], [1, 0]] {
            for index in stop_order {
                nodes[index].stop()?;
            }
            start_in_order(&nodes, &order)?;
        }
    }
    Ok(())
}

#[test]
fn l15_l16_three_nodes_killed_start_in_every_order_and_alone() -> Result<()> {
    let nodes = cluster(3)?;
    nodes[0].connect("p")?.publish("kept/x", "value", 1, true)?;
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        for node in &nodes {
            node.kill9()?;
        }
        start_in_order(&nodes, &order)?;
    }
    // One alone serves for as long as the others are away.
    for node in &nodes {
        node.kill9()?;
    }
    nodes[1].start()?;
    nodes[1].sees(
        &[&nodes[1]],
        &[&nodes[0], &nodes[2]],
        Duration::from_secs(2),
    )?;
    let mut client = nodes[1].connect("c")?;
    client.subscribe("alone", 1)?;
    client.publish("alone", "served", 1, false)?;
    ensure!(
        client.receive_payload()? == "served",
        "a lone member serves"
    );
    Ok(())
}

#[test]
fn all_start_in_one_instant() -> Result<()> {
    let nodes = cluster(3)?;
    for node in &nodes {
        node.kill9()?;
    }
    let started: Vec<Result<_>> = std::thread::scope(|scope| {
        let starting: Vec<_> = nodes
            .iter()
            .map(|node| {
                let mut command = node.command("emqx");
                command.arg("start");
                scope.spawn(move || dunlin_tests::process::run(&mut command)?.ok())
            })
            .collect();
        starting
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    for output in started {
        output?;
    }
    for node in &nodes {
        node.adopt()?;
    }
    together(&nodes)
}
