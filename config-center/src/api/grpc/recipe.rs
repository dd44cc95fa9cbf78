//! Lock and Election: etcd's server-side recipes, over the same keys as Go's `concurrency` package,
//! so that a client of one waits for a client of the other.
//!
//! A recipe holds no state: a waiter is a key below the name, attached to a lease, and the oldest
//! key has the lock or leads. Every read and write is a call of the KV and Lease services with the
//! client's own metadata, so a recipe is allowed exactly what its client is allowed.

mod election;
mod lock;
mod observe;
mod place;

pub(super) use election::ElectionService;
pub(super) use lock::LockService;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::Extensions;
use schemas::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use schemas::etcdserverpb::kv_server::Kv as _;
use schemas::etcdserverpb::lease_server::Lease as _;
use schemas::etcdserverpb::range_request::{SortOrder, SortTarget};
use schemas::etcdserverpb::request_op::Request as OpRequest;
use schemas::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::kv::KvService;
use super::lease::LeaseService;
use super::{admit, refused};
use crate::api::Context;
use crate::metrics::Rpc;

/// The lease that a caller without one gets; it is not renewed and runs out by itself.
const SESSION_TTL_S: i64 = 60;

/// Makes the recipe's calls in the client's name.
#[derive(Clone)]
struct Caller {
    context: Arc<Context>,
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Caller {
    fn new(context: &Arc<Context>, metadata: MetadataMap, extensions: Extensions) -> Self {
        Self {
            context: Arc::clone(context),
            metadata,
            extensions,
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        let kv = KvService(Arc::clone(&self.context));
        inner(kv.txn(self.request(txn)).await)
    }

    async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Status> {
        let kv = KvService(Arc::clone(&self.context));
        inner(kv.range(self.request(range)).await)
    }

    async fn delete(&self, key: Bytes) -> Result<Option<ResponseHeader>, Status> {
        let kv = KvService(Arc::clone(&self.context));
        let delete = DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        };
        let deleted = inner(kv.delete_range(self.request(delete)).await)?;
        Ok(deleted.header)
    }

    /// The lease to work with: the client's own, or a new one when it gave none.
    async fn session(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let leases = LeaseService(Arc::clone(&self.context));
        let grant = LeaseGrantRequest {
            ttl: SESSION_TTL_S,
            id: 0,
        };
        Ok(inner(leases.lease_grant(self.request(grant)).await)?.id)
    }
}

/// The code of a failed inner call does not reach the client: etcd's recipes are clients of their
/// own server, and its errors lose their code on the way out. The text stays.
fn inner<T>(outcome: Result<Response<T>, Status>) -> Result<T, Status> {
    outcome
        .map(Response::into_inner)
        .map_err(|status| Status::unknown(status.message()))
}

/// Counts a call and carries it out.
async fn counted<T>(
    context: &Arc<Context>,
    rpc: Rpc,
    metadata: &MetadataMap,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<Response<T>, Status> {
    context.metrics.started(rpc);
    admit(context, rpc, metadata)
        .await
        .map_err(|fault| refused(context, rpc, fault))?;
    match call.await {
        Ok(answer) => {
            context.metrics.handled(rpc, 0);
            Ok(Response::new(answer))
        }
        Err(status) => {
            context.metrics.handled(rpc, status.code() as i32);
            Err(status)
        }
    }
}

/// Below this prefix lie the keys of everybody who waits.
fn prefix_of(name: &Bytes) -> Bytes {
    let mut prefix = name.to_vec();
    prefix.push(b'/');
    prefix.into()
}

/// The key of one lease, as Go writes it: lower-case hexadecimal, a sign when it is negative.
fn key_of(prefix: &Bytes, lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    let mut key = prefix.to_vec();
    key.extend_from_slice(format!("{sign}{:x}", lease.unsigned_abs()).as_bytes());
    key.into()
}

/// The end of the range of everything that begins with `prefix`; one zero byte means no end.
fn prefix_end(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

/// The holder or leader: the key below the prefix that was created first.
fn first_created(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..RangeRequest::default()
    }
}

fn single(key: &Bytes) -> RangeRequest {
    RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    }
}

fn create_revision_is(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

fn put_op(key: &Bytes, value: Bytes, lease: i64) -> RequestOp {
    op(OpRequest::RequestPut(PutRequest {
        key: key.clone(),
        value,
        lease,
        ..PutRequest::default()
    }))
}

fn get_op(range: RangeRequest) -> RequestOp {
    op(OpRequest::RequestRange(range))
}

fn delete_op(key: &Bytes) -> RequestOp {
    op(OpRequest::RequestDeleteRange(DeleteRangeRequest {
        key: key.clone(),
        ..DeleteRangeRequest::default()
    }))
}

fn op(request: OpRequest) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_gos_concurrency_package() {
        let prefix = prefix_of(&Bytes::from_static(b"my/lock"));
        assert_eq!(prefix, "my/lock/");
        assert_eq!(key_of(&prefix, 0x694d_71dd), "my/lock/694d71dd");
        assert_eq!(key_of(&prefix, -1), "my/lock/-1");
        assert_eq!(prefix_end(&prefix), "my/lock0");
        assert_eq!(prefix_end(&Bytes::from_static(b"a\xff")), "b");
        assert_eq!(prefix_end(&Bytes::from_static(b"\xff")), &b"\0"[..]);
    }
}
