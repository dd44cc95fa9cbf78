//! The replicated state machine: one command in, one answer, the rows to persist and the events.

use bytes::Bytes;
use schemas::command::Command;
use schemas::etcdserverpb::{
    CompactionResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseRevokeResponse, Member,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};

use crate::mvcc::{EventPage, KeyRange};
use crate::refusal::Refusal;
use crate::restore::Restorer;

/// Everything that members agree on. `Default` is the fresh store: revision 1, no keys.
#[derive(Debug, Default)]
pub struct State {}

/// What a command answered. Headers are left out (`None`): the adapter knows cluster and term.
/// Inner headers of a transaction carry the revision, as etcd sends them.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compaction(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    MemberPublish,
}

/// One row-level change for the database of state, in the order of application.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A new revision of a key. For a tombstone, `value` is empty and version and
    /// create_revision are 0.
    Revision(RevisionRow),
    /// Superseded revisions at or below this one are gone.
    CompactTo { revision: i64 },
    LeasePut { id: i64, ttl_s: i64 },
    LeaseDelete { id: i64 },
    MemberPut(Member),
}

/// One revision of one key as it is stored; `(main, sub)` is its identity.
#[derive(Debug, Clone, PartialEq)]
pub struct RevisionRow {
    pub main: i64,
    pub sub: i64,
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: i64,
    pub version: i64,
    pub lease: i64,
    pub tombstone: bool,
}

/// The outcome of one command.
#[derive(Debug)]
pub struct Applied {
    pub reply: Result<Reply, Refusal>,
    /// The store's revision after the command: the header's revision.
    pub revision: i64,
    pub changes: Vec<Change>,
}

impl Applied {
    /// The keys that this revision touched, for `WatcherGroups::publish`; a key may come twice.
    pub fn changed_keys(&self) -> impl Iterator<Item = &Bytes> {
        self.changes.iter().filter_map(|change| match change {
            Change::Revision(row) => Some(&row.key),
            _ => None,
        })
    }
}

/// Commands of other versions must stop the member before `State::apply`.
pub const COMMAND_VERSION: u32 = 1;

impl State {
    /// Starts to build a state from stored rows.
    #[must_use]
    pub fn restore() -> Restorer {
        Restorer::default()
    }

    /// The history of a range from `from_rev` to `to_rev`, both included, at most `max_revisions`
    /// revisions with events. `from_rev` equal to the compacted revision is legal, below is
    /// `Compacted`. A long stretch without events ends the page early: go on at `next_rev`.
    pub fn events(
        &self,
        _range: &KeyRange,
        _from_rev: i64,
        _to_rev: i64,
        _max_revisions: usize,
        _prev_kv: bool,
    ) -> Result<EventPage, Refusal> {
        todo!()
    }

    /// Applies a committed command. Deterministic; a refused command changes nothing.
    pub fn apply(&mut self, _command: &Command) -> Applied {
        todo!()
    }

    /// A read of the newest or an older revision, without a header.
    pub fn range(&self, _request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        todo!()
    }

    /// A transaction of reads only, without a header (its inner headers are filled).
    pub fn read_only_txn(&self, _request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        todo!()
    }

    pub fn revision(&self) -> i64 {
        todo!()
    }

    /// -1 until the first compaction, as in etcd.
    pub fn compact_revision(&self) -> i64 {
        todo!()
    }

    pub fn members(&self) -> Vec<Member> {
        todo!()
    }

    /// The lease's TTL as granted and its keys in order; `None` for an unknown one.
    pub fn lease(&self, _id: i64) -> Option<(i64, Vec<Bytes>)> {
        todo!()
    }

    /// Every lease with its granted TTL, by id.
    pub fn leases(&self) -> Vec<(i64, i64)> {
        todo!()
    }
}
