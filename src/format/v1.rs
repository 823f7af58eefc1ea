//! The payloads of schema version 1, frozen. See "Payloads" in ledger-format.md.
//!
//! This file, its parts and [`super::v2`] are the only ones that lay out bytes with `bincode`, and they use of it what can be said
//! in a few words: fixed-width little-endian integers, a `u64` length before every text and list, one byte before an
//! optional value, fields in order. Nothing here may change; a new shape is a new file beside this one.

mod anomalies;
mod approvals;
mod calls;
mod compliance;
mod custody;
mod keys;
mod payments;
mod policies;
mod secrets;
mod sessions;
mod upstreams;
mod webhooks;

use bincode::{Decode, Encode};

use super::entry::{EntryError, PAYLOAD_LEN_MAX};
use crate::domain::audit::{ActionLogged, ActionRejected, ActionRejection};
use crate::domain::budgets::{PaymentAuthorized, PaymentDenial, PaymentDenied};
use crate::domain::id::{AgentId, AuthorizationId, EntryId, SessionId};
use crate::domain::money::Money;
use crate::domain::replays::Idempotency;
use crate::domain::{Event, Recorded};
use anomalies::{AnomalyDetectedWire, RuleAddedWire, RuleRemovedWire};
use approvals::{
    ApprovalDeniedWire, ApprovalExpiredWire, ApprovalGrantedWire, ApprovalRequestedWire,
    ApprovalRuleAddedWire, ApprovalRuleRemovedWire,
};
use calls::{CallAuthorizedWire, CallCompletedWire, CallDeniedWire};
use compliance::{ScheduleCreatedWire, ScheduleRanWire, ScheduleRemovedWire};
use custody::{LedgerRepairedWire, SignerRotatedWire};
use keys::{AccessDeniedWire, KeyMintedWire, KeyRevokedWire, UsageMeteredWire};
pub(super) use payments::BoundWire;
use payments::{
    BudgetSetWire, DelegationDeniedWire, PaymentReleasedWire, PaymentReservedWire, PaymentSettledWire,
    SettlementDeniedWire,
};
use policies::{PolicyAddedWire, PolicyRemovedWire};
use secrets::{SecretDeletedWire, SecretDeniedWire, SecretReadWire, SecretStoredWire, VaultRotatedWire};
pub(super) use sessions::SessionOpenedWire;
use sessions::{PermissionCheckedWire, SessionDeniedWire, SessionRevokedWire};
use upstreams::{ToolAcceptedWire, ToolsObservedWire, UpstreamRegisteredWire, UpstreamRemovedWire};
use webhooks::{
    WebhookAttemptedWire, WebhookRedeliveredWire, WebhookRegisteredWire, WebhookRemovedWire,
    WebhookRotatedWire, WebhookTestedWire,
};

/// The schema version of everything in this file.
const SCHEMA: u16 = 1;

