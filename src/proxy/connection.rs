//! A connection to an upstream, and what can be asked over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResponse, CallToolResult, ClientRequest, Implementation,
    ListPromptsRequest, ListResourceTemplatesRequest, ListResourcesRequest, ListToolsRequest,
    PaginatedRequestParams, Prompt, ProtocolVersion, Resource, ResourceTemplate, ServerCapabilities,
    ServerResult, Tool,
};
use tokio::time::timeout;

use super::address::Digest;
use super::establish::Speech;
use super::failure::CallError;
use super::hub::Hub;
use super::relay::Talk;
use super::settings::{
    DISCOVERY_TIMEOUT, ITEM_COUNT_MAX, PAGE_COUNT_MAX, TOOL_COUNT_MAX, TOOL_LEN_MAX, UpstreamSettings,
};
use super::voice::Patience;

/// A connection to an upstream.
pub struct Connection {
    pub(super) speech: Speech,
    pub(super) digest: Digest,
    /// Those who share it; none if it is one client's alone.
    pub(super) hub: Option<Arc<Hub>>,
    calls: Patience,
    idle_ticks: AtomicU32,
    /// After how many changes the tools were looked at; the first is that the connection was made.
    seen_changes: AtomicU64,
}

const DISCOVERY: Patience = Patience { quiet: DISCOVERY_TIMEOUT, altogether: DISCOVERY_TIMEOUT };

impl Connection {
    pub(super) fn new(
        speech: Speech,
        digest: Digest,
        hub: Option<Arc<Hub>>,
        settings: &UpstreamSettings,
    ) -> Self {
        let calls = Patience {
            quiet: settings.call_timeout,
            altogether: settings.call_timeout_max.max(settings.call_timeout),
        };
        Self { speech, digest, hub, calls, idle_ticks: AtomicU32::new(0), seen_changes: AtomicU64::new(0) }
    }

    /// Whether the tools have to be looked at, because the connection is new or the upstream said that they changed; and then
    /// what [`Connection::saw`] is told when they were.
    #[must_use]
    pub fn news(&self) -> Option<u64> {
        let changes = match &self.speech {
            Speech::Mcp(voice) => voice.ears.tool_change_count() + 1,
            Speech::Plain(_) => 1,
        };
        (changes != self.seen_changes.load(Ordering::Acquire)).then_some(changes)
    }

    /// Takes note that the tools were looked at after these news.
    pub fn saw(&self, news: u64) {
        self.seen_changes.fetch_max(news, Ordering::AcqRel);
    }

    /// What the upstream says it can do. One without MCP has tools.
    #[must_use]
    pub fn capabilities(&self) -> ServerCapabilities {
        match &self.speech {
            Speech::Mcp(voice) => voice.info.capabilities.clone(),
            Speech::Plain(_) => ServerCapabilities::builder().enable_tools().build(),
        }
    }

    /// What the upstream tells those who use it.
    #[must_use]
    pub fn instructions(&self) -> Option<String> {
        match &self.speech {
            Speech::Mcp(voice) => voice.info.instructions.clone(),
            Speech::Plain(_) => None,
        }
    }

    /// What the upstream calls itself.
    #[must_use]
    pub fn implementation(&self) -> Option<Implementation> {
        match &self.speech {
            Speech::Mcp(voice) => voice.info.server_info.clone(),
            Speech::Plain(_) => None,
        }
    }

