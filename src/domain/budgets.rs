//! Budgets: what a session may spend, debited by authorised payments, never by one billionth too much.

use serde::{Deserialize, Serialize};

use super::id::{AgentId, AuthorizationId, SessionId};
use super::money::Money;
use super::scope::SPEND;
use super::sessions::{Sessions, Standing};
use super::time::Timestamp;
use super::{Event, Refusal};

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
    /// What the budget still holds after this payment; `None` when there is no cap.
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
    /// What the budget held; `None` when there is no cap.
    pub remaining: Option<Money>,
    /// Why.
    pub reason: PaymentDenial,
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
    /// The budget does not hold that much any more.
    BudgetExceeded,
}

impl PaymentDenial {
    /// Whether a retry with the same idempotency key repeats the denial. A dead session is an authentication
    /// failure on the wire, which the contract never stores.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::SpendScopeMissing | Self::BudgetExceeded => true,
            Self::SessionRevoked | Self::SessionExpired => false,
        }
    }
}

/// A session's budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The most that may be spent; `None` is no cap.
    pub cap: Option<Money>,
    /// What was spent.
    pub spent: Money,
}

impl Budget {
    /// What may still be spent; `None` when there is no cap.
    #[must_use]
    pub fn remaining(&self) -> Option<Money> {
        self.cap.map(|cap| cap.minus(self.spent))
    }
}

pub(super) fn authorize(
    sessions: &Sessions,
    at: Timestamp,
    command: &AuthorizePayment,
) -> Result<Vec<Event>, Refusal> {
    let session = sessions.get(&command.session_id).ok_or(Refusal::SessionUnknown)?;
    let spent = session.budget.spent.plus(command.amount).ok_or(Refusal::SumTooLarge)?;

    let denial = match sessions.standing(session, at) {
        Standing::Revoked => Some(PaymentDenial::SessionRevoked),
        Standing::Expired => Some(PaymentDenial::SessionExpired),
        Standing::Live if !session.grants(SPEND) => Some(PaymentDenial::SpendScopeMissing),
        Standing::Live if session.budget.cap.is_some_and(|cap| spent > cap) => {
            Some(PaymentDenial::BudgetExceeded)
        }
        Standing::Live => None,
    };
    let event = match denial {
        Some(reason) => Event::PaymentDenied(PaymentDenied {
            authorization_id: command.authorization_id.clone(),
            session_id: command.session_id.clone(),
            agent_id: session.agent_id.clone(),
            amount: command.amount,
            currency: command.currency.clone(),
            description: command.description.clone(),
            remaining: session.budget.remaining(),
            reason,
        }),
        None => Event::PaymentAuthorized(PaymentAuthorized {
            authorization_id: command.authorization_id.clone(),
            session_id: command.session_id.clone(),
            agent_id: session.agent_id.clone(),
            amount: command.amount,
            currency: command.currency.clone(),
            description: command.description.clone(),
            remaining: session.budget.cap.map(|cap| cap.minus(spent)),
        }),
    };
    Ok(vec![event])
}

pub(super) fn apply_authorized(sessions: &mut Sessions, event: &PaymentAuthorized) {
    if let Some(session) = sessions.get_mut(&event.session_id) {
        // `decide` refused sums that do not fit, so the fallback is never taken on a history of ours.
        session.budget.spent = session.budget.spent.plus(event.amount).unwrap_or(session.budget.spent);
    }
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
        assert_eq!(budget(&story).spent, Money::INPUT_MAX);
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
            assert_eq!(budget(&story).spent, Money::ZERO);
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
        })
    }
}
