//! The one table from errors to status and envelope.
//!
//! Every error body is a JSON object with `error` (a sentence), `code`, and `request_id`; wrong input adds `field` and
//! `reason`.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};

use crate::domain::id::RequestId;
use crate::operations::limits::{Bucket, Exceeded};
use crate::operations::{OperationError, TIER};

/// Bytes of a request body at most.
pub const BODY_LEN_MAX: usize = 1_048_576;
/// Seconds after which a caller who was turned away may try again.
const RETRY_AFTER_S: u64 = 1;
/// Where a limit can be lifted.
const LIMITS_HELP: &str = "raise or remove the limit in this server's configuration";

/// Why a request gets no answer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// An operation was not carried out.
    Operation(OperationError),
    /// No such path.
    RouteUnknown,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The body is too large.
    PayloadTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// A limit is exceeded.
    LimitExceeded(Exceeded, Bucket),
    /// The transport of the Model Context Protocol turns the request away: with which status, and why.
    Transport(StatusCode, String),
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        Self::Operation(error)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation(OperationError::Internal(_)) => f.write_str("internal error"),
            Self::Operation(error) => error.fmt(f),
            Self::RouteUnknown => f.write_str("no such path"),
            Self::MethodNotAllowed => f.write_str("this path does not take this method"),
            Self::PayloadTooLarge => write!(f, "the request body has more than {BODY_LEN_MAX} bytes"),
            Self::BodyTimeout => f.write_str("the request body did not arrive in time"),
            Self::LimitExceeded(Exceeded::Hourly, bucket) => {
                write!(f, "rate limit exceeded: {} requests per hour", bucket.limit)
            }
            Self::LimitExceeded(Exceeded::Monthly, bucket) => {
                write!(f, "monthly quota exceeded: {} requests per month", bucket.limit)
            }
            Self::Transport(_, why) => f.write_str(why),
        }
    }
}

impl ApiError {
    /// The status and the machine-readable code.
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Operation(error) => match error {
                OperationError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_request"),
                OperationError::InvalidArgument { .. } => (StatusCode::BAD_REQUEST, "invalid_argument"),
                OperationError::RangeInvalid { .. } => (StatusCode::BAD_REQUEST, "invalid_range"),
                OperationError::InvalidScope(_) => (StatusCode::BAD_REQUEST, "invalid_scope"),
                OperationError::InvalidFormat { .. } => (StatusCode::BAD_REQUEST, "invalid_format"),
                OperationError::InvalidSchedule(_) => (StatusCode::BAD_REQUEST, "invalid_schedule"),
                OperationError::UnsafeUrl(_) => (StatusCode::BAD_REQUEST, "unsafe_url"),
                OperationError::InvalidPrefix => (StatusCode::BAD_REQUEST, "invalid_prefix"),
                OperationError::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
                OperationError::SessionDead => (StatusCode::UNAUTHORIZED, "invalid_session"),
                OperationError::InsufficientScope { .. } => (StatusCode::FORBIDDEN, "insufficient_scope"),
                OperationError::SessionScopeMissing { .. } => (StatusCode::FORBIDDEN, "scope_missing"),
                OperationError::AgentLimit { .. } => (StatusCode::FORBIDDEN, "agent_limit_reached"),
                OperationError::NotFound(_) | OperationError::EntryUnknown { .. } => {
                    (StatusCode::NOT_FOUND, "not_found")
                }
                OperationError::Illegal { code, .. } => (StatusCode::BAD_REQUEST, code),
                OperationError::Conflict { code, .. } => (StatusCode::CONFLICT, code),
                OperationError::RetryMismatch => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch"),
                OperationError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
                OperationError::Full => (StatusCode::SERVICE_UNAVAILABLE, "disk_full"),
                OperationError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
                OperationError::Sealed(_) => (StatusCode::SERVICE_UNAVAILABLE, "secret_sealed"),
                OperationError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
            },
            Self::RouteUnknown => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::LimitExceeded(Exceeded::Hourly, _) => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded")
            }
            Self::LimitExceeded(Exceeded::Monthly, _) => {
                (StatusCode::TOO_MANY_REQUESTS, "monthly_quota_exceeded")
            }
            Self::Transport(status, _) => (
                *status,
                match *status {
                    StatusCode::FORBIDDEN => "forbidden",
                    StatusCode::NOT_FOUND => "not_found",
                    StatusCode::NOT_ACCEPTABLE => "not_acceptable",
                    StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
                    _ => "invalid_request",
                },
            ),
        }
    }

    /// The envelope.
    fn body(&self, request_id: &RequestId) -> Value {
        let (_, code) = self.status_and_code();
        let mut body = json!({ "error": self.to_string(), "code": code, "request_id": request_id.as_str() });
        let extra = match self {
            Self::Operation(OperationError::Invalid { field, reason }) => {
                json!({ "field": field, "reason": reason })
            }
            Self::Operation(OperationError::InvalidFormat { got, .. }) => json!({ "got": got }),
            Self::Operation(OperationError::InvalidArgument { field, reason }) => {
                json!({ "field": field, "reason": reason })
            }
            Self::Operation(OperationError::RangeInvalid { first, second, .. }) => {
                json!({ "first": first, "second": second })
            }
            Self::Operation(OperationError::EntryUnknown { entry_id }) => json!({ "entry_id": entry_id }),
            Self::Operation(OperationError::InsufficientScope { required, granted }) => {
                json!({ "required": required, "granted": granted })
            }
            Self::Operation(OperationError::SessionScopeMissing { required }) => {
                json!({ "required": required })
            }
            Self::Operation(OperationError::AgentLimit { limit, current }) => {
                json!({ "tier": TIER, "limit": limit, "current": current, "upgrade": LIMITS_HELP })
            }
            Self::PayloadTooLarge => json!({ "max_bytes": BODY_LEN_MAX }),
            Self::LimitExceeded(Exceeded::Hourly, bucket) => json!({
                "tier": TIER, "limit": bucket.limit, "retry_after": bucket.reset_after.max(1), "resource": "hourly",
            }),
            Self::LimitExceeded(Exceeded::Monthly, bucket) => json!({
                "tier": TIER, "limit": bucket.limit, "used": bucket.used,
                "retry_after": bucket.reset_after.max(1), "resource": "monthly", "upgrade": LIMITS_HELP,
            }),
            Self::Operation(_)
            | Self::RouteUnknown
            | Self::MethodNotAllowed
            | Self::BodyTimeout
            | Self::Transport(..) => json!({}),
        };
        if let (Some(body), Value::Object(extra)) = (body.as_object_mut(), extra) {
            body.extend(extra);
        }
        body
    }

    /// The whole answer.
    #[must_use]
    pub fn response(&self, request_id: &RequestId) -> HttpResponse {
        if let Self::Operation(OperationError::Internal(why)) = self {
            tracing::error!(%request_id, why, "internal error");
        }
        let (status, _) = self.status_and_code();
        let mut response = HttpResponse::build(status).json(self.body(request_id));
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Operation(OperationError::Busy | OperationError::Full) => Some(RETRY_AFTER_S),
            Self::LimitExceeded(_, bucket) => Some(bucket.reset_after.max(1)),
            Self::Operation(_)
            | Self::RouteUnknown
            | Self::MethodNotAllowed
            | Self::BodyTimeout
            | Self::PayloadTooLarge
            | Self::Transport(..) => None,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status_and_code().0
    }

    /// An answer without body: [`super::edge`] knows the request id and writes the envelope.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}
