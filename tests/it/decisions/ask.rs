//! What can be asked for, with few names, so that much of it concerns the same things.

use haldir::domain::Command;
use haldir::domain::Tenant;
use haldir::domain::accounts::{Account, SetBudget, Window};
use haldir::domain::approvals::{
    AddApprovalRule, DecideApproval, Origin, RemoveApprovalRule, RequestApproval, Rule, Subject, Verdict,
};
use haldir::domain::audit::LogAction;
use haldir::domain::budgets::AuthorizePayment;
use haldir::domain::calls::{AuthorizeCall, CompleteCall, Method, Outcome, SecretUse};
use haldir::domain::id::{AgentId, ApprovalId, AuthorizationId, CallId, EntryId, SessionId};
use haldir::domain::money::Money;
use haldir::domain::policies::{
    AddPolicy, Amount, ArgumentTest, Facts, Policy, Price, RemovePolicy, ReplacePolicies,
};
use haldir::domain::reservations::{ReleasePayment, ReservePayment, SettlePayment};
use haldir::domain::scope::Grant;
use haldir::domain::secrets::{DeleteSecret, SecretName, StoreSecret};
use haldir::domain::sessions::{OpenSession, RevokeSession};
use haldir::domain::upstreams::{
    AcceptTool, ObserveTools, Pin, RegisterUpstream, RemoveUpstream, Transport, UpstreamName,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

const UPSTREAMS: [&str; 2] = ["pay", "docs"];
const TOOLS: [&str; 3] = ["charge", "refund", "docs.charge"];
const SECRETS: [&str; 2] = ["token", "other"];

#[derive(Debug, Clone)]
pub(super) enum Ask {
    Open {
        parent: Option<u8>,
        scopes: Vec<&'static str>,
        cap: Option<u64>,
        ttl_s: u64,
    },
    Revoke(u8),
    Cap(Account, Window, Option<u64>),
    Pay {
        session: u8,
        amount: u64,
        named: Option<Index>,
    },
    Reserve {
        session: u8,
        amount: u64,
        ttl_s: u64,
    },
    Settle(Index, u64),
    Release(Index),
    Log(u8),
    AddRule(&'static str, u64, u8),
    RemoveRule(u64),
    Request {
        session: u8,
        arguments: Option<u8>,
        amount: u64,
    },
    Decide {
        which: Index,
        decider: &'static str,
        approves: bool,
        amount: Option<u64>,
    },
    Store(usize, &'static str),
    Delete(usize),
    Register {
        upstream: usize,
        tools: Option<Vec<(usize, u8)>>,
    },
    RemoveUpstream(usize),
    Observe {
        upstream: usize,
        tools: Vec<(usize, u8)>,
    },
    Accept {
        upstream: usize,
        tool: usize,
        digest: u8,
    },
    AddPolicy(Policy),
    RemovePolicy(u64),
    Replace {
        policies: Vec<Policy>,
        keeps: usize,
    },
    Call(Call),
    /// Once more what an approval was asked for.
    Again(Index, Call),
    Complete(Index, Outcome),
}

#[derive(Debug, Clone)]
pub(super) struct Call {
    session: u8,
    method: Method,
    upstream: Option<usize>,
    tool: usize,
    amount: Amount,
    price: Amount,
    broken: Vec<u64>,
    minute: u16,
    arguments: u8,
    secret: Option<usize>,
    named: Option<Index>,
    is_stale: bool,
}

impl Ask {
    /// The command, prepared for the state as operations do. `number` is another one each time.
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of command")]
    pub(super) fn command(self, state: &Tenant, number: usize) -> Command {
        match self {
            Self::Open { parent, scopes, cap, ttl_s } => Command::OpenSession(OpenSession {
                session_id: session_id(u8::try_from(number % 6).unwrap()),
                agent_id: AgentId::parse(["a", "b"][number % 2]).unwrap(),
                grant: Grant { scopes: scopes.into_iter().map(str::to_owned).collect(), cap: cap.map(usd) },
                scopes_are_default: false,
                ttl_s,
                parent: parent.map(session_id),
                agent_limit: None,
            }),
            Self::Revoke(session) => {
                Command::RevokeSession(RevokeSession { session_id: session_id(session) })
            }
            Self::Cap(account, window, limit) => {
                Command::SetBudget(SetBudget { account, window, limit: limit.map(usd) })
            }
            Self::Pay { session, amount, named } => {
                Command::AuthorizePayment(payment(state, session, amount, named, number))
            }
            Self::Reserve { session, amount, ttl_s } => Command::ReservePayment(ReservePayment {
                payment: payment(state, session, amount, None, number),
                ttl_s,
            }),
            Self::Settle(which, amount) => Command::SettlePayment(SettlePayment {
                authorization_id: reservation(state, which),
                amount: Some(usd(amount)),
            }),
            Self::Release(which) => release(reservation(state, which)),
            Self::Log(session) => Command::LogAction(LogAction {
                entry_id: EntryId::parse(&format!("aud_own_{number}")).unwrap(),
                session_id: session_id(session),
                action: "think".to_owned(),
                tool: String::new(),
                cost: Money::ZERO,
                details_digest: None,
            }),
            Self::AddRule(kind, threshold, required) => Command::AddApprovalRule(AddApprovalRule {
                rule: Rule {
                    kind: kind.to_owned(),
                    threshold: usd(threshold),
                    tools: vec!["pay".to_owned()],
                    required,
                },
            }),
            Self::RemoveRule(rule_id) => Command::RemoveApprovalRule(RemoveApprovalRule { rule_id }),
            Self::Request { session, arguments, amount } => Command::RequestApproval(RequestApproval {
                approval_id: approval_id(number),
                subject: Subject {
                    session_id: session_id(session),
                    tool: "pay".to_owned(),
                    action: "charge".to_owned(),
                    currency: String::new(),
                    description: String::new(),
                    arguments: arguments.map(|it| [it; 32]),
                },
                amount: usd(amount),
                reason: String::new(),
                ttl_s: 3600,
                required: 1,
            }),
            Self::Decide { which, decider, approves, amount } => {
                let amount = amount.map(usd);
                let verdict = if approves { Verdict::Approve { amount, ttl_s: None } } else { Verdict::Deny };
                let (decider, note) = (decider.to_owned(), String::new());
                let approval_id = approval(state, which);
                Command::DecideApproval(DecideApproval { approval_id, verdict, decider, note })
            }
            Self::Store(name, required_scope) => Command::StoreSecret(StoreSecret {
                name: secret(name),
                required_scope: required_scope.to_owned(),
                digest: digest(number),
                sealed_len: 64,
            }),
            Self::Delete(name) => Command::DeleteSecret(DeleteSecret { name: secret(name), version: None }),
            Self::Register { upstream, tools } => Command::RegisterUpstream(RegisterUpstream {
                name: upstream_name(upstream),
                transport: Transport::Http { url: "https://example.com".to_owned(), headers: vec![] },
                tools: tools.map(pins),
            }),
            Self::RemoveUpstream(upstream) => {
                Command::RemoveUpstream(RemoveUpstream { name: upstream_name(upstream) })
            }
            Self::Observe { upstream, tools } => {
                Command::ObserveTools(ObserveTools { name: upstream_name(upstream), tools: pins(tools) })
            }
            Self::Accept { upstream, tool, digest } => Command::AcceptTool(AcceptTool {
                name: upstream_name(upstream),
                tool: TOOLS[tool].to_owned(),
                digest: [digest; 32],
                decider: "alice".to_owned(),
                note: String::new(),
            }),
            Self::AddPolicy(policy) => Command::AddPolicy(AddPolicy { policy }),
            Self::RemovePolicy(policy_id) => Command::RemovePolicy(RemovePolicy { policy_id }),
            Self::Replace { policies, keeps } => {
                let kept = state.policies.all().map(|(_, policy)| policy.clone()).take(keeps);
                let policies = kept.chain(policies).collect();
                Command::ReplacePolicies(ReplacePolicies { policies, expected: None })
            }
            Self::Call(call) => Command::AuthorizeCall(call.command(state, number)),
            Self::Again(which, call) => Command::AuthorizeCall(again(state, which, call, number)),
            Self::Complete(which, outcome) => Command::CompleteCall(CompleteCall {
                call_id: open_call(state, which),
                outcome,
                duration_us: 1,
                details_digest: Some([1; 32]),
            }),
        }
    }
}

impl Call {
    fn command(self, state: &Tenant, number: usize) -> AuthorizeCall {
        let upstream = self.upstream.map(upstream_name);
        let resolved = || match self.method {
            Method::Tool => state.upstreams.resolve(TOOLS[self.tool]).map(|(found, _)| found.clone()),
            Method::Resource | Method::Prompt => None,
        };
        let found = upstream.clone().or_else(resolved);
        let minutes = state.policies.all().filter(|(_, policy)| matches!(policy, Policy::TimeWindow { .. }));
        let facts = Facts {
            revision: state.policies.revision() + u64::from(self.is_stale),
            amount: self.amount,
            price: self.price,
            broken: self.broken,
            minutes: minutes.map(|(policy_id, _)| (policy_id, self.minute)).collect(),
        };
        let opened = |name: usize| {
            let versions = state.secrets.all().find(|(it, _)| **it == secret(name));
            versions.and_then(|(_, it)| it.versions.last().map(|version| version.digest))
        };
        let secrets = self.secret.map(|name| SecretUse { name: secret(name), opened: opened(name) });
        AuthorizeCall {
            call_id: CallId::parse(&format!("call_{number}")).unwrap(),
            session_id: session_id(self.session),
            method: self.method,
            upstream,
            name: TOOLS[self.tool].to_owned(),
            facts,
            registration: found.and_then(|it| state.upstreams.get(&it)).map(|it| it.seq),
            arguments: [self.arguments; 32],
            secrets: secrets.into_iter().collect(),
            approval_id: self.named.map(|which| approval(state, which)),
            request_id: approval_id(number),
        }
    }
}

/// The same call as the one that an approval was asked for, if it was a call of something that is still there.
fn again(state: &Tenant, which: Index, call: Call, number: usize) -> AuthorizeCall {
    let mut command = call.command(state, number);
    let asked: Vec<_> = state.approvals.all().filter(|(_, it)| it.origin == Origin::Call).collect();
    let Some((_, asked)) = asked.get(which.index(asked.len().max(1))) else { return command };
    let upstream = UpstreamName::parse(&asked.subject.tool);
    command.session_id = asked.subject.session_id.clone();
    command.method = Method::Tool;
    command.registration = upstream.as_ref().and_then(|it| state.upstreams.get(it)).map(|it| it.seq);
    command.upstream = upstream;
    command.name.clone_from(&asked.subject.action);
    command.arguments = asked.subject.arguments.unwrap_or_default();
    command.facts.amount = Amount::Is(asked.amount);
    command.facts.price = Amount::Is(asked.amount);
    command.facts.broken.clear();
    command.approval_id = None;
    command
}

/// What there is from the beginning, so that not everything is denied at once.
pub(super) fn beginning() -> Vec<Command> {
    let open = |number: u8, cap| {
        Command::OpenSession(OpenSession {
            session_id: session_id(number),
            agent_id: AgentId::parse("a").unwrap(),
            grant: Grant { scopes: vec!["execute".to_owned(), "spend".to_owned()], cap },
            scopes_are_default: false,
            ttl_s: 0,
            parent: (number == 7).then(|| session_id(6)),
            agent_limit: None,
        })
    };
    let register = |upstream| {
        Command::RegisterUpstream(RegisterUpstream {
            name: upstream_name(upstream),
            transport: Transport::Http { url: "https://example.com".to_owned(), headers: vec![] },
            tools: Some(pins(vec![(0, 1), (1, 1)])),
        })
    };
    let price =
        Policy::Price { tools: vec!["charge".to_owned()], price: Price::Argument("amount".to_owned()) };
    vec![
        open(6, Some(usd(100))),
        open(7, None),
        register(0),
        register(1),
        Command::AddPolicy(AddPolicy { policy: price }),
        Command::StoreSecret(StoreSecret {
            name: secret(0),
            required_scope: "execute".to_owned(),
            digest: [9; 32],
            sealed_len: 64,
        }),
    ]
}

pub(super) fn not_sent(call_id: CallId) -> Command {
    let (outcome, duration_us) = (Outcome::NotSent, 0);
    Command::CompleteCall(CompleteCall { call_id, outcome, duration_us, details_digest: None })
}

pub(super) fn release(authorization_id: AuthorizationId) -> Command {
    Command::ReleasePayment(ReleasePayment { authorization_id })
}

fn payment(
    state: &Tenant,
    session: u8,
    amount: u64,
    named: Option<Index>,
    number: usize,
) -> AuthorizePayment {
    AuthorizePayment {
        authorization_id: AuthorizationId::parse(&format!("auth_{number}")).unwrap(),
        session_id: session_id(session),
        amount: usd(amount),
        currency: "USD".to_owned(),
        description: String::new(),
        tool: "pay".to_owned(),
        action: "charge".to_owned(),
        approval_id: named.map(|which| approval(state, which)),
        request_id: approval_id(number),
    }
}

fn usd(amount: u64) -> Money {
    Money::from_nanos(u128::from(amount))
}

fn session_id(number: u8) -> SessionId {
    SessionId::parse(&format!("s{number}")).unwrap()
}

fn approval_id(number: usize) -> ApprovalId {
    ApprovalId::parse(&format!("apr_{number}")).unwrap()
}

fn upstream_name(number: usize) -> UpstreamName {
    UpstreamName::parse(UPSTREAMS[number]).unwrap()
}

fn secret(number: usize) -> SecretName {
    SecretName::parse(SECRETS[number]).unwrap()
}

fn digest(number: usize) -> [u8; 32] {
    [u8::try_from(number % 256).unwrap(); 32]
}

fn pins(tools: Vec<(usize, u8)>) -> Vec<Pin> {
    let mut pins: Vec<Pin> = tools
        .into_iter()
        .map(|(tool, digest)| Pin { tool: TOOLS[tool].to_owned(), digest: [digest; 32] })
        .collect();
    pins.sort_by(|one, other| one.tool.cmp(&other.tool));
    pins.dedup_by(|one, other| one.tool == other.tool);
    pins
}

/// One of those that there are; or one that there is not, if there are none.
fn one_of<T: Clone>(those: &[T], which: Index, none: T) -> T {
    if those.is_empty() { none } else { those[which.index(those.len())].clone() }
}

fn approval(state: &Tenant, which: Index) -> ApprovalId {
    let all: Vec<_> = state.approvals.all().map(|(id, _)| id.clone()).collect();
    one_of(&all, which, approval_id(9999))
}

fn reservation(state: &Tenant, which: Index) -> AuthorizationId {
    let open: Vec<_> = state.reservations.open().map(|(id, _)| id.clone()).collect();
    one_of(&open, which, AuthorizationId::parse("none").unwrap())
}

fn open_call(state: &Tenant, which: Index) -> CallId {
    let open: Vec<_> = state.calls.open().map(|(id, _)| id.clone()).collect();
    one_of(&open, which, CallId::parse("none").unwrap())
}

pub(super) fn any_ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        30 => any_call().prop_map(Ask::Call),
        10 => (any::<Index>(), any_call()).prop_map(|(which, call)| Ask::Again(which, call)),
        15 => (any::<Index>(), any_outcome()).prop_map(|(which, outcome)| Ask::Complete(which, outcome)),
        10 => any_ask_about_the_proxy(),
        12 => any_ask_about_money(),
        16 => any_ask_about_people(),
        6 => any_ask_about_sessions(),
    ]
}

fn any_ask_about_sessions() -> impl Strategy<Value = Ask> {
    let scopes = prop::sample::subsequence(vec!["execute", "read:docs", "spend", "admin"], 0..=4);
    let ttl_s = select(vec![0, 1, 60, 3600]);
    let secret_scope = select(vec!["execute", "vault", ""]);
    prop_oneof![
        4 => (prop::option::of(any_session()), scopes, any_limit(), ttl_s)
            .prop_map(|(parent, scopes, cap, ttl_s)| Ask::Open { parent, scopes, cap, ttl_s }),
        1 => any_session().prop_map(Ask::Revoke),
        2 => (0..SECRETS.len(), secret_scope).prop_map(|(name, scope)| Ask::Store(name, scope)),
        1 => (0..SECRETS.len()).prop_map(Ask::Delete),
        2 => any_session().prop_map(Ask::Log),
    ]
}

fn any_ask_about_money() -> impl Strategy<Value = Ask> {
    let account = prop_oneof![
        any_session().prop_map(|number| Account::Session(session_id(number))),
        select(vec!["a", "b"]).prop_map(|agent| Account::Agent(AgentId::parse(agent).unwrap())),
        Just(Account::Tenant),
    ];
    let named = || prop::option::weighted(0.2, any::<Index>());
    prop_oneof![
        2 => (account, select(Window::ALL.to_vec()), any_limit())
            .prop_map(|(account, window, limit)| Ask::Cap(account, window, limit)),
        3 => (any_session(), any_amount(), named())
            .prop_map(|(session, amount, named)| Ask::Pay { session, amount, named }),
        3 => (any_session(), any_amount(), select(vec![1, 60, 3600]))
            .prop_map(|(session, amount, ttl_s)| Ask::Reserve { session, amount, ttl_s }),
        2 => (any::<Index>(), any_amount()).prop_map(|(which, amount)| Ask::Settle(which, amount)),
        1 => any::<Index>().prop_map(Ask::Release),
    ]
}

fn any_ask_about_people() -> impl Strategy<Value = Ask> {
    let rule = (select(vec!["all", "spend_over", "tool_blocked"]), any_amount(), 1..=2_u8);
    let decide = (any::<Index>(), select(vec!["alice", "bob"]), prop::bool::weighted(0.7), any_limit());
    prop_oneof![
        2 => rule.prop_map(|(kind, threshold, required)| Ask::AddRule(kind, threshold, required)),
        2 => (1..4_u64).prop_map(Ask::RemoveRule),
        2 => (any_session(), prop::option::of(0..2_u8), any_amount())
            .prop_map(|(session, arguments, amount)| Ask::Request { session, arguments, amount }),
        8 => decide.prop_map(|(which, decider, approves, amount)| {
            let amount = amount.filter(|_| approves);
            Ask::Decide { which, decider, approves, amount }
        }),
    ]
}

fn any_ask_about_the_proxy() -> impl Strategy<Value = Ask> {
    let tools = || prop::collection::vec((0..TOOLS.len(), 1..3_u8), 0..4);
    let upstream = || 0..UPSTREAMS.len();
    prop_oneof![
        2 => (upstream(), prop::option::weighted(0.8, tools()))
            .prop_map(|(upstream, tools)| Ask::Register { upstream, tools }),
        1 => upstream().prop_map(Ask::RemoveUpstream),
        2 => (upstream(), tools()).prop_map(|(upstream, tools)| Ask::Observe { upstream, tools }),
        4 => (upstream(), 0..TOOLS.len(), 1..3_u8)
            .prop_map(|(upstream, tool, digest)| Ask::Accept { upstream, tool, digest }),
        4 => any_policy().prop_map(Ask::AddPolicy),
        3 => (1..8_u64).prop_map(Ask::RemovePolicy),
        2 => (prop::collection::vec(any_policy(), 0..3), 0..3_usize)
            .prop_map(|(policies, keeps)| Ask::Replace { policies, keeps }),
    ]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let tools = || select(vec![vec![], vec!["charge".to_owned()], vec!["docs.charge".to_owned()]]);
    prop_oneof![
        1 => Just(Policy::BlockTool { tool: "docs.refund".to_owned() }),
        1 => Just(Policy::AllowList { tools: vec!["charge".to_owned(), "refund".to_owned()] }),
        1 => tools().prop_map(|tools| Policy::DenyList { tools }),
        2 => any_amount().prop_map(|max| Policy::SpendLimit { max: usd(max) }),
        2 => (1..4_u64).prop_map(|max_per_minute| Policy::RateLimit { max_per_minute }),
        1 => (0..1440_u16, 0..=1440_u16, any::<u8>()).prop_map(|(start, end, days)| {
            Policy::TimeWindow { start, end, days, zone: "UTC".to_owned() }
        }),
        2 => (tools(), any_limit(), 1..=2_u8).prop_map(|(tools, above, required)| {
            Policy::RequireApproval { tools, above: above.map(usd), required }
        }),
        3 => (tools(), any_amount()).prop_map(|(tools, amount)| {
            Policy::Price { tools, price: Price::Fixed(usd(amount)) }
        }),
        2 => tools().prop_map(|tools| Policy::Price { tools, price: Price::Argument("amount".to_owned()) }),
        1 => tools().prop_map(|tools| Policy::Argument {
            tools,
            argument: "a".to_owned(),
            test: ArgumentTest::Deny,
        }),
        1 => tools().prop_map(|tools| Policy::Redact { tools, arguments: vec!["a".to_owned()], results: vec![] }),
    ]
}

fn any_call() -> impl Strategy<Value = Call> {
    let method = prop_oneof![6 => Just(Method::Tool), 1 => Just(Method::Resource), 1 => Just(Method::Prompt)];
    let tool = prop_oneof![4 => 0..2_usize, 1 => Just(2)];
    let target = (method, prop::option::weighted(0.7, 0..UPSTREAMS.len()), tool);
    let broken = prop_oneof![4 => Just(vec![]), 1 => (1..8_u64).prop_map(|policy_id| vec![policy_id])];
    let facts = (any_said(), any_said(), broken, 0..10_080_u16);
    let rest = (
        0..2_u8,
        prop::option::weighted(0.2, prop_oneof![4 => Just(0), 1 => Just(1)]),
        prop::option::weighted(0.15, any::<Index>()),
        prop::bool::weighted(0.05),
    );
    (any_session(), target, facts, rest).prop_map(
        |(session, (method, upstream, tool), facts, (arguments, secret, named, is_stale))| {
            let (amount, price, broken, minute) = facts;
            Call {
                session,
                method,
                upstream,
                tool,
                amount,
                price,
                broken,
                minute,
                arguments,
                secret,
                named,
                is_stale,
            }
        },
    )
}

fn any_said() -> impl Strategy<Value = Amount> {
    prop_oneof![
        2 => Just(Amount::Absent),
        6 => any_amount().prop_map(|amount| Amount::Is(usd(amount))),
        1 => Just(Amount::Invalid),
    ]
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    select(vec![Outcome::Succeeded, Outcome::Failed, Outcome::NotSent, Outcome::TimedOut])
}

fn any_session() -> impl Strategy<Value = u8> {
    prop_oneof![3 => 6..8_u8, 1 => 0..6_u8]
}

fn any_amount() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..12_u64, 1 => 12..80_u64]
}

fn any_limit() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(0..60_u64)
}
