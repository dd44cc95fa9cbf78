//! The tables of `state.db` and the one transaction that writes to them: rows, and the index they
//! were applied at, together.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use config_center_core::{Alarm, Change, RevisionRow};
use prost::Message as _;
use schemas::etcdserverpb::Member;
use sqlx::sqlite::{SqliteArguments, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

use super::error::StorageError;
use super::log_record::EntryId;
use super::sqlite::{self, MAX_ROWS_PER_STATEMENT, MultiInsert, Schema, placeholders, signed};
use super::state_auth::FoldedAuth;
use super::state_size::StateSizes;
use super::state_v2::{self, FoldedV2};

pub(super) const SCHEMA: Schema = Schema {
    kind: "config-center state",
    create: "
        -- Written in the order of (main, sub), so the row ids are in that order too.
        CREATE TABLE revisions (
            id INTEGER PRIMARY KEY,
            main INTEGER NOT NULL,
            sub INTEGER NOT NULL,
            create_revision INTEGER NOT NULL,
            version INTEGER NOT NULL,
            lease INTEGER NOT NULL,
            tombstone INTEGER NOT NULL,
            key BLOB NOT NULL,
            value BLOB NOT NULL
        ) STRICT;
        CREATE TABLE leases (
            id INTEGER PRIMARY KEY,
            ttl_s INTEGER NOT NULL
        ) STRICT;
        -- etcdserverpb.Member, encoded.
        CREATE TABLE members (
            id INTEGER PRIMARY KEY,
            member BLOB NOT NULL
        ) STRICT;
        -- What the rows above contain. The revision is kept here and never derived from the rows:
        -- the newest one may have been compacted away.
        CREATE TABLE progress (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            revision INTEGER NOT NULL,
            compacted INTEGER NOT NULL,
            purged INTEGER NOT NULL,
            applied_term INTEGER,
            applied_index INTEGER,
            membership_term INTEGER,
            membership_index INTEGER,
            membership BLOB
        ) STRICT;
        INSERT INTO progress (id, revision, compacted, purged) VALUES (1, 1, 0, 0);",
    upgrades: &[
        // Format 2: alarms, and what was left of a lease when it was last written down.
        "
        CREATE TABLE alarms (
            kind INTEGER NOT NULL,
            member_id INTEGER NOT NULL,
            PRIMARY KEY (kind, member_id)
        ) STRICT, WITHOUT ROWID;
        ALTER TABLE leases ADD COLUMN remaining_s INTEGER NOT NULL DEFAULT 0;",
        // Format 3: what the v2 API keeps beside the keyspace.
        state_v2::UPGRADE,
        // Format 4: users and roles.
        "
        -- authpb.User, encoded; its password is a hash.
        CREATE TABLE auth_users (
            name TEXT PRIMARY KEY,
            user BLOB NOT NULL
        ) STRICT;
        -- authpb.Role, encoded.
        CREATE TABLE auth_roles (
            name TEXT PRIMARY KEY,
            role BLOB NOT NULL
        ) STRICT;
        CREATE TABLE auth_status (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            enabled INTEGER NOT NULL,
            revision INTEGER NOT NULL
        ) STRICT;
        INSERT INTO auth_status (id, enabled, revision) VALUES (1, 0, 1);",
    ],
};

/// What a state contains. Written in the transaction of the rows it speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The store's revision.
    pub revision: i64,
    /// The revision of the last compaction, 0 when there was none.
    pub compacted: i64,
    /// Up to where superseded rows were removed from the file; at most `compacted`.
    pub purged: i64,
    pub applied: Option<EntryId>,
    /// An encoded `schemas::command::StoredMembership`, and the entry that brought it.
    pub membership: Option<Bytes>,
    pub membership_at: Option<EntryId>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            purged: 0,
            applied: None,
            membership: None,
            membership_at: None,
        }
    }
}

/// The changes of one transaction, with only the last one kept where they overwrite each other.
#[derive(Debug, Default)]
pub(super) struct Folded {
    rows: Vec<Arc<RevisionRow>>,
    leases: BTreeMap<i64, Option<i64>>,
    remaining: BTreeMap<i64, i64>,
    members: BTreeMap<u64, Member>,
    alarms: BTreeMap<Alarm, bool>,
    v2: FoldedV2,
    auth: FoldedAuth,
}

