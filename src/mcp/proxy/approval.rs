//! Approvals within the protocol: the call itself waits for the human.
//!
//! Who may decide about approvals is asked by the client; who may not is told of the request, and the call waits until somebody
//! else has decided. A client that cannot be asked anything gets the contract's answer, and calls again later.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use rmcp::model::{
    ClientResult, ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ErrorData,
    InputRequest, InputRequiredResult, InputResponses, ProgressNotificationParam, ServerRequest,
};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::visit::{Visit, refused};
use crate::domain::approvals::Verdict;
use crate::domain::id::ApprovalId;
use crate::operations::OperationError;
use crate::operations::approvals::{self, Decision};
use crate::operations::calls::DeniedCall;

/// The right to decide.
const DECIDE: &str = "approvals:write";
/// How long a call waits for a decision at most. Longer, and its client has to come again.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// How often the client hears that it still waits.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// Under which key the question stands among those that a client of the newer generation is to answer.
const KEY: &str = "approval";
/// How the state of a call that waits for an approval begins.
const STATE_PREFIX: &str = "approval.";
/// Characters of a note.
const NOTE_CHARS_MAX: usize = 2000;

/// What a client can be asked about a request.
enum Question {
    /// To decide.
    Decide(ElicitRequestParams),
    /// To take note, and wait for somebody else.
    Wait(ElicitRequestParams),
}

/// What a call does that waits for an approval.
pub(super) enum Next {
    /// It tries again: with the approval, if it was given.
    Again(Option<ApprovalId>),
    /// It asks its client, which comes again.
    Ask(Box<InputRequiredResult>),
    /// It gives up for now.
    GiveUp,
}

/// Has a call wait for its approval, as far as the client can be asked.
///
/// # Errors
///
/// When the decision cannot be recorded.
pub(super) async fn settle(visit: &Visit, denied: &DeniedCall) -> Result<Next, ErrorData> {
    let Some(id) = denied.approval_id.clone() else { return Ok(Next::GiveUp) };
    let Some(question) = question(visit, denied, &id) else { return Ok(Next::GiveUp) };
    if visit.is_stateless {
        return Ok(Next::Ask(Box::new(input_required(visit, question, &id))));
    }
    let may_decide = matches!(question, Question::Decide(_));
    let (Question::Decide(params) | Question::Wait(params)) = question;
    let request = ServerRequest::ElicitRequest(ElicitRequest::new(params));
    let answer = tokio::select! {
        answer = visit.peer.send_request(request) => match answer {
            Ok(ClientResult::ElicitResult(answer)) => Some(answer),
            _ => return Ok(Next::GiveUp),
        },
        // Somebody decided elsewhere.
        () = decided(visit, &id) => None,
    };
    if let Some(answer) = answer
        && !take(visit, &id, answer, may_decide).await?
    {
        return Ok(Next::GiveUp);
    }
    decided(visit, &id).await;
    Ok(again(visit, &id))
}

/// One that was not approved is found by what it asked for, and denied for that reason.
fn again(visit: &Visit, id: &ApprovalId) -> Next {
    Next::Again((status(visit, id) == "approved").then(|| id.clone()))
}

/// Whether a state is one of a call that waits for an approval.
pub(super) fn is_state(state: &str) -> bool {
    state.starts_with(STATE_PREFIX)
}

/// Lets a call go on whose client brings an answer.
///
/// # Errors
///
/// When the state is not one of ours, or the decision cannot be recorded.
pub(super) async fn resume(
    visit: &Visit,
    state: &str,
    responses: Option<InputResponses>,
) -> Result<Next, ErrorData> {
    let id = approval_in(visit, state)
        .ok_or_else(|| ErrorData::invalid_params("requestState: it was not given to this client", None))?;
    let Some(answer) = responses.and_then(|mut responses| responses.remove(KEY)) else {
        return Ok(again(visit, &id));
    };
    let answer: ElicitResult = serde_json::from_value(answer).map_err(|_| {
        ErrorData::invalid_params("inputResponses: expected the result of an elicitation", None)
    })?;
    let may_decide = visit.caller.scopes.grants(DECIDE);
    if !take(visit, &id, answer, may_decide).await? {
        return Ok(Next::GiveUp);
    }
    decided(visit, &id).await;
    Ok(again(visit, &id))
}

