//! Clients that hold leases: a key for each, renewed through all members for a while, then left to
//! end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemas::etcdserverpb::kv_client::KvClient;
use schemas::etcdserverpb::lease_client::LeaseClient;
use schemas::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest};
use tonic::Status;
use tonic::transport::Channel;

use crate::check::leases::Leased;
use crate::clients::{Connections, LEASED, PATIENCE, Shared};
use crate::dice::Dice;

/// Asked-for times to live, in seconds.
const TTL_S: (u64, u64) = (2, 5);
const RENEWALS: u64 = 8;

pub(crate) async fn hold(shared: Arc<Shared>, number: usize) {
    let mut dice = Dice::new(shared.seed, 2_000 + number as u64);
    let mut connections = Connections::new(shared.members());
    let mut count = 0;
    while !shared.is_stopped() {
        count += 1;
        let key = format!("{LEASED}{number}/{count}");
        match hold_one(&shared, &mut connections, &mut dice, key).await {
            Some(leased) => shared.record_lease(leased),
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// `None` when there is no lease to speak of.
async fn hold_one(
    shared: &Shared,
    connections: &mut Connections,
    dice: &mut Dice,
    key: String,
) -> Option<Leased> {
    let member = connections.any(dice);
    let called_ns = shared.now_ns();
    let ttl_s = i64::try_from(dice.between(TTL_S.0, TTL_S.1)).unwrap_or(2);
    let granted = tokio::time::timeout(PATIENCE, async {
        let request = LeaseGrantRequest { id: 0, ttl: ttl_s };
        let answer = LeaseClient::new(connections.to(member))
            .lease_grant(request)
            .await?;
        Ok::<_, Status>(answer.into_inner())
    });
    let Ok(Ok(lease)) = granted.await else {
        connections.renew(member);
        return None;
    };
    let put = tokio::time::timeout(PATIENCE, async {
        let request = PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(key.as_bytes()),
            lease: lease.id,
            ..Default::default()
        };
        KvClient::new(connections.to(member)).put(request).await
    });
    if !matches!(put.await, Ok(Ok(_))) {
        // It may be there all the same, and must end all the same.
        connections.renew(member);
    }
    let mut leased = Leased {
        key,
        ttl_ns: u64::try_from(lease.ttl).unwrap_or(0) * 1_000_000_000,
        renewed_call_ns: called_ns,
        last_attempt_ns: shared.now_ns(),
    };
    for _ in 0..dice.below(RENEWALS) {
        let longest_ms = leased.ttl_ns / 1_000_000;
        // Sometimes too late: then the lease may be gone.
        tokio::time::sleep(Duration::from_millis(dice.between(100, longest_ms))).await;
        let member = connections.any(dice);
        let called_ns = shared.now_ns();
        let renewed = tokio::time::timeout(PATIENCE, renew(connections.to(member), lease.id)).await;
        leased.last_attempt_ns = shared.now_ns();
        match renewed {
            Ok(Ok(0)) => break,
            Ok(Ok(_)) => leased.renewed_call_ns = called_ns,
            Ok(Err(_)) | Err(_) => connections.renew(member),
        }
        if shared.is_stopped() {
            break;
        }
    }
    Some(leased)
}

/// The TTL that the answer names; 0 when there is no such lease any more.
async fn renew(channel: Channel, id: i64) -> Result<i64, Status> {
    let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
    let answer = LeaseClient::new(channel).lease_keep_alive(requests).await?;
    let answer = answer.into_inner().message().await?;
    answer
        .map(|answer| answer.ttl)
        .ok_or_else(|| Status::unavailable("the stream ended"))
}
