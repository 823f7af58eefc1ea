//! Is what the anomaly rules found what somebody finds who reads the whole list of events, slowly?
//!
//! The reader below was written without looking at the rules' own code: it keeps nothing and counts everything anew.

use std::collections::BTreeMap;

use haldir::domain::anomalies::rule::{Condition, Rule};
use haldir::domain::anomalies::{AddRule, AnomalyDetected, RemoveRule};
use haldir::domain::audit::LogAction;
use haldir::domain::id::EntryId;
use haldir::domain::money::Money;
use haldir::domain::scope::Grant;
use haldir::domain::sessions::{CheckPermission, OpenSession, Verdict};
use haldir::domain::{Command, Event, Recorded};
use haldir::ledger::past::stream_at;
use haldir::ledger::snapshot;
use haldir::store::memory::MemorySnapshots;
use haldir::store::{EventStore as _, SnapshotStore as _};
use proptest::prelude::*;

use crate::samples::random_cases;
use crate::writing::ledger::{
    START_S, TestLedger, agent_id, answers, pay, request, revoke_session, seconds, session_id, tenant_id,
};

const TENANTS: [&str; 2] = ["t", "t_"];
const SESSIONS: [(&str, &str); 3] = [("s0", "one"), ("s1", "one"), ("s2", "two")];

