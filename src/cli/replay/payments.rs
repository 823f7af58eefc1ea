//! Caps, reservations and approvals in what `replay` and `diff` tell.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::text;

/// A list in the state: what it is called, what names its items, and how one is told.
type List = (&'static str, &'static str, fn(&Value) -> String, fn(&Value) -> String);

const LISTS: [List; 4] = [
    (
        "budgets",
        "budget",
        |it| format!("{} {} {}", text(&it["level"]), text(&it["name"]), text(&it["window"])),
        |it| format!("at most {}", it["limit"]),
    ),
    (
        "reservations",
        "reservation",
        |it| text(&it["authorization_id"]),
        |it| format!("{}  {} held", text(&it["agent_id"]), it["amount"]),
    ),
    (
        "approval_rules",
        "approval rule",
        |it| it["rule_id"].to_string(),
        |it| {
            format!(
                "{} over {}, {} must approve",
                text(&it["type"]),
                it["threshold"],
                it["required_approvals"]
            )
        },
    ),
    (
        "approvals",
        "approval",
        |it| text(&it["request_id"]),
        |it| {
            let used = if it["used_by"] == "" { "" } else { ", used" };
            format!(
                "{}  {} {} {}  {}{used}",
                text(&it["agent_id"]),
                text(&it["tool"]),
                text(&it["action"]),
                it["amount"],
                text(&it["status"])
            )
        },
    ),
];

/// Prints each list that is not empty.
pub(super) fn print(state: &Value) {
    for (list, _, name, tell) in LISTS {
        let items = state[list].as_array().map(Vec::as_slice).unwrap_or_default();
        if !items.is_empty() {
            anstream::println!("\n{}", list.replace('_', " "));
        }
        for item in items {
            anstream::println!("  {}  {}", name(item), tell(item));
        }
    }
}

/// What came, went and changed between two states.
pub(super) fn changes(before: &Value, after: &Value) -> Vec<Value> {
    let mut changes = Vec::new();
    for (list, what, name, tell) in LISTS {
        let told = |state: &Value| -> BTreeMap<String, String> {
            let items = state[list].as_array().into_iter().flatten();
            items.map(|item| (name(item), tell(item))).collect()
        };
        let (earlier, later) = (told(before), told(after));
        let mut add = |name: &str, detail: String| {
            changes.push(json!({ "what": what, "name": name, "text": format!("{what:16} {name}  {detail}"), "detail": detail }));
        };
        for (name, now) in &later {
            match earlier.get(name) {
                None => add(name, now.clone()),
                Some(then) if then != now => add(name, format!("{then} -> {now}")),
                Some(_) => {}
            }
        }
        for (name, then) in earlier.iter().filter(|(name, _)| !later.contains_key(*name)) {
            add(name, format!("{then} -> gone"));
        }
    }
    changes
}
