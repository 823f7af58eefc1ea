//! Events of rare kinds, newest first: where in a stream they stand, so that a list of them costs no walk over everything
//! else.
//!
//! | Key | Value |
//! |---|---|
//! | `k` tenant series subject-digest seq | nothing |
//!
//! A series is a kind of event that somebody lists. Each of its events stands once under no subject, and once under each
//! thing that it is about, such as the webhook that was called. To list another kind, give it a [`Series`] and say in
//! [`series_of`] what its events are about.

use super::audit::{read_recorded, tenant_key};
use crate::domain::id::TenantId;
use crate::domain::{Event, Recorded};
use crate::store::{Direction, EventStore, PageStore, Row, StoreError};

const SERIES: u8 = b'k';

/// Kinds of events that are listed. The numbers stand in the rows' keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Series {
    /// Sessions that were revoked, by session id.
    Revocations = 1,
}

/// The series of an event and what the event is about; `None` for events that nobody lists.
fn series_of(event: &Event) -> Option<(Series, Vec<String>)> {
    match event {
        Event::SessionRevoked(it) => Some((Series::Revocations, vec![it.session_id.to_string()])),
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
