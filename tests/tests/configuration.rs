//! `emqx check_config` and the layers of the configuration.

use anyhow::{Context, Result, ensure};
use dunlin_tests::{Installation, Node, Output};

/// What the manual shows, each of which must load as it stands.
const MANUAL: &[&str] = &[
    "cluster {\n    ## 可选 manual | static | mcast | dns | etcd | K8s\n    \
     discovery_strategy  =  manual\n}\n",
    "cluster {\n    discovery_strategy = static\n    static {\n        \
     seeds = [\"emqx@s1.emqx.io\", \"emqx@s2.emqx.io\"] \n    }\n}\n",
    "cluster {\n    discovery_strategy = dns\n    dns {\n        name = \"localhost\"\n        \
     record_type = a\n    }\n}\n",
    "cluster {\n    discovery_strategy = dns\n    dns {\n        name = \"localhost\"\n        \
     record_type = srv\n    }\n}\n",
    "cluster {\n    discovery_strategy = etcd\n    etcd {\n        \
     server = \"http://127.0.0.1:2379\"\n        \
     prefix = emqxcl\n        node_ttl = 1m\n    }\n}\n",
    "cluster {\n    discovery_strategy = K8s\n    K8s {\n        \
     apiserver = \"http://10.110.111.204:8080\"\n        service_name = emqx\n        \
     address_type = ip\n        app_name = emqx\n        suffix = \"pod.local\"\n        \
     namespace = default\n    }\n}\n",
];

fn check(conf: &str) -> Result<Output> {
    let installation = Installation::new()?;
    installation.configure(conf)?;
    installation.run("emqx", &["check_config"], &[])
}

#[test]
fn c01_c02_every_block_of_the_manual_loads() -> Result<()> {
    for block in MANUAL {
        let output = check(block)?.ok()?;
        ensure!(
            output.stdout.is_empty() && output.stderr.is_empty(),
            "silence: {output}"
        );
    }
    Ok(())
}

#[test]
fn c03_a_typo_is_shown_with_file_line_and_the_nearest_key() -> Result<()> {
    let installation = Installation::new()?;
    installation.write_conf(
        "node { name = \"emqx@127.0.0.1\", cookie = \"c\", data_dir = \"data\" }\n\
         cluster {\n  discovery_stategy = manual\n}\n",
    )?;
    let conf = installation.root().canonicalize()?.join("etc/emqx.conf");
    for command in ["check_config", "start", "foreground"] {
        let output = installation.run("emqx", &[command], &[])?.exit(1)?;
        for text in [
            &format!("{}:3", conf.display()),
            "cluster.discovery_stategy",
            "did you mean `discovery_strategy`",
        ] {
            ensure!(
                output.stderr.contains(text),
                "{command}: {text:?} expected: {output}"
            );
        }
        output.says("failed_to_check_schema: emqx_conf_schema")?;
    }
    Ok(())
}

#[test]
fn c05_wrong_values_name_path_and_what_is_allowed() -> Result<()> {
    for (conf, texts) in [
        (
            "cluster.autoheal = maybe",
            &["cluster.autoheal", "maybe"][..],
        ),
        (
            "cluster.discovery_strategy = manul",
            &["did you mean `manual`"],
        ),
        (
            "mqtt.max_packet_size = 1.5MB",
            &["mqtt.max_packet_size", "1.5MB"],
        ),
        ("mqtt.max_qos_allowed = 3", &["mqtt.max_qos_allowed", "3"]),
        (
            "listeners.tcp.default.bind = \"not an address\"",
            &["listeners.tcp.default.bind"],
        ),
        ("node.name = \"no host\"", &["node.name"]),
    ] {
        let output = check(conf)?.exit(1).context(conf)?;
        for text in texts {
            ensure!(
                output.stderr.contains(text),
                "{conf}: {text:?} expected: {output}"
            );
        }
    }
    Ok(())
}

#[test]
fn syntax_errors_and_a_missing_file() -> Result<()> {
    let installation = Installation::new()?;
    installation.write_conf("node {\n  name = \"emqx@127.0.0.1\n}\n")?;
    let output = installation.run("emqx", &["check_config"], &[])?.exit(1)?;
    ensure!(output.stderr.contains("emqx.conf:2"), "the line: {output}");
    std::fs::remove_file(installation.root().join("etc/emqx.conf"))?;
    let output = installation.run("emqx", &["check_config"], &[])?;
    ensure!(
        output.code == 1 && output.stderr.contains("emqx.conf"),
        "{output}"
    );
    Ok(())
}

#[test]
fn all_faults_are_shown_at_once() -> Result<()> {
    let output = check("cluster.autoheal = maybe\nmqtt.keepalive_typo = 1\n")?.exit(1)?;
    ensure!(output.stderr.contains("cluster.autoheal"), "{output}");
    ensure!(output.stderr.contains("mqtt.keepalive_typo"), "{output}");
    Ok(())
}

#[test]
fn c04_c13_c14_unknown_roots_and_unknown_variables_do_not_stop_a_start() -> Result<()> {
    check("foo.bar = 1")?.ok()?;
    let node = Node::new()?
        .set("EMQX_STATSD__SERVER", "127.0.0.1:8124")
        .set("EMQX_NODE__NAM", "x")
        .set("EMQX_FOO", "x");
    let output = node.start()?;
    ensure!(
        output
            .stderr
            .contains("unknown_env_vars: [\"EMQX_NODE__NAM\"]"),
        "{output}"
    );
    ensure!(
        !output.stderr.contains("EMQX_FOO"),
        "unknown roots are ignored: {output}"
    );
    Ok(())
}

#[test]
fn c06_c15_the_environment_wins_and_is_announced_without_secrets() -> Result<()> {
    let node = Node::new()?
        .set("EMQX_MQTT__MAX_PACKET_SIZE", "3MB")
        .set("EMQX_NODE__COOKIE", "very-secret-cookie");
    node.installation.configure("mqtt.max_packet_size = 2MB")?;
    let base = node.installation.root().join("etc/base.hocon");
    std::fs::write(
        base,
        "mqtt { max_packet_size = 4MB, max_topic_levels = 77 }\n",
    )?;
    let output = node.start()?;
    let line = format!("EMQX_NODE__NAME [node.name]: {}\n", node.name);
    ensure!(output.stdout.contains(&line), "{line}: {output}");
    ensure!(
        output
            .stdout
            .contains("EMQX_NODE__COOKIE [node.cookie]: ******\n"),
        "{output}"
    );
    let shown = node.ctl(&["conf", "show", "mqtt"])?.ok()?.stdout;
    ensure!(
        shown.contains("max_packet_size = 3MB") || shown.contains("\"3MB\""),
        "{shown}"
    );
    ensure!(
        shown.contains("77"),
        "base.hocon is the lowest layer: {shown}"
    );
    Ok(())
}
