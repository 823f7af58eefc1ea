//! Webhooks: register, list, rotate, remove, test.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::deliveries::{open_secret, place};
use super::event_ids::event_id;
use super::past::Moment;
use super::retries::Retry;
use super::webhook_signing::WebhookSecret;
use super::wire::Epoch;
use super::{App, Caller, OperationError, blocking, only_event};
use crate::domain::limits::{
    URL_CHARS_MAX, WEBHOOK_EVENT_CHARS_MAX, WEBHOOK_EVENT_COUNT_MAX, WEBHOOK_NAME_CHARS_MAX,
};
use crate::domain::topics::Topic;
use crate::domain::webhooks::{ALL, Hook, RegisterWebhook, RemoveWebhook, RotateWebhook, TestWebhook};
use crate::domain::{Command, Event};
use crate::vault::Digest;

/// Seconds for which an old secret signs too, when nothing else was asked. The contract's day.
pub const GRACE_S_DEFAULT: u64 = 86_400;
/// The least and the most that can be asked. The contract's range.
pub const GRACE_S: std::ops::RangeInclusive<u64> = 60..=604_800;

/// A webhook to be registered.
#[derive(Debug, Clone, Serialize)]
pub struct RegisterRequest {
    /// Whom to tell.
    pub url: String,
    /// A name for people.
    pub name: String,
    /// Names of events, or `all`.
    pub events: Vec<String>,
}

/// A registered webhook. The only time that the secret is shown.
#[derive(Serialize, ToSchema)]
pub struct RegisteredWebhook {
    /// Always true.
    pub registered: bool,
    /// Its number.
    pub webhook_id: u64,
    /// Whom it tells.
    pub url: String,
    /// Its name.
    pub name: String,
    /// Of what.
    pub events: Vec<String>,
    /// The secret that signs deliveries. Keep it: it cannot be shown again.
    pub secret: String,
    /// The same for libraries of Standard Webhooks.
    pub secret_standard: String,
    /// What to do now.
    pub message: String,
}

/// A webhook in the list.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookRow {
    /// Its number.
    pub webhook_id: u64,
    /// Whom it tells.
    pub url: String,
    /// Its name.
    pub name: String,
    /// Of what.
    pub events: Vec<String>,
    /// Always true: removed ones are not listed.
    pub active: bool,
    /// Notifications that were delivered.
    pub fire_count: u64,
    /// Notifications that were given up.
    pub fail_count: u64,
    /// When the last one was delivered or given up; `0.0` is never.
    pub last_fired: Epoch,
    /// Always true: every delivery is signed.
    pub signed: bool,
    /// When it was registered.
    pub created_at: Epoch,
    /// Until when the secret before the present one signs too; `0.0` when none does.
    pub secret_prev_expires_at: Epoch,
    /// Notifications that wait for an attempt.
    pub pending: u64,
    /// Notifications that were given up and can be tried again.
    pub dead_letters: u64,
}

/// The tenant's webhooks.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookList {
    /// In the order of their registration.
    pub webhooks: Vec<WebhookRow>,
}

/// A removed webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct RemovedWebhook {
    /// Always true.
    pub deleted: bool,
    /// Which one.
    pub webhook_id: u64,
}

/// A webhook with a new secret. The only time that it is shown.
#[derive(Serialize, ToSchema)]
pub struct RotatedWebhook {
    /// Which one.
    pub webhook_id: u64,
    /// The new secret: deliveries are signed with it from now on.
    pub secret: String,
    /// The same for libraries of Standard Webhooks.
    pub secret_standard: String,
    /// The secret before it. Until its end, `webhook-signature` carries a signature by it too.
    pub secret_prev: String,
    /// When that is.
    pub secret_prev_expires_at: Epoch,
    /// Seconds until then.
    pub grace_seconds: u64,
    /// What to do now.
    pub message: String,
}

/// A test that is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub struct TestedWebhook {
    /// Always true.
    pub queued: bool,
    /// Which webhook.
    pub webhook_id: u64,
    /// The id by which its delivery can be found.
    pub event_id: String,
}

