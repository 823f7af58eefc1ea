//! `/v1/usage`.

use std::sync::Arc;

use actix_web::{HttpResponse, web};

use super::caller::{AdminRead, Authorized};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use crate::domain::time::Month;
use crate::operations::usage::{self, UsageReport};
use crate::operations::{App, OperationError};

/// Tells how many calls the tenant made in a month.
#[utoipa::path(
    get, path = "/v1/usage", operation_id = "get_get_usage", tag = "platform",
    params(
        ("month" = Option<String>, Query, description = "`YYYY-MM`; this month unless given"),
        ("as_of" = Option<String>, Query, description = "As it was: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The count", body = UsageReport)),
)]
pub(super) async fn report(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let month = query.text("month").map(|text| {
        Month::parse(&text).ok_or_else(|| OperationError::invalid("month", "expected a month as YYYY-MM"))
    });
    let month = month.transpose()?;
    let moment = app.metered_moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &usage::report(&caller.tenant, &moment, month))
}
