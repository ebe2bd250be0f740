//! Cluster-state rows on their way: written here, spread as deltas, compared by digest.
//!
//! A delta goes to every member that can be reached, once; nobody forwards it. Whatever was missed
//! is found by comparing bucket digests, on every new link and periodically, and only keys of
//! differing buckets are named, and only rows that are newer are sent.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Stamp;
use crate::connect::Later;
use crate::identity::SiteId;
use crate::input::{Effect, Write};
use crate::node::Cluster;
use crate::peer::Job;
use crate::table::merged::{
    Applied, MEMBERS, Merged, Row, RowRef, TOMBSTONE_KEEP_MS, TableId, bucket_of,
};
use crate::wire::{Buckets, Message, WireRow};

/// How often one member's digests are compared with ours, milliseconds; members take turns. Deltas
/// do the work, this finds what a lost link or a full window left out.
const SYNC_PERIOD_MS: u64 = 10_000;

/// How often old tombstones are looked for and long-down members noted, milliseconds.
pub(crate) const SWEEP_PERIOD_MS: u64 = 5_000;

/// Most tombstones forgotten in one sweep per table, so that a sweep stays short.
const SWEEP_TOMBSTONES: usize = 1_000;

/// First and longest pause before a comparison that found differences is repeated, milliseconds: it
/// shows when the two are equal again, and must not disturb the copying of a large difference.
const RECHECK_FIRST_MS: u64 = 250;
const RECHECK_MAX_MS: u64 = 8_000;

/// How much older than the latest agreement a tombstone must be to be known everywhere,
/// milliseconds: more than wall clocks that nobody watches differ by.
const SYNCED_MARGIN_MS: u64 = 3_600_000;

/// Most rows and most bytes in one message.
const BATCH_ROWS: usize = 512;
const BATCH_BYTES: usize = 256 * 1_024;

/// Most rows looked at per step under the table's lock: well below a millisecond.
const SCAN_ROWS: usize = 4_096;

/// Most keys named in one message.
const BATCH_STAMPS: usize = 1_000;

/// Most jobs queued for one peer; what is dropped beyond is found by the next comparison.
const JOBS_MAX: usize = 64;

/// What a scan found, and the key it stopped after (`None` at the end of the table).
pub(crate) struct Scan<T> {
    pub(crate) found: Vec<T>,
    pub(crate) until: Option<Bytes>,
}

/// Looks at rows after `after` and up to `until`; stops after [`SCAN_ROWS`] rows, `max` results, or
/// results that weigh [`BATCH_BYTES`] together.
pub(crate) fn scan<T>(
    table: &Merged,
    (after, until): (Option<&Bytes>, Option<&Bytes>),
    max: usize,
    mut pick: impl FnMut(&[u8], RowRef<'_>) -> Option<(T, usize)>,
) -> Scan<T> {
    let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
    let (mut found, mut bytes) = (Vec::new(), 0);
    let read = table.read();
    for (seen, (key, row)) in read.rows(from).enumerate() {
        if until.is_some_and(|until| key > &until[..]) {
            break;
        }
        if let Some((item, weight)) = pick(key, row) {
            found.push(item);
            bytes += weight;
        }
        if seen + 1 >= SCAN_ROWS || found.len() >= max || bytes >= BATCH_BYTES {
            return Scan {
                found,
                until: Some(Bytes::copy_from_slice(key)),
            };
        }
    }
    Scan { found, until: None }
}

/// A row as it travels, and its weight.
pub(crate) fn wire_row(key: &[u8], row: RowRef<'_>) -> (WireRow, usize) {
    wire_row_of(Bytes::copy_from_slice(key), row.to_row())
}

/// As [`wire_row`], of a row taken out of its table.
fn wire_row_of(key: Bytes, row: Row) -> (WireRow, usize) {
    let weight = key.len() + row.value.as_ref().map_or(0, Bytes::len);
    (WireRow { key, row }, weight)
}

/// Cuts rows into messages of bounded size.
fn batches(rows: Vec<WireRow>) -> Vec<Vec<WireRow>> {
    let mut out = vec![Vec::new()];
    let mut bytes = 0;
    for row in rows {
        bytes += row.key.len() + row.row.value.as_ref().map_or(0, Bytes::len);
        let Some(batch) = out.last_mut() else { break };
        batch.push(row);
        if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
            bytes = 0;
            out.push(Vec::new());
        }
    }
    out.retain(|batch| !batch.is_empty());
    out
}

