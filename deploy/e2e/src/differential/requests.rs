//! Requests of the v3 API made of generated operations: references become the revisions and ids that
//! they have on one server.

use bytes::Bytes;
use schemas::etcdserverpb::compare::TargetUnion;
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use super::normal::Base;
use super::operations::{
    Comparison, Delete, End, Operand, Put, Range, Revision, Txn, TxnOperation,
};

const FIRST_LEASE: i64 = 7_000;

/// What is known of one server in the middle of a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) base: Base,
    /// The newest revision, as the last header told.
    pub(super) newest: i64,
}

impl Known {
    /// At the start of a sequence.
    pub(super) fn at(revision: i64) -> Self {
        Self {
            base: Base(revision),
            newest: revision,
        }
    }

    pub(super) fn revision(&self, revision: Revision) -> i64 {
        match revision {
            Revision::Latest => 0,
            Revision::SinceStart(count) => self.base.0 + count,
            Revision::Ago(count) => self.newest - count,
            Revision::Raw(raw) => raw,
        }
    }

    fn since_start(&self, count: Option<i64>) -> i64 {
        count.map_or(0, |count| self.base.0 + count)
    }

    pub(super) fn put(&self, put: &Put) -> PutRequest {
        PutRequest {
            key: put.key.clone().into(),
            value: put.value.clone().into(),
            lease: put.lease.map_or(0, lease),
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        }
    }

    pub(super) fn range(&self, range: &Range) -> RangeRequest {
        RangeRequest {
            key: range.key.clone().into(),
            range_end: range_end(&range.key, &range.end),
            limit: range.limit,
            revision: self.revision(range.revision),
            sort_order: range.order,
            sort_target: range.target,
            serializable: range.serializable,
            keys_only: range.keys_only,
            count_only: range.count_only,
            min_mod_revision: self.since_start(range.min_mod),
            max_mod_revision: self.since_start(range.max_mod),
            min_create_revision: self.since_start(range.min_create),
            max_create_revision: self.since_start(range.max_create),
        }
    }

    pub(super) fn delete(&self, delete: &Delete) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: delete.key.clone().into(),
            range_end: range_end(&delete.key, &delete.end),
            prev_kv: delete.prev_kv,
        }
    }

    pub(super) fn txn(&self, txn: &Txn) -> TxnRequest {
        let list = |operations: &[TxnOperation]| {
            operations
                .iter()
                .map(|operation| RequestOp {
                    request: match operation {
                        TxnOperation::Put(put) => Some(Request::RequestPut(self.put(put))),
                        TxnOperation::Range(range) => {
                            Some(Request::RequestRange(self.range(range)))
                        }
                        TxnOperation::Delete(delete) => {
                            Some(Request::RequestDeleteRange(self.delete(delete)))
                        }
                        TxnOperation::Txn(txn) => Some(Request::RequestTxn(self.txn(txn))),
                        TxnOperation::Empty => None,
                    },
                })
                .collect()
        };
        TxnRequest {
            compare: txn.compares.iter().map(|one| self.compare(one)).collect(),
            success: list(&txn.success),
            failure: list(&txn.failure),
        }
    }

    fn compare(&self, comparison: &Comparison) -> Compare {
        let (target, target_union) = match &comparison.operand {
            Operand::Version(version) => (0, Some(TargetUnion::Version(*version))),
            Operand::Create(count) => {
                let revision = self.base.0 + count;
                (1, Some(TargetUnion::CreateRevision(revision)))
            }
            Operand::Mod(count) => (2, Some(TargetUnion::ModRevision(self.base.0 + count))),
            Operand::Value(value) => (3, Some(TargetUnion::Value(value.clone().into()))),
            Operand::Lease(slot) => (4, Some(TargetUnion::Lease(lease(*slot)))),
            Operand::Missing(target) => (*target, None),
        };
        Compare {
            result: comparison.result,
            target,
            key: comparison.key.clone().into(),
            range_end: range_end(&comparison.key, &comparison.end),
            target_union,
        }
    }
}

/// The id that both servers are asked to use; slot 0 is never granted.
pub(super) fn lease(slot: u8) -> i64 {
    FIRST_LEASE + i64::from(slot)
}

pub(super) fn range_end(key: &[u8], end: &End) -> Bytes {
    match end {
        End::Single => Bytes::new(),
        End::Open => vec![0].into(),
        End::Key(key) => key.clone().into(),
        End::Prefix => {
            let mut end = key.to_vec();
            while let Some(last) = end.pop() {
                if last < u8::MAX {
                    end.push(last + 1);
                    return end.into();
                }
            }
            vec![0].into()
        }
    }
}
