//! `haldir compliance`: evidence for auditors.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::{self, Answer, Connection, Method, percent_encoded};
use super::complain;
use crate::config;
use crate::domain::compliance::Cadence;
use crate::domain::time::Timestamp;
use crate::operations::compliance::iso;

/// What to do about evidence.
#[derive(Debug, Subcommand)]
pub enum ComplianceCommand {
    /// Fetch the evidence pack of a period
    ///
    /// Exit codes: 0 written; 2 could not be fetched or written.
    Evidence(EvidenceArgs),
    /// Tell how ready the tenant is to show evidence
    Score(ScoreArgs),
    /// Have packs sent regularly
    #[command(subcommand)]
    Schedules(ScheduleCommand),
}

/// Which pack.
#[derive(Debug, Args)]
pub struct EvidenceArgs {
    /// The form of the pack
    #[arg(long, value_enum, default_value_t = Form::Markdown)]
    format: Form,
    /// Where the period begins: unix seconds or an ISO 8601 time [default: 90 days before its end]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Where it ends; that moment does not belong to it [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// As it was at that moment: unix seconds, an ISO 8601 time, or seq:N
    #[arg(long, value_name = "MOMENT")]
    as_of: Option<String>,
    /// File to write to [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The forms of a pack.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    #[value(alias = "md")]
    Markdown,
    Json,
}

/// How to show the score.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// As it was at that moment: unix seconds, an ISO 8601 time, or seq:N
    #[arg(long, value_name = "MOMENT")]
    as_of: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What to do with schedules.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List schedules, newest first, and how their last runs went
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a schedule; its first pack is due at once
    Create {
        /// A name for people
        #[arg(long)]
        name: String,
        /// How often
        #[arg(long, value_parser = Cadence::ALL.map(Cadence::name))]
        cadence: String,
        /// Where to: webhook:<id, name, URL or all>, or `email:<address>`
        #[arg(long)]
        delivery: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop a schedule
    Delete {
        /// The schedule's id
        schedule_id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does what the command line says.
#[must_use]
pub fn run(command: &ComplianceCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    let done = config::data_dir(None).and_then(|data_dir| {
        let server = Server(Connection::find(url, key, &data_dir));
        match command {
            ComplianceCommand::Evidence(arguments) => evidence(&server, arguments),
            ComplianceCommand::Score(arguments) => score(&server, arguments),
            ComplianceCommand::Schedules(command) => schedules(&server, command),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            // What could not be fetched is not evidence of anything.
            ExitCode::from(if matches!(command, ComplianceCommand::Evidence(_)) { 2 } else { 1 })
        }
    }
}

struct Server(Connection);

impl Server {
    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        client::ask(method, &format!("{}/v1/compliance/{path}", self.0.url), self.0.key()?, body)
    }
}

fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    let given: Vec<_> = given.map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

fn evidence(server: &Server, arguments: &EvidenceArgs) -> Result<(), String> {
    let form = match arguments.format {
        Form::Markdown => "markdown",
        Form::Json => "json",
    };
    let query = query(&[
        ("format", Some(form)),
        ("since", arguments.since.as_deref()),
        ("until", arguments.until.as_deref()),
        ("as_of", arguments.as_of.as_deref()),
    ]);
    let answer = server.ask(Method::GET, &format!("evidence{query}"), None)?;
    let Some(path) = &arguments.out else {
        anstream::print!("{}", answer.body);
        if matches!(arguments.format, Form::Json) {
            anstream::println!();
        }
        return Ok(());
    };
    std::fs::write(path, &answer.body).map_err(|error| format!("{}: {error}", path.display()))?;
    let digest = answer.headers.get("X-Haldir-Evidence-Digest").and_then(|digest| digest.to_str().ok());
    anstream::println!("{} written, digest {}", path.display(), digest.unwrap_or("not told"));
    Ok(())
}

fn score(server: &Server, arguments: &ScoreArgs) -> Result<(), String> {
    let query = query(&[("as_of", arguments.as_of.as_deref())]);
    let answer = server.ask(Method::GET, &format!("score{query}"), None)?;
    if arguments.json {
        anstream::println!("{}", answer.body);
        return Ok(());
    }
    let score = answer.json()?;
    anstream::println!(
        "score {} of 100: {} passed, {} warned of, {} failed",
        score["score"],
        score["passing"],
        score["warning"],
        score["failing"]
    );
    for criterion in score["criteria"].as_array().into_iter().flatten() {
        let text = |name: &str| criterion[name].as_str().unwrap_or_default();
        anstream::println!(
            "  {:4}  {}  {:16}  {}",
            text("state"),
            text("control"),
            text("key"),
            text("reason")
        );
        if !text("remediation").is_empty() {
            anstream::println!("        {}", text("remediation"));
        }
    }
    Ok(())
}

fn schedules(server: &Server, command: &ScheduleCommand) -> Result<(), String> {
    match command {
        ScheduleCommand::List { json } => {
            let answer = server.ask(Method::GET, "schedules", None)?.json()?;
            if *json {
                anstream::println!("{}", answer["schedules"]);
                return Ok(());
            }
            let schedules = answer["schedules"].as_array().map(Vec::as_slice).unwrap_or_default();
            if schedules.is_empty() {
                anstream::println!("no schedules");
            }
            schedules.iter().for_each(print_schedule);
        }
        ScheduleCommand::Create { name, cadence, delivery, json } => {
            let body = json!({ "name": name, "cadence": cadence, "delivery": delivery });
            let answer = server.ask(Method::POST, "schedules", Some(&body))?;
            if *json {
                anstream::println!("{}", answer.body);
            } else {
                let created = answer.json()?;
                let id = created["schedule_id"].as_str().unwrap_or_default();
                anstream::println!("{id} sends a pack to {delivery}, {cadence}");
            }
        }
        ScheduleCommand::Delete { schedule_id, json } => {
            let path = format!("schedules/{}", percent_encoded(schedule_id));
            server.ask(Method::DELETE, &path, None)?;
            if *json {
                anstream::println!("{}", json!({ "deleted": true, "schedule_id": schedule_id }));
            } else {
                anstream::println!("{schedule_id} is dropped");
            }
        }
    }
    Ok(())
}

fn print_schedule(schedule: &Value) {
    let text = |name: &str| schedule[name].as_str().unwrap_or_default();
    let time = |name: &str| {
        let moment = Timestamp::parse(&schedule[name].to_string()).filter(|moment| moment.micros() > 0);
        moment.map_or_else(|| "never".to_owned(), iso)
    };
    anstream::println!("{}  {}", text("schedule_id"), text("name"));
    anstream::println!("  {} to {}", text("cadence"), text("delivery"));
    anstream::println!("  last delivered {}, next due {}", time("last_run_at"), time("next_due"));
    let status = text("last_status");
    anstream::println!(
        "  delivered {} times, failed {} times{}{}",
        schedule["run_count"],
        schedule["fail_count"],
        if status.is_empty() { String::new() } else { format!("; last: {status}") },
        if text("last_error").is_empty() { String::new() } else { format!(" ({})", text("last_error")) },
    );
}
