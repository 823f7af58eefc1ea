//! The server that clients talk to: tools, resources and prompts, over whichever way they come.

use std::sync::Arc;

use http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, ErrorCode, Extensions,
    GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::arguments::Arguments;
use super::catalogue::{Face, catalogue};
use super::message::WrittenArguments;
use super::rest::Backend;
use super::{prompts, resources, results};
use crate::operations::Caller;

/// What the server is called.
pub const NAME: &str = "haldir";
/// What it is, in a line.
pub const DESCRIPTION: &str = "Governance for AI agents: sessions with scopes and budgets, secrets, approvals, and an audit \
                               trail that anyone can verify.";
/// What a model should know before it calls tools.
pub const INSTRUCTIONS: &str = "Haldir governs what agents do. Open a session with haldir_create_session and keep its \
    session_id: every other call of yours is made in it. Before acting, ask haldir_check_permission; before paying, \
    haldir_authorize_payment, and do not pay when `authorized` is false. When an approval is needed, ask with \
    haldir_request_approval and wait with haldir_get_approval_status. Read secrets with haldir_get_secret when they are needed, and \
    do not repeat them. After acting, put it on record with haldir_log_audit_action. End the session with haldir_revoke_session.";
/// Methods of requests that the server answers. One of them that the SDK could not read has wrong params.
const METHODS: [&str; 11] = [
    "initialize",
    "server/discover",
    "ping",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "completion/complete",
];

/// Methods that the stateless generation does not have.
const OLDER_METHODS: [&str; 5] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

/// The server of one client, or of one request.
#[derive(Debug)]
pub struct Server<B> {
    backend: Arc<B>,
    face: Face,
}

impl<B> Server<B> {
    /// A server that asks this REST edge.
    #[must_use]
    pub fn new(backend: Arc<B>, face: Face) -> Self {
        Self { backend, face }
    }
}

/// What the server says of itself.
#[must_use]
pub fn config() -> ServerConfig {
    let capabilities =
        ServerCapabilities::builder().enable_tools().enable_prompts().enable_resources().build();
    let about = Implementation::new(NAME, env!("CARGO_PKG_VERSION"))
        .with_title("Haldir")
        .with_description(DESCRIPTION);
    ServerConfig::new(capabilities).with_server_info(about).with_instructions(INSTRUCTIONS)
}

/// Who the request came from, if it came with a key.
fn caller_in(extensions: &Extensions) -> Option<Caller> {
    extensions.get::<Parts>()?.extensions.get::<Caller>().cloned()
}

impl<B: Backend> ServerHandler for Server<B> {
    fn get_info(&self) -> ServerConfig {
        config()
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = catalogue().tools().iter().map(|tool| tool.listed(self.face).clone());
        Ok(ListToolsResult::with_all_items(tools.collect()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        catalogue().find(name).map(|tool| tool.listed(self.face).clone())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = catalogue().find(&request.name) else {
            return Ok(results::unknown_tool(&request.name, self.face).into());
        };
        let written =
            context.extensions.get::<Parts>().and_then(|it| it.extensions.get::<WrittenArguments>());
        let to_ask = match Arguments::new(written, request.arguments).request(tool, self.face) {
            Ok(to_ask) => to_ask,
            Err(why) => return Ok(results::invalid(&why).into()),
        };
        let result = match self.backend.ask(to_ask, caller_in(&context.extensions)).await {
            Ok(answer) => results::answered(&answer, self.face),
            Err(failure) => results::failed(&failure, &request.name, self.face),
        };
        Ok(result.into())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::listed()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        Ok(prompts::filled(&request.name, request.arguments.as_ref())?.into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::listed()))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let caller = caller_in(&context.extensions);
        Ok(resources::read(&*self.backend, &request.uri, caller).await?.into())
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        Err(unreadable(&request, &context, &METHODS))
    }
}

/// What is wrong with a request that the SDK could not read: it has wrong params, if it is for one of these methods, or else its
/// method is unknown.
pub(super) fn unreadable(
    request: &CustomRequest,
    context: &RequestContext<RoleServer>,
    methods: &[&str],
) -> ErrorData {
    let method = request.method.as_str();
    let version = context.meta.protocol_version();
    let is_stateless = version.is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
    if methods.contains(&method) && !(is_stateless && OLDER_METHODS.contains(&method)) {
        return ErrorData::invalid_params(format!("wrong params for {method}"), None);
    }
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method.to_owned(), None)
}
