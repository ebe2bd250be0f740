//! Changes at run time: what is written, what is refused and why, and what a node makes of rows
//! that came from others.

use std::collections::BTreeMap;

use dunlin_config::change::{self, Change, Mode, Plan, Refusal, Rows};
use dunlin_config::hocon::NoFiles;
use dunlin_config::schema::InForce;
use dunlin_config::{Layer, LayerKind, Layers, Loaded, Secrets, Sources, load, render};
use proptest::prelude::*;
use serde_json::json;

const CONF: &str = "node { name = \"emqx@127.0.0.1\", cookie = hidden, data_dir = data }\n";

fn loaded(conf: &str, env: &[(&str, &str)]) -> Loaded {
    let text = format!("{CONF}{conf}");
    let path = "etc/emqx.conf".to_owned();
    let kind = LayerKind::Etc;
    let sources = Sources {
        files: vec![Layer { kind, path, text }],
        env: env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        etc_dir: "/opt/emqx/etc".to_owned(),
        log_dir: "/opt/emqx/log".to_owned(),
        data_dir: "data".to_owned(),
        include: &NoFiles,
    };
    load(&sources).expect("valid")
}

fn layers(conf: &str) -> Layers {
    loaded(conf, &[]).layers
}

fn rows(rows: &[(&str, &str)]) -> Rows {
    rows.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn plan(layers: &Layers, rows: &Rows, text: &str, mode: Mode) -> Result<Plan, Refusal> {
    let change = Change::from_text("new.conf", text, mode).expect("it can be read");
    change::plan(layers, rows, &change)
}

fn written(plan: Result<Plan, Refusal>) -> Vec<(String, Option<String>)> {
    plan.expect("accepted").writes.into_iter().collect()
}

fn put(key: &str, value: &str) -> (String, Option<String>) {
    (key.to_owned(), Some(value.to_owned()))
}

#[test]
fn a_change_is_one_row_for_each_value_that_differs() {
    let layers = layers("");
    let text = "mqtt { max_inflight = 7, max_packet_size = 1MB\n\
                mqueue_priorities { \"a/1.5\" = 7 } }\n\
                log.file.level = debug\nretainer.backend.max_retained_messages = 9";
    let plan = plan(&layers, &Rows::new(), text, Mode::Merge).expect("accepted");
    assert_eq!(plan.loaded.settings.mqtt.max_inflight, 7);
    assert_eq!(plan.loaded.settings.retainer.max_retained_messages, Some(9));
    assert!(plan.overruled.is_empty() && plan.without_effect.is_empty());
    let expected = [
        put("log.file.default.level", "\"debug\""),
        put("mqtt.max_inflight", "7"),
        put("mqtt.mqueue_priorities", "{\"a/1.5\":7}"),
        put("retainer.backend.max_retained_messages", "9"),
    ];
    assert_eq!(plan.writes.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn without_change_nothing_is_written_and_a_default_can_be_chosen_again() {
    let layers = layers("");
    let there = rows(&[("mqtt.max_inflight", "7")]);
    assert_eq!(
        written(plan(&layers, &there, "mqtt.max_inflight = 7", Mode::Merge)),
        []
    );
    let back = written(plan(&layers, &there, "mqtt.max_inflight = 32", Mode::Merge));
    assert_eq!(back, [put("mqtt.max_inflight", "32")]);
    let reset = change::plan(&layers, &there, &Change::reset("mqtt")).expect("accepted");
    assert_eq!(reset.loaded.settings.mqtt.max_inflight, 32);
    assert_eq!(
        reset.writes,
        BTreeMap::from([("mqtt.max_inflight".to_owned(), None)])
    );
}

#[test]
fn replacing_a_root_takes_its_other_changes_back() {
    let layers = layers("");
    let there = rows(&[("mqtt.max_inflight", "7"), ("alarm.size_limit", "9")]);
    let writes = written(plan(
        &layers,
        &there,
        "mqtt.upgrade_qos = true",
        Mode::Replace,
    ));
    let expected = [
        ("mqtt.max_inflight".to_owned(), None),
        put("mqtt.upgrade_qos", "true"),
    ];
    assert_eq!(writes, expected);
}

#[test]
fn what_cannot_change_at_run_time_is_refused_by_name() {
    let layers = layers("");
    let refused = |text: &str| plan(&layers, &Rows::new(), text, Mode::Merge).expect_err(text);
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        refused("node.name = \"b@h\"\nrpc.mode = async\nmqtt.max_inflight = 1"),
        Refusal::ReadOnly(keys(&["node.name", "rpc.mode"]))
    );
    assert_eq!(
        refused("listeners.tcp.default.bind = 9\nmqtt.max_inflight = 1"),
        Refusal::Restart(keys(&["listeners.tcp.default.bind"]))
    );
    assert_eq!(
        refused("log.console.formatter = json"),
        Refusal::Restart(keys(&["log.console.formatter"]))
    );
    let Refusal::TooLong(path) = refused(&format!(
        "mqtt.response_information = {}",
        "x".repeat(change::VALUE_BYTES_MAX)
    )) else {
        panic!("too long");
    };
    assert_eq!(path, "mqtt.response_information");
}

#[test]
fn an_invalid_change_is_refused_whole_with_place_and_nearest_name() {
    let layers = layers("");
    for (text, said) in [
        (
            "mqtt {\n max_inflght = 7\n}",
            &["new.conf:2", "max_inflight"][..],
        ),
        (
            "mqt.max_inflight = 7",
            &["new.conf:1", "did you mean `mqtt`"],
        ),
        (
            "mqtt.max_qos_allowed = 3\nmqtt.max_inflight = 7",
            &["mqtt.max_qos_allowed", "3"],
        ),
    ] {
        let Refusal::Invalid(errors) =
            plan(&layers, &Rows::new(), text, Mode::Merge).expect_err(text)
        else {
            panic!("{text} is invalid");
        };
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for said in said {
            assert!(
                errors.iter().any(|error| error.contains(said)),
                "{said}: {errors:?}"
            );
        }
    }
}

#[test]
fn a_node_s_own_files_and_environment_go_before_and_it_is_said() {
    let env = [("EMQX_MQTT__MAX_QOS_ALLOWED", "1")];
    let layers = loaded("mqtt.max_inflight = 5\nlog.file.level = error", &env).layers;
    let text = "mqtt { max_inflight = 7, max_qos_allowed = 0, upgrade_qos = true }\n\
                log.file.default.level = debug";
    let plan = plan(&layers, &Rows::new(), text, Mode::Merge).expect("accepted");
    let mqtt = &plan.loaded.settings.mqtt;
    assert_eq!(
        (mqtt.max_inflight, mqtt.max_qos_allowed, mqtt.upgrade_qos),
        (5, 1, true)
    );
    assert_eq!(
        plan.loaded.settings.log.files["default"]
            .handler
            .level
            .as_str(),
        "error"
    );
    let overruled: Vec<String> = plan
        .overruled
        .iter()
        .map(|(key, place)| format!("{key} {place}"))
        .collect();
    assert_eq!(
        overruled,
        [
            "log.file.default.level etc/emqx.conf:3:18",
            "mqtt.max_inflight etc/emqx.conf:2:21",
            "mqtt.max_qos_allowed EMQX_MQTT__MAX_QOS_ALLOWED",
        ]
    );
    assert_eq!(plan.writes.len(), 4, "the other nodes follow it");
}

#[test]
fn what_has_no_effect_is_accepted_and_said() {
    let text = "mqtt.keepalive_check_interval = 5s\nslow_subs.enable = true";
    let plan = plan(&layers(""), &Rows::new(), text, Mode::Merge).expect("accepted");
    assert_eq!(
        plan.without_effect,
        ["mqtt.keepalive_check_interval", "slow_subs.enable"]
    );
}

#[test]
fn json_is_a_change_too_and_a_mask_keeps_the_secret() {
    let layers = layers("dashboard.default_password = sesame");
    let body = json!({"max_inflight": 9, "mqueue_priorities": {"a.b": 3}});
    let change = Change::from_json("mqtt", &body, Mode::Merge);
    let plan = change::plan(&layers, &Rows::new(), &change).expect("accepted");
    assert_eq!(plan.loaded.settings.mqtt.mqueue_priorities["a.b"], 3);
    let body = json!({"default_password": "******", "default_username": "admin"});
    let change = Change::from_json("dashboard", &body, Mode::Merge);
    let plan = change::plan(&layers, &Rows::new(), &change).expect("nothing changes");
    assert!(plan.writes.is_empty());
}

#[test]
fn rows_that_make_no_sense_here_are_passed_over_one_by_one() {
    let layers = layers("");
    let rows = rows(&[
        ("mqtt.max_inflight", "7"),
        ("mqtt.of_a_later_release", "true"),
        ("mqtt.upgrade_qos", "{"),
        ("mqtt.max_qos_allowed", "9"),
        ("alarm.size_limit", "5"),
    ]);
    let applied = change::in_force(&layers, &rows).expect("valid without them");
    assert_eq!(applied.loaded.settings.mqtt.max_inflight, 7);
    assert_eq!(applied.loaded.settings.alarm.size_limit, 5);
    let refused: Vec<&str> = applied
        .refused
        .iter()
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(
        refused,
        [
            "mqtt.upgrade_qos",
            "mqtt.max_qos_allowed",
            "mqtt.of_a_later_release"
        ]
    );
}

#[test]
fn cluster_hocon_is_the_rows_and_one_of_emqx_becomes_rows() {
    let there = rows(&[
        ("mqtt.max_inflight", "7"),
        ("mqtt.mqueue_priorities", "{\"a.b\":1}"),
    ]);
    let text = change::text(&there);
    assert!(text.starts_with(change::CLUSTER_HOCON_HEADER), "{text}");
    assert!(change::is_written_from_rows(&text));
    assert_eq!(change::rows_of(&text).expect("sound"), there);
    let emqx = "node { name = n }\nmqtt { max_inflight = 5, upgrade_qos = true }\n\
                listeners.tcp.new.bind = 9";
    assert!(!change::is_written_from_rows(emqx));
    let expected = rows(&[
        ("listeners.tcp.new.bind", "9"),
        ("mqtt.max_inflight", "5"),
        ("mqtt.upgrade_qos", "true"),
    ]);
    assert_eq!(change::rows_of(emqx).expect("sound"), expected);
}

#[test]
fn when_a_change_is_in_force() {
    for (path, when) in [
        ("retainer.max_payload_size", InForce::AtOnce),
        ("log.console.level", InForce::AtOnce),
        ("log.file.default.path", InForce::AfterRestart),
        ("mqtt.max_inflight", InForce::NewConnections),
        ("zones.z.mqtt.max_inflight", InForce::NewConnections),
        ("listeners.tcp.default.bind", InForce::AfterRestart),
        ("node.name", InForce::AfterRestart),
    ] {
        assert_eq!(change::in_force_when(path), when, "{path}");
    }
}

/// Any value of some keys of every kind.
fn any_value() -> impl Strategy<Value = (&'static str, serde_json::Value)> {
    prop_oneof![
        (1..60_000_u32).prop_map(|n| ("mqtt.max_inflight", json!(n))),
        any::<bool>().prop_map(|b| ("mqtt.upgrade_qos", json!(b))),
        (1..900_u32).prop_map(|n| ("mqtt.retry_interval", json!(format!("{n}s")))),
        Just(("mqtt.retry_interval", json!("infinity"))),
        (1..64_u32).prop_map(|n| ("mqtt.max_packet_size", json!(format!("{n}KB")))),
        "[ -~\u{e9}\u{2028}\n\t]{0,12}".prop_map(|s| ("mqtt.response_information", json!(s))),
        ("[a-z./#]{1,9}", 1..255_u8).prop_map(|(t, n)| ("mqtt.mqueue_priorities", json!({ t: n }))),
        (100..300_u32).prop_map(|n| ("mqtt.keepalive_multiplier", json!(f64::from(n) / 100.0))),
        proptest::sample::subsequence(vec!["log", "publish"], 0..=2)
            .prop_map(|list| ("alarm.actions", json!(list))),
        (1..99_u32).prop_map(|n| ("zones.z.mqtt.max_inflight", json!(n))),
        proptest::sample::select(vec!["debug", "info", "error"])
            .prop_map(|level| ("log.file.default.level", json!(level))),
        (0..99_u32).prop_map(|n| ("retainer.backend.max_retained_messages", json!(n))),
    ]
}

proptest! {
    #[test]
    fn loading_what_is_shown_changes_nothing(
        values in proptest::collection::vec(any_value(), 0..8),
        replace in any::<bool>(),
    ) {
        let layers = layers("mqtt.max_awaiting_rel = 3\nauthentication = [{mechanism = \
                             password_based, backend = built_in_database, password = hidden}]");
        let rows: Rows = values.iter().map(|(k, v)| ((*k).to_owned(), v.to_string())).collect();
        let applied = change::in_force(&layers, &rows).expect("valid");
        prop_assert_eq!(&applied.refused, &[]);
        let shown = render::conf_show(&applied.loaded.raw, "").expect("there is a root");
        prop_assert!(!shown.contains("hidden"));
        let mode = if replace { Mode::Replace } else { Mode::Merge };
        let plan = plan(&layers, &rows, &shown, mode).expect("it is valid");
        prop_assert_eq!(&plan.writes, &BTreeMap::new());
        prop_assert_eq!(&plan.loaded.settings, &applied.loaded.settings);
        // Rows, file, rows: the same.
        prop_assert_eq!(change::rows_of(&change::text(&rows)).expect("sound"), rows);
        let all = |loaded: &Loaded| loaded.raw.effective("", Secrets::Shown).map(|v| v.to_json());
        prop_assert_eq!(all(&plan.loaded), all(&applied.loaded));
    }
}
