//! `psk_authentication`: pre-shared keys for TLS.

use super::POSITIVE;
use crate::schema::{Field, Kind, field};
use crate::settings::PskAuthentication;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "enable",
        Kind::Bool,
        "false",
        "Whether pre-shared keys are accepted.",
    )
    .inert(),
    field(
        "init_file",
        Kind::Path,
        "\"\"",
        "File with one `identity:secret` per line.",
    )
    .inert(),
    field(
        "separator",
        Kind::String,
        "\":\"",
        "What separates the two.",
    )
    .inert(),
    field("chunk_size", POSITIVE, "50", "Lines read at once.")
        .inert()
        .hidden(),
];

pub(crate) fn build(v: View<'_>) -> PskAuthentication {
    PskAuthentication {
        enable: v.bool("enable"),
        init_file: v.text("init_file"),
        separator: v.text("separator"),
    }
}
