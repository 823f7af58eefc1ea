//! The way back to a client while a call runs: what the upstream says goes there, without the secrets of the call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rmcp::RoleServer;
use rmcp::model::{
    ClientCapabilities, ClientResult, ErrorData, Extensions, GetExtensions as _, InputRequest, InputRequests,
    InputResponses, LoggingLevel, ProgressToken, ServerNotification, ServerRequest,
};
use rmcp::service::{Peer, ServiceError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::operations::redaction::Secrets;
use crate::proxy::failure::CallError;
use crate::proxy::relay::Relay;

/// How long a client may take to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// Under which key a request of an upstream of the older generation stands among those that a client is to answer.
const ASKED_KEY: &str = "request";

/// What a client of the newer generation is to answer before the call goes on, and where its answers go.
pub(super) struct Round {
    pub(super) requests: InputRequests,
    pub(super) reply: oneshot::Sender<InputResponses>,
}

/// Where notifications go: the client's current request, while there is one.
#[derive(Default)]
pub(super) struct Outlet(Mutex<Option<(Peer<RoleServer>, Option<ProgressToken>)>>);

impl Outlet {
    pub(super) fn to(peer: Peer<RoleServer>, token: Option<ProgressToken>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some((peer, token)))))
    }

    /// Another request of the client is the current one; or none is.
    pub(super) fn set(&self, to: Option<(Peer<RoleServer>, Option<ProgressToken>)>) {
        *self.0.lock() = to;
    }

    fn get(&self) -> Option<(Peer<RoleServer>, Option<ProgressToken>)> {
        self.0.lock().clone()
    }

    pub(super) async fn notify(&self, notification: ServerNotification) {
        let Some((peer, token)) = self.get() else { return };
        let notification = match (notification, token) {
            (ServerNotification::ProgressNotification(mut progress), Some(token)) => {
                progress.params.progress_token = token;
                ServerNotification::ProgressNotification(progress)
            }
            // Nobody asked for it.
            (ServerNotification::ProgressNotification(_), None) => return,
            (notification, _) => notification,
        };
        let _ = peer.send_notification(notification).await;
    }
}

/// Stands behind one call.
pub(super) struct CallRelay {
    pub(super) outlet: Arc<Outlet>,
    pub(super) capabilities: ClientCapabilities,
    pub(super) secrets: Arc<Secrets>,
    /// Below which log messages are dropped.
    pub(super) level: Option<LoggingLevel>,
    /// For a client of the newer generation, which is asked with the answer to its request.
    pub(super) rounds: Option<mpsc::Sender<Round>>,
}

impl CallRelay {
    /// Has the client answer what the upstream wants to know before it goes on.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub(super) async fn gather(&self, requests: InputRequests) -> Result<InputResponses, CallError> {
        let requests = without_secrets(&self.secrets, requests).ok_or(CallError::Cancelled)?;
        if self.rounds.is_some() {
            return self.round(requests).await;
        }
        let mut responses = BTreeMap::new();
        for (key, request) in requests {
            let answer = self.ask_now(as_asked(request)).await.map_err(unanswered)?;
            let answer =
                serde_json::to_value(answer).map_err(|error| CallError::Malformed(error.to_string()))?;
            responses.insert(key, answer);
        }
        Ok(responses)
    }

    async fn round(&self, requests: InputRequests) -> Result<InputResponses, CallError> {
        let gone = || CallError::Cancelled;
        let rounds = self.rounds.as_ref().ok_or_else(gone)?;
        let (reply, answered) = oneshot::channel();
        rounds.send(Round { requests, reply }).await.map_err(|_| gone())?;
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(answered) => answered.map_err(|_| gone()),
            Err(_) => Err(CallError::TimedOut),
        }
    }

    /// Asks a client of the older generation, from within the request that it made.
    async fn ask_now(&self, mut request: ServerRequest) -> Result<ClientResult, ErrorData> {
        if !may_be_asked(&self.capabilities, &request) {
            return Err(ErrorData::missing_required_client_capability(required_for(&request)));
        }
        let Some((peer, _)) = self.outlet.get() else {
            return Err(ErrorData::internal_error("the client is gone", None));
        };
        // What belongs to the upstream's connection stays there.
        *request.extensions_mut() = Extensions::new();
        match timeout(ANSWER_TIMEOUT, peer.send_request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(ServiceError::McpError(error))) => Err(error),
            Ok(Err(error)) => Err(ErrorData::internal_error(error.to_string(), None)),
            Err(_) => Err(ErrorData::internal_error("the client did not answer in time", None)),
        }
    }

    async fn answer(&self, request: ServerRequest) -> Result<ClientResult, ErrorData> {
        let secret = || ErrorData::invalid_request("the request consists of secrets", None);
        let request = without_secrets(&self.secrets, request).ok_or_else(secret)?;
        if self.rounds.is_none() {
            return self.ask_now(request).await;
        }
        if !may_be_asked(&self.capabilities, &request) {
            return Err(ErrorData::missing_required_client_capability(required_for(&request)));
        }
        let Some(request) = as_input(request) else {
            return Err(ErrorData::invalid_request("this is nothing that a client answers", None));
        };
        let requests = BTreeMap::from([(ASKED_KEY.to_owned(), request.clone())]);
        let answers = self.round(requests).await;
        let answers = answers.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        let answer = answers.get(ASKED_KEY).cloned().unwrap_or_default();
        let read = match request {
            InputRequest::Elicitation(_) => read(answer).map(ClientResult::ElicitResult),
            InputRequest::CreateMessage(_) => {
                read(answer).map(Box::new).map(ClientResult::CreateMessageResult)
            }
            InputRequest::ListRoots(_) => read(answer).map(ClientResult::ListRootsResult),
            _ => None,
        };
        read.ok_or_else(|| ErrorData::invalid_params("the client's answer cannot be read", None))
    }
}

