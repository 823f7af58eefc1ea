//! What auditors wait for, on a ledger of a million entries: verification, proofs, the past, exports, and the start of a
//! server.
//!
//! `cargo bench --bench audit -- --entries 1000000` makes a data directory out of what callers ask for (about a minute),
//! looks at it from all sides (a few minutes more) and prints a table. `--dir DIR` keeps the directory there, and uses the
//! one that is there already; `--only STAGE` runs one stage of `export`, `verify`, `proofs`, `past`, `start`, and may be
//! repeated. Without `--entries` it says how it is used and ends.
//!
//! Verification is compared with the limit that the cores set, measured in turns in the same run: all signatures checked
//! in batches and all leaves hashed, and nothing else. Files are read from the system's cache, because they were just
//! written.

use std::path::PathBuf;

use tempfile::TempDir;

mod export;
mod measure;
mod past;
mod proofs;
mod server;
mod start;
mod stock;
mod verify;

/// What is measured, in this order.
const STAGES: [&str; 5] = ["export", "verify", "proofs", "past", "start"];

/// What the command line says.
#[derive(Default)]
struct Arguments {
    entries: Option<u64>,
    dir: Option<PathBuf>,
    only: Vec<String>,
}

impl Arguments {
    /// Reads the command line. Whatever `cargo` adds for other benchmarks is not looked at.
    fn read() -> Self {
        let mut arguments = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--entries" => arguments.entries = words.next().and_then(|count| count.parse().ok()),
                "--dir" => arguments.dir = words.next().map(PathBuf::from),
                "--only" => arguments.only.extend(words.next()),
                _ => {}
            }
        }
        arguments
    }
}

fn main() {
    let arguments = Arguments::read();
    let Some(entries) = arguments.entries else {
        anstream::println!("usage: cargo bench --bench audit -- --entries N [--dir DIR] [--only STAGE]…");
        return;
    };
    let temporary = TempDir::new().expect("there is room for temporary files");
    let dir = arguments.dir.unwrap_or_else(|| temporary.path().join("data"));
    let export = temporary.path().join("export.jsonl");

    measure::machine();
    stock::fill(&dir, entries);
    for stage in STAGES {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == stage) {
            continue;
        }
        measure::title(stage);
        match stage {
            "export" => export::run(&dir),
            "verify" => verify::run(&dir, &export),
            "proofs" => proofs::run(&dir),
            "past" => past::run(&dir),
            _ => start::run(&dir),
        }
    }
    measure::machine();
}
