//! The live line: which round, which target, how fast. On a terminal it rewrites itself; elsewhere
//! it says only which measurement begins.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Often enough to look alive, seldom enough to cost nothing.
const EVERY: Duration = Duration::from_millis(250);

/// Writes to standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    is_live: bool,
    label: String,
    /// When the line was written last, and the count then.
    last: (Instant, u64),
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            is_live: std::io::stderr().is_terminal(),
            label: String::new(),
            last: (Instant::now(), 0),
        }
    }

    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self {
            is_live: false,
            ..Self::new()
        }
    }

    pub(crate) fn begin(&mut self, label: String) {
        if !self.is_live {
            eprintln!("{label}");
        }
        self.label = label;
        self.last = (Instant::now(), 0);
    }

    /// `count` units are done.
    pub(crate) fn tick(&mut self, now: Instant, count: u64) {
        let elapsed = now - self.last.0;
        if !self.is_live || elapsed < EVERY {
            return;
        }
        let rate = count.saturating_sub(self.last.1) as f64 / elapsed.as_secs_f64() / 1_000.0;
        eprint!("\r\x1b[K{}: {count} done, {rate:.1} thousand/s", self.label);
        let _ = std::io::stderr().flush();
        self.last = (now, count);
    }

    pub(crate) fn end(&self) {
        if self.is_live {
            eprint!("\r\x1b[K");
        }
    }
}
