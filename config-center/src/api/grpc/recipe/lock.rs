//! The lock service: a queue of keys below the lock's name.

use std::sync::Arc;

use bytes::Bytes;
use schemas::v3lockpb::lock_server::Lock;
use schemas::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::place::{Place, nth_key};
use super::{Caller, counted, first_created, get_op, key_of, prefix_of, single};
use crate::api::Context;
use crate::metrics::Rpc;

pub(in crate::api::grpc) struct LockService(pub(in crate::api::grpc) Arc<Context>);

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (metadata, extensions, lock) = request.into_parts();
        let caller = Caller::new(&self.0, metadata.clone(), extensions);
        counted(&self.0, Rpc::Lock, &metadata, acquire(caller, lock)).await
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (metadata, extensions, unlock) = request.into_parts();
        let caller = Caller::new(&self.0, metadata.clone(), extensions);
        counted(&self.0, Rpc::Unlock, &metadata, async move {
            let header = caller.delete(unlock.key).await?;
            Ok(UnlockResponse { header })
        })
        .await
    }
}

/// Returns when the caller's key is the oldest one. Locking again with the same lease returns at
/// once: the key is there already.
async fn acquire(caller: Caller, lock: LockRequest) -> Result<LockResponse, Status> {
    let lease = caller.session(lock.lease).await?;
    let prefix = prefix_of(&lock.name);
    let key = key_of(&prefix, lease);
    let (mut place, answer) = Place::take(
        &caller,
        key.clone(),
        Bytes::new(),
        lease,
        get_op(single(&key)),
        vec![get_op(first_created(&prefix))],
    )
    .await?;
    let is_owner = nth_key(&answer, 1).is_none_or(|owner| owner.create_revision == place.created);
    let header = if is_owner {
        answer.header
    } else {
        place.reach_front(&prefix).await?;
        // The lease may have ended while its owner waited for others.
        let mine = caller.range(single(&key)).await?;
        if mine.kvs.is_empty() {
            return Err(Status::unknown("mutex: session is expired"));
        }
        mine.header
    };
    place.keep();
    Ok(LockResponse { header, key })
}
