//! Lock and Election: etcd's server-side recipes. Not built yet; clients that use Go's
//! `concurrency` package do the same with KV, Watch and Lease and work.

use std::sync::Arc;

use schemas::v3electionpb::election_server::Election;
use schemas::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use schemas::v3lockpb::lock_server::Lock;
use schemas::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::{NoStream, not_implemented};
use crate::api::Context;
use crate::metrics::Rpc;

pub(super) struct LockService(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, _: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        not_implemented(&self.0, Rpc::Lock)
    }

    async fn unlock(&self, _: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        not_implemented(&self.0, Rpc::Unlock)
    }
}

pub(super) struct ElectionService(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Election for ElectionService {
    type ObserveStream = NoStream<LeaderResponse>;

    async fn campaign(
        &self,
        _: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        not_implemented(&self.0, Rpc::Campaign)
    }

    async fn proclaim(
        &self,
        _: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        not_implemented(&self.0, Rpc::Proclaim)
    }

    async fn leader(&self, _: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        not_implemented(&self.0, Rpc::ElectionLeader)
    }

    async fn observe(
        &self,
        _: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        not_implemented(&self.0, Rpc::Observe)
    }

    async fn resign(&self, _: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        not_implemented(&self.0, Rpc::Resign)
    }
}
