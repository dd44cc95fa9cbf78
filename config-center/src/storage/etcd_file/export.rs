//! Writes the rows of a `state.db` into a file of etcd's format, beside the owner, who goes on
//! writing: a reader of the write-ahead log sees the state of one moment for as long as it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use futures::TryStreamExt as _;
use prost::Message as _;
use schemas::command::StoredMembership;
use schemas::etcdserverpb::{AlarmMember, Member};
use schemas::mvccpb::KeyValue;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::schema::{self, ConfState, StoredLease, StoredMember};
use crate::bolt::FileWriter;
use crate::storage::error::StorageError;
use crate::storage::sqlite;
use crate::storage::sqlite::unsigned;
use crate::storage::state_db::Progress;
use crate::storage::state_load::read_progress;

/// Pages are written one by one; this many of them reach the disk together.
const BUFFER_BYTES: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    File(#[from] io::Error),
}

type Result<T> = std::result::Result<T, Fault>;
type Writer = FileWriter<BufWriter<File>>;

/// Makes the file; it must not exist. `storage_version` is the release of etcd whose format it is.
/// Blocks while it writes: not for a thread of the runtime.
pub(in crate::storage) async fn export(
    path: &Path,
    target: &Path,
    storage_version: &str,
) -> std::result::Result<(), StorageError> {
    let mut reader = sqlite::open_reader(path).await?;
    let exported = write_file(&mut reader, target, storage_version).await;
    if let Err(error) = reader.close().await {
        tracing::debug!(%error, "closing the reader of an export");
    }
    exported.map_err(|fault| match fault {
        Fault::Sql(source) => StorageError::Sqlite {
            path: path.to_owned(),
            action: "exporting the state",
            source,
        },
        Fault::File(source) => StorageError::File {
            path: target.to_owned(),
            action: "exporting the state into",
            source,
        },
    })
}

async fn write_file(db: &mut SqliteConnection, target: &Path, storage_version: &str) -> Result<()> {
    // All that follows reads the same state.
    sqlx::query("BEGIN").execute(&mut *db).await?;
    let progress = read_progress(&mut *db).await?;
    let file = File::create_new(target)?;
    let mut out = FileWriter::new(BufWriter::with_capacity(BUFFER_BYTES, file))?;
    alarms(&mut *db, &mut out).await?;
    auth(&mut *db, &mut out).await?;
    put_all(&mut out, schema::CLUSTER, BTreeMap::new())?;
    v2(&mut *db, &mut out).await?;
    keys(&mut *db, &mut out, progress.revision).await?;
    leases(&mut *db, &mut out).await?;
    let voters = members(&mut *db, &mut out, &progress).await?;
    meta(&mut out, &progress, &voters, storage_version)?;
    out.finish()?;
    sqlx::query("ROLLBACK").execute(db).await?;
    Ok(())
}

/// For the buckets that the running store holds in memory as well.
fn put_all(out: &mut Writer, name: &str, pairs: BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
    let mut bucket = out.bucket(name);
    for (key, value) in pairs {
        bucket.put(&key, &value)?;
    }
    Ok(bucket.finish()?)
}

async fn alarms(db: &mut SqliteConnection, out: &mut Writer) -> Result<()> {
    let rows = sqlx::query("SELECT kind, member_id FROM alarms")
        .fetch_all(db)
        .await?;
    let mut pairs = BTreeMap::new();
    for row in rows {
        let alarm = AlarmMember {
            member_id: unsigned(row.try_get(1)?),
            alarm: row.try_get(0)?,
        };
        pairs.insert(alarm.encode_to_vec(), Vec::new());
    }
    put_all(out, schema::ALARM, pairs)
}

async fn auth(db: &mut SqliteConnection, out: &mut Writer) -> Result<()> {
    let row = sqlx::query("SELECT enabled, revision FROM auth_status WHERE id = 1")
        .fetch_one(&mut *db)
        .await?;
    let is_enabled = row.try_get::<i64, _>(0)? != 0;
    let revision: i64 = row.try_get(1)?;
    let status = BTreeMap::from([
        (schema::AUTH_ENABLED.to_vec(), vec![u8::from(is_enabled)]),
        (
            schema::AUTH_REVISION.to_vec(),
            revision.to_be_bytes().to_vec(),
        ),
    ]);
    put_all(out, schema::AUTH, status)?;
    for (bucket, sql) in [
        (schema::AUTH_ROLES, "SELECT name, role FROM auth_roles"),
        (schema::AUTH_USERS, "SELECT name, user FROM auth_users"),
    ] {
        let rows = sqlx::query(sql).fetch_all(&mut *db).await?;
        let mut pairs = BTreeMap::new();
        for row in rows {
            let name: String = row.try_get(0)?;
            pairs.insert(name.into_bytes(), row.try_get(1)?);
        }
        put_all(out, bucket, pairs)?;
    }
    Ok(())
}

async fn v2(db: &mut SqliteConnection, out: &mut Writer) -> Result<()> {
    let nodes: Vec<Vec<u8>> = sqlx::query_scalar("SELECT node FROM v2_nodes ORDER BY path")
        .fetch_all(&mut *db)
        .await?;
    let events = sqlx::query("SELECT event_index, event FROM v2_events")
        .fetch_all(db)
        .await?;
    let key = |kind: u8, number: u64| [&[kind][..], &number.to_be_bytes()].concat();
    let mut pairs: BTreeMap<Vec<u8>, Vec<u8>> = (0..)
        .zip(nodes)
        .map(|(number, node)| (key(b'n', number), node))
        .collect();
    for row in events {
        pairs.insert(key(b'e', unsigned(row.try_get(0)?)), row.try_get(1)?);
    }
    if pairs.is_empty() {
        return Ok(());
    }
    put_all(out, schema::V2, pairs)
}

