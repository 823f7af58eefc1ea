//! One attempt to deliver a notification, from what is outstanding to what is recorded.
//!
//! The event that is told of is the intent, the request is the effect, and the recorded attempt is its outcome. A process
//! that ends between effect and outcome sends again: receivers know an event by its id.

use std::sync::Arc;
use std::time::Duration;

use super::event_ids::event_id;
use super::notifications;
use super::webhook_signing::WebhookSecret;
use super::{App, OperationError, blocking};
use crate::domain::Command;
use crate::domain::id::{Actor, RequestId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::topics::Topic;
use crate::domain::webhooks::{AttemptOutcome, DeliveryFailure, Hook, Outstanding, RecordAttempt};
use crate::format::chain::{EXCERPT_SALT_LEN, excerpt_digest};
use crate::format::entry;
use crate::ledger::Request;
use crate::outbound::client::OutboundError;
use crate::outbound::guard::Unsafe;
use crate::store::{SideKind, SideRow};
use crate::vault::{Drawer, Place};

/// Bytes of a receiver's answer that are kept. The contract's number.
pub const EXCERPT_LEN_MAX: usize = 512;

/// How much longer than all pauses a notification may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// How long to wait after each failed attempt; after the last one a notification is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pauses(Vec<Duration>);

/// A notification that is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// Whose.
    pub tenant: TenantId,
    /// For which hook.
    pub webhook_id: u64,
    /// Position of the event that it tells of.
    pub source_seq: u64,
}

/// An attempt that was made and is to be recorded.
pub struct Attempt {
    request: Request,
    /// Whether the receiver answered, and not that it cannot now.
    pub is_receiver_there: bool,
}

/// What is sent, and where.
struct Delivery {
    url: String,
    topic: Topic,
    body: Vec<u8>,
    secrets: Vec<WebhookSecret>,
}

impl Default for Pauses {
    /// About fifteen hours in all; the first two are the contract's.
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let seconds = [1, 4, 30, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR];
        Self(seconds.map(Duration::from_secs).to_vec())
    }
}

impl Pauses {
    /// These, in order.
    #[must_use]
    pub const fn new(pauses: Vec<Duration>) -> Self {
        Self(pauses)
    }

    /// When a delivery is tried again whose attempt failed at `now`; `None` when it is given up.
    ///
    /// A pause is up to a quarter longer than it is said to be, by the event and the attempt, so that what failed together
    /// does not come back together. What waited a day longer than all pauses take, behind others that fail, has had its last
    /// attempt.
    fn next(&self, outstanding: &Outstanding, event_id: &str, now: Timestamp) -> Option<Timestamp> {
        let tries = outstanding.attempts - outstanding.attempts_before;
        let pause = *self.0.get(usize::try_from(tries).unwrap_or(usize::MAX))?;
        let total: Duration = self.0.iter().sum();
        let waited = Duration::from_micros(now.micros().saturating_sub(outstanding.since.micros()));
        if waited > total + PATIENCE {
            return None;
        }
        let digest = blake3::hash(format!("{event_id} {}", outstanding.attempts).as_bytes());
        let jitter = pause / 4 * u32::from(digest.as_bytes()[0]) / 255;
        let micros = u64::try_from((pause + jitter).as_micros()).unwrap_or(u64::MAX);
        Some(Timestamp::from_micros(now.micros().saturating_add(micros)))
    }
}

/// Tries once to deliver what is due; `None` when it is not outstanding any more. What comes of it is still to be recorded.
///
/// # Errors
///
/// [`OperationError`] when the ledger cannot be read. A receiver that cannot be reached is an outcome.
pub async fn attempt(app: &Arc<App>, due: &Due) -> Result<Option<Attempt>, OperationError> {
    let Due { tenant, webhook_id, source_seq } = due;
    let found = app.with_tenant(tenant, |tenant| {
        let outstanding = tenant.webhooks.outstanding(*webhook_id, *source_seq).copied();
        tenant.webhooks.get(*webhook_id).cloned().zip(outstanding)
    })?;
    let Some((hook, outstanding)) = found else {
        return Ok(None);
    };
    let event_id = event_id(tenant, *source_seq);
    let started = app.ledger.clock().now();
    let prepared = prepare(app, due, hook, &outstanding, started).await?;
    let (outcome, beginning) = match prepared {
        Some(delivery) => send(app, &delivery, &event_id, outstanding.attempts + 1).await,
        None => (AttemptOutcome::Failed(DeliveryFailure::Unsigned), Vec::new()),
    };
    let ended = app.ledger.clock().now();

    let may_succeed_later = match outcome {
        AttemptOutcome::Answered(status) => matches!(status, 408 | 425 | 429 | 500..),
        AttemptOutcome::Failed(_) => true,
    };
    let retry_at = if may_succeed_later { app.pauses.next(&outstanding, &event_id, ended) } else { None };
    let (excerpt_digest, side) = excerpt(app, due, outstanding.attempts + 1, &beginning);
    let command = Command::RecordAttempt(RecordAttempt {
        webhook_id: *webhook_id,
        source_seq: *source_seq,
        outcome,
        duration_ms: ended.micros().saturating_sub(started.micros()) / 1000,
        excerpt_digest,
        retry_at,
    });
    let request = Request {
        tenant: tenant.clone(),
        actor: Actor::System,
        request_id: RequestId::issue(app.ledger.random().bytes()),
        idempotency: None,
        command,
        side,
    };
    Ok(Some(Attempt { request, is_receiver_there: !may_succeed_later }))
}

