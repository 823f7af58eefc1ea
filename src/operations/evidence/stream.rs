//! Verifies a stream in a store: a data directory, or a copy of one.

use super::walk::{Closing, End, Ending, Objection, Start, Walk};
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
    let mut walk = Walk::new(tenant.clone(), expected, trust, Start::First);
    while !walk.is_over() {
        let page = store.read(tenant, walk.next_seq(), PAGE_LEN)?;
        if page.is_empty() {
            break;
        }
        progress(page.len() as u64);
        for bytes in page {
            walk.add(bytes, |bytes| read_with_details(store, tenant, bytes));
        }
    }
    walk.verify(|bytes| read_with_details(store, tenant, bytes));
    let root = walk.root();
    let (size, head) = (head.size, Some(head.hash));
    let end = End { size, head, root, closing: Closing::Store, stream_size: None };
    Ok(walk.finish(&Ending::Said(Box::new(end))))
}

/// Reads an entry, and whether the details of an action are beside it as they were recorded.
fn read_with_details(
    store: &dyn EventStore,
    tenant: &TenantId,
    bytes: &[u8],
) -> Result<Reading<Objection>, Objection> {
    let examined = examine(bytes)?;
    let objection = match &examined.entry.recorded.event {
        Event::ActionLogged(action) => check_details(store, tenant, action).err().map(Objection),
        _ => None,
    };
    Ok(Reading { examined, objection })
}

/// Reads an entry.
pub(super) fn read(bytes: &[u8]) -> Result<Reading<Objection>, Objection> {
    Ok(Reading { examined: examine(bytes)?, objection: None })
}
