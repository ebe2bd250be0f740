//! `prometheus`: metrics for Prometheus.

use super::MAP;
use crate::schema::{Field, Kind, field, group, open, optional};
use crate::settings::Prometheus;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "enable_basic_auth",
        Kind::Bool,
        "false",
        "Whether scraping needs an API key.",
    ),
    group("push_gateway", PUSH_GATEWAY, "Push to a gateway.").inert(),
    open("collectors", "Groups of Erlang metrics."),
    optional("enable", Kind::Bool, "Older name of push_gateway.enable.")
        .inert()
        .hidden(),
    optional(
        "push_gateway_server",
        Kind::String,
        "Older name of push_gateway.url.",
    )
    .inert()
    .hidden(),
    optional(
        "interval",
        Kind::Duration,
        "Older name of push_gateway.interval.",
    )
    .inert()
    .hidden(),
    optional("headers", MAP, "Older name of push_gateway.headers.")
        .inert()
        .hidden(),
    optional(
        "job_name",
        Kind::String,
        "Older name of push_gateway.job_name.",
    )
    .inert()
    .hidden(),
    open("vm_dist_collector", "Older name of a collector.").hidden(),
    open("mnesia_collector", "Older name of a collector.").hidden(),
    open("vm_statistics_collector", "Older name of a collector.").hidden(),
    open("vm_system_info_collector", "Older name of a collector.").hidden(),
    open("vm_memory_collector", "Older name of a collector.").hidden(),
    open("vm_msacc_collector", "Older name of a collector.").hidden(),
];

static PUSH_GATEWAY: &[Field] = &[
    field("enable", Kind::Bool, "false", "Whether metrics are pushed."),
    field(
        "method",
        Kind::Enum(&["put", "post"]),
        "put",
        "Method of the request.",
    ),
    field(
        "url",
        Kind::String,
        "\"http://127.0.0.1:9091\"",
        "URL of the gateway.",
    ),
    field(
        "interval",
        Kind::Duration,
        "15s",
        "Time between two pushes.",
    ),
    optional("headers", MAP, "Headers of the request."),
    field(
        "job_name",
        Kind::String,
        "\"${name}/instance/${name}~${host}\"",
        "Name of the job.",
    ),
];

pub(crate) fn build(v: View<'_>) -> Prometheus {
    Prometheus {
        enable_basic_auth: v.bool("enable_basic_auth"),
    }
}
