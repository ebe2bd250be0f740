//! `banned`: bans loaded at start.

use crate::schema::{Field, Kind, field};

pub(crate) static FIELDS: &[Field] = &[field(
    "bootstrap_file",
    Kind::Path,
    "\"\"",
    "CSV file with the columns as, who, reason, at, until, by.",
)
.since("5.8")
.unguarded("those it bans may connect")];
