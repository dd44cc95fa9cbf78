//! The running entries: starts, stops and hands over as a plan says, without touching the others.
//!
//! Runs on the tailer thread alone. Knows which tail is due; knows neither the center nor the
//! status document's transport. A panic in one tail costs that tail a restart from its last good
//! rows and nobody else anything.

mod changes;
mod notes;
mod patterns;
mod resting;
mod saving;
mod slot;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use logagent_core::checkpoint::{Checkpoint, EntryRows, FileRow};
use logagent_core::config::{EntryId, Plan};
use logagent_core::pace::Pace;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use schemas::fleet::Totals;

use crate::budget::Budget;
use crate::inbox::{AckTarget, Arrivals, BlockAck, Failure};
use crate::ledger::Ledger;
use crate::sink::Sink;
use crate::source::allow::AllowList;
use crate::source::blocks::BlockPool;
use crate::source::directories::Directories;
use crate::source::tail::{Surroundings, Tail, Turn, base_of, directory_of};
use patterns::Walker;
use slot::{Saving, Slot, Stopping};
pub use view::{PipelineView, ViewLimits};

/// One read. Large enough that a system call per block costs nothing, small enough to be in cache.
const BLOCK_BYTES: usize = 256 * 1024;
/// What one file may have in flight.
const TAIL_UNACKED_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// How often a path is looked at without a hint; a file that was quiet for long is looked at less
/// often, but still often enough where the file system gives no hints.
const SWEEP_MS: u64 = 250;
const SWEEP_MAX_MS: u64 = 1_500;
const ROTATE_WAIT_MS: u64 = 60_000;
const RETRY_MS: u64 = 250;
const RETRY_MAX_MS: u64 = 5_000;
/// Hints for a tail that just ran wait this long, so that a busy writer is read in batches.
const HINT_PAUSE_MS: u64 = 10;
/// A full queue is tried again after this long, or when something is acknowledged.
const FULL_RETRY_MS: u64 = 50;
/// A tail that panicked starts again after this long.
const PANIC_PAUSE_MS: u64 = 1_000;
/// Offsets kept for entries that were stopped; the ones stopped first are forgotten first.
const STOPPED_MAX: usize = 10_000;

/// What the supervisor is made of.
#[derive(Debug, Clone)]
pub struct Options {
    pub host: String,
    pub allow: Vec<PathBuf>,
    pub max_line_bytes: usize,
    /// Where lines go that Kafka refuses for good.
    pub dead_letter_topic: Option<String>,
    pub in_flight_max_bytes: u64,
}

/// See the module's words.
pub struct Supervisor<S: Sink> {
    sink: S,
    target: Arc<dyn AckTarget>,
    host: String,
    max_line_bytes: usize,
    dead_letter_topic: Option<String>,
    /// Of the entries that have a rate, as long as a tail uses it.
    paces: FxHashMap<EntryId, Weak<Mutex<Pace>>>,
    allow: AllowList,
    blocks: BlockPool,
    directories: Directories,
    budget: Budget,
    now_ms: u64,

    slots: FxHashMap<u64, Slot>,
    next_route: u64,
    /// Entries that ran before this start and wait for the first plan, with their rows.
    dormant: Vec<(EntryId, Vec<FileRow>)>,
    /// Offsets of entries that were stopped, oldest first.
    stopped: VecDeque<(EntryId, Vec<FileRow>)>,

    ready: VecDeque<u64>,
    timers: BTreeSet<(u64, u64)>,
    /// Tails that wait for room in the budget or in the sink.
    waiting_for_room: FxHashSet<u64>,
    /// Files that are open now, and how many may be.
    open_files: usize,
    open_files_max: usize,
    waiting_for_descriptor: VecDeque<u64>,
    release_due_ms: u64,
    /// The directories in which every change gives a hint.
    hinted: FxHashSet<PathBuf>,
    by_path: FxHashMap<PathBuf, Vec<u64>>,
    by_directory: FxHashMap<PathBuf, Vec<u64>>,

    plan: Plan,
    walkers: Vec<Walker>,
    /// The directories that were walked.
    walked: FxHashSet<PathBuf>,
    walked_ms: u64,
    walk_due_ms: u64,

    generation: u64,
    rows_changed: bool,
    /// The next checkpoint is waited for.
    save_wanted: bool,
    state_changed: bool,
    trouble: Option<String>,
    totals: Totals,
    ledger: Ledger,
    ledger_changed: bool,
}

