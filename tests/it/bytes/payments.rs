//! Any event about delegation, caps, reservations and approvals, and the largest of each kind.

use haldir::domain::Event;
use haldir::domain::accounts::{Account, Bound, BudgetSet, Window};
use haldir::domain::approvals::{
    ApprovalDenied, ApprovalExpired, ApprovalGranted, ApprovalRequested, ApprovalRuleAdded,
    ApprovalRuleRemoved, Origin, Rule, Subject,
};
use haldir::domain::budgets::{PaymentAuthorized, PaymentDenial, PaymentDenied};
use haldir::domain::delegation::{DelegationDenial, DelegationDenied};
use haldir::domain::id::{AgentId, ApprovalId, AuthorizationId, SessionId};
use haldir::domain::limits::{
    ACTION_CHARS_MAX, AGENT_ID_CHARS_MAX, CALL_NAME_CHARS_MAX, CURRENCY_CHARS_MAX, DECIDER_CHARS_MAX,
    DESCRIPTION_CHARS_MAX, NOTE_CHARS_MAX, REASON_CHARS_MAX, RULE_KIND_CHARS_MAX, RULE_TOOL_COUNT_MAX,
    SCOPE_CHARS_MAX, SESSION_ID_CHARS_MAX, SESSION_SCOPE_COUNT_MAX, TOOL_CHARS_MAX,
};
use haldir::domain::money::Money;
use haldir::domain::reservations::{PaymentReleased, PaymentReserved, PaymentSettled, SettlementDenied};
use haldir::domain::time::Timestamp;
use proptest::prelude::*;

/// Texts, numbers and choices from which any event of these kinds can be made.
#[derive(Debug, Clone)]
struct Stuff {
    texts: Vec<String>,
    numbers: Vec<u128>,
    bytes: [u8; 32],
    choice: u8,
}

impl Stuff {
    fn text(&self, at: usize, chars_max: usize) -> String {
        self.texts[at % self.texts.len()].chars().take(chars_max).collect()
    }

    fn session_id(&self) -> SessionId {
        SessionId::parse(&self.text(0, SESSION_ID_CHARS_MAX)).unwrap()
    }

    fn agent_id(&self) -> AgentId {
        AgentId::parse(&self.text(1, AGENT_ID_CHARS_MAX)).unwrap()
    }

    fn authorization_id(&self) -> AuthorizationId {
        AuthorizationId::parse(&self.text(2, 64)).unwrap()
    }

    fn approval_id(&self) -> ApprovalId {
        ApprovalId::parse(&self.text(3, 64)).unwrap()
    }

    fn money(&self, at: usize) -> Money {
        Money::from_nanos(self.numbers[at])
    }

    fn number(&self, at: usize) -> u64 {
        u64::try_from(self.numbers[at] >> 64).unwrap()
    }

    fn time(&self, at: usize) -> Timestamp {
        Timestamp::from_micros(self.number(at))
    }

    /// Present or absent, as the choice has it.
    fn maybe<T>(&self, bit: u8, value: T) -> Option<T> {
        (self.choice >> bit & 1 == 1).then_some(value)
    }

    fn window(&self) -> Window {
        Window::ALL[usize::from(self.choice % 4)]
    }

    fn account(&self) -> Account {
        match self.choice % 3 {
            0 => Account::Session(self.session_id()),
            1 => Account::Agent(self.agent_id()),
            _ => Account::Tenant,
        }
    }

    fn subject(&self) -> Subject {
        Subject {
            session_id: self.session_id(),
            tool: self.text(4, TOOL_CHARS_MAX),
            action: self.text(5, CALL_NAME_CHARS_MAX),
            currency: self.text(1, CURRENCY_CHARS_MAX),
            description: self.text(2, DESCRIPTION_CHARS_MAX),
            arguments: self.maybe(0, self.bytes),
        }
    }

