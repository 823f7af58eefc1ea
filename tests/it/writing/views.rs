//! Do the views say what the ledger says?

use std::collections::BTreeMap;
use std::sync::Arc;

use haldir::domain::audit::ActionLogged;
use haldir::domain::id::{EntryId, TenantId};
use haldir::domain::money::Money;
use haldir::domain::time::Timestamp;
use haldir::domain::{Event, Recorded};
use haldir::format::chain::EntryHash;
use haldir::format::entry;
use haldir::ledger::clock::ManualClock;
use haldir::ledger::handle::{LedgerHandle, Sizes};
use haldir::store::memory::{MemoryPages, MemoryStore};
use haldir::store::{Direction, EventStore, Head, PageStore, Row, StreamAppend};
use haldir::views::audit::{Filter, FoundAction, Spend};
use haldir::views::follower::Views;
use haldir::views::sparse::Series;
use proptest::prelude::*;

use super::ledger::{
    TestLedger, agent_id, log, meter, open, open_session, request, revoke_session, session_id, tenant_id,
    wait,
};
use crate::samples::{self, random_cases, sealed};

proptest! {
    #![proptest_config(random_cases(48, "proptest-regressions/writing.txt"))]

    #[test]
    fn sums_and_findings_are_those_of_a_walk_through_the_entries(
        streams in prop::collection::vec(any_stream(), TENANTS.len()),
    ) {
        let store = store_of(&streams);
        let pages = Arc::new(MemoryPages::default());
        let following = Following::start(&store, &pages);
        for (name, stream) in TENANTS.iter().zip(&streams) {
            following.compare(name, stream)?;
        }
    }

    #[test]
    fn views_are_the_same_when_they_are_rebuilt_continued_or_of_another_history(
        before in any_stream(), after in any_stream(), other in any_stream(),
    ) {
        let pages = Arc::new(MemoryPages::default());
        Following::start(&store_of([&before]), &pages).compare(TENANTS[0], &before)?;

        // Continued from where they stopped, in the middle of the stream.
        let whole = [before, after].concat();
        let store = store_of([&whole]);
        Following::start(&store, &pages).compare(TENANTS[0], &whole)?;
        let continued = all_rows(&pages);

        pages.clear().unwrap();
        Following::start(&store, &pages).compare(TENANTS[0], &whole)?;
        prop_assert_eq!(all_rows(&pages), continued);

        // Rows of another history would be wrong answers; the ledger's times differ, so every hash does.
        let other: Vec<_> = other.into_iter().map(|action| Seen { micros_later: 1, ..action }).collect();
        Following::start(&store_of([&other]), &pages).compare(TENANTS[0], &other)?;
    }
}

#[test]
fn streams_of_many_pages_are_walked_to_their_end() {
    let seen = |number: u32| Seen {
        is_other: number.is_multiple_of(7),
        session: u8::try_from(number % 3).unwrap(),
        tool: if number.is_multiple_of(2) { "mail" } else { "" },
        cost: number,
        is_flagged: number.is_multiple_of(5),
        micros_later: 0,
    };
    // More than one page of the replay and two of the views.
    let stream: Vec<_> = (0..1300).map(seen).collect();
    let pages = Arc::new(MemoryPages::default());
    Following::start(&store_of([&stream]), &pages).compare(TENANTS[0], &stream).unwrap();
}

#[test]
fn a_reader_that_waits_reads_what_was_just_written() {
    let ledger = TestLedger::new();
    let pages = Arc::new(MemoryPages::default());
    let views = Views::open(pages, ledger.store.clone(), ledger.feed.clone()).unwrap();
    ledger.submit(request("t", open_session("s", 10))).unwrap();
    for count in 1..=50 {
        let receipt = ledger.submit(request("t", log("s", &format!("aud_{count}")))).unwrap();
        let recorded = &receipt.events[0].recorded;
        wait(views.wait_for(&tenant_id("t"), recorded.seq + 1)).unwrap();
        let found = views.find(&tenant_id("t"), &Filter::default(), 1).unwrap();
        assert_eq!(found[0].recorded, *recorded);
        assert_eq!(found[0].hash, receipt.events[0].hash);
        let spend = views.spend(&tenant_id("t"), None, None).unwrap();
        assert_eq!((spend.actions, spend.total.nanos()), (count, u128::from(count) * 7));
    }
    ledger.submit(request("t", meter())).unwrap();
    ledger.handle.close();
    views.close();
    assert_eq!(views.failure(), None);
    ledger.check();
}

