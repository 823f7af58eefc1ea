//! The largest events there can be.

use haldir::domain::Event;
use haldir::domain::anomalies::rule::{Condition, Rule, RuleType};
use haldir::domain::anomalies::{AnomalyDetected, RuleAdded, RuleRemoved};
use haldir::domain::audit::{ActionLogged, ActionRejected, ActionRejection};
use haldir::domain::budgets::{PaymentAuthorized, PaymentDenial, PaymentDenied};
use haldir::domain::compliance::{
    Cadence, Delivery, Pack, RunOutcome, ScheduleCreated, ScheduleRan, ScheduleRemoved,
};
use haldir::domain::id::{AgentId, AuthorizationId, EntryId, KeyPrefix, ScheduleId, SessionId};
use haldir::domain::keys::{AccessDenied, KeyMinted, KeyRevoked};
use haldir::domain::limits::{
    ACTION_CHARS_MAX, AGENT_ID_CHARS_MAX, ANOMALY_EVIDENCE_COUNT_MAX, ANOMALY_REASON_CHARS_MAX,
    ANOMALY_RULE_TOOL_COUNT_MAX, CURRENCY_CHARS_MAX, DELIVERY_CHARS_MAX, DESCRIPTION_CHARS_MAX,
    KEY_NAME_CHARS_MAX, METERED_KEY_COUNT_MAX, RUN_ERROR_CHARS_MAX, SCHEDULE_NAME_CHARS_MAX, SCOPE_CHARS_MAX,
    SECRET_NAME_CHARS_MAX, SECRET_VERSION_COUNT_MAX, SESSION_ID_CHARS_MAX, SESSION_SCOPE_COUNT_MAX,
    TOOL_CHARS_MAX, URL_CHARS_MAX, WEBHOOK_EVENT_CHARS_MAX, WEBHOOK_EVENT_COUNT_MAX, WEBHOOK_NAME_CHARS_MAX,
};
use haldir::domain::money::Money;
use haldir::domain::scope::KeyScopes;
use haldir::domain::secrets::{
    Rewrapped, SecretDeleted, SecretDenial, SecretDenied, SecretName, SecretRead, SecretStored, VaultRotated,
    VersionRef,
};
use haldir::domain::sessions::{PermissionChecked, SessionDenied, SessionOpened, SessionRevoked, Verdict};
use haldir::domain::time::{Month, Timestamp};
use haldir::domain::topics::Topic;
use haldir::domain::usage::{KeyReading, UsageMetered};
use haldir::domain::webhooks::{
    AttemptOutcome, WebhookAttempted, WebhookRedelivered, WebhookRegistered, WebhookRemoved, WebhookRotated,
    WebhookTested,
};
use haldir::vault::ring::RING_LEN_MAX;

