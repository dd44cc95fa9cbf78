//! What a command will cost in the database, as an estimate: etcd's, so that the same writes are
//! refused at the same point. Free are reads, deletions, compactions and whatever gives space back.

use schemas::command::V2Write;
use schemas::command::command::Op;
use schemas::command::v2_write::Verb;
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::{PutRequest, RequestOp, TxnRequest};

/// The limit when none is configured.
pub const DEFAULT_QUOTA_BYTES: i64 = 2 << 30;
/// What a key costs beside itself and its value.
const KEY_OVERHEAD_BYTES: u64 = 256;
/// What a lease costs.
const LEASE_BYTES: u64 = 64;

/// 0 when the command needs no space.
#[must_use]
pub fn cost_bytes(op: &Op) -> u64 {
    match op {
        Op::Put(put) => put_bytes(put),
        Op::Txn(txn) => txn_bytes(txn),
        Op::LeaseGrant(_) => LEASE_BYTES,
        Op::V2Write(write) if !gives_back(write) => {
            KEY_OVERHEAD_BYTES + write.path.len() as u64 + write.value.len() as u64
        }
        _ => 0,
    }
}

fn gives_back(write: &V2Write) -> bool {
    matches!(write.verb(), Verb::Delete | Verb::CompareAndDelete)
}

fn put_bytes(put: &PutRequest) -> u64 {
    KEY_OVERHEAD_BYTES + put.key.len() as u64 + put.value.len() as u64
}

/// The dearer of the two lists, nested transactions included: which one is taken is not known yet.
fn txn_bytes(txn: &TxnRequest) -> u64 {
    let list = |ops: &[RequestOp]| ops.iter().map(op_bytes).sum::<u64>();
    list(&txn.success).max(list(&txn.failure))
}

fn op_bytes(op: &RequestOp) -> u64 {
    match &op.request {
        Some(Request::RequestPut(put)) => put_bytes(put),
        Some(Request::RequestTxn(txn)) => txn_bytes(txn),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use schemas::etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, RangeRequest,
    };

    use super::*;

    fn put(key: &'static str, value: &'static str) -> PutRequest {
        PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
            ..PutRequest::default()
        }
    }

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            compare: Vec::new(),
            success,
            failure,
        }
    }

    #[test]
    fn only_what_adds_to_the_database_costs() {
        assert_eq!(cost_bytes(&Op::Put(put("abc", "12345"))), 264);
        let grant = LeaseGrantRequest { id: 1, ttl: 9 };
        assert_eq!(cost_bytes(&Op::LeaseGrant(grant)), 64);
        for free in [
            Op::DeleteRange(DeleteRangeRequest::default()),
            Op::Compaction(CompactionRequest::default()),
            Op::LeaseRevoke(LeaseRevokeRequest::default()),
        ] {
            assert_eq!(cost_bytes(&free), 0);
        }
    }

    #[test]
    fn a_transaction_costs_its_dearer_list_with_everything_nested() {
        let free = || {
            vec![
                op(Request::RequestRange(RangeRequest::default())),
                op(Request::RequestDeleteRange(DeleteRangeRequest::default())),
            ]
        };
        assert_eq!(cost_bytes(&Op::Txn(txn(free(), free()))), 0);
        let one = || op(Request::RequestPut(put("a", "1")));
        assert_eq!(cost_bytes(&Op::Txn(txn(vec![one()], free()))), 258);
        assert_eq!(
            cost_bytes(&Op::Txn(txn(vec![one()], vec![one(), one()]))),
            516
        );
        let nested = txn(free(), vec![one(), one(), one()]);
        let outer = txn(vec![one(), op(Request::RequestTxn(nested))], Vec::new());
        assert_eq!(cost_bytes(&Op::Txn(outer)), 4 * 258);
    }
}
