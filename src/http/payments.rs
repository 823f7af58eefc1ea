//! `/v1/payments`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{Authorized, PaymentsWrite};
use super::error::ApiError;
use super::retry::retry_of;
use crate::domain::limits::{
    ACTION_CHARS_MAX, CURRENCY_CHARS_MAX, DESCRIPTION_CHARS_MAX, RESERVATION_TTL_S_MAX, SESSION_ID_CHARS_MAX,
    TOOL_CHARS_MAX,
};
use crate::domain::money::Money;
use crate::operations::payments::{
    self, AMOUNT_MAX, AMOUNT_MIN, AuthorizedPayment, DEFAULT_CURRENCY, DeniedPayment, PaymentAnswer,
    PaymentRequest, ReleasedPayment, ReservationAnswer, ReservationRequest, ReservedPayment, SettledPayment,
};
use crate::operations::{App, OperationError};

/// Seconds for which an amount is set aside unless something else is said.
const RESERVATION_TTL_S: u64 = 900;
/// Characters of an approval's id.
const APPROVAL_ID_CHARS_MAX: usize = 64;

/// A payment to be authorised.
#[derive(Debug, ToSchema)]
pub(super) struct PaymentBody {
    /// The session that pays.
    #[schema(max_length = 128)]
    pub(super) session_id: String,
    /// How much, with at most nine decimal places.
    #[schema(value_type = f64, minimum = 0.01, maximum = 1_000_000)]
    pub(super) amount: Money,
    /// The currency code, not interpreted.
    #[schema(default = "USD", max_length = 8, required = false)]
    pub(super) currency: String,
    /// What for.
    #[schema(default = "", max_length = 500, required = false)]
    pub(super) description: String,
    /// With which tool, for the rules of approvals.
    #[schema(default = "", max_length = 256, required = false)]
    pub(super) tool: String,
    /// By which action, for the rules of approvals.
    #[schema(default = "", max_length = 512, required = false)]
    pub(super) action: String,
    /// The approval to use. Without it one is looked for.
    #[schema(default = "", max_length = 64, required = false)]
    pub(super) approval_id: String,
}

/// A payment whose final amount is known later.
#[derive(Debug, ToSchema)]
pub(super) struct ReservationBody {
    /// The payment, with the most that it may come to.
    #[schema(inline)]
    pub(super) payment: PaymentBody,
    /// Seconds until it is given back by itself.
    #[schema(default = 900, minimum = 1, maximum = 604_800, required = false)]
    pub(super) ttl: u64,
}

/// What a payment came to.
#[derive(Debug, ToSchema)]
pub(super) struct SettlementBody {
    /// At most what was reserved; absent is all of it.
    #[schema(value_type = f64, minimum = 0, maximum = 1_000_000, required = false)]
    pub(super) amount: Option<Money>,
}

impl From<PaymentBody> for PaymentRequest {
    fn from(body: PaymentBody) -> Self {
        Self {
            session_id: body.session_id,
            amount_nanos: body.amount.nanos(),
            currency: body.currency,
            description: body.description,
            tool: body.tool,
            action: body.action,
            approval_id: body.approval_id,
        }
    }
}

impl PaymentBody {
    /// Fields are looked at in the order of their declaration; the first failure wins.
    fn read(fields: &Fields) -> Result<Self, OperationError> {
        let session_id = fields.field("session_id");
        let amount = fields.field("amount");
        Ok(Self {
            session_id: session_id.required(session_id.text(SESSION_ID_CHARS_MAX))?,
            amount: amount.required(amount.money(AMOUNT_MIN..=AMOUNT_MAX))?,
            currency: fields
                .field("currency")
                .text(CURRENCY_CHARS_MAX)?
                .unwrap_or_else(|| DEFAULT_CURRENCY.into()),
            description: fields.field("description").lines(DESCRIPTION_CHARS_MAX)?.unwrap_or_default(),
            tool: fields.field("tool").text(TOOL_CHARS_MAX)?.unwrap_or_default(),
            action: fields.field("action").text(ACTION_CHARS_MAX)?.unwrap_or_default(),
            approval_id: fields.field("approval_id").text(APPROVAL_ID_CHARS_MAX)?.unwrap_or_default(),
        })
    }
}

