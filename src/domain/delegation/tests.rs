//! Sessions below others: never wider, never longer.

use super::*;
use crate::domain::Command;
use crate::domain::keys::tests::{
    Story, agent_id, given, moment, opened, paid, session_id, session_revoked, usd,
};
use crate::domain::scope::Grant;

#[test]
fn a_session_below_another_holds_no_more_than_it() {
    let story = given([Event::SessionOpened(SessionOpened {
        scopes: vec!["spend".to_owned(), "stripe".to_owned()],
        ..opened("root", Some("10"))
    })]);
    for (scopes, may) in [
        (vec![], true),
        (vec!["spend"], true),
        (vec!["stripe:refund", "spend"], true),
        (vec!["spend", "read"], false),
        (vec!["admin"], false),
        (vec!["strip"], false),
    ] {
        let asked = open("child", "root", &scopes, None);
        if may {
            story.clone().when(asked).then([below("child", "root", &scopes, Some("10"))]);
        } else {
            story.clone().when(asked).then([denied(
                "root",
                &scopes,
                None,
                DelegationDenial::ScopeBeyondParent,
            )]);
        }
    }
}

#[test]
fn scopes_that_nobody_asked_for_are_those_that_the_parent_holds() {
    let by_default = Command::OpenSession(OpenSession {
        scopes_are_default: true,
        ..asked("child", "root", &["read", "spend"], None)
    });
    root().when(by_default).then([below("child", "root", &["spend"], Some("10"))]);
}

#[test]
fn a_budget_is_at_most_what_is_left_at_every_level_above() {
    let story = root();
    let story = story.when(open("child", "root", &["spend"], Some("8")));
    let story = story.then([below("child", "root", &["spend"], Some("8"))]);
    let story = story.tells([paid("root", "5", None)]);
    let beyond = |cap| denied("child", &["spend"], cap, DelegationDenial::BudgetBeyondParent);
    let story = story
        .when(open("leaf", "child", &["spend"], Some("5.000000001")))
        .then([beyond(Some("5.000000001"))]);
    story.clone().when(open("leaf", "child", &["spend"], Some("5"))).then([below(
        "leaf",
        "child",
        &["spend"],
        Some("5"),
    )]);
    // Without a budget of its own it has what is left.
    story.when(open("leaf", "child", &["spend"], None)).then([below("leaf", "child", &["spend"], Some("5"))]);
}

#[test]
fn it_lives_no_longer_than_what_is_above_it() {
    let root = SessionOpened { expires_at: Some(moment(100)), ..opened("root", None) };
    let story = given([Event::SessionOpened(root)]);
    for (ttl_s, end) in [(0, 100), (10, 11), (99, 100), (1000, 100)] {
        let command = OpenSession { ttl_s, ..asked("child", "root", &[], None) };
        let event = SessionOpened {
            ttl_s,
            expires_at: Some(moment(end)),
            scopes: vec![],
            parent: Some(session_id("root")),
            ..opened("child", None)
        };
        story.clone().when(Command::OpenSession(command)).then([Event::SessionOpened(event)]);
    }
    let late = story.when(open("child", "root", &[], None)).at(moment(101));
    late.then([denied("root", &[], None, DelegationDenial::ParentExpired)]);
}

#[test]
fn it_ends_with_any_session_above_it() {
    let story =
        root().tells([below("child", "root", &["spend"], None), below("leaf", "child", &["spend"], None)]);
    let standing = |story: &Story, name: &str| {
        let sessions = &story.state().sessions;
        sessions.standing(sessions.get(&session_id(name)).unwrap(), moment(50))
    };
    let without_middle = story.clone().tells([session_revoked("child")]);
    assert_eq!(
        ["root", "child", "leaf"].map(|name| standing(&without_middle, name)),
        [Standing::Live, Standing::Revoked, Standing::Revoked]
    );
    let without_root = story.tells([session_revoked("root")]);
    assert_eq!(standing(&without_root, "leaf"), Standing::Revoked);
    let asked = without_root.when(open("more", "leaf", &[], None));
    asked.then([denied("leaf", &[], None, DelegationDenial::ParentRevoked)]);
}

#[test]
fn there_are_at_most_so_many_levels() {
    let mut story = root();
    let mut parent = "root".to_owned();
    for level in 1..=DELEGATION_DEPTH_MAX {
        let child = format!("level-{level}");
        story = story.when(open(&child, &parent, &[], None)).then([below(&child, &parent, &[], Some("10"))]);
        parent = child;
    }
    story.clone().when(open("more", &parent, &[], None)).then([denied(
        &parent,
        &[],
        None,
        DelegationDenial::TooDeep,
    )]);
    story.when(open("more", "nobody", &[], None)).refused(Refusal::ParentUnknown);
}

fn root() -> Story {
    given([Event::SessionOpened(opened("root", Some("10")))])
}

fn words(scopes: &[&str]) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

fn asked(name: &str, parent: &str, scopes: &[&str], cap: Option<&str>) -> OpenSession {
    OpenSession {
        session_id: session_id(name),
        agent_id: agent_id("agent"),
        grant: Grant { scopes: words(scopes), cap: cap.map(usd) },
        scopes_are_default: false,
        ttl_s: 0,
        parent: Some(session_id(parent)),
        agent_limit: None,
    }
}

fn open(name: &str, parent: &str, scopes: &[&str], cap: Option<&str>) -> Command {
    Command::OpenSession(asked(name, parent, scopes, cap))
}

fn below(name: &str, parent: &str, scopes: &[&str], cap: Option<&str>) -> Event {
    let parent = Some(session_id(parent));
    Event::SessionOpened(SessionOpened { scopes: words(scopes), parent, ..opened(name, cap) })
}

fn denied(parent: &str, scopes: &[&str], cap: Option<&str>, reason: DelegationDenial) -> Event {
    Event::DelegationDenied(DelegationDenied {
        parent: session_id(parent),
        agent_id: agent_id("agent"),
        scopes: words(scopes),
        cap: cap.map(usd),
        reason,
    })
}
