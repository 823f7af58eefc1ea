//! Policies as clients write them: a `type`, and the parameters of that type.

use serde_json::value::RawValue;

use super::body::{Field, Fields};
use crate::domain::limits::{
    APPROVERS_MAX, POLICY_PATH_CHARS_MAX, POLICY_PATH_COUNT_MAX, POLICY_PATTERN_CHARS_MAX,
    POLICY_TOOL_COUNT_MAX, POLICY_TOOL_LEN_MAX, POLICY_ZONE_CHARS_MAX, RATE_LIMIT_MAX,
};
use crate::domain::money::Money;
use crate::domain::policies::{ArgumentTest, DAY_MINUTES, Policy, Price};
use crate::operations::OperationError;
use crate::operations::policy_json::DAYS;

/// Calls a minute, unless something else is said. The contract's.
const RATE_DEFAULT: u64 = 60;
/// The types there are.
const TYPES: &str = "block_tool, allow_list, deny_list, spend_limit, rate_limit, time_window, require_approval, price, \
                     argument or redact";

/// Reads a policy. Fields that its type does not have are ignored, as everywhere.
///
/// # Errors
///
/// [`OperationError::Invalid`].
pub(super) fn read(fields: &Fields) -> Result<Policy, OperationError> {
    let kind = fields.field("type");
    let kind = kind.required(kind.or_null().text(64))?;
    let tools = || tools(fields.field("tools"));
    Ok(match kind.as_str() {
        "block_tool" => Policy::BlockTool { tool: required_text(fields, "tool", POLICY_TOOL_LEN_MAX)? },
        "allow_list" => Policy::AllowList { tools: required_list(fields, "tools")? },
        "deny_list" => Policy::DenyList { tools: required_list(fields, "tools")? },
        "spend_limit" => {
            let max = fields.field("max");
            Policy::SpendLimit {
                max: max.required(max.or_null().lenient_money(Money::ZERO..=Money::INPUT_MAX))?,
            }
        }
        "rate_limit" => {
            let most = fields.field("max_per_minute").or_null().int(0..=RATE_LIMIT_MAX)?;
            Policy::RateLimit { max_per_minute: most.unwrap_or(RATE_DEFAULT) }
        }
        "time_window" => Policy::TimeWindow {
            start: minute(fields, "start", "start_hour", 0)?,
            end: minute(fields, "end", "end_hour", DAY_MINUTES)?,
            days: days(fields.field("days"))?,
            zone: fields
                .field("timezone")
                .or_null()
                .text(POLICY_ZONE_CHARS_MAX)?
                .unwrap_or_else(|| "UTC".to_owned()),
        },
        "require_approval" => Policy::RequireApproval {
            tools: tools()?,
            above: fields.field("above").or_null().lenient_money(Money::ZERO..=Money::INPUT_MAX)?,
            required: required_approvals(fields)?,
        },
        "price" => {
            let argument = fields.field("argument").or_null().text(POLICY_PATH_CHARS_MAX)?;
            let amount = fields.field("amount").or_null().lenient_money(Money::ZERO..=Money::INPUT_MAX)?;
            let price = match (amount, argument) {
                (Some(amount), None) => Price::Fixed(amount),
                (None, Some(argument)) => Price::Argument(path("argument", argument)?),
                _ => return Err(OperationError::invalid("amount", "expected either amount or argument")),
            };
            Policy::Price { tools: tools()?, price }
        }
        "argument" => Policy::Argument {
            tools: tools()?,
            argument: path("argument", required_text(fields, "argument", POLICY_PATH_CHARS_MAX)?)?,
            test: test(fields)?,
        },
        "redact" => {
            let (arguments, results) = (paths(fields, "arguments")?, paths(fields, "results")?);
            if arguments.is_empty() && results.is_empty() {
                return Err(OperationError::invalid("arguments", "expected paths in arguments or results"));
            }
            Policy::Redact { tools: tools()?, arguments, results }
        }
        _ => return Err(OperationError::invalid("type", format!("expected {TYPES}"))),
    })
}

