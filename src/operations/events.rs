//! The events of a tenant's stream, for those who follow it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::decoded::entry_json;
use super::{App, Caller, OperationError, blocking};
use crate::domain::id::TenantId;
use crate::format::entry;
use crate::store::{EventStore, StoreError};

/// Events listed when nothing else was asked.
pub const EVENTS_LEN_DEFAULT: usize = 100;
/// Events listed at most in one answer.
pub const EVENTS_LEN_MAX: usize = 1000;

/// A part of a tenant's stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventList {
    /// How many are listed.
    pub count: usize,
    /// Entries in the stream.
    pub stream_size: u64,
    /// Where to go on: the `after` of the next request.
    pub next_after: Option<u64>,
    /// The entries, in order, each with its exact bytes.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Value>,
}

/// Lists the entries of a tenant's stream that come after the seq `after`, or the first ones, in order.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the ledger cannot be read.
pub async fn list(
    app: Arc<App>,
    caller: &Caller,
    after: Option<u64>,
    limit: usize,
) -> Result<EventList, OperationError> {
    let tenant = caller.tenant.clone();
    let stream_size = app.with_stream(&tenant, |stream| stream.head.size)?;
    blocking(move || {
        let events = read(&**app.ledger.store(), &tenant, after, stream_size, limit)?;
        let last = after.map_or(0, |after| after.saturating_add(1)) + events.len() as u64;
        let next_after = last.checked_sub(1);
        Ok(EventList { count: events.len(), stream_size, next_after, events })
    })
    .await
}

/// At most `limit` entries after the seq `after` and below `size`.
///
/// # Errors
///
/// [`StoreError`].
pub fn read(
    store: &dyn EventStore,
    tenant: &TenantId,
    after: Option<u64>,
    size: u64,
    limit: usize,
) -> Result<Vec<Value>, StoreError> {
    let from = after.map_or(0, |after| after.saturating_add(1));
    let count = usize::try_from(size.saturating_sub(from)).unwrap_or(usize::MAX).min(limit);
    if count == 0 {
        return Ok(Vec::new());
    }
    let page = store.read(tenant, from, count)?;
    let decode = |bytes: &Vec<u8>| match entry::open(bytes) {
        Ok(entry) => Ok(entry_json(&entry, bytes)),
        Err(error) => Err(StoreError::Damaged(error.to_string())),
    };
    page.iter().map(decode).collect()
}
