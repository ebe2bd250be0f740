//! A network that loses packets between two nodes: both sides serve, and when it returns they are
//! one again, without a losing side.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_tests::{Client, Host, Node, in_lab, lab, until, until_eq};

use crate::manual::{JOIN_1, Machines};

/// How long a silent member may look alive.
const SEEN_DEAD: Duration = Duration::from_secs(6);
/// How long the sides may take to find each other once packets pass again.
const WHOLE: Duration = Duration::from_secs(5);

fn cut(a: &Host, b: &Host) -> Result<()> {
    a.lose_packets_from(b)?;
    b.lose_packets_from(a)
}

fn heal(a: &Host, b: &Host) -> Result<()> {
    a.open_ports()?;
    b.open_ports()
}

fn in_pair(
    body: impl Fn(&Machines) -> Result<()>,
) -> impl FnOnce(&dunlin_tests::Lab) -> Result<()> {
    move |lab| {
        if !lab::has_firewalls("a network that loses packets") {
            return Ok(());
        }
        let machines = Machines::started(lab)?;
        machines.node2.ctl(JOIN_1)?.ok()?;
        machines.both_running(WHOLE)?;
        body(&machines)
    }
}

impl Machines {
    fn both_running(&self, limit: Duration) -> Result<()> {
        for node in [&self.node1, &self.node2] {
            node.sees(&[&self.node1, &self.node2], &[], limit)?;
        }
        Ok(())
    }
}

fn retained(node: &Node) -> Result<String> {
    Ok(node.ctl(&["retainer", "topics"])?.ok()?.stdout)
}

#[test]
fn p02_p07_a_split_serves_on_both_sides_and_merges() -> Result<()> {
    in_lab!(in_pair(|machines| {
        let Machines {
            s1,
            s2,
            node1,
            node2,
        } = machines;
        let mut on1 = node1.connect("on-1")?;
        let mut on2 = node2.connect("on-2")?;
        on1.subscribe("t/#", 1)?;
        on2.subscribe("t/#", 1)?;
        let mut twin1 = Client::connect(node1.tcp(), "twin", false)?;

        cut(s1, s2)?;
        let cut_at = Instant::now();
        node1.sees(&[node1], &[node2], SEEN_DEAD)?;
        node2.sees(&[node2], &[node1], SEEN_DEAD)?;
        eprintln!("a silent host is seen after {:?}", cut_at.elapsed());
        for (client, topic, other) in [(&mut on1, "kept/1", node1), (&mut on2, "kept/2", node2)] {
            client.publish(topic, "value", 1, true)?;
            client.publish("t/x", "own side", 1, false)?;
            ensure!(
                client.receive_payload()? == "own side",
                "{} serves",
                other.name
            );
        }
        node1.ctl(&["admins", "add", "alice", "alice-1234"])?.ok()?;
        node2.ctl(&["admins", "add", "bob", "bob-12345"])?.ok()?;
        let mut twin2 = Client::connect(node2.tcp(), "twin", false)?;
        twin1
            .ping()
            .context("the same client id on both sides of a split")?;

        heal(s1, s2)?;
        let healed_at = Instant::now();
        machines.both_running(WHOLE)?;
        eprintln!("whole again after {:?}", healed_at.elapsed());
        for node in [node1, node2] {
            let both = "kept/1\nkept/2\n".to_owned();
            until_eq(WHOLE, "retained messages merged", &both, || retained(node))?;
            for (user, password) in [("alice", "alice-1234"), ("bob", "bob-12345")] {
                let login = || node.api().login(user, password).map(|_| true);
                until(WHOLE, &format!("{user} on {}", node.name), login)?;
            }
        }
        twin1
            .closed()
            .context("the older of two connections of one client goes")?;
        twin2.ping().context("the newer stays")?;
        on1.publish("t/x", "together", 1, false)?;
        // What the other side published during the split may follow, in order: its link resumed.
        let mut seen = on2.receive_payload()?;
        if seen == "own side" {
            seen = on2.receive_payload()?;
        }
        ensure!(seen == "together", "and clients were never dropped: {seen}");
        Ok(())
    }))
}

#[test]
fn p01_a_blip_of_a_second_changes_nothing_and_loses_nothing() -> Result<()> {
    in_lab!(in_pair(|machines| {
        let Machines {
            s1,
            s2,
            node1,
            node2,
        } = machines;
        let mut publisher = node1.connect("publisher")?;
        let mut reader = node2.connect("reader")?;
        reader.subscribe("t/#", 1)?;
        publisher.publish("t/x", "0", 1, false)?;
        cut(s1, s2)?;
        let end = Instant::now() + Duration::from_secs(1);
        // Sent into the silence, none waited for.
        for number in 1..50 {
            publisher.send_publish("t/x", &number.to_string(), 1, false)?;
        }
        while Instant::now() < end {
            machines
                .both_running(Duration::ZERO)
                .context("during the blip")?;
        }
        heal(s1, s2)?;
        for number in 0..50 {
            let payload = reader
                .receive_payload()
                .with_context(|| format!("message {number}"))?;
            ensure!(
                payload == number.to_string(),
                "{number} expected, got {payload}"
            );
        }
        publisher.ping()?;
        machines.both_running(Duration::ZERO)
    }))
}
