//! Usage: calls are counted in memory and recorded as meter readings.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use super::past::Moment;
use super::{App, Caller, OperationError, TIER};
use crate::domain::Command;
use crate::domain::id::{Actor, KeyPrefix, RequestId, TenantId};
use crate::domain::limits::METERED_KEY_COUNT_MAX;
use crate::domain::time::{Month, Timestamp};
use crate::domain::usage::{KeyReading, MeterUsage};
use crate::ledger::Request;

/// Calls that were made but not recorded yet.
#[derive(Debug, Default)]
pub struct Meter {
    pending: Mutex<BTreeMap<TenantId, Pending>>,
    totals: Mutex<BTreeMap<TenantId, Total>>,
    /// Held while readings are recorded, so that nobody sees them neither here nor there.
    recording: tokio::sync::Mutex<()>,
}

type Pending = BTreeMap<(Month, KeyPrefix), Calls>;

#[derive(Debug, Clone, Copy)]
struct Calls {
    count: u64,
    last_used: Timestamp,
}

/// All calls of a tenant in a month, recorded or not. Kept apart from both, because a call that is being recorded may show in
/// both for a moment.
#[derive(Debug, Clone, Copy)]
struct Total {
    month: Month,
    calls: u64,
}

/// Calls in one month.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageReport {
    /// The tenant.
    pub tenant_id: String,
    /// The month, `YYYY-MM` in UTC.
    pub month: String,
    /// Calls made.
    pub action_count: u64,
    /// The tenant's plan.
    pub tier: &'static str,
}

impl Meter {
    /// Counts one call. `is_reserved` says that [`Meter::reserve`] has counted it against the quota.
    pub fn count(&self, app: &App, caller: &Caller, at: Timestamp, is_reserved: bool) {
        let month = at.month();
        if !is_reserved {
            self.with_total(app, &caller.tenant, month, |calls| *calls += 1);
        }
        let mut pending = self.pending.lock();
        let calls = pending
            .entry(caller.tenant.clone())
            .or_default()
            .entry((month, caller.prefix.clone()))
            .or_insert(Calls { count: 0, last_used: at });
        calls.count += 1;
        calls.last_used = calls.last_used.max(at);
    }

    /// Takes one call from the month's quota, if it holds one. Look and take are one step, so that calls that come at once
    /// cannot share the last one.
    ///
    /// # Errors
    ///
    /// The calls made, when the quota is used up. Else the same, without this one, is the answer.
    pub fn reserve(&self, app: &App, tenant: &TenantId, month: Month, quota: u64) -> Result<u64, u64> {
        self.with_total(app, tenant, month, |calls| {
            let before = *calls;
            if before >= quota {
                return Err(before);
            }
            *calls += 1;
            Ok(before)
        })
    }

    fn with_total<T>(&self, app: &App, tenant: &TenantId, month: Month, f: impl FnOnce(&mut u64) -> T) -> T {
        // The first look at a month takes what is recorded: nothing of this process is pending for it then.
        let recorded = || app.with_tenant(tenant, |tenant| tenant.usage.calls(month)).unwrap_or(0);
        let mut totals = self.totals.lock();
        let total = totals.entry(tenant.clone()).or_insert_with(|| Total { month, calls: recorded() });
        if total.month < month {
            *total = Total { month, calls: recorded() };
        }
        // A call that began before the month ended and ends after it counts for a month whose quota nobody asks for.
        if total.month == month { f(&mut total.calls) } else { f(&mut 0) }
    }

    /// Records what a tenant did since the last reading.
    ///
    /// # Errors
    ///
    /// [`OperationError`] when the ledger does not take it; the calls stay pending.
    pub async fn record(&self, app: &App, tenant: &TenantId) -> Result<(), OperationError> {
        let _recording = self.recording.lock().await;
        let snapshot = self.pending.lock().get(tenant).cloned().unwrap_or_default();
        let mut by_month: BTreeMap<Month, Vec<KeyReading>> = BTreeMap::new();
        for ((month, prefix), calls) in snapshot {
            let reading = KeyReading { prefix, calls: calls.count, last_used: calls.last_used };
            by_month.entry(month).or_default().push(reading);
        }
        for (month, readings) in by_month {
            for keys in readings.chunks(METERED_KEY_COUNT_MAX) {
                let request = Request {
                    tenant: tenant.clone(),
                    actor: Actor::System,
                    request_id: RequestId::issue(app.ledger.random().bytes()),
                    idempotency: None,
                    command: Command::MeterUsage(MeterUsage { month, keys: keys.to_vec() }),
                    side: vec![],
                };
                app.ledger.submit(request).await?;
                self.forget(tenant, month, keys);
            }
        }
        Ok(())
    }

    /// Takes recorded calls off what is pending. Calls that came meanwhile stay.
    fn forget(&self, tenant: &TenantId, month: Month, recorded: &[KeyReading]) {
        let mut pending = self.pending.lock();
        let Some(calls) = pending.get_mut(tenant) else {
            return;
        };
        for reading in recorded {
            if let Some(calls) = calls.get_mut(&(month, reading.prefix.clone())) {
                calls.count -= reading.calls;
            }
        }
        calls.retain(|_, calls| calls.count > 0);
        if calls.is_empty() {
            pending.remove(tenant);
        }
    }

    /// Records what all tenants did since the last readings.
    ///
    /// # Errors
    ///
    /// The first [`OperationError`]; what was not recorded stays pending.
    pub async fn record_all(&self, app: &App) -> Result<(), OperationError> {
        let tenants: Vec<TenantId> = self.pending.lock().keys().cloned().collect();
        for tenant in tenants {
            self.record(app, &tenant).await?;
        }
        Ok(())
    }
}

/// How many calls a tenant made in a month, the month of the moment unless another is named.
#[must_use]
pub fn report(tenant: &TenantId, moment: &Moment, month: Option<Month>) -> UsageReport {
    let month = month.unwrap_or_else(|| moment.at.month());
    UsageReport {
        tenant_id: tenant.to_string(),
        month: month.to_string(),
        action_count: moment.stream.tenant.usage.calls(month),
        tier: TIER,
    }
}