/// A row on its way to the disk.
pub(crate) fn put(table: &Merged, key: Bytes, row: &Row) -> Write {
    Write::Put {
        table: table.spec().name.to_owned(),
        key,
        value: row.encode(),
    }
}

impl Cluster {
    /// Writes a row here and now.
    pub(crate) fn put(&mut self, id: TableId, key: Bytes, value: Option<Bytes>) {
        let Some(table) = self.tables.get(&id).cloned() else {
            tracing::error!(table = id.0, "table_not_configured");
            return;
        };
        let row = table.next(&key, value, self.stamp());
        match table.merge(&key, &row) {
            Applied::Won => self.changed(&table, key, row),
            refused => tracing::warn!(table = table.spec().name, ?refused, "row_refused"),
        }
    }

    /// Another thread put a row into the shared table.
    pub(crate) fn wrote(&mut self, id: TableId, key: Bytes, stamp: Stamp) {
        let Some(table) = self.tables.get(&id).cloned() else {
            return;
        };
        // A later write of the same key replaces it, and a replaced table does not have it.
        if let Some(row) = table.row(&key).filter(|row| row.stamp >= stamp) {
            self.changed(&table, key, row);
        }
    }

    fn changed(&mut self, table: &Merged, key: Bytes, row: Row) {
        if self.operations.is_moving() {
            self.fresh.insert((table.spec().id, key.clone()));
        }
        self.persist_row(table, &key, &row);
        self.deltas
            .entry(table.spec().id)
            .or_default()
            .push(WireRow { key, row });
    }

    pub(crate) fn persist_row(&mut self, table: &Merged, key: &Bytes, row: &Row) {
        let id = table.spec().id;
        self.members_changed |= id == MEMBERS;
        if id == MEMBERS && self.operations.is_swapping() {
            // On the disk the members are those of the next cluster already.
            self.fresh.insert((id, key.clone()));
            return;
        }
        // While tables are replaced as well: whoever wrote it waits for the disk, not for the swap.
        self.writes.push(put(table, key.clone(), row));
    }

    /// The fresh rows as memory has them, oldest key first; none are fresh any more.
    pub(crate) fn take_fresh(&mut self) -> Vec<(TableId, WireRow)> {
        let rows = std::mem::take(&mut self.fresh).into_iter();
        rows.filter_map(|(id, key)| {
            let row = self.tables.get(&id)?.row(&key)?;
            Some((id, WireRow { key, row }))
        })
        .collect()
    }

    /// Puts fresh rows into the tables of the next cluster. On the disk they are, perhaps over a
    /// greater row of that cluster: that is written again.
    pub(crate) fn put_fresh(&mut self, rows: Vec<(TableId, WireRow)>) {
        for (id, WireRow { key, row }) in rows {
            let table = self.table(id);
            table.restore(&key, &row);
            if let Some(greater) = table.row(&key).filter(|found| *found != row) {
                self.persist_row(&table, &key, &greater);
            }
        }
    }

