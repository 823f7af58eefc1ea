//! Forwarding: what happens between a call's intent and its outcome.

use std::sync::Arc;

use serde_json::Value;

use super::calls::{Begun, CallAnswer, CallRequest, Intent, begin, finish, session_ends};
use super::reaching::look_again;
use super::retries::Retry;
use super::{App, Caller, OperationError, to_the_end};
use crate::domain::calls::Method;
use crate::domain::upstreams::ToolStanding;
use crate::proxy::connection::Connection;
use crate::proxy::failure::CallError;
use crate::proxy::relay::Relay;

/// Calls a tool, whether or not the caller waits for it: intent, effect and outcome.
///
/// # Errors
///
/// As [`begin`]; [`OperationError::Unavailable`] when the outcome cannot be recorded.
pub async fn call(
    app: Arc<App>,
    caller: Caller,
    request: CallRequest,
    retry: Option<Retry>,
) -> Result<CallAnswer, OperationError> {
    to_the_end(async move {
        let mut intent = match begin(&app, &caller, request, retry.as_ref()).await? {
            Begun::Forward(intent) => intent,
            Begun::Denied(denied) => return Ok(CallAnswer::Denied(denied)),
            Begun::Before(answer) => return Ok(answer),
        };
        let ended = forward(&app, &mut intent).await;
        finish(intent, ended).await
    })
    .await
}

async fn forward(app: &Arc<App>, intent: &mut Intent) -> Result<Value, CallError> {
    let session_id = intent.session_id().clone();
    let tenant = intent.line.tenant.clone();
    let forwarded = async {
        let connection = connect(app, intent, None).await?;
        connection.result_of(&intent.name, intent.arguments.clone()).await
    };
    tokio::select! {
        ended = forwarded => ended,
        () = session_ends(app, &tenant, &session_id) => Err(CallError::Cancelled),
    }
}

/// The connection for a call. If it is new, or the upstream said that its tools changed, they are looked at first: nothing is
/// sent to a tool that is not the one that was pinned.
///
/// # Errors
///
/// [`CallError::NotSent`].
pub async fn connect(
    app: &Arc<App>,
    intent: &mut Intent,
    relay: Option<Arc<dyn Relay>>,
) -> Result<Arc<Connection>, CallError> {
    let gone = || CallError::NotSent("the upstream was removed".to_owned());
    let address = intent.address.take().ok_or_else(gone)?;
    let connection = app.upstreams.connect(&intent.line, address, relay).await;
    let reached = connection.as_ref().map(|_| ()).map_err(ToString::to_string);
    app.upstream_health.note(&intent.line.tenant, &intent.upstream, app.ledger.clock().now(), reached);
    let connection = connection?;
    if connection.news().is_some() {
        let unseen = |error: &dyn std::error::Error| CallError::NotSent(error.to_string());
        let looked = look_again(app, &intent.line.tenant, &intent.upstream, &connection).await;
        looked.map_err(|error| unseen(&error))?.map_err(|error| unseen(&error))?;
        let standing = app.with_tenant(&intent.line.tenant, |tenant| {
            let upstream = tenant.upstreams.get(&intent.upstream)?;
            upstream.tool(&intent.name).map(crate::domain::upstreams::PinnedTool::standing)
        });
        let is_trusted = matches!(standing, Ok(Some(ToolStanding::Trusted)));
        if intent.method == Method::Tool && !is_trusted {
            let why = "its tool changed since it was pinned, and waits until somebody accepts it";
            return Err(CallError::NotSent(why.to_owned()));
        }
    }
    intent.is_connected = true;
    Ok(connection)
}
