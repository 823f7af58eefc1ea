//! Any event that the limits of the domain allow.

use haldir::domain::anomalies::rule::{Condition, Rule, RuleType};
use haldir::domain::anomalies::{AnomalyDetected, RuleAdded, RuleRemoved};
use haldir::domain::audit::{ActionLogged, ActionRejected, ActionRejection};
use haldir::domain::budgets::{PaymentAuthorized, PaymentDenial, PaymentDenied};
use haldir::domain::compliance::{
    Cadence, Delivery, Pack, RunOutcome, ScheduleCreated, ScheduleRan, ScheduleRemoved,
};
use haldir::domain::custody::{LedgerRepaired, SignerRotated};
use haldir::domain::id::{
    Actor, AgentId, AuthorizationId, EntryId, KeyPrefix, RequestId, ScheduleId, SessionId, TenantId,
};
use haldir::domain::keys::{AccessDenied, KeyMinted, KeyRevoked};
use haldir::domain::limits::{
    ACTION_CHARS_MAX, AGENT_ID_CHARS_MAX, ANOMALY_EVIDENCE_COUNT_MAX, ANOMALY_REASON_CHARS_MAX,
    ANOMALY_RULE_TOOL_COUNT_MAX, CURRENCY_CHARS_MAX, DELIVERY_CHARS_MAX, DESCRIPTION_CHARS_MAX,
    KEY_NAME_CHARS_MAX, METERED_KEY_COUNT_MAX, RUN_ERROR_CHARS_MAX, SCHEDULE_NAME_CHARS_MAX, SCOPE_CHARS_MAX,
    SECRET_NAME_CHARS_MAX, SECRET_VERSION_COUNT_MAX, SESSION_ID_CHARS_MAX, SESSION_SCOPE_COUNT_MAX,
    TOOL_CHARS_MAX, URL_CHARS_MAX, WEBHOOK_EVENT_CHARS_MAX, WEBHOOK_EVENT_COUNT_MAX, WEBHOOK_NAME_CHARS_MAX,
};
use haldir::domain::money::Money;
use haldir::domain::replays::Idempotency;
use haldir::domain::scope::KeyScopes;
use haldir::domain::secrets::{
    Rewrapped, SecretDeleted, SecretDenial, SecretDenied, SecretName, SecretRead, SecretStored, VaultRotated,
    VersionRef,
};
use haldir::domain::sessions::{PermissionChecked, SessionDenied, SessionOpened, SessionRevoked, Verdict};
use haldir::domain::time::{Month, Timestamp};
use haldir::domain::topics::Topic;
use haldir::domain::usage::{KeyReading, UsageMetered};
use haldir::domain::webhooks::{
    AttemptOutcome, DeliveryFailure, WebhookAttempted, WebhookRedelivered, WebhookRegistered, WebhookRemoved,
    WebhookRotated, WebhookTested,
};
use haldir::domain::{Event, Recorded};
use haldir::format::entry::TIME_MAX_US;
use proptest::prelude::*;

use super::largest::key_scope_vocabulary;

pub(crate) fn any_recorded() -> impl Strategy<Value = Recorded> {
    let circumstances =
        (any::<u64>(), 0..=TIME_MAX_US, any::<u32>(), any_actor(), any_request_id(), any_idempotency());
    (circumstances, any_event()).prop_map(|((seq, at, rules, actor, request_id, idempotency), event)| {
        Recorded { seq, at: Timestamp::from_micros(at), rules, actor, request_id, idempotency, event }
    })
}

pub(crate) fn any_tenant() -> impl Strategy<Value = TenantId> {
    "[a-z0-9_]{1,24}".prop_map(|text| TenantId::parse(&text).unwrap())
}

fn any_actor() -> impl Strategy<Value = Actor> {
    prop_oneof![
        any_prefix().prop_map(Actor::Key),
        Just(Actor::Operator),
        Just(Actor::Bootstrap),
        Just(Actor::FirstCaller),
        Just(Actor::System),
    ]
}

fn any_prefix() -> impl Strategy<Value = KeyPrefix> {
    "[!-~]{12}".prop_map(|text| KeyPrefix::parse(&text).unwrap())
}

fn any_request_id() -> impl Strategy<Value = RequestId> {
    "[!-~]{1,64}".prop_map(|text| RequestId::parse(&text).unwrap())
}

