//! Reads a watcher's history in bounded portions and cuts it into responses.

use config_center_core::Refusal;
use prost::Message as _;
use schemas::etcdserverpb::{ResponseHeader, WatchResponse};
use schemas::mvccpb::Event;

use super::watcher::Watcher;
use crate::engine::Engine;

/// The most revisions of one portion, as in etcd.
const PORTION_REVISIONS: usize = 1000;
/// A portion ends at the first revision that brings it above this size.
const PORTION_BYTES: usize = 1 << 20;
/// Read under one hold of the state's lock. Bounds by how much a portion of large values can
/// exceed its size.
const STEP_REVISIONS: usize = 16;
/// Steps of one portion; a history without hits goes on in the next one.
const PORTION_STEPS: usize = 64;

/// What a portion of reading found.
#[derive(Debug, PartialEq)]
pub(super) enum Portion {
    /// Events that the watcher wants, whole revisions in order; may be empty.
    Events {
        events: Vec<Event>,
        revision: i64,
        synced: bool,
    },
    /// The cursor lies in a part of history that is gone.
    Compacted { compact_revision: i64 },
}

/// Reads on from the watcher's cursor and moves it.
pub(super) fn read(engine: &Engine, watcher: &mut Watcher) -> Portion {
    let revision = engine.revision();
    let mut events: Vec<Event> = Vec::new();
    let (mut revisions, mut bytes) = (0, 0);
    for _ in 0..PORTION_STEPS {
        if watcher.next_rev > revision || revisions >= PORTION_REVISIONS || bytes >= PORTION_BYTES {
            break;
        }
        let step = STEP_REVISIONS.min(PORTION_REVISIONS - revisions);
        let page = engine.read(|state| {
            state
                .events(
                    &watcher.range,
                    watcher.next_rev,
                    revision,
                    step,
                    watcher.prev_kv,
                )
                .map_err(|refusal| (refusal, state.compact_revision()))
        });
        match page {
            Ok(page) => {
                watcher.next_rev = page.next_rev;
                for event in page.events {
                    if !watcher.wants(&event) {
                        continue;
                    }
                    if events.last().map(mod_revision) != Some(mod_revision(&event)) {
                        revisions += 1;
                    }
                    bytes += event.encoded_len();
                    events.push(event);
                }
            }
            // What was read before the compaction overtook the cursor is still good.
            Err((Refusal::Compacted, _)) if !events.is_empty() => break,
            Err((_, compact_revision)) => return Portion::Compacted { compact_revision },
        }
    }
    Portion::Events {
        events,
        revision,
        synced: watcher.next_rev > revision,
    }
}

/// One or more responses: never more than about the portion's size each, and cut between
/// revisions, unless the client asked for fragments of what is too large for one message.
pub(super) fn responses(
    header: ResponseHeader,
    watch_id: i64,
    events: Vec<Event>,
    fragment_bytes: Option<usize>,
) -> impl Iterator<Item = WatchResponse> {
    let whole = split(events, |bytes, last, next| {
        bytes >= PORTION_BYTES && mod_revision(last) != mod_revision(next)
    });
    whole.into_iter().flat_map(move |events| {
        let parts = match fragment_bytes {
            Some(limit) => split(events, |bytes, _, next| bytes + next.encoded_len() >= limit),
            None => vec![events],
        };
        let last = parts.len() - 1;
        parts
            .into_iter()
            .enumerate()
            .map(move |(part, events)| WatchResponse {
                header: Some(header),
                watch_id,
                fragment: part != last,
                events,
                ..WatchResponse::default()
            })
    })
}

/// Cuts before every event for which `cut(bytes so far, event before, event)` holds.
fn split(events: Vec<Event>, cut: impl Fn(usize, &Event, &Event) -> bool) -> Vec<Vec<Event>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        let part_is_full = parts
            .last()
            .and_then(|part: &Vec<Event>| part.last())
            .is_some_and(|last| cut(bytes, last, &event));
        if part_is_full {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += event.encoded_len();
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    parts
}

fn mod_revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use schemas::mvccpb::KeyValue;

    use super::*;

    fn event(revision: i64, bytes: usize) -> Event {
        let kv = KeyValue {
            key: Bytes::from_static(b"k"),
            mod_revision: revision,
            value: Bytes::from(vec![0; bytes]),
            ..KeyValue::default()
        };
        Event {
            kv: Some(kv),
            ..Event::default()
        }
    }

    fn shape(events: Vec<Event>, fragment_bytes: Option<usize>) -> Vec<(Vec<i64>, bool)> {
        responses(ResponseHeader::default(), 3, events, fragment_bytes)
            .map(|response| {
                assert_eq!(response.watch_id, 3);
                (
                    response.events.iter().map(mod_revision).collect(),
                    response.fragment,
                )
            })
            .collect()
    }

    #[test]
    fn large_portions_are_cut_between_revisions_only() {
        let half = PORTION_BYTES / 2 + 1;
        let events = vec![
            event(5, half),
            event(5, half),
            event(5, half),
            event(6, 1),
            event(7, 1),
        ];
        assert_eq!(
            shape(events, None),
            [(vec![5, 5, 5], false), (vec![6, 7], false)]
        );
    }

    #[test]
    fn fragments_split_a_revision_and_say_so() {
        let events = vec![event(5, 600), event(5, 600), event(5, 600)];
        assert_eq!(
            shape(events.clone(), Some(1000)),
            [(vec![5], true), (vec![5], true), (vec![5], false)]
        );
        assert_eq!(shape(events, Some(10_000)), [(vec![5, 5, 5], false)]);
        // One event alone cannot be split.
        assert_eq!(shape(vec![event(5, 5000)], Some(1000)), [(vec![5], false)]);
    }
}
