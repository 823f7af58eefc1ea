//! Lists in the state that `replay` and `diff` tell in one way: caps, reservations, approvals, and the proxy.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{text, words};

/// A list in the state.
struct List {
    /// What it is called.
    title: &'static str,
    /// What one of its items is called.
    what: &'static str,
    items: fn(&Value) -> Vec<Value>,
    /// What names an item.
    name: fn(&Value) -> String,
    /// What is told of an item.
    tell: fn(&Value) -> String,
}

const LISTS: [List; 8] = [
    List {
        title: "budgets",
        what: "budget",
        items: |state| items(state, "budgets"),
        name: |it| format!("{} {} {}", text(&it["level"]), text(&it["name"]), text(&it["window"])),
        tell: |it| format!("at most {}", it["limit"]),
    },
    List {
        title: "reservations",
        what: "reservation",
        items: |state| items(state, "reservations"),
        name: |it| text(&it["authorization_id"]),
        tell: |it| format!("{}  {} held", text(&it["agent_id"]), it["amount"]),
    },
    List {
        title: "approval rules",
        what: "approval rule",
        items: |state| items(state, "approval_rules"),
        name: |it| it["rule_id"].to_string(),
        tell: |it| {
            let (rule, needed) = (text(&it["type"]), &it["required_approvals"]);
            format!("{rule} over {}, {needed} must approve", it["threshold"])
        },
    },
    List {
        title: "approvals",
        what: "approval",
        items: |state| items(state, "approvals"),
        name: |it| text(&it["request_id"]),
        tell: |it| {
            let used = if it["used_by"] == "" { "" } else { ", used" };
            let [agent, tool, action] = ["agent_id", "tool", "action"].map(|field| text(&it[field]));
            format!("{agent}  {tool} {action} {}  {}{used}", it["amount"], text(&it["status"]))
        },
    },
    List {
        title: "upstreams",
        what: "upstream",
        items: |state| items(state, "upstreams"),
        name: |it| text(&it["name"]),
        tell: |it| {
            let known = if it["is_known"] == true { "" } else { ", never reached" };
            format!("{} {}{known}", text(&it["transport"]), text(&it["url"]))
        },
    },
    List {
        title: "tools",
        what: "tool",
        items: tools,
        name: |it| text(&it["name"]),
        tell: |it| text(&it["standing"]),
    },
    List {
        title: "policies",
        what: "policy",
        items: |state| items(state, "policies"),
        name: |it| it["policy_id"].to_string(),
        tell: policy,
    },
    List {
        title: "calls without an outcome",
        what: "open call",
        items: |state| items(state, "open_calls"),
        name: |it| text(&it["call_id"]),
        tell: |it| {
            let [agent, upstream, name] = ["agent_id", "upstream", "name"].map(|field| text(&it[field]));
            format!("{agent}  {upstream}.{name}  {} held", it["price"])
        },
    },
];

fn items(state: &Value, list: &str) -> Vec<Value> {
    state[list].as_array().cloned().unwrap_or_default()
}

/// The tools of all upstreams.
fn tools(state: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for upstream in items(state, "upstreams") {
        let named = |tool: Value| {
            let name = format!("{}.{}", text(&upstream["name"]), text(&tool["tool"]));
            json!({ "name": name, "standing": tool["standing"] })
        };
        all.extend(items(&upstream, "tools").into_iter().map(named));
    }
    all
}

/// The type of a policy, and its parameters in the order of their names.
fn policy(policy: &Value) -> String {
    let parameter = |(name, value): (&String, &Value)| {
        let value = if value.is_array() { words(value) } else { text(value) };
        let is_told = !["type", "policy_id"].contains(&name.as_str()) && !value.is_empty();
        is_told.then(|| format!("  {name} {value}"))
    };
    let parameters = policy.as_object().into_iter().flatten().filter_map(parameter);
    std::iter::once(text(&policy["type"])).chain(parameters).collect()
}

/// Prints each list that is not empty.
pub(super) fn print(state: &Value) {
    for List { title, items, name, tell, .. } in LISTS {
        let items = items(state);
        if !items.is_empty() {
            anstream::println!("\n{title}");
        }
        for item in items {
            anstream::println!("  {}  {}", name(&item), tell(&item));
        }
    }
}

/// What came, went and changed between two states.
pub(super) fn changes(before: &Value, after: &Value) -> Vec<Value> {
    let mut changes = Vec::new();
    for List { what, items, name, tell, .. } in LISTS {
        let told = |state: &Value| -> BTreeMap<String, String> {
            items(state).iter().map(|item| (name(item), tell(item))).collect()
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
