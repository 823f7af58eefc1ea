//! The fixture as an upstream of a Haldir that was started as its users start it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::server::{Client, Home, Server};
use crate::{STDIO, mount};

/// The upstream's name, and where it is as if the client spoke to it.
const UPSTREAM: &str = "fixture";
pub(crate) const PATH: &str = "/mcp/proxy/fixture";
/// The secret that holds the upstream's key.
const SECRET: &str = "fixture-key";

/// How the upstream is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Transport {
    Http,
    Stdio,
}

/// A Haldir with the upstream behind it, and a session that may call everything.
pub(crate) struct Proxied {
    home: Home,
    server: Server,
    pub(crate) session_id: String,
    /// The upstream's server, if it is one.
    _upstream: Option<mount::Mounted>,
}

impl Proxied {
    pub(crate) fn start(transport: Transport) -> Self {
        let home = Home::new();
        let this_program = this_program().to_string_lossy().into_owned();
        let server = home.serve_with(&["--allow-private-outbound", "--upstream-command", &this_program], &[]);
        let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
        let (session_id, upstream) = runtime.block_on(set_up(&server.client(), transport, &this_program));
        Self { home, server, session_id, _upstream: upstream }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.server.address())
    }

    pub(crate) fn key(&self) -> &str {
        self.server.key()
    }

    /// Whether the ledger has an outcome for every call, and is sound: how many calls there were.
    pub(crate) fn check(self) -> Result<usize, String> {
        // Calls that asked back and were not answered end with the server.
        self.server.stop();
        let data_dir = self.home.data_dir().to_string_lossy().into_owned();
        let verified = self.home.run(&["audit", "verify", "--data-dir", &data_dir]);
        if verified.code != Some(0) {
            return Err(format!("{verified:?}"));
        }
        let export = self.home.root().join("ledger.jsonl");
        let out = export.to_string_lossy();
        let exported = self.home.run(&["audit", "export", "--data-dir", &data_dir, "--out", &out]);
        let export = std::fs::read_to_string(export).map_err(|error| format!("{error}: {exported:?}"))?;
        let lines = export.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let kinds: Vec<Value> = lines.map(|mut line| line["kind"].take()).collect();
        let count = |kind: &str| kinds.iter().filter(|it| *it == kind).count();
        let (intents, outcomes) = (count("call.authorized"), count("call.completed"));
        if intents == outcomes && intents > 0 {
            Ok(intents)
        } else {
            Err(format!("{intents} intents and {outcomes} outcomes"))
        }
    }
}

async fn set_up(
    client: &Client,
    transport: Transport,
    this_program: &str,
) -> (String, Option<mount::Mounted>) {
    let session = json!({ "agent_id": "conformance", "scopes": ["admin"] });
    let session = client.post("/v1/sessions", &session).await.expect(201);
    let session_id = session["session_id"].as_str().expect("a session has an id").to_owned();
    let (mut body, upstream) = match transport {
        Transport::Stdio => (json!({ "command": this_program, "args": [STDIO] }), None),
        Transport::Http => {
            let mounted = mount::serve(haldir::mcp::bridge::Mode::Sessions);
            let secret = json!({ "name": SECRET, "value": mounted.key });
            client.post("/v1/secrets", &secret).await.expect(201);
            let url = format!("http://{}{}", mounted.address, mount::PATH);
            let headers = json!({ "Authorization": format!("Bearer secret://{SECRET}") });
            (json!({ "url": url, "headers": headers }), Some(mounted))
        }
    };
    body["name"] = json!(UPSTREAM);
    body["session_id"] = json!(session_id);
    let registered = client.post("/v1/proxy/upstreams", &body).await.expect(201);
    assert_eq!(registered["healthy"], true, "{registered}");
    (session_id, upstream)
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("it runs")
}

/// What a task says later must not give away a secret that was put into the call which became it; nor may anybody ask about it
/// who did not call.
pub(crate) fn check_tasks() -> Result<(), String> {
    const VALUE: &str = "the-name-of-a-file";
    let proxied = Proxied::start(Transport::Stdio);
    let client = proxied.server.client();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        client.post("/v1/secrets", &json!({ "name": "file", "value": VALUE })).await.expect(201);
        let session = proxied.session_id.as_str();
        let params = json!({ "name": "confirm_delete", "arguments": { "filename": "secret://file" } });
        let called = ask(&client, session, "tools/call", "confirm_delete", params).await;
        let task = called["result"]["taskId"].as_str().ok_or_else(|| called.to_string())?.to_owned();
        let of_task = || json!({ "taskId": task });
        let waiting = loop {
            let told = ask(&client, session, "tasks/get", &task, of_task()).await;
            if told["result"]["status"] != "working" {
                break told;
            }
        };
        let mut answer = of_task();
        answer["inputResponses"] = json!({ "confirm": { "action": "accept", "content": { "name": "yes" } } });
        ask(&client, session, "tasks/update", &task, answer).await;
        let done = loop {
            let told = ask(&client, session, "tasks/get", &task, of_task()).await;
            if told["result"]["status"] == "completed" {
                break told;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        let other = client.post("/v1/sessions", &json!({ "agent_id": "other", "scopes": ["admin"] })).await;
        let other = other.expect(201)["session_id"].as_str().expect("a session has an id").to_owned();
        let refused = ask(&client, &other, "tasks/get", &task, of_task()).await;
        let said = format!("{called} {waiting} {done}");
        if said.contains(VALUE) || !said.contains("[redacted") {
            return Err(format!("the secret is not hidden: {said}"));
        }
        if refused["error"]["code"] != -32602 {
            return Err(format!("another session may ask: {refused}"));
        }
        Ok(())
    })?;
    proxied.check().map(|_| ())
}

/// One request of a client of the stateless generation that takes tasks and can be asked.
async fn ask(client: &Client, session: &str, method: &str, name: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {
            "elicitation": {},
            "extensions": { "io.modelcontextprotocol/tasks": {} }
        }
    });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let request = client.request(reqwest::Method::POST, PATH).json(&message);
    let request = request.header("accept", "application/json, text/event-stream");
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
    let answer =
        crate::server::answer(request.header("mcp-name", name).header("x-session-id", session)).await;
    let mut events = answer.body.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    let event = events.rfind(|data| !data.is_empty()).unwrap_or(&answer.body);
    serde_json::from_str(event).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}
