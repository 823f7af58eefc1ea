//! `haldir replay` and `haldir diff`: what was true at a moment, and what changed between two.

mod lists;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::anomalies::rule_text;
use super::client::{self, Connection, percent_encoded};
use super::complain;
use super::offline::{OfflineLedger, pick};
use crate::config;
use crate::ledger::past::{size_at, stream_at};
use crate::operations::past::{AsOf, Moment};
use crate::operations::state;
use crate::store::EventStore as _;
use crate::store::memory::MemorySnapshots;

/// Which moment.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The moment: unix seconds, an ISO 8601 time, or seq:N for the state after that entry
    #[arg(long, value_name = "MOMENT")]
    at: String,
    #[command(flatten)]
    source: Source,
}

/// Which moments.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The earlier moment: unix seconds, an ISO 8601 time, or seq:N
    #[arg(long, value_name = "MOMENT")]
    from: String,
    /// The later moment [default: now]
    #[arg(long, value_name = "MOMENT")]
    to: Option<String>,
    #[command(flatten)]
    source: Source,
}

/// Where the ledger is.
#[derive(Debug, Args)]
struct Source {
    /// Read this data directory, offline, instead of asking a server
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Which tenant's stream, when the directory holds several
    #[arg(long, requires = "data_dir")]
    tenant: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Tells what was true at a moment.
#[must_use]
pub fn run(arguments: &ReplayArgs, url: Option<String>, key: Option<String>) -> ExitCode {
    exit(|| {
        let state = arguments.source.reader(url, key)?.state(Some(&arguments.at))?;
        if arguments.source.json {
            anstream::println!("{state}");
        } else {
            print_state(&state);
        }
        Ok(())
    })
}

/// Tells what changed between two moments.
#[must_use]
pub fn run_diff(arguments: &DiffArgs, url: Option<String>, key: Option<String>) -> ExitCode {
    exit(|| {
        let reader = arguments.source.reader(url, key)?;
        let (before, after) = (reader.state(Some(&arguments.from))?, reader.state(arguments.to.as_deref())?);
        if before["size"].as_u64() > after["size"].as_u64() {
            return Err("--from lies after --to".to_owned());
        }
        let changes = changes(&before, &after);
        if arguments.source.json {
            let side =
                |state: &Value| json!({ "at": state["at"], "size": state["size"], "head": state["head"] });
            anstream::println!(
                "{}",
                json!({ "from": side(&before), "to": side(&after), "changes": changes })
            );
            return Ok(());
        }
        anstream::println!("from {}, {} entries", text(&before["at"]), before["size"]);
        anstream::println!("to   {}, {} entries", text(&after["at"]), after["size"]);
        if changes.is_empty() {
            anstream::println!("nothing changed");
        }
        for change in &changes {
            anstream::println!("  {}", text(&change["text"]));
        }
        Ok(())
    })
}

fn exit(work: impl FnOnce() -> Result<(), String>) -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::from(2)
        }
    }
}

impl Source {
    fn reader(&self, url: Option<String>, key: Option<String>) -> Result<Reader, String> {
        match &self.data_dir {
            Some(dir) => Ok(Reader::Directory(Box::new(OfflineLedger::open(dir)?), self.tenant.clone())),
            None => Ok(Reader::Server(Connection::find(url, key, &config::data_dir(None)?))),
        }
    }
}

/// Who tells the state.
enum Reader {
    Server(Connection),
    Directory(Box<OfflineLedger>, Option<String>),
}

impl Reader {
    /// The state at a moment, or now, as JSON.
    fn state(&self, moment: Option<&str>) -> Result<Value, String> {
        let as_of = moment.map(|text| {
            AsOf::parse(text)
                .ok_or_else(|| format!("{text:?}: expected unix seconds, an ISO 8601 time or seq:N"))
        });
        match self {
            Self::Server(connection) => {
                as_of.transpose()?;
                let query =
                    moment.map(|text| format!("?as_of={}", percent_encoded(text))).unwrap_or_default();
                let url = format!("{}/v1/ledger/state{query}", connection.url);
                let mut body = String::new();
                client::get(&url, connection.key()?, &[])?
                    .read_to_string(&mut body)
                    .map_err(|error| format!("{url}: {error}"))?;
                serde_json::from_str(&body).map_err(|error| format!("{url}: {error}"))
            }
            Self::Directory(ledger, tenant) => offline_state(ledger, tenant.as_deref(), as_of.transpose()?),
        }
    }
}

