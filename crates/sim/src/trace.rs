//! What happened, as one hash and, when asked for, as lines of text.
//!
//! The hash covers every event with its time and its bytes: two runs of one seed that differ
//! anywhere differ here. Lines are made only while recording, so that a run that passes pays
//! nothing for them.

use std::collections::VecDeque;

/// Lines kept while recording; the end of a failing run is what explains it.
const LINES_MAX: usize = 20_000;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    /// A trace; `record` keeps lines as well.
    pub fn new(record: bool) -> Self {
        Self { hash: FNV_OFFSET, events: 0, lines: record.then(VecDeque::new) }
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
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(format!("{:>4}.{:03}  {}", at_ms / 1_000, at_ms % 1_000, line()));
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
        self.lines.map(Vec::from).unwrap_or_default()
    }
}
