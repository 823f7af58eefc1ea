//! Calls through the proxy: [`begin`] records the intent, whoever called it forwards, [`finish`] records the outcome.
//!
//! Nothing is forwarded whose intent is not durable. If the process ends in between, the call stays without an outcome and is
//! told as unconfirmed; nobody repeats it.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tracing::Instrument as _;

use super::redaction::{Redaction, Secrets, reference};
use super::retries::Retry;
use super::upstreams::introduce;
use super::{App, Caller, OperationError, only_event, request_of, to_the_end};
use crate::domain::calls::{CallAuthorized, CallDenial, CallDenied, CompleteCall, Method, Outcome};
use crate::domain::id::{Actor, ApprovalId, CallId, EntryId, RequestId, SessionId, TenantId};
use crate::domain::secrets::SecretName;
use crate::domain::sessions::Standing;
use crate::domain::time::Timestamp;
use crate::domain::upstreams::{Transport, UpstreamName};
use crate::domain::{Command, Event, Refusal};
use crate::format::chain::{DETAILS_SALT_LEN, details_digest};
use crate::ledger::{LedgerError, Request};
use crate::proxy::address::{Address, Line};
use crate::proxy::failure::CallError;
use crate::store::{SideKind, SideRow};

mod prepare;

pub(super) use prepare::prepare_to_explain;
use prepare::{Prepared, Wish};

/// How often a call is prepared anew because policies, upstreams or secrets changed meanwhile.
const ATTEMPTS_MAX: usize = 16;
/// Bytes of arguments, and of a result, that are kept.
pub const KEPT_LEN_MAX: usize = 64 * 1024;

/// Something to be called.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CallRequest {
    /// The session that calls.
    pub session_id: String,
    /// What is asked.
    pub method: Method,
    /// The upstream; `None` looks for it by the name.
    pub upstream: Option<String>,
    /// The tool, as called; or a resource's address, or a prompt's name.
    pub name: String,
    /// The arguments. Texts that end in `secret://` and the name of a secret are completed on the way.
    pub arguments: Map<String, Value>,
    /// The approval to use; `None` looks for one.
    pub approval_id: Option<String>,
}

/// What became of the wish to call something.
pub enum Begun {
    /// It is authorised, and that is durable. To be forwarded now, and then [`finish`]ed.
    Forward(Box<Intent>),
    /// It is denied.
    Denied(DeniedCall),
    /// The same request came before, and this is what it led to.
    Before(CallAnswer),
}

/// The end of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum CallAnswer {
    /// What the upstream gave, without secrets.
    Result(Value),
    /// It was denied.
    Denied(DeniedCall),
    /// The upstream gave nothing, or an error of the protocol: why.
    Failed {
        /// What became of it.
        outcome: Outcome,
        /// A sentence.
        reason: String,
    },
}

/// A denied call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedCall {
    /// The id that the call would have had.
    pub call_id: CallId,
    /// Why, for programs.
    pub reason: CallDenial,
    /// Why, for people.
    pub sentence: String,
    /// The policy that decided.
    pub policy_id: Option<u64>,
    /// The request for an approval that it waits for, or that is about it.
    pub approval_id: Option<ApprovalId>,
}

/// A call that is authorised and not forwarded yet. Dropped without being finished, it is recorded as lost.
pub struct Intent {
    /// The call.
    pub call_id: CallId,
    /// Of which upstream.
    pub upstream: UpstreamName,
    /// The upstream's own name for what is called.
    pub name: String,
    /// What is asked.
    pub method: Method,
    /// The arguments, with secrets in their places.
    pub arguments: Map<String, Value>,
    /// Which connection to use, unless the caller has one of its own.
    pub line: Line,
    /// Where the upstream is, with secrets in their places. Taken by whoever connects.
    pub address: Option<Address>,
    /// Whether there is a connection that it goes over.
    pub is_connected: bool,
    /// What must be hidden in whatever the upstream says.
    pub secrets: Arc<Secrets>,
    session_id: SessionId,
    request_id: RequestId,
    redaction: Redaction,
    began: Timestamp,
    /// The application, until the call is finished.
    unfinished: Option<Arc<App>>,
}

impl Drop for Intent {
    /// Whoever was to forward it is gone. Whether the upstream did anything is not known.
    fn drop(&mut self) {
        let Some(app) = self.unfinished.take() else { return };
        let why = CallAnswer::Failed { outcome: Outcome::Lost, reason: "the call was abandoned".to_owned() };
        let completion = self.completion(&app, &why);
        let record = record_outcome(app, completion);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::error!(call_id = %self.call_id, "an abandoned call has no outcome");
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = record.await {
                tracing::error!(%error, "an abandoned call has no outcome");
            }
        });
    }
}

