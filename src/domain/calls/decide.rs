//! How a call is decided: everything that can stand in its way, in order.

use super::{AuthorizeCall, CallAuthorized, CallDenial, CallDenied, Method, may_call, policy_name};
use crate::domain::accounts::{self, Room};
use crate::domain::approvals::{self, Origin, RequestApproval, Subject};
use crate::domain::clearance::{Clearance, clearance};
use crate::domain::id::{AgentId, ApprovalId};
use crate::domain::limits::{CALL_APPROVAL_TTL_S, OPEN_CALL_COUNT_MAX};
use crate::domain::money::Money;
use crate::domain::policies::{self, Amount, Facts, Judgement};
use crate::domain::scope::SPEND;
use crate::domain::secrets::{self, Judged, ReadSecret, SecretName, SecretRead};
use crate::domain::sessions::{Session, Standing};
use crate::domain::time::Timestamp;
use crate::domain::upstreams::{PinnedTool, ToolStanding, UpstreamName};
use crate::domain::{Event, Refusal, Tenant};

/// How a decision about a call comes out, before it is put into events.
enum Verdict {
    Denied(CallDenial),
    ByPolicy(u64),
    OverBudget(Money, Room),
    Secret(SecretName),
    Approval(CallDenial, ApprovalId),
    /// An approval must be asked for, and so many must approve.
    Ask(u8),
    Cleared(Box<Cleared>),
}

struct Cleared {
    upstream: UpstreamName,
    registration: u64,
    name: String,
    price: Option<Money>,
    remaining: Option<Money>,
    approval_id: Option<ApprovalId>,
    reads: Vec<SecretRead>,
}

/// What is called, as far as it is known.
struct Target {
    upstream: Option<UpstreamName>,
    registration: Option<u64>,
    name: String,
}

impl Target {
    fn of(tenant: &Tenant, command: &AuthorizeCall) -> Self {
        let resolved = match (&command.upstream, command.method) {
            (Some(upstream), _) => Some((upstream, command.name.clone())),
            (None, Method::Tool) => tenant.upstreams.resolve(&command.name),
            (None, Method::Resource | Method::Prompt) => None,
        };
        let (upstream, name) = resolved.unzip();
        Self {
            registration: upstream.and_then(|it| tenant.upstreams.get(it)).map(|it| it.seq),
            upstream: upstream.cloned(),
            name: name.unwrap_or_else(|| command.name.clone()),
        }
    }
}

/// What everything that is looked at says of a call. Pure, and used to explain decisions that are not taken as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// What the policies say.
    pub judgement: Judgement,
    /// The events that the decision would have.
    pub events: Vec<Event>,
}

/// What would be decided about a call, and why.
///
/// # Errors
///
/// The [`Refusal`] that the call would meet.
pub fn explain(tenant: &Tenant, at: Timestamp, command: &AuthorizeCall) -> Result<Explained, Refusal> {
    let target = Target::of(tenant, command);
    let session = tenant.sessions.get(&command.session_id).ok_or(Refusal::SessionUnknown)?;
    let judgement = judge(tenant, session, at, command, &target);
    Ok(Explained { judgement, events: authorize(tenant, at, command)? })
}

fn judge(
    tenant: &Tenant,
    session: &Session,
    at: Timestamp,
    command: &AuthorizeCall,
    target: &Target,
) -> Judgement {
    let known = target.upstream.as_ref().map(|upstream| policy_name(command.method, upstream, &target.name));
    let name = known.as_deref().unwrap_or(&target.name);
    let recent = tenant.calls.recent(&session.agent_id, at);
    policies::judge(&tenant.policies, policies::Subject { name, facts: &command.facts, recent })
}

