//! What the passing of time leads to.

use super::{App, OperationError};
use crate::domain::due;
use crate::domain::id::{Actor, RequestId};
use crate::ledger::{LedgerError, Request};

/// Records what is due in every stream.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when nothing can be recorded.
pub async fn do_what_is_due(app: &App) -> Result<(), OperationError> {
    let now = app.ledger.clock().now();
    let due: Vec<_> = {
        let world = app.ledger.read();
        let streams = world.streams().map(|(tenant, stream)| (tenant.clone(), due(&stream.tenant, now)));
        streams.filter_map(|(tenant, command)| Some((tenant, command?))).collect()
    };
    for (tenant, command) in due {
        let request = Request {
            tenant,
            actor: Actor::System,
            request_id: RequestId::issue(app.ledger.random().bytes()),
            idempotency: None,
            command,
            side: vec![],
        };
        match app.ledger.submit(request).await {
            // The writer did it before it came to the request, with everything else that was due.
            Ok(_) | Err(LedgerError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
