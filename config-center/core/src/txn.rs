//! Transactions: compares, the check of the chosen path, and its execution.
//!
//! Three passes over the tree, in this order, each over the whole of it:
//! 1. every compare, nested ones included, on the state before the transaction;
//! 2. every operation on the chosen path: what could fail, fails here, and nothing is applied;
//! 3. the operations in order, each seeing the writes of those before it.

use std::cmp::Ordering;

use schemas::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use schemas::etcdserverpb::request_op::Request;
use schemas::etcdserverpb::response_op::Response;
use schemas::etcdserverpb::{
    Compare, RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

use crate::mvcc::{KeyRange, Keyspace};
use crate::planted::{self, Bug};
use crate::refusal::Refusal;
use crate::state::RevisionRow;
use crate::write::Writer;

/// Which list each transaction of the tree takes, in the order in which execution meets them.
type Path = Vec<bool>;

/// Runs a transaction that may write. The outer header is left out.
pub(crate) fn execute(
    writer: &mut Writer<'_>,
    request: &TxnRequest,
) -> Result<TxnResponse, Refusal> {
    let mut path = Path::with_capacity(1);
    choose(writer.keys(), request, &mut path);
    check(writer, request, &mut path.iter().copied())?;
    Ok(run(writer, request, &mut path.iter().copied()))
}

/// Runs a transaction of ranges on a state that stays as it is.
pub(crate) fn read_only(keys: &Keyspace, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
    let succeeded = compares_hold(keys, keys.revision(), &request.compare);
    let mut ranges = Vec::new();
    for op in chosen(request, succeeded) {
        let Some(Request::RequestRange(range)) = &op.request else {
            return Err(Refusal::NotCapable);
        };
        check_range(keys, range)?;
        ranges.push(range);
    }
    let current = keys.revision();
    let mut responses = Vec::with_capacity(ranges.len());
    for range in ranges {
        let revision = keys.read_revision(range.revision, current)?;
        let mut response = keys.read(range, revision);
        response.header = inner_header(current);
        responses.push(ResponseOp {
            response: Some(Response::ResponseRange(response)),
        });
    }
    Ok(TxnResponse {
        header: None,
        succeeded,
        responses,
    })
}

fn chosen(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded {
        &request.success
    } else {
        &request.failure
    }
}

/// First pass.
fn choose(keys: &Keyspace, request: &TxnRequest, path: &mut Path) {
    let succeeded = compares_hold(keys, keys.revision(), &request.compare);
    path.push(succeeded);
    for op in chosen(request, succeeded) {
        if let Some(Request::RequestTxn(inner)) = &op.request {
            choose(keys, inner, path);
        }
    }
}

fn compares_hold(keys: &Keyspace, revision: i64, compares: &[Compare]) -> bool {
    compares
        .iter()
        .all(|compare| holds(keys, revision, compare))
}

/// Every key of the range must satisfy the condition. Where there is no key, a version, revision or
/// lease is 0, but there is no value, so nothing can be said of it: not even "not equal".
fn holds(keys: &Keyspace, revision: i64, compare: &Compare) -> bool {
    let range = KeyRange::new(compare.key.clone(), compare.range_end.clone());
    let mut rows = keys.live_rows(&range, revision).peekable();
    if rows.peek().is_none() {
        return compare.target != CompareTarget::Value as i32 && row_satisfies(None, compare);
    }
    rows.all(|row| row_satisfies(Some(row), compare))
}

fn row_satisfies(row: Option<&RevisionRow>, compare: &Compare) -> bool {
    let found = relation(row, compare);
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => found == Ordering::Equal,
        Ok(CompareResult::NotEqual) => found != Ordering::Equal,
        Ok(CompareResult::Greater) => found == Ordering::Greater,
        Ok(CompareResult::Less) => found == Ordering::Less,
        // etcd lets a relation that it does not know hold.
        Err(_) => true,
    }
}

/// How the row stands to the operand. An operand of another kind than the target counts as 0, as
/// does a missing one.
fn relation(row: Option<&RevisionRow>, compare: &Compare) -> Ordering {
    use TargetUnion as Operand;
    let number = |of: fn(&RevisionRow) -> i64| row.map_or(0, of);
    let operand = compare.target_union.as_ref();
    let (found, wanted) = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => {
            let wanted = match operand {
                Some(Operand::Value(value)) => &value[..],
                _ => &[],
            };
            return row.map_or(&[][..], |row| &row.value[..]).cmp(wanted);
        }
        Ok(CompareTarget::Version) => (
            number(|row| row.version),
            match operand {
                Some(Operand::Version(version)) => *version,
                _ => 0,
            },
        ),
        Ok(CompareTarget::Create) => (
            number(|row| row.create_revision),
            match operand {
                Some(Operand::CreateRevision(revision)) => *revision,
                _ => 0,
            },
        ),
        Ok(CompareTarget::Mod) => (
            number(|row| row.main),
            match operand {
                Some(Operand::ModRevision(revision)) => *revision,
                _ => 0,
            },
        ),
        Ok(CompareTarget::Lease) => (
            number(|row| row.lease),
            match operand {
                Some(Operand::Lease(lease)) => *lease,
                _ => 0,
            },
        ),
        // A target that etcd does not know leaves the comparison at "equal".
        Err(_) => (0, 0),
    };
    found.cmp(&wanted)
}

/// Second pass.
fn check(
    writer: &Writer<'_>,
    request: &TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> Result<(), Refusal> {
    let succeeded = path.next().unwrap_or_default();
    for op in chosen(request, succeeded) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(writer.keys(), range)?,
            Some(Request::RequestPut(put)) => writer.check_put(put)?,
            Some(Request::RequestTxn(inner)) => check(writer, inner, path)?,
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

/// The store's revision is the newest that a transaction may name, its own included. Unlike a plain
/// range, a negative revision is compacted once anything is.
fn check_range(keys: &Keyspace, range: &RangeRequest) -> Result<(), Refusal> {
    if range.revision == 0 {
        Ok(())
    } else if range.revision > keys.revision() {
        Err(Refusal::FutureRevision)
    } else if range.revision < keys.compacted() {
        Err(Refusal::Compacted)
    } else {
        Ok(())
    }
}

/// Third pass.
fn run(
    writer: &mut Writer<'_>,
    request: &TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> TxnResponse {
    let mut succeeded = path.next().unwrap_or_default();
    if planted::is(Bug::LateCompare) {
        succeeded = compares_hold(writer.keys(), writer.current(), &request.compare);
    }
    let ops = chosen(request, succeeded);
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        let response = op.request.as_ref().map(|request| match request {
            Request::RequestRange(range) => {
                let mut response = writer.range(range);
                response.header = inner_header(writer.current());
                Response::ResponseRange(response)
            }
            Request::RequestPut(put) => {
                let mut response = writer.put(put);
                response.header = inner_header(writer.main());
                Response::ResponsePut(response)
            }
            Request::RequestDeleteRange(delete) => {
                let mut response = writer.delete_range(delete);
                response.header = inner_header(writer.current());
                Response::ResponseDeleteRange(response)
            }
            Request::RequestTxn(inner) => {
                let mut response = run(writer, inner, path);
                // etcd sends the header of a nested answer, but empty.
                response.header = Some(ResponseHeader::default());
                Response::ResponseTxn(response)
            }
        });
        responses.push(ResponseOp { response });
    }
    TxnResponse {
        header: None,
        succeeded,
        responses,
    }
}

fn inner_header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..ResponseHeader::default()
    })
}
