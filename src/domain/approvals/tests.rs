//! Requests, decisions, and what they let through.

use super::*;
use crate::domain::Command;
use crate::domain::budgets::{AuthorizePayment, PaymentAuthorized, PaymentDenial};
use crate::domain::due;
use crate::domain::keys::tests::{Story, agent_id, given, moment, opened, session_id, usd};
use crate::domain::{Actor, Decision, Envelope, RequestId};

#[test]
fn rules_apply_by_their_type() {
    let rule = |kind: &str| Rule {
        kind: kind.to_owned(),
        threshold: usd("10"),
        tools: vec!["stripe".to_owned()],
        required: 1,
    };
    for (kind, tool, action, amount, applies) in [
        ("all", "", "", "0", true),
        ("spend_over", "", "", "10", false),
        ("spend_over", "", "", "10.000000001", true),
        ("tool_blocked", "stripe", "", "0", true),
        ("tool_blocked", "stripes", "", "0", false),
        ("destructive", "", DESTRUCTIVE[0], "0", true),
        ("destructive", "", "look", "0", false),
        ("unheard of", "stripe", DESTRUCTIVE[0], "100", false),
    ] {
        assert_eq!(rule(kind).applies(tool, action, usd(amount)), applies, "{kind} {tool} {action} {amount}");
    }
}

#[test]
fn as_many_must_approve_as_the_strictest_rule_wants() {
    let story = given([rule(1, "all", 1), rule(2, "spend_over", 3), rule(3, "all", 2)]);
    let required = |amount| story.state().approvals.required("", "", usd(amount));
    assert_eq!(required("1"), Some(2));
    assert_eq!(required("6"), Some(3));
    assert_eq!(given([rule(2, "spend_over", 3)]).state().approvals.required("", "", usd("5")), None);
}

#[test]
fn nobody_approves_twice_and_one_denial_settles_it() {
    let story = asked(2);
    let story = story.when(approve("ann", None, None)).then([granted("ann", None, None, 1)]);
    let story = story.when(approve("ann", None, None)).refused(Refusal::DeciderRepeated);
    let denied = story.clone().when(deny("bob")).then([Event::ApprovalDenied(ApprovalDenied {
        approval_id: id(),
        decider: "bob".to_owned(),
        note: String::new(),
    })]);
    denied.clone().when(approve("cid", None, None)).refused(Refusal::ApprovalDecided);
    assert_eq!(reason(&denied, "4"), Some(PaymentDenial::ApprovalDenied));
    assert_eq!(reason(&story, "4"), Some(PaymentDenial::ApprovalRequired), "one is missing");
    let story = story.when(approve("bob", None, None)).then([granted("bob", None, None, 0)]);
    story.clone().when(deny("cid")).refused(Refusal::ApprovalDecided);
    assert_eq!(reason(&story, "4"), None);
}

#[test]
fn deciders_may_narrow_and_never_widen() {
    let story = asked(2);
    story.clone().when(approve("ann", Some("4.000000001"), None)).refused(Refusal::ApprovalWidened);
    let story = story.when(approve("ann", Some("3"), None)).then([granted("ann", Some("3"), None, 1)]);
    story.clone().when(approve("bob", Some("3.5"), None)).refused(Refusal::ApprovalWidened);
    let story = story.when(approve("bob", None, None)).then([granted("bob", None, None, 0)]);
    for (amount, expected) in [
        ("3", None),
        ("2", None),
        ("3.000000001", Some(PaymentDenial::ApprovalRequired)),
        ("4", Some(PaymentDenial::ApprovalRequired)),
    ] {
        assert_eq!(reason(&story, amount), expected, "{amount}");
    }
}

#[test]
fn without_narrowing_exactly_what_was_asked_for_is_approved() {
    let story = asked(1).when(approve("ann", None, None)).then([granted("ann", None, None, 0)]);
    assert_eq!(reason(&story, "4"), None);
    for amount in ["3.999999999", "4.000000001"] {
        assert_eq!(reason(&story, amount), Some(PaymentDenial::ApprovalRequired), "{amount}");
    }
}

#[test]
fn an_approval_lasts_as_long_as_the_deciders_and_the_request_let_it() {
    // Asked at 2 for 60 seconds, approved at 3 for 10.
    let story = asked(1).when(approve("ann", None, Some(10))).then([granted("ann", None, Some(10), 0)]);
    assert_eq!(reason_at(&story, "4", moment(13)), None);
    assert_eq!(reason_at(&story, "4", moment(14)), Some(PaymentDenial::ApprovalRequired));
    let longer = asked(1).when(approve("ann", None, Some(1000))).then([granted("ann", None, Some(1000), 0)]);
    assert_eq!(reason_at(&longer, "4", moment(62)), None);
    assert_eq!(reason_at(&longer, "4", moment(63)), Some(PaymentDenial::ApprovalRequired));
}

#[test]
fn what_nobody_decides_in_time_expires() {
    let story = asked(1);
    assert_eq!(due(story.state(), moment(62)), None);
    let late = Timestamp::from_micros(moment(62).micros() + 1);
    let expire = Command::ExpireApproval(ExpireApproval { approval_id: id() });
    assert_eq!(due(story.state(), late), Some(expire.clone()));
    story.clone().when(expire.clone()).at(moment(62)).refused(Refusal::NotDue);
    story.clone().when(approve("ann", None, None)).at(late).refused(Refusal::ApprovalExpired);
    let over = Event::ApprovalExpired(ApprovalExpired { approval_id: id() });
    let story = story.when(expire).at(late).then([over]);
    story.clone().when(approve("ann", None, None)).refused(Refusal::ApprovalExpired);
    assert_eq!(due(story.state(), late), None);
}

