//! `haldir webhooks`: who is told of what, and what arrived.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{self, Connection, Method, percent_encoded};
use super::complain;
use crate::config;
use crate::domain::time::Timestamp;
use crate::operations::webhooks::GRACE_S_DEFAULT;

/// What to do with webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// List webhooks, and how much of what they were told arrived
    List(Shown),
    /// Tell a URL of events from now on, and show the secret that signs, once
    Add(AddArgs),
    /// Tell a webhook nothing more
    Remove(One),
    /// Sign with a new secret, and show it, once
    Rotate(RotateArgs),
    /// Send a webhook a test
    Test(One),
    /// List attempts to deliver, newest first
    Deliveries(DeliveriesArgs),
    /// List what was given up, newest first
    DeadLetters(DeadLettersArgs),
    /// Try again to deliver what was given up
    Redeliver(RedeliverArgs),
}

/// How to show it.
#[derive(Debug, Args)]
pub struct Shown {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which webhook.
#[derive(Debug, Args)]
pub struct One {
    /// The webhook's number
    webhook_id: u64,
    #[command(flatten)]
    shown: Shown,
}

/// The new webhook.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Whom to tell
    url: String,
    /// A name for people
    #[arg(long, default_value = "")]
    name: String,
    /// Of what: names of events, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    events: Vec<String>,
    #[command(flatten)]
    shown: Shown,
}

/// Which secret.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The webhook's number
    webhook_id: u64,
    /// Seconds for which the old secret signs too, 60 to 604800
    #[arg(long, default_value_t = GRACE_S_DEFAULT)]
    grace_seconds: u64,
    #[command(flatten)]
    shown: Shown,
}

/// Which deliveries.
#[derive(Debug, Args)]
pub struct DeliveriesArgs {
    /// Only of this event
    #[arg(long)]
    event_id: Option<String>,
    /// Only to this webhook
    #[arg(long)]
    webhook_id: Option<u64>,
    /// Only those that ended so
    #[arg(long, value_parser = ["delivered", "will_retry", "dead"])]
    status: Option<String>,
    /// At most this many, 1 to 500
    #[arg(long, default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    shown: Shown,
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    /// Only of this webhook
    #[arg(long)]
    webhook_id: Option<u64>,
    /// At most this many, 1 to 500
    #[arg(long, default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    shown: Shown,
}

/// What to deliver again.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct RedeliverArgs {
    /// The event
    #[arg(group = "what")]
    event_id: Option<String>,
    /// Everything that was given up, the newest 500 events of it
    #[arg(long, group = "what")]
    all: bool,
    /// Only to this webhook [default: to all that were not told]
    #[arg(long)]
    webhook_id: Option<u64>,
    #[command(flatten)]
    shown: Shown,
}

