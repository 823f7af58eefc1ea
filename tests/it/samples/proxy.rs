//! A stream about upstreams, policies and calls of the proxy, as the rules give it.

use haldir::domain::approvals::{DecideApproval, Verdict};
use haldir::domain::calls::{AuthorizeCall, CompleteCall, Method, Outcome, SecretUse};
use haldir::domain::id::{Actor, AgentId, ApprovalId, CallId, SessionId};
use haldir::domain::keys::MintKey;
use haldir::domain::money::Money;
use haldir::domain::policies::{
    AddPolicy, Amount, ArgumentTest, Facts, Policy, Price, RemovePolicy, ReplacePolicies,
};
use haldir::domain::scope::{Grant, KeyScopes};
use haldir::domain::secrets::{SecretName, StoreSecret};
use haldir::domain::sessions::{OpenSession, RevokeSession};
use haldir::domain::upstreams::{
    AcceptTool, ObserveTools, Pin, RegisterUpstream, RemoveUpstream, Setting, Transport, UpstreamName,
};
use haldir::domain::{Command, Recorded};

use super::{prefix, told};

/// Where the upstreams below are registered in the stream.
const PAY: u64 = 4;
const DOCS: u64 = 5;

/// The stream of the document's set of test vectors about the proxy.
pub(crate) fn recorded_proxy() -> Vec<Recorded> {
    let key = || Actor::Key(prefix());
    let mut story = vec![
        (0, Actor::FirstCaller, mint()),
        (1, key(), open("buyer", &["execute", "spend"], Some("10"))),
        (2, key(), open("reader", &["read:docs"], None)),
        (3, key(), store_secret()),
        (4, key(), register_pay()),
        (5, key(), register_docs()),
        (6, Actor::System, observe("docs", &[("search", 3)])),
        (7, Actor::System, observe("pay", &[("charge", 9), ("refund", 2), ("void", 8)])),
        (8, key(), accept("pay", "charge", 9)),
    ];
    story.extend(
        (10..).zip(policies()).map(|(at, policy)| (at, key(), Command::AddPolicy(AddPolicy { policy }))),
    );
    let call =
        |number, session, name, upstream: Option<&str>, facts| call(number, session, name, upstream, facts);
    let paid =
        |amount| Facts { amount: Amount::Is(usd(amount)), price: Amount::Is(usd(amount)), ..facts(12) };
    let with_secret = |call: AuthorizeCall, name: &str, opened| AuthorizeCall {
        secrets: vec![SecretUse { name: SecretName::parse(name).unwrap(), opened }],
        ..call
    };
    let of = |call: AuthorizeCall| Command::AuthorizeCall(call);
    story.extend([
        (30, key(), of(call(1, "reader", "search", None, facts(12)))),
        (31, key(), complete(1, Outcome::Succeeded)),
        (
            32,
            key(),
            of(with_secret(
                call(2, "buyer", "charge", Some("pay"), paid("4.5")),
                "pay/token",
                Some([0x44; 32]),
            )),
        ),
        (33, key(), complete(2, Outcome::TimedOut)),
        (34, key(), of(call(3, "buyer", "charge", Some("pay"), paid("6")))),
        (35, key(), of(call(4, "buyer", "charge", Some("pay"), paid("20.000000001")))),
        (36, key(), of(call(5, "buyer", "refund", Some("pay"), facts(12)))),
        (37, key(), approve(5)),
        (38, key(), of(call(6, "buyer", "refund", Some("pay"), facts(12)))),
        (39, key(), complete(6, Outcome::NotSent)),
        (40, key(), of(call(7, "buyer", "void", Some("pay"), facts(12)))),
        (
            41,
            key(),
            of(AuthorizeCall {
                method: Method::Resource,
                ..call(8, "reader", "docs://manual/é", Some("docs"), facts(12))
            }),
        ),
        (42, key(), complete(8, Outcome::Failed)),
        (
            43,
            key(),
            of(AuthorizeCall { method: Method::Prompt, ..call(9, "reader", "greet", None, facts(12)) }),
        ),
        (44, key(), of(call(10, "reader", "charge", Some("pay"), paid("1")))),
        (45, key(), of(with_secret(call(11, "buyer", "charge", Some("pay"), paid("1")), "nothing", None))),
        (46, key(), of(call(12, "buyer", "charge", Some("pay"), Facts { broken: vec![10], ..paid("1") }))),
        (
            47,
            key(),
            Command::ReplacePolicies(ReplacePolicies {
                policies: policies()
                    .into_iter()
                    .take(10)
                    .chain([Policy::DenyList { tools: vec![] }])
                    .collect(),
                expected: Some(12),
            }),
        ),
        (48, key(), Command::RemovePolicy(RemovePolicy { policy_id: 1 })),
        (49, key(), Command::RemoveUpstream(RemoveUpstream { name: name("docs") })),
        (50, key(), Command::RevokeSession(RevokeSession { session_id: session("buyer") })),
        (51, key(), of(call(13, "buyer", "charge", Some("pay"), Facts { revision: 16, ..paid("1") }))),
    ]);
    told(story)
}

