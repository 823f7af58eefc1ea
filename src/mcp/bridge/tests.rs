//! Does the bridge carry both generations of the protocol, and turn away what is not for the SDK?

use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App as Service, rt};
use http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};

use super::*;
use crate::domain::id::RequestId;
use crate::domain::scope::KeyScopes;
use crate::mcp::message::WrittenArguments;

/// Says what it was called with, and by whom.
struct Echo;

impl ServerHandler for Echo {
    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let parts = context.extensions.get::<Parts>().unwrap();
        let arguments = parts.extensions.get::<WrittenArguments>().map(|it| it.0.get().to_owned());
        let caller = parts.extensions.get::<Caller>().map(|caller| caller.tenant.to_string());
        let saw_key = parts.headers.contains_key("authorization") || parts.headers.contains_key("x-api-key");
        let seen = json!({ "arguments": arguments, "caller": caller, "saw_key": saw_key });
        Ok(CallToolResult::success(vec![ContentBlock::text(seen.to_string())]).into())
    }

    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

fn caller(tenant: &str) -> Caller {
    Caller {
        tenant: TenantId::parse(tenant).unwrap(),
        prefix: KeyPrefix::parse("hld_01234567").unwrap(),
        scopes: KeyScopes::all(),
        request_id: RequestId::issue([0; 16]),
    }
}

struct Answer {
    status: u16,
    session: Option<String>,
    body: String,
}

impl Answer {
    /// The message, from a body or from the stream's one event with data.
    fn message(&self) -> Value {
        let events = self.body.lines().filter_map(|line| line.strip_prefix("data:"));
        let data = events.map(str::trim).find(|data| !data.is_empty()).unwrap_or(&self.body);
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// What [`Echo`] has seen.
    fn seen(&self) -> Value {
        let message = self.message();
        let text = message["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{message}"));
        serde_json::from_str(text).unwrap()
    }
}

/// Sends a request of this tenant's to the endpoint.
async fn send(endpoint: &Arc<Endpoint<Echo>>, tenant: &'static str, request: TestRequest) -> Answer {
    let endpoint = Arc::clone(endpoint);
    let handler = move |request: HttpRequest, payload: web::Payload| {
        let endpoint = Arc::clone(&endpoint);
        async move { endpoint.handle(&request, payload, Some(caller(tenant))).await }
    };
    let service = init_service(Service::new().route("/mcp", web::to(handler))).await;
    let answer = call_service(&service, request.uri("/mcp").to_request()).await;
    let status = answer.status().as_u16();
    let session = answer.headers().get(SESSION_ID).map(|id| id.to_str().unwrap().to_owned());
    let body = String::from_utf8(read_body(answer).await.to_vec()).unwrap();
    Answer { status, session, body }
}

fn post(body: impl Into<String>) -> TestRequest {
    TestRequest::post()
        .insert_header((HOST, "localhost:8000"))
        .insert_header((ACCEPT, BOTH_TYPES))
        .insert_header((AUTHORIZATION, "Bearer hld_secret"))
        .insert_header(("content-type", "application/json"))
        .set_payload(body.into())
}

fn endpoint(mode: Mode) -> Arc<Endpoint<Echo>> {
    Arc::new(Endpoint::new(|| Echo, Access::loopback(), mode))
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;
const CALL: &str =
    r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"amount":0.10}}}"#;
const MODERN_CALL: &str = r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"echo","arguments":{"amount":0.10},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"test","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;

fn modern() -> TestRequest {
    post(MODERN_CALL)
        .insert_header(("mcp-protocol-version", "2026-07-28"))
        .insert_header(("mcp-method", "tools/call"))
        .insert_header(("mcp-name", "echo"))
}

fn run<T>(test: impl Future<Output = T>) -> T {
    rt::System::new().block_on(test)
}

#[test]
fn handlers_learn_the_caller_and_the_written_arguments_but_not_the_key() {
    run(async {
        for mode in [Mode::Stateless, Mode::Sessions] {
            let endpoint = endpoint(mode);
            let opened = send(&endpoint, "acme", post(INITIALIZE)).await;
            assert_eq!(opened.message()["result"]["protocolVersion"], "2025-06-18");
            assert_eq!(opened.session.is_some(), mode == Mode::Sessions);
            let mut call = post(CALL);
            if let Some(session) = &opened.session {
                call = call.insert_header((SESSION_ID, session.as_str()));
            }
            let expected = json!({ "arguments": r#"{"amount":0.10}"#, "caller": "acme", "saw_key": false });
            assert_eq!(send(&endpoint, "acme", call).await.seen(), expected);
            assert_eq!(send(&endpoint, "acme", modern()).await.seen(), expected);
        }
    });
}

#[test]
fn a_session_of_somebody_else_does_not_exist() {
    run(async {
        let endpoint = endpoint(Mode::Sessions);
        let session = send(&endpoint, "acme", post(INITIALIZE)).await.session.unwrap();
        let call = || post(CALL).insert_header((SESSION_ID, session.as_str()));
        assert_eq!(send(&endpoint, "mallory", call()).await.status, 404);
        assert_eq!(send(&endpoint, "acme", call()).await.status, 200);
        let end = TestRequest::delete()
            .insert_header((HOST, "localhost"))
            .insert_header((SESSION_ID, session.as_str()));
        assert_eq!(send(&endpoint, "acme", end).await.status, 202);
        assert_eq!(send(&endpoint, "acme", call()).await.status, 404);
    });
}

#[test]
fn what_is_not_for_the_sdk_is_turned_away() {
    run(async {
        let endpoint = endpoint(Mode::Stateless);
        for (request, status) in [
            (post("{"), 400),
            (post(format!("[{CALL}]")), 400),
            (post("x".repeat(BODY_LEN_MAX + 1)), 413),
            (post(CALL).insert_header((HOST, "evil.example.com")), 403),
            (post(CALL).insert_header((HOST, "192.168.1.5")), 403),
            (post(CALL).insert_header(("origin", "https://evil.example.com")), 403),
            (post(CALL).insert_header(("origin", "http://localhost:6274")), 200),
            (post(CALL).insert_header((ACCEPT, "text/html")), 406),
            (post(CALL).insert_header((ACCEPT, "application/json")), 200),
            (post(CALL).insert_header((ACCEPT, "*/*")), 200),
            (post(CALL).insert_header(("content-type", "text/plain")), 415),
            (post(CALL).insert_header(("mcp-protocol-version", "1999-01-01")), 400),
            (
                TestRequest::get()
                    .insert_header((HOST, "localhost"))
                    .insert_header((ACCEPT, "text/event-stream")),
                405,
            ),
        ] {
            let answer = send(&endpoint, "acme", request).await;
            assert_eq!(answer.status, status, "{}", answer.body);
        }
        let everywhere = Access::new("0.0.0.0:8000".parse().unwrap(), None, &[]);
        let endpoint = Arc::new(Endpoint::new(|| Echo, everywhere, Mode::Stateless));
        let by_address = post(CALL).insert_header((HOST, "192.168.1.5:8000"));
        assert_eq!(send(&endpoint, "acme", by_address).await.status, 200);
    });
}
