//! Durable checkpoints: the core's document on disk, written by a thread of its own.
//!
//! A document outlives the process at once, and the machine when it was asked to be synced: the
//! previous generation that is kept is always a synced one, so a power cut costs at most what was
//! acknowledged since. The loss ledger is written before the checkpoint that passes its losses. Two generations of the
//! checkpoint are kept. What cannot be read is reported and never overwrites what can. A disk
//! that is full or read-only stops nothing: the agent goes on and says that a restart would send
//! again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use logagent_core::checkpoint::Checkpoint;
use parking_lot::{Condvar, Mutex};

use crate::durable;
use crate::ledger::Ledger;

pub const FILE_NAME: &str = "checkpoint";
pub const PREVIOUS_NAME: &str = "checkpoint.previous";
/// Twenty thousand files need some megabytes.
const FILE_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Loaded {
    pub checkpoint: Checkpoint,
    /// Why it is not the newest one, for the log and the status.
    pub problem: Option<String>,
    /// False when the current file must not become the previous one.
    current_is_good: bool,
}

/// Reads the newest readable generation; an empty checkpoint when there is none.
pub fn load(folder: &Path) -> Loaded {
    let current = read(&folder.join(FILE_NAME));
    let previous = read(&folder.join(PREVIOUS_NAME));
    match (current, previous) {
        (Ok(Some(current)), _) => Loaded {
            checkpoint: current,
            problem: None,
            current_is_good: true,
        },
        (Ok(None), Ok(None)) => Loaded::default(),
        // A kill between the two renames leaves only the previous generation: nothing is wrong.
        (Ok(None), Ok(Some(previous))) => Loaded {
            checkpoint: previous,
            problem: None,
            current_is_good: false,
        },
        (Err(reason), Ok(Some(previous))) => Loaded {
            checkpoint: previous,
            problem: Some(format!(
                "{reason}: the previous generation is used, some lines are sent again"
            )),
            current_is_good: false,
        },
        (Err(reason), _) | (Ok(None), Err(reason)) => Loaded {
            checkpoint: Checkpoint::default(),
            problem: Some(format!("{reason}: all files are sent from their beginning")),
            current_is_good: false,
        },
    }
}

/// The checkpoint is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(String);

/// Reads as `load` does, but takes nothing less than the newest generation.
pub fn load_whole(folder: &Path) -> Result<Checkpoint, Damaged> {
    let loaded = load(folder);
    match loaded.problem {
        Some(problem) => Err(Damaged(problem)),
        None => Ok(loaded.checkpoint),
    }
}

