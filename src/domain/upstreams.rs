//! Upstreams: the MCP servers that agents reach through Haldir, and the tools that were pinned there.
//!
//! A tool is pinned by the digest of its definition when its upstream is first heard of. One whose definition changes
//! afterwards, or that appears later, is quarantined: agents neither see it nor call it until somebody has looked at the
//! difference and accepted it. So an upstream cannot give a tool that was once trusted another meaning.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits::{UPSTREAM_COUNT_MAX, UPSTREAM_NAME_LEN_MAX};
use super::table::Table;
use super::time::Timestamp;
use super::{Event, Refusal};

/// Names a tool's definition: a digest of its description and schemas.
pub type ToolDigest = [u8; 32];

/// The name of an upstream: what stands before the dot in the names of its tools.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UpstreamName(Arc<str>);

impl UpstreamName {
    /// Reads a name: 1 to 64 letters, digits, `-` and `_`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let fits = (1..=UPSTREAM_NAME_LEN_MAX).contains(&text.len());
        (fits && text.bytes().all(legal)).then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// Streamable HTTP.
    Http {
        /// Where.
        url: String,
        /// Headers that every request carries.
        headers: Vec<Setting>,
    },
    /// A process, over its standard input and output.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its environment.
        env: Vec<Setting>,
    },
}

impl Transport {
    /// What is set for the upstream: headers, or the environment.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        match self {
            Self::Http { headers, .. } => headers,
            Self::Stdio { env, .. } => env,
        }
    }
}

/// Something that is set for an upstream. Its value may end in `secret://` and the name of a secret, and is then completed
/// through the session that calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Register an upstream, in place of one with the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterUpstream {
    /// Under which name.
    pub name: UpstreamName,
    /// How it is spoken to.
    pub transport: Transport,
    /// The tools that it has, in the order of names; `None` when it was not reached.
    pub tools: Option<Vec<Pin>>,
}

/// Remove an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveUpstream {
    /// Which one.
    pub name: UpstreamName,
}

/// Take note of the tools that an upstream has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObserveTools {
    /// Which upstream.
    pub name: UpstreamName,
    /// Its tools, in the order of names.
    pub tools: Vec<Pin>,
}

/// Trust a tool as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptTool {
    /// Of which upstream.
    pub name: UpstreamName,
    /// Which tool.
    pub tool: String,
    /// The definition that was looked at.
    pub digest: ToolDigest,
    /// Who trusts it.
    pub decider: String,
    /// What they say about it.
    pub note: String,
}

/// A tool and its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The tool.
    pub tool: String,
    /// Its definition.
    pub digest: ToolDigest,
}

/// An upstream was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRegistered {
    /// Under which name.
    pub name: UpstreamName,
    /// How it is spoken to.
    pub transport: Transport,
    /// The tools that were pinned; `None` when it was not reached.
    pub tools: Option<Vec<Pin>>,
}

/// An upstream was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRemoved {
    /// Which one.
    pub name: UpstreamName,
}

/// An upstream was found to have other tools than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolsObserved {
    /// Which upstream.
    pub name: UpstreamName,
    /// Its tools, in the order of names.
    pub tools: Vec<Sighting>,
}

/// A tool as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The tool.
    pub tool: String,
    /// Its definition.
    pub digest: ToolDigest,
    /// Whether that is the pinned one. Otherwise the tool is quarantined.
    pub is_trusted: bool,
}

/// Somebody trusts a tool as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolAccepted {
    /// Of which upstream.
    pub name: UpstreamName,
    /// Which tool.
    pub tool: String,
    /// Its definition, which is pinned from now on.
    pub digest: ToolDigest,
    /// Who trusts it.
    pub decider: String,
    /// What they said about it.
    pub note: String,
}

/// The tenant's upstreams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstreams {
    by_name: Table<UpstreamName, Arc<Upstream>>,
}

