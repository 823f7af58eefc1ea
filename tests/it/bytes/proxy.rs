//! Any event about upstreams, policies and calls of the proxy, and the largest of each kind.

use haldir::domain::Event;
use haldir::domain::accounts::{Account, Bound, Window};
use haldir::domain::calls::{
    CallAuthorized, CallCompleted, CallDenial, CallDenied, Method, Outcome, SecretUse,
};
use haldir::domain::id::{AgentId, ApprovalId, CallId, SessionId};
use haldir::domain::limits::{
    AGENT_ID_CHARS_MAX, CALL_NAME_CHARS_MAX, CALL_SECRET_COUNT_MAX, DECIDER_CHARS_MAX, NOTE_CHARS_MAX,
    POLICY_COUNT_MAX, POLICY_PATH_CHARS_MAX, POLICY_PATH_COUNT_MAX, POLICY_PATTERN_CHARS_MAX,
    POLICY_TOOL_COUNT_MAX, POLICY_TOOL_LEN_MAX, SECRET_NAME_CHARS_MAX, SESSION_ID_CHARS_MAX,
    UPSTREAM_ARG_COUNT_MAX, UPSTREAM_NAME_LEN_MAX, UPSTREAM_SETTING_COUNT_MAX, UPSTREAM_TEXT_LEN_MAX,
    UPSTREAM_TOOL_COUNT_MAX, UPSTREAM_TOOL_LEN_MAX, URL_CHARS_MAX,
};
use haldir::domain::money::Money;
use haldir::domain::policies::{Amount, ArgumentTest, Facts, Policy, PolicyAdded, PolicyRemoved, Price};
use haldir::domain::secrets::SecretName;
use haldir::domain::upstreams::{
    Pin, Setting, Sighting, ToolAccepted, ToolsObserved, Transport, UpstreamName, UpstreamRegistered,
    UpstreamRemoved,
};
use proptest::prelude::*;

const DENIALS: [CallDenial; 12] = [
    CallDenial::SessionRevoked,
    CallDenial::SessionExpired,
    CallDenial::ToolUnknown,
    CallDenial::ToolQuarantined,
    CallDenial::ScopeMissing,
    CallDenial::Policy,
    CallDenial::SpendScopeMissing,
    CallDenial::BudgetExceeded,
    CallDenial::SecretDenied,
    CallDenial::ApprovalNotCovering,
    CallDenial::ApprovalDenied,
    CallDenial::ApprovalRequired,
];
const OUTCOMES: [Outcome; 8] = [
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Refused,
    Outcome::NotSent,
    Outcome::Lost,
    Outcome::TimedOut,
    Outcome::TooLarge,
    Outcome::Cancelled,
];
const METHODS: [Method; 3] = [Method::Tool, Method::Resource, Method::Prompt];

/// Texts, numbers and choices from which any event of these kinds can be made.
#[derive(Debug, Clone)]
struct Stuff {
    texts: Vec<String>,
    name: String,
    numbers: Vec<u128>,
    bytes: [u8; 32],
    choice: u8,
    /// Whether lists are as long as they may be.
    is_long: bool,
}

impl Stuff {
    fn text(&self, at: usize, chars_max: usize) -> String {
        self.texts[at % self.texts.len()].chars().take(chars_max).collect()
    }

    fn text_of_bytes(&self, at: usize, len_max: usize) -> String {
        let mut text = self.text(at, len_max);
        while text.len() > len_max {
            text.pop();
        }
        text
    }

    fn list<T>(&self, count_max: usize, item: impl Fn(usize) -> T) -> Vec<T> {
        (0..if self.is_long { count_max } else { usize::from(self.choice % 3) }).map(item).collect()
    }

    fn maybe<T>(&self, bit: u8, value: T) -> Option<T> {
        (self.choice >> bit & 1 == 1).then_some(value)
    }

    fn choose<T: Copy>(&self, among: &[T]) -> T {
        among[usize::from(self.choice) % among.len()]
    }

    fn number(&self, at: usize) -> u64 {
        u64::try_from(self.numbers[at] >> 64).unwrap()
    }

    fn minute(&self, at: usize) -> u16 {
        u16::try_from(self.numbers[at] >> 112).unwrap()
    }

    fn money(&self, at: usize) -> Money {
        Money::from_nanos(self.numbers[at])
    }

