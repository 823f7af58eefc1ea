//! What an upstream says on its own: to whom it goes.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rmcp::model::{
    ClientCapabilities, ClientResult, ErrorData, RequestMetaObject, ServerNotification, ServerRequest,
};

use super::hub::Hub;

/// Somebody who stands behind a call, or behind a connection: usually a client of ours.
pub trait Relay: Send + Sync {
    /// What may be asked.
    fn capabilities(&self) -> ClientCapabilities;

    /// Takes a notification: progress, a log message, a list or a resource that changed. The token of progress is that of
    /// the connection.
    fn notified(&self, notification: ServerNotification) -> BoxFuture<'_, ()>;

    /// Answers a request: sampling, elicitation, roots.
    fn asked(&self, request: ServerRequest) -> BoxFuture<'_, Result<ClientResult, ErrorData>>;

    /// Whether a request of the upstream that names no call can only be for the last one that was made.
    fn is_of_one(&self) -> bool {
        true
    }

    /// The hub, if that is what this is.
    fn as_hub(self: Arc<Self>) -> Option<Arc<Hub>> {
        None
    }
}

/// What goes with a request beside its parameters. Nothing by default.
#[derive(Default)]
pub struct Talk<'a> {
    /// Who stands behind it. Without anybody, notifications are dropped and requests are refused.
    pub relay: Option<&'a dyn Relay>,
    /// What the client can be asked, where an upstream is told with each request; what the connection was made with unless
    /// given.
    pub capabilities: Option<ClientCapabilities>,
    /// The metadata that the client gave. What belongs to the connection is replaced.
    pub meta: RequestMetaObject,
}

impl<'a> Talk<'a> {
    /// With somebody behind it, and no metadata.
    #[must_use]
    pub fn with(relay: &'a dyn Relay) -> Self {
        Self {
            relay: Some(relay),
            capabilities: Some(relay.capabilities()),
            meta: RequestMetaObject::default(),
        }
    }
}
