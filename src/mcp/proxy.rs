//! The proxy as clients of the protocol see it: `/mcp/proxy`, where all upstreams of the tenant are one server, and
//! `/mcp/proxy/{upstream}`, which is as if it were that upstream.
//!
//! A client shows which session it works in with each request (`visit`). It sees what that session may call (`lists`), and
//! whatever it calls passes the session's scopes, policies, budgets and approvals, and is on record before it is forwarded
//! (`call`, `approval`, `run`). What an upstream asks or tells meanwhile finds its way back to the client (`outlet`), in whichever
//! generation of the protocol each of them speaks: a client of the newer one is asked with the answer to its request, and the call
//! is held until it comes again (`held`).

#![expect(deprecated, reason = "what the newer generation does without is spoken, too")]

mod approval;
mod asked;
mod call;
mod client;
mod held;
mod lists;
mod names;
mod news;
mod outlet;
mod reach;
mod run;
mod tasks;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CancelTaskRequest, ClientRequest,
    CompleteRequestParams, CompleteResult, CustomRequest, CustomResult, DiscoverResult, ErrorCode, ErrorData,
    GetPromptRequestParams, GetPromptResponse, GetSkillRequest, GetSkillRequestParams, GetSkillResult,
    GetTaskParams, GetTaskRequest, GetTaskResult, Implementation, InitializeRequestParams, InitializeResult,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListSkillsRequest, ListSkillsResult,
    ListToolsResult, PaginatedRequestParams, ReadResourceDirectoryRequest,
    ReadResourceDirectoryRequestParams, ReadResourceDirectoryResult, ReadResourceRequestParams,
    ReadResourceResponse, ServerCapabilities, ServerConfig, ServerResult, SetLevelRequest,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
    UpdateTaskParams, UpdateTaskRequest,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::access::Access;
use super::bridge::{Endpoint, Mode};
use super::server::unreadable;
use crate::domain::id::TenantId;
use crate::domain::upstreams::UpstreamName;
use crate::http::caller::{Authorized, ProxyWrite};
use crate::http::error::ApiError;
use crate::operations::{App, catalogue};
use crate::proxy::connection::Connection;

use asked::{Asked, Brought};
use call::{Call, Reply};
use client::Client;
use held::HeldCalls;
use reach::{reach, unreached};
use tasks::Tasks;
use visit::{Visit, internal};

/// Where all upstreams are one server.
pub const PATH: &str = "/mcp/proxy";
/// Methods of requests that are answered.
const METHODS: [&str; 21] = [
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
    "resources/subscribe",
    "resources/unsubscribe",
    "resources/directory/read",
    "subscriptions/listen",
    "completion/complete",
    "logging/setLevel",
    "skills/list",
    "skills/get",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
];
/// What a model should know before it calls tools of all upstreams.
const INSTRUCTIONS: &str = "The tools of several MCP servers, behind Haldir, which decides about every call and records it. A call that \
    is not allowed answers with an error that says why and names Haldir as the one who blocked it: do not try to get around it. One \
    that needs an approval waits for a human, or says so: call again when it was approved.";

/// The endpoint, which all threads that serve connections share.
pub type ProxyEndpoint = Endpoint<ProxyServer>;

/// The proxy at its paths.
#[derive(Clone)]
pub struct Proxy {
    /// Where clients reach it.
    pub endpoint: Arc<ProxyEndpoint>,
    held: Arc<HeldCalls>,
}

impl Proxy {
    /// Makes it.
    #[must_use]
    pub fn new(app: &Arc<App>, access: Access) -> Self {
        let (app, held) = (Arc::clone(app), Arc::new(HeldCalls::default()));
        let (calls, tasks) = (Arc::clone(&held), Arc::new(Tasks::default()));
        let server = move || ProxyServer {
            client: Arc::new(Client::new(&app)),
            app: Arc::clone(&app),
            held: Arc::clone(&calls),
            tasks: Arc::clone(&tasks),
            entered: ENTERING.try_with(Clone::clone).ok(),
        };
        Self { endpoint: Arc::new(Endpoint::new(server, access, Mode::Sessions)), held }
    }

    /// Ends calls that wait for their clients, so that they are on record before the server is gone.
    pub async fn end(&self, within: Duration) {
        self.held.end(within).await;
    }
}

/// Answers a client whose key may use the proxy.
pub(super) async fn serve(
    endpoint: web::Data<ProxyEndpoint>,
    caller: Authorized<ProxyWrite>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.to_owned();
    let only = request.match_info().get("upstream").and_then(UpstreamName::parse);
    let entering = Entrance { tenant: caller.tenant.clone(), only };
    ENTERING.scope(entering, endpoint.handle(&request, payload, Some(caller))).await
}

/// Where a request enters. The SDK wants to know of tools before it says whose request it has.
#[derive(Clone)]
struct Entrance {
    tenant: TenantId,
    only: Option<UpstreamName>,
}

tokio::task_local! {
    static ENTERING: Entrance;
}

