//! `/v1/compliance`.

use std::sync::Arc;

use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{AdminRead, AdminWrite, Authorized};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use crate::domain::compliance::Cadence;
use crate::domain::limits::{DELIVERY_CHARS_MAX, SCHEDULE_NAME_CHARS_MAX};
use crate::operations::compliance::score::{self, Score};
use crate::operations::compliance::{self, Evidence, EvidenceManifest, Period, markdown};
use crate::operations::schedules::{self, CreateScheduleRequest, CreatedSchedule, ScheduleList};
use crate::operations::{App, Caller, OperationError};

/// Which pack, and how.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `read_period` reads")]
struct EvidenceQuery {
    /// `json`, `markdown` or `md`, in any case; `json` unless given.
    format: Option<String>,
    /// Where the period begins: unix seconds, or ISO 8601; 90 days before its end unless given.
    since: Option<String>,
    /// Where it ends; that moment does not belong to it. Now unless given.
    until: Option<String>,
    /// As it was: unix seconds, ISO 8601 or `seq:N`.
    as_of: Option<String>,
}

/// The forms of a pack.
#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Markdown,
}

impl Form {
    fn parse(text: Option<String>) -> Result<Self, OperationError> {
        let Some(text) = text else {
            return Ok(Self::Json);
        };
        match text.to_ascii_lowercase().as_str() {
            "json" => Ok(Self::Json),
            "markdown" | "md" => Ok(Self::Markdown),
            _ => Err(OperationError::InvalidFormat { expected: "json or markdown", got: text }),
        }
    }
}

/// Gives evidence of a period: keys, secrets, actions, spending, approvals and alerts, and the part of the ledger that all
/// of it stands on.
#[utoipa::path(
    get, path = "/v1/compliance/evidence", operation_id = "get_compliance_evidence", tag = "platform",
    params(EvidenceQuery),
    responses((
        status = 200, description = "The pack",
        content((Evidence = "application/json"), (String = "text/markdown")),
    )),
)]
pub(super) async fn evidence(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let form = Form::parse(query.text("format"))?;
    let pack = build(&app, &caller, &query).await?;
    let digest = ("X-Haldir-Evidence-Digest", pack.signatures.digest.clone());
    Ok(match form {
        Form::Json => HttpResponse::Ok().insert_header(digest).json(pack),
        Form::Markdown => {
            let name = format!("attachment; filename=\"haldir-evidence-{}.md\"", caller.tenant);
            HttpResponse::Ok()
                .insert_header(digest)
                .insert_header((CONTENT_TYPE, "text/markdown; charset=utf-8"))
                .insert_header((CONTENT_DISPOSITION, name))
                .body(markdown::document(&pack))
        }
    })
}

/// The digest of the pack with the same parameters.
#[utoipa::path(
    get, path = "/v1/compliance/evidence/manifest", operation_id = "get_compliance_evidence_manifest",
    tag = "platform", params(EvidenceQuery),
    responses((status = 200, description = "The digest and what it is of", body = EvidenceManifest)),
)]
pub(super) async fn manifest(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    Form::parse(query.text("format"))?;
    Ok(HttpResponse::Ok().json(build(&app, &caller, &query).await?.manifest()))
}

async fn build(app: &Arc<App>, caller: &Caller, query: &Query) -> Result<Evidence, OperationError> {
    let (since, until, as_of) = (query.time("since")?, query.time("until")?, query.as_of()?);
    let moment = app.metered_moment(&caller.tenant, as_of).await?;
    let period = Period::resolve(since, until, moment.at)?;
    compliance::evidence(app, &caller.tenant, period, &moment).await
}

/// How ready the tenant is to show evidence: seven criteria and what would help.
#[utoipa::path(
    get, path = "/v1/compliance/score", operation_id = "get_compliance_score", tag = "platform",
    params(("as_of" = Option<String>, Query, description = "As it was: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The score", body = Score)),
)]
pub(super) async fn score(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &score::score(&app, &caller.tenant, &moment).await?)
}

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
