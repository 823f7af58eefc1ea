//! Tasks that calls became: whose they are, and what must be hidden in whatever is heard of them later.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::model::ErrorData;
use serde_json::Value;

use super::visit::Visit;
use crate::domain::id::TenantId;
use crate::domain::upstreams::UpstreamName;
use crate::operations::redaction::Secrets;

/// Tasks that are remembered. Whose is forgotten can be called again, and not be asked about.
const TASK_COUNT_MAX: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
struct TaskOf {
    tenant: TenantId,
    session_id: String,
    upstream: UpstreamName,
    id: String,
}

/// The tasks that are remembered, the oldest first.
#[derive(Default)]
pub(super) struct Tasks(Mutex<VecDeque<(TaskOf, Arc<Secrets>)>>);

impl Tasks {
    /// Remembers the task that the result of a call is, if it is one.
    pub(super) fn remember(
        &self,
        visit: &Visit,
        upstream: &UpstreamName,
        result: &Value,
        secrets: Arc<Secrets>,
    ) {
        let id = result["taskId"].as_str().filter(|_| result["resultType"] == "task");
        let Some(id) = id else { return };
        let mut tasks = self.0.lock();
        if tasks.len() >= TASK_COUNT_MAX {
            tasks.pop_front();
        }
        tasks.push_back((task_of(visit, upstream, id), secrets));
    }

    /// The secrets of the call that became this task.
    ///
    /// # Errors
    ///
    /// When no call of this session did.
    pub(super) fn secrets_of(&self, visit: &Visit, id: &str) -> Result<Arc<Secrets>, ErrorData> {
        let unknown = || ErrorData::invalid_params("there is no such task", None);
        let wanted = task_of(visit, visit.only.as_ref().ok_or_else(unknown)?, id);
        let tasks = self.0.lock();
        let found = tasks.iter().rev().find(|(task, _)| *task == wanted);
        found.map(|(_, secrets)| Arc::clone(secrets)).ok_or_else(unknown)
    }
}

fn task_of(visit: &Visit, upstream: &UpstreamName, id: &str) -> TaskOf {
    TaskOf {
        tenant: visit.caller.tenant.clone(),
        session_id: visit.session_id.clone(),
        upstream: upstream.clone(),
        id: id.to_owned(),
    }
}
