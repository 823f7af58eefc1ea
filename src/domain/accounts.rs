//! Accounts: what was spent by a session, an agent and the tenant, and the caps that bound it.
//!
//! A payment of a session counts against the session and every session above it, against the agents of all of them, and
//! against the tenant. All of these are looked at in one decision and debited by one event, so that nothing is overspent at
//! any level. Windows are those of the calendar, in UTC.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{AgentId, SessionId};
use super::money::Money;
use super::sessions::{Session, Sessions};
use super::table::Table;
use super::time::{Month, Timestamp};
use super::{Event, Refusal};

/// Whose spending is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Account {
    /// A session, with every session below it.
    Session(SessionId),
    /// An agent: its sessions, with every session below them.
    Agent(AgentId),
    /// All of the tenant.
    Tenant,
}

/// For how long a cap counts before it begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Window {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight, UTC.
    Day,
    /// A month of the calendar, UTC.
    Month,
    /// For ever.
    Life,
}

impl Window {
    /// Every window, the shortest first.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Month, Self::Life];

    /// When the window that holds `at` ends; `None` for one that never does.
    #[must_use]
    pub fn end(self, at: Timestamp) -> Option<Timestamp> {
        let after =
            |length_s: u64| Timestamp::from_micros((at.seconds() / length_s + 1) * length_s * 1_000_000);
        match self {
            Self::Hour => Some(after(HOUR_S)),
            Self::Day => Some(after(DAY_S)),
            Self::Month => Some(at.month().end()),
            Self::Life => None,
        }
    }
}

const HOUR_S: u64 = 3600;
const DAY_S: u64 = 86_400;

/// What one account spent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// In its whole life.
    pub spent: Money,
    /// Reserved, neither settled nor released. Counts against every cap.
    pub held: Money,
    /// In the hour, since the epoch, in which it last spent.
    hour: (u64, Money),
    /// In the day, since the epoch, in which it last spent.
    day: (u64, Money),
    /// In the month in which it last spent.
    month: Option<(Month, Money)>,
}

impl Tally {
    /// What was spent in the window that holds `at`.
    #[must_use]
    pub fn spent_in(&self, window: Window, at: Timestamp) -> Money {
        let (is_current, spent) = match window {
            Window::Hour => (self.hour.0 == at.seconds() / HOUR_S, self.hour.1),
            Window::Day => (self.day.0 == at.seconds() / DAY_S, self.day.1),
            Window::Month => match self.month {
                Some((month, spent)) => (month == at.month(), spent),
                None => (true, Money::ZERO),
            },
            Window::Life => (true, self.spent),
        };
        if is_current { spent } else { Money::ZERO }
    }

    /// What a cap has to hold: spent in the window, and held.
    fn used(&self, window: Window, at: Timestamp) -> Money {
        // `decide` refused sums that do not fit, so the fallback is never taken on a history of ours.
        self.spent_in(window, at).plus(self.held).unwrap_or(Money::MAX)
    }

    fn debit(&mut self, amount: Money, at: Timestamp) {
        let more = |spent: Money| spent.plus(amount).unwrap_or(spent);
        self.hour = (at.seconds() / HOUR_S, more(self.spent_in(Window::Hour, at)));
        self.day = (at.seconds() / DAY_S, more(self.spent_in(Window::Day, at)));
        self.month = Some((at.month(), more(self.spent_in(Window::Month, at))));
        self.spent = more(self.spent);
    }
}

/// Caps beyond those that sessions are opened with, and what agents and the tenant spent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    caps: Table<(Account, Window), Money>,
    agents: Table<AgentId, Arc<Tally>>,
    tenant: Tally,
}

/// A cap that stands in the way of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Whose cap.
    pub account: Account,
    /// In which window.
    pub window: Window,
}

/// Set a cap on an account, or lift it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetBudget {
    /// Whose spending.
    pub account: Account,
    /// In which window.
    pub window: Window,
    /// The most that may be spent; `None` lifts the cap.
    pub limit: Option<Money>,
}

/// A cap was set or lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetSet {
    /// Whose spending.
    pub account: Account,
    /// In which window.
    pub window: Window,
    /// The most that may be spent; `None`: no cap any more.
    pub limit: Option<Money>,
}

impl Accounts {
    /// All caps, in the order of accounts and windows.
    pub fn caps(&self) -> impl Iterator<Item = (&Account, Window, Money)> {
        self.caps.into_iter().map(|((account, window), limit)| (account, *window, *limit))
    }

    /// What the tenant spent.
    #[must_use]
    pub const fn tenant(&self) -> &Tally {
        &self.tenant
    }

    /// What each agent spent that ever spent or reserved anything.
    pub fn agents(&self) -> impl Iterator<Item = (&AgentId, &Tally)> {
        self.agents.into_iter().map(|(agent, tally)| (agent, &**tally))
    }

    /// What one agent spent.
    #[must_use]
    pub fn agent(&self, agent: &AgentId) -> Tally {
        self.agents.get(agent).map(|tally| (**tally).clone()).unwrap_or_default()
    }

    fn cap(&self, account: &Account, window: Window) -> Option<Money> {
        if self.caps.len() == 0 {
            return None;
        }
        self.caps.get(&(account.clone(), window)).copied()
    }
}

/// Everybody against whom a payment of a session counts: the session and those above it, their agents, the tenant.
struct Payers<'a> {
    lineage: Vec<(&'a SessionId, &'a Session)>,
    agents: BTreeSet<&'a AgentId>,
}

