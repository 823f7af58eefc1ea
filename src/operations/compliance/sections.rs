//! The sections of an evidence pack, each with where its numbers come from.

use serde::Serialize;
use utoipa::ToSchema;

use super::numbers::Rounded;
use super::{Period, iso};
use crate::domain::Event;
use crate::domain::approvals::Status;
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::format::entry;
use crate::ledger::checkpoints::KeptCheckpoint;
use crate::ledger::past::size_at;
use crate::operations::past::Moment;
use crate::operations::proofs::TreeHead;
use crate::operations::{App, OperationError, TIER};
use crate::store::StoreError;
use crate::views::audit::Filter;
use crate::views::sparse::Series;

/// What sections are read from.
pub(super) struct Source<'a> {
    pub(super) app: &'a App,
    pub(super) tenant: &'a TenantId,
    pub(super) moment: &'a Moment,
    pub(super) period: Period,
    /// Entries of the stream that count.
    pub(super) size: u64,
}

/// Which criterion a section speaks to, and why.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Control {
    /// A criterion of SOC 2's trust services criteria.
    pub criterion: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// What this server does for it.
    pub evidence: &'static str,
}

/// The criteria of all sections.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Controls {
    /// Of `access_control`.
    pub access_control: Control,
    /// Of `encryption`.
    pub encryption: Control,
    /// Of `audit_trail` and `tamper_evidence`.
    pub audit_trail: Control,
    /// Of `spend_governance`.
    pub spend_governance: Control,
    /// Of `approvals`.
    pub approvals: Control,
    /// Of `webhooks`.
    pub webhooks: Control,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            access_control: Control {
                criterion: "CC6.1",
                title: "Logical access",
                evidence: "Every call needs an API key, kept only as its SHA-256, that holds the scope the operation needs. \
                           Minting, revoking and every denied access are events of the ledger.",
            },
            encryption: Control {
                criterion: "CC6.7",
                title: "Protection of secrets",
                evidence: "Each secret is encrypted with AES-256-GCM-SIV under a random key of its own, which is wrapped by a \
                           master key and bound to the tenant and the secret's name. A ciphertext does not open anywhere else.",
            },
            audit_trail: Control {
                criterion: "CC7.2",
                title: "Monitoring",
                evidence: "Every operation is an event of an append-only stream; each entry is chained to the one before it by \
                           BLAKE3, signed with Ed25519, and a leaf of an RFC 6962 Merkle tree.",
            },
            spend_governance: Control {
                criterion: "CC5.2",
                title: "Control of spending",
                evidence: "A session's payments are decided one after the other against its cap, exactly, before anything is \
                           answered. Denied payments are on record with their reason.",
            },
            approvals: Control {
                criterion: "CC8.1",
                title: "Authorisation of changes",
                evidence: "What the tenant's rules hold back waits for a person's decision. Request and decision are events of \
                           the ledger.",
            },
            webhooks: Control {
                criterion: "CC7.3",
                title: "Evaluation of events",
                evidence: "Events are sent to the tenant's endpoints, signed with HMAC-SHA256 over time and body. Every attempt \
                           and its outcome is on record.",
            },
        }
    }
}

/// Who is told of, and how long.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Identity {
    /// The tenant.
    pub tenant_id: String,
    /// Its plan.
    pub subscription: Subscription,
    /// The length of the period in days.
    pub period_days: Rounded,
}

/// A plan.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Subscription {
    /// Its name.
    pub tier: &'static str,
    /// `n/a`: this installation has no billing.
    pub status: &'static str,
}

/// Keys and what they may do. From `key.minted`, `key.revoked` and `usage.metered`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AccessControl {
    /// Keys ever minted.
    pub key_count: u64,
    /// Whether some key may not do everything.
    pub has_scoped_keys: bool,
    /// The same for those that still work.
    pub least_privilege_used: bool,
    /// All of them, newest first, revoked ones included.
    pub keys: Vec<EvidenceKey>,
}

/// An API key.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EvidenceKey {
    /// Its handle.
    pub prefix: String,
    /// Its name; `(unnamed)` without one.
    pub name: String,
    /// The tenant's plan.
    pub tier: &'static str,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was minted.
    pub created_at: String,
    /// When it was last used.
    pub last_used: Option<String>,
    /// Whether it no longer works.
    pub revoked: bool,
}

