//! The command line: which node a command reaches, texts that scripts match, honest exit codes.

use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dunlin_tests::node::{cluster, status_line};
use dunlin_tests::{Installation, Node, process};
use serde_json::json;

const CLUSTER_USAGE: &str = "\
cluster join <Node>                 # Join the cluster
cluster leave                       # Leave the cluster
cluster force-leave <Node>          # Force the node leave from cluster
cluster status [--verbose] [--json] # Cluster status
cluster diagnose [<Node>] [--json]  # Walk every step to a node and say what is wrong
cluster discovery enable            # Enable and run automatic cluster discovery (if configured)
cluster heal                        # Merge the sides of a split that autoheal = false keeps apart
cluster discovery status            # How this node finds others, and what is in the way
";

#[test]
fn b01_usage_help_and_unknown_commands() -> Result<()> {
    let installation = Installation::new()?;
    let emqx = |args: &[&str]| installation.run("emqx", args, &[]);
    let usage = emqx(&[])?.exit(1)?.stdout;
    ensure!(
        usage.starts_with("Usage: ") && usage.contains(" COMMAND [help]\n"),
        "{usage}"
    );
    for command in [
        "start",
        "stop",
        "ctl",
        "ping",
        "pid",
        "check_config",
        "foreground",
    ] {
        ensure!(usage.contains(command), "usage names {command}: {usage}");
        let help = emqx(&[command, "help"])?;
        if command == "ctl" {
            continue; // Goes to the node, which does not run.
        }
        ensure!(!help.clone().ok()?.stdout.is_empty(), "{help}");
    }
    emqx(&["help"])?.ok()?.prints(&usage)?;
    emqx(&["no-such-command"])?.exit(1)?.prints(&usage)?;
    let root = installation.root().canonicalize()?;
    emqx(&["root_dir"])?
        .ok()?
        .prints(&format!("{}\n", root.display()))?;
    Ok(())
}

#[test]
fn b05_b06_ping_and_pid_of_a_running_and_of_no_node() -> Result<()> {
    let node = Node::new()?;
    for command in ["ping", "pid", "stop"] {
        let named = node.emqx(&[command])?.exit(1)?;
        ensure!(named.stdout.is_empty(), "{named}");
        named.says(&format!("Node {} is not running?", node.name))?;
        let unnamed = node.installation.run("emqx", &[command], &[])?.exit(1)?;
        ensure!(unnamed.stdout.is_empty(), "{unnamed}");
        unnamed.says("Node 'emqx@127.0.0.1' not responding to pings.\n")?;
    }
    node.start()?;
    node.emqx(&["ping"])?.ok()?.prints("pong\n")?;
    let pid: u32 = node.emqx(&["pid"])?.ok()?.stdout.trim().parse()?;
    ensure!(process::lives(pid), "{pid} is a running process");
    // A node that was killed leaves its socket file behind; that is not a running node.
    node.kill9()?;
    node.emqx(&["ping"])?.exit(1)?;
    node.start()
        .context("starting over the remains of a killed node")
        .map(drop)
}

#[test]
fn b08_b09_among_two_nodes_a_name_is_needed_where_it_matters() -> Result<()> {
    let installation = Installation::new()?;
    let nodes = [
        Node::in_installation(&installation)?,
        Node::in_installation(&installation)?,
    ];
    for node in &nodes {
        node.start()?;
    }
    let mut names = [nodes[0].name.as_str(), nodes[1].name.as_str()];
    names.sort_unstable();
    let unnamed = installation.run("emqx_ctl", &["broker"], &[])?.exit(1)?;
    let root = installation.root().canonicalize()?;
    let lines = format!(
        "ERROR: More than one EMQX node found running (root dir: {})\n\
         ERROR: Running nodes: {} {} \n\
         ERROR: Make sure environment variable EMQX_NODE__NAME is set to indicate for which node \
         this command is intended.\n",
        root.display(),
        names[0],
        names[1],
    );
    ensure!(
        unnamed.stderr == lines && unnamed.stdout.is_empty(),
        "{lines}\n{unnamed}"
    );
    for node in &nodes {
        let line = format!("Node '{}' ", node.name);
        for variable in ["EMQX_NODE__NAME", "EMQX_NODE_NAME"] {
            let env = [(variable, node.name.as_str())];
            let status = installation.run("emqx", &["ctl", "status"], &env)?.ok()?;
            ensure!(status.stdout.starts_with(&line), "{line}: {status}");
        }
    }
    // Stopping is never guessed.
    installation.run("emqx", &["stop"], &[])?.exit(1)?;
    for node in &nodes {
        node.emqx(&["ping"])?.ok()?;
    }
    Ok(())
}

#[test]
fn b14_emqx_ctl_is_emqx_ctl_by_any_name_and_from_anywhere() -> Result<()> {
    let node = Node::started()?;
    let expected = node.ctl(&["cluster", "status"])?.ok()?.stdout;
    node.emqx(&["ctl", "cluster", "status"])?
        .ok()?
        .prints(&expected)?;
    let elsewhere = tempfile::tempdir()?;
    let link = elsewhere.path().join("emqx_ctl");
    symlink(node.installation.root().join("bin/emqx_ctl"), &link)?;
    let mut command = Command::new(&link);
    command
        .args(["cluster", "status"])
        .current_dir(elsewhere.path())
        .envs(node.env());
    process::run(&mut command)?.ok()?.prints(&expected)?;
    // Found on the path.
    let path = elsewhere.path().as_os_str();
    let mut command = Command::new("sh");
    command
        .args(["-c", "PATH=$1:$PATH emqx_ctl cluster status", "sh"])
        .arg(path);
    command.current_dir("/").envs(node.env());
    process::run(&mut command)?.ok()?.prints(&expected)?;
    Ok(())
}

