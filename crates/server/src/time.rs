//! The clocks of the shell: the only place that reads them for the cores.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dunlin_cluster::Now;

/// The instant that counts as zero on the monotonic clock.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Both clocks now.
pub(crate) fn now() -> Now {
    Now {
        mono_ms: origin().elapsed().as_millis() as u64,
        wall_ms: wall_ms(),
    }
}

/// Milliseconds since the epoch.
pub(crate) fn wall_ms() -> u64 {
    // A clock before 1970 is set wrong; zero is as good as any answer and is noticed.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// The instant of a moment on the cores' monotonic clock.
pub(crate) fn instant(mono_ms: u64) -> Instant {
    // `u64::MAX` means never; a month keeps the arithmetic and tokio's timer in range.
    const FAR: Duration = Duration::from_hours(30 * 24);
    let at = Duration::from_millis(mono_ms);
    origin() + at.min(origin().elapsed() + FAR)
}

/// Microseconds since the epoch.
pub(crate) fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}

/// A moment in the form of RFC 3339, in a fixed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339 {
    at_us: u64,
    offset_minutes: i16,
    /// Digits of the fraction: 3 or 6.
    digits: usize,
}

impl Rfc3339 {
    /// With microseconds.
    pub fn micros(at_us: u64, offset_minutes: i16) -> Self {
        Self {
            at_us,
            offset_minutes,
            digits: 6,
        }
    }

    /// With milliseconds, in UTC.
    pub fn millis(at_ms: u64) -> Self {
        Self {
            at_us: at_ms.saturating_mul(1000),
            offset_minutes: 0,
            digits: 3,
        }
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local_s = (self.at_us / 1_000_000) as i64 + i64::from(self.offset_minutes) * 60;
        let (days, second) = (local_s.div_euclid(86_400), local_s.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}."
        )?;
        let fraction = self.at_us % 1_000_000;
        if self.digits == 3 {
            write!(f, "{:03}", fraction / 1000)?;
        } else {
            write!(f, "{fraction:06}")?;
        }
        let sign = if self.offset_minutes < 0 { '-' } else { '+' };
        let offset = self.offset_minutes.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", offset / 60, offset % 60)
    }
}

/// Year, month and day of a day since the epoch, by the Gregorian calendar (Howard Hinnant's
/// `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_their_date() {
        let check = |at_us, offset, text: &str| {
            assert_eq!(Rfc3339::micros(at_us, offset).to_string(), text);
        };
        check(0, 0, "1970-01-01T00:00:00.000000+00:00");
        check(1_795_406_682_872_624, 0, "2026-11-23T04:04:42.872624+00:00");
        check(
            1_709_164_799_000_000,
            60,
            "2024-02-29T00:59:59.000000+01:00",
        );
        check(951_782_400_000_000, -90, "2000-02-28T22:30:00.000000-01:30");
        assert_eq!(
            Rfc3339::millis(1_709_164_800_007).to_string(),
            "2024-02-29T00:00:00.007+00:00"
        );
    }

    #[test]
    fn never_is_far_but_in_range() {
        assert!(instant(u64::MAX) > Instant::now() + Duration::from_hours(24));
        assert!(instant(0) <= Instant::now());
    }
}
