//! The contract: named tables, atomic batches, ordered scans, group sync.
//!
//! It is what callers may rely on from every implementation, including what a crash may lose.
//! This module must never do I/O.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

/// Longest table name in bytes. Names are written by us, not by clients; 64 leaves room for a
/// staging prefix and keeps them readable in a listing.
pub const TABLE_NAME_BYTES_MAX: usize = 64;

/// Longest key in bytes. The longest key a broker needs is an MQTT topic (65 535 bytes) with a
/// prefix and a suffix.
pub const KEY_BYTES_MAX: usize = 128 * 1024;

/// Longest value in bytes. The largest MQTT packet is just under 256 MiB; 1 MiB more is room for
/// what a row adds to the message.
pub const VALUE_BYTES_MAX: usize = 257 * 1024 * 1024;

/// Largest batch in bytes, as counted by [`Batch::bytes`]: one largest row, and room for the small
/// rows that go with it.
pub const BATCH_BYTES_MAX: usize = VALUE_BYTES_MAX + 16 * 1024 * 1024;

/// Bytes counted for an operation beyond its key and value, so that a batch of empty operations is
/// bounded too. About the size of an [`Op`] in memory.
const OP_OVERHEAD_BYTES: usize = 96;

/// The name of a table: 1 to [`TABLE_NAME_BYTES_MAX`] bytes of `a-z`, `0-9`, `_`, `-`, `.` and `/`.
///
/// Names of fixed tables are checked when compiled, names made at run time when made:
///
/// ```
/// use dunlin_storage::TableId;
/// static RETAINED: TableId = TableId::fixed("retained");
/// let staging = TableId::new(format!("staging/{RETAINED}"))?;
/// assert_eq!(staging.as_str(), "staging/retained");
/// # Ok::<(), dunlin_storage::StoreError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(Cow<'static, str>);

impl TableId {
    /// A name known when compiling, for a `static`, where a name that is not valid is a compile
    /// error. Called at run time it panics instead.
    pub const fn fixed(name: &'static str) -> Self {
        assert!(
            is_valid_name(name.as_bytes()),
            "a table name breaks the rules of TableId"
        );
        Self(Cow::Borrowed(name))
    }

    /// A name made at run time; [`StoreError::TableName`] if it breaks the rules.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, StoreError> {
        let name = name.into();
        if is_valid_name(name.as_bytes()) {
            Ok(Self(name))
        } else {
            Err(StoreError::TableName {
                name: name.into_owned(),
            })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const fn is_valid_name(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > TABLE_NAME_BYTES_MAX {
        return false;
    }
    let mut index = 0;
    while index < name.len() {
        match name[index] {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/' => index += 1,
            _ => return false,
        }
    }
    true
}

/// One change to one named table. Keys and values are opaque bytes; an empty key or value is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets the value of a key; a table comes into being with its first row.
    Put {
        /// The table written to.
        table: TableId,
        /// At most [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
        /// At most [`VALUE_BYTES_MAX`] bytes.
        value: Bytes,
    },
    /// Removes a key; nothing happens if it is absent.
    Delete {
        /// The table written to.
        table: TableId,
        /// The key removed.
        key: Bytes,
    },
    /// Removes every row of a table.
    Clear {
        /// The table emptied.
        table: TableId,
    },
    /// Moves every row of `from` into `to`, whose own rows are gone afterwards, and leaves `from`
    /// empty: the atomic swap of a join's staging tables. Costs the same for any number of durable
    /// rows. Renaming an empty table clears `to`; renaming a table to itself does nothing.
    Rename {
        /// The table that becomes empty.
        from: TableId,
        /// The table that is replaced.
        to: TableId,
    },
}

impl Op {
    /// The size this operation counts for in [`Batch::bytes`], in bytes.
    pub fn bytes(&self) -> usize {
        OP_OVERHEAD_BYTES
            + match self {
                Self::Put { key, value, .. } => key.len() + value.len(),
                Self::Delete { key, .. } => key.len(),
                Self::Clear { .. } | Self::Rename { .. } => 0,
            }
    }
}

/// Operations that become durable together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Applied in this order.
    pub ops: Vec<Op>,
}

impl Batch {
    /// An empty batch.
    pub const fn new() -> Self {
        Self { ops: Vec::new() }
    }

