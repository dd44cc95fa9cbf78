//! One running member: how it starts, what it answers, how it stops.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use config_center_core::{Code, Refusal, Reply};
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Config, Raft, ReadPolicy, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use prost::Message as _;
use schemas::command::command::Op;
use schemas::command::{Command, MemberPublish};
use schemas::etcdserverpb::Member;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::identity;
use super::log_store::LogStore;
use super::network::PeerFactory;
use super::proposer::{Pending, ReplySender};
use super::state_machine::{AppliedMark, StateMachine};
use super::types::{COMMAND_VERSION, Outcome, PeerNode, Proposal, TypeConfig};
use crate::engine::Engine;
use crate::storage::{DataFolder, FailureSlot, Identity, LogHandle, StateHandle, StorageError};

/// Entries kept behind a snapshot, so that a member that was away for a while needs no snapshot.
const LOG_ENTRIES_TO_KEEP: u64 = 20_000;

/// Entries purged together.
const PURGE_BATCH: u64 = 1_000;

/// Entries sent to a peer at once.
const MAX_ENTRIES_PER_MESSAGE: u64 = 512;

/// A snapshot of a few gigabytes must get through in this time.
const SNAPSHOT_TIMEOUT_MS: u64 = 600_000;

/// etcd's time for a request, to which two elections are added.
const REQUEST_TIMEOUT_MS: u64 = 5_000;

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
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    /// `--snapshot-count`
    pub snapshot_count: u64,
    /// `--max-request-bytes`: the largest encoded command.
    pub max_request_bytes: usize,
}

/// A committed and applied command.
#[derive(Debug)]
pub struct Proposed {
    pub reply: Result<Reply, Refusal>,
    /// The store's revision after the command.
    pub revision: i64,
    pub term: u64,
}

/// Why a command was not (or not known to be) committed, in etcd's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// InvalidArgument
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// ResourceExhausted
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// Unavailable; the command may still be committed later.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// Unavailable
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Unavailable; the command may still be committed later.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// Unavailable; the command may have been committed.
    #[error("etcdserver: server stopped")]
    Stopped,
}

impl ProposeError {
    /// The gRPC code by its number on the wire.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::TooLarge => Code::InvalidArgument,
            Self::TooManyRequests => Code::ResourceExhausted,
            Self::Timeout | Self::NoLeader | Self::LeaderChanged | Self::Stopped => {
                Code::Unavailable
            }
        }
    }
}

/// Why a member could not start. Each text is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "raft settings are not possible: {0}; check --heartbeat-interval and --election-timeout"
    )]
    Settings(String),
    #[error("raft could not start on {}: {what}; nothing was changed", data_dir.display())]
    Raft { data_dir: PathBuf, what: String },
}

/// Figures for Maintenance.Status and the metrics; cheap to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStatus {
    /// 0 while there is none.
    pub leader_id: u64,
    pub term: u64,
    /// The last index in the log.
    pub raft_index: u64,
    pub applied_index: u64,
    /// Proposals that wait for their answer.
    pub pending_proposals: usize,
    pub db_size_bytes: i64,
    pub db_size_in_use_bytes: i64,
}

