//! What is generated: requests as data, with references instead of absolute revisions and ids.
//!
//! Few keys, few values, few leases: most requests then meet something that an earlier one made.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

/// Operations of one sequence.
const LENGTH: std::ops::Range<usize> = 1..60;
/// Nested transactions below the first.
const DEPTH: u32 = 2;

/// `a` and `ab` share a prefix; `d/` is a folder; the last is not UTF-8.
const KEYS: [&[u8]; 7] = [b"a", b"ab", b"b", b"c", b"d/1", b"d/2", b"\xff\xfe"];
const VALUES: [&[u8]; 4] = [b"", b"1", b"2", b"longer value"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    Put(Put),
    Range(Range),
    RangeStream(Range),
    Delete(Delete),
    Txn(Txn),
    Compact { revision: Revision, physical: bool },
    Grant { slot: u8, ttl_s: i64 },
    Revoke { slot: u8 },
    TimeToLive { slot: u8, keys: bool },
    KeepAlive { slot: u8 },
    Leases,
    Watch(Watch),
    CancelWatch { number: u8 },
}

/// Where a range ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// One key.
    Single,
    /// Everything with the key as prefix.
    Prefix,
    /// Everything from the key on.
    Open,
    /// This key, which may also lie before the first.
    Key(Vec<u8>),
}

/// A revision relative to what the sequence knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Revision {
    Latest,
    /// Counted from the start of the sequence.
    SinceStart(i64),
    /// Counted back from the newest; negative lies in the future.
    Ago(i64),
    /// As it is.
    Raw(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// Slot 0 is a lease that never exists.
    pub(super) lease: Option<u8>,
    pub(super) prev_kv: bool,
    pub(super) ignore_value: bool,
    pub(super) ignore_lease: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) key: Vec<u8>,
    pub(super) end: End,
    pub(super) revision: Revision,
    pub(super) limit: i64,
    pub(super) order: i32,
    pub(super) target: i32,
    pub(super) serializable: bool,
    pub(super) keys_only: bool,
    pub(super) count_only: bool,
    pub(super) min_mod: Option<i64>,
    pub(super) max_mod: Option<i64>,
    pub(super) min_create: Option<i64>,
    pub(super) max_create: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delete {
    pub(super) key: Vec<u8>,
    pub(super) end: End,
    pub(super) prev_kv: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Txn {
    pub(super) compares: Vec<Comparison>,
    pub(super) success: Vec<TxnOperation>,
    pub(super) failure: Vec<TxnOperation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TxnOperation {
    Put(Put),
    Range(Range),
    Delete(Delete),
    Txn(Txn),
    Empty,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) key: Vec<u8>,
    pub(super) end: End,
    /// EQUAL, GREATER, LESS, NOT_EQUAL.
    pub(super) result: i32,
    pub(super) operand: Operand,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operand {
    Version(i64),
    Create(i64),
    Mod(i64),
    Value(Vec<u8>),
    Lease(u8),
    /// A target without a value.
    Missing(i32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) key: Vec<u8>,
    pub(super) end: End,
    pub(super) start: Revision,
    pub(super) prev_kv: bool,
    pub(super) filters: Vec<i32>,
    pub(super) watch_id: i64,
    pub(super) fragment: bool,
}

pub(super) fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        40 => select(&KEYS[..]).prop_map(<[u8]>::to_vec),
        1 => Just(Vec::new()),
        1 => Just(vec![0]),
    ]
}

pub(super) fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        8 => Just(End::Single),
        3 => Just(End::Prefix),
        2 => Just(End::Open),
        4 => select(&KEYS[..]).prop_map(|key| End::Key(key.to_vec())),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    select(&VALUES[..]).prop_map(<[u8]>::to_vec)
}

/// A lease slot; 0 is never granted.
fn lease() -> impl Strategy<Value = u8> {
    prop_oneof![1 => Just(0_u8), 12 => 1..4_u8]
}

/// True once in so many times.
fn rarely(times: u32) -> impl Strategy<Value = bool> {
    prop_oneof![times - 1 => Just(false), 1 => Just(true)]
}

fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![
        24 => Just(Revision::Latest),
        8 => (-2..30_i64).prop_map(Revision::SinceStart),
        12 => (-2..12_i64).prop_map(Revision::Ago),
        1 => select(&[-1, 1, i64::MAX][..]).prop_map(Revision::Raw),
    ]
}

