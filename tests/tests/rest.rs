//! The REST API in EMQX's shapes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::http::Api;
use dunlin_tests::node::{TOGETHER, cluster};
use dunlin_tests::until::until_eq;
use dunlin_tests::{Node, until};
use serde_json::{Value, json};

const PASSWORD: &str = "changed-1234";

/// Changes the default password, which opens everything else, and logs in.
fn admin(node: &Node) -> Result<Api> {
    let first = node.api().login("admin", "public")?;
    let change = json!({ "old_pwd": "public", "new_pwd": PASSWORD });
    first
        .post("/api/v5/users/admin/change_pwd", &change)?
        .status(204)?;
    node.api().login("admin", PASSWORD)
}

#[test]
fn the_default_password_opens_nothing_but_its_change() -> Result<()> {
    let node = Node::started()?;
    let login = json!({ "username": "admin", "password": "public" });
    let answer = node
        .api()
        .post("/api/v5/login", &login)?
        .status(200)?
        .json()?;
    ensure!(answer["license"]["edition"] == "opensource", "{answer}");
    ensure!(
        answer["version"].is_string() && answer["token"].is_string(),
        "{answer}"
    );
    let api = node.api().login("admin", "public")?;
    for path in ["/nodes", "/cluster", "/clients", "/users", "/api_key"] {
        let refused = api.get(&format!("/api/v5{path}"))?.status(403)?.json()?;
        ensure!(
            refused["code"] == "PASSWORD_CHANGE_REQUIRED",
            "{path}: {refused}"
        );
        let text = refused["message"].as_str().unwrap_or_default();
        ensure!(text.contains("change_pwd"), "the message says how: {text}");
    }
    let api = admin(&node)?;
    api.get("/api/v5/nodes")?.status(200)?;
    node.api().post("/api/v5/login", &login)?.status(401)?;
    // The way through the command line.
    let other = Node::started()?;
    other.ctl(&["admins", "passwd", "admin", PASSWORD])?.ok()?;
    other
        .api()
        .login("admin", PASSWORD)?
        .get("/api/v5/nodes")?
        .status(200)?;
    Ok(())
}

#[test]
fn r01_requests_without_valid_credentials() -> Result<()> {
    let node = Node::started()?;
    let api = node.api();
    let none = api.get("/api/v5/nodes")?;
    let realm = "Basic Realm=\"emqx-dashboard\"";
    ensure!(none.header("www-authenticate") == Some(realm), "{none:?}");
    none.refused(
        401,
        "AUTHORIZATION_HEADER_ERROR",
        "Support authorization: basic/bearer ",
    )?;
    api.with("Basic bm86Y2x1ZQ==")
        .get("/api/v5/nodes")?
        .refused(401, "BAD_API_KEY_OR_SECRET", "Check api_key/api_secret")?;
    let bad = api.with("Bearer nonsense").get("/api/v5/nodes")?;
    bad.refused(401, "BAD_TOKEN", "Get a token by POST /login")?;
    let wrong = json!({ "username": "admin", "password": "wrong-1234" });
    let refused = api.post("/api/v5/login", &wrong)?.status(401)?.json()?;
    ensure!(refused["code"] == "BAD_USERNAME_OR_PWD", "{refused}");
    let broken = api
        .request("POST", "/api/v5/login", Some("{not json"))?
        .status(400)?
        .json()?;
    ensure!(broken["code"] == "BAD_REQUEST", "{broken}");
    Ok(())
}

fn key_of(api: &Api, name: &str) -> Result<String> {
    let made = api.post("/api/v5/api_key", &json!({ "name": name, "enable": true }))?;
    let made = made.status(200)?.json()?;
    let text = |field: &str| {
        made[field]
            .as_str()
            .map(str::to_owned)
            .context(made.to_string())
    };
    let encoded = base64(&format!("{}:{}", text("api_key")?, text("api_secret")?));
    Ok(format!("Basic {encoded}"))
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place > chunk.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    out
}