#[test]
fn a_window_stays_as_it_was_when_more_is_audited() {
    let ledger = TestLedger::new();
    let views =
        Views::open(Arc::new(MemoryPages::default()), ledger.store.clone(), ledger.feed.clone()).unwrap();
    ledger.submit(request("t", open_session("s", 10))).unwrap();
    let audit = |name: &str| {
        let receipt = ledger.submit(request("t", log("s", name))).unwrap();
        wait(views.wait_for(&tenant_id("t"), receipt.events[0].recorded.seq + 1)).unwrap();
    };
    (0..5).for_each(|number| audit(&format!("aud_{number}")));
    let window = views.window(&tenant_id("t"), None, None).unwrap();
    (5..9).for_each(|number| audit(&format!("aud_{number}")));
    let page = views.page(&tenant_id("t"), &Filter::default(), window, 512).unwrap();
    assert_eq!((page.actions.len(), page.rest.is_empty()), (5, true));
    assert_eq!(views.window(&tenant_id("t"), None, None).unwrap(), 0..9);
    assert_eq!(views.window(&tenant_id("nobody"), None, None).unwrap(), 0..0);
    ledger.handle.close();
    views.close();
    ledger.check();
}

#[test]
fn views_with_another_layout_are_rebuilt() {
    let seen =
        Seen { is_other: false, session: 1, tool: "mail", cost: 5, is_flagged: false, micros_later: 0 };
    let stream = vec![seen; 3];
    let store = store_of([&stream]);
    let pages = Arc::new(MemoryPages::default());
    Following::start(&store, &pages).compare(TENANTS[0], &stream).unwrap();
    let rows = all_rows(&pages);
    for layout in [None, Some(vec![]), Some(vec![1]), Some(vec![255])] {
        // Rows of the older layout: without the layout's number and without names.
        let is_kept = |key: &[u8]| !key.starts_with(b"n") && !key.starts_with(b"l");
        pages.clear().unwrap();
        pages.write(rows.iter().filter(|(key, _)| is_kept(key)).cloned().collect()).unwrap();
        pages.write(layout.map(|layout| (b"l".to_vec(), layout)).into_iter().collect()).unwrap();
        Following::start(&store, &pages).compare(TENANTS[0], &stream).unwrap();
        assert_eq!(all_rows(&pages), rows);
    }
}

#[test]
fn events_of_a_rare_kind_are_found_without_a_walk() {
    let ledger = TestLedger::new();
    for name in ["r", "s"] {
        ledger.submit(request("t", open_session(name, 10))).unwrap();
        ledger.submit(request("t", log(name, "aud"))).unwrap();
        ledger.submit(request("t", revoke_session(name))).unwrap();
    }
    ledger.submit(request("t_", open_session("r", 10))).unwrap();
    let views =
        Views::open(Arc::new(MemoryPages::default()), ledger.store.clone(), ledger.feed.clone()).unwrap();
    wait(views.wait_for(&tenant_id("t"), 6)).unwrap();
    let seqs = |tenant: &str, subject| {
        let tenant = tenant_id(tenant);
        let found = views.newest_first(&tenant, Series::Revocations, subject);
        found.map(|event| event.unwrap().seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs("t", None), [5, 2]);
    assert_eq!(seqs("t", Some("r")), [2]);
    assert!(seqs("t", Some("q")).is_empty());
    assert!(seqs("t_", None).is_empty());
    ledger.handle.close();
    views.close();
}

#[test]
fn views_of_a_ledger_that_cannot_be_read_stop_and_say_so() {
    let ledger = TestLedger::new();
    ledger.submit(request("t", open_session("s", 10))).unwrap();
    ledger.submit(request("t", log("s", "aud"))).unwrap();
    ledger.handle.close();
    ledger.store.disk.corrupt(&tenant_id("t"), 1, |bytes| bytes[200] ^= 1);
    let views =
        Views::open(Arc::new(MemoryPages::default()), ledger.store.clone(), ledger.feed.clone()).unwrap();
    wait(views.wait_for(&tenant_id("t"), 2)).expect_err("the entry is damaged");
    views.close();
    assert!(views.failure().is_some());
}

const TENANTS: [&str; 2] = ["t", "t_"];

/// An entry of a stream, as far as views look at it.
#[derive(Debug, Clone)]
struct Seen {
    /// Anything but an action.
    is_other: bool,
    session: u8,
    tool: &'static str,
    cost: u32,
    is_flagged: bool,
    micros_later: u64,
}

impl Seen {
    fn session(&self) -> String {
        format!("session-{}", self.session)
    }

    /// A session has one agent; an agent may have several sessions.
    fn agent(&self) -> String {
        format!("agent-{}", self.session / 2)
    }

    fn action(&self) -> ActionLogged {
        ActionLogged {
            entry_id: EntryId::parse(&format!("aud_{}", self.cost)).unwrap(),
            session_id: session_id(&self.session()),
            agent_id: agent_id(&self.agent()),
            action: "act".to_owned(),
            tool: self.tool.to_owned(),
            cost: Money::from_nanos(self.cost.into()),
            details_digest: None,
            flag: self.is_flagged.then(|| "odd".to_owned()),
        }
    }

    fn event(&self) -> Event {
        if self.is_other { samples::events().remove(2) } else { Event::ActionLogged(self.action()) }
    }
}

fn recorded(stream: &[Seen]) -> Vec<Recorded> {
    let recorded = samples::recorded(stream.iter().map(Seen::event).collect());
    let later = |(it, seen): (Recorded, &Seen)| Recorded {
        at: Timestamp::from_micros(it.at.micros() + seen.micros_later),
        ..it
    };
    recorded.into_iter().zip(stream).map(later).collect()
}

fn store_of<'a>(streams: impl IntoIterator<Item = &'a Vec<Seen>>) -> Arc<MemoryStore> {
    let store = MemoryStore::default();
    for (name, stream) in TENANTS.iter().zip(streams) {
        let entries = sealed(&tenant_id(name), &recorded(stream));
        if let Some(last) = entries.last() {
            let head = Head { size: entries.len() as u64, hash: last.hash };
            let entries = entries.into_iter().map(|entry| entry.bytes).collect();
            let append =
                StreamAppend { tenant: tenant_id(name), expected: None, entries, head, side: Vec::new() };
            store.append(&[append]).unwrap();
        }
    }
    store.sync().unwrap();
    Arc::new(store)
}

