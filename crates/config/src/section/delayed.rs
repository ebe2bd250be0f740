//! `delayed`: messages published with a delay.

use super::{COUNT, INFINITY};
use crate::schema::{Field, Kind, field};
use crate::settings::Delayed;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "enable",
        Kind::Bool,
        "true",
        "Whether topics that start with $delayed/ work.",
    ),
    field(
        "max_delayed_messages",
        Kind::Words(INFINITY, &COUNT),
        "0",
        "Most messages waiting; 0 sets no limit.",
    ),
];

pub(crate) fn build(v: View<'_>) -> Delayed {
    Delayed {
        enable: v.bool("enable"),
        max_delayed_messages: v.opt_int("max_delayed_messages").filter(|max| *max > 0),
    }
}
