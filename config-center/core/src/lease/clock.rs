//! When leases run out, as a function of the `now_ms` that the caller passes in (monotonic).

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

/// An expired lease is offered again when its revocation was not applied for so long.
pub const RETRY_MS: u64 = 3_000;

/// What is left of a longer lease is written down this often, so that a change of leader does not
/// start its whole time again.
pub const CHECKPOINT_MS: u64 = 300_000;

/// How many leases a new leader lets run out within any second. All of them begin again at the same
/// moment, so those with a common TTL would otherwise end in one burst that holds up the writes.
const PROMOTED_PER_SECOND: usize = 750;

#[derive(Debug, Clone, Copy)]
struct Deadline {
    ttl_s: i64,
    at_ms: u64,
    /// The lease's place in the queue: its deadline, or the next retry after it.
    due_ms: u64,
    /// When its remaining time is written down next; only leases that outlive it.
    checkpoint_ms: Option<u64>,
    /// What was written down; 0: nothing since the last renewal.
    checkpoint_s: i64,
    /// Something was written down or is on its way. A renewal must take it back first.
    is_checkpointed: bool,
}

/// Deadlines of the leases this member knows. Only the leader acts on them.
#[derive(Debug, Default)]
pub struct LeaseClock {
    deadlines: FxHashMap<i64, Deadline>,
    /// `(due_ms, id)`, so that the next one is found without a scan.
    queue: BTreeSet<(u64, i64)>,
    /// `(checkpoint_ms, id)`.
    checkpoints: BTreeSet<(u64, i64)>,
}

impl LeaseClock {
    /// A lease was granted, or is known from the restored state.
    pub fn granted(&mut self, id: i64, ttl_s: i64, now_ms: u64) {
        self.revoked(id);
        let at_ms = deadline_ms(ttl_s, now_ms);
        let due_ms = at_ms;
        let checkpoint_ms = next_checkpoint_ms(at_ms, now_ms);
        self.deadlines.insert(
            id,
            Deadline {
                ttl_s,
                at_ms,
                due_ms,
                checkpoint_ms,
                checkpoint_s: 0,
                is_checkpointed: false,
            },
        );
        self.queue.insert((due_ms, id));
        if let Some(checkpoint_ms) = checkpoint_ms {
            self.checkpoints.insert((checkpoint_ms, id));
        }
    }

    /// What is left of a lease was written down; 0 takes that back.
    pub fn checkpointed(&mut self, id: i64, remaining_s: i64) {
        if let Some(deadline) = self.deadlines.get_mut(&id) {
            deadline.checkpoint_s = remaining_s;
            deadline.is_checkpointed = remaining_s > 0;
        }
    }

