//! KV over the network: headers, errors and the traps that clients step into.

use schemas::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::response_op::Response;
use schemas::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tonic::Code;

use crate::fixture::{Fixture, assert_status, bytes, put, range};

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

#[tokio::test]
async fn a_fresh_store_is_at_revision_one_and_headers_are_complete() {
    let fixture = Fixture::start().await;
    let header = fixture
        .kv()
        .range(range("a"))
        .await
        .unwrap()
        .into_inner()
        .header
        .unwrap();
    assert_eq!(header.revision, 1);
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term >= 1);
    assert_eq!(fixture.put("a", "1").await, 2);
    // Deleting nothing changes nothing.
    assert_eq!(fixture.delete("nothing").await, 2);
    assert_eq!(fixture.delete("a").await, 3);
    fixture.stop().await;
}

#[tokio::test]
async fn an_old_read_shows_the_current_revision_in_its_header() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    fixture.put("a", "2").await;
    for serializable in [false, true] {
        let old = RangeRequest {
            revision: 2,
            serializable,
            ..range("a")
        };
        let answer = fixture.kv().range(old).await.unwrap().into_inner();
        assert_eq!(answer.header.unwrap().revision, 3);
        assert_eq!(answer.kvs[0].value, "1");
        assert_eq!((answer.kvs[0].version, answer.kvs[0].mod_revision), (1, 2));
    }
    fixture.stop().await;
}

#[tokio::test]
async fn count_ignores_the_limit() {
    let fixture = Fixture::start().await;
    for key in ["a1", "a2", "a3"] {
        fixture.put(key, "x").await;
    }
    let limited = RangeRequest {
        range_end: bytes("b"),
        limit: 2,
        ..range("a")
    };
    let answer = fixture.kv().range(limited).await.unwrap().into_inner();
    assert_eq!((answer.kvs.len(), answer.count, answer.more), (2, 3, true));
    fixture.stop().await;
}

#[tokio::test]
async fn prev_kv_and_version_follow_the_life_of_a_key() {
    let fixture = Fixture::start().await;
    let with_prev = PutRequest {
        prev_kv: true,
        ..put("k", "1")
    };
    let first = fixture.kv().put(with_prev).await.unwrap().into_inner();
    assert_eq!(first.prev_kv, None);
    let with_prev = PutRequest {
        prev_kv: true,
        ..put("k", "2")
    };
    let second = fixture
        .kv()
        .put(with_prev)
        .await
        .unwrap()
        .into_inner()
        .prev_kv
        .unwrap();
    assert_eq!((second.value, second.version), (bytes("1"), 1));
    let delete = DeleteRangeRequest {
        key: bytes("k"),
        prev_kv: true,
        ..DeleteRangeRequest::default()
    };
    let deleted = fixture
        .kv()
        .delete_range(delete)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (deleted.deleted, deleted.prev_kvs[0].value.clone()),
        (1, bytes("2"))
    );
    fixture.put("k", "3").await;
    let kv = fixture
        .kv()
        .range(range("k"))
        .await
        .unwrap()
        .into_inner()
        .kvs
        .remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
    fixture.stop().await;
}

