//! `haldir budgets`: caps on what sessions, agents and the tenant may spend.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::client::{self, Connection, Method, percent_encoded};
use super::complain;
use super::shown::{amount, show, text};
use crate::config;
use crate::operations::wire::Usd;

/// What to do about budgets.
#[derive(Debug, Subcommand)]
pub enum BudgetsCommand {
    /// List every cap with how far it is used
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set a cap, or lift it
    Set(SetArgs),
    /// Tell what sessions, agents or the tenant spent
    Report {
        /// session, agent or tenant
        #[arg(long, default_value = "tenant")]
        level: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A cap.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// session, agent or tenant
    level: String,
    /// The session or the agent; none for the tenant
    #[arg(default_value = "")]
    name: String,
    /// hour, day or month of the calendar (UTC), or life
    #[arg(long, default_value = "life")]
    window: String,
    /// The most that may be spent
    #[arg(long, required_unless_present = "none", value_parser = amount)]
    limit: Option<Usd>,
    /// Lift the cap
    #[arg(long, conflicts_with = "limit")]
    none: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does it. Exits with 1 when the server says no.
#[must_use]
pub fn run(command: &BudgetsCommand, url: Option<String>, key: Option<String>) -> ExitCode {
    let work = || carry_out(command, &Connection::find(url, key, &config::data_dir(None)?));
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: &BudgetsCommand, server: &Connection) -> Result<(), String> {
    let ask = |method, path: &str, body: Option<&Cap<'_>>| {
        client::ask(method, &format!("{}/v1/budgets{path}", server.url), server.key()?, body)
    };
    let (answer, as_json) = match command {
        BudgetsCommand::List { json } => (ask(Method::GET, "", None)?, *json),
        BudgetsCommand::Set(SetArgs { level, name, window, limit, json, .. }) => {
            let body = Cap { level, name, window, limit: limit.as_ref() };
            (ask(Method::PUT, "", Some(&body))?, *json)
        }
        BudgetsCommand::Report { level, json } => {
            (ask(Method::GET, &format!("/report?level={}", percent_encoded(level)), None)?, *json)
        }
    };
    show(&answer, as_json, |answer| print(command, answer))
}

/// A cap, as the server reads it.
#[derive(Serialize)]
struct Cap<'a> {
    level: &'a str,
    name: &'a str,
    window: &'a str,
    limit: Option<&'a Usd>,
}

fn print(command: &BudgetsCommand, answer: &Value) {
    match command {
        BudgetsCommand::List { .. } => {
            for cap in answer["budgets"].as_array().into_iter().flatten() {
                anstream::println!(
                    "{:8} {:36} {:6} {} of {} spent, {} held, {} left",
                    text(&cap["level"]),
                    text(&cap["name"]),
                    text(&cap["window"]),
                    text(&cap["spent"]),
                    text(&cap["limit"]),
                    text(&cap["held"]),
                    text(&cap["remaining"]),
                );
            }
        }
        BudgetsCommand::Set(_) if answer["unlimited"] == true => anstream::println!("the cap is lifted"),
        BudgetsCommand::Set(_) => {
            anstream::println!("at most {} for each {}", text(&answer["limit"]), text(&answer["window"]));
        }
        BudgetsCommand::Report { .. } => {
            for row in answer["rows"].as_array().into_iter().flatten() {
                anstream::println!(
                    "{:36} hour {}  day {}  month {}  in all {}  held {}",
                    text(&row["name"]),
                    text(&row["hour"]),
                    text(&row["day"]),
                    text(&row["month"]),
                    text(&row["life"]),
                    text(&row["held"]),
                );
            }
        }
    }
}
