//! Does the server find by itself that an old entry has changed, and does it say what it verified and when?

use std::ops::ControlFlow;
use std::sync::Arc;

use haldir::domain::Command;
use haldir::domain::custody::RotateSigner;
use haldir::domain::id::RequestId;
use haldir::domain::scope::KeyScopes;
use haldir::format::chain::PublicKey;
use haldir::ledger::clock::ManualClock;
use haldir::ledger::handle::{LedgerHandle, Parts, Sizes};
use haldir::ledger::random::OsRandom;
use haldir::operations::call_facts::Patterns;
use haldir::operations::deliveries::Pauses;
use haldir::operations::health::readiness;
use haldir::operations::limits::{Limits, Windows};
use haldir::operations::open_calls::OnTheirWay;
use haldir::operations::retries::RetrySecret;
use haldir::operations::upstreams::UpstreamHealth;
use haldir::operations::usage::Meter;
use haldir::operations::verification::{Scrubbed, VerifyReport, resume_scrub, scrub, verify};
use haldir::operations::{App, Caller};
use haldir::outbound::client::Client;
use haldir::outbound::names::SystemNames;
use haldir::proxy::settings::UpstreamSettings;
use haldir::proxy::upstreams::Upstreams;
use haldir::store::memory::{MemoryPages, MemorySnapshots, MemoryStore};
use haldir::store::{EventStore as _, SideKind};
use haldir::vault::Vault;
use haldir::views::follower::Views;

use crate::faults::tampered::Tampered;
use crate::samples::{next_signer, signer};
use crate::writing::ledger::{START_S, log, open_session, pay, prefix, request, seconds, tenant_id};

/// An application on a store that can be made to lie, and what survives its restarts.
pub(crate) struct Site {
    pub(crate) app: Arc<App>,
    disk: Arc<MemoryStore>,
    store: Arc<Tampered>,
    pages: Arc<MemoryPages>,
    pub(crate) clock: Arc<ManualClock>,
}

#[tokio::test]
async fn a_changed_entry_is_found_by_the_scrub_and_said_everywhere() {
    for bad in [0, 7, 19] {
        let site = Site::filled(20).await;
        assert_eq!(site.scrub(), 20);
        assert!(readiness(&site.app).ready);
        // From now on the store gives back another entry than it was given.
        site.lies_about(bad);
        assert!(readiness(&site.app).ready, "nobody has looked yet");
        let report = site.verify(false).await;
        assert!(report.verified, "what was scrubbed is not read again: {report:?}");
        assert_eq!(report.scrubbed_size, 20);
        let report = site.verify(true).await;
        assert_eq!((report.verified, report.first_bad_seq), (false, Some(bad)), "{report:?}");
        assert_eq!((report.scrubbed_size, report.head, report.root), (0, None, None));

        scrub(&site.app, &tenant_id("t"), || ControlFlow::Continue(())).unwrap();
        let failure = site.app.scrubbed.failure().unwrap();
        assert!(failure.contains(&format!("tenant t is not sound at seq {bad}")), "{failure}");
        let told = readiness(&site.app);
        assert!(!told.ready);
        let checks: Vec<_> = told.checks.iter().map(|check| (check.name, check.ok)).collect();
        assert_eq!(checks, [("database", false), ("migrations", true), ("encryption_key", true)]);
        assert_eq!(told.checks[0].message, failure);
        let report = site.verify(false).await;
        assert_eq!((report.verified, report.first_bad_seq), (false, Some(bad)), "{report:?}");
        assert!(report.error.is_some() && report.message.is_none());
        // Writing goes on; the stream is no less sound than before.
        site.pay(1).await;
        assert_eq!(site.verify(false).await.first_bad_seq, Some(bad));

        // The disk recovers, and the next pass says so.
        *site.store.on_read.write() = None;
        assert_eq!(site.scrub(), 21);
        assert!(readiness(&site.app).ready);
        assert!(site.verify(false).await.verified);
    }
}

#[tokio::test]
async fn details_that_changed_or_are_gone_are_found_by_the_scrub() {
    let site = Site::filled(5).await;
    let tenant = tenant_id("t");
    let details = haldir::format::chain::details_digest(&[7; 16], b"{}");
    let Command::LogAction(action) = log("s", "aud_1") else { unreachable!() };
    let logged =
        Command::LogAction(haldir::domain::audit::LogAction { details_digest: Some(details), ..action });
    // Recorded without the row that should stand beside it.
    site.app.ledger.submit(request("t", logged)).await.unwrap();
    assert_eq!(site.disk.side(&tenant, SideKind::Details, b"aud_1"), Ok(None));
    assert_eq!(site.scrub(), 0);
    assert!(site.app.scrubbed.failure().unwrap().contains("aud_1"), "{:?}", site.app.scrubbed.failure());
    assert!(!readiness(&site.app).ready);
    assert_eq!(site.verify(true).await.first_bad_seq, Some(5));
}

