//! Usage: how many calls a tenant made in a month, as a fold of meter readings.
//!
//! Counting every read as an event of its own would turn reads into writes. Calls are counted in memory and the count
//! is recorded as a reading: every few seconds, before any answer that tells it, and when the process ends.

use std::collections::BTreeMap;

use super::Event;
use super::id::KeyPrefix;
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    calls_by_month: BTreeMap<Month, u64>,
}

impl Usage {
    /// Calls recorded for a month.
    #[must_use]
    pub fn calls(&self, month: Month) -> u64 {
        self.calls_by_month.get(&month).copied().unwrap_or(0)
    }
}

pub(super) fn meter(command: &MeterUsage) -> Vec<Event> {
    vec![Event::UsageMetered(UsageMetered { month: command.month, keys: command.keys.clone() })]
}

pub(super) fn apply_metered(usage: &mut Usage, event: &UsageMetered) {
    let calls = usage.calls_by_month.entry(event.month).or_default();
    for reading in &event.keys {
        *calls = calls.saturating_add(reading.calls);
    }
}
