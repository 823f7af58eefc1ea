//! Verification of a tenant's stream by the server itself.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Caller, OperationError, blocking};
use crate::domain::Event;
use crate::domain::id::TenantId;
use crate::format::verify::{Trust, Verifier};
use crate::ledger::replay::PAGE_LEN;

/// Whether a stream is sound.
#[derive(Debug, Serialize, ToSchema)]
pub struct VerifyReport {
    /// Whether it is.
    pub verified: bool,
    /// Logged actions that were checked.
    pub entries_checked: u64,
    /// Ledger entries of every kind that were checked.
    pub events_checked: u64,
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

/// Walks the tenant's stream from its first entry: chain, every signature, and the details kept beside it.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when the ledger cannot be read.
pub async fn verify(app: Arc<App>, caller: &Caller) -> Result<VerifyReport, OperationError> {
    let tenant = caller.tenant.clone();
    blocking(move || walk(&app, &tenant)).await
}

fn walk(app: &App, tenant: &TenantId) -> Result<VerifyReport, OperationError> {
    let head = app.ledger.read().stream(tenant).map(|stream| stream.head);
    let head = head.ok_or(OperationError::NotFound("tenant"))?;
    let mut verifier = Verifier::new(tenant.clone(), Trust::keys(vec![app.ledger.public_key()]));
    let mut actions = 0;
    let store = &**app.ledger.store();
    while verifier.next_seq() < head.size {
        let wanted = usize::try_from(head.size - verifier.next_seq()).unwrap_or(PAGE_LEN).min(PAGE_LEN);
        let page = store.read(tenant, verifier.next_seq(), wanted);
        let page = page.map_err(|error| OperationError::Unavailable(error.to_string()))?;
        if page.is_empty() {
            break;
        }
        for bytes in page {
            let seq = verifier.next_seq();
            let entry = match verifier.push(&bytes) {
                Ok(entry) => entry,
                Err(flaw) => return Ok(not_sound(seq, seq.to_string(), actions, flaw.to_string())),
            };
            if let Event::ActionLogged(action) = &entry.recorded.event {
                if let Some(digest) = &action.details_digest
                    && let Err(error) = super::audit::read_details(store, tenant, &action.entry_id, digest)
                {
                    return Ok(not_sound(seq, action.entry_id.to_string(), actions, error.to_string()));
                }
                actions += 1;
            }
        }
    }
    if let Err(flaw) = verifier.check_end(head.size, &head.hash) {
        let seq = verifier.next_seq();
        return Ok(not_sound(seq, seq.to_string(), actions, flaw.to_string()));
    }
    let summary = verifier.summary();
    Ok(VerifyReport {
        verified: true,
        entries_checked: actions,
        events_checked: summary.size,
        message: Some(format!(
            "chain and signatures of all {} ledger entries are sound; {actions} of them are logged actions",
            summary.size
        )),
        head: Some(summary.head.to_string()),
        root: Some(summary.root.to_string()),
        first_bad_seq: None,
        first_break: None,
        tampered_entry: None,
        error: None,
    })
}

fn not_sound(seq: u64, name: String, actions: u64, error: String) -> VerifyReport {
    VerifyReport {
        verified: false,
        entries_checked: actions,
        events_checked: seq,
        message: None,
        head: None,
        root: None,
        first_bad_seq: Some(seq),
        first_break: Some(name.clone()),
        tampered_entry: Some(name),
        error: Some(error),
    }
}
