//! The gRPC services: routing by path, and what all of them have in common.

mod auth;
mod cluster;
mod health;
mod kv;
mod lease;
mod maintenance;
mod range_stream;
mod recipe;
mod reflection;
pub(crate) mod status;
mod unary;
mod watch;

use std::future::Future;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response};
use schemas::etcdserverpb::auth_server::AuthServer;
use schemas::etcdserverpb::cluster_server::ClusterServer;
use schemas::etcdserverpb::kv_server::{Kv as _, KvServer};
use schemas::etcdserverpb::lease_server::LeaseServer;
use schemas::etcdserverpb::maintenance_server::MaintenanceServer;
use schemas::etcdserverpb::watch_server::WatchServer;
use schemas::grpc_health::health_server::HealthServer;
use schemas::v3electionpb::election_server::ElectionServer;
use schemas::v3lockpb::lock_server::LockServer;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, body::Body};
use tower_service::Service as _;

use super::access::gate;
use super::{Context, Fault};
use crate::auth::{Credentials, set_certificate_name};
use crate::metrics::Rpc;
use crate::raft::ProposeError;
use unary::Taken;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// All services over one context. Each generated server is a few pointers: cloned per call.
pub struct Services {
    max_message_bytes: usize,
    kv: Arc<kv::KvService>,
    kv_server: KvServer<kv::KvService>,
    watch: WatchServer<watch::WatchService>,
    lease: LeaseServer<lease::LeaseService>,
    cluster: ClusterServer<cluster::ClusterService>,
    maintenance: MaintenanceServer<maintenance::MaintenanceService>,
    auth: AuthServer<auth::AuthService>,
    lock: LockServer<recipe::LockService>,
    election: ElectionServer<recipe::ElectionService>,
    health: HealthServer<health::HealthService>,
    reflection: reflection::Reflection,
}

impl Services {
    #[must_use]
    pub fn new(context: &Arc<Context>) -> Self {
        let limit = context.limits.max_message_bytes();
        let context = || Arc::clone(context);
        let kv = Arc::new(kv::KvService(context()));
        Self {
            max_message_bytes: limit,
            kv_server: KvServer::from_arc(Arc::clone(&kv)).max_decoding_message_size(limit),
            kv,
            watch: WatchServer::new(watch::WatchService(context()))
                .max_decoding_message_size(limit),
            lease: LeaseServer::new(lease::LeaseService(context()))
                .max_decoding_message_size(limit),
            cluster: ClusterServer::new(cluster::ClusterService(context()))
                .max_decoding_message_size(limit),
            maintenance: MaintenanceServer::new(maintenance::MaintenanceService(context()))
                .max_decoding_message_size(limit),
            auth: AuthServer::new(auth::AuthService(context())).max_decoding_message_size(limit),
            lock: LockServer::new(recipe::LockService(context())).max_decoding_message_size(limit),
            election: ElectionServer::new(recipe::ElectionService(context()))
                .max_decoding_message_size(limit),
            health: HealthServer::new(health::HealthService(context())),
            reflection: reflection::Reflection::new(),
        }
    }

    /// Answers one call, `/package.Service/Method`.
    pub async fn call(&self, mut request: Request<Body>) -> Response<Body> {
        set_certificate_name(&mut request);
        let request = match self.take_whole(request).await {
            Taken::Answered(response) => return response,
            Taken::Not(request) => request,
        };
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
        let answered = match service.map(|(service, _)| service) {
            Some("etcdserverpb.KV") => self.kv_server.clone().call(request),
            Some("etcdserverpb.Watch") => self.watch.clone().call(request),
            Some("etcdserverpb.Lease") => self.lease.clone().call(request),
            Some("etcdserverpb.Cluster") => self.cluster.clone().call(request),
            Some("etcdserverpb.Maintenance") => self.maintenance.clone().call(request),
            Some("etcdserverpb.Auth") => self.auth.clone().call(request),
            Some("v3lockpb.Lock") => self.lock.clone().call(request),
            Some("v3electionpb.Election") => self.election.clone().call(request),
            Some("grpc.health.v1.Health") => self.health.clone().call(request),
            Some(reflection::V1) => self.reflection.v1.clone().call(request),
            Some(reflection::V1_ALPHA) => self.reflection.v1_alpha.clone().call(request),
            _ => return Status::unimplemented(format!("unknown service of {path}")).into_http(),
        };
        let mut response = match answered.await {
            Ok(response) => response,
            Err(impossible) => match impossible {},
        };
        // Only an answer without a message carries its status in the headers.
        if response.headers().contains_key(Status::GRPC_STATUS) {
            reword(response.headers_mut());
        }
        response
    }

