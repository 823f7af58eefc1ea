//! A well-behaved upstream, made with the SDK.

#![expect(deprecated, reason = "what the newer generation does without is spoken, too")]

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpServer, rt, web};
use haldir::mcp::access::Access;
use haldir::mcp::bridge::{Endpoint, Mode};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequest,
    ElicitRequestParams, GetPromptRequestParams, GetPromptResponse, GetPromptResult, InputRequest,
    InputRequiredResult, ListPromptsResult, ListResourcesResult, ListToolsResult, LoggingLevel,
    LoggingMessageNotificationParam, PaginatedRequestParams, ProgressNotificationParam, Prompt,
    PromptMessage, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    Resource, ResourceContents, ResourceUpdatedNotificationParam, Role, ServerCapabilities, ServerConfig,
    SubscribeRequestParams, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, json};

/// What the upstream has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicUsize,
    pub(crate) was_cancelled: AtomicBool,
}

#[derive(Clone)]
struct Tools {
    seen: Arc<Seen>,
    newest: ProtocolVersion,
    /// Whether somebody subscribed.
    tells: Arc<AtomicBool>,
}

const NAMES: [&str; 8] = ["echo", "steps", "wait", "ask", "large", "refuse", "header", "log"];

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_logging()
            .enable_prompts()
            .enable_resources()
            .enable_resources_subscribe();
        let capabilities = capabilities.build();
        ServerConfig::new(capabilities).with_instructions("Be kind.")
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::known_up_to(&self.newest))
    }

    /// Two tools on a page.
    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let start: usize = page.and_then(|page| page.cursor).map_or(0, |cursor| cursor.parse().unwrap());
        let tool = |name: &&'static str| Tool::new(*name, "A tool", Arc::new(Map::new()));
        let tools = NAMES.iter().skip(start).take(2).map(tool).collect();
        let mut list = ListToolsResult::with_all_items(tools);
        list.next_cursor = (start + 2 < NAMES.len()).then(|| (start + 2).to_string());
        Ok(list)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(vec![Resource::new("test://one", "one")]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        if self.tells.load(Ordering::SeqCst) {
            let updated = ResourceUpdatedNotificationParam::new(request.uri.clone());
            context.peer.notify_resource_updated(updated).await.unwrap();
        }
        let contents = ResourceContents::text(format!("contents of {}", request.uri), request.uri);
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn subscribe(
        &self,
        _: SubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.tells.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(vec![Prompt::new("greet", Some("Greets"), None)]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let text = format!("{} {}", request.name, json!(request.arguments));
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).into())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = match &*request.name {
            "echo" => json!(request.arguments).to_string(),
            "steps" => {
                let token = context.meta.get_progress_token().unwrap();
                for step in 1..=3 {
                    let progress = ProgressNotificationParam::new(token.clone(), f64::from(step));
                    context.peer.notify_progress(progress).await.unwrap();
                }
                "done".to_owned()
            }
            "wait" => {
                tokio::select! {
                    () = context.ct.cancelled() => self.seen.was_cancelled.store(true, Ordering::SeqCst),
                    () = tokio::time::sleep(Duration::from_secs(30)) => {}
                }
                "waited".to_owned()
            }
            "ask" => {
                let schema = serde_json::from_value(json!({
                    "type": "object",
                    "properties": {"color": {"type": "string"}},
                }));
                let form = ElicitRequestParams::FormElicitationParams {
                    meta: None,
                    message: "Which color?".to_owned(),
                    requested_schema: schema.unwrap(),
                };
                if context.protocol_version().is_some_and(|it| it >= ProtocolVersion::V_2026_07_28) {
                    match request.input_responses.and_then(|mut answers| answers.remove("color")) {
                        Some(answer) => answer["content"].to_string(),
                        None => return Ok(asked(form).into()),
                    }
                } else {
                    match context.peer.create_elicitation(form).await {
                        Ok(answer) => json!(answer.content).to_string(),
                        Err(error) => error.to_string(),
                    }
                }
            }
            "large" => "x".repeat(2 << 20),
            "header" => {
                let parts = context.extensions.get::<http::request::Parts>().unwrap();
                let value = parts.headers.get("x-secret").map(|value| value.to_str().unwrap());
                value.unwrap_or("none").to_owned()
            }
            "log" => {
                let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!("said"));
                context.peer.notify_logging_message(message).await.unwrap();
                "logged".to_owned()
            }
            _ => {
                return Err(ErrorData::invalid_params("no such thing", Some(json!({"tried": request.name}))));
            }
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

/// What the newer generation answers with, to be asked again.
fn asked(form: ElicitRequestParams) -> InputRequiredResult {
    let request = InputRequest::Elicitation(ElicitRequest::new(form));
    InputRequiredResult::new(Some([("color".to_owned(), request)].into()), Some("state".to_owned()))
}

/// Starts it; it runs as long as the tests do. Its URL, and what it has seen.
pub(crate) fn start(mode: Mode, newest: ProtocolVersion) -> (String, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let tools = Tools { seen: Arc::clone(&seen), newest, tells: Arc::default() };
    let count = Arc::clone(&seen);
    let endpoint = Arc::new(Endpoint::new(move || tools.clone(), Access::loopback(), mode));
    let (sender, ports) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let serve = move || {
            let (endpoint, count) = (Arc::clone(&endpoint), Arc::clone(&count));
            let handler = move |request: HttpRequest, payload: web::Payload| {
                let endpoint = Arc::clone(&endpoint);
                count.requests.fetch_add(1, Ordering::SeqCst);
                async move { endpoint.handle(&request, payload, None).await }
            };
            App::new().route("/mcp", web::to(handler))
        };
        // A client of the newer generation cancels a call by going away.
        let server = HttpServer::new(serve).workers(1).disable_signals().h1_allow_half_closed(false);
        let server = server.bind("127.0.0.1:0").unwrap();
        sender.send(server.addrs()[0].port()).unwrap();
        rt::System::new().block_on(server.run()).unwrap();
    });
    (format!("http://127.0.0.1:{}/mcp", ports.recv().unwrap()), seen)
}
