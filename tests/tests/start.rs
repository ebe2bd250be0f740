//! Starting and stopping a node, and every way in which starting can fail.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::mosquitto::{self, Subscriber};
use dunlin_tests::{Installation, Node, Output, until};
use rustix::process::Signal;

/// A start that failed: exit code 1, never "started", no process left, and what the operator reads.
fn failed(node: &Node, says: &[&str]) -> Result<Output> {
    let output = node.emqx(&["start"])?.exit(1)?;
    ensure!(
        !output.stdout.contains("is started"),
        "it did not start: {output}"
    );
    for text in says {
        ensure!(
            output.stderr.contains(text),
            "stderr says {text:?}: {output}"
        );
    }
    let ping = node.emqx(&["ping"])?.exit(1)?;
    ensure!(ping.stdout.is_empty(), "nothing answers a ping: {ping}");
    Ok(output)
}

#[test]
fn b02_started_means_that_all_listeners_are_open() -> Result<()> {
    let node = Node::new()?;
    let output = node.start()?;
    let last = output.stdout.lines().last().unwrap_or_default();
    ensure!(last.ends_with(" is started successfully!"), "{output}");
    for address in [node.tcp(), node.ssl(), node.ws(), node.wss(), node.http()] {
        TcpStream::connect(address).with_context(|| format!("{address} right after start"))?;
    }
    ensure!(
        output.stderr.is_empty(),
        "nothing to complain about: {output}"
    );
    Ok(())
}

#[test]
fn n06_the_packaged_cookie_is_warned_about() -> Result<()> {
    let node = Node::new()?;
    node.start()?.says(
        "WARNING: Default (insecure) Erlang cookie is in use.\nWARNING: Configure node.cookie in ",
    )?;
    let other = Node::new()?.set("EMQX_NODE__COOKIE", "a-secret-of-our-own");
    let quiet = other.start()?;
    ensure!(!quiet.stdout.contains("cookie is in use"), "{quiet}");
    ensure!(
        !quiet.stdout.contains("a-secret-of-our-own"),
        "secrets are not printed: {quiet}"
    );
    Ok(())
}

#[test]
fn b12_relative_data_dir_lies_under_the_installation() -> Result<()> {
    let node = Node::new()?.set("EMQX_NODE__DATA_DIR", "./elsewhere/deep");
    node.start()?;
    ensure!(
        node.installation.root().join("elsewhere/deep").is_dir(),
        "made where it was asked"
    );
    Ok(())
}

#[test]
fn b07_a_second_start_says_already_running() -> Result<()> {
    let node = Node::started()?;
    let again = node.emqx(&["start"])?.exit(1)?;
    ensure!(
        again
            .stdout
            .ends_with(&format!("Node {} is already running!\n", node.name)),
        "{again}"
    );
    node.emqx(&["ping"])?.ok()?.prints("pong\n")?;
    Ok(())
}

#[test]
fn b04_stop_prints_ok_and_tells_version_5_clients_why() -> Result<()> {
    let node = Node::started()?;
    let watching = mosquitto::is_there("DISCONNECT at stop, with mosquitto");
    let mut client = watching
        .then(|| Subscriber::start(node.tcp(), &["-V", "mqttv5", "-t", "x"]))
        .transpose()?;
    let mut old = node.connect("v311")?;
    let pid = node.pid()?;
    let stopped = node.stop()?;
    ensure!(stopped.stdout.lines().last() == Some("ok"), "{stopped}");
    ensure!(!dunlin_tests::process::lives(pid), "gone when stop returns");
    if let Some(client) = &mut client {
        client
            .line_with("Received DISCONNECT (139)")
            .context("server shutting down (0x8B)")?;
    }
    old.closed()?;
    let again = node.emqx(&["stop"])?.exit(1)?;
    ensure!(again.stderr.contains("is not running"), "{again}");
    Ok(())
}

#[test]
fn b16_sigterm_stops_gracefully_and_sighup_does_nothing() -> Result<()> {
    let node = Node::started()?;
    node.connect("p")?.publish("kept/x", "value", 1, true)?;
    node.signal(Signal::HUP)?;
    node.emqx(&["ping"])?.ok()?;
    let mut client = node.connect("still here")?;
    client.ping()?;
    node.signal(Signal::TERM)?;
    until(Duration::from_secs(5), "SIGTERM ends the node", || {
        Ok(!node.lives())
    })?;
    client.closed()?;
    node.start()?;
    node.ctl(&["retainer", "topics"])?
        .ok()?
        .prints("kept/x\n")?;
    Ok(())
}

#[test]
fn b17_a_conf_edited_after_start_does_not_hide_the_running_node() -> Result<()> {
    let node = Node::started()?;
    node.installation
        .write_conf("this is { not a configuration")?;
    // Without EMQX_NODE__NAME: the one that runs is meant.
    let run = |args: &[&str]| node.installation.run("emqx", args, &[]);
    run(&["ping"])?.ok()?.prints("pong\n")?;
    run(&["ctl", "status"])?.ok()?.says("is started")?;
    run(&["stop"])?.ok()?;
    Ok(())
}

