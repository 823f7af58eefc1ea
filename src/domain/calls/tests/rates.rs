//! How often agents may act.

use super::*;

#[test]
fn an_agent_acts_so_many_times_in_any_sixty_seconds_and_no_more() {
    let story = happened(shop("100"), [added(2, Policy::RateLimit { max_per_minute: 3 }, 2)]);
    let at = |micros| Timestamp::from_micros(micros);
    let second = 1_000_000;
    let try_at = |story: &Story, number, micros| {
        let command = call(story, number, Some("pay"), "refund");
        let events = match decided(story, at(micros), Command::AuthorizeCall(command)) {
            Ok(Decision::Events(events)) => events,
            other => panic!("{other:?}"),
        };
        (reason_of(&events), happened_at(story.clone(), at(micros), events))
    };
    let (first, story) = try_at(&story, 1, 10 * second);
    // What agents log themselves counts, and what is logged of a call does not count twice.
    let story = happened_at(story, at(11 * second), vec![logged("s", 99, "elsewhere", "0")]);
    let done = [completed(1, Outcome::Succeeded, None), logged("s", 1, "pay.refund", "0")];
    let story = happened_at(story, at(12 * second), done.to_vec());
    let (second_call, story) = try_at(&story, 2, 20 * second);
    assert_eq!((first, second_call), (None, None));
    let (third, story) = try_at(&story, 3, 69 * second + 999_999);
    assert_eq!(third, Some(CallDenial::Policy), "three in the last minute: two calls and a log entry");
    let (third, story) = try_at(&story, 4, 70 * second);
    assert_eq!(third, None, "the first was a minute ago");
    let (fourth, _) = try_at(&story, 5, 70 * second + 500_000);
    assert_eq!(fourth, Some(CallDenial::Policy), "denials do not count, and do not free anything");
    let (fourth, _) = try_at(&story, 6, 71 * second);
    assert_eq!(fourth, None, "so was what it logged");
}

#[test]
fn agents_do_not_count_for_each_other() {
    let limit = added(2, Policy::RateLimit { max_per_minute: 1 }, 2);
    let other = SessionOpened { agent_id: agent_id("other"), ..session("o", &["execute"], None) };
    let story = happened(shop("100"), [limit, Event::SessionOpened(other)]);
    let first = call(&story, 1, Some("pay"), "refund");
    let story = story.when(Command::AuthorizeCall(first.clone())).then([authorized(&first, |_| {})]);
    assert_eq!(
        reason_of(&events_now(&story, &call(&story, 2, Some("pay"), "refund"))),
        Some(CallDenial::Policy)
    );
    let by_other = AuthorizeCall { session_id: session_id("o"), ..call(&story, 2, Some("pay"), "refund") };
    assert_eq!(reason_of(&events_now(&story, &by_other)), None);
}

#[test]
fn a_limit_that_changes_its_place_forgets_nothing() {
    let limit = Policy::RateLimit { max_per_minute: 1 };
    let story = happened(shop("100"), [added(2, limit.clone(), 2)]);
    let first = call(&story, 1, Some("pay"), "refund");
    let story = story.when(Command::AuthorizeCall(first.clone())).then([authorized(&first, |_| {})]);
    let replace = Command::ReplacePolicies(ReplacePolicies { policies: vec![limit.clone()], expected: None });
    let removed = |policy_id, revision| Event::PolicyRemoved(PolicyRemoved { policy_id, revision });
    let story = story.when(replace).then([removed(1, 3), removed(2, 4), added(3, limit, 5)]);
    assert_eq!(
        reason_of(&events_now(&story, &call(&story, 2, Some("pay"), "refund"))),
        Some(CallDenial::Policy)
    );
}
