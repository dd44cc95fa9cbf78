//! Server reflection, in the version of today and in the one that older tools speak: `grpcurl` and
//! its kin find every service here without a proto file.

use std::convert::Infallible;

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_reflection::server::Builder;
use tower::util::BoxCloneSyncService;
use tower_service::Service;

pub(super) const V1: &str = "grpc.reflection.v1.ServerReflection";
pub(super) const V1_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// What a client may call; the descriptor set also holds what members say among themselves.
const SERVICES: [&str; 9] = [
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
    "v3lockpb.Lock",
    "v3electionpb.Election",
    "grpc.health.v1.Health",
];

type Boxed = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

pub(super) struct Reflection {
    pub(super) v1: Boxed,
    pub(super) v1_alpha: Boxed,
}

impl Reflection {
    pub(super) fn new() -> Self {
        Self {
            v1: boxed(builder(V1).build_v1()),
            v1_alpha: boxed(builder(V1_ALPHA).build_v1alpha()),
        }
    }
}

fn builder(own: &str) -> Builder<'static> {
    let named = SERVICES.into_iter().chain([own]);
    named.fold(
        Builder::configure().register_encoded_file_descriptor_set(schemas::DESCRIPTORS),
        Builder::with_service_name,
    )
}

fn boxed<S>(built: Result<S, tonic_reflection::server::Error>) -> Boxed
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    match built {
        Ok(service) => BoxCloneSyncService::new(service),
        // The descriptor set is part of the program, and a test reads it through this service.
        Err(error) => {
            tracing::error!(%error, "reflection is not served: the descriptor set is damaged");
            BoxCloneSyncService::new(tower::service_fn(|_| async {
                Ok(tonic::Status::unimplemented("reflection is not served").into_http())
            }))
        }
    }
}
