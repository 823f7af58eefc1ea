//! Verifies a stream in a store: a data directory, or a copy of one.

use super::walk::{End, Objection, Walk};
use super::{Expected, Report};
use crate::domain::Event;
use crate::domain::id::TenantId;
use crate::format::certificate::KeyCertificate;
use crate::format::verify::examine;
use crate::ledger::replay::PAGE_LEN;
use crate::ledger::walk::Reading;
use crate::operations::verification::check_details;
use crate::store::{EventStore, Head, StoreError};

/// Verifies a stream up to its head. `progress` is told how many entries were added.
///
/// # Errors
///
/// [`StoreError`] when the store cannot be read.
pub fn verify_stream(
    store: &dyn EventStore,
    tenant: &TenantId,
    head: Head,
    expected: &Expected,
    certificates: &[KeyCertificate],
    mut progress: impl FnMut(u64),
) -> Result<Report, StoreError> {
    let trust = expected.trust(Vec::new(), certificates);
    let mut walk = Walk::new(tenant.clone(), expected, trust, None);
    while !walk.is_over() {
        let page = store.read(tenant, walk.next_seq(), PAGE_LEN)?;
        if page.is_empty() {
            break;
        }
        progress(page.len() as u64);
        for bytes in page {
            walk.add(bytes, |bytes| read(store, tenant, bytes));
        }
    }
    walk.verify(|bytes| read(store, tenant, bytes));
    let root = walk.root();
    let end = End { size: head.size, head: Some(head.hash), root, checkpoint: None, stream_size: None };
    Ok(walk.finish(Some(&end)))
}

/// Reads an entry, and whether the details of an action are beside it as they were recorded.
fn read(store: &dyn EventStore, tenant: &TenantId, bytes: &[u8]) -> Result<Reading<Objection>, Objection> {
    let examined = examine(bytes)?;
    let objection = match &examined.entry.recorded.event {
        Event::ActionLogged(action) => check_details(store, tenant, action).err().map(Objection),
        _ => None,
    };
    Ok(Reading { examined, objection })
}
