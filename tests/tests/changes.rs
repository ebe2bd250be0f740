//! Changes of the configuration at run time: in the whole cluster, on both sides of a split, and
//! after restarts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::http::Api;
use dunlin_tests::node::cluster;
use dunlin_tests::{Node, in_lab, until, until_eq};
use serde_json::json;

use crate::field::{Field, SEEN_DEAD, WHOLE};

/// How long a change may take to the other nodes.
const SPREAD: Duration = Duration::from_secs(2);

fn shown(node: &Node, key: &str) -> Result<String> {
    let shown = node.ctl(&["conf", "show", key])?.ok()?.stdout;
    Ok(shown.trim_end().to_owned())
}

fn shows(node: &Node, key: &str, expected: &str, limit: Duration) -> Result<()> {
    let what = format!("{key} on {}", node.name);
    until_eq(limit, &what, &expected.to_owned(), || shown(node, key)).map(drop)
}

/// `conf load` of this text.
fn load(node: &Node, how: &[&str], text: &str) -> Result<dunlin_tests::Output> {
    let file = node.installation.root().join("change.conf");
    std::fs::write(&file, text)?;
    let file = file.to_str().context("a path in UTF-8")?;
    node.ctl(&[&["conf", "load"], how, &[file]].concat())
}

fn operator(node: &Node) -> Result<Api> {
    node.ctl(&["admins", "add", "changer", "changer-1234"])?
        .ok()?;
    node.api().login("changer", "changer-1234")
}

/// The largest packet a new connection may send, as the broker sees it.
fn accepts(node: &Node, payload: usize) -> Result<bool> {
    let mut client = node.connect("sender")?;
    client.publish("size", &"x".repeat(payload), 0, false)?;
    Ok(client.publish("size", "after", 1, false).is_ok())
}

#[test]
fn c29_a_change_is_in_force_on_all_nodes_and_after_a_restart_of_all() -> Result<()> {
    let nodes = cluster(2)?;
    ensure!(accepts(&nodes[1], 2_000)?, "the default is 1 MB");
    let text = "mqtt { max_packet_size = 1KB, max_inflight = 7 }\nlog.file.level = info\n";
    let output = load(&nodes[0], &["--merge"], text)?.ok()?;
    ensure!(
        output.stdout == "load log on cluster ok\nload mqtt on cluster ok\n",
        "{output}"
    );
    for node in &nodes {
        shows(
            node,
            "mqtt.max_packet_size",
            "max_packet_size = \"1KB\"",
            SPREAD,
        )?;
        ensure!(
            !accepts(node, 2_000)?,
            "{}: 2000 bytes are too many",
            node.name
        );
        let handlers = node.ctl(&["log", "handlers", "list"])?.ok()?.stdout;
        ensure!(handlers.contains("level=info"), "{}: {handlers}", node.name);
    }
    let api = operator(&nodes[1])?;
    let body = json!({"max_qos_allowed": 1}).to_string();
    let answer = api
        .request("PUT", "/api/v5/configs/mqtt", Some(&body))?
        .status(200)?
        .json()?;
    ensure!(
        answer["max_qos_allowed"] == 1 && answer["max_inflight"] == 7,
        "{answer}"
    );
    shows(
        &nodes[0],
        "mqtt.max_qos_allowed",
        "max_qos_allowed = 1",
        SPREAD,
    )?;
    let equal = || {
        let status = nodes[0].ctl(&["conf", "cluster_sync", "status"])?.ok()?;
        let line = "All configuration synchronized(rows=4, digest=";
        Ok(status.stdout.contains(line))
    };
    until(SPREAD, "both hold the same four changes", equal)?;
    restart_without_files(&nodes)?;
    // A login ends with the process that gave it.
    let reset = nodes[0].api().login("changer", "changer-1234")?;
    let path = "/api/v5/configs_reset/mqtt?conf_path=max_packet_size";
    reset.request("POST", path, None)?.status(200)?;
    shows(
        &nodes[1],
        "mqtt.max_packet_size",
        "max_packet_size = \"1MB\"",
        SPREAD,
    )?;
    ensure!(accepts(&nodes[1], 2_000)?, "the default is back");
    Ok(())
}