#[test]
fn an_approval_is_used_once() {
    let story = asked(1).when(approve("ann", None, None)).then([granted("ann", None, None, 0)]);
    let paid = Event::PaymentAuthorized(PaymentAuthorized {
        authorization_id: AuthorizationId::parse("auth").unwrap(),
        session_id: session_id("s"),
        agent_id: agent_id("agent"),
        amount: usd("4"),
        currency: "USD".to_owned(),
        description: String::new(),
        tool: String::new(),
        action: String::new(),
        approval_id: Some(id()),
        remaining: None,
    });
    let story = story.when(Command::AuthorizePayment(payment("4", None))).then([paid]);
    assert_eq!(reason(&story, "4"), Some(PaymentDenial::ApprovalRequired));
    let named = Command::AuthorizePayment(payment("4", Some(id())));
    assert_eq!(reason_of(&story, named, moment(10)), Some(PaymentDenial::ApprovalNotCovering));
}

#[test]
fn a_named_approval_must_be_there_and_cover_it_even_if_none_is_needed() {
    let story = given([Event::SessionOpened(opened("s", None))]);
    let named = || Command::AuthorizePayment(payment("4", Some(id())));
    assert_eq!(reason_of(&story, named(), moment(10)), Some(PaymentDenial::ApprovalNotCovering));
    assert_eq!(reason(&story, "4"), None);
}

#[test]
fn the_same_request_is_made_once() {
    let again = AuthorizePayment { request_id: ApprovalId::parse("another").unwrap(), ..payment("4", None) };
    let Ok(Decision::Events(events)) = decided(&asked(1), Command::AuthorizePayment(again), moment(10))
    else {
        panic!()
    };
    let [Event::PaymentDenied(denied)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((denied.reason, denied.approval_id.clone()), (PaymentDenial::ApprovalRequired, Some(id())));
}

/// A payment of 4 that a rule held up, and that so many must approve.
fn asked(required: u8) -> Story {
    let story = given([Event::SessionOpened(opened("s", None)), rule(1, "all", required)]);
    let Ok(Decision::Events(events)) =
        decided(&story, Command::AuthorizePayment(payment("4", None)), moment(2))
    else {
        panic!("it is held up")
    };
    let [Event::PaymentDenied(_), Event::ApprovalRequested(request)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((request.required, request.origin), (required, Origin::Payment));
    let request = ApprovalRequested { ttl_s: 60, expires_at: Some(moment(62)), ..request.clone() };
    story.tells([Event::ApprovalRequested(request)])
}

fn id() -> ApprovalId {
    ApprovalId::parse("apr").unwrap()
}

fn rule(rule_id: u64, kind: &str, required: u8) -> Event {
    let (kind, threshold, tools) = (kind.to_owned(), usd("5"), vec![]);
    Event::ApprovalRuleAdded(ApprovalRuleAdded { rule_id, rule: Rule { kind, threshold, tools, required } })
}

fn payment(amount: &str, approval_id: Option<ApprovalId>) -> AuthorizePayment {
    AuthorizePayment {
        authorization_id: AuthorizationId::parse("auth").unwrap(),
        session_id: session_id("s"),
        amount: usd(amount),
        currency: "USD".to_owned(),
        description: String::new(),
        tool: String::new(),
        action: String::new(),
        approval_id,
        request_id: id(),
    }
}

fn approve(decider: &str, amount: Option<&str>, ttl_s: Option<u64>) -> Command {
    decide_as(decider, Verdict::Approve { amount: amount.map(usd), ttl_s })
}

fn deny(decider: &str) -> Command {
    decide_as(decider, Verdict::Deny)
}

fn decide_as(decider: &str, verdict: Verdict) -> Command {
    let (decider, note) = (decider.to_owned(), String::new());
    Command::DecideApproval(DecideApproval { approval_id: id(), verdict, decider, note })
}

/// Granted at 3, or a second later by who comes second.
fn granted(decider: &str, amount: Option<&str>, ttl_s: Option<u64>, missing: u8) -> Event {
    let shorter = ttl_s.map(|ttl_s| moment(3).plus_seconds(ttl_s));
    Event::ApprovalGranted(ApprovalGranted {
        approval_id: id(),
        decider: decider.to_owned(),
        note: String::new(),
        amount: amount.map(usd),
        ttl_s,
        usable_until: shorter.into_iter().chain([moment(62)]).min(),
        missing,
    })
}

fn decided(story: &Story, command: Command, at: Timestamp) -> Result<Decision, Refusal> {
    let envelope = Envelope {
        seq: 100,
        at,
        actor: Actor::Operator,
        request_id: RequestId::parse("request").unwrap(),
        idempotency: None,
        is_deployment_new: false,
        command,
    };
    crate::domain::decide(story.state(), &envelope)
}

fn reason(story: &Story, amount: &str) -> Option<PaymentDenial> {
    reason_at(story, amount, moment(10))
}

/// Why a payment would be denied; `None` when it would not.
fn reason_at(story: &Story, amount: &str, at: Timestamp) -> Option<PaymentDenial> {
    let fresh = AuthorizePayment { request_id: ApprovalId::parse("fresh").unwrap(), ..payment(amount, None) };
    reason_of(story, Command::AuthorizePayment(fresh), at)
}

fn reason_of(story: &Story, command: Command, at: Timestamp) -> Option<PaymentDenial> {
    let Ok(Decision::Events(events)) = decided(story, command, at) else { panic!("it is decided") };
    if let Event::PaymentDenied(denied) = &events[0] {
        return Some(denied.reason);
    }
    assert!(matches!(events[0], Event::PaymentAuthorized(_)), "{events:?}");
    None
}
