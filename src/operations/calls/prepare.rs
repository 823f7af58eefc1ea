//! Everything that a decision about a call needs, looked up at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{CallRequest, KEPT_LEN_MAX, named_upstream};
use crate::domain::Tenant;
use crate::domain::calls::{AuthorizeCall, Method, SecretUse, policy_name};
use crate::domain::id::{ApprovalId, CallId, SessionId};
use crate::domain::limits::{CALL_NAME_CHARS_MAX, CALL_SECRET_COUNT_MAX};
use crate::domain::policies::Policies;
use crate::domain::secrets::{ReadSecret, SecretName};
use crate::domain::upstreams::{Transport, Upstream, UpstreamName};
use crate::format::chain::{DETAILS_SALT_LEN, details_digest};
use crate::operations::call_facts::facts;
use crate::operations::redaction::{Redaction, reference, references};
use crate::operations::{App, Caller, OperationError, secrets};
use crate::store::{SideKind, SideRow};

/// Looks up what a decision about a call would need, without opening any secret.
///
/// # Errors
///
/// As [`begin`](super::begin).
pub(in crate::operations) fn prepare_to_explain(
    app: &App,
    caller: &Caller,
    request: CallRequest,
) -> Result<AuthorizeCall, OperationError> {
    let wish = Wish::read(request)?;
    let target = app.with_tenant(&caller.tenant, |tenant| wish.target(tenant))?;
    let mut uses = Vec::new();
    for name in wish.secret_names(target.transport.as_ref())? {
        let ask = wish.to_read(&name);
        uses.push(SecretUse { opened: secrets::find(app, caller, &ask)?, name });
    }
    Ok(wish.ask(app, &target, uses).0)
}

/// A request, read.
pub(super) struct Wish {
    pub(super) session_id: SessionId,
    pub(super) method: Method,
    pub(super) upstream: Option<UpstreamName>,
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) approval_id: Option<ApprovalId>,
}

/// What was looked up for a call, at one moment.
pub(super) struct Prepared {
    pub(super) command: AuthorizeCall,
    pub(super) side: Vec<SideRow>,
    pub(super) transport: Option<Transport>,
    pub(super) policies: Policies,
    pub(super) policy_name: String,
    pub(super) secrets: BTreeMap<SecretName, Zeroizing<String>>,
}

/// What is called, as far as it is known at one moment.
struct Target {
    registration: Option<u64>,
    transport: Option<Transport>,
    policy_name: String,
    policies: Policies,
}

impl Wish {
    pub(super) fn read(request: CallRequest) -> Result<Self, OperationError> {
        let upstream = request.upstream.as_deref().map(named_upstream).transpose()?;
        if request.name.is_empty() || request.name.chars().count() > CALL_NAME_CHARS_MAX {
            let expected = format!("expected 1 to {CALL_NAME_CHARS_MAX} characters");
            return Err(OperationError::invalid("tool", expected));
        }
        let unknown = || OperationError::invalid("approval_id", "expected the id of an approval request");
        Ok(Self {
            session_id: SessionId::parse(&request.session_id).ok_or(OperationError::SessionDead)?,
            method: request.method,
            upstream,
            name: request.name,
            arguments: request.arguments,
            approval_id: request
                .approval_id
                .map(|id| ApprovalId::parse(&id).ok_or_else(unknown))
                .transpose()?,
        })
    }

    /// The upstream that is meant, as far as the name says it.
    pub(super) fn likely_upstream(&self) -> Option<UpstreamName> {
        let named = || UpstreamName::parse(self.name.split_once('.')?.0);
        self.upstream.clone().or_else(named)
    }

    fn target(&self, tenant: &Tenant) -> Target {
        let resolved = match (&self.upstream, self.method) {
            (Some(upstream), _) => Some((upstream, self.name.clone())),
            (None, Method::Tool) => tenant.upstreams.resolve(&self.name),
            (None, Method::Resource | Method::Prompt) => None,
        };
        let found: Option<&Upstream> = resolved.as_ref().and_then(|(name, _)| tenant.upstreams.get(name));
        Target {
            registration: found.map(|upstream| upstream.seq),
            transport: found.map(|upstream| upstream.transport.clone()),
            policy_name: resolved.as_ref().map_or_else(
                || self.name.clone(),
                |(upstream, name)| policy_name(self.method, upstream, name),
            ),
            policies: tenant.policies.clone(),
        }
    }

