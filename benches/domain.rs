//! The rules alone: what it costs to decide a command, and to decide and apply it, in tenants of different size.
//!
//! `cargo bench --bench domain`. Nothing is hashed, signed or written here.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use haldir::domain::{Command, Envelope, decide};

#[allow(dead_code, reason = "each benchmark uses its part")]
mod fixture;

/// Sessions in the tenant.
const SESSION_COUNTS: [u64; 3] = [1, 1_000, 100_000];
/// Commands that are taken in turns, so that not one session is looked up for ever.
const COMMAND_COUNT: u64 = 1_024;

/// Asks something of the session with an index.
type Ask = fn(u64) -> Command;

/// What is asked. Opening a session that is there replaces it, so that the tenant keeps its size.
const COMMANDS: [(&str, Ask); 4] = [
    ("payment", fixture::authorize_payment),
    ("session_open", fixture::open_session),
    ("permission_check", fixture::check_permission),
    ("audit_log", fixture::log_action),
];

fn envelopes(command: Ask, session_count: u64) -> Vec<(u64, Envelope)> {
    let stride = session_count.div_ceil(COMMAND_COUNT);
    (0..COMMAND_COUNT)
        .map(|turn| {
            let index = turn * stride % session_count;
            (index + 1, fixture::envelope(fixture::actor(), command(index)))
        })
        .collect()
}

fn decides(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    group.throughput(Throughput::Elements(1));
    for session_count in SESSION_COUNTS {
        let tenant = fixture::tenant(session_count);
        for (name, command) in COMMANDS {
            let envelopes = envelopes(command, session_count);
            let mut turns = envelopes.iter().cycle();
            group.bench_function(BenchmarkId::new(name, session_count), |bencher| {
                bencher.iter(|| turns.next().map(|(_, envelope)| decide(black_box(&tenant), envelope)));
            });
        }
    }
    group.finish();
}

fn decides_and_applies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide_and_apply");
    group.throughput(Throughput::Elements(1));
    for session_count in SESSION_COUNTS {
        let mut tenant = fixture::tenant(session_count);
        for (name, command) in COMMANDS {
            let envelopes = envelopes(command, session_count);
            let mut turns = envelopes.iter().cycle();
            group.bench_function(BenchmarkId::new(name, session_count), |bencher| {
                bencher.iter(|| {
                    turns
                        .next()
                        .map(|(seq, envelope)| fixture::carry_out(black_box(&mut tenant), *seq, envelope))
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = decides, decides_and_applies
}
criterion_main!(benches);
