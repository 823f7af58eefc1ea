//! Numbers and text of a pack as any JSON library reads and writes them again, and the digest over them.
//!
//! Whoever receives a pack computes its digest from the parsed JSON, so a number in it must survive being read as a binary
//! float and written again. Amounts are therefore rounded where the contract rounds them, and stand beside it exactly, as text.

use std::fmt::Write as _;

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::domain::money::Money;

/// A rounded decimal, as a JSON number with a fraction.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(value_type = f64, example = 29.99)]
pub struct Rounded(Scaled);

/// A whole number of units of the last of so many decimal places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scaled {
    units: u128,
    places: u32,
}

impl Rounded {
    /// An amount, rounded to cents; half a cent to the even one.
    #[must_use]
    pub fn cents(amount: Money) -> Self {
        Self::divided(amount.nanos(), 10_000_000, 2)
    }

    /// A part of a whole, from 0 to 1, with four decimal places. Of nothing, everything: 1.
    #[must_use]
    pub fn ratio(part: u64, whole: u64) -> Self {
        match whole {
            0 => Self(Scaled { units: 10_000, places: 4 }),
            _ => Self::divided(u128::from(part) * 10_000, u128::from(whole), 4),
        }
    }

    /// The same, but of nothing, nothing: 0.
    #[must_use]
    pub fn share(part: u64, whole: u64) -> Self {
        if whole == 0 { Self(Scaled { units: 0, places: 4 }) } else { Self::ratio(part, whole) }
    }

    /// Seconds as days with one decimal place.
    #[must_use]
    pub fn days(seconds: u64) -> Self {
        Self::divided(u128::from(seconds), 8_640, 1)
    }

    fn divided(value: u128, by: u128, places: u32) -> Self {
        let (whole, rest) = (value / by, value % by);
        let rounds_up = rest > by - rest || (rest == by - rest && whole % 2 == 1);
        Self(Scaled { units: whole + u128::from(rounds_up), places })
    }

    /// With all its places and a comma between thousands, for people.
    #[must_use]
    pub fn grouped(&self) -> String {
        let (whole, fraction) = self.0.parts();
        format!("{}.{fraction}", grouped(whole))
    }

    /// As a share of a hundred with two places, for people.
    #[must_use]
    pub fn percent(&self) -> String {
        let hundredths = self.0.units * 10_000 / self.0.one();
        format!("{}.{:02}%", hundredths / 100, hundredths % 100)
    }

    /// Whether it is at least so many units of its last place.
    #[must_use]
    pub const fn is_at_least(&self, units: u128) -> bool {
        self.0.units >= units
    }
}

impl Scaled {
    const fn one(self) -> u128 {
        10_u128.pow(self.places)
    }

    /// What stands before the point, and all the places after it.
    fn parts(self) -> (u128, String) {
        let places = self.places as usize;
        (self.units / self.one(), format!("{:0places$}", self.units % self.one()))
    }
}

impl Serialize for Rounded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (whole, fraction) = self.0.parts();
        let fraction = fraction.trim_end_matches('0');
        let fraction = if fraction.is_empty() { "0" } else { fraction };
        let text = format!("{whole}.{fraction}");
        RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// A whole number with a comma between thousands.
#[must_use]
pub fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The digest of a pack: SHA-256 over its canonical JSON, without what does not belong to the state of the window, or changes
/// with being signed or read.
#[must_use]
pub fn digest_of(pack: &Value) -> [u8; 32] {
    let mut pack = pack.clone();
    let remove = |from: &mut Value, names: &[&str]| {
        if let Some(members) = from.as_object_mut() {
            for name in names {
                members.remove(*name);
            }
        }
    };
    remove(&mut pack, &["signatures", "generated_at"]);
    if let Some(heads) = pack.get_mut("tamper_evidence") {
        remove(heads, &["signed_at", "signature", "signing_key_source", "public_key", "key_id"]);
    }
    let keys = pack.get_mut("access_control").and_then(|section| section.get_mut("keys"));
    for key in keys.and_then(Value::as_array_mut).into_iter().flatten() {
        remove(key, &["last_used"]);
    }
    let mut text = String::new();
    write_canonical(&pack, &mut text);
    Sha256::digest(text).into()
}

/// Compact JSON with sorted keys, everything beyond ASCII escaped, and floats as Python writes them: what
/// `json.dumps(pack, sort_keys=True, separators=(",", ":"))` gives.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) => text.push_str(&value.to_string()),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => text.push_str(&float_text(float)),
            None => text.push_str(&number.to_string()),
        },
        Value::String(string) => write_text(string, text),
        Value::Array(items) => {
            text.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            // A map of serde_json is sorted by bytes, which for UTF-8 is the order of code points.
            text.push('{');
            for (place, (name, member)) in members.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_text(name, text);
                text.push(':');
                write_canonical(member, text);
            }
            text.push('}');
        }
    }
}

