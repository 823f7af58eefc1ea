//! Calls through the proxy: intent, effect, outcome.
//!
//! A call is authorised in one decision that looks at the session, the tool, the policies, the budgets, the approvals and the
//! secrets. Only when that is durable is it forwarded, and what became of it is recorded as well. A call whose outcome is
//! missing is unconfirmed: it may have happened, and what it costs stays set aside.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::accounts::{self, Accounts, Bound};
use super::approvals::{self, Approvals};
use super::audit::ActionLogged;
use super::id::{AgentId, ApprovalId, AuthorizationId, CallId, EntryId, SessionId};
use super::money::Money;
use super::policies::{Facts, Policies};
use super::secrets::{SealDigest, SecretName};
use super::sessions::{Session, Sessions};
use super::table::Table;
use super::time::Timestamp;
use super::upstreams::UpstreamName;
use super::{Event, Refusal, Tenant};

mod decide;

pub(super) use decide::authorize;
pub use decide::{Explained, explain};

/// The action under which calls stand in the audit trail. The contract's name.
pub const AUDIT_ACTION: &str = "proxy_call";
/// Microseconds for which calls count against a limit of calls per minute.
const RATE_WINDOW_US: u64 = 60_000_000;

/// What is asked of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Call a tool.
    Tool,
    /// Read a resource.
    Resource,
    /// Get a prompt.
    Prompt,
}

/// Call something through the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizeCall {
    /// The id that the call gets.
    pub call_id: CallId,
    /// The session that calls.
    pub session_id: SessionId,
    /// What is asked.
    pub method: Method,
    /// The upstream; `None` looks for it by the name.
    pub upstream: Option<UpstreamName>,
    /// The tool, as called; or a resource's address, or a prompt's name.
    pub name: String,
    /// What the policies have to know.
    pub facts: Facts,
    /// Where the upstream was registered that the call was prepared for.
    pub registration: Option<u64>,
    /// Digest of the arguments.
    pub arguments: [u8; 32],
    /// The secrets that the call needs, each with the sealed value that was opened for it.
    pub secrets: Vec<SecretUse>,
    /// The approval to use; `None` looks for one.
    pub approval_id: Option<ApprovalId>,
    /// The id of the request for an approval, if one must be made.
    pub request_id: ApprovalId,
}

/// A secret that a call needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Which secret.
    pub name: SecretName,
    /// The sealed value that was opened; `None` when there was none to open.
    pub opened: Option<SealDigest>,
}

/// Record what became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteCall {
    /// Which call.
    pub call_id: CallId,
    /// What became of it.
    pub outcome: Outcome,
    /// Microseconds that it took.
    pub duration_us: u64,
    /// Salted digest of what is kept of it.
    pub details_digest: Option<[u8; 32]>,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The upstream gave a result.
    Succeeded,
    /// The upstream gave a result that says that it failed.
    Failed,
    /// The upstream answered with an error of the protocol.
    Refused,
    /// The upstream was not reached: nothing happened.
    NotSent,
    /// The connection broke. Whether anything happened is unknown.
    Lost,
    /// There was no answer in time. Whether anything happened is unknown.
    TimedOut,
    /// The answer was larger than is taken.
    TooLarge,
    /// The caller did not want it any more, or its session ended.
    Cancelled,
}

/// A call was authorised. It is forwarded when this is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallAuthorized {
    /// The call.
    pub call_id: CallId,
    /// The session that calls.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// What is asked.
    pub method: Method,
    /// Of which upstream.
    pub upstream: UpstreamName,
    /// Where in the stream that was registered.
    pub registration: u64,
    /// The tool; or a resource's address, or a prompt's name.
    pub name: String,
    /// What the policies had to know.
    pub facts: Facts,
    /// Digest of the arguments.
    pub arguments: [u8; 32],
    /// What it costs; set aside until the outcome is known.
    pub price: Option<Money>,
    /// What the caps still hold with it; `None` when there is no cap.
    pub remaining: Option<Money>,
    /// The approval that it used.
    pub approval_id: Option<ApprovalId>,
    /// The secrets that it needs.
    pub secrets: Vec<SecretUse>,
}

/// A call was denied. Nothing was forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallDenied {
    /// The id that the call would have had.
    pub call_id: CallId,
    /// The session that asked.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// What was asked.
    pub method: Method,
    /// Of which upstream, as far as that is known.
    pub upstream: Option<UpstreamName>,
    /// Where in the stream that was registered.
    pub registration: Option<u64>,
    /// The tool; or a resource's address, or a prompt's name.
    pub name: String,
    /// What the policies had to know.
    pub facts: Facts,
    /// Digest of the arguments.
    pub arguments: [u8; 32],
    /// Why.
    pub reason: CallDenial,
    /// The policy that decided.
    pub policy_id: Option<u64>,
    /// What it would have cost, when a cap does not hold that.
    pub price: Option<Money>,
    /// What the caps still held then.
    pub remaining: Option<Money>,
    /// Which cap does not hold the price.
    pub bound: Option<Bound>,
    /// The approval that it is about.
    pub approval_id: Option<ApprovalId>,
    /// The secret that the session may not use, or that there is not.
    pub secret: Option<SecretName>,
}

