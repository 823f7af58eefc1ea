//! What the server tells those who do not speak the protocol yet: the description at `/mcp`, and the well-known documents.

use rmcp::model::ProtocolVersion;
use serde_json::{Value, json};

use super::catalogue::{Face, catalogue};
use super::prompts;
use super::server::{DESCRIPTION, INSTRUCTIONS, NAME};

/// Where the endpoint is.
pub(super) const PATH: &str = "/mcp";
const DISPLAY_NAME: &str = "Haldir";

/// `GET /mcp`: what a client would learn from `initialize`.
#[must_use]
pub fn description() -> Value {
    json!({
        "protocolVersion": newest_with_handshake(),
        "protocolVersions": versions(),
        "serverInfo": {
            "name": NAME,
            "version": env!("CARGO_PKG_VERSION"),
            "displayName": DISPLAY_NAME,
            "description": DESCRIPTION,
        },
        "capabilities": capabilities(),
        "instructions": INSTRUCTIONS,
    })
}

/// `/.well-known/mcp/mcp.json`: where the endpoint is, and how to be let in.
#[must_use]
pub fn endpoint(base_url: &str) -> Value {
    json!({
        "name": NAME,
        "displayName": DISPLAY_NAME,
        "version": env!("CARGO_PKG_VERSION"),
        "description": DESCRIPTION,
        "mcpEndpoint": format!("{base_url}{PATH}"),
        "transport": "http",
        "protocolVersions": versions(),
        "authentication": { "type": "bearer", "header": "Authorization", "description": "An API key: `Bearer hld_…`" },
        "capabilities": capabilities(),
        "links": links(base_url),
    })
}

/// `/.well-known/mcp/server-card.json`: what the server is for, and what it can do.
#[must_use]
pub fn card(base_url: &str) -> Value {
    let tools = catalogue().tools().iter().map(|tool| {
        let listed = tool.listed(Face::Http);
        json!({ "name": listed.name, "description": listed.description })
    });
    let prompts = prompts::listed().into_iter();
    let prompts = prompts.map(|it| json!({ "name": it.name, "description": it.description }));
    json!({
        "name": NAME,
        "displayName": DISPLAY_NAME,
        "version": env!("CARGO_PKG_VERSION"),
        "description": DESCRIPTION,
        "use_cases": [
            "Give every agent a session with scopes, a budget and an end",
            "Authorize payments before they are made",
            "Hand secrets to sessions without putting them into prompts",
            "Ask people before something is done",
            "Keep an audit trail that anyone can verify",
        ],
        "trust_signals": {
            "rfc_6962_merkle": true,
            "ed25519_sth": true,
            "c2sp_checkpoints": true,
            "self_hosted": true,
        },
        "transports": [
            { "type": "streamable-http", "url": format!("{base_url}{PATH}") },
            { "type": "stdio", "command": "haldir", "args": ["mcp", "serve"] },
        ],
        "protocolVersions": versions(),
        "capabilities": capabilities(),
        "tools": tools.collect::<Vec<_>>(),
        "prompts": prompts.collect::<Vec<_>>(),
        "configSchema": {
            "type": "object",
            "properties": {
                "apiKey": { "type": "string", "description": "An API key of the server's." },
                "baseUrl": { "type": "string", "description": "Where the server is.", "default": base_url },
            },
            "required": ["apiKey"],
        },
        "links": links(base_url),
    })
}

fn capabilities() -> Value {
    let fixed = json!({ "listChanged": false });
    json!({ "tools": fixed, "resources": fixed, "prompts": fixed })
}

fn links(base_url: &str) -> Value {
    json!({
        "openapi": format!("{base_url}/openapi.json"),
        "serverCard": format!("{base_url}/.well-known/mcp/server-card.json"),
        "publicKeys": format!("{base_url}/.well-known/jwks.json"),
    })
}

fn versions() -> Vec<&'static str> {
    ProtocolVersion::KNOWN_VERSIONS.iter().map(ProtocolVersion::as_str).collect()
}

/// The newest version that has `initialize`, which is what this document stands in for.
fn newest_with_handshake() -> &'static str {
    let with_handshake = ProtocolVersion::KNOWN_VERSIONS.iter().filter(|it| it.has_initialize());
    with_handshake.map(ProtocolVersion::as_str).max().unwrap_or_default()
}
