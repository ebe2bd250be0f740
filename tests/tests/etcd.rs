//! Nodes that find each other by etcd: the manual's block, and an etcd that is away, guarded, or
//! lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::etcd::{Certificates, Etcd, is_there};
use dunlin_tests::{Lab, Node, in_lab, until, until_eq};

use crate::discovery::{TOGETHER, fqdn, on_hosts, see_each_other, start_at_once, stays};

/// The manual's block, word for word: every host has an etcd of its own at this address.
const ETCD: &str = "cluster {
    discovery_strategy = etcd
    etcd {
        server = \"http://127.0.0.1:2379\"
        prefix = emqxcl
        node_ttl = 1m
    }
}
";

/// What the manual shows.
const LISTED: [&str; 2] = [
    "/emqxcl/emqxcl/nodes/emqx@s1.emqx.io",
    "/emqxcl/emqxcl/nodes/emqx@s2.emqx.io",
];

/// How long a key may take to appear or, when it is taken away, to disappear.
const SOON: Duration = Duration::from_secs(10);

/// A block for one server of the lab, with short-lived keys.
fn block(etcd: &Etcd, more: &str) -> String {
    format!(
        "cluster {{\ndiscovery_strategy = etcd\n\
         etcd {{ server = \"{}\", node_ttl = 3s\n{more} }}\n}}\n",
        etcd.url
    )
}

fn listed(etcd: &Etcd, expected: &[&str]) -> Result<()> {
    let expected: Vec<String> = expected.iter().map(|key| (*key).to_owned()).collect();
    until_eq(SOON, "the keys in etcd", &expected, || {
        etcd.keys("/emqxcl/emqxcl")
    })
    .map(drop)
}

/// Everything this node logged.
fn log(node: &Node) -> Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir(node.installation.root().join("log"))? {
        text.push_str(&std::fs::read_to_string(entry?.path()).unwrap_or_default());
    }
    Ok(text)
}

fn logs(node: &Node, wanted: &str) -> Result<()> {
    until(SOON, wanted, || Ok(log(node)?.contains(wanted)))
        .map(drop)
        .with_context(|| node.log_tail())
}

#[test]
fn d10_the_manuals_block_makes_one_cluster_and_its_listing() -> Result<()> {
    in_lab!(|lab| {
        if !is_there("discovery by etcd") {
            return Ok(());
        }
        let (hosts, nodes) = on_hosts(lab, 2, fqdn, ETCD)?;
        let etcds = Etcd::on_each(&hosts)?;
        start_at_once(&nodes)?;
        see_each_other(&nodes)?;
        listed(&etcds[0], &LISTED)?;
        let value = etcds[0]
            .ctl(&["get", LISTED[0], "--print-value-only"])?
            .ok()?;
        ensure!(value.stdout.trim() == "emqx@s1.emqx.io", "{value}");

        // Who leaves takes its key along, and stays out.
        nodes[1].ctl(&["cluster", "leave"])?.ok()?;
        listed(&etcds[0], &LISTED[..1])?;
        let alone = nodes[1].status()?;
        ensure!(!alone.contains("emqx@s1"), "{alone}");
        stays(&nodes[1], &alone)?;
        let enable = ["cluster", "discovery", "enable"];
        nodes[1]
            .ctl(&enable)?
            .ok()?
            .prints("Automatic cluster discovery enabled.\n")?;
        see_each_other(&nodes)?;
        listed(&etcds[0], &LISTED)?;

        // Who stops does so too, and stays a member.
        nodes[1].stop()?;
        listed(&etcds[0], &LISTED[..1])?;
        nodes[0].sees(&[&nodes[0]], &[&nodes[1]], TOGETHER)?;
        nodes[1].start()?;
        see_each_other(&nodes)?;
        listed(&etcds[0], &LISTED)
    })
}

/// Nodes of a lab with one etcd.
fn with_etcd(
    lab: &Lab,
    count: usize,
    prepare: impl FnOnce(&mut Etcd) -> Result<String>,
) -> Result<(Etcd, Vec<Node>)> {
    let mut etcd = Etcd::at(lab.address())?;
    let more = prepare(&mut etcd)?;
    let conf = block(&etcd, &more);
    let (_, nodes) = on_hosts(lab, count, fqdn, &conf)?;
    Ok((etcd, nodes))
}

fn count_of_keys(etcd: &Etcd, count: usize, limit: Duration) -> Result<Duration> {
    until_eq(limit, "keys in etcd", &count, || {
        Ok(etcd.keys("/emqxcl")?.len())
    })
}

