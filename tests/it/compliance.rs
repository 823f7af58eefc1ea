//! Do evidence packs say what the ledger says, and do schedules send each of them once?

use std::sync::Arc;

use haldir::domain::audit::LogAction;
use haldir::domain::compliance::{Cadence, CreateSchedule, Delivery, RunOutcome, Schedule};
use haldir::domain::id::{EntryId, RequestId, ScheduleId};
use haldir::domain::money::Money;
use haldir::domain::time::Timestamp;
use haldir::domain::usage::MeterUsage;
use haldir::domain::{Command, Event};
use haldir::ledger::Request;
use haldir::operations::compliance::numbers::digest_of;
use haldir::operations::compliance::runs::run_due;
use haldir::operations::compliance::{Evidence, Period, evidence};
use haldir::operations::past::AsOf;
use haldir::outbound::mail::{MailSettings, Mailer};
use haldir::store::SideKind;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::scrub::Site;
use crate::writing::ledger::{START_S, request, seconds, session_id, tenant_id};

const DAY_S: u64 = 86_400;

#[tokio::test]
async fn the_sums_of_every_period_are_those_of_its_actions() {
    let site = Site::filled(2).await;
    // One action is there already. These cost 1, 2, 4, … billionths, so that each sum says which actions are in it.
    for n in 1..12_u32 {
        site.clock.set(seconds(START_S + 10 * u64::from(n)));
        log(&site, &format!("aud_{n}"), 1 << n).await;
    }
    let end = START_S + 120;
    for (since, until) in [(0, 120), (0, 0), (10, 11), (10, 20), (11, 20), (55, 200), (0, 11), (110, 111)] {
        let expected: u128 =
            (1..12_u32).filter(|n| (since..until).contains(&(10 * u64::from(*n)))).map(|n| 1 << n).sum();
        let pack = pack(&site, START_S + since, START_S + until, None).await;
        let first = u64::from(since == 0 && until > 0);
        let count = u64::from(expected.count_ones()) + first;
        assert_eq!(pack.audit_trail.total_entries_in_period, count, "{since} {until}");
        let exact = Money::parse(&pack.spend_governance.total_spend_usd_in_period_exact).unwrap();
        let of_the_first = if first == 1 { exact.nanos() - expected } else { 0 };
        assert_eq!(exact.nanos() - of_the_first, expected, "{since} {until}");
        assert!(pack.audit_trail.chain_verified);
    }
    let whole = pack(&site, START_S - 1, end, None).await;
    assert_eq!(whole.ledger.entries_in_period, whole.ledger.size);
    assert_eq!((whole.ledger.first_seq, whole.ledger.last_seq), (Some(0), Some(whole.ledger.size - 1)));
}

#[tokio::test]
async fn a_pack_says_so_when_an_entry_that_counts_was_changed() {
    let site = Site::filled(12).await;
    // A period before everything, so that the changed entry is verified but not looked at for anything else.
    let window = (START_S - DAY_S, START_S - 1);
    assert!(pack(&site, window.0, window.1, None).await.audit_trail.chain_verified);
    log(&site, "aud_12", 1).await;
    // What was verified for the pack before is not read again; what came after it is.
    site.lies_about(5);
    assert!(pack(&site, window.0, window.1, None).await.audit_trail.chain_verified);
    log(&site, "aud_13", 1).await;
    log(&site, "aud_14", 1).await;
    site.lies_about(13);
    assert!(!pack(&site, window.0, window.1, None).await.audit_trail.chain_verified);
    let before = pack(&site, window.0, window.1, Some(AsOf::Seq(12))).await;
    assert!(before.audit_trail.chain_verified, "what stands before it is sound");
}

