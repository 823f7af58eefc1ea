//! Calls through the proxy: what stands in their way, in order, and what becomes of them.

mod approvals;
mod prices;
mod rates;

use super::*;
use crate::domain::accounts::{Account, BudgetSet, Window};
use crate::domain::approvals::{
    ApprovalDenied, ApprovalGranted, ApprovalRequested, ApprovalRuleAdded, Origin, Rule, Subject,
};
use crate::domain::budgets::{AuthorizePayment, PaymentDenial};
use crate::domain::id::{Actor, RequestId};
use crate::domain::keys::tests::{
    Story, agent_id, authorization_id, given, moment, opened, session_id, session_revoked, usd,
};
use crate::domain::limits::{CALL_APPROVAL_TTL_S, OPEN_CALL_COUNT_MAX};
use crate::domain::policies::tests::added;
use crate::domain::policies::{Amount, Policy, PolicyRemoved, Price, ReplacePolicies, Step};
use crate::domain::secrets::{SecretRead, SecretStored};
use crate::domain::sessions::SessionOpened;
use crate::domain::upstreams::UpstreamRemoved;
use crate::domain::upstreams::tests::{name, observed, registered, remove};
use crate::domain::{Command, Decision, Envelope, decide};

#[test]
fn the_first_thing_that_stands_in_the_way_is_the_reason() {
    let reasons = [
        CallDenial::SessionRevoked,
        CallDenial::SessionExpired,
        CallDenial::ToolUnknown,
        CallDenial::ToolQuarantined,
        CallDenial::ScopeMissing,
        CallDenial::Policy,
        CallDenial::SpendScopeMissing,
        CallDenial::BudgetExceeded,
        CallDenial::SecretDenied,
        CallDenial::ApprovalNotCovering,
        CallDenial::ApprovalDenied,
        CallDenial::ApprovalRequired,
    ];
    for (place, reason) in reasons.into_iter().enumerate() {
        let (story, command) = everything_from(place);
        let Ok(Decision::Events(events)) = decided(&story, moment(50), Command::AuthorizeCall(command))
        else {
            panic!("{reason:?}")
        };
        let Event::CallDenied(event) = &events[0] else { panic!("{reason:?}: {events:?}") };
        assert_eq!(event.reason, reason);
    }
    let (story, command) = everything_from(reasons.len());
    let Ok(Decision::Events(events)) = decided(&story, moment(50), Command::AuthorizeCall(command)) else {
        panic!("it may be called")
    };
    assert!(matches!(events[..], [Event::CallAuthorized(_)]), "{events:?}");
}

/// A call that everything stands in the way of from one reason on, and nothing before.
fn everything_from(first: usize) -> (Story, AuthorizeCall) {
    let stands = |place: usize| first <= place;
    let scopes: &[&str] = match first {
        0..=4 => &["nothing"],
        5..=6 => &["execute"],
        _ => &["execute", "spend"],
    };
    let end = if stands(1) { moment(20) } else { moment(100) };
    let session = SessionOpened {
        expires_at: Some(end),
        ..session("s", scopes, Some(if stands(7) { "1" } else { "9" }))
    };
    let mut events = vec![
        Event::SessionOpened(session),
        registered("pay", Some(&[("charge", 1)])),
        added(1, Policy::Price { tools: vec![], price: Price::Fixed(usd("2")) }, 1),
        added(2, Policy::DenyList { tools: if stands(5) { vec!["charge".to_owned()] } else { vec![] } }, 2),
    ];
    if stands(3) {
        events.push(observed("pay", &[("charge", 9, false)]));
    }
    if stands(11) {
        events.push(Event::ApprovalRuleAdded(rule(1)));
    }
    if stands(10) {
        events.push(Event::ApprovalRequested(asked("s", "2", 1, Origin::Call)));
        let (decider, note) = (String::new(), String::new());
        events.push(Event::ApprovalDenied(ApprovalDenied { approval_id: approval(1), decider, note }));
    }
    if stands(0) {
        events.push(session_revoked("s"));
    }
    let story = given(events);
    let tool = if stands(2) { "nothing" } else { "charge" };
    let secrets = if stands(8) { vec![secret_use("unknown", None)] } else { vec![] };
    let approval_id = (first <= 9).then(|| approval(7));
    (story.clone(), AuthorizeCall { secrets, approval_id, ..call(&story, 1, Some("pay"), tool) })
}