/// One running member.
pub struct Node {
    raft: Raft<TypeConfig, StateMachine>,
    server: WatchReceiverOf<TypeConfig, openraft::metrics::RaftServerMetrics<TypeConfig>>,
    engine: Arc<Engine>,
    mark: Arc<AppliedMark>,
    log: LogHandle,
    state: StateHandle,
    identity: Identity,
    max_request_bytes: usize,
    request_timeout: Duration,
    pending: Arc<Pending>,
    failure: FailureSlot,
    stopping: Arc<AtomicBool>,
    /// Given back when the member has stopped.
    folder: Mutex<Option<DataFolder>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Opens the data folder, replays what the state has not seen, and takes part in consensus. A
    /// member that is its cluster's only voter leads when this returns, unless its disk is slow.
    pub async fn start(config: NodeConfig) -> Result<Arc<Self>, StartError> {
        let raft_config = raft_config(&config)?;
        let folder = DataFolder::open(&config.data_dir)?;
        let failure = FailureSlot::default();
        let (log, recovery) = LogHandle::open(&folder.log_db(), failure.clone()).await?;
        let (state, loaded) = StateHandle::open(&folder, failure.clone()).await?;
        check_pair(&folder, &recovery, &loaded.progress)?;
        let identity = match recovery.identity {
            Some(identity) => identity,
            None => {
                let identity = identity::derive(&config.cluster_token, &config.peer_urls);
                log.save_identity(identity).await?;
                identity
            }
        };
        let failed = |what: String| StartError::Raft {
            data_dir: config.data_dir.clone(),
            what,
        };
        let engine = Arc::new(Engine::new(loaded.state));
        let stopping = Arc::new(AtomicBool::new(false));
        let state_machine = StateMachine::new(
            Arc::clone(&engine),
            state.clone(),
            folder.snapshots(),
            &loaded.progress,
            failure.clone(),
            Arc::clone(&stopping),
        )
        .map_err(|error| failed(error.to_string()))?;
        let mark = state_machine.mark();
        let raft = Raft::new(
            identity.member_id,
            Arc::new(raft_config),
            PeerFactory,
            LogStore::new(log.clone(), &recovery),
            state_machine,
        )
        .await
        .map_err(|error| failed(error.to_string()))?;
        let node = Arc::new(Self {
            server: raft.server_metrics(),
            raft,
            engine,
            mark,
            log,
            state,
            identity,
            max_request_bytes: config.max_request_bytes,
            request_timeout: Duration::from_millis(REQUEST_TIMEOUT_MS + 2 * config.election_ms),
            pending: Arc::default(),
            failure,
            stopping,
            folder: Mutex::new(Some(folder)),
            tasks: Mutex::default(),
        });
        node.follow_leadership();
        node.join(&config).await.map_err(failed)?;
        node.publish_member(&config);
        node.wait_until_recovered(Duration::from_millis(2 * config.election_ms))
            .await;
        Ok(node)
    }

    /// Forms the cluster on a fresh folder. A lone voter that comes back need not wait for an
    /// election timeout: nobody else can lead.
    async fn join(&self, config: &NodeConfig) -> Result<(), String> {
        let is_initialized = self.raft.is_initialized().await;
        if !is_initialized.map_err(|error| error.to_string())? {
            let peer_urls = config.peer_urls.clone();
            let voters = BTreeMap::from([(self.identity.member_id, PeerNode { peer_urls })]);
            self.raft
                .initialize(voters)
                .await
                .map_err(|error| error.to_string())
        } else if self.is_sole_voter() {
            self.raft
                .trigger()
                .elect(false)
                .await
                .map_err(|error| error.to_string())
        } else {
            Ok(())
        }
    }

    /// Replicates a command and answers with what it did. `version` is filled in here.
    pub async fn propose(&self, mut command: Command) -> Result<Proposed, ProposeError> {
        command.version = COMMAND_VERSION;
        let physical_compaction = match &command.op {
            Some(Op::Compaction(request)) if request.physical => Some(request.revision),
            _ => None,
        };
        let encoded = Bytes::from(command.encode_to_vec());
        if encoded.len() > self.max_request_bytes {
            return Err(ProposeError::TooLarge);
        }
        let proposal = Proposal::new(encoded, command);
        let deadline = Instant::now() + self.request_timeout;
        let proposed = tokio::time::timeout_at(deadline, self.write(proposal, deadline))
            .await
            .map_err(|_| ProposeError::Timeout)??;
        if let Some(revision) = physical_compaction
            && proposed.reply.is_ok()
        {
            self.state
                .purged(revision)
                .await
                .map_err(|_| ProposeError::Stopped)?;
        }
        Ok(proposed)
    }

    async fn write(&self, proposal: Proposal, deadline: Instant) -> Result<Proposed, ProposeError> {
        loop {
            let place = self
                .pending
                .admit(proposal.encoded().len())
                .ok_or(ProposeError::TooManyRequests)?;
            let (responder, answered) = ReplySender::<ClientWriteResult<TypeConfig>>::new(place);
            self.raft
                .client_write_ff(proposal.clone(), Some(responder))
                .await
                .map_err(|_| ProposeError::Stopped)?;
            match answered.await {
                Ok(Ok(response)) => {
                    let term = response.log_id.committed_leader_id().term;
                    return match response.data {
                        Outcome::Command { reply, revision } => Ok(Proposed {
                            reply,
                            revision,
                            term,
                        }),
                        // A command is never applied as anything else.
                        Outcome::Nothing => Err(ProposeError::Stopped),
                    };
                }
                // Refused before it was appended, so it may be proposed again.
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => {
                    self.wait_for_leader(deadline).await?;
                }
                Ok(Err(_)) => return Err(ProposeError::LeaderChanged),
                Err(_) if self.is_stopped() => return Err(ProposeError::Stopped),
                Err(_) => return Err(ProposeError::LeaderChanged),
            }
        }
    }

