//! Clearance: whether a payment or a call needs an approval, and whether it has one.

use super::approvals::{Approval, Approvals, Status, Subject};
use super::id::ApprovalId;
use super::money::Money;
use super::time::Timestamp;

/// Whether a payment or a call may go on as far as approvals are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clearance {
    /// No rule applies, and no approval was named.
    NotNeeded,
    /// This approval covers it, and is used up by it.
    Covered(ApprovalId),
    /// It waits for this request, which was made before.
    Waits(ApprovalId),
    /// This request for the same was denied.
    Denied(ApprovalId),
    /// The approval that was named does not cover it.
    NotCovered(ApprovalId),
    /// It must be asked for, and so many must approve.
    Needed(u8),
}

/// Looks for an approval of a payment or a call. `wanted` is how many must approve for another reason than a rule.
pub(super) fn clearance(
    approvals: &Approvals,
    subject: &Subject,
    amount: Money,
    wanted: Option<u8>,
    named: Option<&ApprovalId>,
    at: Timestamp,
) -> Clearance {
    let required = approvals.required(&subject.tool, &subject.action, amount).max(wanted);
    let enough = |approval: &Approval| approval.approved_by.len() >= usize::from(required.unwrap_or(0));
    let covers =
        |approval: &Approval| approval.is_usable(at) && approval.covers(subject, amount) && enough(approval);
    if let Some(id) = named {
        return match approvals.get(id) {
            Some(approval) if covers(approval) => Clearance::Covered(id.clone()),
            _ => Clearance::NotCovered(id.clone()),
        };
    }
    let Some(required) = required else {
        return Clearance::NotNeeded;
    };
    let mut of_session = approvals.of_session(&subject.session_id);
    if let Some((id, _)) = of_session.find(|(_, approval)| covers(approval)) {
        return Clearance::Covered(id.clone());
    }
    if let Some((id, _)) = approvals.pending_for(subject, amount, at) {
        return Clearance::Waits(id.clone());
    }
    let denied = approvals.of_session(&subject.session_id).find(|(_, approval)| {
        let still_counts = approval.expires_at.is_none_or(|end| at <= end);
        let is_denied = matches!(approval.status, Status::Denied { .. });
        is_denied && still_counts && approval.subject == *subject && approval.amount == amount
    });
    denied.map_or(Clearance::Needed(required), |(id, _)| Clearance::Denied(id.clone()))
}
