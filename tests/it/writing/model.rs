//! Does the ledger do what a model does that was written without looking at it?

use std::collections::{BTreeMap, BTreeSet};

use haldir::domain::audit::ActionRejection;
use haldir::domain::budgets::PaymentDenial;
use haldir::domain::id::Actor;
use haldir::domain::money::Money;
use haldir::domain::scope::Grant;
use haldir::domain::sessions::{CheckPermission, OpenSession, Verdict};
use haldir::domain::time::Timestamp;
use haldir::domain::{Command, Event, Refusal};
use haldir::ledger::{LedgerError, Receipt, Request};
use proptest::prelude::*;

use super::ledger::{
    START_S, TestLedger, agent_id, answers, by, log, meter, mint, once, pay, prefix, request, revoke_key,
    revoke_session, seconds, session_id, tenant_id,
};
use crate::samples::random_cases;

proptest! {
    #![proptest_config(random_cases(256, "proptest-regressions/writing.txt"))]

    #[test]
    fn whatever_is_asked_in_whatever_order_the_ledger_does_what_the_model_does(
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let mut ledger = TestLedger::new();
        let mut model = Model { clock_s: START_S, tenants: BTreeMap::new() };
        for step in steps {
            match step {
                Step::Ask(asks) => {
                    let (requests, expected): (Vec<_>, Vec<_>) = asks.iter().map(|ask| model.foretell(ask)).unzip();
                    let told = answers(ledger.queue(requests)).into_iter().map(outcome);
                    for ((ask, expected), told) in asks.iter().zip(expected).zip(told) {
                        prop_assert_eq!(told, expected, "{:?}", ask);
                    }
                }
                Step::MoveClock(by_s) => {
                    model.clock_s = model.clock_s.saturating_add_signed(by_s);
                    ledger.clock.set(seconds(model.clock_s));
                }
                Step::Restart => ledger = ledger.restart(),
            }
        }
        ledger.check();
        let ledger = ledger.restart();
        for (name, tenant) in &model.tenants {
            let world = ledger.handle.read();
            let stream = world.stream(&tenant_id(name));
            prop_assert_eq!(stream.map_or(0, |it| it.head.size), tenant.size);
            prop_assert_eq!(stream.map_or(0, |it| it.tenant.audit.logged), tenant.logged);
            for (id, session) in &tenant.sessions {
                let budget = &stream.unwrap().tenant.sessions.get(&session_id(id)).unwrap().budget;
                prop_assert_eq!(budget.spent().nanos(), session.spent, "{} of {}", id, name);
            }
        }
    }
}

/// A random history, to be asked for of any ledger.
#[derive(Debug, Clone)]
pub(crate) struct History(Vec<Step>);

pub(crate) fn any_history() -> impl Strategy<Value = History> {
    prop::collection::vec(any_step(), 1..40).prop_map(History)
}