const KEY_MINTED: u16 = 1;
const KEY_REVOKED: u16 = 2;
const ACCESS_DENIED: u16 = 3;
pub(super) const SESSION_OPENED: u16 = 16;
const SESSION_REVOKED: u16 = 17;
const SESSION_DENIED: u16 = 18;
const PERMISSION_CHECKED: u16 = 19;
const DELEGATION_DENIED: u16 = 20;
pub(super) const PAYMENT_AUTHORIZED: u16 = 32;
pub(super) const PAYMENT_DENIED: u16 = 33;
const PAYMENT_RESERVED: u16 = 34;
const PAYMENT_SETTLED: u16 = 35;
const PAYMENT_RELEASED: u16 = 36;
const SETTLEMENT_DENIED: u16 = 37;
const BUDGET_SET: u16 = 38;
const ACTION_LOGGED: u16 = 48;
const ACTION_REJECTED: u16 = 49;
const USAGE_METERED: u16 = 64;
const SIGNER_ROTATED: u16 = 80;
const LEDGER_REPAIRED: u16 = 81;
const SECRET_STORED: u16 = 128;
const SECRET_READ: u16 = 129;
const SECRET_DENIED: u16 = 130;
const SECRET_DELETED: u16 = 131;
const VAULT_ROTATED: u16 = 132;
const SCHEDULE_CREATED: u16 = 160;
const SCHEDULE_REMOVED: u16 = 161;
const SCHEDULE_RAN: u16 = 162;
const APPROVAL_RULE_ADDED: u16 = 96;
const APPROVAL_RULE_REMOVED: u16 = 97;
const APPROVAL_REQUESTED: u16 = 98;
const APPROVAL_GRANTED: u16 = 99;
const APPROVAL_DENIED: u16 = 100;
const APPROVAL_EXPIRED: u16 = 101;
const WEBHOOK_REGISTERED: u16 = 112;
const WEBHOOK_REMOVED: u16 = 113;
const WEBHOOK_ROTATED: u16 = 114;
const WEBHOOK_ATTEMPTED: u16 = 115;
const WEBHOOK_REDELIVERED: u16 = 116;
const WEBHOOK_TESTED: u16 = 117;
const ANOMALY_RULE_ADDED: u16 = 144;
const ANOMALY_RULE_REMOVED: u16 = 145;
const ANOMALY_DETECTED: u16 = 146;
const UPSTREAM_REGISTERED: u16 = 176;
const UPSTREAM_REMOVED: u16 = 177;
const TOOLS_OBSERVED: u16 = 178;
const TOOL_ACCEPTED: u16 = 179;
const POLICY_ADDED: u16 = 184;
const POLICY_REMOVED: u16 = 185;
const CALL_AUTHORIZED: u16 = 192;
const CALL_DENIED: u16 = 193;
const CALL_COMPLETED: u16 = 194;

/// What stands before every event: the idempotency key and fingerprint that it settled, if any.
#[derive(Encode, Decode)]
pub(super) struct IdempotencyWire {
    key: [u8; 32],
    fingerprint: [u8; 32],
}

#[derive(Encode, Decode)]
pub(super) struct PaymentAuthorizedWire {
    authorization_id: String,
    session_id: String,
    agent_id: String,
    amount_nanos: u128,
    currency: String,
    description: String,
    remaining_nanos: Option<u128>,
}

#[derive(Encode, Decode)]
pub(super) struct PaymentDeniedWire {
    authorization_id: String,
    session_id: String,
    agent_id: String,
    amount_nanos: u128,
    currency: String,
    description: String,
    remaining_nanos: Option<u128>,
    reason: u8,
}

#[derive(Encode, Decode)]
struct ActionLoggedWire {
    entry_id: String,
    session_id: String,
    agent_id: String,
    action: String,
    tool: String,
    cost_nanos: u128,
    details_digest: Option<[u8; 32]>,
    flag: Option<String>,
}

#[derive(Encode, Decode)]
struct ActionRejectedWire {
    session_id: String,
    action: String,
    tool: String,
    reason: u8,
}

/// Bytes of memory that a payload may ask for. A text of no length takes 8 bytes in the payload and 24 in memory, and
/// bincode counts both; what can be encoded must never exceed this.
const DECODED_LEN_MAX: usize = 8 * PAYLOAD_LEN_MAX;

type Limits = bincode::config::Limit<DECODED_LEN_MAX>;
type Config = bincode::config::Configuration<bincode::config::LittleEndian, bincode::config::Fixint, Limits>;

/// Without the limit, eight hostile length bytes would make the decoder ask for more memory than there is.
const fn config() -> Config {
    bincode::config::legacy().with_limit::<DECODED_LEN_MAX>()
}

