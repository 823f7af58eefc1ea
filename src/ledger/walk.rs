//! Verifies entries on all cores, a window at a time.
//!
//! Reading, hashing and signatures know nothing of other entries and are spread over the cores; place, signer and decision
//! are checked in order between them. What is found is the first flaw, as if each entry had been checked after the other.

use std::num::NonZero;
use std::thread::{self, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::format::chain::{SignedHash, have_all_signed};
use crate::format::entry::Entry;
use crate::format::verify::{Examined, Flaw, Verifier, examine};

/// Entries that are verified at once. Enough work for the cores to be worth waking, little enough memory to be unnoticed.
pub const WINDOW_LEN: usize = 4096;
/// Signatures in one batch. Each costs a tenth less than in batches of 256; in larger ones hardly less again.
pub const BATCH_LEN: usize = 1024;

/// What is wrong, and with which entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not sound at seq {seq}: {reason}")]
pub struct Located<E> {
    /// The entry's place.
    pub seq: u64,
    /// What is wrong with it.
    pub reason: E,
}

/// What reading one piece of evidence gave.
pub struct Reading<E> {
    /// The entry in it.
    pub examined: Examined,
    /// What else is wrong with the piece; it counts if the entry itself is sound.
    pub objection: Option<E>,
}

/// Verifies the entries that come next in a stream.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn verify_entries(
    verifier: &mut Verifier,
    entries: &[Vec<u8>],
    seen: impl FnMut(&Entry),
) -> Result<(), Located<Flaw>> {
    let read = |bytes: &Vec<u8>| Ok(Reading { examined: examine(bytes)?, objection: None });
    verify_window(verifier, entries, read, seen)
}

/// Verifies the entries that come next in a stream, out of pieces of evidence that each hold one.
///
/// # Errors
///
/// The first thing that is wrong. After that the verifier is of no use.
pub fn verify_window<P: Sync, E: From<Flaw> + Send>(
    verifier: &mut Verifier,
    pieces: &[P],
    read: impl Fn(&P) -> Result<Reading<E>, E> + Sync,
    mut seen: impl FnMut(&Entry),
) -> Result<(), Located<E>> {
    let first_seq = verifier.next_seq();
    let readings = spread(pieces, read);
    let (batches, waiting) = unbounded();
    let (unsigned, wrong) = thread::scope(|scope| {
        let others: Vec<_> = (1..core_count())
            .map(|_| {
                let waiting = waiting.clone();
                scope.spawn(move || first_unsigned(&waiting))
            })
            .collect();
        // The entries are walked here, while the other cores check the signatures of those that were walked.
        let mut batch = Batch { first_seq, signed: Vec::with_capacity(BATCH_LEN) };
        let mut wrong = None;
        for (seq, reading) in (first_seq..).zip(readings) {
            let follow = || {
                let Reading { examined, objection } = reading?;
                if let Some(key) = verifier.place(&examined)? {
                    let Entry { hash, signature, .. } = examined.entry;
                    batch.signed.push(SignedHash { key, hash, signature });
                }
                let entry = verifier.take(examined)?;
                seen(&entry);
                objection.map_or(Ok(()), Err)
            };
            if let Err(reason) = follow() {
                wrong = Some(Located { seq, reason });
                break;
            }
            if batch.signed.len() == BATCH_LEN {
                let next = Batch { first_seq: seq + 1, signed: Vec::with_capacity(BATCH_LEN) };
                send(&batches, std::mem::replace(&mut batch, next));
            }
        }
        send(&batches, batch);
        drop(batches);
        let own = first_unsigned(&waiting);
        (others.into_iter().filter_map(joined).chain(own).min(), wrong)
    });
    match unsigned {
        Some(seq) => Err(Located { seq, reason: Flaw::Signature.into() }),
        None => wrong.map_or(Ok(()), Err),
    }
}

