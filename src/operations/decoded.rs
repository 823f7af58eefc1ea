//! An entry as JSON: its exact bytes, and the same for people to read. See "Ledger export" in ledger-format.md.

use data_encoding::{BASE64, HEXLOWER};
use serde::Serialize;
use serde_json::{Value, json};

use super::policy_json;
use crate::domain::Event;
use crate::domain::accounts::{Account, Bound, Window};
use crate::domain::anomalies::rule::{Condition, Rule};
use crate::domain::approvals::Origin;
use crate::domain::audit::ActionRejection;
use crate::domain::budgets::PaymentDenial;
use crate::domain::calls::{CallDenial, Method, Outcome};
use crate::domain::delegation::DelegationDenial;
use crate::domain::id::{AgentId, ApprovalId, SessionId};
use crate::domain::money::Money;
use crate::domain::policies::{Amount, Facts};
use crate::domain::secrets::{SecretDenial, SecretName, VersionRef};
use crate::domain::sessions::Verdict;
use crate::domain::time::Timestamp;
use crate::domain::upstreams::{Setting, Transport, UpstreamName};
use crate::domain::webhooks::AttemptOutcome;
use crate::format::entry::Entry;

/// Everything an entry says, and its bytes.
///
/// # Panics
///
/// Never: everything in it has a form in JSON.
#[must_use]
pub fn entry_json(entry: &Entry, bytes: &[u8]) -> Value {
    serde_json::to_value(EntryLine::of(entry, bytes)).expect("its keys are text and it has no floats")
}

/// The same as text, which is made for every line of an export and again for every line that is verified.
///
/// # Panics
///
/// Never: everything in it has a form in JSON.
#[must_use]
pub fn entry_text(entry: &Entry, bytes: &[u8]) -> String {
    // The bytes take a third more in base64, and what they say is said again.
    let mut text = Vec::with_capacity(1024 + 2 * bytes.len());
    let line = EntryLine::of(entry, bytes);
    serde_json::to_writer(&mut text, &line).expect("its keys are text and it has no floats");
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// Keys are sorted, so that one entry has one text.
#[derive(Serialize)]
struct EntryLine<'a> {
    actor: String,
    at: String,
    entry: String,
    event: Value,
    hash: String,
    key_id: String,
    kind: &'static str,
    prev: String,
    request_id: &'a str,
    rules: u32,
    seq: u64,
    signature: String,
    r#type: &'static str,
}

impl<'a> EntryLine<'a> {
    fn of(entry: &'a Entry, bytes: &[u8]) -> Self {
        Self {
            actor: entry.recorded.actor.to_string(),
            at: entry.recorded.at.to_string(),
            entry: BASE64.encode(bytes),
            event: event_json(&entry.recorded.event),
            hash: entry.hash.to_string(),
            key_id: entry.key_id.to_string(),
            kind: entry.recorded.event.kind_name(),
            prev: entry.prev.to_string(),
            request_id: entry.recorded.request_id.as_str(),
            rules: entry.recorded.rules,
            seq: entry.recorded.seq,
            signature: HEXLOWER.encode(&entry.signature),
            r#type: "entry",
        }
    }
}