#[tokio::test]
async fn errors_have_etcds_codes_and_texts() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    let mut kv = fixture.kv();
    let no_key = "etcdserver: key is not provided";
    assert_status(kv.range(range("")).await, Code::InvalidArgument, no_key);
    assert_status(kv.put(put("", "x")).await, Code::InvalidArgument, no_key);
    let empty = DeleteRangeRequest {
        range_end: bytes("z"),
        ..DeleteRangeRequest::default()
    };
    assert_status(kv.delete_range(empty).await, Code::InvalidArgument, no_key);
    assert_status(
        kv.put(PutRequest {
            ignore_value: true,
            ..put("a", "x")
        })
        .await,
        Code::InvalidArgument,
        "etcdserver: value is provided",
    );
    assert_status(
        kv.put(PutRequest {
            ignore_lease: true,
            lease: 5,
            ..put("a", "x")
        })
        .await,
        Code::InvalidArgument,
        "etcdserver: lease is provided",
    );
    // The lease is looked for before the key.
    assert_status(
        kv.put(PutRequest {
            ignore_value: true,
            lease: 5,
            ..put("new", "")
        })
        .await,
        Code::NotFound,
        "etcdserver: requested lease not found",
    );
    assert_status(
        kv.put(PutRequest {
            ignore_value: true,
            ..put("new", "")
        })
        .await,
        Code::InvalidArgument,
        "etcdserver: key not found",
    );
    assert_status(
        kv.range(RangeRequest {
            revision: 99,
            ..range("a")
        })
        .await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    assert_status(
        kv.range(RangeRequest {
            sort_order: 9,
            ..range("a")
        })
        .await,
        Code::InvalidArgument,
        "etcdserver: invalid sort option",
    );
    assert_status(
        kv.compact(CompactionRequest {
            revision: 99,
            physical: false,
        })
        .await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_compacted_revision_itself_stays_readable() {
    let fixture = Fixture::start().await;
    for value in ["1", "2", "3"] {
        fixture.put("a", value).await;
    }
    let mut kv = fixture.kv();
    let compact = CompactionRequest {
        revision: 3,
        physical: true,
    };
    let header = kv
        .compact(compact)
        .await
        .unwrap()
        .into_inner()
        .header
        .unwrap();
    assert_eq!(header.revision, 4);
    let at = |revision| RangeRequest {
        revision,
        ..range("a")
    };
    assert_eq!(
        kv.range(at(3)).await.unwrap().into_inner().kvs[0].value,
        "2"
    );
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_status(kv.range(at(2)).await, Code::OutOfRange, compacted);
    assert_status(kv.compact(compact).await, Code::OutOfRange, compacted);
    fixture.stop().await;
}

#[tokio::test]
async fn a_transaction_is_one_revision_and_reads_its_own_writes() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Value as i32,
        key: bytes("a"),
        target_union: Some(TargetUnion::Value(bytes("1"))),
        range_end: bytes(""),
    };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![
            op(Request::RequestPut(put("a", "2"))),
            op(Request::RequestRange(range("a"))),
            op(Request::RequestPut(put("b", "2"))),
        ],
        failure: vec![],
    };
    let answer = fixture.kv().txn(txn.clone()).await.unwrap().into_inner();
    assert!(answer.succeeded);
    assert_eq!(answer.header.unwrap().revision, 3);
    let Some(Response::ResponseRange(read)) = &answer.responses[1].response else {
        panic!("{answer:?}")
    };
    assert_eq!(read.kvs[0].value, "2");
    assert_eq!(read.header.unwrap().revision, 3);
    let b = fixture
        .kv()
        .range(range("b"))
        .await
        .unwrap()
        .into_inner()
        .kvs
        .remove(0);
    assert_eq!(b.mod_revision, 3);
    // The same again takes the other path, which is empty: no revision.
    let answer = fixture.kv().txn(txn).await.unwrap().into_inner();
    assert!(!answer.succeeded && answer.responses.is_empty());
    assert_eq!(answer.header.unwrap().revision, 3);
    fixture.stop().await;
}

#[tokio::test]
async fn a_transaction_of_reads_needs_no_log_entry() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    let applied = fixture.put("a", "2").await;
    for serializable in [false, true] {
        let read = RangeRequest {
            serializable,
            ..range("a")
        };
        let txn = TxnRequest {
            success: vec![op(Request::RequestRange(read))],
            ..TxnRequest::default()
        };
        let answer = fixture.kv().txn(txn).await.unwrap().into_inner();
        assert!(answer.succeeded);
        assert_eq!(answer.header.unwrap().revision, applied);
        assert_eq!(answer.responses.len(), 1);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn transactions_are_checked_before_anything_runs() {
    let fixture = Fixture::start_with(&["--max-txn-ops=2"]).await;
    let mut kv = fixture.kv();
    let twice = vec![
        op(Request::RequestPut(put("a", "1"))),
        op(Request::RequestPut(put("a", "2"))),
    ];
    assert_status(
        kv.txn(TxnRequest {
            failure: twice,
            ..TxnRequest::default()
        })
        .await,
        Code::InvalidArgument,
        "etcdserver: duplicate key given in txn request",
    );
    let three = ["a", "b", "c"]
        .map(|key| op(Request::RequestPut(put(key, "1"))))
        .to_vec();
    assert_status(
        kv.txn(TxnRequest {
            success: three,
            ..TxnRequest::default()
        })
        .await,
        Code::InvalidArgument,
        "etcdserver: too many operations in txn request",
    );
    assert_status(
        kv.txn(TxnRequest {
            success: vec![RequestOp { request: None }],
            ..TxnRequest::default()
        })
        .await,
        Code::InvalidArgument,
        "etcdserver: key not found",
    );
    assert_eq!(
        kv.range(range("a"))
            .await
            .unwrap()
            .into_inner()
            .header
            .unwrap()
            .revision,
        1
    );
    fixture.stop().await;
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart() {
    let mut fixture = Fixture::start().await;
    for number in 0..50 {
        fixture.put(&format!("k{number}"), "v").await;
    }
    fixture.delete("k0").await;
    let before = fixture.kv().range(range("k1")).await.unwrap().into_inner();
    fixture.restart().await;
    let after = fixture.kv().range(range("k1")).await.unwrap().into_inner();
    assert_eq!(after.kvs, before.kvs);
    let (before, after) = (before.header.unwrap(), after.header.unwrap());
    assert_eq!(
        (after.revision, after.member_id, after.cluster_id),
        (before.revision, before.member_id, before.cluster_id)
    );
    let all = RangeRequest {
        range_end: bytes("l"),
        count_only: true,
        ..range("k")
    };
    assert_eq!(
        fixture.kv().range(all).await.unwrap().into_inner().count,
        49
    );
    fixture.stop().await;
}
