//! Does the public conformance suite find what it asks of a server, at Haldir's transport and through its proxy?
//!
//! `tools/setup` installs the suite. Each run prints a line for each scenario and the score. `HALDIR_WITHOUT_CONFORMANCE=1`
//! leaves it out where there is no npm. With the argument `stdio` the program is the fixture itself, over stdin and stdout.

mod fixture;
mod forwarder;
mod mount;
mod proxied;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "../it/server.rs"]
mod server;
mod suite;

use std::io::Write as _;
use std::process::ExitCode;

use haldir::mcp::bridge::Mode;
use libtest_mimic::{Arguments, Failed, Trial};

use proxied::{Proxied, Transport};
use suite::{Excuse, Scenarios};

/// The revisions of the protocol that the suite knows requirements of: the last of the older generation, and the first of
/// the stateless one.
const OLDER: &str = "2025-11-25";
const STATELESS: &str = "2026-07-28";
/// The argument with which this program is the fixture.
const STDIO: &str = "stdio";

/// What does not pass through the proxy, and why.
const THROUGH_THE_PROXY: [(&str, &[Excuse]); 2] = [(OLDER, &[]), (STATELESS, &[])];

/// What can be asked of Haldir's own tools: the other scenarios are about tools, prompts and resources of the suite's.
const ASKED_OF_HALDIR: [(&str, &[&str], &[Excuse]); 2] = [
    (
        OLDER,
        &[
            "server-initialize",
            "ping",
            "completion-complete",
            "tools-list",
            "resources-list",
            "prompts-list",
            "dns-rebinding-protection",
        ],
        &[],
    ),
    (
        STATELESS,
        &[
            "server-stateless",
            "completion-complete",
            "tools-list",
            "resources-list",
            "sep-2164-resource-not-found",
            "prompts-list",
            "caching",
            "dns-rebinding-protection",
            "http-header-validation",
            "input-required-result-unsupported-methods",
        ],
        &[
            (
                "server-stateless",
                "sep-2575-server-rejects-undeclared-capability",
                "no tool of Haldir's needs a capability of the client",
            ),
            (
                "server-stateless",
                "sep-2575-missing-capability-http-400",
                "no tool of Haldir's needs a capability of the client",
            ),
        ],
    ),
];

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(STDIO) {
        return if fixture::serve_stdio().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut arguments = Arguments::from_args();
    // Some scenarios measure time, and each run has a server, the suite and a forwarder.
    arguments.test_threads.get_or_insert(1);
    let is_left_out = std::env::var_os("HALDIR_WITHOUT_CONFORMANCE").is_some();
    let trials = [
        Trial::test("transport_2025_11_25", || transport(Mode::Sessions, OLDER)),
        Trial::test("transport_2026_07_28", || transport(Mode::Sessions, STATELESS)),
        Trial::test("transport_without_sessions_2026_07_28", || transport(Mode::Stateless, STATELESS)),
        Trial::test("haldir_itself", haldir_itself),
        Trial::test("proxy_to_http_2025_11_25", || through_proxy(Transport::Http, OLDER)),
        Trial::test("proxy_to_http_2026_07_28", || through_proxy(Transport::Http, STATELESS)),
        Trial::test("proxy_to_stdio_2025_11_25", || through_proxy(Transport::Stdio, OLDER)),
        Trial::test("proxy_to_stdio_2026_07_28", || through_proxy(Transport::Stdio, STATELESS)),
        Trial::test("tasks_behind_the_proxy", || Ok(proxied::check_tasks()?)),
    ];
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(is_left_out)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The fixture at Haldir's own HTTP server: its transport, and everything that is around every request.
fn transport(mode: Mode, revision: &'static str) -> Result<(), Failed> {
    let server = mount::serve(mode);
    let endpoint = Endpoint {
        what: "the fixture at Haldir's transport",
        origin: format!("http://{}", server.address),
        path: mount::PATH,
        headers: vec![("authorization", format!("Bearer {}", server.key))],
    };
    endpoint.judge(revision, Scenarios::All, &[])
}

/// The server that users start, with its own tools.
fn haldir_itself() -> Result<(), Failed> {
    let home = server::Home::new();
    let server = home.serve();
    for (revision, scenarios, excuses) in ASKED_OF_HALDIR {
        let endpoint = Endpoint {
            what: "Haldir's own tools",
            origin: format!("http://{}", server.address()),
            path: "/mcp",
            headers: vec![("authorization", format!("Bearer {}", server.key()))],
        };
        endpoint.judge(revision, Scenarios::Named(scenarios), excuses)?;
    }
    server.stop();
    Ok(())
}

/// The fixture behind the proxy, with everything on that is between: a key, a session, a secret that opens the upstream, and
/// intent and outcome of every call on a ledger that is verified afterwards.
fn through_proxy(transport: Transport, revision: &'static str) -> Result<(), Failed> {
    let proxied = Proxied::start(transport);
    let endpoint = Endpoint {
        what: match transport {
            Transport::Http => "the fixture over HTTP behind the proxy",
            Transport::Stdio => "the fixture over stdio behind the proxy",
        },
        origin: proxied.origin(),
        path: proxied::PATH,
        headers: vec![
            ("authorization", format!("Bearer {}", proxied.key())),
            ("x-session-id", proxied.session_id.clone()),
        ],
    };
    let excuses =
        THROUGH_THE_PROXY.iter().find(|(of, _)| *of == revision).map_or(&[][..], |(_, excuses)| excuses);
    endpoint.judge(revision, Scenarios::All, excuses)?;
    let calls = proxied.check()?;
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "    {calls} calls, each with intent and outcome").map_err(|error| error.to_string())?)
}

/// What the suite is pointed at.
struct Endpoint {
    what: &'static str,
    origin: String,
    path: &'static str,
    /// Headers that it takes and the suite cannot be told to send.
    headers: Vec<(&'static str, String)>,
}

impl Endpoint {
    /// Runs the suite, prints what it found, and compares that with what is expected.
    fn judge(self, revision: &'static str, scenarios: Scenarios, excuses: &[Excuse]) -> Result<(), Failed> {
        if let Some(why) = suite::missing() {
            return Err(why.into());
        }
        let Self { what, origin, path, headers } = self;
        let forwarder = forwarder::serve(origin, headers);
        let report = suite::run(&format!("http://{forwarder}{path}"), revision, scenarios)?;
        let mut out = std::io::stdout().lock();
        write!(out, "  {what}, {revision}\n{}", report.text(excuses)).map_err(|error| error.to_string())?;
        Ok(report.check(excuses)?)
    }
}
