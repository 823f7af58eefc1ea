//! Runs the public conformance suite and reads its verdicts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Where `tools/setup` puts the suite and the Node that runs it.
const NODE_HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.node");
const SUITE: &str = "node_modules/@modelcontextprotocol/conformance";

/// What the suite names the folder of a scenario after: `server-<scenario>-2026-07-28T09-30-00-000Z`.
const FOLDER_PREFIX: &str = "server-";
const FOLDER_TIME_LEN: usize = "-2026-07-28T09-30-00-000Z".len();

/// Scenarios that the suite has, and no revision requires or runs: an extension, for the stateless generation.
const BEYOND: [&str; 3] =
    ["sep-2640-skills-directory", "sep-2640-skills-enumeration", "sep-2640-skills-manifest"];
const BEYOND_REVISION: &str = "2026-07-28";

/// A check that does not pass: its scenario, what the suite calls it (every check of the scenario if empty), and why that is right.
pub(crate) type Excuse = (&'static str, &'static str, &'static str);

/// Which scenarios are run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scenarios {
    /// Everything that the revision requires, and what the suite runs beside it.
    All,
    /// These.
    Named(&'static [&'static str]),
}

/// What the suite found in one scenario.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    passed: usize,
    /// What failed and what the suite warned of: the check, and what was wrong.
    complaints: Vec<(String, String)>,
}

/// What the suite found for one revision of the protocol.
#[derive(Debug)]
pub(crate) struct Report {
    revision: &'static str,
    verdicts: BTreeMap<String, Verdict>,
}

/// Why the suite cannot run here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    let node = Path::new(NODE_HOME).join("package-lock.json");
    (!node.is_file()).then(|| format!("the conformance suite is not in {NODE_HOME}: run tools/setup first"))
}

/// Scenarios of a revision against the server at this URL.
///
/// # Errors
///
/// When the suite did not run, or not all of it.
pub(crate) fn run(url: &str, revision: &'static str, scenarios: Scenarios) -> Result<Report, String> {
    let home = Path::new(NODE_HOME);
    let output = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (mut runs, named, mut absent) = match scenarios {
        Scenarios::Named(named) => (Vec::new(), named, Vec::new()),
        Scenarios::All => {
            let beyond: &[&str] = if revision == BEYOND_REVISION { &BEYOND } else { &[] };
            (vec![vec!["--requirements", revision]], beyond, required(&home.join(SUITE), revision)?)
        }
    };
    runs.extend(named.iter().map(|name| vec!["--force", "--spec-version", revision, "--scenario", name]));
    absent.extend(named.iter().map(|name| (*name).to_owned()));
    let mut said = String::new();
    for arguments in runs {
        let run = Command::new(node(home)?)
            .arg(home.join(SUITE).join("dist/index.js"))
            .args(["server", "--url", url, "--output-dir"])
            .arg(output.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("node cannot be started: {error}"))?;
        said.extend([run.stdout, run.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()));
    }
    let verdicts = verdicts(output.path()).map_err(|error| format!("{error}\n{said}"))?;
    absent.retain(|scenario| !verdicts.contains_key(scenario));
    if absent.is_empty() {
        Ok(Report { revision, verdicts })
    } else {
        Err(format!("the suite did not run {}:\n{said}", absent.join(", ")))
    }
}

impl Report {
    /// One line for each scenario, and the score.
    pub(crate) fn text(&self, excuses: &[Excuse]) -> String {
        let mut text = String::new();
        for (scenario, verdict) in &self.verdicts {
            let word = match (verdict.complaints.len(), verdict.unexcused(scenario, excuses).count()) {
                (0, _) => "ok",
                (_, 0) => "fails as expected",
                _ => "FAILED",
            };
            let _ = writeln!(text, "    {scenario:<46} {:>3} checks  {word}", verdict.passed);
        }
        for (scenario, check, why) in excuses {
            let _ = writeln!(text, "    expected: {scenario} {check}: {why}");
        }
        let passed = self.verdicts.values().filter(|verdict| verdict.complaints.is_empty()).count();
        let checks: usize = self.verdicts.values().map(|verdict| verdict.passed).sum();
        let count = self.verdicts.len();
        let _ = writeln!(text, "  {}: {passed} of {count} scenarios, {checks} checks passed", self.revision);
        text
    }

