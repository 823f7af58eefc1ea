//! `haldir policy`: what may be called through the proxy, why, and what another set would have decided.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{self, Connection, Method};
use super::complain;
use super::shown::{items, show, text};
use crate::config;

/// What to do about policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Add a policy behind the others
    Add(Box<AddArgs>),
    /// List the policies in the order in which they are tried
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a policy
    Remove {
        /// Its number
        policy_id: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put the set in a file in place of the whole one, in one step
    Apply {
        /// A JSON file: a list of policies, or what `haldir policy list --json` prints
        file: PathBuf,
        /// Only if the set still has this revision
        #[arg(long)]
        revision: Option<u64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell what would be decided about a call, and what each policy says of it
    Explain {
        /// The tool: upstream.tool, or the tool's own name
        tool: String,
        /// The session that would call
        #[arg(long)]
        session: String,
        /// The arguments, as JSON
        #[arg(long, default_value = "{}")]
        args: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the set in a file over the calls of the past, and tell which decisions would have been others
    Replay {
        /// A JSON file: a list of policies, or what `haldir policy list --json` prints
        file: PathBuf,
        /// From when on: unix seconds or ISO 8601 [default: the beginning]
        #[arg(long)]
        from: Option<String>,
        /// Until when [default: now]
        #[arg(long)]
        to: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A policy.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// `block_tool`, `allow_list`, `deny_list`, `spend_limit`, `rate_limit`, `time_window`, `require_approval`, price, argument or
    /// redact
    #[arg(long = "type")]
    kind: String,
    /// The tool, for `block_tool`
    #[arg(long)]
    tool: Option<String>,
    /// Tools, separated by commas
    #[arg(long, value_delimiter = ',')]
    tools: Option<Vec<String>>,
    /// The most that a call may cost, for `spend_limit`
    #[arg(long)]
    max: Option<String>,
    /// For `rate_limit`
    #[arg(long)]
    max_per_minute: Option<u64>,
    /// The hour at which the window begins, for `time_window`
    #[arg(long)]
    start_hour: Option<u64>,
    /// The hour at which it ends
    #[arg(long)]
    end_hour: Option<u64>,
    /// The same to the minute, as HH:MM
    #[arg(long)]
    start: Option<String>,
    /// The same to the minute, as HH:MM
    #[arg(long)]
    end: Option<String>,
    /// Days on which it begins, such as mon,tue
    #[arg(long, value_delimiter = ',')]
    days: Option<Vec<String>>,
    /// The zone by whose clocks it goes, such as Europe/Berlin
    #[arg(long)]
    timezone: Option<String>,
    /// Only calls that cost more, for `require_approval`
    #[arg(long)]
    above: Option<String>,
    /// How many must approve
    #[arg(long)]
    required: Option<u8>,
    /// What a call costs, for price
    #[arg(long)]
    amount: Option<String>,
    /// The argument that says what it costs, or that the rule is about: names of fields, joined by dots
    #[arg(long)]
    argument: Option<String>,
    /// deny, require, match or `deny_match`, for argument
    #[arg(long)]
    rule: Option<String>,
    /// The pattern: a regular expression
    #[arg(long)]
    pattern: Option<String>,
    /// Arguments that are not written down, for redact
    #[arg(long, value_delimiter = ',')]
    arguments: Option<Vec<String>>,
    /// Parts of results that are not written down
    #[arg(long, value_delimiter = ',')]
    results: Option<Vec<String>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does it. Exits with 1 when the server says no; `explain` also when the call would not be authorised.
#[must_use]
pub fn run(command: &PolicyCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    let work = || carry_out(command, &Connection::find(url, key, &config::data_dir(None)?));
    match work() {
        Ok(code) => code,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: &PolicyCommand, server: &Connection) -> Result<ExitCode, String> {
    let ask = |method, path: &str, body: Option<&Value>| {
        client::ask(method, &format!("{}/v1/proxy/policies{path}", server.url), server.key()?, body)
    };
    match command {
        PolicyCommand::Add(args) => {
            let answer = ask(Method::POST, "", Some(&args.body()))?;
            show(&answer, args.json, |it| {
                anstream::println!("policy {} added ({})", it["policy_id"], text(&it["type"]));
            })?;
        }
        PolicyCommand::List { json } => show(&ask(Method::GET, "", None)?, *json, print_set)?,
        PolicyCommand::Remove { policy_id, json } => {
            let answer = ask(Method::DELETE, &format!("/{policy_id}"), None)?;
            show(&answer, *json, |it| anstream::println!("policy {} removed", it["policy_id"]))?;
        }
        PolicyCommand::Apply { file, revision, json } => {
            let body = json!({ "policies": policies_in(file)?, "revision": revision });
            show(&ask(Method::PUT, "", Some(&body))?, *json, print_set)?;
        }
        PolicyCommand::Explain { tool, session, args, json } => {
            let arguments: Value = serde_json::from_str(args)
                .map_err(|error| format!("--args: expected a JSON object: {error}"))?;
            let body = json!({ "tool": tool, "session_id": session, "arguments": arguments });
            let answer = ask(Method::POST, "/explain", Some(&body))?;
            show(&answer, *json, print_explanation)?;
            if answer.json()?["verdict"] != "authorized" {
                return Ok(ExitCode::FAILURE);
            }
        }
        PolicyCommand::Replay { file, from, to, json } => {
            let body = json!({ "policies": policies_in(file)?, "from": from, "to": to });
            show(&ask(Method::POST, "/replay", Some(&body))?, *json, print_replay)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl AddArgs {
    /// Amounts go as texts, so that no digit is lost.
    fn body(&self) -> Value {
        let fields = [
            ("type", json!(self.kind)),
            ("tool", json!(self.tool)),
            ("tools", json!(self.tools)),
            ("max", json!(self.max)),
            ("max_per_minute", json!(self.max_per_minute)),
            ("start_hour", json!(self.start_hour)),
            ("end_hour", json!(self.end_hour)),
            ("start", json!(self.start)),
            ("end", json!(self.end)),
            ("days", json!(self.days)),
            ("timezone", json!(self.timezone)),
            ("above", json!(self.above)),
            ("required_approvals", json!(self.required)),
            ("amount", json!(self.amount)),
            ("argument", json!(self.argument)),
            ("rule", json!(self.rule)),
            ("pattern", json!(self.pattern)),
            ("arguments", json!(self.arguments)),
            ("results", json!(self.results)),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_null());
        given.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
    }
}

/// The policies in a file: a list, or an object with one.
fn policies_in(file: &Path) -> Result<Value, String> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let mut read: Value = serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
    if read["policies"].is_array() {
        read = read["policies"].take();
    }
    if read.is_array() { Ok(read) } else { Err(format!("{name}: expected a list of policies")) }
}

fn print_set(answer: &Value) {
    for policy in items(answer, "policies") {
        let parameters = policy
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| !matches!(name.as_str(), "policy_id" | "type"));
        let parameters: Vec<String> =
            parameters.map(|(name, value)| format!("{name}={}", text(value))).collect();
        anstream::println!(
            "{:4}  {:16}  {}",
            policy["policy_id"],
            text(&policy["type"]),
            parameters.join(" ")
        );
    }
    anstream::println!("revision {}", answer["revision"]);
}

fn print_explanation(answer: &Value) {
    let upstream = text(&answer["upstream"]);
    let dot = if upstream.is_empty() { "" } else { "." };
    anstream::println!("{upstream}{dot}{}: {}", text(&answer["tool"]), text(&answer["verdict"]));
    anstream::println!("  {}", text(&answer["reason"]));
    if let Some(price) = answer.get("price") {
        anstream::println!("  it costs {}", text(price));
    }
    for step in items(answer, "steps") {
        let mark = if answer["policy_id"] == step["policy_id"] { '>' } else { ' ' };
        let because = step.get("because").map(|because| format!(": {}", text(because))).unwrap_or_default();
        anstream::println!(
            "{mark} {:4}  {:16}  {}{because}",
            step["policy_id"],
            text(&step["type"]),
            text(&step["says"])
        );
    }
    anstream::println!("  revision {}", answer["revision"]);
}

fn print_replay(answer: &Value) {
    for difference in items(answer, "differences") {
        let policy = difference.get("would_be_policy").map(|policy| format!(" by policy {policy}"));
        let because = difference.get("because").map(|because| format!(": {}", text(because)));
        let uncertain =
            if difference["uncertain"] == true { "  (its arguments were not kept as they were)" } else { "" };
        anstream::println!(
            "{:8}  {}  {}  {} -> {}{}{}{uncertain}",
            difference["seq"],
            text(&difference["agent_id"]),
            text(&difference["tool"]),
            text(&difference["was"]),
            text(&difference["would_be"]),
            policy.unwrap_or_default(),
            because.unwrap_or_default(),
        );
    }
    anstream::println!(
        "{} calls, {} decided otherwise, {} uncertain",
        answer["calls"],
        answer["different"],
        answer["uncertain"]
    );
}