pub(in crate::domain) fn authorize(
    tenant: &Tenant,
    at: Timestamp,
    command: &AuthorizeCall,
) -> Result<Vec<Event>, Refusal> {
    let session = tenant.sessions.get(&command.session_id).ok_or(Refusal::SessionUnknown)?;
    let target = Target::of(tenant, command);
    if command.facts.revision != tenant.policies.revision() || command.registration != target.registration {
        return Err(Refusal::CallStale);
    }
    if tenant.calls.open.len() >= OPEN_CALL_COUNT_MAX {
        return Err(Refusal::TooManyCalls);
    }
    if tenant.calls.get(&command.call_id).is_some() {
        return Err(Refusal::CallIdTaken);
    }
    let deny = |reason| denial(command, &session.agent_id, &target, reason);
    let denied = |change: &dyn Fn(&mut CallDenied), reason| {
        let mut event = deny(reason);
        change(&mut event);
        vec![Event::CallDenied(event)]
    };
    Ok(match verdict(tenant, session, at, command, &target)? {
        Verdict::Denied(reason) => denied(&|_| {}, reason),
        Verdict::ByPolicy(id) => denied(&|event| event.policy_id = Some(id), CallDenial::Policy),
        Verdict::OverBudget(price, room) => {
            let over = |event: &mut CallDenied| {
                event.price = Some(price);
                event.remaining = room.remaining;
                event.bound.clone_from(&room.exceeded);
            };
            denied(&over, CallDenial::BudgetExceeded)
        }
        Verdict::Secret(name) => denied(&|event| event.secret = Some(name.clone()), CallDenial::SecretDenied),
        Verdict::Approval(reason, id) => denied(&|event| event.approval_id = Some(id.clone()), reason),
        Verdict::Ask(required) => {
            let request = RequestApproval {
                approval_id: command.request_id.clone(),
                subject: subject_of(command, &target),
                amount: amount_of(&judge(tenant, session, at, command, &target), &command.facts),
                reason: String::new(),
                ttl_s: CALL_APPROVAL_TTL_S,
                required,
            };
            let id = request.approval_id.clone();
            let asked = approvals::ask(&tenant.approvals, &session.agent_id, at, request, Origin::Call)?;
            let mut events =
                denied(&|event| event.approval_id = Some(id.clone()), CallDenial::ApprovalRequired);
            events.push(asked);
            events
        }
        Verdict::Cleared(cleared) => authorized(command, &session.agent_id, *cleared),
    })
}

fn authorized(command: &AuthorizeCall, agent_id: &AgentId, cleared: Cleared) -> Vec<Event> {
    let Cleared { upstream, registration, name, price, remaining, approval_id, reads } = cleared;
    let call = Event::CallAuthorized(CallAuthorized {
        call_id: command.call_id.clone(),
        session_id: command.session_id.clone(),
        agent_id: agent_id.clone(),
        method: command.method,
        upstream,
        registration,
        name,
        facts: command.facts.clone(),
        arguments: command.arguments,
        price,
        remaining,
        approval_id,
        secrets: command.secrets.clone(),
    });
    [call].into_iter().chain(reads.into_iter().map(Event::SecretRead)).collect()
}

fn denial(command: &AuthorizeCall, agent_id: &AgentId, target: &Target, reason: CallDenial) -> CallDenied {
    CallDenied {
        call_id: command.call_id.clone(),
        session_id: command.session_id.clone(),
        agent_id: agent_id.clone(),
        method: command.method,
        upstream: target.upstream.clone(),
        registration: target.registration,
        name: target.name.clone(),
        facts: command.facts.clone(),
        arguments: command.arguments,
        reason,
        policy_id: None,
        price: None,
        remaining: None,
        bound: None,
        approval_id: None,
        secret: None,
    }
}

