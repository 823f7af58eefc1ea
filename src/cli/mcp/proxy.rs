//! `haldir mcp proxy`: the proxy for a client that has started this process, over standard input and output.
//!
//! Whatever either side says is passed on as it is: the server at `/mcp/proxy` decides.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use http::{HeaderName, HeaderValue};
use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, ErrorData, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::{StreamableHttpClient, StreamableHttpClientTransportConfig};
use rmcp::transport::{StreamableHttpClientTransport, Transport, stdio};
use serde_json::{Number, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::serve::log_level;
use crate::cli::client::{DEFAULT_URL, Method, ask, percent_encoded, streaming_client};
use crate::telemetry;

/// In which session a client works, and what it reaches.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// The one upstream to reach, as if it were started itself [default: all of them]
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// The session to work in [default: a new one, which is revoked at the end]
    #[arg(long, env = "HALDIR_SESSION_ID", value_name = "ID", conflicts_with_all = ["agent", "scopes", "budget", "ttl"])]
    session: Option<String>,
    /// The agent of a new session
    #[arg(long, default_value = "claude-code")]
    agent: String,
    /// The scopes of a new session
    #[arg(long, value_delimiter = ',', default_values = ["read", "execute", "spend"])]
    scopes: Vec<String>,
    /// What a new session may spend, in US dollars
    #[arg(long, default_value = "100")]
    budget: Number,
    /// How long a new session lives
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

/// A server, and the key to talk to it with.
struct Remote {
    url: String,
    key: String,
}

/// Passes messages on until the client closes standard input.
///
/// # Errors
///
/// A sentence, when there is no key, or no session to work in.
pub(super) fn run(arguments: &ProxyArgs, url: Option<String>, key: Option<String>) -> Result<(), String> {
    telemetry::init(&log_level(), None)?;
    let given = |value: Option<String>| value.filter(|value| !value.trim().is_empty());
    let url = given(url).unwrap_or_else(|| DEFAULT_URL.to_owned());
    let key = given(key).ok_or("no API key: set HALDIR_API_KEY")?;
    let remote = Remote { url: url.trim_end_matches('/').to_owned(), key };
    let own = match &arguments.session {
        Some(_) => None,
        None => Some(remote.open_session(arguments)?),
    };
    let session = own.as_ref().or(arguments.session.as_ref()).cloned().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let passed = runtime.block_on(pass_on(&remote, arguments.upstream.as_deref(), &session));
    // A read of standard input may still be waiting.
    runtime.shutdown_background();
    if let Some(session) = own {
        remote.revoke_session(&session);
    }
    passed
}

impl Remote {
    fn open_session(&self, arguments: &ProxyArgs) -> Result<String, String> {
        let body = json!({
            "agent_id": arguments.agent,
            "scopes": arguments.scopes,
            "spend_limit": arguments.budget,
            "ttl": arguments.ttl.as_secs(),
        });
        let opened =
            ask(Method::POST, &format!("{}/v1/sessions", self.url), &self.key, Some(&body))?.json()?;
        let id = opened["session_id"].as_str().ok_or("the server opened a session without an id")?;
        Ok(id.to_owned())
    }

    fn revoke_session(&self, session: &str) {
        let url = format!("{}/v1/sessions/{}", self.url, percent_encoded(session));
        if let Err(error) = ask::<Value>(Method::DELETE, &url, &self.key, None) {
            tracing::warn!(error, "the session was not revoked");
        }
    }

    fn config(
        &self,
        upstream: Option<&str>,
        session: &str,
    ) -> Result<StreamableHttpClientTransportConfig, String> {
        let rest = upstream.map(|name| format!("/{}", percent_encoded(name))).unwrap_or_default();
        let session = HeaderValue::from_str(session).map_err(|_| "this is no id of a session".to_owned())?;
        let headers = HashMap::from([(HeaderName::from_static("x-session-id"), session)]);
        Ok(StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp/proxy{rest}", self.url))
            .auth_header(self.key.clone())
            .custom_headers(headers))
    }
}

async fn pass_on(remote: &Remote, upstream: Option<&str>, session: &str) -> Result<(), String> {
    let (input, output) = stdio();
    let local = AsyncRwTransport::<RoleServer, _, _>::new_server(input, output);
    let http = streaming_client()?;
    let config = remote.config(upstream, session)?;
    let caught = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
    let (mut terminate, mut interrupt) = (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?);
    tokio::select! {
        () = relay(local, || StreamableHttpClientTransport::with_client(http.clone(), config.clone())) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Passes messages on between a client and a server, which is connected to again when it was not there.
async fn relay<L, C>(mut local: L, connect: impl Fn() -> StreamableHttpClientTransport<C>)
where
    L: Transport<RoleServer>,
    C: StreamableHttpClient + Sync,
{
    let mut remote = connect();
    let mut sending = JoinSet::new();
    loop {
        tokio::select! {
            message = local.receive() => {
                let Some(message) = message else { break };
                let id = id_of(&message);
                let sent = remote.send(message);
                sending.spawn(async move { (id, sent.await.map_err(|error| error.to_string())) });
            }
            message = remote.receive() => match message {
                Some(message) => {
                    if local.send(message).await.is_err() {
                        break;
                    }
                }
                None => remote = connect(),
            },
            Some(Ok((id, sent))) = sending.join_next(), if !sending.is_empty() => {
                if let (Some(id), Err(why)) = (id, sent) {
                    let error = ErrorData::internal_error(format!("Haldir was not reached: {why}"), None);
                    if local.send(ServerJsonRpcMessage::error(error, Some(id))).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
    let _ = remote.close().await;
}

fn id_of(message: &ClientJsonRpcMessage) -> Option<RequestId> {
    match message {
        JsonRpcMessage::Request(request) => Some(request.id.clone()),
        _ => None,
    }
}
