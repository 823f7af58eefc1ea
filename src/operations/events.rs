//! The events of a tenant's stream, for those who follow it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::decoded::entry_json;
use super::{App, Caller, OperationError, blocking};
use crate::domain::Event;
use crate::domain::id::TenantId;
use crate::format::entry;
use crate::store::{EventStore, StoreError};

/// Events listed when nothing else was asked.
pub const EVENTS_LEN_DEFAULT: usize = 100;
/// Events listed at most in one answer.
pub const EVENTS_LEN_MAX: usize = 1000;
/// Entries looked at for one answer. Opening as many takes some hundredths of a second.
pub const LOOKED_AT_MAX: usize = 10_000;

/// A part of a tenant's stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventList {
    /// How many are listed.
    pub count: usize,
    /// Entries in the stream.
    pub stream_size: u64,
    /// Where to go on: the `after` of the next request, until it is the last seq of the stream.
    pub next_after: Option<u64>,
    /// The entries, in order, each with its exact bytes.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Value>,
}

/// Which entries to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Only those after this seq.
    pub after: Option<u64>,
    /// Only flagged actions, and what anomaly rules found.
    pub flagged_only: bool,
}

/// Entries that were read.
#[derive(Debug)]
pub struct EventPage {
    /// Those that were wanted, in order.
    pub events: Vec<Value>,
    /// The last that was looked at: where to go on.
    pub last: Option<u64>,
}

/// Lists entries of a tenant's stream in order.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the ledger cannot be read.
pub async fn list(
    app: Arc<App>,
    caller: &Caller,
    wanted: Wanted,
    limit: usize,
) -> Result<EventList, OperationError> {
    let tenant = caller.tenant.clone();
    let stream_size = app.with_stream(&tenant, |stream| stream.head.size)?;
    blocking(move || {
        let EventPage { events, last } = read(&**app.ledger.store(), &tenant, wanted, stream_size, limit)?;
        Ok(EventList { count: events.len(), stream_size, next_after: last, events })
    })
    .await
}

/// At most `limit` of the entries that are wanted, below `size`. Where they are rare, no more than [`LOOKED_AT_MAX`] entries are
/// looked at, so that there may be more although there are few.
///
/// # Errors
///
/// [`StoreError`].
pub fn read(
    store: &dyn EventStore,
    tenant: &TenantId,
    wanted: Wanted,
    size: u64,
    limit: usize,
) -> Result<EventPage, StoreError> {
    let mut page = EventPage { events: Vec::new(), last: wanted.after };
    let mut looked_at = 0;
    while page.events.len() < limit && looked_at < LOOKED_AT_MAX {
        let from = page.last.map_or(0, |last| last.saturating_add(1));
        let count = usize::try_from(size.saturating_sub(from)).unwrap_or(usize::MAX);
        let count = count.min(if wanted.flagged_only { EVENTS_LEN_MAX } else { limit - page.events.len() });
        if count == 0 {
            break;
        }
        let entries = store.read(tenant, from, count)?;
        if entries.is_empty() {
            break;
        }
        for bytes in entries {
            let entry = entry::open(&bytes).map_err(|error| StoreError::Damaged(error.to_string()))?;
            page.last = Some(entry.recorded.seq);
            looked_at += 1;
            if !wanted.flagged_only || is_flagged(&entry.recorded.event) {
                page.events.push(entry_json(&entry, &bytes));
                if page.events.len() == limit {
                    break;
                }
            }
        }
    }
    Ok(page)
}

fn is_flagged(event: &Event) -> bool {
    match event {
        Event::ActionLogged(action) => action.flag.is_some(),
        Event::AnomalyDetected(_) => true,
        _ => false,
    }
}
