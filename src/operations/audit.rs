//! The audit trail: log, find, sum up.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::retries::Retry;
use super::wire::{Epoch, Usd};
use super::{App, Caller, OperationError, blocking, only_event};
use crate::domain::audit::LogAction;
use crate::domain::id::{EntryId, SessionId, TenantId};
use crate::domain::money::Money;
use crate::domain::{Command, Event};
use crate::format::chain::{DETAILS_SALT_LEN, details_digest};
use crate::store::{EventStore, SideKind, SideRow};
use crate::views::audit::{Filter, FoundAction};

/// Entries found when nothing else was asked.
pub const TRAIL_LEN_DEFAULT: usize = 100;
/// Entries found at most in one answer. More are a matter for an export.
pub const TRAIL_LEN_MAX: usize = 100_000;

/// An action to be logged, every default filled in.
#[derive(Debug, Clone, Serialize)]
pub struct LogRequest {
    /// The session that acted.
    pub session_id: String,
    /// What was done.
    pub action: String,
    /// With which tool.
    pub tool: String,
    /// What it cost, in billionths.
    pub cost_nanos: u128,
    /// Free-form details as JSON text; `None` for none.
    #[serde(serialize_with = "canonical")]
    pub details: Option<String>,
}

/// Details as a retry may spell them: with sorted keys and without spaces. They are kept as they were sent.
#[expect(clippy::ref_option, reason = "serde passes a field by reference")]
fn canonical<S: Serializer>(details: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let value = details.as_deref().map(serde_json::from_str::<serde_json::Value>).transpose();
    value.map_err(S::Error::custom)?.serialize(serializer)
}

/// A logged action.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoggedAction {
    /// Always true.
    pub logged: bool,
    /// The entry.
    #[schema(example = "aud_…")]
    pub entry_id: String,
    /// Whether it was flagged.
    pub flagged: bool,
    /// Why it was flagged; empty when it was not.
    pub flag_reason: String,
}

/// One entry of the trail.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrailEntry {
    /// The entry.
    pub entry_id: String,
    /// The session that acted.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// With which tool; may be empty.
    pub tool: String,
    /// What was done.
    pub action: String,
    /// What it cost.
    pub cost_usd: Usd,
    /// Whether it was flagged.
    pub flagged: bool,
    /// Why it was flagged; empty when it was not.
    pub flag_reason: String,
    /// When.
    pub timestamp: Epoch,
    /// Free-form details; `{}` when there are none or when they were erased.
    #[schema(value_type = Object)]
    pub details: Box<RawValue>,
    /// Hash of the ledger entry of the tenant's logged action before this one; empty for the first.
    pub prev_hash: String,
    /// Hash of this action's ledger entry.
    pub entry_hash: String,
    /// Position in the tenant's ledger stream.
    pub seq: u64,
}

/// The audit trail.
#[derive(Debug, Serialize, ToSchema)]
pub struct Trail {
    /// How many entries are here.
    pub count: usize,
    /// Newest first.
    pub entries: Vec<TrailEntry>,
}

/// What logged actions cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpendReport {
    /// The sum.
    pub total_usd: Usd,
    /// How many actions.
    pub action_count: u64,
    /// The sum for each tool that was named.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub by_tool: BTreeMap<String, Usd>,
}

/// Logs an action of a live session.
///
/// # Errors
///
/// [`OperationError::SessionDead`] for sessions that do not exist or have ended.
pub async fn log(
    app: &App,
    caller: &Caller,
    request: LogRequest,
    retry: Option<&Retry>,
) -> Result<LoggedAction, OperationError> {
    let entry_id = EntryId::issue(app.ledger.random().bytes());
    let details = request.details.map(|details| {
        let salt: [u8; DETAILS_SALT_LEN] = app.ledger.random().bytes();
        let digest = details_digest(&salt, details.as_bytes());
        (digest, [&salt[..], details.as_bytes()].concat())
    });
    let (details_digest, side) = match details {
        Some((digest, value)) => {
            let id = entry_id.as_str().as_bytes().to_vec();
            (Some(digest), vec![SideRow { kind: SideKind::Details, id, value }])
        }
        None => (None, vec![]),
    };
    let command = Command::LogAction(LogAction {
        entry_id,
        session_id: SessionId::parse(&request.session_id).ok_or(OperationError::SessionDead)?,
        action: request.action,
        tool: request.tool,
        cost: Money::from_nanos(request.cost_nanos),
        details_digest,
    });
    let receipt = match app.submit(caller, command, retry, side).await {
        Err(OperationError::NotFound(_)) => return Err(OperationError::SessionDead),
        submitted => submitted?,
    };
    match &only_event(&receipt)?.recorded.event {
        Event::ActionLogged(logged) => Ok(LoggedAction {
            logged: true,
            entry_id: logged.entry_id.to_string(),
            flagged: logged.flag.is_some(),
            flag_reason: logged.flag.clone().unwrap_or_default(),
        }),
        Event::ActionRejected(_) => Err(OperationError::SessionDead),
        _ => Err(OperationError::unexpected(&receipt)),
    }
}

