//! Wills of clients whose node is gone.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunlin_tests::mosquitto::{self, Subscriber};
use dunlin_tests::node::{cluster, together};
use dunlin_tests::{Client, Node, until_eq};

/// A death is seen within a second, and a will without delay follows at once; the rest is for a
/// busy machine.
const SOON: Duration = Duration::from_secs(5);

/// A client of `node` with a retained will, kept until it is dropped.
fn with_will(node: &Node, clientid: &str, delay_s: &str) -> Result<Subscriber> {
    // A new filter: its SUBACK says that the other nodes have what came before it, the will too.
    let own_topic = format!("none/{clientid}");
    let args = [
        "-V",
        "5",
        "-i",
        clientid,
        "-c",
        "-x",
        "300",
        "-t",
        &own_topic,
        "--will-topic",
        "will/of",
        "--will-payload",
        clientid,
        "--will-qos",
        "1",
        "--will-retain",
        "-D",
        "will",
        "will-delay-interval",
        delay_s,
    ];
    Subscriber::start(node.tcp(), &args)
}

/// The next message of a client comes soon and is this.
fn receives(client: &mut Client, payload: &str) -> Result<()> {
    let asked = Instant::now();
    let got = client.receive_payload()?;
    ensure!(got == payload, "the will of {payload}, not {got}");
    ensure!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
    Ok(())
}

fn nothing(client: &mut Client) -> Result<()> {
    client.ping()?;
    ensure!(client.pending() == 0, "nothing more was published");
    Ok(())
}

#[test]
fn a_will_of_a_killed_node_is_published_once_to_every_survivor() -> Result<()> {
    if !mosquitto::is_there("wills of a dead node") {
        return Ok(());
    }
    let nodes = cluster(3)?;
    let mut watchers = [nodes[1].connect("w1")?, nodes[2].connect("w2")?];
    for watcher in &mut watchers {
        watcher.subscribe("will/#", 1)?;
    }
    let at_once = with_will(&nodes[0], "at-once", "0")?;
    let later = with_will(&nodes[0], "later", "4")?;
    nodes[0].kill9()?;
    // Otherwise Mosquitto would connect again and take its will back.
    drop((at_once, later));
    for watcher in &mut watchers {
        receives(watcher, "at-once")?;
        nothing(watcher)?;
    }
    // The node is back before the other one is due; its client is not.
    nodes[0].start()?;
    together(&nodes)?;
    for watcher in &mut watchers {
        receives(watcher, "later")?;
        nothing(watcher)?;
    }
    // Retained, it reaches the node that was away, too.
    let observe = || {
        let mut late = nodes[0].connect("late")?;
        late.subscribe("will/of", 1)?;
        late.receive_payload()
    };
    until_eq(SOON, "the retained will", &"later".to_owned(), observe).map(drop)
}

#[test]
fn a_client_that_comes_back_in_time_and_a_node_that_stops_in_order_set_off_nothing() -> Result<()> {
    if !mosquitto::is_there("wills of a dead node") {
        return Ok(());
    }
    let nodes = cluster(2)?;
    let mut watcher = nodes[1].connect("watcher")?;
    watcher.subscribe("will/#", 1)?;
    // Mosquitto connects again by itself as soon as its node is back.
    let crashed = with_will(&nodes[0], "crashed", "7")?;
    nodes[0].kill9()?;
    nodes[0].start()?;
    together(&nodes)?;
    let stopped = with_will(&nodes[0], "stopped", "7")?;
    nodes[0].stop()?;
    let moved = with_will(&nodes[1], "stopped", "7")?;
    nodes[0].start()?;
    together(&nodes)?;
    // When the will of a client that is gone for good comes, the others would long have come.
    let lost = with_will(&nodes[1], "lost", "8")?;
    drop(lost);
    ensure!(watcher.receive_payload()? == "lost", "no other will came");
    nothing(&mut watcher)?;
    drop((crashed, stopped, moved));
    Ok(())
}
