//! `haldir mcp`: Haldir as a server of the Model Context Protocol for clients that start a process, and what clients need to find it.

pub mod clients;
pub mod config;
pub mod document;
pub mod install;
pub mod proxy;
mod remote;
pub mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::client::{Connection, read_config};
use super::complain;
use crate::config::data_dir;
use clients::{Client, Way};

/// What to do about the Model Context Protocol.
#[derive(Debug, Subcommand)]
pub enum McpCommand {
    /// Serve a client that has started this process, over standard input and output
    ///
    /// The key is in `HALDIR_API_KEY` and the server in `HALDIR_BASE_URL`. Both are needed when a tool is called, not before.
    Serve,
    /// Let a client that has started this process reach upstreams through Haldir, over standard input and output
    ///
    /// The key is in `HALDIR_API_KEY` and the server in `HALDIR_BASE_URL`.
    Proxy(Box<proxy::ProxyArgs>),
    /// Print what to paste into a client's configuration
    Config(ConfigArgs),
    /// Add Haldir to a client's configuration file
    Install(InstallArgs),
}

/// How the client reaches Haldir.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Reaches {
    /// The client starts a process: `haldir mcp serve` (the default)
    #[arg(long)]
    stdio: bool,
    /// The client talks to the server's own endpoint, /mcp
    #[arg(long)]
    http: bool,
}

impl Reaches {
    fn way(&self) -> Way {
        if self.http { Way::Http } else { Way::Stdio }
    }
}

/// For whom to print.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The client; without one, the form that most of them read
    #[arg(long, value_enum)]
    client: Option<Client>,
    #[command(flatten)]
    reaches: Reaches,
    /// Directory with the key that the CLI uses [default: ~/.haldir]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Where to add it.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The client
    #[arg(value_enum)]
    client: Client,
    #[command(flatten)]
    reaches: Reaches,
    /// The client's configuration file, if it is not where it usually is
    #[arg(long, value_name = "FILE")]
    path: Option<PathBuf>,
    /// Tell what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Directory with the key that the CLI uses [default: ~/.haldir]
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Does what the command line says.
#[must_use]
pub fn run(command: &McpCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    let outcome = match command {
        McpCommand::Serve => serve::run(url, key),
        McpCommand::Proxy(arguments) => proxy::run(arguments, url, key),
        McpCommand::Config(arguments) => config::run(arguments, url, key),
        McpCommand::Install(arguments) => install::run(arguments, url, key),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// A server and the key that a client is to use.
struct Access {
    url: String,
    key: Zeroizing<String>,
    /// Whether it is the key that the CLI itself uses.
    is_of_cli: bool,
}

impl Access {
    fn find(url: Option<String>, key: Option<String>, dir: Option<PathBuf>) -> Result<Self, String> {
        let dir = data_dir(dir)?;
        let connection = Connection::find(url, key, &dir);
        let key = Zeroizing::new(connection.key()?.to_owned());
        let of_cli = read_config(&dir).get("api_key").and_then(|it| it.as_str().map(str::to_owned));
        Ok(Self { is_of_cli: of_cli.as_deref() == Some(key.as_str()), url: connection.url, key })
    }

    /// What to say about a key that may do everything, if it is one.
    fn warning(&self) -> Option<&'static str> {
        self.is_of_cli.then_some(
            "This is the key that the CLI uses, which may do everything. Give the client a key of its own, with the scopes that it \
             needs (POST /v1/keys), and name it with --key or HALDIR_API_KEY.",
        )
    }
}