/// Finds logged actions, newest first.
///
/// # Errors
///
/// [`OperationError::Busy`] when the view is behind.
pub async fn trail(
    app: Arc<App>,
    caller: &Caller,
    filter: Filter,
    limit: usize,
) -> Result<Trail, OperationError> {
    let tenant = caller.tenant.clone();
    app.views_caught_up(&tenant).await?;
    blocking(move || {
        let found = app.views.find(&tenant, &filter, limit)?;
        let store = app.ledger.store();
        let entries = found
            .into_iter()
            .map(|found| trail_entry(&**store, &tenant, found))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Trail { count: entries.len(), entries })
    })
    .await
}

/// An action as the trail shows it.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when its details cannot be read or are not what was recorded.
pub(super) fn trail_entry(
    store: &dyn EventStore,
    tenant: &TenantId,
    found: FoundAction,
) -> Result<TrailEntry, OperationError> {
    let details = match found.action.details_digest {
        Some(digest) => read_details(store, tenant, &found.action.entry_id, &digest)?,
        None => None,
    };
    let none = || RawValue::from_string("{}".to_owned());
    let details = details.map_or_else(none, RawValue::from_string);
    Ok(TrailEntry {
        entry_id: found.action.entry_id.to_string(),
        session_id: found.action.session_id.to_string(),
        agent_id: found.action.agent_id.to_string(),
        tool: found.action.tool,
        action: found.action.action,
        cost_usd: Usd(found.action.cost),
        flagged: found.action.flag.is_some(),
        flag_reason: found.action.flag.unwrap_or_default(),
        timestamp: Epoch(found.recorded.at),
        details: details.map_err(|error| OperationError::Internal(error.to_string()))?,
        prev_hash: found.prev.map(|hash| hash.to_string()).unwrap_or_default(),
        entry_hash: found.hash.to_string(),
        seq: found.recorded.seq,
    })
}

/// The details of an action as JSON text; `None` when they were erased.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when they are not what was recorded.
pub fn read_details(
    store: &dyn EventStore,
    tenant: &TenantId,
    entry_id: &EntryId,
    digest: &[u8; 32],
) -> Result<Option<String>, OperationError> {
    let stored = store
        .side(tenant, SideKind::Details, entry_id.as_str().as_bytes())
        .map_err(|error| OperationError::Unavailable(error.to_string()))?;
    let Some(stored) = stored else {
        return Ok(None);
    };
    let altered = || OperationError::Unavailable(format!("the details of {entry_id} were altered"));
    let (salt, details) = stored.split_first_chunk().ok_or_else(altered)?;
    if details_digest(salt, details) != *digest {
        return Err(altered());
    }
    String::from_utf8(details.to_vec()).map(Some).map_err(|_| altered())
}

/// Sums up what logged actions cost; with `size`, those among the first so many entries.
///
/// # Errors
///
/// [`OperationError::Busy`] when the view is behind.
pub async fn spend(
    app: Arc<App>,
    caller: &Caller,
    session_id: Option<String>,
    agent_id: Option<String>,
    size: Option<u64>,
) -> Result<SpendReport, OperationError> {
    let tenant = caller.tenant.clone();
    app.views_caught_up(&tenant).await?;
    blocking(move || {
        let spend = if size.is_some() {
            // The view keeps today's sums; those of the past are added up.
            let filter = Filter { session_id, agent_id, size, ..Filter::default() };
            app.views.find(&tenant, &filter, usize::MAX)?.iter().collect()
        } else {
            app.views.spend(&tenant, session_id.as_deref(), agent_id.as_deref())?
        };
        Ok(SpendReport {
            total_usd: Usd(spend.total),
            action_count: spend.actions,
            by_tool: spend.by_tool.into_iter().map(|(tool, cost)| (tool, Usd(cost))).collect(),
        })
    })
    .await
}
