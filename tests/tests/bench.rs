//! `dunlin bench` as a user types it, and the memory budgets that it checks.

use anyhow::{Context, Result, ensure};
use dunlin_tests::{Node, cluster, process};
use serde_json::Value;

/// `dunlin bench WORDS`: its one target, from `--json`.
fn bench(node: &Node, words: &str) -> Result<Value> {
    let mut command = node.command("dunlin");
    command.arg("bench").args(words.split(' ')).arg("--json");
    let output = process::run(&mut command)?.ok()?;
    let report: Value = serde_json::from_str(&output.stdout).with_context(|| output.to_string())?;
    Ok(report["targets"][0].clone())
}

fn check_messages(node: &Node, words: &str) -> Result<()> {
    let target = bench(node, words)?;
    ensure!(
        target["thousand_per_second"].as_f64() > Some(0.0),
        "{words}: {target}"
    );
    ensure!(target["cpu_us"].as_f64() > Some(0.0), "{words}: {target}");
    for fault in ["lost", "duplicated", "reordered"] {
        ensure!(target["faults"][fault] == 0, "{words}: {target}");
    }
    Ok(())
}

#[test]
fn every_transport_carries_messages_at_every_qos() -> Result<()> {
    let node = Node::started()?;
    let short = "--seconds 0.2 --rounds 1";
    for place in [
        format!("mqtt://{}", node.tcp()),
        format!("mqtts://{} --insecure", node.ssl()),
        format!("ws://{}", node.ws()),
        format!("wss://{} --insecure", node.wss()),
    ] {
        for qos in 0..=2 {
            check_messages(&node, &format!("pairs {place} --qos {qos} {short}"))?;
        }
        // Packets that are larger than what one read or one TLS record takes.
        let large = "--qos 1 --payload 200_000 --clients 2";
        check_messages(&node, &format!("pairs {place} {large} {short}"))?;
        check_messages(&node, &format!("conn {place} {short}"))?;
    }
    Ok(())
}

#[test]
fn sessions_are_resumed_and_taken_over_whole() -> Result<()> {
    let nodes = cluster(2)?;
    let places = format!("{}+{}", nodes[0].tcp(), nodes[1].tcp());
    let one = nodes[0].tcp();
    let short = "--seconds 0.3 --rounds 1";
    for qos in 1..=2 {
        check_messages(&nodes[0], &format!("takeover {one} --qos {qos} {short}"))?;
        check_messages(&nodes[0], &format!("takeover {places} --qos {qos} {short}"))?;
    }
    check_messages(
        &nodes[0],
        &format!("resume {one} --clients 10 --count 100 {short}"),
    )?;
    check_messages(&nodes[0], &format!("cross-node {places} --qos 1 {short}"))
}

#[test]
fn several_targets_are_compared_and_the_ceiling_is_one() -> Result<()> {
    let node = Node::started()?;
    let mut command = node.command("dunlin");
    let place = node.tcp().to_string();
    command.args([
        "bench",
        "pairs",
        &place,
        "null",
        "--seconds",
        "0.2",
        "--rounds",
        "2",
    ]);
    let output = process::run(&mut command)?.ok()?;
    let lines: Vec<&str> = output.stdout.lines().collect();
    ensure!(
        lines[0].starts_with("10 -> 10, QoS 0, 64 bytes"),
        "{output}"
    );
    ensure!(output.stdout.contains("CPU ratio (spread)"), "{output}");
    ensure!(
        lines.iter().any(|line| line.starts_with("null ")),
        "{output}"
    );
    // The process is found by its port, and named as it was started.
    let is_named = |line: &&str| line.starts_with("emqx ") || line.starts_with("dunlin ");
    ensure!(lines.iter().any(is_named), "{output}");
    Ok(())
}

#[test]
fn a_target_that_fails_leaves_the_others_their_figures() -> Result<()> {
    let node = Node::started()?;
    let mut command = node.command("dunlin");
    let words = format!(
        "bench pairs here={} gone=127.0.0.1:1 --seconds 0.2 --rounds 2 --json",
        node.tcp()
    );
    command.args(words.split(' '));
    let output = process::run(&mut command)?
        .exit(1)?
        .says("gone: 127.0.0.1:1: is the broker running?")?;
    let report: Value = serde_json::from_str(&output.stdout)?;
    let [here, gone] = [0, 1].map(|index| report["targets"][index].clone());
    ensure!(here["rounds"].as_array().map(Vec::len) == Some(2), "{here}");
    ensure!(here["failure"].is_null(), "{here}");
    ensure!(gone["rounds"].as_array().map(Vec::len) == Some(0), "{gone}");
    ensure!(gone["failure"].is_string(), "{gone}");
    Ok(())
}

#[test]
fn nobody_there_is_said_with_the_cure() -> Result<()> {
    let node = Node::new()?;
    let place = node.tcp().to_string();
    let mut command = node.command("dunlin");
    command.args(["bench", "pairs", &place]);
    process::run(&mut command)?
        .exit(1)?
        .says("is the broker running?")?;
    let mut command = node.command("dunlin");
    command.args(["bench", "pairs", &format!("mqtts://{place}")]);
    process::run(&mut command)?.exit(1)?.says("--cacert FILE")?;
    Ok(())
}

/// What clients and messages cost, each on a node just started, since an earlier run leaves memory
/// to the allocator. The bounds are today's figures with room for noise; where the goal of
/// docs/performance.md is lower, that page says why.
#[test]
fn memory_stays_within_its_budgets() -> Result<()> {
    for words in [
        "idle --count 10_000 --budget 2_100",
        "sessions --count 5_000 --budget 1_600",
        "storm --count 1_000_000 --budget 250",
        "retained --count 100_000 --seconds 0.1 --budget 320",
    ] {
        let node = Node::started()?;
        bench(&node, &format!("{words} {} --rounds 1", node.tcp()))?;
    }
    let nodes = cluster(2)?;
    let places = format!("{}+{}", nodes[0].tcp(), nodes[1].tcp());
    // 64 B is the goal. A storm makes the other node take a snapshot, whose buffers count too.
    let words = format!("routes --count 500_000 --budget 80 {places} --rounds 1");
    bench(&nodes[0], &words)?;
    Ok(())
}
