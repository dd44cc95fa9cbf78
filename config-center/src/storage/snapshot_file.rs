//! A copy of the state on its way to another member or to a client.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The file lives until the last handle to it is dropped. What a crash leaves behind is removed
/// when the data folder is opened again.
#[derive(Debug, Clone)]
pub struct SnapshotFile(Arc<Removed>);

#[derive(Debug)]
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "a snapshot file was left behind");
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl SnapshotFile {
    /// A new name in this folder; the file itself is made by the caller.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Removed(
            folder.join(format!("{}-{number}.db", std::process::id())),
        )))
    }

    /// Another new name in the folder of this one.
    #[must_use]
    pub fn beside(other: &Self) -> Self {
        Self::in_folder(other.path().parent().unwrap_or(Path::new(".")))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.0
    }
}
