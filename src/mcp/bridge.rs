//! Streamable HTTP: carries requests between the server's HTTP and the SDK, which speaks the protocol.
//!
//! A handler finds the caller, and the arguments as they were written, in the [`http::request::Parts`] of its context's
//! extensions: a [`Caller`] and a [`super::message::WrittenArguments`]. The key itself does not get here.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT, AUTHORIZATION, HOST};
use actix_web::{HttpRequest, HttpResponse, Resource, web};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyDataStream, BodyExt as _, Full};
use parking_lot::Mutex;
use rmcp::ServerHandler;
use rmcp::transport::StreamableHttpServerConfig;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

use super::access::Access;
use super::message;
use crate::domain::id::{KeyPrefix, TenantId};
use crate::http::body::read_whole;
use crate::http::caller::AnyKey;
use crate::http::error::{ApiError, BODY_LEN_MAX};
use crate::http::routes::path;
use crate::operations::{Caller, OperationError};

/// Open sessions of an endpoint at most. Each has a task and queues of its own, about 20 KiB.
const SESSION_COUNT_MAX: usize = 4096;
/// How long a session lives in which nothing is said. People who are asked something may take a while, and not every client
/// begins anew by itself.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(3600);
/// Which session a request belongs to, or an answer opened.
const SESSION_ID: &str = "mcp-session-id";
/// The media types that a client of this transport takes.
const BOTH_TYPES: &str = "application/json, text/event-stream";
/// What to say to who comes with a name that is not the server's.
const OTHER_HOST: &str = "this name is not the server's; --public-url and --mcp-hosts tell it further ones";
/// Headers that stay here: the key, and what says how the connection is used.
const NOT_FORWARDED: [&str; 6] =
    ["authorization", "x-api-key", "cookie", "connection", "content-length", "transfer-encoding"];

/// How an endpoint remembers clients of the protocol's older generation. The newer one has no sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not at all: each request is answered for itself, with JSON unless there is more to say than the answer.
    Stateless,
    /// From `initialize` on, so that the server can ask and notify clients, too.
    Sessions,
}

/// The resource at which callers with a key reach an endpoint.
#[must_use]
pub fn resource<H: ServerHandler>(template: &str, endpoint: &Arc<Endpoint<H>>) -> Resource {
    let endpoint = web::Data::from(Arc::clone(endpoint));
    path(template).data(endpoint).get(serve::<H>).post(serve::<H>).delete(serve::<H>).done()
}

async fn serve<H: ServerHandler>(
    endpoint: web::Data<Endpoint<H>>,
    AnyKey(caller): AnyKey,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    endpoint.handle(&request, payload, Some(caller)).await
}

/// A path at which clients find a server. It is made once, and shared by all threads that serve connections.
pub struct Endpoint<H> {
    service: StreamableHttpService<H, LocalSessionManager>,
    sessions: Arc<LocalSessionManager>,
    owners: Mutex<HashMap<String, Owner>>,
    access: Access,
    mode: Mode,
}

/// Whose a session is.
type Owner = Option<(TenantId, KeyPrefix)>;

impl<H: ServerHandler> Endpoint<H> {
    /// Makes an endpoint. The factory makes a handler for each session, or for each request.
    #[must_use]
    pub fn new(factory: impl Fn() -> H + Send + Sync + 'static, access: Access, mode: Mode) -> Self {
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(mode == Mode::Sessions)
            .with_json_response(mode == Mode::Stateless)
            .with_allowed_hosts(access.hosts())
            .with_allowed_origins(access.origins())
            .with_max_request_body_bytes(BODY_LEN_MAX);
        let mut sessions = LocalSessionManager::default();
        sessions.session_config.keep_alive = Some(SESSION_IDLE_MAX);
        let sessions = Arc::new(sessions);
        let service = StreamableHttpService::new(move || Ok(factory()), Arc::clone(&sessions), config);
        Self { service, sessions, owners: Mutex::default(), access, mode }
    }

    /// Ends sessions and streams, so that the server can stop.
    pub fn stop(&self) {
        self.service.config.cancellation_token.cancel();
    }

