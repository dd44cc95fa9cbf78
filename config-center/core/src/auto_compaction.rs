//! When history is compacted by itself, and up to where: a function of the time and the revisions
//! that the caller reports. Proposes nothing.

use std::collections::VecDeque;

/// Longer periods are compacted once an hour, as in etcd, up to where the period reaches back.
const LONGEST_INTERVAL_MS: u64 = 3_600_000;
/// How often the revision mode looks.
const REVISION_INTERVAL_MS: u64 = 300_000;
/// Looks per interval; each remembers a revision.
const LOOKS: u64 = 10;

/// What `--auto-compaction-mode` and `--auto-compaction-retention` say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Keep the history of this long.
    Period { ms: u64 },
    /// Keep this many revisions.
    Revisions(i64),
}

/// Looks at the store in regular intervals and says what to compact.
///
/// Periodic with 8 h: a look every 6 minutes remembers the revision. After 8 h the revision of the
/// first look is compacted, then every hour the one that was 8 h ago.
#[derive(Debug)]
pub struct CompactionSchedule {
    retention: Retention,
    /// The revisions of the last looks, the oldest first; the oldest is one period back once there
    /// are enough.
    seen: VecDeque<i64>,
    last_compacted: i64,
    last_done_ms: u64,
    /// The first compaction waits for the whole period.
    is_first: bool,
}

impl CompactionSchedule {
    /// Takes the first look.
    #[must_use]
    pub fn new(retention: Retention, now_ms: u64, revision: i64) -> Self {
        Self {
            retention,
            seen: VecDeque::from([revision]),
            last_compacted: 0,
            last_done_ms: now_ms,
            is_first: true,
        }
    }

    /// Between two looks.
    #[must_use]
    pub fn interval_ms(&self) -> u64 {
        match self.retention {
            Retention::Period { ms } => (ms.min(LONGEST_INTERVAL_MS) / LOOKS).max(1),
            Retention::Revisions(_) => REVISION_INTERVAL_MS,
        }
    }

    /// What to compact now, if anything. Only the leader acts on it; the others look all the same,
    /// so that a new leader knows the past.
    #[must_use]
    pub fn due(&self, now_ms: u64, revision: i64) -> Option<i64> {
        let target = match self.retention {
            Retention::Period { ms } => {
                let wait_ms = if self.is_first {
                    ms
                } else {
                    ms.min(LONGEST_INTERVAL_MS)
                };
                if now_ms.saturating_sub(self.last_done_ms) < wait_ms {
                    return None;
                }
                *self.seen.front()?
            }
            Retention::Revisions(kept) => revision.saturating_sub(kept),
        };
        (target > 0 && target != self.last_compacted).then_some(target)
    }

    /// The compaction has happened, by us or by somebody else.
    pub fn done(&mut self, now_ms: u64, target: i64) {
        self.last_compacted = target;
        self.last_done_ms = now_ms;
        self.is_first = false;
    }

    /// Remembers the revision of this look.
    pub fn look(&mut self, revision: i64) {
        if let Retention::Period { ms } = self.retention {
            self.seen.push_back(revision);
            let remembered = ms / self.interval_ms() + 1;
            while self.seen.len() as u64 > remembered {
                self.seen.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the schedule over looks, writing `per_look` revisions between two of them; answers
    /// `(minutes, compacted)`.
    fn run(retention: Retention, minutes: u64, per_look: i64) -> Vec<(u64, i64)> {
        let mut revision = 1;
        let mut now_ms = 0;
        let mut schedule = CompactionSchedule::new(retention, now_ms, revision);
        let mut compacted = Vec::new();
        loop {
            now_ms += schedule.interval_ms();
            if now_ms > minutes * 60_000 {
                return compacted;
            }
            revision += per_look;
            if let Some(target) = schedule.due(now_ms, revision) {
                schedule.done(now_ms, target);
                compacted.push((now_ms / 60_000, target));
            }
            schedule.look(revision);
        }
    }

    #[test]
    fn a_short_period_compacts_what_is_one_period_old() {
        let ten_minutes = Retention::Period { ms: 600_000 };
        assert_eq!(
            run(ten_minutes, 35, 1),
            [(10, 1), (20, 10), (30, 20)],
            "a look a minute"
        );
    }

    #[test]
    fn a_long_period_compacts_every_hour_what_is_one_period_old() {
        let five_hours = Retention::Period { ms: 5 * 3_600_000 };
        assert_eq!(
            run(five_hours, 8 * 60, 1),
            [(300, 1), (360, 10), (420, 20), (480, 30)],
            "a look every 6 minutes"
        );
    }

    #[test]
    fn revisions_are_counted_back_every_five_minutes() {
        assert_eq!(
            run(Retention::Revisions(1000), 20, 400),
            [(15, 201), (20, 601)]
        );
    }

    #[test]
    fn a_store_at_rest_is_left_alone() {
        assert_eq!(run(Retention::Period { ms: 600_000 }, 60, 0), [(10, 1)]);
        assert_eq!(run(Retention::Revisions(10), 60, 0), []);
    }
}
