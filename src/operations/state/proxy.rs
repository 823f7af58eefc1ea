//! The proxy in the state of a tenant: upstreams with their tools, and calls without an outcome.

use data_encoding::HEXLOWER;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::calls::OpenCall;
use crate::domain::id::CallId;
use crate::domain::upstreams::{PinnedTool, ToolDigest, ToolStanding, Transport, Upstream, UpstreamName};
use crate::operations::decoded::method_name;
use crate::operations::wire::{Epoch, Usd};

/// An upstream. What is set for it is left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpstreamState {
    /// Its name.
    pub name: String,
    /// `http` or `stdio`.
    pub transport: &'static str,
    /// Where it is: its URL, or its command.
    pub url: String,
    /// When it was registered.
    pub registered_at: Epoch,
    /// Whether its tools are known: it was reached once.
    pub is_known: bool,
    /// Its tools, by name, those that are gone included.
    pub tools: Vec<ToolState>,
    /// Calls that came to their end.
    pub total_calls: u64,
    /// How many of them in an error.
    pub total_errors: u64,
}

/// A tool of an upstream.
#[derive(Debug, Serialize, ToSchema)]
pub struct ToolState {
    /// Its name.
    pub tool: String,
    /// `trusted`, `quarantined` or `gone`.
    pub standing: &'static str,
    /// Digest of the definition that is trusted, hex; empty for a tool that appeared later.
    pub pinned: String,
    /// Digest of the definition that was seen last, hex; empty for a tool that is gone.
    pub seen: String,
}

/// A call that was authorised and has no outcome: it may have happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenCallState {
    /// The call.
    pub call_id: String,
    /// The session that called.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// `tool`, `resource` or `prompt`.
    pub method: &'static str,
    /// The upstream.
    pub upstream: String,
    /// The tool; or a resource's address, or a prompt's name.
    pub name: String,
    /// What is set aside for it.
    pub price: Usd,
    /// When it was authorised.
    pub authorized_at: Epoch,
}

pub(super) fn upstream(name: &UpstreamName, upstream: &Upstream) -> UpstreamState {
    let (transport, url) = match &upstream.transport {
        Transport::Http { url, .. } => ("http", url),
        Transport::Stdio { command, .. } => ("stdio", command),
    };
    UpstreamState {
        name: name.to_string(),
        transport,
        url: url.clone(),
        registered_at: Epoch(upstream.registered_at),
        is_known: upstream.tools.is_some(),
        tools: upstream.tools().map(|(name, pinned)| tool(name, pinned)).collect(),
        total_calls: upstream.calls,
        total_errors: upstream.errors,
    }
}

fn tool(name: &str, pinned: &PinnedTool) -> ToolState {
    let hex = |digest: Option<ToolDigest>| digest.map(|it| HEXLOWER.encode(&it)).unwrap_or_default();
    ToolState {
        tool: name.to_owned(),
        standing: match pinned.standing() {
            ToolStanding::Trusted => "trusted",
            ToolStanding::Quarantined => "quarantined",
            ToolStanding::Gone => "gone",
        },
        pinned: hex(pinned.pinned),
        seen: hex(pinned.seen),
    }
}

pub(super) fn open_call(call_id: &CallId, call: &OpenCall) -> OpenCallState {
    OpenCallState {
        call_id: call_id.to_string(),
        session_id: call.session_id.to_string(),
        agent_id: call.agent_id.to_string(),
        method: method_name(call.method),
        upstream: call.upstream.to_string(),
        name: call.name.clone(),
        price: Usd::or_zero(call.price),
        authorized_at: Epoch(call.at),
    }
}
