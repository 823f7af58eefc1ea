//! Verification of streams by the server itself: on request, and over and over in the background.
//!
//! The scrub walks every stream from its first entry and remembers how far it came ([`Scrubbed`]). A request verifies what came
//! after that, so that its cost does not grow with the ledger, and says so; with `full` it verifies everything.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::read_details;
use super::{App, OperationError, blocking};
use crate::domain::Event;
use crate::domain::audit::ActionLogged;
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::format::chain::PublicKey;
use crate::format::entry;
use crate::format::verify::{Standpoint, Trust, Verifier};
use crate::ledger::past::stream_at;
use crate::ledger::walk::{Located, WINDOW_LEN, verify_entries};
use crate::store::{EventStore, Head};

/// Whether a stream is sound.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct VerifyReport {
    /// Whether it is.
    pub verified: bool,
    /// Logged actions that were checked.
    pub entries_checked: u64,
    /// Ledger entries of every kind that were checked.
    pub events_checked: u64,
    /// Entries from the start that were not checked again, because the scrub had checked them.
    pub scrubbed_size: u64,
    /// When the scrub had checked them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrubbed_at: Option<String>,
    /// A sentence for people, when it is sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Hash of the last entry, when it is sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Root of the Merkle tree over all entries, when it is sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Position of the first bad entry, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad_seq: Option<u64>,
    /// The same as text, under the name that older clients read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_break: Option<String>,
    /// The same, when its content was altered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tampered_entry: Option<String>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How far each stream was verified from its first entry on, or what was found on the way.
#[derive(Debug, Default)]
pub struct Scrubbed {
    streams: Mutex<BTreeMap<TenantId, Scrub>>,
    /// How far requests went on from there.
    gone_on: Mutex<BTreeMap<TenantId, Verified>>,
}

#[derive(Debug, Clone)]
enum Scrub {
    Sound(Box<Verified>),
    NotSound(Box<VerifyReport>),
}

/// A stream that is sound up to a point.
#[derive(Debug, Clone)]
pub struct Verified {
    verifier: Verifier,
    actions: u64,
    /// When the point was reached; `None` for the start of the stream.
    at: Option<Timestamp>,
}

/// What is kept of a finished scrub for the next start.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    size: u64,
    head: String,
    root: String,
    actions: u64,
    at: Timestamp,
}

impl Scrubbed {
    /// What the scrub found to be wrong, and in whose stream.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let streams = self.streams.lock();
        streams.iter().find_map(|(tenant, scrub)| match scrub {
            Scrub::Sound(_) => None,
            Scrub::NotSound(report) => {
                let seq = report.first_bad_seq.unwrap_or_default();
                let why = report.error.as_deref().unwrap_or_default();
                Some(format!("the stream of tenant {tenant} is not sound at seq {seq}: {why}"))
            }
        })
    }

    /// Entries of a stream that were verified.
    #[must_use]
    pub fn size(&self, tenant: &TenantId) -> u64 {
        match self.streams.lock().get(tenant) {
            Some(Scrub::Sound(verified)) => verified.verifier.next_seq(),
            Some(Scrub::NotSound(_)) | None => 0,
        }
    }

    fn of(&self, tenant: &TenantId) -> Option<Scrub> {
        self.streams.lock().get(tenant).cloned()
    }

    fn set(&self, tenant: &TenantId, scrub: Scrub) {
        self.streams.lock().insert(tenant.clone(), scrub);
    }
}

/// Verifies the tenant's stream: chain, every signature, every decision, and the details kept beside it; from where the scrub
/// came to, or from the first entry with `full`.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the ledger cannot be read.
pub async fn verify(app: Arc<App>, tenant: TenantId, full: bool) -> Result<VerifyReport, OperationError> {
    blocking(move || {
        let head = app.with_stream(&tenant, |stream| stream.head)?;
        let start = match app.scrubbed.of(&tenant).filter(|_| !full) {
            Some(Scrub::NotSound(report)) => return Ok(*report),
            Some(Scrub::Sound(verified)) => *verified,
            None => Verified::start(&app, &tenant),
        };
        let outcome = start.clone().walk(&app, &tenant, head, || ControlFlow::Continue(()))?;
        Ok(match outcome {
            Outcome::Sound(verified) => sound(&start, &verified),
            Outcome::NotSound(report) => VerifyReport {
                scrubbed_size: start.verifier.next_seq(),
                scrubbed_at: start.at.map(|at| at.to_string()),
                ..*report
            },
            Outcome::Stopped => return Err(OperationError::Busy),
        })
    })
    .await
}

