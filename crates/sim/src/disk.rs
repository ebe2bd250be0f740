//! One node's disk: batches are visible at once, durable with the next group commit, and a crash
//! keeps a prefix of what was not.

use bytes::Bytes;
use dunlin_storage::memory::{CrashKeep, Memory};
use dunlin_storage::{Batch, Store, StoreError, TableId};
use rand::Rng;
use rand::rngs::SmallRng;

/// Rows read at a time when a table is copied out.
const SCAN_ROWS: usize = 1_024;

/// One table's rows.
pub type Rows = Vec<(Bytes, Bytes)>;

/// All tables of a disk at one moment, by name.
pub type Snapshot = Vec<(String, Rows)>;

/// A simulated disk.
#[derive(Debug, Default)]
pub struct Disk {
    memory: Memory,
    /// Batches written since the last commit, by the node's tokens.
    waiting: Vec<u64>,
    archives: Vec<Snapshot>,
    written: u64,
}

impl Disk {
    /// Takes a batch; `true` means that a commit has to be scheduled.
    pub fn write(&mut self, token: u64, batch: Batch) -> Result<bool, StoreError> {
        self.memory.write(batch)?;
        self.written += 1;
        self.waiting.push(token);
        Ok(self.waiting.len() == 1)
    }

    /// Answers a batch without writing it: a disk that lies.
    pub fn forget(&mut self, token: u64) -> bool {
        self.waiting.push(token);
        self.waiting.len() == 1
    }

    /// Commits; returns the tokens to answer, in order, and how it went.
    pub fn commit(&mut self) -> (Vec<u64>, Result<(), StoreError>) {
        let result = self.memory.sync();
        (std::mem::take(&mut self.waiting), result)
    }

    /// Keeps a copy of all tables, as the real store writes below `data/backup`.
    pub fn archive(&mut self) -> Result<String, StoreError> {
        let copy = self.snapshot()?;
        self.archives.push(copy);
        Ok(format!("backup/{}", self.archives.len()))
    }

    /// The process or the machine dies: a random prefix of what was not committed survives.
    pub fn crash(&mut self, rng: &mut SmallRng) {
        self.waiting.clear();
        let kept = rng.random_range(0..=self.memory.unsynced_count());
        self.memory.crash(CrashKeep::Prefix(kept));
    }

    /// The process dies with exactly `kept` of the uncommitted batches on disk.
    pub fn crash_keeping(&mut self, kept: usize) {
        self.waiting.clear();
        self.memory.crash(CrashKeep::Prefix(kept));
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
