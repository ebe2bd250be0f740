//! Every root key of the configuration, one file each: its fields, and how its part of
//! the settings is made of them.

use std::sync::LazyLock;

use crate::check::{Checked, Typed};
use crate::error::Warning;
use crate::schema::{Field, Kind, group};
use crate::settings::Settings;
use crate::view::View;

mod accepted;
mod alarm;
mod api_key;
mod authentication;
mod authorization;
mod banned;
mod broker;
mod cluster;
mod dashboard;
mod delayed;
mod durable_sessions;
mod flapping_detect;
mod force_shutdown;
mod limiter;
pub(crate) mod listeners;
pub(crate) mod log;
mod mqtt;
mod node;
mod prometheus;
mod psk_authentication;
mod retainer;
mod rpc;
mod slow_subs;
mod statsd;
mod sys_topics;
mod sysmon;
mod tls;
mod topics;
mod zones;

const INFINITY: &[&str] = &["infinity"];
const DISABLED: &[&str] = &["disabled"];
const COUNT: Kind = Kind::Int {
    min: 0,
    max: u32::MAX as i64,
};
const POSITIVE: Kind = Kind::Int {
    min: 1,
    max: u32::MAX as i64,
};
const SIZE_T: Kind = Kind::Int {
    min: 0,
    max: u32::MAX as i64,
};
const PORT: Kind = Kind::Int {
    min: 1,
    max: 65_535,
};
const MAP: Kind = Kind::Map(&Kind::String);

/// The roots that become settings, in the order of the reference page.
static BUILT: &[Field] = &[
    group("node", node::FIELDS, "Who this node is.").fixed(),
    group(
        "cluster",
        cluster::FIELDS,
        "How nodes find, trust and watch each other.",
    )
    .fixed(),
    group(
        "rpc",
        rpc::FIELDS,
        "The connections that carry messages between nodes.",
    )
    .fixed(),
    group("listeners", listeners::FIELDS, "Where clients connect.").fixed(),
    group("mqtt", mqtt::FIELDS, "Behaviour of the protocol.").at_connect(),
    zones::ROOT,
    authentication::ROOT,
    group(
        "authorization",
        authorization::FIELDS,
        "What clients may do.",
    )
    .fixed(),
    group("retainer", retainer::FIELDS, "Retained messages."),
    group(
        "delayed",
        delayed::FIELDS,
        "Messages published with a delay.",
    )
    .inert(),
    topics::REWRITE,
    group(
        "auto_subscribe",
        topics::AUTO_SUBSCRIBE,
        "Subscriptions made for clients.",
    )
    .inert(),
    topics::TOPIC_METRICS,
    group(
        "sys_topics",
        sys_topics::FIELDS,
        "What the node tells about itself.",
    )
    .inert(),
    group(
        "flapping_detect",
        flapping_detect::FIELDS,
        "Bans for clients that connect too often.",
    )
    .inert(),
    group(
        "force_shutdown",
        force_shutdown::FIELDS,
        "Limits of one connection.",
    )
    .inert(),
    group(
        "slow_subs",
        slow_subs::FIELDS,
        "Detection of slow subscribers.",
    )
    .inert(),
    group("limiter", limiter::FIELDS, "Limits of the whole node.").inert(),
    group("log", log::FIELDS, "Where events are written, and how."),
    group(
        "dashboard",
        dashboard::FIELDS,
        "The management interface over HTTP.",
    )
    .fixed(),
    group("api_key", api_key::FIELDS, "Keys for the REST API.").fixed(),
    group("prometheus", prometheus::FIELDS, "Metrics for Prometheus.").fixed(),
    group(
        "statsd",
        statsd::FIELDS,
        "Push of counters over UDP, as in EMQX 5.0.",
    )
    .fixed(),
    group("alarm", alarm::FIELDS, "What is done with alarms."),
    group("sysmon", sysmon::FIELDS, "Watermarks of the machine.").inert(),
    group("broker", broker::FIELDS, "The registry of sessions.").inert(),
    group("banned", banned::FIELDS, "Bans loaded at start.").inert(),
    group(
        "psk_authentication",
        psk_authentication::FIELDS,
        "Pre-shared keys for TLS.",
    )
    .inert(),
    group(
        "durable_sessions",
        durable_sessions::FIELDS,
        "Sessions that survive their node.",
    )
    .inert(),
];

/// All roots.
static ROOTS: LazyLock<Vec<Field>> =
    LazyLock::new(|| BUILT.iter().chain(accepted::ROOTS).copied().collect());

/// All roots, those that are only accepted last.
pub fn roots() -> &'static [Field] {
    &ROOTS
}

/// The root object as a kind.
static ROOT_KIND: LazyLock<Kind> = LazyLock::new(|| Kind::Object(roots()));

/// The kind of the whole configuration.
pub fn root_kind() -> &'static Kind {
    &ROOT_KIND
}

/// The numbers of a list that fit.
fn ints<T: TryFrom<i64>>(items: &[Checked]) -> Vec<T> {
    items
        .iter()
        .filter_map(|item| match item.typed {
            Typed::Int(n) => T::try_from(n).ok(),
            _ => None,
        })
        .collect()
}

/// Puts values that were written in an older place to where they act, and takes away what gives
/// way to them.
pub(crate) fn settle(root: &mut Checked) -> Vec<Warning> {
    let Some(roots) = root.fields_mut() else {
        return Vec::new();
    };
    if let Some(dashboard) = roots.get_mut("dashboard") {
        dashboard::settle(dashboard);
    }
    roots
        .get_mut("listeners")
        .map(listeners::settle)
        .unwrap_or_default()
}

/// The settings of a configuration that was checked without errors.
pub(crate) fn build(root: &Checked, variable: &dyn Fn(&str) -> Option<String>) -> Settings {
    let v = View::of(root);
    Settings {
        node: node::build(v.view("node")),
        cluster: cluster::build(v.view("cluster")),
        rpc: rpc::build(v.view("rpc")),
        listeners: listeners::build(v.view("listeners")),
        mqtt: mqtt::build(v.view("mqtt")),
        zones: zones::build(v),
        log: log::build(v.view("log")),
        dashboard: dashboard::build(v.view("dashboard")),
        api_key: api_key::build(v.view("api_key")),
        statsd: statsd::build(v.view("statsd")),
        retainer: retainer::build(v.view("retainer")),
        delayed: delayed::build(v.view("delayed")),
        sys_topics: sys_topics::build(v.view("sys_topics")),
        flapping_detect: flapping_detect::build(v.view("flapping_detect")),
        force_shutdown: force_shutdown::build(v.view("force_shutdown")),
        rewrite: topics::rewrite(v),
        auto_subscribe: topics::auto_subscribe(v.view("auto_subscribe")),
        topic_metrics: topics::topic_metrics(v),
        slow_subs: slow_subs::build(v.view("slow_subs")),
        limiter: limiter::build(v.view("limiter")),
        banned_bootstrap_file: v.view("banned").text("bootstrap_file"),
        authorization: authorization::build(v.view("authorization"), variable),
        authentication: authentication::build(v, variable),
        psk_authentication: psk_authentication::build(v.view("psk_authentication")),
        broker: broker::build(v.view("broker")),
        alarm: alarm::build(v.view("alarm")),
        sysmon: sysmon::build(v.view("sysmon")),
        prometheus: prometheus::build(v.view("prometheus")),
        durable_sessions: durable_sessions::build(v.view("durable_sessions")),
    }
}
