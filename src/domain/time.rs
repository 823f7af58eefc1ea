//! Moments and calendar months. Pure arithmetic: the clock itself lives in `ledger`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A moment in microseconds since 1970-01-01T00:00:00 UTC, leap seconds ignored as in POSIX time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(u64);

/// Microseconds in one second.
const MICROS_PER_SECOND: u64 = 1_000_000;
/// The last second that can be printed in every time zone with a year of four digits, 9999-12-30T22:00:00 UTC.
const SECONDS_MAX: u64 = 253_402_207_200;

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

    /// The moment `seconds` earlier; stays at the epoch instead of going before it.
    #[must_use]
    pub const fn minus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds.saturating_mul(MICROS_PER_SECOND)))
    }

    /// Reads a moment as people and programs write it: seconds since the epoch, with or without a fraction, or an ISO
    /// 8601 time such as `2026-11-21T08:02:08Z`, with an offset, without one (UTC), or a date alone (its midnight).
    ///
    /// What lies beyond microseconds is cut off. A moment before the epoch becomes the epoch: nothing is older. `None` for
    /// any other text, and for moments after the year 9999, which are milliseconds by mistake.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_seconds(text).or_else(|| Self::parse_calendar(text))
    }

    fn parse_seconds(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let seconds: u64 = whole.parse().ok().filter(|seconds| *seconds <= SECONDS_MAX)?;
        let micros: u64 = format!("{fraction:0<6.6}").parse().ok()?;
        let moment = Self(seconds * MICROS_PER_SECOND + micros);
        Some(if unsigned.len() == text.len() { moment } else { Self::default() })
    }

    fn parse_calendar(text: &str) -> Option<Self> {
        let time = text.get("YYYY-MM-DD".len()..)?;
        if time.contains('[') {
            return None; // The name of a time zone, which we would not look at.
        }
        let has_offset = time.contains(['Z', 'z', '+', '-']);
        let moment = if has_offset {
            text.parse::<jiff::Timestamp>().ok()?
        } else {
            jiff::tz::TimeZone::UTC.to_timestamp(text.parse().ok()?).ok()?
        };
        Some(Self(u64::try_from(moment.as_microsecond()).unwrap_or(0)))
    }

    /// The next representable moment, one microsecond later.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The hour of the day in UTC, 0 to 23.
    #[must_use]
    pub const fn hour(self) -> u64 {
        self.seconds() / 3600 % 24
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
    fn moments_are_read_as_people_and_programs_write_them() {
        for (text, micros) in [
            ("0", 0),
            ("1700000000", 1_700_000_000_000_000),
            ("1700000000.25", 1_700_000_000_250_000),
            ("1700000000.1234567", 1_700_000_000_123_456),
            ("1700000000.000001", 1_700_000_000_000_001),
            ("-5", 0),
            ("-0.5", 0),
            ("20260101", 20_260_101_000_000),
            ("253402207200.999999", 253_402_207_200_999_999),
            ("2023-11-14", 1_699_920_000_000_000),
            ("2023-11-14T22:13:20", 1_700_000_000_000_000),
            ("2023-11-14 22:13:20", 1_700_000_000_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000_000),
            ("2023-11-14t22:13:20z", 1_700_000_000_000_000),
            ("2023-11-14T22:13:20.250001+00:00", 1_700_000_000_250_001),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000_000_000),
            ("2023-11-14T17:13:20-0500", 1_700_000_000_000_000),
            ("2023-11-14T22:13", 1_699_999_980_000_000),
            ("1969-12-31T23:59:59Z", 0),
            ("1902-01-01", 0),
        ] {
            assert_eq!(Timestamp::parse(text), Some(Timestamp::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_told_from_one() {
        for text in [
            "",
            " ",
            "-",
            ".",
            "1.",
            ".5",
            "1.2.3",
            "1e9",
            "+1700000000",
            " 1700000000",
            "nan",
            "inf",
            "0x10",
            "1_000",
            "1700000000000",
            "253402207201",
            "9999-12-31",
            "99999999999999999999999",
            "yesterday",
            "2023-13-01",
            "2023-02-30",
            "2023-11-14T25:00:00Z",
            "2023-11-14T22:13:20+99:00",
            "2023-11-14T22:13:20 02:00",
            "2023-11-14T22:13:20[Europe/Paris]",
            "2023-11-14T22:13:20Z[UTC]",
            "2023-11-14Z",
            "2023-11-14T22:13:20Zz",
            "14.11.2023",
            "2023-11",
            "２０２３",
            "2023-11-14T22:13:20\u{e9}",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_text_that_is_printed_is_read_back() {
        for micros in [0, 1, 999_999, 1_700_000_000_000_001, 1_798_761_599_999_999, 253_402_207_200_999_999] {
            let moment = Timestamp::from_micros(micros);
            assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment), "{moment}");
            let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            assert_eq!(Timestamp::parse(&seconds), Some(moment), "{seconds}");
        }
    }

    #[test]
    fn moments_print_as_rfc_3339() {
        let moment = Timestamp::from_micros(1_700_000_000_250_001);
        assert_eq!(moment.to_string(), "2023-11-14T22:13:20.250001Z");
        let _ = Timestamp::from_micros(u64::MAX).to_string();
    }
}
