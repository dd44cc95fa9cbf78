//! What a status document says about a configuration: pure judgement, no store and no clock.
//!
//! "Applied" means that the agent runs exactly the bytes in the store, told by their hash. A newer
//! revision number alone proves nothing, and an older one with the same bytes is as good.

use std::fmt;

use schemas::fleet::{AgentStatus, AttemptResult, EntryState, EntryStatus, Problem};
/// A configuration as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub revision: i64,
    pub sha256: String,
}

/// What is under an agent's status key.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    Absent,
    /// Something else than a status document; why it cannot be read.
    Unreadable(String),
    Status(Box<AgentStatus>),
}

impl Report {
    pub fn parse(value: &[u8]) -> Self {
        match serde_json::from_slice(value) {
            Ok(status) => Self::Status(Box::new(status)),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

/// How a host stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    Applied,
    /// The agent has not come to the newest configuration yet.
    Pending,
    /// The newest configuration runs in part, or a file or Kafka makes trouble.
    Degraded,
    /// The agent refused the newest configuration; what ran before goes on.
    Failed,
    /// There is a configuration and no agent reports.
    Offline,
    /// An agent reports and nothing is configured for it.
    NoConfig,
    /// The status cannot be read.
    Unknown,
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Offline => "offline",
            Self::NoConfig => "no config",
            Self::Unknown => "unknown",
        })
    }
}

pub fn host_state(desired: Option<&Desired>, report: &Report) -> HostState {
    let status = match report {
        Report::Absent => return HostState::Offline,
        Report::Unreadable(_) => return HostState::Unknown,
        Report::Status(status) => status,
    };
    let Some(desired) = desired else {
        return HostState::NoConfig;
    };
    match verdict(desired, status) {
        Verdict::Applied if is_troubled(status) => HostState::Degraded,
        Verdict::Applied => HostState::Applied,
        Verdict::PartlyApplied(_) => HostState::Degraded,
        Verdict::Rejected(_) => HostState::Failed,
        Verdict::Pending | Verdict::Newer(_) => HostState::Pending,
    }
}

/// Where an agent stands with one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Applied,
    PartlyApplied(Vec<Problem>),
    Rejected(Vec<Problem>),
    Pending,
    /// The agent has gone on to a configuration that is newer than the one asked about.
    Newer(i64),
}

pub fn verdict(desired: &Desired, status: &AgentStatus) -> Verdict {
    let attempt = status.last_attempt.as_ref();
    if let Some(attempt) = attempt.filter(|attempt| attempt.sha256 == desired.sha256) {
        match attempt.result {
            AttemptResult::Rejected => return Verdict::Rejected(attempt.errors.clone()),
            AttemptResult::PartlyApplied => return Verdict::PartlyApplied(attempt.errors.clone()),
            AttemptResult::Applied => {}
        }
    }
    if status
        .running
        .as_ref()
        .is_some_and(|running| running.sha256 == desired.sha256)
    {
        return Verdict::Applied;
    }
    let newest = [
        status.running.as_ref().map(|running| running.revision),
        attempt.map(|attempt| attempt.revision),
    ];
    match newest.into_iter().flatten().max() {
        Some(revision) if revision > desired.revision => Verdict::Newer(revision),
        _ => Verdict::Pending,
    }
}

/// A path whose lines were read and of which Kafka has taken none yet: the configuration runs, and
/// nothing proves that it works.
pub fn waits_for_first_line(status: &AgentStatus) -> Option<&str> {
    let is_stuck = |entry: &&EntryStatus| {
        let mut files = status.files.iter();
        entry.state == EntryState::Running
            && entry.lines_acked == 0
            && files.any(|file| {
                (&file.path, &file.topic) == (&entry.path, &entry.topic)
                    && file.read_offset > file.acked_offset
            })
    };
    let mut entries = status.entries.iter();
    entries.find(is_stuck).map(|entry| entry.path.as_str())
}

/// True when a running entry fails or was refused.
fn is_troubled(status: &AgentStatus) -> bool {
    status
        .entries
        .iter()
        .any(|entry| matches!(entry.state, EntryState::Failing | EntryState::Rejected))
}

