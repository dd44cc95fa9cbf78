//! What an adapter would persist: the changes of each command, and the revision after it.

use std::collections::{BTreeMap, BTreeSet};

use schemas::etcdserverpb::Member;

use crate::state::RevisionRow;
use crate::{Alarm, Applied, Change, RestoreError, State};

#[derive(Debug, Default)]
pub(super) struct Disk {
    rows: Vec<RevisionRow>,
    leases: BTreeMap<i64, i64>,
    remaining: BTreeMap<i64, i64>,
    members: BTreeMap<u64, Member>,
    alarms: BTreeSet<Alarm>,
    compacted: Option<i64>,
    revision: i64,
}

impl Disk {
    pub(super) fn persist(&mut self, applied: &Applied) {
        self.revision = applied.revision;
        for change in &applied.changes {
            match change.clone() {
                Change::Revision(row) => self.rows.push(RevisionRow::clone(&row)),
                Change::CompactTo { revision } => self.compacted = Some(revision),
                Change::LeasePut { id, ttl_s } => {
                    self.leases.insert(id, ttl_s);
                }
                Change::LeaseDelete { id } => {
                    self.leases.remove(&id);
                    self.remaining.remove(&id);
                }
                Change::LeaseRemaining { id, remaining_s } => {
                    self.remaining.insert(id, remaining_s);
                }
                Change::AlarmRaised(alarm) => {
                    self.alarms.insert(alarm);
                }
                Change::AlarmTakenBack(alarm) => {
                    self.alarms.remove(&alarm);
                }
                Change::MemberPut(member) => {
                    self.members.insert(member.id, member);
                }
                // The v2 API has tests of its own.
                Change::V2(_) => {}
                Change::Auth(_) => unreachable!("no generated command changes users"),
            }
        }
    }

    /// The statement an adapter runs after a compaction, spelled out row by row.
    pub(super) fn purge(&mut self) {
        let Some(compacted) = self.compacted else {
            return;
        };
        let all = self.rows.clone();
        self.rows.retain(|row| {
            let superseded = all.iter().any(|later| {
                later.key == row.key
                    && later.main <= compacted
                    && (later.main, later.sub) > (row.main, row.sub)
            });
            let dead = row.tombstone && row.main < compacted;
            row.main > compacted || !(superseded || dead)
        });
    }

    pub(super) fn restore(&self) -> Result<State, RestoreError> {
        let mut restorer = State::restore();
        for row in &self.rows {
            restorer.row(row.clone())?;
        }
        for (id, ttl_s) in &self.leases {
            restorer.lease(*id, *ttl_s);
        }
        for (id, remaining_s) in &self.remaining {
            restorer.lease_remaining(*id, *remaining_s);
        }
        for alarm in &self.alarms {
            restorer.alarm(*alarm);
        }
        for member in self.members.values() {
            restorer.member(member.clone());
        }
        if let Some(compacted) = self.compacted {
            restorer.compacted(compacted);
        }
        if self.revision > 0 {
            restorer.revision(self.revision);
        }
        restorer.finish()
    }
}