/// Writes the document as both generations, so that no damage brings the old one back.
pub fn replace_all(folder: &Path, mut checkpoint: Checkpoint) -> std::io::Result<()> {
    for _ in 0..2 {
        checkpoint.generation += 1;
        let content = checkpoint.encode();
        durable::replace(folder, FILE_NAME, Some(PREVIOUS_NAME), &content)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<Checkpoint>, String> {
    let say = |reason: String| format!("{}: {reason}", path.display());
    match durable::read_bounded(path, FILE_MAX_BYTES).map_err(|error| say(error.to_string()))? {
        Some(content) => Checkpoint::decode(&content)
            .map(Some)
            .map_err(|error| say(error.to_string())),
        None => Ok(None),
    }
}

#[derive(Debug, Default)]
struct Desk {
    /// Only the newest document matters.
    next: Option<Checkpoint>,
    /// `next` is to outlive the machine, too.
    sync: bool,
    /// Must be on disk before `next` is.
    next_ledger: Option<Ledger>,
    stopped: bool,
    writing: bool,
    problem: Option<String>,
}

/// Writes documents in the background, the newest one first and only.
#[derive(Debug)]
pub struct CheckpointWriter {
    desk: Arc<(Mutex<Desk>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl CheckpointWriter {
    /// `written` is told each generation that is on disk, and each that the disk refused.
    pub fn start(
        folder: PathBuf,
        loaded: &Loaded,
        written: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let desk: Arc<(Mutex<Desk>, Condvar)> = Arc::default();
        let theirs = Arc::clone(&desk);
        let keep_current = loaded.current_is_good;
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || write_loop(&folder, &theirs, keep_current, &written))?;
        Ok(Self {
            desk,
            thread: Some(thread),
        })
    }

    /// Never blocks on the disk. `ledger` when it has changed since the last call: then, or when it
    /// is asked for, the document is synced.
    pub fn submit(&self, checkpoint: Checkpoint, ledger: Option<Ledger>, sync: bool) {
        let (desk, changed) = &*self.desk;
        let mut guard = desk.lock();
        guard.next = Some(checkpoint);
        guard.sync |= sync || ledger.is_some();
        if ledger.is_some() {
            guard.next_ledger = ledger;
        }
        drop(guard);
        changed.notify_all();
    }

    /// True while a document waits or is being written.
    pub fn is_busy(&self) -> bool {
        let desk = self.desk.0.lock();
        desk.writing || desk.next.is_some()
    }

    /// Why the last write failed; `None` when it did not.
    pub fn problem(&self) -> Option<String> {
        self.desk.0.lock().problem.clone()
    }

    /// Waits until what was submitted is on disk or has failed, then ends the thread.
    pub fn finish(mut self) -> Option<String> {
        self.stop();
        self.problem()
    }

    fn stop(&mut self) {
        let (desk, changed) = &*self.desk;
        desk.lock().stopped = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        self.stop();
    }
}

fn write_loop(
    folder: &Path,
    shared: &(Mutex<Desk>, Condvar),
    mut current_is_good: bool,
    told: &dyn Fn(u64),
) {
    let (desk, changed) = shared;
    // What is read at the start may never have been synced.
    let mut current_is_synced = false;
    let mut has_previous = folder.join(PREVIOUS_NAME).exists();
    loop {
        let mut guard = desk.lock();
        while guard.next.is_none() && !guard.stopped {
            changed.wait(&mut guard);
        }
        let Some(checkpoint) = guard.next.take() else {
            return;
        };
        let ledger = guard.next_ledger.take();
        guard.writing = true;
        let sync = std::mem::take(&mut guard.sync);
        drop(guard);
        // An unsynced generation must not take the place of a synced one.
        let is_worth_keeping = current_is_good && (current_is_synced || !has_previous);
        let previous = is_worth_keeping.then_some(PREVIOUS_NAME);
        let noted = ledger
            .as_ref()
            .map_or(Ok(()), |ledger| ledger.store(folder));
        let is_noted = noted.is_ok();
        let replace = if sync {
            durable::replace
        } else {
            durable::replace_unsynced
        };
        let written =
            noted.and_then(|()| replace(folder, FILE_NAME, previous, &checkpoint.encode()));
        let mut guard = desk.lock();
        guard.writing = false;
        if !is_noted && guard.next_ledger.is_none() {
            guard.next_ledger = ledger;
        }
        match written {
            Ok(()) => {
                has_previous |= previous.is_some();
                current_is_good = true;
                current_is_synced = sync;
                if guard.problem.take().is_some() {
                    tracing::info!("the checkpoint can be written again");
                }
            }
            Err(error) => {
                let problem = format!(
                    "cannot write the checkpoint in {}: {error}; collecting goes on, a restart \
                     would send lines again",
                    folder.display()
                );
                guard.sync |= sync;
                if guard.problem.as_ref() != Some(&problem) {
                    tracing::error!(reason = problem);
                    guard.problem = Some(problem);
                }
            }
        }
        drop(guard);
        told(checkpoint.generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger;

    fn document(generation: u64) -> Checkpoint {
        Checkpoint {
            generation,
            entries: Vec::new(),
        }
    }

    fn write(folder: &Path, generations: std::ops::RangeInclusive<u64>) {
        for generation in generations {
            let writer = CheckpointWriter::start(folder.to_owned(), &load(folder), |_| ()).unwrap();
            writer.submit(document(generation), None, true);
            assert_eq!(writer.finish(), None);
        }
    }

    #[test]
    fn the_newest_generation_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).checkpoint, Checkpoint::default());
        write(folder.path(), 1..=3);
        let loaded = load(folder.path());
        assert_eq!((loaded.checkpoint, loaded.problem), (document(3), None));
    }

    #[test]
    fn damage_falls_back_and_is_reported_and_never_spreads() {
        for damage in [&b""[..], b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", b"garbage"] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), 1..=2);
            std::fs::write(folder.path().join(FILE_NAME), damage).unwrap();
            let loaded = load(folder.path());
            assert_eq!(loaded.checkpoint, document(1));
            assert!(loaded.problem.is_some());
            write(folder.path(), 5..=5);
            assert_eq!(load(folder.path()).checkpoint, document(5));
            // The good previous generation was not replaced by the damaged one.
            std::fs::write(folder.path().join(FILE_NAME), damage).unwrap();
            assert_eq!(load(folder.path()).checkpoint, document(1));
            std::fs::write(folder.path().join(PREVIOUS_NAME), damage).unwrap();
            let loaded = load(folder.path());
            assert_eq!(loaded.checkpoint, Checkpoint::default());
            assert!(loaded.problem.unwrap().contains("beginning"));
        }
    }

    /// The machine dies: what was not synced may be gone, what was is there.
    #[test]
    fn an_unsynced_generation_never_takes_the_place_of_a_synced_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut synced = 0;
        let writer = CheckpointWriter::start(folder.path().to_owned(), &Loaded::default(), |_| ());
        let writer = writer.unwrap();
        for (generation, sync) in [(1, true), (2, false), (3, false), (4, true), (5, false)] {
            writer.submit(document(generation), None, sync);
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while writer.is_busy() {
                assert!(std::time::Instant::now() < deadline);
                std::thread::yield_now();
            }
            assert_eq!(load(folder.path()).checkpoint, document(generation));
            if sync {
                synced = generation;
            } else {
                let damaged = folder.path().join(FILE_NAME);
                let content = std::fs::read(&damaged).unwrap();
                std::fs::write(&damaged, "").unwrap();
                assert_eq!(load(folder.path()).checkpoint, document(synced));
                std::fs::write(&damaged, content).unwrap();
            }
        }
    }

    #[test]
    fn a_replaced_document_leaves_nothing_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 1..=7);
        replace_all(folder.path(), document(7)).unwrap();
        assert_eq!(load_whole(folder.path()).unwrap(), document(9));
        std::fs::write(folder.path().join(FILE_NAME), "garbage").unwrap();
        assert_eq!(load(folder.path()).checkpoint, document(8));
        assert!(load_whole(folder.path()).is_err());
    }

    #[test]
    fn a_kill_between_the_renames_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 1..=2);
        std::fs::remove_file(folder.path().join(FILE_NAME)).unwrap();
        let loaded = load(folder.path());
        assert_eq!((loaded.checkpoint, loaded.problem), (document(1), None));
    }

    #[test]
    fn a_folder_that_is_gone_is_reported_and_recovers() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("data");
        let writer = CheckpointWriter::start(inner.clone(), &Loaded::default(), |_| ()).unwrap();
        let wait = |expect_problem: bool, generation: u64| {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            writer.submit(document(generation), None, true);
            while writer.problem().is_some() != expect_problem {
                assert!(std::time::Instant::now() < deadline);
                std::thread::yield_now();
            }
        };
        wait(true, 1);
        std::fs::create_dir(&inner).unwrap();
        wait(false, 2);
        // A loss that could not be written down holds the checkpoint back until it is.
        std::fs::remove_dir_all(&inner).unwrap();
        let mut ledger = Ledger::default();
        ledger.record(schemas::fleet::Loss::default());
        writer.submit(document(3), Some(ledger.clone()), false);
        wait(true, 4);
        std::fs::create_dir(&inner).unwrap();
        wait(false, 2);
        assert_eq!(ledger::load(&inner).unwrap(), ledger);
        assert_eq!(writer.finish(), None);
        assert_eq!(load(&inner).checkpoint, document(2));
    }
}