/// Where a stream is not sound; `None` when it is. Goes on from where the scrub, or whoever asked last, came to, so that
/// asking often does not cost more than asking once. Blocks the thread while it reads.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the ledger cannot be read.
pub(super) fn first_bad_seq(app: &App, tenant: &TenantId) -> Result<Option<u64>, OperationError> {
    let head = app.with_stream(tenant, |stream| stream.head)?;
    let gone_on = app.scrubbed.gone_on.lock().get(tenant).cloned();
    let start = match app.scrubbed.of(tenant) {
        Some(Scrub::NotSound(report)) => return Ok(report.first_bad_seq),
        Some(Scrub::Sound(verified)) => *verified,
        None => Verified::start(app, tenant),
    };
    let is_further = |it: &Verified| it.verifier.next_seq() > start.verifier.next_seq();
    let start = gone_on.filter(|it| is_further(it) && it.verifier.next_seq() <= head.size).unwrap_or(start);
    match start.walk(app, tenant, head, || ControlFlow::Continue(()))? {
        Outcome::Sound(verified) => {
            app.scrubbed.gone_on.lock().insert(tenant.clone(), *verified);
            Ok(None)
        }
        Outcome::NotSound(report) => Ok(report.first_bad_seq),
        Outcome::Stopped => Err(OperationError::Busy),
    }
}

/// Verifies a stream from its first entry on and remembers the outcome. `go_on` is asked between windows.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the ledger cannot be read.
pub fn scrub(
    app: &App,
    tenant: &TenantId,
    go_on: impl FnMut() -> ControlFlow<()>,
) -> Result<(), OperationError> {
    let head = app.with_stream(tenant, |stream| stream.head)?;
    match Verified::start(app, tenant).walk(app, tenant, head, go_on)? {
        Outcome::Sound(mut verified) => {
            let at = app.ledger.clock().now();
            verified.at = Some(at);
            let summary = verified.verifier.summary();
            let marker = Marker {
                size: summary.size,
                head: summary.head.to_string(),
                root: summary.root.to_string(),
                actions: verified.actions,
                at,
            };
            let marker =
                serde_json::to_vec(&marker).map_err(|error| OperationError::Internal(error.to_string()))?;
            app.views.keep_mark(tenant, marker)?;
            app.scrubbed.set(tenant, Scrub::Sound(verified));
        }
        Outcome::NotSound(report) => {
            tracing::error!(%tenant, seq = report.first_bad_seq, error = report.error, "a stream is not sound");
            app.scrubbed.set(tenant, Scrub::NotSound(report));
        }
        Outcome::Stopped => {}
    }
    Ok(())
}

/// Takes up what the last finished scrub before this start verified, if it is still the same stream.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the ledger cannot be read.
pub fn resume_scrub(app: &App, tenant: &TenantId) -> Result<(), OperationError> {
    let mark = app.views.mark(tenant)?;
    let Some(marker) = mark.and_then(|mark| serde_json::from_slice::<Marker>(&mark).ok()) else {
        return Ok(());
    };
    let size = app.with_stream(tenant, |stream| stream.head.size)?;
    if marker.size == 0 || marker.size > size {
        return Ok(());
    }
    let store = &**app.ledger.store();
    let Some(stream) = stream_at(store, &**app.ledger.snapshots(), tenant, marker.size)? else {
        return Ok(());
    };
    if stream.head.hash.to_string() != marker.head || stream.tree.root().to_string() != marker.root {
        return Ok(());
    }
    let first = store.read(tenant, 0, 1)?;
    let first = first.first().and_then(|bytes| entry::open(bytes).ok()).map(|entry| entry.key_id);
    let handed_to = stream.tenant.custody.signer();
    let signs = |key: &PublicKey| match handed_to {
        Some(handed_to) => key.to_bytes() == *handed_to,
        None => Some(key.id()) == first,
    };
    let signer = app.keys().into_iter().find(signs);
    let mut standpoint = Standpoint::from(stream);
    standpoint.signer = signer;
    let verifier = Verifier::at(tenant.clone(), Trust::keys(app.keys()), standpoint);
    let verified = Verified { verifier, actions: marker.actions, at: Some(marker.at) };
    app.scrubbed.set(tenant, Scrub::Sound(Box::new(verified)));
    Ok(())
}

