//! The tailer thread: waits on the inbox, runs the supervisor, hands documents to the disk.
//!
//! All reading and all handing over to Kafka happens on this one thread, so nothing of it is
//! locked. The runtime talks to it through `Pipeline`.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use logagent_core::config::Plan;
use schemas::fleet::Watching;
use tokio::sync::{Notify, oneshot};

use crate::checkpoint_store::CheckpointWriter;
use crate::inbox::{AckTarget, Inbox};
use crate::sink::Sink;
use crate::source::watcher::DirectoryWatcher;
use crate::supervisor::{PipelineView, Supervisor, ViewLimits};

/// A checkpoint at most this often: what is acknowledged after it is what a kill sends again.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(100);
/// And one that outlives the machine at most this often, besides those that somebody waits for.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// A document that takes long to make is made less often: it may take this share of the thread.
const CHECKPOINT_SHARE: u32 = 50;
/// A checkpoint that the disk refused is tried again this often.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(1);
/// Directories that came or went are found this often; with more than a thousand, less often.
const DIRECTORIES_INTERVAL: Duration = Duration::from_secs(1);
/// The thread looks around at least this often.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// What the runtime asks of the thread.
#[derive(Debug)]
pub enum Command {
    /// Run this plan. The answer comes when its pipeline runs; it is dropped when a newer plan
    /// took its place before.
    Apply {
        plan: Plan,
        running: oneshot::Sender<()>,
    },
    View {
        limits: ViewLimits,
        reply: oneshot::Sender<PipelineView>,
    },
    /// Stop reading, wait for acknowledgements until `deadline`, write the checkpoint, end.
    Stop { deadline: Instant },
}

pub type PipelineInbox = Inbox<Command>;

/// How the thread ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// False when something was still in flight: it is sent again by the next start.
    pub settled: bool,
    pub checkpoint_problem: Option<String>,
}

/// The runtime's handle of the thread.
pub struct Pipeline {
    inbox: Arc<PipelineInbox>,
    changed: Arc<Notify>,
    thread: Option<JoinHandle<Ended>>,
}

impl Pipeline {
    pub fn start<S: Sink + 'static>(
        inbox: Arc<PipelineInbox>,
        supervisor: Supervisor<S>,
        watcher: DirectoryWatcher,
        writer: CheckpointWriter,
    ) -> std::io::Result<Self> {
        let changed = Arc::<Notify>::default();
        let mut worker = Worker {
            inbox: Arc::clone(&inbox),
            changed: Arc::clone(&changed),
            supervisor,
            watcher,
            writer,
            started: Instant::now(),
            applying: None,
        };
        let thread = std::thread::Builder::new()
            .name("tailer".to_owned())
            .spawn(move || {
                let settled = worker.run();
                let checkpoint_problem = worker.finish();
                Ended {
                    settled,
                    checkpoint_problem,
                }
            })?;
        Ok(Self {
            inbox,
            changed,
            thread: Some(thread),
        })
    }

    /// Resolves when the plan runs; an error when a newer plan took its place.
    pub fn apply(&self, plan: Plan) -> oneshot::Receiver<()> {
        let (running, answer) = oneshot::channel();
        self.inbox.push_command(Command::Apply { plan, running });
        answer
    }

    /// A way to ask for the state from another task.
    pub fn viewer(&self) -> Viewer {
        Viewer {
            inbox: Arc::clone(&self.inbox),
            changed: Arc::clone(&self.changed),
        }
    }

    /// True when the thread has ended, which without `stop` it never should.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Blocks until the thread has ended; `None` when it panicked.
    pub fn stop(mut self, deadline: Instant) -> Option<Ended> {
        self.inbox.push_command(Command::Stop { deadline });
        self.thread.take()?.join().ok()
    }
}

/// Asks the thread what it does.
#[derive(Clone)]
pub struct Viewer {
    inbox: Arc<PipelineInbox>,
    changed: Arc<Notify>,
}

impl Viewer {
    /// `None` when the thread has ended.
    pub async fn view(&self, limits: ViewLimits) -> Option<PipelineView> {
        let (reply, answer) = oneshot::channel();
        self.inbox.push_command(Command::View { limits, reply });
        answer.await.ok()
    }

