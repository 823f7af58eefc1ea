//! What happens around every request: an id, the key's standing, limits, metering, headers, the log line.

use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, web};

use super::caller::Presented;
use super::error::ApiError;
use crate::domain::id::{REQUEST_ID_LEN_MAX, RequestId};
use crate::operations::limits::{self, Bucket, Exceeded, Standing};
use crate::operations::{App, Caller, OperationError, keys};

/// What other origins may send, on every path that they may use.
const METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

/// What other origins may read, besides bodies.
const EXPOSED: &str = "Mcp-Session-Id, X-Request-ID";

/// Headers of every response.
const SECURITY_HEADERS: [(&str, &str); 5] = [
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
];

/// Wraps a request.
///
/// # Errors
///
/// Never: whatever goes wrong becomes a response.
pub async fn edge(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let app = request.app_data::<web::Data<Arc<App>>>().map(|app| Arc::clone(app));
    let Some(app) = app else {
        let why = OperationError::Internal("no application".to_owned());
        return Err(ApiError::from(why).into());
    };
    let started = app.ledger.clock().now();
    let request_id = request_id(&request, &app);
    // Who comes from another edge of this process was recognised there, and has left the key there, too.
    let recognised = request.extensions().get::<Presented>().cloned();
    let presented = recognised.unwrap_or_else(|| standing_of_key(&request, &app, &request_id));
    request.extensions_mut().insert(request_id.clone());
    request.extensions_mut().insert(presented.clone());
    let caller = match presented {
        Presented::Key(caller) => Some(caller),
        Presented::Nothing | Presented::Unknown => None,
    };

    let limited =
        caller.as_ref().filter(|_| is_limited(request.path()) && request.method() != Method::OPTIONS);
    let standing = limited.map(|caller| limits::count(&app, caller, started));
    let mut response = if let Some((exceeded, bucket)) = standing.as_ref().and_then(exceeded_bucket) {
        request.into_response(ApiError::LimitExceeded(exceeded, bucket).response(&request_id))
    } else {
        let response = next.call(request).await?;
        finish(&app, caller.as_ref(), &request_id, response).await
    };

    if let Some(caller) = caller.as_ref().filter(|_| is_metered(response.request(), response.status())) {
        app.meter.count(&app, caller, started, standing.is_some());
    }
    let request = response.request().clone();
    set_headers(response.headers_mut(), &request, &request_id, standing.as_ref());
    let ended = app.ledger.clock().now();
    log(
        &request,
        response.status(),
        &request_id,
        caller.as_ref(),
        ended.micros().saturating_sub(started.micros()),
    );
    Ok(response)
}

/// The caller's request id if it can be one, or a new one.
fn request_id(request: &ServiceRequest, app: &App) -> RequestId {
    let given = request.headers().get("X-Request-ID").and_then(|value| value.to_str().ok()).map(str::trim);
    given
        .and_then(|given| given.get(..REQUEST_ID_LEN_MAX.min(given.len())))
        .and_then(RequestId::parse)
        .unwrap_or_else(|| RequestId::issue(app.ledger.random().bytes()))
}

/// `Authorization: Bearer <key>`, else `X-API-Key: <key>`.
fn standing_of_key(request: &ServiceRequest, app: &App, request_id: &RequestId) -> Presented {
    // A header that is not ASCII cannot be a key, but it is not nothing either.
    let text = |value: &HeaderValue| value.to_str().unwrap_or("?").to_owned();
    let bearer = request.headers().get(AUTHORIZATION).map(text).unwrap_or_default();
    let mut key = bearer.strip_prefix("Bearer ").unwrap_or(&bearer).trim().to_owned();
    if key == "Bearer" {
        key.clear();
    }
    if key.is_empty() {
        key = request.headers().get("X-API-Key").map(text).unwrap_or_default();
    }
    if key.is_empty() {
        return Presented::Nothing;
    }
    app.authenticate(&key, request_id).map_or(Presented::Unknown, Presented::Key)
}

/// Writes the envelope of an error, and records a denied access before anybody hears of it.
async fn finish(
    app: &App,
    caller: Option<&Caller>,
    request_id: &RequestId,
    response: ServiceResponse<BoxBody>,
) -> ServiceResponse<BoxBody> {
    let error = response.response().error().map(|error| match error.as_error::<ApiError>() {
        Some(error) => error.clone(),
        None => foreign_error(response.status(), error),
    });
    let Some(mut error) = error else {
        return response;
    };
    if let (ApiError::Operation(OperationError::InsufficientScope { required, .. }), Some(caller)) =
        (&error, caller)
        && !is_minting(response.request())
    {
        let operation = operation_name(response.request());
        if let Err(not_recorded) = keys::deny_access(app, caller, required, &operation).await {
            error = not_recorded.into();
        }
    }
    let answer = error.response(request_id);
    response.into_response(answer)
}

