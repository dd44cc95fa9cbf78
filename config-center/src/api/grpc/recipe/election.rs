//! The election service: the oldest candidate's key leads, and its value is the proclamation.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use schemas::etcdserverpb::{ResponseHeader, TxnRequest};
use schemas::v3electionpb::election_server::Election;
use schemas::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use tonic::{Request, Response, Status};

use super::observe::Observer;
use super::place::{Place, found_key};
use super::{
    Caller, counted, create_revision_is, delete_op, first_created, get_op, key_of, prefix_of,
    put_op, single,
};
use crate::api::Context;
use crate::api::grpc::{admit, demands_leader, refused};
use crate::metrics::Rpc;

pub(in crate::api::grpc) struct ElectionService(pub(in crate::api::grpc) Arc<Context>);

#[tonic::async_trait]
impl Election for ElectionService {
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (metadata, extensions, campaign) = request.into_parts();
        let caller = Caller::new(&self.0, metadata.clone(), extensions);
        counted(&self.0, Rpc::Campaign, &metadata, win(caller, campaign)).await
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (metadata, extensions, proclaim) = request.into_parts();
        let caller = Caller::new(&self.0, metadata.clone(), extensions);
        counted(&self.0, Rpc::Proclaim, &metadata, async move {
            let leader = proclaim.leader.ok_or_else(no_leader_field)?;
            let lease = caller.session(leader.lease).await?;
            let header =
                change_value(&caller, &leader.key, leader.rev, lease, proclaim.value).await?;
            Ok(ProclaimResponse { header })
        })
        .await
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (metadata, extensions, leader) = request.into_parts();
        let caller = Caller::new(&self.0, metadata.clone(), extensions);
        counted(&self.0, Rpc::ElectionLeader, &metadata, async move {
            let found = caller
                .range(first_created(&prefix_of(&leader.name)))
                .await?;
            match found.kvs.into_iter().next() {
                Some(kv) => Ok(LeaderResponse {
                    header: found.header,
                    kv: Some(kv),
                }),
                None => Err(Status::unknown("election: no leader")),
            }
        })
        .await
    }

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (metadata, extensions, leader) = request.into_parts();
        self.0.metrics.started(Rpc::Observe);
        admit(&self.0, Rpc::Observe, &metadata)
            .await
            .map_err(|fault| refused(&self.0, Rpc::Observe, fault))?;
        let demands_leader = demands_leader(&metadata);
        let caller = Caller::new(&self.0, metadata, extensions);
        let observer = Observer::new(caller, prefix_of(&leader.name), demands_leader);
        let answers = futures::stream::unfold(observer, |mut observer| async move {
            observer.next().await.map(|answer| (answer, observer))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (metadata, extensions, resign) = request.into_parts();
        let caller = Caller::new(&self.0, metadata.clone(), extensions);
        counted(&self.0, Rpc::Resign, &metadata, async move {
            let leader = resign.leader.ok_or_else(no_leader_field)?;
            let txn = TxnRequest {
                compare: vec![create_revision_is(&leader.key, leader.rev)],
                success: vec![delete_op(&leader.key)],
                failure: Vec::new(),
            };
            // Who does not lead has nothing to give up: no error, as in etcd.
            let header = caller.txn(txn).await?.header;
            Ok(ResignResponse { header })
        })
        .await
    }
}

/// Returns when the candidate leads. A candidate who campaigns again with another value changes
/// the value first.
async fn win(caller: Caller, campaign: CampaignRequest) -> Result<CampaignResponse, Status> {
    let lease = caller.session(campaign.lease).await?;
    let prefix = prefix_of(&campaign.name);
    let key = key_of(&prefix, lease);
    let (mut place, answer) = Place::take(
        &caller,
        key.clone(),
        campaign.value.clone(),
        lease,
        get_op(single(&key)),
        Vec::new(),
    )
    .await?;
    let has_other_value = found_key(&answer).is_some_and(|kv| kv.value != campaign.value);
    if !answer.succeeded && has_other_value {
        change_value(&caller, &key, place.created, lease, campaign.value).await?;
    }
    place.reach_front(&prefix).await?;
    let rev = place.created;
    place.keep();
    Ok(CampaignResponse {
        header: answer.header,
        leader: Some(LeaderKey {
            name: campaign.name,
            key,
            rev,
            lease,
        }),
    })
}

/// Puts a value while the key is still in the life that began at `created`.
async fn change_value(
    caller: &Caller,
    key: &Bytes,
    created: i64,
    lease: i64,
    value: Bytes,
) -> Result<Option<ResponseHeader>, Status> {
    let txn = TxnRequest {
        compare: vec![create_revision_is(key, created)],
        success: vec![put_op(key, value, lease)],
        failure: Vec::new(),
    };
    let answer = caller.txn(txn).await?;
    if answer.succeeded {
        Ok(answer.header)
    } else {
        Err(Status::unknown("election: not leader"))
    }
}

fn no_leader_field() -> Status {
    Status::unknown("\"leader\" field must be provided")
}