/// Checks what a caller asks for, but for the URL.
///
/// # Errors
///
/// [`OperationError::Invalid`].
pub fn register_request(
    url: &str,
    name: String,
    events: Vec<String>,
) -> Result<RegisterRequest, OperationError> {
    let too_long =
        |field, chars: usize| OperationError::invalid(field, format!("expected at most {chars} characters"));
    if name.chars().count() > WEBHOOK_NAME_CHARS_MAX {
        return Err(too_long("name", WEBHOOK_NAME_CHARS_MAX));
    }
    let mut names: Vec<String> = Vec::new();
    for event in events.into_iter().map(|event| event.trim().to_owned()) {
        if event.chars().count() > WEBHOOK_EVENT_CHARS_MAX || event.chars().any(char::is_control) {
            return Err(too_long("events", WEBHOOK_EVENT_CHARS_MAX));
        }
        if !event.is_empty() && !names.contains(&event) {
            names.push(event);
        }
    }
    if names.len() > WEBHOOK_EVENT_COUNT_MAX {
        let reason = format!("expected at most {WEBHOOK_EVENT_COUNT_MAX} events");
        return Err(OperationError::invalid("events", reason));
    }
    if names.is_empty() {
        names.push(ALL.to_owned());
    }
    Ok(RegisterRequest { url: url.trim().to_owned(), name, events: names })
}

/// Registers a webhook and shows its secret, once; a retry with the same idempotency key shows it again.
///
/// # Errors
///
/// [`OperationError::UnsafeUrl`] when the URL leads to where Haldir must not go.
pub async fn register(
    app: &Arc<App>,
    caller: &Caller,
    request: RegisterRequest,
    retry: Option<&Retry>,
) -> Result<RegisteredWebhook, OperationError> {
    let now = app.ledger.clock().now();
    let is_repeated = |key| app.with_tenant(&caller.tenant, |it| it.replays.repeats(key, now));
    let is_retry = retry.map_or(Ok(false), |retry| is_repeated(&retry.idempotency.key))?;
    // What was registered stays registered, wherever its name leads by now.
    if !is_retry {
        app.outbound.check(&request.url).await.map_err(OperationError::UnsafeUrl)?;
    }
    let (secret, digest) = keep_new_secret(app, caller, &request.url).await?;
    let command = Command::RegisterWebhook(RegisterWebhook {
        url: request.url,
        name: request.name,
        events: request.events,
        secret_digest: digest,
    });
    let receipt = match app.submit(caller, command, retry, vec![]).await {
        Ok(receipt) => receipt,
        Err(error) => return Err(forget(app, caller, digest, error).await),
    };
    let Event::WebhookRegistered(hook) = &only_event(&receipt)?.recorded.event else {
        return Err(OperationError::unexpected(&receipt));
    };
    let secret = if receipt.is_replay {
        destroy(app, caller, digest).await;
        read_secret(app, caller, &hook.url, hook.secret_digest).await?
    } else {
        secret
    };
    Ok(RegisteredWebhook {
        registered: true,
        webhook_id: hook.webhook_id,
        url: hook.url.clone(),
        name: hook.name.clone(),
        events: hook.events.clone(),
        secret: secret.text().to_string(),
        secret_standard: secret.standard_text().to_string(),
        message: advice(&hook.events),
    })
}

/// What to do with the secret, and which names will never come.
fn advice(events: &[String]) -> String {
    let is_known = |event: &String| {
        event == ALL || Topic::ALL.iter().any(|topic| topic.can_be_subscribed_to() && topic.name() == event)
    };
    let unknown: Vec<&str> = events.iter().filter(|event| !is_known(event)).map(String::as_str).collect();
    let store = "Store this secret now: it is shown only once.";
    if unknown.is_empty() {
        return store.to_owned();
    }
    format!("{store} There are no events named {} so far.", unknown.join(", "))
}

/// Makes a secret and keeps it sealed.
async fn keep_new_secret(
    app: &Arc<App>,
    caller: &Caller,
    url: &str,
) -> Result<(WebhookSecret, Digest), OperationError> {
    let secret = WebhookSecret::new(Zeroizing::new(app.ledger.random().bytes()));
    let (app, place) = (Arc::clone(app), place(&caller.tenant, url));
    blocking(move || {
        let kept = app.vault.seal_and_keep(&place, secret.bytes());
        let kept = kept.map_err(|error| OperationError::Unavailable(error.to_string()))?;
        Ok((secret, kept.digest))
    })
    .await
}

async fn read_secret(
    app: &Arc<App>,
    caller: &Caller,
    url: &str,
    digest: Digest,
) -> Result<WebhookSecret, OperationError> {
    let (app, tenant, url) = (Arc::clone(app), caller.tenant.clone(), url.to_owned());
    blocking(move || open_secret(&app, &tenant, &url, &digest)).await
}

/// Destroys a secret that did not come to be used, unless only a restart can tell whether it did.
async fn forget(app: &Arc<App>, caller: &Caller, digest: Digest, error: OperationError) -> OperationError {
    if !matches!(error, OperationError::Unavailable(_)) {
        destroy(app, caller, digest).await;
    }
    error
}

