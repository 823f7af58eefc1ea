//! Reads Rust source just well enough to see which names it uses outside of comments, strings and tests.

/// One file of the source tree.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Its path below `src`, such as `http/edge.rs`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// The same with comments, literals and test items blanked out, line for line.
    pub(crate) code: String,
}

/// A name as it is used, such as `std::fs::read`, with the line that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) line: usize,
    pub(crate) parts: Vec<String>,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = without_tests(&without_comments_and_literals(text));
        // A file of tests, and what stands below it, is under `#[cfg(test)]` where its module is named.
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let code = if is_test { String::new() } else { code };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// The top-level module: `http` for `http/edge.rs`, `config` for `config.rs`.
    pub(crate) fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// How far below the crate's root the file's module is: 1 for `config.rs` and `http/mod.rs`, 2 for `http/edge.rs`.
    pub(crate) fn depth(&self) -> usize {
        self.path.split('/').count() - usize::from(self.path.ends_with("/mod.rs"))
    }

    /// Every name in the code. Groups are taken apart: `use std::{fs, net}` uses `std::fs` and `std::net`.
    pub(crate) fn names(&self) -> Vec<Name> {
        let mut reader = Reader { rest: &self.code, line: 1 };
        let mut names = Vec::new();
        while reader.skip_to_word() {
            reader.name(&[], &mut names);
        }
        names
    }
}

struct Reader<'code> {
    rest: &'code str,
    line: usize,
}

impl<'code> Reader<'code> {
    /// Reads a name that starts here, or a group of names that share a beginning.
    fn name(&mut self, prefix: &[String], names: &mut Vec<Name>) {
        self.skip_space();
        let line = self.line;
        let mut parts = prefix.to_vec();
        loop {
            self.skip_space();
            if self.take("{") && !parts.is_empty() {
                self.group(&parts, names);
                return;
            }
            let word = self.word();
            if word.is_empty() {
                break;
            }
            parts.push(word.to_owned());
            self.skip_space();
            if !self.take("::") {
                break;
            }
        }
        if parts.len() > prefix.len() {
            names.push(Name { line, parts });
        }
    }

    /// Reads what stands between the braces of `prefix::{…}`.
    fn group(&mut self, prefix: &[String], names: &mut Vec<Name>) {
        loop {
            let before = self.rest.len();
            self.name(prefix, names);
            self.skip_space();
            // What a name is called here says nothing about where it comes from.
            if self.take("as ") {
                self.word();
                self.skip_space();
            }
            if self.take("}") || self.rest.is_empty() {
                return;
            }
            // Whatever else stands here, such as `*`.
            if !self.take(",") && self.rest.len() == before {
                self.skip(1);
            }
        }
    }

    fn skip_to_word(&mut self) -> bool {
        let len = self.rest.find(is_word_char).unwrap_or(self.rest.len());
        self.skip(len);
        !self.rest.is_empty()
    }

    fn skip_space(&mut self) {
        let len = self.rest.len() - self.rest.trim_start().len();
        self.skip(len);
    }

    fn word(&mut self) -> &'code str {
        let len = self.rest.find(|it| !is_word_char(it)).unwrap_or(self.rest.len());
        let word = &self.rest[..len];
        self.skip(len);
        word
    }

    fn take(&mut self, token: &str) -> bool {
        let is_there = self.rest.starts_with(token);
        if is_there {
            self.skip(token.len());
        }
        is_there
    }

    fn skip(&mut self, len: usize) {
        let (skipped, rest) = self.rest.split_at(len);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }
}

pub(crate) fn is_word_char(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Blanks comments and what stands between quotes. What is blanked keeps its lines.
fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment_len(rest),
            '"' => string_len(rest),
            'r' | 'b' | 'c' if !is_word_char(before) => prefixed_literal_len(rest),
            '\'' => char_literal_len(rest),
            _ => 0,
        };
        if len == 0 {
            code.push(first);
            before = first;
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..len].chars().map(|it| if it == '\n' { '\n' } else { ' ' }));
            before = ' ';
            rest = &rest[len..];
        }
    }
    code
}

fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of `"…"`, quotes included.
fn string_len(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `b"…"`, `b'…'` and the like; 0 when it is a word that begins with such a letter.
fn prefixed_literal_len(rest: &str) -> usize {
    let prefix_len = rest.find(|it| !matches!(it, 'r' | 'b' | 'c')).unwrap_or(rest.len());
    let (prefix, after) = rest.split_at(prefix_len);
    let hashes = after.len() - after.trim_start_matches('#').len();
    if prefix.contains('r') && after[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = prefix_len + hashes + 1;
        return rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len());
    }
    match after.chars().next() {
        Some('"') => prefix_len + string_len(after),
        Some('\'') if prefix == "b" => prefix_len + char_literal_len(after),
        _ => 0,
    }
}

/// The length of `'x'`; 0 for a lifetime.
fn char_literal_len(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            characters.next();
            characters.find(|(_, it)| *it == '\'').map_or(rest.len(), |(at, _)| at + 1)
        }
        Some(_) => characters.next().filter(|(_, it)| *it == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// Blanks every item that is marked `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(at);
        kept.push_str(before);
        let len = item_len(item);
        kept.extend(item[..len].chars().map(|it| if it == '\n' { '\n' } else { ' ' }));
        rest = &item[len..];
    }
    kept + rest
}

/// The length of an item: to its `;`, or to the brace that closes its first one.
fn item_len(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, character) in item.char_indices() {
        match character {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    item.len()
}

#[test]
fn names_in_comments_literals_and_tests_do_not_count() {
    let text = r##"
//! std::fs
/* std::net /* nested */ std::net */
const A: &str = "sled::Db \" tokio";
const B: &str = r#"actix "quoted" actix"#;
const C: char = '"'; const D: u8 = b'\''; const E: &'static str = "";
fn real<'a>(it: &'a str) -> crate::domain::Money {}
#[cfg(test)]
mod tests { fn f() { std::fs::read("x").unwrap(); } }
#[cfg(test)]
use getrandom::fill;
use serde::Deserialize;
"##;
    let file = File::new("http/x.rs", text);
    let names: Vec<String> = file.names().iter().map(|name| name.parts.join("::")).collect();
    assert!(names.contains(&"crate::domain::Money".to_owned()), "{names:?}");
    assert!(names.contains(&"serde::Deserialize".to_owned()), "{names:?}");
    for hidden in ["std", "sled", "actix", "tokio", "getrandom", "quoted", "unwrap"] {
        assert!(!names.iter().any(|name| name.split("::").any(|part| part == hidden)), "{hidden}: {names:?}");
    }
    assert_eq!(file.code.lines().count(), text.lines().count());
}

#[test]
fn groups_are_taken_apart() {
    let file = File::new(
        "a.rs",
        "use std::{\n    fs::{self, File},\n    net as n,\n};\nuse crate::{a::b, c};\nx::<T>::y();",
    );
    let names: Vec<(usize, String)> =
        file.names().iter().map(|name| (name.line, name.parts.join("::"))).collect();
    for (line, name) in
        [(2, "std::fs::self"), (2, "std::fs::File"), (3, "std::net"), (5, "crate::a::b"), (5, "crate::c")]
    {
        assert!(names.contains(&(line, name.to_owned())), "{line} {name}: {names:?}");
    }
}

#[test]
fn files_know_their_module() {
    for (path, module, depth) in [
        ("config.rs", "config", 1),
        ("http/mod.rs", "http", 1),
        ("http/edge.rs", "http", 2),
        ("a/b/c.rs", "a", 3),
    ] {
        let file = File::new(path, "");
        assert_eq!((file.module(), file.depth()), (module, depth), "{path}");
    }
}
