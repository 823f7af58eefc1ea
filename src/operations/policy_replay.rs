//! Runs a set of policies over the calls of the past, to see what it would have decided otherwise before it is applied.
//!
//! Arguments are the ones that were written down: where they were not kept, or were redacted, a rule about them cannot be held
//! against the call as it was, and the answer says so. What stands in a call's way besides policies stays as it was.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::call_facts::facts;
use super::wire::Epoch;
use super::{App, Caller, OperationError, blocking, policies};
use crate::domain::calls::{AUDIT_ACTION, CallDenial, Method, policy_name};
use crate::domain::id::{AgentId, CallId, TenantId};
use crate::domain::policies::{Policies, Policy, Price, Subject, judge};
use crate::domain::time::Timestamp;
use crate::domain::upstreams::UpstreamName;
use crate::domain::{Event, Recorded};
use crate::format::chain::DETAILS_SALT_LEN;
use crate::format::entry;
use crate::ledger::past::size_at;
use crate::store::SideKind;

/// Entries read at once.
const PAGE_LEN: usize = 1000;
/// Differences listed at most; all are counted.
pub const DIFFERENCES_LEN_MAX: usize = 1000;

/// What a set of policies would have decided.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyReplay {
    /// Calls that were looked at.
    pub calls: u64,
    /// Calls about which it would have decided otherwise.
    pub different: u64,
    /// Calls whose arguments were not kept as they were, and about which the set has rules.
    pub uncertain: u64,
    /// The differences, oldest first, at most 1,000.
    pub differences: Vec<Difference>,
}

/// A call about which another decision would have been taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct Difference {
    /// The call.
    pub call_id: String,
    /// Its place in the stream.
    pub seq: u64,
    /// When it was decided.
    pub timestamp: Epoch,
    /// Who called.
    pub agent_id: String,
    /// What was called: `upstream.tool`.
    pub tool: String,
    /// What was decided: `authorized`, `denied` or `approval_required`.
    pub was: &'static str,
    /// The policy that decided then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was_policy_id: Option<u64>,
    /// What would have been decided.
    pub would_be: &'static str,
    /// The policy of the new set that would have decided: its place, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_be_policy: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub because: &'static str,
    /// Whether the arguments are not the ones that the call had.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub uncertain: bool,
}

/// Runs a set over the calls from one moment to another.
///
/// # Errors
///
/// [`OperationError::Invalid`] for policies that cannot be; [`OperationError::Unavailable`].
pub async fn replay(
    app: Arc<App>,
    caller: &Caller,
    set: Vec<Policy>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<PolicyReplay, OperationError> {
    set.iter().try_for_each(|policy| policies::check(&app, policy))?;
    let tenant = caller.tenant.clone();
    let size = app.with_stream(&tenant, |stream| stream.head.size)?;
    blocking(move || {
        let store = &**app.ledger.store();
        let place = |at: Option<Timestamp>, otherwise: u64| match at {
            Some(at) => size_at(store, &tenant, size, at).map_err(OperationError::from),
            None => Ok(otherwise),
        };
        let (first, end) = (place(from, 0)?, place(to, size)?);
        let mut run = Run {
            app: &app,
            tenant: &tenant,
            set: Policies::of(set),
            recent: BTreeMap::new(),
            told: PolicyReplay { calls: 0, different: 0, uncertain: 0, differences: Vec::new() },
        };
        let mut next = first;
        while next < end {
            let count = usize::try_from(end - next).unwrap_or(PAGE_LEN).min(PAGE_LEN);
            let page = store.read(&tenant, next, count)?;
            if page.is_empty() {
                break;
            }
            for bytes in page {
                let opened = entry::open(&bytes);
                let opened = opened.map_err(|error| OperationError::Unavailable(error.to_string()))?;
                next = opened.recorded.seq + 1;
                run.look_at(&opened.recorded)?;
            }
        }
        Ok(run.told)
    })
    .await
}

struct Run<'a> {
    app: &'a App,
    tenant: &'a TenantId,
    set: Policies,
    /// When agents would have acted in the last minute.
    recent: BTreeMap<AgentId, VecDeque<Timestamp>>,
    told: PolicyReplay,
}

/// A call of the past.
struct Past<'a> {
    call_id: &'a CallId,
    agent_id: &'a AgentId,
    method: Method,
    upstream: &'a UpstreamName,
    name: &'a str,
    was: &'static str,
    was_policy_id: Option<u64>,
    /// Whether it was approved, so that a wish for an approval makes no difference.
    is_approved: bool,
}

