//! Walks the registry: every field is documented, every default is valid, a typing error
//! under any root is answered with the right name.

use std::collections::BTreeMap;

use dunlin_config::error::ConfigError;
use dunlin_config::hocon::NoFiles;
use dunlin_config::nearest::nearest;
use dunlin_config::schema::{Effect, Field, Kind};
use dunlin_config::section::roots;
use dunlin_config::{Layer, LayerKind, Sources, load, render};

/// Calls `see` for every field, with its path.
fn walk(kind: &'static Kind, path: &str, see: &mut dyn FnMut(&str, &'static Field)) {
    match kind {
        Kind::Object(fields) | Kind::Partial(fields) | Kind::OneOrNamed(fields) => {
            for field in *fields {
                let path = if path.is_empty() {
                    field.name.to_owned()
                } else {
                    format!("{path}.{}", field.name)
                };
                see(&path, field);
                walk(&field.kind, &path, see);
            }
        }
        Kind::Words(_, inner)
        | Kind::Map(inner)
        | Kind::List(inner)
        | Kind::ListOrOne(inner)
        | Kind::CommaList(inner) => walk(inner, path, see),
        Kind::Union(kinds) => kinds.iter().for_each(|kind| walk(kind, path, see)),
        _ => {}
    }
}

fn all_fields() -> BTreeMap<String, &'static Field> {
    let mut fields = BTreeMap::new();
    walk(
        dunlin_config::section::root_kind(),
        "",
        &mut |path, field| {
            fields.insert(path.to_owned(), field);
        },
    );
    fields
}

fn try_load(text: &str) -> Result<(), Vec<ConfigError>> {
    let text = format!("node {{ cookie = c, data_dir = d }}\n{text}");
    let files = vec![Layer {
        kind: LayerKind::Etc,
        path: "t".to_owned(),
        text,
    }];
    let dir = String::new;
    let (etc_dir, log_dir, data_dir) = (dir(), dir(), dir());
    load(&Sources {
        files,
        env: Vec::new(),
        etc_dir,
        log_dir,
        data_dir,
        include: &NoFiles,
    })
    .map(|_| ())
}

#[test]
fn every_field_is_documented_once() {
    let fields = all_fields();
    assert!(fields.len() > 500, "{} fields", fields.len());
    for (path, field) in &fields {
        assert!(
            field.doc.ends_with('.') && field.doc.len() > 8,
            "{path}: {:?}",
            field.doc
        );
        assert!(field.doc.lines().count() == 1, "{path}: one line");
        assert!(
            field.default.is_none() || field.required.is_none(),
            "{path}"
        );
    }
    for (index, root) in roots().iter().enumerate() {
        assert!(
            roots()[..index].iter().all(|other| other.name != root.name),
            "{}",
            root.name
        );
    }
}

#[test]
fn every_default_is_valid() {
    try_load("").unwrap_or_else(|errors| panic!("{errors:#?}"));
    for (path, field) in all_fields() {
        let Some(default) = field.default else {
            continue;
        };
        // Lists and maps of objects have no elements yet, zones inherit.
        let missing = dunlin_config::hocon::parse(&format!("v = {default}"));
        assert!(missing.is_ok(), "{path} = {default}");
    }
    // One element of every list and map, so that the defaults inside are checked too.
    try_load(
        "listeners { tcp.x.bind = 1, ssl.x.bind = 2, ws.x.bind = 3, wss.x.bind = 4 }\n\
         mqtt.client_attrs_init = [{expression = username, set_as_attr = a}]\n\
         auto_subscribe.topics = [{topic = t}]\ntopic_metrics = [{topic = t}]\n\
         rewrite = [{action = sub, source_topic = t, re = a, dest_topic = b}]\n\
         zones.z { mqtt {}, flapping_detect {}, force_shutdown {} }\nlog.file { a {}, b {} }",
    )
    .unwrap_or_else(|errors| panic!("{errors:#?}"));
}

#[test]
fn a_typing_error_under_each_root_yields_the_right_name() {
    let mut checked = 0;
    for root in roots() {
        let Some(fields) = root.kind.fields() else {
            continue;
        };
        for field in fields
            .iter()
            .filter(|field| !field.hidden && field.name.len() > 4)
        {
            let mut typo = field.name.to_owned();
            typo.insert(3, 'q');
            let text = format!("{}.{typo} = 1", root.name);
            let errors = try_load(&text).expect_err("unknown key");
            let near = errors.iter().find_map(|error| match error {
                ConfigError::UnknownKey { key, nearest, .. } if *key == typo => nearest.clone(),
                _ => None,
            });
            assert_eq!(near.as_deref(), Some(field.name), "{text}: {errors:#?}");
            checked += 1;
        }
        let names = roots()
            .iter()
            .filter(|root| !root.hidden)
            .map(|root| root.name);
        if !root.hidden && root.name.len() > 4 {
            let mut typo = root.name.to_owned();
            typo.insert(2, 'x');
            assert_eq!(nearest(&typo, names), Some(root.name));
        }
    }
    assert!(checked > 150, "{checked} fields");
}

#[test]
fn every_field_and_alias_is_accepted_in_a_file_and_by_the_environment() {
    for (path, field) in all_fields() {
        let Some(default) = field.default else {
            continue;
        };
        // Elements of lists and maps need a name; the other tests write some.
        let names: Vec<&str> = std::iter::once(field.name)
            .chain(field.aliases.iter().copied())
            .collect();
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let named = ["listeners", "zones", "auto_subscribe.topics", "log.file"];
        if named.iter().any(|prefix| path.starts_with(prefix)) {
            continue;
        }
        for name in names {
            let text = format!("{parent}.{name} = {default}");
            try_load(&text).unwrap_or_else(|errors| panic!("{text}: {errors:#?}"));
        }
    }
}

