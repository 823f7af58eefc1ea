//! What there is to be called: upstreams, their tools as they are trusted, and what a session sees of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::calls::named_upstream;
use super::past::Moment;
use super::upstreams::whereabouts;
use super::wire::Epoch;
use super::{App, Caller, OperationError, blocking};
use crate::domain::Tenant;
use crate::domain::calls::may_call;
use crate::domain::id::{SessionId, TenantId};
use crate::domain::policies;
use crate::domain::sessions::Standing;
use crate::domain::upstreams::{ToolDigest, ToolStanding, Transport, Upstream, UpstreamName};
use crate::format::chain::tool_digest;
use crate::store::SideKind;

/// An upstream.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpstreamView {
    /// Where it is: its URL, or its command.
    pub url: String,
    /// `http` or `stdio`.
    pub transport: &'static str,
    /// Whether it answered when it was asked last.
    pub healthy: bool,
    /// Why not; empty when it did.
    pub error: String,
    /// How many tools may be called.
    pub tools: usize,
    /// Tools that changed and wait until somebody accepts them.
    pub quarantined: Vec<String>,
    /// Calls that came to their end.
    pub total_calls: u64,
    /// How many of them in an error.
    pub total_errors: u64,
    /// Milliseconds that a call took on average.
    pub avg_latency_ms: f64,
    /// When it was asked last, since this server started; `0.0` is never.
    pub last_check: Epoch,
    /// When it was registered.
    pub registered_at: Epoch,
}

/// The tenant's upstreams.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpstreamList {
    /// By name.
    pub upstreams: BTreeMap<String, UpstreamView>,
    /// Names under which tools can be called, with and without their upstream's.
    pub total_tools: usize,
    /// How many policies there are.
    pub policies: usize,
}

/// A tool.
#[derive(Debug, Serialize, ToSchema)]
pub struct ToolView {
    /// Its upstream's name for it.
    pub name: String,
    /// What it does, in its own words.
    pub description: String,
    /// Its upstream.
    pub upstream: String,
    /// What it takes: a JSON schema.
    #[serde(rename = "inputSchema")]
    #[schema(value_type = Object)]
    pub input_schema: Value,
}

/// The tools that may be called.
#[derive(Debug, Serialize, ToSchema)]
pub struct ToolList {
    /// How many there are.
    pub count: usize,
    /// In the order of upstreams and names.
    pub tools: Vec<ToolView>,
}

/// A tool of an upstream, as it is trusted and as it was seen last.
#[derive(Debug, Serialize, ToSchema)]
pub struct PinView {
    /// The tool.
    pub tool: String,
    /// `trusted`, `quarantined` or `gone`.
    pub standing: &'static str,
    /// Digest of the definition that is trusted, hex; empty for a tool that appeared later.
    pub pinned: String,
    /// Digest of the definition that was seen last, hex; empty for a tool that is gone.
    pub seen: String,
    /// Of a quarantined tool: the definition that is trusted, and the one that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub difference: Option<Value>,
}

/// The tools of an upstream.
#[derive(Debug, Serialize, ToSchema)]
pub struct PinList {
    /// The upstream.
    pub upstream: String,
    /// How many tools it has or had.
    pub count: usize,
    /// In the order of names.
    pub tools: Vec<PinView>,
}

/// Lists the tenant's upstreams.
#[must_use]
pub fn list(app: &App, caller: &Caller, moment: &Moment) -> UpstreamList {
    let tenant = &moment.stream.tenant;
    let mut names = BTreeSet::new();
    for (name, tool, _) in callable(tenant) {
        names.insert(format!("{name}.{tool}"));
        names.insert(tool.clone());
    }
    UpstreamList {
        upstreams: tenant
            .upstreams
            .all()
            .map(|(name, upstream)| (name.to_string(), view(app, &caller.tenant, name, upstream)))
            .collect(),
        total_tools: names.len(),
        policies: tenant.policies.all().count(),
    }
}

