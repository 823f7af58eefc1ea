//! A stream about a webhook: registered, tested, failing, given up, tried again, delivered, rotated and removed.

use haldir::domain::Event;
use haldir::domain::keys::KeyMinted;
use haldir::domain::scope::KeyScopes;
use haldir::domain::time::Timestamp;
use haldir::domain::topics::Topic;
use haldir::domain::webhooks::{
    AttemptOutcome, DeliveryFailure, WebhookAttempted, WebhookRedelivered, WebhookRegistered, WebhookRemoved,
    WebhookRotated, WebhookTested,
};
use haldir::format::chain::{EXCERPT_SALT_LEN, excerpt_digest};

use super::{prefix, recorded, sealed, tenant};

pub(crate) const EXCERPT_SALT: [u8; EXCERPT_SALT_LEN] = [0x5b; EXCERPT_SALT_LEN];
pub(crate) const EXCERPT: &[u8] = b"gone";

/// Where the event that is told of stands in the stream.
const SOURCE_SEQ: u64 = 2;

pub(crate) fn webhook_events() -> Vec<Event> {
    let minted =
        KeyMinted { prefix: prefix(), hash: [0x11; 32], name: "first".into(), scopes: KeyScopes::all() };
    let attempted = |attempt, outcome, retry_at: Option<u64>| WebhookAttempted {
        webhook_id: 1,
        source_seq: SOURCE_SEQ,
        topic: Topic::Test,
        attempt,
        outcome,
        duration_ms: 12,
        excerpt_digest: None,
        retry_at: retry_at.map(Timestamp::from_micros),
    };
    let timed_out = AttemptOutcome::Failed(DeliveryFailure::TimedOut);
    let dead = WebhookAttempted {
        excerpt_digest: Some(excerpt_digest(&EXCERPT_SALT, EXCERPT)),
        ..attempted(2, AttemptOutcome::Answered(410), None)
    };
    vec![
        Event::KeyMinted(minted),
        Event::WebhookRegistered(WebhookRegistered {
            webhook_id: 1,
            url: "https://example.com/hook".into(),
            name: "alerts".into(),
            events: vec!["flagged".into(), "budget_exhausted".into()],
            secret_digest: [0x44; 32],
        }),
        Event::WebhookTested(WebhookTested { webhook_id: 1 }),
        Event::WebhookAttempted(attempted(1, timed_out, Some(1_700_000_001_100_000))),
        Event::WebhookAttempted(dead),
        Event::WebhookRedelivered(WebhookRedelivered { webhook_id: 1, source_seq: SOURCE_SEQ }),
        Event::WebhookAttempted(attempted(3, AttemptOutcome::Answered(204), None)),
        Event::WebhookRotated(WebhookRotated { webhook_id: 1, secret_digest: [0x55; 32], grace_s: 86_400 }),
        Event::WebhookRemoved(WebhookRemoved { webhook_id: 1 }),
    ]
}

/// The stream of the document's test vectors about webhooks.
pub(crate) fn webhook_stream() -> Vec<Vec<u8>> {
    sealed(&tenant(), &recorded(webhook_events())).into_iter().map(|entry| entry.bytes).collect()
}
