//! Builds a `State` from what the database of state holds.

use schemas::etcdserverpb::Member;

use crate::state::{RevisionRow, State};

/// Why stored rows are not a state. The member must not start on them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("revision row {main}.{sub} does not follow {last_main}.{last_sub}")]
    OutOfOrder {
        main: i64,
        sub: i64,
        last_main: i64,
        last_sub: i64,
    },
    #[error("stored revision {revision} is below the row of revision {main}")]
    RevisionTooLow { revision: i64, main: i64 },
    #[error("compacted at {compacted}, above the stored revision {revision}")]
    CompactedAboveRevision { compacted: i64, revision: i64 },
    #[error("revision row {main}.{sub} is attached to the lease {lease}, which is not stored")]
    UnknownLease { main: i64, sub: i64, lease: i64 },
}

/// Takes the stored rows and gives the state. Calls may come in any order, except that rows come
/// in the order of `(main, sub)`.
///
/// Rows that a compaction should have removed may still be there: they are left out again, so the
/// adapter may purge them whenever it likes.
#[derive(Debug, Default)]
pub struct Restorer {}

impl Restorer {
    pub fn row(&mut self, _row: RevisionRow) -> Result<(), RestoreError> {
        todo!()
    }

    pub fn lease(&mut self, _id: i64, _ttl_s: i64) {
        todo!()
    }

    pub fn member(&mut self, _member: Member) {
        todo!()
    }

    /// The revision of the last `Change::CompactTo`; do not call when there was none.
    pub fn compacted(&mut self, _revision: i64) {
        todo!()
    }

    /// The store's revision as it was persisted. It counts, not the rows: the newest row may have
    /// been compacted away.
    pub fn revision(&mut self, _revision: i64) {
        todo!()
    }

    pub fn finish(self) -> Result<State, RestoreError> {
        todo!()
    }
}
