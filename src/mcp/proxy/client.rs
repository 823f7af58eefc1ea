//! A client, for as long as it is connected; of the newer generation, for one request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use data_encoding::BASE64URL_NOPAD;
use parking_lot::Mutex;
use rmcp::model::{ClientCapabilities, LoggingLevel, ResourceUpdatedNotification, ServerNotification};
use tokio::sync::watch;

use super::names::outer_uri;
use super::outlet::ClientRelay;
use super::visit::Visit;
use crate::domain::id::TenantId;
use crate::domain::upstreams::UpstreamName;
use crate::operations::App;
use crate::operations::reaching::look_again;
use crate::proxy::address::Line;

/// A client.
pub(super) struct Client {
    app: Arc<App>,
    /// Whose connections to upstreams are its own.
    id: String,
    has_own: AtomicBool,
    level: Arc<Mutex<Option<LoggingLevel>>>,
    /// Gone when the client is gone.
    alive: watch::Sender<()>,
}

impl Client {
    pub(super) fn new(app: &Arc<App>) -> Self {
        let id = BASE64URL_NOPAD.encode(&app.ledger.random().bytes::<16>());
        Self {
            app: Arc::clone(app),
            id: format!("client-{id}"),
            has_own: AtomicBool::new(false),
            level: Arc::default(),
            alive: watch::Sender::new(()),
        }
    }

    /// Below which it wants no log messages.
    pub(super) fn level(&self) -> Option<LoggingLevel> {
        *self.level.lock()
    }

    pub(super) fn set_level(&self, level: LoggingLevel) {
        *self.level.lock() = Some(level);
    }

    /// Tells the client's upstreams that the directories that it works in are others.
    pub(super) async fn roots_changed(&self) {
        for connection in self.app.upstreams.connected_of(&self.id) {
            // Who is gone hears nothing.
            let _ = connection.roots_changed().await;
        }
    }

    /// Ends when the client is gone.
    pub(super) fn alive(&self) -> watch::Receiver<()> {
        self.alive.subscribe()
    }

    /// What stands behind a connection to an upstream that is this client's alone: it can then be asked and told at any time.
    pub(super) fn own(&self, visit: &Visit, upstream: &UpstreamName) -> Option<(String, ClientRelay)> {
        self.own_as(visit, visit.capabilities.clone(), upstream)
    }

    /// The same, for a client that said just now what it can be asked.
    pub(super) fn own_as(
        &self,
        visit: &Visit,
        capabilities: ClientCapabilities,
        upstream: &UpstreamName,
    ) -> Option<(String, ClientRelay)> {
        if visit.is_stateless {
            return None;
        }
        self.has_own.store(true, Ordering::Release);
        // Another session may have other secrets in it.
        let of = format!("{} {}", self.id, visit.session_id);
        let of_all = visit.only.is_none().then(|| upstream.clone());
        let look = Look {
            app: Arc::downgrade(&self.app),
            tenant: visit.caller.tenant.clone(),
            upstream: upstream.clone(),
            of: Some(of.clone()),
        };
        let relay = ClientRelay {
            peer: visit.peer.clone(),
            capabilities,
            level: Arc::clone(&self.level),
            translate: Box::new(move |notification| {
                translate(notification, of_all.as_ref(), || look.clone().spawn())
            }),
        };
        Some((of, relay))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.has_own.load(Ordering::Acquire) {
            self.app.upstreams.close_of(&self.id);
        }
    }
}

/// A notification as the client gets it. Of its tools the client is told by Haldir, which looks at them first.
pub(super) fn translate(
    notification: ServerNotification,
    of_all: Option<&UpstreamName>,
    look: impl FnOnce(),
) -> Option<ServerNotification> {
    match (notification, of_all) {
        (ServerNotification::ToolListChangedNotification(_), _) => {
            look();
            None
        }
        (ServerNotification::ResourceUpdatedNotification(mut updated), Some(upstream)) => {
            updated.params.uri = outer_uri(upstream, &updated.params.uri);
            let updated = ResourceUpdatedNotification::new(updated.params);
            Some(ServerNotification::ResourceUpdatedNotification(updated))
        }
        (notification, _) => Some(notification),
    }
}

/// A look at the tools of an upstream that says that they changed.
#[derive(Clone)]
struct Look {
    app: Weak<App>,
    tenant: TenantId,
    upstream: UpstreamName,
    of: Option<String>,
}

impl Look {
    fn spawn(self) {
        tokio::spawn(async move {
            let Some(app) = self.app.upgrade() else { return };
            let line = Line { tenant: self.tenant.clone(), upstream: self.upstream.to_string(), of: self.of };
            let Some(connection) = app.upstreams.connected(&line) else { return };
            if let Err(error) = look_again(&app, &self.tenant, &self.upstream, &connection).await {
                tracing::warn!(upstream = %self.upstream, %error, "an upstream's tools were not recorded");
            }
        });
    }
}
