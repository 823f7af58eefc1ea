//! One function per product operation: a request becomes a command, its receipt a response.
//!
//! HTTP, and whatever else speaks to clients, calls these and nothing below them. [`App`] is what they work on.

pub mod anomalies;
pub mod approval_links;
pub mod approvals;
pub mod audit;
pub mod audit_export;
pub mod audit_rows;
pub mod backup;
pub mod budgets;
pub mod call_facts;
pub mod calls;
pub mod catalogue;
pub mod compliance;
pub mod decoded;
pub mod deliveries;
pub mod delivery_log;
pub mod event_ids;
pub mod events;
pub mod evidence;
pub mod export;
pub mod forwarding;
pub mod health;
pub mod keys;
pub mod limits;
pub mod notifications;
pub mod ocsf;
pub mod open_calls;
pub mod past;
pub mod payments;
pub mod policies;
pub mod policy_json;
pub mod policy_replay;
pub mod proofs;
pub mod reaching;
pub mod redaction;
pub mod retries;
pub mod schedules;
pub mod secrets;
pub mod sessions;
pub mod state;
pub mod timers;
pub mod upstreams;
pub mod usage;
pub mod vault;
pub mod verification;
pub mod webhook_signing;
pub mod webhooks;
pub mod wire;

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::domain::id::{Actor, KeyPrefix, RequestId, TenantId};
use crate::domain::limits::{ANOMALY_RULE_COUNT_MAX, WEBHOOK_COUNT_MAX};
use crate::domain::scope::KeyScopes;
use crate::domain::{Command, Refusal, Tenant};
use crate::format::certificate::KeyCertificate;
use crate::format::chain::PublicKey;
use crate::ledger::handle::LedgerHandle;
use crate::ledger::past::PastError;
use crate::ledger::world::Stream;
use crate::ledger::{Committed, LedgerError, Receipt, Request};
use crate::outbound::client::Client;
use crate::outbound::guard::Unsafe;
use crate::proxy::upstreams::Upstreams;
use crate::store::{SideRow, StoreError};
use crate::vault::{RingError, Vault, VaultError};
use crate::views::follower::{ViewError, Views};

use deliveries::Pauses;
use limits::{Limits, Windows};
use retries::{Retry, RetrySecret};
use usage::Meter;
use verification::Scrubbed;

/// What the operations work on.
pub struct App {
    /// The ledger.
    pub ledger: LedgerHandle,
    /// The read models behind it.
    pub views: Views,
    /// Sealed values.
    pub vault: Vault,
    /// The way out to webhooks.
    pub outbound: Client,
    /// The connections to upstream MCP servers.
    pub upstreams: Upstreams,
    /// Whether upstreams answer.
    pub upstream_health: upstreams::UpstreamHealth,
    /// Calls that are on their way.
    pub on_their_way: open_calls::OnTheirWay,
    /// Patterns of rules about arguments.
    pub patterns: call_facts::Patterns,
    /// How long to wait after failed deliveries.
    pub pauses: Pauses,
    /// Calls that are not recorded yet.
    pub meter: Meter,
    /// Calls per key in the current hour.
    pub windows: Windows,
    /// What tenants may use.
    pub limits: Limits,
    /// The secret under which idempotency keys are digested.
    pub retry_secret: RetrySecret,
    /// Keys that signed before the one that signs now, oldest first.
    pub former_keys: Vec<PublicKey>,
    /// Root keys' certificates of signing keys.
    pub certificates: Vec<KeyCertificate>,
    /// What was verified in the background.
    pub scrubbed: Scrubbed,
    /// Becomes true when the server is told to stop, so that answers without an end come to one.
    pub is_stopping: watch::Sender<bool>,
    /// How people and programs reach this server, once it listens.
    pub public_url: OnceLock<String>,
    /// SHA-256 of the token that founds tenants, if one is configured.
    pub bootstrap_token_hash: Option<[u8; 32]>,
}

/// The plan that every tenant of a self-hosted installation has.
pub const TIER: &str = "enterprise";

