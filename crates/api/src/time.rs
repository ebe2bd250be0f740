//! Points in time as the API and the command line show them.

/// Days from 0000-03-01, where this file's calendar starts, to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;
const DAYS_IN_400_YEARS: u64 = 146_097;
const DAY_MS: u64 = 86_400_000;

/// A point in time in RFC 3339, UTC, with milliseconds.
pub fn rfc3339(wall_ms: u64) -> String {
    let (year, month, day) = date(wall_ms / DAY_MS);
    let (seconds, ms) = (wall_ms % DAY_MS / 1000, wall_ms % 1000);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}+00:00",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Days since 1970-01-01 to a date. Years are counted from March, so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + EPOCH_DAYS;
    let era = shifted / DAYS_IN_400_YEARS;
    let of_era = shifted % DAYS_IN_400_YEARS;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Reads RFC 3339 (`2026-11-23T03:58:30+01:00`, `…Z`, with or without a fraction) as milliseconds
/// since the epoch; `None` for anything else and for times before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let mark = |at: usize, marks: &[u8]| text.as_bytes().get(at).is_some_and(|b| marks.contains(b));
    if ![4, 7].iter().all(|&at| mark(at, b"-")) || ![13, 16].iter().all(|&at| mark(at, b":")) {
        return None;
    }
    if !mark(10, b"Tt ") {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let days = days_since_epoch(year, month, day)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ms, zone) = fraction(&text[19..])?;
    let local_ms = days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000 + fraction_ms;
    let offset_ms = zone_minutes(zone)? * 60_000;
    u64::try_from(i64::try_from(local_ms).ok()? - offset_ms).ok()
}

/// The inverse of `date`; `None` if there is no such day.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let of_era = (shifted % 400) * 365 + (shifted % 400) / 4 - (shifted % 400) / 100 + of_year;
    let days = (shifted / 400) * DAYS_IN_400_YEARS + of_era - EPOCH_DAYS;
    (date(days) == (year, month, day)).then_some(days)
}

/// Splits `.457Z` into milliseconds and the zone.
fn fraction(rest: &str) -> Option<(u64, &str)> {
    let Some(digits) = rest.strip_prefix('.') else {
        return Some((0, rest));
    };
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    if end == 0 {
        return None;
    }
    let ms: String = digits[..end].chars().chain("00".chars()).take(3).collect();
    Some((ms.parse().ok()?, &digits[end..]))
}

/// Minutes east of UTC.
fn zone_minutes(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let two = |t: &str| {
        (t.len() == 2)
            .then(|| t.parse::<u8>().ok())
            .flatten()
            .map(i64::from)
    };
    Some(sign * (two(hours)? * 60 + two(minutes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000+00:00");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000+00:00");
        assert_eq!(rfc3339(1_795_406_310_457), "2026-11-23T03:58:30.457+00:00");
    }

    #[test]
    fn times_are_read_back() {
        for ms in [0, 951_782_400_000, 1_795_406_310_457, 4_102_444_800_999] {
            assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
        }
        assert_eq!(parse_rfc3339("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_rfc3339("1970-01-01 00:00:01.5z"), Some(1500));
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00-00:30"), Some(1_800_000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "infinity",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T03:58:30",
            "2026-11-23T03:58:30.Z",
            "2026-11-23T03:58:30+1:00",
            "2026x11-23T03:58:30Z",
            "2026-11-23T03:58:30é",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
