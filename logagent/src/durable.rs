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
    /// None on a read-only disk without a lock file.
    _lock: Option<File>,
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
        let lock_path = path.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path);
        let lock = match lock {
            Ok(lock) => lock,
            // A disk that became read-only must not end the collecting: what was acknowledged is
            // known, and the writer of the checkpoint reports what it cannot keep.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                tracing::error!(path = %path.display(), "the data folder is read-only");
                match File::open(&lock_path) {
                    Ok(lock) => lock,
                    Err(_) => {
                        return Ok(Self {
                            path: path.to_owned(),
                            _lock: None,
                        });
                    }
                }
            }
            Err(error) => return Err(unwritable(error)),
        };
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: Some(lock),
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
    replace_file(folder, name, previous, content, true)?;
    File::open(folder)?.sync_all()
}

/// The same, but the kernel may keep it to itself for a while: it survives the end of this process,
/// and not that of the machine.
pub fn replace_unsynced(
    folder: &Path,
    name: &str,
    previous: Option<&str>,
    content: &[u8],
) -> std::io::Result<()> {
    replace_file(folder, name, previous, content, false)
}

fn replace_file(
    folder: &Path,
    name: &str,
    previous: Option<&str>,
    content: &[u8],
    is_synced: bool,
) -> std::io::Result<()> {
    let target = folder.join(name);
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    if is_synced {
        file.sync_all()?;
    }
    if let Some(previous) = previous {
        match std::fs::rename(&target, folder.join(previous)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    std::fs::rename(&temporary, &target)
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

/// Why a sealed document is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("damaged ({0})")]
    Damaged(&'static str),
    #[error("of format {0}, which this agent does not know")]
    Version(u32),
}

/// A body under one header line: what it is, the version of its format, a checksum of the body.
pub fn seal(magic: &str, version: u32, body: &[u8]) -> Vec<u8> {
    let mut content = format!("{magic} {version} {}\n", sha256_hex(body)).into_bytes();
    content.extend_from_slice(body);
    content
}

/// The body, when it is exactly what was sealed.
pub fn unseal<'a>(magic: &str, version: u32, content: &'a [u8]) -> Result<&'a [u8], SealError> {
    let (first, body) = split_line(content).ok_or(SealError::Damaged("no header"))?;
    let first = std::str::from_utf8(first).map_err(|_| SealError::Damaged("no header"))?;
    let mut words = first.split(' ');
    if words.next() != Some(magic) {
        return Err(SealError::Damaged("no header"));
    }
    let found = words.next().and_then(|word| word.parse().ok());
    let found = found.ok_or(SealError::Damaged("no version"))?;
    if found != version {
        return Err(SealError::Version(found));
    }
    if words.next() != Some(sha256_hex(body).as_str()) {
        return Err(SealError::Damaged("checksum"));
    }
    Ok(body)
}

/// The bytes before the first newline, and those after it.
pub fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
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
