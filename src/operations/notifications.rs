//! What receivers are told of an event: one place says it for every kind.
//!
//! A notification is made from the recorded event and from what never changes about what it names, so that every attempt and
//! every receiver gets the same bytes, whenever it is made.

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::value::RawValue;

use super::approval_links::Link;
use super::compliance::iso;
use super::decoded::window_name;
use super::event_ids::event_id;
use super::wire::{Epoch, Usd};
use super::{App, OperationError};
use crate::domain::Event;
use crate::domain::Recorded;
use crate::domain::accounts::{Account, Bound, Window};
use crate::domain::anomalies::AnomalyDetected;
use crate::domain::approvals;
use crate::domain::audit::ActionLogged;
use crate::domain::budgets::PaymentDenied;
use crate::domain::calls::CallDenied;
use crate::domain::compliance::ScheduleRan;
use crate::domain::id::{ApprovalId, SessionId, TenantId};
use crate::domain::money::Money;
use crate::domain::topics::notice_of;
use crate::domain::upstreams::ToolsObserved;
use crate::ledger::past::stream_at;
use crate::store::SideKind;

/// Sessions that are named as ended with another one; how many there are is told in any case.
const DESCENDANTS_NAMED_MAX: usize = 100;

/// What every notification says, after what it is about.
#[derive(Serialize)]
struct Common {
    event: &'static str,
    event_id: String,
    timestamp: Epoch,
    source: &'static str,
    seq: u64,
}

#[derive(Serialize)]
struct SessionRevoked<'a> {
    session_id: &'a str,
    agent_id: String,
    /// Sessions that were opened below it, and ended with it.
    descendants: Vec<String>,
    descendant_count: usize,
}

#[derive(Serialize)]
struct BudgetExhausted<'a> {
    session_id: &'a str,
    agent_id: &'a str,
    spent: Usd,
    limit: Usd,
    remaining: Usd,
    amount: Usd,
    currency: &'a str,
    description: &'a str,
    authorization_id: &'a str,
    /// Whose cap does not hold it, if it is not the session's own.
    cap: Option<Cap<'a>>,
}

#[derive(Serialize)]
struct Cap<'a> {
    account: &'static str,
    name: &'a str,
    window: &'static str,
}

#[derive(Serialize)]
struct ApprovalRequested<'a> {
    request_id: &'a str,
    session_id: &'a str,
    agent_id: &'a str,
    tool: &'a str,
    action: &'a str,
    amount: Usd,
    currency: &'a str,
    description: &'a str,
    reason: &'a str,
    expires_at: Epoch,
    required_approvals: u8,
    /// Links to the page where a person decides.
    approve_url: String,
    deny_url: String,
}

#[derive(Serialize)]
struct ApprovalDecided<'a> {
    request_id: &'a str,
    status: &'static str,
    session_id: String,
    agent_id: String,
    tool: String,
    action: String,
    amount: Usd,
    decided_by: &'a str,
    decision_note: &'a str,
}

#[derive(Serialize)]
struct EvidencePack<'a> {
    schedule_id: &'a str,
    schedule_name: String,
    cadence: &'static str,
    period_start: String,
    period_end: String,
    digest: String,
    pack: Box<RawValue>,
}

#[derive(Serialize)]
struct Anomaly<'a> {
    rule_id: u64,
    r#type: &'static str,
    agent_id: &'a str,
    session_id: &'a str,
    tool: &'a str,
    action: &'a str,
    reason: &'a str,
    cost_usd: Usd,
    subject_seq: u64,
    evidence: &'a [u64],
}

#[derive(Serialize)]
struct Flagged<'a> {
    entry_id: &'a str,
    session_id: &'a str,
    agent_id: &'a str,
    tool: &'a str,
    action: &'a str,
    reason: &'a str,
    cost_usd: Usd,
}

#[derive(Serialize)]
struct ToolQuarantined<'a> {
    upstream: &'a str,
    /// The tools that changed or appeared, and may not be called until somebody accepts them.
    tools: Vec<&'a str>,
}

#[derive(Serialize)]
struct Test {
    webhook_id: u64,
    message: &'static str,
}

