//! Payments: an amount is debited from everybody's budget whom it counts against, never one billionth too much.

use serde::{Deserialize, Serialize};

use super::accounts::{self, Account, Accounts, Bound, Room, Tally, Window};
use super::approvals::{self, Approvals, Origin, RequestApproval, Subject};
use super::clearance::{Clearance, clearance};
use super::id::{AgentId, ApprovalId, AuthorizationId, SessionId};
use super::limits::PAYMENT_APPROVAL_TTL_S;
use super::money::Money;
use super::scope::SPEND;
use super::sessions::{Sessions, Standing};
use super::time::Timestamp;
use super::{Event, Refusal, Tenant};

/// Spend from a session's budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizePayment {
    /// The id that the authorisation gets if it is given.
    pub authorization_id: AuthorizationId,
    /// The session that pays.
    pub session_id: SessionId,
    /// How much.
    pub amount: Money,
    /// The currency code, not interpreted.
    pub currency: String,
    /// What for.
    pub description: String,
    /// With which tool, for the rules of approvals; may be empty.
    pub tool: String,
    /// By which action, for the rules of approvals; may be empty.
    pub action: String,
    /// The approval to use; `None` looks for one.
    pub approval_id: Option<ApprovalId>,
    /// The id of the request for an approval, if one must be made.
    pub request_id: ApprovalId,
}

/// A payment was authorised and debited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentAuthorized {
    /// The authorisation.
    pub authorization_id: AuthorizationId,
    /// The session that paid.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// How much.
    pub amount: Money,
    /// The currency code.
    pub currency: String,
    /// What for.
    pub description: String,
    /// With which tool; may be empty.
    pub tool: String,
    /// By which action; may be empty.
    pub action: String,
    /// The approval that it used.
    pub approval_id: Option<ApprovalId>,
    /// What the caps still hold after this payment; `None` when there is no cap.
    pub remaining: Option<Money>,
}

/// A payment was denied. Nothing was debited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentDenied {
    /// The id that the authorisation would have had.
    pub authorization_id: AuthorizationId,
    /// The session that asked.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// How much was asked for.
    pub amount: Money,
    /// The currency code.
    pub currency: String,
    /// What for.
    pub description: String,
    /// With which tool; may be empty.
    pub tool: String,
    /// By which action; may be empty.
    pub action: String,
    /// What the caps held; `None` when there is no cap.
    pub remaining: Option<Money>,
    /// Why.
    pub reason: PaymentDenial,
    /// Which cap does not hold it; `None` for the session's own, and when it is not for a cap.
    pub bound: Option<Bound>,
    /// The approval that it is about.
    pub approval_id: Option<ApprovalId>,
}

/// Why a payment is denied, in the order in which the reasons are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentDenial {
    /// The session was revoked.
    SessionRevoked,
    /// The session's time is over.
    SessionExpired,
    /// The session does not hold the scope `spend`.
    SpendScopeMissing,
    /// A budget does not hold that much any more.
    BudgetExceeded,
    /// The approval that was named does not cover it.
    ApprovalNotCovering,
    /// It was not approved when it was asked for before.
    ApprovalDenied,
    /// It waits for an approval.
    ApprovalRequired,
}

impl PaymentDenial {
    /// Whether a retry with the same idempotency key repeats the denial. A dead session is an authentication
    /// failure on the wire, which the contract never stores, and what people decide later must be able to count.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::SpendScopeMissing | Self::BudgetExceeded => true,
            Self::SessionRevoked
            | Self::SessionExpired
            | Self::ApprovalNotCovering
            | Self::ApprovalDenied
            | Self::ApprovalRequired => false,
        }
    }
}

/// What a tenant paid in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payments {
    /// Payments that were authorised, and reservations that were settled.
    pub authorized: u64,
    /// What they come to.
    pub total: Money,
}