/// Signatures of entries that follow each other.
struct Batch {
    /// The place of the first of them.
    first_seq: u64,
    signed: Vec<SignedHash>,
}

fn send(batches: &Sender<Batch>, batch: Batch) {
    // Whoever walks takes batches too, in the end, so that there is always somebody to take them.
    let _ = batches.send(batch);
}

/// The place of the first signature that is wrong, in all batches that are taken here.
fn first_unsigned(waiting: &Receiver<Batch>) -> Option<u64> {
    let wrong_in = |Batch { first_seq, signed }: Batch| {
        if have_all_signed(&signed) {
            return None;
        }
        let mut places = (first_seq..).zip(&signed);
        places.find_map(|(seq, it)| (!it.key.has_signed(&it.hash, &it.signature)).then_some(seq))
    };
    // Every batch is taken, whatever is found: what comes first may be found last.
    waiting.iter().filter_map(wrong_in).min()
}

/// Does something with every item on all cores; the results stand in the order of the items.
fn spread<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let share = items.len().div_ceil(core_count()).max(1);
    let work = &work;
    thread::scope(|scope| {
        let mut shares = items.chunks(share);
        let own = shares.next().unwrap_or_default();
        let others: Vec<_> =
            shares.map(|share| scope.spawn(move || share.iter().map(work).collect::<Vec<_>>())).collect();
        let mut results: Vec<T> = own.iter().map(work).collect();
        for other in others {
            results.extend(joined(other));
        }
        results
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn core_count() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::domain::id::{Actor, RequestId, SessionId, TenantId};
    use crate::domain::sessions::SessionRevoked;
    use crate::domain::time::Timestamp;
    use crate::domain::{Event, RULES_REVISION, Recorded};
    use crate::format::chain::{EntryHash, Signer};
    use crate::format::entry::seal;
    use crate::format::verify::Trust;

    #[test]
    fn of_several_wrong_signatures_the_first_is_found() {
        let (signer, mut entries) = entries(3 * BATCH_LEN + 5);
        let first = entries.len() - BATCH_LEN - 7;
        let verify = |entries: &[Vec<u8>]| {
            let trust = Trust::keys(vec![signer.public_key()]);
            let mut verifier = Verifier::without_decisions(tenant(), trust);
            verify_entries(&mut verifier, entries, |_| {})
        };
        assert_eq!(verify(&entries), Ok(()));
        for seq in [entries.len() - 1, first + 1, first] {
            *entries[seq].last_mut().unwrap() ^= 1;
            assert_eq!(verify(&entries), Err(Located { seq: seq as u64, reason: Flaw::Signature }));
        }
        // What is wrong with a later entry does not hide it, and what is wrong with an earlier one comes before it.
        entries[first + 2].pop();
        assert_eq!(verify(&entries), Err(Located { seq: first as u64, reason: Flaw::Signature }));
        entries[first - 1].pop();
        assert_eq!(verify(&entries).unwrap_err().seq, first as u64 - 1);
    }

    fn tenant() -> TenantId {
        TenantId::parse("t").unwrap()
    }

    fn entries(count: usize) -> (Signer, Vec<Vec<u8>>) {
        let signer = Signer::new(SigningKey::from_bytes(&[7; 32]));
        let mut prev = EntryHash::GENESIS;
        let entry = |seq| {
            let event = Event::SessionRevoked(SessionRevoked { session_id: SessionId::parse("s").unwrap() });
            let recorded = Recorded {
                seq,
                at: Timestamp::from_micros(seq + 1),
                rules: RULES_REVISION,
                actor: Actor::Operator,
                request_id: RequestId::parse("request").unwrap(),
                idempotency: None,
                event,
            };
            let sealed = seal(&tenant(), &recorded, &prev, &signer).unwrap();
            prev = sealed.hash;
            sealed.bytes
        };
        let entries = (0..count as u64).map(entry).collect();
        (signer, entries)
    }
}