/// Decides about a call, and records it.
///
/// # Errors
///
/// [`OperationError::SessionDead`], whether that is recorded or not; [`OperationError::Invalid`]; [`OperationError::Conflict`] when
/// the same request is on its way already.
pub async fn begin(
    app: &Arc<App>,
    caller: &Caller,
    request: CallRequest,
    retry: Option<&Retry>,
) -> Result<Begun, OperationError> {
    let wish = Wish::read(request)?;
    if let Some(upstream) = wish.likely_upstream() {
        match introduce(app, caller, &upstream, wish.session_id.as_str()).await {
            // The decision says so, with the reason, and records it.
            Err(
                OperationError::SessionDead
                | OperationError::NotFound(_)
                | OperationError::SessionScopeMissing { .. },
            ) => {}
            introduced => introduced?,
        }
    }
    for _ in 0..ATTEMPTS_MAX {
        let prepared = wish.prepare(app, caller).await?;
        let submitted = app.ledger.submit(request_of(
            caller,
            Command::AuthorizeCall(prepared.command.clone()),
            retry,
            prepared.side.clone(),
        ));
        let receipt = match submitted.await {
            Err(LedgerError::Refused(Refusal::CallStale | Refusal::SecretMoved)) => continue,
            Err(LedgerError::Refused(Refusal::SessionUnknown)) => return Err(OperationError::SessionDead),
            submitted => submitted?,
        };
        return match &only_event(&receipt)?.recorded.event {
            Event::CallAuthorized(call) if receipt.is_replay => before(app, caller, call).map(Begun::Before),
            Event::CallAuthorized(call) => {
                Ok(Begun::Forward(Box::new(prepared.intend(app, caller, &wish, call))))
            }
            Event::CallDenied(denied) => told(app, caller, denied),
            _ => Err(OperationError::unexpected(&receipt)),
        };
    }
    Err(OperationError::Busy)
}

/// Reads the name of an upstream as it was asked for.
///
/// # Errors
///
/// [`OperationError::NotFound`] for what cannot be one.
pub fn named_upstream(name: &str) -> Result<UpstreamName, OperationError> {
    UpstreamName::parse(name).ok_or(OperationError::NotFound("upstream"))
}

impl Prepared {
    fn intend(self, app: &Arc<App>, caller: &Caller, wish: &Wish, call: &CallAuthorized) -> Intent {
        let secrets = Secrets::of(self.secrets);
        let mut arguments = Value::Object(wish.arguments.clone());
        secrets.complete_all(&mut arguments);
        let arguments = match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        let has_own = self
            .transport
            .iter()
            .flat_map(Transport::settings)
            .any(|setting| reference(&setting.value).is_some());
        app.on_their_way.add(&call.call_id);
        Intent {
            call_id: call.call_id.clone(),
            upstream: call.upstream.clone(),
            name: call.name.clone(),
            method: call.method,
            arguments,
            line: Line {
                tenant: caller.tenant.clone(),
                upstream: call.upstream.to_string(),
                of: has_own.then(|| call.session_id.to_string()),
            },
            address: self.transport.map(|transport| address_of(&transport, &secrets)),
            redaction: Redaction::of(&self.policies, &self.policy_name),
            is_connected: false,
            secrets: Arc::new(secrets),
            session_id: call.session_id.clone(),
            request_id: caller.request_id.clone(),
            began: app.ledger.clock().now(),
            unfinished: Some(Arc::clone(app)),
        }
    }
}

/// Where an upstream is, with secrets in their places.
#[must_use]
pub fn address_of(transport: &Transport, secrets: &Secrets) -> Address {
    let pairs = |settings: &[crate::domain::upstreams::Setting]| {
        settings.iter().map(|setting| (setting.name.clone(), secrets.complete(&setting.value))).collect()
    };
    match transport {
        Transport::Http { url, headers } => Address::Http { url: url.clone(), headers: pairs(headers) },
        Transport::Stdio { command, args, env } => {
            Address::Stdio { command: command.clone(), args: args.clone(), env: pairs(env) }
        }
    }
}

