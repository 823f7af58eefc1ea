//! Streamable HTTP, over the guarded way out.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rmcp::model::{
    ClientJsonRpcMessage, ClientRequest, ErrorCode, ErrorData, JsonRpcMessage, RequestId,
    ServerJsonRpcMessage, ServerResult,
};
use rmcp::transport::common::http_header::{
    EVENT_STREAM_MIME_TYPE, HEADER_LAST_EVENT_ID, HEADER_SESSION_ID, JSON_MIME_TYPE,
};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::Sse;

use super::address::Pair;
use super::ears::Ears;
use super::events::{events, is_too_large};
use super::failure::CallError;
use crate::outbound::client::Client;
use crate::outbound::exchange::{Exchange, Unanswered, Unread};

/// Bytes of an answer with an error status: enough for a message of the protocol.
const ERROR_LEN_MAX: usize = 64 << 10;

/// Headers that belong to the protocol or to the connection.
const RESERVED: [&str; 12] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "transfer-encoding",
];

/// Posts messages to one upstream.
#[derive(Clone)]
pub(super) struct HttpUpstream {
    client: Client,
    headers: HeaderMap,
    ears: Arc<Ears>,
    len_max: usize,
}

type Failure = StreamableHttpError<CallError>;

/// The headers of every request to an upstream.
///
/// # Errors
///
/// [`CallError::NotSent`] with the name of the header that cannot be sent.
pub(super) fn headers(pairs: &[Pair]) -> Result<HeaderMap, CallError> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let refused = |why: &str| CallError::NotSent(format!("the header {name:?} {why}"));
        let key = HeaderName::try_from(name.as_str()).map_err(|_| refused("has no valid name"))?;
        if RESERVED.contains(&key.as_str()) {
            return Err(refused("is set by Haldir"));
        }
        let mut value =
            HeaderValue::from_str(value).map_err(|_| refused("has a value that cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

impl HttpUpstream {
    pub(super) fn new(client: Client, headers: HeaderMap, ears: Arc<Ears>, len_max: usize) -> Self {
        Self { client, headers, ears, len_max }
    }

    async fn exchange(
        &self,
        method: Method,
        uri: &str,
        extra: Vec<(HeaderName, HeaderValue)>,
        body: Option<Vec<u8>>,
    ) -> Result<Exchange, CallError> {
        let mut headers = self.headers.clone();
        headers.extend(extra);
        self.client.exchange(method, uri, headers, body).await.map_err(unanswered)
    }

    async fn post(
        &self,
        uri: &str,
        message: &ClientJsonRpcMessage,
        session: Option<&str>,
        protocol: HashMap<HeaderName, HeaderValue>,
        event_len_max: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let mut extra: Vec<_> = protocol.into_iter().collect();
        extra.push((ACCEPT, HeaderValue::from_static("text/event-stream, application/json")));
        extra.push((CONTENT_TYPE, HeaderValue::from_static(JSON_MIME_TYPE)));
        extra.extend(session.and_then(session_header));
        let body = serde_json::to_vec(message)?;
        let exchange =
            self.exchange(Method::POST, uri, extra, Some(body)).await.map_err(StreamableHttpError::Client)?;
        let new_session = exchange.header(HEADER_SESSION_ID).map(str::to_owned);
        let kind = exchange.header(CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase();
        let awaits_answer = matches!(message, JsonRpcMessage::Request(_));
        match exchange.status() {
            202 | 204 => Ok(StreamableHttpPostResponse::Accepted),
            404 if session.is_some() => Err(StreamableHttpError::SessionExpired),
            401 if exchange.header(WWW_AUTHENTICATE.as_str()).is_some() => {
                Err(StreamableHttpError::AuthRequired(AuthRequiredError::new(String::new())))
            }
            200..=299 if !awaits_answer => Ok(StreamableHttpPostResponse::Accepted),
            200..=299 if kind.starts_with(EVENT_STREAM_MIME_TYPE) => {
                let stream = events(exchange.pieces(), event_len_max);
                let stream = self.noting(stream, id_of(message).cloned());
                Ok(StreamableHttpPostResponse::Sse(stream, new_session))
            }
            200..=299 => {
                let body = exchange
                    .body(self.len_max)
                    .await
                    .map_err(|error| StreamableHttpError::Client(unread(error)))?;
                let message = serde_json::from_slice(&body).map_err(|_| no_message())?;
                Ok(StreamableHttpPostResponse::Json(message, new_session))
            }
            status => {
                let body = exchange.body(ERROR_LEN_MAX).await.unwrap_or_default();
                match serde_json::from_slice(&body) {
                    Ok(message @ JsonRpcMessage::Error(_)) if !matches!(status, 401 | 403) => {
                        Ok(StreamableHttpPostResponse::Json(message, new_session))
                    }
                    _ => Err(StreamableHttpError::Client(CallError::Status(status))),
                }
            }
        }
    }

    /// A stream that notes when it ends because of its size, and then ends the request that it answers.
    fn noting(
        &self,
        stream: BoxStream<'static, Result<Sse, SseError>>,
        id: Option<RequestId>,
    ) -> BoxStream<'static, Result<Sse, SseError>> {
        let ears = Arc::clone(&self.ears);
        let note = move |event: Result<Sse, SseError>| match (event, &id) {
            (Err(error), Some(id)) if is_too_large(&error) => {
                ears.fail(id, CallError::TooLarge);
                let end = ErrorData::internal_error("the answer is larger than allowed", None);
                let end = ServerJsonRpcMessage::error(end, Some(id.clone()));
                let data = serde_json::to_string(&end).map_err(|error| SseError::Body(error.into()))?;
                Ok(Sse::default().data(data))
            }
            (event, _) => event,
        };
        stream.map(note).boxed()
    }
}

impl StreamableHttpClient for HttpUpstream {
    type Error = CallError;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let len_max = self.len_max;
        self.post_message_with_max_sse_event_size(uri, message, session_id, None, custom_headers, len_max)
            .await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        event_len_max: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let answer = self.post(&uri, &message, session_id.as_deref(), custom_headers, event_len_max).await;
        if let Some(answer) = discovered_nothing(&message, &answer) {
            return Ok(answer);
        }
        if let (Err(failure), Some(id)) = (&answer, id_of(&message)) {
            self.ears.fail(id, fault(failure));
        }
        answer
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        let mut extra: Vec<_> = custom_headers.into_iter().collect();
        extra.extend(session_header(&session_id));
        // Whatever it answers: the session is left.
        self.exchange(Method::DELETE, &uri, extra, None)
            .await
            .map(|_| ())
            .map_err(StreamableHttpError::Client)
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        let len_max = self.len_max;
        self.get_stream_with_max_sse_event_size(uri, session_id, last_event_id, None, custom_headers, len_max)
            .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        event_len_max: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        let mut extra: Vec<_> = custom_headers.into_iter().collect();
        extra.push((ACCEPT, HeaderValue::from_static(EVENT_STREAM_MIME_TYPE)));
        extra.extend(session_id.as_deref().and_then(session_header));
        if let Some(id) = last_event_id {
            let value = HeaderValue::from_str(&id).map_err(|_| no_message())?;
            extra.push((
                HeaderName::from_bytes(HEADER_LAST_EVENT_ID.as_bytes()).map_err(|_| no_message())?,
                value,
            ));
        }
        let exchange =
            self.exchange(Method::GET, &uri, extra, None).await.map_err(StreamableHttpError::Client)?;
        let kind = exchange.header(CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase();
        match exchange.status() {
            200 if kind.starts_with(EVENT_STREAM_MIME_TYPE) => Ok(events(exchange.pieces(), event_len_max)),
            // Many servers have no such stream, and say so in one way or another.
            200..=299 | 400..=499 => Err(StreamableHttpError::ServerDoesNotSupportSse),
            status => Err(StreamableHttpError::Client(CallError::Status(status))),
        }
    }
}

fn session_header(id: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(HEADER_SESSION_ID.as_bytes()).ok()?;
    Some((name, HeaderValue::from_str(id).ok()?))
}

fn id_of(message: &ClientJsonRpcMessage) -> Option<&RequestId> {
    match message {
        JsonRpcMessage::Request(request) => Some(&request.id),
        _ => None,
    }
}

/// The answer to a question for the newer generation that an older upstream did not understand, however it said so: then it
/// is spoken to in the older one.
fn discovered_nothing(
    message: &ClientJsonRpcMessage,
    answer: &Result<StreamableHttpPostResponse, Failure>,
) -> Option<StreamableHttpPostResponse> {
    let JsonRpcMessage::Request(request) = message else {
        return None;
    };
    let is_discovery = matches!(request.request, ClientRequest::DiscoverRequest(_));
    let error = match answer {
        _ if !is_discovery => return None,
        // Middleware cannot give the id of a request that it did not read.
        Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), _)) => error.error.clone(),
        Ok(StreamableHttpPostResponse::Json(JsonRpcMessage::Response(response), _))
            if matches!(response.result, ServerResult::DiscoverResult(_)) && response.id == request.id =>
        {
            return None;
        }
        Ok(StreamableHttpPostResponse::Sse(..)) | Err(StreamableHttpError::AuthRequired(_)) => return None,
        Err(StreamableHttpError::Client(error)) if !is_misunderstanding(error) => return None,
        Ok(_) | Err(_) => ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "server/discover", None),
    };
    let answer = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
    Some(StreamableHttpPostResponse::Json(answer, None))
}

fn is_misunderstanding(error: &CallError) -> bool {
    match error {
        CallError::Status(status) => !matches!(status, 301..=308 | 401 | 403 | 429 | 503),
        CallError::Malformed(_) => true,
        _ => false,
    }
}

pub(super) fn unanswered(error: Unanswered) -> CallError {
    if error.is_unsent {
        CallError::NotSent(error.why.to_string())
    } else {
        CallError::Lost(error.why.to_string())
    }
}

pub(super) fn unread(error: Unread) -> CallError {
    match error {
        Unread::TooLong => CallError::TooLarge,
        Unread::Broken(why) => CallError::Lost(why.to_string()),
    }
}

fn no_message() -> Failure {
    StreamableHttpError::Client(CallError::Malformed("it is no message of the protocol".to_owned()))
}

/// What a failure of the transport means for the call.
fn fault(failure: &Failure) -> CallError {
    match failure {
        StreamableHttpError::Client(error) => error.clone(),
        StreamableHttpError::AuthRequired(_) => CallError::Status(401),
        StreamableHttpError::SessionExpired => CallError::Status(404),
        other => CallError::Lost(other.to_string()),
    }
}
