//! Webhooks: who is told of what, and what they were not told yet.
//!
//! An event that somebody subscribed to is itself the intent to tell them: its fold puts it on the list of each matching
//! hook, and only a recorded attempt with a final outcome takes it off again. So nothing that was committed is forgotten,
//! whenever the process ends, and a receiver may hear of one event twice but never not at all.

mod state;

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

#[cfg(test)]
mod tests {
    use crate::domain::Command;
    use crate::domain::keys::tests::{Story, given, moment, opened, session_revoked};

    use super::*;
    use crate::domain::Recorded;
    use crate::domain::compliance::Schedules;
    use crate::domain::limits::{DEAD_LETTER_COUNT_MAX, OUTSTANDING_COUNT_MAX};

    #[test]
    fn hooks_are_numbered_and_numbers_are_not_used_again() {
        let story = given([]).when(register(&["all"])).then([registered(1, &["all"])]);
        let story = story.when(register(&["all"])).then([registered(2, &["all"])]);
        let story = story.when(remove(2)).then([removed(2)]);
        let story = story.when(remove(2)).refused(Refusal::WebhookUnknown);
        let story = story.when(register(&["all"])).then([registered(3, &["all"])]);
        let webhooks = &story.state().webhooks;
        assert_eq!(webhooks.live().map(|(id, _)| id).collect::<Vec<_>>(), [1, 3]);
        assert!(webhooks.get(2).is_none() && webhooks.get_ever(2).is_some());
    }

    #[test]
    fn a_tenant_has_so_many_hooks_and_no_more() {
        let mut story = given([]);
        for id in 1..=WEBHOOK_COUNT_MAX as u64 {
            story = story.when(register(&["all"])).then([registered(id, &["all"])]);
        }
        let story = story.when(register(&["all"])).refused(Refusal::WebhooksTooMany);
        let story = story.when(remove(1)).then([removed(1)]);
        story.when(register(&["all"])).then([registered(WEBHOOK_COUNT_MAX as u64 + 1, &["all"])]);
    }

    #[test]
    fn an_event_is_outstanding_for_those_who_asked_for_it_since() {
        let story = given([
            Event::SessionOpened(opened("r", None)),
            session_revoked("r"),
            registered(1, &["all"]),
            registered(2, &["flagged", "session_revoked"]),
            registered(3, &["flagged"]),
            Event::SessionOpened(opened("s", None)),
            session_revoked("s"),
        ]);
        assert_eq!(outstanding(&story), [(1, 6), (2, 6)]);
        assert_eq!(story.state().webhooks.tally(1).outstanding, 1);
        let story = story.when(test(3)).then([Event::WebhookTested(WebhookTested { webhook_id: 3 })]);
        assert_eq!(outstanding(&story), [(1, 6), (2, 6), (3, 7)], "a test goes to its hook alone");
        story.when(test(4)).refused(Refusal::WebhookUnknown);
    }

    #[test]
    fn an_attempt_delivers_puts_off_or_gives_up() {
        let story = with_one_outstanding();
        let later = moment(100);
        let story = story.when(attempt(503, Some(later))).then([attempted(1, 503, Some(later))]);
        let webhooks = &story.state().webhooks;
        assert_eq!(webhooks.due(1).collect::<Vec<_>>(), [(later, 3)]);
        assert_eq!(webhooks.outstanding(1, 3).unwrap().attempts, 1);

        let delivered = story.clone().when(attempt(200, Some(later))).then([attempted(2, 200, None)]);
        let webhooks = &delivered.state().webhooks;
        assert_eq!(
            (webhooks.outstanding_count(), webhooks.due(1).count(), webhooks.dead(1).count()),
            (0, 0, 0)
        );
        assert_eq!((webhooks.tally(1).fired, webhooks.tally(1).failed), (1, 0));
        assert!(webhooks.tally(1).last_fired.is_some());
        delivered.when(attempt(200, None)).refused(Refusal::DeliveryUnknown);

        let dead = story.when(attempt(410, None)).then([attempted(2, 410, None)]);
        let webhooks = &dead.state().webhooks;
        assert_eq!((webhooks.outstanding_count(), webhooks.due(1).count()), (0, 0));
        assert_eq!((webhooks.tally(1).fired, webhooks.tally(1).failed, webhooks.tally(1).dead), (0, 1, 1));
        assert_eq!(webhooks.dead_letter(1, 3).unwrap().attempts, 2);
    }

    #[test]
    fn what_was_given_up_is_put_back_once_and_counts_on() {
        let story = with_one_outstanding();
        let story = story.when(redeliver()).then([]);
        let story = story.when(attempt(410, None)).then([attempted(1, 410, None)]);
        let story = story.when(redeliver()).then([redelivered()]);
        let story = story.when(redeliver()).then([]);
        let again = story.state().webhooks.outstanding(1, 3).copied().unwrap();
        assert_eq!((again.attempts, again.attempts_before), (1, 1));
        assert_eq!(story.state().webhooks.tally(1).dead, 0);
        let story = story.when(attempt(200, None)).then([attempted(2, 200, None)]);
        story.when(redeliver()).refused(Refusal::DeliveryUnknown);
    }

    #[test]
    fn a_removed_hook_leaves_nothing_to_deliver() {
        let story = with_one_outstanding()
            .when(test(1))
            .then([Event::WebhookTested(WebhookTested { webhook_id: 1 })]);
        let story = story.when(attempt(410, None)).then([attempted(1, 410, None)]);
        let story = story.when(remove(1)).then([removed(1)]);
        let webhooks = &story.state().webhooks;
        assert_eq!(
            (webhooks.outstanding_count(), webhooks.due(1).count(), webhooks.dead(1).count()),
            (0, 0, 0)
        );
        story.when(attempt(200, None)).refused(Refusal::WebhookUnknown);
    }