/// What happened. Amounts are decimal text, because programs that read numbers as floats would change them.
#[must_use]
#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
pub fn event_json(event: &Event) -> Value {
    let usd = |amount: Money| amount.to_string();
    let maybe_usd = |amount: Option<Money>| amount.map(usd);
    let maybe_time = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
    match event {
        Event::KeyMinted(it) => json!({
            "prefix": it.prefix.as_str(), "key_sha256": HEXLOWER.encode(&it.hash), "name": it.name,
            "scopes": it.scopes.as_slice(),
        }),
        Event::KeyRevoked(it) => json!({ "prefix": it.prefix.as_str() }),
        Event::AccessDenied(it) => json!({ "required": it.required, "operation": it.operation }),
        Event::SessionOpened(it) => with_more(
            json!({
                "session_id": it.session_id.as_str(), "agent_id": it.agent_id.as_str(), "scopes": it.scopes,
                "cap_usd": maybe_usd(it.cap), "ttl_s": it.ttl_s, "expires_at": maybe_time(it.expires_at),
                "agent_limit": it.agent_limit,
            }),
            [("parent_session_id", json!(it.parent.as_ref().map(SessionId::as_str)))],
        ),
        Event::DelegationDenied(it) => json!({
            "parent_session_id": it.parent.as_str(), "agent_id": it.agent_id.as_str(), "scopes": it.scopes,
            "cap_usd": maybe_usd(it.cap),
            "reason": match it.reason {
                DelegationDenial::ParentRevoked => "parent_revoked",
                DelegationDenial::ParentExpired => "parent_expired",
                DelegationDenial::TooDeep => "too_deep",
                DelegationDenial::ScopeBeyondParent => "scope_beyond_parent",
                DelegationDenial::BudgetBeyondParent => "budget_beyond_parent",
            },
        }),
        Event::SessionRevoked(it) => json!({ "session_id": it.session_id.as_str() }),
        Event::SessionDenied(it) => json!({
            "agent_id": it.agent_id.as_str(), "agent_limit": it.agent_limit, "agents_live": it.agents_live,
        }),
        Event::PermissionChecked(it) => json!({
            "session_id": it.session_id.as_str(), "scope": it.scope, "verdict": verdict_name(it.verdict),
        }),
        Event::PaymentAuthorized(it) => with_more(
            json!({
                "authorization_id": it.authorization_id.as_str(), "session_id": it.session_id.as_str(),
                "agent_id": it.agent_id.as_str(), "amount_usd": usd(it.amount), "currency": it.currency,
                "description": it.description, "remaining_usd": maybe_usd(it.remaining),
            }),
            [
                ("tool", json!(named(&it.tool))),
                ("action", json!(named(&it.action))),
                ("approval_id", json!(it.approval_id.as_ref().map(ApprovalId::as_str))),
            ],
        ),
        Event::PaymentDenied(it) => with_more(
            json!({
                "authorization_id": it.authorization_id.as_str(), "session_id": it.session_id.as_str(),
                "agent_id": it.agent_id.as_str(), "amount_usd": usd(it.amount), "currency": it.currency,
                "description": it.description, "remaining_usd": maybe_usd(it.remaining),
                "reason": denial_name(it.reason),
            }),
            [
                ("tool", json!(named(&it.tool))),
                ("action", json!(named(&it.action))),
                ("approval_id", json!(it.approval_id.as_ref().map(ApprovalId::as_str))),
                ("bound", json!(it.bound.as_ref().map(bound_json))),
            ],
        ),
        Event::PaymentReserved(it) => json!({
            "authorization_id": it.authorization_id.as_str(), "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "amount_usd": usd(it.amount), "currency": it.currency,
            "description": it.description, "tool": it.tool, "action": it.action,
            "approval_id": it.approval_id.as_ref().map(ApprovalId::as_str), "remaining_usd": maybe_usd(it.remaining),
            "ttl_s": it.ttl_s, "expires_at": it.expires_at.to_string(),
        }),
        Event::PaymentSettled(it) => json!({
            "authorization_id": it.authorization_id.as_str(), "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "amount_usd": usd(it.amount), "reserved_usd": usd(it.reserved),
        }),
        Event::SettlementDenied(it) => json!({
            "authorization_id": it.authorization_id.as_str(), "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "amount_usd": usd(it.amount), "reserved_usd": usd(it.reserved),
        }),
        Event::PaymentReleased(it) => json!({
            "authorization_id": it.authorization_id.as_str(), "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "amount_usd": usd(it.amount),
            "reason": if it.has_expired { "expired" } else { "released" },
        }),
        Event::BudgetSet(it) => json!({
            "account": account_json(&it.account), "window": window_name(it.window),
            "limit_usd": maybe_usd(it.limit),
        }),
        Event::ApprovalRuleAdded(it) => json!({
            "rule_id": it.rule_id, "type": it.rule.kind, "threshold_usd": usd(it.rule.threshold),
            "tools": it.rule.tools, "required_approvals": it.rule.required,
        }),
        Event::ApprovalRuleRemoved(it) => json!({ "rule_id": it.rule_id }),
        Event::ApprovalRequested(it) => json!({
            "request_id": it.approval_id.as_str(), "session_id": it.subject.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "tool": it.subject.tool, "action": it.subject.action,
            "amount_usd": usd(it.amount), "currency": it.subject.currency, "description": it.subject.description,
            "arguments_digest": it.subject.arguments.map(|digest| HEXLOWER.encode(&digest)),
            "reason": it.reason, "ttl_s": it.ttl_s, "expires_at": maybe_time(it.expires_at),
            "required_approvals": it.required,
            "origin": match it.origin {
                Origin::Caller => "caller",
                Origin::Payment => "payment",
                Origin::Call => "call",
            },
        }),
        Event::ApprovalGranted(it) => json!({
            "request_id": it.approval_id.as_str(), "decided_by": it.decider, "note": it.note,
            "amount_usd": maybe_usd(it.amount), "ttl_s": it.ttl_s, "usable_until": maybe_time(it.usable_until),
            "approvals_missing": it.missing,
        }),
        Event::ApprovalDenied(it) => json!({
            "request_id": it.approval_id.as_str(), "decided_by": it.decider, "note": it.note,
        }),
        Event::ApprovalExpired(it) => json!({ "request_id": it.approval_id.as_str() }),
        Event::UpstreamRegistered(it) => json!({
            "name": it.name.as_str(), "transport": transport_json(&it.transport),
            "tools": it.tools.as_ref().map(|tools| tools.iter().map(|pin| json!({
                "tool": pin.tool, "digest": HEXLOWER.encode(&pin.digest),
            })).collect::<Vec<_>>()),
        }),
        Event::UpstreamRemoved(it) => json!({ "name": it.name.as_str() }),
        Event::ToolsObserved(it) => json!({
            "name": it.name.as_str(),
            "tools": it.tools.iter().map(|seen| json!({
                "tool": seen.tool, "digest": HEXLOWER.encode(&seen.digest), "is_trusted": seen.is_trusted,
            })).collect::<Vec<_>>(),
        }),
        Event::ToolAccepted(it) => json!({
            "name": it.name.as_str(), "tool": it.tool, "digest": HEXLOWER.encode(&it.digest),
            "decided_by": it.decider, "note": it.note,
        }),
        Event::PolicyAdded(it) => json!({
            "policy_id": it.policy_id, "policy": policy_json::to_json(&it.policy), "revision": it.revision,
        }),
        Event::PolicyRemoved(it) => json!({ "policy_id": it.policy_id, "revision": it.revision }),
        Event::CallAuthorized(it) => json!({
            "call_id": it.call_id.as_str(), "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "method": method_name(it.method), "upstream": it.upstream.as_str(),
            "registration": it.registration, "name": it.name, "facts": facts_json(&it.facts),
            "arguments_digest": HEXLOWER.encode(&it.arguments), "price_usd": maybe_usd(it.price),
            "remaining_usd": maybe_usd(it.remaining),
            "approval_id": it.approval_id.as_ref().map(ApprovalId::as_str),
            "secrets": it.secrets.iter().map(|used| json!({
                "name": used.name.as_str(), "digest": used.opened.map(|digest| HEXLOWER.encode(&digest)),
            })).collect::<Vec<_>>(),
        }),
        Event::CallDenied(it) => json!({
            "call_id": it.call_id.as_str(), "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "method": method_name(it.method),
            "upstream": it.upstream.as_ref().map(UpstreamName::as_str), "registration": it.registration,
            "name": it.name, "facts": facts_json(&it.facts), "arguments_digest": HEXLOWER.encode(&it.arguments),
            "reason": call_denial_name(it.reason), "policy_id": it.policy_id, "price_usd": maybe_usd(it.price),
            "remaining_usd": maybe_usd(it.remaining), "bound": it.bound.as_ref().map(bound_json),
            "approval_id": it.approval_id.as_ref().map(ApprovalId::as_str),
            "secret": it.secret.as_ref().map(SecretName::as_str),
        }),
        Event::CallCompleted(it) => json!({
            "call_id": it.call_id.as_str(), "outcome": outcome_name(it.outcome), "duration_us": it.duration_us,
            "charged_usd": maybe_usd(it.charged),
            "details_digest": it.details_digest.map(|digest| HEXLOWER.encode(&digest)),
        }),
        Event::ActionLogged(it) => json!({
            "entry_id": it.entry_id.as_str(), "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "action": it.action, "tool": it.tool, "cost_usd": usd(it.cost),
            "details_digest": it.details_digest.map(|digest| HEXLOWER.encode(&digest)), "flag": it.flag,
        }),
        Event::ActionRejected(it) => json!({
            "session_id": it.session_id.as_str(), "action": it.action, "tool": it.tool,
            "reason": match it.reason {
                ActionRejection::SessionRevoked => "session_revoked",
                ActionRejection::SessionExpired => "session_expired",
            },
        }),
        Event::UsageMetered(it) => json!({
            "year": it.month.year(), "month": it.month.month(),
            "keys": it.keys.iter().map(|reading| json!({
                "prefix": reading.prefix.as_str(), "calls": reading.calls,
                "last_used": reading.last_used.to_string(),
            })).collect::<Vec<_>>(),
        }),
        Event::SignerRotated(it) => json!({ "public_key": HEXLOWER.encode(&it.public_key) }),
        Event::SecretStored(it) => json!({
            "name": it.name.as_str(), "version": it.version, "required_scope": it.required_scope,
            "digest": HEXLOWER.encode(&it.digest), "sealed_len": it.sealed_len,
            "erased": it.erased.as_ref().map(version_json),
        }),
        Event::SecretRead(it) => json!({
            "name": it.name.as_str(), "version": it.version, "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "digest": HEXLOWER.encode(&it.digest),
        }),
        Event::SecretDenied(it) => json!({
            "name": it.name.as_str(), "version": it.version, "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_ref().map(AgentId::as_str), "reason": secret_denial_name(it.reason),
            "required_scope": it.required_scope,
        }),
        Event::SecretDeleted(it) => json!({
            "name": it.name.as_str(), "version": it.version,
            "erased": it.erased.iter().map(version_json).collect::<Vec<_>>(),
        }),
        Event::VaultRotated(it) => json!({
            "to": HEXLOWER.encode(&it.to),
            "from": it.from.iter().map(|from| json!({
                "key_id": HEXLOWER.encode(&from.key_id), "count": from.count,
            })).collect::<Vec<_>>(),
            "already_current": it.already_current, "failed": it.failed,
        }),
        Event::LedgerRepaired(it) => json!({
            "kept": it.kept, "restored": it.restored, "lost": it.lost, "damage": it.damage, "source": it.source,
        }),
        Event::ScheduleCreated(it) => json!({
            "schedule_id": it.schedule_id.as_str(), "name": it.name, "cadence": it.cadence.name(),
            "delivery": it.delivery.to_string(),
        }),
        Event::ScheduleRemoved(it) => json!({ "schedule_id": it.schedule_id.as_str() }),
        Event::ScheduleRan(it) => json!({
            "schedule_id": it.schedule_id.as_str(), "period_start": it.period_start.to_string(),
            "period_end": it.period_end.to_string(), "outcome": it.outcome.name(), "error": it.error,
            "pack": it.pack.map(|pack| json!({ "digest": HEXLOWER.encode(&pack.digest), "size": pack.size })),
        }),
        Event::WebhookRegistered(it) => json!({
            "webhook_id": it.webhook_id, "url": it.url, "name": it.name, "events": it.events,
            "secret_digest": HEXLOWER.encode(&it.secret_digest),
        }),
        Event::WebhookRemoved(it) => json!({ "webhook_id": it.webhook_id }),
        Event::WebhookRotated(it) => json!({
            "webhook_id": it.webhook_id, "secret_digest": HEXLOWER.encode(&it.secret_digest),
            "grace_s": it.grace_s,
        }),
        Event::WebhookAttempted(it) => json!({
            "webhook_id": it.webhook_id, "source_seq": it.source_seq, "topic": it.topic.name(),
            "attempt": it.attempt, "status_code": it.outcome.status(), "status": it.status().name(),
            "failure": match it.outcome {
                AttemptOutcome::Answered(_) => None,
                AttemptOutcome::Failed(failure) => Some(failure.name()),
            },
            "duration_ms": it.duration_ms,
            "excerpt_digest": it.excerpt_digest.map(|digest| HEXLOWER.encode(&digest)),
            "retry_at": maybe_time(it.retry_at),
        }),
        Event::WebhookRedelivered(it) => {
            json!({ "webhook_id": it.webhook_id, "source_seq": it.source_seq })
        }
        Event::WebhookTested(it) => json!({ "webhook_id": it.webhook_id }),
        Event::AnomalyRuleAdded(it) => {
            let mut rule = rule_json(&it.rule);
            rule["rule_id"] = json!(it.rule_id);
            rule
        }
        Event::AnomalyRuleRemoved(it) => json!({ "rule_id": it.rule_id }),
        Event::AnomalyDetected(it) => json!({
            "rule_id": it.rule_id, "type": it.rule_type.name(), "agent_id": it.agent_id.as_str(),
            "session_id": it.session_id.as_ref().map(SessionId::as_str), "subject": it.subject, "tool": it.tool,
            "action": it.action, "amount_usd": usd(it.amount), "reason": it.reason, "evidence": it.evidence,
        }),
    }
}

