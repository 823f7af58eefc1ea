//! `/v1/secrets`.
//!
//! A value is overwritten in memory when it was stored or sent, but for what lies in the buffers of the connection.

use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use data_encoding::HEXLOWER;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{Authorized, VaultRead, VaultWrite};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use super::retry::retry_of;
use crate::domain::limits::SCOPE_CHARS_MAX;
use crate::domain::secrets::SecretName;
use crate::operations::retries::Retry;
use crate::operations::secrets::{
    self, DEFAULT_REQUIRED_SCOPE, DeletedSecret, ReleasedSecret, SecretList, StoreSecretRequest, StoredSecret,
};
use crate::operations::{App, Caller, OperationError};

/// The path below which secrets are.
const SECRETS: &str = "/v1/secrets/";

/// A value to be stored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body; the value is read into memory that is overwritten")]
pub(super) struct StoreSecretBody {
    /// Under which name: 1 to 256 characters without control characters.
    #[schema(min_length = 1, max_length = 256)]
    name: String,
    /// The value: any text that fits into the body.
    #[schema(min_length = 1)]
    value: String,
    /// The session scope that reading it needs. An empty one is met by `admin` alone.
    #[schema(default = "read", max_length = 128, required = false)]
    scope_required: String,
}

fn read_body(fields: &Fields) -> Result<StoreSecretRequest, OperationError> {
    let name = fields.field("name");
    let name = name.required(name.or_null().lines(usize::MAX))?;
    if name.is_empty() {
        return Err(OperationError::invalid("name", "required field is empty"));
    }
    let name = secrets::name_of(&name)?;
    let value = fields.field("value");
    let value = value.required(value.or_null().concealed())?;
    if value.is_empty() {
        return Err(OperationError::invalid("value", "required field is empty"));
    }
    let required_scope = fields.field("scope_required").or_null().text(SCOPE_CHARS_MAX)?;
    let required_scope = required_scope.unwrap_or_else(|| DEFAULT_REQUIRED_SCOPE.to_owned());
    Ok(StoreSecretRequest { name, value, required_scope })
}

/// What a retry must repeat. Of the value it has a digest under a key that only whoever has the idempotency key can derive, so
/// that the fingerprint in the ledger gives nobody a way to try values out.
#[derive(Serialize)]
struct Repeated<'a> {
    name: &'a str,
    scope_required: &'a str,
    value: String,
}

fn retry_of_storing(
    app: &App,
    caller: &Caller,
    request: &HttpRequest,
    to_store: &StoreSecretRequest,
) -> Result<Option<Retry>, ApiError> {
    let Some(keyed) = retry_of(app, caller, request, &())? else {
        return Ok(None);
    };
    let digest = blake3::keyed_hash(&keyed.sealing_key, to_store.value.as_bytes());
    let repeated = Repeated {
        name: to_store.name.as_str(),
        scope_required: &to_store.required_scope,
        value: HEXLOWER.encode(digest.as_bytes()),
    };
    retry_of(app, caller, request, &repeated)
}

/// Stores a value. A name that exists gets another version.
#[utoipa::path(
    post, path = "/v1/secrets", operation_id = "post_store_secret", tag = "vault",
    request_body = StoreSecretBody,
    responses((status = 201, description = "Stored", body = StoredSecret)),
)]
pub(super) async fn store(
    app: web::Data<Arc<App>>,
    caller: Authorized<VaultWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let to_store = read_body(&fields)?;
    drop(fields);
    let retry = retry_of_storing(&app, &caller, &request, &to_store)?;
    let stored = secrets::store(Arc::clone(&app), caller.to_owned(), to_store, retry).await?;
    Ok(HttpResponse::Created().json(stored))
}

/// Lists the tenant's secrets, never their values.
#[utoipa::path(
    get, path = "/v1/secrets", operation_id = "get_list_secrets", tag = "vault",
    params(
        ("details" = Option<bool>, Query, description = "`true` adds versions, scopes, times and how often they were read"),
        ("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "Their names", body = SecretList)),
)]
pub(super) async fn list(
    app: web::Data<Arc<App>>,
    caller: Authorized<VaultRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let with_details = query.is_true("details");
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &secrets::list(&moment, with_details))
}

