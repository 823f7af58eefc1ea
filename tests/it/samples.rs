//! A stream with one event of every kind, fixed for ever, and ways to build others.

pub(crate) mod payments;
pub(crate) mod proxy;
pub(crate) mod secrets;
pub(crate) mod webhooks;

use ed25519_dalek::SigningKey;
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
use haldir::domain::money::Money;
use haldir::domain::replays::Idempotency;
use haldir::domain::scope::KeyScopes;
use haldir::domain::sessions::{PermissionChecked, SessionDenied, SessionOpened, SessionRevoked, Verdict};
use haldir::domain::time::{Month, Timestamp};
use haldir::domain::usage::{KeyReading, UsageMetered};
use haldir::domain::{Command, Decision, Envelope, Event, Recorded, Tenant, apply, decide, record};
use haldir::format::chain::{DETAILS_SALT_LEN, EntryHash, Signer, details_digest};
use haldir::format::entry::{SealedEntry, seal};
use proptest::test_runner::{Config as ProptestConfig, FileFailurePersistence};

/// The private key of the document's test vectors.
pub(crate) const PRIVATE_KEY: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
    29, 30, 31,
];
pub(crate) const DETAILS_SALT: [u8; DETAILS_SALT_LEN] = [0x5a; DETAILS_SALT_LEN];
pub(crate) const DETAILS: &str = r#"{"to":"ops@example.com"}"#;

pub(crate) fn signer() -> Signer {
    Signer::new(SigningKey::from_bytes(&PRIVATE_KEY))
}

pub(crate) fn tenant() -> TenantId {
    TenantId::parse("9e881bd609994b5e").unwrap()
}

fn prefix() -> KeyPrefix {
    KeyPrefix::parse("hld_AAAAAAAA").unwrap()
}

/// One event of every kind, in an order in which they could have happened.
pub(crate) fn events() -> Vec<Event> {
    let session_id = SessionId::issue([7; 24]);
    let agent_id = AgentId::parse("agent-1").unwrap();
    let usd = |text| Money::parse(text).unwrap();
    let at = |micros| Timestamp::from_micros(micros);
    vec![
        Event::KeyMinted(KeyMinted {
            prefix: prefix(),
            hash: [0x11; 32],
            name: "first".into(),
            scopes: KeyScopes::all(),
        }),
        Event::SessionOpened(SessionOpened {
            session_id: session_id.clone(),
            agent_id: agent_id.clone(),
            scopes: vec!["read".into(), "spend".into()],
            cap: Some(usd("100")),
            ttl_s: 1800,
            expires_at: Some(at(1_700_001_800_000_001)),
            agent_limit: None,
            parent: None,
        }),
        Event::PermissionChecked(PermissionChecked {
            session_id: session_id.clone(),
            scope: "delete".into(),
            verdict: Verdict::ScopeMissing,
        }),
        Event::PaymentAuthorized(PaymentAuthorized {
            authorization_id: AuthorizationId::issue([1; 16]),
            session_id: session_id.clone(),
            agent_id: agent_id.clone(),
            amount: usd("29.99"),
            currency: "USD".into(),
            description: "API crédits".into(),
            remaining: Some(usd("70.01")),
            tool: String::new(),
            action: String::new(),
            approval_id: None,
        }),
        Event::PaymentDenied(PaymentDenied {
            authorization_id: AuthorizationId::issue([2; 16]),
            session_id: session_id.clone(),
            agent_id: agent_id.clone(),
            amount: usd("70.02"),
            currency: "USD".into(),
            description: String::new(),
            remaining: Some(usd("70.01")),
            reason: PaymentDenial::BudgetExceeded,
            tool: String::new(),
            action: String::new(),
            bound: None,
            approval_id: None,
        }),
        Event::ActionLogged(ActionLogged {
            entry_id: EntryId::issue([3; 16]),
            session_id: session_id.clone(),
            agent_id: agent_id.clone(),
            action: "send".into(),
            tool: "email".into(),
            cost: usd("0.002"),
            details_digest: Some(details_digest(&DETAILS_SALT, DETAILS.as_bytes())),
            flag: None,
        }),
        Event::SessionRevoked(SessionRevoked { session_id: session_id.clone() }),
        Event::ActionRejected(ActionRejected {
            session_id,
            action: "send".into(),
            tool: String::new(),
            reason: ActionRejection::SessionRevoked,
        }),
        Event::SessionDenied(SessionDenied { agent_id, agent_limit: 1, agents_live: 1 }),
        Event::AccessDenied(AccessDenied {
            required: "audit:write".into(),
            operation: "POST /v1/audit".into(),
        }),
        Event::UsageMetered(UsageMetered {
            month: Month::new(2023, 11).unwrap(),
            keys: vec![KeyReading { prefix: prefix(), calls: 9, last_used: at(1_700_000_009_000_000) }],
        }),
        Event::KeyRevoked(KeyRevoked { prefix: prefix() }),
    ]
}