impl Folded {
    pub(super) fn add(&mut self, changes: Vec<Change>, progress: &mut Progress) {
        for change in changes {
            match change {
                Change::Revision(row) => self.rows.push(row),
                Change::CompactTo { revision } => {
                    progress.compacted = progress.compacted.max(revision);
                }
                Change::LeasePut { id, ttl_s } => {
                    self.leases.insert(id, Some(ttl_s));
                    self.remaining.remove(&id);
                }
                Change::LeaseDelete { id } => {
                    self.leases.insert(id, None);
                    self.remaining.remove(&id);
                }
                Change::LeaseRemaining { id, remaining_s } => {
                    self.remaining.insert(id, remaining_s);
                }
                Change::AlarmRaised(alarm) => {
                    self.alarms.insert(alarm, true);
                }
                Change::AlarmTakenBack(alarm) => {
                    self.alarms.insert(alarm, false);
                }
                Change::MemberPut(member) => {
                    self.members.insert(member.id, member);
                }
                Change::V2(change) => self.v2.add(change),
                Change::Auth(change) => self.auth.add(change),
            }
        }
    }

    pub(super) fn row_count(&self) -> usize {
        self.rows.len()
            + self.leases.len()
            + self.remaining.len()
            + self.members.len()
            + self.alarms.len()
            + self.v2.row_count()
            + self.auth.row_count()
    }
}

/// The owner's connection, with the texts of its statements.
pub(super) struct StateDb {
    path: Arc<Path>,
    insert_rows: MultiInsert,
    insert_leases: MultiInsert,
    connection: SqliteConnection,
}

type DbResult<T> = Result<T, StorageError>;

