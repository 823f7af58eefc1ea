//! Payloads of schema version 1 about calls through the proxy, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use super::payments::BoundWire;
use crate::domain::calls::{
    CallAuthorized, CallCompleted, CallDenial, CallDenied, Method, Outcome, SecretUse,
};
use crate::domain::id::{AgentId, ApprovalId, CallId, SessionId};
use crate::domain::money::Money;
use crate::domain::policies::{Amount, Facts};
use crate::domain::secrets::SecretName;
use crate::domain::upstreams::UpstreamName;

#[derive(Encode, Decode)]
struct AmountWire {
    kind: u8,
    nanos: Option<u128>,
}

#[derive(Encode, Decode)]
struct MinuteWire {
    policy_id: u64,
    minute: u16,
}

#[derive(Encode, Decode)]
struct FactsWire {
    revision: u64,
    amount: AmountWire,
    price: AmountWire,
    broken: Vec<u64>,
    minutes: Vec<MinuteWire>,
}

#[derive(Encode, Decode)]
struct SecretUseWire {
    name: String,
    opened: Option<[u8; 32]>,
}

#[derive(Encode, Decode)]
pub(super) struct CallAuthorizedWire {
    call_id: String,
    session_id: String,
    agent_id: String,
    method: u8,
    upstream: String,
    registration: u64,
    name: String,
    facts: FactsWire,
    arguments_digest: [u8; 32],
    price_nanos: Option<u128>,
    remaining_nanos: Option<u128>,
    approval_id: Option<String>,
    secrets: Vec<SecretUseWire>,
}

#[derive(Encode, Decode)]
pub(super) struct CallDeniedWire {
    call_id: String,
    session_id: String,
    agent_id: String,
    method: u8,
    upstream: Option<String>,
    registration: Option<u64>,
    name: String,
    facts: FactsWire,
    arguments_digest: [u8; 32],
    reason: u8,
    policy_id: Option<u64>,
    price_nanos: Option<u128>,
    remaining_nanos: Option<u128>,
    bound: Option<BoundWire>,
    approval_id: Option<String>,
    secret: Option<String>,
}

#[derive(Encode, Decode)]
pub(super) struct CallCompletedWire {
    call_id: String,
    outcome: u8,
    duration_us: u64,
    charged_nanos: Option<u128>,
    details_digest: Option<[u8; 32]>,
}

impl From<Amount> for AmountWire {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Absent => Self { kind: 0, nanos: None },
            Amount::Is(amount) => Self { kind: 1, nanos: Some(amount.nanos()) },
            Amount::Invalid => Self { kind: 2, nanos: None },
        }
    }
}

impl AmountWire {
    fn into_amount(self) -> Result<Amount, &'static str> {
        match (self.kind, self.nanos) {
            (0, None) => Ok(Amount::Absent),
            (1, Some(nanos)) => Ok(Amount::Is(Money::from_nanos(nanos))),
            (2, None) => Ok(Amount::Invalid),
            _ => Err("facts"),
        }
    }
}

impl From<&Facts> for FactsWire {
    fn from(facts: &Facts) -> Self {
        let minute = |(policy_id, minute): &(u64, u16)| MinuteWire { policy_id: *policy_id, minute: *minute };
        Self {
            revision: facts.revision,
            amount: AmountWire::from(facts.amount),
            price: AmountWire::from(facts.price),
            broken: facts.broken.clone(),
            minutes: facts.minutes.iter().map(minute).collect(),
        }
    }
}

impl FactsWire {
    fn into_facts(self) -> Result<Facts, &'static str> {
        Ok(Facts {
            revision: self.revision,
            amount: self.amount.into_amount()?,
            price: self.price.into_amount()?,
            broken: self.broken,
            minutes: self.minutes.into_iter().map(|it| (it.policy_id, it.minute)).collect(),
        })
    }
}

impl From<&SecretUse> for SecretUseWire {
    fn from(it: &SecretUse) -> Self {
        Self { name: it.name.to_string(), opened: it.opened }
    }
}

impl SecretUseWire {
    fn into_use(self) -> Result<SecretUse, &'static str> {
        Ok(SecretUse { name: secret_of(&self.name)?, opened: self.opened })
    }
}

fn secret_of(text: &str) -> Result<SecretName, &'static str> {
    SecretName::parse(text).ok_or("secret")
}

fn call_of(text: &str) -> Result<CallId, &'static str> {
    CallId::parse(text).ok_or("call_id")
}

fn approval_of(text: Option<String>) -> Result<Option<ApprovalId>, &'static str> {
    text.map(|text| ApprovalId::parse(&text).ok_or("approval_id")).transpose()
}

fn upstream_of(text: &str) -> Result<UpstreamName, &'static str> {
    UpstreamName::parse(text).ok_or("upstream")
}

const fn method_code(method: Method) -> u8 {
    match method {
        Method::Tool => 0,
        Method::Resource => 1,
        Method::Prompt => 2,
    }
}

const fn method_of(code: u8) -> Result<Method, &'static str> {
    match code {
        0 => Ok(Method::Tool),
        1 => Ok(Method::Resource),
        2 => Ok(Method::Prompt),
        _ => Err("method"),
    }
}

const fn denial_code(reason: CallDenial) -> u8 {
    match reason {
        CallDenial::SessionRevoked => 0,
        CallDenial::SessionExpired => 1,
        CallDenial::ToolUnknown => 2,
        CallDenial::ToolQuarantined => 3,
        CallDenial::ScopeMissing => 4,
        CallDenial::Policy => 5,
        CallDenial::SpendScopeMissing => 6,
        CallDenial::BudgetExceeded => 7,
        CallDenial::SecretDenied => 8,
        CallDenial::ApprovalNotCovering => 9,
        CallDenial::ApprovalDenied => 10,
        CallDenial::ApprovalRequired => 11,
    }
}

