//! `log`: where events are written, and how.

use super::{INFINITY, POSITIVE};
use crate::check::Checked;
use crate::schema::{Field, Kind, field, group, open, optional};
use crate::settings::{
    Log, LogFile, LogFormatter, LogHandler, LogLevel, PayloadEncode, TimeOffset, TimestampFormat,
};
use crate::unit;
use crate::view::View;

pub(crate) static FIELDS: &[Field] = &[
    group("console", CONSOLE, "Log to standard output.").alias(&["console_handler"]),
    optional(
        "file",
        Kind::OneOrNamed(FILE),
        "Log to a file; or several, by name.",
    )
    .alias(&["file_handlers"]),
    group("throttling", THROTTLING, "Limits of repeated events.").inert(),
    open("audit", "Log of what operators do."),
    optional(
        "primary_level",
        Kind::String,
        "Level of EMQX's first filter.",
    )
    .inert()
    .hidden(),
];

/// Declares the fields of one handler: the common ones and `$extra`.
macro_rules! handler_fields {
    ($name:ident: $($extra:expr),* $(,)?) => {
        static $name: &[Field] = &[
            optional("enable", Kind::Bool,
                "Whether this handler writes. By default the console does when the node runs in \
                 the foreground, and the file when it runs in the background.").fixed(),
            field("level", Kind::Enum(LogLevel::WORDS), "warning", "Lowest level written."),
            field("formatter", Kind::Enum(LogFormatter::WORDS), "text", "Form of the lines.")
                .fixed(),
            field("timestamp_format", Kind::Enum(TimestampFormat::WORDS), "auto",
                "Form of the time.").since("5.8").fixed(),
            field("time_offset", Kind::String, "system",
                "Time zone of the time: system, utc or an offset such as +02:00.").fixed(),
            field("payload_encode", Kind::Enum(PayloadEncode::WORDS), "text",
                "Form of payloads in the lines.").since("5.8").inert(),
            field("chars_limit", Kind::Words(&["unlimited"], &POSITIVE), "unlimited",
                "Longest line.").inert().hidden(),
            field("sync_mode_qlen", POSITIVE, "100", "Overload protection of EMQX's log.")
                .inert().hidden(),
            field("drop_mode_qlen", POSITIVE, "3000", "Overload protection of EMQX's log.")
                .inert().hidden(),
            field("flush_qlen", POSITIVE, "8000", "Overload protection of EMQX's log.")
                .inert().hidden(),
            open("overload_kill", "Overload protection of EMQX's log.").hidden(),
            open("burst_limit", "Overload protection of EMQX's log.").hidden(),
            field("supervisor_reports", Kind::Enum(&["error", "progress"]), "error",
                "Reports of Erlang supervisors.").inert().hidden(),
            field("max_depth", Kind::Words(&["unlimited"], &POSITIVE), "100",
                "Depth of Erlang terms.").inert().hidden(),
            field("single_line", Kind::Bool, "true", "Whether an event is one line.")
                .inert().hidden(),
            field("with_mfa", Kind::Bool, "false", "Whether the code position is written.")
                .inert().hidden(),
            $($extra,)*
        ];
    };
}

handler_fields!(CONSOLE:);
handler_fields!(FILE:
    field("path", Kind::Path, "\"${EMQX_LOG_DIR}/emqx.log\"", "Path of the newest file.")
        .alias(&["file", "to"]).fixed(),
    field("rotation_count", Kind::Int { min: 1, max: 128 }, "10", "Files kept.")
        .alias(&["max_files"]).fixed(),
    field("rotation_size", Kind::Words(INFINITY, &Kind::ByteSize), "50MB",
        "Size at which a new file begins.").alias(&["max_size"]).fixed(),
    open("rotation", "Rotation of EMQX 5.0.").hidden(),
);

static THROTTLING: &[Field] = &[
    field(
        "time_window",
        Kind::DurationS,
        "1m",
        "Some frequent events are written once per window, with a count of the others.",
    ),
    open("msgs", "Events that are limited.").hidden(),
];

pub(crate) fn build(v: View<'_>) -> Log {
    Log {
        console: handler(v.view("console")),
        files: v
            .entries("file")
            .map(|(name, file)| (name.clone(), log_file(file)))
            .collect(),
        throttling_window_ms: v.view("throttling").ms("time_window"),
    }
}

fn log_file(checked: &Checked) -> LogFile {
    let v = View::of(checked);
    LogFile {
        handler: handler(v),
        path: v.text("path"),
        rotation_count: v.int("rotation_count"),
        rotation_bytes: v.opt_bytes("rotation_size"),
    }
}

fn handler(v: View<'_>) -> LogHandler {
    LogHandler {
        enable: v.opt_bool("enable"),
        level: v.word("level", LogLevel::parse),
        formatter: v.word("formatter", LogFormatter::parse),
        timestamp_format: v.word("timestamp_format", TimestampFormat::parse),
        time_offset: time_offset(&v.text("time_offset")).unwrap_or(TimeOffset::System),
        payload_encode: v.word("payload_encode", PayloadEncode::parse),
    }
}

pub(crate) fn time_offset(text: &str) -> Option<TimeOffset> {
    match text {
        "system" => Some(TimeOffset::System),
        "utc" => Some(TimeOffset::Utc),
        other => unit::time_offset_minutes(other).map(TimeOffset::Minutes),
    }
}
