//! The leased status key: what this agent runs, for the operators.
//!
//! The document is put under a lease, so a dead agent disappears. Knows leases and timing; what is
//! reported is collected from the shared facts and the tailer thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use schemas::etcdserverpb::PutRequest;
use schemas::fleet::{
    AgentStatus, Attempt, ConfigMark, ConfigSource, EntryStatus, Problem, RunningConfig,
    STATUS_SCHEMA,
};
use schemas_client::{Client, ClientError, LeaseKeeper};
use tokio::sync::Notify;

use crate::backoff::Backoff;
use crate::pipeline::Viewer;
use crate::settings::Settings;

/// The store forgets the status this long after the agent died.
const LEASE_TTL_S: i64 = 15;
/// The lease is renewed this often, whatever the interval of the status.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// Changes of state within this time are reported together.
const CHANGES_GAP: Duration = Duration::from_millis(250);
const REVOKE_TIMEOUT: Duration = Duration::from_secs(1);
const LEASE_NOT_FOUND: &str = "requested lease not found";

/// What the config side of the agent knows. Written by `agent`, read for each status.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub source: ConfigSource,
    pub desired_seen: Option<ConfigMark>,
    pub running: Option<RunningConfig>,
    pub last_attempt: Option<Attempt>,
    /// Of the running configuration.
    pub plan_warnings: Vec<Problem>,
    /// Entries of the running configuration that this host does not let run.
    pub rejected: Vec<EntryStatus>,
    /// Problems of the agent itself, such as an unreadable checkpoint.
    pub warnings: Vec<String>,
}

/// The facts and the bell that says that they are new.
#[derive(Debug, Default)]
pub struct Board {
    facts: Mutex<Facts>,
    news: Notify,
}

impl Board {
    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock());
        self.news.notify_one();
    }

    pub fn facts(&self) -> Facts {
        self.facts.lock().clone()
    }
}

/// Puts the status until `stop` is rung, then revokes the lease.
pub struct Reporter {
    client: Client,
    key: String,
    interval: Duration,
    board: Arc<Board>,
    viewer: Viewer,
    base: AgentStatus,
    lease: Option<Lease>,
    in_trouble: bool,
    backoff: Backoff,
}

struct Lease {
    id: i64,
    keeper: Option<LeaseKeeper>,
}

impl Reporter {
    /// `None` when there is no key to report under.
    pub fn new(
        client: Client,
        settings: &Settings,
        board: Arc<Board>,
        viewer: Viewer,
    ) -> Option<Self> {
        let base = AgentStatus {
            schema: STATUS_SCHEMA,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: instance_id(),
            hostname: settings.hostname.clone(),
            host: settings.host.clone(),
            labels: settings.labels.clone(),
            config_key: settings.config_key.clone(),
            ..AgentStatus::default()
        };
        Some(Self {
            client,
            key: settings.status_key.clone()?,
            interval: settings.status_interval,
            board,
            viewer,
            base,
            lease: None,
            in_trouble: false,
            backoff: Backoff::default(),
        })
    }

    pub async fn run(mut self, stop: Arc<Notify>) {
        let mut next_put = Instant::now();
        let mut next_renewal = Instant::now() + RENEW_INTERVAL;
        let mut last_put = Instant::now() - CHANGES_GAP;
        let mut stopping = std::pin::pin!(stop.notified());
        loop {
            let board = Arc::clone(&self.board);
            let viewer = self.viewer.clone();
            tokio::select! {
                biased;
                () = &mut stopping => break,
                () = board.news.notified() => next_put = Instant::now(),
                () = viewer.changed() => next_put = next_put.min(last_put + CHANGES_GAP),
                () = tokio::time::sleep_until(next_put.into()) => {}
                () = tokio::time::sleep_until(next_renewal.into()) => {
                    next_renewal = Instant::now() + RENEW_INTERVAL;
                    if !self.renew().await {
                        next_put = Instant::now();
                    }
                }
            }
            if Instant::now() < next_put {
                continue;
            }
            // A center that does not answer must not delay the end.
            let put = tokio::select! {
                () = &mut stopping => break,
                put = self.put() => put,
            };
            last_put = Instant::now();
            next_put = last_put + self.note(put);
        }
        self.revoke().await;
    }

