//! `/v1/keys`.

use std::sync::Arc;

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::{Field, Fields};
use super::caller::{AdminRead, AdminWrite, Authorized, KeyIfAny};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use super::retry::idempotency_key;
use crate::domain::id::RequestId;
use crate::domain::limits::KEY_NAME_CHARS_MAX;
use crate::operations::keys::{self, KeyList, MintedKey, Minter, RevokedKey};
use crate::operations::{App, Caller, OperationError};

/// A key to be minted.
#[derive(Debug, ToSchema)]
pub(super) struct MintKeyBody {
    /// A name for people.
    #[schema(default = "default", max_length = 256)]
    pub(super) name: Option<String>,
    /// What the key may do: a list, or a text with commas.
    #[schema(default = json!(["*"]))]
    pub(super) scopes: Option<Vec<String>>,
    /// The configured token, to found a tenant without a key. The header `X-Bootstrap-Token` does the same.
    pub(super) bootstrap_token: Option<String>,
}

impl MintKeyBody {
    fn read(fields: &Fields) -> Result<Self, OperationError> {
        Ok(Self {
            name: fields.field("name").or_null().text(KEY_NAME_CHARS_MAX)?,
            scopes: scopes(fields.field("scopes"))?,
            bootstrap_token: fields.field("bootstrap_token").or_null().text(usize::MAX)?,
        })
    }
}

/// Reads scopes as generously as the contract does: a list, a text with commas, or a text that is a JSON list. Nothing, and
/// a text that names nothing, is `*`; what cannot name scopes must not mint a key that may do everything.
fn scopes(field: Field<'_>) -> Result<Option<Vec<String>>, OperationError> {
    let words = |text: &str| {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    match field.raw() {
        Some(list) if list.starts_with('[') => Ok(Some(listed(list)?)),
        Some(text) if text.starts_with('"') => {
            let text: String = serde_json::from_str(text).unwrap_or_default();
            match text.trim() {
                "" => Ok(None),
                list if list.starts_with('[') => Ok(Some(listed(list)?)),
                text => Ok(Some(words(text))),
            }
        }
        None | Some("null") => Ok(None),
        Some(_) => Err(OperationError::InvalidScope("scopes: expected a list of scopes".to_owned())),
    }
}

/// The items of a JSON list as texts, trimmed, without empty ones.
fn listed(list: &str) -> Result<Vec<String>, OperationError> {
    let items: Vec<serde_json::Value> = serde_json::from_str(list)
        .map_err(|_| OperationError::InvalidScope("scopes: expected a list of scopes".to_owned()))?;
    let text = |item: serde_json::Value| match item {
        serde_json::Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    Ok(items.into_iter().map(text).filter(|text| !text.is_empty()).collect())
}

/// Mints an API key.
///
/// The first key of a new installation is free for callers on the same machine, unless a bootstrap token is configured.
#[utoipa::path(
    post, path = "/v1/keys", operation_id = "post_create_api_key", tag = "gate",
    request_body = MintKeyBody,
    responses((status = 201, description = "The key, shown once", body = MintedKey)),
)]
pub(super) async fn mint(
    app: web::Data<Arc<App>>,
    KeyIfAny(caller): KeyIfAny,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let body = MintKeyBody::read(&fields)?;
    let minter = minter(&app, caller, &request, body.bootstrap_token.as_deref())?;
    let name = body.name.unwrap_or_else(|| "default".to_owned());
    let to_mint = keys::mint_request(name, body.scopes.unwrap_or_else(|| vec!["*".to_owned()]))?;
    let retry = idempotency_key(&request)?
        .map(|key| keys::mint_retry(&app, &minter, request.path(), key, &to_mint))
        .transpose()?;
    let request_id = request.extensions().get::<RequestId>().cloned();
    let request_id = request_id.ok_or_else(|| OperationError::Internal("no request id".to_owned()))?;
    let minted = keys::mint(&app, minter, &request_id, to_mint, retry.as_ref()).await?;
    Ok(HttpResponse::Created().json(minted))
}

/// On whose authority a key is minted.
fn minter(
    app: &App,
    caller: Option<Caller>,
    request: &HttpRequest,
    token_in_body: Option<&str>,
) -> Result<Minter, OperationError> {
    if let Some(caller) = caller {
        return Ok(Minter::Key(caller));
    }
    let header = request.headers().get("X-Bootstrap-Token").and_then(|token| token.to_str().ok());
    let token = header.or(token_in_body);
    if token.is_some_and(|token| keys::is_bootstrap_token(app, token)) {
        return Ok(Minter::Bootstrap);
    }
    if app.bootstrap_token_hash.is_none() && is_from_this_machine(request) {
        return Ok(Minter::FirstCaller);
    }
    Err(OperationError::Unauthenticated("an API key or the bootstrap token is required"))
}

/// Whether nobody else can be behind the connection: it comes from loopback, and no proxy says that it forwards.
fn is_from_this_machine(request: &HttpRequest) -> bool {
    let is_loopback = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let is_forwarded = ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"]
        .iter()
        .any(|name| request.headers().contains_key(*name));
    is_loopback && !is_forwarded
}

/// Lists the tenant's API keys, newest first, revoked ones included. Never the keys themselves.
#[utoipa::path(
    get, path = "/v1/keys", operation_id = "get_list_api_keys", tag = "gate",
    params(("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The keys", body = KeyList)),
)]
pub(super) async fn list(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.metered_moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &keys::list(&moment))
}

/// Revokes an API key, at once.
#[utoipa::path(
    delete, path = "/v1/keys/{prefix}", operation_id = "delete_revoke_api_key", tag = "gate",
    params(("prefix" = String, Path, description = "First 12 characters of the key")),
    responses((status = 200, description = "Revoked", body = RevokedKey)),
)]
pub(super) async fn revoke(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminWrite>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let prefix = request.match_info().query("prefix");
    Ok(HttpResponse::Ok().json(keys::revoke(&app, &caller, prefix).await?))
}
