//! Which watchers a revision concerns.
//!
//! Pull model: watchers hold no queue. A revision marks the watchers it concerns as pending from
//! that revision and wakes their streams; a stream then reads `State::events` at its own pace.

use bytes::Bytes;

use crate::mvcc::KeyRange;

/// The watchers of all streams of this member.
#[derive(Debug, Default)]
pub struct WatcherGroups {}

impl WatcherGroups {
    /// Starts to mark this watcher. `false` (and no change) when the stream has that id already.
    pub fn add(&mut self, _stream_id: u64, _watch_id: i64, _range: KeyRange) -> bool {
        todo!()
    }

    /// `false` when there is no such watcher.
    pub fn remove(&mut self, _stream_id: u64, _watch_id: i64) -> bool {
        todo!()
    }

    /// Removes the stream with all its watchers; returns how many there were.
    pub fn remove_stream(&mut self, _stream_id: u64) -> usize {
        todo!()
    }

    /// Marks every watcher of these keys as pending from `revision`, unless it already is from an
    /// earlier one, and calls `wake` once for each stream that had nothing pending before.
    pub fn publish<'a>(
        &mut self,
        _revision: i64,
        _keys: impl IntoIterator<Item = &'a Bytes>,
        _wake: impl FnMut(u64),
    ) {
        todo!()
    }

    /// The stream's pending watchers as `(watch_id, first pending revision)`; they are pending no
    /// more. The stream reads events up to the store's revision, which may be above what was
    /// published yet: it must keep a cursor per watcher and start at
    /// `max(first pending revision, cursor)`, or it would deliver a revision twice.
    pub fn take_pending(&mut self, _stream_id: u64) -> Vec<(i64, i64)> {
        todo!()
    }

    /// Watchers of all streams.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Streams that have at least one watcher.
    #[must_use]
    pub fn streams(&self) -> usize {
        todo!()
    }
}
