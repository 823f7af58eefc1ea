//! Budgets: caps on what sessions, agents and the tenant may spend, and what they spent.

use serde::Serialize;
use utoipa::ToSchema;

use super::decoded::window_name;
use super::past::Moment;
use super::wire::{Epoch, Usd};
use super::{App, Caller, OperationError};
use crate::domain::Command;
use crate::domain::accounts::{Account, SetBudget, Tally, Window};
use crate::domain::id::{AgentId, SessionId};
use crate::domain::money::Money;

/// Rows of a spend report at most.
const REPORT_LEN_MAX: usize = 10_000;

/// A cap, and how far it is used.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetView {
    /// `session`, `agent` or `tenant`.
    pub level: &'static str,
    /// The session or the agent; empty for the tenant.
    pub name: String,
    /// `hour`, `day`, `month` or `life`.
    pub window: &'static str,
    /// The most that may be spent in the window.
    pub limit: Usd,
    /// What was spent in the window.
    pub spent: Usd,
    /// What is set aside. It counts against every window.
    pub held: Usd,
    /// What may still be spent in the window.
    pub remaining: Usd,
    /// When the window ends; `0.0` is never.
    pub resets_at: Epoch,
}

/// The tenant's caps.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetList {
    /// How many there are.
    pub count: usize,
    /// By level, name and window.
    pub budgets: Vec<BudgetView>,
}

/// A cap that was set, or lifted.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetAnswer {
    /// Always true.
    pub set: bool,
    /// `session`, `agent` or `tenant`.
    pub level: &'static str,
    /// The session or the agent; empty for the tenant.
    pub name: String,
    /// `hour`, `day`, `month` or `life`.
    pub window: &'static str,
    /// The most that may be spent in the window; `0.0` together with `unlimited: true` is no cap.
    pub limit: Usd,
    /// Whether there is no cap any more.
    pub unlimited: bool,
}

/// What one account spent.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpendRow {
    /// The session or the agent; empty for the tenant.
    pub name: String,
    /// In this hour, UTC.
    pub hour: Usd,
    /// Today, UTC.
    pub day: Usd,
    /// This month, UTC.
    pub month: Usd,
    /// In all.
    pub life: Usd,
    /// Set aside.
    pub held: Usd,
}

/// What the accounts of one level spent.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpendLevels {
    /// `session`, `agent` or `tenant`.
    pub level: &'static str,
    /// How many rows there are.
    pub count: usize,
    /// Agents by name, sessions newest first. What a session spent counts for those above it too.
    pub rows: Vec<SpendRow>,
}

/// Which accounts are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Sessions.
    Session,
    /// Agents.
    Agent,
    /// The tenant.
    Tenant,
}

impl Level {
    /// The level with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "session" => Some(Self::Session),
            "agent" => Some(Self::Agent),
            "tenant" => Some(Self::Tenant),
            _ => None,
        }
    }
}

/// The window with this name.
#[must_use]
pub fn window_named(name: &str) -> Option<Window> {
    Window::ALL.into_iter().find(|window| window_name(*window) == name)
}

/// The name of an account's level.
#[must_use]
pub const fn level_name(account: &Account) -> &'static str {
    match account {
        Account::Session(_) => "session",
        Account::Agent(_) => "agent",
        Account::Tenant => "tenant",
    }
}

/// An account's name at its level.
fn account_name(account: &Account) -> String {
    match account {
        Account::Session(session_id) => session_id.to_string(),
        Account::Agent(agent_id) => agent_id.to_string(),
        Account::Tenant => String::new(),
    }
}

/// The account that a level and a name mean.
///
/// # Errors
///
/// [`OperationError::Invalid`] for a name that the level cannot have.
pub fn account(level: Level, name: &str) -> Result<Account, OperationError> {
    let wrong = || OperationError::invalid("name", "expected at most 128 characters");
    match level {
        Level::Session => Ok(Account::Session(SessionId::parse(name).ok_or_else(wrong)?)),
        Level::Agent => Ok(Account::Agent(AgentId::parse(name).ok_or_else(wrong)?)),
        Level::Tenant if name.is_empty() => Ok(Account::Tenant),
        Level::Tenant => Err(OperationError::invalid("name", "expected none: there is one tenant")),
    }
}

