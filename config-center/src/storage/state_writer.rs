//! The owner task of `state.db`: gathers what was applied for some milliseconds and writes it in
//! one transaction; purges compacted rows in between; makes and takes snapshots.
//!
//! Nothing waits for it in the normal way of a put. It may lag, bounded by [`MAX_UNWRITTEN_KIB`];
//! what it has not written yet is applied again from the log after a crash.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use config_center_core::Change;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::error::{FailureSlot, StorageError, failed};
use super::etcd_file;
use super::folder::{DataFolder, SNAPSHOTS, sync_dir};
use super::log_record::EntryId;
use super::snapshot_file::SnapshotFile;
use super::state_db;
pub use super::state_db::Progress;
use super::state_db::{Folded, StateDb};
use super::state_load::{self, LoadedState};
use super::state_purge;
use super::state_size::{SharedSizes, StateSizes};
use super::sync_times::{SyncCounts, SyncTimes};

/// Applied groups that may wait for the writer.
const STATE_QUEUE_DEPTH: usize = 1024;

/// How long changes are gathered before they are written. Nobody waits for them; the longer, the
/// fewer pages are written twice, and the more is applied again after a crash.
const GATHER_MS: u64 = 40;

/// So many rows are written without waiting any longer.
const GATHER_ROWS: usize = 4096;

/// What may be applied and not written yet; then applying waits.
const MAX_UNWRITTEN_KIB: u32 = 64 * 1024;

/// Compacted rows deleted in one transaction.
const PURGE_ROWS: usize = 1024;

/// The size of the pages in use is measured again after so long.
const MEASURE_INTERVAL: Duration = Duration::from_millis(100);

/// What one group of log entries did, and up to where.
#[derive(Debug)]
pub struct StateBatch {
    pub changes: Vec<Change>,
    pub applied: EntryId,
    /// The store's revision after them.
    pub revision: i64,
    /// The last membership among them, and its place in the log.
    pub membership: Option<(EntryId, Bytes)>,
}

impl StateBatch {
    fn size_kib(&self) -> u32 {
        let bytes: usize = self
            .changes
            .iter()
            .map(|change| match change {
                Change::Revision(row) => row.key.len() + row.value.len() + 128,
                _ => 128,
            })
            .sum();
        u32::try_from(bytes / 1024 + 1).map_or(MAX_UNWRITTEN_KIB, |kib| kib.min(MAX_UNWRITTEN_KIB))
    }
}

type Answer<T> = oneshot::Sender<Result<T, StorageError>>;

enum Request {
    Write(StateBatch, OwnedSemaphorePermit),
    MakeDurable(Answer<()>),
    Vacuum(Answer<()>),
    Install(SnapshotFile, Answer<LoadedState>),
    Close(oneshot::Sender<()>),
}

/// What the handle and the owner share.
struct Shared {
    path: Arc<Path>,
    unwritten: Arc<Semaphore>,
    queued_rows: AtomicUsize,
    /// Ends the gathering early.
    hurry: Notify,
    sizes: SharedSizes,
    commits: SyncTimes,
    purged: watch::Sender<i64>,
    /// Held for reading while a copy is made. A snapshot must not take the database's place then:
    /// the copy's reader would keep its write-ahead log.
    copying: tokio::sync::RwLock<()>,
}

/// Speaks to the owner task. Cheap to clone.
#[derive(Clone)]
pub struct StateHandle {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

impl StateHandle {
    /// Opens `state.db`, loads the state and starts the owner.
    pub async fn open(
        folder: &DataFolder,
        failure: FailureSlot,
    ) -> Result<(Self, LoadedState), StorageError> {
        let path = folder.state_db();
        let mut db = StateDb::open(&path).await?;
        let loaded = state_load::load(&path).await?;
        let shared = Arc::new(Shared {
            path: Arc::clone(db.path()),
            unwritten: Arc::new(Semaphore::new(MAX_UNWRITTEN_KIB as usize)),
            queued_rows: AtomicUsize::new(0),
            hurry: Notify::new(),
            sizes: SharedSizes::new(db.sizes().await?),
            commits: SyncTimes::default(),
            purged: watch::Sender::new(loaded.progress.purged),
            copying: tokio::sync::RwLock::default(),
        });
        let (requests, inbox) = mpsc::channel(STATE_QUEUE_DEPTH);
        let writer = StateWriter {
            db: Some(db),
            inbox,
            shared: Arc::clone(&shared),
            failure,
            progress: loaded.progress.clone(),
            scan: None,
            doomed: Vec::new(),
            purging: loaded.progress.purged,
            measured: Instant::now(),
            is_unmeasured: false,
        };
        tokio::spawn(writer.run());
        Ok((Self { shared, requests }, loaded))
    }

