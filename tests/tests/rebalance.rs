//! Rebalancing: nodes that stay even out their clients and sessions.

use anyhow::{Result, ensure};
use dunlin_tests::{Client, Node, until};
use serde_json::json;

use crate::evacuate::{LIMIT, check_available, logged_in, pair};

/// Clients on the first node; the second has none.
const CLIENTS: usize = 20;

/// Nothing is waited for, so that the test need not either.
const START: [&str; 14] = [
    "rebalance",
    "start",
    "--wait-health-check",
    "0",
    "--wait-takeover",
    "0",
    "--conn-evict-rate",
    "100",
    "--sess-evict-rate",
    "100",
    "--abs-conn-threshold",
    "2",
    "--abs-sess-threshold",
    "2",
];

fn clients(node: &Node) -> Result<Vec<(String, Client)>> {
    let connect = |n: usize| {
        let id = format!("c{n}");
        let mut client = Client::connect(node.tcp(), &id, false)?;
        client.subscribe(&format!("to/{id}"), 1)?;
        Ok((id, client))
    };
    (0..CLIENTS).map(connect).collect()
}

fn connected(node: &Node) -> Result<usize> {
    let list = node.ctl(&["clients", "list"])?.stdout;
    let lines = list.lines().filter(|line| line.starts_with("Client(c"));
    Ok(lines.filter(|line| line.contains("connected=true")).count())
}

#[test]
fn clients_and_sessions_are_evened_out() -> Result<()> {
    let [a, b] = pair()?;
    let mut clients = clients(&a)?;
    let within = a.ctl(&["rebalance", "start"])?.exit(1)?;
    ensure!(
        within
            .stdout
            .starts_with("Rebalance start error: nothing_to_balance\n"),
        "{within}"
    );
    a.ctl(&START)?.ok()?.prints("Rebalance started\n")?;
    // Half of them are sent away; of their sessions half go to the other node until they come.
    until(LIMIT, "over", || {
        let status = b.ctl(&["rebalance", "status"])?.stdout;
        Ok(status == "No node is being evacuated or rebalanced.\n")
    })?;
    check_available(&a, true)?;
    let mut stayed = 0;
    for (id, client) in &mut clients {
        if client.ping().is_ok() {
            stayed += 1;
            continue;
        }
        *client = Client::connect(b.tcp(), id, false)?;
        ensure!(client.session_present, "{id} has its session");
    }
    ensure!(stayed == 10, "{stayed} stayed");
    let mut publisher = b.connect("publisher")?;
    for (id, client) in &mut clients {
        publisher.publish(&format!("to/{id}"), id, 1, false)?;
        ensure!(client.receive_payload()? == *id, "{id} gets its message");
    }
    ensure!(connected(&a)? == stayed);
    ensure!(connected(&b)? == CLIENTS - stayed);
    Ok(())
}

#[test]
fn a_donor_is_one_until_it_is_stopped_or_its_coordinator_is_dead() -> Result<()> {
    let [a, b] = pair()?;
    let mut clients = clients(&a)?;
    let api = logged_in(&a)?;
    let path = |action: &str| format!("/api/v5/load_rebalance/{}/{action}", b.name);
    let refused = |term: &str| format!("error on node {}: {term}", b.name);
    let body = json!({
        "wait_health_check": "1h",
        "abs_conn_threshold": 5,
        "nodes": [a.name, b.name],
    });
    let wrong = json!({ "nodes": [a.name, "nobody@127.0.0.1"] });
    api.post(&path("start"), &wrong)?
        .refused(400, "BAD_REQUEST", &refused("unavailable_nodes"))?;
    api.post(&path("start"), &body)?.status(200)?;
    check_available(&a, false)?;
    check_available(&b, true)?;
    api.post(&path("start"), &body)?
        .refused(400, "BAD_REQUEST", &refused("already_started"))?;
    let own = api.get("/api/v5/load_rebalance/status")?.json()?;
    ensure!(own["process"] == "rebalance", "{own}");
    ensure!(own["coordinator_node"] == b.name, "{own}");
    ensure!(own["stats"]["current_connected"] == CLIENTS, "{own}");
    let all = api.get("/api/v5/load_rebalance/global_status")?.json()?;
    let row = &all["rebalances"][0];
    let parts = json!([row["node"], row["state"], row["donors"], row["recipients"]]);
    let expected = json!([b.name, "wait_health_check", [a.name], [b.name]]);
    ensure!(parts == expected, "{all}");
    let text = b.ctl(&["rebalance", "node-status", &a.name])?.ok()?.stdout;
    let begin = format!(
        "Rebalance type: rebalance\nRebalance state: wait_health_check\nCoordinator node: '{}'\n",
        b.name
    );
    ensure!(text.starts_with(&begin), "{text}");
    a.ctl(&["rebalance", "start", "--evacuation"])?
        .exit(1)?
        .prints("Rebalance is already enabled\n")?;
    b.ctl(&["rebalance", "stop"])?
        .ok()?
        .prints("Rebalance stopped\n")?;
    check_available(&a, true)?;
    api.post(&path("stop"), &json!({}))?
        .refused(400, "BAD_REQUEST", &refused("not_enabled"))?;

    api.post(&path("start"), &body)?.status(200)?;
    check_available(&a, false)?;
    b.kill9()?;
    until(LIMIT, "the donor is an ordinary node again", || {
        Ok(check_available(&a, true).is_ok())
    })?;
    a.ctl(&["rebalance", "node-status"])?
        .ok()?
        .prints("Rebalance disabled\n")?;
    for (_, client) in &mut clients {
        client.ping()?;
    }
    Ok(())
}