impl<S: Sink> Supervisor<S> {
    pub fn new(
        sink: S,
        target: Arc<dyn AckTarget>,
        options: Options,
        checkpoint: Checkpoint,
        ledger: Ledger,
    ) -> Self {
        let (dormant, stopped): (Vec<_>, Vec<_>) =
            checkpoint.entries.into_iter().partition(|rows| rows.active);
        let with_id = |rows: EntryRows| {
            (
                EntryId {
                    path: rows.path,
                    topic: rows.topic,
                },
                rows.files,
            )
        };
        Self {
            sink,
            target,
            host: options.host,
            max_line_bytes: options.max_line_bytes,
            dead_letter_topic: options.dead_letter_topic,
            paces: FxHashMap::default(),
            allow: AllowList::new(options.allow),
            blocks: BlockPool::new(BLOCK_BYTES),
            directories: Directories::default(),
            budget: Budget::new(options.in_flight_max_bytes),
            now_ms: 0,
            slots: FxHashMap::default(),
            next_route: 0,
            dormant: dormant.into_iter().map(with_id).collect(),
            stopped: stopped.into_iter().map(with_id).collect(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            waiting_for_room: FxHashSet::default(),
            open_files: 0,
            open_files_max: resting::descriptors_max(),
            waiting_for_descriptor: VecDeque::new(),
            release_due_ms: 0,
            hinted: FxHashSet::default(),
            by_path: FxHashMap::default(),
            by_directory: FxHashMap::default(),
            plan: Plan::default(),
            walkers: Vec::new(),
            walked: FxHashSet::default(),
            walked_ms: 0,
            walk_due_ms: 0,
            generation: checkpoint.generation,
            rows_changed: false,
            save_wanted: false,
            state_changed: false,
            trouble: None,
            totals: Totals::default(),
            ledger,
            ledger_changed: false,
        }
    }

    /// Notes everything that arrived; `run_ready` then acts on it.
    pub fn receive<C>(&mut self, now_ms: u64, arrivals: &mut Arrivals<C>) {
        self.now_ms = now_ms;
        for ack in arrivals.acks.drain(..) {
            self.acknowledge(ack);
        }
        if arrivals.rescan {
            arrivals.rescan = false;
            self.wake_all();
        }
        for path in arrivals.hints.drain() {
            self.hint(&path);
        }
        if let Some(reason) = arrivals.producer_broken.take() {
            tracing::error!(
                reason,
                "the Kafka producer cannot go on: starting a new one"
            );
            if let Err(error) = self.sink.restart() {
                tracing::error!(reason = error, "no new Kafka producer");
            }
            self.queue_waiting();
        }
        if let Some(generation) = arrivals.saved_generation.take() {
            self.note_saved(generation);
        }
        let trouble = self.sink.trouble();
        if trouble != self.trouble {
            self.trouble = trouble;
            self.state_changed = true;
        }
        let later = self.timers.split_off(&(now_ms + 1, 0));
        for (_, route) in std::mem::replace(&mut self.timers, later) {
            if let Some(slot) = self.slots.get_mut(&route) {
                slot.due_ms = None;
                self.ready.push_back(route);
            }
        }
    }

    fn acknowledge(&mut self, ack: BlockAck) {
        self.budget.release(ack.lane, ack.load.charged_bytes);
        self.queue_waiting();
        let Some(slot) = self.slots.get_mut(&ack.route) else {
            return;
        };
        match ack.failure {
            None => {
                self.rows_changed |= slot.tail.tailer.block_done(ack.ticket);
                self.totals.lines_acked += ack.load.lines;
                self.totals.bytes_acked += ack.load.bytes;
                self.totals.cut_lines += ack.load.cut_lines;
                self.totals.dead_letters += ack.load.dead_letters;
                self.state_changed |= slot.note_delivery(ack.ticket.handle, ack.load, self.now_ms);
            }
            Some(Failure { blame, reason }) => {
                self.totals.delivery_errors += 1;
                slot.tail.tailer.block_failed(ack.ticket, blame, &reason);
                self.sink.probe(&slot.tail.outlet.destination.topic);
                self.state_changed |= slot.note_failure(reason);
            }
        }
        self.ready.push_back(ack.route);
    }

    fn hint(&mut self, path: &Path) {
        if let Some(routes) = self.by_path.get(path) {
            for route in routes.clone() {
                self.wake(route);
            }
            return;
        }
        self.hint_walk(path);
        // A rotated file that is still written, or the directory itself.
        let name = base_of(path);
        let beside = self
            .by_directory
            .get(directory_of(path))
            .into_iter()
            .flatten();
        let begins = |route: &&u64| {
            self.slots
                .get(route)
                .is_some_and(|slot| name.starts_with(base_of(slot.tail.path())))
        };
        let inside = self.by_directory.get(path).into_iter().flatten();
        let routes: Vec<u64> = beside.filter(begins).chain(inside).copied().collect();
        for route in routes {
            self.wake(route);
        }
    }

    fn wake(&mut self, route: u64) {
        let Some(slot) = self.slots.get_mut(&route) else {
            return;
        };
        slot.wake_pending = true;
        let at_ms = self.now_ms.max(slot.ran_ms + HINT_PAUSE_MS);
        if at_ms <= self.now_ms {
            self.ready.push_back(route);
        } else if slot.due_ms.is_none_or(|due_ms| due_ms > at_ms) {
            set_timer(&mut self.timers, slot, route, at_ms);
        }
    }

    fn wake_all(&mut self) {
        let routes: Vec<u64> = self.slots.keys().copied().collect();
        routes.into_iter().for_each(|route| self.wake(route));
    }

    fn queue_waiting(&mut self) {
        self.ready.extend(self.waiting_for_room.drain());
    }

    /// Gives every tail that is due one turn.
    pub fn run_ready(&mut self) {
        let mut seen = FxHashSet::default();
        for _ in 0..self.ready.len() {
            let Some(route) = self.ready.pop_front() else {
                break;
            };
            if seen.insert(route) && !self.still_rests(route) && self.may_open(route) {
                self.run_one(route);
            }
        }
    }

    /// True when a tail has more to do at once.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the next tail is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        let tail_ms = self.timers.first().map(|(due_ms, _)| *due_ms);
        [tail_ms, self.walk_due_ms(), self.release_due_ms()]
            .into_iter()
            .flatten()
            .min()
    }

