//! What webhooks tell of: which events are worth telling, and under which names.

use serde::{Deserialize, Serialize};

use super::Event;
use super::budgets::PaymentDenial;
use super::calls::CallDenial;
use super::compliance::RunOutcome;
use super::id::ScheduleId;

/// A kind of notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Topic {
    /// An anomaly rule matched.
    Anomaly,
    /// An approval is asked for.
    ApprovalRequested,
    /// An approval was given or denied, or nobody decided in time.
    ApprovalDecided,
    /// A cap did not hold a payment any more.
    BudgetExhausted,
    /// An audited action was flagged.
    Flagged,
    /// A session was revoked.
    SessionRevoked,
    /// A tool of an upstream changed, and may not be called.
    ToolQuarantined,
    /// An evidence pack was made on a schedule.
    EvidencePack,
    /// Somebody wants to see whether deliveries arrive.
    Test,
}

impl Topic {
    /// Every topic there is.
    pub const ALL: [Self; 9] = [
        Self::Anomaly,
        Self::ApprovalRequested,
        Self::ApprovalDecided,
        Self::BudgetExhausted,
        Self::Flagged,
        Self::SessionRevoked,
        Self::ToolQuarantined,
        Self::EvidencePack,
        Self::Test,
    ];

    /// Whether it can be subscribed to. Others go to a hook that the event names.
    #[must_use]
    pub const fn can_be_subscribed_to(self) -> bool {
        !matches!(self, Self::Test)
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anomaly => "anomaly",
            Self::ApprovalRequested => "approval_requested",
            Self::ApprovalDecided => "approval_decided",
            Self::BudgetExhausted => "budget_exhausted",
            Self::Flagged => "flagged",
            Self::SessionRevoked => "session_revoked",
            Self::ToolQuarantined => "tool_quarantined",
            Self::EvidencePack => "compliance.evidence_pack",
            Self::Test => "test",
        }
    }
}

/// Who hears of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'event> {
    /// Every hook that subscribed.
    Subscribers,
    /// The hook with this number, whatever it subscribed to.
    Hook(u64),
    /// The hooks that subscribed and that a schedule sends its packs to.
    Schedule(&'event ScheduleId),
}

/// What is told of an event, and to whom; `None` for events of which nobody is told.
#[must_use]
pub fn notice_of(event: &Event) -> Option<(Topic, Audience<'_>)> {
    let to_subscribers = |topic| Some((topic, Audience::Subscribers));
    match event {
        Event::SessionRevoked(_) => to_subscribers(Topic::SessionRevoked),
        Event::PaymentDenied(denied) => match denied.reason {
            PaymentDenial::BudgetExceeded => to_subscribers(Topic::BudgetExhausted),
            PaymentDenial::SessionRevoked
            | PaymentDenial::SessionExpired
            | PaymentDenial::SpendScopeMissing
            | PaymentDenial::ApprovalNotCovering
            | PaymentDenial::ApprovalDenied
            | PaymentDenial::ApprovalRequired => None,
        },
        Event::ActionLogged(action) if action.flag.is_some() => to_subscribers(Topic::Flagged),
        Event::ToolsObserved(seen) if seen.tools.iter().any(|tool| !tool.is_trusted) => {
            to_subscribers(Topic::ToolQuarantined)
        }
        Event::CallDenied(denied) if denied.reason == CallDenial::BudgetExceeded => {
            to_subscribers(Topic::BudgetExhausted)
        }
        Event::AnomalyDetected(_) => to_subscribers(Topic::Anomaly),
        Event::ApprovalRequested(_) => to_subscribers(Topic::ApprovalRequested),
        Event::ApprovalGranted(granted) if granted.missing == 0 => to_subscribers(Topic::ApprovalDecided),
        Event::ApprovalDenied(_) | Event::ApprovalExpired(_) => to_subscribers(Topic::ApprovalDecided),
        Event::ScheduleRan(ran) if ran.outcome == RunOutcome::Fired => {
            Some((Topic::EvidencePack, Audience::Schedule(&ran.schedule_id)))
        }
        Event::WebhookTested(tested) => Some((Topic::Test, Audience::Hook(tested.webhook_id))),
        Event::KeyMinted(_)
        | Event::KeyRevoked(_)
        | Event::AccessDenied(_)
        | Event::SessionOpened(_)
        | Event::SessionDenied(_)
        | Event::PermissionChecked(_)
        | Event::DelegationDenied(_)
        | Event::PaymentAuthorized(_)
        | Event::PaymentReserved(_)
        | Event::PaymentSettled(_)
        | Event::PaymentReleased(_)
        | Event::SettlementDenied(_)
        | Event::BudgetSet(_)
        | Event::ApprovalRuleAdded(_)
        | Event::ApprovalRuleRemoved(_)
        | Event::ApprovalGranted(_)
        | Event::ActionLogged(_)
        | Event::ActionRejected(_)
        | Event::UsageMetered(_)
        | Event::SignerRotated(_)
        | Event::LedgerRepaired(_)
        | Event::SecretStored(_)
        | Event::SecretRead(_)
        | Event::SecretDenied(_)
        | Event::SecretDeleted(_)
        | Event::VaultRotated(_)
        | Event::UpstreamRegistered(_)
        | Event::UpstreamRemoved(_)
        | Event::ToolsObserved(_)
        | Event::ToolAccepted(_)
        | Event::PolicyAdded(_)
        | Event::PolicyRemoved(_)
        | Event::CallAuthorized(_)
        | Event::CallDenied(_)
        | Event::CallCompleted(_)
        | Event::ScheduleCreated(_)
        | Event::ScheduleRemoved(_)
        | Event::ScheduleRan(_)
        | Event::AnomalyRuleAdded(_)
        | Event::AnomalyRuleRemoved(_)
        | Event::WebhookRegistered(_)
        | Event::WebhookRemoved(_)
        | Event::WebhookRotated(_)
        | Event::WebhookAttempted(_)
        | Event::WebhookRedelivered(_) => None,
    }
}
