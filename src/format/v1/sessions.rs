//! Payloads of schema version 1 about sessions, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::id::{AgentId, SessionId};
use crate::domain::money::Money;
use crate::domain::sessions::{PermissionChecked, SessionDenied, SessionOpened, SessionRevoked, Verdict};
use crate::domain::time::Timestamp;

#[derive(Encode, Decode)]
pub(in crate::format) struct SessionOpenedWire {
    session_id: String,
    agent_id: String,
    scopes: Vec<String>,
    cap_nanos: Option<u128>,
    ttl_s: u64,
    expires_at_us: Option<u64>,
    agent_limit: Option<u64>,
}

#[derive(Encode, Decode)]
pub(super) struct SessionRevokedWire {
    session_id: String,
}

#[derive(Encode, Decode)]
pub(super) struct SessionDeniedWire {
    agent_id: String,
    agent_limit: u64,
    agents_live: u64,
}

#[derive(Encode, Decode)]
pub(super) struct PermissionCheckedWire {
    session_id: String,
    scope: String,
    verdict: u8,
}

impl From<&SessionOpened> for SessionOpenedWire {
    fn from(e: &SessionOpened) -> Self {
        Self {
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            scopes: e.scopes.clone(),
            cap_nanos: e.cap.map(Money::nanos),
            ttl_s: e.ttl_s,
            expires_at_us: e.expires_at.map(Timestamp::micros),
            agent_limit: e.agent_limit,
        }
    }
}

impl Wire for SessionOpenedWire {
    type Event = SessionOpened;
    fn into_event(self) -> Result<SessionOpened, &'static str> {
        Ok(SessionOpened {
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            scopes: self.scopes,
            cap: self.cap_nanos.map(Money::from_nanos),
            ttl_s: self.ttl_s,
            expires_at: self.expires_at_us.map(Timestamp::from_micros),
            agent_limit: self.agent_limit,
            parent: None,
        })
    }
}

impl From<&SessionRevoked> for SessionRevokedWire {
    fn from(e: &SessionRevoked) -> Self {
        Self { session_id: e.session_id.to_string() }
    }
}

impl Wire for SessionRevokedWire {
    type Event = SessionRevoked;
    fn into_event(self) -> Result<SessionRevoked, &'static str> {
        Ok(SessionRevoked { session_id: SessionId::parse(&self.session_id).ok_or("session_id")? })
    }
}

impl From<&SessionDenied> for SessionDeniedWire {
    fn from(e: &SessionDenied) -> Self {
        Self { agent_id: e.agent_id.to_string(), agent_limit: e.agent_limit, agents_live: e.agents_live }
    }
}

impl Wire for SessionDeniedWire {
    type Event = SessionDenied;
    fn into_event(self) -> Result<SessionDenied, &'static str> {
        Ok(SessionDenied {
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            agent_limit: self.agent_limit,
            agents_live: self.agents_live,
        })
    }
}

impl From<&PermissionChecked> for PermissionCheckedWire {
    fn from(e: &PermissionChecked) -> Self {
        let verdict = match e.verdict {
            Verdict::Allowed => 0,
            Verdict::SessionUnknown => 1,
            Verdict::SessionRevoked => 2,
            Verdict::SessionExpired => 3,
            Verdict::ScopeMissing => 4,
        };
        Self { session_id: e.session_id.to_string(), scope: e.scope.clone(), verdict }
    }
}

impl Wire for PermissionCheckedWire {
    type Event = PermissionChecked;
    fn into_event(self) -> Result<PermissionChecked, &'static str> {
        let verdict = match self.verdict {
            0 => Verdict::Allowed,
            1 => Verdict::SessionUnknown,
            2 => Verdict::SessionRevoked,
            3 => Verdict::SessionExpired,
            4 => Verdict::ScopeMissing,
            _ => return Err("verdict"),
        };
        Ok(PermissionChecked {
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            scope: self.scope,
            verdict,
        })
    }
}
