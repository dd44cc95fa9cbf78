//! The leased status key: what this agent runs, for the operators.
//!
//! The document is put under a lease, so a dead agent disappears. Knows leases and timing; what is
//! reported comes from `source`. What stood under the key before each put tells whether another
//! agent uses it too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schemas::etcdserverpb::PutRequest;
use schemas::fleet::{AgentStatus, OtherAgent};
use schemas_client::{Client, ClientError, LeaseKeeper};
use tokio::sync::Notify;

use super::source::{IN_CENTER, StatusSource};
use super::unix_ms;
use crate::backoff::Backoff;
use crate::settings::Settings;

/// The store forgets the status this long after the agent died.
const LEASE_TTL_S: i64 = 15;
/// The lease is renewed this often, whatever the interval of the status.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// Changes of state within this time are reported together.
const CHANGES_GAP: Duration = Duration::from_millis(250);
const REVOKE_TIMEOUT: Duration = Duration::from_secs(1);
/// A rival counts as living for so many intervals after it was last seen.
const RIVAL_INTERVALS: u64 = 4;
const RIVAL_MIN_MS: u64 = 5_000;
const LEASE_NOT_FOUND: &str = "requested lease not found";

/// Puts the status until `stop` is rung, then revokes the lease.
pub struct Reporter {
    client: Client,
    key: String,
    interval: Duration,
    source: StatusSource,
    lease: Option<Lease>,
    rivals: Rivals,
    in_trouble: bool,
    backoff: Backoff,
}

struct Lease {
    id: i64,
    keeper: Option<LeaseKeeper>,
}

impl Reporter {
    /// `None` when there is no key to report under.
    pub fn new(client: Client, settings: &Settings, source: StatusSource) -> Option<Self> {
        Some(Self {
            client,
            key: settings.status_key.clone()?,
            interval: settings.status_interval,
            rivals: Rivals::new(source.instance(), settings.status_interval),
            source,
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
            let board = Arc::clone(&self.source.board);
            let viewer = self.source.viewer.clone();
            tokio::select! {
                biased;
                () = &mut stopping => break,
                () = board.news() => next_put = Instant::now(),
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
                    self.source.board.set_report_trouble(None);
                }
                self.backoff.reset();
                self.interval
            }
            Err(error) => {
                if !std::mem::replace(&mut self.in_trouble, true) {
                    tracing::warn!(%error, "the status cannot be reported: trying again");
                    self.source
                        .board
                        .set_report_trouble(Some(error.to_string()));
                }
                self.backoff.next_pause(Instant::now())
            }
        }
    }

    async fn put(&mut self) -> Result<(), ClientError> {
        let Some(status) = self.source.document(IN_CENTER).await else {
            return Ok(());
        };
        let document = match serde_json::to_vec(&status) {
            Ok(document) => Bytes::from(document),
            Err(error) => {
                tracing::error!(%error, "the status cannot be written as JSON");
                return Ok(());
            }
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
            prev_kv: self.rivals.may_look,
            ..PutRequest::default()
        };
        match self.client.put(request).await {
            Ok(answer) => {
                let before = answer.prev_kv.map(|kv| kv.value).unwrap_or_default();
                let conflict = self.rivals.judge(&before, unix_ms());
                self.source.board.set_conflict(conflict);
                Ok(())
            }
            Err(error) if error.is_denied() && self.rivals.may_look => {
                // The right to write the key does not hold the right to read it.
                tracing::debug!(%error, "the status is reported without looking for other agents");
                self.rivals.may_look = false;
                Box::pin(self.put()).await
            }
            Err(error) => {
                if error.to_string().contains(LEASE_NOT_FOUND) {
                    self.lease = None;
                }
                Err(error)
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

/// Whether another living agent writes the key.
///
/// A value of another instance before the first put is that of the agent that ran here before. One
/// that came since our last put was written by somebody who lives now.
struct Rivals {
    own: String,
    /// False when the store does not let this agent read its status key.
    may_look: bool,
    has_put: bool,
    found: Option<OtherAgent>,
    /// A rival that was not seen for so long has gone.
    forget_ms: u64,
}

impl Rivals {
    fn new(own: &str, interval: Duration) -> Self {
        Self {
            own: own.to_owned(),
            may_look: true,
            has_put: false,
            found: None,
            forget_ms: (interval.as_millis() as u64 * RIVAL_INTERVALS).max(RIVAL_MIN_MS),
        }
    }

    fn judge(&mut self, before: &[u8], now_ms: u64) -> Option<OtherAgent> {
        let had_put = std::mem::replace(&mut self.has_put, true);
        if let Ok(status) = serde_json::from_slice::<AgentStatus>(before)
            && had_put
            && !status.instance.is_empty()
            && status.instance != self.own
        {
            if self
                .found
                .as_ref()
                .is_none_or(|found| found.instance != status.instance)
            {
                tracing::error!(
                    instance = status.instance,
                    hostname = status.hostname,
                    "another agent reports under the same key: give one of them another `host` or `id`"
                );
            }
            self.found = Some(OtherAgent {
                instance: status.instance,
                hostname: status.hostname,
                seen_at_ms: now_ms,
            });
        }
        if self
            .found
            .as_ref()
            .is_some_and(|found| now_ms >= found.seen_at_ms + self.forget_ms)
        {
            tracing::info!("the other agent does not report any more");
            self.found = None;
        }
        self.found.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(instance: &str) -> Vec<u8> {
        let status = AgentStatus {
            instance: instance.to_owned(),
            ..AgentStatus::default()
        };
        serde_json::to_vec(&status).unwrap()
    }

    #[test]
    fn only_a_value_that_came_since_our_last_put_is_a_rivals() {
        let mut rivals = Rivals::new("me", Duration::from_secs(5));
        // The one that ran here before.
        assert_eq!(rivals.judge(&value("old"), 0), None);
        assert_eq!(rivals.judge(&value("me"), 5_000), None);
        assert_eq!(rivals.judge(b"", 6_000), None);
        assert_eq!(rivals.judge(b"not ours", 7_000), None);
        let found = rivals.judge(&value("other"), 10_000).unwrap();
        assert_eq!(
            (found.instance.as_str(), found.seen_at_ms),
            ("other", 10_000)
        );
        assert!(rivals.judge(&value("me"), 15_000).is_some());
        assert_eq!(rivals.judge(&value("me"), 60_000), None);
    }
}
