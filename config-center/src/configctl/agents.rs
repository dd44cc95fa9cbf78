//! `agents list`: every host, what it should run and what its agent says that it runs.

use schemas::fleet::{AgentStatus, ConfigSource, Watching};
use serde::Serialize;

use super::{
    Context,
    exit::{Exit, Failure},
    flags::Format,
    host_state::{HostState, Report, complaints, host_state},
    table::{Cell, Paint, Table, age, size},
};
use crate::fleet::{
    audit::now_ms,
    view::{Drift, View},
};

/// One host, as `-o json` prints it.
#[derive(Debug, Serialize)]
struct HostRow {
    host: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_revision: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Box<AgentStatus>>,
    #[serde(skip)]
    paint: Paint,
}

pub(crate) async fn list(context: &Context) -> Result<Exit, Failure> {
    // One revision for all of it: a config put in between would make its host look behind.
    let view = View::load(&context.client, &context.namespace).await?;
    let hosts = view.hosts().into_iter();
    let rows: Vec<HostRow> = hosts.map(|host| row(host, &view)).collect();
    if rows.is_empty() {
        context.out.remark(&format!(
            "no host is known: nothing under {} and no agent under {}",
            context.namespace.configs(),
            context.namespace.statuses()
        ));
    }
    match context.out.format {
        Format::Table | Format::Wide => {
            let table = if context.out.is_wide {
                wide_table(&rows, now_ms())
            } else {
                table(&rows, now_ms())
            };
            context.out.table(&table)?;
            for row in &rows {
                for problem in &row.problems {
                    context.out.remark(&format!("{}: {problem}", row.host));
                }
            }
        }
        Format::Name => {
            for row in &rows {
                context.out.line(&row.host)?;
            }
        }
        Format::Json | Format::Yaml => context.out.document(&rows)?,
    }
    Ok(Exit::Done)
}

fn row(host: &str, view: &View) -> HostRow {
    let desired = view.desired(host);
    let report = view.report(host);
    let state = host_state(desired.as_ref(), report);
    let mut problems = complaints(desired.as_ref(), report);
    let drift = view.drift(host);
    problems.extend(drift.as_ref().map(drift_sentence));
    let status = match report {
        Report::Status(status) => Some(status.clone()),
        Report::Absent | Report::Unreadable(_) => None,
    };
    let running = status.as_ref().and_then(|status| status.running.as_ref());
    HostRow {
        host: host.to_owned(),
        applied_revision: running.map(|running| running.revision),
        state: match &drift {
            Some(_) => "drifted".into(),
            None => state.to_string(),
        },
        desired_revision: desired.map(|desired| desired.revision),
        problems,
        paint: match state {
            _ if drift.is_some() => Paint::Notice,
            HostState::Applied => Paint::Good,
            HostState::Failed | HostState::Unknown => Paint::Bad,
            HostState::Degraded | HostState::Pending | HostState::Offline => Paint::Notice,
            HostState::NoConfig => Paint::Plain,
        },
        status,
    }
}

pub(crate) fn drift_sentence(drift: &Drift) -> String {
    let changes: Vec<String> = drift
        .changes
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let what = match (drift.revision, &drift.changes) {
        (None, _) => "deleted outside".to_owned(),
        (Some(revision), Some(_)) => {
            format!(
                "edited outside at revision {revision}: {}",
                changes.join(", ")
            )
        }
        (Some(revision), None) => {
            format!("edited outside at revision {revision}, and no document any more")
        }
    };
    format!("{what} (see `agents adopt` and `agents restore`)")
}

fn table(rows: &[HostRow], now_ms: u64) -> Table {
    let mut table = Table::new([
        "HOST", "STATE", "CONFIG", "ENTRIES", "FILES", "LAG", "LINES", "AGENT", "SEEN",
    ]);
    for row in rows {
        table.row(cells(row, now_ms));
    }
    table
}

fn cells(row: &HostRow, now_ms: u64) -> [Cell; 9] {
    let number =
        |revision: Option<i64>| revision.map_or("-".into(), |revision| revision.to_string());
    let config = format!(
        "{}/{}",
        number(row.applied_revision),
        number(row.desired_revision)
    );
    let from_agent = match &row.status {
        None => std::array::from_fn(|_| Cell::from("-")),
        Some(status) => from_agent(status, now_ms),
    };
    let [entries, files, lag, lines, agent, seen] = from_agent;
    [
        row.host.as_str().into(),
        Cell::painted(&row.state, row.paint),
        config.into(),
        entries,
        files,
        lag,
        lines,
        agent,
        seen,
    ]
}

/// With what one looks for when something is wrong.
fn wide_table(rows: &[HostRow], now_ms: u64) -> Table {
    let mut table = Table::new([
        "HOST", "STATE", "CONFIG", "ENTRIES", "FILES", "LAG", "LINES", "AGENT", "SEEN", "HOSTNAME",
        "LABELS", "SOURCE", "WATCHING", "ERRORS", "LOST", "PROBLEMS",
    ]);
    for row in rows {
        let more = match &row.status {
            None => std::array::from_fn(|_| Cell::from("-")),
            Some(status) => more_from_agent(status),
        };
        let [host, state, config, entries, files, lag, lines, agent, seen] = cells(row, now_ms);
        let [hostname, labels, source, watching, errors, lost] = more;
        table.row([
            host,
            state,
            config,
            entries,
            files,
            lag,
            lines,
            agent,
            seen,
            hostname,
            labels,
            source,
            watching,
            errors,
            lost,
            row.problems.len().to_string().into(),
        ]);
    }
    table
}

fn more_from_agent(status: &AgentStatus) -> [Cell; 6] {
    let labels: Vec<String> = status
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let labels = if labels.is_empty() {
        "-".to_owned()
    } else {
        labels.join(",")
    };
    let source = match status.config_source {
        ConfigSource::None => "none",
        ConfigSource::Center => "center",
        ConfigSource::Cache => "cache",
    };
    let watching = match status.watching {
        Watching::Notify => "notify",
        Watching::Polling => "polling",
    };
    [
        status.hostname.as_str().into(),
        labels.into(),
        source.into(),
        watching.into(),
        status.totals.delivery_errors.to_string().into(),
        size(status.totals.lost_bytes).into(),
    ]
}

fn from_agent(status: &AgentStatus, now_ms: u64) -> [Cell; 6] {
    let lag_bytes = status.files.iter().map(|file| file.lag_bytes).sum();
    [
        status.entries.len().to_string().into(),
        status.files.len().to_string().into(),
        size(lag_bytes).into(),
        status.totals.lines_acked.to_string().into(),
        status.agent_version.as_str().into(),
        age(now_ms.saturating_sub(status.reported_at_ms)).into(),
    ]
}
