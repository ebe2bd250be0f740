//! Time as values, and the hybrid logical clock that orders writes of different nodes.
//!
//! The clock never reads the system's: every call takes `Now`. It must never go backwards, also
//! when the wall clock does. A member whose wall clock is ahead takes the others' hybrid clocks
//! with it: their order stays right, while refusing its rows would leave tables that differ until
//! the wall clocks have caught up. Differences are reported ([`SKEW_REPORT_MS`]), not punished.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::identity::SiteId;

/// How far the wall clocks of two members may differ before it is reported, milliseconds. Hosts
/// that synchronise differ by milliseconds, hosts that do not drift by seconds per day; while they
/// differ, the one ahead wins the conflicts of a split.
pub const SKEW_REPORT_MS: u64 = 5_000;

/// How far the wall clock may move between two readings without time having passed, milliseconds,
/// before it counts as set by somebody; synchronisation moves it in far smaller steps.
pub(crate) const JUMP_MS: u64 = 1_000;

/// The latest reading taken over from others, milliseconds since 1970: the year 6429, which no real
/// clock shows. It keeps the counter from overflowing.
const WALL_MS_MAX: u64 = 1 << 47;

/// Bits of a reading that count within one millisecond.
const COUNTER_BITS: u32 = 16;

/// One reading of the driver's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic milliseconds since an arbitrary start.
    pub mono_ms: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// A reading of the hybrid clock: 48 bits of wall milliseconds, 16 bits of counter.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first reading of a millisecond.
    pub(crate) fn at(wall_ms: u64) -> Self {
        Self(wall_ms << COUNTER_BITS)
    }

    /// The wall-clock part, milliseconds since 1970.
    pub fn wall_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

/// When and where a row was written; totally ordered, never equal for two writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The writer's hybrid clock.
    pub hlc: Hlc,
    /// The writer.
    pub site: SiteId,
}

/// A stamp shows a time that no clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("clock is {ahead_ms} ms ahead of ours; set the clock of that host right (NTP)")]
pub struct Skew {
    /// How far ahead, milliseconds.
    pub ahead_ms: u64,
}

/// The hybrid logical clock of one node, shared by its threads.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// A clock that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A fresh reading, greater than every earlier one and every one observed.
    pub fn tick(&self, now: Now) -> Hlc {
        let wall = now.wall_ms << COUNTER_BITS;
        let mut last = self.0.load(Ordering::Relaxed);
        loop {
            // A counter that overflows carries into the milliseconds, which keeps the order.
            let next = wall.max(last + 1);
            match self
                .0
                .compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Hlc(next),
                Err(seen) => last = seen,
            }
        }
    }

    /// What the clock shows, without a reading of its own: not less than every earlier one, and
    /// less than every later reading, also if the wall clock is set back meanwhile.
    pub(crate) fn shows(&self, now: Now) -> Hlc {
        let wall = Hlc::at(now.wall_ms);
        wall.max(Hlc(self.0.fetch_max(wall.0, Ordering::Relaxed)))
    }

    /// Takes note of another node's reading; refuses one that no clock shows.
    pub fn observe(&self, now: Now, seen: Hlc) -> Result<(), Skew> {
        if seen.wall_ms() > WALL_MS_MAX {
            let ahead_ms = seen.wall_ms().saturating_sub(now.wall_ms);
            return Err(Skew { ahead_ms });
        }
        self.0.fetch_max(seen.0, Ordering::Relaxed);
        Ok(())
    }

    /// Takes note of a reading from our own disk, whatever the wall clock says: going behind what
    /// we wrote ourselves would lose our next writes.
    pub fn restore(&self, seen: Hlc) {
        self.0.fetch_max(seen.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: u64) -> Now {
        Now {
            mono_ms: 0,
            wall_ms,
        }
    }

    #[test]
    fn readings_grow_even_when_the_wall_clock_goes_back() {
        let clock = Clock::new();
        let first = clock.tick(at(1_000));
        let second = clock.tick(at(900));
        let third = clock.tick(at(1_001));
        assert!(first < second && second < third);
        assert_eq!(
            (first.wall_ms(), second.wall_ms(), third.wall_ms()),
            (1_000, 1_000, 1_001)
        );
    }

    #[test]
    fn a_reading_is_later_than_what_the_clock_showed_before_it_was_set_back() {
        let clock = Clock::new();
        let shown = clock.shows(at(5_000));
        assert!(clock.shows(at(1_000)) >= shown);
        assert!(clock.tick(at(1_000)) > shown);
        assert!(clock.shows(at(6_000)) > shown);
    }

    #[test]
    fn an_observed_reading_is_exceeded_by_the_next() {
        let clock = Clock::new();
        let seen = Hlc((5_000 << 16) + 7);
        clock.observe(at(1_000), seen).expect("within the limit");
        assert!(clock.tick(at(1_000)) > seen);
    }

    #[test]
    fn a_reading_of_hours_ahead_is_taken_and_one_no_clock_shows_is_not() {
        let clock = Clock::new();
        let hours = 10 * 3_600_000;
        clock
            .observe(at(1_000), Hlc(hours << 16))
            .expect("a clock that was set wrong");
        assert_eq!(clock.tick(at(1_000)).wall_ms(), hours);
        let absurd = Hlc((WALL_MS_MAX + 1) << 16);
        let ahead_ms = WALL_MS_MAX + 1 - 1_000;
        assert_eq!(clock.observe(at(1_000), absurd), Err(Skew { ahead_ms }));
        assert_eq!(clock.tick(at(1_000)).wall_ms(), hours);
    }
}
