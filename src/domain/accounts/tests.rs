//! Windows, and what counts against whom.

use super::*;
use crate::domain::Command;
use crate::domain::keys::tests::{Story, agent_id, given, moment, opened, paid, session_id, usd};
use crate::domain::sessions::SessionOpened;

#[test]
fn windows_are_those_of_the_calendar() {
    let at = |text: &str| Timestamp::parse(text).unwrap();
    for (window, inside, end) in [
        (Window::Hour, "2024-02-29T13:59:59.999999Z", Some("2024-02-29T14:00:00Z")),
        (Window::Hour, "2024-02-29T14:00:00Z", Some("2024-02-29T15:00:00Z")),
        (Window::Day, "2024-02-29T00:00:00Z", Some("2024-03-01T00:00:00Z")),
        (Window::Day, "2023-12-31T23:59:59Z", Some("2024-01-01T00:00:00Z")),
        (Window::Month, "2024-02-01T00:00:00Z", Some("2024-03-01T00:00:00Z")),
        (Window::Month, "2023-12-31T23:59:59Z", Some("2024-01-01T00:00:00Z")),
        (Window::Life, "2024-02-29T13:59:59Z", None),
    ] {
        assert_eq!(window.end(at(inside)), end.map(at), "{window:?} {inside}");
    }
}

#[test]
fn what_was_spent_counts_until_its_window_ends() {
    let at = |text: &str| Timestamp::parse(text).unwrap();
    let mut tally = Tally::default();
    tally.debit(usd("1"), at("2024-01-31T22:10:00Z"));
    tally.debit(usd("2"), at("2024-01-31T23:10:00Z"));
    let spent = |tally: &Tally, at| Window::ALL.map(|window| tally.spent_in(window, at).to_string());
    assert_eq!(spent(&tally, at("2024-01-31T23:59:59.999999Z")), ["2.0", "3.0", "3.0", "3.0"]);
    assert_eq!(spent(&tally, at("2024-02-01T00:00:00Z")), ["0.0", "0.0", "0.0", "3.0"]);
    // An hour of the same number on another day is another hour.
    assert_eq!(spent(&tally, at("2024-02-01T23:10:00Z"))[0], "0.0");
    tally.debit(usd("4"), at("2024-02-01T00:00:00Z"));
    assert_eq!(spent(&tally, at("2024-02-01T00:59:00Z")), ["4.0", "4.0", "4.0", "7.0"]);
    // A month of another year is another month.
    assert_eq!(spent(&tally, at("2025-02-01T00:00:00Z")), ["0.0", "0.0", "0.0", "7.0"]);
}

#[test]
fn what_is_held_counts_in_every_window_until_it_is_given_back() {
    let mut tally = Tally { held: usd("5"), ..Tally::default() };
    tally.debit(usd("1"), moment(10));
    let used =
        |tally: &Tally, seconds| Window::ALL.map(|window| tally.used(window, moment(seconds)).to_string());
    assert_eq!(used(&tally, 3599), ["6.0", "6.0", "6.0", "6.0"]);
    assert_eq!(used(&tally, 3600), ["5.0", "6.0", "6.0", "6.0"]);
    assert_eq!(used(&tally, 40 * 86_400), ["5.0", "5.0", "5.0", "6.0"]);
    tally.held = Money::ZERO;
    assert_eq!(used(&tally, 3600), ["0.0", "1.0", "1.0", "1.0"]);
}