/// The one bucket of any size: row by row, in the order in which they lie there.
async fn keys(db: &mut SqliteConnection, out: &mut Writer, revision: i64) -> Result<()> {
    let mut bucket = out.bucket(schema::KEY);
    let mut last_main = 1;
    let mut value = Vec::new();
    let mut rows = sqlx::query(
        "SELECT main, sub, create_revision, version, lease, tombstone, key, value
            FROM revisions ORDER BY id",
    )
    .fetch(db);
    while let Some(row) = rows.try_next().await? {
        let (main, sub) = (row.try_get(0)?, row.try_get(1)?);
        let is_tombstone = row.try_get::<i64, _>(5)? != 0;
        let mut pair = KeyValue {
            key: row.try_get::<Vec<u8>, _>(6)?.into(),
            ..KeyValue::default()
        };
        // The key alone is all that etcd keeps of a deletion.
        if !is_tombstone {
            pair.create_revision = row.try_get(2)?;
            pair.mod_revision = main;
            pair.version = row.try_get(3)?;
            pair.lease = row.try_get(4)?;
            pair.value = row.try_get::<Vec<u8>, _>(7)?.into();
        }
        value.clear();
        value.reserve(pair.encoded_len());
        pair.encode(&mut value).map_err(io::Error::other)?;
        bucket.put(&schema::revision_key(main, sub, is_tombstone), &value)?;
        last_main = main;
    }
    if last_main < revision {
        let pair = KeyValue {
            key: schema::REVISION_ONLY.into(),
            ..KeyValue::default()
        };
        let key = schema::revision_key(revision, 0, true);
        bucket.put(&key, &pair.encode_to_vec())?;
    }
    Ok(bucket.finish()?)
}

async fn leases(db: &mut SqliteConnection, out: &mut Writer) -> Result<()> {
    let rows = sqlx::query("SELECT id, ttl_s, remaining_s FROM leases")
        .fetch_all(db)
        .await?;
    let mut pairs = BTreeMap::new();
    for row in rows {
        let lease = StoredLease {
            id: row.try_get(0)?,
            ttl_s: row.try_get(1)?,
            remaining_s: row.try_get(2)?,
        };
        pairs.insert(lease.id.to_be_bytes().to_vec(), lease.encode_to_vec());
    }
    put_all(out, schema::LEASE, pairs)
}

/// What the members have published, and those of the membership that have not started yet.
async fn members(
    db: &mut SqliteConnection,
    out: &mut Writer,
    progress: &Progress,
) -> Result<ConfState> {
    let membership = progress.membership.clone().unwrap_or_default();
    let membership = StoredMembership::decode(membership).map_err(io::Error::other)?;
    let (outgoing, voters) = match &membership.configs[..] {
        [] => (&[][..], &[][..]),
        [now] => (&[][..], &now.ids[..]),
        [before, .., next] => (&before.ids[..], &next.ids[..]),
    };
    let voting: BTreeSet<u64> = outgoing.iter().chain(voters).copied().collect();
    let mut present = BTreeMap::new();
    let mut learners = Vec::new();
    for node in membership.nodes {
        let is_learner = !voting.contains(&node.id);
        if is_learner {
            learners.push(node.id);
        }
        let member = StoredMember {
            id: node.id,
            peer_urls: node.peer_urls,
            is_learner,
            name: String::new(),
            client_urls: Vec::new(),
        };
        present.insert(node.id, member);
    }
    let mut removed = BTreeMap::new();
    let rows: Vec<Vec<u8>> = sqlx::query_scalar("SELECT member FROM members")
        .fetch_all(db)
        .await?;
    for row in rows {
        let published = Member::decode(row.as_slice()).map_err(io::Error::other)?;
        match present.get_mut(&published.id) {
            Some(member) => {
                member.name = published.name;
                member.client_urls = published.client_ur_ls;
            }
            None => {
                let key = format!("{:x}", published.id).into_bytes();
                removed.insert(key, b"removed".to_vec());
            }
        }
    }
    let mut pairs = BTreeMap::new();
    for member in present.values() {
        let value = serde_json::to_vec(member).map_err(io::Error::other)?;
        pairs.insert(format!("{:x}", member.id).into_bytes(), value);
    }
    put_all(out, schema::MEMBERS, pairs)?;
    put_all(out, schema::MEMBERS_REMOVED, removed)?;
    Ok(ConfState {
        voters: voters.to_vec(),
        learners,
        voters_outgoing: outgoing.to_vec(),
        auto_leave: !outgoing.is_empty(),
    })
}

fn meta(
    out: &mut Writer,
    progress: &Progress,
    voters: &ConfState,
    storage_version: &str,
) -> Result<()> {
    let mut pairs = BTreeMap::new();
    let conf_state = serde_json::to_vec(voters).map_err(io::Error::other)?;
    pairs.insert(schema::CONF_STATE.to_vec(), conf_state);
    if let Some(applied) = progress.applied {
        for (key, number) in [
            (schema::CONSISTENT_INDEX, applied.index),
            (schema::TERM, applied.term),
        ] {
            pairs.insert(key.to_vec(), number.to_be_bytes().to_vec());
        }
    }
    // etcd resumes a compaction that was begun and has rows to remove left, as we do.
    for (key, revision) in [
        (schema::SCHEDULED_COMPACTION, progress.compacted),
        (schema::FINISHED_COMPACTION, progress.purged),
    ] {
        if revision > 0 {
            pairs.insert(key.to_vec(), schema::revision_key(revision, 0, false));
        }
    }
    let version = storage_version.as_bytes().to_vec();
    pairs.insert(schema::STORAGE_VERSION.to_vec(), version);
    put_all(out, schema::META, pairs)
}
