//! Policies: what may be called through the proxy.
//!
//! A tenant's policies are tried in the order in which they were added, and the first one that denies decides. What a policy
//! has to know of a call's arguments, and of the clocks of time zones, is looked up before and comes with the call as
//! [`Facts`], which its event records. So every decision can be taken again from the ledger alone.
//!
//! Every change of the set has a revision, and every decision names the one that it was taken under.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits::POLICY_COUNT_MAX;
use super::money::Money;
use super::table::Table;
use super::{Event, Refusal};

/// Minutes of a week, from Monday 00:00 on.
pub const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;
/// Minutes of a day.
pub const DAY_MINUTES: u16 = 24 * 60;

/// One policy. Lists of tools hold names as `tool` or `upstream.tool`; where the list may be empty, that is every tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// One tool may not be called.
    BlockTool {
        /// Which one.
        tool: String,
    },
    /// No other tools may be called.
    AllowList {
        /// These may.
        tools: Vec<String>,
    },
    /// These tools may not be called.
    DenyList {
        /// Which ones.
        tools: Vec<String>,
    },
    /// One call may not cost more.
    SpendLimit {
        /// Than this.
        max: Money,
    },
    /// An agent may not call more often.
    RateLimit {
        /// Than so many times in any 60 seconds, what it logged itself included.
        max_per_minute: u64,
    },
    /// Nothing may be called at other times.
    TimeWindow {
        /// From this minute of the day on.
        start: u16,
        /// Up to, and without, this one; on the next day, if it is not later than `start`.
        end: u16,
        /// The days on which the window begins, a bit each, Monday the lowest.
        days: u8,
        /// By the clocks of this zone of the IANA database.
        zone: String,
    },
    /// A person must approve.
    RequireApproval {
        /// Calls of these tools.
        tools: Vec<String>,
        /// Only those that cost more than this.
        above: Option<Money>,
        /// How many must approve.
        required: u8,
    },
    /// Calls of these tools cost something.
    Price {
        /// Which tools.
        tools: Vec<String>,
        /// How much.
        price: Price,
    },
    /// Calls with certain arguments are denied.
    Argument {
        /// Calls of these tools.
        tools: Vec<String>,
        /// Which argument: names of fields, joined by dots.
        argument: String,
        /// What it is held against.
        test: ArgumentTest,
    },
    /// Parts of arguments and results are not written down.
    Redact {
        /// Of calls of these tools.
        tools: Vec<String>,
        /// Which arguments: names of fields, joined by dots.
        arguments: Vec<String>,
        /// Which parts of results: the same.
        results: Vec<String>,
    },
}

/// What a call costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Price {
    /// Always the same.
    Fixed(Money),
    /// What an argument says: names of fields, joined by dots.
    Argument(String),
}

/// What an argument must or must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArgumentTest {
    /// It must not be there.
    Deny,
    /// It must be there.
    Require,
    /// If it is there, the pattern must match its text.
    Match(String),
    /// If it is there, the pattern must not match its text.
    DenyMatch(String),
}

impl Policy {
    /// The name of its type on the wire.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::BlockTool { .. } => "block_tool",
            Self::AllowList { .. } => "allow_list",
            Self::DenyList { .. } => "deny_list",
            Self::SpendLimit { .. } => "spend_limit",
            Self::RateLimit { .. } => "rate_limit",
            Self::TimeWindow { .. } => "time_window",
            Self::RequireApproval { .. } => "require_approval",
            Self::Price { .. } => "price",
            Self::Argument { .. } => "argument",
            Self::Redact { .. } => "redact",
        }
    }

    /// Whether it is about calls of a tool. `name` is `upstream.tool`, or a tool's own name when its upstream is unknown.
    #[must_use]
    pub fn is_about(&self, name: &str) -> bool {
        match self {
            Self::BlockTool { tool } => names(name, tool),
            Self::RequireApproval { tools, .. }
            | Self::Price { tools, .. }
            | Self::Argument { tools, .. }
            | Self::Redact { tools, .. } => tools.is_empty() || is_listed(name, tools),
            Self::AllowList { .. }
            | Self::DenyList { .. }
            | Self::SpendLimit { .. }
            | Self::RateLimit { .. }
            | Self::TimeWindow { .. } => true,
        }
    }
}

/// Whether an entry of a list means a tool: by its full name, or by what follows any dot of it.
fn names(name: &str, entry: &str) -> bool {
    name == entry || name.strip_suffix(entry).is_some_and(|rest| rest.ends_with('.'))
}

fn is_listed(name: &str, tools: &[String]) -> bool {
    tools.iter().any(|entry| names(name, entry))
}

/// What the policies have to know of a call besides its name: looked up for one revision of the set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The revision.
    pub revision: u64,
    /// What the argument `amount` says.
    pub amount: Amount,
    /// What the argument says that the first price for the tool is taken from.
    pub price: Amount,
    /// Rules about arguments that the call breaks, in order.
    pub broken: Vec<u64>,
    /// For each time window, the minute of the week by its clocks, in order.
    pub minutes: Vec<(u64, u16)>,
}

