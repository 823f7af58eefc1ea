//! What changes: clients are told when the tools that they may call, or what they subscribed to, are not what they were.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rmcp::model::{ClientCapabilities, ClientResult, ErrorData, ServerNotification, ServerRequest};
use rmcp::service::{SubscriptionContext, SubscriptionSink};
use tokio::sync::watch;
use tokio::time::sleep;

use super::client::{Look, translate};
use super::lists::whose_resource;
use super::reach::{unreached, upstreams_of};
use super::visit::{Visit, refused};
use crate::domain::calls::{Method, may_call, policy_name};
use crate::domain::id::SessionId;
use crate::domain::policies;
use crate::domain::upstreams::{ToolStanding, UpstreamName};
use crate::ledger::world::World;
use crate::operations::calls::CallRequest;
use crate::operations::policies::explain;
use crate::operations::reaching::reach;
use crate::proxy::relay::Relay;

/// A busy ledger changes thousands of times a second; nobody wants to hear more often than so.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells a client of the older generation whenever its tools are others, until it is gone.
pub(super) async fn tell_of_tools(visit: Visit, mut alive: watch::Receiver<()>) {
    let told = async {
        let mut tools = Watched::new(&visit);
        loop {
            tools.changed(&visit).await;
            if visit.peer.notify_tool_list_changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = told => {}
        // Nothing is ever sent: this ends when the client does.
        _ = alive.changed() => {}
    }
}

/// Tells a client of the newer generation what it wants to hear, until it does not want to any more.
pub(super) async fn tell(visit: &Visit, context: &SubscriptionContext, of: String) -> Result<(), ErrorData> {
    let session_id = visit.live_session()?;
    let accepted = context.accepted();
    let uris = accepted.resource_subscriptions.clone().unwrap_or_default();
    for uri in &uris {
        may_subscribe(visit, uri)?;
    }
    let wants_lists =
        accepted.prompts_list_changed == Some(true) || accepted.resources_list_changed == Some(true);
    let closing = Closing { visit, of: of.clone() };
    for upstream in upstreams_of(visit) {
        let its: Vec<String> = uris
            .iter()
            .filter_map(|uri| whose_resource(visit, uri))
            .filter_map(|(whose, uri)| (whose == upstream).then_some(uri))
            .collect();
        if its.is_empty() && !wants_lists {
            continue;
        }
        let relay = ListenRelay::new(visit, context.sink().clone(), &upstream, &of);
        let reached =
            reach(&visit.app, &visit.caller, &session_id, &upstream, Some(of.clone()), Some(Arc::new(relay)));
        let connection = match reached.await.map_err(|error| refused(&error))? {
            Ok(connection) => connection,
            Err(error) if visit.only.is_some() => return Err(unreached(&error)),
            Err(_) => continue,
        };
        for uri in its {
            connection.subscribe(uri).await.map_err(|error| unreached(&error))?;
        }
    }
    let mut stopping = visit.app.is_stopping.subscribe();
    let told = async {
        if accepted.tools_list_changed != Some(true) {
            return std::future::pending().await;
        }
        let mut tools = Watched::new(visit);
        loop {
            tools.changed(visit).await;
            if context.sink().notify_tool_list_changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = told => {}
        () = context.cancelled() => {}
        _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
    }
    drop(closing);
    Ok(())
}

/// Closes the connections of a subscription.
struct Closing<'a> {
    visit: &'a Visit,
    of: String,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.visit.app.upstreams.close_of(&self.of);
    }
}

/// Whether a session may be told of a resource: only if it may read it now.
///
/// # Errors
///
/// When it may not.
pub(super) fn may_subscribe(visit: &Visit, uri: &str) -> Result<(UpstreamName, String), ErrorData> {
    let unknown = || ErrorData::resource_not_found("there is no such resource", None);
    let (upstream, uri) = whose_resource(visit, uri).ok_or_else(unknown)?;
    let request = CallRequest {
        session_id: visit.session_id.clone(),
        method: Method::Resource,
        upstream: Some(upstream.to_string()),
        name: uri.clone(),
        arguments: serde_json::Map::new(),
        approval_id: None,
    };
    let explained = explain(&visit.app, &visit.caller, request).map_err(|error| refused(&error))?;
    if explained.verdict != "authorized" {
        let data = serde_json::json!({"blocked_by": "haldir"});
        return Err(ErrorData::invalid_request(explained.reason, Some(data)));
    }
    Ok((upstream, uri))
}

/// The tools that a session may call, as far as they were looked at.
struct Watched {
    worlds: watch::Receiver<World>,
    known: u64,
}

impl Watched {
    fn new(visit: &Visit) -> Self {
        Self { worlds: visit.app.ledger.watch(), known: fingerprint(visit) }
    }

    /// Waits until they are others.
    async fn changed(&mut self, visit: &Visit) {
        loop {
            if self.worlds.changed().await.is_err() {
                return std::future::pending().await;
            }
            sleep(PAUSE).await;
            self.worlds.mark_unchanged();
            let now = fingerprint(visit);
            if now != self.known {
                self.known = now;
                return;
            }
        }
    }
}

/// Tells apart what a session may call.
fn fingerprint(visit: &Visit) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Some(session_id) = SessionId::parse(&visit.session_id) else { return 0 };
    let _ = visit.app.with_tenant(&visit.caller.tenant, |tenant| {
        let Some(session) = tenant.sessions.get(&session_id) else { return };
        for (name, upstream) in tenant.upstreams.all() {
            if visit.only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            let trusted = upstream.tools().filter(|(_, tool)| tool.standing() == ToolStanding::Trusted);
            for (tool, pinned) in trusted {
                let is_hidden = policies::hides(&tenant.policies, &policy_name(Method::Tool, name, tool));
                if !is_hidden && may_call(session, name, tool) {
                    (name.as_str(), tool, pinned.pinned).hash(&mut hasher);
                }
            }
        }
    });
    hasher.finish()
}

/// Stands behind the connections of a subscription.
struct ListenRelay {
    sink: SubscriptionSink,
    of_all: Option<UpstreamName>,
    look: Look,
}

impl ListenRelay {
    fn new(visit: &Visit, sink: SubscriptionSink, upstream: &UpstreamName, of: &str) -> Self {
        let look = Look {
            app: Arc::downgrade(&visit.app),
            tenant: visit.caller.tenant.clone(),
            upstream: upstream.clone(),
            of: of.to_owned(),
        };
        Self { sink, of_all: visit.only.is_none().then(|| upstream.clone()), look }
    }
}

impl Relay for ListenRelay {
    fn capabilities(&self) -> ClientCapabilities {
        ClientCapabilities::default()
    }

    fn notified(&self, notification: ServerNotification) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // What was not asked for is not sent.
            if let Some(notification) = translate(notification, self.of_all.as_ref(), &self.look) {
                let _ = self.sink.send(notification).await;
            }
        })
    }

    fn asked(&self, _: ServerRequest) -> BoxFuture<'_, Result<ClientResult, ErrorData>> {
        let nobody = ErrorData::invalid_request("nobody answers here", None);
        Box::pin(std::future::ready(Err(nobody)))
    }
}
