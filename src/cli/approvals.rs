//! `haldir approvals`: see what waits for a person, and decide.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::client::{self, Connection, Method, percent_encoded};
use super::complain;
use super::shown::{amount, items, show, text};
use crate::config;
use crate::operations::wire::Usd;

/// What to do about approvals.
#[derive(Debug, Subcommand)]
pub enum ApprovalsCommand {
    /// List the requests that wait for a decision
    List {
        /// Only of this agent
        #[arg(long)]
        agent: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a request and what became of it
    Show {
        /// The request
        request_id: String,
        /// Wait until it is decided, at most this long (up to 60s)
        #[arg(long, value_name = "TIME")]
        wait: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Approve a request
    Approve {
        /// Who decides about what
        #[command(flatten)]
        decision: Decision,
        /// Approve at most this much, instead of what was asked for
        #[arg(long, value_name = "AMOUNT", value_parser = amount)]
        amount: Option<Usd>,
        /// Approve only for this long, such as 10m
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ttl: Option<std::time::Duration>,
    },
    /// Deny a request
    Deny {
        /// Who decides about what
        #[command(flatten)]
        decision: Decision,
    },
    /// List the rules about what needs an approval
    Rules {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a rule
    AddRule(RuleArgs),
    /// Remove a rule
    RemoveRule {
        /// Its number
        rule_id: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Who decides about what.
#[derive(Debug, Args)]
pub struct Decision {
    /// The request
    request_id: String,
    /// Who decides [default: the API key's prefix]
    #[arg(long = "as", value_name = "NAME")]
    decided_by: Option<String>,
    /// What to say about it
    #[arg(long)]
    note: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A rule.
#[derive(Debug, Args)]
pub struct RuleArgs {
    /// all, `spend_over`, `tool_blocked` or destructive
    #[arg(long = "type")]
    kind: String,
    /// The amount over which `spend_over` applies
    #[arg(long, value_parser = amount)]
    threshold: Option<Usd>,
    /// A tool to which `tool_blocked` applies; may be given several times
    #[arg(long = "tool")]
    tools: Vec<String>,
    /// How many must approve
    #[arg(long, default_value_t = 1)]
    required: u8,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does it. Exits with 1 when the server says no.
#[must_use]
pub fn run(command: &ApprovalsCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    let work = || carry_out(command, &Connection::find(url, key, &config::data_dir(None)?));
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: &ApprovalsCommand, server: &Connection) -> Result<(), String> {
    let url = |path: &str| format!("{}/v1/approvals/{path}", server.url);
    let get = |path: String| client::ask(Method::GET, &url(&path), server.key()?, None::<&()>);
    let decide = |path: String, body: &DecisionBody<'_>| {
        client::ask(Method::POST, &url(&path), server.key()?, Some(body))
    };
    match command {
        ApprovalsCommand::List { agent, json } => {
            let query = agent.as_ref().map(|agent| format!("?agent_id={}", percent_encoded(agent)));
            let answer = get(format!("pending{}", query.unwrap_or_default()))?;
            show(&answer, *json, |answer| {
                for request in items(answer, "requests") {
                    print_request(request);
                }
                anstream::println!("{} waiting", answer["count"]);
            })?;
        }
        ApprovalsCommand::Show { request_id, wait, json } => {
            let query = wait.as_ref().map(|wait| format!("?wait={}", percent_encoded(wait)));
            let path = format!("{}{}", percent_encoded(request_id), query.unwrap_or_default());
            let answer = get(path)?;
            show(&answer, *json, print_approval)?;
        }
        ApprovalsCommand::Approve { decision, amount, ttl } => {
            let ttl = ttl.map(|ttl| ttl.as_secs());
            let body = DecisionBody { amount: amount.as_ref(), ttl, ..decision.body() };
            let path = format!("{}/approve", percent_encoded(&decision.request_id));
            let answer = decide(path, &body)?;
            show(&answer, decision.json, print_decided)?;
        }
        ApprovalsCommand::Deny { decision } => {
            let path = format!("{}/deny", percent_encoded(&decision.request_id));
            let answer = decide(path, &decision.body())?;
            show(&answer, decision.json, print_decided)?;
        }
        ApprovalsCommand::Rules { json } => {
            let answer = get("rules".to_owned())?;
            show(&answer, *json, |answer| {
                for rule in items(answer, "rules") {
                    print_rule(rule);
                }
            })?;
        }
        ApprovalsCommand::AddRule(RuleArgs { kind, threshold, tools, required, json }) => {
            let body = RuleBody { kind, threshold: threshold.as_ref(), tools, required: *required };
            let answer = client::ask(Method::POST, &url("rules"), server.key()?, Some(&body))?;
            show(&answer, *json, |answer| anstream::println!("rule {} added", answer["rule_id"]))?;
        }
        ApprovalsCommand::RemoveRule { rule_id, json } => {
            let path = format!("rules/{rule_id}");
            let answer = client::ask(Method::DELETE, &url(&path), server.key()?, None::<&()>)?;
            show(&answer, *json, |answer| anstream::println!("rule {} removed", answer["rule_id"]))?;
        }
    }
    Ok(())
}

impl Decision {
    fn body(&self) -> DecisionBody<'_> {
        let Self { decided_by, note, .. } = self;
        DecisionBody { decided_by: decided_by.as_deref(), note: note.as_deref(), amount: None, ttl: None }
    }
}

/// A decision, as the server reads it.
#[derive(Serialize)]
struct DecisionBody<'a> {
    decided_by: Option<&'a str>,
    note: Option<&'a str>,
    amount: Option<&'a Usd>,
    ttl: Option<u64>,
}

/// A rule, as the server reads it.
#[derive(Serialize)]
struct RuleBody<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    threshold: Option<&'a Usd>,
    tools: &'a [String],
    #[serde(rename = "required_approvals")]
    required: u8,
}

fn print_request(request: &Value) {
    anstream::println!(
        "{}  {}  {} {}  {}  {} of {} approved  {}",
        text(&request["request_id"]),
        text(&request["agent_id"]),
        text(&request["tool"]),
        text(&request["action"]),
        text(&request["amount"]),
        request["approvals"],
        request["required_approvals"],
        text(&request["reason"]),
    );
}

fn print_approval(approval: &Value) {
    for name in [
        "request_id",
        "status",
        "agent_id",
        "session_id",
        "tool",
        "action",
        "amount",
        "currency",
        "description",
        "reason",
        "details",
        "decided_by",
        "decision_note",
        "approved_amount",
        "used_by",
    ] {
        let value = text(&approval[name]);
        if !value.is_empty() && value != "{}" {
            anstream::println!("{:16} {value}", name.replace('_', " "));
        }
    }
}

fn print_decided(decided: &Value) {
    let missing = decided["missing_approvals"].as_u64().unwrap_or_default();
    let more = if missing > 0 { format!(", {missing} more must approve") } else { String::new() };
    anstream::println!("{} is {}{more}", text(&decided["request_id"]), text(&decided["status"]));
}

fn print_rule(rule: &Value) {
    let tools: Vec<String> = items(rule, "tools").map(text).collect();
    anstream::println!(
        "{:4}  {:14} over {}  {}  {} must approve",
        rule["rule_id"],
        text(&rule["type"]),
        text(&rule["threshold"]),
        tools.join(" "),
        rule["required_approvals"],
    );
}
