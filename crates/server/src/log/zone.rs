//! The machine's time zone, from `/etc/localtime` (RFC 8536), for log lines.

use std::fs;

/// Minutes east of UTC at a time, in seconds since the epoch; 0 if the zone cannot be read.
pub(crate) fn system_offset_minutes(at_s: u64) -> i16 {
    let path = match std::env::var("TZ") {
        Ok(zone) if zone.is_empty() || zone == "UTC" => return 0,
        Ok(zone) => format!("/usr/share/zoneinfo/{}", zone.trim_start_matches(':')),
        Err(_) => "/etc/localtime".to_owned(),
    };
    let offset_s = fs::read(path)
        .ok()
        .and_then(|file| offset_at(&file, at_s as i64));
    (offset_s.unwrap_or(0) / 60) as i16
}

/// Reads the 32-bit part of a `TZif` file, which every writer still fills in and which reaches to
/// 2037; after its last transition its last offset is used.
fn offset_at(file: &[u8], at_s: i64) -> Option<i32> {
    const HEAD_BYTES: usize = 44;
    if file.get(..4)? != b"TZif" {
        return None;
    }
    let count = |index: usize| {
        let at = 20 + 4 * index;
        Some(u32::from_be_bytes(file.get(at..at + 4)?.try_into().ok()?) as usize)
    };
    let (transitions, types) = (count(3)?, count(4)?);
    let times = file.get(HEAD_BYTES..)?.get(..transitions.checked_mul(4)?)?;
    let indexes = file
        .get(HEAD_BYTES + transitions * 4..)?
        .get(..transitions)?;
    let records = file
        .get(HEAD_BYTES + transitions * 5..)?
        .get(..types.checked_mul(6)?)?;
    let passed = times
        .chunks_exact(4)
        .filter_map(|time| Some(i32::from_be_bytes(time.try_into().ok()?)))
        .take_while(|time| i64::from(*time) <= at_s)
        .count();
    let index = if passed == 0 {
        0
    } else {
        usize::from(indexes[passed - 1])
    };
    let record = records.chunks_exact(6).nth(index)?;
    Some(i32::from_be_bytes(record.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zone that is one hour ahead from second 1000 on and two from second 2000 on.
    fn zone() -> Vec<u8> {
        let mut file = b"TZif".to_vec();
        file.extend([0; 16]);
        for count in [0u32, 0, 0, 2, 3, 0] {
            file.extend(count.to_be_bytes());
        }
        file.extend(1000i32.to_be_bytes());
        file.extend(2000i32.to_be_bytes());
        file.extend([1, 2]);
        for offset in [0i32, 3600, 7200] {
            file.extend(offset.to_be_bytes());
            file.extend([0, 0]);
        }
        file
    }

    #[test]
    fn the_last_transition_passed_counts() {
        let zone = zone();
        assert_eq!(offset_at(&zone, 0), Some(0));
        assert_eq!(offset_at(&zone, 1000), Some(3600));
        assert_eq!(offset_at(&zone, 1999), Some(3600));
        assert_eq!(offset_at(&zone, 1 << 40), Some(7200));
    }

    #[test]
    fn a_damaged_file_is_no_zone() {
        let zone = zone();
        for length in 0..zone.len() {
            assert_eq!(offset_at(&zone[..length], 5000), None, "{length}");
        }
        assert_eq!(
            offset_at(b"no zone at all, but long enough to have a head in it", 0),
            None
        );
    }
}
