//! What clients ask while the server is killed, and what they remember of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haldir::domain::money::Money;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::server::{Answer, Client, send};

/// All tasks begin a burst of requests at every beat, so that requests meet in one commit.
const BEAT: Duration = Duration::from_millis(30);
/// Requests of one task in one burst at most.
const BURST_LEN_MAX: u64 = 4;
/// Characters of details. Past 4 KiB the store splits them; the long ones span many parts.
pub(crate) const DETAILS_LENS: [u64; 10] = [40, 40, 40, 40, 40, 40, 9_000, 9_000, 9_000, 60_000];
/// The same with so many long ones that one commit spans several of the 512 KiB segments of the store's log.
pub(crate) const LONG_DETAILS_LENS: [u64; 4] = [40, 9_000, 300_000, 300_000];

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// A word that this request puts into its event, and no other request does.
    pub(crate) marker: String,
    pub(crate) what: What,
    /// Its `Idempotency-Key`.
    pub(crate) retry_key: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Open { cap: Option<Money> },
    Pay { session: String, amount: Money },
    Log { session: String, details: Value },
    Check { session: String },
    Revoke { session: String },
    Mint,
}

/// What clients know: the requests that were answered, with the answers, and those of which nobody knows.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) told: Vec<(Ask, Answer)>,
    pub(crate) untold: Vec<Ask>,
    /// When a [`Load`] was told each of what it was told, as its clock says.
    pub(crate) times: Vec<u64>,
}

/// Tells the time when an answer has come, in a unit of the caller's.
pub(crate) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// One client that asks without pause until the server is gone.
pub(crate) struct Load {
    pub(crate) client: Client,
    pub(crate) dice: Dice,
    /// Distinguishes the markers of this task and round.
    pub(crate) name: String,
    /// A session with a budget from which all tasks pay.
    pub(crate) shared: String,
    /// Live sessions that nobody else uses.
    pub(crate) own: Vec<String>,
    /// Characters of details at most, each as likely as the others.
    pub(crate) details_lens: &'static [u64],
    pub(crate) clock: Clock,
    /// Set before the server is killed. A connection that breaks earlier is a failure of the server.
    pub(crate) is_killed: Arc<AtomicBool>,
}

/// Pseudo-random numbers (splitmix64), so that a seed tells what was asked, though not when.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Memory {
    pub(crate) fn add(&mut self, other: Self) {
        self.told.extend(other.told);
        self.untold.extend(other.untold);
        self.times.extend(other.times);
    }
}

impl Load {
    pub(crate) async fn run(mut self) -> Memory {
        let mut memory = Memory::default();
        let mut beats = tokio::time::interval(BEAT);
        let mut count = 0;
        loop {
            beats.tick().await;
            for _ in 0..=self.dice.below(BURST_LEN_MAX) {
                count += 1;
                let ask = self.next_ask(format!("{}-{count}", self.name));
                match send(ask.request(&self.client)).await {
                    // A server whose disk is gone says so before it is killed. Nobody knows what it did.
                    Ok(answer) if answer.status >= 500 && self.is_killed.load(Ordering::SeqCst) => {
                        memory.untold.push(ask);
                        return memory;
                    }
                    Ok(answer) => {
                        memory.times.push((self.clock)());
                        self.learn(&ask, &answer);
                        memory.told.push((ask, answer));
                    }
                    Err(error) => {
                        assert!(self.is_killed.load(Ordering::SeqCst), "{}: {error:?}", ask.marker);
                        memory.untold.push(ask);
                        return memory;
                    }
                }
            }
        }
    }

    fn next_ask(&mut self, marker: String) -> Ask {
        let own = (!self.own.is_empty()).then(|| self.dice.below(self.own.len() as u64));
        let own = own.and_then(|index| usize::try_from(index).ok()).map(|index| self.own[index].clone());
        let what = match (self.dice.below(100), own) {
            (0..15, _) | (_, None) => {
                let cap = (self.dice.below(3) > 0).then(|| Money::from_nanos(3_000_000_001));
                What::Open { cap }
            }
            (15..50, Some(own)) => {
                let session = if self.dice.below(3) == 0 { self.shared.clone() } else { own };
                // Billionths, so that a sum that went through a float would show.
                let amount = Money::from_nanos(10_000_000 + u128::from(self.dice.below(1_000_000_000)));
                What::Pay { session, amount }
            }
            (50..80, Some(session)) => {
                let len = self.details_lens[self.dice.index(self.details_lens.len())];
                let text = "é".repeat(self.dice.index(len.try_into().unwrap_or(1)));
                What::Log { session, details: json!({ "marker": marker, "text": text }) }
            }
            (80..90, Some(session)) => What::Check { session },
            (90..95, Some(session)) => What::Revoke { session },
            (_, Some(_)) => What::Mint,
        };
        let is_retryable = !matches!(what, What::Check { .. } | What::Revoke { .. });
        let retry_key = (is_retryable && self.dice.below(2) == 0).then(|| format!("retry {marker}"));
        Ask { marker, what, retry_key }
    }

    fn learn(&mut self, ask: &Ask, answer: &Answer) {
        assert!(ask.expects(answer.status), "{ask:?}: {answer:?}");
        match &ask.what {
            What::Open { .. } => self.own.push(ask.session_opened(answer)),
            What::Revoke { session } => self.own.retain(|own| own != session),
            What::Pay { .. } | What::Log { .. } | What::Check { .. } | What::Mint => {}
        }
    }
}

impl Ask {
    pub(crate) fn request(&self, client: &Client) -> RequestBuilder {
        let post = |path: &str, body: String| {
            client.request(Method::POST, path).header("Content-Type", "application/json").body(body)
        };
        let marker = &self.marker;
        let request = match &self.what {
            What::Open { cap } => {
                let scope = cap.map_or_else(|| "spend".to_owned(), |cap| format!("spend:{cap}"));
                let body = json!({ "agent_id": marker, "scopes": ["read", scope], "ttl": 0 });
                post("/v1/sessions", body.to_string())
            }
            // Written by hand: the amount must arrive digit by digit.
            What::Pay { session, amount } => post(
                "/v1/payments/authorize",
                format!(r#"{{"session_id":"{session}","amount":{amount},"description":"{marker}"}}"#),
            ),
            What::Log { session, details } => {
                let body = json!({ "session_id": session, "action": marker, "details": details });
                post("/v1/audit", body.to_string())
            }
            What::Check { session } => {
                post(&format!("/v1/sessions/{session}/check"), json!({ "scope": marker }).to_string())
            }
            What::Revoke { session } => client.request(Method::DELETE, &format!("/v1/sessions/{session}")),
            What::Mint => {
                post("/v1/keys", json!({ "name": marker, "scopes": ["sessions:read"] }).to_string())
            }
        };
        match &self.retry_key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        }
    }

    /// Whether an answer with this status is one that a healthy server may give.
    pub(crate) fn expects(&self, status: u16) -> bool {
        match &self.what {
            What::Open { .. } | What::Log { .. } | What::Mint => status == 201,
            What::Pay { .. } => status == 200 || status == 403,
            What::Check { .. } | What::Revoke { .. } => status == 200,
        }
    }

    /// The id in the answer to an opening.
    pub(crate) fn session_opened(&self, answer: &Answer) -> String {
        let body = answer.json();
        assert_eq!(body["agent_id"], self.marker.as_str(), "{body}");
        body["session_id"].as_str().expect("an opened session has an id").to_owned()
    }
}

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end`, exclusive.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// The same for places in a list.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("smaller than a usize")
    }
}
