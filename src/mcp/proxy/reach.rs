//! Connections for what is not decided about one by one: lists, completion, subscriptions.

use std::sync::Arc;

use futures_util::future::join_all;
use rmcp::model::ErrorData;

use super::outlet::ClientRelay;
use super::visit::{Visit, refused};
use crate::domain::upstreams::UpstreamName;
use crate::operations::reaching::reach as reach_upstream;
use crate::proxy::connection::Connection;
use crate::proxy::failure::CallError;
use crate::proxy::relay::Relay;

/// Makes what stands behind a connection of a client's own.
pub(super) type Own<'a> = &'a (dyn Fn(&UpstreamName) -> Option<(String, ClientRelay)> + Sync);

/// A connection to an upstream, for a session that lives.
///
/// # Errors
///
/// When the session has ended, or the upstream is not reached.
pub(super) async fn reach(
    visit: &Visit,
    upstream: &UpstreamName,
    own: Own<'_>,
) -> Result<Arc<Connection>, ErrorData> {
    let session_id = visit.live_session()?;
    let (of, relay): (_, Option<Arc<dyn Relay>>) = match (own(upstream), visit.shared(&session_id)) {
        (Some((of, relay)), _) => (Some(of), Some(Arc::new(relay))),
        (None, Some((of, hub))) => (Some(of), Some(hub)),
        (None, None) => (None, None),
    };
    let reached = reach_upstream(&visit.app, &visit.caller, &session_id, upstream, of, relay).await;
    reached.map_err(|error| refused(&error))?.map_err(|error| unreached(&error))
}

/// The upstreams that a client sees, the one that was registered first first.
pub(super) fn upstreams_of(visit: &Visit) -> Vec<UpstreamName> {
    if let Some(only) = &visit.only {
        return vec![only.clone()];
    }
    let found = visit.app.with_tenant(&visit.caller.tenant, |tenant| {
        let mut found: Vec<_> = tenant.upstreams.all().map(|(name, it)| (it.seq, name.clone())).collect();
        found.sort_unstable();
        found
    });
    found.unwrap_or_default().into_iter().map(|(_, name)| name).collect()
}

/// Connections to all upstreams that a client sees and that are reached.
///
/// # Errors
///
/// When the session has ended; or when the only upstream is not reached.
pub(super) async fn reach_all(
    visit: &Visit,
    own: Own<'_>,
) -> Result<Vec<(UpstreamName, Arc<Connection>)>, ErrorData> {
    if let Some(only) = &visit.only {
        return Ok(vec![(only.clone(), reach(visit, only, own).await?)]);
    }
    visit.live_session()?;
    let upstreams = upstreams_of(visit);
    let reached = join_all(upstreams.iter().map(|upstream| reach(visit, upstream, own))).await;
    let reached = upstreams.into_iter().zip(reached);
    Ok(reached.filter_map(|(upstream, connection)| Some((upstream, connection.ok()?))).collect())
}

/// The upstream that has a prompt, the one that was registered first if several do.
pub(super) async fn upstream_of_prompt(
    visit: &Visit,
    name: &str,
    own: Own<'_>,
) -> Result<Option<UpstreamName>, ErrorData> {
    let reached = reach_all(visit, own).await?;
    let lists = join_all(reached.iter().map(|(_, connection)| connection.prompts())).await;
    let has_it = lists.into_iter().zip(&reached).find(|(list, _)| {
        list.as_ref().is_ok_and(|prompts| prompts.iter().any(|prompt| prompt.name == name))
    });
    Ok(has_it.map(|(_, (upstream, _))| upstream.clone()))
}

/// An upstream's error, as its client gets it.
pub(super) fn unreached(error: &CallError) -> ErrorData {
    match error {
        CallError::Refused { code, message, data } => {
            ErrorData::new(rmcp::model::ErrorCode(*code), message.clone(), data.clone())
        }
        error => ErrorData::internal_error(error.to_string(), None),
    }
}
