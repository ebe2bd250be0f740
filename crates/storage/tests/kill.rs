//! A process writes, syncs and reports; it is killed with SIGKILL; what it reported must be there.

use std::env;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use dunlin_storage::engine::Engine;
use dunlin_storage::{Batch, Store, TableId};

/// Set for the child: the data directory to write to.
const DIR_VARIABLE: &str = "DUNLIN_STORAGE_KILL_DIR";

/// Processes killed.
const ROUNDS: u64 = 50;

/// A child ends by itself after so many syncs, in case its parent is gone.
const CHILD_SYNCS_MAX: u64 = 100_000;

static LEFT: TableId = TableId::fixed("left");
static RIGHT: TableId = TableId::fixed("right");
static COUNTER: TableId = TableId::fixed("counter");
/// Where `RIGHT` goes and comes back from, so that kills also hit renames.
static PARKED: TableId = TableId::fixed("parked");

#[test]
fn a_killed_process_loses_nothing_synced_and_tears_nothing() {
    if let Some(dir) = env::var_os(DIR_VARIABLE) {
        write_until_killed(Path::new(&dir)).expect("the child writes until it is killed");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut reported = 0;
    for round in 0..ROUNDS {
        // 0 to 12 reports, in a fixed scatter: some kills hit the opening, most hit a sync.
        let reports = round * 7919 % 13;
        reported = kill_after(dir.path(), reports).unwrap_or(reported);
        let engine = Engine::open(dir.path()).expect("what a kill leaves opens");
        let last = check_whole(&engine);
        assert!(last >= reported, "{reported} was reported, {last} is there");
        reported = last;
    }
    assert!(reported > ROUNDS, "the children made progress");
}

/// Batch `n` puts row `n` on both sides and sets the counter; every third moves a side away or
/// back.
fn write_until_killed(dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut engine = Engine::open(dir)?;
    let mut out = io::stdout().lock();
    let mut number = counter(&engine);
    for sync in 0..CHILD_SYNCS_MAX {
        for _ in 0..=sync % 4 {
            number += 1;
            let parked = !engine.scan(&PARKED, b"", 1)?.is_empty();
            let mut batch = Batch::new();
            let row = vec![number as u8; (number % 600) as usize];
            batch.put(&LEFT, number.to_be_bytes().to_vec(), row.clone());
            batch.put(
                if parked { &PARKED } else { &RIGHT },
                number.to_be_bytes().to_vec(),
                row,
            );
            match (number % 3, parked) {
                (0, false) => batch.rename(&RIGHT, &PARKED),
                (0, true) => batch.rename(&PARKED, &RIGHT),
                _ => {}
            }
            batch.put(&COUNTER, "n", number.to_be_bytes().to_vec());
            engine.write(batch)?;
        }
        engine.sync()?;
        writeln!(out, "synced {number}")?;
        out.flush()?;
    }
    Ok(())
}

/// The last number a child reported, if it came to report any.
fn kill_after(dir: &Path, reports: u64) -> Option<u64> {
    let mut child = Command::new(env::current_exe().expect("a test has a path"))
        .args([
            "a_killed_process_loses_nothing_synced_and_tears_nothing",
            "--exact",
            "--nocapture",
        ])
        .env(DIR_VARIABLE, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let mut seen = 0;
    let mut last = None;
    // The harness prints lines of its own; the first of them stands for zero reports.
    for line in lines.by_ref() {
        last = number_in(&line.expect("the child prints text")).or(last);
        seen += u64::from(last.is_some());
        if seen >= reports {
            break;
        }
    }
    child.kill().expect("the child runs");
    let status = child.wait().expect("the child is ours");
    assert!(
        !status.success(),
        "the child was killed and did not end by itself"
    );
    // What it reported between the last line read and its death.
    for line in lines.map_while(Result::ok) {
        last = number_in(&line).or(last);
    }
    last
}

fn number_in(line: &str) -> Option<u64> {
    line.strip_prefix("synced ")?.parse().ok()
}

fn counter(store: &dyn Store) -> u64 {
    let value = store.get(&COUNTER, b"n").expect("a healthy store reads");
    value.map_or(0, |value| {
        u64::from_be_bytes(value[..].try_into().expect("eight bytes"))
    })
}

/// Both sides must hold exactly the rows up to the counter.
fn check_whole(store: &dyn Store) -> u64 {
    let last = counter(store);
    let scan = |table| {
        store
            .scan(table, b"", usize::MAX)
            .expect("a healthy store reads")
    };
    let left = scan(&LEFT);
    let (right, parked) = (scan(&RIGHT), scan(&PARKED));
    assert!(right.is_empty() || parked.is_empty(), "a rename was torn");
    let right = if right.is_empty() { parked } else { right };
    assert_eq!(left, right, "a batch was torn");
    assert_eq!(left.len() as u64, last, "rows and counter differ");
    for (index, (key, value)) in left.iter().enumerate() {
        let number = index as u64 + 1;
        assert_eq!(key[..], number.to_be_bytes());
        assert_eq!(value[..], vec![number as u8; (number % 600) as usize]);
    }
    last
}
