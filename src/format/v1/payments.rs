//! Payloads of schema version 1 about delegation, caps and reservations, frozen like the rest of it.

use bincode::{Decode, Encode};

use super::Wire;
use crate::domain::accounts::{Account, Bound, BudgetSet, Window};
use crate::domain::delegation::{DelegationDenial, DelegationDenied};
use crate::domain::id::{AgentId, ApprovalId, AuthorizationId, SessionId};
use crate::domain::money::Money;
use crate::domain::reservations::{PaymentReleased, PaymentReserved, PaymentSettled, SettlementDenied};
use crate::domain::time::Timestamp;

#[derive(Encode, Decode)]
pub(super) struct DelegationDeniedWire {
    parent: String,
    agent_id: String,
    scopes: Vec<String>,
    cap_nanos: Option<u128>,
    reason: u8,
}

#[derive(Encode, Decode)]
pub(super) struct PaymentReservedWire {
    authorization_id: String,
    session_id: String,
    agent_id: String,
    amount_nanos: u128,
    currency: String,
    description: String,
    tool: String,
    action: String,
    approval_id: Option<String>,
    remaining_nanos: Option<u128>,
    ttl_s: u64,
    expires_at_us: u64,
}

#[derive(Encode, Decode)]
pub(super) struct PaymentSettledWire {
    authorization_id: String,
    session_id: String,
    agent_id: String,
    amount_nanos: u128,
    reserved_nanos: u128,
}

#[derive(Encode, Decode)]
pub(super) struct PaymentReleasedWire {
    authorization_id: String,
    session_id: String,
    agent_id: String,
    amount_nanos: u128,
    reason: u8,
}

#[derive(Encode, Decode)]
pub(super) struct SettlementDeniedWire {
    authorization_id: String,
    session_id: String,
    agent_id: String,
    amount_nanos: u128,
    reserved_nanos: u128,
}

#[derive(Encode, Decode)]
pub(super) struct BudgetSetWire {
    account: AccountWire,
    window: u8,
    limit_nanos: Option<u128>,
}

/// An account: its level, and its name there.
#[derive(Encode, Decode)]
struct AccountWire {
    level: u8,
    name: String,
}

impl From<&Account> for AccountWire {
    fn from(account: &Account) -> Self {
        let (level, name) = match account {
            Account::Session(session_id) => (0, session_id.to_string()),
            Account::Agent(agent_id) => (1, agent_id.to_string()),
            Account::Tenant => (2, String::new()),
        };
        Self { level, name }
    }
}

impl AccountWire {
    fn into_account(self) -> Result<Account, &'static str> {
        match self.level {
            0 => Ok(Account::Session(SessionId::parse(&self.name).ok_or("account")?)),
            1 => Ok(Account::Agent(AgentId::parse(&self.name).ok_or("account")?)),
            2 if self.name.is_empty() => Ok(Account::Tenant),
            _ => Err("account"),
        }
    }
}

/// A cap that does not hold an amount: on which account, and in which window.
#[derive(Encode, Decode)]
pub(in crate::format) struct BoundWire {
    account: AccountWire,
    window: u8,
}

impl From<&Bound> for BoundWire {
    fn from(bound: &Bound) -> Self {
        Self { account: AccountWire::from(&bound.account), window: window_code(bound.window) }
    }
}

impl BoundWire {
    pub(in crate::format) fn into_bound(self) -> Result<Bound, &'static str> {
        Ok(Bound { account: self.account.into_account()?, window: window_of(self.window)? })
    }
}

/// The code of a window.
const fn window_code(window: Window) -> u8 {
    match window {
        Window::Hour => 0,
        Window::Day => 1,
        Window::Month => 2,
        Window::Life => 3,
    }
}

/// The window with a code.
const fn window_of(code: u8) -> Result<Window, &'static str> {
    match code {
        0 => Ok(Window::Hour),
        1 => Ok(Window::Day),
        2 => Ok(Window::Month),
        3 => Ok(Window::Life),
        _ => Err("window"),
    }
}

impl From<&DelegationDenied> for DelegationDeniedWire {
    fn from(e: &DelegationDenied) -> Self {
        Self {
            parent: e.parent.to_string(),
            agent_id: e.agent_id.to_string(),
            scopes: e.scopes.clone(),
            cap_nanos: e.cap.map(Money::nanos),
            reason: match e.reason {
                DelegationDenial::ParentRevoked => 0,
                DelegationDenial::ParentExpired => 1,
                DelegationDenial::TooDeep => 2,
                DelegationDenial::ScopeBeyondParent => 3,
                DelegationDenial::BudgetBeyondParent => 4,
            },
        }
    }
}

impl Wire for DelegationDeniedWire {
    type Event = DelegationDenied;
    fn into_event(self) -> Result<DelegationDenied, &'static str> {
        Ok(DelegationDenied {
            parent: SessionId::parse(&self.parent).ok_or("parent")?,
            agent_id: AgentId::parse(&self.agent_id).ok_or("agent_id")?,
            scopes: self.scopes,
            cap: self.cap_nanos.map(Money::from_nanos),
            reason: match self.reason {
                0 => DelegationDenial::ParentRevoked,
                1 => DelegationDenial::ParentExpired,
                2 => DelegationDenial::TooDeep,
                3 => DelegationDenial::ScopeBeyondParent,
                4 => DelegationDenial::BudgetBeyondParent,
                _ => return Err("reason"),
            },
        })
    }
}

