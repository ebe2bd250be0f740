//! The node's log: EMQX's line forms, to the console and to files that rotate by size.
//!
//! A subscriber of our own, because there is nothing to subscribe to but events: no spans, so no
//! registry. Whoever logs formats the line and leaves it in a bounded buffer; one thread writes.
//! Logging must never wait for a disk or a terminal: lines that find the buffer full are counted,
//! and the count is logged when there is room again.

mod file;
mod line;
mod zone;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use dunlin_config::settings::{Log, LogHandler, LogLevel};
use tracing_core::{Event, LevelFilter, Metadata, Subscriber, span};

use file::RotatingFile;
use line::{Form, Line};

/// Bytes of lines waiting to be written, for each handler: several thousand lines.
const BUFFER_BYTES: usize = 1024 * 1024;

/// How a node was started, which decides where it logs to unless configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedIn {
    /// By a person or a container: the console.
    Foreground,
    /// As a daemon: the file.
    Background,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A log file cannot be written.
    #[error("cannot write the log file `{}`: {source}; check its directory or set log.file.path",
            .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The writing thread could not be started.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(io::Error),
}

/// Handle on the log; the last one dropped ends it after everything is written.
#[derive(Clone)]
pub struct LogHandle(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    path: Option<PathBuf>,
}

struct Shared {
    sinks: Vec<Sink>,
    work: Mutex<Work>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Work {
    /// One buffer per sink.
    buffers: Vec<Vec<u8>>,
    busy: bool,
    stop: bool,
}

/// One place that lines go to.
struct Sink {
    name: String,
    level: AtomicU8,
    form: Form,
    lost: AtomicU64,
}

/// A sink with its level, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// `console`, or the name of a file handler.
    pub name: String,
    /// Lowest level shown.
    pub level: LogLevel,
}

/// A log whose files are open, not yet installed.
pub struct Prepared {
    shared: Arc<Shared>,
    outputs: Vec<Output>,
    path: Option<PathBuf>,
}

enum Output {
    Console,
    File(RotatingFile),
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Console => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File(file) => file.write(bytes),
        }
    }
}

/// Opens what the settings ask for.
pub fn prepare(settings: &Log, started: StartedIn) -> Result<Prepared, LogError> {
    let (mut sinks, mut outputs, mut path) = (Vec::new(), Vec::new(), None);
    if settings
        .console
        .enable
        .unwrap_or(started == StartedIn::Foreground)
    {
        sinks.push(Sink::new("console", &settings.console));
        outputs.push(Output::Console);
    }
    for (name, file) in &settings.files {
        if !file
            .handler
            .enable
            .unwrap_or(started == StartedIn::Background)
        {
            continue;
        }
        let opened = RotatingFile::open(
            file.path.clone().into(),
            file.rotation_bytes,
            file.rotation_count,
        );
        let opened = opened.map_err(|source| LogError::File {
            path: file.path.clone().into(),
            source,
        })?;
        sinks.push(Sink::new(name, &file.handler));
        outputs.push(Output::File(opened));
        path.get_or_insert_with(|| file.path.clone().into());
    }
    let buffers = sinks.iter().map(|_| Vec::new()).collect();
    let work = Mutex::new(Work {
        buffers,
        ..Work::default()
    });
    let shared = Shared {
        sinks,
        work,
        filled: Condvar::new(),
        written: Condvar::new(),
    };
    Ok(Prepared {
        shared: Arc::new(shared),
        outputs,
        path,
    })
}

impl Prepared {
    /// Makes it the log of the whole process (once; in a process that has one already, as tests
    /// have, the earlier one stays) and starts writing.
    pub fn install(self) -> Result<LogHandle, LogError> {
        let handle = self.start()?;
        let _ = tracing::subscriber::set_global_default(Collector(handle.0.shared.clone()));
        Ok(handle)
    }

    fn start(self) -> Result<LogHandle, LogError> {
        let Self {
            shared,
            outputs,
            path,
        } = self;
        let writing = shared.clone();
        let writer = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writing.write_all(outputs))
            .map_err(LogError::Thread)?;
        let writer = Mutex::new(Some(writer));
        Ok(LogHandle(Arc::new(Owner {
            shared,
            writer,
            path,
        })))
    }
}

impl LogHandle {
    /// The handlers with their levels.
    pub fn handlers(&self) -> Vec<Handler> {
        let handler = |sink: &Sink| Handler {
            name: sink.name.clone(),
            level: sink.level(),
        };
        self.0.shared.sinks.iter().map(handler).collect()
    }

    /// Sets the level of one handler, or of all; false if there is none of that name.
    pub fn set_level(&self, name: Option<&str>, level: LogLevel) -> bool {
        let meant = |sink: &&Sink| name.is_none_or(|name| name == sink.name);
        let mut found = false;
        for sink in self.0.shared.sinks.iter().filter(meant) {
            sink.level.store(severity(level), Ordering::Relaxed);
            found = true;
        }
        tracing_core::callsite::rebuild_interest_cache();
        found
    }

