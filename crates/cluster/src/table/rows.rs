//! The rows of a merged table: each one record in a page, and two orders of their numbers, by key
//! and, of the tombstones, by age.
//!
//! ```text
//! clock u64 | site u32 | kind u8 | key length u16 | epoch u64 (if any)
//!     | value length u16 or number of a large value u32 (if live) | key | value
//! ```
//!
//! Numbers are little endian; this form is never stored or sent. Sites are numbered, since a table
//! has rows of a few. Small values lie in the record; large ones are kept as they came, so that
//! whoever is shown one can share it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, Deref};

use bytes::{Buf, Bytes};
use dunlin_slots::{Order, Place, Slots};

use super::merged::{DIGEST_BUCKETS, Row, bucket_of, row_hash};
use crate::clock::{Hlc, Stamp};
use crate::identity::SiteId;

/// Longest value that lies in its record, bytes. Sharing a larger one costs less than copying it.
const INLINE_BYTES_MAX: usize = 512;

/// Bits of a record's kind.
const LIVE: u8 = 1;
const EPOCH: u8 = 2;
const LARGE: u8 = 4;

const SITE_AT: usize = 8;
const KIND_AT: usize = 12;
const KEY_BYTES_AT: usize = 13;
const HEAD_BYTES: usize = 15;

/// A value in its table.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A small one.
    Inline(&'a [u8]),
    /// A large one.
    Large(&'a Bytes),
}

impl Value<'_> {
    /// The value to keep: a copy of a small one, a share in a large one.
    pub fn to_bytes(self) -> Bytes {
        match self {
            Self::Inline(bytes) => Bytes::copy_from_slice(bytes),
            Self::Large(bytes) => bytes.clone(),
        }
    }
}

impl Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Large(bytes) => bytes,
        }
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value<'_> {}

/// A [`Row`] in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef<'a> {
    /// The write that made it.
    pub stamp: Stamp,
    /// The value, or `None` for a tombstone.
    pub value: Option<Value<'a>>,
    /// Goes before the stamp in the order of rows.
    pub epoch: Hlc,
}

impl RowRef<'_> {
    /// The row to keep.
    pub fn to_row(self) -> Row {
        Row {
            stamp: self.stamp,
            value: self.value.map(Value::to_bytes),
            epoch: self.epoch,
        }
    }

    /// As [`Row::order`].
    pub(crate) fn order(&self) -> (Hlc, Stamp) {
        (self.epoch, self.stamp)
    }
}

/// Sites by number, counted.
#[derive(Debug, Default)]
struct Sites {
    numbers: BTreeMap<SiteId, u32>,
    /// Sites and how many rows are theirs; one without rows may be replaced.
    known: Vec<(SiteId, usize)>,
    free: Vec<u32>,
}

impl Sites {
    fn take(&mut self, site: SiteId) -> u32 {
        if let Some(&number) = self.numbers.get(&site) {
            self.known[number as usize].1 += 1;
            return number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.known.push((site, 0));
            (self.known.len() - 1) as u32
        });
        self.known[number as usize] = (site, 1);
        self.numbers.insert(site, number);
        number
    }

    fn release(&mut self, number: u32) {
        let (site, rows) = &mut self.known[number as usize];
        *rows -= 1;
        if *rows == 0 {
            self.numbers.remove(site);
            self.free.push(number);
        }
    }
}

/// Large values by number.
#[derive(Debug, Default)]
struct Values {
    values: Vec<Bytes>,
    free: Vec<u32>,
}

impl Values {
    fn insert(&mut self, value: Bytes) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.values.push(Bytes::new());
            (self.values.len() - 1) as u32
        });
        self.values[number as usize] = value;
        number
    }

    fn remove(&mut self, number: u32) {
        self.values[number as usize] = Bytes::new();
        self.free.push(number);
        if self.free.len() == self.values.len() {
            *self = Self::default();
        }
    }
}