fn any_idempotency() -> impl Strategy<Value = Option<Idempotency>> {
    let digests = any::<([u8; 32], [u8; 32])>();
    prop::option::of(digests.prop_map(|(key, fingerprint)| Idempotency { key, fingerprint }))
}

/// Mostly short, sometimes as long as it may be, of any characters.
fn any_text(chars_max: usize) -> impl Strategy<Value = String> {
    let of_len = |len| prop::collection::vec(any::<char>(), len).prop_map(String::from_iter);
    prop_oneof![
        8 => of_len(0..=chars_max.min(24)),
        1 => of_len(chars_max..=chars_max),
        1 => Just("\u{10ffff}".repeat(chars_max)),
    ]
}

fn any_money() -> impl Strategy<Value = Money> {
    prop_oneof![0..10_u128, any::<u128>(), Just(u128::MAX)].prop_map(Money::from_nanos)
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_micros)
}

fn any_session_id() -> impl Strategy<Value = SessionId> {
    any_text(SESSION_ID_CHARS_MAX).prop_map(|text| SessionId::parse(&text).unwrap())
}

fn any_agent_id() -> impl Strategy<Value = AgentId> {
    any_text(AGENT_ID_CHARS_MAX).prop_map(|text| AgentId::parse(&text).unwrap())
}

fn any_key_scopes() -> impl Strategy<Value = KeyScopes> {
    prop::sample::subsequence(key_scope_vocabulary(), 1..=26)
        .prop_map(|words| KeyScopes::parse(&words).unwrap())
}

pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any_prefix(), any::<[u8; 32]>(), any_text(KEY_NAME_CHARS_MAX), any_key_scopes()).prop_map(
            |(prefix, hash, name, scopes)| Event::KeyMinted(KeyMinted { prefix, hash, name, scopes })
        ),
        any_prefix().prop_map(|prefix| Event::KeyRevoked(KeyRevoked { prefix })),
        (any_text(64), any_text(256))
            .prop_map(|(required, operation)| Event::AccessDenied(AccessDenied { required, operation })),
        any_session_opened(),
        any_session_id().prop_map(|session_id| Event::SessionRevoked(SessionRevoked { session_id })),
        (any_agent_id(), any::<u64>(), any::<u64>()).prop_map(|(agent_id, agent_limit, agents_live)| {
            Event::SessionDenied(SessionDenied { agent_id, agent_limit, agents_live })
        }),
        any_permission_checked(),
        super::payments::any_payment_event(),
        super::proxy::any_proxy_event(),
        any_payment(),
        any_action_logged(),
        any_action_rejected(),
        any_usage_metered(),
        any::<[u8; 32]>().prop_map(|public_key| Event::SignerRotated(SignerRotated { public_key })),
        any_secret_event(),
        (any::<[u64; 3]>(), any_text(500), any_text(500)).prop_map(
            |([kept, restored, lost], damage, source)| {
                Event::LedgerRepaired(LedgerRepaired { kept, restored, lost, damage, source })
            }
        ),
        any_schedule_created(),
        any_schedule_id().prop_map(|schedule_id| Event::ScheduleRemoved(ScheduleRemoved { schedule_id })),
        any_schedule_ran(),
        any_webhook_event(),
        any_anomaly_rule(),
        any::<u64>().prop_map(|rule_id| Event::AnomalyRuleRemoved(RuleRemoved { rule_id })),
        any_anomaly(),
    ]
}

fn any_secret_name() -> impl Strategy<Value = SecretName> {
    let name = any_text(SECRET_NAME_CHARS_MAX);
    name.prop_map(|text| SecretName::parse(&text).unwrap_or_else(|| SecretName::parse("a/b").unwrap()))
}

fn any_version_ref() -> impl Strategy<Value = VersionRef> {
    any::<(u64, [u8; 32])>().prop_map(|(version, digest)| VersionRef { version, digest })
}

