//! Does an export say what was audited, and never more than it can vouch for?

use std::sync::Arc;

use haldir::domain::Command;
use haldir::domain::audit::LogAction;
use haldir::domain::id::{EntryId, RequestId};
use haldir::domain::money::Money;
use haldir::domain::scope::KeyScopes;
use haldir::domain::time::Timestamp;
use haldir::format::chain::{DETAILS_SALT_LEN, details_digest};
use haldir::format::manifest::{is_signed_by, split};
use haldir::ledger::Request;
use haldir::operations::audit_export::{self, Format, Selection};
use haldir::operations::call_facts::Patterns;
use haldir::operations::deliveries::Pauses;
use haldir::operations::limits::{Limits, Windows};
use haldir::operations::open_calls::OnTheirWay;
use haldir::operations::retries::RetrySecret;
use haldir::operations::upstreams::UpstreamHealth;
use haldir::operations::usage::Meter;
use haldir::operations::verification::Scrubbed;
use haldir::operations::{App, Caller, OperationError};
use haldir::outbound::client::Client;
use haldir::outbound::names::SystemNames;
use haldir::proxy::settings::UpstreamSettings;
use haldir::proxy::upstreams::Upstreams;
use haldir::store::memory::MemoryPages;
use haldir::store::{SideKind, SideRow};
use haldir::vault::Vault;
use haldir::views::follower::Views;

use crate::samples;
use crate::writing::ledger::{TestLedger, open_session, prefix, request, session_id, tenant_id};

/// Actions that are logged before each test; more than an export reads at once.
const ACTIONS: usize = 600;
const FORMATS: [Format; 2] = [Format::Jsonl, Format::Csv];