fn told(app: &App, caller: &Caller, denied: &CallDenied) -> Result<Begun, OperationError> {
    let sentence = match denied.reason {
        CallDenial::SessionRevoked | CallDenial::SessionExpired => return Err(OperationError::SessionDead),
        CallDenial::Policy => policy_sentence(app, caller, denied)?,
        _ => sentence_of(denied),
    };
    Ok(Begun::Denied(DeniedCall {
        call_id: denied.call_id.clone(),
        reason: denied.reason,
        sentence,
        policy_id: denied.policy_id,
        approval_id: denied.approval_id.clone(),
    }))
}

/// Why a call is denied, in words that need no look at anything else.
pub(super) fn sentence_of(denied: &CallDenied) -> String {
    match denied.reason {
        CallDenial::SessionRevoked | CallDenial::SessionExpired => "the session has ended".to_owned(),
        CallDenial::Policy => "a policy is against it".to_owned(),
        CallDenial::ToolUnknown => format!("no upstream has the tool {}", denied.name),
        CallDenial::ToolQuarantined => {
            format!(
                "the tool {} changed since it was pinned, and waits until somebody accepts it",
                denied.name
            )
        }
        CallDenial::ScopeMissing => {
            "the session holds neither 'execute' nor 'read', for everything or for this tool".to_owned()
        }
        CallDenial::SpendScopeMissing => {
            "the call costs something, and the session does not hold the scope 'spend'".to_owned()
        }
        CallDenial::BudgetExceeded => "the budget does not hold what the call costs".to_owned(),
        CallDenial::SecretDenied => {
            let name = denied.secret.as_ref().map(SecretName::to_string).unwrap_or_default();
            format!("the session may not use the secret {name:?}, or there is none")
        }
        CallDenial::ApprovalNotCovering => "the approval does not cover this call".to_owned(),
        CallDenial::ApprovalDenied => "this call was not approved".to_owned(),
        CallDenial::ApprovalRequired => "this call waits for an approval".to_owned(),
    }
}

fn policy_sentence(app: &App, caller: &Caller, denied: &CallDenied) -> Result<String, OperationError> {
    let id = denied.policy_id.unwrap_or_default();
    let found = app.with_tenant(&caller.tenant, |tenant| {
        tenant.policies.all().find(|(policy_id, _)| *policy_id == id).map(|(_, policy)| policy.type_name())
    })?;
    let (kind, name) = (found.unwrap_or("removed"), &denied.name);
    Ok(format!("policy {id} ({kind}) is against calling {name}"))
}

/// What a request led to that came before.
fn before(app: &App, caller: &Caller, call: &CallAuthorized) -> Result<CallAnswer, OperationError> {
    let is_open = app.with_tenant(&caller.tenant, |tenant| tenant.calls.get(&call.call_id).is_some())?;
    if is_open {
        let reason = "the call with this Idempotency-Key has no outcome yet".to_owned();
        return Err(OperationError::Conflict { code: "call_open", reason });
    }
    let id = EntryId::of_call(&call.call_id);
    let stored = app.ledger.store().side(&caller.tenant, SideKind::Details, id.as_str().as_bytes())?;
    let text = stored.as_deref().and_then(|stored| stored.get(DETAILS_SALT_LEN..));
    let details: Value = text.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    Ok(match details.get("result") {
        Some(result) if !result.is_null() => CallAnswer::Result(result.clone()),
        _ => CallAnswer::Failed {
            outcome: Outcome::Failed,
            reason: details["error"].as_str().unwrap_or("the result was not kept").to_owned(),
        },
    })
}

/// Records what became of a call. What the upstream gave comes back without secrets.
///
/// # Errors
///
/// [`OperationError::Unavailable`] when it cannot be recorded: then nobody hears of the result.
pub async fn finish(
    mut intent: Box<Intent>,
    ended: Result<Value, CallError>,
) -> Result<CallAnswer, OperationError> {
    let answer = match ended {
        Ok(mut result) => {
            intent.secrets.hide_all(&mut result);
            CallAnswer::Result(result)
        }
        Err(error) => CallAnswer::Failed {
            outcome: outcome_of(&error),
            reason: intent.secrets.hide(&error.to_string()),
        },
    };
    let Some(app) = intent.unfinished.take() else { return Ok(answer) };
    if let CallAnswer::Failed { outcome: Outcome::NotSent, reason } = &answer
        && intent.is_connected
    {
        // The connection was there, and the upstream is not.
        let now = app.ledger.clock().now();
        app.upstream_health.note(&intent.line.tenant, &intent.upstream, now, Err(reason.clone()));
    }
    let completion = intent.completion(&app, &answer);
    to_the_end(record_outcome(app, completion).in_current_span()).await?;
    Ok(answer)
}