    /// Answers a request of this caller.
    ///
    /// # Errors
    ///
    /// [`ApiError`] for what the transport turns away. Errors of the protocol are answers.
    pub async fn handle(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        caller: Option<Caller>,
    ) -> Result<HttpResponse, ApiError> {
        let body = read_whole(payload.into_inner()).await?.freeze();
        let is_post = request.method() == actix_web::http::Method::POST;
        let checked = match is_post.then(|| message::check(&body)).transpose() {
            Ok(checked) => checked,
            Err(refusal) => return Ok(HttpResponse::BadRequest().json(refusal)),
        };
        let owner: Owner = caller.as_ref().map(|caller| (caller.tenant.clone(), caller.prefix.clone()));
        let session = request.headers().get(SESSION_ID).and_then(|id| id.to_str().ok());
        if self.mode == Mode::Sessions {
            match session {
                Some(session) => self.check_owner(session, &owner)?,
                None if checked.as_ref().is_some_and(|it| it.is_initialize) => self.check_room().await?,
                None => {}
            }
        }

        let mut forwarded = self.forwarded(request, body)?;
        if let Some(caller) = caller {
            forwarded.extensions_mut().insert(caller);
        }
        if let Some(written) = checked.and_then(|it| it.arguments) {
            forwarded.extensions_mut().insert(written);
        }
        let mut service = self.service.clone();
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if let Some(address) = host.and_then(|host| self.access.address_in(host)) {
            service.config.allowed_hosts.push(address.to_string());
        }
        let answer = service.handle(forwarded).await;

        let opened = answer.headers().get(SESSION_ID).and_then(|id| id.to_str().ok());
        if let Some(opened) = opened.filter(|_| session.is_none()) {
            self.owners.lock().insert(opened.to_owned(), owner);
        }
        returned(answer).await
    }

    /// Whether this caller may use a session. Somebody else's does not exist.
    fn check_owner(&self, session: &str, owner: &Owner) -> Result<(), ApiError> {
        let is_theirs = self.owners.lock().get(session).is_some_and(|it| it == owner);
        if is_theirs { Ok(()) } else { Err(no_session()) }
    }

    /// Whether one more session can be opened. Forgets those that have ended.
    async fn check_room(&self) -> Result<(), ApiError> {
        let open = self.sessions.sessions.read().await;
        self.owners.lock().retain(|id, _| open.contains_key(id.as_str()));
        if open.len() >= SESSION_COUNT_MAX { Err(OperationError::Busy.into()) } else { Ok(()) }
    }

    /// The request as the SDK reads it.
    fn forwarded(&self, request: &HttpRequest, body: Bytes) -> Result<http::Request<Full<Bytes>>, ApiError> {
        let path = request.uri().path_and_query().map_or(request.path(), |path| path.as_str());
        let mut forwarded = http::Request::builder().method(request.method().as_str()).uri(path);
        for (name, value) in request.headers() {
            if !NOT_FORWARDED.contains(&name.as_str()) && *name != ACCEPT && *name != AUTHORIZATION {
                forwarded = forwarded.header(name.as_str(), value.as_bytes());
            }
        }
        if let Some(accept) = self.accepted(request) {
            forwarded = forwarded.header("accept", accept);
        }
        let malformed = |error: http::Error| OperationError::invalid("request", error.to_string());
        Ok(forwarded.body(Full::new(body)).map_err(malformed)?)
    }

    /// What the client takes, in the words that the SDK looks for. Who takes anything takes these types, and who takes JSON
    /// gets it where each request is answered for itself.
    fn accepted(&self, request: &HttpRequest) -> Option<String> {
        let given: Vec<&str> =
            request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok()).collect();
        let given = given.join(", ");
        let takes = |wanted: &str| {
            let types = given.split(',').filter_map(|item| item.split(';').next());
            types.map(str::trim).any(|it| it.eq_ignore_ascii_case(wanted))
        };
        let is_json_enough = self.mode == Mode::Stateless && takes("application/json");
        let is_post = request.method() == actix_web::http::Method::POST;
        if is_post && (given.is_empty() || takes("*/*") || is_json_enough) {
            return Some(BOTH_TYPES.to_owned());
        }
        Some(given).filter(|given| !given.is_empty())
    }
}

fn no_session() -> ApiError {
    ApiError::Transport(StatusCode::NOT_FOUND, "no such session".to_owned())
}

/// The answer as the server writes it.
async fn returned(answer: http::Response<BoxBody<Bytes, Infallible>>) -> Result<HttpResponse, ApiError> {
    let (parts, body) = answer.into_parts();
    let status = StatusCode::from_u16(parts.status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = parts.headers.get("content-type").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let is_message = content_type.starts_with("application/json");
    let is_stream = content_type.starts_with("text/event-stream");
    let mut response = HttpResponse::build(status);
    for (name, value) in &parts.headers {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    if is_stream {
        return Ok(response.streaming(BodyDataStream::new(body).boxed_local()));
    }
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes);
    if (status.is_client_error() || status.is_server_error()) && !is_message {
        return Err(turned_away(status, &String::from_utf8_lossy(&body)));
    }
    Ok(response.body(body))
}

/// The envelope for what the SDK says in plain text.
fn turned_away(status: StatusCode, why: &str) -> ApiError {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::PayloadTooLarge,
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
        StatusCode::FORBIDDEN if why.contains("Host header") => {
            ApiError::Transport(status, OTHER_HOST.to_owned())
        }
        status if status.is_server_error() => OperationError::Internal(why.to_owned()).into(),
        status => ApiError::Transport(status, why.to_owned()),
    }
}

#[cfg(test)]
mod tests;
