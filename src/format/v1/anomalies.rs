//! Payloads of schema version 1 about anomalies, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::anomalies::rule::{Condition, Rule, RuleType};
use crate::domain::anomalies::{AnomalyDetected, RuleAdded, RuleRemoved};
use crate::domain::id::{AgentId, SessionId};
use crate::domain::money::Money;

#[derive(Encode, Decode)]
pub(super) struct RuleAddedWire {
    rule_id: u64,
    rule_type: u8,
    threshold: u128,
    tools: Vec<String>,
    window_s: u64,
    min_samples: u64,
    reason: Option<String>,
}

#[derive(Encode, Decode)]
pub(super) struct RuleRemovedWire {
    rule_id: u64,
}

#[derive(Encode, Decode)]
pub(super) struct AnomalyDetectedWire {
    rule_id: u64,
    rule_type: u8,
    agent_id: String,
    session_id: Option<String>,
    subject: u64,
    tool: String,
    action: String,
    amount_nanos: u128,
    reason: String,
    evidence: Vec<u64>,
}

const fn code_of(rule_type: RuleType) -> u8 {
    match rule_type {
        RuleType::SpendPerAction => 0,
        RuleType::ActionsPerMinute => 1,
        RuleType::ToolBlocked => 2,
        RuleType::RepeatedDenials => 3,
        RuleType::SpendSpike => 4,
        RuleType::UnusualTool => 5,
        RuleType::UnusualHours => 6,
        RuleType::Velocity => 7,
    }
}

const fn rule_type_of(code: u8) -> Option<RuleType> {
    Some(match code {
        0 => RuleType::SpendPerAction,
        1 => RuleType::ActionsPerMinute,
        2 => RuleType::ToolBlocked,
        3 => RuleType::RepeatedDenials,
        4 => RuleType::SpendSpike,
        5 => RuleType::UnusualTool,
        6 => RuleType::UnusualHours,
        7 => RuleType::Velocity,
        _ => return None,
    })
}

impl From<&RuleAdded> for RuleAddedWire {
    fn from(e: &RuleAdded) -> Self {
        let nothing = Self {
            rule_id: e.rule_id,
            rule_type: code_of(e.rule.condition.rule_type()),
            threshold: 0,
            tools: Vec::new(),
            window_s: 0,
            min_samples: 0,
            reason: e.rule.reason.clone(),
        };
        match &e.rule.condition {
            Condition::SpendPerAction { above } => Self { threshold: above.nanos(), ..nothing },
            Condition::ActionsPerMinute { count } => Self { threshold: u128::from(*count), ..nothing },
            Condition::ToolBlocked { tools } => Self { tools: tools.clone(), ..nothing },
            Condition::RepeatedDenials { count, window_s } | Condition::Velocity { count, window_s } => {
                Self { threshold: u128::from(*count), window_s: *window_s, ..nothing }
            }
            Condition::SpendSpike { factor_nanos, min_samples } => {
                Self { threshold: u128::from(*factor_nanos), min_samples: *min_samples, ..nothing }
            }
            Condition::UnusualTool { min_samples } | Condition::UnusualHours { min_samples } => {
                Self { min_samples: *min_samples, ..nothing }
            }
        }
    }
}

impl Wire for RuleAddedWire {
    type Event = RuleAdded;
    fn into_event(self) -> Result<RuleAdded, &'static str> {
        let rule_type = rule_type_of(self.rule_type).ok_or("rule_type")?;
        let count = || u64::try_from(self.threshold).map_err(|_| "threshold");
        let (window_s, min_samples) = (self.window_s, self.min_samples);
        let condition = match rule_type {
            RuleType::SpendPerAction => {
                Condition::SpendPerAction { above: Money::from_nanos(self.threshold) }
            }
            RuleType::ActionsPerMinute => Condition::ActionsPerMinute { count: count()? },
            RuleType::ToolBlocked => Condition::ToolBlocked { tools: self.tools.clone() },
            RuleType::RepeatedDenials => Condition::RepeatedDenials { count: count()?, window_s },
            RuleType::SpendSpike => Condition::SpendSpike { factor_nanos: count()?, min_samples },
            RuleType::UnusualTool => Condition::UnusualTool { min_samples },
            RuleType::UnusualHours => Condition::UnusualHours { min_samples },
            RuleType::Velocity => Condition::Velocity { count: count()?, window_s },
        };
        let event =
            RuleAdded { rule_id: self.rule_id, rule: Rule { condition, reason: self.reason.clone() } };
        // A parameter that the type does not have would not survive a second encoding.
        let again = Self::from(&event);
        let parameters = |it: &Self| (it.threshold, it.tools.len(), it.window_s, it.min_samples);
        if parameters(&again) == parameters(&self) { Ok(event) } else { Err("parameters") }
    }
}

impl From<&RuleRemoved> for RuleRemovedWire {
    fn from(e: &RuleRemoved) -> Self {
        Self { rule_id: e.rule_id }
    }
}

impl Wire for RuleRemovedWire {
    type Event = RuleRemoved;
    fn into_event(self) -> Result<RuleRemoved, &'static str> {
        Ok(RuleRemoved { rule_id: self.rule_id })
    }
}

impl From<&AnomalyDetected> for AnomalyDetectedWire {
    fn from(e: &AnomalyDetected) -> Self {
        Self {
            rule_id: e.rule_id,
            rule_type: code_of(e.rule_type),
            agent_id: e.agent_id.to_string(),
            session_id: e.session_id.as_ref().map(ToString::to_string),
            subject: e.subject,
            tool: e.tool.clone(),
            action: e.action.clone(),
            amount_nanos: e.amount.nanos(),
            reason: e.reason.clone(),
            evidence: e.evidence.clone(),
        }
    }
}

impl Wire for AnomalyDetectedWire {
    type Event = AnomalyDetected;
    fn into_event(self) -> Result<AnomalyDetected, &'static str> {
        let session_id = self.session_id.map(|id| SessionId::parse(&id).ok_or("session_id")).transpose()?;
        Ok(AnomalyDetected {
            rule_id: self.rule_id,
            rule_type: rule_type_of(self.rule_type).ok_or("rule_type")?,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            session_id,
            subject: self.subject,
            tool: self.tool,
            action: self.action,
            amount: Money::from_nanos(self.amount_nanos),
            reason: self.reason,
            evidence: self.evidence,
        })
    }
}
