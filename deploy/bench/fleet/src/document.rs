//! The status document of a simulated agent, as a function of what it was given and how it behaves.

use bytes::Bytes;
use schemas::agent::LogEntry;
use schemas::fleet::{
    AgentStatus, Attempt, AttemptResult, ConfigMark, ConfigSource, EntryState, EntryStatus,
    FileStatus, Problem, RunningConfig, STATUS_SCHEMA, Totals,
};
use sha2::{Digest as _, Sha256};

use crate::Behaviour;

/// A configuration as the store has it; no value: the key is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) revision: i64,
    pub(crate) value: Option<Bytes>,
}

impl Config {
    pub(crate) fn sha256(&self) -> Option<String> {
        let digest = Sha256::digest(self.value.as_ref()?);
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What an agent runs, and what it tried last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    config: Config,
    entries: Vec<LogEntry>,
    since_ms: u64,
    attempt: Option<Attempt>,
}

impl Running {
    /// Runs a configuration, or refuses it.
    pub(crate) fn apply(&mut self, config: Config, behaviour: &Behaviour, now_ms: u64) {
        let Some(sha256) = config.sha256() else {
            *self = Self::default();
            return;
        };
        let parsed = match &behaviour.refuses {
            Some(reason) => Err(reason.clone()),
            None => serde_json::from_slice(config.value.as_deref().unwrap_or_default())
                .map_err(|error| error.to_string()),
        };
        let mut attempt = Attempt {
            revision: config.revision,
            sha256,
            at_ms: now_ms,
            took_us: u64::try_from(behaviour.apply_delay.as_micros()).unwrap_or(u64::MAX),
            ..Attempt::default()
        };
        match parsed {
            Ok(entries) => {
                self.entries = entries;
                self.config = config;
                self.since_ms = now_ms;
            }
            Err(message) => {
                attempt.result = AttemptResult::Rejected;
                attempt.errors = vec![Problem {
                    message,
                    ..Problem::default()
                }];
            }
        }
        self.attempt = Some(attempt);
    }

    /// The document, with the lines that would have been sent so far.
    pub(crate) fn status(
        &self,
        base: &AgentStatus,
        seen: &Config,
        behaviour: &Behaviour,
        lines: u64,
        now_ms: u64,
    ) -> AgentStatus {
        let acked = if behaviour.is_clogged { 0 } else { lines };
        let entry = |entry: &LogEntry| {
            let trouble = behaviour.trouble.as_ref();
            let error = trouble
                .filter(|(path, _)| entry.path.starts_with(path))
                .map(|(_, reason)| reason.clone());
            EntryStatus {
                path: entry.path.clone(),
                topic: entry.topic.clone(),
                state: match error {
                    Some(_) => EntryState::Failing,
                    None => EntryState::Running,
                },
                error,
                lines_acked: acked,
                bytes_acked: acked * 100,
                files: 1,
                lag_bytes: (lines - acked) * 100,
                first_ack_ms: (acked > 0).then_some(self.since_ms),
            }
        };
        let file = |entry: &LogEntry| FileStatus {
            path: entry.path.clone(),
            topic: entry.topic.clone(),
            identity: "fe01:1a2b3c".into(),
            acked_offset: acked * 100,
            read_offset: lines * 100,
            size_bytes: lines * 100,
            lag_bytes: (lines - acked) * 100,
            ..FileStatus::default()
        };
        let running = self.config.sha256().map(|sha256| RunningConfig {
            revision: self.config.revision,
            sha256,
            since_ms: self.since_ms,
        });
        AgentStatus {
            schema: STATUS_SCHEMA,
            config_source: ConfigSource::Center,
            desired_seen: seen.sha256().map(|sha256| ConfigMark {
                revision: seen.revision,
                sha256,
            }),
            running,
            last_attempt: self.attempt.clone(),
            entries: self.entries.iter().map(entry).collect(),
            files: self.entries.iter().map(file).collect(),
            totals: Totals {
                lines_read: lines,
                lines_acked: acked,
                bytes_acked: acked * 100,
                ..Totals::default()
            },
            warnings: padding(behaviour.padding_bytes),
            reported_at_ms: now_ms.saturating_add_signed(behaviour.clock_skew_ms),
            ..base.clone()
        }
    }
}

fn padding(bytes: usize) -> Vec<String> {
    match bytes {
        0 => Vec::new(),
        bytes => vec!["x".repeat(bytes)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(revision: i64, value: &'static str) -> Config {
        Config {
            revision,
            value: Some(Bytes::from_static(value.as_bytes())),
        }
    }

    #[test]
    fn what_is_refused_does_not_run() {
        let mut running = Running::default();
        let good = Behaviour::default();
        let first = config(5, r#"[{"path":"/a","topic":"t"}]"#);
        running.apply(first.clone(), &good, 1);
        let second = config(6, r#"[{"path":"/b","topic":"t"}]"#);
        let bad = Behaviour {
            refuses: Some("no".into()),
            ..Behaviour::default()
        };
        running.apply(second.clone(), &bad, 2);
        let status = running.status(&AgentStatus::default(), &second, &bad, 7, 3);
        assert_eq!(status.running.unwrap().revision, 5);
        assert_eq!(status.desired_seen.unwrap().revision, 6);
        let attempt = status.last_attempt.unwrap();
        assert_eq!(
            (attempt.revision, attempt.result),
            (6, AttemptResult::Rejected)
        );
        assert_eq!(status.entries[0].path, "/a");
        running.apply(config(7, "no array"), &good, 4);
        let status = running.status(&AgentStatus::default(), &first, &good, 7, 4);
        assert_eq!(status.last_attempt.unwrap().result, AttemptResult::Rejected);
        running.apply(Config::default(), &good, 5);
        let status = running.status(&AgentStatus::default(), &Config::default(), &good, 7, 5);
        assert!(status.running.is_none() && status.entries.is_empty());
    }

    #[test]
    fn trouble_is_with_the_path_that_has_it() {
        let mut running = Running::default();
        let behaviour = Behaviour {
            trouble: Some(("/secret".into(), "permission denied".into())),
            clock_skew_ms: -500,
            is_clogged: true,
            padding_bytes: 10,
            ..Behaviour::default()
        };
        let entries = r#"[{"path":"/a","topic":"t"},{"path":"/secret/b","topic":"t"}]"#;
        let given = config(5, entries);
        running.apply(given.clone(), &behaviour, 1_000);
        let status = running.status(&AgentStatus::default(), &given, &behaviour, 7, 1_000);
        let states: Vec<_> = status.entries.iter().map(|entry| entry.state).collect();
        assert_eq!(states, [EntryState::Running, EntryState::Failing]);
        assert_eq!(status.reported_at_ms, 500);
        assert_eq!(
            (status.files[0].lag_bytes, status.totals.lines_acked),
            (700, 0)
        );
        assert_eq!(status.warnings[0].len(), 10);
    }
}
