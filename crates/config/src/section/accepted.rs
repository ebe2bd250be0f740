//! Roots of EMQX that are accepted so that a configuration loads, and do nothing here
//! yet. `check_config --verbose` lists those that are set.

use super::POSITIVE;
use crate::schema::{Field, Kind, field, group, open, optional};

pub(crate) static ROOTS: &[Field] = &[
    group(
        "force_gc",
        FORCE_GC,
        "Forced garbage collection of connections.",
    )
    .inert(),
    group(
        "conn_congestion",
        CONN_CONGESTION,
        "Alarms about congested connections.",
    )
    .inert(),
    group(
        "overload_protection",
        OVERLOAD_PROTECTION,
        "What is skipped under load.",
    )
    .inert(),
    group("crl_cache", CRL_CACHE, "Cache of revocation lists.").inert(),
    group("plugins", PLUGINS, "Plugins for the Erlang machine.")
        .alias(&["plugin"])
        .inert(),
    group(
        "telemetry",
        TELEMETRY,
        "Reports to EMQX's makers; none are ever sent.",
    )
    .inert(),
    group("exhook", EXHOOK, "Hooks over gRPC.").inert(),
    open("durable_storage", "Storage of durable sessions."),
    open(
        "opentelemetry",
        "Metrics, logs and traces over OpenTelemetry.",
    ),
    open("rule_engine", "Rules that react to messages and events."),
    open("bridges", "Connections to other systems, EMQX 5.0 to 5.3."),
    open("connectors", "Connections to other systems."),
    open("actions", "What rules send to other systems."),
    open("sources", "What other systems send to rules."),
    open("gateway", "Protocols other than MQTT."),
    open("schema_registry", "Schemas of payloads."),
    open("schema_validation", "Checks of payloads."),
    open("message_transformation", "Changes of payloads."),
    open("file_transfer", "Files over MQTT."),
    open("license", "Licence of EMQX; none is needed here.").hidden(),
    open("multi_tenancy", "Tenants of EMQX.").hidden(),
    open("node_rebalance", "Movement of clients between nodes.").hidden(),
    open("ai", "Completion of texts.").hidden(),
    open("cluster_linking", "Links to other clusters.").hidden(),
    open("stats", "Statistics of clients, EMQX 5.0.").hidden(),
    open("persistent_session_store", "Storage of sessions, EMQX 5.0.").hidden(),
    open(
        "session_persistence",
        "Storage of sessions, EMQX 5.4 to 5.6.",
    )
    .hidden(),
    open("event_message", "Events of clients, EMQX 5.0.").hidden(),
    open("psk", "Pre-shared keys, older name.").hidden(),
    open("vm_args", "Arguments of the Erlang machine.").hidden(),
];

static FORCE_GC: &[Field] = &[
    field("enable", Kind::Bool, "true", "Whether it is on."),
    field(
        "count",
        Kind::Int {
            min: 0,
            max: i64::MAX,
        },
        "16000",
        "After so many packets.",
    ),
    field("bytes", Kind::ByteSize, "16MB", "After so many bytes."),
];

static CONN_CONGESTION: &[Field] = &[
    field(
        "enable_alarm",
        Kind::Bool,
        "true",
        "Whether an alarm is raised.",
    ),
    field(
        "min_alarm_sustain_duration",
        Kind::Duration,
        "1m",
        "Least time between alarms.",
    ),
];

static OVERLOAD_PROTECTION: &[Field] = &[
    field("enable", Kind::Bool, "false", "Whether it is on."),
    field(
        "backoff_delay",
        Kind::Duration,
        "1",
        "Delay of deferred work.",
    ),
    field(
        "backoff_gc",
        Kind::Bool,
        "false",
        "Whether garbage collection is skipped.",
    ),
    field(
        "backoff_hibernation",
        Kind::Bool,
        "true",
        "Whether hibernation is skipped.",
    ),
    field(
        "backoff_new_conn",
        Kind::Bool,
        "true",
        "Whether new connections are refused.",
    ),
];

static CRL_CACHE: &[Field] = &[
    field(
        "refresh_interval",
        Kind::Duration,
        "15m",
        "Time between two downloads.",
    ),
    field(
        "http_timeout",
        Kind::Duration,
        "15s",
        "Time for a download.",
    ),
    field("capacity", POSITIVE, "100", "Most lists."),
];

static PLUGINS: &[Field] = &[
    field(
        "install_dir",
        Kind::Path,
        "plugins",
        "Directory of plugins.",
    ),
    field(
        "check_interval",
        Kind::Duration,
        "5s",
        "Time between two checks.",
    )
    .hidden(),
    field("states", Kind::List(&Kind::Raw), "[]", "Installed plugins."),
];

static TELEMETRY: &[Field] = &[optional("enable", Kind::Bool, "Whether reports are sent.")];

static EXHOOK: &[Field] = &[
    field("servers", Kind::List(&Kind::Raw), "[]", "Servers of hooks.")
        .unguarded("they are not asked who may do what"),
];
