//! The fold: hooks, and what they were not told yet.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    ALL, AttemptOutcome, DeliveryStatus, WebhookAttempted, WebhookRedelivered, WebhookRegistered,
    WebhookRemoved, WebhookRotated,
};
use crate::domain::Recorded;
use crate::domain::compliance::{Delivery, Schedules};
use crate::domain::limits::{DEAD_LETTER_COUNT_MAX, OUTSTANDING_COUNT_MAX};
use crate::domain::table::Table;
use crate::domain::time::Timestamp;
use crate::domain::topics::{Audience, Topic, notice_of};

/// The tenant's hooks, and what they were not told yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhooks {
    live: Table<u64, Arc<Hook>>,
    removed: Table<u64, Arc<Hook>>,
    tallies: Table<u64, Tally>,
    /// By hook and position of the source event.
    outstanding: Table<(u64, u64), Outstanding>,
    /// The same by hook and the time when it is due.
    due: Table<(u64, Timestamp, u64), ()>,
    /// What was given up, by hook and position of the source event.
    dead: Table<(u64, u64), DeadLetter>,
    /// Secrets that sign no more, by the time from which on: their sealed values are to be destroyed.
    retired: Table<(Timestamp, [u8; 32]), ()>,
    last_id: u64,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Whom to tell.
    pub url: String,
    /// A name for people.
    pub name: String,
    /// Names of events, or `all`.
    pub events: Vec<String>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// Digest of the sealed secret that signs.
    pub secret_digest: [u8; 32],
    /// The secret before it, and until when it signs too.
    pub previous: Option<([u8; 32], Timestamp)>,
}

impl Hook {
    fn wants(&self, topic: Topic) -> bool {
        self.events.iter().any(|event| event == ALL || event == topic.name())
    }

    /// Whether a target names this hook: by its number, name or URL, or as one of all.
    fn is_named(&self, id: u64, target: &str) -> bool {
        let target = target.trim();
        target == ALL || target == self.name || target == self.url || target == id.to_string()
    }
}

/// What became of a hook's notifications.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Delivered.
    pub fired: u64,
    /// Given up.
    pub failed: u64,
    /// When that happened last, the one or the other.
    pub last_fired: Option<Timestamp>,
    /// Waiting for their first or next attempt.
    pub outstanding: u64,
    /// Given up and kept, so that they can be tried again.
    pub dead: u64,
}

/// A notification that waits for its first or next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outstanding {
    /// What kind it is.
    pub topic: Topic,
    /// Since when it is tried: the time of the source event, or of its redelivery.
    pub since: Timestamp,
    /// When the next attempt is due.
    pub due_at: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// Those of them before it was put back.
    pub attempts_before: u32,
}

/// A notification that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// What kind it is.
    pub topic: Topic,
    /// When it was given up.
    pub at: Timestamp,
    /// Attempts; 0 when too much was outstanding already.
    pub attempts: u32,
    /// What came of the last one.
    pub outcome: Option<AttemptOutcome>,
}

impl Webhooks {
    /// The hooks, in the order of their registration.
    pub fn live(&self) -> impl Iterator<Item = (u64, &Hook)> {
        self.live.into_iter().map(|(id, hook)| (*id, &**hook))
    }

    /// How many hooks there are.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// The number of the next hook.
    #[must_use]
    pub const fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// Whether a hook that a target names, by its number, name or URL, or `all`, wants evidence packs.
    #[must_use]
    pub fn takes_packs(&self, target: &str) -> bool {
        self.live().any(|(id, hook)| hook.wants(Topic::EvidencePack) && hook.is_named(id, target))
    }

    /// The hook with this number.
    #[must_use]
    pub fn get(&self, webhook_id: u64) -> Option<&Hook> {
        self.live.get(&webhook_id).map(|hook| &**hook)
    }

    /// The hook with this number, removed or not.
    #[must_use]
    pub fn get_ever(&self, webhook_id: u64) -> Option<&Hook> {
        self.live.get(&webhook_id).or_else(|| self.removed.get(&webhook_id)).map(|hook| &**hook)
    }

    /// Digests of the secrets that sign no more at `at`.
    pub fn retired(&self, at: Timestamp) -> impl Iterator<Item = &[u8; 32]> {
        let retired = self.retired.into_iter().take_while(move |((until, _), ())| *until <= at);
        retired.map(|((_, digest), ())| digest)
    }

