//! Measures the engine: group commits by size, reads, opening after a stop and after a crash,
//! memory.
//!
//! `cargo run --release -p dunlin-storage --example group_commit [directory]`; without a directory
//! it uses the system's temporary one, which may be a memory disk whose flushes cost nothing.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_storage::engine::{Engine, FILE_NAME};
use dunlin_storage::{Batch, Store, TableId};

static TABLE: TableId = TableId::fixed("messages");

/// Records written for every group size, so that files are of one size.
const RECORDS: u64 = 20_000;
/// Bytes of a value: a small MQTT message.
const VALUE_BYTES: usize = 200;
/// Rows read one by one.
const READS: u64 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = match std::env::args_os().nth(1) {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let mut out = io::stdout().lock();
    idle(&dir.path().join("idle"), &mut out)?;
    writeln!(out, "group  syncs  p50_us  p99_us  us_per_record")?;
    for group in [1, 10, 100, 1000] {
        let mut times = commits(&dir.path().join(group.to_string()), group)?;
        let total: Duration = times.iter().sum();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
        let records = times.len() as f64 * group as f64;
        let per_record = total.as_secs_f64() * 1e6 / records;
        let (p50, p99) = (at(50), at(99));
        writeln!(
            out,
            "{group:5}  {:5}  {p50:6}  {p99:6}  {per_record:13.1}",
            times.len()
        )?;
    }
    reads(&dir.path().join("1000"), &mut out)?;
    opens(dir.path(), &mut out)?;
    Ok(())
}

/// What an engine with little to do adds to a fresh process.
fn idle(dir: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let before = resident_kib()?;
    let mut engine = Engine::open(dir)?;
    for number in 0..100 {
        engine.write(record(number))?;
        engine.sync()?;
    }
    writeln!(
        out,
        "idle engine: {} KiB resident",
        resident_kib()? - before
    )?;
    Ok(())
}

/// The time of each group: its writes and the sync.
fn commits(dir: &Path, group: u64) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut engine = Engine::open(dir)?;
    let syncs = (RECORDS / group).min(2_000);
    let mut times = Vec::new();
    let mut number = 0;
    for _ in 0..syncs {
        let start = Instant::now();
        for _ in 0..group {
            engine.write(record(number))?;
            number += 1;
        }
        engine.sync()?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn record(number: u64) -> Batch {
    let mut batch = Batch::new();
    // Spread over the key space, as rows of many sessions are.
    batch.put(&TABLE, key(number), vec![number as u8; VALUE_BYTES]);
    batch
}

fn key(number: u64) -> Vec<u8> {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [spread.to_be_bytes(), number.to_be_bytes()].concat()
}

fn reads(dir: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(dir)?;
    let start = Instant::now();
    for number in 0..READS {
        engine
            .get(&TABLE, &key(number))?
            .ok_or("a row is missing")?;
    }
    let get = start.elapsed().as_secs_f64() * 1e6 / READS as f64;
    let start = Instant::now();
    let rows = engine.scan(&TABLE, b"", usize::MAX)?.len();
    let scan = start.elapsed().as_secs_f64() * 1e6 / rows as f64;
    writeln!(out, "get {get:.2} us, scan {scan:.2} us per row of {rows}")?;
    Ok(())
}

/// Opening a fresh directory, and files of several sizes after a stop and after a crash.
fn opens(dir: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    writeln!(
        out,
        "opening a new directory {:.1} ms",
        open_ms(&dir.join("new"))?
    )?;
    writeln!(out, "file_mib  clean_open_ms  crash_open_ms  one_commit_us")?;
    for megabytes in [1, 8, 24, 64, 256_u64] {
        let (live, crashed) = (dir.join("live"), dir.join("crashed"));
        fs::create_dir_all(&crashed)?;
        let mut engine = Engine::open(&live)?;
        for number in 0..megabytes * 1_000_000 / (VALUE_BYTES as u64 + 16) {
            engine.write(record(number))?;
        }
        engine.sync()?;
        let mut times = Vec::new();
        for number in 0..50 {
            engine.write(record(number))?;
            let start = Instant::now();
            engine.sync()?;
            times.push(start.elapsed().as_micros());
        }
        times.sort_unstable();
        let bytes = fs::copy(live.join(FILE_NAME), crashed.join(FILE_NAME))?;
        // Or opening would be charged for flushing the copy.
        fs::File::open(crashed.join(FILE_NAME))?.sync_all()?;
        drop(engine);
        let (clean, crash) = (open_ms(&live)?, open_ms(&crashed)?);
        let commit = times[times.len() / 2];
        let size = bytes / (1024 * 1024);
        writeln!(out, "{size:8}  {clean:13.1}  {crash:13.1}  {commit:13}")?;
        fs::remove_dir_all(&live)?;
        fs::remove_dir_all(&crashed)?;
    }
    Ok(())
}

fn open_ms(dir: &Path) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let engine = Engine::open(dir)?;
    let elapsed = start.elapsed();
    drop(engine);
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// Memory of this process, as Linux counts it; 0 elsewhere.
fn resident_kib() -> Result<u64, Box<dyn Error>> {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return Ok(0);
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .map_or(Ok(0), |n| n.trim().parse())?)
}