fn version_json(it: &VersionRef) -> Value {
    json!({ "version": it.version, "digest": HEXLOWER.encode(&it.digest) })
}

/// The name of the reason for which a secret was not released.
#[must_use]
pub const fn secret_denial_name(denial: SecretDenial) -> &'static str {
    match denial {
        SecretDenial::SessionUnknown => "unknown_session",
        SecretDenial::SessionRevoked => "revoked",
        SecretDenial::SessionExpired => "expired",
        SecretDenial::SecretUnknown => "unknown_secret",
        SecretDenial::ScopeMissing => "scope_missing",
    }
}

/// A rule with the parameters that its type has; the others are null.
fn rule_json(rule: &Rule) -> Value {
    let decimal = |nanos: u128| Money::from_nanos(nanos).to_string();
    let (threshold, window_s, min_samples, tools) = match &rule.condition {
        Condition::SpendPerAction { above } => (json!(above.to_string()), None, None, None),
        Condition::ActionsPerMinute { count } => (json!(count), None, None, None),
        Condition::ToolBlocked { tools } => (Value::Null, None, None, Some(tools)),
        Condition::RepeatedDenials { count, window_s } | Condition::Velocity { count, window_s } => {
            (json!(count), Some(window_s), None, None)
        }
        Condition::SpendSpike { factor_nanos, min_samples } => {
            (json!(decimal(u128::from(*factor_nanos))), None, Some(min_samples), None)
        }
        Condition::UnusualTool { min_samples } | Condition::UnusualHours { min_samples } => {
            (Value::Null, None, Some(min_samples), None)
        }
    };
    json!({
        "type": rule.condition.rule_type().name(), "threshold": threshold, "tools": tools, "window_s": window_s,
        "min_samples": min_samples, "reason": rule.reason,
    })
}

