//! Payments: authorise against a session's budget.

use serde::Serialize;
use utoipa::ToSchema;

use super::retries::Retry;
use super::wire::{Epoch, Usd};
use super::{App, Caller, OperationError, only_event};
use crate::domain::budgets::{AuthorizePayment, PaymentDenial, PaymentDenied};
use crate::domain::id::{ApprovalId, AuthorizationId, SessionId};
use crate::domain::money::Money;
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
    /// Why, for programs: `spend_scope_missing` or `budget_exceeded`.
    pub code: &'static str,
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
    let command = Command::AuthorizePayment(AuthorizePayment {
        authorization_id: AuthorizationId::issue(app.ledger.random().bytes()),
        session_id: SessionId::parse(&request.session_id).ok_or(OperationError::SessionDead)?,
        amount: Money::from_nanos(request.amount_nanos),
        currency: request.currency,
        description: request.description,
        tool: String::new(),
        action: String::new(),
        approval_id: None,
        request_id: ApprovalId::issue(app.ledger.random().bytes()),
    });
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

/// The answer to a denied payment. Every text speaks of the budget, because clients look for that word.
fn denial(denied: &PaymentDenied) -> Result<DeniedPayment, OperationError> {
    let (code, reason) = match denied.reason {
        PaymentDenial::SessionRevoked | PaymentDenial::SessionExpired => {
            return Err(OperationError::SessionDead);
        }
        PaymentDenial::SpendScopeMissing => (
            "spend_scope_missing",
            "the session does not hold the scope 'spend' and so has no budget to spend from".to_owned(),
        ),
        PaymentDenial::BudgetExceeded => {
            let remaining = denied.remaining.unwrap_or(Money::ZERO);
            (
                "budget_exceeded",
                format!("budget exceeded: {remaining} remaining, {} requested", denied.amount),
            )
        }
        PaymentDenial::ApprovalNotCovering => {
            ("approval_not_covering", "the approval does not cover this payment of the budget".to_owned())
        }
        PaymentDenial::ApprovalDenied => {
            ("approval_denied", "this payment of the budget was not approved".to_owned())
        }
        PaymentDenial::ApprovalRequired => {
            ("approval_required", "this payment of the budget waits for an approval".to_owned())
        }
    };
    Ok(DeniedPayment { authorized: false, reason, code })
}
