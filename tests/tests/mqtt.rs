//! One node, spoken to by clients that are not ours.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::mosquitto::{self, Subscriber, publish, subscribe_and_leave};
use dunlin_tests::{Client, Node, paho, until};
use serde_json::json;

const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

#[test]
fn qos_0_1_2_in_both_versions_with_mosquitto() -> Result<()> {
    if !mosquitto::is_there("QoS with mosquitto") {
        return Ok(());
    }
    let node = Node::started()?;
    for subscriber in VERSIONS {
        for qos in ["0", "1", "2"] {
            let args = ["-V", subscriber, "-q", qos, "-t", "qos/+"];
            let mut receiver = Subscriber::start(node.tcp(), &args)?;
            for publisher in VERSIONS {
                let args = ["-V", publisher, "-q", "2", "-t", "qos/t", "-m", publisher];
                publish(node.tcp(), &args)?;
                receiver.expect(&format!("0 {qos} qos/t {publisher}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn wildcards_match_levels() -> Result<()> {
    let node = Node::started()?;
    let mut client = node.connect("wild")?;
    client.subscribe("a/+/c", 1)?;
    client.subscribe("b/#", 1)?;
    for topic in [
        "a/b/c", "a//c", "a/b/c/d", "a/c", "b", "b/x/y", "c/b/x", "$SYS/b/x",
    ] {
        client.publish(topic, topic, 1, false)?;
    }
    client.publish("b/last", "last", 1, false)?;
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("last") {
        seen.push(client.receive_payload()?);
    }
    ensure!(
        seen == ["a/b/c", "a//c", "b", "b/x/y", "last"],
        "matched: {seen:?}"
    );
    Ok(())
}

#[test]
fn retained_messages_are_replayed_replaced_and_deleted() -> Result<()> {
    if !mosquitto::is_there("retained messages with mosquitto") {
        return Ok(());
    }
    let node = Node::started()?;
    let mut live = Subscriber::start(node.tcp(), &["-t", "kept/#", "-q", "1"])?;
    publish(node.tcp(), &["-r", "-q", "1", "-t", "kept/a", "-m", "one"])?;
    publish(node.tcp(), &["-r", "-q", "1", "-t", "kept/a", "-m", "two"])?;
    live.expect("0 1 kept/a one")?;
    live.expect("0 1 kept/a two")?;
    let mut late = Subscriber::start(node.tcp(), &["-t", "kept/#", "-q", "1"])?;
    late.expect("1 1 kept/a two")?;
    publish(node.tcp(), &["-r", "-q", "1", "-t", "kept/a", "-n"])?;
    late.expect("0 1 kept/a ")?;
    let mut after = node.connect("after")?;
    after.subscribe("kept/#", 1)?;
    after.ping()?;
    ensure!(
        after.pending() == 0,
        "a deleted retained message is not replayed"
    );
    Ok(())
}

#[test]
fn shared_subscription_gives_each_message_to_one_member() -> Result<()> {
    let node = Node::started()?;
    let mut members = [node.connect("m1")?, node.connect("m2")?];
    for member in &mut members {
        member.subscribe("$share/group/work/#", 1)?;
    }
    let mut publisher = node.connect("publisher")?;
    for number in 0..100 {
        publisher.publish("work/x", &number.to_string(), 1, false)?;
    }
    each_once(&mut members, 100)
}

/// The members together receive the payloads 0 to `count`, each once, and each member some.
pub(crate) fn each_once(members: &mut [Client], count: usize) -> Result<()> {
    let mut seen: Vec<usize> = Vec::new();
    let mut shares = vec![0; members.len()];
    until(Duration::from_secs(10), "the members received all", || {
        for (member, share) in members.iter_mut().zip(&mut shares) {
            // Acknowledging what came makes room for more.
            member.ping()?;
            *share += member.pending();
            for _ in 0..member.pending() {
                seen.push(member.receive_payload()?.parse()?);
            }
        }
        Ok(seen.len() >= count)
    })?;
    seen.sort_unstable();
    ensure!(
        seen.iter().copied().eq(0..count),
        "each message once: {seen:?}"
    );
    ensure!(!shares.contains(&0), "every member gets some: {shares:?}");
    Ok(())
}

#[test]
fn will_is_published_when_a_connection_breaks_and_not_after_disconnect() -> Result<()> {
    if !mosquitto::is_there("will messages with mosquitto") {
        return Ok(());
    }
    let node = Node::started()?;
    let mut reader = node.connect("reader")?;
    reader.subscribe("will/#", 1)?;
    let will = |topic| {
        [
            "-t",
            "x",
            "--will-topic",
            topic,
            "--will-qos",
            "1",
            "--will-payload",
            "w",
        ]
    };
    subscribe_and_leave(node.tcp(), &will("will/polite"))?;
    Subscriber::start(node.tcp(), &will("will/broken"))?.kill9()?;
    let message = reader.receive()?;
    ensure!(
        message.topic == "will/broken",
        "only the broken one has a will: {message:?}"
    );
    Ok(())
}

#[test]
fn session_resumes_with_queued_messages_in_both_versions() -> Result<()> {
    if !mosquitto::is_there("session resume with mosquitto") {
        return Ok(());
    }
    let node = Node::started()?;
    for version in VERSIONS {
        for qos in ["1", "2"] {
            resumes(&node, version, qos).with_context(|| format!("{version}, QoS {qos}"))?;
        }
    }
    Ok(())
}

fn resumes(node: &Node, version: &str, qos: &str) -> Result<()> {
    let mut args = vec![
        "-V", version, "-c", "-i", "keeper", "-q", qos, "-t", "queue/#",
    ];
    if version == "mqttv5" {
        args.extend(["-x", "600"]);
    }
    Subscriber::start(node.tcp(), &args)?.kill9()?;
    let mut publisher = node.connect("publisher")?;
    for number in 0..20 {
        publisher.publish("queue/x", &number.to_string(), 2, false)?;
    }
    let mut again = Subscriber::start_unawaited(node.tcp(), &args)?;
    for number in 0..20 {
        again.expect(&format!("0 {qos} queue/x {number}"))?;
    }
    again.kill9()?;
    let mut clean = node.connect("keeper")?;
    ensure!(!clean.session_present, "a clean session forgets");
    clean.ping()
}

#[test]
fn takeover_closes_the_older_connection_and_keeps_the_session() -> Result<()> {
    let node = Node::started()?;
    let mut old = Client::connect(node.tcp(), "same", false)?;
    old.subscribe("t/#", 1)?;
    let mut new = Client::connect(node.tcp(), "same", false)?;
    ensure!(new.session_present, "the session is handed over");
    old.closed()?;
    new.publish("t/x", "to myself", 1, false)?;
    ensure!(
        new.receive_payload()? == "to myself",
        "the subscription came along"
    );
    Ok(())
}

#[test]
fn tls_with_the_certificate_made_at_first_start() -> Result<()> {
    if !mosquitto::is_there("TLS with mosquitto") {
        return Ok(());
    }
    let node = Node::started()?;
    let ca = node.installation.root().join("etc/certs/cacert.pem");
    ensure!(ca.is_file(), "{} is made at the first start", ca.display());
    let ca = ca.to_string_lossy().into_owned();
    let tls = ["--cafile", &ca, "--insecure"];
    let args = [&tls[..], &["-t", "tls/#", "-q", "1"]].concat();
    let mut receiver = Subscriber::start(node.ssl(), &args)?;
    publish(
        node.ssl(),
        &[&tls[..], &["-t", "tls/x", "-q", "1", "-m", "sealed"]].concat(),
    )?;
    receiver.expect("0 1 tls/x sealed")?;
    // And a client that does check the name.
    publish(
        node.ssl(),
        &["--cafile", &ca, "-t", "tls/x", "-q", "1", "-m", "verified"],
    )?;
    receiver.expect("0 1 tls/x verified")
}

#[test]
fn websocket_and_wss_with_paho() -> Result<()> {
    let node = Node::started()?;
    let trip = json!([
        ["ws/0", 10, 0],
        ["ws/1", 10, 1],
        ["ws/2", 10, 2],
        ["ws/large", 300_000, 1]
    ]);
    let expected = json!({ "v311": trip, "v5": trip });
    for (address, tls) in [(node.ws(), None), (node.wss(), Some("tls"))] {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let mut args = vec![ip.as_str(), port.as_str()];
        args.extend(tls);
        let Some(seen) = paho::run("websocket.py", &args)? else {
            return Ok(());
        };
        ensure!(seen == expected, "{tls:?}: {seen}");
    }
    Ok(())
}

#[test]
fn mqtt_5_with_paho() -> Result<()> {
    let node = Node::started()?;
    let port = node.tcp().port().to_string();
    let Some(seen) = paho::run("v5.py", &["127.0.0.1", &port])? else {
        return Ok(());
    };
    check_v5(&seen)
}

/// What `v5.py` must have seen, on one node or across two.
pub(crate) fn check_v5(seen: &serde_json::Value) -> Result<()> {
    let numbers: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let properties = &seen["properties"];
    ensure!(properties["ContentType"] == "text/plain", "{properties}");
    ensure!(properties["ResponseTopic"] == "answer/here", "{properties}");
    ensure!(properties["CorrelationData"] == "0102", "{properties}");
    ensure!(properties["PayloadFormatIndicator"] == 1, "{properties}");
    ensure!(
        properties["SubscriptionIdentifier"] == json!([7]),
        "{properties}"
    );
    ensure!(
        properties["UserProperty"] == json!([["a", "1"], ["b", "2"], ["a", "3"]]),
        "user properties keep their order: {properties}"
    );
    let resume = json!({ "first": false, "again": true, "payloads": numbers });
    ensure!(
        seen["resume"] == resume,
        "session resume: {}",
        seen["resume"]
    );
    let takeover =
        json!({ "old ended with": 0x8E, "present": true, "payloads": ["still subscribed"] });
    ensure!(
        seen["takeover"] == takeover,
        "takeover: {}",
        seen["takeover"]
    );
    ensure!(seen["will"] == json!(["gone"]), "will: {}", seen["will"]);
    let options = json!({
        "never": "mine",
        "replayed": ["old", true],
        "as published": seen["options"]["as published"],
        "own": ["theirs"],
    });
    ensure!(
        seen["options"] == options,
        "subscription options: {}",
        seen["options"]
    );
    ensure!(
        seen["options"]["as published"]["new"] == true,
        "{}",
        seen["options"]
    );
    ensure!(
        seen["options"]["as published"]["theirs"] == false,
        "{}",
        seen["options"]
    );
    let alias = json!([["alias/x", "1"], ["alias/x", "2"]]);
    ensure!(
        seen["alias"]["messages"] == alias,
        "topic alias: {}",
        seen["alias"]
    );
    let shared = json!({ "plain in order": true, "each once": true, "both used": true });
    ensure!(
        seen["shared"] == shared,
        "shared subscription: {}",
        seen["shared"]
    );
    Ok(())
}
