//! Decides again what was decided: whether a recorded event is the one that the rules give.
//!
//! An event records the inputs of its decision. From them and the state before it the command is rebuilt and
//! [`decide`] is asked once more. So an entry that is validly signed but that the rules would never have given, such as a
//! payment beyond the budget, is found at its place.

use std::collections::VecDeque;

use super::accounts::{BudgetSet, SetBudget};
use super::anomalies::{AddRule, RemoveRule};
use super::approvals::{
    AddApprovalRule, DecideApproval, ExpireApproval, Origin, RemoveApprovalRule, RequestApproval, Verdict,
};
use super::audit::LogAction;
use super::budgets::{AuthorizePayment, PaymentDenial};
use super::calls::{AuthorizeCall, CallDenial, CompleteCall, SecretUse};
use super::compliance::{CreateSchedule, RecordRun, RemoveSchedule};
use super::custody::{RecordRepair, RotateSigner};
use super::id::{Actor, ApprovalId, EntryId, SessionId};
use super::keys::{DenyAccess, MintKey, RevokeKey};
use super::money::Money;
use super::policies::{AddPolicy, RemovePolicy};
use super::reservations::{
    ExpireReservation, PaymentReleased, ReleasePayment, ReservePayment, SettlePayment,
};
use super::scope::Grant;
use super::secrets::{DeleteSecret, ReadSecret, RecordVaultRotation, StoreSecret};
use super::sessions::{CheckPermission, OpenSession, RevokeSession};
use super::upstreams::{AcceptTool, ObserveTools, Pin, RegisterUpstream, RemoveUpstream, Sighting};
use super::usage::MeterUsage;
use super::webhooks::{
    RecordAttempt, RedeliverEvent, RegisterWebhook, RemoveWebhook, RotateWebhook, TestWebhook,
};
use super::{Command, Decision, Envelope, Event, RULES_REVISION, Recorded, Tenant, decide, record};

/// What is found when a recorded decision is taken again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rederived {
    /// The rules give the same event.
    Same,
    /// The rules give something else: what they give, in words.
    Different(String),
    /// The event was decided by a revision of the rules that this program does not have.
    UnknownRules(u32),
}

/// What the decision that is being looked at must still give: a decision can lead to several events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due(VecDeque<Recorded>);

impl Due {
    /// The next event that must follow; `None` when the decision is whole.
    #[must_use]
    pub fn next(&self) -> Option<&Recorded> {
        self.0.front()
    }
}

/// Decides again what led to `recorded`, in the state just before it.
///
/// `due` is carried from one entry of a stream to the next.
#[must_use]
pub fn rederive(before: &Tenant, due: &mut Due, recorded: &Recorded) -> Rederived {
    if recorded.rules != RULES_REVISION {
        return Rederived::UnknownRules(recorded.rules);
    }
    let given = match due.0.pop_front() {
        Some(next) => Ok(next),
        None => decide_again(before, due, recorded),
    };
    match given {
        Ok(given) if given == *recorded => Rederived::Same,
        Ok(given) if given.event.kind_name() == recorded.event.kind_name() => {
            Rederived::Different(format!("{} with other content", given.event.kind_name()))
        }
        Ok(given) => Rederived::Different(given.event.kind_name().to_owned()),
        Err(otherwise) => Rederived::Different(otherwise),
    }
}

/// The first event that the rules give, or what they do instead.
fn decide_again(before: &Tenant, due: &mut Due, recorded: &Recorded) -> Result<Recorded, String> {
    let command = command_of(&recorded.event);
    let command = command.ok_or("nothing: only another event of the same decision leads to it")?;
    let envelope = Envelope {
        seq: recorded.seq,
        at: recorded.at,
        actor: recorded.actor.clone(),
        request_id: recorded.request_id.clone(),
        idempotency: recorded.idempotency.clone(),
        // Only the first caller's minting depends on the deployment, and it founds a stream or is not the first.
        is_deployment_new: recorded.actor == Actor::FirstCaller && recorded.seq == 0,
        command,
    };
    match decide(before, &envelope) {
        Ok(Decision::Events(events)) => {
            let mut given = record(&envelope, events);
            let first = given.next().ok_or("nothing at all")?;
            due.0.extend(given);
            Ok(first)
        }
        Ok(Decision::Replay { seq }) => Err(format!("a repetition of the event at seq {seq}")),
        Err(refusal) => Err(format!("a refusal: {refusal}")),
    }
}

