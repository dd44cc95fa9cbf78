//! The running entries: starts, stops and hands over as a plan says, without touching the others.
//!
//! Runs on the tailer thread alone. Knows which tail is due; knows neither the center nor the
//! status document's transport. A panic in one tail costs that tail a restart from its last good
//! rows and nobody else anything.

mod slot;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logagent_core::checkpoint::{Checkpoint, EntryRows, FileRow};
use logagent_core::config::{Entry, EntryId, Plan, StartAt};
use logagent_core::plan::{Change, diff};
use logagent_core::tailer::{Note, Tailer, TailerOptions};
use rustc_hash::{FxHashMap, FxHashSet};
use schemas::fleet::{Loss, Totals};

use crate::budget::Budget;
use crate::inbox::{AckTarget, Arrivals, BlockAck};
use crate::sink::Sink;
use crate::source::allow::AllowList;
use crate::source::blocks::BlockPool;
use crate::source::tail::{Surroundings, Tail, Turn, base_of, directory_of};
use slot::{Saving, Slot, Stopping};
pub use view::PipelineView;

/// One read. Large enough that a system call per block costs nothing, small enough to be in cache.
const BLOCK_BYTES: usize = 256 * 1024;
/// What one file may have in flight.
const TAIL_UNACKED_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// How often a path is looked at without a hint.
const SWEEP_MS: u64 = 250;
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
const LOSSES_MAX: usize = 100;

/// What the supervisor is made of.
#[derive(Debug, Clone)]
pub struct Options {
    pub host: String,
    pub allow: Vec<PathBuf>,
    pub max_line_bytes: usize,
    pub in_flight_max_bytes: u64,
}

/// See the module's words.
pub struct Supervisor<S: Sink> {
    sink: S,
    target: Arc<dyn AckTarget>,
    host: String,
    max_line_bytes: usize,
    allow: AllowList,
    blocks: BlockPool,
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
    by_path: FxHashMap<PathBuf, Vec<u64>>,
    by_directory: FxHashMap<PathBuf, Vec<u64>>,

    generation: u64,
    rows_changed: bool,
    /// The next checkpoint is waited for.
    save_wanted: bool,
    state_changed: bool,
    trouble: Option<String>,
    totals: Totals,
    losses: VecDeque<Loss>,
}

impl<S: Sink> Supervisor<S> {
    pub fn new(
        sink: S,
        target: Arc<dyn AckTarget>,
        options: Options,
        checkpoint: Checkpoint,
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
            allow: AllowList::new(options.allow),
            blocks: BlockPool::new(BLOCK_BYTES),
            budget: Budget::new(options.in_flight_max_bytes),
            now_ms: 0,
            slots: FxHashMap::default(),
            next_route: 0,
            dormant: dormant.into_iter().map(with_id).collect(),
            stopped: stopped.into_iter().map(with_id).collect(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            waiting_for_room: FxHashSet::default(),
            by_path: FxHashMap::default(),
            by_directory: FxHashMap::default(),
            generation: checkpoint.generation,
            rows_changed: false,
            save_wanted: false,
            state_changed: false,
            trouble: None,
            totals: Totals::default(),
            losses: VecDeque::new(),
        }
    }

    /// Carries out what a plan changes. New tails have had their first turn when this returns.
    pub fn apply(&mut self, plan: &Plan) {
        let running = self.running_entries(plan);
        for change in diff(&running, plan) {
            match change {
                Change::Keep(id) => self.keep(&id, plan),
                Change::Stop(id) => self.stop(&id),
                Change::HandOver { from, to } => self.hand_over(&from, to),
                Change::Start(entry) => self.start_new(entry),
            }
        }
        self.rows_changed = true;
        self.state_changed = true;
        self.run_ready();
    }

    /// True while a tail waits for another one's acknowledgements before it can begin.
    pub fn is_handing_over(&self) -> bool {
        self.slots.values().any(|slot| {
            slot.stopping
                .as_ref()
                .is_some_and(|s| s.successor.is_some())
        })
    }

    /// True while a new entry is not on disk yet: a kill now would forget that it was started.
    pub fn is_saving(&self) -> bool {
        self.slots
            .values()
            .any(|slot| slot.stopping.is_none() && slot.saving != Saving::Settled)
    }

