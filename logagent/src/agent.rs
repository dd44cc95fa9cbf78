//! The agent's life: start, follow the center, apply, report, stop.
//!
//! Owns the order of things; the parts own the rest. A configuration counts as running when the
//! tailer thread says so, and only then is it cached as the last good one.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use logagent_core::checkpoint::Checkpoint;
use logagent_core::config::{self, Plan};
use logagent_core::following::Horizon;
use schemas::fleet::{
    Attempt, AttemptResult, ConfigMark, ConfigSource, EntryState, EntryStatus, Problem,
    RunningConfig,
};
use schemas::objects::OnLongLine;
use schemas_client::{Client, ClientError, ConnectOptions};
use tokio::sync::{Notify, watch};

use crate::checkpoint_store::{self, CheckpointWriter};
use crate::config_cache::{self, StoredConfig};
use crate::durable::{self, DataDir, DataDirError};
use crate::ledger::{self, Ledger};
use crate::local::{ListenError, Server};
use crate::pipeline::{Ended, Pipeline, PipelineInbox, ack_target};
use crate::remote::{Follower, Seen};
use crate::settings::{Settings, SinkChoice};
use crate::sink::Sink;
use crate::sink::kafka::{KafkaConfigError, KafkaSink, Limits};
use crate::sink::plain::PlainSink;
use crate::source::allow::AllowList;
use crate::source::watcher::{DirectoryWatcher, HintTarget};
use crate::status::{Board, Reporter, StatusSource, unix_ms};
use crate::supervisor::{Options, Supervisor};

