//! When this member last heard of its leader. openraft remembers a leader until there is another
//! one; clients must be told that there is none as soon as it has fallen silent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::types::Vote;

#[derive(Debug)]
pub(super) struct Contact {
    started: Instant,
    leader: AtomicU64,
    /// Milliseconds after `started`.
    heard_ms: AtomicU64,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            leader: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
        }
    }
}

impl Contact {
    /// A message of the leader `from`, or of one who believes to be.
    pub(super) fn heard(&self, from: u64, vote: &Vote) {
        if vote.committed && vote.leader_id.voted_for == from {
            self.heard_ms.store(self.now_ms(), Ordering::Relaxed);
            self.leader.store(from, Ordering::Release);
        }
    }

    /// The leader's process has ended.
    pub(super) fn lost(&self, leader: u64) {
        // Only if nobody else has been heard meanwhile.
        self.leader
            .compare_exchange(leader, 0, Ordering::AcqRel, Ordering::Relaxed)
            .ok();
    }

    /// Whether `leader` was heard within this time.
    pub(super) fn is_fresh(&self, leader: u64, time: Duration) -> bool {
        let heard_ms = self.heard_ms.load(Ordering::Relaxed);
        let age_ms = u128::from(self.now_ms().saturating_sub(heard_ms));
        self.leader.load(Ordering::Acquire) == leader && age_ms < time.as_millis()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leader_that_speaks_is_a_leader() {
        let contact = Contact::default();
        let hour = Duration::from_secs(3600);
        assert!(!contact.is_fresh(7, hour));
        contact.heard(7, &Vote::new(3, 7));
        assert!(!contact.is_fresh(7, hour), "a candidate");
        contact.heard(7, &Vote::new_committed(3, 8));
        assert!(!contact.is_fresh(7, hour), "it speaks for another one");
        contact.heard(7, &Vote::new_committed(3, 7));
        assert!(contact.is_fresh(7, hour));
        assert!(!contact.is_fresh(8, hour));
        assert!(!contact.is_fresh(7, Duration::ZERO), "too long ago");
        contact.lost(8);
        assert!(contact.is_fresh(7, hour));
        contact.lost(7);
        assert!(!contact.is_fresh(7, hour));
    }
}
