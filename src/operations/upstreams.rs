//! Upstreams: register, look at, accept, remove. What they are to whom is in the ledger; whether they answer is not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use super::calls::{address_of, named_upstream};
use super::catalogue::{UpstreamView, view};
use super::redaction::{Secrets, reference};
use super::retries::Retry;
use super::{App, Caller, OperationError, only_event, secrets};
use crate::domain::id::{Actor, RequestId, TenantId};
use crate::domain::limits::{UPSTREAM_TOOL_COUNT_MAX, UPSTREAM_TOOL_LEN_MAX};
use crate::domain::secrets::SecretName;
use crate::domain::time::Timestamp;
use crate::domain::upstreams::{
    AcceptTool, ObserveTools, Pin, RegisterUpstream, RemoveUpstream, ToolDigest, Transport, UpstreamName,
};
use crate::domain::{Command, Event};
use crate::format::chain::tool_digest;
use crate::ledger::Request;
use crate::proxy::address::Line;
use crate::proxy::definitions::Definition;
use crate::proxy::failure::CallError;
use crate::store::{SideKind, SideRow};

/// An upstream to be registered.
#[derive(Debug, Clone, Serialize)]
pub struct RegisterRequest {
    /// Under which name.
    pub name: UpstreamName,
    /// How it is spoken to.
    pub transport: Transport,
    /// The session whose secrets are used to look at it.
    pub session_id: Option<String>,
}

/// A registered upstream.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegisteredUpstream {
    /// Always true.
    pub registered: bool,
    /// Under which name.
    pub name: String,
    /// Where it is: its URL, or its command.
    pub url: String,
    /// Whether it was reached.
    pub healthy: bool,
    /// How many tools were pinned.
    pub tools_discovered: usize,
    /// Their names.
    pub tool_names: Vec<String>,
    /// Why it was not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The HTTP status that it answered with instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
}

/// A tool that somebody accepted.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedTool {
    /// Always true.
    pub accepted: bool,
    /// Of which upstream.
    pub upstream: String,
    /// Which tool.
    pub tool: String,
    /// Digest of its definition, hex.
    pub digest: String,
}

/// An upstream that was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RemovedUpstream {
    /// Always true.
    pub removed: bool,
    /// Which one.
    pub name: String,
}

/// What is known of whether upstreams answer, since this server started.
#[derive(Debug, Default)]
pub struct UpstreamHealth(Mutex<HashMap<(TenantId, UpstreamName), Look>>);

/// When an upstream was asked last, and why it was not reached.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) at: Timestamp,
    pub(super) problem: Option<String>,
}

impl UpstreamHealth {
    /// Takes note of whether an upstream was reached.
    pub fn note(&self, tenant: &TenantId, name: &UpstreamName, at: Timestamp, reached: Result<(), String>) {
        self.0.lock().insert((tenant.clone(), name.clone()), Look { at, problem: reached.err() });
    }

    fn forget(&self, tenant: &TenantId, name: &UpstreamName) {
        self.0.lock().remove(&(tenant.clone(), name.clone()));
    }

    pub(super) fn of(&self, tenant: &TenantId, name: &UpstreamName) -> Option<Look> {
        self.0.lock().get(&(tenant.clone(), name.clone())).cloned()
    }

    /// Whether an upstream was not reached when it was asked last.
    pub(super) fn is_down(&self, tenant: &TenantId, name: &UpstreamName) -> bool {
        self.of(tenant, name).is_some_and(|look| look.problem.is_some())
    }
}

/// Registers an upstream: looks at it, and pins its tools. One that is not reached is registered all the same, and its tools are
/// pinned when it is reached first.
///
/// # Errors
///
/// [`OperationError::UnsafeUrl`], [`OperationError::Invalid`], [`OperationError::SessionDead`], [`OperationError::Conflict`].
pub async fn register(
    app: &Arc<App>,
    caller: &Caller,
    request: RegisterRequest,
    retry: Option<&Retry>,
) -> Result<RegisteredUpstream, OperationError> {
    let RegisterRequest { name, transport, session_id } = request;
    match &transport {
        Transport::Http { url, .. } => app.outbound.check(url).await.map_err(OperationError::UnsafeUrl)?,
        Transport::Stdio { .. } => {
            let unsafe_command = |error: CallError| OperationError::invalid("command", error.to_string());
            let address = address_of(&transport, &Secrets::default());
            app.upstreams.check(&address).await.map_err(unsafe_command)?;
        }
    }
    let secrets = secrets_for(app, caller, &transport, session_id.as_deref()).await?;
    app.upstreams.close(&caller.tenant, name.as_str());
    let seen = look(app, &caller.tenant, &name, &transport, secrets, session_id).await;
    let now = app.ledger.clock().now();
    let reached = seen.as_ref().map(|_| ()).map_err(ToString::to_string);
    let (pins, side) = match &seen {
        Ok(tools) => {
            let (pins, side) = pins_of(tools);
            (Some(pins), side)
        }
        Err(_) => (None, Vec::new()),
    };
    let command = Command::RegisterUpstream(RegisterUpstream { name, transport, tools: pins });
    let receipt = app.submit(caller, command, retry, side).await?;
    let Event::UpstreamRegistered(registered) = &only_event(&receipt)?.recorded.event else {
        return Err(OperationError::unexpected(&receipt));
    };
    app.upstream_health.note(&caller.tenant, &registered.name, now, reached.clone());
    let tool_names: Vec<String> = registered.tools.iter().flatten().map(|pin| pin.tool.clone()).collect();
    Ok(RegisteredUpstream {
        registered: true,
        name: registered.name.to_string(),
        url: whereabouts(&registered.transport),
        healthy: registered.tools.is_some(),
        tools_discovered: tool_names.len(),
        tool_names,
        error: reached.err().filter(|_| registered.tools.is_none()),
        upstream_status: match seen {
            Err(CallError::Status(status)) => Some(status),
            _ => None,
        },
    })
}

