//! Links between nodes over TLS: who is let in, and what both sides say of whom they refuse.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::certificates::{Authority, Issued};
use dunlin_tests::{Host, Lab, Node, in_lab, until};

use crate::discovery::{on_hosts, see_each_other};

/// From a refusal to its line in the log of the other side.
const LOGGED: Duration = Duration::from_secs(5);

const TLS: &str = "cluster.proto_dist = inet_tls
rpc { certfile = \"etc/tls/cert.pem\", keyfile = \"etc/tls/key.pem\"
      cacertfile = \"etc/tls/ca.pem\" }
";

fn fqdn(host: &Host) -> String {
    format!("emqx@{}.emqx.io", host.name)
}

/// Gives a node a certificate, and the authority that it believes.
fn give(node: &Node, issued: &Issued, authority: &Authority) -> Result<()> {
    let folder = node.installation.root().join("etc/tls");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("cert.pem"), &issued.cert)?;
    std::fs::write(folder.join("key.pem"), &issued.key)?;
    Ok(std::fs::write(folder.join("ca.pem"), authority.pem())?)
}

fn logs(node: &Node, words: &[&str]) -> Result<()> {
    let what = format!("{words:?} in the log of {}", node.name);
    until(LOGGED, &what, || {
        let log = node.log_tail();
        ensure!(words.iter().all(|word| log.contains(word)), "{log}");
        Ok(true)
    })
    .map(drop)
}

fn refused(joiner: &Node, target: &Node, words: &[&str]) -> Result<()> {
    let output = joiner.ctl(&["cluster", "join", &target.name])?.exit(1)?;
    let output = output.says("Failed to join the cluster: {node_down,")?;
    words
        .iter()
        .try_fold(output, |output, word| output.says(word))
        .map(drop)
}

/// Two hosts, the first of which has all that it needs.
fn two(lab: &Lab, authority: &Authority, second: &Issued) -> Result<[Node; 2]> {
    let (_, nodes) = on_hosts(lab, 2, fqdn, TLS)?;
    give(&nodes[0], &authority.issue(&["s1.emqx.io"])?, authority)?;
    give(&nodes[1], second, authority)?;
    for node in &nodes {
        node.start()?;
    }
    <[Node; 2]>::try_from(nodes).map_err(|_| anyhow::anyhow!("two nodes"))
}

#[test]
fn n10_hosts_with_certificates_of_one_authority_join_and_forward() -> Result<()> {
    in_lab!(|lab| {
        let authority = Authority::new("nodes")?;
        let nodes = two(lab, &authority, &authority.issue(&["s2.emqx.io"])?)?;
        nodes[1].join(&nodes[0])?;
        see_each_other(&nodes)?;
        let mut reader = nodes[0].connect("reader")?;
        reader.subscribe("over/tls", 1)?;
        let mut writer = nodes[1].connect("writer")?;
        // Longer than any buffer on the way.
        let long = "x".repeat(900_000);
        for payload in ["first", &long, "last"] {
            writer.publish("over/tls", payload, 1, false)?;
            ensure!(
                reader.receive_payload()? == payload,
                "{} bytes",
                payload.len()
            );
        }
        // Links come back after a restart, and one without TLS is told what is spoken here.
        nodes[1].kill9()?;
        nodes[1].start()?;
        see_each_other(&nodes)?;
        let host = nodes[0].host().context("on a host")?;
        let mut plain = TcpStream::connect((host.ip, 4370))?;
        plain.set_read_timeout(Some(LOGGED))?;
        plain.write_all(b"dnln")?;
        let mut answer = [0; 5];
        plain.read_exact(&mut answer)?;
        ensure!(answer == *b"dnln\x03", "{answer:?}");
        Ok(())
    })
}

#[test]
fn a_node_without_tls_and_one_with_it_tell_each_other_why_not() -> Result<()> {
    in_lab!(|lab| {
        let authority = Authority::new("nodes")?;
        let (_, nodes) = on_hosts(lab, 2, fqdn, TLS)?;
        give(&nodes[0], &authority.issue(&["s1.emqx.io"])?, &authority)?;
        let plain = nodes[1].name.clone();
        nodes[1].installation.write_conf(&format!(
            "node {{ name = \"{plain}\", cookie = \"emqxsecretcookie\", data_dir = \"data\" }}\n"
        ))?;
        nodes.iter().try_for_each(|node| node.start().map(drop))?;
        let (here, there) = (
            "this node speaks TLS and the other one does not",
            "the other node speaks TLS and this one does not",
        );
        refused(&nodes[1], &nodes[0], &[there, "cluster.proto_dist"])?;
        logs(&nodes[0], &["peer_tls_refused", here])?;
        refused(&nodes[0], &nodes[1], &[here, "cluster.proto_dist"])?;
        logs(&nodes[1], &["peer_handshake_refused", there])
    })
}