    /// How long until the next status, and a word in the log when the answer is news.
    fn note(&mut self, put: Result<(), ClientError>) -> Duration {
        match put {
            Ok(()) => {
                if std::mem::take(&mut self.in_trouble) {
                    tracing::info!("the status is reported again");
                }
                self.backoff.reset();
                self.interval
            }
            Err(error) => {
                if !std::mem::replace(&mut self.in_trouble, true) {
                    tracing::warn!(%error, "the status cannot be reported: trying again");
                }
                self.backoff.next_pause(Instant::now())
            }
        }
    }

    async fn put(&mut self) -> Result<(), ClientError> {
        let Some(document) = self.document().await else {
            return Ok(());
        };
        let lease_id = match &self.lease {
            Some(lease) => lease.id,
            None => {
                let id = self.client.lease_grant(LEASE_TTL_S, 0).await?.id;
                self.lease = Some(Lease { id, keeper: None });
                id
            }
        };
        let request = PutRequest {
            key: Bytes::copy_from_slice(self.key.as_bytes()),
            value: document,
            lease: lease_id,
            ..PutRequest::default()
        };
        match self.client.put(request).await {
            Ok(_) => Ok(()),
            Err(error) => {
                if error.to_string().contains(LEASE_NOT_FOUND) {
                    self.lease = None;
                }
                Err(error)
            }
        }
    }

    async fn document(&self) -> Option<Bytes> {
        let view = self.viewer.view().await?;
        let facts = self.board.facts();
        let mut warnings = facts.warnings;
        warnings.extend(view.warnings);
        warnings.extend(facts.plan_warnings.iter().map(warning));
        let mut entries = view.entries;
        entries.extend(facts.rejected);
        let status = AgentStatus {
            config_source: facts.source,
            desired_seen: facts.desired_seen,
            running: facts.running,
            last_attempt: facts.last_attempt,
            entries,
            files: view.files,
            totals: view.totals,
            losses: view.losses,
            watching: view.watching,
            warnings,
            reported_at_ms: unix_ms(),
            ..self.base.clone()
        };
        match serde_json::to_vec(&status) {
            Ok(document) => Some(document.into()),
            Err(error) => {
                tracing::error!(%error, "the status cannot be written as JSON");
                None
            }
        }
    }

    /// False when the lease is gone and the status has to be put under a new one.
    async fn renew(&mut self) -> bool {
        let Some(lease) = &mut self.lease else {
            return true;
        };
        let renewed = match &mut lease.keeper {
            Some(keeper) => keeper.renew().await,
            None => match self.client.lease_keep_alive(lease.id).await {
                Ok(keeper) => {
                    let ttl_s = keeper.ttl_s();
                    lease.keeper = Some(keeper);
                    Ok(ttl_s)
                }
                Err(error) => Err(error),
            },
        };
        match renewed {
            Ok(ttl_s) if ttl_s > 0 => true,
            Ok(_) => {
                tracing::info!("the lease of the status ran out: taking a new one");
                self.lease = None;
                false
            }
            Err(error) => {
                tracing::debug!(%error, "the lease of the status was not renewed");
                lease.keeper = None;
                true
            }
        }
    }

    async fn revoke(self) {
        let Some(lease) = self.lease else { return };
        let revoked = tokio::time::timeout(REVOKE_TIMEOUT, self.client.lease_revoke(lease.id));
        match revoked.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the lease was not revoked: it will expire"),
            Err(_) => tracing::debug!("the lease was not revoked in time: it will expire"),
        }
    }
}

fn warning(problem: &Problem) -> String {
    let entry = problem
        .index
        .map_or_else(String::new, |index| format!("entry {index}: "));
    format!("{entry}{}", problem.message)
}

pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Different at every start.
fn instance_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let random = || RandomState::new().hash_one(std::process::id());
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_or_else(
        |_| format!("{:016x}{:016x}", random(), random()),
        |id| id.trim().to_owned(),
    )
}
