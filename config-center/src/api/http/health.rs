//! What probes ask: `/health` in etcd's old form, `/livez` and `/readyz` with their single checks.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use config_center_core::Alarm;

use super::{JSON, only_get};
use crate::api::Context;

const TEXT: [(header::HeaderName, &str); 2] = [
    (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// One thing that can be wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// No member has found its data damaged.
    DataCorruption,
    /// This member reads its own data.
    SerializableRead,
    /// The cluster answers a read.
    LinearizableRead,
    /// This member has a vote, so it may serve clients.
    NonLearner,
}

impl Check {
    /// A live member need not be of use; a ready one must.
    pub const LIVE: &'static [Self] = &[Self::SerializableRead];
    pub const READY: &'static [Self] = &[
        Self::DataCorruption,
        Self::SerializableRead,
        Self::LinearizableRead,
        Self::NonLearner,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, context: &Context) -> Result<(), String> {
        match self {
            Self::DataCorruption => match active_alarms(context).contains(&"CORRUPT") {
                true => Err("alarm activated: CORRUPT".to_owned()),
                false => Ok(()),
            },
            Self::SerializableRead => {
                // The read itself: it waits for the lock that every local read takes.
                context.engine().revision();
                Ok(())
            }
            Self::LinearizableRead => {
                let read = context.node.read_barrier().await;
                read.map_err(|error| format!("range error: {error}"))
            }
            Self::NonLearner => match context.node.status().is_learner {
                true => Err("not supported for learner".to_owned()),
                false => Ok(()),
            },
        }
    }
}

/// Answers for a set of checks, or for one of them.
pub(super) async fn checks(
    checks: &'static [Check],
    context: Arc<Context>,
    method: Method,
    query: Option<String>,
) -> Response {
    if method != Method::GET {
        return only_get();
    }
    let query = query.unwrap_or_default();
    let excluded: Vec<&str> = given(&query, "exclude").collect();
    let mut report = String::new();
    let mut failed = false;
    for check in checks {
        if excluded.contains(&check.name()) {
            continue;
        }
        // Writing to a String cannot fail.
        match check.run(&context).await {
            Ok(()) => writeln!(report, "[+]{} ok", check.name()),
            Err(why) => {
                failed = true;
                writeln!(report, "[-]{} failed: {why}", check.name())
            }
        }
        .ok();
    }
    if failed {
        report.push('\n');
        return (StatusCode::SERVICE_UNAVAILABLE, TEXT, report).into_response();
    }
    if given(&query, "verbose").next().is_none() {
        report.clear();
    }
    report.push_str("ok\n");
    (TEXT, report).into_response()
}

/// As etcd 3.4 answers, or with its reason to a question that only 3.5 and later understand.
pub(super) async fn health(
    State(context): State<Arc<Context>>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    if method != Method::GET {
        return only_get();
    }
    let query = query.unwrap_or_default();
    let excluded: Vec<&str> = given(&query, "exclude").collect();
    let serializable = given(&query, "serializable").any(|value| value == "true");
    let reason = unhealthy(&context, &excluded, serializable).await;
    let (status, health) = match &reason {
        None => (StatusCode::OK, "true"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    // The form follows the question: parameters came with etcd 3.5, and so did the reason. Probes
    // made for 3.4 compare the whole body.
    if query.is_empty() {
        let body = format!("{{\"health\":\"{health}\"}}");
        return (status, [(header::CONTENT_TYPE, JSON)], body).into_response();
    }
    // Written by hand so that the fields come in etcd's order; no reason needs escaping.
    let body = format!(
        "{{\"health\":\"{health}\",\"reason\":\"{}\"}}",
        reason.unwrap_or_default()
    );
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

async fn unhealthy(context: &Context, excluded: &[&str], serializable: bool) -> Option<String> {
    let mut alarms = active_alarms(context).into_iter();
    if let Some(alarm) = alarms.find(|alarm| !excluded.contains(alarm)) {
        return Some(format!("ALARM {alarm}"));
    }
    if serializable {
        context.engine().revision();
        return None;
    }
    if !context.has_leader() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = context.node.read_barrier().await;
    read.err().map(|error| format!("RANGE ERROR:{error}"))
}

/// The kinds of alarms that are active, on whichever member.
fn active_alarms(context: &Context) -> Vec<&'static str> {
    let alarms = context.engine().read(|state| state.alarms());
    alarms.iter().map(Alarm::kind_name).collect()
}

/// The values of a name in a query; a name alone has the empty value.
fn given<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then_some(value)
    })
}
