//! Does a client reach an upstream through the proxy as if nothing were between, in whichever generation of the protocol each
//! speaks, and does everything that is decided hold?

#![expect(deprecated, reason = "what the newer generation does without is spoken, too")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use haldir::mcp::bridge::Mode;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities,
    ClientConfig, ClientRequest, ElicitRequestParams, ElicitResult, ElicitationAction,
    GetPromptRequestParams, Implementation, LoggingMessageNotificationParam, ProgressNotificationParam,
    ProtocolVersion, ReadResourceRequestParams, ResourceUpdatedNotificationParam, SubscribeRequestParams,
    SubscriptionFilter,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, NotificationContext, PeerRequestOptions, RequestContext,
    RunningService,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ErrorData, RoleClient};
use serde_json::{Value, json};

use crate::server::{Home, Server};
use crate::upstreams::fixture::{Seen, start};

const OLD: ProtocolVersion = ProtocolVersion::V_2025_11_25;
const NEW: ProtocolVersion = ProtocolVersion::V_2026_07_28;

/// A server with an upstream, and a session.
struct Between {
    server: Server,
    session: String,
    seen: Arc<Seen>,
}

impl Between {
    async fn new(upstream: &ProtocolVersion) -> Self {
        let server = Home::new().serve_with(&["--allow-private-outbound"], &[]);
        let mode = if *upstream == OLD { Mode::Sessions } else { Mode::Stateless };
        let (url, seen) = start(mode, upstream.clone());
        let body = json!({"name": "up", "url": url});
        let registered = server.client().post("/v1/proxy/upstreams", &body).await.expect(201);
        assert_eq!(registered["healthy"], true, "{registered}");
        let session = open_session(&server, &["read", "execute", "spend:10"]).await;
        Self { server, session, seen }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.server.client().post(path, &body).await;
        assert!(answer.status < 300, "{path}: {}", answer.body);
        answer.json()
    }

    /// A client of a generation, at `/mcp/proxy` and what is given of the rest of the path.
    async fn client(&self, generation: &ProtocolVersion, rest: &str) -> RunningService<RoleClient, User> {
        self.client_of(generation, rest, &self.session, self.server.key(), User::default()).await
    }

    async fn client_of(
        &self,
        generation: &ProtocolVersion,
        rest: &str,
        session: &str,
        key: &str,
        user: User,
    ) -> RunningService<RoleClient, User> {
        try_client(&self.server, generation, rest, session, key, user).await.unwrap()
    }

    /// What the ledger says of calls: kinds of events, and outcomes.
    async fn events(&self) -> Vec<String> {
        let events = self.server.client().get("/v1/ledger/events?limit=1000").await.expect(200);
        let events = events["events"].as_array().unwrap().clone();
        let told = events.iter().filter_map(|event| {
            let (kind, event) = (event["kind"].as_str()?, &event["event"]);
            let outcome = event["outcome"].as_str().or(event["reason"].as_str()).unwrap_or_default();
            kind.starts_with("call.").then(|| format!("{kind} {outcome}").trim().to_owned())
        });
        told.collect()
    }
}

async fn open_session(server: &Server, scopes: &[&str]) -> String {
    let body = json!({"agent_id": "agent", "scopes": scopes});
    let opened = server.client().post("/v1/sessions", &body).await.expect(201);
    opened["session_id"].as_str().unwrap().to_owned()
}

async fn try_client(
    server: &Server,
    generation: &ProtocolVersion,
    rest: &str,
    session: &str,
    key: &str,
    user: User,
) -> Result<RunningService<RoleClient, User>, String> {
    let url = format!("http://{}/mcp/proxy{rest}", server.address());
    let mut headers = HashMap::new();
    if !session.is_empty() {
        headers.insert(HeaderName::from_static("x-session-id"), HeaderValue::from_str(session).unwrap());
    }
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(key).custom_headers(headers);
    let http = haldir::outbound::client::build(reqwest::Client::builder).unwrap();
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let mode = if *generation == OLD {
        ClientLifecycleMode::Initialize
    } else {
        ClientLifecycleMode::Discover { preferred_versions: vec![NEW] }
    };
    user.serve_with_lifecycle(transport, mode).await.map_err(|error| error.to_string())
}

