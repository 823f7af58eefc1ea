//! Are ledger entries told to OCSF collectors as they were recorded?
//!
//! The lines of `tests/vectors/ocsf.jsonl` are what this program says of the entries here; the Python tests hold the same
//! lines against the published schema and verify the entries in them.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use haldir::domain::Event;
use haldir::domain::audit::{ActionLogged, ActionRejected, ActionRejection};
use haldir::domain::budgets::{PaymentAuthorized, PaymentDenial, PaymentDenied};
use haldir::domain::id::{Actor, AgentId, EntryId, SessionId};
use haldir::domain::money::Money;
use haldir::domain::sessions::{PermissionChecked, SessionOpened, Verdict};
use haldir::domain::usage::UsageMetered;
use haldir::format::entry;
use haldir::operations::ocsf;
use proptest::prelude::*;
use serde_json::Value;

use crate::samples::{self, random_cases, recorded, sealed};

const LINES: &str = include_str!("../vectors/ocsf.jsonl");

/// The lines of a stream about secrets.
const SECRET_LINES: &str = include_str!("../vectors/ocsf_secrets.jsonl");

/// One event of every kind, and what the kinds can differ in.
fn events() -> Vec<Event> {
    let mut events = samples::events();
    let variants: Vec<Event> = events.iter().flat_map(variants).collect();
    events.extend(variants);
    events.extend(samples::custody_events());
    events.extend(samples::compliance_events());
    let told = [samples::payments::recorded_payments()];
    events.extend(told.into_iter().flatten().map(|recorded| recorded.event));
    events.extend(samples::webhooks::webhook_events().into_iter().skip(1));
    events.extend(samples::anomaly_events().into_iter().skip(2));
    events.extend(samples::proxy::recorded_proxy().into_iter().skip(4).map(|recorded| recorded.event));
    events
}

fn variants(event: &Event) -> Vec<Event> {
    match event.clone() {
        Event::SessionOpened(event) => vec![Event::SessionOpened(SessionOpened {
            scopes: Vec::new(),
            cap: None,
            ttl_s: 0,
            expires_at: None,
            agent_limit: Some(3),
            ..event
        })],
        Event::PermissionChecked(event) => {
            [Verdict::Allowed, Verdict::SessionUnknown, Verdict::SessionRevoked, Verdict::SessionExpired]
                .map(|verdict| Event::PermissionChecked(PermissionChecked { verdict, ..event.clone() }))
                .to_vec()
        }
        Event::PaymentAuthorized(event) => {
            let amount = Money::parse("0.000000001").unwrap();
            vec![Event::PaymentAuthorized(PaymentAuthorized { amount, remaining: None, ..event })]
        }
        Event::PaymentDenied(event) => {
            [PaymentDenial::SessionRevoked, PaymentDenial::SessionExpired, PaymentDenial::SpendScopeMissing]
                .map(|reason| Event::PaymentDenied(PaymentDenied { reason, ..event.clone() }))
                .to_vec()
        }
        Event::ActionLogged(event) => vec![Event::ActionLogged(ActionLogged {
            action: "say \"hi\",\nthen\u{2028}wait 🕊".to_owned(),
            tool: String::new(),
            details_digest: None,
            flag: Some("unusual hour".to_owned()),
            ..event
        })],
        Event::ActionRejected(event) => vec![Event::ActionRejected(ActionRejected {
            tool: "email".to_owned(),
            reason: ActionRejection::SessionExpired,
            ..event
        })],
        Event::UsageMetered(event) => {
            vec![Event::UsageMetered(UsageMetered { keys: Vec::new(), ..event })]
        }
        _ => Vec::new(),
    }
}

fn lines_of(events: Vec<Event>) -> Vec<String> {
    let mut stream = recorded(events);
    for (recorded, actor) in stream.iter_mut().skip(1).zip([Actor::Operator, Actor::Bootstrap]) {
        recorded.actor = actor;
    }
    let entries = sealed(&samples::tenant(), &stream);
    entries.iter().map(|it| ocsf::line(&entry::open(&it.bytes).unwrap(), &it.bytes)).collect()
}

#[test]
fn lines_stay_as_they_were_published() {
    let lines = lines_of(events());
    for (line, published) in lines.iter().zip(LINES.lines()) {
        assert_eq!(line, published);
    }
    assert_eq!(lines.len(), LINES.lines().count(), "the program says:\n{}", lines.join("\n"));
    let kinds: BTreeSet<&str> = events().iter().map(Event::kind_name).collect();
    let told: BTreeSet<String> = LINES.lines().map(|line| kind_in(&parse(line))).collect();
    assert_eq!(told.iter().map(String::as_str).collect::<BTreeSet<_>>(), kinds);
}

#[test]
fn lines_about_secrets_stay_as_they_were_published() {
    let lines = lines_of(samples::secrets::vault_events());
    assert_eq!(lines, SECRET_LINES.lines().collect::<Vec<_>>());
}

#[test]
fn a_line_can_be_derived_from_the_bytes_that_it_carries() {
    for line in lines_of(events()) {
        let bytes = BASE64.decode(parse(&line)["raw_data"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(ocsf::line(&entry::open(&bytes).unwrap(), &bytes), line);
    }
}

proptest! {
    #![proptest_config(random_cases(64, "proptest-regressions/ocsf.txt"))]

    #[test]
    fn whatever_agents_say_stays_on_one_line_and_comes_back(
        action in "[\\s\\S]{1,40}", tool in "[\\s\\S]{0,20}", agent in "[\\n\\r\u{85}\u{2028}\u{2029}\"é]{0,9}",
        session in "\\PC{0,20}",
    ) {
        let event = Event::ActionLogged(ActionLogged {
            entry_id: EntryId::issue([3; 16]),
            session_id: SessionId::parse(&session).unwrap(),
            agent_id: AgentId::parse(&agent).unwrap(),
            action: action.clone(),
            tool: tool.clone(),
            cost: Money::ZERO,
            details_digest: None,
            flag: None,
        });
        let line = lines_of(vec![event]).remove(0);
        let is_line_end = |it: char| it < ' ' || ['\u{85}', '\u{2028}', '\u{2029}'].contains(&it);
        let is_one_line = !line.contains(is_line_end);
        prop_assert!(is_one_line, "{}", line);
        let event = parse(&line);
        prop_assert_eq!(&event["api"]["operation"], &action);
        prop_assert_eq!(event["api"]["service"]["name"].as_str().unwrap_or_default(), &tool);
        prop_assert_eq!(&event["ai_agent"]["uid"], &agent);
        prop_assert_eq!(&event["actor"]["session"]["uid"], &session);
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn kind_in(event: &Value) -> String {
    event["metadata"]["event_code"].as_str().unwrap().to_owned()
}
