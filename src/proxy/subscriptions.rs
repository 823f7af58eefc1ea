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
    ClientRequest, ServerCapabilities, ServerNotification, SubscribeRequest, SubscribeRequestParams,
    SubscriptionFilter, UnsubscribeRequest, UnsubscribeRequestParams,
};
use rmcp::service::Peer;
use tokio::sync::{broadcast, watch};
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

impl Connection {
    /// What the upstream tells from now on, of those who share the connection; `None` on a connection of one client's alone,
    /// who is told anyway.
    #[must_use]
    pub fn listen(&self) -> Option<broadcast::Receiver<ServerNotification>> {
        let heard = self.hub.as_ref()?.listen();
        if let Some(subscriptions) = self.subscriptions() {
            subscriptions.want(|wanted| !std::mem::replace(&mut wanted.lists, true));
        }
        Some(heard)
    }

    /// Waits until an upstream of the newer generation has said that it tells of everything that is wanted, but not for long.
    /// Whether something may have been missed meanwhile.
    pub async fn settle(&self) -> bool {
        let Some(subscriptions) = self.subscriptions() else { return false };
        let mut is_told = subscriptions.is_told.clone();
        if *is_told.borrow_and_update() {
            return false;
        }
        let _ = timeout(LISTEN_TIMEOUT, is_told.wait_for(|is_told| *is_told)).await;
        true
    }

    /// Wants to be told when a resource changes. Who stands behind the connection is told.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn subscribe(&self, uri: String) -> Result<(), CallError> {
        self.touch();
        if self.hub.as_ref().is_some_and(|hub| !hub.want(&uri)) {
            return Ok(()); // Somebody did before.
        }
        if let Some(subscriptions) = self.subscriptions() {
            let mut has_room = true;
            subscriptions.want(|wanted| {
                has_room = wanted.uris.len() < SUBSCRIPTION_COUNT_MAX || wanted.uris.contains(&uri);
                has_room && wanted.uris.insert(uri)
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
        self.touch();
        if self.hub.as_ref().is_some_and(|hub| !hub.unwant(&uri)) {
            return Ok(()); // Somebody still wants to.
        }
        if let Some(subscriptions) = self.subscriptions() {
            subscriptions.want(|wanted| wanted.uris.remove(&uri));
            return Ok(());
        }
        let request = UnsubscribeRequest::new(UnsubscribeRequestParams::new(uri));
        self.ask(ClientRequest::UnsubscribeRequest(request), Talk::default()).await.map(|_| ())
    }

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

    fn subscriptions(&self) -> Option<&Subscriptions> {
        match &self.speech {
            Speech::Mcp(voice) => voice.wanted.as_ref(),
            Speech::Plain(_) => None,
        }
    }
}

/// What an upstream of the newer generation is to tell of.
#[derive(Debug, Default)]
struct Wanted {
    /// Whether its lists are wanted.
    lists: bool,
    /// Its resources.
    uris: BTreeSet<String>,
}

/// Asks an upstream of the newer generation to tell, for as long as the connection lives and somebody wants to hear.
pub(super) struct Subscriptions {
    wanted: watch::Sender<Wanted>,
    /// Whether the upstream said that it tells of just that.
    is_told: watch::Receiver<bool>,
    told: Arc<watch::Sender<bool>>,
}

impl Subscriptions {
    /// Starts on this thread. A client that has the connection for itself wants to hear from the start.
    pub(super) fn start(
        peer: Peer<RoleClient>,
        capabilities: &ServerCapabilities,
        relay: Arc<dyn Relay>,
    ) -> Self {
        let is_shared = Arc::clone(&relay).as_hub().is_some();
        let (wanted, changes) = watch::channel(Wanted { lists: !is_shared, uris: BTreeSet::new() });
        let (told, is_told) = watch::channel(false);
        let told = Arc::new(told);
        tokio::spawn(listen(peer, lists_of(capabilities), relay, changes, Arc::clone(&told)));
        Self { wanted, is_told, told }
    }

    fn want(&self, change: impl FnOnce(&mut Wanted) -> bool) {
        self.wanted.send_if_modified(|wanted| {
            let is_other = change(wanted);
            if is_other {
                self.told.send_replace(false);
            }
            is_other
        });
    }
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
    mut changes: watch::Receiver<Wanted>,
    told: Arc<watch::Sender<bool>>,
) {
    loop {
        let mut filter = SubscriptionFilter::new();
        {
            let wanted = changes.borrow_and_update();
            if wanted.lists {
                filter = lists.clone();
            }
            let uris: Vec<String> = wanted.uris.iter().cloned().collect();
            filter.resource_subscriptions = Some(uris).filter(|uris| !uris.is_empty());
        }
        if filter == SubscriptionFilter::new() {
            told.send_replace(true); // There is nothing to tell.
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        let hear = async {
            let Ok(Ok(mut subscription)) = timeout(LISTEN_TIMEOUT, peer.listen(filter)).await else {
                return;
            };
            told.send_replace(true);
            while let Ok(Some(notification)) = subscription.next().await {
                relay.notified(notification).await;
            }
            told.send_replace(false);
        };
        tokio::select! {
            () = hear => {
                if peer.is_transport_closed() {
                    return;
                }
                sleep(PAUSE).await;
            }
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
