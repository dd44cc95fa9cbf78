//! The owner task of `log.db`: takes what waits, writes it in one transaction, and only then tells
//! those who asked.
//!
//! Requests are carried out in the order they were sent, votes and entries alike. Readers have a
//! connection of their own, so a read of old entries never delays an append.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::error::{FailureSlot, StorageError};
use super::log_db::{self, EntryId, EntryRow, Identity, LogDb, LogRecovery, VoteRow};
use super::sqlite::{self, MAX_ROWS_PER_STATEMENT};

/// Requests that may wait for the disk; then the Raft core waits.
const LOG_QUEUE_DEPTH: usize = 1024;

/// How far the stored commit index may be behind. It only saves work after a restart: everything
/// in the log is found committed again by the next election.
const COMMITTED_DELAY_MS: u64 = 200;

/// Called once, after the commit of the transaction returned or failed.
pub type Appended = Box<dyn FnOnce(io::Result<()>) + Send>;

type Answer = oneshot::Sender<Result<(), StorageError>>;

enum Request {
    Append(Vec<EntryRow>, Appended),
    Vote(VoteRow, Answer),
    Identity(Identity, Answer),
    Truncate(Option<u64>, Answer),
    Purge(EntryId, Answer),
    Close(oneshot::Sender<()>),
}

/// The latest commit index, which is written along with the next transaction or after a while.
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
    reader: Arc<tokio::sync::Mutex<Option<SqliteConnection>>>,
}

impl LogHandle {
    /// Opens the log and starts its owner. The first failure to write goes to `failure` and ends
    /// the owner: nothing after it can be acknowledged.
    pub async fn open(
        path: &Path,
        failure: FailureSlot,
    ) -> Result<(Self, LogRecovery), StorageError> {
        let (db, recovery) = LogDb::open(path).await?;
        let reader = sqlite::open_reader(path).await?;
        let (requests, inbox) = mpsc::channel(LOG_QUEUE_DEPTH);
        let handle = Self {
            path: Arc::clone(db.path()),
            requests,
            committed: Arc::default(),
            reader: Arc::new(tokio::sync::Mutex::new(Some(reader))),
        };
        let writer = LogWriter {
            db,
            inbox,
            committed: Arc::clone(&handle.committed),
            failure,
        };
        tokio::spawn(writer.run());
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

    /// Entries of `[from, until)` that are on disk.
    pub async fn read(&self, from: u64, until: u64) -> Result<Vec<EntryRow>, StorageError> {
        let mut reader = self.reader.lock().await;
        let connection = reader.as_mut().ok_or_else(|| self.stopped())?;
        log_db::read_entries(connection, &self.path, from, until).await
    }

    /// Writes what is queued and closes the file.
    pub async fn close(&self) {
        if let Some(reader) = self.reader.lock().await.take()
            && let Err(error) = reader.close().await
        {
            tracing::debug!(%error, "closing the reader of the log");
        }
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            // An owner that failed has closed already.
            closed.await.unwrap_or_default();
        }
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

struct LogWriter {
    db: LogDb,
    inbox: mpsc::Receiver<Request>,
    committed: Arc<LazyCommitted>,
    failure: FailureSlot,
}

impl LogWriter {
    async fn run(mut self) {
        let mut batch = Vec::new();
        let mut committed_due: Option<Instant> = None;
        let committed = Arc::clone(&self.committed);
        loop {
            let due = committed_due.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                count = self.inbox.recv_many(&mut batch, LOG_QUEUE_DEPTH) => if count == 0 { break },
                () = committed.set.notified() => {
                    committed_due =
                        Some(Instant::now() + Duration::from_millis(COMMITTED_DELAY_MS));
                    continue;
                }
                () = tokio::time::sleep_until(due), if committed_due.is_some() => {}
            }
            let closing = take_close(&mut batch);
            let is_due = committed_due.is_some_and(|due| due <= Instant::now());
            let lazily = if is_due || closing.is_some() {
                committed_due = None;
                self.committed.pending.lock().take()
            } else {
                None
            };
            let result = self.write(&mut batch, lazily).await;
            let failed = result.as_ref().err().map(ToString::to_string);
            answer(&mut batch, failed.as_deref());
            if let Some(text) = failed {
                self.failure.report(text);
                return;
            }
            if let Some(done) = closing {
                self.close().await;
                // Nobody waits when the closer was dropped.
                done.send(()).unwrap_or_default();
                return;
            }
        }
        self.close().await;
    }

    /// One transaction for everything in the batch. A lone insert is a transaction by itself and
    /// saves two turns to the database's thread.
    async fn write(
        &mut self,
        batch: &mut [Request],
        committed: Option<EntryId>,
    ) -> Result<(), StorageError> {
        let mut rows: Vec<EntryRow> = Vec::new();
        let only_appends = batch.iter().all(|r| matches!(r, Request::Append(..)));
        if only_appends && committed.is_none() {
            let count: usize = batch.iter().map(Request::row_count).sum();
            if count == 0 {
                return Ok(());
            }
            if count <= MAX_ROWS_PER_STATEMENT {
                for request in batch {
                    request.take_rows(&mut rows);
                }
                return self.db.insert(&rows).await;
            }
        }
        self.db.begin().await?;
        for request in batch {
            if matches!(request, Request::Append(..)) {
                request.take_rows(&mut rows);
                continue;
            }
            self.insert_all(&mut rows).await?;
            match request {
                Request::Append(..) | Request::Close(_) => {}
                Request::Vote(vote, _) => self.db.put_vote(*vote).await?,
                Request::Identity(identity, _) => self.db.put_identity(*identity).await?,
                Request::Truncate(after, _) => self.db.truncate(*after).await?,
                Request::Purge(upto, _) => self.db.purge(*upto).await?,
            }
        }
        self.insert_all(&mut rows).await?;
        if let Some(committed) = committed {
            self.db.put_committed(committed).await?;
        }
        self.db.commit().await
    }

    async fn insert_all(&mut self, rows: &mut Vec<EntryRow>) -> Result<(), StorageError> {
        for chunk in rows.chunks(MAX_ROWS_PER_STATEMENT) {
            self.db.insert(chunk).await?;
        }
        rows.clear();
        Ok(())
    }

    async fn close(self) {
        if let Err(error) = self.db.connection.close().await {
            tracing::warn!(%error, "closing the log failed; everything acknowledged is in it");
        }
    }
}

impl Request {
    fn row_count(&self) -> usize {
        match self {
            Self::Append(rows, _) => rows.len(),
            _ => 0,
        }
    }

    fn take_rows(&mut self, into: &mut Vec<EntryRow>) {
        if let Self::Append(rows, _) = self {
            if into.is_empty() {
                *into = std::mem::take(rows);
            } else {
                into.append(rows);
            }
        }
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
            Request::Close(_) => {}
        }
    }
}