#[test]
fn the_secrets_of_a_call_are_read_by_its_session_in_the_same_decision() {
    let story = happened(shop("10"), [stored("execute")]);
    let plain = priced(&story, 1, "4");
    let with = |uses: Vec<SecretUse>| AuthorizeCall { secrets: uses, ..plain.clone() };
    let granted = with(vec![secret_use("token", Some(5)), secret_use("token", Some(5))]);
    let call =
        authorized(&granted, |event| (event.price, event.remaining) = (Some(usd("4")), Some(usd("6"))));
    let read = Event::SecretRead(SecretRead {
        name: SecretName::parse("token").unwrap(),
        version: 1,
        session_id: session_id("s"),
        agent_id: agent_id("agent"),
        digest: [5; 32],
    });
    story.clone().when(Command::AuthorizeCall(granted)).then([call, read.clone(), read]);
    // Somebody stored another value after it was opened, or before it was looked for.
    for opened in [Some(6), None] {
        let moved = with(vec![secret_use("token", opened)]);
        story.clone().when(Command::AuthorizeCall(moved)).refused(Refusal::SecretMoved);
    }
    // What the session may not have is told first, and names the secret.
    let missing = with(vec![secret_use("token", Some(6)), secret_use("nothing", None)]);
    let refused =
        denied(&missing, CallDenial::SecretDenied, |event| event.secret = SecretName::parse("nothing"));
    story.when(Command::AuthorizeCall(missing)).then([refused]);
    let story = happened(shop("10"), [stored("vault")]);
    let missing = AuthorizeCall { secrets: vec![secret_use("token", Some(5))], ..priced(&story, 1, "4") };
    assert_eq!(reason_of(&events_of(&story, &missing)), Some(CallDenial::SecretDenied));
}

#[test]
fn a_call_that_was_prepared_for_something_else_is_refused() {
    let story = shop("10");
    let right = priced(&story, 1, "4");
    let stale = |change: &dyn Fn(&mut AuthorizeCall)| {
        let mut command = right.clone();
        change(&mut command);
        story.clone().when(Command::AuthorizeCall(command)).refused(Refusal::CallStale);
    };
    stale(&|command| command.facts.revision = 0);
    stale(&|command| command.facts.revision = 2);
    stale(&|command| command.registration = None);
    stale(&|command| command.registration = Some(2));
    stale(&|command| command.upstream = Some(name("docs")));
    // Another upstream has the name since: it may be a stranger.
    let again = story.clone().when(remove("pay"));
    let again = again.then([Event::UpstreamRemoved(UpstreamRemoved { name: name("pay") })]);
    let again = happened(again, [registered("pay", Some(&[("charge", 1)]))]);
    again.when(Command::AuthorizeCall(right)).refused(Refusal::CallStale);
    let nobody = AuthorizeCall { session_id: session_id("nobody"), ..priced(&story, 1, "4") };
    story.when(Command::AuthorizeCall(nobody)).refused(Refusal::SessionUnknown);
}

#[test]
fn a_call_has_one_outcome_whatever_ended_meanwhile() {
    let story = pay_first(shop("10"), "4", Some("6"));
    let story = story.when(complete(2, Outcome::Lost)).refused(Refusal::CallUnknown);
    let twice = priced(&story, 1, "1");
    let story = story.when(Command::AuthorizeCall(twice)).refused(Refusal::CallIdTaken);
    let gone = Event::UpstreamRemoved(UpstreamRemoved { name: name("pay") });
    let story = happened(story, [session_revoked("s"), gone]);
    assert_eq!(story.state().calls.open().count(), 1);
    let done = completed(1, Outcome::Succeeded, Some("4"));
    let story = story.when(complete(1, Outcome::Succeeded)).then([done, logged("s", 1, "pay.charge", "4")]);
    assert_eq!(held_and_spent(&story, "s"), (usd("0"), usd("4")));
    assert_eq!((story.state().calls.open().count(), story.state().calls.authorized()), (0, 1));
    story.when(complete(1, Outcome::Succeeded)).refused(Refusal::CallUnknown);
}

