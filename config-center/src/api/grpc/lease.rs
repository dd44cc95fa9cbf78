//! Lease: grants and revocations go through consensus; renewals touch only the leader's clock, and
//! only after it has confirmed that it still leads.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::pin::Pin;
use std::sync::Arc;

use config_center_core::{Access, Reply, lease, validation};
use futures::Stream;
use schemas::command::command::Op;
use schemas::etcdserverpb::lease_server::Lease;
use schemas::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::{admit, counted, refused, status};
use crate::api::{Context, Fault};
use crate::auth::Credentials;
use crate::metrics::Rpc;

/// What etcd answers as the TTL of a lease that does not exist.
const UNKNOWN_TTL_S: i64 = -1;

pub(super) struct LeaseService(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let (metadata, _, mut grant) = request.into_parts();
        counted(&self.0, Rpc::LeaseGrant, &metadata, async {
            validation::check_lease_grant(&grant)?;
            // Both are decided before the proposal, so that every member applies the same.
            grant.ttl =
                lease::granted_ttl_s(grant.ttl, lease::min_ttl_s(self.0.limits.election_ms));
            if grant.id == 0 {
                grant.id = self.free_id();
            }
            let credentials = Credentials::of(&metadata);
            match self.0.propose(&credentials, Op::LeaseGrant(grant)).await? {
                (Reply::LeaseGrant(reply), header) => Ok(LeaseGrantResponse {
                    header: Some(header),
                    ..reply
                }),
                _ => Err(Fault::MismatchedReply),
            }
        })
        .await
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let (metadata, _, revoke) = request.into_parts();
        counted(&self.0, Rpc::LeaseRevoke, &metadata, async {
            let credentials = Credentials::of(&metadata);
            match self
                .0
                .propose(&credentials, Op::LeaseRevoke(revoke))
                .await?
            {
                (Reply::LeaseRevoke(_), header) => Ok(LeaseRevokeResponse {
                    header: Some(header),
                }),
                _ => Err(Fault::MismatchedReply),
            }
        })
        .await
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        self.0.metrics.started(Rpc::LeaseKeepAlive);
        admit(&self.0, Rpc::LeaseKeepAlive, &metadata)
            .await
            .map_err(|fault| refused(&self.0, Rpc::LeaseKeepAlive, fault))?;
        let renewals = Renewals {
            context: Arc::clone(&self.0),
            credentials: Credentials::of(&metadata),
            requests,
            code: 1,
            ended: false,
        };
        let answers = futures::stream::unfold(renewals, |mut renewals| async move {
            renewals.next().await.map(|answer| (answer, renewals))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        counted(&self.0, Rpc::LeaseTimeToLive, &metadata, async {
            self.0.node.read_barrier().await?;
            // Only the keys say more than that the lease exists.
            let access = if asked.keys {
                Access::LeaseRead(asked.id)
            } else {
                Access::Authenticated
            };
            let credentials = Credentials::of(&metadata);
            self.0.permit(&credentials, access).await?;
            let remaining_s = self.0.node.lease_remaining_s(asked.id).await?;
            // Again, under the hold of the state that the keys are read with.
            let (granted, revision) = self
                .0
                .read(&credentials, access, |state| {
                    (state.lease(asked.id), state.revision())
                })
                .await?;
            let mut answer = LeaseTimeToLiveResponse {
                header: Some(self.0.header(revision)),
                id: asked.id,
                ttl: UNKNOWN_TTL_S,
                ..LeaseTimeToLiveResponse::default()
            };
            if let (Some((granted_ttl_s, keys)), Some(remaining_s)) = (granted, remaining_s) {
                answer.ttl = remaining_s;
                answer.granted_ttl = granted_ttl_s;
                if asked.keys {
                    answer.keys = keys;
                }
            }
            Ok(answer)
        })
        .await
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let metadata = request.metadata();
        counted(&self.0, Rpc::LeaseLeases, metadata, async {
            self.0.node.read_barrier().await?;
            let (leases, revision) = self
                .0
                .read(&Credentials::of(metadata), Access::EveryLease, |state| {
                    (state.leases(), state.revision())
                })
                .await?;
            Ok(LeaseLeasesResponse {
                header: Some(self.0.header(revision)),
                leases: leases
                    .into_iter()
                    .map(|(id, _)| LeaseStatus { id })
                    .collect(),
            })
        })
        .await
    }
}

impl LeaseService {
    /// A random positive number that no lease has. Should another grant take it in between, the
    /// command is refused as a duplicate like any other.
    fn free_id(&self) -> i64 {
        loop {
            // Each RandomState is seeded from the system's randomness plus a counter.
            let random = RandomState::new().hash_one(self.0.member_id());
            let id = i64::try_from(random >> 1).unwrap_or(i64::MAX);
            if id != 0 && self.0.engine().read(|state| state.lease(id).is_none()) {
                return id;
            }
        }
    }
}

/// One keep-alive stream: an answer per request, in order, until the client closes its side.
struct Renewals {
    context: Arc<Context>,
    credentials: Credentials,
    requests: Streaming<LeaseKeepAliveRequest>,
    /// The gRPC code to count at the end; Canceled unless something else happened.
    code: i32,
    ended: bool,
}

impl Renewals {
    async fn next(&mut self) -> Option<Result<LeaseKeepAliveResponse, Status>> {
        if self.ended {
            return None;
        }
        let message = tokio::select! {
            message = self.requests.message() => message,
            () = self.context.stopping.cancelled() => Err(status::stopped()),
        };
        let answer = match message {
            Ok(Some(request)) => self.renew(request.id).await.map_err(Status::from),
            Ok(None) => {
                self.code = 0;
                return None;
            }
            Err(error) => Err(status::received_too_large(&error).unwrap_or(error)),
        };
        if let Err(error) = &answer {
            self.code = error.code() as i32;
            self.ended = true;
        }
        Some(answer)
    }

    async fn renew(&self, id: i64) -> Result<LeaseKeepAliveResponse, Fault> {
        // What the cluster has agreed on decides, so wait for it; renewing waits again for itself.
        if self.context.engine().auth_enabled() {
            self.context.node.read_barrier().await?;
            self.context
                .permit(&self.credentials, Access::LeaseWrite(id))
                .await?;
        }
        // An unknown lease is answered with 0, not with an error: the stream serves other leases.
        let ttl = self.context.node.renew_lease(id).await?.unwrap_or(0);
        let revision = self.context.engine().revision();
        Ok(LeaseKeepAliveResponse {
            header: Some(self.context.header(revision)),
            id,
            ttl,
        })
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        self.context.metrics.handled(Rpc::LeaseKeepAlive, self.code);
    }
}
