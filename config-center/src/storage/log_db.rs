//! The tables of `log.db` and each statement on them. What calls these, and when, is
//! `log_writer`'s matter.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sqlx::sqlite::{SqliteArguments, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::error::StorageError;
use super::sqlite::{self, MAX_ROWS_PER_STATEMENT, MultiInsert, Schema};

pub(super) const SCHEMA: Schema = Schema {
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

/// Count, first and last index of the entries, and the last one's term.
type RecoveredRow = (i64, Option<i64>, Option<i64>, Option<i64>);

/// Where an entry stands: the term of the leader that wrote it, and its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    pub term: u64,
    pub index: u64,
}

/// What the payload of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Written by a new leader; the payload is empty.
    Blank,
    /// An encoded `schemas::command::Command`, the bytes that were proposed.
    Command,
    /// An encoded `schemas::command::StoredMembership`.
    Membership,
}

impl EntryKind {
    fn code(self) -> i64 {
        match self {
            Self::Blank => 0,
            Self::Command => 1,
            Self::Membership => 2,
        }
    }

    fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Blank),
            1 => Some(Self::Command),
            2 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// One entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    pub id: EntryId,
    pub kind: EntryKind,
    pub payload: Bytes,
}

/// Whom this member voted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteRow {
    pub term: u64,
    pub node_id: u64,
    pub committed: bool,
}

/// Whose folder this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub member_id: u64,
    pub cluster_id: u64,
}

/// What was found in the log when it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogRecovery {
    pub identity: Option<Identity>,
    pub vote: Option<VoteRow>,
    pub committed: Option<EntryId>,
    pub purged: Option<EntryId>,
    /// The first entry that is there.
    pub first: Option<u64>,
    /// The last entry, or what was purged when there is none.
    pub last: Option<EntryId>,
}

/// The owner's connection, with the texts of its statements.
pub(super) struct LogDb {
    path: Arc<Path>,
    insert: MultiInsert,
    pub connection: SqliteConnection,
}

type DbResult<T> = Result<T, StorageError>;

