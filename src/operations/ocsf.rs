//! Ledger entries as events of the Open Cybersecurity Schema Framework, OCSF 1.9.0, for collectors that speak it.
//!
//! Each entry becomes one line of JSON. It says what the entry says in the words of OCSF, and carries the entry itself:
//! `raw_data` is the base64 of its exact bytes. The line is a function of those bytes alone, so whoever has them can
//! verify the entry and derive the line again.
//!
//! | Event | Class, activity | Why |
//! |---|---|---|
//! | `key.minted` | User Management 3007, Create | A key is who acts: the `user` of every later event. Account Change 3001 is deprecated in its favour |
//! | `key.revoked` | User Management 3007, Disable | It stays known, and may do nothing any more |
//! | `session.opened` | Authorize Session 3003, Assign Privileges | An agent gets a session with scopes |
//! | `session.denied` | Entity Management 3004, Create, failed | No session, so no privileges that 3003 could name |
//! | `session.revoked` | Entity Management 3004, Deactivate | 3003 does not know the end of a session, and 3002 needs a user who logs off |
//! | `access.denied` | API Activity 6003, Other, failed | A call that was turned away |
//! | `permission.checked` | API Activity 6003, Other | A call that asks for a decision |
//! | `delegation.denied` | Entity Management 3004, Create, failed | As `session.denied` |
//! | `payment.authorized`, `payment.denied`, `payment.reserved` | API Activity 6003, Create | A call that creates an authorisation; OCSF has no class for money |
//! | `payment.settled`, `payment.released`, `settlement.denied` | API Activity 6003, Update | A call that changes one |
//! | `budget.set` | Entity Management 3004, Update | A cap is an entity of the tenant's |
//! | `approval_rule.added`, `approval_rule.removed` | Entity Management 3004, Create and Delete | So is a rule |
//! | `approval.requested` | API Activity 6003, Create | A call that creates a request |
//! | `approval.granted`, `approval.denied`, `approval.expired` | API Activity 6003, Update | What becomes of it; OCSF has no class for decisions of people |
//! | `action.logged`, `action.rejected` | API Activity 6003, Other | An agent's use of a tool; what it does to the tool's data is not known |
//! | `schedule.created`, `schedule.removed` | Entity Management 3004, Create, Delete | A schedule of evidence packs is managed like any entity |
//! | `schedule.ran` | API Activity 6003, Other | A pack is handed to whoever is to have it; failed when it was not |
//! | `secret.stored` | API Activity 6003, Create | A call that creates a version of a secret |
//! | `secret.read`, `secret.denied` | API Activity 6003, Read | A call that asks for a value |
//! | `secret.deleted` | API Activity 6003, Delete | A call that erases |
//! | `vault.rotated` | Entity Management 3004, Update | A master key takes over; no value changes |
//! | `upstream.registered`, `tools.observed`, `tool.accepted`, `upstream.removed` | Entity Management 3004, Create, Update, Update, Delete | An MCP server is managed, and so is which of its tools are trusted |
//! | `policy.added`, `policy.removed` | Entity Management 3004, Create and Delete | A policy is an entity too |
//! | `call.authorized`, `call.denied`, `call.completed` | API Activity 6003, Other | A call of an upstream; what it does to the upstream's data is not known |
//! | `usage.metered` | Base Event 0, Other | Bookkeeping of many calls at once |
//! | `webhook.registered`, `webhook.rotated`, `webhook.removed` | Entity Management 3004, Create, Update, Delete | A hook is what is managed |
//! | `webhook.attempted`, `webhook.redelivered`, `webhook.tested` | API Activity 6003, Other | A call to the receiver, or the wish for one |
//! | `anomaly_rule.added` | Entity Management 3004, Create | A rule is an entity that is managed |
//! | `anomaly_rule.removed` | Entity Management 3004, Delete | Its number is never given again |
//! | `anomaly.detected` | Detection Finding 2004, Create | A rule found something: its analytic; the evidence are its related events |
//!
//! What has no attribute is under `unmapped`. Where an agent acts, the profile `ai_operation` names it; findings do not have that
//! profile, and name it among their `resources`.
//!
//! The profile `record_integrity` attests the entry, not its translation. Its `fingerprint` is the entry's hash, over the
//! bytes of `raw_data` without the last 104; `prev_event` is the entry before it; `authority_uid` is the key id, and
//! `chain_uid` names the stream. `serialization` names how the bytes for hash and signature come about in ledger-format.md. OCSF 1.9.0 has an attribute for what was signed, but none for the signature: it stands
//! under `unmapped`, and in the last 64 bytes of `raw_data`. See "Entry" in ledger-format.md.

