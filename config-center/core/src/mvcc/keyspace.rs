//! The index of keys and the log of revisions, and what writing and compacting do to both.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::history::History;
use super::key_range::KeyRange;
use crate::refusal::Refusal;
use crate::state::RevisionRow;

/// Shorter values are copied out of the request they came in. A decoded value is a slice of a
/// network buffer, and one small survivor would keep the whole buffer alive for as long as the key.
const DETACH_BELOW_BYTES: usize = 16 * 1024;

/// Every key with its revisions. A fresh one is at revision 1.
#[derive(Debug)]
pub(crate) struct Keyspace {
    /// In key order; a deleted key stays until its tombstone is compacted.
    pub(super) index: BTreeMap<Bytes, History>,
    /// All rows from the compacted revision on, in the order of `(main, sub)`. Older survivors are
    /// in the index only: no watch can reach them. So a compaction looks at each row once or twice
    /// in its life and costs what was written since the last one, not what is stored.
    pub(super) log: VecDeque<Arc<RevisionRow>>,
    pub(super) revision: i64,
    pub(super) compacted: i64,
}

impl Default for Keyspace {
    fn default() -> Self {
        Self {
            index: BTreeMap::new(),
            log: VecDeque::new(),
            revision: 1,
            compacted: -1,
        }
    }
}

impl Keyspace {
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// -1 until the first compaction.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Ends a command that wrote at this revision.
    pub(crate) fn advance_to(&mut self, revision: i64) {
        debug_assert!(revision >= self.revision, "the revision never falls");
        self.revision = revision;
    }