impl LogDb {
    pub(super) async fn open(path: &Path) -> DbResult<(Self, LogRecovery)> {
        let connection = sqlite::open_writer(path, SCHEMA, SqliteSynchronous::Full).await?;
        let mut db = Self {
            path: path.into(),
            insert: MultiInsert::new("INSERT INTO entries (log_index, term, kind, payload)", 4),
            connection,
        };
        // A checkpoint costs two fsyncs inside a commit; 16 MiB apart they are not noticed.
        sqlx::raw_sql("PRAGMA wal_autocheckpoint = 4000")
            .execute(&mut db.connection)
            .await
            .map_err(db.failed("setting up the log"))?;
        let recovery = db.recover().await?;
        Ok((db, recovery))
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    pub(super) fn failed(
        &self,
        action: &'static str,
    ) -> impl FnOnce(sqlx::Error) -> StorageError + use<> {
        let path = Arc::clone(&self.path);
        move |source| StorageError::Sqlite {
            path: path.to_path_buf(),
            action,
            source,
        }
    }

    async fn recover(&mut self) -> DbResult<LogRecovery> {
        let mut found = LogRecovery::default();
        let failed = self.failed("reading the log");
        let result: Result<RecoveredRow, sqlx::Error> = async {
            if let Some(row) = sqlx::query("SELECT member_id, cluster_id FROM identity")
                .fetch_optional(&mut self.connection)
                .await?
            {
                found.identity = Some(Identity {
                    member_id: unsigned(row.try_get(0)?),
                    cluster_id: unsigned(row.try_get(1)?),
                });
            }
            if let Some(row) = sqlx::query("SELECT term, node_id, committed FROM vote")
                .fetch_optional(&mut self.connection)
                .await?
            {
                found.vote = Some(VoteRow {
                    term: unsigned(row.try_get(0)?),
                    node_id: unsigned(row.try_get(1)?),
                    committed: row.try_get::<i64, _>(2)? != 0,
                });
            }
            for row in sqlx::query("SELECT name, term, log_index FROM marks")
                .fetch_all(&mut self.connection)
                .await?
            {
                let id = EntryId {
                    term: unsigned(row.try_get(1)?),
                    index: unsigned(row.try_get(2)?),
                };
                match row.try_get::<&str, _>(0)? {
                    "committed" => found.committed = Some(id),
                    "purged" => found.purged = Some(id),
                    _ => {}
                }
            }
            let row = sqlx::query(
                "SELECT count(*), min(log_index), max(log_index),
                    (SELECT term FROM entries ORDER BY log_index DESC LIMIT 1) FROM entries",
            )
            .fetch_one(&mut self.connection)
            .await?;
            Ok((
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
            ))
        }
        .await;
        let (count, first, last, last_term) = result.map_err(failed)?;
        found.last = found.purged;
        if let (Some(first), Some(last), Some(term)) = (first, last, last_term) {
            let hole_before = found.purged.is_some_and(|p| unsigned(first) != p.index + 1);
            if last - first + 1 != count || hole_before {
                return Err(StorageError::Damaged {
                    path: self.path.to_path_buf(),
                    what: format!(
                        "entries {first} to {last} should follow {:?} without a hole, and there are {count}",
                        found.purged.map(|p| p.index)
                    ),
                });
            }
            found.first = Some(unsigned(first));
            found.last = Some(EntryId {
                term: unsigned(term),
                index: unsigned(last),
            });
        }
        Ok(found)
    }

    /// Inserts up to [`MAX_ROWS_PER_STATEMENT`] entries by one statement.
    pub(super) async fn insert(&mut self, rows: &[EntryRow]) -> DbResult<()> {
        debug_assert!(rows.len() <= MAX_ROWS_PER_STATEMENT);
        let mut query = sqlx::query_with(self.insert.sql(rows.len()), SqliteArguments::default());
        for row in rows {
            query = query
                .bind(signed(row.id.index))
                .bind(signed(row.id.term))
                .bind(row.kind.code())
                .bind(row.payload.to_vec());
        }
        query
            .execute(&mut self.connection)
            .await
            .map_err(self.failed("appending to the log"))?;
        Ok(())
    }

    pub(super) async fn begin(&mut self) -> DbResult<()> {
        self.run("BEGIN IMMEDIATE", "beginning a transaction").await
    }

    pub(super) async fn commit(&mut self) -> DbResult<()> {
        self.run("COMMIT", "committing").await
    }

    async fn run(&mut self, sql: &'static str, action: &'static str) -> DbResult<()> {
        sqlx::query(sql)
            .execute(&mut self.connection)
            .await
            .map_err(self.failed(action))?;
        Ok(())
    }

    pub(super) async fn put_vote(&mut self, vote: VoteRow) -> DbResult<()> {
        sqlx::query(
            "INSERT OR REPLACE INTO vote (id, term, node_id, committed) VALUES (1, ?, ?, ?)",
        )
        .bind(signed(vote.term))
        .bind(signed(vote.node_id))
        .bind(i64::from(vote.committed))
        .execute(&mut self.connection)
        .await
        .map_err(self.failed("saving the vote"))?;
        Ok(())
    }

    pub(super) async fn put_identity(&mut self, identity: Identity) -> DbResult<()> {
        sqlx::query("INSERT INTO identity (id, member_id, cluster_id) VALUES (1, ?, ?)")
            .bind(signed(identity.member_id))
            .bind(signed(identity.cluster_id))
            .execute(&mut self.connection)
            .await
            .map_err(self.failed("saving the identity"))?;
        Ok(())
    }

    pub(super) async fn put_committed(&mut self, committed: EntryId) -> DbResult<()> {
        self.put_mark("committed", committed).await
    }

    async fn put_mark(&mut self, name: &'static str, id: EntryId) -> DbResult<()> {
        sqlx::query("INSERT OR REPLACE INTO marks (name, term, log_index) VALUES (?, ?, ?)")
            .bind(name)
            .bind(signed(id.term))
            .bind(signed(id.index))
            .execute(&mut self.connection)
            .await
            .map_err(self.failed("saving a mark of the log"))?;
        Ok(())
    }

    /// Removes everything after this index; all entries for `None`.
    pub(super) async fn truncate(&mut self, after: Option<u64>) -> DbResult<()> {
        let from = after.map_or(0, |index| signed(index) + 1);
        sqlx::query("DELETE FROM entries WHERE log_index >= ?")
            .bind(from)
            .execute(&mut self.connection)
            .await
            .map_err(self.failed("truncating the log"))?;
        Ok(())
    }

    /// Removes everything up to this entry and remembers it. In the transaction of the caller.
    pub(super) async fn purge(&mut self, upto: EntryId) -> DbResult<()> {
        self.put_mark("purged", upto).await?;
        sqlx::query("DELETE FROM entries WHERE log_index <= ?")
            .bind(signed(upto.index))
            .execute(&mut self.connection)
            .await
            .map_err(self.failed("purging the log"))?;
        Ok(())
    }
}

/// Reads the entries of `[from, until)` that are there, in order.
pub(super) async fn read_entries(
    connection: &mut SqliteConnection,
    path: &Path,
    from: u64,
    until: u64,
) -> DbResult<Vec<EntryRow>> {
    let sql = "SELECT log_index, term, kind, payload FROM entries
        WHERE log_index >= ? AND log_index < ? ORDER BY log_index";
    let failed = |source| StorageError::Sqlite {
        path: path.to_owned(),
        action: "reading the log",
        source,
    };
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(signed(from))
        .bind(signed(until))
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    rows.iter()
        .map(|row| {
            let index = unsigned(row.try_get(0).map_err(failed)?);
            let kind: i64 = row.try_get(2).map_err(failed)?;
            Ok(EntryRow {
                id: EntryId {
                    term: unsigned(row.try_get(1).map_err(failed)?),
                    index,
                },
                kind: EntryKind::from_code(kind).ok_or_else(|| StorageError::Damaged {
                    path: path.to_owned(),
                    what: format!("entry {index} is of the unknown kind {kind}"),
                })?,
                payload: row.try_get::<Vec<u8>, _>(3).map_err(failed)?.into(),
            })
        })
        .collect()
}

/// SQLite knows signed integers only. Node ids use all 64 bits; terms and indexes never reach 2^63.
pub(super) fn signed(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}
