//! Releases, the way back to them, and the audit.

use axum::{
    Json,
    extract::{Path, Query},
    response::{IntoResponse as _, Response},
};
use config_center_core::fleet::audit::Record;
use schemas::objects::ObjectId;
use serde::{Deserialize, Serialize};

use super::{
    objects::published,
    problem::Problem,
    request::{Caller, Page, Paged},
};
use crate::fleet::{audit as trail, records::Release, releases};

/// Newest first.
pub(super) async fn list(
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Paged<Release>>, Problem> {
    let releases = releases::releases(&caller.client, &caller.ns).await?;
    Ok(Json(
        page.cut(releases, |release| release.number.to_string())?,
    ))
}

pub(super) async fn read(caller: Caller, Path(number): Path<u64>) -> Result<Response, Problem> {
    let release = releases::release(&caller.client, &caller.ns, number).await?;
    Ok(Json(release).into_response())
}

/// Puts a whole release back, or restores the version of one object that it made.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    /// `Group/web`
    object: Option<String>,
}

pub(super) async fn rollback(
    caller: Caller,
    Path(number): Path<u64>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let (client, ns, author) = (&caller.client, &caller.ns, &caller.author);
    published(match &which.object {
        None => releases::put_back(client, ns, number, author).await?,
        Some(text) => {
            let id: ObjectId = text.parse().map_err(Problem::bad_request)?;
            releases::restore(client, ns, &id, number, author).await?
        }
    })
}

#[derive(Debug, Serialize)]
struct Audit {
    holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
    #[serde(flatten)]
    records: Paged<Record>,
}

/// Oldest first, so that a page after the last one shows what came since.
pub(super) async fn audit(caller: Caller, Query(page): Query<Page>) -> Result<Response, Problem> {
    let found = trail::read(&caller.client, &caller.ns).await?;
    let audit = Audit {
        holds: found.broken.is_none(),
        broken: found.broken.map(|broken| broken.to_string()),
        records: page.cut(found.records, |record| record.seq.to_string())?,
    };
    Ok(Json(audit).into_response())
}
