//! History for watchers: the rows of the log, as events.

use std::sync::Arc;

use schemas::mvccpb::event::EventType;
use schemas::mvccpb::{Event, KeyValue};

use super::key_range::KeyRange;
use super::keyspace::Keyspace;
use super::read::key_value;
use crate::planted::{self, Bug};
use crate::refusal::Refusal;
use crate::state::RevisionRow;

/// Rows looked at for one page. Bounds how long a watcher with few hits in a long history keeps
/// the state from being written.
const MAX_SCANNED_ROWS: usize = 20_000;

/// A stretch of history for one watcher. Never splits a revision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventPage {
    /// In the order of revisions, and inside one revision in the order of its operations.
    pub events: Vec<Event>,
    /// Where the next page starts. Everything below was looked at, so a page can be empty and yet
    /// advance; the range is finished when this is above the asked `to_rev`, or above the store's
    /// revision if that is lower.
    pub next_rev: i64,
}

impl Keyspace {
    /// See `State::events`.
    pub(crate) fn events(
        &self,
        range: &KeyRange,
        from_rev: i64,
        to_rev: i64,
        max_revisions: usize,
        prev_kv: bool,
    ) -> Result<EventPage, Refusal> {
        if from_rev < self.compacted() {
            return Err(Refusal::Compacted);
        }
        let to_rev = to_rev.min(self.revision());
        let mut page = EventPage {
            events: Vec::new(),
            next_rev: from_rev,
        };
        if from_rev > to_rev {
            return Ok(page);
        }
        if let KeyRange::Single(key) = range {
            // One key has its own list; the log would be a detour through everybody's writes.
            if let Some(history) = self.index.get(&key[..]) {
                let rows = history.between(from_rev, to_rev);
                self.fill(&mut page, rows, range, to_rev, max_revisions, prev_kv);
            } else {
                page.next_rev = to_rev + 1;
            }
        } else {
            let first = self.log.partition_point(|row| row.main < from_rev);
            let rows = self.log.range(first..).take_while(|row| row.main <= to_rev);
            self.fill(&mut page, rows, range, to_rev, max_revisions, prev_kv);
        }
        Ok(page)
    }

    /// Stops only where a revision begins.
    fn fill<'a>(
        &'a self,
        page: &mut EventPage,
        rows: impl Iterator<Item = &'a Arc<RevisionRow>>,
        range: &KeyRange,
        to_rev: i64,
        max_revisions: usize,
        prev_kv: bool,
    ) {
        let mut revisions_with_events = 0;
        let (mut last_seen, mut last_hit) = (i64::MIN, i64::MIN);
        for (scanned, row) in rows.enumerate() {
            let begins = row.main != last_seen;
            let full = revisions_with_events >= max_revisions.max(1) || scanned >= MAX_SCANNED_ROWS;
            if full && begins {
                page.next_rev = row.main;
                return;
            }
            if full && planted::is(Bug::PageSplitsRevision) {
                page.next_rev = row.main + 1;
                return;
            }
            last_seen = row.main;
            if range.contains(&row.key) {
                if row.main != last_hit {
                    revisions_with_events += 1;
                    last_hit = row.main;
                }
                page.events.push(self.event(row, prev_kv));
            }
        }
        page.next_rev = to_rev + 1;
    }

    fn event(&self, row: &RevisionRow, prev_kv: bool) -> Event {
        let is_create = !row.tombstone && row.create_revision == row.main;
        let (kind, kv) = if row.tombstone {
            let kv = KeyValue {
                key: row.key.clone(),
                mod_revision: row.main,
                ..KeyValue::default()
            };
            (EventType::Delete, kv)
        } else {
            (EventType::Put, key_value(row))
        };
        Event {
            r#type: kind as i32,
            kv: Some(kv),
            prev_kv: if prev_kv && !is_create {
                self.before(row).map(key_value)
            } else {
                None
            },
        }
    }

    /// What the key was one revision earlier, unless that is compacted.
    pub(crate) fn before(&self, row: &RevisionRow) -> Option<&RevisionRow> {
        let revision = row.main - 1;
        if revision < self.compacted() {
            return None;
        }
        let history = self.index.get(&row.key[..])?;
        history.live_at(revision).map(AsRef::as_ref)
    }
}
