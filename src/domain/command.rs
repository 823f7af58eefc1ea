//! Everything that can be asked for, area by area.

use super::{
    accounts, anomalies, approvals, audit, budgets, calls, compliance, custody, keys, policies, reservations,
    secrets, sessions, upstreams, usage, webhooks,
};

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Mint an API key.
    MintKey(keys::MintKey),
    /// Revoke an API key.
    RevokeKey(keys::RevokeKey),
    /// Record that a key lacked the scope for a request.
    DenyAccess(keys::DenyAccess),
    /// Open a session.
    OpenSession(sessions::OpenSession),
    /// End a session.
    RevokeSession(sessions::RevokeSession),
    /// Ask whether a session may do something.
    CheckPermission(sessions::CheckPermission),
    /// Spend from a session's budget.
    AuthorizePayment(budgets::AuthorizePayment),
    /// Set an amount aside.
    ReservePayment(reservations::ReservePayment),
    /// Pay what was set aside, or less.
    SettlePayment(reservations::SettlePayment),
    /// Give back what was set aside.
    ReleasePayment(reservations::ReleasePayment),
    /// Give back what was set aside for too long.
    ExpireReservation(reservations::ExpireReservation),
    /// Set a cap on an account, or lift it.
    SetBudget(accounts::SetBudget),
    /// Add a rule about what needs an approval.
    AddApprovalRule(approvals::AddApprovalRule),
    /// Remove such a rule.
    RemoveApprovalRule(approvals::RemoveApprovalRule),
    /// Ask for an approval.
    RequestApproval(approvals::RequestApproval),
    /// Approve or deny.
    DecideApproval(approvals::DecideApproval),
    /// Record that nobody decided in time.
    ExpireApproval(approvals::ExpireApproval),
    /// Store a sealed value.
    StoreSecret(secrets::StoreSecret),
    /// Read a value on behalf of a session.
    ReadSecret(secrets::ReadSecret),
    /// Erase a secret.
    DeleteSecret(secrets::DeleteSecret),
    /// Record that sealed values were wrapped under another master key.
    RecordVaultRotation(secrets::RecordVaultRotation),
    /// Register an upstream.
    RegisterUpstream(upstreams::RegisterUpstream),
    /// Remove an upstream.
    RemoveUpstream(upstreams::RemoveUpstream),
    /// Take note of an upstream's tools.
    ObserveTools(upstreams::ObserveTools),
    /// Trust a tool as it is now.
    AcceptTool(upstreams::AcceptTool),
    /// Add a policy.
    AddPolicy(policies::AddPolicy),
    /// Remove a policy.
    RemovePolicy(policies::RemovePolicy),
    /// Put another set of policies in place of the whole one.
    ReplacePolicies(policies::ReplacePolicies),
    /// Call something through the proxy.
    AuthorizeCall(calls::AuthorizeCall),
    /// Record what became of a call.
    CompleteCall(calls::CompleteCall),
    /// Record what an agent did.
    LogAction(audit::LogAction),
    /// Watch for an anomaly from now on.
    AddAnomalyRule(anomalies::AddRule),
    /// Watch for an anomaly no more.
    RemoveAnomalyRule(anomalies::RemoveRule),
    /// Record how many calls were made.
    MeterUsage(usage::MeterUsage),
    /// Hand the stream to another signing key.
    RotateSigner(custody::RotateSigner),
    /// Record that the stream was rebuilt after damage.
    RecordRepair(custody::RecordRepair),
    /// Add a schedule of evidence packs.
    CreateSchedule(compliance::CreateSchedule),
    /// Drop a schedule.
    RemoveSchedule(compliance::RemoveSchedule),
    /// Record what became of a run of a schedule.
    RecordRun(compliance::RecordRun),
    /// Register a webhook.
    RegisterWebhook(webhooks::RegisterWebhook),
    /// Remove a webhook.
    RemoveWebhook(webhooks::RemoveWebhook),
    /// Give a webhook another secret.
    RotateWebhook(webhooks::RotateWebhook),
    /// Record an attempt to deliver a notification.
    RecordAttempt(webhooks::RecordAttempt),
    /// Try again to deliver what was given up.
    RedeliverEvent(webhooks::RedeliverEvent),
    /// Send a webhook a notification that says nothing.
    TestWebhook(webhooks::TestWebhook),
}
