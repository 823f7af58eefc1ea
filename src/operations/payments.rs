//! Payments: authorise against budgets, or reserve, and settle or release.

use serde::Serialize;
use utoipa::ToSchema;

use super::budgets::level_name;
use super::decoded::{denial_name, window_name};
use super::retries::Retry;
use super::wire::{Epoch, Usd};
use super::{App, Caller, OperationError, only_event};
use crate::domain::accounts::{Account, Bound, Window};
use crate::domain::budgets::{AuthorizePayment, PaymentDenial, PaymentDenied};
use crate::domain::id::{ApprovalId, AuthorizationId, SessionId};
use crate::domain::money::Money;
use crate::domain::reservations::{ReleasePayment, ReservePayment, SettlePayment};
use crate::domain::{Command, Event};

/// The currency when none is named.
pub const DEFAULT_CURRENCY: &str = "USD";
/// The least that can be paid, in billionths: one cent.
pub const AMOUNT_MIN: Money = Money::from_nanos(10_000_000);
/// The most that can be paid at once, in billionths: a million.
pub const AMOUNT_MAX: Money = Money::from_nanos(1_000_000_000_000_000);

/// A payment to be authorised, every default filled in.
#[derive(Debug, Clone, Serialize)]
pub struct PaymentRequest {
    /// The session that pays.
    pub session_id: String,
    /// How much, in billionths.
    pub amount_nanos: u128,
    /// The currency code.
    pub currency: String,
    /// What for.
    pub description: String,
    /// With which tool, for the rules of approvals.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool: String,
    /// By which action, for the rules of approvals.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// The approval to use; empty looks for one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub approval_id: String,
}

/// A payment whose final amount is known later, every default filled in.
#[derive(Debug, Clone, Serialize)]
pub struct ReservationRequest {
    /// The payment, with the most that it may come to.
    pub payment: PaymentRequest,
    /// Seconds until it is given back by itself.
    pub ttl: u64,
}

/// The answer to a payment.
#[derive(Debug)]
pub enum PaymentAnswer {
    /// Authorised and debited.
    Authorized(AuthorizedPayment),
    /// Denied.
    Denied(DeniedPayment),
}

/// An authorised payment.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuthorizedPayment {
    /// Always true.
    pub authorized: bool,
    /// The authorisation.
    #[schema(example = "auth_…")]
    pub authorization_id: String,
    /// The session that paid.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// How much.
    pub amount: Usd,
    /// The currency code.
    pub currency: String,
    /// What for.
    pub description: String,
    /// What the budget still holds; `0.0` when there is no limit.
    pub remaining_budget: Usd,
    /// When.
    pub timestamp: Epoch,
}

/// A denied payment.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeniedPayment {
    /// Always false.
    pub authorized: bool,
    /// Why.
    pub reason: String,
    /// Why, for programs: `spend_scope_missing`, `budget_exceeded`, `approval_required`, `approval_denied`,
    /// `approval_not_covering` or `reservation_exceeded`.
    pub code: &'static str,
    /// Whose budget does not hold it: `session`, `agent` or `tenant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<&'static str>,
    /// In which window: `hour`, `day`, `month` or `life`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<&'static str>,
    /// The request for an approval that it waits for, or that is about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_request_id: Option<String>,
}

impl DeniedPayment {
    /// Whether it may be asked for again once it is approved.
    #[must_use]
    pub fn waits_for_approval(&self) -> bool {
        self.code == denial_name(PaymentDenial::ApprovalRequired)
    }
}

/// What became of a reservation.
#[derive(Debug)]
pub enum ReservationAnswer<T> {
    /// What was asked for.
    Done(T),
    /// It was denied.
    Denied(DeniedPayment),
}

/// An amount that is set aside.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReservedPayment {
    /// Always true.
    pub reserved: bool,
    /// The reservation.
    #[schema(example = "auth_…")]
    pub authorization_id: String,
    /// The session that pays.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// The most that it may come to.
    pub amount: Usd,
    /// The currency code.
    pub currency: String,
    /// What for.
    pub description: String,
    /// What the budgets still hold; `0.0` when there is no limit.
    pub remaining_budget: Usd,
    /// When it is given back by itself.
    pub expires_at: Epoch,
    /// When it was set aside.
    pub timestamp: Epoch,
}

