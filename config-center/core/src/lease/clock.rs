//! When leases run out, as a function of the `now_ms` that the caller passes in (monotonic).

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

/// An expired lease is offered again when its revocation was not applied for so long.
pub const RETRY_MS: u64 = 3_000;

#[derive(Debug, Clone, Copy)]
struct Deadline {
    ttl_s: i64,
    at_ms: u64,
    /// The lease's place in the queue: its deadline, or the next retry after it.
    due_ms: u64,
}

/// Deadlines of the leases this member knows. Only the leader acts on them.
#[derive(Debug, Default)]
pub struct LeaseClock {
    deadlines: FxHashMap<i64, Deadline>,
    /// `(due_ms, id)`, so that the next one is found without a scan.
    queue: BTreeSet<(u64, i64)>,
}

impl LeaseClock {
    /// A lease was granted, or is known from the restored state.
    pub fn granted(&mut self, id: i64, ttl_s: i64, now_ms: u64) {
        self.revoked(id);
        let at_ms = deadline_ms(ttl_s, now_ms);
        let due_ms = at_ms;
        self.deadlines.insert(
            id,
            Deadline {
                ttl_s,
                at_ms,
                due_ms,
            },
        );
        self.queue.insert((due_ms, id));
    }

    /// Gives the lease its full TTL again and returns it; `None` when it is unknown or has run out.
    /// A lease that has run out is as good as revoked: its holder must not be told otherwise.
    pub fn renew(&mut self, id: i64, now_ms: u64) -> Option<i64> {
        let deadline = self.deadlines.get(&id)?;
        if deadline.at_ms <= now_ms {
            return None;
        }
        let ttl_s = deadline.ttl_s;
        self.granted(id, ttl_s, now_ms);
        Some(ttl_s)
    }

    /// The revocation was applied: forget the lease.
    pub fn revoked(&mut self, id: i64) {
        if let Some(deadline) = self.deadlines.remove(&id) {
            self.queue.remove(&(deadline.due_ms, id));
        }
    }

    /// Up to `limit` leases that have run out, the oldest first. They stay known until they are
    /// revoked, and are offered again only after `RETRY_MS`.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Vec<i64> {
        let mut ids = Vec::new();
        while ids.len() < limit
            && let Some(&(due_ms, id)) = self.queue.first()
            && due_ms <= now_ms
        {
            self.queue.pop_first();
            let retry_ms = now_ms.saturating_add(RETRY_MS);
            if let Some(deadline) = self.deadlines.get_mut(&id) {
                deadline.due_ms = retry_ms;
                self.queue.insert((retry_ms, id));
                ids.push(id);
            }
        }
        ids
    }

    /// Whole seconds left (0 when run out, but not revoked yet); `None` when unknown.
    #[must_use]
    pub fn remaining_s(&self, id: i64, now_ms: u64) -> Option<i64> {
        let deadline = self.deadlines.get(&id)?;
        let left_s = deadline.at_ms.saturating_sub(now_ms) / 1000;
        Some(i64::try_from(left_s).unwrap_or(i64::MAX))
    }

    /// This member became the leader: every lease gets its full TTL from now. The holders could not
    /// renew while there was no leader.
    pub fn promote(&mut self, now_ms: u64) {
        self.queue.clear();
        for (id, deadline) in &mut self.deadlines {
            deadline.at_ms = deadline_ms(deadline.ttl_s, now_ms);
            deadline.due_ms = deadline.at_ms;
            self.queue.insert((deadline.due_ms, *id));
        }
    }

    /// When `expired` can next have something to say; `None` without leases.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.queue.first().map(|(due_ms, _)| *due_ms)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }
}

fn deadline_ms(ttl_s: i64, now_ms: u64) -> u64 {
    let ttl_ms = u64::try_from(ttl_s).unwrap_or(0).saturating_mul(1000);
    now_ms.saturating_add(ttl_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_out_at_its_deadline_and_not_before() {
        let mut clock = LeaseClock::default();
        clock.granted(7, 5, 1_000);
        assert_eq!(clock.next_due_ms(), Some(6_000));
        assert_eq!(clock.remaining_s(7, 1_000), Some(5));
        assert_eq!(
            clock.remaining_s(7, 1_001),
            Some(4),
            "whole seconds, floored"
        );
        assert_eq!(clock.expired(5_999, 10), Vec::<i64>::new());
        assert_eq!(clock.expired(6_000, 10), vec![7]);
        assert_eq!(clock.remaining_s(7, 9_000), Some(0));
        clock.revoked(7);
        assert_eq!(clock.remaining_s(7, 9_000), None);
        assert!(clock.is_empty());
        assert_eq!(clock.next_due_ms(), None);
    }

    #[test]
    fn a_renewal_starts_the_whole_ttl_again() {
        let mut clock = LeaseClock::default();
        clock.granted(7, 5, 0);
        assert_eq!(clock.renew(7, 4_999), Some(5));
        assert_eq!(clock.expired(9_998, 10), Vec::<i64>::new());
        assert_eq!(clock.renew(8, 0), None, "unknown");
        assert_eq!(clock.renew(7, 9_999), None, "run out, though not revoked");
        assert_eq!(
            clock.expired(9_999, 10),
            vec![7],
            "a late renewal changed nothing"
        );
    }

    #[test]
    fn an_expired_lease_is_offered_again_only_after_the_retry_interval() {
        let mut clock = LeaseClock::default();
        clock.granted(1, 1, 0);
        assert_eq!(clock.expired(1_000, 10), vec![1]);
        assert_eq!(clock.expired(1_001, 10), Vec::<i64>::new());
        assert_eq!(clock.next_due_ms(), Some(1_000 + RETRY_MS));
        assert_eq!(clock.expired(1_000 + RETRY_MS, 10), vec![1]);
    }

    #[test]
    fn the_limit_takes_the_oldest_first() {
        let mut clock = LeaseClock::default();
        for id in 1..=5 {
            clock.granted(id, 10 - id, 0);
        }
        assert_eq!(clock.expired(60_000, 2), vec![5, 4]);
        assert_eq!(clock.expired(60_000, 10), vec![3, 2, 1]);
    }

    #[test]
    fn a_new_leader_gives_every_lease_its_full_ttl() {
        let mut clock = LeaseClock::default();
        clock.granted(1, 5, 0);
        clock.granted(2, 9, 0);
        assert_eq!(clock.expired(100_000, 1), vec![1]);
        clock.promote(100_000);
        assert_eq!(clock.expired(104_999, 10), Vec::<i64>::new());
        assert_eq!(clock.expired(105_000, 10), vec![1]);
        assert_eq!(
            clock.expired(109_000, 10),
            vec![1, 2],
            "1 at its retry, 108 s"
        );
    }

    #[test]
    fn the_longest_ttl_does_not_overflow() {
        let mut clock = LeaseClock::default();
        clock.granted(1, super::super::MAX_TTL_S, u64::MAX - 5);
        clock.granted(2, i64::MAX, 5);
        assert_eq!(clock.expired(1_000_000, 10), Vec::<i64>::new());
    }
}
