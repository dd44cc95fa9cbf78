//! Transactions: when compares are evaluated, what a failure leaves, headers, duplicate keys.

use schemas::etcdserverpb::response_op::Response;

use super::*;
use crate::validation::{check_txn, is_read_only, is_serializable};

const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const NOT_EQUAL: i32 = 3;

fn compare(key: &str, range_end: &str, result: i32, operand: TargetUnion) -> Compare {
    let target = match operand {
        TargetUnion::Version(_) => 0,
        TargetUnion::CreateRevision(_) => 1,
        TargetUnion::ModRevision(_) => 2,
        TargetUnion::Value(_) => 3,
        TargetUnion::Lease(_) => 4,
    };
    Compare {
        result,
        target,
        key: text(key),
        range_end: text(range_end),
        target_union: Some(operand),
    }
}

fn holds(store: &mut Store, compare: Compare) -> bool {
    let request = TxnRequest {
        compare: vec![compare],
        ..TxnRequest::default()
    };
    let read_only = store.state.read_only_txn(&request).expect("reads nothing");
    let applied = store.txn(request);
    assert_eq!(read_only, applied);
    applied.succeeded
}

#[test]
fn compares_of_a_key_and_of_a_missing_key() {
    use TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};
    let mut store = Store::default();
    store.put("a", "1");
    store.put("a", "5");
    for (key, result, operand, expected) in [
        ("a", EQUAL, Version(2), true),
        ("a", GREATER, Version(2), false),
        ("a", LESS, CreateRevision(3), true),
        ("a", EQUAL, ModRevision(3), true),
        ("a", NOT_EQUAL, ModRevision(3), false),
        ("a", EQUAL, Value(text("5")), true),
        ("a", GREATER, Value(text("10")), true),
        ("a", EQUAL, Lease(0), true),
        ("no", EQUAL, Version(0), true),
        ("no", EQUAL, CreateRevision(0), true),
        ("no", LESS, ModRevision(1), true),
        ("no", EQUAL, Lease(0), true),
        ("no", EQUAL, Value(text("")), false),
        ("no", NOT_EQUAL, Value(text("x")), false),
        ("no", LESS, Value(text("x")), false),
    ] {
        let condition = compare(key, "", result, operand);
        assert_eq!(
            holds(&mut store, condition.clone()),
            expected,
            "{condition:?}"
        );
    }
}

#[test]
fn a_range_compare_asks_every_key_and_an_empty_range_is_all_zero() {
    use TargetUnion::{Value, Version};
    let mut store = Store::default();
    store.put("a", "1");
    store.put("b", "1");
    store.put("b", "1");
    assert!(holds(&mut store, compare("a", "c", GREATER, Version(0))));
    assert!(!holds(&mut store, compare("a", "c", EQUAL, Version(1))));
    assert!(holds(
        &mut store,
        compare("a", "\0", EQUAL, Value(text("1")))
    ));
    assert!(holds(&mut store, compare("x", "z", EQUAL, Version(0))));
    assert!(
        holds(&mut store, compare("b", "a", EQUAL, Version(0))),
        "backwards is empty"
    );
    assert!(!holds(
        &mut store,
        compare("x", "z", NOT_EQUAL, Value(text("1")))
    ));
}

#[test]
fn every_compare_must_hold_and_none_is_true() {
    let mut store = Store::default();
    store.put("a", "1");
    let both = |second| TxnRequest {
        compare: vec![value_is("a", "1"), value_is("a", second)],
        ..TxnRequest::default()
    };
    assert!(store.txn(both("1")).succeeded);
    assert!(!store.txn(both("2")).succeeded);
    assert!(store.txn(TxnRequest::default()).succeeded);
}

#[test]
fn an_inner_compare_does_not_see_outer_writes() {
    let mut store = Store::default();
    store.put("a", "old");
    let inner = TxnRequest {
        compare: vec![value_is("a", "old")],
        success: vec![put_op("saw", "old")],
        failure: vec![put_op("saw", "new")],
    };
    store.txn(always(vec![put_op("a", "new"), txn_op(inner)]));
    assert_eq!(&store.get("saw").expect("one of them").value[..], b"old");
}

