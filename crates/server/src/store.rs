//! The store thread: the only one that waits for the disk.
//!
//! Batches that arrive while the disk is busy are made durable together by the next sync, so a
//! burst costs two syncs, not one each. A disk that is full or failing is an alarm and is tried
//! again; clients do not wait for it longer than a few seconds. A batch that replaces tables (the
//! swap of a join) is never reported as failed while it may still become durable. This thread must
//! never panic over the disk.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dunlin_broker::alarm::details;
use dunlin_broker::control::ControlInput;
use dunlin_storage::{Batch, Op, Store, snapshot};

use crate::alarm::{Alarms, STORE_FAILED};
use crate::control_thread::ControlLetter;
use crate::inbox::Inbox;
use crate::time;

/// Pause between two tries of a failing disk.
const RETRY: Duration = Duration::from_secs(1);

/// How long the writers of single rows wait for a failing disk before they are told. A client
/// whose acknowledgement hangs on it would otherwise stand still for as long as the disk does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Archives kept in `data/backup`; each holds all users, keys and retained messages.
const ARCHIVES_MAX: usize = 10;

/// First part of an archive's name.
const ARCHIVE_PREFIX: &str = "cluster-state-";

enum Job {
    Batch { token: u64, batch: Batch },
    Archive { token: u64 },
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    stop: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

/// Where jobs for the store thread are put.
#[derive(Clone)]
pub(crate) struct StoreHandle(Arc<Shared>);

/// The store thread.
pub(crate) struct StoreThread {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl StoreThread {
    /// Starts the thread that owns `store`. Answers go to `control`.
    pub(crate) fn start(
        store: Box<dyn Store + Send>,
        backup: PathBuf,
        control: Arc<Inbox<ControlLetter>>,
        alarms: Arc<Alarms>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
        });
        let worker_shared = shared.clone();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let waiting = Vec::new();
                Worker {
                    store,
                    backup,
                    control,
                    alarms,
                    waiting,
                    failing_since: None,
                }
                .run(&worker_shared);
            })?;
        Ok(Self { shared, thread })
    }

    /// Where to put jobs.
    pub(crate) fn handle(&self) -> StoreHandle {
        StoreHandle(self.shared.clone())
    }

    /// Makes everything given so far durable, if the disk lets it, and ends the thread.
    pub(crate) fn stop(self) {
        lock(&self.shared.queue).stop = true;
        self.shared.filled.notify_one();
        if self.thread.join().is_err() {
            tracing::error!("store_thread_panicked");
        }
    }
}

impl StoreHandle {
    /// Has batches made durable, in order; each is answered with `Persisted`.
    pub(crate) fn persist(&self, batches: impl Iterator<Item = (u64, Batch)>) {
        self.put(batches.map(|(token, batch)| Job::Batch { token, batch }));
    }

    /// Has all tables archived; answered with `Archived`.
    pub(crate) fn archive(&self, token: u64) {
        self.put(std::iter::once(Job::Archive { token }));
    }