    #[test]
    fn an_old_secret_signs_until_its_time_is_over() {
        let rotate = |byte, grace_s| {
            Command::RotateWebhook(RotateWebhook { webhook_id: 1, secret_digest: [byte; 32], grace_s })
        };
        let rotated = |byte, grace_s| {
            Event::WebhookRotated(WebhookRotated { webhook_id: 1, secret_digest: [byte; 32], grace_s })
        };
        let story = given([registered(1, &["all"])]);
        let story = story.when(rotate(2, 60)).at(moment(10)).then([rotated(2, 60)]);
        let hook = story.state().webhooks.get(1).unwrap();
        assert_eq!((hook.secret_digest, hook.previous), ([2; 32], Some(([1; 32], moment(70)))));
        let retired =
            |story: &Story, at| story.state().webhooks.retired(moment(at)).copied().collect::<Vec<_>>();
        assert_eq!(retired(&story, 69), Vec::<[u8; 32]>::new());
        assert_eq!(story.state().webhooks.next_retirement(moment(69)), Some(moment(70)));
        assert_eq!(retired(&story, 70), [[1; 32]]);

        // A second rotation within the overlap ends it.
        let story = story.when(rotate(3, 60)).at(moment(20)).then([rotated(3, 60)]);
        assert_eq!(retired(&story, 20), [[1; 32]]);
        let story = story.when(remove(1)).at(moment(30)).then([removed(1)]);
        assert_eq!(retired(&story, 30), [[1; 32], [2; 32], [3; 32]]);
        story.when(rotate(4, 60)).refused(Refusal::WebhookUnknown);
    }

    #[test]
    fn too_much_that_is_outstanding_is_given_up_and_of_that_the_newest_is_kept() {
        let mut webhooks = Webhooks::default();
        let Event::WebhookRegistered(hook) = registered(1, &["all"]) else { unreachable!() };
        apply_registered(&mut webhooks, moment(0), &hook);
        let whole = OUTSTANDING_COUNT_MAX + DEAD_LETTER_COUNT_MAX;
        for seq in 0..whole + 5 {
            let recorded = Recorded {
                seq,
                at: moment(seq),
                rules: 1,
                actor: crate::domain::id::Actor::System,
                request_id: crate::domain::id::RequestId::parse("r").unwrap(),
                idempotency: None,
                event: session_revoked("s"),
            };
            apply_notice(&mut webhooks, &Schedules::default(), &recorded);
        }
        let tally = webhooks.tally(1);
        assert_eq!((tally.outstanding, tally.dead), (OUTSTANDING_COUNT_MAX, DEAD_LETTER_COUNT_MAX));
        assert_eq!(tally.failed, DEAD_LETTER_COUNT_MAX + 5);
        let seqs: Vec<u64> = webhooks.dead(1).map(|(seq, _)| seq).collect();
        assert_eq!((seqs[0], *seqs.last().unwrap()), (whole + 4, OUTSTANDING_COUNT_MAX + 5));
    }

    /// A hook and an event at seq 3 that it was not told of.
    fn with_one_outstanding() -> Story {
        given([
            registered(1, &["session_revoked"]),
            Event::SessionOpened(opened("q", None)),
            Event::SessionOpened(opened("s", None)),
            session_revoked("s"),
        ])
    }

    fn outstanding(story: &Story) -> Vec<(u64, u64)> {
        let webhooks = &story.state().webhooks;
        webhooks.live().flat_map(|(id, _)| webhooks.due(id).map(move |(_, seq)| (id, seq))).collect()
    }

    fn names(events: &[&str]) -> Vec<String> {
        events.iter().map(|event| (*event).to_owned()).collect()
    }

    fn register(events: &[&str]) -> Command {
        Command::RegisterWebhook(RegisterWebhook {
            url: "https://example.com".to_owned(),
            name: String::new(),
            events: names(events),
            secret_digest: [1; 32],
        })
    }

    fn registered(webhook_id: u64, events: &[&str]) -> Event {
        Event::WebhookRegistered(WebhookRegistered {
            webhook_id,
            url: "https://example.com".to_owned(),
            name: String::new(),
            events: names(events),
            secret_digest: [1; 32],
        })
    }

    fn remove(webhook_id: u64) -> Command {
        Command::RemoveWebhook(RemoveWebhook { webhook_id })
    }

    fn removed(webhook_id: u64) -> Event {
        Event::WebhookRemoved(WebhookRemoved { webhook_id })
    }

    fn test(webhook_id: u64) -> Command {
        Command::TestWebhook(TestWebhook { webhook_id })
    }

    fn attempt(status: u16, retry_at: Option<Timestamp>) -> Command {
        Command::RecordAttempt(RecordAttempt {
            webhook_id: 1,
            source_seq: 3,
            outcome: AttemptOutcome::Answered(status),
            duration_ms: 5,
            excerpt_digest: None,
            retry_at,
        })
    }

    fn attempted(attempt: u32, status: u16, retry_at: Option<Timestamp>) -> Event {
        Event::WebhookAttempted(WebhookAttempted {
            webhook_id: 1,
            source_seq: 3,
            topic: Topic::SessionRevoked,
            attempt,
            outcome: AttemptOutcome::Answered(status),
            duration_ms: 5,
            excerpt_digest: None,
            retry_at,
        })
    }

    fn redeliver() -> Command {
        Command::RedeliverEvent(RedeliverEvent { webhook_id: 1, source_seq: 3 })
    }

    fn redelivered() -> Event {
        Event::WebhookRedelivered(WebhookRedelivered { webhook_id: 1, source_seq: 3 })
    }
}
