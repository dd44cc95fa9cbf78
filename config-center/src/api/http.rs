//! The HTTP side of the client port: puts every route of the table to work, and answers health,
//! version and metrics, for people, probes and scrapers.

mod access;

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};

use super::Context;
use super::gateway::{self, Gateway, Methods};
use super::grpc::Services;
use super::routes::{Answers, ROUTES};
use crate::flags::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::metrics::Figures;

const JSON: &str = "application/json";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub use access::{Access, Allowed};

/// What the operator decides about the HTTP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRules {
    pub access: Access,
    /// `--enable-grpc-gateway`.
    pub json_gateway: bool,
}

/// Everything that is served on a client address.
pub fn router(context: Arc<Context>, services: Arc<Services>, rules: &HttpRules) -> Router {
    let gateway = Arc::new(Gateway::new(services, context.limits.max_message_bytes()));
    let methods = Methods::load();
    let mut router = Router::new();
    for route in ROUTES {
        let answering: MethodRouter<Arc<Context>> = match route.answers {
            Answers::Health => any(health),
            Answers::Version => any(version),
            Answers::Metrics => any(metrics),
            Answers::Rpc(_) if !rules.json_gateway => continue,
            Answers::Rpc(rpc) => {
                let Some(method) = methods.get(rpc).map(Arc::new) else {
                    continue;
                };
                let gateway = Arc::clone(&gateway);
                any(move |request: Request| {
                    Arc::clone(&gateway).answer(Arc::clone(&method), request)
                })
            }
        };
        if let Some(rest) = route.path.strip_prefix("/v3/") {
            router = router.route(&format!("/v3beta/{rest}"), answering.clone());
        }
        router = router.route(route.path, answering);
    }
    let access = Arc::new(rules.access.clone());
    router
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(access, access::guard))
        .with_state(context)
}

/// What `--listen-metrics-urls` serves.
pub fn metrics_router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/health", any(health))
        .route("/metrics", any(metrics))
        .fallback(not_found)
        .with_state(context)
}

async fn health(
    State(context): State<Arc<Context>>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    if method != Method::GET {
        return only_get();
    }
    let serializable =
        query.is_some_and(|query| query.split('&').any(|pair| pair == "serializable=true"));
    let reason = if serializable {
        // The read itself: it waits for the lock that every local read takes.
        context.engine().revision();
        None
    } else if !context.has_leader() {
        Some("RAFT NO LEADER".to_owned())
    } else {
        context
            .node
            .read_barrier()
            .await
            .err()
            .map(|error| format!("RANGE ERROR:{error}"))
    };
    let (status, health) = match &reason {
        None => (StatusCode::OK, "true"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    // Written by hand so that the fields come in etcd's order; no reason needs escaping.
    let body = format!(
        "{{\"health\":\"{health}\",\"reason\":\"{}\"}}",
        reason.unwrap_or_default()
    );
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

async fn version(method: Method) -> Response {
    if method != Method::GET {
        return only_get();
    }
    let body = format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{ETCD_CLUSTER_VERSION}\",\
         \"storage\":\"{ETCD_CLUSTER_VERSION}\"}}"
    );
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}

async fn metrics(State(context): State<Arc<Context>>, method: Method) -> Response {
    if method != Method::GET {
        return only_get();
    }
    let body = context
        .metrics
        .render(&figures(&context), None, ETCD_VERSION);
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], body).into_response()
}

fn figures(context: &Context) -> Figures {
    let status = context.node.status();
    let engine = context.engine();
    let (watch_streams, watchers) = engine.watch_counts();
    let (revision, compact_revision, leases) = engine.read(|state| {
        (
            state.revision(),
            state.compact_revision(),
            state.leases().len(),
        )
    });
    Figures {
        member_id: context.member_id(),
        leader_id: status.leader_id,
        raft_index: status.raft_index,
        applied_index: status.applied_index,
        pending_proposals: status.pending_proposals,
        db_size_bytes: status.db_size_bytes,
        db_size_in_use_bytes: status.db_size_in_use_bytes,
        revision,
        compact_revision,
        watchers,
        watch_streams,
        leases,
    }
}

fn only_get() -> Response {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        [(header::ALLOW, "GET")],
        "only GET is answered here\n",
    )
        .into_response()
}

async fn not_found(uri: Uri) -> Response {
    if uri.path().starts_with("/v3/") || uri.path().starts_with("/v3beta/") {
        return gateway::not_found();
    }
    let body = format!("nothing is served at {}\n", uri.path());
    (
        StatusCode::NOT_FOUND,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        body,
    )
        .into_response()
}