#[test]
fn t01_t18_t19_usage_texts() -> Result<()> {
    let node = Node::started()?;
    for wrong in [
        &["cluster"][..],
        &["cluster", "jion", "x"],
        &["cluster", "join"],
    ] {
        node.ctl(wrong)?.exit(1)?.prints(CLUSTER_USAGE)?;
    }
    let all = node.ctl(&["help"])?.ok()?.stdout;
    node.ctl(&[])?.ok()?.prints(&all)?;
    node.ctl(&["no-such-command"])?.exit(1)?.prints(&all)?;
    ensure!(all.starts_with("Usage: emqx ctl\n"), "{all}");
    let blocks: Vec<&str> = all.split(&format!("{}\n", "-".repeat(110))).collect();
    ensure!(blocks.len() > 5, "110 dashes between commands: {all}");
    ensure!(
        blocks.contains(&CLUSTER_USAGE),
        "the block of cluster: {all}"
    );
    Ok(())
}

#[test]
fn t02_t03_t05_t07_status_of_one_to_five_nodes() -> Result<()> {
    let first = Node::started()?;
    let name = first.name.clone();
    let line = format!("{}\n", status_line(&[&name], &[]));
    first.ctl(&["cluster", "status"])?.ok()?.prints(&line)?;
    let json = first.ctl(&["cluster", "status", "--json"])?.ok()?.stdout;
    let expected = format!(
        "{{\n  \"stopped_nodes\" : [\n    \n  ],\n  \"running_nodes\" : [\n    \
         \"{name}\"\n  ]\n}}\n"
    );
    ensure!(json == expected, "{json:?}\n{expected:?}");
    drop(first);

    let nodes = cluster(5)?;
    nodes[4].kill9()?;
    let mut running: Vec<&str> = nodes[..4].iter().map(|node| node.name.as_str()).collect();
    running.sort_unstable();
    let running_nodes: Vec<&Node> = nodes[..4].iter().collect();
    for node in &nodes[..4] {
        node.sees(&running_nodes, &[&nodes[4]], dunlin_tests::node::TOGETHER)?;
        let json = node.ctl(&["cluster", "status", "--json"])?.ok()?.stdout;
        let json: serde_json::Value = serde_json::from_str(&json)?;
        let expected = json!({ "stopped_nodes": [nodes[4].name], "running_nodes": running });
        ensure!(json == expected, "{json}");
    }
    Ok(())
}

#[test]
fn t13_leave_when_alone() -> Result<()> {
    let node = Node::started()?;
    let output = node.ctl(&["cluster", "leave"])?.exit(1)?;
    let first = output.stdout.lines().next();
    ensure!(
        first == Some("Failed to leave the cluster: node_not_in_cluster"),
        "{output}"
    );
    Ok(())
}

#[test]
fn n04_t17_a_node_argument_without_host_and_honest_exit_codes() -> Result<()> {
    let (a, b) = (Node::started()?, Node::started()?);
    let short = a
        .name
        .split('@')
        .next()
        .context("a name has a short part")?;
    b.ctl(&["cluster", "join", short])?
        .ok()?
        .says("Join the cluster successfully.\n")?;
    b.ctl(&["cluster", "join", short])?.exit(1)?;
    b.ctl(&["cluster", "join", "what@is@this"])?.exit(1)?;
    b.ctl(&["topics", "show", "nothing/here"])?
        .exit(1)?
        .prints("No topics.\n")?;
    b.ctl(&["clients", "list"])?.ok()?;
    b.ctl(&["broker", "stats"])?.ok()?;
    b.ctl(&["listeners"])?
        .ok()?
        .says("tcp:default\n  listen_on       : ")?;
    b.ctl(&["admins", "add", "x", "short"])?.exit(1)?;
    Ok(())
}

#[test]
fn t23_status_broker_clients_and_subscriptions() -> Result<()> {
    let node = Node::started()?;
    let status = node.ctl(&["status"])?.ok()?.stdout;
    ensure!(
        status.starts_with(&format!("Node '{}' ", node.name)),
        "{status}"
    );
    ensure!(status.ends_with(" is started\n"), "{status}");
    let broker = node.ctl(&["broker"])?.ok()?.stdout;
    for key in [
        "sysdescr  : ",
        "version   : ",
        "datetime  : ",
        "uptime    : ",
    ] {
        ensure!(
            broker.lines().any(|line| line.starts_with(key)),
            "{key}: {broker}"
        );
    }
    node.ctl(&["clients", "list"])?
        .ok()?
        .prints("No clients.\n")?;
    node.ctl(&["topics", "list"])?
        .ok()?
        .prints("No topics.\n")?;
    let mut client = node.connect("c1")?;
    client.subscribe("t/1", 1)?;
    let line = node.ctl(&["clients", "show", "c1"])?.ok()?.stdout;
    ensure!(
        line.starts_with("Client(c1, username=") && line.contains(", subscriptions=1"),
        "{line}"
    );
    let subscription = "c1 -> topic:t/1 qos:1 nl:0 rh:0 rap:0\n";
    node.ctl(&["subscriptions", "list"])?
        .ok()?
        .prints(subscription)?;
    node.ctl(&["subscriptions", "show", "c1"])?
        .ok()?
        .prints(subscription)?;
    node.ctl(&["clients", "kick", "c1"])?.ok()?.prints("ok\n")?;
    client.closed()
}