/// Who calls: an API key in good standing.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The key's tenant.
    pub tenant: TenantId,
    /// The key's handle.
    pub prefix: KeyPrefix,
    /// What the key may do.
    pub scopes: KeyScopes,
    /// The request in which it calls.
    pub request_id: RequestId,
}

/// Why an operation was not carried out, sorted by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// A field of the request is missing or wrong.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: String,
        /// What was expected.
        reason: String,
    },
    /// A query parameter is missing or not what it should be.
    #[error("{field}: {reason}")]
    InvalidArgument {
        /// The parameter.
        field: &'static str,
        /// What was expected.
        reason: String,
    },
    /// Two sizes of the tree between which there is no proof.
    #[error("expected 1 <= first <= second <= {size}")]
    RangeInvalid {
        /// The earlier size that was asked for.
        first: u64,
        /// The later size that was asked for.
        second: u64,
        /// The size of the tree.
        size: u64,
    },
    /// There is no such entry.
    #[error("entry not found")]
    EntryUnknown {
        /// As it was asked for.
        entry_id: String,
    },
    /// A list of key scopes is not in the vocabulary.
    #[error("{0}")]
    InvalidScope(String),
    /// Something is asked for in a format that there is not.
    #[error("format: expected {expected}")]
    InvalidFormat {
        /// What there is.
        expected: &'static str,
        /// What was asked for.
        got: String,
    },
    /// A schedule that cannot be kept.
    #[error("{0}")]
    InvalidSchedule(String),
    /// A URL leads to where Haldir must not go.
    #[error("{0}")]
    UnsafeUrl(Unsafe),
    /// A key prefix is longer than any.
    #[error("a key prefix has at most 64 characters")]
    InvalidPrefix,
    /// No key, or one that is not active.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The key may not do that.
    #[error("the API key lacks the scope {required}")]
    InsufficientScope {
        /// What it would need.
        required: String,
        /// What it has.
        granted: Vec<String>,
    },
    /// The session that should act does not exist or has ended.
    #[error("invalid, revoked or expired session")]
    SessionDead,
    /// The session does not hold the scope that a secret was stored with.
    #[error("the session does not hold the scope {required:?} that this secret needs")]
    SessionScopeMissing {
        /// That scope.
        required: String,
    },
    /// What was asked for does not exist for this tenant.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The idempotency key was used with another request.
    #[error("this Idempotency-Key was used before with a different request body")]
    RetryMismatch,
    /// What is asked for cannot be done to what it is asked of. The same request gets the same answer.
    #[error("{reason}")]
    Illegal {
        /// Why, for programs.
        code: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// Somebody else was first, or there is as much of it as may be.
    #[error("{reason}")]
    Conflict {
        /// Why, for programs.
        code: &'static str,
        /// Why.
        reason: String,
    },
    /// As many agents hold live sessions as may.
    #[error("agent limit reached: {current} of {limit} agents hold live sessions")]
    AgentLimit {
        /// How many may.
        limit: u64,
        /// How many do.
        current: u64,
    },
    /// Too much at once. Try again.
    #[error("the server is busy; try again")]
    Busy,
    /// There is no room on the disk. Try again when there is.
    #[error("the disk is full: nothing can be recorded")]
    Full,
    /// The ledger does not accept writes, or cannot be read.
    #[error("the ledger is not available: {0}")]
    Unavailable(String),
    /// A sealed value does not open.
    #[error("the secret cannot be opened: {0}")]
    Sealed(String),
    /// Something that cannot happen did.
    #[error("internal error")]
    Internal(String),
}

impl OperationError {
    /// A field that is missing or wrong.
    #[must_use]
    pub fn invalid(field: &str, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.to_owned(), reason: reason.into() }
    }

    fn conflict(code: &'static str, refusal: &Refusal) -> Self {
        Self::Conflict { code, reason: refusal.to_string() }
    }

    /// An outcome that the command cannot have.
    fn unexpected(receipt: &Receipt) -> Self {
        Self::Internal(format!("unexpected outcome: {:?}", receipt.events))
    }
}

