//! Nodes that find each other by a strategy of the manual: `static` and `dns`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::node::status_line;
use dunlin_tests::{Host, Installation, Lab, Node, in_lab, until};

/// From the last start to one cluster. EMQX needs about three seconds; a node that starts while
/// all others are refusing it is found by its next round, five seconds later.
pub(crate) const TOGETHER: Duration = Duration::from_secs(10);

/// How long a node that left is watched: two rounds of a node that is alone.
const WATCHED: Duration = Duration::from_secs(11);

/// `emqx start` of all of them at the same moment.
pub(crate) fn start_at_once(nodes: &[Node]) -> Result<()> {
    let start = |node: &Node| Ok(node.command("emqx").arg("start").spawn()?);
    let starts: Vec<_> = nodes.iter().map(start).collect::<Result<_>>()?;
    for (node, mut start) in nodes.iter().zip(starts) {
        ensure!(start.wait()?.success(), "{} starts", node.name);
        node.adopt()?;
    }
    Ok(())
}

pub(crate) fn see_each_other(nodes: &[Node]) -> Result<()> {
    let all: Vec<&Node> = nodes.iter().collect();
    for node in nodes {
        node.sees(&all, &[], TOGETHER)?;
    }
    Ok(())
}

#[test]
fn d02_three_seeds_that_start_at_once_are_one_cluster() -> Result<()> {
    let nodes: Vec<Node> = (0..3).map(|_| Node::new()).collect::<Result<_>>()?;
    let seeds: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    for node in &nodes {
        node.installation.configure(&format!(
            "cluster {{ discovery_strategy = static, static.seeds = \"{}\" }}\n",
            seeds.join(",")
        ))?;
    }
    start_at_once(&nodes)?;
    see_each_other(&nodes)?;
    // A whole restart, hard, brings back the same cluster with what it held.
    let mut client = nodes[0].connect("client")?;
    client.publish("kept", "value", 1, true)?;
    for node in &nodes {
        node.kill9()?;
    }
    start_at_once(&nodes)?;
    see_each_other(&nodes)?;
    let mut reader = nodes[2].connect("reader")?;
    reader.subscribe("kept", 1)?;
    ensure!(reader.receive_payload()? == "value");
    Ok(())
}

#[test]
fn d03_a_dead_seed_does_not_hold_up_a_start() -> Result<()> {
    let node = Node::new()?;
    node.installation.configure(&format!(
        "cluster {{ discovery_strategy = static, static.seeds = [\"{}\", \"emqx1@127.0.0.9\"] }}\n",
        node.name
    ))?;
    node.start()?;
    node.sees(&[&node], &[], Duration::from_secs(1)).map(drop)
}

/// Hosts `s1.emqx.io` and so on, which know each other; `conf` is put below the node's name.
pub(crate) fn on_hosts(
    lab: &Lab,
    count: usize,
    name: impl Fn(&Host) -> String,
    conf: &str,
) -> Result<(Vec<Host>, Vec<Node>)> {
    let hosts: Vec<Host> = (1..=count)
        .map(|n| lab.host(&format!("s{n}")))
        .collect::<Result<_>>()?;
    let fqdns: Vec<_> = hosts
        .iter()
        .map(|host| (format!("{}.emqx.io", host.name), host.ip))
        .collect();
    let known: Vec<_> = fqdns
        .iter()
        .map(|(fqdn, ip)| (fqdn.as_str(), *ip))
        .collect();
    let node = |host: &Host| {
        host.knows(&known)?;
        let installation: Arc<Installation> = Installation::new()?;
        let name = name(host);
        installation.write_conf(&format!(
            "node {{ name = \"{name}\", cookie = \"emqxsecretcookie\", data_dir = \"data\" }}\n\
             {conf}"
        ))?;
        Ok(Node::on(host, &installation, &name))
    };
    let nodes = hosts.iter().map(node).collect::<Result<_>>()?;
    Ok((hosts, nodes))
}

pub(crate) fn fqdn(host: &Host) -> String {
    format!("emqx@{}.emqx.io", host.name)
}

/// The manual's block, word for word.
const STATIC: &str = "cluster {
    discovery_strategy = static
    static {
        seeds = [\"emqx@s1.emqx.io\", \"emqx@s2.emqx.io\"]
    }
}
";

