//! The real store: one redb file per data directory.
//!
//! redb is a copy-on-write B-tree with checksums and no log: a commit is one transaction that is
//! there or is not. Writes collect in memory, where reads see them; a sync applies all of them in
//! one transaction, so a group of batches costs one flush to the device. The file is drawn in
//! `docs/disk.md`. This module must never leave a file that it refuses to open again, and never
//! apply a sync twice.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{
    Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata,
    TableDefinition, TableError, TableHandle, WriteTransaction, backends::FileBackend,
};

use crate::overlay::{Overlay, View};
use crate::store::{Batch, Store, StoreError, TableId};

/// The newest file format; an engine opens this one and all before it.
pub const VERSION: u32 = 1;

/// The file in the data directory that holds all tables.
pub const FILE_NAME: &str = "tables.redb";

/// A file under construction; it takes [`FILE_NAME`] when it is complete, so that a crash during
/// the first start never leaves half a file under that name.
const NEW_FILE_NAME: &str = "tables.redb.new";

/// Locked while an engine is open. Not the table file itself, because two first starts at once must
/// be kept apart before it exists.
const LOCK_FILE_NAME: &str = "lock";

/// redb's page cache, in bytes. A node may use 15 MB when idle, and the tables that are read often
/// are held by their owners anyway; 4 MiB keep the upper levels of the trees.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Unsynced bytes (as counted by [`Batch::bytes`]) above which a write syncs first. Bounds memory
/// when nobody syncs, as while a large cluster is joined; far above what a group commit gathers.
const UNSYNCED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// File size in bytes above which commits also store the allocator state. Without it the first
/// open after a crash reads the whole file (11 ms at this size and 360 ms at 544 MiB, from the page
/// cache; several times that from a device); with it that open takes 1 ms, but a commit flushes
/// twice.
const QUICK_REPAIR_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// The engine's own table. `#` is not allowed in a [`TableId`].
const ENGINE_TABLE: Definition<'static> = TableDefinition::new("#engine");
/// Row of [`ENGINE_TABLE`]: the format, a little-endian `u32`.
const FORMAT_KEY: &[u8] = b"format";
/// Row of [`ENGINE_TABLE`]: the number of the last sync, a little-endian `u64`.
const SYNC_KEY: &[u8] = b"sync";

/// Where tables rest during a sync that renames, so that two may swap names.
const MOVING_PREFIX: &str = "#moving/";

type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;
type Opener = Box<dyn Fn(&Path, Create) -> Result<Database, DatabaseError> + Send + Sync>;

/// Whether a file may come into being by being opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Create {
    Yes,
    No,
}

/// A [`Store`] on disk. Dropping it without a [`Store::sync`] forgets what is unsynced.
///
/// All calls block on the disk; it has one owner, who decides on which thread.
pub struct Engine {
    path: PathBuf,
    opener: Opener,
    /// `None` after a failed sync, if opening the file again failed too; the next sync tries again.
    database: Option<Database>,
    overlay: Overlay,
    /// The number of the last sync known to be in the file.
    synced: u64,
    /// True if the last sync failed: the next one has to flush even if there is nothing to apply.
    unsettled: bool,
    /// Held open for its lock, which the operating system releases with it.
    _lock: File,
}

impl Engine {
    /// Opens the tables in a data directory and creates what is missing. After a crash the file is
    /// brought back to its last sync first.
    ///
    /// [`StoreError::InUse`] if another engine has it open, [`StoreError::NewerFormat`] if a newer
    /// release wrote it; neither touches the file.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Box::new(open_file))
    }

    fn open_with(dir: &Path, opener: Opener) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|source| io_error(dir, source))?;
        let lock = lock_dir(dir)?;
        let path = dir.join(FILE_NAME);
        if !path
            .try_exists()
            .map_err(|source| io_error(&path, source))?
        {
            create_file(dir, &path, &opener)?;
        }
        let database = opener(&path, Create::No).map_err(|error| open_error(&path, error))?;
        let synced = read_sync_number(&path, &database)?;
        Ok(Self {
            path,
            opener,
            database: Some(database),
            overlay: Overlay::default(),
            synced,
            unsettled: false,
            _lock: lock,
        })
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_ref().ok_or_else(|| StoreError::Closed {
            path: self.path.clone(),
        })
    }

    /// Opens the file again after a failure, because redb refuses all work after an I/O error.
    ///
    /// A commit whose flush failed may be in the file or not, and applying it a second time would
    /// repeat its renames; the sync number in the file tells which.
    fn reopen(&mut self) -> Result<(), StoreError> {
        // The old handle has to let go of the file before a new one may take it.
        self.database = None;
        let database =
            (self.opener)(&self.path, Create::No).map_err(|e| open_error(&self.path, e))?;
        let found = read_sync_number(&self.path, &database)?;
        assert!(
            found == self.synced || found == self.synced + 1,
            "the table file changed under the engine: sync {found} found after {}",
            self.synced
        );
        if found != self.synced {
            self.overlay.clear();
            self.synced = found;
        }
        self.database = Some(database);
        Ok(())
    }

    fn commit(&self) -> Result<(), redb::Error> {
        let Some(database) = &self.database else {
            return Err(redb::Error::DatabaseClosed);
        };
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let file_bytes = fs::metadata(&self.path).map_or(0, |meta| meta.len());
        transaction.set_quick_repair(file_bytes > QUICK_REPAIR_FILE_BYTES);
        apply_names(&transaction, &self.overlay)?;
        for (table, view) in self.overlay.views() {
            apply_rows(&transaction, table, view)?;
        }
        let number = (self.synced + 1).to_le_bytes();
        transaction
            .open_table(ENGINE_TABLE)?
            .insert(SYNC_KEY, number.as_slice())?;
        transaction.commit()?;
        Ok(())
    }

    /// The durable table a name shows: through a rename, itself, or nothing.
    fn base<'a>(&'a self, table: &'a TableId) -> Option<&'a TableId> {
        match self.overlay.view(table) {
            Some(view) => view.base.as_ref(),
            None => Some(table),
        }
    }

    fn open_base(&self, table: &TableId) -> Result<Option<ReadTable>, StoreError> {
        let database = self.database()?;
        self.base(table)
            .map_or(Ok(None), |base| open_for_reading(database, base.as_str()))
            .map_err(|error| engine_error(&self.path, error))
    }
}