    fn run_one(&mut self, route: u64) {
        let Some(sweep_ms) = self.slots.get(&route).map(|slot| self.sweep_ms(slot)) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&route) else {
            return;
        };
        if let Some(restart_ms) = slot.panicked_until_ms {
            if restart_ms > self.now_ms {
                set_timer(&mut self.timers, slot, route, restart_ms);
                return;
            }
            self.restart_panicked(route);
            return;
        }
        if std::mem::take(&mut slot.wake_pending) {
            slot.tail.tailer.wake();
        }
        let has_room = self.budget.has_room(slot.tail.lane());
        slot.tail
            .tailer
            .set_max_unacked_bytes(if has_room { TAIL_UNACKED_MAX_BYTES } else { 0 });
        slot.tail.tailer.set_sweep_ms(sweep_ms);
        slot.resting = None;
        let open_before = slot.tail.open_files();
        slot.ran_ms = self.now_ms;
        let around = Surroundings {
            sink: &self.sink,
            blocks: &self.blocks,
            allow: &self.allow,
            directories: &self.directories,
            target: &self.target,
            now_ms: self.now_ms,
        };
        let revision = slot.tail.tailer.revision();
        let turn = catch_unwind(AssertUnwindSafe(|| slot.tail.run(&around)));
        self.open_files = self.open_files + slot.tail.open_files() - open_before;
        let (charged_bytes, lines_read) = slot.tail.take_charges();
        self.budget.charge(slot.tail.lane(), charged_bytes);
        self.totals.lines_read += lines_read;
        if charged_bytes > 0 || slot.tail.tailer.revision() != revision {
            slot.active_ms = self.now_ms;
            self.rows_changed |= slot.tail.tailer.revision() != revision;
        }
        if slot.tail.take_wants_save() {
            slot.saving = Saving::Wanted;
            self.rows_changed = true;
            self.save_wanted = true;
        }
        match turn {
            Ok(Turn::More) => self.ready.push_back(route),
            Ok(Turn::Idle { until_ms }) => {
                if !has_room {
                    self.waiting_for_room.insert(route);
                }
                slot.resting = slot.tail.tailer.resting();
                let due_ms = resting::on_grid(self.now_ms, until_ms);
                set_timer(&mut self.timers, slot, route, due_ms);
            }
            Ok(Turn::Full) => {
                self.waiting_for_room.insert(route);
                set_timer(&mut self.timers, slot, route, self.now_ms + FULL_RETRY_MS);
            }
            Ok(Turn::Paced { until_ms }) => {
                set_timer(&mut self.timers, slot, route, until_ms);
            }
            Err(_) => {
                let (path, topic) = (&slot.tail.id().path, &slot.tail.id().topic);
                tracing::error!(path, topic, "an entry panicked: it starts again alone");
                slot.panicked_until_ms = Some(self.now_ms + PANIC_PAUSE_MS);
                set_timer(&mut self.timers, slot, route, self.now_ms + PANIC_PAUSE_MS);
            }
        }
        let (path, topic) = (slot.tail.id().path.clone(), slot.tail.id().topic.clone());
        for note in slot.tail.take_notes() {
            self.ledger_changed |= notes::record(&mut self.ledger, &path, &topic, note);
        }
        // A loss is written down with the next checkpoint, even if no offset moves.
        self.rows_changed |= self.ledger_changed;
        self.state_changed |= slot.refresh_state(self.trouble.as_deref());
        let resolved = slot.tail.resolved();
        if slot.indexed != resolved {
            let (old, new) = (
                std::mem::replace(&mut slot.indexed, resolved.to_owned()),
                resolved,
            );
            let new = new.to_owned();
            if old != slot.tail.path() {
                unindex(&mut self.by_path, &mut self.by_directory, &old, route);
            }
            index(&mut self.by_path, &mut self.by_directory, &new, route);
        }
        self.finish_stopped(route);
    }

    fn finish_stopped(&mut self, route: u64) {
        let settled = |slot: &Slot| slot.stopping.is_some() && slot.tail.tailer.is_settled();
        if !self.slots.get(&route).is_some_and(settled) {
            return;
        }
        let Some(slot) = self.remove(route) else {
            return;
        };
        let rows = slot.tail.tailer.rows();
        let Some(stopping) = slot.stopping else {
            return;
        };
        match stopping.successor {
            Some(entry) => self.start(entry, rows),
            None => self.keep_stopped(stopping.rows_to, rows),
        }
        self.rows_changed = true;
        self.state_changed = true;
    }

    fn restart_panicked(&mut self, route: u64) {
        let Some(slot) = self.remove(route) else {
            return;
        };
        let rows = slot.saved_rows;
        match slot.stopping {
            None => self.start(slot.tail.entry, rows),
            Some(Stopping {
                successor: Some(entry),
                ..
            }) => self.start(entry, rows),
            Some(Stopping {
                successor: None,
                rows_to,
            }) => self.keep_stopped(rows_to, rows),
        }
        self.state_changed = true;
    }

    fn remove(&mut self, route: u64) -> Option<Slot> {
        let slot = self.slots.remove(&route)?;
        self.budget.leave(slot.tail.lane());
        if let Some(due_ms) = slot.due_ms {
            self.timers.remove(&(due_ms, route));
        }
        self.waiting_for_room.remove(&route);
        self.open_files -= slot.tail.open_files();
        unindex(
            &mut self.by_path,
            &mut self.by_directory,
            slot.tail.path(),
            route,
        );
        unindex(
            &mut self.by_path,
            &mut self.by_directory,
            &slot.indexed,
            route,
        );
        Some(slot)
    }

    fn index(&mut self, route: u64, tail: &Tail) {
        index(
            &mut self.by_path,
            &mut self.by_directory,
            tail.path(),
            route,
        );
    }

    /// The directories from which hints are wanted.
    pub fn wanted_directories(&self) -> FxHashSet<PathBuf> {
        let walked = self.walked.iter().cloned();
        self.by_directory.keys().cloned().chain(walked).collect()
    }

    /// A directory is watched only now: what happened in it before gave no hint.
    pub fn directory_watched(&mut self, directory: &Path) {
        self.hint_walk(directory);
        for route in self
            .by_directory
            .get(directory)
            .cloned()
            .unwrap_or_default()
        {
            self.wake(route);
        }
    }

    /// Stops reading everywhere; what is in flight is still waited for.
    pub fn begin_shutdown(&mut self) {
        let routes: Vec<u64> = self.slots.keys().copied().collect();
        for route in routes {
            if let Some(slot) = self.slots.get_mut(&route) {
                slot.tail.tailer.begin_stop();
                self.ready.push_back(route);
            }
        }
    }

    pub fn is_settled(&self) -> bool {
        self.slots
            .values()
            .all(|slot| slot.tail.tailer.is_settled())
    }

    /// True once after the state of an entry changed.
    pub fn take_state_changed(&mut self) -> bool {
        std::mem::take(&mut self.state_changed)
    }
}

fn set_timer(timers: &mut BTreeSet<(u64, u64)>, slot: &mut Slot, route: u64, due_ms: u64) {
    if let Some(old_ms) = slot.due_ms.replace(due_ms) {
        timers.remove(&(old_ms, route));
    }
    timers.insert((due_ms, route));
}

type Index = FxHashMap<PathBuf, Vec<u64>>;

fn index(by_path: &mut Index, by_directory: &mut Index, path: &Path, route: u64) {
    for (map, key) in [(by_path, path), (by_directory, directory_of(path))] {
        let routes = map.entry(key.to_owned()).or_default();
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
}

fn unindex(by_path: &mut Index, by_directory: &mut Index, path: &Path, route: u64) {
    for (map, key) in [(by_path, path), (by_directory, directory_of(path))] {
        if let Some(routes) = map.get_mut(key) {
            routes.retain(|known| *known != route);
            if routes.is_empty() {
                map.remove(key);
            }
        }
    }
}

#[cfg(test)]
#[path = "supervisor/tests.rs"]
mod tests;
