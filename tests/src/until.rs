//! Waiting for something to become true, with a deadline and a good last word.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks: short beside what is waited for, long beside the cost of a look.
const PARK: Duration = Duration::from_millis(10);

/// Looks until `condition` holds; an error says `what` was awaited. Returns how long it took.
pub fn until(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let outcome = condition();
        if matches!(outcome, Ok(true)) {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            match outcome {
                Ok(_) => bail!("not within {limit:?}: {what}"),
                Err(error) => return Err(error.context(format!("not within {limit:?}: {what}"))),
            }
        }
        thread::park_timeout(PARK);
    }
}

/// Looks until `observe` gives `expected`; an error shows what it gave last.
pub fn until_eq<T: PartialEq + Debug>(
    limit: Duration,
    what: &str,
    expected: &T,
    mut observe: impl FnMut() -> Result<T>,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let seen = observe();
        if matches!(&seen, Ok(seen) if seen == expected) {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            bail!("not within {limit:?}: {what}\n  expected {expected:?}\n  last     {seen:?}");
        }
        thread::park_timeout(PARK);
    }
}