/// Looks at everything that can stand in the way of a call.
fn verdict(
    tenant: &Tenant,
    session: &Session,
    at: Timestamp,
    command: &AuthorizeCall,
    target: &Target,
) -> Result<Verdict, Refusal> {
    let denied = |reason| Ok(Verdict::Denied(reason));
    match tenant.sessions.standing(session, at) {
        Standing::Revoked => return denied(CallDenial::SessionRevoked),
        Standing::Expired => return denied(CallDenial::SessionExpired),
        Standing::Live => {}
    }
    let Some((upstream, registration)) = target.upstream.clone().zip(target.registration) else {
        return denied(CallDenial::ToolUnknown);
    };
    if command.method == Method::Tool {
        let tool = tenant.upstreams.get(&upstream).and_then(|it| it.tool(&target.name));
        match tool.map(PinnedTool::standing) {
            None | Some(ToolStanding::Gone) => return denied(CallDenial::ToolUnknown),
            Some(ToolStanding::Quarantined) => return denied(CallDenial::ToolQuarantined),
            Some(ToolStanding::Trusted) => {}
        }
    }
    if !may_call(session, &upstream, &target.name) {
        return denied(CallDenial::ScopeMissing);
    }
    let judgement = judge(tenant, session, at, command, target);
    if let Some((policy_id, _)) = judgement.denied {
        return Ok(Verdict::ByPolicy(policy_id));
    }
    let price = judgement.price.filter(|price| *price > Money::ZERO);
    let room = match price {
        None => Room { exceeded: None, remaining: None },
        Some(_) if !session.grants(SPEND) => return denied(CallDenial::SpendScopeMissing),
        Some(price) => accounts::room(&tenant.sessions, &tenant.accounts, &command.session_id, price, at)?,
    };
    if let Some(price) = price
        && room.exceeded.is_some()
    {
        return Ok(Verdict::OverBudget(price, room));
    }
    let reads = match reads(tenant, at, command)? {
        Ok(reads) => reads,
        Err(name) => return Ok(Verdict::Secret(name)),
    };
    let subject = subject_of(command, target);
    let amount = amount_of(&judgement, &command.facts);
    let wanted = judgement
        .approval
        .map(|(_, required)| required)
        .max(wanted_for_nonsense(tenant, command, &judgement, &subject));
    let named = command.approval_id.as_ref();
    let approval_id = match clearance(&tenant.approvals, &subject, amount, wanted, named, at) {
        Clearance::NotNeeded => None,
        Clearance::Covered(id) => Some(id),
        Clearance::NotCovered(id) => return Ok(Verdict::Approval(CallDenial::ApprovalNotCovering, id)),
        Clearance::Denied(id) => return Ok(Verdict::Approval(CallDenial::ApprovalDenied, id)),
        Clearance::Waits(id) => return Ok(Verdict::Approval(CallDenial::ApprovalRequired, id)),
        Clearance::Needed(required) => return Ok(Verdict::Ask(required)),
    };
    let remaining = price.and_then(|price| room.remaining.map(|left| left.minus(price)));
    let name = target.name.clone();
    Ok(Verdict::Cleared(Box::new(Cleared {
        upstream,
        registration,
        name,
        price,
        remaining,
        approval_id,
        reads,
    })))
}

/// The reading of every secret that a call needs; or the first that the session may not have.
fn reads(
    tenant: &Tenant,
    at: Timestamp,
    command: &AuthorizeCall,
) -> Result<Result<Vec<SecretRead>, SecretName>, Refusal> {
    let mut reads = Vec::new();
    let mut is_stale = false;
    for used in &command.secrets {
        let ask = ReadSecret {
            session_id: command.session_id.clone(),
            name: used.name.clone(),
            version: None,
            opened: used.opened,
        };
        match secrets::judge(&tenant.sessions, &tenant.secrets, at, &ask) {
            Judged::Denied(_) => return Ok(Err(used.name.clone())),
            Judged::Granted(version, agent_id) => {
                is_stale |= used.opened != Some(version.digest);
                reads.push(SecretRead {
                    name: ask.name,
                    version: version.number,
                    session_id: ask.session_id,
                    agent_id: agent_id.clone(),
                    digest: version.digest,
                });
            }
        }
    }
    if is_stale { Err(Refusal::SecretMoved) } else { Ok(Ok(reads)) }
}

/// What an approval of a call is for: exactly this, with these arguments.
fn subject_of(command: &AuthorizeCall, target: &Target) -> Subject {
    Subject {
        session_id: command.session_id.clone(),
        tool: target.upstream.as_ref().map(UpstreamName::to_string).unwrap_or_default(),
        action: target.name.clone(),
        currency: String::new(),
        description: String::new(),
        arguments: Some(command.arguments),
    }
}

/// How many must approve a call whose amount is none: an upstream may read it as any amount, so as many as for the largest.
fn wanted_for_nonsense(
    tenant: &Tenant,
    command: &AuthorizeCall,
    judgement: &Judgement,
    subject: &Subject,
) -> Option<u8> {
    let is_nonsense = judgement.price.is_none() && command.facts.amount == Amount::Invalid;
    let largest = Money::from_nanos(u128::MAX);
    is_nonsense.then(|| tenant.approvals.required(&subject.tool, &subject.action, largest)).flatten()
}

/// What rules about approvals take for the amount of a call.
fn amount_of(judgement: &Judgement, facts: &Facts) -> Money {
    match (judgement.price, facts.amount) {
        (Some(price), _) => price,
        (None, Amount::Is(amount)) => amount,
        (None, Amount::Absent | Amount::Invalid) => Money::ZERO,
    }
}
