//! API keys: mint, list, revoke.

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::past::Moment;
use super::retries::Retry;
use super::wire::Epoch;
use super::{App, Caller, OperationError, TIER, only_event};
use crate::domain::id::{Actor, KeyPrefix, RequestId, TenantId};
use crate::domain::keys::{DenyAccess, MintKey, RevokeKey};
use crate::domain::limits::KEY_NAME_CHARS_MAX;
use crate::domain::scope::KeyScopes;
use crate::domain::{Command, Event};
use crate::ledger::Request;
use crate::store::{SideKind, SideRow};

/// Who mints a key.
#[derive(Debug, Clone)]
pub enum Minter {
    /// A caller with a key; the new key joins its tenant.
    Key(Caller),
    /// A holder of the bootstrap token; the new key founds a tenant.
    Bootstrap,
    /// The first caller of a new installation, from the same machine; the new key founds a tenant.
    FirstCaller,
    /// Whoever runs the process; the new key joins the given tenant, or founds one.
    Operator(Option<TenantId>),
}

/// A key to be minted.
#[derive(Debug, Clone, Serialize)]
pub struct MintKeyRequest {
    /// A name for people.
    pub name: String,
    /// Scopes as asked for, checked against the vocabulary.
    pub scopes: Vec<String>,
}

/// A minted key. The only time that the key itself is shown.
#[derive(Serialize, ToSchema)]
pub struct MintedKey {
    /// The key. Keep it: it cannot be shown again.
    #[schema(example = "hld_…")]
    pub key: String,
    /// Its handle, safe to show.
    pub prefix: String,
    /// Its name.
    pub name: String,
    /// The tenant's plan.
    pub tier: String,
    /// Its scopes, as asked for.
    pub scopes: Vec<String>,
    /// What to do now.
    pub message: String,
}

/// A key in the list.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyRow {
    /// Its handle.
    pub prefix: String,
    /// Its name.
    pub name: String,
    /// The tenant's plan.
    pub tier: &'static str,
    /// Its scopes, sorted.
    pub scopes: Vec<String>,
    /// When it was minted.
    pub created_at: Epoch,
    /// When it was last used; `0.0` is never.
    pub last_used: Epoch,
    /// Whether it no longer works.
    pub revoked: bool,
}

/// The tenant's keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyList {
    /// Newest first, revoked ones included.
    pub keys: Vec<KeyRow>,
    /// How many.
    pub count: usize,
}

/// A revoked key.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevokedKey {
    /// Always true.
    pub revoked: bool,
    /// Which key.
    pub prefix: String,
    /// Always true: nothing happens that is not recorded.
    pub audit_recorded: bool,
}

