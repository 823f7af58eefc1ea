//! `/v1/webhooks`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::Fields;
use super::caller::{Authorized, WebhooksRead, WebhooksWrite};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use super::retry::retry_of;
use crate::domain::limits::{URL_CHARS_MAX, WEBHOOK_NAME_CHARS_MAX};
use crate::domain::webhooks::DeliveryStatus;
use crate::operations::delivery_log::{
    self, DELIVERIES_LEN_DEFAULT, DELIVERIES_LEN_MAX, DeadLetterList, DeliveryFilter, DeliveryList,
    Redelivered,
};
use crate::operations::webhooks::{
    self, GRACE_S_DEFAULT, RegisteredWebhook, RemovedWebhook, RotatedWebhook, TestedWebhook, WebhookList,
};
use crate::operations::{App, OperationError};

/// A webhook to be registered.
#[derive(Debug, ToSchema)]
pub(super) struct RegisterWebhookBody {
    /// Whom to tell: an `http` or `https` URL that does not lead into a private network.
    #[schema(max_length = 2048)]
    pub(super) url: String,
    /// A name for people.
    #[schema(default = "", max_length = 256, required = false)]
    pub(super) name: String,
    /// Of what: names of events, or `all`.
    #[schema(default = json!(["all"]), max_items = 64, required = false)]
    pub(super) events: Vec<String>,
}

impl RegisterWebhookBody {
    fn read(fields: &Fields) -> Result<Self, OperationError> {
        let url = fields.field("url").or_null();
        Ok(Self {
            url: url.required(url.text(URL_CHARS_MAX).map(|url| url.filter(|url| !url.trim().is_empty())))?,
            name: fields.field("name").or_null().text(WEBHOOK_NAME_CHARS_MAX)?.unwrap_or_default(),
            events: fields.field("events").or_null().texts()?.unwrap_or_default(),
        })
    }
}

/// Registers a webhook: from now on its URL is told of the events that it names, signed.
#[utoipa::path(
    post, path = "/v1/webhooks", operation_id = "post_register_webhook", tag = "watch",
    request_body = RegisterWebhookBody,
    responses((status = 201, description = "The webhook and its secret, shown once", body = RegisteredWebhook)),
)]
pub(super) async fn register(
    app: web::Data<Arc<App>>,
    caller: Authorized<WebhooksWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let body = RegisterWebhookBody::read(&fields)?;
    let to_register = webhooks::register_request(&body.url, body.name, body.events)?;
    let retry = retry_of(&app, &caller, &request, &to_register)?;
    let registered = webhooks::register(&app, &caller, to_register, retry.as_ref()).await?;
    Ok(HttpResponse::Created().json(registered))
}

/// Lists the tenant's webhooks. Never their secrets.
#[utoipa::path(
    get, path = "/v1/webhooks", operation_id = "get_list_webhooks", tag = "watch",
    params(("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The webhooks", body = WebhookList)),
)]
pub(super) async fn list(
    app: web::Data<Arc<App>>,
    caller: Authorized<WebhooksRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &webhooks::list(&moment))
}

/// Removes a webhook. What it was not told yet it will not be told.
#[utoipa::path(
    delete, path = "/v1/webhooks/{webhook_id}", operation_id = "delete_webhook", tag = "watch",
    params(("webhook_id" = u64, Path, description = "The webhook")),
    responses((status = 200, description = "Removed", body = RemovedWebhook)),
)]
pub(super) async fn remove(
    app: web::Data<Arc<App>>,
    caller: Authorized<WebhooksWrite>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let webhook_id = webhook_id(&request)?;
    Ok(HttpResponse::Ok().json(webhooks::remove(&app, &caller, webhook_id).await?))
}

/// Gives a webhook a new secret. For a time, deliveries carry a signature by the old one too.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/rotate-secret", operation_id = "post_rotate_webhook_secret",
    tag = "watch",
    params(
        ("webhook_id" = u64, Path, description = "The webhook"),
        ("grace_seconds" = Option<u64>, Query, description = "How long: 60 to 604800, 86400 unless given"),
    ),
    responses((status = 200, description = "The new secret, shown once", body = RotatedWebhook)),
)]
pub(super) async fn rotate(
    app: web::Data<Arc<App>>,
    caller: Authorized<WebhooksWrite>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let webhook_id = webhook_id(&request)?;
    let grace_s = grace_s(&query)?;
    Ok(HttpResponse::Ok().json(webhooks::rotate(&app, &caller, webhook_id, grace_s).await?))
}

