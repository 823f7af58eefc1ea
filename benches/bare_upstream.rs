//! An MCP server that does next to nothing: what `tools/proxy_latency` calls directly and through Haldir's proxy.
//!
//! It speaks Streamable HTTP at `/mcp` and has one tool, `echo`, which answers with the text that it was given. A benchmark
//! by name only: it serves until it is stopped.

use std::sync::Arc;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use haldir::http::error::ApiError;
use haldir::mcp::access::Access;
use haldir::mcp::bridge::{Endpoint, Mode};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

struct Echo;

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({ "type": "object", "properties": { "text": { "type": "string" } } });
        let tool = json!({ "name": "echo", "description": "Answers with its text", "inputSchema": schema });
        let tool: Tool = serde_json::from_value(tool).expect("a tool as the protocol has it");
        Ok(ListToolsResult::with_all_items(vec![tool]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = request.arguments.as_ref().and_then(|arguments| arguments.get("text"));
        let text = text.and_then(Value::as_str).unwrap_or_default();
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--port").skip(1);
    let Some(port) = arguments.next().and_then(|port| port.parse().ok()) else {
        anstream::println!("usage: cargo bench --bench bare_upstream -- --port PORT");
        return Ok(());
    };
    rt::System::new().block_on(serve(port))
}

async fn serve(port: u16) -> std::io::Result<()> {
    let endpoint = web::Data::new(Endpoint::new(|| Echo, Access::loopback(), Mode::Stateless));
    let app = move || App::new().app_data(endpoint.clone()).route("/mcp", web::to(handle));
    let server = HttpServer::new(app).bind(("127.0.0.1", port))?;
    for address in server.addrs() {
        anstream::println!("upstream on http://{address}");
    }
    server.run().await
}

async fn handle(
    endpoint: web::Data<Endpoint<Echo>>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    Arc::clone(&endpoint).handle(&request, payload, None).await
}
