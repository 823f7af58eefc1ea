//! The write path without HTTP: commits through the stores by batch size, and through the whole ledger by how many
//! submit at once.
//!
//! `cargo bench --bench commit`. Rates are entries per second, each durable before it counts. What they show is mostly
//! the disk that holds the build directory; compare rows of one run, not machines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{
    BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use haldir::domain::Command;
use haldir::domain::id::{Actor, RequestId};
use haldir::format::chain::EntryHash;
use haldir::format::entry::seal;
use haldir::ledger::Request;
use haldir::ledger::clock::SystemClock;
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::random::OsRandom;
use haldir::store::embedded::EmbeddedStore;
use haldir::store::memory::{MemorySnapshots, MemoryStore};
use haldir::store::{EventStore, Head, StreamAppend};
use tokio::runtime::{Builder, Runtime};

#[allow(dead_code, reason = "each benchmark uses its part")]
mod fixture;

/// Entries in one commit.
const BATCH_LENS: [usize; 4] = [1, 16, 64, 256];
/// Tasks that submit at once.
const SUBMITTER_COUNTS: [usize; 3] = [1, 32, 256];

/// Batches for a stream, one after the other. A store does not look into entries, so all are the same.
struct Batches {
    entry: Vec<u8>,
    hash: EntryHash,
    end: Option<Head>,
}

impl Batches {
    fn new() -> Self {
        let envelope = fixture::envelope(fixture::actor(), fixture::log_action(0));
        let recorded = fixture::carry_out(&mut fixture::tenant(1), 2, &envelope);
        let sealed = seal(&fixture::tenant_id(), &recorded, &EntryHash::GENESIS, &fixture::signer());
        let sealed = sealed.expect("a short action fits an entry");
        Self { entry: sealed.bytes, hash: sealed.hash, end: None }
    }

    fn next(&mut self, batch_len: usize) -> [StreamAppend; 1] {
        let head = Head { size: self.end.map_or(0, |end| end.size) + batch_len as u64, hash: self.hash };
        [StreamAppend {
            tenant: fixture::tenant_id(),
            expected: self.end.replace(head),
            entries: vec![self.entry.clone(); batch_len],
            head,
            side: Vec::new(),
        }]
    }
}

fn commit(store: &impl EventStore, batch: &[StreamAppend]) {
    let committed = store.append(batch).and_then(|()| store.sync());
    committed.expect("the disk works and nobody else appends");
}

fn stores(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    for batch_len in BATCH_LENS {
        group.throughput(Throughput::Elements(batch_len as u64));
        group.bench_function(BenchmarkId::new("embedded", batch_len), |bencher| {
            let dir = fixture::directory();
            let store = EmbeddedStore::open(dir.path()).expect("the directory is empty");
            let mut batches = Batches::new();
            bencher.iter_batched(
                || batches.next(batch_len),
                |batch| commit(&store, &batch),
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("memory", batch_len), |bencher| {
            // The reference store copies all it holds when it syncs, so every commit goes to a new one.
            bencher.iter_batched(
                || (MemoryStore::default(), Batches::new().next(batch_len)),
                |(store, batch)| {
                    commit(&store, &batch);
                    store
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// A ledger on disk with one session, and the directory that it lives in.
fn ledger(runtime: &Runtime, dir: &std::path::Path) -> LedgerHandle {
    let parts = Parts {
        snapshots: Arc::new(MemorySnapshots::default()),
        former_keys: Vec::new(),
        store: Arc::new(EmbeddedStore::open(dir).expect("the directory is empty")),
        signer: fixture::signer(),
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom::default()),
        sizes: Sizes::default(),
    };
    let (ledger, _) = LedgerHandle::open(parts).expect("the ledger is empty");
    for (actor, command) in
        [(Actor::Operator, fixture::mint_key()), (fixture::actor(), fixture::open_session(0))]
    {
        let submitted = runtime.block_on(ledger.submit(request(actor, command)));
        submitted.expect("a new ledger takes its first requests");
    }
    ledger
}

fn request(actor: Actor, command: Command) -> Request {
    Request {
        tenant: fixture::tenant_id(),
        actor,
        request_id: RequestId::issue([3; 16]),
        idempotency: None,
        command,
        side: vec![],
    }
}

/// Has `count` actions logged by `submitter_count` tasks, each waiting for its answer before it asks again.
async fn submit_all(ledger: &LedgerHandle, submitter_count: usize, count: u64) {
    let submitted = Arc::new(AtomicU64::new(0));
    let submit = || {
        let (ledger, submitted) = (ledger.clone(), Arc::clone(&submitted));
        async move {
            while submitted.fetch_add(1, Ordering::Relaxed) < count {
                let logged = ledger.submit(request(fixture::actor(), fixture::log_action(0))).await;
                logged.expect("the queue is longer than there are submitters");
            }
        }
    };
    let tasks: Vec<_> = (0..submitter_count).map(|_| tokio::spawn(submit())).collect();
    for task in tasks {
        task.await.expect("no submitter panics");
    }
}

fn ledgers(criterion: &mut Criterion) {
    let runtime = Builder::new_multi_thread().build().expect("threads can be started");
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(1));
    // Every sample has as many submissions, enough of them to keep all submitters busy.
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    for submitter_count in SUBMITTER_COUNTS {
        group.bench_function(BenchmarkId::new("submitters", submitter_count), |bencher| {
            let dir = fixture::directory();
            let ledger = ledger(&runtime, dir.path());
            bencher.iter_custom(|count| {
                let started = Instant::now();
                runtime.block_on(submit_all(&ledger, submitter_count, count));
                started.elapsed()
            });
            ledger.close();
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    targets = stores, ledgers
}
criterion_main!(benches);
