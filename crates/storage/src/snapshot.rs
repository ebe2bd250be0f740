//! Full copies of all tables as a portable byte stream.
//!
//! A joining node archives its old cluster state this way, and backups are made of it; the bytes
//! are drawn in `docs/disk.md`. Every frame carries a checksum of the whole stream up to it, so a
//! flipped bit, a lost, doubled or reordered frame and a cut end are each found where they happen.
//! This module must never trust a length it read: a damaged stream costs an error, not memory.

use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::store::{
    Batch, KEY_BYTES_MAX, Op, Store, StoreError, TABLE_NAME_BYTES_MAX, TableId, VALUE_BYTES_MAX,
};

/// The newest snapshot format; a reader takes this one and all before it.
pub const VERSION: u16 = 1;

/// First bytes of every snapshot.
const MAGIC: [u8; 8] = *b"DUNLSNAP";

const KIND_TABLE: u8 = 1;
const KIND_ROW: u8 = 2;
const KIND_END: u8 = 3;

/// Frame head: kind (1 byte) and payload length (4 bytes).
const HEAD_BYTES: usize = 5;

/// Largest payload: a row of the largest key and value, and the key's length (4 bytes).
const PAYLOAD_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 4;

/// Payload of the end frame: table count and row count, 8 bytes each.
const END_BYTES: usize = 16;

/// Rows fetched from the store at a time when writing. Enough to make the look-up per scan
/// negligible, few enough to keep memory small with usual rows (tens of kilobytes).
const SCAN_ROWS: usize = 64;

/// Bytes gathered in one batch when restoring, before it is made durable. Bounds memory; large
/// enough that the cost per sync does not matter.
const RESTORE_BATCH_BYTES: usize = 1024 * 1024;

/// Tables that [`restore`] stages into. Left out of snapshots.
const STAGING_PREFIX: &str = "restoring/";

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of tables.
    pub tables: u64,
    /// Number of rows in all tables.
    pub rows: u64,
}

/// One row of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The table it belongs to.
    pub table: TableId,
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// Why a snapshot could not be written, read or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes are not a snapshot, are damaged or end too early.
    #[error("snapshot damaged in the frame at byte {offset}: {fault}")]
    Damaged {
        /// Where the frame with the fault starts, in bytes from the start of the snapshot.
        offset: u64,
        /// What is wrong there.
        fault: Fault,
    },
    /// Written by a newer release.
    #[error("snapshot has format {found}, this release reads up to {VERSION}")]
    NewerFormat {
        /// The version it says.
        found: u16,
    },
    /// The stream could not be read or written.
    #[error("snapshot stream failed: {0}")]
    Io(#[from] io::Error),
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with a damaged snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first bytes are not a snapshot's.
    #[error("not a snapshot")]
    Magic,
    /// The stream ends inside a frame or before the end frame.
    #[error("it ends too early")]
    Truncated,
    /// The bytes are not those that were written.
    #[error("checksum mismatch")]
    Checksum,
    /// A length beyond what a frame may hold.
    #[error("a length out of range")]
    Length,
    /// A frame kind this format does not have.
    #[error("an unknown frame kind")]
    Kind,
    /// A table name that is not one.
    #[error("an invalid table name")]
    TableName,
    /// Tables or keys out of order, or a row before its table.
    #[error("frames out of order")]
    Order,
    /// The end frame counts other than what came before it.
    #[error("counts that do not add up")]
    Counts,
}

/// Writes all tables of a store. The caller flushes `out` and makes it durable.
///
/// ```
/// use dunlin_storage::{Batch, Store, TableId, memory::Memory, snapshot};
/// static T: TableId = TableId::fixed("t");
/// let mut store = Memory::new();
/// let mut batch = Batch::new();
/// batch.put(&T, "key", "value");
/// store.write(batch)?;
/// let mut archive = Vec::new();
/// snapshot::write(&store, &mut archive)?;
///
/// let mut copy = Memory::new();
/// let summary = snapshot::restore(&mut copy, archive.as_slice())?;
/// assert_eq!((summary.tables, summary.rows), (1, 1));
/// assert_eq!(copy.get(&T, b"key")?.as_deref(), Some(&b"value"[..]));
/// # Ok::<(), snapshot::SnapshotError>(())
/// ```
pub fn write(store: &dyn Store, out: &mut dyn Write) -> Result<Summary, SnapshotError> {
    let mut out = FrameWriter {
        out,
        crc: crc32fast::Hasher::new(),
    };
    out.header()?;
    let mut summary = Summary::default();
    for table in store.tables()? {
        if table.as_str().starts_with(STAGING_PREFIX) {
            continue;
        }
        out.frame(KIND_TABLE, &[table.as_str().as_bytes()])?;
        summary.tables += 1;
        summary.rows += write_rows(store, &table, &mut out)?;
    }
    out.frame(
        KIND_END,
        &[&summary.tables.to_le_bytes(), &summary.rows.to_le_bytes()],
    )?;
    Ok(summary)
}