/// Every kind with everything as long as `domain::limits` allows, in characters of four bytes.
pub(crate) fn largest_events() -> Vec<Event> {
    let text = |chars: usize| "\u{10ffff}".repeat(chars);
    let prefix = || KeyPrefix::parse("hld_AAAAAAAA").unwrap();
    let session_id = || SessionId::parse(&text(SESSION_ID_CHARS_MAX)).unwrap();
    let agent_id = || AgentId::parse(&text(AGENT_ID_CHARS_MAX)).unwrap();
    let authorization_id = || AuthorizationId::parse(&text(64)).unwrap();
    let money = Money::from_nanos(u128::MAX);
    let at = Timestamp::from_micros(u64::MAX);
    let reading = KeyReading { prefix: prefix(), calls: u64::MAX, last_used: at };
    let mut events = vec![
        Event::KeyMinted(KeyMinted {
            prefix: prefix(),
            hash: [0xff; 32],
            name: text(KEY_NAME_CHARS_MAX),
            scopes: KeyScopes::parse(&key_scope_vocabulary()).unwrap(),
        }),
        Event::KeyRevoked(KeyRevoked { prefix: prefix() }),
        // The longest that is asked for is a minting's whole list of scopes; the operation is one of our routes.
        Event::AccessDenied(AccessDenied {
            required: key_scope_vocabulary().join(" "),
            operation: text(ACTION_CHARS_MAX),
        }),
        Event::SessionOpened(SessionOpened {
            session_id: session_id(),
            agent_id: agent_id(),
            scopes: vec![text(SCOPE_CHARS_MAX); SESSION_SCOPE_COUNT_MAX],
            cap: Some(money),
            ttl_s: u64::MAX,
            expires_at: Some(at),
            agent_limit: Some(u64::MAX),
            parent: None,
        }),
        Event::SessionRevoked(SessionRevoked { session_id: session_id() }),
        Event::SessionDenied(SessionDenied {
            agent_id: agent_id(),
            agent_limit: u64::MAX,
            agents_live: u64::MAX,
        }),
        Event::PermissionChecked(PermissionChecked {
            session_id: session_id(),
            scope: text(SCOPE_CHARS_MAX),
            verdict: Verdict::ScopeMissing,
        }),
        Event::PaymentAuthorized(PaymentAuthorized {
            authorization_id: authorization_id(),
            session_id: session_id(),
            agent_id: agent_id(),
            amount: money,
            currency: text(CURRENCY_CHARS_MAX),
            description: text(DESCRIPTION_CHARS_MAX),
            remaining: Some(money),
            tool: String::new(),
            action: String::new(),
            approval_id: None,
        }),
        Event::PaymentDenied(PaymentDenied {
            authorization_id: authorization_id(),
            session_id: session_id(),
            agent_id: agent_id(),
            amount: money,
            currency: text(CURRENCY_CHARS_MAX),
            description: text(DESCRIPTION_CHARS_MAX),
            remaining: Some(money),
            reason: PaymentDenial::BudgetExceeded,
            tool: String::new(),
            action: String::new(),
            bound: None,
            approval_id: None,
        }),
        Event::ActionLogged(ActionLogged {
            entry_id: EntryId::parse(&text(64)).unwrap(),
            session_id: session_id(),
            agent_id: agent_id(),
            action: text(ACTION_CHARS_MAX),
            tool: text(TOOL_CHARS_MAX),
            cost: money,
            details_digest: Some([0xff; 32]),
            flag: Some(text(ACTION_CHARS_MAX)),
        }),
        Event::ActionRejected(ActionRejected {
            session_id: session_id(),
            action: text(ACTION_CHARS_MAX),
            tool: text(TOOL_CHARS_MAX),
            reason: ActionRejection::SessionExpired,
        }),
        Event::UsageMetered(UsageMetered {
            month: Month::new(9999, 12).unwrap(),
            keys: vec![reading; METERED_KEY_COUNT_MAX],
        }),
    ];
    events.extend(super::payments::largest_payment_events());
    events.extend(super::proxy::largest_proxy_events());
    events.extend(largest_about_secrets());
    events.extend(largest_about_schedules());
    events.extend(largest_anomalies());
    events
}

fn largest_about_schedules() -> Vec<Event> {
    let text = |chars: usize| "\u{10ffff}".repeat(chars);
    let at = Timestamp::from_micros(u64::MAX);
    let schedule_id = || ScheduleId::parse(&text(64)).unwrap();
    vec![
        Event::ScheduleCreated(ScheduleCreated {
            schedule_id: schedule_id(),
            name: text(SCHEDULE_NAME_CHARS_MAX),
            cadence: Cadence::Quarterly,
            delivery: Delivery::Webhook(text(DELIVERY_CHARS_MAX)),
        }),
        Event::ScheduleRemoved(ScheduleRemoved { schedule_id: schedule_id() }),
        Event::ScheduleRan(ScheduleRan {
            schedule_id: schedule_id(),
            period_start: at,
            period_end: at,
            outcome: RunOutcome::SmtpFailed,
            error: text(RUN_ERROR_CHARS_MAX),
            pack: Some(Pack { digest: [0xff; 32], size: u64::MAX }),
        }),
    ]
}

