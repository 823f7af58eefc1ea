//! Who asks, for which session, and for what part of the proxy.

use std::sync::Arc;

use http::request::Parts;
use rmcp::RoleServer;
use rmcp::model::{ClientCapabilities, ErrorData, ProtocolVersion, RequestMetaObject};
use rmcp::service::{Peer, RequestContext};

use super::PATH;
use crate::domain::id::SessionId;
use crate::domain::sessions::Standing;
use crate::domain::upstreams::UpstreamName;
use crate::operations::{App, Caller, OperationError};
use crate::proxy::hub::Hub;
use crate::proxy::relay::Talk;

/// Which session, as a header. As at the REST edge.
const SESSION_HEADER: &str = "x-session-id";
/// The same as a parameter of the URL, for clients that cannot set headers.
const SESSION_PARAMETER: &str = "session_id=";

/// A request of a client.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
    /// The session, as the client named it.
    pub(super) session_id: String,
    /// The one upstream that the client speaks to; all of them without.
    pub(super) only: Option<UpstreamName>,
    /// Whether the client speaks the generation without sessions of the protocol.
    pub(super) is_stateless: bool,
    /// What the client can be asked.
    pub(super) capabilities: ClientCapabilities,
    /// The way back to the client.
    pub(super) peer: Peer<RoleServer>,
    /// The metadata of the request.
    pub(super) meta: RequestMetaObject,
}

impl Visit {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// A sentence, when it names no session or an upstream that there is not.
    pub(super) fn read(app: &Arc<App>, context: &RequestContext<RoleServer>) -> Result<Self, ErrorData> {
        let parts = context.extensions.get::<Parts>().ok_or_else(|| internal("a request without a head"))?;
        let caller =
            parts.extensions.get::<Caller>().ok_or_else(|| internal("a request without a caller"))?;
        let session_id = session_in(parts).ok_or_else(|| {
            let why = "the proxy works within a session: name it with the header X-Session-ID or the parameter \
                       session_id (POST /v1/sessions opens one)";
            ErrorData::invalid_request(why, None)
        })?;
        let only = match parts.uri.path().strip_prefix(PATH).map(|rest| rest.trim_matches('/')) {
            None | Some("") => None,
            Some(name) => Some(known_upstream(app, caller, name)?),
        };
        Ok(Self {
            app: Arc::clone(app),
            caller: caller.clone(),
            session_id,
            only,
            is_stateless: context
                .meta
                .protocol_version()
                .is_some_and(|it| it >= ProtocolVersion::V_2026_07_28),
            capabilities: context.client_capabilities().unwrap_or_default(),
            peer: context.peer.clone(),
            meta: context.meta.clone(),
        })
    }

    /// The session, if it lives.
    ///
    /// # Errors
    ///
    /// A sentence, when it does not.
    pub(super) fn live_session(&self) -> Result<SessionId, ErrorData> {
        let id = SessionId::parse(&self.session_id);
        let now = self.app.ledger.clock().now();
        let is_live = |id: &SessionId| {
            self.app.with_tenant(&self.caller.tenant, |tenant| {
                let session = tenant.sessions.get(id);
                session.is_some_and(|session| tenant.sessions.standing(session, now) == Standing::Live)
            })
        };
        id.filter(|id| is_live(id).unwrap_or(false)).ok_or_else(dead_session)
    }

    /// The connection of a client of the newer generation that said what it can do: it shares it with its other requests that
    /// say the same, because some upstreams have to be told at the beginning.
    pub(super) fn shared(&self, session_id: &SessionId) -> Option<(String, Arc<Hub>)> {
        if !self.is_stateless || self.capabilities == ClientCapabilities::default() {
            return None;
        }
        let capabilities = serde_json::to_string(&self.capabilities).unwrap_or_default();
        Some((format!("{session_id} {capabilities}"), Hub::of_one(self.capabilities.clone())))
    }

    /// What goes with a request that belongs to no call.
    pub(super) fn talk(&self) -> Talk<'static> {
        Talk { relay: None, capabilities: Some(self.capabilities.clone()), meta: self.meta.clone() }
    }

    /// Whether the client can be asked anything.
    pub(super) fn can_be_asked(&self) -> bool {
        let ClientCapabilities { elicitation, sampling, roots, .. } = &self.capabilities;
        elicitation.is_some() || sampling.is_some() || roots.is_some()
    }
}

fn session_in(parts: &Parts) -> Option<String> {
    let header = parts.headers.get(SESSION_HEADER).and_then(|value| value.to_str().ok());
    let parameter = || parts.uri.query()?.split('&').find_map(|pair| pair.strip_prefix(SESSION_PARAMETER));
    header.or_else(parameter).filter(|id| !id.is_empty()).map(str::to_owned)
}

fn known_upstream(app: &App, caller: &Caller, name: &str) -> Result<UpstreamName, ErrorData> {
    let found = UpstreamName::parse(name).filter(|name| {
        app.with_tenant(&caller.tenant, |tenant| tenant.upstreams.get(name).is_some()).unwrap_or(false)
    });
    found.ok_or_else(|| ErrorData::invalid_request("there is no upstream with this name", None))
}

/// What a client hears whose session has ended, or never was.
pub(super) fn dead_session() -> ErrorData {
    ErrorData::invalid_request("the session does not exist, was revoked or has expired", None)
}

pub(super) fn internal(why: &'static str) -> ErrorData {
    ErrorData::internal_error(why, None)
}

/// An error of an operation, as the protocol has it.
pub(super) fn refused(error: &OperationError) -> ErrorData {
    match error {
        OperationError::SessionDead => dead_session(),
        OperationError::Invalid { .. } | OperationError::NotFound(_) => {
            ErrorData::invalid_params(error.to_string(), None)
        }
        error => ErrorData::internal_error(error.to_string(), None),
    }
}
