//! Words with units: durations, byte sizes, percentages, rates, addresses.
//!
//! What is accepted and refused is EMQX's, measured; the error text of each function
//! is the one EMQX prints.

use std::net::IpAddr;

use crate::settings::{Bind, Cidr, Rate, TcpKeepalive};

/// EMQX's text for a value that is no duration.
pub const NOT_A_DURATION: &str = "Not a valid duration";
/// EMQX's text for a value that is no size.
pub const NOT_A_BYTESIZE: &str = "Not a valid bytesize";

/// Milliseconds of `1h30m`, `1.5s`, `2f` (fortnights); units are `f w d h m s ms` in any case.
pub fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(is_decimal).len();
        let tail = &rest[digits..];
        let letters = tail.len()
            - tail
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, next) = tail.split_at(letters);
        let amount = decimal(&rest[..digits])?;
        sum += amount * unit_ms(unit)? as f64;
        rest = next;
    }
    // Half of u64 is 292 million years; beyond it the float has lost the milliseconds.
    (!text.is_empty() && sum < (u64::MAX / 2) as f64).then_some(sum.round() as u64)
}

fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}

fn decimal(text: &str) -> Option<f64> {
    let whole = !text.is_empty() && text.bytes().any(|b| b.is_ascii_digit());
    if whole { text.parse().ok() } else { None }
}

fn unit_ms(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        "f" => 1_209_600_000,
        _ => return None,
    })
}

