//! The master keys: which ones there are, what they seal, and how one takes over from another.
//!
//! A caller sees and wraps its own tenant's values. Making a new primary key is the operator's.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{App, Caller, OperationError, blocking, to_the_end};
use crate::domain::Command;
use crate::domain::id::{Actor, RequestId, TenantId};
use crate::domain::secrets::{RecordVaultRotation, Rewrapped, VaultRotated};
use crate::ledger::Request;
use crate::vault::ring::MasterKeyId;
use crate::vault::{Drawer, Listed, RingError};

/// The master keys, and what they seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyReport {
    /// The keys of the ring, the primary first.
    pub keys: Vec<KeyInRing>,
    /// Sealed values by the id of the key that wraps them. An id that is not among `keys` is of a key that is missing.
    pub blobs_by_key: BTreeMap<String, u64>,
    /// Sealed values in all.
    pub total_blobs: u64,
    /// Files that are no sealed values.
    pub unreadable_blobs: u64,
}

/// One key of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyInRing {
    /// The first 8 bytes of the key's SHA-256, hex.
    pub key_id: String,
    /// `primary` seals; `retired` only opens.
    pub role: String,
}

/// What became of each sealed value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rotation {
    /// The primary key.
    pub new_key_id: String,
    /// The same: a caller does not change the primary key.
    pub previous_key_id: String,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Values that the primary key wraps now.
    pub rotated: Vec<RotatedValue>,
    /// Values that it wrapped already.
    pub already_current: Vec<RotatedValue>,
    /// Values that could not be wrapped anew.
    pub failed: Vec<FailedValue>,
    /// How many of each.
    pub summary: RotationSummary,
}

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RotatedValue {
    /// Whose.
    pub tenant_id: String,
    /// Its name.
    pub name: String,
    /// `secret`, or `webhook` for a key that signs deliveries.
    pub kind: &'static str,
    /// Which version of the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// A sealed value that could not be wrapped anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailedValue {
    /// Whose.
    pub tenant_id: String,
    /// Its name; empty when that cannot be read either.
    pub name: String,
    /// Why.
    pub error: String,
}

/// How many sealed values of each outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct RotationSummary {
    /// Wrapped anew.
    pub rotated: usize,
    /// Wrapped by the primary key already.
    pub already_current: usize,
    /// Not wrapped anew.
    pub failed: usize,
}

/// What the operator's rotation did, for all tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRotation {
    /// The key that is primary now. The same as before where the keys are configured.
    pub new_key_id: String,
    /// The key that was before.
    pub previous_key_id: String,
    /// Values that were wrapped anew.
    pub rotated: usize,
    /// Values that the new key wrapped already: they were stored meanwhile.
    pub already_current: usize,
    /// Values that could not be wrapped anew, by reason.
    pub failed: BTreeMap<String, usize>,
    /// Keys under which nothing is sealed any more, and which are destroyed.
    pub destroyed_key_ids: Vec<String>,
}

/// The keys of the ring, and what they seal: of one tenant, or of all.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the vault cannot be read.
pub fn report(app: &App, tenant: Option<&TenantId>) -> Result<KeyReport, OperationError> {
    let ring = app.vault.ring();
    let in_ring = |id: MasterKeyId, role: &str| KeyInRing { key_id: id.to_string(), role: role.to_owned() };
    let mut keys = vec![in_ring(ring.primary().id(), "primary")];
    keys.extend(ring.retired().iter().map(|key| in_ring(key.id(), "retired")));
    let mut report = KeyReport { keys, blobs_by_key: BTreeMap::new(), total_blobs: 0, unreadable_blobs: 0 };
    let tenants = tenant.map_or_else(|| app.vault.tenants(), |tenant| Ok(vec![tenant.clone()]))?;
    for tenant in tenants {
        for listed in app.vault.list(&tenant)? {
            report.total_blobs += 1;
            match listed.content {
                Some((_, key_id)) => *report.blobs_by_key.entry(key_id.to_string()).or_default() += 1,
                None => report.unreadable_blobs += 1,
            }
        }
    }
    Ok(report)
}

/// The keys of the ring, and what they seal of the caller's.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the vault cannot be read.
pub async fn keys(app: Arc<App>, caller: Caller) -> Result<KeyReport, OperationError> {
    blocking(move || report(&app, Some(&caller.tenant))).await
}

/// Wraps every value of the caller's under the primary key, one after the other, while others read them; then records it.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the vault cannot be read.
pub async fn rotate(app: Arc<App>, caller: Caller, is_dry_run: bool) -> Result<Rotation, OperationError> {
    to_the_end(async move {
        let (keeper, tenant) = (Arc::clone(&app), caller.tenant.clone());
        let done = blocking(move || rewrap_all(&keeper, &tenant, is_dry_run)).await?;
        if !is_dry_run {
            let command = Command::RecordVaultRotation(RecordVaultRotation { rotation: done.event });
            app.submit(&caller, command, None, vec![]).await?;
        }
        Ok(done.rotation)
    })
    .await
}

struct Done {
    rotation: Rotation,
    event: VaultRotated,
}