/// Encodes an event: its kind, schema version and payload.
///
/// # Errors
///
/// [`EntryError::Payload`] when the event is far larger than a payload can be.
pub(super) fn encode(recorded: &Recorded) -> Result<(u16, u16, Vec<u8>), EntryError> {
    let idempotency = idempotency_of(recorded);
    let (kind, payload) = match &recorded.event {
        Event::KeyMinted(e) => (KEY_MINTED, bytes(idempotency, KeyMintedWire::from(e))),
        Event::KeyRevoked(e) => (KEY_REVOKED, bytes(idempotency, KeyRevokedWire::from(e))),
        Event::AccessDenied(e) => (ACCESS_DENIED, bytes(idempotency, AccessDeniedWire::from(e))),
        Event::SessionOpened(e) => (SESSION_OPENED, bytes(idempotency, SessionOpenedWire::from(e))),
        Event::SessionRevoked(e) => (SESSION_REVOKED, bytes(idempotency, SessionRevokedWire::from(e))),
        Event::SessionDenied(e) => (SESSION_DENIED, bytes(idempotency, SessionDeniedWire::from(e))),
        Event::PermissionChecked(e) => {
            (PERMISSION_CHECKED, bytes(idempotency, PermissionCheckedWire::from(e)))
        }
        Event::PaymentAuthorized(e) => {
            (PAYMENT_AUTHORIZED, bytes(idempotency, PaymentAuthorizedWire::from(e)))
        }
        Event::PaymentDenied(e) => (PAYMENT_DENIED, bytes(idempotency, PaymentDeniedWire::from(e))),
        Event::ActionLogged(e) => (ACTION_LOGGED, bytes(idempotency, ActionLoggedWire::from(e))),
        Event::ActionRejected(e) => (ACTION_REJECTED, bytes(idempotency, ActionRejectedWire::from(e))),
        Event::UsageMetered(e) => (USAGE_METERED, bytes(idempotency, UsageMeteredWire::from(e))),
        Event::SignerRotated(e) => (SIGNER_ROTATED, bytes(idempotency, SignerRotatedWire::from(e))),
        Event::LedgerRepaired(e) => (LEDGER_REPAIRED, bytes(idempotency, LedgerRepairedWire::from(e))),
        Event::SecretStored(e) => (SECRET_STORED, bytes(idempotency, SecretStoredWire::from(e))),
        Event::SecretRead(e) => (SECRET_READ, bytes(idempotency, SecretReadWire::from(e))),
        Event::SecretDenied(e) => (SECRET_DENIED, bytes(idempotency, SecretDeniedWire::from(e))),
        Event::SecretDeleted(e) => (SECRET_DELETED, bytes(idempotency, SecretDeletedWire::from(e))),
        Event::VaultRotated(e) => (VAULT_ROTATED, bytes(idempotency, VaultRotatedWire::from(e))),
        Event::ScheduleCreated(e) => (SCHEDULE_CREATED, bytes(idempotency, ScheduleCreatedWire::from(e))),
        Event::ScheduleRemoved(e) => (SCHEDULE_REMOVED, bytes(idempotency, ScheduleRemovedWire::from(e))),
        Event::ScheduleRan(e) => (SCHEDULE_RAN, bytes(idempotency, ScheduleRanWire::from(e))),
        Event::DelegationDenied(e) => (DELEGATION_DENIED, bytes(idempotency, DelegationDeniedWire::from(e))),
        Event::PaymentReserved(e) => (PAYMENT_RESERVED, bytes(idempotency, PaymentReservedWire::from(e))),
        Event::PaymentSettled(e) => (PAYMENT_SETTLED, bytes(idempotency, PaymentSettledWire::from(e))),
        Event::PaymentReleased(e) => (PAYMENT_RELEASED, bytes(idempotency, PaymentReleasedWire::from(e))),
        Event::SettlementDenied(e) => (SETTLEMENT_DENIED, bytes(idempotency, SettlementDeniedWire::from(e))),
        Event::BudgetSet(e) => (BUDGET_SET, bytes(idempotency, BudgetSetWire::from(e))),
        Event::ApprovalRuleAdded(e) => {
            (APPROVAL_RULE_ADDED, bytes(idempotency, ApprovalRuleAddedWire::from(e)))
        }
        Event::ApprovalRuleRemoved(e) => {
            (APPROVAL_RULE_REMOVED, bytes(idempotency, ApprovalRuleRemovedWire::from(e)))
        }
        Event::ApprovalRequested(e) => {
            (APPROVAL_REQUESTED, bytes(idempotency, ApprovalRequestedWire::from(e)))
        }
        Event::ApprovalGranted(e) => (APPROVAL_GRANTED, bytes(idempotency, ApprovalGrantedWire::from(e))),
        Event::ApprovalDenied(e) => (APPROVAL_DENIED, bytes(idempotency, ApprovalDeniedWire::from(e))),
        Event::ApprovalExpired(e) => (APPROVAL_EXPIRED, bytes(idempotency, ApprovalExpiredWire::from(e))),
        Event::WebhookRegistered(e) => {
            (WEBHOOK_REGISTERED, bytes(idempotency, WebhookRegisteredWire::from(e)))
        }
        Event::WebhookRemoved(e) => (WEBHOOK_REMOVED, bytes(idempotency, WebhookRemovedWire::from(e))),
        Event::WebhookRotated(e) => (WEBHOOK_ROTATED, bytes(idempotency, WebhookRotatedWire::from(e))),
        Event::WebhookAttempted(e) => (WEBHOOK_ATTEMPTED, bytes(idempotency, WebhookAttemptedWire::from(e))),
        Event::WebhookRedelivered(e) => {
            (WEBHOOK_REDELIVERED, bytes(idempotency, WebhookRedeliveredWire::from(e)))
        }
        Event::WebhookTested(e) => (WEBHOOK_TESTED, bytes(idempotency, WebhookTestedWire::from(e))),
        Event::AnomalyRuleAdded(e) => (ANOMALY_RULE_ADDED, bytes(idempotency, RuleAddedWire::from(e))),
        Event::AnomalyRuleRemoved(e) => (ANOMALY_RULE_REMOVED, bytes(idempotency, RuleRemovedWire::from(e))),
        Event::AnomalyDetected(e) => (ANOMALY_DETECTED, bytes(idempotency, AnomalyDetectedWire::from(e))),
        Event::UpstreamRegistered(e) => {
            (UPSTREAM_REGISTERED, bytes(idempotency, UpstreamRegisteredWire::from(e)))
        }
        Event::UpstreamRemoved(e) => (UPSTREAM_REMOVED, bytes(idempotency, UpstreamRemovedWire::from(e))),
        Event::ToolsObserved(e) => (TOOLS_OBSERVED, bytes(idempotency, ToolsObservedWire::from(e))),
        Event::ToolAccepted(e) => (TOOL_ACCEPTED, bytes(idempotency, ToolAcceptedWire::from(e))),
        Event::PolicyAdded(e) => (POLICY_ADDED, bytes(idempotency, PolicyAddedWire::from(e))),
        Event::PolicyRemoved(e) => (POLICY_REMOVED, bytes(idempotency, PolicyRemovedWire::from(e))),
        Event::CallAuthorized(e) => (CALL_AUTHORIZED, bytes(idempotency, CallAuthorizedWire::from(e))),
        Event::CallDenied(e) => (CALL_DENIED, bytes(idempotency, CallDeniedWire::from(e))),
        Event::CallCompleted(e) => (CALL_COMPLETED, bytes(idempotency, CallCompletedWire::from(e))),
    };
    Ok((kind, SCHEMA, payload?))
}

