//! Payloads of schema version 1 about secrets and their master keys, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::id::{AgentId, SessionId};
use crate::domain::secrets::{
    Rewrapped, SecretDeleted, SecretDenial, SecretDenied, SecretName, SecretRead, SecretStored, VaultRotated,
    VersionRef,
};

#[derive(Encode, Decode)]
struct VersionWire {
    version: u64,
    digest: [u8; 32],
}

#[derive(Encode, Decode)]
pub(super) struct SecretStoredWire {
    name: String,
    version: u64,
    required_scope: String,
    digest: [u8; 32],
    sealed_len: u64,
    erased: Option<VersionWire>,
}

#[derive(Encode, Decode)]
pub(super) struct SecretReadWire {
    name: String,
    version: u64,
    session_id: String,
    agent_id: String,
    digest: [u8; 32],
}

#[derive(Encode, Decode)]
pub(super) struct SecretDeniedWire {
    name: String,
    version: Option<u64>,
    session_id: String,
    agent_id: Option<String>,
    reason: u8,
    required_scope: Option<String>,
}

#[derive(Encode, Decode)]
pub(super) struct SecretDeletedWire {
    name: String,
    version: Option<u64>,
    erased: Vec<VersionWire>,
}

#[derive(Encode, Decode)]
struct RewrappedWire {
    key_id: [u8; 8],
    count: u64,
}

#[derive(Encode, Decode)]
pub(super) struct VaultRotatedWire {
    to: [u8; 8],
    from: Vec<RewrappedWire>,
    already_current: u64,
    failed: u64,
}

impl From<&VersionRef> for VersionWire {
    fn from(it: &VersionRef) -> Self {
        Self { version: it.version, digest: it.digest }
    }
}

impl From<VersionWire> for VersionRef {
    fn from(it: VersionWire) -> Self {
        Self { version: it.version, digest: it.digest }
    }
}

fn name_of(text: &str) -> Result<SecretName, &'static str> {
    SecretName::parse(text).ok_or("name")
}

impl From<&SecretStored> for SecretStoredWire {
    fn from(e: &SecretStored) -> Self {
        Self {
            name: e.name.to_string(),
            version: e.version,
            required_scope: e.required_scope.clone(),
            digest: e.digest,
            sealed_len: e.sealed_len,
            erased: e.erased.as_ref().map(VersionWire::from),
        }
    }
}

impl Wire for SecretStoredWire {
    type Event = SecretStored;
    fn into_event(self) -> Result<SecretStored, &'static str> {
        Ok(SecretStored {
            name: name_of(&self.name)?,
            version: self.version,
            required_scope: self.required_scope,
            digest: self.digest,
            sealed_len: self.sealed_len,
            erased: self.erased.map(VersionRef::from),
        })
    }
}

impl From<&SecretRead> for SecretReadWire {
    fn from(e: &SecretRead) -> Self {
        Self {
            name: e.name.to_string(),
            version: e.version,
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            digest: e.digest,
        }
    }
}

impl Wire for SecretReadWire {
    type Event = SecretRead;
    fn into_event(self) -> Result<SecretRead, &'static str> {
        Ok(SecretRead {
            name: name_of(&self.name)?,
            version: self.version,
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            digest: self.digest,
        })
    }
}

impl From<&SecretDenied> for SecretDeniedWire {
    fn from(e: &SecretDenied) -> Self {
        let reason = match e.reason {
            SecretDenial::SessionUnknown => 0,
            SecretDenial::SessionRevoked => 1,
            SecretDenial::SessionExpired => 2,
            SecretDenial::SecretUnknown => 3,
            SecretDenial::ScopeMissing => 4,
        };
        Self {
            name: e.name.to_string(),
            version: e.version,
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.as_ref().map(ToString::to_string),
            reason,
            required_scope: e.required_scope.clone(),
        }
    }
}

impl Wire for SecretDeniedWire {
    type Event = SecretDenied;
    fn into_event(self) -> Result<SecretDenied, &'static str> {
        let reason = match self.reason {
            0 => SecretDenial::SessionUnknown,
            1 => SecretDenial::SessionRevoked,
            2 => SecretDenial::SessionExpired,
            3 => SecretDenial::SecretUnknown,
            4 => SecretDenial::ScopeMissing,
            _ => return Err("reason"),
        };
        let agent_id = self.agent_id.map(|text| AgentId::parse(&text).ok_or("agent_id")).transpose()?;
        Ok(SecretDenied {
            name: name_of(&self.name)?,
            version: self.version,
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            agent_id,
            reason,
            required_scope: self.required_scope,
        })
    }
}

impl From<&SecretDeleted> for SecretDeletedWire {
    fn from(e: &SecretDeleted) -> Self {
        let erased = e.erased.iter().map(VersionWire::from).collect();
        Self { name: e.name.to_string(), version: e.version, erased }
    }
}

impl Wire for SecretDeletedWire {
    type Event = SecretDeleted;
    fn into_event(self) -> Result<SecretDeleted, &'static str> {
        let erased = self.erased.into_iter().map(VersionRef::from).collect();
        Ok(SecretDeleted { name: name_of(&self.name)?, version: self.version, erased })
    }
}

impl From<&VaultRotated> for VaultRotatedWire {
    fn from(e: &VaultRotated) -> Self {
        let wire = |it: &Rewrapped| RewrappedWire { key_id: it.key_id, count: it.count };
        let from = e.from.iter().map(wire).collect();
        Self { to: e.to, from, already_current: e.already_current, failed: e.failed }
    }
}

impl Wire for VaultRotatedWire {
    type Event = VaultRotated;
    fn into_event(self) -> Result<VaultRotated, &'static str> {
        let event = |it: RewrappedWire| Rewrapped { key_id: it.key_id, count: it.count };
        let from = self.from.into_iter().map(event).collect();
        Ok(VaultRotated { to: self.to, from, already_current: self.already_current, failed: self.failed })
    }
}
