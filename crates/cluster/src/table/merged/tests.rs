//! Merging: any order, any repetition, one result.

use proptest::prelude::*;

use super::*;

fn spec(rows_max: usize) -> TableSpec {
    let (id, name) = (TableId(16), "t");
    TableSpec {
        id,
        name,
        rows_max,
        value_bytes_max: 8,
        keep_on_leave: false,
        wins: Wins::Later,
    }
}

fn stamp(hlc: u64, site: u8) -> Stamp {
    Stamp {
        hlc: Hlc(hlc),
        site: SiteId([site; 16]),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the tables take options")]
fn value(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

#[test]
fn the_later_write_wins_and_a_tie_is_broken_by_the_site() {
    let table = Merged::new(spec(10));
    assert_eq!(table.put(b"k", value("a"), stamp(5, 1)), Applied::Won);
    assert_eq!(table.put(b"k", value("b"), stamp(4, 9)), Applied::Lost);
    assert_eq!(table.put(b"k", value("a"), stamp(5, 1)), Applied::Lost);
    assert_eq!(table.put(b"k", value("c"), stamp(5, 2)), Applied::Won);
    assert_eq!(table.get(b"k"), value("c"));
    assert_eq!(table.put(b"k", None, stamp(6, 1)), Applied::Won);
    assert_eq!(
        (table.get(b"k"), table.len(), table.tombstones()),
        (None, 0, 1)
    );
    assert_eq!(table.put(b"k", value("d"), stamp(5, 9)), Applied::Lost);
    assert_eq!(table.put(b"k", value("d"), stamp(7, 1)), Applied::Won);
    assert_eq!((table.len(), table.tombstones()), (1, 0));
}

#[test]
fn limits_refuse_without_a_change() {
    let table = Merged::new(spec(1));
    assert_eq!(
        table.put(b"k", value("123456789"), stamp(1, 1)),
        Applied::TooLarge
    );
    assert_eq!(table.put(b"k", value("a"), stamp(1, 1)), Applied::Won);
    assert_eq!(table.put(b"l", value("a"), stamp(2, 1)), Applied::Full);
    assert_eq!(table.put(b"k", value("b"), stamp(3, 1)), Applied::Won);
    assert_eq!(table.put(b"x", None, stamp(4, 1)), Applied::Won);
    assert_eq!(table.put(b"y", None, stamp(5, 1)), Applied::Won);
    assert_eq!((table.len(), table.tombstones()), (1, 1));
    assert!(table.row(b"x").is_none() && table.row(b"y").is_some());
}

#[test]
fn reading_shows_live_rows_in_key_order() {
    let table = Merged::new(spec(10));
    for (at, key) in [b"c", b"a", b"b", b"d"].into_iter().enumerate() {
        table.put(key, value("v"), stamp(at as u64 + 1, 1));
    }
    table.put(b"b", None, stamp(9, 1));
    let read = table.read();
    let keys: Vec<_> = read.range(b"b").map(|(key, _)| key.to_vec()).collect();
    assert_eq!(keys, [b"c".to_vec(), b"d".to_vec()]);
    assert_eq!((read.get(b"b"), read.get(b"a").is_some()), (None, true));
}

#[test]
fn stored_rows_round_trip() {
    for (value, epoch) in [None, value(""), value("v")]
        .into_iter()
        .flat_map(|value| [0, 1, u64::MAX].map(|epoch| (value.clone(), Hlc(epoch))))
    {
        let row = Row {
            stamp: stamp(77, 3),
            value,
            epoch,
        };
        assert_eq!(Row::decode(&row.encode()), Some(row));
    }
    assert_eq!(Row::decode(&Bytes::from_static(b"short")), None);
    for kind in [2, 3, 4] {
        // An epoch that is not there, a kind that is not known.
        assert_eq!(Row::decode(&Bytes::from(vec![kind; 25])), None);
    }
}

/// A write by a node that has seen what `seen` holds.
fn write(seen: &Merged, text: Option<&'static str>, hlc: u64, site: u8) -> Row {
    seen.next(b"k", text.and_then(value), stamp(hlc, site))
}

fn met(spec: TableSpec, rows: &[&Row]) -> Option<Bytes> {
    let merge = |rows: &mut dyn Iterator<Item = &&Row>| {
        let table = Merged::new(spec);
        rows.for_each(|row| _ = table.merge(b"k", row));
        table.get(b"k")
    };
    let forwards = merge(&mut rows.iter());
    assert_eq!(forwards, merge(&mut rows.iter().rev()), "in any order");
    forwards
}

#[test]
fn a_delete_wins_over_edits_that_had_not_seen_it() {
    let spec = TableSpec {
        wins: Wins::Delete,
        ..spec(10)
    };
    let (left, right) = (Merged::new(spec), Merged::new(spec));
    let created = write(&left, Some("new"), 1, 1);
    left.merge(b"k", &created);
    right.merge(b"k", &created);
    let deleted = write(&left, None, 2, 1);
    let edited = write(&right, Some("edit"), 3, 2);
    right.merge(b"k", &edited);
    let again = write(&right, Some("again"), 4, 2);
    assert_eq!(met(spec, &[&edited, &again, &deleted]), None);
    left.merge(b"k", &deleted);
    let recreated = write(&left, Some("back"), 5, 1);
    assert_eq!(met(spec, &[&again, &deleted, &recreated]), value("back"));
    left.merge(b"k", &recreated);
    let edited = write(&left, Some("more"), 6, 1);
    assert_eq!(met(spec, &[&deleted, &edited]), value("more"));
}

#[test]
fn a_put_wins_over_a_delete_that_had_not_seen_it() {
    let spec = TableSpec {
        wins: Wins::Put,
        ..spec(10)
    };
    let (left, right) = (Merged::new(spec), Merged::new(spec));
    let banned = write(&left, Some("ban"), 1, 1);
    left.merge(b"k", &banned);
    right.merge(b"k", &banned);
    let banned_again = write(&left, Some("again"), 2, 1);
    let lifted = write(&right, None, 3, 2);
    assert_eq!(met(spec, &[&banned, &lifted]), None);
    assert_eq!(
        met(spec, &[&banned, &banned_again, &lifted]),
        value("again")
    );
    left.merge(b"k", &banned_again);
    let seen = write(&left, None, 4, 1);
    assert_eq!(met(spec, &[&banned_again, &lifted, &seen]), None);
}

type Put = (u8, Option<u8>, u64, u8);

fn puts() -> impl Strategy<Value = Vec<Put>> {
    // A writer never uses a stamp twice: the value follows from the stamp.
    let put = (0_u8..6, any::<bool>(), 1_u64..20, 1_u8..4);
    let put = put.prop_map(|(key, live, hlc, site)| {
        let unique = hlc * 8 + u64::from(key);
        (
            key,
            (live && !hlc.is_multiple_of(3)).then_some(hlc as u8),
            unique,
            site,
        )
    });
    proptest::collection::vec(put, 0..40).prop_map(|mut puts| {
        let mut seen = std::collections::BTreeSet::new();
        puts.retain(|put| seen.insert((put.2, put.3)));
        puts
    })
}

fn merged(puts: &[Put]) -> Merged {
    let table = Merged::new(spec(100));
    for (key, value, hlc, site) in puts {
        let value = value.map(|v| Bytes::copy_from_slice(&[v]));
        table.put(&[*key], value, stamp(*hlc, *site));
    }
    table
}

/// The same with epochs, as a table that has them holds.
fn merged_by_epoch(puts: &[Put]) -> Merged {
    let table = Merged::new(TableSpec {
        wins: Wins::Delete,
        ..spec(100)
    });
    for (key, value, hlc, site) in puts {
        let live = value.map(|v| Bytes::copy_from_slice(&[v]));
        // Live rows of earlier and later creations; a tombstone's epoch is its own.
        let epoch = value.map_or(*hlc, |v| u64::from(v) % 3 * hlc / 2);
        let row = Row {
            stamp: stamp(*hlc, *site),
            value: live,
            epoch: Hlc(epoch),
        };
        table.merge(&[*key], &row);
    }
    table
}

fn content(table: &Merged) -> Vec<(Vec<u8>, Row)> {
    let read = table.read();
    read.rows(Bound::Unbounded)
        .map(|(key, row)| (key.to_vec(), row.to_row()))
        .collect()
}

proptest! {
    #[test]
    fn order_and_repetition_do_not_matter(puts in puts(), cut in 0_usize..40) {
        let first = merged(&puts);
        let mut turned = puts.clone();
        turned.rotate_left(cut.min(puts.len()));
        turned.reverse();
        turned.extend(puts.iter().copied());
        let second = merged(&turned);
        prop_assert_eq!(content(&first), content(&second));
        prop_assert_eq!(first.digests(), second.digests());
    }

    #[test]
    fn nor_do_they_where_epochs_decide(puts in puts(), cut in 0_usize..40) {
        let first = merged_by_epoch(&puts);
        let mut turned = puts.clone();
        turned.rotate_left(cut.min(puts.len()));
        turned.reverse();
        turned.extend(puts.iter().copied());
        let second = merged_by_epoch(&turned);
        prop_assert_eq!(content(&first), content(&second));
        prop_assert_eq!(first.digests(), second.digests());
    }

    #[test]
    fn the_digest_follows_the_content_alone(puts in puts()) {
        let table = merged(&puts);
        let rebuilt = Merged::new(spec(100));
        for (key, row) in content(&table) {
            rebuilt.restore(&key, &row);
        }
        prop_assert_eq!(table.digests(), rebuilt.digests());
        prop_assert_eq!(table.len(), rebuilt.len());
        for (key, _) in content(&table) {
            table.forget(&key);
        }
        prop_assert!(table.digests().iter().all(|sum| *sum == 0));
        prop_assert_eq!((table.len(), table.tombstones()), (0, 0));
    }
}
