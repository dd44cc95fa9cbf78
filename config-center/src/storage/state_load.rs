//! Reads `state.db` back into the core's `State` when the member starts or a snapshot arrives.

use std::path::Path;

use config_center_core::{Alarm, RestoreError, Restorer, RevisionRow, State};
use futures::TryStreamExt as _;
use prost::Message as _;
use schemas::etcdserverpb::Member;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::error::StorageError;
use super::log_record::EntryId;
use super::sqlite;
use super::sqlite::unsigned;
use super::state_auth;
use super::state_db::Progress;
use super::state_v2;

/// A state and how far it goes.
#[derive(Debug)]
pub struct LoadedState {
    pub state: State,
    pub progress: Progress,
}

/// Loads from a database that has been opened by its owner before (so its format is known).
pub(super) async fn load(path: &Path) -> Result<LoadedState, StorageError> {
    let mut connection = sqlite::open_reader(path).await?;
    let loaded = load_from(&mut connection, path).await;
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "closing the loader of the state");
    }
    loaded
}

async fn load_from(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<LoadedState, StorageError> {
    let failed = |source| StorageError::Sqlite {
        path: path.to_owned(),
        action: "reading the state",
        source,
    };
    let damaged = |error: RestoreError| StorageError::Damaged {
        path: path.to_owned(),
        what: error.to_string(),
    };
    let progress = read_progress(connection).await.map_err(failed)?;
    let mut restorer = State::restore();
    restorer.revision(progress.revision);
    if progress.compacted > 0 {
        restorer.compacted(progress.compacted);
    }
    load_leases(connection, &mut restorer)
        .await
        .map_err(failed)?;
    load_alarms(connection, &mut restorer)
        .await
        .map_err(failed)?;
    let members: Vec<Vec<u8>> = sqlx::query_scalar("SELECT member FROM members ORDER BY id")
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    for member in members {
        restorer.member(Member::decode(member.as_slice()).map_err(|error| {
            StorageError::Damaged {
                path: path.to_owned(),
                what: format!("a stored member cannot be decoded: {error}"),
            }
        })?);
    }
    state_v2::load(connection, &mut restorer)
        .await
        .map_err(failed)?;
    state_auth::load(connection, &mut restorer)
        .await
        .map_err(failed)?;
    let mut rows = sqlx::query(
        "SELECT main, sub, create_revision, version, lease, tombstone, key, value
            FROM revisions ORDER BY id",
    )
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let row = (|| {
            Ok(RevisionRow {
                main: row.try_get(0)?,
                sub: row.try_get(1)?,
                create_revision: row.try_get(2)?,
                version: row.try_get(3)?,
                lease: row.try_get(4)?,
                tombstone: row.try_get::<i64, _>(5)? != 0,
                key: row.try_get::<Vec<u8>, _>(6)?.into(),
                value: row.try_get::<Vec<u8>, _>(7)?.into(),
            })
        })()
        .map_err(failed)?;
        restorer.row(row).map_err(damaged)?;
    }
    drop(rows);
    Ok(LoadedState {
        state: restorer.finish().map_err(damaged)?,
        progress,
    })
}

async fn load_leases(
    connection: &mut SqliteConnection,
    restorer: &mut Restorer,
) -> Result<(), sqlx::Error> {
    let mut leases =
        sqlx::query("SELECT id, ttl_s, remaining_s FROM leases").fetch(&mut *connection);
    while let Some(row) = leases.try_next().await? {
        let id = row.try_get(0)?;
        restorer.lease(id, row.try_get(1)?);
        restorer.lease_remaining(id, row.try_get(2)?);
    }
    Ok(())
}

async fn load_alarms(
    connection: &mut SqliteConnection,
    restorer: &mut Restorer,
) -> Result<(), sqlx::Error> {
    let mut alarms = sqlx::query("SELECT kind, member_id FROM alarms").fetch(&mut *connection);
    while let Some(row) = alarms.try_next().await? {
        restorer.alarm(Alarm {
            kind: row.try_get::<i32, _>(0)?,
            member_id: unsigned(row.try_get(1)?),
        });
    }
    Ok(())
}

/// How far the state in this file goes.
pub(super) async fn progress_of(path: &Path) -> Result<Progress, StorageError> {
    let mut connection = sqlite::open_reader(path).await?;
    let progress = read_progress(&mut connection).await;
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "closing a copy of the state");
    }
    progress.map_err(|source| StorageError::Sqlite {
        path: path.to_owned(),
        action: "reading a copy of the state",
        source,
    })
}

pub(super) async fn read_progress(
    connection: &mut SqliteConnection,
) -> Result<Progress, sqlx::Error> {
    let row = sqlx::query(
        "SELECT revision, compacted, purged, applied_term, applied_index, membership_term,
            membership_index, membership FROM progress WHERE id = 1",
    )
    .fetch_one(connection)
    .await?;
    let id = |term: Option<i64>, index: Option<i64>| {
        Some(EntryId {
            term: unsigned(term?),
            index: unsigned(index?),
        })
    };
    Ok(Progress {
        revision: row.try_get(0)?,
        compacted: row.try_get(1)?,
        purged: row.try_get(2)?,
        applied: id(row.try_get(3)?, row.try_get(4)?),
        membership: row.try_get::<Option<Vec<u8>>, _>(7)?.map(Into::into),
        membership_at: id(row.try_get(5)?, row.try_get(6)?),
    })
}