/// An upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// How it is spoken to.
    pub transport: Transport,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// Where in the stream: earlier ones take a tool's bare name first, and a call is prepared for this registration only.
    pub seq: u64,
    /// Its tools; `None` while it was never reached.
    pub tools: Option<BTreeMap<String, PinnedTool>>,
    /// Calls that came to their end.
    pub calls: u64,
    /// How many of them in an error.
    pub errors: u64,
    /// Microseconds that they took together.
    pub duration_us: u64,
}

/// A tool, as it is trusted and as it was seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedTool {
    /// The definition that is trusted; `None` for a tool that appeared later and was not accepted.
    pub pinned: Option<ToolDigest>,
    /// The definition that was seen last; `None` when the tool was gone.
    pub seen: Option<ToolDigest>,
}

/// What is to be thought of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolStanding {
    /// It is what it was when it was pinned.
    Trusted,
    /// It changed, or appeared later, and waits for somebody to accept it.
    Quarantined,
    /// The upstream does not have it any more.
    Gone,
}

impl PinnedTool {
    /// What is to be thought of it.
    #[must_use]
    pub fn standing(&self) -> ToolStanding {
        match self.seen {
            None => ToolStanding::Gone,
            Some(_) if self.seen == self.pinned => ToolStanding::Trusted,
            Some(_) => ToolStanding::Quarantined,
        }
    }
}

impl Upstream {
    /// A tool that it has or had.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&PinnedTool> {
        self.tools.as_ref()?.get(name)
    }

    /// Its tools in the order of names, those that are gone included.
    pub fn tools(&self) -> impl Iterator<Item = (&String, &PinnedTool)> {
        self.tools.iter().flatten()
    }
}

impl Upstreams {
    /// The upstream with this name.
    #[must_use]
    pub fn get(&self, name: &UpstreamName) -> Option<&Upstream> {
        self.by_name.get(name).map(|upstream| &**upstream)
    }

    /// Every upstream, in the order of names.
    pub fn all(&self) -> impl Iterator<Item = (&UpstreamName, &Upstream)> {
        self.by_name.into_iter().map(|(name, upstream)| (name, &**upstream))
    }

    /// The upstream and the tool that a name means: `upstream.tool`, or a tool's own name, which the upstream that was
    /// registered first has.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<(&UpstreamName, String)> {
        let named = name.split_once('.').and_then(|(upstream, tool)| {
            let (found, it) = self.all().find(|(it, _)| it.as_str() == upstream)?;
            it.tool(tool).map(|_| (found, tool.to_owned()))
        });
        let holders = || self.all().filter(|(_, upstream)| upstream.tool(name).is_some());
        let bare = || holders().min_by_key(|(_, upstream)| upstream.seq).map(|(it, _)| (it, name.to_owned()));
        named.or_else(bare)
    }

    fn find(&self, name: &UpstreamName) -> Result<&Upstream, Refusal> {
        self.get(name).ok_or(Refusal::UpstreamUnknown)
    }

    pub(super) fn change(&mut self, name: &UpstreamName, change: impl FnOnce(&mut Upstream)) {
        if let Some(upstream) = self.by_name.get_mut_cow(name) {
            change(Arc::make_mut(upstream));
        }
    }
}

pub(super) fn register(upstreams: &Upstreams, command: &RegisterUpstream) -> Result<Vec<Event>, Refusal> {
    let RegisterUpstream { name, transport, tools } = command.clone();
    if upstreams.get(&name).is_none() && upstreams.by_name.len() >= UPSTREAM_COUNT_MAX {
        return Err(Refusal::TooManyUpstreams);
    }
    Ok(vec![Event::UpstreamRegistered(UpstreamRegistered { name, transport, tools })])
}

pub(super) fn remove(upstreams: &Upstreams, command: &RemoveUpstream) -> Result<Vec<Event>, Refusal> {
    upstreams.find(&command.name)?;
    Ok(vec![Event::UpstreamRemoved(UpstreamRemoved { name: command.name.clone() })])
}