/// A session's budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The most that may be spent; `None` is no cap.
    pub cap: Option<Money>,
    /// What was spent and is set aside, by the session and every session below it.
    pub tally: Tally,
    /// What the session spent itself.
    pub own_spent: Money,
}

impl Budget {
    /// A budget of which nothing was spent.
    #[must_use]
    pub fn of(cap: Option<Money>) -> Self {
        Self { cap, tally: Tally::default(), own_spent: Money::ZERO }
    }

    /// What was spent, by the session and every session below it.
    #[must_use]
    pub const fn spent(&self) -> Money {
        self.tally.spent
    }

    /// What may still be spent, as far as the session's own cap goes; `None` when there is none.
    #[must_use]
    pub fn remaining(&self) -> Option<Money> {
        self.cap.map(|cap| cap.minus(self.tally.spent).minus(self.tally.held))
    }
}

/// A payment that nothing stands in the way of.
pub(super) struct Cleared {
    pub(super) agent_id: AgentId,
    /// What the caps still hold with it.
    pub(super) remaining: Option<Money>,
    /// The approval that it uses.
    pub(super) approval_id: Option<ApprovalId>,
}

/// Looks at everything that can stand in the way of a payment. If something does, the inner error tells what happens.
pub(super) fn clear(
    tenant: &Tenant,
    at: Timestamp,
    command: &AuthorizePayment,
) -> Result<Result<Cleared, Vec<Event>>, Refusal> {
    let Tenant { sessions, accounts, approvals, .. } = tenant;
    let AuthorizePayment { session_id, amount, .. } = command;
    let session = sessions.get(session_id).ok_or(Refusal::SessionUnknown)?;
    let room = accounts::room(sessions, accounts, session_id, *amount, at)?;
    let agent_id = &session.agent_id;
    let deny = |reason, approval_id| Ok(Err(vec![denied(command, agent_id, &room, reason, approval_id)]));

    match sessions.standing(session, at) {
        Standing::Revoked => return deny(PaymentDenial::SessionRevoked, None),
        Standing::Expired => return deny(PaymentDenial::SessionExpired, None),
        Standing::Live if !session.grants(SPEND) => return deny(PaymentDenial::SpendScopeMissing, None),
        Standing::Live if room.exceeded.is_some() => return deny(PaymentDenial::BudgetExceeded, None),
        Standing::Live => {}
    }
    let subject = subject_of(command);
    let approval_id = match clearance(approvals, &subject, *amount, None, command.approval_id.as_ref(), at) {
        Clearance::NotNeeded => None,
        Clearance::Covered(id) => Some(id),
        Clearance::NotCovered(id) => return deny(PaymentDenial::ApprovalNotCovering, Some(id)),
        Clearance::Denied(id) => return deny(PaymentDenial::ApprovalDenied, Some(id)),
        Clearance::Waits(id) => return deny(PaymentDenial::ApprovalRequired, Some(id)),
        Clearance::Needed(required) => {
            let request = RequestApproval {
                approval_id: command.request_id.clone(),
                subject,
                amount: *amount,
                reason: String::new(),
                ttl_s: PAYMENT_APPROVAL_TTL_S,
                required,
            };
            let id = Some(request.approval_id.clone());
            let asked = approvals::ask(approvals, agent_id, at, request, Origin::Payment)?;
            let denied = denied(command, agent_id, &room, PaymentDenial::ApprovalRequired, id);
            return Ok(Err(vec![denied, asked]));
        }
    };
    let remaining = room.remaining.map(|left| left.minus(*amount));
    Ok(Ok(Cleared { agent_id: agent_id.clone(), remaining, approval_id }))
}

/// What an approval of a payment is for.
fn subject_of(command: &AuthorizePayment) -> Subject {
    Subject {
        session_id: command.session_id.clone(),
        tool: command.tool.clone(),
        action: command.action.clone(),
        currency: command.currency.clone(),
        description: command.description.clone(),
        arguments: None,
    }
}

