//! `haldir mcp config`: what to paste into a client's configuration.

use serde_json::{Value, json};

use super::clients::{Client, NAME, Way, entry_for_process};
use super::{Access, ConfigArgs};

/// Prints the snippet, and where it goes.
///
/// # Errors
///
/// A sentence, when there is no key, or the client cannot be reached that way.
pub(super) fn run(arguments: &ConfigArgs, url: Option<String>, key: Option<String>) -> Result<(), String> {
    let access = Access::find(url, key, arguments.data_dir.clone())?;
    let snippet = snippet(arguments.client, arguments.reaches.way(), &access.url, &access.key)?;
    let snippet = serde_json::to_string_pretty(&snippet).map_err(|error| error.to_string())?;
    anstream::println!("{snippet}");
    anstream::println!();
    if let Some(client) = arguments.client {
        let file = client.file();
        anstream::println!("Paste this into ~/{} and restart {}.", file.display(), client.title());
        anstream::println!("Or let it be done: haldir mcp install {}", name_of(client));
    } else {
        anstream::println!(
            "Paste this into the configuration of Claude Desktop, Claude Code, Cursor, Windsurf and others."
        );
        anstream::println!("For the exact form of one: haldir mcp config --client <client>");
        anstream::println!("Or let it be done:         haldir mcp install <client>");
    }
    if let Some(warning) = access.warning() {
        anstream::println!("{warning}");
    }
    Ok(())
}

fn snippet(client: Option<Client>, way: Way, url: &str, key: &str) -> Result<Value, String> {
    let (servers, entry) = match client {
        Some(client) => (client.servers(), client.entry(way, NAME, url, key)?),
        None if way == Way::Http => ("mcpServers", Client::ClaudeCode.entry(way, NAME, url, key)?),
        None => ("mcpServers", entry_for_process(NAME, url, key)),
    };
    Ok(json!({ servers: { NAME: entry } }))
}

/// What the command line calls a client.
pub(super) fn name_of(client: Client) -> String {
    clap::ValueEnum::to_possible_value(&client).map_or_else(String::new, |value| value.get_name().to_owned())
}
