//! Nodes that find each other by multicast, as EMQX did before 5.4.

use std::time::Duration;

use anyhow::{Result, ensure};
use dunlin_tests::{Host, Installation, Node, in_lab};

use crate::discovery::{fqdn, on_hosts, see_each_other, start_at_once, stays};

/// Every key of the strategy, with EMQX's defaults.
const MCAST: &str = "cluster {
    discovery_strategy = mcast
    mcast {
        addr = \"239.192.0.1\"
        ports = [4369, 4370]
        iface = \"0.0.0.0\"
        ttl = 255
        loop = true
        sndbuf = 16KB
        recbuf = 16KB
        buffer = 32KB
    }
}
";

#[test]
fn d21_nodes_of_one_network_are_one_cluster_and_the_strategy_is_warned_of() -> Result<()> {
    in_lab!(|lab| {
        let (hosts, nodes) = on_hosts(lab, 4, fqdn, MCAST)?;
        hosts.iter().try_for_each(Host::route_everywhere)?;
        nodes[3].installation.configure("cluster.name = other\n")?;
        start_at_once(&nodes[..3])?;
        let started = nodes[3].start()?;
        started.says("cluster.mcast: deprecated; use static, dns, etcd or k8s")?;
        see_each_other(&nodes[..3])?;
        nodes[3].sees(&[&nodes[3]], &[], Duration::from_secs(1))?;

        nodes[1].ctl(&["cluster", "leave"])?.ok()?;
        stays(&nodes[1], &nodes[1].status()?)?;
        nodes[1].ctl(&["cluster", "discovery", "enable"])?.ok()?;
        see_each_other(&nodes[..3])
    })
}

#[test]
fn d21_nodes_of_one_host_take_one_port_each() -> Result<()> {
    in_lab!(|lab| {
        let host = lab.host("s1")?;
        host.route_everywhere()?;
        let node = |number: u16| {
            let installation = Installation::new()?;
            let name = format!("emqx{number}@{}", host.ip);
            let binds: Vec<_> = [("tcp", 1), ("ssl", 2), ("ws", 3), ("wss", 4)]
                .iter()
                .map(|(kind, port)| {
                    format!("listeners.{kind}.default.bind = {}", number * 10 + port)
                })
                .collect();
            installation.write_conf(&format!(
                "node {{ name = \"{name}\", cookie = \"secret\", data_dir = \"data\" }}\n\
                 {}\ndashboard.listeners.http.bind = {}\n{}",
                binds.join("\n"),
                number * 10 + 5,
                MCAST.replace("4369, 4370", "5369, 5370"),
            ))?;
            Ok(Node::on(&host, &installation, &name))
        };
        let nodes: Vec<Node> = [1200, 1300].into_iter().map(node).collect::<Result<_>>()?;
        start_at_once(&nodes)?;
        see_each_other(&nodes)
    })
}

#[test]
fn a_group_that_cannot_be_used_is_said_with_the_cure_and_the_node_serves() -> Result<()> {
    in_lab!(|lab| {
        let conf = MCAST.replace("239.192.0.1", "10.0.0.1");
        let (_, nodes) = on_hosts(lab, 1, fqdn, &conf)?;
        nodes[0].start()?;
        nodes[0].sees(&[&nodes[0]], &[], Duration::from_secs(1))?;
        let log = nodes[0].log_tail();
        ensure!(log.contains("is no IPv4 multicast group"), "{log}");
        ensure!(log.contains("239.192.0.1"), "{log}");
        Ok(())
    })
}
