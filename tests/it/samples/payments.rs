//! A stream about delegation, caps, reservations and approvals, as the rules give it.

use haldir::domain::accounts::{Account, SetBudget, Window};
use haldir::domain::approvals::{
    AddApprovalRule, DecideApproval, ExpireApproval, RemoveApprovalRule, RequestApproval, Rule, Subject,
    Verdict,
};
use haldir::domain::budgets::AuthorizePayment;
use haldir::domain::id::{Actor, AgentId, ApprovalId, AuthorizationId, SessionId};
use haldir::domain::keys::MintKey;
use haldir::domain::money::Money;
use haldir::domain::reservations::{ExpireReservation, ReleasePayment, ReservePayment, SettlePayment};

use haldir::domain::scope::{Grant, KeyScopes};
use haldir::domain::sessions::{OpenSession, RevokeSession};
use haldir::domain::{Command, Recorded};

use super::{prefix, told};

/// The stream of the document's third set of test vectors.
pub(crate) fn recorded_payments() -> Vec<Recorded> {
    let key = || Actor::Key(prefix());
    let minutes = |count: u64| count * 60;
    told(vec![
        (0, Actor::FirstCaller, mint()),
        (1, key(), open("root", None, Some("100"))),
        (2, key(), open("child", Some("root"), Some("40"))),
        (3, key(), open("greedy", Some("child"), Some("41"))),
        (4, key(), set(Account::Agent(agent("agent-1")), Window::Day, Some("50"))),
        (5, key(), set(Account::Session(session("child")), Window::Hour, Some("30"))),
        (6, key(), set(Account::Tenant, Window::Month, Some("1000"))),
        (7, key(), set(Account::Tenant, Window::Month, None)),
        (8, key(), Command::ReservePayment(ReservePayment { payment: pay("child", "20", 1), ttl_s: 900 })),
        (9, key(), settle(1, Some("20.000000001"))),
        (10, key(), settle(1, Some("19.5"))),
        (11, key(), Command::AuthorizePayment(pay("child", "20", 2))),
        (12, key(), Command::ReservePayment(ReservePayment { payment: pay("root", "1", 3), ttl_s: 60 })),
        (13, key(), Command::ReservePayment(ReservePayment { payment: pay("root", "2", 4), ttl_s: 60 })),
        (14, key(), Command::ReleasePayment(ReleasePayment { authorization_id: authorization(3) })),
        (
            15 + minutes(1),
            Actor::System,
            Command::ExpireReservation(ExpireReservation { authorization_id: authorization(4) }),
        ),
        (100, key(), add_rule("spend_over", "5", 2)),
        (101, key(), add_rule("tool_blocked", "0", 1)),
        (102, key(), Command::RemoveApprovalRule(RemoveApprovalRule { rule_id: 2 })),
        (103, key(), Command::AuthorizePayment(with_subject(pay("root", "6", 5)))),
        (104, key(), decide(5, "alice", Verdict::Approve { amount: Some(usd("5.5")), ttl_s: Some(600) })),
        (105, Actor::ApprovalLink, decide(5, "link", Verdict::Approve { amount: None, ttl_s: None })),
        (106, key(), Command::AuthorizePayment(with_subject(pay("root", "5.5", 6)))),
        (107, key(), request(7, 3600)),
        (108, key(), decide(7, "alice", Verdict::Deny)),
        (109, key(), request(8, 60)),
        (
            110 + minutes(1),
            Actor::System,
            Command::ExpireApproval(ExpireApproval { approval_id: approval(8) }),
        ),
        (
            200,
            key(),
            Command::AuthorizePayment(AuthorizePayment {
                approval_id: Some(approval(7)),
                ..pay("root", "1", 9)
            }),
        ),
        (201, key(), Command::RevokeSession(RevokeSession { session_id: session("root") })),
        (202, key(), open("late", Some("child"), None)),
    ])
}

fn usd(text: &str) -> Money {
    Money::parse(text).unwrap()
}

fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

fn agent(name: &str) -> AgentId {
    AgentId::parse(name).unwrap()
}

fn authorization(number: u8) -> AuthorizationId {
    AuthorizationId::issue([number; 16])
}

fn approval(number: u8) -> ApprovalId {
    ApprovalId::issue([number; 16])
}

fn mint() -> Command {
    let (name, scopes) = ("first".to_owned(), KeyScopes::all());
    Command::MintKey(MintKey { prefix: prefix(), hash: [0x11; 32], name, scopes })
}

fn open(name: &str, parent: Option<&str>, cap: Option<&str>) -> Command {
    Command::OpenSession(OpenSession {
        session_id: session(name),
        agent_id: agent("agent-1"),
        grant: Grant { scopes: vec!["spend".to_owned()], cap: cap.map(usd) },
        scopes_are_default: false,
        ttl_s: 3600,
        parent: parent.map(session),
        agent_limit: None,
    })
}

fn set(account: Account, window: Window, limit: Option<&str>) -> Command {
    Command::SetBudget(SetBudget { account, window, limit: limit.map(usd) })
}

fn pay(name: &str, amount: &str, number: u8) -> AuthorizePayment {
    AuthorizePayment {
        authorization_id: authorization(number),
        session_id: session(name),
        amount: usd(amount),
        currency: "USD".to_owned(),
        description: "hosting".to_owned(),
        tool: String::new(),
        action: String::new(),
        approval_id: None,
        request_id: approval(number),
    }
}

fn with_subject(payment: AuthorizePayment) -> AuthorizePayment {
    AuthorizePayment { tool: "stripe".to_owned(), action: "charge".to_owned(), ..payment }
}

fn settle(number: u8, amount: Option<&str>) -> Command {
    let (authorization_id, amount) = (authorization(number), amount.map(usd));
    Command::SettlePayment(SettlePayment { authorization_id, amount })
}

fn add_rule(kind: &str, threshold: &str, required: u8) -> Command {
    let (kind, threshold) = (kind.to_owned(), usd(threshold));
    Command::AddApprovalRule(AddApprovalRule {
        rule: Rule { kind, threshold, tools: vec!["shell".to_owned()], required },
    })
}

fn request(number: u8, ttl_s: u64) -> Command {
    let subject = Subject {
        session_id: session("child"),
        tool: "crm".to_owned(),
        action: "delete".to_owned(),
        currency: String::new(),
        description: String::new(),
        arguments: Some([number; 32]),
    };
    let (approval_id, reason) = (approval(number), "clean up".to_owned());
    Command::RequestApproval(RequestApproval {
        approval_id,
        subject,
        amount: usd("0"),
        reason,
        ttl_s,
        required: 1,
    })
}

fn decide(number: u8, decider: &str, verdict: Verdict) -> Command {
    let (decider, note) = (decider.to_owned(), "as agreed".to_owned());
    Command::DecideApproval(DecideApproval { approval_id: approval(number), verdict, decider, note })
}
