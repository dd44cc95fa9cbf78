//! Hosts: how each stands, what it should collect and why, and what can be done to it.

use axum::{
    Json,
    extract::{Path, Query},
    response::{IntoResponse as _, Response},
};
use config_center_core::fleet::{
    diff::EntryChange,
    host_state::{Report, complaints},
    render::{Verdict, effective as rendered},
};
use schemas::{fleet::AgentStatus, objects::Name};
use serde::{Deserialize, Serialize};

use super::{
    objects::published,
    problem::Problem,
    request::{Caller, Page, Paged},
};
use crate::fleet::{
    error::FleetError,
    host_actions, snapshot,
    view::{Drift, View},
};

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    host: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_revision: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    listed: Listed,
    document: Option<serde_json::Value>,
    drift: Option<Drift>,
    status: Option<Box<AgentStatus>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    state: Option<String>,
}

fn listed(view: &View, host: &str) -> Listed {
    let desired = view.desired(host);
    let report = view.report(host);
    let running = match report {
        Report::Status(status) => status.running.as_ref().map(|running| running.revision),
        Report::Absent | Report::Unreadable(_) => None,
    };
    Listed {
        host: host.to_owned(),
        state: match view.drift(host) {
            Some(_) => "drifted".into(),
            None => view.state(host).to_string(),
        },
        desired_revision: desired.as_ref().map(|desired| desired.revision),
        applied_revision: running,
        problems: complaints(desired.as_ref(), report),
    }
}

pub(super) async fn list(
    caller: Caller,
    Query(filter): Query<Filter>,
    Query(page): Query<Page>,
) -> Result<Json<Paged<Listed>>, Problem> {
    let view = View::load(&caller.client, &caller.ns).await?;
    let rows = view.hosts().into_iter().map(|host| listed(&view, host));
    let is_meant = |row: &Listed| {
        filter
            .state
            .as_ref()
            .is_none_or(|state| row.state == *state)
    };
    Ok(Json(page.cut(rows.filter(is_meant).collect(), |row| {
        row.host.clone()
    })?))
}

pub(super) async fn read(caller: Caller, Path(host): Path<String>) -> Result<Response, Problem> {
    let view = View::load(&caller.client, &caller.ns).await?;
    if !view.hosts().contains(&host.as_str()) {
        return Err(Problem::not_found(format!(
            "no key and no agent speaks of {host}"
        )));
    }
    let value = view.configs.get(&host).map(|key| key.value.clone());
    let shown = Shown {
        listed: listed(&view, &host),
        document: value.and_then(|value| serde_json::from_slice(&value).ok()),
        drift: view.drift(&host),
        status: match view.report(&host) {
            Report::Status(status) => Some(status.clone()),
            Report::Absent | Report::Unreadable(_) => None,
        },
    };
    Ok(Json(shown).into_response())
}

pub(super) async fn effective(
    caller: Caller,
    Path(host): Path<String>,
) -> Result<Response, Problem> {
    let host = Name::new(host).map_err(Problem::bad_request)?;
    let inventory = snapshot::read(&caller.client, &caller.ns).await?.inventory;
    if !inventory.host_names().contains(&host) {
        return Err(Problem::not_found(format!("no object speaks of {host}")));
    }
    let effective = rendered(&inventory, &host).map_err(|conflicts| {
        let boxed = conflicts.into_iter().map(Box::new);
        let problems = boxed.map(config_center_core::fleet::render::RenderProblem::Conflict);
        FleetError::Rendering(problems.collect())
    })?;
    let paths: Vec<_> = effective
        .stories
        .iter()
        .map(|story| {
            let claims: Vec<_> = story
                .claims
                .iter()
                .map(|claim| {
                    serde_json::json!({
                        "logs": claim.logs,
                        "origin": claim.origin.to_string(),
                        "rank": claim.origin.rank.to_string(),
                    })
                })
                .collect();
            let excluded_by = match &story.verdict {
                Verdict::Excluded { by } => Some(by),
                Verdict::Collected => None,
            };
            serde_json::json!({ "path": story.path, "excluded_by": excluded_by, "claims": claims })
        })
        .collect();
    let shown = serde_json::json!({
        "host": host,
        "sha256": effective.sha256(),
        "groups": effective.groups,
        "policy": effective.policy,
        "entries": effective.logs().collect::<Vec<_>>(),
        "paths": paths,
    });
    Ok(Json(shown).into_response())
}

#[derive(Debug, Serialize)]
struct Restored {
    host: Name,
    revision: i64,
    undone: Option<Vec<EntryChange>>,
}

pub(super) async fn act(
    caller: Caller,
    Path((host, action)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let host = Name::new(host).map_err(Problem::bad_request)?;
    let (client, ns, author) = (&caller.client, &caller.ns, &caller.author);
    match action.as_str() {
        "adopt" => published(host_actions::adopt(client, ns, &host, author).await?.1),
        "retire" => published(host_actions::retire(client, ns, &host, author).await?),
        "restore" => {
            let (drift, revision) = host_actions::restore(client, ns, &host, author).await?;
            Ok(Json(Restored {
                host,
                revision,
                undone: drift.changes,
            })
            .into_response())
        }
        other => Err(Problem::not_found(format!(
            "{other:?} cannot be done to a host: adopt, restore or retire"
        ))),
    }
}