fn all_rows(pages: &MemoryPages) -> Vec<Row> {
    pages.scan(&[], Direction::Forward).collect::<Result<_, _>>().unwrap()
}

/// Views that have caught up with a ledger, until it is dropped.
struct Following {
    handle: LedgerHandle,
    views: Views,
}

impl Following {
    fn start(store: &Arc<MemoryStore>, pages: &Arc<MemoryPages>) -> Self {
        let (handle, feed) = open(store.clone(), Arc::new(ManualClock::default()), Sizes::default()).unwrap();
        let views = Views::open(pages.clone(), store.clone(), feed).unwrap();
        for (tenant, head) in store.heads().unwrap() {
            wait(views.wait_for(&tenant, head.size)).unwrap();
        }
        Self { handle, views }
    }

    fn compare(&self, name: &str, stream: &[Seen]) -> Result<(), TestCaseError> {
        let tenant = tenant_id(name);
        let entries = self.handle.store().read(&tenant, 0, usize::MAX).unwrap();
        let entries: Vec<_> = entries.iter().map(|bytes| entry::open(bytes).unwrap()).collect();
        let mut prev = None;
        let mut actions: Vec<(&Seen, Recorded, EntryHash, Option<EntryHash>)> = Vec::new();
        for (seen, entry) in stream.iter().zip(entries).filter(|(seen, _)| !seen.is_other) {
            actions.push((seen, entry.recorded, entry.hash, prev.replace(entry.hash)));
        }

        for filter in filters() {
            let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|it| it == text);
            let matching = actions.iter().rev().filter(|(seen, ..)| {
                is(&filter.session_id, &seen.session())
                    && is(&filter.agent_id, &seen.agent())
                    && is(&filter.tool, seen.tool)
                    && (seen.is_flagged || !filter.flagged_only)
            });
            let matching: Vec<_> = matching.collect();
            for limit in [0, 1, 3, usize::MAX] {
                let found = self.views.find(&tenant, &filter, limit).unwrap();
                prop_assert_eq!(found.len(), matching.len().min(limit), "{:?}", filter);
                for (found, (seen, recorded, hash, prev)) in found.iter().zip(&matching) {
                    let FoundAction { recorded: found_recorded, action, hash: found_hash, prev: found_prev } =
                        found;
                    prop_assert_eq!(found_recorded, recorded);
                    prop_assert_eq!(action, &seen.action());
                    prop_assert_eq!((found_hash, found_prev), (hash, prev));
                }
            }
            self.compare_walks(&tenant, &filter, &matching, actions.len() as u64)?;
            if filter.tool.is_none() && !filter.flagged_only {
                let found =
                    self.views.spend(&tenant, filter.session_id.as_deref(), filter.agent_id.as_deref());
                prop_assert_eq!(
                    found.unwrap(),
                    spend(matching.iter().map(|(seen, ..)| *seen)),
                    "{:?}",
                    filter
                );
            }
        }
        for (_, recorded, ..) in &actions {
            let Event::ActionLogged(action) = &recorded.event else { panic!("{recorded:?}") };
            let named_last = actions.iter().rev().find(|(_, it, ..)| named(it) == Some(&action.entry_id));
            let seq = named_last.map(|(_, it, ..)| it.seq);
            prop_assert_eq!(self.views.seq_of(&tenant, &action.entry_id).unwrap(), seq);
        }
        prop_assert_eq!(self.views.seq_of(&tenant, &EntryId::parse("aud_").unwrap()).unwrap(), None);
        Ok(())
    }

    /// Walks between moments, in pages of several lengths, find what lies between them, oldest first.
    fn compare_walks(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        newest_first: &[&(&Seen, Recorded, EntryHash, Option<EntryHash>)],
        actions: u64,
    ) -> Result<(), TestCaseError> {
        let moment = |after: u64| Some(Timestamp::from_micros(1_700_000_000_000_000 + after));
        let end = Some(Timestamp::from_micros(u64::MAX));
        for (since, until) in [
            (None, None),
            (moment(0), moment(7)),
            (moment(7), None),
            (moment(7), moment(20)),
            (moment(20), moment(7)),
            (end, end),
        ] {
            let is_within =
                |at: Timestamp| since.is_none_or(|since| at >= since) && until.is_none_or(|until| at < until);
            let between = newest_first.iter().rev().filter(|(_, recorded, ..)| is_within(recorded.at));
            let expected: Vec<_> =
                between.map(|(_, recorded, hash, prev)| (recorded.seq, *hash, *prev)).collect();
            let window = self.views.window(tenant, since, until).unwrap();
            prop_assert!(window.start <= window.end && window.end <= actions, "{:?}", window);
            for count in [3, 512] {
                let mut rest = window.clone();
                let mut found = Vec::new();
                while !rest.is_empty() {
                    let page = self.views.page(tenant, filter, rest.clone(), count).unwrap();
                    prop_assert!(page.rest.start > rest.start && page.rest.end == rest.end);
                    prop_assert!(page.actions.len() <= count);
                    rest = page.rest;
                    found.extend(page.actions.into_iter().map(|it| (it.recorded.seq, it.hash, it.prev)));
                }
                prop_assert_eq!(&found, &expected, "{:?} {:?} {:?}", filter, since, until);
            }
        }
        Ok(())
    }
}

