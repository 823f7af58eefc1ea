//! Approvals: what waits for a human, and what the human said.
//!
//! Rules say which payments and tool calls need an approval. A request names exactly what it is for: the session, the tool,
//! the action, the amount and the arguments. Approved, it covers that once, until its time is over; whoever approves may
//! narrow it to a lower amount or a shorter time. Several deciders may be needed, each other than the rest.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{AgentId, ApprovalId, AuthorizationId, SessionId};
use super::limits::{APPROVAL_PENDING_COUNT_MAX, APPROVAL_RULE_COUNT_MAX};
use super::money::Money;
use super::sessions::{Sessions, Standing};
use super::table::Table;
use super::time::Timestamp;
use super::{Command, Event, Refusal};

/// Actions that the rule type `destructive` is about.
const DESTRUCTIVE: [&str; 4] = ["delete", "write", "execute", "send"];

/// Add a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddApprovalRule {
    /// The rule.
    pub rule: Rule,
}

/// Remove a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveApprovalRule {
    /// Which rule.
    pub rule_id: u64,
}

/// Ask for an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestApproval {
    /// The id that the request gets.
    pub approval_id: ApprovalId,
    /// What it is for.
    pub subject: Subject,
    /// How much; zero when it is not about money.
    pub amount: Money,
    /// Why it is asked for.
    pub reason: String,
    /// Seconds until it expires; 0 is never.
    pub ttl_s: u64,
    /// How many must approve, unless a rule wants more.
    pub required: u8,
}

/// Decide about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecideApproval {
    /// Which request.
    pub approval_id: ApprovalId,
    /// What is decided.
    pub verdict: Verdict,
    /// Who decides.
    pub decider: String,
    /// What they say about it.
    pub note: String,
}

/// What somebody decides about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, perhaps within narrower bounds.
    Approve {
        /// At most so much, instead of what was asked.
        amount: Option<Money>,
        /// Only for so many seconds from now.
        ttl_s: Option<u64>,
    },
    /// No.
    Deny,
}

/// Record that a request was not decided in its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpireApproval {
    /// Which request.
    pub approval_id: ApprovalId,
}

/// A rule was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRuleAdded {
    /// Its number among the tenant's rules, from 1.
    pub rule_id: u64,
    /// The rule.
    pub rule: Rule,
}

/// A rule was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRuleRemoved {
    /// Which rule.
    pub rule_id: u64,
}

/// An approval was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRequested {
    /// The request.
    pub approval_id: ApprovalId,
    /// What it is for.
    pub subject: Subject,
    /// The session's agent.
    pub agent_id: AgentId,
    /// How much.
    pub amount: Money,
    /// Why it is asked for.
    pub reason: String,
    /// Seconds until it expires; 0 is never.
    pub ttl_s: u64,
    /// When that is.
    pub expires_at: Option<Timestamp>,
    /// How many must approve.
    pub required: u8,
    /// Who asked.
    pub origin: Origin,
}

/// Somebody approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalGranted {
    /// Which request.
    pub approval_id: ApprovalId,
    /// Who.
    pub decider: String,
    /// What they said about it.
    pub note: String,
    /// At most so much, instead of what was asked.
    pub amount: Option<Money>,
    /// Only for so many seconds from now.
    pub ttl_s: Option<u64>,
    /// Until when it can be used; `None` is for ever.
    pub usable_until: Option<Timestamp>,
    /// How many more must approve.
    pub missing: u8,
}

/// Somebody denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalDenied {
    /// Which request.
    pub approval_id: ApprovalId,
    /// Who.
    pub decider: String,
    /// What they said about it.
    pub note: String,
}

/// Nobody decided in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalExpired {
    /// Which request.
    pub approval_id: ApprovalId,
}

/// What needs an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `all`, `spend_over`, `tool_blocked` or `destructive`. A rule of another type never applies.
    pub kind: String,
    /// The amount over which `spend_over` applies.
    pub threshold: Money,
    /// The tools to which `tool_blocked` applies.
    pub tools: Vec<String>,
    /// How many must approve.
    pub required: u8,
}

