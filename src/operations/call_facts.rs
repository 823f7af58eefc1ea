//! What policies have to know of a call: looked up from its arguments and from the clocks of time zones.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use crate::domain::money::Money;
use crate::domain::policies::{Amount, ArgumentTest, DAY_MINUTES, Facts, Policies, Policy, Price};
use crate::domain::time::Timestamp;

/// Bytes that a compiled pattern may take.
const PATTERN_SIZE_MAX: usize = 1 << 20;
/// Compiled patterns that are kept.
const PATTERN_COUNT_MAX: usize = 1024;

/// Patterns of rules about arguments, compiled.
#[derive(Debug, Default)]
pub struct Patterns(Mutex<BTreeMap<String, Arc<Regex>>>);

impl Patterns {
    /// The pattern, compiled.
    ///
    /// # Errors
    ///
    /// A sentence, when it is none, or takes too much.
    pub fn get(&self, pattern: &str) -> Result<Arc<Regex>, String> {
        let mut known = self.0.lock();
        if let Some(regex) = known.get(pattern) {
            return Ok(Arc::clone(regex));
        }
        let regex = Arc::new(compile(pattern)?);
        if known.len() >= PATTERN_COUNT_MAX {
            known.clear();
        }
        known.insert(pattern.to_owned(), Arc::clone(&regex));
        Ok(regex)
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(PATTERN_SIZE_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "expected a smaller pattern".to_owned(),
        error => format!("expected a regular expression: {error}"),
    })
}

/// The zone with this name in the IANA database, as this program brings it along.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    jiff::tz::TimeZoneDatabase::bundled().get(name).ok()
}

/// Looks up what the policies have to know. `name` is the name under which they know the call.
#[must_use]
pub fn facts(
    policies: &Policies,
    patterns: &Patterns,
    name: &str,
    arguments: &Map<String, Value>,
    at: Timestamp,
) -> Facts {
    let first_price = policies.all().find_map(|(_, policy)| match policy {
        Policy::Price { price, .. } if policy.is_about(name) => Some(price),
        _ => None,
    });
    let price = match first_price {
        Some(Price::Argument(path)) => amount(&at_path(arguments, path)),
        Some(Price::Fixed(_)) | None => Amount::Absent,
    };
    let broken = policies.all().filter(|(_, policy)| policy.is_about(name)).filter_map(|(id, policy)| {
        let Policy::Argument { argument, test, .. } = policy else { return None };
        is_broken(patterns, test, &at_path(arguments, argument)).then_some(id)
    });
    let minutes = policies.all().filter_map(|(id, policy)| {
        let Policy::TimeWindow { zone: name, .. } = policy else { return None };
        // A zone that this program does not know has no minute, and its window is closed.
        Some((id, minute_of_week(&zone(name)?, at)?))
    });
    Facts {
        revision: policies.revision(),
        amount: amount(&at_path(arguments, "amount")),
        price,
        broken: broken.collect(),
        minutes: minutes.collect(),
    }
}

/// The minute of the week by the clocks of a zone, from Monday 00:00 on.
fn minute_of_week(zone: &TimeZone, at: Timestamp) -> Option<u16> {
    let at = jiff::Timestamp::from_microsecond(i64::try_from(at.micros()).ok()?).ok()?;
    let local = zone.to_datetime(at);
    let day = u16::try_from(local.weekday().to_monday_zero_offset()).ok()?;
    let minute = u16::try_from(local.hour()).ok()? * 60 + u16::try_from(local.minute()).ok()?;
    Some(day * DAY_MINUTES + minute)
}

/// What stands at a path, in every item of the lists on its way.
fn at_path<'a>(arguments: &'a Map<String, Value>, path: &str) -> Vec<&'a Value> {
    let mut parts = path.split('.');
    let first = parts.next().and_then(|first| arguments.get(first));
    let mut found: Vec<&Value> = first.into_iter().flat_map(items).collect();
    for part in parts {
        found = found.into_iter().filter_map(|value| value.get(part)).flat_map(items).collect();
    }
    found.retain(|value| !value.is_null());
    found
}

/// A list's items, theirs if they are lists, or the value itself.
fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().flat_map(items).collect(),
        value => vec![value],
    }
}

