//! From texts and variables to settings: defaults, precedence, the environment, error
//! texts, the seed page's blocks and the shipped files.

use std::time::Duration;

use dunlin_config::error::{ConfigError, LayerKind, Warning};
use dunlin_config::hocon::{Files, NoFiles};
use dunlin_config::settings::{
    AutocleanQuorum, DnsRecordType, EnableAuthn, K8sAddressType, ListenerKind, LogLevel,
    PeerCertField, Rate, SharedStrategy, Strategy, TimeOffset, Verify,
};
use dunlin_config::{Layer, Loaded, Secrets, Sources, change, load, render};

const SHIPPED: &str = include_str!("../../../etc/emqx.conf");

fn layer(kind: LayerKind, path: &str, text: &str) -> Layer {
    Layer {
        kind,
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn sources<'a>(files: Vec<Layer>, env: &[(&str, &str)], include: &'a dyn Files) -> Sources<'a> {
    Sources {
        files,
        env: env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        etc_dir: "/opt/emqx/etc".to_owned(),
        log_dir: "/opt/emqx/log".to_owned(),
        data_dir: "/opt/emqx/data".to_owned(),
        include,
    }
}

/// Loads the shipped file with `text` below it in the same layer.
fn try_with(text: &str, env: &[(&str, &str)]) -> Result<Loaded, Vec<ConfigError>> {
    let shipped = layer(LayerKind::Etc, "etc/emqx.conf", SHIPPED);
    let extra = layer(LayerKind::Etc, "etc/extra.conf", text);
    load(&sources(vec![shipped, extra], env, &NoFiles))
}

fn with(text: &str) -> Loaded {
    try_with(text, &[]).unwrap_or_else(|errors| panic!("{text}: {errors:#?}"))
}

fn with_env(env: &[(&str, &str)]) -> Loaded {
    try_with("", env).unwrap_or_else(|errors| panic!("{env:?}: {errors:#?}"))
}

