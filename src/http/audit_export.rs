//! `/v1/audit/export`.

use std::sync::Arc;

use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use actix_web::{HttpResponse, web};

use super::caller::{AuditRead, Authorized};
use super::error::ApiError;
use super::query::Query;
use super::stream;
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::operations::audit_export::{self, EXPORT_VERSION, Format, Manifest, Selection};
use crate::operations::{App, OperationError};
use crate::views::audit::Filter;

/// What to export, and how.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `read` reads")]
struct ExportQuery {
    /// `jsonl` or `csv`; `jsonl` unless given.
    format: Option<String>,
    /// Only of this session.
    session_id: Option<String>,
    /// Only of this agent.
    agent_id: Option<String>,
    /// Only with this tool.
    tool: Option<String>,
    /// `true` exports only flagged ones.
    flagged: Option<bool>,
    /// Only from then on: unix seconds, or ISO 8601, in UTC unless it says otherwise.
    since: Option<String>,
    /// Only before then: unix seconds, or ISO 8601, in UTC unless it says otherwise.
    until: Option<String>,
}

/// Exports logged actions, the oldest first. The last line of JSON lines is the manifest.
#[utoipa::path(
    get, path = "/v1/audit/export", operation_id = "get_export_audit_trail", tag = "watch",
    params(ExportQuery),
    responses((
        status = 200, description = "The actions, and with JSON lines the manifest",
        content((String = "application/x-ndjson"), (String = "text/csv")),
    )),
)]
pub(super) async fn export(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let (selection, format) = read(&query)?;
    let export = audit_export::begin(Arc::clone(&app), &caller, selection, format).await?;
    let (content_type, manifest) = match format {
        Format::Jsonl => ("application/x-ndjson; charset=utf-8", "embedded-final-line"),
        Format::Csv => ("text/csv; charset=utf-8", "out-of-band"),
    };
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, content_type))
        .insert_header((CONTENT_DISPOSITION, disposition(&caller.tenant, export.generated_at(), format)))
        .insert_header(("X-Haldir-Export-Manifest", manifest))
        .insert_header(("X-Haldir-Export-Format-Version", EXPORT_VERSION))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(stream::body(export)))
}

/// The manifest of the export with the same parameters: what it holds, signed.
#[utoipa::path(
    get, path = "/v1/audit/export/manifest", operation_id = "get_export_audit_manifest", tag = "watch",
    params(ExportQuery),
    responses((status = 200, description = "The manifest", body = Manifest)),
)]
pub(super) async fn manifest(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let (selection, format) = read(&query)?;
    let manifest = audit_export::manifest(Arc::clone(&app), &caller, selection, format).await?;
    // Sent as it was signed.
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(manifest))
}

fn read(query: &Query) -> Result<(Selection, Format), OperationError> {
    let format = Format::parse(query.text("format").as_deref())?;
    let filter = Filter {
        size: None,
        session_id: query.text("session_id"),
        agent_id: query.text("agent_id"),
        tool: query.text("tool"),
        flagged_only: query.is_true("flagged"),
    };
    Ok((Selection { filter, since: query.time("since")?, until: query.time("until")? }, format))
}

/// Names the file after the tenant and the second in which the export began, `YYYYMMDDTHHMMSSZ`.
fn disposition(tenant: &TenantId, at: Timestamp, format: Format) -> String {
    let at = at.to_string();
    let seconds = at.split('.').next().unwrap_or_default().replace(['-', ':'], "");
    format!("attachment; filename=\"haldir-audit-{tenant}-{seconds}Z.{}\"", format.name())
}
