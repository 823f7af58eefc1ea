//! What is kept out of sight: secrets that were put into a call, and the parts that policies keep from being written down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::retries::RetrySecret;
use crate::domain::policies::{Policies, Policy};
use crate::domain::secrets::SecretName;

/// How a reference to a secret begins; the secret's name follows, up to the end of the text.
pub const SECRET_SCHEME: &str = "secret://";
/// What stands in place of a part of a result that a policy keeps from being written down.
const REDACTED: &str = "[redacted]";
/// The path that means all of it.
const EVERYTHING: &str = "*";
/// Values shorter than this are only kept out of sight where they stand alone: part of other texts, they would make these
/// unreadable and tell more than they hide.
const PART_LEN_MIN: usize = 4;

/// The secret that a text refers to at its end, with what stands before the reference.
#[must_use]
pub fn reference(text: &str) -> Option<(&str, &str)> {
    text.split_once(SECRET_SCHEME)
}

/// Every text within a value that refers to a secret.
pub fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.extend(reference(text).map(|(_, name)| name)),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The secrets of one call.
#[derive(Default)]
pub struct Secrets {
    values: BTreeMap<SecretName, Zeroizing<String>>,
    /// In how many ways each may come back. Not those that are too short to be looked for within other texts.
    spellings: Vec<(SecretName, Zeroizing<String>)>,
}

