//! What an operator is told: status of everybody, diagnosis of a way, alarms, and what clients are
//! told when their node stops.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_tests::http::Api;
use dunlin_tests::node::{TOGETHER, cluster, together};
use dunlin_tests::until::until;
use dunlin_tests::{Client, Node};
use rustix::process::Signal;
use serde_json::{Value, json};

const PASSWORD: &str = "changed-1234";

/// No answer of a healthy node may take longer, whatever another one does.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long a silent node may take to be noticed.
const NOTICED: Duration = Duration::from_secs(8);

fn admin(node: &Node) -> Result<Api> {
    node.ctl(&["admins", "passwd", "admin", PASSWORD])?.ok()?;
    node.api().login("admin", PASSWORD)
}

fn alarms(api: &Api, activated: bool) -> Result<Vec<(String, String)>> {
    let path = format!("/api/v5/alarms?activated={activated}");
    let body = api.get(&path)?.status(200)?.json()?;
    let rows = body["data"].as_array().context("a page")?;
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok(rows
        .iter()
        .map(|row| (text(row, "node"), text(row, "name")))
        .collect())
}

#[test]
fn verbose_status_shows_every_node_and_names_what_is_wrong() -> Result<()> {
    let nodes = cluster(3)?;
    let [a, b, c] = &nodes[..] else {
        anyhow::bail!("three nodes");
    };
    let sound = "All nodes answer, see each other and hold the same.";
    until(TOGETHER, "all is in step", || {
        let said = a.ctl(&["cluster", "status", "--verbose"])?.ok()?;
        ensure!(said.stdout.contains(sound), "{said}");
        Ok(true)
    })?;
    let status = a.ctl(&["cluster", "status", "--verbose", "--json"])?.ok()?;
    let json: Value = serde_json::from_str(&status.stdout)?;
    let members = json["members"].as_array().context("members")?;
    ensure!(members.len() == 3, "{json}");
    for member in members.iter().filter(|m| m["node"] != a.name.as_str()) {
        ensure!(
            member["round_trip_us"].as_u64().is_some_and(|us| us > 0),
            "{member}"
        );
        ensure!(
            member["view"]["sees"].as_array().map(Vec::len) == Some(3),
            "{member}"
        );
    }
    c.signal(Signal::STOP)?;
    let asked = Instant::now();
    let said = a.ctl(&["cluster", "status", "--verbose"])?.ok()?;
    let took = asked.elapsed();
    c.signal(Signal::CONT)?;
    ensure!(took < ANSWER_MAX, "it took {took:?}");
    let advice = format!(
        "{} gives no answer; run 'emqx ctl cluster diagnose {}'",
        c.name, c.name
    );
    said.says(&advice)?.says(&b.name)?;
    together(&nodes)
}

#[test]
fn diagnose_walks_to_a_target_and_ends_with_the_cure() -> Result<()> {
    let (a, b) = (Node::started()?, Node::started()?);
    let good = a.ctl(&["cluster", "diagnose", &b.name])?.ok()?;
    let join = format!("Nothing stands against 'emqx ctl cluster join {}'", b.name);
    good.says("resolve")?
        .says("route")?
        .says("cookie")?
        .says(&join)?;
    let stranger = Node::new()?.set("EMQX_NODE__COOKIE", "another");
    stranger.start()?.ok()?;
    let bad = a.ctl(&["cluster", "diagnose", &stranger.name])?.exit(1)?;
    bad.says("cookie        FAILED")?
        .says("set the same node.cookie on both nodes")?;
    let refused = a.ctl(&["cluster", "join", &stranger.name])?.exit(1)?;
    refused.says("set the same node.cookie on both nodes")?;
    let nobody = a
        .ctl(&["cluster", "diagnose", "nobody@127.0.0.1"])?
        .exit(1)?;
    nobody
        .says("dial          FAILED")?
        .says("start it and check its name")?;
    let nowhere = a
        .ctl(&["cluster", "diagnose", "x@no.such.host.invalid"])?
        .exit(1)?;
    nowhere.says("resolve       FAILED")?.says("/etc/hosts")?;
    let own = a.ctl(&["cluster", "diagnose", &a.name])?.exit(1)?;
    own.says("is this node; name another one")?;
    a.ctl(&["cluster", "diagnose"])?
        .ok()?
        .says("This node is alone")?;
    b.join(&a)?;
    let member = a.ctl(&["cluster", "diagnose", "--json"])?.ok()?;
    let json: Value = serde_json::from_str(&member.stdout)?;
    ensure!(
        json[0]["node"] == b.name.as_str() && json[0]["ok"] == true,
        "{json}"
    );
    together(&[a, b])
}

