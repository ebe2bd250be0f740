//! `retainer`: retained messages.

use super::{COUNT, DISABLED, INFINITY};
use crate::schema::{Field, Kind, field, group, open, optional};
use crate::settings::{RetainedStorage, Retainer};
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "enable",
        Kind::Bool,
        "true",
        "Whether messages are retained.",
    ),
    field(
        "msg_expiry_interval",
        Kind::Duration,
        "0s",
        "Life of retained messages that have none of their own; 0s keeps them for ever.",
    ),
    field(
        "msg_expiry_interval_override",
        Kind::Words(DISABLED, &Kind::Duration),
        "disabled",
        "Life that every retained message gets.",
    )
    .since("5.8"),
    field(
        "allow_never_expire",
        Kind::Bool,
        "true",
        "Whether a message may be kept without an expiry.",
    )
    .inert()
    .since("5.8"),
    field(
        "msg_clear_interval",
        Kind::Duration,
        "0s",
        "Time between two removals of expired messages; 0s removes them when they are met.",
    )
    .inert(),
    field(
        "max_payload_size",
        Kind::Words(INFINITY, &Kind::ByteSize),
        "1MB",
        "Largest payload that is retained; 0 sets no limit.",
    ),
    field(
        "stop_publish_clear_msg",
        Kind::Bool,
        "false",
        "Whether the empty message that clears a topic is not delivered to subscribers.",
    ),
    field(
        "delivery_rate",
        Kind::Words(INFINITY, &Kind::Rate),
        "infinity",
        "Speed at which a new subscription gets retained messages.",
    )
    .inert()
    .alias(&["deliver_rate"]),
    field(
        "max_publish_rate",
        Kind::Words(INFINITY, &Kind::Rate),
        "infinity",
        "Speed at which messages are retained; more are delivered and not kept. EMQX's default \
         is 1000/s.",
    )
    .since("5.7"),
    group("backend", BACKEND, "Where retained messages are kept."),
    open("flow_control", "Speed of EMQX 5.0.").hidden(),
    optional(
        "delivery_rate_limiter",
        Kind::String,
        "Limiter of EMQX 5.0.",
    )
    .inert()
    .hidden(),
];

static BACKEND: &[Field] = &[
    field(
        "type",
        Kind::Enum(&["built_in_database"]),
        "built_in_database",
        "Kind of storage.",
    )
    .inert(),
    field(
        "storage_type",
        Kind::Enum(RetainedStorage::WORDS),
        "ram",
        "In memory, or also on disk. Every node has all retained messages.",
    )
    .inert(),
    field(
        "max_retained_messages",
        COUNT,
        "0",
        "Most retained messages; 0 sets no limit.",
    ),
    open("index_specs", "Indices of EMQX's table."),
    field("enable", Kind::Bool, "true", "Whether the storage is used.")
        .inert()
        .hidden(),
];

pub(crate) fn build(v: View<'_>) -> Retainer {
    let backend = v.view("backend");
    Retainer {
        enable: v.bool("enable"),
        msg_expiry_interval_ms: v.opt_ms("msg_expiry_interval").filter(|ms| *ms > 0),
        msg_expiry_interval_override_ms: v.opt_ms("msg_expiry_interval_override"),
        allow_never_expire: v.bool("allow_never_expire"),
        msg_clear_interval_ms: v.opt_ms("msg_clear_interval").filter(|ms| *ms > 0),
        max_payload_bytes: v.opt_bytes("max_payload_size").filter(|bytes| *bytes > 0),
        stop_publish_clear_msg: v.bool("stop_publish_clear_msg"),
        delivery_rate: v.opt_rate("delivery_rate"),
        max_publish_rate: v.opt_rate("max_publish_rate"),
        storage: backend.word("storage_type", RetainedStorage::parse),
        max_retained_messages: backend
            .opt_int("max_retained_messages")
            .filter(|max| *max > 0),
    }
}