fn policies() -> Vec<Policy> {
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let argument = |argument: &str, test| Policy::Argument {
        tools: list(&["pay.charge"]),
        argument: argument.into(),
        test,
    };
    vec![
        Policy::BlockTool { tool: "shell".into() },
        Policy::AllowList { tools: list(&["charge", "refund", "void", "search", "resources/read"]) },
        Policy::DenyList { tools: list(&["docs.delete", "drop"]) },
        Policy::SpendLimit { max: usd("20") },
        Policy::RateLimit { max_per_minute: 60 },
        Policy::TimeWindow { start: 0, end: 1440, days: 0b111_1111, zone: "Europe/Berlin".into() },
        Policy::RequireApproval { tools: list(&["pay.refund"]), above: None, required: 1 },
        Policy::Price { tools: list(&["charge"]), price: Price::Argument("amount".into()) },
        Policy::Price { tools: list(&["refund"]), price: Price::Fixed(usd("0.25")) },
        argument("customer.id", ArgumentTest::Match("^cus_[a-z0-9]+$".into())),
        argument("override", ArgumentTest::Deny),
        Policy::Redact { tools: vec![], arguments: list(&["card.number"]), results: list(&["email"]) },
    ]
}

fn usd(text: &str) -> Money {
    Money::parse(text).unwrap()
}

fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

fn name(text: &str) -> UpstreamName {
    UpstreamName::parse(text).unwrap()
}

fn mint() -> Command {
    let (name, scopes) = ("first".to_owned(), KeyScopes::all());
    Command::MintKey(MintKey { prefix: prefix(), hash: [0x11; 32], name, scopes })
}

fn open(name: &str, scopes: &[&str], cap: Option<&str>) -> Command {
    Command::OpenSession(OpenSession {
        session_id: session(name),
        agent_id: AgentId::parse(&format!("{name}-agent")).unwrap(),
        grant: Grant { scopes: scopes.iter().map(ToString::to_string).collect(), cap: cap.map(usd) },
        scopes_are_default: false,
        ttl_s: 3600,
        parent: None,
        agent_limit: None,
    })
}

fn store_secret() -> Command {
    Command::StoreSecret(StoreSecret {
        name: SecretName::parse("pay/token").unwrap(),
        required_scope: "execute".to_owned(),
        digest: [0x44; 32],
        sealed_len: 64,
    })
}

fn pins(tools: &[(&str, u8)]) -> Vec<Pin> {
    tools.iter().map(|(tool, digest)| Pin { tool: (*tool).to_owned(), digest: [*digest; 32] }).collect()
}

fn register_pay() -> Command {
    let value = "Bearer secret://pay/token".to_owned();
    let headers = vec![Setting { name: "Authorization".to_owned(), value }];
    Command::RegisterUpstream(RegisterUpstream {
        name: name("pay"),
        transport: Transport::Http { url: "https://pay.example.com/mcp".to_owned(), headers },
        tools: Some(pins(&[("charge", 1), ("refund", 2)])),
    })
}

fn register_docs() -> Command {
    Command::RegisterUpstream(RegisterUpstream {
        name: name("docs"),
        transport: Transport::Stdio {
            command: "docs-server".to_owned(),
            args: vec!["--root".to_owned(), "/srv/docs".to_owned()],
            env: vec![Setting { name: "LANG".to_owned(), value: "C.UTF-8".to_owned() }],
        },
        tools: None,
    })
}

fn observe(upstream: &str, tools: &[(&str, u8)]) -> Command {
    Command::ObserveTools(ObserveTools { name: name(upstream), tools: pins(tools) })
}

fn accept(upstream: &str, tool: &str, digest: u8) -> Command {
    Command::AcceptTool(AcceptTool {
        name: name(upstream),
        tool: tool.to_owned(),
        digest: [digest; 32],
        decider: "alice".to_owned(),
        note: "a new currency".to_owned(),
    })
}

/// What is looked up about a call: it is Friday, 10:13, by the clocks of the time window.
fn facts(revision: u64) -> Facts {
    Facts { revision, minutes: vec![(6, 4 * 1440 + 613)], ..Facts::default() }
}

fn call(number: u8, session_name: &str, tool: &str, upstream: Option<&str>, facts: Facts) -> AuthorizeCall {
    let registration = match (upstream, tool) {
        (Some("pay"), _) => Some(PAY),
        (Some(_), _) | (None, "search") => Some(DOCS),
        (None, _) => None,
    };
    AuthorizeCall {
        call_id: CallId::issue([number; 16]),
        session_id: session(session_name),
        method: Method::Tool,
        upstream: upstream.map(name),
        name: tool.to_owned(),
        facts,
        registration,
        arguments: [0x55; 32],
        secrets: vec![],
        approval_id: None,
        request_id: ApprovalId::issue([number; 16]),
    }
}

fn complete(number: u8, outcome: Outcome) -> Command {
    Command::CompleteCall(CompleteCall {
        call_id: CallId::issue([number; 16]),
        outcome,
        duration_us: 1_500,
        details_digest: (outcome == Outcome::Succeeded).then_some([0x66; 32]),
    })
}

fn approve(number: u8) -> Command {
    Command::DecideApproval(DecideApproval {
        approval_id: ApprovalId::issue([number; 16]),
        verdict: Verdict::Approve { amount: None, ttl_s: None },
        decider: "alice".to_owned(),
        note: "as agreed".to_owned(),
    })
}
