//! Policies: what each type says, at its boundaries, and how the set changes.

use super::*;
use crate::domain::Command;
use crate::domain::keys::tests::{Story, given, usd};

#[test]
fn an_entry_of_a_list_means_a_full_name_or_what_follows_a_dot() {
    let block = |tool: &str| Policy::BlockTool { tool: tool.to_owned() };
    for (entry, name, is_meant) in [
        ("charge", "pay.charge", true),
        ("pay.charge", "pay.charge", true),
        ("charge", "charge", true),
        ("bulk.charge", "pay.bulk.charge", true),
        ("charge", "pay.bulk.charge", true),
        ("charge", "pay.recharge", false),
        ("other.charge", "pay.charge", false),
        ("pay.charge", "charge", false),
        ("Charge", "pay.charge", false),
        ("pay", "pay.charge", false),
        ("", "pay.charge", false),
    ] {
        let denied = if is_meant { Some((1, "the tool is blocked")) } else { None };
        assert_eq!(judged(&[block(entry)], name, &facts()).denied, denied, "{entry} {name}");
    }
}

#[test]
fn lists_deny_what_they_hold_or_everything_else() {
    let tools = || list(&["charge", "docs.search"]);
    for (name, is_listed) in [
        ("pay.charge", true),
        ("other.charge", true),
        ("docs.search", true),
        ("pay.search", false),
        ("pay.refund", false),
        ("docs.resources/read", false),
    ] {
        let allow = judged(&[Policy::AllowList { tools: tools() }], name, &facts());
        assert_eq!(allow.denied.is_none(), is_listed, "{name}");
        let deny = judged(&[Policy::DenyList { tools: tools() }], name, &facts());
        assert_eq!(deny.denied.is_some(), is_listed, "{name}");
    }
    let nothing = Policy::AllowList { tools: vec![] };
    assert!(judged(&[nothing], "pay.charge", &facts()).denied.is_some());
    let everything = Policy::DenyList { tools: vec![] };
    assert!(judged(&[everything], "pay.charge", &facts()).denied.is_none());
}

#[test]
fn one_call_may_not_cost_more_than_the_limit() {
    let limit = [Policy::SpendLimit { max: usd("10") }];
    let says = |amount| judged(&limit, "pay.charge", &Facts { amount, ..facts() }).denied.map(|(_, why)| why);
    assert_eq!(says(Amount::Absent), None);
    assert_eq!(says(Amount::Is(usd("10"))), None);
    assert_eq!(says(Amount::Is(usd("10.000000001"))), Some("the amount is above the spend limit"));
    assert_eq!(says(Amount::Invalid), Some("the amount is not a number"));
    // What the call really costs counts, wherever the price stands.
    let priced = [limit[0].clone(), price(&["charge"], Price::Fixed(usd("11")))];
    let cheap = Facts { amount: Amount::Is(usd("1")), ..facts() };
    assert!(judged(&priced, "pay.charge", &cheap).denied.is_some());
    assert!(judged(&priced, "pay.refund", &cheap).denied.is_none());
}

#[test]
fn the_last_call_of_a_minute_is_the_one_that_reaches_the_limit() {
    let limit = Policies::of(vec![Policy::RateLimit { max_per_minute: 3 }]);
    let says =
        |recent| judge(&limit, Subject { name: "pay.charge", facts: &facts(), recent }).denied.is_some();
    assert_eq!([0, 2, 3, 4].map(says), [false, false, true, true]);
    let none = Policies::of(vec![Policy::RateLimit { max_per_minute: 0 }]);
    assert!(judge(&none, Subject { name: "a", facts: &facts(), recent: 0 }).denied.is_some());
    assert!(limit.limits_rates());
    assert!(!Policies::default().limits_rates());
}

