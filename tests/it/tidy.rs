//! Is the house in order? Reads the source tree: who uses whom, which names belong where, and what the documents promise.

use std::fs;
use std::path::Path;

use source::{File, Name, is_word_char};

mod commands;
mod source;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The rooms. Each uses itself and what stands before it: `mcp` calls the REST edge, so that its rules hold there, too.
const ORDER: [&str; 13] = [
    "domain",
    "format",
    "store",
    "ledger",
    "views",
    "vault",
    "outbound",
    "proxy",
    "operations",
    "workers",
    "http",
    "mcp",
    "cli",
];
/// Beside the rooms: these use nobody, and only [`ENTRANCE`] uses them.
const ASIDE: [&str; 2] = ["config", "telemetry"];
/// The room through which the program is entered.
const ENTRANCE: &str = "cli";
/// Rooms that know no clock, chance, disk, network, thread or log.
const PURE: [&str; 2] = ["domain", "format"];
/// Lines of a file at most. Longer ones hold more than one idea.
const LINES_MAX: usize = 600;

/// Names that a pure room must not use.
const IMPURE: [&str; 17] = [
    "std::time::SystemTime",
    "std::time::Instant",
    "std::fs",
    "std::net",
    "std::env",
    "std::io",
    "std::process",
    "std::thread",
    "tokio",
    "tracing",
    "serde_json",
    "sled",
    "actix_web",
    "getrandom",
    "async",
    "f32",
    "f64",
];

/// Names that belong to one place: the name, and where it may stand (a room or a file).
const AT_HOME: [(&str, &[&str]); 9] = [
    ("actix_web", &["http", "mcp", "cli"]),
    ("actix_http", &["mcp/inner.rs"]),
    ("actix_service", &["mcp/inner.rs"]),
    ("sled", &["store/embedded.rs"]),
    ("bincode", &["format/v1", "format/v1.rs", "format/v2.rs", "ledger/snapshot.rs"]),
    ("getrandom", &["ledger/random.rs"]),
    ("reqwest", &["outbound", "cli/client.rs", "cli/mcp/remote.rs"]),
    ("lettre", &["outbound"]),
    ("rmcp", &["mcp", "proxy", "cli/mcp/serve.rs", "cli/mcp/proxy.rs"]),
];

#[test]
fn every_room_uses_only_those_before_it() {
    check_all(direction);
}

#[test]
fn rules_and_bytes_are_pure() {
    check_all(purity);
}

#[test]
fn what_belongs_to_one_place_is_used_there_alone() {
    check_all(belonging);
}

#[test]
fn time_comes_from_the_one_clock() {
    check_all(clock);
}

#[test]
fn nothing_is_left_to_do_and_nothing_is_unwrapped() {
    check_all(unfinished);
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    check_all(form);
}

#[test]
fn the_map_names_every_room() {
    let tree = tree();
    let lib = tree.iter().find(|file| file.path == "lib.rs").expect("the crate has a lib.rs");
    let rooms: Vec<&str> =
        tree.iter().map(File::module).filter(|module| !["lib", "main"].contains(module)).collect();
    let unnamed = unnamed_in(&lib.text, &rooms);
    assert!(unnamed.is_empty(), "the documentation of src/lib.rs does not name {unnamed:?}");
    let unplaced: Vec<&&str> =
        rooms.iter().filter(|room| !ORDER.contains(room) && !ASIDE.contains(room)).collect();
    assert!(unplaced.is_empty(), "these have no place in the order yet: {unplaced:?}");
}

#[test]
fn a_room_that_uses_a_later_one_is_found() {
    check_rule(
        direction,
        &[
            ("domain/a.rs", "use crate::format::x;", &["domain/a.rs:1: domain must not use format"]),
            (
                "views/a.rs",
                "\nuse crate::{store, operations::App};",
                &["views/a.rs:2: views must not use operations"],
            ),
            ("http/a.rs", "fn f() -> crate::cli::X {}", &["http/a.rs:1: http must not use cli"]),
            ("http/a.rs", "use crate::config::Settings;", &["http/a.rs:1: http must not use config"]),
            ("config.rs", "use crate::domain::X;", &["config.rs:1: config must not use domain"]),
            ("cli/a.rs", "use crate::{config, http, telemetry};", &[]),
            ("operations/a.rs", "use crate::operations::b; use crate::views;", &[]),
            ("http/a.rs", "use crate::surprise;", &["http/a.rs:1: http must not use surprise"]),
            ("format/a.rs", "use super::super::ledger;", &["format/a.rs:1: format reaches out with super"]),
            ("format/mod.rs", "use super::ledger;", &["format/mod.rs:1: format reaches out with super"]),
            ("format/a.rs", "use super::chain;", &[]),
            ("format/a.rs", "#[cfg(test)] mod tests { use crate::http; }", &[]),
            ("main.rs", "use haldir::cli::run; use haldir::http;", &["main.rs:1: main must not use http"]),
        ],
    );
}

