//! Upstreams, policies and calls of the proxy in the words of OCSF.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{Class, Mapped, service, usd};
use crate::domain::calls::{CallAuthorized, CallCompleted, CallDenial, CallDenied, Method, Outcome};
use crate::domain::id::{ApprovalId, CallId};
use crate::domain::policies::{PolicyAdded, PolicyRemoved};
use crate::domain::secrets::SecretName;
use crate::domain::upstreams::{
    Pin, Setting, Sighting, ToolAccepted, ToolsObserved, Transport, UpstreamName, UpstreamRegistered,
    UpstreamRemoved,
};
use crate::operations::decoded::{bound_json, method_name, outcome_name};
use crate::operations::policy_json;

/// What is set for an upstream is named, and its values stay in the ledger.
pub(super) fn registered(event: &UpstreamRegistered) -> Mapped {
    let (transport, target) = match &event.transport {
        Transport::Http { url, .. } => ("http", url),
        Transport::Stdio { command, .. } => ("stdio", command),
    };
    let settings = event.transport.settings().iter().map(|it: &Setting| it.name.as_str());
    let tool = |it: &Pin| json!({ "name": it.tool, "digest": HEXLOWER.encode(&it.digest) });
    let data = json!({
        "transport": transport,
        "target": target,
        "settings": settings.collect::<Vec<_>>(),
        "tools": event.tools.as_ref().map(|tools| tools.iter().map(tool).collect::<Value>()),
    });
    managed((1, "Create"), &event.name, &data)
}

pub(super) fn removed(event: &UpstreamRemoved) -> Mapped {
    managed((4, "Delete"), &event.name, &Value::Null)
}

pub(super) fn observed(event: &ToolsObserved) -> Mapped {
    let tool = |it: &Sighting| json!({ "name": it.tool, "digest": HEXLOWER.encode(&it.digest), "is_trusted": it.is_trusted });
    let data = json!({ "tools": event.tools.iter().map(tool).collect::<Value>() });
    let mapped = managed((3, "Update"), &event.name, &data);
    let changed = event.tools.iter().filter(|it| !it.is_trusted).count();
    match changed {
        0 => mapped,
        _ => Mapped {
            outcome: super::Outcome::Flagged(format!("tools that are not as they were pinned: {changed}")),
            ..mapped
        },
    }
}

pub(super) fn accepted(event: &ToolAccepted) -> Mapped {
    let data = json!({
        "tool": event.tool,
        "digest": HEXLOWER.encode(&event.digest),
        "decided_by": event.decider,
        "note": event.note,
    });
    managed((3, "Update"), &event.name, &data)
}

pub(super) fn policy_added(event: &PolicyAdded) -> Mapped {
    let data = json!({ "policy": policy_json::to_json(&event.policy), "revision": event.revision });
    policy((1, "Create"), event.policy_id, &data)
}

pub(super) fn policy_removed(event: &PolicyRemoved) -> Mapped {
    policy((4, "Delete"), event.policy_id, &json!({ "revision": event.revision }))
}

pub(super) fn authorized(event: &CallAuthorized) -> Mapped {
    let secrets = event.secrets.iter().map(|it| it.name.as_str());
    let data = json!({
        "name": event.name,
        "method": method_name(event.method),
        "registration": event.registration,
        "policy_revision": event.facts.revision,
        "arguments_digest": HEXLOWER.encode(&event.arguments),
        "price": event.price.map(usd),
        "remaining": event.remaining.map(usd),
        "approval": event.approval_id.as_ref().map(ApprovalId::as_str),
        "secrets": secrets.collect::<Vec<_>>(),
    });
    call(operation(event.method), Some(&event.upstream), &event.call_id, &data)
        .by(&event.agent_id)
        .within(&event.session_id)
}

pub(super) fn denied(event: &CallDenied) -> Mapped {
    let data = json!({
        "name": event.name,
        "method": method_name(event.method),
        "registration": event.registration,
        "policy_revision": event.facts.revision,
        "arguments_digest": HEXLOWER.encode(&event.arguments),
        "policy": event.policy_id,
        "price": event.price.map(usd),
        "remaining": event.remaining.map(usd),
        "bound": event.bound.as_ref().map(bound_json),
        "approval": event.approval_id.as_ref().map(ApprovalId::as_str),
        "secret": event.secret.as_ref().map(SecretName::as_str),
    });
    let mapped = call(operation(event.method), event.upstream.as_ref(), &event.call_id, &data);
    mapped.by(&event.agent_id).within(&event.session_id).failed(match event.reason {
        CallDenial::SessionRevoked => "the session was revoked",
        CallDenial::SessionExpired => "the session has expired",
        CallDenial::ToolUnknown => "no upstream has it",
        CallDenial::ToolQuarantined => "the tool has changed since it was pinned",
        CallDenial::ScopeMissing => "the session does not hold a scope for it",
        CallDenial::Policy => "a policy is against it",
        CallDenial::SpendScopeMissing => "the session does not hold the scope spend",
        CallDenial::BudgetExceeded => "the budget does not hold what it costs",
        CallDenial::SecretDenied => "the session may not use a secret that it needs",
        CallDenial::ApprovalNotCovering => "the approval does not cover it",
        CallDenial::ApprovalDenied => "it was not approved",
        CallDenial::ApprovalRequired => "it waits for an approval",
    })
}

pub(super) fn completed(event: &CallCompleted) -> Mapped {
    let data = json!({
        "outcome": outcome_name(event.outcome),
        "duration_us": event.duration_us,
        "charged": event.charged.map(usd),
        "details_digest": event.details_digest.map(|digest| HEXLOWER.encode(&digest)),
    });
    let mapped = call("complete call", None, &event.call_id, &data);
    match event.outcome {
        Outcome::Succeeded => mapped,
        Outcome::Failed => mapped.failed("the upstream says that it failed"),
        Outcome::Refused => mapped.failed("the upstream refused it"),
        Outcome::NotSent => mapped.failed("the upstream was not reached"),
        Outcome::Lost => mapped.failed("the connection broke; it may have happened"),
        Outcome::TimedOut => mapped.failed("there was no answer in time; it may have happened"),
        Outcome::TooLarge => mapped.failed("the answer is larger than is taken"),
        Outcome::Cancelled => mapped.failed("it was cancelled; it may have happened"),
    }
}

/// The contract of the protocol names what is asked.
const fn operation(method: Method) -> &'static str {
    match method {
        Method::Tool => "tools/call",
        Method::Resource => "resources/read",
        Method::Prompt => "prompts/get",
    }
}

fn managed(activity: (u64, &'static str), name: &UpstreamName, data: &Value) -> Mapped {
    let entity = json!({ "type_id": 99, "type": "MCP server", "uid": name.as_str(), "data": data });
    Mapped::new(Class::EntityManagement, activity, json!({ "entity": entity }))
}

fn policy(activity: (u64, &'static str), policy_id: u64, data: &Value) -> Mapped {
    let entity = json!({ "type_id": 99, "type": "proxy policy", "uid": policy_id.to_string(), "data": data });
    Mapped::new(Class::EntityManagement, activity, json!({ "entity": entity }))
}

fn call(operation: &str, upstream: Option<&UpstreamName>, call_id: &CallId, data: &Value) -> Mapped {
    let attributes = json!({
        "api": { "operation": operation, "service": upstream.and_then(|it| service(it.as_str())) },
        "resources": [{ "type": "proxy call", "uid": call_id.as_str(), "data": data }],
    });
    Mapped::new(Class::ApiActivity, (99, "Call"), attributes)
}