    fn session_id(&self) -> SessionId {
        SessionId::parse(&self.text(0, SESSION_ID_CHARS_MAX)).unwrap()
    }

    fn agent_id(&self) -> AgentId {
        AgentId::parse(&self.text(1, AGENT_ID_CHARS_MAX)).unwrap()
    }

    fn call_id(&self) -> CallId {
        CallId::parse(&self.text(2, 60)).unwrap()
    }

    fn approval_id(&self) -> ApprovalId {
        ApprovalId::parse(&self.text(3, 64)).unwrap()
    }

    fn upstream(&self) -> UpstreamName {
        UpstreamName::parse(&self.name).unwrap()
    }

    fn secret(&self) -> SecretName {
        let name = self.text(4, SECRET_NAME_CHARS_MAX);
        SecretName::parse(&name).unwrap_or_else(|| SecretName::parse("a/b").unwrap())
    }

    fn tool(&self, at: usize) -> String {
        self.text_of_bytes(at, UPSTREAM_TOOL_LEN_MAX)
    }

    fn transport(&self) -> Transport {
        let text = |at| self.text_of_bytes(at, UPSTREAM_TEXT_LEN_MAX);
        let setting = |at| Setting { name: text(at), value: text(at + 1) };
        let settings = self.list(UPSTREAM_SETTING_COUNT_MAX, setting);
        if self.choice >> 1 & 1 == 0 {
            return Transport::Http { url: self.text(5, URL_CHARS_MAX), headers: settings };
        }
        Transport::Stdio { command: text(5), args: self.list(UPSTREAM_ARG_COUNT_MAX, text), env: settings }
    }

    fn policies(&self) -> Vec<Policy> {
        let tools = || self.list(POLICY_TOOL_COUNT_MAX, |at| self.text_of_bytes(at, POLICY_TOOL_LEN_MAX));
        let path = |at| self.text(at, POLICY_PATH_CHARS_MAX);
        let pattern = || self.text(3, POLICY_PATTERN_CHARS_MAX);
        let tests = [
            ArgumentTest::Deny,
            ArgumentTest::Require,
            ArgumentTest::Match(pattern()),
            ArgumentTest::DenyMatch(pattern()),
        ];
        let mut policies = vec![
            Policy::BlockTool { tool: self.text_of_bytes(0, POLICY_TOOL_LEN_MAX) },
            Policy::AllowList { tools: tools() },
            Policy::DenyList { tools: tools() },
            Policy::SpendLimit { max: self.money(0) },
            Policy::RateLimit { max_per_minute: self.number(0) },
            Policy::TimeWindow {
                start: self.minute(0),
                end: self.minute(1),
                days: self.choice,
                zone: self.text(2, 64),
            },
            Policy::RequireApproval {
                tools: tools(),
                above: self.maybe(1, self.money(1)),
                required: self.choice,
            },
            Policy::Price { tools: tools(), price: Price::Fixed(self.money(0)) },
            Policy::Price { tools: tools(), price: Price::Argument(path(1)) },
            Policy::Redact {
                tools: tools(),
                arguments: self.list(POLICY_PATH_COUNT_MAX, path),
                results: self.list(POLICY_PATH_COUNT_MAX, path),
            },
        ];
        policies.extend(tests.map(|test| Policy::Argument { tools: tools(), argument: path(0), test }));
        policies
    }

    fn facts(&self) -> Facts {
        let amounts = [Amount::Absent, Amount::Invalid, Amount::Is(self.money(0)), Amount::Is(self.money(1))];
        Facts {
            revision: self.number(0),
            amount: self.choose(&amounts),
            price: self.choose(&amounts[1..]),
            broken: self.list(POLICY_COUNT_MAX, |_| self.number(1)),
            minutes: self.list(POLICY_COUNT_MAX, |_| (self.number(0), self.minute(1))),
        }
    }

    fn bound(&self) -> Bound {
        let account = match self.choice % 3 {
            0 => Account::Session(self.session_id()),
            1 => Account::Agent(self.agent_id()),
            _ => Account::Tenant,
        };
        Bound { account, window: self.choose(&Window::ALL) }
    }

