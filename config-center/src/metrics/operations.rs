//! How many operations on keys this member has carried out, under etcd's names.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use config_center_core::{Applied, Change, Reply};
use schemas::etcdserverpb::TxnResponse;
use schemas::etcdserverpb::response_op::Response;

/// Every member applies every write, so each counts them all.
#[derive(Debug, Default)]
pub struct Operations {
    pub(super) puts: AtomicU64,
    pub(super) deletes: AtomicU64,
    pub(super) txns: AtomicU64,
    pub(super) ranges: AtomicU64,
    /// Keys that exist.
    pub(super) keys: AtomicI64,
}

#[derive(Default)]
struct Counted {
    puts: u64,
    deletes: u64,
    ranges: u64,
}

impl Operations {
    /// The state is another one, with so many keys.
    pub(crate) fn replaced(&self, keys: usize) {
        let keys = i64::try_from(keys).unwrap_or(i64::MAX);
        self.keys.store(keys, Ordering::Relaxed);
    }

    pub(crate) fn applied(&self, applied: &Applied) {
        let appeared = |change: &Change| match change {
            Change::Revision(row) if row.tombstone => -1,
            Change::Revision(row) if row.version == 1 => 1,
            _ => 0,
        };
        let appeared: i64 = applied.changes.iter().map(appeared).sum();
        self.keys.fetch_add(appeared, Ordering::Relaxed);
        let mut counted = Counted::default();
        match &applied.reply {
            Ok(Reply::Put(_)) => counted.puts = 1,
            Ok(Reply::DeleteRange(_)) => counted.deletes = 1,
            Ok(Reply::Txn(response)) => {
                self.txns.fetch_add(1, Ordering::Relaxed);
                counted.txn(response);
            }
            // The end of a lease, and v2: as many as there are keys.
            Ok(Reply::LeaseRevoke(_) | Reply::V2(_)) => counted.rows(&applied.changes),
            _ => return,
        }
        self.puts.fetch_add(counted.puts, Ordering::Relaxed);
        self.deletes.fetch_add(counted.deletes, Ordering::Relaxed);
        self.ranges.fetch_add(counted.ranges, Ordering::Relaxed);
    }

    /// A read that was no part of a transaction.
    pub(crate) fn read(&self) {
        self.ranges.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counted {
    fn txn(&mut self, response: &TxnResponse) {
        for operation in &response.responses {
            match &operation.response {
                Some(Response::ResponsePut(_)) => self.puts += 1,
                Some(Response::ResponseDeleteRange(_)) => self.deletes += 1,
                Some(Response::ResponseRange(_)) => self.ranges += 1,
                Some(Response::ResponseTxn(inner)) => self.txn(inner),
                None => {}
            }
        }
    }

    fn rows(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Revision(row) if row.tombstone => self.deletes += 1,
                Change::Revision(_) => self.puts += 1,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use config_center_core::{Caller, State};
    use schemas::command::command::Op;
    use schemas::etcdserverpb::request_op::Request;
    use schemas::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    };

    use super::*;

    #[test]
    fn operations_count_wherever_they_are_nested() {
        let put = || PutRequest {
            key: "k".into(),
            ..PutRequest::default()
        };
        let delete = DeleteRangeRequest {
            key: "k".into(),
            ..DeleteRangeRequest::default()
        };
        let range = RangeRequest {
            key: "k".into(),
            ..RangeRequest::default()
        };
        let operation = |request| RequestOp {
            request: Some(request),
        };
        let inner = TxnRequest {
            success: vec![
                operation(Request::RequestPut(put())),
                operation(Request::RequestRange(range)),
            ],
            ..TxnRequest::default()
        };
        let outer = TxnRequest {
            success: vec![operation(Request::RequestTxn(inner))],
            ..TxnRequest::default()
        };
        let operations = Operations::default();
        let mut state = State::default();
        for op in [Op::Put(put()), Op::Txn(outer), Op::DeleteRange(delete)] {
            operations.applied(&state.apply(&Caller::Anonymous.command(op)));
        }
        assert_eq!(operations.keys.load(Ordering::Relaxed), 0);
        let refused = Op::Put(PutRequest { lease: 7, ..put() });
        operations.applied(&state.apply(&Caller::Anonymous.command(refused)));
        let counts = [
            &operations.puts,
            &operations.deletes,
            &operations.txns,
            &operations.ranges,
        ];
        assert_eq!(
            counts.map(|count| count.load(Ordering::Relaxed)),
            [2, 1, 1, 1]
        );
    }
}