impl History {
    /// Asks for everything, in portions that `ask` hands over. What comes of it is not looked at.
    pub(crate) fn play(
        self,
        mut ledger: TestLedger,
        mut ask: impl FnMut(&TestLedger, Vec<Request>),
    ) -> TestLedger {
        let (mut clock_s, mut asked) = (START_S, BTreeMap::<&str, u32>::new());
        for step in self.0 {
            match step {
                Step::Ask(asks) => {
                    let request = |it: Ask| {
                        let number = asked.entry(it.tenant).or_default();
                        let request = it.request(*number);
                        *number += u32::from(matches!(it.what, What::Open { .. }));
                        request
                    };
                    ask(&ledger, asks.into_iter().map(request).collect());
                }
                Step::MoveClock(by_s) => {
                    clock_s = clock_s.saturating_add_signed(by_s);
                    ledger.clock.set(seconds(clock_s));
                }
                Step::Restart => ledger = ledger.restart(),
            }
        }
        ledger
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// All at once, so that they may fall into one batch.
    Ask(Vec<Ask>),
    MoveClock(i64),
    Restart,
}

#[derive(Debug, Clone)]
struct Ask {
    tenant: &'static str,
    /// The number of a key, which may not exist; or the operator.
    key: Option<u32>,
    /// An idempotency key and a fingerprint.
    once: Option<(u8, u8)>,
    what: What,
}

/// Sessions are numbered as they are opened; a number that was not given yet is a session that does not exist.
#[derive(Debug, Clone)]
enum What {
    Mint(u32),
    RevokeKey(u32),
    Open { may_spend: bool, cap: Option<u128>, ttl_s: u64, agents_max: Option<u64> },
    RevokeSession(u32),
    Check(u32, &'static str),
    Pay(u32, u128),
    Log(u32),
    Meter,
}

/// What an answer amounts to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Happened { seq: u64, at_us: u64, event: Happened },
    Nothing,
    Replayed { seq: u64 },
    Refused(Refusal),
}

#[derive(Debug, PartialEq)]
enum Happened {
    Minted,
    KeyRevoked,
    Opened { end_us: Option<u64> },
    NotOpened { agents_live: u64 },
    SessionRevoked,
    Checked(Verdict),
    Paid { amount: u128, remaining: Option<u128> },
    NotPaid { reason: PaymentDenial, remaining: Option<u128> },
    Logged,
    NotLogged(ActionRejection),
    Metered,
}

struct Model {
    clock_s: u64,
    tenants: BTreeMap<&'static str, TenantModel>,
}

#[derive(Default)]
struct TenantModel {
    size: u64,
    last_us: u64,
    logged: u64,
    /// Sessions that were asked for.
    asked: u32,
    /// Whether each key still works.
    keys: BTreeMap<u32, bool>,
    sessions: BTreeMap<String, SessionModel>,
    /// Fingerprint, seq and time by idempotency key.
    settled: BTreeMap<u8, (u8, u64, u64)>,
}

struct SessionModel {
    agent: String,
    may_spend: bool,
    cap: Option<u128>,
    spent: u128,
    end_us: Option<u64>,
    is_revoked: bool,
}

enum End {
    Revoked,
    Expired,
}

impl Model {
    /// The request that an ask amounts to, and what must come of it.
    fn foretell(&mut self, ask: &Ask) -> (Request, Outcome) {
        let tenant = self.tenants.entry(ask.tenant).or_default();
        let request = ask.request(tenant.asked);
        let outcome = tenant.carry_out(self.clock_s * 1_000_000, ask);
        tenant.asked += u32::from(matches!(ask.what, What::Open { .. }));
        (request, outcome)
    }
}

impl TenantModel {
    fn carry_out(&mut self, clock_us: u64, ask: &Ask) -> Outcome {
        let now_us = if self.size == 0 { clock_us } else { clock_us.max(self.last_us + 1) };
        if ask.key.is_some_and(|number| self.keys.get(&number) != Some(&true)) {
            return Outcome::Refused(Refusal::ActorInactive);
        }
        if let Some((key, fingerprint)) = ask.once
            && let Some(&(first_fingerprint, seq, at_us)) = self.settled.get(&key)
            && now_us < at_us + 24 * 60 * 60 * 1_000_000
        {
            let is_same = first_fingerprint == fingerprint;
            return if is_same {
                Outcome::Replayed { seq }
            } else {
                Outcome::Refused(Refusal::IdempotencyMismatch)
            };
        }
        let event = match self.decide(now_us, &ask.what) {
            Ok(Some(event)) => event,
            Ok(None) => return Outcome::Nothing,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let seq = self.size;
        if let Some((key, fingerprint)) = ask.once.filter(|_| event.is_repeated_to_retries()) {
            self.settled.insert(key, (fingerprint, seq, now_us));
        }
        self.size += 1;
        self.last_us = now_us;
        Outcome::Happened { seq, at_us: now_us, event }
    }

    fn decide(&mut self, now_us: u64, what: &What) -> Result<Option<Happened>, Refusal> {
        let happened = match *what {
            What::Mint(number) => match self.keys.insert(number, true) {
                Some(works) => {
                    self.keys.insert(number, works);
                    return Err(Refusal::KeyPrefixTaken);
                }
                None => Happened::Minted,
            },
            What::RevokeKey(number) => match self.keys.insert(number, false) {
                Some(true) => Happened::KeyRevoked,
                Some(false) => return Err(Refusal::KeyUnknown),
                None => {
                    self.keys.remove(&number);
                    return Err(Refusal::KeyUnknown);
                }
            },
            What::Open { may_spend, cap, ttl_s, agents_max } => {
                let agent = agent_of(self.asked);
                let live = self.sessions.values().filter(|it| it.end(now_us).is_none());
                let live: BTreeSet<_> = live.map(|it| it.agent.clone()).collect();
                let agents_live = live.len() as u64;
                if agents_max.is_some_and(|max| agents_live >= max) && !live.contains(&agent) {
                    Happened::NotOpened { agents_live }
                } else {
                    let end_us = (ttl_s > 0).then_some(now_us + ttl_s * 1_000_000);
                    let session = SessionModel { agent, may_spend, cap, spent: 0, end_us, is_revoked: false };
                    self.sessions.insert(name_of(self.asked), session);
                    Happened::Opened { end_us }
                }
            }
            What::RevokeSession(number) => {
                let session = self.session(number)?;
                if std::mem::replace(&mut session.is_revoked, true) {
                    return Ok(None);
                }
                Happened::SessionRevoked
            }
            What::Check(number, scope) => Happened::Checked(match self.session(number) {
                Err(_) => Verdict::SessionUnknown,
                Ok(session) => match session.end(now_us) {
                    Some(End::Revoked) => Verdict::SessionRevoked,
                    Some(End::Expired) => Verdict::SessionExpired,
                    None if scope.starts_with(session.scope()) => Verdict::Allowed,
                    None => Verdict::ScopeMissing,
                },
            }),
            What::Pay(number, amount) => self.session(number)?.pay(now_us, amount),
            What::Log(number) => match self.session(number)?.end(now_us) {
                Some(End::Revoked) => Happened::NotLogged(ActionRejection::SessionRevoked),
                Some(End::Expired) => Happened::NotLogged(ActionRejection::SessionExpired),
                None => {
                    self.logged += 1;
                    Happened::Logged
                }
            },
            What::Meter => Happened::Metered,
        };
        Ok(Some(happened))
    }

    fn session(&mut self, number: u32) -> Result<&mut SessionModel, Refusal> {
        self.sessions.get_mut(&name_of(number)).ok_or(Refusal::SessionUnknown)
    }
}

impl SessionModel {
    fn end(&self, now_us: u64) -> Option<End> {
        match self.end_us {
            _ if self.is_revoked => Some(End::Revoked),
            Some(end_us) if now_us > end_us => Some(End::Expired),
            _ => None,
        }
    }

