//! Approvals in the words of OCSF.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{Class, Mapped, millis, service, usd};
use crate::domain::approvals::{
    ApprovalDenied, ApprovalExpired, ApprovalGranted, ApprovalRequested, ApprovalRuleAdded,
    ApprovalRuleRemoved, Origin,
};
use crate::domain::id::ApprovalId;

pub(super) fn rule_added(event: &ApprovalRuleAdded) -> Mapped {
    let data = json!({
        "type": event.rule.kind, "threshold": usd(event.rule.threshold), "tools": event.rule.tools,
        "required_approvals": event.rule.required,
    });
    let entity =
        json!({ "type_id": 99, "type": "approval rule", "uid": event.rule_id.to_string(), "data": data });
    Mapped::new(Class::EntityManagement, (1, "Create"), json!({ "entity": entity }))
}

pub(super) fn rule_removed(event: &ApprovalRuleRemoved) -> Mapped {
    let entity = json!({ "type_id": 99, "type": "approval rule", "uid": event.rule_id.to_string() });
    Mapped::new(Class::EntityManagement, (4, "Delete"), json!({ "entity": entity }))
}

pub(super) fn requested(event: &ApprovalRequested) -> Mapped {
    let subject = &event.subject;
    let data = json!({
        "action": subject.action,
        "amount": usd(event.amount),
        "currency": subject.currency,
        "description": subject.description,
        "arguments_digest": subject.arguments.map(|digest| HEXLOWER.encode(&digest)),
        "reason": event.reason,
        "expiration_time": event.expires_at.map(millis),
        "required_approvals": event.required,
        "origin": match event.origin {
            Origin::Caller => "caller",
            Origin::Payment => "payment",
            Origin::Call => "call",
        },
    });
    let mut mapped = about("request approval", (1, "Create"), &event.approval_id, &data);
    mapped.attributes["api"]["service"] = json!(service(&subject.tool));
    mapped.by(&event.agent_id).within(&subject.session_id)
}

pub(super) fn granted(event: &ApprovalGranted) -> Mapped {
    let data = json!({
        "decided_by": event.decider, "note": event.note, "amount": event.amount.map(usd), "ttl_s": event.ttl_s,
        "expiration_time": event.usable_until.map(millis), "approvals_missing": event.missing,
    });
    about("approve", (3, "Update"), &event.approval_id, &data)
}

pub(super) fn denied(event: &ApprovalDenied) -> Mapped {
    let data = json!({ "decided_by": event.decider, "note": event.note });
    about("deny", (3, "Update"), &event.approval_id, &data)
}

pub(super) fn expired(event: &ApprovalExpired) -> Mapped {
    about("expire approval", (3, "Update"), &event.approval_id, &Value::Null).failed("nobody decided in time")
}

fn about(operation: &str, activity: (u64, &'static str), id: &ApprovalId, data: &Value) -> Mapped {
    let resource = json!({ "type": "approval request", "uid": id.as_str(), "data": data });
    let attributes = json!({ "api": { "operation": operation }, "resources": [resource] });
    Mapped::new(Class::ApiActivity, activity, attributes)
}