#[test]
fn d01_d19_seeds_of_the_manual_join_one_by_one_and_a_leaver_stays_out() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 2, fqdn, STATIC)?;
        let shown = |of: &[&Node]| {
            let names: Vec<_> = of.iter().map(|node| node.name.as_str()).collect();
            status_line(&names, &[])
        };
        let both = shown(&[&nodes[0], &nodes[1]]);
        nodes[0].start()?;
        nodes[1].start()?;
        // It joined before it served, so there is nothing to wait for.
        let status = nodes[1].status()?;
        ensure!(status == both, "{status}");
        see_each_other(&nodes)?;

        let left = nodes[1].ctl(&["cluster", "leave"])?.ok()?;
        left.prints(&format!(
            "Automatic cluster discovery is disabled on this node: 'emqx@s2.emqx.io' to avoid \
             re-joining the same cluster again, if the node is not stopped soon. To enable it run: \
             'emqx ctl cluster discovery enable' or restart the node.\n\
             Leave the cluster successfully.\n{}\n",
            shown(&[&nodes[1]])
        ))?;
        stays(&nodes[1], &shown(&[&nodes[1]]))?;
        let enable = ["cluster", "discovery", "enable"];
        nodes[1]
            .ctl(&enable)?
            .ok()?
            .prints("Automatic cluster discovery enabled.\n")?;
        see_each_other(&nodes)?;

        nodes[1].ctl(&["cluster", "leave"])?.ok()?;
        nodes[1].stop()?;
        nodes[1].start()?;
        see_each_other(&nodes).context("after a restart")
    })
}

/// The status does not change while it is watched.
pub(crate) fn stays(node: &Node, status: &str) -> Result<()> {
    let start = std::time::Instant::now();
    let changed = || Ok(node.status()? != status || start.elapsed() > WATCHED);
    until(WATCHED * 2, "watching", changed)?;
    let now = node.status()?;
    ensure!(now == status, "{now}");
    Ok(())
}

#[test]
fn a_singleton_neither_joins_nor_is_joined_and_says_so() -> Result<()> {
    let (single, other) = (Node::new()?, Node::new()?);
    single
        .installation
        .configure("cluster.discovery_strategy = singleton\n")?;
    single.start()?;
    other.start()?;
    for (from, to) in [(&single, &other), (&other, &single)] {
        let refused = from.ctl(&["cluster", "join", &to.name])?.exit(1)?;
        refused
            .says("cluster.discovery_strategy = singleton")?
            .says(&single.name)?
            .says("choose another and restart it")?;
        from.sees(&[from], &[], Duration::from_secs(1))?;
    }
    Ok(())
}

fn dns(record_type: &str) -> String {
    format!(
        "cluster {{\n    discovery_strategy = dns\n    dns {{\n        \
         name = \"nodes.emqx.test\"\n        record_type = {record_type}\n    }}\n}}\n"
    )
}

#[test]
fn d05_dns_a_records_are_nodes_with_the_own_short_name() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 3, |host| format!("emqx@{}", host.ip), &dns("a"))?;
        let record = |node: &Node| {
            let ip = node.name.trim_start_matches("emqx@");
            format!("--host-record=nodes.emqx.test,{ip}")
        };
        let records: Vec<_> = nodes.iter().map(record).collect();
        if !lab.name_server("discovery by dns, A records", &records)? {
            return Ok(());
        }
        start_at_once(&nodes)?;
        see_each_other(&nodes)
    })
}

#[test]
fn d07_dns_srv_targets_are_nodes_with_the_own_short_name() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 2, fqdn, &dns("srv"))?;
        let records: Vec<_> = ["s1", "s2"]
            .iter()
            .map(|host| format!("--srv-host=nodes.emqx.test,{host}.emqx.io,9999"))
            .collect();
        if !lab.name_server("discovery by dns, SRV records", &records)? {
            return Ok(());
        }
        start_at_once(&nodes)?;
        see_each_other(&nodes)
    })
}

#[test]
fn d08_without_a_name_server_a_node_serves_alone_after_five_seconds() -> Result<()> {
    in_lab!(|lab| {
        let (_, nodes) = on_hosts(lab, 1, |host| format!("emqx@{}", host.ip), &dns("a"))?;
        nodes[0].start()?;
        let mut client = nodes[0].connect("client")?;
        client.subscribe("served", 0)?;
        nodes[0].sees(&[&nodes[0]], &[], Duration::from_secs(1))?;
        Ok(())
    })
}
