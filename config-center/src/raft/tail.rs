//! The end of the log in memory: everything that is not on disk yet, and as much before it as fits,
//! so that applying and replicating read no file.

use std::collections::VecDeque;
use std::ops::Range;

use super::types::{Entry, LogId};
use openraft::EntryPayload;

/// Entries that are on disk are kept up to this size together.
pub(super) const MAX_TAIL_BYTES: usize = 16 * 1024 * 1024;

/// What an entry costs beside its payload, the decoded command included.
const ENTRY_OVERHEAD_BYTES: usize = 512;

/// The log as its readers see it: what has been purged, what is in memory, where it ends. The
/// entries between `purged` and the first one in memory are on disk.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    /// Where the log begins.
    first: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries below this index are on disk.
    flushed_until: u64,
    max_bytes: usize,
}

impl Tail {
    /// `first` is the first index on disk, when there is any entry.
    pub(super) fn new(
        purged: Option<LogId>,
        first: Option<u64>,
        last: Option<LogId>,
        max_bytes: usize,
    ) -> Self {
        Self {
            first: first.unwrap_or(0),
            flushed_until: last.as_ref().map_or(0, |last| last.index() + 1),
            purged,
            last,
            max_bytes,
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if self.last == self.purged {
            // The log was empty: it begins here.
            self.first = entry.log_id.index();
        }
        self.last = Some(entry.log_id);
        self.bytes += size_bytes(&entry);
        self.entries.push_back(entry);
    }

    /// Everything below `until` reached the disk: what does not fit may go.
    pub(super) fn flushed(&mut self, until: u64) {
        self.flushed_until = self.flushed_until.max(until);
        while self.bytes > self.max_bytes
            && let Some(first) = self.entries.front()
            && first.log_id.index() < self.flushed_until
        {
            self.bytes -= size_bytes(first);
            self.entries.pop_front();
        }
    }

    /// Forgets everything after `last`, which becomes the end of the log.
    pub(super) fn truncate_after(&mut self, last: Option<LogId>) {
        let end = self.last.as_ref().map(LogId::index);
        if last.as_ref().map(LogId::index) > end {
            return;
        }
        let until = last.as_ref().map_or(0, |last| last.index() + 1);
        while let Some(entry) = self.entries.pop_back_if(|e| e.log_id.index() >= until) {
            self.bytes -= size_bytes(&entry);
        }
        self.flushed_until = self.flushed_until.min(until);
        self.last = last.or(self.purged);
    }

    /// Forgets everything up to `upto`.
    pub(super) fn purge(&mut self, upto: LogId) {
        while let Some(entry) = self
            .entries
            .pop_front_if(|e| e.log_id.index() <= upto.index())
        {
            self.bytes -= size_bytes(&entry);
        }
        if self
            .last
            .as_ref()
            .is_none_or(|last| last.index() <= upto.index())
        {
            self.last = Some(upto);
        }
        self.flushed_until = self.flushed_until.max(upto.index() + 1);
        self.first = self.first.max(upto.index() + 1);
        if self.purged.as_ref().is_none_or(|purged| *purged < upto) {
            self.purged = Some(upto);
        }
    }

    /// The part of the range that the log has, split into what must be read from disk and what is
    /// here.
    pub(super) fn read(&self, wanted: Range<u64>) -> (Range<u64>, Vec<Entry>) {
        let end = self.last.as_ref().map_or(0, |last| last.index() + 1);
        let (from, until) = (wanted.start.max(self.first), wanted.end.min(end));
        if from >= until {
            return (0..0, Vec::new());
        }
        let Some(first_here) = self.entries.front().map(|e| e.log_id.index()) else {
            return (from..until, Vec::new());
        };
        let on_disk = from..until.min(first_here);
        let here = from.max(first_here)..until;
        if here.is_empty() {
            return (on_disk, Vec::new());
        }
        // The indexes of the deque are offsets from the first entry here, so they fit.
        let offset = |index: u64| usize::try_from(index - first_here).unwrap_or(usize::MAX);
        let entries = self
            .entries
            .range(offset(here.start)..offset(here.end))
            .cloned()
            .collect();
        (on_disk, entries)
    }
}

/// What an entry costs in memory, and about what it costs on the wire.
pub(super) fn size_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.encoded().len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    payload + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(index: u64) -> Entry {
        Entry {
            log_id: LogId::new_term_index(1, index),
            payload: EntryPayload::Blank,
        }
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|e| e.log_id.index()).collect()
    }

    #[test]
    fn unflushed_entries_stay_and_flushed_ones_go_when_the_room_ends() {
        let mut tail = Tail::new(None, None, None, 2 * ENTRY_OVERHEAD_BYTES);
        (0..5).for_each(|index| tail.push(blank(index)));
        assert_eq!(indexes(&tail.read(0..9).1), [0, 1, 2, 3, 4]);
        tail.flushed(2);
        let (on_disk, here) = tail.read(0..9);
        assert_eq!((on_disk, indexes(&here)), (0..2, vec![2, 3, 4]));
        tail.flushed(5);
        let (on_disk, here) = tail.read(1..4);
        assert_eq!((on_disk, indexes(&here)), (1..3, vec![3]));
    }

    #[test]
    fn truncating_and_purging_move_the_ends() {
        let mut tail = Tail::new(None, None, None, usize::MAX);
        (0..6).for_each(|index| tail.push(blank(index)));
        tail.truncate_after(Some(LogId::new_term_index(1, 3)));
        assert_eq!(indexes(&tail.read(0..9).1), [0, 1, 2, 3]);
        tail.purge(LogId::new_term_index(1, 1));
        let (on_disk, here) = tail.read(0..9);
        assert!(on_disk.is_empty());
        assert_eq!(indexes(&here), [2, 3]);
        tail.purge(LogId::new_term_index(1, 8));
        assert_eq!(tail.last, Some(LogId::new_term_index(1, 8)));
        assert!(tail.read(0..99).1.is_empty());
        tail.truncate_after(None);
        assert_eq!(tail.last, Some(LogId::new_term_index(1, 8)));
        tail.push(blank(9));
        assert_eq!(indexes(&tail.read(0..99).1), [9]);
    }

    #[test]
    fn a_log_may_begin_anywhere() {
        let mut tail = Tail::new(None, None, None, 0);
        (3..6).for_each(|index| tail.push(blank(index)));
        tail.flushed(6);
        assert_eq!(tail.read(0..99).0, 3..6);
    }

    #[test]
    fn an_empty_memory_leaves_all_to_the_disk() {
        let last = LogId::new_term_index(2, 9);
        let tail = Tail::new(
            Some(LogId::new_term_index(1, 3)),
            Some(4),
            Some(last),
            usize::MAX,
        );
        assert_eq!(tail.read(0..99).0, 4..10);
    }
}
