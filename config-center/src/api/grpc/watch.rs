//! Watch: one stream carries many watchers. Nothing is queued for them: a stream is told which of
//! its watchers have something to read and reads it when its client takes the next response.
//!
//! Three files: `watcher` is one watcher's cursor, `reading` turns history into responses,
//! `session` is the conversation of one stream.

mod reading;
mod session;
mod watcher;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use schemas::etcdserverpb::watch_server::Watch;
use schemas::etcdserverpb::{WatchRequest, WatchResponse};
use tonic::{Request, Response, Status, Streaming};

use self::session::Session;
use super::{admit, demands_leader, refused};
use crate::api::Context;
use crate::auth::Credentials;
use crate::metrics::Rpc;

pub(super) struct WatchService(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        self.0.metrics.started(Rpc::Watch);
        admit(&self.0, Rpc::Watch, &metadata)
            .await
            .map_err(|fault| refused(&self.0, Rpc::Watch, fault))?;
        let session = Session::open(
            Arc::clone(&self.0),
            Credentials::of(&metadata),
            requests,
            demands_leader(&metadata),
        );
        // No task and no channel: the connection asks for the next response when its client has
        // room for it, so a client that never reads holds one response and nothing more.
        let responses = futures::stream::unfold(session, |mut session| async move {
            session.next().await.map(|response| (response, session))
        });
        Ok(Response::new(Box::pin(responses)))
    }
}
