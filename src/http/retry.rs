//! The `Idempotency-Key` header.

use actix_web::HttpRequest;
use serde::Serialize;

use super::error::ApiError;
use crate::operations::retries::Retry;
use crate::operations::{App, Caller, OperationError};

/// The idempotency key of a request; an empty one counts as absent.
///
/// # Errors
///
/// [`OperationError::Invalid`] when it is not text.
pub(super) fn idempotency_key(request: &HttpRequest) -> Result<Option<&str>, OperationError> {
    let Some(value) = request.headers().get("Idempotency-Key") else {
        return Ok(None);
    };
    let text =
        value.to_str().map_err(|_| OperationError::invalid("Idempotency-Key", "expected visible ASCII"))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Digests the idempotency key of a caller's request, if it has one.
///
/// # Errors
///
/// [`ApiError`] when the key cannot be one.
pub(super) fn retry_of(
    app: &App,
    caller: &Caller,
    request: &HttpRequest,
    body: &impl Serialize,
) -> Result<Option<Retry>, ApiError> {
    let digest = |key| app.retry_secret.digest(caller.tenant.as_str(), request.path(), key, body);
    Ok(idempotency_key(request)?.map(digest).transpose()?)
}
