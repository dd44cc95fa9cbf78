//! The HTTP side of the client port: puts every route of the table to work, and answers health,
//! version and metrics, for people, probes and scrapers.

mod access;
mod health;

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
use super::v2::{self, V2};
use crate::flags::{ETCD_CLUSTER_VERSION, ETCD_VERSION};
use crate::fleet;
use crate::metrics::{Figures, Version};

pub(super) const JSON: &str = "application/json";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) use access::OverTls;
pub use access::{Access, Allowed};
pub use health::Check;

/// What the operator decides about the HTTP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRules {
    pub access: Access,
    /// `--enable-grpc-gateway`.
    pub json_gateway: bool,
    /// `--enable-v2`.
    pub v2: bool,
    /// `--max-concurrent-streams`; the gateway keeps to it as a client of gRPC does.
    pub max_concurrent_streams: u32,
}

/// Everything that is served on a client address; without `fleet`, nothing of `/api/v1`.
pub fn router(
    context: Arc<Context>,
    services: Arc<Services>,
    rules: &HttpRules,
    fleet: Option<fleet::api::Api>,
) -> Router {
    let v2 = Arc::new(V2::new(Arc::clone(&context), Arc::clone(&services)));
    let gateway = Arc::new(Gateway::new(
        services,
        context.limits.max_message_bytes(),
        rules.max_concurrent_streams,
    ));
    let methods = Methods::load();
    let mut router = Router::new();
    for route in ROUTES {
        let answering: MethodRouter<Arc<Context>> = match route.answers {
            Answers::Version => any(version),
            Answers::V2(_) if !rules.v2 => continue,
            Answers::V2(part) => v2::answering(&v2, part),
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
            probed_for => match probed(probed_for) {
                Some(answering) => answering,
                None => continue,
            },
        };
        if let Some(rest) = route.path.strip_prefix("/v3/") {
            router = router.route(&format!("/v3beta/{rest}"), answering.clone());
        }
        router = router.route(route.path, answering);
    }
    if let Some(fleet) = fleet {
        router = router.merge(fleet::api::routes(fleet));
    }
    let access = Arc::new(rules.access.clone());
    router
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(access, access::guard))
        .with_state(context)
}

/// What `--listen-metrics-urls` serves: what probes and scrapers ask for.
pub fn metrics_router(context: Arc<Context>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        if let Some(answering) = probed(route.answers) {
            router = router.route(route.path, answering);
        }
    }
    router.fallback(not_found).with_state(context)
}

/// The answer to a probe or a scraper.
fn probed(answers: Answers) -> Option<MethodRouter<Arc<Context>>> {
    Some(match answers {
        Answers::Health => any(health::health),
        Answers::Checks(checks) => any(move |State(context), method, RawQuery(query)| {
            health::checks(checks, context, method, query)
        }),
        Answers::Metrics => any(metrics),
        _ => return None,
    })
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
    let body = context.metrics.render(
        &figures(&context),
        context.engine().operations(),
        &context.node.disk(),
        &context.node.peer_traffic(),
        Version {
            server: ETCD_VERSION,
            cluster: ETCD_CLUSTER_VERSION.trim_end_matches(".0"),
        },
    );
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
        is_learner: status.is_learner,
        quota_bytes: context.limits.quota_bytes,
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
    if uri.path().starts_with("/api/") {
        return fleet::api::no_route().await.into_response();
    }
    let body = format!("nothing is served at {}\n", uri.path());
    (
        StatusCode::NOT_FOUND,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        body,
    )
        .into_response()
}
