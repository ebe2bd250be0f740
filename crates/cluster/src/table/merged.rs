//! Cluster-state tables: last writer wins per key, deletes are tombstones, equality by digest.
//!
//! Where losing a delete (or a put) to somebody who had not seen it would be dangerous, a table
//! says so by its [`Wins`]: rows then carry an *epoch* that goes before the stamp in their order,
//! so the order stays total and merging stays what it is.
//!
//! A table is shared by all threads of a node; every method is one short lock. Merging is
//! commutative, associative and idempotent, so it does not matter in which order, how often or over
//! which node a row arrives. A tombstone must never be forgotten while a member may still hold the
//! row it deletes.

use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::rows::Rows;
pub use super::rows::{RowRef, Value};
use crate::clock::{Hlc, Stamp};
use crate::identity::SiteId;

/// Number of digest buckets per table.
///
/// 1,024 × 8 bytes is one small frame, and one differing row of a million makes a thousand keys be
/// compared, not a million.
pub const DIGEST_BUCKETS: usize = 1_024;

/// How long a tombstone is kept at least, milliseconds: a week, so that a node that was off over a
/// long weekend does not bring deleted rows back.
pub const TOMBSTONE_KEEP_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// Longest key of a merged table, bytes: an MQTT topic is at most 65,535 bytes long.
pub const KEY_BYTES_MAX: usize = 65_535;

/// Names a merged table on the wire; 0..=15 are the cluster's own.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct TableId(pub u8);

/// The members of the cluster; key: site id, value: an encoded [`crate::Member`].
pub const MEMBERS: TableId = TableId(0);

/// Which of two writes of one key wins if neither writer had seen the other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wins {
    /// The later one.
    #[default]
    Later,
    /// The delete: a live row's epoch is the write that created it, a tombstone's is its own, so a
    /// delete beats every edit of what it deletes, and only what is created later comes back.
    Delete,
    /// The put: a live row's epoch is its own, a tombstone's is that of the row it deletes, so a
    /// delete reaches only what its writer had seen.
    Put,
}

impl Wins {
    /// Whether rows of different stamps have to be shown to each other in both directions, because
    /// the stamps alone do not tell which of them wins.
    pub(crate) fn needs_both(self) -> bool {
        self != Self::Later
    }
}

/// What a merged table is called and how much it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its number on the wire.
    pub id: TableId,
    /// Its name in storage.
    pub name: &'static str,
    /// Most rows, live ones; as many tombstones are kept besides.
    pub rows_max: usize,
    /// Longest value, bytes.
    pub value_bytes_max: usize,
    /// Whether the rows survive `leave` (credentials do, retained messages do not).
    pub keep_on_leave: bool,
    /// Which of two concurrent writes wins.
    pub wins: Wins,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The table now holds it.
    Won,
    /// The table holds the same write or a later one.
    Lost,
    /// The table has [`TableSpec::rows_max`] rows already; nothing changed.
    Full,
    /// Key or value is too long; nothing changed.
    TooLarge,
}

/// One row as it is replicated and stored; no value means deleted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// The write that made it.
    pub stamp: Stamp,
    /// The value, or `None` for a tombstone.
    pub value: Option<Bytes>,
    /// Goes before the stamp in the order of rows; zero in tables where the later write wins.
    pub epoch: Hlc,
}

/// Bytes of an encoded row before its epoch or value: clock 8, site 16, kind 1.
const ROW_HEAD_BYTES: usize = 25;

/// Bits of a stored row's kind.
const KIND_LIVE: u8 = 1;
const KIND_EPOCH: u8 = 2;

impl Row {
    /// A row of a table where the later write wins.
    pub fn new(stamp: Stamp, value: Option<Bytes>) -> Self {
        let epoch = Hlc::default();
        Self {
            stamp,
            value,
            epoch,
        }
    }

    /// Of two rows of one key the greater one stays.
    pub(crate) fn order(&self) -> (Hlc, Stamp) {
        (self.epoch, self.stamp)
    }

