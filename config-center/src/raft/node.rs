//! One running member: how it starts, what it is made of, how it stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config_center_core::Caller;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use parking_lot::Mutex;
use schemas::command::MemberPublish;
use schemas::command::command::Op;
use schemas::etcdserverpb::Member;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bootstrap;
use super::config::{ClusterState, NodeConfig, REQUEST_TIMEOUT_MS, Reconfiguration, raft_config};
use super::contact::Contact;
use super::error::{ProposeError, StartError};
use super::leadership::Leadership;
use super::log_store::LogStore;
use super::peer::{self, Awaiting, Directory, Forwarder, PeerFactory, PeerHost, PeerPort, Timing};
use super::proposer::Pending;
use super::reads::{self, ReadRounds};
use super::removal::{self, Removal};
use super::state_machine::{AppliedMark, Listeners, StateMachine};
use super::takeover;
use super::types::TypeConfig;
use crate::engine::Engine;
use crate::storage::{DataFolder, FailureSlot, Identity, LogHandle, StateHandle, StorageError};

pub(super) type ServerMetrics = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;

/// How often a member that is not listed yet tries to publish itself.
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);

/// One running member.
pub struct Node {
    pub(super) raft: Raft<TypeConfig, StateMachine>,
    pub(super) server: ServerMetrics,
    pub(super) engine: Arc<Engine>,
    pub(super) mark: Arc<AppliedMark>,
    pub(super) log: LogHandle,
    pub(super) state: StateHandle,
    identity: Identity,
    pub(super) timing: Timing,
    pub(super) max_request_bytes: usize,
    pub(super) request_timeout: Duration,
    pub(super) pending: Arc<Pending>,
    pub(super) awaiting: Arc<Awaiting>,
    pub(super) directory: Arc<Directory>,
    pub(super) forwarder: Forwarder,
    pub(super) read_rounds: ReadRounds,
    pub(super) contact: Contact,
    pub(super) leadership: Mutex<Leadership>,
    /// Held while leases are written down, until that is applied.
    pub(super) checkpointing: tokio::sync::Mutex<()>,
    /// Somebody is finding out whether the leader's process has ended.
    pub(super) is_inquiring: AtomicBool,
    pub(super) reconfiguration: Reconfiguration,
    /// Held by the one change of membership that is under way here.
    pub(super) changing: tokio::sync::Mutex<()>,
    removal: Removal,
    pub(super) failure: FailureSlot,
    pub(super) stopping: Arc<AtomicBool>,
    peers_stopping: CancellationToken,
    pub(super) snapshot_folder: PathBuf,
    /// Given back when the member has stopped.
    folder: Mutex<Option<DataFolder>>,
    pub(super) tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Opens the data folder, replays what the state has not seen, and takes part in consensus. A
    /// member that is its cluster's only voter leads when this returns, unless its disk is slow;
    /// any other one has a leader then, unless there is none to be had soon.
    pub async fn start(config: NodeConfig, port: PeerPort) -> Result<Arc<Self>, StartError> {
        let raft_config = raft_config(&config)?;
        let timing = Timing {
            election: Duration::from_millis(config.election_ms),
        };
        let folder = DataFolder::open(&config.data_dir)?;
        let failure = FailureSlot::default();
        let removal = Removal::new(failure.clone());
        let (mut log, mut recovery) = LogHandle::open(&folder.log(), failure.clone()).await?;
        if recovery.identity.is_none() {
            log.close().await;
            takeover::take_over(&folder, &config).await?;
            (log, recovery) = LogHandle::open(&folder.log(), failure.clone()).await?;
        }
        let (state, loaded) = StateHandle::open(&folder, failure.clone()).await?;
        check_pair(&folder, &recovery, &loaded.progress)?;
        let host = Arc::new(PeerHost::default());
        let peers_stopping = CancellationToken::new();
        // Whatever ends this start ends the listeners with it.
        let cut_peers = peers_stopping.clone().drop_guard();
        peer::serve(
            port.listeners,
            &port.acceptor,
            &host,
            timing,
            &peers_stopping,
        );
        let identity = match recovery.identity {
            Some(identity) => identity,
            None => {
                let identity = bootstrap::identify(&config, &port.dialer, timing).await?;
                log.save_identity(identity).await?;
                identity
            }
        };
        if loaded.state.was_removed(identity.member_id) {
            return Err(StartError::Bootstrap(removal::TEXT.to_owned()));
        }
        if config.force_new_cluster {
            bootstrap::force_new_cluster(&log, &mut recovery, &config, identity).await?;
        }
        let failed = |what: String| StartError::Raft {
            data_dir: config.data_dir.clone(),
            what,
        };
        let engine = Arc::new(Engine::new(loaded.state));
        let directory = Arc::new(Directory::new(identity, timing, port.dialer));
        let awaiting = Arc::new(Awaiting::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let state_machine = StateMachine::new(
            Arc::clone(&engine),
            state.clone(),
            folder.snapshots(),
            &loaded.progress,
            Listeners {
                member_id: identity.member_id,
                awaiting: Arc::clone(&awaiting),
                directory: Arc::clone(&directory),
                failure: failure.clone(),
                removal: removal.clone(),
                stopping: Arc::clone(&stopping),
            },
        )
        .map_err(|error| failed(error.to_string()))?;
        let mark = state_machine.mark();
        let log_store = LogStore::new(log.clone(), &recovery);
        let raft = Raft::new(
            identity.member_id,
            Arc::new(raft_config),
            PeerFactory::new(Arc::clone(&directory), removal.clone(), state.clone()),
            log_store,
            state_machine,
        )
        .await
        .map_err(|error| failed(error.to_string()))?;
        let (read_rounds, readers) = ReadRounds::new();
        let node = Arc::new(Self {
            server: raft.server_metrics(),
            raft,
            engine,
            mark,
            log,
            state,
            identity,
            timing,
            max_request_bytes: config.max_request_bytes,
            request_timeout: Duration::from_millis(REQUEST_TIMEOUT_MS + 2 * config.election_ms),
            pending: Arc::default(),
            forwarder: Forwarder::start(Arc::clone(&directory), Arc::clone(&awaiting)),
            awaiting,
            directory,
            read_rounds,
            contact: Contact::default(),
            leadership: Mutex::default(),
            checkpointing: tokio::sync::Mutex::default(),
            is_inquiring: AtomicBool::new(false),
            reconfiguration: config.reconfiguration,
            changing: tokio::sync::Mutex::default(),
            removal,
            failure,
            stopping,
            peers_stopping: cut_peers.disarm(),
            snapshot_folder: folder.snapshots(),
            folder: Mutex::new(Some(folder)),
            tasks: Mutex::default(),
        });
        node.tasks
            .lock()
            .push(tokio::spawn(reads::run(Arc::downgrade(&node), readers)));
        node.follow_leadership();
        node.look_after_members();
        host.set(&node);
        node.join(&config).await.map_err(failed)?;
        node.publish_member(&config);
        node.wait_until_recovered(2 * timing.election).await;
        Ok(node)
    }

    /// How long a request may take at most.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Returns when everything up to this index of the log is applied here.
    pub async fn applied(&self, index: u64) -> Result<(), ProposeError> {
        self.mark.reached(index).await
    }

    /// Forms the cluster on a fresh folder. A lone voter that comes back need not wait for an
    /// election timeout: nobody else can lead.
    async fn join(self: &Arc<Self>, config: &NodeConfig) -> Result<(), String> {
        let is_initialized = self.raft.is_initialized().await;
        if is_initialized.map_err(|error| error.to_string())? {
            if self.is_sole_voter() {
                let elected = self.raft.trigger().elect(false).await;
                elected.map_err(|error| error.to_string())?;
            }
            return Ok(());
        }
        let voters = bootstrap::initial_voters(config);
        if config.cluster_state == ClusterState::Existing || !voters.contains_key(&self.member_id())
        {
            // The leader of the cluster will find this member.
            return Ok(());
        }
        // One of them begins, so that they do not split the first vote. The others go on without
        // it when it does not come: the first entry is the same whoever writes it.
        let is_first = voters.keys().next() == Some(&self.member_id());
        if is_first {
            let formed = self.raft.initialize(voters).await;
            return formed.map_err(|error| error.to_string());
        }
        let node = Arc::downgrade(self);
        let patience = self.timing.election;
        let task = tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            let Some(node) = node.upgrade() else { return };
            if !node.raft.is_initialized().await.unwrap_or(true)
                && let Err(error) = node.raft.initialize(voters).await
            {
                // The first one was faster after all.
                tracing::debug!(%error, "the cluster is formed by another member");
            }
        });
        self.tasks.lock().push(task);
        Ok(())
    }

    pub(super) fn raft(&self) -> &Raft<TypeConfig, StateMachine> {
        &self.raft
    }

    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    #[must_use]
    pub fn member_id(&self) -> u64 {
        self.identity.member_id
    }

    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.identity.cluster_id
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn contact(&self) -> &Contact {
        &self.contact
    }

    pub(super) fn snapshot_folder(&self) -> &Path {
        &self.snapshot_folder
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.failure.get().is_some()
    }

    /// Whether the cluster has removed this member; that is why it stops.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removal.has_happened()
    }

    pub(super) fn request_deadline(&self) -> Instant {
        Instant::now() + self.request_timeout
    }

    /// Resolves when the member can no longer serve (a storage failure, an end of consensus); the
    /// text says why. The process must stop then.
    pub async fn failed(&self) -> String {
        self.failure.wait().await.to_string()
    }

    /// Hands the leadership over, stops consensus and closes the databases. What was acknowledged
    /// is on disk in any case.
    pub async fn shutdown(&self) {
        self.hand_over(self.timing.election).await;
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.peers_stopping.cancel();
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
        let is_recovered = || self.leads_alone() || (!self.is_sole_voter() && self.has_leader());
        while !is_recovered() && Instant::now() < deadline {
            // The applied mark is not part of these metrics: look again soon in any case.
            let tick = deadline.min(Instant::now() + Duration::from_millis(5));
            if let Ok(Err(_)) = tokio::time::timeout_at(tick, server.changed()).await {
                return;
            }
        }
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
                        tracing::info!(name = member.name, "published before");
                        return;
                    }
                    let publish = Caller::Member.command(Op::MemberPublish(MemberPublish {
                        member: Some(member.clone()),
                    }));
                    match node.propose(publish).await {
                        Ok(_) => {
                            tracing::info!(name = member.name, "published to the cluster");
                            return;
                        }
                        Err(error) => tracing::warn!(%error, "publishing this member's urls"),
                    }
                }
                drop(node);
                tokio::time::sleep(PUBLISH_PAUSE).await;
            }
        });
        self.tasks.lock().push(task);
    }
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
            path: folder.log(),
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