    #[expect(clippy::too_many_lines, reason = "one of each kind")]
    fn events(&self) -> Vec<Event> {
        let denials = [
            DelegationDenial::ParentRevoked,
            DelegationDenial::ParentExpired,
            DelegationDenial::TooDeep,
            DelegationDenial::ScopeBeyondParent,
            DelegationDenial::BudgetBeyondParent,
        ];
        let payment_denials = [
            PaymentDenial::SessionRevoked,
            PaymentDenial::SessionExpired,
            PaymentDenial::SpendScopeMissing,
            PaymentDenial::BudgetExceeded,
            PaymentDenial::ApprovalNotCovering,
            PaymentDenial::ApprovalDenied,
            PaymentDenial::ApprovalRequired,
        ];
        let choose = |count: usize| usize::from(self.choice) % count;
        let (authorization_id, session_id, agent_id) =
            (self.authorization_id(), self.session_id(), self.agent_id());
        vec![
            Event::DelegationDenied(DelegationDenied {
                parent: session_id.clone(),
                agent_id: agent_id.clone(),
                scopes: self
                    .texts
                    .iter()
                    .cycle()
                    .take(if self.choice == u8::MAX { SESSION_SCOPE_COUNT_MAX } else { 3 })
                    .map(|text| text.chars().take(SCOPE_CHARS_MAX).collect())
                    .collect(),
                cap: self.maybe(1, self.money(0)),
                reason: denials[choose(5)],
            }),
            Event::PaymentAuthorized(PaymentAuthorized {
                authorization_id: authorization_id.clone(),
                session_id: session_id.clone(),
                agent_id: agent_id.clone(),
                amount: self.money(0),
                currency: self.text(4, CURRENCY_CHARS_MAX),
                description: self.text(5, DESCRIPTION_CHARS_MAX),
                tool: self.text(3, TOOL_CHARS_MAX),
                action: self.text(4, ACTION_CHARS_MAX),
                approval_id: self.maybe(2, self.approval_id()),
                remaining: self.maybe(3, self.money(1)),
            }),
            Event::PaymentDenied(PaymentDenied {
                authorization_id: authorization_id.clone(),
                session_id: session_id.clone(),
                agent_id: agent_id.clone(),
                amount: self.money(0),
                currency: self.text(4, CURRENCY_CHARS_MAX),
                description: self.text(5, DESCRIPTION_CHARS_MAX),
                tool: self.text(3, TOOL_CHARS_MAX),
                action: self.text(4, ACTION_CHARS_MAX),
                remaining: self.maybe(3, self.money(1)),
                reason: payment_denials[choose(7)],
                bound: self.maybe(4, Bound { account: self.account(), window: self.window() }),
                approval_id: self.maybe(2, self.approval_id()),
            }),
            Event::PaymentReserved(PaymentReserved {
                authorization_id: authorization_id.clone(),
                session_id: session_id.clone(),
                agent_id: agent_id.clone(),
                amount: self.money(0),
                currency: self.text(4, CURRENCY_CHARS_MAX),
                description: self.text(5, DESCRIPTION_CHARS_MAX),
                tool: self.text(3, TOOL_CHARS_MAX),
                action: self.text(4, ACTION_CHARS_MAX),
                approval_id: self.maybe(2, self.approval_id()),
                remaining: self.maybe(3, self.money(1)),
                ttl_s: self.number(1),
                expires_at: self.time(0),
            }),
            Event::PaymentSettled(PaymentSettled {
                authorization_id: authorization_id.clone(),
                session_id: session_id.clone(),
                agent_id: agent_id.clone(),
                amount: self.money(0),
                reserved: self.money(1),
            }),
            Event::SettlementDenied(SettlementDenied {
                authorization_id: authorization_id.clone(),
                session_id: session_id.clone(),
                agent_id: agent_id.clone(),
                amount: self.money(0),
                reserved: self.money(1),
            }),
            Event::PaymentReleased(PaymentReleased {
                authorization_id,
                session_id,
                agent_id: agent_id.clone(),
                amount: self.money(0),
                has_expired: self.choice % 2 == 1,
            }),
            Event::BudgetSet(BudgetSet {
                account: self.account(),
                window: self.window(),
                limit: self.maybe(5, self.money(0)),
            }),
            Event::ApprovalRuleAdded(ApprovalRuleAdded {
                rule_id: self.number(0),
                rule: Rule {
                    kind: self.text(4, RULE_KIND_CHARS_MAX),
                    threshold: self.money(1),
                    tools: self
                        .texts
                        .iter()
                        .cycle()
                        .take(if self.choice == u8::MAX { RULE_TOOL_COUNT_MAX } else { 2 })
                        .map(|text| text.chars().take(TOOL_CHARS_MAX).collect())
                        .collect(),
                    required: self.choice,
                },
            }),
            Event::ApprovalRuleRemoved(ApprovalRuleRemoved { rule_id: self.number(1) }),
            Event::ApprovalRequested(ApprovalRequested {
                approval_id: self.approval_id(),
                subject: self.subject(),
                agent_id,
                amount: self.money(0),
                reason: self.text(3, REASON_CHARS_MAX),
                ttl_s: self.number(0),
                expires_at: self.maybe(6, self.time(1)),
                required: self.choice,
                origin: [Origin::Caller, Origin::Payment, Origin::Call][usize::from(self.choice % 3)],
            }),
            Event::ApprovalGranted(ApprovalGranted {
                approval_id: self.approval_id(),
                decider: self.text(4, DECIDER_CHARS_MAX),
                note: self.text(5, NOTE_CHARS_MAX),
                amount: self.maybe(0, self.money(0)),
                ttl_s: self.maybe(1, self.number(0)),
                usable_until: self.maybe(2, self.time(0)),
                missing: self.choice,
            }),
            Event::ApprovalDenied(ApprovalDenied {
                approval_id: self.approval_id(),
                decider: self.text(4, DECIDER_CHARS_MAX),
                note: self.text(5, NOTE_CHARS_MAX),
            }),
            Event::ApprovalExpired(ApprovalExpired { approval_id: self.approval_id() }),
        ]
    }
}

pub(super) fn any_payment_event() -> impl Strategy<Value = Event> {
    let texts = prop::collection::vec(
        prop_oneof![
            Just(String::new()),
            prop::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter)
        ],
        6,
    );
    let numbers = prop::collection::vec(any::<u128>(), 2);
    (texts, numbers, any::<[u8; 32]>(), any::<u8>(), any::<prop::sample::Index>()).prop_map(
        |(texts, numbers, bytes, choice, kind)| {
            let mut events = Stuff { texts, numbers, bytes, choice }.events();
            events.swap_remove(kind.index(events.len()))
        },
    )
}

/// Every kind with everything as long as it may be.
pub(super) fn largest_payment_events() -> Vec<Event> {
    let texts = vec!["\u{10ffff}".repeat(NOTE_CHARS_MAX); 6];
    Stuff { texts, numbers: vec![u128::MAX; 2], bytes: [0xff; 32], choice: u8::MAX }.events()
}
