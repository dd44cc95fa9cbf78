//! `/v2/keys`: reads from memory, writes through consensus.

use std::sync::atomic::Ordering;

use axum::extract::Request;
use axum::response::Response;
use config_center_core::v2::V2Notice;
use config_center_core::{Access, Reply};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use schemas::command::command::Op;

use super::form::Form;
use super::refusals::Refusal;
use super::request::KeysRequest;
use super::stats::Counts;
use super::visitor::Visitor;
use super::{V2, events, json, time, watch};
use crate::api::hangup::ClientSide;
use crate::api::{Context, Fault};

const PREFIX: &str = "/v2/keys";
/// Percent encoding makes up to three letters of a byte.
const FORM_FACTOR: usize = 3;

pub(super) async fn answer(v2: &V2, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let client = parts.extensions.get::<ClientSide>().cloned();
    let visitor = Visitor::of(&parts);
    let max_bytes = v2.context.limits.max_request_bytes * FORM_FACTOR;
    let query = parts.uri.query();
    let form = Form::read(&parts.method, &parts.headers, query, body, max_bytes).await;
    let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let outcome = match KeysRequest::parse(&parts.method, path, form) {
        Err(refusal) => Err(refusal),
        Ok(keys) if parts.method == Method::GET || parts.method == Method::HEAD => {
            read(v2, &visitor, keys, client).await
        }
        Ok(keys) => write(v2, &visitor, keys, &parts.method).await,
    };
    outcome.unwrap_or_else(Refusal::into_response)
}

async fn read(
    v2: &V2,
    visitor: &Visitor,
    keys: KeysRequest,
    client: Option<ClientSide>,
) -> Result<Response, Refusal> {
    let context = &v2.context;
    let wanted = Access::V2Read {
        path: &keys.path,
        recursive: keys.recursive,
        inside: keys.inside,
    };
    let caller = visitor.permit(context, wanted).await?;
    if keys.wait {
        return watch::answer(context, keys, client);
    }
    if keys.quorum {
        context.node.read_barrier().await.map_err(Fault::from)?;
    }
    let (found, index) = context.engine().read(|state| {
        let found = state.v2_get_for(&caller, &keys.path, keys.recursive);
        (found, state.revision())
    });
    Counts::count(&v2.counts.gets, found.is_ok());
    let notice = V2Notice {
        action: "get".to_owned(),
        node: found?,
        index,
        ..V2Notice::default()
    };
    let body = events::event(&notice, false, time::now_ms());
    let mut response = json(StatusCode::OK, body);
    state_headers(response.headers_mut(), context, index, context.node.term());
    Ok(response)
}

async fn write(
    v2: &V2,
    visitor: &Visitor,
    keys: KeysRequest,
    method: &Method,
) -> Result<Response, Refusal> {
    let without_nodes = keys.no_value_on_success && *method != Method::DELETE;
    let path = keys.path.clone();
    let request = keys.write(method, time::now_ms());
    let counted = v2.counts.of(request.verb());
    let proposed = visitor.propose(&v2.context, Op::V2Write(request)).await;
    let (reply, header, caller) = match proposed {
        Ok(answered) => answered,
        Err(denied) => {
            Counts::count(counted, false);
            return Err(denied.into());
        }
    };
    let Reply::V2(outcome) = reply else {
        return Err(Fault::MismatchedReply.into());
    };
    Counts::count(counted, outcome.is_ok());
    let mut notice = (*outcome)?;
    let created = match &notice.action[..] {
        "create" => true,
        "set" => notice.prev.is_none(),
        _ => false,
    };
    // Whoever may only write is not shown what was there.
    let shown = Access::V2Read {
        path: &path,
        recursive: false,
        inside: false,
    };
    let engine = v2.context.engine();
    if engine.auth_enabled()
        && engine
            .read(|state| state.authorize(&caller, shown))
            .is_err()
    {
        notice.prev = None;
    }
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = json(
        status,
        events::event(&notice, without_nodes, time::now_ms()),
    );
    state_headers(
        response.headers_mut(),
        &v2.context,
        notice.index,
        header.raft_term,
    );
    Ok(response)
}

/// The headers of an answer that the store gave.
pub(super) fn state_headers(headers: &mut HeaderMap, context: &Context, index: i64, term: u64) {
    let raft_index = context.node.status().applied_index;
    headers.insert(events::INDEX, HeaderValue::from(index));
    headers.insert(events::RAFT_INDEX, HeaderValue::from(raft_index));
    headers.insert(events::RAFT_TERM, HeaderValue::from(term));
}

impl Counts {
    pub(super) fn count(counters: &super::stats::Outcomes, success: bool) {
        let counter = if success {
            &counters.success
        } else {
            &counters.fail
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