    /// Resolves when the state of an entry has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

struct Worker<S: Sink> {
    inbox: Arc<PipelineInbox>,
    changed: Arc<Notify>,
    supervisor: Supervisor<S>,
    watcher: DirectoryWatcher,
    writer: CheckpointWriter,
    started: Instant,
    applying: Option<oneshot::Sender<()>>,
}

impl<S: Sink> Worker<S> {
    /// True when nothing was in flight at the end.
    fn run(&mut self) -> bool {
        let mut next_checkpoint = Instant::now();
        let mut next_sync = Instant::now();
        let mut is_unsynced = false;
        let mut next_retry = Instant::now();
        let mut next_directories = Instant::now();
        let mut stop_deadline: Option<Instant> = None;
        loop {
            let sync_at = is_unsynced.then_some(next_sync);
            let wait_until = self.wait_until(next_checkpoint, sync_at, stop_deadline);
            let mut arrivals = self.inbox.take_until(wait_until);
            let now = Instant::now();
            self.supervisor.receive(self.now_ms(now), &mut arrivals);
            for command in arrivals.commands {
                match command {
                    Command::Apply { plan, running } => {
                        self.supervisor.apply(&plan);
                        self.applying = Some(running);
                        next_directories = now;
                    }
                    Command::View { limits, reply } => {
                        let view = self.view(limits);
                        if reply.send(view).is_err() {
                            tracing::trace!("nobody waits for the view any more");
                        }
                    }
                    Command::Stop { deadline } => {
                        self.supervisor.begin_shutdown();
                        stop_deadline = Some(deadline);
                    }
                }
            }
            self.supervisor.walk_if_due();
            self.supervisor.run_ready();
            self.supervisor.share_descriptors();
            self.report_applied();
            if self.supervisor.take_state_changed() {
                self.changed.notify_one();
            }
            if now >= next_directories {
                let wanted = self.supervisor.wanted_directories();
                let many = Duration::from_millis(wanted.len() as u64);
                next_directories = now + DIRECTORIES_INTERVAL.max(many);
                for directory in self.watcher.watch_only(&wanted) {
                    self.supervisor.directory_watched(&directory);
                }
                self.supervisor.set_hinted(self.watcher.hinted().cloned());
            }
            if now >= next_retry {
                next_retry = now + CHECKPOINT_RETRY;
                if self.writer.problem().is_some() {
                    self.supervisor.save_again();
                }
            }
            let is_time = now >= next_checkpoint && !self.writer.is_busy();
            let is_asked = self.supervisor.save_wanted();
            let sync = is_asked || now >= next_sync;
            if is_unsynced && sync {
                // Nothing may have changed since, but the last document is not on the disk yet.
                self.supervisor.save_again();
            }
            if is_asked || (is_time && self.supervisor.rows_changed()) {
                let began = Instant::now();
                self.submit_checkpoint(sync);
                is_unsynced = !sync;
                if sync {
                    next_sync = began + SYNC_INTERVAL;
                }
                let pause = CHECKPOINT_INTERVAL.max(began.elapsed() * CHECKPOINT_SHARE);
                next_checkpoint = began + pause;
            }
            if let Some(deadline) = stop_deadline {
                let settled = self.supervisor.is_settled();
                if settled || now >= deadline {
                    return settled;
                }
            }
        }
    }

    fn wait_until(
        &self,
        next_checkpoint: Instant,
        sync_at: Option<Instant>,
        stop_deadline: Option<Instant>,
    ) -> Instant {
        if self.supervisor.has_ready() {
            return self.started;
        }
        let due = self
            .supervisor
            .next_due_ms()
            .map(|ms| self.started + Duration::from_millis(ms));
        [
            Some(Instant::now() + ROUND_MAX),
            // A busy writer rings when it is done.
            (self.supervisor.rows_changed() && !self.writer.is_busy()).then_some(next_checkpoint),
            sync_at
                .map(|at| at.max(next_checkpoint))
                .filter(|_| !self.writer.is_busy()),
            due,
            stop_deadline,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(next_checkpoint)
    }

    fn now_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }

    fn report_applied(&mut self) {
        // A kill after the answer must not forget that an entry was started.
        if self.applying.is_none()
            || self.supervisor.is_handing_over()
            || self.supervisor.is_saving()
        {
            return;
        }
        if let Some(running) = self.applying.take()
            && running.send(()).is_err()
        {
            tracing::trace!("nobody waits for the plan any more");
        }
    }

    fn view(&mut self, limits: ViewLimits) -> PipelineView {
        let mut view = self.supervisor.view(limits);
        if let Some(reason) = self.watcher.trouble() {
            view.watching = Watching::Polling;
            view.warnings.push(format!("polling: {reason}"));
        }
        view.warnings.extend(self.writer.problem());
        view
    }

    fn submit_checkpoint(&mut self, sync: bool) {
        if let Some(checkpoint) = self.supervisor.take_checkpoint() {
            let ledger = self.supervisor.take_ledger();
            self.writer.submit(checkpoint, ledger, sync);
        }
    }

    fn finish(mut self) -> Option<String> {
        self.supervisor.save_again();
        self.submit_checkpoint(true);
        self.writer.finish()
    }
}

/// The inbox as the sink sees it.
pub fn ack_target(inbox: &Arc<PipelineInbox>) -> Arc<dyn AckTarget> {
    Arc::clone(inbox) as Arc<dyn AckTarget>
}
