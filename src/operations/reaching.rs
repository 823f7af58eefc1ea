//! Reaching upstreams for what is not decided about call by call: their lists, completion, subscriptions.

use std::sync::Arc;

use super::calls::address_of;
use super::upstreams::{needs_secrets, observe, secrets_for, transport_of};
use super::{App, Caller, OperationError};
use crate::domain::calls::{Method, may_call, policy_name};
use crate::domain::id::{SessionId, TenantId};
use crate::domain::policies;
use crate::domain::upstreams::UpstreamName;
use crate::proxy::address::Line;
use crate::proxy::connection::Connection;
use crate::proxy::failure::CallError;
use crate::proxy::relay::Relay;

/// A connection to an upstream: the one that is there, or a new one, for which secrets in the upstream's settings are read
/// through the session. `of` is whose it shall be alone, with `relay` behind it.
///
/// # Errors
///
/// [`OperationError::NotFound`], [`OperationError::SessionDead`], and what reading secrets leads to; within, why the upstream is
/// not reached.
pub async fn reach(
    app: &Arc<App>,
    caller: &Caller,
    session_id: &SessionId,
    upstream: &UpstreamName,
    of: Option<String>,
    relay: Option<Arc<dyn Relay>>,
) -> Result<Result<Arc<Connection>, CallError>, OperationError> {
    let transport = transport_of(app, &caller.tenant, upstream)?;
    let of = of.or_else(|| needs_secrets(&transport).then(|| session_id.to_string()));
    let line = Line { tenant: caller.tenant.clone(), upstream: upstream.to_string(), of };
    if let Some(connection) = app.upstreams.connected(&line) {
        return Ok(Ok(connection));
    }
    let secrets = secrets_for(app, caller, &transport, Some(session_id.as_str())).await?;
    let connected = app.upstreams.connect(&line, address_of(&transport, &secrets), relay).await;
    let reached = connected.as_ref().map(|_| ()).map_err(ToString::to_string);
    app.upstream_health.note(&caller.tenant, upstream, app.ledger.clock().now(), reached);
    if let Ok(connection) = &connected {
        // Calls look again, if need be.
        let _ = look_again(app, &caller.tenant, upstream, connection).await?;
    }
    Ok(connected)
}

/// Looks at the tools of an upstream, if the connection is new or the upstream said that they changed, and takes note of them.
///
/// # Errors
///
/// As [`observe`]; within, why the tools cannot be looked at.
pub async fn look_again(
    app: &App,
    tenant: &TenantId,
    upstream: &UpstreamName,
    connection: &Connection,
) -> Result<Result<(), CallError>, OperationError> {
    if connection.news().is_none() {
        return Ok(Ok(()));
    }
    look(app, tenant, upstream, connection).await
}

/// The same at any rate.
///
/// # Errors
///
/// As [`observe`]; within, why the tools cannot be looked at.
pub async fn look(
    app: &App,
    tenant: &TenantId,
    upstream: &UpstreamName,
    connection: &Connection,
) -> Result<Result<(), CallError>, OperationError> {
    let news = connection.news();
    let tools = match connection.definitions().await {
        Ok(tools) => tools,
        Err(error) => return Ok(Err(error)),
    };
    observe(app, tenant, upstream, &tools).await?;
    if let Some(news) = news {
        connection.saw(news);
    }
    Ok(Ok(()))
}

/// Whether a session may call something at all: its scopes reach it, and no policy keeps it from everybody.
#[must_use]
pub fn may_see(
    app: &App,
    tenant: &TenantId,
    session_id: &SessionId,
    method: Method,
    upstream: &UpstreamName,
    name: &str,
) -> bool {
    let seen = app.with_tenant(tenant, |tenant| {
        let session = tenant.sessions.get(session_id);
        session.is_some_and(|session| may_call(session, upstream, name))
            && !policies::hides(&tenant.policies, &policy_name(method, upstream, name))
    });
    seen.unwrap_or(false)
}
