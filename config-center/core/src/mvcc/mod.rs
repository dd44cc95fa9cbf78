//! The keyspace: every key's revisions in memory, reads at any revision that is not compacted, and
//! the history that watchers read.
//!
//! Knows nothing of leases beyond the number stored with a revision, nothing of persistence.

mod key_range;

pub use key_range::KeyRange;

use schemas::mvccpb::Event;

/// A stretch of history for one watcher. Never splits a revision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventPage {
    /// In the order of revisions, and inside one revision in the order of its operations.
    pub events: Vec<Event>,
    /// Where the next page starts. Everything below was looked at, so a page can be empty and yet
    /// advance; the range is finished when this is above the asked `to_rev`.
    pub next_rev: i64,
}
