//! Rules: what a tenant wants to hear of.

use serde::{Deserialize, Serialize};

use crate::domain::money::Money;
use crate::domain::time::Timestamp;

/// Seconds that [`Condition::ActionsPerMinute`] looks back.
const MINUTE_S: u64 = 60;

/// What is watched for, and what is said when it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What is watched for.
    pub condition: Condition,
    /// What flags of this rule say; `None` for a text made of the condition.
    pub reason: Option<String>,
}

/// What is watched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// One action that costs, or one payment that is, more than this.
    SpendPerAction {
        /// How much is not too much yet.
        above: Money,
    },
    /// An action after so many others of the agent within the last minute.
    ActionsPerMinute {
        /// How many, without the one that is looked at.
        count: u64,
    },
    /// An action with one of these tools.
    ToolBlocked {
        /// Their names.
        tools: Vec<String>,
    },
    /// The agent was told no so many times.
    RepeatedDenials {
        /// How many times, with the one that is looked at.
        count: u64,
        /// Within so many seconds.
        window_s: u64,
    },
    /// An action costs, or a payment is, so many times what the agent's are on average.
    SpendSpike {
        /// How many times the average, in billionths: 3 is 3,000,000,000.
        factor_nanos: u64,
        /// Costs, or payments, that an average needs.
        min_samples: u64,
    },
    /// An action with a tool that the agent never used.
    UnusualTool {
        /// Actions after which its tools are known.
        min_samples: u64,
    },
    /// An action or a payment in an hour of the day, UTC, in which the agent never did anything.
    UnusualHours {
        /// Actions and payments after which its hours are known.
        min_samples: u64,
    },
    /// An action after so many others, or a payment after so many others, within a time.
    Velocity {
        /// How many, without the one that is looked at.
        count: u64,
        /// Within so many seconds.
        window_s: u64,
    },
}

/// What a rule is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleType {
    /// [`Condition::SpendPerAction`]
    SpendPerAction,
    /// [`Condition::ActionsPerMinute`]
    ActionsPerMinute,
    /// [`Condition::ToolBlocked`]
    ToolBlocked,
    /// [`Condition::RepeatedDenials`]
    RepeatedDenials,
    /// [`Condition::SpendSpike`]
    SpendSpike,
    /// [`Condition::UnusualTool`]
    UnusualTool,
    /// [`Condition::UnusualHours`]
    UnusualHours,
    /// [`Condition::Velocity`]
    Velocity,
}

impl RuleType {
    /// Every type, in the order of the document.
    pub const ALL: [Self; 8] = [
        Self::SpendPerAction,
        Self::ActionsPerMinute,
        Self::ToolBlocked,
        Self::RepeatedDenials,
        Self::SpendSpike,
        Self::UnusualTool,
        Self::UnusualHours,
        Self::Velocity,
    ];

    /// Its name, as clients write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpendPerAction => "spend_per_action",
            Self::ActionsPerMinute => "actions_per_minute",
            Self::ToolBlocked => "tool_blocked",
            Self::RepeatedDenials => "repeated_denials",
            Self::SpendSpike => "spend_spike",
            Self::UnusualTool => "unusual_tool",
            Self::UnusualHours => "unusual_hours",
            Self::Velocity => "velocity",
        }
    }

    /// The type with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

impl Condition {
    /// What it is called.
    #[must_use]
    pub const fn rule_type(&self) -> RuleType {
        match self {
            Self::SpendPerAction { .. } => RuleType::SpendPerAction,
            Self::ActionsPerMinute { .. } => RuleType::ActionsPerMinute,
            Self::ToolBlocked { .. } => RuleType::ToolBlocked,
            Self::RepeatedDenials { .. } => RuleType::RepeatedDenials,
            Self::SpendSpike { .. } => RuleType::SpendSpike,
            Self::UnusualTool { .. } => RuleType::UnusualTool,
            Self::UnusualHours { .. } => RuleType::UnusualHours,
            Self::Velocity { .. } => RuleType::Velocity,
        }
    }

    /// How many deeds before the one that is looked at must lie within how many seconds, for conditions that count.
    #[must_use]
    pub const fn before(&self) -> Option<(u64, u64)> {
        match self {
            Self::ActionsPerMinute { count } => Some((*count, MINUTE_S)),
            Self::Velocity { count, window_s } => Some((*count, *window_s)),
            Self::RepeatedDenials { count, window_s } => Some((count.saturating_sub(1), *window_s)),
            Self::SpendPerAction { .. }
            | Self::ToolBlocked { .. }
            | Self::SpendSpike { .. }
            | Self::UnusualTool { .. }
            | Self::UnusualHours { .. } => None,
        }
    }
}

impl Rule {
    /// What a flag of this rule says about something that was done with `tool` at `at`.
    #[must_use]
    pub fn reason_for(&self, tool: &str, at: Timestamp) -> String {
        if let Some(reason) = &self.reason {
            return reason.clone();
        }
        let name = self.condition.rule_type().name();
        match &self.condition {
            Condition::SpendPerAction { above } => format!("{name} exceeded {above}"),
            Condition::ActionsPerMinute { count }
            | Condition::RepeatedDenials { count, .. }
            | Condition::Velocity { count, .. } => format!("{name} exceeded {count}"),
            Condition::SpendSpike { factor_nanos, .. } => {
                format!("{name} exceeded {} times the average", Money::from_nanos(u128::from(*factor_nanos)))
            }
            Condition::ToolBlocked { .. } => format!("{name} exceeded {tool}"),
            Condition::UnusualTool { .. } => format!("{name}: first use of {tool}"),
            Condition::UnusualHours { .. } => {
                let hour = at.hour();
                format!("{name}: never seen between {hour:02}:00 and {hour:02}:59 UTC")
            }
        }
    }
}

/// How much of the past the rules look at. What lies further back is not kept.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Needs {
    pub(super) deeds: Past,
    pub(super) denials: Past,
}

/// So many deeds, no older than so many seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Past {
    pub(super) count: u64,
    pub(super) window_s: u64,
}

impl Needs {
    pub(super) fn of<'a>(rules: impl Iterator<Item = &'a Rule>) -> Self {
        let mut needs = Self::default();
        for rule in rules {
            let Some((count, window_s)) = rule.condition.before() else {
                continue;
            };
            let is_about_denials = rule.condition.rule_type() == RuleType::RepeatedDenials;
            let past = if is_about_denials { &mut needs.denials } else { &mut needs.deeds };
            past.count = past.count.max(count);
            past.window_s = past.window_s.max(window_s);
        }
        needs
    }
}
