//! What a joiner has been given and its disk has not.
//!
//! A copy comes faster than a disk takes it. Beyond a limit the joiner leaves the rest on its
//! connection, so the target stops at its window, and memory is bounded whatever the cluster holds.

use std::collections::BTreeMap;

/// Most bytes of keys and rows that wait for the disk: several of the store's transactions, so that
/// it never waits for the network.
pub(crate) const BACKLOG_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// The rows of a copy that are not durable yet.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Of the call being handled, which become one batch at its end.
    gathered: usize,
    /// Bytes by token.
    batches: BTreeMap<u64, usize>,
    bytes: usize,
}

impl Backlog {
    pub(crate) fn gather(&mut self, bytes: usize) {
        self.gathered += bytes;
        self.bytes += bytes;
    }

    /// What was gathered is on its way to the disk.
    pub(crate) fn persisting(&mut self, token: u64) {
        if self.gathered > 0 {
            self.batches
                .insert(token, std::mem::take(&mut self.gathered));
        }
    }

    /// The disk has answered, one way or the other. True if there is room that was not there.
    pub(crate) fn persisted(&mut self, token: u64) -> bool {
        let was_full = self.is_full();
        self.bytes -= self.batches.remove(&token).unwrap_or_default();
        was_full && !self.is_full()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BACKLOG_BYTES_MAX
    }
}
