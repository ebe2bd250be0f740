//! A token bucket over whole milliseconds.

use dunlin_config::settings::Rate;

/// So many per interval, with bursts up to one interval's worth.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// Tokens times `per_ms`, so that refilling needs no fractions.
    level: u64,
    filled_ms: u64,
}

impl Bucket {
    pub(crate) fn new(rate: Rate) -> Self {
        let rate = Rate {
            amount: rate.amount.max(1),
            per_ms: rate.per_ms.max(1),
        };
        Self {
            rate,
            level: rate.amount.saturating_mul(rate.per_ms),
            filled_ms: 0,
        }
    }

    /// Takes one token and returns 0, or takes none and returns after how many milliseconds to try
    /// again.
    pub(crate) fn take(&mut self, mono_ms: u64) -> u64 {
        let elapsed = mono_ms.saturating_sub(self.filled_ms);
        self.filled_ms = mono_ms.max(self.filled_ms);
        let full = self.rate.amount.saturating_mul(self.rate.per_ms);
        let gained = elapsed.saturating_mul(self.rate.amount);
        self.level = self.level.saturating_add(gained).min(full);
        match self.level.checked_sub(self.rate.per_ms) {
            Some(left) => {
                self.level = left;
                0
            }
            None => (self.rate.per_ms - self.level).div_ceil(self.rate.amount),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_an_even_flow() {
        let mut bucket = Bucket::new(Rate {
            amount: 10,
            per_ms: 1000,
        });
        assert!((0..10).all(|_| bucket.take(0) == 0));
        assert_eq!(bucket.take(0), 100);
        assert_eq!(bucket.take(99), 1);
        assert_eq!(bucket.take(100), 0);
        assert_eq!(bucket.take(100), 100);
        assert!((0..10).all(|_| bucket.take(1_000_000) == 0));
        assert_eq!(bucket.take(1_000_000), 100);
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let mut bucket = Bucket::new(Rate {
            amount: u64::MAX,
            per_ms: u64::MAX,
        });
        assert_eq!(bucket.take(u64::MAX), 0);
        let mut bucket = Bucket::new(Rate {
            amount: 0,
            per_ms: 0,
        });
        assert_eq!(bucket.take(0), 0);
    }
}
