//! The outcome of one measured window, as one line of JSON that both clients print.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a client saw. The Go program prints the same fields.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub ops: u64,
    pub errors: u64,
    pub seconds: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    pub server_cpu_ms: u64,
    pub client_cpu_ms: u64,
}

/// The latencies of one window, kept whole: percentiles are exact.
#[derive(Debug, Default)]
pub struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        self.micros
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub fn clear(&mut self) {
        self.micros.clear();
    }

    pub fn len(&self) -> usize {
        self.micros.len()
    }

    pub fn is_empty(&self) -> bool {
        self.micros.is_empty()
    }

    /// Fills in the percentiles; costs are the caller's.
    pub fn outcome(mut self, seconds: f64) -> Outcome {
        self.micros.sort_unstable();
        let at = |per_mille: usize| {
            // The smallest value that at least this share does not exceed.
            let rank = (self.micros.len() * per_mille).div_ceil(1_000);
            let index = rank.saturating_sub(1);
            self.micros.get(index).copied().map_or(0, u64::from)
        };
        Outcome {
            ops: self.micros.len() as u64,
            seconds,
            p50_us: at(500),
            p99_us: at(990),
            p999_us: at(999),
            max_us: at(1_000),
            ..Outcome::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let mut latencies = Latencies::default();
        for micros in (1..=1_000).rev() {
            latencies.record(Duration::from_micros(micros));
        }
        let outcome = latencies.outcome(2.0);
        assert_eq!(outcome.ops, 1_000);
        assert_eq!(
            [
                outcome.p50_us,
                outcome.p99_us,
                outcome.p999_us,
                outcome.max_us
            ],
            [500, 990, 999, 1_000]
        );
    }

    #[test]
    fn nothing_measured_is_zero() {
        assert_eq!(Latencies::default().outcome(1.0).p999_us, 0);
    }
}
