//! What the checkpoint is told, and what waits for it to be on disk.

use logagent_core::checkpoint::{Checkpoint, EntryRows, FileRow};
use logagent_core::config::EntryId;

use super::Supervisor;
use super::slot::Saving;
use crate::ledger::Ledger;
use crate::sink::Sink;

impl<S: Sink> Supervisor<S> {
    /// True while a new entry is not on disk yet: a kill now would forget that it was started.
    pub fn is_saving(&self) -> bool {
        self.slots.values().any(|slot| {
            let waits = slot.saving != Saving::Settled || slot.waits_for_descriptor;
            slot.stopping.is_none() && waits
        })
    }

    /// The checkpoint of this generation is on disk, or the disk has refused it.
    pub(super) fn note_saved(&mut self, generation: u64) {
        for (route, slot) in &mut self.slots {
            if matches!(slot.saving, Saving::Until(wanted) if wanted <= generation) {
                slot.saving = Saving::Settled;
                slot.tail.tailer.persisted();
                self.ready.push_back(*route);
            }
        }
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

    /// The loss ledger, when it has changed since the last call: it goes to the disk before the
    /// checkpoint that is taken next.
    pub fn take_ledger(&mut self) -> Option<Ledger> {
        std::mem::take(&mut self.ledger_changed).then(|| self.ledger.clone())
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
}

fn rows_of(id: EntryId, active: bool, files: Vec<FileRow>) -> EntryRows {
    EntryRows {
        path: id.path,
        topic: id.topic,
        active,
        files,
    }
}
