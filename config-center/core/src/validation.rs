//! What can be decided about a request without the state: done by the API before a proposal, so
//! that nonsense never reaches the log. State-dependent checks are in `State::apply`.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;
use schemas::etcdserverpb::range_request::{SortOrder, SortTarget};
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::lease::MAX_TTL_S;
use crate::refusal::Refusal;

/// etcd's default for `--max-txn-ops`.
pub const DEFAULT_MAX_TXN_OPS: usize = 128;

pub fn check_range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// A streamed range comes in key order and as it is stored: what needs the whole result first is
/// not streamed.
pub fn check_range_stream(request: &RangeRequest) -> Result<(), Refusal> {
    check_range(request)?;
    let is_default = request.sort_order == SortOrder::None as i32
        || (request.sort_target == SortTarget::Key as i32
            && request.sort_order == SortOrder::Ascend as i32);
    if !is_default {
        return Err(Refusal::StreamSorted);
    }
    let is_filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    if is_filtered {
        return Err(Refusal::StreamFiltered);
    }
    Ok(())
}

pub fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        Err(Refusal::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(Refusal::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(Refusal::LeaseProvided)
    } else {
        Ok(())
    }
}

pub fn check_delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    Ok(())
}

/// The whole tree: empty keys, empty operations, the number of operations, duplicate keys.
pub fn check_txn(request: &TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    check_tree(request, max_ops)?;
    // After the counting, so that this work is bounded. Both lists, whichever will be taken.
    check_overlaps(&request.success)?;
    check_overlaps(&request.failure)?;
    Ok(())
}

pub fn check_lease_grant(request: &LeaseGrantRequest) -> Result<(), Refusal> {
    if request.ttl > MAX_TTL_S {
        return Err(Refusal::LeaseTtlTooLarge);
    }
    Ok(())
}

/// Only ranges at the top level: needs no proposal. A nested transaction is never read-only.
#[must_use]
pub fn is_read_only(request: &TxnRequest) -> bool {
    all_ops(request).all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Read-only, and every range allows a local read: needs no read barrier either.
#[must_use]
pub fn is_serializable(request: &TxnRequest) -> bool {
    all_ops(request)
        .all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn all_ops(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// The longest of the three lists counts, and what it uses is not left for nested transactions.
fn check_tree(request: &TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    let longest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let Some(left) = max_ops.checked_sub(longest) else {
        return Err(Refusal::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for op in all_ops(request) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete)?,
            Some(Request::RequestTxn(inner)) => check_tree(inner, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What one list of operations writes, to be held against the lists around it.
#[derive(Default)]
struct Writes<'a> {
    puts: FxHashSet<&'a [u8]>,
    deletes: Spans<'a>,
}

/// No key may be put twice, or be put and deleted. The two lists of one nested transaction may
/// share keys, because one of them is taken. As in etcd, operations of the same level are looked at
/// deletes first, then nested transactions in their order, then puts: a nested put before a nested
/// delete of the same key passes, and both are applied.
fn check_overlaps(ops: &[RequestOp]) -> Result<Writes<'_>, Refusal> {
    let mut writes = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            writes.deletes.add_range(&delete.key, &delete.range_end);
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(inner)) = &op.request else {
            continue;
        };
        let on_success = check_overlaps(&inner.success)?;
        let on_failure = check_overlaps(&inner.failure)?;
        let clash = |key: &[u8]| writes.puts.contains(key) || writes.deletes.contains(key);
        if on_success.puts.iter().any(|key| clash(key))
            || on_failure.puts.iter().any(|key| clash(key))
        {
            return Err(Refusal::DuplicateKey);
        }
        writes.puts.extend(on_success.puts);
        writes.puts.extend(on_failure.puts);
        writes.deletes.add_all(&on_success.deletes);
        writes.deletes.add_all(&on_failure.deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            let key = &put.key[..];
            if writes.deletes.contains(key) || !writes.puts.insert(key) {
                return Err(Refusal::DuplicateKey);
            }
        }
    }
    Ok(writes)
}

/// Deleted keys, as single ones and as disjoint spans by their start, so that a request full of
/// deletes and puts costs n log n and not their product.
#[derive(Default)]
struct Spans<'a> {
    single: FxHashSet<&'a [u8]>,
    by_start: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Spans<'a> {
    /// An open-ended delete (end is one zero byte) counts as empty here: etcd compares its end as a
    /// plain key and so never finds an overlap. Clients rely on what passes.
    fn add_range(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.single.insert(key);
        } else {
            self.add_span(key, range_end);
        }
    }

    fn add_span(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        if start >= end {
            return;
        }
        if let Some((&before, &before_end)) = self.by_start.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        // Swallows the spans that begin inside or right behind the new one.
        while let Some((&next, &next_end)) = self.by_start.range(start..=end).next() {
            self.by_start.remove(next);
            end = end.max(next_end);
        }
        self.by_start.insert(start, end);
    }

    fn add_all(&mut self, other: &Self) {
        self.single.extend(&other.single);
        for (start, end) in &other.by_start {
            self.add_span(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.single.contains(key)
            || self
                .by_start
                .range(..=key)
                .next_back()
                .is_some_and(|(_, end)| key < *end)
    }
}