    /// The log file, if there is one.
    pub fn path(&self) -> Option<&PathBuf> {
        self.0.path.as_ref()
    }

    /// Waits until everything logged before is written.
    pub fn flush(&self) {
        let shared = &self.0.shared;
        let mut work = shared.lock();
        while work.busy || work.buffers.iter().any(|buffer| !buffer.is_empty()) {
            shared.filled.notify_one();
            work = shared
                .written
                .wait(work)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.filled.notify_one();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            // It only writes; if it panicked there is nobody to tell.
            let _ = writer.join();
        }
    }
}

impl Sink {
    fn new(name: &str, handler: &LogHandler) -> Self {
        Self {
            name: name.to_owned(),
            level: AtomicU8::new(severity(handler.level)),
            form: Form::new(handler),
            lost: AtomicU64::new(0),
        }
    }

    fn level(&self) -> LogLevel {
        LEVELS[usize::from(self.level.load(Ordering::Relaxed))]
    }
}

/// From least to most severe.
const LEVELS: [LogLevel; 8] = [
    LogLevel::Debug,
    LogLevel::Info,
    LogLevel::Notice,
    LogLevel::Warning,
    LogLevel::Error,
    LogLevel::Critical,
    LogLevel::Alert,
    LogLevel::Emergency,
];

fn severity(level: LogLevel) -> u8 {
    LEVELS.iter().position(|known| *known == level).unwrap_or(0) as u8
}

/// The level of an event; those that tracing does not have are given by a field `level`.
fn level_of(metadata: &Metadata<'_>) -> LogLevel {
    match *metadata.level() {
        tracing::Level::ERROR => LogLevel::Error,
        tracing::Level::WARN => LogLevel::Warning,
        tracing::Level::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

/// What tracing hands events to.
struct Collector(Arc<Shared>);

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.level() <= &self.0.filter()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.filter())
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        self.0.log(&Line::new(event, level_of(event.metadata())));
    }
}

impl Shared {
    /// What any sink may want. A sink that shows `notice` and above still needs events of tracing's
    /// coarser levels that may carry one of EMQX's finer ones.
    fn filter(&self) -> LevelFilter {
        let lowest = self
            .sinks
            .iter()
            .map(|sink| sink.level.load(Ordering::Relaxed))
            .min();
        match lowest.map(|lowest| LEVELS[usize::from(lowest)]) {
            None => LevelFilter::OFF,
            Some(LogLevel::Debug | LogLevel::All) => LevelFilter::DEBUG,
            Some(LogLevel::Info | LogLevel::Notice) => LevelFilter::INFO,
            Some(LogLevel::Warning) => LevelFilter::WARN,
            Some(_) => LevelFilter::ERROR,
        }
    }

    fn log(&self, line: &Line) {
        let severity = severity(line.level());
        let mut work = self.lock();
        let mut any = false;
        for (sink, buffer) in self.sinks.iter().zip(&mut work.buffers) {
            if severity < sink.level.load(Ordering::Relaxed) {
                continue;
            }
            if buffer.len() >= BUFFER_BYTES {
                sink.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            sink.form.write(line, buffer);
            any = true;
        }
        if any {
            self.filled.notify_one();
        }
    }

    /// The writing thread.
    fn write_all(&self, mut outputs: Vec<Output>) {
        let mut batch: Vec<Vec<u8>> = outputs.iter().map(|_| Vec::new()).collect();
        let mut work = self.lock();
        loop {
            while work.buffers.iter().all(Vec::is_empty) && !work.stop {
                work.busy = false;
                self.written.notify_all();
                work = self
                    .filled
                    .wait(work)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut work.buffers, &mut batch);
            work.busy = true;
            let stop = work.stop;
            drop(work);
            for ((sink, output), bytes) in self.sinks.iter().zip(&mut outputs).zip(&mut batch) {
                sink.add_lost(bytes);
                // A console that is closed or a full disk: the line is gone, the node goes on.
                if !bytes.is_empty() && output.write(bytes).is_err() {
                    sink.lost.fetch_add(1, Ordering::Relaxed);
                }
                bytes.clear();
            }
            work = self.lock();
            if stop && work.buffers.iter().all(Vec::is_empty) {
                work.busy = false;
                self.written.notify_all();
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    fn add_lost(&self, bytes: &mut Vec<u8>) {
        let lost = if bytes.is_empty() {
            0
        } else {
            self.lost.swap(0, Ordering::Relaxed)
        };
        if lost > 0 {
            let line = Line::own(LogLevel::Warning, "log_lines_lost", "count", lost);
            self.form.write(&line, bytes);
        }
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogHandle").field(&self.handlers()).finish()
    }
}

#[cfg(test)]
mod tests;