#[test]
fn c28_a_port_in_use_is_named_with_its_listener() -> Result<()> {
    for (variable, id) in [
        ("EMQX_LISTENERS__TCP__DEFAULT__BIND", "tcp:default"),
        ("EMQX_LISTENERS__WSS__DEFAULT__BIND", "wss:default"),
        ("EMQX_DASHBOARD__LISTENERS__HTTP__BIND", "http:dashboard"),
    ] {
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let address = taken.local_addr()?;
        let node = Node::new()?.set(variable, &address.to_string());
        failed(
            &node,
            &[&format!(
                "Failed to start listener {id} on {address}: eaddrinuse."
            )],
        )
        .with_context(|| variable.to_owned())?;
    }
    Ok(())
}

#[test]
fn n08_an_inter_node_port_in_use_is_named() -> Result<()> {
    let node = Node::new()?;
    let digits: u16 = node
        .name
        .trim_start_matches("emqx")
        .trim_end_matches("@127.0.0.1")
        .parse()
        .context("the test's names end with a number")?;
    let port = 4370 + digits;
    let _taken = TcpListener::bind(("127.0.0.1", port))?;
    failed(&node, &[&format!("port {port} is in use")]).map(drop)
}

#[test]
fn a_bind_that_is_no_address_of_this_machine() -> Result<()> {
    // TEST-NET-1 is nobody's.
    let node = Node::new()?.set("EMQX_LISTENERS__TCP__DEFAULT__BIND", "192.0.2.1:1883");
    let text = "Failed to start listener tcp:default on 192.0.2.1:1883: eaddrnotavail.";
    failed(&node, &[text, "listeners.tcp.default.bind"])?;
    let node = Node::new()?.set("EMQX_LISTENERS__TCP__DEFAULT__BIND", "nonsense");
    failed(&node, &["listeners.tcp.default.bind", "nonsense"]).map(drop)
}

#[test]
fn a_certificate_that_cannot_be_read() -> Result<()> {
    let installation = Installation::new()?;
    let folder = installation.root().join("secret");
    fs::create_dir(&folder)?;
    let cert = folder.join("cert.pem");
    fs::write(&cert, "not PEM")?;
    let with = |path: &str| -> Result<Node> {
        let node = Node::in_installation(&installation)?
            .set("EMQX_LISTENERS__SSL__DEFAULT__SSL_OPTIONS__CERTFILE", path);
        Ok(node)
    };
    let missing = folder.join("missing.pem");
    let missing = missing.to_string_lossy();
    failed(&with(&missing)?, &["ssl:default", "certfile", &missing])?;
    let cert_name = cert.to_string_lossy();
    failed(
        &with(&cert_name)?,
        &["ssl:default", "certfile", &cert_name, "PEM"],
    )?;
    if rustix::process::geteuid().is_root() {
        // Root reads everything; a directory it cannot read as a file.
        let folder = folder.to_string_lossy();
        failed(&with(&folder)?, &["ssl:default", "certfile", &folder])?;
    } else {
        fs::set_permissions(&cert, fs::Permissions::from_mode(0o000))?;
        failed(
            &with(&cert_name)?,
            &["ssl:default", "certfile", "ermission denied"],
        )?;
    }
    Ok(())
}

#[test]
fn a_data_directory_of_another_node_is_refused_with_the_cure() -> Result<()> {
    let first = Node::started()?;
    first.connect("p")?.publish("kept/x", "value", 1, true)?;
    first.stop()?;
    let data = first.data_dir().to_string_lossy().into_owned();
    let second = Node::in_installation(&first.installation)?.set("EMQX_NODE__DATA_DIR", &data);
    let output = failed(&second, &[&first.name, &second.name, "data directory"])?;
    ensure!(
        output.stderr.contains("EMQX_NODE__NAME") || output.stderr.contains("node.name"),
        "the cure is a command or a setting: {output}"
    );
    first.start().context("the data are untouched")?;
    first
        .ctl(&["retainer", "topics"])?
        .ok()?
        .prints("kept/x\n")?;
    Ok(())
}

#[test]
fn two_nodes_do_not_share_a_data_directory() -> Result<()> {
    let first = Node::started()?;
    let data = first.data_dir().to_string_lossy().into_owned();
    let second = Node::in_installation(&first.installation)?.set("EMQX_NODE__DATA_DIR", &data);
    failed(&second, &["data"])?;
    first.emqx(&["ping"])?.ok()?;
    Ok(())
}

#[test]
fn a_disabled_listener_is_not_opened() -> Result<()> {
    let node = Node::new()?.set("EMQX_LISTENERS__WS__DEFAULT__ENABLE", "false");
    node.start()?;
    TcpStream::connect(node.tcp())?;
    let refused = TcpStream::connect_timeout(&node.ws(), Duration::from_secs(1));
    ensure!(refused.is_err(), "nobody listens at {}", node.ws());
    Ok(())
}

#[test]
fn an_additional_listener_is_opened() -> Result<()> {
    let spare = TcpListener::bind("127.0.0.1:0")?;
    let address: SocketAddr = spare.local_addr()?;
    drop(spare);
    let node = Node::new()?.set("EMQX_LISTENERS__TCP__SECOND__BIND", &address.to_string());
    node.start()?;
    dunlin_tests::Client::connect(address, "c", true)?.ping()?;
    node.ctl(&["listeners"])?
        .ok()?
        .says(&format!("tcp:second\n  listen_on       : {address}\n"))?;
    Ok(())
}
