//! From what runs to what is meant: starts, stops and hands over, without touching the others.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use logagent_core::checkpoint::FileRow;
use logagent_core::config::{Entry, EntryId, Plan};
use logagent_core::framing::{Framing, Joining};
use logagent_core::pace::Pace;
use logagent_core::plan::{Change, diff};
use logagent_core::record::Shape;
use logagent_core::tailer::{Tailer, TailerOptions};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::slot::{Slot, Stopping};
use super::{
    BLOCK_BYTES, RETRY_MAX_MS, RETRY_MS, ROTATE_WAIT_MS, STOPPED_MAX, SWEEP_MS, Supervisor,
    TAIL_UNACKED_MAX_BYTES,
};
use crate::sink::Sink;
use crate::source::outlet::{OutletSettings, SharedPace, encoding_of};
use crate::source::tail::{Tail, base_of};

impl<S: Sink> Supervisor<S> {
    /// Carries out what a plan changes. New tails have had their first turn when this returns.
    pub fn apply(&mut self, plan: &Plan) {
        self.ask_for(plan);
        self.converge();
        self.rows_changed = true;
        self.state_changed = true;
        self.run_ready();
    }

    /// Starts and stops what differs from what is meant now.
    pub(super) fn converge(&mut self) {
        let plan = self.meant();
        let running = self.running_entries(&plan);
        for change in diff(&running, &plan) {
            match change {
                Change::Keep(id) => self.keep(&id, &plan),
                Change::Stop(id) => self.stop(&id),
                Change::HandOver { from, to } => self.hand_over(&from, to),
                Change::Start(entry) => self.start_new(entry),
            }
        }
    }

    /// True while a tail waits for another one's acknowledgements before it can begin.
    pub fn is_handing_over(&self) -> bool {
        self.slots.values().any(|slot| {
            slot.stopping
                .as_ref()
                .is_some_and(|s| s.successor.is_some())
        })
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
        let planned: FxHashMap<_, _> = plan
            .entries
            .iter()
            .map(|entry| (&entry.id, entry))
            .collect();
        let dormant = self.dormant.iter().map(|(id, _)| match planned.get(id) {
            Some(entry) => (*entry).clone(),
            None => Entry {
                id: id.clone(),
                ..Entry::default()
            },
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
            slot.tail.entry.pattern.clone_from(&entry.pattern);
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
    pub(super) fn start(&mut self, entry: Entry, rows: Option<Vec<FileRow>>) {
        self.start_with(entry, rows, false);
    }

    pub(super) fn start_with(&mut self, entry: Entry, rows: Option<Vec<FileRow>>, is_saved: bool) {
        let route = self.next_route;
        self.next_route += 1;
        tracing::info!(path = entry.id.path, topic = entry.id.topic, "collecting");
        let mut tail = self.make_tail(entry, rows.clone(), route);
        if !is_saved {
            tail.tailer.must_save();
        }
        self.index(route, &tail);
        let mut slot = Slot::new(tail, rows);
        slot.active_ms = self.now_ms;
        self.slots.insert(route, slot);
        self.ready.push_back(route);
    }

    fn make_tail(&mut self, entry: Entry, rows: Option<Vec<FileRow>>, route: u64) -> Tail {
        let options = TailerOptions {
            block_bytes: BLOCK_BYTES,
            framing: self.framing_of(&entry),
            max_unacked_bytes: TAIL_UNACKED_MAX_BYTES,
            rotate_wait_ms: ROTATE_WAIT_MS,
            sweep_ms: SWEEP_MS,
            retry_ms: RETRY_MS,
            max_retry_ms: RETRY_MAX_MS,
            ..TailerOptions::default()
        };
        let lane = self.budget.join(&entry.id.topic, entry.asked_path());
        let path = PathBuf::from(&entry.id.path);
        let tailer = Tailer::new(base_of(&path), entry.options.from, rows, options);
        let outlet = OutletSettings {
            host: self.host.clone(),
            dead_letter_topic: self.dead_letter_topic.clone(),
            pace: self.pace_of(&entry),
        };
        Tail::new(entry, tailer, outlet, route, lane)
    }

    /// How the entry's bytes become records. A value that grows on its way has to fit still.
    fn framing_of(&self, entry: &Entry) -> Framing {
        let options = &entry.options;
        let encoding = encoding_of(entry);
        let shape = Shape::new(encoding, options.format, &self.host, &entry.id.path);
        let limit_bytes = self.max_line_bytes / shape.growth();
        let asked_bytes = options.max_line_bytes.unwrap_or(limit_bytes);
        // Checked when the configuration was read.
        let joining = options
            .multiline
            .as_ref()
            .and_then(|multiline| Joining::new(multiline).ok());
        Framing::lines(asked_bytes.min(limit_bytes))
            .on_long_line(options.on_long_line)
            .in_encoding(encoding)
            .joined(joining)
    }

    /// The bucket of the entry, which all files of a pattern share.
    fn pace_of(&mut self, entry: &Entry) -> Option<SharedPace> {
        let rate = entry.options.rate.as_ref()?;
        self.paces.retain(|_, pace| pace.strong_count() > 0);
        let id = EntryId {
            path: entry.asked_path().to_owned(),
            topic: entry.id.topic.clone(),
        };
        let running = self.paces.get(&id).and_then(Weak::upgrade);
        let running = running.filter(|pace| pace.lock().rate() == rate);
        Some(running.unwrap_or_else(|| {
            let pace = Arc::new(Mutex::new(Pace::new(rate, self.now_ms)));
            self.paces.insert(id, Arc::downgrade(&pace));
            pace
        }))
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

    pub(super) fn keep_stopped(&mut self, id: EntryId, rows: Option<Vec<FileRow>>) {
        // An entry that never began has nothing to go on with.
        let Some(rows) = rows else { return };
        self.stopped.retain(|(known, _)| *known != id);
        self.stopped.push_back((id, rows));
        if self.stopped.len() > STOPPED_MAX {
            self.stopped.pop_front();
        }
    }
}
