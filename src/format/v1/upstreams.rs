//! Payloads of schema version 1 about upstreams and their tools, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::upstreams::{
    Pin, Setting, Sighting, ToolAccepted, ToolsObserved, Transport, UpstreamName, UpstreamRegistered,
    UpstreamRemoved,
};

#[derive(Encode, Decode)]
struct SettingWire {
    name: String,
    value: String,
}

#[derive(Encode, Decode)]
struct PinWire {
    tool: String,
    digest: [u8; 32],
}

#[derive(Encode, Decode)]
pub(super) struct UpstreamRegisteredWire {
    name: String,
    transport: u8,
    target: String,
    args: Vec<String>,
    settings: Vec<SettingWire>,
    tools: Option<Vec<PinWire>>,
}

#[derive(Encode, Decode)]
pub(super) struct UpstreamRemovedWire {
    name: String,
}

#[derive(Encode, Decode)]
struct SightingWire {
    tool: String,
    digest: [u8; 32],
    is_trusted: bool,
}

#[derive(Encode, Decode)]
pub(super) struct ToolsObservedWire {
    name: String,
    tools: Vec<SightingWire>,
}

#[derive(Encode, Decode)]
pub(super) struct ToolAcceptedWire {
    name: String,
    tool: String,
    digest: [u8; 32],
    decider: String,
    note: String,
}

fn name_of(text: &str) -> Result<UpstreamName, &'static str> {
    UpstreamName::parse(text).ok_or("name")
}

impl From<&UpstreamRegistered> for UpstreamRegisteredWire {
    fn from(e: &UpstreamRegistered) -> Self {
        let (transport, target, args) = match &e.transport {
            Transport::Http { url, .. } => (0, url, Vec::new()),
            Transport::Stdio { command, args, .. } => (1, command, args.clone()),
        };
        let setting = |it: &Setting| SettingWire { name: it.name.clone(), value: it.value.clone() };
        let pin = |it: &Pin| PinWire { tool: it.tool.clone(), digest: it.digest };
        Self {
            name: e.name.to_string(),
            transport,
            target: target.clone(),
            args,
            settings: e.transport.settings().iter().map(setting).collect(),
            tools: e.tools.as_ref().map(|tools| tools.iter().map(pin).collect()),
        }
    }
}

impl Wire for UpstreamRegisteredWire {
    type Event = UpstreamRegistered;
    fn into_event(self) -> Result<UpstreamRegistered, &'static str> {
        let Self { name, transport, target, args, settings, tools } = self;
        let setting = |it: SettingWire| Setting { name: it.name, value: it.value };
        let pin = |it: PinWire| Pin { tool: it.tool, digest: it.digest };
        let settings = settings.into_iter().map(setting).collect();
        let transport = match transport {
            0 if args.is_empty() => Transport::Http { url: target, headers: settings },
            1 => Transport::Stdio { command: target, args, env: settings },
            _ => return Err("transport"),
        };
        let tools = tools.map(|tools| tools.into_iter().map(pin).collect());
        Ok(UpstreamRegistered { name: name_of(&name)?, transport, tools })
    }
}

impl From<&UpstreamRemoved> for UpstreamRemovedWire {
    fn from(e: &UpstreamRemoved) -> Self {
        Self { name: e.name.to_string() }
    }
}

impl Wire for UpstreamRemovedWire {
    type Event = UpstreamRemoved;
    fn into_event(self) -> Result<UpstreamRemoved, &'static str> {
        Ok(UpstreamRemoved { name: name_of(&self.name)? })
    }
}

impl From<&ToolsObserved> for ToolsObservedWire {
    fn from(e: &ToolsObserved) -> Self {
        let sighting = |it: &Sighting| SightingWire {
            tool: it.tool.clone(),
            digest: it.digest,
            is_trusted: it.is_trusted,
        };
        Self { name: e.name.to_string(), tools: e.tools.iter().map(sighting).collect() }
    }
}

impl Wire for ToolsObservedWire {
    type Event = ToolsObserved;
    fn into_event(self) -> Result<ToolsObserved, &'static str> {
        let sighting =
            |it: SightingWire| Sighting { tool: it.tool, digest: it.digest, is_trusted: it.is_trusted };
        let tools = self.tools.into_iter().map(sighting).collect();
        Ok(ToolsObserved { name: name_of(&self.name)?, tools })
    }
}

impl From<&ToolAccepted> for ToolAcceptedWire {
    fn from(e: &ToolAccepted) -> Self {
        Self {
            name: e.name.to_string(),
            tool: e.tool.clone(),
            digest: e.digest,
            decider: e.decider.clone(),
            note: e.note.clone(),
        }
    }
}

impl Wire for ToolAcceptedWire {
    type Event = ToolAccepted;
    fn into_event(self) -> Result<ToolAccepted, &'static str> {
        let Self { name, tool, digest, decider, note } = self;
        Ok(ToolAccepted { name: name_of(&name)?, tool, digest, decider, note })
    }
}