/// The server that one client has, or one request of a client of the newer generation.
pub struct ProxyServer {
    app: Arc<App>,
    held: Arc<HeldCalls>,
    tasks: Arc<Tasks>,
    client: Arc<Client>,
    entered: Option<Entrance>,
}

impl ProxyServer {
    fn visit(&self, context: &RequestContext<RoleServer>) -> Result<Visit, ErrorData> {
        Visit::read(&self.app, context)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        (asked, brought): (Asked, Brought),
        context: &RequestContext<RoleServer>,
    ) -> Result<Answer<T>, ErrorData> {
        let visit = self.visit(context)?;
        let own = |upstream: &UpstreamName| self.client.own(&visit, upstream);
        let (held, tasks) = (&self.held, &self.tasks);
        let call = Call { visit: &visit, held, tasks, level: self.client.level(), own: &own };
        match call.make(asked, brought, context).await? {
            Reply::Wants(wants) => Ok(Answer::Wants(wants)),
            Reply::Result(mut result) => {
                // Upstreams of the older generation do not say it.
                if let Some(fields) = result.as_object_mut() {
                    fields.entry("resultType").or_insert_with(|| Value::from("complete"));
                }
                read(result).map(Answer::Result)
            }
        }
    }

    /// What this client finds: of one upstream, or of all.
    async fn described(&self, visit: &Visit, capabilities: rmcp::model::ClientCapabilities) -> ServerConfig {
        let Some(only) = &visit.only else {
            let capabilities = ServerCapabilities::builder()
                .enable_tools()
                .enable_tool_list_changed()
                .enable_prompts()
                .enable_prompts_list_changed()
                .enable_resources()
                .enable_resources_list_changed()
                .enable_resources_subscribe()
                .enable_completions()
                .enable_logging();
            return ServerConfig::new(capabilities.build())
                .with_server_info(about())
                .with_instructions(INSTRUCTIONS);
        };
        let own = |upstream: &UpstreamName| self.client.own_as(visit, capabilities.clone(), upstream);
        if let Ok(connection) = reach(visit, only, &own).await {
            return described_as(&connection);
        }
        // It may be back when something is called.
        let capabilities = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
        ServerConfig::new(capabilities.build()).with_server_info(about())
    }

    /// Asks the one upstream that the client speaks to.
    async fn ask_only(
        &self,
        request: ClientRequest,
        context: &RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        let visit = self.visit(context)?;
        let method = request.method().to_owned();
        let unknown = || ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method, None);
        let only = visit.only.clone().ok_or_else(unknown)?;
        let own = |upstream: &UpstreamName| self.client.own(&visit, upstream);
        let connection = reach(&visit, &only, &own).await?;
        connection.ask(request, visit.talk()).await.map_err(|error| unreached(&error))
    }
}

fn about() -> Implementation {
    Implementation::new("haldir-proxy", env!("CARGO_PKG_VERSION")).with_title("Haldir Proxy")
}

/// An upstream as clients find it behind the proxy: as it is, and its tools are watched.
fn described_as(connection: &Connection) -> ServerConfig {
    let mut capabilities = connection.capabilities();
    if let Some(tools) = &mut capabilities.tools {
        tools.list_changed = Some(true);
    }
    let about = connection.implementation().unwrap_or_else(about);
    let mut described = ServerConfig::new(capabilities).with_server_info(about);
    described.instructions = connection.instructions();
    described
}

/// An answer that is read.
enum Answer<T> {
    Result(T),
    Wants(Box<rmcp::model::InputRequiredResult>),
}

fn read<T: DeserializeOwned>(result: Value) -> Result<T, ErrorData> {
    serde_json::from_value(result).map_err(|_| internal("the upstream's result cannot be read"))
}