fn largest_about_secrets() -> Vec<Event> {
    let text = |chars: usize| "\u{10ffff}".repeat(chars);
    let session_id = || SessionId::parse(&text(SESSION_ID_CHARS_MAX)).unwrap();
    let agent_id = || AgentId::parse(&text(AGENT_ID_CHARS_MAX)).unwrap();
    let secret_name = || SecretName::parse(&text(SECRET_NAME_CHARS_MAX)).unwrap();
    let version_ref = || VersionRef { version: u64::MAX, digest: [0xff; 32] };
    vec![
        Event::SecretStored(SecretStored {
            name: secret_name(),
            version: u64::MAX,
            required_scope: text(SCOPE_CHARS_MAX),
            digest: [0xff; 32],
            sealed_len: u64::MAX,
            erased: Some(version_ref()),
        }),
        Event::SecretRead(SecretRead {
            name: secret_name(),
            version: u64::MAX,
            session_id: session_id(),
            agent_id: agent_id(),
            digest: [0xff; 32],
        }),
        Event::SecretDenied(SecretDenied {
            name: secret_name(),
            version: Some(u64::MAX),
            session_id: session_id(),
            agent_id: Some(agent_id()),
            reason: SecretDenial::ScopeMissing,
            required_scope: Some(text(SCOPE_CHARS_MAX)),
        }),
        Event::SecretDeleted(SecretDeleted {
            name: secret_name(),
            version: Some(u64::MAX),
            erased: vec![version_ref(); SECRET_VERSION_COUNT_MAX],
        }),
        Event::VaultRotated(VaultRotated {
            to: [0xff; 8],
            from: vec![Rewrapped { key_id: [0xff; 8], count: u64::MAX }; RING_LEN_MAX],
            already_current: u64::MAX,
            failed: u64::MAX,
        }),
    ]
}

/// The same of webhooks.
pub(crate) fn largest_webhook_events() -> Vec<Event> {
    let text = |chars: usize| "\u{10ffff}".repeat(chars);
    let at = Timestamp::from_micros(u64::MAX);
    vec![
        Event::WebhookRegistered(WebhookRegistered {
            webhook_id: u64::MAX,
            url: text(URL_CHARS_MAX),
            name: text(WEBHOOK_NAME_CHARS_MAX),
            events: vec![text(WEBHOOK_EVENT_CHARS_MAX); WEBHOOK_EVENT_COUNT_MAX],
            secret_digest: [0xff; 32],
        }),
        Event::WebhookRemoved(WebhookRemoved { webhook_id: u64::MAX }),
        Event::WebhookRotated(WebhookRotated {
            webhook_id: u64::MAX,
            secret_digest: [0xff; 32],
            grace_s: u64::MAX,
        }),
        Event::WebhookAttempted(WebhookAttempted {
            webhook_id: u64::MAX,
            source_seq: u64::MAX,
            topic: Topic::Test,
            attempt: u32::MAX,
            outcome: AttemptOutcome::Answered(u16::MAX),
            duration_ms: u64::MAX,
            excerpt_digest: Some([0xff; 32]),
            retry_at: Some(at),
        }),
        Event::WebhookRedelivered(WebhookRedelivered { webhook_id: u64::MAX, source_seq: u64::MAX }),
        Event::WebhookTested(WebhookTested { webhook_id: u64::MAX }),
    ]
}

fn largest_anomalies() -> [Event; 3] {
    let text = |chars: usize| "\u{10ffff}".repeat(chars);
    [
        Event::AnomalyRuleAdded(RuleAdded {
            rule_id: u64::MAX,
            rule: Rule {
                condition: Condition::ToolBlocked {
                    tools: vec![text(TOOL_CHARS_MAX); ANOMALY_RULE_TOOL_COUNT_MAX],
                },
                reason: Some(text(ANOMALY_REASON_CHARS_MAX)),
            },
        }),
        Event::AnomalyRuleRemoved(RuleRemoved { rule_id: u64::MAX }),
        Event::AnomalyDetected(AnomalyDetected {
            rule_id: u64::MAX,
            rule_type: RuleType::Velocity,
            agent_id: AgentId::parse(&text(AGENT_ID_CHARS_MAX)).unwrap(),
            session_id: SessionId::parse(&text(SESSION_ID_CHARS_MAX)),
            subject: u64::MAX,
            tool: text(TOOL_CHARS_MAX),
            action: text(ACTION_CHARS_MAX),
            amount: Money::from_nanos(u128::MAX),
            reason: text(ANOMALY_REASON_CHARS_MAX),
            evidence: vec![u64::MAX; ANOMALY_EVIDENCE_COUNT_MAX],
        }),
    ]
}

/// Every word that a key's scopes may be.
pub(crate) fn key_scope_vocabulary() -> Vec<String> {
    let resources =
        ["sessions", "vault", "audit", "payments", "webhooks", "proxy", "approvals", "admin"].into_iter();
    let mut words: Vec<_> = resources
        .flat_map(|resource| ["read", "write", "*"].map(|action| format!("{resource}:{action}")))
        .collect();
    words.extend(["*".to_owned(), "vault:rotate".to_owned()]);
    words
}