/// Why a call is denied, in the order in which the reasons are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallDenial {
    /// The session was revoked.
    SessionRevoked,
    /// The session's time is over.
    SessionExpired,
    /// No upstream has this tool.
    ToolUnknown,
    /// The tool changed since it was pinned.
    ToolQuarantined,
    /// The session holds no scope that lets it call this.
    ScopeMissing,
    /// A policy is against it.
    Policy,
    /// It costs something, and the session does not hold the scope `spend`.
    SpendScopeMissing,
    /// A budget does not hold what it costs.
    BudgetExceeded,
    /// The session may not use a secret that it needs, or there is none.
    SecretDenied,
    /// The approval that was named does not cover it.
    ApprovalNotCovering,
    /// It was not approved when it was asked for before.
    ApprovalDenied,
    /// It waits for an approval.
    ApprovalRequired,
}

impl CallDenial {
    /// Whether a retry with the same idempotency key repeats the denial. What people decide later must be able to count.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::ToolUnknown
            | Self::ScopeMissing
            | Self::Policy
            | Self::SpendScopeMissing
            | Self::BudgetExceeded => true,
            Self::SessionRevoked
            | Self::SessionExpired
            | Self::ToolQuarantined
            | Self::SecretDenied
            | Self::ApprovalNotCovering
            | Self::ApprovalDenied
            | Self::ApprovalRequired => false,
        }
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallCompleted {
    /// Which call.
    pub call_id: CallId,
    /// What became of it.
    pub outcome: Outcome,
    /// Microseconds that it took.
    pub duration_us: u64,
    /// What was paid for it.
    pub charged: Option<Money>,
    /// Salted digest of what is kept of it.
    pub details_digest: Option<[u8; 32]>,
}

/// The tenant's calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Calls without an outcome.
    open: Table<CallId, Arc<OpenCall>>,
    /// When agents acted in the last minute, while a policy limits that.
    recent: Table<(AgentId, Timestamp), ()>,
    /// The audit entry that belongs to the outcome just before: the call was counted when it was authorised.
    counted: Option<EntryId>,
    /// Calls that were authorised.
    authorized: u64,
    /// Calls that were denied.
    denied: u64,
}

/// A call without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCall {
    /// The session that called.
    pub session_id: SessionId,
    /// Its agent.
    pub agent_id: AgentId,
    /// What was asked.
    pub method: Method,
    /// Of which upstream.
    pub upstream: UpstreamName,
    /// The tool; or a resource's address, or a prompt's name.
    pub name: String,
    /// What is set aside for it.
    pub price: Option<Money>,
    /// When it was authorised.
    pub at: Timestamp,
    /// Where in the stream.
    pub seq: u64,
}

impl Calls {
    /// Calls without an outcome, in the order of ids.
    pub fn open(&self) -> impl Iterator<Item = (&CallId, &OpenCall)> {
        self.open.into_iter().map(|(id, call)| (id, &**call))
    }

    /// A call without an outcome.
    #[must_use]
    pub fn get(&self, id: &CallId) -> Option<&OpenCall> {
        self.open.get(id).map(|call| &**call)
    }

    /// Calls that were ever authorised.
    #[must_use]
    pub const fn authorized(&self) -> u64 {
        self.authorized
    }

    /// Calls that were ever denied.
    #[must_use]
    pub const fn denied(&self) -> u64 {
        self.denied
    }

    /// How often an agent acted in the 60 seconds before `at`.
    #[must_use]
    pub fn recent(&self, agent_id: &AgentId, at: Timestamp) -> u64 {
        let since = Timestamp::from_micros(at.micros().saturating_sub(RATE_WINDOW_US) + 1);
        let range = (agent_id.clone(), since)..=(agent_id.clone(), Timestamp::from_micros(u64::MAX));
        self.recent.range(range).count() as u64
    }

    fn count(&mut self, agent_id: &AgentId, at: Timestamp) {
        let before = Timestamp::from_micros(at.micros().saturating_sub(RATE_WINDOW_US));
        let old = (agent_id.clone(), Timestamp::default())..=(agent_id.clone(), before);
        let old: Vec<_> = self.recent.range(old).map(|(key, ())| key.clone()).collect();
        for key in old {
            self.recent.remove_cow(&key);
        }
        self.recent.insert_cow((agent_id.clone(), at), ());
    }
}

/// Whether a session may call something of an upstream at all: by `execute` or `read`, or by one of these narrowed to the
/// upstream or the tool.
#[must_use]
pub fn may_call(session: &Session, upstream: &UpstreamName, name: &str) -> bool {
    ["execute", "read"].iter().any(|scope| {
        session.grants(&format!("{scope}:{upstream}"))
            || session.grants(&format!("{scope}:{upstream}.{name}"))
    })
}

