//! Cluster: the list of members; changing it comes with clusters of more than one.

use std::sync::Arc;

use schemas::etcdserverpb::cluster_server::Cluster;
use schemas::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::{counted, not_implemented};
use crate::api::Context;
use crate::metrics::Rpc;

pub(super) struct ClusterService(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let (metadata, _, list) = request.into_parts();
        counted(&self.0, Rpc::MemberList, &metadata, async {
            if list.linearizable {
                self.0.node.read_barrier().await?;
            }
            let members = self.0.node.members();
            // Headers of this service carry no revision: membership has none.
            Ok(MemberListResponse {
                header: Some(self.0.header(0)),
                members,
            })
        })
        .await
    }

    async fn member_add(
        &self,
        _: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        not_implemented(&self.0, Rpc::MemberAdd)
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        not_implemented(&self.0, Rpc::MemberRemove)
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        not_implemented(&self.0, Rpc::MemberUpdate)
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        not_implemented(&self.0, Rpc::MemberPromote)
    }
}