impl Relay for CallRelay {
    fn capabilities(&self) -> ClientCapabilities {
        self.capabilities.clone()
    }

    fn notified(&self, notification: ServerNotification) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if is_loud_enough(&notification, self.level)
                && let Some(notification) = without_secrets(&self.secrets, notification)
            {
                self.outlet.notify(notification).await;
            }
        })
    }

    fn asked(&self, request: ServerRequest) -> BoxFuture<'_, Result<ClientResult, ErrorData>> {
        Box::pin(self.answer(request))
    }
}

/// Stands behind a connection that one client has for itself.
pub(super) struct ClientRelay {
    pub(super) peer: Peer<RoleServer>,
    pub(super) capabilities: ClientCapabilities,
    pub(super) level: Arc<Mutex<Option<LoggingLevel>>>,
    /// Changes notifications for the client, or keeps them from it.
    pub(super) translate: Box<dyn Fn(ServerNotification) -> Option<ServerNotification> + Send + Sync>,
}

impl Relay for ClientRelay {
    fn capabilities(&self) -> ClientCapabilities {
        self.capabilities.clone()
    }

    fn notified(&self, notification: ServerNotification) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let level = *self.level.lock();
            if is_loud_enough(&notification, level)
                && let Some(notification) = (self.translate)(notification)
            {
                let _ = self.peer.send_notification(notification).await;
            }
        })
    }

    fn asked(&self, mut request: ServerRequest) -> BoxFuture<'_, Result<ClientResult, ErrorData>> {
        Box::pin(async move {
            if !may_be_asked(&self.capabilities, &request) {
                return Err(ErrorData::missing_required_client_capability(required_for(&request)));
            }
            *request.extensions_mut() = Extensions::new();
            match timeout(ANSWER_TIMEOUT, self.peer.send_request(request)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(ServiceError::McpError(error))) => Err(error),
                _ => Err(ErrorData::internal_error("the client did not answer", None)),
            }
        })
    }
}

fn is_loud_enough(notification: &ServerNotification, level: Option<LoggingLevel>) -> bool {
    match (notification, level) {
        (ServerNotification::LoggingMessageNotification(message), Some(level)) => {
            loudness(message.params.level) >= loudness(level)
        }
        _ => true,
    }
}

const fn loudness(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}

fn may_be_asked(capabilities: &ClientCapabilities, request: &ServerRequest) -> bool {
    match request {
        ServerRequest::CreateMessageRequest(_) => capabilities.sampling.is_some(),
        ServerRequest::ElicitRequest(_) => capabilities.elicitation.is_some(),
        ServerRequest::ListRootsRequest(_) => capabilities.roots.is_some(),
        _ => true,
    }
}

fn required_for(request: &ServerRequest) -> ClientCapabilities {
    match request {
        ServerRequest::CreateMessageRequest(_) => ClientCapabilities::builder().enable_sampling().build(),
        ServerRequest::ListRootsRequest(_) => ClientCapabilities::builder().enable_roots().build(),
        _ => ClientCapabilities::builder().enable_elicitation().build(),
    }
}

fn unanswered(error: ErrorData) -> CallError {
    CallError::Refused { code: error.code.0, message: error.message.into_owned(), data: error.data }
}

fn as_asked(request: InputRequest) -> ServerRequest {
    match request {
        InputRequest::CreateMessage(request) => ServerRequest::CreateMessageRequest(request),
        InputRequest::ListRoots(request) => ServerRequest::ListRootsRequest(request),
        InputRequest::Elicitation(request) => ServerRequest::ElicitRequest(request),
        _ => ServerRequest::PingRequest(rmcp::model::PingRequest::default()),
    }
}

fn as_input(request: ServerRequest) -> Option<InputRequest> {
    match request {
        ServerRequest::CreateMessageRequest(request) => Some(InputRequest::CreateMessage(request)),
        ServerRequest::ListRootsRequest(request) => Some(InputRequest::ListRoots(request)),
        ServerRequest::ElicitRequest(request) => Some(InputRequest::Elicitation(request)),
        _ => None,
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// The same without the secrets of the call, which the upstream may repeat anywhere; none if it is nothing without them.
fn without_secrets<T: Serialize + DeserializeOwned>(secrets: &Secrets, message: T) -> Option<T> {
    if secrets.is_empty() {
        return Some(message);
    }
    let mut value = serde_json::to_value(&message).ok()?;
    secrets.hide_all(&mut value);
    serde_json::from_value(value).ok()
}