/// The name under which policies know what is called.
#[must_use]
pub fn policy_name(method: Method, upstream: &UpstreamName, name: &str) -> String {
    match method {
        Method::Tool => format!("{upstream}.{name}"),
        Method::Resource => format!("{upstream}.resources/read"),
        Method::Prompt => format!("{upstream}.prompts/get"),
    }
}

pub(super) fn complete(calls: &Calls, command: &CompleteCall) -> Result<Vec<Event>, Refusal> {
    let call = calls.get(&command.call_id).ok_or(Refusal::CallUnknown)?;
    let charged = call.price.filter(|_| command.outcome != Outcome::NotSent);
    let completed = Event::CallCompleted(CallCompleted {
        call_id: command.call_id.clone(),
        outcome: command.outcome,
        duration_us: command.duration_us,
        charged,
        details_digest: command.details_digest,
    });
    let logged = Event::ActionLogged(ActionLogged {
        entry_id: EntryId::of_call(&command.call_id),
        session_id: call.session_id.clone(),
        agent_id: call.agent_id.clone(),
        action: AUDIT_ACTION.to_owned(),
        tool: policy_name(call.method, &call.upstream, &call.name),
        cost: charged.unwrap_or(Money::ZERO),
        details_digest: command.details_digest,
        flag: None,
    });
    Ok(vec![completed, logged])
}

pub(super) fn apply_authorized(tenant: &mut Tenant, seq: u64, at: Timestamp, event: &CallAuthorized) {
    let Tenant { sessions, accounts, approvals, calls, policies, .. } = tenant;
    if let Some(price) = event.price {
        accounts::hold(sessions, accounts, &event.session_id, price);
    }
    use_up(approvals, event);
    calls.authorized += 1;
    calls.open.insert_cow(
        event.call_id.clone(),
        Arc::new(OpenCall {
            session_id: event.session_id.clone(),
            agent_id: event.agent_id.clone(),
            method: event.method,
            upstream: event.upstream.clone(),
            name: event.name.clone(),
            price: event.price,
            at,
            seq,
        }),
    );
    count(calls, policies, &event.agent_id, at);
}

fn use_up(approvals: &mut Approvals, event: &CallAuthorized) {
    let by = AuthorizationId::parse(event.call_id.as_str());
    if let Some((approval_id, by)) = event.approval_id.as_ref().zip(by) {
        approvals::apply_used(approvals, approval_id, &by);
    }
}

pub(super) fn apply_denied(calls: &mut Calls) {
    calls.denied += 1;
}

/// Ends a call, and gives what was paid for it.
pub(super) fn apply_completed(tenant: &mut Tenant, at: Timestamp, event: &CallCompleted) -> Option<Money> {
    let Tenant { sessions, accounts, calls, upstreams, .. } = tenant;
    let call = calls.open.remove_cow(&event.call_id)?;
    calls.counted = Some(EntryId::of_call(&event.call_id));
    upstreams.change(&call.upstream, |upstream| {
        upstream.calls += 1;
        upstream.errors += u64::from(event.outcome != Outcome::Succeeded);
        upstream.duration_us = upstream.duration_us.saturating_add(event.duration_us);
    });
    settle(sessions, accounts, &call, event.charged, at);
    event.charged
}

fn settle(
    sessions: &mut Sessions,
    accounts: &mut Accounts,
    call: &OpenCall,
    charged: Option<Money>,
    at: Timestamp,
) {
    if let Some(price) = call.price {
        accounts::let_go(sessions, accounts, &call.session_id, price);
    }
    if let Some(charged) = charged {
        accounts::debit(sessions, accounts, &call.session_id, charged, at);
    }
}

/// Counts what an agent logged. What belongs to a call was counted with the call.
pub(super) fn apply_logged(calls: &mut Calls, policies: &Policies, at: Timestamp, event: &ActionLogged) {
    if calls.counted.take().as_ref() != Some(&event.entry_id) {
        count(calls, policies, &event.agent_id, at);
    }
}

fn count(calls: &mut Calls, policies: &Policies, agent_id: &AgentId, at: Timestamp) {
    if policies.limits_rates() {
        calls.count(agent_id, at);
    }
}

/// Forgets what no limit counts any more. What is left counts again should the policy come back, as one does whose place in
/// the set changes.
pub(super) fn apply_policy_removed(calls: &mut Calls, at: Timestamp) {
    let before = at.micros().saturating_sub(RATE_WINDOW_US);
    let is_old = |(_, acted): &&(AgentId, Timestamp)| acted.micros() <= before;
    let old: Vec<_> = calls.recent.into_iter().map(|(key, ())| key).filter(is_old).cloned().collect();
    for key in old {
        calls.recent.remove_cow(&key);
    }
}

#[cfg(test)]
mod tests;
