//! The owner of the log: a thread that takes what waits, writes it with one sync, and only then
//! tells those who asked.
//!
//! A thread and not a task, because all it does is to wait for the disk: a task would have to hand
//! each record to a thread and be woken by it, and then wake whoever waits.
//!
//! Requests are carried out in the order they were sent, votes and entries alike. Readers read the
//! files themselves, so a read of old entries never delays an append.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::error::{FailureSlot, StorageError};
use super::log_files::{self, LogFiles, LogIndex, LogRecovery};
use super::log_record::{EntryId, EntryRow, Identity, Item, VoteRow};
use super::log_v1;
use super::sync_times::{SyncCounts, SyncTimes};

/// Requests that may wait for the disk; then the Raft core waits.
const LOG_QUEUE_DEPTH: usize = 1024;

/// How far the stored commit index may be behind. It only saves work after a restart: everything
/// in the log is found committed again by the next election.
const COMMITTED_DELAY_MS: u64 = 200;

/// Called once, after the sync returned or something failed.
pub type Appended = Box<dyn FnOnce(io::Result<()>) + Send>;

type Answer = oneshot::Sender<Result<(), StorageError>>;

enum Request {
    Append(Vec<EntryRow>, Appended),
    Vote(VoteRow, Answer),
    Identity(Identity, Answer),
    Truncate(Option<u64>, Answer),
    Purge(EntryId, Answer),
    /// Write down the commit index, if nothing else has done so.
    Committed,
    Close(oneshot::Sender<()>),
}

/// The latest commit index, which is written along with the next record or after a while.
#[derive(Default)]
struct LazyCommitted {
    pending: Mutex<Option<EntryId>>,
    set: Notify,
}

/// Speaks to the owner task. Cheap to clone.
#[derive(Clone)]
pub struct LogHandle {
    path: Arc<Path>,
    requests: mpsc::Sender<Request>,
    committed: Arc<LazyCommitted>,
    index: Arc<Mutex<LogIndex>>,
    syncs: Arc<SyncTimes>,
}

impl LogHandle {
    /// Opens the log in this folder and starts its owner. A log of version 1, the database
    /// `log.db` beside it, is taken over first. The first failure to write goes to `failure` and
    /// ends the owner: nothing after it can be acknowledged.
    pub async fn open(
        folder: &Path,
        failure: FailureSlot,
    ) -> Result<(Self, LogRecovery), StorageError> {
        log_v1::take_over(folder).await?;
        let (files, recovery) = LogFiles::open(folder)?;
        let (requests, inbox) = mpsc::channel(LOG_QUEUE_DEPTH);
        let handle = Self {
            path: folder.into(),
            requests,
            committed: Arc::default(),
            index: files.index(),
            syncs: files.syncs(),
        };
        let writer = LogWriter {
            files,
            inbox,
            committed: Arc::clone(&handle.committed),
            failure,
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| StorageError::File {
                path: folder.to_owned(),
                action: "starting the writer of",
                source,
            })?;
        tokio::spawn(remind(
            Arc::clone(&handle.committed),
            handle.requests.downgrade(),
        ));
        Ok((handle, recovery))
    }

    fn stopped(&self) -> StorageError {
        StorageError::Stopped {
            path: self.path.to_path_buf(),
        }
    }

    /// Queues entries; `appended` is called when they are on disk. Waits only when the queue is
    /// full.
    pub async fn append(
        &self,
        rows: Vec<EntryRow>,
        appended: Appended,
    ) -> Result<(), StorageError> {
        self.requests
            .send(Request::Append(rows, appended))
            .await
            .map_err(|_| self.stopped())
    }

    pub async fn save_vote(&self, vote: VoteRow) -> Result<(), StorageError> {
        self.ask(|answer| Request::Vote(vote, answer)).await
    }

    pub async fn save_identity(&self, identity: Identity) -> Result<(), StorageError> {
        self.ask(|answer| Request::Identity(identity, answer)).await
    }

    pub async fn truncate_after(&self, after: Option<u64>) -> Result<(), StorageError> {
        self.ask(|answer| Request::Truncate(after, answer)).await
    }

    pub async fn purge(&self, upto: EntryId) -> Result<(), StorageError> {
        self.ask(|answer| Request::Purge(upto, answer)).await
    }

    /// Remembers the commit index; it reaches the disk a little later.
    pub fn save_committed(&self, committed: EntryId) {
        if self.committed.pending.lock().replace(committed).is_none() {
            self.committed.set.notify_one();
        }
    }