    /// The calls that come by the thousand, when their message is there in one piece.
    async fn take_whole(&self, request: Request<Body>) -> Taken {
        let (kv, limit) = (&self.kv, self.max_message_bytes);
        match request.uri().path() {
            PUT => unary::answer(request, limit, |put| kv.put(put)).await,
            RANGE => unary::answer(request, limit, |range| kv.range(range)).await,
            TXN => unary::answer(request, limit, |txn| kv.txn(txn)).await,
            _ => Taken::Not(request),
        }
    }
}

/// Whether a call is over as soon as its message was read and the log was asked, so that it needs
/// no task of its own.
pub(crate) fn is_short(path: &str) -> bool {
    matches!(path, PUT | RANGE | TXN)
}

/// Replaces what tonic says by itself with what etcd's clients know.
fn reword(headers: &mut HeaderMap<HeaderValue>) {
    let Some(status) = Status::from_header_map(headers) else {
        return;
    };
    let reworded = match status.code() {
        Code::Unimplemented if status.message().is_empty() => {
            Status::unimplemented("unknown method of this service")
        }
        _ => match status::received_too_large(&status) {
            Some(reworded) => reworded,
            None => return,
        },
    };
    headers.remove(Status::GRPC_MESSAGE);
    if let Err(error) = reworded.add_header(headers) {
        tracing::debug!(%error, "a status does not fit into headers");
    }
}

/// Counts a call and turns its fault into a status.
async fn counted<T>(
    context: &Context,
    rpc: Rpc,
    metadata: &MetadataMap,
    call: impl Future<Output = Result<T, Fault>>,
) -> Result<tonic::Response<T>, Status> {
    context.metrics.started(rpc);
    let outcome = match admit(context, rpc, metadata).await {
        Ok(()) => call.await,
        Err(fault) => Err(fault),
    };
    match outcome {
        Ok(answer) => {
            context.metrics.handled(rpc, 0);
            Ok(tonic::Response::new(answer))
        }
        Err(fault) => Err(refused(context, rpc, fault)),
    }
}

fn refused(context: &Context, rpc: Rpc, fault: Fault) -> Status {
    let status = Status::from(fault);
    context.metrics.handled(rpc, status.code() as i32);
    status
}

/// Whether a call may be made at all: what its metadata may demand, and who makes it.
async fn admit(context: &Context, rpc: Rpc, metadata: &MetadataMap) -> Result<(), Fault> {
    // A learner serves a few; of ranges only the local ones, which is judged where they are known.
    let is_for_learners = matches!(rpc, Rpc::Status | Rpc::Range | Rpc::Snapshot);
    if !is_for_learners && context.node.is_learner() {
        return Err(Fault::NotForLearner);
    }
    let version = metadata.get("client-api-version");
    if version.is_some_and(|version| std::str::from_utf8(version.as_bytes()).is_err()) {
        return Err(Fault::ClientApiVersion);
    }
    if demands_leader(metadata) && !context.has_leader() {
        return Err(Fault::NotProposed(ProposeError::NoLeader));
    }
    if let Some(access) = gate(rpc) {
        Box::pin(context.permit(&Credentials::of(metadata), access)).await?;
    }
    Ok(())
}

fn demands_leader(metadata: &MetadataMap) -> bool {
    metadata
        .get("hasleader")
        .is_some_and(|value| value.as_bytes() == b"true")
}