fn any_secret_event() -> impl Strategy<Value = Event> {
    let digest = any::<[u8; 32]>;
    let scope = || any_text(SCOPE_CHARS_MAX);
    let reason = prop::sample::select(vec![
        SecretDenial::SessionUnknown,
        SecretDenial::SessionRevoked,
        SecretDenial::SessionExpired,
        SecretDenial::SecretUnknown,
        SecretDenial::ScopeMissing,
    ]);
    let rewrapped = any::<([u8; 8], u64)>().prop_map(|(key_id, count)| Rewrapped { key_id, count });
    let who = || (any_secret_name(), any_session_id());
    prop_oneof![
        (any_secret_name(), any::<[u64; 2]>(), scope(), digest(), prop::option::of(any_version_ref()))
            .prop_map(|(name, [version, sealed_len], required_scope, digest, erased)| {
                Event::SecretStored(SecretStored {
                    name,
                    version,
                    required_scope,
                    digest,
                    sealed_len,
                    erased,
                })
            }),
        (who(), any_agent_id(), any::<u64>(), digest()).prop_map(
            |((name, session_id), agent_id, version, digest)| {
                Event::SecretRead(SecretRead { name, version, session_id, agent_id, digest })
            }
        ),
        (who(), prop::option::of(any_agent_id()), any::<Option<u64>>(), reason, prop::option::of(scope()))
            .prop_map(|((name, session_id), agent_id, version, reason, required_scope)| {
                Event::SecretDenied(SecretDenied {
                    name,
                    version,
                    session_id,
                    agent_id,
                    reason,
                    required_scope,
                })
            }),
        (
            any_secret_name(),
            any::<Option<u64>>(),
            prop::collection::vec(any_version_ref(), 0..=SECRET_VERSION_COUNT_MAX)
        )
            .prop_map(|(name, version, erased)| Event::SecretDeleted(SecretDeleted {
                name,
                version,
                erased
            })),
        (any::<[u8; 8]>(), prop::collection::vec(rewrapped, 0..=4), any::<[u64; 2]>()).prop_map(
            |(to, from, [already_current, failed])| {
                Event::VaultRotated(VaultRotated { to, from, already_current, failed })
            }
        ),
    ]
}

fn any_webhook_event() -> impl Strategy<Value = Event> {
    let texts = (any_text(URL_CHARS_MAX), any_text(WEBHOOK_NAME_CHARS_MAX));
    let events = prop::collection::vec(any_text(WEBHOOK_EVENT_CHARS_MAX), 0..=WEBHOOK_EVENT_COUNT_MAX);
    prop_oneof![
        (any::<u64>(), texts, events, any::<[u8; 32]>()).prop_map(
            |(webhook_id, (url, name), events, secret_digest)| {
                Event::WebhookRegistered(WebhookRegistered { webhook_id, url, name, events, secret_digest })
            }
        ),
        any::<u64>().prop_map(|webhook_id| Event::WebhookRemoved(WebhookRemoved { webhook_id })),
        any::<(u64, [u8; 32], u64)>().prop_map(|(webhook_id, secret_digest, grace_s)| {
            Event::WebhookRotated(WebhookRotated { webhook_id, secret_digest, grace_s })
        }),
        any_webhook_attempted(),
        any::<(u64, u64)>().prop_map(|(webhook_id, source_seq)| {
            Event::WebhookRedelivered(WebhookRedelivered { webhook_id, source_seq })
        }),
        any::<u64>().prop_map(|webhook_id| Event::WebhookTested(WebhookTested { webhook_id })),
    ]
}

fn any_webhook_attempted() -> impl Strategy<Value = Event> {
    let failures = [
        DeliveryFailure::UrlRefused,
        DeliveryFailure::Unresolved,
        DeliveryFailure::Unreachable,
        DeliveryFailure::Tls,
        DeliveryFailure::TimedOut,
        DeliveryFailure::Broken,
        DeliveryFailure::Unsigned,
    ];
    let outcome = prop_oneof![
        (1..=u16::MAX).prop_map(AttemptOutcome::Answered),
        prop::sample::select(failures.to_vec()).prop_map(AttemptOutcome::Failed),
    ];
    let topic = prop::sample::select(Topic::ALL.to_vec());
    let numbers = any::<(u64, u64, u32, u64)>();
    let rest = (any::<Option<[u8; 32]>>(), prop::option::of(any_time()));
    (numbers, topic, outcome, rest).prop_map(
        |((webhook_id, source_seq, attempt, duration_ms), topic, outcome, (excerpt_digest, retry_at))| {
            Event::WebhookAttempted(WebhookAttempted {
                webhook_id,
                source_seq,
                topic,
                attempt,
                outcome,
                duration_ms,
                excerpt_digest,
                retry_at,
            })
        },
    )
}