/// Takes an answer; whether the call goes on.
async fn take(
    visit: &Visit,
    id: &ApprovalId,
    answer: ElicitResult,
    may_decide: bool,
) -> Result<bool, ErrorData> {
    let content = answer.content.unwrap_or_default();
    let verdict = match answer.action {
        _ if !may_decide => return Ok(answer.action == ElicitationAction::Accept),
        ElicitationAction::Accept if content["approve"] == Value::Bool(true) => {
            Verdict::Approve { amount: None, ttl_s: None }
        }
        ElicitationAction::Accept | ElicitationAction::Decline => Verdict::Deny,
        _ => return Ok(false),
    };
    let note = content["note"].as_str().unwrap_or_default().chars().take(NOTE_CHARS_MAX).collect();
    let decision = Decision { verdict, decided_by: format!("mcp:{}", visit.caller.prefix), note };
    // It may have been decided elsewhere meanwhile: then that counts.
    match approvals::decide(&visit.app, &visit.caller, id.as_str(), decision, None).await {
        Ok(_) | Err(OperationError::Conflict { .. }) => Ok(true),
        Err(error) => Err(refused(&error)),
    }
}

/// Waits until a request is decided or has expired, telling the client that it still waits.
async fn decided(visit: &Visit, id: &ApprovalId) {
    let token = visit.meta.get_progress_token();
    let wait = async {
        let mut waited = 0.0;
        loop {
            approvals::wait(&visit.app, &visit.caller.tenant, id.as_str(), SIGN_OF_LIFE).await;
            if status(visit, id) != "pending" {
                return;
            }
            waited += SIGN_OF_LIFE.as_secs_f64();
            if let Some(token) = token.clone() {
                let message = format!("waiting for the approval {id}");
                let progress = ProgressNotificationParam::new(token, waited).with_message(message);
                let _ = visit.peer.notify_progress(progress).await;
            }
        }
    };
    let _ = tokio::time::timeout(WAIT_MAX, wait).await;
}

/// What became of a request so far.
fn status(visit: &Visit, id: &ApprovalId) -> &'static str {
    let now = visit.app.ledger.clock().now();
    let found = visit.app.with_tenant(&visit.caller.tenant, |tenant| {
        tenant.approvals.get(id).map(|approval| approvals::status_name(approval, now))
    });
    found.ok().flatten().unwrap_or_default()
}

/// What the client can be asked.
fn question(visit: &Visit, denied: &DeniedCall, id: &ApprovalId) -> Option<Question> {
    let elicitation = visit.capabilities.elicitation.as_ref()?;
    let takes_forms = elicitation.form.is_some() || elicitation.url.is_none();
    if !takes_forms {
        return None;
    }
    let what = format!("{} (request {id})", denied.sentence);
    if visit.caller.scopes.grants(DECIDE) {
        let schema = json!({
            "type": "object",
            "properties": {
                "approve": {"type": "boolean", "title": "Approve", "description": "Whether the call may be made"},
                "note": {"type": "string", "title": "Note", "description": "What is recorded with the decision", "maxLength": NOTE_CHARS_MAX},
            },
            "required": ["approve"],
        });
        return form(format!("Haldir: {what}. Approve it?"), schema).map(Question::Decide);
    }
    let message = format!(
        "Haldir: {what}. Somebody who may decide has to approve it, for example with: haldir approvals approve {id}. Accept to \
         wait for the decision."
    );
    form(message, json!({"type": "object", "properties": {}})).map(Question::Wait)
}

fn form(message: String, schema: Value) -> Option<ElicitRequestParams> {
    let requested_schema = serde_json::from_value(schema).ok()?;
    Some(ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema })
}

fn input_required(visit: &Visit, question: Question, id: &ApprovalId) -> InputRequiredResult {
    let (Question::Decide(params) | Question::Wait(params)) = question;
    let request = InputRequest::Elicitation(ElicitRequest::new(params));
    let requests = [(KEY.to_owned(), request)].into_iter().collect();
    InputRequiredResult::new(Some(requests), Some(state_of(visit, id)))
}

/// The state that says for which approval a call waits, sealed for this caller.
fn state_of(visit: &Visit, id: &ApprovalId) -> String {
    format!("{STATE_PREFIX}{id}.{}", BASE64URL_NOPAD.encode(&seal(visit, id)))
}

fn approval_in(visit: &Visit, state: &str) -> Option<ApprovalId> {
    let (id, given) = state.strip_prefix(STATE_PREFIX)?.split_once('.')?;
    let id = ApprovalId::parse(id)?;
    let given = BASE64URL_NOPAD.decode(given.as_bytes()).ok()?;
    bool::from(seal(visit, &id).ct_eq(&given)).then_some(id)
}

fn seal(visit: &Visit, id: &ApprovalId) -> [u8; 32] {
    let caller = &visit.caller;
    let parts = [caller.tenant.as_str(), caller.prefix.as_str(), &visit.session_id, id.as_str()];
    visit.app.retry_secret.request_state_mac(&parts)
}