pub(super) fn idempotency_of(recorded: &Recorded) -> Option<IdempotencyWire> {
    recorded.idempotency.as_ref().map(|it| IdempotencyWire { key: it.key, fingerprint: it.fingerprint })
}

pub(super) fn bytes(idempotency: Option<IdempotencyWire>, event: impl Encode) -> Result<Vec<u8>, EntryError> {
    bincode::encode_to_vec((idempotency, event), config())
        .map_err(|error| EntryError::Payload(error.to_string()))
}

/// Decodes a payload. Accepts only what [`encode`] gives for the same event.
///
/// # Errors
///
/// [`EntryError::Kind`] for an event this program does not know, [`EntryError::Payload`] for any other bytes.
pub(super) fn decode(
    kind: u16,
    schema: u16,
    payload: &[u8],
) -> Result<(Option<Idempotency>, Event), EntryError> {
    if schema != SCHEMA {
        return Err(EntryError::Kind { kind, schema });
    }
    match kind {
        KEY_MINTED => read::<KeyMintedWire>(payload, Event::KeyMinted),
        KEY_REVOKED => read::<KeyRevokedWire>(payload, Event::KeyRevoked),
        ACCESS_DENIED => read::<AccessDeniedWire>(payload, Event::AccessDenied),
        SESSION_OPENED => read::<SessionOpenedWire>(payload, Event::SessionOpened),
        SESSION_REVOKED => read::<SessionRevokedWire>(payload, Event::SessionRevoked),
        SESSION_DENIED => read::<SessionDeniedWire>(payload, Event::SessionDenied),
        PERMISSION_CHECKED => read::<PermissionCheckedWire>(payload, Event::PermissionChecked),
        PAYMENT_AUTHORIZED => read::<PaymentAuthorizedWire>(payload, Event::PaymentAuthorized),
        PAYMENT_DENIED => read::<PaymentDeniedWire>(payload, Event::PaymentDenied),
        ACTION_LOGGED => read::<ActionLoggedWire>(payload, Event::ActionLogged),
        ACTION_REJECTED => read::<ActionRejectedWire>(payload, Event::ActionRejected),
        USAGE_METERED => read::<UsageMeteredWire>(payload, Event::UsageMetered),
        SIGNER_ROTATED => read::<SignerRotatedWire>(payload, Event::SignerRotated),
        LEDGER_REPAIRED => read::<LedgerRepairedWire>(payload, Event::LedgerRepaired),
        SECRET_STORED => read::<SecretStoredWire>(payload, Event::SecretStored),
        SECRET_READ => read::<SecretReadWire>(payload, Event::SecretRead),
        SECRET_DENIED => read::<SecretDeniedWire>(payload, Event::SecretDenied),
        SECRET_DELETED => read::<SecretDeletedWire>(payload, Event::SecretDeleted),
        VAULT_ROTATED => read::<VaultRotatedWire>(payload, Event::VaultRotated),
        SCHEDULE_CREATED => read::<ScheduleCreatedWire>(payload, Event::ScheduleCreated),
        SCHEDULE_REMOVED => read::<ScheduleRemovedWire>(payload, Event::ScheduleRemoved),
        SCHEDULE_RAN => read::<ScheduleRanWire>(payload, Event::ScheduleRan),
        DELEGATION_DENIED => read::<DelegationDeniedWire>(payload, Event::DelegationDenied),
        PAYMENT_RESERVED => read::<PaymentReservedWire>(payload, Event::PaymentReserved),
        PAYMENT_SETTLED => read::<PaymentSettledWire>(payload, Event::PaymentSettled),
        PAYMENT_RELEASED => read::<PaymentReleasedWire>(payload, Event::PaymentReleased),
        SETTLEMENT_DENIED => read::<SettlementDeniedWire>(payload, Event::SettlementDenied),
        BUDGET_SET => read::<BudgetSetWire>(payload, Event::BudgetSet),
        APPROVAL_RULE_ADDED => read::<ApprovalRuleAddedWire>(payload, Event::ApprovalRuleAdded),
        APPROVAL_RULE_REMOVED => read::<ApprovalRuleRemovedWire>(payload, Event::ApprovalRuleRemoved),
        APPROVAL_REQUESTED => read::<ApprovalRequestedWire>(payload, Event::ApprovalRequested),
        APPROVAL_GRANTED => read::<ApprovalGrantedWire>(payload, Event::ApprovalGranted),
        APPROVAL_DENIED => read::<ApprovalDeniedWire>(payload, Event::ApprovalDenied),
        APPROVAL_EXPIRED => read::<ApprovalExpiredWire>(payload, Event::ApprovalExpired),
        WEBHOOK_REGISTERED => read::<WebhookRegisteredWire>(payload, Event::WebhookRegistered),
        WEBHOOK_REMOVED => read::<WebhookRemovedWire>(payload, Event::WebhookRemoved),
        WEBHOOK_ROTATED => read::<WebhookRotatedWire>(payload, Event::WebhookRotated),
        WEBHOOK_ATTEMPTED => read::<WebhookAttemptedWire>(payload, Event::WebhookAttempted),
        WEBHOOK_REDELIVERED => read::<WebhookRedeliveredWire>(payload, Event::WebhookRedelivered),
        WEBHOOK_TESTED => read::<WebhookTestedWire>(payload, Event::WebhookTested),
        ANOMALY_RULE_ADDED => read::<RuleAddedWire>(payload, Event::AnomalyRuleAdded),
        ANOMALY_RULE_REMOVED => read::<RuleRemovedWire>(payload, Event::AnomalyRuleRemoved),
        ANOMALY_DETECTED => read::<AnomalyDetectedWire>(payload, Event::AnomalyDetected),
        UPSTREAM_REGISTERED => read::<UpstreamRegisteredWire>(payload, Event::UpstreamRegistered),
        UPSTREAM_REMOVED => read::<UpstreamRemovedWire>(payload, Event::UpstreamRemoved),
        TOOLS_OBSERVED => read::<ToolsObservedWire>(payload, Event::ToolsObserved),
        TOOL_ACCEPTED => read::<ToolAcceptedWire>(payload, Event::ToolAccepted),
        POLICY_ADDED => read::<PolicyAddedWire>(payload, Event::PolicyAdded),
        POLICY_REMOVED => read::<PolicyRemovedWire>(payload, Event::PolicyRemoved),
        CALL_AUTHORIZED => read::<CallAuthorizedWire>(payload, Event::CallAuthorized),
        CALL_DENIED => read::<CallDeniedWire>(payload, Event::CallDenied),
        CALL_COMPLETED => read::<CallCompletedWire>(payload, Event::CallCompleted),
        _ => Err(EntryError::Kind { kind, schema }),
    }
}