/// The events of a short second stream: it is repaired, and handed over to another key.
pub(crate) fn custody_events() -> Vec<Event> {
    let minted =
        KeyMinted { prefix: prefix(), hash: [0x11; 32], name: "first".into(), scopes: KeyScopes::all() };
    vec![
        Event::KeyMinted(minted),
        Event::LedgerRepaired(LedgerRepaired {
            kept: 1,
            restored: 0,
            lost: 2,
            damage: "hash does not match the content".into(),
            source: String::new(),
        }),
        Event::SignerRotated(SignerRotated { public_key: next_signer().public_key().to_bytes() }),
        Event::KeyRevoked(KeyRevoked { prefix: prefix() }),
    ]
}

/// The second stream of the document's test vectors: the key that signs changes after the third entry.
pub(crate) fn custody_stream() -> Vec<Vec<u8>> {
    let mut prev = EntryHash::GENESIS;
    let mut signer = signer();
    let mut entries = Vec::new();
    for recorded in recorded(custody_events()) {
        let recorded = Recorded { actor: Actor::Operator, ..recorded };
        let entry = seal(&tenant(), &recorded, &prev, &signer).unwrap();
        if let Event::SignerRotated(_) = recorded.event {
            signer = next_signer();
        }
        prev = entry.hash;
        entries.push(entry.bytes);
    }
    entries
}

/// The events of a short stream about evidence packs: one schedule without a webhook, one by mail that works the second time.
pub(crate) fn compliance_events() -> Vec<Event> {
    let minted =
        KeyMinted { prefix: prefix(), hash: [0x11; 32], name: "first".into(), scopes: KeyScopes::all() };
    let (weekly, daily) = (ScheduleId::issue([4; 12]), ScheduleId::issue([5; 12]));
    let created = |id: &ScheduleId, name: &str, cadence, delivery| {
        let delivery = Delivery::parse(delivery).unwrap();
        Event::ScheduleCreated(ScheduleCreated {
            schedule_id: id.clone(),
            name: name.into(),
            cadence,
            delivery,
        })
    };
    let ran = |id: &ScheduleId, days: u64, outcome, error: &str| {
        let period_end = Timestamp::from_micros(1_700_000_000_000_000);
        Event::ScheduleRan(ScheduleRan {
            schedule_id: id.clone(),
            period_start: period_end.minus_seconds(days * 86_400),
            period_end,
            outcome,
            error: error.into(),
            pack: Some(Pack { digest: [0x44; 32], size: 2 }),
        })
    };
    let nobody = "no webhook named grc takes the event compliance.evidence_pack";
    vec![
        Event::KeyMinted(minted),
        created(&weekly, "für das Audit", Cadence::Weekly, "webhook:grc"),
        ran(&weekly, 7, RunOutcome::NoDispatcher, nobody),
        created(&daily, "", Cadence::Daily, "email:grc@example.com"),
        ran(&daily, 1, RunOutcome::SmtpUnconfigured, "no mail server is configured"),
        ran(&daily, 1, RunOutcome::Sent, ""),
        Event::ScheduleRemoved(ScheduleRemoved { schedule_id: weekly }),
    ]
}

/// The stream of these events. Haldir itself runs schedules.
pub(crate) fn compliance_stream() -> Vec<Vec<u8>> {
    let mut stream = recorded(compliance_events());
    for recorded in &mut stream {
        if let Event::ScheduleRan(_) = recorded.event {
            recorded.actor = Actor::System;
        }
    }
    sealed(&tenant(), &stream).into_iter().map(|entry| entry.bytes).collect()
}

/// The events of a stream with anomalies: a rule of every type, what two of them find in one action, and a rule removed.
pub(crate) fn anomaly_events() -> Vec<Event> {
    let usd = |text| Money::parse(text).unwrap();
    let agent_id = || AgentId::parse("agent-1").unwrap();
    let session_id = || SessionId::issue([7; 24]);
    let conditions = [
        Condition::SpendPerAction { above: usd("10") },
        Condition::ActionsPerMinute { count: 30 },
        Condition::ToolBlocked { tools: vec!["shell".into(), "eval".into()] },
        Condition::RepeatedDenials { count: 5, window_s: 300 },
        Condition::SpendSpike { factor_nanos: 3_500_000_000, min_samples: 10 },
        Condition::UnusualTool { min_samples: 10 },
        Condition::UnusualHours { min_samples: 50 },
        Condition::Velocity { count: 100, window_s: 3600 },
    ];
    let reasons = [None, None, Some("no shells".to_owned()), None, None, None, None, None];
    let rules = conditions.into_iter().zip(reasons).zip(1..).map(|((condition, reason), rule_id)| {
        Event::AnomalyRuleAdded(RuleAdded { rule_id, rule: Rule { condition, reason } })
    });
    let found = |rule_id, rule_type, reason: &str| {
        Event::AnomalyDetected(AnomalyDetected {
            rule_id,
            rule_type,
            agent_id: agent_id(),
            session_id: Some(session_id()),
            subject: 10,
            tool: "shell".into(),
            action: "run".into(),
            amount: usd("12.5"),
            reason: reason.into(),
            evidence: vec![10],
        })
    };
    let minted =
        KeyMinted { prefix: prefix(), hash: [0x11; 32], name: "first".into(), scopes: KeyScopes::all() };
    let opened = SessionOpened {
        session_id: session_id(),
        agent_id: agent_id(),
        scopes: vec!["read".into()],
        cap: None,
        ttl_s: 0,
        expires_at: None,
        agent_limit: None,
        parent: None,
    };
    let logged = ActionLogged {
        entry_id: EntryId::issue([3; 16]),
        session_id: session_id(),
        agent_id: agent_id(),
        action: "run".into(),
        tool: "shell".into(),
        cost: usd("12.5"),
        details_digest: None,
        flag: Some("spend_per_action exceeded 10.0".into()),
    };
    let before = [Event::KeyMinted(minted), Event::SessionOpened(opened)];
    let after = [
        Event::ActionLogged(logged),
        found(1, RuleType::SpendPerAction, "spend_per_action exceeded 10.0"),
        found(3, RuleType::ToolBlocked, "no shells"),
        Event::AnomalyRuleRemoved(RuleRemoved { rule_id: 2 }),
    ];
    before.into_iter().chain(rules).chain(after).collect()
}

