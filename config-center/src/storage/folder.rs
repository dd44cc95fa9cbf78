//! The data folder: its lock, its paths, and the fsync of its directory entry.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::{StorageError, failed};

/// Where copies of the state lie on their way; emptied when the folder is opened.
pub(super) const SNAPSHOTS: &str = "snapshots";

/// The folder, held exclusively for as long as this value lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// The lock belongs to the open file: it ends with the process, however that ends.
    _lock: File,
}

impl DataFolder {
    /// Creates the folder when it is missing and takes its lock.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let unwritable = |source: io::Error| StorageError::Unwritable {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(unwritable)?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join("LOCK"))
            .map_err(unwritable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StorageError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(unwritable(errno.into())),
        }
        // For a human who looks who holds it; the lock itself does not depend on it.
        lock.set_len(0).map_err(unwritable)?;
        writeln!(lock, "{}", std::process::id()).map_err(unwritable)?;
        let folder = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        // Leftovers of transfers that did not end.
        match fs::remove_dir_all(folder.snapshots()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(error)),
            _ => {}
        }
        fs::create_dir(folder.snapshots()).map_err(unwritable)?;
        sync_dir(path)?;
        Ok(folder)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    #[must_use]
    pub fn state_db(&self) -> PathBuf {
        self.path.join("state.db")
    }

    /// Removes what a restore into this folder that did not come to its end has left.
    pub fn remove_databases(&self) -> Result<(), StorageError> {
        let gone = |path: &Path, removed: io::Result<()>| match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removing", path)(error))
            }
            _ => Ok(()),
        };
        let log = self.log();
        gone(&log, fs::remove_dir_all(&log))?;
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.state_db().into_os_string();
            path.push(suffix);
            let path = PathBuf::from(path);
            gone(&path, fs::remove_file(&path))?;
        }
        sync_dir(&self.path)
    }

    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }
}

/// Makes a created, renamed or removed name of this folder durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| StorageError::File {
            path: path.to_owned(),
            action: "syncing the folder",
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_told_who_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataFolder::open(dir.path()).unwrap();
        let error = DataFolder::open(dir.path()).unwrap_err();
        assert!(matches!(error, StorageError::Locked { .. }));
        let text = error.to_string();
        assert!(text.contains("held by another process"), "{text}");
        assert!(!text.contains('\n'));
        drop(held);
        DataFolder::open(dir.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"x").unwrap();
        let error = DataFolder::open(&file.join("data")).unwrap_err();
        assert!(matches!(error, StorageError::Unwritable { .. }));
        let text = error.to_string();
        assert!(text.contains("cannot be written"), "{text}");
        assert!(!text.contains('\n'));
    }
}
