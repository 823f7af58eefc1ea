//! Reservations: payments whose final amount is known later. An amount is set aside, and then settled or released.
//!
//! What is set aside counts against every cap as if it were spent, until it is settled, released, or its time is over. So a
//! settlement never finds a budget that somebody else has spent in the meantime.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::accounts::{self, Accounts};
use super::approvals::{self, Approvals};
use super::budgets::{self, AuthorizePayment, Cleared};
use super::id::{AgentId, ApprovalId, AuthorizationId, SessionId};
use super::limits::RESERVATION_COUNT_MAX;
use super::money::Money;
use super::sessions::Sessions;
use super::table::Table;
use super::time::Timestamp;
use super::{Command, Event, Refusal, Tenant};

/// Set an amount aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservePayment {
    /// What is to be paid, and the most that it may come to.
    pub payment: AuthorizePayment,
    /// Seconds until it is given back by itself.
    pub ttl_s: u64,
}

/// Pay what was set aside, or less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlePayment {
    /// Which reservation.
    pub authorization_id: AuthorizationId,
    /// What it came to; `None` is all of it.
    pub amount: Option<Money>,
}

/// Give back what was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasePayment {
    /// Which reservation.
    pub authorization_id: AuthorizationId,
}

/// Give back what was set aside for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpireReservation {
    /// Which reservation.
    pub authorization_id: AuthorizationId,
}

/// An amount was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentReserved {
    /// The reservation.
    pub authorization_id: AuthorizationId,
    /// The session that pays.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// The most that it may come to.
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
    /// What the caps still hold with it; `None` when there is no cap.
    pub remaining: Option<Money>,
    /// Seconds until it is given back by itself.
    pub ttl_s: u64,
    /// When that is.
    pub expires_at: Timestamp,
}

/// What was set aside was paid, all of it or less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentSettled {
    /// Which reservation.
    pub authorization_id: AuthorizationId,
    /// The session that paid.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// What it came to.
    pub amount: Money,
    /// What had been set aside.
    pub reserved: Money,
}

/// What was set aside was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentReleased {
    /// Which reservation.
    pub authorization_id: AuthorizationId,
    /// The session that would have paid.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// What had been set aside.
    pub amount: Money,
    /// Whether its time was over, rather than somebody asking for it.
    pub has_expired: bool,
}

/// A settlement was denied: it came to more than had been set aside. The reservation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementDenied {
    /// Which reservation.
    pub authorization_id: AuthorizationId,
    /// The session that pays.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// What it came to.
    pub amount: Money,
    /// What had been set aside.
    pub reserved: Money,
}

/// What is set aside now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservations {
    open: Table<AuthorizationId, Arc<Reservation>>,
    by_expiry: Table<(Timestamp, AuthorizationId), ()>,
}

/// An amount that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The session that pays.
    pub session_id: SessionId,
    /// The session's agent.
    pub agent_id: AgentId,
    /// The most that it may come to.
    pub amount: Money,
    /// When it is given back by itself.
    pub expires_at: Timestamp,
}

impl Reservations {
    /// Everything that is set aside.
    pub fn open(&self) -> impl Iterator<Item = (&AuthorizationId, &Reservation)> {
        self.open.into_iter().map(|(id, reservation)| (id, &**reservation))
    }

    /// What is to be given back at `at`, the oldest first.
    pub(super) fn due(&self, at: Timestamp) -> Option<Command> {
        let (first, ()) = self.by_expiry.into_iter().next()?;
        let (expires_at, authorization_id) = first.clone();
        let command = ExpireReservation { authorization_id };
        (at > expires_at).then_some(Command::ExpireReservation(command))
    }

    fn find(&self, id: &AuthorizationId) -> Result<&Reservation, Refusal> {
        self.open.get(id).map(|it| &**it).ok_or(Refusal::ReservationNotOpen)
    }

    fn remove(&mut self, id: &AuthorizationId) -> Option<Arc<Reservation>> {
        let reservation = self.open.remove_cow(id)?;
        self.by_expiry.remove_cow(&(reservation.expires_at, id.clone()));
        Some(reservation)
    }
}

