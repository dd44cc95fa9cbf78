//! `agents list`: every host, what it should run and what its agent says that it runs.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use schemas::etcdserverpb::{RangeRequest, RangeResponse};
use schemas::fleet::AgentStatus;
use serde::Serialize;

use super::{
    Context,
    exit::{Exit, Failure},
    flags::Format,
    host_state::{Desired, HostState, Report, complaints, host_state},
    keys::{host_of, under},
    sha256_hex,
    table::{Cell, Paint, Table, age, size},
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
    let (configs, statuses) = (context.namespace.configs(), context.namespace.statuses());
    let desired = range(context, &configs, 0).await?;
    // Both at one revision: a config put in between would make its host look behind.
    let revision = desired.header.as_ref().map_or(0, |header| header.revision);
    let reported = range(context, &statuses, revision).await?;

    let mut hosts: BTreeMap<String, (Option<Desired>, Report)> = BTreeMap::new();
    for kv in &desired.kvs {
        if let Some(host) = host_of(&kv.key, &configs) {
            let desired = Desired {
                revision: kv.mod_revision,
                sha256: sha256_hex(&kv.value),
            };
            hosts.insert(host, (Some(desired), Report::Absent));
        }
    }
    for kv in &reported.kvs {
        if let Some(host) = host_of(&kv.key, &statuses) {
            hosts.entry(host).or_insert((None, Report::Absent)).1 = Report::parse(&kv.value);
        }
    }
    let rows: Vec<HostRow> = hosts
        .into_iter()
        .map(|(host, (desired, report))| row(host, desired, report))
        .collect();
    if rows.is_empty() {
        context.out.remark(&format!(
            "no host is known: nothing under {configs} and no agent under {statuses}"
        ));
    }
    match context.out.format {
        Format::Table => {
            context.out.table(&table(&rows, now_ms()))?;
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

async fn range(context: &Context, prefix: &str, revision: i64) -> Result<RangeResponse, Failure> {
    let keys = under(prefix);
    let request = RangeRequest {
        key: keys.start,
        range_end: keys.end,
        revision,
        ..Default::default()
    };
    Ok(context.client.range(request).await?)
}

fn row(host: String, desired: Option<Desired>, report: Report) -> HostRow {
    let state = host_state(desired.as_ref(), &report);
    let problems = complaints(desired.as_ref(), &report);
    let status = match report {
        Report::Status(status) => Some(status),
        Report::Absent | Report::Unreadable(_) => None,
    };
    let running = status.as_ref().and_then(|status| status.running.as_ref());
    HostRow {
        host,
        state: state.to_string(),
        desired_revision: desired.map(|desired| desired.revision),
        applied_revision: running.map(|running| running.revision),
        problems,
        paint: match state {
            HostState::Applied => Paint::Good,
            HostState::Failed | HostState::Unknown => Paint::Bad,
            HostState::Degraded | HostState::Pending | HostState::Offline => Paint::Notice,
            HostState::NoConfig => Paint::Plain,
        },
        status,
    }
}

fn table(rows: &[HostRow], now_ms: u64) -> Table {
    let mut table = Table::new([
        "HOST", "STATE", "CONFIG", "ENTRIES", "FILES", "LAG", "LINES", "AGENT", "SEEN",
    ]);
    let number =
        |revision: Option<i64>| revision.map_or("-".into(), |revision| revision.to_string());
    for row in rows {
        let config = format!(
            "{}/{}",
            number(row.applied_revision),
            number(row.desired_revision)
        );
        let state = Cell::painted(&row.state, row.paint);
        let from_agent = match &row.status {
            None => std::array::from_fn(|_| Cell::from("-")),
            Some(status) => from_agent(status, now_ms),
        };
        let [entries, files, lag, lines, agent, seen] = from_agent;
        table.row([
            row.host.as_str().into(),
            state,
            config.into(),
            entries,
            files,
            lag,
            lines,
            agent,
            seen,
        ]);
    }
    table
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

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