/// A payment that came to its end.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettledPayment {
    /// Always true.
    pub settled: bool,
    /// The reservation.
    pub authorization_id: String,
    /// The session that paid.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// What it came to.
    pub amount: Usd,
    /// What was given back.
    pub released: Usd,
    /// When.
    pub timestamp: Epoch,
}

/// An amount that was given back.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReleasedPayment {
    /// Always true.
    pub released: bool,
    /// The reservation.
    pub authorization_id: String,
    /// The session that would have paid.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// What was given back.
    pub amount: Usd,
    /// When.
    pub timestamp: Epoch,
}

/// Authorises a payment: looks at session, scope and budget, and debits, in one step.
///
/// # Errors
///
/// [`OperationError::SessionDead`] for sessions that do not exist or have ended.
pub async fn authorize(
    app: &App,
    caller: &Caller,
    request: PaymentRequest,
    retry: Option<&Retry>,
) -> Result<PaymentAnswer, OperationError> {
    let command = Command::AuthorizePayment(to_pay(app, request)?);
    let receipt = match app.submit(caller, command, retry, vec![]).await {
        Err(OperationError::NotFound(_)) => return Err(OperationError::SessionDead),
        submitted => submitted?,
    };
    let recorded = &only_event(&receipt)?.recorded;
    match &recorded.event {
        Event::PaymentAuthorized(paid) => Ok(PaymentAnswer::Authorized(AuthorizedPayment {
            authorized: true,
            authorization_id: paid.authorization_id.to_string(),
            session_id: paid.session_id.to_string(),
            agent_id: paid.agent_id.to_string(),
            amount: Usd(paid.amount),
            currency: paid.currency.clone(),
            description: paid.description.clone(),
            remaining_budget: Usd::or_zero(paid.remaining),
            timestamp: Epoch(recorded.at),
        })),
        Event::PaymentDenied(denied) => denial(denied).map(PaymentAnswer::Denied),
        _ => Err(OperationError::unexpected(&receipt)),
    }
}

/// Sets an amount aside, after looking at everything that a payment must pass.
///
/// # Errors
///
/// [`OperationError::SessionDead`] for sessions that do not exist or have ended.
pub async fn reserve(
    app: &App,
    caller: &Caller,
    request: ReservationRequest,
    retry: Option<&Retry>,
) -> Result<ReservationAnswer<ReservedPayment>, OperationError> {
    let payment = to_pay(app, request.payment)?;
    let command = Command::ReservePayment(ReservePayment { payment, ttl_s: request.ttl });
    let receipt = match app.submit(caller, command, retry, vec![]).await {
        Err(OperationError::NotFound(_)) => return Err(OperationError::SessionDead),
        submitted => submitted?,
    };
    let recorded = &only_event(&receipt)?.recorded;
    match &recorded.event {
        Event::PaymentReserved(reserved) => Ok(ReservationAnswer::Done(ReservedPayment {
            reserved: true,
            authorization_id: reserved.authorization_id.to_string(),
            session_id: reserved.session_id.to_string(),
            agent_id: reserved.agent_id.to_string(),
            amount: Usd(reserved.amount),
            currency: reserved.currency.clone(),
            description: reserved.description.clone(),
            remaining_budget: Usd::or_zero(reserved.remaining),
            expires_at: Epoch(reserved.expires_at),
            timestamp: Epoch(recorded.at),
        })),
        Event::PaymentDenied(denied) => denial(denied).map(ReservationAnswer::Denied),
        _ => Err(OperationError::unexpected(&receipt)),
    }
}

/// Pays what was set aside, or less; the rest is given back.
///
/// # Errors
///
/// [`OperationError::NotFound`] for reservations that do not exist, or were settled, released or have expired.
pub async fn settle(
    app: &App,
    caller: &Caller,
    authorization_id: &str,
    amount: Option<Money>,
    retry: Option<&Retry>,
) -> Result<ReservationAnswer<SettledPayment>, OperationError> {
    let command =
        Command::SettlePayment(SettlePayment { authorization_id: named(authorization_id)?, amount });
    let receipt = app.submit(caller, command, retry, vec![]).await?;
    let recorded = &only_event(&receipt)?.recorded;
    match &recorded.event {
        Event::PaymentSettled(settled) => Ok(ReservationAnswer::Done(SettledPayment {
            settled: true,
            authorization_id: settled.authorization_id.to_string(),
            session_id: settled.session_id.to_string(),
            agent_id: settled.agent_id.to_string(),
            amount: Usd(settled.amount),
            released: Usd(settled.reserved.minus(settled.amount)),
            timestamp: Epoch(recorded.at),
        })),
        Event::SettlementDenied(denied) => Ok(ReservationAnswer::Denied(DeniedPayment {
            authorized: false,
            reason: format!(
                "the budget was reserved for {}, and {} was asked for",
                denied.reserved, denied.amount
            ),
            code: "reservation_exceeded",
            level: None,
            window: None,
            approval_request_id: None,
        })),
        _ => Err(OperationError::unexpected(&receipt)),
    }
}