impl Store for Engine {
    fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        let bytes = batch.check()?;
        if !self.overlay.is_empty() && self.overlay.bytes() + bytes > UNSYNCED_BYTES_MAX {
            self.sync()?;
        }
        for op in batch.ops {
            self.overlay.apply(op);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if self.database.is_none() {
            self.reopen()?;
        }
        if self.overlay.is_empty() && !self.unsettled {
            return Ok(());
        }
        match self.commit() {
            Ok(()) => {
                self.overlay.clear();
                self.synced += 1;
                self.unsettled = false;
                Ok(())
            }
            Err(error) => {
                self.unsettled = true;
                // The cause is what the caller must hear of. If opening fails as well, reads and
                // the next sync say so.
                let _ = self.reopen();
                Err(engine_error(&self.path, error))
            }
        }
    }

    fn get(&self, table: &TableId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(row) = self.overlay.view(table).and_then(|view| view.rows.get(key)) {
            return Ok(row.clone());
        }
        let Some(base) = self.open_base(table)? else {
            return Ok(None);
        };
        let value = base
            .get(key)
            .map_err(|error| engine_error(&self.path, error.into()))?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    fn scan(
        &self,
        table: &TableId,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let base = self.open_base(table)?;
        merge(base.as_ref(), self.overlay.view(table), from, limit)
            .map_err(|error| engine_error(&self.path, error))
    }

    fn tables(&self) -> Result<Vec<TableId>, StoreError> {
        let mut names =
            table_names(self.database()?).map_err(|error| engine_error(&self.path, error))?;
        names.retain(|name| self.overlay.view(name).is_none());
        for (name, _) in self.overlay.views() {
            if !self.scan(name, &[], 1)?.is_empty() {
                names.push(name.clone());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

fn lock_dir(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE_NAME);
    let file = private_file(&path, Create::Yes).map_err(|source| io_error(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io_error(&path, source)),
    }
}

/// Makes a complete file and gives it its name. The caller holds the directory's lock, so a file
/// under construction found here is the rest of a start that crashed.
fn create_file(dir: &Path, path: &Path, opener: &Opener) -> Result<(), StoreError> {
    let new_path = dir.join(NEW_FILE_NAME);
    match fs::remove_file(&new_path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(&new_path, source));
        }
        _ => {}
    }
    let database = opener(&new_path, Create::Yes).map_err(|e| open_error(&new_path, e))?;
    write_format(&database, VERSION).map_err(|error| engine_error(&new_path, error))?;
    drop(database);
    fs::rename(&new_path, path).map_err(|source| io_error(path, source))?;
    // The name is durable only with the directory, and that only with its parent.
    for dir in dir
        .ancestors()
        .take(2)
        .filter(|dir| !dir.as_os_str().is_empty())
    {
        File::open(dir)
            .and_then(|file| file.sync_all())
            .map_err(|source| io_error(dir, source))?;
    }
    Ok(())
}

fn write_format(database: &Database, version: u32) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ENGINE_TABLE)?;
        table.insert(FORMAT_KEY, version.to_le_bytes().as_slice())?;
        table.insert(SYNC_KEY, 0_u64.to_le_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

fn open_file(path: &Path, create: Create) -> Result<Database, DatabaseError> {
    let backend = FileBackend::new(private_file(path, create)?)?;
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backend)
}

/// Opens a file that only our own user may read: tables hold password hashes and messages.
fn private_file(path: &Path, create: Create) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .truncate(false)
        .create(create == Create::Yes);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Checks the format first: what else the file holds may be different in a newer one.
fn read_sync_number(path: &Path, database: &Database) -> Result<u64, StoreError> {
    let damaged = || StoreError::Damaged {
        path: path.to_owned(),
        source: None,
    };
    let read = |key| -> Result<Option<Vec<u8>>, redb::Error> {
        let Some(table) = open_for_reading(database, ENGINE_TABLE.name())? else {
            return Ok(None);
        };
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    };
    let read = |key| {
        read(key)
            .map_err(|e| engine_error(path, e))?
            .ok_or_else(damaged)
    };
    let format = u32::from_le_bytes(read(FORMAT_KEY)?.try_into().map_err(|_| damaged())?);
    match format {
        0 => Err(damaged()),
        1..=VERSION => Ok(u64::from_le_bytes(
            read(SYNC_KEY)?.try_into().map_err(|_| damaged())?,
        )),
        found => Err(StoreError::NewerFormat {
            path: path.to_owned(),
            found,
            supported: VERSION,
        }),
    }
}

type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

fn open_for_reading(database: &Database, name: &str) -> Result<Option<ReadTable>, redb::Error> {
    match database.begin_read()?.open_table(Definition::new(name)) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names of all durable tables; the engine's own are not valid as a [`TableId`].
fn table_names(database: &Database) -> Result<Vec<TableId>, redb::Error> {
    let transaction = database.begin_read()?;
    let handles = transaction.list_tables()?;
    Ok(handles
        .filter_map(|handle| TableId::new(handle.name().to_owned()).ok())
        .collect())
}

/// Durable rows and unsynced rows in one key order; an unsynced row hides a durable one.
fn merge(
    base: Option<&ReadTable>,
    view: Option<&View>,
    from: &[u8],
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, redb::Error> {
    let mut durable = base
        .map(|table| table.range(from..))
        .transpose()?
        .into_iter()
        .flatten();
    let mut unsynced = view
        .into_iter()
        .flat_map(|view| view.rows_from(from))
        .peekable();
    let mut rows = Vec::new();
    let mut next_durable = durable.next().transpose()?;
    while rows.len() < limit {
        let order = match (&next_durable, unsynced.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((durable, _)), Some((key, _))) => durable.value().cmp(key.as_ref()),
        };
        if order.is_le() {
            if let (true, Some((key, value))) = (order.is_lt(), &next_durable) {
                let copy = Bytes::copy_from_slice;
                rows.push((copy(key.value()), copy(value.value())));
            }
            next_durable = durable.next().transpose()?;
        }
        if order.is_ge()
            && let Some((key, Some(value))) = unsynced.next()
        {
            rows.push((key.clone(), value.clone()));
        }
    }
    Ok(rows)
}

/// Gives every durable table the name it has after this sync, and drops those that nothing shows.
fn apply_names(transaction: &WriteTransaction, overlay: &Overlay) -> Result<(), redb::Error> {
    let mut moving = Vec::new();
    for (table, view) in overlay.views() {
        if let Some(base) = view.base.as_ref().filter(|base| *base != table) {
            let resting = format!("{MOVING_PREFIX}{}", moving.len());
            match transaction
                .rename_table(Definition::new(base.as_str()), Definition::new(&resting))
            {
                Ok(()) => moving.push((resting, table)),
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    for (table, view) in overlay.views() {
        if view.base.as_ref() != Some(table) {
            transaction.delete_table(Definition::new(table.as_str()))?;
        }
    }
    for (resting, table) in &moving {
        transaction.rename_table(Definition::new(resting), Definition::new(table.as_str()))?;
    }
    Ok(())
}

fn apply_rows(
    transaction: &WriteTransaction,
    name: &TableId,
    view: &View,
) -> Result<(), redb::Error> {
    if view.rows.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(Definition::new(name.as_str()))?;
    for (key, value) in &view.rows {
        match value {
            Some(value) => drop(table.insert(key.as_ref(), value.as_ref())?),
            None => drop(table.remove(key.as_ref())?),
        }
    }
    // A table without rows does not exist; `tables` relies on it.
    if table.is_empty()? {
        transaction.delete_table(table)?;
    }
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        source,
    }
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        // How redb says that a file is too short or starts with other bytes than its own.
        DatabaseError::Storage(redb::StorageError::Io(source))
            if matches!(
                source.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Damaged {
                path: path.to_owned(),
                source: Some(Box::new(source)),
            }
        }
        error => engine_error(path, error.into()),
    }
}

fn engine_error(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) => StoreError::Io { path, source },
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path },
        redb::Error::Corrupted(_) => StoreError::Damaged {
            path,
            source: Some(Box::new(error)),
        },
        redb::Error::DatabaseClosed => StoreError::Closed { path },
        error => StoreError::Engine {
            path,
            source: Box::new(error),
        },
    }
}

#[cfg(test)]
mod tests;
