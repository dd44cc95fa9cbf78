//! Waiting for agents: from a published document to the status that proves it runs.
//!
//! One watch covers the status keys of all hosts asked about. A document that somebody else changed
//! after us is followed as long as it still holds what we published.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use schemas::{
    agent::LogEntry,
    etcdserverpb::{RangeRequest, WatchCreateRequest},
    fleet::Problem,
    mvccpb::event::EventType,
};
use schemas_client::{Client, ClientError};
use tokio::time::{sleep, timeout_at};

use super::{
    document::Document,
    exit::Failure,
    host_state::{Desired, Report, Verdict, verdict},
    keys::{Namespace, span},
    sha256_hex,
};

/// Pause before asking again after the store went away.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// How long a first line is waited for once everything is applied: a file may have none to give.
const FIRST_LINE_TIME: Duration = Duration::from_secs(2);
const FIRST_LINE_POLL: Duration = Duration::from_millis(50);

/// One host whose agent is waited for.
pub(crate) struct Target<'a> {
    pub(crate) host: String,
    pub(crate) desired: Desired,
    pub(crate) sent_at: Instant,
    /// Whether a later document still holds what was published.
    pub(crate) still_holds: &'a (dyn Fn(&Document) -> bool + Sync),
}

/// How waiting for one host ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied {
        took: Duration,
    },
    PartlyApplied(Vec<Problem>),
    Rejected(Vec<Problem>),
    /// A later change took back what was published.
    Superseded {
        revision: i64,
    },
    /// An agent reports, and did not get to it in time.
    TimedOut,
    /// No agent reported until the time was up.
    NoAgent,
}

/// News while waiting.
pub(crate) enum News<'a> {
    Settled { host: &'a str, outcome: &'a Outcome },
    NoAgentYet { host: &'a str, revision: i64 },
    AgentGone { host: &'a str },
    StoreGone { reason: String },
}

struct Waiting<'a> {
    target: Target<'a>,
    reports: bool,
    outcome: Option<Outcome>,
}

/// Waits until every host is settled or the time is up; outcomes come in the order of `targets`.
pub(crate) async fn wait_for_agents(
    client: &Client,
    namespace: &Namespace,
    targets: Vec<Target<'_>>,
    longest: Duration,
    mut tell: impl FnMut(News<'_>),
) -> Result<Vec<Outcome>, Failure> {
    let deadline = tokio::time::Instant::now() + longest;
    let mut waits = Waits::new(client, namespace, targets);
    loop {
        let ended = timeout_at(deadline, waits.follow(&mut tell)).await;
        match ended {
            Ok(Ok(())) => break,
            Ok(Err(error)) if error.is_transient() || is_compacted(&error) => {
                tell(News::StoreGone {
                    reason: error.to_string(),
                });
                if timeout_at(deadline, sleep(RECONNECT_PAUSE)).await.is_err() {
                    break;
                }
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => break,
        }
    }
    Ok(waits.outcomes())
}

fn is_compacted(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::WatchCanceled {
            compact_revision: 1..,
            ..
        }
    )
}

struct Waits<'a> {
    client: &'a Client,
    namespace: &'a Namespace,
    /// By status key.
    hosts: BTreeMap<String, Waiting<'a>>,
    /// Status keys in the order in which the hosts were given.
    order: Vec<String>,
    told_of_absence: bool,
}

impl<'a> Waits<'a> {
    fn new(client: &'a Client, namespace: &'a Namespace, targets: Vec<Target<'a>>) -> Self {
        let mut order = Vec::new();
        let mut hosts = BTreeMap::new();
        for target in targets {
            let key = namespace.status(&target.host);
            order.push(key.clone());
            let waiting = Waiting {
                target,
                reports: false,
                outcome: None,
            };
            hosts.insert(key, waiting);
        }
        Self {
            client,
            namespace,
            hosts,
            order,
            told_of_absence: false,
        }
    }

