//! What was delivered, what was given up, and trying that again.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::deliveries::excerpt_id;
use super::event_ids::{event_id, seq_of};
use super::past::Moment;
use super::wire::Epoch;
use super::{App, Caller, OperationError, blocking};
use crate::domain::id::TenantId;
use crate::domain::webhooks::{
    AttemptOutcome, DeadLetter, DeliveryStatus, Hook, RedeliverEvent, WebhookAttempted, Webhooks,
};
use crate::domain::{Command, Event, Recorded};
use crate::format::chain::excerpt_digest;
use crate::store::SideKind;
use crate::views::sparse::{Series, delivery_subject};

/// Deliveries listed when nothing else was asked.
pub const DELIVERIES_LEN_DEFAULT: usize = 50;
/// Deliveries listed at most.
pub const DELIVERIES_LEN_MAX: usize = 500;

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Of this event.
    pub event_id: Option<String>,
    /// To this webhook.
    pub webhook_id: Option<u64>,
    /// That ended so.
    pub status: Option<DeliveryStatus>,
    /// How many at most.
    pub limit: usize,
}

/// One attempt to deliver.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryRow {
    /// Its id.
    pub delivery_id: String,
    /// The event that it tells of.
    pub event_id: String,
    /// The webhook.
    pub webhook_id: u64,
    /// Whom it tells.
    pub webhook_url: String,
    /// The kind of notification.
    pub event_type: &'static str,
    /// How many attempts there were, with this one.
    pub attempt: u32,
    /// The HTTP status; 0 when there was none.
    pub status_code: u16,
    /// The beginning of the answer.
    pub response_excerpt: String,
    /// What went wrong; empty when nothing did.
    pub error: String,
    /// How long it took.
    pub duration_ms: u64,
    /// When it was recorded.
    pub created_at: Epoch,
    /// `delivered`, `will_retry` or `dead`.
    pub status: &'static str,
    /// When it is tried again; `0.0` is never.
    pub next_attempt_at: Epoch,
}

/// Attempts to deliver.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryList {
    /// Newest first.
    pub deliveries: Vec<DeliveryRow>,
}

/// A notification that was given up.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterRow {
    /// The event that it tells of.
    pub event_id: String,
    /// The webhook.
    pub webhook_id: u64,
    /// Whom it tells.
    pub webhook_url: String,
    /// The kind of notification.
    pub event_type: &'static str,
    /// How often it was tried; 0 when too much was waiting already.
    pub attempts: u32,
    /// The last HTTP status; 0 when there was none.
    pub status_code: u16,
    /// What went wrong.
    pub error: String,
    /// When it was given up.
    pub failed_at: Epoch,
}

/// Notifications that were given up.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterList {
    /// How many there are, listed or not.
    pub count: u64,
    /// The newest events first.
    pub dead_letters: Vec<DeadLetterRow>,
}

/// Notifications that are tried again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Redelivered {
    /// Always true.
    pub redelivered: bool,
    /// The event.
    pub event_id: String,
    /// The webhooks that are told again.
    pub webhook_ids: Vec<u64>,
}

/// Lists attempts to deliver, newest first.
///
/// # Errors
///
/// [`OperationError::Busy`] when the view is behind.
pub async fn deliveries(
    app: Arc<App>,
    caller: &Caller,
    filter: DeliveryFilter,
) -> Result<DeliveryList, OperationError> {
    let tenant = caller.tenant.clone();
    app.views_caught_up(&tenant).await?;
    let webhooks = app.with_tenant(&tenant, |tenant| tenant.webhooks.clone())?;
    blocking(move || {
        let source = match filter.event_id.as_deref().map(|event_id| seq_of(&tenant, event_id)) {
            Some(None) => return Ok(DeliveryList { deliveries: Vec::new() }),
            Some(Some(seq)) => Some(seq),
            None => None,
        };
        let subject = delivery_subject(source, filter.webhook_id, filter.status);
        let mut deliveries = Vec::new();
        for recorded in app.views.newest_first(&tenant, Series::Deliveries, subject.as_deref()) {
            let recorded = recorded?;
            if let Event::WebhookAttempted(attempted) = &recorded.event
                && filter.matches(source, attempted)
            {
                deliveries.push(delivery_row(&app, &tenant, &webhooks, &recorded, attempted)?);
                if deliveries.len() >= filter.limit {
                    break;
                }
            }
        }
        Ok(DeliveryList { deliveries })
    })
    .await
}

impl DeliveryFilter {
    fn matches(&self, source: Option<u64>, attempted: &WebhookAttempted) -> bool {
        source.is_none_or(|source| source == attempted.source_seq)
            && self.webhook_id.is_none_or(|webhook_id| webhook_id == attempted.webhook_id)
            && self.status.is_none_or(|status| status == attempted.status())
    }
}

