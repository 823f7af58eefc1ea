//! Policies: add, remove, replace, list, and explain what they say of a call.

use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::ToSchema;

use super::call_facts::zone;
use super::calls::{CallRequest, prepare_to_explain};
use super::past::Moment;
use super::policy_json::numbered;
use super::retries::Retry;
use super::wire::Usd;
use super::{App, Caller, OperationError, only_event};
use crate::domain::calls::{self, CallDenied, Explained};
use crate::domain::policies::{AddPolicy, ArgumentTest, Policy, RemovePolicy, ReplacePolicies, Step};
use crate::domain::{Command, Event, Refusal};

/// A policy that was added.
#[derive(Debug, Serialize, ToSchema)]
pub struct AddedPolicy {
    /// Always true.
    pub added: bool,
    /// Its type.
    pub r#type: String,
    /// Its number among the tenant's policies.
    pub policy_id: u64,
    /// The revision of the set with it.
    pub revision: u64,
}

/// A policy that was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RemovedPolicy {
    /// Always true.
    pub removed: bool,
    /// Which one.
    pub policy_id: u64,
}

/// The tenant's policies.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyList {
    /// In the order in which they are tried: each with its `type`, its parameters and its `policy_id`.
    #[schema(value_type = Vec<Object>)]
    pub policies: Vec<Box<RawValue>>,
    /// How many there are.
    pub count: usize,
    /// How often the set was changed.
    pub revision: u64,
}

/// What would be decided about a call, and why.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// `authorized`, `denied` or `approval_required`.
    pub verdict: &'static str,
    /// Why, for programs; empty for a call that would be authorised.
    pub code: &'static str,
    /// Why, in words.
    pub reason: String,
    /// The policy that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<u64>,
    /// The upstream that would be called; empty when no upstream has the tool.
    pub upstream: String,
    /// The upstream's name for what is called.
    pub tool: String,
    /// What the call would cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<Usd>,
    /// The revision of the policies.
    pub revision: u64,
    /// What each policy says, in order.
    pub steps: Vec<StepView>,
}

/// What one policy says of a call.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepView {
    /// Which policy.
    pub policy_id: u64,
    /// Its type.
    pub r#type: &'static str,
    /// `denies`, `wants_approval`, `prices`, `redacts`, `passes`, or `elsewhere` when it is about other calls.
    pub says: &'static str,
    /// Why it denies; what it says the call costs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub because: String,
}

/// Checks what a policy names: its zone and its pattern.
///
/// # Errors
///
/// [`OperationError::Invalid`].
pub fn check(app: &App, policy: &Policy) -> Result<(), OperationError> {
    match policy {
        Policy::TimeWindow { zone: name, .. } if zone(name).is_none() => {
            let expected = "expected the name of a zone in the IANA database, such as Europe/Berlin";
            Err(OperationError::invalid("timezone", expected))
        }
        Policy::Argument {
            test: ArgumentTest::Match(pattern) | ArgumentTest::DenyMatch(pattern), ..
        } => {
            let checked =
                app.patterns.get(pattern).and_then(|_| app.patterns.get(&format!("^(?:{pattern})$")));
            checked.map(|_| ()).map_err(|why| OperationError::invalid("pattern", why))
        }
        _ => Ok(()),
    }
}

/// Adds a policy behind the others.
///
/// # Errors
///
/// [`OperationError::Invalid`]; [`OperationError::Conflict`] when there are as many as may be.
pub async fn add(
    app: &App,
    caller: &Caller,
    policy: Policy,
    retry: Option<&Retry>,
) -> Result<AddedPolicy, OperationError> {
    check(app, &policy)?;
    let receipt = app.submit(caller, Command::AddPolicy(AddPolicy { policy }), retry, vec![]).await?;
    let Event::PolicyAdded(added) = &only_event(&receipt)?.recorded.event else {
        return Err(OperationError::unexpected(&receipt));
    };
    Ok(AddedPolicy {
        added: true,
        r#type: added.policy.type_name().to_owned(),
        policy_id: added.policy_id,
        revision: added.revision,
    })
}

/// Removes a policy.
///
/// # Errors
///
/// [`OperationError::NotFound`].
pub async fn remove(app: &App, caller: &Caller, policy_id: u64) -> Result<RemovedPolicy, OperationError> {
    app.submit(caller, Command::RemovePolicy(RemovePolicy { policy_id }), None, vec![]).await?;
    Ok(RemovedPolicy { removed: true, policy_id })
}

