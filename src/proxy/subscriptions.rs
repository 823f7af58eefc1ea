//! What somebody wants to hear about: resources and lists that change.
//!
//! In the older generation an upstream is told of each resource, and tells of lists by itself. In the newer one it is asked
//! to tell of everything at once, and asked anew when that changes.

#![expect(deprecated, reason = "what the newer generation does without is spoken, too")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::{
    ClientRequest, ServerCapabilities, SubscribeRequest, SubscribeRequestParams, SubscriptionFilter,
    UnsubscribeRequest, UnsubscribeRequestParams,
};
use rmcp::service::Peer;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::establish::Speech;
use super::failure::CallError;
use super::relay::{Relay, Talk};

/// How long an upstream may take to say that it listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before an upstream that stopped to tell is asked again.
const PAUSE: Duration = Duration::from_secs(5);
/// Resources that somebody is told of, on one connection.
pub const SUBSCRIPTION_COUNT_MAX: usize = 1024;

/// The resources that somebody wants to be told of.
pub(super) type Wanted = watch::Sender<BTreeSet<String>>;

impl Connection {
    /// Tells the upstream that the directories that whoever stands behind the connection works in are others. The newer
    /// generation knows nothing of the kind.
    ///
    /// # Errors
    ///
    /// [`CallError::NotSent`].
    pub async fn roots_changed(&self) -> Result<(), CallError> {
        let Speech::Mcp(voice) = &self.speech else { return Ok(()) };
        if voice.is_stateless() {
            return Ok(());
        }
        let told = voice.peer.notify_roots_list_changed().await;
        told.map_err(|error| CallError::NotSent(error.to_string()))
    }

    /// Wants to be told when a resource changes. Who stands behind the connection is told.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn subscribe(&self, uri: String) -> Result<(), CallError> {
        if let Speech::Mcp(voice) = &self.speech
            && let Some(wanted) = &voice.wanted
        {
            self.touch();
            let mut has_room = true;
            wanted.send_if_modified(|uris| {
                has_room = uris.len() < SUBSCRIPTION_COUNT_MAX || uris.contains(&uri);
                has_room && uris.insert(uri)
            });
            let too_many = || CallError::NotSent("too many resources are subscribed to already".to_owned());
            return if has_room { Ok(()) } else { Err(too_many()) };
        }
        let request = SubscribeRequest::new(SubscribeRequestParams::new(uri));
        self.ask(ClientRequest::SubscribeRequest(request), Talk::default()).await.map(|_| ())
    }

    /// Does not want to be told of a resource any more.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn unsubscribe(&self, uri: String) -> Result<(), CallError> {
        if let Speech::Mcp(voice) = &self.speech
            && let Some(wanted) = &voice.wanted
        {
            self.touch();
            wanted.send_if_modified(|uris| uris.remove(&uri));
            return Ok(());
        }
        let request = UnsubscribeRequest::new(UnsubscribeRequestParams::new(uri));
        self.ask(ClientRequest::UnsubscribeRequest(request), Talk::default()).await.map(|_| ())
    }
}

/// Asks an upstream of the newer generation to tell, for as long as the connection lives and somebody wants to hear.
pub(super) fn start(
    peer: Peer<RoleClient>,
    capabilities: &ServerCapabilities,
    relay: Arc<dyn Relay>,
) -> Wanted {
    let lists = lists_of(capabilities);
    let (wanted, changes) = watch::channel(BTreeSet::new());
    tokio::spawn(listen(peer, lists, relay, changes));
    wanted
}

/// The lists that an upstream tells of.
fn lists_of(capabilities: &ServerCapabilities) -> SubscriptionFilter {
    let mut lists = SubscriptionFilter::new();
    let tells = |tells: Option<bool>| tells.filter(|tells| *tells);
    lists.tools_list_changed = capabilities.tools.as_ref().and_then(|it| tells(it.list_changed));
    lists.prompts_list_changed = capabilities.prompts.as_ref().and_then(|it| tells(it.list_changed));
    lists.resources_list_changed = capabilities.resources.as_ref().and_then(|it| tells(it.list_changed));
    lists
}

async fn listen(
    peer: Peer<RoleClient>,
    lists: SubscriptionFilter,
    relay: Arc<dyn Relay>,
    mut wanted: watch::Receiver<BTreeSet<String>>,
) {
    loop {
        let uris: Vec<String> = wanted.borrow_and_update().iter().cloned().collect();
        let mut filter = lists.clone();
        filter.resource_subscriptions = Some(uris).filter(|uris| !uris.is_empty());
        if filter == SubscriptionFilter::new() {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        let told = async {
            let Ok(Ok(mut subscription)) = timeout(LISTEN_TIMEOUT, peer.listen(filter)).await else {
                return;
            };
            while let Ok(Some(notification)) = subscription.next().await {
                relay.notified(notification).await;
            }
        };
        tokio::select! {
            () = told => {
                if peer.is_transport_closed() {
                    return;
                }
                sleep(PAUSE).await;
            }
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}
