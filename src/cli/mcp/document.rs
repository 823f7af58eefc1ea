//! A client's configuration file, changed in one place: everything else in it stays as it is written, and in its order.

use std::fmt::{self, Write as _};

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of an object, in their order, with their values as they are written.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

impl Members {
    fn read(text: &str) -> Result<Self, serde_json::Error> {
        if text.trim().is_empty() { Ok(Self(Vec::new())) } else { serde_json::from_str(text) }
    }

    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| &**value)
    }

    fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(it, _)| it == name) {
            Some((_, before)) => *before = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// The object with a member on each line.
    fn text(&self, depth: usize) -> Result<String, serde_json::Error> {
        if self.0.is_empty() {
            return Ok("{}".to_owned());
        }
        let mut text = "{".to_owned();
        for (index, (name, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let indent = "  ".repeat(depth + 1);
            let name = serde_json::to_string(name)?;
            // Writing to a text does not fail.
            let _ = write!(text, "{separator}\n{indent}{name}: {}", value.get());
        }
        let _ = write!(text, "\n{}}}", "  ".repeat(depth));
        Ok(text)
    }
}

/// The text of a file in which an entry stands among the servers, in place of the one that stood there.
///
/// # Errors
///
/// A sentence, when the text is not what such a file is.
pub fn with_entry(text: &str, servers: &str, name: &str, entry: &Value) -> Result<String, String> {
    let unreadable = |error: serde_json::Error| format!("this is not valid JSON: {error}");
    let mut file = Members::read(text).map_err(unreadable)?;
    let among = file.get(servers).map_or("", RawValue::get);
    let mut among = Members::read(among).map_err(|_| format!("{servers:?} in it is not an object"))?;
    among.set(name, indented(entry, 2).map_err(unreadable)?);
    let among = among.text(1).and_then(RawValue::from_string).map_err(unreadable)?;
    file.set(servers, among);
    Ok(file.text(0).map_err(unreadable)? + "\n")
}

/// A value as it is written within so many objects.
fn indented(value: &Value, depth: usize) -> Result<Box<RawValue>, serde_json::Error> {
    let text = serde_json::to_string_pretty(value)?;
    RawValue::from_string(text.replace('\n', &format!("\n{}", "  ".repeat(depth))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn added(text: &str) -> Result<String, String> {
        with_entry(text, "mcpServers", "haldir", &json!({ "command": "haldir", "args": [] }))
    }

    #[test]
    fn a_file_keeps_everything_else_as_it_was_written() {
        let before = r#"{
  "zebra": 1.50,
  "mcpServers": {
    "other": {"command":"x",   "n": 12345678901234567890123},
    "haldir": {"command": "old"}
  },
  "apple": [1,2 , 3]
}
"#;
        let after = r#"{
  "zebra": 1.50,
  "mcpServers": {
    "other": {"command":"x",   "n": 12345678901234567890123},
    "haldir": {
      "args": [],
      "command": "haldir"
    }
  },
  "apple": [1,2 , 3]
}
"#;
        assert_eq!(added(before).unwrap(), after);
        assert_eq!(added(after).unwrap(), after, "once more is the same");
    }

    #[test]
    fn a_file_that_is_empty_or_has_no_servers_gets_them() {
        let expected = json!({ "mcpServers": { "haldir": { "command": "haldir", "args": [] } } });
        for nothing in ["", " \n", "{}", r#"{"mcpServers":{}}"#] {
            let after: Value = serde_json::from_str(&added(nothing).unwrap()).unwrap();
            assert_eq!(after, expected, "{nothing:?}");
        }
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        for wrong in ["[]", "{", "// a comment\n{}", "{\"a\":1,}", "7"] {
            assert!(added(wrong).unwrap_err().starts_with("this is not valid JSON"), "{wrong}");
        }
        assert_eq!(added(r#"{"mcpServers":[]}"#).unwrap_err(), "\"mcpServers\" in it is not an object");
    }
}
