//! Payloads of schema version 1 about webhooks, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::time::Timestamp;
use crate::domain::topics::Topic;
use crate::domain::webhooks::{
    AttemptOutcome, DeliveryFailure, WebhookAttempted, WebhookRedelivered, WebhookRegistered, WebhookRemoved,
    WebhookRotated, WebhookTested,
};

#[derive(Encode, Decode)]
pub(super) struct WebhookRegisteredWire {
    webhook_id: u64,
    url: String,
    name: String,
    events: Vec<String>,
    secret_digest: [u8; 32],
}

#[derive(Encode, Decode)]
pub(super) struct WebhookRemovedWire {
    webhook_id: u64,
}

#[derive(Encode, Decode)]
pub(super) struct WebhookRotatedWire {
    webhook_id: u64,
    secret_digest: [u8; 32],
    grace_s: u64,
}

#[derive(Encode, Decode)]
pub(super) struct WebhookAttemptedWire {
    webhook_id: u64,
    source_seq: u64,
    topic: u8,
    attempt: u32,
    status: u16,
    failure: u8,
    duration_ms: u64,
    excerpt_digest: Option<[u8; 32]>,
    retry_at_us: Option<u64>,
}

#[derive(Encode, Decode)]
pub(super) struct WebhookRedeliveredWire {
    webhook_id: u64,
    source_seq: u64,
}

#[derive(Encode, Decode)]
pub(super) struct WebhookTestedWire {
    webhook_id: u64,
}

impl From<&WebhookRegistered> for WebhookRegisteredWire {
    fn from(e: &WebhookRegistered) -> Self {
        Self {
            webhook_id: e.webhook_id,
            url: e.url.clone(),
            name: e.name.clone(),
            events: e.events.clone(),
            secret_digest: e.secret_digest,
        }
    }
}

impl Wire for WebhookRegisteredWire {
    type Event = WebhookRegistered;
    fn into_event(self) -> Result<WebhookRegistered, &'static str> {
        let Self { webhook_id, url, name, events, secret_digest } = self;
        Ok(WebhookRegistered { webhook_id, url, name, events, secret_digest })
    }
}

impl From<&WebhookRemoved> for WebhookRemovedWire {
    fn from(e: &WebhookRemoved) -> Self {
        Self { webhook_id: e.webhook_id }
    }
}

impl Wire for WebhookRemovedWire {
    type Event = WebhookRemoved;
    fn into_event(self) -> Result<WebhookRemoved, &'static str> {
        Ok(WebhookRemoved { webhook_id: self.webhook_id })
    }
}

impl From<&WebhookRotated> for WebhookRotatedWire {
    fn from(e: &WebhookRotated) -> Self {
        Self { webhook_id: e.webhook_id, secret_digest: e.secret_digest, grace_s: e.grace_s }
    }
}

impl Wire for WebhookRotatedWire {
    type Event = WebhookRotated;
    fn into_event(self) -> Result<WebhookRotated, &'static str> {
        let Self { webhook_id, secret_digest, grace_s } = self;
        Ok(WebhookRotated { webhook_id, secret_digest, grace_s })
    }
}

impl From<&WebhookAttempted> for WebhookAttemptedWire {
    fn from(e: &WebhookAttempted) -> Self {
        Self {
            webhook_id: e.webhook_id,
            source_seq: e.source_seq,
            topic: topic_code(e.topic),
            attempt: e.attempt,
            status: e.outcome.status(),
            failure: match e.outcome {
                AttemptOutcome::Answered(_) => 0,
                AttemptOutcome::Failed(failure) => failure_code(failure),
            },
            duration_ms: e.duration_ms,
            excerpt_digest: e.excerpt_digest,
            retry_at_us: e.retry_at.map(Timestamp::micros),
        }
    }
}

impl Wire for WebhookAttemptedWire {
    type Event = WebhookAttempted;
    fn into_event(self) -> Result<WebhookAttempted, &'static str> {
        let outcome = match (self.status, self.failure) {
            (0, code) => AttemptOutcome::Failed(failure_of(code).ok_or("failure")?),
            (status, 0) => AttemptOutcome::Answered(status),
            (_, _) => return Err("status"),
        };
        Ok(WebhookAttempted {
            webhook_id: self.webhook_id,
            source_seq: self.source_seq,
            topic: topic_of(self.topic).ok_or("topic")?,
            attempt: self.attempt,
            outcome,
            duration_ms: self.duration_ms,
            excerpt_digest: self.excerpt_digest,
            retry_at: self.retry_at_us.map(Timestamp::from_micros),
        })
    }
}

impl From<&WebhookRedelivered> for WebhookRedeliveredWire {
    fn from(e: &WebhookRedelivered) -> Self {
        Self { webhook_id: e.webhook_id, source_seq: e.source_seq }
    }
}

impl Wire for WebhookRedeliveredWire {
    type Event = WebhookRedelivered;
    fn into_event(self) -> Result<WebhookRedelivered, &'static str> {
        Ok(WebhookRedelivered { webhook_id: self.webhook_id, source_seq: self.source_seq })
    }
}

impl From<&WebhookTested> for WebhookTestedWire {
    fn from(e: &WebhookTested) -> Self {
        Self { webhook_id: e.webhook_id }
    }
}

impl Wire for WebhookTestedWire {
    type Event = WebhookTested;
    fn into_event(self) -> Result<WebhookTested, &'static str> {
        Ok(WebhookTested { webhook_id: self.webhook_id })
    }
}

const fn topic_code(topic: Topic) -> u8 {
    match topic {
        Topic::Anomaly => 1,
        Topic::ApprovalRequested => 2,
        Topic::ApprovalDecided => 3,
        Topic::BudgetExhausted => 4,
        Topic::Flagged => 5,
        Topic::SessionRevoked => 6,
        Topic::EvidencePack => 7,
        Topic::Test => 8,
        Topic::ToolQuarantined => 9,
    }
}

const fn topic_of(code: u8) -> Option<Topic> {
    match code {
        1 => Some(Topic::Anomaly),
        2 => Some(Topic::ApprovalRequested),
        3 => Some(Topic::ApprovalDecided),
        4 => Some(Topic::BudgetExhausted),
        5 => Some(Topic::Flagged),
        6 => Some(Topic::SessionRevoked),
        7 => Some(Topic::EvidencePack),
        8 => Some(Topic::Test),
        9 => Some(Topic::ToolQuarantined),
        _ => None,
    }
}

const fn failure_code(failure: DeliveryFailure) -> u8 {
    match failure {
        DeliveryFailure::UrlRefused => 1,
        DeliveryFailure::Unresolved => 2,
        DeliveryFailure::Unreachable => 3,
        DeliveryFailure::Tls => 4,
        DeliveryFailure::TimedOut => 5,
        DeliveryFailure::Broken => 6,
        DeliveryFailure::Unsigned => 7,
    }
}

const fn failure_of(code: u8) -> Option<DeliveryFailure> {
    match code {
        1 => Some(DeliveryFailure::UrlRefused),
        2 => Some(DeliveryFailure::Unresolved),
        3 => Some(DeliveryFailure::Unreachable),
        4 => Some(DeliveryFailure::Tls),
        5 => Some(DeliveryFailure::TimedOut),
        6 => Some(DeliveryFailure::Broken),
        7 => Some(DeliveryFailure::Unsigned),
        _ => None,
    }
}
