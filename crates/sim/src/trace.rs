//! What happened, as one hash and, when asked for, as lines of text.
//!
//! The hash covers every event with its time and its bytes: two runs of one seed that differ
//! anywhere differ here. Lines are made only while recording, so that a run that passes pays
//! nothing for them.

use std::cell::Cell;
use std::collections::VecDeque;

/// Lines kept while recording; the end of a failing run is what explains it.
const LINES_MAX: usize = 20_000;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

thread_local! {
    /// Whose node is at work and when, for a log that knows neither.
    static SPEAKER: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// The time and the host of the node at work on this thread.
pub fn speaker() -> (u64, usize) {
    SPEAKER.get()
}

/// What becomes of lines.
#[derive(Clone, Copy, Debug, Default)]
pub enum Record {
    /// They are not made.
    #[default]
    Nothing,
    /// They are kept.
    Lines,
    /// They are handed to a function at once, to be read among the nodes' own log.
    Echo(fn(&str)),
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    record: Record,
    lines: VecDeque<String>,
}

impl Trace {
    /// A trace; `record` keeps lines as well.
    pub fn new(record: Record) -> Self {
        Self {
            hash: FNV_OFFSET,
            events: 0,
            record,
            lines: VecDeque::new(),
        }
    }

    /// A host's node is about to work.
    pub fn speaks(&self, at_ms: u64, host: usize) {
        if !matches!(self.record, Record::Nothing) {
            SPEAKER.set((at_ms, host));
        }
    }

    /// Adds an event: a kind, its time and numbers that identify it.
    pub fn event(&mut self, kind: &str, at_ms: u64, numbers: &[u64]) {
        self.events += 1;
        self.add(kind.as_bytes());
        self.add(&at_ms.to_be_bytes());
        for number in numbers {
            self.add(&number.to_be_bytes());
        }
    }

    /// Adds bytes that travelled.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in chunks.by_ref() {
            let word = u64::from_be_bytes(chunk.try_into().expect("chunks of eight"));
            self.hash = (self.hash ^ word).wrapping_mul(FNV_PRIME).rotate_left(29);
        }
        for byte in chunks.remainder() {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }

    /// Adds a line for people, if recording.
    pub fn say(&mut self, at_ms: u64, line: impl FnOnce() -> String) {
        if matches!(self.record, Record::Nothing) {
            return;
        }
        let line = format!("{:>4}.{:03}  {}", at_ms / 1_000, at_ms % 1_000, line());
        if let Record::Echo(echo) = self.record {
            echo(&line);
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The recorded lines, oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
