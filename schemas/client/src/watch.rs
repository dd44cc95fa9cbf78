//! One watch on one stream: opened and confirmed, read until it is cancelled or the stream breaks.
//!
//! Does not reconnect and does not remember revisions: its user knows where to resume.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use schemas::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_client::WatchClient, watch_request::RequestUnion,
};

use crate::{
    ClientError,
    attempt::{Session, transport_words},
    client::MAX_MESSAGE_BYTES,
};

/// A stream carries the create request and now and then a progress request.
const REQUESTS_QUEUED: usize = 4;

/// A confirmed watch. Dropping it ends the watch.
#[derive(Debug)]
pub struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    endpoint: String,
    created: WatchResponse,
}

pub(crate) async fn open(
    session: Session,
    create: WatchCreateRequest,
) -> Result<WatchStream, Status> {
    let (requests, outgoing) = mpsc::channel(REQUESTS_QUEUED);
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    requests
        .try_send(request)
        .map_err(|_| Status::internal("a new request queue is full"))?;
    let mut responses = WatchClient::new(session.service())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .watch(ReceiverStream::new(outgoing))
        .await?
        .into_inner();
    let created = responses.message().await?.ok_or_else(|| {
        Status::unavailable("the server closed the stream before it confirmed the watch")
    })?;
    Ok(WatchStream {
        requests,
        responses,
        endpoint: session.endpoint,
        created,
    })
}

impl WatchStream {
    /// Turns a watch that was refused in its first response into an error.
    pub(crate) fn checked(self) -> Result<Self, ClientError> {
        match self.cancellation(&self.created) {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// The store's revision when it confirmed the watch.
    pub fn created_revision(&self) -> i64 {
        self.created
            .header
            .as_ref()
            .map_or(0, |header| header.revision)
    }

    pub fn watch_id(&self) -> i64 {
        self.created.watch_id
    }

    /// The endpoint that serves this watch.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The next response: events in order, or none of them as a progress mark ("everything up to
    /// `header.revision` has been delivered"). May be dropped while waiting without losing anything.
    pub async fn next(&mut self) -> Result<WatchResponse, ClientError> {
        let broken = |reason| ClientError::Disconnected {
            operation: "watch",
            endpoint: self.endpoint.clone(),
            reason,
        };
        match self.responses.message().await {
            Ok(Some(response)) => match self.cancellation(&response) {
                Some(error) => Err(error),
                None => Ok(response),
            },
            Ok(None) => Err(broken("the server closed it".into())),
            Err(status) => Err(broken(transport_words(&status))),
        }
    }

    /// Asks for a progress mark; the store answers when it has delivered everything up to now.
    pub async fn request_progress(&self) -> Result<(), ClientError> {
        let request = WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| ClientError::Disconnected {
                operation: "watch",
                endpoint: self.endpoint.clone(),
                reason: "the stream is closed".into(),
            })
    }

    fn cancellation(&self, response: &WatchResponse) -> Option<ClientError> {
        // etcd sets `canceled` with every compact_revision; older ones only the latter.
        if !response.canceled && response.compact_revision == 0 {
            return None;
        }
        Some(ClientError::WatchCanceled {
            endpoint: self.endpoint.clone(),
            reason: response.cancel_reason.clone(),
            compact_revision: response.compact_revision,
        })
    }
}