#[test]
fn a_silent_member_is_an_alarm_on_every_survivor_until_it_is_back() -> Result<()> {
    let nodes = cluster(3)?;
    let [a, b, c] = &nodes[..] else {
        anyhow::bail!("three nodes");
    };
    let api = admin(a)?;
    let mut watcher = Client::connect(b.tcp(), "watcher", true)?;
    watcher.subscribe("$SYS/brokers/+/alarms/#", 0)?;
    c.signal(Signal::STOP)?;
    let of = |node: &Node, name: &str| (node.name.clone(), name.to_owned());
    let both = [of(a, "partition"), of(b, "partition")];
    until(NOTICED, "both raise it", || {
        let asked = Instant::now();
        let seen = alarms(&api, true)?;
        ensure!(asked.elapsed() < ANSWER_MAX, "{:?}", asked.elapsed());
        Ok(both.iter().all(|alarm| seen.contains(alarm)))
    })?;
    let told: Value = serde_json::from_str(&watcher.receive_payload()?)?;
    ensure!(told["name"] == "partition", "{told}");
    let text = format!("Partition occurs at node {}", c.name);
    ensure!(told["message"] == text.as_str(), "{told}");
    c.signal(Signal::CONT)?;
    until(NOTICED, "it is over", || Ok(alarms(&api, true)?.is_empty()))?;
    ensure!(alarms(&api, false)?.contains(&both[0]));
    api.request("DELETE", "/api/v5/alarms", None)?.status(204)?;
    ensure!(alarms(&api, false)?.is_empty());
    // A removal is shown until somebody has seen it.
    a.ctl(&["cluster", "force-leave", &c.name])?.ok()?;
    let removed = format!("removed_member/{}", c.name);
    until(TOGETHER, "the removal is shown", || {
        Ok(alarms(&api, true)?.contains(&of(b, &removed)))
    })?;
    let seen = json!({ "name": removed });
    api.post("/api/v5/alarms/force_deactivate", &seen)?
        .status(204)?;
    ensure!(alarms(&api, true)?.is_empty());
    let again = api.post("/api/v5/alarms/force_deactivate", &seen)?;
    again.status(404)?;
    Ok(())
}

#[test]
fn r13_r14_clients_and_counters_of_other_nodes_are_shown_in_full() -> Result<()> {
    let nodes = cluster(2)?;
    let (a, b) = (&nodes[0], &nodes[1]);
    let api = admin(a)?;
    let mut client = b.connect("there")?;
    client.subscribe("t/#", 1)?;
    let one = || api.get("/api/v5/clients/there")?.status(200)?.json();
    until(TOGETHER, "the client is known", || Ok(one().is_ok()))?;
    let row = one()?;
    ensure!(row["node"] == b.name.as_str(), "{row}");
    ensure!(
        row["ip_address"] == "127.0.0.1" && row["subscriptions_cnt"] == 1,
        "{row}"
    );
    let list = api
        .get("/api/v5/clients?ip_address=127.0.0.1")?
        .status(200)?
        .json()?;
    ensure!(list["data"][0]["proto_ver"] == 4, "{list}");
    let subscriptions = api.get("/api/v5/subscriptions")?.status(200)?.json()?;
    ensure!(
        subscriptions["data"][0]["topic"] == "t/#",
        "{subscriptions}"
    );
    let body = json!({ "topic": "more", "qos": 1 });
    let made = api
        .post("/api/v5/clients/there/subscribe", &body)?
        .status(200)?
        .json()?;
    ensure!(
        made["node"] == b.name.as_str() && made["topic"] == "more",
        "{made}"
    );
    let metrics = api.get("/api/v5/metrics")?.status(200)?.json()?;
    let both = metrics.as_array().map(Vec::len);
    ensure!(both == Some(2), "{metrics}");
    let path = format!("/api/v5/nodes/{}/metrics", b.name);
    let theirs = api.get(&path)?.status(200)?.json()?;
    ensure!(theirs["client.connected"].as_u64() >= Some(1), "{theirs}");
    api.request("DELETE", "/api/v5/clients/there", None)?
        .status(204)?;
    client.closed()
}

/// Connects a client of MQTT 5 and returns its socket after CONNACK.
fn connect_v5(node: &Node) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(node.tcp())?;
    stream.set_read_timeout(Some(TOGETHER))?;
    // Clean start, keep alive 60 s, no properties, client id "five".
    let connect = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04five";
    stream.write_all(connect)?;
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    ensure!(head[0] == 0x20, "CONNACK");
    let mut rest = vec![0; usize::from(head[1])];
    stream.read_exact(&mut rest)?;
    ensure!(rest[1] == 0, "refused: {:#x}", rest[1]);
    Ok(stream)
}

#[test]
fn b04_clients_of_a_stopping_node_are_told_where_to_go() -> Result<()> {
    let nodes = cluster(2)?;
    let (a, b) = (&nodes[0], &nodes[1]);
    let path = format!("/api/v5/nodes/{}", b.name);
    let api = admin(a)?;
    api.get(&path)?.status(200)?;
    let mut five = connect_v5(a)?;
    a.stop()?.ok()?;
    let mut said = Vec::new();
    five.read_to_end(&mut said)?;
    ensure!(
        said[0] == 0xE0 && said[2] == 0x9C,
        "DISCONNECT, use another server: {said:x?}"
    );
    let reference = format!("127.0.0.1:{}", b.tcp().port());
    let text = String::from_utf8_lossy(&said);
    ensure!(text.contains(&reference), "{reference}: {text}");
    // Alone there is nowhere to go.
    let mut last = connect_v5(b)?;
    b.stop()?.ok()?;
    let mut said = Vec::new();
    last.read_to_end(&mut said)?;
    ensure!(
        said[0] == 0xE0 && said[2] == 0x8B,
        "DISCONNECT, shutting down: {said:x?}"
    );
    Ok(())
}

#[test]
fn a_start_right_after_a_kill_succeeds() -> Result<()> {
    let node = Node::started()?;
    for _ in 0..10 {
        let pid = node.pid()?;
        dunlin_tests::process::signal(pid, Signal::KILL);
        node.start()?.ok()?.says("is started successfully!")?;
    }
    let again = node.emqx(&["start"])?.exit(1)?;
    again.says("is already running!").map(drop)
}
