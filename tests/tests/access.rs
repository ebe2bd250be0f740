//! Passwords and rules, as an operator sets them up and clients meet them.

use anyhow::{Context, Result, ensure};
use dunlin_tests::http::Api;
use dunlin_tests::node::together;
use dunlin_tests::{Client, Installation, Node, mosquitto};
use serde_json::json;

const USERS: &str = "/api/v5/authentication/password_based%3Abuilt_in_database/users";

/// As docs/access.md says.
const CONF: &str = "
authentication = [
  { mechanism = password_based, backend = built_in_database, \
    password_hash_algorithm { name = bcrypt } }
]
authorization.no_match = deny
";

fn node() -> Result<Node> {
    let installation = Installation::new()?;
    installation.configure(CONF)?;
    std::fs::write(
        installation.root().join("etc/acl.conf"),
        "%% everybody has a place of their own\n\
         {allow, all, all, [\"own/${username}/#\"]}.\n{allow, all, subscribe, [\"news/+\"]}.\n",
    )?;
    let node = Node::in_installation(&installation)?;
    node.start()?;
    Ok(node)
}

fn admin(node: &Node) -> Result<Api> {
    node.ctl(&["admins", "passwd", "admin", "changed-1234"])?
        .ok()?;
    node.api().login("admin", "changed-1234")
}

/// Whether mosquitto gets a subscription to `filter` as this user.
fn subscribes(node: &Node, user: &str, password: &str, filter: &str) -> bool {
    let args = ["-V", "5", "-u", user, "-P", password, "-t", filter];
    let Ok(output) = mosquitto::subscribe_and_leave(node.tcp(), &args) else {
        return false;
    };
    !(output.stdout + &output.stderr).contains("denied")
}

#[test]
fn a_user_added_on_one_member_connects_to_another_and_has_its_rules() -> Result<()> {
    if !mosquitto::is_there("passwords and rules") {
        return Ok(());
    }
    let nodes = [node()?, node()?];
    nodes[1].join(&nodes[0])?;
    together(&nodes)?;
    ensure!(
        Client::connect(nodes[0].tcp(), "nobody", true).is_err(),
        "nobody is let in without a password"
    );
    let ann = json!({ "user_id": "ann", "password": "secret" });
    let added = admin(&nodes[0])?.post(USERS, &ann)?.status(201)?.json()?;
    ensure!(added["is_superuser"] == false, "{added}");
    for node in &nodes {
        ensure!(
            subscribes(node, "ann", "secret", "own/ann/#"),
            "ann, on {}",
            node.name
        );
        ensure!(
            !subscribes(node, "ann", "wrong", "own/ann/#"),
            "a wrong password"
        );
        for filter in ["#", "own/+/x", "news/#"] {
            ensure!(!subscribes(node, "ann", "secret", filter), "{filter}");
        }
        ensure!(subscribes(node, "ann", "secret", "news/+"), "news");
    }
    let publish = |topic: &str| {
        let args = [
            "-V", "5", "-d", "-q", "1", "-u", "ann", "-P", "secret", "-t", topic, "-m", "x",
        ];
        mosquitto::publish(nodes[1].tcp(), &args)
    };
    publish("own/ann/x").context("her own topic")?;
    let refused = publish("news/x")?;
    let said = refused.stdout + &refused.stderr;
    ensure!(said.to_lowercase().contains("not authorized"), "{said}");
    Ok(())
}

#[test]
fn a_fault_in_the_rules_is_told_at_the_start() -> Result<()> {
    let installation = Installation::new()?;
    let rules = "{allow, all}.\n{deny, {usr, \"x\"}, all, [\"#\"]}.\n";
    std::fs::write(installation.root().join("etc/acl.conf"), rules)?;
    let node = Node::in_installation(&installation)?;
    let output = node.emqx(&["start"])?;
    let said = format!("{output}");
    ensure!(output.ok().is_err(), "it must not start: {said}");
    ensure!(
        said.contains("acl.conf") && said.contains("line 2") && said.contains("username"),
        "the file, the line and the cure: {said}"
    );
    Ok(())
}
