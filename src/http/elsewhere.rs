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

/// Answers one JSON-RPC message of a client of the proxy: all upstreams of the tenant as one server.
#[utoipa::path(
    post, path = "/mcp/proxy", operation_id = "post_mcp_proxy", tag = "mcp", request_body = Object,
    params(("session_id" = Option<String>, Query, description = "The session, where the header `X-Session-ID` cannot be set")),
    responses(
        (status = 200, description = "The JSON-RPC response, or a stream that ends with it", body = Object),
        (status = 202, description = "A notification was taken"),
    ),
)]
pub(super) fn proxy() {}

/// Streams what a client of the proxy is told and asked beside its own requests, in the protocol's older generation.
#[utoipa::path(
    get, path = "/mcp/proxy", operation_id = "get_mcp_proxy", tag = "mcp",
    params(("session_id" = Option<String>, Query, description = "The session, where the header `X-Session-ID` cannot be set")),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream")),
)]
pub(super) fn proxy_stream() {}

/// Ends a client's connection, in the protocol's older generation.
#[utoipa::path(
    delete, path = "/mcp/proxy", operation_id = "delete_mcp_proxy", tag = "mcp",
    params(("session_id" = Option<String>, Query, description = "The session, where the header `X-Session-ID` cannot be set")),
    responses((status = 202, description = "Ended")),
)]
pub(super) fn proxy_end() {}

/// Answers one JSON-RPC message of a client of the proxy: one upstream, as if it were asked itself.
#[utoipa::path(
    post, path = "/mcp/proxy/{upstream}", operation_id = "post_mcp_proxy_upstream", tag = "mcp", request_body = Object,
    params(
        ("upstream" = String, Path, description = "The upstream"),
        ("session_id" = Option<String>, Query, description = "The session, where the header `X-Session-ID` cannot be set"),
    ),
    responses(
        (status = 200, description = "The JSON-RPC response, or a stream that ends with it", body = Object),
        (status = 202, description = "A notification was taken"),
    ),
)]
pub(super) fn proxy_upstream() {}

/// Streams what a client of the proxy is told and asked beside its own requests, in the protocol's older generation.
#[utoipa::path(
    get, path = "/mcp/proxy/{upstream}", operation_id = "get_mcp_proxy_upstream", tag = "mcp",
    params(
        ("upstream" = String, Path, description = "The upstream"),
        ("session_id" = Option<String>, Query, description = "The session, where the header `X-Session-ID` cannot be set"),
    ),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream")),
)]
pub(super) fn proxy_upstream_stream() {}

/// Ends a client's connection, in the protocol's older generation.
#[utoipa::path(
    delete, path = "/mcp/proxy/{upstream}", operation_id = "delete_mcp_proxy_upstream", tag = "mcp",
    params(
        ("upstream" = String, Path, description = "The upstream"),
        ("session_id" = Option<String>, Query, description = "The session, where the header `X-Session-ID` cannot be set"),
    ),
    responses((status = 202, description = "Ended")),
)]
pub(super) fn proxy_upstream_end() {}
