//! `haldir audit`: verify and export the ledger, from a server, a file, or a data directory.

pub(super) mod export;
mod follow;
mod lines;
mod tiles;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use super::complain;

/// What to do with the ledger.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Verify every entry: chain, signatures, decisions, tree
    ///
    /// Asks the server for the ledger and verifies it here, without trusting the server. With --data-dir, verifies what
    /// is on disk (the server must be stopped); with --file, whatever you were handed.
    ///
    /// Exit codes: 0 sound; 1 not sound; 2 could not check; 3 sound, but signed by a key that you did not name; 4 incomplete: a
    /// range, or a missing end; 5 truncated since a checkpoint that you pinned; 6 equivocation: two checkpoints that cannot
    /// both be true.
    Verify(verify::VerifyArgs),
    /// Write the ledger to a file, for auditors or a SIEM
    Export(export::ExportArgs),
}

/// Does it.
#[must_use]
pub fn run(command: AuditCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    let outcome = match command {
        AuditCommand::Verify(arguments) => verify::run(&arguments, url, key),
        AuditCommand::Export(arguments) => export::run(&arguments, url, key).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|why| {
        complain(&why);
        ExitCode::from(2)
    })
}
