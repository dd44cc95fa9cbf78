//! Snapshot files as clients have saved them: a copy of `state.db` and the SHA-256 of it behind.
//! Checks one, says what is in it, and makes the databases of a new member from it.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::error::{FailureSlot, StorageError};
use super::folder::{DataFolder, sync_dir};
use super::log_db::{EntryId, Identity, VoteRow};
use super::log_writer::LogHandle;
use super::snapshot_file::SnapshotFile;
use super::state_db::{Progress, StateDb};
use super::state_load::{self, LoadedState};

const DIGEST_BYTES: u64 = 32;
/// The database's pages are multiples of this; what is left over is the digest.
const BLOCK_BYTES: u64 = 512;
const COPY_BYTES: usize = 1 << 20;

/// Where the restored state stands in the log of its new cluster: behind an entry that every member
/// counts as purged. One that is added later finds nothing before it, and is sent a copy.
const RESTORED_AT: EntryId = EntryId { term: 1, index: 1 };

/// What is in a snapshot file.
#[derive(Debug)]
pub struct SavedSnapshot {
    pub contents: LoadedState,
    /// Of the database, without the digest.
    pub bytes: u64,
    /// The first bytes of its SHA-256.
    pub hash: u32,
    /// The file had its digest, and it is right.
    pub is_verified: bool,
}

/// Who the restored member is.
#[derive(Debug, Clone)]
pub struct RestoredAs {
    pub identity: Identity,
    /// For whom the first term's vote counts as given: the same on all members.
    pub voted_for: u64,
    /// An encoded `schemas::command::StoredMembership`.
    pub membership: Bytes,
}

/// Reads a snapshot file from one end to the other; it stays as it is.
pub async fn inspect(path: &Path, must_be_verified: bool) -> Result<SavedSnapshot, StorageError> {
    let folder = std::env::temp_dir();
    let copy = SnapshotFile::in_folder(&folder);
    let (bytes, hash, is_verified) = copy_checked(path, copy.path(), must_be_verified)?;
    let contents = open_and_load(path, copy.path()).await;
    remove_journals(copy.path());
    Ok(SavedSnapshot {
        contents: contents?,
        bytes,
        hash,
        is_verified,
    })
}

/// Makes the databases of a new member in an empty folder. The identity is written last: a member
/// does not start on a folder that was given up half way.
pub async fn restore(
    snapshot: &Path,
    must_be_verified: bool,
    folder: &DataFolder,
    restored_as: RestoredAs,
) -> Result<LoadedState, StorageError> {
    let state = folder.state_db();
    copy_checked(snapshot, &state, must_be_verified)?;
    let loaded = open_and_load(snapshot, &state).await?;
    let progress = Progress {
        applied: Some(RESTORED_AT),
        membership: Some(restored_as.membership),
        membership_at: Some(RESTORED_AT),
        ..loaded.progress
    };
    let mut db = StateDb::open(&state).await?;
    db.start_over(&progress).await?;
    db.close().await?;
    let (log, _) = LogHandle::open(&folder.log_db(), FailureSlot::default()).await?;
    log.purge(RESTORED_AT).await?;
    log.save_vote(VoteRow {
        term: RESTORED_AT.term,
        node_id: restored_as.voted_for,
        committed: false,
    })
    .await?;
    log.save_identity(restored_as.identity).await?;
    log.close().await;
    sync_dir(folder.path())?;
    state_load::load(&state).await
}

/// Loads what was copied; a fault of the contents names the file that the operator gave.
async fn open_and_load(given: &Path, copy: &Path) -> Result<LoadedState, StorageError> {
    let unusable = |what: String| StorageError::Snapshot {
        path: given.to_owned(),
        what,
    };
    let db = StateDb::open(copy).await.map_err(|error| match error {
        StorageError::UnknownFormat { found, known, .. } => unusable(format!(
            "it has format {found}, and this program knows formats up to {known}"
        )),
        StorageError::Foreign { .. } => unusable("it holds no state of config-center".to_owned()),
        other => unusable(other.to_string()),
    })?;
    db.close().await?;
    state_load::load(copy)
        .await
        .map_err(|error| unusable(error.to_string()))
}

/// Copies the database out of the file and compares its digest on the way.
fn copy_checked(
    from: &Path,
    to: &Path,
    must_be_verified: bool,
) -> Result<(u64, u32, bool), StorageError> {
    let unusable = |what: String| StorageError::Snapshot {
        path: from.to_owned(),
        what,
    };
    let failed = |path: &Path, action: &'static str| {
        let path = path.to_owned();
        move |source| StorageError::File {
            path,
            action,
            source,
        }
    };
    let mut file = File::open(from).map_err(failed(from, "opening"))?;
    let size = file.metadata().map_err(failed(from, "measuring"))?.len();
    let has_digest = size % BLOCK_BYTES == DIGEST_BYTES;
    if !has_digest && must_be_verified {
        return Err(unusable(
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
    let mut copy = File::create_new(to).map_err(failed(to, "creating"))?;
    let mut digest = Sha256::new();
    let mut left = bytes;
    let mut buffer = vec![0; COPY_BYTES];
    while left > 0 {
        let count = usize::try_from(left).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        let part = &mut buffer[..count];
        file.read_exact(part).map_err(failed(from, "reading"))?;
        digest.update(&*part);
        copy.write_all(part).map_err(failed(to, "writing"))?;
        left -= count as u64;
    }
    copy.sync_all().map_err(failed(to, "syncing"))?;
    let digest = digest.finalize();
    let mut is_verified = false;
    if has_digest {
        let mut stored = [0; DIGEST_BYTES as usize];
        file.seek(SeekFrom::Start(bytes))
            .and_then(|_| file.read_exact(&mut stored))
            .map_err(failed(from, "reading"))?;
        is_verified = digest[..] == stored;
        if !is_verified && must_be_verified {
            // What was copied so far is nobody's.
            fs::remove_file(to).map_err(failed(to, "removing"))?;
            return Err(unusable(
                "its digest does not match its contents: it was changed or damaged".to_owned(),
            ));
        }
    }
    let hash = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    Ok((bytes, hash, is_verified))
}

/// What SQLite may have left beside a database that was only looked at.
fn remove_journals(database: &Path) {
    for suffix in ["-wal", "-shm"] {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        if let Err(error) = fs::remove_file(&name)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "a file beside a looked-at snapshot was left behind");
        }
    }
}
