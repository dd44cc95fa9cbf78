//! Version 1 of the log, a database: how it is taken over by the files of today.
//!
//! The files are made beside it and appear as a whole; only then does the database go. A crash in
//! between leaves the one or the other, or both with the same contents.

use std::fs;
use std::io;
use std::path::Path;

use sqlx::sqlite::SqliteSynchronous;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::error::StorageError;
use super::folder::sync_dir;
use super::log_files::LogFiles;
use super::log_record::{EntryId, EntryKind, EntryRow, Identity, Item, VoteRow};
use super::sqlite::{self, Schema, unsigned};

/// What it was called, beside the folder of today.
const DATABASE: &str = "log.db";

const SCHEMA: Schema = Schema {
    kind: "config-center log",
    create: "
        CREATE TABLE entries (
            log_index INTEGER PRIMARY KEY,
            term INTEGER NOT NULL,
            kind INTEGER NOT NULL,
            payload BLOB NOT NULL
        ) STRICT;
        -- One row each: 'committed' and 'purged'.
        CREATE TABLE marks (
            name TEXT PRIMARY KEY,
            term INTEGER NOT NULL,
            log_index INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE vote (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            term INTEGER NOT NULL,
            node_id INTEGER NOT NULL,
            committed INTEGER NOT NULL
        ) STRICT;
        -- Who this folder belongs to; never changed once written.
        CREATE TABLE identity (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            member_id INTEGER NOT NULL,
            cluster_id INTEGER NOT NULL
        ) STRICT;",
    upgrades: &[],
};

/// Makes the log's folder when it is missing: from a database of version 1, or empty.
pub(super) async fn take_over(folder: &Path) -> Result<(), StorageError> {
    let database = folder.with_file_name(DATABASE);
    if !folder.exists() {
        let items = if database.exists() {
            read(&database).await?
        } else {
            Vec::new()
        };
        LogFiles::create(folder, items)?;
    }
    remove(&database)
}

fn remove(database: &Path) -> Result<(), StorageError> {
    let mut was_there = false;
    for suffix in ["-wal", "-shm", ""] {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Ok(()) => was_there = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(StorageError::File {
                    path: name.into(),
                    action: "removing",
                    source,
                });
            }
        }
    }
    if was_there {
        sync_dir(database.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// All that the database says, in the order in which the files would have been told.
async fn read(path: &Path) -> Result<Vec<Item>, StorageError> {
    let mut connection = sqlite::open_writer(path, SCHEMA, SqliteSynchronous::Full).await?;
    let items = items(&mut connection, path).await?;
    connection
        .close()
        .await
        .map_err(|source| StorageError::Sqlite {
            path: path.to_owned(),
            action: "closing the log",
            source,
        })?;
    Ok(items)
}

async fn items(connection: &mut SqliteConnection, path: &Path) -> Result<Vec<Item>, StorageError> {
    let failed = |source| StorageError::Sqlite {
        path: path.to_owned(),
        action: "reading the log",
        source,
    };
    let mut items = Vec::new();
    let sql = "SELECT member_id, cluster_id FROM identity";
    if let Some(row) = sqlx::query(sql)
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?
    {
        items.push(Item::Identity(Identity {
            member_id: unsigned(row.try_get(0).map_err(failed)?),
            cluster_id: unsigned(row.try_get(1).map_err(failed)?),
        }));
    }
    let sql = "SELECT term, node_id, committed FROM vote";
    if let Some(row) = sqlx::query(sql)
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?
    {
        items.push(Item::Vote(VoteRow {
            term: unsigned(row.try_get(0).map_err(failed)?),
            node_id: unsigned(row.try_get(1).map_err(failed)?),
            committed: row.try_get::<i64, _>(2).map_err(failed)? != 0,
        }));
    }
    let sql = "SELECT term, log_index, name FROM marks";
    for row in sqlx::query(sql)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?
    {
        let id = EntryId {
            term: unsigned(row.try_get(0).map_err(failed)?),
            index: unsigned(row.try_get(1).map_err(failed)?),
        };
        match row.try_get::<&str, _>(2).map_err(failed)? {
            "committed" => items.push(Item::Committed(id)),
            "purged" => items.push(Item::Purged(id)),
            _ => {}
        }
    }
    let purged = items.iter().find_map(|item| match item {
        Item::Purged(id) => Some(id.index),
        _ => None,
    });
    let mut expected = purged.map(|purged| purged + 1);
    let sql = "SELECT term, log_index, kind, payload FROM entries ORDER BY log_index";
    for row in sqlx::query(sql)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?
    {
        let index = unsigned(row.try_get(1).map_err(failed)?);
        if expected.is_some_and(|expected| expected != index) {
            return Err(StorageError::Damaged {
                path: path.to_owned(),
                what: format!("entry {index} is where entry {expected:?} should be"),
            });
        }
        expected = Some(index + 1);
        let kind: i64 = row.try_get(2).map_err(failed)?;
        items.push(Item::Entry(EntryRow {
            id: EntryId {
                term: unsigned(row.try_get(0).map_err(failed)?),
                index,
            },
            kind: EntryKind::from_code(kind).ok_or_else(|| StorageError::Damaged {
                path: path.to_owned(),
                what: format!("entry {index} is of the unknown kind {kind}"),
            })?,
            payload: row.try_get::<Vec<u8>, _>(3).map_err(failed)?.into(),
        }));
    }
    Ok(items)
}
