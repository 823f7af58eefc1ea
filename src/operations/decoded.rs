//! An entry as JSON: its exact bytes, and the same for people to read. See "Ledger export" in ledger-format.md.

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};

use crate::domain::Event;
use crate::domain::audit::ActionRejection;
use crate::domain::budgets::PaymentDenial;
use crate::domain::money::Money;
use crate::domain::sessions::Verdict;
use crate::domain::time::Timestamp;
use crate::format::entry::Entry;

/// Everything an entry says, and its bytes. Keys are sorted, so that one entry has one text.
#[must_use]
pub fn entry_json(entry: &Entry, bytes: &[u8]) -> Value {
    json!({
        "type": "entry",
        "seq": entry.recorded.seq,
        "kind": entry.recorded.event.kind_name(),
        "at": entry.recorded.at.to_string(),
        "actor": entry.recorded.actor.to_string(),
        "request_id": entry.recorded.request_id.as_str(),
        "rules": entry.recorded.rules,
        "prev": entry.prev.to_string(),
        "hash": entry.hash.to_string(),
        "key_id": entry.key_id.to_string(),
        "signature": HEXLOWER.encode(&entry.signature),
        "event": event_json(&entry.recorded.event),
        "entry": BASE64.encode(bytes),
    })
}

/// What happened. Amounts are decimal text, because programs that read numbers as floats would change them.
#[must_use]
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
        Event::SessionOpened(it) => json!({
            "session_id": it.session_id.as_str(), "agent_id": it.agent_id.as_str(), "scopes": it.scopes,
            "cap_usd": maybe_usd(it.cap), "ttl_s": it.ttl_s, "expires_at": maybe_time(it.expires_at),
            "agent_limit": it.agent_limit,
        }),
        Event::SessionRevoked(it) => json!({ "session_id": it.session_id.as_str() }),
        Event::SessionDenied(it) => json!({
            "agent_id": it.agent_id.as_str(), "agent_limit": it.agent_limit, "agents_live": it.agents_live,
        }),
        Event::PermissionChecked(it) => json!({
            "session_id": it.session_id.as_str(), "scope": it.scope, "verdict": verdict_name(it.verdict),
        }),
        Event::PaymentAuthorized(it) => json!({
            "authorization_id": it.authorization_id.as_str(), "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "amount_usd": usd(it.amount), "currency": it.currency,
            "description": it.description, "remaining_usd": maybe_usd(it.remaining),
        }),
        Event::PaymentDenied(it) => json!({
            "authorization_id": it.authorization_id.as_str(), "session_id": it.session_id.as_str(),
            "agent_id": it.agent_id.as_str(), "amount_usd": usd(it.amount), "currency": it.currency,
            "description": it.description, "remaining_usd": maybe_usd(it.remaining),
            "reason": denial_name(it.reason),
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
        Event::LedgerRepaired(it) => json!({
            "kept": it.kept, "restored": it.restored, "lost": it.lost, "damage": it.damage, "source": it.source,
        }),
    }
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

const fn denial_name(denial: PaymentDenial) -> &'static str {
    match denial {
        PaymentDenial::SessionRevoked => "session_revoked",
        PaymentDenial::SessionExpired => "session_expired",
        PaymentDenial::SpendScopeMissing => "spend_scope_missing",
        PaymentDenial::BudgetExceeded => "budget_exceeded",
    }
}
