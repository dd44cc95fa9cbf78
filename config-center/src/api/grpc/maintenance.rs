//! Maintenance: the member's status, alarms, digests, snapshots and the compaction of its files.

mod digest;
mod downgrade;
mod snapshot;

use std::sync::Arc;

use config_center_core::{Alarm, Refusal, Reply, mvcc::DigestRows};
use schemas::command::command::Op;
use schemas::etcdserverpb::alarm_request::AlarmAction;
use schemas::etcdserverpb::downgrade_request::DowngradeAction;
use schemas::etcdserverpb::maintenance_server::Maintenance;
use schemas::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, StatusRequest, StatusResponse,
};
use tonic::{Request, Response, Status};

use super::{admit, counted, refused};
use crate::api::{Context, Fault};
use crate::auth::Credentials;
use crate::flags::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::metrics::Rpc;
use crate::raft::ProposeError;

pub(super) struct MaintenanceService(pub(super) Arc<Context>);

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = snapshot::Pieces;

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        counted(&self.0, Rpc::Status, request.metadata(), async {
            let status = self.0.node.status();
            let (revision, alarms) = self
                .0
                .engine()
                .read(|state| (state.revision(), state.alarms()));
            let mut errors = Vec::new();
            if status.leader_id == 0 {
                errors.push(ProposeError::NoLeader.to_string());
            }
            errors.extend(alarms.into_iter().map(alarm_text));
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
                is_learner: self.0.node.is_learner(),
                storage_version: ETCD_CLUSTER_VERSION.to_owned(),
                db_size_quota: self.0.limits.quota_bytes.unwrap_or(-1),
                downgrade_info: Some(DowngradeInfo::default()),
            })
        })
        .await
    }

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let (metadata, _, alarm) = request.into_parts();
        counted(&self.0, Rpc::Alarm, &metadata, async {
            if alarm.action == AlarmAction::Get as i32 {
                self.0.node.read_barrier().await?;
                let (alarms, revision) = self
                    .0
                    .engine()
                    .read(|state| (state.alarms_of(alarm.alarm), state.revision()));
                return Ok(AlarmResponse {
                    header: Some(self.0.header(revision)),
                    alarms,
                });
            }
            let credentials = Credentials::of(&metadata);
            match self.0.propose(&credentials, Op::Alarm(alarm)).await? {
                (Reply::Alarm(reply), header) => Ok(AlarmResponse {
                    header: Some(header),
                    ..reply
                }),
                _ => Err(Fault::MismatchedReply),
            }
        })
        .await
    }

    /// Of this member only, and without a header, as in etcd.
    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        counted(&self.0, Rpc::Defragment, request.metadata(), async {
            let before = self.0.node.status().db_size_bytes;
            self.0.node.defragment().await?;
            let after = self.0.node.status().db_size_bytes;
            tracing::info!(before, after, "finished defragment");
            Ok(DefragmentResponse { header: None })
        })
        .await
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        counted(&self.0, Rpc::Hash, request.metadata(), async {
            let (input, leases, alarms) = self
                .0
                .engine()
                .read(|state| (state.digest_rows(0), state.leases(), state.alarms()));
            let input = input?;
            let current = input.current;
            let hash = in_background(move || digest::of_state(&input, &leases, &alarms)).await?;
            Ok(HashResponse {
                header: Some(self.0.header(current)),
                hash,
            })
        })
        .await
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        counted(&self.0, Rpc::HashKv, &metadata, async {
            let input = self
                .0
                .engine()
                .read(|state| state.digest_rows(asked.revision))?;
            let DigestRows {
                revision,
                compacted,
                current,
                ..
            } = input;
            let hash = in_background(move || digest::of_keys(&input)).await?;
            Ok(HashKvResponse {
                header: Some(self.0.header(current)),
                hash,
                compact_revision: compacted,
                hash_revision: revision,
            })
        })
        .await
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.0.metrics.started(Rpc::Snapshot);
        admit(&self.0, Rpc::Snapshot, request.metadata())
            .await
            .map_err(|fault| refused(&self.0, Rpc::Snapshot, fault))?;
        snapshot::stream(&self.0).await.map(Response::new)
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
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        counted(&self.0, Rpc::Downgrade, &metadata, async {
            match DowngradeAction::try_from(asked.action) {
                Ok(DowngradeAction::Validate) => downgrade::validate(&asked.version)?,
                Ok(DowngradeAction::Enable) => {
                    downgrade::validate(&asked.version)?;
                    return Err(Fault::NoDowngrade);
                }
                // Nothing to cancel is no error in etcd either.
                Ok(DowngradeAction::Cancel) => {}
                Err(_) => return Err(Fault::Refused(Refusal::UnknownMethod)),
            }
            self.0.node.read_barrier().await?;
            let revision = self.0.engine().revision();
            Ok(DowngradeResponse {
                header: Some(self.0.header(revision)),
                version: downgrade::CLUSTER_MINOR.to_owned(),
            })
        })
        .await
    }
}

/// As the status of an etcd up to 3.6 has it, and tools look for it.
pub(crate) fn alarm_text(alarm: Alarm) -> String {
    format!("memberID:{} alarm:{} ", alarm.member_id, alarm.kind_name())
}

/// Work that would keep a thread of the runtime busy.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Fault::NotProposed(ProposeError::Stopped))
}
