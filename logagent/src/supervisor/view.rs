//! What the status document says of the running entries, bounded in size.

use logagent_core::tailer::FileView;
use schemas::fleet::{EntryState, EntryStatus, FileStatus, InFlight, Loss, Totals, Watching};

use super::slot::Slot;
use super::{Supervisor, TAIL_UNACKED_MAX_BYTES};
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
    fn pattern_statuses(&self, warnings: &mut Vec<String>) -> Vec<EntryStatus> {
        let mut statuses = Vec::new();
        for walker in &self.walkers {
            let id = &walker.entry.id;
            warnings.extend(
                walker
                    .walk
                    .trouble()
                    .map(|why| format!("{}: {why}", id.path)),
            );
            statuses.push(EntryStatus {
                path: id.path.clone(),
                topic: id.topic.clone(),
                ..EntryStatus::default()
            });
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
                paused_files: 0,
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
        routes.sort_by_cached_key(|route| {
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
            let is_paused = self.waiting_for_room.contains(route) || has_its_share(&files);
            view.in_flight.paused_files += u64::from(is_paused);
            let entry = match &slot.stopping {
                None => Some(&slot.tail.entry),
                Some(stopping) => stopping.successor.as_ref(),
            };
            let whole = patterns.iter_mut().find(|whole| {
                entry.is_some_and(|entry| {
                    entry.pattern.as_ref() == Some(&whole.path) && entry.id.topic == whole.topic
                })
            });
            match whole {
                // Twenty thousand files are no reason to make twenty thousand documents.
                Some(whole) if slot.stopping.is_none() => {
                    add(whole, slot, &files, slot.error.as_deref());
                }
                Some(whole) => {
                    let waits = entry_status(slot).and_then(|status| status.error);
                    add(whole, slot, &files, waits.as_deref());
                }
                None => view
                    .entries
                    .extend(entry_status(slot).map(|entry| EntryStatus {
                        files: files.len() as u64,
                        lag_bytes: files.iter().map(lag_bytes).sum(),
                        ..entry
                    })),
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
        patterns.sort_by(|a, b| (&a.path, &a.topic).cmp(&(&b.path, &b.topic)));
        view.entries.append(&mut patterns);
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
fn add(whole: &mut EntryStatus, slot: &Slot, files: &[FileView], error: Option<&str>) {
    whole.lines_acked += slot.lines_acked;
    whole.bytes_acked += slot.bytes_acked;
    whole.files += files.len() as u64;
    whole.lag_bytes += files.iter().map(lag_bytes).sum::<u64>();
    whole.first_ack_ms = [whole.first_ack_ms, slot.first_ack_ms]
        .into_iter()
        .flatten()
        .min();
    match (whole.state, slot.state) {
        (EntryState::Failing, _) | (_, EntryState::Waiting) => {}
        (_, state) => whole.state = state,
    }
    if whole.error.is_none() {
        whole.error = error.map(str::to_owned);
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

/// True for an entry that may not read on, because so much of it waits for Kafka.
fn has_its_share(files: &[FileView]) -> bool {
    let in_flight = files
        .iter()
        .map(|file| file.read_offset.saturating_sub(file.acked_offset));
    let is_behind = |file: &FileView| file.size_bytes > file.read_offset;
    files.iter().any(is_behind) && in_flight.sum::<u64>() >= TAIL_UNACKED_MAX_BYTES
}

fn lag_bytes(file: &FileView) -> u64 {
    file.size_bytes.saturating_sub(file.acked_offset)
}
