//! One simulated agent: follows its key, reports, keeps its lease, comes back after a break.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use schemas::etcdserverpb::{PutRequest, WatchCreateRequest, WatchResponse};
use schemas::fleet::AgentStatus;
use schemas::mvccpb::event::EventType;
use schemas_client::{Client, ClientError, LeaseKeeper, WatchStream};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use crate::Behaviour;
use crate::document::{Config, Running};
use crate::fleet::{Member, Timing};

/// As in the agent: an outage begins with short pauses.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Lines that an agent reads between two reports.
const LINES_PER_REPORT: u64 = 100;

pub(crate) struct Agent {
    pub(crate) client: Client,
    pub(crate) config_key: Bytes,
    pub(crate) status_key: Bytes,
    pub(crate) base: AgentStatus,
    pub(crate) timing: Timing,
    pub(crate) behaviour: watch::Receiver<Behaviour>,
    pub(crate) member: Arc<Member>,
    /// Differs between agents, so that a fleet does not move in step.
    pub(crate) phase: f64,
    pub(crate) seen: Config,
    pub(crate) running: Running,
    pub(crate) lines: u64,
    pub(crate) lease: Option<(i64, Option<LeaseKeeper>)>,
}

impl Agent {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(error) = self.live(&mut pause).await else {
                continue;
            };
            self.member.lost(&error);
            // Jittered as the agent's own: a store that comes back is not met by all at once.
            sleep(pause.mul_f64(0.5 + self.phase / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// From reading the key to the next break.
    async fn live(&mut self, pause: &mut Duration) -> Result<(), ClientError> {
        let found = self.client.get(self.config_key.clone()).await?;
        let config = found.kv.map_or_else(Config::default, |kv| Config {
            revision: kv.mod_revision,
            value: Some(kv.value),
        });
        let request = WatchCreateRequest {
            key: self.config_key.clone(),
            start_revision: found.revision + 1,
            ..Default::default()
        };
        let mut watch = self.client.watch(request).await?;
        self.member.connected(watch.endpoint());
        *pause = FIRST_PAUSE;
        self.take(config).await;
        let mut report_at = self.report().await?;
        let mut renew_at = Instant::now() + self.timing.renewal;
        loop {
            if self.behaviour.borrow().is_silent {
                // Whoever changes the behaviour wakes it up; the fleet holds the other end.
                if self.behaviour.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            tokio::select! {
                biased;
                news = next(&mut watch) => {
                    if let Some(config) = newest(news?) {
                        self.take(config).await;
                        report_at = self.report().await?;
                    }
                }
                changed = self.behaviour.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    report_at = self.report().await?;
                }
                () = sleep_until(report_at.into()) => report_at = self.report().await?,
                () = sleep_until(renew_at.into()) => {
                    self.renew().await?;
                    renew_at = Instant::now() + self.timing.renewal;
                }
            }
        }
    }

    /// Applies a configuration as the behaviour says.
    async fn take(&mut self, config: Config) {
        if self.seen == config {
            return;
        }
        self.seen = config.clone();
        let behaviour = self.behaviour.borrow().clone();
        if !behaviour.apply_delay.is_zero() {
            sleep(behaviour.apply_delay).await;
        }
        self.running.apply(config, &behaviour, unix_ms());
    }

    /// Puts the status under the lease; when to do it next.
    async fn report(&mut self) -> Result<Instant, ClientError> {
        let behaviour = self.behaviour.borrow_and_update().clone();
        let lease = match &self.lease {
            Some((id, _)) => *id,
            None => {
                let id = self
                    .client
                    .lease_grant(self.timing.lease_ttl_s, 0)
                    .await?
                    .id;
                self.lease = Some((id, None));
                id
            }
        };
        self.lines += LINES_PER_REPORT;
        let status = self
            .running
            .status(&self.base, &self.seen, &behaviour, self.lines, unix_ms());
        let value = serde_json::to_vec(&status).expect("a status has text keys and finite numbers");
        let request = PutRequest {
            key: self.status_key.clone(),
            value: value.into(),
            lease,
            ..Default::default()
        };
        if let Err(error) = self.client.put(request).await {
            // Whether or not it was the lease: a new one harms nobody.
            self.lease = None;
            return Err(error);
        }
        self.member
            .reported(status.running.map(|running| running.sha256));
        Ok(Instant::now() + self.timing.report)
    }

    async fn renew(&mut self) -> Result<(), ClientError> {
        let Some((id, keeper)) = &mut self.lease else {
            return Ok(());
        };
        let ttl_s = match keeper {
            Some(keeper) => keeper.renew().await,
            None => {
                let opened = self.client.lease_keep_alive(*id).await;
                opened.map(|opened| {
                    let ttl_s = opened.ttl_s();
                    *keeper = Some(opened);
                    ttl_s
                })
            }
        };
        match ttl_s {
            Ok(1..) => Ok(()),
            Ok(_) => {
                self.lease = None;
                self.report().await.map(drop)
            }
            Err(error) => {
                *keeper = None;
                Err(error)
            }
        }
    }
}

async fn next(watch: &mut WatchStream) -> Result<WatchResponse, ClientError> {
    watch.next().await
}

fn newest(response: WatchResponse) -> Option<Config> {
    let event = response.events.into_iter().next_back()?;
    let is_gone = event.r#type() == EventType::Delete;
    let kv = event.kv?;
    Some(Config {
        revision: kv.mod_revision,
        value: (!is_gone).then_some(kv.value),
    })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
