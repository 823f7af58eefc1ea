//! The rules, and nothing else.
//!
//! [`decide`] says what a command means for a tenant, [`apply`] folds what happened into the tenant's state. Both
//! are pure: the time, the random ids and everything else that a decision needs come with the command. The same two
//! functions run live, in replay and in the verifier.
//!
//! One file per area, each with its commands, events, slice of state, decide and apply: [`keys`], [`sessions`] and
//! [`delegation`], [`accounts`], [`budgets`], [`reservations`], [`approvals`] and [`clearance`], [`secrets`], [`audit`],
//! [`upstreams`], [`policies`] and [`calls`] of the proxy,
//! [`usage`], [`custody`], [`compliance`], [`webhooks`] with their [`topics`], and [`replays`] for retries. [`command`] and [`event`] sum
//! them up, [`refusal`] lists
//! what is illegal, and [`rederive`] checks a recorded decision by deciding again. Beside them the words they are made of: [`id`], [`money`], [`scope`], [`time`], [`limits`], [`table`].

#![deny(clippy::float_arithmetic, clippy::wildcard_enum_match_arm, clippy::iter_over_hash_type)]

pub mod accounts;
pub mod anomalies;
pub mod approvals;
pub mod audit;
pub mod budgets;
pub mod calls;
pub mod clearance;
pub mod command;
pub mod compliance;
pub mod custody;
pub mod delegation;
pub mod event;
pub mod id;
pub mod keys;
pub mod limits;
pub mod money;
pub mod policies;
pub mod rederive;
pub mod refusal;
pub mod replays;
pub mod reservations;
pub mod scope;
pub mod secrets;
pub mod sessions;
pub mod table;
pub mod time;
pub mod topics;
pub mod upstreams;
pub mod usage;
pub mod webhooks;

use serde::{Deserialize, Serialize};

pub use command::Command;
pub use event::Event;
use id::{Actor, RequestId};
pub use refusal::Refusal;
use replays::Idempotency;
use time::Timestamp;

/// The revision of the rules in this module. It is written into every entry, so that a verifier knows which rules
/// decided. A change of meaning gets a new revision.
pub const RULES_REVISION: u32 = 1;

/// A command with everything that its decision depends on besides the tenant's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Where the first event of the decision will stand in the stream.
    pub seq: u64,
    /// When the decision is taken; later than every event of the stream.
    pub at: Timestamp,
    /// On whose authority.
    pub actor: Actor,
    /// The request that asked.
    pub request_id: RequestId,
    /// Set when the caller asked that retries repeat the first outcome.
    pub idempotency: Option<Idempotency>,
    /// Whether no API key was ever minted in the whole deployment. Only the first caller's minting depends on it.
    pub is_deployment_new: bool,
    /// What is asked for.
    pub command: Command,
}

/// An event with its place in the stream and its circumstances: all that an entry of the ledger says, apart from
/// hashes and signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Position in the tenant's stream, from 0 without gaps.
    pub seq: u64,
    /// When it was decided. Strictly later than the event before.
    pub at: Timestamp,
    /// The [`RULES_REVISION`] that decided.
    pub rules: u32,
    /// On whose authority.
    pub actor: Actor,
    /// The request that asked.
    pub request_id: RequestId,
    /// Set when retries repeat this outcome.
    pub idempotency: Option<Idempotency>,
    /// What happened.
    pub event: Event,
}

/// What a command means in a given state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// These things happen, one right after the other and all or none. Empty when the command asks for what is already so.
    Events(Vec<Event>),
    /// The same request was settled before, by the event at this position.
    Replay {
        /// Position of that event in the tenant's stream.
        seq: u64,
    },
}

/// Everything that is true of one tenant: the fold of its stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its API keys.
    pub keys: keys::Keys,
    /// Its sessions, each with its budget.
    pub sessions: sessions::Sessions,
    /// Caps on agents and the tenant, and what they spent.
    pub accounts: accounts::Accounts,
    /// What is set aside for payments.
    pub reservations: reservations::Reservations,
    /// What waits for a human, and what humans said.
    pub approvals: approvals::Approvals,
    /// Its secrets, without their values.
    pub secrets: secrets::Secrets,
    /// How much it paid.
    pub payments: budgets::Payments,
    /// The upstreams that it reaches through the proxy.
    pub upstreams: upstreams::Upstreams,
    /// What may be called there.
    pub policies: policies::Policies,
    /// What was called, and has no outcome yet.
    pub calls: calls::Calls,
    /// How much it logged.
    pub audit: audit::Audit,
    /// What is watched for.
    pub anomalies: anomalies::Anomalies,
    /// How much it called.
    pub usage: usage::Usage,
    /// Outcomes that retries repeat.
    pub replays: replays::Replays,
    /// Who signs its stream.
    pub custody: custody::Custody,
    /// Its schedules of evidence packs.
    pub schedules: compliance::Schedules,
    /// Its webhooks, and what they were not told yet.
    pub webhooks: webhooks::Webhooks,
}