    /// The stored form: `hlc u64 be | site 16 | kind u8 | epoch u64 be, if any | value`; kind is 1
    /// if live, plus 2 if there is an epoch.
    pub fn encode(&self) -> Bytes {
        let value = self.value.as_deref().unwrap_or_default();
        let has_epoch = self.epoch != Hlc::default();
        let mut out = BytesMut::with_capacity(ROW_HEAD_BYTES + 8 + value.len());
        out.put_u64(self.stamp.hlc.0);
        out.put_slice(&self.stamp.site.0);
        out.put_u8(u8::from(self.value.is_some()) * KIND_LIVE + u8::from(has_epoch) * KIND_EPOCH);
        if has_epoch {
            out.put_u64(self.epoch.0);
        }
        out.put_slice(value);
        out.freeze()
    }

    /// Reads the stored form; `None` when it is not one.
    pub fn decode(stored: &Bytes) -> Option<Self> {
        let head: &[u8; ROW_HEAD_BYTES] = stored.first_chunk()?;
        let hlc = Hlc(u64::from_be_bytes(*head.first_chunk()?));
        let site = SiteId(head[8..24].try_into().ok()?);
        let mut rest = stored.slice(ROW_HEAD_BYTES..);
        let epoch = match head[24] & KIND_EPOCH {
            0 => Hlc::default(),
            _ => Hlc(rest.try_get_u64().ok()?),
        };
        let value = match head[24] & !KIND_EPOCH {
            0 if rest.is_empty() => None,
            KIND_LIVE => Some(rest),
            _ => return None,
        };
        Some(Self {
            stamp: Stamp { hlc, site },
            value,
            epoch,
        })
    }
}