#[tokio::test]
async fn an_export_holds_every_action_and_what_is_logged_later_does_not_change_it() {
    let (ledger, app) = filled().await;
    for format in FORMATS {
        let mut export = begin(&app, Selection::default(), format).await.unwrap();
        let first = export.next().unwrap().unwrap();
        submit(&ledger, log("later", None)).await;
        let blocks: Vec<Vec<u8>> = [Ok(first)].into_iter().chain(export).collect::<Result<_, _>>().unwrap();
        let logged = ledger.events("t").len() - 1;
        let text = String::from_utf8(blocks.concat()).unwrap();
        // All but the last action, and a header or the manifest.
        assert_eq!(text.lines().count(), logged - 1 + 1);
        assert!(!text.contains(r#""aud_later""#));
        ledger.check();
    }
}

#[tokio::test]
async fn the_last_line_is_signed_by_the_ledgers_key_and_says_what_the_manifest_alone_says() {
    let (_ledger, app) = filled().await;
    let selection = || Selection { since: Some(Timestamp::from_micros(1)), ..Selection::default() };
    let blocks: Vec<Vec<u8>> =
        begin(&app, selection(), Format::Jsonl).await.unwrap().collect::<Result<_, _>>().unwrap();
    let line = String::from_utf8(blocks.last().unwrap().clone()).unwrap();
    let alone =
        audit_export::manifest(Arc::clone(&app), &caller(), selection(), Format::Jsonl).await.unwrap();
    assert_eq!(line, format!("{alone}\n"), "the clock of this test stands still");
    assert!(is_signed_by(&alone, samples::signer().public_key()));
    assert!(!is_signed_by(&alone.replace("600", "601"), samples::signer().public_key()));
    assert!(alone.contains(r#""filters":{"since":0.000001},"count":600,"#));
    let (text, _) = split(&alone).unwrap();
    assert!(text.ends_with(&format!(
        r#""public_key":"{}"}}"#,
        data_encoding::HEXLOWER.encode(&samples::signer().public_key().to_bytes())
    )));
}

#[tokio::test]
async fn an_export_that_meets_a_damaged_entry_breaks_off_without_a_manifest() {
    let (ledger, app) = filled().await;
    ledger.store.disk.corrupt(&tenant_id("t"), 400, |bytes| bytes[200] ^= 1);
    // Actions are read in pages of 256; the second holds the damaged one.
    breaks_off(&app, 256).await;
}

#[tokio::test]
async fn an_export_that_meets_altered_details_breaks_off_without_a_manifest() {
    let (ledger, app) = filled().await;
    // Another entry's row overwrites the details, as nobody but a tamperer would.
    let row = SideRow { kind: SideKind::Details, id: b"aud_399".to_vec(), value: side("{\"a\":2}") };
    let tampered = Request { side: vec![row], ..log("tampered", None) };
    submit(&ledger, tampered).await;
    breaks_off(&app, 399).await;
}

/// An export yields its rows up to the flaw, and then an error and nothing more.
async fn breaks_off(app: &Arc<App>, rows: usize) {
    for format in FORMATS {
        let blocks: Vec<_> = begin(app, Selection::default(), format).await.unwrap().collect();
        let (last, before) = blocks.split_last().unwrap();
        let headers = usize::from(format == Format::Csv);
        assert_eq!(before.iter().filter(|block| block.is_ok()).count(), rows + headers, "{format:?}");
        assert!(matches!(last, Err(OperationError::Unavailable(_))), "{last:?}");
        let manifest = audit_export::manifest(Arc::clone(app), &caller(), Selection::default(), format).await;
        assert!(matches!(manifest, Err(OperationError::Unavailable(_))), "{manifest:?}");
    }
}

async fn begin(
    app: &Arc<App>,
    selection: Selection,
    format: Format,
) -> Result<audit_export::AuditExport, OperationError> {
    audit_export::begin(Arc::clone(app), &caller(), selection, format).await
}

/// A ledger with a session and its actions, and an application on it.
async fn filled() -> (TestLedger, Arc<App>) {
    let ledger = TestLedger::new();
    submit(&ledger, request("t", open_session("s", 1))).await;
    for number in 0..ACTIONS {
        submit(&ledger, log(&number.to_string(), Some("{\"a\":1}"))).await;
    }
    let pages = Arc::new(MemoryPages::default());
    let views = Views::open(pages, ledger.store.clone(), ledger.feed.clone()).unwrap();
    let client = Client::new(Arc::new(SystemNames), false).unwrap();
    let app = App {
        ledger: ledger.handle.clone(),
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
        former_keys: Vec::new(),
        certificates: Vec::new(),
        scrubbed: Scrubbed::default(),
        is_stopping: tokio::sync::watch::Sender::new(false),
        public_url: std::sync::OnceLock::new(),
        bootstrap_token_hash: None,
    };
    let app = Arc::new(app);
    // The view has read everything before a test alters anything.
    begin(&app, Selection::default(), Format::Csv).await.unwrap();
    (ledger, app)
}

async fn submit(ledger: &TestLedger, request: Request) {
    ledger.handle.submit(request).await.unwrap();
}

fn log(name: &str, details: Option<&str>) -> Request {
    let name = format!("aud_{name}");
    let command = Command::LogAction(LogAction {
        entry_id: EntryId::parse(&name).unwrap(),
        session_id: session_id("s"),
        action: "act".to_owned(),
        tool: String::new(),
        cost: Money::from_nanos(7),
        details_digest: details.map(|details| details_digest(&[7; DETAILS_SALT_LEN], details.as_bytes())),
    });
    let row = |details| SideRow { kind: SideKind::Details, id: name.into_bytes(), value: side(details) };
    Request { side: details.map(row).into_iter().collect(), ..request("t", command) }
}

/// Details as they are kept.
fn side(details: &str) -> Vec<u8> {
    [&[7; DETAILS_SALT_LEN][..], details.as_bytes()].concat()
}

fn caller() -> Caller {
    Caller {
        tenant: tenant_id("t"),
        prefix: prefix(1),
        scopes: KeyScopes::all(),
        request_id: RequestId::parse("request").unwrap(),
    }
}