mod approvals;
mod payments;
mod proxy;
mod secrets;
mod webhooks;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Map, Value, json};

use super::decoded::event_json;
use super::wire::without_line_ends;
use crate::domain::Event;
use crate::domain::anomalies::AnomalyDetected;
use crate::domain::anomalies::rule::RuleType;
use crate::domain::audit::{ActionLogged, ActionRejected, ActionRejection};
use crate::domain::compliance::ScheduleRan;
use crate::domain::id::{Actor, AgentId, ScheduleId, SessionId};
use crate::domain::keys::{KeyMinted, KeyRevoked};
use crate::domain::money::Money;
use crate::domain::sessions::{PermissionChecked, SessionDenied, SessionOpened, SessionRevoked, Verdict};
use crate::domain::time::Timestamp;
use crate::domain::usage::UsageMetered;
use crate::format::entry::Entry;

/// The version of OCSF that the lines follow.
pub const OCSF_VERSION: &str = "1.9.0";

/// An event class of OCSF.
#[derive(Debug, Clone, Copy)]
enum Class {
    Base,
    AuthorizeSession,
    EntityManagement,
    UserManagement,
    ApiActivity,
    DetectionFinding,
}

/// What an event becomes.
struct Mapped {
    class: Class,
    /// `activity_id` and its caption, which the class gives, or with 99 our own.
    activity: (u64, &'static str),
    outcome: Outcome,
    /// The agent that acts, where the event names it.
    agent: Option<AgentId>,
    /// The session in which it acts.
    session: Option<SessionId>,
    /// The attributes of the class, nulls for those that are absent.
    attributes: Value,
}

/// How it ended.
enum Outcome {
    /// Well.
    Success,
    /// Well, but somebody should look at it.
    Flagged(String),
    /// With a no, and why.
    Failure(String),
}

/// An entry as one OCSF event: compact JSON without a line end. `bytes` are the entry's own.
#[must_use]
pub fn line(entry: &Entry, bytes: &[u8]) -> String {
    let recorded = &entry.recorded;
    let mapped = map(entry);
    let (class_uid, class_name) = mapped.class.uid_and_name();
    let (category_uid, category_name) = mapped.class.category();
    let (activity_id, activity_name) = mapped.activity;
    let (status_id, status, severity_id, severity, detail) = match &mapped.outcome {
        Outcome::Success => (1, "Success", 1, "Informational", None),
        Outcome::Flagged(why) => (1, "Success", 3, "Medium", Some(why)),
        Outcome::Failure(why) => (2, "Failure", 2, "Low", Some(why)),
    };
    let time = millis(recorded.at);
    let mut event = json!({
        "activity_id": activity_id,
        "activity_name": activity_name,
        "category_uid": category_uid,
        "category_name": category_name,
        "class_uid": class_uid,
        "class_name": class_name,
        "type_uid": class_uid * 100 + activity_id,
        "type_name": format!("{class_name}: {activity_name}"),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "status_detail": detail,
        "time": time,
        "metadata": {
            "version": OCSF_VERSION,
            "product": { "name": "Haldir", "vendor_name": "Haldir" },
            "profiles": mapped.profiles(),
            "uid": uid(entry, recorded.seq),
            "sequence": recorded.seq,
            "tenant_uid": entry.tenant.as_str(),
            "event_code": recorded.event.kind_name(),
            "correlation_uid": recorded.request_id.as_str(),
            "logged_time": time,
            "original_time": recorded.at.to_string(),
        },
        "ai_agent": mapped.agent.as_ref().map(|agent| json!({ "uid": agent.as_str() })),
        "attestation_list": [attestation(entry)],
        "raw_data": BASE64.encode(bytes),
        "raw_data_size": bytes.len(),
        "unmapped": { "signature": HEXLOWER.encode(&entry.signature), "rules_revision": recorded.rules },
    });
    if !matches!(mapped.class, Class::Base | Class::DetectionFinding) {
        event["actor"] = actor(&recorded.actor, mapped.session.as_ref());
    }
    if let Class::ApiActivity = mapped.class {
        // The ledger knows no addresses. It knows the credential that a call came with.
        event["src_endpoint"] = json!({ "uid": recorded.actor.to_string() });
    }
    merge(&mut event, mapped.attributes);
    if let Some(operation) = event.get_mut("api") {
        operation["request"] = json!({ "uid": recorded.request_id.as_str() });
    }
    drop_nulls(&mut event);
    without_line_ends(event.to_string())
}

impl Class {
    const fn uid_and_name(self) -> (u64, &'static str) {
        match self {
            Self::Base => (0, "Base Event"),
            Self::AuthorizeSession => (3003, "Authorize Session"),
            Self::EntityManagement => (3004, "Entity Management"),
            Self::UserManagement => (3007, "User Management"),
            Self::ApiActivity => (6003, "API Activity"),
            Self::DetectionFinding => (2004, "Detection Finding"),
        }
    }

