//! The v2 API: translates its requests into commands and reads of the same keyspace, and its
//! refusals into etcd's numbers. What a v2 write means is decided in the core (`core/src/v2`).

mod auth;
mod events;
mod form;
mod keys;
mod members;
mod refusals;
mod request;
mod stats;
mod time;
mod visitor;
mod watch;

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use http::{HeaderValue, Method, StatusCode, header};

pub(crate) use time::now_ms;

use super::Context;
use super::grpc::Services;
use super::http::JSON;

/// The parts of the v2 API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V2Part {
    Keys,
    Machines,
    Members,
    SelfStats,
    StoreStats,
    LeaderStats,
    AuthEnable,
    Users,
    Roles,
}

/// What all v2 routes share.
pub(super) struct V2 {
    context: Arc<Context>,
    services: Arc<Services>,
    counts: stats::Counts,
    started: SystemTime,
}

impl V2 {
    pub(super) fn new(context: Arc<Context>, services: Arc<Services>) -> Self {
        Self {
            context,
            services,
            counts: stats::Counts::default(),
            started: SystemTime::now(),
        }
    }

    async fn answer(self: Arc<Self>, part: V2Part, request: Request) -> Response {
        let allowed: &[Method] = match part {
            V2Part::Keys => &[
                Method::HEAD,
                Method::GET,
                Method::PUT,
                Method::POST,
                Method::DELETE,
            ],
            V2Part::Members => &[Method::GET, Method::POST, Method::DELETE, Method::PUT],
            V2Part::Machines => &[Method::GET, Method::HEAD],
            V2Part::AuthEnable | V2Part::Users | V2Part::Roles => {
                &[Method::GET, Method::PUT, Method::DELETE]
            }
            _ => &[Method::GET],
        };
        if !allowed.contains(request.method()) {
            return method_not_allowed(allowed);
        }
        let mut response = match part {
            V2Part::Keys => keys::answer(&self, request).await,
            V2Part::Members => members::answer(&self, request).await,
            V2Part::Machines => members::machines(&self),
            V2Part::SelfStats => stats::own(&self),
            V2Part::StoreStats => stats::store(&self),
            V2Part::LeaderStats => stats::leader(&self),
            V2Part::AuthEnable | V2Part::Users | V2Part::Roles => {
                auth::answer(&self, part, request).await
            }
        };
        let names_cluster = !matches!(
            part,
            V2Part::Machines | V2Part::SelfStats | V2Part::StoreStats | V2Part::LeaderStats
        );
        if names_cluster && let Ok(id) = hex(self.context.cluster_id()).parse() {
            response.headers_mut().insert(events::CLUSTER_ID, id);
        }
        response
    }
}

/// The handler of a part.
pub(super) fn answering<S: Clone + Send + Sync + 'static>(
    v2: &Arc<V2>,
    part: V2Part,
) -> MethodRouter<S> {
    let v2 = Arc::clone(v2);
    any(move |request: Request| Arc::clone(&v2).answer(part, request))
}

fn method_not_allowed(allowed: &[Method]) -> Response {
    let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    let allow = HeaderValue::from_str(&names.join(",")).ok();
    let mut response = (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n").into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn json(status: StatusCode, body: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], body.into()).into_response()
}

/// How etcd writes ids.
fn hex(id: u64) -> String {
    format!("{id:x}")
}
