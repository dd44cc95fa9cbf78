//! The members of the store and its snapshots. Status and `snapshot save` go through the etcd API;
//! looking into a saved file needs no store, and a restored one is config-center's.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use schemas::etcdserverpb::StatusResponse;
use serde::Serialize;

use super::Context;
use super::exit::{Exit, Failure};
use super::flags::{Cluster, Restore, Snapshot};
use super::output::Output;
use super::table::{Cell, Paint, Table};
use crate::flags::{self, Invocation};
use crate::raft::{self, RestoredMember};
use crate::storage;

pub(super) async fn run(context: &Context, command: &Cluster) -> Result<Exit, Failure> {
    match command {
        Cluster::Status => status(context).await,
        Cluster::Snapshot(Snapshot::Save { file }) => save(context, file).await,
        Cluster::Snapshot(snapshot) => offline(context.out, snapshot).await,
    }
}

/// What needs a file and no store.
pub(super) async fn offline(out: Output, command: &Snapshot) -> Result<Exit, Failure> {
    match command {
        Snapshot::Status { file, check } => {
            let saved = storage::inspect_snapshot(file, !check.skip_hash_check)
                .await
                .map_err(|error| Failure::invalid(error.to_string()))?;
            show_contents(
                out,
                &Contents {
                    hash: format!("{:08x}", saved.hash),
                    revision: saved.revision,
                    total_keys: saved.total_keys,
                    total_size: saved.bytes,
                    version: saved.version,
                    verified: saved.is_verified,
                },
            )
        }
        Snapshot::Restore(restore) => restore_member(out, restore).await,
        Snapshot::Save { .. } => Ok(Exit::Usage),
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    hash: String,
    revision: i64,
    total_keys: usize,
    total_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    verified: bool,
}

fn show_contents(out: Output, contents: &Contents) -> Result<Exit, Failure> {
    if out.is_prose() {
        let mut table = Table::new(["HASH", "REVISION", "KEYS", "BYTES"]);
        table.row([
            Cell::from(contents.hash.as_str()),
            Cell::from(contents.revision.to_string()),
            Cell::from(contents.total_keys.to_string()),
            Cell::from(contents.total_size.to_string()),
        ]);
        out.table(&table)?;
    } else {
        out.document(contents)?;
    }
    Ok(Exit::Done)
}

async fn restore_member(out: Output, restore: &Restore) -> Result<Exit, Failure> {
    // The server's own reading of these flags: what is accepted here is accepted at its start.
    let line = [
        ("name", &restore.name),
        ("initial-cluster", &restore.initial_cluster),
        (
            "initial-advertise-peer-urls",
            &restore.initial_advertise_peer_urls,
        ),
        ("initial-cluster-token", &restore.initial_cluster_token),
    ]
    .map(|(flag, value)| format!("--{flag}={value}"));
    let settings = match flags::parse(line, []) {
        Ok(Invocation::Serve(settings)) => settings,
        Ok(_) => return Ok(Exit::Usage),
        Err(error) => return Err(Failure::new(Exit::Usage, error.to_string())),
    };
    let data_dir = match &restore.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => PathBuf::from(format!("{}.etcd", restore.name)),
    };
    let member = RestoredMember {
        data_dir: data_dir.clone(),
        name: settings.name.clone(),
        peer_urls: settings.advertise_peer_urls.clone(),
        initial_cluster: settings.initial_cluster.clone(),
        cluster_token: settings.cluster_token.clone(),
        revision_bump: restore.bump_revision.unwrap_or_default(),
    };
    let restored = raft::restore_member(&restore.file, !restore.check.skip_hash_check, &member)
        .await
        .map_err(|error| Failure::invalid(error.to_string()))?;
    out.line(&format!(
        "restored revision {} with {} keys into {}",
        restored.state.revision(),
        restored.state.live_keys(),
        data_dir.display()
    ))?;
    Ok(Exit::Done)
}