/// Puts another set in place of the whole one, in one step.
///
/// # Errors
///
/// [`OperationError::Invalid`]; [`OperationError::Conflict`] when the set is not the one that was expected.
pub async fn replace(
    app: &Arc<App>,
    caller: &Caller,
    policies: Vec<Policy>,
    expected: Option<u64>,
) -> Result<PolicyList, OperationError> {
    policies.iter().try_for_each(|policy| check(app, policy))?;
    let command = Command::ReplacePolicies(ReplacePolicies { policies, expected });
    app.submit(caller, command, None, vec![]).await?;
    Ok(list(&app.moment(&caller.tenant, None).await?))
}

/// Lists the policies in the order in which they are tried.
#[must_use]
pub fn list(moment: &Moment) -> PolicyList {
    let set = &moment.stream.tenant.policies;
    let policies: Vec<_> = set.all().map(|(policy_id, policy)| numbered(policy_id, policy)).collect();
    PolicyList { count: policies.len(), policies, revision: set.revision() }
}

/// Tells what would be decided about a call, and why. Nothing is called, recorded or used up.
///
/// # Errors
///
/// [`OperationError::SessionDead`] for sessions that do not exist; [`OperationError::Invalid`].
pub fn explain(app: &App, caller: &Caller, request: CallRequest) -> Result<Explanation, OperationError> {
    let command = prepare_to_explain(app, caller, request)?;
    let now = app.ledger.clock().now();
    let explained = app.with_tenant(&caller.tenant, |tenant| {
        let steps = tenant.policies.all().map(|(id, policy)| (id, policy.type_name()));
        let steps: Vec<_> = steps.collect();
        calls::explain(tenant, now, &command).map(|explained| (explained, steps))
    })?;
    let (Explained { judgement, events }, types) = explained.map_err(|refusal| match refusal {
        Refusal::SessionUnknown => OperationError::SessionDead,
        Refusal::CallStale | Refusal::SecretMoved => OperationError::Busy,
        refusal => crate::ledger::LedgerError::Refused(refusal).into(),
    })?;
    let (verdict, code, reason, policy_id) = match events.first() {
        Some(Event::CallDenied(denied)) => told(denied, judgement.denied.map(|(_, why)| why)),
        _ => ("authorized", "", "nothing stands in the way".to_owned(), None),
    };
    let (upstream, tool) = match events.first() {
        Some(Event::CallDenied(denied)) => {
            (denied.upstream.as_ref().map(ToString::to_string).unwrap_or_default(), denied.name.clone())
        }
        Some(Event::CallAuthorized(call)) => (call.upstream.to_string(), call.name.clone()),
        _ => (String::new(), command.name),
    };
    let steps = judgement.steps.iter().zip(types).map(|((policy_id, step), (_, r#type))| {
        let (says, because) = match step {
            Step::Elsewhere => ("elsewhere", String::new()),
            Step::Passes => ("passes", String::new()),
            Step::Denies(why) => ("denies", (*why).to_owned()),
            Step::WantsApproval => ("wants_approval", String::new()),
            Step::Prices(amount) => ("prices", amount.to_string()),
            Step::Redacts => ("redacts", String::new()),
        };
        StepView { policy_id: *policy_id, r#type, says, because }
    });
    Ok(Explanation {
        verdict,
        code,
        reason,
        policy_id,
        upstream,
        tool,
        price: judgement.price.map(Usd),
        revision: command.facts.revision,
        steps: steps.collect(),
    })
}

fn told(denied: &CallDenied, why: Option<&str>) -> (&'static str, &'static str, String, Option<u64>) {
    use crate::domain::calls::CallDenial::{ApprovalRequired, Policy, SessionExpired, SessionRevoked};
    let verdict = if denied.reason == ApprovalRequired { "approval_required" } else { "denied" };
    let reason = match denied.reason {
        Policy => why.unwrap_or_default().to_owned(),
        SessionRevoked => "the session was revoked".to_owned(),
        SessionExpired => "the session has expired".to_owned(),
        _ => super::calls::sentence_of(denied),
    };
    (verdict, super::decoded::call_denial_name(denied.reason), reason, denied.policy_id)
}
