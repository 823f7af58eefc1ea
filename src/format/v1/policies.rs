//! Payloads of schema version 1 about policies, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::money::Money;
use crate::domain::policies::{ArgumentTest, Policy, PolicyAdded, PolicyRemoved, Price};

#[derive(Encode, Decode)]
pub(super) struct PolicyAddedWire {
    policy_id: u64,
    policy: PolicyWire,
    revision: u64,
}

#[derive(Encode, Decode)]
pub(super) struct PolicyRemovedWire {
    policy_id: u64,
    revision: u64,
}

/// A policy: its type, and the parameters of all types. What a type does not have is empty, absent or zero.
#[derive(Default, PartialEq, Encode, Decode)]
struct PolicyWire {
    policy_type: u8,
    tools: Vec<String>,
    arguments: Vec<String>,
    results: Vec<String>,
    amount_nanos: Option<u128>,
    count: u64,
    start: u16,
    end: u16,
    days: u8,
    zone: String,
    test: u8,
    pattern: String,
}

impl From<&Policy> for PolicyWire {
    fn from(policy: &Policy) -> Self {
        let of =
            |policy_type, tools: &[String]| Self { policy_type, tools: tools.to_vec(), ..Self::default() };
        match policy {
            Policy::BlockTool { tool } => of(0, std::slice::from_ref(tool)),
            Policy::AllowList { tools } => of(1, tools),
            Policy::DenyList { tools } => of(2, tools),
            Policy::SpendLimit { max } => Self { amount_nanos: Some(max.nanos()), ..of(3, &[]) },
            Policy::RateLimit { max_per_minute } => Self { count: *max_per_minute, ..of(4, &[]) },
            Policy::TimeWindow { start, end, days, zone } => {
                Self { start: *start, end: *end, days: *days, zone: zone.clone(), ..of(5, &[]) }
            }
            Policy::RequireApproval { tools, above, required } => {
                Self { amount_nanos: above.map(Money::nanos), count: u64::from(*required), ..of(6, tools) }
            }
            Policy::Price { tools, price: Price::Fixed(amount) } => {
                Self { amount_nanos: Some(amount.nanos()), ..of(7, tools) }
            }
            Policy::Price { tools, price: Price::Argument(argument) } => {
                Self { arguments: vec![argument.clone()], ..of(7, tools) }
            }
            Policy::Argument { tools, argument, test } => {
                let (test, pattern) = match test {
                    ArgumentTest::Deny => (0, String::new()),
                    ArgumentTest::Require => (1, String::new()),
                    ArgumentTest::Match(pattern) => (2, pattern.clone()),
                    ArgumentTest::DenyMatch(pattern) => (3, pattern.clone()),
                };
                Self { arguments: vec![argument.clone()], test, pattern, ..of(8, tools) }
            }
            Policy::Redact { tools, arguments, results } => {
                Self { arguments: arguments.clone(), results: results.clone(), ..of(9, tools) }
            }
        }
    }
}

impl PolicyWire {
    fn into_policy(self) -> Result<Policy, &'static str> {
        let tools = self.tools.clone();
        let only = |list: &[String]| match list {
            [one] => Ok(one.clone()),
            _ => Err("policy"),
        };
        let amount = self.amount_nanos.map(Money::from_nanos);
        let policy = match self.policy_type {
            0 => Policy::BlockTool { tool: only(&tools)? },
            1 => Policy::AllowList { tools },
            2 => Policy::DenyList { tools },
            3 => Policy::SpendLimit { max: amount.ok_or("policy")? },
            4 => Policy::RateLimit { max_per_minute: self.count },
            5 => Policy::TimeWindow {
                start: self.start,
                end: self.end,
                days: self.days,
                zone: self.zone.clone(),
            },
            6 => Policy::RequireApproval {
                tools,
                above: amount,
                required: u8::try_from(self.count).map_err(|_| "policy")?,
            },
            7 => {
                let price = match amount {
                    Some(amount) => Price::Fixed(amount),
                    None => Price::Argument(only(&self.arguments)?),
                };
                Policy::Price { tools, price }
            }
            8 => {
                let test = match self.test {
                    0 => ArgumentTest::Deny,
                    1 => ArgumentTest::Require,
                    2 => ArgumentTest::Match(self.pattern.clone()),
                    3 => ArgumentTest::DenyMatch(self.pattern.clone()),
                    _ => return Err("policy"),
                };
                Policy::Argument { tools, argument: only(&self.arguments)?, test }
            }
            9 => Policy::Redact { tools, arguments: self.arguments.clone(), results: self.results.clone() },
            _ => return Err("policy"),
        };
        // A parameter that the type does not have would not survive a second encoding.
        if Self::from(&policy) == self { Ok(policy) } else { Err("policy") }
    }
}

impl From<&PolicyAdded> for PolicyAddedWire {
    fn from(e: &PolicyAdded) -> Self {
        Self { policy_id: e.policy_id, policy: PolicyWire::from(&e.policy), revision: e.revision }
    }
}

impl Wire for PolicyAddedWire {
    type Event = PolicyAdded;
    fn into_event(self) -> Result<PolicyAdded, &'static str> {
        let Self { policy_id, policy, revision } = self;
        Ok(PolicyAdded { policy_id, policy: policy.into_policy()?, revision })
    }
}

impl From<&PolicyRemoved> for PolicyRemovedWire {
    fn from(e: &PolicyRemoved) -> Self {
        Self { policy_id: e.policy_id, revision: e.revision }
    }
}

impl Wire for PolicyRemovedWire {
    type Event = PolicyRemoved;
    fn into_event(self) -> Result<PolicyRemoved, &'static str> {
        Ok(PolicyRemoved { policy_id: self.policy_id, revision: self.revision })
    }
}
