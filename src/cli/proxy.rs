//! `haldir proxy`: upstream MCP servers, their tools, and calls.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{self, Answer, Connection, Method, percent_encoded};
use super::complain;
use super::policy::{self, PolicyCommand};
use super::shown::{items, show, text};
use crate::config;

/// What to do about the proxy.
#[derive(Debug, Subcommand)]
pub enum ProxyCommand {
    /// Register an upstream MCP server, in place of one with the same name, and pin its tools
    Register(RegisterArgs),
    /// List the upstreams
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an upstream
    Remove {
        /// The upstream
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Connect to an upstream anew, and look at its tools
    Reconnect {
        /// The upstream
        name: String,
        /// The session whose secrets its settings need
        #[arg(long)]
        session: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the tools that may be called; with an upstream, its tools as they are trusted and as they were seen last
    Tools {
        /// The upstream
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Trust a tool that changed, as it is now
    Accept {
        /// The upstream
        name: String,
        /// The tool
        tool: String,
        /// The definition that was looked at; the one that was seen last unless given
        #[arg(long)]
        digest: Option<String>,
        /// Who accepts it [default: the API key's prefix]
        #[arg(long = "as", value_name = "NAME")]
        decided_by: Option<String>,
        /// What to say about it
        #[arg(long)]
        note: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Call a tool. Exits with 1 when it is denied or fails, and with 2 when it waits for an approval
    Call {
        /// The tool: upstream.tool, or the tool's own name
        tool: String,
        /// The session that calls
        #[arg(long)]
        session: String,
        /// The arguments, as JSON
        #[arg(long, default_value = "{}")]
        args: String,
        /// The approval to use
        #[arg(long)]
        approval: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List calls without an outcome: on their way, or unconfirmed
    Calls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what became of an unconfirmed call
    Resolve {
        /// The call
        call_id: String,
        /// Whether it happened, so that what it costs is paid, or was not sent, so that it is given back
        #[arg(long, value_parser = ["happened", "not_sent"])]
        outcome: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What may be called; the same as `haldir policy`
    #[command(subcommand)]
    Policy(PolicyCommand),
}

/// An upstream.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// Under which name
    name: String,
    /// Its URL, for one that is reached over HTTP
    #[arg(required_unless_present = "command", conflicts_with = "command")]
    address: Option<String>,
    /// A header of every request, as NAME=VALUE; the value may end in secret:// and the name of a secret; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// The program, for one that is a process; its arguments follow after --
    #[arg(long)]
    command: Option<String>,
    /// A variable of its environment, as NAME=VALUE; the value may end in secret:// and the name of a secret; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// The session whose secrets are used to look at it
    #[arg(long)]
    session: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Arguments of the program
    #[arg(last = true)]
    args: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Exit code of a call that waits for an approval.
const WAITS: u8 = 2;

/// Does it.
#[must_use]
pub fn run(command: ProxyCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    if let ProxyCommand::Policy(command) = command {
        return policy::run(&command, url, key);
    }
    let work = || carry_out(&command, &Connection::find(url, key, &config::data_dir(None)?));
    match work() {
        Ok(code) => code,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: &ProxyCommand, server: &Connection) -> Result<ExitCode, String> {
    let ask = |method, path: String, body: Option<&Value>| {
        client::ask(method, &format!("{}/v1/proxy/{path}", server.url), server.key()?, body)
    };
    let of = |name: &str, what: &str| format!("upstreams/{}{what}", percent_encoded(name));
    match command {
        ProxyCommand::Register(args) => {
            let answer = ask(Method::POST, "upstreams".to_owned(), Some(&args.body()))?;
            show(&answer, args.json, print_registered)?;
        }
        ProxyCommand::List { json } => {
            show(&ask(Method::GET, "upstreams".to_owned(), None)?, *json, print_upstreams)?;
        }
        ProxyCommand::Remove { name, json } => {
            let answer = ask(Method::DELETE, of(name, ""), None)?;
            show(&answer, *json, |it| anstream::println!("{} is removed", text(&it["name"])))?;
        }
        ProxyCommand::Reconnect { name, session, json } => {
            let body = json!({ "session_id": session });
            let answer = ask(Method::POST, of(name, "/reconnect"), Some(&body))?;
            show(&answer, *json, |upstream| print_upstream(name, upstream))?;
        }
        ProxyCommand::Tools { name: None, json } => {
            show(&ask(Method::GET, "tools".to_owned(), None)?, *json, print_tools)?;
        }
        ProxyCommand::Tools { name: Some(name), json } => {
            show(&ask(Method::GET, of(name, "/tools"), None)?, *json, print_pins)?;
        }
        ProxyCommand::Accept { name, tool, digest, decided_by, note, json } => {
            let digest = match digest {
                Some(digest) => digest.clone(),
                None => seen(&ask(Method::GET, of(name, "/tools"), None)?.json()?, tool)?,
            };
            let body = json!({ "digest": digest, "decided_by": decided_by, "note": note });
            let path = of(name, &format!("/tools/{}/accept", percent_encoded(tool)));
            let answer = ask(Method::POST, path, Some(&body))?;
            show(&answer, *json, |it| {
                anstream::println!("{}.{} is trusted as it is now", text(&it["upstream"]), text(&it["tool"]));
            })?;
        }
        ProxyCommand::Call { tool, session, args, approval, json } => {
            let body = call_body(tool, session, args, approval.as_deref())?;
            let url = format!("{}/v1/proxy/call", server.url);
            return Ok(print_result(&client::ask_for_result(&url, server.key()?, &body)?, *json));
        }
        ProxyCommand::Calls { json } => {
            show(&ask(Method::GET, "calls".to_owned(), None)?, *json, print_calls)?;
        }
        ProxyCommand::Resolve { call_id, outcome, json } => {
            let path = format!("calls/{}/resolve", percent_encoded(call_id));
            let answer = ask(Method::POST, path, Some(&json!({ "outcome": outcome })))?;
            show(&answer, *json, |it| {
                anstream::println!("{}: {}", text(&it["call_id"]), text(&it["outcome"]));
            })?;
        }
        // Done before.
        ProxyCommand::Policy(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

impl RegisterArgs {
    fn body(&self) -> Value {
        let object = |pairs: &[(String, String)]| pairs.iter().cloned().collect::<BTreeMap<String, String>>();
        let mut body = Map::new();
        let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
        set("name", json!(self.name));
        if let Some(command) = &self.command {
            set("command", json!(command));
            set("args", json!(self.args));
            set("env", json!(object(&self.env)));
        } else {
            set("url", json!(self.address));
            set("headers", json!(object(&self.headers)));
        }
        set("session_id", json!(self.session));
        body.into()
    }
}

/// The body of a call. The arguments go as they were written, numbers digit by digit.
fn call_body(tool: &str, session: &str, args: &str, approval: Option<&str>) -> Result<String, String> {
    let arguments: Map<String, Value> =
        serde_json::from_str(args).map_err(|error| format!("--args: expected a JSON object: {error}"))?;
    drop(arguments);
    let (tool, session, approval) = (json!(tool), json!(session), json!(approval));
    Ok(format!(
        "{{\"tool\":{tool},\"session_id\":{session},\"approval_id\":{approval},\"arguments\":{args}}}"
    ))
}

/// The definition of a tool that was seen last.
fn seen(pins: &Value, tool: &str) -> Result<String, String> {
    let found = items(pins, "tools").find(|pin| pin["tool"] == tool);
    let digest = found.and_then(|pin| pin["seen"].as_str()).filter(|digest| !digest.is_empty());
    digest.map(str::to_owned).ok_or_else(|| format!("the upstream has no tool {tool}"))
}

fn print_registered(answer: &Value) {
    let name = text(&answer["name"]);
    if answer["healthy"] == true {
        anstream::println!("{name} is registered, with {} tools:", answer["tools_discovered"]);
        for tool in items(answer, "tool_names") {
            anstream::println!("  {name}.{}", text(tool));
        }
    } else {
        anstream::println!("{name} is registered, and was not reached: {}", text(&answer["error"]));
    }
}

fn print_upstreams(answer: &Value) {
    for (name, upstream) in answer["upstreams"].as_object().into_iter().flatten() {
        print_upstream(name, upstream);
    }
}

fn print_upstream(name: &str, upstream: &Value) {
    let standing = if upstream["healthy"] == true { "up" } else { "down" };
    anstream::println!(
        "{name:16}  {standing:4}  {} tools  {} calls, {} errors, {} ms  {}",
        upstream["tools"],
        upstream["total_calls"],
        upstream["total_errors"],
        text(&upstream["avg_latency_ms"]),
        text(&upstream["url"]),
    );
    let error = text(&upstream["error"]);
    if !error.is_empty() {
        anstream::println!("  {error}");
    }
    for tool in items(upstream, "quarantined") {
        anstream::println!("  quarantined: {} (haldir proxy tools {name})", text(tool));
    }
}

fn print_tools(answer: &Value) {
    for tool in items(answer, "tools") {
        let description = text(&tool["description"]);
        let beginning: String = description.lines().next().unwrap_or_default().chars().take(80).collect();
        anstream::println!("{}.{}  {beginning}", text(&tool["upstream"]), text(&tool["name"]));
    }
    anstream::println!("{} tools", answer["count"]);
}

fn print_pins(answer: &Value) {
    for pin in items(answer, "tools") {
        anstream::println!("{:12}  {}  {}", text(&pin["standing"]), text(&pin["seen"]), text(&pin["tool"]));
        if let Some(difference) = pin["difference"].as_object() {
            for (name, mark) in [("trusted", '-'), ("seen", '+')] {
                let shown = serde_json::to_string_pretty(&difference[name]).unwrap_or_default();
                for line in shown.lines() {
                    anstream::println!("    {mark} {line}");
                }
            }
        }
    }
}

fn print_calls(answer: &Value) {
    for call in items(answer, "calls") {
        let price = call.get("price").map(|price| format!("  {} set aside", text(price)));
        anstream::println!(
            "{}  {:11}  {}  {}{}",
            text(&call["call_id"]),
            text(&call["status"]),
            text(&call["agent_id"]),
            text(&call["tool"]),
            price.unwrap_or_default(),
        );
    }
    anstream::println!("{} without an outcome, {} unconfirmed", answer["count"], answer["unconfirmed"]);
}

/// Prints what a call gave: its texts, and whatever else there is as JSON.
fn print_result(answer: &Answer, as_json: bool) -> ExitCode {
    let result = answer.json().unwrap_or_default();
    if as_json {
        anstream::println!("{}", answer.body);
    } else {
        for block in items(&result, "content") {
            match block["text"].as_str() {
                Some(text) => anstream::println!("{text}"),
                None => anstream::println!("{block}"),
            }
        }
    }
    let first =
        result["content"][0]["text"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    if first.is_some_and(|first| first["status"] == "approval_required" && first["request_id"].is_string()) {
        return ExitCode::from(WAITS);
    }
    if result["isError"] == true { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
