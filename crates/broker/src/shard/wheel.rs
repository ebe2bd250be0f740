//! The shard's one clock of deadlines: coarse buckets in time order.
//!
//! A deadline is rounded up to the bucket, so it never fires early and at most one bucket late.
//! Entries are not cancelled: whoever receives one checks whether it still holds, and a keepalive
//! re-arms itself from the time of the last packet. So a busy client costs nothing per packet.

use std::collections::BTreeMap;

/// Width of a bucket in milliseconds: fine enough for a 200 ms SUBACK hold, coarse enough that
/// ten thousand keepalives share few buckets.
pub(crate) const BUCKET_MS: u64 = 50;

/// Deadlines of kind `T`.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    buckets: BTreeMap<u64, Vec<T>>,
    len: usize,
}

impl<T> Wheel<T> {
    pub(crate) fn new() -> Self {
        Self {
            buckets: BTreeMap::new(),
            len: 0,
        }
    }

    /// Arms an entry for `at_ms` (mono).
    pub(crate) fn arm(&mut self, at_ms: u64, entry: T) {
        let bucket = at_ms.saturating_add(BUCKET_MS - 1) / BUCKET_MS;
        self.buckets.entry(bucket).or_default().push(entry);
        self.len += 1;
    }

    /// When the next bucket is due; `u64::MAX` when none is armed.
    pub(crate) fn next_ms(&self) -> u64 {
        self.buckets
            .first_key_value()
            .map_or(u64::MAX, |(bucket, _)| bucket * BUCKET_MS)
    }

    /// Takes one due bucket, or `None` when nothing more is due.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<Vec<T>> {
        let entry = self.buckets.first_entry()?;
        if entry.key() * BUCKET_MS > now_ms {
            return None;
        }
        let due = entry.remove();
        self.len -= due.len();
        Some(due)
    }

    /// Armed entries, stale ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_and_never_early() {
        let mut wheel = Wheel::new();
        wheel.arm(120, 'b');
        wheel.arm(10, 'a');
        assert_eq!(wheel.next_ms(), 50);
        assert_eq!(wheel.pop_due(49), None);
        assert_eq!(wheel.pop_due(119), Some(vec!['a']));
        assert_eq!(wheel.pop_due(149), None);
        assert_eq!(wheel.pop_due(150), Some(vec!['b']));
        assert_eq!((wheel.next_ms(), wheel.len()), (u64::MAX, 0));
    }
}