/// A center that has not answered by then is taken as down, and the cached configuration is used.
const CENTER_PATIENCE: Duration = Duration::from_secs(1);
/// What is in flight at the end has this long to be acknowledged; the rest of the ten seconds is
/// for the checkpoint and the lease.
const STOP_PATIENCE: Duration = Duration::from_secs(7);
const REPORTER_PATIENCE: Duration = Duration::from_secs(2);
/// The tailer thread is looked after this often.
const THREAD_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the agent did not start, or stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Kafka(#[from] KafkaConfigError),
    #[error("etcd: {0}")]
    Center(#[from] ClientError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the tailer thread ended by itself, which is a bug: its panic is in the log above")]
    TailerGone,
}

/// A started agent.
pub struct Agent {
    settings: Settings,
    data_dir: DataDir,
    client: Client,
    pipeline: Pipeline,
    status: StatusSource,
    server: Server,
    cached: Option<StoredConfig>,
    /// The last configuration taken from the center, good or not.
    handled: Option<StoredConfig>,
    running_hash: Option<String>,
}

impl Agent {
    /// Checks everything that can be checked without a center or a broker, and starts the threads.
    pub fn start(settings: Settings) -> Result<Self, AgentError> {
        let client = Client::new(connect_options(&settings))?;
        let data_dir = DataDir::open(&settings.data_dir)?;
        let inbox: Arc<PipelineInbox> = Arc::default();
        let board = Arc::<Board>::default();

        let loaded = checkpoint_store::load(data_dir.path());
        if let Some(problem) = &loaded.problem {
            tracing::error!(reason = problem, "the checkpoint is damaged");
            board.update(|facts| facts.warnings.push(problem.clone()));
        }
        let ledger = ledger::load(data_dir.path()).unwrap_or_else(|error| {
            tracing::error!(%error, "earlier losses are not known any more");
            board.update(|facts| facts.warnings.push(error.to_string()));
            Ledger::default()
        });
        let cached = match config_cache::load(data_dir.path(), &settings.config_key) {
            Ok(cached) => cached,
            Err(error) => {
                tracing::error!(%error, "starting without a cached configuration");
                board.update(|facts| facts.warnings.push(error.to_string()));
                None
            }
        };
        let told = Arc::clone(&inbox);
        let writer =
            CheckpointWriter::start(data_dir.path().to_owned(), &loaded, move |written| {
                told.push_saved(written);
            })?;
        let start = Start {
            settings: &settings,
            inbox,
            checkpoint: loaded.checkpoint,
            ledger,
            writer,
        };
        let pipeline = match &settings.sink {
            SinkChoice::Kafka => {
                let client_id = format!("logagent-{}", settings.host);
                let target = ack_target(&start.inbox);
                let sink = KafkaSink::new(&settings.kafka, &client_id, target)?;
                let limits = sink.limits();
                start.pipeline(sink, limits)?
            }
            SinkChoice::Stdout => start.pipeline(PlainSink::stdout(), Limits::default())?,
            SinkChoice::File(path) => {
                start.pipeline(PlainSink::file(path.clone()), Limits::default())?
            }
        };
        let status = StatusSource::new(&settings, board, pipeline.viewer());
        let server = Server::start(data_dir.path(), settings.listen, &status)?;
        Ok(Self {
            settings,
            data_dir,
            client,
            pipeline,
            status,
            server,
            cached,
            handled: None,
            running_hash: None,
        })
    }

    /// Runs until `stop` is rung, then ends in order.
    pub async fn run(mut self, stop: Arc<Notify>) -> Result<Ended, AgentError> {
        if self.settings.status_key.is_none() {
            tracing::warn!(
                key = self.settings.config_key,
                "the config key has no segment `config` and no `status_key` is set: no status"
            );
        }
        let reporter_stop = Arc::<Notify>::default();
        let reporter = Reporter::new(self.client.clone(), &self.settings, self.status.clone())
            .map(|reporter| tokio::spawn(reporter.run(Arc::clone(&reporter_stop))));
        let horizon = self.cached.as_ref().map(|cached| Horizon {
            cluster_id: cached.cluster_id,
            revision: cached.revision,
        });
        let (follower, seen) =
            Follower::new(self.client.clone(), &self.settings.config_key, horizon);
        let follower = tokio::spawn(follower.run());

        let outcome = tokio::select! {
            () = stop.notified() => Ok(()),
            gone = self.follow(seen) => Err(gone),
        };
        follower.abort();
        outcome?;
        tracing::info!("stopping: reading ends, what is in flight is waited for");
        let pipeline = self.pipeline;
        let deadline = Instant::now() + STOP_PATIENCE;
        let ended = tokio::task::spawn_blocking(move || pipeline.stop(deadline)).await;
        reporter_stop.notify_one();
        if let Some(reporter) = reporter
            && tokio::time::timeout(REPORTER_PATIENCE, reporter)
                .await
                .is_err()
        {
            tracing::debug!("the status task did not end in time");
        }
        // The socket goes before the lock: another agent's must not be removed.
        drop(self.server);
        drop(self.data_dir);
        ended.ok().flatten().ok_or(AgentError::TailerGone)
    }

    /// Applies what the center says; ends only when the tailer thread is gone.
    async fn follow(&mut self, mut seen: watch::Receiver<Seen>) -> AgentError {
        let patience = tokio::time::sleep(CENTER_PATIENCE);
        let mut patience = std::pin::pin!(patience);
        let mut waiting = true;
        let mut thread_check = tokio::time::interval(THREAD_CHECK_INTERVAL);
        loop {
            let news = tokio::select! {
                changed = seen.changed() => changed.is_ok(),
                () = &mut patience, if waiting => {
                    waiting = false;
                    self.apply_cached(&mut seen).await;
                    false
                }
                _ = thread_check.tick() => false,
            };
            if self.pipeline.is_finished() {
                return AgentError::TailerGone;
            }
            if !news {
                continue;
            }
            let now = seen.borrow_and_update().clone();
            match now.config {
                // News of the center's health alone change nothing that runs.
                Some(config) if self.handled.as_ref() == Some(&config) => {}
                Some(config) => {
                    waiting = false;
                    self.handled = Some(config.clone());
                    self.apply(config, ConfigSource::Center, &mut seen).await;
                }
                None if waiting => {
                    waiting = false;
                    self.apply_cached(&mut seen).await;
                }
                None => {}
            }
        }
    }

    async fn apply_cached(&mut self, seen: &mut watch::Receiver<Seen>) {
        match self.cached.clone() {
            Some(cached) => {
                tracing::warn!(
                    revision = cached.revision,
                    "the center is down: running the last good configuration from disk"
                );
                self.apply(cached, ConfigSource::Cache, seen).await;
            }
            None => tracing::warn!(
                "the center is down and no configuration was received before: waiting for it"
            ),
        }
    }

    /// Runs a configuration, or reports why not. Gives way to a newer one while it waits.
    async fn apply(
        &mut self,
        config: StoredConfig,
        source: ConfigSource,
        seen: &mut watch::Receiver<Seen>,
    ) {
        let began = Instant::now();
        let value = config.value.as_deref();
        let sha256 = durable::sha256_hex(value.unwrap_or_default());
        let revision = config.revision;
        let mut attempt = Attempt {
            revision,
            sha256: sha256.clone(),
            at_ms: unix_ms(),
            ..Attempt::default()
        };
        self.status.board.update(|facts| {
            facts.source = source;
            facts.desired_seen = Some(ConfigMark {
                revision,
                sha256: sha256.clone(),
            });
        });
        let mut plan = match config::parse(value) {
            Ok(plan) => plan,
            Err(rejected) => {
                tracing::error!(
                    revision,
                    reason = %rejected,
                    "the configuration is not used: what ran before goes on"
                );
                attempt.result = AttemptResult::Rejected;
                attempt.errors = rejected.problems;
                attempt.took_us = began.elapsed().as_micros() as u64;
                self.status
                    .board
                    .update(|facts| facts.last_attempt = Some(attempt));
                return;
            }
        };
        let rejected = self.reject_impossible(&mut plan);
        for problem in &plan.problems {
            tracing::error!(
                revision,
                index = problem.index,
                reason = problem.message,
                "an entry is refused: the others run"
            );
        }
        attempt.errors.clone_from(&plan.problems);
        if !plan.problems.is_empty() {
            attempt.result = AttemptResult::PartlyApplied;
        }
        let warnings = plan.warnings.clone();
        let entries = plan.entries.len();
        let running = self.pipeline.apply(plan);
        tokio::select! {
            biased;
            done = running => if done.is_err() { return },
            // A hand-over may wait for a broker that is down; a newer configuration must not.
            () = newer_than(seen, &config) => return,
        }
        attempt.took_us = began.elapsed().as_micros() as u64;
        tracing::info!(
            revision,
            entries,
            took_us = attempt.took_us,
            ?source,
            "running"
        );
        let is_new = self.running_hash.replace(sha256.clone()).as_ref() != Some(&sha256);
        self.status.board.update(|facts| {
            let since_ms = match &facts.running {
                Some(running) if !is_new => running.since_ms,
                _ => unix_ms(),
            };
            facts.running = Some(RunningConfig {
                revision,
                sha256,
                since_ms,
            });
            facts.last_attempt = Some(attempt);
            facts.plan_warnings = warnings;
            facts.rejected = rejected;
        });
        if source == ConfigSource::Center && self.cached.as_ref() != Some(&config) {
            self.store_in_cache(config).await;
        }
    }

    /// Takes out the entries that this host does not allow or cannot carry out, and reports them by
    /// index and field.
    fn reject_impossible(&self, plan: &mut Plan) -> Vec<EntryStatus> {
        let allow = AllowList::new(self.settings.allow.clone());
        let mut rejected = Vec::new();
        plan.entries.retain(|entry| {
            // Of a pattern, the directory that all its files lie below.
            let root = entry.compiled().map(|pattern| pattern.root());
            let path = Path::new(root.as_deref().unwrap_or(&entry.id.path));
            let wants_letters = entry.options.on_long_line == OnLongLine::DeadLetter;
            let (field, message) = if !allow.could_permit(path) {
                ("path", allow.refusal(path))
            } else if wants_letters && self.settings.dead_letter_topic.is_none() {
                (
                    "on_long_line",
                    "on_long_line is dead_letter, and this agent has no topic for dead letters: \
                     set `dead_letter_topic` in agent.yaml on this host"
                        .to_owned(),
                )
            } else {
                return true;
            };
            rejected.push(EntryStatus {
                path: entry.id.path.clone(),
                topic: entry.id.topic.clone(),
                state: EntryState::Rejected,
                error: Some(message.clone()),
                ..EntryStatus::default()
            });
            plan.problems.push(Problem {
                index: Some(entry.index),
                field: Some(field.to_owned()),
                message,
            });
            false
        });
        plan.problems.sort_by_key(|problem| problem.index);
        rejected
    }

    async fn store_in_cache(&mut self, config: StoredConfig) {
        let folder: PathBuf = self.data_dir.path().to_owned();
        let key = self.settings.config_key.clone();
        let copy = config.clone();
        let stored =
            tokio::task::spawn_blocking(move || config_cache::store(&folder, &key, &copy)).await;
        match stored {
            Ok(Ok(())) => self.cached = Some(config),
            Ok(Err(error)) => {
                tracing::error!(%error, "a restart without the center would not know it");
            }
            Err(error) => tracing::error!(%error, "the cache task failed"),
        }
    }
}

/// What a pipeline is started from, whatever its sink.
struct Start<'a> {
    settings: &'a Settings,
    inbox: Arc<PipelineInbox>,
    checkpoint: Checkpoint,
    ledger: Ledger,
    writer: CheckpointWriter,
}

