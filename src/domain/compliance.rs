//! Compliance: evidence packs that are made and sent on a schedule.
//!
//! The packs themselves are read models. What is decided here is which schedules there are, when one is due, and what
//! became of each run. The periods of a schedule's packs touch: no moment lies between two of them.

mod terms;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{Actor, ScheduleId};
use super::limits::SCHEDULE_COUNT_MAX;
use super::table::Table;
use super::time::Timestamp;
use super::{Event, Refusal};

pub use terms::{Cadence, Delivery, RunOutcome};

/// Add a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSchedule {
    /// The new schedule's id.
    pub schedule_id: ScheduleId,
    /// A name for people.
    pub name: String,
    /// How often it runs.
    pub cadence: Cadence,
    /// Where its packs go.
    pub delivery: Delivery,
}

/// Drop a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveSchedule {
    /// Which schedule.
    pub schedule_id: ScheduleId,
}

/// Record what became of a run of a schedule that is due. Haldir itself alone may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRun {
    /// Which schedule.
    pub schedule_id: ScheduleId,
    /// Where the period of the pack ends. It begins where the last delivered pack's ended.
    pub period_end: Timestamp,
    /// What was tried, and how it went.
    pub result: RunResult,
}

/// What a run came to before it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunResult {
    /// A pack was built for a webhook. Whether there is one, the rules know.
    Built(Pack),
    /// A pack was built and handed to a mail server.
    Mailed(Pack),
    /// A pack was built, but no mail server took it.
    NotMailed {
        /// The pack.
        pack: Pack,
        /// Whether a mail server is configured at all.
        is_configured: bool,
        /// What went wrong.
        error: String,
    },
    /// No pack could be built.
    NotBuilt {
        /// What went wrong.
        error: String,
    },
}

/// A pack that was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// Its digest.
    pub digest: [u8; 32],
    /// How many entries of the stream it stands on.
    pub size: u64,
}

/// A schedule was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleCreated {
    /// The new schedule's id.
    pub schedule_id: ScheduleId,
    /// A name for people.
    pub name: String,
    /// How often it runs.
    pub cadence: Cadence,
    /// Where its packs go.
    pub delivery: Delivery,
}

/// A schedule was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRemoved {
    /// Which schedule.
    pub schedule_id: ScheduleId,
}

/// A schedule that was due ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRan {
    /// Which schedule.
    pub schedule_id: ScheduleId,
    /// Where the period of the pack begins.
    pub period_start: Timestamp,
    /// Where it ends; that moment belongs to the next period.
    pub period_end: Timestamp,
    /// What became of it.
    pub outcome: RunOutcome,
    /// What went wrong; empty when nothing did.
    pub error: String,
    /// The pack, if one was built.
    pub pack: Option<Pack>,
}

/// The tenant's schedules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedules {
    by_id: Table<ScheduleId, Arc<Schedule>>,
}

/// One schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// A name for people.
    pub name: String,
    /// How often it runs.
    pub cadence: Cadence,
    /// Where its packs go.
    pub delivery: Delivery,
    /// When it was added.
    pub created_at: Timestamp,
    /// When a pack of it was last delivered.
    pub last_run_at: Option<Timestamp>,
    /// Where the period of that pack ended.
    pub covered_until: Option<Timestamp>,
    /// What became of the last run.
    pub last_outcome: Option<RunOutcome>,
    /// What went wrong in it; empty when nothing did.
    pub last_error: String,
    /// Runs that delivered a pack.
    pub run_count: u64,
    /// Runs that did not.
    pub fail_count: u64,
}

impl Schedule {
    /// When it is to run next; `None` is at once, because it never delivered a pack.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.last_run_at.map(|last| last.plus_seconds(self.cadence.seconds()))
    }

    /// Whether it is to run at `at`.
    #[must_use]
    pub fn is_due(&self, at: Timestamp) -> bool {
        self.next_due().is_none_or(|due| due <= at)
    }

    /// Where the period of a pack begins that ends at `end`: where the last one ended, or a cadence before.
    #[must_use]
    pub fn period_start(&self, end: Timestamp) -> Timestamp {
        self.covered_until.unwrap_or_else(|| end.minus_seconds(self.cadence.seconds()))
    }
}

impl Schedules {
    /// The schedule with this id.
    #[must_use]
    pub fn get(&self, id: &ScheduleId) -> Option<&Schedule> {
        self.by_id.get(id).map(|schedule| &**schedule)
    }

    /// All schedules, newest first.
    #[must_use]
    pub fn newest_first(&self) -> Vec<(&ScheduleId, &Schedule)> {
        let mut schedules: Vec<_> = self.by_id.into_iter().map(|(id, schedule)| (id, &**schedule)).collect();
        schedules.sort_by_key(|(_, schedule)| std::cmp::Reverse(schedule.created_at));
        schedules
    }
}

