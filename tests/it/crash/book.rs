//! What must be true of a restarted server, kept by its clients: sessions with what they spent, the audit trail, keys.

use std::collections::{BTreeMap, BTreeSet};

use haldir::domain::money::Money;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::evidence::History;
use super::load::{Ask, Dice, Memory, What};
use crate::server::{Answer, Client, answer};

/// Answered requests that are asked again after a restart.
const REPEATS: usize = 8;
/// Sessions of earlier rounds that are looked at after a restart, beside those that were used since the last one.
const LOOKS_BACK: usize = 20;

/// All that was ever answered or left open, and what follows from it.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) memory: Memory,
    sessions: BTreeMap<String, Account>,
    /// Sessions to look at after this restart.
    of_interest: BTreeSet<String>,
}

/// One session as its clients know it.
#[derive(Debug, Default)]
struct Account {
    /// The sum of the payments that were authorised.
    told: Money,
    /// The sum of those of which nobody knows.
    untold: Money,
    end: End,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    No,
    /// It was asked for, and nobody knows.
    Maybe,
    Yes,
}

#[derive(Deserialize)]
struct SessionView {
    spent: Box<RawValue>,
}

impl Book {
    /// Sessions that still can be used.
    pub(crate) fn live(&self) -> Vec<String> {
        self.sessions.iter().filter(|(_, it)| it.end == End::No).map(|(id, _)| id.clone()).collect()
    }

    /// Asks for something while nothing goes wrong, and keeps the answer.
    pub(crate) async fn ask(&mut self, client: &Client, ask: Ask) -> Answer {
        let answer = answer(ask.request(client)).await;
        self.note(&ask, &answer);
        self.memory.told.push((ask, answer.clone()));
        answer
    }

    fn note(&mut self, ask: &Ask, answer: &Answer) {
        assert!(ask.expects(answer.status), "{ask:?}: {answer:?}");
        match &ask.what {
            What::Open { .. } => {
                self.sessions.entry(ask.session_opened(answer)).or_default();
            }
            What::Pay { session, amount } if answer.status == 200 => {
                let account = self.sessions.entry(session.clone()).or_default();
                account.told = account.told.plus(*amount).unwrap();
            }
            What::Revoke { session } => self.sessions.entry(session.clone()).or_default().end = End::Yes,
            What::Pay { .. } | What::Log { .. } | What::Check { .. } | What::Mint => {}
        }
    }

    /// Compares a restarted server with what its clients saw since the last restart.
    pub(crate) async fn check(&mut self, client: &Client, seen: &Memory, dice: &mut Dice) {
        // Openings first: tasks are not in order among each other, and payments need their account.
        let is_opening = |ask: &Ask| matches!(ask.what, What::Open { .. });
        for (ask, answer) in seen.told.iter().filter(|(ask, _)| is_opening(ask)) {
            self.note(ask, answer);
        }
        for (ask, answer) in seen.told.iter().filter(|(ask, _)| !is_opening(ask)) {
            self.note(ask, answer);
        }
        for ask in &seen.untold {
            match &ask.what {
                What::Pay { session, amount } => {
                    let account = self.sessions.entry(session.clone()).or_default();
                    account.untold = account.untold.plus(*amount).unwrap();
                }
                What::Revoke { session } => {
                    self.sessions.entry(session.clone()).or_default().end = End::Maybe;
                }
                What::Open { .. } | What::Log { .. } | What::Check { .. } | What::Mint => {}
            }
        }
        self.of_interest = sessions_in(seen).map(str::to_owned).collect();
        let all: Vec<&String> = self.sessions.keys().collect();
        for _ in 0..LOOKS_BACK.min(all.len()) {
            self.of_interest.insert(all[dice.index(all.len())].clone());
        }
        for session in &self.of_interest {
            let account = self.sessions.get_mut(session).expect("whoever uses a session has opened it");
            check_session(client, session, account).await;
        }
        check_trail(client, seen).await;
        check_keys(client, seen).await;
    }