    const fn category(self) -> (u64, &'static str) {
        match self {
            Self::Base => (0, "Uncategorized"),
            Self::AuthorizeSession | Self::EntityManagement | Self::UserManagement => {
                (3, "Identity & Access Management")
            }
            Self::ApiActivity => (6, "Application Activity"),
            Self::DetectionFinding => (2, "Findings"),
        }
    }
}

impl Mapped {
    fn new(class: Class, activity: (u64, &'static str), attributes: Value) -> Self {
        Self { class, activity, outcome: Outcome::Success, agent: None, session: None, attributes }
    }

    fn failed(self, why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failure(why.into()), ..self }
    }

    fn by(self, agent: &AgentId) -> Self {
        Self { agent: Some(agent.clone()), ..self }
    }

    fn within(self, session: &SessionId) -> Self {
        Self { session: Some(session.clone()), ..self }
    }

    fn profiles(&self) -> Vec<&'static str> {
        let mut profiles = vec!["record_integrity"];
        if self.agent.is_some() {
            profiles.insert(0, "ai_operation");
        }
        profiles
    }
}

fn map(entry: &Entry) -> Mapped {
    let recorded = &entry.recorded;
    match &recorded.event {
        Event::KeyMinted(event) => key_minted(event),
        Event::KeyRevoked(event) => key_revoked(event),
        Event::AccessDenied(event) => {
            let attributes = json!({
                "api": { "operation": event.operation },
                "unmapped": { "required_scope": event.required },
            });
            Mapped::new(Class::ApiActivity, (99, "Call"), attributes)
                .failed("the key lacks the required scope")
        }
        Event::SessionOpened(event) => session_opened(event, recorded.at),
        Event::SessionDenied(event) => session_denied(event),
        Event::SessionRevoked(event) => session_revoked(event),
        Event::PermissionChecked(event) => permission_checked(event),
        Event::DelegationDenied(event) => payments::delegation_denied(event),
        Event::PaymentAuthorized(event) => payments::authorized(event),
        Event::PaymentDenied(event) => payments::denied(event),
        Event::PaymentReserved(event) => payments::reserved(event),
        Event::PaymentSettled(event) => payments::settled(event),
        Event::PaymentReleased(event) => payments::released(event),
        Event::SettlementDenied(event) => payments::settlement_denied(event),
        Event::BudgetSet(event) => payments::budget_set(event),
        Event::ApprovalRuleAdded(event) => approvals::rule_added(event),
        Event::ApprovalRuleRemoved(event) => approvals::rule_removed(event),
        Event::ApprovalRequested(event) => approvals::requested(event),
        Event::ApprovalGranted(event) => approvals::granted(event),
        Event::ApprovalDenied(event) => approvals::denied(event),
        Event::ApprovalExpired(event) => approvals::expired(event),
        Event::SecretStored(event) => secrets::stored(event),
        Event::SecretRead(event) => secrets::read(event),
        Event::SecretDenied(event) => secrets::denied(event),
        Event::SecretDeleted(event) => secrets::deleted(event),
        Event::VaultRotated(event) => secrets::rotated(event),
        Event::UpstreamRegistered(event) => proxy::registered(event),
        Event::UpstreamRemoved(event) => proxy::removed(event),
        Event::ToolsObserved(event) => proxy::observed(event),
        Event::ToolAccepted(event) => proxy::accepted(event),
        Event::PolicyAdded(event) => proxy::policy_added(event),
        Event::PolicyRemoved(event) => proxy::policy_removed(event),
        Event::CallAuthorized(event) => proxy::authorized(event),
        Event::CallDenied(event) => proxy::denied(event),
        Event::CallCompleted(event) => proxy::completed(event),
        Event::ActionLogged(event) => action_logged(event),
        Event::ActionRejected(event) => action_rejected(event),
        Event::UsageMetered(event) => usage_metered(event),
        Event::SignerRotated(event) => {
            let entity =
                json!({ "type_id": 99, "type": "signing key", "uid": HEXLOWER.encode(&event.public_key) });
            Mapped::new(Class::EntityManagement, (3, "Update"), json!({ "entity": entity }))
        }
        Event::LedgerRepaired(event) => {
            let attributes = json!({
                "unmapped": {
                    "kept": event.kept, "restored": event.restored, "lost": event.lost, "damage": event.damage,
                    "source": event.source,
                },
            });
            Mapped::new(Class::Base, (99, "Repair"), attributes)
        }
        Event::ScheduleCreated(event) => {
            let data = json!({ "cadence": event.cadence.name(), "delivery": event.delivery.to_string() });
            let mut entity = schedule(&event.schedule_id);
            entity["name"] = json!(event.name);
            entity["data"] = data;
            Mapped::new(Class::EntityManagement, (1, "Create"), json!({ "entity": entity }))
        }
        Event::ScheduleRemoved(event) => {
            let attributes = json!({ "entity": schedule(&event.schedule_id) });
            Mapped::new(Class::EntityManagement, (4, "Delete"), attributes)
        }
        Event::ScheduleRan(event) => schedule_ran(event),
        Event::WebhookRegistered(event) => webhooks::registered(event),
        Event::WebhookRemoved(event) => webhooks::removed(event.webhook_id),
        Event::WebhookRotated(event) => webhooks::rotated(event),
        Event::WebhookAttempted(event) => webhooks::attempted(event),
        Event::WebhookRedelivered(event) => webhooks::redelivered(event),
        Event::WebhookTested(event) => webhooks::tested(event.webhook_id),
        Event::AnomalyRuleAdded(event) => {
            let rule = event_json(&recorded.event);
            let entity = anomaly_rule(event.rule_id, Some(event.rule.condition.rule_type()));
            let attributes = json!({ "entity": entity, "unmapped": { "rule": rule } });
            Mapped::new(Class::EntityManagement, (1, "Create"), attributes)
        }
        Event::AnomalyRuleRemoved(event) => {
            let attributes = json!({ "entity": anomaly_rule(event.rule_id, None) });
            Mapped::new(Class::EntityManagement, (4, "Delete"), attributes)
        }
        Event::AnomalyDetected(event) => anomaly_detected(event, entry),
    }
}