    /// The entries as a plan would see them: a tail that makes way counts as its successor. Before
    /// the first plan these are the ones that ran when the agent ended.
    fn running_entries(&self, plan: &Plan) -> Vec<Entry> {
        let mut routes: Vec<_> = self.slots.iter().collect();
        routes.sort_by_key(|(route, _)| **route);
        let live = routes
            .into_iter()
            .filter_map(|(_, slot)| match &slot.stopping {
                None => Some(slot.tail.entry.clone()),
                Some(stopping) => stopping.successor.clone(),
            });
        let dormant = self.dormant.iter().map(|(id, _)| {
            let planned = plan.entries.iter().find(|entry| entry.id == *id);
            planned.cloned().unwrap_or_else(|| Entry {
                id: id.clone(),
                index: 0,
                from: StartAt::Beginning,
                max_line_bytes: None,
            })
        });
        live.chain(dormant).collect()
    }

    fn keep(&mut self, id: &EntryId, plan: &Plan) {
        let Some(entry) = plan.entries.iter().find(|entry| entry.id == *id) else {
            return;
        };
        if let Some(rows) = self.take_dormant(id) {
            self.start_saved(entry.clone(), rows);
        } else if let Some(route) = self.route_of(id)
            && let Some(slot) = self.slots.get_mut(&route)
        {
            slot.tail.entry.index = entry.index;
        }
    }

    fn stop(&mut self, id: &EntryId) {
        if let Some(rows) = self.take_dormant(id) {
            self.keep_stopped(id.clone(), Some(rows));
        } else if let Some(slot) = self.pending_mut(id) {
            slot.successor = None;
        } else if let Some(route) = self.route_of(id) {
            self.begin_stop(
                route,
                Stopping {
                    successor: None,
                    rows_to: id.clone(),
                },
            );
        }
    }

    fn hand_over(&mut self, from: &EntryId, to: Entry) {
        if let Some(rows) = self.take_dormant(from) {
            self.start_saved(to, rows);
        } else if let Some(pending) = self.pending_mut(from) {
            pending.rows_to = to.id.clone();
            pending.successor = Some(to);
        } else if let Some(route) = self.route_of(from) {
            self.begin_stop(
                route,
                Stopping {
                    rows_to: to.id.clone(),
                    successor: Some(to),
                },
            );
        }
    }

    fn start_new(&mut self, entry: Entry) {
        let leaving = self
            .slots
            .values_mut()
            .filter_map(|slot| slot.stopping.as_mut());
        for stopping in leaving {
            if stopping.successor.is_none() && stopping.rows_to == entry.id {
                // It was just stopped: it goes on where it ends.
                stopping.successor = Some(entry);
                return;
            }
        }
        let known = self.stopped.iter().position(|(id, _)| *id == entry.id);
        let rows = known
            .and_then(|at| self.stopped.remove(at))
            .map(|(_, rows)| rows);
        self.start(entry, rows);
    }

    /// Starts with what the checkpoint on disk has of this entry, or of the one that it follows.
    fn start_saved(&mut self, entry: Entry, rows: Vec<FileRow>) {
        self.start_with(entry, Some(rows), true);
    }

    /// Starts a new entry, or one whose rows may not be on disk.
    fn start(&mut self, entry: Entry, rows: Option<Vec<FileRow>>) {
        self.start_with(entry, rows, false);
    }

    fn start_with(&mut self, entry: Entry, rows: Option<Vec<FileRow>>, is_saved: bool) {
        let route = self.next_route;
        self.next_route += 1;
        tracing::info!(path = entry.id.path, topic = entry.id.topic, "collecting");
        let mut tail = self.make_tail(entry, rows.clone(), route);
        if !is_saved {
            tail.tailer.must_save();
        }
        self.index(route, &tail);
        self.slots.insert(route, Slot::new(tail, rows));
        self.ready.push_back(route);
    }

    fn make_tail(&mut self, entry: Entry, rows: Option<Vec<FileRow>>, route: u64) -> Tail {
        let options = TailerOptions {
            block_bytes: BLOCK_BYTES,
            max_line_bytes: entry
                .max_line_bytes
                .map_or(self.max_line_bytes, |asked| asked.min(self.max_line_bytes)),
            max_unacked_bytes: TAIL_UNACKED_MAX_BYTES,
            rotate_wait_ms: ROTATE_WAIT_MS,
            sweep_ms: SWEEP_MS,
            retry_ms: RETRY_MS,
            max_retry_ms: RETRY_MAX_MS,
            ..TailerOptions::default()
        };
        let lane = self.budget.lane(&entry.id.topic);
        let path = PathBuf::from(&entry.id.path);
        let tailer = Tailer::new(base_of(&path), entry.from, rows, options);
        Tail::new(entry, tailer, &self.host, route, lane)
    }

