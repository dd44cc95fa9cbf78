//! Which rows a compaction has left without meaning.
//!
//! The core drops them from memory at once and leaves them out again when it is restored, so the
//! file is cleaned later and in small steps. The scan reads beside the owner: rows at or below a
//! compacted revision never change, and new ones are above it.

use std::path::Path;

use futures::TryStreamExt as _;
use rustc_hash::FxHashSet;
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, Row as _};

use super::error::StorageError;
use super::sqlite;

/// The ids of rows at or below `compacted` that are superseded at or below it, and of tombstones
/// below it. A tombstone exactly at the compacted revision stays: a watch may start there, and its
/// event must still be delivered.
pub(super) async fn doomed_rows(path: &Path, compacted: i64) -> Result<Vec<i64>, StorageError> {
    let failed = |source| StorageError::Sqlite {
        path: path.to_owned(),
        action: "looking for compacted rows",
        source,
    };
    let mut connection = sqlite::open_reader(path).await?;
    // Keys by half a SHA-256: 16 bytes each however long they are, and no two alike.
    let mut newer: FxHashSet<[u8; 16]> = FxHashSet::default();
    let mut doomed = Vec::new();
    let mut rows = sqlx::query(
        "SELECT id, main, tombstone, key FROM revisions WHERE main <= ? ORDER BY id DESC",
    )
    .bind(compacted)
    .fetch(&mut connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let key: &[u8] = row.try_get(3).map_err(failed)?;
        let digest = Sha256::digest(key);
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        let is_newest = newer.insert(short);
        let is_tombstone = row.try_get::<i64, _>(2).map_err(failed)? != 0;
        let main: i64 = row.try_get(1).map_err(failed)?;
        if !is_newest || (is_tombstone && main < compacted) {
            doomed.push(row.try_get(0).map_err(failed)?);
        }
    }
    drop(rows);
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "closing the scan for compacted rows");
    }
    Ok(doomed)
}
