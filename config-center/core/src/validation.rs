//! What can be decided about a request without the state: done by the API before a proposal, so
//! that nonsense never reaches the log. State-dependent checks are in `State::apply`.

use schemas::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, TxnRequest,
};

use crate::refusal::Refusal;

/// etcd's default for `--max-txn-ops`.
pub const DEFAULT_MAX_TXN_OPS: usize = 128;

pub fn check_range(_request: &RangeRequest) -> Result<(), Refusal> {
    todo!()
}

pub fn check_put(_request: &PutRequest) -> Result<(), Refusal> {
    todo!()
}

pub fn check_delete_range(_request: &DeleteRangeRequest) -> Result<(), Refusal> {
    todo!()
}

/// The whole tree: empty keys, empty operations, the number of operations, duplicate keys.
pub fn check_txn(_request: &TxnRequest, _max_ops: usize) -> Result<(), Refusal> {
    todo!()
}

pub fn check_lease_grant(_request: &LeaseGrantRequest) -> Result<(), Refusal> {
    todo!()
}

/// Only ranges at the top level: needs no proposal. A nested transaction is never read-only.
#[must_use]
pub fn is_read_only(_request: &TxnRequest) -> bool {
    todo!()
}

/// Read-only, and every range allows a local read: needs no read barrier either.
#[must_use]
pub fn is_serializable(_request: &TxnRequest) -> bool {
    todo!()
}