    /// Merges rows of another node of this cluster. With `forward`, what is new goes on to the
    /// other members: the node they come from may reach only us.
    pub(crate) fn merge_rows(
        &mut self,
        from: SiteId,
        id: TableId,
        rows: Vec<WireRow>,
        forward: bool,
    ) {
        // A table this release does not have is a later release's; it keeps its rows itself.
        let Some(table) = self.tables.get(&id).cloned() else {
            self.note_later(from, Later::Table(id.0));
            return;
        };
        for WireRow { key, row } in rows {
            if let Err(skew) = self.clock.observe(self.now, row.stamp.hlc) {
                self.skew_refused += 1;
                tracing::warn!(site = %from, table = table.spec().name, %skew, "row_refused");
                continue;
            }
            let before = self.before(from, &table, &key);
            match table.merge(&key, &row) {
                Applied::Lost => {
                    self.note_lost(&table, &key, before, &row);
                    continue;
                }
                Applied::Won => self.note_won(from, &table, (&key, before), &row),
                refused => {
                    tracing::warn!(table = table.spec().name, ?refused, "row_refused");
                    continue;
                }
            }
            self.persist_row(&table, &key, &row);
            self.out.push(Effect::Merged {
                table: id,
                key: key.clone(),
            });
            if forward {
                self.deltas
                    .entry(id)
                    .or_default()
                    .push(WireRow { key, row });
            }
        }
    }

    /// Sends what was written in this call to every member that is up or linked.
    pub(crate) fn spread_deltas(&mut self) {
        for (table, rows) in std::mem::take(&mut self.deltas) {
            for rows in batches(rows) {
                let payload = Message::Rows { table, rows }.encode();
                for site in self.reachable() {
                    self.send_encoded(site, &payload);
                }
            }
        }
    }

    fn reachable(&self) -> Vec<SiteId> {
        let reachable = self
            .neighbours
            .iter()
            .filter(|(_, n)| n.up || n.conn.is_some());
        reachable.map(|(site, _)| *site).collect()
    }

    /// Starts a comparison of all tables with one member.
    pub(crate) fn send_digests(&mut self, site: SiteId) {
        let tables: Vec<(TableId, Arc<Merged>)> = self
            .tables
            .iter()
            .map(|(id, table)| (*id, table.clone()))
            .collect();
        for (table, rows) in tables {
            let (wall_ms, buckets) = (self.now.wall_ms, rows.digests());
            self.send(
                site,
                &Message::Digest {
                    table,
                    wall_ms,
                    buckets,
                },
            );
        }
    }

    pub(crate) fn on_digest(&mut self, site: SiteId, id: TableId, wall_ms: u64, theirs: &[u64]) {
        if id == MEMBERS {
            // Of all tables' digests, which leave together, one is enough to tell the time.
            self.note_wall(site, wall_ms);
        }
        let Some(table) = self.tables.get(&id) else {
            return;
        };
        let buckets = Buckets::differing(&table.digests(), theirs);
        if buckets.is_empty() {
            let now_ms = self.now.wall_ms;
            if let Some(neighbour) = self.neighbours.get_mut(&site) {
                neighbour.synced.insert(id, now_ms);
                neighbour.diverged.remove(&id);
            }
            self.send(site, &Message::InSync { table: id, wall_ms });
            return;
        }
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        let naming = |job: &Job| matches!(job, Job::Name { table, .. } if *table == id);
        if neighbour.jobs.iter().any(naming) {
            // Under way; what it misses is found by the next comparison.
            return;
        }
        self.add_job(
            site,
            Job::Name {
                table: id,
                buckets,
                after: None,
            },
        );
    }

    pub(crate) fn on_in_sync(&mut self, site: SiteId, table: TableId, wall_ms: u64) {
        if let Some(neighbour) = self.neighbours.get_mut(&site) {
            neighbour.synced.insert(table, wall_ms);
            neighbour.diverged.remove(&table);
        }
    }

    /// The peer named its keys of a range: what we have newer is sent, what it has newer asked for.
    pub(crate) fn on_stamps(
        &mut self,
        site: SiteId,
        id: TableId,
        buckets: Buckets,
        (after, until): (Option<Bytes>, Option<Bytes>),
        stamps: Vec<(Bytes, Stamp)>,
    ) {
        let Some(table) = self.tables.get(&id) else {
            return;
        };
        let both = table.spec().wins.needs_both();
        let newer = |(key, theirs): &&(Bytes, Stamp)| {
            let own = table.stamp(key);
            own.is_none_or(|own| own < *theirs || (both && own != *theirs))
        };
        let keys: Vec<_> = stamps
            .iter()
            .filter(newer)
            .map(|(key, _)| key.clone())
            .collect();
        if !keys.is_empty() {
            self.send(site, &Message::Want { table: id, keys });
        }
        let theirs: BTreeMap<Bytes, Stamp> = stamps.into_iter().collect();
        self.add_job(
            site,
            Job::Push {
                table: id,
                buckets,
                after,
                until,
                theirs,
            },
        );
    }

