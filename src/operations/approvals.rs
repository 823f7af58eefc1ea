//! Approvals: rules, requests, decisions, and the links by which people decide.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::approval_links::Link;
use super::past::Moment;
use super::retries::Retry;
use super::wire::{Epoch, Usd};
use super::{App, Caller, OperationError, only_event};
use crate::domain::approvals::{
    AddApprovalRule, Approval, DecideApproval, RemoveApprovalRule, RequestApproval, Rule, Status, Subject,
    Verdict,
};
use crate::domain::id::{Actor, ApprovalId, RequestId, SessionId, TenantId};
use crate::domain::money::Money;
use crate::domain::time::Timestamp;
use crate::domain::{Command, Event, Tenant};
use crate::format::chain::{DETAILS_SALT_LEN, details_digest};
use crate::ledger::{LedgerError, Receipt, Request};
use crate::store::{SideKind, SideRow};

/// Pending requests listed at most.
pub const PENDING_LEN_MAX: usize = 10_000;
/// How long a caller may wait for a decision at most.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two looks at a request that somebody waits for. A busy ledger changes thousands of times a second.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Who decides by a link, whoever it is: a link counts once.
const LINK_DECIDER: &str = "link";

/// A rule that was added.
#[derive(Debug, Serialize, ToSchema)]
pub struct AddedRule {
    /// Always true.
    pub added: bool,
    /// Its type.
    pub r#type: String,
    /// Its number among the tenant's rules.
    pub rule_id: u64,
}

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleView {
    /// Its number among the tenant's rules.
    pub rule_id: u64,
    /// `all`, `spend_over`, `tool_blocked` or `destructive`; others never apply.
    pub r#type: String,
    /// The amount over which `spend_over` applies.
    pub threshold: Usd,
    /// The tools to which `tool_blocked` applies.
    pub tools: Vec<String>,
    /// How many must approve.
    pub required_approvals: u8,
}

/// The tenant's rules.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleList {
    /// How many there are.
    pub count: usize,
    /// In the order in which they were added.
    pub rules: Vec<RuleView>,
}

/// A rule that was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RemovedRule {
    /// Always true.
    pub removed: bool,
    /// Which rule.
    pub rule_id: u64,
}

/// An approval to be asked for, every default filled in.
#[derive(Debug, Clone, Serialize)]
pub struct ApprovalRequest {
    /// The session that asks.
    pub session_id: String,
    /// With which tool.
    pub tool: String,
    /// What it wants to do.
    pub action: String,
    /// How much, in billionths.
    pub amount_nanos: u128,
    /// The currency code.
    pub currency: String,
    /// Why.
    pub reason: String,
    /// The arguments as JSON text; `None` for none.
    pub details: Option<String>,
    /// Seconds until it expires; 0 is never.
    pub ttl: u64,
    /// How many must approve, unless a rule wants more.
    pub required_approvals: u8,
}

/// An approval that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct RequestedApproval {
    /// The request.
    #[schema(example = "apr_…")]
    pub request_id: String,
    /// `pending`, unless it was asked for before and decided since.
    pub status: &'static str,
    /// When it expires; `0.0` is never.
    pub expires_at: Epoch,
    /// How many must approve.
    pub required_approvals: u8,
}

/// A request that waits for a decision.
#[derive(Debug, Serialize, ToSchema)]
pub struct PendingApproval {
    /// The request.
    pub request_id: String,
    /// The session that asks.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// With which tool.
    pub tool: String,
    /// What it wants to do.
    pub action: String,
    /// How much.
    pub amount: Usd,
    /// Why.
    pub reason: String,
    /// How many must approve.
    pub required_approvals: u8,
    /// How many have.
    pub approvals: usize,
    /// When it was asked for.
    pub created_at: Epoch,
    /// When it expires; `0.0` is never.
    pub expires_at: Epoch,
}

/// Requests that wait for a decision.
#[derive(Debug, Serialize, ToSchema)]
pub struct PendingList {
    /// How many are listed.
    pub count: usize,
    /// Newest first.
    pub requests: Vec<PendingApproval>,
}

/// A request and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApprovalView {
    /// The request.
    pub request_id: String,
    /// `pending`, `approved`, `denied` or `expired`.
    pub status: &'static str,
    /// The session that asked.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// With which tool.
    pub tool: String,
    /// What it wants to do.
    pub action: String,
    /// How much was asked for.
    pub amount: Usd,
    /// The currency code; may be empty.
    pub currency: String,
    /// What a payment is for; may be empty.
    pub description: String,
    /// Why.
    pub reason: String,
    /// The arguments; `{}` when there are none.
    #[schema(value_type = Object)]
    pub details: Box<RawValue>,
    /// Who decided; empty until somebody has.
    pub decided_by: String,
    /// What they said about it.
    pub decision_note: String,
    /// How many must approve.
    pub required_approvals: u8,
    /// Who approved so far.
    pub approved_by: Vec<String>,
    /// The most that may be paid with it.
    pub approved_amount: Usd,
    /// When it was asked for.
    pub created_at: Epoch,
    /// When it expires if nobody decides; `0.0` is never.
    pub expires_at: Epoch,
    /// Until when it can be used; `0.0` is for ever, or not yet approved.
    pub usable_until: Epoch,
    /// The payment that used it up; empty until there is one.
    pub used_by: String,
}