    fn calls(&self) -> [Event; 3] {
        let digest = self.maybe(3, self.bytes);
        let authorized = CallAuthorized {
            call_id: self.call_id(),
            session_id: self.session_id(),
            agent_id: self.agent_id(),
            method: self.choose(&METHODS),
            upstream: self.upstream(),
            registration: self.number(0),
            name: self.text(5, CALL_NAME_CHARS_MAX),
            facts: self.facts(),
            arguments: self.bytes,
            price: self.maybe(0, self.money(0)),
            remaining: self.maybe(1, self.money(1)),
            approval_id: self.maybe(2, self.approval_id()),
            secrets: self.list(CALL_SECRET_COUNT_MAX, |_| SecretUse { name: self.secret(), opened: digest }),
        };
        let denied = CallDenied {
            call_id: self.call_id(),
            session_id: self.session_id(),
            agent_id: self.agent_id(),
            method: self.choose(&METHODS),
            upstream: self.maybe(0, self.upstream()),
            registration: self.maybe(1, self.number(1)),
            name: self.text(5, CALL_NAME_CHARS_MAX),
            facts: self.facts(),
            arguments: self.bytes,
            reason: self.choose(&DENIALS),
            policy_id: self.maybe(2, self.number(0)),
            price: self.maybe(3, self.money(0)),
            remaining: self.maybe(4, self.money(1)),
            bound: self.maybe(5, self.bound()),
            approval_id: self.maybe(6, self.approval_id()),
            secret: self.maybe(7, self.secret()),
        };
        let completed = CallCompleted {
            call_id: self.call_id(),
            outcome: self.choose(&OUTCOMES),
            duration_us: self.number(0),
            charged: self.maybe(0, self.money(0)),
            details_digest: digest,
        };
        [Event::CallAuthorized(authorized), Event::CallDenied(denied), Event::CallCompleted(completed)]
    }

    fn events(&self) -> Vec<Event> {
        let pins = self.list(UPSTREAM_TOOL_COUNT_MAX, |at| Pin { tool: self.tool(at), digest: self.bytes });
        let sightings = self.list(UPSTREAM_TOOL_COUNT_MAX, |at| Sighting {
            tool: self.tool(at),
            digest: self.bytes,
            is_trusted: self.choice.is_multiple_of(2),
        });
        let mut events = vec![
            Event::UpstreamRegistered(UpstreamRegistered {
                name: self.upstream(),
                transport: self.transport(),
                tools: self.maybe(0, pins),
            }),
            Event::UpstreamRemoved(UpstreamRemoved { name: self.upstream() }),
            Event::ToolsObserved(ToolsObserved { name: self.upstream(), tools: sightings }),
            Event::ToolAccepted(ToolAccepted {
                name: self.upstream(),
                tool: self.tool(0),
                digest: self.bytes,
                decider: self.text(1, DECIDER_CHARS_MAX),
                note: self.text(2, NOTE_CHARS_MAX),
            }),
            Event::PolicyRemoved(PolicyRemoved { policy_id: self.number(0), revision: self.number(1) }),
        ];
        events.extend(self.policies().into_iter().map(|policy| {
            Event::PolicyAdded(PolicyAdded { policy_id: self.number(0), policy, revision: self.number(1) })
        }));
        events.extend(self.calls());
        events
    }
}

pub(super) fn any_proxy_event() -> impl Strategy<Value = Event> {
    let text = prop_oneof![
        Just(String::new()),
        prop::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter)
    ];
    let stuff = (
        prop::collection::vec(text, 6),
        "[a-zA-Z0-9_-]{1,64}",
        prop::collection::vec(any::<u128>(), 2),
        any::<[u8; 32]>(),
        any::<u8>(),
    );
    (stuff, any::<prop::sample::Index>()).prop_map(|((texts, name, numbers, bytes, choice), kind)| {
        let mut events = Stuff { texts, name, numbers, bytes, choice, is_long: false }.events();
        events.swap_remove(kind.index(events.len()))
    })
}

/// Every kind with everything as long as it may be, over either transport.
pub(super) fn largest_proxy_events() -> Vec<Event> {
    let largest = |choice| {
        let stuff = Stuff {
            texts: vec!["\u{10ffff}".repeat(CALL_NAME_CHARS_MAX); 6],
            name: "n".repeat(UPSTREAM_NAME_LEN_MAX),
            numbers: vec![u128::MAX; 2],
            bytes: [0xff; 32],
            choice,
            is_long: true,
        };
        stuff.events()
    };
    [largest(u8::MAX), largest(u8::MAX - 2)].concat()
}
