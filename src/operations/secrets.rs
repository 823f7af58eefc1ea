//! Secrets: store, read through a session, list, erase.
//!
//! A value is sealed and on the disk before the ledger says that it is stored, and opened before the ledger says that it was
//! read: without the record nothing is released. It is recorded as erased before it is destroyed. Whatever a crash leaves
//! between such steps, [`sweep`] completes at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::past::Moment;
use super::retries::Retry;
use super::wire::Epoch;
use super::{App, Caller, OperationError, blocking, only_event, request_of, to_the_end};
use crate::domain::id::{SessionId, TenantId};
use crate::domain::limits::SECRET_NAME_CHARS_MAX;
use crate::domain::secrets::{
    DeleteSecret, Judged, ReadSecret, SealDigest, Secret, SecretDenial, SecretDenied, SecretName,
    StoreSecret, Version, judge,
};
use crate::domain::{Command, Event, Refusal};
use crate::ledger::LedgerError;
use crate::vault::{Drawer, Place, VaultError};

/// The session scope that reading needs when none is named.
pub const DEFAULT_REQUIRED_SCOPE: &str = "read";
/// How often a read looks again because the secret was stored or erased meanwhile.
const READ_ATTEMPTS_MAX: usize = 16;

/// A value to be stored.
#[derive(Debug)]
pub struct StoreSecretRequest {
    /// Under which name.
    pub name: SecretName,
    /// The value.
    pub value: Zeroizing<String>,
    /// The session scope that reading it needs.
    pub required_scope: String,
}

/// A stored value.
#[derive(Debug, Serialize, ToSchema)]
pub struct StoredSecret {
    /// Always true.
    pub stored: bool,
    /// Under which name.
    pub name: String,
    /// As which version of it.
    pub version: u64,
}

/// A value that was released.
#[derive(Serialize, ToSchema)]
pub struct ReleasedSecret {
    /// Of which secret.
    pub name: String,
    /// Which version.
    pub version: u64,
    /// The value.
    #[schema(value_type = String)]
    #[serde(serialize_with = "reveal")]
    pub value: Zeroizing<String>,
}

fn reveal<S: Serializer>(value: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value)
}

/// A tenant's secrets.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretList {
    /// Their names, sorted.
    pub secrets: Vec<String>,
    /// How many there are.
    pub count: usize,
    /// What is known of them, in the same order; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<SecretRow>>,
}

/// What is known of a secret besides its value.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretRow {
    /// Its name.
    pub name: String,
    /// The session scope that reading the newest version needs.
    pub required_scope: String,
    /// When that version was stored.
    pub created_at: Epoch,
    /// When the secret was read last since then; 0 is never.
    pub last_read_at: Epoch,
    /// How often since then.
    pub read_count: u64,
    /// The versions that are kept, oldest first.
    pub versions: Vec<VersionRow>,
}

/// What is known of a version of a secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionRow {
    /// Its number.
    pub version: u64,
    /// The session scope that reading it needs.
    pub required_scope: String,
    /// When it was stored.
    pub created_at: Epoch,
    /// Bytes of its ciphertext: those of the value and 16 more.
    pub sealed_len: u64,
    /// The digest of its ciphertext, hex.
    pub digest: String,
}

/// An erased secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedSecret {
    /// Always true.
    pub deleted: bool,
    /// Which secret.
    pub name: String,
    /// Which versions of it.
    pub versions: Vec<u64>,
}

/// Reads a name as it was asked for.
///
/// # Errors
///
/// [`OperationError::Invalid`] for what cannot be the name of a secret.
pub fn name_of(text: &str) -> Result<SecretName, OperationError> {
    SecretName::parse(text).ok_or_else(|| {
        OperationError::invalid(
            "name",
            format!(
                "expected 1 to {SECRET_NAME_CHARS_MAX} characters without control characters, and between slashes something \
                 other than . and .."
            ),
        )
    })
}

fn place_of(tenant: &TenantId, name: &SecretName) -> Place {
    Place { tenant: tenant.clone(), drawer: Drawer::Secret, name: name.to_string() }
}

/// Stores a value. A name that exists gets another version.
///
/// # Errors
///
/// [`OperationError::Full`], [`OperationError::Unavailable`], [`OperationError::RetryMismatch`].
pub async fn store(
    app: Arc<App>,
    caller: Caller,
    request: StoreSecretRequest,
    retry: Option<Retry>,
) -> Result<StoredSecret, OperationError> {
    to_the_end(async move { store_now(&app, &caller, request, retry.as_ref()).await }).await
}

