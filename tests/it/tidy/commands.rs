//! Do the commands in the README exist? Held against what `--help` says.

use std::fs;
use std::path::Path;

use super::ROOT;
use crate::server::Home;

/// Ways in which a document calls the program.
const CALLS: [&str; 2] = ["haldir ", "cargo run --release -- "];

#[test]
fn every_command_in_the_readme_exists() {
    let Ok(readme) = fs::read_to_string(Path::new(ROOT).join("README.md")) else {
        return; // Nothing is promised yet.
    };
    let home = Home::new();
    let help = |path: &[&str]| home.run(&[path, &["--help"]].concat()).stdout;
    let commands = commands_in(&readme);
    assert!(!commands.is_empty(), "the README does not say how to run the program");
    let wrong: Vec<String> = commands.iter().filter_map(|command| check(command, &help).err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn commands_are_found_in_blocks_and_in_running_text() {
    let text = "
Run `haldir serve --port 1` or `cargo test`, not haldir itself.
```console
$ haldir audit \\
    verify --json   # all of it
Haldir 0.5.0 listens
$ cargo run --release -- serve | tee log
```
";
    let expected = ["serve --port 1", "audit verify --json", "serve"];
    assert_eq!(commands_in(text), expected.map(|it| it.split(' ').map(str::to_owned).collect::<Vec<_>>()));
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let help = |path: &[&str]| {
        let text = match path {
            [] => {
                "Usage: haldir [OPTIONS] <COMMAND>\n\nCommands:\n  serve  Run\n  audit  Verify\n\nOptions:\n      --url <URL>  Base\n  -h, --help  Print\n"
            }
            ["audit"] => {
                "Usage: haldir audit <COMMAND>\n\nCommands:\n  verify  Verify\n\nOptions:\n  -h, --help  Print\n"
            }
            ["audit", "verify"] => {
                "Usage: haldir audit verify [OPTIONS]\n\nOptions:\n      --json  Print JSON\n      --key <KEY>\n          Trust, see --nothing\n"
            }
            _ => {
                "Usage: haldir serve [OPTIONS] [DIR]\n\nArguments:\n  [DIR]  Where\n\nOptions:\n      --port <PORT>  Port\n      --no-key [<NO_KEY>]  None\n"
            }
        };
        text.to_owned()
    };
    let verdict = |line: &str| check(&line.split(' ').map(str::to_owned).collect::<Vec<_>>(), &help);
    for good in [
        "serve",
        "serve --port 1 here",
        "serve --port=1",
        "serve --no-key",
        "--url http://x audit verify --key a --json --key b",
        "audit verify --help",
        "--help",
    ] {
        assert_eq!(verdict(good), Ok(()), "{good}");
    }
    for bad in [
        "server",
        "serve --prot 1",
        "serve --port",
        "serve here there",
        "audit",
        "audit verify all",
        "audit verify --url http://x",
        "audit verify --nothing",
        "audit verify --keys a",
    ] {
        assert!(verdict(bad).is_err(), "{bad}");
    }
}

/// The arguments of every call of the program: lines in code blocks, and code in running text.
fn commands_in(markdown: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut is_block = false;
    for line in markdown.replace("\\\n", " ").lines() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            commands.extend(command_in(line.trim_start().trim_start_matches("$ ")));
        } else {
            commands.extend(line.split('`').skip(1).step_by(2).filter_map(command_in));
        }
    }
    commands
}

fn command_in(text: &str) -> Option<Vec<String>> {
    let arguments = CALLS.iter().find_map(|call| text.strip_prefix(call))?;
    let words =
        arguments.split_whitespace().take_while(|word| !["#", "|", "&&", "&", ";", ">"].contains(word));
    Some(words.map(|word| word.trim_matches(['"', '\'', ':']).to_owned()).collect())
}

/// Walks a command line as the program would, knowing no more than its help.
fn check(command: &[String], help: &impl Fn(&[&str]) -> String) -> Result<(), String> {
    let wrong = |what: String| Err(format!("haldir {}: {what}", command.join(" ")));
    let mut path: Vec<&str> = Vec::new();
    let mut text = help(&path);
    let mut positionals = listed(&text, "Arguments:").count();
    let mut words = command.iter();
    while let Some(word) = words.next() {
        if word == "--help" || word == "--version" {
            return Ok(());
        }
        if word.starts_with('-') {
            let (flag, value) =
                word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
            let Some(usage) = listed(&text, "Options:").find(|usage| names_flag(usage, flag)) else {
                return wrong(format!("no flag {flag}"));
            };
            let needs_value = usage.contains('<') && !usage.contains("[<");
            if needs_value && value.is_none() && words.next().is_none() {
                return wrong(format!("{flag} needs a value"));
            }
        } else if listed(&text, "Commands:").any(|usage| usage.split_whitespace().next() == Some(word)) {
            path.push(word);
            text = help(&path);
            positionals = listed(&text, "Arguments:").count();
        } else if positionals > 0 {
            positionals -= 1;
        } else {
            return wrong(format!("{word} is neither a command nor an argument"));
        }
    }
    if listed(&text, "Commands:").next().is_some() {
        return wrong("a command is missing".to_owned());
    }
    Ok(())
}

/// The entries of a section of help: lines that begin at most six columns in. Descriptions stand further in.
fn listed<'text>(help: &'text str, section: &str) -> impl Iterator<Item = &'text str> {
    let lines = help.lines().skip_while(move |line| *line != section).skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
    lines.filter(|line| line.len() - line.trim_start().len() <= 6 && !line.trim().is_empty())
}

/// Whether a line of help such as `-h, --help  Print help` is about a flag.
fn names_flag(usage: &str, flag: &str) -> bool {
    let names = usage.trim_start().split("  ").next().unwrap_or_default();
    names.split([' ', ',', '=']).any(|name| name == flag)
}