/// A wire struct and the event that it carries.
pub(super) trait Wire: Encode + Decode<()> {
    type Event;
    /// The event, or the name of the field that holds what no event can hold.
    fn into_event(self) -> Result<Self::Event, &'static str>;
}

pub(super) fn read<W: Wire>(
    payload: &[u8],
    event: impl FnOnce(W::Event) -> Event,
) -> Result<(Option<Idempotency>, Event), EntryError> {
    let malformed = |why: &dyn std::fmt::Display| EntryError::Payload(why.to_string());
    let (decoded, len): ((Option<IdempotencyWire>, W), usize) =
        bincode::decode_from_slice(payload, config()).map_err(|error| malformed(&error))?;
    if len != payload.len() {
        return Err(malformed(&"bytes left over"));
    }
    let again = bincode::encode_to_vec(&decoded, config()).map_err(|error| malformed(&error))?;
    if again != payload {
        return Err(malformed(&"not the only encoding"));
    }
    let (idempotency, wire) = decoded;
    let idempotency = idempotency.map(|it| Idempotency { key: it.key, fingerprint: it.fingerprint });
    let content = wire.into_event().map_err(|field| malformed(&format_args!("field {field}")))?;
    Ok((idempotency, event(content)))
}

impl From<&PaymentAuthorized> for PaymentAuthorizedWire {
    fn from(e: &PaymentAuthorized) -> Self {
        Self {
            authorization_id: e.authorization_id.to_string(),
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            amount_nanos: e.amount.nanos(),
            currency: e.currency.clone(),
            description: e.description.clone(),
            remaining_nanos: e.remaining.map(Money::nanos),
        }
    }
}

