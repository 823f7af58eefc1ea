//! `haldir anomalies`: what anomaly rules found, and the rules.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{Connection, Method, ask, percent_encoded};
use super::complain;
use crate::config;
use crate::domain::anomalies::rule::RuleType;
use crate::domain::time::Timestamp;

/// What to do about anomalies.
#[derive(Debug, Subcommand)]
pub enum AnomaliesCommand {
    /// List what the rules found, newest first
    List(ListArgs),
    /// List the rules, in the order in which they are tried
    Rules {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a rule: from now on, what matches it is flagged and found
    AddRule(AddRuleArgs),
    /// Remove a rule; what it found stays
    RemoveRule {
        /// The rule's number
        rule_id: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which anomalies.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only of this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only of the rule with this number
    #[arg(long)]
    rule: Option<u64>,
    /// The first moment: unix seconds or ISO 8601
    #[arg(long)]
    since: Option<String>,
    /// The moment after the last
    #[arg(long)]
    until: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20)]
    limit: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A rule to be added.
#[derive(Debug, Args)]
pub struct AddRuleArgs {
    /// What to watch for
    #[arg(long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(RuleType::ALL.map(RuleType::name)))]
    rule_type: String,
    /// The amount, number or tool to compare with
    #[arg(long)]
    threshold: Option<String>,
    /// A blocked tool; may be given several times
    #[arg(long = "tool", value_name = "TOOL")]
    tools: Vec<String>,
    /// How far to look back, such as 90s or 5m
    #[arg(long)]
    window: Option<String>,
    /// How much must be known of an agent before it is compared with itself
    #[arg(long)]
    min_samples: Option<u64>,
    /// What flags say
    #[arg(long)]
    reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
#[must_use]
pub fn run(command: &AnomaliesCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    let outcome =
        config::data_dir(None).and_then(|dir| carry_out(command, &Connection::find(url, key, &dir)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::from(2)
        }
    }
}

fn carry_out(command: &AnomaliesCommand, connection: &Connection) -> Result<(), String> {
    let send = |method, path: &str, body: Option<&Value>| {
        ask(method, &format!("{}/v1/anomalies{path}", connection.url), connection.key()?, body)?.json()
    };
    let (answer, is_json): (_, bool) = match command {
        AnomaliesCommand::List(arguments) => (send(Method::GET, &arguments.query(), None)?, arguments.json),
        AnomaliesCommand::Rules { json } => (send(Method::GET, "/rules", None)?, *json),
        AnomaliesCommand::AddRule(arguments) => {
            (send(Method::POST, "/rules", Some(&arguments.body()))?, arguments.json)
        }
        AnomaliesCommand::RemoveRule { rule_id, json } => {
            (send(Method::DELETE, &format!("/rules/{rule_id}"), None)?, *json)
        }
    };
    if is_json {
        anstream::println!("{answer}");
        return Ok(());
    }
    let rows = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    match command {
        AnomaliesCommand::List(_) => {
            for anomaly in rows("anomalies") {
                anstream::println!("{}", anomaly_text(&anomaly));
            }
        }
        AnomaliesCommand::Rules { .. } => {
            for rule in rows("rules") {
                anstream::println!("{:>4}  {}", rule["rule_id"], rule_text(&rule));
            }
        }
        AnomaliesCommand::AddRule(_) => {
            anstream::println!("rule {} added: {}", answer["rule_id"], rule_text(&answer["rule"]));
        }
        AnomaliesCommand::RemoveRule { rule_id, .. } => anstream::println!("rule {rule_id} removed"),
    }
    Ok(())
}

impl ListArgs {
    fn query(&self) -> String {
        let text = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("&{name}={}", percent_encoded(value))).unwrap_or_default()
        };
        let rule = self.rule.map(|rule| format!("&rule_id={rule}")).unwrap_or_default();
        let (agent, since) = (text("agent_id", &self.agent), text("since", &self.since));
        format!("?limit={}{agent}{rule}{since}{}", self.limit, text("until", &self.until))
    }
}

impl AddRuleArgs {
    fn body(&self) -> Value {
        let mut body = Map::new();
        let mut add = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        add("type", Some(json!(self.rule_type)));
        add("threshold", self.threshold.as_ref().map(|threshold| json!(threshold)));
        add("tools", (!self.tools.is_empty()).then(|| json!(self.tools)));
        add("window", self.window.as_ref().map(|window| json!(window)));
        add("min_samples", self.min_samples.map(|count| json!(count)));
        add("reason", self.reason.as_ref().map(|reason| json!(reason)));
        Value::Object(body)
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn anomaly_text(anomaly: &Value) -> String {
    let at = Timestamp::parse(&anomaly["timestamp"].to_string()).unwrap_or_default();
    let evidence = anomaly["evidence"].as_array().cloned().unwrap_or_default();
    let evidence = evidence.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let (agent, action) = (text(&anomaly["agent_id"]), text(&anomaly["action"]));
    let tool = text(&anomaly["tool"]);
    let deed = if tool.is_empty() { action } else { format!("{tool}:{action}") };
    let (rule_id, reason) = (&anomaly["rule_id"], text(&anomaly["reason"]));
    format!("{at}  rule {rule_id}  {agent}  {deed}  {}  {reason}  seq {evidence}", anomaly["amount_usd"])
}

/// A rule in one line.
pub(super) fn rule_text(rule: &Value) -> String {
    let mut line = text(&rule["type"]);
    let mut add = |name: &str, value: &Value| {
        if !value.is_null() {
            line = format!("{line}  {name} {}", text(value));
        }
    };
    match rule["tools"].as_array() {
        Some(tools) => add("tools", &json!(tools.iter().map(text).collect::<Vec<_>>().join(", "))),
        None => add("threshold", &rule["threshold"]),
    }
    for (name, key) in [("window (s)", "window"), ("after", "min_samples"), ("says", "reason")] {
        add(name, &rule[key]);
    }
    line
}