/// Bytes of `10MB`, `64kb`, `12`; 1024-based, whole numbers only.
pub fn bytesize(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let factor = match &text[digits..] {
        "" | "b" | "B" => 1,
        "kb" | "KB" => 1 << 10,
        "mb" | "MB" => 1 << 20,
        "gb" | "GB" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

/// The fraction that `80%` or `0.8` stands for.
pub fn percent(text: &str) -> Option<f64> {
    let fraction = match text.strip_suffix('%') {
        Some(number) => decimal(number)? / 100.0,
        None => decimal(text)?,
    };
    (0.0..=1.0).contains(&fraction).then_some(fraction)
}

/// `1000/s`, `10MB/10s`, `1.5KB/s`, `100` (per second); `None` also for a rate of nothing.
pub fn rate(text: &str) -> Option<Rate> {
    let (amount, interval) = match text.split_once('/') {
        Some((amount, interval)) => (amount.trim(), interval.trim()),
        None => (text.trim(), "s"),
    };
    let amount = match bytesize(amount) {
        Some(amount) => amount,
        None => fractional_size(amount)?,
    };
    let counted = interval.starts_with(|c: char| c.is_ascii_digit());
    let per_ms = if counted {
        duration_ms(interval)?
    } else {
        unit_ms(interval)?
    };
    (per_ms > 0).then_some(Rate { amount, per_ms })
}

fn fractional_size(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(is_decimal).len();
    let amount = decimal(&text[..digits])?;
    let factor = bytesize(&format!("1{}", &text[digits..]))?;
    let product = amount * factor as f64;
    (product < 1e18).then_some(product.round() as u64)
}

/// `1883`, `:1883`, `0.0.0.0:1883`, `[::]:1883`, `::1:1883`.
pub fn bind(text: &str) -> Option<Bind> {
    let (host, port) = match text.rsplit_once(':') {
        None => ("", text),
        Some(parts) => parts,
    };
    let plain = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = if plain {
        port.parse().ok()?
    } else {
        return None;
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    let host = if bare.is_empty() {
        None
    } else {
        Some(bare.parse::<IpAddr>().ok()?)
    };
    Some(Bind { host, port })
}

/// `192.168.0.0/16`, `10.0.0.1`.
pub fn cidr(text: &str) -> Option<Cidr> {
    let (addr, bits) = match text.split_once('/') {
        Some((addr, bits)) => (addr, Some(bits)),
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().ok()?;
    let width = if addr.is_ipv4() { 32 } else { 128 };
    let prefix_bits = match bits {
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= width)?,
        None => width,
    };
    Some(Cidr { addr, prefix_bits })
}

/// `240,30,5`: idle seconds, interval seconds, probes.
pub fn tcp_keepalive(text: &str) -> Option<TcpKeepalive> {
    let mut numbers = text.split(',').map(|part| part.trim().parse::<u32>().ok());
    let (idle_s, interval_s, probes) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let fine = numbers.next().is_none() && idle_s > 0 && interval_s > 0 && probes > 0;
    fine.then_some(TcpKeepalive {
        idle_s,
        interval_s,
        probes,
    })
}

/// The parts of a list written as one string: commas and spaces separate.
pub fn comma_list(text: &str) -> Vec<String> {
    text.split([',', ' ', '\t', '\n'])
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Minutes east of UTC of `+08:00`.
pub fn time_offset_minutes(text: &str) -> Option<i16> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let number = |part: &str, max: i16| {
        let two = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        two.then(|| part.parse::<i16>().ok())
            .flatten()
            .filter(|n| *n <= max)
    };
    Some(sign * (number(hours, 23)? * 60 + number(minutes, 59)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, expected| assert_eq!(duration_ms(text), expected, "{text:?}");
        check("15s", Some(15_000));
        check("1M", Some(60_000));
        check("1h30m", Some(5_400_000));
        check("1.5h", Some(5_400_000));
        check("2f", Some(2_419_200_000));
        check("1w", Some(604_800_000));
        check("100ms", Some(100));
        check("5MS", Some(5));
        for bad in [
            "", "1 m", "1us", "m", "1", "infinity", "1h30", ".h", "-1s", "1..5s",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn byte_sizes() {
        let check = |text, expected| assert_eq!(bytesize(text), expected, "{text:?}");
        check("1KB", Some(1024));
        check("10mb", Some(10 << 20));
        check("1GB", Some(1 << 30));
        check("17", Some(17));
        check("5b", Some(5));
        for bad in [
            "1Mb",
            "1.5MB",
            "1KiB",
            "1 MB",
            "MB",
            "",
            "-1KB",
            "99999999999999999999GB",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn percentages_and_rates() {
        assert_eq!(percent("80%"), Some(0.8));
        assert_eq!(percent("0.5"), Some(0.5));
        for bad in ["", "%", "101%", "80 %", "-1%", "x"] {
            assert_eq!(percent(bad), None, "{bad:?}");
        }
        let check = |text, amount, per_ms| {
            assert_eq!(rate(text), Some(Rate { amount, per_ms }), "{text:?}");
        };
        check("1000/s", 1000, 1000);
        check("10MB/10s", 10 << 20, 10_000);
        check("1.5KB/s", 1536, 1000);
        check("60/m", 60, 60_000);
        check("7", 7, 1000);
        for bad in ["", "/s", "x/s", "10/", "10/0s", "10/x", "infinity"] {
            assert_eq!(rate(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses() {
        let check = |text, shown| {
            assert_eq!(
                bind(text).map(|b| b.to_string()).as_deref(),
                Some(shown),
                "{text}"
            );
        };
        check("1883", ":1883");
        check(":1883", ":1883");
        check("0.0.0.0:1883", "0.0.0.0:1883");
        check("[::]:1883", "[::]:1883");
        check("::1:1883", "[::1]:1883");
        for bad in [
            "",
            ":",
            "1.2.3.4:",
            "host:1883",
            "1.2.3.4:65536",
            "1.2.3.4",
            "1.2.3:1",
            "+1",
        ] {
            assert_eq!(bind(bad), None, "{bad:?}");
        }
        let net = cidr("192.168.0.0/16").expect("valid");
        assert!(net.contains("192.168.7.1".parse().expect("valid")));
        assert!(!net.contains("192.169.7.1".parse().expect("valid")));
        assert!(
            cidr("0.0.0.0/0")
                .expect("valid")
                .contains("8.8.8.8".parse().expect("valid"))
        );
        assert_eq!(cidr("1.2.3.4/33"), None);
    }

    #[test]
    fn small_formats() {
        assert_eq!(comma_list("a@b, c@d  e"), ["a@b", "c@d", "e"]);
        assert_eq!(time_offset_minutes("+08:30"), Some(510));
        assert_eq!(time_offset_minutes("-02:00"), Some(-120));
        for bad in ["8:00", "+8:00", "+24:00", "+08:60", "", "+"] {
            assert_eq!(time_offset_minutes(bad), None, "{bad:?}");
        }
        let keepalive = TcpKeepalive {
            idle_s: 240,
            interval_s: 30,
            probes: 5,
        };
        assert_eq!(tcp_keepalive("240,30,5"), Some(keepalive));
        assert_eq!(tcp_keepalive("240,30"), None);
    }
}