fn named(recorded: &Recorded) -> Option<&EntryId> {
    match &recorded.event {
        Event::ActionLogged(action) => Some(&action.entry_id),
        _ => None,
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.handle.close();
        self.views.close();
    }
}

fn spend<'a>(actions: impl Iterator<Item = &'a Seen>) -> Spend {
    let mut spend = Spend { total: Money::ZERO, actions: 0, by_tool: BTreeMap::new() };
    for seen in actions {
        let cost = Money::from_nanos(seen.cost.into());
        spend.total = spend.total.plus(cost).unwrap();
        spend.actions += 1;
        if !seen.tool.is_empty() {
            let sum = spend.by_tool.entry(seen.tool.to_owned()).or_default();
            *sum = sum.plus(cost).unwrap();
        }
    }
    spend
}

/// All combinations, with names that exist and names that do not.
fn filters() -> Vec<Filter> {
    let some = |names: [&str; 3]| -> Vec<Option<String>> {
        names.iter().map(|name| (!name.is_empty()).then(|| (*name).to_owned())).collect()
    };
    let mut filters = Vec::new();
    for session_id in some(["", "session-0", "session-9"]) {
        for agent_id in some(["", "agent-0", "agent-1"]) {
            for tool in some(["", "mail", "mai"]) {
                for flagged_only in [false, true] {
                    let (session_id, agent_id) = (session_id.clone(), agent_id.clone());
                    filters.push(Filter {
                        session_id,
                        agent_id,
                        tool: tool.clone(),
                        flagged_only,
                        size: None,
                    });
                }
            }
        }
    }
    filters
}

fn any_stream() -> impl Strategy<Value = Vec<Seen>> {
    let seen = (
        prop::bool::weighted(0.2),
        0..4_u8,
        prop::sample::select(vec!["", "mail", "mail:send", "ÄÖ"]),
        any::<u32>(),
        any::<bool>(),
    );
    let seen = seen.prop_map(|(is_other, session, tool, cost, is_flagged)| Seen {
        is_other,
        session,
        tool,
        cost,
        is_flagged,
        micros_later: 0,
    });
    prop::collection::vec(seen, 0..60)
}
