//! Why storage could not do what it was asked: one sentence for the operator, and what to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

/// A failure of the data folder or of one of its databases. At run time each of these stops the
/// process: going on would acknowledge what is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error(
        "data folder {} is held by another process; nothing was changed; stop that process or choose another --data-dir",
        path.display()
    )]
    Locked { path: PathBuf },
    #[error(
        "data folder {} cannot be written: {source}; nothing was changed; check its owner and permissions",
        path.display()
    )]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(
        "{} has format {found}, and this program knows format {known}; nothing was changed; start the version that wrote it",
        path.display()
    )]
    UnknownFormat {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error(
        "{} is not a database of config-center; nothing was changed; choose another --data-dir",
        path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "{} is damaged: {what}; nothing was changed; restore the data folder from a backup",
        path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error("{} cannot be used as a snapshot: {what}; nothing was changed", path.display())]
    Snapshot { path: PathBuf, what: String },
    #[error("{action} in {} failed: {source}; nothing more is acknowledged", path.display())]
    Sqlite {
        path: PathBuf,
        action: &'static str,
        source: sqlx::Error,
    },
    #[error("{action} {} failed: {source}", path.display())]
    File {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
    #[error(
        "entry {index} cannot be appended to the log in {}: entry {expected} comes next; nothing more is acknowledged",
        path.display()
    )]
    OutOfOrder {
        path: PathBuf,
        index: u64,
        expected: u64,
    },
    #[error("the scan for compacted rows ended early: {0}; no row was removed")]
    Scan(String),
    #[error("the writer of {} has stopped", path.display())]
    Stopped { path: PathBuf },
}

/// What a failed operation on a file is reported as.
pub(super) fn failed(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StorageError + use<> {
    let path = path.to_owned();
    move |source| StorageError::File {
        path,
        action,
        source,
    }
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        Self::other(error)
    }
}

/// Where a background writer puts the failure that must stop the process. The first one stays.
#[derive(Debug, Clone)]
pub struct FailureSlot(watch::Sender<Option<Arc<str>>>);

impl Default for FailureSlot {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl FailureSlot {
    pub fn report(&self, text: String) {
        self.0.send_if_modified(|slot| {
            let is_first = slot.is_none();
            if is_first {
                *slot = Some(text.into());
            }
            is_first
        });
    }

    #[must_use]
    pub fn get(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    /// Resolves with the first failure.
    pub async fn wait(&self) -> Arc<str> {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(text) = receiver.borrow_and_update().clone() {
                return text;
            }
            if receiver.changed().await.is_err() {
                // Impossible while `self` holds a sender; wait for good rather than invent one.
                std::future::pending::<()>().await;
            }
        }
    }
}