/// A minting that is denied for its scopes is recorded where it is decided.
fn is_minting(request: &HttpRequest) -> bool {
    request.path() == "/v1/keys" && request.method() == Method::POST
}

/// An error of the framework's own.
fn foreign_error(status: StatusCode, error: &Error) -> ApiError {
    if status.is_client_error() {
        OperationError::invalid("request", error.to_string()).into()
    } else {
        OperationError::Internal(error.to_string()).into()
    }
}

/// The method and the route's template, as records and logs name an operation.
fn operation_name(request: &HttpRequest) -> String {
    let route = request.match_pattern().unwrap_or_else(|| "unmatched".to_owned()).replace(":.*}", "}");
    format!("{} {route}", request.method())
}

fn is_limited(path: &str) -> bool {
    path.starts_with("/v1/") && path != "/v1/keys"
}

fn is_metered(request: &HttpRequest, status: StatusCode) -> bool {
    request.path().starts_with("/v1/")
        && !is_minting(request)
        && status != StatusCode::TOO_MANY_REQUESTS
        && request.method() != Method::OPTIONS
}

fn exceeded_bucket(standing: &Standing) -> Option<(Exceeded, Bucket)> {
    match standing.exceeded? {
        Exceeded::Hourly => Some((Exceeded::Hourly, standing.hourly)),
        Exceeded::Monthly => standing.monthly.map(|monthly| (Exceeded::Monthly, monthly)),
    }
}

fn is_cross_origin_path(path: &str) -> bool {
    path.starts_with("/v1") || path == "/mcp" || path.starts_with("/mcp/")
}

fn set_headers(
    headers: &mut HeaderMap,
    request: &HttpRequest,
    request_id: &RequestId,
    standing: Option<&Standing>,
) {
    for (name, value) in SECURITY_HEADERS {
        // A page may be stricter.
        if !headers.contains_key(name) {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
    }
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    if is_cross_origin_path(request.path()) {
        match request.headers().get(ORIGIN) {
            Some(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(VARY, HeaderValue::from_static("Origin"));
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
            }
            None => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
        }
        if request.method() == Method::OPTIONS {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            if let Some(asked) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
        }
    }
    if let Some(standing) = standing {
        set_limit_headers(headers, standing);
    }
}

fn set_limit_headers(headers: &mut HeaderMap, standing: &Standing) {
    let mut set = |name: &'static str, value: u64| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    };
    let hourly = standing.hourly;
    set("x-ratelimit-limit", hourly.limit);
    set("x-ratelimit-used", hourly.used);
    set("x-ratelimit-remaining", hourly.limit.saturating_sub(hourly.used));
    set("x-ratelimit-reset", hourly.reset);
    set("x-ratelimit-reset-after", hourly.reset_after);
    if let Some(monthly) = standing.monthly {
        set("x-ratelimit-monthly-limit", monthly.limit);
        set("x-ratelimit-monthly-used", monthly.used);
        set("x-ratelimit-monthly-remaining", monthly.limit.saturating_sub(monthly.used));
        set("x-ratelimit-monthly-reset", monthly.reset);
        set("x-ratelimit-monthly-reset-after", monthly.reset_after);
    }
    let resource = if standing.exceeded == Some(Exceeded::Monthly) { "monthly" } else { "hourly" };
    headers.insert(HeaderName::from_static("x-ratelimit-resource"), HeaderValue::from_static(resource));
}

/// One line for each request: failures loudly, successes at `debug`, because the ledger already records every write.
fn log(
    request: &HttpRequest,
    status: StatusCode,
    request_id: &RequestId,
    caller: Option<&Caller>,
    duration_us: u64,
) {
    let operation = || operation_name(request);
    let tenant = caller.map_or("", |caller| caller.tenant.as_str());
    let status = status.as_u16();
    match status {
        500.. => {
            tracing::error!(%request_id, tenant, operation = operation(), status, duration_us, "request failed");
        }
        400.. => {
            tracing::info!(%request_id, tenant, operation = operation(), status, duration_us, "request refused");
        }
        _ if tracing::enabled!(tracing::Level::DEBUG) => {
            tracing::debug!(%request_id, tenant, operation = operation(), status, duration_us, "request");
        }
        _ => {}
    }
}