    fn begin_stop(&mut self, route: u64, stopping: Stopping) {
        let Some(slot) = self.slots.get_mut(&route) else {
            return;
        };
        tracing::info!(
            path = slot.tail.id().path,
            topic = slot.tail.id().topic,
            "stopping"
        );
        slot.tail.tailer.begin_stop();
        slot.stopping = Some(stopping);
        self.ready.push_back(route);
    }

    fn route_of(&self, id: &EntryId) -> Option<u64> {
        let running = |(_, slot): &(&u64, &Slot)| slot.stopping.is_none() && slot.tail.id() == id;
        self.slots.iter().find(running).map(|(route, _)| *route)
    }

    fn pending_mut(&mut self, id: &EntryId) -> Option<&mut Stopping> {
        self.slots
            .values_mut()
            .filter_map(|slot| slot.stopping.as_mut())
            .find(|stopping| {
                stopping
                    .successor
                    .as_ref()
                    .is_some_and(|entry| entry.id == *id)
            })
    }

    fn take_dormant(&mut self, id: &EntryId) -> Option<Vec<FileRow>> {
        let at = self.dormant.iter().position(|(known, _)| known == id)?;
        Some(self.dormant.swap_remove(at).1)
    }

    fn keep_stopped(&mut self, id: EntryId, rows: Option<Vec<FileRow>>) {
        // An entry that never began has nothing to go on with.
        let Some(rows) = rows else { return };
        self.stopped.retain(|(known, _)| *known != id);
        self.stopped.push_back((id, rows));
        if self.stopped.len() > STOPPED_MAX {
            self.stopped.pop_front();
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
                self.state_changed |= slot.note_delivery(ack.load);
            }
            Some(reason) => {
                self.totals.delivery_errors += 1;
                slot.tail.tailer.block_failed(ack.ticket, &reason);
                self.sink.probe(&slot.tail.destination.topic);
                self.state_changed |= slot.note_failure(reason);
            }
        }
        self.ready.push_back(ack.route);
    }

    /// The checkpoint of this generation is on disk, or the disk has refused it.
    fn note_saved(&mut self, generation: u64) {
        for (route, slot) in &mut self.slots {
            if matches!(slot.saving, Saving::Until(wanted) if wanted <= generation) {
                slot.saving = Saving::Settled;
                slot.tail.tailer.persisted();
                self.ready.push_back(*route);
            }
        }
    }

    fn hint(&mut self, path: &Path) {
        if let Some(routes) = self.by_path.get(path) {
            for route in routes.clone() {
                self.wake(route);
            }
            return;
        }
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
            if seen.insert(route) {
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
        self.timers.first().map(|(due_ms, _)| *due_ms)
    }

    fn run_one(&mut self, route: u64) {
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
        slot.ran_ms = self.now_ms;
        let around = Surroundings {
            sink: &self.sink,
            blocks: &self.blocks,
            allow: &self.allow,
            target: &self.target,
            now_ms: self.now_ms,
        };
        let revision = slot.tail.tailer.revision();
        let turn = catch_unwind(AssertUnwindSafe(|| slot.tail.run(&around)));
        let (charged_bytes, lines_read) = slot.tail.take_charges();
        self.budget.charge(slot.tail.lane(), charged_bytes);
        self.totals.lines_read += lines_read;
        self.rows_changed |= slot.tail.tailer.revision() != revision;
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
                set_timer(&mut self.timers, slot, route, until_ms);
            }
            Ok(Turn::Full) => {
                self.waiting_for_room.insert(route);
                set_timer(&mut self.timers, slot, route, self.now_ms + FULL_RETRY_MS);
            }
            Err(_) => {
                let (path, topic) = (&slot.tail.id().path, &slot.tail.id().topic);
                tracing::error!(path, topic, "an entry panicked: it starts again alone");
                slot.panicked_until_ms = Some(self.now_ms + PANIC_PAUSE_MS);
                set_timer(&mut self.timers, slot, route, self.now_ms + PANIC_PAUSE_MS);
            }
        }
        let (path, topic) = (slot.tail.id().path.clone(), slot.tail.id().topic.clone());
        for note in slot.tail.tailer.take_notes() {
            record(&mut self.losses, &mut self.totals, &path, &topic, note);
        }
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
        if let Some(due_ms) = slot.due_ms {
            self.timers.remove(&(due_ms, route));
        }
        self.waiting_for_room.remove(&route);
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
    pub fn directories(&self) -> FxHashSet<PathBuf> {
        self.by_directory.keys().cloned().collect()
    }

    /// A directory is watched only now: what happened in it before gave no hint.
    pub fn directory_watched(&mut self, directory: &Path) {
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

    /// True when the next checkpoint has something new.
    pub fn rows_changed(&self) -> bool {
        self.rows_changed
    }

    /// True when reading waits for the next checkpoint.
    pub fn save_wanted(&self) -> bool {
        self.save_wanted
    }

    /// The document on disk is not the newest one, though nothing has changed since.
    pub fn save_again(&mut self) {
        self.rows_changed = true;
    }

    /// The document for the disk, when it changed since the last call.
    pub fn take_checkpoint(&mut self) -> Option<Checkpoint> {
        if !std::mem::take(&mut self.rows_changed) {
            return None;
        }
        self.save_wanted = false;
        self.generation += 1;
        let mut entries = Vec::with_capacity(self.slots.len() + self.stopped.len());
        for slot in self.slots.values_mut() {
            let (id, active) = match &slot.stopping {
                None => (slot.tail.id().clone(), true),
                Some(stopping) => (stopping.rows_to.clone(), stopping.successor.is_some()),
            };
            if slot.panicked_until_ms.is_none() {
                slot.saved_rows = slot.tail.tailer.rows();
            }
            if slot.saving == Saving::Wanted {
                slot.saving = Saving::Until(self.generation);
            }
            if let Some(rows) = slot.saved_rows.clone() {
                entries.push(rows_of(id, active, rows));
            }
        }
        let dormant = self
            .dormant
            .iter()
            .map(|(id, rows)| rows_of(id.clone(), true, rows.clone()));
        let stopped = self
            .stopped
            .iter()
            .map(|(id, rows)| rows_of(id.clone(), false, rows.clone()));
        entries.extend(dormant.chain(stopped));
        Some(Checkpoint {
            generation: self.generation,
            entries,
        })
    }

    /// True once after the state of an entry changed.
    pub fn take_state_changed(&mut self) -> bool {
        std::mem::take(&mut self.state_changed)
    }
}

