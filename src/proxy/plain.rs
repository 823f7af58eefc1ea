//! Upstreams that know two methods of JSON-RPC and nothing of MCP around them: `tools/list` and `tools/call`, one POST each.
//!
//! They are what the product of old talked to, so they go on working.

use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use rmcp::model::{CallToolRequestParams, CallToolResult, ContentBlock, ErrorData, Tool};
use serde_json::{Map, Value, json};

use super::failure::CallError;
use super::http::unread;
use crate::outbound::client::Client;

/// One such upstream.
pub(super) struct Plain {
    client: Client,
    url: String,
    headers: HeaderMap,
    len_max: usize,
    next_id: AtomicU64,
}

impl Plain {
    pub(super) fn new(client: Client, url: String, mut headers: HeaderMap, len_max: usize) -> Self {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { client, url, headers, len_max, next_id: AtomicU64::new(1) }
    }

    /// Its tools. They may lack a schema.
    pub(super) async fn tools(&self) -> Result<Vec<Tool>, CallError> {
        let result = self.ask("tools/list", json!({})).await?;
        let Some(Value::Array(tools)) =
            result.and_then(|mut result| result.get_mut("tools").map(Value::take))
        else {
            return Err(malformed("there is no list of tools in it"));
        };
        let read = |mut tool: Value| {
            if let Some(tool) = tool.as_object_mut() {
                tool.entry("inputSchema").or_insert_with(|| json!({"type": "object"}));
            }
            serde_json::from_value(tool).map_err(|_| malformed("it lists something that is no tool"))
        };
        tools.into_iter().map(read).collect()
    }

    /// Calls a tool.
    pub(super) async fn call(&self, params: &CallToolRequestParams) -> Result<CallToolResult, CallError> {
        let arguments = params.arguments.clone().unwrap_or_default();
        let params = json!({"name": params.name, "arguments": arguments});
        Ok(match self.ask("tools/call", params).await? {
            None => CallToolResult::success(vec![ContentBlock::text("Empty response")]),
            // Whatever it is, it is what the tool says.
            Some(result) => serde_json::from_value(result.clone())
                .unwrap_or_else(|_| CallToolResult::success(vec![ContentBlock::text(result.to_string())])),
        })
    }

    /// The result of a method; none when the upstream answers without one.
    async fn ask(&self, method: &str, params: Value) -> Result<Option<Value>, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let body = request.to_string().into_bytes();
        let sent = self.client.exchange(Method::POST, &self.url, self.headers.clone(), Some(body)).await;
        let exchange = sent.map_err(super::http::unanswered)?;
        let status = exchange.status();
        let body = exchange.body(self.len_max).await.map_err(unread)?;
        let is_success = (200..300).contains(&status);
        let mut answer: Map<String, Value> = match serde_json::from_slice(&body) {
            Ok(answer) => answer,
            Err(_) if !is_success => return Err(CallError::Status(status)),
            Err(_) => return Err(malformed("it is no message of the protocol")),
        };
        if let Some(error) = answer.remove("error").filter(|error| !error.is_null()) {
            let error = serde_json::from_value::<ErrorData>(error);
            return Err(error.map_or_else(|_| malformed("its error has no code"), CallError::refused));
        }
        let answers_another = answer.get("id").is_some_and(|other| !other.is_null() && *other != json!(id));
        match answer.remove("result") {
            _ if !is_success => Err(CallError::Status(status)),
            _ if answers_another => Err(malformed("it answers another request")),
            result => Ok(result.filter(|result| !result.is_null())),
        }
    }
}

fn malformed(why: &str) -> CallError {
    CallError::Malformed(why.to_owned())
}