impl Wire for PaymentAuthorizedWire {
    type Event = PaymentAuthorized;
    fn into_event(self) -> Result<PaymentAuthorized, &'static str> {
        Ok(PaymentAuthorized {
            authorization_id: AuthorizationId::parse(&self.authorization_id).ok_or("authorization_id")?,
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            amount: Money::from_nanos(self.amount_nanos),
            currency: self.currency,
            description: self.description,
            tool: String::new(),
            action: String::new(),
            approval_id: None,
            remaining: self.remaining_nanos.map(Money::from_nanos),
        })
    }
}

impl From<&PaymentDenied> for PaymentDeniedWire {
    fn from(e: &PaymentDenied) -> Self {
        let reason = match e.reason {
            PaymentDenial::SessionRevoked => 0,
            PaymentDenial::SessionExpired => 1,
            PaymentDenial::SpendScopeMissing => 2,
            PaymentDenial::BudgetExceeded => 3,
            // Version 2 carries these.
            PaymentDenial::ApprovalNotCovering => 4,
            PaymentDenial::ApprovalDenied => 5,
            PaymentDenial::ApprovalRequired => 6,
        };
        Self {
            authorization_id: e.authorization_id.to_string(),
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            amount_nanos: e.amount.nanos(),
            currency: e.currency.clone(),
            description: e.description.clone(),
            remaining_nanos: e.remaining.map(Money::nanos),
            reason,
        }
    }
}

