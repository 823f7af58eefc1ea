//! Events that the operator records while no server runs: rotations and repairs.
//!
//! **Rotation.** The new key is written to `signing.next` first. Then one atomic append adds a `signer.rotated`, signed by the
//! old key, to every stream. Then the new key takes its place. A crash anywhere leaves `signing.next`, and the next start
//! finishes what was begun: before the append nothing happened yet, after it the rest is a matter of files.

use crate::cli::installation::Installation;
use crate::domain::custody::RotateSigner;
use crate::domain::id::{Actor, RequestId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::{Command, Decision, Envelope, Tenant, decide, record};
use crate::format::chain::{EntryHash, PublicKey, Signer};
use crate::format::entry::{open, seal};
use crate::ledger::clock::{Clock as _, SystemClock};
use crate::ledger::past::stream_at;
use crate::ledger::random::{OsRandom, Random};
use crate::store::embedded::EmbeddedStore;
use crate::store::memory::MemorySnapshots;
use crate::store::{EventStore, Head, StreamAppend};

/// Hands every stream to a new key.
///
/// # Errors
///
/// A sentence, when the ledger cannot be read or written.
pub fn rotate(installation: &Installation) -> Result<PublicKey, String> {
    finish_rotation(installation)?;
    let random = OsRandom::default();
    installation.write_next_signer(&random)?;
    finish_rotation(installation)?;
    Ok(installation.existing_signer()?.public_key())
}

/// Finishes a rotation that was begun, if one was.
///
/// # Errors
///
/// A sentence, when the ledger cannot be read or written.
pub fn finish_rotation(installation: &Installation) -> Result<(), String> {
    let Some(next) = installation.next_signer()? else {
        return Ok(());
    };
    let current = installation.existing_signer()?;
    if current.public_key() != next.public_key() && installation.has_ledger() {
        let store =
            EmbeddedStore::open(&installation.ledger_dir()?).map_err(|error| format!("ledger: {error}"))?;
        if store.missing() > 0 {
            return Err(format!(
                "{} acknowledged entries are missing; repair the ledger first",
                store.missing()
            ));
        }
        hand_over(&store, &current, next.public_key())?;
    }
    installation.promote_next_signer(current.public_key())
}

/// Appends the rotation to every stream that was not handed to this key yet, all or nothing.
fn hand_over(store: &EmbeddedStore, signer: &Signer, next: PublicKey) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let command = Command::RotateSigner(RotateSigner { public_key: next.to_bytes() });
    let mut batch = Vec::new();
    for (tenant, head) in store.heads().map_err(|error| text(&error))? {
        // A stream that never had an entry has no signer either.
        let Some((state, last_at)) = fold(store, &tenant, head.size)? else {
            continue;
        };
        if state.custody.signer() == Some(&next.to_bytes()) {
            continue;
        }
        check_signer(store, &tenant, head, &state, signer)?;
        batch.push(append_of(&tenant, head, Some((state, last_at)), command.clone(), signer)?);
    }
    if batch.is_empty() {
        return Ok(());
    }
    store.append(&batch).and_then(|()| store.sync()).map_err(|error| text(&error))
}

/// The state of a stream and the time of its last entry; `None` for a stream without entries.
pub(super) fn fold(
    store: &dyn EventStore,
    tenant: &TenantId,
    size: u64,
) -> Result<Option<(Tenant, Timestamp)>, String> {
    let stream = stream_at(store, &MemorySnapshots::default(), tenant, size);
    let stream = stream.map_err(|error| format!("tenant {tenant}: {error}"))?;
    Ok(stream.map(|stream| (stream.tenant, stream.last_at)))
}

/// Refuses a key that is not the one that signs the stream: what it signed would not be trusted, and the stream could not be
/// gone on with.
pub(super) fn check_signer(
    store: &dyn EventStore,
    tenant: &TenantId,
    head: Head,
    state: &Tenant,
    signer: &Signer,
) -> Result<(), String> {
    let last = store.read(tenant, head.size.saturating_sub(1), 1).map_err(|error| error.to_string())?;
    let last = last.first().and_then(|bytes| open(bytes).ok());
    let key = signer.public_key();
    let signs = match state.custody.signer() {
        Some(handed_to) => *handed_to == key.to_bytes(),
        None => last.is_some_and(|last| last.key_id == key.id()),
    };
    if signs {
        return Ok(());
    }
    Err(format!(
        "the stream of tenant {tenant} is signed by another key than signing.key, which is {}",
        key.id()
    ))
}

/// What a command of the operator's adds to a stream.
pub(super) fn append_of(
    tenant: &TenantId,
    head: Head,
    state: Option<(Tenant, Timestamp)>,
    command: Command,
    signer: &Signer,
) -> Result<StreamAppend, String> {
    let (state, last_at) = state.map_or((Tenant::default(), None), |(state, at)| (state, Some(at)));
    let random = OsRandom::default();
    let random: &dyn Random = &random;
    let now = SystemClock.now();
    let envelope = Envelope {
        seq: head.size,
        at: last_at.map_or(now, |last_at| now.max(last_at.next())),
        actor: Actor::Operator,
        request_id: RequestId::issue(random.bytes()),
        idempotency: None,
        is_deployment_new: false,
        command,
    };
    let Decision::Events(events) = decide(&state, &envelope).map_err(|refusal| refusal.to_string())? else {
        return Err("the rules repeat an earlier decision".to_owned());
    };
    let expected = (head.size > 0).then_some(head);
    let mut append =
        StreamAppend { tenant: tenant.clone(), expected, entries: Vec::new(), head, side: Vec::new() };
    for recorded in record(&envelope, events) {
        let prev = if append.head.size == 0 { EntryHash::GENESIS } else { append.head.hash };
        let sealed = seal(tenant, &recorded, &prev, signer).map_err(|error| error.to_string())?;
        append.head = Head { size: recorded.seq + 1, hash: sealed.hash };
        append.entries.push(sealed.bytes);
    }
    Ok(append)
}