    /// What is not as expected, in both directions.
    ///
    /// # Errors
    ///
    /// Everything that failed without an excuse, and every excuse without a failure.
    pub(crate) fn check(&self, excuses: &[Excuse]) -> Result<(), String> {
        let mut findings = Vec::new();
        for (scenario, verdict) in &self.verdicts {
            let unexcused = verdict.unexcused(scenario, excuses);
            findings.extend(unexcused.map(|(check, why)| format!("{scenario} {check}: {why}")));
        }
        for excuse in excuses {
            let (scenario, check, _) = excuse;
            let fails = self.verdicts.get(*scenario).is_some_and(|verdict| {
                verdict.complaints.iter().any(|it| excuses_it(excuse, scenario, &it.0))
            });
            if !fails {
                findings.push(format!("{scenario} {check} is expected to fail, and does not"));
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
    }
}

impl Verdict {
    fn unexcused(&self, scenario: &str, excuses: &[Excuse]) -> impl Iterator<Item = &(String, String)> {
        self.complaints
            .iter()
            .filter(move |(check, _)| !excuses.iter().any(|excuse| excuses_it(excuse, scenario, check)))
    }
}

fn excuses_it((excused, excused_check, _): &Excuse, scenario: &str, check: &str) -> bool {
    *excused == scenario && (excused_check.is_empty() || *excused_check == check)
}

/// The Node that was installed for this machine's processor.
fn node(home: &Path) -> Result<PathBuf, String> {
    ["x64", "arm64"]
        .map(|processor| home.join(format!("node_modules/node-linux-{processor}/bin/node")))
        .into_iter()
        .find(|node| node.is_file())
        .ok_or_else(|| format!("no Node in {}: run tools/setup again", home.display()))
}

/// The scenarios that a server must pass by the suite's own list: the items below `server:`.
fn required(suite: &Path, revision: &str) -> Result<Vec<String>, String> {
    let list = suite.join(format!("requirements/{revision}.yaml"));
    let list = fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let below = list.lines().skip_while(|line| *line != "server:").skip(1);
    let items = below.map_while(|line| line.strip_prefix("  - ")).map(|item| item.trim().to_owned());
    let items: Vec<String> = items.collect();
    if items.is_empty() { Err(format!("{revision} requires nothing of a server?")) } else { Ok(items) }
}

/// What the suite wrote: a folder for each scenario, with the checks that it made.
fn verdicts(output: &Path) -> Result<BTreeMap<String, Verdict>, String> {
    let mut verdicts = BTreeMap::new();
    for folder in fs::read_dir(output).map_err(|error| error.to_string())? {
        let folder = folder.map_err(|error| error.to_string())?;
        let name = folder.file_name().to_string_lossy().into_owned();
        let scenario = name
            .strip_prefix(FOLDER_PREFIX)
            .and_then(|name| name.get(..name.len().checked_sub(FOLDER_TIME_LEN)?))
            .ok_or_else(|| format!("{name} is not what the suite calls its folders"))?;
        let checks =
            fs::read(folder.path().join("checks.json")).map_err(|error| format!("{name}: {error}"))?;
        let checks: Vec<Value> =
            serde_json::from_slice(&checks).map_err(|error| format!("{name}: {error}"))?;
        verdicts.insert(scenario.to_owned(), verdict(&checks));
    }
    Ok(verdicts)
}

fn verdict(checks: &[Value]) -> Verdict {
    let mut verdict = Verdict::default();
    for check in checks {
        match check["status"].as_str() {
            Some("SUCCESS") => verdict.passed += 1,
            Some("INFO" | "SKIPPED") => {}
            _ => {
                let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
                verdict.complaints.push((text("id"), text("errorMessage")));
            }
        }
    }
    verdict
}
