//! Usage: how many calls a tenant made in a month, as a fold of meter readings.
//!
//! Counting every read as an event of its own would turn reads into writes. Calls are counted in memory and the count
//! is recorded as a reading: every few seconds, before any answer that tells it, and when the process ends.

use serde::{Deserialize, Serialize};

use super::Event;
use super::id::KeyPrefix;
use super::table::Table;
use super::time::{Month, Timestamp};

/// Record how many calls were made since the last reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterUsage {
    /// The month in which the calls were made.
    pub month: Month,
    /// Calls per key.
    pub keys: Vec<KeyReading>,
}

/// What one key did since the last reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyReading {
    /// Which key.
    pub prefix: KeyPrefix,
    /// Calls since the last reading.
    pub calls: u64,
    /// The last of them.
    pub last_used: Timestamp,
}

/// Calls were metered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageMetered {
    /// The month in which the calls were made.
    pub month: Month,
    /// Calls per key.
    pub keys: Vec<KeyReading>,
}

/// Calls per month.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    calls_by_month: Table<Month, u64>,
    readings_at_the_end: u64,
}

impl Usage {
    /// Calls recorded for a month.
    #[must_use]
    pub fn calls(&self, month: Month) -> u64 {
        self.calls_by_month.get(&month).copied().unwrap_or(0)
    }

    /// Readings since anything else was recorded. They tell how often somebody asked, not what was done: what stands on the
    /// entries before them does not change by being read.
    #[must_use]
    pub const fn readings_at_the_end(&self) -> u64 {
        self.readings_at_the_end
    }
}

pub(super) fn meter(command: &MeterUsage) -> Vec<Event> {
    vec![Event::UsageMetered(UsageMetered { month: command.month, keys: command.keys.clone() })]
}

pub(super) fn apply_metered(usage: &mut Usage, event: &UsageMetered) {
    let calls = usage.calls_by_month.get_or_default_cow(event.month);
    for reading in &event.keys {
        *calls = calls.saturating_add(reading.calls);
    }
}

pub(super) const fn count_readings_at_the_end(usage: &mut Usage, event: &Event) {
    usage.readings_at_the_end =
        if matches!(event, Event::UsageMetered(_)) { usage.readings_at_the_end + 1 } else { 0 };
}

#[cfg(test)]
mod tests {
    use crate::domain::Command;
    use crate::domain::keys::tests::{given, minted, moment, prefix};

    use super::*;

    #[test]
    fn readings_add_up_for_each_month() {
        let (november, december) = (Month::new(2026, 11).unwrap(), Month::new(2026, 12).unwrap());
        let story = [(november, 3, 4), (december, 10, 0), (november, 1, 0)].into_iter().fold(
            given([minted("k", "*"), minted("l", "*")]),
            |story, (month, of_k, of_l)| {
                let keys = vec![reading("k", of_k), reading("l", of_l)];
                let metered = UsageMetered { month, keys: keys.clone() };
                story
                    .when(Command::MeterUsage(MeterUsage { month, keys }))
                    .then([Event::UsageMetered(metered)])
            },
        );
        let usage = &story.state().usage;
        assert_eq!((usage.calls(november), usage.calls(december)), (8, 10));
        assert_eq!(usage.calls(Month::new(2027, 11).unwrap()), 0);
    }

    #[test]
    fn readings_at_the_end_are_told_from_what_was_done() {
        let metered =
            || Event::UsageMetered(UsageMetered { month: Month::new(2026, 11).unwrap(), keys: Vec::new() });
        let story = given([minted("k", "*"), metered(), metered()]);
        assert_eq!(story.state().usage.readings_at_the_end(), 2);
        let story = given([metered(), minted("k", "*")]);
        assert_eq!(story.state().usage.readings_at_the_end(), 0);
    }

    #[test]
    fn a_count_that_is_full_stays_full() {
        let month = Month::new(2026, 11).unwrap();
        let full =
            Event::UsageMetered(UsageMetered { month, keys: vec![reading("k", u64::MAX), reading("l", 1)] });
        assert_eq!(given([full.clone(), full]).state().usage.calls(month), u64::MAX);
    }

    fn reading(name: &str, calls: u64) -> KeyReading {
        KeyReading { prefix: prefix(name), calls, last_used: moment(1) }
    }
}