/// The name of a verdict.
#[must_use]
pub const fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "allowed",
        Verdict::SessionUnknown => "unknown_session",
        Verdict::SessionRevoked => "revoked",
        Verdict::SessionExpired => "expired",
        Verdict::ScopeMissing => "scope_missing",
    }
}

fn named(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Adds what later schema versions say. What is absent stays absent, so that earlier entries read as they always did.
fn with_more<const LEN: usize>(mut event: Value, more: [(&str, Value); LEN]) -> Value {
    for (name, value) in more {
        if !value.is_null() {
            event[name] = value;
        }
    }
    event
}

/// Which cap does not hold an amount.
pub(super) fn bound_json(bound: &Bound) -> Value {
    json!({ "account": account_json(&bound.account), "window": window_name(bound.window) })
}

fn account_json(account: &Account) -> Value {
    match account {
        Account::Session(session_id) => json!({ "level": "session", "session_id": session_id.as_str() }),
        Account::Agent(agent_id) => json!({ "level": "agent", "agent_id": agent_id.as_str() }),
        Account::Tenant => json!({ "level": "tenant" }),
    }
}

/// The name of a window.
#[must_use]
pub const fn window_name(window: Window) -> &'static str {
    match window {
        Window::Hour => "hour",
        Window::Day => "day",
        Window::Month => "month",
        Window::Life => "life",
    }
}