/// An upstream, as lists show it.
pub(super) fn view(app: &App, tenant: &TenantId, name: &UpstreamName, upstream: &Upstream) -> UpstreamView {
    let look = app.upstream_health.of(tenant, name);
    let count = |wanted| upstream.tools().filter(move |(_, tool)| tool.standing() == wanted);
    let micros = upstream.duration_us.checked_div(upstream.calls).unwrap_or(0);
    UpstreamView {
        url: whereabouts(&upstream.transport),
        transport: match upstream.transport {
            Transport::Http { .. } => "http",
            Transport::Stdio { .. } => "stdio",
        },
        healthy: match &look {
            Some(look) => look.problem.is_none(),
            None => upstream.tools.is_some(),
        },
        error: look.as_ref().and_then(|look| look.problem.clone()).unwrap_or_default(),
        tools: count(ToolStanding::Trusted).count(),
        quarantined: count(ToolStanding::Quarantined).map(|(tool, _)| tool.clone()).collect(),
        total_calls: upstream.calls,
        total_errors: upstream.errors,
        // Rounded to a tenth, as the contract shows it.
        avg_latency_ms: f64::from(u32::try_from(micros.saturating_add(50) / 100).unwrap_or(u32::MAX)) / 10.0,
        last_check: Epoch::or_zero(look.map(|look| look.at)),
        registered_at: Epoch(upstream.registered_at),
    }
}

/// Every tool that is trusted, with its upstream and the digest of its definition.
fn callable(tenant: &Tenant) -> impl Iterator<Item = (&UpstreamName, &String, ToolDigest)> {
    tenant.upstreams.all().flat_map(|(name, upstream)| {
        let trusted = upstream.tools().filter(|(_, tool)| tool.standing() == ToolStanding::Trusted);
        trusted.filter_map(move |(tool, pinned)| Some((name, tool, pinned.pinned?)))
    })
}

/// A tool's definition as it was seen.
fn definition(app: &App, tenant: &TenantId, digest: &ToolDigest) -> Result<Option<Value>, OperationError> {
    let stored = app.ledger.store().side(tenant, SideKind::ToolDefinition, digest)?;
    let Some(stored) = stored else { return Ok(None) };
    if tool_digest(&stored) != *digest {
        return Err(OperationError::Unavailable("the definition of a tool was altered".to_owned()));
    }
    serde_json::from_slice(&stored).map(Some).map_err(|error| OperationError::Unavailable(error.to_string()))
}

/// A tool that a session may call.
#[derive(Debug, Clone, PartialEq)]
pub struct VisibleTool {
    /// Its upstream.
    pub upstream: UpstreamName,
    /// Its upstream's name for it.
    pub tool: String,
    /// Its definition, as it was pinned: what the protocol calls a tool.
    pub definition: Value,
}

/// The tools that a session may call: trusted ones that its scopes reach and that no policy keeps from everybody.
///
/// # Errors
///
/// [`OperationError::SessionDead`].
pub fn visible(
    app: &App,
    caller: &Caller,
    session_id: &str,
    of: Option<&UpstreamName>,
) -> Result<Vec<VisibleTool>, OperationError> {
    let session_id = SessionId::parse(session_id).ok_or(OperationError::SessionDead)?;
    let now = app.ledger.clock().now();
    let found = app.with_tenant(&caller.tenant, |tenant| {
        let session = tenant.sessions.get(&session_id)?;
        if tenant.sessions.standing(session, now) != Standing::Live {
            return None;
        }
        let of_upstream = callable(tenant).filter(|(name, ..)| of.is_none_or(|of| of == *name));
        let reachable = of_upstream.filter(|(name, tool, _)| {
            may_call(session, name, tool) && !policies::hides(&tenant.policies, &format!("{name}.{tool}"))
        });
        Some(reachable.map(|(name, tool, digest)| (name.clone(), tool.clone(), digest)).collect::<Vec<_>>())
    })?;
    let found = found.ok_or(OperationError::SessionDead)?;
    let mut tools = Vec::with_capacity(found.len());
    for (upstream, tool, digest) in found {
        let definition = definition(app, &caller.tenant, &digest)?
            .unwrap_or_else(|| json!({ "name": tool, "inputSchema": { "type": "object" } }));
        tools.push(VisibleTool { upstream, tool, definition });
    }
    Ok(tools)
}