pub(super) fn observe(upstreams: &Upstreams, command: &ObserveTools) -> Result<Vec<Event>, Refusal> {
    let upstream = upstreams.find(&command.name)?;
    let tools: Vec<Sighting> = command.tools.iter().map(|pin| sight(upstream, pin)).collect();
    let seen: BTreeMap<&String, ToolDigest> = tools.iter().map(|it| (&it.tool, it.digest)).collect();
    let was_seen: BTreeMap<&String, ToolDigest> =
        upstream.tools().filter_map(|(tool, pinned)| Some((tool, pinned.seen?))).collect();
    if upstream.tools.is_some() && seen == was_seen {
        return Ok(vec![]);
    }
    Ok(vec![Event::ToolsObserved(ToolsObserved { name: command.name.clone(), tools })])
}

/// The tools of an upstream that was never reached before are pinned as they are found.
fn sight(upstream: &Upstream, pin: &Pin) -> Sighting {
    let is_first = upstream.tools.is_none();
    let pinned = upstream.tool(&pin.tool).and_then(|tool| tool.pinned);
    Sighting {
        tool: pin.tool.clone(),
        digest: pin.digest,
        is_trusted: is_first || pinned == Some(pin.digest),
    }
}

pub(super) fn accept(upstreams: &Upstreams, command: &AcceptTool) -> Result<Vec<Event>, Refusal> {
    let AcceptTool { name, tool, digest, decider, note } = command.clone();
    let found = upstreams.find(&name)?.tool(&tool).ok_or(Refusal::ToolUnknown)?;
    if found.seen != Some(digest) {
        return Err(Refusal::ToolMoved);
    }
    if found.standing() == ToolStanding::Trusted {
        return Ok(vec![]);
    }
    Ok(vec![Event::ToolAccepted(ToolAccepted { name, tool, digest, decider, note })])
}

pub(super) fn apply_registered(
    upstreams: &mut Upstreams,
    seq: u64,
    at: Timestamp,
    event: &UpstreamRegistered,
) {
    let pinned =
        |pin: &Pin| (pin.tool.clone(), PinnedTool { pinned: Some(pin.digest), seen: Some(pin.digest) });
    let upstream = Upstream {
        transport: event.transport.clone(),
        registered_at: at,
        seq,
        tools: event.tools.as_ref().map(|tools| tools.iter().map(pinned).collect()),
        calls: 0,
        errors: 0,
        duration_us: 0,
    };
    upstreams.by_name.insert_cow(event.name.clone(), Arc::new(upstream));
}

pub(super) fn apply_removed(upstreams: &mut Upstreams, event: &UpstreamRemoved) {
    upstreams.by_name.remove_cow(&event.name);
}

pub(super) fn apply_observed(upstreams: &mut Upstreams, event: &ToolsObserved) {
    upstreams.change(&event.name, |upstream| {
        let tools = upstream.tools.get_or_insert_default();
        // What never was trusted and is gone is forgotten, so that ever new names do not pile up.
        tools.retain(|_, tool| {
            tool.seen = None;
            tool.pinned.is_some()
        });
        for sighting in &event.tools {
            let tool = tools.entry(sighting.tool.clone()).or_insert(PinnedTool { pinned: None, seen: None });
            tool.seen = Some(sighting.digest);
            if sighting.is_trusted {
                tool.pinned = Some(sighting.digest);
            }
        }
    });
}

pub(super) fn apply_accepted(upstreams: &mut Upstreams, event: &ToolAccepted) {
    upstreams.change(&event.name, |upstream| {
        if let Some(tool) = upstream.tools.as_mut().and_then(|tools| tools.get_mut(&event.tool)) {
            tool.pinned = Some(event.digest);
        }
    });
}

#[cfg(test)]
pub(in crate::domain) mod tests;