/// The name of a reason to deny a payment.
#[must_use]
pub const fn denial_name(denial: PaymentDenial) -> &'static str {
    match denial {
        PaymentDenial::SessionRevoked => "session_revoked",
        PaymentDenial::SessionExpired => "session_expired",
        PaymentDenial::SpendScopeMissing => "spend_scope_missing",
        PaymentDenial::BudgetExceeded => "budget_exceeded",
        PaymentDenial::ApprovalNotCovering => "approval_not_covering",
        PaymentDenial::ApprovalDenied => "approval_denied",
        PaymentDenial::ApprovalRequired => "approval_required",
    }
}

fn transport_json(transport: &Transport) -> Value {
    let settings = |settings: &[Setting]| -> Value {
        settings.iter().map(|it| json!({ "name": it.name, "value": it.value })).collect()
    };
    match transport {
        Transport::Http { url, headers } => {
            json!({ "type": "http", "url": url, "headers": settings(headers) })
        }
        Transport::Stdio { command, args, env } => {
            json!({ "type": "stdio", "command": command, "args": args, "env": settings(env) })
        }
    }
}

/// What was looked up about a call. What an argument says that is no amount is `"invalid"`.
fn facts_json(facts: &Facts) -> Value {
    let amount = |amount: Amount| match amount {
        Amount::Absent => Value::Null,
        Amount::Is(amount) => json!(amount.to_string()),
        Amount::Invalid => json!("invalid"),
    };
    json!({
        "revision": facts.revision, "amount": amount(facts.amount), "price": amount(facts.price),
        "broken": facts.broken,
        "minutes": facts.minutes.iter().map(|(policy_id, minute)| json!({
            "policy_id": policy_id, "minute": minute,
        })).collect::<Vec<_>>(),
    })
}