impl From<LedgerError> for OperationError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Refused(refusal) => match refusal {
                Refusal::ActorInactive => Self::Unauthenticated("the API key is not active"),
                Refusal::NotFirstCaller => {
                    Self::Unauthenticated("an API key or the bootstrap token is required")
                }
                Refusal::IdempotencyMismatch => Self::RetryMismatch,
                Refusal::KeyPrefixTaken
                | Refusal::SessionIdTaken
                | Refusal::SecretMoved
                | Refusal::AuthorizationIdTaken
                | Refusal::ApprovalIdTaken
                | Refusal::ScheduleIdTaken
                | Refusal::CallStale
                | Refusal::CallIdTaken => Self::Busy,
                Refusal::ParentUnknown => Self::invalid("parent_session_id", "expected a live session"),
                Refusal::SessionEnded => Self::SessionDead,
                Refusal::ReservationNotOpen => Self::NotFound("open reservation"),
                Refusal::RuleUnknown => Self::NotFound("rule"),
                Refusal::ApprovalUnknown => Self::NotFound("approval request"),
                Refusal::ApprovalExpired => {
                    Self::Illegal { code: "approval_expired", reason: "the request has expired" }
                }
                Refusal::ApprovalWidened => Self::invalid("amount", "expected at most what was asked for"),
                Refusal::ApprovalDecided => Self::conflict("already_decided", &refusal),
                Refusal::DeciderRepeated => Self::conflict("already_approved", &refusal),
                Refusal::TooManyReservations
                | Refusal::TooManyRules
                | Refusal::TooManyPending
                | Refusal::TooManyUpstreams
                | Refusal::TooManyPolicies
                | Refusal::TooManyCalls => Self::conflict("limit_reached", &refusal),
                Refusal::UpstreamUnknown => Self::NotFound("upstream"),
                Refusal::ToolUnknown => Self::NotFound("tool"),
                Refusal::ToolMoved => Self::conflict("tool_moved", &refusal),
                Refusal::PolicyUnknown => Self::NotFound("policy"),
                Refusal::PoliciesMoved => Self::conflict("policies_moved", &refusal),
                Refusal::CallUnknown => Self::NotFound("open call"),
                Refusal::KeyUnknown => Self::NotFound("active key with this prefix"),
                Refusal::SessionUnknown => Self::NotFound("session"),
                Refusal::SecretUnknown => Self::NotFound("secret"),
                Refusal::WebhookUnknown => Self::NotFound("webhook"),
                Refusal::DeliveryUnknown => Self::NotFound("dead letter"),
                Refusal::WebhooksTooMany => {
                    Self::invalid("url", format!("expected at most {WEBHOOK_COUNT_MAX} webhooks"))
                }
                Refusal::ScheduleCountExceeded => Self::InvalidSchedule(refusal.to_string()),
                Refusal::ScheduleUnknown => Self::NotFound("schedule"),
                Refusal::OperatorOnly
                | Refusal::SignerUnchanged
                | Refusal::NotDue
                | Refusal::SystemOnly
                | Refusal::ScheduleNotDue
                | Refusal::DeliveryMistaken => Self::Internal(refusal.to_string()),
                Refusal::AnomalyRuleCountExceeded => {
                    Self::invalid("rule", format!("{refusal}: {ANOMALY_RULE_COUNT_MAX}; remove one first"))
                }
                Refusal::AnomalyRuleUnknown => Self::NotFound("anomaly rule"),
                Refusal::SumTooLarge => Self::invalid("amount", refusal.to_string()),
            },
            LedgerError::Busy => Self::Busy,
            LedgerError::Full(_) => Self::Full,
            LedgerError::Unknown => Self::NotFound("stream"),
            LedgerError::Poisoned | LedgerError::Closed => Self::Unavailable(error.to_string()),
            LedgerError::Unreadable(why) => Self::Unavailable(why),
            LedgerError::TooLarge => Self::Internal(error.to_string()),
        }
    }
}