#[tokio::test]
async fn a_pack_is_the_same_ever_after_and_reading_does_not_change_it() {
    let site = Site::filled(5).await;
    let window = (START_S - DAY_S, START_S + 60);
    let first = pack(&site, window.0, window.1, None).await;
    assert_eq!(first.signatures.digest, pack(&site, window.0, window.1, None).await.signatures.digest);
    let json = serde_json::to_value(&first).unwrap();
    assert_eq!(data_encoding::HEXLOWER.encode(&digest_of(&json)), first.signatures.digest);

    // Calls are metered now and then, reads among them.
    for _ in 0..3 {
        let metered = MeterUsage { month: site.clock_now().month(), keys: Vec::new() };
        site.app.ledger.submit(request("t", Command::MeterUsage(metered))).await.unwrap();
    }
    let again = pack(&site, window.0, window.1, None).await;
    assert_eq!((again.ledger.size, &again.signatures.digest), (5, &first.signatures.digest));

    log(&site, "aud_later", 1).await;
    let later = pack(&site, window.0, window.1, None).await;
    assert_ne!(later.signatures.digest, first.signatures.digest);
    let as_it_was = pack(&site, window.0, window.1, Some(AsOf::Seq(first.ledger.size - 1))).await;
    assert_eq!(as_it_was.signatures.digest, first.signatures.digest);
    assert_eq!(as_it_was.ledger.root, first.ledger.root);
}

#[tokio::test]
async fn a_schedule_sends_one_pack_for_each_due_time_and_no_moment_is_left_out() {
    let site = Site::filled(3).await;
    create(&site, "email:grc@example.com").await;
    let office = PostOffice::open().await;
    let mailer = office.mailer();
    // Without a mail server, and then with one.
    run_due(&site.app, None).await;
    assert_eq!(schedule(&site).last_outcome, Some(RunOutcome::SmtpUnconfigured));
    for at in [5, 6, DAY_S, DAY_S + 4] {
        site.clock.set(seconds(START_S + at));
        run_due(&site.app, Some(&mailer)).await;
        run_due(&site.app, Some(&mailer)).await;
        assert_eq!(office.letters().len(), 1, "{at}: it was not due again");
    }
    site.clock.set(seconds(START_S + 3 * DAY_S));
    run_due(&site.app, Some(&mailer)).await;
    assert_eq!((schedule(&site).run_count, schedule(&site).fail_count), (2, 1));

    let runs = runs(&site);
    let periods: Vec<_> = runs.iter().map(|(start, end, _)| (*start, *end)).collect();
    let at = |s: u64| seconds(START_S + s);
    let start = |end: u64| Timestamp::from_micros(at(end).micros() - DAY_S * 1_000_000);
    let first_end = periods[0].1;
    assert_eq!(periods[1..], [(start(5), at(5)), (at(5), at(3 * DAY_S))]);
    assert_eq!(periods[0].0.plus_seconds(DAY_S), first_end);
    // What was sent is kept, and is what the ledger says was sent.
    for (letter, (_, _, digest)) in office.letters().iter().zip(&runs[1..]) {
        let hex = data_encoding::HEXLOWER.encode(digest);
        assert!(letter.contains(&format!("X-Haldir-Evidence-Digest: {hex}")), "{letter}");
        let kept = site.app.ledger.store().side(&tenant_id("t"), SideKind::EvidencePack, digest).unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&kept.unwrap()).unwrap();
        assert_eq!(digest_of(&kept), *digest);
    }
    let failed = data_encoding::HEXLOWER.encode(&runs[0].2);
    assert_eq!(
        site.app.ledger.store().side(&tenant_id("t"), SideKind::EvidencePack, failed.as_bytes()),
        Ok(None)
    );
}

#[tokio::test]
async fn a_mail_server_that_says_no_is_told_of_and_asked_again() {
    let site = Site::filled(3).await;
    create(&site, "email:nobody@example.com").await;
    let office = PostOffice::open().await;
    run_due(&site.app, Some(&office.mailer())).await;
    assert_eq!(schedule(&site).last_outcome, Some(RunOutcome::SmtpFailed));
    assert!(schedule(&site).last_error.contains("550"), "{}", schedule(&site).last_error);
    run_due(&site.app, Some(&office.mailer())).await;
    assert_eq!((schedule(&site).run_count, schedule(&site).fail_count), (0, 2));
}

