//! grpc.health.v1: what gRPC's own probes ask. As in etcd only the server as a whole is known, and
//! it serves from its first connection until it stops; whether there is a leader is the business of
//! `/health` and `/readyz`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use schemas::grpc_health::health_check_response::ServingStatus;
use schemas::grpc_health::health_server::Health;
use schemas::grpc_health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use tonic::{Request, Response, Status};

use crate::api::Context;

/// The name of the server as a whole.
const WHOLE_SERVER: &str = "";

pub(super) struct HealthService(pub(super) Arc<Context>);

impl HealthService {
    fn status(&self) -> ServingStatus {
        if self.0.stopping.is_cancelled() {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status as i32,
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if request.get_ref().service != WHOLE_SERVER {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(answer(self.status())))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let whole = (WHOLE_SERVER.to_owned(), answer(self.status()));
        Ok(Response::new(HealthListResponse {
            statuses: HashMap::from([whole]),
        }))
    }

    /// The present status at once, then every change: the only one is the end.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let stopping = self.0.stopping.clone();
        let first = if request.get_ref().service == WHOLE_SERVER {
            self.status()
        } else {
            ServingStatus::ServiceUnknown
        };
        let end = futures::stream::once(async move {
            stopping.cancelled().await;
            Ok(answer(ServingStatus::NotServing))
        });
        let changes = futures::stream::iter([Ok(answer(first))]).chain(end);
        Ok(Response::new(Box::pin(changes)))
    }
}
