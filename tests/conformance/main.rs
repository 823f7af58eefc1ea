//! Does the public conformance suite find what it asks of a server, at Haldir's transport and through its proxy?
//!
//! `tools/setup` installs the suite. Each run prints a line for each scenario and the score. `HALDIR_WITHOUT_CONFORMANCE=1`
//! leaves it out where there is no npm.

mod fixture;
mod forwarder;
mod mount;
mod suite;

use std::io::Write as _;
use std::process::ExitCode;

use haldir::mcp::bridge::Mode;
use libtest_mimic::{Arguments, Failed, Trial};

use suite::Excuse;

/// The revisions of the protocol that the suite knows requirements of: the last of the older generation, and the first of
/// the stateless one.
const OLDER: &str = "2025-11-25";
const STATELESS: &str = "2026-07-28";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let is_left_out = std::env::var_os("HALDIR_WITHOUT_CONFORMANCE").is_some();
    let trials = [
        Trial::test("transport_2025_11_25", || transport(Mode::Sessions, OLDER, &[])),
        Trial::test("transport_2026_07_28", || transport(Mode::Sessions, STATELESS, &[])),
        Trial::test("transport_without_sessions_2026_07_28", || transport(Mode::Stateless, STATELESS, &[])),
    ];
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(is_left_out)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The fixture at Haldir's own HTTP server: its transport, and everything that is around every request.
fn transport(mode: Mode, revision: &'static str, excuses: &[Excuse]) -> Result<(), Failed> {
    let server = mount::serve(mode);
    let authorization = ("authorization", format!("Bearer {}", server.key));
    judge(
        "transport",
        &format!("http://{}", server.address),
        mount::PATH,
        vec![authorization],
        revision,
        excuses,
    )
}

/// Runs the suite against an endpoint that takes these headers, prints what it found, and compares that with what is
/// expected.
fn judge(
    what: &str,
    origin: &str,
    path: &str,
    headers: Vec<(&'static str, String)>,
    revision: &'static str,
    excuses: &[Excuse],
) -> Result<(), Failed> {
    if let Some(why) = suite::missing() {
        return Err(why.into());
    }
    let forwarder = forwarder::serve(origin.to_owned(), headers);
    let report = suite::run(&format!("http://{forwarder}{path}"), revision)?;
    let mut out = std::io::stdout().lock();
    write!(out, "  {what}, {revision}\n{}", report.text(excuses)).map_err(|error| error.to_string())?;
    Ok(report.check(excuses)?)
}