    pub(crate) fn on_want(&mut self, site: SiteId, table: TableId, keys: Vec<Bytes>) {
        if self.tables.contains_key(&table) {
            self.add_job(
                site,
                Job::Give {
                    table,
                    keys: keys.into(),
                },
            );
        }
    }

    fn add_job(&mut self, site: SiteId, job: Job) {
        if let Some(neighbour) = self.neighbours.get_mut(&site)
            && neighbour.jobs.len() < JOBS_MAX
        {
            neighbour.jobs.push_back(job);
        }
    }

    /// Works on comparisons as far as the links have room.
    pub(crate) fn pump_comparisons(&mut self) {
        let busy = self.neighbours.iter().filter(|(_, n)| !n.jobs.is_empty());
        let busy: Vec<_> = busy.map(|(site, _)| *site).collect();
        for site in busy {
            while let Some(neighbour) = self.neighbours.get_mut(&site)
                && neighbour.link.has_room()
                && let Some(job) = neighbour.jobs.pop_front()
            {
                let (message, rest) = self.work(job);
                if let Some(rest) = rest
                    && let Some(neighbour) = self.neighbours.get_mut(&site)
                {
                    neighbour.jobs.push_front(rest);
                }
                if let Some(message) = message {
                    self.send(site, &message);
                }
            }
        }
    }

    /// One step of a job: what to send, and what remains.
    fn work(&self, job: Job) -> (Option<Message>, Option<Job>) {
        match job {
            Job::Name {
                table,
                buckets,
                after,
            } => self.name(table, buckets, after),
            Job::Push {
                table,
                buckets,
                after,
                until,
                theirs,
            } => {
                let (rows, reached) = self.push(table, &buckets, (&after, &until), &theirs);
                let rest = reached.map(|after| Job::Push {
                    table,
                    buckets,
                    after: Some(after),
                    until,
                    theirs,
                });
                (
                    (!rows.is_empty()).then_some(Message::Rows { table, rows }),
                    rest,
                )
            }
            Job::Give { table, mut keys } => {
                let rows = self.give(table, &mut keys);
                let rest = (!keys.is_empty()).then_some(Job::Give { table, keys });
                (
                    (!rows.is_empty()).then_some(Message::Rows { table, rows }),
                    rest,
                )
            }
        }
    }

