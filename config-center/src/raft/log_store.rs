//! openraft's log storage on the log's files.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;

use super::tail::{MAX_TAIL_BYTES, Tail, size_bytes};
use super::types::{self, Entry, LogId, TypeConfig, Vote};
use crate::storage::{LogHandle, LogRecovery};

/// Entries that one message of replication takes at most, and their size, of which the last entry
/// may go beyond.
const MAX_ENTRIES_PER_READ: u64 = 1024;
const MAX_BYTES_PER_READ: usize = 2 << 20;

/// Entries that are read together, so that large ones are not all read only to be left out.
const READ_STEP: u64 = 32;

/// The log of this member; clones are readers of the same log.
#[derive(Clone)]
pub(super) struct LogStore {
    log: LogHandle,
    shared: Arc<Shared>,
}

struct Shared {
    tail: Mutex<Tail>,
    vote: Mutex<Option<Vote>>,
    committed: Mutex<Option<LogId>>,
}

impl LogStore {
    pub(super) fn new(log: LogHandle, recovery: &LogRecovery) -> Self {
        Self::with_tail(log, recovery, MAX_TAIL_BYTES)
    }

    /// With another limit of what is kept in memory; 0 makes every flushed entry be read from disk.
    pub(super) fn with_tail(log: LogHandle, recovery: &LogRecovery, max_bytes: usize) -> Self {
        let log_id = |id: Option<_>| id.map(types::log_id);
        Self {
            log,
            shared: Arc::new(Shared {
                tail: Mutex::new(Tail::new(
                    log_id(recovery.purged),
                    recovery.first,
                    log_id(recovery.last),
                    max_bytes,
                )),
                vote: Mutex::new(recovery.vote.map(types::vote)),
                committed: Mutex::new(log_id(recovery.committed)),
            }),
        }
    }

    async fn read(&self, from: u64, until: u64) -> io::Result<Vec<Entry>> {
        loop {
            let (on_disk, here) = self.shared.tail.lock().read(from..until);
            if on_disk.is_empty() {
                return Ok(here);
            }
            let expected = on_disk.end - on_disk.start;
            let rows = self.log.read(on_disk.start, on_disk.end).await?;
            if rows.len() as u64 == expected {
                let read: io::Result<Vec<Entry>> = rows.into_iter().map(types::entry).collect();
                return read.map(|mut entries| {
                    entries.extend(here);
                    entries
                });
            }
            // A purge may have come in between; then there is less to read.
            if self.shared.tail.lock().read(from..until).0 == on_disk {
                return Err(io::Error::other(format!(
                    "the log has {} of the entries {} to {}",
                    rows.len(),
                    on_disk.start,
                    on_disk.end - 1
                )));
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let until = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(until) => *until,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, until).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let end = end.min(start + MAX_ENTRIES_PER_READ);
        let mut entries = Vec::new();
        let (mut from, mut bytes) = (start, 0);
        while from < end && bytes < MAX_BYTES_PER_READ {
            let step = self.read(from, end.min(from + READ_STEP)).await?;
            if step.is_empty() {
                break;
            }
            for entry in step {
                if bytes >= MAX_BYTES_PER_READ {
                    break;
                }
                bytes += size_bytes(&entry);
                from = entry.log_id.index() + 1;
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*self.shared.vote.lock())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let tail = self.shared.tail.lock();
        Ok(LogState {
            last_purged_log_id: tail.purged,
            last_log_id: tail.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log.save_vote(types::vote_row(vote)).await?;
        *self.shared.vote.lock() = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        *self.shared.committed.lock() = committed;
        if let Some(committed) = committed {
            self.log.save_committed(types::entry_id(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(*self.shared.committed.lock())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        {
            let mut tail = self.shared.tail.lock();
            for entry in entries {
                rows.push(types::entry_row(&entry));
                tail.push(entry);
            }
        }
        let until = rows.last().map_or(0, |last| last.id.index + 1);
        let shared = Arc::clone(&self.shared);
        let appended = Box::new(move |result: io::Result<()>| {
            if result.is_ok() {
                shared.tail.lock().flushed(until);
            }
            callback.io_completed(result);
        });
        Ok(self.log.append(rows, appended).await?)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        // Readers stop at the new end first; the rows go after that.
        self.shared.tail.lock().truncate_after(last);
        self.log
            .truncate_after(last.map(|last| last.index()))
            .await?;
        // An append that was still on its way may have moved the flushed mark beyond the new end.
        self.shared.tail.lock().truncate_after(last);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.shared.tail.lock().purge(upto);
        Ok(self.log.purge(types::entry_id(&upto)).await?)
    }
}
