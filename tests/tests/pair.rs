//! Two joined nodes are one broker.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::node::cluster;
use dunlin_tests::{Client, Node, paho, until_eq};

use crate::mqtt::{check_v5, each_once};

fn pair() -> Result<[Node; 2]> {
    cluster(2)?.try_into().ok().context("two nodes")
}

#[test]
fn x01_messages_of_all_qos_and_wildcards_cross_in_both_directions() -> Result<()> {
    let nodes = pair()?;
    for (from, to) in [(0, 1), (1, 0)] {
        let mut publisher = nodes[from].connect("publisher")?;
        for filter in ["cross/exact", "cross/+", "cross/#"] {
            let mut reader = nodes[to].connect("reader")?;
            reader.subscribe(filter, 2)?;
            for qos in 0..3 {
                let payload = format!("{filter} at {qos}");
                publisher.publish("cross/exact", &payload, qos, false)?;
                let message = reader.receive()?;
                ensure!(
                    message.payload == payload && message.qos == qos && !message.retain,
                    "{payload} from node {from}: {message:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn x11_retained_messages_are_on_both_nodes_and_deleted_on_both() -> Result<()> {
    let nodes = pair()?;
    for (from, to) in [(0, 1), (1, 0)] {
        let topic = format!("kept/{from}");
        let mut publisher = nodes[from].connect("publisher")?;
        publisher.publish(&topic, "value", 1, true)?;
        let info = |count: u32| format!("Number of retained messages: {count}\n");
        let observe = || Ok(nodes[to].ctl(&["retainer", "info"])?.ok()?.stdout);
        until_eq(Duration::from_secs(2), "retained there", &info(1), observe)?;
        let mut reader = nodes[to].connect("reader")?;
        reader.subscribe("kept/#", 1)?;
        let message = reader.receive()?;
        ensure!(message.payload == "value" && message.retain, "{message:?}");
        publisher.publish(&topic, "", 1, true)?;
        until_eq(Duration::from_secs(2), "deleted there", &info(0), observe)?;
    }
    Ok(())
}

#[test]
fn first_publish_after_suback_arrives_from_the_other_node_100_times() -> Result<()> {
    let nodes = pair()?;
    let mut reader = nodes[0].connect("reader")?;
    let mut publisher = nodes[1].connect("publisher")?;
    for round in 0..100 {
        let topic = format!("first/{round}");
        reader.subscribe(&topic, 1)?;
        // QoS 0: nothing would repeat it.
        publisher.publish(&topic, "first", 0, false)?;
        let message = reader
            .receive()
            .with_context(|| format!("the first message on {topic}"))?;
        ensure!(message.topic == topic, "{topic}: {message:?}");
    }
    Ok(())
}

#[test]
fn x02_order_is_kept_across_nodes_and_nothing_comes_twice() -> Result<()> {
    /// Unread at once: well below what a session queues before it drops (1000).
    const BURST: u32 = 250;
    const BURSTS: u32 = 8;
    let nodes = pair()?;
    for qos in 0..3 {
        let mut reader = nodes[0].connect("reader")?;
        reader.subscribe("order/#", qos)?;
        let mut publisher = nodes[1].connect("publisher")?;
        for number in (0..BURSTS).flat_map(|burst| burst * BURST..(burst + 1) * BURST) {
            // QoS 0 and 1 are in flight all at once; QoS 2 waits for each.
            if qos == 2 {
                publisher.publish("order/x", &number.to_string(), 2, false)?;
            } else {
                publisher.send_publish("order/x", &number.to_string(), qos, false)?;
            }
            if number % BURST < BURST - 1 {
                continue;
            }
            for expected in number + 1 - BURST..=number {
                let what = || format!("message {expected} at QoS {qos}");
                let payload = reader.receive_payload().with_context(what)?;
                ensure!(payload == expected.to_string(), "{}, got {payload}", what());
            }
        }
    }
    Ok(())
}

#[test]
fn x06_takeover_by_the_other_node_brings_subscriptions_and_queue() -> Result<()> {
    let nodes = pair()?;
    let mut traveller = Client::connect(nodes[0].tcp(), "traveller", false)?;
    traveller.subscribe("queue/#", 2)?;
    drop(traveller);
    let mut publisher = nodes[1].connect("publisher")?;
    for number in 0..50 {
        publisher.publish("queue/x", &number.to_string(), 1 + number % 2, false)?;
    }
    let mut traveller = Client::connect(nodes[1].tcp(), "traveller", false)?;
    ensure!(
        traveller.session_present,
        "the session is found on the other node"
    );
    for number in 0..50 {
        let message = traveller
            .receive()
            .with_context(|| format!("queued message {number}"))?;
        ensure!(
            message.payload == number.to_string(),
            "{number}: {message:?}"
        );
    }
    // The acknowledgements are there too, so that nothing is to be sent again.
    traveller.ping()?;
    // And back, while connected.
    let mut back = Client::connect(nodes[0].tcp(), "traveller", false)?;
    ensure!(back.session_present, "the session comes back");
    traveller.closed()?;
    publisher.publish("queue/x", "after", 1, false)?;
    let message = back.receive()?;
    ensure!(
        message.payload == "after",
        "the subscription came back too: {message:?}"
    );
    Ok(())
}

#[test]
fn x05_clean_session_on_one_node_discards_the_session_of_the_other() -> Result<()> {
    let nodes = pair()?;
    let mut old = Client::connect(nodes[0].tcp(), "fresh", false)?;
    old.subscribe("old/#", 1)?;
    let new = Client::connect(nodes[1].tcp(), "fresh", true)?;
    ensure!(!new.session_present, "a clean session has no past");
    old.closed()?;
    drop(new);
    let observe = || Ok(nodes[1].ctl(&["topics", "list"])?.ok()?.stdout);
    until_eq(
        Duration::from_secs(2),
        "its route is gone",
        &"No topics.\n".to_owned(),
        observe,
    )
    .map(drop)
}

#[test]
fn x10_shared_group_across_nodes_has_one_receiver() -> Result<()> {
    let nodes = pair()?;
    let mut members = [nodes[0].connect("m0")?, nodes[1].connect("m1")?];
    for member in &mut members {
        member.subscribe("$share/g/work", 1)?;
    }
    let mut publisher = nodes[0].connect("publisher")?;
    for number in 0..100 {
        publisher.publish("work", &number.to_string(), 1, false)?;
    }
    each_once(&mut members, 100)
}

#[test]
fn mqtt_5_across_two_nodes_with_paho() -> Result<()> {
    let nodes = pair()?;
    let ports = [&nodes[0], &nodes[1]].map(|node| node.tcp().port().to_string());
    let args = ["127.0.0.1", &ports[0], "127.0.0.1", &ports[1]];
    let Some(seen) = paho::run("v5.py", &args)? else {
        return Ok(());
    };
    check_v5(&seen)
}

#[test]
fn t24_t25_routes_and_clients_of_all_nodes_are_seen_from_any() -> Result<()> {
    let nodes = pair()?;
    let mut far = nodes[1].connect("far")?;
    far.subscribe("far/+", 1)?;
    let line = format!("far/+ -> {}\n", nodes[1].name);
    nodes[0].ctl(&["topics", "list"])?.ok()?.prints(&line)?;
    nodes[0]
        .ctl(&["topics", "show", "far/+"])?
        .ok()?
        .prints(&line)?;
    nodes[0]
        .ctl(&["clients", "kick", "far"])?
        .ok()?
        .prints("ok\n")?;
    far.closed()?;
    let observe = || Ok(nodes[0].ctl(&["topics", "list"])?.ok()?.stdout);
    until_eq(
        Duration::from_secs(2),
        "its route is gone",
        &"No topics.\n".to_owned(),
        observe,
    )
    .map(drop)
}
