//! `/v1/ledger`.

use std::sync::Arc;

use actix_web::http::header::ACCEPT;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream::unfold;
use serde_json::Value;

use super::caller::{AuditRead, Authorized};
use super::error::ApiError;
use super::query::Query;
use super::stream;
use crate::domain::id::{KeyPrefix, TenantId};
use crate::operations::events::{self, EVENTS_LEN_DEFAULT, EVENTS_LEN_MAX, EventList, EventPage, Wanted};
use crate::operations::export::{self, ExportLines, OcsfLines, Range};
use crate::operations::{App, OperationError};

/// How often a silent stream of events sends a sign of life. Shorter than the idle time-outs of usual proxies.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(15);
/// Events sent in one piece to a follower that catches up.
const CATCH_UP_LEN: usize = 256;

/// Exports the tenant's stream, or a part of it: every entry's exact bytes, one JSON line each, closed by a signed checkpoint.
/// See ledger-format.md.
#[utoipa::path(
    get, path = "/v1/ledger/export", operation_id = "get_export_ledger", tag = "watch",
    params(
        ("format" = Option<String>, Query, description = "`ledger`, or `ocsf` for a SIEM; `ledger` unless given"),
        ("from_seq" = Option<u64>, Query, description = "The first seq"),
        ("until_seq" = Option<u64>, Query, description = "The seq after the last"),
        ("since" = Option<String>, Query, description = "The first moment: unix seconds or ISO 8601"),
        ("until" = Option<String>, Query, description = "The moment after the last"),
    ),
    responses((
        status = 200, description = "JSON lines", body = String, content_type = "application/x-ndjson",
    )),
)]
pub(super) async fn export(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let is_ocsf = match query.text("format").as_deref() {
        None | Some("ledger") => false,
        Some("ocsf") => true,
        Some(_) => return Err(OperationError::invalid("format", "expected ledger or ocsf").into()),
    };
    let range = Range {
        from_seq: query.whole("from_seq")?,
        until_seq: query.whole("until_seq")?,
        since: query.time("since")?,
        until: query.time("until")?,
    };
    let plan = export::plan(&app, &caller.tenant, range).await?;
    let store = Arc::clone(app.ledger.store());
    let disposition = format!("attachment; filename=\"haldir-ledger-{}.jsonl\"", caller.tenant);
    let mut answer = HttpResponse::Ok();
    answer
        .content_type("application/x-ndjson; charset=utf-8")
        .insert_header(("Content-Disposition", disposition))
        .insert_header(("X-Accel-Buffering", "no"));
    let with_end = |line: Result<String, _>| line.map(|line| (line + "\n").into_bytes());
    Ok(if is_ocsf {
        answer.streaming(stream::body(OcsfLines::new(store, &plan).map(with_end)))
    } else {
        answer.streaming(stream::body(ExportLines::new(store, plan).map(with_end)))
    })
}

/// Lists events of every kind, in order; with `Accept: text/event-stream`, sends those there are and then every new one, each
/// with its seq as the event's id, so that `Last-Event-ID` goes on where it stopped.
#[utoipa::path(
    get, path = "/v1/ledger/events", operation_id = "get_ledger_events", tag = "watch",
    params(
        ("after" = Option<u64>, Query, description = "Only events after this seq"),
        ("limit" = Option<u32>, Query, description = "At most this many, 1 to 1000; 100 unless given"),
        ("flagged" = Option<bool>, Query, description = "`true` lists only flagged actions, and what anomaly rules found"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The same as `after`, for event streams"),
    ),
    responses((status = 200, description = "The events", body = EventList)),
)]
pub(super) async fn events(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let after = match header("Last-Event-ID").filter(|id| !id.is_empty()) {
        Some(id) => {
            let wrong = |_| OperationError::invalid("Last-Event-ID", "expected a seq");
            Some(id.parse().map_err(wrong)?)
        }
        None => query.whole("after")?,
    };
    let wanted = Wanted { after, flagged_only: query.is_true("flagged") };
    if header(ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream")) {
        let (tenant, key) = (caller.tenant.clone(), caller.prefix.clone());
        let follower = Follower { app: Arc::clone(&app), tenant, key, wanted };
        return Ok(HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header(("Cache-Control", "no-store"))
            .insert_header(("X-Accel-Buffering", "no"))
            .streaming(unfold(follower, Follower::next)));
    }
    let limit = query.int("limit", 1..=EVENTS_LEN_MAX)?.unwrap_or(EVENTS_LEN_DEFAULT);
    Ok(HttpResponse::Ok().json(events::list(Arc::clone(&app), &caller, wanted, limit).await?))
}

/// Somebody who follows a stream, and how far they came.
struct Follower {
    app: Arc<App>,
    tenant: TenantId,
    /// The key that asked. Who revokes it ends what it began.
    key: KeyPrefix,
    /// What they want, after how far they came.
    wanted: Wanted,
}

impl Follower {
    /// The next piece of the answer: events, or a sign of life.
    async fn next(mut self) -> Option<(std::io::Result<Bytes>, Self)> {
        let mut committed = self.app.ledger.watch();
        let mut stopping = self.app.is_stopping.subscribe();
        loop {
            if *stopping.borrow() {
                return None;
            }
            let stream = committed.borrow_and_update().stream(&self.tenant).cloned()?;
            if stream.tenant.keys.get(&self.key).is_none_or(|key| key.is_revoked) {
                return None;
            }
            let size = stream.head.size;
            let (app, tenant, wanted) = (Arc::clone(&self.app), self.tenant.clone(), self.wanted);
            let read = move || events::read(&**app.ledger.store(), &tenant, wanted, size, CATCH_UP_LEN);
            let read = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other);
            let EventPage { events, last } = match read.and_then(|read| read.map_err(std::io::Error::other)) {
                Ok(page) => page,
                Err(error) => return Some((Err(error), self)),
            };
            let has_come_further = last != self.wanted.after;
            self.wanted.after = last;
            if !events.is_empty() {
                return Some((Ok(Bytes::from(events.iter().map(server_sent).collect::<String>())), self));
            }
            if has_come_further {
                continue;
            }
            let news = async {
                tokio::select! {
                    changed = committed.changed() => changed,
                    changed = stopping.changed() => changed,
                }
            };
            match tokio::time::timeout(HEARTBEAT, news).await {
                Ok(Ok(())) => {}
                // The ledger has closed: there will be no more.
                Ok(Err(_)) => return None,
                Err(_) => return Some((Ok(Bytes::from_static(b":\n\n")), self)),
            }
        }
    }
}

/// An event in the form of the HTML standard's server-sent events.
fn server_sent(event: &Value) -> String {
    let kind = event["kind"].as_str().unwrap_or_default();
    format!("id: {}\nevent: {kind}\ndata: {event}\n\n", event["seq"])
}