/// What an approval is for: it covers this and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The session that acts.
    pub session_id: SessionId,
    /// With which tool; may be empty.
    pub tool: String,
    /// What it does; may be empty.
    pub action: String,
    /// The currency code; empty when it is not about money.
    pub currency: String,
    /// What for.
    pub description: String,
    /// Digest of the arguments; `None` when there are none.
    pub arguments: Option<[u8; 32]>,
}

/// Who asked for an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A caller, with a request of its own.
    Caller,
    /// A payment that a rule held up.
    Payment,
    /// A call through the proxy that a rule or a policy held up.
    Call,
}

/// The tenant's rules and requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    rules: Table<u64, Arc<Rule>>,
    rules_added: u64,
    by_id: Table<ApprovalId, Arc<Approval>>,
    /// Pending requests in the order in which they were made.
    pending: Table<u64, ApprovalId>,
    by_expiry: Table<(Timestamp, ApprovalId), ()>,
    /// Requests of a session that were not used up and did not expire.
    by_session: Table<(SessionId, u64), ApprovalId>,
}

/// A request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What it is for.
    pub subject: Subject,
    /// The session's agent.
    pub agent_id: AgentId,
    /// How much was asked for.
    pub amount: Money,
    /// Why it was asked for.
    pub reason: String,
    /// Who asked.
    pub origin: Origin,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it expires if nobody decides; `None` is never.
    pub expires_at: Option<Timestamp>,
    /// How many must approve.
    pub required: u8,
    /// Who approved so far.
    pub approved_by: Vec<String>,
    /// What became of it.
    pub status: Status,
    /// What the last decider said about it.
    pub note: String,
    /// The most that may be paid with it, when deciders narrowed it.
    pub amount_max: Option<Money>,
    /// Until when it can be used, once approved.
    pub usable_until: Option<Timestamp>,
    /// The payment or the call that used it.
    pub used_by: Option<AuthorizationId>,
    /// Its place in the stream.
    pub seq: u64,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Nobody, or not everybody who must, has decided.
    Pending,
    /// It may be used.
    Approved,
    /// It may not.
    Denied {
        /// Who said so.
        by: String,
    },
    /// Nobody decided in time.
    Expired,
}

impl Rule {
    fn applies(&self, tool: &str, action: &str, amount: Money) -> bool {
        match self.kind.as_str() {
            "all" => true,
            "spend_over" => amount > self.threshold,
            "tool_blocked" => self.tools.iter().any(|blocked| blocked == tool),
            "destructive" => DESTRUCTIVE.contains(&action),
            _ => false,
        }
    }
}

impl Approval {
    /// Whether nobody decided in time, recorded or not.
    #[must_use]
    pub fn has_expired(&self, at: Timestamp) -> bool {
        self.status == Status::Pending && self.expires_at.is_some_and(|end| at > end)
    }

    /// Whether it can still be used at `at`.
    #[must_use]
    pub fn is_usable(&self, at: Timestamp) -> bool {
        let in_time = self.usable_until.is_none_or(|end| at <= end);
        self.status == Status::Approved && self.used_by.is_none() && in_time
    }

    /// Whether it covers this amount: exactly what was asked for, or what deciders left of it.
    fn covers_amount(&self, amount: Money) -> bool {
        self.amount_max.map_or(amount == self.amount, |most| amount <= most)
    }

    /// Whether it covers a payment or a call. A caller that asks before it pays cannot know how the payment will be described;
    /// what it asks about a call are its very arguments.
    pub(super) fn covers(&self, subject: &Subject, amount: Money) -> bool {
        let is_same = match self.origin {
            Origin::Payment | Origin::Call => self.subject == *subject,
            Origin::Caller => {
                let fits = |asked: &str, paid: &str| paid.is_empty() || asked == paid;
                self.subject.session_id == subject.session_id
                    && fits(&self.subject.tool, &subject.tool)
                    && fits(&self.subject.action, &subject.action)
                    && fits(&subject.currency, &self.subject.currency)
                    && (subject.arguments.is_none() || self.subject.arguments == subject.arguments)
            }
        };
        is_same && self.covers_amount(amount)
    }
}