fn errors(text: &str) -> Vec<String> {
    match try_with(text, &[]) {
        Ok(_) => panic!("{text} was accepted"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn effective(loaded: &Loaded, path: &str) -> String {
    let value = loaded
        .raw
        .effective(path, Secrets::Shown)
        .expect("path exists");
    render::value_text(&value)
}

const fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[test]
fn shipped_file_means_what_emqx_means() {
    let loaded = with("");
    let s = &loaded.settings;
    assert_eq!(s.node.name, "emqx@127.0.0.1");
    assert_eq!(s.node.short(), "emqx");
    assert_eq!(s.node.host(), Some("127.0.0.1"));
    assert_eq!(s.node.cookie.expose(), "emqxsecretcookie");
    assert_eq!(format!("{:?}", s.node.cookie), "******");
    assert_eq!(s.node.data_dir, "data");
    assert_eq!(s.cluster.name, "emqxcl");
    assert_eq!(s.cluster.strategy, Strategy::Manual);
    assert_eq!(s.cluster.autoclean_ms, ms(Duration::from_hours(24)));
    assert_eq!(s.cluster.autoclean_quorum, AutocleanQuorum::Auto);
    assert!(s.cluster.autoheal);
    assert_eq!(s.rpc.client_num, 10);
    assert_eq!(s.rpc.listen_address, None);
    let http = s.dashboard.http.as_ref().expect("on");
    assert_eq!((http.bind.host, http.bind.port), (None, 18083));
    assert_eq!(s.dashboard.https, None);
    assert_eq!(s.dashboard.default_username, "admin");
    assert_eq!(
        s.dashboard.token_expired_time_ms,
        ms(Duration::from_hours(1))
    );
    assert_eq!(loaded.warnings, [Warning::DefaultCookie]);
    assert_eq!(loaded.overrides, []);
    assert_eq!(loaded.without_effect, []);
}

#[test]
fn default_listeners_are_emqx_s() {
    let s = with("").settings;
    let shown: Vec<String> = s
        .listeners
        .iter()
        .map(|l| format!("{} {}", l.id(), l.bind))
        .collect();
    assert_eq!(
        shown,
        [
            "tcp:default 0.0.0.0:1883",
            "ssl:default 0.0.0.0:8883",
            "ws:default 0.0.0.0:8083",
            "wss:default 0.0.0.0:8084",
        ]
    );
    let tcp = &s.listeners[0];
    assert!(tcp.enable && !tcp.proxy_protocol);
    assert_eq!(tcp.max_connections, None);
    assert_eq!(tcp.enable_authn, EnableAuthn::True);
    assert_eq!(
        (tcp.zone.as_str(), tcp.mountpoint.as_str()),
        ("default", "")
    );
    assert_eq!(tcp.access_rules.len(), 1);
    assert_eq!(tcp.tcp_options.backlog, 1024);
    assert_eq!(tcp.tcp_options.keepalive, None);
    let ssl = s.listeners[1].ssl_options.as_ref().expect("TLS");
    assert_eq!(ssl.certfile, "/opt/emqx/etc/certs/cert.pem");
    assert_eq!(ssl.verify, Verify::VerifyNone);
    assert_eq!(ssl.versions, ["tlsv1.3", "tlsv1.2"]);
    let ws = s.listeners[2].websocket.as_ref().expect("WebSocket");
    assert_eq!(ws.mqtt_path, "/mqtt");
    assert_eq!(ws.idle_timeout_ms, Some(7_200_000));
    assert_eq!(ws.max_frame_bytes, None);
    assert_eq!(
        ws.supported_subprotocols,
        ["mqtt", "mqtt-v3", "mqtt-v3.1.1", "mqtt-v5"]
    );
    assert!(s.listeners[2].ssl_options.is_none() && tcp.websocket.is_none());
}

#[test]
fn protocol_defaults_are_emqx_s() {
    let mqtt = with("").settings.mqtt;
    assert_eq!(mqtt.idle_timeout_ms, Some(15_000));
    assert_eq!(mqtt.max_packet_bytes, 1 << 20);
    assert_eq!(mqtt.max_clientid_len, 65_535);
    assert_eq!(mqtt.max_topic_levels, 128);
    assert_eq!(mqtt.max_topic_alias, 65_535);
    assert!(mqtt.retain_available && mqtt.wildcard_subscription && mqtt.shared_subscription);
    assert!(!mqtt.exclusive_subscription && !mqtt.strict_mode && !mqtt.upgrade_qos);
    assert_eq!(
        mqtt.shared_subscription_strategy,
        SharedStrategy::RoundRobin
    );
    assert_eq!(mqtt.server_keepalive_s, None);
    assert!((mqtt.keepalive_multiplier - 1.5).abs() < f64::EPSILON);
    assert_eq!(mqtt.retry_interval_ms, None);
    assert_eq!(mqtt.peer_cert_as_username, None);
    assert_eq!(mqtt.clientid_override, None);
    assert_eq!(mqtt.session_expiry_interval_ms, 7_200_000);
    assert_eq!(mqtt.message_expiry_interval_ms, None);
    assert_eq!(mqtt.max_awaiting_rel, Some(100));
    assert_eq!(mqtt.await_rel_timeout_ms, Some(300_000));
    assert_eq!(mqtt.max_qos_allowed, 2);
    assert_eq!(mqtt.max_mqueue_len, Some(1000));
    assert_eq!((mqtt.max_inflight, mqtt.max_subscriptions), (32, None));
    assert!(mqtt.mqueue_store_qos0 && mqtt.mqueue_priorities.is_empty());
}

#[test]
fn feature_defaults_are_emqx_s() {
    let s = with("").settings;
    assert_eq!(s.retainer.max_payload_bytes, Some(1 << 20));
    // On purpose not EMQX's: what is acknowledged is kept (docs/adr/003).
    assert_eq!(
        (s.retainer.delivery_rate, s.retainer.max_publish_rate),
        (None, None)
    );
    assert_eq!(s.retainer.msg_expiry_interval_ms, None);
    assert_eq!(s.retainer.max_retained_messages, None);
    assert!(s.delayed.enable && s.retainer.enable && !s.statsd.enable);
    assert_eq!(s.sys_topics.sys_msg_interval_ms, Some(60_000));
    assert_eq!(s.sys_topics.sys_heartbeat_interval_ms, Some(30_000));
    assert!(!s.flapping_detect.enable && s.force_shutdown.enable);
    assert_eq!(s.force_shutdown.max_heap_bytes, 32 << 20);
    let file = serde_json::json!(
        [{"type": "file", "enable": true, "path": "/opt/emqx/etc/acl.conf"}]
    );
    assert_eq!(serde_json::Value::from(s.authorization.sources), file);
    assert_eq!(s.authentication, Vec::<serde_json::Value>::new());
    assert_eq!(s.log.files["default"].path, "/opt/emqx/log/emqx.log");
    assert_eq!(s.log.console.level, LogLevel::Warning);
    assert_eq!(s.log.console.enable, None);
}

#[test]
fn every_block_of_the_page_loads_unchanged() {
    let strategy = |text: &str| with(text).settings.cluster.strategy;
    let manual = "cluster {\n    ## 可选 manual | static | mcast | dns | etcd | K8s\n    \
                  discovery_strategy  =  manual\n}\n";
    assert_eq!(strategy(manual), Strategy::Manual);
    let fixed = "cluster {\n    discovery_strategy = static\n    static {\n        seeds = \
                 [\"emqx@s1.emqx.io\", \"emqx@s2.emqx.io\"] \n    }\n}\n";
    let seeds = vec!["emqx@s1.emqx.io".to_owned(), "emqx@s2.emqx.io".to_owned()];
    assert_eq!(strategy(fixed), Strategy::Static { seeds });
    for (word, record_type) in [("a", DnsRecordType::A), ("srv", DnsRecordType::Srv)] {
        let text = format!(
            "cluster {{\n    discovery_strategy = dns\n    dns {{\n        name = \
             \"localhost\"\n        record_type = {word}\n    }}\n}}\n"
        );
        let name = "localhost".to_owned();
        assert_eq!(strategy(&text), Strategy::Dns { name, record_type });
    }
    let etcd = "cluster {\n    discovery_strategy = etcd\n    etcd {\n        server = \
                \"http://127.0.0.1:2379\"\n        prefix = emqxcl\n        node_ttl = 1m\n    \
                }\n}\n";
    assert_eq!(
        strategy(etcd),
        Strategy::Etcd {
            servers: vec!["http://127.0.0.1:2379".to_owned()],
            prefix: "emqxcl".to_owned(),
            node_ttl_ms: 60_000,
            user: None,
            ssl: None,
        }
    );
    let k8s = "cluster {\n    discovery_strategy = K8s\n    K8s {\n        apiserver = \
               \"http://10.110.111.204:8080\"\n        service_name = emqx\n        \
               address_type = ip\n        app_name = emqx\n        suffix = \"pod.local\"\n        \
               namespace = default\n    }\n}\n";
    assert_eq!(
        strategy(k8s),
        Strategy::K8s {
            apiserver: "http://10.110.111.204:8080".to_owned(),
            service_name: "emqx".to_owned(),
            address_type: K8sAddressType::Ip,
            namespace: "default".to_owned(),
            suffix: "pod.local".to_owned(),
            app_name: Some("emqx".to_owned()),
        }
    );
    let warnings: Vec<String> = with(k8s).warnings.iter().map(ToString::to_string).collect();
    // The cookie that everybody knows.
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let mcast = with("cluster.discovery_strategy = mcast");
    assert!(matches!(
        mcast.settings.cluster.strategy,
        Strategy::Mcast { ttl: 255, .. }
    ));
    assert!(
        mcast
            .warnings
            .iter()
            .any(|w| w.to_string().contains("deprecated"))
    );
}

#[test]
fn the_second_node_of_the_page() {
    let loaded = with_env(&[
        ("EMQX_NODE__NAME", "emqx2@127.0.0.1"),
        ("EMQX_STATSD__SERVER", "127.0.0.1:8124"),
        ("EMQX_LISTENERS__TCP__DEFAULT__BIND", "0.0.0.0:1882"),
        ("EMQX_LISTENERS__SSL__DEFAULT__BIND", "0.0.0.0:8882"),
        ("EMQX_LISTENERS__WS__DEFAULT__BIND", "0.0.0.0:8082"),
        ("EMQX_LISTENERS__WSS__DEFAULT__BIND", "0.0.0.0:8085"),
        ("EMQX_DASHBOARD__LISTENERS__HTTP__BIND", "0.0.0.0:18082"),
        ("EMQX_NODE__DATA_DIR", "./data2"),
    ]);
    let s = &loaded.settings;
    assert_eq!(s.node.name, "emqx2@127.0.0.1");
    assert_eq!(s.node.data_dir, "./data2");
    assert_eq!(s.statsd.server, "127.0.0.1:8124");
    let ports: Vec<u16> = s.listeners.iter().map(|l| l.bind.port).collect();
    assert_eq!(ports, [1882, 8882, 8082, 8085]);
    let lines: Vec<String> = loaded.overrides.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "EMQX_DASHBOARD__LISTENERS__HTTP__BIND [dashboard.listeners.http.bind]: 0.0.0.0:18082",
            "EMQX_LISTENERS__SSL__DEFAULT__BIND [listeners.ssl.default.bind]: 0.0.0.0:8882",
            "EMQX_LISTENERS__TCP__DEFAULT__BIND [listeners.tcp.default.bind]: 0.0.0.0:1882",
            "EMQX_LISTENERS__WSS__DEFAULT__BIND [listeners.wss.default.bind]: 0.0.0.0:8085",
            "EMQX_LISTENERS__WS__DEFAULT__BIND [listeners.ws.default.bind]: 0.0.0.0:8082",
            "EMQX_NODE__DATA_DIR [node.data_dir]: ./data2",
            "EMQX_NODE__NAME [node.name]: emqx2@127.0.0.1",
            "EMQX_STATSD__SERVER [statsd.server]: 127.0.0.1:8124",
        ]
    );
    assert_eq!(loaded.warnings, [Warning::DefaultCookie]);
}

#[test]
fn precedence_of_the_layers() {
    use LayerKind::{Base, Cluster, Etc, LegacyOverride};
    type Case<'a> = (&'a [LayerKind], &'a [(&'a str, &'a str)], u16);
    let layers = |wanted: &[LayerKind]| {
        let port = |kind| match kind {
            Base => 1,
            Cluster => 2,
            Etc => 3,
            _ => 5,
        };
        let mut files = vec![layer(Etc, "etc/emqx.conf", SHIPPED)];
        // Given in the wrong order on purpose.
        for kind in wanted.iter().rev() {
            let text = format!("mqtt.max_inflight = {}", port(*kind));
            files.push(layer(*kind, "file", &text));
        }
        files
    };
    let env: &[(&str, &str)] = &[("EMQX_MQTT__MAX_INFLIGHT", "4")];
    let cases: &[Case<'_>] = &[
        (&[], &[], 32),
        (&[Base], &[], 1),
        (&[Base, Cluster], &[], 2),
        (&[Base, Cluster, Etc], &[], 3),
        (&[Base, Cluster, Etc], env, 4),
        (&[Base, Cluster, Etc, LegacyOverride], env, 5),
    ];
    for (wanted, env, expected) in cases {
        let loaded = load(&sources(layers(wanted), env, &NoFiles)).expect("valid");
        assert_eq!(
            loaded.settings.mqtt.max_inflight, *expected,
            "{wanted:?} {env:?}"
        );
    }
}

#[test]
fn aliases_keep_the_precedence_of_their_layer() {
    let files = vec![
        layer(
            LayerKind::Etc,
            "etc/emqx.conf",
            &format!("{SHIPPED}\nrpc.tcp_client_num = 7"),
        ),
        layer(LayerKind::Cluster, "cluster.hocon", "rpc.client_num = 3"),
    ];
    let loaded = load(&sources(files, &[], &NoFiles)).expect("valid");
    assert_eq!(loaded.settings.rpc.client_num, 7);
    let text = "rpc.driver = ssl\nnode.db_role = replicant\nrpc.tcp_server_port = 5400\n\
                cluster.etcd.ssl.enable = true\nlisteners.tcp.default.enabled = false";
    let loaded = with(text);
    assert_eq!(loaded.settings.rpc.protocol.as_str(), "ssl");
    assert_eq!(loaded.settings.node.role.as_str(), "replicant");
    assert!(!loaded.settings.listeners[0].enable);
}

#[test]
fn values_remember_where_they_were_written() {
    let loaded = try_with(
        "\nmqtt {\n  max_inflight = 9\n}",
        &[("EMQX_MQTT__UPGRADE_QOS", "true")],
    )
    .expect("valid");
    let at = |path: &str| {
        loaded
            .raw
            .provenance(path)
            .expect("path exists")
            .to_string()
    };
    assert_eq!(at("mqtt.max_inflight"), "etc/extra.conf:3:18");
    assert_eq!(at("mqtt.upgrade_qos"), "EMQX_MQTT__UPGRADE_QOS");
    assert_eq!(at("mqtt.max_qos_allowed"), "default");
    assert_eq!(at("node.name"), "etc/emqx.conf:18:10");
    let layer = |path: &str| loaded.raw.provenance(path).expect("path exists").layer;
    assert_eq!(layer("mqtt.upgrade_qos"), LayerKind::Env);
    assert_eq!(layer("mqtt.max_qos_allowed"), LayerKind::Default);
}

#[test]
fn values_of_variables_are_read_as_emqx_reads_them() {
    // Measured; the path takes any value as it is.
    let table: &[(&str, &str)] = &[
        ("127.0.0.1:8124", "\"127.0.0.1:8124\""),
        ("1882", "1882"),
        ("./data2", "\"./data2\""),
        ("[a@b,c@d]", "[\"a@b\", \"c@d\"]"),
        ("a@b,c@d", "\"a@b,c@d\""),
        ("{a=1}", "{\n  a = 1\n}"),
        ("http://h:2379", "\"http://h:2379\""),
        ("abc#123", "abc"),
        ("abc//x", "abc"),
        ("pa ss", "pass"),
        ("0123", "123"),
        ("x y=2", "x"),
        ("\"abc#123\"", "\"abc#123\""),
        ("", "\"\""),
        ("true", "true"),
        ("1.5s", "\"1.5s\""),
        ("/var/lib/emqx", "\"/var/lib/emqx\""),
        ("topic t/#", "\"topic t/#\""),
        ("${x}", "\"${x}\""),
        ("a: b", "\"a: b\""),
    ];
    for (given, expected) in table {
        let loaded = with_env(&[("EMQX_RULE_ENGINE__ANY", given)]);
        let value = loaded.raw.root.get("rule_engine.any").expect("set");
        assert_eq!(render::value_text(&value.value), *expected, "{given}");
    }
    let seeds = with_env(&[
        ("EMQX_CLUSTER__STATIC__SEEDS", "a@b,c@d"),
        ("EMQX_CLUSTER__DISCOVERY_STRATEGY", "static"),
    ]);
    let expected = vec!["a@b".to_owned(), "c@d".to_owned()];
    assert_eq!(
        seeds.settings.cluster.strategy,
        Strategy::Static { seeds: expected }
    );
    let unset = try_with(
        "mqtt.max_inflight = 9",
        &[("EMQX_MQTT__MAX_INFLIGHT", "null")],
    );
    assert_eq!(unset.expect("valid").settings.mqtt.max_inflight, 32);
}

#[test]
fn a_variable_that_does_not_mean_what_it_says_is_warned_about() {
    let warned = |value: &str| {
        with_env(&[("EMQX_DASHBOARD__DEFAULT_USERNAME", value)])
            .warnings
            .iter()
            .filter(|w| matches!(w, Warning::EnvValueChanged { .. }))
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    for harmless in [
        "abc",
        "\"a#b\"",
        "12",
        "a.b@c",
        "a/b",
        "true",
        "127.0.0.1:80",
    ] {
        assert_eq!(warned(harmless), Vec::<String>::new(), "{harmless}");
    }
    for changed in ["a#b", "pa ss", "0123", "abc//x", "x y=2", "1.50"] {
        assert_eq!(warned(changed).len(), 1, "{changed}");
    }
    assert_eq!(
        warned("a#b"),
        [
            "EMQX_DASHBOARD__DEFAULT_USERNAME: the value \"a#b\" is read as \
        \"a\", because values are HOCON; write EMQX_DASHBOARD__DEFAULT_USERNAME='\"a#b\"' to keep \
        it"
        ]
    );
    let secret = with_env(&[("EMQX_NODE__COOKIE", "tops#ecret")]);
    assert_eq!(secret.settings.node.cookie.expose(), "tops");
    let texts: String = secret.warnings.iter().map(ToString::to_string).collect();
    assert!(
        texts.contains("******") && !texts.contains("tops"),
        "{texts}"
    );
    assert_eq!(
        secret.overrides[0].to_string(),
        "EMQX_NODE__COOKIE [node.cookie]: ******"
    );
}

#[test]
fn names_of_variables() {
    let loaded = with_env(&[("EMQX_MQTT____MAX_PACKET_SIZE", "2MB")]);
    assert_eq!(loaded.settings.mqtt.max_packet_bytes, 2 << 20);
    let loaded = with_env(&[
        ("EMQX_NODE__NAM", "x"),
        ("EMQX_MQTT__NOSUCH", "x"),
        ("EMQX_NOSUCH__KEY", "x"),
        ("EMQX_FOO", "x"),
        ("PATH", "/bin"),
    ]);
    let unknown = Warning::UnknownEnv {
        variables: vec!["EMQX_MQTT__NOSUCH".to_owned(), "EMQX_NODE__NAM".to_owned()],
    };
    assert!(loaded.warnings.contains(&unknown));
    assert_eq!(
        unknown.to_string(),
        "unknown_env_vars: [\"EMQX_MQTT__NOSUCH\",\"EMQX_NODE__NAM\"]"
    );
    assert_eq!(loaded.overrides, []);
    let loaded = with_env(&[
        ("EMQX_NODE_NAME", "old@127.0.0.1"),
        ("EMQX_NODE__NAME", "new@127.0.0.1"),
        ("EMQX_NODE_COOKIE", "oldcookie"),
        ("EMQX_LOG__TO", "both"),
    ]);
    assert_eq!(loaded.settings.node.name, "old@127.0.0.1");
    assert_eq!(loaded.settings.node.cookie.expose(), "oldcookie");
    assert_eq!(loaded.settings.log.console.enable, Some(true));
    assert_eq!(
        loaded.settings.log.files["default"].handler.enable,
        Some(true)
    );
    let loaded = with_env(&[("EMQX_LOG__TO", "file"), ("EMQX_LOG__FILE__LEVEL", "debug")]);
    assert_eq!(loaded.settings.log.console.enable, Some(false));
    assert_eq!(
        loaded.settings.log.files["default"].handler.level,
        LogLevel::Debug
    );
}

#[test]
fn lists_are_set_element_by_element_from_one() {
    let rules = |env: &[(&str, &str)]| {
        try_with(
            "listeners.tcp.default.access_rules = [\"allow 10.0.0.1\"]",
            env,
        )
        .map(|l| effective(&l, "listeners.tcp.default.access_rules"))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let first = "EMQX_LISTENERS__TCP__DEFAULT__ACCESS_RULES__1";
    let second = "EMQX_LISTENERS__TCP__DEFAULT__ACCESS_RULES__2";
    let third = "EMQX_LISTENERS__TCP__DEFAULT__ACCESS_RULES__3";
    let zero = "EMQX_LISTENERS__TCP__DEFAULT__ACCESS_RULES__0";
    assert_eq!(
        rules(&[(first, "\"deny all\"")]).expect("valid"),
        "[\"deny all\"]"
    );
    assert_eq!(
        rules(&[(second, "\"deny all\"")]).expect("valid"),
        "[\"allow 10.0.0.1\", \"deny all\"]"
    );
    assert!(rules(&[(third, "x")]).expect_err("gap")[0].contains("only 1 to 2"));
    assert!(rules(&[(zero, "x")]).expect_err("zero")[0].contains("count from 1"));
}

#[test]
fn listeners_can_be_added_changed_and_removed() {
    let text = "listeners.tcp.default = marked_for_deletion\n\
                listeners.ssl.default.enable = false\n\
                listeners.ws.default.websocket.compress = true\n\
                listeners.tcp.extra { bind = 1884, max_connections = 10, messages_rate = \"5/s\", \
                enable_authn = quick_deny_anonymous, tcp_options.keepalive = \"240,30,5\" }";
    let s = with(text).settings;
    let ids: Vec<String> = s
        .listeners
        .iter()
        .map(|l| format!("{} {}", l.id(), l.enable))
        .collect();
    assert_eq!(
        ids,
        [
            "tcp:extra true",
            "ssl:default false",
            "ws:default true",
            "wss:default true"
        ]
    );
    let extra = &s.listeners[0];
    assert_eq!(
        (extra.kind, extra.bind.to_string()),
        (ListenerKind::Tcp, ":1884".to_owned())
    );
    assert_eq!(extra.max_connections, Some(10));
    assert_eq!(
        extra.messages_rate,
        Some(Rate {
            amount: 5,
            per_ms: 1000
        })
    );
    assert_eq!(extra.enable_authn, EnableAuthn::QuickDenyAnonymous);
    assert_eq!(extra.tcp_options.keepalive.map(|k| k.idle_s), Some(240));
    assert_eq!(
        with("listeners.tcp.default = null")
            .settings
            .listeners
            .len(),
        4
    );
    assert_eq!(
        with("listeners.tcp.default.bind = null").settings.listeners[0]
            .bind
            .port,
        1883
    );
}

#[test]
fn zones_inherit() {
    let text = "mqtt.max_inflight = 10\nzones.z1 { mqtt { max_inflight = 20, \
                peer_cert_as_username = cn }, flapping_detect.enable = true }\nzones.z2 {}";
    let s = with(text).settings;
    assert_eq!(s.zones.len(), 3);
    assert_eq!(s.zones["default"].mqtt.max_inflight, 10);
    assert_eq!(s.zones["z1"].mqtt.max_inflight, 20);
    assert_eq!(
        s.zones["z1"].mqtt.peer_cert_as_username,
        Some(PeerCertField::Cn)
    );
    assert_eq!(s.zones["z1"].mqtt.max_packet_bytes, 1 << 20);
    assert!(s.zones["z1"].flapping_detect.enable && !s.zones["default"].flapping_detect.enable);
    assert_eq!(s.zones["z2"].mqtt, s.mqtt);
}

#[test]
fn log_files_stand_alone_or_by_name() {
    let s = with("log.file { level = debug, to = \"/var/log/x.log\", time_offset = \"-02:00\" }");
    let file = &s.settings.log.files["default"];
    assert_eq!(
        (file.handler.level, file.path.as_str()),
        (LogLevel::Debug, "/var/log/x.log")
    );
    assert_eq!(file.handler.time_offset, TimeOffset::Minutes(-120));
    let s = with("log.file { a { level = error }, b { rotation_size = infinity } }").settings;
    assert_eq!(s.log.files.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(s.log.files["b"].rotation_bytes, None);
    let s = with("log.file_handlers.default.level = info").settings;
    assert_eq!(s.log.files["default"].handler.level, LogLevel::Info);
}

#[test]
fn strings_stand_for_numbers_and_booleans() {
    let text = "dashboard.listeners.http.bind = \"18083\"\nmqtt.max_inflight = \"7\"\n\
                mqtt.upgrade_qos = \"true\"\nmqtt.idle_timeout = 1500\n\
                node.dist_net_ticktime = 1500ms\nrpc.socket_keepalive_idle = 7";
    let s = with(text).settings;
    assert_eq!(s.mqtt.max_inflight, 7);
    assert!(s.mqtt.upgrade_qos);
    assert_eq!(s.mqtt.idle_timeout_ms, Some(1500));
    assert_eq!(s.node.dist_net_ticktime_ms, 2000);
    assert_eq!(s.rpc.socket_keepalive_idle_ms, 7000);
}

#[test]
fn errors_name_place_path_reason_and_cure() {
    let first = |text: &str| errors(text).remove(0);
    assert_eq!(
        first("cluster.autohea1 = true"),
        "etc/extra.conf:1:20: cluster.autohea1: unknown key; did you mean `autoheal`?"
    );
    assert_eq!(
        first("mqtt {\n  max_packet_size = banana\n}"),
        "etc/extra.conf:2:21: mqtt.max_packet_size: \"banana\" is not a size such as 64KB or 1MB"
    );
    assert_eq!(
        first("cluster.discovery_strategy = Static"),
        "etc/extra.conf:1:30: cluster.discovery_strategy: \"Static\" is not one of manual, static, \
         dns, etcd, k8s, mcast, singleton; did you mean `static`?"
    );
    assert_eq!(
        first("mqtt.max_qos_allowed = 3"),
        "etc/extra.conf:1:24: mqtt.max_qos_allowed: 3 is out of range, allowed is 0 to 2"
    );
    assert_eq!(
        first("node.cookie = null"),
        "node.cookie: is required; write for example `node.cookie = \"a long random text\"` in \
         etc/emqx.conf"
    );
    assert_eq!(
        first("mqtt.idle_timeout = on"),
        "etc/extra.conf:1:21: mqtt.idle_timeout: \"on\" is not infinity or a duration such as \
         15s, 1h30m or 100ms"
    );
    assert_eq!(
        first("a = 127.0.0.1:1883 5"),
        "etc/extra.conf:1:20: unexpected `5` after a value; separate entries with a comma or \
         quote the whole value"
    );
    assert_eq!(
        first("a {\n  b = 1\n"),
        "etc/extra.conf:1:3: `{` is never closed"
    );
    assert_eq!(
        first("x = ${no.such}"),
        "etc/extra.conf:1:5: ${no.such} names no value; environment variables are not looked up \
         here, write ${?no.such} if it may be missing"
    );
}

#[test]
fn all_errors_are_reported() {
    let found = errors(
        "mqtt.max_inflight = 0\nmqtt.nosuch = 1\nlog.console.level = loud\n\
                        listeners.tcp.default.bind = nowhere\ndashboard.cors = maybe",
    );
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn errors_as_emqx_prints_them() {
    let map = |text: &str| match try_with(text, &[]) {
        Ok(_) => panic!("{text} was accepted"),
        Err(errors) => errors[0].emqx_map(),
    };
    let env = try_with("", &[("EMQX_MQTT__MAX_PACKET_SIZE", "banana")]).map(|_| ());
    assert_eq!(
        env.expect_err("refused")[0].emqx_map(),
        "#{kind => validation_error,path => \"mqtt.max_packet_size\",reason => \"Not a valid \
         bytesize\",value => <<\"banana\">>}"
    );
    assert_eq!(
        map("cluster.static.sed = 1"),
        "#{kind => validation_error,path => \"cluster.static\",reason => unknown_fields,unknown \
         => \"sed\",unmatched => \"seeds\"}"
    );
    assert!(map("mqtt.idle_timeout = \"1 m\"").contains("\"Not a valid duration\""));
}

#[test]
fn rules_over_several_values() {
    let has = |text: &str, part: &str| {
        let found = errors(text);
        assert!(
            found.iter().any(|error| error.contains(part)),
            "{text}: {found:#?}"
        );
    };
    has(
        "node.name = \"e mqx@127.0.0.1\"",
        "should be of format '^[0-9A-Za-z_-]+$'",
    );
    has("node.name = emqx", "after @ must be");
    has("node.cookie = \"\"", "must not be empty");
    has(
        "cluster { discovery_strategy = dns }, node.name = \"emqx@host.local\"",
        "Node name must be of name@IP format for DNS cluster discovery strategy with 'a' record \
         type.",
    );
    has(
        "cluster { discovery_strategy = dns, dns.record_type = a }, node.name = \"emqx@::1\"",
        "Node name address ipv6 is incompatible with DNS record type a",
    );
    has(
        "cluster { discovery_strategy = dns, dns.record_type = aaaa }",
        "Node name address ipv4 is incompatible with DNS record type aaaa",
    );
    has(
        "cluster.discovery_strategy = etcd",
        "cluster.etcd.server is required",
    );
    has(
        "cluster { discovery_strategy = k8s, k8s.apiserver = \"kubernetes:443\" }",
        "must be a URL that begins with http:// or https://",
    );
    has(
        "cluster { discovery_strategy = K8s, K8s.app_name = \"emqx@host\" }",
        "is the part of all node names before the @",
    );
    has(
        "cluster { discovery_strategy = static, static.seeds = [\"s1.emqx.io\"] }",
        "`s1.emqx.io` is not a node name",
    );
    has(
        "statsd { sample_time_interval = 31s }",
        "must not be greater",
    );
    has(
        "dashboard.sample_interval = 7s",
        "must be between 1 and 60 and be a divisor of 60.",
    );
    has(
        "listeners.tcp { default.max_connections = 5, b.bind = 1883 }",
        "is already taken by listeners.tcp.default.bind",
    );
    has(
        "dashboard.listeners.https.bind = 8883",
        "already taken by listeners.ssl.default.bind",
    );
    has("log.console.time_offset = later", "Invalid time offset");
    has(
        "listeners.tcp.default.tcp_options.keepalive = \"1,2\"",
        "240,30,5",
    );
    has("mqtt.max_packet_size = 1GB", "out of range");
    with("listeners.tcp.b { bind = 1883, enable = false }");
    with("listeners.tcp { default.bind = \"127.0.0.1:1883\", b.bind = \"127.0.0.2:1883\" }");
}

/// EMQX's examples add `listeners.tcp.my_tcp_listener_name` on 1883, or without any address.
#[test]
fn a_built_in_listener_gives_its_address_to_a_written_one_of_its_kind() {
    for text in [
        "listeners.tcp.mine.bind = 1883",
        "listeners.tcp.mine { max_connections = 5 }",
    ] {
        let loaded = with(text);
        let ids: Vec<_> = loaded
            .settings
            .listeners
            .iter()
            .map(dunlin_config::settings::Listener::id)
            .collect();
        assert_eq!(
            ids,
            ["tcp:mine", "ssl:default", "ws:default", "wss:default"]
        );
        let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        let told = warnings.iter().filter(|w| {
            w.contains("listeners.tcp.default does not start, because listeners.tcp.mine has")
        });
        assert_eq!(told.count(), 1, "{warnings:?}");
    }
    assert_eq!(
        with("listeners.tcp.mine.bind = 1884")
            .settings
            .listeners
            .len(),
        5
    );
}

#[test]
fn every_feature_that_emqx_documents_can_be_configured() {
    let blocks: Vec<_> = include_str!("features.conf").split("\n---\n").collect();
    assert_eq!(blocks.len(), 44);
    for block in blocks {
        let unknown = with(block)
            .warnings
            .iter()
            .any(|w| w.to_string().contains("unknown"));
        assert!(!unknown, "{block}");
    }
}

#[test]
fn other_things_worth_knowing_are_warnings() {
    let texts = |text: &str| {
        with(text)
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(texts("listners.tcp.default.bind = 1").contains("did you mean `listeners`?"));
    assert!(texts("dashboard.default_username = admin#1").contains("double quotes"));
    assert!(texts("api_key.bootstrap_file = \"${NOWHERE}/x\"").contains("NOWHERE"));
    assert!(texts("node.process_limit = 2000000").contains("deprecated"));
    let loaded = with(
        "node.process_limit = 2000000\nrule_engine.rules.r1.sql = \"SELECT 1\"\n\
                       exhook.servers = []",
    );
    let paths: Vec<&str> = loaded
        .without_effect
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(paths, ["node.process_limit", "exhook", "rule_engine"]);
}

#[test]
fn secrets_are_never_shown() {
    let text = "authentication = [{mechanism = password_based, backend = redis, password = \
                hunter2}]\ndashboard.default_password = hunter3\nnode.cookie = hunter4";
    let loaded = with(text);
    let shown = render::conf_show(&loaded.raw, "").expect("root");
    let json = render::json(&loaded.raw, "").expect("root").to_string();
    let debug = format!("{:?}", loaded.settings.node) + &format!("{:?}", loaded.settings.dashboard);
    for output in [&shown, &json, &debug] {
        assert!(!output.contains("hunter"), "{output}");
        assert!(output.contains("******"));
    }
    let error = errors("dashboard.default_password { a = hunter5 }").join("");
    assert!(!error.contains("hunter5"), "{error}");
    let full = loaded
        .raw
        .effective("node.cookie", Secrets::Shown)
        .expect("cookie");
    assert_eq!(full.text().as_deref(), Some("hunter4"));
}

#[test]
fn what_is_shown_loads_again_with_the_same_meaning() {
    let loaded = with(
        "mqtt.max_inflight = 11\nlisteners.tcp.x.bind = 1900\n\
                       mqtt.mqueue_priorities { \"t/1.2\" = 3 }",
    );
    let value = loaded.raw.effective("", Secrets::Shown).expect("root");
    let place = loaded.raw.root.place.clone();
    let text = dunlin_config::hocon::write(&dunlin_config::hocon::Node { value, place });
    let again = load(&sources(
        vec![layer(LayerKind::Etc, "shown", &text)],
        &[],
        &NoFiles,
    ))
    .unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
    assert_eq!(again.settings, loaded.settings);
    let part = render::conf_show(&loaded.raw, "mqtt.max_inflight").expect("exists");
    assert_eq!(part, "max_inflight = 11\n");
    assert!(render::conf_show(&loaded.raw, "no.such").is_none());
}

#[test]
fn differences_are_found_with_the_time_they_are_in_force() {
    let before = with("").raw;
    let after = with(
        "mqtt.max_inflight = 1\ncluster.autoheal = false\nlisteners.tcp.n.bind = 9\n\
                      authentication = [{mechanism = jwt}]",
    )
    .raw;
    let changes: Vec<String> = change::diff(&before, &after)
        .into_iter()
        .map(|change| format!("{} {:?}", change.path, change.in_force))
        .collect();
    assert_eq!(
        changes,
        [
            "authentication AfterRestart",
            "cluster.autoheal AfterRestart",
            "listeners.tcp.n AfterRestart",
            "mqtt.max_inflight NewConnections"
        ]
    );
    assert_eq!(change::diff(&before, &before), []);
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a new example must not be forgotten"
)]
fn all_shipped_examples_load() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../etc/examples");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).expect("examples are shipped") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let loaded = try_with(&text, &[]).unwrap_or_else(|e| panic!("{path:?}: {e:#?}"));
        let mut warnings = loaded.warnings;
        warnings.retain(|warning| *warning != Warning::DefaultCookie);
        if text.contains("## Accepted without effect so far") || text.contains(". Accepted without")
        {
            // What an example says of itself must stay true.
            let without_effect = |w: &Warning| matches!(w, Warning::WithoutEffect { .. });
            assert!(!warnings.is_empty(), "{path:?} has effect");
            assert!(
                warnings.iter().all(without_effect),
                "{path:?}: {warnings:?}"
            );
        } else {
            assert_eq!(loaded.without_effect, [], "{path:?}");
            assert_eq!(warnings, [], "{path:?}");
        }
        count += 1;
    }
    assert!(count >= 10, "{count} examples");
    let base = include_str!("../../../etc/base.hocon");
    assert!(
        dunlin_config::hocon::parse(base)
            .expect("valid")
            .as_object()
            .expect("object")
            .is_empty()
    );
}

#[test]
fn the_configuration_of_emqx_5_0_loads() {
    let text = r#"
listeners.tcp.default { bind = "0.0.0.0:1883", max_connections = 1024000 }
listeners.wss.default { bind = "0.0.0.0:8084", max_connections = 512000
  websocket.mqtt_path = "/mqtt" }
dashboard { listeners.http { bind = 18083 }, default_username = "admin"
  default_password = "public" }
authorization { deny_action = ignore, no_match = allow, cache = { enable = true }
  sources = [{ type = file, enable = true, path = "etc/acl.conf" }] }
statsd { enable = false, server = "127.0.0.1:8125", sample_time_interval = 10s,
  flush_time_interval = 10s }
cluster { name = emqxcl, discovery_strategy = mcast, autoclean = 5m
  mcast { addr = "239.192.0.1", ports = [4369, 4370], iface = "0.0.0.0", ttl = 255, loop = true } }
node { process_limit = 2097152, max_ets_tables = 262144, etc_dir = "etc" }
log { file_handlers.default { level = warning, file = "${EMQX_LOG_DIR}/emqx.log", max_size = 50MB }
  console_handler { enable = false } }
gateway.stomp { listeners.tcp.default { bind = 61613 } }
prometheus { push_gateway_server = "http://127.0.0.1:9091", interval = 15s, enable = true }
"#;
    let loaded = with(text);
    assert_eq!(loaded.settings.statsd.flush_time_interval_ms, 10_000);
    assert_eq!(loaded.settings.log.console.enable, Some(false));
    assert_eq!(
        loaded.settings.listeners[0].max_connections,
        Some(1_024_000)
    );
}

/// A block of the listener for HTTPS with the TLS keys where EMQX 5.8's older example has them.
const LOOSE_TLS: &str = r#"
node { cookie = c, data_dir = d }
dashboard.listeners.https {
  bind = "127.0.0.1:8443"
  max_connections = 64
  cacertfile = "tls/authorities.pem"
  certfile = "tls/chain.pem"
  keyfile = "tls/secret.pem"
  verify = verify_peer
  versions = [tlsv1.3]
  ciphers = "TLS_AES_128_GCM_SHA256"
  depth = 3
  reuse_sessions = false
  secure_renegotiate = false
  client_renegotiation = false
  honor_cipher_order = false
  handshake_timeout = 7s
  hibernate_after = 1m
  log_level = error
  ssl_options { keyfile = "${EMQX_ETC_DIR}/key.pem", honor_cipher_order = true }
}
"#;

#[test]
fn tls_keys_beside_ssl_options_act_where_it_does_not_set_them() {
    let file = layer(LayerKind::Etc, "etc/emqx.conf", LOOSE_TLS);
    let loaded = load(&sources(vec![file], &[], &NoFiles)).expect("valid");
    let https = loaded.settings.dashboard.https.as_ref().expect("on");
    assert_eq!(https.http.max_connections, 64);
    let tls = &https.ssl_options;
    assert_eq!(tls.cacertfile, "tls/authorities.pem");
    assert_eq!(tls.certfile, "tls/chain.pem");
    assert_eq!(tls.keyfile, "/opt/emqx/etc/key.pem");
    assert_eq!(tls.verify, Verify::VerifyPeer);
    assert_eq!(tls.versions, ["tlsv1.3"]);
    assert_eq!(tls.ciphers, ["TLS_AES_128_GCM_SHA256"]);
    assert_eq!((tls.depth, tls.handshake_timeout_ms), (3, 7_000));
    assert!(!tls.reuse_sessions && tls.honor_cipher_order);
    // They are shown where they act, and nowhere else.
    let at = |key: &str| effective(&loaded, &format!("dashboard.listeners.https.{key}"));
    assert_eq!(at("ssl_options.certfile"), "\"tls/chain.pem\"");
    assert_eq!(at("ssl_options.log_level"), "error");
    assert!(!at("").contains("\n  certfile"), "{}", at(""));
    let place = loaded
        .raw
        .provenance("dashboard.listeners.https.ssl_options.certfile")
        .expect("exists");
    assert_eq!(place.to_string(), "etc/emqx.conf:7:14");
    let hints: Vec<String> = loaded
        .warnings
        .iter()
        .filter(|w| matches!(w, Warning::Deprecated { .. }))
        .map(ToString::to_string)
        .collect();
    assert_eq!(hints.len(), 14, "{hints:#?}");
    let hint = "etc/emqx.conf:7:14: dashboard.listeners.https.certfile: deprecated; move it into \
                ssl_options";
    assert!(hints.iter().any(|text| text == hint), "{hints:#?}");
    let by_variable = with_env(&[("EMQX_DASHBOARD__LISTENERS__HTTPS__CACERTFILE", "x.pem")]);
    let shown = effective(
        &by_variable,
        "dashboard.listeners.https.ssl_options.cacertfile",
    );
    assert_eq!(shown, "\"x.pem\"");
}

#[test]
fn a_guard_that_does_nothing_is_said_aloud() {
    let said = |text: &str| -> Vec<String> {
        with(text)
            .warnings
            .iter()
            .filter(|w| matches!(w, Warning::WithoutEffect { .. }))
            .map(ToString::to_string)
            .collect()
    };
    let asks: &[(&str, &str)] = &[
        ("flapping_detect.enable = true", "not banned"),
        ("zones.z.flapping_detect.enable = true", "not banned"),
        ("banned.bootstrap_file = \"b.csv\"", "may connect"),
        ("mqtt.peer_cert_as_username = cn", "name themselves"),
        (
            "listeners.ssl.default.ssl_options.enable_crl_check = true",
            "revoked",
        ),
        (
            "exhook.servers = [{name = a, url = \"http://a\"}]",
            "not asked",
        ),
        ("durable_sessions.enable = true", "lost with their node"),
    ];
    for (text, expected) in asks {
        let said = said(text);
        assert_eq!(said.len(), 1, "{text}: {said:?}");
        assert!(said[0].contains(expected), "{text}: {said:?}");
        assert!(said[0].contains(": accepted without effect; "), "{said:?}");
    }
    for text in [
        "cluster { discovery_strategy = static, static.seeds = [\"emqx@a\"] }",
        "cluster { discovery_strategy = etcd, etcd.server = \"http://a:2379\" }",
        "cluster { discovery_strategy = mcast }",
        "node.name = \"emqx@10.0.0.1\"\ncluster { discovery_strategy = dns, dns.name = a }",
        "cluster { discovery_strategy = k8s, k8s.namespace = mq }",
        "authentication = []",
        "authentication = [{mechanism = jwt, enable = false}]",
        "authentication = [{mechanism = jwt}]",
        "listeners.tcp.default.authentication = {mechanism = jwt, enable = true}",
        "authorization { no_match = deny, deny_action = disconnect }",
        "authorization.sources = [{type = file, path = \"${EMQX_ETC_DIR}/acl.conf\"}]",
        "authorization.sources = [{type = http, enable = \"false\"}]",
        "flapping_detect { enable = \"false\", max_count = 3 }",
        "rpc.protocol = tcp",
        "banned.bootstrap_file = \"\"",
        "mqtt { peer_cert_as_username = disabled, clientid_override = disabled }",
        "exhook.servers = []",
        "cluster { discovery_strategy = singleton, proto_dist = inet6_tcp }",
        "cluster.proto_dist = inet_tls",
        "rpc.driver = ssl",
    ] {
        assert_eq!(said(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn older_names_inside_a_variable_s_object_are_known() {
    let loaded = with_env(&[(
        "EMQX_LISTENERS__TCP__DEFAULT",
        "{enabled = false, bind = 7}",
    )]);
    let tcp = &loaded.settings.listeners[0];
    assert_eq!((tcp.enable, tcp.bind.port), (false, 7));
    let loaded = with_env(&[("EMQX_AUTHENTICATION__1__MECHANISM", "jwt")]);
    assert_eq!(
        loaded.settings.authentication,
        [serde_json::json!({"mechanism": "jwt"})]
    );
}

#[test]
fn etcd_is_spoken_to_by_tls_if_either_the_url_or_the_options_say_so() {
    for (text, encrypted) in [
        ("etcd.server = \"https://a:2379\"", true),
        ("etcd { server = \"http://a,https://b\" }", true),
        ("etcd { server = \"a:2379\", ssl.enable = true }", true),
        (
            "etcd { server = \"a:2379\", ssl.verify = verify_peer }",
            false,
        ),
    ] {
        let text = format!("cluster {{ discovery_strategy = etcd, {text} }}");
        let Strategy::Etcd { ssl, .. } = with(&text).settings.cluster.strategy else {
            panic!("{text}");
        };
        assert_eq!(ssl.is_some(), encrypted, "{text}");
    }
}