/// How secrets are kept: a property of the program, not of the period.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Encryption {
    /// The cipher.
    pub cipher: &'static str,
    /// Bits of its key.
    pub key_size_bits: u32,
    /// Bits of its nonce.
    pub nonce_size_bits: u32,
    /// Bits of its tag.
    pub tag_size_bits: u32,
    /// What is authenticated together with a secret.
    pub aad_binding: &'static str,
    /// Whether there is a master key.
    pub key_configured: bool,
    /// How the master key is replaced.
    pub rotation_policy: &'static str,
    /// Whether a ciphertext could be used in another place.
    pub ciphertext_portable: bool,
    /// Secrets that are kept now. From `secret.stored` and `secret.deleted`.
    pub secrets_count: u64,
}

/// What agents did. From `action.logged`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditTrail {
    /// Actions logged in the period.
    pub total_entries_in_period: u64,
    /// Those of them that were flagged.
    pub flagged_in_period: u64,
    /// When the first action of all was logged.
    pub first_recorded: Option<String>,
    /// When the last was.
    pub last_recorded: Option<String>,
    /// The last action's `entry_hash`; empty when there is none.
    pub current_chain_hash: String,
    /// How entries are chained.
    pub chain_algorithm: &'static str,
    /// Whether chain, signatures and decisions of all entries that count were verified and are sound.
    pub chain_verified: bool,
}

/// The signed tree head of the entries that count.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TamperEvidence {
    /// How the tree hashes.
    pub algorithm: &'static str,
    /// How its head is signed.
    pub signature_algorithm: &'static str,
    /// Whether it is checked with a public key.
    pub asymmetric_signing: bool,
    /// Leaves: entries of every kind.
    pub tree_size: u64,
    /// Root of the tree.
    pub root_hash: String,
    /// When it was signed, in seconds since the epoch.
    pub signed_at: u64,
    /// The signature, hex.
    pub signature: String,
    /// Where the key comes from.
    pub signing_key_source: &'static str,
    /// The key's name.
    pub key_id: String,
    /// The public key, hex.
    pub public_key: String,
    /// Where public keys are published.
    pub jwks_endpoint: &'static str,
    /// Where an entry's proof is found.
    pub inclusion_proof_endpoint: &'static str,
    /// Where the proof is found that one tree is the beginning of another.
    pub consistency_proof_endpoint: &'static str,
}

/// What may be and was spent. From `action.logged` of the period, and from `session.opened`, `payment.authorized`
/// and `payment.settled` of all time.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SpendGovernance {
    /// What the actions of the period cost, rounded to cents.
    pub total_spend_usd_in_period: Rounded,
    /// The same, exactly.
    pub total_spend_usd_in_period_exact: String,
    /// Sessions with a limit.
    pub sessions_with_spend_caps: u64,
    /// Sessions ever opened.
    pub sessions_total: u64,
    /// Of all sessions, those with a limit; 0 without sessions.
    pub pct_sessions_capped: Rounded,
    /// Payments ever authorised, and reservations settled.
    pub payment_authorizations_count: u64,
    /// What they come to, rounded to cents.
    pub payment_authorizations_usd: Rounded,
    /// The same, exactly.
    pub payment_authorizations_usd_exact: String,
}

/// What people decided. From `approval.requested`, `approval.granted`, `approval.denied` and `approval.expired`.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Approvals {
    /// Requests made in the period.
    pub requests_in_period: u64,
    /// How they stand. One whose time was over when the period ended counts as expired.
    pub by_status: ApprovalStatuses,
    /// Those that somebody decided.
    pub decisions_recorded: u64,
}

/// How requests for approval stand.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct ApprovalStatuses {
    /// Nobody decided yet.
    pub pending: u64,
    /// Allowed.
    pub approved: u64,
    /// Not allowed.
    pub denied: u64,
    /// Nobody decided in time.
    pub expired: u64,
}

/// Who was told. From `webhook.registered`, `webhook.removed` and `webhook.attempted`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WebhookDeliveries {
    /// Endpoints that are registered.
    pub registered_endpoints: u64,
    /// Attempts in the period.
    pub deliveries_in_period: u64,
    /// Those of them that were answered well.
    pub successful_deliveries: u64,
    /// Their share; 1 without attempts.
    pub delivery_success_rate: Rounded,
    /// Whether payloads are signed.
    pub signed_payloads: bool,
    /// How.
    pub signature_algorithm: &'static str,
    /// Seconds for which a receiver should accept a signature.
    pub replay_protection_window_s: u32,
}

/// What a pack stands on: the first entries of the tenant's stream.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LedgerStanding {
    /// How many. Every number of the pack is a fold of them: `as_of=seq:<size - 1>` gives the same pack again.
    pub size: u64,
    /// Hash of the last of them.
    pub head: String,
    /// Root of the tree over them.
    pub root: String,
    /// How many of them, of every kind, lie in the period.
    pub entries_in_period: u64,
    /// The seq of the first that does.
    pub first_seq: Option<u64>,
    /// The seq of the last that does.
    pub last_seq: Option<u64>,
}

