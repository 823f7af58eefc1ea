//! Walks through audited actions in the order in which they happened: between moments, in pages.

use std::ops::Range;

use super::audit::{Filter, FoundAction, ordinal_in, read_action, read_place, read_recorded};
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::store::{EventStore, PageStore, StoreError};

/// A part of a walk.
#[derive(Debug, Clone)]
pub struct Page {
    /// What was found, oldest first. May be empty although more is to come.
    pub actions: Vec<FoundAction>,
    /// Where to read on; empty at the end of the walk.
    pub rest: Range<u64>,
}

/// The ordinals of the first `actions` actions that lie between two moments, the first included.
pub(super) fn window(
    pages: &dyn PageStore,
    store: &dyn EventStore,
    tenant: &TenantId,
    actions: u64,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<Range<u64>, StoreError> {
    let first_at = |moment: Option<Timestamp>, otherwise| match moment {
        Some(moment) => first_not_before(pages, store, tenant, actions, moment),
        None => Ok(otherwise),
    };
    let (start, end) = (first_at(since, 0)?, first_at(until, actions)?);
    Ok(start..end.max(start))
}

/// The first ordinal whose action is not earlier than a moment; `actions` when all are. A stream's times strictly
/// increase, so halving finds it.
fn first_not_before(
    pages: &dyn PageStore,
    store: &dyn EventStore,
    tenant: &TenantId,
    actions: u64,
    moment: Timestamp,
) -> Result<u64, StoreError> {
    let (mut low, mut high) = (0, actions);
    while low < high {
        let middle = low.midpoint(high);
        let (seq, _) = read_place(pages, tenant, middle)?;
        if read_recorded(store, tenant, seq)?.at < moment {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Reads on through a window, looking at no more than `count` rows of the shortest list that holds every match.
pub(super) fn page(
    pages: &dyn PageStore,
    store: &dyn EventStore,
    tenant: &TenantId,
    filter: &Filter,
    window: Range<u64>,
    count: usize,
) -> Result<Page, StoreError> {
    let prefix = filter.narrowest_index(tenant);
    let from = [&prefix[..], &window.start.to_be_bytes()].concat();
    let rows = pages.page(&prefix, &from, count)?;
    let mut page = Page { actions: Vec::new(), rest: window.end..window.end };
    let is_last = rows.len() < count;
    for (key, _) in rows {
        let ordinal = ordinal_in(&key)?;
        if ordinal >= window.end {
            page.rest.start = window.end;
            return Ok(page);
        }
        let found = read_action(pages, store, tenant, ordinal)?;
        if filter.matches(&found.action) {
            page.actions.push(found);
        }
        page.rest.start = ordinal + 1;
    }
    if is_last {
        page.rest.start = window.end;
    }
    Ok(page)
}