/// Authorises a payment against the session's budget.
#[utoipa::path(
    post, path = "/v1/payments/authorize", operation_id = "post_authorize_payment", tag = "vault",
    request_body = PaymentBody,
    responses(
        (status = 200, description = "Authorised and debited", body = AuthorizedPayment),
        (status = 402, description = "Waits for an approval", body = DeniedPayment),
        (status = 403, description = "Denied: scope, budget or approval", body = DeniedPayment),
    ),
)]
pub(super) async fn authorize(
    app: web::Data<Arc<App>>,
    caller: Authorized<PaymentsWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let to_pay: PaymentRequest = PaymentBody::read(&fields)?.into();
    let retry = retry_of(&app, &caller, &request, &to_pay)?;
    Ok(match payments::authorize(&app, &caller, to_pay, retry.as_ref()).await? {
        PaymentAnswer::Authorized(authorized) => HttpResponse::Ok().json(authorized),
        PaymentAnswer::Denied(denied) => refused(&denied),
    })
}

/// The answer to a payment that was denied: 402 while people can still allow it.
fn refused(denied: &DeniedPayment) -> HttpResponse {
    if denied.waits_for_approval() {
        return HttpResponse::PaymentRequired().json(denied);
    }
    HttpResponse::Forbidden().json(denied)
}

/// Sets an amount aside for a payment whose final amount is known later. Its fields are those of an authorisation, and `ttl`.
#[utoipa::path(
    post, path = "/v1/payments/reserve", operation_id = "post_reserve_payment", tag = "vault",
    request_body = ReservationBody,
    responses(
        (status = 200, description = "Set aside", body = ReservedPayment),
        (status = 402, description = "Waits for an approval", body = DeniedPayment),
        (status = 403, description = "Denied: scope, budget or approval", body = DeniedPayment),
    ),
)]
pub(super) async fn reserve(
    app: web::Data<Arc<App>>,
    caller: Authorized<PaymentsWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let body = ReservationBody {
        payment: PaymentBody::read(&fields)?,
        ttl: fields.field("ttl").int(1..=RESERVATION_TTL_S_MAX)?.unwrap_or(RESERVATION_TTL_S),
    };
    let to_reserve = ReservationRequest { payment: body.payment.into(), ttl: body.ttl };
    let retry = retry_of(&app, &caller, &request, &to_reserve)?;
    Ok(match payments::reserve(&app, &caller, to_reserve, retry.as_ref()).await? {
        ReservationAnswer::Done(reserved) => HttpResponse::Ok().json(reserved),
        ReservationAnswer::Denied(denied) => refused(&denied),
    })
}

/// Pays what was set aside, or less; the rest is given back.
#[utoipa::path(
    post, path = "/v1/payments/{authorization_id}/settle", operation_id = "post_settle_payment", tag = "vault",
    params(("authorization_id" = String, Path, description = "The reservation")),
    request_body = SettlementBody,
    responses(
        (status = 200, description = "Paid", body = SettledPayment),
        (status = 403, description = "Denied: more than was set aside", body = DeniedPayment),
    ),
)]
pub(super) async fn settle(
    app: web::Data<Arc<App>>,
    caller: Authorized<PaymentsWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let body = SettlementBody { amount: fields.field("amount").money(Money::ZERO..=AMOUNT_MAX)? };
    let id = request.match_info().query("authorization_id");
    let retry = retry_of(&app, &caller, &request, &body.amount.map(Money::nanos))?;
    Ok(match payments::settle(&app, &caller, id, body.amount, retry.as_ref()).await? {
        ReservationAnswer::Done(settled) => HttpResponse::Ok().json(settled),
        ReservationAnswer::Denied(denied) => refused(&denied),
    })
}

/// Gives back what was set aside.
#[utoipa::path(
    post, path = "/v1/payments/{authorization_id}/release", operation_id = "post_release_payment", tag = "vault",
    params(("authorization_id" = String, Path, description = "The reservation")),
    responses((status = 200, description = "Given back", body = ReleasedPayment)),
)]
pub(super) async fn release(
    app: web::Data<Arc<App>>,
    caller: Authorized<PaymentsWrite>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let id = request.match_info().query("authorization_id");
    let retry = retry_of(&app, &caller, &request, &())?;
    Ok(HttpResponse::Ok().json(payments::release(&app, &caller, id, retry.as_ref()).await?))
}