/// What an argument says about money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// It is not there.
    #[default]
    Absent,
    /// So much.
    Is(Money),
    /// It is not an amount.
    Invalid,
}

/// A call, as policies look at it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// `upstream.tool`, or the name as called when nothing has it.
    pub name: &'a str,
    /// What was looked up.
    pub facts: &'a Facts,
    /// How often the agent called in the last 60 seconds.
    pub recent: u64,
}

/// What the policies say of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The first policy that denies, and why.
    pub denied: Option<(u64, &'static str)>,
    /// How many must approve, and the first policy that wants it.
    pub approval: Option<(u64, u8)>,
    /// What the call costs.
    pub price: Option<Money>,
    /// What each policy said, in order.
    pub steps: Vec<(u64, Step)>,
}

/// What one policy says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is about other calls.
    Elsewhere,
    /// It has nothing against the call.
    Passes,
    /// It denies, and why.
    Denies(&'static str),
    /// It wants an approval.
    WantsApproval,
    /// It says what the call costs.
    Prices(Money),
    /// It keeps parts of the call from being written down.
    Redacts,
}

/// Add a policy behind the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddPolicy {
    /// The policy.
    pub policy: Policy,
}

/// Remove a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovePolicy {
    /// Which one.
    pub policy_id: u64,
}

/// Put another set in place of the whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacePolicies {
    /// The new set, in order.
    pub policies: Vec<Policy>,
    /// The revision that is replaced; `None` is whichever there is.
    pub expected: Option<u64>,
}

/// A policy was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyAdded {
    /// Its number among the tenant's policies, from 1.
    pub policy_id: u64,
    /// The policy.
    pub policy: Policy,
    /// The revision that the set has with it.
    pub revision: u64,
}

/// A policy was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRemoved {
    /// Which one.
    pub policy_id: u64,
    /// The revision that the set has without it.
    pub revision: u64,
}

/// The tenant's policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    by_id: Table<u64, Arc<Policy>>,
    last_id: u64,
    revision: u64,
}

impl Policies {
    /// The policies with their numbers, in the order in which they are tried.
    pub fn all(&self) -> impl Iterator<Item = (u64, &Policy)> {
        self.by_id.into_iter().map(|(id, policy)| (*id, &**policy))
    }

    /// The set's revision: how often it was changed.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether calls have to be counted.
    #[must_use]
    pub fn limits_rates(&self) -> bool {
        self.all().any(|(_, policy)| matches!(policy, Policy::RateLimit { .. }))
    }

    /// A set that never was, to try what it would do.
    #[must_use]
    pub fn of(policies: Vec<Policy>) -> Self {
        let mut set = Self::default();
        for (policy_id, policy) in (1..).zip(policies) {
            apply_added(&mut set, &PolicyAdded { policy_id, policy, revision: policy_id });
        }
        set
    }
}

/// Holds a call against every policy.
#[must_use]
pub fn judge(policies: &Policies, call: Subject<'_>) -> Judgement {
    let first_price = policies.all().find_map(|(id, policy)| {
        let Policy::Price { price, .. } = policy else { return None };
        policy.is_about(call.name).then_some((id, price))
    });
    let price = first_price.map(|(id, price)| {
        let said = match price {
            Price::Fixed(amount) => Amount::Is(*amount),
            Price::Argument(_) => call.facts.price,
        };
        (id, said)
    });
    let steps: Vec<(u64, Step)> =
        policies.all().map(|(id, policy)| (id, step(id, policy, call, price))).collect();
    let denied = steps.iter().find_map(|(id, step)| {
        let Step::Denies(why) = step else { return None };
        Some((*id, *why))
    });
    let wants = |id| steps.contains(&(id, Step::WantsApproval));
    let mut approval = None;
    for (id, policy) in policies.all() {
        if let Policy::RequireApproval { required, .. } = policy
            && wants(id)
        {
            let (first, most) = approval.unwrap_or((id, 0));
            approval = Some((first, (*required).max(most)));
        }
    }
    let price = match price {
        Some((_, Amount::Is(amount))) => Some(amount),
        _ => None,
    };
    Judgement { denied, approval, price, steps }
}