async fn destroy(app: &Arc<App>, caller: &Caller, digest: Digest) {
    let (app, tenant) = (Arc::clone(app), caller.tenant.clone());
    let destroyed = blocking(move || {
        app.vault.destroy(&tenant, &digest).map_err(|error| OperationError::Unavailable(error.to_string()))
    });
    if let Err(error) = destroyed.await {
        tracing::warn!(%error, "a secret that nobody uses was not destroyed");
    }
}

/// Lists the tenant's webhooks.
#[must_use]
pub fn list(moment: &Moment) -> WebhookList {
    let webhooks = &moment.stream.tenant.webhooks;
    let row = |(webhook_id, hook): (u64, &Hook)| {
        let tally = webhooks.tally(webhook_id);
        let overlap = hook.previous.map(|(_, until)| until).filter(|until| *until > moment.at);
        WebhookRow {
            webhook_id,
            url: hook.url.clone(),
            name: hook.name.clone(),
            events: hook.events.clone(),
            active: true,
            fire_count: tally.fired,
            fail_count: tally.failed,
            last_fired: Epoch::or_zero(tally.last_fired),
            signed: true,
            created_at: Epoch(hook.created_at),
            secret_prev_expires_at: Epoch::or_zero(overlap),
            pending: tally.outstanding,
            dead_letters: tally.dead,
        }
    };
    WebhookList { webhooks: webhooks.live().map(row).collect() }
}

/// Removes a webhook, with everything that it was not told.
///
/// # Errors
///
/// [`OperationError::NotFound`] unless the tenant has it.
pub async fn remove(app: &App, caller: &Caller, webhook_id: u64) -> Result<RemovedWebhook, OperationError> {
    let command = Command::RemoveWebhook(RemoveWebhook { webhook_id });
    app.submit(caller, command, None, vec![]).await?;
    Ok(RemovedWebhook { deleted: true, webhook_id })
}

/// Gives a webhook a new secret and shows it, once. For `grace_s` seconds, brought into [`GRACE_S`], the old one signs too.
///
/// # Errors
///
/// [`OperationError::NotFound`] unless the tenant has it.
pub async fn rotate(
    app: &Arc<App>,
    caller: &Caller,
    webhook_id: u64,
    grace_s: u64,
) -> Result<RotatedWebhook, OperationError> {
    let grace_s = grace_s.clamp(*GRACE_S.start(), *GRACE_S.end());
    let hook = app.with_tenant(&caller.tenant, |tenant| tenant.webhooks.get(webhook_id).cloned())?;
    let hook = hook.ok_or(OperationError::NotFound("webhook"))?;
    let (secret, digest) = keep_new_secret(app, caller, &hook.url).await?;
    let command = Command::RotateWebhook(RotateWebhook { webhook_id, secret_digest: digest, grace_s });
    let receipt = match app.submit(caller, command, None, vec![]).await {
        Ok(receipt) => receipt,
        Err(error) => return Err(forget(app, caller, digest, error).await),
    };
    let committed = only_event(&receipt)?;
    let previous = app.with_stream(&caller.tenant, |stream| {
        stream.tenant.webhooks.get(webhook_id).and_then(|hook| hook.previous)
    })?;
    // Whoever rotates at the same moment makes theirs the previous one; what was is told of all the same.
    let previous = previous.map_or(hook.secret_digest, |(digest, _)| digest);
    let previous = read_secret(app, caller, &hook.url, previous).await;
    Ok(RotatedWebhook {
        webhook_id,
        secret: secret.text().to_string(),
        secret_standard: secret.standard_text().to_string(),
        secret_prev: previous.map(|secret| secret.text().to_string()).unwrap_or_default(),
        secret_prev_expires_at: Epoch(committed.recorded.at.plus_seconds(grace_s)),
        grace_seconds: grace_s,
        message: "Store this secret now: it is shown only once. New deliveries are signed with it."
            .to_owned(),
    })
}

/// Sends a webhook a notification that says nothing, to see whether it arrives. It is recorded like any other.
///
/// # Errors
///
/// [`OperationError::NotFound`] unless the tenant has it.
pub async fn test(app: &App, caller: &Caller, webhook_id: u64) -> Result<TestedWebhook, OperationError> {
    let command = Command::TestWebhook(TestWebhook { webhook_id });
    let receipt = app.submit(caller, command, None, vec![]).await?;
    let seq = only_event(&receipt)?.recorded.seq;
    Ok(TestedWebhook { queued: true, webhook_id, event_id: event_id(&caller.tenant, seq) })
}

const _: () = assert!(URL_CHARS_MAX <= 65_535 / 4, "a secret is sealed under its webhook's URL");