impl Approvals {
    /// A request, whatever became of it.
    #[must_use]
    pub fn get(&self, id: &ApprovalId) -> Option<&Approval> {
        self.by_id.get(id).map(|approval| &**approval)
    }

    /// Pending requests, newest first.
    pub fn pending(&self) -> impl Iterator<Item = (&ApprovalId, &Approval)> {
        let newest_first = self.pending.into_iter().rev();
        newest_first.filter_map(|(_, id)| self.by_id.get(id).map(|approval| (id, &**approval)))
    }

    /// Every request, in the order of ids.
    pub fn all(&self) -> impl Iterator<Item = (&ApprovalId, &Approval)> {
        self.by_id.into_iter().map(|(id, approval)| (id, &**approval))
    }

    /// The rules in the order in which they were added.
    pub fn rules(&self) -> impl Iterator<Item = (u64, &Rule)> {
        self.rules.into_iter().map(|(id, rule)| (*id, &**rule))
    }

    /// What was not decided in time at `at`, the oldest first.
    pub(super) fn due(&self, at: Timestamp) -> Option<Command> {
        let (first, ()) = self.by_expiry.into_iter().next()?;
        let (expires_at, approval_id) = first.clone();
        (at > expires_at).then_some(Command::ExpireApproval(ExpireApproval { approval_id }))
    }

    /// How many must approve; `None` when no rule applies.
    pub(super) fn required(&self, tool: &str, action: &str, amount: Money) -> Option<u8> {
        let applying = self.rules.into_iter().filter(|(_, rule)| rule.applies(tool, action, amount));
        applying.map(|(_, rule)| rule.required).max()
    }

    pub(super) fn of_session(
        &self,
        session_id: &SessionId,
    ) -> impl Iterator<Item = (&ApprovalId, &Approval)> {
        let range = (session_id.clone(), 0)..=(session_id.clone(), u64::MAX);
        self.by_session.range(range).filter_map(|(_, id)| Some((id, self.get(id)?)))
    }

    /// A request for the same that nobody decided yet.
    pub(super) fn pending_for(
        &self,
        subject: &Subject,
        amount: Money,
        at: Timestamp,
    ) -> Option<(&ApprovalId, &Approval)> {
        self.of_session(&subject.session_id).find(|(_, approval)| {
            approval.status == Status::Pending
                && !approval.has_expired(at)
                && approval.subject == *subject
                && approval.amount == amount
        })
    }

    fn change(&mut self, id: &ApprovalId, change: impl FnOnce(&mut Approval)) {
        if let Some(approval) = self.by_id.get_mut_cow(id) {
            change(Arc::make_mut(approval));
        }
    }

    /// Forgets that a request waits.
    fn settle(&mut self, id: &ApprovalId) {
        let Some(approval) = self.by_id.get(id) else { return };
        let (seq, expires_at) = (approval.seq, approval.expires_at);
        self.pending.remove_cow(&seq);
        if let Some(expires_at) = expires_at {
            self.by_expiry.remove_cow(&(expires_at, id.clone()));
        }
    }

    /// Forgets that a request could be of use to its session.
    fn close(&mut self, id: &ApprovalId) {
        let Some(approval) = self.by_id.get(id) else { return };
        let key = (approval.subject.session_id.clone(), approval.seq);
        self.by_session.remove_cow(&key);
    }
}

pub(super) fn add_rule(approvals: &Approvals, command: &AddApprovalRule) -> Result<Vec<Event>, Refusal> {
    if approvals.rules.len() >= APPROVAL_RULE_COUNT_MAX {
        return Err(Refusal::TooManyRules);
    }
    let rule_id = approvals.rules_added + 1;
    Ok(vec![Event::ApprovalRuleAdded(ApprovalRuleAdded { rule_id, rule: command.rule.clone() })])
}

