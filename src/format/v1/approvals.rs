//! Payloads of schema version 1 about approvals, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::approvals::{
    ApprovalDenied, ApprovalExpired, ApprovalGranted, ApprovalRequested, ApprovalRuleAdded,
    ApprovalRuleRemoved, Origin, Rule, Subject,
};
use crate::domain::id::{AgentId, ApprovalId, SessionId};
use crate::domain::money::Money;
use crate::domain::time::Timestamp;

#[derive(Encode, Decode)]
pub(super) struct ApprovalRuleAddedWire {
    rule_id: u64,
    kind: String,
    threshold_nanos: u128,
    tools: Vec<String>,
    required: u8,
}

#[derive(Encode, Decode)]
pub(super) struct ApprovalRuleRemovedWire {
    rule_id: u64,
}

#[derive(Encode, Decode)]
pub(super) struct ApprovalRequestedWire {
    approval_id: String,
    session_id: String,
    agent_id: String,
    tool: String,
    action: String,
    amount_nanos: u128,
    currency: String,
    description: String,
    arguments_digest: Option<[u8; 32]>,
    reason: String,
    ttl_s: u64,
    expires_at_us: Option<u64>,
    required: u8,
    origin: u8,
}

#[derive(Encode, Decode)]
pub(super) struct ApprovalGrantedWire {
    approval_id: String,
    decider: String,
    note: String,
    amount_nanos: Option<u128>,
    ttl_s: Option<u64>,
    usable_until_us: Option<u64>,
    missing: u8,
}

#[derive(Encode, Decode)]
pub(super) struct ApprovalDeniedWire {
    approval_id: String,
    decider: String,
    note: String,
}

#[derive(Encode, Decode)]
pub(super) struct ApprovalExpiredWire {
    approval_id: String,
}

fn approval_id(text: &str) -> Result<ApprovalId, &'static str> {
    ApprovalId::parse(text).ok_or("approval_id")
}

impl From<&ApprovalRuleAdded> for ApprovalRuleAddedWire {
    fn from(e: &ApprovalRuleAdded) -> Self {
        Self {
            rule_id: e.rule_id,
            kind: e.rule.kind.clone(),
            threshold_nanos: e.rule.threshold.nanos(),
            tools: e.rule.tools.clone(),
            required: e.rule.required,
        }
    }
}

impl Wire for ApprovalRuleAddedWire {
    type Event = ApprovalRuleAdded;
    fn into_event(self) -> Result<ApprovalRuleAdded, &'static str> {
        let Self { rule_id, kind, threshold_nanos, tools, required } = self;
        let rule = Rule { kind, threshold: Money::from_nanos(threshold_nanos), tools, required };
        Ok(ApprovalRuleAdded { rule_id, rule })
    }
}

impl From<&ApprovalRuleRemoved> for ApprovalRuleRemovedWire {
    fn from(e: &ApprovalRuleRemoved) -> Self {
        Self { rule_id: e.rule_id }
    }
}

impl Wire for ApprovalRuleRemovedWire {
    type Event = ApprovalRuleRemoved;
    fn into_event(self) -> Result<ApprovalRuleRemoved, &'static str> {
        Ok(ApprovalRuleRemoved { rule_id: self.rule_id })
    }
}

impl From<&ApprovalRequested> for ApprovalRequestedWire {
    fn from(e: &ApprovalRequested) -> Self {
        Self {
            approval_id: e.approval_id.to_string(),
            session_id: e.subject.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            tool: e.subject.tool.clone(),
            action: e.subject.action.clone(),
            amount_nanos: e.amount.nanos(),
            currency: e.subject.currency.clone(),
            description: e.subject.description.clone(),
            arguments_digest: e.subject.arguments,
            reason: e.reason.clone(),
            ttl_s: e.ttl_s,
            expires_at_us: e.expires_at.map(Timestamp::micros),
            required: e.required,
            origin: match e.origin {
                Origin::Caller => 0,
                Origin::Payment => 1,
                Origin::Call => 2,
            },
        }
    }
}

impl Wire for ApprovalRequestedWire {
    type Event = ApprovalRequested;
    fn into_event(self) -> Result<ApprovalRequested, &'static str> {
        let subject = Subject {
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            tool: self.tool,
            action: self.action,
            currency: self.currency,
            description: self.description,
            arguments: self.arguments_digest,
        };
        Ok(ApprovalRequested {
            approval_id: approval_id(&self.approval_id)?,
            subject,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            amount: Money::from_nanos(self.amount_nanos),
            reason: self.reason,
            ttl_s: self.ttl_s,
            expires_at: self.expires_at_us.map(Timestamp::from_micros),
            required: self.required,
            origin: match self.origin {
                0 => Origin::Caller,
                1 => Origin::Payment,
                2 => Origin::Call,
                _ => return Err("origin"),
            },
        })
    }
}

impl From<&ApprovalGranted> for ApprovalGrantedWire {
    fn from(e: &ApprovalGranted) -> Self {
        Self {
            approval_id: e.approval_id.to_string(),
            decider: e.decider.clone(),
            note: e.note.clone(),
            amount_nanos: e.amount.map(Money::nanos),
            ttl_s: e.ttl_s,
            usable_until_us: e.usable_until.map(Timestamp::micros),
            missing: e.missing,
        }
    }
}

impl Wire for ApprovalGrantedWire {
    type Event = ApprovalGranted;
    fn into_event(self) -> Result<ApprovalGranted, &'static str> {
        Ok(ApprovalGranted {
            approval_id: approval_id(&self.approval_id)?,
            decider: self.decider,
            note: self.note,
            amount: self.amount_nanos.map(Money::from_nanos),
            ttl_s: self.ttl_s,
            usable_until: self.usable_until_us.map(Timestamp::from_micros),
            missing: self.missing,
        })
    }
}

impl From<&ApprovalDenied> for ApprovalDeniedWire {
    fn from(e: &ApprovalDenied) -> Self {
        let (decider, note) = (e.decider.clone(), e.note.clone());
        Self { approval_id: e.approval_id.to_string(), decider, note }
    }
}

impl Wire for ApprovalDeniedWire {
    type Event = ApprovalDenied;
    fn into_event(self) -> Result<ApprovalDenied, &'static str> {
        let Self { approval_id: id, decider, note } = self;
        Ok(ApprovalDenied { approval_id: approval_id(&id)?, decider, note })
    }
}

impl From<&ApprovalExpired> for ApprovalExpiredWire {
    fn from(e: &ApprovalExpired) -> Self {
        Self { approval_id: e.approval_id.to_string() }
    }
}

impl Wire for ApprovalExpiredWire {
    type Event = ApprovalExpired;
    fn into_event(self) -> Result<ApprovalExpired, &'static str> {
        Ok(ApprovalExpired { approval_id: approval_id(&self.approval_id)? })
    }
}
