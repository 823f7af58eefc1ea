//! Verification of an export, beside the limit that signatures and hashes set.

use std::fs::File;
use std::num::NonZero;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use haldir::cli::installation::Installation;
use haldir::format::chain::{PublicKey, SignedHash, have_all_signed};
use haldir::format::entry;
use haldir::format::merkle::{Tree, leaf_hash};
use haldir::ledger::walk::BATCH_LEN;
use haldir::operations::evidence::{Expected, Verdict, form};
use haldir::store::EventStore as _;

use crate::export::run_cli;
use crate::measure::{cpu_time, rate, row};
use crate::stock::{head, open_store};

/// Batches of which the limit is measured: small ones, and those that the verifier makes.
const BATCH_LENS: [usize; 2] = [256, BATCH_LEN];
/// Entries of which the limit is measured. Held in memory.
const LIMIT_ENTRY_COUNT: usize = 200_000;
/// How often limit and verification are measured in turns.
const ROUND_COUNT: usize = 3;

/// What is signed, and the bytes that are hashed.
type Piece = (SignedHash, Vec<u8>);

/// Verifies an export and compares.
pub(crate) fn run(dir: &Path, export: &Path) {
    let entries = head(dir).1.size;
    let data_dir = dir.to_string_lossy();
    let offline = ["audit", "export", "--data-dir", &data_dir, "--out"];
    run_cli("the file, by haldir audit export --data-dir", &offline, export, None, entries);
    let keys = Installation::known_keys(dir).expect("the installation has a key");
    let pieces = read_pieces(dir, keys[0]);

    let mut ratios = [const { Vec::new() }; BATCH_LENS.len()];
    for _ in 0..ROUND_COUNT {
        let found = Measured::of(entries, || verify(export, &keys));
        found.show("verification: the whole export");
        for (batch_len, ratios) in BATCH_LENS.into_iter().zip(&mut ratios) {
            let limit = Measured::of(pieces.len() as u64, || check_limit(&pieces, batch_len));
            limit.show(&format!("limit: leaf hashes, signatures in batches of {batch_len}"));
            ratios.push((100.0 * found.rate / limit.rate, 100.0 * found.cpu_rate / limit.cpu_rate));
        }
    }
    for (batch_len, mut ratios) in BATCH_LENS.into_iter().zip(ratios) {
        ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (percent, cpu_percent) = ratios[ROUND_COUNT / 2];
        let name = format!("verification against the limit with batches of {batch_len}");
        row(&name, &format!("{percent:.0} % (by CPU time {cpu_percent:.0} %)"));
    }

    let program = env!("CARGO_BIN_EXE_haldir");
    let started = Instant::now();
    let verified = std::process::Command::new(program)
        .args(["audit", "verify", "--key"])
        .arg(dir.join("signing.pub"))
        .arg("--file")
        .arg(export)
        .output()
        .expect("the program was built");
    let time = started.elapsed();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    row("haldir audit verify --file", &format!("{:.0} entries/s", rate(entries, time)));
}

/// How fast something was, by the clock and by the CPU time of all cores.
struct Measured {
    rate: f64,
    cpu_rate: f64,
}

impl Measured {
    fn of(count: u64, work: impl FnOnce()) -> Self {
        let (started, cpu_started) = (Instant::now(), cpu_time());
        work();
        let (time, cpu) = (started.elapsed(), cpu_time().saturating_sub(cpu_started));
        Self { rate: rate(count, time), cpu_rate: rate(count, cpu.max(Duration::from_millis(1))) }
    }

    fn show(&self, name: &str) {
        let Self { rate, cpu_rate } = self;
        row(name, &format!("{rate:.0} entries/s, {cpu_rate:.0} for each second of a core"));
    }
}

fn read_pieces(dir: &Path, key: PublicKey) -> Vec<Piece> {
    let (tenant, _) = head(dir);
    let entries = open_store(dir).read(&tenant, 0, LIMIT_ENTRY_COUNT).expect("the ledger is sound");
    let piece = |bytes: Vec<u8>| {
        let entry = entry::open(&bytes).expect("the ledger is sound");
        (SignedHash { key, hash: entry.hash, signature: entry.signature }, bytes)
    };
    entries.into_iter().map(piece).collect()
}

/// Nothing but what cannot be avoided, on all cores.
fn check_limit(pieces: &[Piece], batch_len: usize) {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for share in pieces.chunks(pieces.len().div_ceil(cores)) {
            scope.spawn(move || {
                let mut tree = Tree::default();
                for batch in share.chunks(batch_len) {
                    let signed: Vec<SignedHash> = batch.iter().map(|(signed, _)| *signed).collect();
                    assert!(have_all_signed(&signed), "the ledger is sound");
                    for (_, bytes) in batch {
                        tree.push(leaf_hash(bytes));
                    }
                }
                tree.root()
            });
        }
    });
}

/// Reads and verifies the file as `haldir audit verify --file` does.
fn verify(export: &Path, keys: &[PublicKey]) {
    let file = File::open(export).expect("the file was just written");
    let expected = Expected { keys: keys.to_vec(), ..Expected::default() };
    let report = form::verify(file, None, expected).expect("the file is an export");
    assert_eq!(report.verdict, Verdict::Sound, "{}", report.reason);
}
