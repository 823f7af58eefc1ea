//! Evidence packs: what an auditor asks of a period, answered from the ledger. See contract section 15.
//!
//! A pack stands on the first so many entries of the tenant's stream and says on which: its section `ledger` names their
//! number, the hash of the last of them and the root of the tree over them, and its signatures carry the checkpoint. The
//! entries at the end that only say how often somebody called are left out, so that reading a pack does not change it. Every
//! number is a fold of those entries and of the period, so the same period and the same entries give the same digest, today
//! or in a year (`as_of`).

pub mod markdown;
pub mod numbers;
pub mod runs;
pub mod score;
pub mod sections;

use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::past::Moment;
use super::proofs::{TreeHead, checkpoint_at};
use super::verification::first_bad_seq;
use super::{App, OperationError, blocking};
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use sections::{
    AccessControl, Approvals, AuditTrail, Controls, Encryption, Identity, LedgerStanding, SpendGovernance,
    TamperEvidence, WebhookDeliveries,
};

/// The version of a pack's form.
pub const FORMAT_VERSION: u32 = 1;
/// Days that a pack reaches back when nothing else was asked.
const PERIOD_DAYS_DEFAULT: u64 = 90;
/// What a pack is not.
pub const DISCLAIMER: &str = "Evidence collected by this Haldir server from its own ledger to help prepare an audit. It is not an \
     attestation, certification or opinion, and no auditor has reviewed it.";

/// The time that a pack tells of, in whole seconds; its end does not belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The first moment.
    pub since: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
}

/// An evidence pack.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Evidence {
    /// The version of its form.
    pub format_version: u32,
    /// What it is not.
    pub disclaimer: &'static str,
    /// When it was made.
    pub generated_at: String,
    /// Where its period begins.
    pub period_start: String,
    /// Where its period ends; that moment does not belong to it.
    pub period_end: String,
    /// Whose it is.
    pub tenant_id: String,
    /// Which criteria its sections speak to.
    pub controls: Controls,
    /// Who is told of.
    pub identity: Identity,
    /// Keys and what they may do.
    pub access_control: AccessControl,
    /// How secrets are kept.
    pub encryption: Encryption,
    /// What agents did.
    pub audit_trail: AuditTrail,
    /// How it is shown that nothing was changed.
    pub tamper_evidence: TamperEvidence,
    /// What may be and was spent.
    pub spend_governance: SpendGovernance,
    /// What people decided.
    pub approvals: Approvals,
    /// Who was told.
    pub webhooks: WebhookDeliveries,
    /// What all of this stands on.
    pub ledger: LedgerStanding,
    /// What proves it.
    pub signatures: Signatures,
}

/// The digest of a pack, and the signed checkpoint of what it stands on.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Signatures {
    /// `SHA-256`.
    pub algorithm: &'static str,
    /// What is hashed.
    pub input: &'static str,
    /// The digest, hex.
    pub digest: String,
    /// When it was computed.
    pub signed_at: String,
    /// The C2SP checkpoint of the entries that the pack stands on, signed with Ed25519.
    pub checkpoint: String,
}

/// A pack's digest, and which pack it is of.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceManifest {
    /// Digest and checkpoint.
    pub signatures: Signatures,
    /// Where the pack's period begins.
    pub period_start: String,
    /// Where it ends.
    pub period_end: String,
    /// Whose it is.
    pub tenant_id: String,
}

/// What the digest is over, in words.
const DIGEST_INPUT: &str = "compact JSON of the pack with sorted keys and ASCII escapes, without signatures, generated_at, \
     tamper_evidence.{signed_at,signature,signing_key_source,public_key,key_id} and access_control.keys[].last_used";

impl Period {
    /// The period from `since` to `until`, widened to whole seconds. Until now, and 90 days, unless given.
    ///
    /// # Errors
    ///
    /// [`OperationError::Invalid`] when it would end before it begins.
    pub fn resolve(
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, OperationError> {
        let until = until.unwrap_or(now.next());
        let whole = Timestamp::default().plus_seconds(until.seconds());
        let until = if whole < until { whole.plus_seconds(1) } else { whole };
        let since = match since {
            Some(since) => Timestamp::default().plus_seconds(since.seconds()),
            None => until.minus_seconds(PERIOD_DAYS_DEFAULT * 86_400),
        };
        if since > until {
            return Err(OperationError::invalid("since", "expected a time that is not after until"));
        }
        Ok(Self { since, until })
    }

    /// How long it is.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.until.seconds().saturating_sub(self.since.seconds())
    }
}

