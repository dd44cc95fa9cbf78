//! Rollouts: how they stand, and the commands that stop or help them.

use axum::{
    Json,
    extract::{Path, Query},
    response::{IntoResponse as _, Response},
};
use config_center_core::fleet::rollout::Progress;

use super::{
    problem::Problem,
    request::{Caller, Page, Paged},
};
use crate::fleet::{
    audit::now_ms, driver::load_plan, error::FleetError, rollout_status::RolloutStatus, rollouts,
    view::View,
};

/// Newest first.
pub(super) async fn list(
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Paged<RolloutStatus>>, Problem> {
    let view = View::load(&caller.client, &caller.ns).await?;
    let mut items = Vec::new();
    for (rollout, _) in view.rollouts.values().rev() {
        let plan = load_plan(&caller.client, &caller.ns, rollout).await?;
        items.push(RolloutStatus::new(rollout, &plan, &view));
    }
    Ok(Json(page.cut(items, |item| item.id.clone())?))
}

pub(super) async fn read(caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let view = View::load(&caller.client, &caller.ns).await?;
    let missing = || Problem::not_found(format!("there is no rollout {id}"));
    let (rollout, _) = view.rollouts.get(&id).ok_or_else(missing)?;
    let plan = load_plan(&caller.client, &caller.ns, rollout).await?;
    Ok(Json(RolloutStatus::new(rollout, &plan, &view)).into_response())
}

pub(super) async fn command(
    caller: Caller,
    Path((id, command)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let author = &caller.author;
    let (by, reason) = (author.name.as_str(), author.reason.as_str());
    let next = |progress: &Progress| -> Result<Progress, FleetError> {
        Ok(match command.as_str() {
            "pause" => progress.pause(by, reason, now_ms())?,
            "resume" => progress.resume(now_ms())?,
            "retry" => progress.retry(now_ms())?,
            "abort" => progress.abort(by, reason, now_ms())?,
            other => {
                return Err(FleetError::NotFound(format!(
                    "{other:?} is no command of a rollout: pause, resume, retry or abort"
                )));
            }
        })
    };
    let action = format!("rollout.{command}");
    let rollout = rollouts::command(&caller.client, &caller.ns, &id, &action, author, next).await?;
    Ok(Json(rollout).into_response())
}