impl Start<'_> {
    fn pipeline<S: Sink + 'static>(self, sink: S, limits: Limits) -> std::io::Result<Pipeline> {
        let options = Options {
            host: self.settings.host.clone(),
            allow: self.settings.allow.clone(),
            max_line_bytes: limits.max_line_bytes,
            dead_letter_topic: self.settings.dead_letter_topic.clone(),
            in_flight_max_bytes: limits.in_flight_max_bytes,
        };
        let target = ack_target(&self.inbox);
        let supervisor = Supervisor::new(sink, target, options, self.checkpoint, self.ledger);
        let watcher = DirectoryWatcher::new(Arc::clone(&self.inbox) as Arc<dyn HintTarget>);
        Pipeline::start(self.inbox, supervisor, watcher, self.writer)
    }
}

/// Resolves when the center has given another configuration than this one.
async fn newer_than(seen: &mut watch::Receiver<Seen>, config: &StoredConfig) {
    let differs = |seen: &Seen| seen.config.as_ref().is_some_and(|newest| newest != config);
    if seen.wait_for(differs).await.is_ok() {
        // The caller's loop has to find it.
        seen.mark_changed();
    } else {
        std::future::pending::<()>().await;
    }
}

fn connect_options(settings: &Settings) -> ConnectOptions {
    let etcd = settings.etcd.clone();
    ConnectOptions {
        username: etcd.username,
        password: etcd.password,
        ca: etcd.ca,
        cert: etcd.cert,
        key: etcd.key,
        ..ConnectOptions::new(in_turn(etcd.endpoints, &settings.host))
    }
}

/// All agents of a fleet are given the same list. Each begins at its own place in it, so that the
/// members share the agents, and those of a member that is lost go on to different ones.
fn in_turn(mut endpoints: Vec<String>, host: &str) -> Vec<String> {
    let mut hasher = DefaultHasher::new();
    host.hash(&mut hasher);
    if let Some(place) = hasher.finish().checked_rem(endpoints.len() as u64) {
        endpoints.rotate_left(place as usize);
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agents_begin_at_different_members() {
        let list: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let of = |host: usize| in_turn(list.clone(), &format!("10.0.0.{host}"));
        let firsts: BTreeSet<String> = (0..50).map(|host| of(host)[0].clone()).collect();
        assert_eq!(firsts.len(), 3);
        assert_eq!(of(7), of(7), "a restart changes nothing");
        let mut all = of(7);
        all.sort();
        assert_eq!(all, list, "none is forgotten");
        assert!(in_turn(Vec::new(), "h").is_empty());
    }
}