impl<'a> Payers<'a> {
    fn of(sessions: &'a Sessions, session_id: &'a SessionId) -> Self {
        let lineage: Vec<_> = sessions.lineage(session_id).collect();
        let agents = lineage.iter().map(|(_, session)| &session.agent_id).collect();
        Self { lineage, agents }
    }

    /// Every cap that a payment must fit into, each with what it has to hold already. The session's own comes first.
    fn limits(&self, accounts: &Accounts, at: Timestamp) -> Vec<(Bound, Money, Money)> {
        let mut limits = Vec::new();
        let mut add = |account: Account, tally: &Tally, own_cap: Option<Money>| {
            if let Some(cap) = own_cap {
                let bound = Bound { account: account.clone(), window: Window::Life };
                limits.push((bound, cap, tally.used(Window::Life, at)));
            }
            for window in Window::ALL {
                if let Some(cap) = accounts.cap(&account, window) {
                    let bound = Bound { account: account.clone(), window };
                    limits.push((bound, cap, tally.used(window, at)));
                }
            }
        };
        for (session_id, session) in &self.lineage {
            add(Account::Session((*session_id).clone()), &session.budget.tally, session.budget.cap);
        }
        if accounts.caps.len() > 0 {
            for agent in &self.agents {
                add(Account::Agent((*agent).clone()), &accounts.agent(agent), None);
            }
            add(Account::Tenant, &accounts.tenant, None);
        }
        limits
    }
}

/// What a payment of a session meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Room {
    /// The first cap that does not hold the amount; `None` when all do.
    pub(super) exceeded: Option<Bound>,
    /// What all caps hold before the payment; `None` when there is no cap.
    pub(super) remaining: Option<Money>,
}

/// Looks at every cap that a payment of a session must fit into.
///
/// # Errors
///
/// [`Refusal::SumTooLarge`] when the sums no longer fit.
pub(super) fn room(
    sessions: &Sessions,
    accounts: &Accounts,
    session_id: &SessionId,
    amount: Money,
    at: Timestamp,
) -> Result<Room, Refusal> {
    // The tenant spends as much as all others, so what fits there fits everywhere.
    let tenant = accounts.tenant.spent.plus(accounts.tenant.held);
    tenant.and_then(|used| used.plus(amount)).ok_or(Refusal::SumTooLarge)?;
    let mut room = Room { exceeded: None, remaining: None };
    for (bound, cap, used) in Payers::of(sessions, session_id).limits(accounts, at) {
        let left = cap.minus(used);
        if amount > left && room.exceeded.is_none() {
            room.exceeded = Some(bound);
        }
        room.remaining = Some(room.remaining.map_or(left, |least| least.min(left)));
    }
    Ok(room)
}

pub(super) fn set(
    sessions: &Sessions,
    accounts: &Accounts,
    command: &SetBudget,
) -> Result<Vec<Event>, Refusal> {
    let SetBudget { account, window, limit } = command;
    if let Account::Session(session_id) = account {
        sessions.get(session_id).ok_or(Refusal::SessionUnknown)?;
    }
    if accounts.cap(account, *window) == *limit {
        return Ok(vec![]);
    }
    Ok(vec![Event::BudgetSet(BudgetSet { account: account.clone(), window: *window, limit: *limit })])
}

pub(super) fn apply_set(accounts: &mut Accounts, event: &BudgetSet) {
    let key = (event.account.clone(), event.window);
    match event.limit {
        Some(limit) => accounts.caps.insert_cow(key, limit),
        None => accounts.caps.remove_cow(&key),
    };
}

/// Changes the tallies of everybody against whom a payment of a session counts.
fn change(
    sessions: &mut Sessions,
    accounts: &mut Accounts,
    session_id: &SessionId,
    change: impl Fn(&mut Tally),
) {
    let payers = Payers::of(sessions, session_id);
    let agents: Vec<AgentId> = payers.agents.into_iter().cloned().collect();
    let lineage: Vec<SessionId> = payers.lineage.into_iter().map(|(id, _)| id.clone()).collect();
    for id in &lineage {
        if let Some(session) = sessions.get_mut(id) {
            change(&mut session.budget.tally);
        }
    }
    for agent in agents {
        change(Arc::make_mut(accounts.agents.get_or_default_cow(agent)));
    }
    change(&mut accounts.tenant);
}

/// Counts a payment.
pub(super) fn debit(
    sessions: &mut Sessions,
    accounts: &mut Accounts,
    session_id: &SessionId,
    amount: Money,
    at: Timestamp,
) {
    change(sessions, accounts, session_id, |tally| tally.debit(amount, at));
    if let Some(session) = sessions.get_mut(session_id) {
        let own = session.budget.own_spent;
        session.budget.own_spent = own.plus(amount).unwrap_or(own);
    }
}

/// Sets an amount aside.
pub(super) fn hold(sessions: &mut Sessions, accounts: &mut Accounts, session_id: &SessionId, amount: Money) {
    change(sessions, accounts, session_id, |tally| {
        tally.held = tally.held.plus(amount).unwrap_or(tally.held);
    });
}

/// Gives back what was set aside.
pub(super) fn let_go(
    sessions: &mut Sessions,
    accounts: &mut Accounts,
    session_id: &SessionId,
    amount: Money,
) {
    change(sessions, accounts, session_id, |tally| tally.held = tally.held.minus(amount));
}

#[cfg(test)]
mod tests;
