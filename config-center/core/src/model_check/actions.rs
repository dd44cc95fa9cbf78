//! Random requests over few keys, few values and few leases, so that they meet each other often.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use schemas::command::{Command, MemberPublish, command::Op};
use schemas::etcdserverpb::compare::TargetUnion;
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, Member,
    PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// One step of a run.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Apply(Command),
    Range(RangeRequest),
    ReadOnlyTxn(TxnRequest),
    /// The state is built again from what was persisted, which may or may not be purged of what
    /// compactions have removed.
    Restart {
        purge: bool,
    },
}

pub(super) fn bytes(from: &[u8]) -> Bytes {
    Bytes::copy_from_slice(from)
}

pub(super) fn command(op: Op) -> Command {
    Command {
        version: crate::state::COMMAND_VERSION,
        op: Some(op),
        ..Command::default()
    }
}

pub(super) fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => op().prop_map(|op| Action::Apply(command(op))),
        6 => range().prop_map(Action::Range),
        2 => read_only_txn().prop_map(Action::ReadOnlyTxn),
        1 => any::<bool>().prop_map(|purge| Action::Restart { purge }),
    ]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => put().prop_map(Op::Put),
        4 => delete().prop_map(Op::DeleteRange),
        6 => txn(2).prop_map(Op::Txn),
        2 => (-1..30_i64).prop_map(|revision| {
            Op::Compaction(CompactionRequest { revision, physical: false })
        }),
        2 => (0..4_i64, 1..9_i64).prop_map(|(id, ttl)| Op::LeaseGrant(LeaseGrantRequest { id, ttl })),
        1 => (0..4_i64).prop_map(|id| Op::LeaseRevoke(LeaseRevokeRequest { id })),
        1 => (1..3_u64, "[xy]").prop_map(|(id, name)| {
            let member = Member { id, name, ..Member::default() };
            Op::MemberPublish(MemberPublish { member: Some(member) })
        }),
    ]
}

pub(super) fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "aa", "ab", "b", "c"]).prop_map(Bytes::from)
}

/// `(key, range_end)`: single keys, spans (also backwards), everything from a key on.
pub(super) fn key_range() -> impl Strategy<Value = (Bytes, Bytes)> {
    let end = prop_oneof![
        3 => Just(Bytes::new()),
        2 => Just(Bytes::from_static(b"\0")),
        4 => key(),
        1 => Just(Bytes::from_static(b"d")),
    ];
    (key(), end)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "1", "2", "3"]).prop_map(Bytes::from)
}

/// 0 mostly: the newest.
fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0_i64), 2 => -2..30_i64]
}

fn put() -> impl Strategy<Value = PutRequest> {
    let flag = || prop::bool::weighted(0.15);
    let lease = prop_oneof![3 => Just(0_i64), 2 => 1..4_i64];
    (key(), value(), lease, any::<bool>(), flag(), flag()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key_range(), any::<bool>()).prop_map(|((key, range_end), prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

pub(super) fn range() -> impl Strategy<Value = RangeRequest> {
    let order = (0..3_i32, 0..5_i32, -1..4_i64);
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let bound = || prop_oneof![4 => Just(0_i64), 1 => -1..20_i64];
    let filters = (bound(), bound(), bound(), bound());
    (key_range(), revision(), order, flags, filters).prop_map(
        |((key, range_end), revision, (sort_order, sort_target, limit), flags, filters)| {
            RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                serializable: false,
                keys_only: flags.0,
                count_only: flags.1,
                min_mod_revision: filters.0,
                max_mod_revision: filters.1,
                min_create_revision: filters.2,
                max_create_revision: filters.3,
            }
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let number = 0..4_i64;
    // Mostly the operand of the target; sometimes another one, or none.
    let target = prop_oneof![
        number
            .clone()
            .prop_map(|n| (0, Some(TargetUnion::Version(n)))),
        (0..20_i64).prop_map(|n| (1, Some(TargetUnion::CreateRevision(n)))),
        (0..20_i64).prop_map(|n| (2, Some(TargetUnion::ModRevision(n)))),
        value().prop_map(|value| (3, Some(TargetUnion::Value(value)))),
        number
            .clone()
            .prop_map(|n| (4, Some(TargetUnion::Lease(n)))),
        (0..6_i32, option::of(number.prop_map(TargetUnion::Version))),
    ];
    let result = prop_oneof![9 => 0..4_i32, 1 => Just(9)];
    (key_range(), target, result).prop_map(|((key, range_end), (target, operand), result)| {
        Compare {
            result,
            target,
            key,
            range_end,
            target_union: operand,
        }
    })
}

/// Unchecked on purpose: the state must do the sensible thing with any command of the log.
pub(super) fn txn(depth: u32) -> BoxedStrategy<TxnRequest> {
    let mut request = prop_oneof![
        3 => put().prop_map(Request::RequestPut),
        2 => delete().prop_map(Request::RequestDeleteRange),
        2 => range().prop_map(Request::RequestRange),
    ]
    .boxed();
    if depth > 0 {
        request = prop_oneof![
            7 => request,
            3 => txn(depth - 1).prop_map(Request::RequestTxn),
        ]
        .boxed();
    }
    let ops = vec(request.prop_map(op_of), 0..4);
    (vec(compare(), 0..3), ops.clone(), ops)
        .prop_map(|(compare, success, failure)| TxnRequest {
            compare,
            success,
            failure,
        })
        .boxed()
}

fn read_only_txn() -> impl Strategy<Value = TxnRequest> {
    let ops = || {
        vec(
            range().prop_map(|range| op_of(Request::RequestRange(range))),
            0..3,
        )
    };
    (vec(compare(), 0..2), ops(), ops()).prop_map(|(compare, success, failure)| TxnRequest {
        compare,
        success,
        failure,
    })
}

fn op_of(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}
