//! A snapshot file as a client has saved it: is it whole, whose format is it, what is in it?
//!
//! Two formats are read: the database file of etcd, which every release of etcd and config-center
//! answers now, and the copy of `state.db` that config-center answered before. Behind either comes
//! the SHA-256 of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;
use config_center_core::Change;
use rustc_hash::FxHashSet;
use sha2::{Digest as _, Sha256};

use super::error::StorageError;
use super::etcd_file::{EtcdFile, EtcdFileError, Summary};
use super::restore;
use super::snapshot_file::SnapshotFile;

const DIGEST_BYTES: u64 = 32;
/// The pages of both databases are multiples of this; what is left over is the digest.
const BLOCK_BYTES: u64 = 512;
const READ_BYTES: usize = 1 << 20;

/// The first bytes of every database of SQLite.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// What is in a snapshot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedSnapshot {
    pub revision: i64,
    /// Keys that exist at this revision.
    pub total_keys: usize,
    /// Of the database, without the digest.
    pub bytes: u64,
    /// Of a file of etcd's format what `etcdutl snapshot status` shows.
    pub hash: u32,
    /// Whose format it is, when the file says so.
    pub version: Option<String>,
    /// The file had its digest, and it is right.
    pub is_verified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The file of bbolt that is etcd's database.
    Etcd,
    /// A copy of `state.db`.
    State,
}

/// The file as a whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked {
    pub(super) format: Format,
    /// Without the digest.
    pub(super) bytes: u64,
    /// The first bytes of the SHA-256.
    pub(super) hash: u32,
    pub(super) is_verified: bool,
}

/// Reads a snapshot file from one end to the other; it stays as it is.
pub async fn inspect(path: &Path, must_be_verified: bool) -> Result<SavedSnapshot, StorageError> {
    let checked = check(path, must_be_verified)?;
    if checked.format == Format::Etcd {
        return inspect_etcd(path, checked.is_verified).map_err(|error| refused(path, &error));
    }
    let copy = SnapshotFile::in_folder(&std::env::temp_dir());
    let loaded = restore::copied_state(path, copy.path(), checked.bytes).await;
    restore::remove_journals(copy.path());
    let state = loaded?.state;
    Ok(SavedSnapshot {
        revision: state.revision(),
        total_keys: state.live_keys(),
        bytes: checked.bytes,
        hash: checked.hash,
        version: None,
        is_verified: checked.is_verified,
    })
}

fn inspect_etcd(path: &Path, is_verified: bool) -> Result<SavedSnapshot, EtcdFileError> {
    let mut file = EtcdFile::open(path)?;
    // Keys by half a SHA-256: 16 bytes each however long they are, and no two alike.
    let mut live: FxHashSet<Bytes> = FxHashSet::default();
    while let Some(change) = file.next()? {
        if let Change::Revision(row) = change {
            let short = Bytes::copy_from_slice(&Sha256::digest(&row.key)[..16]);
            if row.tombstone {
                live.remove(&short);
            } else {
                live.insert(short);
            }
        }
    }
    let Summary {
        hash,
        revision,
        storage_version,
        used_bytes,
        ..
    } = file.summary();
    Ok(SavedSnapshot {
        revision,
        total_keys: live.len(),
        bytes: used_bytes,
        hash,
        version: storage_version,
        is_verified,
    })
}

pub(super) fn refused(path: &Path, error: &EtcdFileError) -> StorageError {
    unusable(path, error.to_string())
}

pub(super) fn unusable(path: &Path, what: String) -> StorageError {
    StorageError::Snapshot {
        path: path.to_owned(),
        what,
    }
}

/// Compares the digest, and tells the format by the first bytes.
pub(super) fn check(path: &Path, must_be_verified: bool) -> Result<Checked, StorageError> {
    let failed = |action: &'static str| {
        move |source: io::Error| StorageError::File {
            path: path.to_owned(),
            action,
            source,
        }
    };
    let mut file = File::open(path).map_err(failed("opening"))?;
    let size = file.metadata().map_err(failed("measuring"))?.len();
    let has_digest = size % BLOCK_BYTES == DIGEST_BYTES;
    if !has_digest && must_be_verified {
        return Err(unusable(
            path,
            "it does not end with its digest: it is cut off, or was not saved by `snapshot save` \
             (--skip-hash-check takes it all the same)"
                .to_owned(),
        ));
    }
    let bytes = if has_digest {
        size - DIGEST_BYTES
    } else {
        size
    };
    let mut digest = Sha256::new();
    let mut format = Format::Etcd;
    let mut left = bytes;
    let mut buffer = vec![0; READ_BYTES];
    while left > 0 {
        let count = usize::try_from(left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let part = &mut buffer[..count];
        file.read_exact(part).map_err(failed("reading"))?;
        if left == bytes && part.starts_with(SQLITE) {
            format = Format::State;
        }
        digest.update(&*part);
        left -= count as u64;
    }
    let digest = digest.finalize();
    let mut is_verified = false;
    if has_digest {
        let mut stored = [0; DIGEST_BYTES as usize];
        file.read_exact(&mut stored).map_err(failed("reading"))?;
        is_verified = digest[..] == stored;
        if !is_verified && must_be_verified {
            return Err(unusable(
                path,
                "its digest does not match its contents: it was changed or damaged".to_owned(),
            ));
        }
    }
    Ok(Checked {
        format,
        bytes,
        hash: u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]),
        is_verified,
    })
}