/// A client's user: takes notes, and answers what is asked.
#[derive(Clone)]
struct User {
    notes: Arc<Mutex<Vec<String>>>,
    /// The answer to whatever is asked; nobody is there to answer without.
    answer: Option<Value>,
}

impl Default for User {
    fn default() -> Self {
        Self { notes: Arc::default(), answer: Some(json!({"color": "blue"})) }
    }
}

impl User {
    fn note(&self, note: String) {
        self.notes.lock().push(note);
    }
}

impl ClientHandler for User {
    fn get_info(&self) -> ClientConfig {
        let capabilities = match self.answer {
            Some(_) => ClientCapabilities::builder().enable_elicitation().build(),
            None => ClientCapabilities::default(),
        };
        ClientConfig::new(capabilities, Implementation::new("user", "1"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let ElicitRequestParams::FormElicitationParams { message, .. } = request else {
            panic!("{request:?}")
        };
        self.note(format!("asked: {message}"));
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(self.answer.clone().unwrap()))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.note(format!("progress {}", params.progress));
    }

    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.note(format!("log {}", params.data));
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.note(format!("updated {}", params.uri));
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.note("tools changed".to_owned());
    }
}

type Client = RunningService<RoleClient, User>;

/// A result and its text.
fn told(result: &CallToolResult) -> (bool, String) {
    let text = result.content.iter().filter_map(|block| block.as_text()).map(|it| it.text.as_str()).collect();
    (result.is_error.unwrap_or(false), text)
}

