//! The `haldir` program.

use std::process::ExitCode;

use haldir::cli::{parse, run};

fn main() -> ExitCode {
    run(parse())
}