impl ServerHandler for ProxyServer {
    /// Everything that any upstream may be able to do: what a client finds is told when it asks.
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_completions()
            .enable_tasks()
            .enable_skills_with_directory_read();
        ServerConfig::new(capabilities.build()).with_server_info(about())
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        let visit = self.visit(&context)?;
        visit.live_session()?;
        let mut described = self.described(&visit, request.capabilities.clone()).await;
        described.protocol_version = self.negotiate_initialize(&request)?.protocol_version;
        tokio::spawn(news::tell_of_tools(visit, self.client.alive()));
        Ok(described)
    }

    async fn discover(&self, context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let visit = self.visit(&context)?;
        visit.live_session()?;
        let described = self.described(&visit, visit.capabilities.clone()).await;
        let versions = self.supported_protocol_versions().into_owned();
        Ok(DiscoverResult::from_server_info(versions, described))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(lists::tools(&self.visit(&context)?).await?))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let Entrance { tenant, only } = self.entered.as_ref()?;
        let definition = catalogue::pinned(&self.app, tenant, only.as_ref(), name)?;
        serde_json::from_value(definition).ok()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match self.call::<Value>(Asked::tool(request), &context).await? {
            Answer::Wants(wants) => Ok(CallToolResponse::InputRequired(*wants)),
            Answer::Result(result) if result["resultType"] == "task" => {
                read(result).map(CallToolResponse::Task)
            }
            Answer::Result(result) => read(result).map(CallToolResponse::Complete),
        }
    }

    async fn list_prompts(
        &self,
        page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let visit = self.visit(&context)?;
        lists::prompts(&visit, page, &|upstream| self.client.own(&visit, upstream)).await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        Ok(match self.call(Asked::prompt(request), &context).await? {
            Answer::Wants(wants) => GetPromptResponse::InputRequired(*wants),
            Answer::Result(result) => GetPromptResponse::Complete(result),
        })
    }

    async fn list_resources(
        &self,
        page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let visit = self.visit(&context)?;
        lists::resources(&visit, page, &|upstream| self.client.own(&visit, upstream)).await
    }

    async fn list_resource_templates(
        &self,
        page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let visit = self.visit(&context)?;
        lists::templates(&visit, page, &|upstream| self.client.own(&visit, upstream)).await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        Ok(match self.call(Asked::resource(request), &context).await? {
            Answer::Wants(wants) => ReadResourceResponse::InputRequired(*wants),
            Answer::Result(result) => ReadResourceResponse::Complete(result),
        })
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let visit = self.visit(&context)?;
        lists::complete(&visit, request, &|upstream| self.client.own(&visit, upstream)).await
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let visit = self.visit(&context)?;
        let (upstream, uri) = news::may_subscribe(&visit, &request.uri)?;
        let connection = reach(&visit, &upstream, &|upstream| self.client.own(&visit, upstream)).await?;
        connection.subscribe(uri).await.map_err(|error| unreached(&error))
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let visit = self.visit(&context)?;
        let unknown = || ErrorData::resource_not_found("there is no such resource", None);
        let (upstream, uri) = lists::whose_resource(&visit, &request.uri).ok_or_else(unknown)?;
        let connection = reach(&visit, &upstream, &|upstream| self.client.own(&visit, upstream)).await?;
        connection.unsubscribe(uri).await.map_err(|error| unreached(&error))
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let visit = self.visit(context.request_context())?;
        news::tell(&visit, &context).await
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.client.set_level(request.level);
        let visit = self.visit(&context)?;
        if visit.only.is_some() {
            let request = ClientRequest::SetLevelRequest(SetLevelRequest::new(request));
            self.ask_only(request, &context).await?;
        }
        Ok(())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let secrets = self.tasks.secrets_of(&self.visit(&context)?, &request.task_id)?;
        let request = ClientRequest::GetTaskRequest(GetTaskRequest::new(request));
        match self.ask_only(request, &context).await? {
            ServerResult::GetTaskResult(result) => {
                let unreadable = |_| internal("the upstream's task cannot be read");
                let mut result = serde_json::to_value(result).map_err(unreadable)?;
                secrets.hide_all(&mut result);
                serde_json::from_value(result).map_err(unreadable)
            }
            _ => Err(internal("the upstream answers something else")),
        }
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.tasks.secrets_of(&self.visit(&context)?, &request.task_id)?;
        let request = ClientRequest::UpdateTaskRequest(UpdateTaskRequest::new(request));
        self.ask_only(request, &context).await.map(|_| ())
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.tasks.secrets_of(&self.visit(&context)?, &request.task_id)?;
        let request = ClientRequest::CancelTaskRequest(CancelTaskRequest::new(request));
        self.ask_only(request, &context).await.map(|_| ())
    }

    async fn list_skills(
        &self,
        page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListSkillsResult, ErrorData> {
        let request = ListSkillsRequest { params: page, ..ListSkillsRequest::default() };
        match self.ask_only(ClientRequest::ListSkillsRequest(request), &context).await? {
            ServerResult::ListSkillsResult(mut list) => {
                let visit = self.visit(&context)?;
                list.skills.retain(|skill| lists::may_see_resource(&visit, &skill.uri));
                Ok(list)
            }
            _ => Err(internal("the upstream answers something else")),
        }
    }

    async fn get_skill(
        &self,
        request: GetSkillRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetSkillResult, ErrorData> {
        news::may_subscribe(&self.visit(&context)?, &request.uri)?;
        let request = ClientRequest::GetSkillRequest(GetSkillRequest::new(request));
        match self.ask_only(request, &context).await? {
            ServerResult::GetSkillResult(result) => Ok(result),
            _ => Err(internal("the upstream answers something else")),
        }
    }

    async fn read_resource_directory(
        &self,
        request: ReadResourceDirectoryRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceDirectoryResult, ErrorData> {
        news::may_subscribe(&self.visit(&context)?, &request.uri)?;
        let request = ClientRequest::ReadResourceDirectoryRequest(ReadResourceDirectoryRequest::new(request));
        match self.ask_only(request, &context).await? {
            ServerResult::ListResourcesResult(result) => Ok(result),
            _ => Err(internal("the upstream answers something else")),
        }
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        Err(unreadable(&request, &context, &METHODS))
    }

    async fn on_roots_list_changed(&self, context: NotificationContext<RoleServer>) {
        let _ = context;
        self.client.roots_changed().await;
    }
}