    /// Up to `limit` leases whose remaining time should be written down now, as `(id, seconds)`.
    pub fn take_checkpoints(&mut self, now_ms: u64, limit: usize) -> Vec<(i64, i64)> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(&(due_ms, id)) = self.checkpoints.first()
            && due_ms <= now_ms
        {
            self.checkpoints.pop_first();
            if let Some(deadline) = self.deadlines.get_mut(&id) {
                deadline.checkpoint_ms = next_checkpoint_ms(deadline.at_ms, now_ms);
                if let Some(next_ms) = deadline.checkpoint_ms {
                    self.checkpoints.insert((next_ms, id));
                }
                // Rounded up: nobody loses time by a change of leader.
                let left_s = deadline.at_ms.saturating_sub(now_ms).div_ceil(1000);
                if left_s > 0 {
                    deadline.is_checkpointed = true;
                    taken.push((id, i64::try_from(left_s).unwrap_or(i64::MAX)));
                }
            }
        }
        taken
    }

    /// Whether a renewal has to take back what was written down.
    #[must_use]
    pub fn is_checkpointed(&self, id: i64) -> bool {
        self.deadlines
            .get(&id)
            .is_some_and(|deadline| deadline.is_checkpointed)
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
            if let Some(checkpoint_ms) = deadline.checkpoint_ms {
                self.checkpoints.remove(&(checkpoint_ms, id));
            }
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

    /// This member became the leader: every lease gets from now its full TTL, or what was left of it
    /// when that was last written down. The holders could not renew while there was no leader. Where
    /// too many would end together, some end later.
    pub fn promote(&mut self, now_ms: u64) {
        let leases = self.deadlines.iter();
        let mut ends: Vec<(u64, i64)> = leases
            .map(|(id, deadline)| {
                let left_s = match deadline.checkpoint_s {
                    0 => deadline.ttl_s,
                    left_s => left_s.min(deadline.ttl_s),
                };
                (deadline_ms(left_s, now_ms), *id)
            })
            .collect();
        ends.sort_unstable();
        for n in PROMOTED_PER_SECOND..ends.len() {
            let earliest_ms = ends[n - PROMOTED_PER_SECOND].0.saturating_add(1_000);
            ends[n].0 = ends[n].0.max(earliest_ms);
        }
        self.queue.clear();
        self.checkpoints.clear();
        for (at_ms, id) in ends {
            if let Some(deadline) = self.deadlines.get_mut(&id) {
                deadline.at_ms = at_ms;
                deadline.due_ms = at_ms;
                self.queue.insert((at_ms, id));
                deadline.checkpoint_ms = next_checkpoint_ms(at_ms, now_ms);
                if let Some(checkpoint_ms) = deadline.checkpoint_ms {
                    self.checkpoints.insert((checkpoint_ms, id));
                }
            }
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

fn next_checkpoint_ms(at_ms: u64, now_ms: u64) -> Option<u64> {
    let next_ms = now_ms.saturating_add(CHECKPOINT_MS);
    (next_ms < at_ms).then_some(next_ms)
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
    fn a_new_leader_goes_on_where_the_last_checkpoint_was() {
        let mut clock = LeaseClock::default();
        clock.granted(1, 1_000, 0);
        clock.granted(2, 300, 0);
        assert_eq!(clock.take_checkpoints(299_999, 10), []);
        assert_eq!(
            clock.take_checkpoints(300_500, 10),
            [(1, 700)],
            "rounded up, and 2 is too short"
        );
        assert!(clock.is_checkpointed(1) && !clock.is_checkpointed(2));
        assert_eq!(clock.take_checkpoints(300_500, 10), []);
        clock.checkpointed(1, 700);
        clock.promote(1_000_000);
        assert_eq!(clock.remaining_s(1, 1_000_000), Some(700));
        assert_eq!(clock.remaining_s(2, 1_000_000), Some(300));
        assert_eq!(clock.take_checkpoints(1_300_000, 10), [(1, 400)]);
        assert_eq!(clock.take_checkpoints(1_600_000, 10), [(1, 100)]);
        assert_eq!(clock.take_checkpoints(1_900_000, 10), [], "run out");
    }

    #[test]
    fn a_renewal_begins_without_a_checkpoint() {
        let mut clock = LeaseClock::default();
        clock.granted(1, 1_000, 0);
        clock.take_checkpoints(300_000, 10);
        clock.checkpointed(1, 700);
        clock.checkpointed(1, 0);
        assert!(!clock.is_checkpointed(1));
        assert_eq!(clock.renew(1, 400_000), Some(1_000));
        assert_eq!(clock.take_checkpoints(699_999, 10), []);
        clock.promote(800_000);
        assert_eq!(clock.remaining_s(1, 800_000), Some(1_000));
        clock.revoked(1);
        assert_eq!(clock.take_checkpoints(u64::MAX, 10), []);
    }

    #[test]
    fn a_new_leader_spreads_what_would_end_together() {
        let mut clock = LeaseClock::default();
        let count = 3 * PROMOTED_PER_SECOND + 7;
        for id in 0..count {
            clock.granted(i64::try_from(id).unwrap(), 10, 0);
        }
        clock.promote(5_000);
        assert_eq!(clock.expired(14_999, count).len(), 0, "none ends early");
        let mut left = count;
        for second in 0..4 {
            let ended = clock.expired(15_000 + 1_000 * second, count);
            assert!(ended.len() <= PROMOTED_PER_SECOND, "second {second}");
            left -= ended.len();
            // Applied at once, or they would be offered again.
            ended.into_iter().for_each(|id| clock.revoked(id));
        }
        assert_eq!(left, 0);
        // Without a crowd nobody waits.
        clock = LeaseClock::default();
        clock.granted(1, 10, 0);
        clock.promote(5_000);
        assert_eq!(clock.next_due_ms(), Some(15_000));
    }

    #[test]
    fn the_longest_ttl_does_not_overflow() {
        let mut clock = LeaseClock::default();
        clock.granted(1, super::super::MAX_TTL_S, u64::MAX - 5);
        clock.granted(2, i64::MAX, 5);
        assert_eq!(clock.expired(1_000_000, 10), Vec::<i64>::new());
    }
}
