//! Everything that can happen, area by area.

use super::{
    accounts, anomalies, approvals, audit, budgets, calls, compliance, custody, delegation, keys, policies,
    reservations, secrets, sessions, upstreams, usage, webhooks,
};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An API key was minted.
    KeyMinted(keys::KeyMinted),
    /// An API key was revoked.
    KeyRevoked(keys::KeyRevoked),
    /// A key lacked the scope for a request.
    AccessDenied(keys::AccessDenied),
    /// A session was opened.
    SessionOpened(sessions::SessionOpened),
    /// A session was not opened, because a limit is reached.
    SessionDenied(sessions::SessionDenied),
    /// A session was not opened below another one.
    DelegationDenied(delegation::DelegationDenied),
    /// A session was ended.
    SessionRevoked(sessions::SessionRevoked),
    /// A permission was asked for, and granted or denied.
    PermissionChecked(sessions::PermissionChecked),
    /// A payment was authorised and debited.
    PaymentAuthorized(budgets::PaymentAuthorized),
    /// A payment was denied.
    PaymentDenied(budgets::PaymentDenied),
    /// An amount was set aside.
    PaymentReserved(reservations::PaymentReserved),
    /// What was set aside was paid, all of it or less.
    PaymentSettled(reservations::PaymentSettled),
    /// What was set aside was given back.
    PaymentReleased(reservations::PaymentReleased),
    /// A settlement was denied.
    SettlementDenied(reservations::SettlementDenied),
    /// A cap was set or lifted.
    BudgetSet(accounts::BudgetSet),
    /// A rule about approvals was added.
    ApprovalRuleAdded(approvals::ApprovalRuleAdded),
    /// A rule about approvals was removed.
    ApprovalRuleRemoved(approvals::ApprovalRuleRemoved),
    /// An approval was asked for.
    ApprovalRequested(approvals::ApprovalRequested),
    /// Somebody approved.
    ApprovalGranted(approvals::ApprovalGranted),
    /// Somebody denied.
    ApprovalDenied(approvals::ApprovalDenied),
    /// Nobody decided in time.
    ApprovalExpired(approvals::ApprovalExpired),
    /// A value was stored.
    SecretStored(secrets::SecretStored),
    /// A value was released to a session.
    SecretRead(secrets::SecretRead),
    /// A value was not released.
    SecretDenied(secrets::SecretDenied),
    /// A secret was erased.
    SecretDeleted(secrets::SecretDeleted),
    /// Sealed values were wrapped under another master key.
    VaultRotated(secrets::VaultRotated),
    /// An upstream was registered.
    UpstreamRegistered(upstreams::UpstreamRegistered),
    /// An upstream was removed.
    UpstreamRemoved(upstreams::UpstreamRemoved),
    /// An upstream was found to have other tools.
    ToolsObserved(upstreams::ToolsObserved),
    /// Somebody trusts a tool as it is now.
    ToolAccepted(upstreams::ToolAccepted),
    /// A policy was added.
    PolicyAdded(policies::PolicyAdded),
    /// A policy was removed.
    PolicyRemoved(policies::PolicyRemoved),
    /// A call was authorised, and is forwarded next.
    CallAuthorized(calls::CallAuthorized),
    /// A call was denied.
    CallDenied(calls::CallDenied),
    /// A call came to its end.
    CallCompleted(calls::CallCompleted),
    /// An agent's action was recorded.
    ActionLogged(audit::ActionLogged),
    /// An agent's action was not accepted, because its session had ended.
    ActionRejected(audit::ActionRejected),
    /// Calls were metered.
    UsageMetered(usage::UsageMetered),
    /// The stream was handed to another signing key.
    SignerRotated(custody::SignerRotated),
    /// The stream was rebuilt after damage.
    LedgerRepaired(custody::LedgerRepaired),
    /// A schedule of evidence packs was added.
    ScheduleCreated(compliance::ScheduleCreated),
    /// A schedule was dropped.
    ScheduleRemoved(compliance::ScheduleRemoved),
    /// A schedule that was due ran.
    ScheduleRan(compliance::ScheduleRan),
    /// A webhook was registered.
    WebhookRegistered(webhooks::WebhookRegistered),
    /// A webhook was removed.
    WebhookRemoved(webhooks::WebhookRemoved),
    /// A webhook got another secret.
    WebhookRotated(webhooks::WebhookRotated),
    /// A notification was delivered, or was not.
    WebhookAttempted(webhooks::WebhookAttempted),
    /// A notification that was given up is tried again.
    WebhookRedelivered(webhooks::WebhookRedelivered),
    /// A webhook is sent a notification that says nothing.
    WebhookTested(webhooks::WebhookTested),
    /// An anomaly rule was added.
    AnomalyRuleAdded(anomalies::RuleAdded),
    /// An anomaly rule was removed.
    AnomalyRuleRemoved(anomalies::RuleRemoved),
    /// An anomaly rule matched what was decided just before.
    AnomalyDetected(anomalies::AnomalyDetected),
}