#[test]
fn reads_see_the_writes_before_them_and_headers_say_so() {
    let mut store = Store::default();
    store.put("a", "1");
    let response = store.txn(always(vec![
        range_op("a", ""),
        delete_op("nothing", ""),
        put_op("a", "2"),
        range_op("a", ""),
        delete_op("nothing", ""),
        delete_op("a", ""),
        range_op("a", ""),
        txn_op(always(vec![put_op("b", "1")])),
        op(Request::RequestRange(RangeRequest {
            revision: 2,
            ..range_request("a", "")
        })),
    ]));
    assert_eq!(
        inner_revisions(&response.responses),
        [2, 2, 3, 3, 3, 3, 3, 0, 3].map(Some),
        "the old revision until the first write; a nested header is there, but empty"
    );
    let values: Vec<Vec<String>> = response
        .responses
        .iter()
        .filter_map(|op| match &op.response {
            Some(Response::ResponseRange(range)) => Some(
                range
                    .kvs
                    .iter()
                    .map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
                    .collect(),
            ),
            _ => None,
        })
        .collect();
    assert_eq!(values, [vec!["1"], vec!["2"], vec![], vec!["1"]]);
    assert_eq!(response.header, None, "the adapter's");
    assert_eq!(store.state.revision(), 3);
}

