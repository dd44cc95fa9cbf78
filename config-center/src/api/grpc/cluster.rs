//! Cluster: the list of members and its changes, with etcd's headers, which carry no revision.

use std::sync::Arc;

use schemas::etcdserverpb::cluster_server::Cluster;
use schemas::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use schemas::peer::change_members_request::Change;
use tonic::{Request, Response, Status};

use super::counted;
use crate::api::{Context, Fault};
use crate::metrics::Rpc;
use crate::raft::ChangedMembers;

pub(super) struct ClusterService(pub(super) Arc<Context>);

impl ClusterService {
    /// The answer's header, and what the change has led to.
    async fn change(
        &self,
        change: Change,
    ) -> Result<(Option<ResponseHeader>, ChangedMembers), Fault> {
        let changed = self.0.node.change_members(change).await?;
        Ok((Some(self.0.header(0)), changed))
    }
}

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
            Ok(MemberListResponse {
                header: Some(self.0.header(0)),
                members,
            })
        })
        .await
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let (metadata, _, add) = request.into_parts();
        counted(&self.0, Rpc::MemberAdd, &metadata, async {
            let added = Member {
                peer_ur_ls: add.peer_ur_ls.clone(),
                is_learner: add.is_learner,
                ..Member::default()
            };
            let (header, changed) = self.change(Change::Add(add)).await?;
            Ok(MemberAddResponse {
                header,
                member: Some(Member {
                    id: changed.member_id,
                    ..added
                }),
                members: changed.members,
            })
        })
        .await
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let (metadata, _, remove) = request.into_parts();
        counted(&self.0, Rpc::MemberRemove, &metadata, async {
            let (header, changed) = self.change(Change::Remove(remove)).await?;
            Ok(MemberRemoveResponse {
                header,
                members: changed.members,
            })
        })
        .await
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let (metadata, _, update) = request.into_parts();
        counted(&self.0, Rpc::MemberUpdate, &metadata, async {
            let (header, changed) = self.change(Change::Update(update)).await?;
            Ok(MemberUpdateResponse {
                header,
                members: changed.members,
            })
        })
        .await
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let (metadata, _, promote) = request.into_parts();
        counted(&self.0, Rpc::MemberPromote, &metadata, async {
            let (header, changed) = self.change(Change::Promote(promote)).await?;
            Ok(MemberPromoteResponse {
                header,
                members: changed.members,
            })
        })
        .await
    }
}
