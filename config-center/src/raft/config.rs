//! What a member is started with, and openraft's settings that follow from it.

use std::path::PathBuf;

use openraft::{Config, SnapshotPolicy};

use super::error::StartError;

/// Entries purged together.
const PURGE_BATCH: u64 = 1_000;

/// Entries sent to a peer at once; their bytes are limited by the log's reader.
const MAX_ENTRIES_PER_MESSAGE: u64 = 512;

/// A snapshot of a few gigabytes must get through in this time.
const SNAPSHOT_TIMEOUT_MS: u64 = 600_000;

/// A peer that comes back is noticed soon; one that is dead costs little.
const BACKOFF: &str = "50ms 100ms 200ms ...500ms";

/// etcd's time for a request, to which two elections are added.
pub(super) const REQUEST_TIMEOUT_MS: u64 = 5_000;

/// What a member needs to start.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub data_dir: PathBuf,
    /// `--name`
    pub name: String,
    /// `--initial-advertise-peer-urls`
    pub peer_urls: Vec<String>,
    /// `--advertise-client-urls`
    pub client_urls: Vec<String>,
    /// `--initial-cluster-token`; with the peer urls it decides the ids of a fresh data folder.
    pub cluster_token: String,
    /// `--initial-cluster`; empty means this member alone.
    pub initial_cluster: Vec<InitialMember>,
    /// `--initial-cluster-state`
    pub cluster_state: ClusterState,
    /// `--force-new-cluster`
    pub force_new_cluster: bool,
    pub reconfiguration: Reconfiguration,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    /// `--snapshot-count`
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`: kept behind a snapshot, so that a member that was away for a
    /// while needs none.
    pub catchup_entries: u64,
    /// `--max-request-bytes`: the largest encoded command.
    pub max_request_bytes: usize,
}

/// What a change of membership must respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconfiguration {
    /// `--strict-reconfig-check`: refuse what would endanger the majority.
    pub is_strict: bool,
    /// `--max-learners`
    pub max_learners: usize,
}

impl Default for Reconfiguration {
    fn default() -> Self {
        Self {
            is_strict: true,
            max_learners: 1,
        }
    }
}

/// One name of `--initial-cluster` with all its urls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    pub name: String,
    pub peer_urls: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    New,
    Existing,
}

pub(super) fn raft_config(config: &NodeConfig) -> Result<Config, StartError> {
    Config {
        cluster_name: config.cluster_token.clone(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: config.election_ms,
        election_timeout_max: 2 * config.election_ms,
        enable_pre_vote: Some(true),
        // The state lags behind the log on disk, so a leader that returns must be elected again.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_count.max(1)),
        max_in_snapshot_log_to_keep: config.catchup_entries,
        purge_batch_size: PURGE_BATCH.min(config.catchup_entries.max(1)),
        replication_lag_threshold: config.catchup_entries + config.snapshot_count.max(1),
        max_payload_entries: MAX_ENTRIES_PER_MESSAGE,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        backoff: BACKOFF.to_owned(),
        ..Config::default()
    }
    .validate()
    .map_err(|error| StartError::Settings(error.to_string()))
}
