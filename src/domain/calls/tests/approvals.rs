//! Calls that people must approve.

use super::*;

#[test]
fn a_call_that_a_rule_holds_up_is_asked_about_once_and_its_approval_is_used_once() {
    let story = happened(shop("100"), [Event::ApprovalRuleAdded(rule(1))]);
    let first = priced(&story, 1, "4");
    let refused = denied(&first, CallDenial::ApprovalRequired, |event| event.approval_id = Some(approval(1)));
    let request = asked("s", "4", 1, Origin::Call);
    let expires_at = moment(4).plus_seconds(CALL_APPROVAL_TTL_S);
    let request = ApprovalRequested { expires_at: Some(expires_at), ..request };
    let story = story.when(Command::AuthorizeCall(first)).then([refused, Event::ApprovalRequested(request)]);
    // Whoever asks again waits for the same.
    let again = priced(&story, 2, "4");
    let waits = denied(&again, CallDenial::ApprovalRequired, |event| event.approval_id = Some(approval(1)));
    let story = story.when(Command::AuthorizeCall(again)).then([waits]);
    let story = happened(story, [granted(1, 0)]);
    let covered = priced(&story, 3, "4");
    let used = authorized(&covered, |event| {
        event.price = Some(usd("4"));
        event.remaining = Some(usd("96"));
        event.approval_id = Some(approval(1));
    });
    let story = story.when(Command::AuthorizeCall(covered)).then([used]);
    assert_eq!(
        story.state().approvals.get(&approval(1)).unwrap().used_by.as_ref().unwrap().as_str(),
        "call_3"
    );
    let once_more = priced(&story, 4, "4");
    let events = events_of(&story, &once_more);
    assert_eq!(reason_of(&events), Some(CallDenial::ApprovalRequired));
    assert_eq!(events.len(), 2, "it is asked for anew");
}

#[test]
fn an_approval_is_for_these_arguments_and_this_price() {
    let story = happened(shop("100"), [Event::ApprovalRuleAdded(rule(1))]);
    let request = Event::ApprovalRequested(asked("s", "4", 1, Origin::Call));
    let story = happened(story, [request, granted(1, 0)]);
    let same = priced(&story, 2, "4");
    assert_eq!(reason_of(&events_of(&story, &same)), None);
    let others = [
        AuthorizeCall { arguments: [1; 32], ..same.clone() },
        AuthorizeCall { name: "refund".to_owned(), ..same.clone() },
        AuthorizeCall { method: Method::Prompt, name: "other".to_owned(), ..same.clone() },
        priced(&story, 2, "4.000000001"),
        priced(&story, 2, "3.999999999"),
    ];
    for other in others {
        assert_eq!(reason_of(&events_of(&story, &other)), Some(CallDenial::ApprovalRequired), "{other:?}");
        let named = AuthorizeCall { approval_id: Some(approval(1)), ..other };
        assert_eq!(reason_of(&events_of(&story, &named)), Some(CallDenial::ApprovalNotCovering), "{named:?}");
    }
    let named = AuthorizeCall { approval_id: Some(approval(1)), ..same };
    assert_eq!(reason_of(&events_of(&story, &named)), None);
}

#[test]
fn who_asks_beforehand_about_the_same_arguments_need_not_ask_again() {
    let story = happened(shop("100"), [Event::ApprovalRuleAdded(rule(1))]);
    let by_hand = asked("s", "4", 1, Origin::Caller);
    let described = Subject { description: "the yearly fee".to_owned(), ..by_hand.subject.clone() };
    let vague = Subject { arguments: None, ..described.clone() };
    let with = |subject: Subject| {
        let request = Event::ApprovalRequested(ApprovalRequested { subject, ..by_hand.clone() });
        happened(story.clone(), [request, granted(1, 0)])
    };
    let story = with(described);
    assert_eq!(reason_of(&events_of(&story, &priced(&story, 2, "4"))), None);
    let story = with(vague);
    let reason = reason_of(&events_of(&story, &priced(&story, 2, "4")));
    assert_eq!(reason, Some(CallDenial::ApprovalRequired), "nobody saw the arguments");
}

#[test]
fn a_policy_may_want_more_approvals_than_a_rule() {
    let wants = Policy::RequireApproval { tools: vec![], above: None, required: 2 };
    let story = happened(shop("100"), [Event::ApprovalRuleAdded(rule(1)), added(2, wants, 2)]);
    let events = events_of(&story, &priced(&story, 1, "4"));
    let Event::ApprovalRequested(request) = &events[1] else { panic!("{events:?}") };
    assert_eq!((request.required, request.origin), (2, Origin::Call));
    let story = happened(story, [Event::ApprovalRequested(request.clone()), granted_by("alice", 1, 1)]);
    let waits = events_of(&story, &priced(&story, 2, "4"));
    assert_eq!((reason_of(&waits), waits.len()), (Some(CallDenial::ApprovalRequired), 1));
    let story = happened(story, [granted_by("bob", 1, 0)]);
    assert_eq!(reason_of(&events_of(&story, &priced(&story, 2, "4"))), None);
}

#[test]
fn an_amount_that_is_none_needs_every_approval_that_an_amount_could_need() {
    let over = Rule { kind: "spend_over".to_owned(), threshold: usd("100"), tools: vec![], required: 1 };
    let story = given([
        Event::SessionOpened(session("s", &["execute"], None)),
        registered("pay", Some(&[("charge", 1)])),
        Event::ApprovalRuleAdded(ApprovalRuleAdded { rule_id: 1, rule: over }),
    ]);
    let says = |amount| {
        let mut command = call(&story, 1, Some("pay"), "charge");
        command.facts.amount = amount;
        reason_of(&events_of(&story, &command))
    };
    assert_eq!(says(Amount::Absent), None);
    assert_eq!(says(Amount::Is(usd("100"))), None);
    assert_eq!(says(Amount::Is(usd("100.000000001"))), Some(CallDenial::ApprovalRequired));
    assert_eq!(says(Amount::Invalid), Some(CallDenial::ApprovalRequired));
}
