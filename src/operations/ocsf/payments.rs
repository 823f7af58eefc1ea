//! Delegation, caps and reservations in the words of OCSF.

use serde_json::{Value, json};

use super::{Class, Mapped, agent_user, usd};
use crate::domain::accounts::{Account, Bound, BudgetSet};
use crate::domain::budgets::{PaymentAuthorized, PaymentDenial, PaymentDenied};
use crate::domain::delegation::{DelegationDenial, DelegationDenied};
use crate::domain::id::{AgentId, ApprovalId, AuthorizationId, SessionId};
use crate::domain::money::Money;
use crate::domain::reservations::{PaymentReleased, PaymentReserved, PaymentSettled, SettlementDenied};
use crate::operations::decoded::window_name;

pub(super) fn delegation_denied(event: &DelegationDenied) -> Mapped {
    let attributes = json!({
        "entity": { "type_id": 99, "type": "session", "user": agent_user(&event.agent_id) },
        "unmapped": { "parent_session": event.parent.as_str(), "scopes": event.scopes, "spend_cap": event.cap.map(usd) },
    });
    let mapped = Mapped::new(Class::EntityManagement, (1, "Create"), attributes);
    mapped.by(&event.agent_id).within(&event.parent).failed(match event.reason {
        DelegationDenial::ParentRevoked => "the parent session was revoked",
        DelegationDenial::ParentExpired => "the parent session has expired",
        DelegationDenial::TooDeep => "there are as many sessions above it as may be",
        DelegationDenial::ScopeBeyondParent => "the parent session does not hold the scopes",
        DelegationDenial::BudgetBeyondParent => "the budgets above it do not hold that much",
    })
}

pub(super) fn authorized(event: &PaymentAuthorized) -> Mapped {
    let mut data = json!({
        "amount": usd(event.amount),
        "currency": event.currency,
        "description": event.description,
        "remaining": event.remaining.map(usd),
    });
    add_subject(&mut data, &event.tool, &event.action, event.approval_id.as_ref());
    payment("authorize payment", (1, "Create"), &event.authorization_id, &data)
        .by(&event.agent_id)
        .within(&event.session_id)
}

pub(super) fn denied(event: &PaymentDenied) -> Mapped {
    let mut data = json!({
        "amount": usd(event.amount),
        "currency": event.currency,
        "description": event.description,
        "remaining": event.remaining.map(usd),
    });
    add_subject(&mut data, &event.tool, &event.action, event.approval_id.as_ref());
    if let Some(Bound { account, window }) = &event.bound {
        data["account"] = account_of(account);
        data["window"] = json!(window_name(*window));
    }
    let mapped = payment("authorize payment", (1, "Create"), &event.authorization_id, &data);
    mapped.by(&event.agent_id).within(&event.session_id).failed(match event.reason {
        PaymentDenial::SessionRevoked => "the session was revoked",
        PaymentDenial::SessionExpired => "the session has expired",
        PaymentDenial::SpendScopeMissing => "the session does not hold the scope spend",
        PaymentDenial::BudgetExceeded => "the budget does not hold that much",
        PaymentDenial::ApprovalNotCovering => "the approval does not cover it",
        PaymentDenial::ApprovalDenied => "it was not approved",
        PaymentDenial::ApprovalRequired => "it waits for an approval",
    })
}

pub(super) fn reserved(event: &PaymentReserved) -> Mapped {
    let mut data = json!({
        "amount": usd(event.amount),
        "currency": event.currency,
        "description": event.description,
        "remaining": event.remaining.map(usd),
        "ttl_s": event.ttl_s,
        "expiration_time": super::millis(event.expires_at),
    });
    add_subject(&mut data, &event.tool, &event.action, event.approval_id.as_ref());
    payment("reserve payment", (1, "Create"), &event.authorization_id, &data)
        .by(&event.agent_id)
        .within(&event.session_id)
}

pub(super) fn settled(event: &PaymentSettled) -> Mapped {
    let PaymentSettled { authorization_id, session_id, agent_id, amount, reserved } = event;
    change("settle payment", authorization_id, session_id, agent_id, *amount, Some(*reserved))
}

pub(super) fn settlement_denied(event: &SettlementDenied) -> Mapped {
    let SettlementDenied { authorization_id, session_id, agent_id, amount, reserved } = event;
    let mapped = change("settle payment", authorization_id, session_id, agent_id, *amount, Some(*reserved));
    mapped.failed("it came to more than was reserved")
}

pub(super) fn released(event: &PaymentReleased) -> Mapped {
    let PaymentReleased { authorization_id, session_id, agent_id, amount, has_expired } = event;
    let operation = if *has_expired { "expire reservation" } else { "release payment" };
    change(operation, authorization_id, session_id, agent_id, *amount, None)
}

pub(super) fn budget_set(event: &BudgetSet) -> Mapped {
    let mut entity = json!({ "type_id": 99, "type": "budget" });
    entity["uid"] = json!(account_name(&event.account));
    entity["data"] = json!({
        "account": account_of(&event.account),
        "window": window_name(event.window),
        "limit": event.limit.map(usd),
    });
    Mapped::new(Class::EntityManagement, (3, "Update"), json!({ "entity": entity }))
}

fn change(
    operation: &str,
    authorization_id: &AuthorizationId,
    session_id: &SessionId,
    agent_id: &AgentId,
    amount: Money,
    reserved: Option<Money>,
) -> Mapped {
    let data = json!({ "amount": usd(amount), "reserved": reserved.map(usd) });
    payment(operation, (3, "Update"), authorization_id, &data).by(agent_id).within(session_id)
}

fn payment(
    operation: &str,
    activity: (u64, &'static str),
    authorization_id: &AuthorizationId,
    data: &Value,
) -> Mapped {
    let resource = json!({ "type": "payment authorization", "uid": authorization_id.as_str(), "data": data });
    let attributes = json!({ "api": { "operation": operation }, "resources": [resource] });
    Mapped::new(Class::ApiActivity, activity, attributes)
}

fn add_subject(data: &mut Value, tool: &str, action: &str, approval_id: Option<&ApprovalId>) {
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    data["tool"] = json!(named(tool));
    data["action"] = json!(named(action));
    data["approval"] = json!(approval_id.map(ApprovalId::as_str));
}

fn account_of(account: &Account) -> Value {
    match account {
        Account::Session(session_id) => json!({ "level": "session", "uid": session_id.as_str() }),
        Account::Agent(agent_id) => json!({ "level": "agent", "uid": agent_id.as_str() }),
        Account::Tenant => json!({ "level": "tenant" }),
    }
}

fn account_name(account: &Account) -> String {
    match account {
        Account::Session(session_id) => format!("session/{session_id}"),
        Account::Agent(agent_id) => format!("agent/{agent_id}"),
        Account::Tenant => "tenant".to_owned(),
    }
}
