//! Payloads of schema version 1 about schedules of evidence packs, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::compliance::{
    Cadence, Delivery, Pack, RunOutcome, ScheduleCreated, ScheduleRan, ScheduleRemoved,
};
use crate::domain::id::ScheduleId;
use crate::domain::time::Timestamp;

#[derive(Encode, Decode)]
pub(super) struct ScheduleCreatedWire {
    schedule_id: String,
    name: String,
    cadence: u8,
    delivery: String,
}

#[derive(Encode, Decode)]
pub(super) struct ScheduleRemovedWire {
    schedule_id: String,
}

#[derive(Encode, Decode)]
pub(super) struct ScheduleRanWire {
    schedule_id: String,
    period_start_us: u64,
    period_end_us: u64,
    outcome: u8,
    error: String,
    pack: Option<PackWire>,
}

#[derive(Encode, Decode)]
struct PackWire {
    digest: [u8; 32],
    size: u64,
}

impl From<&ScheduleCreated> for ScheduleCreatedWire {
    fn from(e: &ScheduleCreated) -> Self {
        let cadence = match e.cadence {
            Cadence::Daily => 0,
            Cadence::Weekly => 1,
            Cadence::Monthly => 2,
            Cadence::Quarterly => 3,
        };
        Self {
            schedule_id: e.schedule_id.to_string(),
            name: e.name.clone(),
            cadence,
            delivery: e.delivery.to_string(),
        }
    }
}

impl Wire for ScheduleCreatedWire {
    type Event = ScheduleCreated;
    fn into_event(self) -> Result<ScheduleCreated, &'static str> {
        let cadence = match self.cadence {
            0 => Cadence::Daily,
            1 => Cadence::Weekly,
            2 => Cadence::Monthly,
            3 => Cadence::Quarterly,
            _ => return Err("cadence"),
        };
        Ok(ScheduleCreated {
            schedule_id: ScheduleId::parse(&self.schedule_id).ok_or("schedule_id")?,
            name: self.name,
            cadence,
            delivery: Delivery::read(&self.delivery).ok_or("delivery")?,
        })
    }
}

impl From<&ScheduleRemoved> for ScheduleRemovedWire {
    fn from(e: &ScheduleRemoved) -> Self {
        Self { schedule_id: e.schedule_id.to_string() }
    }
}

impl Wire for ScheduleRemovedWire {
    type Event = ScheduleRemoved;
    fn into_event(self) -> Result<ScheduleRemoved, &'static str> {
        Ok(ScheduleRemoved { schedule_id: ScheduleId::parse(&self.schedule_id).ok_or("schedule_id")? })
    }
}

impl From<&ScheduleRan> for ScheduleRanWire {
    fn from(e: &ScheduleRan) -> Self {
        let outcome = match e.outcome {
            RunOutcome::Fired => 0,
            RunOutcome::Sent => 1,
            RunOutcome::BuildFailed => 2,
            RunOutcome::NoDispatcher => 3,
            RunOutcome::SmtpUnconfigured => 4,
            RunOutcome::SmtpFailed => 5,
        };
        Self {
            schedule_id: e.schedule_id.to_string(),
            period_start_us: e.period_start.micros(),
            period_end_us: e.period_end.micros(),
            outcome,
            error: e.error.clone(),
            pack: e.pack.map(|pack| PackWire { digest: pack.digest, size: pack.size }),
        }
    }
}

impl Wire for ScheduleRanWire {
    type Event = ScheduleRan;
    fn into_event(self) -> Result<ScheduleRan, &'static str> {
        let outcome = match self.outcome {
            0 => RunOutcome::Fired,
            1 => RunOutcome::Sent,
            2 => RunOutcome::BuildFailed,
            3 => RunOutcome::NoDispatcher,
            4 => RunOutcome::SmtpUnconfigured,
            5 => RunOutcome::SmtpFailed,
            _ => return Err("outcome"),
        };
        Ok(ScheduleRan {
            schedule_id: ScheduleId::parse(&self.schedule_id).ok_or("schedule_id")?,
            period_start: Timestamp::from_micros(self.period_start_us),
            period_end: Timestamp::from_micros(self.period_end_us),
            outcome,
            error: self.error,
            pack: self.pack.map(|pack| Pack { digest: pack.digest, size: pack.size }),
        })
    }
}