impl Event {
    /// The name of an event kind, as documents and exports show it.
    #[must_use]
    pub const fn kind_name(&self) -> &'static str {
        match self {
            Self::KeyMinted(_) => "key.minted",
            Self::KeyRevoked(_) => "key.revoked",
            Self::AccessDenied(_) => "access.denied",
            Self::SessionOpened(_) => "session.opened",
            Self::SessionRevoked(_) => "session.revoked",
            Self::SessionDenied(_) => "session.denied",
            Self::PermissionChecked(_) => "permission.checked",
            Self::PaymentAuthorized(_) => "payment.authorized",
            Self::DelegationDenied(_) => "delegation.denied",
            Self::PaymentDenied(_) => "payment.denied",
            Self::PaymentReserved(_) => "payment.reserved",
            Self::PaymentSettled(_) => "payment.settled",
            Self::PaymentReleased(_) => "payment.released",
            Self::SettlementDenied(_) => "settlement.denied",
            Self::BudgetSet(_) => "budget.set",
            Self::ApprovalRuleAdded(_) => "approval_rule.added",
            Self::ApprovalRuleRemoved(_) => "approval_rule.removed",
            Self::ApprovalRequested(_) => "approval.requested",
            Self::ApprovalGranted(_) => "approval.granted",
            Self::ApprovalDenied(_) => "approval.denied",
            Self::ApprovalExpired(_) => "approval.expired",
            Self::SecretStored(_) => "secret.stored",
            Self::SecretRead(_) => "secret.read",
            Self::SecretDenied(_) => "secret.denied",
            Self::SecretDeleted(_) => "secret.deleted",
            Self::VaultRotated(_) => "vault.rotated",
            Self::UpstreamRegistered(_) => "upstream.registered",
            Self::UpstreamRemoved(_) => "upstream.removed",
            Self::ToolsObserved(_) => "tools.observed",
            Self::ToolAccepted(_) => "tool.accepted",
            Self::PolicyAdded(_) => "policy.added",
            Self::PolicyRemoved(_) => "policy.removed",
            Self::CallAuthorized(_) => "call.authorized",
            Self::CallDenied(_) => "call.denied",
            Self::CallCompleted(_) => "call.completed",
            Self::ActionLogged(_) => "action.logged",
            Self::ActionRejected(_) => "action.rejected",
            Self::UsageMetered(_) => "usage.metered",
            Self::SignerRotated(_) => "signer.rotated",
            Self::LedgerRepaired(_) => "ledger.repaired",
            Self::ScheduleCreated(_) => "schedule.created",
            Self::ScheduleRemoved(_) => "schedule.removed",
            Self::ScheduleRan(_) => "schedule.ran",
            Self::WebhookRegistered(_) => "webhook.registered",
            Self::WebhookRemoved(_) => "webhook.removed",
            Self::WebhookRotated(_) => "webhook.rotated",
            Self::WebhookAttempted(_) => "webhook.attempted",
            Self::WebhookRedelivered(_) => "webhook.redelivered",
            Self::WebhookTested(_) => "webhook.tested",
            Self::AnomalyRuleAdded(_) => "anomaly_rule.added",
            Self::AnomalyRuleRemoved(_) => "anomaly_rule.removed",
            Self::AnomalyDetected(_) => "anomaly.detected",
        }
    }

    /// Whether this outcome is final, so that retries with the same idempotency key repeat it.
    pub(super) const fn settles_a_request(&self) -> bool {
        match self {
            Self::KeyMinted(_)
            | Self::SessionOpened(_)
            | Self::PaymentAuthorized(_)
            | Self::PaymentReserved(_)
            | Self::PaymentSettled(_)
            | Self::SettlementDenied(_)
            | Self::ApprovalRuleAdded(_)
            | Self::ApprovalGranted(_)
            | Self::ApprovalDenied(_)
            | Self::SecretStored(_)
            | Self::UpstreamRegistered(_)
            | Self::PolicyAdded(_)
            | Self::CallAuthorized(_)
            | Self::AnomalyRuleAdded(_)
            | Self::ActionLogged(_)
            | Self::WebhookRegistered(_) => true,
            // A payment that waits for an approval is settled when it is asked for again.
            Self::ApprovalRequested(requested) => matches!(requested.origin, approvals::Origin::Caller),
            // What nobody asked for settles no request.
            Self::PaymentReleased(released) => !released.has_expired,
            Self::PaymentDenied(denied) => denied.reason.is_final(),
            Self::CallDenied(denied) => denied.reason.is_final(),
            Self::KeyRevoked(_)
            | Self::AccessDenied(_)
            | Self::SessionDenied(_)
            | Self::DelegationDenied(_)
            | Self::SessionRevoked(_)
            | Self::PermissionChecked(_)
            | Self::BudgetSet(_)
            | Self::ApprovalRuleRemoved(_)
            | Self::ApprovalExpired(_)
            | Self::SecretRead(_)
            | Self::SecretDenied(_)
            | Self::SecretDeleted(_)
            | Self::VaultRotated(_)
            | Self::UpstreamRemoved(_)
            | Self::ToolsObserved(_)
            | Self::ToolAccepted(_)
            | Self::PolicyRemoved(_)
            | Self::CallCompleted(_)
            | Self::ActionRejected(_)
            | Self::UsageMetered(_)
            | Self::SignerRotated(_)
            | Self::LedgerRepaired(_)
            | Self::ScheduleCreated(_)
            | Self::ScheduleRemoved(_)
            | Self::ScheduleRan(_)
            | Self::WebhookRemoved(_)
            | Self::WebhookRotated(_)
            | Self::WebhookAttempted(_)
            | Self::WebhookRedelivered(_)
            | Self::WebhookTested(_)
            | Self::AnomalyRuleRemoved(_)
            | Self::AnomalyDetected(_) => false,
        }
    }
}
