use proptest::prelude::*;

use super::*;
use crate::memory::Memory;

static A: TableId = TableId::fixed("a");
static B: TableId = TableId::fixed("b");

fn store(rows: &[(&TableId, &[u8], &[u8])]) -> Memory {
    let mut batch = Batch::new();
    for (table, key, value) in rows {
        batch.put(table, key.to_vec(), value.to_vec());
    }
    let mut store = Memory::new();
    store.write(batch).expect("a valid batch");
    store
}

fn small() -> Memory {
    store(&[
        (&A, b"", b""),
        (&A, b"key", b"value"),
        (&B, b"key", b"other"),
    ])
}

fn bytes_of(store: &dyn Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(store, &mut bytes).expect("a vector takes all");
    bytes
}

fn read_all(bytes: &[u8]) -> Result<Vec<Row>, SnapshotError> {
    let mut reader = Reader::new(bytes)?;
    let mut rows = Vec::new();
    while let Some(row) = reader.next_row()? {
        rows.push(row);
    }
    Ok(rows)
}

/// A stream of given frames with valid checksums, to get at the checks behind them.
fn forge(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut out = FrameWriter {
        out: &mut bytes,
        crc: crc32fast::Hasher::new(),
    };
    out.header().expect("a vector takes all");
    for (kind, payload) in frames {
        out.frame(*kind, &[payload]).expect("a vector takes all");
    }
    bytes
}

fn fault_of(bytes: &[u8]) -> Fault {
    match read_all(bytes) {
        Err(SnapshotError::Damaged { fault, .. }) => fault,
        other => panic!("expected damage, got {other:?}"),
    }
}

#[test]
fn the_bytes_are_those_drawn_in_the_documentation() {
    let bytes = bytes_of(&store(&[(&A, b"k", b"v")]));
    let drawn = [
        &b"DUNLSNAP\x01\x00"[..],
        b"crc.",
        b"\x01\x01\x00\x00\x00a",
        b"crc.",
        b"\x02\x06\x00\x00\x00\x01\x00\x00\x00kv",
        b"crc.",
        b"\x03\x10\x00\x00\x00",
        &1_u64.to_le_bytes(),
        &1_u64.to_le_bytes(),
        b"crc.",
    ];
    let mut at = 0;
    for part in drawn {
        let found = &bytes[at..at + part.len()];
        if part == b"crc." {
            // Each checksum covers everything before it except the other checksums.
            let covered = bytes_without_checksums(&bytes[..at]);
            assert_eq!(found, crc32fast::hash(&covered).to_le_bytes());
        } else {
            assert_eq!(found, part, "at byte {at}");
        }
        at += part.len();
    }
    assert_eq!(at, bytes.len());
}

/// Of the snapshot in the test above, whose frames have these lengths.
fn bytes_without_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut covered = Vec::new();
    for length in [10, 6, 11, 21] {
        let (frame, after) = rest.split_at(length.min(rest.len()));
        covered.extend_from_slice(frame);
        rest = after.get(4..).unwrap_or_default();
    }
    covered
}

#[test]
fn round_trip_keeps_every_row_in_order() {
    let store = small();
    let rows = read_all(&bytes_of(&store)).expect("whole");
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row.table.as_str(), &row.key[..], &row.value[..]))
        .collect();
    assert_eq!(
        shown,
        [
            ("a", &b""[..], &b""[..]),
            ("a", b"key", b"value"),
            ("b", b"key", b"other")
        ]
    );
}

#[test]
fn more_rows_than_one_scan_are_written() {
    let mut batch = Batch::new();
    for index in 0..(SCAN_ROWS as u32 * 3) {
        batch.put(&A, index.to_be_bytes().to_vec(), "v");
    }
    let mut store = Memory::new();
    store.write(batch).expect("a valid batch");
    assert_eq!(
        read_all(&bytes_of(&store)).expect("whole").len(),
        SCAN_ROWS * 3
    );
}

#[test]
fn an_empty_store_has_a_snapshot() {
    assert_eq!(read_all(&bytes_of(&Memory::new())).expect("whole"), []);
}