#[test]
fn a_window_is_open_from_its_start_to_before_its_end_on_its_days() {
    let weekdays = 0b001_1111;
    let office = |minute| is_open(9 * 60, 17 * 60, weekdays, minute);
    for (at, open) in [
        (minute(0, 8, 59), false),
        (minute(0, 9, 0), true),
        (minute(0, 16, 59), true),
        (minute(0, 17, 0), false),
        (minute(4, 12, 0), true),
        (minute(5, 12, 0), false),
        (minute(6, 23, 59), false),
    ] {
        assert_eq!(office(at), open, "{at}");
    }
}

#[test]
fn a_window_across_midnight_belongs_to_the_day_on_which_it_began() {
    let sundays = |minute| is_open(22 * 60, 6 * 60, 0b100_0000, minute);
    for (at, open) in [
        (minute(6, 21, 59), false),
        (minute(6, 22, 0), true),
        (minute(6, 23, 59), true),
        // Across the end of the week.
        (minute(0, 0, 0), true),
        (minute(0, 5, 59), true),
        (minute(0, 6, 0), false),
        (minute(0, 22, 0), false),
        (minute(6, 0, 0), false),
        (minute(6, 5, 0), false),
    ] {
        assert_eq!(sundays(at), open, "{at}");
    }
    let fridays = |minute| is_open(22 * 60, 6 * 60, 0b001_0000, minute);
    assert!(fridays(minute(5, 3, 0)), "Saturday morning");
    assert!(!fridays(minute(4, 3, 0)), "Friday morning");
}

#[test]
fn a_window_may_be_a_whole_day() {
    let mondays =
        |start, end| (0..WEEK_MINUTES).filter(|minute| is_open(start, end, 1, *minute)).collect::<Vec<_>>();
    assert_eq!(mondays(0, DAY_MINUTES), (0..DAY_MINUTES).collect::<Vec<_>>());
    // From noon to noon.
    assert_eq!(mondays(720, 720), (720..720 + DAY_MINUTES).collect::<Vec<_>>());
    assert_eq!(mondays(0, 0), (0..DAY_MINUTES).collect::<Vec<_>>());
    assert!((0..WEEK_MINUTES).all(|minute| is_open(0, DAY_MINUTES, 0b111_1111, minute)));
    assert!((0..WEEK_MINUTES).all(|minute| is_open(720, 720, 0b111_1111, minute)));
    assert!((0..WEEK_MINUTES).all(|minute| !is_open(0, DAY_MINUTES, 0, minute)));
}

#[test]
fn a_window_that_nobody_looked_at_the_clock_for_is_closed() {
    let window =
        [Policy::TimeWindow { start: 0, end: DAY_MINUTES, days: 0b111_1111, zone: "UTC".to_owned() }];
    let says = |minutes| judged(&window, "pay.charge", &Facts { minutes, ..facts() }).denied.is_some();
    assert!(says(vec![]));
    assert!(says(vec![(2, 60)]), "that was for another policy");
    assert!(!says(vec![(1, 60)]));
}

#[test]
fn an_approval_is_wanted_above_an_amount_or_always() {
    let policy = |above: Option<&str>| Policy::RequireApproval {
        tools: list(&["charge"]),
        above: above.map(usd),
        required: 2,
    };
    let says = |above: Option<&str>, amount| {
        judged(&[policy(above)], "pay.charge", &Facts { amount, ..facts() }).approval
    };
    assert_eq!(says(None, Amount::Absent), Some((1, 2)));
    assert_eq!(says(None, Amount::Is(usd("1"))), Some((1, 2)));
    assert_eq!(says(Some("5"), Amount::Absent), None);
    assert_eq!(says(Some("5"), Amount::Is(usd("5"))), None);
    assert_eq!(says(Some("5"), Amount::Is(usd("5.000000001"))), Some((1, 2)));
    assert_eq!(says(Some("5"), Amount::Invalid), Some((1, 2)));
    assert_eq!(judged(&[policy(None)], "pay.refund", &facts()).approval, None);
}

