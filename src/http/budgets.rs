//! `/v1/budgets`.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{AdminWrite, Authorized, PaymentsRead};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use crate::domain::limits::SESSION_ID_CHARS_MAX;
use crate::domain::money::Money;
use crate::operations::budgets::{self, BudgetAnswer, BudgetList, Level, SpendLevels, account, window_named};
use crate::operations::{App, OperationError};

/// A cap to be set.
#[derive(Debug, ToSchema)]
pub(super) struct BudgetBody {
    /// `session`, `agent` or `tenant`.
    pub(super) level: String,
    /// The session or the agent; none for the tenant.
    #[schema(default = "", max_length = 128, required = false)]
    pub(super) name: String,
    /// `hour`, `day` or `month` of the calendar (UTC), or `life`.
    #[schema(default = "life", required = false)]
    pub(super) window: String,
    /// The most that may be spent; `null` lifts the cap.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 1_000_000_000_000_i64)]
    pub(super) limit: Option<Money>,
}

impl BudgetBody {
    /// Fields are looked at in the order of their declaration; the first failure wins.
    fn read(fields: &Fields) -> Result<Self, OperationError> {
        let (level, limit) = (fields.field("level"), fields.field("limit"));
        let body = Self {
            level: level.required(level.text(16))?,
            name: fields.field("name").text(SESSION_ID_CHARS_MAX)?.unwrap_or_default(),
            window: fields.field("window").text(16)?.unwrap_or_else(|| "life".to_owned()),
            limit: limit.or_null().money(Money::ZERO..=Money::INPUT_MAX)?,
        };
        limit.required(Ok(limit.raw()))?;
        Ok(body)
    }
}

fn level_named(name: &str) -> Result<Level, OperationError> {
    Level::parse(name).ok_or_else(|| OperationError::invalid("level", "expected session, agent or tenant"))
}

/// Sets a cap on what a session, an agent or the tenant may spend, or lifts it.
#[utoipa::path(
    put, path = "/v1/budgets", operation_id = "put_budget", tag = "vault",
    request_body = BudgetBody,
    responses((status = 200, description = "Set", body = BudgetAnswer)),
)]
pub(super) async fn set(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminWrite>,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let body = BudgetBody::read(&fields)?;
    let level = level_named(&body.level)?;
    let expected = || OperationError::invalid("window", "expected hour, day, month or life");
    let window = window_named(&body.window).ok_or_else(expected)?;
    let account = account(level, &body.name)?;
    Ok(HttpResponse::Ok().json(budgets::set(&app, &caller, account, window, body.limit).await?))
}

/// Lists every cap with how far it is used.
#[utoipa::path(
    get, path = "/v1/budgets", operation_id = "get_list_budgets", tag = "vault",
    params(("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The caps", body = BudgetList)),
)]
pub(super) async fn list(
    app: web::Data<Arc<App>>,
    caller: Authorized<PaymentsRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &budgets::list(&moment))
}

/// Tells what sessions, agents or the tenant spent, by window.
#[utoipa::path(
    get, path = "/v1/budgets/report", operation_id = "get_budget_report", tag = "vault",
    params(
        ("level" = Option<String>, Query, description = "`session`, `agent` or `tenant` (unless given)"),
        ("as_of" = Option<String>, Query, description = "As it was: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "What was spent", body = SpendLevels)),
)]
pub(super) async fn report(
    app: web::Data<Arc<App>>,
    caller: Authorized<PaymentsRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let level = level_named(query.text("level").as_deref().unwrap_or("tenant"))?;
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &budgets::report(&moment, level))
}