#[tokio::test]
async fn a_webhook_that_nobody_registered_is_missed_and_the_pack_is_not_kept() {
    let site = Site::filled(3).await;
    create(&site, "webhook:all").await;
    run_due(&site.app, None).await;
    assert_eq!(schedule(&site).last_outcome, Some(RunOutcome::NoDispatcher));
    let (_, _, digest) = runs(&site)[0];
    let kept = site.app.ledger.store().side(&tenant_id("t"), SideKind::EvidencePack, &digest);
    assert_eq!(kept, Ok(None));
}

impl Site {
    fn clock_now(&self) -> Timestamp {
        self.app.ledger.clock().now()
    }
}

async fn log(site: &Site, entry_id: &str, nanos: u128) {
    let action = LogAction {
        entry_id: EntryId::parse(entry_id).unwrap(),
        session_id: session_id("s"),
        action: "act".to_owned(),
        tool: String::new(),
        cost: Money::from_nanos(nanos),
        details_digest: None,
    };
    site.app.ledger.submit(request("t", Command::LogAction(action))).await.unwrap();
}

async fn pack(site: &Site, since_s: u64, until_s: u64, as_of: Option<AsOf>) -> Evidence {
    let moment = site.app.moment(&tenant_id("t"), as_of).await.unwrap();
    let period = Period { since: seconds(since_s), until: seconds(until_s) };
    evidence(&site.app, &tenant_id("t"), period, &moment).await.unwrap()
}

async fn create(site: &Site, delivery: &str) {
    let command = Command::CreateSchedule(CreateSchedule {
        schedule_id: ScheduleId::parse("sched").unwrap(),
        name: "audit".to_owned(),
        cadence: Cadence::Daily,
        delivery: Delivery::parse(delivery).unwrap(),
    });
    site.app
        .ledger
        .submit(Request { request_id: RequestId::parse("r").unwrap(), ..request("t", command) })
        .await
        .unwrap();
}

fn schedule(site: &Site) -> Schedule {
    let world = site.app.ledger.read();
    let stream = world.stream(&tenant_id("t")).unwrap();
    stream.tenant.schedules.get(&ScheduleId::parse("sched").unwrap()).unwrap().clone()
}

/// The period and digest of every run, in order.
fn runs(site: &Site) -> Vec<(Timestamp, Timestamp, [u8; 32])> {
    let entries = site.app.ledger.store().read(&tenant_id("t"), 0, 1000).unwrap();
    let events = entries.iter().map(|bytes| haldir::format::entry::open(bytes).unwrap().recorded.event);
    let ran = events.filter_map(|event| match event {
        Event::ScheduleRan(it) => Some((it.period_start, it.period_end, it.pack.unwrap().digest)),
        _ => None,
    });
    ran.collect()
}

/// A mail server that takes every letter but those to nobody.
struct PostOffice {
    port: u16,
    letters: Arc<Mutex<Vec<String>>>,
}

impl PostOffice {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let letters = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&letters);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let taken = Arc::clone(&taken);
                tokio::spawn(async move {
                    let (reader, mut writer) = caller.into_split();
                    let mut lines = BufReader::new(reader).lines();
                    let (mut letter, mut is_letter) = (String::new(), false);
                    let mut say = Some("220 here");
                    loop {
                        if let Some(answer) = say.take() {
                            writer.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                        }
                        let Ok(Some(line)) = lines.next_line().await else { return };
                        if is_letter && line == "." {
                            is_letter = false;
                            taken.lock().push(std::mem::take(&mut letter));
                            say = Some("250 taken");
                        } else if is_letter {
                            letter.push_str(&line);
                            letter.push('\n');
                        } else {
                            is_letter = line == "DATA";
                            say = Some(match line.split(' ').next() {
                                Some("DATA") => "354 go on",
                                Some("QUIT") => "221 bye",
                                _ if line.contains("nobody") => "550 no such mailbox",
                                _ => "250 ok",
                            });
                        }
                    }
                });
            }
        });
        Self { port, letters }
    }

    fn mailer(&self) -> Mailer {
        let settings = MailSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            login: None,
            from: "haldir@example.com".to_owned(),
            uses_tls: false,
        };
        Mailer::new(&settings).unwrap()
    }

    fn letters(&self) -> Vec<String> {
        self.letters.lock().clone()
    }
}