/// The same in their places. What one decision gave has one request id.
pub(crate) fn recorded_anomalies() -> Vec<Recorded> {
    let mut stream = recorded(anomaly_events());
    for recorded in &mut stream {
        recorded.idempotency = None;
        if let Event::AnomalyDetected(_) = recorded.event {
            recorded.request_id = RequestId::parse("request-10").unwrap();
        }
    }
    stream
}

/// The key that takes over in the second stream.
pub(crate) fn next_signer() -> Signer {
    Signer::new(SigningKey::from_bytes(&[0x77; 32]))
}

/// Gives events their places and circumstances, a microsecond apart.
pub(crate) fn recorded(events: Vec<Event>) -> Vec<Recorded> {
    let place = |(seq, event): (usize, Event)| {
        let seq = seq as u64;
        let settles = matches!(event, Event::SessionOpened(_) | Event::PaymentAuthorized(_));
        Recorded {
            seq,
            at: Timestamp::from_micros(1_700_000_000_000_000 + seq),
            rules: 1,
            actor: match event {
                Event::UsageMetered(_) => Actor::System,
                _ if seq == 0 => Actor::FirstCaller,
                _ => Actor::Key(prefix()),
            },
            request_id: RequestId::parse(&format!("request-{seq}")).unwrap(),
            idempotency: settles.then_some(Idempotency { key: [0x22; 32], fingerprint: [0x33; 32] }),
            event,
        }
    };
    events.into_iter().enumerate().map(place).collect()
}

/// A stream as the rules give it: who asks for what, so many seconds after the start.
pub(crate) fn told(story: Vec<(u64, Actor, Command)>) -> Vec<Recorded> {
    let (mut state, mut stream) = (Tenant::default(), Vec::<Recorded>::new());
    for (after_s, actor, command) in story {
        let seq = stream.len() as u64;
        let envelope = Envelope {
            seq,
            at: Timestamp::from_micros(1_700_000_000_000_000).plus_seconds(after_s),
            is_deployment_new: actor == Actor::FirstCaller,
            actor,
            request_id: RequestId::parse(&format!("request-{seq}")).unwrap(),
            idempotency: None,
            command,
        };
        let Ok(Decision::Events(events)) = decide(&state, &envelope) else {
            panic!("{envelope:?} leads to nothing")
        };
        for recorded in record(&envelope, events) {
            apply(&mut state, &recorded);
            stream.push(recorded);
        }
    }
    stream
}

/// Chains and signs a whole stream.
pub(crate) fn sealed(tenant: &TenantId, stream: &[Recorded]) -> Vec<SealedEntry> {
    sealed_by(&signer(), tenant, stream)
}

/// The same with a signing key of your choice.
pub(crate) fn sealed_by(signer: &Signer, tenant: &TenantId, stream: &[Recorded]) -> Vec<SealedEntry> {
    let mut prev = EntryHash::GENESIS;
    let mut entries = Vec::new();
    for recorded in stream {
        let entry = seal(tenant, recorded, &prev, signer).unwrap();
        prev = entry.hash;
        entries.push(entry);
    }
    entries
}

/// The stream of the document's test vectors.
pub(crate) fn stream() -> Vec<Vec<u8>> {
    sealed(&tenant(), &recorded(events())).into_iter().map(|entry| entry.bytes).collect()
}

/// How a property is tested: with so many random cases, after those that failed once. Their seeds are kept in
/// `regressions`, a file of `proptest-regressions/`.
pub(crate) fn random_cases(cases: u32, regressions: &'static str) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
        ..ProptestConfig::default()
    }
}