pub(super) fn remove_rule(
    approvals: &Approvals,
    command: &RemoveApprovalRule,
) -> Result<Vec<Event>, Refusal> {
    let rule_id = command.rule_id;
    approvals.rules.get(&rule_id).ok_or(Refusal::RuleUnknown)?;
    Ok(vec![Event::ApprovalRuleRemoved(ApprovalRuleRemoved { rule_id })])
}

/// What asking for an approval leads to.
pub(super) enum Asked {
    /// It is asked for.
    Anew(Vec<Event>),
    /// It was asked for before, at this place in the stream, and nobody has decided yet.
    Before(u64),
}

pub(super) fn request(
    approvals: &Approvals,
    sessions: &Sessions,
    at: Timestamp,
    command: &RequestApproval,
) -> Result<Asked, Refusal> {
    let session_id = &command.subject.session_id;
    let session = sessions.get(session_id).ok_or(Refusal::SessionUnknown)?;
    match sessions.standing(session, at) {
        Standing::Live => {}
        Standing::Revoked | Standing::Expired => return Err(Refusal::SessionEnded),
    }
    if let Some((_, pending)) = approvals.pending_for(&command.subject, command.amount, at) {
        return Ok(Asked::Before(pending.seq));
    }
    let Subject { tool, action, .. } = &command.subject;
    let by_rule = approvals.required(tool, action, command.amount).unwrap_or(0);
    let command = RequestApproval { required: command.required.max(by_rule), ..command.clone() };
    ask(approvals, &session.agent_id, at, command, Origin::Caller).map(|event| Asked::Anew(vec![event]))
}

/// Asks for an approval of what a rule holds up, or of what a caller asked for.
pub(super) fn ask(
    approvals: &Approvals,
    agent_id: &AgentId,
    at: Timestamp,
    request: RequestApproval,
    origin: Origin,
) -> Result<Event, Refusal> {
    if approvals.by_id.get(&request.approval_id).is_some() {
        return Err(Refusal::ApprovalIdTaken);
    }
    if approvals.pending.len() >= APPROVAL_PENDING_COUNT_MAX {
        return Err(Refusal::TooManyPending);
    }
    Ok(Event::ApprovalRequested(ApprovalRequested {
        approval_id: request.approval_id,
        subject: request.subject,
        agent_id: agent_id.clone(),
        amount: request.amount,
        reason: request.reason,
        ttl_s: request.ttl_s,
        expires_at: (request.ttl_s > 0).then(|| at.plus_seconds(request.ttl_s)),
        required: request.required,
        origin,
    }))
}

pub(super) fn decide(
    approvals: &Approvals,
    at: Timestamp,
    command: &DecideApproval,
) -> Result<Vec<Event>, Refusal> {
    let approval = approvals.get(&command.approval_id).ok_or(Refusal::ApprovalUnknown)?;
    match approval.status {
        Status::Approved | Status::Denied { .. } => return Err(Refusal::ApprovalDecided),
        Status::Expired => return Err(Refusal::ApprovalExpired),
        Status::Pending if approval.has_expired(at) => return Err(Refusal::ApprovalExpired),
        Status::Pending => {}
    }
    let DecideApproval { approval_id, verdict, decider, note } = command.clone();
    let (amount, ttl_s) = match verdict {
        Verdict::Deny => {
            return Ok(vec![Event::ApprovalDenied(ApprovalDenied { approval_id, decider, note })]);
        }
        Verdict::Approve { amount, ttl_s } => (amount, ttl_s),
    };
    if approval.approved_by.contains(&decider) {
        return Err(Refusal::DeciderRepeated);
    }
    let most = approval.amount_max.unwrap_or(approval.amount);
    if amount.is_some_and(|amount| amount > most) {
        return Err(Refusal::ApprovalWidened);
    }
    let shorter = ttl_s.map(|ttl_s| at.plus_seconds(ttl_s));
    let ends = [approval.expires_at, approval.usable_until, shorter];
    let approved: BTreeSet<&String> = approval.approved_by.iter().chain([&decider]).collect();
    let given = u8::try_from(approved.len()).unwrap_or(u8::MAX);
    Ok(vec![Event::ApprovalGranted(ApprovalGranted {
        approval_id,
        note,
        amount,
        ttl_s,
        usable_until: ends.into_iter().flatten().min(),
        missing: approval.required.saturating_sub(given),
        decider,
    })])
}