fn put() -> impl Strategy<Value = Put> {
    let fields = (
        key(),
        value(),
        weighted(0.25, lease()),
        any::<bool>(),
        rarely(12),
        rarely(12),
    );
    fields.prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| Put {
            key,
            // Mostly a legal request: a value beside ignore_value is refused.
            value: if ignore_value && !prev_kv {
                Vec::new()
            } else {
                value
            },
            lease: if ignore_lease && !prev_kv {
                None
            } else {
                lease
            },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn range() -> impl Strategy<Value = Range> {
    let bound = || weighted(0.08, -1..25_i64);
    let what = (key(), end(), revision());
    let how = (
        prop_oneof![6 => Just(0), 4 => 1..5_i64, 1 => Just(-1)],
        prop_oneof![6 => Just(0), 6 => 1..3_i32, 1 => Just(7)],
        prop_oneof![6 => Just(0), 8 => 1..5_i32, 1 => Just(9)],
        any::<bool>(),
        rarely(5),
        rarely(8),
    );
    let filters = (bound(), bound(), bound(), bound());
    (what, how, filters).prop_map(
        |(
            (key, end, revision),
            (limit, order, target, serializable, keys_only, count_only),
            (min_mod, max_mod, min_create, max_create),
        )| Range {
            key,
            end,
            revision,
            limit,
            order,
            target,
            serializable,
            keys_only,
            count_only,
            min_mod,
            max_mod,
            min_create,
            max_create,
        },
    )
}

/// Without an order etcd 3.7.1 sorts each chunk by the target and continues behind the key that
/// then comes last, so that keys are missing or doubled: nothing to be equal to.
fn streamed_range() -> impl Strategy<Value = Range> {
    range().prop_map(|range| Range {
        target: if range.order == 0 { 0 } else { range.target },
        ..range
    })
}

fn delete() -> impl Strategy<Value = Delete> {
    (key(), end(), any::<bool>()).prop_map(|(key, end, prev_kv)| Delete { key, end, prev_kv })
}

fn comparison() -> impl Strategy<Value = Comparison> {
    let operand = prop_oneof![
        6 => (0..4_i64).prop_map(Operand::Version),
        3 => (-1..25_i64).prop_map(Operand::Create),
        3 => (-1..25_i64).prop_map(Operand::Mod),
        6 => value().prop_map(Operand::Value),
        2 => lease().prop_map(Operand::Lease),
        1 => (0..6_i32).prop_map(Operand::Missing),
    ];
    (
        key(),
        prop_oneof![5 => Just(End::Single), 1 => end()],
        prop_oneof![30 => 0..4_i32, 1 => Just(9)],
        operand,
    )
        .prop_map(|(key, end, result, operand)| Comparison {
            key,
            end,
            result,
            operand,
        })
}

fn txn() -> impl Strategy<Value = Txn> {
    prop_oneof![3 => any_txn(), 1 => txn_that_looks_at_itself()].prop_map(|mut txn| {
        if deletes(&txn) {
            ignore_nothing(&mut txn);
        }
        txn
    })
}

fn deletes(txn: &Txn) -> bool {
    let mut operations = txn.success.iter().chain(&txn.failure);
    operations.any(|operation| match operation {
        TxnOperation::Delete(_) => true,
        TxnOperation::Txn(txn) => deletes(txn),
        _ => false,
    })
}

impl Operation {
    /// Turns every range that ends before it begins into a single key. What a user may do with one
    /// that holds nothing, etcd leaves to the shape of its interval tree.
    pub(super) fn turn_forward(&mut self) {
        match self {
            Self::Range(range) | Self::RangeStream(range) => range.end.turn_forward(&range.key),
            Self::Delete(delete) => delete.end.turn_forward(&delete.key),
            Self::Txn(txn) => txn.turn_forward(),
            Self::Watch(watch) => watch.end.turn_forward(&watch.key),
            _ => {}
        }
    }
}

impl End {
    fn turn_forward(&mut self, key: &[u8]) {
        if matches!(self, Self::Key(end) if &end[..] <= key) {
            *self = Self::Single;
        }
    }
}

impl Txn {
    fn turn_forward(&mut self) {
        for compare in &mut self.compares {
            compare.end.turn_forward(&compare.key);
        }
        for operation in self.success.iter_mut().chain(&mut self.failure) {
            match operation {
                TxnOperation::Range(range) => range.end.turn_forward(&range.key),
                TxnOperation::Delete(delete) => delete.end.turn_forward(&delete.key),
                TxnOperation::Txn(txn) => txn.turn_forward(),
                TxnOperation::Put(_) | TxnOperation::Empty => {}
            }
        }
    }
}

/// A put that keeps the value of a key which the same transaction has deleted ends the process of
/// etcd 3.7.1, and every start of it from then on.
fn ignore_nothing(txn: &mut Txn) {
    for operation in txn.success.iter_mut().chain(&mut txn.failure) {
        match operation {
            TxnOperation::Put(put) => (put.ignore_value, put.ignore_lease) = (false, false),
            TxnOperation::Txn(txn) => ignore_nothing(txn),
            _ => {}
        }
    }
}

/// A put and, inside, a comparison of the same key: does it see the put? Chance alone would seldom
/// ask that.
fn txn_that_looks_at_itself() -> impl Strategy<Value = Txn> {
    (put(), comparison(), put(), put()).prop_map(|(first, mut comparison, yes, no)| {
        comparison.key.clone_from(&first.key);
        let inner = Txn {
            compares: vec![comparison],
            success: vec![TxnOperation::Put(yes)],
            failure: vec![TxnOperation::Put(no)],
        };
        Txn {
            compares: Vec::new(),
            success: vec![TxnOperation::Put(first), TxnOperation::Txn(inner)],
            failure: Vec::new(),
        }
    })
}

fn any_txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        9 => put().prop_map(TxnOperation::Put),
        6 => range().prop_map(TxnOperation::Range),
        3 => delete().prop_map(TxnOperation::Delete),
    ];
    // Once in a while a request without an operation inside, as no client sends it.
    let leaf = prop_oneof![60 => leaf, 1 => Just(TxnOperation::Empty)];
    let nested = leaf.prop_recursive(DEPTH, 12, 3, |inner| {
        let list = vec(inner.clone(), 0..3);
        prop_oneof![
            3 => inner,
            2 => (vec(comparison(), 0..2), list.clone(), list).prop_map(
                |(compares, success, failure)| TxnOperation::Txn(Txn {
                    compares,
                    success,
                    failure,
                })
            ),
        ]
    });
    let list = vec(nested, 0..4);
    (vec(comparison(), 0..3), list.clone(), list).prop_map(|(compares, success, failure)| Txn {
        compares,
        success,
        failure,
    })
}