#[tokio::test]
async fn a_verification_begins_where_the_scrub_came_to_and_says_so() {
    let site = Site::filled(20).await;
    let report = site.verify(false).await;
    assert_eq!((report.scrubbed_size, report.scrubbed_at, report.events_checked), (0, None, 20));
    assert!(report.message.unwrap().contains("all 20 ledger entries"));
    site.clock.set(seconds(START_S + 60));
    assert_eq!(site.scrub(), 20);
    site.pay(5).await;
    let report = site.verify(false).await;
    assert!(report.verified);
    assert_eq!((report.scrubbed_size, report.events_checked), (20, 25));
    assert_eq!(report.scrubbed_at, Some(seconds(START_S + 60).to_string()));
    let message = report.message.unwrap();
    assert!(
        message.contains("the 5 ledger entries since the last scrub") && message.contains("the first 20")
    );
    let full = site.verify(true).await;
    assert_eq!((full.scrubbed_size, full.scrubbed_at, full.events_checked), (0, None, 25));
    assert_eq!((full.head, full.root), (report.head, report.root));
    // What comes after the scrub is looked at.
    site.lies_about(22);
    let report = site.verify(false).await;
    assert_eq!((report.verified, report.first_bad_seq, report.scrubbed_size), (false, Some(22), 20));
}

#[tokio::test]
async fn a_scrub_that_is_ended_early_verified_nothing() {
    let site = Site::filled(20).await;
    scrub(&site.app, &tenant_id("t"), || ControlFlow::Break(())).unwrap();
    assert_eq!(site.app.scrubbed.size(&tenant_id("t")), 0);
    assert_eq!(site.verify(false).await.scrubbed_size, 0);
    assert_eq!(site.app.scrubbed.failure(), None);
}

#[tokio::test]
async fn what_was_scrubbed_before_a_restart_is_taken_up_after_it() {
    let site = Site::filled(20).await;
    site.clock.set(seconds(START_S + 60));
    site.scrub();
    site.pay(3).await;
    let site = site.restart(signer(), Vec::new());
    assert_eq!(site.verify(false).await.scrubbed_size, 0, "not before somebody takes it up");
    resume_scrub(&site.app, &tenant_id("t")).unwrap();
    let report = site.verify(false).await;
    assert!(report.verified, "{report:?}");
    assert_eq!((report.scrubbed_size, report.events_checked), (20, 23));
    assert_eq!(report.scrubbed_at, Some(seconds(START_S + 60).to_string()));
    assert_eq!(report.entries_checked, site.verify(true).await.entries_checked);
    // And when the key has passed on meanwhile.
    let rotate = RotateSigner { public_key: next_signer().public_key().to_bytes() };
    site.app.ledger.submit(request("t", Command::RotateSigner(rotate))).await.unwrap();
    site.scrub();
    let site = site.restart(next_signer(), vec![signer().public_key()]);
    site.pay(2).await;
    resume_scrub(&site.app, &tenant_id("t")).unwrap();
    let report = site.verify(false).await;
    assert!(report.verified, "{report:?}");
    assert_eq!((report.scrubbed_size, report.events_checked), (24, 26));
    assert!(site.verify(true).await.verified);
}

#[tokio::test]
async fn a_mark_of_another_ledger_is_not_believed() {
    let tenant = tenant_id("t");
    let site = Site::filled(20).await;
    site.scrub();
    let mark = site.app.views.mark(&tenant).unwrap().unwrap();
    // As long as the first and longer, but of other moments.
    for count in [20, 30] {
        let other = Site::filled_at(START_S + 1, count).await;
        other.app.views.keep_mark(&tenant, mark.clone()).unwrap();
        resume_scrub(&other.app, &tenant).unwrap();
        assert_eq!(other.app.scrubbed.size(&tenant), 0, "{count}");
    }
    let longer = Site::filled(40).await;
    longer.scrub();
    let beyond = longer.app.views.mark(&tenant).unwrap().unwrap();
    for mark in [beyond, b"rubbish".to_vec(), Vec::new(), mark[..mark.len() / 2].to_vec()] {
        let fresh = Site::filled(20).await;
        fresh.app.views.keep_mark(&tenant, mark).unwrap();
        resume_scrub(&fresh.app, &tenant).unwrap();
        assert_eq!(fresh.app.scrubbed.size(&tenant), 0);
        assert!(fresh.verify(false).await.verified);
    }
    // The same ledger's is.
    let same = Site::filled(20).await;
    same.app.views.keep_mark(&tenant, mark).unwrap();
    resume_scrub(&same.app, &tenant).unwrap();
    assert_eq!(same.app.scrubbed.size(&tenant), 20);
}