    /// The newest row of a key that exists.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<RevisionRow>> {
        let row = self.index.get(key)?.latest();
        (!row.tombstone).then_some(row)
    }

    /// Writes a revision; value and lease are decided on by what the key is now, if it exists.
    /// Returns the row and the one before it.
    pub(crate) fn put(
        &mut self,
        (main, sub): (i64, i64),
        key: &Bytes,
        decide: impl FnOnce(Option<&RevisionRow>) -> (Bytes, i64),
    ) -> (Arc<RevisionRow>, Option<Arc<RevisionRow>>) {
        let new_row = |key: Bytes, previous: Option<&RevisionRow>| {
            let (value, lease) = decide(previous);
            let (create_revision, version) = match previous {
                Some(row) => (row.create_revision, row.version + 1),
                None => (main, 1),
            };
            Arc::new(RevisionRow {
                main,
                sub,
                key,
                value: detached(value),
                create_revision,
                version,
                lease,
                tombstone: false,
            })
        };
        // All rows of a key share the index's own copy of it.
        let (row, previous) = match self.index.get_mut(&key[..]) {
            Some(history) => {
                let latest = Arc::clone(history.latest());
                let known = latest.key.clone();
                let previous = (!latest.tombstone).then_some(latest);
                let row = new_row(known, previous.as_deref());
                history.push(Arc::clone(&row));
                (row, previous)
            }
            None => {
                let unknown = Bytes::copy_from_slice(key);
                let row = new_row(unknown.clone(), None);
                self.index.insert(unknown, History::new(Arc::clone(&row)));
                (row, None)
            }
        };
        self.log.push_back(Arc::clone(&row));
        (row, previous)
    }

    /// Writes a tombstone for each key of the range that exists, in key order, from `(main, sub)`
    /// up. Hands each pair (what the key was, its tombstone) to `deleted`.
    pub(crate) fn delete(
        &mut self,
        (main, first_sub): (i64, i64),
        range: &KeyRange,
        mut deleted: impl FnMut(&Arc<RevisionRow>, &Arc<RevisionRow>),
    ) {
        let Self { index, log, .. } = self;
        let mut sub = first_sub;
        let mut bury = |key: &Bytes, history: &mut History| {
            if history.latest().tombstone {
                return;
            }
            let tombstone = Arc::new(RevisionRow {
                main,
                sub,
                key: key.clone(),
                value: Bytes::new(),
                create_revision: 0,
                version: 0,
                lease: 0,
                tombstone: true,
            });
            sub += 1;
            deleted(history.latest(), &tombstone);
            log.push_back(Arc::clone(&tombstone));
            history.push(tombstone);
        };
        if let KeyRange::Single(key) = range {
            if let Some(history) = index.get_mut(&key[..]) {
                let known = history.latest().key.clone();
                bury(&known, history);
            }
        } else if !range.is_empty() {
            for (key, history) in index.range_mut::<[u8], _>(range.bounds()) {
                bury(key, history);
            }
        }
    }

    /// Adds a stored row; rows come in the order of `(main, sub)`.
    pub(crate) fn restore_row(&mut self, mut row: RevisionRow) {
        let row = match self.index.entry(row.key.clone()) {
            Entry::Occupied(mut known) => {
                row.key = known.key().clone();
                let row = Arc::new(row);
                known.get_mut().push(Arc::clone(&row));
                row
            }
            Entry::Vacant(unknown) => {
                let row = Arc::new(row);
                unknown.insert(History::new(Arc::clone(&row)));
                row
            }
        };
        self.log.push_back(row);
    }

    /// Forgets superseded revisions at or below `revision`. There is nothing at 0 to forget: the
    /// first such request succeeds, as in etcd, but is not remembered, so that a restored member
    /// (0 or no compaction, stored the same) answers like the others.
    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if revision > 0 {
            self.purge(revision);
        }
        Ok(())
    }

    /// The work of a compaction. A key with something to drop has a row in the log at or below
    /// `revision`: the row that superseded the other, or its tombstone.
    pub(crate) fn purge(&mut self, revision: i64) {
        self.compacted = revision;
        let touched = self.log.partition_point(|row| row.main <= revision);
        let below = self.log.partition_point(|row| row.main < revision);
        for row in self.log.range(..touched) {
            let Some(history) = self.index.get_mut(&row.key[..]) else {
                continue; // An earlier row of the same key has removed it.
            };
            if !history.compact(revision) {
                self.index.remove(&row.key[..]);
            }
        }
        // A key that was changed twice in the compacted revision keeps its last change only.
        let at: Vec<_> = self.log.drain(..touched).skip(below).collect();
        for row in at.into_iter().rev() {
            if self.is_kept(&row) {
                self.log.push_front(row);
            }
        }
        if self.log.capacity() > 1024 + 4 * self.log.len() {
            self.log.shrink_to(2 * self.log.len());
        }
    }

    fn is_kept(&self, row: &RevisionRow) -> bool {
        self.index.get(&row.key[..]).is_some_and(|history| {
            history
                .between(row.main, row.main)
                .any(|kept| kept.sub == row.sub)
        })
    }

    /// Live rows of a range at a revision, in key order.
    pub(crate) fn live_rows<'a>(
        &'a self,
        range: &'a KeyRange,
        revision: i64,
    ) -> impl Iterator<Item = &'a Arc<RevisionRow>> {
        let (one, many) = match range {
            KeyRange::Single(key) => (self.index.get(&key[..]), None),
            _ if range.is_empty() => (None, None),
            _ => (None, Some(self.index.range::<[u8], _>(range.bounds()))),
        };
        one.into_iter()
            .chain(many.into_iter().flatten().map(|(_, history)| history))
            .filter_map(move |history| history.live_at(revision))
    }

    /// Rows in memory: what a compaction is meant to shrink.
    #[cfg(test)]
    pub(crate) fn stored_rows(&self) -> usize {
        self.index.values().map(History::len).sum()
    }

    /// The newest row of every key from `start` to before `end` that exists, in key order.
    pub(crate) fn current_rows_between<'a>(
        &'a self,
        start: &[u8],
        end: &[u8],
    ) -> impl Iterator<Item = &'a RevisionRow> + use<'a> {
        // An ordered map panics on a start above its end.
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let found = (start < end).then(|| self.index.range::<[u8], _>(bounds));
        found
            .into_iter()
            .flatten()
            .map(|(_, history)| history.latest().as_ref())
            .filter(|row| !row.tombstone)
    }

    /// The rows of one revision above the compacted one, in their order.
    pub(crate) fn rows_at(&self, main: i64) -> impl Iterator<Item = &RevisionRow> {
        let first = self.log.partition_point(|row| row.main < main);
        let rows = self.log.range(first..).map(AsRef::as_ref);
        rows.take_while(move |row: &&RevisionRow| row.main == main)
    }

    /// What a key was written as at exactly this revision, if that is kept.
    pub(crate) fn row_at(&self, key: &[u8], main: i64) -> Option<&RevisionRow> {
        let history = self.index.get(key)?;
        history.between(main, main).last().map(AsRef::as_ref)
    }

    /// The newest row of every key that exists, in key order.
    pub(crate) fn current_rows(&self) -> impl Iterator<Item = &Arc<RevisionRow>> {
        self.index
            .values()
            .map(History::latest)
            .filter(|row| !row.tombstone)
    }
}

fn detached(value: Bytes) -> Bytes {
    if value.len() < DETACH_BELOW_BYTES {
        Bytes::copy_from_slice(&value)
    } else {
        value
    }
}