async fn call(client: &Client, tool: &str, arguments: Value) -> (bool, String) {
    let params =
        CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments.as_object().unwrap().clone());
    told(&client.call_tool(params).await.unwrap())
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn every_generation_meets_every_other() {
    for upstream in [OLD, NEW] {
        let between = Between::new(&upstream).await;
        for downstream in [OLD, NEW] {
            let which = format!("a client of {downstream}, an upstream of {upstream}");
            let client = between.client(&downstream, "/up").await;
            let info = client.peer_info().unwrap();
            assert_eq!(info.instructions.as_deref(), Some("Be kind."), "{which}");
            assert!(info.capabilities.resources.as_ref().unwrap().subscribe.unwrap_or(false), "{which}");

            let tools = client.list_all_tools().await.unwrap();
            let names: Vec<&str> = tools.iter().map(|tool| &*tool.name).collect();
            assert_eq!(
                names,
                ["ask", "echo", "header", "large", "log", "refuse", "steps", "wait"],
                "{which}"
            );
            assert_eq!(
                call(&client, "echo", json!({"a": 1})).await,
                (false, r#"{"a":1}"#.to_owned()),
                "{which}"
            );

            // The upstream's own error, as it is.
            let refused =
                client.call_tool(CallToolRequestParams::new("refuse")).await.unwrap_err().to_string();
            assert!(refused.contains("no such thing"), "{which}: {refused}");

            // Progress in order and before the answer; questions; prompts and resources.
            let handle = client.send_cancellable_request(
                ClientRequest::CallToolRequest(CallToolRequest::new(CallToolRequestParams::new("steps"))),
                PeerRequestOptions::no_options(),
            );
            handle.await.unwrap().await_response().await.unwrap();
            let notes = Arc::clone(&client.service().notes);
            until("progress did not come", async || notes.lock().len() >= 3).await;
            assert_eq!(*notes.lock(), ["progress 1", "progress 2", "progress 3"], "{which}");
            notes.lock().clear();
            let answer = call(&client, "ask", json!({})).await;
            assert_eq!(answer, (false, r#"{"color":"blue"}"#.to_owned()), "{which}");
            assert_eq!(*notes.lock(), ["asked: Which color?"], "{which}");

            let read = client.read_resource(ReadResourceRequestParams::new("test://one")).await.unwrap();
            assert_eq!(json!(read.contents[0])["text"], "contents of test://one", "{which}");
            assert_eq!(client.list_all_resources().await.unwrap()[0].uri, "test://one");
            let arguments = json!({"name": "Ann"}).as_object().unwrap().clone();
            let prompt =
                client.get_prompt(GetPromptRequestParams::new("greet").with_arguments(arguments)).await;
            assert!(json!(prompt.unwrap()).to_string().contains(r#"greet {\"name\":\"Ann\"}"#), "{which}");
            assert_eq!(client.list_all_prompts().await.unwrap()[0].name, "greet");
            client.cancel().await.unwrap();
        }
        let events = between.events().await;
        let count = |what: &str| events.iter().filter(|event| event.starts_with(what)).count();
        assert_eq!(count("call.authorized"), count("call.completed"), "{events:?}");
        assert_eq!(count("call.authorized"), 2 * 6, "{events:?}");
    }
}

#[tokio::test]
async fn all_upstreams_are_one_server() {
    let between = Between::new(&NEW).await;
    let (url, _) = start(Mode::Sessions, OLD);
    between.post("/v1/proxy/upstreams", json!({"name": "second", "url": url})).await;
    for downstream in [OLD, NEW] {
        let client = between.client(&downstream, "").await;
        let tools = client.list_all_tools().await.unwrap();
        let names: Vec<&str> = tools.iter().map(|tool| &*tool.name).collect();
        assert!(
            names.contains(&"echo") && names.contains(&"second.echo") && !names.contains(&"up.echo"),
            "{names:?}"
        );
        assert_eq!(names.len(), 16);
        for name in ["echo", "up.echo", "second.echo"] {
            assert_eq!(call(&client, name, json!({"n": name})).await.1, json!({"n": name}).to_string());
        }
        let resources = client.list_all_resources().await.unwrap();
        let uris: Vec<&str> = resources.iter().map(|resource| resource.uri.as_str()).collect();
        assert_eq!(uris, ["haldir://up/test://one", "haldir://second/test://one"]);
        let read = client.read_resource(ReadResourceRequestParams::new(uris[1])).await.unwrap();
        assert_eq!(json!(read.contents[0])["uri"], uris[1]);
        assert_eq!(json!(read.contents[0])["text"], "contents of test://one");
        let prompts = client.list_all_prompts().await.unwrap();
        let names: Vec<&str> = prompts.iter().map(|prompt| prompt.name.as_str()).collect();
        assert_eq!(names, ["greet", "second.greet"]);
        for name in ["greet", "up.greet", "second.greet"] {
            assert!(client.get_prompt(GetPromptRequestParams::new(name)).await.is_ok(), "{name}");
        }
        let unknown = call(&client, "nothing", json!({})).await;
        assert!(unknown.0 && unknown.1.contains("blocked_by"), "{unknown:?}");
    }
}

#[tokio::test]
async fn only_what_the_session_may_call_is_shown_and_called() {
    let between = Between::new(&NEW).await;
    between.post("/v1/proxy/policies", json!({"type": "deny_list", "tools": ["large"]})).await;
    let narrow = open_session(&between.server, &["execute:up.echo"]).await;
    for downstream in [OLD, NEW] {
        let client = between.client(&downstream, "/up").await;
        let names: Vec<_> =
            client.list_all_tools().await.unwrap().into_iter().map(|tool| tool.name).collect();
        assert!(!names.contains(&"large".into()) && names.contains(&"echo".into()), "{names:?}");
        let denied = call(&client, "large", json!({})).await;
        assert!(denied.0 && denied.1.ends_with(r#", "blocked_by": "haldir"}"#), "{denied:?}");

        let key = between.server.key();
        let client = between.client_of(&downstream, "/up", &narrow, key, User::default()).await;
        let names: Vec<_> =
            client.list_all_tools().await.unwrap().into_iter().map(|tool| tool.name).collect();
        assert_eq!(names, ["echo"]);
        assert!(!call(&client, "echo", json!({})).await.0);
        assert!(call(&client, "header", json!({})).await.0);
        assert!(client.read_resource(ReadResourceRequestParams::new("test://one")).await.is_err());
        assert_eq!(client.list_all_resources().await.unwrap(), []);
        // Another session by the parameter of the URL.
        let rest = format!("/up?session_id={}", between.session);
        let client = between.client_of(&downstream, &rest, "", key, User::default()).await;
        assert_eq!(client.list_all_tools().await.unwrap().len(), 7);
    }
}

#[tokio::test]
async fn without_a_session_or_a_key_that_may_nobody_gets_in() {
    let between = Between::new(&NEW).await;
    let key = between.server.key();
    let narrow = between.post("/v1/keys", json!({"name": "n", "scopes": ["proxy:read"]})).await;
    let gone = open_session(&between.server, &["execute"]).await;
    between.server.client().delete(&format!("/v1/sessions/{gone}")).await.expect(200);
    for downstream in [OLD, NEW] {
        let enter = async |rest: &str, session: &str, key: &str| {
            let entered = try_client(&between.server, &downstream, rest, session, key, User::default()).await;
            entered.err().unwrap_or_else(|| panic!("{rest} {session} was let in"))
        };
        let why = enter("/up", "", key).await;
        assert!(why.contains("X-Session-ID"), "{why}");
        for session in [gone.as_str(), "ses_nothing"] {
            let why = enter("/up", session, key).await;
            assert!(why.contains("was revoked or has expired"), "{why}");
        }
        let why = enter("/nowhere", &between.session, key).await;
        assert!(why.contains("no upstream with this name"), "{why}");
        enter("/up", &between.session, narrow["key"].as_str().unwrap()).await;
        enter("/up", &between.session, "hld_nothing").await;
    }
}

#[tokio::test]
async fn a_call_waits_for_its_approval() {
    let between = Between::new(&NEW).await;
    between.post("/v1/proxy/policies", json!({"type": "require_approval", "tools": ["echo"]})).await;
    let approve = |answer: Value| User { answer: Some(answer), ..User::default() };
    let key = between.server.key();
    for downstream in [OLD, NEW] {
        let client_of = async |user: User, key: &str| {
            between.client_of(&downstream, "/up", &between.session, key, user).await
        };
        // Whoever may decide is asked, and decides.
        let client = client_of(approve(json!({"approve": true, "note": "fine"})), key).await;
        let called = call(&client, "echo", json!({"n": 1, "by": downstream.to_string()})).await;
        assert!(!called.0 && called.1.contains(r#""n":1"#), "{downstream}: {called:?}");
        assert!(client.service().notes.lock()[0].contains("Approve it?"));
        let client = client_of(approve(json!({"approve": false})), key).await;
        let called = call(&client, "echo", json!({"n": 2, "by": downstream.to_string()})).await;
        assert!(called.0 && called.1.contains("not approved"), "{downstream}: {called:?}");

        // A client that cannot ask anybody hears that it has to wait.
        let client = client_of(User { answer: None, ..User::default() }, key).await;
        let called = call(&client, "echo", json!({"n": 3, "by": downstream.to_string()})).await;
        assert!(
            !called.0 && called.1.starts_with(r#"{"status": "approval_required", "request_id": "apr_"#),
            "{called:?}"
        );

        // Who may not decide waits until somebody else has.
        let scopes = json!({"name": "n", "scopes": ["proxy:write", "sessions:write"]});
        let other = between.post("/v1/keys", scopes).await["key"].as_str().unwrap().to_owned();
        let client = client_of(approve(json!({})), &other).await;
        let decide = async {
            let pending = loop {
                let pending = between.server.client().get("/v1/approvals/pending").await.expect(200);
                let wanted = pending["requests"].as_array().unwrap().iter().find(|it| {
                    !client.service().notes.lock().is_empty()
                        && client.service().notes.lock()[0].contains(it["request_id"].as_str().unwrap())
                });
                if let Some(it) = wanted {
                    break it["request_id"].as_str().unwrap().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            between.post(&format!("/v1/approvals/{pending}/approve"), json!({})).await;
        };
        let arguments = json!({"n": 4, "by": downstream.to_string()});
        let (called, ()) = tokio::join!(call(&client, "echo", arguments), decide);
        assert!(!called.0 && called.1.contains(r#""n":4"#), "{downstream}: {called:?}");
    }
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_upstream_and_on_record() {
    for (upstream, downstream) in [(OLD, OLD), (NEW, NEW), (OLD, NEW), (NEW, OLD)] {
        let between = Between::new(&upstream).await;
        let client = between.client(&downstream, "/up").await;
        let request =
            ClientRequest::CallToolRequest(CallToolRequest::new(CallToolRequestParams::new("wait")));
        let handle =
            client.send_cancellable_request(request, PeerRequestOptions::no_options()).await.unwrap();
        until("the call did not reach the ledger", async || {
            between.events().await.iter().any(|event| event.starts_with("call.authorized"))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        handle.cancel(Some("enough".to_owned())).await.unwrap();
        until("the outcome is not on record", async || {
            between.events().await.iter().any(|event| event == "call.completed cancelled")
        })
        .await;
        until("the upstream goes on", async || between.seen.was_cancelled.load(Ordering::SeqCst)).await;
    }
}

#[tokio::test]
async fn a_session_that_ends_ends_its_calls() {
    for downstream in [OLD, NEW] {
        let between = Between::new(&NEW).await;
        let client = between.client(&downstream, "/up").await;
        let end = async {
            until("the call did not reach the ledger", async || {
                between.events().await.iter().any(|event| event.starts_with("call.authorized"))
            })
            .await;
            between.server.client().delete(&format!("/v1/sessions/{}", between.session)).await.expect(200);
        };
        let (called, ()) = tokio::join!(call(&client, "wait", json!({})), end);
        assert!(called.0 && called.1.contains("the session ended"), "{downstream}: {called:?}");
        assert!(between.events().await.contains(&"call.completed cancelled".to_owned()));
        until("the upstream goes on", async || between.seen.was_cancelled.load(Ordering::SeqCst)).await;
        let called = call(&client, "echo", json!({})).await;
        assert!(called.0 && called.1.contains("was revoked or has expired"), "{called:?}");
    }
}

#[tokio::test]
async fn clients_hear_what_they_want_to_hear() {
    let between = Between::new(&OLD).await;
    let client = between.client(&OLD, "/up").await;
    client.subscribe(SubscribeRequestParams::new("test://one")).await.unwrap();
    client.read_resource(ReadResourceRequestParams::new("test://one")).await.unwrap();
    call(&client, "log", json!({})).await;
    let notes = Arc::clone(&client.service().notes);
    until("the client was not told", async || {
        let notes = notes.lock();
        notes.contains(&"updated test://one".to_owned()) && notes.contains(&"log \"said\"".to_owned())
    })
    .await;

    // Tools that a policy takes away.
    let filter = SubscriptionFilter::builder().tools_list_changed();
    let newer = between.client(&NEW, "").await;
    let mut subscription = newer.listen(filter.build()).await.unwrap();
    between.post("/v1/proxy/policies", json!({"type": "block_tool", "tool": "echo"})).await;
    until("the client was not told of its tools", async || {
        notes.lock().contains(&"tools changed".to_owned())
    })
    .await;
    let heard = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await.unwrap();
    assert!(format!("{heard:?}").contains("ToolListChanged"), "{heard:?}");
}

#[tokio::test]
async fn secrets_reach_the_upstream_and_nobody_else() {
    let between = Between::new(&NEW).await;
    let value = "hunter2-hunter2";
    between.post("/v1/secrets", json!({"name": "token", "value": value})).await;
    let (url, _) = start(Mode::Sessions, OLD);
    let headers = json!({"X-Secret": "secret://token"});
    let body = json!({"name": "closed", "url": url, "headers": headers, "session_id": between.session});
    between.post("/v1/proxy/upstreams", body).await;
    for downstream in [OLD, NEW] {
        let client = between.client(&downstream, "/closed").await;
        let told = call(&client, "header", json!({})).await;
        assert_eq!(told, (false, "[redacted: secret://token]".to_owned()), "{downstream}");
        let told = call(&client, "echo", json!({"deep": ["secret://token"]})).await;
        assert_eq!(told.1, r#"{"deep":["[redacted: secret://token]"]}"#, "{downstream}");
    }
    let export = between.server.client().get("/v1/ledger/export").await;
    assert!(!export.body.contains(value));
}

#[tokio::test]
async fn a_call_is_held_for_its_client_and_for_nobody_else() {
    for upstream in [OLD, NEW] {
        let home = Home::new();
        let server = home.serve_with(&["--allow-private-outbound"], &[]);
        let (url, seen) = start(Mode::Sessions, upstream.clone());
        server.client().post("/v1/proxy/upstreams", &json!({"name": "up", "url": url})).await.expect(201);
        let session = open_session(&server, &["execute"]).await;
        let other = open_session(&server, &["execute"]).await;
        let between = Between { server, session: session.clone(), seen };
        let key = between.server.key().to_owned();
        let ask = |client: &Client| {
            let peer = client.peer().clone();
            async move { peer.call_tool_once(CallToolRequestParams::new("ask")).await.unwrap() }
        };
        let client = between.client(&NEW, "/up").await;
        let CallToolResponse::InputRequired(wants) = ask(&client).await else { panic!("{upstream}") };
        let state = wants.request_state.unwrap();
        let key_of = wants.input_requests.unwrap().into_keys().next().unwrap();
        let answers = json!({"action": "accept", "content": {"color": "red"}});
        let retry = |tool: &str, state: &str| {
            let mut params = CallToolRequestParams::new(tool.to_owned());
            params.input_responses = Some([(key_of.clone(), answers.clone())].into());
            params.request_state = Some(state.to_owned());
            params
        };
        // Another session, another tool, another state: none of them is let through, and the call waits on.
        let stranger = between.client_of(&NEW, "/up", &other, &key, User::default()).await;
        for (client, params) in [
            (&stranger, retry("ask", &state)),
            (&client, retry("echo", &state)),
            (&client, retry("ask", &format!("{state}x"))),
            (&client, retry("ask", "call.nothing")),
            (&client, retry("ask", "approval.apr_0123456789abcdef.AAAA")),
            (&client, retry("ask", "nonsense")),
        ] {
            let refused = client.peer().call_tool_once(params).await.unwrap_err().to_string();
            assert!(refused.contains("requestState"), "{upstream}: {refused}");
        }
        let answered = client.peer().call_tool_once(retry("ask", &state)).await.unwrap();
        let CallToolResponse::Complete(result) = answered else { panic!("{upstream}: {answered:?}") };
        assert_eq!(told(&result), (false, r#"{"color":"red"}"#.to_owned()), "{upstream}");
        let again = client.peer().call_tool_once(retry("ask", &state)).await;
        assert!(again.is_err(), "it is answered once");

        // A call whose client never comes back ends with the server, and is on record.
        assert!(matches!(ask(&client).await, CallToolResponse::InputRequired(_)));
        drop((client, stranger));
        between.server.stop();
        let between = Between { server: home.serve(), session, seen: between.seen };
        let events = between.events().await;
        assert_eq!(
            events.last().map(String::as_str),
            Some("call.completed cancelled"),
            "{upstream}: {events:?}"
        );
        let open = between.server.client().get("/v1/proxy/calls").await.expect(200);
        assert_eq!(open["count"], 0, "{open}");
    }
}
