//! `/v1/anomalies`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::ToSchema;

use super::body::{Field, Fields};
use super::caller::{AdminWrite, AuditRead, Authorized};
use super::error::ApiError;
use super::past::answer;
use super::query::Query;
use super::retry::retry_of;
use crate::domain::anomalies::rule::{Condition, Rule, RuleType};
use crate::domain::limits::{
    ANOMALY_COUNT_MAX, ANOMALY_FACTOR_MAX, ANOMALY_REASON_CHARS_MAX, ANOMALY_RULE_TOOL_COUNT_MAX,
    ANOMALY_SAMPLE_COUNT_MAX, ANOMALY_WINDOW_S_MAX, TOOL_CHARS_MAX,
};
use crate::domain::money::Money;
use crate::operations::anomalies::{
    self, ANOMALIES_LEN_DEFAULT, ANOMALIES_LEN_MAX, AddedRule, AnomalyFilter, AnomalyList, DENIALS_DEFAULT,
    DENIALS_WINDOW_S, FACTOR_DEFAULT, MIN_SAMPLES_DEFAULT, RemovedRule, RuleList,
};
use crate::operations::{App, OperationError};

/// Billionths in one.
const NANOS: u128 = 1_000_000_000;

/// A rule to be added.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `read_rule` reads")]
pub(super) struct AnomalyRuleBody {
    /// `spend_per_action`, `actions_per_minute`, `tool_blocked`, `repeated_denials`, `spend_spike`, `unusual_tool`,
    /// `unusual_hours` or `velocity`.
    r#type: String,
    /// An amount (`spend_per_action`), how many times the average (`spend_spike`, 3 unless given), a number
    /// (`actions_per_minute`, `velocity`; `repeated_denials`, 5 unless given), or a tool (`tool_blocked`). A number may be a text.
    #[schema(value_type = Object, required = false)]
    threshold: Option<String>,
    /// More tools (`tool_blocked`).
    #[schema(max_items = 32, required = false)]
    tools: Option<Vec<String>>,
    /// How far the rule looks back, in seconds or as in `5m` (`velocity`; `repeated_denials`, `5m` unless given).
    #[schema(value_type = Object, required = false)]
    window: Option<String>,
    /// How much must be known of an agent (`spend_spike`, `unusual_tool`, `unusual_hours`), 10 unless given.
    #[schema(minimum = 1, maximum = 1_000_000, default = 10, required = false)]
    min_samples: Option<u64>,
    /// What flags say; in words of the rule unless given.
    #[schema(max_length = 512, required = false)]
    reason: Option<String>,
}

/// Reads a rule. A parameter that its type does not have is refused: whoever gave it meant another rule.
fn read_rule(fields: &Fields) -> Result<Rule, OperationError> {
    let field = |name| fields.field(name).or_null();
    let rule_type = field("type");
    let name = rule_type.required(rule_type.text(64))?;
    let (threshold, tools) = (field("threshold"), field("tools"));
    let (window, min_samples) = (field("window"), field("min_samples"));
    let samples =
        || min_samples.int(1..=ANOMALY_SAMPLE_COUNT_MAX).map(|it| it.unwrap_or(MIN_SAMPLES_DEFAULT));
    let counted = || threshold.required(count(threshold));
    let (condition, parameters): (_, &[&str]) = match RuleType::parse(&name).ok_or_else(unknown_type)? {
        RuleType::SpendPerAction => {
            let above = threshold.required(decimal(threshold))?;
            (Condition::SpendPerAction { above }, &["threshold"])
        }
        RuleType::ActionsPerMinute => (Condition::ActionsPerMinute { count: counted()? }, &["threshold"]),
        RuleType::ToolBlocked => {
            (Condition::ToolBlocked { tools: blocked(threshold, tools)? }, &["threshold", "tools"])
        }
        RuleType::RepeatedDenials => {
            let count = count(threshold)?.unwrap_or(DENIALS_DEFAULT);
            let window_s = seconds(window)?.unwrap_or(DENIALS_WINDOW_S);
            (Condition::RepeatedDenials { count, window_s }, &["threshold", "window"])
        }
        RuleType::SpendSpike => {
            let factor_nanos = factor(threshold)?;
            let parameters = &["threshold", "min_samples"];
            (Condition::SpendSpike { factor_nanos, min_samples: samples()? }, parameters)
        }
        RuleType::UnusualTool => (Condition::UnusualTool { min_samples: samples()? }, &["min_samples"]),
        RuleType::UnusualHours => (Condition::UnusualHours { min_samples: samples()? }, &["min_samples"]),
        RuleType::Velocity => {
            let window_s = window.required(seconds(window))?;
            (Condition::Velocity { count: counted()?, window_s }, &["threshold", "window"])
        }
    };
    for parameter in ["threshold", "tools", "window", "min_samples"] {
        if field(parameter).raw().is_some() && !parameters.contains(&parameter) {
            return Err(OperationError::invalid(parameter, format!("{name} has no such parameter")));
        }
    }
    let reason = field("reason").text(ANOMALY_REASON_CHARS_MAX)?.filter(|reason| !reason.is_empty());
    Ok(Rule { condition, reason })
}