fn watch() -> impl Strategy<Value = Watch> {
    let filters = prop_oneof![6 => Just(Vec::new()), 3 => vec(0..2_i32, 1..3)];
    let id = prop_oneof![8 => Just(0), 1 => Just(7_i64)];
    (
        (key(), end(), revision()),
        (any::<bool>(), filters, id, any::<bool>()),
    )
        .prop_map(
            |((key, end, start), (prev_kv, filters, watch_id, fragment))| Watch {
                key,
                end,
                start,
                prev_kv,
                filters,
                watch_id,
                fragment,
            },
        )
}

/// What is answered at once and whole.
pub(super) fn unary() -> impl Strategy<Value = Operation> {
    let ttl_s = prop_oneof![
        8 => Just(5_000_i64),
        1 => select(&[-5, 0, 1, 9_000_000_000, 9_000_000_001][..]),
    ];
    prop_oneof![
        30 => put().prop_map(Operation::Put),
        24 => range().prop_map(Operation::Range),
        8 => delete().prop_map(Operation::Delete),
        30 => txn().prop_map(Operation::Txn),
        3 => (revision(), any::<bool>())
            .prop_map(|(revision, physical)| Operation::Compact { revision, physical }),
        4 => (lease(), ttl_s).prop_map(|(slot, ttl_s)| Operation::Grant { slot, ttl_s }),
        2 => lease().prop_map(|slot| Operation::Revoke { slot }),
        2 => (lease(), any::<bool>())
            .prop_map(|(slot, keys)| Operation::TimeToLive { slot, keys }),
        1 => lease().prop_map(|slot| Operation::KeepAlive { slot }),
        1 => Just(Operation::Leases),
    ]
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        105 => unary(),
        3 => streamed_range().prop_map(Operation::RangeStream),
        2 => watch().prop_map(Operation::Watch),
        1 => (0..4_u8).prop_map(|number| Operation::CancelWatch { number }),
    ]
}

/// A sequence for one empty keyspace.
pub(super) fn sequence() -> impl Strategy<Value = Vec<Operation>> {
    vec(operation(), LENGTH)
}