/// The digest bucket of a key.
pub(crate) fn bucket_of(key: &[u8]) -> u16 {
    (hash(FNV_OFFSET, key) % DIGEST_BUCKETS as u64) as u16
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a with a final mix: both ends of a link must compute the same value in every release.
fn hash(start: u64, bytes: &[u8]) -> u64 {
    let sum = bytes.iter().fold(start, |sum, b| {
        (sum ^ u64::from(*b)).wrapping_mul(FNV_PRIME)
    });
    let mixed = (sum ^ (sum >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// What one row contributes to the digest of its bucket. The stamp names the write, so the value
/// itself need not be hashed.
pub(super) fn row_hash(key: &[u8], stamp: Stamp) -> u64 {
    let sum = hash(FNV_OFFSET, key);
    let sum = hash(sum, &stamp.hlc.0.to_be_bytes());
    hash(sum, &stamp.site.0)
}

/// A cluster-state table shared by the threads of a node.
#[derive(Debug)]
pub struct Merged {
    spec: TableSpec,
    rows: RwLock<Rows>,
}

impl Merged {
    /// An empty table.
    pub fn new(spec: TableSpec) -> Self {
        Self {
            spec,
            rows: RwLock::new(Rows::new()),
        }
    }

    /// What the table is called and may hold.
    pub fn spec(&self) -> &TableSpec {
        &self.spec
    }

    // No method leaves the views half changed, so a poisoned lock protects consistent rows.
    fn reading(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> RwLockWriteGuard<'_, Rows> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The live value of a key.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.reading().get(key)?.value.map(Value::to_bytes)
    }

    /// The row of a key, tombstones included.
    pub fn row(&self, key: &[u8]) -> Option<Row> {
        self.reading().get(key).map(RowRef::to_row)
    }

    /// The stamp of a key's row, tombstones included.
    pub(crate) fn stamp(&self, key: &[u8]) -> Option<Stamp> {
        Some(self.reading().get(key)?.stamp)
    }

    /// Merges one write of a table where the later one wins.
    pub fn put(&self, key: &[u8], value: Option<Bytes>, stamp: Stamp) -> Applied {
        self.merge(key, &Row::new(stamp, value))
    }

    /// The row a write made here and now becomes: it has seen what the table holds.
    pub(crate) fn next(&self, key: &[u8], value: Option<Bytes>, stamp: Stamp) -> Row {
        let live = value.is_some();
        let epoch = match self.spec.wins {
            Wins::Later => Hlc::default(),
            Wins::Delete => match self.row(key) {
                Some(old) if live && old.value.is_some() => old.epoch,
                _ => stamp.hlc,
            },
            Wins::Put if live => stamp.hlc,
            Wins::Put => self.row(key).map(|old| old.epoch).unwrap_or_default(),
        };
        Row {
            stamp,
            value,
            epoch,
        }
    }

    /// Merges one write: the greater row stays.
    pub(crate) fn merge(&self, key: &[u8], row: &Row) -> Applied {
        let value = &row.value;
        let value_bytes = value.as_ref().map_or(0, Bytes::len);
        if key.len() > KEY_BYTES_MAX || value_bytes > self.spec.value_bytes_max {
            return Applied::TooLarge;
        }
        let mut rows = self.writing();
        let found = rows.find(key);
        let old = found.ok().map(|place| rows.at(place));
        if old.is_some_and(|old| old.order() >= row.order()) {
            return Applied::Lost;
        }
        let was_live = old.is_some_and(|row| row.value.is_some());
        if value.is_some() && !was_live && rows.live() >= self.spec.rows_max {
            return Applied::Full;
        }
        rows.put(found, key, row);
        // A table of tombstones only is as bounded as one of rows; the oldest is the likeliest to
        // be known everywhere.
        while rows.tombstones() > self.spec.rows_max && rows.take_oldest() {}
        Applied::Won
    }

    /// A guard for looking at several rows; hold it briefly, writers wait.
    pub fn read(&self) -> MergedRead<'_> {
        MergedRead(self.reading())
    }

    /// Number of live rows.
    pub fn len(&self) -> usize {
        self.reading().live()
    }

    /// Whether there is no live row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tombstones.
    pub fn tombstones(&self) -> usize {
        self.reading().tombstones()
    }

    /// The digest of one bucket; equal buckets hold equal rows.
    pub fn digest(&self, bucket: usize) -> u64 {
        self.reading()
            .digest()
            .get(bucket)
            .copied()
            .unwrap_or_default()
    }

    /// The digests of all buckets.
    pub fn digests(&self) -> Vec<u64> {
        self.reading().digest().to_vec()
    }

    /// Forgets a row altogether, without a tombstone.
    pub(crate) fn forget(&self, key: &[u8]) {
        self.writing().take(key);
    }

    /// Puts in what storage or a join brought, whatever the limits of this configuration are: data
    /// once accepted is never dropped because a limit was lowered.
    pub(crate) fn restore(&self, key: &[u8], row: &Row) {
        if key.len() > KEY_BYTES_MAX {
            // No release has ever taken one.
            tracing::error!(
                table = self.spec.name,
                bytes = key.len(),
                "row_left_out: long_key"
            );
            return;
        }
        let mut rows = self.writing();
        let found = rows.find(key);
        if found.map_or(true, |place| rows.at(place).order() < row.order()) {
            rows.put(found, key, row);
        }
    }

    /// Replaces everything by the rows of `other` at one instant.
    pub(crate) fn replace(&self, other: Self) {
        let rows = other
            .rows
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        *self.writing() = rows;
    }

    /// Tombstones written before `wall_ms`, oldest first, at most `max`.
    pub(crate) fn old_tombstones(&self, wall_ms: u64, max: usize) -> Vec<Box<[u8]>> {
        let rows = self.reading();
        let old = rows
            .oldest()
            .take_while(|(stamp, _)| stamp.hlc.wall_ms() < wall_ms);
        old.take(max).map(|(_, key)| key.into()).collect()
    }
}

/// A consistent view of a table; tombstones are not shown by `get` and `range`.
#[derive(Debug)]
pub struct MergedRead<'a>(RwLockReadGuard<'a, Rows>);

impl MergedRead<'_> {
    /// The live value of a key.
    pub fn get(&self, key: &[u8]) -> Option<Value<'_>> {
        self.0.get(key)?.value
    }

    /// Live rows from `from` on (inclusive), in key order.
    pub fn range(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], Value<'_>)> {
        self.rows(Bound::Included(from))
            .filter_map(|(key, row)| Some((key, row.value?)))
    }

    /// Rows from a bound on, in key order, tombstones included.
    pub fn rows(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&[u8], RowRef<'_>)> {
        self.0.from(from)
    }
}

#[cfg(test)]
mod tests;
