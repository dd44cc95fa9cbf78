//! The writes of one command: all at one revision, in the order of its operations.
//!
//! Keeps the keyspace and the leases in step. Nothing here can fail: whoever uses it has checked
//! the whole command first, so that a refused one leaves no trace.

use std::sync::Arc;

use schemas::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
};

use crate::lease::LeaseTable;
use crate::mvcc::{KeyRange, Keyspace, key_value};
use crate::planted::{self, Bug};
use crate::refusal::Refusal;
use crate::state::{Change, RevisionRow};

pub(crate) struct Writer<'a> {
    keys: &'a mut Keyspace,
    leases: &'a mut LeaseTable,
    /// The store's revision when the command began.
    begin: i64,
    /// Row changes only; their number is the next `sub`.
    changes: Vec<Change>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(keys: &'a mut Keyspace, leases: &'a mut LeaseTable) -> Self {
        Self {
            begin: keys.revision(),
            keys,
            leases,
            changes: Vec::new(),
        }
    }

    pub(crate) fn keys(&self) -> &Keyspace {
        self.keys
    }

    /// The revision that a read inside the command is at: the command's own after its first write.
    pub(crate) fn current(&self) -> i64 {
        if self.changes.is_empty() {
            self.begin
        } else {
            self.begin + 1
        }
    }

    /// The revision of the command's writes.
    pub(crate) fn main(&self) -> i64 {
        self.begin + 1
    }

    fn next(&self) -> (i64, i64) {
        (self.main(), self.changes.len() as i64)
    }

    /// The lease comes first: etcd says "lease not found" of a put that has both faults.
    pub(crate) fn check_put(&self, request: &PutRequest) -> Result<(), Refusal> {
        if request.lease != 0 && !self.leases.contains(request.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        let needs_previous = request.ignore_value || request.ignore_lease;
        if needs_previous && self.keys.get(&request.key).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, request: &PutRequest) -> PutResponse {
        let lease_of = |row: Option<&RevisionRow>| row.map_or(0, |row| row.lease);
        let (row, previous) = self.keys.put(self.next(), &request.key, |previous| {
            // A check found the key for the ignore flags; if a delete earlier in the same
            // transaction has taken it since (etcd's duplicate rule lets some pass), it starts
            // empty.
            let value = match previous {
                Some(row) if request.ignore_value => row.value.clone(),
                _ => request.value.clone(),
            };
            let lease = if request.ignore_lease {
                lease_of(previous)
            } else {
                request.lease
            };
            (value, lease)
        });
        let previous = previous.as_deref();
        let old_lease = lease_of(previous);
        if old_lease != row.lease {
            if !planted::is(Bug::LeaseNotDetached) {
                self.leases.detach(old_lease, &row.key);
            }
            self.leases.attach(row.lease, &row.key);
        }
        self.changes.push(Change::Revision(row));
        PutResponse {
            header: None,
            prev_kv: previous.filter(|_| request.prev_kv).map(key_value),
        }
    }

    pub(crate) fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let mut prev_kvs = Vec::new();
        let deleted = self.delete(&range, |row| {
            if request.prev_kv {
                prev_kvs.push(key_value(row));
            }
        });
        DeleteRangeResponse {
            header: None,
            deleted,
            prev_kvs,
        }
    }

    /// Deletes what exists in the range, in key order, and says how many keys that were.
    pub(crate) fn delete(
        &mut self,
        range: &KeyRange,
        mut previous: impl FnMut(&Arc<RevisionRow>),
    ) -> i64 {
        let before = self.changes.len();
        let next = self.next();
        let Self {
            keys,
            leases,
            changes,
            ..
        } = self;
        keys.delete(next, range, |row, tombstone| {
            leases.detach(row.lease, &row.key);
            previous(row);
            changes.push(Change::Revision(Arc::clone(tombstone)));
        });
        (self.changes.len() - before) as i64
    }

    /// A read among the writes. `check_range` was called at the start of the command, so only the
    /// question "which revision" is left.
    pub(crate) fn range(&self, request: &RangeRequest) -> RangeResponse {
        let revision = if request.revision > 0 {
            request.revision
        } else {
            self.current()
        };
        self.keys.read(request, revision)
    }

    /// Makes the revision the store's, if anything was written.
    pub(crate) fn commit(self) -> Vec<Change> {
        self.keys.advance_to(self.current());
        self.changes
    }
}