    /// When the first of the secrets that still sign, but not for ever, ends.
    #[must_use]
    pub fn next_retirement(&self, at: Timestamp) -> Option<Timestamp> {
        self.retired.into_iter().map(|((until, _), ())| *until).find(|until| *until > at)
    }

    /// What became of a hook's notifications.
    #[must_use]
    pub fn tally(&self, webhook_id: u64) -> Tally {
        self.tallies.get(&webhook_id).copied().unwrap_or_default()
    }

    /// Notifications that wait for an attempt, of all hooks.
    #[must_use]
    pub fn outstanding_count(&self) -> usize {
        self.outstanding.len()
    }

    /// A notification that waits for an attempt.
    #[must_use]
    pub fn outstanding(&self, webhook_id: u64, source_seq: u64) -> Option<&Outstanding> {
        self.outstanding.get(&(webhook_id, source_seq))
    }

    /// When a hook's notifications are due, and their source events, the first due first.
    pub fn due(&self, webhook_id: u64) -> impl Iterator<Item = (Timestamp, u64)> {
        let all =
            (webhook_id, Timestamp::default(), 0)..=(webhook_id, Timestamp::from_micros(u64::MAX), u64::MAX);
        self.due.range(all).map(|((_, due_at, source_seq), ())| (*due_at, *source_seq))
    }

    /// What a hook was given up on: positions of source events, the newest first.
    pub fn dead(&self, webhook_id: u64) -> impl Iterator<Item = (u64, &DeadLetter)> {
        let letters = self.dead.range((webhook_id, 0)..=(webhook_id, u64::MAX));
        letters.rev().map(|((_, source_seq), letter)| (*source_seq, letter))
    }

    /// What one hook was given up on about one event.
    #[must_use]
    pub fn dead_letter(&self, webhook_id: u64, source_seq: u64) -> Option<&DeadLetter> {
        self.dead.get(&(webhook_id, source_seq))
    }

    /// From now on the secret before the present one signs no more.
    fn end_overlap(&mut self, hook: &Hook, at: Timestamp) {
        if let Some((digest, until)) = hook.previous.filter(|(_, until)| *until > at) {
            self.retired.remove_cow(&(until, digest));
            self.retired.insert_cow((at, digest), ());
        }
    }

    fn tally_mut(&mut self, webhook_id: u64) -> &mut Tally {
        self.tallies.get_or_default_cow(webhook_id)
    }

    fn put(&mut self, webhook_id: u64, source_seq: u64, outstanding: Outstanding) {
        self.due.insert_cow((webhook_id, outstanding.due_at, source_seq), ());
        if self.outstanding.insert_cow((webhook_id, source_seq), outstanding).is_none() {
            self.tally_mut(webhook_id).outstanding += 1;
        }
    }

    fn take(&mut self, webhook_id: u64, source_seq: u64) -> Option<Outstanding> {
        let taken = self.outstanding.remove_cow(&(webhook_id, source_seq))?;
        self.due.remove_cow(&(webhook_id, taken.due_at, source_seq));
        self.tally_mut(webhook_id).outstanding -= 1;
        Some(taken)
    }

    /// Gives a notification up. Of those, the oldest go first when there are too many.
    fn bury(&mut self, webhook_id: u64, source_seq: u64, letter: DeadLetter) {
        let tally = self.tally_mut(webhook_id);
        tally.failed += 1;
        tally.last_fired = Some(letter.at);
        tally.dead += 1;
        let is_full = tally.dead > DEAD_LETTER_COUNT_MAX;
        self.dead.insert_cow((webhook_id, source_seq), letter);
        if is_full {
            let oldest = self.dead.range((webhook_id, 0)..=(webhook_id, u64::MAX)).next();
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.exhume(oldest.0, oldest.1);
            }
        }
    }

    fn exhume(&mut self, webhook_id: u64, source_seq: u64) -> Option<DeadLetter> {
        let letter = self.dead.remove_cow(&(webhook_id, source_seq))?;
        self.tally_mut(webhook_id).dead -= 1;
        Some(letter)
    }
}

pub(in crate::domain) fn apply_registered(webhooks: &mut Webhooks, at: Timestamp, event: &WebhookRegistered) {
    let hook = Hook {
        url: event.url.clone(),
        name: event.name.clone(),
        events: event.events.clone(),
        created_at: at,
        secret_digest: event.secret_digest,
        previous: None,
    };
    webhooks.live.insert_cow(event.webhook_id, Arc::new(hook));
    webhooks.last_id = event.webhook_id;
}