    /// How long its syncs have taken so far.
    #[must_use]
    pub fn sync_counts(&self) -> SyncCounts {
        self.syncs.counts()
    }

    /// Entries of `[from, until)` that are on disk.
    pub async fn read(&self, from: u64, until: u64) -> Result<Vec<EntryRow>, StorageError> {
        let (index, folder) = (Arc::clone(&self.index), Arc::clone(&self.path));
        let reading = move || log_files::read_entries(&index, &folder, from, until);
        let read = tokio::task::spawn_blocking(reading).await;
        read.map_err(|_| self.stopped())?
    }

    /// Writes what is queued and closes the files.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            // An owner that failed has closed already.
            closed.await.unwrap_or_default();
        }
        // The reminder finds nobody to remind and ends.
        self.committed.set.notify_one();
    }

    fn ask(
        &self,
        request: impl FnOnce(Answer) -> Request,
    ) -> impl Future<Output = Result<(), StorageError>> + Send {
        let (answer, answered) = oneshot::channel();
        let request = request(answer);
        async move {
            self.requests
                .send(request)
                .await
                .map_err(|_| self.stopped())?;
            answered.await.map_err(|_| self.stopped())?
        }
    }
}

/// Sees to it that the commit index reaches the disk when nothing else is written.
async fn remind(committed: Arc<LazyCommitted>, requests: mpsc::WeakSender<Request>) {
    loop {
        committed.set.notified().await;
        tokio::time::sleep(Duration::from_millis(COMMITTED_DELAY_MS)).await;
        let Some(requests) = requests.upgrade() else {
            return;
        };
        if requests.send(Request::Committed).await.is_err() {
            return;
        }
    }
}

struct LogWriter {
    files: LogFiles,
    inbox: mpsc::Receiver<Request>,
    committed: Arc<LazyCommitted>,
    failure: FailureSlot,
}

impl LogWriter {
    fn run(mut self) {
        let mut batch = Vec::new();
        while self.inbox.blocking_recv_many(&mut batch, LOG_QUEUE_DEPTH) > 0 {
            let closing = take_close(&mut batch);
            let result = self.write(&batch);
            let failed = result.err().map(|error| error.to_string());
            answer(&mut batch, failed.as_deref());
            if let Some(text) = failed {
                self.failure.report(text);
                return;
            }
            if let Some(done) = closing {
                // Closed before it is said.
                drop(self.files);
                // Nobody waits when the closer was dropped.
                done.send(()).unwrap_or_default();
                return;
            }
        }
    }

    /// One record for everything in the batch.
    fn write(&mut self, batch: &[Request]) -> Result<(), StorageError> {
        for request in batch {
            match request {
                Request::Append(rows, _) => {
                    for row in rows {
                        self.files.stage_entry(row)?;
                    }
                }
                Request::Vote(vote, _) => self.files.stage(&Item::Vote(*vote))?,
                Request::Identity(identity, _) => {
                    self.files.stage(&Item::Identity(*identity))?;
                }
                Request::Truncate(after, _) => self.files.stage(&Item::Truncate(*after))?,
                Request::Purge(upto, _) => self.files.stage(&Item::Purged(*upto))?,
                Request::Committed | Request::Close(_) => {}
            }
        }
        // Never of an entry that is still on its way here: it would not be there after a crash.
        let mut pending = self.committed.pending.lock();
        if let Some(committed) = pending.take_if(|id| self.files.holds(id.index)) {
            self.files.stage(&Item::Committed(committed))?;
        }
        drop(pending);
        self.files.write()
    }
}

/// A close request is carried out after everything that was sent before it; what came later in the
/// same batch is written as well.
fn take_close(batch: &mut Vec<Request>) -> Option<oneshot::Sender<()>> {
    let at = batch.iter().position(|r| matches!(r, Request::Close(_)))?;
    match batch.remove(at) {
        Request::Close(done) => Some(done),
        _ => None,
    }
}

fn answer(batch: &mut Vec<Request>, failed: Option<&str>) {
    for request in batch.drain(..) {
        match request {
            Request::Append(_, appended) => {
                appended(failed.map_or(Ok(()), |text| Err(io::Error::other(text.to_owned()))));
            }
            Request::Vote(_, answer)
            | Request::Identity(_, answer)
            | Request::Truncate(_, answer)
            | Request::Purge(_, answer) => {
                if failed.is_none() {
                    // The asker may have gone; a failure reaches it as a closed channel.
                    answer.send(Ok(())).unwrap_or_default();
                }
            }
            Request::Committed | Request::Close(_) => {}
        }
    }
}