/// Reads a list of policies.
///
/// # Errors
///
/// [`OperationError::Invalid`], for the field `policies` and with the place of the policy that is wrong.
pub(super) fn read_all(field: Field<'_>) -> Result<Vec<Policy>, OperationError> {
    let expected = || OperationError::invalid("policies", "expected list of objects");
    let raw = field.raw().ok_or_else(|| OperationError::invalid("policies", "required field is missing"))?;
    let items: Vec<Box<RawValue>> = serde_json::from_str(raw).map_err(|_| expected())?;
    let policies = items.iter().enumerate().map(|(place, raw)| {
        let read = Fields::parse(raw.get().as_bytes()).and_then(|fields| read(&fields));
        read.map_err(|error| match error {
            OperationError::Invalid { field, reason } => {
                OperationError::invalid(&format!("policies[{place}].{field}"), reason)
            }
            error => error,
        })
    });
    policies.collect()
}

fn required_text(fields: &Fields, name: &'static str, chars_max: usize) -> Result<String, OperationError> {
    let field = fields.field(name);
    let text = field.required(field.or_null().text(chars_max))?;
    if text.is_empty() {
        return Err(OperationError::invalid(name, "required field is empty"));
    }
    Ok(text)
}

fn tools(field: Field<'_>) -> Result<Vec<String>, OperationError> {
    let expected =
        format!("expected at most {POLICY_TOOL_COUNT_MAX} names of 1 to {POLICY_TOOL_LEN_MAX} bytes");
    list(field, POLICY_TOOL_COUNT_MAX, |tool| tool.len() <= POLICY_TOOL_LEN_MAX, expected)
}

/// A list of texts, none of them empty or with control characters.
fn list(
    field: Field<'_>,
    count_max: usize,
    fits: impl Fn(&str) -> bool,
    expected: String,
) -> Result<Vec<String>, OperationError> {
    let items = field.or_null().texts()?.unwrap_or_default();
    let is_plain = |item: &String| !item.is_empty() && !item.chars().any(char::is_control);
    if items.len() > count_max || !items.iter().all(|item| is_plain(item) && fits(item)) {
        return Err(OperationError::invalid(field.name(), expected));
    }
    Ok(items)
}

fn required_list(fields: &Fields, name: &'static str) -> Result<Vec<String>, OperationError> {
    let field = fields.field(name);
    if field.or_null().raw().is_none() {
        return Err(OperationError::invalid(name, "required field is missing"));
    }
    tools(field)
}

fn paths(fields: &Fields, name: &'static str) -> Result<Vec<String>, OperationError> {
    let expected =
        format!("expected at most {POLICY_PATH_COUNT_MAX} paths of 1 to {POLICY_PATH_CHARS_MAX} characters");
    let fits = |path: &str| path.chars().count() <= POLICY_PATH_CHARS_MAX;
    let paths = list(fields.field(name), POLICY_PATH_COUNT_MAX, fits, expected)?;
    paths.into_iter().map(|it| path(name, it)).collect()
}

/// Names of fields, joined by dots.
fn path(field: &str, text: String) -> Result<String, OperationError> {
    if text.split('.').any(str::is_empty) {
        return Err(OperationError::invalid(field, "expected names of fields, joined by dots"));
    }
    Ok(text)
}

fn test(fields: &Fields) -> Result<ArgumentTest, OperationError> {
    let rule = required_text(fields, "rule", 64)?;
    let pattern = || required_text(fields, "pattern", POLICY_PATTERN_CHARS_MAX);
    Ok(match rule.as_str() {
        "deny" => ArgumentTest::Deny,
        "require" => ArgumentTest::Require,
        "match" => ArgumentTest::Match(pattern()?),
        "deny_match" => ArgumentTest::DenyMatch(pattern()?),
        _ => return Err(OperationError::invalid("rule", "expected deny, require, match or deny_match")),
    })
}

fn required_approvals(fields: &Fields) -> Result<u8, OperationError> {
    let required = fields.field("required_approvals").or_null().int(1..=u64::from(APPROVERS_MAX))?;
    Ok(required.and_then(|required| u8::try_from(required).ok()).unwrap_or(1))
}