#[test]
fn a_certificate_of_another_authority_is_refused_by_name_on_both_sides() -> Result<()> {
    in_lab!(|lab| {
        let authority = Authority::new("nodes")?;
        let other = Authority::new("somebody else")?;
        let nodes = two(lab, &authority, &other.issue(&["s2.emqx.io"])?)?;
        let why = "is signed by an authority that is not trusted";
        refused(
            &nodes[1],
            &nodes[0],
            &["this node's certificate", why, "rpc.cacertfile"],
        )?;
        logs(
            &nodes[0],
            &["peer_tls_refused", "certificate of the other node", why],
        )?;
        refused(
            &nodes[0],
            &nodes[1],
            &["the certificate of the other node", why],
        )?;
        logs(
            &nodes[1],
            &["peer_tls_refused", "this node's certificate", why],
        )
    })
}

#[test]
fn an_expired_certificate_and_one_for_another_host_are_refused_by_name() -> Result<()> {
    in_lab!(|lab| {
        let authority = Authority::new("nodes")?;
        let nodes = two(lab, &authority, &authority.issue_expired(&["s2.emqx.io"])?)?;
        refused(
            &nodes[1],
            &nodes[0],
            &["this node's certificate has expired"],
        )?;
        logs(
            &nodes[0],
            &["the certificate of the other node has expired"],
        )?;

        give(&nodes[1], &authority.issue(&["s3.emqx.io"])?, &authority)?;
        nodes[1].stop()?;
        nodes[1].start()?;
        refused(
            &nodes[0],
            &nodes[1],
            &["the certificate of the other node is not for 's2.emqx.io'"],
        )?;
        logs(
            &nodes[1],
            &["peer_tls_refused", "this node's certificate cannot be used"],
        )
    })
}

#[test]
fn without_further_settings_links_are_private_and_say_that_nobody_is_verified() -> Result<()> {
    let node = || Ok(Node::new()?.set("EMQX_CLUSTER__PROTO_DIST", "inet_tls"));
    let nodes: Vec<Node> = (0..2).map(|_| node()).collect::<Result<_>>()?;
    // The file of EMQX on one of them.
    std::fs::write(
        nodes[1].installation.root().join("etc/ssl_dist.conf"),
        "[{server, [{certfile, \"etc/certs/cert.pem\"}, {keyfile, \"etc/certs/key.pem\"},\n  \
         {secure_renegotiate, true}, {verify, verify_none}]},\n \
         {client, [{verify, verify_none}]}].\n",
    )?;
    nodes.iter().try_for_each(|node| node.start().map(drop))?;
    logs(&nodes[0], &["links_not_verified", "rpc.cacertfile"])?;
    logs(
        &nodes[1],
        &[
            "ssl_dist_option_without_effect",
            "server.secure_renegotiate",
        ],
    )?;
    nodes[1].join(&nodes[0])?;
    see_each_other(&nodes)
}

#[test]
fn files_that_are_missing_stop_the_start_and_are_named() -> Result<()> {
    let node = Node::new()?.set("EMQX_CLUSTER__PROTO_DIST", "inet_tls");
    let half = node
        .command("emqx")
        .arg("foreground")
        .env("EMQX_RPC__CERTFILE", "a.pem")
        .output()?;
    let text = String::from_utf8_lossy(&half.stderr).into_owned();
    ensure!(
        !half.status.success() && text.contains("keyfile is not set in rpc"),
        "{text}"
    );
    let missing = node
        .command("emqx")
        .arg("foreground")
        .env("EMQX_RPC__CERTFILE", "a.pem")
        .env("EMQX_RPC__KEYFILE", "b.pem")
        .output()?;
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    ensure!(
        !missing.status.success() && text.contains("a.pem"),
        "{text}"
    );
    ensure!(text.contains("rpc.certfile"), "{text}");
    Ok(())
}