fn unknown_type() -> OperationError {
    let names = RuleType::ALL.map(RuleType::name).join(", ");
    OperationError::invalid("type", format!("expected one of {names}"))
}

/// An amount, as a number or a text.
fn decimal(field: Field<'_>) -> Result<Option<Money>, OperationError> {
    match field.raw() {
        Some("true" | "false") => Err(OperationError::invalid("threshold", "expected a number")),
        _ => field.lenient_money(Money::ZERO..=Money::INPUT_MAX),
    }
}

/// A number to count to, which may be written as `5.0` or as a text.
fn count(field: Field<'_>) -> Result<Option<u64>, OperationError> {
    let expected =
        || OperationError::invalid("threshold", format!("expected int from 1 to {ANOMALY_COUNT_MAX}"));
    let Some(number) = decimal(field)? else {
        return Ok(None);
    };
    let count = u64::try_from(number.nanos() / NANOS).map_err(|_| expected())?;
    let is_count = number.nanos() % NANOS == 0 && (1..=ANOMALY_COUNT_MAX).contains(&count);
    is_count.then_some(Some(count)).ok_or_else(expected)
}

/// How many times the average, in billionths.
fn factor(field: Field<'_>) -> Result<u64, OperationError> {
    let range = 1..=u128::from(ANOMALY_FACTOR_MAX) * NANOS;
    let nanos = decimal(field)?.map_or(u128::from(FACTOR_DEFAULT) * NANOS, Money::nanos);
    let factor = u64::try_from(nanos).ok().filter(|_| range.contains(&nanos));
    let expected = format!("expected a number above 0 and up to {ANOMALY_FACTOR_MAX}");
    factor.ok_or_else(|| OperationError::invalid("threshold", expected))
}

/// The tools of a rule: the threshold, and a list.
fn blocked(threshold: Field<'_>, tools: Field<'_>) -> Result<Vec<String>, OperationError> {
    let one = threshold.text(TOOL_CHARS_MAX)?;
    let mut blocked = tools.texts()?.unwrap_or_default();
    if let Some(one) = one.filter(|one| !blocked.contains(one)) {
        blocked.insert(0, one);
    }
    let is_tool = |tool: &String| {
        !tool.is_empty() && tool.chars().count() <= TOOL_CHARS_MAX && !tool.chars().any(char::is_control)
    };
    if blocked.is_empty() {
        return Err(OperationError::invalid("threshold", "expected a tool, here or in the list tools"));
    }
    if blocked.len() > ANOMALY_RULE_TOOL_COUNT_MAX || !blocked.iter().all(is_tool) {
        let expected = format!(
            "expected at most {ANOMALY_RULE_TOOL_COUNT_MAX} tools of 1 to {TOOL_CHARS_MAX} characters without control \
             characters"
        );
        return Err(OperationError::invalid("tools", expected));
    }
    Ok(blocked)
}

