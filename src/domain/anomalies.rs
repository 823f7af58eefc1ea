//! Anomalies: what an agent does that its tenant wants to hear of, or that it never did before.
//!
//! A tenant has rules. `watch` holds every decision against them and against what the agent did so far; for each rule that
//! matches, the decision goes on with an anomaly that names its evidence, and a logged action is flagged with the first reason.
//! Being part of the decision, a flag is derived again by whoever verifies the ledger.
//!
//! What an agent did is kept ([`profile`]) from the tenant's first rule on, and forgotten with its last: who has no rules pays
//! for none. A rule with a window ([`rule`]) counts what came after itself.

pub mod profile;
pub mod rule;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{AgentId, SessionId};
use super::limits::ANOMALY_RULE_COUNT_MAX;
use super::money::Money;
use super::sessions::{Sessions, Verdict};
use super::table::Table;
use super::time::Timestamp;
use super::{Envelope, Event, Recorded, Refusal, Tenant};
use profile::Profile;
use rule::{Needs, Rule, RuleType};

/// Watch for something from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRule {
    /// For what.
    pub rule: Rule,
}

/// Watch for something no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveRule {
    /// Which rule.
    pub rule_id: u64,
}

/// A rule was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleAdded {
    /// Its number. A tenant's rules are numbered from 1 and no number is given twice.
    pub rule_id: u64,
    /// What is watched for.
    pub rule: Rule,
}

/// A rule was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRemoved {
    /// Which rule.
    pub rule_id: u64,
}

/// A rule matched what was just decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnomalyDetected {
    /// The rule.
    pub rule_id: u64,
    /// Its type.
    pub rule_type: RuleType,
    /// The agent that did it.
    pub agent_id: AgentId,
    /// The session in which it did, if there is one.
    pub session_id: Option<SessionId>,
    /// Position of the event that the rule matched.
    pub subject: u64,
    /// With which tool; may be empty.
    pub tool: String,
    /// The action as it was logged, or the kind of the event.
    pub action: String,
    /// What it cost, or how much was paid or asked for.
    pub amount: Money,
    /// What the rule says.
    pub reason: String,
    /// Positions of the events that the rule counted, the latest of them, in order, the subject last.
    pub evidence: Vec<u64>,
}

/// The tenant's rules, and what its agents did while there were any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomalies {
    rules: Table<u64, Arc<Standing>>,
    /// The number of the last rule that was added.
    last_rule_id: u64,
    profiles: Table<AgentId, Arc<Profile>>,
    detected: u64,
}

/// A rule that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What is watched for.
    pub rule: Rule,
    /// Position of its adding: windows count from there.
    pub since_seq: u64,
    /// When it was added.
    pub since: Timestamp,
}

/// What an event says about an agent.
struct Observed<'a> {
    agent_id: &'a AgentId,
    session_id: Option<&'a SessionId>,
    deed: Deed,
    tool: &'a str,
    action: &'a str,
    amount: Money,
}

/// What an agent did, as rules tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// It acted, and said so.
    Action,
    /// It paid.
    Payment,
    /// It asked for something and was told no.
    Denial,
}

impl Anomalies {
    /// The rules, in the order of their adding.
    pub fn rules(&self) -> impl Iterator<Item = (u64, &Standing)> {
        self.rules.into_iter().map(|(rule_id, standing)| (*rule_id, &**standing))
    }

    /// Anomalies that were ever detected.
    #[must_use]
    pub const fn detected(&self) -> u64 {
        self.detected
    }
}

pub(super) fn add_rule(anomalies: &Anomalies, command: &AddRule) -> Result<Vec<Event>, Refusal> {
    if anomalies.rules.len() >= ANOMALY_RULE_COUNT_MAX {
        return Err(Refusal::AnomalyRuleCountExceeded);
    }
    let rule_id = anomalies.last_rule_id + 1;
    Ok(vec![Event::AnomalyRuleAdded(RuleAdded { rule_id, rule: command.rule.clone() })])
}

pub(super) fn remove_rule(anomalies: &Anomalies, command: &RemoveRule) -> Result<Vec<Event>, Refusal> {
    anomalies.rules.get(&command.rule_id).ok_or(Refusal::AnomalyRuleUnknown)?;
    Ok(vec![Event::AnomalyRuleRemoved(RuleRemoved { rule_id: command.rule_id })])
}

