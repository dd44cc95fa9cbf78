//! Drafts: kept apart from the live objects, compared with them, published or thrown away.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use schemas::objects::{Name, ObjectId};
use serde::{Deserialize, Serialize};

use super::{
    objects::{Options, objects, published, shown},
    problem::Problem,
    request::{Caller, Page, Paged, expected_revision, text},
};
use crate::fleet::{
    drafts::{self, DraftRecord, StoredDraft},
    publish::{self, Prepared},
    snapshot,
};

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    name: String,
    revision: i64,
    at_ms: u64,
    author: String,
    reason: String,
    objects: usize,
}

pub(super) async fn list(
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Paged<Listed>>, Problem> {
    let drafts = drafts::list(&caller.client, &caller.ns).await?;
    let listed = |draft: StoredDraft| {
        let DraftRecord {
            name,
            at_ms,
            author,
            reason,
            base,
            ..
        } = draft.record;
        Listed {
            name,
            revision: draft.revision,
            at_ms,
            author,
            reason,
            objects: base.len(),
        }
    };
    let listed = drafts.into_iter().map(listed).collect();
    Ok(Json(page.cut(listed, |draft| draft.name.clone())?))
}

pub(super) async fn read(caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    answer(
        StatusCode::OK,
        &drafts::read(&caller.client, &caller.ns, &name).await?,
    )
}

fn answer(status: StatusCode, draft: &StoredDraft) -> Result<Response, Problem> {
    let mut response = (status, Json(&draft.record)).into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", draft.revision)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// Objects to delete beside those in the body: `delete=Group/a,Host/b`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Deletions {
    delete: String,
}

/// Without a precondition only a new draft is made: nobody overwrites what they have not seen.
pub(super) async fn write(
    caller: Caller,
    Path(name): Path<String>,
    Query(deletions): Query<Deletions>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let name = Name::new(name).map_err(Problem::bad_request)?;
    let objects = objects("body", text(&headers, &body)?)?;
    let named = deletions.delete.split(',').filter(|id| !id.is_empty());
    let delete = named
        .map(|id| id.parse::<ObjectId>().map_err(Problem::bad_request))
        .collect::<Result<_, _>>()?;
    let expected = expected_revision(&headers)?.unwrap_or(0);
    let (client, ns, author) = (&caller.client, &caller.ns, &caller.author);
    let draft = drafts::save(client, ns, &name, &objects, delete, expected, author).await?;
    answer(StatusCode::CREATED, &draft)
}

/// What publishing it now would change.
pub(super) async fn diff(caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    let draft = drafts::read(&caller.client, &caller.ns, &name).await?;
    let snapshot = snapshot::read(&caller.client, &caller.ns).await?;
    let Prepared { change, .. } = publish::prepare(&snapshot, &draft.wish(&caller.ns)?)?;
    Ok(Json(shown(&change)).into_response())
}

pub(super) async fn publish(
    caller: Caller,
    Path(name): Path<String>,
    Query(options): Query<Options>,
) -> Result<Response, Problem> {
    let (client, ns, author) = (&caller.client, &caller.ns, &caller.author);
    let done = drafts::publish_draft(client, ns, &name, options.allow_emptying, author).await?;
    published(done)
}

pub(super) async fn discard(caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    drafts::discard(&caller.client, &caller.ns, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
