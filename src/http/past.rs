//! Answers about the past, and `/v1/ledger/state`.

use std::sync::Arc;

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::caller::{AdminRead, Authorized};
use super::error::ApiError;
use super::query::Query;
use crate::operations::past::Moment;
use crate::operations::state::{self, State};
use crate::operations::{App, OperationError};

/// A JSON object; about a moment of the past, with `as_of`, which says what it stands on.
pub(super) fn answer(moment: &Moment, body: &impl Serialize) -> Result<HttpResponse, ApiError> {
    let Some(standing) = &moment.standing else {
        return Ok(HttpResponse::Ok().json(body));
    };
    let unwritable = |error: serde_json::Error| OperationError::Internal(error.to_string());
    let mut text = serde_json::to_string(body).map_err(unwritable)?;
    let standing = serde_json::to_string(standing).map_err(unwritable)?;
    // Put in as text: amounts are written digit by digit, and would not survive being read as numbers.
    if text.pop() != Some('}') {
        return Err(OperationError::Internal("an answer that is no object".to_owned()).into());
    }
    let separator = if text == "{" { "" } else { "," };
    let text = format!("{text}{separator}\"as_of\":{standing}}}");
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(text))
}

/// Tells the tenant's whole state, now or at a moment of the past: who may do what, and what was spent.
#[utoipa::path(
    get, path = "/v1/ledger/state", operation_id = "get_ledger_state", tag = "watch",
    params(("as_of" = Option<String>, Query, description = "As it was: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The state", body = State)),
)]
pub(super) async fn state(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.metered_moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &state::of(&moment))
}