impl Evidence {
    /// The pack as JSON.
    ///
    /// # Errors
    ///
    /// [`OperationError::Internal`] for what has no form in JSON, which nothing here is.
    pub fn json(&self) -> Result<Value, OperationError> {
        serde_json::to_value(self).map_err(|error| OperationError::Internal(error.to_string()))
    }

    /// Its digest and what it is of.
    #[must_use]
    pub fn manifest(&self) -> EvidenceManifest {
        EvidenceManifest {
            signatures: self.signatures.clone(),
            period_start: self.period_start.clone(),
            period_end: self.period_end.clone(),
            tenant_id: self.tenant_id.clone(),
        }
    }
}

/// Builds the pack of a period from a tenant's state at a moment.
///
/// # Errors
///
/// [`OperationError::Busy`] when the views are behind, [`OperationError::Unavailable`] when the ledger cannot be read.
pub async fn evidence(
    app: &Arc<App>,
    tenant: &TenantId,
    period: Period,
    moment: &Moment,
) -> Result<Evidence, OperationError> {
    let stream = &moment.stream;
    let size = stream.head.size.saturating_sub(stream.tenant.usage.readings_at_the_end()).max(1);
    app.views.wait_for(tenant, stream.head.size).await?;
    let checkpoint = checkpoint_at(app, tenant, size).await?;
    let (app, tenant, moment) = (Arc::clone(app), tenant.clone(), moment.clone());
    blocking(move || {
        let is_chain_sound = first_bad_seq(&app, &tenant)?.is_none_or(|seq| seq >= size);
        let source = sections::Source { app: &app, tenant: &tenant, moment: &moment, period, size };
        let generated_at = iso(app.ledger.clock().now());
        let mut pack = Evidence {
            format_version: FORMAT_VERSION,
            disclaimer: DISCLAIMER,
            generated_at: generated_at.clone(),
            period_start: iso(period.since),
            period_end: iso(period.until),
            tenant_id: tenant.to_string(),
            controls: Controls::default(),
            identity: source.identity(),
            access_control: source.access_control(),
            encryption: source.encryption(),
            audit_trail: source.audit_trail(is_chain_sound)?,
            tamper_evidence: TamperEvidence::of(TreeHead::of(&tenant, &checkpoint)),
            spend_governance: source.spend_governance()?,
            approvals: source.approvals(),
            webhooks: WebhookDeliveries::of(source.registered_endpoints(), source.attempts()?),
            ledger: source.ledger(&checkpoint)?,
            signatures: Signatures {
                algorithm: "SHA-256",
                input: DIGEST_INPUT,
                digest: String::new(),
                signed_at: generated_at,
                checkpoint: checkpoint.note,
            },
        };
        pack.signatures.digest = HEXLOWER.encode(&numbers::digest_of(&pack.json()?));
        Ok(pack)
    })
    .await
}

/// A moment to the second, as packs have it: `2026-11-21T08:02:08+00:00`.
#[must_use]
pub fn iso(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}+00:00", text.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_widened_to_whole_seconds_and_reaches_back_ninety_days() {
        let at = Timestamp::from_micros;
        let period = |since, until, now| Period::resolve(since, until, now).map(|it| (it.since, it.until));
        let now = at(9_000_000_000_000_001);
        let until = 9_000_000_001_000_000;
        assert_eq!(period(None, None, now).unwrap(), (at(until - 90 * 86_400_000_000), at(until)));
        // What happened at this very moment belongs to it.
        assert_eq!(period(None, None, at(2_000_000)).unwrap(), (at(0), at(3_000_000)));
        let exact = period(Some(at(1_500_000)), Some(at(2_000_000)), now);
        assert_eq!(exact.unwrap(), (at(1_000_000), at(2_000_000)));
        assert_eq!(period(Some(at(5)), Some(at(7)), now).unwrap(), (at(0), at(1_000_000)));
        assert_eq!(period(Some(at(1)), Some(at(0)), now).unwrap(), (at(0), at(0)));
        assert!(period(Some(at(2_000_000)), Some(at(1_000_000)), now).is_err());
        assert_eq!(iso(at(1_700_000_000_999_999)), "2023-11-14T22:13:20+00:00");
    }
}
