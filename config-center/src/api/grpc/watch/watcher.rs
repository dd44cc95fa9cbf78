//! One watcher: what it wants and how far it has read.

use bytes::Bytes;
use config_center_core::KeyRange;
use schemas::etcdserverpb::WatchCreateRequest;
use schemas::etcdserverpb::watch_create_request::FilterType;
use schemas::mvccpb::Event;
use schemas::mvccpb::event::EventType;

/// A watcher of one stream.
///
/// Worked example: created at revision 7 from revision 5, it starts with `next_rev` 5 and behind.
/// A page up to 7 puts it at 8, synced. Nothing of its range happens until 20 is announced: then
/// 8 to 19 are known to be without interest, the cursor jumps to 20 and it is behind again.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) range: KeyRange,
    /// As the client gave it; 0 is "from now".
    start_rev: i64,
    /// Everything below was delivered or does not concern this watcher.
    pub(super) next_rev: i64,
    /// In the stream's queue of watchers that have something to read.
    pub(super) behind: bool,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
    /// `None` unless asked for; `Some(true)` when the next periodic notification is due, that is,
    /// when no event was sent since the last one.
    pub(super) progress: Option<bool>,
    no_puts: bool,
    no_deletes: bool,
}

impl Watcher {
    pub(super) fn new(request: &WatchCreateRequest, range: KeyRange, next_rev: i64) -> Self {
        Self {
            range,
            start_rev: request.start_revision,
            next_rev,
            behind: false,
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress: request.progress_notify.then_some(true),
            no_puts: request.filters().any(|filter| filter == FilterType::Noput),
            no_deletes: request
                .filters()
                .any(|filter| filter == FilterType::Nodelete),
        }
    }

    /// The range of a request; an empty key means the smallest one.
    pub(super) fn range_of(request: &WatchCreateRequest) -> KeyRange {
        let key = if request.key.is_empty() {
            Bytes::from_static(&[0])
        } else {
            request.key.clone()
        };
        KeyRange::new(key, request.range_end.clone())
    }

    /// A revision was announced that concerns this watcher. `true` when it has to be queued.
    pub(super) fn announced(&mut self, first_rev: i64) -> bool {
        if self.behind {
            return false;
        }
        self.next_rev = self.next_rev.max(first_rev);
        self.behind = true;
        true
    }

    /// Whether the watcher may be told that it has seen everything up to this revision. Not before
    /// the revision that it asked to start with exists, although nothing below it concerns it: that
    /// is etcd's rule, and one revision stricter than it needs to be.
    pub(super) fn has_begun(&self, revision: i64) -> bool {
        self.start_rev <= revision && self.next_rev <= revision + 1
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        match event.r#type() {
            EventType::Put => !self.no_puts,
            EventType::Delete => !self.no_deletes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watcher(next_rev: i64) -> Watcher {
        let request = WatchCreateRequest::default();
        let range = Watcher::range_of(&request);
        Watcher::new(&request, range, next_rev)
    }

    #[test]
    fn an_announcement_moves_a_synced_cursor_forward_only() {
        let mut synced = watcher(8);
        assert!(synced.announced(20));
        assert_eq!(synced.next_rev, 20);

        // A late announcement of something that was read already must not repeat it.
        let mut ahead = watcher(8);
        assert!(ahead.announced(5));
        assert_eq!(ahead.next_rev, 8);

        // One that still reads history keeps its place.
        let mut behind = watcher(2);
        behind.behind = true;
        assert!(!behind.announced(20));
        assert_eq!(behind.next_rev, 2);
    }

    #[test]
    fn progress_begins_at_the_revision_asked_for() {
        let request = WatchCreateRequest {
            start_revision: 8,
            ..WatchCreateRequest::default()
        };
        let asked = Watcher::new(&request, Watcher::range_of(&request), 8);
        assert!(!asked.has_begun(6) && !asked.has_begun(7) && asked.has_begun(8));
        // From now: the first revision to come is 8, and all before it is known.
        assert!(watcher(8).has_begun(7));
    }

    #[test]
    fn an_empty_key_is_the_smallest_key() {
        let everything = WatchCreateRequest {
            range_end: Bytes::from_static(&[0]),
            ..WatchCreateRequest::default()
        };
        assert!(Watcher::range_of(&everything).contains(b"a"));
        assert!(!Watcher::range_of(&WatchCreateRequest::default()).contains(b"a"));
    }
}