/// A record taken apart.
struct Parts<'a> {
    hlc: Hlc,
    site: u32,
    kind: u8,
    epoch: Hlc,
    /// Length of the value, or the number of a large one.
    value: usize,
    key: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    #[inline]
    fn of(record: &'a [u8]) -> Self {
        let (mut head, kind) = (record, record[KIND_AT]);
        let hlc = Hlc(head.get_u64_le());
        let site = head.get_u32_le();
        head.advance(1);
        let key_bytes = usize::from(head.get_u16_le());
        let epoch = if kind & EPOCH == 0 {
            0
        } else {
            head.get_u64_le()
        };
        let value = match kind & (LIVE | LARGE) {
            LIVE => usize::from(head.get_u16_le()),
            0 => 0,
            _ => head.get_u32_le() as usize,
        };
        let (key, rest) = head.split_at(key_bytes);
        Self {
            hlc,
            site,
            kind,
            epoch: Hlc(epoch),
            value,
            key,
            rest,
        }
    }
}

/// All rows of a table. See the module.
#[derive(Debug)]
pub(super) struct Rows {
    records: Slots,
    large: Values,
    sites: Sites,
    by_key: Order,
    /// Tombstones by age, for forgetting the oldest first.
    tombstones: Order,
    digest: Box<[u64]>,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self {
            records: Slots::new(),
            large: Values::default(),
            sites: Sites::default(),
            by_key: Order::new(),
            tombstones: Order::new(),
            digest: vec![0; DIGEST_BUCKETS].into(),
        }
    }

    pub(super) fn live(&self) -> usize {
        self.by_key.len() - self.tombstones.len()
    }

    pub(super) fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    pub(super) fn digest(&self) -> &[u64] {
        &self.digest
    }

    #[inline]
    fn key(&self, id: u32) -> &[u8] {
        let record = self.records.get(id);
        let key_bytes = u16::from_le_bytes([record[KEY_BYTES_AT], record[KEY_BYTES_AT + 1]]);
        let kind = record[KIND_AT];
        let epoch = if kind & EPOCH == 0 { 0 } else { 8 };
        let value = match kind & (LIVE | LARGE) {
            0 => 0,
            LIVE => 2,
            _ => 4,
        };
        &record[HEAD_BYTES + epoch + value..][..usize::from(key_bytes)]
    }

    fn stamp(&self, id: u32) -> Stamp {
        let mut record = self.records.get(id);
        let hlc = Hlc(record.get_u64_le());
        let site = self.sites.known[record.get_u32_le() as usize].0;
        Stamp { hlc, site }
    }

    #[inline]
    fn entry(&self, id: u32) -> (&[u8], RowRef<'_>) {
        let parts = Parts::of(self.records.get(id));
        let value = match parts.kind & (LIVE | LARGE) {
            0 => None,
            LIVE => Some(Value::Inline(&parts.rest[..parts.value])),
            _ => Some(Value::Large(&self.large.values[parts.value])),
        };
        let site = self.sites.known[parts.site as usize].0;
        let row = RowRef {
            stamp: Stamp {
                hlc: parts.hlc,
                site,
            },
            value,
            epoch: parts.epoch,
        };
        (parts.key, row)
    }

    /// Where a key's row is, or would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<Place, Place> {
        self.by_key.find(|id| self.key(id).cmp(key))
    }

    /// The row at a place.
    pub(super) fn at(&self, place: Place) -> RowRef<'_> {
        self.entry(self.by_key.at(place)).1
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<RowRef<'_>> {
        Some(self.at(self.find(key).ok()?))
    }

    /// Rows from a bound on, in key order.
    pub(super) fn from(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&[u8], RowRef<'_>)> {
        let found = match from {
            Bound::Unbounded => Err(self.by_key.start()),
            Bound::Included(from) => self.find(from),
            // Behind the key itself.
            Bound::Excluded(from) => self.by_key.find(|id| match self.key(id).cmp(from) {
                Ordering::Greater => Ordering::Greater,
                _ => Ordering::Less,
            }),
        };
        let (Ok(place) | Err(place)) = found;
        self.by_key.iter_from(place).map(|id| self.entry(id))
    }

    /// Tombstones, the oldest first: their stamps and keys.
    pub(super) fn oldest(&self) -> impl Iterator<Item = (Stamp, &[u8])> {
        let tombstones = self.tombstones.iter();
        tombstones.map(|id| (self.stamp(id), self.key(id)))
    }

    /// Puts in a row at the place where [`Rows::find`] has found its key, or has not.
    pub(super) fn put(&mut self, found: Result<Place, Place>, key: &[u8], row: &Row) {
        if let Ok(place) = found {
            self.forget(self.by_key.at(place));
        }
        self.digest[usize::from(bucket_of(key))] ^= row_hash(key, row.stamp);
        let id = self.write(key, row);
        match found {
            Ok(place) => self.by_key.set(place, id),
            Err(place) => self.by_key.insert(place, id),
        }
        if row.value.is_none() {
            match self.find_tombstone(id) {
                Ok(place) => self.tombstones.set(place, id),
                Err(place) => self.tombstones.insert(place, id),
            }
        }
    }

    fn write(&mut self, key: &[u8], row: &Row) -> u32 {
        let value = row.value.as_deref().unwrap_or_default();
        let (mut kind, mut head) = (u8::from(row.value.is_some()) * LIVE, [0; HEAD_BYTES + 12]);
        let mut head_bytes = HEAD_BYTES;
        let mut push = |bytes: &[u8]| {
            head[head_bytes..][..bytes.len()].copy_from_slice(bytes);
            head_bytes += bytes.len();
        };
        if row.epoch != Hlc::default() {
            kind |= EPOCH;
            push(&row.epoch.0.to_le_bytes());
        }
        let mut inline: &[u8] = &[];
        if let Some(large) = row
            .value
            .as_ref()
            .filter(|_| value.len() > INLINE_BYTES_MAX)
        {
            kind |= LARGE;
            push(&self.large.insert(large.clone()).to_le_bytes());
        } else if row.value.is_some() {
            inline = value;
            push(&(value.len() as u16).to_le_bytes());
        }
        head[..SITE_AT].copy_from_slice(&row.stamp.hlc.0.to_le_bytes());
        let site = self.sites.take(row.stamp.site);
        head[SITE_AT..KIND_AT].copy_from_slice(&site.to_le_bytes());
        head[KIND_AT] = kind;
        head[KEY_BYTES_AT..HEAD_BYTES].copy_from_slice(&(key.len() as u16).to_le_bytes());
        let id = self.records.insert(head_bytes + key.len() + inline.len());
        let (start, rest) = self.records.get_mut(id).split_at_mut(head_bytes);
        start.copy_from_slice(&head[..head_bytes]);
        let (start, rest) = rest.split_at_mut(key.len());
        start.copy_from_slice(key);
        rest[..inline.len()].copy_from_slice(inline);
        id
    }

    fn find_tombstone(&self, id: u32) -> Result<Place, Place> {
        let wanted = (self.stamp(id), self.key(id));
        let age = |id| (self.stamp(id), self.key(id));
        self.tombstones.find(|other| age(other).cmp(&wanted))
    }

    /// Removes a row.
    pub(super) fn take(&mut self, key: &[u8]) {
        if let Ok(place) = self.find(key) {
            let id = self.by_key.remove(place);
            self.forget(id);
        }
    }

    /// Removes the oldest tombstone; false if there is none.
    pub(super) fn take_oldest(&mut self) -> bool {
        let oldest = self.tombstones.first().map(|id| self.key(id).to_vec());
        oldest.is_some_and(|key| {
            self.take(&key);
            true
        })
    }

    /// Takes the record of a row out of everything but the order by key.
    fn forget(&mut self, id: u32) {
        let (key, row) = self.entry(id);
        let (bucket, hash) = (bucket_of(key), row_hash(key, row.stamp));
        let is_tombstone = row.value.is_none();
        self.digest[usize::from(bucket)] ^= hash;
        if is_tombstone && let Ok(place) = self.find_tombstone(id) {
            self.tombstones.remove(place);
        }
        let Parts {
            site, kind, value, ..
        } = Parts::of(self.records.get(id));
        self.records.remove(id);
        self.sites.release(site);
        if kind & LARGE != 0 {
            self.large.remove(value as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn row(write: u64, site: u8, value: Option<usize>, epoch: u64) -> Row {
        Row {
            stamp: Stamp {
                hlc: Hlc(write),
                site: SiteId([site; 16]),
            },
            value: value.map(|bytes| Bytes::from(vec![write as u8; bytes])),
            epoch: Hlc(epoch),
        }
    }

    fn changes() -> impl Strategy<Value = Vec<(String, Option<Row>)>> {
        let key = prop_oneof![
            8 => "[ab]{0,4}",
            1 => Just("long".repeat(1_000)),
            1 => Just("k".repeat(65_535)),
        ];
        let bytes = prop_oneof![
            Just(0),
            1..20_usize,
            Just(INLINE_BYTES_MAX),
            513..2_000_usize
        ];
        let value = prop_oneof![2 => Just(None), 3 => bytes.prop_map(Some)];
        let epoch = prop_oneof![Just(0), 1..4_u64, Just(u64::MAX)];
        let put = (0..20_u64, 0..4_u8, value, epoch)
            .prop_map(|(write, site, value, epoch)| Some(row(write, site, value, epoch)));
        let change = (key, prop_oneof![6 => put, 2 => Just(None)]);
        prop::collection::vec(change, 0..120)
    }

    /// What a simple table would say of all that is asked.
    fn check(rows: &Rows, model: &BTreeMap<String, Row>) -> Result<(), TestCaseError> {
        let shown = |(key, row): (&[u8], RowRef<'_>)| {
            (String::from_utf8_lossy(key).into_owned(), row.to_row())
        };
        let all: Vec<(String, Row)> = model.clone().into_iter().collect();
        let found: Vec<_> = rows.from(Bound::Unbounded).map(shown).collect();
        prop_assert_eq!(&found, &all);
        for bound in ["", "a", "ab", "bb", "kk", "z"] {
            for from in [Bound::Included(bound), Bound::Excluded(bound)] {
                let found = rows.from(from.map(str::as_bytes)).map(shown);
                let range = (from.map(str::to_owned), Bound::Unbounded);
                let wanted = model.range(range).map(|(k, r)| (k.clone(), r.clone()));
                prop_assert!(found.eq(wanted), "from {from:?}");
            }
        }
        let tombstones: BTreeSet<(Stamp, Vec<u8>)> = all
            .iter()
            .filter(|(_, row)| row.value.is_none())
            .map(|(key, row)| (row.stamp, key.clone().into_bytes()))
            .collect();
        let oldest = rows.oldest().map(|(stamp, key)| (stamp, key.to_vec()));
        prop_assert!(oldest.eq(tombstones.iter().cloned()));
        prop_assert_eq!(rows.tombstones(), tombstones.len());
        prop_assert_eq!(rows.live(), all.len() - tombstones.len());
        let mut digest = vec![0; DIGEST_BUCKETS];
        for (key, row) in &all {
            digest[usize::from(bucket_of(key.as_bytes()))] ^= row_hash(key.as_bytes(), row.stamp);
        }
        prop_assert_eq!(rows.digest(), &digest[..]);
        let large = all.iter().filter_map(|(_, row)| row.value.as_ref());
        let large = large.filter(|value| value.len() > INLINE_BYTES_MAX).count();
        prop_assert_eq!(rows.large.values.len() - rows.large.free.len(), large);
        let sites: BTreeSet<SiteId> = all.iter().map(|(_, row)| row.stamp.site).collect();
        prop_assert!(rows.sites.numbers.keys().eq(sites.iter()));
        Ok(())
    }

    proptest! {
        #[test]
        fn rows_are_those_of_a_map(changes in changes(), oldest in 0..5_usize) {
            let (mut rows, mut model) = (Rows::new(), BTreeMap::new());
            for (key, row) in changes {
                let bytes = key.as_bytes();
                prop_assert_eq!(rows.get(bytes).map(RowRef::to_row), model.get(&key).cloned());
                if let Some(row) = row {
                    rows.put(rows.find(bytes), bytes, &row);
                    model.insert(key, row);
                } else {
                    rows.take(bytes);
                    model.remove(&key);
                }
            }
            check(&rows, &model)?;
            for _ in 0..oldest {
                let dead = model.iter().filter(|(_, row)| row.value.is_none());
                let first = dead.min_by_key(|(key, row)| (row.stamp, *key));
                let first = first.map(|(key, _)| key.clone());
                prop_assert_eq!(rows.take_oldest(), first.is_some());
                first.map(|key| model.remove(&key));
            }
            check(&rows, &model)?;
            for key in model.keys() {
                rows.take(key.as_bytes());
            }
            check(&rows, &BTreeMap::new())?;
            prop_assert!(rows.records.is_empty() && rows.large.values.is_empty());
        }
    }
}