fn key_minted(event: &KeyMinted) -> Mapped {
    let mut user = key_user(event.prefix.as_str());
    user["name"] = json!(event.name);
    let attributes = json!({ "user": user, "privileges": event.scopes.as_slice() });
    Mapped::new(Class::UserManagement, (1, "Create"), attributes)
}

fn key_revoked(event: &KeyRevoked) -> Mapped {
    let attributes = json!({ "user": key_user(event.prefix.as_str()) });
    Mapped::new(Class::UserManagement, (5, "Disable"), attributes)
}

fn session_opened(event: &SessionOpened, at: Timestamp) -> Mapped {
    let attributes = json!({
        "user": agent_user(&event.agent_id),
        "session": {
            "uid": event.session_id.as_str(),
            "created_time": millis(at),
            "expiration_time": event.expires_at.map(millis),
        },
        "privileges": event.scopes,
        "unmapped": {
            "spend_cap": event.cap.map(usd),
            "ttl_s": event.ttl_s,
            "agent_limit": event.agent_limit,
            "parent_session": event.parent.as_ref().map(SessionId::as_str),
        },
    });
    Mapped::new(Class::AuthorizeSession, (1, "Assign Privileges"), attributes).by(&event.agent_id)
}

fn session_denied(event: &SessionDenied) -> Mapped {
    let attributes = json!({
        "entity": { "type_id": 99, "type": "session", "user": agent_user(&event.agent_id) },
        "unmapped": { "agent_limit": event.agent_limit, "agents_live": event.agents_live },
    });
    let mapped = Mapped::new(Class::EntityManagement, (1, "Create"), attributes).by(&event.agent_id);
    mapped.failed("as many agents hold live sessions as may")
}

