//! The revisions of one key, oldest first.

use std::sync::Arc;

use crate::planted::{self, Bug};
use crate::state::RevisionRow;

/// One key's revisions that are not compacted. Never empty.
///
/// There are no generations as separate objects: a tombstone in the list ends one life of the key,
/// and the row after it starts the next with `version` 1. For put 2, put 3, delete 5, put 8:
///
/// ```text
/// older: 2(v1) 3(v2) 5(dead)   latest: 8(v1)
/// compact(3) → 3 5 | 8     3 is what a read at 3 or 4 sees
/// compact(5) → 5 | 8       the tombstone stays: a watch may still start at 5
/// compact(6) → 8           nothing lived at 6, nobody can start at 5 any more
/// ```
///
/// A transaction can change a key twice in one revision (`put` in one nested transaction, `delete`
/// in a later one), so equal `main` can occur; the later one is what readers see.
#[derive(Debug)]
pub(crate) struct History {
    latest: Arc<RevisionRow>,
    /// Apart from `latest`, so that the many keys with one revision allocate no list.
    older: Vec<Arc<RevisionRow>>,
}

impl History {
    pub(crate) fn new(first: Arc<RevisionRow>) -> Self {
        Self {
            latest: first,
            older: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: Arc<RevisionRow>) {
        let previous = std::mem::replace(&mut self.latest, row);
        self.older.push(previous);
    }

    /// The newest revision, dead or alive.
    pub(crate) fn latest(&self) -> &Arc<RevisionRow> {
        &self.latest
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.older.len() + 1
    }

    /// What the key was at a revision; `None` when it did not exist then.
    pub(crate) fn live_at(&self, revision: i64) -> Option<&Arc<RevisionRow>> {
        let row = if self.latest.main <= revision {
            &self.latest
        } else {
            let after = self.older.partition_point(|row| row.main <= revision);
            self.older.get(after.checked_sub(1)?)?
        };
        (!row.tombstone).then_some(row)
    }

    /// The revisions from `from` to `to`, both included.
    pub(crate) fn between(&self, from: i64, to: i64) -> impl Iterator<Item = &Arc<RevisionRow>> {
        let first = self.older.partition_point(|row| row.main < from);
        self.older[first..]
            .iter()
            .chain(std::iter::once(&self.latest))
            .take_while(move |row| row.main <= to)
            .filter(move |row| from <= row.main)
    }

    /// Drops what no read or watch at `revision` or above can see; `false` when nothing is left.
    pub(crate) fn compact(&mut self, revision: i64) -> bool {
        if self.latest.main <= revision {
            self.older = Vec::new();
            return !unseen_tombstone(&self.latest, revision);
        }
        let seen = self.older.partition_point(|row| row.main <= revision);
        if let Some(last_seen) = seen.checked_sub(1) {
            let gone = if unseen_tombstone(&self.older[last_seen], revision) {
                seen
            } else {
                last_seen
            };
            self.older.drain(..gone);
            if self.older.capacity() > 4 * self.older.len() {
                self.older.shrink_to_fit();
            }
        }
        true
    }
}

/// A tombstone at the compacted revision itself is still an event for a watch that starts there.
fn unseen_tombstone(row: &RevisionRow, compacted: i64) -> bool {
    let too_early = planted::is(Bug::TombstoneCompactedEarly) && row.main == compacted;
    row.tombstone && (row.main < compacted || too_early)
}