fn delivery_row(
    app: &App,
    tenant: &TenantId,
    webhooks: &Webhooks,
    recorded: &Recorded,
    attempted: &WebhookAttempted,
) -> Result<DeliveryRow, OperationError> {
    Ok(DeliveryRow {
        delivery_id: event_id(tenant, recorded.seq),
        event_id: event_id(tenant, attempted.source_seq),
        webhook_id: attempted.webhook_id,
        webhook_url: webhooks.get_ever(attempted.webhook_id).map(|hook| hook.url.clone()).unwrap_or_default(),
        event_type: attempted.topic.name(),
        attempt: attempted.attempt,
        status_code: attempted.outcome.status(),
        response_excerpt: read_excerpt(app, tenant, attempted)?,
        error: error_of(Some(attempted.outcome)),
        duration_ms: attempted.duration_ms,
        created_at: Epoch(recorded.at),
        status: attempted.status().name(),
        next_attempt_at: Epoch::or_zero(attempted.retry_at),
    })
}

/// The beginning of the answer; empty when there was none, or it is not there any more.
fn read_excerpt(
    app: &App,
    tenant: &TenantId,
    attempted: &WebhookAttempted,
) -> Result<String, OperationError> {
    let Some(digest) = attempted.excerpt_digest else {
        return Ok(String::new());
    };
    let id = excerpt_id(attempted.webhook_id, attempted.source_seq, attempted.attempt);
    let Some(stored) = app.ledger.store().side(tenant, SideKind::Excerpt, &id)? else {
        return Ok(String::new());
    };
    let altered = || OperationError::Unavailable("the excerpt of a delivery was altered".to_owned());
    let (salt, excerpt) = stored.split_first_chunk().ok_or_else(altered)?;
    if excerpt_digest(salt, excerpt) != digest {
        return Err(altered());
    }
    Ok(String::from_utf8_lossy(excerpt).into_owned())
}

/// What went wrong, in words.
fn error_of(outcome: Option<AttemptOutcome>) -> String {
    match outcome {
        None => "too many notifications were waiting".to_owned(),
        Some(outcome) if outcome.is_delivered() => String::new(),
        Some(AttemptOutcome::Answered(status)) => format!("the receiver answered {status}"),
        Some(AttemptOutcome::Failed(failure)) => failure.name().to_owned(),
    }
}

/// Lists what was given up and can be tried again: the newest events first, of one webhook or of each after the other.
#[must_use]
pub fn dead_letters(
    tenant: &TenantId,
    moment: &Moment,
    webhook_id: Option<u64>,
    limit: usize,
) -> DeadLetterList {
    let webhooks = &moment.stream.tenant.webhooks;
    let hooks = webhooks.live().filter(|(id, _)| webhook_id.is_none_or(|wanted| wanted == *id));
    let hooks: Vec<(u64, &Hook)> = hooks.collect();
    let row = |id: u64, hook: &Hook, source_seq: u64, letter: &DeadLetter| DeadLetterRow {
        event_id: event_id(tenant, source_seq),
        webhook_id: id,
        webhook_url: hook.url.clone(),
        event_type: letter.topic.name(),
        attempts: letter.attempts,
        status_code: letter.outcome.map_or(0, AttemptOutcome::status),
        error: error_of(letter.outcome),
        failed_at: Epoch(letter.at),
    };
    let mut newest: Vec<(u64, u64, &Hook, &DeadLetter)> = Vec::new();
    for (id, hook) in &hooks {
        let letters = webhooks.dead(*id).take(limit);
        newest.extend(letters.map(|(source_seq, letter)| (source_seq, *id, *hook, letter)));
    }
    newest.sort_by_key(|(source_seq, id, ..)| (std::cmp::Reverse(*source_seq), *id));
    let rows = newest.into_iter().take(limit);
    DeadLetterList {
        count: hooks.iter().map(|(id, _)| webhooks.tally(*id).dead).sum(),
        dead_letters: rows.map(|(source_seq, id, hook, letter)| row(id, hook, source_seq, letter)).collect(),
    }
}

/// Tries again to deliver an event that was given up: to one webhook, or to all of them that were not told.
///
/// # Errors
///
/// [`OperationError::NotFound`] when there is no such dead letter.
pub async fn redeliver(
    app: &App,
    caller: &Caller,
    event_id: &str,
    webhook_id: Option<u64>,
) -> Result<Redelivered, OperationError> {
    let unknown = OperationError::NotFound("dead letter");
    let Some(source_seq) = seq_of(&caller.tenant, event_id) else {
        return Err(unknown);
    };
    let wanted = |id: u64| webhook_id.is_none_or(|wanted| wanted == id);
    let webhook_ids: Vec<u64> = app.with_tenant(&caller.tenant, |tenant| {
        let webhooks = &tenant.webhooks;
        let dead = webhooks.live().map(|(id, _)| id).filter(|id| wanted(*id));
        dead.filter(|id| webhooks.dead_letter(*id, source_seq).is_some()).collect()
    })?;
    if webhook_ids.is_empty() {
        return Err(unknown);
    }
    for webhook_id in &webhook_ids {
        let command = Command::RedeliverEvent(RedeliverEvent { webhook_id: *webhook_id, source_seq });
        app.submit(caller, command, None, vec![]).await?;
    }
    Ok(Redelivered { redelivered: true, event_id: event_id.to_owned(), webhook_ids })
}