    /// The version of the protocol that is spoken; none with an upstream that knows nothing of it.
    #[must_use]
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        match &self.speech {
            Speech::Mcp(voice) => Some(voice.info.protocol_version.clone()),
            Speech::Plain(_) => None,
        }
    }

    /// Whether the upstream may be asked without sessions: it then asks back with its answers.
    #[must_use]
    pub fn is_stateless(&self) -> bool {
        matches!(&self.speech, Speech::Mcp(voice) if voice.is_stateless())
    }

    /// All tools of the upstream, as it defines them now.
    ///
    /// # Errors
    ///
    /// [`CallError`]; [`CallError::Malformed`] when there are too many, or one is too large.
    pub async fn tools(&self) -> Result<Vec<Tool>, CallError> {
        self.touch();
        let tools = match &self.speech {
            Speech::Plain(plain) => {
                timeout(DISCOVERY_TIMEOUT, plain.tools()).await.unwrap_or(Err(CallError::TimedOut))?
            }
            Speech::Mcp(_) => {
                self.pages(
                    TOOL_COUNT_MAX,
                    "tools",
                    |page| {
                        let request = ListToolsRequest { params: page, ..ListToolsRequest::default() };
                        ClientRequest::ListToolsRequest(request)
                    },
                    |result| match result {
                        ServerResult::ListToolsResult(list) => Some((list.tools, list.next_cursor)),
                        _ => None,
                    },
                )
                .await?
            }
        };
        if tools.len() > TOOL_COUNT_MAX {
            return Err(too_many("tools", TOOL_COUNT_MAX));
        }
        for tool in &tools {
            let len = serde_json::to_string(tool).map_or(usize::MAX, |text| text.len());
            if len > TOOL_LEN_MAX {
                let name: String = tool.name.chars().take(100).collect();
                let why = format!("the definition of the tool {name} is larger than {TOOL_LEN_MAX} bytes");
                return Err(CallError::Malformed(why));
            }
        }
        Ok(tools)
    }

    /// All prompts of the upstream; none if it has nothing of the kind.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn prompts(&self) -> Result<Vec<Prompt>, CallError> {
        if self.capabilities().prompts.is_none() {
            return Ok(Vec::new());
        }
        self.pages(
            ITEM_COUNT_MAX,
            "prompts",
            |page| {
                let request = ListPromptsRequest { params: page, ..ListPromptsRequest::default() };
                ClientRequest::ListPromptsRequest(request)
            },
            |result| match result {
                ServerResult::ListPromptsResult(list) => Some((list.prompts, list.next_cursor)),
                _ => None,
            },
        )
        .await
    }

    /// All resources of the upstream; none if it has nothing of the kind.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn resources(&self) -> Result<Vec<Resource>, CallError> {
        if self.capabilities().resources.is_none() {
            return Ok(Vec::new());
        }
        self.pages(
            ITEM_COUNT_MAX,
            "resources",
            |page| {
                let request = ListResourcesRequest { params: page, ..ListResourcesRequest::default() };
                ClientRequest::ListResourcesRequest(request)
            },
            |result| match result {
                ServerResult::ListResourcesResult(list) => Some((list.resources, list.next_cursor)),
                _ => None,
            },
        )
        .await
    }

    /// All templates of resources of the upstream; none if it has nothing of the kind.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn resource_templates(&self) -> Result<Vec<ResourceTemplate>, CallError> {
        if self.capabilities().resources.is_none() {
            return Ok(Vec::new());
        }
        self.pages(
            ITEM_COUNT_MAX,
            "templates",
            |page| {
                let request =
                    ListResourceTemplatesRequest { params: page, ..ListResourceTemplatesRequest::default() };
                ClientRequest::ListResourceTemplatesRequest(request)
            },
            |result| match result {
                ServerResult::ListResourceTemplatesResult(list) => {
                    Some((list.resource_templates, list.next_cursor))
                }
                _ => None,
            },
        )
        .await
    }

    /// Calls a tool. Dropped before it is done, it cancels the call.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call(
        &self,
        params: CallToolRequestParams,
        talk: Talk<'_>,
    ) -> Result<CallToolResponse, CallError> {
        if let Speech::Plain(plain) = &self.speech {
            self.touch();
            let called = timeout(self.calls.quiet, plain.call(&params)).await;
            return called.unwrap_or(Err(CallError::TimedOut)).map(CallToolResponse::Complete);
        }
        match self.ask(ClientRequest::CallToolRequest(CallToolRequest::new(params)), talk).await? {
            ServerResult::CallToolResult(result) => Ok(CallToolResponse::Complete(result)),
            ServerResult::InputRequiredResult(result) => Ok(CallToolResponse::InputRequired(result)),
            ServerResult::CreateTaskResult(result) => Ok(CallToolResponse::Task(result)),
            ServerResult::EmptyResult(_) => {
                Ok(CallToolResponse::Complete(CallToolResult::success(Vec::new())))
            }
            _ => Err(CallError::Malformed("it is not the result of a tool".to_owned())),
        }
    }

    /// Asks anything that a client may ask, and gives the answer as it is. Dropped before it is done, it cancels the request.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn ask(&self, request: ClientRequest, talk: Talk<'_>) -> Result<ServerResult, CallError> {
        self.touch();
        let asked = match &self.speech {
            Speech::Mcp(voice) => voice.ask(request, talk, self.calls).await,
            Speech::Plain(_) => Err(CallError::unknown_method(request.method())),
        };
        self.touch();
        asked
    }

    /// All pages of a list, within bounds.
    async fn pages<T>(
        &self,
        count_max: usize,
        what: &str,
        request: impl Fn(Option<PaginatedRequestParams>) -> ClientRequest,
        read: impl Fn(ServerResult) -> Option<(Vec<T>, Option<String>)>,
    ) -> Result<Vec<T>, CallError> {
        self.touch();
        let Speech::Mcp(voice) = &self.speech else {
            return Ok(Vec::new());
        };
        let mut items = Vec::new();
        let mut cursor = None;
        let all = async {
            for _ in 0..PAGE_COUNT_MAX {
                let page =
                    cursor.take().map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
                let result = voice.ask(request(page), Talk::default(), DISCOVERY).await?;
                let (page, next) =
                    read(result).ok_or_else(|| CallError::Malformed(format!("it is no list of {what}")))?;
                items.extend(page);
                if items.len() > count_max {
                    return Err(too_many(what, count_max));
                }
                match next {
                    Some(next) => cursor = Some(next),
                    None => return Ok(()),
                }
            }
            Err(CallError::Malformed(format!("its list of {what} has no end")))
        };
        timeout(DISCOVERY_TIMEOUT, all).await.unwrap_or(Err(CallError::TimedOut))?;
        Ok(items)
    }

    /// Whether it can carry nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(&self.speech, Speech::Mcp(voice) if voice.is_closed())
    }

    /// Ends it. What is in flight is lost.
    pub fn close(&self) {
        if let Speech::Mcp(voice) = &self.speech {
            voice.close();
        }
    }

    /// Waits until it has ended, and its process with it.
    pub(super) async fn ended(&self) {
        if let Speech::Mcp(voice) = &self.speech {
            let _ = voice.has_ended.clone().wait_for(|has_ended| *has_ended).await;
        }
    }

    /// Notes that it is used.
    pub fn touch(&self) {
        self.idle_ticks.store(0, Ordering::Relaxed);
    }

    /// Counts a tick without use; how many there were.
    pub(super) fn tick(&self) -> u32 {
        match &self.speech {
            Speech::Mcp(voice) if voice.ears.in_flight_count() > 0 => 0,
            _ => self.idle_ticks.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

fn too_many(what: &str, count_max: usize) -> CallError {
    CallError::Malformed(format!("it has more than {count_max} {what}"))
}