/// Records what came of an attempt. A delivery that is not outstanding any more, because its hook was removed meanwhile, is
/// left as it is.
///
/// # Errors
///
/// [`OperationError`] when the ledger does not take it; it can be tried again.
pub async fn record(app: &App, attempt: &Attempt) -> Result<(), OperationError> {
    match app.ledger.submit(attempt.request.clone()).await.map_err(OperationError::from) {
        Ok(_) | Err(OperationError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads what is told and opens the secrets that sign it; `None` when the hook's secret does not open.
async fn prepare(
    app: &Arc<App>,
    due: &Due,
    hook: Hook,
    outstanding: &Outstanding,
    at: Timestamp,
) -> Result<Option<Delivery>, OperationError> {
    let (app, due, topic) = (Arc::clone(app), due.clone(), outstanding.topic);
    blocking(move || {
        let page = app.ledger.store().read(&due.tenant, due.source_seq, 1)?;
        let damaged = || OperationError::Unavailable(format!("entry {} cannot be read", due.source_seq));
        let source = page.first().and_then(|bytes| entry::open(bytes).ok()).ok_or_else(damaged)?;
        let body = notifications::body(&app, &due.tenant, &source.recorded)?;
        let body = body.ok_or_else(|| OperationError::Internal("nothing to tell".to_owned()))?;

        let secret = match open_secret(&app, &due.tenant, &hook.url, &hook.secret_digest) {
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(tenant = %due.tenant, due.webhook_id, %error, "a webhook's secret does not open");
                return Ok(None);
            }
        };
        let previous = hook.previous.filter(|(_, until)| at < *until);
        let previous =
            previous.and_then(|(digest, _)| open_secret(&app, &due.tenant, &hook.url, &digest).ok());
        let secrets = [secret].into_iter().chain(previous).collect();
        Ok(Some(Delivery { url: hook.url, topic, body, secrets }))
    })
    .await
}

/// Opens a hook's secret.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when it was destroyed, or the master key is not there.
pub fn open_secret(
    app: &App,
    tenant: &TenantId,
    url: &str,
    digest: &[u8; 32],
) -> Result<WebhookSecret, OperationError> {
    let opened = app.vault.open(&place(tenant, url), digest);
    let opened = opened.map_err(|error| OperationError::Unavailable(error.to_string()))?;
    let broken = || OperationError::Unavailable("a webhook's secret is not one".to_owned());
    WebhookSecret::parse(&opened).ok_or_else(broken)
}

/// Destroys the sealed values of secrets that sign no more. Destroying one again is no mistake.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when one could not be destroyed.
pub async fn destroy_retired(
    app: &Arc<App>,
    tenant: &TenantId,
    digests: Vec<[u8; 32]>,
) -> Result<(), OperationError> {
    let (app, tenant) = (Arc::clone(app), tenant.clone());
    blocking(move || {
        let destroy = |digest| app.vault.destroy(&tenant, digest);
        let destroyed = digests.iter().try_for_each(destroy);
        destroyed.map_err(|error| OperationError::Unavailable(error.to_string()))
    })
    .await
}

/// Where the secrets of hooks with this URL are kept.
#[must_use]
pub fn place(tenant: &TenantId, url: &str) -> Place {
    Place { tenant: tenant.clone(), drawer: Drawer::Webhook, name: url.to_owned() }
}

/// Sends it, and tells what was answered and how the answer begins.
async fn send(app: &App, delivery: &Delivery, event_id: &str, attempt: u32) -> (AttemptOutcome, Vec<u8>) {
    let timestamp = app.ledger.clock().now().seconds();
    let headers = headers(delivery, event_id, attempt, timestamp);
    match app.outbound.post(&delivery.url, &headers, delivery.body.clone(), EXCERPT_LEN_MAX).await {
        Ok(answer) => (AttemptOutcome::Answered(answer.status), answer.beginning),
        Err(error) => (AttemptOutcome::Failed(failure_of(error)), Vec::new()),
    }
}

/// The contract's headers, and those of Standard Webhooks beside them.
fn headers(delivery: &Delivery, event_id: &str, attempt: u32, timestamp: u64) -> Vec<(&'static str, String)> {
    let Delivery { topic, body, secrets, .. } = delivery;
    let standard: Vec<String> =
        secrets.iter().map(|secret| secret.standard_signature(event_id, timestamp, body)).collect();
    vec![
        ("content-type", "application/json".to_owned()),
        ("user-agent", concat!("Haldir/", env!("CARGO_PKG_VERSION")).to_owned()),
        ("x-haldir-event", topic.name().to_owned()),
        ("x-haldir-timestamp", timestamp.to_string()),
        ("x-haldir-webhook-id", event_id.to_owned()),
        ("x-haldir-delivery-attempt", attempt.to_string()),
        ("x-haldir-signature", secrets.first().map(|it| it.signature(timestamp, body)).unwrap_or_default()),
        ("webhook-id", event_id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", standard.join(" ")),
    ]
}

const fn failure_of(error: OutboundError) -> DeliveryFailure {
    match error {
        OutboundError::Unsafe(Unsafe::Unresolved) => DeliveryFailure::Unresolved,
        OutboundError::Unsafe(_) => DeliveryFailure::UrlRefused,
        OutboundError::Connect => DeliveryFailure::Unreachable,
        OutboundError::Tls => DeliveryFailure::Tls,
        OutboundError::TimedOut => DeliveryFailure::TimedOut,
        OutboundError::Broken => DeliveryFailure::Broken,
    }
}

/// The beginning of an answer as it stands beside the ledger, and its digest.
fn excerpt(app: &App, due: &Due, attempt: u32, beginning: &[u8]) -> (Option<[u8; 32]>, Vec<SideRow>) {
    if beginning.is_empty() {
        return (None, vec![]);
    }
    let salt: [u8; EXCERPT_SALT_LEN] = app.ledger.random().bytes();
    let row = SideRow {
        kind: SideKind::Excerpt,
        id: excerpt_id(due.webhook_id, due.source_seq, attempt),
        value: [&salt[..], beginning].concat(),
    };
    (Some(excerpt_digest(&salt, beginning)), vec![row])
}

/// The name of an attempt's excerpt.
#[must_use]
pub fn excerpt_id(webhook_id: u64, source_seq: u64, attempt: u32) -> Vec<u8> {
    [&webhook_id.to_be_bytes()[..], &source_seq.to_be_bytes(), &attempt.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outstanding(attempts: u32, attempts_before: u32) -> Outstanding {
        let since = Timestamp::from_micros(0);
        Outstanding { topic: Topic::Test, since, due_at: since, attempts, attempts_before }
    }

    #[test]
    fn pauses_grow_over_hours_and_end() {
        let pauses = Pauses::default();
        let (mut now, mut attempts) = (Timestamp::from_micros(0), 0);
        while let Some(next) = pauses.next(&outstanding(attempts, 0), "id", now) {
            let (pause, least) = (next.micros() - now.micros(), pauses.0[attempts as usize].as_micros());
            let least = u64::try_from(least).unwrap();
            assert!((least..=least + least / 4).contains(&pause), "{attempts}: {pause}");
            now = next;
            attempts += 1;
        }
        assert_eq!(attempts, 10);
        assert!((14..=20).contains(&(now.seconds() / 3600)), "{now}");
    }

    #[test]
    fn what_was_put_back_starts_over_and_events_part() {
        let pauses = Pauses::default();
        let now = Timestamp::from_micros(5);
        assert_eq!(pauses.next(&outstanding(10, 0), "id", now), None);
        let again = pauses.next(&outstanding(10, 10), "id", now).unwrap();
        assert!(again.micros() <= 5 + 1_250_000);
        assert_ne!(pauses.next(&outstanding(0, 0), "a", now), pauses.next(&outstanding(0, 0), "b", now));
        let late = Timestamp::from_micros(0).plus_seconds(3600 * 48);
        assert_eq!(pauses.next(&outstanding(0, 0), "id", late), None, "it waited too long for its turn");
    }
}
