//! What every `Store` promises, checked against each implementation.

use bytes::Bytes;
use dunlin_storage::engine::Engine;
use dunlin_storage::memory::Memory;
use dunlin_storage::{
    BATCH_BYTES_MAX, Batch, KEY_BYTES_MAX, Store, StoreError, TABLE_NAME_BYTES_MAX, TableId,
    VALUE_BYTES_MAX,
};

static A: TableId = TableId::fixed("a");
static B: TableId = TableId::fixed("b");
static C: TableId = TableId::fixed("c");

type Check = fn(&mut dyn Store);

fn on_memory(check: Check) {
    check(&mut Memory::new());
}

fn on_engine(check: Check) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    check(&mut Engine::open(dir.path()).expect("a fresh directory opens"));
}

macro_rules! contract {
    ($($check:ident)*) => {
        mod memory { $(#[test] fn $check() { super::on_memory(super::$check); })* }
        mod engine { $(#[test] fn $check() { super::on_engine(super::$check); })* }
    };
}

contract! {
    a_fresh_store_is_empty
    writes_are_seen_before_and_after_sync
    ops_apply_in_order
    a_deleted_row_stays_deleted_over_a_durable_one
    a_table_without_rows_is_not_listed
    scan_is_ordered_from_a_key_and_limited
    scan_merges_synced_and_unsynced_rows
    clear_hides_durable_rows_and_takes_new_ones
    rename_replaces_the_target
    rename_of_an_empty_table_clears_the_target
    rename_to_itself_changes_nothing
    renames_can_swap_two_tables
    renames_can_rotate_and_return
    rows_written_before_a_rename_move_and_after_it_stay
    empty_keys_and_values_are_rows
    a_refused_batch_changes_nothing
    an_empty_batch_is_fine
    many_rows_survive_many_syncs
}

fn batch(build: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::new();
    build(&mut batch);
    batch
}

fn write(store: &mut dyn Store, build: impl FnOnce(&mut Batch)) {
    store.write(batch(build)).expect("a valid batch is taken");
}

fn sync(store: &mut dyn Store) {
    store.sync().expect("a healthy store syncs");
}

/// All rows of a table as text, `key=value` joined by blanks.
fn rows(store: &dyn Store, table: &TableId) -> String {
    render(
        &store
            .scan(table, b"", usize::MAX)
            .expect("a healthy store reads"),
    )
}

fn render(rows: &[(Bytes, Bytes)]) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let rows: Vec<_> = rows
        .iter()
        .map(|(k, v)| format!("{}={}", text(k), text(v)))
        .collect();
    rows.join(" ")
}

fn tables(store: &dyn Store) -> String {
    let tables = store.tables().expect("a healthy store reads");
    tables
        .iter()
        .map(TableId::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

fn get(store: &dyn Store, table: &TableId, key: &str) -> Option<Bytes> {
    store
        .get(table, key.as_bytes())
        .expect("a healthy store reads")
}

/// Checks the same expectation before a sync, where reads are merged, and after it.
fn expect_rows(store: &mut dyn Store, expected: &[(&TableId, &str)]) {
    for synced in [false, true] {
        for (table, expected) in expected {
            assert_eq!(
                rows(store, table),
                *expected,
                "table {table}, synced: {synced}"
            );
        }
        let mut names: Vec<_> = expected
            .iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(t, _)| t.as_str())
            .collect();
        names.sort_unstable();
        assert_eq!(tables(store), names.join(" "), "synced: {synced}");
        sync(store);
    }
}

fn a_fresh_store_is_empty(store: &mut dyn Store) {
    assert_eq!(tables(store), "");
    assert_eq!(get(store, &A, "k"), None);
    assert_eq!(rows(store, &A), "");
    sync(store);
}

fn writes_are_seen_before_and_after_sync(store: &mut dyn Store) {
    write(store, |b| b.put(&A, "k", "v"));
    assert_eq!(get(store, &A, "k").as_deref(), Some(&b"v"[..]));
    expect_rows(store, &[(&A, "k=v"), (&B, "")]);
    assert_eq!(get(store, &A, "k").as_deref(), Some(&b"v"[..]));
    assert_eq!(get(store, &A, "other"), None);
}

fn ops_apply_in_order(store: &mut dyn Store) {
    write(store, |b| {
        b.put(&A, "k", "1");
        b.put(&A, "k", "2");
        b.put(&A, "gone", "1");
        b.delete(&A, "gone");
        b.delete(&A, "back");
        b.put(&A, "back", "1");
    });
    write(store, |b| b.put(&A, "k", "3"));
    expect_rows(store, &[(&A, "back=1 k=3")]);
}

fn a_deleted_row_stays_deleted_over_a_durable_one(store: &mut dyn Store) {
    write(store, |b| {
        b.put(&A, "k", "v");
        b.put(&A, "l", "v");
    });
    sync(store);
    write(store, |b| b.delete(&A, "k"));
    assert_eq!(get(store, &A, "k"), None);
    expect_rows(store, &[(&A, "l=v")]);
    assert_eq!(get(store, &A, "k"), None);
}

fn a_table_without_rows_is_not_listed(store: &mut dyn Store) {
    write(store, |b| {
        b.put(&A, "k", "v");
        b.delete(&B, "never was");
        b.clear(&C);
    });
    expect_rows(store, &[(&A, "k=v")]);
    write(store, |b| b.delete(&A, "k"));
    expect_rows(store, &[]);
}

fn scan_is_ordered_from_a_key_and_limited(store: &mut dyn Store) {
    write(store, |b| {
        for key in ["b", "aa", "", "c", "a", "a\0"] {
            b.put(&A, key, "");
        }
    });
    for _ in 0..2 {
        let scan = |from: &str, limit| {
            render(
                &store
                    .scan(&A, from.as_bytes(), limit)
                    .expect("a healthy store reads"),
            )
        };
        assert_eq!(scan("", usize::MAX), "= a= a\0= aa= b= c=");
        assert_eq!(scan("a", 2), "a= a\0=");
        assert_eq!(scan("a\0", 2), "a\0= aa=");
        assert_eq!(scan("ab", 1), "b=");
        assert_eq!(scan("d", 9), "");
        assert_eq!(scan("", 0), "");
        sync(store);
    }
}

fn scan_merges_synced_and_unsynced_rows(store: &mut dyn Store) {
    write(store, |b| {
        for key in ["a", "c", "e", "g"] {
            b.put(&A, key, "old");
        }
    });
    sync(store);
    write(store, |b| {
        b.put(&A, "b", "new");
        b.put(&A, "c", "new");
        b.delete(&A, "e");
        b.delete(&A, "f");
        b.put(&A, "h", "new");
    });
    let some = store.scan(&A, b"b", 2).expect("a healthy store reads");
    assert_eq!(render(&some), "b=new c=new");
    // The limit counts rows returned, not rows hidden by a deletion.
    let some = store.scan(&A, b"d", 2).expect("a healthy store reads");
    assert_eq!(render(&some), "g=old h=new");
    expect_rows(store, &[(&A, "a=old b=new c=new g=old h=new")]);
}

fn clear_hides_durable_rows_and_takes_new_ones(store: &mut dyn Store) {
    write(store, |b| b.put(&A, "old", "v"));
    sync(store);
    write(store, |b| {
        b.put(&A, "lost", "v");
        b.clear(&A);
        b.put(&A, "new", "v");
    });
    assert_eq!(get(store, &A, "old"), None);
    expect_rows(store, &[(&A, "new=v")]);
    write(store, |b| b.clear(&A));
    expect_rows(store, &[(&A, "")]);
}

fn rename_replaces_the_target(store: &mut dyn Store) {
    write(store, |b| {
        b.put(&A, "1", "a");
        b.put(&B, "2", "b");
    });
    sync(store);
    write(store, |b| b.rename(&A, &B));
    assert_eq!(get(store, &B, "1").as_deref(), Some(&b"a"[..]));
    assert_eq!(get(store, &B, "2"), None);
    assert_eq!(get(store, &A, "1"), None);
    expect_rows(store, &[(&A, ""), (&B, "1=a")]);
}

fn rename_of_an_empty_table_clears_the_target(store: &mut dyn Store) {
    write(store, |b| b.put(&B, "2", "b"));
    sync(store);
    write(store, |b| b.rename(&A, &B));
    expect_rows(store, &[(&A, ""), (&B, "")]);
}

fn rename_to_itself_changes_nothing(store: &mut dyn Store) {
    write(store, |b| b.put(&A, "1", "a"));
    sync(store);
    write(store, |b| {
        b.put(&A, "2", "a");
        b.rename(&A, &A);
    });
    expect_rows(store, &[(&A, "1=a 2=a")]);
}

fn renames_can_swap_two_tables(store: &mut dyn Store) {
    write(store, |b| {
        b.put(&A, "1", "a");
        b.put(&B, "2", "b");
    });
    sync(store);
    write(store, |b| {
        b.rename(&A, &C);
        b.rename(&B, &A);
        b.rename(&C, &B);
    });
    expect_rows(store, &[(&A, "2=b"), (&B, "1=a"), (&C, "")]);
}

fn renames_can_rotate_and_return(store: &mut dyn Store) {
    write(store, |b| b.put(&A, "1", "a"));
    sync(store);
    write(store, |b| {
        b.rename(&A, &B);
        b.put(&A, "new", "a");
        b.rename(&B, &C);
        b.put(&C, "2", "c");
        b.rename(&C, &A);
    });
    expect_rows(store, &[(&A, "1=a 2=c"), (&B, ""), (&C, "")]);
}

fn rows_written_before_a_rename_move_and_after_it_stay(store: &mut dyn Store) {
    write(store, |b| {
        b.put(&A, "1", "durable");
        b.put(&A, "2", "durable");
    });
    sync(store);
    write(store, |b| {
        b.put(&A, "2", "moved");
        b.delete(&A, "1");
        b.rename(&A, &B);
        b.put(&A, "3", "stays");
    });
    expect_rows(store, &[(&A, "3=stays"), (&B, "2=moved")]);
}

fn empty_keys_and_values_are_rows(store: &mut dyn Store) {
    write(store, |b| b.put(&A, "", ""));
    assert_eq!(get(store, &A, ""), Some(Bytes::new()));
    expect_rows(store, &[(&A, "=")]);
    assert_eq!(get(store, &A, ""), Some(Bytes::new()));
}

fn a_refused_batch_changes_nothing(store: &mut dyn Store) {
    let refused = |store: &mut dyn Store, build: &dyn Fn(&mut Batch)| {
        let error = store.write(batch(|b| {
            b.put(&A, "k", "v");
            build(b);
        }));
        error.expect_err("beyond a bound")
    };
    let long_key = vec![0; KEY_BYTES_MAX + 1];
    let error = refused(store, &|b| b.put(&A, long_key.clone(), "v"));
    assert!(matches!(error, StoreError::KeyTooLong { bytes, .. } if bytes == KEY_BYTES_MAX + 1));
    let error = refused(store, &|b| b.delete(&A, long_key.clone()));
    assert!(matches!(error, StoreError::KeyTooLong { .. }));
    let long_value = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
    let error = refused(store, &|b| b.put(&A, "k", long_value.clone()));
    assert!(matches!(error, StoreError::ValueTooLong { bytes, .. } if bytes > VALUE_BYTES_MAX));
    let half = long_value.slice(..BATCH_BYTES_MAX / 2);
    let error = refused(store, &|b| {
        b.put(&A, "1", half.clone());
        b.put(&A, "2", half.clone());
    });
    assert!(matches!(error, StoreError::BatchTooLarge { bytes } if bytes > BATCH_BYTES_MAX));
    expect_rows(store, &[(&A, "")]);
}

fn an_empty_batch_is_fine(store: &mut dyn Store) {
    write(store, |_| {});
    sync(store);
    write(store, |b| b.put(&A, "k", "v"));
    write(store, |_| {});
    expect_rows(store, &[(&A, "k=v")]);
}

fn many_rows_survive_many_syncs(store: &mut dyn Store) {
    for round in 0..8_u32 {
        write(store, |b| {
            for index in 0..500_u32 {
                let key = (index * 8 + round).to_be_bytes();
                b.put(&A, key.to_vec(), vec![round as u8; 100]);
            }
        });
        sync(store);
    }
    let all = store
        .scan(&A, b"", usize::MAX)
        .expect("a healthy store reads");
    assert_eq!(all.len(), 4000);
    for (index, (key, value)) in all.iter().enumerate() {
        assert_eq!(key[..], (index as u32).to_be_bytes());
        assert_eq!(value[..], [(index % 8) as u8; 100]);
    }
}

#[test]
fn table_names_are_checked() {
    for valid in [
        "a",
        "retained",
        "staging/retained",
        "a-b_c.9",
        &"x".repeat(64),
    ] {
        assert_eq!(
            TableId::new(valid.to_owned())
                .expect("a valid name")
                .as_str(),
            valid
        );
    }
    let long = "x".repeat(TABLE_NAME_BYTES_MAX + 1);
    for invalid in ["", "A", "a b", "#engine", "ä", "a\0", &long] {
        let error = TableId::new(invalid.to_owned()).expect_err("an invalid name");
        assert!(matches!(error, StoreError::TableName { name } if name == invalid));
    }
}