enum Outcome {
    Sound(Box<Verified>),
    NotSound(Box<VerifyReport>),
    Stopped,
}

impl Verified {
    fn start(app: &App, tenant: &TenantId) -> Self {
        let verifier = Verifier::new(tenant.clone(), Trust::keys(app.keys()));
        Self { verifier, actions: 0, at: None }
    }

    fn walk(
        mut self,
        app: &App,
        tenant: &TenantId,
        head: Head,
        mut go_on: impl FnMut() -> ControlFlow<()>,
    ) -> Result<Outcome, OperationError> {
        let store = &**app.ledger.store();
        while self.verifier.next_seq() < head.size {
            let next_seq = self.verifier.next_seq();
            let wanted = usize::try_from(head.size - next_seq).unwrap_or(WINDOW_LEN).min(WINDOW_LEN);
            let window = store.read(tenant, next_seq, wanted)?;
            if window.is_empty() {
                break;
            }
            let mut actions = Vec::new();
            let walked = verify_entries(&mut self.verifier, &window, |entry| {
                if let Event::ActionLogged(action) = &entry.recorded.event {
                    actions.push((entry.recorded.seq, action.clone()));
                }
            });
            let bad_seq = walked.as_ref().err().map(|Located { seq, .. }| *seq);
            for (seq, action) in actions.into_iter().filter(|(seq, _)| bad_seq.is_none_or(|bad| *seq < bad)) {
                if let Err(why) = check_details(store, tenant, &action) {
                    return Ok(not_sound(seq, action.entry_id.to_string(), self.actions, why));
                }
                self.actions += 1;
            }
            if let Err(Located { seq, reason }) = walked {
                return Ok(not_sound(seq, seq.to_string(), self.actions, reason.to_string()));
            }
            if go_on().is_break() {
                return Ok(Outcome::Stopped);
            }
        }
        let end = self.verifier.check_end(head.size, &head.hash).and(self.verifier.check_whole());
        if let Err(flaw) = end {
            let seq = self.verifier.next_seq();
            return Ok(not_sound(seq, seq.to_string(), self.actions, flaw.to_string()));
        }
        Ok(Outcome::Sound(Box::new(self)))
    }
}

/// Whether the details of an action are there, as they were recorded. Nothing erases details, so that those which are gone
/// were lost; whatever is to erase them one day must leave a sign that it was not a disk.
///
/// # Errors
///
/// What is wrong with them.
pub fn check_details(store: &dyn EventStore, tenant: &TenantId, action: &ActionLogged) -> Result<(), String> {
    let Some(digest) = &action.details_digest else {
        return Ok(());
    };
    match read_details(store, tenant, &action.entry_id, digest) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("the details of {} are missing", action.entry_id)),
        Err(error) => Err(error.to_string()),
    }
}

fn sound(start: &Verified, verified: &Verified) -> VerifyReport {
    let summary = verified.verifier.summary();
    let scrubbed_size = start.verifier.next_seq();
    let scope = match start.at {
        None => format!("all {} ledger entries", summary.size),
        Some(at) => format!(
            "the {} ledger entries since the last scrub, which verified the first {scrubbed_size} at {at},",
            summary.size - scrubbed_size
        ),
    };
    VerifyReport {
        verified: true,
        entries_checked: verified.actions,
        events_checked: summary.size,
        scrubbed_size,
        scrubbed_at: start.at.map(|at| at.to_string()),
        message: Some(format!(
            "chain, signatures and decisions of {scope} are sound; {} of all {} are logged actions",
            verified.actions, summary.size
        )),
        head: Some(summary.head.to_string()),
        root: Some(summary.root.to_string()),
        first_bad_seq: None,
        first_break: None,
        tampered_entry: None,
        error: None,
    }
}

fn not_sound(seq: u64, name: String, actions: u64, error: String) -> Outcome {
    Outcome::NotSound(Box::new(VerifyReport {
        verified: false,
        entries_checked: actions,
        events_checked: seq,
        scrubbed_size: 0,
        scrubbed_at: None,
        message: None,
        head: None,
        root: None,
        first_bad_seq: Some(seq),
        first_break: Some(name.clone()),
        tampered_entry: Some(name),
        error: Some(error),
    }))
}
