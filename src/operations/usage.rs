//! Usage: calls are counted in memory and recorded as meter readings.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

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
    /// Held while readings are recorded, so that nobody sees them neither here nor there.
    recording: tokio::sync::Mutex<()>,
}

type Pending = BTreeMap<(Month, KeyPrefix), Calls>;

#[derive(Debug, Clone, Copy)]
struct Calls {
    count: u64,
    last_used: Timestamp,
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
    /// Counts one call.
    pub fn count(&self, caller: &Caller, at: Timestamp) {
        let mut pending = self.pending.lock();
        let calls = pending
            .entry(caller.tenant.clone())
            .or_default()
            .entry((at.month(), caller.prefix.clone()))
            .or_insert(Calls { count: 0, last_used: at });
        calls.count += 1;
        calls.last_used = calls.last_used.max(at);
    }

    /// Calls of a month that are not recorded yet.
    #[must_use]
    pub fn pending(&self, tenant: &TenantId, month: Month) -> u64 {
        let pending = self.pending.lock();
        let calls = pending.get(tenant).into_iter().flatten();
        calls.filter(|((of, _), _)| *of == month).map(|(_, calls)| calls.count).sum()
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
                    side: None,
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

/// How many calls the tenant made in a month, this month unless another is named.
///
/// # Errors
///
/// [`OperationError`] when the ledger does not answer.
pub async fn report(app: &App, caller: &Caller, month: Option<Month>) -> Result<UsageReport, OperationError> {
    // What is told here is recorded first, so that it is never told and then forgotten.
    app.meter.record(app, &caller.tenant).await?;
    let month = month.unwrap_or_else(|| app.ledger.clock().now().month());
    let action_count = app.with_tenant(&caller.tenant, |tenant| tenant.usage.calls(month))?;
    Ok(UsageReport {
        tenant_id: caller.tenant.to_string(),
        month: month.to_string(),
        action_count,
        tier: TIER,
    })
}
