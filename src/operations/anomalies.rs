//! Anomalies: the rules, and what they found.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::past::Moment;
use super::retries::Retry;
use super::wire::{Epoch, Usd};
use super::{App, Caller, OperationError, blocking, only_event};
use crate::domain::anomalies::rule::{Condition, Rule};
use crate::domain::anomalies::{AddRule, AnomalyDetected, RemoveRule};
use crate::domain::id::TenantId;
use crate::domain::money::Money;
use crate::domain::time::Timestamp;
use crate::domain::{Command, Event, Recorded};
use crate::views::audit::read_recorded;
use crate::views::follower::ViewError;
use crate::views::sparse::{Series, of_agent, of_rule};

/// Anomalies found when nothing else was asked.
pub const ANOMALIES_LEN_DEFAULT: usize = 100;
/// Anomalies found at most in one answer.
pub const ANOMALIES_LEN_MAX: usize = 1000;

/// Denials within [`DENIALS_WINDOW_S`] that are too many, when nothing else is said.
pub const DENIALS_DEFAULT: u64 = 5;
/// Seconds in which denials add up, when nothing else is said.
pub const DENIALS_WINDOW_S: u64 = 300;
/// Times the average that is a spike, when nothing else is said.
pub const FACTOR_DEFAULT: u64 = 3;
/// How much must be known of an agent, when nothing else is said.
pub const MIN_SAMPLES_DEFAULT: u64 = 10;

/// An anomaly rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleRow {
    /// Its number.
    pub rule_id: u64,
    /// What is watched for.
    #[serde(rename = "type")]
    #[schema(example = "spend_per_action")]
    pub rule_type: &'static str,
    /// The amount, number or tool that it compares with; null for types that have none, and for several tools.
    #[schema(value_type = Object)]
    pub threshold: Threshold,
    /// The tools, for `tool_blocked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Seconds that it looks back, for types that count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
    /// How much must be known of an agent, for types that compare it with itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_samples: Option<u64>,
    /// What flags say, if it was given; else they say it in words of the rule.
    pub reason: Option<String>,
    /// When it was added.
    pub added_at: Epoch,
    /// Position of its adding in the tenant's stream. Windows count from there.
    pub added_seq: u64,
}

/// What a rule compares with.
#[derive(Debug, Clone)]
pub enum Threshold {
    /// Nothing, or more than one thing.
    None,
    /// An amount, or how many times the average.
    Decimal(Money),
    /// A number.
    Count(u64),
    /// A tool.
    Tool(String),
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Decimal(number) => Usd(*number).serialize(serializer),
            Self::Count(number) => serializer.serialize_u64(*number),
            Self::Tool(tool) => serializer.serialize_str(tool),
        }
    }
}

/// A rule that was added.
#[derive(Debug, Serialize, ToSchema)]
pub struct AddedRule {
    /// Always true.
    pub added: bool,
    /// Its number.
    pub rule_id: u64,
    /// What is watched for.
    #[serde(rename = "type")]
    pub rule_type: &'static str,
    /// The rule as it stands.
    pub rule: RuleRow,
}

/// A rule that was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RemovedRule {
    /// Always true.
    pub removed: bool,
    /// Which rule.
    pub rule_id: u64,
}

/// The tenant's rules.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleList {
    /// How many.
    pub count: usize,
    /// In the order of their adding: the first that matches gives an action its flag.
    pub rules: Vec<RuleRow>,
}

/// Which anomalies to find. Absent parts match everything.
#[derive(Debug, Clone, Default)]
pub struct AnomalyFilter {
    /// Of this agent.
    pub agent_id: Option<String>,
    /// Of this rule, which may be gone.
    pub rule_id: Option<u64>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// Only among the first so many entries of the stream.
    pub size: Option<u64>,
}

/// What a rule found.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnomalyRow {
    /// Position of the finding in the tenant's stream.
    pub seq: u64,
    /// When.
    pub timestamp: Epoch,
    /// Which rule.
    pub rule_id: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub rule_type: &'static str,
    /// Why.
    pub reason: String,
    /// Who did it.
    pub agent_id: String,
    /// In which session; empty when there is none.
    pub session_id: String,
    /// With which tool; may be empty.
    pub tool: String,
    /// The action as it was logged; of other events their kind.
    pub action: String,
    /// What it cost, or how much was paid or asked for.
    pub amount_usd: Usd,
    /// Position of the event that the rule matched.
    pub subject_seq: u64,
    /// Its audit entry, when it is a logged action; else empty.
    pub entry_id: String,
    /// Positions of the events that were counted, the latest of them, the subject last.
    pub evidence: Vec<u64>,
}

/// What the rules found.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnomalyList {
    /// How many are here.
    pub count: usize,
    /// Newest first.
    pub anomalies: Vec<AnomalyRow>,
}

/// Adds a rule.
///
/// # Errors
///
/// [`OperationError::Invalid`] when there are as many as there may be.
pub async fn add_rule(
    app: &App,
    caller: &Caller,
    rule: Rule,
    retry: Option<&Retry>,
) -> Result<AddedRule, OperationError> {
    let command = Command::AddAnomalyRule(AddRule { rule });
    let receipt = app.submit(caller, command, retry, vec![]).await?;
    let recorded = &only_event(&receipt)?.recorded;
    let Event::AnomalyRuleAdded(added) = &recorded.event else {
        return Err(OperationError::unexpected(&receipt));
    };
    let rule = row(added.rule_id, &added.rule, recorded.seq, recorded.at);
    Ok(AddedRule { added: true, rule_id: rule.rule_id, rule_type: rule.rule_type, rule })
}

