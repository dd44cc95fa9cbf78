//! How long the log's syncs have taken, for the metrics. The owner of the log counts, anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in seconds: etcd's, from a millisecond up, each twice the one before.
const BOUNDS: usize = 14;
const FIRST_BOUND_S: f64 = 0.001;

#[derive(Debug, Default)]
pub(super) struct SyncTimes {
    /// By the first bound that was not exceeded; the last one is for what exceeded all.
    counts: [AtomicU64; BOUNDS + 1],
    sum_us: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncCounts {
    /// Each upper bound in seconds, and how many syncs did not exceed it.
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    pub sum_s: f64,
}

impl SyncTimes {
    pub(super) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // A bound is 2^n milliseconds.
        let millis = micros.div_ceil(1_000).max(1).next_power_of_two();
        let bucket = (millis.trailing_zeros() as usize).min(BOUNDS);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> SyncCounts {
        let mut count = 0;
        let mut bound_s = FIRST_BOUND_S;
        let mut buckets = Vec::with_capacity(BOUNDS);
        for (bucket, counted) in self.counts.iter().enumerate() {
            count += counted.load(Ordering::Relaxed);
            if bucket < BOUNDS {
                buckets.push((bound_s, count));
                bound_s *= 2.0;
            }
        }
        SyncCounts {
            buckets,
            count,
            sum_s: self.sum_us.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_counted_from_its_bound_on() {
        let times = SyncTimes::default();
        for micros in [1, 1_000, 1_001, 2_000, 2_001, 60_000_000] {
            times.record(Duration::from_micros(micros));
        }
        let counts = times.counts();
        assert_eq!(counts.buckets[..3], [(0.001, 2), (0.002, 4), (0.004, 5)]);
        assert_eq!(counts.buckets.last(), Some(&(8.192, 5)));
        assert_eq!((counts.count, counts.sum_s), (6, 60.006_003));
    }
}
