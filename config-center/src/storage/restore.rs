//! Makes the databases of a new member from a snapshot file.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;
use config_center_core::{AuthChange, Change};

use super::error::{FailureSlot, StorageError};
use super::etcd_file::{EtcdFile, EtcdFileError};
use super::folder::{DataFolder, sync_dir};
use super::log_record::{EntryId, Identity, VoteRow};
use super::log_writer::LogHandle;
use super::saved_snapshot::{self, Format};
use super::state_db::{Folded, Progress, StateDb};
use super::state_load::{self, LoadedState};

/// Where the restored state stands in the log of its new cluster: behind an entry that every member
/// counts as purged. One that is added later finds nothing before it, and is sent a copy.
const RESTORED_AT: EntryId = EntryId { term: 1, index: 1 };

/// Imported rows of one transaction.
const IMPORT_ROWS: usize = 4096;

/// Who the restored member is, and what becomes of the revisions.
#[derive(Debug, Clone)]
pub struct RestoredAs {
    pub identity: Identity,
    /// For whom the first term's vote counts as given: the same on all members.
    pub voted_for: u64,
    /// An encoded `schemas::command::StoredMembership`.
    pub membership: Bytes,
    /// Added to the revision, and everything up to there compacted: clients that have seen later
    /// revisions than the snapshot's then notice that their watches are cut off. 0: nothing of that.
    pub revision_bump: i64,
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
    let checked = saved_snapshot::check(snapshot, must_be_verified)?;
    let before = match checked.format {
        Format::State => {
            copied_state(snapshot, &state, checked.bytes)
                .await?
                .progress
        }
        Format::Etcd => imported(snapshot, &state).await?,
    };
    let mut progress = Progress {
        applied: Some(RESTORED_AT),
        membership: Some(restored_as.membership),
        membership_at: Some(RESTORED_AT),
        ..before
    };
    if restored_as.revision_bump > 0 {
        progress.revision = progress.revision.saturating_add(restored_as.revision_bump);
        progress.compacted = progress.revision;
    }
    let mut db = StateDb::open(&state).await?;
    db.start_over(&progress).await?;
    db.close().await?;
    // Whether the rows are a state at all shows now, before anybody is told that they are.
    let loaded = load(snapshot, &state).await?;
    let (log, _) = LogHandle::open(&folder.log(), FailureSlot::default()).await?;
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
    Ok(loaded)
}

/// Fills a new `state.db` from a file of etcd's format.
async fn imported(given: &Path, state: &Path) -> Result<Progress, StorageError> {
    let refused = |error: EtcdFileError| saved_snapshot::refused(given, &error);
    let mut file = EtcdFile::open(given).map_err(refused)?;
    let mut db = StateDb::open(state).await?;
    let mut folded = Folded::default();
    // Said from the first transaction on: rows without the log that belongs to them start no member.
    let mut progress = Progress {
        applied: Some(RESTORED_AT),
        ..Progress::default()
    };
    while let Some(change) = file.next().map_err(refused)? {
        folded.add(vec![change], &mut progress);
        if folded.row_count() >= IMPORT_ROWS {
            db.write(&folded, &[], &progress).await?;
            folded = Folded::default();
        }
    }
    let summary = file.summary();
    let status = AuthChange::Status {
        enabled: summary.auth_is_enabled,
        guests: false,
        revision: summary.auth_revision,
    };
    folded.add(vec![Change::Auth(status)], &mut progress);
    progress.revision = summary.revision;
    progress.compacted = summary.compacted;
    db.write(&folded, &[], &progress).await?;
    db.detach_unknown_leases().await?;
    db.close().await?;
    Ok(progress)
}

/// Takes the copy of a `state.db` out of a snapshot file.
pub(super) async fn copied_state(
    given: &Path,
    to: &Path,
    bytes: u64,
) -> Result<LoadedState, StorageError> {
    let failed = |path: &Path, action: &'static str| {
        let path = path.to_owned();
        move |source| StorageError::File {
            path,
            action,
            source,
        }
    };
    let file = File::open(given).map_err(failed(given, "opening"))?;
    let mut copy = File::create_new(to).map_err(failed(to, "creating"))?;
    let copied = io::copy(&mut file.take(bytes), &mut copy);
    copied
        .and_then(|_| copy.sync_all())
        .map_err(failed(to, "copying a snapshot to"))?;
    let unusable = |what: String| saved_snapshot::unusable(given, what);
    let db = StateDb::open(to).await.map_err(|error| match error {
        StorageError::UnknownFormat { found, known, .. } => unusable(format!(
            "it has format {found}, and this program knows formats up to {known}"
        )),
        StorageError::Foreign { .. } => unusable("it holds no state of config-center".to_owned()),
        other => unusable(other.to_string()),
    })?;
    db.close().await?;
    load(given, to).await
}

/// A fault of the contents names the file that the operator gave.
async fn load(given: &Path, state: &Path) -> Result<LoadedState, StorageError> {
    state_load::load(state).await.map_err(|error| match error {
        StorageError::Damaged { what, .. } => saved_snapshot::unusable(given, what),
        other => saved_snapshot::unusable(given, other.to_string()),
    })
}

/// What SQLite may have left beside a database that was only looked at.
pub(super) fn remove_journals(database: &Path) {
    for suffix in ["-wal", "-shm"] {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        if let Err(error) = fs::remove_file(&name)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "a file beside a looked-at snapshot was left behind");
        }
    }
}