#[test]
fn an_impure_name_in_a_pure_room_is_found() {
    check_rule(
        purity,
        &[
            ("domain/a.rs", "use std::fs;", &["domain/a.rs:1: domain must not use std::fs"]),
            (
                "format/a.rs",
                "use std::{net::Ipv4Addr, fmt};",
                &["format/a.rs:1: format must not use std::net"],
            ),
            (
                "domain/a.rs",
                "use std::time::{Duration, Instant};",
                &["domain/a.rs:1: domain must not use std::time::Instant"],
            ),
            (
                "domain/a.rs",
                "fn f(x: f64) { tracing::info!() }",
                &["domain/a.rs:1: domain must not use f64", "domain/a.rs:1: domain must not use tracing"],
            ),
            (
                "domain/a.rs",
                "async fn f() { 1f64 }",
                &["domain/a.rs:1: domain must not use async", "domain/a.rs:1: domain must not use f64"],
            ),
            ("format/a.rs", "let x = 1.5_f32;", &["format/a.rs:1: format must not use f32"]),
            ("ledger/a.rs", "use std::fs;", &[]),
        ],
    );
}

#[test]
fn a_name_away_from_its_home_is_found() {
    check_rule(
        belonging,
        &[
            ("ledger/a.rs", "sled::open()", &["ledger/a.rs:1: sled belongs to store/embedded.rs"]),
            ("store/embedded.rs", "sled::open()", &[]),
            (
                "operations/a.rs",
                "use actix_web::web;",
                &["operations/a.rs:1: actix_web belongs to http, mcp, cli"],
            ),
            (
                "format/entry.rs",
                "#[derive(bincode::Encode)]",
                &[
                    "format/entry.rs:1: bincode belongs to format/v1, format/v1.rs, format/v2.rs, ledger/snapshot.rs",
                ],
            ),
            (
                "ledger/a.rs",
                "use getrandom::fill;",
                &["ledger/a.rs:1: getrandom belongs to ledger/random.rs"],
            ),
            ("http/a.rs", "// sled\nlet x = \"sled\";", &[]),
        ],
    );
    check_rule(
        clock,
        &[
            (
                "http/a.rs",
                "let t = std::time::SystemTime::now();",
                &["http/a.rs:1: SystemTime::now outside the clock"],
            ),
            ("http/a.rs", "let t = app.clock().now();", &[]),
            ("ledger/clock.rs", "SystemTime::now()", &[]),
        ],
    );
}

#[test]
fn what_is_unfinished_or_has_no_form_is_found() {
    check_rule(
        unfinished,
        &[
            (
                "http/a.rs",
                "\nx.unwrap(); todo!(); y.unwrap_or(1);",
                &["http/a.rs:2: unwrap()", "http/a.rs:2: todo!"],
            ),
            ("http/a.rs", "dbg!(unimplemented!())", &["http/a.rs:1: unimplemented!", "http/a.rs:1: dbg!"]),
            ("http/a.rs", "#[cfg(test)]\nmod tests { fn f() { x.unwrap(); todo!() } }", &[]),
        ],
    );
    let long = "//! Long.\n".repeat(LINES_MAX + 1);
    check_rule(
        form,
        &[
            ("http/a.rs", "use x;", &["http/a.rs:1: does not begin with //!"]),
            ("http/a.rs", "//! A.\n// b", &[]),
            ("a.rs", &long, &["a.rs:601: has more than 600 lines"]),
        ],
    );
    assert_eq!(
        unnamed_in("//! [`http`] and `cli`\nfn ledger() {}", &["http", "cli", "ledger"]),
        ["cli", "ledger"]
    );
    assert!(unnamed_in("//! - [`mod@format`]", &["format"]).is_empty());
}

/// Holds a rule against made-up files: path, text, findings.
fn check_rule(rule: impl Fn(&File) -> Vec<String>, cases: &[(&str, &str, &[&str])]) {
    for (path, text, expected) in cases {
        assert_eq!(rule(&File::new(path, text)), *expected, "{path}: {text}");
    }
}