#[test]
fn sub_revisions_follow_the_order_of_operations() {
    let mut store = Store::default();
    store.put("z", "");
    let applied = store.apply(Op::Txn(always(vec![
        put_op("b", ""),
        txn_op(always(vec![delete_op("z", ""), put_op("c", "")])),
        put_op("a", ""),
    ])));
    let rows: Vec<_> = applied
        .changes
        .iter()
        .map(|change| match change {
            crate::Change::Revision(row) => (row.main, row.sub, &row.key[..], row.tombstone),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        rows,
        [
            (3, 0, &b"b"[..], false),
            (3, 1, b"z", true),
            (3, 2, b"c", false),
            (3, 3, b"a", false)
        ]
    );
    let touched: Vec<_> = applied.changed_keys().map(|key| &key[..]).collect();
    assert_eq!(touched, [b"b", b"z", b"c", b"a"]);
}

#[test]
fn a_failure_on_the_chosen_path_leaves_nothing_applied() {
    let mut store = Store::default();
    store.put("a", "1");
    store.put("a", "2");
    store.compact(3);
    let at = |revision| {
        op(Request::RequestRange(RangeRequest {
            revision,
            ..range_request("a", "")
        }))
    };
    let leased = op(Request::RequestPut(PutRequest {
        lease: 9,
        ..put_request("k", "")
    }));
    let ignoring = op(Request::RequestPut(PutRequest {
        ignore_value: true,
        ..put_request("k", "")
    }));
    for (bad, refusal) in [
        (at(4), Refusal::FutureRevision),
        (at(2), Refusal::Compacted),
        (at(-1), Refusal::Compacted),
        (leased.clone(), Refusal::LeaseNotFound),
        (ignoring, Refusal::KeyNotFound),
        (txn_op(always(vec![leased.clone()])), Refusal::LeaseNotFound),
    ] {
        let request = always(vec![put_op("b", "1"), bad]);
        assert_eq!(store.refused(Op::Txn(request)), refusal);
    }
    let elsewhere = TxnRequest {
        success: vec![put_op("b", "1")],
        failure: vec![leased],
        ..TxnRequest::default()
    };
    assert!(
        store.txn(elsewhere).succeeded,
        "the other path is not looked at"
    );
}

/// A member that has compacted and one that has not would answer differently, and a refused
/// transaction writes nothing: so compaction must be a command like any other.
#[test]
fn a_txn_that_reads_an_old_revision_is_the_same_on_every_member() {
    let commands = |store: &mut Store| {
        store.put("a", "1");
        store.put("a", "2");
        store.compact(3);
        store.apply(Op::Txn(always(vec![
            put_op("b", "1"),
            op(Request::RequestRange(RangeRequest {
                revision: 2,
                ..range_request("a", "")
            })),
        ])))
    };
    let (mut one, mut other) = (Store::default(), Store::default());
    let (first, second) = (commands(&mut one), commands(&mut other));
    assert_eq!(first.reply, second.reply);
    assert_eq!(first.reply, Err(Refusal::Compacted));
    assert_eq!(one.state.revision(), other.state.revision());
}

#[test]
fn a_read_only_txn_reads_like_a_replicated_one() {
    let mut store = Store::default();
    store.put("a", "1");
    store.put("a", "2");
    let request = TxnRequest {
        compare: vec![value_is("a", "1")],
        success: vec![],
        failure: vec![
            range_op("a", ""),
            op(Request::RequestRange(RangeRequest {
                revision: 2,
                ..range_request("a", "")
            })),
        ],
    };
    assert!(is_read_only(&request));
    let response = store.state.read_only_txn(&request).expect("readable");
    assert!(!response.succeeded);
    assert_eq!(inner_revisions(&response.responses), [Some(3), Some(3)]);
    assert_eq!(response, store.txn(request));
    let write = always(vec![put_op("a", "3")]);
    assert_eq!(store.state.read_only_txn(&write), Err(Refusal::NotCapable));
}

#[test]
fn only_top_level_ranges_are_read_only() {
    let local = |serializable| {
        op(Request::RequestRange(RangeRequest {
            serializable,
            ..range_request("a", "")
        }))
    };
    for (request, read_only, serializable) in [
        (always(vec![]), true, true),
        (always(vec![local(true)]), true, true),
        (always(vec![local(true), local(false)]), true, false),
        (always(vec![put_op("a", "")]), false, false),
        (
            always(vec![txn_op(always(vec![local(true)]))]),
            false,
            false,
        ),
        (
            TxnRequest {
                failure: vec![delete_op("a", "")],
                ..TxnRequest::default()
            },
            false,
            false,
        ),
    ] {
        assert_eq!(is_read_only(&request), read_only, "{request:?}");
        assert_eq!(is_serializable(&request), serializable, "{request:?}");
    }
}

fn branches(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    txn_op(TxnRequest {
        success,
        failure,
        ..TxnRequest::default()
    })
}

#[test]
fn a_key_is_written_once_per_transaction() {
    let duplicates = [
        vec![put_op("a", "1"), put_op("a", "2")],
        vec![put_op("a", ""), delete_op("a", "")],
        vec![delete_op("a", ""), put_op("a", "")],
        vec![delete_op("a", "c"), put_op("b", "")],
        vec![put_op("b", ""), delete_op("a", "c")],
        vec![put_op("a", ""), branches(vec![put_op("a", "")], vec![])],
        vec![branches(vec![], vec![put_op("a", "")]), put_op("a", "")],
        vec![put_op("b", ""), branches(vec![delete_op("a", "c")], vec![])],
        vec![branches(vec![put_op("b", "")], vec![]), delete_op("a", "c")],
        vec![
            branches(vec![put_op("a", "")], vec![]),
            branches(vec![put_op("a", "")], vec![]),
        ],
        vec![
            branches(vec![delete_op("a", "")], vec![]),
            branches(vec![put_op("a", "")], vec![]),
        ],
        vec![branches(vec![put_op("a", ""), delete_op("a", "b")], vec![])],
    ];
    for ops in duplicates {
        let on_success = always(ops.clone());
        assert_eq!(
            check_txn(&on_success, 128),
            Err(Refusal::DuplicateKey),
            "{ops:?}"
        );
        let on_failure = TxnRequest {
            failure: ops,
            ..TxnRequest::default()
        };
        assert_eq!(
            check_txn(&on_failure, 128),
            Err(Refusal::DuplicateKey),
            "not taken, yet refused"
        );
    }
    let legal = [
        vec![put_op("a", ""), put_op("b", "")],
        vec![delete_op("a", "c"), delete_op("b", "d"), delete_op("a", "")],
        vec![put_op("c", ""), delete_op("a", "c")],
        vec![put_op("b", ""), delete_op("c", "a")],
        vec![branches(vec![put_op("a", "")], vec![put_op("a", "")])],
        vec![branches(vec![put_op("a", "")], vec![delete_op("a", "")])],
        vec![
            delete_op("a", "c"),
            branches(vec![delete_op("a", "b")], vec![]),
        ],
        vec![put_op("a", ""), range_op("a", "")],
        // What etcd happens to let pass: a nested delete after a nested put, an open-ended delete.
        vec![
            branches(vec![put_op("a", "")], vec![]),
            branches(vec![delete_op("a", "")], vec![]),
        ],
        vec![put_op("b", ""), delete_op("a", "\0")],
    ];
    for ops in legal {
        assert_eq!(check_txn(&always(ops.clone()), 128), Ok(()), "{ops:?}");
    }
    let both_lists = TxnRequest {
        success: vec![put_op("a", "")],
        failure: vec![put_op("a", "")],
        ..TxnRequest::default()
    };
    assert_eq!(check_txn(&both_lists, 128), Ok(()));
}

#[test]
fn many_overlapping_deletes_are_one_span() {
    let ends = [("a", "c"), ("x", "z"), ("b", "f"), ("e", "x"), ("q", "r")];
    let deletes: Vec<_> = ends.map(|(key, end)| delete_op(key, end)).into();
    for (key, expected) in [
        ("a", Err(Refusal::DuplicateKey)),
        ("m", Err(Refusal::DuplicateKey)),
        ("yy", Err(Refusal::DuplicateKey)),
        ("z", Ok(())),
        ("A", Ok(())),
    ] {
        let mut ops = deletes.clone();
        ops.push(put_op(key, ""));
        assert_eq!(check_txn(&always(ops), 128), expected, "{key}");
    }
}

#[test]
fn operations_are_counted_by_the_longest_list_and_by_level() {
    let reads = |count| (0..count).map(|_| range_op("a", "")).collect::<Vec<_>>();
    let compares = |count| vec![value_is("a", "1"); count];
    let with = |compare, success, failure| TxnRequest {
        compare,
        success,
        failure,
    };
    assert_eq!(check_txn(&with(compares(3), reads(3), reads(3)), 3), Ok(()));
    for request in [
        with(compares(4), vec![], vec![]),
        with(vec![], reads(4), vec![]),
        with(vec![], vec![], reads(4)),
    ] {
        assert_eq!(check_txn(&request, 3), Err(Refusal::TooManyOps));
    }
    let nested = |inner| always(vec![txn_op(always(reads(inner)))]);
    assert_eq!(
        check_txn(&nested(2), 3),
        Ok(()),
        "one is used by the outer level"
    );
    assert_eq!(check_txn(&nested(3), 3), Err(Refusal::TooManyOps));
}

#[test]
fn a_transaction_is_checked_to_its_leaves() {
    let nothing = RequestOp { request: None };
    let mut unsorted = range_request("a", "");
    unsorted.sort_order = 7;
    for (bad, refusal) in [
        (nothing, Refusal::KeyNotFound),
        (put_op("", ""), Refusal::EmptyKey),
        (range_op("", "z"), Refusal::EmptyKey),
        (delete_op("", "\0"), Refusal::EmptyKey),
        (
            op(Request::RequestRange(unsorted)),
            Refusal::InvalidSortOption,
        ),
    ] {
        assert_eq!(
            check_txn(&always(vec![bad.clone()]), 128),
            Err(refusal),
            "{bad:?}"
        );
        let nested = always(vec![branches(vec![], vec![bad])]);
        assert_eq!(
            check_txn(&nested, 128),
            Err(refusal),
            "nested, in the other list"
        );
    }
    let empty_compare = TxnRequest {
        compare: vec![value_is("", "1")],
        ..TxnRequest::default()
    };
    assert_eq!(check_txn(&empty_compare, 128), Err(Refusal::EmptyKey));
}

/// etcd's duplicate rule lets these through, so the store must keep its books straight.
#[test]
fn a_key_changed_twice_in_one_revision_ends_as_its_last_change() {
    let mut store = Store::default();
    store.grant(7);
    store.put_leased("a", 7);
    store.txn(always(vec![
        txn_op(always(vec![put_op("a", "1")])),
        txn_op(always(vec![delete_op("a", "")])),
    ]));
    assert_eq!(store.get("a"), None);
    let events = store.events("a", "", 3).expect("not compacted");
    let kinds: Vec<_> = events.iter().map(|event| event.r#type).collect();
    assert_eq!(kinds, [0, 1]);
    assert_eq!(store.state.lease(7), Some((60, vec![])));
    store.compact(3);
    let events = store.events("a", "", 3).expect("the compacted revision");
    assert_eq!(events.len(), 1, "the delete, which superseded the put");
    let vanished = PutRequest {
        ignore_value: true,
        ..put_request("b", "")
    };
    store.put("b", "1");
    store.txn(always(vec![
        delete_op("a", "\0"),
        op(Request::RequestPut(vanished)),
    ]));
    let kv = store.get("b").expect("put after the delete");
    assert_eq!((kv.value.len(), kv.version), (0, 1));
}
