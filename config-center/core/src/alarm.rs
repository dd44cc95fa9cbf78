//! Alarms: a member says that something is wrong with it, and the whole cluster refuses what would
//! make it worse until an operator takes the alarm back. Replicated, so that all members refuse the
//! same.

use std::collections::BTreeSet;

use schemas::command::command::Op;
use schemas::etcdserverpb::alarm_request::AlarmAction;
use schemas::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType};

use crate::quota;
use crate::refusal::Refusal;

/// One alarm of one member; the order is the one in which they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// The number of an `AlarmType`.
    pub kind: i32,
    pub member_id: u64,
}

impl Alarm {
    /// etcd's name of the kind.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        AlarmType::try_from(self.kind).map_or("UNKNOWN", |kind| kind.as_str_name())
    }
}

impl From<Alarm> for AlarmMember {
    fn from(alarm: Alarm) -> Self {
        Self {
            member_id: alarm.member_id,
            alarm: alarm.kind,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct AlarmTable {
    active: BTreeSet<Alarm>,
}

/// What a request did: the alarms to answer with, and what changed (raised or taken back).
pub(crate) struct AlarmOutcome {
    pub(crate) answer: Vec<AlarmMember>,
    pub(crate) changed: Option<(Alarm, bool)>,
}

impl AlarmTable {
    pub(crate) fn restore(&mut self, alarm: Alarm) {
        self.active.insert(alarm);
    }

    /// As in etcd: to raise what is active answers with it, to take back what is not answers with
    /// nothing, and neither is an error.
    pub(crate) fn apply(&mut self, request: &AlarmRequest) -> Result<AlarmOutcome, Refusal> {
        let alarm = Alarm {
            kind: request.alarm,
            member_id: request.member_id,
        };
        let (answer, changed) = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => (self.list(request.alarm), None),
            Ok(AlarmAction::Activate) if alarm.kind == AlarmType::None as i32 => (Vec::new(), None),
            Ok(AlarmAction::Activate) => {
                let is_new = self.active.insert(alarm);
                (vec![alarm.into()], is_new.then_some((alarm, true)))
            }
            Ok(AlarmAction::Deactivate) => {
                if self.active.remove(&alarm) {
                    (vec![alarm.into()], Some((alarm, false)))
                } else {
                    (Vec::new(), None)
                }
            }
            Err(_) => return Err(Refusal::UnknownMethod),
        };
        Ok(AlarmOutcome { answer, changed })
    }

    /// Those of one kind; of every kind for `AlarmType::None`.
    pub(crate) fn list(&self, kind: i32) -> Vec<AlarmMember> {
        self.active
            .iter()
            .filter(|alarm| kind == AlarmType::None as i32 || alarm.kind == kind)
            .map(|alarm| (*alarm).into())
            .collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Alarm> {
        self.active.iter().copied()
    }

    fn is_raised(&self, kind: AlarmType) -> bool {
        self.active.iter().any(|alarm| alarm.kind == kind as i32)
    }

    /// What an alarm of any member forbids to everybody.
    pub(crate) fn check(&self, op: &Op) -> Result<(), Refusal> {
        if self.active.is_empty() {
            return Ok(());
        }
        let changes_data = matches!(
            op,
            Op::Put(_)
                | Op::DeleteRange(_)
                | Op::Txn(_)
                | Op::Compaction(_)
                | Op::LeaseGrant(_)
                | Op::LeaseRevoke(_)
                | Op::V2Write(_)
                | Op::V2Expire(_)
        );
        if changes_data && self.is_raised(AlarmType::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        if quota::cost_bytes(op) > 0 && self.is_raised(AlarmType::Nospace) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }
}
