//! The operator's manual, "pseudo-distributed on a single host", typed as it stands.
//!
//! The commands use the well-known ports, so each test has a network of its own.

use anyhow::{Context, Result, ensure};
use dunlin_tests::mosquitto::{self, Subscriber, publish};
use dunlin_tests::{Installation, Node, Output, in_lab};
use std::net::SocketAddr;
use std::sync::Arc;

/// The manual's second node and its join, character for character.
const SECOND_NODE: &str = r#"EMQX_NODE__NAME='emqx2@127.0.0.1' \
    EMQX_STATSD__SERVER='127.0.0.1:8124' \
    EMQX_LISTENERS__TCP__DEFAULT__BIND='0.0.0.0:1882' \
    EMQX_LISTENERS__SSL__DEFAULT__BIND='0.0.0.0:8882' \
    EMQX_LISTENERS__WS__DEFAULT__BIND='0.0.0.0:8082' \
    EMQX_LISTENERS__WSS__DEFAULT__BIND='0.0.0.0:8085' \
    EMQX_DASHBOARD__LISTENERS__HTTP__BIND='0.0.0.0:18082' \
    EMQX_NODE__DATA_DIR="./data2" \
./bin/emqx start"#;
const JOIN: &str = "./bin/emqx_ctl cluster join emqx1@127.0.0.1";
const STATUS: &str = "./bin/emqx_ctl cluster status";

const FIRST: &str = "127.0.0.1:1883";
const SECOND: &str = "127.0.0.1:1882";

/// Starts both nodes and joins them as the manual says; the first one is called `first`.
fn follow(first: &str) -> Result<(Arc<Installation>, Output)> {
    let installation = Installation::new()?;
    let start = if first == "emqx@127.0.0.1" {
        "./bin/emqx start".to_owned()
    } else {
        format!("EMQX_NODE__NAME='{first}' ./bin/emqx start")
    };
    installation
        .shell(&start)?
        .ok()?
        .says("is started successfully!")?;
    installation
        .shell(SECOND_NODE)?
        .ok()?
        .says("is started successfully!")?;
    let joined = installation.shell(JOIN)?.ok()?;
    Ok((installation, joined))
}

#[test]
fn b10_b11_the_recipe_word_for_word() -> Result<()> {
    in_lab!(|_| {
        let (installation, joined) = follow("emqx1@127.0.0.1")?;
        let status = "Cluster status: [{running_nodes,['emqx1@127.0.0.1','emqx2@127.0.0.1']}]\n";
        joined.prints(&format!("Join the cluster successfully.\n{status}"))?;
        installation.shell(STATUS)?.ok()?.prints(status)?;
        for name in ["emqx1@127.0.0.1", "emqx2@127.0.0.1"] {
            let line = format!("EMQX_NODE__NAME='{name}' {STATUS}");
            installation.shell(&line)?.ok()?.prints(status)?;
        }
        ensure!(
            installation.root().join("data2").is_dir(),
            "./data2 is under the installation"
        );
        messages_cross()
    })
}

#[test]
fn b10_the_recipe_with_the_default_name_of_the_first_node() -> Result<()> {
    in_lab!(|_| {
        let (_installation, joined) = follow("emqx@127.0.0.1")?;
        joined.prints(
            "Join the cluster successfully.\n\
             Cluster status: [{running_nodes,['emqx2@127.0.0.1','emqx@127.0.0.1']}]\n",
        )?;
        Ok(())
    })
}

fn messages_cross() -> Result<()> {
    if !mosquitto::is_there("messages between the nodes of the manual, with mosquitto") {
        return Ok(());
    }
    for (here, there) in [(FIRST, SECOND), (SECOND, FIRST)] {
        let (here, there): (SocketAddr, SocketAddr) = (here.parse()?, there.parse()?);
        let mut reader = Subscriber::start(here, &["-q", "2", "-t", "hello/#"])?;
        for qos in ["0", "1", "2"] {
            publish(there, &["-q", qos, "-t", "hello/world", "-m", qos])?;
            reader.expect(&format!("0 {qos} hello/world {qos}"))?;
        }
        publish(there, &["-q", "1", "-r", "-t", "kept/world", "-m", "kept"])?;
        let mut late = Subscriber::start(here, &["-q", "1", "-t", "kept/#"])?;
        late.expect("1 1 kept/world kept")
            .context("retained on the other node")?;
        publish(there, &["-q", "1", "-r", "-t", "kept/world", "-n"])?;
    }
    Ok(())
}

#[test]
fn l03_joining_replaces_users_and_retained_messages_by_those_of_the_cluster() -> Result<()> {
    in_lab!(|_| {
        let installation = Installation::new()?;
        let first = Node::named(&installation, "emqx1@127.0.0.1");
        first.start()?;
        installation.shell(SECOND_NODE)?.ok()?;
        let second = Node::named(&installation, "emqx2@127.0.0.1");
        first.ctl(&["admins", "add", "alice", "alice-1234"])?.ok()?;
        second.ctl(&["admins", "add", "bob", "bob-12345"])?.ok()?;
        let (api1, api2) = (
            first.api(),
            dunlin_tests::http::Api::new("127.0.0.1:18082".parse()?),
        );
        api2.login("bob", "bob-12345").context("before the join")?;
        installation.shell(JOIN)?.ok()?;
        for (node, api) in [("first", &api1), ("second", &api2)] {
            api.login("alice", "alice-1234")
                .with_context(|| format!("alice on the {node}"))?;
            ensure!(
                api.login("bob", "bob-12345").is_err(),
                "bob is gone on the {node}"
            );
        }
        second
            .ctl(&["admins", "add", "carol", "carol-1234"])?
            .ok()?;
        api1.login("carol", "carol-1234")
            .context("a user added on the second node")
            .map(drop)
    })
}
