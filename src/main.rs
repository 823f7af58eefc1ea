//! The `haldir` program.

use std::process::ExitCode;

use clap::Parser as _;
use haldir::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
