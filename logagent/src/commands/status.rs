//! `logagent status`: the status document of the agent on this host, as tables or as JSON.

use schemas::fleet::{
    AgentStatus, Attempt, AttemptResult, ConfigSource, EntryState, FileStatus, Problem, Watching,
};

use super::table::{columns, row, size, span};
use super::{Answer, CommandError, DONE, NEGATIVE, json};
use crate::flags::{Home, Output};
use crate::local::client;
use crate::settings;
use crate::status::unix_ms;

/// More files than this are only counted; `-o json` has them all.
const FILES_SHOWN_MAX: usize = 500;
const LOSSES_SHOWN_MAX: usize = 20;
const HASH_SHOWN_CHARS: usize = 12;

pub fn run(home: &Home, output: Output) -> Result<Answer, CommandError> {
    let status = client::status(&settings::whereabouts(home)?.data_dir)?;
    let text = match output {
        Output::Json => json(&status)?,
        Output::Table => tables(&status, unix_ms()),
    };
    let exit_code = if is_well(&status) { DONE } else { NEGATIVE };
    Ok(Answer { text, exit_code })
}

fn is_well(status: &AgentStatus) -> bool {
    let refused = |attempt: &Attempt| attempt.result != AttemptResult::Applied;
    status.running.is_some()
        && status.conflict.is_none()
        && !status.last_attempt.as_ref().is_some_and(refused)
        && !status
            .entries
            .iter()
            .any(|entry| matches!(entry.state, EntryState::Failing | EntryState::Rejected))
}

fn tables(status: &AgentStatus, now_ms: u64) -> String {
    let age = |ms: u64| span(now_ms.saturating_sub(ms));
    let mut text = summary(status, &age);
    let mut section = |rows: Vec<Vec<String>>| {
        if rows.len() > 1 {
            text.push('\n');
            text.push_str(&columns(&rows));
        }
    };
    let mut entries = vec![row([
        "PATH",
        "TOPIC",
        "STATE",
        "FILES",
        "LAG",
        "LINES ACKED",
        "ERROR",
    ])];
    for entry in &status.entries {
        let state = match entry.state {
            EntryState::Waiting => "waiting",
            EntryState::Running => "running",
            EntryState::Failing => "failing",
            EntryState::Rejected => "rejected",
        };
        entries.push(vec![
            entry.path.clone(),
            entry.topic.clone(),
            state.to_owned(),
            entry.files.to_string(),
            size(entry.lag_bytes),
            entry.lines_acked.to_string(),
            entry.error.clone().unwrap_or_default(),
        ]);
    }
    section(entries);
    let mut files = vec![row([
        "FILE", "TOPIC", "IDENTITY", "ACKED", "SIZE", "LAG", "LINES/S", "LAST ACK",
    ])];
    for file in status.files.iter().take(FILES_SHOWN_MAX) {
        files.push(file_row(file, &age));
    }
    section(files);
    let mut losses = vec![row([
        "LOST", "TOPIC", "IDENTITY", "FROM", "TO", "WHEN", "REASON",
    ])];
    for loss in status.losses.iter().rev().take(LOSSES_SHOWN_MAX) {
        losses.push(vec![
            loss.path.clone(),
            loss.topic.clone(),
            loss.file.clone(),
            loss.from_offset.to_string(),
            loss.to_offset.to_string(),
            format!("{} ago", age(loss.at_ms)),
            loss.reason.clone(),
        ]);
    }
    section(losses);
    let hidden = status.files.len().saturating_sub(FILES_SHOWN_MAX);
    if hidden > 0 {
        text.push_str(&format!("{hidden} more files: -o json has all\n"));
    }
    text
}

fn file_row(file: &FileStatus, age: &impl Fn(u64) -> String) -> Vec<String> {
    let path = if file.draining {
        format!("{} (rotated away)", file.path)
    } else {
        file.path.clone()
    };
    vec![
        path,
        file.topic.clone(),
        file.identity.clone(),
        file.acked_offset.to_string(),
        file.size_bytes.to_string(),
        size(file.lag_bytes),
        file.lines_per_s.to_string(),
        file.last_ack_ms
            .map_or_else(|| "never".to_owned(), |at_ms| format!("{} ago", age(at_ms))),
    ]
}

