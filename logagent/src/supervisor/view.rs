//! What the status document says of the running entries, bounded in size.

use logagent_core::tailer::FileView;
use rustc_hash::FxHashMap;
use schemas::fleet::{EntryState, EntryStatus, FileStatus, InFlight, Loss, Totals, Watching};

use super::Supervisor;
use super::slot::Slot;
use crate::sink::Sink;

/// How much of the state is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewLimits {
    pub entries_max: usize,
    pub files_max: usize,
}

const LOSSES_MAX: usize = 100;

/// The tailer thread's part of the status.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineView {
    pub entries: Vec<EntryStatus>,
    pub files: Vec<FileStatus>,
    pub totals: Totals,
    pub in_flight: InFlight,
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
    pub fn view(&mut self, limits: ViewLimits) -> PipelineView {
        let mut view = PipelineView {
            totals: Totals {
                lost_bytes: self.ledger.total_bytes(),
                ..self.totals.clone()
            },
            in_flight: InFlight {
                bytes: self.budget.used_bytes(),
                max_bytes: self.budget.max_bytes(),
                paused_files: self.waiting_for_room.len() as u64,
            },
            losses: self.ledger.newest(LOSSES_MAX).cloned().collect(),
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
            let files = slot.tail.tailer.view().files;
            slot.forget_flows(|handle| files.iter().any(|file| file.key == handle));
            if let Some(mut entry) = entry_status(slot) {
                entry.files = files.len() as u64;
                entry.lag_bytes = files.iter().map(lag_bytes).sum();
                match patterns.get_mut(&(entry.path.clone(), entry.topic.clone())) {
                    Some(whole) => add(whole, entry),
                    None => view.entries.push(entry),
                }
            }
            for file in files {
                if view.files.len() >= limits.files_max {
                    files_left_out += 1;
                    continue;
                }
                let flow = slot.flow(file.key, self.now_ms);
                let (lines_per_s, last_ack_ms) = (flow.lines_per_s(self.now_ms), flow.last_ack_ms);
                view.files.push(FileStatus {
                    path: slot.tail.id().path.clone(),
                    topic: slot.tail.id().topic.clone(),
                    identity: file.id.to_string(),
                    acked_offset: file.acked_offset,
                    read_offset: file.read_offset,
                    size_bytes: file.size_bytes,
                    lag_bytes: lag_bytes(&file),
                    draining: file.draining,
                    lines_per_s,
                    last_ack_ms,
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
        if view.entries.len() > limits.entries_max {
            let left_out = view.entries.len() - limits.entries_max;
            view.entries.truncate(limits.entries_max);
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
    whole.files += file.files;
    whole.lag_bytes += file.lag_bytes;
    whole.first_ack_ms = [whole.first_ack_ms, file.first_ack_ms]
        .into_iter()
        .flatten()
        .min();
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
        first_ack_ms: slot.first_ack_ms,
        ..EntryStatus::default()
    })
}

fn lag_bytes(file: &FileView) -> u64 {
    file.size_bytes.saturating_sub(file.acked_offset)
}