fn denied(
    command: &AuthorizePayment,
    agent_id: &AgentId,
    room: &Room,
    reason: PaymentDenial,
    approval_id: Option<ApprovalId>,
) -> Event {
    let own = Bound { account: Account::Session(command.session_id.clone()), window: Window::Life };
    let bound =
        room.exceeded.clone().filter(|bound| reason == PaymentDenial::BudgetExceeded && *bound != own);
    Event::PaymentDenied(PaymentDenied {
        authorization_id: command.authorization_id.clone(),
        session_id: command.session_id.clone(),
        agent_id: agent_id.clone(),
        amount: command.amount,
        currency: command.currency.clone(),
        description: command.description.clone(),
        tool: command.tool.clone(),
        action: command.action.clone(),
        remaining: room.remaining,
        reason,
        bound,
        approval_id,
    })
}

pub(super) fn authorize(
    tenant: &Tenant,
    at: Timestamp,
    command: &AuthorizePayment,
) -> Result<Vec<Event>, Refusal> {
    let Cleared { agent_id, remaining, approval_id } = match clear(tenant, at, command)? {
        Ok(cleared) => cleared,
        Err(denied) => return Ok(denied),
    };
    Ok(vec![Event::PaymentAuthorized(PaymentAuthorized {
        authorization_id: command.authorization_id.clone(),
        session_id: command.session_id.clone(),
        agent_id,
        amount: command.amount,
        currency: command.currency.clone(),
        description: command.description.clone(),
        tool: command.tool.clone(),
        action: command.action.clone(),
        approval_id,
        remaining,
    })])
}

pub(super) fn apply_authorized(
    sessions: &mut Sessions,
    accounts: &mut Accounts,
    approvals: &mut Approvals,
    at: Timestamp,
    event: &PaymentAuthorized,
) {
    accounts::debit(sessions, accounts, &event.session_id, event.amount, at);
    if let Some(approval_id) = &event.approval_id {
        approvals::apply_used(approvals, approval_id, &event.authorization_id);
    }
}

/// Counts what was paid.
pub(super) fn count(payments: &mut Payments, amount: Money) {
    payments.authorized += 1;
    payments.total = payments.total.plus(amount).unwrap_or(payments.total);
}

#[cfg(test)]
mod tests {
    use crate::domain::Command;
    use crate::domain::keys::tests::{
        Story, agent_id, authorization_id, given, moment, opened, paid, session_id, session_revoked, usd,
    };
    use crate::domain::sessions::SessionOpened;

    use super::*;

    #[test]
    fn a_budget_is_spent_to_the_last_billionth_and_not_further() {
        given([Event::SessionOpened(opened("s", Some("10")))])
            .when(pay("s", "9.999999999"))
            .then([paid("s", "9.999999999", Some("0.000000001"))])
            .when(pay("s", "0.000000002"))
            .then([denied("s", "0.000000002", Some("0.000000001"), PaymentDenial::BudgetExceeded)])
            .when(pay("s", "0.000000001"))
            .then([paid("s", "0.000000001", Some("0"))])
            .when(pay("s", "0.000000001"))
            .then([denied("s", "0.000000001", Some("0"), PaymentDenial::BudgetExceeded)])
            .when(pay("s", "0"))
            .then([paid("s", "0", Some("0"))]);
    }

    #[test]
    fn each_session_has_a_budget_of_its_own() {
        given([Event::SessionOpened(opened("s", Some("1"))), Event::SessionOpened(opened("t", Some("2")))])
            .when(pay("s", "1"))
            .then([paid("s", "1", Some("0"))])
            .when(pay("t", "2"))
            .then([paid("t", "2", Some("0"))])
            .when(pay("u", "0"))
            .refused(Refusal::SessionUnknown);
    }

