//! The traps of the etcd contract, one small story each. Every expectation is etcd's behaviour.

mod auth;
mod history;
mod leases;
mod ranges;
mod restarts;
mod texts;
mod txns;
mod writes;

use bytes::Bytes;
use schemas::command::{Command, command::Op};
use schemas::etcdserverpb::compare::TargetUnion;
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    ResponseOp, TxnRequest, TxnResponse,
};
use schemas::mvccpb::{Event, KeyValue};

use crate::{Applied, KeyRange, Refusal, Reply, State};

fn text(from: &str) -> Bytes {
    Bytes::copy_from_slice(from.as_bytes())
}

fn put_request(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: text(key),
        value: text(value),
        ..PutRequest::default()
    }
}

fn range_request(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest {
        key: text(key),
        range_end: text(range_end),
        ..RangeRequest::default()
    }
}

fn delete_request(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: text(key),
        range_end: text(range_end),
        prev_kv: true,
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn put_op(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put_request(key, value)))
}

fn delete_op(key: &str, range_end: &str) -> RequestOp {
    op(Request::RequestDeleteRange(delete_request(key, range_end)))
}

fn range_op(key: &str, range_end: &str) -> RequestOp {
    op(Request::RequestRange(range_request(key, range_end)))
}

fn txn_op(request: TxnRequest) -> RequestOp {
    op(Request::RequestTxn(request))
}

/// A transaction without compares, so that the first list runs.
fn always(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

fn value_is(key: &str, value: &str) -> Compare {
    Compare {
        key: text(key),
        target: 3,
        target_union: Some(TargetUnion::Value(text(value))),
        ..Compare::default()
    }
}

/// The store of a story, with the reply that each call must have.
#[derive(Default)]
struct Store {
    state: State,
}

impl Store {
    fn apply(&mut self, op: Op) -> Applied {
        self.state.apply(&Command {
            version: crate::state::COMMAND_VERSION,
            op: Some(op),
            ..Command::default()
        })
    }

    fn refused(&mut self, op: Op) -> Refusal {
        let before = format!("{:?}", self.state);
        let applied = self.apply(op);
        assert!(applied.changes.is_empty());
        assert_eq!(before, format!("{:?}", self.state), "nothing is applied");
        applied.reply.expect_err("must be refused")
    }

    fn put_full(&mut self, request: PutRequest) -> PutResponse {
        match self.apply(Op::Put(request)).reply {
            Ok(Reply::Put(response)) => response,
            other => panic!("put answered {other:?}"),
        }
    }

    /// Puts and returns the revision.
    fn put(&mut self, key: &str, value: &str) -> i64 {
        self.put_full(put_request(key, value));
        self.state.revision()
    }

    fn put_leased(&mut self, key: &str, lease: i64) {
        self.put_full(PutRequest {
            lease,
            ..put_request(key, "")
        });
    }

    fn delete(&mut self, key: &str, range_end: &str) -> DeleteRangeResponse {
        match self
            .apply(Op::DeleteRange(delete_request(key, range_end)))
            .reply
        {
            Ok(Reply::DeleteRange(response)) => response,
            other => panic!("delete answered {other:?}"),
        }
    }

    fn txn(&mut self, request: TxnRequest) -> TxnResponse {
        match self.apply(Op::Txn(request)).reply {
            Ok(Reply::Txn(response)) => response,
            other => panic!("txn answered {other:?}"),
        }
    }

    fn compact(&mut self, revision: i64) {
        let request = CompactionRequest {
            revision,
            physical: false,
        };
        let reply = self.apply(Op::Compaction(request)).reply;
        assert!(matches!(reply, Ok(Reply::Compaction(_))), "{reply:?}");
    }

    fn grant(&mut self, id: i64) {
        let reply = self.apply(Op::LeaseGrant(LeaseGrantRequest { id, ttl: 60 }));
        assert!(matches!(reply.reply, Ok(Reply::LeaseGrant(_))));
    }

    fn revoke(&mut self, id: i64) -> Applied {
        let applied = self.apply(Op::LeaseRevoke(LeaseRevokeRequest { id }));
        assert!(matches!(applied.reply, Ok(Reply::LeaseRevoke(_))));
        applied
    }

    fn range(&self, request: &RangeRequest) -> RangeResponse {
        self.state.range(request).expect("readable")
    }

    fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(&range_request(key, "")).kvs.pop()
    }

    fn events(&self, key: &str, range_end: &str, from: i64) -> Result<Vec<Event>, Refusal> {
        let range = KeyRange::new(text(key), text(range_end));
        let page = self.state.events(&range, from, i64::MAX, 1000, true)?;
        assert!(page.next_rev > self.state.revision());
        Ok(page.events)
    }
}

fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter()
        .map(|kv| std::str::from_utf8(&kv.key).expect("text"))
        .collect()
}

/// Each inner answer's header revision; `None` where there is no header.
fn inner_revisions(responses: &[ResponseOp]) -> Vec<Option<i64>> {
    use schemas::etcdserverpb::response_op::Response;
    responses
        .iter()
        .map(|op| {
            let header = match op.response.as_ref()? {
                Response::ResponseRange(response) => response.header,
                Response::ResponsePut(response) => response.header,
                Response::ResponseDeleteRange(response) => response.header,
                Response::ResponseTxn(response) => response.header,
            };
            header.map(|header| header.revision)
        })
        .collect()
}
