//! Calls without an outcome: on their way, or unconfirmed since a process ended that had forwarded them.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{Epoch, Usd};
use super::{App, Caller, OperationError};
use crate::domain::Command;
use crate::domain::calls::{CompleteCall, Outcome, policy_name};
use crate::domain::id::CallId;

/// Calls that this process has on their way.
#[derive(Debug, Default)]
pub struct OnTheirWay(Mutex<BTreeSet<CallId>>);

impl OnTheirWay {
    pub(super) fn add(&self, id: &CallId) {
        self.0.lock().insert(id.clone());
    }

    pub(super) fn remove(&self, id: &CallId) {
        self.0.lock().remove(id);
    }

    fn has(&self, id: &CallId) -> bool {
        self.0.lock().contains(id)
    }
}

/// A call without an outcome.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenCallView {
    /// The call.
    pub call_id: String,
    /// `in_flight`, or `unconfirmed`: nobody waits for its outcome any more, and it may have happened.
    pub status: &'static str,
    /// The session that called.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// What was called: `upstream.tool`.
    pub tool: String,
    /// What is set aside for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<Usd>,
    /// When it was authorised.
    pub timestamp: Epoch,
    /// Where in the stream.
    pub seq: u64,
}

/// Calls without an outcome.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenCallList {
    /// How many there are.
    pub count: usize,
    /// How many of them are unconfirmed.
    pub unconfirmed: usize,
    /// In the order in which they were authorised.
    pub calls: Vec<OpenCallView>,
}

/// An unconfirmed call whose outcome somebody knew.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResolvedCall {
    /// Always true.
    pub resolved: bool,
    /// The call.
    pub call_id: String,
    /// `happened` or `not_sent`.
    pub outcome: &'static str,
}

/// Lists calls without an outcome.
///
/// # Errors
///
/// [`OperationError::NotFound`] for a tenant that never did anything.
pub fn list(app: &App, caller: &Caller) -> Result<OpenCallList, OperationError> {
    let mut calls: Vec<OpenCallView> = app.with_tenant(&caller.tenant, |tenant| {
        let view = |(id, call): (&CallId, &crate::domain::calls::OpenCall)| OpenCallView {
            call_id: id.to_string(),
            status: if app.on_their_way.has(id) { "in_flight" } else { "unconfirmed" },
            session_id: call.session_id.to_string(),
            agent_id: call.agent_id.to_string(),
            tool: policy_name(call.method, &call.upstream, &call.name),
            price: call.price.map(Usd),
            timestamp: Epoch(call.at),
            seq: call.seq,
        };
        tenant.calls.open().map(view).collect()
    })?;
    calls.sort_by_key(|call| call.seq);
    let unconfirmed = calls.iter().filter(|call| call.status == "unconfirmed").count();
    Ok(OpenCallList { count: calls.len(), unconfirmed, calls })
}

/// Records what became of an unconfirmed call, as somebody found out who looked at the upstream.
///
/// # Errors
///
/// [`OperationError::NotFound`]; [`OperationError::Conflict`] for a call that is on its way.
pub async fn resolve(
    app: &App,
    caller: &Caller,
    call_id: &str,
    happened: bool,
) -> Result<ResolvedCall, OperationError> {
    let call_id = CallId::parse(call_id).ok_or(OperationError::NotFound("open call"))?;
    if app.on_their_way.has(&call_id) {
        let reason = "the call is on its way: its outcome will be recorded".to_owned();
        return Err(OperationError::Conflict { code: "call_open", reason });
    }
    let outcome = if happened { Outcome::Lost } else { Outcome::NotSent };
    let command = CompleteCall { call_id: call_id.clone(), outcome, duration_us: 0, details_digest: None };
    app.submit(caller, Command::CompleteCall(command), None, vec![]).await?;
    let outcome = if happened { "happened" } else { "not_sent" };
    Ok(ResolvedCall { resolved: true, call_id: call_id.to_string(), outcome })
}
