//! The files that patterns mean: each is an entry of its own, which comes and goes with its file.
//!
//! A pattern is walked when a directory gives a hint, and once a second. What it means is compared
//! with what runs in the same way as a new configuration is, so a file that appears touches no
//! other. Knows nothing of reading: a file of a pattern is tailed like any other.

use std::path::{Path, PathBuf};

use logagent_core::config::{Entry, EntryId, Options, Plan, StartAt};
use logagent_core::identity::Inode;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Supervisor;
use crate::sink::Sink;
use crate::source::walk::Walk;

/// A walk without a hint.
const WALK_MS: u64 = 1_000;
/// Hints of one moment are answered by one walk.
const WALK_PAUSE_MS: u64 = 100;
/// A file that is gone, read to its end and not there again is let go after this long.
const MISSING_MS: u64 = 8_000;

/// One entry of the plan whose path is a pattern.
#[derive(Debug)]
pub(super) struct Walker {
    pub(super) entry: Entry,
    pub(super) walk: Walk,
    /// Files that are not there any more, and since when.
    missing: FxHashMap<String, u64>,
    /// Other names of files that are read under their first one.
    second_names: FxHashMap<PathBuf, Inode>,
    /// The first walk decides what was there when the entry began.
    is_new: bool,
}

impl<S: Sink> Supervisor<S> {
    /// Takes over a plan, and walks its patterns. A pattern that stays keeps what it knows.
    pub(super) fn ask_for(&mut self, plan: &Plan) {
        self.plan = plan.clone();
        let mut before = std::mem::take(&mut self.walkers);
        for entry in &plan.entries {
            let Some(pattern) = entry.compiled() else {
                continue;
            };
            let is_same = |known: &Walker| {
                known.entry.id == entry.id && known.entry.options.exclude == entry.options.exclude
            };
            let mut walker = match before.iter().position(is_same) {
                Some(at) => Walker {
                    entry: entry.clone(),
                    ..before.swap_remove(at)
                },
                None => Walker {
                    entry: entry.clone(),
                    walk: Walk::new(pattern),
                    missing: FxHashMap::default(),
                    second_names: FxHashMap::default(),
                    is_new: true,
                },
            };
            walker.walk.walk();
            self.walkers.push(walker);
        }
        self.note_walked();
    }

    /// Walks when it is time; starts and stops what that changes.
    pub fn walk_if_due(&mut self) {
        if self.walkers.is_empty() || self.now_ms < self.walk_due_ms {
            return;
        }
        let mut is_news = false;
        for walker in &mut self.walkers {
            is_news |= walker.walk.walk();
        }
        self.note_walked();
        if is_news || self.walkers.iter().any(|walker| !walker.missing.is_empty()) {
            self.converge();
            self.state_changed |= is_news;
        }
    }

    /// When the next walk is due, if there is something to walk.
    pub fn walk_due_ms(&self) -> Option<u64> {
        (!self.walkers.is_empty()).then_some(self.walk_due_ms)
    }

    fn note_walked(&mut self) {
        self.walked_ms = self.now_ms;
        let directories = self.walkers.iter().flat_map(|w| w.walk.directories());
        self.walked = directories.cloned().collect();
        // One look per directory: a thousand a second are enough.
        self.walk_due_ms = self.now_ms + WALK_MS.max(self.walked.len() as u64);
    }

    /// Something happened in this directory, or to it.
    pub(super) fn hint_walk(&mut self, path: &Path) {
        let parent = path.parent();
        if self.walked.contains(path) || parent.is_some_and(|p| self.walked.contains(p)) {
            let soon_ms = self.now_ms.max(self.walked_ms + WALK_PAUSE_MS);
            self.walk_due_ms = self.walk_due_ms.min(soon_ms);
        }
    }

    /// The plan with the files of each pattern in its place.
    pub(super) fn meant(&mut self) -> Plan {
        let mut walkers = std::mem::take(&mut self.walkers);
        let mut entries = Vec::with_capacity(self.plan.entries.len());
        let mut seen = FxHashSet::default();
        for entry in &self.plan.entries {
            match walkers
                .iter_mut()
                .find(|walker| walker.entry.id == entry.id)
            {
                None => entries.push(entry.clone()),
                Some(walker) => self.members(walker, &mut entries),
            }
        }
        entries.retain(|entry| seen.insert(entry.id.clone()));
        self.walkers = walkers;
        Plan {
            entries,
            ..Plan::default()
        }
    }

    /// The files of one pattern: those that run and are not let go, then new ones.
    fn members(&self, walker: &mut Walker, entries: &mut Vec<Entry>) {
        let found = walker.walk.found();
        let is_there = |path: &str| found.contains_key(Path::new(path));
        let (mut ids, mut reading) = (FxHashSet::default(), FxHashSet::default());
        let mut running: Vec<String> = Vec::new();
        for slot in self.slots.values() {
            let entry = match &slot.stopping {
                None => &slot.tail.entry,
                Some(stopping) => match &stopping.successor {
                    Some(successor) => successor,
                    None => continue,
                },
            };
            if entry.pattern.as_deref() != Some(walker.entry.id.path.as_str())
                || !walker.walk.pattern().matches(&entry.id.path)
            {
                continue;
            }
            let path = &entry.id.path;
            let view = slot.tail.tailer.view();
            if is_there(path) {
                walker.missing.remove(path);
            } else {
                let since_ms = *walker.missing.entry(path.clone()).or_insert(self.now_ms);
                if view.files.is_empty() && self.now_ms >= since_ms + MISSING_MS {
                    walker.missing.remove(path);
                    continue;
                }
            }
            reading.extend(view.files.iter().map(|file| file.id.inode()));
            ids.extend(found.get(Path::new(path)).copied());
            running.push(path.clone());
        }
        let waiting = self.dormant.iter().map(|(id, _)| id.path.clone());
        running.extend(waiting.filter(|path| walker.walk.pattern().matches(path)));
        running.sort_unstable();
        running.dedup();
        let known: FxHashSet<&str> = running.iter().map(String::as_str).collect();
        let mut fresh = Vec::new();
        walker
            .second_names
            .retain(|path, id| found.get(path) == Some(id));
        for (path, id) in found {
            let Some(text) = path.to_str().filter(|text| !known.contains(text)) else {
                continue;
            };
            // Renamed while it is read, or linked: it is read once, under its first name.
            let is_read = reading.contains(id) || !ids.insert(*id);
            if is_read || walker.second_names.contains_key(path) {
                walker.second_names.insert(path.clone(), *id);
            } else {
                fresh.push(text.to_owned());
            }
        }
        let from = if walker.is_new {
            walker.entry.options.from
        } else {
            StartAt::Beginning
        };
        walker.is_new = false;
        let all = running.into_iter().chain(fresh);
        entries.extend(all.map(|path| Entry {
            id: EntryId {
                path,
                topic: walker.entry.id.topic.clone(),
            },
            options: Options {
                from,
                exclude: Vec::new(),
                ..walker.entry.options.clone()
            },
            pattern: Some(walker.entry.id.path.clone()),
            ..walker.entry.clone()
        }));
    }
}
