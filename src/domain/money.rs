//! Exact amounts of money.
//!
//! An amount is a whole number of billionths of a dollar, read from and written to decimal text. No binary
//! floating-point number is involved anywhere, so `0.1 + 0.1 + 0.1` is `0.3`.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// A non-negative amount in units of 10⁻⁹ USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Money(u128);

/// Billionths in one unit.
const NANOS_PER_UNIT: u128 = 1_000_000_000;
/// Decimal places that an amount may have.
pub const DECIMAL_PLACES_MAX: u32 = 9;
/// Digits that [`Decimal`] holds without rounding; longer text is refused before it could be rounded.
const DIGIT_COUNT_MAX: usize = 28;

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number at all.
    #[error("expected a decimal number")]
    NotANumber,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// More than nine decimal places, or more digits than can be held exactly.
    #[error("at most 9 decimal places can be recorded exactly")]
    TooPrecise,
    /// Above [`Money::INPUT_MAX`].
    #[error("at most 1000000000000 can be recorded")]
    TooLarge,
}

impl Money {
    /// As much as can be recorded.
    pub const MAX: Self = Self(u128::MAX);
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that one input may name, 10¹² USD. Sums of inputs then fit 128 bits for ever.
    pub const INPUT_MAX: Self = Self(1_000_000_000_000 * NANOS_PER_UNIT);

    /// The amount of `nanos` billionths.
    #[must_use]
    pub const fn from_nanos(nanos: u128) -> Self {
        Self(nanos)
    }

    /// The amount in billionths.
    #[must_use]
    pub const fn nanos(self) -> u128 {
        self.0
    }

    /// Reads decimal text such as `29.99`, `1e-3` or `5`.
    ///
    /// # Errors
    ///
    /// [`MoneyError`], when the text cannot be held exactly or lies outside `0..=`[`Money::INPUT_MAX`].
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        let unsigned = mantissa.trim_start_matches(['-', '+']);
        let is_number = !unsigned.is_empty()
            && unsigned.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            && unsigned.bytes().any(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(MoneyError::NotANumber);
        }
        let digit_count = unsigned.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
        if digit_count > DIGIT_COUNT_MAX {
            return Err(if unsigned.contains('.') { MoneyError::TooPrecise } else { MoneyError::TooLarge });
        }
        let decimal = if mantissa.len() == text.len() {
            Decimal::from_str_exact(text)
        } else {
            Decimal::from_scientific(text)
        };
        let decimal = match decimal {
            Ok(decimal) => decimal,
            Err(_) if digit_count == 0 => Decimal::ZERO,
            Err(_) => return Err(Self::error_outside_decimal(text)),
        };
        Self::from_decimal(decimal)
    }

    fn from_decimal(decimal: Decimal) -> Result<Self, MoneyError> {
        let decimal = decimal.normalize();
        if decimal.is_sign_negative() && !decimal.is_zero() {
            return Err(MoneyError::Negative);
        }
        if decimal.scale() > DECIMAL_PLACES_MAX {
            return Err(MoneyError::TooPrecise);
        }
        let shift = 10_u128.pow(DECIMAL_PLACES_MAX - decimal.scale());
        let nanos = decimal.mantissa().unsigned_abs().checked_mul(shift).ok_or(MoneyError::TooLarge)?;
        let money = Self(nanos);
        if money > Self::INPUT_MAX { Err(MoneyError::TooLarge) } else { Ok(money) }
    }

    /// Tells the caller which way a well-formed number left the range of [`Decimal`].
    fn error_outside_decimal(text: &str) -> MoneyError {
        match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let exponent_ok = exponent.trim_start_matches(['-', '+']).bytes().all(|b| b.is_ascii_digit())
                    && exponent.bytes().any(|b| b.is_ascii_digit());
                if !exponent_ok {
                    MoneyError::NotANumber
                } else if mantissa.starts_with('-') {
                    MoneyError::Negative
                } else if exponent.starts_with('-') {
                    MoneyError::TooPrecise
                } else {
                    MoneyError::TooLarge
                }
            }
            None if text.matches('.').count() > 1 => MoneyError::NotANumber,
            None => MoneyError::TooPrecise,
        }
    }

    /// The sum, or `None` past 2¹²⁸ billionths.
    #[must_use]
    pub const fn plus(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// The difference, or zero when `other` is larger.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Money {
    /// The exact decimal with at least one and at most nine decimal places: `29.99`, `0.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % NANOS_PER_UNIT);
        let trimmed = fraction.trim_end_matches('0');
        let fraction = if trimmed.is_empty() { "0" } else { trimmed };
        write!(f, "{}.{fraction}", self.0 / NANOS_PER_UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, nanos) in [
            ("29.99", 29_990_000_000),
            ("0.01", 10_000_000),
            ("1e-3", 1_000_000),
            ("1E2", 100_000_000_000),
            ("0.000000001", 1),
            ("5.0000000000000", 5_000_000_000),
            ("-0.0", 0),
            ("0e999", 0),
            ("1000000", 1_000_000_000_000_000),
        ] {
            assert_eq!(Money::parse(text), Ok(Money(nanos)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_held_exactly_is_refused() {
        use MoneyError::{Negative, NotANumber, TooLarge, TooPrecise};
        for (text, error) in [
            ("nan", NotANumber),
            ("inf", NotANumber),
            ("", NotANumber),
            (".", NotANumber),
            ("1.2.3", NotANumber),
            ("1e", NotANumber),
            ("1ex", NotANumber),
            ("12 ", NotANumber),
            ("-1", Negative),
            ("-1e400", Negative),
            ("0.0000000001", TooPrecise),
            ("0.30000000000000004", TooPrecise),
            ("1e-400", TooPrecise),
            ("0.0100000000000000000000000000000000001", TooPrecise),
            ("1e400", TooLarge),
            ("1000000000001", TooLarge),
            ("99999999999999999999999999999999999999999", TooLarge),
        ] {
            assert_eq!(Money::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn amounts_print_without_noise() {
        let tenth = Money::parse("0.1").unwrap();
        let three_tenths = tenth.plus(tenth).unwrap().plus(tenth).unwrap();
        assert_eq!(three_tenths.to_string(), "0.3");
        assert_eq!(Money::ZERO.to_string(), "0.0");
        assert_eq!(Money::parse("50").unwrap().to_string(), "50.0");
        assert_eq!(Money(u128::MAX).to_string(), "340282366920938463463374607431.768211455");
    }
}
