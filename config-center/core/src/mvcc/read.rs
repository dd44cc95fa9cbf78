//! Range reads: which rows, in which order of work, and how a row becomes an answer.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use schemas::etcdserverpb::range_request::{SortOrder, SortTarget};
use schemas::etcdserverpb::{RangeRequest, RangeResponse};
use schemas::mvccpb::KeyValue;

use super::key_range::KeyRange;
use super::keyspace::Keyspace;
use crate::planted::{self, Bug};
use crate::refusal::Refusal;
use crate::state::RevisionRow;

/// A row as clients see it. The one place that turns a stored value into an answer.
pub(crate) fn key_value(row: &RevisionRow) -> KeyValue {
    KeyValue {
        key: row.key.clone(),
        create_revision: row.create_revision,
        mod_revision: row.main,
        version: row.version,
        value: row.value.clone(),
        lease: row.lease,
    }
}

impl Keyspace {
    /// Which revision a request means when the newest is `current`.
    pub(crate) fn read_revision(&self, requested: i64, current: i64) -> Result<i64, Refusal> {
        if requested > current {
            Err(Refusal::FutureRevision)
        } else if requested <= 0 {
            Ok(current)
        } else if requested < self.compacted() {
            Err(Refusal::Compacted)
        } else {
            Ok(requested)
        }
    }

    /// The first `limit` rows of a range at a revision that was checked, in key order, and whether
    /// there are more: nothing is counted, so a long range costs what is taken of it.
    pub(crate) fn page(
        &self,
        request: &RangeRequest,
        revision: i64,
        limit: usize,
    ) -> (Vec<KeyValue>, bool) {
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let order = Order::of(request);
        let mut rows = self.live_rows(&range, revision);
        let kvs = rows
            .by_ref()
            .take(limit)
            .map(|row| answer(row, request, &order))
            .collect();
        (kvs, rows.next().is_some())
    }

    /// Answers a range at a revision that was checked: index order, filters, sort, limit.
    pub(crate) fn read(&self, request: &RangeRequest, revision: i64) -> RangeResponse {
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let mut rows = self.live_rows(&range, revision);
        if request.count_only {
            return RangeResponse {
                count: rows.count() as i64,
                ..RangeResponse::default()
            };
        }
        let limit = match usize::try_from(request.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        let order = Order::of(request);
        let (kvs, count, more) = if order.is_index_order() && !is_filtered(request) {
            let kvs: Vec<KeyValue> = rows
                .by_ref()
                .take(limit)
                .map(|row| answer(row, request, &order))
                .collect();
            let count = kvs.len() + rows.count();
            let more = count > kvs.len();
            (kvs, count, more)
        } else {
            let fetched = order.fetch_limit(request, limit);
            let mut count = 0;
            let mut found: Vec<&Arc<RevisionRow>> = Vec::new();
            for row in rows {
                count += 1;
                if found.len() < fetched && passes(row, request) {
                    found.push(row);
                }
            }
            order.sort(&mut found);
            let more = found.len() > limit;
            found.truncate(limit);
            let kvs = found.into_iter();
            let kvs = kvs.map(|row| answer(row, request, &order)).collect();
            (kvs, count, more)
        };
        let count = if planted::is(Bug::CountLimited) {
            kvs.len()
        } else {
            count
        };
        RangeResponse {
            header: None,
            kvs,
            more,
            count: count as i64,
        }
    }
}

fn is_filtered(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(row: &RevisionRow, request: &RangeRequest) -> bool {
    let within = |value: i64, min: i64, max: i64| value >= min && (max == 0 || value <= max);
    // A minimum of 0 is no condition; a negative one is true of every revision.
    within(row.main, request.min_mod_revision, request.max_mod_revision)
        && within(
            row.create_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
}

/// etcd serves a keys-only read from its index, which knows no lease; only a sort by value makes
/// it read the rows, and then the lease is there.
fn answer(row: &RevisionRow, request: &RangeRequest, order: &Order) -> KeyValue {
    let mut kv = key_value(row);
    if request.keys_only {
        kv.value = Bytes::new();
        if order.target != SortTarget::Value {
            kv.lease = 0;
        }
    }
    kv
}

struct Order {
    target: SortTarget,
    direction: SortOrder,
}

impl Order {
    /// Unknown numbers are refused by `validation`; a stored command that has one all the same
    /// reads in key order.
    fn of(request: &RangeRequest) -> Self {
        Self {
            target: SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key),
            direction: SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None),
        }
    }

    fn is_index_order(&self) -> bool {
        self.target == SortTarget::Key && self.direction != SortOrder::Descend
    }

    /// How many rows take part in the sort. With a target but no direction etcd cuts first (to one
    /// more than the limit, to know about `more`) and sorts what is left, ascending.
    fn fetch_limit(&self, request: &RangeRequest, limit: usize) -> usize {
        if self.direction == SortOrder::None && !is_filtered(request) {
            limit.saturating_add(1)
        } else {
            usize::MAX
        }
    }

    /// Stable: rows that compare equal stay in key order, in both directions.
    fn sort(&self, rows: &mut [&Arc<RevisionRow>]) {
        if self.is_index_order() {
            return;
        }
        let compare = |a: &RevisionRow, b: &RevisionRow| -> Ordering {
            match self.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.main.cmp(&b.main),
                SortTarget::Value => a.value.cmp(&b.value),
            }
        };
        if self.direction == SortOrder::Descend {
            rows.sort_by(|a, b| compare(b, a));
        } else {
            rows.sort_by(|a, b| compare(a, b));
        }
    }
}