impl Encryption {
    pub(super) const fn of(secrets_count: u64) -> Self {
        Self {
            cipher: "AES-256-GCM-SIV",
            key_size_bits: 256,
            nonce_size_bits: 96,
            tag_size_bits: 128,
            aad_binding: "tenant_id || drawer || secret_name; the data key also to the digest of the ciphertext",
            key_configured: true,
            rotation_policy: "a random key for each secret, wrapped by the primary master key; the operator adds a new \
                              primary, and wrapped keys are rewrapped without downtime",
            ciphertext_portable: false,
            secrets_count,
        }
    }
}

/// Attempts to deliver an event to a webhook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    pub(super) all: u64,
    /// Those that were answered well.
    pub(super) successful: u64,
}

impl WebhookDeliveries {
    pub(super) fn of(registered_endpoints: u64, attempts: Attempts) -> Self {
        Self {
            registered_endpoints,
            deliveries_in_period: attempts.all,
            successful_deliveries: attempts.successful,
            delivery_success_rate: Rounded::ratio(attempts.successful, attempts.all),
            signed_payloads: true,
            signature_algorithm: "HMAC-SHA256",
            replay_protection_window_s: 300,
        }
    }
}

impl TamperEvidence {
    pub(super) fn of(head: TreeHead) -> Self {
        Self {
            algorithm: "RFC6962-SHA256",
            signature_algorithm: head.algorithm,
            asymmetric_signing: true,
            tree_size: head.tree_size,
            root_hash: head.root_hash,
            signed_at: head.signed_at,
            signature: head.signature,
            signing_key_source: head.signing_key_source,
            key_id: head.key_id,
            public_key: head.public_key,
            jwks_endpoint: "/.well-known/jwks.json",
            inclusion_proof_endpoint: "/v1/audit/inclusion-proof/<entry_id>",
            consistency_proof_endpoint: "/v1/audit/consistency-proof?first=N&second=M",
        }
    }
}