impl PaymentDeniedWire {
    /// The code of the reason, which later versions have more of.
    pub(super) const fn reason(&self) -> u8 {
        self.reason
    }

    pub(super) fn with_reason(self, reason: u8) -> Self {
        Self { reason, ..self }
    }
}

impl Wire for PaymentDeniedWire {
    type Event = PaymentDenied;
    fn into_event(self) -> Result<PaymentDenied, &'static str> {
        let reason = match self.reason {
            0 => PaymentDenial::SessionRevoked,
            1 => PaymentDenial::SessionExpired,
            2 => PaymentDenial::SpendScopeMissing,
            3 => PaymentDenial::BudgetExceeded,
            _ => return Err("reason"),
        };
        Ok(PaymentDenied {
            authorization_id: AuthorizationId::parse(&self.authorization_id).ok_or("authorization_id")?,
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            amount: Money::from_nanos(self.amount_nanos),
            currency: self.currency,
            description: self.description,
            tool: String::new(),
            action: String::new(),
            remaining: self.remaining_nanos.map(Money::from_nanos),
            reason,
            bound: None,
            approval_id: None,
        })
    }
}

impl From<&ActionLogged> for ActionLoggedWire {
    fn from(e: &ActionLogged) -> Self {
        Self {
            entry_id: e.entry_id.to_string(),
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            action: e.action.clone(),
            tool: e.tool.clone(),
            cost_nanos: e.cost.nanos(),
            details_digest: e.details_digest,
            flag: e.flag.clone(),
        }
    }
}

impl Wire for ActionLoggedWire {
    type Event = ActionLogged;
    fn into_event(self) -> Result<ActionLogged, &'static str> {
        Ok(ActionLogged {
            entry_id: EntryId::parse(&self.entry_id).ok_or("entry_id")?,
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            action: self.action,
            tool: self.tool,
            cost: Money::from_nanos(self.cost_nanos),
            details_digest: self.details_digest,
            flag: self.flag,
        })
    }
}

impl From<&ActionRejected> for ActionRejectedWire {
    fn from(e: &ActionRejected) -> Self {
        let reason = match e.reason {
            ActionRejection::SessionRevoked => 0,
            ActionRejection::SessionExpired => 1,
        };
        Self { session_id: e.session_id.to_string(), action: e.action.clone(), tool: e.tool.clone(), reason }
    }
}

impl Wire for ActionRejectedWire {
    type Event = ActionRejected;
    fn into_event(self) -> Result<ActionRejected, &'static str> {
        let reason = match self.reason {
            0 => ActionRejection::SessionRevoked,
            1 => ActionRejection::SessionExpired,
            _ => return Err("reason"),
        };
        Ok(ActionRejected {
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            action: self.action,
            tool: self.tool,
            reason,
        })
    }
}
