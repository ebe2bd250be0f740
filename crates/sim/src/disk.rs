//! One node's disk, and who waits for it: batches are visible at once, durable with the next group
//! commit, and a crash keeps a prefix of what was not. A disk that fails is tried again, as the
//! server's store thread does it.

use bytes::Bytes;
use dunlin_storage::memory::{CrashKeep, Memory};
use dunlin_storage::{Batch, Op, Store, StoreError, TableId};
use rand::Rng;
use rand::rngs::SmallRng;

/// Pause between two tries of a failing disk, milliseconds; the store thread's.
pub const RETRY_MS: u64 = 1_000;
/// How long the writers of single rows wait for a failing disk before they are told, milliseconds;
/// the store thread's.
pub const PATIENCE_MS: u64 = 5_000;
/// Rows read at a time when a table is copied out.
const SCAN_ROWS: usize = 1_024;

/// One table's rows.
pub type Rows = Vec<(Bytes, Bytes)>;

/// All tables of a disk at one moment, by name.
pub type Snapshot = Vec<(String, Rows)>;

/// An answer to a batch, by the node's token.
pub type Answer = (u64, Result<(), String>);

/// A simulated disk.
#[derive(Debug, Default)]
pub struct Disk {
    memory: Memory,
    /// Batches written since the last commit: the node's token, and whether tables are replaced.
    waiting: Vec<(u64, bool)>,
    /// A commit is on its way.
    due: bool,
    failing_since: Option<u64>,
    archives: Vec<Snapshot>,
    written: u64,
}

impl Disk {
    /// Takes a batch; `true` means that a commit has to be scheduled.
    pub fn write(&mut self, token: u64, batch: Batch) -> Result<bool, StoreError> {
        let replaces = |op: &Op| matches!(op, Op::Clear { .. } | Op::Rename { .. });
        let replaces_tables = batch.ops.iter().any(replaces);
        self.memory.write(batch)?;
        self.written += 1;
        self.waiting.push((token, replaces_tables));
        Ok(!std::mem::replace(&mut self.due, true))
    }

    /// Answers a batch without writing it: a disk that lies.
    pub fn forget(&mut self, token: u64) -> bool {
        self.waiting.push((token, false));
        !std::mem::replace(&mut self.due, true)
    }

    /// Commits; returns whom to answer what, in order, and whether it is to be tried again.
    /// A batch that replaces tables is never reported as failed while it may still become durable.
    /// `hidden`: whoever asks for it does not look whether it failed.
    pub fn commit(&mut self, now: u64, hidden: bool) -> (Vec<Answer>, bool) {
        let failed = self.memory.sync().err();
        let Some(error) = failed.filter(|_| !hidden) else {
            self.due = false;
            self.failing_since = None;
            let waiting = std::mem::take(&mut self.waiting);
            let answers = waiting.into_iter().map(|(token, _)| (token, Ok(())));
            return (answers.collect(), false);
        };
        let since = *self.failing_since.get_or_insert(now);
        if now < since + PATIENCE_MS {
            return (Vec::new(), true);
        }
        let told = self.waiting.extract_if(.., |(_, replaces)| !*replaces);
        let answers = told.map(|(token, _)| (token, Err(error.to_string())));
        (answers.collect(), true)
    }

    /// From now on every sync fails, or none does.
    pub fn fail(&mut self, fails: bool) {
        if fails {
            self.memory.fail_syncs_after(0);
        } else {
            self.memory.heal_syncs();
        }
    }

    /// Whether a crash could lose a row with this value that a node holds in memory or has written:
    /// a prefix that may survive is without it, up to the last batch that writes it.
    pub fn can_lose(
        &self,
        (table, key): (&TableId, &[u8]),
        held: bool,
        is_it: impl Fn(&[u8]) -> bool,
    ) -> bool {
        let writes_it = |batch: &Batch| {
            batch.ops.iter().any(|op| match op {
                Op::Put {
                    table: to,
                    key: at,
                    value,
                } => to == table && at == key && is_it(value),
                Op::Delete { .. } | Op::Clear { .. } | Op::Rename { .. } => false,
            })
        };
        let written = self.memory.unsynced().enumerate();
        let written = written.filter(|(_, batch)| writes_it(batch));
        let last = written.map(|(at, _)| at + 1).last();
        let lacks_it = |kept| {
            let mut after = self.memory.clone();
            after.crash(CrashKeep::Prefix(kept));
            let row = after.get(table, key).ok().flatten();
            !row.is_some_and(|value| is_it(&value))
        };
        (held || last.is_some()) && (0..=last.unwrap_or_default()).any(lacks_it)
    }

    /// Keeps a copy of all tables, as the real store writes below `data/backup`.
    pub fn archive(&mut self) -> Result<String, StoreError> {
        let copy = self.snapshot()?;
        self.archives.push(copy);
        Ok(format!("backup/{}", self.archives.len()))
    }

    /// The process or the machine dies: a random prefix of what was not committed survives.
    pub fn crash(&mut self, rng: &mut SmallRng) {
        self.died();
        let kept = rng.random_range(0..=self.memory.unsynced_count());
        self.memory.crash(CrashKeep::Prefix(kept));
    }

    /// The process dies with exactly `kept` of the uncommitted batches on disk.
    pub fn crash_keeping(&mut self, kept: usize) {
        self.died();
        self.memory.crash(CrashKeep::Prefix(kept));
    }

    fn died(&mut self) {
        self.waiting.clear();
        self.due = false;
        self.failing_since = None;
    }

    /// What a node reads at start.
    pub fn store(&self) -> &dyn Store {
        &self.memory
    }

    /// Archives written so far, oldest first.
    pub fn archives(&self) -> &[Snapshot] {
        &self.archives
    }

    /// Batches ever taken.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Everything that reads see.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let tables = self.memory.tables()?;
        let copy = tables.into_iter().map(|table| {
            let rows = self.rows(&table)?;
            Ok((table.as_str().to_owned(), rows))
        });
        copy.collect()
    }

    fn rows(&self, table: &TableId) -> Result<Rows, StoreError> {
        let mut rows: Rows = Vec::new();
        loop {
            let from = rows
                .last()
                .map_or_else(Vec::new, |(key, _)| [key.as_ref(), &[0]].concat());
            let page = self.memory.scan(table, &from, SCAN_ROWS)?;
            let full = page.len() == SCAN_ROWS;
            rows.extend(page);
            if !full {
                return Ok(rows);
            }
        }
    }
}