    fn put(&self, jobs: impl Iterator<Item = Job>) {
        let mut queue = lock(&self.0.queue);
        let before = queue.jobs.len();
        queue.jobs.extend(jobs);
        if queue.jobs.len() > before {
            self.0.filled.notify_one();
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    // Locked sections only move jobs; a poisoned queue is whole.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A batch that is written and not yet known to be durable.
struct Waiting {
    token: u64,
    replaces_tables: bool,
}

struct Worker {
    store: Box<dyn Store + Send>,
    backup: PathBuf,
    control: Arc<Inbox<ControlLetter>>,
    alarms: Arc<Alarms>,
    waiting: Vec<Waiting>,
    failing_since: Option<Instant>,
}

impl Worker {
    fn run(mut self, shared: &Shared) {
        loop {
            let (jobs, stop) = self.next_jobs(shared);
            for job in jobs {
                match job {
                    Job::Batch { token, batch } => self.write(token, batch),
                    Job::Archive { token } => {
                        self.sync();
                        let result = self.archive();
                        self.answer(ControlInput::Archived { token, result });
                    }
                }
            }
            self.sync();
            if stop {
                return;
            }
        }
    }

    /// Waits for jobs; while the disk fails, no longer than until the next try.
    fn next_jobs(&self, shared: &Shared) -> (Vec<Job>, bool) {
        let mut queue = lock(&shared.queue);
        while queue.jobs.is_empty() && !queue.stop {
            if self.failing_since.is_some() {
                let waited = shared.filled.wait_timeout(queue, RETRY);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                break;
            }
            queue = shared
                .filled
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        (std::mem::take(&mut queue.jobs), queue.stop)
    }

    /// Writes a batch; a batch that is refused changed nothing.
    fn write(&mut self, token: u64, batch: Batch) {
        let replaces = |op: &Op| matches!(op, Op::Clear { .. } | Op::Rename { .. });
        let replaces_tables = batch.ops.iter().any(replaces);
        match self.store.write(batch) {
            Ok(()) => self.waiting.push(Waiting {
                token,
                replaces_tables,
            }),
            Err(error) => {
                tracing::error!(reason = %error, "store_write_refused");
                self.answer(ControlInput::Persisted {
                    token,
                    result: Err(error.to_string()),
                });
            }
        }
    }

    fn sync(&mut self) {
        if self.waiting.is_empty() && self.failing_since.is_none() {
            return;
        }
        match self.store.sync() {
            Ok(()) => self.synced(),
            Err(error) => self.failed(&error.to_string(), error.is_disk_full()),
        }
    }

    fn synced(&mut self) {
        if self.failing_since.take().is_some() {
            tracing::warn!("store_recovered");
            self.alarms.deactivate(STORE_FAILED);
        }
        for Waiting { token, .. } in std::mem::take(&mut self.waiting) {
            self.answer(ControlInput::Persisted {
                token,
                result: Ok(()),
            });
        }
    }

    fn failed(&mut self, reason: &str, disk_full: bool) {
        let since = *self.failing_since.get_or_insert_with(|| {
            tracing::error!(reason, disk_full, "store_sync_failed");
            Instant::now()
        });
        let figures = details([("disk_full", u64::from(disk_full).into())]);
        self.alarms.activate(STORE_FAILED, figures, reason);
        if since.elapsed() < PATIENCE {
            return;
        }
        let told: Vec<u64> = self
            .waiting
            .extract_if(.., |w| !w.replaces_tables)
            .map(|w| w.token)
            .collect();
        for token in told {
            let result = Err(reason.to_owned());
            self.answer(ControlInput::Persisted { token, result });
        }
    }

    /// Writes all tables to a new file in `data/backup`; its path, or what went wrong.
    fn archive(&self) -> Result<String, String> {
        let path = self
            .backup
            .join(format!("{ARCHIVE_PREFIX}{}.snapshot", time::wall_ms()));
        let written = write_archive(self.store.as_ref(), &path);
        if let Err(error) = written {
            // Half an archive would only mislead.
            let _ = fs::remove_file(&path);
            return Err(format!("{}: {error}", path.display()));
        }
        if let Err(error) = remove_old_archives(&self.backup) {
            tracing::warn!(reason = %error, "old_archives_not_removed");
        }
        Ok(path.display().to_string())
    }

    fn answer(&self, input: ControlInput) {
        self.control.push(ControlLetter::Core(input));
    }
}

fn write_archive(store: &dyn Store, path: &Path) -> Result<(), snapshot::SnapshotError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut options = File::options();
    // It holds password hashes.
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.write(true).create_new(true).open(path)?;
    let mut out = BufWriter::new(file);
    snapshot::write(store, &mut out)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(())
}

/// Names begin with the time, so the oldest come first.
fn remove_old_archives(dir: &Path) -> io::Result<()> {
    let mut archives = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with(ARCHIVE_PREFIX) {
            archives.push(path);
        }
    }
    archives.sort();
    let surplus = archives.len().saturating_sub(ARCHIVES_MAX);
    archives.iter().take(surplus).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Actions;
    use bytes::Bytes;
    use dunlin_broker::alarm::Limits;
    use dunlin_storage::memory::{CrashKeep, Memory};
    use dunlin_storage::{StoreError, TableId};
    use std::future::poll_fn;

    const TABLE: TableId = TableId::fixed("t");

    /// A store that the test can look at while the thread owns it.
    #[derive(Clone, Default)]
    struct Watched(Arc<Mutex<Memory>>);

    impl Watched {
        fn with<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
            look(&mut self.0.lock().expect("no test panics while it looks"))
        }
    }

    impl Store for Watched {
        fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
            self.with(|store| store.write(batch))
        }
        fn sync(&mut self) -> Result<(), StoreError> {
            self.with(Memory::sync)
        }
        fn get(&self, table: &TableId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.with(|store| store.get(table, key))
        }
        fn scan(
            &self,
            table: &TableId,
            from: &[u8],
            limit: usize,
        ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
            self.with(|store| store.scan(table, from, limit))
        }
        fn tables(&self) -> Result<Vec<TableId>, StoreError> {
            self.with(|store| store.tables())
        }
    }

