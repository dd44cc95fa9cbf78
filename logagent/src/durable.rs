//! Files that survive a kill at any instant: temporary file, fsync, rename, fsync of the folder.
//!
//! Knows bytes and names only; what they mean is the business of `checkpoint_store` and
//! `config_cache`. Also holds the lock that keeps a second agent out of the data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

const LOCK_NAME: &str = "lock";

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("data_dir {path}: cannot be created: {source}", path = path.display())]
    Create {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("data_dir {path}: cannot be written: {source}", path = path.display())]
    Unwritable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "data_dir {path}: another logagent runs on it: stop that one or set another data_dir",
        path = path.display()
    )]
    Locked { path: PathBuf },
}

/// The data folder of this agent, held against others for as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        std::fs::create_dir_all(path).map_err(|source| DataDirError::Create {
            path: path.to_owned(),
            source,
        })?;
        let unwritable = |source| DataDirError::Unwritable {
            path: path.to_owned(),
            source,
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_NAME))
            .map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(unwritable(source)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Replaces `name` in `folder`. With `previous`, the content that stood there is kept under that
/// name, and one of the two is complete at every instant.
pub fn replace(
    folder: &Path,
    name: &str,
    previous: Option<&str>,
    content: &[u8],
) -> std::io::Result<()> {
    let target = folder.join(name);
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    if let Some(previous) = previous {
        match std::fs::rename(&target, folder.join(previous)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    std::fs::rename(&temporary, &target)?;
    File::open(folder)?.sync_all()
}

/// The content of a file, `None` when there is none, an error when it is larger than `max_bytes`.
pub fn read_bounded(path: &Path, max_bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max_bytes {
        return Err(std::io::Error::other(format!(
            "larger than {max_bytes} bytes"
        )));
    }
    Ok(Some(content))
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing into a String cannot fail.
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert!(matches!(error, DataDirError::Locked { .. }), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn replace_keeps_the_previous_content() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| read_bounded(&folder.path().join(name), 10).unwrap();
        replace(folder.path(), "a", Some("a.previous"), b"1").unwrap();
        assert_eq!((read("a"), read("a.previous")), (Some(b"1".to_vec()), None));
        replace(folder.path(), "a", Some("a.previous"), b"2").unwrap();
        assert_eq!(
            (read("a"), read("a.previous")),
            (Some(b"2".to_vec()), Some(b"1".to_vec()))
        );
        assert_eq!(read("a.tmp"), None);
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), [0; 11]).unwrap();
        assert!(read_bounded(&folder.path().join("a"), 10).is_err());
    }

    #[test]
    fn hashes_are_hexadecimal() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
