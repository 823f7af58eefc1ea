//! A policy as JSON: its type, and the parameters that its type has.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::wire::Usd;
use crate::domain::money::Money;
use crate::domain::policies::{ArgumentTest, Policy, Price};

/// The days of a time window, as they stand in its list.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A policy as clients give it and get it.
#[derive(Debug, Clone, Serialize)]
struct PolicyJson<'a, Amount> {
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_id: Option<u64>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    days: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    above: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_approvals: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    argument: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<&'a [String]>,
}

/// A policy with its amounts as decimal text, as ledger exports have them.
///
/// # Panics
///
/// Never: everything in it has a form in JSON.
#[must_use]
pub fn to_json(policy: &Policy) -> Value {
    serde_json::to_value(fields(policy, |amount| amount.to_string())).expect("its keys are text")
}

/// A policy with its number and its amounts as exact numbers, as answers to clients have them.
///
/// # Panics
///
/// Never: everything in it has a form in JSON.
#[must_use]
pub fn numbered(policy_id: u64, policy: &Policy) -> Box<RawValue> {
    let numbered = PolicyJson { policy_id: Some(policy_id), ..fields(policy, Usd) };
    to_raw_value(&numbered).expect("its keys are text and it has no floats")
}

fn fields<Amount>(policy: &Policy, money: impl Fn(Money) -> Amount) -> PolicyJson<'_, Amount> {
    let nothing = PolicyJson {
        policy_id: None,
        r#type: policy.type_name(),
        tool: None,
        tools: None,
        max: None,
        max_per_minute: None,
        start: None,
        end: None,
        days: None,
        timezone: None,
        above: None,
        required_approvals: None,
        amount: None,
        argument: None,
        rule: None,
        pattern: None,
        arguments: None,
        results: None,
    };
    match policy {
        Policy::BlockTool { tool } => PolicyJson { tool: Some(tool), ..nothing },
        Policy::AllowList { tools } | Policy::DenyList { tools } => {
            PolicyJson { tools: Some(tools), ..nothing }
        }
        Policy::SpendLimit { max } => PolicyJson { max: Some(money(*max)), ..nothing },
        Policy::RateLimit { max_per_minute } => {
            PolicyJson { max_per_minute: Some(*max_per_minute), ..nothing }
        }
        Policy::TimeWindow { start, end, days, zone } => PolicyJson {
            start: Some(clock(*start)),
            end: Some(clock(*end)),
            days: Some((0..).zip(DAYS).filter(|(day, _)| days & (1 << day) != 0).map(|it| it.1).collect()),
            timezone: Some(zone),
            ..nothing
        },
        Policy::RequireApproval { tools, above, required } => PolicyJson {
            tools: Some(tools),
            above: above.map(money),
            required_approvals: Some(*required),
            ..nothing
        },
        Policy::Price { tools, price: Price::Fixed(amount) } => {
            PolicyJson { tools: Some(tools), amount: Some(money(*amount)), ..nothing }
        }
        Policy::Price { tools, price: Price::Argument(argument) } => {
            PolicyJson { tools: Some(tools), argument: Some(argument), ..nothing }
        }
        Policy::Argument { tools, argument, test } => {
            let (rule, pattern) = match test {
                ArgumentTest::Deny => ("deny", None),
                ArgumentTest::Require => ("require", None),
                ArgumentTest::Match(pattern) => ("match", Some(pattern.as_str())),
                ArgumentTest::DenyMatch(pattern) => ("deny_match", Some(pattern.as_str())),
            };
            PolicyJson { tools: Some(tools), argument: Some(argument), rule: Some(rule), pattern, ..nothing }
        }
        Policy::Redact { tools, arguments, results } => {
            PolicyJson { tools: Some(tools), arguments: Some(arguments), results: Some(results), ..nothing }
        }
    }
}

/// A minute of the day as clocks show it; its end is 24:00.
fn clock(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_shows_the_parameters_of_its_type() {
        let tools = vec!["pay.charge".to_owned()];
        let window = Policy::TimeWindow {
            start: 22 * 60,
            end: 6 * 60 + 30,
            days: 0b110_0001,
            zone: "Europe/Berlin".to_owned(),
        };
        assert_eq!(
            to_json(&window),
            json!({
                "type": "time_window", "start": "22:00", "end": "06:30", "days": ["mon", "sat", "sun"],
                "timezone": "Europe/Berlin",
            }),
        );
        let price = Policy::Price { tools: tools.clone(), price: Price::Argument("order.total".to_owned()) };
        assert_eq!(
            to_json(&price),
            json!({ "type": "price", "tools": ["pay.charge"], "argument": "order.total" }),
        );
        let test = ArgumentTest::DenyMatch("^prod".to_owned());
        let argument = Policy::Argument { tools, argument: "db".to_owned(), test };
        assert_eq!(
            to_json(&argument),
            json!({
                "type": "argument", "tools": ["pay.charge"], "argument": "db", "rule": "deny_match",
                "pattern": "^prod",
            }),
        );
    }

    #[test]
    fn amounts_are_exact_as_text_and_as_numbers() {
        let limit = Policy::SpendLimit { max: Money::parse("0.1").unwrap() };
        assert_eq!(to_json(&limit), json!({ "type": "spend_limit", "max": "0.1" }));
        assert_eq!(numbered(3, &limit).get(), r#"{"policy_id":3,"type":"spend_limit","max":0.1}"#);
    }
}