impl Secrets {
    /// The secrets with these values.
    #[must_use]
    pub fn of(values: BTreeMap<SecretName, Zeroizing<String>>) -> Self {
        let long = values.iter().filter(|(_, value)| value.len() >= PART_LEN_MIN);
        let spelled =
            long.flat_map(|(name, value)| spellings(value).into_iter().map(|it| (name.clone(), it)));
        let spellings = spelled.collect();
        Self { values, spellings }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// A text with the secret that it refers to put in its place.
    #[must_use]
    pub fn complete(&self, text: &str) -> Zeroizing<String> {
        let found = reference(text).and_then(|(before, name)| {
            let value = self.values.get(&SecretName::parse(name)?)?;
            Some(Zeroizing::new([before, value.as_str()].concat()))
        });
        found.unwrap_or_else(|| Zeroizing::new(text.to_owned()))
    }

    /// Puts every secret that a value refers to in its place.
    pub fn complete_all(&self, value: &mut Value) {
        match value {
            Value::String(text) if text.contains(SECRET_SCHEME) => {
                *text = std::mem::take(&mut *self.complete(text));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.complete_all(item)),
            Value::Object(fields) => fields.values_mut().for_each(|item| self.complete_all(item)),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A text with every secret in it replaced by its name: as it is, and as JSON, base64, hex and parts of addresses write it.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        let sign = |name: &SecretName| format!("[redacted: {SECRET_SCHEME}{name}]");
        if let Some((name, _)) = self.values.iter().find(|(_, value)| ***value == *text) {
            return sign(name);
        }
        let mut found = self.places(text);
        found.sort_unstable_by_key(|(place, _)| (place.start, std::cmp::Reverse(place.end)));
        // Secrets that overlap are hidden together: no rest of one may show beside the other.
        let mut hidden = String::with_capacity(text.len());
        let mut end = 0;
        for (place, name) in found {
            if place.start >= end {
                hidden.push_str(&text[end..place.start]);
                hidden.push_str(&sign(name));
            }
            end = end.max(place.end);
        }
        hidden.push_str(&text[end..]);
        hidden
    }

    /// Where in a text secrets are.
    fn places(&self, text: &str) -> Vec<(Range<usize>, &SecretName)> {
        let mut found = Vec::new();
        for (name, spelling) in &self.spellings {
            let mut from = 0;
            while let Some(at) = text[from..].find(spelling.as_str()) {
                let start = from + at;
                found.push((start..start + spelling.len(), name));
                // One that overlaps itself is found again.
                from = start + text[start..].chars().next().map_or(1, char::len_utf8);
            }
        }
        found
    }

    /// Hides every secret in every text of a value, names of fields included.
    pub fn hide_all(&self, value: &mut Value) {
        if self.values.is_empty() {
            return;
        }
        match value {
            Value::String(text) => *text = self.hide(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_all(item)),
            Value::Object(fields) => {
                let hidden = std::mem::take(fields).into_iter().map(|(name, mut item)| {
                    self.hide_all(&mut item);
                    (self.hide(&name), item)
                });
                *fields = hidden.collect();
            }
            Value::Number(number) => {
                let text = number.to_string();
                if self.values.values().any(|secret| **secret == text) {
                    *value = Value::from(REDACTED);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

/// The ways in which a value may come back.
fn spellings(value: &str) -> Vec<Zeroizing<String>> {
    let bytes = value.as_bytes();
    let percent: String = bytes
        .iter()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let hex = HEXLOWER.encode(bytes);
    let mut spellings = vec![
        value.to_owned(),
        BASE64.encode(bytes),
        BASE64URL.encode(bytes),
        BASE64URL_NOPAD.encode(bytes),
        hex.to_uppercase(),
        hex,
        percent.to_lowercase(),
        percent,
    ];
    // What JSON leaves to whoever writes it: which characters besides the necessary are escaped.
    let plain = |_: char| false;
    let beyond_ascii = |it: char| !it.is_ascii();
    let for_pages = |it: char| "<>&'".contains(it);
    for escaped in [json_text(value, plain), json_text(value, beyond_ascii), json_text(value, for_pages)] {
        spellings.push(escaped.replace('/', "\\/"));
        spellings.push(escaped);
    }
    spellings.push(json_text(value, |it| beyond_ascii(it) || for_pages(it)));
    spellings.sort_unstable();
    spellings.dedup();
    spellings.into_iter().map(Zeroizing::new).collect()
}

/// A value as it stands in JSON that escapes these characters, too.
fn json_text(value: &str, escapes: impl Fn(char) -> bool) -> String {
    let quoted = Value::from(value).to_string();
    let mut text = String::with_capacity(quoted.len());
    for it in quoted[1..quoted.len() - 1].chars() {
        if escapes(it) {
            for unit in it.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(it);
        }
    }
    text
}

/// Which parts of calls of a tool policies keep from being written down.
#[derive(Debug, Default)]
pub struct Redaction {
    arguments: Vec<Vec<String>>,
    results: Vec<Vec<String>>,
}

impl Redaction {
    /// What the policies say of a tool.
    #[must_use]
    pub fn of(policies: &Policies, name: &str) -> Self {
        let mut redaction = Self::default();
        let split = |path: &String| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        for (_, policy) in policies.all() {
            if let Policy::Redact { arguments, results, .. } = policy
                && policy.is_about(name)
            {
                redaction.arguments.extend(arguments.iter().map(split));
                redaction.results.extend(results.iter().map(split));
            }
        }
        redaction
    }

    /// Arguments as they are written down. A digest under a secret stands in place of what is left out, so that the same arguments
    /// are still known as the same.
    pub fn of_arguments(&self, arguments: &mut Map<String, Value>, secret: &RetrySecret) {
        let mut sign = |value: &Value| {
            let digest = secret.redaction_mac(&value.to_string());
            Value::from(format!("[redacted {}]", HEXLOWER.encode(&digest[..8])))
        };
        for path in &self.arguments {
            if path.iter().any(|part| part == EVERYTHING) && path.len() == 1 {
                arguments.values_mut().for_each(|value| *value = sign(value));
            } else if let Some(first) = path.first().and_then(|first| arguments.get_mut(first)) {
                replace(first, &path[1..], &mut sign);
            }
        }
    }

    /// A result as it is written down: what a path names is left out of structured content, and of every text that is JSON.
    pub fn of_result(&self, result: &mut Value) {
        let mut sign = |_: &Value| Value::from(REDACTED);
        for path in &self.results {
            if path.len() == 1 && path[0] == EVERYTHING {
                *result = sign(result);
                return;
            }
            if let Some(content) = result.get_mut("structuredContent") {
                replace(content, path, &mut sign);
            }
            let blocks = result.get_mut("content").and_then(Value::as_array_mut);
            for text in blocks.into_iter().flatten().filter_map(|block| block.get_mut("text")) {
                let parsed = text.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
                if let Some(mut inner) = parsed.filter(|inner| inner.is_object() || inner.is_array()) {
                    replace(&mut inner, path, &mut sign);
                    *text = Value::from(inner.to_string());
                }
            }
        }
    }
}

/// Replaces what a path names, in every item of the lists on its way.
fn replace(value: &mut Value, path: &[String], sign: &mut impl FnMut(&Value) -> Value) {
    match (value, path) {
        (value, []) => *value = sign(value),
        (Value::Array(items), path) => items.iter_mut().for_each(|item| replace(item, path, sign)),
        (Value::Object(fields), [first, rest @ ..]) => {
            if let Some(next) = fields.get_mut(first) {
                replace(next, rest, sign);
            }
        }
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), [_, ..]) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets() -> Secrets {
        let name = SecretName::parse("api/key").unwrap();
        Secrets::of([(name, Zeroizing::new("s3cr\"et/Välue".to_owned()))].into())
    }

    #[test]
    fn references_are_completed_wherever_they_stand() {
        let mut value =
            json!({ "a": ["Bearer secret://api/key", 1], "b": { "c": "secret://other" }, "d": "secret" });
        let mut found = Vec::new();
        references(&value, &mut found);
        assert_eq!(found, ["api/key", "other"]);
        secrets().complete_all(&mut value);
        let expected =
            json!({ "a": ["Bearer s3cr\"et/Välue", 1], "b": { "c": "secret://other" }, "d": "secret" });
        assert_eq!(value, expected);
    }

    #[test]
    fn no_spelling_of_a_secret_comes_through() {
        let secrets = secrets();
        for spelling in spellings("s3cr\"et/Välue") {
            let mut value = json!({ "text": format!("<{}>", *spelling), (*spelling).clone(): [*spelling] });
            secrets.hide_all(&mut value);
            assert!(!value.to_string().contains(spelling.as_str()), "{value}");
            assert!(value["text"].as_str().unwrap().contains("secret://api/key"));
        }
        let short =
            Secrets::of([(SecretName::parse("pin").unwrap(), Zeroizing::new("12".to_owned()))].into());
        assert_eq!(short.hide("12"), "[redacted: secret://pin]");
        assert_eq!(short.hide("2012"), "2012");
    }

    #[test]
    fn every_writer_of_json_is_seen_through() {
        let name = SecretName::parse("key").unwrap();
        let secrets = Secrets::of([(name, Zeroizing::new("<ü/𝄞&\"".to_owned()))].into());
        for written in ["<ü/𝄞&\\\"", "<\\u00fc/\\ud834\\udd1e&\\\"", "\\u003cü/𝄞\\u0026\\\"", "<ü\\/𝄞&\\\""]
        {
            assert_eq!(secrets.hide(&format!("a {written} b")), "a [redacted: secret://key] b", "{written}");
        }
    }

    #[test]
    fn secrets_that_overlap_are_hidden_whole() {
        let named = |(name, value): (&str, &str)| {
            (SecretName::parse(name).unwrap(), Zeroizing::new(value.to_owned()))
        };
        let secrets =
            [("a", "begin"), ("b", "begin-middle-end"), ("c", "end-more"), ("d", "abab")].map(named);
        let secrets = Secrets::of(secrets.into());
        assert_eq!(secrets.hide("<begin-middle-end>"), "<[redacted: secret://b]>");
        assert_eq!(secrets.hide("<begin-middle-end-more>"), "<[redacted: secret://b]>");
        assert_eq!(secrets.hide("begin and begin"), "[redacted: secret://a] and [redacted: secret://a]");
        assert_eq!(secrets.hide("ababab!"), "[redacted: secret://d]!");
    }

    #[test]
    fn policies_leave_out_parts_of_arguments_and_results() {
        let policy = Policy::Redact {
            tools: vec!["pay".to_owned()],
            arguments: vec!["card.number".to_owned()],
            results: vec!["items.token".to_owned()],
        };
        let policies = Policies::of(vec![policy]);
        let redaction = Redaction::of(&policies, "bank.pay");
        let secret = RetrySecret::new([1; 32]);
        let written = |number: &str| {
            let arguments = json!({ "card": { "number": number, "name": "n" }, "amount": 5 });
            let Value::Object(mut arguments) = arguments else { unreachable!() };
            redaction.of_arguments(&mut arguments, &secret);
            Value::from(arguments)
        };
        assert_eq!((&written("4111")["card"]["name"], &written("4111")["amount"]), (&json!("n"), &json!(5)));
        assert!(!written("4111").to_string().contains("4111"));
        assert_eq!(written("4111"), written("4111"));
        assert_ne!(written("4111"), written("4112"));

        let inner = json!({ "items": [{ "token": "t", "id": 1 }] });
        let mut result = json!({
            "content": [{ "type": "text", "text": inner.to_string() }, { "type": "text", "text": "plain" }],
            "structuredContent": inner,
        });
        redaction.of_result(&mut result);
        assert_eq!(result["structuredContent"], json!({ "items": [{ "token": "[redacted]", "id": 1 }] }));
        assert!(!result.to_string().contains("\\\"t\\\""));
        assert_eq!(result["content"][1]["text"], "plain");
        let other = Redaction::of(&policies, "bank.see");
        let mut untouched = json!({ "structuredContent": { "items": [{ "token": "t" }] } });
        other.of_result(&mut untouched);
        assert_eq!(untouched["structuredContent"]["items"][0]["token"], "t");
    }
}
