//! `/v1/payments`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{Authorized, PaymentsWrite};
use super::error::ApiError;
use super::retry::retry_of;
use crate::domain::limits::{CURRENCY_CHARS_MAX, DESCRIPTION_CHARS_MAX, SESSION_ID_CHARS_MAX};
use crate::domain::money::Money;
use crate::operations::payments::{
    self, AMOUNT_MAX, AMOUNT_MIN, AuthorizedPayment, DEFAULT_CURRENCY, DeniedPayment, PaymentAnswer,
    PaymentRequest,
};
use crate::operations::{App, OperationError};

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
        })
    }
}

/// Authorises a payment against the session's budget.
#[utoipa::path(
    post, path = "/v1/payments/authorize", operation_id = "post_authorize_payment", tag = "vault",
    request_body = PaymentBody,
    responses(
        (status = 200, description = "Authorised and debited", body = AuthorizedPayment),
        (status = 403, description = "Denied: scope or budget", body = DeniedPayment),
    ),
)]
pub(super) async fn authorize(
    app: web::Data<Arc<App>>,
    caller: Authorized<PaymentsWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let body = PaymentBody::read(&fields)?;
    let to_pay = PaymentRequest {
        session_id: body.session_id,
        amount_nanos: body.amount.nanos(),
        currency: body.currency,
        description: body.description,
    };
    let retry = retry_of(&app, &caller, &request, &to_pay)?;
    Ok(match payments::authorize(&app, &caller, to_pay, retry.as_ref()).await? {
        PaymentAnswer::Authorized(authorized) => HttpResponse::Ok().json(authorized),
        PaymentAnswer::Denied(denied) => HttpResponse::Forbidden().json(denied),
    })
}
