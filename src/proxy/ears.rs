//! Who hears what an upstream says, on one connection.
//!
//! Each call in flight has an [`Ear`]. What belongs to a call is put into its ear in the order in which it came, and before
//! the answer, so that nothing overtakes anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rmcp::model::{
    ClientJsonRpcMessage, ClientResult, ErrorCode, ErrorData, Extensions, GetExtensions as _, GetMeta as _,
    JsonRpcMessage, ProgressToken, RequestId, ServerJsonRpcMessage, ServerNotification, ServerRequest,
};
use tokio::sync::{mpsc, oneshot};

use super::failure::CallError;
use super::relay::Relay;
use super::settings::HEARD_COUNT_MAX;

/// What an upstream says on its own.
pub(super) enum Heard {
    /// A notification.
    Notified(Box<ServerNotification>),
    /// A request, and where the answer goes.
    Asked(Box<ServerRequest>, oneshot::Sender<Result<ClientResult, ErrorData>>),
}

/// What a call in flight hears.
#[derive(Clone)]
pub(super) struct Ear {
    heard: mpsc::Sender<Heard>,
    is_sent: Arc<AtomicBool>,
    /// Nobody listens any more.
    is_over: Arc<AtomicBool>,
}

impl Ear {
    /// An ear, and what is heard with it.
    pub(super) fn new() -> (Self, mpsc::Receiver<Heard>) {
        let (heard, hearing) = mpsc::channel(HEARD_COUNT_MAX);
        (Self { heard, is_sent: Arc::default(), is_over: Arc::default() }, hearing)
    }

    /// Whether the request went to the transport.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Acquire)
    }

    /// Hands a request of the upstream over and waits for the answer.
    pub(super) async fn ask(&self, request: ServerRequest) -> Result<ClientResult, ErrorData> {
        let refusal = nobody_answers(&request);
        let (reply, answered) = oneshot::channel();
        let _ = self.heard.send(Heard::Asked(Box::new(request), reply)).await;
        answered.await.unwrap_or(Err(refusal))
    }
}

/// A call in flight.
struct InFlight {
    id: RequestId,
    token: Option<ProgressToken>,
    ear: Ear,
}

#[derive(Default)]
struct State {
    /// The oldest first.
    in_flight: Vec<InFlight>,
    /// Why calls fail, where the transport knows it better than the protocol can tell.
    faults: Vec<(RequestId, CallError)>,
    /// Why the whole connection ends.
    end: Option<CallError>,
}

/// The ears of one connection.
pub(super) struct Ears {
    state: Mutex<State>,
    /// What belongs to no call goes to whoever stands behind the connection.
    relay: Arc<dyn Relay>,
    notifications: mpsc::Sender<ServerNotification>,
    /// How often the upstream said that its tools changed.
    tool_changes: AtomicU64,
}

impl Ears {
    /// Ears of a connection that `relay` stands behind, whose notifications are forwarded on this thread.
    pub(super) fn new(relay: Arc<dyn Relay>) -> Arc<Self> {
        let (notifications, mut forwarded) = mpsc::channel::<ServerNotification>(HEARD_COUNT_MAX);
        let forwarding = Arc::clone(&relay);
        tokio::spawn(async move {
            while let Some(notification) = forwarded.recv().await {
                forwarding.notified(notification).await;
            }
        });
        Arc::new(Self { state: Mutex::default(), relay, notifications, tool_changes: AtomicU64::new(0) })
    }

    /// Whoever stands behind the connection.
    pub(super) fn relay(&self) -> &Arc<dyn Relay> {
        &self.relay
    }

    /// Notes what goes out. A request carries its ear until here.
    pub(super) fn going_out(&self, message: &ClientJsonRpcMessage) {
        let JsonRpcMessage::Request(request) = message else {
            return;
        };
        let Some(ear) = request.request.extensions().get::<Ear>().cloned() else {
            return;
        };
        ear.is_sent.store(true, Ordering::Release);
        let token = request.request.get_meta().get_progress_token();
        let mut state = self.state.lock();
        if !ear.is_over.load(Ordering::Acquire) {
            state.in_flight.push(InFlight { id: request.id.clone(), token, ear });
        }
    }