    /// Reads the statuses, then follows their changes until all hosts are settled.
    async fn follow(&mut self, tell: &mut impl FnMut(News<'_>)) -> Result<(), ClientError> {
        let keys = span(&self.order);
        let statuses = self
            .client
            .range(RangeRequest {
                key: keys.start.clone(),
                range_end: keys.end.clone(),
                ..Default::default()
            })
            .await?;
        for kv in &statuses.kvs {
            self.heard(&kv.key, &kv.value, tell).await?;
        }
        if !self.told_of_absence {
            self.told_of_absence = true;
            for waiting in self.hosts.values().filter(|waiting| !waiting.reports) {
                tell(News::NoAgentYet {
                    host: &waiting.target.host,
                    revision: waiting.target.desired.revision,
                });
            }
        }
        if self.is_settled() {
            return Ok(());
        }
        let revision = statuses.header.map_or(0, |header| header.revision);
        let mut watch = self
            .client
            .watch(WatchCreateRequest {
                key: keys.start,
                range_end: keys.end,
                start_revision: revision + 1,
                ..Default::default()
            })
            .await?;
        while !self.is_settled() {
            for event in watch.next().await?.events {
                let deleted = event.r#type() == EventType::Delete;
                let Some(kv) = event.kv else { continue };
                if deleted {
                    self.gone(&kv.key, tell);
                } else {
                    self.heard(&kv.key, &kv.value, tell).await?;
                }
            }
        }
        Ok(())
    }

    async fn heard(
        &mut self,
        key: &[u8],
        value: &[u8],
        tell: &mut impl FnMut(News<'_>),
    ) -> Result<(), ClientError> {
        let Some(waiting) = std::str::from_utf8(key)
            .ok()
            .and_then(|key| self.hosts.get_mut(key))
        else {
            return Ok(());
        };
        waiting.reports = true;
        if waiting.outcome.is_some() {
            return Ok(());
        }
        let Report::Status(status) = Report::parse(value) else {
            return Ok(());
        };
        let target = &mut waiting.target;
        let mut judgement = verdict(&target.desired, &status);
        if let Verdict::Newer(revision) = judgement {
            let config_key = self.namespace.config(&target.host);
            match later_document(self.client, config_key, target).await? {
                Some(desired) => {
                    target.desired = desired;
                    judgement = verdict(&target.desired, &status);
                }
                None => waiting.outcome = Some(Outcome::Superseded { revision }),
            }
        }
        match judgement {
            Verdict::Applied => {
                let took = target.sent_at.elapsed();
                waiting.outcome = Some(Outcome::Applied { took });
            }
            Verdict::PartlyApplied(problems) => {
                waiting.outcome = Some(Outcome::PartlyApplied(problems));
            }
            Verdict::Rejected(problems) => waiting.outcome = Some(Outcome::Rejected(problems)),
            Verdict::Pending | Verdict::Newer(_) => {}
        }
        if let Some(outcome) = &waiting.outcome {
            tell(News::Settled {
                host: &waiting.target.host,
                outcome,
            });
        }
        Ok(())
    }

    fn gone(&mut self, key: &[u8], tell: &mut impl FnMut(News<'_>)) {
        let host = std::str::from_utf8(key)
            .ok()
            .and_then(|key| self.hosts.get_mut(key));
        if let Some(waiting) = host.filter(|waiting| waiting.outcome.is_none()) {
            waiting.reports = false;
            tell(News::AgentGone {
                host: &waiting.target.host,
            });
        }
    }

    fn is_settled(&self) -> bool {
        self.hosts.values().all(|waiting| waiting.outcome.is_some())
    }

    fn outcomes(mut self) -> Vec<Outcome> {
        let order = std::mem::take(&mut self.order);
        order
            .iter()
            .filter_map(|key| self.hosts.remove(key))
            .map(|waiting| match (waiting.outcome, waiting.reports) {
                (Some(outcome), _) => outcome,
                (None, true) => Outcome::TimedOut,
                (None, false) => Outcome::NoAgent,
            })
            .collect()
    }
}

/// The newest document when it still holds what was published.
async fn later_document(
    client: &Client,
    key: String,
    target: &Target<'_>,
) -> Result<Option<Desired>, ClientError> {
    let Some(kv) = client.get(key).await?.kv else {
        return Ok(None);
    };
    let holds = Document::parse(&kv.value).is_ok_and(|document| (target.still_holds)(&document));
    Ok(holds.then(|| Desired {
        revision: kv.mod_revision,
        sha256: sha256_hex(&kv.value),
    }))
}

/// From the publish until Kafka acknowledged the first line of one of these entries; `took` is how
/// long each host needed to apply it. The rest is what the agent itself has measured, so the clocks
/// of two hosts are never compared.
pub(crate) async fn first_line(
    client: &Client,
    namespace: &Namespace,
    took: &BTreeMap<String, Duration>,
    entries: &[LogEntry],
) -> Option<Duration> {
    let hosts: Vec<&String> = took.keys().collect();
    let keys: Vec<String> = hosts.iter().map(|host| namespace.status(host)).collect();
    let range = span(&keys);
    let looking = async {
        loop {
            let request = RangeRequest {
                key: range.start.clone(),
                range_end: range.end.clone(),
                ..Default::default()
            };
            // Whoever cannot be asked has nothing to tell.
            let kvs = client
                .range(request)
                .await
                .map_or(Vec::new(), |found| found.kvs);
            let first = kvs.iter().filter_map(|kv| {
                let host = keys.iter().position(|key| key.as_bytes() == kv.key)?;
                let applied = took.get(hosts[host])?;
                Some(*applied + after_applied(&kv.value, entries)?)
            });
            if let Some(first) = first.min() {
                return first;
            }
            sleep(FIRST_LINE_POLL).await;
        }
    };
    tokio::time::timeout(FIRST_LINE_TIME, looking).await.ok()
}

/// From the start of the configuration to its first acknowledged line, by the agent's own clock.
fn after_applied(status: &[u8], entries: &[LogEntry]) -> Option<Duration> {
    let Report::Status(status) = Report::parse(status) else {
        return None;
    };
    let since_ms = status.running.as_ref()?.since_ms;
    let is_meant = |path: &str, topic: &str| {
        entries
            .iter()
            .any(|entry| entry.path == path && entry.topic == topic)
    };
    let meant = status
        .entries
        .iter()
        .filter(|entry| is_meant(&entry.path, &entry.topic));
    let first = meant.filter_map(|entry| entry.first_ack_ms).min()?;
    Some(Duration::from_millis(first.saturating_sub(since_ms)))
}