#[test]
fn at_most_so_many_calls_are_without_an_outcome() {
    let story = shop("10");
    let event = |number: usize| {
        let (mut event, id) =
            (authorized(&call(&story, 1, Some("pay"), "refund"), |_| {}), format!("c{number}"));
        if let Event::CallAuthorized(event) = &mut event {
            event.call_id = CallId::parse(&id).unwrap();
        }
        event
    };
    let full = happened(story.clone(), (0..OPEN_CALL_COUNT_MAX).map(event));
    let more = call(&story, 1, Some("pay"), "refund");
    full.when(Command::AuthorizeCall(more)).refused(Refusal::TooManyCalls);
}

#[test]
fn what_settles_a_request_is_repeated_and_what_people_may_change_is_not() {
    let story = shop("10");
    let first = priced(&story, 1, "4");
    let event = authorized(&first, |event| (event.price, event.remaining) = (Some(usd("4")), Some(usd("6"))));
    let story = story.when(Command::AuthorizeCall(first)).once(1, 1).then([event]);
    let again = priced(&story, 2, "4");
    let story = story.when(Command::AuthorizeCall(again.clone())).once(1, 1).replays(3);
    story.when(Command::AuthorizeCall(again)).once(1, 2).refused(Refusal::IdempotencyMismatch);
    let quarantined = happened(shop("10"), [observed("pay", &[("charge", 9, false)])]);
    let first = priced(&quarantined, 1, "4");
    let event = denied(&first, CallDenial::ToolQuarantined, |_| {});
    let story = quarantined.when(Command::AuthorizeCall(first.clone())).once(1, 1).then([event.clone()]);
    story.when(Command::AuthorizeCall(first)).once(1, 1).then([event]);
}

#[test]
fn scopes_may_be_narrowed_to_an_upstream_or_a_tool() {
    for (scope, tools) in [
        ("execute", [true, true]),
        ("read", [true, true]),
        ("admin", [true, true]),
        ("execute:pay", [true, true]),
        ("read:pay.charge", [true, false]),
        ("execute:pay.refund", [false, true]),
        ("execute:other", [false, false]),
        ("execute:pa", [false, false]),
        ("spend", [false, false]),
        ("write", [false, false]),
    ] {
        let may = ["charge", "refund"].map(|tool| {
            let story = given([
                Event::SessionOpened(session("s", &[scope], None)),
                registered("pay", Some(&[("charge", 1), ("refund", 2)])),
            ]);
            reason_of(&events_of(&story, &call(&story, 1, Some("pay"), tool)))
                != Some(CallDenial::ScopeMissing)
        });
        assert_eq!(may, tools, "{scope}");
    }
}

#[test]
fn resources_and_prompts_are_called_by_names_of_their_own() {
    let story = given([
        Event::SessionOpened(session("s", &["read"], None)),
        registered("docs", None),
        added(1, Policy::DenyList { tools: vec!["resources/read".to_owned()] }, 1),
    ]);
    let of = |method, upstream| AuthorizeCall { method, ..call(&story, 1, upstream, "docs://manual") };
    let resource = of(Method::Resource, Some("docs"));
    let event = denied(&resource, CallDenial::Policy, |event| event.policy_id = Some(1));
    story.clone().when(Command::AuthorizeCall(resource)).then([event]);
    let prompt = of(Method::Prompt, Some("docs"));
    story.clone().when(Command::AuthorizeCall(prompt.clone())).then([authorized(&prompt, |_| {})]);
    let nowhere = AuthorizeCall { registration: None, ..of(Method::Prompt, None) };
    let event = denied(&nowhere, CallDenial::ToolUnknown, |_| {});
    story.when(Command::AuthorizeCall(nowhere)).then([event]);
}

#[test]
fn a_bare_name_is_recorded_with_the_upstream_that_has_it() {
    let story = shop("10");
    for called in ["pay.refund", "refund"] {
        let command = call(&story, 1, None, called);
        let event = authorized(&command, |event| event.name = "refund".to_owned());
        story.clone().when(Command::AuthorizeCall(command)).then([event]);
    }
}

