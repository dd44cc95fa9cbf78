//! Tails in which nothing happens: what a look at them costs, and whose descriptors are given back.
//!
//! A resting tail has everything acknowledged and its file was unchanged at the last two looks. Until
//! a look shows something else, the look is all that is done for it.

use std::path::Path;

use logagent_core::tailer::PathSeen;

use super::slot::Slot;
use super::{SWEEP_MAX_MS, SWEEP_MS, Supervisor, set_timer};
use crate::sink::Sink;
use crate::source::files;
use crate::source::tail::directory_of;

/// The longest pause between two looks at a quiet file whose directory gives hints; with very many
/// files it grows, so that not more than this many are looked at in a second.
const HINTED_SWEEP_MAX_MS: u64 = 4_000;
const HINTED_SWEEP_LIMIT_MS: u64 = 15_000;
const LOOKS_PER_S: u64 = 1_500;
/// The pause grows to this part of the time that the file was quiet.
const SWEEP_SHARE: u64 = 8;
/// Tails that are due at about the same time are run together; quiet ones more coarsely.
const TIMER_GRID_MS: u64 = 50;
const QUIET_GRID_MS: u64 = 500;
/// Kept free for sockets, the checkpoint and listings: a quarter of the limit within these bounds.
const RESERVED_MIN: usize = 64;
const RESERVED_MAX: usize = 200;
/// Some files are followed under any limit.
const OPEN_FILES_MIN: usize = 8;
/// What one turn of a tail may open.
const TURN_OPENS: usize = 4;
/// Between two searches for descriptors that can be given back.
const RELEASE_PAUSE_MS: u64 = 100;

/// How many files may be open at once.
pub(super) fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = limit
        .current
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    let reserved = (limit / 4).clamp(RESERVED_MIN, RESERVED_MAX);
    limit.saturating_sub(reserved).max(OPEN_FILES_MIN)
}

/// When something that is due at this time is run.
pub(super) fn on_grid(now_ms: u64, due_ms: u64) -> u64 {
    match due_ms.saturating_sub(now_ms) {
        0..=TIMER_GRID_MS => due_ms,
        wait_ms if wait_ms <= 2 * QUIET_GRID_MS => due_ms.next_multiple_of(TIMER_GRID_MS),
        _ => due_ms.next_multiple_of(QUIET_GRID_MS),
    }
}

impl<S: Sink> Supervisor<S> {
    /// How often the tail's path is looked at without a hint.
    pub(super) fn sweep_ms(&self, slot: &Slot) -> u64 {
        let quiet_ms = self.now_ms.saturating_sub(slot.active_ms);
        let is_hinted = |path: &Path| self.hinted.contains(directory_of(path));
        let max_ms = if is_hinted(slot.tail.path()) && is_hinted(slot.tail.resolved()) {
            let all_ms = self.slots.len() as u64 * 1_000 / LOOKS_PER_S;
            all_ms.clamp(HINTED_SWEEP_MAX_MS, HINTED_SWEEP_LIMIT_MS)
        } else {
            SWEEP_MAX_MS
        };
        (quiet_ms / SWEEP_SHARE).clamp(SWEEP_MS, max_ms)
    }

    /// Looks at a resting tail; false when it has to be run.
    pub(super) fn still_rests(&mut self, route: u64) -> bool {
        let Some(slot) = self.slots.get(&route) else {
            return true;
        };
        let Some(stat) = slot.resting.filter(|_| slot.stopping.is_none()) else {
            return false;
        };
        if files::look(slot.tail.path(), &self.allow) != PathSeen::File(stat) {
            return false;
        }
        let due_ms = on_grid(self.now_ms, self.now_ms + self.sweep_ms(slot));
        if let Some(slot) = self.slots.get_mut(&route) {
            slot.wake_pending = false;
            slot.ran_ms = self.now_ms;
            set_timer(&mut self.timers, slot, route, due_ms);
        }
        true
    }

    /// False when the tail has no file open and may not open one now: it is run when it may.
    pub(super) fn may_open(&mut self, route: u64) -> bool {
        let Some(slot) = self.slots.get_mut(&route) else {
            return true;
        };
        if slot.tail.open_files() > 0 || self.open_files + TURN_OPENS <= self.open_files_max {
            return true;
        }
        if !slot.waits_for_descriptor {
            slot.waits_for_descriptor = true;
            self.waiting_for_descriptor.push_back(route);
        }
        false
    }

    /// Gives descriptors back and lets others use them: those of resting tails first, and of these
    /// the ones that were quiet for longest; then those of tails that only wait, as for the end of a
    /// rotated file.
    pub fn share_descriptors(&mut self) {
        let is_scarce = self.open_files + TURN_OPENS > self.open_files_max;
        let is_wanted = !self.waiting_for_descriptor.is_empty();
        if !(is_scarce || is_wanted) || self.now_ms < self.release_due_ms {
            return;
        }
        self.release_due_ms = self.now_ms + RELEASE_PAUSE_MS;
        let mut idle: Vec<(bool, u64, u64)> = Vec::new();
        for (route, slot) in &self.slots {
            let is_idle = slot.tail.tailer.is_settled() && !slot.tail.is_held();
            if is_idle && slot.tail.open_files() > 0 {
                let since_ms = slot.resting.map_or(slot.ran_ms, |_| slot.active_ms);
                idle.push((slot.resting.is_none(), since_ms, *route));
            }
        }
        idle.sort_unstable();
        let enough = self.open_files_max / 2;
        for (_, _, route) in idle {
            if self.open_files <= enough {
                break;
            }
            if let Some(slot) = self.slots.get_mut(&route) {
                let before = slot.tail.open_files();
                slot.tail.release_files();
                self.open_files -= before - slot.tail.open_files();
            }
        }
        let room = self.open_files_max.saturating_sub(self.open_files) / TURN_OPENS;
        for _ in 0..room {
            let Some(route) = self.waiting_for_descriptor.pop_front() else {
                break;
            };
            if let Some(slot) = self.slots.get_mut(&route) {
                slot.waits_for_descriptor = false;
                self.ready.push_back(route);
            }
        }
    }

    /// When `share_descriptors` has something to do.
    pub(super) fn release_due_ms(&self) -> Option<u64> {
        (!self.waiting_for_descriptor.is_empty()).then_some(self.release_due_ms)
    }

    /// The directories in which every change gives a hint.
    pub fn set_hinted(&mut self, directories: impl IntoIterator<Item = std::path::PathBuf>) {
        self.hinted = directories.into_iter().collect();
    }
}