/// Replaces everything in a store by a snapshot: afterwards it holds exactly the snapshot's tables.
///
/// Rows are staged beside the present tables and swapped in with one atomic batch after the last
/// frame was checked. On any error, and after a crash at any point, the store holds either all of
/// what it held before or all of the snapshot (and, after a crash, staged rows, which the next
/// restore removes).
pub fn restore(store: &mut dyn Store, input: impl Read) -> Result<Summary, SnapshotError> {
    clear_staging(store)?;
    let result = stage(store, input);
    if result.is_err() {
        // The first error is the one to report; staging left behind is removed by the next restore.
        let _ = clear_staging(store);
    }
    let (summary, staged) = result?;
    let mut swap = Batch::new();
    for table in store.tables()? {
        if !table.as_str().starts_with(STAGING_PREFIX) {
            swap.clear(&table);
        }
    }
    for (index, table) in staged.iter().enumerate() {
        swap.rename(&staging_table(index)?, table);
    }
    store.write(swap)?;
    store.sync()?;
    Ok(summary)
}

/// Reads a snapshot row by row, in table and key order. Each row is checked before it is returned,
/// but only a reader that came to its end ([`Reader::next_row`] returned `None`) has seen a whole
/// snapshot. Reads no byte beyond the end frame.
pub struct Reader<R> {
    input: FrameReader<R>,
    table: Option<TableId>,
    last_key: Option<Bytes>,
    summary: Summary,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads and checks the header. Many small reads follow: give it a buffered stream.
    pub fn new(input: R) -> Result<Self, SnapshotError> {
        let mut input = FrameReader {
            input,
            crc: crc32fast::Hasher::new(),
            offset: 0,
            frame_at: 0,
        };
        input.header()?;
        Ok(Self {
            input,
            table: None,
            last_key: None,
            summary: Summary::default(),
            ended: false,
        })
    }

    /// The next row, or `None` at the end of a whole and undamaged snapshot.
    pub fn next_row(&mut self) -> Result<Option<Row>, SnapshotError> {
        while !self.ended {
            let (kind, payload) = self.input.frame()?;
            match kind {
                KIND_TABLE => self.start_table(&payload)?,
                KIND_ROW => return self.row(&payload).map(Some),
                KIND_END => self.end(&payload)?,
                _ => return Err(self.input.damaged(Fault::Kind)),
            }
        }
        Ok(None)
    }

    /// What was read so far; complete once [`next_row`](Self::next_row) returned `None`.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    fn start_table(&mut self, payload: &Bytes) -> Result<(), SnapshotError> {
        let table = std::str::from_utf8(payload)
            .ok()
            .and_then(|name| TableId::new(name.to_owned()).ok())
            .ok_or_else(|| self.input.damaged(Fault::TableName))?;
        if self.table.as_ref().is_some_and(|last| *last >= table) {
            return Err(self.input.damaged(Fault::Order));
        }
        self.table = Some(table);
        self.last_key = None;
        self.summary.tables += 1;
        Ok(())
    }

    fn row(&mut self, payload: &Bytes) -> Result<Row, SnapshotError> {
        let Some(table) = self.table.clone() else {
            return Err(self.input.damaged(Fault::Order));
        };
        let (key_bytes, rest) = payload
            .split_first_chunk::<4>()
            .ok_or_else(|| self.input.damaged(Fault::Length))?;
        let key_bytes = u32::from_le_bytes(*key_bytes) as usize;
        let value_bytes = rest
            .len()
            .checked_sub(key_bytes)
            .ok_or_else(|| self.input.damaged(Fault::Length))?;
        if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err(self.input.damaged(Fault::Length));
        }
        let key = payload.slice(4..4 + key_bytes);
        let value = payload.slice(4 + key_bytes..);
        if self.last_key.as_ref().is_some_and(|last| *last >= key) {
            return Err(self.input.damaged(Fault::Order));
        }
        self.last_key = Some(key.clone());
        self.summary.rows += 1;
        Ok(Row { table, key, value })
    }

    fn end(&mut self, payload: &Bytes) -> Result<(), SnapshotError> {
        let counted = [
            self.summary.tables.to_le_bytes(),
            self.summary.rows.to_le_bytes(),
        ]
        .concat();
        if *payload != counted {
            return Err(self.input.damaged(Fault::Counts));
        }
        self.ended = true;
        Ok(())
    }
}

fn write_rows(
    store: &dyn Store,
    table: &TableId,
    out: &mut FrameWriter<'_>,
) -> Result<u64, SnapshotError> {
    let mut from = Vec::new();
    let mut count = 0;
    loop {
        let rows = store.scan(table, &from, SCAN_ROWS)?;
        for (key, value) in &rows {
            out.frame(KIND_ROW, &[&(key.len() as u32).to_le_bytes(), key, value])?;
        }
        count += rows.len() as u64;
        match rows.last() {
            Some((last, _)) if rows.len() == SCAN_ROWS => {
                // The smallest key after `last` is `last` with a zero byte behind it.
                from.clear();
                from.extend_from_slice(last);
                from.push(0);
            }
            _ => return Ok(count),
        }
    }
}