/// Holds what was decided against the rules: flags it, and adds the anomalies to the decision.
pub(super) fn watch(tenant: &Tenant, envelope: &Envelope, mut events: Vec<Event>) -> Vec<Event> {
    if tenant.anomalies.rules.len() == 0 {
        return events;
    }
    let mut detected = Vec::new();
    for (seq, event) in (envelope.seq..).zip(&mut events) {
        let matched = matches(tenant, event, seq, envelope.at);
        if let (Event::ActionLogged(action), Some(first)) = (event, matched.first()) {
            action.flag = Some(first.reason.clone());
        }
        detected.extend(matched.into_iter().map(Event::AnomalyDetected));
    }
    events.extend(detected);
    events
}

/// What the rules say of one event, each in its turn.
fn matches(tenant: &Tenant, event: &Event, seq: u64, at: Timestamp) -> Vec<AnomalyDetected> {
    let Some(observed) = observe(&tenant.sessions, event) else {
        return Vec::new();
    };
    let nothing = Profile::default();
    let profile = tenant.anomalies.profiles.get(observed.agent_id).map_or(&nothing, |profile| profile);
    let matched = tenant.anomalies.rules().filter_map(|(rule_id, standing)| {
        let mut evidence = profile.evidence(standing, &observed, at)?;
        evidence.push(seq);
        Some(AnomalyDetected {
            rule_id,
            rule_type: standing.rule.condition.rule_type(),
            agent_id: observed.agent_id.clone(),
            session_id: observed.session_id.cloned(),
            subject: seq,
            tool: observed.tool.to_owned(),
            action: observed.action.to_owned(),
            amount: observed.amount,
            reason: standing.rule.reason_for(observed.tool, at),
            evidence,
        })
    });
    matched.collect()
}

/// What an event says about an agent; `None` when it is not about what an agent did.
fn observe<'a>(sessions: &'a Sessions, event: &'a Event) -> Option<Observed<'a>> {
    let kind = event.kind_name();
    let of_session = |session_id: &'a SessionId| sessions.get(session_id).map(|it| &it.agent_id);
    let of = |agent_id, session_id, deed| Observed {
        agent_id,
        session_id: Some(session_id),
        deed,
        tool: "",
        action: kind,
        amount: Money::ZERO,
    };
    let observed = match event {
        Event::ActionLogged(it) => {
            let deed = of(&it.agent_id, &it.session_id, Deed::Action);
            Observed { tool: &it.tool, action: &it.action, amount: it.cost, ..deed }
        }
        Event::PaymentAuthorized(it) => {
            let deed = of(&it.agent_id, &it.session_id, Deed::Payment);
            Observed { tool: &it.tool, amount: it.amount, ..deed }
        }
        // What is set aside is paid when it is settled, and perhaps less.
        Event::PaymentSettled(it) => {
            Observed { amount: it.amount, ..of(&it.agent_id, &it.session_id, Deed::Payment) }
        }
        Event::PaymentDenied(it) => {
            let deed = of(&it.agent_id, &it.session_id, Deed::Denial);
            Observed { tool: &it.tool, amount: it.amount, ..deed }
        }
        Event::SettlementDenied(it) => {
            Observed { amount: it.amount, ..of(&it.agent_id, &it.session_id, Deed::Denial) }
        }
        Event::CallDenied(it) => {
            Observed { tool: &it.name, ..of(&it.agent_id, &it.session_id, Deed::Denial) }
        }
        Event::ActionRejected(it) => {
            let deed = of(of_session(&it.session_id)?, &it.session_id, Deed::Denial);
            Observed { tool: &it.tool, action: &it.action, ..deed }
        }
        Event::PermissionChecked(it) if it.verdict != Verdict::Allowed => {
            of(of_session(&it.session_id)?, &it.session_id, Deed::Denial)
        }
        // Who asked is the agent above.
        Event::DelegationDenied(it) => of(of_session(&it.parent)?, &it.parent, Deed::Denial),
        Event::SessionDenied(it) => Observed {
            agent_id: &it.agent_id,
            session_id: None,
            deed: Deed::Denial,
            tool: "",
            action: kind,
            amount: Money::ZERO,
        },
        // A session that never was is nobody's.
        Event::SecretDenied(it) => of(it.agent_id.as_ref()?, &it.session_id, Deed::Denial),
        // What a key was told, what people decide, and what is not final.
        Event::AccessDenied(_)
        | Event::PermissionChecked(_)
        | Event::KeyMinted(_)
        | Event::KeyRevoked(_)
        | Event::SessionOpened(_)
        | Event::SessionRevoked(_)
        | Event::PaymentReserved(_)
        | Event::PaymentReleased(_)
        | Event::BudgetSet(_)
        | Event::ApprovalRuleAdded(_)
        | Event::ApprovalRuleRemoved(_)
        | Event::ApprovalRequested(_)
        | Event::ApprovalGranted(_)
        | Event::ApprovalDenied(_)
        | Event::ApprovalExpired(_)
        | Event::SecretStored(_)
        | Event::SecretRead(_)
        | Event::SecretDeleted(_)
        | Event::VaultRotated(_)
        | Event::UpstreamRegistered(_)
        | Event::UpstreamRemoved(_)
        | Event::ToolsObserved(_)
        | Event::ToolAccepted(_)
        | Event::PolicyAdded(_)
        | Event::PolicyRemoved(_)
        | Event::CallAuthorized(_)
        // What is logged of it counts.
        | Event::CallCompleted(_)
        | Event::UsageMetered(_)
        | Event::SignerRotated(_)
        | Event::LedgerRepaired(_)
        | Event::WebhookRegistered(_)
        | Event::WebhookRemoved(_)
        | Event::WebhookRotated(_)
        | Event::WebhookAttempted(_)
        | Event::WebhookRedelivered(_)
        | Event::WebhookTested(_)
        | Event::ScheduleCreated(_)
        | Event::ScheduleRemoved(_)
        | Event::ScheduleRan(_)
        | Event::AnomalyRuleAdded(_)
        | Event::AnomalyRuleRemoved(_)
        | Event::AnomalyDetected(_) => return None,
    };
    Some(observed)
}

