//! Calls that go on while no request of their client is open: those that wait for the answers of a client of the newer
//! generation, which brings them with its next request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rmcp::model::{ErrorData, InputRequests, InputResponses};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::outlet::{Outlet, Round};
use super::run::Ended;
use crate::domain::id::{KeyPrefix, TenantId};

/// Calls that are held at once. Each has a task and, maybe, a connection.
const HELD_COUNT_MAX: usize = 1024;
/// The same of one tenant, so that none takes the place of all others.
const TENANT_HELD_COUNT_MAX: usize = 128;
/// How the state of a held call begins.
const STATE_PREFIX: &str = "call.";

/// A call that runs on a task of its own. Dropped, it is cancelled.
pub(super) struct Running {
    pub(super) task: JoinHandle<Ended>,
    pub(super) rounds: mpsc::Receiver<Round>,
    pub(super) outlet: Arc<Outlet>,
    /// Never sent: the task sees that this is gone.
    pub(super) _wanted: oneshot::Sender<()>,
}

/// Whose call it is, and what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) tenant: TenantId,
    pub(super) prefix: KeyPrefix,
    pub(super) session_id: String,
    pub(super) asked: [u8; 32],
}

struct Held {
    running: Running,
    reply: oneshot::Sender<InputResponses>,
    owner: Owner,
}

/// The calls that are held.
#[derive(Default)]
pub(super) struct HeldCalls(Mutex<HashMap<String, Held>>);

impl HeldCalls {
    /// Holds a call until its client answers. What the client is asked, and the state that it must bring along.
    ///
    /// # Errors
    ///
    /// When too many are held already. The call is cancelled.
    pub(super) fn hold(
        &self,
        running: Running,
        round: Round,
        owner: Owner,
        random: [u8; 24],
    ) -> Result<(InputRequests, String), ErrorData> {
        let mut held = self.0.lock();
        held.retain(|_, held| !held.running.task.is_finished());
        let theirs = held.values().filter(|held| held.owner.tenant == owner.tenant).count();
        if held.len() >= HELD_COUNT_MAX || theirs >= TENANT_HELD_COUNT_MAX {
            return Err(ErrorData::internal_error("too many calls wait for answers of their clients", None));
        }
        running.outlet.set(None);
        let state = format!("{STATE_PREFIX}{}", BASE64URL_NOPAD.encode(&random));
        held.insert(state.clone(), Held { running, reply: round.reply, owner });
        Ok((round.requests, state))
    }

    /// Whether a state is one of a held call.
    pub(super) fn is_state(state: &str) -> bool {
        state.starts_with(STATE_PREFIX)
    }

    /// Cancels every call, and waits until that is on record.
    pub(super) async fn end(&self, within: Duration) {
        let held: Vec<Held> = self.0.lock().drain().map(|(_, held)| held).collect();
        let ends = held.into_iter().map(|held| {
            let Running { task, .. } = held.running;
            task
        });
        let _ = timeout(within, join_all(ends)).await;
    }

    /// Lets a call go on with its client's answers.
    ///
    /// # Errors
    ///
    /// When there is no such call, or it is somebody else's, or something else was asked.
    pub(super) fn resume(
        &self,
        state: &str,
        owner: &Owner,
        responses: InputResponses,
    ) -> Result<Running, ErrorData> {
        let mut calls = self.0.lock();
        let is_theirs = calls.get(state).is_some_and(|held| held.owner == *owner);
        let found = if is_theirs { calls.remove(state) } else { None };
        let Some(held) = found else {
            let why = "requestState: this call does not wait for an answer (any more): ask anew without it";
            return Err(ErrorData::invalid_params(why, None));
        };
        let _ = held.reply.send(responses);
        Ok(held.running)
    }
}