/// A decision.
#[derive(Debug, Clone)]
pub struct Decision {
    /// What is decided.
    pub verdict: Verdict,
    /// Who decides; empty is the caller's key.
    pub decided_by: String,
    /// What they say about it.
    pub note: String,
}

/// What a decision led to.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecidedApproval {
    /// Whether it is approved now. False while others must still approve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved: Option<bool>,
    /// Whether it is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<bool>,
    /// The request.
    pub request_id: String,
    /// `pending`, `approved` or `denied`.
    pub status: &'static str,
    /// How many more must approve.
    pub missing_approvals: u8,
}

/// Adds a rule.
///
/// # Errors
///
/// [`OperationError::Conflict`] when there are as many as may be.
pub async fn add_rule(
    app: &App,
    caller: &Caller,
    rule: Rule,
    retry: Option<&Retry>,
) -> Result<AddedRule, OperationError> {
    let command = Command::AddApprovalRule(AddApprovalRule { rule });
    let receipt = app.submit(caller, command, retry, vec![]).await?;
    let Event::ApprovalRuleAdded(added) = &only_event(&receipt)?.recorded.event else {
        return Err(OperationError::unexpected(&receipt));
    };
    Ok(AddedRule { added: true, r#type: added.rule.kind.clone(), rule_id: added.rule_id })
}

/// Lists the tenant's rules.
#[must_use]
pub fn rules(moment: &Moment) -> RuleList {
    let rules = moment.stream.tenant.approvals.rules().map(|(rule_id, rule)| RuleView {
        rule_id,
        r#type: rule.kind.clone(),
        threshold: Usd(rule.threshold),
        tools: rule.tools.clone(),
        required_approvals: rule.required,
    });
    let rules: Vec<RuleView> = rules.collect();
    RuleList { count: rules.len(), rules }
}

/// Removes a rule.
///
/// # Errors
///
/// [`OperationError::NotFound`] when there is none with this number.
pub async fn remove_rule(app: &App, caller: &Caller, rule_id: u64) -> Result<RemovedRule, OperationError> {
    let command = Command::RemoveApprovalRule(RemoveApprovalRule { rule_id });
    app.submit(caller, command, None, vec![]).await?;
    Ok(RemovedRule { removed: true, rule_id })
}

/// Asks for an approval. While nobody has decided, asking for the same again gives the same request.
///
/// # Errors
///
/// [`OperationError::SessionDead`] for sessions that do not exist or have ended.
pub async fn request(
    app: &App,
    caller: &Caller,
    request: ApprovalRequest,
    retry: Option<&Retry>,
) -> Result<RequestedApproval, OperationError> {
    let approval_id = ApprovalId::issue(app.ledger.random().bytes());
    // The salt comes from the arguments and a secret, so that the same arguments have the same digest and nobody else can
    // tell what they are.
    let details = request.details.map(|details| {
        let salt: [u8; DETAILS_SALT_LEN] = app.retry_secret.salt_of(&details);
        (details_digest(&salt, details.as_bytes()), [&salt[..], details.as_bytes()].concat())
    });
    let (arguments, value) = details.unzip();
    let id = approval_id.as_str().as_bytes().to_vec();
    let side = value.map(|value| SideRow { kind: SideKind::ApprovalDetails, id, value });
    let command = Command::RequestApproval(RequestApproval {
        approval_id,
        subject: Subject {
            session_id: SessionId::parse(&request.session_id).ok_or(OperationError::SessionDead)?,
            tool: request.tool,
            action: request.action,
            currency: request.currency,
            description: String::new(),
            arguments,
        },
        amount: Money::from_nanos(request.amount_nanos),
        reason: request.reason,
        ttl_s: request.ttl,
        required: request.required_approvals,
    });
    let receipt = match app.submit(caller, command, retry, side.into_iter().collect()).await {
        Err(OperationError::NotFound(_)) => return Err(OperationError::SessionDead),
        submitted => submitted?,
    };
    let Event::ApprovalRequested(requested) = &only_event(&receipt)?.recorded.event else {
        return Err(OperationError::unexpected(&receipt));
    };
    let now = app.ledger.clock().now();
    let status = app.with_tenant(&caller.tenant, |tenant| {
        tenant.approvals.get(&requested.approval_id).map_or("pending", |approval| status_name(approval, now))
    });
    Ok(RequestedApproval {
        request_id: requested.approval_id.to_string(),
        status: status?,
        expires_at: Epoch::or_zero(requested.expires_at),
        required_approvals: requested.required,
    })
}

/// Lists requests that wait for a decision, newest first.
#[must_use]
pub fn pending(moment: &Moment, agent_id: Option<&str>, limit: usize) -> PendingList {
    let is_wanted = |approval: &Approval| {
        !approval.has_expired(moment.at) && agent_id.is_none_or(|agent| approval.agent_id.as_str() == agent)
    };
    let waiting = moment.stream.tenant.approvals.pending().filter(|(_, approval)| is_wanted(approval));
    let requests: Vec<PendingApproval> = waiting
        .take(limit)
        .map(|(id, approval)| PendingApproval {
            request_id: id.to_string(),
            session_id: approval.subject.session_id.to_string(),
            agent_id: approval.agent_id.to_string(),
            tool: approval.subject.tool.clone(),
            action: approval.subject.action.clone(),
            amount: Usd(approval.amount),
            reason: approval.reason.clone(),
            required_approvals: approval.required,
            approvals: approval.approved_by.len(),
            created_at: Epoch(approval.created_at),
            expires_at: Epoch::or_zero(approval.expires_at),
        })
        .collect();
    PendingList { count: requests.len(), requests }
}

/// Tells what became of a request.
///
/// # Errors
///
/// [`OperationError::NotFound`] when the tenant has none with this id.
pub fn get(app: &App, tenant: &TenantId, moment: &Moment, id: &str) -> Result<ApprovalView, OperationError> {
    let not_found = || OperationError::NotFound("approval request");
    let id = ApprovalId::parse(id).ok_or_else(not_found)?;
    let approval = moment.stream.tenant.approvals.get(&id).ok_or_else(not_found)?;
    let subject = &approval.subject;
    let decided_by = match &approval.status {
        Status::Denied { by } => by.clone(),
        Status::Pending | Status::Approved | Status::Expired => approval.approved_by.join(", "),
    };
    let amount = approval.amount_max.unwrap_or(approval.amount);
    Ok(ApprovalView {
        request_id: id.to_string(),
        status: status_name(approval, moment.at),
        session_id: subject.session_id.to_string(),
        agent_id: approval.agent_id.to_string(),
        tool: subject.tool.clone(),
        action: subject.action.clone(),
        amount: Usd(approval.amount),
        currency: subject.currency.clone(),
        description: subject.description.clone(),
        reason: approval.reason.clone(),
        details: details_of(app, tenant, &id, approval)?,
        decided_by,
        decision_note: approval.note.clone(),
        required_approvals: approval.required,
        approved_by: approval.approved_by.clone(),
        approved_amount: Usd(if approval.status == Status::Approved { amount } else { Money::ZERO }),
        created_at: Epoch(approval.created_at),
        expires_at: Epoch::or_zero(approval.expires_at),
        usable_until: Epoch::or_zero(approval.usable_until.filter(|_| approval.status == Status::Approved)),
        used_by: approval.used_by.as_ref().map(ToString::to_string).unwrap_or_default(),
    })
}

/// The arguments of a request as JSON.
fn details_of(
    app: &App,
    tenant: &TenantId,
    id: &ApprovalId,
    approval: &Approval,
) -> Result<Box<RawValue>, OperationError> {
    let internal = |error: serde_json::Error| OperationError::Internal(error.to_string());
    let none = || RawValue::from_string("{}".to_owned()).map_err(internal);
    let Some(digest) = approval.subject.arguments else {
        return none();
    };
    let Some(stored) = app.ledger.store().side(tenant, SideKind::ApprovalDetails, id.as_str().as_bytes())?
    else {
        return none();
    };
    let altered = || OperationError::Unavailable(format!("the details of {id} were altered"));
    let (salt, details) = stored.split_first_chunk().ok_or_else(altered)?;
    if details_digest(salt, details) != digest {
        return Err(altered());
    }
    let details = String::from_utf8(details.to_vec()).map_err(|_| altered())?;
    RawValue::from_string(details).map_err(internal)
}

/// A request in the list of all.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApprovalRow {
    /// The request.
    pub request_id: String,
    /// `pending`, `approved`, `denied` or `expired`.
    pub status: &'static str,
    /// The session that asked.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// With which tool.
    pub tool: String,
    /// What it wants to do.
    pub action: String,
    /// How much was asked for.
    pub amount: Usd,
    /// Who approved so far.
    pub approved_by: Vec<String>,
    /// The payment that used it up; empty until there is one.
    pub used_by: String,
}

/// Lists every request, by id.
#[must_use]
pub fn rows(moment: &Moment) -> Vec<ApprovalRow> {
    let all = moment.stream.tenant.approvals.all();
    all.map(|(id, approval)| ApprovalRow {
        request_id: id.to_string(),
        status: status_name(approval, moment.at),
        session_id: approval.subject.session_id.to_string(),
        agent_id: approval.agent_id.to_string(),
        tool: approval.subject.tool.clone(),
        action: approval.subject.action.clone(),
        amount: Usd(approval.amount),
        approved_by: approval.approved_by.clone(),
        used_by: approval.used_by.as_ref().map(ToString::to_string).unwrap_or_default(),
    })
    .collect()
}

/// Waits until a request is decided, at most so long. A request that does not exist is not waited for.
pub async fn wait(app: &App, tenant: &TenantId, id: &str, at_most: Duration) {
    let Some(id) = ApprovalId::parse(id) else { return };
    let mut changes = app.ledger.watch();
    let mut stopping = app.is_stopping.subscribe();
    let decided = async {
        loop {
            let now = app.ledger.clock().now();
            let waits = |tenant: &Tenant| {
                let approval = tenant.approvals.get(&id);
                approval.is_some_and(|it| it.status == Status::Pending && !it.has_expired(now))
            };
            if !app.with_tenant(tenant, waits).unwrap_or(false) {
                return;
            }
            // A request also expires while nothing changes.
            let changed = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(at_most, decided) => {}
        _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
    }
}

/// Approves or denies, on the authority of an API key.
///
/// # Errors
///
/// [`OperationError::Conflict`] when somebody decided before.
pub async fn decide(
    app: &App,
    caller: &Caller,
    id: &str,
    decision: Decision,
    retry: Option<&Retry>,
) -> Result<DecidedApproval, OperationError> {
    let by_key = || caller.prefix.to_string();
    let decider = if decision.decided_by.is_empty() { by_key() } else { decision.decided_by };
    let command = command_of(id, decision.verdict, decider, decision.note)?;
    told(app.submit(caller, command, retry, vec![]).await)
}

/// Approves or denies, on the authority of a link. Everybody who has the link is one decider.
///
/// # Errors
///
/// As [`decide`].
pub async fn decide_by_link(
    app: &App,
    link: &Link,
    request_id: RequestId,
    decision: Decision,
) -> Result<DecidedApproval, OperationError> {
    let name = decision.decided_by;
    let note = if name.is_empty() { decision.note } else { format!("{name}: {}", decision.note) };
    let command = command_of(link.id.as_str(), decision.verdict, LINK_DECIDER.to_owned(), note)?;
    let request = Request {
        tenant: link.tenant.clone(),
        actor: Actor::ApprovalLink,
        request_id,
        idempotency: None,
        command,
        side: vec![],
    };
    told(app.ledger.submit(request).await.map_err(|error: LedgerError| error.into()))
}

fn command_of(id: &str, verdict: Verdict, decider: String, note: String) -> Result<Command, OperationError> {
    let approval_id = ApprovalId::parse(id).ok_or(UNKNOWN)?;
    Ok(Command::DecideApproval(DecideApproval { approval_id, verdict, decider, note }))
}

/// The contract's answer to decisions about what is not there.
const UNKNOWN: OperationError =
    OperationError::Illegal { code: "approval_unknown", reason: "there is no such request" };

fn told(receipt: Result<Receipt, OperationError>) -> Result<DecidedApproval, OperationError> {
    let receipt = match receipt {
        Err(OperationError::NotFound(_)) => return Err(UNKNOWN),
        receipt => receipt?,
    };
    match &only_event(&receipt)?.recorded.event {
        Event::ApprovalGranted(granted) => Ok(DecidedApproval {
            approved: Some(granted.missing == 0),
            denied: None,
            request_id: granted.approval_id.to_string(),
            status: if granted.missing == 0 { "approved" } else { "pending" },
            missing_approvals: granted.missing,
        }),
        Event::ApprovalDenied(denied) => Ok(DecidedApproval {
            approved: None,
            denied: Some(true),
            request_id: denied.approval_id.to_string(),
            status: "denied",
            missing_approvals: 0,
        }),
        _ => Err(OperationError::unexpected(&receipt)),
    }
}

/// What became of a request, in one word.
#[must_use]
pub fn status_name(approval: &Approval, at: Timestamp) -> &'static str {
    match approval.status {
        Status::Pending if approval.has_expired(at) => "expired",
        Status::Pending => "pending",
        Status::Approved => "approved",
        Status::Denied { .. } => "denied",
        Status::Expired => "expired",
    }
}