    /// Appends a [`Op::Put`].
    pub fn put(&mut self, table: &TableId, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put {
            table: table.clone(),
            key: key.into(),
            value: value.into(),
        });
    }

    /// Appends a [`Op::Delete`].
    pub fn delete(&mut self, table: &TableId, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete {
            table: table.clone(),
            key: key.into(),
        });
    }

    /// Appends a [`Op::Clear`].
    pub fn clear(&mut self, table: &TableId) {
        self.ops.push(Op::Clear {
            table: table.clone(),
        });
    }

    /// Appends a [`Op::Rename`].
    pub fn rename(&mut self, from: &TableId, to: &TableId) {
        self.ops.push(Op::Rename {
            from: from.clone(),
            to: to.clone(),
        });
    }

    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Keys, values and a fixed overhead per operation, in bytes; what [`BATCH_BYTES_MAX`] bounds.
    pub fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    /// Checks every bound; returns [`Batch::bytes`]. Each implementation of [`Store::write`] calls
    /// it first, so that a batch one of them takes is a batch all of them take.
    pub fn check(&self) -> Result<usize, StoreError> {
        for op in &self.ops {
            let (table, key_bytes, value_bytes) = match op {
                Op::Put { table, key, value } => (table, key.len(), value.len()),
                Op::Delete { table, key } => (table, key.len(), 0),
                Op::Clear { .. } | Op::Rename { .. } => continue,
            };
            if key_bytes > KEY_BYTES_MAX {
                return Err(StoreError::KeyTooLong {
                    table: table.clone(),
                    bytes: key_bytes,
                });
            }
            if value_bytes > VALUE_BYTES_MAX {
                return Err(StoreError::ValueTooLong {
                    table: table.clone(),
                    bytes: value_bytes,
                });
            }
        }
        let bytes = self.bytes();
        if bytes > BATCH_BYTES_MAX {
            return Err(StoreError::BatchTooLarge { bytes });
        }
        Ok(bytes)
    }
}

/// Named, ordered tables of bytes with atomic batches and group commit.
///
/// **Visibility**: a batch is seen by `get`, `scan` and `tables` as soon as `write` returned `Ok`.
///
/// **Durability**: everything written before a `sync` that returned `Ok` survives a crash. Of the
/// batches written after it, a crash keeps a prefix in write order (none, some or all), each batch
/// whole.
///
/// **Failure**: a `write` that fails changed nothing. A `sync` that fails loses nothing while the
/// process lives: all batches stay visible and the next `sync` tries them again; whether they are
/// durable is unknown until one succeeds.
pub trait Store {
    /// Takes a batch: applied in order, atomic, durable only after [`sync`](Store::sync) returned.
    /// An implementation that bounds what is unsynced may sync the batches before this one.
    fn write(&mut self, batch: Batch) -> Result<(), StoreError>;

    /// Makes everything written so far durable, in one group commit.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// The value of a key, or `None`.
    fn get(&self, table: &TableId, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` rows whose key is at or after `from`, ordered by key as bytes. Fewer than
    /// `limit` rows means the table ends there. To go on, scan from the last key with a zero byte
    /// appended, which is the smallest key after it. The rows are copied: bound `limit` by the size
    /// of a row.
    fn scan(
        &self,
        table: &TableId,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// The tables that have at least one row, ordered by name.
    fn tables(&self) -> Result<Vec<TableId>, StoreError>;
}

/// Why a store could not do what was asked. The state left is described at [`Store`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another `Engine` of this one, has this data directory open.
    #[error("{} is in use by another process; stop it or use another directory", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The file was written by a newer release in a format this one does not know.
    #[error(
        "{} has format {found}, this release reads up to {supported}; \
         start the release that wrote it",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The version it says.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// The file is not one of ours or is damaged; nothing was changed.
    #[error("{} is damaged or not a table file; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the engine found, if it was the engine that found it.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The operating system refused: disk full, no permission, a failing device.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The engine failed in a way that is none of the above.
    #[error("{}: {source}", path.display())]
    Engine {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A sync failed and the file could not be opened again. Unsynced batches are kept; the next
    /// [`Store::sync`] tries to open it.
    #[error("{} is closed after a failed write; see the error before this one", path.display())]
    Closed {
        /// The file.
        path: PathBuf,
    },
    /// A fault the simulator asked for.
    #[error("sync failed by fault injection")]
    Injected,
    /// A table name breaks the rules of [`TableId`].
    #[error("table name {name:?} is not 1 to {TABLE_NAME_BYTES_MAX} of a-z 0-9 _ - . /")]
    TableName {
        /// The name refused.
        name: String,
    },
    /// A key is longer than [`KEY_BYTES_MAX`].
    #[error("a key of {bytes} bytes in table {table} is longer than {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// The table addressed.
        table: TableId,
        /// The key's length in bytes.
        bytes: usize,
    },
    /// A value is longer than [`VALUE_BYTES_MAX`].
    #[error("a value of {bytes} bytes in table {table} is longer than {VALUE_BYTES_MAX}")]
    ValueTooLong {
        /// The table addressed.
        table: TableId,
        /// The value's length in bytes.
        bytes: usize,
    },
    /// A batch is larger than [`BATCH_BYTES_MAX`].
    #[error("a batch of {bytes} bytes is larger than {BATCH_BYTES_MAX}")]
    BatchTooLarge {
        /// The batch's size in bytes.
        bytes: usize,
    },
}

impl StoreError {
    /// True if the cure is to make room on the disk.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ))
    }
}

#[cfg(test)]
mod tests;
