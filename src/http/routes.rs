//! The table of routes. Each path answers 405 to methods that it does not have; unknown paths answer 404.

use actix_web::http::header::LOCATION;
use actix_web::{Handler, HttpRequest, HttpResponse, Resource, Responder, Route, guard, web};

use super::error::ApiError;
use super::{audit, health, keys, ledger, openapi, payments, sessions, usage};

/// Adds every route.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(path("/v1/keys").route(web::post().to(keys::mint)).route(get(keys::list)))
        .service(path("/v1/keys/{prefix}").route(web::delete().to(keys::revoke)))
        .service(path("/v1/sessions").route(web::post().to(sessions::open)).route(get(sessions::list)))
        .service(
            path("/v1/sessions/{session_id}")
                .route(get(sessions::get))
                .route(web::delete().to(sessions::revoke)),
        )
        .service(path("/v1/sessions/{session_id}/check").route(web::post().to(sessions::check)))
        .service(path("/v1/payments/authorize").route(web::post().to(payments::authorize)))
        .service(path("/v1/audit").route(web::post().to(audit::log)).route(get(audit::trail)))
        .service(path("/v1/audit/spend").route(get(audit::spend)))
        .service(path("/v1/audit/verify").route(get(audit::verify)))
        .service(path("/v1/ledger/export").route(get(ledger::export)))
        .service(path("/v1/usage").route(get(usage::report)))
        .service(path("/v1").route(get(health::index)))
        .service(path("/healthz").route(get(health::healthz)))
        .service(path("/health").route(get(health::healthz)))
        .service(path("/livez").route(get(health::livez)))
        .service(path("/readyz").route(get(health::readyz)))
        .service(path("/openapi.json").route(get(openapi::document)))
        .default_service(web::to(unknown));
}

fn path(template: &str) -> Resource {
    web::resource(template)
        .default_service(web::to(async || Err::<HttpResponse, _>(ApiError::MethodNotAllowed)))
}

/// `GET`, and `HEAD` with it.
fn get<F, Args>(handler: F) -> Route
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::route().guard(guard::Any(guard::Get()).or(guard::Head())).to(handler)
}

/// Paths with repeated slashes are sent to the one they mean; others do not exist.
async fn unknown(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let path = request.path();
    if !path.contains("//") {
        return Err(ApiError::RouteUnknown);
    }
    let mut location = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        location.push('/');
        location.push_str(part);
    }
    if location.is_empty() {
        location.push('/');
    }
    if !request.query_string().is_empty() {
        location.push('?');
        location.push_str(request.query_string());
    }
    Ok(HttpResponse::PermanentRedirect().insert_header((LOCATION, location)).finish())
}
