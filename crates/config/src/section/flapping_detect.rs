//! `flapping_detect`: bans for clients that connect too often.

use super::{DISABLED, POSITIVE};
use crate::schema::{Field, Kind, field};
use crate::settings::FlappingDetect;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "enable",
        Kind::Bool,
        "false",
        "Whether clients that connect too often are banned.",
    )
    .unguarded("clients that connect too often are not banned"),
    field(
        "window_time",
        Kind::Words(DISABLED, &Kind::Duration),
        "1m",
        "Window in which connects are counted.",
    ),
    field(
        "max_count",
        POSITIVE,
        "15",
        "Connects in a window that lead to a ban.",
    ),
    field("ban_time", Kind::Duration, "5m", "Length of the ban."),
];

pub(crate) fn build(v: View<'_>) -> FlappingDetect {
    FlappingDetect {
        enable: v.bool("enable"),
        window_time_ms: v.opt_ms("window_time"),
        max_count: v.int("max_count"),
        ban_time_ms: v.ms("ban_time"),
    }
}
