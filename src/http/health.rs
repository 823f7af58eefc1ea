//! Probes and the index: `/livez`, `/healthz`, `/readyz`, `/v1`.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::operations::App;
use crate::operations::health::{self, Readiness};

const SERVICE: &str = "haldir";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether the process runs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Liveness {
    /// Always true.
    alive: bool,
    /// Always `haldir`.
    service: &'static str,
    /// Seconds since the epoch.
    checked_at: u64,
}

/// Whether the process runs, and which it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always true.
    alive: bool,
    /// Always `haldir`.
    service: &'static str,
    /// Seconds since the epoch.
    checked_at: u64,
    /// Always `ok`.
    status: &'static str,
    /// The program's version.
    version: &'static str,
}

/// Where to go from here.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Index {
    /// Always `haldir`.
    service: &'static str,
    /// The program's version.
    version: &'static str,
    /// Where the API is described.
    docs: &'static str,
    /// The main paths.
    endpoints: Endpoints,
}

/// The main paths.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Endpoints {
    sessions: &'static str,
    secrets: &'static str,
    payments: &'static str,
    audit: &'static str,
    keys: &'static str,
}

/// Whether the process runs. Touches nothing.
#[utoipa::path(
    get, path = "/livez", operation_id = "get_livez", tag = "platform", security(()),
    responses((status = 200, description = "It runs", body = Liveness)),
)]
pub(super) async fn livez(app: web::Data<Arc<App>>) -> HttpResponse {
    let checked_at = app.ledger.clock().now().seconds();
    HttpResponse::Ok().json(Liveness { alive: true, service: SERVICE, checked_at })
}

/// Whether the process runs, and which version.
#[utoipa::path(
    get, path = "/healthz", operation_id = "get_healthz", tag = "platform", security(()),
    responses((status = 200, description = "It runs", body = Health)),
)]
pub(super) async fn healthz(app: web::Data<Arc<App>>) -> HttpResponse {
    let checked_at = app.ledger.clock().now().seconds();
    HttpResponse::Ok().json(Health {
        alive: true,
        service: SERVICE,
        checked_at,
        status: "ok",
        version: VERSION,
    })
}

/// Whether the service can do its work.
#[utoipa::path(
    get, path = "/readyz", operation_id = "get_readyz", tag = "platform", security(()),
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready", body = Readiness),
    ),
)]
pub(super) async fn readyz(app: web::Data<Arc<App>>) -> HttpResponse {
    let readiness = health::readiness(&app);
    if readiness.ready {
        HttpResponse::Ok().json(readiness)
    } else {
        HttpResponse::ServiceUnavailable().json(readiness)
    }
}

/// Where to go from here.
#[utoipa::path(
    get, path = "/v1", operation_id = "get_api_index", tag = "platform", security(()),
    responses((status = 200, description = "The main paths", body = Index)),
)]
pub(super) async fn index() -> HttpResponse {
    HttpResponse::Ok().json(Index {
        service: SERVICE,
        version: VERSION,
        docs: "/openapi.json",
        endpoints: Endpoints {
            sessions: "/v1/sessions",
            secrets: "/v1/secrets",
            payments: "/v1/payments/authorize",
            audit: "/v1/audit",
            keys: "/v1/keys",
        },
    })
}
