//! The watch protocol as a stream is meant to follow it: whatever the pace of reading, every
//! watcher gets every event of its range once and in order, or is told that it is compacted.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use schemas::command::command::Op;
use schemas::mvccpb::Event;

use super::actions::{command, key_range, op};
use crate::{KeyRange, Refusal, State, WatcherGroups};

#[derive(Debug, Clone)]
enum Step {
    Apply(Op),
    /// Publishes what was applied and not published yet: an engine may apply several commands first.
    Publish,
    Watch {
        stream_id: u64,
        watch_id: i64,
        range: (bytes::Bytes, bytes::Bytes),
    },
    Cancel {
        stream_id: u64,
        watch_id: i64,
    },
    CloseStream {
        stream_id: u64,
    },
    /// The stream takes what is pending and reads it.
    Read {
        stream_id: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => op().prop_map(Step::Apply),
        8 => Just(Step::Publish),
        5 => (0..3_u64, 0..3_i64, key_range()).prop_map(|(stream_id, watch_id, range)| {
            Step::Watch { stream_id, watch_id, range }
        }),
        1 => (0..3_u64, 0..3_i64)
            .prop_map(|(stream_id, watch_id)| Step::Cancel { stream_id, watch_id }),
        1 => (0..3_u64).prop_map(|stream_id| Step::CloseStream { stream_id }),
        6 => (0..3_u64).prop_map(|stream_id| Step::Read { stream_id }),
    ]
}

/// What a stream remembers of a watcher.
struct Watched {
    key: bytes::Bytes,
    range_end: bytes::Bytes,
    started_at: i64,
    cursor: i64,
    received: Vec<Event>,
    compacted: bool,
}

#[derive(Default)]
struct Run {
    state: State,
    groups: WatcherGroups,
    unpublished: Vec<(i64, Vec<bytes::Bytes>)>,
    watched: BTreeMap<(u64, i64), Watched>,
    awake: BTreeSet<u64>,
    /// The whole history, before any compaction.
    history: Vec<(i64, bytes::Bytes, Event)>,
}

impl Run {
    fn apply(&mut self, op: Op) {
        let command = command(op);
        let before = self.state.revision();
        let applied = self.state.apply(&command);
        if applied.revision > before {
            let everything = KeyRange::From(bytes::Bytes::new());
            let page = self
                .state
                .events(&everything, applied.revision, applied.revision, 1, false)
                .expect("just written");
            for event in page.events {
                let key = event.kv.clone().unwrap_or_default().key;
                self.history.push((applied.revision, key, event));
            }
            let keys = applied.changed_keys().cloned().collect();
            self.unpublished.push((applied.revision, keys));
        }
    }

    fn publish(&mut self) -> Result<(), TestCaseError> {
        for (revision, keys) in std::mem::take(&mut self.unpublished) {
            let mut woken = Vec::new();
            self.groups
                .publish(revision, &keys, |stream_id| woken.push(stream_id));
            let streams: BTreeSet<u64> = woken.iter().copied().collect();
            prop_assert_eq!(streams.len(), woken.len(), "woken twice by one revision");
            self.awake.extend(streams);
        }
        Ok(())
    }

    fn read(&mut self, stream_id: u64) -> Result<(), TestCaseError> {
        let pending = self.groups.take_pending(stream_id);
        // Awake without anything pending is possible: the watcher was cancelled in between.
        let awake = self.awake.remove(&stream_id);
        prop_assert!(awake || pending.is_empty(), "pending, but never woken");
        for (watch_id, first) in pending {
            let watched = self
                .watched
                .get_mut(&(stream_id, watch_id))
                .ok_or_else(|| TestCaseError::fail("a removed watcher is pending"))?;
            if watched.compacted {
                continue; // A real stream has cancelled it.
            }
            let range = KeyRange::new(watched.key.clone(), watched.range_end.clone());
            watched.cursor = watched.cursor.max(first);
            while watched.cursor <= self.state.revision() {
                match self
                    .state
                    .events(&range, watched.cursor, i64::MAX, 2, false)
                {
                    Ok(page) => {
                        watched.received.extend(page.events);
                        watched.cursor = page.next_rev;
                    }
                    Err(refusal) => {
                        prop_assert_eq!(refusal, Refusal::Compacted);
                        watched.compacted = true;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        for step in steps {
            match step {
                Step::Apply(op) => self.apply(op),
                Step::Publish => self.publish()?,
                Step::Watch {
                    stream_id,
                    watch_id,
                    range: (key, range_end),
                } => {
                    let range = KeyRange::new(key.clone(), range_end.clone());
                    let added = self.groups.add(stream_id, watch_id, range);
                    let id = (stream_id, watch_id);
                    prop_assert_eq!(added, !self.watched.contains_key(&id));
                    if added {
                        let next = self.state.revision() + 1;
                        self.watched.insert(
                            id,
                            Watched {
                                key,
                                range_end,
                                started_at: next,
                                cursor: next,
                                received: Vec::new(),
                                compacted: false,
                            },
                        );
                    }
                }
                Step::Cancel {
                    stream_id,
                    watch_id,
                } => {
                    let known = self.watched.remove(&(stream_id, watch_id)).is_some();
                    prop_assert_eq!(self.groups.remove(stream_id, watch_id), known);
                }
                Step::CloseStream { stream_id } => {
                    let before = self.watched.len();
                    self.watched.retain(|(stream, _), _| *stream != stream_id);
                    let closed = self.groups.remove_stream(stream_id);
                    prop_assert_eq!(closed, before - self.watched.len());
                    self.awake.remove(&stream_id);
                }
                Step::Read { stream_id } => self.read(stream_id)?,
            }
            prop_assert_eq!(self.groups.len(), self.watched.len());
        }
        self.publish()?;
        for stream_id in 0..3 {
            self.read(stream_id)?;
        }
        Ok(())
    }
}

/// A compaction at a revision that changed a key twice leaves only the last change to a watcher
/// that had not read it yet, as in etcd. So only last changes are compared.
fn last_changes(events: &[Event]) -> Vec<&Event> {
    let id = |event: &Event| {
        let kv = event.kv.as_ref().expect("every event has its key");
        (kv.key.clone(), kv.mod_revision)
    };
    let mut last = Vec::new();
    for (index, event) in events.iter().enumerate() {
        if !events[index + 1..]
            .iter()
            .any(|later| id(later) == id(event))
        {
            last.push(event);
        }
    }
    last
}

proptest! {
    #[test]
    fn every_watcher_gets_every_event_once(steps in vec(step(), 1..60)) {
        let mut run = Run::default();
        run.run(steps)?;
        for (id, watched) in &run.watched {
            let range = KeyRange::new(watched.key.clone(), watched.range_end.clone());
            let wanted: Vec<_> = run
                .history
                .iter()
                .filter(|(revision, key, _)| {
                    *revision >= watched.started_at && range.contains(key)
                })
                .map(|(_, _, event)| event.clone())
                .collect();
            if watched.compacted {
                let received = last_changes(&watched.received);
                prop_assert!(last_changes(&wanted).starts_with(&received), "{:?}", id);
                prop_assert!(watched.cursor < run.state.compact_revision());
            } else {
                let received = last_changes(&watched.received);
                prop_assert_eq!(received, last_changes(&wanted), "{:?}", id);
            }
        }
    }
}