pub(super) fn create(schedules: &Schedules, command: &CreateSchedule) -> Result<Vec<Event>, Refusal> {
    if schedules.get(&command.schedule_id).is_some() {
        return Err(Refusal::ScheduleIdTaken);
    }
    if schedules.by_id.len() >= SCHEDULE_COUNT_MAX {
        return Err(Refusal::ScheduleCountExceeded);
    }
    Ok(vec![Event::ScheduleCreated(ScheduleCreated {
        schedule_id: command.schedule_id.clone(),
        name: command.name.clone(),
        cadence: command.cadence,
        delivery: command.delivery.clone(),
    })])
}

pub(super) fn remove(schedules: &Schedules, command: &RemoveSchedule) -> Result<Vec<Event>, Refusal> {
    schedules.get(&command.schedule_id).ok_or(Refusal::ScheduleUnknown)?;
    Ok(vec![Event::ScheduleRemoved(ScheduleRemoved { schedule_id: command.schedule_id.clone() })])
}

/// `has_hook` says whether a webhook wants what is sent to a target.
pub(super) fn record_run(
    schedules: &Schedules,
    has_hook: impl FnOnce(&str) -> bool,
    (actor, at): (&Actor, Timestamp),
    command: &RecordRun,
) -> Result<Vec<Event>, Refusal> {
    match actor {
        Actor::System => {}
        Actor::Key(_) | Actor::Operator | Actor::Bootstrap | Actor::FirstCaller | Actor::ApprovalLink => {
            return Err(Refusal::SystemOnly);
        }
    }
    let schedule = schedules.get(&command.schedule_id).ok_or(Refusal::ScheduleUnknown)?;
    let period_start = schedule.period_start(command.period_end);
    if !schedule.is_due(at) || command.period_end > at || command.period_end <= period_start {
        return Err(Refusal::ScheduleNotDue);
    }
    let (outcome, error, pack) = match (&schedule.delivery, &command.result) {
        (_, RunResult::NotBuilt { error }) => (RunOutcome::BuildFailed, error.clone(), None),
        (Delivery::Webhook(target), RunResult::Built(pack)) if has_hook(target) => {
            (RunOutcome::Fired, String::new(), Some(*pack))
        }
        (Delivery::Webhook(target), RunResult::Built(pack)) => {
            let error = format!("no webhook named {target} takes the event compliance.evidence_pack");
            (RunOutcome::NoDispatcher, error, Some(*pack))
        }
        (Delivery::Email(_), RunResult::Mailed(pack)) => (RunOutcome::Sent, String::new(), Some(*pack)),
        (Delivery::Email(_), RunResult::NotMailed { pack, is_configured: true, error }) => {
            (RunOutcome::SmtpFailed, error.clone(), Some(*pack))
        }
        (Delivery::Email(_), RunResult::NotMailed { pack, is_configured: false, error }) => {
            (RunOutcome::SmtpUnconfigured, error.clone(), Some(*pack))
        }
        (Delivery::Webhook(_), RunResult::Mailed(_) | RunResult::NotMailed { .. })
        | (Delivery::Email(_), RunResult::Built(_)) => return Err(Refusal::DeliveryMistaken),
    };
    let (schedule_id, period_end) = (command.schedule_id.clone(), command.period_end);
    Ok(vec![Event::ScheduleRan(ScheduleRan { schedule_id, period_start, period_end, outcome, error, pack })])
}

impl ScheduleRan {
    /// What the run came to before it was recorded; `None` for an outcome without the pack that it speaks of, or with one
    /// that it does not.
    #[must_use]
    pub fn result(&self) -> Option<RunResult> {
        let error = self.error.clone();
        match (self.outcome, self.pack) {
            (RunOutcome::BuildFailed, None) => Some(RunResult::NotBuilt { error }),
            (RunOutcome::Fired | RunOutcome::NoDispatcher, Some(pack)) => Some(RunResult::Built(pack)),
            (RunOutcome::Sent, Some(pack)) => Some(RunResult::Mailed(pack)),
            (RunOutcome::SmtpFailed, Some(pack)) => {
                Some(RunResult::NotMailed { pack, is_configured: true, error })
            }
            (RunOutcome::SmtpUnconfigured, Some(pack)) => {
                Some(RunResult::NotMailed { pack, is_configured: false, error })
            }
            (RunOutcome::BuildFailed, Some(_))
            | (
                RunOutcome::Fired
                | RunOutcome::NoDispatcher
                | RunOutcome::Sent
                | RunOutcome::SmtpFailed
                | RunOutcome::SmtpUnconfigured,
                None,
            ) => None,
        }
    }
}

