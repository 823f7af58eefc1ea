//! The ledger export, over HTTP and by the command line.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::measure::{forget_peak, memory_mib, rate, row};
use crate::server::Server;
use crate::stock::{api_key, head};

/// How often the memory of a process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Exports everything in every way.
pub(crate) fn run(dir: &Path) {
    let entries = head(dir).1.size;
    let server = Server::start(dir);
    let before = memory_mib(server.pid(), "VmRSS").unwrap_or(0);
    forget_peak(server.pid());
    let started = Instant::now();
    let len = server.get("/v1/ledger/export");
    show("GET /v1/ledger/export", len, entries, started.elapsed());
    let peak = memory_mib(server.pid(), "VmHWM").unwrap_or(0);
    row("the server's memory before it, and at most meanwhile", &format!("{before} MiB, {peak} MiB"));

    let out = dir.with_extension("online.jsonl");
    let url = server.url.clone();
    let online = ["--url", &url, "audit", "export", "--out"];
    run_cli("haldir audit export", &online, &out, Some(dir), entries);
    drop(server);
    let text = dir.to_string_lossy();
    let offline = ["audit", "export", "--data-dir", &text, "--out"];
    run_cli("haldir audit export --data-dir", &offline, &out, None, entries);
    let _ = std::fs::remove_file(&out);
}

/// Runs the program until it has written `out`, and watches its memory. A program that asks a server gets the key of
/// the directory.
pub(crate) fn run_cli(name: &str, words: &[&str], out: &Path, asked: Option<&Path>, entries: u64) {
    let _ = std::fs::remove_file(out);
    let mut command = Command::new(env!("CARGO_BIN_EXE_haldir"));
    if let Some(dir) = asked {
        command.env("HALDIR_API_KEY", api_key(dir));
    }
    let started = Instant::now();
    let mut child =
        command.args(words).arg(out).stdout(Stdio::null()).spawn().expect("the program was built");
    let mut peak = 0;
    let status = loop {
        peak = memory_mib(child.id(), "VmHWM").unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().expect("the process is ours") {
            break status;
        }
        thread::sleep(LOOK_EVERY);
    };
    let time = started.elapsed();
    assert!(status.success(), "{name}: {status}");
    show(name, std::fs::metadata(out).map_or(0, |file| file.len()), entries, time);
    row("its memory at most", &format!("{peak} MiB"));
}

fn show(name: &str, len: u64, entries: u64, time: Duration) {
    let (bytes, lines) = (rate(len, time) / 1e6, rate(entries, time));
    row(name, &format!("{bytes:.1} MB/s, {lines:.0} entries/s, {:.1} s", time.as_secs_f64()));
}