#[test]
fn a_payment_counts_once_against_everybody_above() {
    let by = |name: &str, agent: &str, parent: Option<&str>| {
        let session =
            SessionOpened { agent_id: agent_id(agent), parent: parent.map(session_id), ..opened(name, None) };
        Event::SessionOpened(session)
    };
    let story = given([
        by("root", "boss", None),
        by("middle", "worker", Some("root")),
        // The same agent twice in the line.
        by("leaf", "boss", Some("middle")),
        by("other", "other", None),
        paid("leaf", "3", None),
    ]);
    let spent = |name: &str| story.state().sessions.get(&session_id(name)).unwrap().budget.spent();
    assert_eq!(
        ["leaf", "middle", "root", "other"].map(|name| spent(name).to_string()),
        ["3.0", "3.0", "3.0", "0.0"]
    );
    let accounts = &story.state().accounts;
    for (agent, expected) in [("boss", "3"), ("worker", "3"), ("other", "0")] {
        assert_eq!(accounts.agent(&agent_id(agent)).spent, usd(expected), "{agent}");
    }
    assert_eq!(accounts.tenant().spent, usd("3"));
    let own = |name: &str| story.state().sessions.get(&session_id(name)).unwrap().budget.own_spent;
    assert_eq!([own("leaf"), own("middle"), own("root")], [usd("3"), usd("0"), usd("0")]);
}

#[test]
fn the_first_cap_that_does_not_hold_it_is_named_and_the_least_that_is_left() {
    let cap = |account, window, limit: &str| {
        Event::BudgetSet(BudgetSet { account, window, limit: Some(usd(limit)) })
    };
    let story = given([
        Event::SessionOpened(opened("s", Some("10"))),
        cap(Account::Session(session_id("s")), Window::Hour, "8"),
        cap(Account::Agent(agent_id("agent")), Window::Day, "6"),
        cap(Account::Tenant, Window::Month, "4"),
        paid("s", "1", None),
    ]);
    for (amount, exceeded) in [
        ("3", None),
        ("3.000000001", Some((Account::Tenant, Window::Month))),
        ("5.000000001", Some((Account::Agent(agent_id("agent")), Window::Day))),
        ("7.000000001", Some((Account::Session(session_id("s")), Window::Hour))),
        ("9.000000001", Some((Account::Session(session_id("s")), Window::Life))),
    ] {
        let room = room_for(&story, amount, moment(5));
        let exceeded = exceeded.map(|(account, window)| Bound { account, window });
        assert_eq!(room, Ok(Room { exceeded, remaining: Some(usd("3")) }), "{amount}");
    }
    // A month later only what lasts for ever still counts.
    let later = room_for(&story, "4", moment(40 * 86_400));
    assert_eq!(later, Ok(Room { exceeded: None, remaining: Some(usd("4")) }));
}

#[test]
fn sums_that_do_not_fit_are_refused() {
    let story = given([Event::SessionOpened(opened("s", None)), paid("s", "1", None)]);
    let largest = Money::MAX.minus(usd("1"));
    let room =
        |amount| room(&story.state().sessions, &story.state().accounts, &session_id("s"), amount, moment(5));
    assert_eq!(room(largest), Ok(Room { exceeded: None, remaining: None }));
    assert_eq!(room(Money::MAX), Err(Refusal::SumTooLarge));
}

#[test]
fn a_cap_is_set_once_and_lifted_once() {
    let set = |account: Account, limit: Option<&str>| {
        Command::SetBudget(SetBudget { account, window: Window::Day, limit: limit.map(usd) })
    };
    let was_set = |limit: Option<&str>| {
        Event::BudgetSet(BudgetSet { account: Account::Tenant, window: Window::Day, limit: limit.map(usd) })
    };
    let story = given([]).when(set(Account::Tenant, None)).then([]);
    let story = story.when(set(Account::Tenant, Some("5"))).then([was_set(Some("5"))]);
    let story = story.when(set(Account::Tenant, Some("5"))).then([]);
    let story = story.when(set(Account::Tenant, Some("0"))).then([was_set(Some("0"))]);
    assert_eq!(story.state().accounts.caps().count(), 1);
    let story = story.when(set(Account::Tenant, None)).then([was_set(None)]);
    assert_eq!(story.state().accounts.caps().count(), 0);
    story.when(set(Account::Session(session_id("nobody")), Some("5"))).refused(Refusal::SessionUnknown);
}

fn room_for(story: &Story, amount: &str, at: Timestamp) -> Result<Room, Refusal> {
    room(&story.state().sessions, &story.state().accounts, &session_id("s"), usd(amount), at)
}
