//! A new cluster from a snapshot file: every member restores the same file with the same list of
//! members, and they start as if they had agreed on its contents in their first entry.

use std::path::{Path, PathBuf};

use openraft::Membership;

use super::bootstrap;
use super::config::{ClusterState, InitialMember, NodeConfig, Reconfiguration};
use super::error::StartError;
use super::types::encode_membership;
use crate::storage::{self, DataFolder, LoadedState, RestoredAs, StorageError};

/// The member to make, in etcd's flags.
#[derive(Debug, Clone)]
pub struct RestoredMember {
    pub data_dir: PathBuf,
    /// `--name`
    pub name: String,
    /// `--initial-advertise-peer-urls`
    pub peer_urls: Vec<String>,
    /// `--initial-cluster`
    pub initial_cluster: Vec<InitialMember>,
    /// `--initial-cluster-token`
    pub cluster_token: String,
    /// `--bump-revision`, 0 without `--mark-compacted`
    pub revision_bump: i64,
}

/// Makes the data folder of one member. It must not exist, or be empty.
pub async fn restore_member(
    snapshot: &Path,
    must_be_verified: bool,
    member: &RestoredMember,
) -> Result<LoadedState, StartError> {
    let config = NodeConfig {
        data_dir: member.data_dir.clone(),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: Vec::new(),
        cluster_token: member.cluster_token.clone(),
        initial_cluster: member.initial_cluster.clone(),
        cluster_state: ClusterState::New,
        force_new_cluster: false,
        // The rest is about running, and nothing runs here.
        reconfiguration: Reconfiguration {
            is_strict: true,
            max_learners: 1,
        },
        heartbeat_ms: 100,
        election_ms: 1_000,
        snapshot_count: 1,
        catchup_entries: 0,
        max_request_bytes: 0,
    };
    bootstrap::check_flags(&config)?;
    refuse_used(&member.data_dir)?;
    // Read first: a file that cannot be used leaves no folder behind.
    storage::inspect_snapshot(snapshot, must_be_verified).await?;
    let voters = bootstrap::initial_voters(&config);
    let first_voter = voters.keys().next().copied();
    let voted_for = first_voter.unwrap_or_default();
    let ids = voters.keys().copied().collect();
    let membership = Membership::new(vec![ids], voters)
        .map_err(|error| StartError::Bootstrap(error.to_string()))?;
    let folder = DataFolder::open(&member.data_dir)?;
    let restored_as = RestoredAs {
        identity: bootstrap::founding_identity(&config),
        voted_for,
        membership: encode_membership(&membership),
        revision_bump: member.revision_bump,
    };
    let restored = storage::restore_snapshot(snapshot, must_be_verified, &folder, restored_as);
    match restored.await {
        Ok(loaded) => Ok(loaded),
        Err(error) => {
            drop(folder);
            give_up(&member.data_dir);
            Err(error.into())
        }
    }
}

/// A folder that was given up half way starts no member, and is in the way of the next attempt.
fn give_up(data_dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(data_dir) {
        tracing::warn!(
            folder = %data_dir.display(),
            %error,
            "what was restored so far could not be removed; remove it before the next attempt"
        );
    }
}

fn refuse_used(data_dir: &Path) -> Result<(), StartError> {
    match std::fs::read_dir(data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StartError::Storage(StorageError::Unwritable {
            path: data_dir.to_owned(),
            source,
        })),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(StartError::Bootstrap(format!(
                "data folder {} is not empty; nothing was changed; a snapshot is restored into a \
                 new folder",
                data_dir.display()
            ))),
        },
    }
}
