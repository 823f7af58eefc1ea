//! The whole state of a tenant at a moment: who may do what, and what was spent.

mod proxy;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::anomalies::{self, RuleRow};
use super::approvals::{self, ApprovalRow, RuleView};
use super::budgets::{self, BudgetView, ReservationRow};
use super::keys::{self, KeyRow};
use super::past::Moment;
use super::policy_json;
use super::schedules::{self, ScheduleRow};
use super::secrets::{self, SecretRow};
use super::sessions::{SessionRow, row};
use super::webhooks::{self, WebhookRow};
use crate::domain::sessions::Standing;
use proxy::{OpenCallState, UpstreamState};

/// Everything that is true of a tenant at a moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct State {
    /// Entries that it is folded from.
    pub size: u64,
    /// Hash of the last of them.
    pub head: String,
    /// The moment.
    pub at: String,
    /// API keys, newest first, revoked ones included.
    pub keys: Vec<KeyRow>,
    /// Sessions, newest first, ended ones included.
    pub sessions: Vec<StandingSession>,
    /// Agents that hold a live session.
    pub live_agents: Vec<String>,
    /// Secrets, by name, without their values.
    pub secrets: Vec<SecretRow>,
    /// Caps on what sessions, agents and the tenant may spend, and how far they are used.
    pub budgets: Vec<BudgetView>,
    /// What is set aside for payments, by id.
    pub reservations: Vec<ReservationRow>,
    /// Rules about what needs an approval.
    pub approval_rules: Vec<RuleView>,
    /// Requests for approvals, by id.
    pub approvals: Vec<ApprovalRow>,
    /// Upstreams of the proxy, by name.
    pub upstreams: Vec<UpstreamState>,
    /// Policies in the order in which they are tried: each with its `type`, its parameters and its `policy_id`.
    #[schema(value_type = Vec<Object>)]
    pub policies: Vec<Box<RawValue>>,
    /// How often the set of policies was changed.
    pub policy_revision: u64,
    /// Calls without an outcome, by id.
    pub open_calls: Vec<OpenCallState>,
    /// Calls that were authorised.
    pub calls_authorized: u64,
    /// Calls that were denied.
    pub calls_denied: u64,
    /// Actions that were logged.
    pub actions_logged: u64,
    /// Anomaly rules, in the order of their adding.
    pub anomaly_rules: Vec<RuleRow>,
    /// What they and those before them found.
    pub anomalies_detected: u64,
    /// The key that signs the stream, hex, if it was ever rotated.
    pub signer: Option<String>,
    /// How often the stream was rebuilt after damage.
    pub repairs: u64,
    /// Schedules of evidence packs, newest first.
    pub schedules: Vec<ScheduleRow>,
    /// Webhooks, in the order of their registration.
    pub webhooks: Vec<WebhookRow>,
}

/// A session, and how it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct StandingSession {
    /// The session.
    pub session: SessionRow,
    /// `live`, `revoked` or `expired`.
    pub standing: &'static str,
}

/// Everything that is true at a moment.
#[must_use]
pub fn of(moment: &Moment) -> State {
    let (stream, at) = (&moment.stream, moment.at);
    let tenant = &stream.tenant;
    let sessions = tenant.sessions.newest_first().map(|(session_id, session)| StandingSession {
        session: row(moment, session_id, session),
        standing: match moment.standing_of(session) {
            Standing::Live => "live",
            Standing::Revoked => "revoked",
            Standing::Expired => "expired",
        },
    });
    State {
        size: stream.head.size,
        head: stream.head.hash.to_string(),
        at: at.to_string(),
        keys: keys::list(moment).keys,
        sessions: sessions.collect(),
        live_agents: tenant.sessions.live_agents(at).iter().map(ToString::to_string).collect(),
        secrets: tenant.secrets.all().map(|(name, secret)| secrets::row(name, secret)).collect(),
        budgets: budgets::list(moment).budgets,
        reservations: budgets::reservations(moment),
        approval_rules: approvals::rules(moment).rules,
        approvals: approvals::rows(moment),
        upstreams: tenant.upstreams.all().map(|(name, it)| proxy::upstream(name, it)).collect(),
        policies: tenant.policies.all().map(|(id, policy)| policy_json::numbered(id, policy)).collect(),
        policy_revision: tenant.policies.revision(),
        open_calls: tenant.calls.open().map(|(id, call)| proxy::open_call(id, call)).collect(),
        calls_authorized: tenant.calls.authorized(),
        calls_denied: tenant.calls.denied(),
        actions_logged: tenant.audit.logged,
        anomaly_rules: anomalies::rules(moment).rules,
        anomalies_detected: tenant.anomalies.detected(),
        signer: tenant.custody.signer().map(|key| HEXLOWER.encode(key)),
        repairs: tenant.custody.repairs(),
        schedules: schedules::rows(moment),
        webhooks: webhooks::list(moment).webhooks,
    }
}