    pub(super) async fn prepare(&self, app: &Arc<App>, caller: &Caller) -> Result<Prepared, OperationError> {
        let target = app.with_tenant(&caller.tenant, |tenant| self.target(tenant))?;
        let (mut secrets, mut uses) = (BTreeMap::new(), Vec::new());
        for name in self.secret_names(target.transport.as_ref())? {
            let opened = secrets::open_for(app, caller, &self.to_read(&name)).await?;
            uses.push(SecretUse { name: name.clone(), opened: opened.as_ref().map(|(digest, _)| *digest) });
            secrets.extend(opened.map(|(_, value)| (name, value)));
        }
        let (command, side) = self.ask(app, &target, uses);
        let Target { transport, policies, policy_name, .. } = target;
        Ok(Prepared { command, side, transport, policies, policy_name, secrets })
    }

    /// The command, and what stands beside it.
    fn ask(&self, app: &App, target: &Target, secrets: Vec<SecretUse>) -> (AuthorizeCall, Vec<SideRow>) {
        let now = app.ledger.clock().now();
        let call_id = CallId::issue(app.ledger.random().bytes());
        let request_id = ApprovalId::issue(app.ledger.random().bytes());
        let (arguments, side) = self.written(app, target, &call_id, &request_id);
        let command = AuthorizeCall {
            call_id,
            session_id: self.session_id.clone(),
            method: self.method,
            upstream: self.upstream.clone(),
            name: self.name.clone(),
            facts: facts(&target.policies, &app.patterns, &target.policy_name, &self.arguments, now),
            registration: target.registration,
            arguments,
            secrets,
            approval_id: self.approval_id.clone(),
            request_id,
        };
        (command, side)
    }

    /// Every secret that the arguments and the upstream's settings refer to.
    fn secret_names(&self, transport: Option<&Transport>) -> Result<BTreeSet<SecretName>, OperationError> {
        let settings = transport.into_iter().flat_map(Transport::settings);
        let mut names: Vec<&str> =
            settings.filter_map(|setting| reference(&setting.value)).map(|(_, name)| name).collect();
        self.arguments.values().for_each(|value| references(value, &mut names));
        let invalid =
            || OperationError::invalid("arguments", "expected the name of a secret after secret://");
        let names: BTreeSet<SecretName> = names
            .into_iter()
            .map(|name| SecretName::parse(name).ok_or_else(invalid))
            .collect::<Result<_, _>>()?;
        if names.len() > CALL_SECRET_COUNT_MAX {
            let expected = format!("expected references to at most {CALL_SECRET_COUNT_MAX} secrets");
            return Err(OperationError::invalid("arguments", expected));
        }
        Ok(names)
    }

    fn to_read(&self, name: &SecretName) -> ReadSecret {
        ReadSecret { session_id: self.session_id.clone(), name: name.clone(), version: None, opened: None }
    }

    /// The digest of the arguments as they are written down, and what is kept of them: with the call, and with the request for
    /// an approval if there is one.
    fn written(
        &self,
        app: &App,
        target: &Target,
        call_id: &CallId,
        request_id: &ApprovalId,
    ) -> ([u8; 32], Vec<SideRow>) {
        let mut arguments = self.arguments.clone();
        Redaction::of(&target.policies, &target.policy_name).of_arguments(&mut arguments, &app.retry_secret);
        let text = json!({ "arguments": arguments }).to_string();
        // As for arguments of a request for an approval, so that an approval asked for by hand covers the call.
        let salt: [u8; DETAILS_SALT_LEN] = app.retry_secret.salt_of(&text);
        let digest = details_digest(&salt, text.as_bytes());
        if text.len() > KEPT_LEN_MAX {
            return (digest, Vec::new());
        }
        let value = [&salt[..], text.as_bytes()].concat();
        let row = |kind, id: &str| SideRow { kind, id: id.as_bytes().to_vec(), value: value.clone() };
        let rows = vec![
            row(SideKind::CallArguments, call_id.as_str()),
            row(SideKind::ApprovalDetails, request_id.as_str()),
        ];
        (digest, rows)
    }
}