#[test]
fn r02_r03_r04_a_key_of_one_node_is_valid_on_the_other() -> Result<()> {
    let nodes = cluster(2)?;
    let api = admin(&nodes[0])?;
    let key = key_of(&api, "ci")?;
    let mut names = [nodes[0].name.clone(), nodes[1].name.clone()];
    names.sort();
    for node in &nodes {
        let api = node.api().with(&key);
        let cluster = api.get("/api/v5/cluster")?.status(200)?.json()?;
        let expected = json!({ "name": "emqxcl", "nodes": names, "self": node.name });
        ensure!(cluster == expected, "{cluster}");
        let topology = api.get("/api/v5/cluster/topology")?.status(200)?.json()?;
        let row = |name: &String| json!({ "core_node": name, "replicant_nodes": [] });
        ensure!(
            topology == names.iter().map(row).collect::<Value>(),
            "{topology}"
        );
        let path = "/api/v5/users";
        let refused = api.get(path)?.status(401)?.json()?;
        ensure!(refused["code"] == "API_KEY_NOT_ALLOW", "{refused}");
    }
    Ok(())
}

#[test]
fn r05_invite_and_what_it_refuses() -> Result<()> {
    let (a, b) = (Node::started()?, Node::started()?);
    let api = admin(&a)?;
    let invite = |node: &str, body: Option<&str>| {
        api.request("PUT", &format!("/api/v5/cluster/{node}/invite"), body)
    };
    invite(&a.name, None)?.refused(400, "BAD_REQUEST", "Cannot invite self")?;
    invite("nonsense", None)?.refused(400, "BAD_REQUEST", "Bad node name")?;
    let short = Some(r#"{"timeout":4999}"#);
    let text = "timeout cannot be less than 5000ms";
    invite(&b.name, short)?.refused(400, "BAD_REQUEST", text)?;
    let word = Some(r#"{"timeout":"soon"}"#);
    invite(&b.name, word)?.refused(400, "BAD_REQUEST", "timeout must be an integer")?;
    let nobody = invite("emqx9@127.0.0.1", None)?;
    nobody.refused(400, "BAD_REQUEST", "nodedown")?;
    invite(&b.name, None)?.status(200)?;
    let nodes = api.get("/api/v5/cluster")?.status(200)?.json()?;
    let members = nodes["nodes"].as_array().map(Vec::len);
    ensure!(members == Some(2), "{nodes}");
    let term = format!("{{already_in_cluster,'{}'}}", b.name);
    invite(&b.name, None)?
        .refused(400, "BAD_REQUEST", &term)
        .map(drop)
}

#[test]
fn r06_r07_invitations_nobody_waits_for() -> Result<()> {
    let (a, b) = (Node::started()?, Node::started()?);
    let api = admin(&a)?;
    let invite = |node: &str| {
        let path = format!("/api/v5/cluster/{node}/invite_async");
        api.request("PUT", &path, None)
    };
    invite(&a.name)?.refused(400, "BAD_REQUEST", "Can't invite self")?;
    invite(&b.name)?.status(200)?;
    invite("emqx9@127.0.0.1")?.status(200)?;
    let list = || api.get("/api/v5/cluster/invitation")?.status(200)?.json();
    let ended = |list: &Value| {
        let count = |kind: &str| list[kind].as_array().map_or(0, Vec::len);
        (count("succeed"), count("in_progress"), count("failed"))
    };
    until_eq(TOGETHER, "both have ended", &(1, 0, 1), || {
        Ok(ended(&list()?))
    })?;
    let list = list()?;
    let good = &list["succeed"][0];
    ensure!(good["node"] == b.name.as_str(), "{list}");
    ensure!(good["started_at"].is_string() && good["finished_at"].is_string());
    let why = list["failed"][0]["reason"].as_str().unwrap_or_default();
    ensure!(why.contains("does not listen at"), "{list}");
    Ok(())
}

#[test]
fn r08_r09_r10_nodes_and_force_leave() -> Result<()> {
    let nodes = cluster(2)?;
    let (a, b) = (&nodes[0], &nodes[1]);
    let api = admin(a)?;
    let rows = api.get("/api/v5/nodes")?.status(200)?.json()?;
    let rows = rows.as_array().context("a list")?;
    ensure!(rows.len() == 2, "{rows:?}");
    for row in rows {
        running_row(row)?;
    }
    let one = api
        .get(&format!("/api/v5/nodes/{}", b.name))?
        .status(200)?
        .json()?;
    ensure!(one["node"] == b.name.as_str(), "{one}");
    let unknown = api.get("/api/v5/nodes/x@h")?;
    unknown.refused(404, "NOT_FOUND", "Node not found: x@h")?;

    b.kill9()?;
    a.sees(&[a], &[b], TOGETHER)?;
    let rows = api.get("/api/v5/nodes")?.status(200)?.json()?;
    let stopped = json!({ "node": b.name, "node_status": "stopped", "role": "core" });
    ensure!(rows[1] == stopped, "{rows}");
    let text = format!("Node not found: {}", b.name);
    api.get(&format!("/api/v5/nodes/{}", b.name))?
        .refused(404, "NOT_FOUND", &text)?;

    let force = |node: &str| {
        api.request(
            "DELETE",
            &format!("/api/v5/cluster/{node}/force_leave"),
            None,
        )
    };
    force(&a.name)?.refused(400, "BAD_REQUEST", "Can't leave self")?;
    force("x@h")?.refused(400, "BAD_REQUEST", "node_not_in_cluster")?;
    force(&b.name)?.status(204)?;
    a.sees(&[a], &[], TOGETHER).map(drop)
}

/// Fields and their types, as EMQX 5.8 has them.
fn running_row(row: &Value) -> Result<()> {
    let text = [
        "node",
        "version",
        "edition",
        "otp_release",
        "log_path",
        "sys_path",
    ];
    let numbers = [
        "connections",
        "live_connections",
        "cluster_sessions",
        "load1",
        "load5",
        "load15",
        "max_fds",
        "process_available",
        "process_used",
        "uptime",
    ];
    ensure!(text.iter().all(|field| row[field].is_string()), "{row}");
    ensure!(numbers.iter().all(|field| row[field].is_number()), "{row}");
    ensure!(
        row["node_status"] == "running" && row["role"] == "core",
        "{row}"
    );
    for field in ["memory_total", "memory_used"] {
        let memory = row[field].as_str().unwrap_or_default();
        let (number, unit) = memory.split_at(memory.len().saturating_sub(1));
        let decimals = number.split_once('.').map(|(_, decimals)| decimals.len());
        ensure!(
            "KMGT".contains(unit) && decimals == Some(2),
            "{field}: {row}"
        );
    }
    Ok(())
}

#[test]
fn r12_status_needs_no_login() -> Result<()> {
    let node = Node::started()?;
    for path in ["/status", "/api/v5/status"] {
        let answer = node.api().get(path)?.status(200)?;
        let expected = format!("Node {} is started\nemqx is running", node.name);
        ensure!(answer.body == expected, "{answer:?}");
        let answer = node
            .api()
            .get(&format!("{path}?format=json"))?
            .status(200)?
            .json()?;
        ensure!(answer["node_name"] == node.name.as_str(), "{answer}");
        ensure!(answer["broker_status"] == "started", "{answer}");
        ensure!(answer["app_status"] == "running", "{answer}");
        let version = answer["rel_vsn"].as_str().unwrap_or_default();
        ensure!(version.starts_with('v'), "{answer}");
    }
    Ok(())
}

#[test]
fn r13_lists_show_clients_of_all_nodes_and_name_the_node() -> Result<()> {
    let nodes = cluster(2)?;
    let mut clients = [nodes[0].connect("here")?, nodes[1].connect("there")?];
    for client in &mut clients {
        client.subscribe("t/#", 1)?;
    }
    let api = admin(&nodes[0])?;
    let listed = api.get("/api/v5/clients")?.status(200)?.json()?;
    ensure!(listed["meta"]["count"] == 2, "{listed}");
    for (clientid, node) in [("here", &nodes[0]), ("there", &nodes[1])] {
        let rows = listed["data"].as_array().context("rows")?;
        let row = rows.iter().find(|row| row["clientid"] == clientid);
        ensure!(
            row.is_some_and(|row| row["node"] == node.name.as_str()),
            "{clientid}: {listed}"
        );
        let one = api
            .get(&format!("/api/v5/clients/{clientid}"))?
            .status(200)?
            .json()?;
        ensure!(one["node"] == node.name.as_str(), "{one}");
    }
    let topics = api.get("/api/v5/topics")?.status(200)?.json()?;
    ensure!(topics["meta"]["count"] == 2, "one route per node: {topics}");
    api.request("DELETE", "/api/v5/clients/there", None)?
        .status(204)?;
    clients[1].closed()?;
    let nobody = api.get("/api/v5/clients/nobody")?.status(404)?.json()?;
    ensure!(nobody["code"] == "CLIENTID_NOT_FOUND", "{nobody}");
    Ok(())
}

#[test]
fn publishing_over_the_api_reaches_clients_of_both_nodes() -> Result<()> {
    let nodes = cluster(2)?;
    let api = admin(&nodes[0])?;
    for node in &nodes {
        let mut client = node.connect("c")?;
        client.subscribe("api/#", 1)?;
        let message = json!({ "topic": "api/x", "payload": "hello", "qos": 1 });
        let answer = api.post("/api/v5/publish", &message)?.status(200)?.json()?;
        ensure!(answer["id"].is_string(), "{answer}");
        ensure!(
            client.receive_payload()? == "hello",
            "to a client of {}",
            node.name
        );
    }
    let nobody = json!({ "topic": "nobody/here", "payload": "x" });
    let answer = api.post("/api/v5/publish", &nobody)?.status(202)?.json()?;
    ensure!(answer["reason_code"] == 16, "{answer}");
    Ok(())
}

#[test]
fn x14_bans_in_emqx_s_shapes_hold_on_all_nodes_until_they_end() -> Result<()> {
    let nodes = cluster(2)?;
    let api = admin(&nodes[0])?;
    let path = "/api/v5/banned";
    let mut stays = nodes[1].connect("bad")?;
    let ban = json!({ "as": "clientid", "who": "bad", "reason": "test", "by": "me" });
    let made = api.post(path, &ban)?.status(200)?.json()?;
    ensure!(made["until"] == "infinity" && made["by"] == "me", "{made}");
    ensure!(made["at"].is_string() && made["who"] == "bad", "{made}");
    let again = api.post(path, &ban)?.status(400)?.json()?;
    ensure!(again["code"] == "ALREADY_EXISTS", "{again}");
    let refused = || Ok(nodes[1].connect("bad").is_err());
    until(Duration::from_secs(1), "banned on the other node", refused)?;
    stays
        .ping()
        .context("who is connected stays until kicked")?;
    let listed = api
        .get(&format!("{path}?clientid=bad"))?
        .status(200)?
        .json()?;
    ensure!(listed["meta"]["count"] == 1, "{listed}");
    ensure!(listed["data"][0]["as"] == "clientid", "{listed}");
    for (field, value) in [
        ("as", "mood"),
        ("who", ""),
        ("until", "2001-01-01T00:00:00Z"),
    ] {
        let mut wrong = json!({ "as": "clientid", "who": "other" });
        wrong[field] = value.into();
        let body = api.post(path, &wrong)?.status(400)?.json()?;
        ensure!(body["code"] == "BAD_REQUEST", "{field}: {body}");
    }
    let soon = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs()
        + 2;
    let net = json!({ "as": "peerhost_net", "who": "127.0.0.0/8", "until": soon });
    api.post(path, &net)?.status(200)?;
    until(Duration::from_secs(1), "a network is banned", || {
        Ok(nodes[1].connect("anybody").is_err())
    })?;
    until(Duration::from_secs(4), "until its time", || {
        Ok(nodes[1].connect("anybody").is_ok())
    })?;
    let lift = format!("{path}/clientid/bad");
    api.request("DELETE", &lift, None)?.status(204)?;
    api.request("DELETE", &lift, None)?.status(404)?;
    until(Duration::from_secs(1), "lifted on the other node", || {
        Ok(nodes[1].connect("bad").is_ok())
    })?;
    let expression = json!({ "as": "clientid_re", "who": "^x-[0-9]+$" });
    api.post(path, &expression)?.status(200)?;
    until(Duration::from_secs(1), "an expression bans", || {
        Ok(nodes[1].connect("x-17").is_err() && nodes[1].connect("x-y").is_ok())
    })?;
    api.request("DELETE", path, None)?.status(204)?;
    until(Duration::from_secs(1), "all are lifted", || {
        Ok(nodes[1].connect("x-17").is_ok())
    })
    .map(drop)
}