/// A minute of the day: as `HH:MM`, or a whole hour under another name.
fn minute(
    fields: &Fields,
    name: &'static str,
    hour_name: &'static str,
    otherwise: u16,
) -> Result<u16, OperationError> {
    if let Some(text) = fields.field(name).or_null().text(5)? {
        let read = text.split_once(':').and_then(|(hour, minute)| {
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            Some(hour * 60 + minute).filter(|at| minute < 60 && hour <= 24 && *at <= DAY_MINUTES)
        });
        return read
            .ok_or_else(|| OperationError::invalid(name, "expected a time of day as HH:MM, up to 24:00"));
    }
    let hour = fields.field(hour_name).or_null().int(0..=24)?;
    Ok(hour.and_then(|hour| u16::try_from(hour).ok()).map_or(otherwise, |hour| hour * 60))
}

/// The days on which a window begins, a bit each; every day unless something else is said.
fn days(field: Field<'_>) -> Result<u8, OperationError> {
    let Some(named) = field.or_null().texts()? else { return Ok(127) };
    let bits = named.iter().map(|day| {
        let place = DAYS.iter().position(|known| *known == day.to_ascii_lowercase());
        place.ok_or_else(|| OperationError::invalid("days", format!("expected days of {}", DAYS.join(", "))))
    });
    bits.into_iter().try_fold(0, |all, bit| Ok(all | 1 << bit?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<Policy, OperationError> {
        read(&Fields::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn the_contracts_policies_are_read() {
        let text = |text: &str| text.to_owned();
        for (json, expected) in [
            (r#"{"type":"block_tool","tool":"rm"}"#, Policy::BlockTool { tool: text("rm") }),
            (
                r#"{"type":"allow_list","tools":["a","b.c"]}"#,
                Policy::AllowList { tools: vec![text("a"), text("b.c")] },
            ),
            (r#"{"type":"deny_list","tools":[]}"#, Policy::DenyList { tools: vec![] }),
            (r#"{"type":"spend_limit","max":10}"#, Policy::SpendLimit { max: Money::parse("10").unwrap() }),
            (r#"{"type":"rate_limit"}"#, Policy::RateLimit { max_per_minute: 60 }),
            (
                r#"{"type":"time_window","start_hour":22,"end_hour":6,"days":["Mon","sun"],"timezone":"Europe/Berlin"}"#,
                Policy::TimeWindow { start: 1320, end: 360, days: 65, zone: text("Europe/Berlin") },
            ),
            (
                r#"{"type":"time_window","start":"09:30"}"#,
                Policy::TimeWindow { start: 570, end: 1440, days: 127, zone: text("UTC") },
            ),
            (
                r#"{"type":"require_approval"}"#,
                Policy::RequireApproval { tools: vec![], above: None, required: 1 },
            ),
        ] {
            assert_eq!(parsed(json), Ok(expected), "{json}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, field) in [
            (r"{}", "type"),
            (r#"{"type":"block"}"#, "type"),
            (r#"{"type":"block_tool"}"#, "tool"),
            (r#"{"type":"allow_list"}"#, "tools"),
            (r#"{"type":"allow_list","tools":"a"}"#, "tools"),
            (r#"{"type":"deny_list","tools":[""]}"#, "tools"),
            (r#"{"type":"spend_limit"}"#, "max"),
            (r#"{"type":"spend_limit","max":-1}"#, "max"),
            (r#"{"type":"rate_limit","max_per_minute":1.5}"#, "max_per_minute"),
            (r#"{"type":"time_window","start_hour":25}"#, "start_hour"),
            (r#"{"type":"time_window","start":"9"}"#, "start"),
            (r#"{"type":"time_window","end":"24:01"}"#, "end"),
            (r#"{"type":"time_window","days":["someday"]}"#, "days"),
            (r#"{"type":"price"}"#, "amount"),
            (r#"{"type":"price","amount":1,"argument":"a"}"#, "amount"),
            (r#"{"type":"argument","argument":"a..b","rule":"deny"}"#, "argument"),
            (r#"{"type":"argument","argument":"a","rule":"maybe"}"#, "rule"),
            (r#"{"type":"argument","argument":"a","rule":"match"}"#, "pattern"),
            (r#"{"type":"redact"}"#, "arguments"),
        ] {
            let Err(OperationError::Invalid { field: found, .. }) = parsed(json) else { panic!("{json}") };
            assert_eq!(found, field, "{json}");
        }
    }
}