/// Sentences about what is wrong with a host; empty when nothing is.
pub fn complaints(desired: Option<&Desired>, report: &Report) -> Vec<String> {
    let status = match report {
        Report::Absent => return Vec::new(),
        Report::Unreadable(reason) => return vec![format!("its status is unreadable: {reason}")],
        Report::Status(status) => status,
    };
    let mut found = Vec::new();
    if let Some(Verdict::Rejected(problems) | Verdict::PartlyApplied(problems)) =
        desired.map(|desired| verdict(desired, status))
    {
        found.extend(problems.iter().map(problem_sentence));
    }
    let failing = status
        .entries
        .iter()
        .filter(|entry| entry.state == EntryState::Failing);
    found.extend(failing.map(|entry| {
        let reason = entry.error.as_deref().unwrap_or("failing, no reason given");
        format!("{}: {reason}", entry.path)
    }));
    found
}

/// One problem of a configuration in words; entries count from 1 for people.
pub fn problem_sentence(problem: &Problem) -> String {
    match (problem.index, problem.field.as_deref()) {
        (Some(index), Some(field)) => format!("entry {}, {field}: {}", index + 1, problem.message),
        (Some(index), None) => format!("entry {}: {}", index + 1, problem.message),
        (None, Some(field)) => format!("{field}: {}", problem.message),
        (None, None) => problem.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use schemas::fleet::{Attempt, EntryStatus, RunningConfig};

    use super::*;

    fn desired() -> Desired {
        Desired {
            revision: 10,
            sha256: "new".into(),
        }
    }

    fn status(
        running: Option<(i64, &str)>,
        attempt: Option<(i64, &str, AttemptResult)>,
    ) -> AgentStatus {
        AgentStatus {
            running: running.map(|(revision, sha256)| RunningConfig {
                revision,
                sha256: sha256.into(),
                since_ms: 0,
            }),
            last_attempt: attempt.map(|(revision, sha256, result)| Attempt {
                revision,
                sha256: sha256.into(),
                result,
                errors: vec![Problem {
                    index: Some(0),
                    field: Some("topic".into()),
                    message: "bad".into(),
                }],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn state(status: AgentStatus) -> HostState {
        host_state(Some(&desired()), &Report::Status(Box::new(status)))
    }

    #[test]
    fn states_follow_the_hash() {
        use AttemptResult::{Applied, PartlyApplied, Rejected};
        let table = [
            (
                Some((10, "new")),
                Some((10, "new", Applied)),
                HostState::Applied,
            ),
            // The same bytes under an older revision are the same configuration.
            (Some((4, "new")), None, HostState::Applied),
            (
                Some((4, "old")),
                Some((4, "old", Applied)),
                HostState::Pending,
            ),
            (None, None, HostState::Pending),
            (
                Some((4, "old")),
                Some((10, "new", Rejected)),
                HostState::Failed,
            ),
            (
                Some((10, "new")),
                Some((10, "new", PartlyApplied)),
                HostState::Degraded,
            ),
            // An old refusal says nothing about the new bytes.
            (
                Some((10, "new")),
                Some((4, "old", Rejected)),
                HostState::Applied,
            ),
            (
                Some((12, "newer")),
                Some((12, "newer", Applied)),
                HostState::Pending,
            ),
        ];
        for (running, attempt, expected) in table {
            assert_eq!(
                state(status(running, attempt)),
                expected,
                "{running:?} {attempt:?}"
            );
        }
    }

    #[test]
    fn a_failing_entry_degrades() {
        let mut troubled = status(Some((10, "new")), None);
        troubled.entries = vec![EntryStatus {
            path: "/l".into(),
            state: EntryState::Failing,
            error: Some("permission denied".into()),
            ..Default::default()
        }];
        assert_eq!(state(troubled.clone()), HostState::Degraded);
        let words = complaints(Some(&desired()), &Report::Status(Box::new(troubled)));
        assert_eq!(words, ["/l: permission denied"]);
    }

    #[test]
    fn one_side_missing() {
        assert_eq!(
            host_state(Some(&desired()), &Report::Absent),
            HostState::Offline
        );
        let idle = Report::Status(Box::new(status(None, None)));
        assert_eq!(host_state(None, &idle), HostState::NoConfig);
        assert_eq!(
            host_state(Some(&desired()), &Report::parse(b"{")),
            HostState::Unknown
        );
    }

    #[test]
    fn newer_is_told_apart_from_pending() {
        let went_on = status(Some((12, "newer")), None);
        assert_eq!(verdict(&desired(), &went_on), Verdict::Newer(12));
        let refused = status(Some((4, "old")), Some((10, "new", AttemptResult::Rejected)));
        let Verdict::Rejected(problems) = verdict(&desired(), &refused) else {
            panic!("not rejected");
        };
        assert_eq!(problem_sentence(&problems[0]), "entry 1, topic: bad");
    }
}