#[test]
fn words_and_units_are_refused_with_an_error_at_every_field() {
    for (path, field) in all_fields() {
        let named = [
            "listeners",
            "zones",
            "auto_subscribe",
            "log.file",
            "rewrite",
            "topic_m",
        ];
        let scalar = matches!(
            field.kind,
            Kind::Bool
                | Kind::Int { .. }
                | Kind::Float { .. }
                | Kind::Enum(_)
                | Kind::Duration
                | Kind::DurationS
                | Kind::ByteSize
                | Kind::Percent
                | Kind::Rate
                | Kind::Bind
        );
        if !scalar
            || named.iter().any(|prefix| path.starts_with(prefix))
            || path.starts_with("mqtt.client_attrs_init")
        {
            continue;
        }
        for bad in ["\"not a value\"", "[1]", "{a = 1}"] {
            let errors = try_load(&format!("{path} = {bad}")).expect_err(&path);
            assert!(
                errors.iter().any(|error| error.path() == path),
                "{path}: {errors:#?}"
            );
            assert!(errors.iter().all(|error| !error.emqx_map().is_empty()));
        }
    }
}

#[test]
fn the_ends_of_every_range_are_answered() {
    let range = |kind: &Kind| match kind {
        Kind::Int { min, max } | Kind::Words(_, Kind::Int { min, max }) => Some((*min, *max)),
        _ => None,
    };
    let mut accepted = 0;
    for (path, field) in all_fields() {
        let Some((min, max)) = range(&field.kind) else {
            continue;
        };
        for value in [min, max] {
            accepted += usize::from(try_load(&format!("{path} = {value}")).is_ok());
        }
        for value in [min.checked_sub(1), max.checked_add(1)]
            .into_iter()
            .flatten()
        {
            assert!(
                try_load(&format!("{path} = {value}")).is_err(),
                "{path} = {value}"
            );
        }
    }
    assert!(accepted > 50, "{accepted} values");
}

#[test]
fn the_reference_page_has_every_documented_key() {
    let page = render::reference();
    for (path, field) in all_fields() {
        let leaf = !field.hidden && field.kind.fields().is_none();
        let plain = ![
            "listeners.",
            "zones.",
            "log.file",
            "rewrite.",
            "auto_subscribe.topics.",
            "topic_metrics.",
            "mqtt.client_attrs_init.",
        ]
        .iter()
        .any(|p| path.starts_with(p));
        if leaf && plain && path.contains('.') {
            assert!(page.contains(&format!("`{path}`")), "{path}");
        }
    }
    for part in [
        "`listeners.tcp.NAME.bind`",
        "`EMQX_NODE__NAME`",
        "*No effect.*",
        "## zones",
        "`log.file.path`",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.lines().filter(|line| line.starts_with("# ")).count() == 1);
    assert!(page.is_ascii());
}

/// Whether the field at a path acts, and so do all above it.
fn acts(path: &str) -> bool {
    let fields = all_fields();
    let ends = path.match_indices('.').map(|(at, _)| at);
    ends.chain([path.len()])
        .all(|end| fields[&path[..end]].effect == Effect::Acts)
}

/// What the product acts on was looked up in the product, key by key; a key that gets or loses
/// its effect changes sides here too.
#[test]
fn what_acts_and_what_does_not() {
    for path in [
        "node.name",
        "node.cookie",
        "cluster.name",
        "cluster.static.seeds",
        "cluster.dns.record_type",
        "cluster.autoclean",
        "cluster.autoclean_quorum",
        "cluster.autoheal",
        "rpc.mode",
        "rpc.listen_address",
        "listeners.tcp.access_rules",
        "listeners.tcp.max_conn_rate",
        "listeners.tcp.enable_authn",
        "listeners.ssl.ssl_options.verify",
        "listeners.ws.websocket.mqtt_path",
        "mqtt.max_inflight",
        "zones.mqtt.max_inflight",
        "dashboard.listeners.https.ssl_options.certfile",
        "dashboard.default_password",
        "log.file.rotation_size",
        "retainer.max_publish_rate",
        "api_key.bootstrap_file",
        "authentication",
        "authorization.sources",
        "prometheus.enable_basic_auth",
        "statsd.server",
        "cluster.proto_dist",
        "rpc.certfile",
        "cluster.k8s.address_type",
    ] {
        assert!(acts(path), "{path}");
    }
    for path in [
        "node.role",
        "rpc.send_timeout",
        "rpc.client_num",
        "listeners.tcp.messages_rate",
        "listeners.ssl.ssl_options.depth",
        "listeners.ws.websocket.compress",
        "mqtt.peer_cert_as_username",
        "zones.flapping_detect.enable",
        "delayed.enable",
        "sys_topics.sys_msg_interval",
        "retainer.delivery_rate",
        "retainer.backend.storage_type",
        "dashboard.cors",
        "log.throttling.time_window",
        "durable_sessions.enable",
        "exhook.servers",
        "gateway",
        "plugins.install_dir",
        "telemetry.enable",
        "force_gc.enable",
    ] {
        assert!(!acts(path), "{path}");
    }
}

/// Only a key that does nothing leaves something open, and it says so in the page's words.
#[test]
fn what_is_left_open_is_said_of_keys_without_effect_only() {
    let mut count = 0;
    for (path, field) in all_fields() {
        let Some(leaves_open) = field.leaves_open else {
            continue;
        };
        assert_eq!(field.effect, Effect::AcceptedWithoutEffect, "{path}");
        assert!(!leaves_open.ends_with('.'), "{path}: {leaves_open}");
        count += 1;
    }
    assert!(count > 10, "{count} keys");
}
