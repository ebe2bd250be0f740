//! The operator's manual, "creating a cluster by hand": two machines, `s1.emqx.io` and
//! `s2.emqx.io`, and every way in which joining them can fail.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::{Host, Installation, Lab, Node, Output, in_lab, lab, until_eq};

/// The manual's configuration, with what else the packaged file has.
fn conf(name: &str, cookie: &str) -> String {
    format!(
        "node {{ name = \"{name}\", cookie = \"{cookie}\", data_dir = \"data\" }}\n\
         cluster {{\n    ## 可选 manual | static | mcast | dns | etcd | K8s\n    \
         discovery_strategy  =  manual\n}}\n\
         dashboard.listeners.http.bind = 18083\n"
    )
}

/// Two hosts with a node each, not joined.
pub(crate) struct Machines {
    pub(crate) s1: Host,
    pub(crate) s2: Host,
    pub(crate) node1: Node,
    pub(crate) node2: Node,
}

const BOTH: &str = "Cluster status: [{running_nodes,['emqx@s1.emqx.io','emqx@s2.emqx.io']}]\n";
const ONLY_1: &str = "Cluster status: [{running_nodes,['emqx@s1.emqx.io']}]\n";
const ONLY_2: &str = "Cluster status: [{running_nodes,['emqx@s2.emqx.io']}]\n";
pub(crate) const JOIN_1: &[&str] = &["cluster", "join", "emqx@s1.emqx.io"];
const STATUS: &[&str] = &["cluster", "status"];

impl Machines {
    pub(crate) fn started(lab: &Lab) -> Result<Self> {
        let (s1, s2) = (lab.host("s1")?, lab.host("s2")?);
        for host in [&s1, &s2] {
            host.knows(&[("s1.emqx.io", s1.ip), ("s2.emqx.io", s2.ip)])?;
        }
        let node1 = node_on(&s1, "emqx@s1.emqx.io", "emqxsecretcookie")?;
        let node2 = node_on(&s2, "emqx@s2.emqx.io", "emqxsecretcookie")?;
        node1.start()?;
        node2.start()?;
        Ok(Self {
            s1,
            s2,
            node1,
            node2,
        })
    }
}

fn node_on(host: &Host, name: &str, cookie: &str) -> Result<Node> {
    let installation: Arc<Installation> = Installation::new()?;
    installation.write_conf(&conf(name, cookie))?;
    Ok(Node::on(host, &installation, name))
}

/// The status of a node becomes this.
fn shows(node: &Node, status: &str) -> Result<()> {
    let observe = || Ok(node.ctl(STATUS)?.ok()?.stdout);
    let what = format!("status on {}", node.name);
    until_eq(Duration::from_secs(2), &what, &status.to_owned(), observe).map(drop)
}

#[test]
fn t08_t13_t16_join_status_leave_and_force_leave_word_for_word() -> Result<()> {
    in_lab!(|lab| {
        let Machines { node1, node2, .. } = Machines::started(lab)?;
        let joined = format!("Join the cluster successfully.\n{BOTH}");
        node2.ctl(JOIN_1)?.ok()?.prints(&joined)?;
        for node in [&node1, &node2] {
            node.ctl(STATUS)?.ok()?.prints(BOTH)?;
        }
        let left = format!("Leave the cluster successfully.\n{ONLY_2}");
        node2.ctl(&["cluster", "leave"])?.ok()?.prints(&left)?;
        shows(&node1, ONLY_1)?;
        shows(&node2, ONLY_2)?;

        node2
            .ctl(JOIN_1)?
            .ok()?
            .prints(&joined)
            .context("joining again after a leave")?;
        let removed = format!("Remove the node from cluster successfully.\n{ONLY_1}");
        let force_leave = ["cluster", "force-leave", "emqx@s2.emqx.io"];
        node1.ctl(&force_leave)?.ok()?.prints(&removed)?;
        shows(&node2, ONLY_2)?;

        node2
            .ctl(JOIN_1)?
            .ok()?
            .prints(&joined)
            .context("joining again after force-leave")?;
        shows(&node1, BOTH)
    })
}

#[test]
fn a_member_left_while_down_stands_alone_when_it_returns() -> Result<()> {
    in_lab!(|lab| {
        let Machines { node1, node2, .. } = Machines::started(lab)?;
        node2.ctl(JOIN_1)?.ok()?;
        node2.kill9()?;
        let force_leave = ["cluster", "force-leave", "emqx@s2.emqx.io"];
        node1.ctl(&force_leave)?.ok()?.says(ONLY_1)?;
        // L11: EMQX cannot boot such a node again.
        node2.start()?;
        shows(&node2, ONLY_2)?;
        shows(&node1, ONLY_1)?;
        node2.ctl(JOIN_1)?.ok()?.says(BOTH)?;
        Ok(())
    })
}

