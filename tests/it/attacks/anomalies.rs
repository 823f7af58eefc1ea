//! Attacks on what anomaly rules found, by whoever holds the signing key.

use haldir::domain::anomalies::AddRule;
use haldir::domain::anomalies::rule::{Condition, Rule};
use haldir::domain::{Command, Event};
use haldir::operations::evidence::Verdict::{NotSound, Sound};

use super::world::*;
use super::{Attack, KNOWS_OURS, Original};

/// A rule against the tool of every action.
fn watch() -> Command {
    let condition = Condition::ToolBlocked { tools: vec!["email".to_owned()] };
    Command::AddAnomalyRule(AddRule { rule: Rule { condition, reason: None } })
}

/// An entry of the rule, two actions that it finds, and a payment that it does not.
fn watched() -> Story {
    let mut story = watched_once();
    story.tell(admin(), act("s", 2));
    story.tell(admin(), pay("s", "3", 1));
    story
}

/// The same until the first action was found.
fn watched_once() -> Story {
    let mut story = ruled();
    story.tell(admin(), act("s", 1));
    story
}

fn ruled() -> Story {
    let mut story = Story::honest_until(2);
    story.tell(admin(), watch());
    story
}

pub(super) const ORIGINALS: &[Original] =
    &[("original-anomalies.jsonl", KNOWS_OURS, || watched().export().render(), Sound)];

pub(super) const ATTACKS: &[Attack] = &[
    (
        "flag-stripped.jsonl",
        "original-anomalies.jsonl",
        KNOWS_OURS,
        "the operator takes the flag from an action",
        || {
            let mut story = watched_once();
            story.forge(&watched_once(), admin(), act("s", 2), |recorded| {
                let Event::ActionLogged(action) = &mut recorded.event else { unreachable!() };
                action.flag = None;
            });
            story.export().render()
        },
        (NotSound, Some(5), "they give action.logged with other content"),
    ),
    (
        "flag-reworded.jsonl",
        "original-anomalies.jsonl",
        KNOWS_OURS,
        "the operator gives a flag another reason",
        || {
            let mut story = watched_once();
            story.forge(&watched_once(), admin(), act("s", 2), |recorded| {
                let Event::ActionLogged(action) = &mut recorded.event else { unreachable!() };
                action.flag = Some("nothing to see here".to_owned());
            });
            story.export().render()
        },
        (NotSound, Some(5), "they give action.logged with other content"),
    ),
    (
        "anomaly-left-out.jsonl",
        "original-anomalies.jsonl",
        KNOWS_OURS,
        "the operator leaves out what a rule found",
        || {
            let mut story = watched_once();
            story.forge(&watched_once(), admin(), act("s", 2), |_| {});
            story.forge(&watched_once(), admin(), pay("s", "3", 1), |_| {});
            story.export().render()
        },
        (NotSound, Some(6), "payment.authorized; they give anomaly.detected"),
    ),
    (
        "anomaly-cut-off.jsonl",
        "original-anomalies.jsonl",
        KNOWS_OURS,
        "the operator leaves out what a rule found, at the end of the stream",
        || {
            let mut story = watched_once();
            story.forge(&watched_once(), admin(), act("s", 2), |_| {});
            story.export().render()
        },
        (NotSound, Some(6), "nothing more; they give anomaly.detected"),
    ),
    (
        "anomaly-invented.jsonl",
        "original-anomalies.jsonl",
        KNOWS_OURS,
        "the operator writes that a rule found something that nobody did",
        || {
            let mut story = watched_once();
            story.forge(&watched_once(), admin(), pay("s", "3", 1), |_| {});
            story.forge(&watched_once(), admin(), act("s", 2), |recorded| recorded.event = found());
            story.export().render()
        },
        (NotSound, Some(6), "only another event of the same decision leads to it"),
    ),
    (
        "anomaly-evidence.jsonl",
        "original-anomalies.jsonl",
        KNOWS_OURS,
        "the operator names other evidence",
        || {
            let mut story = ruled();
            story.forge(&ruled(), admin(), act("s", 1), |_| {});
            story.forge(&ruled(), admin(), act("s", 1), |recorded| recorded.event = found());
            story.export().render()
        },
        (NotSound, Some(4), "they give anomaly.detected with other content"),
    ),
    (
        "flag-invented.jsonl",
        "original-anomalies.jsonl",
        KNOWS_OURS,
        "the operator flags an action that no rule is about",
        || {
            let mut story = Story::honest_until(2);
            story.forge(&Story::honest_until(2), admin(), act("s", 1), |recorded| {
                let Event::ActionLogged(action) = &mut recorded.event else { unreachable!() };
                action.flag = Some("tool_blocked exceeded email".to_owned());
            });
            story.export().render()
        },
        (NotSound, Some(2), "they give action.logged with other content"),
    ),
];

/// What the rule found first, with one more event as its evidence.
fn found() -> Event {
    let entries = watched_once().entries;
    let mut event = haldir::format::entry::open(entries.last().unwrap()).unwrap().recorded.event;
    let Event::AnomalyDetected(anomaly) = &mut event else { unreachable!() };
    anomaly.evidence.insert(0, 1);
    event
}