const fn outcome_of(error: &CallError) -> Outcome {
    match error {
        CallError::NotSent(_) => Outcome::NotSent,
        CallError::Lost(_) => Outcome::Lost,
        CallError::TimedOut => Outcome::TimedOut,
        CallError::TooLarge => Outcome::TooLarge,
        CallError::Cancelled => Outcome::Cancelled,
        CallError::Status(_) | CallError::Malformed(_) | CallError::Refused { .. } => Outcome::Refused,
    }
}

/// What is recorded of the end of a call.
struct Completion {
    tenant: TenantId,
    request_id: RequestId,
    command: CompleteCall,
    /// What is kept beside the ledger.
    details: String,
}

impl Intent {
    fn completion(&self, app: &App, answer: &CallAnswer) -> Completion {
        let (outcome, error, result) = match answer {
            CallAnswer::Result(result) => {
                let is_error = result["isError"].as_bool().unwrap_or(false);
                let mut kept = result.clone();
                self.redaction.of_result(&mut kept);
                (if is_error { Outcome::Failed } else { Outcome::Succeeded }, None, kept)
            }
            CallAnswer::Failed { outcome, reason } => (*outcome, Some(reason.as_str()), Value::Null),
            CallAnswer::Denied(_) => (Outcome::NotSent, None, Value::Null),
        };
        let len = result.to_string().len();
        let result = if len > KEPT_LEN_MAX { Value::Null } else { result };
        let now = app.ledger.clock().now();
        let duration_us = now.micros().saturating_sub(self.began.micros());
        let details = json!({
            "tool": self.name,
            "upstream": self.upstream.as_str(),
            "call_id": self.call_id.as_str(),
            "latency_ms": duration_us / 1000,
            "error": error,
            "result": result,
            "result_bytes": len,
        });
        let command =
            CompleteCall { call_id: self.call_id.clone(), outcome, duration_us, details_digest: None };
        Completion {
            tenant: self.line.tenant.clone(),
            request_id: self.request_id.clone(),
            command,
            details: details.to_string(),
        }
    }

    /// The session that called.
    #[must_use]
    pub const fn session_id(&self) -> &SessionId {
        &self.session_id
    }
}

async fn record_outcome(app: Arc<App>, completion: Completion) -> Result<(), OperationError> {
    let Completion { tenant, request_id, mut command, details } = completion;
    let salt: [u8; DETAILS_SALT_LEN] = app.ledger.random().bytes();
    command.details_digest = Some(details_digest(&salt, details.as_bytes()));
    let id = EntryId::of_call(&command.call_id).as_str().as_bytes().to_vec();
    let value = [&salt[..], details.as_bytes()].concat();
    loop {
        let request = Request {
            tenant: tenant.clone(),
            actor: Actor::System,
            request_id: request_id.clone(),
            idempotency: None,
            command: Command::CompleteCall(command.clone()),
            side: vec![SideRow { kind: SideKind::Details, id: id.clone(), value: value.clone() }],
        };
        match app.ledger.submit(request).await {
            // The queue is full: an outcome waits rather than be lost.
            Err(LedgerError::Busy) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            submitted => {
                app.on_their_way.remove(&command.call_id);
                return submitted.map(|_| ()).map_err(OperationError::from);
            }
        }
    }
}

/// Waits until a session has ended.
pub async fn session_ends(app: &App, tenant: &TenantId, session_id: &SessionId) {
    let mut world = app.ledger.watch();
    loop {
        let now = app.ledger.clock().now();
        let until = {
            let world = world.borrow_and_update();
            let Some(tenant) = world.stream(tenant).map(|stream| &stream.tenant) else { return };
            let Some(session) = tenant.sessions.get(session_id) else { return };
            if tenant.sessions.standing(session, now) != Standing::Live {
                return;
            }
            let ends = tenant.sessions.lineage(session_id).filter_map(|(_, session)| session.expires_at);
            ends.min().map(|end| end.micros().saturating_sub(now.micros()) + 1)
        };
        let expired = async {
            match until {
                Some(micros) => tokio::time::sleep(std::time::Duration::from_micros(micros)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = world.changed() => if changed.is_err() { return },
            () = expired => {}
        }
        // A busy ledger changes thousands of times a second.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