/// Any whole number: what lies outside the range is brought into it, also what lies below zero.
fn grace_s(query: &Query) -> Result<u64, OperationError> {
    let is_negative = |text: &String| {
        text.strip_prefix('-')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|it| it.is_ascii_digit()))
    };
    if query.text("grace_seconds").as_ref().is_some_and(is_negative) {
        return Ok(0);
    }
    Ok(query.whole("grace_seconds")?.unwrap_or(GRACE_S_DEFAULT))
}

/// Sends a webhook a notification named `test`, to see whether it arrives. Its delivery is recorded like any other.
#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/test", operation_id = "post_test_webhook", tag = "watch",
    params(("webhook_id" = u64, Path, description = "The webhook")),
    responses((status = 202, description = "On its way", body = TestedWebhook)),
)]
pub(super) async fn test(
    app: web::Data<Arc<App>>,
    caller: Authorized<WebhooksWrite>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let webhook_id = webhook_id(&request)?;
    Ok(HttpResponse::Accepted().json(webhooks::test(&app, &caller, webhook_id).await?))
}

/// Lists attempts to deliver, newest first.
#[utoipa::path(
    get, path = "/v1/webhooks/deliveries", operation_id = "get_list_webhook_deliveries", tag = "watch",
    params(
        ("limit" = Option<u32>, Query, description = "At most this many, 1 to 500; 50 unless given"),
        ("event_id" = Option<String>, Query, description = "Only of this event"),
        ("webhook_id" = Option<u64>, Query, description = "Only to this webhook"),
        ("status" = Option<String>, Query, description = "Only `delivered`, `will_retry` or `dead` ones"),
    ),
    responses((status = 200, description = "The attempts", body = DeliveryList)),
)]
pub(super) async fn deliveries(
    app: web::Data<Arc<App>>,
    caller: Authorized<WebhooksRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let filter = DeliveryFilter {
        event_id: query.text("event_id"),
        webhook_id: query.whole("webhook_id")?,
        status: status(&query)?,
        limit: limit(&query)?,
    };
    Ok(HttpResponse::Ok().json(delivery_log::deliveries(Arc::clone(&app), &caller, filter).await?))
}

fn status(query: &Query) -> Result<Option<DeliveryStatus>, OperationError> {
    match query.text("status").as_deref() {
        None => Ok(None),
        Some("delivered") => Ok(Some(DeliveryStatus::Delivered)),
        Some("will_retry") => Ok(Some(DeliveryStatus::WillRetry)),
        Some("dead") => Ok(Some(DeliveryStatus::Dead)),
        Some(_) => Err(OperationError::invalid("status", "expected delivered, will_retry or dead")),
    }
}

fn limit(query: &Query) -> Result<usize, OperationError> {
    let limit = query.int("limit", 0..=usize::MAX)?;
    Ok(limit.unwrap_or(DELIVERIES_LEN_DEFAULT).clamp(1, DELIVERIES_LEN_MAX))
}

/// Lists notifications that were given up and can be tried again, the newest first.
#[utoipa::path(
    get, path = "/v1/webhooks/dead-letters", operation_id = "get_list_dead_letters", tag = "watch",
    params(
        ("limit" = Option<u32>, Query, description = "At most this many, 1 to 500; 50 unless given"),
        ("webhook_id" = Option<u64>, Query, description = "Only of this webhook"),
        ("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The notifications", body = DeadLetterList)),
)]
pub(super) async fn dead_letters(
    app: web::Data<Arc<App>>,
    caller: Authorized<WebhooksRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let (webhook_id, limit) = (query.whole("webhook_id")?, limit(&query)?);
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &delivery_log::dead_letters(&caller.tenant, &moment, webhook_id, limit))
}

/// Tries again to deliver an event that was given up.
#[utoipa::path(
    post, path = "/v1/webhooks/deliveries/{event_id}/redeliver", operation_id = "post_redeliver_event",
    tag = "watch",
    params(
        ("event_id" = String, Path, description = "The event"),
        ("webhook_id" = Option<u64>, Query, description = "Only to this webhook; to all that were not told unless given"),
    ),
    responses((status = 202, description = "On its way again", body = Redelivered)),
)]
pub(super) async fn redeliver(
    app: web::Data<Arc<App>>,
    caller: Authorized<WebhooksWrite>,
    request: HttpRequest,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let event_id = request.match_info().query("event_id");
    let webhook_id = query.whole("webhook_id")?;
    Ok(HttpResponse::Accepted().json(delivery_log::redeliver(&app, &caller, event_id, webhook_id).await?))
}

/// The webhook that a path names. What is no number names none.
fn webhook_id(request: &HttpRequest) -> Result<u64, OperationError> {
    request.match_info().query("webhook_id").parse().map_err(|_| OperationError::NotFound("webhook"))
}