    /// Takes what is meant for an ear; gives back the rest.
    pub(super) fn coming_in(&self, message: ServerJsonRpcMessage) -> Option<ServerJsonRpcMessage> {
        let JsonRpcMessage::Notification(mut message) = message else {
            return Some(message);
        };
        if matches!(message.notification, ServerNotification::ToolListChangedNotification(_)) {
            self.tool_changes.fetch_add(1, Ordering::AcqRel);
        }
        let is_subscribed = message.notification.get_meta().subscription_id().is_some();
        let ear = match &message.notification {
            _ if is_subscribed => return Some(JsonRpcMessage::Notification(message)),
            ServerNotification::ProgressNotification(progress) => {
                let token = Some(&progress.params.progress_token);
                let state = self.state.lock();
                let Some(found) = state.in_flight.iter().find(|call| call.token.as_ref() == token) else {
                    return None; // The call is over, or never was.
                };
                Some(found.ear.clone())
            }
            ServerNotification::LoggingMessageNotification(_) => self.only_call(),
            ServerNotification::ResourceUpdatedNotification(_)
            | ServerNotification::ResourceListChangedNotification(_)
            | ServerNotification::ToolListChangedNotification(_)
            | ServerNotification::PromptListChangedNotification(_)
            | ServerNotification::CustomNotification(_) => None,
            _ => return Some(JsonRpcMessage::Notification(message)),
        };
        // What the transport adds belongs to the transport.
        *message.notification.extensions_mut() = Extensions::new();
        // An ear that is full belongs to somebody who does not listen.
        if let Some(ear) = ear {
            let _ = ear.heard.try_send(Heard::Notified(Box::new(message.notification)));
        } else {
            let _ = self.notifications.try_send(message.notification);
        }
        None
    }

    /// The call that an upstream most probably speaks of: the last one where one client has the connection for itself, else
    /// the only one.
    fn only_call(&self) -> Option<Ear> {
        let state = self.state.lock();
        match &state.in_flight[..] {
            [call] => Some(call.ear.clone()),
            [.., last] if self.relay.is_of_one() => Some(last.ear.clone()),
            _ => None,
        }
    }

    /// Whom a request of the upstream is for: the call that it came with; where that cannot be told, nobody but the one
    /// client who has the connection for itself.
    pub(super) fn addressee(&self, of: Option<&RequestId>) -> Option<Ear> {
        if let Some(of) = of {
            let state = self.state.lock();
            return state.in_flight.iter().find(|call| call.id == *of).map(|call| call.ear.clone());
        }
        if self.relay.is_of_one() { self.only_call() } else { None }
    }

    /// Notes why a call fails.
    pub(super) fn fail(&self, id: &RequestId, fault: CallError) {
        self.state.lock().faults.push((id.clone(), fault));
    }

    /// Notes why the connection ends, if nobody did before.
    pub(super) fn fail_all(&self, fault: CallError) {
        self.state.lock().end.get_or_insert(fault);
    }

    /// Why a call failed; or why the connection ended.
    pub(super) fn fault(&self, id: &RequestId) -> Option<CallError> {
        let state = self.state.lock();
        let own = state.faults.iter().rev().find(|(of, _)| of == id).map(|(_, fault)| fault);
        own.or(state.end.as_ref()).cloned()
    }

    /// The last reason that was noted; for a handshake, which knows no ids.
    pub(super) fn last_fault(&self) -> Option<CallError> {
        let state = self.state.lock();
        state.end.as_ref().or(state.faults.last().map(|(_, fault)| fault)).cloned()
    }

    /// Forgets a call, even one that goes out only later.
    pub(super) fn forget(&self, ear: &Ear) {
        let mut state = self.state.lock();
        ear.is_over.store(true, Ordering::Release);
        let State { in_flight, faults, .. } = &mut *state;
        for call in in_flight.extract_if(.., |call| Arc::ptr_eq(&call.ear.is_over, &ear.is_over)) {
            faults.retain(|(of, _)| *of != call.id);
        }
    }

    /// Forgets what happened during the handshake.
    pub(super) fn forget_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// How often the upstream said that its tools changed.
    pub(super) fn tool_change_count(&self) -> u64 {
        self.tool_changes.load(Ordering::Acquire)
    }

    /// How many calls are in flight.
    pub(super) fn in_flight_count(&self) -> usize {
        self.state.lock().in_flight.len()
    }
}

/// What an upstream hears that asks where nobody answers.
pub(super) fn nobody_answers(request: &ServerRequest) -> ErrorData {
    let method = match request {
        ServerRequest::CreateMessageRequest(_) => "sampling/createMessage",
        ServerRequest::ListRootsRequest(_) => "roots/list",
        ServerRequest::ElicitRequest(_) => "elicitation/create",
        ServerRequest::CustomRequest(request) => &request.method,
        _ => "ping",
    };
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method.to_owned(), None)
}
