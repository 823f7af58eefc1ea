//! Webhooks: who is told of what, and what they were not told yet.
//!
//! An event that somebody subscribed to is itself the intent to tell them: its fold puts it on the list of each matching
//! hook, and only a recorded attempt with a final outcome takes it off again. So nothing that was committed is forgotten,
//! whenever the process ends, and a receiver may hear of one event twice but never not at all.

mod state;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::limits::WEBHOOK_COUNT_MAX;
use super::time::Timestamp;
use super::topics::Topic;
use super::{Event, Refusal};
pub use state::{DeadLetter, Hook, Outstanding, Tally, Webhooks};
pub(super) use state::{
    apply_attempted, apply_notice, apply_redelivered, apply_registered, apply_removed, apply_rotated,
};

/// The word that subscribes to everything.
pub const ALL: &str = "all";

/// Tell a URL of events from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterWebhook {
    /// Whom to tell.
    pub url: String,
    /// A name for people.
    pub name: String,
    /// Names of events, or `all`.
    pub events: Vec<String>,
    /// Digest of the sealed secret that signs deliveries.
    pub secret_digest: [u8; 32],
}

/// Tell it no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveWebhook {
    /// Which hook.
    pub webhook_id: u64,
}

/// Sign with another secret; for a time with both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateWebhook {
    /// Which hook.
    pub webhook_id: u64,
    /// Digest of the new sealed secret.
    pub secret_digest: [u8; 32],
    /// Seconds for which the secret before it signs too.
    pub grace_s: u64,
}

/// Record that a delivery was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordAttempt {
    /// Whom it was for.
    pub webhook_id: u64,
    /// Position of the event that it tells of.
    pub source_seq: u64,
    /// The status that was answered, or why nothing was.
    pub outcome: AttemptOutcome,
    /// How long it took.
    pub duration_ms: u64,
    /// Salted digest of the beginning of the answer; `None` when it was empty.
    pub excerpt_digest: Option<[u8; 32]>,
    /// When it is to be tried again if it was not delivered; `None` is never.
    pub retry_at: Option<Timestamp>,
}

/// Try again what was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedeliverEvent {
    /// Whom it is for.
    pub webhook_id: u64,
    /// Position of the event that it tells of.
    pub source_seq: u64,
}

/// Send a hook something, to see whether it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestWebhook {
    /// Which hook.
    pub webhook_id: u64,
}

/// A hook was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRegistered {
    /// Its number among the tenant's, from 1.
    pub webhook_id: u64,
    /// Whom to tell.
    pub url: String,
    /// A name for people.
    pub name: String,
    /// Names of events, or `all`.
    pub events: Vec<String>,
    /// Digest of the sealed secret that signs deliveries.
    pub secret_digest: [u8; 32],
}

/// A hook was removed, with everything that it was not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRemoved {
    /// Which hook.
    pub webhook_id: u64,
}

/// A hook got another secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRotated {
    /// Which hook.
    pub webhook_id: u64,
    /// Digest of the new sealed secret.
    pub secret_digest: [u8; 32],
    /// Seconds for which the secret before it signs too.
    pub grace_s: u64,
}

/// A delivery was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookAttempted {
    /// Whom it was for.
    pub webhook_id: u64,
    /// Position of the event that it tells of.
    pub source_seq: u64,
    /// What kind of notification it is.
    pub topic: Topic,
    /// How many times it was tried, with this one.
    pub attempt: u32,
    /// The status that was answered, or why nothing was.
    pub outcome: AttemptOutcome,
    /// How long it took.
    pub duration_ms: u64,
    /// Salted digest of the beginning of the answer; `None` when it was empty.
    pub excerpt_digest: Option<[u8; 32]>,
    /// When it is tried again; `None` when it was delivered or given up.
    pub retry_at: Option<Timestamp>,
}

/// What was given up is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRedelivered {
    /// Whom it is for.
    pub webhook_id: u64,
    /// Position of the event that it tells of.
    pub source_seq: u64,
}

/// Somebody wants to see whether deliveries arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTested {
    /// Which hook.
    pub webhook_id: u64,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptOutcome {
    /// This HTTP status was answered.
    Answered(u16),
    /// Nothing was.
    Failed(DeliveryFailure),
}

impl AttemptOutcome {
    /// Whether the receiver took it.
    #[must_use]
    pub const fn is_delivered(self) -> bool {
        matches!(self, Self::Answered(200..300))
    }

    /// The HTTP status; 0 when nothing was answered.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Answered(status) => status,
            Self::Failed(_) => 0,
        }
    }
}