/// SHA-256 of a key's or token's text: all that is kept of it.
#[must_use]
pub fn hash_of(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Checks what a caller asks for.
///
/// # Errors
///
/// [`OperationError::Invalid`] or [`OperationError::InvalidScope`].
pub fn mint_request(name: String, scopes: Vec<String>) -> Result<MintKeyRequest, OperationError> {
    if name.chars().count() > KEY_NAME_CHARS_MAX {
        return Err(OperationError::invalid(
            "name",
            format!("expected at most {KEY_NAME_CHARS_MAX} characters"),
        ));
    }
    KeyScopes::parse(&scopes).map_err(OperationError::InvalidScope)?;
    Ok(MintKeyRequest { name, scopes })
}

/// Whether this is the configured bootstrap token. Takes the same time for every wrong token.
#[must_use]
pub fn is_bootstrap_token(app: &App, token: &str) -> bool {
    app.bootstrap_token_hash.is_some_and(|hash| bool::from(hash.ct_eq(&hash_of(token))))
}

/// Digests the idempotency key of a minting.
///
/// # Errors
///
/// [`OperationError::Invalid`] when the key is too long.
pub fn mint_retry(
    app: &App,
    minter: &Minter,
    endpoint: &str,
    key: &str,
    request: &MintKeyRequest,
) -> Result<Retry, OperationError> {
    let scope = match minter {
        Minter::Key(caller) => caller.tenant.as_str(),
        Minter::Bootstrap => "/bootstrap",
        Minter::FirstCaller => "/first-caller",
        Minter::Operator(_) => "/operator",
    };
    app.retry_secret.digest(scope, endpoint, key, request)
}

/// Mints a key and shows it, once.
///
/// # Errors
///
/// [`OperationError::InsufficientScope`] when the minter lacks a scope that the new key would have; that is recorded.
pub async fn mint(
    app: &App,
    minter: Minter,
    request_id: &RequestId,
    request: MintKeyRequest,
    retry: Option<&Retry>,
) -> Result<MintedKey, OperationError> {
    let scopes = KeyScopes::parse(&request.scopes).map_err(OperationError::InvalidScope)?;
    let random: Zeroizing<[u8; 32]> = Zeroizing::new(app.ledger.random().bytes());
    let key = format!("hld_{}", BASE64URL_NOPAD.encode(&*random));
    let hash = hash_of(&key);
    let prefix = KeyPrefix::parse(&key[..KeyPrefix::LEN])
        .ok_or_else(|| OperationError::Internal("an issued key has no prefix".to_owned()))?;
    let (tenant, actor, granted) = match minter {
        Minter::Key(caller) => (caller.tenant, Actor::Key(caller.prefix), Some(caller.scopes)),
        Minter::Bootstrap => (TenantId::of_first_key(&hash), Actor::Bootstrap, None),
        Minter::FirstCaller => (TenantId::of_first_key(&hash), Actor::FirstCaller, None),
        Minter::Operator(tenant) => {
            (tenant.unwrap_or_else(|| TenantId::of_first_key(&hash)), Actor::Operator, None)
        }
    };
    let minted = MintedKey {
        key,
        prefix: prefix.to_string(),
        name: request.name.clone(),
        tier: TIER.to_owned(),
        scopes: request.scopes,
        message: "Store this key now: it is shown only once.".to_owned(),
    };
    let side = retry.map(|retry| seal(app, retry, &minted)).transpose()?.into_iter().collect();
    let command = Command::MintKey(MintKey { prefix, hash, name: request.name, scopes });
    let request = Request {
        tenant,
        actor,
        request_id: request_id.clone(),
        idempotency: retry.map(|retry| retry.idempotency.clone()),
        command,
        side,
    };
    let receipt = app.ledger.submit(request).await?;
    let committed = only_event(&receipt)?;
    match (&committed.recorded.event, retry) {
        (Event::KeyMinted(_), Some(retry)) if receipt.is_replay => unseal(app, retry, &committed.tenant),
        (Event::KeyMinted(_), _) => Ok(minted),
        (Event::AccessDenied(denied), _) => Err(OperationError::InsufficientScope {
            required: denied.required.clone(),
            granted: granted.map(|scopes| scopes.as_slice().to_vec()).unwrap_or_default(),
        }),
        _ => Err(OperationError::unexpected(&receipt)),
    }
}

/// Seals the answer for a retry, so that the key is on disk only for whoever asks with the same idempotency key.
fn seal(app: &App, retry: &Retry, minted: &MintedKey) -> Result<SideRow, OperationError> {
    let answer = serde_json::to_vec(minted).map(Zeroizing::new);
    let answer = answer.map_err(|error| OperationError::Internal(error.to_string()))?;
    let nonce: [u8; 12] = app.ledger.random().bytes();
    let aad = &retry.idempotency.key;
    let sealed = Aes256GcmSiv::new(&(*retry.sealing_key).into())
        .encrypt(&Nonce::from(nonce), Payload { msg: &answer, aad })
        .map_err(|_| OperationError::Internal("sealing failed".to_owned()))?;
    Ok(SideRow {
        kind: SideKind::MintedKey,
        id: retry.idempotency.key.to_vec(),
        value: [&nonce[..], &sealed].concat(),
    })
}

fn unseal(app: &App, retry: &Retry, tenant: &TenantId) -> Result<MintedKey, OperationError> {
    let broken = || OperationError::Internal("the sealed answer cannot be opened".to_owned());
    let stored = app.ledger.store().side(tenant, SideKind::MintedKey, &retry.idempotency.key);
    let stored =
        stored.map_err(|error| OperationError::Unavailable(error.to_string()))?.ok_or_else(broken)?;
    let (nonce, sealed) = stored.split_first_chunk::<12>().ok_or_else(broken)?;
    let aad = &retry.idempotency.key;
    let answer = Aes256GcmSiv::new(&(*retry.sealing_key).into())
        .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad })
        .map(Zeroizing::new)
        .map_err(|_| broken())?;
    let fields: serde_json::Value = serde_json::from_slice(&answer).map_err(|_| broken())?;
    let text = |name: &str| fields[name].as_str().map(str::to_owned).ok_or_else(broken);
    let scopes = fields["scopes"].as_array().ok_or_else(broken)?;
    Ok(MintedKey {
        key: text("key")?,
        prefix: text("prefix")?,
        name: text("name")?,
        tier: text("tier")?,
        scopes: scopes.iter().filter_map(|scope| scope.as_str().map(str::to_owned)).collect(),
        message: text("message")?,
    })
}

/// Lists a tenant's keys.
#[must_use]
pub fn list(moment: &Moment) -> KeyList {
    let row = |(prefix, key): (&KeyPrefix, &crate::domain::keys::Key)| KeyRow {
        prefix: prefix.to_string(),
        name: key.name.clone(),
        tier: TIER,
        scopes: key.scopes.as_slice().to_vec(),
        created_at: Epoch(key.created_at),
        last_used: Epoch::or_zero(key.last_used),
        revoked: key.is_revoked,
    };
    let keys: Vec<KeyRow> = moment.stream.tenant.keys.newest_first().into_iter().map(row).collect();
    KeyList { count: keys.len(), keys }
}

/// Revokes a key of the tenant, at once.
///
/// # Errors
///
/// [`OperationError::NotFound`] unless an active key of the tenant has this prefix.
pub async fn revoke(app: &App, caller: &Caller, prefix: &str) -> Result<RevokedKey, OperationError> {
    if prefix.chars().count() > 64 {
        return Err(OperationError::InvalidPrefix);
    }
    let prefix = KeyPrefix::parse(prefix).ok_or(OperationError::NotFound("active key with this prefix"))?;
    let command = Command::RevokeKey(RevokeKey { prefix: prefix.clone() });
    app.submit(caller, command, None, vec![]).await?;
    Ok(RevokedKey { revoked: true, prefix: prefix.to_string(), audit_recorded: true })
}

/// Records that a key lacked the scope for what it asked.
///
/// # Errors
///
/// [`OperationError`] when the record cannot be written.
pub async fn deny_access(
    app: &App,
    caller: &Caller,
    required: &str,
    operation: &str,
) -> Result<(), OperationError> {
    let command =
        Command::DenyAccess(DenyAccess { required: required.to_owned(), operation: operation.to_owned() });
    app.submit(caller, command, None, vec![]).await?;
    Ok(())
}
