//! `/api/v1`: the fleet over HTTP, for the console, for scripts and for `curl`.
//!
//! Has no rights of its own: a request's credentials (`Authorization: Basic`) go to the store as they
//! are, and the store's users, roles and key ranges decide. Translates and checks limits; what a
//! request means is the service's, so that a publish over HTTP and one by configctl are the same.

mod drafts;
mod events;
mod hosts;
mod objects;
mod openapi;
mod problem;
mod releases;
mod request;
mod rollouts;
mod server;

pub use openapi::{ROUTES, Route, document as openapi_document};
pub(crate) use problem::no_route;
pub use server::{Api, Requester, serve};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};

/// The most that a body may hold: the source's own limit.
const MAX_BODY_BYTES: usize = config_center_core::fleet::source::MAX_SOURCE_BYTES;

/// The routes and what answers everything else.
fn router(api: Api) -> Router {
    routes(api).fallback(problem::no_route)
}

/// Every route; `openapi::ROUTES` names the same, which a test checks.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(api: Api) -> Router<S> {
    Router::new()
        .route("/openapi.json", get(openapi::serve))
        .route("/api/v1/objects", get(objects::list))
        .route(
            "/api/v1/objects/{kind}/{name}",
            get(objects::read)
                .put(objects::write)
                .delete(objects::delete),
        )
        .route(
            "/api/v1/objects/{kind}/{name}/undelete",
            post(objects::undelete),
        )
        .route("/api/v1/drafts", get(drafts::list))
        .route(
            "/api/v1/drafts/{name}",
            get(drafts::read).put(drafts::write).delete(drafts::discard),
        )
        .route("/api/v1/drafts/{name}/diff", get(drafts::diff))
        .route("/api/v1/drafts/{name}/publish", post(drafts::publish))
        .route("/api/v1/validate", post(objects::validate))
        .route("/api/v1/apply", post(objects::apply))
        .route("/api/v1/hosts", get(hosts::list))
        .route("/api/v1/hosts/{host}", get(hosts::read))
        .route("/api/v1/hosts/{host}/effective", get(hosts::effective))
        .route("/api/v1/hosts/{host}/{action}", post(hosts::act))
        .route("/api/v1/releases", get(releases::list))
        .route("/api/v1/releases/{number}", get(releases::read))
        .route(
            "/api/v1/releases/{number}/rollback",
            post(releases::rollback),
        )
        .route("/api/v1/rollouts", get(rollouts::list))
        .route("/api/v1/rollouts/{id}", get(rollouts::read))
        .route("/api/v1/rollouts/{id}/{command}", post(rollouts::command))
        .route("/api/v1/audit", get(releases::audit))
        .route("/api/v1/events", get(events::stream))
        .method_not_allowed_fallback(problem::no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::from_fn(request::guard))
        .with_state(api)
}