/// Decides what a command means in a given state.
///
/// Pure: the time is in the envelope, and anything else the decision needs was looked up before.
///
/// # Errors
///
/// The first [`Refusal`] that holds: the caller's standing, then the idempotency key, then the command itself.
pub fn decide(tenant: &Tenant, envelope: &Envelope) -> Result<Decision, Refusal> {
    keys::check_standing(&tenant.keys, &envelope.actor)?;
    if let Some(seq) = replays::find(&tenant.replays, envelope)? {
        return Ok(Decision::Replay { seq });
    }
    let events = match &envelope.command {
        Command::MintKey(command) => keys::mint(&tenant.keys, envelope, command)?,
        Command::RevokeKey(command) => keys::revoke(&tenant.keys, command)?,
        Command::DenyAccess(command) => keys::deny_access(command),
        Command::OpenSession(command) => sessions::open(&tenant.sessions, envelope.at, command)?,
        Command::RevokeSession(command) => sessions::revoke(&tenant.sessions, command)?,
        Command::CheckPermission(command) => sessions::check(&tenant.sessions, envelope.at, command),
        Command::AuthorizePayment(command) => budgets::authorize(tenant, envelope.at, command)?,
        Command::ReservePayment(command) => reservations::reserve(tenant, envelope.at, command)?,
        Command::SettlePayment(command) => reservations::settle(&tenant.reservations, envelope.at, command)?,
        Command::ReleasePayment(command) => {
            reservations::release(&tenant.reservations, envelope.at, command)?
        }
        Command::ExpireReservation(command) => {
            reservations::expire(&tenant.reservations, envelope.at, command)?
        }
        Command::SetBudget(command) => accounts::set(&tenant.sessions, &tenant.accounts, command)?,
        Command::AddApprovalRule(command) => approvals::add_rule(&tenant.approvals, command)?,
        Command::RemoveApprovalRule(command) => approvals::remove_rule(&tenant.approvals, command)?,
        Command::RequestApproval(command) => {
            match approvals::request(&tenant.approvals, &tenant.sessions, envelope.at, command)? {
                approvals::Asked::Anew(events) => events,
                approvals::Asked::Before(seq) => return Ok(Decision::Replay { seq }),
            }
        }
        Command::DecideApproval(command) => approvals::decide(&tenant.approvals, envelope.at, command)?,
        Command::ExpireApproval(command) => approvals::expire(&tenant.approvals, envelope.at, command)?,
        Command::StoreSecret(command) => secrets::store(&tenant.secrets, command),
        Command::ReadSecret(command) => {
            secrets::read(&tenant.sessions, &tenant.secrets, envelope.at, command)?
        }
        Command::DeleteSecret(command) => secrets::delete(&tenant.secrets, command)?,
        Command::RecordVaultRotation(command) => secrets::record_rotation(command),
        Command::RegisterUpstream(command) => upstreams::register(&tenant.upstreams, command)?,
        Command::RemoveUpstream(command) => upstreams::remove(&tenant.upstreams, command)?,
        Command::ObserveTools(command) => upstreams::observe(&tenant.upstreams, command)?,
        Command::AcceptTool(command) => upstreams::accept(&tenant.upstreams, command)?,
        Command::AddPolicy(command) => policies::add(&tenant.policies, command)?,
        Command::RemovePolicy(command) => policies::remove(&tenant.policies, command)?,
        Command::ReplacePolicies(command) => policies::replace(&tenant.policies, command)?,
        Command::AuthorizeCall(command) => calls::authorize(tenant, envelope.at, command)?,
        Command::CompleteCall(command) => calls::complete(&tenant.calls, command)?,
        Command::LogAction(command) => audit::log(&tenant.sessions, envelope.at, command)?,
        Command::AddAnomalyRule(command) => anomalies::add_rule(&tenant.anomalies, command)?,
        Command::RemoveAnomalyRule(command) => anomalies::remove_rule(&tenant.anomalies, command)?,
        Command::MeterUsage(command) => usage::meter(command),
        Command::RotateSigner(command) => custody::rotate(&tenant.custody, &envelope.actor, command)?,
        Command::RecordRepair(command) => custody::record_repair(&envelope.actor, command)?,
        Command::CreateSchedule(command) => compliance::create(&tenant.schedules, command)?,
        Command::RemoveSchedule(command) => compliance::remove(&tenant.schedules, command)?,
        Command::RecordRun(command) => {
            let who_and_when = (&envelope.actor, envelope.at);
            let takes_packs = |target: &str| tenant.webhooks.takes_packs(target);
            compliance::record_run(&tenant.schedules, takes_packs, who_and_when, command)?
        }
        Command::RegisterWebhook(command) => webhooks::register(&tenant.webhooks, command)?,
        Command::RemoveWebhook(command) => webhooks::remove(&tenant.webhooks, command)?,
        Command::RotateWebhook(command) => webhooks::rotate(&tenant.webhooks, command)?,
        Command::RecordAttempt(command) => webhooks::record_attempt(&tenant.webhooks, command)?,
        Command::RedeliverEvent(command) => webhooks::redeliver(&tenant.webhooks, command)?,
        Command::TestWebhook(command) => webhooks::test(&tenant.webhooks, command)?,
    };
    Ok(Decision::Events(anomalies::watch(tenant, envelope, events)))
}

