//! Objects: read, written one by one with preconditions, or applied together.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use config_center_core::fleet::{
    change::Change,
    inventory::{Inventory, Loaded, Loading, load},
    render::render,
};
use schemas::objects::{Kind, Name, Object, ObjectId};
use serde::{Deserialize, Serialize};

use super::{
    problem::Problem,
    request::{Caller, Page, Paged, expected_revision, text},
    server::Api,
};
use crate::fleet::{
    error::FleetError,
    publish::{self, Prepared, Published, Wish},
    releases, snapshot,
};

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    id: String,
    revision: i64,
    object: Object,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    kind: Option<String>,
}

pub(super) async fn list(
    State(_): State<Api>,
    caller: Caller,
    Query(filter): Query<Filter>,
    Query(page): Query<Page>,
) -> Result<Json<Paged<Listed>>, Problem> {
    let kind = filter.kind.as_deref().map(kind).transpose()?;
    let snapshot = snapshot::read(&caller.client, &caller.ns).await?;
    let listed = |(id, loaded): (&ObjectId, &Loaded)| Listed {
        id: id.to_string(),
        revision: loaded.store_revision().unwrap_or_default(),
        object: loaded.object.clone(),
    };
    let is_meant = |(id, _): &(&ObjectId, &Loaded)| kind.is_none_or(|kind| id.kind == kind);
    let mut items: Vec<Listed> = snapshot
        .inventory
        .objects()
        .filter(is_meant)
        .map(listed)
        .collect();
    items.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Json(page.cut(items, |item| item.id.clone())?))
}

/// A kind as it stands in a path: its own name, or the folder of its keys.
fn kind(text: &str) -> Result<Kind, Problem> {
    let is_meant = |kind: &Kind| kind.as_str() == text || kind.folder() == text;
    Kind::ALL
        .into_iter()
        .find(is_meant)
        .ok_or_else(|| Problem::bad_request(format!("{text:?} is no kind of object")))
}

fn object_id(kind_text: &str, name: String) -> Result<ObjectId, Problem> {
    Ok(ObjectId {
        kind: kind(kind_text)?,
        name: Name::new(name).map_err(Problem::bad_request)?,
    })
}

pub(super) async fn read(
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let id = object_id(&kind, name)?;
    let snapshot = snapshot::read(&caller.client, &caller.ns).await?;
    let loaded = snapshot
        .inventory
        .get(&id)
        .ok_or_else(|| Problem::not_found(format!("there is no {id}")))?;
    let mut response = Json(&loaded.object).into_response();
    let etag = format!("\"{}\"", loaded.store_revision().unwrap_or_default());
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

pub(super) async fn write(
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = object_id(&kind, name)?;
    let loaded = one(objects("body", text(&headers, &body)?)?)?;
    if loaded.object.id() != id {
        return Err(Problem::invalid(format!(
            "the body is {} and not {id}",
            loaded.object.id()
        )));
    }
    let expected = expected_revision(&headers)?.map(|revision| (id, revision));
    let wish = Wish {
        put: vec![loaded],
        expected: expected.into_iter().collect(),
        ..Default::default()
    };
    published(publish::publish(&caller.client, &caller.ns, &wish, &caller.author).await?)
}

pub(super) async fn delete(
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
    Query(options): Query<Options>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = object_id(&kind, name)?;
    let snapshot = snapshot::read(&caller.client, &caller.ns).await?;
    if snapshot.inventory.get(&id).is_none() {
        return Err(Problem::not_found(format!("there is no {id}")));
    }
    let expected = expected_revision(&headers)?.map(|revision| (id.clone(), revision));
    let wish = Wish {
        delete: vec![id],
        expected: expected.into_iter().collect(),
        allow_emptying: options.allow_emptying,
        ..Default::default()
    };
    published(publish::publish(&caller.client, &caller.ns, &wish, &caller.author).await?)
}

/// Publishes the last version of an object that was deleted.
pub(super) async fn undelete(
    caller: Caller,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let id = object_id(&kind, name)?;
    published(releases::undelete(&caller.client, &caller.ns, &id, &caller.author).await?)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Options {
    dry_run: bool,
    prune: bool,
    pub(super) allow_emptying: bool,
}

/// Checks a text as if it were the whole fleet; needs no store.
pub(super) async fn validate(headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let loaded = objects("body", text(&headers, &body)?)?;
    let count = loaded.len();
    let inventory = Inventory::new(loaded).map_err(FleetError::Objects)?;
    let rendered = render(&inventory).map_err(FleetError::Rendering)?;
    let found = serde_json::json!({ "objects": count, "hosts": rendered.hosts.len() });
    Ok(Json(found).into_response())
}

pub(super) async fn apply(
    caller: Caller,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let wish = Wish {
        put: objects("body", text(&headers, &body)?)?,
        prune: options.prune,
        allow_emptying: options.allow_emptying,
        ..Default::default()
    };
    if options.dry_run {
        let snapshot = snapshot::read(&caller.client, &caller.ns).await?;
        let Prepared { change, .. } = publish::prepare(&snapshot, &wish)?;
        if !wish.allow_emptying {
            change.guard().map_err(FleetError::from)?;
        }
        return Ok(Json(shown(&change)).into_response());
    }
    published(publish::publish(&caller.client, &caller.ns, &wish, &caller.author).await?)
}

pub(super) fn objects(name: &str, text: &str) -> Result<Vec<Loaded>, Problem> {
    let Loading { objects, problems } = load(name, text);
    if problems.is_empty() {
        Ok(objects)
    } else {
        Err(FleetError::Objects(problems).into())
    }
}

fn one(mut objects: Vec<Loaded>) -> Result<Loaded, Problem> {
    match (objects.pop(), objects.is_empty()) {
        (Some(object), true) => Ok(object),
        _ => Err(Problem::invalid("the body is not one object")),
    }
}

/// What a change means, as a document.
pub(super) fn shown(change: &Change) -> serde_json::Value {
    serde_json::json!({
        "objects": change.objects,
        "hosts": change.host_changes(),
        "blast_radius": change.radius(),
        "summary": change.radius().to_string(),
        "remarks": change.remarks,
    })
}

/// The answer to everything that publishes: 201 with a release, 200 when nothing had to be done.
pub(super) fn published(published: Published) -> Result<Response, Problem> {
    let status = if published.release.is_some() {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let body = serde_json::json!({
        "release": published.release.as_ref().map(|release| release.number),
        "revision": published.revision,
        "rollouts": published.rollouts,
        "change": shown(&published.change),
    });
    let mut response = (status, Json(body)).into_response();
    if let Some(release) = &published.release
        && let Ok(place) = HeaderValue::from_str(&format!("/api/v1/releases/{}", release.number))
    {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}
