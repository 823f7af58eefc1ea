//! Describes what other edges serve: what clients find at the server belongs into one document.

#![expect(dead_code, reason = "only their descriptions are used")]

/// Answers one JSON-RPC message of the Model Context Protocol: Streamable HTTP, in the versions that `GET /mcp` names.
#[utoipa::path(
    post, path = "/mcp", operation_id = "post_mcp_jsonrpc", tag = "mcp", request_body = Object,
    responses(
        (status = 200, description = "The JSON-RPC response, or a stream that ends with it", body = Object),
        (status = 202, description = "A notification was taken"),
        (status = 406, description = "The client takes neither JSON nor event streams"),
        (status = 415, description = "The body is not called JSON"),
    ),
)]
pub(super) fn call() {}

/// Says what there is to call, without a key.
#[utoipa::path(
    get, path = "/mcp", operation_id = "get_mcp_info", tag = "mcp", security(()),
    responses((status = 200, description = "Versions, capabilities, instructions", body = Object)),
)]
pub(super) fn describe() {}

/// Says where the MCP endpoint is.
#[utoipa::path(
    get, path = "/.well-known/mcp/mcp.json", operation_id = "get_mcp_discovery", tag = "mcp", security(()),
    responses((status = 200, description = "Endpoint, authentication, capabilities", body = Object)),
)]
pub(super) fn discovery() {}

/// Says what the MCP server is for and what it can do.
#[utoipa::path(
    get, path = "/.well-known/mcp/server-card.json", operation_id = "get_mcp_server_card", tag = "mcp", security(()),
    responses((status = 200, description = "Tools, prompts, configuration", body = Object)),
)]
pub(super) fn card() {}