/// Sets a cap on an account, or lifts it.
///
/// # Errors
///
/// [`OperationError::NotFound`] for sessions that never existed.
pub async fn set(
    app: &App,
    caller: &Caller,
    account: Account,
    window: Window,
    limit: Option<Money>,
) -> Result<BudgetAnswer, OperationError> {
    let answer = BudgetAnswer {
        set: true,
        level: level_name(&account),
        name: account_name(&account),
        window: window_name(window),
        limit: Usd::or_zero(limit),
        unlimited: limit.is_none(),
    };
    app.submit(caller, Command::SetBudget(SetBudget { account, window, limit }), None, vec![]).await?;
    Ok(answer)
}

/// Lists every cap with how far it is used.
#[must_use]
pub fn list(moment: &Moment) -> BudgetList {
    let tenant = &moment.stream.tenant;
    let view = |(account, window, limit): (&Account, Window, Money)| {
        let tally = tally_of(moment, account);
        let spent = tally.spent_in(window, moment.at);
        BudgetView {
            level: level_name(account),
            name: account_name(account),
            window: window_name(window),
            limit: Usd(limit),
            spent: Usd(spent),
            held: Usd(tally.held),
            remaining: Usd(limit.minus(spent).minus(tally.held)),
            resets_at: Epoch::or_zero(window.end(moment.at)),
        }
    };
    let budgets: Vec<BudgetView> = tenant.accounts.caps().map(view).collect();
    BudgetList { count: budgets.len(), budgets }
}

fn tally_of(moment: &Moment, account: &Account) -> Tally {
    let tenant = &moment.stream.tenant;
    match account {
        Account::Session(id) => {
            tenant.sessions.get(id).map(|session| session.budget.tally.clone()).unwrap_or_default()
        }
        Account::Agent(agent) => tenant.accounts.agent(agent),
        Account::Tenant => tenant.accounts.tenant().clone(),
    }
}

/// Tells what the accounts of a level spent.
#[must_use]
pub fn report(moment: &Moment, level: Level) -> SpendLevels {
    let tenant = &moment.stream.tenant;
    let row = |name: String, tally: &Tally| {
        let spent = |window| Usd(tally.spent_in(window, moment.at));
        SpendRow {
            name,
            hour: spent(Window::Hour),
            day: spent(Window::Day),
            month: spent(Window::Month),
            life: spent(Window::Life),
            held: Usd(tally.held),
        }
    };
    let (level, rows): (_, Vec<SpendRow>) = match level {
        Level::Session => {
            let sessions = tenant.sessions.newest_first().take(REPORT_LEN_MAX);
            ("session", sessions.map(|(id, it)| row(id.to_string(), &it.budget.tally)).collect())
        }
        Level::Agent => {
            let agents = tenant.accounts.agents().take(REPORT_LEN_MAX);
            ("agent", agents.map(|(id, tally)| row(id.to_string(), tally)).collect())
        }
        Level::Tenant => ("tenant", vec![row(String::new(), tenant.accounts.tenant())]),
    };
    SpendLevels { level, count: rows.len(), rows }
}

/// An amount that is set aside.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReservationRow {
    /// The reservation.
    pub authorization_id: String,
    /// The session that pays.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// The most that it may come to.
    pub amount: Usd,
    /// When it is given back by itself.
    pub expires_at: Epoch,
}

/// Lists what is set aside, by id.
#[must_use]
pub fn reservations(moment: &Moment) -> Vec<ReservationRow> {
    let open = moment.stream.tenant.reservations.open();
    open.filter(|(_, it)| moment.at <= it.expires_at)
        .map(|(id, it)| ReservationRow {
            authorization_id: id.to_string(),
            session_id: it.session_id.to_string(),
            agent_id: it.agent_id.to_string(),
            amount: Usd(it.amount),
            expires_at: Epoch(it.expires_at),
        })
        .collect()
}
