//! Wall clocks that are wrong: told apart from time that passed, and reported.
//!
//! Nothing depends on wall clocks being equal, or on their going forward: rows are ordered by the
//! hybrid clock, timers run on monotonic time. What is kept as wall time (since when a member is
//! down) moves along when the clock is set.

use crate::clock::{JUMP_MS, Now, SKEW_REPORT_MS};
use crate::identity::SiteId;
use crate::node::Cluster;
use crate::restore;

/// How a member's wall clock differs from ours, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WallSkew {
    /// The latest two readings, theirs less ours: one that was on its way for long shows them
    /// behind, two in a row hardly do.
    last_ms: Option<i64>,
    before_ms: Option<i64>,
    reported: bool,
}

impl WallSkew {
    /// Milliseconds their clock is ahead of ours, by the reading that says less.
    pub(crate) fn ahead_ms(&self) -> Option<i64> {
        let last_ms = self.last_ms?;
        let before_ms = self.before_ms.unwrap_or(last_ms);
        [last_ms, before_ms].into_iter().min_by_key(|ms| ms.abs())
    }
}

fn offset_ms(now: Now) -> i64 {
    now.wall_ms
        .cast_signed()
        .wrapping_sub(now.mono_ms.cast_signed())
}

/// A time moved with the clock it was read from.
fn moved(wall_ms: u64, by_ms: i64) -> u64 {
    wall_ms.saturating_add_signed(by_ms)
}

impl Cluster {
    /// Notices that somebody has set the wall clock of this host.
    pub(crate) fn watch_clock(&mut self, before: Now) {
        let by_ms = offset_ms(self.now).wrapping_sub(offset_ms(before));
        if by_ms.unsigned_abs() <= JUMP_MS {
            return;
        }
        tracing::warn!(
            by_ms,
            "wall_clock_set: the clock of this host jumped; keep it synchronised (NTP)"
        );
        for (site, since) in &mut self.down_since {
            *since = moved(*since, by_ms);
            self.writes.push(restore::write_down(*site, *since));
        }
        self.operations.since = moved(self.operations.since, by_ms);
        let wall_ms = self.now.wall_ms;
        for neighbour in self.neighbours.values_mut() {
            neighbour.since_wall_ms = moved(neighbour.since_wall_ms, by_ms);
            for synced in neighbour.synced.values_mut() {
                // Set back, a time in what is now the future must not vouch for rows of then.
                *synced = (*synced).min(wall_ms);
            }
        }
        // The others notice the difference by what goes with the digests.
        let linked = self.neighbours.iter().filter(|(_, n)| n.conn.is_some());
        let linked: Vec<_> = linked.map(|(site, _)| *site).collect();
        for site in linked {
            self.send_digests(site);
        }
    }

    /// A member told what its wall clock shows.
    pub(crate) fn note_wall(&mut self, site: SiteId, wall_ms: u64) {
        let ahead_ms = wall_ms
            .cast_signed()
            .wrapping_sub(self.now.wall_ms.cast_signed());
        let Some(neighbour) = self.neighbours.get_mut(&site) else {
            return;
        };
        let skew = &mut neighbour.skew;
        (skew.before_ms, skew.last_ms) = (skew.last_ms.or(Some(ahead_ms)), Some(ahead_ms));
        let ahead_ms = skew.ahead_ms().unwrap_or_default();
        let wrong = ahead_ms.unsigned_abs() > SKEW_REPORT_MS;
        if wrong == skew.reported {
            return;
        }
        skew.reported = wrong;
        let node = &neighbour.name;
        if wrong {
            tracing::warn!(
                %node,
                ahead_ms,
                "clock_skew: the clocks of this host and that node's differ; synchronise both (NTP)"
            );
        } else {
            tracing::info!(%node, ahead_ms, "clock_skew_over");
        }
    }
}
