//! How long a start takes, and what it takes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haldir::cli::installation::Installation;
use haldir::ledger::clock::SystemClock;
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::random::OsRandom;
use haldir::store::embedded::EmbeddedPages;
use haldir::store::snapshots::SnapshotFiles;
use haldir::views::follower::Views;

use crate::measure::{memory_mib, row};
use crate::server::Server;
use crate::stock::open_store;

/// Starts with snapshots.
const START_COUNT: usize = 3;
/// How long the scrub runs before memory is looked at again.
const SCRUB_TIME: Duration = Duration::from_secs(10);

/// Starts with and without snapshots, and takes a start apart.
pub(crate) fn run(dir: &Path) {
    for _ in 0..START_COUNT {
        start("haldir serve, until it listens", dir);
    }
    let (snapshots, aside) = (dir.join("snapshots"), dir.join("snapshots.aside"));
    std::fs::rename(&snapshots, &aside).expect("no server runs");
    start("haldir serve without snapshots, until it listens", dir);
    let _ = std::fs::remove_dir_all(&snapshots);
    std::fs::rename(&aside, &snapshots).expect("no server runs");
    take_apart(dir);
}

fn start(name: &str, dir: &Path) {
    let server = Server::start(dir);
    let memory = || memory_mib(server.pid(), "VmRSS").unwrap_or(0);
    let at_start = memory();
    std::thread::sleep(SCRUB_TIME);
    let later = memory();
    let time = server.start_time.as_secs_f64();
    row(name, &format!("{time:.2} s, {at_start} MiB, after 10 s of scrub {later} MiB"));
}

/// The same in this process, step by step.
fn take_apart(dir: &Path) {
    let installation = Installation::open(dir).expect("no server runs");
    let random = Arc::new(OsRandom::default());
    let signer = installation.signer(&*random).expect("the installation has a key");
    let store = Arc::new(timed("EmbeddedStore::open", || open_store(dir)));
    let parts = Parts {
        store: store.clone(),
        snapshots: Arc::new(SnapshotFiles::new(&dir.join("snapshots"))),
        signer,
        former_keys: Vec::new(),
        clock: Arc::new(SystemClock),
        random,
        sizes: Sizes::default(),
    };
    let opened = timed("LedgerHandle::open: snapshot and tail", || LedgerHandle::open(parts));
    let (ledger, feed) = opened.expect("the ledger is sound");
    let pages = timed("EmbeddedPages::open", || EmbeddedPages::open(&dir.join("views")));
    let pages = Arc::new(pages.expect("no server runs"));
    let views = timed("Views::open", || Views::open(pages, store, feed)).expect("the views are sound");
    ledger.close();
    views.close();
}

fn timed<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let time = started.elapsed().as_secs_f64() * 1e3;
    let memory = memory_mib(std::process::id(), "VmRSS").unwrap_or(0);
    row(name, &format!("{time:.0} ms; {memory} MiB so far"));
    done
}