/// The body of the notification of an event; `None` for events of which nobody is told.
///
/// # Errors
///
/// [`OperationError::Internal`] when it cannot be written as JSON, which all can.
pub fn body(app: &App, tenant: &TenantId, recorded: &Recorded) -> Result<Option<Vec<u8>>, OperationError> {
    let Some((topic, _)) = notice_of(&recorded.event) else {
        return Ok(None);
    };
    let common = Common {
        event: topic.name(),
        event_id: event_id(tenant, recorded.seq),
        timestamp: Epoch(recorded.at),
        source: "haldir",
        seq: recorded.seq,
    };
    match &recorded.event {
        Event::SessionRevoked(event) => written(&session_revoked(app, tenant, &event.session_id)?, &common),
        Event::PaymentDenied(event) => {
            let cap = cap_of(app, tenant, &event.session_id)?;
            written(&budget_exhausted(event, cap), &common)
        }
        Event::CallDenied(event) => {
            let cap = cap_of(app, tenant, &event.session_id)?;
            written(&budget_exhausted_by_call(event, cap), &common)
        }
        Event::ToolsObserved(event) => written(&tool_quarantined(event), &common),
        Event::ApprovalRequested(event) => written(&approval_requested(app, tenant, event), &common),
        Event::ApprovalGranted(event) => {
            let decided = ("approved", event.decider.as_str(), event.note.as_str());
            written(&approval_decided(app, tenant, &event.approval_id, decided)?, &common)
        }
        Event::ApprovalDenied(event) => {
            let decided = ("denied", event.decider.as_str(), event.note.as_str());
            written(&approval_decided(app, tenant, &event.approval_id, decided)?, &common)
        }
        Event::ApprovalExpired(event) => {
            written(&approval_decided(app, tenant, &event.approval_id, ("expired", "", ""))?, &common)
        }
        Event::ScheduleRan(event) => written(&evidence_pack(app, tenant, recorded.seq, event)?, &common),
        Event::ActionLogged(event) => written(&flagged(event), &common),
        Event::AnomalyDetected(event) => written(&anomaly(event), &common),
        Event::WebhookTested(event) => {
            let message = "A test: this webhook works, and its signature can be checked.";
            written(&Test { webhook_id: event.webhook_id, message }, &common)
        }
        _ => Ok(None),
    }
}

/// The session's own cap, which never changes.
fn cap_of(app: &App, tenant: &TenantId, session_id: &SessionId) -> Result<Option<Money>, OperationError> {
    app.with_tenant(tenant, |tenant| tenant.sessions.get(session_id).and_then(|session| session.budget.cap))
}

/// Below a session that was revoked nothing is opened any more, so what is below it stays as it is.
fn session_revoked<'a>(
    app: &App,
    tenant: &TenantId,
    session_id: &'a SessionId,
) -> Result<SessionRevoked<'a>, OperationError> {
    app.with_tenant(tenant, |tenant| {
        let agent_id = tenant.sessions.get(session_id).map(|session| session.agent_id.to_string());
        let below = tenant.sessions.descendants(session_id);
        let named = below.iter().take(DESCENDANTS_NAMED_MAX);
        SessionRevoked {
            session_id: session_id.as_str(),
            agent_id: agent_id.unwrap_or_default(),
            descendants: named.map(|(id, _)| id.to_string()).collect(),
            descendant_count: below.len(),
        }
    })
}

fn approval_requested<'a>(
    app: &App,
    tenant: &TenantId,
    event: &'a approvals::ApprovalRequested,
) -> ApprovalRequested<'a> {
    let url = Link::url(app, tenant, &event.approval_id);
    ApprovalRequested {
        request_id: event.approval_id.as_str(),
        session_id: event.subject.session_id.as_str(),
        agent_id: event.agent_id.as_str(),
        tool: &event.subject.tool,
        action: &event.subject.action,
        amount: Usd(event.amount),
        currency: &event.subject.currency,
        description: &event.subject.description,
        reason: &event.reason,
        expires_at: Epoch::or_zero(event.expires_at),
        required_approvals: event.required,
        approve_url: format!("{url}&verdict=approve"),
        deny_url: format!("{url}&verdict=deny"),
    }
}

fn approval_decided<'a>(
    app: &App,
    tenant: &TenantId,
    approval_id: &'a ApprovalId,
    (status, decided_by, decision_note): (&'static str, &'a str, &'a str),
) -> Result<ApprovalDecided<'a>, OperationError> {
    let asked = app.with_tenant(tenant, |tenant| tenant.approvals.get(approval_id).cloned())?;
    let subject = asked.as_ref().map(|asked| &asked.subject);
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    Ok(ApprovalDecided {
        request_id: approval_id.as_str(),
        status,
        session_id: text(subject.map(|it| it.session_id.as_str())),
        agent_id: text(asked.as_ref().map(|it| it.agent_id.as_str())),
        tool: text(subject.map(|it| it.tool.as_str())),
        action: text(subject.map(|it| it.action.as_str())),
        amount: Usd(asked.as_ref().map_or(Money::ZERO, |it| it.amount)),
        decided_by,
        decision_note,
    })
}

