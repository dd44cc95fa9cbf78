//! Single blocking questions to one member, each on a connection of its own and with a deadline;
//! `None` when there was no good answer.

use std::time::Duration;

use e2e::store::runtime;
use schemas::etcdserverpb::cluster_client::ClusterClient;
use schemas::etcdserverpb::maintenance_client::MaintenanceClient;
use schemas::etcdserverpb::{
    HashKvRequest, Member, MemberAddRequest, MemberListRequest, MemberRemoveRequest,
    MoveLeaderRequest, StatusRequest, StatusResponse,
};
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(2);
/// A change of membership goes through consensus twice.
const CHANGE_PATIENCE: Duration = Duration::from_secs(8);

/// A connection that is made when it is first used.
pub(crate) fn channel(url: &str) -> Channel {
    let endpoint =
        Endpoint::from_shared(url.to_owned()).expect("the campaign's own URLs are well-formed");
    let _inside = runtime().enter();
    endpoint.connect_timeout(PATIENCE).connect_lazy()
}

fn ask<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Option<T> {
    let answer = runtime().block_on(async { tokio::time::timeout(patience, call).await });
    Some(answer.ok()?.ok()?.into_inner())
}

pub(crate) fn status(url: &str) -> Option<StatusResponse> {
    let mut client = MaintenanceClient::new(channel(url));
    ask(PATIENCE, client.status(StatusRequest {}))
}

/// The digest of everything up to this revision.
pub(crate) fn hash_kv(url: &str, revision: i64) -> Option<u32> {
    let mut client = MaintenanceClient::new(channel(url));
    let answer = ask(CHANGE_PATIENCE, client.hash_kv(HashKvRequest { revision }))?;
    Some(answer.hash)
}

pub(crate) fn move_leader(url: &str, to: u64) -> Option<()> {
    let mut client = MaintenanceClient::new(channel(url));
    let request = MoveLeaderRequest { target_id: to };
    ask(CHANGE_PATIENCE, client.move_leader(request)).map(drop)
}

pub(crate) fn members(url: &str) -> Option<Vec<Member>> {
    let mut client = ClusterClient::new(channel(url));
    let request = MemberListRequest { linearizable: true };
    Some(ask(CHANGE_PATIENCE, client.member_list(request))?.members)
}

pub(crate) fn remove_member(url: &str, id: u64) -> Option<()> {
    let mut client = ClusterClient::new(channel(url));
    ask(
        CHANGE_PATIENCE,
        client.member_remove(MemberRemoveRequest { id }),
    )
    .map(drop)
}

pub(crate) fn add_member(url: &str, peer_url: &str) -> Option<()> {
    let mut client = ClusterClient::new(channel(url));
    let request = MemberAddRequest {
        peer_ur_ls: vec![peer_url.to_owned()],
        is_learner: false,
    };
    ask(CHANGE_PATIENCE, client.member_add(request)).map(drop)
}