#[test]
fn the_most_approvers_that_any_policy_wants_are_needed() {
    let policy =
        |tools: &[&str], required| Policy::RequireApproval { tools: list(tools), above: None, required };
    let policies = [policy(&["other"], 9), policy(&[], 1), policy(&["charge"], 3), policy(&[], 2)];
    let judgement = judged(&policies, "pay.charge", &facts());
    assert_eq!(judgement.approval, Some((2, 3)));
    assert_eq!(judgement.denied, None);
    let steps: Vec<Step> = judgement.steps.into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, [Step::Elsewhere, Step::WantsApproval, Step::WantsApproval, Step::WantsApproval]);
}

#[test]
fn the_first_price_for_a_tool_is_its_price() {
    let policies = [
        price(&["refund"], Price::Fixed(usd("1"))),
        price(&["charge"], Price::Argument("total".to_owned())),
        price(&[], Price::Fixed(usd("0.5"))),
    ];
    let facts = Facts { price: Amount::Is(usd("7")), amount: Amount::Is(usd("9")), ..facts() };
    let priced = |name| judged(&policies, name, &facts);
    assert_eq!(priced("pay.refund").price, Some(usd("1")));
    assert_eq!(priced("docs.search").price, Some(usd("0.5")));
    let charge = priced("pay.charge");
    assert_eq!(charge.price, Some(usd("7")));
    let steps: Vec<Step> = charge.steps.into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, [Step::Elsewhere, Step::Prices(usd("7")), Step::Elsewhere]);
    for said in [Amount::Absent, Amount::Invalid] {
        let judgement = judged(&policies, "pay.charge", &Facts { price: said, ..facts.clone() });
        assert_eq!(judgement.price, None);
        assert_eq!(judgement.denied.map(|(id, _)| id), Some(2), "{said:?}");
    }
}

#[test]
fn a_rule_about_an_argument_denies_where_it_is_broken() {
    let rule = |tools: &[&str]| Policy::Argument {
        tools: list(tools),
        argument: "a".to_owned(),
        test: ArgumentTest::Deny,
    };
    let policies = [rule(&["charge"]), rule(&["refund"]), rule(&[])];
    let says =
        |broken| judged(&policies, "pay.charge", &Facts { broken, ..facts() }).denied.map(|(id, _)| id);
    assert_eq!(says(vec![]), None);
    assert_eq!(says(vec![1]), Some(1));
    assert_eq!(says(vec![2]), None, "it is about another tool");
    assert_eq!(says(vec![2, 3]), Some(3));
}

#[test]
fn the_first_policy_that_denies_decides_and_all_are_asked() {
    let policies = [
        Policy::Redact { tools: vec![], arguments: list(&["card"]), results: vec![] },
        Policy::SpendLimit { max: usd("1") },
        Policy::BlockTool { tool: "charge".to_owned() },
        price(&["charge"], Price::Fixed(usd("2"))),
    ];
    let judgement = judged(&policies, "pay.charge", &facts());
    assert_eq!(judgement.denied, Some((2, "the amount is above the spend limit")));
    let expected = [
        (1, Step::Redacts),
        (2, Step::Denies("the amount is above the spend limit")),
        (3, Step::Denies("the tool is blocked")),
        (4, Step::Prices(usd("2"))),
    ];
    assert_eq!(judgement.steps, expected);
}

#[test]
fn policies_are_numbered_for_ever_and_every_change_has_a_revision() {
    let story = given([]).when(add(block("a"))).then([added(1, block("a"), 1)]);
    let story = story.when(add(block("b"))).then([added(2, block("b"), 2)]);
    let story = story.when(remove(2)).then([removed(2, 3)]);
    let story = story.when(remove(2)).refused(Refusal::PolicyUnknown);
    let story = story.when(add(block("a"))).then([added(3, block("a"), 4)]);
    let all: Vec<_> = story.state().policies.all().map(|(id, _)| id).collect();
    assert_eq!((all, story.state().policies.revision()), (vec![1, 3], 4));
}