pub(super) fn apply_created(schedules: &mut Schedules, at: Timestamp, event: &ScheduleCreated) {
    let schedule = Schedule {
        name: event.name.clone(),
        cadence: event.cadence,
        delivery: event.delivery.clone(),
        created_at: at,
        last_run_at: None,
        covered_until: None,
        last_outcome: None,
        last_error: String::new(),
        run_count: 0,
        fail_count: 0,
    };
    schedules.by_id.insert_cow(event.schedule_id.clone(), Arc::new(schedule));
}

pub(super) fn apply_removed(schedules: &mut Schedules, event: &ScheduleRemoved) {
    schedules.by_id.remove_cow(&event.schedule_id);
}

pub(super) fn apply_ran(schedules: &mut Schedules, at: Timestamp, event: &ScheduleRan) {
    let Some(schedule) = schedules.by_id.get_mut_cow(&event.schedule_id) else {
        return;
    };
    let schedule = Arc::make_mut(schedule);
    schedule.last_outcome = Some(event.outcome);
    schedule.last_error.clone_from(&event.error);
    if event.outcome.is_delivered() {
        schedule.last_run_at = Some(at);
        schedule.covered_until = Some(event.period_end);
        schedule.run_count += 1;
    } else {
        schedule.fail_count += 1;
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::Command;
    use crate::domain::keys::tests::{Story, given, key, minted, moment};

    use super::*;

    const DAY_S: u64 = 86_400;

    #[test]
    fn a_schedule_runs_at_once_and_then_once_a_cadence_and_its_periods_touch() {
        let story = given([created("s", "webhook:all")]);
        assert!(schedule(&story).is_due(moment(0)));
        let (first, late, later) = (moment(40 * DAY_S), moment(41 * DAY_S + 3600), moment(43 * DAY_S));
        let story = run(story, first, built());
        let story = story.then([ran("s", moment(39 * DAY_S), first, RunOutcome::NoDispatcher)]);
        // What failed is tried again, for the period that then ends.
        let story = run(story, late, RunResult::NotBuilt { error: "no disk".to_owned() });
        let failed = ScheduleRan {
            error: "no disk".to_owned(),
            pack: None,
            ..ran_at("s", moment(40 * DAY_S + 3600), late, RunOutcome::BuildFailed)
        };
        let story = story.then([Event::ScheduleRan(failed)]);
        assert_eq!((schedule(&story).run_count, schedule(&story).fail_count), (0, 2));
        assert_eq!(schedule(&story).next_due(), None);

        // Mail, because it depends on nothing else.
        let story = given([created("s", "email:a@b.c")]);
        let story = run(story, first, RunResult::Mailed(PACK));
        let story = story.then([ran("s", moment(39 * DAY_S), first, RunOutcome::Sent)]);
        assert_eq!(schedule(&story).next_due(), Some(moment(41 * DAY_S)));
        let just_before = Timestamp::from_micros(moment(41 * DAY_S).micros() - 1);
        let story = run(story, just_before, RunResult::Mailed(PACK)).refused(Refusal::ScheduleNotDue);
        // Nobody ran it for two days: the next pack reaches back to the last one.
        let story = run(story, later, RunResult::Mailed(PACK));
        let story = story.then([ran("s", first, later, RunOutcome::Sent)]);
        assert_eq!((schedule(&story).run_count, schedule(&story).fail_count), (2, 0));
    }

    #[test]
    fn a_run_is_recorded_once_for_a_due_time_and_by_nobody_else() {
        let at = moment(9 * DAY_S);
        let story = given([minted("k", "*"), created("s", "email:a@b.c")]);
        let story = question(story, "s", at, RunResult::Mailed(PACK)).by(key("k"));
        let story = story.refused(Refusal::SystemOnly);
        let story = question(story, "s", at, RunResult::Mailed(PACK)).refused(Refusal::SystemOnly);
        let story = run(story, at, RunResult::Built(PACK)).refused(Refusal::DeliveryMistaken);
        let story = run(story, at, RunResult::Mailed(PACK));
        let story = story.then([ran("s", moment(8 * DAY_S), at, RunOutcome::Sent)]);
        let story = run(story, at, RunResult::Mailed(PACK)).refused(Refusal::ScheduleNotDue);
        let story = story.when(remove("s")).then([removed("s")]);
        run(story, moment(99 * DAY_S), RunResult::Mailed(PACK)).refused(Refusal::ScheduleUnknown);
    }

    #[test]
    fn a_period_that_is_not_over_is_not_told_of() {
        let story = given([created("s", "email:a@b.c")]);
        let early = question(story, "s", moment(5), RunResult::Mailed(PACK)).by(Actor::System);
        early.at(moment(4)).refused(Refusal::ScheduleNotDue);
    }

    #[test]
    fn what_did_not_reach_anybody_says_why() {
        let at = moment(9 * DAY_S);
        for (is_configured, outcome) in
            [(true, RunOutcome::SmtpFailed), (false, RunOutcome::SmtpUnconfigured)]
        {
            let error = "why".to_owned();
            let result = RunResult::NotMailed { pack: PACK, is_configured, error };
            let story = run(given([created("s", "email:a@b.c")]), at, result);
            let failed =
                ScheduleRan { error: "why".to_owned(), ..ran_at("s", moment(8 * DAY_S), at, outcome) };
            let story = story.then([Event::ScheduleRan(failed)]);
            assert_eq!(schedule(&story).last_error, "why");
            assert!(schedule(&story).is_due(at));
        }
    }

    #[test]
    fn schedules_are_added_up_to_a_limit_and_removed_once() {
        let story = given([created("a", "webhook:1"), created("b", "webhook:1")]);
        let ids: Vec<_> =
            story.state().schedules.newest_first().iter().map(|(id, _)| id.as_str().to_owned()).collect();
        assert_eq!(ids, ["b", "a"]);
        let story = story.when(create("a")).refused(Refusal::ScheduleIdTaken);
        let story = story.when(remove("a")).then([removed("a")]);
        let story = story.when(remove("a")).refused(Refusal::ScheduleUnknown);
        let full = (0..SCHEDULE_COUNT_MAX - 1)
            .fold(story, |story, count| story.when(create(&count.to_string())).then([created_of(count)]));
        full.when(create("z")).refused(Refusal::ScheduleCountExceeded);
    }

    #[test]
    fn an_outcome_without_its_pack_leads_back_to_nothing() {
        let at = ran_at("s", moment(0), moment(1), RunOutcome::Fired);
        assert_eq!(ScheduleRan { pack: None, ..at.clone() }.result(), None);
        assert_eq!(ScheduleRan { outcome: RunOutcome::BuildFailed, ..at.clone() }.result(), None);
        assert_eq!(at.result(), Some(RunResult::Built(PACK)));
    }

    const PACK: Pack = Pack { digest: [7; 32], size: 3 };

    fn built() -> RunResult {
        RunResult::Built(PACK)
    }

    fn id(name: &str) -> ScheduleId {
        ScheduleId::parse(name).unwrap()
    }

    fn schedule(story: &Story) -> &Schedule {
        story.state().schedules.get(&id("s")).unwrap()
    }

    fn create(name: &str) -> Command {
        let delivery = Delivery::Webhook("1".to_owned());
        Command::CreateSchedule(CreateSchedule {
            schedule_id: id(name),
            name: "audit".to_owned(),
            cadence: Cadence::Daily,
            delivery,
        })
    }

    fn created(name: &str, delivery: &str) -> Event {
        Event::ScheduleCreated(ScheduleCreated {
            schedule_id: id(name),
            name: "audit".to_owned(),
            cadence: Cadence::Daily,
            delivery: Delivery::parse(delivery).unwrap(),
        })
    }

    fn created_of(count: usize) -> Event {
        created(&count.to_string(), "webhook:1")
    }

    fn remove(name: &str) -> Command {
        Command::RemoveSchedule(RemoveSchedule { schedule_id: id(name) })
    }

    fn removed(name: &str) -> Event {
        Event::ScheduleRemoved(ScheduleRemoved { schedule_id: id(name) })
    }

    fn question(
        story: Story,
        name: &str,
        period_end: Timestamp,
        result: RunResult,
    ) -> crate::domain::keys::tests::Question {
        let run = RecordRun { schedule_id: id(name), period_end, result };
        story.when(Command::RecordRun(run)).at(period_end)
    }

    fn run(story: Story, at: Timestamp, result: RunResult) -> crate::domain::keys::tests::Question {
        question(story, "s", at, result).by(Actor::System)
    }

    fn ran_at(name: &str, start: Timestamp, end: Timestamp, outcome: RunOutcome) -> ScheduleRan {
        let is_nobody = outcome == RunOutcome::NoDispatcher;
        let error =
            if is_nobody { "no webhook named all takes the event compliance.evidence_pack" } else { "" };
        ScheduleRan {
            schedule_id: id(name),
            period_start: start,
            period_end: end,
            outcome,
            error: error.to_owned(),
            pack: Some(PACK),
        }
    }

    fn ran(name: &str, start: Timestamp, end: Timestamp, outcome: RunOutcome) -> Event {
        Event::ScheduleRan(ran_at(name, start, end, outcome))
    }
}
