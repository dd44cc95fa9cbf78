//! Which watchers a revision concerns.
//!
//! Pull model: watchers hold no queue. A revision marks the watchers it concerns as pending from
//! that revision and wakes their streams; a stream then reads `State::events` at its own pace. So a
//! slow watcher costs only itself, and no event is ever dropped: what can happen is that a watcher
//! falls behind a compaction, which its next read says.

mod intervals;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::mvcc::KeyRange;
use intervals::{Intervals, NodeId};

/// No revision is 0.
const NOT_PENDING: i64 = 0;

/// Where a watcher is filed, so that it is found again without a search.
#[derive(Debug)]
enum Place {
    Exact(Bytes),
    Interval(NodeId),
    /// An empty range: nothing concerns it.
    Nowhere,
}

#[derive(Debug)]
struct Watcher {
    stream_id: u64,
    watch_id: i64,
    pending_from: i64,
    place: Place,
    /// Its position in the list of its place.
    position: usize,
}

#[derive(Debug, Default)]
struct Stream {
    watchers: FxHashMap<i64, u32>,
    pending: Vec<u32>,
}

/// The watchers of all streams of this member.
#[derive(Debug, Default)]
pub struct WatcherGroups {
    /// Watchers by slot; slots are reused.
    watchers: Vec<Option<Watcher>>,
    free: Vec<u32>,
    streams: FxHashMap<u64, Stream>,
    /// Watchers of one key: by far the most, and found in one step.
    exact: FxHashMap<Bytes, Vec<u32>>,
    intervals: Intervals,
}

impl WatcherGroups {
    /// Starts to mark this watcher. `false` (and no change) when the stream has that id already.
    pub fn add(&mut self, stream_id: u64, watch_id: i64, range: KeyRange) -> bool {
        let stream = self.streams.entry(stream_id).or_default();
        if stream.watchers.contains_key(&watch_id) {
            return false;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.watchers.push(None);
            (self.watchers.len() - 1) as u32
        });
        stream.watchers.insert(watch_id, slot);
        let (place, list) = if range.is_empty() {
            (Place::Nowhere, None)
        } else {
            match range {
                KeyRange::Single(key) => {
                    let list = self.exact.entry(key.clone()).or_default();
                    (Place::Exact(key), Some(list))
                }
                KeyRange::Span { start, end } => {
                    let node = self.intervals.node_of(&start, &Some(end));
                    (
                        Place::Interval(node),
                        Some(self.intervals.members_mut(node)),
                    )
                }
                KeyRange::From(start) => {
                    let node = self.intervals.node_of(&start, &None);
                    (
                        Place::Interval(node),
                        Some(self.intervals.members_mut(node)),
                    )
                }
            }
        };
        let position = list.map_or(0, |list| {
            list.push(slot);
            list.len() - 1
        });
        self.watchers[slot as usize] = Some(Watcher {
            stream_id,
            watch_id,
            pending_from: NOT_PENDING,
            place,
            position,
        });
        true
    }

    /// `false` when there is no such watcher.
    pub fn remove(&mut self, stream_id: u64, watch_id: i64) -> bool {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return false;
        };
        let Some(slot) = stream.watchers.remove(&watch_id) else {
            return false;
        };
        let is_pending = self.watchers[slot as usize]
            .as_ref()
            .is_some_and(|watcher| watcher.pending_from != NOT_PENDING);
        if is_pending {
            stream.pending.retain(|pending| *pending != slot);
        }
        if stream.watchers.is_empty() {
            self.streams.remove(&stream_id);
        }
        self.unfile(slot);
        true
    }

    /// Removes the stream with all its watchers; returns how many there were.
    pub fn remove_stream(&mut self, stream_id: u64) -> usize {
        let Some(stream) = self.streams.remove(&stream_id) else {
            return 0;
        };
        for slot in stream.watchers.values() {
            self.unfile(*slot);
        }
        stream.watchers.len()
    }

    /// Takes a watcher out of the list of its place and frees its slot.
    fn unfile(&mut self, slot: u32) {
        let Some(watcher) = self.watchers[slot as usize].take() else {
            return;
        };
        self.free.push(slot);
        let list = match &watcher.place {
            Place::Exact(key) => self.exact.get_mut(key),
            Place::Interval(node) => Some(self.intervals.members_mut(*node)),
            Place::Nowhere => None,
        };
        let Some(list) = list else { return };
        list.swap_remove(watcher.position);
        if let Some(moved) = list.get(watcher.position)
            && let Some(moved) = &mut self.watchers[*moved as usize]
        {
            moved.position = watcher.position;
        }
        if list.is_empty() {
            match watcher.place {
                Place::Exact(key) => {
                    self.exact.remove(&key);
                }
                Place::Interval(node) => self.intervals.remove(node),
                Place::Nowhere => {}
            }
        }
    }

    /// Marks every watcher of these keys as pending from `revision`, unless it already is from an
    /// earlier one, and calls `wake` once for each stream that had nothing pending before.
    pub fn publish<'a>(
        &mut self,
        revision: i64,
        keys: impl IntoIterator<Item = &'a Bytes>,
        mut wake: impl FnMut(u64),
    ) {
        let Self {
            watchers,
            streams,
            exact,
            intervals,
            ..
        } = self;
        let mut mark = |slots: &[u32]| {
            for slot in slots {
                let Some(watcher) = &mut watchers[*slot as usize] else {
                    continue;
                };
                if watcher.pending_from != NOT_PENDING {
                    continue;
                }
                watcher.pending_from = revision;
                if let Some(stream) = streams.get_mut(&watcher.stream_id) {
                    stream.pending.push(*slot);
                    if stream.pending.len() == 1 {
                        wake(watcher.stream_id);
                    }
                }
            }
        };
        for key in keys {
            if let Some(slots) = exact.get(key) {
                mark(slots);
            }
            intervals.containing(key, &mut mark);
        }
    }

    /// The stream's pending watchers as `(watch_id, first pending revision)`; they are pending no
    /// more. The stream reads events up to the store's revision, which may be above what was
    /// published yet: it must keep a cursor per watcher and start at
    /// `max(first pending revision, cursor)`, or it would deliver a revision twice.
    pub fn take_pending(&mut self, stream_id: u64) -> Vec<(i64, i64)> {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return Vec::new();
        };
        let mut pending = Vec::with_capacity(stream.pending.len());
        for slot in stream.pending.drain(..) {
            if let Some(watcher) = &mut self.watchers[slot as usize] {
                pending.push((watcher.watch_id, watcher.pending_from));
                watcher.pending_from = NOT_PENDING;
            }
        }
        pending
    }

    /// Watchers of all streams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watchers.len() - self.free.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Streams that have at least one watcher.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }
}
