//! How long to wait before the center is tried again. Pure arithmetic over a clock that is given.
//!
//! A restart of the center takes a second or so: while an outage is young, tries are close
//! together, so that an agent is back almost as soon as the center is. An outage that lasts is met
//! with patience. Every pause is jittered, differently on every host, so that a center that comes
//! back is not met by all of them at once.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(25);
/// An outage is young for this long.
const YOUNG: Duration = Duration::from_secs(5);
const YOUNG_MAX: Duration = Duration::from_millis(200);
const OLD_MAX: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Backoff {
    since: Option<Instant>,
    pause: Duration,
    jitter: RandomState,
    attempts: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            since: None,
            pause: FIRST,
            jitter: RandomState::new(),
            attempts: 0,
        }
    }
}

impl Backoff {
    /// The center answered.
    pub fn reset(&mut self) {
        self.since = None;
        self.pause = FIRST;
    }

    /// The pause after one more failure.
    pub fn next_pause(&mut self, now: Instant) -> Duration {
        let since = *self.since.get_or_insert(now);
        let is_young = now.saturating_duration_since(since) < YOUNG;
        let max = if is_young { YOUNG_MAX } else { OLD_MAX };
        let full = self.pause.min(max);
        self.pause = (full * 2).min(OLD_MAX);
        self.attempts += 1;
        let random = self.jitter.hash_one(self.attempts) as f64 / u64::MAX as f64;
        full.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_outage_is_met_with_haste_and_an_old_one_with_patience() {
        let mut backoff = Backoff::default();
        let began = Instant::now();
        let mut now = began;
        let mut tries_in_a_second = 0;
        assert!(backoff.next_pause(now) <= FIRST);
        while now < began + YOUNG {
            let pause = backoff.next_pause(now);
            assert!(pause <= YOUNG_MAX, "{pause:?}");
            now += pause;
            tries_in_a_second += usize::from(now < began + Duration::from_secs(1));
        }
        assert!(tries_in_a_second >= 5, "{tries_in_a_second}");
        for _ in 0..8 {
            now += backoff.next_pause(now);
        }
        let pause = backoff.next_pause(now);
        assert!(pause >= OLD_MAX / 2 && pause <= OLD_MAX, "{pause:?}");
        backoff.reset();
        assert!(backoff.next_pause(now) <= FIRST);
    }
}
