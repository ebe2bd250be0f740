//! Shows the nodes' log among the lines of the trace, for reading along with a replayed seed.

use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Shows every event of the nodes from here on.
pub(crate) fn show() {
    // Only the first call counts; there is no second one.
    _ = tracing::subscriber::set_global_default(Lines);
}

struct Lines;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let (at_ms, host) = dunlin_sim::trace::speaker();
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let (s, ms) = (at_ms / 1_000, at_ms % 1_000);
        crate::say(&format!(
            "{s:>4}.{ms:03}  n{host} {level} {target}{}\n",
            line.0
        ));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