fn write_text(string: &str, text: &mut String) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='~' => text.push(character),
            other => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('"');
}

/// The shortest digits that give the same float again; from 1e16 on, and below 1e-4, with an exponent of two digits.
fn float_text(float: f64) -> String {
    let shortest = format!("{float:?}");
    let Some((digits, exponent)) = shortest.split_once('e') else {
        return shortest;
    };
    let digits = digits.strip_suffix(".0").unwrap_or(digits);
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use serde_json::json;

    use super::*;

    fn canonical(value: &Value) -> String {
        let mut text = String::new();
        write_canonical(value, &mut text);
        text
    }

    #[test]
    fn numbers_are_rounded_once_half_to_even_and_keep_a_fraction() {
        let cents = |text| serde_json::to_string(&Rounded::cents(Money::parse(text).unwrap())).unwrap();
        for (amount, shown) in [
            ("0", "0.0"),
            ("29.99", "29.99"),
            ("0.004", "0.0"),
            ("0.005", "0.0"),
            ("0.015", "0.02"),
            ("0.015000001", "0.02"),
            ("0.005000001", "0.01"),
            ("1.999", "2.0"),
            ("1.10", "1.1"),
            ("999999999999.999999999", "1000000000000.0"),
        ] {
            assert_eq!(cents(amount), shown, "{amount}");
        }
        let json = |it: Rounded| serde_json::to_string(&it).unwrap();
        assert_eq!(json(Rounded::ratio(0, 0)), "1.0");
        assert_eq!(json(Rounded::share(0, 0)), "0.0");
        assert_eq!(json(Rounded::ratio(2, 3)), "0.6667");
        assert_eq!(json(Rounded::ratio(u64::MAX, u64::MAX)), "1.0");
        assert_eq!(json(Rounded::days(86_400)), "1.0");
        assert_eq!(json(Rounded::days(7_776_000)), "90.0");
        assert_eq!(json(Rounded::days(100_000)), "1.2");
        assert_eq!(Rounded::cents(Money::parse("1234567.891").unwrap()).grouped(), "1,234,567.89");
        assert_eq!(Rounded::ratio(1, 3).percent(), "33.33%");
        assert_eq!(
            (grouped(0_u64), grouped(999_u64), grouped(1000_u64)),
            ("0".into(), "999".into(), "1,000".into())
        );
    }

    #[test]
    fn canonical_json_is_that_of_python() {
        // Each right side is what CPython 3.12 gives for json.dumps(json.loads(left), sort_keys=True, separators=(",", ":")).
        for (json, python) in [
            (r#"{"b":1,"a":[true,null,-0.0,0.0]}"#, r#"{"a":[true,null,-0.0,0.0],"b":1}"#),
            (
                "[1e16,123456789012345678.9,1e22,0.0001,0.00001,1.5e-7,1e15]",
                "[1e+16,1.2345678901234568e+17,1e+22,0.0001,1e-05,1.5e-07,1000000000000000.0]",
            ),
            (
                r#"["é\u007f\u0001\b\f\n\r\t/\"\\ 😀\u2028"]"#,
                r#"["\u00e9\u007f\u0001\b\f\n\r\t/\"\\ \ud83d\ude00\u2028"]"#,
            ),
            (
                r#"{"\uffff":1,"😀":2,"a":18446744073709551615}"#,
                r#"{"a":18446744073709551615,"\uffff":1,"\ud83d\ude00":2}"#,
            ),
        ] {
            assert_eq!(canonical(&serde_json::from_str(json).unwrap()), python);
        }
    }

    #[test]
    fn the_digest_leaves_out_what_reading_and_signing_change() {
        let pack = json!({
            "generated_at": 1, "signatures": {}, "tenant_id": "t",
            "tamper_evidence": { "root_hash": "r", "signed_at": 1, "signature": "s", "signing_key_source": "k",
                                 "public_key": "p", "key_id": "i" },
            "access_control": { "keys": [{ "prefix": "hld_", "last_used": null }] },
        });
        let rest = r#"{"access_control":{"keys":[{"prefix":"hld_"}]},"tamper_evidence":{"root_hash":"r"},"tenant_id":"t"}"#;
        let digest: [u8; 32] = Sha256::digest(rest).into();
        assert_eq!(HEXLOWER.encode(&digest_of(&pack)), HEXLOWER.encode(&digest));
        let mut other = pack.clone();
        other["tamper_evidence"]["root_hash"] = json!("x");
        assert_ne!(digest_of(&other), digest);
    }
}