pub(super) fn reserve(
    tenant: &Tenant,
    at: Timestamp,
    command: &ReservePayment,
) -> Result<Vec<Event>, Refusal> {
    let payment = &command.payment;
    if tenant.reservations.open.len() >= RESERVATION_COUNT_MAX {
        return Err(Refusal::TooManyReservations);
    }
    if tenant.reservations.open.get(&payment.authorization_id).is_some() {
        return Err(Refusal::AuthorizationIdTaken);
    }
    let Cleared { agent_id, remaining, approval_id } = match budgets::clear(tenant, at, payment)? {
        Ok(cleared) => cleared,
        Err(denied) => return Ok(denied),
    };
    Ok(vec![Event::PaymentReserved(PaymentReserved {
        authorization_id: payment.authorization_id.clone(),
        session_id: payment.session_id.clone(),
        agent_id,
        amount: payment.amount,
        currency: payment.currency.clone(),
        description: payment.description.clone(),
        tool: payment.tool.clone(),
        action: payment.action.clone(),
        approval_id,
        remaining,
        ttl_s: command.ttl_s,
        expires_at: at.plus_seconds(command.ttl_s),
    })])
}

pub(super) fn settle(
    reservations: &Reservations,
    at: Timestamp,
    command: &SettlePayment,
) -> Result<Vec<Event>, Refusal> {
    let reservation = reservations.find(&command.authorization_id)?;
    if at > reservation.expires_at {
        return Err(Refusal::ReservationNotOpen);
    }
    let Reservation { session_id, agent_id, amount: reserved, .. } = reservation.clone();
    let authorization_id = command.authorization_id.clone();
    let amount = command.amount.unwrap_or(reserved);
    Ok(vec![if amount > reserved {
        Event::SettlementDenied(SettlementDenied { authorization_id, session_id, agent_id, amount, reserved })
    } else {
        Event::PaymentSettled(PaymentSettled { authorization_id, session_id, agent_id, amount, reserved })
    }])
}

pub(super) fn release(
    reservations: &Reservations,
    at: Timestamp,
    command: &ReleasePayment,
) -> Result<Vec<Event>, Refusal> {
    let reservation = reservations.find(&command.authorization_id)?;
    if at > reservation.expires_at {
        return Err(Refusal::ReservationNotOpen);
    }
    Ok(vec![released(&command.authorization_id, reservation, false)])
}

pub(super) fn expire(
    reservations: &Reservations,
    at: Timestamp,
    command: &ExpireReservation,
) -> Result<Vec<Event>, Refusal> {
    let reservation = reservations.find(&command.authorization_id)?;
    if at <= reservation.expires_at {
        return Err(Refusal::NotDue);
    }
    Ok(vec![released(&command.authorization_id, reservation, true)])
}

fn released(authorization_id: &AuthorizationId, reservation: &Reservation, has_expired: bool) -> Event {
    Event::PaymentReleased(PaymentReleased {
        authorization_id: authorization_id.clone(),
        session_id: reservation.session_id.clone(),
        agent_id: reservation.agent_id.clone(),
        amount: reservation.amount,
        has_expired,
    })
}

pub(super) fn apply_reserved(
    reservations: &mut Reservations,
    sessions: &mut Sessions,
    accounts: &mut Accounts,
    approvals: &mut Approvals,
    event: &PaymentReserved,
) {
    let reservation = Reservation {
        session_id: event.session_id.clone(),
        agent_id: event.agent_id.clone(),
        amount: event.amount,
        expires_at: event.expires_at,
    };
    let id = event.authorization_id.clone();
    reservations.by_expiry.insert_cow((event.expires_at, id.clone()), ());
    reservations.open.insert_cow(id, Arc::new(reservation));
    accounts::hold(sessions, accounts, &event.session_id, event.amount);
    if let Some(approval_id) = &event.approval_id {
        approvals::apply_used(approvals, approval_id, &event.authorization_id);
    }
}

pub(super) fn apply_settled(
    reservations: &mut Reservations,
    sessions: &mut Sessions,
    accounts: &mut Accounts,
    at: Timestamp,
    event: &PaymentSettled,
) {
    if let Some(reservation) = reservations.remove(&event.authorization_id) {
        accounts::let_go(sessions, accounts, &reservation.session_id, reservation.amount);
        accounts::debit(sessions, accounts, &reservation.session_id, event.amount, at);
    }
}

pub(super) fn apply_released(
    reservations: &mut Reservations,
    sessions: &mut Sessions,
    accounts: &mut Accounts,
    event: &PaymentReleased,
) {
    if let Some(reservation) = reservations.remove(&event.authorization_id) {
        accounts::let_go(sessions, accounts, &reservation.session_id, reservation.amount);
    }
}

#[cfg(test)]
mod tests;
