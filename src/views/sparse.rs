//! Events of rare kinds, newest first: where in a stream they stand, so that a list of them costs no walk over everything
//! else.
//!
//! | Key | Value |
//! |---|---|
//! | `k` tenant series subject-digest seq | nothing |
//!
//! A series is a kind of event that somebody lists. Each of its events stands once under no subject, and once under each
//! thing that it is about, such as the webhook that was called. To list another kind, give it a [`Series`] and say in
//! `series_of` what its events are about.

use super::audit::{read_recorded, tenant_key};
use crate::domain::id::TenantId;
use crate::domain::webhooks::DeliveryStatus;
use crate::domain::{Event, Recorded};
use crate::store::{Direction, EventStore, PageStore, Row, StoreError};

const SERIES: u8 = b'k';

/// Kinds of events that are listed. The numbers stand in the rows' keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Series {
    /// Sessions that were revoked, by session id.
    Revocations = 1,
    /// Attempts to deliver notifications, by [`delivery_subject`].
    Deliveries = 2,
    /// What anomaly rules found, by agent and by rule.
    Anomalies = 3,
}

/// What attempts are listed by: the source event and beyond it nothing, or the webhook, the status, or both. `None` is all.
#[must_use]
pub fn delivery_subject(
    source_seq: Option<u64>,
    webhook_id: Option<u64>,
    status: Option<DeliveryStatus>,
) -> Option<String> {
    match (source_seq, webhook_id, status.map(DeliveryStatus::name)) {
        (Some(source_seq), _, _) => Some(format!("source {source_seq}")),
        (None, Some(webhook_id), Some(status)) => Some(format!("webhook {webhook_id} {status}")),
        (None, Some(webhook_id), None) => Some(format!("webhook {webhook_id}")),
        (None, None, Some(status)) => Some(status.to_owned()),
        (None, None, None) => None,
    }
}

/// The subject of what an agent did.
#[must_use]
pub fn of_agent(agent_id: &str) -> String {
    format!("agent {agent_id}")
}

/// The subject of what a rule found.
#[must_use]
pub fn of_rule(rule_id: u64) -> String {
    format!("rule {rule_id}")
}

/// The series of an event and what the event is about; `None` for events that nobody lists.
fn series_of(event: &Event) -> Option<(Series, Vec<String>)> {
    match event {
        Event::SessionRevoked(it) => Some((Series::Revocations, vec![it.session_id.to_string()])),
        Event::WebhookAttempted(it) => {
            let (hook, status) = (Some(it.webhook_id), Some(it.status()));
            let subjects = [
                delivery_subject(Some(it.source_seq), None, None),
                delivery_subject(None, hook, None),
                delivery_subject(None, None, status),
                delivery_subject(None, hook, status),
            ];
            Some((Series::Deliveries, subjects.into_iter().flatten().collect()))
        }
        Event::AnomalyDetected(it) => {
            Some((Series::Anomalies, vec![of_agent(it.agent_id.as_str()), of_rule(it.rule_id)]))
        }
        _ => None,
    }
}

/// The rows that point at an event.
pub(super) fn rows(tenant: &TenantId, recorded: &Recorded) -> Vec<Row> {
    let Some((series, subjects)) = series_of(&recorded.event) else {
        return Vec::new();
    };
    let about = subjects.iter().map(|subject| Some(subject.as_str()));
    let keys = [None].into_iter().chain(about).map(|subject| {
        let mut key = series_key(tenant, series, subject);
        key.extend_from_slice(&recorded.seq.to_be_bytes());
        key
    });
    keys.map(|key| (key, Vec::new())).collect()
}

/// Goes through a series, newest first: all of it, or what is about one subject.
pub(super) fn newest_first<'a>(
    pages: &'a dyn PageStore,
    store: &'a dyn EventStore,
    tenant: &'a TenantId,
    series: Series,
    subject: Option<&str>,
) -> impl Iterator<Item = Result<Recorded, StoreError>> + use<'a> {
    let rows = pages.scan(&series_key(tenant, series, subject), Direction::Reverse);
    rows.map(move |row| {
        let (key, _) = row?;
        let seq = key.last_chunk().map(|seq| u64::from_be_bytes(*seq));
        let seq = seq.ok_or_else(|| StoreError::Damaged("sparse view: a short key".to_owned()))?;
        read_recorded(store, tenant, seq)
    })
}

fn series_key(tenant: &TenantId, series: Series, subject: Option<&str>) -> Vec<u8> {
    let mut key = tenant_key(SERIES, tenant);
    key.push(series as u8);
    // No digest of a text is all zeros, as far as anybody knows.
    let digest = subject.map_or([0; 32], |subject| *blake3::hash(subject.as_bytes()).as_bytes());
    key.extend_from_slice(&digest[..16]);
    key
}