fn any_anomaly_rule() -> impl Strategy<Value = Event> {
    let condition = prop_oneof![
        any_money().prop_map(|above| Condition::SpendPerAction { above }),
        any::<u64>().prop_map(|count| Condition::ActionsPerMinute { count }),
        prop::collection::vec(any_text(TOOL_CHARS_MAX), 0..=ANOMALY_RULE_TOOL_COUNT_MAX)
            .prop_map(|tools| Condition::ToolBlocked { tools }),
        any::<[u64; 2]>().prop_map(|[count, window_s]| Condition::RepeatedDenials { count, window_s }),
        any::<[u64; 2]>()
            .prop_map(|[factor_nanos, min_samples]| Condition::SpendSpike { factor_nanos, min_samples }),
        any::<u64>().prop_map(|min_samples| Condition::UnusualTool { min_samples }),
        any::<u64>().prop_map(|min_samples| Condition::UnusualHours { min_samples }),
        any::<[u64; 2]>().prop_map(|[count, window_s]| Condition::Velocity { count, window_s }),
    ];
    let reason = prop::option::of(any_text(ANOMALY_REASON_CHARS_MAX));
    (any::<u64>(), condition, reason).prop_map(|(rule_id, condition, reason)| {
        Event::AnomalyRuleAdded(RuleAdded { rule_id, rule: Rule { condition, reason } })
    })
}

fn any_anomaly() -> impl Strategy<Value = Event> {
    let rule = (any::<u64>(), prop::sample::select(RuleType::ALL.to_vec()));
    let who = (any_agent_id(), prop::option::of(any_session_id()));
    let what = (any::<u64>(), any_text(TOOL_CHARS_MAX), any_text(ACTION_CHARS_MAX), any_money());
    let why = (
        any_text(ANOMALY_REASON_CHARS_MAX),
        prop::collection::vec(any::<u64>(), 0..=ANOMALY_EVIDENCE_COUNT_MAX),
    );
    (rule, who, what, why).prop_map(
        |(
            (rule_id, rule_type),
            (agent_id, session_id),
            (subject, tool, action, amount),
            (reason, evidence),
        )| {
            Event::AnomalyDetected(AnomalyDetected {
                rule_id,
                rule_type,
                agent_id,
                session_id,
                subject,
                tool,
                action,
                amount,
                reason,
                evidence,
            })
        },
    )
}

fn any_session_opened() -> impl Strategy<Value = Event> {
    let scopes = prop_oneof![
        9 => prop::collection::vec(any_text(SCOPE_CHARS_MAX), 0..=5),
        1 => prop::collection::vec(any_text(SCOPE_CHARS_MAX), SESSION_SCOPE_COUNT_MAX),
    ];
    let who = (any_session_id(), any_agent_id(), scopes);
    let limits = (
        prop::option::of(any_money()),
        any::<u64>(),
        prop::option::of(any_time()),
        prop::option::of(any::<u64>()),
    );
    (who, limits).prop_map(|((session_id, agent_id, scopes), (cap, ttl_s, expires_at, agent_limit))| {
        Event::SessionOpened(SessionOpened {
            session_id,
            agent_id,
            scopes,
            cap,
            ttl_s,
            expires_at,
            agent_limit,
            parent: None,
        })
    })
}

fn any_permission_checked() -> impl Strategy<Value = Event> {
    let verdict = prop::sample::select(vec![
        Verdict::Allowed,
        Verdict::SessionUnknown,
        Verdict::SessionRevoked,
        Verdict::SessionExpired,
        Verdict::ScopeMissing,
    ]);
    (any_session_id(), any_text(SCOPE_CHARS_MAX), verdict).prop_map(|(session_id, scope, verdict)| {
        Event::PermissionChecked(PermissionChecked { session_id, scope, verdict })
    })
}