/// Releases a value to a session.
#[utoipa::path(
    get, path = "/v1/secrets/{name}", operation_id = "get_get_secret", tag = "vault",
    params(
        ("name" = String, Path, description = "The name; slashes in it may be written as they are"),
        ("X-Session-ID" = Option<String>, Header, description = "The session that reads"),
        ("session_id" = Option<String>, Query, description = "The session, when the header is missing"),
        ("version" = Option<u64>, Query, description = "Which version; the newest unless given"),
    ),
    responses((status = 200, description = "The value", body = ReleasedSecret)),
)]
pub(super) async fn get(
    app: web::Data<Arc<App>>,
    caller: Authorized<VaultRead>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let name = name_in(&request)?;
    let version = query.whole("version")?;
    let session_id = session_of(&request, &query)?;
    let released = secrets::read(&app, &caller, &name, &session_id, version).await?;
    let mut response = HttpResponse::Ok().json(released);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Erases a secret, or one version of it. Its ciphertext and its key are destroyed; that it existed stays on record.
#[utoipa::path(
    delete, path = "/v1/secrets/{name}", operation_id = "delete_delete_secret", tag = "vault",
    params(
        ("name" = String, Path, description = "The name; slashes in it may be written as they are"),
        ("version" = Option<u64>, Query, description = "Which version; all unless given"),
    ),
    responses((status = 200, description = "Erased", body = DeletedSecret)),
)]
pub(super) async fn delete(
    app: web::Data<Arc<App>>,
    caller: Authorized<VaultWrite>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let name = name_in(&request)?;
    let version = query.whole("version")?;
    let deleted = secrets::delete(Arc::clone(&app), caller.to_owned(), name, version).await?;
    Ok(HttpResponse::Ok().json(deleted))
}

/// The session in which a secret is read: the header, or else the parameter.
fn session_of(request: &HttpRequest, query: &Query) -> Result<String, OperationError> {
    let missing =
        || OperationError::invalid("session_id", "required: the header X-Session-ID, or session_id");
    if let Some(value) = request.headers().get("X-Session-ID") {
        let text = str::from_utf8(value.as_bytes())
            .map_err(|_| OperationError::invalid("X-Session-ID", "expected UTF-8"))?
            .trim();
        if !text.is_empty() {
            return Ok(text.to_owned());
        }
    }
    query.text("session_id").ok_or_else(missing)
}

/// The name in the path. It is read from the path as it was sent, where `%2F` and `/` mean the same and `+` is a plus.
fn name_in(request: &HttpRequest) -> Result<SecretName, ApiError> {
    let path = request.uri().path();
    let encoded = path.strip_prefix(SECRETS).ok_or(ApiError::RouteUnknown)?;
    if encoded.is_empty() {
        return Err(ApiError::RouteUnknown);
    }
    let malformed = || OperationError::invalid("name", "expected a percent-encoded name in UTF-8");
    let name =
        percent_decoded(encoded).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(malformed)?;
    Ok(secrets::name_of(&name)?)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        decoded.extend(data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).ok()?);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn name(path: &str) -> Option<String> {
        let request = TestRequest::get().uri(path).to_http_request();
        name_in(&request).ok().map(|name| name.to_string())
    }

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for (path, expected) in [
            ("/v1/secrets/a", "a"),
            ("/v1/secrets/a%2Fb", "a/b"),
            ("/v1/secrets/a/b", "a/b"),
            ("/v1/secrets/a%2fb", "a/b"),
            ("/v1/secrets/100%25", "100%"),
            ("/v1/secrets/%252F", "%2F"),
            ("/v1/secrets/a+b%2B", "a+b+"),
            ("/v1/secrets/a%20b?version=1", "a b"),
            ("/v1/secrets/%3F%23", "?#"),
            ("/v1/secrets/%D0%BA", "к"),
        ] {
            assert_eq!(name(path).as_deref(), Some(expected), "{path}");
        }
        for path in [
            "/v1/secrets/%",
            "/v1/secrets/%2",
            "/v1/secrets/%zz",
            "/v1/secrets/%FF",
            "/v1/secrets/%00",
            "/v1/secrets/%2E%2E",
        ] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