    fn scope(&self) -> &'static str {
        if self.may_spend { "spend" } else { "read" }
    }

    fn pay(&mut self, now_us: u64, amount: u128) -> Happened {
        let remaining = self.cap.map(|cap| cap - self.spent);
        let reason = match self.end(now_us) {
            Some(End::Revoked) => PaymentDenial::SessionRevoked,
            Some(End::Expired) => PaymentDenial::SessionExpired,
            None if !self.may_spend => PaymentDenial::SpendScopeMissing,
            None if remaining.is_some_and(|remaining| remaining < amount) => PaymentDenial::BudgetExceeded,
            None => {
                self.spent += amount;
                return Happened::Paid { amount, remaining: remaining.map(|remaining| remaining - amount) };
            }
        };
        Happened::NotPaid { reason, remaining }
    }
}

impl Happened {
    fn is_repeated_to_retries(&self) -> bool {
        match self {
            Self::Minted | Self::Opened { .. } | Self::Paid { .. } | Self::Logged => true,
            Self::NotPaid { reason, .. } => {
                matches!(reason, PaymentDenial::SpendScopeMissing | PaymentDenial::BudgetExceeded)
            }
            _ => false,
        }
    }

    fn of(event: &Event) -> Self {
        let nanos = |money: Option<Money>| money.map(Money::nanos);
        match event {
            Event::KeyMinted(_) => Self::Minted,
            Event::KeyRevoked(_) => Self::KeyRevoked,
            Event::SessionOpened(it) => Self::Opened { end_us: it.expires_at.map(Timestamp::micros) },
            Event::SessionDenied(it) => Self::NotOpened { agents_live: it.agents_live },
            Event::SessionRevoked(_) => Self::SessionRevoked,
            Event::PermissionChecked(it) => Self::Checked(it.verdict),
            Event::PaymentAuthorized(it) => {
                Self::Paid { amount: it.amount.nanos(), remaining: nanos(it.remaining) }
            }
            Event::PaymentDenied(it) => Self::NotPaid { reason: it.reason, remaining: nanos(it.remaining) },
            Event::ActionLogged(_) => Self::Logged,
            Event::ActionRejected(it) => Self::NotLogged(it.reason),
            Event::UsageMetered(_) => Self::Metered,
            _ => panic!("nobody here can cause {event:?}"),
        }
    }
}

impl Ask {
    fn request(&self, sessions_asked: u32) -> Request {
        let command = match self.what {
            What::Mint(number) => mint(unique(self.tenant, number)),
            What::RevokeKey(number) => revoke_key(unique(self.tenant, number)),
            What::Open { may_spend, cap, ttl_s, agents_max } => Command::OpenSession(OpenSession {
                session_id: session_id(&name_of(sessions_asked)),
                agent_id: agent_id(&agent_of(sessions_asked)),
                grant: Grant {
                    scopes: vec![if may_spend { "spend" } else { "read" }.to_owned()],
                    cap: cap.map(Money::from_nanos),
                },
                ttl_s,
                agent_limit: agents_max,
                scopes_are_default: false,
                parent: None,
            }),
            What::RevokeSession(number) => revoke_session(&name_of(number)),
            What::Check(number, scope) => Command::CheckPermission(CheckPermission {
                session_id: session_id(&name_of(number)),
                scope: scope.to_owned(),
            }),
            What::Pay(number, amount) => pay(&name_of(number), amount),
            What::Log(number) => log(&name_of(number), "aud"),
            What::Meter => meter(),
        };
        let mut request = request(self.tenant, command);
        if let Some(number) = self.key {
            request = by(Actor::Key(prefix(unique(self.tenant, number))), request);
        }
        match self.once {
            Some((key, fingerprint)) => once(key, fingerprint, request),
            None => request,
        }
    }
}

/// No two tenants have the same key.
fn unique(tenant: &str, number: u32) -> u32 {
    number + if tenant == "t" { 0 } else { 1000 }
}

fn name_of(session: u32) -> String {
    format!("s{session}")
}

fn agent_of(session: u32) -> String {
    format!("agent-{}", session % 3)
}

fn outcome(answer: Result<Receipt, LedgerError>) -> Outcome {
    let receipt = match answer {
        Ok(receipt) => receipt,
        Err(LedgerError::Refused(refusal)) => return Outcome::Refused(refusal),
        Err(other) => panic!("{other}"),
    };
    let [committed] = &receipt.events[..] else {
        assert!(receipt.events.is_empty());
        return Outcome::Nothing;
    };
    let recorded = &committed.recorded;
    if receipt.is_replay {
        return Outcome::Replayed { seq: recorded.seq };
    }
    Outcome::Happened { seq: recorded.seq, at_us: recorded.at.micros(), event: Happened::of(&recorded.event) }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(any_ask(), 1..6).prop_map(Step::Ask),
        3 => prop::sample::select(vec![-5000, -1, 0, 1, 10, 86_399, 86_400, 100_000]).prop_map(Step::MoveClock),
        1 => Just(Step::Restart),
    ]
}

