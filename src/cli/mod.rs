//! The command line, one file for each group of commands.

pub mod anomalies;
pub mod approvals;
pub mod audit;
pub mod budgets;
pub mod client;
pub mod compliance;
pub mod installation;
pub mod ledger;
pub mod mcp;
pub mod offline;
pub mod policy;
pub mod proxy;
pub mod replay;
pub mod serve;
mod shown;
pub mod vault;
pub mod webhooks;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Governance for AI agents on a signed, append-only ledger.
#[derive(Debug, Parser)]
#[command(name = "haldir", version, about, propagate_version = true)]
pub struct Cli {
    /// Base URL of the server to talk to
    #[arg(long, env = "HALDIR_BASE_URL")]
    pub url: Option<String>,
    /// API key to talk to it with
    #[arg(long, env = "HALDIR_API_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The groups of commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(Box<crate::config::Sources>),
    /// Verify and export the ledger
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Decide what waits for a person
    #[command(subcommand)]
    Approvals(approvals::ApprovalsCommand),
    /// Caps on what sessions, agents and the tenant may spend
    #[command(subcommand)]
    Budgets(budgets::BudgetsCommand),
    /// Evidence for auditors: packs, score, schedules
    #[command(subcommand)]
    Compliance(compliance::ComplianceCommand),
    /// See what anomaly rules found, and change the rules
    #[command(subcommand)]
    Anomalies(anomalies::AnomaliesCommand),
    /// Keep the ledger: keys, backups, repair
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Connect clients of the Model Context Protocol
    #[command(subcommand)]
    Mcp(mcp::McpCommand),
    /// Upstream MCP servers, their tools, and calls
    #[command(subcommand)]
    Proxy(proxy::ProxyCommand),
    /// What may be called through the proxy, and why
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Keep the master keys of the vault
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// Tell URLs of events, and see what arrived
    #[command(subcommand)]
    Webhooks(webhooks::WebhookCommand),
    /// Tell what was true at a moment
    Replay(replay::ReplayArgs),
    /// Tell what changed between two moments
    Diff(replay::DiffArgs),
}

/// Reads the command line. Under the name `haldir-mcp` the program is `haldir mcp serve`.
#[must_use]
pub fn parse() -> Cli {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().map(Path::new).and_then(Path::file_stem);
    if name.is_some_and(|name| name == "haldir-mcp") {
        words.extend(["mcp".into(), "serve".into()]);
    }
    Cli::parse_from(words)
}

/// Does what the command line says.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(sources) => serve::run(*sources),
        Command::Audit(command) => audit::run(command, cli.url, cli.key),
        Command::Approvals(command) => approvals::run(&command, cli.url, cli.key),
        Command::Budgets(command) => budgets::run(&command, cli.url, cli.key),
        Command::Compliance(command) => compliance::run(&command, cli.url, cli.key),
        Command::Anomalies(command) => anomalies::run(&command, cli.url, cli.key),
        Command::Ledger(command) => ledger::run(command),
        Command::Mcp(command) => mcp::run(&command, cli.url, cli.key),
        Command::Proxy(command) => proxy::run(command, cli.url, cli.key),
        Command::Policy(command) => policy::run(&command, cli.url, cli.key),
        Command::Vault(command) => vault::run(command),
        Command::Webhooks(command) => webhooks::run(&command, cli.url, cli.key),
        Command::Replay(arguments) => replay::run(&arguments, cli.url, cli.key),
        Command::Diff(arguments) => replay::run_diff(&arguments, cli.url, cli.key),
    }
}

/// Says why a command cannot be carried out.
fn complain(why: &str) {
    anstream::eprintln!("{}error:{} {why}", anstyle::AnsiColor::Red.on_default().bold(), anstyle::Reset);
}