    fn stopped(&self) -> StorageError {
        StorageError::Stopped {
            path: self.shared.path.to_path_buf(),
        }
    }

    /// Queues what was applied. Waits while too much is unwritten.
    pub async fn write(&self, batch: StateBatch) -> Result<(), StorageError> {
        let permit = Arc::clone(&self.shared.unwritten)
            .acquire_many_owned(batch.size_kib())
            .await
            .map_err(|_| self.stopped())?;
        let rows = batch.changes.len();
        let before = self.shared.queued_rows.fetch_add(rows, Ordering::Relaxed);
        self.requests
            .send(Request::Write(batch, permit))
            .await
            .map_err(|_| self.stopped())?;
        if before < GATHER_ROWS && before + rows >= GATHER_ROWS {
            self.shared.hurry.notify_one();
        }
        Ok(())
    }

    /// Returns when everything queued before is on disk, power cuts included. Only then may the log
    /// entries behind it be purged.
    pub async fn make_durable(&self) -> Result<(), StorageError> {
        self.ask(Request::MakeDurable).await
    }

    /// Writes a copy of at least everything queued before into this file; returns what the copy
    /// contains. Made beside the owner: nothing waits for it, however long it takes.
    pub async fn copy_into(&self, file: SnapshotFile) -> Result<Progress, StorageError> {
        // First this: an owner that waits for copies to end answers no one.
        self.make_durable().await?;
        let _place = self.shared.copying.read().await;
        state_db::copy(&self.shared.path, file.path()).await?;
        state_load::progress_of(file.path()).await
    }

    /// Writes the same in etcd's format; `storage_version` is the release whose format that is.
    pub async fn export_into(
        &self,
        file: SnapshotFile,
        storage_version: &'static str,
    ) -> Result<(), StorageError> {
        self.make_durable().await?;
        let _place = self.shared.copying.read().await;
        let path = Arc::clone(&self.shared.path);
        let runtime = tokio::runtime::Handle::current();
        // The file is written without await.
        let exporting = tokio::task::spawn_blocking(move || {
            runtime.block_on(etcd_file::export(&path, file.path(), storage_version))
        });
        exporting.await.map_err(|_| self.stopped())?
    }

    /// Puts this copy in the place of the state, atomically, and loads it.
    pub async fn install(&self, file: SnapshotFile) -> Result<LoadedState, StorageError> {
        self.ask(|answer| Request::Install(file, answer)).await
    }

    /// Returns when the rows that a compaction to this revision doomed are gone from the file.
    pub async fn purged(&self, revision: i64) -> Result<(), StorageError> {
        let mut purged = self.shared.purged.subscribe();
        let gone = self.requests.closed();
        tokio::select! {
            reached = purged.wait_for(|done| *done >= revision) => {
                reached.map(|_| ()).map_err(|_| self.stopped())
            }
            () = gone => Err(self.stopped()),
        }
    }

    /// As of a moment ago.
    #[must_use]
    pub fn sizes(&self) -> StateSizes {
        self.shared.sizes.get()
    }

    /// How long its transactions took.
    #[must_use]
    pub fn commit_counts(&self) -> SyncCounts {
        self.shared.commits.counts()
    }

    /// Bytes that were applied and are not written yet, rounded up.
    #[must_use]
    pub fn unwritten_bytes(&self) -> u64 {
        let free = self.shared.unwritten.available_permits();
        (MAX_UNWRITTEN_KIB as usize).saturating_sub(free) as u64 * 1024
    }

    /// Gives free pages back to the file system. What is applied meanwhile waits, and with it, after
    /// a while, this member's proposals.
    pub async fn vacuum(&self) -> Result<(), StorageError> {
        self.ask(Request::Vacuum).await
    }

    /// Writes what is queued and closes the file.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            self.shared.hurry.notify_one();
            // An owner that failed has closed already.
            closed.await.unwrap_or_default();
        }
    }

    fn ask<T: Send>(
        &self,
        request: impl FnOnce(Answer<T>) -> Request,
    ) -> impl Future<Output = Result<T, StorageError>> + Send {
        let (answer, answered) = oneshot::channel();
        let request = request(answer);
        async move {
            self.requests
                .send(request)
                .await
                .map_err(|_| self.stopped())?;
            self.shared.hurry.notify_one();
            answered.await.map_err(|_| self.stopped())?
        }
    }
}

/// A compaction and the search for the rows that it dooms.
type Scan = (i64, JoinHandle<Result<Vec<i64>, StorageError>>);