/// Who pays, and with which authorisation.
fn payer(
    authorization_id: &str,
    session_id: &str,
    agent_id: &str,
) -> Result<(AuthorizationId, SessionId, AgentId), &'static str> {
    Ok((
        AuthorizationId::parse(authorization_id).ok_or("authorization_id")?,
        SessionId::parse(session_id).ok_or("session_id")?,
        AgentId::parse(agent_id).ok_or("agent_id")?,
    ))
}

impl From<&PaymentReserved> for PaymentReservedWire {
    fn from(e: &PaymentReserved) -> Self {
        Self {
            authorization_id: e.authorization_id.to_string(),
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            amount_nanos: e.amount.nanos(),
            currency: e.currency.clone(),
            description: e.description.clone(),
            tool: e.tool.clone(),
            action: e.action.clone(),
            approval_id: e.approval_id.as_ref().map(ApprovalId::to_string),
            remaining_nanos: e.remaining.map(Money::nanos),
            ttl_s: e.ttl_s,
            expires_at_us: e.expires_at.micros(),
        }
    }
}

impl Wire for PaymentReservedWire {
    type Event = PaymentReserved;
    fn into_event(self) -> Result<PaymentReserved, &'static str> {
        let (authorization_id, session_id, agent_id) =
            payer(&self.authorization_id, &self.session_id, &self.agent_id)?;
        let approval_id = self.approval_id.map(|text| ApprovalId::parse(&text).ok_or("approval_id"));
        Ok(PaymentReserved {
            authorization_id,
            session_id,
            agent_id,
            amount: Money::from_nanos(self.amount_nanos),
            currency: self.currency,
            description: self.description,
            tool: self.tool,
            action: self.action,
            approval_id: approval_id.transpose()?,
            remaining: self.remaining_nanos.map(Money::from_nanos),
            ttl_s: self.ttl_s,
            expires_at: Timestamp::from_micros(self.expires_at_us),
        })
    }
}

impl From<&PaymentSettled> for PaymentSettledWire {
    fn from(e: &PaymentSettled) -> Self {
        Self {
            authorization_id: e.authorization_id.to_string(),
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            amount_nanos: e.amount.nanos(),
            reserved_nanos: e.reserved.nanos(),
        }
    }
}

impl Wire for PaymentSettledWire {
    type Event = PaymentSettled;
    fn into_event(self) -> Result<PaymentSettled, &'static str> {
        let (authorization_id, session_id, agent_id) =
            payer(&self.authorization_id, &self.session_id, &self.agent_id)?;
        let (amount, reserved) =
            (Money::from_nanos(self.amount_nanos), Money::from_nanos(self.reserved_nanos));
        Ok(PaymentSettled { authorization_id, session_id, agent_id, amount, reserved })
    }
}

impl From<&SettlementDenied> for SettlementDeniedWire {
    fn from(e: &SettlementDenied) -> Self {
        Self {
            authorization_id: e.authorization_id.to_string(),
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            amount_nanos: e.amount.nanos(),
            reserved_nanos: e.reserved.nanos(),
        }
    }
}

impl Wire for SettlementDeniedWire {
    type Event = SettlementDenied;
    fn into_event(self) -> Result<SettlementDenied, &'static str> {
        let (authorization_id, session_id, agent_id) =
            payer(&self.authorization_id, &self.session_id, &self.agent_id)?;
        let (amount, reserved) =
            (Money::from_nanos(self.amount_nanos), Money::from_nanos(self.reserved_nanos));
        Ok(SettlementDenied { authorization_id, session_id, agent_id, amount, reserved })
    }
}

impl From<&PaymentReleased> for PaymentReleasedWire {
    fn from(e: &PaymentReleased) -> Self {
        Self {
            authorization_id: e.authorization_id.to_string(),
            session_id: e.session_id.to_string(),
            agent_id: e.agent_id.to_string(),
            amount_nanos: e.amount.nanos(),
            reason: u8::from(e.has_expired),
        }
    }
}

impl Wire for PaymentReleasedWire {
    type Event = PaymentReleased;
    fn into_event(self) -> Result<PaymentReleased, &'static str> {
        let (authorization_id, session_id, agent_id) =
            payer(&self.authorization_id, &self.session_id, &self.agent_id)?;
        let has_expired = match self.reason {
            0 => false,
            1 => true,
            _ => return Err("reason"),
        };
        let amount = Money::from_nanos(self.amount_nanos);
        Ok(PaymentReleased { authorization_id, session_id, agent_id, amount, has_expired })
    }
}

impl From<&BudgetSet> for BudgetSetWire {
    fn from(e: &BudgetSet) -> Self {
        let (account, window) = (AccountWire::from(&e.account), window_code(e.window));
        Self { account, window, limit_nanos: e.limit.map(Money::nanos) }
    }
}

impl Wire for BudgetSetWire {
    type Event = BudgetSet;
    fn into_event(self) -> Result<BudgetSet, &'static str> {
        let (account, window) = (self.account.into_account()?, window_of(self.window)?);
        Ok(BudgetSet { account, window, limit: self.limit_nanos.map(Money::from_nanos) })
    }
}
