//! What calls cost: set aside, paid or given back.

use super::*;

#[test]
fn a_call_costs_nothing_unless_a_policy_says_so() {
    let story = given([
        Event::SessionOpened(session("s", &["execute"], Some("1"))),
        registered("pay", Some(&[("charge", 1)])),
    ]);
    let mut command = call(&story, 1, Some("pay"), "charge");
    command.facts.amount = Amount::Is(usd("1000"));
    let story = story.when(Command::AuthorizeCall(command.clone())).then([authorized(&command, |_| {})]);
    let done = completed(1, Outcome::Succeeded, None);
    story.when(complete(1, Outcome::Succeeded)).then([done, logged("s", 1, "pay.charge", "0")]);
}

#[test]
fn the_price_is_set_aside_until_the_outcome_is_known_and_then_paid() {
    let story = pay_first(shop("10"), "4", Some("6"));
    assert_eq!(held_and_spent(&story, "s"), (usd("4"), usd("0")));
    // What is set aside is not there for anybody else.
    let second = priced(&story, 2, "6.5");
    let over = denied(&second, CallDenial::BudgetExceeded, |event| {
        event.price = Some(usd("6.5"));
        event.remaining = Some(usd("6"));
        event.bound = Some(Bound { account: Account::Session(session_id("s")), window: Window::Life });
    });
    let story = story.when(Command::AuthorizeCall(second)).then([over]);
    let paid = completed(1, Outcome::Succeeded, Some("4"));
    let story = story.when(complete(1, Outcome::Succeeded)).then([paid, logged("s", 1, "pay.charge", "4")]);
    assert_eq!(held_and_spent(&story, "s"), (usd("0"), usd("4")));
    assert_eq!(story.state().payments.authorized, 1);
    let exactly = priced(&story, 3, "6");
    let all = authorized(&exactly, |event| (event.price, event.remaining) = (Some(usd("6")), Some(usd("0"))));
    story.when(Command::AuthorizeCall(exactly)).then([all]);
}

#[test]
fn what_may_have_happened_is_paid_and_what_was_not_sent_is_given_back() {
    for outcome in [
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Refused,
        Outcome::Lost,
        Outcome::TimedOut,
        Outcome::TooLarge,
        Outcome::Cancelled,
    ] {
        let story = pay_first(shop("10"), "4", Some("6"));
        let paid = completed(1, outcome, Some("4"));
        let story = story.when(complete(1, outcome)).then([paid, logged("s", 1, "pay.charge", "4")]);
        assert_eq!(held_and_spent(&story, "s"), (usd("0"), usd("4")), "{outcome:?}");
        let upstream = story.state().upstreams.get(&name("pay")).unwrap();
        assert_eq!((upstream.calls, upstream.errors), (1, u64::from(outcome != Outcome::Succeeded)));
    }
    let story = pay_first(shop("10"), "4", Some("6"));
    let back = completed(1, Outcome::NotSent, None);
    let story = story.when(complete(1, Outcome::NotSent)).then([back, logged("s", 1, "pay.charge", "0")]);
    assert_eq!(held_and_spent(&story, "s"), (usd("0"), usd("0")));
    assert_eq!(story.state().payments.authorized, 0);
}

#[test]
fn a_call_without_an_outcome_keeps_its_price_from_payments_too() {
    let story = pay_first(shop("10"), "4", Some("6"));
    let payment = AuthorizePayment {
        authorization_id: authorization_id(),
        session_id: session_id("s"),
        amount: usd("6.000000001"),
        currency: "USD".to_owned(),
        description: String::new(),
        tool: String::new(),
        action: String::new(),
        approval_id: None,
        request_id: approval(9),
    };
    let Ok(Decision::Events(events)) = decided(&story, moment(50), Command::AuthorizePayment(payment)) else {
        panic!()
    };
    let Event::PaymentDenied(event) = &events[0] else { panic!("{events:?}") };
    assert_eq!((event.reason, event.remaining), (PaymentDenial::BudgetExceeded, Some(usd("6"))));
}

#[test]
fn a_price_counts_at_every_level() {
    let cap =
        |account, window, limit| Event::BudgetSet(BudgetSet { account, window, limit: Some(usd(limit)) });
    let below =
        SessionOpened { parent: Some(session_id("s")), ..session("child", &["execute", "spend"], None) };
    let below = || Event::SessionOpened(below.clone());
    for (account, window) in [
        (Account::Session(session_id("child")), Window::Hour),
        (Account::Session(session_id("s")), Window::Life),
        (Account::Agent(agent_id("agent")), Window::Day),
        (Account::Tenant, Window::Month),
    ] {
        let story = shop("100").when(remove("nobody")).refused(Refusal::UpstreamUnknown);
        let story = happened(story, [below(), cap(account.clone(), window, "5")]);
        let by_child = |number, amount| AuthorizeCall {
            session_id: session_id("child"),
            ..priced(&story, number, amount)
        };
        let first = by_child(1, "3");
        let event = authorized(&first, |event| {
            event.price = Some(usd("3"));
            event.remaining = Some(usd("2"));
        });
        let story = story.clone().when(Command::AuthorizeCall(first)).then([event]);
        assert_eq!(held_and_spent(&story, "s").0, usd("3"), "the session above holds it too");
        let second = by_child(2, "2.5");
        let over = denied(&second, CallDenial::BudgetExceeded, |event| {
            event.price = Some(usd("2.5"));
            event.remaining = Some(usd("2"));
            event.bound = Some(Bound { account: account.clone(), window });
        });
        let story = story.when(Command::AuthorizeCall(second)).then([over]);
        let done = completed(1, Outcome::Succeeded, Some("3"));
        let story =
            story.when(complete(1, Outcome::Succeeded)).then([done, logged("child", 1, "pay.charge", "3")]);
        for level in ["s", "child"] {
            assert_eq!(held_and_spent(&story, level), (usd("0"), usd("3")), "{account:?}");
        }
    }
}
