//! The payloads of schema version 2, frozen. See "Kinds, schema version 2" in ledger-format.md.
//!
//! Each is the payload of version 1 with more fields after it, and is used only for an event that version 1 cannot carry. So
//! every event still has exactly one encoding, and what needs nothing new looks as it always did.

use bincode::{Decode, Encode};

use super::entry::EntryError;
use super::v1::{
    BoundWire, PAYMENT_AUTHORIZED, PAYMENT_DENIED, PaymentAuthorizedWire, PaymentDeniedWire, SESSION_OPENED,
    SessionOpenedWire, Wire, bytes, idempotency_of, read,
};
use crate::domain::budgets::{PaymentAuthorized, PaymentDenial, PaymentDenied};
use crate::domain::id::{ApprovalId, SessionId};
use crate::domain::replays::Idempotency;
use crate::domain::sessions::SessionOpened;
use crate::domain::{Event, Recorded};

/// The schema version of everything in this file.
pub(super) const SCHEMA: u16 = 2;

#[derive(Encode, Decode)]
struct SessionBelowWire {
    session: SessionOpenedWire,
    parent: String,
}

#[derive(Encode, Decode)]
struct PaymentByWire {
    payment: PaymentAuthorizedWire,
    tool: String,
    action: String,
    approval_id: Option<String>,
}

#[derive(Encode, Decode)]
struct PaymentDeniedByWire {
    payment: PaymentDeniedWire,
    tool: String,
    action: String,
    bound: Option<BoundWire>,
    approval_id: Option<String>,
}

/// Whether version 1 cannot carry an event.
fn is_needed(event: &Event) -> bool {
    let is_by = |tool: &str, action: &str, approval_id: &Option<ApprovalId>| {
        !tool.is_empty() || !action.is_empty() || approval_id.is_some()
    };
    if let Event::SessionOpened(e) = event {
        return e.parent.is_some();
    }
    if let Event::PaymentAuthorized(e) = event {
        return is_by(&e.tool, &e.action, &e.approval_id);
    }
    if let Event::PaymentDenied(e) = event {
        let is_new = matches!(
            e.reason,
            PaymentDenial::ApprovalNotCovering
                | PaymentDenial::ApprovalDenied
                | PaymentDenial::ApprovalRequired
        );
        return is_new || e.bound.is_some() || is_by(&e.tool, &e.action, &e.approval_id);
    }
    false
}

/// Encodes an event: its kind and payload; `None` for one that version 1 carries.
///
/// # Errors
///
/// [`EntryError::Payload`] when the event is far larger than a payload can be.
pub(super) fn encode(recorded: &Recorded) -> Result<Option<(u16, Vec<u8>)>, EntryError> {
    if !is_needed(&recorded.event) {
        return Ok(None);
    }
    let idempotency = idempotency_of(recorded);
    if let Event::SessionOpened(e) = &recorded.event {
        return Ok(Some((SESSION_OPENED, bytes(idempotency, SessionBelowWire::from(e))?)));
    }
    if let Event::PaymentAuthorized(e) = &recorded.event {
        return Ok(Some((PAYMENT_AUTHORIZED, bytes(idempotency, PaymentByWire::from(e))?)));
    }
    if let Event::PaymentDenied(e) = &recorded.event {
        return Ok(Some((PAYMENT_DENIED, bytes(idempotency, PaymentDeniedByWire::from(e))?)));
    }
    Ok(None)
}

/// Decodes a payload. Accepts only what [`encode`] gives for the same event.
///
/// # Errors
///
/// [`EntryError::Kind`] for an event this program does not know, [`EntryError::Payload`] for any other bytes.
pub(super) fn decode(kind: u16, payload: &[u8]) -> Result<(Option<Idempotency>, Event), EntryError> {
    let decoded = match kind {
        SESSION_OPENED => read::<SessionBelowWire>(payload, Event::SessionOpened),
        PAYMENT_AUTHORIZED => read::<PaymentByWire>(payload, Event::PaymentAuthorized),
        PAYMENT_DENIED => read::<PaymentDeniedByWire>(payload, Event::PaymentDenied),
        _ => Err(EntryError::Kind { kind, schema: SCHEMA }),
    }?;
    if !is_needed(&decoded.1) {
        return Err(EntryError::Payload("not the only encoding: version 1 carries it".to_owned()));
    }
    Ok(decoded)
}

impl From<&SessionOpened> for SessionBelowWire {
    fn from(e: &SessionOpened) -> Self {
        let parent = e.parent.as_ref().map(SessionId::to_string).unwrap_or_default();
        Self { session: e.into(), parent }
    }
}

impl Wire for SessionBelowWire {
    type Event = SessionOpened;
    fn into_event(self) -> Result<SessionOpened, &'static str> {
        let parent = Some(SessionId::parse(&self.parent).ok_or("parent")?);
        Ok(SessionOpened { parent, ..self.session.into_event()? })
    }
}

impl From<&PaymentAuthorized> for PaymentByWire {
    fn from(e: &PaymentAuthorized) -> Self {
        let approval_id = e.approval_id.as_ref().map(ApprovalId::to_string);
        Self { payment: e.into(), tool: e.tool.clone(), action: e.action.clone(), approval_id }
    }
}

impl Wire for PaymentByWire {
    type Event = PaymentAuthorized;
    fn into_event(self) -> Result<PaymentAuthorized, &'static str> {
        let Self { payment, tool, action, approval_id } = self;
        let approval_id = parse_approval_id(approval_id)?;
        Ok(PaymentAuthorized { tool, action, approval_id, ..payment.into_event()? })
    }
}

impl From<&PaymentDenied> for PaymentDeniedByWire {
    fn from(e: &PaymentDenied) -> Self {
        Self {
            payment: e.into(),
            tool: e.tool.clone(),
            action: e.action.clone(),
            bound: e.bound.as_ref().map(BoundWire::from),
            approval_id: e.approval_id.as_ref().map(ApprovalId::to_string),
        }
    }
}

impl Wire for PaymentDeniedByWire {
    type Event = PaymentDenied;
    fn into_event(self) -> Result<PaymentDenied, &'static str> {
        let Self { payment, tool, action, bound, approval_id } = self;
        let approval_id = parse_approval_id(approval_id)?;
        let bound = bound.map(BoundWire::into_bound).transpose()?;
        let (payment, reason) = match payment.reason() {
            // Version 1 knows only its own reasons.
            4 => (payment.with_reason(3), PaymentDenial::ApprovalNotCovering),
            5 => (payment.with_reason(3), PaymentDenial::ApprovalDenied),
            6 => (payment.with_reason(3), PaymentDenial::ApprovalRequired),
            _ => {
                let payment = payment.into_event()?;
                return Ok(PaymentDenied { tool, action, bound, approval_id, ..payment });
            }
        };
        Ok(PaymentDenied { tool, action, reason, bound, approval_id, ..payment.into_event()? })
    }
}

fn parse_approval_id(text: Option<String>) -> Result<Option<ApprovalId>, &'static str> {
    text.map(|text| ApprovalId::parse(&text).ok_or("approval_id")).transpose()
}