fn session_revoked(event: &SessionRevoked) -> Mapped {
    let attributes =
        json!({ "entity": { "type_id": 99, "type": "session", "uid": event.session_id.as_str() } });
    Mapped::new(Class::EntityManagement, (11, "Deactivate"), attributes)
}

fn permission_checked(event: &PermissionChecked) -> Mapped {
    let denial = match event.verdict {
        Verdict::Allowed => None,
        Verdict::SessionUnknown => Some("there is no such session"),
        Verdict::SessionRevoked => Some("the session was revoked"),
        Verdict::SessionExpired => Some("the session has expired"),
        Verdict::ScopeMissing => Some("the session does not hold the scope"),
    };
    let attributes = json!({
        "api": { "operation": "check permission" },
        "resources": [{ "type": "scope", "name": event.scope }],
    });
    let mapped = Mapped::new(Class::ApiActivity, (99, "Check"), attributes).within(&event.session_id);
    match denial {
        None => mapped,
        Some(why) => mapped.failed(why),
    }
}

fn action_logged(event: &ActionLogged) -> Mapped {
    let data = json!({
        "cost_usd": usd(event.cost),
        "details_digest": event.details_digest.map(|digest| HEXLOWER.encode(&digest)),
    });
    let attributes = json!({
        "api": { "operation": event.action, "service": service(&event.tool) },
        "resources": [{ "type": "audit entry", "uid": event.entry_id.as_str(), "data": data }],
    });
    let mapped = Mapped::new(Class::ApiActivity, (99, "Action"), attributes);
    let mapped = mapped.by(&event.agent_id).within(&event.session_id);
    match &event.flag {
        None => mapped,
        Some(why) => Mapped { outcome: Outcome::Flagged(why.clone()), ..mapped },
    }
}

fn action_rejected(event: &ActionRejected) -> Mapped {
    let attributes = json!({ "api": { "operation": event.action, "service": service(&event.tool) } });
    let mapped = Mapped::new(Class::ApiActivity, (99, "Action"), attributes).within(&event.session_id);
    mapped.failed(match event.reason {
        ActionRejection::SessionRevoked => "the session was revoked",
        ActionRejection::SessionExpired => "the session has expired",
    })
}

fn usage_metered(event: &UsageMetered) -> Mapped {
    let keys = event.keys.iter().map(|reading| {
        json!({
            "prefix": reading.prefix.as_str(),
            "calls": reading.calls,
            "last_used": millis(reading.last_used),
        })
    });
    let calls = event.keys.iter().fold(0_u64, |calls, reading| calls.saturating_add(reading.calls));
    let attributes = json!({
        "count": calls,
        "unmapped": { "month": event.month.to_string(), "keys": keys.collect::<Vec<_>>() },
    });
    Mapped::new(Class::Base, (99, "Meter"), attributes)
}

fn schedule(schedule_id: &ScheduleId) -> Value {
    json!({ "type_id": 99, "type": "evidence schedule", "uid": schedule_id.as_str() })
}

fn schedule_ran(event: &ScheduleRan) -> Mapped {
    let pack = event.pack.map(|pack| {
        json!({
            "type": "evidence pack",
            "uid": HEXLOWER.encode(&pack.digest),
            "data": { "size": pack.size },
        })
    });
    let resources: Vec<_> =
        [Some(json!({ "type": "evidence schedule", "uid": event.schedule_id.as_str() })), pack]
            .into_iter()
            .flatten()
            .collect();
    let attributes = json!({
        "api": { "operation": "deliver evidence pack" },
        "resources": resources,
        "start_time": millis(event.period_start),
        "end_time": millis(event.period_end),
        "unmapped": { "outcome": event.outcome.name() },
    });
    let mapped = Mapped::new(Class::ApiActivity, (99, "Deliver"), attributes);
    if event.outcome.is_delivered() {
        return mapped;
    }
    let why = if event.error.is_empty() { event.outcome.name().to_owned() } else { event.error.clone() };
    mapped.failed(why)
}

fn anomaly_rule(rule_id: u64, rule_type: Option<RuleType>) -> Value {
    let name = rule_type.map(RuleType::name);
    json!({ "type_id": 99, "type": "anomaly rule", "uid": rule_id.to_string(), "name": name })
}