async fn save(context: &Context, file: &Path) -> Result<Exit, Failure> {
    let cannot = |what: &str, error: std::io::Error| {
        Failure::new(Exit::LocalIo, format!("cannot {what}: {error}"))
    };
    // Under another name until it is whole and on disk: a cut-off file must not look like a
    // snapshot.
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let mut saved = File::create(&part).map_err(|error| cannot("create the snapshot", error))?;
    let mut pieces = context.client.snapshot().await?;
    let mut bytes = 0;
    loop {
        match pieces.next().await {
            Ok(Some(piece)) => {
                bytes += piece.blob.len();
                saved
                    .write_all(&piece.blob)
                    .map_err(|error| cannot("write the snapshot", error))?;
            }
            Ok(None) => break,
            Err(error) => {
                drop(saved);
                fs::remove_file(&part).map_err(|error| cannot("remove what was saved", error))?;
                return Err(error.into());
            }
        }
    }
    saved
        .sync_all()
        .and_then(|()| fs::rename(&part, file))
        .map_err(|error| cannot("keep the snapshot", error))?;
    context
        .out
        .line(&format!("saved {bytes} bytes to {}", file.display()))?;
    Ok(Exit::Done)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberStatus {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    version: String,
    db_size: i64,
    db_size_in_use: i64,
    db_size_quota: i64,
    is_leader: bool,
    is_learner: bool,
    raft_term: u64,
    raft_index: u64,
    raft_applied_index: u64,
    errors: Vec<String>,
}

impl MemberStatus {
    fn of(endpoint: String, status: StatusResponse) -> Self {
        let id = status.header.map(|header| header.member_id);
        Self {
            endpoint,
            is_leader: id == Some(status.leader),
            id: id.map(|id| format!("{id:x}")),
            version: status.version,
            db_size: status.db_size,
            db_size_in_use: status.db_size_in_use,
            db_size_quota: status.db_size_quota,
            is_learner: status.is_learner,
            raft_term: status.raft_term,
            raft_index: status.raft_index,
            raft_applied_index: status.raft_applied_index,
            errors: status.errors,
        }
    }

    fn unreachable(endpoint: String, why: String) -> Self {
        let mut status = Self::of(endpoint, StatusResponse::default());
        status.is_leader = false;
        status.errors.push(why);
        status
    }
}

/// Every endpoint for itself: one that does not answer is a line of the result.
async fn status(context: &Context) -> Result<Exit, Failure> {
    let mut members = Vec::new();
    for endpoint in context.client.endpoints() {
        members.push(match context.client.status(&endpoint).await {
            Ok(status) => MemberStatus::of(endpoint, status),
            Err(error) => MemberStatus::unreachable(endpoint, error.to_string()),
        });
    }
    if context.out.is_prose() {
        let mut table = Table::new(["ENDPOINT", "ID", "ROLE", "TERM", "APPLIED", "DB", "ERRORS"]);
        for member in &members {
            let role = match member {
                MemberStatus { id: None, .. } => Cell::painted("unreachable", Paint::Bad),
                MemberStatus {
                    is_leader: true, ..
                } => Cell::painted("leader", Paint::Good),
                MemberStatus {
                    is_learner: true, ..
                } => Cell::from("learner"),
                _ => Cell::from("follower"),
            };
            table.row([
                Cell::from(member.endpoint.as_str()),
                Cell::from(member.id.clone().unwrap_or_default()),
                role,
                Cell::from(member.raft_term.to_string()),
                Cell::from(member.raft_applied_index.to_string()),
                Cell::from(member.db_size.to_string()),
                Cell::painted(member.errors.join("; "), Paint::Bad),
            ]);
        }
        context.out.table(&table)?;
    } else {
        context.out.document(&members)?;
    }
    let is_healthy = members.iter().all(|member| member.errors.is_empty());
    Ok(if is_healthy {
        Exit::Done
    } else {
        Exit::AnsweredNo
    })
}