#[test]
fn a_decision_can_be_explained_without_being_taken() {
    let story = shop("10");
    let command = priced(&story, 1, "40");
    let explained = explain(story.state(), moment(50), &command).unwrap();
    assert_eq!(explained.judgement.steps, [(1, Step::Prices(usd("40")))]);
    assert_eq!(reason_of(&explained.events), Some(CallDenial::BudgetExceeded));
    assert_eq!(
        Ok(Decision::Events(explained.events)),
        decided(&story, moment(50), Command::AuthorizeCall(command))
    );
    let nobody = AuthorizeCall { session_id: session_id("nobody"), ..priced(&story, 1, "1") };
    assert_eq!(explain(story.state(), moment(50), &nobody), Err(Refusal::SessionUnknown));
}

/// An upstream with two tools, one of which costs what its argument says, and a session that may spend.
fn shop(cap: &str) -> Story {
    let price =
        Policy::Price { tools: vec!["charge".to_owned()], price: Price::Argument("amount".to_owned()) };
    given([
        Event::SessionOpened(session("s", &["execute", "spend"], Some(cap))),
        registered("pay", Some(&[("charge", 1), ("refund", 2)])),
        added(1, price, 1),
    ])
}

fn session(name: &str, scopes: &[&str], cap: Option<&str>) -> SessionOpened {
    SessionOpened { scopes: scopes.iter().map(ToString::to_string).collect(), ..opened(name, cap) }
}

/// More that happens, whatever led to it.
fn happened(story: Story, events: impl IntoIterator<Item = Event>) -> Story {
    events.into_iter().fold(story, |story, event| story.tells([event]))
}

fn happened_at(story: Story, at: Timestamp, events: Vec<Event>) -> Story {
    story.tells_at(at, events)
}

fn decided(story: &Story, at: Timestamp, command: Command) -> Result<Decision, Refusal> {
    let envelope = Envelope {
        seq: 1000,
        at,
        actor: Actor::Operator,
        request_id: RequestId::parse("request").unwrap(),
        idempotency: None,
        is_deployment_new: false,
        command,
    };
    decide(story.state(), &envelope)
}

fn events_of(story: &Story, command: &AuthorizeCall) -> Vec<Event> {
    events_at(story, moment(50), command)
}

fn events_now(story: &Story, command: &AuthorizeCall) -> Vec<Event> {
    events_at(story, moment(15), command)
}

fn events_at(story: &Story, at: Timestamp, command: &AuthorizeCall) -> Vec<Event> {
    match decided(story, at, Command::AuthorizeCall(command.clone())) {
        Ok(Decision::Events(events)) => events,
        other => panic!("{other:?}"),
    }
}

fn reason_of(events: &[Event]) -> Option<CallDenial> {
    if let Event::CallDenied(event) = &events[0] {
        return Some(event.reason);
    }
    assert!(matches!(events[0], Event::CallAuthorized(_)), "{events:?}");
    None
}

fn held_and_spent(story: &Story, name: &str) -> (Money, Money) {
    let tally = &story.state().sessions.get(&session_id(name)).unwrap().budget.tally;
    (tally.held, tally.spent)
}

fn call_id(number: u8) -> CallId {
    CallId::parse(&format!("call_{number}")).unwrap()
}

fn approval(number: u8) -> ApprovalId {
    ApprovalId::parse(&format!("apr_{number}")).unwrap()
}

/// A call of the session `s`, prepared for what is true.
fn call(story: &Story, number: u8, upstream: Option<&str>, tool: &str) -> AuthorizeCall {
    let upstreams = &story.state().upstreams;
    let upstream = upstream.map(name);
    let found = upstream.clone().or_else(|| upstreams.resolve(tool).map(|(upstream, _)| upstream.clone()));
    AuthorizeCall {
        call_id: call_id(number),
        session_id: session_id("s"),
        method: Method::Tool,
        upstream,
        name: tool.to_owned(),
        facts: Facts { revision: story.state().policies.revision(), ..Facts::default() },
        registration: found.and_then(|it| upstreams.get(&it)).map(|it| it.seq),
        arguments: [4; 32],
        secrets: vec![],
        approval_id: None,
        request_id: approval(number),
    }
}

/// A call of the tool that costs what its argument says.
fn priced(story: &Story, number: u8, amount: &str) -> AuthorizeCall {
    let mut command = call(story, number, Some("pay"), "charge");
    command.facts.price = Amount::Is(usd(amount));
    command
}

fn pay_first(story: Story, amount: &str, remaining: Option<&str>) -> Story {
    let command = priced(&story, 1, amount);
    let event = authorized(&command, |event| {
        (event.price, event.remaining) = (Some(usd(amount)), remaining.map(usd));
    });
    story.when(Command::AuthorizeCall(command)).then([event])
}