struct StateWriter {
    /// Absent only while a snapshot takes its place.
    db: Option<StateDb>,
    inbox: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
    failure: FailureSlot,
    /// What the last transaction wrote.
    progress: Progress,
    /// The scan for rows that a compaction to this revision doomed.
    scan: Option<Scan>,
    /// Found by a scan and not deleted yet.
    doomed: Vec<i64>,
    /// What has been purged once `doomed` is empty.
    purging: i64,
    measured: Instant,
    is_unmeasured: bool,
}

/// Whether the owner goes on.
enum Next {
    Continue,
    Stop,
}

impl StateWriter {
    async fn run(mut self) {
        loop {
            match self.step().await {
                Ok(Next::Continue) => {}
                Ok(Next::Stop) => return,
                Err(error) => {
                    self.failure.report(error.to_string());
                    return;
                }
            }
        }
    }

    fn db(&mut self) -> Result<&mut StateDb, StorageError> {
        self.db.as_mut().ok_or_else(|| StorageError::Stopped {
            path: self.shared.path.to_path_buf(),
        })
    }

    async fn step(&mut self) -> Result<Next, StorageError> {
        self.start_scan();
        let first = if self.is_purging() {
            // There are rows to delete: go on with that when nothing else waits.
            match self.inbox.try_recv() {
                Ok(first) => Some(first),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return self.stop().await,
            }
        } else {
            tokio::select! {
                first = self.inbox.recv() => match first {
                    Some(first) => Some(first),
                    None => return self.stop().await,
                },
                scanned = scan_result(&mut self.scan) => {
                    self.take_scanned(scanned)?;
                    None
                }
                // The last writes before a quiet time are measured as well.
                () = tokio::time::sleep(MEASURE_INTERVAL), if self.is_unmeasured => None,
            }
        };
        let mut folded = Folded::default();
        let mut progress = self.progress.clone();
        let mut permits = Vec::new();
        let mut other = None;
        if let Some(first) = first {
            other = self
                .gather(first, &mut folded, &mut progress, &mut permits)
                .await;
        }
        if !permits.is_empty() || self.is_purging() {
            let rest = self.doomed.len().saturating_sub(PURGE_ROWS);
            let doomed = self.doomed.split_off(rest);
            if self.doomed.is_empty() {
                progress.purged = self.purging;
            }
            let begun = Instant::now();
            self.db()?.write(&folded, &doomed, &progress).await?;
            self.shared.commits.record(begun.elapsed());
            self.is_unmeasured = true;
            let is_purged = progress.purged > self.progress.purged;
            self.progress = progress;
            if is_purged {
                self.shared.purged.send_replace(self.progress.purged);
            }
        }
        drop(permits);
        self.measure().await?;
        match other {
            Some(request) => self.serve(request).await,
            None => Ok(Next::Continue),
        }
    }

    /// Rows are to be deleted, or it is to be recorded that they were.
    fn is_purging(&self) -> bool {
        self.purging > self.progress.purged
    }

    fn take_scanned(
        &mut self,
        scanned: Result<Vec<i64>, StorageError>,
    ) -> Result<(), StorageError> {
        if let Some((compacted, _)) = self.scan.take() {
            self.doomed = scanned?;
            self.purging = compacted;
        }
        Ok(())
    }

