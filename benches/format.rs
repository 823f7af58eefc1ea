//! The bytes alone: sealing, opening and verifying entries, and the tree over them, beside the primitives that they
//! cannot do without, on the same bytes in the same run.
//!
//! `cargo bench --bench format`. Rates are entries per second, and bytes per second of the entries' bytes. One thread.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ed25519_dalek::Signer as _;
use haldir::domain::time::Timestamp;
use haldir::domain::{Recorded, Tenant};
use haldir::format::chain::{EntryHash, HASH_LEN, KEY_ID_LEN};
use haldir::format::entry::{SealedEntry, TRAILER_LEN, open, seal};
use haldir::format::merkle::{Tree, TreeHash, leaf_hash};
use haldir::format::verify::{Trust, Verifier};
use sha2::{Digest as _, Sha256};

#[allow(dead_code, reason = "each benchmark uses its part")]
mod fixture;

/// Entries in the stream that is walked.
const STREAM_LEN: u64 = 1_000;
/// Bytes that an entry's signature covers: a domain, the key id and the hash.
const SIGNED_LEN: usize = b"haldir ledger v1 entry signature\n".len() + KEY_ID_LEN + HASH_LEN;

/// A logged action of a tenant's one session.
fn action(tenant: &mut Tenant, seq: u64) -> Recorded {
    let envelope = fixture::envelope(fixture::actor(), fixture::log_action(0));
    let recorded = fixture::carry_out(tenant, seq, &envelope);
    Recorded { at: Timestamp::from_micros(recorded.at.micros() + seq), ..recorded }
}

/// A stream of logged actions, as it goes to disk.
fn stream() -> Vec<SealedEntry> {
    let signer = fixture::signer();
    let mut tenant = fixture::tenant(1);
    let mut prev = EntryHash::GENESIS;
    let seal_next = |seq| {
        let recorded = action(&mut tenant, seq);
        let sealed =
            seal(&fixture::tenant_id(), &recorded, &prev, &signer).expect("a short action fits an entry");
        prev = sealed.hash;
        sealed
    };
    (0..STREAM_LEN).map(seal_next).collect()
}

fn entries(criterion: &mut Criterion) {
    let stream = stream();
    let (entry, entry_len) = (&stream[1].bytes, stream[1].bytes.len());
    let recorded = action(&mut fixture::tenant(1), 1);
    let (tenant_id, signer, prev) = (fixture::tenant_id(), fixture::signer(), stream[0].hash);
    let mut group = criterion.benchmark_group("entry");
    group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: entry_len as u64 });
    group.bench_function("seal", |bencher| {
        bencher.iter(|| seal(&tenant_id, black_box(&recorded), &prev, &signer));
    });
    group.bench_function("open", |bencher| bencher.iter(|| open(black_box(entry))));

    // What `seal` and `open` cannot do without.
    let hashed = &entry[..entry_len - TRAILER_LEN];
    let key = fixture::signing_key();
    let signed = [9; SIGNED_LEN];
    let signature = key.sign(&signed);
    let public_key = key.verifying_key();
    group.bench_function("bare/blake3", |bencher| {
        bencher.iter(|| EntryHash::of(black_box(hashed)));
    });
    group.bench_function("bare/sha256", |bencher| {
        bencher.iter(|| Sha256::digest(black_box(entry)));
    });
    group.bench_function("bare/ed25519_sign", |bencher| {
        bencher.iter(|| key.sign(black_box(&signed)));
    });
    group.bench_function("bare/ed25519_verify", |bencher| {
        bencher.iter(|| public_key.verify_strict(black_box(&signed), &signature));
    });
    group.finish();
}

fn streams(criterion: &mut Criterion) {
    let stream = stream();
    let stream_bytes: u64 = stream.iter().map(|entry| entry.bytes.len() as u64).sum();
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::ElementsAndBytes { elements: STREAM_LEN, bytes: stream_bytes });
    let trusts = [
        ("verify/chain_only", Trust::ChainOnly),
        ("verify/every_signature", Trust::keys(vec![fixture::signer().public_key()])),
    ];
    for (name, trust) in trusts {
        group.bench_function(name, |bencher| {
            let verifier = || Verifier::new(fixture::tenant_id(), trust.clone());
            bencher.iter_batched(
                verifier,
                |mut verifier| {
                    for entry in &stream {
                        verifier.push(&entry.bytes).expect("the stream is sound");
                    }
                    verifier.summary()
                },
                BatchSize::SmallInput,
            );
        });
    }

    group.bench_function("merkle/leaf_hash_and_push", |bencher| {
        bencher.iter(|| tree_of(stream.iter().map(|entry| leaf_hash(black_box(&entry.bytes)))));
    });
    let leaves: Vec<TreeHash> = stream.iter().map(|entry| leaf_hash(&entry.bytes)).collect();
    group.bench_function("merkle/push", |bencher| {
        bencher.iter(|| tree_of(black_box(&leaves).iter().copied()));
    });
    group.finish();
}

fn tree_of(leaves: impl Iterator<Item = TreeHash>) -> TreeHash {
    let mut tree = Tree::default();
    leaves.for_each(|leaf| tree.push(leaf));
    tree.root()
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = entries, streams
}
criterion_main!(benches);
