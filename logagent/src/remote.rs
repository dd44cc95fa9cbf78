//! Follows one key of the center: get at revision R, watch from R+1, and again after any break.
//!
//! Knows revisions and reconnecting; does not know what a value means. The newest configuration
//! stands in a watch channel, so that a slow consumer skips what is out of date and never sees an
//! older one after a newer one.

use std::time::Instant;

use bytes::Bytes;
use logagent_core::following::{Admitted, Ask, Following, Horizon};
use schemas::etcdserverpb::{RangeRequest, ResponseHeader, WatchCreateRequest};
use schemas::mvccpb::{Event, event::EventType};
use schemas_client::{Client, ClientError};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::config_cache::StoredConfig;

/// What is known of the center.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The newest configuration that the center gave.
    pub config: Option<StoredConfig>,
    /// Why the center does not answer; `None` while it does.
    pub trouble: Option<String>,
}

/// Follows a key until it is dropped.
pub struct Follower {
    client: Client,
    key: Bytes,
    following: Following,
    seen: watch::Sender<Seen>,
    backoff: Backoff,
}

impl Follower {
    /// `horizon` is that of the cached configuration: nothing older will be passed on.
    pub fn new(
        client: Client,
        key: &str,
        horizon: Option<Horizon>,
    ) -> (Self, watch::Receiver<Seen>) {
        let (seen, receiver) = watch::channel(Seen::default());
        let follower = Self {
            client,
            key: Bytes::copy_from_slice(key.as_bytes()),
            following: Following::new(horizon),
            seen,
            backoff: Backoff::default(),
        };
        (follower, receiver)
    }

    /// Runs for as long as the agent does.
    pub async fn run(mut self) {
        loop {
            let broken = match self.following.next() {
                Ask::Get => self.get().await.err(),
                Ask::Watch { start_revision } => {
                    let broken = self.watch(start_revision).await;
                    self.following.broken();
                    broken
                }
            };
            // A watch that fell behind a compaction starts again at once.
            if let Some(reason) = broken {
                self.report(reason);
                tokio::time::sleep(self.backoff.next_pause(Instant::now())).await;
            }
        }
    }

    /// Passes on the key's present value.
    async fn get(&mut self) -> Result<(), String> {
        let request = RangeRequest {
            key: self.key.clone(),
            ..RangeRequest::default()
        };
        let answer = self
            .client
            .range(request)
            .await
            .map_err(|error| error.to_string())?;
        let header = answer.header.unwrap_or_default();
        self.admit(&header)?;
        let found = answer.kvs.into_iter().next();
        self.pass_on(StoredConfig {
            cluster_id: header.cluster_id,
            revision: found
                .as_ref()
                .map_or(header.revision, |found| found.mod_revision),
            value: found.map(|found| found.value),
        });
        self.following.read(header.revision);
        Ok(())
    }

    /// Follows the key; why it ended, or `None` when the history was compacted away.
    async fn watch(&mut self, start_revision: i64) -> Option<String> {
        let request = WatchCreateRequest {
            key: self.key.clone(),
            start_revision,
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let mut stream = match self.client.watch(request).await {
            Ok(stream) => stream,
            Err(error) => return watch_trouble(&error),
        };
        loop {
            let response = match stream.next().await {
                Ok(response) => response,
                Err(error) => return watch_trouble(&error),
            };
            self.backoff.reset();
            let header = response.header.unwrap_or_default();
            if let Err(reason) = self.admit(&header) {
                return Some(reason);
            }
            if let Some(event) = response.events.into_iter().next_back() {
                self.pass_on(config_of(header.cluster_id, event));
            }
        }
    }

    /// Refuses a store that is behind what was seen of it.
    fn admit(&mut self, header: &ResponseHeader) -> Result<(), String> {
        let admitted = self.following.admit(header.cluster_id, header.revision);
        if let Admitted::Other { before } = admitted.map_err(|behind| behind.to_string())? {
            tracing::warn!(
                from = before,
                to = header.cluster_id,
                "the center is another cluster now: its configuration is followed"
            );
        }
        Ok(())
    }

    fn pass_on(&mut self, config: StoredConfig) {
        if self.seen.borrow().trouble.is_some() {
            tracing::info!("the center answers again");
        }
        self.seen.send_if_modified(|seen| {
            let healed = seen.trouble.take().is_some();
            let same = seen.config.as_ref() == Some(&config);
            seen.config = Some(config);
            healed || !same
        });
    }

    fn report(&mut self, reason: String) {
        let news = self.seen.borrow().trouble.is_none();
        if news {
            tracing::warn!(
                reason,
                "the center cannot be followed: trying again until it can"
            );
        } else {
            tracing::debug!(reason, "the center still cannot be followed");
        }
        self.seen.send_if_modified(|seen| {
            seen.trouble = Some(reason);
            news
        });
    }
}

fn watch_trouble(error: &ClientError) -> Option<String> {
    match error {
        ClientError::WatchCanceled {
            compact_revision, ..
        } if *compact_revision > 0 => None,
        other => Some(other.to_string()),
    }
}

fn config_of(cluster_id: u64, event: Event) -> StoredConfig {
    let deleted = event.r#type() == EventType::Delete;
    let kv = event.kv.unwrap_or_default();
    StoredConfig {
        cluster_id,
        revision: kv.mod_revision,
        value: (!deleted).then_some(kv.value),
    }
}
