//! `/v1/compliance`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{AdminRead, AdminWrite, Authorized};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use crate::domain::compliance::Cadence;
use crate::domain::limits::{DELIVERY_CHARS_MAX, SCHEDULE_NAME_CHARS_MAX};
use crate::operations::schedules::{self, CreateScheduleRequest, CreatedSchedule, ScheduleList};
use crate::operations::{App, OperationError};

/// A schedule to be added.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `read_schedule` reads")]
pub(super) struct ScheduleBody {
    /// A name for people.
    #[schema(max_length = 128)]
    name: String,
    /// `daily`, `weekly`, `monthly` or `quarterly`.
    cadence: String,
    /// `webhook:` and a webhook's id, name or URL, or `all`; or `email:` and an address.
    #[schema(max_length = 256)]
    delivery: String,
}

/// Fields are looked at in the order of their declaration; the first failure wins.
fn read_schedule(fields: &Fields) -> Result<CreateScheduleRequest, OperationError> {
    let [name, cadence, delivery] = ["name", "cadence", "delivery"].map(|name| fields.field(name));
    let name = name.required(name.text(SCHEDULE_NAME_CHARS_MAX))?;
    let cadence = cadence.required(cadence.text(usize::MAX))?;
    let cadence = Cadence::parse(&cadence).ok_or_else(|| {
        OperationError::invalid("cadence", "expected one of daily, weekly, monthly, quarterly")
    })?;
    let delivery = delivery.required(delivery.text(DELIVERY_CHARS_MAX))?;
    Ok(CreateScheduleRequest { name, cadence, delivery })
}

/// Adds a schedule: an evidence pack is built and sent each time it is due, the first at once.
#[utoipa::path(
    post, path = "/v1/compliance/schedules", operation_id = "post_create_compliance_schedule", tag = "platform",
    request_body = ScheduleBody,
    responses((status = 201, description = "The schedule", body = CreatedSchedule)),
)]
pub(super) async fn create_schedule(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminWrite>,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let request = read_schedule(&fields)?;
    Ok(HttpResponse::Created().json(schedules::create(&app, &caller, request).await?))
}

/// Lists the tenant's schedules, newest first, and what became of their last runs.
#[utoipa::path(
    get, path = "/v1/compliance/schedules", operation_id = "get_list_compliance_schedules", tag = "platform",
    params(("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The schedules", body = ScheduleList)),
)]
pub(super) async fn list_schedules(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &schedules::list(&moment, &caller.tenant))
}

/// Drops a schedule. What it sent stays on record.
#[utoipa::path(
    delete, path = "/v1/compliance/schedules/{schedule_id}",
    operation_id = "delete_delete_compliance_schedule", tag = "platform",
    params(("schedule_id" = String, Path, description = "The schedule")),
    responses((status = 204, description = "Dropped")),
)]
pub(super) async fn remove_schedule(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminWrite>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    schedules::remove(&app, &caller, request.match_info().query("schedule_id")).await?;
    Ok(HttpResponse::NoContent().finish())
}