/// An authorised or, with a reason, a denied payment.
fn any_payment() -> impl Strategy<Value = Event> {
    let who = (any_text(64), any_session_id(), any_agent_id());
    let what = (any_money(), any_text(CURRENCY_CHARS_MAX), any_text(DESCRIPTION_CHARS_MAX));
    let denial = prop::option::of(prop::sample::select(vec![
        PaymentDenial::SessionRevoked,
        PaymentDenial::SessionExpired,
        PaymentDenial::SpendScopeMissing,
        PaymentDenial::BudgetExceeded,
    ]));
    (who, what, prop::option::of(any_money()), denial).prop_map(
        |((authorization_id, session_id, agent_id), (amount, currency, description), remaining, denial)| {
            let authorization_id = AuthorizationId::parse(&authorization_id).unwrap();
            match denial {
                None => Event::PaymentAuthorized(PaymentAuthorized {
                    authorization_id,
                    session_id,
                    agent_id,
                    amount,
                    currency,
                    description,
                    remaining,
                    tool: String::new(),
                    action: String::new(),
                    approval_id: None,
                }),
                Some(reason) => Event::PaymentDenied(PaymentDenied {
                    authorization_id,
                    session_id,
                    agent_id,
                    amount,
                    currency,
                    description,
                    remaining,
                    reason,
                    tool: String::new(),
                    action: String::new(),
                    bound: None,
                    approval_id: None,
                }),
            }
        },
    )
}

fn any_action_logged() -> impl Strategy<Value = Event> {
    let who = (any_text(64), any_session_id(), any_agent_id());
    let what = (any_text(ACTION_CHARS_MAX), any_text(TOOL_CHARS_MAX), any_money());
    let rest = (prop::option::of(any::<[u8; 32]>()), prop::option::of(any_text(ACTION_CHARS_MAX)));
    (who, what, rest).prop_map(
        |((entry_id, session_id, agent_id), (action, tool, cost), (details_digest, flag))| {
            Event::ActionLogged(ActionLogged {
                entry_id: EntryId::parse(&entry_id).unwrap(),
                session_id,
                agent_id,
                action,
                tool,
                cost,
                details_digest,
                flag,
            })
        },
    )
}

fn any_action_rejected() -> impl Strategy<Value = Event> {
    let reason = prop::sample::select(vec![ActionRejection::SessionRevoked, ActionRejection::SessionExpired]);
    (any_session_id(), any_text(ACTION_CHARS_MAX), any_text(TOOL_CHARS_MAX), reason).prop_map(
        |(session_id, action, tool, reason)| {
            Event::ActionRejected(ActionRejected { session_id, action, tool, reason })
        },
    )
}

fn any_usage_metered() -> impl Strategy<Value = Event> {
    let reading = || {
        (any_prefix(), any::<u64>(), any_time()).prop_map(|(prefix, calls, last_used)| KeyReading {
            prefix,
            calls,
            last_used,
        })
    };
    let keys = prop_oneof![
        9 => prop::collection::vec(reading(), 0..=5),
        1 => prop::collection::vec(reading(), METERED_KEY_COUNT_MAX),
    ];
    (1970..=9999_u16, 1..=12_u8, keys).prop_map(|(year, month, keys)| {
        Event::UsageMetered(UsageMetered { month: Month::new(year, month).unwrap(), keys })
    })
}

fn any_schedule_id() -> impl Strategy<Value = ScheduleId> {
    any_text(64).prop_map(|text| ScheduleId::parse(&text).unwrap())
}

fn any_schedule_created() -> impl Strategy<Value = Event> {
    let delivery = (any::<bool>(), any_text(DELIVERY_CHARS_MAX))
        .prop_map(|(is_mail, to)| if is_mail { Delivery::Email(to) } else { Delivery::Webhook(to) });
    let cadence = prop::sample::select(Cadence::ALL.to_vec());
    (any_schedule_id(), any_text(SCHEDULE_NAME_CHARS_MAX), cadence, delivery).prop_map(
        |(schedule_id, name, cadence, delivery)| {
            Event::ScheduleCreated(ScheduleCreated { schedule_id, name, cadence, delivery })
        },
    )
}

fn any_schedule_ran() -> impl Strategy<Value = Event> {
    let outcome = prop::sample::select(vec![
        RunOutcome::Fired,
        RunOutcome::Sent,
        RunOutcome::BuildFailed,
        RunOutcome::NoDispatcher,
        RunOutcome::SmtpUnconfigured,
        RunOutcome::SmtpFailed,
    ]);
    let pack = prop::option::of((any::<[u8; 32]>(), any::<u64>()));
    (any_schedule_id(), any_time(), any_time(), outcome, any_text(RUN_ERROR_CHARS_MAX), pack).prop_map(
        |(schedule_id, period_start, period_end, outcome, error, pack)| {
            let pack = pack.map(|(digest, size)| Pack { digest, size });
            Event::ScheduleRan(ScheduleRan { schedule_id, period_start, period_end, outcome, error, pack })
        },
    )
}