    /// Takes writes for a while, until something else is asked or enough rows are there.
    async fn gather(
        &mut self,
        first: Request,
        folded: &mut Folded,
        progress: &mut Progress,
        permits: &mut Vec<OwnedSemaphorePermit>,
    ) -> Option<Request> {
        let mut next = match first {
            Request::Write(..) => {
                if self.shared.queued_rows.load(Ordering::Relaxed) < GATHER_ROWS {
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(GATHER_MS)) => {}
                        () = self.shared.hurry.notified() => {}
                    }
                }
                Some(first)
            }
            other => return Some(other),
        };
        while let Some(request) = next.take() {
            let Request::Write(batch, permit) = request else {
                return Some(request);
            };
            self.shared
                .queued_rows
                .fetch_sub(batch.changes.len(), Ordering::Relaxed);
            permits.push(permit);
            progress.applied = Some(batch.applied);
            progress.revision = batch.revision;
            if let Some((at, membership)) = batch.membership {
                progress.membership = Some(membership);
                progress.membership_at = Some(at);
            }
            folded.add(batch.changes, progress);
            if folded.row_count() < GATHER_ROWS {
                next = self.inbox.try_recv().ok();
            }
        }
        None
    }

    async fn serve(&mut self, request: Request) -> Result<Next, StorageError> {
        match request {
            Request::Write(..) => {}
            Request::MakeDurable(answer) => {
                self.db()?.make_durable().await?;
                // The asker may have gone; the same below.
                answer.send(Ok(())).unwrap_or_default();
            }
            Request::Vacuum(answer) => {
                // A reader would keep the old pages in the write-ahead log.
                self.end_scan().await;
                self.db()?.vacuum().await?;
                self.measure_now().await?;
                answer.send(Ok(())).unwrap_or_default();
            }
            Request::Install(file, answer) => {
                let loaded = self.install(&file).await?;
                drop(answer.send(Ok(loaded)));
            }
            Request::Close(done) => {
                let next = self.stop().await?;
                done.send(()).unwrap_or_default();
                return Ok(next);
            }
        }
        Ok(Next::Continue)
    }

    async fn stop(&mut self) -> Result<Next, StorageError> {
        self.end_scan().await;
        if let Some(mut db) = self.db.take() {
            db.make_durable().await?;
            db.close().await?;
        }
        Ok(Next::Stop)
    }

    /// Looks for the rows that the last compaction doomed, one compaction at a time.
    fn start_scan(&mut self) {
        let compacted = self.progress.compacted;
        if self.scan.is_some() || self.is_purging() || self.progress.purged >= compacted {
            return;
        }
        let path = Arc::clone(&self.shared.path);
        let scan = tokio::spawn(async move { state_purge::doomed_rows(&path, compacted).await });
        self.scan = Some((compacted, scan));
    }

    /// Waits until no reader of ours has the file open; what the scan found is found again later.
    async fn end_scan(&mut self) {
        if let Some((_, scan)) = self.scan.take()
            && let Err(error) = scan.await
        {
            tracing::debug!(%error, "the scan for compacted rows ended early");
        }
    }

    async fn measure(&mut self) -> Result<(), StorageError> {
        if self.is_unmeasured && self.measured.elapsed() >= MEASURE_INTERVAL {
            self.measure_now().await?;
        }
        Ok(())
    }

    async fn measure_now(&mut self) -> Result<(), StorageError> {
        self.measured = Instant::now();
        self.is_unmeasured = false;
        let sizes = self.db()?.sizes().await?;
        self.shared.sizes.set(sizes);
        Ok(())
    }

    /// Copies the snapshot beside the database, makes it durable, and renames it into place: a
    /// crash leaves the old state or the new one, complete in both cases.
    async fn install(&mut self, file: &SnapshotFile) -> Result<LoadedState, StorageError> {
        let path = self.shared.path.to_path_buf();
        let folder = path.parent().unwrap_or(Path::new("."));
        // A name that was never used: a log left over from another file would be replayed onto it.
        let beside = SnapshotFile::in_folder(&folder.join(SNAPSHOTS));
        let arriving = beside.path();
        fs::copy(file.path(), arriving).map_err(failed("copying a snapshot to", arriving))?;
        // Refuses a file that is no state of ours before the present one is given up.
        StateDb::open(arriving).await?.close().await?;
        fs::File::open(arriving)
            .and_then(|copy| copy.sync_all())
            .map_err(failed("syncing", arriving))?;
        self.end_scan().await;
        let shared = Arc::clone(&self.shared);
        let _no_copies = shared.copying.write().await;
        if let Some(mut old) = self.db.take() {
            old.make_durable().await?;
            old.close().await?;
        }
        remove_empty_wal(&path)?;
        fs::rename(arriving, &path).map_err(failed("moving a snapshot to", &path))?;
        sync_dir(folder)?;
        self.db = Some(StateDb::open(&path).await?);
        let loaded = state_load::load(&path).await?;
        self.progress = loaded.progress.clone();
        self.doomed.clear();
        self.purging = self.progress.purged;
        self.shared.purged.send_replace(self.progress.purged);
        Ok(loaded)
    }
}

async fn scan_result(scan: &mut Option<Scan>) -> Result<Vec<i64>, StorageError> {
    match scan {
        Some((_, scan)) => scan
            .await
            .unwrap_or_else(|ended| Err(StorageError::Scan(ended.to_string()))),
        None => std::future::pending().await,
    }
}

/// A write-ahead log that stayed behind would be replayed onto the database that comes next.
fn remove_empty_wal(database: &Path) -> Result<(), StorageError> {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    let wal = Path::new(&wal);
    match fs::metadata(wal) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("looking for", wal)(error)),
        Ok(meta) if meta.len() == 0 => fs::remove_file(wal).map_err(failed("removing", wal)),
        Ok(_) => Err(StorageError::Damaged {
            path: wal.to_owned(),
            what: "it still holds changes after its database was closed".to_owned(),
        }),
    }
}