/// Removes a rule.
///
/// # Errors
///
/// [`OperationError::NotFound`] unless the rule stands.
pub async fn remove_rule(app: &App, caller: &Caller, rule_id: u64) -> Result<RemovedRule, OperationError> {
    let command = Command::RemoveAnomalyRule(RemoveRule { rule_id });
    app.submit(caller, command, None, vec![]).await?;
    Ok(RemovedRule { removed: true, rule_id })
}

/// Lists the rules.
#[must_use]
pub fn rules(moment: &Moment) -> RuleList {
    let rules = moment.stream.tenant.anomalies.rules();
    let rules: Vec<_> = rules.map(|(id, it)| row(id, &it.rule, it.since_seq, it.since)).collect();
    RuleList { count: rules.len(), rules }
}

fn row(rule_id: u64, rule: &Rule, added_seq: u64, added_at: Timestamp) -> RuleRow {
    let (mut window, mut min_samples, mut tools) = (None, None, None);
    let threshold = match &rule.condition {
        Condition::SpendPerAction { above } => Threshold::Decimal(*above),
        Condition::ActionsPerMinute { count } => Threshold::Count(*count),
        Condition::ToolBlocked { tools: blocked } => {
            tools = Some(blocked.clone());
            match &blocked[..] {
                [tool] => Threshold::Tool(tool.clone()),
                _ => Threshold::None,
            }
        }
        Condition::RepeatedDenials { count, window_s } | Condition::Velocity { count, window_s } => {
            window = Some(*window_s);
            Threshold::Count(*count)
        }
        Condition::SpendSpike { factor_nanos, min_samples: samples } => {
            min_samples = Some(*samples);
            Threshold::Decimal(Money::from_nanos(u128::from(*factor_nanos)))
        }
        Condition::UnusualTool { min_samples: samples }
        | Condition::UnusualHours { min_samples: samples } => {
            min_samples = Some(*samples);
            Threshold::None
        }
    };
    RuleRow {
        rule_id,
        rule_type: rule.condition.rule_type().name(),
        threshold,
        tools,
        window,
        min_samples,
        reason: rule.reason.clone(),
        added_at: Epoch(added_at),
        added_seq,
    }
}

/// Finds what the rules found, newest first.
///
/// # Errors
///
/// [`OperationError::Busy`] when the view is behind.
pub async fn find(
    app: Arc<App>,
    caller: &Caller,
    filter: AnomalyFilter,
    limit: usize,
) -> Result<AnomalyList, OperationError> {
    let tenant = caller.tenant.clone();
    app.views_caught_up(&tenant).await?;
    blocking(move || {
        let mut anomalies = Vec::new();
        let subject = match (&filter.agent_id, filter.rule_id) {
            (Some(agent_id), _) => Some(of_agent(agent_id)),
            (None, Some(rule_id)) => Some(of_rule(rule_id)),
            (None, None) => None,
        };
        for recorded in app.views.newest_first(&tenant, Series::Anomalies, subject.as_deref()) {
            let recorded = recorded?;
            if anomalies.len() == limit || filter.since.is_some_and(|since| recorded.at < since) {
                break;
            }
            if let Event::AnomalyDetected(anomaly) = &recorded.event
                && filter.matches(&recorded, anomaly)
            {
                anomalies.push(anomaly_row(&app, &tenant, &recorded, anomaly)?);
            }
        }
        Ok(AnomalyList { count: anomalies.len(), anomalies })
    })
    .await
}

impl AnomalyFilter {
    fn matches(&self, recorded: &Recorded, anomaly: &AnomalyDetected) -> bool {
        self.agent_id.as_ref().is_none_or(|agent_id| agent_id == anomaly.agent_id.as_str())
            && self.rule_id.is_none_or(|rule_id| rule_id == anomaly.rule_id)
            && self.until.is_none_or(|until| recorded.at < until)
            && self.size.is_none_or(|size| recorded.seq < size)
    }
}

fn anomaly_row(
    app: &App,
    tenant: &TenantId,
    recorded: &Recorded,
    anomaly: &AnomalyDetected,
) -> Result<AnomalyRow, OperationError> {
    let subject = read_recorded(&**app.ledger.store(), tenant, anomaly.subject).map_err(ViewError::from)?;
    let entry_id = match &subject.event {
        Event::ActionLogged(action) => action.entry_id.to_string(),
        _ => String::new(),
    };
    Ok(AnomalyRow {
        seq: recorded.seq,
        timestamp: Epoch(recorded.at),
        rule_id: anomaly.rule_id,
        rule_type: anomaly.rule_type.name(),
        reason: anomaly.reason.clone(),
        agent_id: anomaly.agent_id.to_string(),
        session_id: anomaly.session_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        tool: anomaly.tool.clone(),
        action: anomaly.action.clone(),
        amount_usd: Usd(anomaly.amount),
        subject_seq: anomaly.subject,
        entry_id,
        evidence: anomaly.evidence.clone(),
    })
}
