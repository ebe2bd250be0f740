//! Evacuating a node: its clients and their sessions are on the other one before it is stopped.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::http::Api;
use dunlin_tests::node::cluster;
use dunlin_tests::{Client, Node, mosquitto, paho, until, until_eq};
use serde_json::json;

/// Nothing is waited for, so that the test need not either.
const START: [&str; 9] = [
    "rebalance",
    "start",
    "--evacuation",
    "--wait-health-check",
    "0",
    "--wait-takeover",
    "0",
    "--redirect-to",
    "b.example:1883",
];
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// Paho is installed the first time it is used.
const PAHO: Duration = Duration::from_mins(1);

pub(crate) fn pair() -> Result<[Node; 2]> {
    cluster(2)?.try_into().ok().context("two nodes")
}

pub(crate) fn check_available(node: &Node, available: bool) -> Result<()> {
    let answer = node
        .api()
        .get("/api/v5/load_rebalance/availability_check")?;
    if available {
        ensure!(answer.status(200)?.json()? == json!({}), "available");
    } else {
        answer.refused(503, "NODE_EVACUATING", "Node Evacuating")?;
    }
    Ok(())
}

fn has(node: &Node, clientid: &str) -> Result<bool> {
    let shown = node.ctl(&["clients", "show", clientid])?.stdout;
    Ok(shown.contains("connected=true"))
}

/// A session without its client, and messages that wait in it.
fn leave_offline(at: &Node, other: &Node, count: usize) -> Result<Vec<String>> {
    let persistent = ["-c", "-i", "offline", "-q", "2", "-t", "t/#"];
    mosquitto::subscribe_and_leave(at.tcp(), &persistent)?;
    until(LIMIT, "offline", || Ok(!has(at, "offline")?))?;
    let mut publisher = other.connect("filler")?;
    let payloads: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    for (n, payload) in payloads.iter().enumerate() {
        let qos = if n % 2 == 0 { 1 } else { 2 };
        publisher.publish("t/x", payload, qos, false)?;
    }
    Ok(payloads)
}

fn check_moved(to: &Node, clientid: &str, payloads: &[String]) -> Result<()> {
    let mut back = Client::connect(to.tcp(), clientid, false)?;
    ensure!(back.session_present, "{clientid} has its session");
    for expected in payloads {
        let payload = back.receive_payload()?;
        ensure!(
            payload == *expected,
            "{clientid}: {payload}, not {expected}"
        );
    }
    Ok(())
}

fn wait_for_state(node: &Node, state: &str) -> Result<String> {
    let line = format!("Rebalance state: {state}\n");
    let status = || Ok(node.ctl(&["rebalance", "node-status"])?.ok()?.stdout);
    until(LIMIT, state, || Ok(status()?.contains(&line)))?;
    status()
}

#[test]
fn t27_an_evacuated_node_gives_its_clients_and_sessions_away() -> Result<()> {
    if !mosquitto::is_there("evacuation") {
        return Ok(());
    }
    let [a, b] = pair()?;
    let mut publisher = b.connect("publisher")?;
    let mut online = Client::connect(a.tcp(), "online", false)?;
    online.subscribe("t/#", 1)?;
    let payloads = leave_offline(&a, &b, 20)?;
    for expected in &payloads {
        ensure!(online.receive_payload()? == *expected, "in order");
    }
    let (host, port) = (a.tcp().ip().to_string(), a.tcp().port().to_string());
    let five = thread::spawn(move || paho::run("evict.py", &[&host, &port]));
    until(PAHO, "all are there", || {
        Ok(five.is_finished() || has(&a, "five")?)
    })?;

    check_available(&a, true)?;
    a.ctl(&START)?
        .ok()?
        .prints("Rebalance(evacuation) started\n")?;
    check_available(&a, false)?;
    check_available(&b, true)?;
    let again = a.ctl(&START)?.exit(1)?;
    again.prints("Rebalance is already enabled\n")?;

    online.closed()?;
    let refused = Client::connect(a.tcp(), "online", false);
    let refused = refused.expect_err("it is sent away").to_string();
    ensure!(refused == "connection refused, return code 3", "{refused}");
    if let Some(seen) = five.join().map_err(|_| anyhow::anyhow!("paho"))?? {
        let reference = json!([0x9c, "b.example:1883"]);
        let expected = json!({
            "connack": [0, null],
            "disconnect": reference,
            "refused": reference,
        });
        ensure!(seen == expected, "{seen}");
    }
    // Some come back, the sessions of the others are moved.
    publisher.publish("t/x", "after", 1, false)?;
    check_moved(&b, "online", &["after".to_owned()])?;
    let status = wait_for_state(&a, "prohibiting")?;
    ensure!(status.contains("  current_sessions: 0\n"), "{status}");
    ensure!(b.ctl(&["rebalance", "status"])?.stdout.contains(&a.name));
    let list = b.ctl(&["clients", "list"])?.stdout;
    ensure!(list.contains("Client(offline"), "{list}");
    let all: Vec<String> = payloads.into_iter().chain(["after".to_owned()]).collect();
    check_moved(&b, "offline", &all)?;
    check_restart(&a)
}