/// The name of what is asked of an upstream.
#[must_use]
pub const fn method_name(method: Method) -> &'static str {
    match method {
        Method::Tool => "tool",
        Method::Resource => "resource",
        Method::Prompt => "prompt",
    }
}

/// The name of a reason to deny a call.
#[must_use]
pub const fn call_denial_name(denial: CallDenial) -> &'static str {
    match denial {
        CallDenial::SessionRevoked => "session_revoked",
        CallDenial::SessionExpired => "session_expired",
        CallDenial::ToolUnknown => "tool_unknown",
        CallDenial::ToolQuarantined => "tool_quarantined",
        CallDenial::ScopeMissing => "scope_missing",
        CallDenial::Policy => "policy",
        CallDenial::SpendScopeMissing => "spend_scope_missing",
        CallDenial::BudgetExceeded => "budget_exceeded",
        CallDenial::SecretDenied => "secret_denied",
        CallDenial::ApprovalNotCovering => "approval_not_covering",
        CallDenial::ApprovalDenied => "approval_denied",
        CallDenial::ApprovalRequired => "approval_required",
    }
}

/// The name of what became of a call.
#[must_use]
pub const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Refused => "refused",
        Outcome::NotSent => "not_sent",
        Outcome::Lost => "lost",
        Outcome::TimedOut => "timed_out",
        Outcome::TooLarge => "too_large",
        Outcome::Cancelled => "cancelled",
    }
}
