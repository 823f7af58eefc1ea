//! What tenants may use. Self-hosted means no limit unless one is configured.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::{App, Caller};
use crate::domain::id::KeyPrefix;
use crate::domain::time::Timestamp;

/// Configured limits; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Calls of one key in an hour.
    pub requests_per_hour: Option<u64>,
    /// Calls of one tenant in a calendar month.
    pub requests_per_month: Option<u64>,
    /// Agents of one tenant that may hold live sessions at once.
    pub agents: Option<u64>,
}

/// What clients are shown where a limit is expected and there is none.
pub const SHOWN_FOR_UNLIMITED: u64 = 999_999_999;
/// Seconds of a window, which starts with the key's first call.
const WINDOW_S: u64 = 3600;
/// Windows that are kept before over ones are swept out.
const WINDOW_COUNT_SWEEP: usize = 10_000;

/// Calls per key in its current window. In memory only: a restart starts afresh.
#[derive(Debug, Default)]
pub struct Windows {
    by_key: Mutex<HashMap<KeyPrefix, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    ends_at: Timestamp,
    used: u64,
}

/// Where a caller stands with its limits, this call included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The hourly limit and what was used of it.
    pub hourly: Bucket,
    /// The monthly limit and what was used of it, this call excluded. Absent when the hourly limit was exceeded.
    pub monthly: Option<Bucket>,
    /// Which limit turned the call away, if one did.
    pub exceeded: Option<Exceeded>,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Calls allowed.
    pub limit: u64,
    /// Calls made.
    pub used: u64,
    /// Seconds since the epoch at which counting starts anew.
    pub reset: u64,
    /// Seconds until then.
    pub reset_after: u64,
}

/// Which limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// The limit of the key in an hour.
    Hourly,
    /// The limit of the tenant in a month.
    Monthly,
}

impl Windows {
    fn count(&self, prefix: &KeyPrefix, now: Timestamp) -> Window {
        let mut by_key = self.by_key.lock();
        if by_key.len() >= WINDOW_COUNT_SWEEP {
            by_key.retain(|_, window| window.ends_at > now);
        }
        let fresh = Window { ends_at: now.plus_seconds(WINDOW_S), used: 0 };
        let window = by_key.entry(prefix.clone()).or_insert(fresh);
        if window.ends_at <= now {
            *window = fresh;
        }
        window.used += 1;
        *window
    }
}

/// Counts a call against its limits.
#[must_use]
pub fn count(app: &App, caller: &Caller, now: Timestamp) -> Standing {
    let window = app.windows.count(&caller.prefix, now);
    let hourly = bucket(app.limits.requests_per_hour, window.used, window.ends_at, now);
    if window.used > hourly.limit {
        return Standing { hourly, monthly: None, exceeded: Some(Exceeded::Hourly) };
    }
    let month = now.month();
    let quota = app.limits.requests_per_month.unwrap_or(u64::MAX);
    let (used, exceeded) = match app.meter.reserve(app, &caller.tenant, month, quota) {
        Ok(used) => (used, None),
        Err(used) => (used, Some(Exceeded::Monthly)),
    };
    let monthly = bucket(app.limits.requests_per_month, used, month.end(), now);
    Standing { hourly, monthly: Some(monthly), exceeded }
}

fn bucket(limit: Option<u64>, used: u64, ends_at: Timestamp, now: Timestamp) -> Bucket {
    let reset = ends_at.seconds();
    Bucket {
        limit: limit.unwrap_or(SHOWN_FOR_UNLIMITED),
        used,
        reset,
        reset_after: reset.saturating_sub(now.seconds()),
    }
}