/// Adds what happened to what is known of the agent, while there are rules.
pub(super) fn learn(anomalies: &mut Anomalies, sessions: &Sessions, recorded: &Recorded) {
    if anomalies.rules.len() == 0 {
        return;
    }
    if let Some(observed) = observe(sessions, &recorded.event) {
        let needs = Needs::of(anomalies.rules().map(|(_, standing)| &standing.rule));
        let profile = anomalies.profiles.get_or_default_cow(observed.agent_id.clone());
        Arc::make_mut(profile).learn(&observed, recorded.at, recorded.seq, &needs);
    }
}

pub(super) fn apply_added(anomalies: &mut Anomalies, seq: u64, at: Timestamp, event: &RuleAdded) {
    let standing = Standing { rule: event.rule.clone(), since_seq: seq, since: at };
    anomalies.rules.insert_cow(event.rule_id, Arc::new(standing));
    anomalies.last_rule_id = event.rule_id;
}

pub(super) fn apply_removed(anomalies: &mut Anomalies, event: &RuleRemoved) {
    anomalies.rules.remove_cow(&event.rule_id);
    if anomalies.rules.len() == 0 {
        anomalies.profiles = Table::default();
    }
}

pub(super) const fn apply_detected(anomalies: &mut Anomalies, _event: &AnomalyDetected) {
    anomalies.detected += 1;
}

/// The tests of this area, and the words in which those of its parts are told.
#[cfg(test)]
mod tests {
    use crate::domain::audit::{ActionLogged, ActionRejected, ActionRejection, LogAction};
    use crate::domain::budgets::AuthorizePayment;
    use crate::domain::id::{Actor, ApprovalId, EntryId, RequestId};
    use crate::domain::keys::tests::{
        Story, agent_id, authorization_id, given, moment, opened, session_id, session_revoked, usd,
    };
    use crate::domain::sessions::{CheckPermission, PermissionChecked, SessionOpened};
    use crate::domain::{Command, RULES_REVISION};

    use super::rule::Condition;
    use super::*;

    #[test]
    fn without_rules_nothing_is_flagged_and_nothing_is_kept() {
        let story = with_rules([]).when(log("shell", "1000")).then([logged("shell", "1000", None)]);
        assert_eq!(story.state().anomalies, Anomalies::default());
    }