pub(in crate::domain) fn apply_removed(webhooks: &mut Webhooks, at: Timestamp, event: &WebhookRemoved) {
    let WebhookRemoved { webhook_id } = *event;
    if let Some(hook) = webhooks.live.remove_cow(&webhook_id) {
        webhooks.end_overlap(&hook, at);
        webhooks.retired.insert_cow((at, hook.secret_digest), ());
        webhooks.removed.insert_cow(webhook_id, hook);
    }
    let waiting: Vec<u64> = webhooks.due(webhook_id).map(|(_, source_seq)| source_seq).collect();
    for source_seq in waiting {
        webhooks.take(webhook_id, source_seq);
    }
    let buried: Vec<u64> = webhooks.dead(webhook_id).map(|(source_seq, _)| source_seq).collect();
    for source_seq in buried {
        webhooks.exhume(webhook_id, source_seq);
    }
}

pub(in crate::domain) fn apply_rotated(webhooks: &mut Webhooks, at: Timestamp, event: &WebhookRotated) {
    let Some(mut hook) = webhooks.live.get(&event.webhook_id).cloned() else {
        return;
    };
    // Two secrets sign at most: a third rotation within the overlap ends the first one's time.
    webhooks.end_overlap(&hook, at);
    let until = at.plus_seconds(event.grace_s);
    webhooks.retired.insert_cow((until, hook.secret_digest), ());
    let changed = Arc::make_mut(&mut hook);
    changed.previous = Some((changed.secret_digest, until));
    changed.secret_digest = event.secret_digest;
    webhooks.live.insert_cow(event.webhook_id, hook);
}

pub(in crate::domain) fn apply_attempted(webhooks: &mut Webhooks, at: Timestamp, event: &WebhookAttempted) {
    let WebhookAttempted { webhook_id, source_seq, topic, attempt, outcome, .. } = *event;
    let Some(outstanding) = webhooks.take(webhook_id, source_seq) else {
        return;
    };
    match (event.status(), event.retry_at) {
        (DeliveryStatus::WillRetry, Some(due_at)) => {
            let next = Outstanding { due_at, attempts: attempt, ..outstanding };
            webhooks.put(webhook_id, source_seq, next);
        }
        (DeliveryStatus::Delivered, _) => {
            let tally = webhooks.tally_mut(webhook_id);
            tally.fired += 1;
            tally.last_fired = Some(at);
        }
        (DeliveryStatus::Dead | DeliveryStatus::WillRetry, _) => {
            let letter = DeadLetter { topic, at, attempts: attempt, outcome: Some(outcome) };
            webhooks.bury(webhook_id, source_seq, letter);
        }
    }
}

pub(in crate::domain) fn apply_redelivered(
    webhooks: &mut Webhooks,
    at: Timestamp,
    event: &WebhookRedelivered,
) {
    let WebhookRedelivered { webhook_id, source_seq } = *event;
    if let Some(letter) = webhooks.exhume(webhook_id, source_seq) {
        let (topic, attempts) = (letter.topic, letter.attempts);
        let again = Outstanding { topic, since: at, due_at: at, attempts, attempts_before: attempts };
        webhooks.put(webhook_id, source_seq, again);
    }
}

/// Puts an event on the list of every hook that is to hear of it.
pub(in crate::domain) fn apply_notice(webhooks: &mut Webhooks, schedules: &Schedules, recorded: &Recorded) {
    let Some((topic, audience)) = notice_of(&recorded.event) else {
        return;
    };
    let hears = |id: u64, hook: &Hook| match audience {
        Audience::Subscribers => hook.wants(topic),
        Audience::Hook(webhook_id) => webhook_id == id,
        Audience::Schedule(schedule_id) => match schedules.get(schedule_id).map(|it| &it.delivery) {
            Some(Delivery::Webhook(target)) => hook.wants(topic) && hook.is_named(id, target),
            Some(Delivery::Email(_)) | None => false,
        },
    };
    let hearing: Vec<u64> = webhooks.live().filter(|(id, hook)| hears(*id, hook)).map(|(id, _)| id).collect();
    let (at, source_seq) = (recorded.at, recorded.seq);
    for webhook_id in hearing {
        if webhooks.tally(webhook_id).outstanding < OUTSTANDING_COUNT_MAX {
            let first = Outstanding { topic, since: at, due_at: at, attempts: 0, attempts_before: 0 };
            webhooks.put(webhook_id, source_seq, first);
        } else {
            webhooks.bury(webhook_id, source_seq, DeadLetter { topic, at, attempts: 0, outcome: None });
        }
    }
}
