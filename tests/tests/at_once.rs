//! Five nodes that start in the same instant are one cluster soon after the last of them serves,
//! whatever the strategy.
//!
//! `DUNLIN_TEST_STARTS=50` repeats each as often and says how long it took; `make test` does it a
//! few times.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_tests::etcd::{self, Etcd};
use dunlin_tests::{Host, Lab, Node, in_lab, repeated};

use crate::discovery::{fqdn, on_hosts};
use crate::kubernetes::{BY_IP, Kubernetes, ip_name, pods_of};

const NODES: usize = 5;

/// From the last listener on.
const WITHIN: Duration = Duration::from_secs(2);

/// Nodes on hosts of their own, not started.
fn five(lab: &Lab, conf: &str) -> Result<Vec<Node>> {
    // Who joined whom, should it fail.
    let conf = format!("log.file.level = info\n{conf}");
    let (hosts, nodes) = on_hosts(lab, NODES, fqdn, &conf)?;
    // Multicast needs a way.
    hosts.iter().try_for_each(Host::route_everywhere)?;
    Ok(nodes)
}

/// Starts fresh nodes again and again.
fn check(what: &str, nodes: &[Node]) -> Result<()> {
    let mut took = Vec::new();
    for round in 1..=repeated::count() {
        let one = start(nodes).with_context(|| format!("{what}, start {round}; {took:?}"));
        took.push(one?);
        for node in nodes {
            node.kill9()?;
            std::fs::remove_dir_all(node.data_dir())?;
            std::fs::create_dir(node.data_dir())?;
        }
    }
    took.sort();
    let ms = |at: usize| took[at].as_millis();
    eprintln!(
        "| {what} | {} starts of {NODES} | ms to one cluster: best {} | median {} | worst {} |",
        took.len(),
        ms(0),
        ms(took.len() / 2),
        ms(took.len() - 1)
    );
    Ok(())
}

/// From the last listener to the moment all of them show all of them.
fn start(nodes: &[Node]) -> Result<Duration> {
    let start = |node: &Node| Ok(node.command("emqx").arg("start").spawn()?);
    let starts: Vec<_> = nodes.iter().map(start).collect::<Result<_>>()?;
    for (node, mut start) in nodes.iter().zip(starts) {
        ensure!(
            start.wait()?.success(),
            "{} starts\n{}",
            node.name,
            logs(nodes)
        );
    }
    let served = Instant::now();
    let all: Vec<&Node> = nodes.iter().collect();
    let mut seen = Vec::new();
    for node in nodes {
        node.sees(&all, &[], WITHIN).with_context(|| logs(nodes))?;
        seen.push(served.elapsed());
    }
    let took = served.elapsed();
    ensure!(took <= WITHIN, "seen after {seen:?}\n{}", logs(nodes));
    nodes.iter().try_for_each(Node::adopt)?;
    Ok(took)
}

fn logs(nodes: &[Node]) -> String {
    nodes.iter().map(Node::log_tail).collect()
}

#[test]
fn d02_five_at_once_by_static() -> Result<()> {
    in_lab!(|lab| {
        let seed = |n| format!("\"emqx@s{n}.emqx.io\"");
        let seeds: Vec<_> = (1..=NODES).map(seed).collect();
        let seeds = seeds.join(", ");
        let conf = format!("cluster {{ discovery_strategy = static, static.seeds = [{seeds}] }}\n");
        check("static", &five(lab, &conf)?)
    })
}

#[test]
fn d02_five_at_once_by_dns() -> Result<()> {
    in_lab!(|lab| {
        let nodes = five(
            lab,
            "cluster { discovery_strategy = dns\n\
             dns { name = \"nodes.emqx.test\", record_type = srv } }\n",
        )?;
        let record = |n| format!("--srv-host=nodes.emqx.test,s{n}.emqx.io,1");
        let records: Vec<_> = (1..=NODES).map(record).collect();
        if !lab.name_server("five nodes at once by dns", &records)? {
            return Ok(());
        }
        check("dns", &nodes)
    })
}

#[test]
fn d02_five_at_once_by_etcd() -> Result<()> {
    in_lab!(|lab| {
        if !etcd::is_there("five nodes at once by etcd") {
            return Ok(());
        }
        let mut etcd = Etcd::at(lab.address())?;
        let server = &etcd.url;
        let nodes = five(
            lab,
            &format!("cluster {{ discovery_strategy = etcd, etcd.server = \"{server}\" }}\n"),
        )?;
        etcd.start()?;
        check("etcd", &nodes)
    })
}

#[test]
fn d02_five_at_once_by_mcast() -> Result<()> {
    in_lab!(|lab| check("mcast", &five(lab, "cluster.discovery_strategy = mcast\n")?))
}

#[test]
fn d02_five_at_once_by_k8s() -> Result<()> {
    in_lab!(|lab| {
        let conf = format!("log.file.level = info\n{BY_IP}");
        let (_, nodes) = on_hosts(lab, NODES, ip_name, &conf)?;
        let k8s = Kubernetes::around(lab, &nodes)?;
        k8s.api.pods(&pods_of(&nodes));
        check("k8s", &nodes)
    })
}
