//! `force_shutdown`: limits of one connection.

use super::COUNT;
use crate::schema::{Field, Kind, field};
use crate::settings::ForceShutdown;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "enable",
        Kind::Bool,
        "true",
        "Whether a connection beyond the limits is closed.",
    ),
    field(
        "max_mailbox_size",
        COUNT,
        "1000",
        "Most items waiting for one connection.",
    )
    .alias(&["max_message_queue_len"]),
    field(
        "max_heap_size",
        Kind::ByteSize,
        "32MB",
        "Most memory of one connection.",
    ),
];

pub(crate) fn build(v: View<'_>) -> ForceShutdown {
    ForceShutdown {
        enable: v.bool("enable"),
        max_mailbox_size: v.int("max_mailbox_size"),
        max_heap_bytes: v.bytes("max_heap_size"),
    }
}
