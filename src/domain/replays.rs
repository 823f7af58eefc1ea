//! Retries: a request that carries an idempotency key is carried out once, and its first outcome is repeated.
//!
//! The key is recorded in the event that settled the request, so repeats survive a restart, and because one thread
//! decides in order, of simultaneous first uses exactly one is carried out.

use std::collections::{BTreeMap, BTreeSet};

use super::limits::IDEMPOTENCY_TTL_S;
use super::time::Timestamp;
use super::{Envelope, Recorded, Refusal};

/// A caller's wish that retries repeat the first outcome.
///
/// Both values are keyed digests: neither the caller's key nor its request can be read from the ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Idempotency {
    /// Digest of the caller's scope, the endpoint and the idempotency key.
    pub key: [u8; 32],
    /// Digest of what was asked.
    pub fingerprint: [u8; 32],
}

/// Outcomes that retries repeat, for [`IDEMPOTENCY_TTL_S`] seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replays {
    by_key: BTreeMap<[u8; 32], Settled>,
    by_expiry: BTreeSet<(Timestamp, [u8; 32])>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Settled {
    fingerprint: [u8; 32],
    seq: u64,
    expires_at: Timestamp,
}

/// Finds the event that settled the same request before.
///
/// # Errors
///
/// [`Refusal::IdempotencyMismatch`] when the key settled another request.
pub(super) fn find(replays: &Replays, envelope: &Envelope) -> Result<Option<u64>, Refusal> {
    let Some(idempotency) = &envelope.idempotency else {
        return Ok(None);
    };
    match replays.by_key.get(&idempotency.key) {
        Some(settled) if envelope.at >= settled.expires_at => Ok(None),
        Some(settled) if settled.fingerprint == idempotency.fingerprint => Ok(Some(settled.seq)),
        Some(_) => Err(Refusal::IdempotencyMismatch),
        None => Ok(None),
    }
}

pub(super) fn apply(replays: &mut Replays, recorded: &Recorded) {
    // Expired outcomes leave here, by the time of the event, so that every replay forgets them at the same point.
    while let Some((expires_at, key)) = replays.by_expiry.first().copied() {
        if recorded.at < expires_at {
            break;
        }
        replays.by_expiry.pop_first();
        replays.by_key.remove(&key);
    }
    if let Some(idempotency) = &recorded.idempotency {
        let expires_at = recorded.at.plus_seconds(IDEMPOTENCY_TTL_S);
        let settled = Settled { fingerprint: idempotency.fingerprint, seq: recorded.seq, expires_at };
        replays.by_key.insert(idempotency.key, settled);
        replays.by_expiry.insert((expires_at, idempotency.key));
    }
}
