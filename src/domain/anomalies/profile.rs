//! What is known of an agent: how much it does, spends and is denied, with which tools, at which hours.
//!
//! A profile is bounded, whatever the agent does: averages are sums and counts, and of single deeds only those are kept that a
//! rule can still ask for, and the latest as evidence.

use serde::{Deserialize, Serialize};

use super::rule::{Condition, Needs, Past};
use super::{Deed, Observed, Standing};
use crate::domain::limits::{ANOMALY_EVIDENCE_COUNT_MAX, ANOMALY_KNOWN_TOOL_COUNT_MAX};
use crate::domain::money::Money;
use crate::domain::table::Table;
use crate::domain::time::Timestamp;

/// Hours of the day in which an agent must have been seen before another one is unusual. Fewer are one long stretch.
const HOURS_KNOWN_MIN: u32 = 3;
/// Billionths in one.
const NANOS: u128 = 1_000_000_000;

/// What is known of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    actions: Deeds,
    payments: Deeds,
    denials: Recent,
    /// Tools of its actions and payments; none that is beyond the limit.
    tools: Table<String, ()>,
    /// A bit for each hour of the day, UTC, in which it acted or paid.
    hours: u32,
}

/// Actions, or payments, of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Deeds {
    all: Recent,
    /// Those that were not free of charge.
    charged: Recent,
    /// What they cost together.
    sum: Money,
}

/// Deeds of one kind, numbered from 0. The latest are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Recent {
    /// How many there ever were.
    count: u64,
    /// The number of the oldest that is kept.
    oldest: u64,
    kept: Table<u64, (Timestamp, u64)>,
}

impl Profile {
    /// Positions of what led to a match of a rule, without the deed itself; `None` when the rule does not match.
    pub(super) fn evidence(
        &self,
        standing: &Standing,
        observed: &Observed<'_>,
        at: Timestamp,
    ) -> Option<Vec<u64>> {
        let deeds = match observed.deed {
            Deed::Action => Some(&self.actions),
            Deed::Payment => Some(&self.payments),
            Deed::Denial => None,
        };
        match (&standing.rule.condition, observed.deed) {
            (Condition::SpendPerAction { above }, Deed::Action | Deed::Payment) => {
                (observed.amount > *above).then(Vec::new)
            }
            (Condition::ToolBlocked { tools }, Deed::Action) => {
                tools.iter().any(|tool| tool == observed.tool).then(Vec::new)
            }
            (Condition::ActionsPerMinute { .. }, Deed::Action)
            | (Condition::Velocity { .. }, Deed::Action | Deed::Payment) => {
                deeds?.all.within_window_of(standing, at)
            }
            (Condition::RepeatedDenials { .. }, Deed::Denial) => self.denials.within_window_of(standing, at),
            (Condition::SpendSpike { factor_nanos, min_samples }, Deed::Action | Deed::Payment) => {
                let deeds = deeds?;
                deeds.is_spike(observed.amount, *factor_nanos, *min_samples).then(|| deeds.charged.latest())
            }
            (Condition::UnusualTool { min_samples }, Deed::Action) => {
                let is_known = observed.tool.is_empty() || self.tools.get(observed.tool).is_some();
                (self.actions.all.count >= *min_samples && !is_known).then(|| self.actions.all.latest())
            }
            (Condition::UnusualHours { min_samples }, Deed::Action | Deed::Payment) => {
                let count = self.actions.all.count + self.payments.all.count;
                let are_known = count >= *min_samples && self.hours.count_ones() >= HOURS_KNOWN_MIN;
                (are_known && self.hours & bit_of(at) == 0).then(|| deeds.map(|it| it.all.latest()))?
            }
            (
                Condition::SpendPerAction { .. }
                | Condition::Velocity { .. }
                | Condition::SpendSpike { .. }
                | Condition::UnusualHours { .. },
                Deed::Denial,
            )
            | (
                Condition::ToolBlocked { .. }
                | Condition::ActionsPerMinute { .. }
                | Condition::UnusualTool { .. },
                Deed::Payment | Deed::Denial,
            )
            | (Condition::RepeatedDenials { .. }, Deed::Action | Deed::Payment) => None,
        }
    }