/// A time to look back: seconds, or a text such as `5m`.
fn seconds(field: Field<'_>) -> Result<Option<u64>, OperationError> {
    let expected = || {
        let expected =
            format!("expected whole seconds from 1 to {ANOMALY_WINDOW_S_MAX}, or a time such as 5m");
        OperationError::invalid("window", expected)
    };
    let seconds = match field.raw() {
        None => return Ok(None),
        Some(raw) if raw.starts_with('"') => {
            let text = field.text(64)?.unwrap_or_default();
            let time = humantime::parse_duration(text.trim()).map_err(|_| expected())?;
            (time.subsec_nanos() == 0).then_some(time.as_secs()).ok_or_else(expected)?
        }
        Some(_) => field.int(1..=ANOMALY_WINDOW_S_MAX)?.ok_or_else(expected)?,
    };
    (1..=ANOMALY_WINDOW_S_MAX).contains(&seconds).then_some(Some(seconds)).ok_or_else(expected)
}

/// Adds an anomaly rule: from now on, what matches it is flagged and found.
#[utoipa::path(
    post, path = "/v1/anomalies/rules", operation_id = "post_add_anomaly_rule", tag = "watch",
    request_body = AnomalyRuleBody,
    responses((status = 201, description = "The rule stands", body = AddedRule)),
)]
pub(super) async fn add_rule(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminWrite>,
    request: HttpRequest,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let rule = read_rule(&fields)?;
    let retry = retry_of(&app, &caller, &request, &rule)?;
    Ok(HttpResponse::Created().json(anomalies::add_rule(&app, &caller, rule, retry.as_ref()).await?))
}

/// Lists the anomaly rules, in the order of their adding.
#[utoipa::path(
    get, path = "/v1/anomalies/rules", operation_id = "get_list_anomaly_rules", tag = "watch",
    params(("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`")),
    responses((status = 200, description = "The rules", body = RuleList)),
)]
pub(super) async fn rules(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    answer(&moment, &anomalies::rules(&moment))
}

/// Removes an anomaly rule. What it found stays.
#[utoipa::path(
    delete, path = "/v1/anomalies/rules/{rule_id}", operation_id = "delete_remove_anomaly_rule", tag = "watch",
    params(("rule_id" = u64, Path, description = "The rule's number")),
    responses((status = 200, description = "Removed", body = RemovedRule)),
)]
pub(super) async fn remove_rule(
    app: web::Data<Arc<App>>,
    caller: Authorized<AdminWrite>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let rule_id = request.match_info().query("rule_id").parse();
    let rule_id = rule_id.map_err(|_| OperationError::NotFound("anomaly rule"))?;
    Ok(HttpResponse::Ok().json(anomalies::remove_rule(&app, &caller, rule_id).await?))
}

/// Finds what the anomaly rules found, newest first.
#[utoipa::path(
    get, path = "/v1/anomalies", operation_id = "get_list_anomalies", tag = "watch",
    params(
        ("agent_id" = Option<String>, Query, description = "Only of this agent"),
        ("rule_id" = Option<u64>, Query, description = "Only of this rule"),
        ("since" = Option<String>, Query, description = "The first moment: unix seconds or ISO 8601"),
        ("until" = Option<String>, Query, description = "The moment after the last"),
        ("limit" = Option<u32>, Query, description = "At most this many, 0 to 1000; 100 unless given"),
        ("as_of" = Option<String>, Query, description = "As they were: unix seconds, ISO 8601 or `seq:N`"),
    ),
    responses((status = 200, description = "The anomalies", body = AnomalyList)),
)]
pub(super) async fn find(
    app: web::Data<Arc<App>>,
    caller: Authorized<AuditRead>,
    query: Query,
) -> Result<HttpResponse, ApiError> {
    let limit = query.int("limit", 0..=ANOMALIES_LEN_MAX)?.unwrap_or(ANOMALIES_LEN_DEFAULT);
    let (rule_id, since, until) = (query.whole("rule_id")?, query.time("since")?, query.time("until")?);
    let moment = app.moment(&caller.tenant, query.as_of()?).await?;
    let size = moment.standing.as_ref().map(|standing| standing.size);
    let filter = AnomalyFilter { agent_id: query.text("agent_id"), rule_id, since, until, size };
    answer(&moment, &anomalies::find(Arc::clone(&app), &caller, filter, limit).await?)
}