/// The definition of a trusted tool as it was pinned, by any name that it has; of one upstream, or of all.
#[must_use]
pub fn pinned(app: &App, tenant: &TenantId, of: Option<&UpstreamName>, name: &str) -> Option<Value> {
    let digest = app.with_tenant(tenant, |tenant| {
        let upstreams = &tenant.upstreams;
        let (upstream, name) = match of {
            Some(of) => (of, name.to_owned()),
            None => upstreams.resolve(name)?,
        };
        let tool = upstreams.get(upstream)?.tool(&name)?;
        tool.pinned.filter(|_| tool.standing() == ToolStanding::Trusted)
    });
    definition(app, tenant, &digest.ok()??).ok()?
}

/// Lists the tools of every upstream that answers.
///
/// # Errors
///
/// [`OperationError::Unavailable`].
pub async fn tools(app: Arc<App>, caller: Caller) -> Result<ToolList, OperationError> {
    blocking(move || find_tools(&app, &caller)).await
}

fn find_tools(app: &App, caller: &Caller) -> Result<ToolList, OperationError> {
    let found: Vec<_> = app.with_tenant(&caller.tenant, |tenant| {
        let reached =
            callable(tenant).filter(|(name, ..)| !app.upstream_health.is_down(&caller.tenant, name));
        reached.map(|(name, tool, digest)| (name.clone(), tool.clone(), digest)).collect()
    })?;
    let mut tools = Vec::with_capacity(found.len());
    for (upstream, name, digest) in found {
        let definition = definition(app, &caller.tenant, &digest)?.unwrap_or_default();
        tools.push(ToolView {
            name,
            description: definition["description"].as_str().unwrap_or_default().to_owned(),
            upstream: upstream.to_string(),
            input_schema: match &definition["inputSchema"] {
                Value::Null => json!({ "type": "object" }),
                schema => schema.clone(),
            },
        });
    }
    Ok(ToolList { count: tools.len(), tools })
}

/// Lists the tools of one upstream as they are trusted and as they were seen last.
///
/// # Errors
///
/// [`OperationError::NotFound`].
pub async fn pins(app: Arc<App>, caller: Caller, name: String) -> Result<PinList, OperationError> {
    let name = named_upstream(&name)?;
    blocking(move || find_pins(&app, &caller, &name)).await
}

fn find_pins(app: &App, caller: &Caller, name: &UpstreamName) -> Result<PinList, OperationError> {
    let found = app.with_tenant(&caller.tenant, |tenant| {
        let upstream = tenant.upstreams.get(name)?;
        Some(upstream.tools().map(|(tool, pinned)| (tool.clone(), *pinned)).collect::<Vec<_>>())
    })?;
    let hex =
        |digest: Option<ToolDigest>| digest.map(|it| data_encoding::HEXLOWER.encode(&it)).unwrap_or_default();
    let mut tools = Vec::new();
    for (tool, pinned) in found.ok_or(OperationError::NotFound("upstream"))? {
        let standing = pinned.standing();
        let shown = |digest: Option<ToolDigest>| match digest {
            Some(digest) => definition(app, &caller.tenant, &digest).map(Option::unwrap_or_default),
            None => Ok(Value::Null),
        };
        let difference = match standing {
            ToolStanding::Quarantined => Some(json!({
                "trusted": shown(pinned.pinned)?,
                "seen": shown(pinned.seen)?,
            })),
            ToolStanding::Trusted | ToolStanding::Gone => None,
        };
        tools.push(PinView {
            tool,
            standing: match standing {
                ToolStanding::Trusted => "trusted",
                ToolStanding::Quarantined => "quarantined",
                ToolStanding::Gone => "gone",
            },
            pinned: hex(pinned.pinned),
            seen: hex(pinned.seen),
            difference,
        });
    }
    Ok(PinList { upstream: name.to_string(), count: tools.len(), tools })
}