const fn denial_of(code: u8) -> Result<CallDenial, &'static str> {
    match code {
        0 => Ok(CallDenial::SessionRevoked),
        1 => Ok(CallDenial::SessionExpired),
        2 => Ok(CallDenial::ToolUnknown),
        3 => Ok(CallDenial::ToolQuarantined),
        4 => Ok(CallDenial::ScopeMissing),
        5 => Ok(CallDenial::Policy),
        6 => Ok(CallDenial::SpendScopeMissing),
        7 => Ok(CallDenial::BudgetExceeded),
        8 => Ok(CallDenial::SecretDenied),
        9 => Ok(CallDenial::ApprovalNotCovering),
        10 => Ok(CallDenial::ApprovalDenied),
        11 => Ok(CallDenial::ApprovalRequired),
        _ => Err("reason"),
    }
}

const fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Succeeded => 0,
        Outcome::Failed => 1,
        Outcome::Refused => 2,
        Outcome::NotSent => 3,
        Outcome::Lost => 4,
        Outcome::TimedOut => 5,
        Outcome::TooLarge => 6,
        Outcome::Cancelled => 7,
    }
}

const fn outcome_of(code: u8) -> Result<Outcome, &'static str> {
    match code {
        0 => Ok(Outcome::Succeeded),
        1 => Ok(Outcome::Failed),
        2 => Ok(Outcome::Refused),
        3 => Ok(Outcome::NotSent),
        4 => Ok(Outcome::Lost),
        5 => Ok(Outcome::TimedOut),
        6 => Ok(Outcome::TooLarge),
        7 => Ok(Outcome::Cancelled),
        _ => Err("outcome"),
    }
}

impl From<&CallAuthorized> for CallAuthorizedWire {
    fn from(e: &CallAuthorized) -> Self {
        Self {
            call_id: e.call_id.to_string(),
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            method: method_code(e.method),
            upstream: e.upstream.to_string(),
            registration: e.registration,
            name: e.name.clone(),
            facts: FactsWire::from(&e.facts),
            arguments_digest: e.arguments,
            price_nanos: e.price.map(Money::nanos),
            remaining_nanos: e.remaining.map(Money::nanos),
            approval_id: e.approval_id.as_ref().map(ToString::to_string),
            secrets: e.secrets.iter().map(SecretUseWire::from).collect(),
        }
    }
}

impl Wire for CallAuthorizedWire {
    type Event = CallAuthorized;
    fn into_event(self) -> Result<CallAuthorized, &'static str> {
        Ok(CallAuthorized {
            call_id: call_of(&self.call_id)?,
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            method: method_of(self.method)?,
            upstream: upstream_of(&self.upstream)?,
            registration: self.registration,
            name: self.name,
            facts: self.facts.into_facts()?,
            arguments: self.arguments_digest,
            price: self.price_nanos.map(Money::from_nanos),
            remaining: self.remaining_nanos.map(Money::from_nanos),
            approval_id: approval_of(self.approval_id)?,
            secrets: self.secrets.into_iter().map(SecretUseWire::into_use).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&CallDenied> for CallDeniedWire {
    fn from(e: &CallDenied) -> Self {
        Self {
            call_id: e.call_id.to_string(),
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            method: method_code(e.method),
            upstream: e.upstream.as_ref().map(ToString::to_string),
            registration: e.registration,
            name: e.name.clone(),
            facts: FactsWire::from(&e.facts),
            arguments_digest: e.arguments,
            reason: denial_code(e.reason),
            policy_id: e.policy_id,
            price_nanos: e.price.map(Money::nanos),
            remaining_nanos: e.remaining.map(Money::nanos),
            bound: e.bound.as_ref().map(BoundWire::from),
            approval_id: e.approval_id.as_ref().map(ToString::to_string),
            secret: e.secret.as_ref().map(ToString::to_string),
        }
    }
}

impl Wire for CallDeniedWire {
    type Event = CallDenied;
    fn into_event(self) -> Result<CallDenied, &'static str> {
        Ok(CallDenied {
            call_id: call_of(&self.call_id)?,
            session_id: SessionId::parse(&self.session_id).ok_or("session_id")?,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            method: method_of(self.method)?,
            upstream: self.upstream.map(|text| upstream_of(&text)).transpose()?,
            registration: self.registration,
            name: self.name,
            facts: self.facts.into_facts()?,
            arguments: self.arguments_digest,
            reason: denial_of(self.reason)?,
            policy_id: self.policy_id,
            price: self.price_nanos.map(Money::from_nanos),
            remaining: self.remaining_nanos.map(Money::from_nanos),
            bound: self.bound.map(BoundWire::into_bound).transpose()?,
            approval_id: approval_of(self.approval_id)?,
            secret: self.secret.map(|text| secret_of(&text)).transpose()?,
        })
    }
}

impl From<&CallCompleted> for CallCompletedWire {
    fn from(e: &CallCompleted) -> Self {
        Self {
            call_id: e.call_id.to_string(),
            outcome: outcome_code(e.outcome),
            duration_us: e.duration_us,
            charged_nanos: e.charged.map(Money::nanos),
            details_digest: e.details_digest,
        }
    }
}

impl Wire for CallCompletedWire {
    type Event = CallCompleted;
    fn into_event(self) -> Result<CallCompleted, &'static str> {
        Ok(CallCompleted {
            call_id: call_of(&self.call_id)?,
            outcome: outcome_of(self.outcome)?,
            duration_us: self.duration_us,
            charged: self.charged_nanos.map(Money::from_nanos),
            details_digest: self.details_digest,
        })
    }
}