    /// Asks again for what was left open, twice at once, and for some of what was answered.
    pub(crate) async fn retry(&mut self, client: &Client, mut seen: Memory, dice: &mut Dice) {
        for ask in std::mem::take(&mut seen.untold) {
            if ask.retry_key.is_none() {
                seen.untold.push(ask);
                continue;
            }
            let (first, second) = tokio::join!(answer(ask.request(client)), answer(ask.request(client)));
            assert_eq!((first.status, &first.body), (second.status, &second.body), "{ask:?}");
            match &ask.what {
                // What it spent may have been counted already; the comparison with the events will tell.
                What::Pay { .. } => assert!(ask.expects(first.status), "{ask:?}: {first:?}"),
                _ => self.note(&ask, &first),
            }
            seen.told.push((ask, first));
        }
        self.memory.add(seen);
        let retryable: Vec<_> = self.memory.told.iter().filter(|(ask, _)| ask.retry_key.is_some()).collect();
        for _ in 0..REPEATS.min(retryable.len()) {
            let (ask, first) = retryable[dice.index(retryable.len())];
            let again = answer(ask.request(client)).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body), "{ask:?}");
        }
    }

    /// Compares what sessions say that they spent with the sums of the events, and goes on from there.
    pub(crate) async fn compare(&mut self, client: &Client, history: &History) {
        for session in &self.of_interest {
            let account = self.sessions.get_mut(session).expect("whoever uses a session has opened it");
            match spent(client, session).await {
                Some(spent) => assert_eq!(spent, history.spent(session), "{session}: {account:?}"),
                None => assert_eq!(account.end, End::Yes, "{session} is gone"),
            }
            account.told = history.spent(session);
        }
    }

    /// The same for everything that ever was.
    pub(crate) async fn compare_all(&mut self, client: &Client, history: &History) {
        self.of_interest = self.sessions.keys().cloned().collect();
        self.compare(client, history).await;
        check_trail(client, &self.memory).await;
        check_keys(client, &self.memory).await;
    }
}

fn sessions_in(memory: &Memory) -> impl Iterator<Item = &str> {
    let asks = memory.told.iter().map(|(ask, _)| ask).chain(&memory.untold);
    asks.filter_map(|ask| match &ask.what {
        What::Pay { session, .. }
        | What::Log { session, .. }
        | What::Check { session }
        | What::Revoke { session } => Some(session.as_str()),
        What::Open { .. } | What::Mint => None,
    })
}

async fn check_session(client: &Client, session: &str, account: &mut Account) {
    let Some(spent) = spent(client, session).await else {
        assert_ne!(account.end, End::No, "{session} was opened and is gone: {account:?}");
        account.end = End::Yes;
        return;
    };
    assert_ne!(account.end, End::Yes, "{session} was revoked and is alive: {account:?}");
    let most = account.told.plus(account.untold).unwrap();
    assert!((account.told..=most).contains(&spent), "{session} spent {spent}: {account:?}");
    *account = Account { told: spent, untold: Money::ZERO, end: End::No };
}

/// What a session spent, digit by digit; `None` when it is not found.
async fn spent(client: &Client, session: &str) -> Option<Money> {
    let answer = client.get(&format!("/v1/sessions/{session}")).await;
    if answer.status == 404 {
        return None;
    }
    answer.expect(200);
    let view: SessionView = serde_json::from_str(&answer.body).unwrap();
    Some(Money::parse(view.spent.get()).unwrap())
}

async fn check_trail(client: &Client, seen: &Memory) {
    let is_log = |ask: &Ask| matches!(ask.what, What::Log { .. });
    let untold = seen.untold.iter().filter(|ask| is_log(ask)).count();
    let told: Vec<_> = seen.told.iter().filter(|(ask, _)| is_log(ask)).collect();
    // Newest first, so this many hold every entry of these clients, and none more.
    let trail = client.get(&format!("/v1/audit?limit={}", told.len() + untold)).await.expect(200);
    let entries: BTreeMap<&str, _> = trail["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["entry_id"].as_str().unwrap(), it))
        .collect();
    for (ask, answer) in told {
        let What::Log { session, details } = &ask.what else { continue };
        let entry_id = answer.json()["entry_id"].as_str().unwrap().to_owned();
        let entry = entries.get(entry_id.as_str()).unwrap_or_else(|| panic!("{entry_id} of {ask:?} is gone"));
        assert_eq!(entry["details"], *details);
        assert_eq!(entry["session_id"], session.as_str());
        assert_eq!(entry["action"], ask.marker.as_str());
    }
}

async fn check_keys(client: &Client, seen: &Memory) {
    for (ask, minted) in &seen.told {
        if matches!(ask.what, What::Mint) {
            let key = minted.json()["key"].as_str().unwrap().to_owned();
            client.with_key(&key).get("/v1/sessions?limit=1").await.expect(200);
        }
    }
}