#[test]
fn policies_that_stay_where_they_were_keep_their_numbers() {
    let story = three();
    let story = story.when(replace(&["a", "b", "c"], None)).then([]);
    let longer = story.clone().when(replace(&["a", "b", "c", "d"], Some(3)));
    longer.then([added(4, block("d"), 4)]);
    let shorter = story.clone().when(replace(&["a"], None)).then([removed(2, 4), removed(3, 5)]);
    assert_eq!(shorter.state().policies.revision(), 5);
    let other = story.clone().when(replace(&["a", "c", "b"], None));
    let other = other.then([removed(2, 4), removed(3, 5), added(4, block("c"), 6), added(5, block("b"), 7)]);
    assert_eq!(order(&other), [1, 4, 5]);
    let other = other.when(replace(&[], None)).then([removed(1, 8), removed(4, 9), removed(5, 10)]);
    assert!(order(&other).is_empty());
    other.when(add(block("x"))).then([added(6, block("x"), 11)]);
}

#[test]
fn a_set_is_replaced_only_as_it_was_looked_at() {
    let story = three().when(replace(&["z"], Some(2))).refused(Refusal::PoliciesMoved);
    let story = story.when(replace(&["z"], Some(4))).refused(Refusal::PoliciesMoved);
    story.when(replace(&["a", "b", "c"], Some(3))).then([]);
}

#[test]
fn there_are_at_most_so_many_policies() {
    let story = given((1..=POLICY_COUNT_MAX as u64).map(|id| added(id, block("a"), id)));
    let story = story.when(add(block("a"))).refused(Refusal::TooManyPolicies);
    let names = vec!["a"; POLICY_COUNT_MAX + 1];
    let story = story.when(replace(&names, None)).refused(Refusal::TooManyPolicies);
    let story = story.when(replace(&names[1..], None)).then([]);
    let next = POLICY_COUNT_MAX as u64 + 1;
    let story = story.when(remove(1)).then([removed(1, next)]);
    story.when(add(block("a"))).then([added(next, block("a"), next + 1)]);
}

#[test]
fn a_set_can_be_tried_that_never_was() {
    let tried = Policies::of(vec![block("a"), Policy::RateLimit { max_per_minute: 1 }]);
    assert_eq!(tried.all().map(|(id, _)| id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(tried.revision(), 2);
}

fn three() -> Story {
    given([added(1, block("a"), 1), added(2, block("b"), 2), added(3, block("c"), 3)])
}

fn order(story: &Story) -> Vec<u64> {
    story.state().policies.all().map(|(id, _)| id).collect()
}

fn judged(policies: &[Policy], name: &str, facts: &Facts) -> Judgement {
    judge(&Policies::of(policies.to_vec()), Subject { name, facts, recent: 0 })
}

fn facts() -> Facts {
    Facts::default()
}

/// Minute of the week; Monday is 0.
fn minute(day: u16, hour: u16, minute: u16) -> u16 {
    day * DAY_MINUTES + hour * 60 + minute
}

fn list(tools: &[&str]) -> Vec<String> {
    tools.iter().map(ToString::to_string).collect()
}

fn block(tool: &str) -> Policy {
    Policy::BlockTool { tool: tool.to_owned() }
}

fn price(tools: &[&str], price: Price) -> Policy {
    Policy::Price { tools: list(tools), price }
}

fn add(policy: Policy) -> Command {
    Command::AddPolicy(AddPolicy { policy })
}

fn remove(policy_id: u64) -> Command {
    Command::RemovePolicy(RemovePolicy { policy_id })
}

fn replace(tools: &[&str], expected: Option<u64>) -> Command {
    let policies = tools.iter().map(|tool| block(tool)).collect();
    Command::ReplacePolicies(ReplacePolicies { policies, expected })
}

pub(in crate::domain) fn added(policy_id: u64, policy: Policy, revision: u64) -> Event {
    Event::PolicyAdded(PolicyAdded { policy_id, policy, revision })
}

fn removed(policy_id: u64, revision: u64) -> Event {
    Event::PolicyRemoved(PolicyRemoved { policy_id, revision })
}