fn summary(status: &AgentStatus, age: &impl Fn(u64) -> String) -> String {
    let mut lines = vec![format!(
        "logagent {} on {} as {}, up {}",
        status.agent_version,
        status.hostname,
        status.host,
        age(status.started_at_ms)
    )];
    let source = match status.config_source {
        ConfigSource::None => "nowhere",
        ConfigSource::Center => "the center",
        ConfigSource::Cache => "the disk, because the center did not answer",
    };
    lines.push(match &status.running {
        Some(running) => format!(
            "runs     revision {} of {} from {source}, for {}, sha256 {}",
            running.revision,
            status.config_key,
            age(running.since_ms),
            running.sha256.get(..HASH_SHOWN_CHARS).unwrap_or_default()
        ),
        None => format!(
            "runs     nothing yet: no configuration under {}",
            status.config_key
        ),
    });
    if let Some(attempt) = &status.last_attempt {
        let result = match attempt.result {
            AttemptResult::Applied => None,
            AttemptResult::PartlyApplied => Some("applied in part"),
            AttemptResult::Rejected => Some("rejected, what ran before goes on"),
        };
        if let Some(result) = result {
            let when = age(attempt.at_ms);
            lines.push(format!(
                "attempt  revision {} {result}, {when} ago",
                attempt.revision
            ));
        }
        lines.extend(attempt.errors.iter().map(problem));
    }
    let in_flight = &status.in_flight;
    lines.push(format!(
        "flow     {} lines acknowledged, {} of {} in flight, {} files paused, {} errors",
        status.totals.lines_acked,
        size(in_flight.bytes),
        size(in_flight.max_bytes),
        in_flight.paused_files,
        status.totals.delivery_errors
    ));
    let watching = match status.watching {
        Watching::Notify => "notifications, checked by a sweep",
        Watching::Polling => "polling",
    };
    lines.push(format!("watching {watching}"));
    lines.push(format!("lost     {}", size(status.totals.lost_bytes)));
    lines.extend(
        status
            .warnings
            .iter()
            .map(|warning| format!("warning  {warning}")),
    );
    lines.join("\n") + "\n"
}

fn problem(problem: &Problem) -> String {
    let entry = problem
        .index
        .map_or_else(String::new, |index| format!("entry {index}: "));
    format!("error    {entry}{}", problem.message)
}

#[cfg(test)]
mod tests {
    use schemas::fleet::{ConfigMark, EntryStatus, Loss, RunningConfig, Totals};

    use super::*;

    fn status() -> AgentStatus {
        AgentStatus {
            agent_version: "1.2.3".to_owned(),
            hostname: "web-1".to_owned(),
            host: "192.168.56.1".to_owned(),
            config_key: "/k".to_owned(),
            config_source: ConfigSource::Center,
            desired_seen: Some(ConfigMark::default()),
            running: Some(RunningConfig {
                revision: 7,
                sha256: "0123456789abcdef".to_owned(),
                since_ms: 0,
            }),
            entries: vec![EntryStatus {
                path: "/var/log/a".to_owned(),
                topic: "t".to_owned(),
                state: EntryState::Running,
                files: 1,
                lag_bytes: 2_048,
                lines_acked: 5,
                ..EntryStatus::default()
            }],
            ..AgentStatus::default()
        }
    }

    #[test]
    fn a_well_agent_in_a_few_lines() {
        let status = status();
        assert!(is_well(&status));
        let text = tables(&status, 65_000);
        let expected = "\
logagent 1.2.3 on web-1 as 192.168.56.1, up 1 min
runs     revision 7 of /k from the center, for 1 min, sha256 0123456789ab
flow     0 lines acknowledged, 0 B of 0 B in flight, 0 files paused, 0 errors
watching notifications, checked by a sweep
lost     0 B

PATH        TOPIC  STATE    FILES  LAG      LINES ACKED  ERROR
/var/log/a  t      running  1      2.0 KiB  5
";
        assert_eq!(text, expected);
    }

    #[test]
    fn trouble_is_told_and_is_an_exit_code() {
        let mut failing = status();
        failing.entries[0].state = EntryState::Failing;
        failing.entries[0].error = Some("permission denied".to_owned());
        failing.losses = vec![Loss {
            reason: "truncated".to_owned(),
            from_offset: 3,
            to_offset: 9,
            ..Loss::default()
        }];
        failing.totals = Totals {
            lost_bytes: 6,
            ..Totals::default()
        };
        assert!(!is_well(&failing));
        let text = tables(&failing, 0);
        for words in ["permission denied", "lost     6 B", "truncated"] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        let mut refused = status();
        refused.last_attempt = Some(Attempt {
            revision: 8,
            result: AttemptResult::Rejected,
            errors: vec![Problem {
                message: "the value is not JSON".to_owned(),
                ..Problem::default()
            }],
            ..Attempt::default()
        });
        assert!(!is_well(&refused));
        assert!(tables(&refused, 0).contains("error    the value is not JSON"));
        assert!(!is_well(&AgentStatus::default()));
    }
}
