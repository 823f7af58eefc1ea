//! Upstreams and the trust in their tools.

use super::*;
use crate::domain::Command;
use crate::domain::keys::tests::{Story, given, moment};

#[test]
fn tools_are_trusted_as_they_are_found_when_their_upstream_is_first_heard_of() {
    let at_once = given([]).when(register("pay", Some(&[("charge", 1)])));
    let at_once = at_once.then([registered("pay", Some(&[("charge", 1)]))]);
    assert_eq!(standings(&at_once, "pay"), [("charge", ToolStanding::Trusted)]);
    let later = given([registered("pay", None)]);
    assert_eq!(standings(&later, "pay"), []);
    let later = later.when(observe("pay", &[("charge", 1)]));
    let later = later.then([observed("pay", &[("charge", 1, true)])]);
    assert_eq!(standings(&later, "pay"), [("charge", ToolStanding::Trusted)]);
    assert_eq!(at_once.state().upstreams.get(&name("pay")).unwrap().registered_at, moment(0));
}

#[test]
fn an_upstream_that_had_no_tools_when_it_was_first_heard_of_gets_none_unseen() {
    for story in [
        given([registered("pay", Some(&[]))]),
        given([registered("pay", None)]).when(observe("pay", &[])).then([observed("pay", &[])]),
    ] {
        let story =
            story.when(observe("pay", &[("charge", 1)])).then([observed("pay", &[("charge", 1, false)])]);
        assert_eq!(standings(&story, "pay"), [("charge", ToolStanding::Quarantined)]);
    }
}

#[test]
fn a_tool_that_changes_or_appears_is_quarantined_until_somebody_accepts_what_they_saw() {
    let story = pay().when(observe("pay", &[("charge", 9), ("refund", 2), ("void", 3)]));
    let story =
        story.then([observed("pay", &[("charge", 9, false), ("refund", 2, true), ("void", 3, false)])]);
    let (trusted, quarantined) = (ToolStanding::Trusted, ToolStanding::Quarantined);
    assert_eq!(
        standings(&story, "pay"),
        [("charge", quarantined), ("refund", trusted), ("void", quarantined)]
    );
    let story = story.when(accept("pay", "charge", 1)).refused(Refusal::ToolMoved);
    let story = story.when(accept("pay", "charge", 9)).then([accepted("pay", "charge", 9)]);
    let story = story.when(accept("pay", "charge", 9)).then([]);
    assert_eq!(standings(&story, "pay"), [("charge", trusted), ("refund", trusted), ("void", quarantined)]);
    // Only what was accepted is trusted, and what was trusted before is not any more.
    let story = story.when(observe("pay", &[("charge", 1), ("refund", 2), ("void", 3)]));
    let story =
        story.then([observed("pay", &[("charge", 1, false), ("refund", 2, true), ("void", 3, false)])]);
    story.when(accept("pay", "void", 3)).then([accepted("pay", "void", 3)]);
}

#[test]
fn a_tool_that_changes_back_is_trusted_again() {
    let story = pay().when(observe("pay", &[("charge", 9), ("refund", 2)]));
    let story = story.then([observed("pay", &[("charge", 9, false), ("refund", 2, true)])]);
    let story = story.when(observe("pay", &[("charge", 1), ("refund", 2)]));
    let story = story.then([observed("pay", &[("charge", 1, true), ("refund", 2, true)])]);
    assert!(standings(&story, "pay").iter().all(|(_, standing)| *standing == ToolStanding::Trusted));
}

#[test]
fn a_tool_that_was_gone_is_trusted_only_if_it_returns_as_it_was() {
    let story = pay().when(observe("pay", &[("refund", 2)])).then([observed("pay", &[("refund", 2, true)])]);
    assert_eq!(standings(&story, "pay"), [("charge", ToolStanding::Gone), ("refund", ToolStanding::Trusted)]);
    story.clone().when(accept("pay", "charge", 1)).refused(Refusal::ToolMoved);
    let both = |digest| [("charge", digest), ("refund", 2)];
    let same = story.clone().when(observe("pay", &both(1)));
    same.then([observed("pay", &[("charge", 1, true), ("refund", 2, true)])]);
    let other = story.when(observe("pay", &both(9)));
    let other = other.then([observed("pay", &[("charge", 9, false), ("refund", 2, true)])]);
    assert_eq!(standings(&other, "pay")[0], ("charge", ToolStanding::Quarantined));
}

