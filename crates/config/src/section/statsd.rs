//! `statsd`: EMQX 5.0's push of counters over UDP.

use super::MAP;
use crate::schema::{Field, Kind, field, optional};
use crate::settings::Statsd;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "enable",
        Kind::Bool,
        "false",
        "Whether counters are pushed.",
    ),
    field(
        "server",
        Kind::String,
        "\"127.0.0.1:8125\"",
        "Where to, as host:port.",
    ),
    field(
        "sample_time_interval",
        Kind::Duration,
        "30s",
        "Time between two samples.",
    )
    .inert(),
    field(
        "flush_time_interval",
        Kind::Duration,
        "30s",
        "Time between two datagrams; not below the sample interval.",
    ),
    optional("tags", MAP, "Tags of every counter.").inert(),
];

pub(crate) fn build(v: View<'_>) -> Statsd {
    Statsd {
        enable: v.bool("enable"),
        server: v.text("server"),
        sample_time_interval_ms: v.ms("sample_time_interval"),
        flush_time_interval_ms: v.ms("flush_time_interval"),
    }
}
