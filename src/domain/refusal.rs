//! What is illegal.

/// Why a command is illegal in a state. A refused command leaves no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key that asks has been revoked, or was never known to this tenant.
    #[error("the API key is not active")]
    ActorInactive,
    /// Somebody asks to be the first caller of a deployment that already had one.
    #[error("the deployment already has its first key")]
    NotFirstCaller,
    /// The idempotency key was used before with other content.
    #[error("the idempotency key was used with a different body")]
    IdempotencyMismatch,
    /// Only whoever runs the process may ask for this.
    #[error("only the operator may do that")]
    OperatorOnly,
    /// The stream is signed by this key already.
    #[error("this key signs already")]
    SignerUnchanged,
    /// A key with this prefix exists already.
    #[error("a key with this prefix exists")]
    KeyPrefixTaken,
    /// No active key of the tenant has this prefix.
    #[error("no active key with this prefix")]
    KeyUnknown,
    /// A session with this id exists already. Opening it again would give it a fresh budget.
    #[error("a session with this id exists")]
    SessionIdTaken,
    /// The tenant has no such session.
    #[error("no such session")]
    SessionUnknown,
    /// Only Haldir itself, on a timer, may ask for this.
    #[error("only the system may do that")]
    SystemOnly,
    /// A schedule with this id exists already.
    #[error("a schedule with this id exists")]
    ScheduleIdTaken,
    /// The tenant has as many schedules as it may.
    #[error("the tenant has as many schedules as it may")]
    ScheduleCountExceeded,
    /// The tenant has no such schedule.
    #[error("no such schedule")]
    ScheduleUnknown,
    /// The schedule is not due, or the period that is told of is not over.
    #[error("the schedule is not due")]
    ScheduleNotDue,
    /// The pack went another way than the schedule says.
    #[error("the schedule delivers in another way")]
    DeliveryMistaken,
    /// The tenant has no such session to open another one below.
    #[error("no such parent session")]
    ParentUnknown,
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// An authorisation with this id exists already.
    #[error("an authorisation with this id exists")]
    AuthorizationIdTaken,
    /// There is no such reservation, or it was settled, released, or its time is over.
    #[error("no such open reservation")]
    ReservationNotOpen,
    /// As many reservations are open as may be.
    #[error("too many reservations are open")]
    TooManyReservations,
    /// The time has not come.
    #[error("it is not due yet")]
    NotDue,
    /// The tenant has no such rule.
    #[error("no such rule")]
    RuleUnknown,
    /// There are as many rules as may be.
    #[error("there are too many rules")]
    TooManyRules,
    /// A request for an approval with this id exists already.
    #[error("a request with this id exists")]
    ApprovalIdTaken,
    /// The tenant has no such request.
    #[error("no such request for an approval")]
    ApprovalUnknown,
    /// Somebody decided before.
    #[error("the request was decided before")]
    ApprovalDecided,
    /// Nobody decided in time.
    #[error("the request has expired")]
    ApprovalExpired,
    /// Whoever approves narrows, and never widens.
    #[error("more than was asked for cannot be approved")]
    ApprovalWidened,
    /// Several deciders must be different ones.
    #[error("this decider has approved already")]
    DeciderRepeated,
    /// As many requests wait for a decision as may.
    #[error("too many requests wait for a decision")]
    TooManyPending,
    /// There is no such secret, or no such version of it.
    #[error("no such secret")]
    SecretUnknown,
    /// The value that was opened is not, or no longer, the one that was asked for. Look again.
    #[error("the secret changed meanwhile")]
    SecretMoved,
    /// The tenant has as many webhooks as it may.
    #[error("the tenant has as many webhooks as it may")]
    WebhooksTooMany,
    /// The tenant has no such webhook.
    #[error("no such webhook")]
    WebhookUnknown,
    /// There is nothing to deliver.
    #[error("no such delivery")]
    DeliveryUnknown,
    /// The tenant has as many upstreams as it may.
    #[error("there are as many upstreams as there may be")]
    TooManyUpstreams,
    /// The tenant has no such upstream.
    #[error("no such upstream")]
    UpstreamUnknown,
    /// The upstream has no such tool.
    #[error("the upstream has no such tool")]
    ToolUnknown,
    /// The tool is not, or no longer, what was looked at.
    #[error("the tool has changed since it was looked at")]
    ToolMoved,
    /// The tenant has as many policies as it may.
    #[error("there are as many policies as there may be")]
    TooManyPolicies,
    /// The tenant has no such policy.
    #[error("no such policy")]
    PolicyUnknown,
    /// The policies are not, or no longer, the ones that were looked at.
    #[error("the policies have changed since they were looked at")]
    PoliciesMoved,
    /// The policies or the upstream changed since the call was prepared. Prepare it again.
    #[error("what the call was prepared for has changed")]
    CallStale,
    /// A call with this id is open already.
    #[error("a call with this id is open")]
    CallIdTaken,
    /// There is no such call, or its outcome is known.
    #[error("no such open call")]
    CallUnknown,
    /// As many calls are without an outcome as may be.
    #[error("too many calls are without an outcome")]
    TooManyCalls,
    /// The tenant has as many anomaly rules as it may.
    #[error("there are as many anomaly rules as there may be")]
    AnomalyRuleCountExceeded,
    /// The tenant has no anomaly rule with this number.
    #[error("no such anomaly rule")]
    AnomalyRuleUnknown,
    /// The sums no longer fit what the ledger can hold.
    #[error("the sum is larger than can be recorded")]
    SumTooLarge,
}