    struct World {
        store: Watched,
        control: Arc<Inbox<ControlLetter>>,
        alarms: Arc<Alarms>,
        thread: StoreThread,
        dir: tempfile::TempDir,
    }

    fn world() -> World {
        let store = Watched::default();
        let control = Arc::new(Inbox::new());
        let actions = Actions::new(&[]);
        let alarms = Alarms::new("a@h", actions, Limits::default(), control.clone());
        let alarms = Arc::new(alarms);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let thread = StoreThread::start(
            Box::new(store.clone()),
            dir.path().to_owned(),
            control.clone(),
            alarms.clone(),
        );
        World {
            store,
            control,
            alarms,
            thread: thread.expect("a thread"),
            dir,
        }
    }

    fn row(key: &'static str) -> Batch {
        let mut batch = Batch::new();
        batch.put(&TABLE, key, "value");
        batch
    }

    async fn answers(world: &World, count: usize) -> Vec<ControlInput> {
        let mut inputs = Vec::new();
        let mut letters = Vec::new();
        while inputs.len() < count {
            poll_fn(|cx| world.control.poll_take(cx, &mut letters)).await;
            inputs.extend(letters.drain(..).map(|letter| match letter {
                ControlLetter::Core(input) => input,
                ControlLetter::Ask(_) => panic!("the store asks nothing"),
            }));
        }
        inputs
    }

    #[tokio::test]
    async fn what_is_answered_survives_a_crash() {
        let world = world();
        world
            .thread
            .handle()
            .persist([(1, row("a")), (2, row("b"))].into_iter());
        let answers = answers(&world, 2).await;
        let done =
            |input: &ControlInput| matches!(input, ControlInput::Persisted { result: Ok(()), .. });
        assert!(answers.iter().all(done), "{answers:?}");
        world.store.with(|store| store.crash(CrashKeep::Nothing));
        let there = |key: &str| {
            world
                .store
                .get(&TABLE, key.as_bytes())
                .expect("memory")
                .is_some()
        };
        assert!(there("a") && there("b"));
    }

    #[tokio::test]
    async fn a_failing_disk_is_an_alarm_and_is_tried_again() {
        let world = world();
        world.store.with(|store| store.fail_syncs_after(0));
        world.thread.handle().persist([(1, row("a"))].into_iter());
        world.alarms.raised(STORE_FAILED).await;
        world.store.with(Memory::heal_syncs);
        let answers = answers(&world, 1).await;
        assert!(matches!(
            answers[..],
            [ControlInput::Persisted {
                token: 1,
                result: Ok(())
            }]
        ));
        assert!(world.alarms.list(true).is_empty());
    }

    #[tokio::test]
    async fn an_archive_can_be_restored_and_old_ones_go() {
        let world = world();
        for number in 0..ARCHIVES_MAX {
            let name = format!("{ARCHIVE_PREFIX}{number:013}.snapshot");
            fs::write(world.dir.path().join(name), "old").expect("writable");
        }
        world.thread.handle().persist([(1, row("a"))].into_iter());
        world.thread.handle().archive(2);
        let answers = answers(&world, 2).await;
        let Some(ControlInput::Archived {
            token: 2,
            result: Ok(path),
        }) = answers.last()
        else {
            panic!("{answers:?}");
        };
        let mut copy = Memory::new();
        let archive = File::open(path).expect("the path is right");
        snapshot::restore(&mut copy, archive).expect("it is whole");
        assert!(copy.get(&TABLE, b"a").expect("memory").is_some());
        let left = fs::read_dir(world.dir.path()).expect("readable").count();
        assert_eq!(left, ARCHIVES_MAX);
    }

    #[tokio::test]
    async fn stopping_makes_everything_durable() {
        let World { store, thread, .. } = world();
        thread.handle().persist([(1, row("a"))].into_iter());
        thread.stop();
        store.with(|store| store.crash(CrashKeep::Nothing));
        assert!(store.get(&TABLE, b"a").expect("memory").is_some());
    }
}