/// The command that can have led to an event; `None` when another event of the decision came first. What a denial does not
/// record made no difference to it, and the flag of an action is for the rules to say.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
fn command_of(event: &Event) -> Option<Command> {
    Some(match event.clone() {
        Event::KeyMinted(it) => {
            Command::MintKey(MintKey { prefix: it.prefix, hash: it.hash, name: it.name, scopes: it.scopes })
        }
        Event::KeyRevoked(it) => Command::RevokeKey(RevokeKey { prefix: it.prefix }),
        Event::AccessDenied(it) => {
            Command::DenyAccess(DenyAccess { required: it.required, operation: it.operation })
        }
        Event::SessionOpened(it) => Command::OpenSession(OpenSession {
            session_id: it.session_id,
            agent_id: it.agent_id,
            grant: Grant { scopes: it.scopes, cap: it.cap },
            scopes_are_default: false,
            ttl_s: it.ttl_s,
            agent_limit: it.agent_limit,
            parent: it.parent,
        }),
        Event::SessionDenied(it) => Command::OpenSession(OpenSession {
            session_id: SessionId::parse("")?,
            agent_id: it.agent_id,
            grant: Grant { scopes: vec![], cap: None },
            scopes_are_default: false,
            ttl_s: 0,
            agent_limit: Some(it.agent_limit),
            parent: None,
        }),
        Event::SessionRevoked(it) => Command::RevokeSession(RevokeSession { session_id: it.session_id }),
        Event::PermissionChecked(it) => {
            Command::CheckPermission(CheckPermission { session_id: it.session_id, scope: it.scope })
        }
        Event::DelegationDenied(it) => Command::OpenSession(OpenSession {
            session_id: SessionId::parse("")?,
            agent_id: it.agent_id,
            grant: Grant { scopes: it.scopes, cap: it.cap },
            scopes_are_default: false,
            ttl_s: 0,
            agent_limit: None,
            parent: Some(it.parent),
        }),
        Event::PaymentAuthorized(it) => Command::AuthorizePayment(AuthorizePayment {
            authorization_id: it.authorization_id,
            session_id: it.session_id,
            amount: it.amount,
            currency: it.currency,
            description: it.description,
            tool: it.tool,
            action: it.action,
            approval_id: it.approval_id,
            request_id: ApprovalId::parse("")?,
        }),
        Event::PaymentDenied(it) => {
            let was_named = it.reason == PaymentDenial::ApprovalNotCovering;
            Command::AuthorizePayment(AuthorizePayment {
                authorization_id: it.authorization_id,
                session_id: it.session_id,
                amount: it.amount,
                currency: it.currency,
                description: it.description,
                tool: it.tool,
                action: it.action,
                approval_id: it.approval_id.clone().filter(|_| was_named),
                request_id: it.approval_id.unwrap_or(ApprovalId::parse("")?),
            })
        }
        Event::PaymentReserved(it) => Command::ReservePayment(ReservePayment {
            payment: AuthorizePayment {
                authorization_id: it.authorization_id,
                session_id: it.session_id,
                amount: it.amount,
                currency: it.currency,
                description: it.description,
                tool: it.tool,
                action: it.action,
                approval_id: it.approval_id,
                request_id: ApprovalId::parse("")?,
            },
            ttl_s: it.ttl_s,
        }),
        Event::PaymentSettled(it) => Command::SettlePayment(SettlePayment {
            authorization_id: it.authorization_id,
            amount: Some(it.amount),
        }),
        Event::SettlementDenied(it) => Command::SettlePayment(SettlePayment {
            authorization_id: it.authorization_id,
            amount: Some(it.amount),
        }),
        Event::PaymentReleased(PaymentReleased { authorization_id, has_expired: true, .. }) => {
            Command::ExpireReservation(ExpireReservation { authorization_id })
        }
        Event::PaymentReleased(PaymentReleased { authorization_id, .. }) => {
            Command::ReleasePayment(ReleasePayment { authorization_id })
        }
        Event::BudgetSet(BudgetSet { account, window, limit }) => {
            Command::SetBudget(SetBudget { account, window, limit })
        }
        Event::ApprovalRuleAdded(it) => Command::AddApprovalRule(AddApprovalRule { rule: it.rule }),
        Event::ApprovalRuleRemoved(it) => {
            Command::RemoveApprovalRule(RemoveApprovalRule { rule_id: it.rule_id })
        }
        Event::ApprovalRequested(it) => match it.origin {
            // The denial of the payment or the call leads to it.
            Origin::Payment | Origin::Call => return None,
            Origin::Caller => Command::RequestApproval(RequestApproval {
                approval_id: it.approval_id,
                subject: it.subject,
                amount: it.amount,
                reason: it.reason,
                ttl_s: it.ttl_s,
                required: it.required,
            }),
        },
        Event::ApprovalGranted(it) => Command::DecideApproval(DecideApproval {
            approval_id: it.approval_id,
            verdict: Verdict::Approve { amount: it.amount, ttl_s: it.ttl_s },
            decider: it.decider,
            note: it.note,
        }),
        Event::ApprovalDenied(it) => Command::DecideApproval(DecideApproval {
            approval_id: it.approval_id,
            verdict: Verdict::Deny,
            decider: it.decider,
            note: it.note,
        }),
        Event::ApprovalExpired(it) => Command::ExpireApproval(ExpireApproval { approval_id: it.approval_id }),
        Event::SecretStored(it) => Command::StoreSecret(StoreSecret {
            name: it.name,
            required_scope: it.required_scope,
            digest: it.digest,
            sealed_len: it.sealed_len,
        }),
        Event::SecretRead(it) => Command::ReadSecret(ReadSecret {
            session_id: it.session_id,
            name: it.name,
            version: Some(it.version),
            opened: Some(it.digest),
        }),
        Event::SecretDenied(it) => Command::ReadSecret(ReadSecret {
            session_id: it.session_id,
            name: it.name,
            version: it.version,
            opened: None,
        }),
        Event::SecretDeleted(it) => {
            Command::DeleteSecret(DeleteSecret { name: it.name, version: it.version })
        }
        Event::VaultRotated(rotation) => Command::RecordVaultRotation(RecordVaultRotation { rotation }),
        Event::UpstreamRegistered(it) => Command::RegisterUpstream(RegisterUpstream {
            name: it.name,
            transport: it.transport,
            tools: it.tools,
        }),
        Event::UpstreamRemoved(it) => Command::RemoveUpstream(RemoveUpstream { name: it.name }),
        Event::ToolsObserved(it) => {
            let pin = |seen: Sighting| Pin { tool: seen.tool, digest: seen.digest };
            let tools = it.tools.into_iter().map(pin).collect();
            Command::ObserveTools(ObserveTools { name: it.name, tools })
        }
        Event::ToolAccepted(it) => Command::AcceptTool(AcceptTool {
            name: it.name,
            tool: it.tool,
            digest: it.digest,
            decider: it.decider,
            note: it.note,
        }),
        Event::PolicyAdded(it) => Command::AddPolicy(AddPolicy { policy: it.policy }),
        Event::PolicyRemoved(it) => Command::RemovePolicy(RemovePolicy { policy_id: it.policy_id }),
        Event::CallAuthorized(it) => Command::AuthorizeCall(AuthorizeCall {
            call_id: it.call_id,
            session_id: it.session_id,
            method: it.method,
            upstream: Some(it.upstream),
            name: it.name,
            facts: it.facts,
            registration: Some(it.registration),
            arguments: it.arguments,
            secrets: it.secrets,
            approval_id: it.approval_id,
            request_id: ApprovalId::parse("")?,
        }),
        Event::CallDenied(it) => {
            let was_named = it.reason == CallDenial::ApprovalNotCovering;
            let missed = |name| SecretUse { name, opened: None };
            Command::AuthorizeCall(AuthorizeCall {
                call_id: it.call_id,
                session_id: it.session_id,
                method: it.method,
                upstream: it.upstream,
                name: it.name,
                facts: it.facts,
                registration: it.registration,
                arguments: it.arguments,
                secrets: it.secret.map(missed).into_iter().collect(),
                approval_id: it.approval_id.clone().filter(|_| was_named),
                request_id: it.approval_id.unwrap_or(ApprovalId::parse("")?),
            })
        }
        Event::CallCompleted(it) => Command::CompleteCall(CompleteCall {
            call_id: it.call_id,
            outcome: it.outcome,
            duration_us: it.duration_us,
            details_digest: it.details_digest,
        }),
        Event::ActionLogged(it) => Command::LogAction(LogAction {
            entry_id: it.entry_id,
            session_id: it.session_id,
            action: it.action,
            tool: it.tool,
            cost: it.cost,
            details_digest: it.details_digest,
        }),
        Event::ActionRejected(it) => Command::LogAction(LogAction {
            entry_id: EntryId::parse("")?,
            session_id: it.session_id,
            action: it.action,
            tool: it.tool,
            cost: Money::ZERO,
            details_digest: None,
        }),
        Event::UsageMetered(it) => Command::MeterUsage(MeterUsage { month: it.month, keys: it.keys }),
        Event::SignerRotated(it) => Command::RotateSigner(RotateSigner { public_key: it.public_key }),
        Event::LedgerRepaired(it) => Command::RecordRepair(RecordRepair {
            kept: it.kept,
            restored: it.restored,
            lost: it.lost,
            damage: it.damage,
            source: it.source,
        }),
        Event::ScheduleCreated(it) => Command::CreateSchedule(CreateSchedule {
            schedule_id: it.schedule_id,
            name: it.name,
            cadence: it.cadence,
            delivery: it.delivery,
        }),
        Event::ScheduleRemoved(it) => Command::RemoveSchedule(RemoveSchedule { schedule_id: it.schedule_id }),
        Event::ScheduleRan(it) => Command::RecordRun(RecordRun {
            result: it.result()?,
            schedule_id: it.schedule_id,
            period_end: it.period_end,
        }),
        Event::WebhookRegistered(it) => Command::RegisterWebhook(RegisterWebhook {
            url: it.url,
            name: it.name,
            events: it.events,
            secret_digest: it.secret_digest,
        }),
        Event::WebhookRemoved(it) => Command::RemoveWebhook(RemoveWebhook { webhook_id: it.webhook_id }),
        Event::WebhookRotated(it) => Command::RotateWebhook(RotateWebhook {
            webhook_id: it.webhook_id,
            secret_digest: it.secret_digest,
            grace_s: it.grace_s,
        }),
        Event::WebhookAttempted(it) => Command::RecordAttempt(RecordAttempt {
            webhook_id: it.webhook_id,
            source_seq: it.source_seq,
            outcome: it.outcome,
            duration_ms: it.duration_ms,
            excerpt_digest: it.excerpt_digest,
            retry_at: it.retry_at,
        }),
        Event::WebhookRedelivered(it) => {
            Command::RedeliverEvent(RedeliverEvent { webhook_id: it.webhook_id, source_seq: it.source_seq })
        }
        Event::WebhookTested(it) => Command::TestWebhook(TestWebhook { webhook_id: it.webhook_id }),
        Event::AnomalyRuleAdded(it) => Command::AddAnomalyRule(AddRule { rule: it.rule }),
        Event::AnomalyRuleRemoved(it) => Command::RemoveAnomalyRule(RemoveRule { rule_id: it.rule_id }),
        // Follows what it is about.
        Event::AnomalyDetected(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::domain::apply;
    use crate::domain::id::RequestId;
    use crate::domain::keys::tests::{agent_id, given, moment, opened, paid, session_id, usd};

    use super::*;

    #[test]
    fn what_the_rules_never_gave_is_found() {
        let state = given([Event::SessionOpened(opened("s", Some("5")))]).state().clone();
        let recorded = |event| Recorded {
            seq: 1,
            at: moment(9),
            rules: RULES_REVISION,
            actor: Actor::Operator,
            request_id: RequestId::parse("r").unwrap(),
            idempotency: None,
            event,
        };
        let is_different = |event| {
            matches!(rederive(&state, &mut Due::default(), &recorded(event)), Rederived::Different(_))
        };
        assert_eq!(
            rederive(&state, &mut Due::default(), &recorded(paid("s", "5", Some("0")))),
            Rederived::Same
        );
        assert!(is_different(paid("s", "5.000000001", Some("0"))), "more than the budget holds");
        assert!(is_different(paid("s", "1", Some("5"))), "a remainder that is not debited");
        assert!(is_different(paid("t", "1", Some("4"))), "a session that never was");

        let late = Recorded { rules: RULES_REVISION + 1, ..recorded(paid("s", "9", None)) };
        assert_eq!(rederive(&state, &mut Due::default(), &late), Rederived::UnknownRules(RULES_REVISION + 1));
    }

    #[test]
    fn a_payment_is_judged_by_the_state_just_before_it() {
        let mut state = given([Event::SessionOpened(opened("s", Some("5")))]).state().clone();
        let pay = |seq, amount, remaining| Recorded {
            seq,
            at: moment(seq),
            rules: RULES_REVISION,
            actor: Actor::Operator,
            request_id: RequestId::parse("r").unwrap(),
            idempotency: None,
            event: paid("s", amount, Some(remaining)),
        };
        let first = pay(1, "3", "2");
        assert_eq!(rederive(&state, &mut Due::default(), &first), Rederived::Same);
        apply(&mut state, &first);
        assert_eq!(rederive(&state, &mut Due::default(), &pay(2, "2", "0")), Rederived::Same);
        assert!(matches!(rederive(&state, &mut Due::default(), &pay(2, "3", "2")), Rederived::Different(_)));
        let session = state.sessions.get(&session_id("s")).unwrap();
        assert_eq!((&session.agent_id, session.budget.spent()), (&agent_id("agent"), usd("3")));
    }
}