impl Run<'_> {
    fn look_at(&mut self, recorded: &Recorded) -> Result<(), OperationError> {
        match &recorded.event {
            // What agents log themselves counts for limits of calls.
            Event::ActionLogged(action) if action.action != AUDIT_ACTION => {
                self.count(&action.agent_id, recorded.at);
            }
            Event::CallAuthorized(it) => {
                let call = Past {
                    call_id: &it.call_id,
                    agent_id: &it.agent_id,
                    method: it.method,
                    upstream: &it.upstream,
                    name: &it.name,
                    was: "authorized",
                    was_policy_id: None,
                    is_approved: it.approval_id.is_some(),
                };
                self.hold_against(recorded, &call)?;
            }
            Event::CallDenied(it) => {
                let was = match it.reason {
                    CallDenial::Policy => "denied",
                    CallDenial::ApprovalRequired => "approval_required",
                    // Whatever the policies say, this stood in the way.
                    _ => return Ok(()),
                };
                let Some(upstream) = &it.upstream else { return Ok(()) };
                let call = Past {
                    call_id: &it.call_id,
                    agent_id: &it.agent_id,
                    method: it.method,
                    upstream,
                    name: &it.name,
                    was,
                    was_policy_id: it.policy_id,
                    is_approved: false,
                };
                self.hold_against(recorded, &call)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn hold_against(&mut self, recorded: &Recorded, call: &Past<'_>) -> Result<(), OperationError> {
        let name = policy_name(call.method, call.upstream, call.name);
        let kept = self.arguments(call.call_id)?;
        let asks_arguments = self.set.all().any(|(_, policy)| match policy {
            Policy::Argument { .. } | Policy::Price { price: Price::Argument(_), .. } => {
                policy.is_about(&name)
            }
            Policy::SpendLimit { .. } | Policy::RequireApproval { above: Some(_), .. } => true,
            _ => false,
        });
        let is_redacted = |arguments: &Map<String, Value>| {
            arguments.values().any(|value| value.to_string().contains("[redacted "))
        };
        let uncertain = asks_arguments && kept.as_ref().is_none_or(is_redacted);
        let facts = facts(&self.set, &self.app.patterns, &name, &kept.unwrap_or_default(), recorded.at);
        let recent = self.recent(call.agent_id, recorded.at);
        let judgement = judge(&self.set, Subject { name: &name, facts: &facts, recent });
        let (would_be, policy, because) = match (judgement.denied, judgement.approval) {
            (Some((policy, why)), _) => ("denied", Some(policy), why),
            (None, Some((policy, _))) if !call.is_approved => ("approval_required", Some(policy), ""),
            // Rules about approvals are not policies, and still hold.
            (None, _) if call.was == "approval_required" && call.was_policy_id.is_none() => {
                (call.was, None, "")
            }
            (None, _) => ("authorized", None, ""),
        };
        if would_be == "authorized" {
            self.count(call.agent_id, recorded.at);
        }
        self.told.calls += 1;
        self.told.uncertain += u64::from(uncertain);
        if would_be != call.was {
            self.told.different += 1;
            if self.told.differences.len() < DIFFERENCES_LEN_MAX {
                self.told.differences.push(Difference {
                    call_id: call.call_id.to_string(),
                    seq: recorded.seq,
                    timestamp: Epoch(recorded.at),
                    agent_id: call.agent_id.to_string(),
                    tool: name,
                    was: call.was,
                    was_policy_id: call.was_policy_id,
                    would_be,
                    would_be_policy: policy,
                    because,
                    uncertain,
                });
            }
        }
        Ok(())
    }

    /// The arguments of a call as they were written down; `None` when they were not, or were erased.
    fn arguments(&self, call_id: &CallId) -> Result<Option<Map<String, Value>>, OperationError> {
        let id = call_id.as_str().as_bytes();
        let stored = self.app.ledger.store().side(self.tenant, SideKind::CallArguments, id)?;
        let text = stored.as_deref().and_then(|stored| stored.get(DETAILS_SALT_LEN..));
        let kept: Option<Value> = text.and_then(|text| serde_json::from_slice(text).ok());
        Ok(kept.and_then(|mut kept| match kept["arguments"].take() {
            Value::Object(arguments) => Some(arguments),
            _ => None,
        }))
    }

    fn recent(&mut self, agent_id: &AgentId, at: Timestamp) -> u64 {
        let Some(times) = self.recent.get_mut(agent_id) else { return 0 };
        let since = at.micros().saturating_sub(60_000_000);
        while times.front().is_some_and(|time| time.micros() <= since) {
            times.pop_front();
        }
        times.len() as u64
    }

    fn count(&mut self, agent_id: &AgentId, at: Timestamp) {
        if self.set.limits_rates() {
            self.recent.entry(agent_id.clone()).or_default().push_back(at);
        }
    }
}