/// Where an upstream is, in one text.
#[must_use]
pub fn whereabouts(transport: &Transport) -> String {
    match transport {
        Transport::Http { url, .. } => url.clone(),
        Transport::Stdio { command, args, .. } => {
            [command].into_iter().chain(args).map(String::as_str).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Whether an upstream's settings refer to secrets.
pub(super) fn needs_secrets(transport: &Transport) -> bool {
    transport.settings().iter().any(|setting| reference(&setting.value).is_some())
}

/// The secrets that an upstream's settings refer to, read by a session; none without one.
pub(super) async fn secrets_for(
    app: &Arc<App>,
    caller: &Caller,
    transport: &Transport,
    session_id: Option<&str>,
) -> Result<Secrets, OperationError> {
    let Some(session_id) = session_id else { return Ok(Secrets::default()) };
    let mut values = BTreeMap::new();
    for setting in transport.settings() {
        let Some(name) = reference(&setting.value).and_then(|(_, name)| SecretName::parse(name)) else {
            continue;
        };
        let released = secrets::read(app, caller, &name, session_id, None).await?;
        values.insert(name, released.value);
    }
    Ok(Secrets::of(values))
}

/// Asks an upstream for its tools.
async fn look(
    app: &Arc<App>,
    tenant: &TenantId,
    name: &UpstreamName,
    transport: &Transport,
    secrets: Secrets,
    session_id: Option<String>,
) -> Result<Vec<Definition>, CallError> {
    let needs_secrets = needs_secrets(transport);
    if needs_secrets && session_id.is_none() {
        let why = "its settings refer to secrets, which only a session can read: name one, or let the first call look at it";
        return Err(CallError::NotSent(why.to_owned()));
    }
    let of = session_id.filter(|_| needs_secrets);
    let line = Line { tenant: tenant.clone(), upstream: name.to_string(), of };
    let connection = app.upstreams.connect(&line, address_of(transport, &secrets), None).await?;
    let news = connection.news();
    let tools = connection.definitions().await?;
    // What was seen now need not be looked at again before the first call.
    if let Some(news) = news {
        connection.saw(news);
    }
    Ok(tools)
}

/// The pins of tools, in the order of names, and their definitions. Tools that have no name of the protocol are left out.
fn pins_of(tools: &[Definition]) -> (Vec<Pin>, Vec<SideRow>) {
    let mut found = BTreeMap::new();
    for Definition { name, json } in tools.iter().take(UPSTREAM_TOOL_COUNT_MAX) {
        let fits = (1..=UPSTREAM_TOOL_LEN_MAX).contains(&name.len());
        if fits && name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let text = json.to_string();
            found.insert(name.clone(), (tool_digest(text.as_bytes()), text));
        }
    }
    let pins = found.iter().map(|(tool, (digest, _))| Pin { tool: tool.clone(), digest: *digest });
    let pins = pins.collect();
    let rows = found.into_values().map(|(digest, text)| SideRow {
        kind: SideKind::ToolDefinition,
        id: digest.to_vec(),
        value: text.into_bytes(),
    });
    (pins, rows.collect())
}

/// Takes note of the tools that an upstream has now, if they are others than before.
///
/// # Errors
///
/// [`OperationError::NotFound`] when it was removed; [`OperationError::Unavailable`].
pub async fn observe(
    app: &App,
    tenant: &TenantId,
    name: &UpstreamName,
    tools: &[Definition],
) -> Result<(), OperationError> {
    let (tools, side) = pins_of(tools);
    let is_known = app.with_tenant(tenant, |state| {
        state.upstreams.get(name).is_some_and(|upstream| {
            let seen = upstream.tools().filter_map(|(tool, pinned)| Some((tool, pinned.seen?)));
            upstream.tools.is_some() && seen.eq(tools.iter().map(|pin| (&pin.tool, pin.digest)))
        })
    })?;
    if is_known {
        return Ok(());
    }
    let request = Request {
        tenant: tenant.clone(),
        actor: Actor::System,
        request_id: RequestId::issue(app.ledger.random().bytes()),
        idempotency: None,
        command: Command::ObserveTools(ObserveTools { name: name.clone(), tools }),
        side,
    };
    app.ledger.submit(request).await?;
    Ok(())
}

/// Looks at an upstream again.
///
/// # Errors
///
/// [`OperationError::NotFound`], [`OperationError::SessionDead`].
pub async fn refresh(
    app: &Arc<App>,
    caller: &Caller,
    name: &str,
    session_id: Option<String>,
) -> Result<UpstreamView, OperationError> {
    let name = named_upstream(name)?;
    let transport = transport_of(app, &caller.tenant, &name)?;
    let secrets = secrets_for(app, caller, &transport, session_id.as_deref()).await?;
    app.upstreams.close(&caller.tenant, name.as_str());
    check(app, &caller.tenant, &name, &transport, secrets, session_id).await?;
    app.with_tenant(&caller.tenant, |tenant| {
        let upstream = tenant.upstreams.get(&name)?;
        Some(view(app, &caller.tenant, &name, upstream))
    })?
    .ok_or(OperationError::NotFound("upstream"))
}

pub(super) fn transport_of(
    app: &App,
    tenant: &TenantId,
    name: &UpstreamName,
) -> Result<Transport, OperationError> {
    let found =
        app.with_tenant(tenant, |tenant| tenant.upstreams.get(name).map(|it| it.transport.clone()))?;
    found.ok_or(OperationError::NotFound("upstream"))
}

async fn check(
    app: &Arc<App>,
    tenant: &TenantId,
    name: &UpstreamName,
    transport: &Transport,
    secrets: Secrets,
    session_id: Option<String>,
) -> Result<(), OperationError> {
    let seen = look(app, tenant, name, transport, secrets, session_id).await;
    let reached = seen.as_ref().map(|_| ()).map_err(ToString::to_string);
    app.upstream_health.note(tenant, name, app.ledger.clock().now(), reached);
    match seen {
        Ok(tools) => observe(app, tenant, name, &tools).await,
        Err(_) => Ok(()),
    }
}

/// Looks at an upstream that was never reached, with a session's secrets, before something of it is called.
///
/// # Errors
///
/// [`OperationError::SessionDead`], [`OperationError::NotFound`] or [`OperationError::SessionScopeMissing`] for a secret that the
/// session may not read.
pub(super) async fn introduce(
    app: &Arc<App>,
    caller: &Caller,
    name: &UpstreamName,
    session_id: &str,
) -> Result<(), OperationError> {
    let unknown = app.with_tenant(&caller.tenant, |tenant| {
        let upstream = tenant.upstreams.get(name).filter(|upstream| upstream.tools.is_none());
        upstream.map(|upstream| upstream.transport.clone())
    })?;
    let Some(transport) = unknown else { return Ok(()) };
    let secrets = secrets_for(app, caller, &transport, Some(session_id)).await?;
    check(app, &caller.tenant, name, &transport, secrets, Some(session_id.to_owned())).await
}

/// Looks at every upstream that can be looked at without a session.
pub async fn check_all(app: &Arc<App>) {
    let mut upstreams = Vec::new();
    for (tenant, stream) in app.ledger.read().streams() {
        for (name, upstream) in stream.tenant.upstreams.all() {
            if !needs_secrets(&upstream.transport) {
                upstreams.push((tenant.clone(), name.clone(), upstream.transport.clone()));
            }
        }
    }
    let checks = upstreams.into_iter().map(|(tenant, name, transport)| async move {
        if let Err(error) = check(app, &tenant, &name, &transport, Secrets::default(), None).await {
            tracing::warn!(%tenant, upstream = %name, %error, "an upstream's tools were not recorded");
        }
    });
    futures_util::future::join_all(checks).await;
}

/// Removes an upstream.
///
/// # Errors
///
/// [`OperationError::NotFound`].
pub async fn remove(app: &App, caller: &Caller, name: &str) -> Result<RemovedUpstream, OperationError> {
    let name = named_upstream(name)?;
    let command = Command::RemoveUpstream(RemoveUpstream { name: name.clone() });
    app.submit(caller, command, None, vec![]).await?;
    app.upstreams.close(&caller.tenant, name.as_str());
    app.upstream_health.forget(&caller.tenant, &name);
    Ok(RemovedUpstream { removed: true, name: name.to_string() })
}

/// Trusts a tool as it is now. `digest` is that of the definition that was looked at.
///
/// # Errors
///
/// [`OperationError::NotFound`]; [`OperationError::Conflict`] when the tool changed since.
pub async fn accept(
    app: &App,
    caller: &Caller,
    name: &str,
    tool: String,
    digest: ToolDigest,
    decider: String,
    note: String,
) -> Result<AcceptedTool, OperationError> {
    let name = named_upstream(name)?;
    let decider = if decider.is_empty() { caller.prefix.to_string() } else { decider };
    let command = AcceptTool { name: name.clone(), tool: tool.clone(), digest, decider, note };
    app.submit(caller, Command::AcceptTool(command), None, vec![]).await?;
    Ok(AcceptedTool {
        accepted: true,
        upstream: name.to_string(),
        tool,
        digest: data_encoding::HEXLOWER.encode(&digest),
    })
}
