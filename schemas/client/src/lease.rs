//! Keeping one lease alive over a keep-alive stream.
//!
//! The user decides when to renew; a third of the TTL is etcd's habit.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use schemas::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, lease_client::LeaseClient,
};

use crate::{
    Attempt, Attempts, ClientError,
    attempt::{Session, millis, transport_words},
};

/// One renewal is under way at a time.
const REQUESTS_QUEUED: usize = 2;
const OPERATION: &str = "lease keep-alive";

/// An open keep-alive stream of one lease. Dropping it closes the stream, not the lease.
#[derive(Debug)]
pub struct LeaseKeeper {
    id: i64,
    ttl_s: i64,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    responses: Streaming<LeaseKeepAliveResponse>,
    endpoint: String,
    timeout: Duration,
}

pub(crate) async fn open(
    session: Session,
    id: i64,
    timeout: Duration,
) -> Result<LeaseKeeper, Status> {
    let (requests, outgoing) = mpsc::channel(REQUESTS_QUEUED);
    requests
        .try_send(LeaseKeepAliveRequest { id })
        .map_err(|_| Status::internal("a new request queue is full"))?;
    let mut responses = LeaseClient::new(session.service())
        .lease_keep_alive(ReceiverStream::new(outgoing))
        .await?
        .into_inner();
    let first = responses.message().await?.ok_or_else(|| {
        Status::unavailable("the server closed the stream before it renewed the lease")
    })?;
    Ok(LeaseKeeper {
        id,
        ttl_s: first.ttl,
        requests,
        responses,
        endpoint: session.endpoint,
        timeout,
    })
}

impl LeaseKeeper {
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Seconds that the last renewal bought; 0 when the store no longer knows the lease.
    pub fn ttl_s(&self) -> i64 {
        self.ttl_s
    }

    pub fn is_expired(&self) -> bool {
        self.ttl_s <= 0
    }

    /// Renews the lease and returns its TTL in seconds; 0 means that the lease is gone.
    ///
    /// After an error the stream is out of step: open a new one.
    pub async fn renew(&mut self) -> Result<i64, ClientError> {
        let request = LeaseKeepAliveRequest { id: self.id };
        let answer = timeout(self.timeout, async {
            self.requests
                .send(request)
                .await
                .map_err(|_| "the stream is closed".to_owned())?;
            match self.responses.message().await {
                Ok(Some(response)) => Ok(response.ttl),
                Ok(None) => Err("the server closed it".to_owned()),
                Err(status) => Err(transport_words(&status)),
            }
        })
        .await;
        match answer {
            Ok(Ok(ttl_s)) => {
                self.ttl_s = ttl_s;
                Ok(ttl_s)
            }
            Ok(Err(reason)) => Err(ClientError::Disconnected {
                operation: OPERATION,
                endpoint: self.endpoint.clone(),
                reason,
            }),
            Err(_) => Err(ClientError::Timeout {
                operation: OPERATION,
                timeout_ms: millis(self.timeout),
                attempts: Attempts(vec![Attempt {
                    endpoint: self.endpoint.clone(),
                    reason: "the renewal was not answered".into(),
                }]),
            }),
        }
    }
}