/// It was to be stopped; started again, it still takes nobody until that is ended.
fn check_restart(a: &Node) -> Result<()> {
    a.stop()?;
    a.start()?;
    check_available(a, false)?;
    ensure!(a.connect("early").is_err(), "still refused");
    a.ctl(&["rebalance", "stop"])?
        .ok()?
        .prints("Rebalance(evacuation) stopped\n")?;
    a.connect("late")?;
    check_available(a, true)?;
    a.ctl(&["rebalance", "stop"])?
        .exit(1)?
        .prints("Rebalance is already disabled\n")?;
    a.ctl(&["rebalance", "node-status"])?
        .ok()?
        .prints("Rebalance disabled\n")?;
    Ok(())
}

pub(crate) fn logged_in(node: &Node) -> Result<Api> {
    let api = node.api().login("admin", "public")?;
    let change = json!({ "old_pwd": "public", "new_pwd": "dunlin-1234" });
    api.post("/api/v5/users/admin/change_pwd", &change)?
        .status(204)?;
    node.api().login("admin", "dunlin-1234")
}

#[test]
fn r15_another_node_is_evacuated_over_the_api() -> Result<()> {
    if !mosquitto::is_there("evacuation over the API") {
        return Ok(());
    }
    let [a, b] = pair()?;
    let api = logged_in(&b)?;
    let payloads = leave_offline(&a, &b, 5)?;
    let path = |action: &str| format!("/api/v5/load_rebalance/{}/evacuation/{action}", a.name);
    let body = json!({
        "wait_health_check": "0s",
        "wait_takeover": 0,
        "conn_evict_rate": 100,
        "migrate_to": [b.name],
    });
    let wrong = json!({ "migrate_to": ["nobody@127.0.0.1"] });
    let message = format!("error on node {}: unavailable_nodes", a.name);
    api.post(&path("start"), &wrong)?
        .refused(400, "BAD_REQUEST", &message)?;
    ensure!(api.post(&path("start"), &body)?.status(200)?.json()? == json!({}));
    let message = format!("error on node {}: already_started", a.name);
    api.post(&path("start"), &body)?
        .refused(400, "BAD_REQUEST", &message)?;
    check_available(&a, false)?;
    let state = || {
        let status = api.get("/api/v5/load_rebalance/global_status")?.json()?;
        let row = &status["evacuations"][0];
        let sessions = row["stats"]["current_sessions"].clone();
        Ok(json!([row["node"], row["state"], sessions]))
    };
    let expected = json!([a.name, "prohibiting", 0]);
    until_eq(LIMIT, "evacuated", &expected, state)?;
    let own = api.get("/api/v5/load_rebalance/status")?.json()?;
    ensure!(own == json!({ "status": "disabled" }), "{own}");
    check_moved(&b, "offline", &payloads)?;
    api.post(&path("stop"), &json!({}))?.status(200)?;
    check_available(&a, true)?;
    let message = format!("error on node {}: not_enabled", a.name);
    api.post(&path("stop"), &json!({}))?
        .refused(400, "BAD_REQUEST", &message)?;
    let nobody = "/api/v5/load_rebalance/x@127.0.0.1/evacuation/stop";
    api.post(nobody, &json!({}))?
        .refused(404, "NOT_FOUND", "Node not found: x@127.0.0.1")?;
    Ok(())
}
