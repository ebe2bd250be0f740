//! Concurrent writes that were overwritten: found, counted and said.
//!
//! During a split both sides may write the same key; one write wins, everywhere the same one, and
//! the other is gone. Whoever made it must hear of it. A row that was written on this side after
//! the contact was lost cannot have been seen by the other side, so whatever that puts in its place
//! was written without knowing it. This judges what is reported, never what wins.

use bytes::Bytes;

use crate::clock::{Hlc, Stamp};
use crate::identity::SiteId;
use crate::node::Cluster;
use crate::table::merged::{MEMBERS, Merged, Row};

/// How long before its end a connection may already have been dead, milliseconds: as long as
/// silence on it is borne.
const DEAD_BEFORE_MS: u64 = 2_000;

/// Most conflicts told one by one after a split; the others are counted. A person reads no more.
const TOLD_MAX: u32 = 50;

impl Cluster {
    /// Contact to a member ends: from here on both write without the other.
    pub(crate) fn note_diverging(&mut self, site: SiteId) {
        let since = self.clock.tick(self.now).earlier(DEAD_BEFORE_MS);
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        for table in self.tables.keys().filter(|table| **table != MEMBERS) {
            neighbour.diverged.entry(*table).or_insert(since);
        }
        neighbour.conflicts_told = 0;
    }

    /// The row that is about to meet another one, if anybody may have to hear of it.
    pub(crate) fn before(&self, from: SiteId, table: &Merged, key: &Bytes) -> Option<Row> {
        let spec = table.spec();
        let diverged = || self.neighbours.get(&from)?.diverged.get(&spec.id);
        (diverged().is_some() || spec.wins.needs_both()).then(|| table.row(key))?
    }

    /// A row of another node replaced ours.
    pub(crate) fn note_won(
        &mut self,
        from: SiteId,
        table: &Merged,
        (key, before): (&Bytes, Option<Row>),
        won: &Row,
    ) {
        let Some(old) = before else {
            return;
        };
        let neighbour = self.neighbours.get(&from);
        let since = neighbour.and_then(|n| n.diverged.get(&table.spec().id));
        let unseen = since.is_some_and(|since| old.stamp.hlc > *since);
        let theirs = [from, won.stamp.site].contains(&old.stamp.site);
        // A later stamp beaten by an epoch is a write the winner has not seen, split or not.
        let beaten = old.stamp > won.stamp;
        if (beaten || (unseen && !theirs)) && old.value != won.value {
            self.tell_conflict(Some(from), table, key, won.stamp, &old);
        }
    }

    /// A row of another node lost against ours although it is later: it was written without seeing
    /// what ours deletes, or bans.
    pub(crate) fn note_lost(
        &mut self,
        table: &Merged,
        key: &Bytes,
        before: Option<Row>,
        lost: &Row,
    ) {
        if let Some(kept) = before.filter(|kept| kept.stamp < lost.stamp) {
            self.tell_conflict(None, table, key, kept.stamp, lost);
        }
    }

    fn tell_conflict(
        &mut self,
        from: Option<SiteId>,
        table: &Merged,
        key: &Bytes,
        kept: Stamp,
        lost: &Row,
    ) {
        self.conflicts += 1;
        if let Some(neighbour) = from.and_then(|from| self.neighbours.get_mut(&from)) {
            neighbour.conflicts_told += 1;
            if neighbour.conflicts_told > TOLD_MAX {
                return;
            }
        }
        let (kept_by, lost_by) = (self.name_of(kept.site), self.name_of(lost.stamp.site));
        tracing::warn!(
            table = table.spec().name,
            key = %String::from_utf8_lossy(key),
            kept_ms = kept.hlc.wall_ms(),
            kept_by,
            lost_ms = lost.stamp.hlc.wall_ms(),
            lost_by,
            lost_delete = lost.value.is_none(),
            "concurrent_write_overwritten: both sides of a split wrote it; make the lost change \
             again if it is still wanted"
        );
    }

    fn name_of(&self, site: SiteId) -> String {
        let member = self.member(site);
        member.map_or_else(|| site.to_string(), |member| member.name.to_string())
    }
}

impl Hlc {
    /// The reading this much earlier.
    fn earlier(self, ms: u64) -> Self {
        Self::at(self.wall_ms().saturating_sub(ms))
    }
}