/// Does what the command line says.
#[must_use]
pub fn run(command: &WebhookCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    let done = config::data_dir(None).and_then(|data_dir| {
        let server = Server(Connection::find(url, key, &data_dir));
        match command {
            WebhookCommand::List(shown) => list(&server, shown),
            WebhookCommand::Add(arguments) => add(&server, arguments),
            WebhookCommand::Remove(one) => remove(&server, one),
            WebhookCommand::Rotate(arguments) => rotate(&server, arguments),
            WebhookCommand::Test(one) => test(&server, one),
            WebhookCommand::Deliveries(arguments) => deliveries(&server, arguments),
            WebhookCommand::DeadLetters(arguments) => dead_letters(&server, arguments),
            WebhookCommand::Redeliver(arguments) => redeliver(&server, arguments),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

struct Server(Connection);

impl Server {
    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        client::ask(method, &format!("{}/v1/webhooks{path}", self.0.url), self.0.key()?, body)?.json()
    }
}

fn list(server: &Server, shown: &Shown) -> Result<(), String> {
    let answer = server.ask(Method::GET, "", None)?;
    show(shown, &answer, || {
        for hook in rows(&answer["webhooks"], "no webhooks") {
            let events = hook["events"].as_array().into_iter().flatten().filter_map(Value::as_str);
            anstream::println!(
                "{:>4}  {}  {}  {}  delivered {}, given up {}, waiting {}",
                hook["webhook_id"],
                text(&hook["url"]),
                text(&hook["name"]),
                events.collect::<Vec<_>>().join(","),
                hook["fire_count"],
                hook["fail_count"],
                hook["pending"],
            );
        }
    });
    Ok(())
}

fn add(server: &Server, arguments: &AddArgs) -> Result<(), String> {
    let AddArgs { url, name, events, shown } = arguments;
    let answer =
        server.ask(Method::POST, "", Some(&json!({ "url": url, "name": name, "events": events })))?;
    show(shown, &answer, || {
        anstream::println!("webhook {} tells {}", answer["webhook_id"], text(&answer["url"]));
        anstream::println!("secret            {}", text(&answer["secret"]));
        anstream::println!("standard webhooks {}", text(&answer["secret_standard"]));
        anstream::println!("{}", text(&answer["message"]));
    });
    Ok(())
}

fn remove(server: &Server, one: &One) -> Result<(), String> {
    let answer = server.ask(Method::DELETE, &format!("/{}", one.webhook_id), None)?;
    show(&one.shown, &answer, || anstream::println!("webhook {} is told nothing more", one.webhook_id));
    Ok(())
}

fn rotate(server: &Server, arguments: &RotateArgs) -> Result<(), String> {
    let path = format!("/{}/rotate-secret?grace_seconds={}", arguments.webhook_id, arguments.grace_seconds);
    let answer = server.ask(Method::POST, &path, None)?;
    show(&arguments.shown, &answer, || {
        anstream::println!("new secret        {}", text(&answer["secret"]));
        anstream::println!("standard webhooks {}", text(&answer["secret_standard"]));
        anstream::println!("previous secret   {}", text(&answer["secret_prev"]));
        anstream::println!("signs too until   {}", time(&answer["secret_prev_expires_at"]));
    });
    Ok(())
}

fn test(server: &Server, one: &One) -> Result<(), String> {
    let answer = server.ask(Method::POST, &format!("/{}/test", one.webhook_id), None)?;
    show(&one.shown, &answer, || {
        let event_id = text(&answer["event_id"]);
        anstream::println!("on its way; see haldir webhooks deliveries --event-id {event_id}");
    });
    Ok(())
}

fn deliveries(server: &Server, arguments: &DeliveriesArgs) -> Result<(), String> {
    let webhook_id = arguments.webhook_id.map(|id| id.to_string());
    let query = query(&[
        ("limit", Some(&arguments.limit.to_string())),
        ("event_id", arguments.event_id.as_ref()),
        ("webhook_id", webhook_id.as_ref()),
        ("status", arguments.status.as_ref()),
    ]);
    let answer = server.ask(Method::GET, &format!("/deliveries{query}"), None)?;
    show(&arguments.shown, &answer, || {
        for row in rows(&answer["deliveries"], "no deliveries") {
            anstream::println!(
                "{}  {:24}  {:10}  {:>3}  try {}  {}  {}  {}",
                time(&row["created_at"]),
                text(&row["event_type"]),
                text(&row["status"]),
                row["status_code"],
                row["attempt"],
                text(&row["event_id"]),
                text(&row["webhook_url"]),
                text(&row["error"]),
            );
        }
    });
    Ok(())
}

fn dead_letters(server: &Server, arguments: &DeadLettersArgs) -> Result<(), String> {
    let answer = dead(server, arguments.webhook_id, arguments.limit)?;
    show(&arguments.shown, &answer, || {
        for row in rows(&answer["dead_letters"], "nothing was given up") {
            anstream::println!(
                "{}  {:24}  {} tries  {}  {}  {}",
                time(&row["failed_at"]),
                text(&row["event_type"]),
                row["attempts"],
                text(&row["event_id"]),
                text(&row["webhook_url"]),
                text(&row["error"]),
            );
        }
    });
    Ok(())
}

fn dead(server: &Server, webhook_id: Option<u64>, limit: u32) -> Result<Value, String> {
    let webhook_id = webhook_id.map(|id| id.to_string());
    let query = query(&[("limit", Some(&limit.to_string())), ("webhook_id", webhook_id.as_ref())]);
    server.ask(Method::GET, &format!("/dead-letters{query}"), None)
}

fn redeliver(server: &Server, arguments: &RedeliverArgs) -> Result<(), String> {
    let event_ids = if let Some(event_id) = &arguments.event_id {
        vec![event_id.clone()]
    } else {
        let letters = dead(server, arguments.webhook_id, 500)?;
        let letters = letters["dead_letters"].as_array().cloned().unwrap_or_default();
        let event_ids: BTreeSet<String> = letters.iter().map(|it| text(&it["event_id"])).collect();
        event_ids.into_iter().collect()
    };
    let webhook_id = arguments.webhook_id.map(|id| id.to_string());
    let query = query(&[("webhook_id", webhook_id.as_ref())]);
    let mut answers = Vec::with_capacity(event_ids.len());
    for event_id in &event_ids {
        let path = format!("/deliveries/{}/redeliver{query}", percent_encoded(event_id));
        answers.push(server.ask(Method::POST, &path, None)?);
    }
    show(&arguments.shown, &json!({ "redelivered": answers }), || {
        let count: usize = answers.iter().map(|it| it["webhook_ids"].as_array().map_or(0, Vec::len)).sum();
        anstream::println!("{count} deliveries of {} events are tried again", event_ids.len());
    });
    Ok(())
}

fn query(parameters: &[(&str, Option<&String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    let given: Vec<_> = given.map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

fn show(shown: &Shown, answer: &Value, print: impl FnOnce()) {
    if shown.json {
        anstream::println!("{answer}");
    } else {
        print();
    }
}

fn rows<'a>(list: &'a Value, otherwise: &str) -> &'a [Value] {
    let rows = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        anstream::println!("{otherwise}");
    }
    rows
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A moment as people read it.
fn time(value: &Value) -> String {
    Timestamp::parse(&value.to_string()).map(|moment| moment.to_string()).unwrap_or_default()
}
