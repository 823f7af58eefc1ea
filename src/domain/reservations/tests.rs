//! Amounts that are set aside, settled and given back.

use super::*;
use crate::domain::due;
use crate::domain::keys::tests::{Story, agent_id, given, moment, opened, session_id, usd};

#[test]
fn what_is_set_aside_is_paid_once_all_of_it_or_less() {
    let story = reserved("4");
    let part = story.clone().when(settle(Some("1.5"))).then([settled("1.5", "4")]);
    assert_eq!(held_and_spent(&part), ("0.0".to_owned(), "1.5".to_owned()));
    part.clone().when(settle(None)).refused(Refusal::ReservationNotOpen);
    part.when(release()).refused(Refusal::ReservationNotOpen);
    let all = story.clone().when(settle(None)).then([settled("4", "4")]);
    assert_eq!(held_and_spent(&all), ("0.0".to_owned(), "4.0".to_owned()));
    let nothing = story.clone().when(settle(Some("0"))).then([settled("0", "4")]);
    assert_eq!(held_and_spent(&nothing), ("0.0".to_owned(), "0.0".to_owned()));
    let back = story.when(release()).then([given_back(false)]);
    assert_eq!(held_and_spent(&back), ("0.0".to_owned(), "0.0".to_owned()));
    back.when(settle(None)).refused(Refusal::ReservationNotOpen);
}

#[test]
fn more_than_was_set_aside_is_denied_and_it_stays_set_aside() {
    let (amount, reserved_amount) = (usd("4.000000001"), usd("4"));
    let denied = Event::SettlementDenied(SettlementDenied {
        authorization_id: id(),
        session_id: session_id("s"),
        agent_id: agent_id("agent"),
        amount,
        reserved: reserved_amount,
    });
    let story = reserved("4").when(settle(Some("4.000000001"))).then([denied]);
    assert_eq!(held_and_spent(&story), ("4.0".to_owned(), "0.0".to_owned()));
    story.when(settle(Some("4"))).then([settled("4", "4")]);
}

#[test]
fn it_is_given_back_when_its_time_is_over_and_not_before() {
    let story = reserved("4");
    // Set aside at 1 for 60 seconds.
    assert_eq!(due(story.state(), moment(61)), None);
    let expire = Command::ExpireReservation(ExpireReservation { authorization_id: id() });
    story.clone().when(expire.clone()).at(moment(61)).refused(Refusal::NotDue);
    story.clone().when(settle(None)).at(moment(61)).then([settled("4", "4")]);
    let late = Timestamp::from_micros(moment(61).micros() + 1);
    assert_eq!(due(story.state(), late), Some(expire.clone()));
    story.clone().when(settle(None)).at(late).refused(Refusal::ReservationNotOpen);
    story.clone().when(release()).at(late).refused(Refusal::ReservationNotOpen);
    let over = story.when(expire.clone()).at(late).then([given_back(true)]);
    assert_eq!(held_and_spent(&over), ("0.0".to_owned(), "0.0".to_owned()));
    assert_eq!(due(over.state(), late), None);
    over.when(expire).at(late).refused(Refusal::ReservationNotOpen);
}

#[test]
fn the_oldest_is_given_back_first() {
    let other = PaymentReserved {
        authorization_id: AuthorizationId::parse("before").unwrap(),
        expires_at: moment(30),
        ..reservation("1")
    };
    let story = reserved("4").tells([Event::PaymentReserved(other)]);
    let first = ExpireReservation { authorization_id: AuthorizationId::parse("before").unwrap() };
    assert_eq!(due(story.state(), moment(100)), Some(Command::ExpireReservation(first)));
}

#[test]
fn an_id_that_is_open_is_taken() {
    let command = Command::ReservePayment(ReservePayment { payment: payment("1"), ttl_s: 60 });
    reserved("4").when(command).refused(Refusal::AuthorizationIdTaken);
}

fn id() -> AuthorizationId {
    AuthorizationId::parse("auth").unwrap()
}

fn reserved(amount: &str) -> Story {
    let story = given([Event::SessionOpened(opened("s", Some("10")))]);
    let command = Command::ReservePayment(ReservePayment { payment: payment(amount), ttl_s: 60 });
    let story = story.when(command).then([Event::PaymentReserved(reservation(amount))]);
    assert_eq!(held_and_spent(&story), (usd(amount).to_string(), "0.0".to_owned()));
    story
}

fn payment(amount: &str) -> AuthorizePayment {
    AuthorizePayment {
        authorization_id: id(),
        session_id: session_id("s"),
        amount: usd(amount),
        currency: "USD".to_owned(),
        description: String::new(),
        tool: String::new(),
        action: String::new(),
        approval_id: None,
        request_id: ApprovalId::parse("apr").unwrap(),
    }
}

fn reservation(amount: &str) -> PaymentReserved {
    PaymentReserved {
        authorization_id: id(),
        session_id: session_id("s"),
        agent_id: agent_id("agent"),
        amount: usd(amount),
        currency: "USD".to_owned(),
        description: String::new(),
        tool: String::new(),
        action: String::new(),
        approval_id: None,
        remaining: Some(usd("10").minus(usd(amount))),
        ttl_s: 60,
        expires_at: moment(61),
    }
}

fn settle(amount: Option<&str>) -> Command {
    Command::SettlePayment(SettlePayment { authorization_id: id(), amount: amount.map(usd) })
}

fn release() -> Command {
    Command::ReleasePayment(ReleasePayment { authorization_id: id() })
}

fn settled(amount: &str, reserved: &str) -> Event {
    Event::PaymentSettled(PaymentSettled {
        authorization_id: id(),
        session_id: session_id("s"),
        agent_id: agent_id("agent"),
        amount: usd(amount),
        reserved: usd(reserved),
    })
}

fn given_back(has_expired: bool) -> Event {
    Event::PaymentReleased(PaymentReleased {
        authorization_id: id(),
        session_id: session_id("s"),
        agent_id: agent_id("agent"),
        amount: usd("4"),
        has_expired,
    })
}

fn held_and_spent(story: &Story) -> (String, String) {
    let tally = &story.state().sessions.get(&session_id("s")).unwrap().budget.tally;
    (tally.held.to_string(), tally.spent.to_string())
}
