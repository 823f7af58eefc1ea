//! A connection that speaks MCP.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rmcp::RoleClient;
use rmcp::model::{
    ClientRequest, GetExtensions as _, ProtocolVersion, RequestId, RequestMetaObject, ServerNotification,
    ServerPeerInfo, ServerResult,
};
use rmcp::service::{Peer, PeerRequestOptions, RequestHandle, RunningServiceCancellationToken, ServiceError};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::ears::{Ear, Ears, Heard, nobody_answers};
use super::failure::CallError;
use super::relay::Talk;
use super::settings::{RELAY_TIMEOUT, WAITING_COUNT_MAX};
use super::subscriptions::Subscriptions;

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Without a sign of progress.
    pub(super) quiet: Duration,
    /// Altogether.
    pub(super) altogether: Duration,
}

/// A connection that speaks MCP.
pub(super) struct Voice {
    pub(super) peer: Peer<RoleClient>,
    pub(super) ears: Arc<Ears>,
    pub(super) thread: Handle,
    pub(super) info: Arc<ServerPeerInfo>,
    pub(super) end: Mutex<Option<RunningServiceCancellationToken>>,
    pub(super) has_ended: watch::Receiver<bool>,
    pub(super) places: Semaphore,
    /// With an upstream of the newer generation: what whoever stands behind the connection wants to be told of.
    pub(super) wanted: Option<Subscriptions>,
}

impl Voice {
    pub(super) fn places() -> Semaphore {
        Semaphore::new(WAITING_COUNT_MAX)
    }

    /// Whether the upstream speaks the generation without sessions.
    pub(super) fn is_stateless(&self) -> bool {
        self.info.protocol_version >= ProtocolVersion::V_2026_07_28
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.has_ended.borrow() || self.peer.is_transport_closed()
    }

    /// Ends the connection; what is in flight is lost.
    pub(super) fn close(&self) {
        if let Some(end) = self.end.lock().take() {
            end.cancel();
        }
    }

    /// Asks, and hands over what the upstream says meanwhile. Dropped before it is done, it cancels the request.
    pub(super) async fn ask(
        &self,
        mut request: ClientRequest,
        talk: Talk<'_>,
        patience: Patience,
    ) -> Result<ServerResult, CallError> {
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| CallError::NotSent("too many requests wait for this upstream already".to_owned()))?;
        let (ear, mut hearing) = Ear::new();
        request.extensions_mut().insert(ear.clone());
        let options = PeerRequestOptions::no_options().with_meta(self.meta(&talk));
        let handle = self.peer.send_request_with_option(request, options).await;
        let handle = handle.map_err(|_| closed_before())?;
        let mut waiting = Waiting { handle: Some(handle), ear, voice: self };

        let mut replies = FuturesUnordered::<BoxFuture<'_, ()>>::new();
        let mut quiet = std::pin::pin!(sleep(patience.quiet));
        let mut altogether = std::pin::pin!(sleep(patience.altogether));
        let outcome = loop {
            tokio::select! {
                biased;
                Some(heard) = hearing.recv() => match heard {
                    Heard::Notified(notification) => {
                        if matches!(*notification, ServerNotification::ProgressNotification(_)) {
                            quiet.set(sleep(patience.quiet));
                        }
                        pass_on(&talk, *notification).await;
                    }
                    Heard::Asked(request, reply) => replies.push(Box::pin(async {
                        let answer = match talk.relay {
                            Some(relay) => relay.asked(*request).await,
                            None => Err(nobody_answers(&request)),
                        };
                        let _ = reply.send(answer);
                    })),
                },
                Some(()) = replies.next(), if !replies.is_empty() => quiet.set(sleep(patience.quiet)),
                outcome = waiting.response() => break outcome,
                // Somebody who is asked takes longer than a machine.
                () = &mut quiet, if replies.is_empty() => return Err(CallError::TimedOut),
                () = &mut altogether => return Err(CallError::TimedOut),
            }
        };
        while let Ok(heard) = hearing.try_recv() {
            if let Heard::Notified(notification) = heard {
                pass_on(&talk, *notification).await;
            }
        }
        let id = waiting.done();
        outcome.map_err(|error| match (error, id.and_then(|id| self.ears.fault(&id))) {
            (ServiceError::McpError(_), Some(CallError::TooLarge)) => CallError::TooLarge,
            (ServiceError::McpError(error), _) => CallError::refused(error),
            (_, Some(fault)) => fault,
            (error, None) => failure(&error, waiting.ear.is_sent()),
        })
    }

    /// What goes with a request: what the client gave, and what an upstream without sessions must be told each time.
    fn meta(&self, talk: &Talk<'_>) -> RequestMetaObject {
        let mut meta = talk.meta.clone();
        for key in meta.keys().filter(|key| is_of_the_connection(key)).cloned().collect::<Vec<_>>() {
            meta.remove(&key);
        }
        if self.is_stateless() {
            if let Some(capabilities) = &talk.capabilities {
                meta.set_client_capabilities(capabilities.clone());
            }
            if let Some(level) = talk.meta.log_level() {
                meta.set_log_level(level);
            }
        }
        meta
    }
}

/// Whether a key of metadata belongs to a connection, not to what is asked over it.
fn is_of_the_connection(key: &str) -> bool {
    key == "progressToken" || key.starts_with("io.modelcontextprotocol/")
}

async fn pass_on(talk: &Talk<'_>, notification: ServerNotification) {
    if let Some(relay) = talk.relay {
        // Who does not listen does not keep others waiting.
        let _ = timeout(RELAY_TIMEOUT, relay.notified(notification)).await;
    }
}

fn closed_before() -> CallError {
    CallError::NotSent("the connection is closed".to_owned())
}

fn failure(error: &ServiceError, is_sent: bool) -> CallError {
    match error {
        ServiceError::Cancelled { .. } => CallError::Cancelled,
        ServiceError::Timeout { .. } => CallError::TimedOut,
        ServiceError::UnexpectedResponse => CallError::Malformed("it answers something else".to_owned()),
        _ if !is_sent => closed_before(),
        ServiceError::TransportSend(_) => {
            CallError::Lost("the request could not be sent to its end".to_owned())
        }
        _ => CallError::Lost("the connection was closed".to_owned()),
    }
}

/// A request that is waited for. Dropped, it is forgotten, and cancelled if it was not done.
struct Waiting<'a> {
    handle: Option<RequestHandle<RoleClient>>,
    ear: Ear,
    voice: &'a Voice,
}

impl Waiting<'_> {
    async fn response(&mut self) -> Result<ServerResult, ServiceError> {
        match &mut self.handle {
            Some(handle) => (&mut handle.rx).await.unwrap_or(Err(ServiceError::TransportClosed)),
            None => Err(ServiceError::TransportClosed),
        }
    }

    /// Notes that nothing is to be cancelled.
    fn done(&mut self) -> Option<RequestId> {
        self.handle.take().map(|handle| handle.id)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.voice.ears.forget(&self.ear);
        if let Some(handle) = self.handle.take() {
            self.voice.thread.spawn(handle.cancel(Some("nobody waits for it any more".to_owned())));
        }
    }
}
