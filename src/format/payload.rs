//! Payloads: each event in the oldest schema version that can carry it.

use super::entry::EntryError;
use super::{v1, v2};
use crate::domain::replays::Idempotency;
use crate::domain::{Event, Recorded};

/// Encodes an event: its kind, schema version and payload.
///
/// # Errors
///
/// [`EntryError::Payload`] when the event is far larger than a payload can be.
pub(super) fn encode(recorded: &Recorded) -> Result<(u16, u16, Vec<u8>), EntryError> {
    match v2::encode(recorded)? {
        Some((kind, payload)) => Ok((kind, v2::SCHEMA, payload)),
        None => v1::encode(recorded),
    }
}

/// Decodes a payload. Accepts only what [`encode`] gives for the same event.
///
/// # Errors
///
/// [`EntryError::Kind`] for an event this program does not know, [`EntryError::Payload`] for any other bytes.
pub(super) fn decode(
    kind: u16,
    schema: u16,
    payload: &[u8],
) -> Result<(Option<Idempotency>, Event), EntryError> {
    match schema {
        v2::SCHEMA => v2::decode(kind, payload),
        _ => v1::decode(kind, schema, payload),
    }
}