/// Why nothing was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryFailure {
    /// The URL leads to where Haldir must not go.
    UrlRefused,
    /// The host has no address.
    Unresolved,
    /// There was no connection.
    Unreachable,
    /// The receiver could not show who it is.
    Tls,
    /// It took too long.
    TimedOut,
    /// The connection was closed, or what came was not HTTP.
    Broken,
    /// The hook's secret could not be opened, so nothing was sent.
    Unsigned,
}

impl DeliveryFailure {
    /// A short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UrlRefused => "url_refused",
            Self::Unresolved => "host_unresolved",
            Self::Unreachable => "connection_failed",
            Self::Tls => "tls_failed",
            Self::TimedOut => "timeout",
            Self::Broken => "connection_broken",
            Self::Unsigned => "secret_unavailable",
        }
    }
}

/// How a delivery stands after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// The receiver took it.
    Delivered,
    /// It is tried again.
    WillRetry,
    /// It was given up.
    Dead,
}

impl DeliveryStatus {
    /// A short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::WillRetry => "will_retry",
            Self::Dead => "dead",
        }
    }
}

impl WebhookAttempted {
    /// How the delivery stands after it.
    #[must_use]
    pub const fn status(&self) -> DeliveryStatus {
        match self.retry_at {
            Some(_) => DeliveryStatus::WillRetry,
            None if self.outcome.is_delivered() => DeliveryStatus::Delivered,
            None => DeliveryStatus::Dead,
        }
    }
}

pub(super) fn register(webhooks: &Webhooks, command: &RegisterWebhook) -> Result<Vec<Event>, Refusal> {
    if webhooks.live_count() >= WEBHOOK_COUNT_MAX {
        return Err(Refusal::WebhooksTooMany);
    }
    Ok(vec![Event::WebhookRegistered(WebhookRegistered {
        webhook_id: webhooks.next_id(),
        url: command.url.clone(),
        name: command.name.clone(),
        events: command.events.clone(),
        secret_digest: command.secret_digest,
    })])
}

pub(super) fn remove(webhooks: &Webhooks, command: &RemoveWebhook) -> Result<Vec<Event>, Refusal> {
    check_live(webhooks, command.webhook_id)?;
    Ok(vec![Event::WebhookRemoved(WebhookRemoved { webhook_id: command.webhook_id })])
}

pub(super) fn rotate(webhooks: &Webhooks, command: &RotateWebhook) -> Result<Vec<Event>, Refusal> {
    check_live(webhooks, command.webhook_id)?;
    let RotateWebhook { webhook_id, secret_digest, grace_s } = *command;
    Ok(vec![Event::WebhookRotated(WebhookRotated { webhook_id, secret_digest, grace_s })])
}

pub(super) fn record_attempt(webhooks: &Webhooks, command: &RecordAttempt) -> Result<Vec<Event>, Refusal> {
    check_live(webhooks, command.webhook_id)?;
    let outstanding = webhooks.outstanding(command.webhook_id, command.source_seq);
    let outstanding = outstanding.ok_or(Refusal::DeliveryUnknown)?;
    Ok(vec![Event::WebhookAttempted(WebhookAttempted {
        webhook_id: command.webhook_id,
        source_seq: command.source_seq,
        topic: outstanding.topic,
        attempt: outstanding.attempts.saturating_add(1),
        outcome: command.outcome,
        duration_ms: command.duration_ms,
        excerpt_digest: command.excerpt_digest,
        retry_at: command.retry_at.filter(|_| !command.outcome.is_delivered()),
    })])
}

pub(super) fn redeliver(webhooks: &Webhooks, command: &RedeliverEvent) -> Result<Vec<Event>, Refusal> {
    let RedeliverEvent { webhook_id, source_seq } = *command;
    check_live(webhooks, webhook_id)?;
    if webhooks.outstanding(webhook_id, source_seq).is_some() {
        return Ok(Vec::new());
    }
    webhooks.dead_letter(webhook_id, source_seq).ok_or(Refusal::DeliveryUnknown)?;
    Ok(vec![Event::WebhookRedelivered(WebhookRedelivered { webhook_id, source_seq })])
}

pub(super) fn test(webhooks: &Webhooks, command: &TestWebhook) -> Result<Vec<Event>, Refusal> {
    check_live(webhooks, command.webhook_id)?;
    Ok(vec![Event::WebhookTested(WebhookTested { webhook_id: command.webhook_id })])
}

fn check_live(webhooks: &Webhooks, webhook_id: u64) -> Result<(), Refusal> {
    webhooks.get(webhook_id).map(|_| ()).ok_or(Refusal::WebhookUnknown)
}
