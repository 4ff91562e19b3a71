//! The operators' side: its own listener, on the control plane's runtime, never reachable through the proxy.
//!
//! Reads show the table, the rules, the events and the metrics; actions move live state or release what the guard of
//! the catalog holds. What it needs of other parts comes as the handles of [`handles`].

mod actions;
mod debug_token;
mod events;
mod guard;
pub mod handles;
mod listener;
mod page;
mod rules;
pub mod shadow;
mod table;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::error_handling::HandleErrorLayer;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::debug_token::Keys;
use crate::engine::paths::Paths;
use crate::engine::table::Table;
use crate::observe::clock::Clock;
use crate::observe::events::Events;
use crate::observe::limit_book::Book;
use crate::observe::metrics::{CONTENT_TYPE, Metrics};
use crate::observe::reloads::Reloads;
use crate::publish::Desk;

use handles::{Actions, CatalogView, CertificatesView, ReadyView};
pub use listener::serve;

/// Requests that are worked on at once; further ones are refused with 503. `/live` and `/ready` are not counted.
const AT_ONCE: usize = 64;
/// For one request, but not for an open stream of events.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Of a request's body.
const BODY_LIMIT: usize = 1 << 20;

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whether the listener is bound to a loopback address: then actions need no token unless one is set.
    pub loopback: bool,
    /// The token of actions; stored again when its file was read again. `None`: none.
    pub token: Arc<ArcSwapOption<String>>,
    /// Host names that requests may name, beside addresses and `localhost`. Lower case, no port.
    pub hosts: Vec<String>,
}

/// What the admin side shows and moves.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The table in force.
    pub table: Arc<ArcSwap<Table>>,
    /// The process's clock.
    pub clock: Clock,
    /// What limits know.
    pub book: Arc<Book>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// All events.
    pub events: Arc<Events>,
    /// How reloads went.
    pub reloads: Arc<Reloads>,
    /// Readiness.
    pub ready: Arc<dyn ReadyView>,
    /// The operators' hands.
    pub actions: Arc<dyn Actions>,
    /// What tokens for traces are made with; `None`: there are none.
    pub debug_keys: Option<Keys>,
    /// The catalog's state.
    pub catalog: Arc<dyn CatalogView>,
    /// The rules in force, and orders about them.
    pub rules: Desk,
    /// The shadow rules; `None`: none are configured.
    pub shadow: Option<shadow::ShadowView>,
    /// The certificates in force.
    pub certificates: Arc<dyn CertificatesView>,
    /// How the proxy reads paths.
    pub paths: Paths,
    /// Who may do what.
    pub access: Arc<Access>,
}

/// All paths.
pub fn router(admin: Admin) -> Router {
    let limits = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(overloaded))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE))
        .timeout(TIME_LIMIT);
    let guarded = Router::new()
        .route("/v1/explain", post(rules::explain))
        .route("/v1/instances/{service}/{id}/{action}", post(actions::instance))
        .route("/v1/catalog/{service}/accept", post(actions::accept))
        .route("/v1/debug-token", post(debug_token::issue))
        .route("/v1/rules/apply", post(rules::apply))
        .route("/v1/shadow/promote", post(shadow::promote))
        .route_layer(axum::middleware::from_fn_with_state(admin.clone(), guard::action));
    Router::new()
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .route("/metrics", get(metrics))
        .route("/v1/table", get(table::show))
        .route("/v1/rules", get(rules::show))
        .route("/v1/shadow", get(shadow::show))
        .route("/v1/certificates", get(certificates))
        .route("/v1/catalog", get(catalog))
        .route("/v1/events", get(events::show))
        .merge(guarded)
        .layer(limits)
        .route("/live", get(live))
        .route("/ready", get(ready))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(axum::middleware::from_fn_with_state(admin.clone(), guard::host))
        .with_state(admin)
}

async fn live() -> &'static str {
    "live\n"
}

async fn ready(State(admin): State<Admin>) -> Response {
    let ready = admin.ready.ready();
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], admin.metrics.render()).into_response()
}

async fn catalog(State(admin): State<Admin>) -> Response {
    Json(admin.catalog.status()).into_response()
}

async fn certificates(State(admin): State<Admin>) -> Response {
    Json(admin.certificates.show()).into_response()
}

async fn overloaded(error: tower::BoxError) -> Response {
    if error.is::<tower::timeout::error::Elapsed>() {
        return problem(StatusCode::GATEWAY_TIMEOUT, "the answer took too long");
    }
    problem(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once")
}

/// An error as JSON.
fn problem(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}

#[cfg(test)]
mod tests;
