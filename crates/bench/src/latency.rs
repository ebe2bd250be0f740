//! Latencies of an open loop, from the moment a message *had to* be sent.
//!
//! A generator that waits for a slow broker before it sends the next message never sees the
//! messages that would have waited ("coordinated omission"). Here the due time is fixed before
//! the run, so a stall is charged to each message that was due during it.

use hdrhistogram::Histogram;

/// Longer is recorded as this, nanoseconds: one minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Three digits: a value is off by at most a thousandth.
const DIGITS: u8 = 3;

/// A growing record.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

/// What was recorded; times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantiles {
    pub(crate) messages: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, DIGITS);
        Self(histogram.expect("the bounds are constants and in order"))
    }

    /// A message due at `due_ns` arrived at `now_ns`.
    pub(crate) fn record(&mut self, due_ns: u64, now_ns: u64) {
        self.0.saturating_record(now_ns.saturating_sub(due_ns));
    }

    /// `None` if nothing was recorded.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        (!self.0.is_empty()).then(|| Quantiles {
            messages: self.0.len(),
            p50: ms(self.0.value_at_quantile(0.5)),
            p99: ms(self.0.value_at_quantile(0.99)),
            p999: ms(self.0.value_at_quantile(0.999)),
            max: ms(self.0.max()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= expected / 500.0,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantiles(), None);
        for microseconds in 1..=1_000 {
            latencies.record(5_000, 5_000 + microseconds * 1_000);
        }
        let quantiles = latencies.quantiles().expect("1,000 values");
        assert_eq!(quantiles.messages, 1_000);
        close(quantiles.p50, 0.5);
        close(quantiles.p99, 0.99);
        close(quantiles.p999, 0.999);
        close(quantiles.max, 1.0);
    }

    #[test]
    fn a_stall_is_charged_to_every_message_due_in_it() {
        // 1,000 messages, one a millisecond; the broker stands still for the last second half.
        let mut latencies = Latencies::new();
        for index in 0..1_000_u64 {
            let due = index * 1_000_000;
            let arrival = if index < 500 { due } else { 1_000_000_000 };
            latencies.record(due, arrival);
        }
        let quantiles = latencies.quantiles().expect("1,000 values");
        close(quantiles.p99, 490.0);
        close(quantiles.max, 500.0);
    }

    #[test]
    fn a_clock_that_seems_to_run_backwards_is_no_latency() {
        let mut latencies = Latencies::new();
        latencies.record(2_000, 1_000);
        latencies.record(0, u64::MAX);
        let quantiles = latencies.quantiles().expect("two values");
        close(quantiles.max, 60_000.0);
        assert!(quantiles.p50 < 0.002);
    }
}