    #[test]
    fn the_first_rule_that_matches_gives_the_flag_and_each_gives_an_anomaly() {
        let named = Rule { reason: Some("look at this".to_owned()), ..spend_above("1") };
        let blocked = rule(Condition::ToolBlocked { tools: vec!["rm".to_owned(), "shell".to_owned()] });
        let story = with_rules([spend_above("9"), named, blocked]);
        let events = [
            logged("shell", "2", Some("look at this")),
            anomaly(2, RuleType::SpendPerAction, 4, &[], "shell", "2", "look at this"),
            anomaly(3, RuleType::ToolBlocked, 4, &[], "shell", "2", "tool_blocked exceeded shell"),
        ];
        story.when(log("shell", "2")).then(events);
    }

    #[test]
    fn a_session_that_never_was_is_nobodys_denial() {
        let story = with_rules([rule(Condition::RepeatedDenials { count: 1, window_s: 300 })]);
        let (session_id, scope) = (session_id("nobody"), "read".to_owned());
        let checked = PermissionChecked {
            session_id: session_id.clone(),
            scope: scope.clone(),
            verdict: Verdict::SessionUnknown,
        };
        story
            .when(Command::CheckPermission(CheckPermission { session_id, scope }))
            .then([Event::PermissionChecked(checked)]);
    }

    #[test]
    fn each_agent_is_known_for_itself() {
        let other = SessionOpened { agent_id: agent_id("other"), ..opened("o", None) };
        let story = given([
            Event::SessionOpened(opened("s", None)),
            Event::SessionOpened(other),
            added(1, rule(Condition::Velocity { count: 1, window_s: 1000 })),
        ]);
        let story = story.when(log("t", "0")).then([logged("t", "0", None)]);
        let Command::LogAction(asked) = log("t", "0") else { unreachable!() };
        let Event::ActionLogged(event) = logged("t", "0", None) else { unreachable!() };
        let by_other = Command::LogAction(LogAction { session_id: session_id("o"), ..asked });
        let event = ActionLogged { session_id: session_id("o"), agent_id: agent_id("other"), ..event };
        story.when(by_other).then([Event::ActionLogged(event)]);
    }

    #[test]
    fn a_window_counts_from_its_rule_on() {
        let velocity = || rule(Condition::Velocity { count: 2, window_s: 1000 });
        let story = with_rules([spend_above("100")]);
        let plain = |story: Story| story.when(log("t", "0")).then([logged("t", "0", None)]);
        let story = plain(plain(plain(story)));
        let story = story.when(add(velocity())).then([added(2, velocity())]);
        let story = plain(plain(story));
        let reason = "velocity exceeded 2";
        let found = anomaly(2, RuleType::Velocity, 8, &[6, 7], "t", "0", reason);
        story.when(log("t", "0")).then([logged("t", "0", Some(reason)), found]);
    }