fn any_ask() -> impl Strategy<Value = Ask> {
    (
        prop_oneof![3 => Just("t"), 1 => Just("t_")],
        prop_oneof![2 => Just(None), 1 => (0..3_u32).prop_map(Some)],
        prop_oneof![2 => Just(None), 1 => (0..4_u8, prop_oneof![4 => Just(0), 1 => Just(1)]).prop_map(Some)],
        any_what(),
    )
        .prop_map(|(tenant, key, once, what)| Ask { tenant, key, once, what })
}

fn any_what() -> impl Strategy<Value = What> {
    let session = || 0..5_u32;
    let open = (
        prop::bool::weighted(0.8),
        prop::option::weighted(0.8, 0..500_u128),
        prop::sample::select(vec![0, 0, 1, 10, 90_000]),
        prop::option::weighted(0.3, 0..3_u64),
    );
    prop_oneof![
        2 => (0..4_u32).prop_map(What::Mint),
        1 => (0..4_u32).prop_map(What::RevokeKey),
        3 => open.prop_map(|(may_spend, cap, ttl_s, agents_max)| What::Open { may_spend, cap, ttl_s, agents_max }),
        1 => session().prop_map(What::RevokeSession),
        2 => (session(), prop::sample::select(vec!["spend", "spend:more", "read", "write"]))
            .prop_map(|(session, scope)| What::Check(session, scope)),
        6 => (session(), 0..200_u128).prop_map(|(session, amount)| What::Pay(session, amount)),
        2 => session().prop_map(What::Log),
        1 => Just(What::Meter),
    ]
}