/// What the passing of time leads to: the next command that is due at `at`, if there is one.
///
/// What is due is carried out before anything else is decided, so that no budget is bound by what should be free again.
#[must_use]
pub fn due(tenant: &Tenant, at: Timestamp) -> Option<Command> {
    tenant.reservations.due(at).or_else(|| tenant.approvals.due(at))
}

/// Gives the events of a decision their places, a microsecond apart, and their circumstances.
pub fn record(envelope: &Envelope, events: Vec<Event>) -> impl Iterator<Item = Recorded> {
    (0..).zip(events).map(|(place, event)| record_one(envelope, place, event))
}

fn record_one(envelope: &Envelope, place: u64, event: Event) -> Recorded {
    Recorded {
        seq: envelope.seq + place,
        at: Timestamp::from_micros(envelope.at.micros() + place),
        rules: RULES_REVISION,
        actor: envelope.actor.clone(),
        request_id: envelope.request_id.clone(),
        // The others follow from the first, and could not be derived again from under a key that is settled already.
        idempotency: envelope.idempotency.clone().filter(|_| place == 0 && event.settles_a_request()),
        event,
    }
}

/// Folds what happened into the state. No rules and no errors: history already happened.
pub fn apply(tenant: &mut Tenant, recorded: &Recorded) {
    let at = recorded.at;
    match &recorded.event {
        Event::KeyMinted(event) => keys::apply_minted(&mut tenant.keys, at, event),
        Event::KeyRevoked(event) => keys::apply_revoked(&mut tenant.keys, event),
        Event::SessionOpened(event) => {
            sessions::apply_opened(&mut tenant.sessions, recorded.seq, at, event);
        }
        Event::SessionRevoked(event) => sessions::apply_revoked(&mut tenant.sessions, event),
        Event::PaymentAuthorized(event) => {
            let Tenant { sessions, accounts, approvals, .. } = tenant;
            budgets::apply_authorized(sessions, accounts, approvals, at, event);
            budgets::count(&mut tenant.payments, event.amount);
        }
        Event::PaymentReserved(event) => {
            let Tenant { sessions, accounts, approvals, reservations, .. } = tenant;
            reservations::apply_reserved(reservations, sessions, accounts, approvals, event);
        }
        Event::PaymentSettled(event) => {
            let Tenant { sessions, accounts, reservations, .. } = tenant;
            reservations::apply_settled(reservations, sessions, accounts, at, event);
            budgets::count(&mut tenant.payments, event.amount);
        }
        Event::PaymentReleased(event) => {
            let Tenant { sessions, accounts, reservations, .. } = tenant;
            reservations::apply_released(reservations, sessions, accounts, event);
        }
        Event::BudgetSet(event) => accounts::apply_set(&mut tenant.accounts, event),
        Event::ApprovalRuleAdded(event) => approvals::apply_rule_added(&mut tenant.approvals, event),
        Event::ApprovalRuleRemoved(event) => approvals::apply_rule_removed(&mut tenant.approvals, event),
        Event::ApprovalRequested(event) => {
            approvals::apply_requested(&mut tenant.approvals, recorded.seq, at, event);
        }
        Event::ApprovalGranted(event) => approvals::apply_granted(&mut tenant.approvals, event),
        Event::ApprovalDenied(event) => approvals::apply_denied(&mut tenant.approvals, event),
        Event::ApprovalExpired(event) => approvals::apply_expired(&mut tenant.approvals, event),
        Event::SecretStored(event) => secrets::apply_stored(&mut tenant.secrets, at, event),
        Event::SecretRead(event) => secrets::apply_read(&mut tenant.secrets, at, event),
        Event::SecretDeleted(event) => secrets::apply_deleted(&mut tenant.secrets, event),
        Event::UpstreamRegistered(event) => {
            upstreams::apply_registered(&mut tenant.upstreams, recorded.seq, at, event);
        }
        Event::UpstreamRemoved(event) => upstreams::apply_removed(&mut tenant.upstreams, event),
        Event::ToolsObserved(event) => upstreams::apply_observed(&mut tenant.upstreams, event),
        Event::ToolAccepted(event) => upstreams::apply_accepted(&mut tenant.upstreams, event),
        Event::PolicyAdded(event) => policies::apply_added(&mut tenant.policies, event),
        Event::PolicyRemoved(event) => {
            policies::apply_removed(&mut tenant.policies, event);
            calls::apply_policy_removed(&mut tenant.calls, at);
        }
        Event::CallAuthorized(event) => calls::apply_authorized(tenant, recorded.seq, at, event),
        Event::CallDenied(_) => calls::apply_denied(&mut tenant.calls),
        Event::CallCompleted(event) => {
            if let Some(charged) = calls::apply_completed(tenant, at, event) {
                budgets::count(&mut tenant.payments, charged);
            }
        }
        Event::ActionLogged(event) => {
            audit::apply_logged(&mut tenant.audit);
            calls::apply_logged(&mut tenant.calls, &tenant.policies, at, event);
        }
        Event::UsageMetered(event) => {
            usage::apply_metered(&mut tenant.usage, event);
            keys::apply_metered(&mut tenant.keys, event);
        }
        Event::SignerRotated(event) => custody::apply_rotated(&mut tenant.custody, event),
        Event::LedgerRepaired(event) => custody::apply_repaired(&mut tenant.custody, event),
        Event::ScheduleCreated(event) => compliance::apply_created(&mut tenant.schedules, at, event),
        Event::ScheduleRemoved(event) => compliance::apply_removed(&mut tenant.schedules, event),
        Event::ScheduleRan(event) => compliance::apply_ran(&mut tenant.schedules, at, event),
        Event::WebhookRegistered(event) => webhooks::apply_registered(&mut tenant.webhooks, at, event),
        Event::WebhookRemoved(event) => webhooks::apply_removed(&mut tenant.webhooks, at, event),
        Event::WebhookRotated(event) => webhooks::apply_rotated(&mut tenant.webhooks, at, event),
        Event::WebhookAttempted(event) => webhooks::apply_attempted(&mut tenant.webhooks, at, event),
        Event::WebhookRedelivered(event) => webhooks::apply_redelivered(&mut tenant.webhooks, at, event),
        Event::AnomalyRuleAdded(event) => {
            anomalies::apply_added(&mut tenant.anomalies, recorded.seq, at, event);
        }
        Event::AnomalyRuleRemoved(event) => anomalies::apply_removed(&mut tenant.anomalies, event),
        Event::AnomalyDetected(event) => anomalies::apply_detected(&mut tenant.anomalies, event),
        Event::AccessDenied(_)
        | Event::SessionDenied(_)
        | Event::DelegationDenied(_)
        | Event::PermissionChecked(_)
        | Event::PaymentDenied(_)
        | Event::SettlementDenied(_)
        | Event::SecretDenied(_)
        | Event::VaultRotated(_)
        | Event::ActionRejected(_)
        | Event::WebhookTested(_) => {}
    }
    usage::count_readings_at_the_end(&mut tenant.usage, &recorded.event);
    webhooks::apply_notice(&mut tenant.webhooks, &tenant.schedules, recorded);
    anomalies::learn(&mut tenant.anomalies, &tenant.sessions, recorded);
    replays::apply(&mut tenant.replays, recorded);
}
