//! Budgets: what a session may spend, debited by authorised payments, never by one billionth too much.

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
#[derive(Debug, Clone, PartialEq, Eq)]
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

    let denial = match session.standing(at) {
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
