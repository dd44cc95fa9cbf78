//! What the status document says of the running entries, bounded in size.

use rustc_hash::FxHashMap;
use schemas::fleet::{EntryState, EntryStatus, FileStatus, Loss, Totals, Watching};

use super::Supervisor;
use super::slot::Slot;
use crate::sink::Sink;

/// The value of the status key has to fit into one request of the store with room to spare.
const FILES_MAX: usize = 200;
const ENTRIES_MAX: usize = 2_000;

/// The tailer thread's part of the status.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineView {
    pub entries: Vec<EntryStatus>,
    pub files: Vec<FileStatus>,
    pub totals: Totals,
    pub losses: Vec<Loss>,
    pub watching: Watching,
    pub warnings: Vec<String>,
}

impl<S: Sink> Supervisor<S> {
    /// The patterns of the plan, each as one entry without files so far.
    fn pattern_statuses(
        &self,
        warnings: &mut Vec<String>,
    ) -> FxHashMap<(String, String), EntryStatus> {
        let mut statuses = FxHashMap::default();
        for walker in &self.walkers {
            let id = &walker.entry.id;
            warnings.extend(
                walker
                    .walk
                    .trouble()
                    .map(|why| format!("{}: {why}", id.path)),
            );
            let status = EntryStatus {
                path: id.path.clone(),
                topic: id.topic.clone(),
                ..EntryStatus::default()
            };
            statuses.insert((id.path.clone(), id.topic.clone()), status);
        }
        statuses
    }

    /// The state of everything, at the time of the last turn.
    pub fn view(&mut self) -> PipelineView {
        let mut view = PipelineView {
            totals: self.totals.clone(),
            losses: self.losses.iter().cloned().collect(),
            ..PipelineView::default()
        };
        let mut routes: Vec<u64> = self.slots.keys().copied().collect();
        let position = |slot: &Slot| match &slot.stopping {
            Some(stopping) => stopping
                .successor
                .as_ref()
                .map_or(usize::MAX, |entry| entry.index),
            None => slot.tail.entry.index,
        };
        // Trouble first, so that cutting the list does not hide it; then the order of the config.
        routes.sort_by_key(|route| {
            let slot = self.slots.get(route);
            (
                slot.is_some_and(|slot| slot.error.is_none()),
                slot.map(position),
                *route,
            )
        });
        let mut patterns = self.pattern_statuses(&mut view.warnings);
        let mut files_left_out = 0;
        for route in &routes {
            let Some(slot) = self.slots.get_mut(route) else {
                continue;
            };
            if let Some(entry) = entry_status(slot) {
                match patterns.get_mut(&(entry.path.clone(), entry.topic.clone())) {
                    Some(whole) => add(whole, entry),
                    None => view.entries.push(entry),
                }
            }
            let lines_per_s = rate(slot, self.now_ms);
            for file in slot.tail.tailer.view().files {
                if view.files.len() == FILES_MAX {
                    files_left_out += 1;
                    continue;
                }
                view.files.push(FileStatus {
                    path: slot.tail.id().path.clone(),
                    topic: slot.tail.id().topic.clone(),
                    identity: file.id.to_string(),
                    acked_offset: file.acked_offset,
                    read_offset: file.read_offset,
                    size_bytes: file.size_bytes,
                    lag_bytes: file.size_bytes.saturating_sub(file.acked_offset),
                    lines_per_s: if file.draining { 0.0 } else { lines_per_s },
                    last_ack_ms: slot.last_ack_ms,
                });
            }
        }
        let mut wholes: Vec<_> = patterns.into_values().collect();
        wholes.sort_by(|a, b| (&a.path, &a.topic).cmp(&(&b.path, &b.topic)));
        view.entries.append(&mut wholes);
        if files_left_out > 0 {
            view.warnings
                .push(format!("{files_left_out} more files are not listed here"));
        }
        if view.entries.len() > ENTRIES_MAX {
            let left_out = view.entries.len() - ENTRIES_MAX;
            view.entries.truncate(ENTRIES_MAX);
            view.warnings
                .push(format!("{left_out} more entries are not listed here"));
        }
        view
    }
}

/// One file of a pattern counts for the pattern; the first trouble stands for all.
fn add(whole: &mut EntryStatus, file: EntryStatus) {
    whole.lines_acked += file.lines_acked;
    whole.bytes_acked += file.bytes_acked;
    match (whole.state, file.state) {
        (EntryState::Failing, _) | (_, EntryState::Waiting) => {}
        (_, state) => whole.state = state,
    }
    if whole.error.is_none() {
        whole.error = file.error;
    }
}

/// A tail that makes way is shown as its successor, which waits.
fn entry_status(slot: &Slot) -> Option<EntryStatus> {
    let (entry, error) = match &slot.stopping {
        None => (&slot.tail.entry, slot.error.clone()),
        Some(stopping) => {
            let waits = format!(
                "waits until Kafka has acknowledged the lines sent to {}",
                slot.tail.id().topic
            );
            (
                stopping.successor.as_ref()?,
                Some(slot.error.clone().unwrap_or(waits)),
            )
        }
    };
    Some(EntryStatus {
        path: entry.asked_path().to_owned(),
        topic: entry.id.topic.clone(),
        state: slot.state,
        error,
        lines_acked: slot.lines_acked,
        bytes_acked: slot.bytes_acked,
    })
}

fn rate(slot: &mut Slot, now_ms: u64) -> f64 {
    let (lines_before, viewed_ms) = std::mem::replace(&mut slot.viewed, (slot.lines_acked, now_ms));
    let passed_s = now_ms.saturating_sub(viewed_ms) as f64 / 1_000.0;
    if passed_s <= 0.0 {
        return 0.0;
    }
    let lines_per_s = slot.lines_acked.saturating_sub(lines_before) as f64 / passed_s;
    (lines_per_s * 10.0).round() / 10.0
}
