//! Webhooks in the words of OCSF.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{Class, Mapped, millis};
use crate::domain::webhooks::{
    AttemptOutcome, DeliveryStatus, WebhookAttempted, WebhookRedelivered, WebhookRegistered, WebhookRotated,
};

pub(super) fn registered(event: &WebhookRegistered) -> Mapped {
    let mut attributes = hook(event.webhook_id);
    attributes["entity"]["name"] = json!(event.name);
    attributes["entity"]["data"] = json!({ "url": event.url, "events": event.events });
    Mapped::new(Class::EntityManagement, (1, "Create"), attributes)
}

pub(super) fn removed(webhook_id: u64) -> Mapped {
    Mapped::new(Class::EntityManagement, (4, "Delete"), hook(webhook_id))
}

pub(super) fn rotated(event: &WebhookRotated) -> Mapped {
    let mut attributes = hook(event.webhook_id);
    attributes["unmapped"] = json!({ "grace_s": event.grace_s });
    Mapped::new(Class::EntityManagement, (3, "Update"), attributes)
}

pub(super) fn attempted(event: &WebhookAttempted) -> Mapped {
    let mut attributes = call("deliver webhook", event.webhook_id, event.source_seq);
    attributes["duration"] = json!(event.duration_ms);
    attributes["http_response"] = match event.outcome {
        AttemptOutcome::Answered(status) => json!({ "code": status }),
        AttemptOutcome::Failed(_) => Value::Null,
    };
    attributes["unmapped"] = json!({
        "topic": event.topic.name(),
        "attempt": event.attempt,
        "delivery_status": event.status().name(),
        "retry_time": event.retry_at.map(millis),
        "excerpt_digest": event.excerpt_digest.map(|digest| HEXLOWER.encode(&digest)),
    });
    let mapped = Mapped::new(Class::ApiActivity, (99, "Deliver"), attributes);
    match (event.status(), event.outcome) {
        (DeliveryStatus::Delivered, _) => mapped,
        (_, AttemptOutcome::Answered(status)) => mapped.failed(format!("the receiver answered {status}")),
        (_, AttemptOutcome::Failed(failure)) => mapped.failed(failure.name()),
    }
}

pub(super) fn redelivered(event: &WebhookRedelivered) -> Mapped {
    let attributes = call("redeliver webhook", event.webhook_id, event.source_seq);
    Mapped::new(Class::ApiActivity, (99, "Redeliver"), attributes)
}

pub(super) fn tested(webhook_id: u64) -> Mapped {
    let attributes = json!({ "api": { "operation": "test webhook" }, "resources": [resource(webhook_id)] });
    Mapped::new(Class::ApiActivity, (99, "Test"), attributes)
}

fn hook(webhook_id: u64) -> Value {
    json!({ "entity": { "type_id": 99, "type": "webhook", "uid": webhook_id.to_string() } })
}

fn call(operation: &str, webhook_id: u64, source_seq: u64) -> Value {
    let source = json!({ "type": "ledger event", "uid": source_seq.to_string() });
    json!({ "api": { "operation": operation }, "resources": [resource(webhook_id), source] })
}

fn resource(webhook_id: u64) -> Value {
    json!({ "type": "webhook", "uid": webhook_id.to_string() })
}