/// Only the table counts.
fn restart_without_files(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let path = node.data_dir().join("configs/cluster.hocon");
        let file = std::fs::read_to_string(&path)?;
        ensure!(
            file.starts_with("# This file is generated. Do not edit.\n"),
            "{file}"
        );
        ensure!(file.contains("max_inflight = 7"), "{file}");
        node.stop()?;
        std::fs::remove_file(path)?;
    }
    for node in nodes {
        node.start()?;
        shows(
            node,
            "mqtt.max_inflight",
            "max_inflight = 7",
            Duration::ZERO,
        )?;
        shows(
            node,
            "mqtt.max_qos_allowed",
            "max_qos_allowed = 1",
            Duration::ZERO,
        )?;
        ensure!(!accepts(node, 2_000)?, "{} after a restart", node.name);
    }
    Ok(())
}

#[test]
fn c29_c30_a_change_is_refused_whole_with_its_reason_and_exit_code() -> Result<()> {
    let node = Node::started()?;
    let before = shown(&node, "mqtt")?;
    for (text, said) in [
        ("", &["is empty"][..]),
        ("mqtt {", &["failed\n", "never closed"]),
        (
            "mqtt.max_inflight = 7\nmqtt.max_inflght = 8",
            &[
                "load schema check failed\nmqtt: ",
                "change.conf:2",
                "did you mean `max_inflight`",
            ],
        ),
        (
            "mqtt.max_inflight = 7\nnode.name = \"x@y\"\nrpc.mode = sync",
            &[
                "load config failed\nCannot update read-only key 'node",
                "emqx restart",
            ],
        ),
        (
            "cluster.name = other\nmqtt.max_inflight = 7",
            &["Cannot update read-only key 'cluster.name'."],
        ),
        (
            "mqtt.max_inflight = 7\nlisteners.tcp.default.bind = 1884",
            &[
                "Cannot update key 'listeners.tcp.default.bind' while",
                "emqx restart",
            ],
        ),
    ] {
        let output = load(&node, &["--merge"], text)?.exit(1).context(text)?;
        for said in said {
            ensure!(
                output.stdout.contains(said),
                "{text}: {said:?} expected: {output}"
            );
        }
    }
    let output = node.ctl(&["conf", "load", "/no/such/file"])?.exit(1)?;
    output.says("/no/such/file file is not found")?;
    let api = operator(&node)?;
    let body = json!({"max_qos_allowed": 7}).to_string();
    let answer = api
        .request("PUT", "/api/v5/configs/mqtt", Some(&body))?
        .status(400)?;
    ensure!(answer.body.contains("mqtt.max_qos_allowed"), "{answer:?}");
    api.get("/api/v5/configs/nothing")?.status(404)?;
    ensure!(shown(&node, "mqtt")? == before, "nothing has changed");
    let whole = shown(&node, "")?;
    let output = load(&node, &["--replace"], &whole)?.ok()?;
    ensure!(
        output.stdout.contains("load mqtt on cluster ok\n"),
        "{output}"
    );
    ensure!(
        !node.data_dir().join("configs/cluster.hocon").exists(),
        "nothing was to change"
    );
    Ok(())
}