async fn store_now(
    app: &Arc<App>,
    caller: &Caller,
    request: StoreSecretRequest,
    retry: Option<&Retry>,
) -> Result<StoredSecret, OperationError> {
    let StoreSecretRequest { name, value, required_scope } = request;
    let place = place_of(&caller.tenant, &name);
    let keeper = Arc::clone(app);
    let kept = blocking(move || Ok(keeper.vault.seal_and_keep(&place, value.as_bytes())?)).await?;

    let command = StoreSecret { name, required_scope, digest: kept.digest, sealed_len: kept.sealed_len };
    let receipt = match app.submit(caller, Command::StoreSecret(command), retry, vec![]).await {
        Ok(receipt) => receipt,
        Err(error) => {
            // IMPORTANT: only what certainly was not recorded is destroyed here; about the rest the next start knows more.
            if !matches!(error, OperationError::Unavailable(_) | OperationError::Internal(_)) {
                destroy(app, &caller.tenant, vec![kept.digest]).await?;
            }
            return Err(error);
        }
    };
    let Event::SecretStored(stored) = &only_event(&receipt)?.recorded.event else {
        return Err(OperationError::unexpected(&receipt));
    };
    let is_new = stored.digest == kept.digest;
    let gone = if is_new { stored.erased.iter().map(|it| it.digest).collect() } else { vec![kept.digest] };
    if let Err(error) = destroy(app, &caller.tenant, gone).await {
        // The new version is stored all the same.
        tracing::error!(tenant = %caller.tenant, %error, "an erased version is destroyed at the next start");
    }
    Ok(StoredSecret { stored: true, name: stored.name.to_string(), version: stored.version })
}

async fn destroy(app: &Arc<App>, tenant: &TenantId, digests: Vec<SealDigest>) -> Result<(), OperationError> {
    let (app, tenant) = (Arc::clone(app), tenant.clone());
    blocking(move || {
        for digest in digests {
            app.vault.destroy(&tenant, &digest)?;
        }
        Ok(())
    })
    .await
}

/// Releases a value to a session, and records it; or records why not.
///
/// # Errors
///
/// In this order: [`OperationError::SessionDead`], [`OperationError::NotFound`], [`OperationError::SessionScopeMissing`], each
/// recorded. [`OperationError::Sealed`] when the value does not open: then nothing is recorded, because nothing was released.
pub async fn read(
    app: &Arc<App>,
    caller: &Caller,
    name: &SecretName,
    session_id: &str,
    version: Option<u64>,
) -> Result<ReleasedSecret, OperationError> {
    let session_id = SessionId::parse(session_id).ok_or(OperationError::SessionDead)?;
    let mut ask = ReadSecret { session_id, name: name.clone(), version, opened: None };
    let mut missed = None;
    for _ in 0..READ_ATTEMPTS_MAX {
        ask.opened = None;
        let found = find(app, caller, &ask)?;
        let value = match found {
            None => None,
            Some(digest) => match open(app, caller, name, digest).await {
                // It may have been erased meanwhile. If it is looked for in vain twice, it is not that.
                Err(VaultError::Missing) if missed != found => {
                    missed = found;
                    continue;
                }
                opened => Some(opened?),
            },
        };
        ask.opened = found;
        let request = request_of(caller, Command::ReadSecret(ask.clone()), None, vec![]);
        let receipt = match app.ledger.submit(request).await {
            Err(LedgerError::Refused(Refusal::SecretMoved)) => continue,
            submitted => submitted?,
        };
        return match (&only_event(&receipt)?.recorded.event, value) {
            (Event::SecretRead(read), Some(value)) => {
                Ok(ReleasedSecret { name: read.name.to_string(), version: read.version, value })
            }
            (Event::SecretDenied(denied), _) => Err(refusal_of(denied)),
            _ => Err(OperationError::unexpected(&receipt)),
        };
    }
    Err(OperationError::Busy)
}

/// The sealed value that the asker may have, as far as can be seen now. The ledger decides again.
pub(super) fn find(
    app: &App,
    caller: &Caller,
    ask: &ReadSecret,
) -> Result<Option<SealDigest>, OperationError> {
    let now = app.ledger.clock().now();
    app.with_tenant(&caller.tenant, |tenant| match judge(&tenant.sessions, &tenant.secrets, now, ask) {
        Judged::Granted(version, _) => Some(version.digest),
        Judged::Denied(_) => None,
    })
}

/// Opens the value that a session may have, for something that is decided with it; `None` when it may not, or there is none. What
/// is opened may be another one by then: the ledger decides again, and refuses what moved.
pub(super) async fn open_for(
    app: &Arc<App>,
    caller: &Caller,
    ask: &ReadSecret,
) -> Result<Option<(SealDigest, Zeroizing<String>)>, OperationError> {
    let mut missed = None;
    loop {
        let Some(digest) = find(app, caller, ask)? else { return Ok(None) };
        match open(app, caller, &ask.name, digest).await {
            // It may have been erased meanwhile. If it is looked for in vain twice, it is not that.
            Err(VaultError::Missing) if missed != Some(digest) => missed = Some(digest),
            opened => return Ok(Some((digest, opened?))),
        }
    }
}