fn offline_state(ledger: &OfflineLedger, tenant: Option<&str>, as_of: Option<AsOf>) -> Result<Value, String> {
    let store = &*ledger.store;
    let (tenant, head) = pick(store.heads().map_err(|error| error.to_string())?, tenant)?;
    let size = match as_of {
        None => head.size,
        Some(AsOf::Seq(seq)) if seq >= head.size => {
            return Err(format!("the last entry has seq {}", head.size.saturating_sub(1)));
        }
        Some(AsOf::Seq(seq)) => seq + 1,
        Some(AsOf::Time(at)) => size_at(store, &tenant, head.size, at).map_err(|error| error.to_string())?,
    };
    let stream =
        stream_at(store, &MemorySnapshots::default(), &tenant, size).map_err(|error| error.to_string())?;
    let stream = stream.ok_or("that is before the first entry")?;
    let at = if let Some(AsOf::Time(at)) = as_of { at } else { stream.last_at };
    let moment = Moment { stream: Arc::new(stream), at, standing: None };
    serde_json::to_value(state::of(&moment)).map_err(|error| error.to_string())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn words(value: &Value) -> String {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn print_state(state: &Value) {
    anstream::println!("at {}, {} entries", text(&state["at"]), state["size"]);
    anstream::println!("head {}", text(&state["head"]));
    if let Some(root) = state["as_of"]["root"].as_str() {
        anstream::println!("root {root}");
    }
    let list = |name: &str| state[name].as_array().cloned().unwrap_or_default();
    anstream::println!("\nsessions");
    for item in list("sessions") {
        let session = &item["session"];
        anstream::println!(
            "  {:8} {}  {}  spent {}{}  may {}",
            text(&item["standing"]),
            text(&session["session_id"]),
            text(&session["agent_id"]),
            session["spent"],
            limit_of(session),
            words(&session["scopes"]),
        );
    }
    anstream::println!("\nkeys");
    for key in list("keys") {
        let standing = if key["revoked"] == true { "revoked" } else { "active" };
        anstream::println!(
            "  {standing:8} {}  {}  may {}",
            text(&key["prefix"]),
            text(&key["name"]),
            words(&key["scopes"])
        );
    }
    lists::print(state);
    let schedules = list("schedules");
    if !schedules.is_empty() {
        anstream::println!("\nschedules");
    }
    for schedule in schedules {
        anstream::println!(
            "  {}  {}  {} to {}  ran {} times, failed {}",
            text(&schedule["schedule_id"]),
            text(&schedule["name"]),
            text(&schedule["cadence"]),
            text(&schedule["delivery"]),
            schedule["run_count"],
            schedule["fail_count"],
        );
    }
    let webhooks = list("webhooks");
    if !webhooks.is_empty() {
        anstream::println!("\nwebhooks");
    }
    for hook in webhooks {
        anstream::println!(
            "  {}  {}  hears {}  delivered {}, given up {}, waiting {}",
            hook["webhook_id"],
            text(&hook["url"]),
            words(&hook["events"]),
            hook["fire_count"],
            hook["fail_count"],
            hook["pending"],
        );
    }
    anstream::println!("\nsecrets");
    for secret in list("secrets") {
        anstream::println!(
            "  {}  versions {}  needs {:?}  read {} times",
            text(&secret["name"]),
            versions_of(&secret),
            text(&secret["required_scope"]),
            secret["read_count"],
        );
    }
    let rules = list("anomaly_rules");
    if !rules.is_empty() {
        anstream::println!("\nanomaly rules");
    }
    for rule in &rules {
        anstream::println!("  {:8} {}", rule["rule_id"], rule_text(rule));
    }
    anstream::println!("\nlogged actions  {}", state["actions_logged"]);
    if state["calls_authorized"] != 0 || state["calls_denied"] != 0 {
        let (authorized, denied) = (&state["calls_authorized"], &state["calls_denied"]);
        anstream::println!("proxied calls   {authorized} authorised, {denied} denied");
    }
    if state["anomalies_detected"] != 0 {
        anstream::println!("anomalies       {}", state["anomalies_detected"]);
    }
}

fn versions_of(secret: &Value) -> String {
    let versions = secret["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    versions.iter().map(|version| version["version"].to_string()).collect::<Vec<_>>().join(" ")
}

/// What changed about secrets: what was stored, read and erased.
fn secret_changes(earlier: &BTreeMap<String, Value>, later: &BTreeMap<String, Value>) -> Vec<Value> {
    let mut changes = Vec::new();
    let mut add = |what: &str, name: &str, more: String| {
        let text = format!("{what:16} {name}  {more}");
        changes.push(json!({ "what": what, "name": name, "text": text, "detail": more }));
    };
    for (name, now) in later {
        let then = earlier.get(name).unwrap_or(&Value::Null);
        if then["versions"] != now["versions"] {
            add("secret stored", name, format!("versions {} -> {}", versions_of(then), versions_of(now)));
        }
        if then["last_read_at"] != now["last_read_at"] && now["read_count"] != 0 {
            add("secret read", name, format!("{} times since it was stored", now["read_count"]));
        }
    }
    for name in earlier.keys().filter(|name| !later.contains_key(*name)) {
        add("secret erased", name, String::new());
    }
    changes
}

/// What changed about webhooks: who is told, and what arrived.
fn webhook_changes(earlier: &BTreeMap<String, Value>, later: &BTreeMap<String, Value>) -> Vec<Value> {
    let mut changes = Vec::new();
    let mut add = |what: &str, id: &str, hook: &Value, more: String| {
        let text = format!("{what:16} {id}  {}  {more}", text(&hook["url"]));
        changes.push(json!({ "what": what, "webhook_id": hook["webhook_id"], "text": text, "detail": more }));
    };
    for (id, now) in later {
        let Some(then) = earlier.get(id) else {
            add("webhook added", id, now, format!("hears {}", words(&now["events"])));
            continue;
        };
        for (field, what) in [("fire_count", "webhook told"), ("fail_count", "webhook not told")] {
            if then[field] != now[field] {
                add(what, id, now, format!("{} -> {} times", then[field], now[field]));
            }
        }
    }
    for (id, then) in earlier.iter().filter(|(id, _)| !later.contains_key(*id)) {
        add("webhook removed", id, then, String::new());
    }
    changes
}

fn limit_of(session: &Value) -> String {
    if session["unlimited"] == true { String::new() } else { format!(" of {}", session["spend_limit"]) }
}

/// What changed: who may do what, and what was spent.
fn changes(before: &Value, after: &Value) -> Vec<Value> {
    let mut changes = Vec::new();
    let by_name = |state: &Value, list: &str, name: fn(&Value) -> String| -> BTreeMap<String, Value> {
        let items = state[list].as_array().cloned().unwrap_or_default();
        items.into_iter().map(|item| (name(&item), item)).collect()
    };
    let session_name: fn(&Value) -> String = |item| text(&item["session"]["session_id"]);
    let earlier = by_name(before, "sessions", session_name);
    for (id, now) in by_name(after, "sessions", session_name) {
        let session = &now["session"];
        let agent = text(&session["agent_id"]);
        let mut add = |what: &str, more: String| {
            let text = format!("{what:16} {id}  {agent}  {more}");
            changes.push(
                json!({ "what": what, "session_id": id, "agent_id": agent, "text": text, "detail": more }),
            );
        };
        let Some(then) = earlier.get(&id) else {
            add(
                "session opened",
                format!(
                    "may {}{}, is {}",
                    words(&session["scopes"]),
                    limit_of(session),
                    text(&now["standing"])
                ),
            );
            if session["spent"].as_f64() != Some(0.0) {
                add("spent", format!("{}", session["spent"]));
            }
            continue;
        };
        if then["standing"] != now["standing"] {
            add("session ended", format!("{} -> {}", text(&then["standing"]), text(&now["standing"])));
        }
        if then["session"]["spent"] != session["spent"] {
            add(
                "spent",
                format!("{} -> {}{}", then["session"]["spent"], session["spent"], limit_of(session)),
            );
        }
    }
    let key_name: fn(&Value) -> String = |item| text(&item["prefix"]);
    let earlier = by_name(before, "keys", key_name);
    for (prefix, now) in by_name(after, "keys", key_name) {
        let mut add = |what: &str, more: String| {
            let text = format!("{what:16} {prefix}  {}  {more}", text(&now["name"]));
            changes.push(json!({ "what": what, "prefix": prefix, "text": text, "detail": more }));
        };
        match earlier.get(&prefix) {
            None => add("key minted", format!("may {}", words(&now["scopes"]))),
            Some(then) if then["revoked"] != now["revoked"] => add("key revoked", String::new()),
            Some(_) => {}
        }
    }
    let schedule_id: fn(&Value) -> String = |item| text(&item["schedule_id"]);
    let (earlier, later) =
        (by_name(before, "schedules", schedule_id), by_name(after, "schedules", schedule_id));
    for (id, schedule) in later.iter().chain(earlier.iter().filter(|(id, _)| !later.contains_key(*id))) {
        let mut add = |what: &str, more: String| {
            let text = format!("{what:16} {id}  {}  {more}", text(&schedule["name"]));
            changes.push(json!({ "what": what, "schedule_id": id, "text": text, "detail": more }));
        };
        match (earlier.get(id), later.get(id)) {
            (None, _) => {
                add(
                    "schedule added",
                    format!("{} to {}", text(&schedule["cadence"]), text(&schedule["delivery"])),
                );
            }
            (Some(_), None) => add("schedule removed", String::new()),
            (Some(then), Some(now)) if then["run_count"] != now["run_count"] => {
                add("evidence sent", format!("{} -> {} times", then["run_count"], now["run_count"]));
            }
            (Some(_), Some(_)) => {}
        }
    }
    let secret_name: fn(&Value) -> String = |item| text(&item["name"]);
    let (earlier, later) = (by_name(before, "secrets", secret_name), by_name(after, "secrets", secret_name));
    changes.extend(secret_changes(&earlier, &later));
    changes.extend(lists::changes(before, after));
    changes.extend(rule_changes(before, after));
    let webhook_id: fn(&Value) -> String = |item| item["webhook_id"].to_string();
    let (earlier, later) = (by_name(before, "webhooks", webhook_id), by_name(after, "webhooks", webhook_id));
    changes.extend(webhook_changes(&earlier, &later));
    for (name, what) in [
        ("calls_authorized", "calls authorised"),
        ("calls_denied", "calls denied"),
        ("actions_logged", "actions logged"),
        ("anomalies_detected", "anomalies"),
        ("signer", "signing key"),
        ("repairs", "repairs"),
    ] {
        if before[name] != after[name] {
            let detail = format!("{} -> {}", text(&before[name]), text(&after[name]));
            changes.push(json!({ "what": what, "text": format!("{what:16} {detail}"), "detail": detail }));
        }
    }
    changes
}

/// Anomaly rules that came and went.
fn rule_changes(before: &Value, after: &Value) -> Vec<Value> {
    let list = |state: &Value| state["anomaly_rules"].as_array().cloned().unwrap_or_default();
    let (earlier, later) = (list(before), list(after));
    let missing = |from: &[Value], rule: &Value| !from.iter().any(|it| it["rule_id"] == rule["rule_id"]);
    let change = |what: &'static str| {
        move |rule: &Value| {
            let detail = rule_text(rule);
            let text = format!("{what:16} {}  {detail}", rule["rule_id"]);
            json!({ "what": what, "rule_id": rule["rule_id"], "text": text, "detail": detail })
        }
    };
    let added = later.iter().filter(|rule| missing(&earlier, rule)).map(change("rule added"));
    let removed = earlier.iter().filter(|rule| missing(&later, rule)).map(change("rule removed"));
    added.chain(removed).collect()
}