    #[test]
    fn what_is_known_goes_with_the_last_rule_and_no_number_is_given_twice() {
        let story = with_rules([spend_above("1"), spend_above("2")]);
        let story = story.when(log("t", "0")).then([logged("t", "0", None)]);
        let story = story.when(remove(3)).refused(Refusal::AnomalyRuleUnknown);
        let story =
            story.when(remove(1)).then([removed(1)]).when(remove(1)).refused(Refusal::AnomalyRuleUnknown);
        assert_eq!(story.state().anomalies.profiles.len(), 1);
        let story = story.when(remove(2)).then([removed(2)]);
        assert_eq!(story.state().anomalies.profiles.len(), 0);
        let story = story.when(log("t", "5")).then([logged("t", "5", None)]);
        let story = story.when(add(spend_above("3"))).then([added(3, spend_above("3"))]);
        assert_eq!(story.state().anomalies.rules().map(|(id, _)| id).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn there_are_as_many_rules_as_there_may_be() {
        let count = ANOMALY_RULE_COUNT_MAX as u64;
        let story = (1..=count).fold(with_rules([]), |story, id| {
            story.when(add(spend_above("1"))).then([added(id, spend_above("1"))])
        });
        let story = story.when(add(spend_above("1"))).refused(Refusal::AnomalyRuleCountExceeded);
        let story = story.when(remove(5)).then([removed(5)]);
        story.when(add(spend_above("1"))).then([added(count + 1, spend_above("1"))]);
    }

    #[test]
    fn an_ended_session_is_its_agents_denial() {
        let story = given([
            Event::SessionOpened(opened("s", None)),
            session_revoked("s"),
            added(1, rule(Condition::RepeatedDenials { count: 1, window_s: 9 })),
        ]);
        let rejected = ActionRejected {
            session_id: session_id("s"),
            action: "act".to_owned(),
            tool: "t".to_owned(),
            reason: ActionRejection::SessionRevoked,
        };
        let found = anomaly(1, RuleType::RepeatedDenials, 3, &[], "t", "0", "repeated_denials exceeded 1");
        story.when(log("t", "7")).then([Event::ActionRejected(rejected), found]);
    }

    /// A session `s` of `agent`, then the rules: the next event has the seq `1 + rules`.
    pub(super) fn with_rules<const LEN: usize>(rules: [Rule; LEN]) -> Story {
        let rules = (1..).zip(rules).map(|(rule_id, rule)| added(rule_id, rule));
        given([Event::SessionOpened(opened("s", None))].into_iter().chain(rules))
    }

    pub(super) fn rule(condition: Condition) -> Rule {
        Rule { condition, reason: None }
    }

    pub(super) fn spend_above(amount: &str) -> Rule {
        rule(Condition::SpendPerAction { above: usd(amount) })
    }

    pub(super) fn add(rule: Rule) -> Command {
        Command::AddAnomalyRule(AddRule { rule })
    }

    pub(super) fn added(rule_id: u64, rule: Rule) -> Event {
        Event::AnomalyRuleAdded(RuleAdded { rule_id, rule })
    }

    pub(super) fn remove(rule_id: u64) -> Command {
        Command::RemoveAnomalyRule(RemoveRule { rule_id })
    }

    pub(super) fn removed(rule_id: u64) -> Event {
        Event::AnomalyRuleRemoved(RuleRemoved { rule_id })
    }

    /// An anomaly of the action `act` in session `s`.
    pub(super) fn anomaly_of(
        rule_id: u64,
        rule_type: RuleType,
        subject: u64,
        before: &[u64],
        tool: &str,
        amount: &str,
        reason: &str,
    ) -> AnomalyDetected {
        AnomalyDetected {
            rule_id,
            rule_type,
            agent_id: agent_id("agent"),
            session_id: Some(session_id("s")),
            subject,
            tool: tool.to_owned(),
            action: "act".to_owned(),
            amount: usd(amount),
            reason: reason.to_owned(),
            evidence: before.iter().copied().chain([subject]).collect(),
        }
    }

    pub(super) fn anomaly(
        rule_id: u64,
        rule_type: RuleType,
        subject: u64,
        before: &[u64],
        tool: &str,
        amount: &str,
        reason: &str,
    ) -> Event {
        Event::AnomalyDetected(anomaly_of(rule_id, rule_type, subject, before, tool, amount, reason))
    }

    pub(super) fn log(tool: &str, cost: &str) -> Command {
        Command::LogAction(LogAction {
            entry_id: EntryId::parse("aud").unwrap(),
            session_id: session_id("s"),
            action: "act".to_owned(),
            tool: tool.to_owned(),
            cost: usd(cost),
            details_digest: None,
        })
    }

    pub(super) fn logged(tool: &str, cost: &str, flag: Option<&str>) -> Event {
        Event::ActionLogged(ActionLogged {
            entry_id: EntryId::parse("aud").unwrap(),
            session_id: session_id("s"),
            agent_id: agent_id("agent"),
            action: "act".to_owned(),
            tool: tool.to_owned(),
            cost: usd(cost),
            details_digest: None,
            flag: flag.map(str::to_owned),
        })
    }

    pub(super) fn pay(amount: &str) -> Command {
        Command::AuthorizePayment(AuthorizePayment {
            authorization_id: authorization_id(),
            session_id: session_id("s"),
            amount: usd(amount),
            currency: "USD".to_owned(),
            description: "what for".to_owned(),
            tool: String::new(),
            action: String::new(),
            approval_id: None,
            request_id: ApprovalId::parse("apr").unwrap(),
        })
    }

    pub(super) fn recorded_at(number: u64) -> Recorded {
        Recorded {
            seq: number,
            at: moment(number),
            rules: RULES_REVISION,
            actor: Actor::Operator,
            request_id: RequestId::parse("r").unwrap(),
            idempotency: None,
            event: removed(99),
        }
    }
}
