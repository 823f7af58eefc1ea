//! Our side of a connection, as the upstream sees it.

use std::sync::Arc;

use rmcp::RoleClient;
use rmcp::model::{ClientConfig, ClientResult, ErrorData, Implementation, ServerNotification, ServerRequest};
use rmcp::service::{InboundStreamOrigin, NotificationContext, RequestContext, Service};

use super::ears::{Ears, nobody_answers};

/// Answers what the upstream asks.
pub(super) struct Inbound {
    ears: Arc<Ears>,
}

impl Inbound {
    pub(super) fn new(ears: Arc<Ears>) -> Self {
        Self { ears }
    }
}

impl Service<RoleClient> for Inbound {
    async fn handle_request(
        &self,
        request: ServerRequest,
        context: RequestContext<RoleClient>,
    ) -> Result<ClientResult, ErrorData> {
        if matches!(request, ServerRequest::PingRequest(_)) {
            return Ok(ClientResult::empty(()));
        }
        let of = match context.extensions.get::<InboundStreamOrigin>() {
            Some(InboundStreamOrigin::OutboundRequest(id)) => Some(id),
            Some(InboundStreamOrigin::Unassociated) | None => None,
        };
        if let Some(ear) = self.ears.addressee(of) {
            return ear.ask(request).await;
        }
        if of.is_some() {
            return Err(nobody_answers(&request)); // The call is over.
        }
        self.ears.relay().asked(request).await
    }

    /// What is left here belongs to nobody: the rest was heard before.
    async fn handle_notification(
        &self,
        _: ServerNotification,
        _: NotificationContext<RoleClient>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(self.ears.relay().capabilities(), implementation())
    }
}

/// Who we are.
pub(super) fn implementation() -> Implementation {
    Implementation::new("haldir", env!("CARGO_PKG_VERSION"))
}