#[test]
fn d13_an_etcd_that_is_away_at_the_start_and_lost_later_harms_nobody() -> Result<()> {
    in_lab!(|lab| {
        if !is_there("an etcd that is away") {
            return Ok(());
        }
        let (mut etcd, nodes) = with_etcd(lab, 3, |_| Ok(String::new()))?;
        // Without etcd they serve, alone.
        start_at_once(&nodes[..2])?;
        nodes[0].connect("client")?.subscribe("served", 0)?;
        nodes[0].sees(&[&nodes[0]], &[], Duration::from_secs(1))?;
        logs(&nodes[0], "cannot be reached")?;
        logs(&nodes[0], "check cluster.etcd.server")?;

        etcd.start()?;
        see_each_other(&nodes[..2])?;
        count_of_keys(&etcd, 2, SOON)?;

        // Lost, with all it held: the cluster stays, the keys come back.
        etcd.forget()?;
        let both = nodes[0].status()?;
        stays(&nodes[0], &both)?;
        etcd.start()?;
        count_of_keys(&etcd, 2, SOON)?;
        ensure!(nodes[1].status()? == both);
        nodes[2].start()?;
        see_each_other(&nodes)?;

        // A key ends with its node; the node is a member still.
        count_of_keys(&etcd, 3, SOON)?;
        nodes[2].kill9()?;
        count_of_keys(&etcd, 2, SOON)?;
        nodes[0].sees(&[&nodes[0], &nodes[1]], &[&nodes[2]], TOGETHER)?;
        nodes[2].start()?;
        see_each_other(&nodes)?;
        count_of_keys(&etcd, 3, SOON).map(drop)
    })
}

#[test]
fn d12_clusters_that_share_an_etcd_and_a_prefix_never_merge() -> Result<()> {
    in_lab!(|lab| {
        if !is_there("two clusters in one etcd") {
            return Ok(());
        }
        let (mut etcd, nodes) = with_etcd(lab, 4, |_| Ok(String::new()))?;
        etcd.start()?;
        etcd.ctl(&[
            "put",
            "/emqxcl/zzz/nodes/emqx@s9.emqx.io",
            "emqx@s9.emqx.io",
        ])?
        .ok()?;
        for node in &nodes[2..] {
            node.installation.configure("cluster.name = other\n")?;
        }
        start_at_once(&nodes)?;
        see_each_other(&nodes[..2])?;
        see_each_other(&nodes[2..])?;
        let keys = etcd.keys("/emqxcl/other/")?;
        ensure!(keys.len() == 2, "{keys:?}");
        stays(&nodes[0], &nodes[0].status()?)
    })
}

#[test]
fn d14_a_client_certificate_is_shown_and_its_lack_is_named() -> Result<()> {
    in_lab!(|lab| {
        if !is_there("etcd with client certificates") {
            return Ok(());
        }
        let certificates = Certificates::new(lab.address(), &["root", "emqx"])?;
        let options = |more: &str| {
            let ca = certificates.path("ca.pem");
            let ca = ca.display();
            format!("ssl {{ enable = true, cacertfile = \"{ca}\", verify = verify_peer\n{more} }}")
        };
        let (cert, key) = (certificates.path("emqx.pem"), certificates.path("emqx.key"));
        let pair = format!(
            "certfile = \"{}\", keyfile = \"{}\"",
            cert.display(),
            key.display()
        );
        let (mut etcd, nodes) = with_etcd(lab, 3, |etcd| {
            etcd.with_client_certificates(&certificates);
            Ok(options(&pair))
        })?;
        etcd.start()?;
        // The common name of a certificate is the user.
        etcd.protect(&["root:secret", "emqx:secret"])?;
        start_at_once(&nodes[..2])?;
        see_each_other(&nodes[..2])?;
        count_of_keys(&etcd, 2, SOON)?;

        rewrite(&nodes[2], &block(&etcd, &options("")))?;
        nodes[2].start()?;
        nodes[2].sees(&[&nodes[2]], &[], Duration::from_secs(1))?;
        logs(&nodes[2], "check cluster.etcd.ssl_options")
    })
}

/// The configuration with another block for etcd.
fn rewrite(node: &Node, block: &str) -> Result<()> {
    node.installation.write_conf(&format!(
        "node {{ name = \"{}\", cookie = \"emqxsecretcookie\", data_dir = \"data\" }}\n{block}",
        node.name
    ))
}

#[test]
fn d14_wrong_credentials_are_named_with_the_cure() -> Result<()> {
    in_lab!(|lab| {
        if !is_there("etcd with passwords") {
            return Ok(());
        }
        let right = "username = root, password = secret".to_owned();
        let (mut etcd, nodes) = with_etcd(lab, 3, |_| Ok(right))?;
        etcd.start()?;
        etcd.protect(&["root:secret"])?;
        for (credentials, said) in [
            ("username = root, password = wrong", "authentication failed"),
            ("", "user name is empty"),
        ] {
            rewrite(&nodes[2], &block(&etcd, credentials))?;
            nodes[2].start()?;
            nodes[2].connect("served")?;
            logs(&nodes[2], said)?;
            logs(&nodes[2], "check cluster.etcd.username and password")?;
            nodes[2].stop()?;
        }
        start_at_once(&nodes[..2])?;
        see_each_other(&nodes[..2])?;
        let shown = nodes[0].emqx(&["ctl", "conf", "show", "cluster"])?.ok()?;
        ensure!(!shown.stdout.contains("secret"), "{shown}");
        Ok(())
    })
}