/// What an argument says about money: a number, or a text that is one. Of several, all count.
fn amount(values: &[&Value]) -> Amount {
    let read = |value: &&Value| match value {
        Value::Number(number) => Money::parse(&number.to_string()).ok(),
        Value::String(text) => Money::parse(text.trim()).ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    if values.is_empty() {
        return Amount::Absent;
    }
    let sum = values.iter().try_fold(Money::ZERO, |sum, value| sum.plus(read(value)?));
    sum.map_or(Amount::Invalid, Amount::Is)
}

/// Whether what stands at a path breaks a rule. A pattern that cannot be compiled breaks it: it was checked when it was added.
fn is_broken(patterns: &Patterns, test: &ArgumentTest, found: &[&Value]) -> bool {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match test {
        ArgumentTest::Deny => !found.is_empty(),
        ArgumentTest::Require => found.is_empty(),
        ArgumentTest::Match(pattern) => {
            let whole = patterns.get(&format!("^(?:{pattern})$"));
            found.iter().any(|value| !whole.as_ref().is_ok_and(|whole| whole.is_match(&text(value))))
        }
        ArgumentTest::DenyMatch(pattern) => {
            let part = patterns.get(pattern);
            found.iter().any(|value| part.as_ref().map_or(true, |part| part.is_match(&text(value))))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts_of(policies: Vec<Policy>, arguments: Value, at: &str) -> Facts {
        let Value::Object(arguments) = arguments else { unreachable!() };
        let at = Timestamp::parse(at).unwrap();
        facts(&Policies::of(policies), &Patterns::default(), "up.tool", &arguments, at)
    }

    #[test]
    fn amounts_are_exact_and_what_is_none_is_said_to_be_none() {
        for (value, expected) in [
            (json!(29.99), Amount::Is(Money::parse("29.99").unwrap())),
            (json!("0.1"), Amount::Is(Money::parse("0.1").unwrap())),
            (json!(0), Amount::Is(Money::ZERO)),
            (json!([0.1, 0.2]), Amount::Is(Money::parse("0.3").unwrap())),
            (json!(null), Amount::Absent),
            (json!(-1), Amount::Invalid),
            (json!("lots"), Amount::Invalid),
            (json!(true), Amount::Invalid),
            (json!({}), Amount::Invalid),
            (json!(1e30), Amount::Invalid),
        ] {
            let found = facts_of(vec![], json!({ "amount": value }), "2026-01-01T00:00:00Z").amount;
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn the_first_price_for_the_tool_says_where_it_is_taken_from() {
        let price = |tool: &str, path: &str| Policy::Price {
            tools: vec![tool.to_owned()],
            price: Price::Argument(path.to_owned()),
        };
        let policies = vec![price("other", "a"), price("tool", "order.total"), price("up.tool", "b")];
        let facts = facts_of(
            policies,
            json!({ "a": 1, "b": 2, "order": { "total": "3.5" } }),
            "2026-01-01T00:00:00Z",
        );
        assert_eq!(facts.price, Amount::Is(Money::parse("3.5").unwrap()));
    }

    #[test]
    fn rules_about_arguments_see_every_item_of_a_list() {
        let rule =
            |argument: &str, test| Policy::Argument { tools: vec![], argument: argument.to_owned(), test };
        let broken = |test, arguments: Value| {
            !facts_of(vec![rule("to.mail", test)], arguments, "2026-01-01T00:00:00Z").broken.is_empty()
        };
        let ours = || ArgumentTest::Match(r".*@example\.com".to_owned());
        assert!(!broken(ours(), json!({ "to": [{ "mail": "a@example.com" }, { "mail": "b@example.com" }] })));
        assert!(broken(ours(), json!({ "to": [{ "mail": "a@example.com" }, { "mail": "b@evil.com" }] })));
        assert!(broken(ours(), json!({ "to": [{ "mail": ["a@example.com\nx"] }] })), "the whole text");
        assert!(!broken(ours(), json!({ "to": [] })));
        assert!(broken(
            ArgumentTest::DenyMatch("evil".to_owned()),
            json!({ "to": { "mail": "x@evil.com" } })
        ));
        assert!(broken(ArgumentTest::Deny, json!({ "to": { "mail": false } })));
        assert!(!broken(ArgumentTest::Deny, json!({ "to": { "mail": null } })));
        assert!(broken(ArgumentTest::Require, json!({ "to": { "mail": null } })));
        assert!(!broken(ArgumentTest::Require, json!({ "to": { "mail": "" } })));
    }

    #[test]
    fn the_clock_of_a_zone_knows_summer_time() {
        let window = |zone: &str| Policy::TimeWindow { start: 0, end: 60, days: 127, zone: zone.to_owned() };
        let minute = |zone: &str, at: &str| facts_of(vec![window(zone)], json!({}), at).minutes;
        // 2026-07-06 is a Monday.
        assert_eq!(minute("UTC", "2026-07-06T00:10:00Z"), [(1, 10)]);
        assert_eq!(minute("Europe/Berlin", "2026-07-06T00:10:00Z"), [(1, 130)]);
        assert_eq!(minute("Europe/Berlin", "2026-01-05T00:10:00Z"), [(1, 70)]);
        assert_eq!(minute("America/New_York", "2026-07-06T00:10:00Z"), [(1, 6 * 1440 + 20 * 60 + 10)]);
        assert_eq!(minute("Asia/Kolkata", "2026-07-06T00:10:00Z"), [(1, 340)]);
        assert_eq!(minute("Nowhere/Never", "2026-07-06T00:10:00Z"), []);
        assert!(zone("Europe/Berlin").is_some() && zone("Mars/Base").is_none());
    }
}