#[test]
fn a_tool_that_never_was_trusted_and_is_gone_is_forgotten() {
    let story = pay().when(observe("pay", &[("charge", 1), ("refund", 2), ("void", 3)]));
    let story =
        story.then([observed("pay", &[("charge", 1, true), ("refund", 2, true), ("void", 3, false)])]);
    let story = story.when(observe("pay", &[("charge", 1), ("refund", 2)]));
    let story = story.then([observed("pay", &[("charge", 1, true), ("refund", 2, true)])]);
    assert_eq!(standings(&story, "pay").len(), 2);
    story.when(accept("pay", "void", 3)).refused(Refusal::ToolUnknown);
}

#[test]
fn what_was_seen_before_is_no_news() {
    let story = pay().when(observe("pay", &[("charge", 1), ("refund", 2)])).then([]);
    let story = story.when(observe("pay", &[("charge", 9)])).then([observed("pay", &[("charge", 9, false)])]);
    let story = story.when(observe("pay", &[("charge", 9)])).then([]);
    let story = story.when(observe("docs", &[])).refused(Refusal::UpstreamUnknown);
    story.when(accept("docs", "charge", 9)).refused(Refusal::UpstreamUnknown);
}

#[test]
fn a_name_with_its_upstream_means_that_one_and_a_bare_one_the_first_that_has_it() {
    let story = given([
        registered("pay", Some(&[("charge", 1), ("docs.charge", 4)])),
        registered("docs", Some(&[("charge", 2), ("search", 3)])),
    ]);
    let means = |story: &Story, name: &str| {
        let found = story.state().upstreams.resolve(name);
        found.map(|(upstream, tool)| format!("{upstream} {tool}")).unwrap_or_default()
    };
    assert_eq!(means(&story, "pay.charge"), "pay charge");
    assert_eq!(means(&story, "docs.search"), "docs search");
    assert_eq!(means(&story, "charge"), "pay charge");
    assert_eq!(means(&story, "search"), "docs search");
    // What is before the dot is an upstream first.
    assert_eq!(means(&story, "docs.charge"), "docs charge");
    assert_eq!(means(&story, "pay.docs.charge"), "pay docs.charge");
    for nothing in ["", ".", "pay.", ".charge", "pay.search", "other.charge", "charge.pay"] {
        assert_eq!(means(&story, nothing), "", "{nothing}");
    }
    // A tool that is gone keeps its name, so that no other upstream slips under it.
    let gone = story.clone().when(observe("pay", &[])).then([observed("pay", &[])]);
    assert_eq!(means(&gone, "charge"), "pay charge");
    let removed = story
        .clone()
        .when(remove("pay"))
        .then([Event::UpstreamRemoved(UpstreamRemoved { name: name("pay") })]);
    assert_eq!(means(&removed, "charge"), "docs charge");
    removed.when(remove("pay")).refused(Refusal::UpstreamUnknown);
    let again = story.when(register("pay", Some(&[("charge", 1)])));
    let again = again.then([registered("pay", Some(&[("charge", 1)]))]);
    assert_eq!(means(&again, "charge"), "docs charge", "it is the second now");
}

#[test]
fn who_registers_a_name_again_pins_its_tools_again() {
    let story = pay().when(observe("pay", &[("charge", 9)])).then([observed("pay", &[("charge", 9, false)])]);
    let story = story.when(register("pay", Some(&[("charge", 9)])));
    let story = story.then([registered("pay", Some(&[("charge", 9)]))]);
    assert_eq!(standings(&story, "pay"), [("charge", ToolStanding::Trusted)]);
    assert_eq!(story.state().upstreams.get(&name("pay")).unwrap().seq, 2);
}