    /// Adds a deed to what is known.
    pub(super) fn learn(&mut self, observed: &Observed<'_>, at: Timestamp, seq: u64, needs: &Needs) {
        let deeds = match observed.deed {
            Deed::Action => &mut self.actions,
            Deed::Payment => &mut self.payments,
            Deed::Denial => {
                self.denials.push(at, seq, needs.denials);
                return;
            }
        };
        deeds.all.push(at, seq, needs.deeds);
        if observed.amount > Money::ZERO {
            deeds.charged.push(at, seq, Past::default());
            deeds.sum = deeds.sum.plus(observed.amount).unwrap_or(deeds.sum);
        }
        self.hours |= bit_of(at);
        if !observed.tool.is_empty() && self.tools.len() < ANOMALY_KNOWN_TOOL_COUNT_MAX {
            self.tools.insert_cow(observed.tool.to_owned(), ());
        }
    }
}

#[cfg(test)]
impl Profile {
    /// Actions and tools that are kept.
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.actions.all.kept.len(), self.tools.len())
    }
}

/// The bit of the hour of the day.
fn bit_of(at: Timestamp) -> u32 {
    1 << at.hour()
}

impl Deeds {
    /// Whether an amount is more than `factor_nanos` billionths of the average, which is rounded down.
    fn is_spike(&self, amount: Money, factor_nanos: u64, min_samples: u64) -> bool {
        let samples = u128::from(self.charged.count);
        let Some(average) = self.sum.nanos().checked_div(samples) else {
            return false;
        };
        let is_above =
            amount.nanos().saturating_mul(NANOS) > average.saturating_mul(u128::from(factor_nanos));
        self.charged.count >= min_samples && is_above
    }
}

impl Recent {
    fn push(&mut self, at: Timestamp, seq: u64, past: Past) {
        self.kept.insert_cow(self.count, (at, seq));
        self.count += 1;
        // The latest are kept as evidence, whatever their age.
        while self.count - self.oldest > ANOMALY_EVIDENCE_COUNT_MAX as u64 {
            let is_counted = self.count - self.oldest <= past.count;
            let is_recent = |(then, _): &(Timestamp, u64)| then.plus_seconds(past.window_s) > at;
            if is_counted && self.kept.get(&self.oldest).is_some_and(is_recent) {
                return;
            }
            self.kept.remove_cow(&self.oldest);
            self.oldest += 1;
        }
    }

    /// What the rule's window holds, if it holds as many as the rule wants.
    fn within_window_of(&self, standing: &Standing, at: Timestamp) -> Option<Vec<u64>> {
        let (count, window_s) = standing.rule.condition.before()?;
        let is_within =
            |(then, seq): &(Timestamp, u64)| *seq > standing.since_seq && then.plus_seconds(window_s) > at;
        if count > 0 {
            // Times only increase: where the first of them is within, all are.
            let first = self.kept.get(&self.count.checked_sub(count)?)?;
            is_within(first).then_some(())?;
        }
        Some(self.latest_that(is_within))
    }

    /// Positions of the latest, as many as evidence holds beside its subject.
    fn latest(&self) -> Vec<u64> {
        self.latest_that(|_| true)
    }

