//! What the ledger says, read from its export with the format's own functions, and compared with what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::{BASE64, HEXLOWER};
use haldir::domain::id::TenantId;
use haldir::domain::money::Money;
use haldir::domain::sessions::Verdict;
use haldir::domain::{Event, Recorded};
use haldir::format::chain::{EntryHash, PublicKey};
use haldir::format::entry;
use haldir::format::verify::{Trust, Verifier};
use serde_json::Value;

use super::load::{Ask, Memory, What};
use crate::server::Answer;

/// The history as far as it was read. What was read once must never change.
#[derive(Default)]
pub(crate) struct History {
    /// The export's entry lines, word for word.
    lines: Vec<String>,
    verifier: Option<Verifier>,
    by_marker: BTreeMap<String, Vec<Recorded>>,
    spent: BTreeMap<String, Money>,
    /// The hash of the last entry.
    pub(crate) head: String,
}

impl History {
    /// Reads an export of the same ledger, longer than the ones before.
    pub(crate) fn read_on(&mut self, export: &str) {
        let mut lines = export.lines();
        let header = lines.next().expect("an export has a header");
        let (end, entries) = {
            let rest: Vec<&str> = lines.collect();
            let (end, entries) = rest.split_last().expect("an export has an end");
            (parse(end), entries.to_vec())
        };
        assert_eq!(end["type"], "end", "the export broke off");
        assert!(entries.len() >= self.lines.len(), "{} entries are gone", self.lines.len() - entries.len());
        for (seq, (now, before)) in entries.iter().zip(&self.lines).enumerate() {
            assert_eq!(now, before, "entry {seq} was rewritten");
        }
        let mut verifier = self.verifier.take().unwrap_or_else(|| verifier(&parse(header)));
        for line in &entries[self.lines.len()..] {
            self.read_entry(&mut verifier, line);
        }
        let head = end["head"].as_str().unwrap_or_default();
        let hash: [u8; 32] = HEXLOWER.decode(head.as_bytes()).unwrap().try_into().unwrap();
        let size = end["size"].as_u64().unwrap_or_default();
        assert_eq!(verifier.check_end(size, &EntryHash(hash)), Ok(()));
        assert_eq!(end["root"].as_str(), Some(verifier.summary().root.to_string().as_str()));
        head.clone_into(&mut self.head);
        self.verifier = Some(verifier);
    }

    /// How many entries there are.
    pub(crate) fn size(&self) -> usize {
        self.lines.len()
    }

    /// What a session spent, as the events say.
    pub(crate) fn spent(&self, session: &str) -> Money {
        self.spent.get(session).copied().unwrap_or(Money::ZERO)
    }

    /// Holds what clients remember against the events: what was answered happened once, as answered; what was not happened
    /// at most once.
    pub(crate) fn check(&self, memory: &Memory) {
        for (ask, answer) in &memory.told {
            match self.events_of(ask) {
                [recorded] => check_answer(ask, answer, &recorded.event),
                events => panic!("{ask:?} was answered with {answer:?} and recorded as {events:?}"),
            }
        }
        for ask in &memory.untold {
            let events = self.events_of(ask);
            assert!(events.len() <= 1, "{ask:?} was done more than once: {events:?}");
        }
    }

    /// Insists that there are no events but those that somebody asked for.
    pub(crate) fn check_nothing_else(&self, memory: &Memory) {
        let told = memory.told.iter().map(|(ask, _)| ask);
        let asked: BTreeSet<String> = told.chain(&memory.untold).map(key_of).collect();
        for marker in self.by_marker.keys() {
            assert!(asked.contains(marker), "nobody asked for {:?}", self.by_marker[marker]);
        }
    }

    /// Where the event of an answered request stands in the stream.
    pub(crate) fn seq_of(&self, ask: &Ask) -> u64 {
        self.events_of(ask)[0].seq
    }

    fn events_of(&self, ask: &Ask) -> &[Recorded] {
        self.by_marker.get(&key_of(ask)).map_or(&[], Vec::as_slice)
    }

