use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use redb::StorageBackend;

use super::*;

static A: TableId = TableId::fixed("a");
static B: TableId = TableId::fixed("b");
static C: TableId = TableId::fixed("c");

/// A device that fails: it takes so many more writes, growths and flushes, then refuses some or
/// all.
#[derive(Clone, Debug)]
struct Device {
    left: Arc<AtomicI64>,
    failures_left: Arc<AtomicI64>,
    flushes: Arc<AtomicI64>,
}

impl Device {
    /// Enough for everything a test does.
    const HEALTHY: i64 = i64::MAX;

    fn new() -> Self {
        Self {
            left: Arc::new(AtomicI64::new(Self::HEALTHY)),
            failures_left: Arc::new(AtomicI64::new(i64::MAX)),
            flushes: Arc::new(AtomicI64::new(0)),
        }
    }

    fn fail_after(&self, operations: i64) {
        self.left.store(operations, Ordering::SeqCst);
    }

    fn fail_once_after(&self, operations: i64) {
        self.failures_left.store(1, Ordering::SeqCst);
        self.fail_after(operations);
    }

    fn flushes(&self) -> i64 {
        self.flushes.load(Ordering::SeqCst)
    }

    fn take(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0
            || self.failures_left.fetch_sub(1, Ordering::SeqCst) <= 0
        {
            return Ok(());
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    fn opener(&self) -> Opener {
        let device = self.clone();
        Box::new(move |path, create| {
            let file = FileBackend::new(private_file(path, create)?)?;
            let backend = DeviceFile {
                device: device.clone(),
                file,
            };
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(backend)
        })
    }
}

#[derive(Debug)]
struct DeviceFile {
    device: Device,
    file: FileBackend,
}

impl StorageBackend for DeviceFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.device.take()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.device.take()?;
        self.device.flushes.fetch_add(1, Ordering::SeqCst);
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.device.take()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn put(store: &mut Engine, table: &TableId, key: &str, value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(table, key.to_owned(), value.to_vec());
    store.write(batch).expect("a valid batch");
}

type Rows = Vec<(TableId, Bytes, Bytes)>;

fn rows(store: &Engine) -> Rows {
    let mut rows = Rows::new();
    for table in store.tables().expect("a healthy store reads") {
        for (key, value) in store
            .scan(&table, b"", usize::MAX)
            .expect("a healthy store reads")
        {
            rows.push((table.clone(), key, value));
        }
    }
    rows
}

/// What is in the file if the process dies here.
fn rows_after_kill(dir: &Path) -> Rows {
    let copy = self::dir();
    fs::copy(dir.join(FILE_NAME), copy.path().join(FILE_NAME)).expect("a copy");
    rows(&Engine::open(copy.path()).expect("what a kill leaves opens"))
}

/// An engine with two synced tables and an unsynced swap of them, which must not happen twice.
fn engine_before_a_swap(dir: &Path, device: &Device) -> (Engine, Rows, Rows) {
    let mut engine = Engine::open_with(dir, device.opener()).expect("opens");
    put(&mut engine, &A, "1", b"from a");
    put(&mut engine, &B, "2", b"from b");
    engine.sync().expect("healthy");
    let before = rows(&engine);
    let mut batch = Batch::new();
    batch.rename(&A, &C);
    batch.rename(&B, &A);
    batch.rename(&C, &B);
    batch.put(&B, "3", vec![7; 50_000]);
    engine.write(batch).expect("a valid batch");
    let after = rows(&engine);
    (engine, before, after)
}

#[test]
fn a_sync_that_fails_anywhere_can_be_repeated() {
    for operations in 0.. {
        let (dir, device) = (dir(), Device::new());
        let (mut engine, before, after) = engine_before_a_swap(dir.path(), &device);
        device.fail_after(operations);
        let result = engine.sync();
        device.fail_after(Device::HEALTHY);
        let Err(error) = result else {
            assert!(operations > 4, "a sync takes several operations");
            assert_eq!(rows_after_kill(dir.path()), after);
            return;
        };
        assert!(error.is_disk_full(), "{error:?} after {operations}");
        let on_disk = rows_after_kill(dir.path());
        assert!(
            on_disk == before || on_disk == after,
            "torn after {operations}: {on_disk:?}"
        );
        engine.sync().expect("healthy again");
        assert_eq!(rows(&engine), after, "after {operations}");
        assert_eq!(rows_after_kill(dir.path()), after, "after {operations}");
        put(&mut engine, &C, "4", b"goes on");
        engine.sync().expect("healthy");
        drop(engine);
        let engine = Engine::open(dir.path()).expect("opens");
        assert_eq!(
            engine.get(&C, b"4").expect("reads").as_deref(),
            Some(&b"goes on"[..])
        );
    }
}

#[test]
fn a_sync_after_a_failed_one_flushes_even_if_the_commit_had_arrived() {
    for operations in 0.. {
        let (dir, device) = (dir(), Device::new());
        let (mut engine, _, after) = engine_before_a_swap(dir.path(), &device);
        device.fail_once_after(operations);
        if engine.sync().is_ok() {
            assert!(operations > 4, "a sync takes several operations");
            return;
        }
        // The file was opened again at once, and may hold the commit whose flush failed.
        assert_eq!(rows(&engine), after, "after {operations}");
        let flushes = device.flushes();
        engine.sync().expect("it failed only once");
        assert!(device.flushes() > flushes, "after {operations}");
        assert_eq!(rows_after_kill(dir.path()), after, "after {operations}");
    }
}

#[test]
fn a_full_disk_keeps_what_was_written_through_many_attempts() {
    let (dir, device) = (dir(), Device::new());
    let (mut engine, _, after) = engine_before_a_swap(dir.path(), &device);
    for operations in [0, 1, 2, 0, 3, 5, 0] {
        device.fail_after(operations);
        engine.sync().expect_err("the disk is full");
    }
    device.fail_after(Device::HEALTHY);
    engine.sync().expect("there is room again");
    assert_eq!(rows(&engine), after);
    assert_eq!(rows_after_kill(dir.path()), after);
}

#[test]
fn a_file_that_cannot_be_opened_again_is_closed_until_it_can() {
    let (dir, device) = (dir(), Device::new());
    let (mut engine, _, after) = engine_before_a_swap(dir.path(), &device);
    let (path, aside) = (dir.path().join(FILE_NAME), dir.path().join("aside"));
    fs::rename(&path, &aside).expect("renames");
    device.fail_after(0);
    assert!(engine.sync().expect_err("the disk is full").is_disk_full());
    device.fail_after(Device::HEALTHY);
    // Rows written since the last sync are still known; rows of the file are not.
    assert_eq!(
        engine
            .get(&B, b"3")
            .expect("unsynced")
            .map(|value| value.len()),
        Some(50_000)
    );
    assert!(matches!(
        engine.get(&B, b"1"),
        Err(StoreError::Closed { .. })
    ));
    assert!(matches!(engine.tables(), Err(StoreError::Closed { .. })));
    engine.sync().expect_err("still gone");
    fs::rename(&aside, &path).expect("renames");
    engine.sync().expect("it is back");
    assert_eq!(rows(&engine), after);
    assert_eq!(rows_after_kill(dir.path()), after);
}

#[test]
fn a_first_start_that_fails_anywhere_can_be_repeated() {
    for operations in 0.. {
        let (dir, device) = (dir(), Device::new());
        device.fail_after(operations);
        let failed = match Engine::open_with(dir.path(), device.opener()) {
            Ok(engine) => {
                drop(engine);
                false
            }
            Err(error) => {
                assert!(error.is_disk_full(), "{error:?} after {operations}");
                true
            }
        };
        device.fail_after(Device::HEALTHY);
        let mut engine = Engine::open_with(dir.path(), device.opener()).expect("opens");
        put(&mut engine, &A, "1", b"v");
        engine.sync().expect("healthy");
        if !failed {
            assert!(operations > 4, "creating a file takes several operations");
            return;
        }
    }
}

#[test]
fn a_second_engine_is_refused_and_the_first_goes_on() {
    let dir = dir();
    let mut first = Engine::open(dir.path()).expect("opens");
    put(&mut first, &A, "1", b"v");
    let error = Engine::open(dir.path()).err().expect("in use");
    assert!(
        matches!(&error, StoreError::InUse { path } if path == dir.path()),
        "{error:?}"
    );
    first.sync().expect("healthy");
    drop(first);
    assert_eq!(
        rows(&Engine::open(dir.path()).expect("free again")).len(),
        1
    );
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = dir();
    let path = dir.path().join(FILE_NAME);
    drop(Engine::open(dir.path()).expect("opens"));
    let database = open_file(&path, Create::No).expect("opens");
    write_format(&database, VERSION + 1).expect("writes");
    drop(database);
    for _ in 0..2 {
        let error = Engine::open(dir.path()).err().expect("newer");
        assert!(
            matches!(error, StoreError::NewerFormat { found, supported, .. }
                if found == VERSION + 1 && supported == VERSION)
        );
    }
    let database = open_file(&path, Create::No).expect("opens");
    write_format(&database, VERSION).expect("writes");
    drop(database);
    Engine::open(dir.path()).expect("the same file in a format we know");
}

#[test]
fn a_file_that_is_not_ours_is_refused() {
    for content in [&b"not a table file"[..], &[0; 10_000], b""] {
        let dir = dir();
        fs::write(dir.path().join(FILE_NAME), content).expect("writes");
        let error = Engine::open(dir.path()).err().expect("damaged");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    }
}

#[test]
fn half_a_file_of_a_crashed_first_start_is_replaced() {
    let dir = dir();
    fs::write(dir.path().join(NEW_FILE_NAME), b"half").expect("writes");
    let engine = Engine::open(dir.path()).expect("opens");
    assert_eq!(rows(&engine), []);
    assert!(!dir.path().join(NEW_FILE_NAME).exists());
}

#[test]
fn unsynced_bytes_are_bounded_by_syncing_first() {
    let dir = dir();
    let mut engine = Engine::open(dir.path()).expect("opens");
    put(&mut engine, &A, "1", b"small");
    assert_eq!(rows_after_kill(dir.path()), []);
    put(&mut engine, &A, "2", &vec![0; UNSYNCED_BYTES_MAX]);
    assert_eq!(rows_after_kill(dir.path()).len(), 1, "the first batch only");
    assert_eq!(rows(&engine).len(), 2);
}

#[test]
fn a_file_beyond_the_quick_repair_size_recovers_too() {
    let dir = dir();
    let mut engine = Engine::open(dir.path()).expect("opens");
    let value = vec![1; 1024 * 1024];
    for index in 0..QUICK_REPAIR_FILE_BYTES / (1024 * 1024) + 2 {
        put(&mut engine, &A, &format!("{index:03}"), &value);
    }
    engine.sync().expect("healthy");
    put(&mut engine, &A, "last", b"v");
    engine.sync().expect("healthy");
    let file = fs::metadata(dir.path().join(FILE_NAME)).expect("is there");
    assert!(file.len() > QUICK_REPAIR_FILE_BYTES);
    assert_eq!(rows_after_kill(dir.path()), rows(&engine));
}

#[cfg(unix)]
#[test]
fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = dir();
    let _engine = Engine::open(&dir.path().join("deep/er")).expect("creates directories");
    let file = fs::metadata(dir.path().join("deep/er").join(FILE_NAME)).expect("is there");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}
