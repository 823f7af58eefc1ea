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

/// A scenario that does not pass, and why that is right.
pub(crate) type Excuse = (&'static str, &'static str);

/// What the suite found in one scenario.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    passed: usize,
    /// What failed and what the suite warned of, in its words.
    complaints: Vec<String>,
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

/// Everything that a revision requires, and what the suite runs beside it, against the server at this URL.
///
/// # Errors
///
/// When the suite did not run, or not all of it.
pub(crate) fn run(url: &str, revision: &'static str) -> Result<Report, String> {
    let home = Path::new(NODE_HOME);
    let output = tempfile::tempdir().map_err(|error| error.to_string())?;
    let beyond: &[&str] = if revision == BEYOND_REVISION { &BEYOND } else { &[] };
    let beyond_arguments = |scenario| vec!["--force", "--spec-version", revision, "--scenario", scenario];
    let mut said = String::new();
    for arguments in [vec!["--requirements", revision]]
        .into_iter()
        .chain(beyond.iter().map(|scenario| beyond_arguments(scenario)))
    {
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
    let mut absent = required(&home.join(SUITE), revision)?;
    absent.extend(beyond.iter().map(|scenario| (*scenario).to_owned()));
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
            let excuse = excuses.iter().find(|(excused, _)| excused == scenario);
            let word = match (verdict.complaints.is_empty(), excuse) {
                (true, _) => "ok".to_owned(),
                (false, None) => "FAILED".to_owned(),
                (false, Some((_, why))) => format!("expected failure: {why}"),
            };
            let _ = writeln!(text, "    {scenario:<46} {:>3} checks  {word}", verdict.passed);
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
    /// Every scenario that failed without an excuse, and every excuse without a failure.
    pub(crate) fn check(&self, excuses: &[Excuse]) -> Result<(), String> {
        let mut findings = Vec::new();
        for (scenario, verdict) in &self.verdicts {
            if !verdict.complaints.is_empty() && !excuses.iter().any(|(excused, _)| excused == scenario) {
                findings.push(format!("{scenario}:\n  {}", verdict.complaints.join("\n  ")));
            }
        }
        for (excused, _) in excuses {
            match self.verdicts.get(*excused) {
                Some(verdict) if verdict.complaints.is_empty() => {
                    findings.push(format!("{excused} passes: take it off the list of expected failures"));
                }
                Some(_) => {}
                None => findings.push(format!("{excused} is excused, but there is no such scenario")),
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
    }
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
            _ => verdict.complaints.push(format!("{}: {}", check["id"], check["errorMessage"])),
        }
    }
    verdict
}
