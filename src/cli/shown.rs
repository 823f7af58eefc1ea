//! How answers of the server are shown: as they came, or line by line with every digit of their numbers.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::client::Answer;
use crate::domain::money::Money;
use crate::operations::wire::Usd;

/// Prints an answer: the body as it came, or with `print`.
pub(super) fn show(answer: &Answer, as_json: bool, print: impl FnOnce(&Value)) -> Result<(), String> {
    if as_json {
        anstream::println!("{}", answer.body);
    } else {
        print(&exact(&answer.body)?);
    }
    Ok(())
}

/// A JSON text in which numbers that are not whole stand as the texts that they were written as, so that no digit of an
/// amount is lost.
pub(super) fn exact(json: &str) -> Result<Value, String> {
    read(json).map_err(|error| format!("the server's answer is no JSON: {error}"))
}

fn read(json: &str) -> serde_json::Result<Value> {
    let is_number = json.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    if json.starts_with('{') {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json)?;
        fields.into_iter().map(|(name, raw)| Ok((name, read(raw.get())?))).collect()
    } else if json.starts_with('[') {
        let items: Vec<Box<RawValue>> = serde_json::from_str(json)?;
        items.into_iter().map(|raw| read(raw.get())).collect()
    } else if is_number && json.parse::<i128>().is_err() {
        Ok(Value::from(json))
    } else {
        serde_json::from_str(json)
    }
}

/// The items of a list in an answer.
pub(super) fn items<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer[name].as_array().into_iter().flatten()
}

/// A value as people read it.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Reads an amount of the command line, digit by digit.
pub(super) fn amount(text: &str) -> Result<Usd, String> {
    Money::parse(text).map(Usd).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_digit_is_lost() {
        let read =
            exact(r#"{"a": 123456789012.123456789, "b": [0.1, 5, -1], "c": {"d": 1e3}, "e": "x"}"#).unwrap();
        assert_eq!(text(&read["a"]), "123456789012.123456789");
        assert_eq!(read["b"][0], "0.1");
        assert_eq!((&read["b"][1], &read["b"][2]), (&Value::from(5), &Value::from(-1)));
        assert_eq!((text(&read["c"]["d"]), text(&read["e"])), ("1e3".to_owned(), "x".to_owned()));
        assert!(exact("{").is_err());
    }
}
