//! The live line: which round, which target, how fast. On a terminal it rewrites itself; elsewhere
//! it says only which measurement begins. Here Ctrl-C is heard too: a measurement that it ends is
//! reported as far as it came.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    stop: Arc<AtomicBool>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            is_live: std::io::stderr().is_terminal(),
            label: String::new(),
            last: (Instant::now(), 0),
            stop: Arc::default(),
        }
    }

    /// From here on a first Ctrl-C asks for the end; a second one is it.
    pub(crate) fn hear_ctrl_c(&self) -> std::io::Result<()> {
        let (signal, stop) = (signal_hook::consts::SIGINT, &self.stop);
        signal_hook::flag::register_conditional_default(signal, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
        Ok(())
    }

    /// Whether the measurement has to come to its end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn stopped() -> Self {
        let progress = Self::silent();
        progress.stop.store(true, Ordering::Relaxed);
        progress
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
