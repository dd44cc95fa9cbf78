//! How a database is opened: pragmas, the format check, and the text of multi-row statements.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use super::error::StorageError;

/// One of our databases: what it is called inside, and how its tables are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    /// Written into the `format` table, so that one database is never taken for the other.
    pub kind: &'static str,
    /// Format 1. Never edited: a new database is made by the same steps as an old one is upgraded.
    pub create: &'static str,
    /// `upgrades[n]` turns format n + 1 into format n + 2. Never edited once released.
    pub upgrades: &'static [&'static str],
}

impl Schema {
    /// The format that is written today.
    fn version(&self) -> i64 {
        self.upgrades.len() as i64 + 1
    }
}

/// A reader holds its view for the length of one statement; only an outside tool makes us wait.
const BUSY_TIMEOUT_MS: u64 = 5_000;

/// Rows that a reader's thread may be ahead of whoever takes them: with few, both spend their time
/// on waking each other.
const READ_AHEAD_ROWS: usize = 1024;

/// Every row count up to the largest one has a prepared statement of its own.
pub(super) const MAX_ROWS_PER_STATEMENT: usize = 128;

/// Opens the database for its owner, creating it when there is none. A file of another format or
/// another program is refused before anything is written to it.
pub(super) async fn open_writer(
    path: &Path,
    schema: Schema,
    synchronous: SqliteSynchronous,
) -> Result<SqliteConnection, StorageError> {
    let failed = |action| {
        move |source| StorageError::Sqlite {
            path: path.to_owned(),
            action,
            source,
        }
    };
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .synchronous(synchronous)
        .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
        .statement_cache_capacity(2 * MAX_ROWS_PER_STATEMENT + 32)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|source| opening_failed(path, source))?;
    let found = check_format(&mut connection, path, schema).await?;
    // The WAL is cut back to this size after a checkpoint that emptied it.
    sqlx::raw_sql("PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 67108864")
        .execute(&mut connection)
        .await
        .map_err(failed("switching to the write-ahead log"))?;
    if found < schema.version() {
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed("creating the tables"))?;
        create_or_upgrade(&mut transaction, schema, found)
            .await
            .map_err(failed("creating the tables"))?;
        transaction
            .commit()
            .await
            .map_err(failed("creating the tables"))?;
    }
    Ok(connection)
}

/// Brings a database from the found format (0: none) to today's.
async fn create_or_upgrade(
    connection: &mut SqliteConnection,
    schema: Schema,
    found: i64,
) -> Result<(), sqlx::Error> {
    if found == 0 {
        sqlx::raw_sql("CREATE TABLE format (kind TEXT NOT NULL, version INTEGER NOT NULL) STRICT")
            .execute(&mut *connection)
            .await?;
        sqlx::query("INSERT INTO format (kind, version) VALUES (?, 1)")
            .bind(schema.kind)
            .execute(&mut *connection)
            .await?;
        sqlx::raw_sql(schema.create)
            .execute(&mut *connection)
            .await?;
    }
    let done = usize::try_from(found - 1).unwrap_or(0);
    for upgrade in &schema.upgrades[done..] {
        sqlx::raw_sql(*upgrade).execute(&mut *connection).await?;
    }
    sqlx::query("UPDATE format SET version = ?")
        .bind(schema.version())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// A second connection that only reads; it never makes the owner wait.
pub(super) async fn open_reader(path: &Path) -> Result<SqliteConnection, StorageError> {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .row_buffer_size(READ_AHEAD_ROWS)
        .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|source| opening_failed(path, source))
}

fn opening_failed(path: &Path, source: sqlx::Error) -> StorageError {
    // SQLite reports a missing permission, a full disk and a foreign file by its result code.
    let code = match &source {
        sqlx::Error::Database(database) => database.code().map(|code| code.into_owned()),
        _ => None,
    };
    match code.as_deref() {
        Some("26") => StorageError::Foreign {
            path: path.to_owned(),
        },
        _ => StorageError::Sqlite {
            path: path.to_owned(),
            action: "opening the database",
            source,
        },
    }
}

/// The format of the file; 0 when it has no tables yet.
async fn check_format(
    connection: &mut SqliteConnection,
    path: &Path,
    schema: Schema,
) -> Result<i64, StorageError> {
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema")
        .fetch_all(&mut *connection)
        .await
        .map_err(|source| opening_failed(path, source))?;
    if tables.is_empty() {
        return Ok(0);
    }
    let foreign = || StorageError::Foreign {
        path: path.to_owned(),
    };
    if !tables.iter().any(|name| name == "format") {
        return Err(foreign());
    }
    let row = sqlx::query("SELECT kind, version FROM format")
        .fetch_one(&mut *connection)
        .await
        .map_err(|_| foreign())?;
    let kind: String = row.try_get(0).map_err(|_| foreign())?;
    let found: i64 = row.try_get(1).map_err(|_| foreign())?;
    if kind != schema.kind {
        return Err(foreign());
    }
    if !(1..=schema.version()).contains(&found) {
        return Err(StorageError::UnknownFormat {
            path: path.to_owned(),
            found,
            known: schema.version(),
        });
    }
    Ok(found)
}

/// `INSERT INTO … VALUES (?, …), …` for every row count; each text is made once and then shared, so
/// that the statement cache of the connection finds it again.
#[derive(Debug)]
pub(super) struct MultiInsert {
    head: &'static str,
    columns: usize,
    texts: Vec<Option<Arc<str>>>,
}

impl MultiInsert {
    pub(super) fn new(head: &'static str, columns: usize) -> Self {
        Self {
            head,
            columns,
            texts: vec![None; MAX_ROWS_PER_STATEMENT + 1],
        }
    }

    /// `rows` is 1 to [`MAX_ROWS_PER_STATEMENT`].
    pub(super) fn sql(&mut self, rows: usize) -> AssertSqlSafe<Arc<str>> {
        let (head, columns) = (self.head, self.columns);
        let text = self.texts[rows].get_or_insert_with(|| {
            let mut text = String::with_capacity(head.len() + rows * (2 * columns + 2));
            text.push_str(head);
            for row in 0..rows {
                text.push_str(if row == 0 { " VALUES (" } else { ",(" });
                for column in 0..columns {
                    text.push_str(if column == 0 { "?" } else { ",?" });
                }
                text.push(')');
            }
            text.into()
        });
        AssertSqlSafe(Arc::clone(text))
    }
}

/// `(?, ?, …)` with a fixed number of values, for `IN`.
pub(super) fn placeholders(count: usize) -> String {
    let mut text = String::with_capacity(2 * count + 1);
    for n in 0..count {
        let separator = if n == 0 { '(' } else { ',' };
        // Writing to a String cannot fail.
        write!(text, "{separator}?").unwrap_or_default();
    }
    text.push(')');
    text
}

/// SQLite knows signed integers only. Node ids use all 64 bits; terms and indexes never reach 2^63.
pub(super) fn signed(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}