pub(super) fn expire(
    approvals: &Approvals,
    at: Timestamp,
    command: &ExpireApproval,
) -> Result<Vec<Event>, Refusal> {
    let approval = approvals.get(&command.approval_id).ok_or(Refusal::ApprovalUnknown)?;
    if !approval.has_expired(at) {
        return Err(Refusal::NotDue);
    }
    let approval_id = command.approval_id.clone();
    Ok(vec![Event::ApprovalExpired(ApprovalExpired { approval_id })])
}

pub(super) fn apply_rule_added(approvals: &mut Approvals, event: &ApprovalRuleAdded) {
    approvals.rules_added = approvals.rules_added.max(event.rule_id);
    approvals.rules.insert_cow(event.rule_id, Arc::new(event.rule.clone()));
}

pub(super) fn apply_rule_removed(approvals: &mut Approvals, event: &ApprovalRuleRemoved) {
    approvals.rules.remove_cow(&event.rule_id);
}

pub(super) fn apply_requested(approvals: &mut Approvals, seq: u64, at: Timestamp, event: &ApprovalRequested) {
    let approval = Approval {
        subject: event.subject.clone(),
        agent_id: event.agent_id.clone(),
        amount: event.amount,
        reason: event.reason.clone(),
        origin: event.origin,
        created_at: at,
        expires_at: event.expires_at,
        required: event.required,
        approved_by: Vec::new(),
        status: Status::Pending,
        note: String::new(),
        amount_max: None,
        usable_until: None,
        used_by: None,
        seq,
    };
    let id = &event.approval_id;
    if let Some(expires_at) = event.expires_at {
        approvals.by_expiry.insert_cow((expires_at, id.clone()), ());
    }
    approvals.pending.insert_cow(seq, id.clone());
    approvals.by_session.insert_cow((event.subject.session_id.clone(), seq), id.clone());
    approvals.by_id.insert_cow(id.clone(), Arc::new(approval));
}

pub(super) fn apply_granted(approvals: &mut Approvals, event: &ApprovalGranted) {
    approvals.change(&event.approval_id, |approval| {
        approval.approved_by.push(event.decider.clone());
        approval.note.clone_from(&event.note);
        approval.amount_max = event.amount.or(approval.amount_max);
        approval.usable_until = event.usable_until;
        if event.missing == 0 {
            approval.status = Status::Approved;
        }
    });
    if event.missing == 0 {
        approvals.settle(&event.approval_id);
    }
}

pub(super) fn apply_denied(approvals: &mut Approvals, event: &ApprovalDenied) {
    approvals.change(&event.approval_id, |approval| {
        approval.status = Status::Denied { by: event.decider.clone() };
        approval.note.clone_from(&event.note);
    });
    approvals.settle(&event.approval_id);
}

pub(super) fn apply_expired(approvals: &mut Approvals, event: &ApprovalExpired) {
    approvals.change(&event.approval_id, |approval| approval.status = Status::Expired);
    approvals.settle(&event.approval_id);
    approvals.close(&event.approval_id);
}

pub(super) fn apply_used(approvals: &mut Approvals, id: &ApprovalId, by: &AuthorizationId) {
    approvals.change(id, |approval| approval.used_by = Some(by.clone()));
    approvals.close(id);
}

#[cfg(test)]
mod tests;
