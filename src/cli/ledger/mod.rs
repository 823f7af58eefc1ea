//! `haldir ledger`: what an operator does with the ledger itself.

mod backup;
pub mod custody;
mod keys;
mod repair;
mod restore;
mod source;

use std::process::ExitCode;

use clap::Subcommand;

use super::complain;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// List the keys that sign or signed this installation's ledgers, and their certificates
    Keys(keys::KeysArgs),
    /// Hand every stream to a new signing key (the server must be stopped)
    RotateKey(keys::RotateArgs),
    /// Root keys, which are kept offline and certify signing keys
    #[command(subcommand)]
    Root(keys::RootCommand),
    /// Write a backup of every stream, while the server runs or while it does not
    Backup(backup::BackupArgs),
    /// Make a data directory out of a backup
    Restore(restore::RestoreArgs),
    /// Find the first bad entry of every stream, say what can be saved, and rebuild the ledger
    ///
    /// Exit codes: 0 nothing to repair, or repaired; 1 there is damage, and nothing was changed; 2 could not be done.
    Repair(repair::RepairArgs),
}

/// Does it.
#[must_use]
pub fn run(command: LedgerCommand) -> ExitCode {
    let outcome = match command {
        LedgerCommand::Keys(arguments) => keys::list(&arguments).map(|()| ExitCode::SUCCESS),
        LedgerCommand::RotateKey(arguments) => keys::rotate(&arguments).map(|()| ExitCode::SUCCESS),
        LedgerCommand::Root(command) => keys::root(&command).map(|()| ExitCode::SUCCESS),
        LedgerCommand::Backup(arguments) => backup::run(&arguments).map(|()| ExitCode::SUCCESS),
        LedgerCommand::Restore(arguments) => restore::run(&arguments).map(|()| ExitCode::SUCCESS),
        LedgerCommand::Repair(arguments) => repair::run(&arguments),
    };
    outcome.unwrap_or_else(|why| {
        complain(&why);
        ExitCode::from(2)
    })
}
