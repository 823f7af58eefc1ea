//! `haldir mcp serve`, or the program under the name `haldir-mcp`: the tools for a client that has started this process.

use std::sync::Arc;

use rmcp::ServiceExt as _;
use rmcp::service::ServerInitializeError;
use rmcp::transport::stdio;

use super::remote::Remote;
use crate::cli::client::DEFAULT_URL;
use crate::mcp::catalogue::Face;
use crate::mcp::server::Server;
use crate::telemetry;

/// Serves until the client closes standard input.
///
/// The configuration of the CLI is not looked at: its key may do everything, and an agent should have one of its own.
///
/// # Errors
///
/// A sentence, when the process cannot serve at all.
pub(super) fn run(url: Option<String>, key: Option<String>) -> Result<(), String> {
    telemetry::init(&log_level(), None)?;
    let given = |value: Option<String>| value.filter(|value| !value.trim().is_empty());
    let url = given(url).unwrap_or_else(|| DEFAULT_URL.to_owned());
    let remote = Remote::new(url.trim_end_matches('/').to_owned(), given(key))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let served = runtime.block_on(serve(remote));
    // A read of standard input may still be waiting.
    runtime.shutdown_background();
    served
}

async fn serve(remote: Remote) -> Result<(), String> {
    match Server::new(Arc::new(remote), Face::Stdio).serve(stdio()).await {
        Ok(running) => running.waiting().await.map(|_| ()).map_err(|error| error.to_string()),
        // The client changed its mind.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// `HALDIR_MCP_LOG_LEVEL`, also in the words of older configurations.
pub(super) fn log_level() -> String {
    let level = std::env::var("HALDIR_MCP_LOG_LEVEL").unwrap_or_default().to_lowercase();
    match level.as_str() {
        "" => "info".to_owned(),
        "warning" => "warn".to_owned(),
        "critical" => "error".to_owned(),
        _ => level,
    }
}
