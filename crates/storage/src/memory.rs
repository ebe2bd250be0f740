//! The twin for tests and the simulator: a [`Store`] in memory that can crash.
//!
//! It exists so that a simulated node can lose exactly what a real disk may lose, a million times a
//! minute and the same way for the same seed. It must never touch a file or a clock, and never tear
//! a batch. It does not bound what is unsynced: who simulates decides when to sync.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::store::{Batch, Op, Store, StoreError, TableId};

/// Which unsynced batches survive a simulated crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashKeep {
    /// None of them.
    Nothing,
    /// The first so many, in write order; all of them if there are fewer.
    Prefix(usize),
}

/// Tables in memory, with what is durable kept apart from what is only written.
///
/// ```
/// use dunlin_storage::memory::{CrashKeep, Memory};
/// use dunlin_storage::{Batch, Store, TableId};
/// static T: TableId = TableId::fixed("t");
/// let mut store = Memory::new();
/// let mut batch = Batch::new();
/// batch.put(&T, "key", "value");
/// store.write(batch)?;
/// store.crash(CrashKeep::Nothing);
/// assert_eq!(store.get(&T, b"key")?, None);
/// # Ok::<(), dunlin_storage::StoreError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// What reads see: `durable` with all of `unsynced` applied.
    current: Tables,
    durable: Tables,
    unsynced: Vec<Batch>,
    /// Syncs that still succeed before all fail; `None` is no fault planned.
    syncs_left: Option<u64>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process dies and starts again: unsynced batches are forgotten, except those kept. A
    /// planned sync fault stays planned.
    pub fn crash(&mut self, keep: CrashKeep) {
        let kept = match keep {
            CrashKeep::Nothing => 0,
            CrashKeep::Prefix(batches) => batches.min(self.unsynced.len()),
        };
        for batch in self.unsynced.drain(..).take(kept) {
            apply(&mut self.durable, batch);
        }
        self.current = self.durable.clone();
    }

    /// The number of batches a crash could lose; the range for [`CrashKeep::Prefix`].
    pub fn unsynced_count(&self) -> usize {
        self.unsynced.len()
    }

    /// Those batches, oldest first.
    pub fn unsynced(&self) -> impl Iterator<Item = &Batch> {
        self.unsynced.iter()
    }

    /// The next `count` syncs succeed; each one after them fails with [`StoreError::Injected`],
    /// until [`heal_syncs`](Self::heal_syncs).
    pub fn fail_syncs_after(&mut self, count: u64) {
        self.syncs_left = Some(count);
    }

    /// Takes back [`fail_syncs_after`](Self::fail_syncs_after).
    pub fn heal_syncs(&mut self) {
        self.syncs_left = None;
    }
}

impl Store for Memory {
    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        apply(&mut self.current, batch.clone());
        self.unsynced.push(batch);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        match &mut self.syncs_left {
            Some(0) => return Err(StoreError::Injected),
            Some(left) => *left -= 1,
            None => {}
        }
        for batch in self.unsynced.drain(..) {
            apply(&mut self.durable, batch);
        }
        debug_assert_eq!(
            self.durable, self.current,
            "a sync made something else durable"
        );
        Ok(())
    }

    fn get(&self, table: &TableId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self
            .current
            .get(table)
            .and_then(|rows| rows.get(key))
            .cloned())
    }

    fn scan(
        &self,
        table: &TableId,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let Some(rows) = self.current.get(table) else {
            return Ok(Vec::new());
        };
        let range = rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        Ok(range
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn tables(&self) -> Result<Vec<TableId>, StoreError> {
        Ok(self.current.keys().cloned().collect())
    }
}

/// Tables by name; a table without rows has no entry.
type Tables = BTreeMap<TableId, BTreeMap<Bytes, Bytes>>;

fn apply(tables: &mut Tables, batch: Batch) {
    for op in batch.ops {
        match op {
            Op::Put { table, key, value } => {
                tables.entry(table).or_default().insert(key, value);
            }
            Op::Delete { table, key } => {
                if let Some(rows) = tables.get_mut(&table) {
                    rows.remove(&key);
                    if rows.is_empty() {
                        tables.remove(&table);
                    }
                }
            }
            Op::Clear { table } => {
                tables.remove(&table);
            }
            Op::Rename { from, to } if from == to => {}
            Op::Rename { from, to } => {
                match tables.remove(&from) {
                    Some(rows) => tables.insert(to, rows),
                    None => tables.remove(&to),
                };
            }
        }
    }
}
