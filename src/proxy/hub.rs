//! Stands behind a connection that many share: whoever wants to hear what the upstream tells gets all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rmcp::model::{ClientCapabilities, ClientResult, ErrorData, ServerNotification, ServerRequest};
use tokio::sync::broadcast;

use super::ears::nobody_answers;
use super::relay::Relay;
use super::settings::HEARD_COUNT_MAX;

/// Those who share a connection.
pub struct Hub {
    capabilities: ClientCapabilities,
    is_of_one: bool,
    heard: broadcast::Sender<ServerNotification>,
    /// How many want to be told of each resource.
    wanted: Mutex<BTreeMap<String, usize>>,
}

impl Hub {
    /// Anybody, who can be asked nothing.
    pub(super) fn of_anybody() -> Arc<Self> {
        Self::new(ClientCapabilities::default(), false)
    }

    /// Requests of one client, which can be asked something for each.
    #[must_use]
    pub fn of_one(capabilities: ClientCapabilities) -> Arc<Self> {
        Self::new(capabilities, true)
    }

    fn new(capabilities: ClientCapabilities, is_of_one: bool) -> Arc<Self> {
        let heard = broadcast::Sender::new(HEARD_COUNT_MAX);
        Arc::new(Self { capabilities, is_of_one, heard, wanted: Mutex::default() })
    }

    /// What the upstream tells from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<ServerNotification> {
        self.heard.subscribe()
    }

    /// Takes note of one more who wants to be told of a resource; whether it is the first.
    pub(super) fn want(&self, uri: &str) -> bool {
        let mut wanted = self.wanted.lock();
        let count = wanted.entry(uri.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Takes note of one who does not want to be told any more; whether it was the last.
    pub(super) fn unwant(&self, uri: &str) -> bool {
        let mut wanted = self.wanted.lock();
        let Some(count) = wanted.get_mut(uri) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            wanted.remove(uri);
        }
        is_last
    }
}

impl Relay for Hub {
    fn capabilities(&self) -> ClientCapabilities {
        self.capabilities.clone()
    }

    fn notified(&self, notification: ServerNotification) -> BoxFuture<'_, ()> {
        // Nobody may be listening.
        let _ = self.heard.send(notification);
        Box::pin(std::future::ready(()))
    }

    fn asked(&self, request: ServerRequest) -> BoxFuture<'_, Result<ClientResult, ErrorData>> {
        Box::pin(std::future::ready(Err(nobody_answers(&request))))
    }

    fn is_of_one(&self) -> bool {
        self.is_of_one
    }

    fn as_hub(self: Arc<Self>) -> Option<Arc<Hub>> {
        Some(self)
    }
}