    /// Returns when the engine's state is at least as new as everything that was acknowledged
    /// before the call, and this member is the confirmed leader.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        // A lone voter that has applied an entry of its own term has applied everything that was
        // ever acknowledged: an answer is sent after the command was applied here, and nobody else
        // can commit. So there is nothing to ask.
        if self.leads_alone() {
            return Ok(());
        }
        let deadline = Instant::now() + self.request_timeout;
        tokio::time::timeout_at(deadline, self.linearize(deadline))
            .await
            .map_err(|_| ProposeError::Timeout)?
    }

    /// The core shares one round of heartbeats among all readers that wait for it.
    async fn linearize(&self, deadline: Instant) -> Result<(), ProposeError> {
        loop {
            match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
                Ok(linearizer) => {
                    return linearizer
                        .await_ready(&self.raft)
                        .await
                        .map(|_| ())
                        .map_err(|_| ProposeError::Stopped);
                }
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                    self.wait_for_leader(deadline).await?;
                }
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                    return Err(ProposeError::Timeout);
                }
                Err(RaftError::Fatal(_)) => return Err(ProposeError::Stopped),
            }
        }
    }

    /// Returns when this member leads; `NoLeader` when it does not in time or another one does.
    async fn wait_for_leader(&self, deadline: Instant) -> Result<(), ProposeError> {
        let mut server = self.server.clone();
        loop {
            {
                let now = server.borrow_watched();
                match now.current_leader {
                    Some(leader) if leader != self.identity.member_id => {
                        return Err(ProposeError::NoLeader);
                    }
                    Some(_) if now.state == ServerState::Leader => break,
                    Some(_) | None => {}
                }
            }
            match tokio::time::timeout_at(deadline, server.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(ProposeError::Stopped),
                Err(_) => return Err(ProposeError::NoLeader),
            }
        }
        // The metrics may be a little ahead of the core's queue.
        tokio::task::yield_now().await;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn raft(&self) -> &Raft<TypeConfig, StateMachine> {
        &self.raft
    }

    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let sizes = self.state.sizes();
        let data = self.raft.data_metrics();
        let last_log = data.borrow_watched().last_log;
        let server = self.server.borrow_watched();
        NodeStatus {
            leader_id: server.current_leader.unwrap_or(0),
            term: server.vote.leader_id.term,
            raft_index: last_log.map_or(0, |id| id.index()),
            applied_index: self.mark.index(),
            pending_proposals: self.pending.count(),
            db_size_bytes: sizes.file_bytes,
            db_size_in_use_bytes: sizes.in_use_bytes,
        }
    }

    #[must_use]
    pub fn member_id(&self) -> u64 {
        self.identity.member_id
    }

    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.identity.cluster_id
    }

    /// As far as this member knows; [`Node::read_barrier`] makes sure.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.server.borrow_watched().state == ServerState::Leader
    }

    fn is_sole_voter(&self) -> bool {
        let server = self.server.borrow_watched();
        is_only(
            server.membership_config.get_joint_config(),
            self.identity.member_id,
        )
    }

    /// Leads, nobody else votes, and an entry of the present term has been applied.
    fn leads_alone(&self) -> bool {
        let server = self.server.borrow_watched();
        server.state == ServerState::Leader
            && server.vote.committed
            && server.vote.leader_id.term == self.mark.term()
            && is_only(
                server.membership_config.get_joint_config(),
                self.identity.member_id,
            )
    }

    fn is_stopped(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.failure.get().is_some()
    }

    /// Resolves when the member can no longer serve (a storage failure, an end of consensus); the
    /// text says why. The process must stop then.
    pub async fn failed(&self) -> String {
        self.failure.wait().await.to_string()
    }

    /// Stops consensus and closes the databases. What was acknowledged is on disk in any case.
    pub async fn shutdown(&self) {
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end in an orderly way");
        }
        self.state.close().await;
        self.log.close().await;
        drop(self.folder.lock().take());
    }

    async fn wait_until_recovered(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut server = self.server.clone();
        while !self.leads_alone() && Instant::now() < deadline {
            // The applied mark is not part of these metrics: look again soon in any case.
            let tick = deadline.min(Instant::now() + Duration::from_millis(5));
            if let Ok(Err(_)) = tokio::time::timeout_at(tick, server.changed()).await {
                return;
            }
        }
    }

    /// A new leader gives every lease its full TTL, because it cannot know what is left of it. The
    /// end of the core is a failure unless the member stops.
    fn follow_leadership(&self) {
        let mut server = self.server.clone();
        let raft_metrics = self.raft.metrics();
        let engine = Arc::clone(&self.engine);
        let failure = self.failure.clone();
        let stopping = Arc::clone(&self.stopping);
        let task = tokio::spawn(async move {
            let mut led_in_term = None;
            loop {
                {
                    let now = server.borrow_watched();
                    let term = now.vote.leader_id.term;
                    if now.state != ServerState::Leader {
                        led_in_term = None;
                    } else if led_in_term != Some(term) {
                        led_in_term = Some(term);
                        engine.promote_leases();
                        tracing::info!(term, "this member is the leader");
                    }
                }
                if server.changed().await.is_err() {
                    break;
                }
            }
            if !stopping.load(Ordering::Acquire) {
                let why = match &raft_metrics.borrow_watched().running_state {
                    Ok(()) => "it ended".to_owned(),
                    Err(fatal) => fatal.to_string(),
                };
                failure.report(format!(
                    "consensus stopped: {why}; nothing more is acknowledged"
                ));
            }
        });
        self.tasks.lock().push(task);
    }

    /// Tells the cluster this member's name and client urls, when it does not know them yet.
    fn publish_member(self: &Arc<Self>, config: &NodeConfig) {
        let member = Member {
            id: self.identity.member_id,
            name: config.name.clone(),
            peer_ur_ls: config.peer_urls.clone(),
            client_ur_ls: config.client_urls.clone(),
            is_learner: false,
        };
        let node = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            loop {
                let Some(node) = node.upgrade() else { return };
                // What is applied after the barrier includes an earlier publication.
                if node.read_barrier().await.is_ok() {
                    let known = node.engine.read(config_center_core::State::members);
                    if known.contains(&member) {
                        return;
                    }
                    let publish = Command {
                        op: Some(Op::MemberPublish(MemberPublish {
                            member: Some(member.clone()),
                        })),
                        ..Command::default()
                    };
                    match node.propose(publish).await {
                        Ok(_) => return,
                        Err(error) => tracing::warn!(%error, "publishing this member's urls"),
                    }
                }
                drop(node);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        self.tasks.lock().push(task);
    }
}

