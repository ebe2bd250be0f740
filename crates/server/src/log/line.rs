//! One log line in the form EMQX gives it.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use dunlin_config::settings::{LogFormatter, LogHandler, LogLevel, TimeOffset, TimestampFormat};
use serde_json::Value;
use tracing_core::Event;
use tracing_core::field::{Field, Visit};

use super::zone;
use crate::time::{self, Rfc3339};

/// Longest value of a field, in bytes; a payload or a certificate would drown the rest.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// What is in a line, formatted for each handler that shows it.
pub(crate) struct Line {
    at_us: u64,
    level: LogLevel,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    pub(crate) fn new(event: &Event<'_>, level: LogLevel) -> Self {
        let mut line = Self {
            at_us: time::wall_us(),
            level,
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut line);
        line
    }

    /// A line of the log itself.
    pub(crate) fn own(level: LogLevel, message: &str, key: &'static str, value: u64) -> Self {
        let fields = vec![(key, Value::from(value))];
        Self {
            at_us: time::wall_us(),
            level,
            message: message.to_owned(),
            fields,
        }
    }

    pub(crate) fn level(&self) -> LogLevel {
        self.level
    }

    fn field(&mut self, field: &Field, value: Value) {
        match (field.name(), &value) {
            ("message", Value::String(text)) => self.message.clone_from(text),
            ("level", Value::String(word)) => {
                self.level = LogLevel::parse(word).unwrap_or(self.level);
            }
            (name, _) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.field(field, Value::String(cut(text)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, Value::String(cut(value.to_owned())));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, Value::from(value));
    }
}

fn cut(mut text: String) -> String {
    if text.len() > VALUE_BYTES_MAX {
        let end = (0..=VALUE_BYTES_MAX)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// How a handler writes lines.
pub(crate) struct Form {
    json: bool,
    epoch: bool,
    offset_minutes: i16,
}

impl Form {
    pub(crate) fn new(handler: &LogHandler) -> Self {
        let json = handler.formatter == LogFormatter::Json;
        let epoch = match handler.timestamp_format {
            TimestampFormat::Auto => json,
            TimestampFormat::Epoch => true,
            TimestampFormat::Rfc3339 => false,
        };
        let offset_minutes = match handler.time_offset {
            TimeOffset::System => zone::system_offset_minutes(time::wall_ms() / 1000),
            TimeOffset::Utc => 0,
            TimeOffset::Minutes(minutes) => minutes,
        };
        Self {
            json,
            epoch,
            offset_minutes,
        }
    }

    /// Appends the line.
    pub(crate) fn write(&self, line: &Line, out: &mut Vec<u8>) {
        // Writing to a Vec does not fail.
        if self.json {
            let _ = self.write_json(line, out);
        } else {
            let _ = self.write_text(line, out);
        }
    }

    fn write_text(&self, line: &Line, out: &mut Vec<u8>) -> std::io::Result<()> {
        if self.epoch {
            write!(out, "{}", line.at_us)?;
        } else {
            write!(out, "{}", self.rfc3339(line))?;
        }
        write!(out, " [{}] msg: {}", line.level, OneLine(&line.message))?;
        for (name, value) in &line.fields {
            match value {
                Value::String(text) => write!(out, ", {name}: {}", OneLine(text))?,
                other => write!(out, ", {name}: {other}")?,
            }
        }
        out.push(b'\n');
        Ok(())
    }

    fn write_json(&self, line: &Line, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = serde_json::Map::new();
        let at = if self.epoch {
            Value::from(line.at_us)
        } else {
            Value::from(self.rfc3339(line).to_string())
        };
        object.insert("time".to_owned(), at);
        object.insert("level".to_owned(), line.level.as_str().into());
        object.insert("msg".to_owned(), line.message.as_str().into());
        for (name, value) in &line.fields {
            object.insert((*name).to_owned(), value.clone());
        }
        serde_json::to_writer(&mut *out, &object)?;
        out.push(b'\n');
        Ok(())
    }

    fn rfc3339(&self, line: &Line) -> Rfc3339 {
        Rfc3339::micros(line.at_us, self.offset_minutes)
    }
}

/// Text from outside must not be able to forge a line.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(char::is_control) {
            let text = part.trim_end_matches(char::is_control);
            f.write_str(text)?;
            for control in part[text.len()..].chars() {
                write!(f, "{}", control.escape_default())?;
            }
        }
        Ok(())
    }
}