fn step(id: u64, policy: &Policy, call: Subject<'_>, price: Option<(u64, Amount)>) -> Step {
    if !policy.is_about(call.name) {
        return Step::Elsewhere;
    }
    let deny_if = |is_denied: bool, why| if is_denied { Step::Denies(why) } else { Step::Passes };
    let cost = price.map_or(call.facts.amount, |(_, said)| said);
    match policy {
        Policy::BlockTool { .. } => Step::Denies("the tool is blocked"),
        Policy::AllowList { tools } => {
            deny_if(!is_listed(call.name, tools), "the tool is not on the allow list")
        }
        Policy::DenyList { tools } => deny_if(is_listed(call.name, tools), "the tool is on the deny list"),
        Policy::SpendLimit { max } => match cost {
            Amount::Absent => Step::Passes,
            Amount::Is(amount) => deny_if(amount > *max, "the amount is above the spend limit"),
            Amount::Invalid => Step::Denies("the amount is not a number"),
        },
        Policy::RateLimit { max_per_minute } => {
            deny_if(call.recent >= *max_per_minute, "the agent's calls per minute are used up")
        }
        Policy::TimeWindow { start, end, days, .. } => {
            let minute = call.facts.minutes.iter().find(|(policy, _)| *policy == id);
            let is_open = minute.is_some_and(|(_, minute)| is_open(*start, *end, *days, *minute));
            deny_if(!is_open, "it is outside of the time window")
        }
        Policy::RequireApproval { above, .. } => match (above, cost) {
            (Some(above), Amount::Is(amount)) if amount <= *above => Step::Passes,
            (Some(_), Amount::Absent) => Step::Passes,
            _ => Step::WantsApproval,
        },
        Policy::Price { .. } => match price {
            Some((first, Amount::Is(amount))) if first == id => Step::Prices(amount),
            Some((first, _)) if first == id => {
                Step::Denies("the argument that the price is taken from is no amount")
            }
            _ => Step::Elsewhere,
        },
        Policy::Argument { .. } => {
            deny_if(call.facts.broken.contains(&id), "an argument is not allowed, or is missing")
        }
        Policy::Redact { .. } => Step::Redacts,
    }
}

/// Whether the policies keep everybody from calling a tool, whatever the arguments and the time.
#[must_use]
pub fn hides(policies: &Policies, name: &str) -> bool {
    policies.all().any(|(_, policy)| match policy {
        Policy::BlockTool { tool } => names(name, tool),
        Policy::AllowList { tools } => !is_listed(name, tools),
        Policy::DenyList { tools } => is_listed(name, tools),
        Policy::SpendLimit { .. }
        | Policy::RateLimit { .. }
        | Policy::TimeWindow { .. }
        | Policy::RequireApproval { .. }
        | Policy::Price { .. }
        | Policy::Argument { .. }
        | Policy::Redact { .. } => false,
    })
}

/// Whether a window that begins on `days` holds a minute of the week.
#[must_use]
pub fn is_open(start: u16, end: u16, days: u8, minute: u16) -> bool {
    let (day, minute) = (minute / DAY_MINUTES % 7, minute % DAY_MINUTES);
    let begins_on = |day: u16| days & (1 << day) != 0;
    if start < end {
        return begins_on(day) && start <= minute && minute < end;
    }
    // Across midnight: the rest of the day on which it began, or the beginning of the next.
    (begins_on(day) && minute >= start) || (begins_on((day + 6) % 7) && minute < end)
}

pub(super) fn add(policies: &Policies, command: &AddPolicy) -> Result<Vec<Event>, Refusal> {
    if policies.by_id.len() >= POLICY_COUNT_MAX {
        return Err(Refusal::TooManyPolicies);
    }
    Ok(vec![Event::PolicyAdded(PolicyAdded {
        policy_id: policies.last_id + 1,
        policy: command.policy.clone(),
        revision: policies.revision + 1,
    })])
}

pub(super) fn remove(policies: &Policies, command: &RemovePolicy) -> Result<Vec<Event>, Refusal> {
    let policy_id = command.policy_id;
    policies.by_id.get(&policy_id).ok_or(Refusal::PolicyUnknown)?;
    Ok(vec![Event::PolicyRemoved(PolicyRemoved { policy_id, revision: policies.revision + 1 })])
}

/// Each policy that stands in the new set at the place where it stood keeps its number.
pub(super) fn replace(policies: &Policies, command: &ReplacePolicies) -> Result<Vec<Event>, Refusal> {
    if command.policies.len() > POLICY_COUNT_MAX {
        return Err(Refusal::TooManyPolicies);
    }
    if command.expected.is_some_and(|expected| expected != policies.revision) {
        return Err(Refusal::PoliciesMoved);
    }
    let stays = policies.all().zip(&command.policies).take_while(|((_, old), new)| old == new).count();
    let mut revision = policies.revision;
    let mut next = || {
        revision += 1;
        revision
    };
    let gone = policies.all().skip(stays).map(|(policy_id, _)| policy_id);
    let mut events: Vec<Event> =
        gone.map(|policy_id| Event::PolicyRemoved(PolicyRemoved { policy_id, revision: next() })).collect();
    let added = (policies.last_id + 1..).zip(command.policies.iter().skip(stays));
    events.extend(added.map(|(policy_id, policy)| {
        Event::PolicyAdded(PolicyAdded { policy_id, policy: policy.clone(), revision: next() })
    }));
    Ok(events)
}

pub(super) fn apply_added(policies: &mut Policies, event: &PolicyAdded) {
    policies.by_id.insert_cow(event.policy_id, Arc::new(event.policy.clone()));
    policies.last_id = event.policy_id;
    policies.revision = event.revision;
}

pub(super) fn apply_removed(policies: &mut Policies, event: &PolicyRemoved) {
    policies.by_id.remove_cow(&event.policy_id);
    policies.revision = event.revision;
}

#[cfg(test)]
pub(in crate::domain) mod tests;