fn is_only(joint: &[std::collections::BTreeSet<u64>], member_id: u64) -> bool {
    matches!(joint, [voters] if voters.len() == 1 && voters.contains(&member_id))
}

fn raft_config(config: &NodeConfig) -> Result<Config, StartError> {
    Config {
        cluster_name: config.cluster_token.clone(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: config.election_ms,
        election_timeout_max: 2 * config.election_ms,
        enable_pre_vote: Some(true),
        // The state lags behind the log on disk, so a leader that returns must be elected again.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_count.max(1)),
        max_in_snapshot_log_to_keep: LOG_ENTRIES_TO_KEEP,
        purge_batch_size: PURGE_BATCH,
        replication_lag_threshold: LOG_ENTRIES_TO_KEEP + config.snapshot_count.max(1),
        max_payload_entries: MAX_ENTRIES_PER_MESSAGE,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        ..Config::default()
    }
    .validate()
    .map_err(|error| StartError::Settings(error.to_string()))
}

/// The two databases must belong together: every entry that the state has not seen must still be
/// in the log.
fn check_pair(
    folder: &DataFolder,
    recovery: &crate::storage::LogRecovery,
    progress: &crate::storage::Progress,
) -> Result<(), StorageError> {
    let applied = progress.applied.map(|id| id.index);
    if recovery.identity.is_none() && applied.is_some() {
        return Err(StorageError::Damaged {
            path: folder.log_db(),
            what: "it is empty, and state.db beside it is not".to_owned(),
        });
    }
    if let Some(purged) = recovery.purged
        && applied.is_none_or(|applied| applied < purged.index)
    {
        return Err(StorageError::Damaged {
            path: folder.state_db(),
            what: format!(
                "it contains the log up to {applied:?}, and the log begins after {}",
                purged.index
            ),
        });
    }
    Ok(())
}
