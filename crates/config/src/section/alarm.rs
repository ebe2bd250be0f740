//! `alarm`: what is done with alarms.

use crate::schema::{Field, Kind, field};
use crate::settings::Alarm;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    field(
        "actions",
        Kind::List(&Kind::Enum(&["log", "publish"])),
        "[log, publish]",
        "What happens when an alarm is raised or cleared.",
    ),
    field(
        "size_limit",
        Kind::Int { min: 1, max: 3000 },
        "1000",
        "Cleared alarms kept.",
    ),
    field(
        "validity_period",
        Kind::Duration,
        "24h",
        "Time a cleared alarm is kept.",
    ),
];

pub(crate) fn build(v: View<'_>) -> Alarm {
    Alarm {
        actions: v.texts("actions"),
        size_limit: v.int("size_limit"),
        validity_period_ms: v.ms("validity_period"),
    }
}