#[test]
fn c06_emqx_conf_goes_before_and_reload_takes_up_what_it_says() -> Result<()> {
    let node = Node::new()?;
    node.installation.configure("mqtt.max_inflight = 5")?;
    node.start()?;
    let text = "mqtt { max_inflight = 7, max_awaiting_rel = 9 }";
    let output = load(&node, &[], text)?.ok()?;
    ensure!(
        output
            .stdout
            .contains("WARNING: mqtt.max_inflight is set in")
            && output.stdout.contains("emqx.conf"),
        "{output}"
    );
    shows(
        &node,
        "mqtt.max_inflight",
        "max_inflight = 5",
        Duration::ZERO,
    )?;
    shows(
        &node,
        "mqtt.max_awaiting_rel",
        "max_awaiting_rel = 9",
        Duration::ZERO,
    )?;
    let conf = node.installation.root().join("etc/emqx.conf");
    let text = std::fs::read_to_string(&conf)?;
    std::fs::write(
        &conf,
        text.replace("mqtt.max_inflight = 5", "mqtt.max_topic_levels = 4"),
    )?;
    let output = node.ctl(&["conf", "reload"])?.ok()?;
    ensure!(
        output.stdout == format!("load mqtt on {} ok\n", node.name),
        "{output}"
    );
    shows(
        &node,
        "mqtt.max_inflight",
        "max_inflight = 7",
        Duration::ZERO,
    )?;
    shows(
        &node,
        "mqtt.max_topic_levels",
        "max_topic_levels = 4",
        Duration::ZERO,
    )?;
    std::fs::write(&conf, format!("{text}\nlisteners.tcp.other.bind = 1\n"))?;
    let output = node.ctl(&["conf", "reload"])?.exit(1)?;
    ensure!(output.stdout.contains("listeners.tcp.other"), "{output}");
    Ok(())
}

#[test]
fn c07_changes_made_with_emqx_become_the_cluster_s() -> Result<()> {
    let node = Node::new()?;
    let configs = node.data_dir().join("configs");
    std::fs::create_dir_all(&configs)?;
    let file = configs.join("cluster.hocon");
    std::fs::write(&file, "mqtt { max_inflight = 11, max_packet_size = 1MB }\n")?;
    node.start()?;
    shows(
        &node,
        "mqtt.max_inflight",
        "max_inflight = 11",
        Duration::ZERO,
    )?;
    load(&node, &[], "mqtt.max_qos_allowed = 1")?.ok()?;
    node.stop()?;
    node.start()?;
    shows(
        &node,
        "mqtt.max_inflight",
        "max_inflight = 11",
        Duration::ZERO,
    )?;
    shows(
        &node,
        "mqtt.max_qos_allowed",
        "max_qos_allowed = 1",
        Duration::ZERO,
    )?;
    let other = Node::started()?;
    other.join(&node)?;
    shows(&other, "mqtt.max_inflight", "max_inflight = 11", SPREAD)
}

#[test]
fn both_sides_of_a_split_change_the_configuration_and_both_hold_all_of_it() -> Result<()> {
    in_lab!(|lab| {
        let Some(field) = Field::joined(lab, 2, "")? else {
            return Ok(());
        };
        field.split(&[0], &[1])?;
        field.all_see(&[0], &[1], SEEN_DEAD)?;
        field.all_see(&[1], &[0], SEEN_DEAD)?;
        let [a, b] = &field.nodes[..] else {
            return Err(anyhow::anyhow!("two nodes"));
        };
        load(a, &[], "mqtt { max_inflight = 3, max_awaiting_rel = 30 }")?.ok()?;
        load(b, &[], "mqtt { max_inflight = 4, max_qos_allowed = 1 }")?.ok()?;
        shows(
            a,
            "mqtt.max_qos_allowed",
            "max_qos_allowed = 2",
            Duration::ZERO,
        )?;
        field.open()?;
        field.whole(WHOLE)?;
        for node in [a, b] {
            // The later of two changes of one key.
            shows(node, "mqtt.max_inflight", "max_inflight = 4", WHOLE)?;
            shows(
                node,
                "mqtt.max_awaiting_rel",
                "max_awaiting_rel = 30",
                WHOLE,
            )?;
            shows(node, "mqtt.max_qos_allowed", "max_qos_allowed = 1", WHOLE)?;
        }
        let lost = || {
            let alarms = field
                .api(0)?
                .get("/api/v5/alarms?activated=true")?
                .status(200)?;
            Ok(alarms.body.contains("concurrent_write_overwritten"))
        };
        until(WHOLE, "the change that lost is reported", lost)?;
        field.none_restarted()
    })
}
