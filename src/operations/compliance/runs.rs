//! Runs schedules that are due: builds the pack, hands it on, records what became of it.
//!
//! A pack for a webhook is handed on by being recorded: the event is what the webhook is told of, and the pack stands beside
//! it. A letter is sent first and recorded then; a crash in between sends it again, under the same name.

use std::sync::Arc;

use data_encoding::HEXLOWER;

use super::{Evidence, Period, evidence, markdown};
use crate::domain::Command;
use crate::domain::compliance::{Delivery, Pack, RecordRun, RunOutcome, RunResult, Schedule};
use crate::domain::id::{Actor, RequestId, ScheduleId, TenantId};
use crate::domain::limits::RUN_ERROR_CHARS_MAX;
use crate::domain::time::Timestamp;
use crate::domain::{Event, Refusal};
use crate::ledger::{LedgerError, Request};
use crate::operations::{App, OperationError};
use crate::outbound::mail::{Letter, Mailer};
use crate::store::{SideKind, SideRow};

/// Runs every schedule of every tenant that is due now. One that cannot be run does not keep the others from it.
pub async fn run_due(app: &Arc<App>, mailer: Option<&Mailer>) {
    let now = app.ledger.clock().now();
    let due: Vec<_> = {
        let world = app.ledger.read();
        let of_tenant = |(tenant, stream): (&TenantId, &Arc<crate::ledger::world::Stream>)| {
            let schedules = stream.tenant.schedules.newest_first();
            let due = schedules.into_iter().rev().filter(|(_, schedule)| schedule.is_due(now));
            due.map(|(id, schedule)| (tenant.clone(), id.clone(), schedule.clone())).collect::<Vec<_>>()
        };
        world.streams().flat_map(of_tenant).collect()
    };
    for (tenant, schedule_id, schedule) in due {
        match run(app, &tenant, &schedule_id, &schedule, mailer).await {
            Ok(Some(outcome)) if outcome.is_delivered() => {
                tracing::info!(%tenant, %schedule_id, outcome = outcome.name(), "an evidence pack was delivered");
            }
            Ok(Some(outcome)) => {
                tracing::warn!(%tenant, %schedule_id, outcome = outcome.name(), "an evidence pack was not delivered");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%tenant, %schedule_id, %error, "a schedule could not be run"),
        }
    }
}

/// Runs one schedule; `None` when it turned out that it is not to run.
async fn run(
    app: &Arc<App>,
    tenant: &TenantId,
    schedule_id: &ScheduleId,
    schedule: &Schedule,
    mailer: Option<&Mailer>,
) -> Result<Option<RunOutcome>, OperationError> {
    let until = Timestamp::default().plus_seconds(app.ledger.clock().now().seconds());
    let period = Period { since: schedule.period_start(until), until };
    if period.since >= period.until {
        return Ok(None);
    }
    let (result, side) = match build(app, tenant, period).await {
        Err(error) => (RunResult::NotBuilt { error: bounded(&error.to_string()) }, vec![]),
        Ok((pack, evidence, json)) => {
            let value = json.into_bytes();
            let row = SideRow { kind: SideKind::EvidencePack, id: pack.digest.to_vec(), value };
            (hand_on(tenant, schedule_id, schedule, pack, &evidence, mailer).await, vec![row])
        }
    };
    let run = RecordRun { schedule_id: schedule_id.clone(), period_end: period.until, result };
    let request = Request {
        tenant: tenant.clone(),
        actor: Actor::System,
        request_id: RequestId::issue(app.ledger.random().bytes()),
        idempotency: None,
        command: Command::RecordRun(run),
        side,
    };
    match app.ledger.submit(request).await {
        Ok(receipt) => Ok(receipt.events.iter().find_map(|committed| match &committed.recorded.event {
            Event::ScheduleRan(ran) => Some(ran.outcome),
            _ => None,
        })),
        // Dropped by its tenant while the pack was built, or run already.
        Err(LedgerError::Refused(Refusal::ScheduleUnknown | Refusal::ScheduleNotDue)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn build(
    app: &Arc<App>,
    tenant: &TenantId,
    period: Period,
) -> Result<(Pack, Evidence, String), OperationError> {
    let moment = app.moment(tenant, None).await?;
    let evidence = evidence(app, tenant, period, &moment).await?;
    let unwritable = |error: &dyn std::fmt::Display| OperationError::Internal(error.to_string());
    let json = serde_json::to_string(&evidence).map_err(|error| unwritable(&error))?;
    let digest =
        HEXLOWER.decode(evidence.signatures.digest.as_bytes()).map_err(|error| unwritable(&error))?;
    let digest = digest.try_into().map_err(|_| unwritable(&"a digest of another length"))?;
    Ok((Pack { digest, size: evidence.ledger.size }, evidence, json))
}

async fn hand_on(
    tenant: &TenantId,
    schedule_id: &ScheduleId,
    schedule: &Schedule,
    pack: Pack,
    evidence: &Evidence,
    mailer: Option<&Mailer>,
) -> RunResult {
    let address = match &schedule.delivery {
        Delivery::Webhook(_) => return RunResult::Built(pack),
        Delivery::Email(address) => address,
    };
    let Some(mailer) = mailer else {
        let error = "no mail server is configured: set smtp-host".to_owned();
        return RunResult::NotMailed { pack, is_configured: false, error };
    };
    match mailer.send(letter(tenant, schedule_id, schedule, evidence, address)).await {
        Ok(()) => RunResult::Mailed(pack),
        Err(error) => RunResult::NotMailed { pack, is_configured: true, error: bounded(&error) },
    }
}

fn letter(
    tenant: &TenantId,
    schedule_id: &ScheduleId,
    schedule: &Schedule,
    evidence: &Evidence,
    address: &str,
) -> Letter {
    let digest = &evidence.signatures.digest;
    let (start, end) = (&evidence.period_start, &evidence.period_end);
    let name: String = schedule.name.chars().filter(|it| !it.is_control()).collect();
    Letter {
        to: address.to_owned(),
        subject: format!("Haldir audit-prep evidence pack {start} to {end}"),
        text: format!(
            "The {} evidence pack of the schedule {name:?} for tenant {tenant}.\n\nPeriod:   {start} to {end}\nGenerated: {}\nDigest:   \
             {digest}\n\nActions logged: {}\nChain verified: {}\nLedger entries: {}\n\nThe pack is attached. The digest stands in the ledger as \
             well, in the event schedule.ran.\n\n{}\n",
            schedule.cadence.name(),
            evidence.generated_at,
            evidence.audit_trail.total_entries_in_period,
            evidence.audit_trail.chain_verified,
            evidence.ledger.size,
            evidence.disclaimer,
        ),
        name: format!("{}.{schedule_id}", digest.get(..32).unwrap_or(digest)),
        headers: vec![("X-Haldir-Tenant", tenant.to_string()), ("X-Haldir-Evidence-Digest", digest.clone())],
        document: (
            format!("haldir-evidence-{tenant}-{}.md", digest.get(..12).unwrap_or(digest)),
            markdown::document(evidence),
        ),
    }
}

/// The beginning of what went wrong, as much as is recorded.
fn bounded(error: &str) -> String {
    error.chars().map(|it| if it.is_control() { ' ' } else { it }).take(RUN_ERROR_CHARS_MAX).collect()
}