fn stage(
    store: &mut dyn Store,
    input: impl Read,
) -> Result<(Summary, Vec<TableId>), SnapshotError> {
    let mut reader = Reader::new(input)?;
    let mut staged: Vec<TableId> = Vec::new();
    let mut batch = Batch::new();
    let mut batch_bytes = 0;
    while let Some(row) = reader.next_row()? {
        if staged.last() != Some(&row.table) {
            staged.push(row.table);
        }
        batch.put(&staging_table(staged.len() - 1)?, row.key, row.value);
        batch_bytes += batch.ops.last().map_or(0, Op::bytes);
        if batch_bytes >= RESTORE_BATCH_BYTES {
            store.write(std::mem::take(&mut batch))?;
            store.sync()?;
            batch_bytes = 0;
        }
    }
    store.write(batch)?;
    Ok((reader.summary(), staged))
}

/// Numbered, not named after the table it stands for: a prefix could make the name too long.
fn staging_table(index: usize) -> Result<TableId, StoreError> {
    TableId::new(format!("{STAGING_PREFIX}{index}"))
}

fn clear_staging(store: &mut dyn Store) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for table in store.tables()? {
        if table.as_str().starts_with(STAGING_PREFIX) {
            batch.clear(&table);
        }
    }
    store.write(batch)
}

struct FrameWriter<'a> {
    out: &'a mut dyn Write,
    crc: crc32fast::Hasher,
}

impl FrameWriter<'_> {
    fn header(&mut self) -> Result<(), SnapshotError> {
        self.bytes(&MAGIC)?;
        self.bytes(&VERSION.to_le_bytes())?;
        self.checksum()
    }

    fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), SnapshotError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        assert!(
            length <= PAYLOAD_BYTES_MAX,
            "a store returned a row beyond its own limits"
        );
        self.bytes(&[kind])?;
        self.bytes(&(length as u32).to_le_bytes())?;
        for part in parts {
            self.bytes(part)?;
        }
        self.checksum()
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.crc.update(bytes);
        Ok(self.out.write_all(bytes)?)
    }

    fn checksum(&mut self) -> Result<(), SnapshotError> {
        let crc = self.crc.clone().finalize();
        Ok(self.out.write_all(&crc.to_le_bytes())?)
    }
}

struct FrameReader<R> {
    input: R,
    crc: crc32fast::Hasher,
    /// Bytes read so far.
    offset: u64,
    /// Where the frame being read starts; what errors name.
    frame_at: u64,
}

impl<R: Read> FrameReader<R> {
    fn header(&mut self) -> Result<(), SnapshotError> {
        let mut magic = [0; MAGIC.len()];
        self.exact(&mut magic)?;
        if magic != MAGIC {
            return Err(self.damaged(Fault::Magic));
        }
        let mut version = [0; 2];
        self.exact(&mut version)?;
        // Checked before the version is believed, so that a flipped bit is not called a newer
        // release. All versions keep magic, version and checksum as they are here.
        self.checksum()?;
        match u16::from_le_bytes(version) {
            0 => Err(self.damaged(Fault::Magic)),
            VERSION => Ok(()),
            found => Err(SnapshotError::NewerFormat { found }),
        }
    }

    fn frame(&mut self) -> Result<(u8, Bytes), SnapshotError> {
        self.frame_at = self.offset;
        let mut head = [0; HEAD_BYTES];
        self.exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        let length_max = match kind {
            KIND_TABLE => TABLE_NAME_BYTES_MAX,
            KIND_ROW => PAYLOAD_BYTES_MAX,
            KIND_END => END_BYTES,
            _ => return Err(self.damaged(Fault::Kind)),
        };
        if length > length_max {
            return Err(self.damaged(Fault::Length));
        }
        // Grows as bytes arrive, so a damaged length does not allocate what is not there.
        let mut payload = Vec::new();
        self.input
            .by_ref()
            .take(length as u64)
            .read_to_end(&mut payload)?;
        if payload.len() < length {
            return Err(self.damaged(Fault::Truncated));
        }
        self.offset += length as u64;
        self.crc.update(&payload);
        self.checksum()?;
        Ok((kind, payload.into()))
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), SnapshotError> {
        self.raw(buffer)?;
        self.crc.update(buffer);
        Ok(())
    }

    fn checksum(&mut self) -> Result<(), SnapshotError> {
        let mut stored = [0; 4];
        self.raw(&mut stored)?;
        if u32::from_le_bytes(stored) == self.crc.clone().finalize() {
            Ok(())
        } else {
            Err(self.damaged(Fault::Checksum))
        }
    }

    fn raw(&mut self, buffer: &mut [u8]) -> Result<(), SnapshotError> {
        self.input.read_exact(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                self.damaged(Fault::Truncated)
            } else {
                error.into()
            }
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }

    fn damaged(&self, fault: Fault) -> SnapshotError {
        SnapshotError::Damaged {
            offset: self.frame_at,
            fault,
        }
    }
}

#[cfg(test)]
mod tests;