#[test]
fn every_changed_byte_is_noticed_in_its_frame() {
    let whole = bytes_of(&small());
    for index in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[index] ^= change;
            match read_all(&bytes) {
                Err(SnapshotError::Damaged { offset, .. }) => {
                    assert!(
                        offset <= index as u64,
                        "byte {index} was blamed on {offset}"
                    );
                }
                other => panic!("byte {index} ^ {change:#x}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    let whole = bytes_of(&small());
    for length in 0..whole.len() {
        assert_eq!(
            fault_of(&whole[..length]),
            Fault::Truncated,
            "cut to {length}"
        );
    }
}

#[test]
fn bytes_after_the_end_are_left_in_the_stream() {
    let mut bytes = bytes_of(&small());
    let length = bytes.len();
    bytes.extend_from_slice(b"next");
    let mut stream = bytes.as_slice();
    let mut reader = Reader::new(&mut stream).expect("whole");
    while reader.next_row().expect("whole").is_some() {}
    assert_eq!(reader.next_row().expect("the end stays the end"), None);
    assert_eq!(stream, &bytes[length..]);
}

#[test]
fn frames_with_valid_checksums_are_still_checked() {
    let row = |key: &[u8]| [&(key.len() as u32).to_le_bytes(), key].concat();
    let counts = |tables: u64, rows: u64| [tables.to_le_bytes(), rows.to_le_bytes()].concat();
    let table = (KIND_TABLE, &b"a"[..]);
    assert_eq!(fault_of(b"NOTASNAPSHOT"), Fault::Magic);
    assert_eq!(fault_of(&forge(&[(KIND_ROW, &row(b"k"))])), Fault::Order);
    assert_eq!(fault_of(&forge(&[table, table])), Fault::Order);
    let k = row(b"k");
    assert_eq!(
        fault_of(&forge(&[table, (KIND_ROW, &k), (KIND_ROW, &k)])),
        Fault::Order
    );
    assert_eq!(fault_of(&forge(&[(KIND_TABLE, b"A B")])), Fault::TableName);
    assert_eq!(fault_of(&forge(&[(KIND_TABLE, b"\xff")])), Fault::TableName);
    assert_eq!(
        fault_of(&forge(&[(KIND_TABLE, &[b'a'; 65])])),
        Fault::Length
    );
    assert_eq!(
        fault_of(&forge(&[table, (KIND_ROW, b"abc")])),
        Fault::Length
    );
    assert_eq!(
        fault_of(&forge(&[table, (KIND_ROW, &[9, 0, 0, 0, 1])])),
        Fault::Length
    );
    assert_eq!(
        fault_of(&forge(&[(KIND_END, &counts(1, 0))])),
        Fault::Counts
    );
    assert_eq!(fault_of(&forge(&[(KIND_END, b"")])), Fault::Counts);
    assert_eq!(fault_of(&forge(&[(4, b"")])), Fault::Kind);
    assert_eq!(fault_of(&forge(&[table])), Fault::Truncated);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut bytes = [&MAGIC[..], &7_u16.to_le_bytes()].concat();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    let error = read_all(&bytes).expect_err("version 7");
    assert!(matches!(error, SnapshotError::NewerFormat { found: 7 }));
}

#[test]
fn restore_replaces_everything_durably() {
    let source = small();
    let mut target = store(&[(&A, b"old", b"1"), (&TableId::fixed("c"), b"old", b"1")]);
    let summary = restore(&mut target, bytes_of(&source).as_slice()).expect("whole");
    assert_eq!(summary, Summary { tables: 2, rows: 3 });
    target.crash(crate::memory::CrashKeep::Nothing);
    assert_eq!(bytes_of(&target), bytes_of(&source));
}

#[test]
fn a_damaged_snapshot_restores_nothing_and_leaves_nothing() {
    let mut bytes = bytes_of(&small());
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let mut target = store(&[(&A, b"old", b"1")]);
    let before = bytes_of(&target);
    restore(&mut target, bytes.as_slice()).expect_err("damaged");
    assert_eq!(
        target.tables().expect("memory reads"),
        std::slice::from_ref(&A)
    );
    assert_eq!(bytes_of(&target), before);
}

#[test]
fn a_crash_during_restore_keeps_the_old_state_and_the_next_one_cleans_up() {
    let staged = TableId::fixed("restoring/7");
    let mut target = store(&[(&A, b"old", b"1"), (&staged, b"rest", b"1")]);
    assert_eq!(
        read_all(&bytes_of(&target)).expect("whole").len(),
        1,
        "staging is left out"
    );
    restore(&mut target, bytes_of(&small()).as_slice()).expect("whole");
    assert_eq!(
        target.tables().expect("memory reads"),
        [A.clone(), B.clone()]
    );
}

#[test]
fn a_failing_store_fails_the_restore() {
    let mut target = store(&[(&A, b"old", b"1")]);
    target.sync().expect("no fault planned");
    target.fail_syncs_after(0);
    let error = restore(&mut target, bytes_of(&small()).as_slice()).expect_err("no sync");
    assert!(matches!(error, SnapshotError::Store(StoreError::Injected)));
    target.crash(crate::memory::CrashKeep::Nothing);
    assert_eq!(bytes_of(&target), bytes_of(&store(&[(&A, b"old", b"1")])));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read_all(&bytes).is_err());
    }

    #[test]
    fn any_frames_are_read_without_panic(
        frames in prop::collection::vec(
            (0..5_u8, prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..24)), 0..8,
        ),
    ) {
        let frames: Vec<_> = frames.iter().map(|(kind, bytes)| (*kind, &bytes[..])).collect();
        if let Ok(rows) = read_all(&forge(&frames)) {
            prop_assert!(rows.len() < frames.len());
        }
    }

    #[test]
    fn a_mangled_snapshot_is_never_taken_for_another(
        at in any::<prop::sample::Index>(),
        cut in 0..20_usize,
        inserted in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let whole = bytes_of(&small());
        let at = at.index(whole.len());
        let after = whole.get(at + cut..).unwrap_or_default();
        let mangled = [&whole[..at], &inserted, after].concat();
        if let Ok(rows) = read_all(&mangled) {
            prop_assert_eq!(&mangled[..whole.len()], &whole[..]);
            prop_assert_eq!(rows, read_all(&whole).expect("whole"));
        }
    }
}