#[test]
fn there_are_at_most_so_many_upstreams() {
    let many = (0..UPSTREAM_COUNT_MAX).map(|number| registered(&format!("u{number}"), None));
    let story = given(many);
    let story = story.when(register("more", None)).refused(Refusal::TooManyUpstreams);
    let story = story.when(register("u7", None)).then([registered("u7", None)]);
    let gone = Event::UpstreamRemoved(UpstreamRemoved { name: name("u7") });
    let story = story.when(remove("u7")).then([gone]);
    story.when(register("more", None)).then([registered("more", None)]);
}

#[test]
fn names_are_short_and_plain() {
    for good in ["a", "A-9_", &"x".repeat(64)] {
        assert_eq!(UpstreamName::parse(good).map(|it| it.to_string()).as_deref(), Some(good));
    }
    for bad in ["", "a.b", "a b", "é", "a/b", &"x".repeat(65)] {
        assert_eq!(UpstreamName::parse(bad), None, "{bad}");
    }
}

/// An upstream with two tools that are trusted.
fn pay() -> Story {
    given([registered("pay", Some(&[("charge", 1), ("refund", 2)]))])
}

fn standings<'a>(story: &'a Story, upstream: &str) -> Vec<(&'a str, ToolStanding)> {
    let upstream = story.state().upstreams.get(&name(upstream)).unwrap();
    upstream.tools().map(|(tool, pinned)| (tool.as_str(), pinned.standing())).collect()
}

pub(in crate::domain) fn name(text: &str) -> UpstreamName {
    UpstreamName::parse(text).unwrap()
}

fn pins(tools: &[(&str, u8)]) -> Vec<Pin> {
    tools.iter().map(|(tool, digest)| Pin { tool: (*tool).to_owned(), digest: [*digest; 32] }).collect()
}

fn transport() -> Transport {
    Transport::Http { url: "https://example.com/mcp".to_owned(), headers: vec![] }
}

fn register(upstream: &str, tools: Option<&[(&str, u8)]>) -> Command {
    let (name, tools) = (name(upstream), tools.map(pins));
    Command::RegisterUpstream(RegisterUpstream { name, transport: transport(), tools })
}

pub(in crate::domain) fn registered(upstream: &str, tools: Option<&[(&str, u8)]>) -> Event {
    let (name, tools) = (name(upstream), tools.map(pins));
    Event::UpstreamRegistered(UpstreamRegistered { name, transport: transport(), tools })
}

pub(in crate::domain) fn remove(upstream: &str) -> Command {
    Command::RemoveUpstream(RemoveUpstream { name: name(upstream) })
}

fn observe(upstream: &str, tools: &[(&str, u8)]) -> Command {
    Command::ObserveTools(ObserveTools { name: name(upstream), tools: pins(tools) })
}

pub(in crate::domain) fn observed(upstream: &str, tools: &[(&str, u8, bool)]) -> Event {
    let sighting = |(tool, digest, is_trusted): &(&str, u8, bool)| Sighting {
        tool: (*tool).to_owned(),
        digest: [*digest; 32],
        is_trusted: *is_trusted,
    };
    let tools = tools.iter().map(sighting).collect();
    Event::ToolsObserved(ToolsObserved { name: name(upstream), tools })
}

fn accept(upstream: &str, tool: &str, digest: u8) -> Command {
    Command::AcceptTool(AcceptTool {
        name: name(upstream),
        tool: tool.to_owned(),
        digest: [digest; 32],
        decider: "alice".to_owned(),
        note: "looks right".to_owned(),
    })
}

fn accepted(upstream: &str, tool: &str, digest: u8) -> Event {
    Event::ToolAccepted(ToolAccepted {
        name: name(upstream),
        tool: tool.to_owned(),
        digest: [digest; 32],
        decider: "alice".to_owned(),
        note: "looks right".to_owned(),
    })
}