    fn latest_that(&self, is_wanted: impl Fn(&(Timestamp, u64)) -> bool) -> Vec<u64> {
        let from = self.count.saturating_sub(ANOMALY_EVIDENCE_COUNT_MAX as u64 - 1);
        let latest = (from..self.count).filter_map(|number| self.kept.get(&number));
        latest.filter(|it| is_wanted(it)).map(|(_, seq)| *seq).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::anomalies::rule::RuleType;
    use crate::domain::anomalies::tests::{
        anomaly, anomaly_of, log, logged, pay, recorded_at, rule, spend_above, with_rules,
    };
    use crate::domain::anomalies::{AnomalyDetected, RuleAdded};
    use crate::domain::audit::{ActionLogged, LogAction};
    use crate::domain::keys::tests::{Story, agent_id, moment, paid, session_id};
    use crate::domain::sessions::{CheckPermission, PermissionChecked, Verdict};
    use crate::domain::{Command, Event, Recorded, Tenant, apply};

    use super::*;

    const HOUR_S: u64 = 3600;

    #[test]
    fn spend_above_the_threshold_is_flagged_and_spend_at_it_is_not() {
        let story = with_rules([spend_above("5")]);
        let story = story.when(log("t", "5")).then([logged("t", "5", None)]);
        let reason = "spend_per_action exceeded 5.0";
        let found = anomaly(1, RuleType::SpendPerAction, 3, &[], "t", "5.000000001", reason);
        let story = story
            .when(log("t", "5.000000001"))
            .then([logged("t", "5.000000001", Some(reason)), found.clone()]);
        // A payment is found, too; it has no flag of its own.
        let found = Event::AnomalyDetected(AnomalyDetected {
            action: "payment.authorized".to_owned(),
            ..anomaly_of(1, RuleType::SpendPerAction, 5, &[], "", "6", reason)
        });
        let story = story.when(pay("6")).then([paid("s", "6", None), found]);
        assert_eq!(story.state().anomalies.detected(), 2);
    }

    #[test]
    fn a_window_holds_what_is_younger_than_it_is_long() {
        let story = with_rules([rule(Condition::ActionsPerMinute { count: 2 })]);
        let plain = |story: Story, seconds| {
            story.when(log("t", "0")).at(moment(seconds)).then([logged("t", "0", None)])
        };
        let story = plain(plain(story, 100), 130);
        plain(story.clone(), 160);
        let reason = "actions_per_minute exceeded 2";
        let found = anomaly(1, RuleType::ActionsPerMinute, 4, &[2, 3], "t", "0", reason);
        let story = story.when(log("t", "0")).at(moment(159)).then([logged("t", "0", Some(reason)), found]);
        // Payments are no actions.
        story.when(pay("1")).at(moment(159)).then([paid("s", "1", None)]);
    }

    #[test]
    fn actions_and_payments_each_have_a_velocity() {
        let story = with_rules([rule(Condition::Velocity { count: 1, window_s: 10 })]);
        let story = story.when(log("t", "0")).at(moment(100)).then([logged("t", "0", None)]);
        let story = story.when(pay("1")).at(moment(101)).then([paid("s", "1", None)]);
        let reason = "velocity exceeded 1";
        let found = anomaly(1, RuleType::Velocity, 4, &[2], "t", "0", reason);
        story.clone().when(log("t", "0")).at(moment(102)).then([logged("t", "0", Some(reason)), found]);
        let found = Event::AnomalyDetected(AnomalyDetected {
            action: "payment.authorized".to_owned(),
            ..anomaly_of(1, RuleType::Velocity, 4, &[3], "", "1", reason)
        });
        story.when(pay("1")).at(moment(102)).then([paid("s", "1", None), found]);
    }

    #[test]
    fn denials_of_every_kind_add_up_for_an_agent() {
        let story = with_rules([rule(Condition::RepeatedDenials { count: 3, window_s: 300 })]);
        let checked = |verdict| {
            let (session_id, scope) = (session_id("s"), "delete".to_owned());
            Event::PermissionChecked(PermissionChecked { session_id, scope, verdict })
        };
        let check = || {
            let (session_id, scope) = (session_id("s"), "delete".to_owned());
            Command::CheckPermission(CheckPermission { session_id, scope })
        };
        let story = story.when(check()).at(moment(100)).then([checked(Verdict::ScopeMissing)]);
        let story = story.when(log("t", "0")).at(moment(110)).then([logged("t", "0", None)]);
        let story = story.when(check()).at(moment(120)).then([checked(Verdict::ScopeMissing)]);
        let reason = "repeated_denials exceeded 3";
        let found = Event::AnomalyDetected(AnomalyDetected {
            action: "permission.checked".to_owned(),
            ..anomaly_of(1, RuleType::RepeatedDenials, 5, &[2, 4], "", "0", reason)
        });
        let late = story.clone().when(check()).at(moment(400)).then([checked(Verdict::ScopeMissing)]);
        assert_eq!(late.state().anomalies.detected(), 0);
        story.when(check()).at(moment(399)).then([checked(Verdict::ScopeMissing), found]);
    }

    #[test]
    fn a_spike_is_measured_against_the_agents_own_average() {
        let story = with_rules([rule(Condition::SpendSpike { factor_nanos: 2_500_000_000, min_samples: 2 })]);
        let plain = |story: Story, cost| story.when(log("t", cost)).then([logged("t", cost, None)]);
        // What is free says nothing about what things cost.
        let story = plain(plain(story, "9"), "0");
        let story = plain(story, "0");
        let story = plain(story, "1");
        let just_not = plain(story.clone(), "12.5");
        assert_eq!(just_not.state().anomalies.detected(), 0);
        let reason = "spend_spike exceeded 2.5 times the average";
        let found = anomaly(1, RuleType::SpendSpike, 6, &[2, 5], "t", "12.500000001", reason);
        let story =
            story.when(log("t", "12.500000001")).then([logged("t", "12.500000001", Some(reason)), found]);
        // Payments have an average of their own, and none yet.
        let story = story.when(pay("1000")).then([paid("s", "1000", None)]);
        assert_eq!(story.state().anomalies.detected(), 1);
    }

    #[test]
    fn a_tool_is_unusual_once_and_only_for_who_has_a_habit() {
        let story = with_rules([rule(Condition::UnusualTool { min_samples: 3 })]);
        let plain = |story: Story, tool| story.when(log(tool, "0")).then([logged(tool, "0", None)]);
        let story = plain(plain(plain(story, "mail"), "search"), "");
        let story = plain(plain(story, "mail"), "");
        let reason = "unusual_tool: first use of shell";
        let found = anomaly(1, RuleType::UnusualTool, 7, &[2, 3, 4, 5, 6], "shell", "0", reason);
        let story = story.when(log("shell", "0")).then([logged("shell", "0", Some(reason)), found]);
        plain(story, "shell");
    }

    #[test]
    fn an_hour_is_unusual_when_the_agent_has_hours() {
        let story = with_rules([rule(Condition::UnusualHours { min_samples: 4 })]);
        let plain =
            |story: Story, at_s| story.when(log("t", "0")).at(moment(at_s)).then([logged("t", "0", None)]);
        let day = |day: u64, hour: u64| (day * 24 + hour) * HOUR_S + 59;
        let story = plain(plain(plain(story, day(1, 9)), day(1, 10)), day(2, 9));
        // Four deeds, but only two hours: one long stretch.
        let story = plain(story, day(2, 10));
        let story = plain(story, day(2, 11));
        let story = plain(plain(story, day(3, 9)), day(3, 11));
        let reason = "unusual_hours: never seen between 03:00 and 03:59 UTC";
        let found = anomaly(1, RuleType::UnusualHours, 9, &[2, 3, 4, 5, 6, 7, 8], "t", "0", reason);
        let story =
            story.when(log("t", "0")).at(moment(day(4, 3))).then([logged("t", "0", Some(reason)), found]);
        plain(story, day(5, 3));
    }

    #[test]
    fn an_agent_is_known_in_bounded_room_whatever_it_does() {
        let story = with_rules([rule(Condition::UnusualTool { min_samples: 1_000_000 })]);
        let mut state = story.state().clone();
        let tell = |number: u64, state: &mut Tenant| {
            let event = logged(&format!("tool-{number}"), "1", None);
            let recorded = Recorded { event, ..recorded_at(number) };
            apply(state, &recorded);
        };
        (2..2000).for_each(|number| tell(number, &mut state));
        let profile = &state.anomalies.profiles.get(&agent_id("agent")).unwrap();
        assert_eq!(profile.kept(), (ANOMALY_EVIDENCE_COUNT_MAX, ANOMALY_KNOWN_TOOL_COUNT_MAX));

        // With a rule that counts, as many are kept as it can count, and those that left its window are not.
        let velocity = RuleAdded { rule_id: 2, rule: rule(Condition::Velocity { count: 100, window_s: 50 }) };
        apply(&mut state, &Recorded { event: Event::AnomalyRuleAdded(velocity), ..recorded_at(2000) });
        (2001..2300).for_each(|number| tell(number, &mut state));
        assert_eq!(state.anomalies.profiles.get(&agent_id("agent")).unwrap().kept().0, 50);
        let velocity =
            RuleAdded { rule_id: 3, rule: rule(Condition::Velocity { count: 100, window_s: 5000 }) };
        apply(&mut state, &Recorded { event: Event::AnomalyRuleAdded(velocity), ..recorded_at(2300) });
        (2301..2600).for_each(|number| tell(number, &mut state));
        assert_eq!(state.anomalies.profiles.get(&agent_id("agent")).unwrap().kept().0, 100);
    }

    #[test]
    fn sums_that_are_full_neither_overflow_nor_divide_by_nothing() {
        let story = with_rules([rule(Condition::SpendSpike { factor_nanos: u64::MAX, min_samples: 0 })]);
        let most = || {
            let Event::ActionLogged(event) = logged("t", "0", None) else { unreachable!() };
            Event::ActionLogged(ActionLogged { cost: Money::from_nanos(u128::MAX), ..event })
        };
        let mut state = story.state().clone();
        for number in 2..5 {
            apply(&mut state, &Recorded { event: most(), ..recorded_at(number) });
        }
        let Command::LogAction(asked) = log("t", "0") else { unreachable!() };
        let asked = LogAction { cost: Money::from_nanos(u128::MAX), ..asked };
        story.when(Command::LogAction(asked)).then([most()]);
    }
}
