//! Values as clients see them: exact decimals and moments as plain JSON numbers, written digit by digit.

use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::money::Money;
use crate::domain::time::Timestamp;

/// An amount as a JSON number, such as `29.99` or `0.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = f64, example = 29.99)]
pub struct Usd(pub Money);

impl Usd {
    /// An optional limit; no limit shows as `0.0`.
    #[must_use]
    pub fn or_zero(amount: Option<Money>) -> Self {
        Self(amount.unwrap_or(Money::ZERO))
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        number(self.0.to_string(), serializer)
    }
}

/// A moment as seconds since the epoch, a JSON number with up to six decimal places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = f64, example = 1_764_000_000.25)]
pub struct Epoch(pub Timestamp);

impl Epoch {
    /// An optional end; no end shows as `0.0`.
    #[must_use]
    pub fn or_zero(moment: Option<Timestamp>) -> Self {
        Self(moment.unwrap_or_default())
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = self.0.micros();
        let fraction = format!("{:06}", micros % 1_000_000);
        let trimmed = fraction.trim_end_matches('0');
        let fraction = if trimmed.is_empty() { "0" } else { trimmed };
        number(format!("{}.{fraction}", micros / 1_000_000), serializer)
    }
}

fn number<S: Serializer>(text: String, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
}

/// Escapes what some readers take for the end of a line, so that a line of JSON stays one. In JSON it can only stand in a
/// string.
#[must_use]
pub fn without_line_ends(json: String) -> String {
    if !json.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return json;
    }
    json.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_and_keep_a_fraction() {
        let json = |value: &dyn erased::Json| value.json();
        assert_eq!(json(&Usd(Money::parse("29.99").unwrap())), "29.99");
        assert_eq!(json(&Usd::or_zero(None)), "0.0");
        assert_eq!(json(&Usd(Money::parse("999999999999.999999999").unwrap())), "999999999999.999999999");
        assert_eq!(json(&Epoch(Timestamp::from_micros(1_700_000_000_250_000))), "1700000000.25");
        assert_eq!(json(&Epoch(Timestamp::from_micros(1_700_000_000_000_001))), "1700000000.000001");
        assert_eq!(json(&Epoch::or_zero(None)), "0.0");
    }

    mod erased {
        pub(super) trait Json {
            fn json(&self) -> String;
        }
        impl<T: serde::Serialize> Json for T {
            fn json(&self) -> String {
                serde_json::to_string(self).unwrap()
            }
        }
    }
}
