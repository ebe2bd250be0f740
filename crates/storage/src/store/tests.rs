use super::*;

static T: TableId = TableId::fixed("t");

#[test]
fn bytes_count_every_op() {
    let mut batch = Batch::new();
    assert_eq!(batch.bytes(), 0);
    batch.put(&T, "key", "value");
    batch.delete(&T, "key");
    batch.clear(&T);
    batch.rename(&T, &T);
    assert_eq!(batch.bytes(), 4 * OP_OVERHEAD_BYTES + 8 + 3);
    assert_eq!(batch.check().expect("within bounds"), batch.bytes());
}

#[test]
fn the_overhead_covers_an_op_in_memory() {
    assert!(size_of::<Op>() <= OP_OVERHEAD_BYTES);
}

#[test]
fn bounds_themselves_are_allowed() {
    let mut batch = Batch::new();
    batch.put(&T, vec![0; KEY_BYTES_MAX], "");
    batch.check().expect("a key at its bound");
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let error = |kind: io::ErrorKind| StoreError::Io {
        path: "t".into(),
        source: kind.into(),
    };
    assert!(error(io::ErrorKind::StorageFull).is_disk_full());
    assert!(!error(io::ErrorKind::PermissionDenied).is_disk_full());
    assert!(!StoreError::Injected.is_disk_full());
}