fn anomaly_detected(event: &AnomalyDetected, entry: &Entry) -> Mapped {
    let name = event.rule_type.name();
    let related = event.evidence.iter().map(|seq| json!({ "uid": uid(entry, *seq) }));
    let data = json!({
        "session_id": event.session_id.as_ref().map(SessionId::as_str),
        "subject": uid(entry, event.subject),
        "amount_usd": usd(event.amount),
    });
    let attributes = json!({
        "status": "New",
        "is_alert": true,
        "finding_info": {
            "uid": uid(entry, entry.recorded.seq),
            "title": event.reason,
            "types": [name],
            "created_time": millis(entry.recorded.at),
            "analytic": { "uid": event.rule_id.to_string(), "name": name, "type_id": 1, "type": "Rule" },
            "related_events": related.collect::<Vec<_>>(),
            "related_events_count": event.evidence.len(),
        },
        "evidences": [{
            "api": { "operation": event.action, "service": service(&event.tool) },
            "data": data,
        }],
        "resources": [{ "type": "AI agent", "uid": event.agent_id.as_str() }],
    });
    let mapped = Mapped::new(Class::DetectionFinding, (1, "Create"), attributes);
    Mapped { outcome: Outcome::Flagged(event.reason.clone()), ..mapped }
}

/// On whose authority it was recorded.
fn actor(actor: &Actor, session: Option<&SessionId>) -> Value {
    let user = match actor {
        Actor::Key(prefix) => key_user(prefix.as_str()),
        Actor::Operator | Actor::Bootstrap => {
            json!({ "uid": actor.to_string(), "type_id": 2, "type": "Admin" })
        }
        Actor::FirstCaller => json!({ "uid": actor.to_string(), "type_id": 0, "type": "Unknown" }),
        Actor::System => json!({ "uid": actor.to_string(), "type_id": 3, "type": "System" }),
        Actor::ApprovalLink => json!({ "uid": actor.to_string(), "type_id": 1, "type": "User" }),
    };
    json!({ "user": user, "session": session.map(|session| json!({ "uid": session.as_str() })) })
}

fn key_user(prefix: &str) -> Value {
    let credential = json!({ "uid": prefix, "type": "API key" });
    json!({ "uid": prefix, "type_id": 4, "type": "Service", "programmatic_credentials": [credential] })
}

fn agent_user(agent: &AgentId) -> Value {
    json!({ "uid": agent.as_str(), "type_id": 99, "type": "AI agent" })
}

fn service(tool: &str) -> Option<Value> {
    (!tool.is_empty()).then(|| json!({ "name": tool }))
}

/// How the entry is bound to what it says, to the entry before it, and to the key that signed it.
fn attestation(entry: &Entry) -> Value {
    let fingerprint = |hash: &dyn ToString| {
        json!({
            "algorithm_id": 99,
            "algorithm": "BLAKE3",
            "encoding_id": 1,
            "encoding": "Hex",
            "serialization_id": 99,
            "serialization": "haldir ledger v1 entry hash",
            "value": hash.to_string(),
        })
    };
    let seq = entry.recorded.seq;
    let prev_event = seq
        .checked_sub(1)
        .map(|before| json!({ "uid": uid(entry, before), "fingerprint": fingerprint(&entry.prev) }));
    json!({
        "uid": uid(entry, seq),
        "chain_uid": format!("haldir/ledger/{}", entry.tenant),
        "authority_uid": entry.key_id.to_string(),
        "fingerprint": fingerprint(&entry.hash),
        "prev_event": prev_event,
        "signatures": [{
            "algorithm_id": 99,
            "algorithm": "Ed25519",
            "created_time": millis(entry.recorded.at),
            "digest": fingerprint(&entry.hash),
            "serialization_id": 99,
            "serialization": "haldir ledger v1 entry signature",
        }],
    })
}

/// The name of an entry, unique in the installation and for ever.
fn uid(entry: &Entry, seq: u64) -> String {
    format!("{}/{seq}", entry.tenant)
}

fn millis(at: Timestamp) -> u64 {
    at.micros() / 1_000
}

/// An exact decimal. As text: collectors read JSON numbers as binary floating point.
fn usd(amount: Money) -> String {
    amount.to_string()
}

/// Adds members to an object, and to the objects in it.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Absent attributes are left out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let kept: Map<_, _> =
                std::mem::take(members).into_iter().filter(|(_, value)| !value.is_null()).collect();
            *members = kept;
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