    /// Names the next keys of some buckets.
    fn name(
        &self,
        table: TableId,
        buckets: Buckets,
        after: Option<Bytes>,
    ) -> (Option<Message>, Option<Job>) {
        let pick = |key: &[u8], row: RowRef<'_>| {
            let named = buckets.contains(bucket_of(key));
            named.then(|| ((Bytes::copy_from_slice(key), row.stamp), key.len()))
        };
        let rows = self.table(table);
        let Scan {
            found: stamps,
            until,
        } = scan(&rows, (after.as_ref(), None), BATCH_STAMPS, pick);
        let rest = until.clone().map(|until| Job::Name {
            table,
            buckets: buckets.clone(),
            after: Some(until),
        });
        let message = Message::Stamps {
            table,
            buckets,
            after,
            until,
            stamps,
        };
        (Some(message), rest)
    }

    /// The next rows of a range that are newer than what the peer named, and how far they go.
    fn push(
        &self,
        table: TableId,
        buckets: &Buckets,
        (after, until): (&Option<Bytes>, &Option<Bytes>),
        theirs: &BTreeMap<Bytes, Stamp>,
    ) -> (Vec<WireRow>, Option<Bytes>) {
        let table = self.table(table);
        let both = table.spec().wins.needs_both();
        let pick = |key: &[u8], row: RowRef<'_>| {
            let newer = |theirs: &Stamp| *theirs < row.stamp || (both && *theirs != row.stamp);
            let wanted = buckets.contains(bucket_of(key)) && theirs.get(key).is_none_or(newer);
            wanted.then(|| wire_row(key, row))
        };
        let range = (after.as_ref(), until.as_ref());
        let Scan { found, until } = scan(&table, range, BATCH_ROWS, pick);
        (found, until)
    }

    fn give(&self, table: TableId, keys: &mut VecDeque<Bytes>) -> Vec<WireRow> {
        let (table, mut rows, mut bytes) = (self.table(table), Vec::new(), 0);
        while bytes < BATCH_BYTES
            && rows.len() < BATCH_ROWS
            && let Some(key) = keys.pop_front()
        {
            if let Some(row) = table.row(&key) {
                let (row, weight) = wire_row_of(key, row);
                bytes += weight;
                rows.push(row);
            }
        }
        rows
    }

    /// Compares with one member per period, in turn.
    pub(crate) fn sync_tick(&mut self) {
        if self.next_sync_ms > self.now.mono_ms {
            return;
        }
        self.next_sync_ms = self.now.mono_ms + SYNC_PERIOD_MS;
        let linked = || {
            self.neighbours
                .iter()
                .filter(|(_, n)| n.conn.is_some())
                .map(|(s, _)| *s)
        };
        let next = linked()
            .find(|site| Some(*site) > self.last_synced)
            .or_else(|| linked().next());
        self.last_synced = next;
        if let Some(site) = next {
            self.send_digests(site);
        }
    }

    /// Has a member's tables compared again soon.
    pub(crate) fn recheck_later(&mut self, site: SiteId) {
        if let Some(neighbour) = self.neighbours.get_mut(&site) {
            let pause_ms = RECHECK_FIRST_MS;
            neighbour.recheck = Some((self.now.mono_ms + pause_ms, pause_ms));
        }
    }

    pub(crate) fn recheck_next_tick(&self) -> u64 {
        let linked = self.neighbours.values().filter(|n| n.conn.is_some());
        let due = linked.filter_map(|n| n.recheck).map(|(due_ms, _)| due_ms);
        due.min().unwrap_or(u64::MAX)
    }

    pub(crate) fn recheck_tick(&mut self) {
        let now_ms = self.now.mono_ms;
        let mut due = Vec::new();
        for (site, neighbour) in &mut self.neighbours {
            let Some((due_ms, pause_ms)) = neighbour.recheck.filter(|_| neighbour.conn.is_some())
            else {
                continue;
            };
            if neighbour.diverged.is_empty() {
                neighbour.recheck = None;
            } else if due_ms <= now_ms {
                let pause_ms = (2 * pause_ms).min(RECHECK_MAX_MS);
                neighbour.recheck = Some((now_ms + pause_ms, pause_ms));
                due.push(*site);
            }
        }
        for site in due {
            self.send_digests(site);
        }
    }

    pub(crate) fn sweep_tick(&mut self) {
        if self.next_sweep_ms > self.now.mono_ms {
            return;
        }
        self.next_sweep_ms = self.now.mono_ms + SWEEP_PERIOD_MS;
        if !self.operations.is_swapping() {
            self.forget_tombstones();
            self.autoclean();
        }
    }

    /// Forgets tombstones that are old and that every member has.
    fn forget_tombstones(&mut self) {
        let tables: Vec<Arc<Merged>> = self.tables.values().cloned().collect();
        for table in tables {
            let synced = self
                .neighbours
                .values()
                .map(|n| n.synced.get(&table.spec().id).copied().unwrap_or_default());
            let known = synced.min().unwrap_or(u64::MAX);
            // A row of a member whose clock is behind is older than it looks.
            let known = known.saturating_sub(SYNCED_MARGIN_MS);
            let before = known.min(self.now.wall_ms.saturating_sub(TOMBSTONE_KEEP_MS));
            for key in table.old_tombstones(before, SWEEP_TOMBSTONES) {
                table.forget(&key);
                let (name, key) = (table.spec().name.to_owned(), Bytes::from(key));
                self.writes.push(Write::Delete { table: name, key });
            }
        }
    }
}
