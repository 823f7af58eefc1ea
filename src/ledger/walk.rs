//! Verifies entries on all cores, a window at a time.
//!
//! Reading, hashing and signatures know nothing of other entries and are spread over the cores; place, signer and decision
//! are checked in order between them. What is found is the first flaw, as if each entry had been checked after the other.

use std::num::NonZero;
use std::thread;

use crate::format::chain::{SignedHash, have_all_signed};
use crate::format::entry::Entry;
use crate::format::verify::{Examined, Flaw, Verifier, examine};

/// Entries that are verified at once. Enough work for the cores to be worth waking, little enough memory to be unnoticed.
pub const WINDOW_LEN: usize = 4096;
/// Signatures in one batch. Larger batches are hardly cheaper for each signature.
const BATCH_LEN: usize = 256;

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
    let mut signed = Vec::with_capacity(pieces.len());
    let mut wrong = None;
    for (seq, reading) in (first_seq..).zip(spread(pieces, read)) {
        let follow = || {
            let Reading { examined, objection } = reading?;
            if let Some(key) = verifier.place(&examined)? {
                let Entry { hash, signature, .. } = examined.entry;
                signed.push(SignedHash { key, hash, signature });
            }
            let entry = verifier.take(examined)?;
            seen(&entry);
            objection.map_or(Ok(()), Err)
        };
        if let Err(reason) = follow() {
            wrong = Some(Located { seq, reason });
            break;
        }
    }
    match first_unsigned(&signed) {
        Some(index) => Err(Located { seq: first_seq + index as u64, reason: Flaw::Signature.into() }),
        None => wrong.map_or(Ok(()), Err),
    }
}

/// The place of the first signature that is wrong.
fn first_unsigned(signed: &[SignedHash]) -> Option<usize> {
    let batches: Vec<&[SignedHash]> = signed.chunks(BATCH_LEN).collect();
    let wrong_in = |batch: &&[SignedHash]| {
        if have_all_signed(batch) {
            return None;
        }
        batch.iter().position(|it| !it.key.has_signed(&it.hash, &it.signature))
    };
    let found = spread(&batches, wrong_in);
    let mut wrong = found.into_iter().enumerate();
    wrong.find_map(|(batch, index)| index.map(|index| batch * BATCH_LEN + index))
}

/// Does something with every item on all cores; the results stand in the order of the items.
fn spread<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(cores).max(1);
    let work = &work;
    thread::scope(|scope| {
        let mut shares = items.chunks(share);
        let own = shares.next().unwrap_or_default();
        let others: Vec<_> =
            shares.map(|share| scope.spawn(move || share.iter().map(work).collect::<Vec<_>>())).collect();
        let mut results: Vec<T> = own.iter().map(work).collect();
        for other in others {
            match other.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}