fn authorized(command: &AuthorizeCall, change: impl FnOnce(&mut CallAuthorized)) -> Event {
    let mut event = CallAuthorized {
        call_id: command.call_id.clone(),
        session_id: command.session_id.clone(),
        agent_id: agent_id("agent"),
        method: command.method,
        upstream: command.upstream.clone().unwrap_or(name("pay")),
        registration: command.registration.unwrap(),
        name: command.name.clone(),
        facts: command.facts.clone(),
        arguments: command.arguments,
        price: None,
        remaining: None,
        approval_id: None,
        secrets: command.secrets.clone(),
    };
    change(&mut event);
    Event::CallAuthorized(event)
}

fn denied(command: &AuthorizeCall, reason: CallDenial, change: impl FnOnce(&mut CallDenied)) -> Event {
    let mut event = CallDenied {
        call_id: command.call_id.clone(),
        session_id: command.session_id.clone(),
        agent_id: agent_id("agent"),
        method: command.method,
        upstream: command.upstream.clone(),
        registration: command.registration,
        name: command.name.clone(),
        facts: command.facts.clone(),
        arguments: command.arguments,
        reason,
        policy_id: None,
        price: None,
        remaining: None,
        bound: None,
        approval_id: None,
        secret: None,
    };
    change(&mut event);
    Event::CallDenied(event)
}

fn complete(number: u8, outcome: Outcome) -> Command {
    Command::CompleteCall(CompleteCall {
        call_id: call_id(number),
        outcome,
        duration_us: 7,
        details_digest: Some([8; 32]),
    })
}

fn completed(number: u8, outcome: Outcome, charged: Option<&str>) -> Event {
    Event::CallCompleted(CallCompleted {
        call_id: call_id(number),
        outcome,
        duration_us: 7,
        charged: charged.map(usd),
        details_digest: Some([8; 32]),
    })
}

fn logged(name: &str, number: u8, tool: &str, cost: &str) -> Event {
    Event::ActionLogged(ActionLogged {
        entry_id: EntryId::of_call(&call_id(number)),
        session_id: session_id(name),
        agent_id: agent_id("agent"),
        action: AUDIT_ACTION.to_owned(),
        tool: tool.to_owned(),
        cost: usd(cost),
        details_digest: Some([8; 32]),
        flag: None,
    })
}

fn rule(required: u8) -> ApprovalRuleAdded {
    let (kind, threshold, tools) = ("all".to_owned(), usd("0"), vec![]);
    ApprovalRuleAdded { rule_id: 1, rule: Rule { kind, threshold, tools, required } }
}

fn asked(session: &str, amount: &str, number: u8, origin: Origin) -> ApprovalRequested {
    ApprovalRequested {
        approval_id: approval(number),
        subject: Subject {
            session_id: session_id(session),
            tool: "pay".to_owned(),
            action: "charge".to_owned(),
            currency: String::new(),
            description: String::new(),
            arguments: Some([4; 32]),
        },
        agent_id: agent_id("agent"),
        amount: usd(amount),
        reason: String::new(),
        ttl_s: CALL_APPROVAL_TTL_S,
        expires_at: Some(moment(CALL_APPROVAL_TTL_S)),
        required: 1,
        origin,
    }
}

fn granted(number: u8, missing: u8) -> Event {
    granted_by("alice", number, missing)
}

fn granted_by(decider: &str, number: u8, missing: u8) -> Event {
    Event::ApprovalGranted(ApprovalGranted {
        approval_id: approval(number),
        decider: decider.to_owned(),
        note: String::new(),
        amount: None,
        ttl_s: None,
        usable_until: Some(moment(CALL_APPROVAL_TTL_S)),
        missing,
    })
}

fn stored(required_scope: &str) -> Event {
    Event::SecretStored(SecretStored {
        name: SecretName::parse("token").unwrap(),
        version: 1,
        required_scope: required_scope.to_owned(),
        digest: [5; 32],
        sealed_len: 64,
        erased: None,
    })
}

fn secret_use(name: &str, opened: Option<u8>) -> SecretUse {
    SecretUse { name: SecretName::parse(name).unwrap(), opened: opened.map(|digest| [digest; 32]) }
}
