//! Maintenance: the member's status; what needs snapshots or alarms is refused by name.

use std::sync::Arc;

use schemas::etcdserverpb::alarm_request::AlarmAction;
use schemas::etcdserverpb::maintenance_server::Maintenance;
use schemas::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};
use tonic::{Request, Response, Status};

use super::{NoStream, counted, not_implemented};
use crate::api::{Context, Fault};
use crate::flags::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::metrics::Rpc;
use crate::raft::ProposeError;

pub(super) struct MaintenanceService(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = NoStream<SnapshotResponse>;

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        counted(&self.0, Rpc::Status, request.metadata(), async {
            let status = self.0.node.status();
            let revision = self.0.engine().read(|state| state.revision());
            let errors = if status.leader_id == 0 {
                vec![ProposeError::NoLeader.to_string()]
            } else {
                Vec::new()
            };
            Ok(StatusResponse {
                header: Some(self.0.header_at(revision, status.term)),
                version: ETCD_VERSION.to_owned(),
                db_size: status.db_size_bytes,
                leader: status.leader_id,
                raft_index: status.raft_index,
                raft_term: status.term,
                raft_applied_index: status.applied_index,
                errors,
                db_size_in_use: status.db_size_in_use_bytes,
                is_learner: status.is_learner,
                storage_version: ETCD_CLUSTER_VERSION.to_owned(),
                // 0: the size of the store is not limited.
                db_size_quota: 0,
                downgrade_info: Some(DowngradeInfo::default()),
            })
        })
        .await
    }

    /// No alarm can be raised yet, so the list is truly empty; raising one is not possible.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let (metadata, _, alarm) = request.into_parts();
        counted(&self.0, Rpc::Alarm, &metadata, async {
            if alarm.action() != AlarmAction::Get || AlarmAction::try_from(alarm.action).is_err() {
                return Err(Fault::NotImplemented(Rpc::Alarm));
            }
            let revision = self.0.engine().read(|state| state.revision());
            Ok(AlarmResponse {
                header: Some(self.0.header(revision)),
                alarms: Vec::new(),
            })
        })
        .await
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        not_implemented(&self.0, Rpc::Defragment)
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        not_implemented(&self.0, Rpc::Hash)
    }

    async fn hash_kv(&self, _: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        not_implemented(&self.0, Rpc::HashKv)
    }

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        not_implemented(&self.0, Rpc::Snapshot)
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let (metadata, _, transfer) = request.into_parts();
        counted(&self.0, Rpc::MoveLeader, &metadata, async {
            self.0.node.move_leader(transfer.target_id).await?;
            Ok(MoveLeaderResponse { header: None })
        })
        .await
    }

    async fn downgrade(
        &self,
        _: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        not_implemented(&self.0, Rpc::Downgrade)
    }
}