    #[test]
    fn no_cap_is_no_limit_and_a_cap_of_nothing_is_nothing() {
        let story = given([Event::SessionOpened(opened("s", None))]);
        let story = story.when(pay("s", "1000000000000")).then([paid("s", "1000000000000", None)]);
        assert_eq!(budget(&story).spent(), Money::INPUT_MAX);
        assert_eq!(budget(&story).remaining(), None);

        let story = given([Event::SessionOpened(opened("s", Some("0")))]);
        story.when(pay("s", "0.000000001")).then([denied(
            "s",
            "0.000000001",
            Some("0"),
            PaymentDenial::BudgetExceeded,
        )]);
    }

    #[test]
    fn the_first_reason_to_deny_is_given_and_nothing_is_debited() {
        let session = |scopes: &[&str]| {
            let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
            let expires_at = Some(moment(60));
            Event::SessionOpened(SessionOpened { scopes, expires_at, ..opened("s", Some("5")) })
        };
        let poor = ["read", "spend:refunds"];
        for (history, seconds, reason) in [
            (vec![session(&poor), session_revoked("s")], 61, PaymentDenial::SessionRevoked),
            (vec![session(&poor)], 61, PaymentDenial::SessionExpired),
            (vec![session(&poor)], 60, PaymentDenial::SpendScopeMissing),
            (vec![session(&["spend"])], 60, PaymentDenial::BudgetExceeded),
            (vec![session(&["admin"])], 60, PaymentDenial::BudgetExceeded),
        ] {
            let story = given(history).when(pay("s", "6")).at(moment(seconds));
            let story = story.then([denied("s", "6", Some("5"), reason)]);
            assert_eq!(budget(&story).spent(), Money::ZERO);
        }
    }

    #[test]
    fn only_denials_by_what_the_session_holds_are_final() {
        assert!(PaymentDenial::BudgetExceeded.is_final() && PaymentDenial::SpendScopeMissing.is_final());
        assert!(!PaymentDenial::SessionRevoked.is_final() && !PaymentDenial::SessionExpired.is_final());
    }

    #[test]
    fn a_sum_that_cannot_be_recorded_is_refused() {
        let most = Money::from_nanos(u128::MAX);
        let Command::AuthorizePayment(asked) = pay("s", "0") else { unreachable!() };
        let Event::PaymentAuthorized(event) = paid("s", "0", None) else { unreachable!() };
        let all = Event::PaymentAuthorized(PaymentAuthorized { amount: most, ..event });
        let story = given([Event::SessionOpened(opened("s", None))]);
        let story = story.when(Command::AuthorizePayment(AuthorizePayment { amount: most, ..asked }));
        let story = story.then([all]);
        let story = story.when(pay("s", "0.000000001")).refused(Refusal::SumTooLarge);
        story.when(pay("s", "0")).then([paid("s", "0", None)]);
    }

    fn budget(story: &Story) -> &Budget {
        &story.state().sessions.get(&session_id("s")).unwrap().budget
    }

    fn pay(name: &str, amount: &str) -> Command {
        Command::AuthorizePayment(AuthorizePayment {
            authorization_id: authorization_id(),
            session_id: session_id(name),
            amount: usd(amount),
            currency: "USD".to_owned(),
            description: "what for".to_owned(),
            tool: String::new(),
            action: String::new(),
            approval_id: None,
            request_id: ApprovalId::parse("").unwrap(),
        })
    }

    fn denied(name: &str, amount: &str, remaining: Option<&str>, reason: PaymentDenial) -> Event {
        Event::PaymentDenied(PaymentDenied {
            authorization_id: authorization_id(),
            session_id: session_id(name),
            agent_id: agent_id("agent"),
            amount: usd(amount),
            currency: "USD".to_owned(),
            description: "what for".to_owned(),
            remaining: remaining.map(usd),
            reason,
            tool: String::new(),
            action: String::new(),
            bound: None,
            approval_id: None,
        })
    }
}