impl Site {
    /// A stream of so many entries, at most a few of them logged actions.
    pub(crate) async fn filled(entries: u64) -> Self {
        Self::filled_at(START_S, entries).await
    }

    async fn filled_at(start_s: u64, entries: u64) -> Self {
        let disk = Arc::new(MemoryStore::default());
        let store = Arc::new(Tampered::new(disk.clone()));
        let clock = Arc::new(ManualClock::at(seconds(start_s)));
        let pages = Arc::new(MemoryPages::default());
        let site = Self::open(disk, store, pages, clock, signer(), Vec::new());
        site.app.ledger.submit(request("t", open_session("s", 1_000_000))).await.unwrap();
        site.app.ledger.submit(request("t", log("s", "aud_0"))).await.unwrap();
        site.pay(entries - 2).await;
        site
    }

    fn open(
        disk: Arc<MemoryStore>,
        store: Arc<Tampered>,
        pages: Arc<MemoryPages>,
        clock: Arc<ManualClock>,
        signer: haldir::format::chain::Signer,
        former_keys: Vec<PublicKey>,
    ) -> Self {
        let parts = Parts {
            store: store.clone(),
            snapshots: Arc::new(MemorySnapshots::default()),
            signer,
            former_keys: former_keys.clone(),
            clock: clock.clone(),
            random: Arc::new(OsRandom::default()),
            sizes: Sizes::default(),
        };
        let (ledger, feed) = LedgerHandle::open(parts).unwrap();
        let views = Views::open(pages.clone(), disk.clone(), feed).unwrap();
        let client = Client::new(Arc::new(SystemNames), false).unwrap();
        let app = App {
            ledger,
            views,
            vault: Vault::in_memory(),
            outbound: client.clone(),
            upstreams: Upstreams::new(client, UpstreamSettings::default(), [0; 32]).unwrap(),
            upstream_health: UpstreamHealth::default(),
            on_their_way: OnTheirWay::default(),
            patterns: Patterns::default(),
            pauses: Pauses::default(),
            meter: Meter::default(),
            windows: Windows::default(),
            limits: Limits::default(),
            retry_secret: RetrySecret::new([0; 32]),
            former_keys,
            certificates: Vec::new(),
            scrubbed: Scrubbed::default(),
            is_stopping: tokio::sync::watch::Sender::new(false),
            public_url: std::sync::OnceLock::new(),
            bootstrap_token_hash: None,
        };
        Self { app: Arc::new(app), disk, store, pages, clock }
    }

    fn restart(self, signer: haldir::format::chain::Signer, former_keys: Vec<PublicKey>) -> Self {
        self.app.ledger.close();
        self.app.views.close();
        Self::open(self.disk, self.store, self.pages, self.clock, signer, former_keys)
    }

    async fn pay(&self, count: u64) {
        for _ in 0..count {
            self.app.ledger.submit(request("t", pay("s", 1))).await.unwrap();
        }
    }

    /// Scrubs the stream; how far it is sound.
    fn scrub(&self) -> u64 {
        scrub(&self.app, &tenant_id("t"), || ControlFlow::Continue(())).unwrap();
        self.app.scrubbed.size(&tenant_id("t"))
    }

    async fn verify(&self, full: bool) -> VerifyReport {
        let caller = Caller {
            tenant: tenant_id("t"),
            prefix: prefix(1),
            scopes: KeyScopes::all(),
            request_id: RequestId::parse("request").unwrap(),
        };
        verify(Arc::clone(&self.app), caller.tenant, full).await.unwrap()
    }

    /// Has the store give back an entry with a flipped bit.
    pub(crate) fn lies_about(&self, seq: u64) {
        *self.store.on_read.write() = Some(Box::new(move |from, mut read| {
            let at = seq.checked_sub(from).and_then(|at| usize::try_from(at).ok());
            if let Some(bytes) = at.and_then(|at| read.get_mut(at)) {
                bytes[190] ^= 1;
            }
            read
        }));
    }
}