async fn open(
    app: &Arc<App>,
    caller: &Caller,
    name: &SecretName,
    digest: SealDigest,
) -> Result<Zeroizing<String>, VaultError> {
    let place = place_of(&caller.tenant, name);
    let keeper = Arc::clone(app);
    let opened = tokio::task::spawn_blocking(move || keeper.vault.open(&place, &digest)).await;
    let mut value = opened.map_err(|_| VaultError::Damaged)??;
    // Moved, not copied: there is one copy to overwrite.
    String::from_utf8(std::mem::take(&mut *value)).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        VaultError::Damaged
    })
}

fn refusal_of(denied: &SecretDenied) -> OperationError {
    match denied.reason {
        SecretDenial::SessionUnknown | SecretDenial::SessionRevoked | SecretDenial::SessionExpired => {
            OperationError::SessionDead
        }
        SecretDenial::SecretUnknown => OperationError::NotFound("secret"),
        SecretDenial::ScopeMissing => OperationError::SessionScopeMissing {
            required: denied.required_scope.clone().unwrap_or_default(),
        },
    }
}

/// Lists a tenant's secrets.
#[must_use]
pub fn list(moment: &Moment, with_details: bool) -> SecretList {
    let all = || moment.stream.tenant.secrets.all();
    let secrets: Vec<_> = all().map(|(name, _)| name.to_string()).collect();
    let details = with_details.then(|| all().map(|(name, secret)| row(name, secret)).collect());
    SecretList { count: secrets.len(), secrets, details }
}

/// A secret as lists show it.
#[must_use]
pub fn row(name: &SecretName, secret: &Secret) -> SecretRow {
    let newest = secret.version(None);
    SecretRow {
        name: name.to_string(),
        required_scope: newest.map(|version| version.required_scope.clone()).unwrap_or_default(),
        created_at: Epoch::or_zero(newest.map(|version| version.created_at)),
        last_read_at: Epoch::or_zero(secret.last_read_at),
        read_count: secret.reads,
        versions: secret.versions.iter().map(version_row).collect(),
    }
}

fn version_row(version: &Version) -> VersionRow {
    VersionRow {
        version: version.number,
        required_scope: version.required_scope.clone(),
        created_at: Epoch(version.created_at),
        sealed_len: version.sealed_len,
        digest: data_encoding::HEXLOWER.encode(&version.digest),
    }
}

/// Erases a secret, or one version of it: records it, and destroys the sealed values.
///
/// # Errors
///
/// [`OperationError::NotFound`] when there is no such secret or version. [`OperationError::Unavailable`] when it is recorded and
/// a sealed value could not be destroyed: the next start does.
pub async fn delete(
    app: Arc<App>,
    caller: Caller,
    name: SecretName,
    version: Option<u64>,
) -> Result<DeletedSecret, OperationError> {
    to_the_end(async move {
        let command = Command::DeleteSecret(DeleteSecret { name, version });
        let receipt = app.submit(&caller, command, None, vec![]).await?;
        let Event::SecretDeleted(deleted) = &only_event(&receipt)?.recorded.event else {
            return Err(OperationError::unexpected(&receipt));
        };
        let digests = deleted.erased.iter().map(|erased| erased.digest).collect();
        destroy(&app, &caller.tenant, digests).await?;
        let versions = deleted.erased.iter().map(|erased| erased.version).collect();
        Ok(DeletedSecret { deleted: true, name: deleted.name.to_string(), versions })
    })
    .await
}

/// What a [`sweep`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sealed values that the ledger does not know, or knows as erased: destroyed.
    pub destroyed: u64,
    /// Versions that the ledger knows and of which there is no sealed value.
    pub missing: u64,
}

/// Makes the vault hold what the ledger says: destroys what was sealed and never recorded, and what was recorded as erased. To be
/// called before anybody stores.
///
/// # Errors
///
/// [`OperationError`], when the vault cannot be read.
pub fn sweep(app: &App) -> Result<Swept, OperationError> {
    let mut swept = Swept::default();
    let mut expected: BTreeMap<TenantId, BTreeSet<SealDigest>> = BTreeMap::new();
    for (tenant, stream) in app.ledger.read().streams() {
        let versions = stream.tenant.secrets.all().flat_map(|(_, secret)| &secret.versions);
        expected.insert(tenant.clone(), versions.map(|version| version.digest).collect());
    }
    for tenant in app.vault.tenants()? {
        let expected = expected.entry(tenant.clone()).or_default();
        for digest in app.vault.digests(&tenant)? {
            if expected.remove(&digest) {
                continue;
            }
            // Other drawers are their owners' to sweep.
            if !matches!(app.vault.drawer_of(&tenant, &digest)?, Some(Drawer::Webhook)) {
                app.vault.destroy(&tenant, &digest)?;
                swept.destroyed += 1;
            }
        }
    }
    swept.missing = expected.values().map(|left| left.len() as u64).sum();
    Ok(swept)
}
