//! Logs: readable text on a terminal, one JSON object a line elsewhere, always on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What the SDK of the Model Context Protocol may log, whatever the filter says: below it repeats whole messages, and with
/// them the secrets that tools are called with.
const PROTOCOL_LEVEL: &str = "rmcp=error";

/// Starts logging. `level` is a level or a filter such as `haldir=debug`; `json` overrides the choice of the form.
///
/// # Errors
///
/// A sentence, when the filter cannot be read.
pub fn init(level: &str, json: Option<bool>) -> Result<(), String> {
    if level.contains("rmcp") {
        return Err(format!("log level {level:?}: rmcp would log the secrets that tools are called with"));
    }
    let filter = EnvFilter::try_new(level).map_err(|error| format!("log level {level:?}: {error}"))?;
    let filter = filter.add_directive(PROTOCOL_LEVEL.parse().map_err(|error| format!("log level: {error}"))?);
    let is_json = json.unwrap_or_else(|| !std::io::stderr().is_terminal());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if is_json {
        lines.json().flatten_event(true).with_current_span(false).init();
    } else {
        lines.with_target(false).init();
    }
    Ok(())
}