fn rewrap_all(app: &App, tenant: &TenantId, is_dry_run: bool) -> Result<Done, OperationError> {
    let ring = app.vault.ring();
    let primary = ring.primary().id();
    let mut rotation = Rotation {
        new_key_id: primary.to_string(),
        previous_key_id: primary.to_string(),
        dry_run: is_dry_run,
        ..Rotation::default()
    };
    let mut from: BTreeMap<MasterKeyId, u64> = BTreeMap::new();
    for listed in app.vault.list(tenant)? {
        let value = named(app, tenant, &listed);
        let outcome = match &listed.content {
            Some((_, key_id)) if *key_id == primary => Ok(None),
            Some((_, key_id)) if is_dry_run && ring.find(*key_id).is_some() => Ok(Some(*key_id)),
            Some((_, key_id)) if is_dry_run => Err(format!("the master key {key_id} is not in the key ring")),
            _ => app.vault.rewrap(tenant, &listed.digest).map_err(|error| error.to_string()),
        };
        match outcome {
            Ok(None) => rotation.already_current.push(value),
            Ok(Some(before)) => {
                *from.entry(before).or_default() += 1;
                rotation.rotated.push(value);
            }
            Err(error) => {
                let RotatedValue { tenant_id, name, .. } = value;
                rotation.failed.push(FailedValue { tenant_id, name, error });
            }
        }
    }
    rotation.summary = RotationSummary {
        rotated: rotation.rotated.len(),
        already_current: rotation.already_current.len(),
        failed: rotation.failed.len(),
    };
    let from = from.into_iter().map(|(key_id, count)| Rewrapped { key_id: key_id.0, count });
    let event = VaultRotated {
        to: primary.0,
        from: from.collect(),
        already_current: rotation.already_current.len() as u64,
        failed: rotation.failed.len() as u64,
    };
    Ok(Done { rotation, event })
}

fn named(app: &App, tenant: &TenantId, listed: &Listed) -> RotatedValue {
    let (name, drawer) = match &listed.content {
        Some((place, _)) => (place.name.clone(), Some(place.drawer)),
        None => (String::new(), None),
    };
    let version = crate::domain::secrets::SecretName::parse(&name).filter(|_| drawer == Some(Drawer::Secret));
    let version = version.and_then(|name| {
        let world = app.ledger.read();
        let secret = world.stream(tenant)?.tenant.secrets.get(&name)?;
        let version = secret.versions.iter().find(|version| version.digest == listed.digest)?;
        Some(version.number)
    });
    let kind = if drawer == Some(Drawer::Webhook) { "webhook" } else { "secret" };
    RotatedValue { tenant_id: tenant.to_string(), name, kind, version }
}

/// Makes a new primary key, wraps everything under it, records that in every stream that has sealed values, and destroys keys
/// under which nothing is sealed any more. Reads go on meanwhile. Where the keys are configured, the primary key stays, and what
/// older keys wrap is wrapped under it.
///
/// # Errors
///
/// [`OperationError::Unavailable`]. It can be done again.
pub async fn rotate_primary(app: Arc<App>) -> Result<OperatorRotation, OperationError> {
    let previous_key_id = app.vault.ring().primary().id().to_string();
    let keeper = Arc::clone(&app);
    let made = blocking(move || match keeper.vault.make_primary() {
        Err(RingError::Configured) => Ok(keeper.vault.ring().primary().id()),
        made => Ok(made?),
    })
    .await?;
    let mut done = OperatorRotation {
        new_key_id: made.to_string(),
        previous_key_id,
        rotated: 0,
        already_current: 0,
        failed: BTreeMap::new(),
        destroyed_key_ids: Vec::new(),
    };
    for tenant in app.vault.tenants()? {
        if app.ledger.read().stream(&tenant).is_none() {
            continue;
        }
        let (keeper, of) = (Arc::clone(&app), tenant.clone());
        let one = blocking(move || rewrap_all(&keeper, &of, false)).await?;
        done.rotated += one.rotation.rotated.len();
        done.already_current += one.rotation.already_current.len();
        for failed in one.rotation.failed {
            *done.failed.entry(failed.error).or_default() += 1;
        }
        let request = Request {
            tenant,
            actor: Actor::Operator,
            request_id: RequestId::issue(app.ledger.random().bytes()),
            idempotency: None,
            command: Command::RecordVaultRotation(RecordVaultRotation { rotation: one.event }),
            side: vec![],
        };
        app.ledger.submit(request).await?;
    }
    let keeper = Arc::clone(&app);
    let gone = blocking(move || match keeper.vault.destroy_unused_keys() {
        Err(RingError::Configured) => Ok(Vec::new()),
        gone => Ok(gone?),
    })
    .await?;
    done.destroyed_key_ids = gone.iter().map(ToString::to_string).collect();
    Ok(done)
}

/// Says of each master key that is missing how many values it seals.
pub fn report_missing_keys(app: &App) {
    match report(app, None) {
        Ok(report) => {
            for (key_id, count) in &report.blobs_by_key {
                if !report.keys.iter().any(|key| key.key_id == *key_id) {
                    tracing::error!(
                        key_id,
                        count,
                        "sealed values cannot be opened: their master key is not configured"
                    );
                }
            }
            if report.unreadable_blobs > 0 {
                tracing::error!(count = report.unreadable_blobs, "files in the vault are damaged");
            }
        }
        Err(error) => tracing::error!(%error, "the vault could not be read"),
    }
}
