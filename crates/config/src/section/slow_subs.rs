//! `slow_subs`: detection of slow subscribers.

use super::POSITIVE;
use crate::schema::{Field, Kind, field};
use crate::settings::SlowSubs;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "enable",
        Kind::Bool,
        "false",
        "Whether slow subscribers are recorded.",
    ),
    field(
        "threshold",
        Kind::Duration,
        "500ms",
        "Latency that counts as slow.",
    ),
    field(
        "expire_interval",
        Kind::Duration,
        "300s",
        "Time a record is kept.",
    ),
    field("top_k_num", POSITIVE, "10", "Records kept."),
    field(
        "stats_type",
        Kind::Enum(&["whole", "internal", "response"]),
        "whole",
        "What is measured: until the acknowledgement, until sending, or between the two.",
    ),
];

pub(crate) fn build(v: View<'_>) -> SlowSubs {
    SlowSubs {
        enable: v.bool("enable"),
        threshold_ms: v.ms("threshold"),
        expire_interval_ms: v.ms("expire_interval"),
        top_k_num: v.int("top_k_num"),
        stats_type: v.word("stats_type", |word| Some(word.to_owned())),
    }
}