/// A refused join: exit code 1, EMQX's term on the first line, the reason and cure on the next, and
/// nothing changed.
fn refused(output: Output, term: &str, reasons: &[&str]) -> Result<()> {
    let output = output.exit(1)?;
    let first = format!("Failed to join the cluster: {term}");
    ensure!(
        output.stdout.lines().next() == Some(first.as_str()),
        "{first:?} expected: {output}"
    );
    for reason in reasons {
        ensure!(
            output.stdout.contains(reason),
            "the reason says {reason:?}: {output}"
        );
    }
    Ok(())
}

#[test]
fn t09_t10_every_refused_join_says_its_own_reason() -> Result<()> {
    in_lab!(|lab| {
        let Machines {
            s1,
            s2,
            node1,
            node2,
        } = Machines::started(lab)?;
        node1.ctl(JOIN_1)?.ok()?.prints("Ignore.\n")?;

        let unknown = node2.ctl(&["cluster", "join", "emqx@s9.emqx.io"])?;
        refused(
            unknown,
            "{node_down,'emqx@s9.emqx.io'}",
            &["s9.emqx.io", "resolve"],
        )?;

        let no_port = node2.ctl(&["cluster", "join", "emqx7@s1.emqx.io"])?;
        let where_it_was_looked_for = format!("{}:4377", s1.ip);
        let reasons = [where_it_was_looked_for.as_str(), "start it"];
        refused(no_port, "{node_down,'emqx7@s1.emqx.io'}", &reasons)?;

        s2.no_route_to(&s1)?;
        let no_route = node2.ctl(JOIN_1)?;
        refused(
            no_route,
            "{node_down,'emqx@s1.emqx.io'}",
            &["reached", "network"],
        )?;
        s2.route_to(&s1)?;

        if lab::has_firewalls("join through a firewall") {
            s1.drop_port(4370)?;
            let silent = node2.ctl(JOIN_1)?;
            let reasons = ["did not answer", "firewall"];
            refused(silent, "{node_down,'emqx@s1.emqx.io'}", &reasons)?;
            s1.open_ports()?;
        }

        node1.stop()?;
        let down = node2.ctl(JOIN_1)?;
        refused(
            down,
            "{node_down,'emqx@s1.emqx.io'}",
            &[":4370", "start it"],
        )?;
        node1.start()?;
        shows(&node1, ONLY_1)?;
        shows(&node2, ONLY_2)?;
        node2
            .ctl(JOIN_1)?
            .ok()
            .context("after all that, the join works")?;
        Ok(())
    })
}

#[test]
fn t11_already_in_the_cluster_in_both_directions() -> Result<()> {
    in_lab!(|lab| {
        let Machines { node1, node2, .. } = Machines::started(lab)?;
        node2.ctl(JOIN_1)?.ok()?;
        refused(
            node2.ctl(JOIN_1)?,
            "{already_in_cluster,'emqx@s1.emqx.io'}",
            &[],
        )?;
        let other_way = node1.ctl(&["cluster", "join", "emqx@s2.emqx.io"])?;
        refused(other_way, "{already_in_cluster,'emqx@s2.emqx.io'}", &[])?;
        shows(&node1, BOTH)
    })
}

#[test]
fn n07_another_cookie_is_called_that() -> Result<()> {
    in_lab!(|lab| {
        let Machines { s1, s2, node1, .. } = Machines::started(lab)?;
        let s3 = lab.host("s3")?;
        s3.knows(&[
            ("s1.emqx.io", s1.ip),
            ("s2.emqx.io", s2.ip),
            ("s3.emqx.io", s3.ip),
        ])?;
        let stranger = node_on(&s3, "emqx@s3.emqx.io", "another cookie")?;
        stranger.start()?;
        let reasons = ["cookie", "node.cookie"];
        refused(
            stranger.ctl(JOIN_1)?,
            "{node_down,'emqx@s1.emqx.io'}",
            &reasons,
        )?;
        shows(&node1, ONLY_1)
    })
}

#[test]
fn a_name_of_a_running_member_is_refused_to_another_node() -> Result<()> {
    in_lab!(|lab| {
        let Machines {
            s1, node1, node2, ..
        } = Machines::started(lab)?;
        node2.ctl(JOIN_1)?.ok()?;
        // A copied configuration: a third machine that calls itself s2.
        let s3 = lab.host("s3")?;
        s3.knows(&[("s1.emqx.io", s1.ip), ("s2.emqx.io", s3.ip)])?;
        let twin = node_on(&s3, "emqx@s2.emqx.io", "emqxsecretcookie")?;
        twin.start()?;
        refused(
            twin.ctl(JOIN_1)?,
            "name_taken",
            &["emqx@s2.emqx.io", "rename"],
        )?;
        shows(&node1, BOTH)?;
        shows(&node2, BOTH)
    })
}
