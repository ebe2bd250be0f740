//! What earlier releases left on disk is read: fixtures that a change must not break unseen.
//! docs/disk.md says under "Changing a format" what to do when one does.

use std::fmt::Write;
use std::path::Path;

use dunlin_storage::engine::{Engine, FILE_NAME, VERSION};
use dunlin_storage::memory::Memory;
use dunlin_storage::{Batch, Store, TableId, snapshot};

static FRUIT: TableId = TableId::fixed("fruit");
static EMPTY: TableId = TableId::fixed("kinds/empty");

const CHANGED: &str = "this release does not read what version 1 wrote. Releases of one cluster \
                       and data directories of users do: see docs/disk.md, \"Changing a format\"";

/// What both fixtures hold.
fn rows() -> Vec<(&'static TableId, Vec<u8>, Vec<u8>)> {
    vec![
        (&FRUIT, b"apple".to_vec(), b"red".to_vec()),
        (&FRUIT, b"pear".to_vec(), vec![0, 255, 7]),
        (&EMPTY, Vec::new(), Vec::new()),
    ]
}

fn check(store: &dyn Store) {
    for (table, key, value) in rows() {
        let read = store.get(table, &key).expect(CHANGED);
        assert_eq!(read.as_deref(), Some(&value[..]), "{table:?}: {CHANGED}");
    }
    assert_eq!(store.scan(&FRUIT, &[], 10).expect(CHANGED).len(), 2);
}

fn filled(store: &mut dyn Store) {
    let mut batch = Batch::new();
    for (table, key, value) in rows() {
        batch.put(table, key, value);
    }
    store.write(batch).expect("a sound batch");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// The snapshot of docs/disk.md's format, version 1.
const SNAPSHOT: &str = include_str!("fixtures/snapshot-1.txt");

#[test]
fn a_snapshot_is_what_other_releases_read() {
    let mut store = Memory::new();
    filled(&mut store);
    let mut present = Vec::new();
    snapshot::write(&store, &mut present).expect("a vector takes all");
    let present = hex(&present);
    let recorded = SNAPSHOT.trim();
    assert_eq!(
        recorded, present,
        "\nThe recorded snapshot is not what this release writes: see docs/disk.md, \"Changing a \
         format\". If it is new, crates/storage/tests/fixtures/snapshot-1.txt is\n{present}\n"
    );
    let byte = |at| u8::from_str_radix(&recorded[at..at + 2], 16).expect("hexadecimal");
    let bytes: Vec<u8> = (0..recorded.len()).step_by(2).map(byte).collect();
    let mut restored = Memory::new();
    snapshot::restore(&mut restored, &bytes[..]).expect(CHANGED);
    check(&restored);
}

/// A data directory as format 1 left it, packed: runs of zeros are a zero and their length.
const TABLES: &[u8] = include_bytes!("fixtures/tables-1.packed");

fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = packed;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != 0 {
            out.push(byte);
            continue;
        }
        let (length, tail) = rest.split_first_chunk::<4>().expect("a length follows");
        out.resize(out.len() + u32::from_be_bytes(*length) as usize, 0);
        rest = tail;
    }
    out
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        if byte != 0 {
            out.push(byte);
            rest = &rest[1..];
            continue;
        }
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        out.push(0);
        out.extend((zeros as u32).to_be_bytes());
        rest = &rest[zeros..];
    }
    out
}

fn data_dir(file: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join(FILE_NAME), file).expect("just made");
    dir
}

#[test]
fn a_data_directory_of_format_1_is_read_and_written_on() {
    let dir = data_dir(&unpack(TABLES));
    let mut engine = Engine::open(dir.path()).expect(CHANGED);
    check(&engine);
    let mut batch = Batch::new();
    batch.put(&FRUIT, b"plum".to_vec(), b"blue".to_vec());
    engine.write(batch).expect("it goes on");
    engine.sync().expect("it goes on");
    drop(engine);
    let engine = Engine::open(dir.path()).expect("it is what it was");
    check_with_plum(&engine);
}

fn check_with_plum(store: &dyn Store) {
    let plum = store.get(&FRUIT, b"plum").expect("it is read");
    assert_eq!(plum.as_deref(), Some(&b"blue"[..]));
}

/// Writes the fixture of the present format, to be run by hand when it has changed:
/// `cargo test -p dunlin-storage --test compat -- --ignored`.
#[test]
#[ignore = "writes a fixture"]
fn write_the_fixture_of_this_format() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut engine = Engine::open(dir.path()).expect("a new one");
    filled(&mut engine);
    engine.sync().expect("it is written");
    drop(engine);
    let file = std::fs::read(dir.path().join(FILE_NAME)).expect("just written");
    let name = format!("tests/fixtures/tables-{VERSION}.packed");
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::write(to, pack(&file)).expect("the source tree");
    assert_eq!(unpack(&pack(&file)), file);
}