    fn read_entry(&mut self, verifier: &mut Verifier, line: &str) {
        let bytes = BASE64.decode(parse(line)["entry"].as_str().unwrap_or_default().as_bytes()).unwrap();
        let sound = verifier.push(&bytes).unwrap_or_else(|flaw| panic!("{flaw}: {line}"));
        let recorded = entry::open(&bytes).unwrap().recorded;
        assert_eq!(recorded, sound.recorded);
        if let Event::PaymentAuthorized(paid) = &recorded.event {
            let spent = self.spent.entry(paid.session_id.to_string()).or_default();
            *spent = spent.plus(paid.amount).unwrap();
        }
        if let Some(marker) = marker_of(&recorded.event) {
            self.by_marker.entry(marker).or_default().push(recorded);
        }
        self.lines.push(line.to_owned());
    }
}

/// Where a request's event is found.
fn key_of(ask: &Ask) -> String {
    match &ask.what {
        What::Revoke { session } => format!("revoke {session}"),
        What::Open { .. } | What::Pay { .. } | What::Log { .. } | What::Check { .. } | What::Mint => {
            ask.marker.clone()
        }
    }
}

/// The same from the event's side. Events that the server made by itself have none.
fn marker_of(event: &Event) -> Option<String> {
    match event {
        Event::SessionOpened(event) => Some(event.agent_id.to_string()),
        Event::PaymentAuthorized(event) => Some(event.description.clone()),
        Event::PaymentDenied(event) => Some(event.description.clone()),
        Event::ActionLogged(event) => Some(event.action.clone()),
        Event::PermissionChecked(event) => Some(event.scope.clone()),
        Event::SessionRevoked(event) => Some(format!("revoke {}", event.session_id)),
        Event::KeyMinted(event) => Some(event.name.clone()).filter(|name| name != "local"),
        Event::UsageMetered(_) => None,
        _ => panic!("nobody could cause {event:?}"),
    }
}

fn check_answer(ask: &Ask, answer: &Answer, event: &Event) {
    let body = answer.json();
    let same = |name: &str, recorded: &str| body[name] == recorded;
    let agrees = match (&ask.what, event) {
        (What::Open { cap }, Event::SessionOpened(opened)) => {
            same("session_id", opened.session_id.as_str()) && opened.cap == *cap
        }
        (What::Pay { session, amount }, Event::PaymentAuthorized(paid)) => {
            answer.status == 200
                && same("authorization_id", paid.authorization_id.as_str())
                && paid.session_id.as_str() == session
                && paid.amount == *amount
        }
        (What::Pay { session, amount }, Event::PaymentDenied(denied)) => {
            answer.status == 403 && denied.session_id.as_str() == session && denied.amount == *amount
        }
        (What::Log { session, .. }, Event::ActionLogged(logged)) => {
            same("entry_id", logged.entry_id.as_str()) && logged.session_id.as_str() == session
        }
        (What::Check { session }, Event::PermissionChecked(checked)) => {
            body["allowed"] == (checked.verdict == Verdict::Allowed) && checked.session_id.as_str() == session
        }
        (What::Revoke { session }, Event::SessionRevoked(revoked)) => revoked.session_id.as_str() == session,
        (What::Mint, Event::KeyMinted(minted)) => same("prefix", minted.prefix.as_str()),
        _ => false,
    };
    assert!(agrees, "{ask:?} was answered with {body} and recorded as {event:?}");
}

/// Trusts the key in the header: who signs is the subject of other tests.
fn verifier(header: &Value) -> Verifier {
    assert_eq!(header["type"], "header", "{header}");
    let key = header["public_keys"][0]["public_key"].as_str().expect("the export names its key");
    let key: [u8; 32] = HEXLOWER.decode(key.as_bytes()).unwrap().try_into().unwrap();
    let tenant = TenantId::parse(header["tenant_id"].as_str().unwrap_or_default()).unwrap();
    Verifier::new(tenant, Trust::keys(vec![PublicKey::from_bytes(&key).unwrap()]))
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error}: {line}"))
}