proptest! {
    #![proptest_config(random_cases(192, "proptest-regressions/anomalies.txt"))]

    #[test]
    fn what_is_flagged_is_what_a_slow_reader_finds(steps in prop::collection::vec(any_step(), 1..90)) {
        let ledger = play(steps);
        ledger.check();
        for tenant in TENANTS {
            let events: Vec<Recorded> = ledger.entries(tenant).into_iter().map(|entry| entry.recorded).collect();
            check(&events)?;
            check_snapshots(&ledger, tenant);
        }
    }

    #[test]
    fn what_one_tenant_does_changes_nothing_for_another(steps in prop::collection::vec(any_step(), 1..60)) {
        let alone: Vec<Step> = steps.iter().filter(|step| !matches!(step, Step::Ask("t_", _))).cloned().collect();
        let told = |ledger: &TestLedger| -> Vec<Event> {
            let entries = ledger.entries("t").into_iter().map(|entry| entry.recorded);
            entries.map(|recorded| recorded.event).collect()
        };
        prop_assert_eq!(told(&play(steps)), told(&play(alone)));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Ask(&'static str, What),
    MoveClock(i64),
    Restart,
}

#[derive(Debug, Clone)]
enum What {
    Add(Condition),
    Remove(u64),
    Log { session: usize, tool: &'static str, cost: u128 },
    Pay { session: usize, amount: u128 },
    Check { session: usize },
    Revoke { session: usize },
}

fn play(steps: Vec<Step>) -> TestLedger {
    let mut ledger = TestLedger::new();
    let mut clock_s = START_S;
    for tenant in TENANTS {
        let open = SESSIONS.map(|(session, agent)| {
            let grant = Grant { scopes: vec!["spend".to_owned()], cap: Some(Money::from_nanos(400)) };
            request(
                tenant,
                Command::OpenSession(OpenSession {
                    session_id: session_id(session),
                    agent_id: agent_id(agent),
                    grant,
                    scopes_are_default: false,
                    ttl_s: 0,
                    parent: None,
                    agent_limit: None,
                }),
            )
        });
        answers(ledger.queue(open));
    }
    for step in steps {
        match step {
            Step::Ask(tenant, what) => {
                // Some are refused: a rule that is not there, one too many.
                let _ = ledger.submit(request(tenant, command(what)));
            }
            Step::MoveClock(by_s) => {
                clock_s = clock_s.saturating_add_signed(by_s);
                ledger.clock.set(seconds(clock_s));
            }
            Step::Restart => ledger = ledger.restart(),
        }
    }
    ledger
}

fn command(what: What) -> Command {
    match what {
        What::Add(condition) => Command::AddAnomalyRule(AddRule { rule: Rule { condition, reason: None } }),
        What::Remove(rule_id) => Command::RemoveAnomalyRule(RemoveRule { rule_id }),
        What::Log { session, tool, cost } => Command::LogAction(LogAction {
            entry_id: EntryId::parse("aud").unwrap(),
            session_id: session_id(SESSIONS[session].0),
            action: "act".to_owned(),
            tool: tool.to_owned(),
            cost: Money::from_nanos(cost),
            details_digest: None,
        }),
        What::Pay { session, amount } => pay(SESSIONS[session].0, amount),
        What::Check { session } => Command::CheckPermission(CheckPermission {
            session_id: session_id(SESSIONS[session].0),
            scope: "delete".to_owned(),
        }),
        What::Revoke { session } => revoke_session(SESSIONS[session].0),
    }
}

/// A snapshot of every size leads on to the same state, rules and all that is known of agents included.
fn check_snapshots(ledger: &TestLedger, tenant: &str) {
    let (store, tenant) = (&*ledger.store, tenant_id(tenant));
    let size = store.read(&tenant, 0, usize::MAX).unwrap().len() as u64;
    let now = stream_at(store, &MemorySnapshots::default(), &tenant, size).unwrap().unwrap();
    let snapshots = MemorySnapshots::default();
    let middle = stream_at(store, &snapshots, &tenant, size.div_ceil(2)).unwrap().unwrap();
    let bytes = snapshot::encode(&tenant, &middle).unwrap();
    snapshots.save(&tenant, size.div_ceil(2), &bytes).unwrap();
    assert!(stream_at(store, &snapshots, &tenant, size).unwrap() == Some(now));
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Action,
    Payment,
    Denial,
}

/// Something that an agent did.
struct Deed {
    seq: u64,
    at_us: u64,
    agent: String,
    kind: Kind,
    tool: String,
    amount: u128,
}

fn check(events: &[Recorded]) -> Result<(), TestCaseError> {
    let mut agents = BTreeMap::new();
    let mut rules: BTreeMap<u64, (u64, Condition)> = BTreeMap::new();
    let (mut known_from, mut deeds) = (0, Vec::<Deed>::new());
    let mut due: Vec<(u64, u64, Vec<u64>)> = Vec::new();
    for recorded in events {
        let seq = recorded.seq;
        if let Event::AnomalyDetected(found) = &recorded.event {
            prop_assert!(!due.is_empty(), "seq {}: nothing to find", seq);
            let (rule_id, subject, evidence) = due.remove(0);
            check_one(found, rule_id, subject, &evidence)?;
            prop_assert_eq!(found.rule_type, rules[&rule_id].1.rule_type());
            continue;
        }
        prop_assert!(due.is_empty(), "seq {}: {:?} were not found", seq, due);
        match &recorded.event {
            Event::SessionOpened(it) => drop(agents.insert(it.session_id.clone(), it.agent_id.to_string())),
            Event::AnomalyRuleAdded(it) => {
                if rules.is_empty() {
                    (known_from, deeds) = (seq, Vec::new());
                }
                rules.insert(it.rule_id, (seq, it.rule.condition.clone()));
            }
            Event::AnomalyRuleRemoved(it) => drop(rules.remove(&it.rule_id)),
            _ => {}
        }
        let at_us = recorded.at.micros();
        let deed = |session: &haldir::domain::id::SessionId, kind, tool: &str, amount: Money| {
            let agent = agents[session].clone();
            Deed { seq, at_us, agent, kind, tool: tool.to_owned(), amount: amount.nanos() }
        };
        let deed = match &recorded.event {
            Event::ActionLogged(it) => deed(&it.session_id, Kind::Action, &it.tool, it.cost),
            Event::PaymentAuthorized(it) => deed(&it.session_id, Kind::Payment, "", it.amount),
            Event::PaymentDenied(it) => deed(&it.session_id, Kind::Denial, "", it.amount),
            Event::ActionRejected(it) => deed(&it.session_id, Kind::Denial, &it.tool, Money::ZERO),
            Event::PermissionChecked(it) if it.verdict != Verdict::Allowed => {
                deed(&it.session_id, Kind::Denial, "", Money::ZERO)
            }
            _ => continue,
        };
        let before: Vec<&Deed> =
            deeds.iter().filter(|it| it.agent == deed.agent && it.seq > known_from).collect();
        for (rule_id, (since, condition)) in &rules {
            if let Some(counted) = found_by(condition, *since, &deed, &before) {
                let latest = counted.len().saturating_sub(31);
                let evidence = counted[latest..].iter().copied().chain([seq]).collect();
                due.push((*rule_id, seq, evidence));
            }
        }
        if let Event::ActionLogged(it) = &recorded.event {
            prop_assert_eq!(it.flag.is_some(), !due.is_empty(), "seq {}", seq);
            let type_of_first = due.first().map(|(rule_id, ..)| rules[rule_id].1.rule_type().name());
            prop_assert!(it.flag.as_ref().is_none_or(|flag| flag.starts_with(type_of_first.unwrap())));
        }
        deeds.push(deed);
    }
    prop_assert!(due.is_empty(), "{:?} were not found at the end", due);
    Ok(())
}

fn check_one(
    found: &AnomalyDetected,
    rule_id: u64,
    subject: u64,
    evidence: &[u64],
) -> Result<(), TestCaseError> {
    prop_assert_eq!((found.rule_id, found.subject, &found.evidence[..]), (rule_id, subject, evidence));
    Ok(())
}

/// What leads to a match of a condition; `None` when there is no match.
fn found_by(condition: &Condition, since: u64, deed: &Deed, before: &[&Deed]) -> Option<Vec<u64>> {
    let same: Vec<&Deed> = before.iter().copied().filter(|it| it.kind == deed.kind).collect();
    let seqs = |deeds: &[&Deed]| deeds.iter().map(|it| it.seq).collect::<Vec<_>>();
    let within = |window_s: u64| -> Vec<u64> {
        let is_within = |it: &&&Deed| it.seq > since && deed.at_us - it.at_us < window_s * 1_000_000;
        same.iter().filter(is_within).map(|it| it.seq).collect()
    };
    let at_least = |count: u64, window_s| {
        let counted = within(window_s);
        (counted.len() as u64 >= count).then_some(counted)
    };
    let (is_action, is_denial) = (deed.kind == Kind::Action, deed.kind == Kind::Denial);
    match condition {
        Condition::SpendPerAction { above } => (!is_denial && deed.amount > above.nanos()).then(Vec::new),
        Condition::ActionsPerMinute { count } if is_action => at_least(*count, 60),
        Condition::Velocity { count, window_s } if !is_denial => at_least(*count, *window_s),
        Condition::RepeatedDenials { count, window_s } if is_denial => at_least(*count - 1, *window_s),
        Condition::ToolBlocked { tools } => (is_action && tools.contains(&deed.tool)).then(Vec::new),
        Condition::SpendSpike { factor_nanos, min_samples } if !is_denial => {
            let charged: Vec<&Deed> = same.iter().copied().filter(|it| it.amount > 0).collect();
            let sum: u128 = charged.iter().map(|it| it.amount).sum();
            let count = charged.len() as u128;
            if count == 0 || count < u128::from(*min_samples) {
                return None;
            }
            let is_spike = deed.amount * 1_000_000_000 > sum / count * u128::from(*factor_nanos);
            is_spike.then(|| seqs(&charged))
        }
        Condition::UnusualTool { min_samples } if is_action => {
            let is_enough = same.len() as u64 >= *min_samples && !deed.tool.is_empty();
            let is_new = before.iter().all(|it| it.kind == Kind::Denial || it.tool != deed.tool);
            (is_enough && is_new).then(|| seqs(&same))
        }
        Condition::UnusualHours { min_samples } if !is_denial => {
            let hour = |deed: &Deed| deed.at_us / 3_600_000_000 % 24;
            let acted: Vec<&&Deed> = before.iter().filter(|it| it.kind != Kind::Denial).collect();
            let mut hours: Vec<u64> = acted.iter().map(|it| hour(it)).collect();
            hours.sort_unstable();
            hours.dedup();
            let is_known = acted.len() as u64 >= *min_samples && hours.len() >= 3;
            (is_known && !hours.contains(&hour(deed))).then(|| seqs(&same))
        }
        _ => None,
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let clock = prop::sample::select(vec![-7200, -1, 0, 1, 5, 59, 60, 61, 3600, 4000, 40_000, 90_000]);
    prop_oneof![
        14 => (prop_oneof![3 => Just("t"), 1 => Just("t_")], any_what())
            .prop_map(|(tenant, what)| Step::Ask(tenant, what)),
        4 => clock.prop_map(Step::MoveClock),
        1 => Just(Step::Restart),
    ]
}

fn any_what() -> impl Strategy<Value = What> {
    let session = || 0..SESSIONS.len();
    let tool = prop::sample::select(vec!["", "mail", "search", "shell", "rm"]);
    let amount = || prop_oneof![3 => 0..12_u128, 1 => 0..90_u128];
    prop_oneof![
        3 => any_condition().prop_map(What::Add),
        1 => (1..9_u64).prop_map(What::Remove),
        9 => (session(), tool, amount()).prop_map(|(session, tool, cost)| What::Log { session, tool, cost }),
        5 => (session(), amount()).prop_map(|(session, amount)| What::Pay { session, amount }),
        3 => session().prop_map(|session| What::Check { session }),
        1 => session().prop_map(|session| What::Revoke { session }),
    ]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let window_s = || prop::sample::select(vec![1, 10, 60, 3600, 100_000_u64]);
    prop_oneof![
        (0..20_u128).prop_map(|above| Condition::SpendPerAction { above: Money::from_nanos(above) }),
        (1..5_u64).prop_map(|count| Condition::ActionsPerMinute { count }),
        Just(Condition::ToolBlocked { tools: vec!["shell".to_owned(), "rm".to_owned()] }),
        (1..4_u64, window_s()).prop_map(|(count, window_s)| Condition::RepeatedDenials { count, window_s }),
        (1..4_000_000_000_u64, 1..6_u64)
            .prop_map(|(factor_nanos, min_samples)| Condition::SpendSpike { factor_nanos, min_samples }),
        (1..5_u64).prop_map(|min_samples| Condition::UnusualTool { min_samples }),
        (1..5_u64).prop_map(|min_samples| Condition::UnusualHours { min_samples }),
        (1..5_u64, window_s()).prop_map(|(count, window_s)| Condition::Velocity { count, window_s }),
    ]
}
