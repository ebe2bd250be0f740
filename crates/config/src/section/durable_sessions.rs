//! `durable_sessions`: sessions that survive their node.

use super::POSITIVE;
use crate::schema::{Field, Kind, field, optional};
use crate::settings::DurableSessions;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "enable",
        Kind::Bool,
        "false",
        "Whether sessions are kept on disk.",
    )
    .unguarded("sessions are lost with their node"),
    field("batch_size", POSITIVE, "100", "Messages read at once."),
    field(
        "idle_poll_interval",
        Kind::Duration,
        "10s",
        "Time between two polls of an idle session.",
    )
    .inert(),
    field(
        "heartbeat_interval",
        Kind::Duration,
        "5000ms",
        "Time between two signs of life.",
    ),
    field(
        "session_gc_interval",
        Kind::Duration,
        "10m",
        "Time between two cleanings.",
    )
    .inert(),
    field(
        "session_gc_batch_size",
        POSITIVE,
        "100",
        "Sessions cleaned at once.",
    )
    .inert(),
    field(
        "message_retention_period",
        Kind::Duration,
        "1d",
        "Time messages are kept.",
    ),
    optional(
        "force_persistence",
        Kind::Bool,
        "Whether all sessions are durable.",
    )
    .inert()
    .hidden(),
    optional(
        "subscription_count_refresh_interval",
        Kind::Duration,
        "Time between two counts.",
    )
    .inert()
    .hidden(),
    optional(
        "disconnected_session_count_refresh_interval",
        Kind::Duration,
        "Time between two counts.",
    )
    .inert()
    .hidden(),
];

pub(crate) fn build(v: View<'_>) -> DurableSessions {
    DurableSessions {
        enable: v.bool("enable"),
        batch_size: v.int("batch_size"),
        heartbeat_interval_ms: v.ms("heartbeat_interval"),
        message_retention_period_ms: v.ms("message_retention_period"),
    }
}
