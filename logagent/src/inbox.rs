//! The one place where the tailer thread waits: acknowledgements, hints and commands arrive here.
//!
//! The senders are Kafka's callback thread, the file watcher and the runtime; the receiver is the
//! tailer thread alone. Holds no decisions. Nothing here grows without bound: acknowledgements are
//! bounded by the blocks in flight, hints by `HINTS_MAX`, commands by their senders, who wait for
//! the answer.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Instant;

use logagent_core::tailer::{Blame, Ticket};
use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashSet;

/// More changed paths than this between two rounds are answered by one sweep of everything.
pub const HINTS_MAX: usize = 4_096;

/// The broker's answer to every record of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockAck {
    /// The tail that produced the block; routes are never used twice.
    pub route: u64,
    pub ticket: Ticket,
    /// The budget lane that the block was charged to.
    pub lane: usize,
    pub load: BlockLoad,
    /// The first error among the records, when there was one.
    pub failure: Option<Failure>,
}

/// Why a record was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub blame: Blame,
    /// A sentence for the status.
    pub reason: String,
}

/// What a block weighs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockLoad {
    pub lines: u64,
    pub bytes: u64,
    /// What was charged against the budget of bytes in flight: lines and their bookkeeping.
    pub charged_bytes: u64,
    /// Lines that were too long: pieces, and beginnings that stand for the whole.
    pub cut_lines: u64,
    /// Lines that went to the dead-letter topic.
    pub dead_letters: u64,
}

/// Everything that arrived since the last look.
#[derive(Debug)]
pub struct Arrivals<C> {
    pub acks: Vec<BlockAck>,
    pub commands: VecDeque<C>,
    /// Paths that the watcher saw change.
    pub hints: FxHashSet<PathBuf>,
    /// The watcher lost events: only a sweep of everything finds what changed.
    pub rescan: bool,
    /// The producer cannot go on and has to be rebuilt.
    pub producer_broken: Option<String>,
    /// The newest checkpoint that was written, or that could not be.
    pub saved_generation: Option<u64>,
}

impl<C> Default for Arrivals<C> {
    fn default() -> Self {
        Self {
            acks: Vec::new(),
            commands: VecDeque::new(),
            hints: FxHashSet::default(),
            rescan: false,
            producer_broken: None,
            saved_generation: None,
        }
    }
}

impl<C> Arrivals<C> {
    fn is_empty(&self) -> bool {
        self.acks.is_empty()
            && self.commands.is_empty()
            && self.hints.is_empty()
            && !self.rescan
            && self.producer_broken.is_none()
            && self.saved_generation.is_none()
    }
}

/// See the module's words. `C` is the command type of the receiver.
#[derive(Debug)]
pub struct Inbox<C> {
    arrivals: Mutex<Arrivals<C>>,
    wake: Condvar,
}

impl<C> Default for Inbox<C> {
    fn default() -> Self {
        Self {
            arrivals: Mutex::default(),
            wake: Condvar::new(),
        }
    }
}

impl<C> Inbox<C> {
    pub fn push_command(&self, command: C) {
        self.arrivals.lock().commands.push_back(command);
        self.wake.notify_one();
    }

    pub fn push_hint(&self, path: PathBuf) {
        let mut arrivals = self.arrivals.lock();
        if arrivals.hints.len() < HINTS_MAX {
            arrivals.hints.insert(path);
        } else {
            arrivals.rescan = true;
        }
        drop(arrivals);
        self.wake.notify_one();
    }

    pub fn push_rescan(&self) {
        self.arrivals.lock().rescan = true;
        self.wake.notify_one();
    }

    pub fn push_saved(&self, generation: u64) {
        let mut arrivals = self.arrivals.lock();
        arrivals.saved_generation = arrivals.saved_generation.max(Some(generation));
        drop(arrivals);
        self.wake.notify_one();
    }

    /// Takes what has arrived, waiting for it until `deadline`.
    pub fn take_until(&self, deadline: Instant) -> Arrivals<C> {
        let mut arrivals = self.arrivals.lock();
        while arrivals.is_empty() {
            if self.wake.wait_until(&mut arrivals, deadline).timed_out() {
                break;
            }
        }
        std::mem::take(&mut *arrivals)
    }
}

/// What the sink may tell the tailer; hides the command type from it.
pub trait AckTarget: Send + Sync + std::fmt::Debug {
    fn push_ack(&self, ack: BlockAck);
    fn push_producer_broken(&self, reason: String);
}

impl<C: Send + std::fmt::Debug> AckTarget for Inbox<C> {
    fn push_ack(&self, ack: BlockAck) {
        self.arrivals.lock().acks.push(ack);
        self.wake.notify_one();
    }

    fn push_producer_broken(&self, reason: String) {
        self.arrivals.lock().producer_broken.get_or_insert(reason);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_push_ends_the_wait() {
        let inbox: Arc<Inbox<u8>> = Arc::default();
        let sender = {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || inbox.push_command(7))
        };
        let far = Instant::now() + Duration::from_secs(60);
        assert_eq!(inbox.take_until(far).commands, [7]);
        sender.join().unwrap();
        assert!(inbox.take_until(Instant::now()).is_empty());
    }

    #[test]
    fn too_many_hints_become_one_rescan() {
        let inbox: Inbox<u8> = Inbox::default();
        for index in 0..=HINTS_MAX {
            inbox.push_hint(PathBuf::from(format!("/{index}")));
        }
        let arrivals = inbox.take_until(Instant::now());
        assert_eq!(arrivals.hints.len(), HINTS_MAX);
        assert!(arrivals.rescan);
    }
}