/// A schedule may be gone by now, so its name and cadence are taken from where it ran.
fn evidence_pack<'a>(
    app: &App,
    tenant: &TenantId,
    seq: u64,
    event: &'a ScheduleRan,
) -> Result<EvidencePack<'a>, OperationError> {
    let present = app.with_tenant(tenant, |tenant| tenant.schedules.get(&event.schedule_id).cloned())?;
    let schedule = match present {
        Some(schedule) => Some(schedule),
        None => stream_at(&**app.ledger.store(), &**app.ledger.snapshots(), tenant, seq)?
            .and_then(|stream| stream.tenant.schedules.get(&event.schedule_id).cloned()),
    };
    let missing = || OperationError::Unavailable("an evidence pack is not there any more".to_owned());
    let schedule = schedule.ok_or_else(missing)?;
    let digest = event.pack.ok_or_else(missing)?.digest;
    let pack = app.ledger.store().side(tenant, SideKind::EvidencePack, &digest)?.ok_or_else(missing)?;
    let pack = String::from_utf8(pack).ok().and_then(|pack| RawValue::from_string(pack).ok());
    Ok(EvidencePack {
        schedule_id: event.schedule_id.as_str(),
        schedule_name: schedule.name,
        cadence: schedule.cadence.name(),
        period_start: iso(event.period_start),
        period_end: iso(event.period_end),
        digest: HEXLOWER.encode(&digest),
        pack: pack.ok_or_else(missing)?,
    })
}

/// What waits for somebody to accept it.
fn tool_quarantined(event: &ToolsObserved) -> ToolQuarantined<'_> {
    let changed = event.tools.iter().filter(|tool| !tool.is_trusted);
    ToolQuarantined { upstream: event.name.as_str(), tools: changed.map(|tool| tool.tool.as_str()).collect() }
}

/// What was spent is told from what was left: the session may have spent more since.
fn budget_exhausted(event: &PaymentDenied, cap: Option<Money>) -> BudgetExhausted<'_> {
    let (limit, remaining) = (cap.unwrap_or(Money::ZERO), event.remaining.unwrap_or(Money::ZERO));
    BudgetExhausted {
        session_id: event.session_id.as_str(),
        agent_id: event.agent_id.as_str(),
        spent: Usd(limit.minus(remaining)),
        limit: Usd(limit),
        remaining: Usd(remaining),
        amount: Usd(event.amount),
        currency: &event.currency,
        description: &event.description,
        authorization_id: event.authorization_id.as_str(),
        cap: event.bound.as_ref().map(Cap::of),
    }
}

/// A call is named by its own id, and described by what is called.
fn budget_exhausted_by_call(event: &CallDenied, cap: Option<Money>) -> BudgetExhausted<'_> {
    let (limit, remaining) = (cap.unwrap_or(Money::ZERO), event.remaining.unwrap_or(Money::ZERO));
    let own = Account::Session(event.session_id.clone());
    let is_own = |bound: &Bound| bound.account == own && bound.window == Window::Life;
    BudgetExhausted {
        session_id: event.session_id.as_str(),
        agent_id: event.agent_id.as_str(),
        spent: Usd(limit.minus(remaining)),
        limit: Usd(limit),
        remaining: Usd(remaining),
        amount: Usd(event.price.unwrap_or(Money::ZERO)),
        currency: "USD",
        description: &event.name,
        authorization_id: event.call_id.as_str(),
        cap: event.bound.as_ref().filter(|bound| !is_own(bound)).map(Cap::of),
    }
}

impl<'a> Cap<'a> {
    fn of(bound: &'a Bound) -> Self {
        let (account, name) = match &bound.account {
            Account::Session(session_id) => ("session", session_id.as_str()),
            Account::Agent(agent_id) => ("agent", agent_id.as_str()),
            Account::Tenant => ("tenant", ""),
        };
        Self { account, name, window: window_name(bound.window) }
    }
}

fn anomaly(event: &AnomalyDetected) -> Anomaly<'_> {
    Anomaly {
        rule_id: event.rule_id,
        r#type: event.rule_type.name(),
        agent_id: event.agent_id.as_str(),
        session_id: event.session_id.as_ref().map(SessionId::as_str).unwrap_or_default(),
        tool: &event.tool,
        action: &event.action,
        reason: &event.reason,
        cost_usd: Usd(event.amount),
        subject_seq: event.subject,
        evidence: &event.evidence,
    }
}

fn flagged(event: &ActionLogged) -> Flagged<'_> {
    Flagged {
        entry_id: event.entry_id.as_str(),
        session_id: event.session_id.as_str(),
        agent_id: event.agent_id.as_str(),
        tool: &event.tool,
        action: &event.action,
        reason: event.flag.as_deref().unwrap_or_default(),
        cost_usd: Usd(event.cost),
    }
}

/// One object of both. Put together as text: amounts are written digit by digit, and would not survive being read as numbers.
fn written(about: &impl Serialize, common: &Common) -> Result<Option<Vec<u8>>, OperationError> {
    let unwritable = |error: serde_json::Error| OperationError::Internal(error.to_string());
    let mut body = serde_json::to_vec(about).map_err(unwritable)?;
    let common = serde_json::to_vec(common).map_err(unwritable)?;
    body.pop();
    body.push(b',');
    body.extend_from_slice(&common[1..]);
    Ok(Some(body))
}
