//! Builds a `State` from what the database of state holds.

use schemas::etcdserverpb::Member;

use crate::alarm::Alarm;
use crate::auth::AuthChange;
use crate::state::{RevisionRow, State};
use crate::v2::V2Change;

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
pub struct Restorer {
    state: State,
    last: (i64, i64),
    compacted: Option<i64>,
    revision: Option<i64>,
}

impl Restorer {
    pub fn row(&mut self, row: RevisionRow) -> Result<(), RestoreError> {
        let (last_main, last_sub) = self.last;
        let (main, sub) = (row.main, row.sub);
        // 0.0 is below every row: the first write of a fresh store is at 2.0.
        if (main, sub) <= self.last {
            return Err(RestoreError::OutOfOrder {
                main,
                sub,
                last_main,
                last_sub,
            });
        }
        self.last = (main, sub);
        self.state.keys.restore_row(row);
        Ok(())
    }

    pub fn lease(&mut self, id: i64, ttl_s: i64) {
        self.state.leases.grant(id, ttl_s);
    }

    /// What the lease had left at its last checkpoint; after `lease` of the same id.
    pub fn lease_remaining(&mut self, id: i64, remaining_s: i64) {
        self.state.leases.set_remaining(id, remaining_s);
    }

    pub fn alarm(&mut self, alarm: Alarm) {
        self.state.alarms.restore(alarm);
    }

    pub fn member(&mut self, member: Member) {
        self.state.members.insert(member.id, member);
    }

    /// A stored change of what the v2 API keeps beside the keyspace; events come by index.
    pub fn v2(&mut self, change: V2Change) {
        self.state.v2.apply(change);
    }

    /// A user, a role, or whether authentication is on.
    pub fn auth(&mut self, change: AuthChange) {
        self.state.auth.restore(change);
    }

    /// The revision of the last `Change::CompactTo`; 0 or less means that there was none.
    pub fn compacted(&mut self, revision: i64) {
        self.compacted = (revision > 0).then_some(revision);
    }

    /// The store's revision as it was persisted. It counts, not the rows: the newest row may have
    /// been compacted away, and a revision that falls would be handed out twice.
    pub fn revision(&mut self, revision: i64) {
        self.revision = Some(revision);
    }

    pub fn finish(self) -> Result<State, RestoreError> {
        let Self {
            mut state,
            last: (main, _),
            compacted,
            revision,
        } = self;
        let fresh = state.keys.revision();
        let revision = revision.unwrap_or(main).max(fresh);
        if revision < main {
            return Err(RestoreError::RevisionTooLow { revision, main });
        }
        state.keys.advance_to(revision);
        state.auth.restored();
        if let Some(compacted) = compacted {
            if compacted > revision {
                return Err(RestoreError::CompactedAboveRevision {
                    compacted,
                    revision,
                });
            }
            state.keys.purge(compacted);
        }
        let State { keys, leases, .. } = &mut state;
        for row in keys.current_rows() {
            if !leases.attach(row.lease, &row.key) {
                return Err(RestoreError::UnknownLease {
                    main: row.main,
                    sub: row.sub,
                    lease: row.lease,
                });
            }
        }
        Ok(state)
    }
}
