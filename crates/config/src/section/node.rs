//! `node`: who this node is.

use super::{DISABLED, POSITIVE, SIZE_T};
use crate::schema::{Field, Kind, field, group, open, optional};
use crate::settings::{Node, Role, Secret};
use crate::view::View;

const RANGE_PORTS: Kind = Kind::Int {
    min: 1024,
    max: 134_217_727,
};

pub(crate) static FIELDS: &[Field] = &[
    field(
        "name",
        Kind::String,
        "\"emqx@127.0.0.1\"",
        "Name of the node, name@host. It is the node's identity and cannot change once the data \
         directory exists; its trailing digits choose the inter-node port (4370 + digits).",
    ),
    optional(
        "cookie",
        Kind::Secret,
        "Secret shared by all nodes of a cluster. Nodes with different cookies refuse each other.",
    )
    .required("node.cookie = \"a long random text\""),
    optional(
        "data_dir",
        Kind::Path,
        "Directory for everything the node keeps. A relative path starts at the installation.",
    )
    .required("node.data_dir = \"data\""),
    field(
        "max_ports",
        RANGE_PORTS,
        "1048576",
        "Ceiling for connections; the limit of open files is raised towards it.",
    )
    .inert(),
    field(
        "dist_buffer_size",
        Kind::Int {
            min: 1,
            max: 2_097_151,
        },
        "8192",
        "Send buffer of an inter-node link in KiB.",
    )
    .inert(),
    field(
        "dist_net_ticktime",
        Kind::DurationS,
        "2m",
        "A peer that has been silent for about this long counts as down at the latest; usually \
         failure detection is much faster.",
    )
    .inert(),
    field(
        "role",
        Kind::Enum(Role::WORDS),
        "core",
        "`core` is a full member; a `replicant` does not count for quorums.",
    )
    .inert()
    .alias(&["db_role"]),
    optional("process_limit", RANGE_PORTS, "Limit of Erlang processes.")
        .deprecated("remove it, there are no such processes")
        .inert(),
    field(
        "max_ets_tables",
        SIZE_T,
        "262144",
        "Limit of Erlang tables.",
    )
    .inert()
    .hidden(),
    field(
        "global_gc_interval",
        Kind::Words(DISABLED, &Kind::Duration),
        "disabled",
        "Time between forced garbage collections.",
    )
    .inert(),
    optional(
        "crash_dump_file",
        Kind::Path,
        "File for Erlang crash dumps.",
    )
    .inert(),
    field(
        "crash_dump_seconds",
        Kind::DurationS,
        "30s",
        "Time a crash dump may take.",
    )
    .inert(),
    field(
        "crash_dump_bytes",
        Kind::ByteSize,
        "100MB",
        "Largest crash dump.",
    )
    .inert(),
    field(
        "backtrace_depth",
        SIZE_T,
        "23",
        "Depth of Erlang stack traces.",
    )
    .inert(),
    open("applications", "Extra Erlang applications to start.").hidden(),
    optional("etc_dir", Kind::Path, "Directory of the configuration.")
        .deprecated("the start script decides it")
        .inert()
        .hidden(),
    open("config_files", "Files the configuration was read from.").hidden(),
    group(
        "cluster_call",
        CLUSTER_CALL,
        "How changes of the configuration were replicated.",
    )
    .inert(),
    field(
        "db_backend",
        Kind::Enum(&["rlog", "mnesia"]),
        "rlog",
        "Replicated database of EMQX.",
    )
    .inert(),
    field(
        "rpc_module",
        Kind::Enum(&["gen_rpc", "rpc"]),
        "rpc",
        "Channel of EMQX's database.",
    )
    .inert()
    .hidden(),
    field(
        "default_shard_transport",
        Kind::Enum(&["gen_rpc", "distr"]),
        "distr",
        "Transport of EMQX's database.",
    )
    .inert()
    .hidden(),
    open(
        "shard_transports",
        "Transport per table group of EMQX's database.",
    )
    .hidden(),
    field(
        "tlog_push_mode",
        Kind::Enum(&["sync", "async"]),
        "async",
        "How EMQX's database sends its log.",
    )
    .deprecated("remove it")
    .inert()
    .hidden(),
    field(
        "default_bootstrap_batch_size",
        POSITIVE,
        "500",
        "Rows per batch when a replica is filled.",
    )
    .since("5.3")
    .inert()
    .hidden(),
    optional("broker_pool_size", POSITIVE, "Workers of the router.")
        .inert()
        .hidden(),
    optional("generic_pool_size", POSITIVE, "Workers of the task pool.")
        .inert()
        .hidden(),
    field(
        "channel_cleanup_batch_size",
        POSITIVE,
        "100000",
        "Entries cleaned at once after a node went down.",
    )
    .inert()
    .hidden(),
];

static CLUSTER_CALL: &[Field] = &[
    field(
        "retry_interval",
        Kind::Duration,
        "1m",
        "Time before a failed change is retried.",
    ),
    field(
        "max_history",
        Kind::Int {
            min: 1,
            max: 10_240,
        },
        "1024",
        "Changes remembered.",
    ),
    field(
        "cleanup_interval",
        Kind::Duration,
        "24h",
        "Time between two cleanings.",
    ),
];

pub(crate) fn build(v: View<'_>) -> Node {
    Node {
        name: v.text("name"),
        cookie: Secret::new(v.text("cookie")),
        data_dir: v.text("data_dir"),
        max_ports: v.int("max_ports"),
        dist_buffer_bytes: v.int::<u64>("dist_buffer_size") * 1024,
        dist_net_ticktime_ms: v.ms("dist_net_ticktime"),
        role: v.word("role", Role::parse),
    }
}