impl From<ViewError> for OperationError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Behind => Self::Busy,
            ViewError::Store(error) => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<StoreError> for OperationError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<VaultError> for OperationError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(StoreError::Full(_)) => Self::Full,
            VaultError::Store(error) => Self::from(error),
            VaultError::Missing | VaultError::KeyMissing(_) | VaultError::Damaged => {
                Self::Sealed(error.to_string())
            }
            VaultError::NameTooLong => Self::invalid("name", error.to_string()),
        }
    }
}

impl From<RingError> for OperationError {
    fn from(error: RingError) -> Self {
        match error {
            RingError::Configured => Self::invalid("encryption-key", error.to_string()),
            RingError::Failed(why) => Self::Unavailable(why),
        }
    }
}

impl From<PastError> for OperationError {
    fn from(error: PastError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl App {
    /// Keys that sign or signed this ledger, the current one last.
    #[must_use]
    pub fn keys(&self) -> Vec<PublicKey> {
        let current = self.ledger.public_key();
        self.former_keys.iter().copied().chain([current]).collect()
    }

    /// Reads a tenant's stream as it is durable.
    fn with_stream<T>(
        &self,
        tenant: &TenantId,
        read: impl FnOnce(&Stream) -> T,
    ) -> Result<T, OperationError> {
        let world = self.ledger.read();
        world.stream(tenant).map(|stream| read(stream)).ok_or(OperationError::NotFound("tenant"))
    }

    /// The active key with this text.
    #[must_use]
    pub fn authenticate(&self, key: &str, request_id: &RequestId) -> Option<Caller> {
        let world = self.ledger.read();
        let (tenant, prefix, found) = world.active_key(&keys::hash_of(key))?;
        Some(Caller {
            tenant: tenant.clone(),
            prefix: prefix.clone(),
            scopes: found.scopes.clone(),
            request_id: request_id.clone(),
        })
    }

    /// Reads a tenant's durable state.
    ///
    /// # Errors
    ///
    /// [`OperationError::NotFound`] for a tenant without a stream.
    pub fn with_tenant<T>(
        &self,
        tenant: &TenantId,
        read: impl FnOnce(&Tenant) -> T,
    ) -> Result<T, OperationError> {
        let world = self.ledger.read();
        let stream = world.stream(tenant).ok_or(OperationError::NotFound("tenant"))?;
        Ok(read(&stream.tenant))
    }

    /// Submits a command of a caller's.
    async fn submit(
        &self,
        caller: &Caller,
        command: Command,
        retry: Option<&Retry>,
        side: Vec<SideRow>,
    ) -> Result<Receipt, OperationError> {
        Ok(self.ledger.submit(request_of(caller, command, retry, side)).await?)
    }

    /// Waits until the views show everything that is durable now, so that callers read their own writes.
    async fn views_caught_up(&self, tenant: &TenantId) -> Result<(), OperationError> {
        let size = self.ledger.read().stream(tenant).map_or(0, |stream| stream.head.size);
        Ok(self.views.wait_for(tenant, size).await?)
    }
}

/// A command of a caller's on its way to the ledger.
fn request_of(caller: &Caller, command: Command, retry: Option<&Retry>, side: Vec<SideRow>) -> Request {
    Request {
        tenant: caller.tenant.clone(),
        actor: Actor::Key(caller.prefix.clone()),
        request_id: caller.request_id.clone(),
        idempotency: retry.map(|retry| retry.idempotency.clone()),
        command,
        side,
    }
}

/// Carries something out to its end, even if whoever asked does not wait for it.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, OperationError>> + Send + 'static,
) -> Result<T, OperationError> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(OperationError::Internal(error.to_string())))
}

/// The single event of a command that has one.
fn only_event(receipt: &Receipt) -> Result<&Arc<Committed>, OperationError> {
    receipt.events.first().ok_or_else(|| OperationError::unexpected(receipt))
}

/// Runs work that blocks on the disk off the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OperationError> + Send + 'static,
) -> Result<T, OperationError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(OperationError::Internal(error.to_string())))
}
