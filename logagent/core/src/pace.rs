//! How many lines per second an entry may send. Delays, never drops.
//!
//! A bucket of lines that fills at the rate and holds at most `burst`. Times are given, not read.

use schemas::objects::Rate;

/// Lines are counted in thousandths, so that a slow rate fills evenly.
const PER_LINE: u64 = 1_000;
/// Lines of so long are sent together.
const WAKE_MS: u64 = 50;

/// See the module's words.
#[derive(Debug, Clone)]
pub struct Pace {
    rate: Rate,
    /// In thousandths of a line.
    burst: u64,
    level: u64,
    filled_ms: u64,
}

impl Pace {
    /// Full at first.
    #[must_use]
    pub fn new(rate: &Rate, now_ms: u64) -> Self {
        let burst = u64::from(rate.burst.unwrap_or(rate.lines_per_s)) * PER_LINE;
        Self {
            rate: *rate,
            burst,
            level: burst,
            filled_ms: now_ms,
        }
    }

    #[must_use]
    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Takes one line out of the bucket; when there is none, the time at which there will be some:
    /// waking for each line of a fast entry would cost more than the lines.
    pub fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        // Lines per second are thousandths of a line per millisecond.
        let passed_ms = now_ms.saturating_sub(self.filled_ms);
        let lines_per_s = u64::from(self.rate.lines_per_s);
        let filled = passed_ms.saturating_mul(lines_per_s);
        self.level = self.level.saturating_add(filled).min(self.burst);
        self.filled_ms = self.filled_ms.max(now_ms);
        if self.level >= PER_LINE {
            self.level -= PER_LINE;
            return Ok(());
        }
        let some = (lines_per_s * WAKE_MS).clamp(PER_LINE, self.burst);
        Err(self.filled_ms + (some - self.level).div_ceil(lines_per_s))
    }

    /// Puts back what was taken for lines that were not sent.
    pub fn put_back(&mut self, lines: u64) {
        self.level = (self.level + lines * PER_LINE).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(lines_per_s: u32, burst: Option<u32>) -> Pace {
        Pace::new(&Rate { lines_per_s, burst }, 1_000)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut pace = pace(10, Some(3));
        assert_eq!((0..3).filter(|_| pace.take(1_000).is_ok()).count(), 3);
        assert_eq!(pace.take(1_000), Err(1_100));
        assert_eq!(pace.take(1_099), Err(1_100));
        assert_eq!(pace.take(1_100), Ok(()));
        assert_eq!(pace.take(1_150), Err(1_200));
        pace.put_back(1);
        assert_eq!(pace.take(1_150), Ok(()));
    }

    proptest! {
        /// Never more than the burst and what the time allows; who waits as told gets all of that.
        #[test]
        fn keeps_the_rate(lines_per_s in 1..5_000_u32, burst in 1..50_u32, lines in 1..300_u64) {
            let mut pace = pace(lines_per_s, Some(burst));
            let mut now_ms = 1_000;
            for _ in 0..lines {
                while let Err(until_ms) = pace.take(now_ms) {
                    prop_assert!(until_ms > now_ms);
                    now_ms = until_ms;
                }
            }
            let waited_ms = now_ms - 1_000;
            let rate = u64::from(lines_per_s);
            let beyond_burst = lines.saturating_sub(burst.into());
            prop_assert!(waited_ms * rate >= beyond_burst * 1_000);
            // A bucket that is full before its lines are fetched wastes what runs over.
            let fetched = (rate * WAKE_MS).max(PER_LINE) + rate;
            if u64::from(burst) * PER_LINE >= fetched {
                prop_assert!(waited_ms <= (beyond_burst * 1_000).div_ceil(rate) + WAKE_MS + 1);
            }
        }
    }
}
