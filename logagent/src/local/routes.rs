//! Which path is answered with what.
//!
//! `/livez`: the tailer thread answers. `/readyz`: and a configuration runs. A broker or a center that
//! is down makes neither fail: restarting the agent would not help.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use schemas::fleet::AgentStatus;

use super::metrics;
use crate::status::StatusSource;
use crate::supervisor::ViewLimits;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The tailer thread answers between two blocks; one that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// `logagent status` shows all there is.
const ALL: ViewLimits = ViewLimits {
    entries_max: usize::MAX,
    files_max: usize::MAX,
};
/// A series per file of a large pattern would be too many for a scrape.
const SCRAPED: ViewLimits = ViewLimits {
    entries_max: 2_000,
    files_max: 500,
};
const ALONE: ViewLimits = ViewLimits {
    entries_max: 0,
    files_max: 0,
};
const PATHS: &str = "/status, /metrics, /livez, /readyz\n";

pub(super) async fn answer(
    request: &Request<Incoming>,
    source: &StatusSource,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allowed);
        return Ok(refusal);
    }
    Ok(match request.uri().path() {
        "/status" => match ask(source, ALL).await {
            Some(status) => match serde_json::to_vec(&status) {
                Ok(document) => reply(StatusCode::OK, JSON, document),
                Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
            },
            None => stuck(),
        },
        "/metrics" => match ask(source, SCRAPED).await {
            Some(status) => reply(StatusCode::OK, METRICS, metrics::text(&status)),
            None => stuck(),
        },
        "/livez" => match ask(source, ALONE).await {
            Some(_) => reply(StatusCode::OK, TEXT, "ok\n"),
            None => stuck(),
        },
        "/readyz" => match ask(source, ALONE).await {
            Some(status) if status.running.is_some() => reply(StatusCode::OK, TEXT, "ok\n"),
            Some(_) => reply(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "no configuration runs yet\n",
            ),
            None => stuck(),
        },
        _ => reply(StatusCode::NOT_FOUND, TEXT, PATHS),
    })
}

async fn ask(source: &StatusSource, limits: ViewLimits) -> Option<AgentStatus> {
    tokio::time::timeout(PATIENCE, source.document(limits))
        .await
        .ok()
        .flatten()
}

fn stuck() -> Response<Full<Bytes>> {
    reply(
        StatusCode::SERVICE_UNAVAILABLE,
        TEXT,
        "the tailer thread does not answer\n",
    )
}

fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
