//! Schedules of evidence packs: add, list, drop.

use serde::Serialize;
use utoipa::ToSchema;

use super::past::Moment;
use super::wire::Epoch;
use super::{App, Caller, OperationError, only_event};
use crate::domain::compliance::{Cadence, CreateSchedule, Delivery, RemoveSchedule, RunOutcome, Schedule};
use crate::domain::id::{ScheduleId, TenantId};
use crate::domain::{Command, Event};

/// A schedule to be added.
#[derive(Debug, Clone)]
pub struct CreateScheduleRequest {
    /// A name for people.
    pub name: String,
    /// How often it runs.
    pub cadence: Cadence,
    /// Where its packs go.
    pub delivery: String,
}

/// A schedule that was just added.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedSchedule {
    /// Its id.
    #[schema(example = "sched_…")]
    pub schedule_id: String,
    /// Whose it is.
    pub tenant_id: String,
    /// A name for people.
    pub name: String,
    /// `daily`, `weekly`, `monthly` or `quarterly`.
    pub cadence: &'static str,
    /// Where its packs go.
    pub delivery: String,
    /// Always true.
    pub active: bool,
    /// When it was added.
    pub created_at: Epoch,
    /// When a pack of it was last delivered: never, `0.0`.
    pub last_run_at: Epoch,
    /// When it is to run: now.
    pub next_due: Epoch,
}

/// A schedule in the list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleRow {
    /// Its id.
    pub schedule_id: String,
    /// A name for people.
    pub name: String,
    /// `daily`, `weekly`, `monthly` or `quarterly`.
    pub cadence: &'static str,
    /// Where its packs go.
    pub delivery: String,
    /// Always true.
    pub active: bool,
    /// When it was added.
    pub created_at: Epoch,
    /// When a pack of it was last delivered; `0.0` is never.
    pub last_run_at: Epoch,
    /// When it is to run next.
    pub next_due: Epoch,
    /// What became of the last run: `fired`, `sent`, `build_failed`, `no_dispatcher`, `smtp_unconfigured`, `smtp_failed`;
    /// empty before the first.
    pub last_status: &'static str,
    /// What went wrong in it; empty when nothing did.
    pub last_error: String,
    /// Runs that delivered a pack.
    pub run_count: u64,
    /// Runs that did not.
    pub fail_count: u64,
}

/// A schedule, and whose it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnedSchedule {
    /// Whose it is.
    pub tenant_id: String,
    /// The schedule.
    #[serde(flatten)]
    pub schedule: ScheduleRow,
}

/// The tenant's schedules.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleList {
    /// Newest first.
    pub schedules: Vec<OwnedSchedule>,
}

/// Adds a schedule. Its first pack is due at once.
///
/// # Errors
///
/// [`OperationError::InvalidSchedule`] for a delivery that cannot be, or more schedules than a tenant may have.
pub async fn create(
    app: &App,
    caller: &Caller,
    request: CreateScheduleRequest,
) -> Result<CreatedSchedule, OperationError> {
    let expected = "delivery: expected webhook:<id, name, URL or all>, or email:<address>";
    let delivery = Delivery::parse(&request.delivery)
        .ok_or_else(|| OperationError::InvalidSchedule(expected.to_owned()))?;
    let command = Command::CreateSchedule(CreateSchedule {
        schedule_id: ScheduleId::issue(app.ledger.random().bytes()),
        name: request.name,
        cadence: request.cadence,
        delivery,
    });
    let receipt = app.submit(caller, command, None, vec![]).await?;
    let recorded = &only_event(&receipt)?.recorded;
    match &recorded.event {
        Event::ScheduleCreated(created) => Ok(CreatedSchedule {
            schedule_id: created.schedule_id.to_string(),
            tenant_id: caller.tenant.to_string(),
            name: created.name.clone(),
            cadence: created.cadence.name(),
            delivery: created.delivery.to_string(),
            active: true,
            created_at: Epoch(recorded.at),
            last_run_at: Epoch::or_zero(None),
            next_due: Epoch(recorded.at),
        }),
        _ => Err(OperationError::unexpected(&receipt)),
    }
}

/// Drops a schedule.
///
/// # Errors
///
/// [`OperationError::NotFound`] for a schedule that the tenant does not have.
pub async fn remove(app: &App, caller: &Caller, schedule_id: &str) -> Result<(), OperationError> {
    let schedule_id = ScheduleId::parse(schedule_id).ok_or(OperationError::NotFound("schedule"))?;
    app.submit(caller, Command::RemoveSchedule(RemoveSchedule { schedule_id }), None, vec![]).await?;
    Ok(())
}

/// Lists a tenant's schedules, newest first.
#[must_use]
pub fn list(moment: &Moment, tenant: &TenantId) -> ScheduleList {
    let owned = |schedule| OwnedSchedule { tenant_id: tenant.to_string(), schedule };
    ScheduleList { schedules: rows(moment).into_iter().map(owned).collect() }
}

/// Schedules, newest first.
pub(super) fn rows(moment: &Moment) -> Vec<ScheduleRow> {
    let schedules = moment.stream.tenant.schedules.newest_first();
    schedules.into_iter().map(|(id, schedule)| row(moment, id, schedule)).collect()
}

fn row(moment: &Moment, schedule_id: &ScheduleId, schedule: &Schedule) -> ScheduleRow {
    ScheduleRow {
        schedule_id: schedule_id.to_string(),
        name: schedule.name.clone(),
        cadence: schedule.cadence.name(),
        delivery: schedule.delivery.to_string(),
        active: true,
        created_at: Epoch(schedule.created_at),
        last_run_at: Epoch::or_zero(schedule.last_run_at),
        next_due: Epoch(schedule.next_due().unwrap_or(moment.at)),
        last_status: schedule.last_outcome.map_or("", RunOutcome::name),
        last_error: schedule.last_error.clone(),
        run_count: schedule.run_count,
        fail_count: schedule.fail_count,
    }
}
