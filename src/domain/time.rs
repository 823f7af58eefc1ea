//! Moments and calendar months. Pure arithmetic: the clock itself lives in `ledger`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment in microseconds since 1970-01-01T00:00:00 UTC, leap seconds ignored as in POSIX time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(u64);

/// Microseconds in one second.
const MICROS_PER_SECOND: u64 = 1_000_000;

impl Timestamp {
    /// The moment `micros` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / MICROS_PER_SECOND
    }

    /// The moment `seconds` later; stays at the end of time instead of overflowing.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND)))
    }

    /// The next representable moment, one microsecond later.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The UTC calendar month this moment lies in.
    #[must_use]
    pub fn month(self) -> Month {
        let civil = self.civil();
        Month { year: civil.year().unsigned_abs(), month: civil.month().unsigned_abs() }
    }

    fn civil(self) -> jiff::civil::DateTime {
        // Moments past the year 9999 are clamped: no clock of ours reaches them, hostile bytes may.
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        let moment = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
        jiff::tz::TimeZone::UTC.to_datetime(moment)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with microseconds, for example `2026-11-21T08:02:08.000001Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.civil();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            c.year(),
            c.month(),
            c.day(),
            c.hour(),
            c.minute(),
            c.second(),
            self.0 % MICROS_PER_SECOND
        )
    }
}

/// A calendar month in UTC, the period over which usage is metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Month {
    year: u16,
    month: u8,
}

impl Month {
    /// The month `month` (1 to 12) of `year` (1970 to 9999), or `None` outside those ranges.
    #[must_use]
    pub fn new(year: u16, month: u8) -> Option<Self> {
        ((1970..=9999).contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month })
    }

    /// Reads the text form `YYYY-MM`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let digits =
            |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return None;
        }
        Self::new(year.parse().ok()?, month.parse().ok()?)
    }

    /// The year, 1970 to 9999.
    #[must_use]
    pub const fn year(self) -> u16 {
        self.year
    }

    /// The month of the year, 1 to 12.
    #[must_use]
    pub const fn month(self) -> u8 {
        self.month
    }

    /// The first moment of the month after this one.
    #[must_use]
    pub fn end(self) -> Timestamp {
        let (year, month) = if self.month == 12 { (self.year + 1, 1) } else { (self.year, self.month + 1) };
        let first_day = jiff::civil::Date::new(
            i16::try_from(year).unwrap_or(i16::MAX),
            i8::try_from(month).unwrap_or(1),
            1,
        );
        first_day
            .and_then(|day| {
                jiff::tz::TimeZone::UTC.to_timestamp(day.to_datetime(jiff::civil::Time::midnight()))
            })
            .ok()
            .and_then(|moment| u64::try_from(moment.as_microsecond()).ok())
            .map_or(Timestamp(u64::MAX), Timestamp)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let new_year_2027 = Timestamp::from_micros(1_798_761_600 * MICROS_PER_SECOND);
        let december = Month::new(2026, 12).unwrap();
        assert_eq!(december.end(), new_year_2027);
        assert_eq!(new_year_2027.month(), Month::new(2027, 1).unwrap());
        let just_before = Timestamp::from_micros(new_year_2027.micros() - 1);
        assert_eq!(just_before.month(), december);
    }

    #[test]
    fn months_read_only_their_own_form() {
        assert_eq!(Month::parse("2026-11").unwrap().to_string(), "2026-11");
        for text in ["2026-13", "2026-00", "26-11", "2026-1", "2026-11-01", "+026-11", "1969-12", ""] {
            assert_eq!(Month::parse(text), None, "{text}");
        }
    }

    #[test]
    fn moments_print_as_rfc_3339() {
        let moment = Timestamp::from_micros(1_700_000_000_250_001);
        assert_eq!(moment.to_string(), "2023-11-14T22:13:20.250001Z");
        let _ = Timestamp::from_micros(u64::MAX).to_string();
    }
}
