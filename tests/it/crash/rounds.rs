//! Rounds of load that something puts an end to, and what must be true after each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haldir::domain::money::Money;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::book::Book;
use super::evidence::History;
use super::load::{Ask, Clock, DETAILS_LENS, Dice, Load, Memory, What};
use crate::server::{Client, Home, Server};

/// Connections that ask at the same time.
pub(crate) const TASKS: u64 = 8;

/// What clients know of one ledger, over all rounds.
pub(crate) struct Rounds {
    book: Book,
    pub(crate) history: History,
    count: u64,
    details_lens: &'static [u64],
}

impl Default for Rounds {
    fn default() -> Self {
        Self::starting_at(0, &DETAILS_LENS)
    }
}

impl Rounds {
    /// Rounds whose markers are not those of earlier ones on the same ledger, with details of these lengths.
    pub(crate) fn starting_at(count: u64, details_lens: &'static [u64]) -> Self {
        Self { book: Book::default(), history: History::default(), count, details_lens }
    }

    /// Lets clients loose on a server, puts an end to it at a random moment, and collects what they know.
    pub(crate) async fn load_until(
        &mut self,
        server: Server,
        dice: &mut Dice,
        end: impl FnOnce(Server),
    ) -> Memory {
        let time = Duration::from_millis(50 + dice.below(650));
        self.load_for(time, server, dice, Arc::new(|| 0), end).await
    }

    /// The same for a while of a given length, with a clock that tells when each answer came.
    pub(crate) async fn load_for(
        &mut self,
        time: Duration,
        server: Server,
        dice: &mut Dice,
        clock: Clock,
        end: impl FnOnce(Server),
    ) -> Memory {
        let round = self.count;
        self.count += 1;
        let what = What::Open { cap: Some(Money::from_nanos(40_000_000_000)) };
        let shared = Ask { marker: format!("{round}-shared"), what, retry_key: None };
        let opened = self.book.ask(&server.client(), shared.clone()).await;
        let (shared, mut live) = (shared.session_opened(&opened), self.book.live());
        let is_killed = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let load = Load {
                client: server.client(),
                dice: Dice(dice.roll()),
                name: format!("{round}-{task}"),
                shared: shared.clone(),
                own: live.pop_if(|it| *it != shared).into_iter().collect(),
                details_lens: self.details_lens,
                clock: Arc::clone(&clock),
                is_killed: Arc::clone(&is_killed),
            };
            tasks.spawn(load.run());
        }
        tokio::time::sleep(time).await;
        is_killed.store(true, Ordering::SeqCst);
        end(server);
        let mut seen = Memory::default();
        while let Some(of_one) = tasks.join_next().await {
            seen.add(of_one.expect("a client found something wrong"));
        }
        seen
    }

    /// Compares a restarted server with all that was answered before.
    pub(crate) async fn check(&mut self, client: &Client, seen: Memory, dice: &mut Dice) {
        let Self { book, history, count, .. } = self;
        book.check(client, &seen, dice).await;
        book.retry(client, seen, dice).await;
        history.read_on(&client.get("/v1/ledger/export").await.body);
        history.check(&book.memory);
        book.compare(client, history).await;
        let verdict = client.get("/v1/audit/verify").await.expect(200);
        assert_eq!(verdict["verified"], true, "{verdict}");
        say(&format!("round {count}: {} entries, {} answers", history.size(), book.memory.told.len()));
    }

    /// Looks at everything that ever was, stops the server, and looks at what it leaves behind.
    pub(crate) async fn check_end(&mut self, home: &Home, server: Server) {
        let Self { book, history, .. } = self;
        history.check_nothing_else(&book.memory);
        book.compare_all(&server.client(), history).await;
        server.stop();

        let (code, stream) = verify_offline(home);
        assert_eq!((code, &stream["verdict"]), (Some(0), &json!("sound")), "{stream}");
        let export = home.run(&["audit", "export", "--data-dir", &home.data_dir().to_string_lossy()]);
        history.read_on(&export.stdout);
        history.check(&book.memory);
        assert_eq!(stream["size"], history.size());
        assert_eq!(stream["head"], history.head.as_str());
    }
}

/// What `haldir audit verify` says of a stopped server's only stream.
pub(crate) fn verify_offline(home: &Home) -> (Option<i32>, Value) {
    let dir = home.data_dir().to_string_lossy().into_owned();
    let finished = home.run(&["audit", "verify", "--data-dir", &dir, "--json"]);
    let verdict: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| json!(finished.stderr));
    let streams = verdict["streams"].as_array().cloned().unwrap_or_default();
    match streams.as_slice() {
        [only] => (finished.code, only.clone()),
        _ => (finished.code, verdict),
    }
}

/// Chance whose seed is taken from an environment variable, or else from the machine, and printed when a test fails.
pub(crate) fn dice_with_printed_seed(variable: &str) -> Dice {
    let seed = setting(variable).unwrap_or_else(|| getrandom::u64().unwrap());
    say(&format!("{variable}={seed}"));
    Dice(seed)
}

#[expect(clippy::print_stdout, reason = "shown by the test runner when a test fails")]
pub(crate) fn say(what: &str) {
    println!("{what}");
}

/// A number in an environment variable.
pub(crate) fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}
