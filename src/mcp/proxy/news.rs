//! What changes: clients are told when the tools that they may call, or what they subscribed to, are not what they were.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rmcp::model::{ErrorData, ServerNotification};
use rmcp::service::SubscriptionContext;
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

use super::client::translate;
use super::lists::whose_resource;
use super::reach::{reach, unreached, upstreams_of};
use super::visit::{Visit, refused};
use crate::domain::calls::{Method, may_call, policy_name};
use crate::domain::id::SessionId;
use crate::domain::policies;
use crate::domain::upstreams::{ToolStanding, UpstreamName};
use crate::ledger::world::World;
use crate::operations::calls::CallRequest;
use crate::operations::policies::explain;
use crate::operations::reaching::{look, look_again};
use crate::proxy::connection::Connection;
use crate::proxy::failure::CallError;

/// A busy ledger changes thousands of times a second; nobody wants to hear more often than so.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a connection is looked after over which something may be told.
const CARE: Duration = Duration::from_secs(20);

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
///
/// # Errors
///
/// When the session has ended or may not be told of a resource, or the only upstream is not reached.
pub(super) async fn tell(visit: &Visit, context: &SubscriptionContext) -> Result<(), ErrorData> {
    let mut tools = Watched::new(visit);
    let mut sources = Vec::new();
    for upstream in upstreams_of(visit) {
        match Source::open(visit, context, &upstream).await {
            Ok(source) => sources.extend(source),
            Err(error) if visit.only.is_some() => return Err(error),
            Err(_) => {}
        }
    }
    let mut stopping = visit.app.is_stopping.subscribe();
    let wants_tools = context.accepted().tools_list_changed == Some(true);
    let told_of_tools = async {
        if !wants_tools {
            return std::future::pending().await;
        }
        loop {
            tools.changed(visit).await;
            if context.sink().notify_tool_list_changed().await.is_err() {
                return;
            }
        }
    };
    let told = async {
        join_all(sources.iter_mut().map(|source| source.pass_on(visit, context))).await;
        // There are none.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = told_of_tools => {}
        () = told => {}
        () = context.cancelled() => {}
        _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
    }
    Ok(())
}

/// An upstream that a client wants to hear from. Dropped, it is not wanted any more.
struct Source {
    upstream: UpstreamName,
    connection: Arc<Connection>,
    heard: broadcast::Receiver<ServerNotification>,
    /// The resources that the client wants to be told of, as the upstream calls them.
    uris: Vec<String>,
}

impl Source {
    /// Connects to an upstream, if there is anything to hear.
    async fn open(
        visit: &Visit,
        context: &SubscriptionContext,
        upstream: &UpstreamName,
    ) -> Result<Option<Self>, ErrorData> {
        let accepted = context.accepted();
        let mut wanted = Vec::new();
        for uri in accepted.resource_subscriptions.iter().flatten() {
            let (whose, uri) = may_subscribe(visit, uri)?;
            if whose == *upstream {
                wanted.push(uri);
            }
        }
        let lists =
            [accepted.tools_list_changed, accepted.prompts_list_changed, accepted.resources_list_changed];
        if wanted.is_empty() && !lists.contains(&Some(true)) {
            return Ok(None);
        }
        let connection = reach(visit, upstream, &|_| None).await?;
        let Some(heard) = connection.listen() else { return Ok(None) };
        let mut source = Self { upstream: upstream.clone(), connection, heard, uris: Vec::new() };
        source.subscribe(wanted).await.map_err(|error| unreached(&error))?;
        if source.connection.settle().await {
            source.catch_up(visit, context).await;
        }
        Ok(Some(source))
    }

    async fn subscribe(&mut self, uris: Vec<String>) -> Result<(), CallError> {
        for uri in uris {
            self.connection.subscribe(uri.clone()).await?;
            self.uris.push(uri);
        }
        Ok(())
    }

    /// Connects again to an upstream that was away.
    async fn reopen(&mut self, visit: &Visit, context: &SubscriptionContext) {
        let Ok(connection) = reach(visit, &self.upstream, &|_| None).await else { return };
        let Some(heard) = connection.listen() else { return };
        self.connection = connection;
        self.heard = heard;
        let uris = std::mem::take(&mut self.uris);
        // What cannot be subscribed to any more is not told of.
        let _ = self.subscribe(uris).await;
        self.catch_up(visit, context).await;
    }

    /// Tells of what may have changed before the upstream told of it.
    async fn catch_up(&self, visit: &Visit, context: &SubscriptionContext) {
        self.look(visit, true).await;
        // What was not asked for is not sent.
        let _ = context.sink().notify_prompt_list_changed().await;
        let _ = context.sink().notify_resource_list_changed().await;
    }

    /// Passes on what the upstream tells. Never ends.
    async fn pass_on(&mut self, visit: &Visit, context: &SubscriptionContext) {
        let of_all = visit.only.is_none().then(|| self.upstream.clone());
        loop {
            let heard = tokio::select! {
                heard = self.heard.recv() => heard,
                () = sleep(CARE) => {
                    if self.connection.is_closed() {
                        self.reopen(visit, context).await;
                    }
                    // It is used, although nothing is asked.
                    self.connection.touch();
                    continue;
                }
            };
            let Ok(notification) = heard else {
                // There was more than could be passed on.
                self.catch_up(visit, context).await;
                continue;
            };
            let mut have_tools_changed = false;
            let passed = translate(notification, of_all.as_ref(), || have_tools_changed = true);
            if have_tools_changed {
                self.look(visit, false).await;
            }
            if let Some(notification) = passed {
                let _ = context.sink().send(notification).await;
            }
        }
    }

    /// Looks at the upstream's tools.
    async fn look(&self, visit: &Visit, at_any_rate: bool) {
        let Visit { app, caller, .. } = visit;
        let looked = if at_any_rate {
            look(app, &caller.tenant, &self.upstream, &self.connection).await
        } else {
            look_again(app, &caller.tenant, &self.upstream, &self.connection).await
        };
        if let Err(error) = looked {
            tracing::warn!(upstream = %self.upstream, %error, "an upstream's tools were not recorded");
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let (connection, uris) = (Arc::clone(&self.connection), std::mem::take(&mut self.uris));
        if uris.is_empty() {
            return;
        }
        tokio::spawn(async move {
            for uri in uris {
                // It may be gone.
                let _ = connection.unsubscribe(uri).await;
            }
        });
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