fn rows_of(id: EntryId, active: bool, files: Vec<FileRow>) -> EntryRows {
    EntryRows {
        path: id.path,
        topic: id.topic,
        active,
        files,
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

/// Writes a note of the core to the log, and a loss to the ledger.
fn record(losses: &mut VecDeque<Loss>, totals: &mut Totals, path: &str, topic: &str, note: Note) {
    match note {
        Note::Lost {
            file,
            from_offset,
            to_offset,
            reason,
        } => {
            tracing::warn!(path, topic, %file, from_offset, to_offset, reason, "bytes are lost");
            totals.lost_bytes += to_offset.saturating_sub(from_offset);
            losses.push_back(Loss {
                path: path.to_owned(),
                topic: topic.to_owned(),
                from_offset,
                to_offset,
                reason,
                at_ms: crate::status::unix_ms(),
            });
            if losses.len() > LOSSES_MAX {
                losses.pop_front();
            }
        }
        Note::Unreadable { file, reason } => {
            tracing::warn!(path, topic, %file, reason, "a rotated file waits: it cannot be opened");
        }
        Note::Opened { file, offset } => tracing::info!(path, topic, %file, offset, "reading"),
        Note::Rotated { file } => {
            tracing::info!(path, topic, %file, "rotated: reading it to its end")
        }
        Note::Truncated { file, reason } => tracing::info!(path, topic, %file, reason, "from 0"),
        Note::HoleSkipped {
            file,
            from_offset,
            to_offset,
        } => {
            tracing::warn!(path, topic, %file, from_offset, to_offset, "a hole is skipped");
        }
        Note::Finished { file, offset } => tracing::info!(path, topic, %file, offset, "finished"),
    }
}

#[cfg(test)]
#[path = "supervisor/tests.rs"]
mod tests;