impl StateDb {
    pub(super) async fn open(path: &Path) -> DbResult<Self> {
        let connection = sqlite::open_writer(path, SCHEMA, SqliteSynchronous::Normal).await?;
        let mut db = Self {
            path: path.into(),
            insert_rows: MultiInsert::new(
                "INSERT INTO revisions (main, sub, create_revision, version, lease, tombstone, key, value)",
                8,
            ),
            insert_leases: MultiInsert::new("INSERT OR REPLACE INTO leases (id, ttl_s)", 2),
            connection,
        };
        db.run("PRAGMA wal_autocheckpoint = 4000", "setting up the state")
            .await?;
        Ok(db)
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(sqlx::Error) -> StorageError + use<> {
        let path = Arc::clone(&self.path);
        move |source| StorageError::Sqlite {
            path: path.to_path_buf(),
            action,
            source,
        }
    }

    async fn run(&mut self, sql: &'static str, action: &'static str) -> DbResult<()> {
        sqlx::query(sql)
            .execute(&mut self.connection)
            .await
            .map_err(self.failed(action))?;
        Ok(())
    }

    /// One transaction: the folded changes, the rows that a compaction doomed, the progress.
    pub(super) async fn write(
        &mut self,
        folded: &Folded,
        doomed: &[i64],
        progress: &Progress,
    ) -> DbResult<()> {
        self.run("BEGIN IMMEDIATE", "beginning a transaction")
            .await?;
        for chunk in folded.rows.chunks(MAX_ROWS_PER_STATEMENT) {
            self.insert_rows(chunk).await?;
        }
        self.write_leases(&folded.leases).await?;
        self.write_remaining(&folded.remaining).await?;
        self.write_alarms(&folded.alarms).await?;
        for member in folded.members.values() {
            sqlx::query("INSERT OR REPLACE INTO members (id, member) VALUES (?, ?)")
                .bind(signed(member.id))
                .bind(member.encode_to_vec())
                .execute(&mut self.connection)
                .await
                .map_err(self.failed("writing a member"))?;
        }
        let failed = self.failed("writing v2 nodes");
        folded
            .v2
            .write(&mut self.connection)
            .await
            .map_err(failed)?;
        self.auth_rows(&folded.auth).await?;
        for chunk in doomed.chunks(MAX_ROWS_PER_STATEMENT) {
            self.delete("DELETE FROM revisions WHERE id IN ", chunk)
                .await?;
        }
        self.write_progress(progress).await?;
        self.run("COMMIT", "committing").await
    }

    async fn insert_rows(&mut self, rows: &[Arc<RevisionRow>]) -> DbResult<()> {
        let sql = self.insert_rows.sql(rows.len());
        let mut query = sqlx::query_with(sql, SqliteArguments::default());
        for row in rows {
            query = query
                .bind(row.main)
                .bind(row.sub)
                .bind(row.create_revision)
                .bind(row.version)
                .bind(row.lease)
                .bind(i64::from(row.tombstone))
                .bind(row.key.to_vec())
                .bind(row.value.to_vec());
        }
        query
            .execute(&mut self.connection)
            .await
            .map_err(self.failed("writing revisions"))?;
        Ok(())
    }

    async fn write_leases(&mut self, leases: &BTreeMap<i64, Option<i64>>) -> DbResult<()> {
        let granted: Vec<(i64, i64)> = leases
            .iter()
            .filter_map(|(id, ttl_s)| ttl_s.map(|ttl_s| (*id, ttl_s)))
            .collect();
        for chunk in granted.chunks(MAX_ROWS_PER_STATEMENT) {
            let sql = self.insert_leases.sql(chunk.len());
            let mut query = sqlx::query_with(sql, SqliteArguments::default());
            for (id, ttl_s) in chunk {
                query = query.bind(*id).bind(*ttl_s);
            }
            query
                .execute(&mut self.connection)
                .await
                .map_err(self.failed("writing leases"))?;
        }
        let deleted: Vec<i64> = leases
            .iter()
            .filter_map(|(id, ttl_s)| ttl_s.is_none().then_some(*id))
            .collect();
        for chunk in deleted.chunks(MAX_ROWS_PER_STATEMENT) {
            self.delete("DELETE FROM leases WHERE id IN ", chunk)
                .await?;
        }
        Ok(())
    }

    async fn write_remaining(&mut self, remaining: &BTreeMap<i64, i64>) -> DbResult<()> {
        for (id, remaining_s) in remaining {
            sqlx::query("UPDATE leases SET remaining_s = ? WHERE id = ?")
                .bind(*remaining_s)
                .bind(*id)
                .execute(&mut self.connection)
                .await
                .map_err(self.failed("writing what is left of a lease"))?;
        }
        Ok(())
    }

    async fn write_alarms(&mut self, alarms: &BTreeMap<Alarm, bool>) -> DbResult<()> {
        for (alarm, is_raised) in alarms {
            let sql = if *is_raised {
                "INSERT OR IGNORE INTO alarms (kind, member_id) VALUES (?, ?)"
            } else {
                "DELETE FROM alarms WHERE kind = ? AND member_id = ?"
            };
            sqlx::query(sql)
                .bind(i64::from(alarm.kind))
                .bind(signed(alarm.member_id))
                .execute(&mut self.connection)
                .await
                .map_err(self.failed("writing an alarm"))?;
        }
        Ok(())
    }

    async fn auth_rows(&mut self, auth: &FoldedAuth) -> DbResult<()> {
        let path = Arc::clone(&self.path);
        auth.write(&mut self.connection)
            .await
            .map_err(|source| StorageError::Sqlite {
                path: path.to_path_buf(),
                action: "writing users and roles",
                source,
            })
    }

    async fn delete(&mut self, head: &'static str, ids: &[i64]) -> DbResult<()> {
        let sql = format!("{head}{}", placeholders(ids.len()));
        let mut query = sqlx::query_with(AssertSqlSafe(sql), SqliteArguments::default());
        for id in ids {
            query = query.bind(*id);
        }
        query
            .execute(&mut self.connection)
            .await
            .map_err(self.failed("deleting rows"))?;
        Ok(())
    }

    async fn write_progress(&mut self, progress: &Progress) -> DbResult<()> {
        let id =
            |id: Option<EntryId>| (id.map(|id| signed(id.term)), id.map(|id| signed(id.index)));
        let (applied_term, applied_index) = id(progress.applied);
        let (membership_term, membership_index) = id(progress.membership_at);
        sqlx::query(
            "UPDATE progress SET revision = ?, compacted = ?, purged = ?, applied_term = ?,
                applied_index = ?, membership_term = ?, membership_index = ?, membership = ?
                WHERE id = 1",
        )
        .bind(progress.revision)
        .bind(progress.compacted)
        .bind(progress.purged)
        .bind(applied_term)
        .bind(applied_index)
        .bind(membership_term)
        .bind(membership_index)
        .bind(progress.membership.as_ref().map(|m| m.to_vec()))
        .execute(&mut self.connection)
        .await
        .map_err(self.failed("writing the progress"))?;
        Ok(())
    }

    /// A live key of an imported state may name a lease that is gone: etcd lets it be, and so it
    /// never ends. Older revisions keep what they say.
    pub(super) async fn detach_unknown_leases(&mut self) -> DbResult<()> {
        self.run(
            "UPDATE revisions SET lease = 0
                WHERE lease != 0 AND lease NOT IN (SELECT id FROM leases)
                AND id IN (SELECT MAX(id) FROM revisions GROUP BY key)",
            "detaching keys from leases that are gone",
        )
        .await
    }

    /// Forgets the members of the cluster that this state comes from, and stands where the progress
    /// says in the log of another one.
    pub(super) async fn start_over(&mut self, progress: &Progress) -> DbResult<()> {
        self.run("BEGIN IMMEDIATE", "beginning a transaction")
            .await?;
        self.run("DELETE FROM members", "removing members").await?;
        self.write_progress(progress).await?;
        self.run("COMMIT", "committing").await?;
        self.make_durable().await
    }

    /// Brings everything committed so far through a power cut: SQLite syncs the log, copies it into
    /// the database and syncs that. When a reader is in the way, the log alone is synced.
    pub(super) async fn make_durable(&mut self) -> DbResult<()> {
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_one(&mut self.connection)
            .await
            .map_err(self.failed("checkpointing the state"))?;
        let busy: i64 = row
            .try_get(0)
            .map_err(self.failed("checkpointing the state"))?;
        if busy != 0 {
            let mut wal = self.path.as_os_str().to_owned();
            wal.push("-wal");
            // Only the -wal file may be opened and closed beside SQLite: it carries no locks.
            std::fs::File::open(&wal)
                .and_then(|file| file.sync_all())
                .map_err(|source| StorageError::File {
                    path: wal.into(),
                    action: "syncing",
                    source,
                })?;
        }
        Ok(())
    }

    pub(super) async fn sizes(&mut self) -> DbResult<StateSizes> {
        let failed = self.failed("measuring the state");
        let row = sqlx::query(
            "SELECT page_count * page_size, freelist_count * page_size,
                (SELECT 1 + COUNT(*) FROM sqlite_schema WHERE rootpage > 0) * page_size
                FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        )
        .fetch_one(&mut self.connection)
        .await;
        let sizes = row.and_then(|row| {
            let (pages, free, roots): (i64, i64, i64) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(StateSizes {
                database_bytes: pages,
                in_use_bytes: pages - free,
                data_bytes: (pages - roots).max(0),
            })
        });
        sizes.map_err(failed)
    }

    /// Rewrites the database without its free pages. SQLite does that in one transaction: after a
    /// crash the file is as before or as afterwards.
    pub(super) async fn vacuum(&mut self) -> DbResult<()> {
        self.run("VACUUM", "making the state smaller").await?;
        self.make_durable().await
    }

    pub(super) async fn close(self) -> DbResult<()> {
        let failed = self.failed("closing the state");
        self.connection.close().await.map_err(failed)
    }
}

/// Writes a compact copy of the database beside its owner, who goes on writing meanwhile: a reader
/// of the write-ahead log sees the state of one moment for as long as it takes.
pub(super) async fn copy(path: &Path, target: &Path) -> DbResult<()> {
    let Some(name) = target.to_str() else {
        return Err(StorageError::File {
            path: target.to_owned(),
            action: "copying the state into",
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8"),
        });
    };
    let mut reader = sqlite::open_reader(path).await?;
    let copied = sqlx::query("VACUUM INTO ?")
        .bind(name.to_owned())
        .execute(&mut reader)
        .await;
    if let Err(error) = reader.close().await {
        tracing::debug!(%error, "closing the reader of a copy");
    }
    copied.map_err(|source| StorageError::Sqlite {
        path: path.to_owned(),
        action: "copying the state",
        source,
    })?;
    Ok(())
}