/// Whether a room uses only itself and what stands before it.
fn direction(file: &File) -> Vec<String> {
    let module = file.module();
    let mut findings = Vec::new();
    for name in file.names() {
        let first = name.parts.first().map(String::as_str);
        let supers = name.parts.iter().take_while(|part| *part == "super").count();
        if supers >= file.depth() {
            findings.push(finding(file, &name, &format!("{module} reaches out with super")));
        }
        let is_ours = first == Some("crate") || (module == "main" && first == Some("haldir"));
        match name.parts.get(1) {
            Some(used) if is_ours && !may_use(module, used) => {
                findings.push(finding(file, &name, &format!("{module} must not use {used}")));
            }
            _ => {}
        }
    }
    findings
}

fn may_use(module: &str, used: &str) -> bool {
    let place = |name: &str| ORDER.iter().position(|room| *room == name);
    if module == "main" {
        return used == ENTRANCE;
    }
    let is_aside = ASIDE.contains(&used) && (module == ENTRANCE || module == used);
    is_aside || place(module).zip(place(used)).is_some_and(|(user, used)| used <= user)
}

fn purity(file: &File) -> Vec<String> {
    if !PURE.contains(&file.module()) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for name in file.names() {
        // A literal such as `1.5_f32` names its type, too.
        let is_digit = |it: char| it.is_ascii_digit() || it == '_';
        let literal = name.parts.first().map(|part| part.trim_start_matches(is_digit));
        for impure in IMPURE {
            if is_below(&name, impure) || literal == Some(impure) {
                findings.push(finding(file, &name, &format!("{} must not use {impure}", file.module())));
            }
        }
    }
    findings
}

fn belonging(file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    for name in file.names() {
        for (belongings, homes) in AT_HOME {
            let is_home =
                homes.iter().any(|home| file.path == *home || file.path.starts_with(&format!("{home}/")));
            if is_below(&name, belongings) && !is_home {
                findings.push(finding(file, &name, &format!("{belongings} belongs to {}", homes.join(", "))));
            }
        }
    }
    findings
}

/// Whatever is called `now` and is no method of ours asks the machine for the time.
fn clock(file: &File) -> Vec<String> {
    if file.path == "ledger/clock.rs" {
        return Vec::new();
    }
    let asks = |name: &Name| name.parts.len() > 1 && name.parts.last().is_some_and(|last| last == "now");
    let what = |name: Name| {
        let tail = name.parts[name.parts.len() - 2..].join("::");
        finding(file, &name, &format!("{tail} outside the clock"))
    };
    file.names().into_iter().filter(asks).map(what).collect()
}

fn unfinished(file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in file.code.lines().enumerate() {
        for banned in ["unwrap()", "todo!", "unimplemented!", "dbg!"] {
            for (at, _) in line.match_indices(banned) {
                if !line[..at].ends_with(is_word_char) {
                    findings.push(format!("{}:{}: {banned}", file.path, index + 1));
                }
            }
        }
    }
    findings
}

fn form(file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    if !file.text.starts_with("//!") {
        findings.push(format!("{}:1: does not begin with //!", file.path));
    }
    if file.text.lines().count() > LINES_MAX {
        findings.push(format!("{}:{}: has more than {LINES_MAX} lines", file.path, LINES_MAX + 1));
    }
    findings
}

/// Which rooms the crate's documentation does not link to.
fn unnamed_in<'room>(lib: &str, rooms: &[&'room str]) -> Vec<&'room str> {
    let documentation: String = lib.lines().filter(|line| line.starts_with("//!")).collect();
    let is_named = |room: &str| {
        documentation.contains(&format!("[`{room}`]")) || documentation.contains(&format!("[`mod@{room}`]"))
    };
    rooms.iter().copied().filter(|room| !is_named(room)).collect()
}

/// Whether a name is this one or something in it.
fn is_below(name: &Name, path: &str) -> bool {
    let parts: Vec<&str> = path.split("::").collect();
    name.parts.len() >= parts.len() && name.parts.iter().zip(parts).all(|(part, expected)| part == expected)
}

fn finding(file: &File, name: &Name, what: &str) -> String {
    format!("{}:{}: {what}", file.path, name.line)
}

fn check_all(rule: impl Fn(&File) -> Vec<String>) {
    let findings: Vec<String> = tree().iter().flat_map(rule).collect();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// Every file of the source tree.
fn tree() -> Vec<File> {
    let src = Path::new(ROOT).join("src");
    let mut files = Vec::new();
    read_into(&mut files, &src, &src);
    assert!(files.len() > 20, "the source tree is not where it was");
    files
}

fn read_into(files: &mut Vec<File>, src: &Path, dir: &Path) {
    for item in fs::read_dir(dir).expect("the source can be read") {
        let path = item.expect("the source can be read").path();
        if path.is_dir() {
            read_into(files, src, &path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(src).expect("it is below src").to_string_lossy().replace('\\', "/");
            files.push(File::new(&name, &fs::read_to_string(&path).expect("the source can be read")));
        }
    }
}
