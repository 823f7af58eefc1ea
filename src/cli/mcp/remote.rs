//! The REST edge of a server elsewhere, as tools reach it from a client's process.

use std::time::Duration;

use reqwest::{Client, Method, redirect};

use crate::cli::client::innermost;
use crate::mcp::rest::{Answer, Backend, Failure, Request};
use crate::operations::Caller;
use crate::outbound::client::build;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long one may take that waits for people, which the server does for a minute at most.
const WAITING_TIMEOUT: Duration = Duration::from_secs(90);

/// A server elsewhere.
pub(super) struct Remote {
    http: Client,
    url: String,
    key: Option<String>,
}

impl Remote {
    /// # Errors
    ///
    /// A sentence, when there can be no client.
    pub(super) fn new(url: String, key: Option<String>) -> Result<Self, String> {
        let agent = concat!("haldir-mcp/", env!("CARGO_PKG_VERSION"));
        // Whoever answers with another place does not get the key there.
        let http = build(|| Client::builder().user_agent(agent).redirect(redirect::Policy::none()))?;
        Ok(Self { http, url, key })
    }

    fn failure(error: &reqwest::Error, request: &Request) -> Failure {
        let message = innermost(error);
        if error.is_timeout() {
            let path = request.path.split('?').next().unwrap_or_default().to_owned();
            let more = vec![("path", path), ("method", request.method.to_owned())];
            return Failure {
                kind: "timeout",
                message: "the server did not answer in time".to_owned(),
                more,
            };
        }
        if error.is_connect() {
            let hint = "Is the server running? HALDIR_BASE_URL says where it is.".to_owned();
            return Failure { kind: "connect_error", message, more: vec![("hint", hint)] };
        }
        if error.is_builder() {
            let message = format!("HALDIR_BASE_URL or HALDIR_API_KEY cannot be used: {message}");
            return Failure { kind: "config_error", message, more: Vec::new() };
        }
        let exception = "TransportError".to_owned();
        Failure { kind: "dispatch_error", message, more: vec![("exception", exception)] }
    }
}

impl Backend for Remote {
    async fn ask(&self, request: Request, _: Option<Caller>) -> Result<Answer, Failure> {
        let Some(key) = &self.key else {
            let message = "no API key: set HALDIR_API_KEY in the client's configuration".to_owned();
            return Err(Failure { kind: "config_error", message, more: Vec::new() });
        };
        let method = Method::from_bytes(request.method.as_bytes()).unwrap_or(Method::GET);
        let timeout = if request.path.contains("wait=") { WAITING_TIMEOUT } else { TIMEOUT };
        let mut to_send = self.http.request(method, format!("{}{}", self.url, request.path));
        to_send = to_send.bearer_auth(key).timeout(timeout);
        for (name, value) in &request.headers {
            to_send = to_send.header(*name, value);
        }
        if let Some(body) = &request.body {
            to_send = to_send.header("Content-Type", "application/json").body(body.clone());
        }
        let failed = |error| Self::failure(&error, &request);
        let response = to_send.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: response.text().await.map_err(failed)? })
    }
}