impl Source<'_> {
    pub(super) fn identity(&self) -> Identity {
        Identity {
            tenant_id: self.tenant.to_string(),
            subscription: Subscription { tier: TIER, status: "n/a" },
            period_days: Rounded::days(self.period.seconds()),
        }
    }

    pub(super) fn access_control(&self) -> AccessControl {
        let keys = self.moment.stream.tenant.keys.newest_first();
        let is_scoped = |scopes: &[String]| scopes != ["*"];
        AccessControl {
            key_count: keys.len() as u64,
            has_scoped_keys: keys.iter().any(|(_, key)| is_scoped(key.scopes.as_slice())),
            least_privilege_used: keys
                .iter()
                .any(|(_, key)| !key.is_revoked && is_scoped(key.scopes.as_slice())),
            keys: keys
                .into_iter()
                .map(|(prefix, key)| EvidenceKey {
                    prefix: prefix.to_string(),
                    name: if key.name.is_empty() { "(unnamed)".to_owned() } else { key.name.clone() },
                    tier: TIER,
                    scopes: key.scopes.as_slice().to_vec(),
                    created_at: iso(key.created_at),
                    last_used: key.last_used.map(iso),
                    revoked: key.is_revoked,
                })
                .collect(),
        }
    }

    pub(super) fn encryption(&self) -> Encryption {
        Encryption::of(self.moment.stream.tenant.secrets.all().count() as u64)
    }

    pub(super) fn audit_trail(&self, is_chain_sound: bool) -> Result<AuditTrail, OperationError> {
        let logged = self.moment.stream.tenant.audit.logged;
        let window = self.window()?;
        let at = |ordinal: u64| -> Result<_, OperationError> {
            let page = self.app.views.page(self.tenant, &Filter::default(), ordinal..ordinal + 1, 1)?;
            Ok(page.actions.into_iter().next())
        };
        let (first, last) = if logged == 0 { (None, None) } else { (at(0)?, at(logged - 1)?) };
        Ok(AuditTrail {
            total_entries_in_period: window.end - window.start,
            flagged_in_period: self.app.views.totals(self.tenant, &window)?.flagged,
            first_recorded: first.map(|found| iso(found.recorded.at)),
            last_recorded: last.as_ref().map(|found| iso(found.recorded.at)),
            current_chain_hash: last.map(|found| found.hash.to_string()).unwrap_or_default(),
            chain_algorithm: "BLAKE3 over canonical entries, each entry signed with Ed25519 (ledger-format.md)",
            chain_verified: is_chain_sound,
        })
    }

    pub(super) fn spend_governance(&self) -> Result<SpendGovernance, OperationError> {
        let tenant = &self.moment.stream.tenant;
        let spent = self.app.views.totals(self.tenant, &self.window()?)?.cost;
        let (mut sessions_total, mut sessions_with_spend_caps) = (0, 0);
        for (_, session) in tenant.sessions.newest_first() {
            sessions_total += 1;
            sessions_with_spend_caps += u64::from(session.budget.cap.is_some());
        }
        let paid = &tenant.payments;
        Ok(SpendGovernance {
            total_spend_usd_in_period: Rounded::cents(spent),
            total_spend_usd_in_period_exact: spent.to_string(),
            sessions_with_spend_caps,
            sessions_total,
            pct_sessions_capped: Rounded::share(sessions_with_spend_caps, sessions_total),
            payment_authorizations_count: paid.authorized,
            payment_authorizations_usd: Rounded::cents(paid.total),
            payment_authorizations_usd_exact: paid.total.to_string(),
        })
    }

    pub(super) fn approvals(&self) -> Approvals {
        let mut section = Approvals::default();
        let Period { since, until } = self.period;
        for (_, approval) in self.moment.stream.tenant.approvals.all() {
            if approval.created_at < since || approval.created_at >= until {
                continue;
            }
            section.requests_in_period += 1;
            let statuses = &mut section.by_status;
            match &approval.status {
                Status::Pending if approval.has_expired(until) => statuses.expired += 1,
                Status::Pending => statuses.pending += 1,
                Status::Approved => statuses.approved += 1,
                Status::Denied { .. } => statuses.denied += 1,
                Status::Expired => statuses.expired += 1,
            }
        }
        section.decisions_recorded = section.by_status.approved + section.by_status.denied;
        section
    }

    pub(super) fn registered_endpoints(&self) -> u64 {
        self.moment.stream.tenant.webhooks.live_count() as u64
    }

    /// What was tried in the period, newest first; what came after it is passed over.
    pub(super) fn attempts(&self) -> Result<Attempts, OperationError> {
        let mut attempts = Attempts::default();
        for recorded in self.app.views.newest_first(self.tenant, Series::Deliveries, None) {
            let recorded = recorded?;
            if recorded.at < self.period.since {
                break;
            }
            let Event::WebhookAttempted(attempted) = &recorded.event else { continue };
            if recorded.seq < self.size && recorded.at < self.period.until {
                attempts.all += 1;
                attempts.successful += u64::from(attempted.outcome.is_delivered());
            }
        }
        Ok(attempts)
    }

    /// Requests for approval of all time that somebody decided.
    pub(super) fn approvals_ever_decided(&self) -> u64 {
        let all = self.moment.stream.tenant.approvals.all();
        all.filter(|(_, it)| matches!(it.status, Status::Approved | Status::Denied { .. })).count() as u64
    }

    pub(super) fn actions_in_period(&self) -> Result<u64, OperationError> {
        let window = self.window()?;
        Ok(window.end - window.start)
    }

    pub(super) fn ledger(&self, checkpoint: &KeptCheckpoint) -> Result<LedgerStanding, OperationError> {
        let store = &**self.app.ledger.store();
        let before = |moment: Timestamp| match moment.micros().checked_sub(1) {
            Some(micros) => size_at(store, self.tenant, self.size, Timestamp::from_micros(micros)),
            None => Ok(0),
        };
        let (first, end) = (before(self.period.since)?, before(self.period.until)?);
        let last = store.read(self.tenant, self.size - 1, 1)?;
        let missing = || StoreError::Damaged(format!("entry {} is missing", self.size - 1));
        let last = last.first().ok_or_else(missing)?;
        let head = entry::open(last).map_err(|error| StoreError::Damaged(error.to_string()))?.hash;
        Ok(LedgerStanding {
            size: self.size,
            head: head.to_string(),
            root: checkpoint.root.to_string(),
            entries_in_period: end - first,
            first_seq: (first < end).then_some(first),
            last_seq: (first < end).then(|| end - 1),
        })
    }

    /// The ordinals of the actions that were logged in the period, of those that count.
    fn window(&self) -> Result<std::ops::Range<u64>, OperationError> {
        let logged = self.moment.stream.tenant.audit.logged;
        let window = self.app.views.window(self.tenant, Some(self.period.since), Some(self.period.until))?;
        let end = window.end.min(logged);
        Ok(window.start.min(end)..end)
    }
}