/// Gives back what was set aside.
///
/// # Errors
///
/// As [`settle`].
pub async fn release(
    app: &App,
    caller: &Caller,
    authorization_id: &str,
    retry: Option<&Retry>,
) -> Result<ReleasedPayment, OperationError> {
    let command = Command::ReleasePayment(ReleasePayment { authorization_id: named(authorization_id)? });
    let receipt = app.submit(caller, command, retry, vec![]).await?;
    let recorded = &only_event(&receipt)?.recorded;
    let Event::PaymentReleased(released) = &recorded.event else {
        return Err(OperationError::unexpected(&receipt));
    };
    Ok(ReleasedPayment {
        released: true,
        authorization_id: released.authorization_id.to_string(),
        session_id: released.session_id.to_string(),
        agent_id: released.agent_id.to_string(),
        amount: Usd(released.amount),
        timestamp: Epoch(recorded.at),
    })
}

fn named(authorization_id: &str) -> Result<AuthorizationId, OperationError> {
    AuthorizationId::parse(authorization_id).ok_or(OperationError::NotFound("open reservation"))
}

fn to_pay(app: &App, request: PaymentRequest) -> Result<AuthorizePayment, OperationError> {
    let unknown = || OperationError::invalid("approval_id", "expected the id of an approval request");
    let approval_id = Some(request.approval_id).filter(|id| !id.is_empty());
    Ok(AuthorizePayment {
        authorization_id: AuthorizationId::issue(app.ledger.random().bytes()),
        session_id: SessionId::parse(&request.session_id).ok_or(OperationError::SessionDead)?,
        amount: Money::from_nanos(request.amount_nanos),
        currency: request.currency,
        description: request.description,
        tool: request.tool,
        action: request.action,
        approval_id: approval_id.map(|id| ApprovalId::parse(&id).ok_or_else(unknown)).transpose()?,
        request_id: ApprovalId::issue(app.ledger.random().bytes()),
    })
}

/// The answer to a denied payment. Every text speaks of the budget, because clients look for that word.
fn denial(denied: &PaymentDenied) -> Result<DeniedPayment, OperationError> {
    let whose = match &denied.bound {
        None => "budget",
        Some(Bound { account: Account::Session(_), .. }) => "budget of a session",
        Some(Bound { account: Account::Agent(_), .. }) => "budget of the agent",
        Some(Bound { account: Account::Tenant, .. }) => "budget of the tenant",
    };
    let reason = match denied.reason {
        PaymentDenial::SessionRevoked | PaymentDenial::SessionExpired => {
            return Err(OperationError::SessionDead);
        }
        PaymentDenial::SpendScopeMissing => {
            "the session does not hold the scope 'spend' and so has no budget to spend from".to_owned()
        }
        PaymentDenial::BudgetExceeded => {
            let remaining = denied.remaining.unwrap_or(Money::ZERO);
            format!("{whose} exceeded: {remaining} remaining, {} requested", denied.amount)
        }
        PaymentDenial::ApprovalNotCovering => {
            "the approval does not cover this payment of the budget".to_owned()
        }
        PaymentDenial::ApprovalDenied => "this payment of the budget was not approved".to_owned(),
        PaymentDenial::ApprovalRequired => "this payment of the budget waits for an approval".to_owned(),
    };
    // Events do not name the cap of the session itself.
    let own = Bound { account: Account::Session(denied.session_id.clone()), window: Window::Life };
    let bound = denied.bound.as_ref().or((denied.reason == PaymentDenial::BudgetExceeded).then_some(&own));
    Ok(DeniedPayment {
        authorized: false,
        reason,
        code: denial_name(denied.reason),
        level: bound.map(|bound| level_name(&bound.account)),
        window: bound.map(|bound| window_name(bound.window)),
        approval_request_id: denied.approval_id.as_ref().map(ApprovalId::to_string),
    })
}
